"""Templates: text with `{path}`, `{path|default}` and `{time:%Y.%m.%d}`, for file paths, indices and lines.

`{{` and `}}` stand for braces. What is constant for an origin is filled in once per origin (`bind`). Time
parts are resolved once per batch from its first and last time, and per record only where these differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from logroute.router.paths import origin_getter, record_getter
from logroute.router.record import Origin, Record

Escape = Callable[[str], str]

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_DIRECTIVE = re.compile(r"%(.)")

# How much of an RFC 3339 time decides a strftime directive: the text up to there need only be equal.
_DECIDING = {
    "Y": 4, "y": 4, "m": 7, "b": 7, "B": 7, "d": 10, "j": 10, "G": 10, "V": 10, "u": 10, "a": 10, "A": 10,
    "F": 10, "H": 13, "M": 16, "S": 19, "T": 19, "%": 0,
}  # fmt: skip


class TemplateError(ValueError):
    """A template that means nothing; `column` (from 1) is where in its text."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(f"{message} (at its character {column})")
        self.column = column


@dataclass(frozen=True, slots=True)
class _Time:
    format: str
    deciding: int
    """Records whose times are equal in so many characters render equally."""


@dataclass(frozen=True, slots=True)
class _Path:
    path: str
    default: str | None


_Part = str | _Time | _Path

ABSENT = "unknown"
"""What stands for an absent value without a default."""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template."""

    text: str
    parts: tuple[_Part, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Raises TemplateError."""
        parts: list[_Part] = []
        at = 0
        for found in _PART.finditer(text):
            if found.start() > at:
                parts.append(text[at : found.start()])
            at = found.end()
            if found[0] in ("{{", "}}"):
                parts.append(found[0][0])
            elif found[1] is None:
                raise TemplateError(
                    f"{found[0]!r} alone; write {found[0] * 2!r} for a brace", found.start() + 1
                )
            else:
                parts.append(_placeholder(found[1], found.start() + 1))
        if at < len(text):
            parts.append(text[at:])
        return cls(text, tuple(parts))

    @property
    def literal_head(self) -> str:
        """The text before the first placeholder."""
        head = ""
        for part in self.parts:
            if not isinstance(part, str):
                break
            head += part
        return head

    @property
    def timed(self) -> bool:
        """Whether the record's time is part of it."""
        return any(isinstance(part, _Time) for part in self.parts)

    def bind(self, origin: Origin, escape: Escape = str) -> BoundTemplate:
        """Fill in what is constant for an origin. `escape` treats every value, never the literal text."""
        parts: list[str | _Time | Callable[[Record], str]] = []
        for part in self.parts:
            if isinstance(part, _Path):
                getter = origin_getter(part.path)
                if getter is None:
                    parts.append(_per_record(part, origin, escape))
                    continue
                part = escape(_shown(getter(origin), part.default))
            if isinstance(part, str) and parts and isinstance(parts[-1], str):
                parts[-1] += part
            else:
                parts.append(part)
        return BoundTemplate(tuple(parts))


@dataclass(frozen=True, slots=True)
class BoundTemplate:
    """A template of which only what varies with the record is open."""

    parts: tuple[str | _Time | Callable[[Record], str], ...]

    @property
    def constant(self) -> str | None:
        """The whole text, where it is the same for all records of the origin."""
        if not self.parts:
            return ""
        return self.parts[0] if len(self.parts) == 1 and isinstance(self.parts[0], str) else None

    def render(self, record: Record) -> str:
        text = []
        for part in self.parts:
            if isinstance(part, str):
                text.append(part)
            elif isinstance(part, _Time):
                text.append(_format_time(record.time, part.format))
            else:
                text.append(part(record))
        return "".join(text)

    def split(self, records: Sequence[Record]) -> list[tuple[str, Sequence[Record]]]:
        """Cut records into runs of equal text, in their order; usually one run, found without a loop.

        Times of one container run almost in order, so one comparison of the least and the greatest time
        tells whether all records render equally.
        """
        if not records:
            return []
        constant = self.constant
        if constant is not None:
            return [(constant, records)]
        deciding = self._deciding()
        if deciding is not None:
            times = [record.time for record in records]
            if min(times)[:deciding] == max(times)[:deciding]:
                return [(self.render(records[0]), records)]
        runs: list[tuple[str, Sequence[Record]]] = []
        rendered: dict[str, str] = {}
        start, current = 0, ""
        for index, record in enumerate(records):
            if deciding is None:
                text = self.render(record)
            else:
                key = record.time[:deciding]
                text = rendered.get(key) or rendered.setdefault(key, self.render(record))
            if index and text != current:
                runs.append((current, records[start:index]))
                start = index
            current = text
        runs.append((current, records[start:]))
        return runs

    def _deciding(self) -> int | None:
        """How many characters of the time decide the text; None where more than the time does."""
        deciding = 0
        for part in self.parts:
            if isinstance(part, _Time):
                deciding = max(deciding, part.deciding)
            elif not isinstance(part, str):
                return None
        return deciding


def _placeholder(inside: str, column: int) -> _Part:
    path, pipe, default = inside.partition("|")
    path = path.strip()
    if path.startswith("time:"):
        format_ = path[5:]
        unknown = [d for d in _DIRECTIVE.findall(format_) if d not in _DECIDING]
        if unknown:
            raise TemplateError(f"unknown time directive '%{unknown[0]}'", column)
        directives = _DIRECTIVE.findall(format_)
        if not directives:
            raise TemplateError("a time format needs a directive, such as {time:%Y-%m-%d}", column)
        return _Time(format_, max(_DECIDING[d] for d in directives))
    if not path:
        raise TemplateError("an empty placeholder; write {{}} for braces", column)
    try:
        record_getter(path)
    except ValueError as error:
        raise TemplateError(str(error), column) from error
    return _Path(path, default if pipe else None)


def _per_record(part: _Path, origin: Origin, escape: Escape) -> Callable[[Record], str]:
    getter = record_getter(part.path)
    return lambda record: escape(_shown(getter(origin, record), part.default))


def _shown(value: Any, default: str | None) -> str:
    if value is None or value == "":
        return ABSENT if default is None else default
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _format_time(time: str, format_: str) -> str:
    try:
        return datetime.fromisoformat(time[:19]).replace(tzinfo=UTC).strftime(format_)
    except ValueError:
        return ABSENT


# --- escaping -----------------------------------------------------------------------------------------

_UNSAFE_IN_FILE_NAMES = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
FILE_NAME_BYTES = 200
"""Below the 255 of the file systems, so that a rotated file's time and ending fit behind."""


def escape_file_name(value: str) -> str:
    """A value from a stranger as a component of a path: it can never leave its folder.

    Separators and control characters become `_`; `.`, `..` and the empty text become `_`; what is too long
    is cut and ends in a hash of the whole.
    """
    safe = _UNSAFE_IN_FILE_NAMES.sub("_", value)
    if safe in ("", ".", ".."):
        safe = "_" * max(1, len(safe))
    encoded = safe.encode()
    if len(encoded) > FILE_NAME_BYTES:
        digest = blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        safe = f"{encoded[: FILE_NAME_BYTES - 17].decode(errors='ignore')}-{digest}"
    return safe
