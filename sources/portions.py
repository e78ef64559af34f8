"""How much a sweep may read for queues that could not take all of it: no more than fits, and a piece.

Before something is read nobody knows how much it takes, so that is reckoned from what its log had so far, and
then from how it begins. Where all queues have room for a whole sweep, nothing of this is asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from logroute.router.queue import BATCH_OVERHEAD_BYTES
from logroute.router.record import RECORD_OVERHEAD_BYTES
from logroute.sources import Room
from logroute.sources.log_formats import Chunk, LogStatistics

USUAL_LINE_BYTES = 150
"""Of a log that nothing was read of yet."""
SAMPLE_BYTES = 4096
"""So much of what was read tells how long its lines are: to count them all costs a tenth of reading them."""


class Portion:
    """What may be read of one log in one sweep. Used in one thread at a time."""

    __slots__ = ("_growth", "_rooms")

    def __init__(self, rooms: Sequence[Room], statistics: LogStatistics) -> None:
        self._rooms = rooms
        line_bytes = statistics.bytes / statistics.records if statistics.records else USUAL_LINE_BYTES
        self._growth = 1 + RECORD_OVERHEAD_BYTES / line_bytes
        """What a byte of the log takes in a queue."""

    def bytes(self) -> float:
        """As the log counts them; 0: nothing, now."""
        most = math.inf
        for room in self._rooms:
            if room.left_bytes <= 0:
                return 0
            most = min(most, max(room.left_bytes, room.piece_bytes))
        return most / self._growth

    def take(self, chunks: Sequence[Chunk]) -> None:
        """This was read of it."""
        for chunk in chunks if self._rooms else ():
            size = len(chunk.data)
            sampled = min(size, SAMPLE_BYTES)
            lines = chunk.data.count(b"\n", 0, sampled) * size / sampled if size else 0
            for room in self._rooms:
                room.left_bytes -= size + lines * RECORD_OVERHEAD_BYTES + BATCH_OVERHEAD_BYTES
