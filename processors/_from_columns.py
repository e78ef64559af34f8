"""Fields made of columns: many at once; nothing is done for each of them but in C."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import compress
from typing import Any

DictMaker = Callable[..., list[dict[str, Any]]]


@lru_cache(maxsize=256)
def dict_maker(values: tuple[str, ...]) -> DictMaker:
    """Makes a dict of each row: of values such as `row[3]`, each under the key that is given in its place.

    It is compiled, so that a dict is made at once, and in its size. Keys come from strangers: nothing of them
    is in what is compiled.
    """
    names = [f"key{place}" for place in range(len(values))]
    pairs = ", ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))
    made: DictMaker = eval(f"lambda rows, {', '.join(names)}: [{{{pairs}}} for row in rows]")
    return made


class ColumnFields:
    """Fields that are columns yet."""

    def __init__(
        self, columns: Mapping[str, Sequence[Any]], some: tuple[str, ...] = (), absent: Any = None
    ) -> None:
        self._columns = columns
        self._some = some
        """Those that are absent in some records …"""
        self._absent = absent
        """… where this stands for them."""

    def objects(self) -> list[dict[str, Any]]:
        rows = zip(*self._columns.values(), strict=True)
        names = tuple(f"row[{place}]" for place in range(len(self._columns)))
        objects = dict_maker(names)(rows, *self._columns)
        for name in self._some:
            for found in objects:
                if found[name] == self._absent:
                    del found[name]
        return objects

    def values(self) -> Sequence[Any]:
        return self.objects()

    def column(self, name: str) -> Sequence[Any] | None:
        if (column := self._columns.get(name)) is None:
            return [None] * len(next(iter(self._columns.values())))
        return (
            [None if value == self._absent else value for value in column] if name in self._some else column
        )

    def chosen(self, taken: bytes) -> ColumnFields:
        chosen = {name: [*compress(column, taken)] for name, column in self._columns.items()}
        return ColumnFields(chosen, self._some, self._absent)

    def part(self, start: int, end: int) -> ColumnFields:
        part = {name: column[start:end] for name, column in self._columns.items()}
        return ColumnFields(part, self._some, self._absent)
