"""Encodings of records for sinks that write text: json, raw, text, logfmt, or a template.

Each takes a batch and gives UTF-8, every record ended by one newline. A message with newlines
of its own stays one line in json and logfmt, which escape them; raw, text and templates write it as it is.
No text makes an encoding fail: what UTF-8 cannot express (half of a surrogate pair) becomes `?`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from logroute.router.json_text import nested_text
from logroute.router.paths import image_reference
from logroute.router.record import Batch, Origin, Record, Stream, all_plain
from logroute.router.template import BoundTemplate, Escape, Template
from logroute.router.times import COARSE
from logroute.sinks.columns import BYTES, Plain, plain, woven

Encoder = Callable[[Batch], bytes]
"""All records of a batch, in order, each ending with a newline."""

RecordsEncoder = Callable[[Origin, Sequence[Record]], bytes]


def encoder(format_: str, escape: Escape = str) -> Encoder:
    """The encoder of a format, or of a template: a text with a placeholder. Raises ValueError.

    `escape` treats every value in a template.
    """
    if format_ == "raw":
        return _encode_raw_batch
    if format_ == "json":
        return _encode_json_batch
    encode = _records_encoder(format_, escape)
    return lambda batch: encode(batch.origin, batch.records)


def _records_encoder(format_: str, escape: Escape = str) -> RecordsEncoder:
    if format_ in _ENCODERS:
        return _ENCODERS[format_]
    if "{" not in format_:
        raise ValueError(
            f"unknown format {format_!r}: {', '.join(FORMATS)}, or a template such as "
            "'{time} {container.name} {message}'"
        )
    return _template_encoder(Template.parse(format_), escape)


def display_name(origin: Origin) -> str:
    """What people call an origin: the container's name, or the file's path."""
    return origin.name or origin.file or origin.id[:12]


def record_texts(format_: str) -> Callable[[Batch], list[str]]:
    """The text of each record of a batch in a format, or by a template. Raises ValueError."""
    if format_ in ("json", "logfmt"):  # which write one line for each record
        whole = encoder(format_)
        return lambda batch: whole(batch).decode().split("\n")[:-1]
    encode = _records_encoder(format_)
    return lambda batch: [encode(batch.origin, [record])[:-1].decode() for record in batch.records]


def expressible(text: str) -> str:
    """What UTF-8 can express of a text."""
    return text.encode("utf-8", "replace").decode()


# --- json ---------------------------------------------------------------------------------------------
#
# What is constant for the origin is encoded once and copied as it is; it stands behind the stream, so that
# the keys come in the documented order. µs of CPU a record, batches of 4,000 with messages of 150 bytes
# (lines of 700), the least of 150 on a machine on which escaping the messages alone takes 0.07 and copying
# the bytes 0.08 (Python 3.11, msgspec 0.22; the ways took turns):
#
#   columns of texts, woven as text of bytes, as plain records are (in another run)    0.38
#   the whole batch checked, structs by one comprehension, encoded by one call         0.44
#   the same in pieces of 256 records, joined                                          0.45
#   constructors driven by map()                                                       0.47
#   a loop that looks at each record and appends                                       0.50
#   messages encoded by one call, lines formatted as str, joined, encoded              0.53 (4 if not ASCII)
#   the same with bytes and `%`                                                        0.64
#   the pieces of all lines in one list of bytes, joined                               0.73


class _Event(msgspec.Struct, gc=False, omit_defaults=True):
    id: str
    created: str = ""
    """The engine's time, where the record's own is another."""


class _Line(msgspec.Struct, gc=False):
    time: str = msgspec.field(name="@timestamp")
    message: str
    stream: msgspec.Raw
    """The stream's name, what only a detailed record has, and the origin's constant part."""
    event: _Event


OWN_KEYS = frozenset(
    (
        *("@timestamp", "message", "stream", "log", "fields", "error", "container", "host", "event"),
        *("compose", "swarm", "kubernetes"),
    )
)
"""What the root of a record's JSON has of its own; a field of such a name stays below `fields`."""

_json = msgspec.json.Encoder(enc_hook=str)
_encode_lines = _json.encode_lines
_encode = _json.encode
_decode = msgspec.json.Decoder().decode


def _encode_json_batch(batch: Batch) -> bytes:
    if (columns := plain(batch)) is not None:
        try:
            return woven(len(batch), plain_json(batch.origin, columns)).encode(BYTES)
        except UnicodeEncodeError:  # half of a surrogate pair
            pass
    return encode_lines(json_lines(batch))


