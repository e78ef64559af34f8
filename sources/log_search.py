"""Where a checkpoint, a time or an end is in the files of a log, and what its first and last records are.

Looks into the files, line by line where it must; blocks on the disk. Spots count from the first of the files
that are given. Raises OSError.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from zlib import crc32

from logroute.router.position import BEGINNING, Anchor, Mark, Place, Position, StreamPosition
from logroute.router.record import STREAMS, Record, Stream
from logroute.router.times import full_time, iso_time
from logroute.sources.joiner import Joiner
from logroute.sources.log_batches import anchor_of
from logroute.sources.log_chain import Segment, lines_of
from logroute.sources.log_formats import LineFormat, Spot

_BLOCK_BYTES = 64 << 10
MARK_WITHIN_BYTES = 4 << 20
"""A marked record is no further than this behind the position that it belongs to: a few batches of a log."""


def locate(
    segments: Sequence[Segment], format: LineFormat, checkpoint: Position
) -> tuple[dict[Stream, Spot], dict[Stream, Anchor | None], str | None]:
    """Where each stream of a checkpoint is in the chain, and its last record there; and, if something is
    gone, since what time.
    """
    spots: dict[Stream, Spot] = {}
    anchors: dict[Stream, Anchor | None] = {}
    missing: str | None = None
    for stream in STREAMS:
        position = checkpoint.of(stream)
        spot = _verified(segments, position.place) if position.place else None
        if spot is None and position.anchor is not None:
            spot = _find_record(segments, format, stream, position.anchor)
        if spot is None and position.place is None and position.anchor is None:
            spot = _find_time(segments, format, checkpoint.since) if checkpoint.since else (0, 0)
        elif spot is None and position.place is not None and not position.place.file:
            spot = (0, 0)  # stored when the file was still empty: its beginning
        if spot is None:
            missing = max(missing or "", position.anchor.time if position.anchor else "")
            spot = (0, 0)
        anchor = position.anchor
        if position.until is not None:
            spot, anchor = _before_mark(segments, format, stream, spot, anchor, position.until)
        spots[stream], anchors[stream] = spot, anchor
    return spots, anchors, missing


def is_there(segments: Sequence[Segment], position: Position) -> bool:
    """Whether the files of that position are there, with what stood before it, as far as that says any."""
    for segment in segments:
        segment.identify()
    places = [place for stream in STREAMS if (place := position.of(stream).place) is not None and place.file]
    return all(_verified(segments, place) is not None for place in places)


def _before_mark(
    segments: Sequence[Segment],
    format: LineFormat,
    stream: Stream,
    spot: Spot,
    anchor: Anchor | None,
    mark: Mark,
) -> tuple[Spot, Anchor | None]:
    """Where the marked record begins, and the stream's record before it; what is given, if it is not near.

    That was not more than a batch away, so it is not looked for further than that: if it is not there, more
    is read again than need be, and may be joined otherwise.
    """
    if mark.place is not None:
        file, at, checksum = mark.place.split("-")[:3]
        for index, segment in enumerate(segments):
            # Rotation may begin several files alike.
            if segment.identity != file or (index, int(at)) < spot:
                continue
            line = segment.read(int(at), format.limit).partition(b"\n")[0]
            if f"{crc32(line):08x}" == checksum:
                return (index, int(at)), anchor
        return spot, anchor
    joiner = Joiner(format.limit, same_time=format.same_time)
    if anchor is not None and anchor.discard:
        joiner.resume_discarding(stream, anchor.time, spot)
    last = anchor
    sequence = last.sequence if last is not None and last.time == mark.time else -1
    looked = 0
    for index in range(spot[0], len(segments)):
        for offset, line in lines_of(segments[index], spot[1] if index == spot[0] else 0):
            looked += len(line)
            if looked > MARK_WITHIN_BYTES:
                return spot, anchor
            if (piece := format.decode(line)) is None or piece.stream != stream:
                continue
            piece.time = full_time(piece.time)
            if joiner.begins(piece) and piece.time == mark.time:
                sequence += 1
                if sequence == mark.sequence:
                    return (index, offset), last
            out: list[Record] = []
            joiner.add(piece, (index, offset), out)
            for record in out:
                same = last is not None and last.time == record.time
                last = anchor_of(record, last.sequence + 1 if last is not None and same else 0)
    return spot, anchor


def _verified(segments: Sequence[Segment], place: Place) -> Spot | None:
    """The spot of a place in the file that it is in.

    Programs may begin each of their files with the same lines. Among those that read alike up to there the
    inode tells; where it does not, it is the oldest: rather twice than never.
    """
    alike = [
        index
        for index, segment in enumerate(segments)
        if place.file and segment.identity == place.file and segment.tail_before(place.offset) == place.tail
    ]
    if not alike:
        return None
    return next((i for i in alike if segments[i].inode == place.inode), alike[0]), place.offset


def first_time(segments: Sequence[Segment], format: LineFormat) -> str:
    """The time of the oldest record; empty if there is none, or lines say no times."""
    for segment in segments:
        for _, line in lines_of(segment):
            if (record := format.decode(line)) is not None:
                return full_time(record.time)
    return ""


def _find_record(
    segments: Sequence[Segment], format: LineFormat, stream: Stream, anchor: Anchor
) -> Spot | None:
    """The spot behind an anchor's record, searched for by its time and verified by its hash."""
    if not format.timed:
        return None
    needle = format.needle(anchor.time)
    joiner = Joiner(format.limit, same_time=format.same_time)
    seen = -1
    for index, segment in enumerate(segments):
        for offset, line in lines_of(segment):
            # A long record's pieces all have its time; where they do not, what follows its first is its.
            goes_on = not format.same_time and stream in joiner.unfinished
            if (not goes_on and needle not in line) or (piece := format.decode(line)) is None:
                continue
            piece.time = full_time(piece.time)
            if piece.stream != stream or (piece.time != anchor.time and not goes_on):
                continue
            out: list[Record] = []
            joiner.add(piece, (index, offset), out)
            for record in out:
                seen += 1
                if seen >= anchor.sequence and anchor_of(record, 0).hash == anchor.hash:
                    return index, offset + len(line) + 1
    return None


