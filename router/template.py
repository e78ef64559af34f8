"""Templates: text with `{path}`, `{path|default}` and `{time:%Y.%m.%d}`, for file paths, indices and lines.

`{{` and `}}` stand for braces. What is constant for an origin is filled in once per origin (`bind`); time
parts are formatted once per batch where its first and last time agree in them, per record only where not.

Values come from containers, so from strangers: who binds a template gives the `escape` that makes them
harmless where the text is used. The template's own text is the user's and is left alone.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from logroute.router.digest import blake2b
from logroute.router.json_text import nested_text
from logroute.router.paths import Path, UnknownPath, path
from logroute.router.record import Origin, Record

Escape = Callable[[str], str]

ABSENT = "unknown"
"""What stands for an absent (or empty) value without a default, and for a time that is none."""

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

# strftime's directives, independent of the locale, each with how many characters of an RFC 3339 time decide
# it: times that are equal up to there are formatted equally.
_DIRECTIVES: dict[str, tuple[int, Callable[[datetime], str]]] = {
    "Y": (4, lambda t: f"{t.year:04}"),
    "y": (4, lambda t: f"{t.year % 100:02}"),
    "m": (7, lambda t: f"{t.month:02}"),
    "b": (7, lambda t: _MONTHS[t.month - 1][:3]),
    "B": (7, lambda t: _MONTHS[t.month - 1]),
    "d": (10, lambda t: f"{t.day:02}"),
    "F": (10, lambda t: t.date().isoformat()),
    "j": (10, lambda t: f"{t.timetuple().tm_yday:03}"),
    "G": (10, lambda t: f"{t.isocalendar().year:04}"),
    "V": (10, lambda t: f"{t.isocalendar().week:02}"),
    "u": (10, lambda t: str(t.isoweekday())),
    "a": (10, lambda t: _DAYS[t.weekday()][:3]),
    "A": (10, lambda t: _DAYS[t.weekday()]),
    "H": (13, lambda t: f"{t.hour:02}"),
    "M": (16, lambda t: f"{t.minute:02}"),
    "S": (19, lambda t: f"{t.second:02}"),
    "T": (19, lambda t: t.time().isoformat("seconds")),
    "%": (0, lambda _: "%"),
}
_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)
_EARLIEST = "0001-01-01T00:00:00"


class TemplateError(ValueError):
    """A template that means nothing; `column` (from 1) is where in its text."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(f"{message} (at its character {column})")
        self.column = column


# --- parts --------------------------------------------------------------------------------------------


class TimePart(msgspec.Struct, frozen=True):
    """`{time:…}`."""

    format: str
    deciding: int
    """Records whose times are equal in so many characters render equally."""

    def render(self, record: Record) -> str:
        known = record.time[: self.deciding]
        return _format_time(known, self.format) if len(known) == self.deciding else ABSENT


class PathPart(msgspec.Struct, frozen=True):
    """`{path}` or `{path|default}`."""

    path: str
    default: str | None
    found: Path

    def show(self, value: Any, escape: Escape) -> str:
        text = _text(value)
        if text:
            return escape(text)
        # The default is the user's own text. Where it is empty, `escape` knows whether it may be: nowhere
        # in the name of a file, as `{label.team|}/x` would else be `/x`.
        return (ABSENT if self.default is None else self.default) or escape("")


Part = str | TimePart | PathPart
BoundPart = str | TimePart | Callable[[Record], str]


@lru_cache(maxsize=1024)
def _format_time(known: str, format_: str) -> str:
    """`known` is as much of an RFC 3339 time as decides the format."""
    try:
        at = datetime.fromisoformat(known + _EARLIEST[len(known) :])
    except ValueError:
        return ABSENT
    return _DIRECTIVE.sub(lambda found: _DIRECTIVES[found[1]][1](at), format_)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return nested_text(value)


# --- templates ----------------------------------------------------------------------------------------


