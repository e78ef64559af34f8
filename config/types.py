"""Types of option values: durations, sizes, matches; with their text form, their schema, their mistakes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError, core_schema

from logroute.config.problems import did_you_mean
from logroute.router.match import Match, MatchError

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d|w)")
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?")
_SIZE_UNITS = {
    "": 1, "B": 1,
    "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_PERMISSIONS = re.compile(r"(?:0o?)?([0-7]{3})")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(k?B|[KMGT]i?B|)")
LONGEST_S = 36525 * 86400.0
"""A hundred years: sums with it stay times that Python can express."""
LARGEST_BYTES = (1 << 63) - 1
"""What file systems and SQLite count to."""


@dataclass(frozen=True, slots=True)
class Named:
    """Annotates a type with what users call its values, for the docs."""

    name: str


def parse_duration(value: Any) -> float:
    """Seconds, from `500ms`, `30s`, `5m`, `24h`, `7d`. Raises PydanticCustomError."""
    if isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        seconds = float(found[1]) * _DURATION_UNITS[found[2]]
        if seconds > LONGEST_S:
            raise PydanticCustomError("duration", "longer than a hundred years")
        return seconds
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LONGEST_S
    if is_number or (isinstance(value, str) and _NUMBER.fullmatch(value.strip())):
        number = value.strip() if isinstance(value, str) else f"{value:.15g}"
        raise PydanticCustomError(
            "duration", "a duration needs a unit: {number}s or {number}m?", {"number": number}
        )
    raise PydanticCustomError("duration", "expected a duration such as 500ms, 30s, 5m, 24h or 7d")


def parse_start(value: Any) -> float | Literal["now", "beginning"]:
    """Where to begin: `now`, `beginning`, or how many seconds ago. Raises PydanticCustomError."""
    if value in ("now", "beginning"):
        return cast(Literal["now", "beginning"], value)
    if isinstance(value, str) and not value[:1].isdigit():
        hint = did_you_mean(value, ("now", "beginning"))
        raise PydanticCustomError(
            "start", "expected now, beginning or a duration such as 2h{hint}", {"hint": hint}
        )
    return parse_duration(value)


def parse_size(value: Any) -> int:
    """Bytes, from `64KiB`, `5MB`, `2GiB` or a whole number. Raises PydanticCustomError."""
    size: float | None = None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        size = value
    elif isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())):
        size = (float(found[1]) if "." in found[1] else int(found[1][:400])) * _SIZE_UNITS[found[2]]
    if size is None:
        raise PydanticCustomError("size", "expected a size such as 64KiB, 5MB or 2GiB")
    if size > LARGEST_BYTES:
        raise PydanticCustomError("size", "larger than anything there is")
    return int(size)


def parse_permissions(value: Any) -> int:
    """Permission bits, from `0640`, however YAML read it. Raises PydanticCustomError.

    YAML reads `0640` as the number 640 and `0o640` as 416; a URI has text. All mean rw-r-----.
    """
    found = _PERMISSIONS.fullmatch(str(value))
    candidates = [int(found[1], 8)] if found else []
    if isinstance(value, int):
        candidates.append(value)
    for candidate in candidates:
        if candidate & 0o600 == 0o600 and candidate <= 0o777:
            return candidate
    raise PydanticCustomError(
        "permissions", "must be permissions such as 0640 that let the owner read and write"
    )


def format_permissions(bits: int) -> str:
    return f"{bits:04o}"


def format_duration(seconds: float) -> str:
    """The shortest text that means this duration."""
    ms = round(seconds * 1000)
    if abs(ms - seconds * 1000) > 1e-6:
        return f"{seconds:.9f}".rstrip("0") + "s"
    for unit in ("d", "h", "m", "s"):
        unit_ms = round(_DURATION_UNITS[unit] * 1000)
        if ms and ms % unit_ms == 0:
            return f"{ms // unit_ms}{unit}"
    return f"{ms}ms"


def format_size(size: int) -> str:
    """The shortest text that means this size."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]}{unit}"
    return str(size)


def _parse_match(value: Any, *, containers: bool = False) -> Match:
    if isinstance(value, Match):
        return value
    try:
        return Match.parse(value, containers=containers)
    except MatchError as error:
        raise PydanticCustomError(
            "match", "{error}", {"error": str(error), "mistakes": [(m.path, str(m)) for m in error.mistakes]}
        ) from error


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$"}),
    Named("duration"),
]
"""Seconds."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, when_used="json"),
    WithJsonSchema({"type": ["string", "integer"], "pattern": f"^{_SIZE.pattern}$", "minimum": 0}),
    Named("size"),
]
"""Bytes."""

Permissions = Annotated[
    int,
    BeforeValidator(parse_permissions),
    PlainSerializer(format_permissions, when_used="json"),
    WithJsonSchema({"type": ["string", "integer"], "pattern": f"^{_PERMISSIONS.pattern}$", "minimum": 0}),
    Named("permissions"),
]
"""Bits of a file's mode."""

Start = Annotated[
    Literal["now", "beginning"] | float,
    BeforeValidator(parse_start),
    PlainSerializer(
        lambda start: start if isinstance(start, str) else format_duration(start), when_used="json"
    ),
    WithJsonSchema({"type": "string", "pattern": f"^(now|beginning|{_DURATION.pattern})$"}),
    Named("`now`, `beginning` or duration"),
]
"""Where to begin: now, at the beginning, or so many seconds ago."""


class Alternative:
    """Annotates an option that stands instead of another one: not in examples that show all of them."""


class Secret:
    """Annotates an option whose value is shown to nobody (`config.masking`)."""


@dataclass(frozen=True, slots=True, eq=False)
class Parsed:
    """Annotates a type that pydantic shall not look into: `parse` makes values of it, whatever is given.

    Pydantic's own PlainValidator builds a schema of the type nevertheless, which costs start-up a tenth of a
    second for a match.
    """

    parse: Callable[[Any], Any]
    """Raises PydanticCustomError."""
    serialize: core_schema.SerSchema

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.parse, serialization=self.serialize)


MatchField = Annotated[
    Match,
    Parsed(_parse_match, core_schema.plain_serializer_function_ser_schema(Match.to_value)),
    WithJsonSchema({"type": ["object", "string"]}),
    Named("match"),
]
"""A match, parsed."""

ContainerMatchField = Annotated[
    Match,
    Parsed(
        lambda value: _parse_match(value, containers=True),
        core_schema.plain_serializer_function_ser_schema(Match.to_value),
    ),
    WithJsonSchema({"type": ["object", "string"]}),
    Named("match"),
]
"""One that chooses containers."""
