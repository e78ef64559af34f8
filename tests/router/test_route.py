"""The one loop that delivers, retries, acknowledges and counts, under a clock that jumps.

Every test here also adds up the route's books after each single step of any task.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
import trio
import trio.lowlevel
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from logroute.router import load
from logroute.router.database import StateError
from logroute.router.overflow import PATIENCE_S, STANDS_S
from logroute.router.position import BEGINNING
from logroute.router.queue import BATCH_OVERHEAD_BYTES, QueueStatistics
from logroute.router.record import Batch, DetailedRecord, Origin
from logroute.router.route import COMMIT_EVERY_S, END_WITHIN_S, Route, RouteSettings
from logroute.router.state import RouteState
from logroute.sinks import (
    DELIVERED,
    FileLength,
    Outcome,
    Postponed,
    Refused,
    Rejected,
    Retryable,
    SinkGone,
    SinkStatistics,
)
from logroute.sinks.encoding import encoder
from tests.router.stand_ins import StandInSink, Step, batch, inline, number_of, origin

pytestmark = pytest.mark.usefixtures("no_threads")

WEB, DB = origin("web"), origin("db")


class Books(trio.abc.Instrument):
    """Adds up the books whenever a task has made a step."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.wrong: list[str] = []
        self.steps = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        book = self.route.statistics()
        self.steps += 1
        dropped = sum(book.dropped.values())
        parts = (
            book.delivered + book.duplicates + book.rejected + dropped + book.queue.records + book.in_flight
        )
        if book.received != parts or min(book.delivered, book.in_flight, book.queue.records) < 0:
            self.wrong.append(f"{task.name}: {book}")


class Room:
    """Who waits for room is told as the router tells it."""

    def __init__(self) -> None:
        self.again = trio.Event()

    def __call__(self) -> None:
        self.again.set()
        self.again = trio.Event()


def make(
    script: Sequence[Exception | Step | float] = (),
    folder: Path | None = None,
    sink: Callable[[Route, Sequence[Any]], StandInSink] = StandInSink,
    **changes: Any,
) -> Route:
    return Route(
        RouteSettings("all", **changes),
        lambda route: sink(route, script),
        state_folder=folder,
        on_room=Room(),
    )


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[RouteState]:
    """What a route has left behind."""
    state = RouteState("all", folder)
    await state.open()
    try:
        yield state
    finally:
        await state.close()


def sink_of(route: Route) -> StandInSink:
    assert isinstance(route.sink, StandInSink)
    return route.sink


@asynccontextmanager
async def running(route: Route) -> AsyncIterator[StandInSink]:
    """Runs it; at the end its queue is closed, and it delivers what is left."""
    books = Books(route)
    await route.open()
    trio.lowlevel.add_instrument(books)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(route.run)
            yield sink_of(route)
            route.queue.close()
    finally:
        trio.lowlevel.remove_instrument(books)
    assert books.steps
    assert books.wrong == []


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


def numbers(count: int, of: Any = WEB, start: int = 1) -> list[Batch]:
    return [batch(of, [number]) for number in range(start, start + count)]


def gaps(times: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every pause is as long as it may be; what the pauses could have been at most."""
    ceilings: list[float] = []

    def uniform(low: float, high: float) -> float:
        assert low == 0
        ceilings.append(high)
        return high

    monkeypatch.setattr(random, "uniform", uniform)
    return ceilings


# --- delivering -------------------------------------------------------------------------------------


async def test_everything_is_delivered_in_order_and_counted(autojump_clock: trio.testing.MockClock) -> None:
    route = make([0.5, 0.5])
    async with running(route) as sink:
        route.put(numbers(3))
        await trio.sleep(0.1)
        route.put([*numbers(2, DB), *numbers(2, start=4)])
        await trio.sleep(0.1)
        book = route.statistics()
        assert (book.received, book.in_flight, book.queue.records) == (7, 3, 4)
    assert [name for name, _ in sink.got] == ["web"] * 3 + ["db"] * 2 + ["web"] * 2
    assert sink.messages == ["1", "2", "3", "1", "2", "4", "5"]
    book = route.statistics()
    assert (book.received, book.delivered, book.up) == (7, 7, True)
    assert route.undelivered == 0


@pytest.mark.parametrize(
    ("changes", "deliveries"),
    [({}, 1), ({"batch_records": 2}, 3), ({"batch_bytes": 200}, 3), ({"batch_bytes": 1}, 6)],
)
async def test_the_configuration_of_a_route_is_stronger_than_what_suits_the_sink(
    autojump_clock: trio.testing.MockClock, changes: dict[str, Any], deliveries: int
) -> None:
    route = make(**changes)
    async with running(route) as sink:
        route.put(numbers(6))
    assert len(sink.called("deliver")) == deliveries


async def test_records_are_gathered_as_long_as_the_route_says(autojump_clock: trio.testing.MockClock) -> None:
    route = make(batch_wait_s=2)
    async with running(route) as sink:
        for each in numbers(10):
            route.put([each])
            await trio.sleep(0.3)
        await trio.sleep(10)
    assert sink.called("deliver") == [pytest.approx(2), pytest.approx(4.1)]


async def test_an_empty_batch_moves_the_checkpoint_and_troubles_no_sink(
    autojump_clock: trio.testing.MockClock,
) -> None:
    route = make()
    async with running(route) as sink:
        route.put([batch(WEB, [1, 2, 3]).with_records([], 0)])
        await settled()
        assert number_of(route.state.positions[WEB.key]) == 3
    assert sink.called("deliver") == []


# --- trying again -----------------------------------------------------------------------------------


async def test_pauses_double_up_to_the_longest(
    autojump_clock: trio.testing.MockClock, longest: list[float]
) -> None:
    down = Retryable("refused")
    route = make([down] * 10, retry_initial_s=0.5, retry_max_s=60)
    async with running(route) as sink:
        route.put(numbers(1))
    expected = [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert longest == expected
    assert gaps(sink.called("deliver")) == [pytest.approx(each) for each in expected]


async def test_pauses_are_anything_from_nothing_to_the_longest(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Full jitter: many daemons whose receiver comes back do not come back at the same instant."""
    route = make([Retryable("refused")] * 400, retry_initial_s=10, retry_max_s=10)
    async with running(route) as sink:
        route.put(numbers(1))
    pauses = gaps(sink.called("deliver"))
    assert len(pauses) == 400
    assert 0 <= min(pauses) < 0.5
    assert 9.5 < max(pauses) <= 10
    assert 4 < sum(pauses) / len(pauses) < 6


async def test_pauses_begin_anew_after_a_success(
    autojump_clock: trio.testing.MockClock, longest: list[float]
) -> None:
    down = Retryable("refused")
    route = make([down, down, 0.0, down], batch_records=1, retry_initial_s=1)
    async with running(route) as sink:
        route.put(numbers(2))
    assert longest == [1, 2, 1]
    assert sink.messages == ["1", "2"]


@pytest.mark.parametrize("group", [False, True])
async def test_the_receiver_is_given_the_time_that_it_asks_for(
    autojump_clock: trio.testing.MockClock, longest: list[float], group: bool
) -> None:
    slow: Exception = Retryable("429 Too Many Requests", after_s=7)
    if group:  # what a nursery of the sink's own makes of it
        slow = ExceptionGroup("", [ExceptionGroup("", [slow])])
    route = make([slow, Retryable("503", after_s=0.001)], retry_initial_s=2)
    async with running(route) as sink:
        route.put(numbers(1))
        await trio.sleep(1)
        assert route.statistics().reason == "429 Too Many Requests"
    assert gaps(sink.called("deliver")) == [pytest.approx(7), pytest.approx(4)]


async def test_three_thousand_failures_are_no_more_than_one(
    autojump_clock: trio.testing.MockClock, longest: list[float]
) -> None:
    route = make([Retryable("refused")] * 3000)
    async with running(route) as sink:
        route.put(numbers(1))
    assert sink.messages == ["1"]
    assert route.statistics().retried == 3000


async def raise_a_group(sink: StandInSink, batches: Sequence[Batch]) -> Outcome:
    async def fail(error: Exception) -> None:
        raise error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail, ValueError("one"))
        nursery.start_soon(fail, Retryable("two"))
    return ()


