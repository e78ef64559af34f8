"""Syslog messages: RFC 5424, the older RFC 3164, and the local form; how streams are framed (RFC 6587).

The local form is what glibc's syslog(3) writes to /dev/log: that of RFC 3164 without a host. Who listens
there (rsyslog's imuxsock, journald) reads the first word as the tag, and knows no RFC 5424.

Knows nothing of connections. The part of a message's header that is constant for an origin is made once per
origin. Nothing that a container says can make a header of its own: values in the header keep to the
characters and the lengths of RFC 5424 (section 6), and a frame ends where its length, or its newline, says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import add, itemgetter
from typing import Annotated, Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import msgspec
from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from logroute.config.problems import did_you_mean
from logroute.config.types import Named
from logroute.router.record import Batch, Origin, Record, Stream
from logroute.router.template import Template
from logroute.router.times import are_times, full_time
from logroute.sinks.columns import woven

Format = Literal["rfc5424", "rfc3164", "local"]
Framing = Literal["octet-counting", "newline"]
StructuredData = dict[str, dict[str, str]]
"""Templates by the names of elements and of their parameters (RFC 5424, 6.3)."""

FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("ntp", "audit", "alert", "clock"),
    *("local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"),
)
"""By their numbers (RFC 5424, table 1)."""

SEVERITIES = {
    "emergency": 0, "emerg": 0, "panic": 0, "alert": 1, "critical": 2, "crit": 2, "fatal": 2,
    "error": 3, "err": 3, "warning": 4, "warn": 4, "notice": 5, "info": 6, "debug": 7, "trace": 7,
}  # fmt: skip
"""Levels of records, as numbers (RFC 5424, table 2)."""
OF_STREAM: dict[Stream, int] = {"stdout": 6, "stderr": 3}
"""The severity of a record without a level."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

NIL = "-"
TRUNCATED = " [truncated]"
"""Ends a message of which a part is missing."""

# RFC 5424, 6: HOSTNAME, APP-NAME, PROCID and MSGID are PRINTUSASCII of these lengths.
_LENGTHS = {"hostname": 255, "app_name": 48, "procid": 128, "msgid": 32}
_NOT_PRINTUSASCII = re.compile(r"[^\x21-\x7e]")
# RFC 3164, 4.1.3: a tag has 32 characters and ends where a colon or a bracket stands.
_TAG_LENGTH = 32
_ENDS_A_TAG = re.compile(r"[:\[\]]")
SHORT_ID = 12
"""As many digits of a container's id as `docker ps` shows."""

_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z")
# TIME-SECFRAC has at most six digits: what stands before the others.
_MICROSECONDS = len("2026-11-23T20:06:26.123456")
_SECONDS = len("2026-11-23T20:06:26")
_RFC3164_TIME = len("Nov 23 20:06:26")

_to_microseconds = itemgetter(slice(_MICROSECONDS))
_without_newline = itemgetter(slice(-1))

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_ESCAPES = {"\n": "#012", "\0": "#000"}
"""What would end a message, written as rsyslog writes it."""
_ENDS_A_LINE = "\n\0"
"""What would end one that ends with a newline (RFC 6587, 3.4.2)."""
_ENDS_A_TEXT = "\0"
"""What would end one that journald reads: the rest it keeps in SYSLOG_RAW only."""


def parse_facility(value: Any) -> int:
    """A facility's number, from its name or its number. Raises PydanticCustomError."""
    if isinstance(value, str):
        if value.lower() in FACILITIES:
            return FACILITIES.index(value.lower())
        if value.isascii() and value.isdecimal() and int(value[:3]) < len(FACILITIES):
            return int(value)
    elif isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(FACILITIES):
        return value
    hint = did_you_mean(value, FACILITIES) if isinstance(value, str) else ""
    raise PydanticCustomError(
        "facility", "expected a facility such as user, daemon or local0, or its number{hint}", {"hint": hint}
    )