class Template(msgspec.Struct, frozen=True):
    """A parsed template."""

    text: str
    parts: tuple[Part, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Raises TemplateError, a ValueError."""
        parts: list[Part] = []
        at = 0
        for found in _PART.finditer(text):
            if found.start() > at:
                parts.append(text[at : found.start()])
            at = found.end()
            if found[0] in ("{{", "}}"):
                parts.append(found[0][0])
            elif found[1] is None:
                raise TemplateError(
                    f"{found[0]!r} alone; {found[0] * 2!r} stands for a brace", found.start() + 1
                )
            else:
                parts.append(_placeholder(found[1], found.start() + 2))
        if at < len(text):
            parts.append(text[at:])
        return cls(text, tuple(_merged(parts)))

    @property
    def literal_head(self) -> str:
        """The text before the first placeholder."""
        head = self.parts[0] if self.parts else ""
        return head if isinstance(head, str) else ""

    @property
    def timed(self) -> bool:
        """Whether `{time:…}` is part of it."""
        return any(isinstance(part, TimePart) for part in self.parts)

    def bind(self, origin: Origin, escape: Escape = str) -> BoundTemplate:
        """Fill in what is constant for an origin. `escape` treats every value, never the literal text."""
        return BoundTemplate(
            tuple(_bound(part, origin, escape) if isinstance(part, PathPart) else part for part in self.parts)
        )


class BoundTemplate:
    """A template of which only what varies with the record is open."""

    __slots__ = ("_deciding", "_timed_only", "constant", "parts")

    def __init__(self, parts: tuple[BoundPart, ...]) -> None:
        self.parts = tuple(_merged(parts))
        open_parts = [part for part in self.parts if not isinstance(part, str)]
        self.constant: str | None = None if open_parts else "".join(map(str, self.parts))
        """The whole text, where it is the same for all records of the origin."""
        times = [part for part in open_parts if isinstance(part, TimePart)]
        self._deciding = max((part.deciding for part in times), default=0)
        self._timed_only = len(times) == len(open_parts)

    def render(self, record: Record) -> str:
        return "".join(
            [
                part
                if isinstance(part, str)
                else part.render(record)
                if isinstance(part, TimePart)
                else part(record)
                for part in self.parts
            ]
        )

    def split(self, records: Sequence[Record]) -> list[tuple[str, Sequence[Record]]]:
        """Divide records by their text, each with its records in order; usually all have one.

        The texts come in the order of their first records.
        """
        if not records:
            return []
        if self.constant is not None:
            return [(self.constant, records)]
        if self._timed_only:
            return self._split_by_time(records)
        divided: dict[str, list[Record]] = {}
        for record in records:
            divided.setdefault(self.render(record), []).append(record)
        return list(divided.items())

    def _split_by_time(self, records: Sequence[Record]) -> list[tuple[str, Sequence[Record]]]:
        deciding = self._deciding
        first = records[0]
        if len(records) == 1:
            return [(self.render(first), records)]
        # Times run backwards across the streams, so the ends say nothing of the middle. But all texts
        # between two that begin alike begin so too: the least and the greatest time decide for all.
        times = [record.time for record in records]
        if min(times)[:deciding] == max(times)[:deciding]:
            return [(self.render(first), records)]
        texts: dict[str, str] = {}
        divided: dict[str, list[Record]] = {}
        for record, time in zip(records, times, strict=True):
            known = time[:deciding]
            text = texts.get(known)
            if text is None:
                text = texts[known] = self.render(record)
            divided.setdefault(text, []).append(record)
        return list(divided.items())


def _bound(part: PathPart, origin: Origin, escape: Escape) -> str | Callable[[Record], str]:
    if part.found.of_origin is not None:
        return part.show(part.found.of_origin(origin), escape)
    get = part.found.of_record
    return lambda record: part.show(get(origin, record), escape)


def _merged(parts: Sequence[Any]) -> list[Any]:
    """Neighbouring texts become one."""
    merged: list[Any] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    return merged


# --- parsing ------------------------------------------------------------------------------------------

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def _placeholder(inside: str, column: int) -> TimePart | PathPart:
    """`column` is that of the first character inside."""
    name, pipe, default = inside.partition("|")
    if name.strip().startswith("time:"):
        start = inside.index(":") + 1
        return _time_part(inside[start:], column + start)
    name = name.strip()
    if not name:
        raise TemplateError("an empty placeholder; '{{}}' stands for braces", column)
    try:
        return PathPart(name, default if pipe else None, path(name))
    except UnknownPath as error:
        raise TemplateError(str(error), column) from None


def _time_part(format_: str, column: int) -> TimePart:
    deciding = 0
    for found in _DIRECTIVE.finditer(format_):
        if found[1] not in _DIRECTIVES:
            near = difflib.get_close_matches(found[1].swapcase(), _DIRECTIVES, n=1) if found[1] else []
            hint = f"did you mean %{near[0]}?" if near else f"there are %{' %'.join(_DIRECTIVES)}"
            raise TemplateError(f"unknown time directive {found[0]!r}; {hint}", column + found.start())
        deciding = max(deciding, _DIRECTIVES[found[1]][0])
    if not deciding:
        raise TemplateError("no time in it; write {time:%Y-%m-%d}, or {time} for the whole", column)
    return TimePart(format_, deciding)


# --- escaping -----------------------------------------------------------------------------------------

_UNSAFE_IN_FILE_NAMES = re.compile(
    r"[/\\\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
FILE_NAME_BYTES = 200
"""Below the 255 of the file systems, so that literal text, a rotated file's time and endings fit behind."""


def escape_file_name(value: str) -> str:
    """A value from a stranger as a component of a path, or part of one: it can never leave its folder.

    Separators, control characters and what turns the direction of writing become `_`; so do `.`, `..` and
    the empty text; what is too long is cut and ends in a hash of the whole. Different values may become the
    same name, but only short ones that differ in such characters.
    """
    safe = _UNSAFE_IN_FILE_NAMES.sub("_", value)
    if safe in ("", ".", ".."):
        safe = "_" * max(1, len(safe))
    encoded = safe.encode()
    if len(encoded) > FILE_NAME_BYTES:
        digest = blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        safe = f"{encoded[: FILE_NAME_BYTES - 17].decode(errors='ignore')}-{digest}"
    return safe
