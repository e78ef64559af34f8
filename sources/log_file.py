"""One log that is read as a file: through rotation, truncation and removal, whatever the format.

Serves the docker source (json-file) and the file source. Owns the descriptors of the log's chain of files
from the moment it is opened, so that neither rotation nor removal takes away what has not been read.

Everything here is synchronous. Everything but `parse` may block on the disk and is called in a worker thread,
by one caller at a time (`look` may run beside `fetch`; the chain has a lock). `parse` is for the trio thread:
it only computes, and two threads that compute wait for each other's turn with the interpreter, which costs
a quarter more CPU and gains nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Mapping, Sequence

import msgspec

from logroute.router.record import (
    RECORD_OVERHEAD_BYTES,
    STREAMS,
    Anchor,
    Batch,
    Origin,
    Place,
    Position,
    Reached,
    Record,
    Stream,
    StreamPosition,
    full_time,
    iso_time,
    message_hash,
)
from logroute.sources.joiner import Joiner
from logroute.sources.log_chain import TAIL_BYTES, Segment, close_all, lines_of, newer_segments, open_chain
from logroute.sources.log_formats import FORMATS, Chunk, FormatName, LogStatistics, Spot

BUFFER_BYTES = 1 << 19
_NOTHING: Mapping[str, Mapping[Stream, Spot]] = {}
NEAR_BYTES = 4 << 20
"""What a reader may read again for one route while others, which have had it, wait."""
LINGER_S = 5.0
"""How long a renamed file must have been left alone before the next one is read, where no engine writes."""


class Lost(msgspec.Struct, frozen=True):
    """Records between a checkpoint and what can still be read are gone."""

    routes: tuple[str, ...]
    """Empty: every route that takes the origin."""
    reason: str
    since: str
    """Time of the last record that was acknowledged, if known."""
    until: str
    """Time of the first record that is still there, if there is one."""
    size_bytes: int | None = None

    def details(self) -> dict[str, object]:
        """What is known of it, for the log."""
        known = {"since": self.since, "until": self.until, "bytes": self.size_bytes}
        return {name: value for name, value in known.items() if value not in ("", None)}


class Fetched(msgspec.Struct):
    """What one call of `fetch` gives."""

    chunks: list[Chunk]
    more: bool = False
    """There may be more at once."""
    drained: bool = False
    """It is the last of a log that is complete, or is read to `stop_at`."""


class LogFile:
    """Reads one log from where its checkpoints are to its end, as far as it is called.

    One reader, the live one, serves all routes. Routes that are behind it are read for by `forks` of it,
    which own descriptors of the same files and count them alike, so that spots compare; only the live one
    looks for new files, and shares them. A fork that has come to the spot of the reader before it is done.

    Life: `open` (descriptors first, other work later), `end`/`resume`, then `fetch`, `parse` and `look` until
    `close`. Two halves, each with its invariant: everything before `_segments[0].offset`, and nothing behind
    it, has been fetched; everything before `_end`, and nothing behind it, is in batches or in the joiner.

    There are thousands of them: what most never need is not kept, or shared.
    """

    cheap = True

    __slots__ = (
        "_acknowledged",
        "_at_end",
        "_chain",
        "_end",
        "_format",
        "_looked",
        "_losses",
        "_passed",
        "_reached",
        "_segments",
        "_spent",
        "_stranded",
        "_tail",
        "began",
        "cap",
        "complete",
        "forks",
        "limit",
        "origin",
        "path",
        "rotated",
        "routes",
        "statistics",
        "stop_at",
    )

    def __init__(
        self, path: str, origin: Origin, *, limit: int, format: FormatName = "docker", rotated: bool = True
    ) -> None:
        self.path = path
        self.origin = origin
        self.limit = limit
        self.rotated = rotated
        self.statistics = LogStatistics()
        self.complete = False
        """The container has ended: an unfinished record at the end of the log is finished."""
        self.stop_at: Spot | None = None
        """With `--once`: read no further than this."""
        self.routes: frozenset[str] | None = None
        """The routes that a fork reads for; None: it is the live reader."""
        self.forks: tuple[LogFile, ...] = ()
        """Those that are behind, the one that is furthest behind first."""
        self.began: Mapping[str, Position] = {}
        """Of a fork: where it began for each route."""
        self.cap: Spot | None = None
        """Of a fork: read no further now, for there is the reader before it."""
        self._segments: list[Segment] = []
        self._stranded: Mapping[str, Position] = {}
        """Where routes are for which a fork could not be made."""
        self._spent: tuple[Segment, ...] = ()
        """Read to their end by the last `fetch`: a fork may have to begin in them."""
        self._passed = 0  # segments that were read to their end and closed; index of _segments[0]
        self._chain = threading.Lock()
        self._format = FORMATS[format](limit, self.statistics)
        self._reached = Reached()
        # Behind everything that was parsed; `_reached` is before it where a record is unfinished.
        self._end = Place("", 0)
        self._tail = b""
        # While some routes have acknowledged what others have not: per route and stream, up to where.
        self._acknowledged: Mapping[str, Mapping[Stream, Spot]] = _NOTHING
        self._at_end = False
        self._looked = False
        self._losses: tuple[Lost, ...] = ()

    # --- the chain ----------------------------------------------------------------------------------

    def open(self) -> bool:
        """Open every file of the log now. False if there is none. Raises OSError."""
        with self._chain:
            self._segments = open_chain(self.path, rotated=self.rotated)
        return bool(self._segments)

    def open_once(self) -> None:
        """Open it unless it is, or cannot be: whoever needs it will see why."""
        with self._chain:
            if not self._segments:
                with contextlib.suppress(OSError):
                    self._segments = open_chain(self.path, rotated=False)

    @property
    def is_open(self) -> bool:
        return bool(self._segments)

    @property
    def has_losses(self) -> bool:
        """Whether `take_losses` has something."""
        return bool(self._losses)

    def take_losses(self) -> Sequence[Lost]:
        """What was lost since this was last called."""
        with self._chain:
            losses, self._losses = self._losses, ()
        return losses

    @property
    def position(self) -> Position:
        """Behind what has been read."""
        return self._reached.position()

    def close(self) -> None:
        """Close all files, of the forks too."""
        with self._chain:
            forks, self.forks = self.forks, ()
            self._close_spent()
            while self._segments:
                self._segments.pop(0).close()
        for fork in forks:
            fork.close()

    def _close_spent(self, but: Sequence[Place | None] = ()) -> None:
        """Close files that were read to their end, but those at whose end the next batch begins."""
        needed = {place.file for place in but if place is not None}
        keep = next((i for i, s in enumerate(self._spent) if s.identity in needed), len(self._spent))
        for segment in self._spent[:keep]:
            segment.close()
        self._spent = self._spent[keep:]

    def look(self) -> bool:
        """Notice rotation: open files that are newer than those we hold. True if there are any.

        Raises OSError: nothing has changed then, and it can be called again.
        """
        with self._chain:
            if not self._segments:
                return False
            newest = self._segments[-1]
            try:
                status = os.stat(self.path)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                return False
            if (status.st_dev, status.st_ino) == (newest.device, newest.inode):
                return False
            fresh, whole = newer_segments(self.path, self._segments)
            gap = () if whole else (self._last_time_in(newest), self._first_time(fresh))
            # All of them or none, so that what fails here can be tried again.
            copies = self._copies(fresh)
            self._follow(fresh, gap)
            for fork, segments in zip(self.forks, copies, strict=True):
                with fork._chain:
                    fork._follow(segments, gap)
            return bool(fresh)

    def _copies(self, fresh: Sequence[Segment]) -> list[list[Segment]]:
        """These files once more for each fork. Closes all of them and raises OSError where that fails."""
        copies: list[list[Segment]] = [[] for _ in self.forks]
        try:
            for segments in copies:
                segments.extend(segment.again() for segment in fresh)
        except OSError:
            close_all([*fresh, *itertools.chain.from_iterable(copies)])
            raise
        return copies

    def _follow(self, fresh: Sequence[Segment], gap: tuple[str, str] | tuple[()]) -> None:
        """These files come behind those it has; after a gap between these times, if there is one.

        To be called with the chain locked.
        """
        self._segments.extend(fresh)
        if gap:
            self._losses += (Lost(self._named(), "rotated", *gap),)

    def has_news(self) -> bool:
        """Whether there is something to read: more bytes, fewer (truncated), or a newer file."""
        with self._chain:
            if not self._segments:
                return False
            first = self._segments[0]
            return len(self._segments) > 1 or first.compressed or first.size() != first.offset

    def backlog_bytes(self) -> int:
        """Bytes that are there and not yet read; compressed files count as they lie on the disk."""
        with self._chain:
            return sum(max(0, s.size() - (0 if s.compressed else s.offset)) for s in self._segments)

    def held_bytes(self) -> int:
        """Bytes of files that exist only because we hold them: rotated away or removed."""
        with self._chain:
            return sum(s.size() for s in self._segments if os.fstat(s.fd).st_nlink == 0)

    def let_go(self) -> None:
        """Give up the oldest file that exists only because we hold it. Never beside `fetch`."""
        with self._chain:
            first = self._segments[0]
            reason = "rotated" if len(self._segments) > 1 else "removed"
            unread = None if first.compressed else max(0, first.size() - first.offset)
            self._segments.pop(0).close()
            self._passed += 1
            self._tail = b""
            until = self._first_time(self._segments[:1])
            self._losses += (Lost(self._named(), reason, self._last_time(), until, unread),)

    def end_spot(self) -> Spot:
        """The end of the log as it is now."""
        with self._chain:
            last = self._segments[-1]
            return self._passed + len(self._segments) - 1, last.size()

    # --- readers that are behind --------------------------------------------------------------------

    @property
    def spot(self) -> Spot:
        """Where it is, between a `parse` and the next `fetch`."""
        return self._passed, self._segments[0].offset if self._segments else 0

    def fork(self, checkpoints: Mapping[str, Position], of: LogFile | None = None) -> LogFile:
        """A further reader, for these routes, from where they are.

        To be called of the live reader, before the next `fetch`. Of another fork, where that has passed these
        positions with its last `fetch`, and not the live reader.
        """
        of = of or self
        self._stranded = checkpoints
        fork = LogFile(
            self.path, self.origin, limit=self.limit, format=self._format.name, rotated=self.rotated
        )
        fork.routes, fork.began = frozenset(checkpoints), checkpoints
        fork.complete, fork.stop_at = self.complete, self.stop_at
        # Locked, so that what `look` finds meanwhile is found for it as well.
        with self._chain:
            known = [*of._spent, *of._segments]
            older = self._older(known) if any(_in_older_files(p) for p in checkpoints.values()) else []
            fork._passed = of._passed - len(of._spent) - len(older)
            fork._segments = older
            try:
                older.extend(segment.again() for segment in known)
                fork._losses = tuple(fork.resume(checkpoints))
            except OSError:
                close_all(fork._segments)
                raise
            fork._looked = True
            self.forks = tuple(sorted((*self.forks, fork), key=lambda each: each.spot))
        self._stranded = {}
        return fork

    def _older(self, known: Sequence[Segment]) -> list[Segment]:
        """Files of the log that were read to their end long ago, or never, opened."""
        inodes = {(segment.device, segment.inode) for segment in known}
        identities = {segment.identify() for segment in known} - {""}
        older: list[Segment] = []
        chain = open_chain(self.path, rotated=self.rotated)
        for index, segment in enumerate(chain):
            if (segment.device, segment.inode) in inodes or segment.identify() in identities:
                for newer in chain[index:]:
                    newer.close()
                break
            older.append(segment)
        return older

    def leave(self, fork: LogFile) -> None:
        """The fork is done; it is the caller's to close."""
        with self._chain:
            self.forks = tuple(each for each in self.forks if each is not fork)

    def places(self) -> dict[str, Position]:
        """The positions of all readers, by route: the live one's under the empty name."""
        found = {"": self.position, **self._stranded}
        return found | {route: fork.position for fork in self.forks for route in fork.routes or ()}

    def at_end_of(self, other: LogFile) -> bool:
        """Whether it has read all that the other one, which is before it, has read, and no more."""
        if not (self._segments and other._segments):
            return not self._segments
        mine, others = self._segments[0], other._segments[0]
        if (mine.device, mine.inode) != (others.device, others.inode):
            # It has gone on to the next file, in which the other one has not begun.
            return self.spot > other.spot
        return mine.offset == others.offset and self._tail == other._tail

    def finish_like(self, other: LogFile) -> list[Batch]:
        """At the same spot: what the other one has finished, because the log has ended, is finished here."""
        batches: list[Batch] = []
        if self._format.unfinished and not other._format.unfinished:
            self._finish(batches)
        return batches

    def gap_bytes(self, other: LogFile) -> int | None:
        """How far the other one is ahead in the same file; None where it is in a later one."""
        (index, offset), (other_index, other_offset) = self.spot, other.spot
        return other_offset - offset if index == other_index else None

    def _named(self) -> tuple[str, ...]:
        return tuple(sorted(self.routes)) if self.routes is not None else ()

    # --- where to begin -----------------------------------------------------------------------------

    def end(self) -> Position:
        """The position behind the last complete line there is now, for `start: now`."""
        with self._chain:
            if not self._segments:
                return Position()
            # Just rotated, the newest file is empty: its beginning is the end of the one before.
            last = next((s for s in reversed(self._segments) if s.size()), self._segments[-1])
            offset, line = _last_line(last)
            place = Place(last.identify(), offset, last.tail_before(offset))
        anchor = None
        position = StreamPosition(place)
        if line:
            record = self._format.decode(line)
            if record is None:
                return Position(position, position)
            anchor = _anchor(record, 0)
            with_anchor = StreamPosition(place, anchor)
            if record.stream == "stdout":
                return Position(with_anchor, position)
            return Position(position, with_anchor)
        return Position(position, position)

    def first_record(self) -> Record | None:
        """The oldest record that is still there: what `read: auto` compares with the engine's."""
        for segment in list(self._segments):
            for _, line in lines_of(segment):
                if (record := self._format.decode(line)) is not None:
                    record.time = full_time(record.time)
                    return record
        return None

    def begin(self, checkpoints: Mapping[str, Position], near_bytes: int = NEAR_BYTES) -> list[Lost]:
        """Begin where the routes are.

        Those that are near the one that is furthest share the live reader with it, which begins at the oldest
        of their checkpoints; the others share a fork. Returns what is gone.
        """
        if len(checkpoints) < 2:
            return self.resume(checkpoints)
        with self._chain:
            segments = list(self._segments)
            for segment in segments:
                segment.identify()
            spots = {r: min(self._locate(segments, p)[0].values()) for r, p in checkpoints.items()}
        furthest = spots[""] if "" in spots else max(spots.values())
        far = {r: p for r, p in checkpoints.items() if _between(segments, spots[r], furthest) > near_bytes}
        losses: list[Lost] = []
        if far:
            losses += self.fork(far).take_losses()
        return losses + self.resume({r: p for r, p in checkpoints.items() if r not in far})

    def resume(self, checkpoints: Mapping[str, Position]) -> list[Lost]:
        """Begin at the oldest of the routes' checkpoints; batches say what other routes have acknowledged.

        A place is used only if its file is there, by fingerprint, and the bytes before its offset are the
        same; else the anchor's record is searched for; else reading begins with the oldest file there is,
        and what is missing is returned.
        """
        lost: list[Lost] = []
        found: dict[str, dict[Stream, Spot]] = {}
        with self._chain:
            segments = list(self._segments)
            for segment in segments:
                segment.identify()
            for route, checkpoint in checkpoints.items():
                spots, missing = self._locate(segments, checkpoint)
                found[route] = {s: (self._passed + index, offset) for s, (index, offset) in spots.items()}
                if missing is not None:
                    lost.append(Lost((route,), "rotated", missing, self._first_time(segments)))
            if not segments:
                return lost
            lowest = min((min(spots.values()) for spots in found.values()), default=(self._passed, 0))
            for _ in range(lowest[0] - self._passed):
                self._segments.pop(0).close()
            self._passed = lowest[0]
            first = self._segments[0]
            first.offset = lowest[1]
            self._tail = first.tail_before(first.offset)
            self._end = Place(first.identity, first.offset, self._tail)
            position = Position()
            for stream in STREAMS:
                # Sequences and discarding go on where the pair that is furthest behind left them.
                holder = min(found, key=lambda route, s=stream: found[route][s], default=None)  # type: ignore[misc]
                anchor = checkpoints[holder].of(stream).anchor if holder is not None else None
                part = StreamPosition(self._end, anchor)
                position = _with_stream(position, stream, part)
                if anchor is not None and anchor.discard:
                    self._format.resume_discarding(stream, anchor.time, lowest)
            self._reached = Reached.at(position)
            self._looked = False
        self._acknowledged = {
            route: spots for route, spots in found.items() if any(spot > lowest for spot in spots.values())
        } or _NOTHING
        return lost

    def _locate(self, segments: list[Segment], checkpoint: Position) -> tuple[dict[Stream, Spot], str | None]:
        """Where each stream of a checkpoint is in the chain; and, if something is gone, since what time."""
        spots: dict[Stream, Spot] = {}
        missing: str | None = None
        for stream in STREAMS:
            position = checkpoint.of(stream)
            spot = self._verified(segments, position.place) if position.place else None
            if spot is None and position.anchor is not None:
                spot = self._find_record(segments, stream, position.anchor)
            if spot is None and position.place is None and position.anchor is None:
                spot = self._find_time(segments, checkpoint.since) if checkpoint.since else (0, 0)
            elif spot is None and position.place is not None and not position.place.file:
                spot = (0, 0)  # stored when the file was still empty: its beginning
            if spot is None:
                missing = max(missing or "", position.anchor.time if position.anchor else "")
                spot = (0, 0)
            spots[stream] = spot
        return spots, missing

    @staticmethod
    def _verified(segments: list[Segment], place: Place) -> Spot | None:
        for index, segment in enumerate(segments):
            if not place.file or segment.identity != place.file:
                continue
            if segment.tail_before(place.offset) == place.tail:
                return index, place.offset
        return None

    def _last_time_in(self, segment: Segment) -> str:
        """The time of its last record; of the last that was read if it has none, or lines say no times."""
        record = self._format.decode(_last_line(segment)[1])
        return full_time(record.time) if record is not None else self._last_time()

    def _first_time(self, segments: Sequence[Segment]) -> str:
        """The time of the oldest record; empty if there is none, or lines say no times."""
        for segment in segments:
            for _, line in lines_of(segment):
                if (record := self._format.decode(line)) is not None:
                    return full_time(record.time)
        return ""

    def _find_record(self, segments: list[Segment], stream: Stream, anchor: Anchor) -> Spot | None:
        """The spot behind an anchor's record, searched for by its time and verified by its hash."""
        if not self._format.timed:
            return None
        trimmed = anchor.time[:-1].rstrip("0").rstrip(".").encode()
        # A long record's pieces all have its time.
        joiner = Joiner(self.limit)
        seen = -1
        for index, segment in enumerate(segments):
            for offset, line in lines_of(segment):
                if trimmed not in line or (piece := self._format.decode(line)) is None:
                    continue
                piece.time = full_time(piece.time)
                if piece.stream != stream or piece.time != anchor.time:
                    continue
                out: list[Record] = []
                joiner.add(piece, (index, offset), out)
                for record in out:
                    seen += 1
                    if seen >= anchor.sequence and _anchor(record, 0).hash == anchor.hash:
                        return index, offset + len(line) + 1
        return None

    def _find_time(self, segments: list[Segment], since: str) -> Spot:
        """The spot of the first record at or after a time; the end if there is none.

        Where lines say no times, the beginning of the first file that was written to since then.
        """
        for index, segment in enumerate(segments):
            if not self._format.timed:
                if iso_time(os.fstat(segment.fd).st_mtime_ns) >= since:
                    return index, 0
                continue
            later = segments[index + 1 : index + 2]
            if later and (first := self._first_time(later)) and first < since:
                continue
            for offset, line in lines_of(segment):
                record = self._format.decode(line)
                if record is not None and full_time(record.time) >= since:
                    return index, offset
        last = len(segments) - 1
        if last < 0:
            return 0, 0
        return last, _last_line(segments[last])[0]

    # --- fetching: blocks on the disk, knows bytes and no records -------------------------------------

    def fetch(self, buffer: bytearray, budget_bytes: int) -> Fetched:
        """Take what is new, whole lines, at most about `budget_bytes`; to be parsed in the same order.

        `buffer` is the caller's, shared by all logs. Never raises for what stands in the file; OSError where
        it cannot be read.
        """
        fetched = Fetched([])
        if self._spent:
            with self._chain:
                self._close_spent(but=(self._reached.stdout_place, self._reached.stderr_place))
        if not self._looked:
            # It may have been rotated after it was opened and before anybody watched it.
            self.look()
            self._looked = True
        while budget_bytes > 0:
            if not self._segments:
                return fetched
            segment = self._segments[0]
            start = max(0, segment.offset - len(self._tail))
            count = segment.read_into(buffer, start)
            skip = segment.offset - start
            if count < skip or buffer[:skip] != self._tail:
                self._truncated(segment, fetched)
                continue
            if self.cap is not None:
                index, offset = self.cap
                if (self._passed, segment.offset) >= self.cap:
                    return fetched
                if self._passed == index:
                    count = max(skip, min(count, offset - start))
            if self.stop_at is not None:
                index, offset = self.stop_at
                if self._passed == index and not segment.compressed:
                    count = max(skip, min(count, offset - start))
                if self._passed > index:
                    fetched.drained = True
                    return fetched

            end = buffer.rfind(b"\n", skip, count) + 1
            if end == 0:
                if self._format.pieces and count > skip and (count == len(buffer) or self._over(segment)):
                    self._take(segment, buffer, skip, count, fetched)
                    budget_bytes -= count - skip
                    continue
                if count == len(buffer):
                    self._pass_over_monster(segment, buffer, skip, count)
                    budget_bytes -= count
                    continue
                if segment.damaged_at is not None and not segment.damage_told:
                    segment.damage_told = True
                    until = self._first_time(self._segments[1:])
                    fetched.chunks.append(Chunk(lost="unreadable", until=until))
                complete = self.complete
                if not self._next_segment(count > skip):
                    fetched.drained = complete or self.stop_at is not None
                    if complete:
                        fetched.chunks.append(Chunk(finish=True))
                    return fetched
                if self._format.pieces:
                    # Lines do not go on in the next file; json-file's records do.
                    fetched.chunks.append(Chunk(finish=True))
                continue
            cut = self._cut(segment, buffer, start, skip, end)
            self._take(segment, buffer, skip, cut, fetched)
            budget_bytes -= cut - skip
            self._at_end = count < len(buffer)
            read_out = self._at_end and cut == end and len(self._segments) == 1
            if read_out and not self.complete and self.stop_at is None:
                # The writer may have written more meanwhile; inotify will say so.
                return fetched
        fetched.more = True
        return fetched

    def _cut(self, segment: Segment, buffer: bytearray, start: int, skip: int, end: int) -> int:
        """Where the next chunk ends: at another route's checkpoint, if one lies before `end`."""
        if not self._acknowledged:
            return end
        here = (self._passed, segment.offset)
        limit = (self._passed, start + end)
        stops = [
            spot for spots in self._acknowledged.values() for spot in spots.values() if here < spot < limit
        ]
        return min(stops)[1] - start if stops else end

    def _take(self, segment: Segment, buffer: bytearray, skip: int, end: int, fetched: Fetched) -> None:
        """Make a chunk of the lines in `buffer[skip:end]`, which begin at the segment's offset."""
        if not segment.identity:
            segment.identify()
        spot = (self._passed, segment.offset)
        tail, self._tail = self._tail, bytes(buffer[max(0, end - TAIL_BYTES) : end])
        fetched.chunks.append(
            Chunk(
                bytes(memoryview(buffer)[skip:end]),
                spot,
                segment.identity,
                tail,
                self._tail,
                self._acknowledged_at(spot) if self._acknowledged else None,
            )
        )
        segment.offset += end - skip

    def _acknowledged_at(self, spot: Spot) -> Mapping[str, frozenset[Stream]] | None:
        """Which routes have acknowledged which streams of the chunk that begins here."""
        current: dict[str, frozenset[Stream]] = {}
        for route, spots in self._acknowledged.items():
            streams = frozenset(stream for stream, until in spots.items() if until > spot)
            if streams:
                current[route] = streams
        if not current:
            self._acknowledged = _NOTHING
            return None
        return current

    def _next_segment(self, unterminated: bool) -> bool:
        """The first segment is read to its end: go on with the next, if there is one."""
        with self._chain:
            if len(self._segments) < 2 or not self._over(self._segments[0]):
                return False
            # The writer has closed it: what has no newline gets none.
            if unterminated:
                self.statistics.corrupt_lines += 1
            self._spent += (self._segments.pop(0),)
            self._passed += 1
            self._tail = b""
            return True

    def _over(self, segment: Segment) -> bool:
        """Whether nothing more is written to the file that is read now.

        An engine closes its file before it begins a new one. Other programs are told after their file was
        renamed, and may write to it until then.
        """
        if len(self._segments) < 2:
            return self.complete
        if not self._format.pieces or self.complete or segment.compressed:
            return True
        following = self._segments[1]
        if len(self._segments) == 2 and not following.compressed and following.size() == 0:
            return False
        return time.time() - os.fstat(segment.fd).st_mtime > LINGER_S

    def _truncated(self, segment: Segment, fetched: Fetched) -> None:
        """What stood before our offset is not there any more: the file was truncated and begun again.

        It counts as the next file, so that spots go on growing.
        """
        segment.forget()
        self._passed += 1
        self._tail = b""
        if not self._at_end:
            fetched.chunks.append(Chunk(lost="rotated", until=self._first_time([segment])))

    def _pass_over_monster(self, segment: Segment, buffer: bytearray, skip: int, count: int) -> None:
        """A buffer without a newline is no json-file line (moby's are below 100 KiB): pass over it."""
        self.statistics.corrupt_lines += 1
        segment.offset += count - skip
        self._tail = bytes(buffer[count - TAIL_BYTES : count])

    # --- parsing: knows records, touches no file -------------------------------------------------------

    def parse(self, chunks: Sequence[Chunk]) -> list[Batch]:
        """The batches of what was fetched. Never raises for what stands in it."""
        batches: list[Batch] = []
        for chunk in chunks:
            if chunk.lost:
                with self._chain:
                    self._losses += (Lost(self._named(), chunk.lost, self._last_time(), chunk.until),)
            elif chunk.finish:
                self._finish(batches)
            else:
                self._consume(chunk, batches)
        return batches

    def _consume(self, chunk: Chunk, out: list[Batch]) -> None:
        before = self._reached
        if before.stdout_place is not None and not before.stdout_place.file and chunk.spot[1] == 0:
            # It was empty when reading began there; now it can be recognised.
            begin = Place(chunk.file, 0)
            before = msgspec.structs.replace(before, stdout_place=begin, stderr_place=begin)
        size = len(chunk.data)
        lines, newlines = self._format.parse(chunk)
        self._advance(chunk, lines)
        self.statistics.records += len(lines)
        self.statistics.bytes += size
        out.append(
            Batch(
                self.origin,
                lines,
                before=before,
                after=self._reached,
                size_bytes=size + RECORD_OVERHEAD_BYTES * len(lines),
                newlines=newlines,
                ready=self._format.ready,
                acknowledged=chunk.acknowledged,
                reader=self,
            )
        )

    def _advance(self, chunk: Chunk, lines: list[Record]) -> None:
        """Move what was reached behind what was just consumed."""
        reached = self._reached
        size = len(chunk.data)
        index, offset = chunk.spot
        place = self._end = Place(chunk.file, offset + size, chunk.tail_at(size))
        streams = [line.stream for line in lines]
        stdout = _last(lines, streams, "stdout", reached.stdout)
        stderr = _last(lines, streams, "stderr", reached.stderr)
        places: dict[Stream, Place | None] = {"stdout": place, "stderr": place}
        for stream, open_ in self._format.unfinished.items():
            if open_.discarding:
                continue
            # Begun in an earlier file or chunk: its place is what was reached already.
            begun_in, begun_at = open_.start
            if begun_in == index and begun_at >= offset:
                places[stream] = Place(chunk.file, begun_at, chunk.tail_at(begun_at - offset))
            else:
                places[stream] = reached.stdout_place if stream == "stdout" else reached.stderr_place
            if self._format.pieces:
                # A line is not told to be of one stream or the other before it has ended.
                places["stderr"] = places["stdout"]
        stdout, stderr = self._discarding("stdout", stdout), self._discarding("stderr", stderr)
        self._reached = Reached(places["stdout"], places["stderr"], stdout, stderr)

    def _discarding(self, stream: Stream, last: Anchor | None) -> Anchor | None:
        """The same, marked where, and only where, the rest of its line is still to be discarded."""
        if last is None:
            return None
        open_ = self._format.unfinished.get(stream)
        discard = open_ is not None and open_.discarding
        return last if last.discard == discard else msgspec.structs.replace(last, discard=discard)

    def _finish(self, out: list[Batch]) -> None:
        """At the end of the log of an ended container no record can get a further piece.

        Of a running one it may: moby writes a piece without a newline when its buffer is full, too.
        """
        if not self._format.unfinished:
            return
        finished = self._format.finish()
        before = self._reached
        streams = [record.stream for record in finished]
        self._reached = Reached(
            self._end,
            self._end,
            _last(finished, streams, "stdout", before.stdout),
            _last(finished, streams, "stderr", before.stderr),
        )
        if not finished:
            return
        size = sum(len(record.message) for record in finished)
        self.statistics.records += len(finished)
        out.append(
            Batch(
                self.origin,
                finished,
                before=before,
                after=self._reached,
                size_bytes=size + RECORD_OVERHEAD_BYTES * len(finished),
                reader=self,
            )
        )

    def _last_time(self) -> str:
        """Of what has been read."""
        return max((last.time for last in (self._reached.stdout, self._reached.stderr) if last), default="")


