"""A batch in columns, as the spool stores it: records are made of them only where somebody asks for those.

Sinks that encode plain records column by column never do, and so need no object for each.
"""

from __future__ import annotations

from logroute.router.position import Position, Reached
from logroute.router.record import Batch, Origin, Record, Stream

Columns = tuple[list[str], list[Stream], list[str]]
"""Messages, streams, times."""


class ColumnBatch(Batch):
    """A batch of records of which nothing is known but their lines. Nobody changes its columns.

    Invariant: it has either columns or lines, because lines are made ready as records are.
    """

    __slots__ = ("_columns", "_made")

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
    ) -> None:
        super().__init__(
            origin, [], before=before, after=after, size_bytes=size_bytes, newlines=newlines, ready=ready
        )
        self._columns: Columns | None = columns

    @property
    def lines(self) -> list[Record]:
        if self._columns is not None:
            self.lines = list(map(Record, *self._columns))
        return self._made

    @lines.setter
    def lines(self, lines: list[Record]) -> None:
        self._made = lines
        self._columns = None

    def __len__(self) -> int:
        return len(self._columns[0] if self._columns is not None else self._made)

    @property
    def plain(self) -> bool:
        return self._columns is not None or super().plain

    @property
    def messages(self) -> list[str]:
        return self._columns[0] if self._columns is not None else super().messages

    @property
    def streams(self) -> list[Stream]:
        return self._columns[1] if self._columns is not None else super().streams

    @property
    def times(self) -> list[str]:
        return self._columns[2] if self._columns is not None else super().times

    @property
    def last_time(self) -> str:
        return self._columns[2][-1] if self._columns is not None else super().last_time
