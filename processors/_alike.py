"""Lines of one program that are objects with the same keys: read as rows, which costs half of what dicts do.

Of such rows one can have a column, such as all levels, and dicts of the keys that are left.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import Any

import msgspec

from logroute.processors._from_columns import dict_maker
from logroute.processors._objects import DEEPEST, SHALLOW

FEW = 16
"""Fewer lines are not worth it."""
MOST_KEYS = 64
SHAPES = 64
"""So many sets of keys are known at a time: to get to know one takes as long as hundreds of lines."""

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class Alike:
    """Objects with the same keys."""

    def __init__(self, shape: _Shape, rows: Sequence[msgspec.Struct]) -> None:
        self._shape = shape
        self._rows = rows

    @property
    def keys(self) -> Collection[str]:
        return self._shape.names.keys()

    def column(self, key: str) -> list[Any]:
        name = self._shape.names[key]
        return [*map(attrgetter(name), self._rows)]

    def objects(self, without: Collection[str | None] = ()) -> list[dict[str, Any]]:
        """Each of them. Their keys are in the order in which the first one has them."""
        names = {key: name for key, name in self._shape.names.items() if key not in without}
        return dict_maker(tuple(f"row.{name}" for name in names.values()))(self._rows, *names)


class _Shape:
    def __init__(self, keys: Sequence[str], value: Any) -> None:
        self.names = {key: f"value{place}" for place, key in enumerate(keys)}
        row = msgspec.defstruct(
            "Row",
            [(name, value) for name in self.names.values()],
            rename={name: key for key, name in self.names.items()},
            forbid_unknown_fields=True,
            gc=False,
        )
        self.decode = msgspec.json.Decoder(row).decode_lines


_shape = lru_cache(maxsize=SHAPES)(_Shape)


def alike(lines: Sequence[str]) -> Alike | None:
    """Lines that are objects with the same keys; None where that is not so, or does not look so."""
    if len(lines) < FEW or "" in lines or {*map(_first, lines)} != {"{"} or {*map(_last, lines)} != {"}"}:
        return None
    if max(map(len, lines)) > SHALLOW and any(map(_may_be_deep, lines)):
        return None
    try:
        samples = [_decode_object(lines[index]) for index in some(len(lines))]
        return read("\n".join(lines), len(lines), samples)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return None


_first, _last = itemgetter(0), itemgetter(-1)


def _may_be_deep(line: str) -> bool:
    return len(line) > SHALLOW and line.count("{") + line.count("[") > DEEPEST


def some(count: int) -> tuple[int, ...]:
    """Which of so many lines are looked at by themselves before all of them are."""
    return 0, count // 2, count - 1


def read(text: str, count: int, samples: Sequence[Collection[str]], value: Any = Any) -> Alike | None:
    """So many lines, each of which begins with `{` and ends with `}`, if all have the keys of the samples.

    Raises what decoding raises.
    """
    keys, *others = map(tuple, samples)
    if any(other != keys for other in others) or not 0 < len(keys) <= MOST_KEYS:
        return None
    shape = _shape(keys, value)
    # Within an object no `}` is followed by `{`, and no newline is in a text: so no line goes on in the next,
    # and where there are as many objects as lines, each line is one.
    rows = shape.decode(text)
    return Alike(shape, rows) if len(rows) == count else None
