"""logfmt: `level=info msg="slow request" status=200` becomes fields.

There is no standard; this reads what go-kit/log, logrus, slog and Heroku's router write
(https://pkg.go.dev/github.com/go-logfmt/logfmt, https://brandur.org/logfmt): words with `=`, values in double
quotes with JSON's escapes where they have spaces, a word without `=` is true. A line whose first word is no
pair is none of it.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec
from pydantic import Field

from logroute.config.components import PROCESSORS
from logroute.processors import Processor, ProcessorOptions
from logroute.processors._objects import take
from logroute.processors._values import ValueType, convert, converters
from logroute.router.record import Batch, DetailedRecord

# Possessive throughout, so that no line takes more than linear time.
begins = re.compile(r'\s*+[^\s="]++=', re.ASCII).match
"""Whether a line is an attempt at logfmt."""
_pair = re.compile(
    r'\s*+(?:([^\s="]++)(=(?:"((?:[^"\\]++|\\.)*+)"|(?!")(\S*+)))?+)(?=\s|\Z)', re.DOTALL | re.ASCII
).match
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
class LogfmtProcessor(Processor[LogfmtOptions]):
    def __init__(self, options: LogfmtOptions) -> None:
        super().__init__(options)
        self._types = converters(options.types)

    def apply(self, batch: Batch) -> Batch:
        types, keep = self._types, self.options.keep
        for record in batch.records:
            if begins(record.message) is None:
                continue
            assert isinstance(record, DetailedRecord)
            found = pairs(record.message)
            if found is None:
                record.error = "logfmt: a quote that does not close, or an empty key"
                self.books.failed += 1
                continue
            if types and not convert(record, found, types):
                self.books.failed += 1
            take(record, found, keep=keep)
        return batch


def pairs(line: str) -> dict[str, Any] | None:
    """Keys and values; None if a quote does not close or a key is empty. The last of equal keys counts."""
    if "\\" not in line:
        # `a=1 b="x y"` is turned into `{"a":"1","b":"x y"}`, and decoded: much faster than to look for pairs.
        # Whatever else there may be (a word by itself, two spaces, `=` in a value) is no JSON then.
        parts = line.split('"')
        inside = parts[1::2]
        outside = [part.replace(" ", '","').replace("=", '":"') for part in parts[::2]]
        if (
            len(outside) == len(inside) + 1
            and all(part.endswith('":"') for part in outside[:-1])
            and all(part.startswith('","') for part in outside[1:] if part)
        ):
            parts[::2] = outside
            try:
                found = _decode_object(f'{{"{"".join(parts)}"}}')
            except (msgspec.DecodeError, UnicodeEncodeError):
                pass
            else:
                return None if "" in found else found
    return _each_pair(line)


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
