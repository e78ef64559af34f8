"""What was said before somebody began to look: read from the logs themselves, in the order of time.

A view is opened first, then history is read to the end of each log: so nothing is missing between the two,
and what is in both is told apart (`seam`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager

import msgspec
import trio

from logroute.router.record import Batch, Record, batch_size_bytes
from logroute.sources import History, Past

OPENED_AT_ONCE = 32
"""Logs that are being opened at a time; engines do not like a thousand at once."""
LEAST_BYTES, MOST_BYTES = 128 << 10, 1 << 20
ALL_BYTES = 32 << 20
"""How much is read at once of each log, and of all: something of each is held until all are there."""
SMALL_BYTES = 64 << 10
"""A first batch that is smaller is likely all that a log has: the next is waited for, and tells."""


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
                    if len(batch):
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
        if count:
            taken, batch = batch.parted(count)
            yield taken
        held.appendleft(batch)
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
