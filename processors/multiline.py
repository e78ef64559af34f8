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
from typing import ClassVar, Literal
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


class MultilineOptions(ProcessorOptions):
    """Make one record of lines that belong together. Its time and id are those of the first line."""

    type: Literal["multiline"] = "multiline"
    preset: Preset | None = None
    """Stack traces of this language, with the line that was logged right before one."""
    start: str | None = Field(default=None, examples=[r"^\\d{4}-\\d\\d-\\d\\d "])
    """A regular expression that is found in the first line of each record, and in no other."""
    continue_: str | None = Field(default=None, alias="continue", examples=[r"^\\s"])
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

    def _names(self, kind: int) -> frozenset[str]:
        return frozenset(name for bit, name in enumerate(self._machine.classes) if kind & 1 << bit)


class _Begun(msgspec.Struct):
    """A record of which more may come."""

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
    doubted: tuple[int, Record] | None = None
    """The last line, and its index, where the next one decides whether that belongs to it."""
    position: StreamPosition = StreamPosition()
    """Where reading has to begin again for it; known once it is held."""
    since: str | None = None
    """Likewise, see `Position`."""
    doubtful: bool = False
    """What comes may not follow on it."""

    def whole(self) -> Record:
        """What it is, when nothing more comes: the very line, where it is only one."""
        first = self.first
        if not self.more:
            return first
        message = "\n".join([first.message, *self.more])
        if type(first) is Record and not self.truncated:
            return Record(message, first.stream, first.time)
        truncated = self.truncated or first.truncated
        return msgspec.structs.replace(detailed(first), message=message, truncated=truncated)


Held = dict[Stream, _Begun]


