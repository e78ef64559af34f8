"""Who looks: what a view holds, and what it gives at a time."""

from __future__ import annotations

import trio
import trio.testing

from logroute.router.position import BEGINNING
from logroute.router.record import Batch, Origin, Record, batch_size_bytes
from logroute.router.times import iso_time
from logroute.router.views import HELD_BYTES, PIECE_BYTES, Item, News, Skipped, View, Views

ORIGIN = Origin("docker:web", "docker", id="w" * 64, name="web")


def batch(first: int, count: int) -> Batch:
    records = [Record(f"{n} {'x' * 200}", "stdout", iso_time(n * 10**9)) for n in range(first, first + count)]
    size_bytes = batch_size_bytes(records, 200 * count)
    return Batch(ORIGIN, records, before=BEGINNING, after=BEGINNING, size_bytes=size_bytes, ready=True)


def numbers(items: list[Item]) -> list[int]:
    batches = [item for item in items if isinstance(item, Batch)]
    return [int(record.message.split()[0]) for each in batches for record in each.records]


async def all_of(view: View, until: int) -> list[list[Item]]:
    """What it gives, each time, until there are so many records."""
    given: list[list[Item]] = []
    while sum(len(numbers(items)) for items in given) < until:
        given.append(await view.receive())
    return given


async def test_what_is_held_is_given_in_pieces_and_in_order() -> None:
    with Views().open() as view:
        view.show(batch(0, 5))
        view.show(batch(5, 800))
        given = await all_of(view, 805)
    assert [number for items in given for number in numbers(items)] == list(range(805))
    assert len(given) > 1
    for items in given:
        assert sum(item.size_bytes for item in items if isinstance(item, Batch)) <= PIECE_BYTES


async def test_what_there_was_no_room_for_is_told_behind_what_was_held() -> None:
    with Views().open(news=True) as view:
        shown = 0
        while shown * 200 < HELD_BYTES:  # with what records cost beside their text it is too much
            view.show(batch(shown, 100))
            shown += 100
        view.tell(News("ended", ORIGIN))
        told: list[Item] = []
        while not any(isinstance(item, Skipped) for item in told):
            told += await view.receive()
        view.show(batch(shown, 1))
        after = await view.receive()
    skipped = [item for item in told if isinstance(item, Skipped)]
    assert told[-1] is skipped[0]
    assert numbers(told) == list(range(shown - skipped[0].records))
    assert any(isinstance(item, News) for item in told)
    assert numbers(after) == [shown]


async def test_records_larger_than_a_piece_are_given_one_by_one() -> None:
    records = [Record("x" * (PIECE_BYTES + 1), "stdout", iso_time((n + 1) * 10**9)) for n in range(3)]
    size_bytes = batch_size_bytes(records, 3 * (PIECE_BYTES + 1))
    large = Batch(ORIGIN, records, before=BEGINNING, after=BEGINNING, size_bytes=size_bytes, ready=True)
    with Views().open() as view:
        view.show(large)
        given = [await view.receive() for _ in records]
    assert [[item.records for item in items if isinstance(item, Batch)] for items in given] == [
        [[record]] for record in records
    ]


async def test_a_record_larger_than_what_is_held_is_skipped_and_what_comes_then_is_seen(
    autojump_clock: trio.testing.MockClock,
) -> None:
    record = Record("x" * (HELD_BYTES + 1), "stdout", iso_time(10**18))
    large = Batch(ORIGIN, [record], before=BEGINNING, after=BEGINNING, size_bytes=HELD_BYTES + 1, ready=True)
    with Views().open() as view, trio.fail_after(1):
        view.show(large)
        assert await view.receive() == [Skipped(1)]
        view.show(batch(0, 1))
        assert numbers(await view.receive()) == [0]
