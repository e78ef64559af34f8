"""Types of option values: durations, sizes, matches; with their text form, their schema, their mistakes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError, core_schema

from logroute.router.match import Match, MatchError

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_SIZE_UNITS = {
    "": 1, "B": 1,
    "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGT]i?B|B|)")


def parse_duration(value: Any) -> float:
    """Seconds, from `500ms`, `30s`, `5m`, `24h`, `7d`. Raises PydanticCustomError."""
    if isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        return float(found[1]) * _DURATION_UNITS[found[2]]
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise PydanticCustomError("duration", f"a duration needs a unit: {value:g}s or {value:g}m?")
    raise PydanticCustomError("duration", "expected a duration such as 500ms, 30s, 5m, 24h or 7d")


def parse_size(value: Any) -> int:
    """Bytes, from `64KiB`, `5MB`, `2GiB` or a whole number. Raises PydanticCustomError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())):
        return int(float(found[1]) * _SIZE_UNITS[found[2]])
    raise PydanticCustomError("size", "expected a size such as 64KiB, 5MB or 2GiB")


def format_duration(seconds: float) -> str:
    """The shortest text that means this duration."""
    for unit, factor in sorted(_DURATION_UNITS.items(), key=lambda item: -item[1]):
        if unit != "w" and seconds and seconds % factor == 0:
            return f"{seconds / factor:g}{unit}"
    return f"{seconds:g}s" if seconds * 1000 % 1 else f"{seconds * 1000:g}ms"


def format_size(size: int) -> str:
    """The shortest text that means this size."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]}{unit}"
    return str(size)


def _parse_match(value: Any) -> Match:
    if isinstance(value, Match):
        return value
    try:
        return Match.parse(value)
    except MatchError as error:
        raise PydanticCustomError(
            "match", "{error}", {"error": str(error), "mistakes": [(m.path, str(m)) for m in error.mistakes]}
        ) from error


def _from_text(parse: Any, kind: type) -> Any:
    # A default is given as the number that it means; only what users write is parsed.
    return BeforeValidator(lambda value: value if type(value) is kind else parse(value))


Duration = Annotated[
    float,
    _from_text(parse_duration, float),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema(
        {"type": "string", "pattern": _DURATION.pattern, "examples": ["500ms", "30s", "5m", "7d"]}
    ),
]
"""Seconds."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, when_used="json"),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": _SIZE.pattern}, {"type": "integer"}], "examples": ["64KiB"]}
    ),
]
"""Bytes."""


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
    WithJsonSchema({"type": "object", "description": "A match: keys are ANDed, lists ORed; any, all, not."}),
]
"""A match, parsed."""
