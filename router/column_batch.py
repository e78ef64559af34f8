"""A batch in columns, as the spool stores it and parsers make it: records are made of them only where
somebody asks for those.

Sinks that encode column by column never do, and so need no object for each; nor does a dict of fields come
into being for a record that nobody takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, compress, repeat
from typing import Any, Protocol, TypeVar

import msgspec

from logroute.router.position import Position, Reached
from logroute.router.record import Batch, DetailedRecord, Origin, Record, Stream

Columns = tuple[list[str], list[Stream], list[str]]
"""Messages, streams, times."""


class Fields(Protocol):
    """Of each record its fields, which are no dicts yet."""

    def objects(self) -> Sequence[dict[str, Any] | None]:
        """They are; None: none. These are whoever's who asks."""

    def values(self) -> Sequence[Any]:
        """What JSON is made of; None or an empty object: none."""

    def column(self, name: str) -> Sequence[Any] | None:
        """What each record has under a name (`user.name` may be below `user`), or None.

        None at all where only the objects tell.
        """

    def chosen(self, taken: bytes) -> Fields:
        """Those of the records that have a 1 there."""

    def part(self, start: int, end: int) -> Fields:
        """Those of the records from one place to another."""


class Details(msgspec.Struct, frozen=True, gc=False):
    """What is known of records beside their lines, a column of each; None: nothing, of none of them."""

    levels: Sequence[str | None] | None = None
    fields: Fields | None = None
    logged: Sequence[str] | None = None
    """The engine's times, where the records' own are others."""
    at_root: bool = False

    def chosen(self, taken: bytes) -> Details:
        return Details(
            None if self.levels is None else [*compress(self.levels, taken)],
            None if self.fields is None else self.fields.chosen(taken),
            None if self.logged is None else [*compress(self.logged, taken)],
            self.at_root,
        )

    def part(self, start: int, end: int) -> Details:
        return Details(
            None if self.levels is None else self.levels[start:end],
            None if self.fields is None else self.fields.part(start, end),
            None if self.logged is None else self.logged[start:end],
            self.at_root,
        )


