"""GELF messages, chunks of datagrams, and GELF over HTTP (Graylog, "GELF Payload Specification", 1.1).

A message is an object of JSON; what goes beyond the specification's fields begins with `_`.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, count
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import msgspec
from pydantic import Field

from logroute.config.components import Options
from logroute.router.json_text import nested_text
from logroute.router.paths import image_reference
from logroute.router.record import STREAMS, Origin, Record, Stream
from logroute.sinks.columns import BYTES, as_json, woven
from logroute.sinks.encoding import expressible
from logroute.sinks.epoch import epoch_seconds
from logroute.sinks.field_columns import Detailed, Piece, detailed, fields_texts
from logroute.sinks.http_encoding import Encoding, Share
from logroute.sinks.syslog_message import OF_STREAM, SEVERITIES

if TYPE_CHECKING:
    from logroute.router.record import Batch

Compress = Literal["none", "gzip", "zlib"]
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "gzip": lambda data: zlib.compress(data, 1, zlib.MAX_WBITS | 16),
    "zlib": lambda data: zlib.compress(data, 1),
}

MAGIC = b"\x1e\x0f"
HEADER_BYTES = 12
"""Of a chunk: magic, id of the message, number, how many there are."""
MOST_CHUNKS = 128

_REQUIRED = ("version", "host", "short_message", "timestamp", "level", "_record_id", "_container_id")
"""What stays of a message of which the rest is too large."""
EMPTY = "-"
"""In the place of a message without anything to see: `short_message` must not be blank."""
TRUNCATED = " [truncated]"

_NOT_IN_NAMES = re.compile(r"[^\w.\-]", re.ASCII)

_OURS = {
    *("_record_id", "_stream", "_level_name", "_truncated", "_error", "_container_id", "_container_name"),
    *("_image_name", "_runtime", "_file"),
}
# Graylog takes the underscore off. Then it leaves out what it has of a message already (GelfCodec.java), and
# names of Elasticsearch's, and in the end it writes `streams` itself (Message.java).
_GRAYLOGS = {
    *("_host", "_short_message", "_message", "_source", "_timestamp", "_level"),
    *("__id", "__ttl", "__source", "__all", "__index", "__type", "__score"),
    "_streams",
}
_TAKEN = {"_id", *_OURS, *_GRAYLOGS}  # the specification forbids `_id`
"""What a record's own field must not be called: it becomes `_fields_NAME`."""
_TAKEN_BEGINNINGS = ("_label_", "_compose_", "_swarm_", "_kubernetes_", "_gl2_")
"""Likewise whatever begins so; the last is what Graylog notes about a message."""

_json = msgspec.json.Encoder()


class _Message(msgspec.Struct, gc=False):
    short_message: str
    timestamp: msgspec.Raw
    constant: msgspec.Raw = msgspec.field(name="_record_id")
    """The stable id, and what is constant for the origin and the stream behind it."""


