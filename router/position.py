"""Positions: how far an origin has been read, per stream, by file and by record.

What a checkpoint holds: whoever reads again goes on behind it, even where the log was rotated or is read
another way. Nothing here is ever changed: to have gone on is to have another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated

import msgspec

if TYPE_CHECKING:
    from logroute.router.record import Record, Stream


MOST_BYTES = 1 << 62
"""No file is as long: a stored offset that says more is damaged, and no call to the system takes it."""


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where in a log file: everything before it has been read."""

    file: str
    """The file's fingerprint: a hash of its first line; empty when there was no line yet."""
    offset: Annotated[int, msgspec.Meta(ge=0, lt=MOST_BYTES)]
    """Bytes from the beginning of the file, uncompressed."""
    tail: bytes = b""
    """Up to 64 bytes that stand before the offset: verified before the place is used again."""
    inode: int = 0
    """A hint, where several files are alike up to the offset; 0 where it is not known."""


class Anchor(msgspec.Struct, frozen=True, gc=False):
    """The last record of a stream, so that it is recognised however it is read again."""

    time: str
    sequence: int
    hash: str
    """`message_hash` of its message."""
    discard: bool = False
    """Its line was truncated and the rest of it is still to be discarded."""


class Mark(msgspec.Struct, frozen=True, gc=False):
    """Names a record of a stream, whatever a processor has made of its text."""

    time: str
    """The engine's, nine digits; empty where there is none."""
    sequence: int = 0
    place: str | None = None
    """Where there is no engine's time: as in `DetailedRecord`."""

    @classmethod
    def of(cls, record: Record) -> Mark:
        if record.place is not None:  # its time is that of its being read, which may be another
            return cls("", 0, record.place)
        return cls(record.logged or record.time, record.sequence)


class StreamPosition(msgspec.Struct, frozen=True, gc=False):
    """How far one stream has been read, by file and by record; either may be unknown."""

    place: Place | None = None
    anchor: Anchor | None = None
    begun: str = ""
    """Without a place: time of a record of which only some pieces have come. They are needed again."""
    until: Mark | None = None
    """Further than that: what stands before this record has been read too. A processor holds the record, and
    what has come behind it, until it is whole; they are needed again."""


class Position(msgspec.Struct, frozen=True, gc=False):
    """How far an origin has been read, per stream: an unfinished line holds back only its own."""

    stdout: StreamPosition = StreamPosition()
    stderr: StreamPosition = StreamPosition()
    since: str | None = None
    """Nothing before this time (nine digits) is wanted. For pairs that begin with `start: 2h` or `now`."""

    def of(self, stream: Stream) -> StreamPosition:
        return self.stdout if stream == "stdout" else self.stderr

    def holding(self, held: Mapping[Stream, StreamPosition], since: Iterable[str | None]) -> Position:
        """This one, but of these streams no further than that; and since when these were read."""
        floor = min((each for each in (*since, self.since) if each), default=None)
        return Position(held.get("stdout", self.stdout), held.get("stderr", self.stderr), floor)

    def without_marks(self) -> Position:
        """The position that is surely reached."""
        parts = [StreamPosition(p.place, p.anchor, p.begun) for p in (self.stdout, self.stderr)]
        return Position(parts[0], parts[1], self.since)


BEGINNING = Position()


class Reached(msgspec.Struct, frozen=True, gc=False):
    """How far an origin has been read by a batch: a position in one piece, as there are many of them.

    Of all batches of an origin only the last one's is stored, some times a second, and only then it is made
    a position.
    """

    stdout_place: Place | None = None
    stderr_place: Place | None = None
    stdout: Anchor | None = None
    stderr: Anchor | None = None

    @classmethod
    def at(cls, position: Position) -> Reached:
        stdout, stderr = position.stdout, position.stderr
        return cls(stdout.place, stderr.place, stdout.anchor, stderr.anchor)

    def anchor(self, stream: Stream) -> Anchor | None:
        return self.stdout if stream == "stdout" else self.stderr

    def position(self) -> Position:
        return Position(
            StreamPosition(self.stdout_place, self.stdout),
            StreamPosition(self.stderr_place, self.stderr),
        )