def plain_json(origin: Origin, columns: Plain) -> list[str | list[str]]:
    """Records as JSON, a line each, to be woven. Raises UnicodeEncodeError."""
    between = {
        stream: (b'","stream":%b,"event":{"id":%b' % (behind, id_begins(origin, stream))).decode(BYTES)
        for stream, behind in _streams(origin).items()
    }
    times, behind = columns.times, [between[stream] for stream in columns.streams]
    return ['{"@timestamp":"', times, '","message":', columns.texts(), behind, times, '"}}\n']


def id_begins(origin: Origin, stream: Stream) -> bytes:
    """What stands before the time in the stable id of a plain record, as JSON."""
    return _encode(origin.id_prefix[stream])[:-1]


def json_lines(batch: Batch) -> list[_Line]:
    """What is encoded of each record; its `event.id` is the stable id. For any records, or few."""
    times = batch.plain_times() if batch.newlines else None
    if times is None:
        return _lines(batch.origin, batch.records)
    # Lines as the source gave them become what is encoded in one step.
    streams = {stream: msgspec.Raw(behind) for stream, behind in _streams(batch.origin).items()}
    prefix = batch.origin.id_prefix
    return [
        _Line(time, r.message[:-1], streams[r.stream], _Event(prefix[r.stream] + time))
        for r, time in zip(batch.lines, times, strict=True)
    ]


def encode_lines(lines: Sequence[_Line]) -> bytes:
    """As JSON, a line each. What UTF-8 cannot express becomes `?`."""
    try:
        return _encode_lines(lines)
    except UnicodeEncodeError:
        return _encode_lines(without_surrogates(lines))


def without_surrogates(lines: Sequence[_Line]) -> list[_Line]:
    """The same, with nothing in them that UTF-8 cannot express."""
    return [
        _Line(
            _encodable(line.time),
            _encodable(line.message),
            line.stream,
            _Event(_encodable(line.event.id), line.event.created),
        )
        for line in lines
    ]


def _streams(origin: Origin) -> dict[Stream, bytes]:
    """What stands behind `"stream":`. Made anew each time: kept, it is a kilobyte a container."""
    constant = origin.json
    behind = b"," + constant if constant else b""
    return {"stdout": b'"stdout"' + behind, "stderr": b'"stderr"' + behind}


def encode_json(origin: Origin, records: Sequence[Record]) -> bytes:
    return encode_lines(_lines(origin, records))


def _lines(origin: Origin, records: Sequence[Record]) -> list[_Line]:
    streams = {stream: msgspec.Raw(behind) for stream, behind in _streams(origin).items()}
    prefix = origin.id_prefix
    if _all_plain(records):
        return [
            _Line(r.time, r.message, streams[r.stream], _Event(prefix[r.stream] + r.time)) for r in records
        ]
    constant = _Constant.of(origin)
    try:
        return [_line(origin, record, streams, constant) for record in records]
    except UnicodeEncodeError:
        return [_line(origin, _encodable(record), streams, constant) for record in records]


class _Constant(msgspec.Struct, frozen=True):
    """The origin's constant part, and the same without the object `log`, of which some records say more."""

    whole: bytes
    log: dict[str, Any]
    others: bytes

    @classmethod
    def of(cls, origin: Origin) -> _Constant:
        whole = origin.json
        if not origin.file:
            return cls(whole, {}, whole)
        values = _decode(b"{%b}" % whole)
        return cls(whole, values.pop("log"), _encode(values)[1:-1])


def _all_plain(records: Sequence[Record]) -> bool:
    """Whether no record has details and every id is only a prefix and the time: asked once per batch."""
    if len(records) == 1:  # many containers that say little: the whole call takes 2 µs, not 3
        return type(records[0]) is Record and not records[0].time.endswith(COARSE)
    return all_plain(records) and COARSE not in "".join([record.time for record in records])


def _line(origin: Origin, record: Record, streams: dict[Stream, msgspec.Raw], constant: _Constant) -> _Line:
    """Any record's line; the slower way."""
    stream = streams[record.stream]
    if record.level or record.truncated or record.fields or record.error:
        stream = _details(record, constant)
    return _Line(record.time, record.message, stream, _Event(origin.record_id(record), record.logged))


def _details(record: Record, constant: _Constant) -> msgspec.Raw:
    """`_Line.stream` of a record that has more than its line."""
    log: dict[str, Any] = {}
    if record.level:
        log["level"] = record.level
    if record.truncated:
        log["truncated"] = True
    parts = [f'"{record.stream}"'.encode()]
    behind = constant.whole
    if log:
        # The constant part says `log` as well: they become one object.
        parts.append(b'"log":' + _encode(log | constant.log))
        behind = constant.others
    if record.fields:
        fields = record.fields
        if record.at_root:
            own = {key: value for key, value in fields.items() if key in OWN_KEYS}
            fields = {key: value for key, value in fields.items() if key not in OWN_KEYS}
            parts += [_encode(fields)[1:-1]] if fields else []
            fields = own
        if fields:
            parts.append(b'"fields":' + _encode(fields))
    if record.error:
        parts.append(b'"error":' + _encode({"message": record.error}))
    if behind:
        parts.append(behind)
    return msgspec.Raw(b",".join(parts))


