"""logfmt: `level=info msg="slow request" status=200` becomes fields.

There is no standard; this reads what go-kit/log, logrus, slog and Heroku's router write
(https://pkg.go.dev/github.com/go-logfmt/logfmt, https://brandur.org/logfmt): words with `=`, values in double
quotes with JSON's escapes where they have spaces, a word without `=` is true. A line whose first word is no
pair is none of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
from pydantic import Field

from logroute.config.components import PROCESSORS
from logroute.processors import ColumnProcessor, ProcessorOptions
from logroute.processors._alike import FEW, Alike, read, some
from logroute.processors._objects import take_alike, take_all, take_columns
from logroute.processors._values import ValueType, convert, converters
from logroute.router.column_batch import ColumnBatch
from logroute.router.record import Batch, DetailedRecord, all_plain, owned_records

# Possessive throughout, so that no line takes more than linear time.
begins = re.compile(r'\s*+[^\s="]++=', re.ASCII).match
"""Whether a line is an attempt at logfmt."""
_pair = re.compile(
    r'\s*+(?:([^\s="]++)(=(?:"((?:[^"\\]++|\\.)*+)"|(?!")(\S*+)))?+)(?=\s|\Z)', re.DOTALL | re.ASCII
).match
_QUOTED = "\0"
"""Stands for a value in quotes."""
_SPACE = " \t\n\r\f\v"
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)

_decode = msgspec.json.Decoder(str).decode
_decode_object = msgspec.json.Decoder(dict[str, str]).decode


class LogfmtOptions(ProcessorOptions):
    """Parse messages that are logfmt (`level=info msg="slow" status=200`); others pass by."""

    type: Literal["logfmt"] = "logfmt"
    types: dict[str, ValueType] = Field(default={}, examples=[{"status": "int", "duration": "float"}])
    """What values mean, by key: they are texts otherwise. One that is none stays a text, and is marked."""
    keep: bool = False
    """Keep the message as it was; without, it becomes what the line says under `message` or `msg`, if it
    does."""


@PROCESSORS.register(LogfmtOptions)
class LogfmtProcessor(ColumnProcessor[LogfmtOptions]):
    def __init__(self, options: LogfmtOptions) -> None:
        super().__init__(options)
        self._types = converters(options.types)

    def columns(self, batch: ColumnBatch) -> Batch | None:
        if batch.details is not None or self._types or (lines := alike_pairs(batch.bare)) is None:
            return None
        return take_columns(batch, lines, self.books, keep=self.options.keep)

    def by_record(self, batch: Batch) -> Batch:
        types, records = self._types, batch.records
        if not types and not all_plain(records) and (lines := alike_pairs(batch.messages)) is not None:
            return batch.with_records([*take_alike(records, lines, self.books, keep=self.options.keep)])
        batch = batch.with_records(owned_records(records, copied=False))
        attempts = [record for record in batch.records if begins(record.message) is not None]
        taken: list[DetailedRecord] = []
        objects: list[dict[str, Any]] = []
        for record, found in zip(attempts, all_pairs([r.message for r in attempts]), strict=True):
            assert isinstance(record, DetailedRecord)
            if found is None:
                record.error = "logfmt: a quote that does not close, or an empty key"
                self.books.failed += 1
                continue
            if types and not convert(record, found, types):
                self.books.failed += 1
            taken.append(record)
            objects.append(found)
        take_all(taken, objects, self.books, keep=self.options.keep)
        return batch


def alike_pairs(lines: Sequence[str], fewest: int = 1) -> Alike | None:
    """Lines that are the same keys, at least so many, each with a value; None if not, or not simply so."""
    if len(lines) < FEW:
        return None
    samples = [pairs(lines[index]) or {} for index in some(len(lines))]
    if "" in samples[0] or len(samples[0]) < fewest or (objects := _as_objects(lines)) is None:
        return None
    try:
        return read(objects, len(lines), samples, str)
    except (msgspec.MsgspecError, ValueError):
        return None


def all_pairs(lines: Sequence[str]) -> Iterable[dict[str, Any] | None]:
    """`pairs` of each."""
    objects = _as_objects(lines)
    return map(pairs, lines) if objects is None else map(_decoded, objects.split("\n"), lines)


# `a=1 b="x y"` is turned into `{"a":"1","b":"x y"}`, and decoded: much faster than to look for pairs.
# Whatever else there may be (a word by itself, two spaces, `=` in a value) is no JSON then; nor is either
# part of a quoted value that would go from one line into the next. Such a line is looked at pair by pair.


def _as_objects(lines: Sequence[str]) -> str | None:
    """What to decode, a line for each, made of all at once; None if one of them is not so simple."""
    whole = "\n".join(lines)
    if "\\" in whole or _QUOTED in whole or whole.count("\n") >= len(lines):
        return None
    parts = whole.split('"')
    outside = _QUOTED.join(parts[::2])
    quoted = len(parts) // 2
    # A quoted value stands between `=` and a space, or the line's end.
    closed = outside.count(f"={_QUOTED} ") + outside.count(f"={_QUOTED}\n") + outside.endswith(f"={_QUOTED}")
    if not len(parts) % 2 or closed != quoted:
        return None
    outside = outside.replace(" ", '","').replace("=", '":"').replace("\n", '"}\n{"')
    parts[::2] = outside.split(_QUOTED)
    return f'{{"{"".join(parts)}"}}'


def _decoded(text: str, line: str) -> dict[str, Any] | None:
    try:
        found = _decode_object(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return _each_pair(line)
    return None if "" in found else found


def pairs(line: str) -> dict[str, Any] | None:
    """Keys and values; None if a quote does not close or a key is empty. The last of equal keys counts."""
    objects = _as_objects([line])
    return _each_pair(line) if objects is None else _decoded(objects, line)


def _each_pair(line: str) -> dict[str, Any] | None:
    """The same for any line."""
    found: dict[str, Any] = {}
    at, end = 0, len(line.rstrip(_SPACE))
    while at < end:
        pair = _pair(line, at)
        if pair is None:
            return None
        key, value, quoted, bare = pair.groups()
        found[key] = True if value is None else bare if quoted is None else _unescaped(quoted)
        at = pair.end()
    return found


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    try:
        return _decode(f'"{text}"')
    except (msgspec.DecodeError, UnicodeEncodeError):  # escapes that JSON does not know
        return _ESCAPE.sub(r"\1", text)
