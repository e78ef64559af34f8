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
from logroute.router.record import Batch, Origin, Record
from logroute.router.template import BoundTemplate, Escape, Template
from logroute.sinks.record_json import encode_batch, encode_json

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
        return encode_batch
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


# --- text ---------------------------------------------------------------------------------------------


def encode_raw(origin: Origin, records: Sequence[Record]) -> bytes:
    return _raw([record.message for record in records])


def _raw(messages: Sequence[str]) -> bytes:
    """The messages: one join and one encoding, 0.05 µs a record."""
    return "\n".join([*messages, ""]).encode("utf-8", "replace")


def _encode_raw_batch(batch: Batch) -> bytes:
    """Lines as the source gave them still have their newlines; times and sequences do not matter here."""
    if batch.newlines:
        return "".join(batch.messages).encode("utf-8", "replace")
    return _raw(batch.messages)


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
_encode = msgspec.json.Encoder().encode
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
        return _encode(expressible(text)).decode()


_ENCODERS: dict[str, RecordsEncoder] = {
    "json": encode_json,
    "raw": encode_raw,
    "text": encode_text,
    "logfmt": encode_logfmt,
}
FORMATS = tuple(_ENCODERS)