Facility = Annotated[
    int,
    BeforeValidator(parse_facility),
    PlainSerializer(lambda number: FACILITIES[number], return_type=str, when_used="json"),
    WithJsonSchema({"enum": [*FACILITIES, *range(len(FACILITIES))]}),
    Named("facility"),
]
"""A facility's number."""


_SD_NAME = re.compile(r"[!#-<>-\\^-~]{1,32}")
SD_VALUE_BYTES = 1024
"""A longer value is cut: headers have to leave room for what is said."""


def check_structured_data(data: StructuredData) -> StructuredData:
    """Raises ValueError where a name cannot be one (RFC 5424, 6.3.2 and 6.3.3), or a template is none."""
    for element, parameters in data.items():
        _check_sd_name(element)
        if "@" not in element and element not in ("timeQuality", "origin", "meta"):
            raise ValueError(
                f'"{element}" needs an enterprise number (RFC 5424, 7.2.2), such as {element}@32473'
            )
        if not parameters:
            raise ValueError(f'"{element}" has no parameter')
        for name, text in parameters.items():
            _check_sd_name(name)
            Template.parse(text)
    return data


def _check_sd_name(name: str) -> None:
    if not _SD_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be a name: up to 32 characters of ASCII, no spaces, =, ] or quotes"
        )


class HeaderTemplates(msgspec.Struct, frozen=True):
    """What the header of each message says; None means what suits the origin."""

    hostname: Template
    app_name: Template | None
    procid: Template | None
    msgid: Template
    structured_data: tuple[tuple[str, tuple[tuple[str, Template], ...]], ...] = ()
    """Elements with their parameters, in order."""

    @classmethod
    def parse(
        cls,
        hostname: str,
        app_name: str | None = None,
        procid: str | None = None,
        msgid: str = "-",
        structured_data: StructuredData | None = None,
    ) -> HeaderTemplates:
        """From texts. Raises TemplateError."""
        return cls(
            Template.parse(hostname),
            Template.parse(app_name) if app_name is not None else None,
            Template.parse(procid) if procid is not None else None,
            Template.parse(msgid),
            tuple(
                (element, tuple((name, Template.parse(text)) for name, text in parameters.items()))
                for element, parameters in (structured_data or {}).items()
            ),
        )


Column = str | list[str]
"""Of a part of each message; a text where it is the same in all."""
Tail = str | Callable[[Record], str]
"""The header behind the time: where a template varies with the record, it has to be made for each."""


