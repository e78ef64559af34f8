"""Records, and their fields, made of columns: many at once; nothing is done for each of them but in C."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any

from logroute.router.record import DetailedRecord, Stream

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


def made_detailed(
    messages: Sequence[str],
    streams: Sequence[Stream],
    times: Sequence[str],
    *,
    levels: Sequence[str | None] | None = None,
    fields: Sequence[dict[str, Any] | None] | None = None,
    logged: Sequence[str] | None = None,
    at_root: bool = False,
) -> list[DetailedRecord]:
    """Records of which more is known than of plain ones, which they stand for."""
    given = (messages, streams, times, repeat(0), levels or repeat(None), fields or repeat(None))
    others = (repeat(False), repeat(None), repeat(""), logged or repeat(""), repeat(""), repeat(at_root))
    return list(map(DetailedRecord, *given, *others))
