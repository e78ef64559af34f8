"""Fields of many records, encoded column by column: those with the same keys together.

What a column of one key's values becomes is an encoding's (`OfColumn`); this groups records, and joins what
stands there of each. Text is text of bytes (`columns.BYTES`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any

from logroute.router.record import Batch
from logroute.router.times import are_times
from logroute.sinks.columns import FEW, Plain
from logroute.sinks.record_json import Known

Piece = str | Sequence[str]
"""The same text in all records, or a text for each of them."""
OfColumn = Callable[[str, Sequence[Any]], Sequence[Piece]]
"""What stands there of a key and its values."""
Object = Mapping[Any, Any]


class Detailed(Plain, frozen=True):
    """Columns of records of which more is known than their lines."""

    known: Known
    """With fields that are dicts, or None."""
    ids: Sequence[str]
    """The stable ids."""


def detailed(batch: Batch) -> Detailed | None:
    """Any batch in columns, or None: where records are few, or times are none."""
    if len(batch) < FEW:
        return None
    if not batch.ready:
        _ = batch.records
    known, times = Known.of(batch, objects=True), batch.times
    engines = known.engines(times)
    if not are_times(times):
        return None
    ids = known.whole_ids(batch, engines)
    return Detailed(times, batch.streams, batch.messages, False, known, ids)


def fields_texts(
    fields: Sequence[Object | None],
    apart: Callable[[Sequence[str]], bool],
    of_column: OfColumn,
    of_one: Callable[[Object], str],
) -> list[str]:
    """Of each record what stands there of its fields.

    `apart`: whether each of these keys has a place of its own. Where that is not so, or few have the same
    keys, `of_one` is asked, which says the same of one record's.
    """
    places: dict[tuple[Any, ...], list[int]] = {}
    for place, each in enumerate(fields):
        if each:
            places.setdefault((*each,), []).append(place)
    found = [""] * len(fields)
    for keys, where in places.items():
        alike = [each for place in where if (each := fields[place])]
        in_columns = len(alike) >= FEW and {*map(type, keys)} == {str} and apart(keys)
        texts = _texts(keys, alike, of_column) if in_columns else [*map(of_one, alike)]
        if len(texts) == len(found):
            return texts
        for place, text in zip(where, texts, strict=True):
            found[place] = text
    return found


def _texts(keys: Sequence[str], alike: Sequence[Object], of_column: OfColumn) -> list[str]:
    """Of records with the same keys."""
    pieces: list[Piece] = []
    for key, values in zip(keys, zip(*[each.values() for each in alike], strict=True), strict=True):
        for piece in of_column(key, values):
            if pieces and isinstance(piece, str) and isinstance(before := pieces[-1], str):
                pieces[-1] = before + piece
            else:
                pieces.append(piece)
    columns = [repeat(piece, len(alike)) if isinstance(piece, str) else piece for piece in pieces]
    return [*map("".join, zip(*columns, strict=True))]