def _find_time(segments: Sequence[Segment], format: LineFormat, since: str) -> Spot:
    """The spot of the first record at or after a time; the end if there is none.

    Where lines say no times, the beginning of the first file that was written to since then.
    """
    for index, segment in enumerate(segments):
        if not format.timed:
            if iso_time(os.fstat(segment.fd).st_mtime_ns) >= since:
                return index, 0
            continue
        later = segments[index + 1 : index + 2]
        if later and (first := first_time(later, format)) and first < since:
            continue
        for offset, line in lines_of(segment):
            record = format.decode(line)
            if record is not None and full_time(record.time) >= since:
                return index, offset
    last = len(segments) - 1
    if last < 0:
        return 0, 0
    return last, last_line(segments[last])[0]


def end_position(segments: Sequence[Segment], format: LineFormat) -> Position:
    """The position behind the last complete line."""
    if not segments:
        return Position()
    # Just rotated, the newest file is empty: its beginning is the end of the one before.
    last = next((s for s in reversed(segments) if s.size()), segments[-1])
    offset, line = last_line(last)
    place = Place(last.identify(), offset, last.tail_before(offset), last.inode)
    anchor = None
    position = StreamPosition(place)
    if line:
        record = format.decode(line)
        if record is None:
            return Position(position, position)
        anchor = anchor_of(record, 0)
        with_anchor = StreamPosition(place, anchor)
        if record.stream == "stdout":
            return Position(with_anchor, position)
        return Position(position, with_anchor)
    return Position(position, position)


def first_record(segments: Sequence[Segment], format: LineFormat) -> Record | None:
    """The oldest record that is still there."""
    for segment in segments:
        for _, line in lines_of(segment):
            if (record := format.decode(line)) is not None:
                record.time = full_time(record.time)
                return record
    return None


def last_time(segment: Segment, format: LineFormat) -> str:
    """The time of a file's last record; empty if there is none, or lines say no times."""
    record = format.decode(last_line(segment)[1])
    return full_time(record.time) if record is not None else ""


def bytes_between(segments: Sequence[Segment], spot: Spot, later: Spot) -> int:
    """Bytes from one spot to another; compressed files count as they lie on the disk."""
    if spot[0] == later[0]:
        return later[1] - spot[1]
    sizes = sum(segment.size() for segment in segments[spot[0] : later[0]])
    return sizes - (0 if segments[spot[0]].compressed else spot[1]) + later[1]


def last_line(segment: Segment) -> tuple[int, bytes]:
    """The offset behind the last complete line of a file, and that line."""
    if segment.compressed:
        offset, line = 0, b""
        for start, line in lines_of(segment):  # the last one counts
            offset = start + len(line) + 1
        return offset, line
    first = segment.begins_at() or 0
    size = segment.size()
    reach = 64 * 1024
    while True:
        start = max(first, size - reach)
        data = segment.read(start, size - start)
        end = data.rfind(b"\n")
        begin = data.rfind(b"\n", 0, max(0, end)) + 1 if end >= 0 else 0
        if end >= 0 and (begin > 0 or start == first):
            return start + end + 1, data[begin:end]
        if start == first:
            return (first if data else 0), b""
        reach *= 4


def position_before_last(segments: Sequence[Segment], lines: int) -> Position:
    """The position before the last so many lines; the beginning, if there are fewer."""
    for segment in reversed(segments):
        segment.identify()
        if segment.compressed:
            starts = deque((start for start, _ in lines_of(segment)), maxlen=lines)
            count, offset = len(starts), starts[0] if starts else 0
        else:
            count, offset = _lines_back(segment, lines)
        if count >= lines:
            place = Place(segment.identity, offset, segment.tail_before(offset), segment.inode)
            return Position(StreamPosition(place), StreamPosition(place))
        lines -= count
    return BEGINNING


def _lines_back(segment: Segment, lines: int) -> tuple[int, int]:
    """How many of so many complete lines at its end a file has, and where the first of them begins."""
    at = last_line(segment)[0]
    if lines == 0:
        return 0, at
    found = 0
    end = max(0, at - 1)  # the newline that ends the last one is not what begins it
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        data = segment.read(start, end - start)
        cut = len(data)
        while (cut := data.rfind(b"\n", 0, cut)) >= 0:
            found += 1
            if found == lines:
                return lines, start + cut + 1
        end = start
    return (found + 1 if at else 0), 0