class GelfMessages:
    """Makes messages of batches."""

    def __init__(self) -> None:
        self._constants: WeakKeyDictionary[Origin, dict[Stream, bytes]] = WeakKeyDictionary()

    def encode(self, batch: Batch) -> list[bytes]:
        """A message for each record, none with a newline or NUL. No text makes it fail."""
        if (columns := detailed(batch)) is not None:
            with suppress(UnicodeEncodeError):
                return self._in_columns(batch.origin, columns)
        records, origin = batch.records, batch.origin
        if not records:
            return []
        constants = self._constants_of(origin)
        times = epoch_seconds([record.time for record in records])
        made = [
            _Message(
                record.message if record.message and not record.message.isspace() else EMPTY,
                msgspec.Raw(time.encode()),
                msgspec.Raw(
                    _json.encode(expressible(origin.record_id(record))) + self._behind(record, constants)
                ),
            )
            for record, time in zip(records, times, strict=True)
        ]
        try:
            lines = _json.encode_lines(made)
        except UnicodeEncodeError:  # half of a surrogate pair
            for each in made:
                each.short_message = expressible(each.short_message)
            lines = _json.encode_lines(made)
        return lines.split(b"\n")[:-1]

    def _in_columns(self, origin: Origin, columns: Detailed) -> list[bytes]:
        """The same, column by column. Raises UnicodeEncodeError."""
        known, constants = columns.known, self._constants_of(origin)
        kinds = [*zip(columns.streams, known.levels, strict=True)]
        levels = {kind: _level(*kind, constants).decode(BYTES) for kind in {*kinds}}
        messages = [text if text and not text.isspace() else EMPTY for text in columns.messages]
        parts: list[Piece] = ['{"short_message":', as_json(messages), ',"timestamp":']
        parts += [epoch_seconds(columns.times), ',"_record_id":', as_json(columns.ids)]
        parts.append([levels[kind] for kind in kinds])
        if known.truncated:
            parts.append([_TRUNCATED if each else "" for each in known.truncated])
        if known.errors:
            parts.append([_as_more({"_error": each}) if each else "" for each in known.errors])
        if known.fields:
            parts.append(fields_texts(_flat(known.fields), _are_apart, _field_column, _fields_text))
        return woven(len(kinds), [*parts, "}\n"]).encode(BYTES).split(b"\n")[:-1]

    def _behind(self, record: Record, constants: Mapping[Stream, bytes]) -> bytes:
        level = _level(record.stream, record.level, constants)
        if type(record) is Record:
            return level
        more = _TRUNCATED if record.truncated else ""
        if record.error:
            more += _as_more({"_error": expressible(record.error)})
        return level + (more + _fields_text(record.fields or {})).encode(BYTES)

    def _constants_of(self, origin: Origin) -> dict[Stream, bytes]:
        found = self._constants.get(origin)
        if found is None:
            values: dict[str, Any] = {
                "version": "1.1",
                "host": expressible(origin.host or origin.name) or EMPTY,
                "_container_id": origin.id,
                "_container_name": origin.name,
                "_image_name": image_reference(origin),
                "_runtime": origin.runtime,
                "_file": origin.file,
            }
            for group in ("compose", "swarm", "kubernetes"):
                values |= {f"_{group}_{key}": value for key, value in getattr(origin, group).items()}
            labels = {f"label_{key}": value for key, value in origin.labels.items()}
            values |= _additional(labels, _additional_name)
            known = {
                name: expressible(value) if isinstance(value, str) else value
                for name, value in values.items()
                if value not in (None, "")
            }
            found = {stream: b"," + _json.encode({**known, "_stream": stream})[1:-1] for stream in STREAMS}
            self._constants[origin] = found
        return found


_TRUNCATED = ',"_truncated":"true"'


def _level(stream: Stream, level: str | None, constants: Mapping[Stream, bytes]) -> bytes:
    """What stands there of a level, and what is constant behind its number."""
    number = SEVERITIES.get(level or "", OF_STREAM[stream])
    name = _as_more({"_level_name": expressible(level)}) if level else ""
    return b',"level":%d%b%b' % (number, constants[stream], name.encode(BYTES))


def _as_more(values: Mapping[str, Any]) -> str:
    """More of a message, behind a comma, as text of bytes."""
    return f",{_json.encode(values)[1:-1].decode(BYTES)}" if values else ""


# --- fields -------------------------------------------------------------------------------------------


def _fields_text(fields: Mapping[Any, Any]) -> str:
    """What stands there of one record's own fields."""
    return _as_more(_additional(fields, _field_name))


def _field_column(key: str, values: Sequence[Any]) -> Sequence[Piece]:
    """The same of one of many records' fields, of which none is nested."""
    begin = f',"{_field_name(key)}":'
    if {*map(type, values)} <= {str, int, float}:
        with suppress(UnicodeEncodeError):
            return [begin, as_json(values)]
    return [
        ["" if value is None else begin + _json.encode(_flat_value(value)).decode(BYTES) for value in values]
    ]


def _are_apart(keys: Sequence[str]) -> bool:
    return len({*map(_field_name, keys)}) == len(keys)


def _flat(fields: Sequence[Any]) -> Sequence[Any]:
    """Fields of which none is nested, if there were such."""
    kinds = {*map(type, chain.from_iterable([each.values() for each in fields if each]))}
    if not any(issubclass(kind, Mapping) for kind in kinds):
        return fields
    return [dict(_dotted(each)) if each else None for each in fields]


