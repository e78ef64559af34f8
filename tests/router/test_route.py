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
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from logroute.router.record import BEGINNING, Batch
from logroute.router.route import COMMIT_EVERY_S, END_WITHIN_S, Route, RouteSettings
from logroute.router.state import RouteState, StateError
from logroute.sinks import DELIVERED, FileLength, Outcome, Rejected, Retryable, SinkGone
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
        parts = book.delivered + book.rejected + book.dropped + book.queue.records + book.in_flight
        if book.received != parts or min(book.delivered, book.in_flight, book.dropped) < 0:
            self.wrong.append(f"{task.name}: {book}")


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
        on_room=lambda: None,
    )


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


async def test_ten_thousand_failures_are_no_more_than_one(
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


@pytest.mark.parametrize("error", [SinkGone("closed"), ExceptionGroup("", [SinkGone("closed")])])
async def test_a_sink_that_is_gone_ends_its_route_and_what_is_left_is_dropped(
    autojump_clock: trio.testing.MockClock, error: Exception
) -> None:
    route = make([0.0, error], batch_records=1)
    async with running(route):
        route.put(numbers(4))
    book = route.statistics()
    assert (book.received, book.delivered, book.dropped, book.queue.records) == (4, 1, 3, 0)
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
    assert book.delivered + book.dropped == 5
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

    def note(self: RouteState, dirty: Any, *rest: Any) -> None:
        commits.append((trio.current_time(), max((number_of(p) for p in dirty.values()), default=0)))
        store(self, dirty, *rest)

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

    def look(self: RouteState, *args: Any) -> None:
        store(self, *args)
        assert self._database is not None
        lengths = [length for (length,) in self._database.execute("select length from files")]
        (count,) = self._database.execute("select count(*) from checkpoints").fetchone()
        assert len(lengths) == count
        if lengths:
            assert lengths == [number_of(self.positions[WEB.key])]
        stored.append(lengths[0] if lengths else 0)

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


async def test_a_failure_after_a_success_is_said_at_once(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    down = Retryable("refused")
    route = make([down, down, 0.0, down, down], batch_records=1, retry_max_s=1)
    async with running(route):
        route.put(numbers(2))
    assert capsys.readouterr().out.count("cannot deliver") == 2


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
