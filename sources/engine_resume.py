"""Where to go on in a log that is read by the Engine API, and what of it has been read already. Sans-IO.

The API knows no positions, only `since`; and what that selects differs: every record that is not older, or
all from the first such record on, that one included or not. Across the streams the times in a log run
backwards a little; within one they do not, unless somebody sets the clock back. So `since` is only a hint
that saves work, and what was read is recognised by the anchors, stream by stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import lt

import msgspec

from logroute.router.position import Anchor, Mark, Position, StreamPosition
from logroute.router.record import STREAMS, Record, Stream, message_hash
from logroute.router.times import COARSE, iso_time
from logroute.sources.engine_answers import time_ns

# By how much the records of one stream may stand before older ones of the other. Measured: microseconds; a
# stream that has its turn only after this is taken to have said nothing.
JITTER_NS = 10 * 10**9


def since_ns(position: Position, now_ns: int, unfinished: Iterable[str] = ()) -> int:
    """What to ask the engine for; 0 is everything.

    `unfinished` are the times of records of which the rest was not read: their first pieces are needed again.
    """
    times = [_ns(anchor.time) for stream in STREAMS if (anchor := position.of(stream).anchor)]
    floor = _ns(position.since) if position.since else 0
    since = floor
    if times:
        newer = max(times)
        if now_ns < newer:
            # The clock was set back: what is new may have older times than what is known.
            return 0
        older = min(times) if len(times) == len(STREAMS) else 0
        since = max(older, newer - JITTER_NS, floor)
    held = [mark.time for stream in STREAMS if (mark := position.of(stream).until)]
    since = min([since, *map(_ns, unfinished), *map(_ns, held)])
    # One less: where `since` itself is left out, the other records of that time still come.
    return max(0, since - 1)


def _ns(time: str) -> int:
    try:
        return time_ns(time)
    except ValueError:
        return 0


class _Search(msgspec.Struct):
    """What of one stream is still to be discarded."""

    anchor: Anchor | None
    """Discard up to and including this record. None: only what is older than `floor`."""
    floor: str
    over_at: str
    """Once the other stream has come this far, nothing of this search comes any more."""
    expected: bool
    """The anchor must come: reading began before it."""
    located: int | None = None
    """Where an exact reading has found it: its index in its group of equal times. Times say nothing then."""
    index: int = 0
    """How many records of the anchor's time have come."""
    until: Mark | None = None
    """Then, discard what stands before this record too."""
    marking: bool = False
    """The anchor has come: now the mark is looked for."""
    last_time: str = ""
    """Of what was discarded last on the way to it."""
    sequence: int = 0
    """What the next record of the mark's time is numbered."""


