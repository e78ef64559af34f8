"""OTLP logs as protobuf: the body of `ExportLogsServiceRequest` (opentelemetry/proto/logs/v1/logs.proto).

Our own encoder for these few messages: the library makes six objects of every record, at 2.6 µs for each;
this weaves columns, at 0.5. The tests read all that it makes with the library.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

from logroute.router.record import Origin, Record, Stream
from logroute.router.times import TIME_LENGTH
from logroute.sinks.columns import BYTES, Plain, pieces, woven
from logroute.sinks.epoch import packed_ns
from logroute.sinks.field_columns import Detailed, Piece
from logroute.sinks.otlp_attributes import (
    STREAM,
    UID,
    Attributes,
    attributes_of,
    attributes_texts,
    severity,
    simple_type,
    value_of,
)

content_type = "application/x-protobuf"

# Tags: number of the field << 3 | wire type (0 varint, 1 fixed64, 2 length-delimited).
# ExportLogsServiceRequest, ResourceLogs, ScopeLogs
_RESOURCE_LOGS, _RESOURCE, _SCOPE_LOGS, _SCOPE, _LOG_RECORD = b"\x0a", b"\x0a", b"\x12", b"\x0a", b"\x12"
# LogRecord
_TIME, _SEVERITY_NUMBER, _SEVERITY_TEXT, _BODY, _ATTRIBUTE = b"\x09", b"\x10", b"\x1a", b"\x2a", b"\x32"
# KeyValue, KeyValueList, ArrayValue, InstrumentationScope, Resource
_KEY, _VALUE, _VALUES, _NAME, _VERSION, _RESOURCE_ATTRIBUTE = (
    b"\x0a",
    b"\x12",
    b"\x0a",
    b"\x0a",
    b"\x12",
    b"\x0a",
)
# AnyValue
_STRING, _BOOL, _INT, _DOUBLE, _ARRAY, _KEY_VALUES = b"\x0a", b"\x10", b"\x18", b"\x21", b"\x2a", b"\x32"

_fixed64 = struct.Struct("<Q").pack
_double = struct.Struct("<d").pack


def varint(number: int) -> bytes:
    """An unsigned number, seven bits a byte, the lowest first."""
    if number < 0x80:
        return bytes((number,))
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def delimited(tag: bytes, content: bytes) -> bytes:
    """A field with its length before it."""
    return tag + varint(len(content)) + content


def text(tag: bytes, value: str) -> bytes:
    return delimited(tag, value.encode("utf-8", "replace"))


def any_value(value: Any) -> bytes:
    """An AnyValue of what `value_of` gives."""
    if value is None:
        return b""
    if isinstance(value, bool):
        return _BOOL + varint(value)
    if isinstance(value, str):
        return text(_STRING, value)
    if isinstance(value, int):
        return _INT + varint(value & (1 << 64) - 1)
    if isinstance(value, float):
        return _DOUBLE + _double(value)
    if isinstance(value, Mapping):
        return delimited(
            _KEY_VALUES, b"".join([attribute(_VALUES, key, below) for key, below in value.items()])
        )
    return delimited(_ARRAY, b"".join([delimited(_VALUES, any_value(item)) for item in value]))


def attribute(tag: bytes, name: str, value: Any) -> bytes:
    """A KeyValue."""
    return delimited(tag, text(_KEY, name) + delimited(_VALUE, any_value(value)))


def resource_logs(
    resource: Attributes, scope: str, version: str, records: Sequence[bytes]
) -> Sequence[bytes]:
    """A ResourceLogs of a request in pieces, of what `plain_records` and `records` give.

    Lengths are added up and nothing is joined: a megabyte would be copied at each level.
    """
    head = b"".join(
        [attribute(_RESOURCE_ATTRIBUTE, value_of(name), value_of(value)) for name, value in resource.items()]
    )
    described = delimited(_RESOURCE, head)
    named = delimited(_SCOPE, text(_NAME, scope) + text(_VERSION, version))
    size = len(named) + sum(map(len, records))
    scope_logs = _SCOPE_LOGS + varint(size)
    size += len(described) + len(scope_logs)
    return [b"".join([_RESOURCE_LOGS, varint(size), described, scope_logs, named]), *records]


def request(resources: Sequence[Sequence[bytes]]) -> bytes:
    """The whole of what `resource_logs` gives for each origin."""
    return b"".join(chain.from_iterable(resources))


_STREAMS: dict[Stream, bytes] = {
    "stdout": attribute(_ATTRIBUTE, STREAM, "stdout"),
    "stderr": attribute(_ATTRIBUTE, STREAM, "stderr"),
}


def plain_records(prefix: Mapping[Stream, str], columns: Plain) -> bytes:
    """LogRecords of which nothing else is known, column by column, woven. Raises UnicodeEncodeError.

    Around a time, a message and an id stand only lengths. Those of streams and ids are the same in all of
    them, so they follow from the message's.
    """
    times, texts = columns.times, columns.bare()
    before_id = {stream: _before_id(stream, before) for stream, before in prefix.items()}
    behind_bytes = len(next(iter(before_id.values()))) + TIME_LENGTH
    sizes = list(map(len, texts))
    alike = {size: _before(size, behind_bytes) for size in set(sizes)}
    before_time, before_message = zip(*[alike[size] for size in sizes], strict=True)
    parts: list[Piece] = [
        before_time,
        pieces(packed_ns(times), 8),
        before_message,
        texts,
        [*map(before_id.__getitem__, columns.streams)],
        times,
    ]
    return woven(len(times), parts).encode(BYTES)


def _before(message: int, behind: int) -> tuple[str, str]:
    """What stands before the time, and before the message, by the lengths of that and of what is behind."""
    before_message = _STRING + varint(message)
    body = _BODY + varint(len(before_message) + message) + before_message
    size = len(_TIME) + 8 + len(body) + message + behind
    return (_LOG_RECORD + varint(size) + _TIME).decode(BYTES), body.decode(BYTES)


def _before_id(stream: Stream, prefix: str) -> str:
    """What stands between a message and the time that ends its id."""
    begins = prefix.encode()
    string = _STRING + varint(len(begins) + TIME_LENGTH) + begins
    return _STREAMS[stream].decode(BYTES) + _before_value(UID, string, TIME_LENGTH)


def _before_value(name: str, begins: bytes, more: int) -> str:
    """What stands of an attribute before its value, and how that begins; so many bytes of it are behind."""
    value = _VALUE + varint(len(begins) + more) + begins
    key = text(_KEY, name)
    return (_ATTRIBUTE + varint(len(key) + len(value) + more) + key + value).decode(BYTES)


def detailed_records(columns: Detailed) -> bytes:
    """LogRecords of which more is known, column by column. Raises UnicodeEncodeError."""
    known, texts, count = columns.known, columns.bare(), len(columns.times)
    levels = {level: _severity(level).decode(BYTES) for level in {*known.levels}}
    streams = {stream: made.decode(BYTES) for stream, made in _STREAMS.items()}
    behind_time = [
        [levels[level] for level in known.levels],
        [*map({size: _before_body(size) for size in {*map(len, texts)}}.__getitem__, map(len, texts))],
        texts,
        [*map(streams.__getitem__, columns.streams)],
        *_texts_column(UID, columns.ids),
        attributes_texts(known, count, _column, _attributes_text),
    ]
    # Joined first, because their length stands before the time.
    behind = [*map("".join, zip(*behind_time, strict=True))]
    sizes = [*map(len, behind)]
    before = {size: _LOG_RECORD + varint(len(_TIME) + 8 + size) + _TIME for size in {*sizes}}
    begins = {size: each.decode(BYTES) for size, each in before.items()}
    parts: list[Piece] = [[begins[size] for size in sizes], pieces(packed_ns(columns.times), 8), behind]
    return woven(count, parts).encode(BYTES)


def _before_body(size: int) -> str:
    string = _STRING + varint(size)
    return (_BODY + varint(len(string) + size) + string).decode(BYTES)


def _column(name: str, values: Sequence[Any]) -> Sequence[Piece]:
    """Attributes of one name."""
    name = value_of(name)
    kind = simple_type(values)
    if kind is str:
        with suppress(UnicodeEncodeError):
            return _texts_column(name, values)
    if kind is float:
        return [_before_value(name, _DOUBLE, 8), pieces(struct.pack(f"<{len(values)}d", *values), 8)]
    if kind in (int, bool):
        begins = _BOOL if kind is bool else _INT
        made = {value: varint(value & (1 << 64) - 1).decode(BYTES) for value in {*values}}
        before = {size: _before_value(name, begins, size) for size in {*map(len, made.values())}}
        numbers = [made[value] for value in values]
        return [[before[len(number)] for number in numbers], numbers]
    return [[attribute(_ATTRIBUTE, name, value_of(value)).decode(BYTES) for value in values]]


def _texts_column(name: str, values: Sequence[str]) -> Sequence[Sequence[str]]:
    """Attributes that are texts. Raises UnicodeEncodeError."""
    if not "".join(values).isascii():
        values = [value.encode().decode(BYTES) for value in values]
    sizes = [*map(len, values)]
    before = {size: _before_value(name, _STRING + varint(size), size) for size in {*sizes}}
    return [[before[size] for size in sizes], values]


def _attributes_text(attributes: Attributes) -> str:
    """Those of one record."""
    return _attributes(attributes).decode(BYTES)


def _attributes(attributes: Attributes) -> bytes:
    return b"".join(
        [attribute(_ATTRIBUTE, value_of(name), value_of(value)) for name, value in attributes.items()]
    )


def _severity(level: str | None) -> bytes:
    """Its number and its text, as far as there are some."""
    number = severity(level)
    return (_SEVERITY_NUMBER + varint(number) if number else b"") + (
        text(_SEVERITY_TEXT, level) if level else b""
    )


def records(origin: Origin, given: Sequence[Record], times_ns: Sequence[str]) -> bytes:
    """Any LogRecords; the slower way. Never raises."""
    return b"".join(
        [
            delimited(_LOG_RECORD, _record(origin, record, time))
            for record, time in zip(given, times_ns, strict=True)
        ]
    )


def _record(origin: Origin, record: Record, time_ns: str) -> bytes:
    return b"".join(
        [
            *(_TIME, _fixed64(int(time_ns))),
            _severity(record.level),
            delimited(_BODY, text(_STRING, record.message)),
            _STREAMS[record.stream],
            attribute(_ATTRIBUTE, UID, origin.record_id(record)),
            _attributes(attributes_of(record)),
        ]
    )


# --- answers ------------------------------------------------------------------------------------------


def fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """The fields of a message by their numbers: varints and fixed ones as numbers, the others as bytes.

    Raises ValueError where it is none.
    """
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(data):
        tag, at = _varint_at(data, at)
        number, kind = tag >> 3, tag & 7
        if number == 0 or kind not in (0, 1, 2, 5):
            raise ValueError("its body is no protobuf")
        if kind == 0:
            value, at = _varint_at(data, at)
            found.append((number, value))
            continue
        size = {1: 8, 5: 4}.get(kind, 0)
        if kind == 2:
            size, at = _varint_at(data, at)
        if at + size > len(data):
            raise ValueError("its body is no protobuf, or cut short")
        piece = data[at : at + size]
        found.append((number, piece if kind == 2 else int.from_bytes(piece, "little")))
        at += size
    return found


def _varint_at(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number & (1 << 64) - 1, at
    raise ValueError("its body is no protobuf, or cut short")
