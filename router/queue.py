"""The queue of a route: batches between the sweeps and the deliveries, bounded in bytes.

Never waits on the way in: whoever puts asks `full` first, and the bound may be overshot by one sweep. The
way out gathers what one delivery takes. Plain state, one reader; all on the trio thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import msgspec
import trio

from logroute.router.record import Batch

BATCH_OVERHEAD_BYTES = 1000
"""What a batch holds beside its records: itself, its list, its positions. Counted, because a container of
which a route takes nothing gives it an empty batch each sweep, which carries the checkpoint."""


class QueueStatistics(msgspec.Struct, frozen=True):
    """What waits in a route's queue now."""

    records: int
    memory_bytes: int
    """Estimate of what the waiting batches hold."""
    batches: int = 0
    """How many there are; some may be empty, for the sake of their positions."""


class Queue:
    """First in, first out. `on_room` is called when a queue that was full is so no longer."""

    def __init__(self, limit_bytes: int, on_room: Callable[[], None]) -> None:
        self.limit_bytes = limit_bytes
        self._on_room = on_room
        # Invariant: _bytes and _records are sums over _batches; only put(), clear() and _pop() change any.
        self._batches: deque[Batch] = deque()
        self._bytes = 0
        self._records = 0
        self._arrived = trio.Event()
        self._closed = False

    @property
    def full(self) -> bool:
        return self._bytes + BATCH_OVERHEAD_BYTES * len(self._batches) >= self.limit_bytes

    def statistics(self) -> QueueStatistics:
        batches = len(self._batches)
        return QueueStatistics(self._records, self._bytes + BATCH_OVERHEAD_BYTES * batches, batches)

    def put(self, batches: Sequence[Batch]) -> int:
        """Append one sweep's batches; how many records they have."""
        records = 0
        size = 0
        for batch in batches:
            records += len(batch.lines)
            size += batch.size_bytes
        self._batches.extend(batches)
        self._bytes += size
        self._records += records
        self._arrived.set()
        return records

    def close(self) -> None:
        """Nothing more will be put: `take` gives what is left, then None."""
        self._closed = True
        self._arrived.set()

    def clear(self) -> int:
        """Throw away what waits; how many records that were."""
        was_full, records = self.full, self._records
        self._batches.clear()
        self._bytes = self._records = 0
        if was_full:
            self._on_room()
        return records

    async def wait(self) -> None:
        """Wait until `take` would not have to wait for a first batch."""
        while not self._batches and not self._closed:
            await self._arrival()

    async def take(self, max_bytes: int, max_records: int, wait_s: float) -> list[Batch] | None:
        """The next batches, at least one, within the bounds; None once closed and empty.

        Waits for the first, then up to `wait_s` for the bounds to be reached. A batch is never split: one
        that is larger than the bounds comes alone.
        """
        await self.wait()
        if not self._batches:
            return None
        if wait_s and not self._closed:
            with trio.move_on_after(wait_s):
                while self._bytes < max_bytes and self._records < max_records and not self._closed:
                    await self._arrival()
        return self._pop(max_bytes, max_records)

    async def _arrival(self) -> None:
        if self._arrived.is_set():
            self._arrived = trio.Event()
        await self._arrived.wait()

    def _pop(self, max_bytes: int, max_records: int) -> list[Batch]:
        was_full = self.full
        taken: list[Batch] = []
        size = records = 0
        batches = self._batches
        while batches:
            batch = batches[0]
            size += batch.size_bytes
            records += len(batch.lines)
            if taken and (size > max_bytes or records > max_records):
                size -= batch.size_bytes
                records -= len(batch.lines)
                break
            taken.append(batches.popleft())
        self._bytes -= size
        self._records -= records
        if was_full and not self.full:
            self._on_room()
        return taken
