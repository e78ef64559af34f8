"""From chunks of a log file to batches: the records, and between which positions they stand.

Knows records and touches no file.
"""

from __future__ import annotations

import msgspec

from logroute.router.position import Anchor, Place, Position, Reached
from logroute.router.record import RECORD_OVERHEAD_BYTES, Batch, Origin, Reader, Record, Stream, message_hash
from logroute.router.times import full_time
from logroute.sources.log_formats import Chunk, LineFormat


class LogBatches:
    """Makes the batches of one log, in order.

    Everything before `_end`, and nothing behind it, is in batches, or unfinished in the format. `reached` is
    before it where something is.
    """

    __slots__ = ("_end", "_format", "reached")

    def __init__(self, format: LineFormat) -> None:
        self._format = format
        self._end = Place("", 0)
        self.reached = Reached()

    def begin(self, position: Position, end: Place) -> None:
        """Go on here; everything before `end` has been read."""
        self._end = end
        self.reached = Reached.at(position)

    @property
    def last_time(self) -> str:
        """Of what has been read."""
        return max((last.time for last in (self.reached.stdout, self.reached.stderr) if last), default="")

    def take(self, chunk: Chunk, origin: Origin, reader: Reader) -> Batch:
        """The batch of a chunk; it may have no records, and moves the position all the same."""
        before = self.reached
        if before.stdout_place is not None and not before.stdout_place.file and chunk.spot[1] == 0:
            # It was empty when reading began there; now it can be recognised.
            begin = Place(chunk.file, 0, inode=chunk.inode)
            before = msgspec.structs.replace(before, stdout_place=begin, stderr_place=begin)
        size = len(chunk.data)
        lines, newlines = self._format.parse(chunk)
        streams = [line.stream for line in lines]
        self._advance(chunk, lines, streams)
        self._format.statistics.records += len(lines)
        self._format.statistics.bytes += size
        if self._format.statistics.discarded:
            origin.truncates = True
        return Batch(
            origin,
            lines,
            before=before,
            after=self.reached,
            size_bytes=size + RECORD_OVERHEAD_BYTES * len(lines),
            newlines=newlines,
            ready=self._format.ready,
            acknowledged=chunk.acknowledged,
            reader=reader,
            streams=streams,
        )

    def _advance(self, chunk: Chunk, lines: list[Record], streams: list[Stream]) -> None:
        """Move what was reached behind what was just consumed."""
        reached = self.reached
        size = len(chunk.data)
        index, offset = chunk.spot
        place = self._end = Place(chunk.file, offset + size, chunk.tail_at(size), chunk.inode)
        stdout = last_anchor(lines, streams, "stdout", reached.stdout)
        stderr = last_anchor(lines, streams, "stderr", reached.stderr)
        places: dict[Stream, Place | None] = {"stdout": place, "stderr": place}
        for stream, open_ in self._format.unfinished.items():
            if open_.discarding:
                continue
            # Begun in an earlier file or chunk: its place is what was reached already.
            begun_in, begun_at = open_.start
            if begun_in == index and begun_at >= offset:
                tail = chunk.tail_at(begun_at - offset)
                places[stream] = Place(chunk.file, begun_at, tail, chunk.inode)
            else:
                places[stream] = reached.stdout_place if stream == "stdout" else reached.stderr_place
            if self._format.pieces:
                # A line is not told to be of one stream or the other before it has ended.
                places["stderr"] = places["stdout"]
        stdout, stderr = self._discarding("stdout", stdout), self._discarding("stderr", stderr)
        self.reached = Reached(places["stdout"], places["stderr"], stdout, stderr)

    def _discarding(self, stream: Stream, last: Anchor | None) -> Anchor | None:
        """The same, marked where, and only where, the rest of its line is still to be discarded."""
        if last is None:
            return None
        open_ = self._format.unfinished.get(stream)
        discard = open_ is not None and open_.discarding
        return last if last.discard == discard else msgspec.structs.replace(last, discard=discard)

    def finish(self, origin: Origin, reader: Reader) -> Batch | None:
        """At the end of the log of an ended container no record can get a further piece.

        Of a running one it may: moby writes a piece without a newline when its buffer is full, too.
        """
        if not self._format.unfinished:
            return None
        finished = self._format.finish()
        before = self.reached
        streams = [record.stream for record in finished]
        self.reached = Reached(
            self._end,
            self._end,
            last_anchor(finished, streams, "stdout", before.stdout),
            last_anchor(finished, streams, "stderr", before.stderr),
        )
        if not finished:
            return None
        size = sum(len(record.message) for record in finished)
        self._format.statistics.records += len(finished)
        return Batch(
            origin,
            finished,
            before=before,
            after=self.reached,
            size_bytes=size + RECORD_OVERHEAD_BYTES * len(finished),
            reader=reader,
        )


def anchor_of(record: Record, sequence: int) -> Anchor:
    """Of a record as it was read: its message may still have its newline, its time may be short."""
    hash = message_hash(record.message.removesuffix("\n"))
    return Anchor(full_time(record.time), sequence, hash, record.truncated)


def last_anchor(
    lines: list[Record], streams: list[Stream], stream: Stream, previous: Anchor | None
) -> Anchor | None:
    """The anchor of the stream's last record in these lines; the previous one if there is none."""
    if stream not in streams:  # a container that uses only one of them: no loop over every batch
        return previous
    index = len(lines) - 1
    while streams[index] != stream:
        index -= 1
    last = lines[index]
    sequence = 0
    while index > 0:
        index -= 1
        if streams[index] == stream:
            if lines[index].time != last.time:
                return anchor_of(last, sequence)
            sequence += 1
    if previous is not None and previous.time == full_time(last.time):
        sequence += previous.sequence + 1
    return anchor_of(last, sequence)
