"""What the lines of a log file mean: json-file's (`docker`), those of `cri`, plain `text`, objects (`json`).

A format turns chunks, whole lines as they were fetched, into records, and keeps what is unfinished between
them. Sans-IO: it touches no file.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Annotated, Any, ClassVar, Literal
from zlib import crc32

import msgspec

from logroute.router.record import ALL_STREAMS, STREAMS, DetailedRecord, Record, Stream
from logroute.router.times import TIME_LENGTH, are_times, full_time, iso_time
from logroute.sources.joiner import Joiner, Unfinished
from logroute.sources.log_chain import TAIL_BYTES

Spot = tuple[int, int]
"""Index of a segment in the chain, offset in it: comparable."""
FormatName = Literal["docker", "cri", "text", "json"]


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """Whole lines of one file as they were fetched, or something that happened between them."""

    data: bytes = b""
    """Ends with a newline, unless it is a piece of a line that is longer than what is fetched at once."""
    spot: Spot = (0, 0)
    """Where it begins."""
    file: str = ""
    """The file's fingerprint."""
    inode: int = 0
    tail: bytes = b""
    """Up to 64 bytes before it, in the same file."""
    end_tail: bytes = b""
    """Up to 64 bytes before its end."""
    acknowledged: Mapping[str, frozenset[Stream]] | None = None
    """Streams of it that a route has acknowledged already."""
    finish: bool = False
    """The log, or this file of it, has ended: what is unfinished gets no further piece."""
    lost: Literal["", "rotated", "unreadable"] = ""
    """From here on there was something that could not be read: the file was truncated, or it is damaged."""
    until: str = ""
    """Where it is `lost`: time of the first record behind that, if known."""

    def tail_at(self, offset: int) -> bytes:
        """Up to 64 bytes of the file before this offset in `data`."""
        if offset == len(self.data):
            return self.end_tail
        if offset >= TAIL_BYTES:
            return self.data[offset - TAIL_BYTES : offset]
        return (self.tail + self.data[:offset])[-TAIL_BYTES:]


class Fetched(msgspec.Struct):
    """What was fetched of a log at once."""

    chunks: list[Chunk]
    more: bool = False
    """There may be more at once."""
    drained: bool = False
    """It is the last of a log that is complete, or is read to `stop_at`."""


class LogStatistics(msgspec.Struct, gc=False):
    """Counters of one log."""

    records: int = 0
    bytes: int = 0
    corrupt_lines: int = 0
    """Lines that are not what the format says, and of which there is no record; each time they are read."""
    discarded: int = 0
    """Characters (text: bytes) discarded behind truncated records."""
    nuls: int = 0
    """NUL bytes passed over where files began with them, and not told yet."""


class LineFormat(ABC):
    """One log's lines. `unfinished` has, per stream, the record of which more is to come."""

    name: ClassVar[FormatName]
    pieces: ClassVar[bool] = False
    """Whether it takes pieces of lines: else what has no newline within half a megabyte is passed over."""
    ready: ClassVar[bool] = False
    """Whether its records are complete: else a batch pads their times and numbers equal ones."""
    timed: ClassVar[bool] = True
    """Whether lines say when they were written, so that they can be found again by their time."""
    same_time: ClassVar[bool] = True
    """Whether the pieces of a record have one time, see `Joiner`."""
    told_late: ClassVar[bool] = False
    """Whether who writes is told after its file was renamed, and may write to it until then; an engine that
    rotates by itself closes its file before it begins a new one."""

    __slots__ = ("limit", "statistics", "unfinished")

    def __init__(self, limit: int, statistics: LogStatistics) -> None:
        self.limit = limit
        self.statistics = statistics
        self.unfinished: dict[Stream, Unfinished] = {}

    @abstractmethod
    def parse(self, chunk: Chunk) -> tuple[list[Record], bool]:
        """The records that a chunk finishes, and whether their messages still have their newlines."""

    @abstractmethod
    def finish(self) -> list[Record]:
        """Nothing more comes: the unfinished records as they are."""

    @abstractmethod
    def resume_discarding(self, stream: Stream, time: str, spot: Spot) -> None:
        """Go on discarding the rest of a line that was truncated before the checkpoint."""

    @abstractmethod
    def decode(self, line: bytes) -> Record | None:
        """One line (without its newline), for searching; None if it is none."""

    def needle(self, time: str) -> bytes:
        """What lines with this time have in them, and few others; nine digits."""
        return time[:-1].rstrip("0").rstrip(".").encode()


