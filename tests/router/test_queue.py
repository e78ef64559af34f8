"""The queue of a route: in memory, in the spool, and from one to the other."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from logroute.router.database import StateError
from logroute.router.position import Position
from logroute.router.queue import BATCH_OVERHEAD_BYTES, Group, Queue, QueueStatistics
from logroute.router.record import Batch
from logroute.router.state import RouteState
from tests.router.stand_ins import batch, inline, number_of, origin

pytestmark = pytest.mark.usefixtures("no_threads")

WEB, DB = origin(), origin("db")
MUCH = 1 << 30


def of(numbers: list[int], size_bytes: int = 100) -> Batch:
    return batch(WEB, numbers, size_bytes=size_bytes)


def empty(number: int = 1) -> Batch:
    return batch(WEB, [number]).with_records([], 0)


def queue(limit_bytes: int = MUCH) -> tuple[Queue, list[None]]:
    room: list[None] = []
    return Queue(RouteState("all", None), limit_bytes, lambda: room.append(None)), room


@asynccontextmanager
async def opened(folder: Path | None, limit_bytes: int = MUCH) -> AsyncIterator[Queue]:
    """A queue with the state of that folder."""
    state = RouteState("all", folder)
    await state.open()
    q = Queue(state, limit_bytes, lambda: None)
    q.load()
    try:
        yield q
    finally:
        await state.close()


async def group_of(queue: Queue, max_bytes: int = MUCH, max_records: int = MUCH) -> Group:
    """`take` from a queue that has something: it must not wait."""
    with trio.fail_after(5):
        group = await queue.take(max_bytes, max_records, 0)
    assert group is not None
    return group


async def read_ahead(queue: Queue) -> None:
    """Let it read what comes next, if it would."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.read_ahead)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def taken(queue: Queue, max_bytes: int = MUCH, max_records: int = MUCH) -> list[Batch]:
    return (await group_of(queue, max_bytes, max_records)).batches


def messages(batches: Sequence[Batch]) -> list[str]:
    return [record.message for each in batches for record in each.records]


def checkpoint(queue: Queue) -> int:
    """The number of the record that the checkpoint of WEB is behind."""
    where = queue._state.position(WEB.key)
    return number_of(where) if where is not None else 0


async def test_batches_come_out_in_the_order_in_which_they_went_in() -> None:
    q, _ = queue()
    batches = [of([n]) for n in range(1, 6)]
    q.put(batches[:2])
    q.put(batches[2:])
    assert await taken(q, max_records=3) == batches[:3]
    assert await taken(q) == batches[3:]


@pytest.mark.parametrize(
    ("max_bytes", "max_records", "first"),
    [(MUCH, 4, 2), (MUCH, 5, 2), (MUCH, 6, 3), (250, MUCH, 2), (200, MUCH, 2), (199, MUCH, 1)],
)
async def test_one_take_stays_within_both_bounds(max_bytes: int, max_records: int, first: int) -> None:
    q, _ = queue()
    q.put([of([1, 2]), of([3, 4]), of([5, 6])])
    assert len(await taken(q, max_bytes, max_records)) == first


async def test_a_batch_that_is_larger_than_the_bounds_comes_alone() -> None:
    q, _ = queue()
    big, small = of([1, 2, 3], 10_000), of([4])
    q.put([big, small])
    assert await taken(q, max_bytes=10, max_records=1) == [big]
    assert await taken(q, max_bytes=10, max_records=1) == [small]


async def test_a_full_queue_says_once_that_it_has_room_again() -> None:
    q, room = queue(2 * (100 + BATCH_OVERHEAD_BYTES))
    q.put([of([1])])
    assert not q.full
    await taken(q)
    assert room == []
    q.put([of([1]), of([2]), of([3])])
    assert q.full
    await taken(q, max_records=1)
    assert (q.full, room) == (True, [])
    await taken(q, max_records=1)
    assert (q.full, room) == (False, [None])
    await taken(q)
    assert room == [None]


async def test_empty_batches_are_one_that_says_how_far_the_origin_was_read() -> None:
    """A route of stderr gets an empty batch for each sweep over a container that prints to stdout."""
    q, _ = queue(10_000)
    for number in range(100):
        q.put([empty(number)])
    assert not q.full
    assert q.statistics().batches == 1
    q.put([of([200])])
    q.put([empty(300)])
    group = await q.take(1 << 20, 1000, 0.0)
    assert group is not None
    assert [len(batch.lines) for batch in group.batches] == [0, 1, 0]
    assert [batch.after for batch in group.batches] == [empty(99).after, of([200]).after, empty(300).after]