class Skipper:
    """Takes out of what is read anew what stands before a position. For one reading, from its beginning on.

    `located` holds, for streams whose anchor was searched for (`Locator`): its index among the records of its
    time, or None if it is not there any more, so that everything of that stream is new.
    """

    def __init__(
        self, position: Position, since_ns: int, located: Mapping[Stream, int | None] | None = None
    ) -> None:
        self._searches: dict[Stream, _Search] = {}
        self.missing: Stream | None = None
        """The stream whose anchor should have come and did not: find out by a `Locator`, and begin again.

        What came after that is not passed on.
        """
        self._before_marks: dict[Stream, Anchor] = {}
        """What was discarded last of a stream, behind its anchor."""
        located = located or {}
        since = iso_time(since_ns)
        floor = position.since or ""
        for stream in STREAMS:
            anchor, until = position.of(stream).anchor, position.of(stream).until
            if stream in located:
                index = located[stream]
                if anchor is None or index is None:
                    anchor = None  # what stands before its mark, if it has one, is known nevertheless
                else:
                    search = _Search(anchor, "", "", expected=True, located=index, until=until)
                    self._searches[stream] = search
                    continue
            if anchor is not None:
                over_at = _later(anchor.time)
                expected = anchor.time > since
                self._searches[stream] = _Search(anchor, floor, over_at, expected, until=until)
            elif floor or until is not None:
                self._searches[stream] = _Search(None, floor, _later(floor), expected=False, until=until)
                if until is not None:
                    self._found(stream)

    @property
    def done(self) -> bool:
        """Nothing is left to discard: everything passes."""
        return not self._searches

    @property
    def searching(self) -> frozenset[Stream]:
        """Streams of which something may still be discarded."""
        return frozenset(self._searches)

    def start_at(self, position: Position, located: Mapping[Stream, int | None] | None = None) -> None:
        """What comes begins behind this position, which is not behind the one that is looked for.

        `located` is where its own anchors are, if that was searched for.
        """
        for stream, search in list(self._searches.items()):
            anchor = position.of(stream).anchor
            if anchor is None or search.anchor is None:
                continue
            if anchor == search.anchor:
                if position.of(stream).until == search.until:
                    search.until = None
                self._found(stream)
            elif anchor.time == search.anchor.time:
                index = None if located is None else located.get(stream)
                search.index = (anchor.sequence if index is None else index) + 1

    def give_up(self, stream: Stream) -> None:
        """Everything of this stream is new from now on, found or not."""
        self._searches.pop(stream, None)
        self.missing = None

    def ended(self) -> None:
        """An exact reading has come to the log's end: an anchor whose group came without it is missing."""
        for stream, search in self._searches.items():
            if search.expected and search.located is None and search.index:
                self.missing = stream

    def passed_over(self) -> dict[Stream, Anchor]:
        """Of streams of which nothing is discarded any more, what was last; told once.

        It stands behind the position's anchor, and what comes is numbered behind it.
        """
        passed = {s: anchor for s, anchor in self._before_marks.items() if s not in self._searches}
        for stream in passed:
            del self._before_marks[stream]
        return passed

    def pass_on(self, records: list[Record]) -> list[Record]:
        """Those that are new, in their order. Looks at nothing once `done`."""
        if not self._searches:
            return records
        new: list[Record] = []
        for number, record in enumerate(records):
            if not self._searches:
                new += records[number:]
                break
            search = self._searches.get(record.stream)
            if search is None or self._is_new(record, search):
                new.append(record)
            self._end_others(record)
            if self.missing is not None:
                if new and new[-1] is record:
                    new.pop()
                break
        return new

    def _found(self, stream: Stream) -> None:
        """The anchor has come: what comes behind it is new, or what comes from its mark on."""
        search = self._searches[stream]
        mark, anchor = search.until, search.anchor
        if mark is None:
            del self._searches[stream]
            return
        search.marking, search.expected, search.located = True, False, None
        search.over_at = _later(max(mark.time, search.floor))
        search.sequence = anchor.sequence + 1 if anchor is not None and anchor.time == mark.time else 0

    def _is_behind_mark(self, record: Record, search: _Search, mark: Mark) -> bool:
        """Whether it is the marked record; or that is not there, or no time tells where it is."""
        time = record.time
        if search.last_time <= time < mark.time or (time == mark.time and search.sequence < mark.sequence):
            before = self._before_marks.get(record.stream, search.anchor)
            sequence = before.sequence + 1 if before is not None and before.time == time else 0
            search.sequence += time == mark.time
            search.last_time = time
            self._before_marks[record.stream] = Anchor(time, sequence, message_hash(record.message))
            return False
        del self._searches[record.stream]
        return True

    def _is_new(self, record: Record, search: _Search) -> bool:
        stream, anchor = record.stream, search.anchor
        if search.marking and search.until is not None:
            return self._is_behind_mark(record, search, search.until)
        if anchor is None:
            if record.time < search.floor:
                return False
            del self._searches[stream]
            return True
        if record.time == anchor.time:
            index, search.index = search.index, search.index + 1
            if search.located is not None:
                if index == search.located:
                    self._found(stream)
            elif index == anchor.sequence:
                if not search.expected or message_hash(record.message) == anchor.hash:
                    self._found(stream)
                else:
                    self.missing = stream
            return False
        if search.located is not None or record.time < anchor.time:
            return False
        if search.expected:
            self.missing = stream
            return False
        self._found(stream)
        if search.marking and search.until is not None:
            return self._is_behind_mark(record, search, search.until)
        return record.time >= search.floor

    def _end_others(self, record: Record) -> None:
        """A stream that says nothing is not waited for for ever."""
        for stream, search in list(self._searches.items()):
            if stream == record.stream or search.located is not None or record.time <= search.over_at:
                continue
            if search.expected:
                self.missing = stream
            elif search.until is not None and not search.marking:
                self._found(stream)
            else:
                del self._searches[stream]


