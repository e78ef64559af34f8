"""Join the pieces into which an engine cuts long lines, per stream.

moby's copier cuts a line at 16 KiB: every piece but the last lacks the newline, and all pieces carry the
time of the first. So pieces join when stream and time are equal and the one before lacks its newline;
another time begins a new record. What speaks CRI (containerd, CRI-O) gives each piece a time of its own:
there all pieces join up to the newline, and the record has the first one's time. Nothing here looks at a
clock: the same pieces give the same records however often they are read.

Sans-IO, shared by both ways of reading.
"""

from __future__ import annotations

import msgspec

from logroute.router.record import DetailedRecord, Record, Stream


class Unfinished(msgspec.Struct):
    """A record of which at least one piece has come, and not the newline."""

    time: str
    start: tuple[int, int]
    """Where its first piece begins, in the caller's coordinates (which file, which offset)."""
    parts: list[str] = msgspec.field(default_factory=list)
    size: int = 0
    """Characters kept."""
    discarding: bool = False
    """It reached the limit and was emitted: what still comes of it is thrown away."""


class Joiner:
    """Turns pieces into records. One per log; holds at most `limit` characters per stream."""

    __slots__ = ("discarded", "limit", "same_time", "unfinished")

    def __init__(self, limit: int, *, same_time: bool = True) -> None:
        """Where the pieces of a record have not the `same_time`, their bytes that are no UTF-8 are given as
        halves of surrogate pairs (`surrogateescape`): a character may be cut in two, and is whole again then.
        """
        self.limit = limit
        self.same_time = same_time
        self.unfinished: dict[Stream, Unfinished] = {}
        self.discarded = 0
        """Characters thrown away behind truncated records."""

    def resume_discarding(self, stream: Stream, time: str, start: tuple[int, int]) -> None:
        """Go on discarding the rest of a line that was truncated before the checkpoint."""
        self.unfinished[stream] = Unfinished(time, start, discarding=True)

    def begins(self, piece: Record) -> bool:
        """Whether a piece begins a record."""
        open_ = self.unfinished.get(piece.stream)
        return open_ is None or (self.same_time and open_.time != piece.time)

    def add(self, piece: Record, start: tuple[int, int], out: list[Record]) -> None:
        """Take one piece, `message` with its newline if it has one; append the records that it finishes."""
        text = piece.message
        complete = text[-1:] == "\n"
        open_ = self.unfinished.get(piece.stream)
        if open_ is not None and open_.time != piece.time and self.same_time:
            self.finish(piece.stream, out)
            open_ = None
        if complete:
            text = text[:-1]
            if open_ is None and len(text) <= self.limit:
                piece.message = text if self.same_time else repaired(text)
                out.append(piece)
                return
        if open_ is None:
            open_ = self.unfinished[piece.stream] = Unfinished(piece.time, start)
        if open_.discarding:
            self.discarded += len(text)
        else:
            room = self.limit - open_.size
            open_.parts.append(text[:room])
            open_.size += min(len(text), room)
            if len(text) > room:
                out.append(self._record(piece.stream, open_, truncated=True))
                self.discarded += len(text) - room
                open_.parts.clear()
                open_.discarding = True
        if complete:
            self.finish(piece.stream, out)

    def finish(self, stream: Stream, out: list[Record]) -> None:
        """Nothing more comes of this stream's unfinished record: append it as it is."""
        open_ = self.unfinished.pop(stream, None)
        if open_ is not None and not open_.discarding:
            out.append(self._record(stream, open_, truncated=False))

    def _record(self, stream: Stream, open_: Unfinished, *, truncated: bool) -> Record:
        message = "".join(open_.parts)
        if not self.same_time:
            message = repaired(message)
        if truncated:
            return DetailedRecord(message, stream, open_.time, truncated=True)
        return Record(message, stream, open_.time)


def repaired(text: str) -> str:
    """A text with what was escaped in it: characters that are whole now, U+FFFD for what is none."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