async def test_what_nobody_will_deliver_makes_room() -> None:
    q, room = queue(1000)
    q.put([of([1, 2]), of([3])])
    assert q.abandon() == 3
    assert q.statistics() == QueueStatistics(0, 0, 0)
    assert room == [None]
    assert q.abandon() == 0
    assert room == [None]


async def test_a_full_queue_gathers_no_more(autojump_clock: trio.testing.MockClock) -> None:
    q, _ = queue(1000)
    q.put([of([1], 600), of([2], 600)])
    began = trio.current_time()
    group = await q.take(MUCH, 1000, 30.0)
    assert group is not None
    assert (group.records, trio.current_time() - began) == (2, 0)


async def test_take_waits_for_the_first_batch(autojump_clock: trio.testing.MockClock) -> None:
    q, _ = queue()
    one = of([1])

    async def put() -> None:
        await trio.sleep(7)
        q.put([one])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put)
        group = await q.take(MUCH, MUCH, 0)
        assert group is not None
        assert group.batches == [one]
    assert trio.current_time() == pytest.approx(7)


async def test_take_gathers_for_the_time_it_is_given(autojump_clock: trio.testing.MockClock) -> None:
    q, _ = queue()

    async def put() -> None:
        for number in range(1, 10):
            q.put([of([number])])
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        group = await q.take(MUCH, MUCH, 3.5)
        assert group is not None
        assert len(group.batches) == 4
        assert trio.current_time() - began == pytest.approx(3.5)


@pytest.mark.parametrize("bounds", [(300, MUCH), (MUCH, 3)])
async def test_gathering_ends_when_a_bound_is_reached(
    autojump_clock: trio.testing.MockClock, bounds: tuple[int, int]
) -> None:
    q, _ = queue()

    async def put() -> None:
        for number in range(1, 10):
            q.put([of([number])])
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put)
        group = await q.take(*bounds, 100)
        assert group is not None
        assert len(group.batches) == 3
        assert trio.current_time() == pytest.approx(2)


async def test_closing_ends_the_waiting_and_nothing_is_left_behind(
    autojump_clock: trio.testing.MockClock,
) -> None:
    q, _ = queue()
    one = of([1])

    async def close() -> None:
        await trio.sleep(5)
        q.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        q.put([one])
        group = await q.take(MUCH, MUCH, 100)
        assert group is not None
        assert group.batches == [one]
        assert trio.current_time() == pytest.approx(5)
        await q.wait()
        assert await q.take(MUCH, MUCH, 100) is None
    assert trio.current_time() == pytest.approx(5)


async def test_a_take_that_is_cancelled_takes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    q, _ = queue()
    q.put([of([1])])
    with trio.move_on_after(1):
        await q.take(MUCH, MUCH, 100)
    assert q.statistics().records == 1


# --- acknowledging ----------------------------------------------------------------------------------


async def test_checkpoints_move_in_order_whatever_is_finished_first() -> None:
    async with opened(None) as q:
        q.put([of([1]), of([2]), of([3])])
        first, second, third = [await group_of(q, max_records=1) for _ in range(3)]
        assert q.in_flight == 3
        q.finish(second)
        assert (checkpoint(q), q.in_flight) == (0, 2)
        q.finish(first)
        assert checkpoint(q) == 2
        q.finish(third)
        assert (checkpoint(q), q.in_flight) == (3, 0)


async def test_what_is_finished_behind_something_that_is_not_has_been_put_in_nevertheless() -> None:
    async with opened(None) as q:
        q.put([of([1]), batch(DB, [7])])
        first, second = [await group_of(q, max_records=1) for _ in range(2)]
        q.finish(second)
        assert reached(q) == {"web": 1, "db": 7}
        assert [each.origin.name for each in q.first_waiting()] == ["web"]
        q.finish(first)
        assert reached(q) == {}


def reached(queue: Queue) -> dict[str, int]:
    """How far each origin has been put in, by its name, where the state does not know that."""
    found: dict[str, int] = {}
    for key, where in queue.reached().items():
        at = where if isinstance(where, Position) else where.position()
        found[key.removeprefix("docker:")] = number_of(at)
    return found


