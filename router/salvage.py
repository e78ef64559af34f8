"""What can still be read of a damaged database, copied into a new one.

A page that cannot be read costs the rows that lie on it, not those around it: tables are read from both ends
towards the damage, and those with numbers then number by number. For worker threads.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from logroute.router import checkpoints, stored_origins
from logroute.router.database import connect, transaction

MOST_PROBED = 1_000_000
"""Numbers that are tried one by one between the two ends."""
LOST_NUMBERS = 1 << 32
"""More origins than a damaged page can have had."""
AT_ONCE = 64
"""Rows of one transaction."""

Row = tuple[Any, ...]


class Salvaged(msgspec.Struct):
    """What became of it."""

    foreign: bool = False
    """It never was a state of ours."""
    forgotten: bool = False
    """Not all checkpoints could be read."""
    lost_records: int = 0
    """Spooled records that could not be read, of those that are known."""
    spool_counted: bool = True
    """Whether all of them are known."""

    @property
    def hint(self) -> str:
        if self.foreign:
            return "it was not a state of a route: this one begins like a new one"
        if self.forgotten:
            return "what has no checkpoint any more is read from its beginning: records may arrive twice"
        return "all checkpoints are there"


class _Table(msgspec.Struct, frozen=True):
    name: str
    key: str
    numbered: bool
    check: Callable[[Row], object]
    """Raises where the row cannot be what it should be."""


def _a_row(row: Row) -> None:
    if not (all(type(number) is int for number in row[:4]) and type(row[5]) is bytes):
        raise ValueError("no row of a spool")


def _a_letter(row: Row) -> None:
    if not (type(row[0]) is int and type(row[1]) is int and type(row[9]) is int):
        raise ValueError("no dead letter")


_TABLES = (
    _Table("checkpoints", "origin", False, lambda row: checkpoints.decode_position(row[1])),
    _Table("names", "origin", False, lambda row: checkpoints.called(*row[1:])),
    _Table("files", "path", False, lambda row: checkpoints.file_length(*row[1:])),
    _Table("origins", "id", True, lambda row: stored_origins.decode(row[2])),
    _Table("spool", "id", True, _a_row),
    _Table("damaged", "id", True, _a_row),
    _Table("deadletters", "id", True, _a_letter),
)


def salvage(damaged: Path, fresh: sqlite3.Connection) -> Salvaged:
    """Copy what can be read. Raises sqlite3.Error where the new one cannot be written."""
    found = Salvaged()
    with closing(connect(damaged)) as old:
        old.execute("pragma query_only = on")
        found.foreign = _is_foreign(old)
        if found.foreign:
            return found
        for table in _TABLES:
            reader = _Reader(old, table, _columns(fresh, table.name))
            copied = _copy(reader, fresh)
            if table.name == "checkpoints":
                found.forgotten = not reader.whole
            if table.name == "origins" and not reader.whole:
                # A number that is lost must not mean another container: some records still have it.
                first = max(copied, default=0) + LOST_NUMBERS
                fresh.execute("insert or replace into meta values ('next_origin', ?)", (str(first),))
            if table.name == "spool" and not reader.whole:
                _count_lost(old, copied, found)
        # A route that does not know how far it was begins with everything there is: rather twice than never.
        born = None if found.forgotten else _born(old)
        fresh.execute("insert or replace into meta values ('born', ?)", (born or "0.0",))
    return found


def _is_foreign(old: sqlite3.Connection) -> bool:
    try:
        tables = {name for (name,) in old.execute("select name from sqlite_master where type = 'table'")}
    except sqlite3.DatabaseError:
        return False
    return not {"meta", "checkpoints"} <= tables or _columns(old, "meta") != ["key", "value"]


def _columns(database: sqlite3.Connection, table: str) -> list[str]:
    try:
        return [row[1] for row in database.execute(f"pragma table_info({table})")]
    except sqlite3.DatabaseError:
        return []


def _born(old: sqlite3.Connection) -> str | None:
    try:
        (born,) = old.execute("select value from meta where key = 'born'").fetchone()
        return repr(float(born))
    except (sqlite3.DatabaseError, TypeError, ValueError):
        return None


class _Reader:
    """The rows of a table that can be read, in no certain order."""

    def __init__(self, old: sqlite3.Connection, table: _Table, columns: list[str]) -> None:
        self.whole = True
        """Nothing was met that could not be read."""
        self.table = table
        self._old = old
        self._columns = columns

    def rows(self) -> Iterator[Row]:
        if _columns(self._old, self.table.name) != self._columns:
            self.whole = False
            return
        first = yield from self._from("asc", None)
        if self.whole:
            return
        last = yield from self._from("desc", first)
        if not self.table.numbered or not isinstance(last, int):
            return
        after = first if isinstance(first, int) else max(0, last - MOST_PROBED)
        for key in range(after + 1, min(last, after + MOST_PROBED)):
            try:
                row = self._old.execute(
                    f"select * from {self.table.name} where {self.table.key} = ?", (key,)
                ).fetchone()
            except sqlite3.DatabaseError:
                continue
            if row is not None:
                yield from self._checked(row)

    def _from(self, direction: str, end: Any) -> Generator[Row, None, Any]:
        """From one end to what cannot be read, or to the row of `end`: the key of the last one that could."""
        table, last = self.table, None
        try:
            query = f"select * from {table.name} order by {table.key} {direction}"
            for row in self._old.execute(query):
                if row[0] == end:
                    break
                last = row[0]
                yield from self._checked(row)
        except sqlite3.DatabaseError:
            self.whole = False
        return last

    def _checked(self, row: Row) -> Iterator[Row]:
        try:
            self.table.check(row)
        except (ValueError, TypeError, LookupError, msgspec.MsgspecError):
            self.whole = False
        else:
            yield row


def _copy(reader: _Reader, fresh: sqlite3.Connection) -> set[Any]:
    """The keys of the rows that were copied."""
    copied: set[Any] = set()
    rows: list[Row] = []

    def write() -> None:
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            with transaction(fresh):
                fresh.executemany(f"insert or ignore into {reader.table.name} values ({marks})", rows)
            rows.clear()

    for row in reader.rows():
        copied.add(row[0])
        rows.append(row)
        if len(rows) == AT_ONCE:
            write()
    write()
    return copied


def _count_lost(old: sqlite3.Connection, copied: set[Any], found: Salvaged) -> None:
    """The index over the sizes says what there was, if that can be read."""
    try:
        for id_, records in old.execute("select id, records from spool indexed by spool_sizes"):
            if id_ not in copied:
                found.lost_records += int(records)
    except (sqlite3.DatabaseError, ValueError, TypeError):
        found.spool_counted = False
