"""One log that is read as a file: through rotation, truncation and removal, whatever the format.

Serves the docker source (json-file) and the file source. Owns the descriptors of the log's chain of files
from the moment it is opened, so that neither rotation nor removal takes away what has not been read.

Everything here is synchronous. What asks the disk is called in a worker thread, by one caller at a time, who
has the log's `turn`; only `look` and `open_once` may run beside that (the chain has a lock). What is for the
trio thread asks no disk, and takes no lock that anybody holds who does: `parse`, `take_losses`, `leave`,
`places` and the properties. `parse` is among them because two threads that compute wait for each other's turn
with the interpreter, which costs a quarter more CPU and gains nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence

from logroute.router.position import BEGINNING, Anchor, Place, Position, StreamPosition
from logroute.router.record import STREAMS, Batch, Origin, Reader, Record, Stream, settling
from logroute.router.times import full_time
from logroute.sources import Lost
from logroute.sources.log_ahead import AheadRoutes
from logroute.sources.log_batches import LogBatches
from logroute.sources.log_chain import (
    TAIL_BYTES,
    FileId,
    Segment,
    close_all,
    newer_segments,
    older_segments,
    open_chain,
)
from logroute.sources.log_formats import FORMATS, Chunk, Fetched, FormatName, LogStatistics, Spot
from logroute.sources.log_names import Name, following, origin_at
from logroute.sources.log_search import (
    bytes_between,
    end_position,
    first_record,
    first_time,
    is_there,
    last_time,
    locate,
    position_before_last,
)

BUFFER_BYTES = 1 << 19
NEAR_BYTES = 4 << 20
"""What a reader may read again for one route while others, which have had it, wait."""
_MEMORY = threading.Lock()
"""For what threads and the trio thread change of any log: losses and forks. Held for a moment only."""
LINGER_S = 5.0
"""How long a renamed file must have been left alone before the next one is read, where no engine writes."""


class LogFile:
    """Reads one log from where its checkpoints are to its end, as far as it is called.

    One reader, the live one, serves all routes. Routes that are behind it are read for by `forks` of it,
    which own descriptors of the same files and count them alike, so that spots compare; only the live one
    looks for new files, and shares them. A fork that has come to the spot of the reader before it is done.

    Life: `open` (descriptors first, other work later), `end`/`resume`, then `fetch`, `parse` and `look` until
    `close`. Everything before `_segments[0].offset`, and nothing behind it, has been fetched; what has been
    parsed of it `_batches` knows.

    There are thousands of them: what most never need is not kept, or shared.
    """

    cheap = True

    __slots__ = (
        "__weakref__",
        "_ahead",
        "_at_end",
        "_batches",
        "_chain",
        "_format",
        "_looked",
        "_losses",
        "_passed",
        "_segments",
        "_spent",
        "_tail",
        "_told_corrupt",
        "began",
        "cap",
        "closed",
        "complete",
        "forks",
        "left",
        "limit",
        "names",
        "origin",
        "path",
        "rotated",
        "routes",
        "statistics",
        "stop_at",
        "stranded",
        "turn",
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
        """Read no further now: there is the reader before it, or the log has another name from there on."""
        self.names: tuple[Name, ...] = ()
        """Of the live reader: how its origin was named anew, as long as somebody may have to know."""
        self.left: tuple[FileId, Place] | None = None
        """The file that was read to its end last, while there was a newer one, and to where."""
        self._segments: list[Segment] = []
        self.stranded: Mapping[str, Position] = {}
        """Where routes are for which a fork is to be made, and is not yet."""
        self._spent: tuple[Segment, ...] = ()
        """Read to their end by the last `fetch`: a fork may have to begin in them."""
        self._passed = 0  # segments that were read to their end and closed; index of _segments[0]
        self._chain = threading.Lock()
        self.turn = threading.Lock()
        """Whoever works on it in a thread has this meanwhile, and nobody waits for it on the trio thread."""
        self.closed = False
        """It is closed, or will be as soon as that can be: nobody opens it any more."""
        self._format = FORMATS[format](limit, self.statistics)
        self._batches = LogBatches(self._format)
        self._tail = b""
        self._ahead: AheadRoutes | None = None
        self._at_end = False
        self._looked = False
        self._losses: tuple[Lost, ...] = ()
        self._told_corrupt = 0

    # --- the chain ----------------------------------------------------------------------------------

    def open(self) -> bool:
        """Open every file of the log now. False if there is none. Raises OSError."""
        with self._chain:
            self._segments = open_chain(self.path, rotated=self.rotated)
        return bool(self._segments)

    def open_once(self) -> None:
        """Open it unless it is, or cannot be: whoever needs it will see why."""
        with self._chain:
            if not self._segments and not self.closed:
                with contextlib.suppress(OSError):
                    self._segments = open_chain(self.path, rotated=False)

    @property
    def is_open(self) -> bool:
        return bool(self._segments) and not self.closed

    @property
    def device(self) -> int:
        """The disk that it is on; 0 while it is not open."""
        segments = self._segments[:1]
        return segments[0].device if segments else 0

    @property
    def files(self) -> list[FileId]:
        """Those that it has open and has not read to their end, oldest first."""
        return [segment.id for segment in self._segments]

    def left_at(self, file: FileId) -> Position:
        """How far it has read a file that it has left: from there on somebody else may read it."""
        place = self.left[1] if self.left is not None and self.left[0] == file else self.position.stdout.place
        if place is None or place.inode != file[1]:
            return BEGINNING
        return Position(StreamPosition(place), StreamPosition(place))

    @property
    def has_losses(self) -> bool:
        """Whether `take_losses` has something."""
        return bool(self._losses)

    def take_losses(self) -> Sequence[Lost]:
        """What was lost since this was last called."""
        with _MEMORY:
            losses, self._losses = self._losses, ()
        return losses

    def take_corrupt_lines(self) -> int:
        """How many lines were left out since this was last called."""
        told, self._told_corrupt = self._told_corrupt, self.statistics.corrupt_lines
        return self._told_corrupt - told

    def take_nuls(self) -> int:
        """How many NULs at the beginnings of files were passed over since this was last called."""
        nuls, self.statistics.nuls = self.statistics.nuls, 0
        return nuls

    @property
    def position(self) -> Position:
        """Behind what has been read."""
        return self._batches.reached.position()

    def close(self) -> None:
        """Close all files, of the forks too, for good: who wants to go on takes `another`."""
        self.closed = True
        with self._chain:
            with _MEMORY:
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
            forks = self.forks
            try:
                gap = () if whole else self._gap(newest, fresh)
                copies = self._copies(fresh, len(forks))
            except OSError:
                # All of them or none, so that it can be tried again.
                close_all(fresh)
                raise
            self._follow(fresh, gap)
            for fork, segments in zip(forks, copies, strict=True):
                with fork._chain:
                    if fork in self.forks:
                        fork._follow(segments, gap)
                    else:  # it is done, and closed when its chain is free
                        close_all(segments)
            return bool(fresh)

    def _gap(self, newest: Segment, fresh: Sequence[Segment]) -> tuple[str, str]:
        """Between which times there were files that nobody has opened."""
        return last_time(newest, self._format) or self._batches.last_time, first_time(fresh, self._format)

    @staticmethod
    def _copies(fresh: Sequence[Segment], count: int) -> list[list[Segment]]:
        """These files so many times more."""
        copies: list[list[Segment]] = [[] for _ in range(count)]
        try:
            for segments in copies:
                segments.extend(segment.again() for segment in fresh)
        except OSError:
            close_all(itertools.chain.from_iterable(copies))
            raise
        return copies

    def _follow(self, fresh: Sequence[Segment], gap: tuple[str, str] | tuple[()]) -> None:
        """These files come behind those it has; after a gap between these times, if there is one.

        To be called with the chain locked.
        """
        self._segments.extend(fresh)
        if gap:
            self._lose("rotated", *gap)

    def _lose(self, reason: str, since: str, until: str, size_bytes: int | None = None) -> None:
        lost = Lost(self._named(), reason, since, until, size_bytes)
        with _MEMORY:
            self._losses += (lost,)

    def has_news(self) -> bool:
        """Whether there is something to read: more bytes, fewer (truncated), or a newer file."""
        with self._chain:
            if not self._segments:
                return False
            first = self._segments[0]
            return len(self._segments) > 1 or first.compressed or first.size() != first.offset

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
            until = first_time(self._segments[:1], self._format)
            self._lose(reason, self._batches.last_time, until, unread)

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

    def another(self) -> LogFile:
        """A reader of the same log in the same way, not open."""
        another = LogFile(
            self.path, self.origin, limit=self.limit, format=self._format.name, rotated=self.rotated
        )
        another.complete, another.names = self.complete, self.names
        return another

    def fork(self, checkpoints: Mapping[str, Position], of: LogFile | None = None) -> LogFile:
        """A further reader, for these routes, from where they are.

        To be called of the live reader, before the next `fetch`. Of another fork, where that has passed these
        positions with its last `fetch`, and not the live reader. Where the live one comes to these positions
        by itself, it heeds them, and the fork, which is not among the `forks`, is only to be closed.
        """
        self.strand(checkpoints)
        # Locked, so that what `look` finds meanwhile is found for it as well.
        with self._chain:
            fork = self._forked(checkpoints, of or self)
            if self.spot < fork.spot:
                there = dict.fromkeys(STREAMS, fork.spot)
                self.heed(AheadRoutes(dict.fromkeys(checkpoints, there), checkpoints))
                self.heed(fork._ahead)
                self._no_more_stranded(checkpoints)
            else:
                self._add(fork)
        return fork

    def _forked(self, checkpoints: Mapping[str, Position], of: LogFile) -> LogFile:
        """Such a reader, with descriptors of its own. Raises OSError."""
        fork = self.another()
        fork.routes, fork.began = frozenset(checkpoints), checkpoints
        fork.stop_at, fork.turn = self.stop_at, self.turn
        known = [*of._spent, *of._segments]
        older: list[Segment] = []
        held = {segment.identify() for segment in known}
        if any(_in_older_files(p, held) for p in checkpoints.values()):
            older = older_segments(self.path, known, rotated=self.rotated)
        fork._passed = of._passed - len(of._spent) - len(older)
        fork._segments = older
        try:
            older.extend(segment.again() for segment in known)
            fork._losses = tuple(fork.resume(checkpoints))
        except OSError:
            close_all(fork._segments)
            raise
        fork._looked = True
        return fork

    def _add(self, fork: LogFile) -> None:
        with _MEMORY:
            self.forks = tuple(sorted((*self.forks, fork), key=lambda each: each.spot))
        self._no_more_stranded(fork.began)

    def _no_more_stranded(self, routes: Collection[str]) -> None:
        with _MEMORY:
            self.stranded = {r: p for r, p in self.stranded.items() if r not in routes}

    @property
    def ahead(self) -> AheadRoutes | None:
        """Routes that have acknowledged some of what it reads."""
        return self._ahead

    def heed(self, ahead: AheadRoutes | None) -> None:
        """From now on batches say what these have, too; to be called between a `parse` and a `fetch`."""
        if ahead is not None:
            self._ahead = self._ahead.joined(ahead) if self._ahead is not None else ahead

    def leave(self, fork: LogFile) -> None:
        """The fork is done; it is the caller's to close."""
        with _MEMORY:
            self.forks = tuple(each for each in self.forks if each is not fork)

    def places(self, needed: Callable[[Reader], Position]) -> dict[str, Position]:
        """Where other readers have to begin, by route, for the live one under the empty name; `needed` says
        where that is for a reader.
        """
        found = {"": needed(self)}
        if self._ahead is not None:
            found |= self._ahead.checkpoints(self.spot)
        found |= {route: needed(fork) for fork in self.forks for route in fork.routes or ()}
        return {**found, **self.stranded}

    def strand(self, places: Mapping[str, Position]) -> None:
        """Routes are there, and are to be read for by a fork."""
        with _MEMORY:
            self.stranded = {**self.stranded, **places}

    def may_have(self, place: Position) -> bool:
        """Whether a route that is there may want some of what was read: not one that wants what is later."""
        anchors = [self.position.of(stream).anchor for stream in STREAMS]
        newest = max((full_time(anchor.time) for anchor in anchors if anchor is not None), default="")
        return not (place.since and newest) or place.since <= newest

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
        if other._format.unfinished:
            return []
        batch = self._batches.finish(self.origin, self)
        return [batch] if batch is not None else []

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
            return end_position(self._segments, self._format)

    def before_last(self, lines: int) -> Position:
        """The position before the last so many lines there are now; blocks on the disk."""
        with self._chain:
            return position_before_last(self._segments, lines)

    def first_record(self) -> Record | None:
        """The oldest record that is still there: what `read: auto` compares with the engine's."""
        return first_record(list(self._segments), self._format)

    def is_behind(self, ended: Position) -> bool:
        """Whether another file of this name was read to that position, its end, and is not among these now,
        under whatever name. Then what else there is of older ones is left out. Blocks on the disk."""
        read = {part.place.file for part in (ended.stdout, ended.stderr) if part.place is not None}
        with self._chain:
            if any(segment.identify() in read for segment in self._segments):
                return False
            while len(self._segments) > 1:
                self._segments.pop(0).close()
                self._passed += 1
        return True

    def begin(self, checkpoints: Mapping[str, Position], near_bytes: int = NEAR_BYTES) -> list[Lost]:
        """Begin where the routes are.

        Those that are near the one that is furthest share the live reader with it, which begins at the oldest
        of their checkpoints; the others share a fork. Returns what is gone.
        """
        self._find_names()
        losses = self._begin(checkpoints, near_bytes)
        for reader in (*self.forks, self):
            reader.origin = origin_at(self.names, reader.spot, self.newest_origin)
        return losses

    def _begin(self, checkpoints: Mapping[str, Position], near_bytes: int) -> list[Lost]:
        if len(checkpoints) < 2:
            return self.resume(checkpoints)
        with self._chain:
            segments = list(self._segments)
            for segment in segments:
                segment.identify()
            spots = {r: min(locate(segments, self._format, p)[0].values()) for r, p in checkpoints.items()}
        furthest = spots[""] if "" in spots else max(spots.values())
        far = {
            r: p
            for r, p in checkpoints.items()
            if spots[r] < furthest and bytes_between(segments, spots[r], furthest) > near_bytes
        }
        losses: list[Lost] = []
        if far:
            with self._chain:
                fork = self._forked(far, self)
                self._add(fork)
            losses += fork.take_losses()
        return losses + self.resume({r: p for r, p in checkpoints.items() if r not in far})

    def has(self, position: Position) -> bool:
        """Whether the files of that position are among those that are open. Raises OSError."""
        with self._chain:
            return is_there(self._segments, position)

    def resume(self, checkpoints: Mapping[str, Position]) -> list[Lost]:
        """Begin at the oldest of the routes' checkpoints; batches say what other routes have acknowledged.

        A place is used only if its file is there, by fingerprint, and the bytes before its offset are the
        same; else the anchor's record is searched for; else reading begins with the oldest file there is,
        and what is missing is returned.
        """
        lost: list[Lost] = []
        found: dict[str, dict[Stream, Spot]] = {}
        anchors: dict[str, dict[Stream, Anchor | None]] = {}
        with self._chain:
            segments = list(self._segments)
            for segment in segments:
                segment.identify()
            for route, checkpoint in checkpoints.items():
                spots, anchors[route], missing = locate(segments, self._format, checkpoint)
                found[route] = {s: (self._passed + index, offset) for s, (index, offset) in spots.items()}
                if missing is not None:
                    lost.append(Lost((route,), "rotated", missing, first_time(segments, self._format)))
            if not segments:
                return lost
            lowest = min((min(spots.values()) for spots in found.values()), default=(self._passed, 0))
            for _ in range(lowest[0] - self._passed):
                self._segments.pop(0).close()
            self._passed = lowest[0]
            first = self._segments[0]
            first.offset = lowest[1]
            self._tail = first.tail_before(first.offset)
            end = Place(first.identity, first.offset, self._tail, first.inode)
            parts: dict[Stream, StreamPosition] = {}
            for stream in STREAMS:
                # Sequences and discarding go on where the pair that is furthest behind left them.
                holder = min(found, key=lambda route, s=stream: found[route][s], default=None)  # type: ignore[misc]
                anchor = anchors[holder][stream] if holder is not None else None
                parts[stream] = StreamPosition(end, anchor)
                if anchor is not None and anchor.discard:
                    self._format.resume_discarding(stream, anchor.time, lowest)
            self._batches.begin(Position(parts["stdout"], parts["stderr"]), end)
            self._looked = False
        ahead = {route: spots for route, spots in found.items() if max(spots.values()) > lowest}
        self._ahead = AheadRoutes(ahead, {route: checkpoints[route] for route in ahead}) if ahead else None
        return lost

    # --- fetching: blocks on the disk, knows bytes and no records -------------------------------------

    def fetch(self, buffer: bytearray, budget_bytes: int) -> Fetched:
        """Take what is new, whole lines, at most about `budget_bytes`; to be parsed in the same order.

        `buffer` is the caller's, shared by all logs. Never raises for what stands in the file; OSError where
        it cannot be read.
        """
        fetched = Fetched([])
        if self._spent:
            with self._chain:
                reached = self._batches.reached
                self._close_spent(but=(reached.stdout_place, reached.stderr_place))
        if not self._looked:
            # It may have been rotated after it was opened and before anybody watched it.
            self.look()
            self._looked = True
        while budget_bytes > 0:
            if (taken := self._fetch_chunk(buffer, fetched)) is None:
                return fetched
            budget_bytes -= taken
        fetched.more = True
        return fetched

    def _fetch_chunk(self, buffer: bytearray, fetched: Fetched) -> int | None:
        """Take one chunk, or go on to where the next one is; its bytes. None: there is nothing more now."""
        if not self._segments:
            return None
        segment = self._segments[0]
        start = max(0, segment.offset - len(self._tail))
        count = segment.read_into(buffer, start)
        skip = segment.offset - start
        if count < skip or buffer[:skip] != self._tail:
            self._truncated(segment, fetched)
            return 0
        if self.cap is not None and (self._passed, segment.offset) >= self.cap:
            return None
        if self.stop_at is not None and self._passed > self.stop_at[0]:
            fetched.drained = True
            return None
        if count > skip and not buffer[skip] and not self._tail.strip(b"\0"):
            if (begin := segment.begins_at(len(buffer))) is None:
                return len(buffer)
            if begin > segment.offset:
                return self._pass_hole(segment, begin, buffer, skip, fetched)
        count = max(skip, min(count, self._limit(segment) - start))
        end = buffer.rfind(b"\n", skip, count) + 1
        if end == 0:
            return self._without_newline(segment, buffer, skip, count, fetched)
        cut = end
        if self._ahead is not None:
            cut = self._ahead.cut((self._passed, segment.offset), (self._passed, start + end))[1] - start
        self._take(segment, buffer, skip, cut, fetched)
        self._at_end = count < len(buffer)
        read_out = self._at_end and cut == end and len(self._segments) == 1
        if read_out and not self.complete and self.stop_at is None:
            # The writer may have written more meanwhile; inotify will say so.
            return None
        return cut - skip

    def _pass_hole(
        self, segment: Segment, end: int, buffer: bytearray, skip: int, fetched: Fetched
    ) -> int | None:
        """The file begins with NULs up to `end`: go on there, once there is something."""
        end = min(end, self._limit(segment))
        if end <= segment.offset or not segment.read(end, 1):
            return self._without_newline(segment, buffer, skip, skip, fetched)
        if self.routes is None:
            self.statistics.nuls += end - segment.offset
        segment.offset = end
        self._tail = bytes(min(TAIL_BYTES, end))
        return 1

    def _limit(self, segment: Segment) -> int:
        """How far the first file may be read now."""
        limit = sys.maxsize
        if self.cap is not None and self._passed == self.cap[0]:
            limit = self.cap[1]
        if self.stop_at is not None and self._passed == self.stop_at[0] and not segment.compressed:
            limit = min(limit, self.stop_at[1])
        return limit

    def _without_newline(
        self, segment: Segment, buffer: bytearray, skip: int, count: int, fetched: Fetched
    ) -> int | None:
        """What is left of a file holds no whole line: a piece of one, or nothing, and then the next file."""
        if self._format.pieces and count > skip and (count == len(buffer) or self._over(segment)):
            self._take(segment, buffer, skip, count, fetched)
            return count - skip
        if count == len(buffer):
            self._pass_over_monster(segment, buffer, skip, count)
            return count
        if segment.damaged_at is not None and not segment.damage_told:
            segment.damage_told = True
            until = first_time(self._segments[1:], self._format)
            fetched.chunks.append(Chunk(lost="unreadable", until=until))
        complete = self.complete
        if complete and self.routes is None and len(self._segments) == 1 and self.look():
            return 0  # it was rotated just before its end, and nobody has seen that yet
        if not self._next_segment(count > skip):
            fetched.drained = complete or self.stop_at is not None
            if complete:
                fetched.chunks.append(Chunk(finish=True))
            return None
        if self._format.pieces:
            # Lines do not go on in the next file; json-file's records do.
            fetched.chunks.append(Chunk(finish=True))
        return 0

    def _take(self, segment: Segment, buffer: bytearray, skip: int, end: int, fetched: Fetched) -> None:
        """Make a chunk of the lines in `buffer[skip:end]`, which begin at the segment's offset."""
        if not segment.identity:
            segment.identify()
        spot = (self._passed, segment.offset)
        acknowledged = self._ahead.at(spot) if self._ahead is not None else None
        if acknowledged is None:
            self._ahead = None
        tail, self._tail = self._tail, bytes(buffer[max(0, end - TAIL_BYTES) : end])
        fetched.chunks.append(
            Chunk(
                bytes(memoryview(buffer)[skip:end]),
                spot,
                segment.identity,
                segment.inode,
                tail,
                self._tail,
                acknowledged,
            )
        )
        segment.offset += end - skip

    def _next_segment(self, unterminated: bool) -> bool:
        """The first segment is read to its end: go on with the next, if there is one."""
        with self._chain:
            if len(self._segments) < 2 or not self._over(self._segments[0]):
                return False
            # The writer has closed it: what has no newline gets none.
            if unterminated:
                self.statistics.corrupt_lines += 1
            spent = self._segments.pop(0)
            self.left = spent.id, Place(spent.identity, spent.offset, self._tail, spent.inode)
            self._spent += (spent,)
            self._passed += 1
            self._tail = b""
            return True

    def _over(self, segment: Segment) -> bool:
        """Whether nothing more is written to the file that is read now.

        An engine closes its file before it begins a new one. Other programs are told after their file was
        renamed, and may write to it until then; so are those that kubelet rotates logs for.
        """
        if len(self._segments) < 2:
            return self.complete
        if not self._format.told_late or self.complete or segment.compressed:
            return True
        following = self._segments[1]
        if len(self._segments) == 2 and not following.compressed and following.size() == 0:
            return False
        return segment.left_alone_s() > LINGER_S

    def _truncated(self, segment: Segment, fetched: Fetched) -> None:
        """What stood before our offset is not there any more: the file was truncated and begun again.

        It counts as the next file, so that spots go on growing.
        """
        segment.forget()
        self._passed += 1
        self._tail = b""
        if not self._at_end:
            fetched.chunks.append(Chunk(lost="rotated", until=first_time([segment], self._format)))

    def _pass_over_monster(self, segment: Segment, buffer: bytearray, skip: int, count: int) -> None:
        """A buffer without a newline is no json-file line (moby's are below 100 KiB): pass over it."""
        self.statistics.corrupt_lines += 1
        segment.offset += count - skip
        self._tail = bytes(buffer[count - TAIL_BYTES : count])

    # --- names: of the live reader ----------------------------------------------------------------------

    @property
    def newest_origin(self) -> Origin:
        """As it is called now, though what is read now may have been said under another name."""
        return self.names[-1].origin if self.names else self.origin

    def whole_end(self) -> tuple[Spot, Position]:
        """Behind the last whole line that there is now; blocks on the disk."""
        with self._chain:
            position = end_position(self._segments, self._format)
            # Just rotated, the newest file is empty: then it is the end of the one before.
            index = next((i for i in reversed(range(len(self._segments))) if self._segments[i].size()), 0)
            place = position.stdout.place
            return (self._passed + index, place.offset if place is not None else 0), position

    def rename(self, origin: Origin, spot: Spot, position: Position) -> None:
        """What was said up to there has the name that it has; what comes behind it is of this origin."""
        if not (self.forks or self.stranded):
            # What has been read is handed on.
            self.names = tuple(name for name in self.names if name.spot > self.spot)
        self.names += (Name(spot, position, self.newest_origin, origin),)

    def next_name(self, reader: LogFile) -> Name | None:
        """How the origin is named next of what this reader reads, itself or a fork; None: not any more."""
        return following(self.names, reader.origin)

    @property
    def is_at_name(self) -> bool:
        """Whether it has read all that was said under the name that it has."""
        name = self.next_name(self)
        return name is not None and self.spot >= name.spot

    def come_to_name(self) -> Batch:
        """Go on under the next name, which it is at; what processors hold of it so far has ended."""
        name = self.next_name(self)
        assert name is not None
        ending = self.ending()
        self.origin = name.origin
        return ending

    def _find_names(self) -> None:
        """Where the log was renamed, in the files that were opened; blocks on the disk."""
        if not self.names:
            return
        with self._chain:
            for segment in self._segments:
                segment.identify()
            found = [locate(self._segments, self._format, name.position)[0] for name in self.names]
        spots = [(self._passed + index, offset) for index, offset in map(min, (f.values() for f in found))]
        self.names = tuple(name._replace(spot=spot) for name, spot in zip(self.names, spots, strict=True))

    def ending(self) -> Batch:
        """Nothing more comes, or is read: what processors hold of it has ended."""
        return settling(self.origin, self._batches.reached, self)

    # --- parsing: knows records, touches no file -------------------------------------------------------

    def parse(self, chunks: Sequence[Chunk]) -> list[Batch]:
        """The batches of what was fetched. Never raises for what stands in it."""
        batches: list[Batch] = []
        for chunk in chunks:
            if chunk.lost:
                self._lose(chunk.lost, self._batches.last_time, chunk.until)
            elif not chunk.finish:
                batches.append(self._batches.take(chunk, self.origin, self))
            elif (batch := self._batches.finish(self.origin, self)) is not None:
                batches.append(batch)
        return batches


def _in_older_files(position: Position, held: Collection[str]) -> bool:
    """Whether a position may be in other files than those that a reader holds, of these fingerprints."""
    places = [place for place in (position.stdout.place, position.stderr.place) if place is not None]
    return position.since is not None or not places or any(place.file not in held for place in places)
