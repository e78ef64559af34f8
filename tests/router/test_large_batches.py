"""A batch that is larger than the whole queue: what becomes of it under each policy, with and without a disk.

Every test also adds up the route's books after each single step of any task.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from logroute.router.record import Batch
from logroute.router.route import Route
from logroute.sinks import Retryable
from tests.router.stand_ins import batch, number_of, origin
from tests.router.test_route import feed, make, running

pytestmark = pytest.mark.usefixtures("no_threads")

WEB = origin()
QUEUE = 10_000
LARGE = 30
"""Records of a large batch, of which each holds a hundredth of the queue."""
ROOMY, TIGHT = 1 << 20, 1
"""A disk for everything; one that is full as soon as something is on it."""
POLICIES = ["block", "drop_oldest", "drop_newest"]


def batches(*counts: int) -> list[Batch]:
    """Of so many records each, numbered through; the large ones have three times the queue's bytes."""
    made, first = [], 1
    for count in counts:
        size = 3 * QUEUE if count == LARGE else 100 * count
        made.append(batch(WEB, range(first, first + count), size_bytes=size))
        first += count
    return made


def bounded(folder: Path, policy: str, disk: int) -> Route:
    """With a sink that is down for a while, and a delivery that takes less than the large batch."""
    return make(
        [Retryable("down")] * 40,
        folder if disk else None,
        when_full=policy,
        queue_bytes=QUEUE,
        disk_bytes=disk,
        batch_bytes=QUEUE // 2,
        batch_records=10,
        batch_wait_s=0.0,
        retry_initial_s=10.0,
        retry_max_s=10.0,
    )


@pytest.mark.parametrize("disk", [0, TIGHT, ROOMY])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "counts", [(LARGE,), (LARGE, 1, 1), (1, 1, LARGE), (*[1] * 20, LARGE) * 2, (LARGE,) * 8]
)
async def test_a_large_batch_is_delivered_or_counted_as_a_whole(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, policy: str, disk: int, counts: tuple[int, ...]
) -> None:
    route = bounded(tmp_path, policy, disk)
    given = batches(*counts)
    with trio.fail_after(10_000):
        async with running(route) as sink:
            await feed(route, given)
    book = route.statistics()
    got = [int(message) for message in sink.messages]
    assert got == sorted(set(got)), "in order, and nothing twice"
    assert book.received == sum(counts)
    assert book.delivered == len(got)
    assert book.delivered + sum(book.dropped.values()) == book.received
    for each in given:
        numbers = {int(record.message) for record in each.records}
        assert numbers <= set(got) or not numbers & set(got), "a batch is dropped as a whole"
    if policy == "block" or disk == ROOMY:
        assert book.dropped == {}
    elif len(counts) > 3:
        assert book.dropped["full"] >= LARGE
    assert set(book.dropped) <= {"full"}
    assert number_of(route.state.positions[WEB.key]) == sum(counts), "what was dropped is acknowledged, too"


async def test_a_large_batch_is_taken_where_there_is_room_for_one_byte_and_then_nothing_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The bound may be overshot by one batch: to refuse it would mean to wait for ever."""
    route = make([100.0], deadline_s=1000.0, queue_bytes=QUEUE, batch_records=10, batch_wait_s=0.0)
    async with running(route) as sink:
        large, small = batches(LARGE, 1)
        await feed(route, [large])
        assert route.holds
        await trio.sleep(0.01)
        assert not route.holds, "it is under way, the queue is empty"
        await feed(route, [small])
        assert sink.messages == []
    assert len(sink.called("deliver")) == 2
    assert sink.messages == [str(n) for n in range(1, LARGE + 2)]


@pytest.mark.parametrize("disk", [0, TIGHT])
async def test_drop_oldest_keeps_the_newest_batch_however_large(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, disk: int
) -> None:
    route = bounded(tmp_path, "drop_oldest", disk)
    given = batches(*[1] * 50, LARGE)
    async with running(route) as sink:
        await feed(route, given)
        await trio.sleep(1)
    got = [int(message) for message in sink.messages]
    assert got[-LARGE:] == list(range(51, 51 + LARGE))


async def test_drop_newest_drops_a_large_batch_only_if_the_queue_is_full(
    autojump_clock: trio.testing.MockClock,
) -> None:
    route = make([100.0] * 2, deadline_s=1000.0, when_full="drop_newest", queue_bytes=QUEUE, batch_wait_s=0.0)
    first, fits, second = batches(1, LARGE, LARGE)
    async with running(route) as sink:
        route.put([first])
        await trio.sleep(1)  # it is under way
        await feed(route, [fits, second])
    assert [int(message) for message in sink.messages] == list(range(1, LARGE + 2))
    assert route.statistics().dropped == {"full": LARGE}


@pytest.mark.parametrize("disk", [ROOMY, TIGHT])
async def test_a_large_batch_that_is_spooled_is_there_at_the_next_start(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, disk: int
) -> None:
    route = bounded(tmp_path, "block", disk)
    await route.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(route.run)
        await feed(route, batches(LARGE))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    again = make([], tmp_path, queue_bytes=QUEUE, disk_bytes=disk, batch_wait_s=0.0)
    async with running(again) as sink:
        assert again.statistics().received == LARGE
    assert sink.messages == [str(n) for n in range(1, LARGE + 1)]