# --- plain functions ----------------------------------------------------------------------------------


def _in_older_files(position: Position) -> bool:
    """Whether a position may be in files that a reader at the end of the log does not hold."""
    return position.since is not None or not (position.stdout.place or position.stderr.place)


def _between(segments: Sequence[Segment], spot: Spot, later: Spot) -> int:
    """Bytes from one spot to another; compressed files count as they lie on the disk."""
    if spot[0] == later[0]:
        return later[1] - spot[1]
    sizes = sum(segment.size() for segment in segments[spot[0] : later[0]])
    return sizes - (0 if segments[spot[0]].compressed else spot[1]) + later[1]


def _with_stream(position: Position, stream: Stream, part: StreamPosition) -> Position:
    if stream == "stdout":
        return Position(part, position.stderr, position.since)
    return Position(position.stdout, part, position.since)


def _anchor(record: Record, sequence: int) -> Anchor:
    """Of a record as it was read: its message may still have its newline, its time may be short."""
    hash = message_hash(record.message.removesuffix("\n"))
    return Anchor(full_time(record.time), sequence, hash, record.truncated)


def _last(
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
                return _anchor(last, sequence)
            sequence += 1
    if previous is not None and previous.time == full_time(last.time):
        sequence += previous.sequence + 1
    return _anchor(last, sequence)


def _last_line(segment: Segment) -> tuple[int, bytes]:
    """The offset behind the last complete line of a file, and that line."""
    if segment.compressed:
        offset, line = 0, b""
        for start, line in lines_of(segment):  # the last one counts
            offset = start + len(line) + 1
        return offset, line
    size = segment.size()
    reach = 64 * 1024
    while True:
        start = max(0, size - reach)
        data = segment.read(start, size - start)
        end = data.rfind(b"\n")
        begin = data.rfind(b"\n", 0, max(0, end)) + 1 if end >= 0 else 0
        if end >= 0 and (begin > 0 or start == 0):
            return start + end + 1, data[begin:end]
        if start == 0:
            return 0, b""
        reach *= 4
