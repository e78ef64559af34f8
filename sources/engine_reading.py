"""One stream of `/logs`, from its opening to its end: what came of it, and how far it can be relied on.

An engine that rotates a log under a stream that follows may leave out a file of it, or give one twice, and
says nothing. Decides from what came and from what the log's last piece is; asks nobody, and never waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

import msgspec

from logroute.router.position import Position
from logroute.router.record import STREAMS, Record, message_hash
from logroute.sources.engine_answers import time_ns
from logroute.sources.engine_resume import Skipper
from logroute.sources.frames import LogDecoder

# Opening a log makes the engine decode it from its beginning.
REOPEN_S = 0.25
# Faster than any engine writes a log: what it could not write in the time between two records is not missing.
FASTEST_BYTES_PER_S = 25_000_000


class End(Enum):
    """Why one reading ended."""

    OVER = auto()
    """The engine ended it: the log's end, or a connection that was cut; nobody can tell."""
    STALLED = auto()
    ROTATED = auto()
    """It carried as much as a file of the log may hold."""
    BACKWARDS = auto()
    """A record was older than the one before it: the log was rotated, or the clock was set back.

    Or what is between them may be missing. An exact reading tells.
    """
    MISSING = auto()
    """What should have come, to go on behind it, did not."""


class Reading(msgspec.Struct):
    decoder: LogDecoder
    skipper: Skipper
    follow: bool
    rotation_bytes: int | None
    """What a file of the log may hold; None: it is not rotated."""
    opened_at: float
    records: int = 0
    last: Record | None = None
    """What was decoded last, discarded or not."""
    quiet: int = 0
    """How often it came to what it took for the end of the log, and that was not the end."""
    awaited: Record | None = None
    """What was the log's last piece then: if it comes, no file was left out."""
    verified_at: float | None = None
    """When it was known to stand at the end of the log, and not of a file that is not the newest any more."""

    def note(self, records: Sequence[Record]) -> bool:
        """These have come. Whether what is `awaited` is among them: then it is verified now."""
        self.records += len(records)
        self.last = records[-1]
        if self.awaited is None or not came_to(self.awaited, self.decoder, records):
            return False
        self.awaited = None
        return True

    def reached(self, last: Record | None, position: Position, came: Sequence[Record]) -> bool:
        """Whether the log's last piece is the end of what came last, or the position is beyond it."""
        if self.decoder.error is not None:
            return False
        if last is None or last.time < (position.since or ""):
            return True
        anchor = position.of(last.stream).anchor
        if anchor is not None:
            if anchor.time > last.time:
                return True
            if anchor.time == last.time and anchor.hash == message_hash(last.message):
                return True
        return came_to(last, self.decoder, came)

    def may_have_rotated(self, now: float) -> bool:
        """A file's worth of records has come. A json-file line is some 31 bytes longer than its frame."""
        if self.rotation_bytes is None or self.verified_at is None:
            return False
        # Opening makes the engine decode all that there is: a tenth of the time is enough for that.
        opening_s = self.verified_at - self.opened_at
        if now - self.verified_at < max(REOPEN_S, 10 * opening_s):
            return False
        return self.decoder.stream_bytes + 31 * self.records >= self.rotation_bytes

    def may_have_skipped(self, first: Record, position: Position) -> bool:
        """It stood still where it was not verified, and a whole file may have been written since then."""
        if not self.quiet or self.verified_at is not None or self.rotation_bytes is None:
            return False
        before = newest_time(position)
        if not before or not first.time:
            return False
        return (time_ns(first.time) - time_ns(before)) * FASTEST_BYTES_PER_S >= self.rotation_bytes * 10**9


def newest_time(position: Position) -> str:
    """Time of the newest record that was read; empty if none was."""
    anchors = [position.of(stream).anchor for stream in STREAMS]
    return max((anchor.time for anchor in anchors if anchor), default="")


def came_to(last: Record, decoder: LogDecoder, came: Sequence[Record]) -> bool:
    """Whether the log's last piece is among these records, or is what the decoder has unfinished."""
    open_ = decoder.joiner.unfinished.get(last.stream)
    if open_ is not None and open_.time == last.time:
        return open_.discarding or open_.parts[-1:] == [last.message]
    return any(_ends_with(record, last) for record in came)


def _ends_with(record: Record, last: Record) -> bool:
    """Whether a record is, or ends with, the log's last piece."""
    if record.stream != last.stream or record.time != last.time:
        return False
    return record.truncated or last.truncated or record.message.endswith(last.message)