# --- json-file ----------------------------------------------------------------------------------------

_NOTHING: dict[Stream, Unfinished] = {}  # never written to
_decode_lines = msgspec.json.Decoder(Record).decode_lines
_decode = msgspec.json.Decoder(Record).decode
_last_character = itemgetter(-1)
_NEWLINE = {"\n"}


class JoinedFormat(LineFormat):
    """Lines that may be pieces of what was printed."""

    __slots__ = ("_joiner",)

    def __init__(self, limit: int, statistics: LogStatistics) -> None:
        super().__init__(limit, statistics)
        self._joiner: Joiner | None = None
        """Made when a line is first in pieces: of thousands of logs, few have one."""
        self.unfinished = _NOTHING

    @property
    def joiner(self) -> Joiner:
        if self._joiner is None:
            self._joiner = Joiner(self.limit, same_time=self.same_time)
            self.unfinished = self._joiner.unfinished
        return self._joiner

    def finish(self) -> list[Record]:
        finished: list[Record] = []
        for stream in STREAMS:
            self.joiner.finish(stream, finished)
        return finished

    def resume_discarding(self, stream: Stream, time: str, spot: Spot) -> None:
        self.joiner.resume_discarding(stream, time, spot)


class DockerFormat(JoinedFormat):
    """What moby's json-file driver writes: `{"log":"text\\n","stream":"stdout","time":"…"}`."""

    name = "docker"
    __slots__ = ()

    def parse(self, chunk: Chunk) -> tuple[list[Record], bool]:
        lines: list[Record] | None
        try:
            lines = _decode_lines(chunk.data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            lines = None
        # Where all of a chunk is within the limit, as ever by default, no line need be measured.
        if (
            lines is not None
            and not self.unfinished
            and _all_whole(lines)
            and (len(chunk.data) <= self.limit or max(len(line.message) for line in lines) - 1 <= self.limit)
        ):
            return lines, True
        return self._join(chunk), False

    def _join(self, chunk: Chunk) -> list[Record]:
        """The slow way: line by line, joining pieces, passing over what is no json-file line."""
        out: list[Record] = []
        joiner = self.joiner
        index, offset = chunk.spot
        for line in chunk.data.split(b"\n")[:-1]:
            start = (index, offset)
            offset += len(line) + 1
            piece = self.decode(line)
            if piece is None:
                piece = _rescue(line)
                if line.strip(b" \r\t\0"):
                    self.statistics.corrupt_lines += 1
                if piece is None:
                    continue
            piece.time = full_time(piece.time)
            joiner.add(piece, start, out)
        self.statistics.discarded = joiner.discarded
        return out

    def decode(self, line: bytes) -> Record | None:
        try:
            return _decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None


def _all_whole(lines: list[Record]) -> bool:
    """Whether every line ends with its newline, that is, none is a piece."""
    try:
        # Half the time of a loop with endswith().
        return set(map(_last_character, [line.message for line in lines])) == _NEWLINE
    except IndexError:
        return False


def _rescue(line: bytes) -> Record | None:
    """A whole line may stand behind one that a crash tore: `{"log":"to{"log":"whole\\n",…}`."""
    at = line.rfind(b'{"log":"')
    if at <= 0:
        return None
    try:
        return _decode(line[at:])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


# --- CRI ----------------------------------------------------------------------------------------------

# https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md: time, stream,
# tags, text. Of the tags, which `:` keeps apart, the first tells whether the line goes on. containerd writes
# the time as its host's zone has it, and trims zeros; CRI-O writes `+00:00` where others write `Z`.
_CRI = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)) "
    r"(stdout|stderr) ([FP])(?::[^ ]*)? (.*)",
    re.ASCII | re.DOTALL,
)
_WHOLE = {"F"}
_MINUTE, _ZONE = len("2016-10-06T00:17"), len("+02:00")