class _Work:
    """A batch that is being joined. Its lines may have their newlines still."""

    __slots__ = ("_chosen", "early", "joining", "kinds", "lines", "newlines", "remarkable", "slots")

    def __init__(
        self, joining: Joining, lines: Sequence[Record], chosen: bytes | None, *, newlines: bool
    ) -> None:
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

    def is_for_us(self, index: int) -> bool:
        return self._chosen is None or bool(self._chosen[index])

    def ready(self, record: Record) -> Record:
        """A line without its newline, with its whole time."""
        if not self.newlines:
            return record
        if type(record) is Record:
            return Record(record.message[:-1], record.stream, full_time(record.time))
        return msgspec.structs.replace(record, message=record.message[:-1], time=full_time(record.time))

    def end(self, ended: Sequence[Record], begun: _Begun) -> None:
        """The record is whole, and what may follow is the line that does not belong to it after all."""
        whole, *rest = [_with_newline(record) for record in ended] if self.newlines else ended
        if begun.at < 0:
            self.early.append(whole)
        elif begun.more:
            self.slots[begun.at] = whole
        if rest and begun.doubted is not None:
            index, _ = begun.doubted
            if index < 0:
                self.early += rest
            else:
                self.slots[index] = self.lines[index]


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
        if not held and not batch.lines:
            return batch
        before = _holding(batch.began, held) if held else batch.before
        size_bytes = batch.size_bytes + _weight(held)
        # Where ids are nothing but times, lines need not be made ready for this.
        newlines = batch.newlines and chosen is None
        if newlines:
            newlines = not any(begun.first.sequence for begun in held.values())
            newlines = newlines and batch.plain_times() is not None
        lines = batch.lines if newlines else batch.records
        going_on: list[Record] = []
        if lines:
            going_on = self._joined(batch.origin, lines, held, chosen, newlines=newlines)
        if batch.settled:
            settled = [begun for stream, begun in held.items() if stream in batch.settled]
            held = {stream: begun for stream, begun in held.items() if stream not in batch.settled}
            ended = [
                record for begun in sorted(settled, key=attrgetter("at")) for record in self._ended(begun)
            ]
            going_on += [_with_newline(record) for record in ended] if newlines else ended
        for stream, begun in held.items():
            if begun.doubted is not None:
                begun.doubted = -1, begun.doubted[1]
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
        self, origin: Origin, lines: list[Record], held: Held, chosen: bytes | None, *, newlines: bool
    ) -> list[Record]:
        """What these lines make whole, in order; `held` is what they leave begun."""
        joining = self.joining_of(origin)
        work = _Work(joining, lines, chosen, newlines=newlines)
        streams = [record.stream for record in lines]
        every = range(len(lines))
        for stream in STREAMS:
            if count := streams.count(stream):
                indexes: Sequence[int] = every
                if count < len(lines):
                    indexes = list(compress(every, map(stream.__eq__, streams)))
                self._of_stream(work, indexes, stream, held)
        return work.early + [record for record in work.slots if record is not None]

    def _of_stream(self, work: _Work, indexes: Sequence[int], stream: Stream, held: Held) -> None:
        """The lines of one stream. Most are plain, and whole runs of them stay where they are, unseen."""
        joining, lines, slots = work.joining, work.lines, work.slots
        remarkable = work.remarkable
        if len(indexes) < len(lines):
            remarkable = bytes(map(remarkable.__getitem__, indexes))
        begun = held.pop(stream, None)
        if begun is not None:
            first = work.ready(lines[indexes[0]])
            if not self._goes_on(begun, first):
                begun = None
            elif begun.doubtful:
                work.end(self._ended(begun), begun)
                begun = None
        runs = not joining.takes_plain(joining.plain_state)
        at, count = 0, len(indexes)
        while at < count:
            index, plain = indexes[at], not remarkable[at]
            if begun is not None:
                if (not plain or joining.takes_plain(begun.state)) and work.is_for_us(index):
                    state = joining.follows(begun.state, work.kinds[index])
                    if state is not None and self._joins(begun, lines[index], newlines=work.newlines):
                        begun.state = state
                        begun.doubted = (index, work.ready(lines[index])) if state[-1:] == "?" else None
                        slots[index] = None
                        at += 1
                        continue
                work.end(self._ended(begun), begun)
                begun = None
            if not work.is_for_us(index):
                at += 1
            elif plain and runs:
                end = remarkable.find(1, at)
                at = end if end >= 0 else count
                begun = _Begun(work.ready(lines[indexes[at - 1]]), joining.plain_state, indexes[at - 1])
            else:
                begun = _Begun(work.ready(lines[index]), joining.begins(work.kinds[index]), index)
                at += 1
        if begun is not None:
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

    def _joins(self, begun: _Begun, line: Record, *, newlines: bool) -> bool:
        """Make this the record's next line, if the limits allow it."""
        if len(begun.more) + 2 > self._limits.max_lines:
            return False
        first, time = begun.first, line.logged or line.time
        text = line.message[:-1] if newlines else line.message
        # The time of a line that has none is that of its being read: it says nothing.
        if line.place is None and self._are_apart(begun.last_time or first.logged or first.time, time):
            return False
        size_bytes = (begun.size_bytes or _size_bytes(first.message)) + 1 + _size_bytes(text)
        if size_bytes > self._limits.max_bytes:
            return False
        begun.last_time, begun.size_bytes = time, size_bytes
        begun.more.append(text)
        begun.truncated = begun.truncated or line.truncated
        return True

    def _are_apart(self, earlier: str, later: str) -> bool:
        """Whether there is more than the largest gap between these times."""
        if earlier[:19] == later[:19] and self._max_gap_ns >= 10**9:
            return False
        return _gap_ns(earlier, later) > self._max_gap_ns

    def _ended(self, begun: _Begun) -> list[Record]:
        """The record as it is now; and its last line by itself, where that has proved not to belong to it."""
        if begun.doubted is not None:
            begun.more.pop()
        self.books.joined += len(begun.more)
        whole = begun.whole()
        return [whole] if begun.doubted is None else [whole, begun.doubted[1]]


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
        RECORD_OVERHEAD_BYTES + (begun.size_bytes or len(begun.first.message)) for begun in held.values()
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