def _encodable(value: Any) -> Any:
    """A copy without halves of surrogate pairs, which msgspec refuses."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Record):
        return msgspec.structs.replace(
            value,
            **{
                name: _encodable(getattr(value, name))
                for name in ("message", "level", "fields", "place", "error")
                if name in value.__struct_fields__
            },
        )
    if isinstance(value, dict):
        return {_encodable(key): _encodable(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    return value


# --- text ---------------------------------------------------------------------------------------------


def encode_raw(origin: Origin, records: Sequence[Record]) -> bytes:
    """The messages: one join and one encoding, 0.05 µs a record."""
    messages = [record.message for record in records]
    if not messages:
        return b""
    messages.append("")
    return "\n".join(messages).encode("utf-8", "replace")


def _encode_raw_batch(batch: Batch) -> bytes:
    """Lines as the source gave them still have their newlines; times and sequences do not matter here."""
    if batch.newlines:
        return "".join(batch.messages).encode("utf-8", "replace")
    return encode_raw(batch.origin, batch.lines)


def encode_text(origin: Origin, records: Sequence[Record]) -> bytes:
    """Time, name, message."""
    name = f" {display_name(origin)}: "
    return "".join([f"{r.time}{name}{r.message}\n" for r in records]).encode("utf-8", "replace")


def _template_encoder(template: Template, escape: Escape) -> RecordsEncoder:
    bound: WeakKeyDictionary[Origin, BoundTemplate] = WeakKeyDictionary()

    def encode(origin: Origin, records: Sequence[Record]) -> bytes:
        line = bound.get(origin)
        if line is None:
            line = bound[origin] = template.bind(origin, escape)
        render = line.render
        return "".join([render(record) + "\n" for record in records]).encode("utf-8", "replace")

    return encode


# --- logfmt -------------------------------------------------------------------------------------------

_KEYS = ("time", "level", "msg", "stream", "id", "container", "image", "host", "truncated", "error")
_BARE = re.compile(r'[^\s\x00-\x20"=\\\x7f-\xa0\u2028\u2029]+')
_NOT_IN_KEYS = re.compile(r'[\s\x00-\x20"=\\\x7f-\xa0\u2028\u2029]')


def encode_logfmt(origin: Origin, records: Sequence[Record]) -> bytes:
    """`time=… level=… msg=… stream=… container=… image=… host=… compose.project=… FIELDS id=…`."""
    constant = _logfmt_constant(origin)
    record_id = origin.record_id
    lines: list[str] = []
    for record in records:
        level = f" level={logfmt_value(record.level)}" if record.level else ""
        details = " truncated=true" if record.truncated else ""
        if record.error:
            details += f" error={logfmt_value(record.error)}"
        if record.fields:
            details += "".join(
                [f" {_field_key(key)}={logfmt_value(value)}" for key, value in record.fields.items()]
            )
        lines.append(
            f"time={record.time}{level} msg={logfmt_value(record.message)} stream={record.stream}"
            f"{constant}{details} id={record_id(record)}\n"
        )
    return "".join(lines).encode("utf-8", "replace")


def _logfmt_constant(origin: Origin) -> str:
    values: dict[str, Any] = {
        "container": display_name(origin),
        "image": image_reference(origin),
        "host": origin.host,
    }
    for group in ("compose", "swarm", "kubernetes"):
        values |= {f"{group}.{key}": value for key, value in getattr(origin, group).items()}
    return "".join([f" {key}={logfmt_value(value)}" for key, value in values.items() if value])


def _field_key(key: str) -> str:
    """A field's name as a key: never one of the record's own."""
    key = _NOT_IN_KEYS.sub("_", str(key)) or "_"
    return f"fields.{key}" if key in _KEYS else key


def logfmt_value(value: Any) -> str:
    """A value of logfmt: bare where it can be, else quoted, with JSON's escapes."""
    if not isinstance(value, str):
        value = nested_text(value)
    text: str = value
    if _BARE.fullmatch(text):
        return text
    try:
        return _encode(text).decode()
    except UnicodeEncodeError:
        return _encode(_encodable(text)).decode()


_ENCODERS: dict[str, RecordsEncoder] = {
    "json": encode_json,
    "raw": encode_raw,
    "text": encode_text,
    "logfmt": encode_logfmt,
}
FORMATS = tuple(_ENCODERS)
