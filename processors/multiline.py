"""Multiline: the lines of a stack trace, or of another record of several lines, become one record.

What joins depends on the lines and on their engine times only, and begins anew with each record: so the same
records, under the ids of their first lines, come out wherever in a log reading begins again. Of each stream
the last record is held until a line tells that it is whole. Where none comes, the router says so once the log
has been quiet (`Batch.settled`): longer than lines of one record may be apart, and then some.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, MutableMapping, Sequence
from itertools import compress
from operator import attrgetter
from typing import ClassVar, Literal, NamedTuple
from weakref import WeakKeyDictionary

import msgspec
from pydantic import Field, field_validator, model_validator

from logroute.config.components import PROCESSORS
from logroute.config.types import Duration, Size
from logroute.processors import Holder, OptionsT, ProcessorOptions
from logroute.processors._line_machines import MACHINES, LineMachine, Preset, own_machine
from logroute.processors._windows import second
from logroute.router.position import Mark, Position, StreamPosition
from logroute.router.record import RECORD_OVERHEAD_BYTES, STREAMS, Batch, Origin, Record, Stream, detailed
from logroute.router.regex import Regex, RegexError, RegexSet
from logroute.router.selection import ones
from logroute.router.times import full_time

MARGIN_S = 2.2
"""Behind the largest gap so long a silence makes certain that nothing comes any more: lines are given their
times before they are written, and where nobody tells of changes it is looked for them every two seconds."""
_FLIPPED = bytes.maketrans(b"\0\1", b"\1\0")
MOST_IN_DOUBT = 20
"""So many lines may wait for one that tells whether they belong to what is before them: the message of an
exception rarely has more, and what does not belong to one is not kept from going on for long."""


class MultilineOptions(ProcessorOptions):
    """Make one record of lines that belong together. Its time and id are those of the first line."""

    type: Literal["multiline"] = "multiline"
    preset: Preset | None = None
    """Stack traces of this language, with the line that was logged right before one."""
    start: str | None = Field(default=None, examples=[r"^\d{4}-\d\d-\d\d "])
    """A regular expression that is found in the first line of each record, and in no other."""
    continue_: str | None = Field(default=None, alias="continue", examples=[r"^\s"])
    """A regular expression that is found in every further line. With `start` only behind a line that has
    that: all others stand alone."""
    max_lines: int = Field(default=500, ge=2, le=100_000)
    """With more lines another record begins."""
    max_bytes: Size = Field(default=128 << 10, ge=1024, le=16 << 20)
    """With more bytes another record begins."""
    max_gap: Duration = Field(default=1.0, ge=0.001, le=60, examples=["1s"])
    """Lines that are further apart, by the engine's times, do not belong together. The last record of a
    stream goes on two seconds after that."""

    @field_validator("start", "continue_")
    @classmethod
    def _pattern_is_one(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                Regex(pattern)
            except RegexError as error:
                raise ValueError(str(error)) from error
        return pattern

    @model_validator(mode="after")
    def _something_joins(self) -> MultilineOptions:
        own = self.start is not None or self.continue_ is not None
        if self.preset is None and not own:
            raise ValueError("nothing says which lines belong together: give `preset`, `start` or `continue`")
        if self.preset is not None and own:
            raise ValueError("`preset` has patterns of its own: give it alone, or `start` and `continue`")
        return self


class Joining:
    """A machine with its patterns compiled. The classes of a line are bits of a number."""

    def __init__(self, machine: LineMachine) -> None:
        self._machine = machine
        self._regexes = RegexSet(machine.classes.values())
        assert len(machine.classes) <= 8  # bits of a byte
        plain = 1 << list(machine.classes).index(machine.plain) if machine.plain else 0
        self._is_remarkable = bytes(kind != plain for kind in range(256))
        self._states: dict[tuple[str, int], str | None] = {}
        self._begins: dict[int, str] = {}
        self.plain_state = self.begins(plain)
        """Behind a plain line that begins a record."""
        states = {self.plain_state, *machine.states}
        self._takes_plain = {state for state in states if self.follows(state, plain) is not None}

    def look(self, texts: Sequence[str], *, newlines: bool) -> tuple[bytes, bytes]:
        """The classes of each line, and whether it is not plain: 0 or 1.

        A program that writes to a terminal ends its lines with `\\r\\n` (termios(3), ONLCR), and the engine
        keeps the `\\r`: no pattern means that.
        """
        found = self._regexes.masks(texts, newlines=newlines, returns=True)
        kinds = 0
        for bit, regex in enumerate(self._machine.classes.values()):
            kinds |= int.from_bytes(found[regex], "little") << bit
        classes = kinds.to_bytes(len(texts), "little")
        return classes, classes.translate(self._is_remarkable)

    def begins(self, kind: int) -> str:
        """The state behind a first line of these classes."""
        state = self._begins.get(kind)
        if state is None:
            state = self._begins[kind] = self._machine.begins(self._names(kind))
        return state

    def follows(self, state: str, kind: int) -> str | None:
        """The state behind a further line of these classes; None: it begins a record."""
        key = state, kind
        if key not in self._states:
            self._states[key] = self._machine.follows(state, self._names(kind))
        return self._states[key]

    def takes_plain(self, state: str) -> bool:
        """Whether a plain line may belong to a record in that state."""
        return state in self._takes_plain

    def is_logged(self, text: str) -> bool:
        """Whether a line that could be in doubt begins as those of loggers do."""
        logged = self._machine.logged
        return logged is not None and logged.found_in(text.removesuffix("\r"))

    def _names(self, kind: int) -> frozenset[str]:
        return frozenset(name for bit, name in enumerate(self._machine.classes) if kind & 1 << bit)


class _Sure(NamedTuple):
    """What a record was before the lines that are in doubt."""

    state: str
    more: int
    last_time: str
    size_bytes: int
    truncated: bool


class _Begun(msgspec.Struct):
    """A record of which more may come.

    Invariant: while a batch is looked at whose lines have newlines, the first line has its own where it is of
    that batch (`at`), and may have a time that is not whole; it is ready in what is held.
    """

    first: Record
    state: str
    """Of the machine."""
    at: int
    """Index of its first line in the batch that is looked at; -1 where it began before that."""
    more: list[str] = msgspec.field(default_factory=list)
    """The further lines."""
    last_time: str = ""
    """Of the last of them."""
    size_bytes: int = 0
    """Of all lines; counted once there are several."""
    truncated: bool = False
    sure: _Sure | None = None
    """While it is decided by later lines whether the last ones belong to it."""
    again: list[Record] = msgspec.field(default_factory=list)
    """Lines behind it that were in doubt when the batch ended: they are looked at again with the next one."""
    position: StreamPosition = StreamPosition()
    """Where reading has to begin again for it; known once it is held."""
    since: str | None = None
    """Likewise, see `Position`."""
    doubtful: bool = False
    """What comes may not follow on it."""

    def take(self, text: str, state: str) -> None:
        """One more line, in doubt or not."""
        if state[-1:] != "?":
            self.sure = None
        elif self.sure is None:
            self.sure = _Sure(self.state, len(self.more), self.last_time, self.size_bytes, self.truncated)
        self.state = state
        self.more.append(text)

    def in_doubt(self) -> int:
        """How many lines are."""
        return 0 if self.sure is None else len(self.more) - self.sure.more

    def without_doubt(self) -> int:
        """Be what it surely is; how many lines that leaves."""
        left = self.in_doubt()
        if self.sure is not None:
            self.state, more, self.last_time, self.size_bytes, self.truncated = self.sure
            del self.more[more:]
            self.sure = None
        return left

    def whole(self, *, newline: bool = False) -> Record:
        """What it is, when nothing more comes: the very line, where it is only one.

        With `newline` the first line has one, and so has what is made of it.
        """
        first = self.first
        if not self.more:
            return first
        lines = "\n".join(self.more)
        message = f"{first.message}{lines}\n" if newline else f"{first.message}\n{lines}"
        if type(first) is Record and not self.truncated:
            return Record(message, first.stream, first.time)
        truncated = self.truncated or first.truncated
        return msgspec.structs.replace(detailed(first), message=message, truncated=truncated)


Held = dict[Stream, _Begun]


class _Work:
    """A batch that is being joined. Its lines may have their newlines still."""

    __slots__ = ("_chosen", "early", "joining", "kinds", "lines", "newlines", "origin", "remarkable", "slots")

    def __init__(
        self,
        origin: Origin,
        joining: Joining,
        lines: Sequence[Record],
        chosen: bytes | None,
        *,
        newlines: bool,
    ) -> None:
        self.origin = origin
        self.joining = joining
        self.lines = lines
        self.newlines = newlines
        self._chosen = chosen
        self.kinds, self.remarkable = joining.look([line.message for line in lines], newlines=newlines)
        if chosen is not None:
            count = len(lines)
            others = ones(count) ^ int.from_bytes(chosen, "little")
            self.remarkable = (int.from_bytes(self.remarkable, "little") | others).to_bytes(count, "little")
        self.early: list[Record] = []
        """Records that began before this batch."""
        self.slots: list[Record | None] = list(lines)
        """What goes on, in the place of its first line."""

    def has_newline(self, begun: _Begun) -> bool:
        """Whether the first line of a record has its newline."""
        return self.newlines and begun.at >= 0

    def is_for_us(self, index: int) -> bool:
        return self._chosen is None or bool(self._chosen[index])

    def end(self, whole: Record, begun: _Begun) -> None:
        """The record is whole; it has a newline where its first line has."""
        if begun.at < 0:
            self.early.append(_with_newline(whole) if self.newlines else whole)
        elif begun.more:
            self.slots[begun.at] = whole


def _ready(record: Record, *, newlines: bool) -> Record:
    """A line without its newline, with its whole time."""
    if not newlines:
        return record
    if type(record) is Record:
        return Record(record.message[:-1], record.stream, full_time(record.time))
    return msgspec.structs.replace(record, message=record.message[:-1], time=full_time(record.time))


def _with_newline(record: Record) -> Record:
    if type(record) is Record:
        return Record(f"{record.message}\n", record.stream, record.time)
    return msgspec.structs.replace(record, message=f"{record.message}\n")


class JoiningProcessor(Holder[OptionsT]):
    """Joins lines, as far as these limits say. `joining_of` tells by which machine those of an origin do."""

    changes: ClassVar[bool] = False

    def __init__(self, options: OptionsT, limits: MultilineOptions) -> None:
        super().__init__(options)
        self._limits = limits
        self._max_gap_ns = round(limits.max_gap * 1e9)
        self.quiet_s = limits.max_gap + MARGIN_S
        self._of_readers: MutableMapping[Hashable, Held] = WeakKeyDictionary()
        self._of_origins: dict[Hashable, Held] = {}

    @abstractmethod
    def joining_of(self, origin: Origin) -> Joining: ...

    # --- what is held ---------------------------------------------------------------------------------

    def _kept(self, key: Hashable) -> MutableMapping[Hashable, Held]:
        return self._of_origins if isinstance(key, str) else self._of_readers

    def holds(self, key: Hashable) -> bool:
        return bool(self._kept(key).get(key))

    def held(self, key: Hashable) -> Mapping[Stream, Mark]:
        return {stream: Mark.of(begun.first) for stream, begun in self._kept(key).get(key, {}).items()}

    @property
    def holding(self) -> bool:
        return bool(self._of_origins or self._of_readers)

    def needed(self, key: Hashable, position: Position) -> Position:
        held = self._kept(key).get(key)
        return _holding(position, held) if held else position

    def doubt(self, key: Hashable) -> None:
        for begun in self._kept(key).get(key, {}).values():
            begun.doubtful = True

    def hold(self, batch: Batch, key: Hashable, chosen: bytes | None = None) -> Batch:
        kept = self._kept(key)
        held = dict(kept.get(key, ()))
        if not held and not len(batch):
            return batch
        before = _holding(batch.began, held) if held else batch.before
        size_bytes = batch.size_bytes + _weight(held)
        # Where ids are nothing but times, lines need not be made ready for this.
        newlines = batch.newlines and chosen is None
        if newlines:
            newlines = not any(
                record.sequence for begun in held.values() for record in (begun.first, *begun.again)
            )
            newlines = newlines and batch.has_no_sequences()
        lines = batch.lines if newlines else batch.records
        going_on: list[Record] = []
        if lines:
            going_on = self._joined(batch.origin, lines, batch.streams, held, chosen, newlines=newlines)
        if batch.settled:
            settled = [begun for stream, begun in held.items() if stream in batch.settled]
            held = {stream: begun for stream, begun in held.items() if stream not in batch.settled}
            ended = [
                record
                for begun in sorted(settled, key=attrgetter("at"))
                for record in self._finished(batch.origin, begun)
            ]
            going_on += [_with_newline(record) for record in ended] if newlines else ended
        for stream, begun in held.items():
            if begun.at >= 0:
                began = batch.began
                begun.at, begun.since = -1, began.since
                begun.position = msgspec.structs.replace(began.of(stream), until=Mark.of(begun.first))
        made = batch.with_records(going_on, max(0, size_bytes - _weight(held)), newlines=newlines)
        made.before = before
        if held:
            kept[key] = held
            made.reached = _holding(batch.after, held)
        else:
            kept.pop(key, None)
        return made

    def forget(self, key: Hashable, streams: frozenset[Stream]) -> None:
        kept = self._kept(key)
        left = {stream: begun for stream, begun in kept.pop(key, {}).items() if stream not in streams}
        if left:
            kept[key] = left

    # --- joining --------------------------------------------------------------------------------------

    def _joined(
        self,
        origin: Origin,
        lines: list[Record],
        streams: list[Stream],
        held: Held,
        chosen: bytes | None,
        *,
        newlines: bool,
    ) -> list[Record]:
        """What these lines, of these streams, make whole, in order; `held` is what they leave begun."""
        joining = self.joining_of(origin)
        finished: list[Record] = []
        again: list[Record] = []
        for stream, begun in list(held.items()):
            if stream not in streams:
                continue
            if not self._goes_on(begun, _ready(lines[streams.index(stream)], newlines=newlines)):
                del held[stream]
            elif begun.doubtful:
                finished += self._finished(origin, held.pop(stream))
            else:
                again += begun.again
                begun.again = []
        before = {stream: (begun.position, begun.since) for stream, begun in held.items()}
        if again:
            lines = [*map(_with_newline, again), *lines] if newlines else again + lines
            streams = [record.stream for record in again] + streams
            chosen = None if chosen is None else b"\x01" * len(again) + chosen
        work = _Work(origin, joining, lines, chosen, newlines=newlines)
        work.early += map(_with_newline, finished) if newlines else finished
        every = range(len(lines))
        of_the_other: bytes | None = None
        for stream in STREAMS:  # there are two
            count = streams.count(stream)
            if count == len(lines):
                self._of_stream(work, every, work.remarkable, stream, held)
            elif count:
                its = of_the_other.translate(_FLIPPED) if of_the_other else bytes(map(stream.__eq__, streams))
                of_the_other = its
                remarkable = bytes(compress(work.remarkable, its))
                self._of_stream(work, list(compress(every, its)), remarkable, stream, held)
        if newlines:
            for begun in held.values():
                if begun.at >= 0:
                    begun.first = _ready(begun.first, newlines=True)
        for stream, begun in held.items():
            if 0 <= begun.at < len(again):  # it began in a batch before this one
                begun.at = -1
                position, begun.since = before[stream]
                begun.position = msgspec.structs.replace(position, until=Mark.of(begun.first))
            elif begun.at >= 0:
                begun.at -= len(again)
        return [*work.early, *filter(None, work.slots)]

    def _of_stream(
        self, work: _Work, indexes: Sequence[int], remarkable: bytes, stream: Stream, held: Held
    ) -> None:
        """The lines of one stream, with which of them are remarkable. Most are plain, and whole runs of them
        stay where they are, unseen."""
        joining, lines, slots = work.joining, work.lines, work.slots
        begun = held.pop(stream, None)
        runs = not joining.takes_plain(joining.plain_state)
        at, count = 0, len(indexes)
        while at < count:
            index, plain = indexes[at], not remarkable[at]
            if begun is not None:
                if (not plain or joining.takes_plain(begun.state)) and work.is_for_us(index):
                    state = joining.follows(begun.state, work.kinds[index])
                    if state is not None and self._joins(work, begun, lines[index], state):
                        slots[index] = None
                        at += 1
                        continue
                left = begun.without_doubt()
                work.end(self._ended(work.origin, begun, newline=work.has_newline(begun)), begun)
                begun = None
                if left:
                    for doubted in indexes[at - left : at]:
                        slots[doubted] = lines[doubted]
                    at -= left
                    continue
            if not work.is_for_us(index):
                at += 1
            elif plain and runs:
                end = remarkable.find(1, at)
                at = end if end >= 0 else count
                last = indexes[at - 1]
                begun = _Begun(lines[last], joining.plain_state, last)
            else:
                begun = _Begun(lines[index], joining.begins(work.kinds[index]), index)
                at += 1
        if begun is not None:
            if left := begun.without_doubt():
                begun.again = [_ready(lines[doubted], newlines=work.newlines) for doubted in indexes[-left:]]
            held[stream] = begun
            if begun.at >= 0:
                slots[begun.at] = None

    @staticmethod
    def _goes_on(begun: _Begun, record: Record) -> bool:
        """Whether what is held stays, where this is what comes next: not if its lines come once more."""
        mark, begins = Mark.of(record), Mark.of(begun.first)
        if mark == begins:
            return False
        return not (begun.doubtful and (mark.time, mark.sequence) < (begins.time, begins.sequence))

    def _joins(self, work: _Work, begun: _Begun, line: Record, state: str) -> bool:
        """Make this the record's next line, with the state behind it, if the limits allow it."""
        if len(begun.more) + 2 > self._limits.max_lines:
            return False
        first, time = begun.first, line.logged or line.time
        text = line.message[:-1] if work.newlines else line.message
        if state[-1:] == "?" and (begun.in_doubt() >= MOST_IN_DOUBT or work.joining.is_logged(text)):
            return False
        # The time of a line that has none is that of its being read: it says nothing.
        if line.place is None and self._are_apart(begun.last_time or first.logged or first.time, time):
            return False
        own = begun.size_bytes or _size_bytes(first.message) - work.has_newline(begun)
        size_bytes = own + 1 + _size_bytes(text)
        if size_bytes > self._limits.max_bytes:
            return False
        begun.take(text, state)
        begun.last_time, begun.size_bytes = time, size_bytes
        begun.truncated = begun.truncated or line.truncated
        return True

    def _are_apart(self, earlier: str, later: str) -> bool:
        """Whether there is more than the largest gap between these times."""
        if earlier[:19] == later[:19] and self._max_gap_ns >= 10**9:
            return False
        return _gap_ns(earlier, later) > self._max_gap_ns

    def _ended(self, origin: Origin, begun: _Begun, *, newline: bool = False) -> Record:
        """The record as it is now, with a newline where its first line has one."""
        self.books.joined += len(begun.more)
        if begun.truncated:
            origin.truncates = True
        return begun.whole(newline=newline)

    def _finished(self, origin: Origin, begun: _Begun) -> list[Record]:
        """The record as it is now, and what the lines behind it become, where nothing more comes."""
        made = [self._ended(origin, begun)]
        if begun.again:
            held: Held = {}
            streams = [record.stream for record in begun.again]
            made += self._joined(origin, begun.again, streams, held, None, newlines=False)
            for last in held.values():
                made += self._finished(origin, last)
        return made


