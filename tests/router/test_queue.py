"""The queue of a route."""

from __future__ import annotations

from collections import deque

import pytest
import trio
import trio.testing
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from logroute.router.queue import BATCH_OVERHEAD_BYTES, Queue, QueueStatistics
from logroute.router.record import Batch
from tests.router.stand_ins import batch, origin

WEB = origin()
MUCH = 1 << 30


def of(numbers: list[int], size_bytes: int = 100) -> Batch:
    return batch(WEB, numbers, size_bytes=size_bytes)


def empty() -> Batch:
    return batch(WEB, [1]).with_records([], 0)


def queue(limit_bytes: int = MUCH) -> tuple[Queue, list[None]]:
    room: list[None] = []
    return Queue(limit_bytes, lambda: room.append(None)), room


def taken(queue: Queue, max_bytes: int = MUCH, max_records: int = MUCH) -> list[Batch] | None:
    """`take` from a queue that has something: it must not wait."""
    taking = queue.take(max_bytes, max_records, 0)
    try:
        taking.send(None)
    except StopIteration as returned:
        result: list[Batch] | None = returned.value
        return result
    raise AssertionError("take() waits although there is something")


def test_batches_come_out_in_the_order_in_which_they_went_in() -> None:
    q, _ = queue()
    batches = [of([n]) for n in range(1, 6)]
    q.put(batches[:2])
    q.put(batches[2:])
    assert taken(q, max_records=3) == batches[:3]
    assert taken(q) == batches[3:]


@pytest.mark.parametrize(
    ("max_bytes", "max_records", "first"),
    [(MUCH, 4, 2), (MUCH, 5, 2), (MUCH, 6, 3), (250, MUCH, 2), (200, MUCH, 2), (199, MUCH, 1)],
)
def test_one_take_stays_within_both_bounds(max_bytes: int, max_records: int, first: int) -> None:
    q, _ = queue()
    q.put([of([1, 2]), of([3, 4]), of([5, 6])])
    assert len(taken(q, max_bytes, max_records) or ()) == first


def test_a_batch_that_is_larger_than_the_bounds_comes_alone() -> None:
    q, _ = queue()
    big, small = of([1, 2, 3], 10_000), of([4])
    q.put([big, small])
    assert taken(q, max_bytes=10, max_records=1) == [big]
    assert taken(q, max_bytes=10, max_records=1) == [small]


def test_a_full_queue_says_once_that_it_has_room_again() -> None:
    q, room = queue(2 * (100 + BATCH_OVERHEAD_BYTES))
    q.put([of([1])])
    assert not q.full
    taken(q)
    assert room == []
    q.put([of([1]), of([2]), of([3])])
    assert q.full
    taken(q, max_records=1)
    assert (q.full, room) == (True, [])
    taken(q, max_records=1)
    assert (q.full, room) == (False, [None])
    taken(q)
    assert room == [None]


def test_empty_batches_cannot_pile_up_without_end() -> None:
    """A route of stderr gets an empty batch for each sweep over a container that prints to stdout."""
    q, _ = queue(10_000)
    for _ in range(10):
        assert not q.full
        q.put([empty()])
    assert q.full
    assert q.statistics().memory_bytes >= 10_000


def test_what_is_thrown_away_makes_room() -> None:
    q, room = queue(1000)
    q.put([of([1, 2]), of([3])])
    assert q.clear() == 3
    assert q.statistics() == QueueStatistics(0, 0, 0)
    assert room == [None]
    assert q.clear() == 0
    assert room == [None]


async def test_take_waits_for_the_first_batch(autojump_clock: trio.testing.MockClock) -> None:
    q, _ = queue()
    one = of([1])

    async def put() -> None:
        await trio.sleep(7)
        q.put([one])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put)
        assert await q.take(MUCH, MUCH, 0) == [one]
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
        assert len(await q.take(MUCH, MUCH, 3.5) or ()) == 4
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
        assert len(await q.take(*bounds, 100) or ()) == 3
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
        assert await q.take(MUCH, MUCH, 100) == [one]
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


class Books(RuleBasedStateMachine):
    """Whatever is put and taken: nothing is lost, doubled or out of order, and the sums are right."""

    def __init__(self) -> None:
        super().__init__()
        self.room = 0
        self.queue = Queue(5000, self._has_room)
        self.model: deque[Batch] = deque()
        self.number = 0

    def _has_room(self) -> None:
        self.room += 1

    @rule(sizes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3000)), max_size=4))
    def put(self, sizes: list[tuple[int, int]]) -> None:
        batches = []
        for records, size_bytes in sizes:
            numbers = list(range(self.number + 1, self.number + 1 + max(1, records)))
            self.number = numbers[-1]
            made = of(numbers, size_bytes)
            batches.append(made if records else made.with_records([], 0))
        assert self.queue.put(batches) == sum(len(b) for b in batches)
        self.model.extend(batches)

    @precondition(lambda self: self.model)
    @rule(max_bytes=st.integers(1, 4000), max_records=st.integers(1, 8))
    def take(self, max_bytes: int, max_records: int) -> None:
        was_full, before = self.queue.full, self.room
        got = taken(self.queue, max_bytes, max_records)
        assert got
        assert got == [self.model.popleft() for _ in got]
        if len(got) > 1:
            assert sum(b.size_bytes for b in got) <= max_bytes
            assert sum(len(b) for b in got) <= max_records
        assert self.room - before == (was_full and not self.queue.full)

    @rule()
    def clear(self) -> None:
        assert self.queue.clear() == sum(len(b) for b in self.model)
        self.model.clear()

    @invariant()
    def sums(self) -> None:
        size_bytes = sum(b.size_bytes + BATCH_OVERHEAD_BYTES for b in self.model)
        assert self.queue.statistics() == QueueStatistics(
            sum(len(b) for b in self.model), size_bytes, len(self.model)
        )
        assert self.queue.full == (size_bytes >= 5000)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
