"""What was said before somebody began to look: read from the logs themselves, in the order of time.

A view is opened first, then history is read to the end of each log: so nothing is missing between the two,
and what is in both is recognised by what it is (`Seam`), whatever the clocks say.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager

import msgspec
import trio

from logroute.router.record import Batch, Record, Stream, batch_size_bytes
from logroute.sources import History, Past

OPENED_AT_ONCE = 32
"""Logs that are being opened at a time; engines do not like a thousand at once."""
LEAST_BYTES, MOST_BYTES = 128 << 10, 1 << 20
ALL_BYTES = 32 << 20
"""How much is read at once of each log, and of all: something of each is held until all are there."""
SMALL_BYTES = 64 << 10
"""A first batch that is smaller is likely all that a log has: the next is waited for, and tells."""
REMEMBERED = 4000
"""Records of each container by which a view's first ones are recognised."""


class Seam:
    """Where what was before and what is seen live meet: no record is shown in both."""

    def __init__(self) -> None:
        self._last: dict[str, deque[tuple[Stream, str, str]]] = {}
        self._known: dict[str, Counter[tuple[Stream, str, str]]] = {}
        self._done: set[tuple[str, Stream]] = set()
        self._over = False

    def shown(self, batch: Batch) -> None:
        """These are shown as history."""
        last = self._last.setdefault(batch.origin.key, deque(maxlen=REMEMBERED))
        last.extend((record.stream, record.logged or record.time, record.message) for record in batch.records)

    def over(self) -> None:
        """All history is shown."""
        self._known = {key: Counter(last) for key, last in self._last.items()}
        self._last.clear()

    def new(self, batch: Batch) -> Batch:
        """A live batch without what was shown; itself where that is nothing of it.

        What is in both stands at the beginning of what is live: behind the first of a stream that is new
        nothing is looked for any more.
        """
        known = self._known.get(batch.origin.key)
        if known is None:
            return batch
        new: list[Record] = []
        for record in batch.records:
            if (batch.origin.key, record.stream) in self._done:
                new.append(record)
                continue
            same = (record.stream, record.logged or record.time, record.message)
            if known[same] > 0:
                known[same] -= 1
            else:
                self._done.add((batch.origin.key, record.stream))
                new.append(record)
        if {(batch.origin.key, stream) for stream in ("stdout", "stderr")} <= self._done:
            del self._known[batch.origin.key]
        if len(new) == len(batch.lines):
            return batch
        return batch.with_records(new, batch.size_bytes * len(new) // len(batch.lines))


class _Reading(msgspec.Struct, eq=False):
    """One log as it is read: what has come and is not passed on."""

    chunks: trio.MemoryReceiveChannel[Batch]
    held: deque[Batch] = msgspec.field(default_factory=deque)
    ended: bool = False

    @property
    def reached(self) -> str:
        """What is held is not later. So the least that one has reached takes all that this one holds: else,
        where times go back between two batches, nothing might be taken, for ever."""
        return max((batch.records[-1].time for batch in self.held), default="")

    async def fill(self) -> None:
        """Hold something, unless it has ended.

        Of a log that is small, its end: one that may go on makes all others wait, so that a thousand of one
        batch each would be taken one by one, with a look at all others each time.
        """
        while not self.ended and (not self.held or (len(self.held) == 1 and self._is_small())):
            try:
                self.held.append(await self.chunks.receive())
            except trio.EndOfChannel:
                self.ended = True

    def _is_small(self) -> bool:
        return self.held[0].size_bytes < SMALL_BYTES


@asynccontextmanager
async def reading(histories: Sequence[History], past: Past) -> AsyncIterator[AsyncIterator[list[Batch]]]:
    """Batches of all logs, in the order of their records' times, a group at a time.

    A log that fails ends; the others go on. What fails is the history's to say.
    """
    most = ALL_BYTES // max(1, len(histories)) if past.last is None else LEAST_BYTES
    past.piece_bytes = max(LEAST_BYTES, min(MOST_BYTES, most))
    opening = trio.Semaphore(OPENED_AT_ONCE)

    async def read(history: History, send: trio.MemorySendChannel[Batch]) -> None:
        async with send:
            opened = False
            await opening.acquire()
            try:

                async def take(batch: Batch) -> None:
                    nonlocal opened
                    if not opened:
                        opened = True
                        opening.release()
                    if batch.lines:
                        await send.send(batch)

                await history.read(past, take)
            finally:
                if not opened:
                    opening.release()

    async with trio.open_nursery() as nursery:
        readings: list[_Reading] = []
        for history in histories:
            send, receive = trio.open_memory_channel[Batch](0)
            readings.append(_Reading(receive))
            nursery.start_soon(read, history, send)
        try:
            async with aclosing(_merged(readings)) as merged:
                yield merged
        finally:
            nursery.cancel_scope.cancel()


async def _merged(readings: list[_Reading]) -> AsyncGenerator[list[Batch], None]:
    if len(readings) == 1:  # in order already, and as the source gave it
        async for batch in readings[0].chunks:
            yield [batch]
        return
    while readings:
        # Nobody may hold a nursery open here: who iterates may end in between.
        for each in readings:
            await each.fill()
        readings = [each for each in readings if each.held]
        until = min((each.reached for each in readings if not each.ended), default=None)
        if parts := [part for each in readings for part in _taken(each.held, until)]:
            yield _in_order(parts)


def _taken(held: deque[Batch], until: str | None) -> Iterable[Batch]:
    """What of it is not later than that, and is taken away. None: all."""
    while held:
        batch = held.popleft()
        records = batch.records
        if until is None or records[-1].time <= until:
            yield batch
            continue
        count = next(index for index, record in enumerate(records) if record.time > until)
        rest = records[count:]
        held.appendleft(batch.with_records(rest, batch.size_bytes * len(rest) // len(records)))
        if count:
            yield batch.with_records(records[:count], batch.size_bytes * count // len(records))
        return


def _in_order(parts: Sequence[Batch]) -> list[Batch]:
    """Records in the order of time, as batches of records that follow each other."""
    if len({part.origin for part in parts}) == 1:
        return list(parts)
    records = [(record.time, part) for part in parts for record in part.records]
    lines = [record for part in parts for record in part.records]
    order = sorted(range(len(lines)), key=lambda index: records[index][0])
    made: list[Batch] = []
    run: list[Record] = []
    of: Batch | None = None
    for index in order:
        part = records[index][1]
        if of is not None and part.origin is not of.origin:
            made.append(of.with_records(run, batch_size_bytes(run, 0)))
            run = []
        of = part
        run.append(lines[index])
    if of is not None:
        made.append(of.with_records(run, batch_size_bytes(run, 0)))
    return made