class CriFormat(JoinedFormat):
    """What containerd and CRI-O write: `2016-10-06T00:17:09.669794202Z stdout F text`; `P`: it goes on."""

    name = "cri"
    same_time = False
    told_late = True
    __slots__ = ()

    def parse(self, chunk: Chunk) -> tuple[list[Record], bool]:
        if not self.unfinished and (lines := self._all_whole(chunk.data)) is not None:
            return lines, True
        return self._join(chunk), False

    def _all_whole(self, data: bytes) -> list[Record] | None:
        """The records of lines that are all whole, with their newlines; None where one is not, or is none."""
        # In columns: half a microsecond a line, of which the records are a fifth; a regular expression that
        # takes each line apart costs twice as much.
        try:
            lines = [line.split(" ", 3) for line in data.decode().split("\n")[:-1]]
            times, streams, tags, texts = zip(*lines, strict=True)
        except ValueError:  # no UTF-8, or no line of CRI
            return None
        if set(tags) != _WHOLE or not ALL_STREAMS.issuperset(streams) or max(map(len, texts)) > self.limit:
            return None
        utc = [time if time[-1:] == "Z" and len(time) == TIME_LENGTH else _utc_time(time) for time in times]
        if not are_times(utc):
            return None
        return list(map(Record, [text + "\n" for text in texts], streams, utc))

    def _join(self, chunk: Chunk) -> list[Record]:
        """The slow way: line by line, joining pieces, passing over what is none."""
        out: list[Record] = []
        index, offset = chunk.spot
        for line in chunk.data.split(b"\n")[:-1]:
            start = (index, offset)
            offset += len(line) + 1
            piece = self.decode(line)
            if piece is not None:
                self.joiner.add(piece, start, out)
            elif line.strip(b" \r\t\0"):
                self.statistics.corrupt_lines += 1
        self.statistics.discarded = self.joiner.discarded
        return out

    def decode(self, line: bytes) -> Record | None:
        found = _CRI.fullmatch(line.decode("utf-8", "surrogateescape"))
        if found is None or not (time := _utc_time(found[1])):
            return None
        stream: Stream = "stdout" if found[2] == "stdout" else "stderr"
        return Record(found[4] + "\n" if found[3] == "F" else found[4], stream, time)

    def needle(self, time: str) -> bytes:
        # Zones are apart by whole minutes: what is behind these is the same in all.
        return super().needle(time)[_MINUTE:]


def _utc_time(time: str) -> str:
    """A time of CRI in UTC with nine digits; empty where there is no such time."""
    if time[-1:] == "Z":
        return full_time(time)
    minute = _utc_minute(time[:_MINUTE], time[-_ZONE:])
    return full_time(f"{minute}{time[_MINUTE:-_ZONE]}Z") if minute else ""


@lru_cache(maxsize=64)
def _utc_minute(minute: str, zone: str) -> str:
    """`2016-10-06T00:17` of a zone in UTC; empty where there is no such time. Many lines have the same."""
    try:
        return f"{datetime.fromisoformat(minute + zone).astimezone(UTC):%Y-%m-%dT%H:%M}"
    except (ValueError, OverflowError):
        return ""


# --- text and json ------------------------------------------------------------------------------------