async def say_nothing(sink: StandInSink, batches: Sequence[Batch]) -> Outcome:
    return 7  # type: ignore[return-value]  # what a sink without types may do


async def reject_too_much(sink: StandInSink, batches: Sequence[Batch]) -> Outcome:
    return [Rejected(0, batches[0].records[0], "no")] * 9


async def reject_what_was_not_given(sink: StandInSink, batches: Sequence[Batch]) -> Outcome:
    return [Rejected(5, batches[0].records[0], "no")]


@pytest.mark.parametrize(
    "fault",
    [
        Retryable("for now"), ValueError("a bug"), OSError(5, "broken"), KeyError(), AssertionError(),
        StopAsyncIteration(), NotImplementedError(), UnicodeError(), ExceptionGroup("g", [ValueError("a")]),
        raise_a_group, say_nothing, reject_too_much, reject_what_was_not_given,
    ],
    ids=lambda fault: getattr(fault, "__name__", type(fault).__name__),
)  # fmt: skip
async def test_whatever_a_sink_does_is_tried_again_counted_and_said(
    autojump_clock: trio.testing.MockClock,
    fault: Any,
    longest: list[float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    route = make([fault, fault])
    async with running(route) as sink:
        route.put(numbers(2))
        await trio.sleep(0.1)
        book = route.statistics()
        assert (book.up, book.in_flight, book.delivered) == (False, 2, 0)
        assert book.reason
    assert sink.messages[-2:] == ["1", "2"]
    book = route.statistics()
    assert (book.delivered, book.retried, book.rejected, book.up, book.reason) == (2, 4, 0, True, "")
    # Each attempt begins with a sink that was opened anew.
    assert len(sink.called("open")) == 3
    said = capsys.readouterr().out
    assert "trying again" in said
    assert "the route delivers again" in said


def bad_records() -> list[DetailedRecord]:
    """What strangers' processors may make: nobody has checked it."""

    class Silent:
        def __str__(self) -> str:
            raise ValueError("no")

    circle: dict[str, Any] = {"a": 1}
    circle["all"] = circle
    made: list[dict[str, Any]] = [
        {"fields": circle},
        {"part": 5},
        {"fields": {"x": Silent(), "b": 2}},
        {"fields": {"n": 10**5000}},
        {"place": 7},
    ]
    return [
        msgspec.structs.replace(
            DetailedRecord(f"bad {n}", "stdout", "2026-03-10T12:00:00.000000001Z"), **each
        )
        for n, each in enumerate(made)
    ]


@pytest.mark.parametrize("bad", bad_records(), ids=["circle", "part", "object", "number", "place"])
async def test_a_record_that_cannot_be_written_goes_on_marked_and_holds_up_nothing(
    autojump_clock: trio.testing.MockClock, bad: DetailedRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    encode, taken = encoder("json"), list[bytes]()

    async def write(sink: StandInSink, batches: Sequence[Batch]) -> Sequence[Rejected]:
        taken.extend(encode(batch) for batch in batches)
        return ()

    route = make([write, write, write])
    async with running(route):
        route.put([batch(WEB, [1]).with_records([bad]), *numbers(1, start=2)])
        await trio.sleep(0.1)
    book = route.statistics()
    assert (book.delivered, book.retried, book.up) == (2, 0, True)
    marked = msgspec.json.decode(taken[0])
    assert marked["error"]["message"] == "what a processor has made of this record cannot be written"
    assert "they go on marked" in capsys.readouterr().out


async def test_records_behind_a_failure_keep_their_order(autojump_clock: trio.testing.MockClock) -> None:
    route = make([Retryable("refused"), Retryable("refused")], batch_records=2)
    async with running(route) as sink:
        for each in numbers(20):
            route.put([each])
            await trio.sleep(0.1)
    assert sink.messages == [str(number) for number in range(1, 21)]


async def test_a_sink_that_is_down_at_the_start_is_known_before_there_is_a_record(
    autojump_clock: trio.testing.MockClock,
) -> None:
    route = make()
    sink_of(route).down = Retryable("connection refused")
    async with running(route) as sink:
        await trio.sleep(1)
        assert (route.statistics().up, route.statistics().reason) == (False, "connection refused")
        route.put(numbers(1))
        await trio.sleep(60)
        assert len(sink.called("open")) > 3
        sink.down = None
    assert sink.messages == ["1"]
    assert route.statistics().up


async def test_a_route_without_records_ends_although_its_sink_is_down(
    autojump_clock: trio.testing.MockClock,
) -> None:
    route = make()
    sink_of(route).down = Retryable("connection refused")
    async with running(route):
        await trio.sleep(1)
    assert trio.current_time() == pytest.approx(1)


# --- rejecting and giving up ------------------------------------------------------------------------


async def test_rejected_records_are_counted_and_said_and_the_others_acknowledged(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    async def reject_even(sink: StandInSink, batches: Sequence[Batch]) -> Outcome:
        return [
            Rejected(index, record, "no even ones")
            for index, each in enumerate(batches)
            for record in each.records
            if int(record.message) % 2 == 0
        ]

    route = make([reject_even])
    async with running(route):
        route.put(numbers(5))
    book = route.statistics()
    assert (book.received, book.delivered, book.rejected) == (5, 3, 2)
    assert number_of(route.state.positions[WEB.key]) == 5
    said = capsys.readouterr().out
    assert said.count("a record was rejected") == 1  # said once a minute, counted always
    assert "no even ones" in said


async def test_a_rejected_record_of_a_file_names_its_file(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    async def reject(sink: StandInSink, batches: Sequence[Batch]) -> Outcome:
        return [Rejected(index, each.records[0], "no") for index, each in enumerate(batches)]

    async with running(route := make([reject])):
        route.put(numbers(1, Origin("file:/a.log", "files", file="/a.log")))
    assert "container=/a.log" in capsys.readouterr().out


@pytest.mark.parametrize("error", [SinkGone("closed"), ExceptionGroup("", [SinkGone("closed")])])
async def test_a_sink_that_is_gone_ends_its_route_and_what_is_left_is_dropped(
    autojump_clock: trio.testing.MockClock, error: Exception
) -> None:
    route = make([0.0, error], batch_records=1)
    async with running(route):
        route.put(numbers(4))
    book = route.statistics()
    assert (book.received, book.delivered, book.dropped, book.queue.records) == (4, 1, {"gone": 3}, 0)
    assert (book.up, book.reason) == (False, "closed")
    assert isinstance(route.gone, SinkGone)
    # Not delivered: it stays behind the checkpoint.
    assert number_of(route.state.positions[WEB.key]) == 1


async def test_a_sink_that_is_gone_at_the_start_ends_its_route(
    autojump_clock: trio.testing.MockClock,
) -> None:
    route = make()
    sink_of(route).down = SinkGone("closed")
    async with running(route):
        await settled()
        assert route.gone is not None


class Watching(StandInSink):
    """Notices after two seconds that the receiver is gone, whatever its deliveries do."""

    async def run(self) -> None:
        await trio.sleep(2)
        raise SinkGone("noticed")


@pytest.mark.parametrize("takes_s", [0.0, 1.0, 2.0, 3.0, math.inf])
async def test_a_sink_that_notices_beside_a_delivery_that_its_receiver_is_gone(
    autojump_clock: trio.testing.MockClock, takes_s: float
) -> None:
    """The delivery may end before, at the very instant, after, or never."""
    route = make([takes_s], sink=Watching)
    async with running(route) as sink:
        await settled()
        route.put(numbers(3))
        await trio.sleep(1)
        route.put(numbers(2, start=4))
        await trio.sleep(5)
        assert route.gone is not None
    assert sink.called("close") == [pytest.approx(2)]
    book = route.statistics()
    assert book.delivered + book.dropped.get("gone", 0) == 5
    assert book.delivered == len(sink.got) or takes_s == 2.0
    assert len(sink.called("deliver")) <= 2


# --- acknowledging ----------------------------------------------------------------------------------


async def test_the_checkpoint_moves_with_each_acknowledgement_and_never_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    down = Retryable("refused")
    route = make([down, 1.0, down, down, 0.0, 0.0, 0.0], batch_records=2)
    sink = sink_of(route)
    history: list[int] = []

    class Watch(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            where = route.state.positions.get(WEB.key)
            history.append(number_of(where) if where else 0)
            assert history[-1] <= len(sink.got)

    watch = Watch()
    async with running(route):
        trio.lowlevel.add_instrument(watch)
        route.put(numbers(8))
    trio.lowlevel.remove_instrument(watch)  # one that fails is removed: KeyError
    assert sorted(set(history)) == [0, 2, 4, 6, 8]
    assert history == sorted(history)


async def test_acknowledgements_are_stored_four_times_a_second_at_most(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits: list[tuple[float, int]] = []
    store = RouteState._store

    def note(self: RouteState, changes: Any, *rest: Any) -> Any:
        numbers = [number_of(p) for p in changes.positions.values()]
        commits.append((trio.current_time(), max(numbers, default=0)))
        return store(self, changes, *rest)

    monkeypatch.setattr(RouteState, "_store", note)
    route = make()
    async with running(route):
        for each in numbers(500):
            route.put([each])
            await trio.sleep(0.01)
        await trio.sleep(COMMIT_EVERY_S + 0.01)
        assert commits[-1][1] == 500
        times = [at for at, _ in commits]
        assert len(times) == pytest.approx(5 / COMMIT_EVERY_S, abs=2)
        assert min(gaps(times)) >= COMMIT_EVERY_S
        await trio.sleep(10)
        assert len(commits) == len(times)  # nothing new, nothing stored


class Writing(StandInSink):
    """Like a file sink: a barrier before its first byte, its length in its last step."""

    length = 0

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        await self.context.commit()
        await super().deliver(batches)
        await trio.sleep(0.1)
        self.length += sum(len(each) for each in batches)
        self.context.files["/out"] = FileLength("print", 1, self.length)
        return DELIVERED


async def test_every_transaction_holds_the_lengths_and_the_checkpoints_of_the_same_deliveries(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stored: list[int] = []
    store = RouteState._store

    def look(self: RouteState, *args: Any) -> Any:
        result = store(self, *args)
        assert self._database is not None
        lengths = [length for (length,) in self._database.execute("select length from files")]
        (count,) = self._database.execute("select count(*) from checkpoints").fetchone()
        assert len(lengths) == count
        if lengths:
            assert lengths == [number_of(self.positions[WEB.key])]
        stored.append(lengths[0] if lengths else 0)
        return result

    monkeypatch.setattr(RouteState, "_store", look)
    route = make(folder=tmp_path, sink=Writing, batch_records=1)
    async with running(route):
        route.put(numbers(9))
    assert stored[-1] == 9
    assert stored == sorted(stored)


async def test_checkpoints_that_cannot_be_stored_stop_no_delivery(
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def fail(self: RouteState) -> None:
        raise StateError("no space")

    route = make()
    commit = RouteState.commit
    async with running(route) as sink:
        monkeypatch.setattr(RouteState, "commit", fail)
        for each in numbers(20):
            route.put([each])
            await trio.sleep(1)
        monkeypatch.setattr(RouteState, "commit", commit)
    assert len(sink.got) == 20
    assert "checkpoints are not stored; a crash now would deliver again" in capsys.readouterr().out


async def test_a_barrier_that_cannot_be_stored_is_a_delivery_that_failed_for_now(
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def fail(self: RouteState) -> None:
        raise StateError("no space")

    route = make(sink=Writing)
    async with running(route) as sink:
        with monkeypatch.context() as patch:
            patch.setattr(RouteState, "commit", fail)
            route.put(numbers(1))
            await trio.sleep(5)
            assert (sink.got, route.statistics().reason) == ([], "no space")
    assert sink.messages == ["1"]
    assert "the sink failed" not in capsys.readouterr().out


# --- ending -----------------------------------------------------------------------------------------


async def test_a_route_that_is_cancelled_stores_what_was_acknowledged_and_closes_its_sink(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    route = make([0.0, math.inf], tmp_path, batch_records=2)
    await route.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(route.run)
        route.put(numbers(4))
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert sink_of(route).calls[-1][1] == "close"
    assert (route.statistics().in_flight, route.undelivered) == (2, 2)
    stored = RouteState("all", tmp_path)
    await stored.open()
    assert number_of(stored.positions[WEB.key]) == 2
    await stored.close()


class ClosingBadly(StandInSink):
    hangs = False

    async def close(self) -> None:
        await super().close()
        if self.hangs:
            await trio.sleep_forever()
        raise RuntimeError("cannot close")


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_sink_that_does_not_close_takes_no_checkpoint_with_it(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, hangs: bool
) -> None:
    route = make(folder=tmp_path, sink=ClosingBadly)
    assert isinstance(route.sink, ClosingBadly)
    route.sink.hangs = hangs
    async with running(route):
        route.put(numbers(3))
    assert trio.current_time() == pytest.approx(END_WITHIN_S if hangs else 0)
    stored = RouteState("all", tmp_path)
    await stored.open()
    assert number_of(stored.positions[WEB.key]) == 3
    await stored.close()


class GroupWhenCancelled(StandInSink):
    """Its nursery makes a group of our cancellation and of what went wrong because of it."""

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        async def fail_to_clean_up() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise OSError("cannot clean up")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_to_clean_up)
            nursery.start_soon(trio.sleep_forever)
        return DELIVERED


async def test_a_sink_that_fails_while_it_is_cancelled_ends_nothing_else(
    autojump_clock: trio.testing.MockClock,
) -> None:
    route = make(sink=GroupWhenCancelled)
    await route.open()
    route.put(numbers(1))
    with trio.move_on_after(1) as scope:
        await route.run()
    assert scope.cancelled_caught


# --- idle and background work -----------------------------------------------------------------------


class Idling(StandInSink):
    idle_s = 10.0


async def test_idle_is_called_when_nothing_is_delivered(autojump_clock: trio.testing.MockClock) -> None:
    route = make(sink=Idling)
    async with running(route) as sink:
        await trio.sleep(35)
    assert sink.called("idle") == [pytest.approx(10), pytest.approx(20), pytest.approx(30)]


async def test_idle_is_called_however_much_is_delivered(autojump_clock: trio.testing.MockClock) -> None:
    route = make([0.1] * 310, sink=Idling, batch_records=1)
    async with running(route) as sink:
        route.put(numbers(310))
        await trio.sleep(35)
    assert sink.called("idle") == [pytest.approx(each, abs=0.5) for each in (10, 20, 30)]
    assert len(sink.got) == 310


async def test_idle_takes_no_time_from_the_gathering_of_a_delivery(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """With `rotate.idle` shorter than `batch.wait`, nothing was ever delivered."""
    route = make(sink=Idling, batch_wait_s=25)
    async with running(route) as sink:
        route.put(numbers(1))
        await trio.sleep(40)
        assert sink.called("deliver") == [pytest.approx(25)]
        assert sink.called("idle")


class IdlingBadly(StandInSink):
    idle_s = 10.0

    async def idle(self) -> None:
        await super().idle()
        raise Retryable("cannot")


async def test_a_sink_that_cannot_tidy_up_is_opened_again(autojump_clock: trio.testing.MockClock) -> None:
    route = make(sink=IdlingBadly)
    async with running(route) as sink:
        await trio.sleep(15)
        route.put(numbers(1))
    assert [what for _, what in sink.calls] == ["open", "idle", "open", "deliver", "close"]


async def test_idle_is_not_called_on_a_sink_that_is_not_open(autojump_clock: trio.testing.MockClock) -> None:
    route = make(sink=Idling)
    sink_of(route).down = Retryable("refused")
    async with running(route) as sink:
        await trio.sleep(35)
    assert sink.called("idle") == []


class WorkingBadly(StandInSink):
    runs = 0

    async def run(self) -> None:
        self.runs += 1
        if self.runs <= 1100:
            raise RuntimeError("no")


async def test_background_work_that_fails_is_started_again_after_a_pause_and_delays_no_delivery(
    autojump_clock: trio.testing.MockClock,
) -> None:
    route = make(sink=WorkingBadly)
    async with running(route) as sink:
        assert isinstance(sink, WorkingBadly)
        await trio.sleep(0.5)
        assert sink.runs == 1
        await trio.sleep(1)
        assert sink.runs == 2
        route.put(numbers(1))
        await settled()
        assert sink.messages == ["1"]
        await trio.sleep(60 * 1100)
        assert sink.runs == 1101


async def test_background_work_begins_when_the_sink_is_open(autojump_clock: trio.testing.MockClock) -> None:
    route = make(sink=WorkingBadly)
    sink_of(route).down = Retryable("refused")
    async with running(route) as sink:
        assert isinstance(sink, WorkingBadly)
        await trio.sleep(100)
        assert sink.runs == 0


async def test_a_word_that_repeats_is_said_once_a_minute(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    route = make()
    for _ in range(130):
        route.warn("trouble", path="/x")
        route.warn("other trouble")
        await trio.sleep(1)
    lines = [line for line in capsys.readouterr().out.splitlines() if "trouble" in line]
    assert len(lines) == 6
    assert sum("repeated=59" in line for line in lines) == 4


@pytest.mark.parametrize("failure", [Retryable("refused"), OSError("odd")])
async def test_a_receiver_that_comes_and_goes_does_not_flood_the_log(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str], failure: Exception
) -> None:
    route = make([failure, 0.1] * 2000, batch_records=1, retry_initial_s=0.01, retry_max_s=0.01)
    async with running(route):
        for _ in range(600):
            route.put(numbers(1))
            await trio.sleep(0.2)
        assert route.statistics().retried > 500
        # It comes, and stays: whoever reads the log knows that.
        sink_of(route).script.clear()
        await trio.sleep(61)
        route.put(numbers(1))
        await trio.sleep(1)
        assert route.statistics().up
    said = capsys.readouterr().out
    failures, successes = said.count("trying again"), said.count("the route delivers again")
    assert (failures, successes) == (2, 2)
    assert said.rindex("trying again") < said.rindex("the route delivers again")


# --- whatever happens -------------------------------------------------------------------------------

PUT, WAIT, TAKES, FAILS, BREAKS, REJECTS = range(6)
actions = st.lists(
    st.one_of(
        st.tuples(st.just(PUT), st.integers(1, 5)),
        st.tuples(st.just(WAIT), st.floats(0, 3)),
        st.tuples(st.just(TAKES), st.floats(0, 3)),
        st.tuples(st.just(FAILS), st.floats(0, 30)),
        st.tuples(st.just(BREAKS), st.just(0)),
        st.tuples(st.just(REJECTS), st.just(0)),
    ),
    max_size=40,
)


async def reject_the_first(sink: StandInSink, batches: Sequence[Batch]) -> Outcome:
    await trio.sleep(0.1)
    return [Rejected(0, batches[0].records[0], "no")]


@given(actions=actions, records=st.integers(1, 7), wait_s=st.sampled_from([0, 0.5]), gone=st.booleans())
@settings(deadline=None, max_examples=60)
def test_whatever_happens_the_books_are_right_and_every_record_arrives_once_and_in_order(
    actions: list[tuple[int, float]], records: int, wait_s: float, gone: bool
) -> None:
    script: list[Exception | Step | float] = []
    for kind, value in actions:
        if kind == TAKES:
            script.append(value)
        elif kind == FAILS:
            script.append(Retryable("refused", after_s=value))
        elif kind == BREAKS:
            script.append(ValueError("a bug"))
        elif kind == REJECTS:
            script.append(reject_the_first)
    if gone:
        script.append(SinkGone("gone"))
    route = None

    async def main() -> tuple[Route, int, int]:
        number = 0
        route = make(script, batch_records=records, batch_wait_s=wait_s)
        async with running(route):
            for kind, value in actions:
                if kind == PUT and route.gone is None:
                    route.put(numbers(int(value), start=number + 1))
                    number += int(value)
                elif kind == WAIT:
                    await trio.sleep(value)
        return route, number, number_of(route.state.positions.get(WEB.key, BEGINNING))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio.to_thread, "run_sync", inline)
        route, put, checkpoint = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    book = route.statistics()
    assert (book.received, book.in_flight, book.queue.records) == (put, 0, 0)
    assert book.delivered + book.rejected == checkpoint == len(sink_of(route).got)
    assert sink_of(route).messages == [str(number) for number in range(1, checkpoint + 1)]
    if route.gone is None:
        assert checkpoint == put


# --- what a receiver may say ----------------------------------------------------------------------------


def refuse(*bad: int) -> Step:
    """Refuses whatever holds one of these records."""

    async def step(sink: StandInSink, batches: Sequence[Batch]) -> Sequence[Rejected]:
        sink.script.insert(0, step)
        if any(record.message in map(str, bad) for each in batches for record in each.records):
            raise Refused("no such thing")
        return ()

    return step


@pytest.mark.parametrize("bad", [[], [1], [8], [3, 4], [1, 2, 3, 4, 5, 6, 7, 8]])
async def test_a_receiver_that_refuses_a_whole_is_asked_until_it_is_known_what_it_means(
    autojump_clock: trio.testing.MockClock, bad: list[int]
) -> None:
    route = make([refuse(*bad)])
    async with running(route) as sink:
        route.put([batch(WEB, [1, 2, 3]), batch(DB, [4]), batch(WEB, [5, 6, 7, 8])])
    assert sink.messages == [str(n) for n in range(1, 9) if n not in bad]
    book = route.statistics()
    assert (book.delivered, book.rejected, book.retried) == (8 - len(bad), len(bad), 0)
    assert book.up
    assert len(sink.called("deliver")) <= 15
    assert number_of(route.state.positions[WEB.key]) == 8


@pytest.mark.parametrize("whole", [True, False])
async def test_a_receiver_that_takes_nothing_is_not_well(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str], whole: bool
) -> None:
    """However it says so: record by record, or of each delivery, until it is known of every record."""

    async def of_each(sink: StandInSink, batches: Sequence[Batch]) -> Sequence[Rejected]:
        sink.script.insert(0, of_each)
        return [Rejected(0, record, "no such thing") for record in batches[0].records]

    bad = [*range(1, 51)]
    route = make([refuse(*bad) if whole else of_each])
    async with running(route) as sink:
        route.put([batch(WEB, bad[:19])])
        await trio.testing.wait_all_tasks_blocked()
        assert route.statistics().up  # that may have been these records
        route.put([batch(WEB, bad[19:])])
        await trio.testing.wait_all_tasks_blocked()
        book = route.statistics()
        assert (book.up, book.rejected) == (False, 50)
        assert book.reason == "every record is rejected, 50 in a row; the last: no such thing"
        sink.script.clear()
        route.put([batch(WEB, [51])])
    assert route.statistics().up
    said = capsys.readouterr().out
    assert said.count("every record is rejected") == 1
    assert said.count("the route delivers again") == 1


async def test_a_route_that_is_resumed_tries_at_once_and_is_not_well_before_that_succeeds(
    autojump_clock: trio.testing.MockClock, longest: list[float]
) -> None:
    route = make([Retryable("down"), Retryable("still down"), 5.0], retry_initial_s=1000, retry_max_s=1000)
    async with running(route) as sink:
        route.put(numbers(1))
        await trio.sleep(1)
        route.pause(1.0)
        await trio.sleep(1)
        book = route.statistics()
        assert not book.up
        assert book.reason.startswith("paused since ")
        assert book.last_error == "down"
        for reason in ("down", "still down"):
            route.resume()
            assert (route.statistics().up, route.statistics().reason) == (False, reason)
            await trio.sleep(1)
            route.pause(1.0)
        route.resume()
        await trio.sleep(6)
        assert route.statistics().up
        assert sink.messages == ["1"]


async def test_what_was_taken_before_a_failure_is_not_sent_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    route = make([Refused("too large"), 0.0, Retryable("down"), 0.0])
    async with running(route) as sink:
        route.put([batch(WEB, [1, 2, 3, 4])])
    assert sink.messages == ["1", "2", "3", "4"]
    assert route.statistics().retried == 2


class Unordered(StandInSink):
    """Takes several deliveries at a time, and postpones what its script names."""

    ordered = False
    concurrency = 3
    most = 0
    postpones: tuple[str, ...] = ()
    has: tuple[str, ...] = ()
    after_s: float | None = None

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        self.calls.append((trio.current_time(), "deliver"))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            takes_s = self.script.pop(0) if self.script else 0
            await trio.sleep(takes_s)
        finally:
            self.under_way -= 1
        later, self.postpones = self.postpones, ()
        records = [(index, record) for index, each in enumerate(batches) for record in each.records]
        self.got += [
            (batches[i].origin.name, r.message) for i, r in records if r.message not in (*later, *self.has)
        ]
        return Outcome(
            postponed=[Postponed(i, r, "busy") for i, r in records if r.message in later],
            duplicates=sum(r.message in self.has for _, r in records),
            after_s=self.after_s,
        )


def unordered(route: Route) -> Unordered:
    assert isinstance(route.sink, Unordered)
    return route.sink


async def test_several_deliveries_are_under_way_where_order_does_not_matter(
    autojump_clock: trio.testing.MockClock,
) -> None:
    route = make([10.0, 1.0, 1.0, 1.0], sink=Unordered, batch_records=1)
    async with running(route):
        route.put(numbers(4))
        await trio.sleep(5)
        # The first is still under way: what is behind it is delivered, and not acknowledged.
        assert sorted(unordered(route).messages) == ["2", "3", "4"]
        assert route.statistics().in_flight == 1
        assert WEB.key not in route.state.positions
    assert unordered(route).most == 3
    assert number_of(route.state.positions[WEB.key]) == 4


async def test_what_a_receiver_postpones_is_sent_again_alone_when_it_asks_for_it(
    autojump_clock: trio.testing.MockClock, longest: list[float]
) -> None:
    route = make(sink=Unordered)
    sink = unordered(route)
    sink.postpones, sink.has, sink.after_s = ("2", "5"), ("1",), 7.0
    async with running(route):
        route.put([batch(WEB, [1, 2, 3]), batch(DB, [4, 5])])
    assert sink.messages == ["3", "4", "2", "5"]
    first, second = sink.called("deliver")
    assert second - first == pytest.approx(7)
    book = route.statistics()
    assert (book.delivered, book.duplicates, book.retried) == (4, 1, 2)


class Nameless(StandInSink):
    """Has a receiver that rejects some of the first delivery, and does not say which."""

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        await super().deliver(batches)
        first = len(self.called("deliver")) == 1
        return Outcome(unnamed=2, unnamed_reason="two are bad") if first else DELIVERED


async def test_what_a_receiver_rejects_without_a_name_is_counted_and_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    route = make(sink=Nameless)
    told: list[tuple[str, dict[str, object]]] = []
    route.warn = lambda event, **details: told.append((event, details))  # type: ignore[method-assign]
    async with running(route):
        route.put([batch(WEB, [1, 2, 3])])
        await trio.sleep(1)
        route.put([batch(WEB, [4])])
    book = route.statistics()
    assert (book.received, book.delivered, book.rejected) == (4, 2, 2)
    assert ("records were rejected, nobody says which", {"records": 2, "reason": "two are bad"}) in told
    assert number_of(route.state.positions[WEB.key]) == 4


async def test_what_an_ordered_sink_did_not_come_to_is_sent_again_before_what_follows(
    autojump_clock: trio.testing.MockClock, longest: list[float]
) -> None:
    class HalfWay(StandInSink):
        async def deliver(self, batches: Sequence[Batch]) -> Outcome:
            records = [(index, record) for index, each in enumerate(batches) for record in each.records]
            if not self.calls:
                self.calls.append((trio.current_time(), "deliver"))
                self.got.append((batches[0].origin.name, records[0][1].message))
                return Outcome(postponed=[Postponed(index, record, "busy") for index, record in records[1:]])
            return await super().deliver(batches)

    route = make(sink=HalfWay)
    route.sink.calls.clear()  # type: ignore[attr-defined]  # of a stand-in
    async with running(route) as sink:
        sink.calls.clear()
        route.put([batch(WEB, [1, 2, 3])])
        await trio.lowlevel.checkpoint()
        route.put([batch(WEB, [4])])
    assert sink.messages == ["1", "2", "3", "4"]
    assert route.statistics().delivered == 4


@pytest.mark.parametrize("has_deadline", [True, False])
async def test_an_attempt_has_a_deadline(
    autojump_clock: trio.testing.MockClock, longest: list[float], has_deadline: bool
) -> None:
    class Sometimes(StandInSink):
        pass

    Sometimes.has_deadline = has_deadline
    route = make([1000.0], sink=Sometimes, deadline_s=30.0)
    async with running(route) as sink:
        route.put(numbers(1))
        await trio.sleep(30.1)
        book = route.statistics()
        assert (book.up, book.reason) == ((False, "no answer within 30 s") if has_deadline else (True, ""))
    assert sink.messages == ["1"]
    assert len(sink.called("deliver")) == (2 if has_deadline else 1)


# --- a sink that cannot keep up -------------------------------------------------------------------------

FULL = {"queue_bytes": 5 * (100 + BATCH_OVERHEAD_BYTES), "batch_records": 2, "batch_wait_s": 0.0}
SPOOLS = FULL | {"disk_bytes": 1 << 20}


async def feed(route: Route, batches: Sequence[Batch]) -> float:
    """Put them as a source does, which waits while the route holds; how long it was held."""
    began = trio.current_time()
    for each in batches:
        while route.holds:
            assert isinstance(route._overflow._on_change, Room)
            await route._overflow._on_change.again.wait()
        route.put([each])
    return trio.current_time() - began


async def test_a_route_whose_sink_is_down_spools_and_catches_up_in_order(
    autojump_clock: trio.testing.MockClock,
    longest: list[float],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    route = make([Retryable("down")] * 5, tmp_path, retry_initial_s=1e9, retry_max_s=20, **SPOOLS)
    async with running(route) as sink:
        # Held for the first time only: from then on it is known to be behind.
        assert await feed(route, numbers(100)) < 2 * PATIENCE_S
        book = route.statistics()
        assert (book.received, book.delivered, book.in_flight) == (100, 0, 2)
        assert book.queue.spooled_records > 80
        # What is spooled needs no engine any more.
        assert number_of(route.state.positions[WEB.key]) > 80
        await trio.sleep(1000)
        assert sink.messages == [str(n) for n in range(1, 101)]
        assert route.statistics().queue == QueueStatistics(0, 0)
    said = capsys.readouterr().out
    assert said.count("the route is behind") == 1
    assert said.count("has caught up") == 1
    async with opened(tmp_path) as state:
        assert state.spooled.records == 0
        assert number_of(state.positions[WEB.key]) == 100


async def test_a_start_begins_with_what_the_spool_holds(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    route = make([math.inf], tmp_path, deadline_s=math.inf, **SPOOLS)
    await route.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(route.run)
        await feed(route, numbers(7))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()  # the grace period is over
    route = make([], tmp_path, **SPOOLS)
    await route.open()
    book = route.statistics()
    assert (book.received, book.queue.spooled_records, book.queue.records) == (7, 7, 7)
    await route.state.close()
    async with running(route) as sink:
        route.put(numbers(3, start=8))
    assert sink.messages == [str(n) for n in range(1, 11)]


async def test_a_route_that_is_slow_because_the_processor_is_busy_is_not_behind(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "busy_s", trio.current_time)
    route = make([0.9] * 50, tmp_path, **SPOOLS)
    async with running(route) as sink:
        assert await feed(route, numbers(100)) > 40
        assert route.statistics().queue.spooled_records == 0
    assert len(sink.messages) == 100


@pytest.mark.parametrize("paused", [False, True])
async def test_a_route_whose_sink_takes_nothing_holds_up_nobody_however_busy_the_processor_is(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, paused: bool
) -> None:
    """On a host that is short of processors all routes stood still for as long as one receiver was down."""
    monkeypatch.setattr(load, "busy_s", trio.current_time)
    down = [] if paused else [Retryable("down")] * 5
    route = make(down, when_full="drop_newest", retry_initial_s=1e9, retry_max_s=20, **FULL)
    async with running(route):
        if paused:
            route.pause(0.0)
        assert await feed(route, numbers(100)) < 2 * PATIENCE_S
        route.resume()


async def test_a_sink_that_hangs_holds_up_nobody_however_busy_the_processor_is(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "busy_s", trio.current_time)
    route = make([1e9], when_full="drop_newest", deadline_s=60, **FULL)
    async with running(route):
        assert await feed(route, numbers(100)) < STANDS_S + 2 * PATIENCE_S


async def test_a_slow_sink_makes_a_route_fall_behind_and_hold_up_nobody(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    route = make([1.0] * 1000, tmp_path, **SPOOLS)
    async with running(route) as sink:
        assert await feed(route, numbers(400)) < 3
    assert sink.messages == [str(n) for n in range(1, 401)]


async def test_without_a_disk_a_full_route_waits(autojump_clock: trio.testing.MockClock) -> None:
    route = make([math.inf], deadline_s=100.0, disk_bytes=1 << 20, **FULL)
    async with running(route) as sink:
        assert 99 < await feed(route, numbers(20)) < 101
    assert sink.messages == [str(n) for n in range(1, 21)]


@pytest.mark.parametrize(
    ("policy", "kept"), [("drop_oldest", [1, 2, 97, 98, 99, 100]), ("drop_newest", None)]
)
async def test_a_full_route_drops_as_it_was_told_to_and_counts_it(
    autojump_clock: trio.testing.MockClock,
    policy: str,
    kept: list[int] | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    route = make([math.inf], deadline_s=100.0, when_full=policy, **FULL)
    async with running(route) as sink:
        assert await feed(route, numbers(100)) < 2 * PATIENCE_S
        await trio.sleep(200)
        # It is over: nothing is dropped any more.
        assert not route.statistics().queue.records
        await feed(route, numbers(3, start=101))
    got = [int(message) for message in sink.messages]
    assert got[:2] == [1, 2]
    assert got[-3:] == [101, 102, 103]
    assert got == sorted(got)
    if kept is not None:
        assert got[:-3] == kept
    else:
        assert got[:-3] == list(range(1, len(got) - 2))
    book = route.statistics()
    assert book.dropped == {"full": 103 - len(got)}
    assert len(got) < 15
    assert number_of(route.state.positions[WEB.key]) == 103
    assert "the queue is full" in capsys.readouterr().out


@pytest.mark.parametrize("policy", ["block", "drop_oldest", "drop_newest"])
async def test_the_spool_is_bounded(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, policy: str
) -> None:
    route = make([math.inf], tmp_path, deadline_s=500.0, when_full=policy, **(FULL | {"disk_bytes": 3000}))
    async with running(route) as sink:
        held_s = await feed(route, numbers(200))
        spooled = route.statistics().queue.spooled_bytes
        assert spooled < 5000
        assert held_s > 400 if policy == "block" else held_s < 5
    got = [int(message) for message in sink.messages]
    dropped = route.statistics().dropped.get("full", 0)
    assert got == sorted(got)
    assert len(got) + dropped == 200
    if policy == "block":
        assert dropped == 0
    else:
        assert dropped > 50
        assert (got[-1] == 200) == (policy == "drop_oldest")


async def test_a_disk_that_fails_makes_the_route_wait_and_is_tried_again(
    autojump_clock: trio.testing.MockClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    route = make([math.inf], tmp_path, deadline_s=1000.0, **SPOOLS)
    store = RouteState._store
    broken = True

    def fail(self: RouteState, changes: Any, files: Any, packed: Any, origins: Any) -> Any:
        if packed and broken:
            raise ValueError("database or disk is full")
        return store(self, changes, files, packed, origins)

    monkeypatch.setattr(RouteState, "_store", fail)
    async with running(route) as sink:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed, route, numbers(50))
            await trio.sleep(60)
            assert route.holds
            assert route.statistics().received < 20
            broken = False
        assert trio.current_time() < 70
    assert sink.messages == [str(n) for n in range(1, 51)]
    assert "cannot spool" in capsys.readouterr().out


async def test_a_row_that_cannot_be_read_is_counted(
    autojump_clock: trio.testing.MockClock, longest: list[float], tmp_path: Path
) -> None:
    route = make([Retryable("down")], tmp_path, retry_initial_s=1e9, retry_max_s=20, **SPOOLS)
    async with running(route) as sink:
        await feed(route, numbers(20))
        await trio.sleep(1)
        assert route.state._database is not None
        route.state._database.execute("update spool set body = x'00' where id = 3")
        await trio.sleep(100)
        book = route.statistics()
    assert book.dropped == {"damaged": 2}
    assert sink.messages == [str(n) for n in range(1, 21) if n not in (5, 6)]


# --- another sink, and failures of our own --------------------------------------------------------------


async def test_a_sink_is_replaced_between_two_deliveries(autojump_clock: trio.testing.MockClock) -> None:
    route = make([1.0, 1.0, 1.0], batch_records=2)
    async with running(route) as old:
        route.put(numbers(6))
        await trio.sleep(1.5)
        settings = msgspec.structs.replace(route.settings, batch_records=1)
        route.replace(settings, lambda route: StandInSink(route, ()))
        route.put(numbers(2, start=7))
        await trio.sleep(0.4)
        assert old.called("close") == []  # its delivery is heard out
        await trio.sleep(0.2)
        assert len(old.called("close")) == 1
        new = sink_of(route)
        assert new is not old
        await trio.sleep(1)
        assert old.messages == ["1", "2", "3", "4"]
        assert new.messages == ["5", "6", "7", "8"]
        assert len(new.called("deliver")) == 4
        assert route.statistics().delivered == 8


class CutStatistics(SinkStatistics, frozen=True):
    events: ClassVar[tuple[str, ...]] = ("truncated",)
    truncated: int
    open_files: int = 7


class CuttingSink(StandInSink):
    """Cuts every record, and counts that."""

    def statistics(self) -> CutStatistics:
        return CutStatistics(len(self.got))


async def test_what_sinks_have_counted_stays_in_the_books_of_their_route(
    autojump_clock: trio.testing.MockClock,
) -> None:
    route = make(sink=CuttingSink)
    async with running(route):
        route.put(numbers(3))
        await trio.sleep(1)
        assert route.statistics().sink_events == {"truncated": 3}
        route.replace(route.settings, lambda route: CuttingSink(route, ()))
        route.put(numbers(2, start=4))
        await trio.sleep(1)
        assert sink_of(route).messages == ["4", "5"]
        assert route.statistics().sink_events == {"truncated": 5}
        route.replace(route.settings, lambda route: StandInSink(route, ()))
        await trio.sleep(1)
        assert route.statistics().sink_events == {"truncated": 5}


async def test_a_sink_that_cannot_tell_what_it_counts_keeps_nobody_from_the_books(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Broken(CuttingSink):
        def statistics(self) -> CutStatistics:
            raise ZeroDivisionError

    route = make(sink=Broken)
    async with running(route):
        route.put(numbers(3))
        await trio.sleep(1)
        assert route.statistics().delivered == 3
        assert route.statistics().sink_events == {}


@pytest.mark.parametrize("when", [0.0, 0.1, 5.0])
async def test_a_sink_that_is_down_is_replaced_at_once(
    autojump_clock: trio.testing.MockClock, longest: list[float], when: float
) -> None:
    route = make([Retryable("down")] * 100, retry_initial_s=100.0, retry_max_s=100.0)
    async with running(route):
        route.put(numbers(5))
        await trio.sleep(when)
        route.replace(route.settings, lambda route: StandInSink(route, ()))
        await trio.sleep(1)
        assert sink_of(route).messages == ["1", "2", "3", "4", "5"]
    book = route.statistics()
    assert (book.received, book.delivered, book.up) == (5, 5, True)
    assert number_of(route.state.positions[WEB.key]) == 5


async def test_truncated_records_are_counted_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    route = make([])
    async with running(route):
        cut = batch(origin("chatty"), [1, 2])
        cut.origin.truncates = True
        cut.records[1] = DetailedRecord("much", "stdout", cut.records[1].time, truncated=True)
        route.put([batch(WEB, [1]), cut])
    assert route.statistics().truncated == 1
    assert "records are truncated" in capsys.readouterr().out


async def test_what_was_delivered_of_a_group_is_not_sent_to_the_next_sink(
    autojump_clock: trio.testing.MockClock, longest: list[float]
) -> None:
    script = [Refused("too large"), 0.0, Retryable("down"), Retryable("down")]
    route = make(script, retry_initial_s=100.0, retry_max_s=100.0)
    async with running(route) as old:
        route.put([batch(WEB, [1, 2]), batch(DB, [3, 4])])
        await trio.sleep(1)
        route.replace(route.settings, lambda route: StandInSink(route, ()))
        await trio.sleep(1)
        assert (old.messages, sink_of(route).messages) == (["1", "2"], ["3", "4"])
    assert number_of(route.state.positions[WEB.key]) == 2
    assert number_of(route.state.positions[DB.key]) == 4
    assert route.statistics().delivered == 4


class Leaving(Unordered):
    """Rejects a record of the first delivery, is gone before it takes the other; the second one hangs."""

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        records = batches[0].records
        if records[0].message == "3":
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):  # its connection takes its time to close
                    await trio.sleep(1)
        if len(records) == 1:
            await trio.sleep(1)
            raise SinkGone("no more")
        return Outcome([Rejected(0, records[0], "bad")], [Postponed(0, records[1], "busy")])


async def test_what_is_spooled_while_a_delivery_of_it_is_cut_short_is_not_done_with_in_part(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, longest: list[float]
) -> None:
    """The spool has all of it, so all of it is delivered again: else a record is buried twice."""
    settings: dict[str, Any] = {"batch_records": 2, "disk_bytes": 1 << 20, "retry_initial_s": 1.0}
    route = make(folder=tmp_path, sink=Leaving, **settings)
    async with running(route):
        route.put([batch(WEB, [1, 2]), batch(WEB, [3, 4])])
        await trio.sleep(1.5)
        # The disk is busy: the spool has begun and waits, when the sink is gone.
        await route.state._lock.acquire()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(route.queue.spool, 1 << 20, 2)
            await trio.sleep(1)
            route.state._lock.release()
    async with opened(tmp_path) as state:
        assert (state.spooled.records, state.dead.letters) == (4, 0)


async def test_a_route_that_fails_itself_is_started_again_alone(
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    finished = Route.finished
    fails = 3

    def fail(self: Route, *args: Any) -> None:
        nonlocal fails
        if fails:
            fails -= 1
            raise RuntimeError("a bug of ours")
        finished(self, *args)

    monkeypatch.setattr(Route, "finished", fail)
    made: list[StandInSink] = []

    def make_sink(route: Route) -> StandInSink:
        made.append(StandInSink(route, ()))
        return made[-1]

    route = Route(RouteSettings("all"), make_sink, state_folder=None, on_room=lambda: None)
    async with running(route):
        route.put(numbers(3))
        await trio.sleep(20)
    assert [len(sink.called("close")) for sink in made] == [1] * 4
    assert made[-1].messages == ["1", "2", "3"]
    assert number_of(route.state.positions[WEB.key]) == 3
    assert route.statistics().delivered == 3
    assert capsys.readouterr().out.count("the route failed, starting it again") == 3