def _later(time: str) -> str:
    return iso_time(_ns(time) + JITTER_NS)


class Locator(msgspec.Struct):
    """Looks for anchors in an exact reading of all that there is: whether they are there, whatever the times.

    The same time, place in its group and hash is the anchor. Where a part of the group was rotated away, the
    last record of that time and hash is, that is not behind its place.
    """

    anchors: Mapping[Stream, Anchor]
    found: dict[Stream, int] = msgspec.field(default_factory=dict)
    """Index of the anchor among the records of its time that are there."""
    first: dict[Stream, str] = msgspec.field(default_factory=dict)
    """Time of the first record of each stream."""
    unordered_until: str = ""
    """Up to this time records stand in another order than that of their times: the clock was set back."""
    places: dict[Stream, int] = msgspec.field(default_factory=dict)
    """How many records of its stream stand before an anchor that was found."""
    _read: dict[Stream, int] = msgspec.field(default_factory=dict)
    _seen: dict[Stream, int] = msgspec.field(default_factory=dict)
    _newest: dict[Stream, str] = msgspec.field(default_factory=dict)

    def look(self, records: Sequence[Record]) -> None:
        """Take the next records of the reading."""
        for record in records:
            stream = record.stream
            if stream not in self.first:
                self.first[stream] = record.time
            place = self._read.get(stream, 0)
            self._read[stream] = place + 1
            newest = self._newest.get(stream, "")
            if record.time >= newest:
                self._newest[stream] = record.time
            elif newest > self.unordered_until:
                self.unordered_until = newest
            anchor = self.anchors.get(stream)
            if anchor is None or record.time != anchor.time:
                continue
            index = self._seen.get(stream, 0)
            self._seen[stream] = index + 1
            if index <= anchor.sequence and message_hash(record.message) == anchor.hash:
                self.found[stream] = index
                self.places[stream] = place

    @classmethod
    def of(cls, position: Position) -> Locator:
        """Looks for a position's."""
        return cls({stream: anchor for stream in STREAMS if (anchor := position.of(stream).anchor)})

    @property
    def located(self) -> dict[Stream, int | None]:
        """For a `Skipper`."""
        return {stream: self.found.get(stream) for stream in self.anchors}


class Ahead:
    """Routes that are further on than the others: says of what is read which of it they have already.

    `located` and `begin_located` are where the anchors of both are, if that was searched for.
    """

    def __init__(
        self,
        routes: Sequence[str],
        position: Position,
        begin: Position,
        located: Mapping[Stream, int | None] | None = None,
        begin_located: Mapping[Stream, int | None] | None = None,
    ) -> None:
        self.routes = tuple(routes)
        self.position = position
        self._skipper = Skipper(position, 0, located)
        self._skipper.start_at(begin, begin_located)

    @property
    def done(self) -> bool:
        """They have caught up: nothing that comes is theirs already."""
        return self._skipper.done

    def reached(self, read: Position) -> Position:
        """How far they are, where so much has been read: of a stream with which they are done, so far."""
        own = [self.position if stream in self._skipper.searching else read for stream in STREAMS]
        return Position(own[0].stdout, own[1].stderr, self.position.since)

    @property
    def missing(self) -> bool:
        """What they have last should have come, and did not: find out by a `Locator`, and begin again.

        Not where it was searched for already.
        """
        return self._skipper.missing is not None

    def acknowledged(self, record: Record) -> frozenset[Stream]:
        """Take the next record; the streams of which they have what comes, this record's only if it too.

        Unless that is `missing`.
        """
        before = self._skipper.searching
        passed = bool(self._skipper.pass_on([record]))
        return self._skipper.searching if passed else before


def first_of(locators: Sequence[Locator], stream: Stream) -> int:
    """Which of these found its anchor first in the log. One that is gone stood before all that there is."""
    return min(range(len(locators)), key=lambda index: locators[index].places.get(stream, -1))