class TextFormat(LineFormat):
    """A line is a record, whatever it says. Its time is that of reading; its id, where it stands."""

    name: ClassVar[FormatName] = "text"
    pieces = True
    ready = True
    timed = False
    told_late = True

    __slots__ = ("_begun", "_clock")

    def __init__(
        self, limit: int, statistics: LogStatistics, clock: Callable[[], int] = time.time_ns
    ) -> None:
        super().__init__(limit, statistics)
        self._clock = clock
        self._begun = bytearray()
        """The unfinished line."""

    def parse(self, chunk: Chunk) -> tuple[list[Record], bool]:
        *lines, piece = chunk.data.split(b"\n")
        out: list[Record] = []
        index, offset = chunk.spot
        now = iso_time(self._clock())
        for line in lines:
            self._take(line, chunk.file, (index, offset), now, out)
            self._end(chunk.file, now, out)
            offset += len(line) + 1
        if piece:
            self._take(piece, chunk.file, (index, offset), now, out)
        return out, False

    def _take(self, piece: bytes, file: str, spot: Spot, now: str, out: list[Record]) -> None:
        """A line, or what there is of one."""
        open_ = self.unfinished.get("stdout")
        if open_ is None:
            open_ = self.unfinished["stdout"] = Unfinished(file, spot)
        if open_.discarding:
            self.statistics.discarded += len(piece)
            return
        room = self.limit - len(self._begun)
        self._begun += piece[:room]
        if len(piece) > room:
            self.statistics.discarded += len(piece) - room
            out.append(self._record(open_, now, truncated=True))
            open_.discarding = True

    def _end(self, file: str, now: str, out: list[Record]) -> None:
        """The line has ended."""
        open_ = self.unfinished.pop("stdout")
        if not open_.discarding:
            out.append(self._record(open_, now, truncated=False))
        self._begun.clear()

    def _record(self, open_: Unfinished, now: str, *, truncated: bool) -> Record:
        # `time` of what is unfinished is the file's fingerprint here.
        # Rotation may begin two files alike (with the same heading, say), so the line's checksum is added.
        place = f"{open_.time}-{open_.start[1]}-{crc32(self._begun):08x}"
        text = self._begun.decode("utf-8", "replace")
        self._begun.clear()
        return self.make(text, now, place, truncated)

    def make(self, text: str, now: str, place: str, truncated: bool) -> Record:
        return DetailedRecord(text, "stdout", now, truncated=truncated, place=place)

    def finish(self) -> list[Record]:
        out: list[Record] = []
        if self.unfinished:
            self._end("", iso_time(self._clock()), out)
        return out

    def resume_discarding(self, stream: Stream, time: str, spot: Spot) -> None:
        self.unfinished["stdout"] = Unfinished("", spot, discarding=True)

    def decode(self, line: bytes) -> Record | None:
        return None


_MESSAGES = ("message", "msg", "log")
_TIMES = ("@timestamp", "time", "timestamp", "ts")
_LEVELS = ("level", "severity", "log.level")
_AwareTime = Annotated[datetime, msgspec.Meta(tz=True)]


class JsonFormat(TextFormat):
    """An object a line: message, time, level and stream under their usual names, everything else is fields.

    A line that is no object is a record like one of `text`.
    """

    name = "json"
    __slots__ = ()

    def make(self, text: str, now: str, place: str, truncated: bool) -> Record:
        record = DetailedRecord(text, "stdout", now, truncated=truncated, place=place)
        fields = _object(text) if text[:1] == "{" else None
        if fields is None:
            return record
        for name in _TIMES:
            if found := _utc(fields.get(name)):
                record.time = found
                del fields[name]
                break
        for name in _LEVELS:
            if isinstance(level := fields.get(name), str):
                record.level = level.lower()
                del fields[name]
                break
        for name in _MESSAGES:
            if isinstance(message := fields.get(name), str):
                record.message = message
                del fields[name]
                break
        if (stream := fields.get("stream")) in STREAMS:
            record.stream = stream
            del fields["stream"]
        record.fields = fields or None
        return record


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _utc(value: Any) -> str | None:
    """An RFC 3339 time in UTC with nine digits, from one in any zone; None if it is none."""
    if not isinstance(value, str) or len(value) < 20:
        return None
    if value[10] == "T" and value[-1] == "Z" and len(found := full_time(value)) == 30:
        try:
            msgspec.json.decode(f'"{found[:26]}Z"', type=_AwareTime)
        except msgspec.MsgspecError:
            return None
        return found
    try:
        when = msgspec.convert(value, _AwareTime)
        utc = when.astimezone(UTC)
    except (msgspec.MsgspecError, OverflowError, ValueError):
        return None
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond:06d}000Z"


FORMATS: dict[FormatName, type[LineFormat]] = {
    format_.name: format_ for format_ in (DockerFormat, CriFormat, TextFormat, JsonFormat)
}
