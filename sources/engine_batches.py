"""What was read of a log by API and is not taken yet: batches that grow until somebody takes them.

A stream of `/logs` is read on while the routes are slow, and the next batch is the larger, up to a bound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
import trio

from logroute.router.position import BEGINNING, Anchor, Position, StreamPosition
from logroute.router.record import (
    ALL_STREAMS,
    NO_STREAMS,
    STREAMS,
    Batch,
    Origin,
    Reader,
    Record,
    Stream,
    batch_size_bytes,
)
from logroute.sources.engine_resume import Ahead, advanced

# Read but not taken yet, as batches count it: for usual lines half of it is text.
PENDING_BYTES = 2 << 20
ALL_PENDING_BYTES = 32 << 20
"""The same of all logs of a source together, however many hang; but each may have …"""
LEAST_PENDING_BYTES = 64 << 10
"""… so much, without which it would be read in small pieces."""
# As long as nobody takes anything a stream stays open for so long.
STALL_S = 5.0

Offer = Callable[[Batch], Awaitable[None]]


class _Filling(msgspec.Struct):
    """A batch that grows until somebody takes it."""

    origin: Origin
    records: list[Record]
    before: Position
    after: Position
    size_bytes: int
    acknowledged: Mapping[str, frozenset[Stream]] | None
    ending: bool = False


def share_of_pending(logs: int) -> int:
    """What each of so many logs may hold, bytes."""
    return max(LEAST_PENDING_BYTES, min(PENDING_BYTES, ALL_PENDING_BYTES // max(1, logs)))


class PendingBatches:
    """The batches of one log, in order, and how far it was read."""

    def __init__(self, bound: Callable[[], int] = lambda: PENDING_BYTES) -> None:
        """`bound()` is what it may hold, in bytes: it is asked again and again."""
        self._bound = bound
        self.position: Position = BEGINNING
        """Behind the last record that was put in."""
        self.ahead: list[Ahead] = []
        """Routes that have already some of what is read."""
        self.on_idle: Callable[[], None] = lambda: None
        """Called when everything that was put in has been taken."""
        # Invariant: _size_bytes == the sizes of what is in _filled and of what is being offered.
        self._filled: deque[_Filling] = deque()
        self._size_bytes = 0
        self._offering = False
        self._to_take = trio.lowlevel.ParkingLot()
        self._taken = trio.lowlevel.ParkingLot()

    def put(
        self,
        origin: Origin,
        records: list[Record],
        discarding: Sequence[Stream],
        begun: Mapping[Stream, str],
    ) -> int:
        """Make batches of new records, cut where a route that is ahead has no more of a stream.

        `discarding` are streams of whose last record the rest is to be discarded; `begun` has the times of
        records that have begun behind these. Returns how many were taken: not all, where one is `missing`.
        """
        if not self.ahead:
            self._append(origin, records, discarding, begun, None)
            return len(records)
        start = 0
        current: tuple[frozenset[Stream], ...] | None = None
        for index, record in enumerate(records):
            state = tuple(group.acknowledged(record) for group in self.ahead)
            if self.missing:
                # Whether they have it can only be told by another reading, to which it is left.
                records = records[:index]
                discarding, begun = (), {}
                break
            if current is not None and state != current:
                rest = {**begun, **first_times(records[index:])}
                self._append(origin, records[start:index], (), rest, self._by_route(current))
                start = index
            current = state
        if current is not None:
            self._append(origin, records[start:], discarding, begun, self._by_route(current))
        self.ahead = [group for group in self.ahead if not group.done]
        return len(records)

    def begin_behind(self, anchors: Mapping[Stream, Anchor]) -> None:
        """What is put in next follows on these: they have been passed over."""
        parts = {
            stream: StreamPosition(None, anchors[stream]) if stream in anchors else self.position.of(stream)
            for stream in STREAMS
        }
        self.position = Position(parts["stdout"], parts["stderr"], self.position.since)

    def end(self, origin: Origin) -> None:
        """Nothing more is put in: what processors hold of it has ended."""
        here = self.position
        self._filled.append(_Filling(origin, [], here, here, 0, None, ending=True))
        self._to_take.unpark_all()

    @property
    def missing(self) -> bool:
        """What a route that is ahead has last should have come, and did not."""
        return any(group.missing for group in self.ahead)

    def _by_route(self, state: Sequence[frozenset[Stream]]) -> dict[str, frozenset[Stream]] | None:
        ahead = zip(self.ahead, state, strict=True)
        return {route: streams for group, streams in ahead if streams for route in group.routes} or None

    def _append(
        self,
        origin: Origin,
        records: list[Record],
        discarding: Sequence[Stream],
        begun: Mapping[Stream, str],
        acknowledged: Mapping[str, frozenset[Stream]] | None,
    ) -> None:
        before = self.position
        self.position = after = advanced(before, records, discarding, begun)
        size = batch_size_bytes(records, sum([len(record.message) for record in records]))
        self._size_bytes += size
        last = self._filled[-1] if self._filled else None
        if (
            last is not None
            and last.origin is origin
            and last.acknowledged == acknowledged
            and not last.ending
        ):
            last.records += records
            last.after = after
            last.size_bytes += size
        else:
            self._filled.append(_Filling(origin, records, before, after, size, acknowledged))
        self._to_take.unpark_all()

    async def hand_on(self, offer: Offer, reader: Reader) -> None:
        """Offer what was read, one batch at a time; meanwhile the next one grows."""
        while True:
            while not self._filled:
                self.on_idle()
                await self._to_take.park()
            filling = self._filled.popleft()
            batch = Batch(
                filling.origin,
                filling.records,
                before=filling.before,
                after=filling.after,
                size_bytes=filling.size_bytes,
                acknowledged=filling.acknowledged,
                reader=reader,
                settled=ALL_STREAMS if filling.ending else NO_STREAMS,
            )
            self._offering = True
            await offer(batch)
            self._offering = False
            self._size_bytes -= filling.size_bytes
            self._taken.unpark_all()

    @property
    def full(self) -> bool:
        return self._size_bytes >= self._bound()

    async def room(self) -> bool:
        """Wait until there is some; False if that takes too long for a stream to stay open."""
        with trio.move_on_after(STALL_S) as scope:
            while self.full:
                await self._taken.park()
        return not scope.cancelled_caught

    @property
    def idle(self) -> bool:
        """Whether everything has been taken."""
        return not (self._filled or self._offering)

    async def handed_on(self) -> None:
        """Wait until everything has been taken."""
        while not self.idle:
            await self._taken.park()


def first_times(records: Sequence[Record]) -> dict[Stream, str]:
    """The time of each stream's first record."""
    return {record.stream: record.time for record in reversed(records)}