def oldest(positions: Sequence[Position]) -> Position:
    """Where to begin for all of them: stream by stream the one that is furthest behind, by its time."""
    parts: list[StreamPosition] = []
    for stream in STREAMS:
        here = [position.of(stream) for position in positions]
        behind = min(here, key=_place, default=StreamPosition())
        begun = min((each.begun for each in here if each.begun), default="")
        # Whose anchor is behind that of another may be ahead of it by its mark.
        alike = all((each.anchor, each.until) == (behind.anchor, behind.until) for each in here)
        parts.append(StreamPosition(None, behind.anchor, begun, behind.until if alike else None))
    return Position(parts[0], parts[1], oldest_floor(positions))


def _place(position: StreamPosition) -> tuple[str, int]:
    """By which positions of a stream are ordered; one without an anchor stands before all others."""
    anchor = position.anchor
    return (anchor.time, anchor.sequence) if anchor is not None else ("", 0)


def oldest_floor(positions: Sequence[Position]) -> str | None:
    """What any of them wants is not older than this."""
    floors = [position.since for position in positions]
    return min((floor for floor in floors if floor), default=None) if all(floors) else None


def advanced(
    position: Position,
    records: Sequence[Record],
    discarding: Iterable[Stream] = (),
    begun: Mapping[Stream, str] | None = None,
) -> Position:
    """The position behind these records, which follow on it; not numbered yet.

    `discarding` are the streams whose last record is truncated, with more of its line to come; `begun` says
    of which times there are records that are not finished.
    """
    parts: dict[Stream, StreamPosition] = {}
    for stream in STREAMS:
        previous = position.of(stream)
        anchor = last_anchor(records, stream, previous.anchor, discard=stream in discarding)
        time = begun.get(stream, "") if begun else ""
        unchanged = anchor is previous.anchor and time == previous.begun
        until = previous.until if anchor is previous.anchor else None
        parts[stream] = previous if unchanged else StreamPosition(None, anchor, time, until)
    return Position(parts["stdout"], parts["stderr"], position.since)


def last_anchor(
    records: Sequence[Record], stream: Stream, previous: Anchor | None, *, discard: bool
) -> Anchor | None:
    """The anchor of the stream's last record in these; the previous one if there is none."""
    at = len(records) - 1
    while at >= 0 and records[at].stream != stream:
        at -= 1
    if at < 0:
        return previous
    last = records[at]
    sequence = 0
    while at > 0:
        at -= 1
        record = records[at]
        if record.stream == stream:
            if record.time != last.time:
                break
            sequence += 1
    else:
        if previous is not None and previous.time == last.time:
            sequence += previous.sequence + 1
    return Anchor(last.time, sequence, message_hash(last.message), discard)


def goes_back(records: Sequence[Record], position: Position) -> int | None:
    """Index of the first record that is older than the one before it in its stream, or the same once more.

    None if none is. Two records of one stream with the very same nanosecond and text may be two (an exact
    reading tells), but usually an engine has sent one twice: 20.10 does, when it opens the next file.
    """
    anchors = {stream: position.of(stream).anchor for stream in STREAMS}
    times = [record.time for record in records]
    # Almost always true, and decided without a look at the streams.
    first = times[0]
    if all(anchor is None or first > anchor.time for anchor in anchors.values()) and all(
        map(lt, times, times[1:])
    ):
        return None
    last = {stream: (a.time, a.hash) if a else ("", "") for stream, a in anchors.items()}
    for index, record in enumerate(records):
        time, hash_ = last[record.stream]
        if record.time < time:
            return index
        new_hash = ""
        if record.time == time and not time.endswith(COARSE):
            new_hash = message_hash(record.message)
            before = hash_ or message_hash(_before(records, index).message)
            if new_hash == before:
                return index
        last[record.stream] = record.time, new_hash
    return None


def _before(records: Sequence[Record], index: int) -> Record:
    """The record before this one in its stream."""
    stream = records[index].stream
    return next(records[i] for i in range(index - 1, -1, -1) if records[i].stream == stream)
