"""What was said before: all logs together, in the order of time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio
from hypothesis import given
from hypothesis import strategies as st

from logroute.router.history import LEAST_BYTES, MOST_BYTES, SMALL_BYTES, reading
from logroute.router.position import BEGINNING
from logroute.router.record import Batch, Origin, Record
from logroute.router.times import iso_time
from logroute.sources import Past

BEGAN_NS = 1_795_000_000 * 10**9


class Told:
    """A log whose history is these batches."""

    running = True

    def __init__(self, name: str, batches: Sequence[Sequence[int]], size_bytes: int = 100) -> None:
        self.origin = Origin(f"docker:{name}", "docker", id=name * 8, name=name)
        self._batches = batches
        self._size_bytes = size_bytes

    async def read(self, past: Past, take: Callable[[Batch], Awaitable[None]]) -> None:
        for times in self._batches:
            records = [
                Record(f"{self.origin.name} {at}\n", "stdout", iso_time(BEGAN_NS + at)) for at in times
            ]
            await take(
                Batch(self.origin, records, before=BEGINNING, after=BEGINNING, size_bytes=self._size_bytes)
            )


async def groups_of(logs: Sequence[Told], past: Past | None = None) -> list[list[Batch]]:
    async with reading(logs, past or Past()) as groups:
        return [group async for group in groups]


def times(groups: Sequence[Sequence[Batch]]) -> list[str]:
    return [record.time for group in groups for batch in group for record in batch.records]


async def test_many_small_logs_are_one_group() -> None:
    # Each alone would be one, and all others be looked at for it: seconds, of a thousand.
    groups = await groups_of([Told(f"c{n}", [[n, 1000 + n]]) for n in range(200)])
    assert len(groups) == 1
    assert times(groups) == sorted(times(groups))
    assert len(times(groups)) == 400


async def test_of_a_large_log_a_piece_is_held_and_no_more() -> None:
    given_so_far = 0

    class Counted(Told):
        async def read(self, past: Past, take: Callable[[Batch], Awaitable[None]]) -> None:
            async def counted(batch: Batch) -> None:
                nonlocal given_so_far
                given_so_far += 1
                await take(batch)

            await super().read(past, counted)

    pieces = [[at] for at in range(50)]
    logs = [Counted("large", pieces, SMALL_BYTES), Told("other", [[1]], SMALL_BYTES)]
    async with reading(logs, Past()) as groups:
        first = await anext(groups)
    assert times([first]) == sorted(times([first]))
    assert given_so_far <= 3


async def test_of_many_logs_less_is_read_at_once() -> None:
    few, many = Past(), Past()
    await groups_of([Told("a", [[1]])], few)
    await groups_of([Told(f"c{n}", [[n]]) for n in range(300)], many)
    assert (few.piece_bytes, many.piece_bytes) == (MOST_BYTES, LEAST_BYTES)


LOGS = st.lists(
    st.tuples(
        st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=4), max_size=5),
        st.sampled_from([1, SMALL_BYTES]),
    ),
    max_size=6,
)


@given(LOGS)
def test_everything_comes_in_order_whatever_the_pieces(
    found: list[tuple[list[list[int]], int]],
) -> None:
    logs = []
    for number, (pieces, size_bytes) in enumerate(found):
        in_order = sorted(at for piece in pieces for at in piece)
        cut = iter(in_order)
        logs.append(Told(f"c{number}", [[next(cut) for _ in piece] for piece in pieces], size_bytes))
    groups = trio.run(groups_of, logs)
    come = times(groups)
    assert come == sorted(come)
    assert len(come) == sum(len(piece) for pieces, _ in found for piece in pieces)


@given(LOGS)
def test_nothing_is_missing_and_it_ends_where_times_go_back(
    found: list[tuple[list[list[int]], int]],
) -> None:
    # A clock is set back, or an engine's streams are not in order.
    logs = [Told(f"c{n}", pieces, size_bytes) for n, (pieces, size_bytes) in enumerate(found)]
    come = times(trio.run(groups_of, logs))
    assert len(come) == sum(len(piece) for pieces, _ in found for piece in pieces)


async def test_a_log_whose_times_go_back_holds_up_nobody() -> None:
    logs = [Told("a", [[10, 11], [3, 4], [12]]), Told("b", [[50], [60]])]
    assert len(times(await groups_of(logs))) == 7
