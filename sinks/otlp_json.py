"""OTLP logs as JSON: the body of `ExportLogsServiceRequest` (OTLP 1.x, "JSON Protobuf Encoding")."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import msgspec

from logroute.router.record import Origin, Record, Stream
from logroute.sinks.columns import BYTES, Plain, as_json, woven
from logroute.sinks.encoding import expressible
from logroute.sinks.epoch import epoch_ns
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

content_type = "application/json"

_json = msgspec.json.Encoder()
_encode = _json.encode


class _Text(msgspec.Struct):
    stringValue: str  # the protocol's name


class _DetailedRecord(msgspec.Struct, omit_defaults=True):
    timeUnixNano: str
    body: _Text
    attributes: list[Any]
    severityNumber: int = 0
    severityText: str = ""


def attribute(name: str, value: Any) -> dict[str, Any]:
    """A KeyValue."""
    return {"key": name, "value": any_value(value)}


def any_value(value: Any) -> dict[str, Any]:
    """An AnyValue of what `value_of` gives."""
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}  # 64 bits are text in JSON
    if isinstance(value, float):
        return {"doubleValue": value if math.isfinite(value) else _NOT_FINITE[str(value)]}
    if isinstance(value, Mapping):
        return {"kvlistValue": {"values": [attribute(key, below) for key, below in value.items()]}}
    return {"arrayValue": {"values": [any_value(item) for item in value]}}


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def resource_logs(
    resource: Attributes, scope: str, version: str, records: Sequence[bytes]
) -> Sequence[bytes]:
    """A ResourceLogs of a request in pieces, of what `plain_records` and `records` give."""
    head = {"attributes": [attribute(name, value_of(value)) for name, value in resource.items()]}
    begin = b'{"resource":%b,"scopeLogs":[{"scope":%b,"logRecords":[' % (
        _encode(head),
        _encode({"name": scope, "version": version}),
    )
    commas = [b","] * (2 * len(records) - 1)
    commas[0::2] = records
    return [begin, *commas, b"]}]}"]


def request(resources: Sequence[Sequence[bytes]]) -> bytes:
    """The whole of what `resource_logs` gives for each origin."""
    first, *others = resources
    more = chain.from_iterable([b",", *each] for each in others)
    return b"".join([b'{"resourceLogs":[', *first, *more, b"]}"])


_STREAMS: dict[Stream, msgspec.Raw] = {
    "stdout": msgspec.Raw(_encode(attribute(STREAM, "stdout"))),
    "stderr": msgspec.Raw(_encode(attribute(STREAM, "stderr"))),
}


def plain_records(prefix: Mapping[Stream, str], columns: Plain) -> bytes:
    """LogRecords of which nothing else is known, column by column. Raises UnicodeEncodeError."""
    behind = {
        stream: (
            b'"},"attributes":[%b,{"key":%b,"value":{"stringValue":%b'
            % (_STREAMS[stream], _encode(UID), _encode(before)[:-1])
        ).decode(BYTES)
        for stream, before in prefix.items()
    }
    parts: list[str | list[str]] = ['{"timeUnixNano":"', epoch_ns(columns.times), '","body":{"stringValue":']
    parts += [columns.texts(), [*map(behind.__getitem__, columns.streams)], columns.times, '"}}]},']
    return woven(len(columns.times), parts)[:-1].encode(BYTES)


def detailed_records(columns: Detailed) -> bytes:
    """LogRecords of which more is known, column by column. Raises UnicodeEncodeError."""
    known, count = columns.known, len(columns.times)
    behind = {
        stream: (b'"},"attributes":[%b,{"key":%b,"value":{"stringValue":' % (raw, _encode(UID))).decode(BYTES)
        for stream, raw in _STREAMS.items()
    }
    ends = {level: _end(level) for level in {*known.levels}}
    parts: list[Piece] = ['{"timeUnixNano":"', epoch_ns(columns.times), '","body":{"stringValue":']
    parts += [columns.texts(), [*map(behind.__getitem__, columns.streams)], as_json(columns.ids), "}}"]
    parts.append(attributes_texts(known, count, _column, _attributes_text))
    parts.append([ends[level] for level in known.levels])
    return woven(count, parts)[:-1].encode(BYTES)


def _end(level: str | None) -> str:
    """What stands behind the attributes, to the comma between two records."""
    number = f',"severityNumber":{severity(level)}' if severity(level) else ""
    text = f',"severityText":{_encode(expressible(level)).decode(BYTES)}' if level else ""
    return f"]{number}{text}}},"


def _column(name: str, values: Sequence[Any]) -> Sequence[Piece]:
    """Attributes of one name."""
    name = value_of(name)
    begin = f',{{"key":{_encode(name).decode(BYTES)},"value":'
    kind = simple_type(values)
    if kind is not None and (kind is not float or all(map(math.isfinite, values))):
        before, behind = _SIMPLE[kind]
        with suppress(UnicodeEncodeError):
            return [begin + before, as_json(values), behind + "}"]
    return [begin, [_encode(any_value(value_of(value))).decode(BYTES) for value in values], "}"]


_SIMPLE = {
    str: ('{"stringValue":', "}"),
    int: ('{"intValue":"', '"}'),
    float: ('{"doubleValue":', "}"),
    bool: ('{"boolValue":', "}"),
}


def _attributes_text(attributes: Attributes) -> str:
    """Those of one record, each behind a comma."""
    made = [_encode(attribute(value_of(name), value_of(value))) for name, value in attributes.items()]
    return "".join([f",{each.decode(BYTES)}" for each in made])


def records(origin: Origin, given: Sequence[Record], times_ns: Sequence[str]) -> bytes:
    """Any LogRecords; the slower way. Never raises."""
    return _encode(
        [
            _DetailedRecord(
                time,
                _Text(expressible(record.message)),
                [
                    _STREAMS[record.stream],
                    attribute(UID, expressible(origin.record_id(record))),
                    *(attribute(value_of(k), value_of(v)) for k, v in attributes_of(record).items()),
                ],
                severity(record.level),
                expressible(record.level or ""),
            )
            for record, time in zip(given, times_ns, strict=True)
        ]
    )[1:-1]