class SyslogEncoder:
    """Makes framed messages of batches."""

    def __init__(
        self, format_: Format, framing: Framing, facility: int, templates: HeaderTemplates, max_bytes: int
    ) -> None:
        self.truncated = 0
        """Messages cut to the largest size, so far."""
        self._newline = framing == "newline"
        self._templates = templates
        self._max_bytes = max_bytes
        self._rfc5424 = format_ == "rfc5424"
        self._local = format_ == "local"
        version = "1 " if self._rfc5424 else ""
        self._heads = [f"<{facility * 8 + severity}>{version}" for severity in range(8)]
        self._head_of_stream = {stream: self._heads[severity] for stream, severity in OF_STREAM.items()}
        self._tails: WeakKeyDictionary[Origin, str] = WeakKeyDictionary()

    # A batch is made in columns, woven into one list that is joined. µs of CPU a record, batches of 2,400
    # messages of 150 bytes, as a source gives them (Python 3.11, a machine that decodes them in 0.16):
    #
    #   this                                                        0.33
    #   one f-string a record, its length known before              0.43
    #   the same in pieces of 256 records                           0.46
    #   one f-string for the message, one for the frame             0.60

    def encode(self, batch: Batch) -> bytes:
        """All records of a batch, in order, framed. No text makes it fail."""
        if not len(batch):
            return b""
        if self._newline:
            _, columns = self._columns(batch, _ENDS_A_LINE)
            return _bytes(woven(len(batch), [*columns, "\n"]))
        sizes, columns = self._columns(batch)
        return _bytes(woven(len(batch), _counted(sizes, "", columns)))

    def frames(self, batch: Batch, before: Sequence[Column], between: str, after: str) -> bytes:
        """Likewise; each has texts of its own in front, one before its number of octets, and one behind."""
        sizes, columns = self._columns(batch, end=after)
        return _bytes(woven(len(batch), [*before, *_counted(sizes, between, columns)]))

    def messages(self, batch: Batch) -> list[bytes]:
        """Each record by itself, without a frame."""
        if not len(batch):
            return []
        _, columns = self._columns(batch, _ENDS_A_TEXT if self._local else "")
        count = len(batch)
        whole = [[column] * count if isinstance(column, str) else column for column in columns]
        return ["".join(parts).encode("utf-8", "replace") for parts in zip(*whole, strict=True)]

    def _columns(self, batch: Batch, escape: str = "", end: str = "") -> tuple[_Sizes, list[Column]]:
        """Of each message its octets, and what it is made of, in columns; without what is to be escaped.

        Behind each stands `end`, which is not counted.
        """
        messages, plain = batch.messages, batch.plain
        # A line has its newline still: it may as well be the one that ends a frame.
        ended = batch.newlines and plain and end == "\n" and not escape
        if batch.newlines and not ended:
            messages = list(map(_without_newline, messages))
        heads = self._heads_of(batch, plain=plain)
        times, behind, time_bytes = self._times(batch.times)
        tail = self._tail(batch.origin)
        tails: Column = (
            behind + tail if isinstance(tail, str) else [behind + tail(record) for record in batch.lines]
        )
        if not plain and any(truncated := batch.truncated):
            messages = list(map(add, messages, [TRUNCATED if each else "" for each in truncated]))
        if escape:
            messages = _escaped(messages, escape)
        sizes = _sizes_bytes(heads, times, time_bytes, tails, messages, len(end) if ended else 0)
        if sizes.more + max(sizes.different) > self._max_bytes:
            if ended:
                messages, ended = list(map(_without_newline, messages)), False
            whole = [sizes.more + size for size in sizes.parts]
            messages = [self._cut(*each) for each in zip(messages, whole, strict=True)]
            sizes = _sizes_bytes(heads, times, time_bytes, tails, messages)
        columns = [heads, times, tails, messages]
        return sizes, columns if ended or not end else [*columns, end]

    def _heads_of(self, batch: Batch, *, plain: bool) -> Column:
        """What stands before each time: one text, where nothing tells these records apart."""
        streams = batch.streams
        if plain:
            of_stream = self._head_of_stream
            if streams.count(streams[0]) == len(streams):
                return of_stream[streams[0]]
            return list(map(of_stream.__getitem__, streams))
        of_level = self._heads
        return [
            of_level[SEVERITIES.get(level or "", OF_STREAM[stream])]
            for level, stream in zip(batch.levels, streams, strict=True)
        ]

    def _times(self, times: list[str]) -> tuple[list[str], str, int]:
        """The times as the format has them, what stands behind each, and how long each is (0: it varies)."""
        if self._local:
            return [local_time(time[:_SECONDS]) for time in times], "", _RFC3164_TIME
        if not self._rfc5424:
            return [rfc3164_time(time[:_SECONDS]) for time in times], "", _RFC3164_TIME
        cut = list(map(_to_microseconds, times))
        # Of those whose last zeros are left out, nearly all have as many digits: in few is the end left.
        text, at, longer = "".join(cut), -1, 0
        while (at := text.find("Z", at + 1)) >= 0 and (index := (at + longer) // _MICROSECONDS) < len(cut):
            longer += _MICROSECONDS - len(cut[index])
            cut[index] = full_time(times[index])[:_MICROSECONDS]
        # Looked at together: each alone takes longer than everything else.
        if are_times(cut, _MICROSECONDS):
            return cut, "Z", _MICROSECONDS  # none is longer, so none is shorter
        return [rfc5424_time(time) for time in times], "", 0

    def _cut(self, message: str, size_bytes: int) -> str:
        """A message whose frame has this size, cut to the largest there may be; never half of a character."""
        if size_bytes <= self._max_bytes:
            return message
        self.truncated += 1
        data = message.encode("utf-8", "replace")
        room = max(0, self._max_bytes - (size_bytes - len(data)) - len(TRUNCATED))
        return data[:room].decode("utf-8", "ignore") + TRUNCATED

    # --- headers --------------------------------------------------------------------------------------

    def _tail(self, origin: Origin) -> Tail:
        """What stands between the time and the text of an origin's messages."""
        tail = self._tails.get(origin)
        if tail is not None:
            return tail
        values = [self._value(name, origin) for name in _LENGTHS]
        if self._rfc5424:
            values.append(self._structured_data(origin))
        compose = _rfc5424_tail if self._rfc5424 else _local_tail if self._local else _rfc3164_tail
        constant = [value for value in values if isinstance(value, str)]
        if len(constant) < len(values):
            # Not kept: it knows the origin, and would keep it in turn.
            return lambda record: compose(*[v if isinstance(v, str) else v(record) for v in values])
        self._tails[origin] = tail = compose(*constant)
        return tail

    def _structured_data(self, origin: Origin) -> str | Callable[[Record], str]:
        """Likewise of the elements. A parameter whose value is empty is left out."""
        elements = [
            (element, [(name, template.bind(origin)) for name, template in parameters])
            for element, parameters in self._templates.structured_data
        ]
        most = self._max_bytes // 2

        def render(record: Record | None) -> str:
            whole = ""
            for element, parameters in elements:
                said = ""
                for name, bound in parameters:
                    text = bound.constant
                    if text is None:
                        assert record is not None
                        text = bound.render(record)
                    if text:
                        said += f' {name}="{sd_value(text)}"'
                if said and _size_bytes(whole) + _size_bytes(said) + len(element) + 2 <= most:
                    whole += f"[{element}{said}]"
            return whole or NIL

        if all(bound.constant is not None for _, parameters in elements for _, bound in parameters):
            return render(None)
        return render

    def _value(self, name: str, origin: Origin) -> str | Callable[[Record], str]:
        """The value of one part of the header, or how to make it for a record."""
        template: Template | None = getattr(self._templates, name)
        if template is None:
            return header_value(name, _DEFAULTS[name](origin))
        bound = template.bind(origin)
        if bound.constant is not None:
            return header_value(name, bound.constant)
        return lambda record: header_value(name, bound.render(record))


_DEFAULTS: dict[str, Callable[[Origin], str]] = {
    # A file is known by its name without the folders.
    "app_name": lambda origin: origin.name or origin.file.rpartition("/")[2],
    "procid": lambda origin: origin.id[:SHORT_ID],
}


def header_value(name: str, text: str) -> str:
    """A value as its part of the header may have it (RFC 5424, 6): printable ASCII, no spaces, so long."""
    return _NOT_PRINTUSASCII.sub("_", text)[: _LENGTHS[name]] or NIL


def sd_value(text: str) -> str:
    """A parameter's value (RFC 5424, 6.3.3): what would end it is escaped, and what is long is cut."""
    if len(text) * 4 > SD_VALUE_BYTES:
        text = text.encode("utf-8", "replace")[:SD_VALUE_BYTES].decode("utf-8", "ignore")
    text = _CONTROLS.sub(lambda found: f"#{ord(found[0]):03o}", text)
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def _rfc5424_tail(hostname: str, app_name: str, procid: str, msgid: str, structured_data: str) -> str:
    return f" {hostname} {app_name} {procid} {msgid} {structured_data} "


def _rfc3164_tail(hostname: str, app_name: str, procid: str, _msgid: str) -> str:
    return f" {hostname} {_tag(app_name, procid, _TAG_LENGTH)} "


def _local_tail(_hostname: str, app_name: str, procid: str, _msgid: str) -> str:
    return f" {_tag(app_name, procid, _LENGTHS['app_name'])} "


def _tag(app_name: str, procid: str, length: int) -> str:
    pid = "" if procid == NIL else f"[{_ENDS_A_TAG.sub('_', procid)}]"
    return f"{_ENDS_A_TAG.sub('_', app_name)[:length]}{pid}:"


# --- times and texts ----------------------------------------------------------------------------------


def rfc5424_time(time: str) -> str:
    """A record's time with at most microseconds, or the value that says there is none."""
    return f"{time[:-1][:_MICROSECONDS]}Z" if _RFC3339.fullmatch(time) else NIL


@lru_cache(maxsize=64)
def rfc3164_time(seconds: str) -> str:
    """`Nov 23 20:06:26` (UTC) of an RFC 3339 time up to its seconds; the epoch, if it is none."""
    return _without_year(_utc(seconds))


@lru_cache(maxsize=64)
def local_time(seconds: str) -> str:
    """Likewise in this host's zone, as syslog(3) has it."""
    return _without_year(_utc(seconds).astimezone())


def _utc(seconds: str) -> datetime:
    try:
        return datetime.fromisoformat(seconds).replace(tzinfo=UTC)
    except ValueError:
        return datetime(1970, 1, 1, tzinfo=UTC)


def _without_year(at: datetime) -> str:
    return f"{_MONTHS[at.month - 1]} {at.day:2} {at:%H:%M:%S}"


def _escaped(messages: list[str], characters: str) -> list[str]:
    """Messages of which none ends before its end, at one of these characters."""
    text = "".join(messages)
    for character in characters:
        if character in text:
            messages = [message.replace(character, _ESCAPES[character]) for message in messages]
    return messages


class _Sizes(NamedTuple):
    """Octets of messages."""

    parts: list[int]
    """Of each, less what all of them have."""
    different: set[int]
    """Of these."""
    more: int
    """What all of them have."""


def _counted(sizes: _Sizes, before: str, columns: list[Column]) -> list[Column]:
    """Columns of messages with one in front that tells their octets, between this text and a space."""
    heads, *others = columns
    same = isinstance(heads, str)  # a column less
    counts = {size: f"{before}{sizes.more + size} {heads if same else ''}" for size in sizes.different}
    return [list(map(counts.__getitem__, sizes.parts)), *(others if same else columns)]


def _sizes_bytes(
    heads: Column, times: list[str], time_bytes: int, tails: Column, messages: list[str], less: int = 0
) -> _Sizes:
    """Octets, not characters, of each whole message, less what is not counted.

    Headers are mostly ASCII, and usually equally long.
    """
    ascii_only = "".join(messages).isascii()
    sizes = list(map(len, messages) if ascii_only else map(_size_bytes, messages))
    # Only values of structured data may be anything but ASCII.
    head_sizes, tail_sizes = _different_sizes(heads), _different_sizes(tails)
    if time_bytes and len(head_sizes) == len(tail_sizes) == 1:
        return _Sizes(sizes, set(sizes), head_sizes.pop() + time_bytes + tail_sizes.pop() - less)
    every = [[column] * len(sizes) if isinstance(column, str) else column for column in (heads, times, tails)]
    sizes = [sum(map(_size_bytes, header)) + size for *header, size in zip(*every, sizes, strict=True)]
    return _Sizes(sizes, set(sizes), -less)


def _different_sizes(column: Column) -> set[int]:
    return {_size_bytes(column)} if isinstance(column, str) else set(map(_size_bytes, set(column)))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _size_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
