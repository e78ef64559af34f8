"""What parsers share: names with a type such as `status:int`, and texts that mean numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from logroute.router.record import DetailedRecord

ValueType = Literal["int", "float", "bool", "text"]
"""What a text in a line may mean."""

_TRUTH = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


def _written(text: str) -> str:
    """The text, if not Python alone takes it for a number: `10_000` may be an id."""
    if "_" in text or not text.isascii():
        raise ValueError(text)
    return text


def _int(text: str) -> int:
    return int(_written(text))


def _float(text: str) -> float:
    number = float(_written(text))
    if not math.isfinite(number):  # JSON has none
        raise ValueError(text)
    return number


def _bool(text: str) -> bool:
    if (truth := _TRUTH.get(text.lower())) is None:
        raise ValueError(text)
    return truth


CONVERT: dict[str, Callable[[str], Any]] = {"int": _int, "float": _float, "bool": _bool, "text": str}
"""Each raises ValueError for a text that means none."""


def name_and_type(written: str) -> tuple[str, str]:
    """`status:int` in its parts; without a type it is `text`. Raises ValueError, which says what there is."""
    name, colon, type_ = written.rpartition(":")
    if not colon:
        return written, "text"
    if type_ not in CONVERT:
        raise ValueError(f"there is no type {type_!r} for {name!r}, only {', '.join(CONVERT)}")
    if not name:
        raise ValueError(f"{written!r} has no name before its type")
    return name, type_


def converters(types: Mapping[str, str]) -> list[tuple[str, str, Callable[[str], Any]]]:
    """Name, type and converter of each that does not stay a text."""
    return [(name, type_, CONVERT[type_]) for name, type_ in types.items() if type_ != "text"]


def convert(
    record: DetailedRecord, found: dict[str, Any], wanted: list[tuple[str, str, Callable[[str], Any]]]
) -> bool:
    """Have values mean what they shall; whether all do. One that cannot stays a text, and has a mark.

    That does not quote it: the field says it, and whoever drops or redacts that, needs no more.
    """
    sound = True
    for name, type_, to in wanted:
        value = found.get(name)
        if isinstance(value, str):
            try:
                found[name] = to(value)
            except ValueError:
                record.error = f"{name}: is no {type_}"
                sound = False
    return sound
