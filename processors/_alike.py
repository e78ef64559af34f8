"""Lines of one program that are objects with the same keys: read as rows, which costs half of what dicts do.

Of such rows one can have a column, such as all levels, and dicts of the keys that are left. The order of keys
within an object is no part of what it says: they have that of the first line that is read with them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from itertools import compress
from operator import itemgetter
from typing import Any

import msgspec

from logroute.processors._from_columns import dict_maker
from logroute.processors._objects import DEEPEST, SHALLOW
from logroute.router.column_batch import attributes

FEW = 50
"""Fewer lines are not worth it."""
MANY = 250
"""For so many it is worth to get to know their keys, which takes as long as a hundred lines or two; for fewer
only if they come …"""
SIGHTS = 8
"""… again and again."""
MOST_KEYS = 64
MOST_KEY_CHARACTERS = 1024
"""Of all keys together: they come from strangers, and those of many programs are remembered."""
SHAPES = 256
"""So many sets of keys are known at a time, and so many times as many have been seen."""
SEEN = 16

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
        return attributes(self._rows, self._shape.names[key])

    def objects(self, without: Collection[str | None] = ()) -> list[dict[str, Any]]:
        """Each of them, but for these keys."""
        names = {key: name for key, name in self._shape.names.items() if key not in without}
        return dict_maker(tuple(f"row.{name}" for name in names.values()))(self._rows, *names)

    def fields(self, without: Collection[str | None] = ()) -> RowFields | None:
        """The same, to be made later: nobody asks for columns any more. None where nothing is left."""
        names = self._shape.names
        if len(left := {key: name for key, name in names.items() if key not in without}) == 0:
            return None
        return RowFields(self._rows, left, tuple(name for key, name in names.items() if key in without))


class RowFields:
    """Fields that are rows yet. JSON is made of these as they are, without what is no field."""

    def __init__(
        self, rows: Sequence[msgspec.Struct], names: Mapping[str, str], others: tuple[str, ...]
    ) -> None:
        self._rows = rows
        self._names = names
        self._others = others
        """Of values that are no fields, and are to be taken out before JSON is made."""

    def objects(self) -> list[dict[str, Any]]:
        names = self._names
        return dict_maker(tuple(f"row.{name}" for name in names.values()))(self._rows, *names)

    def values(self) -> Sequence[Any]:
        if self._others:
            _remover(self._others)(self._rows)
            self._others = ()
        return self._rows

    def column(self, name: str) -> Sequence[Any] | None:
        if (attribute := self._names.get(name)) is not None:
            return attributes(self._rows, attribute)
        return None if name.partition(".")[0] in self._names else [None] * len(self._rows)

    def chosen(self, taken: bytes) -> RowFields:
        return RowFields([*compress(self._rows, taken)], self._names, self._others)

    def part(self, start: int, end: int) -> RowFields:
        return RowFields(self._rows[start:end], self._names, self._others)


@lru_cache(maxsize=256)
def _remover(names: tuple[str, ...]) -> Callable[[Sequence[msgspec.Struct]], None]:
    """Takes these values out of rows. It is compiled: names are ours."""
    assigned = " = ".join(f"row.{name}" for name in names)
    made: dict[str, Any] = {"UNSET": msgspec.UNSET}
    exec(f"def remove(rows):\n for row in rows:\n  {assigned} = UNSET\n", made)
    remove: Callable[[Sequence[msgspec.Struct]], None] = made["remove"]
    return remove


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


@lru_cache(maxsize=SEEN * SHAPES)
def _sights(_hash: int) -> list[int]:
    """How often keys of this hash were seen."""
    return [0]


def _is_worth_it(keys: Sequence[str], lines: int) -> bool:
    """Whether to read so many lines with these keys as rows."""
    if not 0 < len(keys) <= MOST_KEYS or len(together := "".join(keys)) > MOST_KEY_CHARACTERS:
        return False
    # A row knows no such names.
    if '"' in together or "\\" in together or (together and min(together) < " "):
        return False
    sights = _sights(hash(keys))
    sights[0] += 1
    return lines >= MANY or sights[0] >= SIGHTS


def alike(lines: Sequence[str], *, newlines: bool = False) -> Alike | None:
    """Lines that are objects with the same keys; None where that is not so, or does not look so.

    Each may still have the newline that ended it.
    """
    if len(lines) < FEW:
        return None
    try:
        last = _last_before_newline if newlines else _last
        if {*map(last, lines)} != {"}"} or {*map(_first, lines)} != {"{"}:
            return None
    except IndexError:  # one is empty
        return None
    if max(map(len, lines)) > SHALLOW and any(map(_may_be_deep, lines)):
        return None
    try:
        samples = [_decode_object(lines[index]) for index in some(len(lines))]
        return read(("" if newlines else "\n").join(lines), len(lines), samples)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


_first, _last, _last_before_newline = itemgetter(0), itemgetter(-1), itemgetter(-2)


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
    if any(other != keys for other in others) or not _is_worth_it(keys, count):
        return None
    shape = _shape(keys, value)
    # Within an object no `}` is followed by `{`, and no newline is in a text: so no line goes on in the next,
    # and where there are as many objects as lines, each line is one.
    rows = shape.decode(text)
    return Alike(shape, rows) if len(rows) == count else None