# --- the spool ------------------------------------------------------------------------------------------


async def test_what_is_spooled_is_there_after_a_kill_and_comes_first(tmp_path: Path) -> None:
    async with opened(tmp_path) as q:
        q.put([of([1, 2]), batch(DB, [7]), of([3])])
        flying = await group_of(q, max_records=2)
        await q.spool(MUCH, MUCH)
        assert (checkpoint(q), q.statistics().memory_bytes) == (3, 0)
        assert (q.records, q.in_flight, q.spooled.records) == (2, 2, 2)
        q.put([of([4])])
        assert messages(await taken(q)) == ["7", "3"]
        assert messages(await taken(q)) == ["4"]
        del flying  # never finished: the daemon is killed here
    async with opened(tmp_path) as q:
        assert (q.records, checkpoint(q)) == (4, 3)
        assert [messages(await taken(q)) for _ in range(2)] == [["1", "2"], ["7", "3"]]
        assert q.empty


async def test_what_was_delivered_leaves_the_spool_with_its_acknowledgement(tmp_path: Path) -> None:
    async with opened(tmp_path) as q:
        q.put([of([1]), of([2]), of([3])])
        flying = await group_of(q, max_records=1)
        await q.spool(MUCH, 1)
        q.finish(flying)
        q.finish(await group_of(q))
        await q._state.commit()
    async with opened(tmp_path) as q:
        assert messages(await taken(q)) == ["3"]


async def test_a_delivery_that_ends_while_it_is_spooled_is_not_delivered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as q:
        q.put([of([1]), of([2])])
        flying = await group_of(q, max_records=1)
        store = RouteState._store

        def finish(self: RouteState, *args: Any) -> Any:
            q.finish(flying)
            return store(self, *args)

        monkeypatch.setattr(RouteState, "_store", finish)
        await q.spool(MUCH, MUCH)
        monkeypatch.setattr(RouteState, "_store", store)
        await q._state.commit()
        assert (q.records, q.in_flight) == (1, 0)
    async with opened(tmp_path) as q:
        assert messages(await taken(q)) == ["2"]


async def test_how_far_it_was_put_in_is_known_while_it_is_spooled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of what ends meanwhile: the state has the positions when the disk has them."""
    async with opened(tmp_path) as q:
        q.put([of([1]), batch(DB, [7])])
        flying = await group_of(q, max_records=1)
        store = RouteState._store
        seen: list[dict[str, int]] = []

        def look(self: RouteState, *args: Any) -> Any:
            seen.append(reached(q))
            q.finish(flying)
            seen.append(reached(q))
            return store(self, *args)

        monkeypatch.setattr(RouteState, "_store", look)
        await q.spool(MUCH, MUCH)
        assert seen == [{"web": 1, "db": 7}] * 2
        assert (reached(q), checkpoint(q)) == ({}, 1)


async def test_a_checkpoint_does_not_go_back_before_what_was_spooled(tmp_path: Path) -> None:
    """What is finished behind a delivery that is under way counts before what is spooled behind it."""
    async with opened(tmp_path) as q:
        q.put([of([1]), of([2]), of([3])])
        first, second = [await group_of(q, max_records=1) for _ in range(2)]
        q.finish(second)
        await q.spool(MUCH, MUCH)
        assert (checkpoint(q), reached(q)) == (3, {})
        q.finish(first)
        assert checkpoint(q) == 3
        await q._state.commit()
    async with opened(tmp_path) as q:
        assert (checkpoint(q), messages(await taken(q)), q.records) == (3, ["3"], 0)


async def test_a_spool_that_cannot_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even when the delivery of what was to be spooled ends meanwhile."""
    async with opened(tmp_path) as q:
        q.put([of([1]), of([2]), of([3])])
        flying = await group_of(q, max_records=1)
        store = RouteState._store

        def fail(self: RouteState, *_args: Any) -> Any:
            q.finish(flying)
            q.put([of([4])])
            raise sqlite_full

        sqlite_full = ValueError("database or disk is full")
        monkeypatch.setattr(RouteState, "_store", fail)
        with pytest.raises(StateError, match=r"cannot store the spool in .*full"):
            await q.spool(MUCH, MUCH)
        monkeypatch.setattr(RouteState, "_store", store)
        assert (checkpoint(q), q.records, q.in_flight, q.spooled.records) == (1, 3, 0, 0)
        await q._state.commit()
        assert messages(await taken(q)) == ["2", "3", "4"]
    async with opened(tmp_path) as q:
        assert (checkpoint(q), q.records) == (1, 0)