class ColumnBatch(Batch):
    """A batch in columns. Nobody changes these.

    Invariant: it has either columns or lines, because lines are made ready as records are. With details it is
    ready from the beginning.
    """

    __slots__ = ("_columns", "_details", "_made")

    def __init__(
        self,
        origin: Origin,
        columns: Columns,
        *,
        before: Position | Reached,
        after: Position | Reached,
        size_bytes: int,
        newlines: bool,
        ready: bool,
        settled: frozenset[Stream] = frozenset(),
        details: Details | None = None,
    ) -> None:
        super().__init__(
            origin,
            [],
            before=before,
            after=after,
            size_bytes=size_bytes,
            newlines=newlines,
            ready=ready,
            settled=settled,
        )
        self._columns: Columns | None = columns
        self._details = details

    @property
    def lines(self) -> list[Record]:
        if self._columns is not None:
            self.lines = self._records(*self._columns)
        return self._made

    @lines.setter
    def lines(self, lines: list[Record]) -> None:
        self._made = lines
        self._columns = self._details = None

    def _records(self, messages: list[str], streams: list[Stream], times: list[str]) -> list[Record]:
        details = self._details
        if details is None:
            return list(map(Record, messages, streams, times))
        fields = details.fields.objects() if details.fields is not None else repeat(None)
        given = (messages, streams, times, repeat(0), details.levels or repeat(None), fields)
        others = (repeat(False), repeat(None), repeat(""), details.logged or repeat(""), repeat(""))
        return list(map(DetailedRecord, *given, *others, repeat(details.at_root)))

    def __len__(self) -> int:
        return len(self._columns[0] if self._columns is not None else self._made)

    @property
    def details(self) -> Details | None:
        """What more is known of the records; None where that is nothing, or they are no columns any more."""
        return self._details

    def field(self, name: str) -> Sequence[Any] | None:
        """Of each record the field of a name, or None; None at all where only records tell."""
        if self._columns is None:
            return None
        if self._details is None or self._details.fields is None:
            return [None] * len(self)
        return self._details.fields.column(name)

    @property
    def plain(self) -> bool:
        return self._details is None if self._columns is not None else super().plain

    @property
    def messages(self) -> list[str]:
        return self._columns[0] if self._columns is not None else super().messages

    @property
    def bare(self) -> list[str]:
        """The messages without the newlines that may end them."""
        messages = self.messages
        if not self.newlines:
            return messages
        bare = "".join(messages).split("\n")
        del bare[-1]
        return bare if len(bare) == len(messages) else [message[:-1] for message in messages]

    @property
    def streams(self) -> list[Stream]:
        return self._columns[1] if self._columns is not None else super().streams

    @property
    def times(self) -> list[str]:
        return self._columns[2] if self._columns is not None else super().times

    @property
    def levels(self) -> Sequence[str | None]:
        if self._columns is None:
            return super().levels
        known = self._details.levels if self._details is not None else None
        return [None] * len(self) if known is None else known

    @property
    def truncated(self) -> Sequence[bool]:
        return [False] * len(self) if self._columns is not None else super().truncated

    @property
    def first_time(self) -> str:
        return self._columns[2][0] if self._columns is not None else super().first_time

    @property
    def last_time(self) -> str:
        return self._columns[2][-1] if self._columns is not None else super().last_time

    def with_columns(
        self, columns: Columns, details: Details | None, size_bytes: int | None = None
    ) -> ColumnBatch:
        """This batch holding others, which are ready, with the same positions."""
        return ColumnBatch(
            self.origin,
            columns,
            before=self.before,
            after=self.reached,
            size_bytes=self.size_bytes if size_bytes is None else size_bytes,
            newlines=False,
            ready=True,
            settled=self.settled,
            details=details,
        )

    def chosen(self, taken: bytes) -> ColumnBatch | None:
        """The batch with the records only that have a 1 there; None where it has no ready columns."""
        if self._columns is None or not self._ready:
            return None
        messages, streams, times = self._columns
        columns = [*compress(messages, taken)], [*compress(streams, taken)], [*compress(times, taken)]
        details = self._details.chosen(taken) if self._details is not None else None
        return self.with_columns(columns, details, self.size_bytes * len(columns[0]) // max(1, len(messages)))

    def parted(self, count: int) -> tuple[Batch, Batch]:
        if self._columns is None or not self._ready:
            return super().parted(count)
        share = self.size_bytes * count // len(self)
        return self._part(0, count, share), self._part(count, len(self), self.size_bytes - share)

    def _part(self, start: int, end: int, size_bytes: int) -> ColumnBatch:
        assert self._columns is not None
        messages, streams, times = self._columns
        columns = messages[start:end], streams[start:end], times[start:end]
        details = self._details.part(start, end) if self._details is not None else None
        return self.with_columns(columns, details, size_bytes)


# --- pieces -------------------------------------------------------------------------------------------


def in_columns(batch: Batch, size: int) -> Iterator[ColumnBatch]:
    """A batch in pieces of so many records, of which nothing is known but their lines; one of which more is
    known, in columns, whole. Nothing where it is neither.

    Messages of plain pieces may still have their newlines; times are whole, and ids nothing but times.
    """
    if isinstance(batch, ColumnBatch) and batch.details is not None:
        yield batch
        return
    times = batch.plain_times()
    newlines = times is not None
    if times is None:
        if not (batch.records and batch.plain):
            return
        times = batch.times
    messages, streams, count = batch.messages, batch.streams, len(batch)
    for start in range(0, count, size):
        piece = messages[start : start + size], streams[start : start + size], times[start : start + size]
        yield ColumnBatch(
            batch.origin,
            piece,
            before=batch.before,
            after=batch.reached,
            size_bytes=batch.size_bytes * len(piece[0]) // count,
            newlines=newlines,
            ready=not newlines,
            settled=batch.settled,
        )


def joined(batch: Batch, pieces: Sequence[Batch]) -> Batch:
    """What pieces of a batch have become, as one again; in columns where all of them are."""
    if len(pieces) == 1:
        return pieces[0]
    size = sum(piece.size_bytes for piece in pieces)
    columns = [piece for piece in pieces if isinstance(piece, ColumnBatch) and piece.details is not None]
    details = [piece.details for piece in columns if piece.details is not None]
    if len(columns) < len(pieces) or len({each.at_root for each in details}) > 1:
        return batch.with_records([record for piece in pieces for record in piece.records], size)
    return columns[0].with_columns(
        (
            [*chain.from_iterable([piece.messages for piece in columns])],
            [*chain.from_iterable([piece.streams for piece in columns])],
            [*chain.from_iterable([piece.times for piece in columns])],
        ),
        Details(
            _column([(each.levels, len(piece)) for each, piece in zip(details, columns, strict=True)], None),
            _fields([(each.fields, len(piece)) for each, piece in zip(details, columns, strict=True)]),
            _column([(each.logged, len(piece)) for each, piece in zip(details, columns, strict=True)], ""),
            details[0].at_root,
        ),
        size,
    )


def attributes(rows: Sequence[msgspec.Struct], name: str) -> list[Any]:
    """What each of them, which are of one type, mostly, has under a name; names are ours."""
    return _attributes_of(type(rows[0]), name)(rows) if rows else []


@lru_cache(maxsize=1024)
def _attributes_of(_type: type, name: str) -> Callable[[Sequence[Any]], list[Any]]:
    # Compiled for one type, code knows where an attribute is: a third of what `attrgetter` takes.
    made: Callable[[Sequence[Any]], list[Any]] = eval(f"lambda rows: [row.{name} for row in rows]")
    return made


T = TypeVar("T")


def _column(parts: Sequence[tuple[Sequence[T] | None, int]], nothing: T) -> list[T] | None:
    if all(part is None for part, _ in parts):
        return None
    given = [[nothing] * count if part is None else part for part, count in parts]
    return [*chain.from_iterable(given)]


def _fields(parts: Sequence[tuple[Fields | None, int]]) -> Fields | None:
    return None if all(part is None for part, _ in parts) else _JoinedFields(parts)


class _JoinedFields:
    """Those of pieces, one behind the other; None: none, of so many records."""

    def __init__(self, parts: Sequence[tuple[Fields | None, int]]) -> None:
        self._parts = parts

    def objects(self) -> list[dict[str, Any] | None]:
        given = [[None] * count if part is None else part.objects() for part, count in self._parts]
        return [*chain.from_iterable(given)]

    def values(self) -> list[Any]:
        given = [[None] * count if part is None else part.values() for part, count in self._parts]
        return [*chain.from_iterable(given)]

    def column(self, name: str) -> Sequence[Any] | None:
        found: list[Any] = []
        for part, count in self._parts:
            column = [None] * count if part is None else part.column(name)
            if column is None:
                return None
            found += column
        return found

    def chosen(self, taken: bytes) -> Fields:
        parts, start = list[tuple[Fields | None, int]](), 0
        for part, count in self._parts:
            here = taken[start : start + count]
            parts.append((part and part.chosen(here), here.count(1)))
            start += count
        return _JoinedFields(parts)

    def part(self, start: int, end: int) -> Fields:
        parts = list[tuple[Fields | None, int]]()
        for part, count in self._parts:
            first, last = max(0, start), min(count, end)
            if first < last:
                parts.append((part and part.part(first, last), last - first))
            start, end = start - count, end - count
        return _JoinedFields(parts)