@PROCESSORS.register(MultilineOptions)
class MultilineProcessor(JoiningProcessor[MultilineOptions]):
    """Joins lines by a preset, or by patterns of the user's."""

    def __init__(self, options: MultilineOptions) -> None:
        super().__init__(options, options)
        if options.preset is not None:
            machine = MACHINES[options.preset]()
        else:
            machine = own_machine(options.start, options.continue_)
        self._joining = Joining(machine)

    def joining_of(self, origin: Origin) -> Joining:
        return self._joining


def _holding(position: Position, held: Held) -> Position:
    """The position, but not behind what is held."""
    return position.holding(
        {stream: begun.position for stream, begun in held.items()}, [begun.since for begun in held.values()]
    )


def _weight(held: Held) -> int:
    """What it holds in memory, about."""
    return sum(
        RECORD_OVERHEAD_BYTES * (1 + len(begun.again))
        + (begun.size_bytes or len(begun.first.message))
        + sum(len(record.message) for record in begun.again)
        for begun in held.values()
    )


def _size_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _gap_ns(earlier: str, later: str) -> int:
    """How long after one time another is, both of nine digits; 0 where that cannot be told."""
    if earlier[:19] == later[:19]:
        return max(0, _fraction(later) - _fraction(earlier))
    return max(0, (second(later) - second(earlier)) * 10**9 + _fraction(later) - _fraction(earlier))


def _fraction(time: str) -> int:
    digits = time[20:-1]
    return int(digits.ljust(9, "0")[:9]) if digits.isascii() and digits.isdecimal() else 0