def _dotted(values: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """What there is, the nested by dotted names."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{above}{key}.")
        elif value is not None:
            yield f"{above}{key}", value


def _additional(values: Mapping[str, Any], name_of: Callable[[str], str]) -> dict[str, str | int | float]:
    """Additional fields: nested ones by their dotted names, values as numbers or text."""
    return {name_of(key): _flat_value(value) for key, value in _dotted(values)}


def _flat_value(value: Any) -> str | int | float:
    if isinstance(value, str):
        return expressible(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return nested_text(value)


def _additional_name(key: str) -> str:
    return "_" + _NOT_IN_NAMES.sub("_", key)


def _field_name(key: str) -> str:
    """The name of a record's own field, under which Graylog keeps it beside everything else."""
    name = _additional_name(key)
    stored = name.replace(".", "_")  # as Graylog does, where one that has no dots wins
    taken = stored in _TAKEN or stored.startswith(_TAKEN_BEGINNINGS)
    return f"_fields{name}" if taken else name


# --- datagrams ----------------------------------------------------------------------------------------


class Chunker:
    """Makes datagrams of messages."""

    def __init__(self, compress: Compress, datagram_bytes: int) -> None:
        self.truncated = 0
        """Messages cut because 128 chunks do not hold them."""
        self.datagram_bytes = datagram_bytes
        self._compress = COMPRESSORS[compress]
        # Ids of messages differ, also between two senders that a receiver may take for one.
        self._run = int.from_bytes(os.urandom(8), "big")
        self._numbers = count()

    @property
    def max_bytes(self) -> int:
        """What a message can have at most, compressed."""
        return MOST_CHUNKS * (self.datagram_bytes - HEADER_BYTES)

    def datagrams(self, message: bytes) -> list[bytes]:
        """One message as one datagram, or as chunks."""
        data = self._compress(message)
        if len(data) > self.max_bytes:
            data = self._compress(self._cut(message))
        if len(data) <= self.datagram_bytes:
            return [data]
        size = self.datagram_bytes - HEADER_BYTES
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        number = (self._run + next(self._numbers)) & (1 << 64) - 1
        head = MAGIC + number.to_bytes(8, "big")
        return [head + bytes((index, len(pieces))) + piece for index, piece in enumerate(pieces)]

    def _cut(self, message: bytes) -> bytes:
        """The message with as much of its text as fits, whatever compressing makes of it."""
        self.truncated += 1
        fields = msgspec.json.decode(message)
        text: str = fields["short_message"]
        fields["short_message"] = ""
        # Escaped, a character may take six bytes; compressed, what cannot be made smaller grows by some.
        room = self.max_bytes - len(_json.encode(fields)) - len(TRUNCATED) - 1024
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            if len(_json.encode(text[:middle])) <= room:
                low = middle
            else:
                high = middle - 1
        fields["short_message"] = text[:low] + TRUNCATED
        if room < 0:  # labels or fields alone are too large
            fields = {name: fields[name] for name in _REQUIRED if name in fields}
        return _json.encode(fields)


# --- HTTP ---------------------------------------------------------------------------------------------


class GelfHttpOptions(Options):
    """GELF over HTTP."""

    bulk: bool = Field(default=False)
    """Send a delivery in one request, a line for each message. The input must have "bulk receiving" enabled:
    without, it takes the first and forgets the others."""


class GelfEncoding(Encoding):
    """A request for each message, or lines of them."""

    content_type = "application/json"
    path = "/gelf"

    def __init__(self, options: GelfHttpOptions) -> None:
        self._messages = GelfMessages()
        self._bulk = options.bulk
        # So many follow one another within a delivery's deadline, also where each takes long.
        self.batch_records = None if options.bulk else 200

    def encode(self, batches: Sequence[Batch]) -> bytes:
        return b"".join([line + b"\n" for batch in batches for line in self._messages.encode(batch)])

    def shares(self, batches: Sequence[Batch]) -> Sequence[Share]:
        if self._bulk:
            return super().shares(batches)
        return [
            Share([batch.with_records([record])], [index])
            for index, batch in enumerate(batches)
            for record in batch.records
        ]