async def test_a_spool_that_was_written_after_all_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk answered too late: what it holds then is in memory as well."""
    async with opened(tmp_path) as q:
        q.put([of([1])])
        q.finish(await group_of(q))
        q.put([of([2])])
        store = RouteState._store

        def late(self: RouteState, *args: Any) -> Any:
            store(self, *args)
            raise ValueError("too late")

        monkeypatch.setattr(RouteState, "_store", late)
        with pytest.raises(StateError):
            await q.spool(MUCH, MUCH)
        monkeypatch.setattr(RouteState, "_store", store)
        await q._state.commit()
    async with opened(tmp_path) as q:
        assert (checkpoint(q), q.records) == (1, 0)


async def test_a_row_that_somebody_has_taken_away_is_missed(tmp_path: Path) -> None:
    async with opened(tmp_path) as q:
        q.put([of([1, 2])])
        await q.spool(MUCH, MUCH)
        assert q._state._database is not None
        q._state._database.execute("delete from spool")
        group = await group_of(q)
        assert (group.damaged, group.records, group.batches) == (True, 2, [])
        assert q.empty


async def test_the_next_row_is_read_while_one_is_delivered(tmp_path: Path) -> None:
    async with opened(tmp_path) as q:
        q.put([of([n]) for n in range(1, 5)])
        await q.spool(1, 1)
        assert messages(await taken(q)) == ["1"]
        await read_ahead(q)
        before = q.statistics()
        assert q._state._database is not None
        q._state._database.execute("delete from spool where id = 2")
        assert q.statistics() == before
        assert messages(await taken(q)) == ["2"]
        await read_ahead(q)
        assert await q.drop_spooled(1) == 1  # the one that was read ahead
        assert messages(await taken(q)) == ["4"]


# --- dropping -------------------------------------------------------------------------------------------


async def test_the_oldest_in_memory_are_dropped_and_their_checkpoint_moves() -> None:
    async with opened(None, 3 * (100 + BATCH_OVERHEAD_BYTES)) as q:
        q.put([of([n]) for n in range(1, 6)])
        assert q.drop_oldest() == 3
        assert not q.full
        group = await group_of(q)
        assert messages(group.batches) == ["4", "5"]
        q.finish(group)
        assert checkpoint(q) == 5


async def test_dropped_records_leave_one_position_for_each_origin() -> None:
    async with opened(None) as q:
        q.put([of([1])])
        for number in range(2, 100):
            q.put_dropped([of([number]), batch(DB, [number])])
        assert (q.records, q.statistics().batches) == (1, 3)
        q.put([of([100])])
        q.put_dropped([of([101])])
        group = await group_of(q)
        assert messages(group.batches) == ["1", "100"]
        q.finish(group)
        assert checkpoint(q) == 101


async def test_the_oldest_rows_are_dropped_and_no_longer_there_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as q:
        q.put([of([n]) for n in range(1, 6)])
        await q.spool(MUCH, 1)
        flying = await group_of(q)
        assert await q.drop_spooled(1) == 1
        assert (q.records, messages(flying.batches)) == (3, ["1"])
        await q._state.commit()
        assert messages(await taken(q)) == ["3"]
    async with opened(tmp_path) as q:
        assert [messages(await taken(q)) for _ in range(4)] == [["1"], ["3"], ["4"], ["5"]]


class Books(RuleBasedStateMachine):
    """Whatever is put, taken, finished, spooled, dropped, and killed at any instant: nothing is lost, doubled
    or out of order, and the sums are right."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.room = 0
        self.number = 0
        self.open_: set[int] = set()
        """Numbers that were put and are neither finished nor dropped."""
        self.flying: list[Group] = []
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(trio.to_thread, "run_sync", inline)
        self._start()

    def _start(self) -> None:
        self.state = RouteState("all", Path(self.folder.name))
        trio.run(self.state.open)
        self.queue = Queue(self.state, 5000, self._has_room)
        self.queue.load()

    def teardown(self) -> None:
        trio.run(self.state.close)
        self.patch.undo()
        self.folder.cleanup()

    def _has_room(self) -> None:
        self.room += 1

    def _run(self, work: Callable[..., Any], *args: Any) -> Any:
        return trio.run(work, *args)

    def _made(self, sizes: Sequence[tuple[int, int]]) -> list[Batch]:
        batches = []
        for records, size_bytes in sizes:
            numbers = list(range(self.number + 1, self.number + 1 + max(1, records)))
            self.number = numbers[-1]
            made = of(numbers, size_bytes)
            batches.append(made if records else made.with_records([], 0))
        return batches

    @rule(sizes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3000)), max_size=4))
    def put(self, sizes: list[tuple[int, int]]) -> None:
        batches = self._made(sizes)
        assert self.queue.put(batches) == sum(len(b) for b in batches)
        self.open_.update(int(message) for message in messages(batches))

    @rule(sizes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3000)), max_size=4))
    def put_dropped(self, sizes: list[tuple[int, int]]) -> None:
        self.queue.put_dropped(self._made(sizes))

    @precondition(lambda self: not self.queue.empty)
    @rule(max_bytes=st.integers(1, 4000), max_records=st.integers(1, 8))
    def take(self, max_bytes: int, max_records: int) -> None:
        was_full, before, spooled = self.queue.full, self.room, bool(self.queue.spooled.records)
        returned = bool(self.queue._returned)
        group: Group = self._run(group_of, self.queue, max_bytes, max_records)
        full_ones = [b for b in group.batches if b.lines or b.size_bytes]
        if len(full_ones) > 1 and not (spooled or returned):
            assert sum(b.size_bytes for b in full_ones) <= max_bytes
            assert sum(len(b) for b in full_ones) <= max_records
        assert self.room - before == (was_full and not self.queue.full)
        numbers = [int(message) for message in messages(group.batches)]
        # The next ones that were not yet taken, and none left out.
        others = {int(m) for flying in self.flying for m in messages(flying.batches)}
        assert numbers == sorted(self.open_ - others)[: len(numbers)]
        self.flying.append(group)

    @rule()
    def read_ahead(self) -> None:
        self._run(read_ahead, self.queue)

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 5))
    def finish(self, which: int) -> None:
        group = self.flying.pop(which % len(self.flying))
        self.queue.finish(group)
        self.open_ -= {int(message) for message in messages(group.batches)}

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 5), delivered=st.integers(0, 3))
    def give_back(self, which: int, delivered: int) -> None:
        """Some of its batches are delivered, the others are not."""
        group = self.flying.pop(which % len(self.flying))
        batches = [b for b in group.batches if b.lines]
        self.open_ -= {int(message) for message in messages(batches[:delivered])}
        self.queue.give_back(group, batches[delivered:])

    @rule(max_bytes=st.integers(1, 4000), max_records=st.integers(1, 8))
    def spool(self, max_bytes: int, max_records: int) -> None:
        self._run(self.queue.spool, max_bytes, max_records)
        assert self.queue.statistics().memory_bytes == 0

    @rule()
    def drop_oldest(self) -> None:
        before = self._numbers_in_memory()
        dropped = self.queue.drop_oldest()
        gone = before - self._numbers_in_memory()
        assert dropped == len(gone)
        self.open_ -= gone

    def _numbers_in_memory(self) -> set[int]:
        return {int(message) for message in messages(list(self.queue._batches))}

    @rule()
    def commit(self) -> None:
        self._run(self.state.commit)

    @rule()
    def kill(self) -> None:
        """What is not stored is gone; what was in flight is not finished; and reading begins again."""
        was_open = set(self.open_)
        self._run(self.state.close)
        self._start()
        self.flying = []
        spooled: list[int] = []
        while self.queue.spooled.records:
            spooled += [int(message) for message in messages(self._run(taken, self.queue))]
        reached = checkpoint(self.queue)
        assert spooled == sorted(set(spooled))
        assert all(number <= reached for number in spooled)
        assert was_open <= {*spooled, *range(reached + 1, self.number + 1)}
        # As it was, and what the engine has behind the checkpoint is read again.
        self._run(self.state.close)
        self._start()
        self.open_ = set(spooled)
        if reached < self.number:
            again = of(list(range(reached + 1, self.number + 1)))
            self.queue.put([again])
            self.open_.update(range(reached + 1, self.number + 1))

    @invariant()
    def sums(self) -> None:
        flying = sum(len(group.batches and messages(group.batches)) for group in self.flying)
        assert self.queue.in_flight == flying
        assert self.queue.records + flying == len(self.open_)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
