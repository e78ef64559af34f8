"""The spool: what waits for a sink that is down or slow, on the disk, in the database of its route.

    spool(id, records, size_bytes, stored_bytes, first_time, body)    one row for each delivery, in order
    damaged(id, records, size_bytes, stored_bytes, first_time, body)  rows that could not be read any more

`size_bytes` is what the records hold in memory, `stored_bytes` the length of `body`, `first_time` the
engine's time of the first record. `body` is zstd over msgpack: a list with, for each batch, the number of its
origin (`origins.id`), its size in memory, whether every message still ends with its newline, whether times
are padded and sequences are counted, the last record of each stream before it, the messages, the streams, the
times, and further columns of records that have details. Columns cost a tenth less than records in a row, and
where nobody asks for the records of a batch again, none are made of them.

A row is what one delivery takes, so that removing it and storing what the delivery has changed (a file's
length, a dead letter) is one transaction. Nothing here awaits; all but `pack` and `unpack` is for a worker
thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, TypeVar

import msgspec

from logroute.router.column_batch import ColumnBatch
from logroute.router.json_text import encodable, json_text
from logroute.router.position import Anchor, Reached
from logroute.router.record import Batch, DetailedRecord, Origin, Record, Stream, total_size_bytes
from logroute.router.stored_origins import StoredOrigins
from logroute.router.times import full_time

T = TypeVar("T")

SCHEMA = """
create table if not exists spool (
    id integer primary key, records integer not null, size_bytes integer not null,
    stored_bytes integer not null, first_time text not null, body blob not null);
create index if not exists spool_sizes on spool (records, size_bytes, stored_bytes);
create table if not exists damaged (
    id integer primary key, records integer not null, size_bytes integer not null,
    stored_bytes integer not null, first_time text not null, body blob not null);
"""
# With the index the sums need no look at the rows themselves, of which there may be gigabytes.

# zstd is two fifths of what lines cost more through the disk, nearly all of it for the messages: other forms
# for streams and times, or the messages as one text, gain nothing. Level 3 takes 1.6 to 5 times as long for
# access logs, JSON and hex, and makes none of them smaller; levels below 1 save little, and take more space.
ZSTD_LEVEL = 1
_MOST_BYTES = 1 << 31
"""A body that claims to be larger than this is damaged: it is not even tried."""


class Row(msgspec.Struct, frozen=True):
    """A row of the table without its body."""

    id: int
    records: int
    size_bytes: int
    stored_bytes: int
    first_time: str


class Totals(msgspec.Struct):
    """Sums over rows."""

    records: int = 0
    size_bytes: int = 0
    stored_bytes: int = 0

    def add(self, row: Row) -> None:
        self.records += row.records
        self.size_bytes += row.size_bytes
        self.stored_bytes += row.stored_bytes

    def subtract(self, row: Row) -> None:
        self.records -= row.records
        self.size_bytes -= row.size_bytes
        self.stored_bytes -= row.stored_bytes


class Damaged(Exception):
    """A body cannot be read."""


class Packed(msgspec.Struct, frozen=True):
    """A row to be, its body not yet compressed."""

    id: int
    records: int
    size_bytes: int
    first_time: str
    body: bytes

    def compressed(self) -> tuple[Row, bytes]:
        import zstandard  # only where something is spooled

        body = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compress(self.body)
        return Row(self.id, self.records, self.size_bytes, len(body), self.first_time), body


class _Details(msgspec.Struct, array_like=True, frozen=True):
    """What detailed records have beyond plain ones, in the order of their fields; None where none has it."""

    sequences: list[int] | None
    levels: list[str | None] | None
    fields: list[dict[Any, Any] | str | None] | None
    """JSON as text where msgpack has no form for a value, such as a number of more than 64 bits."""
    truncated: list[bool] | None
    places: list[str | None] | None
    parts: list[str] | None
    # Rows that were written before these came do not have them.
    logged: list[str] | None = None
    errors: list[str] | None = None
    at_root: list[bool] | None = None

    @classmethod
    def of(cls, records: Sequence[Record]) -> _Details:
        return cls(
            _column([record.sequence for record in records], Record.sequence),
            _column([record.level for record in records], Record.level),
            _column([record.fields for record in records], None),
            _column([record.truncated for record in records], Record.truncated),
            _column([record.place for record in records], Record.place),
            _column([record.part for record in records], Record.part),
            _column([record.logged for record in records], Record.logged),
            _column([record.error for record in records], Record.error),
            _column([record.at_root for record in records], Record.at_root),
        )

    def columns(self) -> Iterator[Iterable[Any]]:
        yield self.sequences or repeat(Record.sequence)
        yield self.levels or repeat(Record.level)
        fields = self.fields or repeat(Record.fields)
        yield (msgspec.json.decode(each) if type(each) is str else each for each in fields)
        yield self.truncated or repeat(Record.truncated)
        yield self.places or repeat(Record.place)
        yield self.parts or repeat(Record.part)
        yield self.logged or repeat(Record.logged)
        yield self.errors or repeat(Record.error)
        yield self.at_root or repeat(Record.at_root)


def _column(values: list[T], default: T) -> list[T] | None:
    return values if values.count(default) < len(values) else None


class _Stored(msgspec.Struct, array_like=True, frozen=True):
    """A batch in a body. `Batch.after` is not in it: the checkpoint has moved there when it was spooled."""

    origin: int
    size_bytes: int
    newlines: bool
    ready: bool
    stdout: Anchor | None
    stderr: Anchor | None
    messages: list[str]
    streams: list[Stream]
    times: list[str]
    details: _Details | None

    @classmethod
    def of(cls, batch: Batch, origin: int) -> _Stored:
        return cls(
            origin,
            batch.size_bytes,
            batch.newlines,
            batch.ready,
            batch.last_before("stdout"),
            batch.last_before("stderr"),
            batch.messages,
            batch.streams,
            batch.times,
            None if batch.plain else _Details.of(batch.lines),
        )

    def batch(self, origin: Origin) -> Batch:
        """Raises Damaged."""
        if not len(self.messages) == len(self.streams) == len(self.times):
            raise Damaged("its columns are not equally long")
        before, after = Reached(stdout=self.stdout, stderr=self.stderr), Reached()
        if self.details is None:
            return ColumnBatch(
                origin,
                (self.messages, self.streams, self.times),
                before=before,
                after=after,
                size_bytes=self.size_bytes,
                newlines=self.newlines,
                ready=self.ready,
            )
        columns = self.details.columns()
        lines: list[Record] = [*map(DetailedRecord, self.messages, self.streams, self.times, *columns)]
        return Batch(
            origin,
            lines,
            before=before,
            after=after,
            size_bytes=self.size_bytes,
            newlines=self.newlines,
            ready=self.ready,
        )


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Stored]).decode


def pack(id_: int, batches: Sequence[Batch], origins: StoredOrigins) -> Packed:
    """These batches as a row. On the trio thread: a sink may be making the same records ready."""
    filled = [batch for batch in batches if len(batch)]
    stored = [_Stored.of(batch, origins.number(batch.origin)) for batch in filled]
    first = min((full_time(batch.first_time) for batch in filled), default="")
    records = sum(len(batch) for batch in filled)
    try:
        body = _encode(stored)
    except Exception:  # whatever a processor, or somebody's JSON, has put there: one record must not stop it
        body = _encode([_as_text(part) for part in stored])
    return Packed(id_, records, total_size_bytes(filled), first, body)


def _as_text(part: _Stored) -> _Stored:
    """The same with nothing in it that cannot be stored; its fields as JSON."""
    details = part.details
    if details is not None:
        details = msgspec.structs.replace(
            details,
            levels=encodable(details.levels),
            fields=details.fields and [each and json_text(each) for each in details.fields],
            places=encodable(details.places),
            parts=encodable(details.parts),
            logged=encodable(details.logged),
            errors=encodable(details.errors),
        )
    return msgspec.structs.replace(
        part, messages=encodable(part.messages), times=encodable(part.times), details=details
    )


def decompress(body: bytes) -> bytes:
    """What was packed. Raises Damaged. For a worker thread: it holds up nobody."""
    import zstandard

    try:
        size = zstandard.get_frame_parameters(body).content_size
        if not 0 < size < _MOST_BYTES:
            raise Damaged(f"its size cannot be {size}")
        return zstandard.ZstdDecompressor().decompress(body)
    except zstandard.ZstdError as error:
        raise Damaged(str(error)) from error


def unpack(packed: bytes, origins: StoredOrigins) -> list[Batch]:
    """The batches of a row. Raises Damaged. On the trio thread, as all that makes objects."""
    try:
        return [part.batch(origins.origin(part.origin)) for part in _decode(packed)]
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError) as error:
        raise Damaged(str(error) or type(error).__name__) from error


# --- the tables: in a worker thread, `insert` and below within a transaction --------------------------------


def totals(database: sqlite3.Connection) -> Totals:
    row = database.execute("select sum(records), sum(size_bytes), sum(stored_bytes) from spool").fetchone()
    return Totals(*(number or 0 for number in row))


def damaged_records(database: sqlite3.Connection) -> int:
    """Records in rows that were put aside because they cannot be read."""
    (records,) = database.execute("select coalesce(sum(records), 0) from damaged").fetchone()
    return int(records)


def first_time(database: sqlite3.Connection) -> str:
    """Of the first row; empty if there is none."""
    row = database.execute("select first_time from spool order by id limit 1").fetchone()
    return str(row[0]) if row is not None else ""


def newest(database: sqlite3.Connection) -> int:
    """The highest number ever in use; 0 if there is none."""
    row = database.execute(
        "select max(coalesce((select max(id) from spool), 0), coalesce((select max(id) from damaged), 0))"
    ).fetchone()
    return int(row[0])


def read(database: sqlite3.Connection, above: int, others: Collection[int]) -> tuple[Row, bytes] | None:
    """The first row whose number is higher and none of the others', with its body."""
    found = database.execute(
        "select id, records, size_bytes, stored_bytes, first_time, body from spool "
        f"where id > ? and id not in ({', '.join('?' * len(others))}) order by id limit 1",
        (above, *others),
    ).fetchone()
    return (Row(*found[:5]), found[5]) if found is not None else None


def oldest(database: sqlite3.Connection, above: int, others: Collection[int], stored_bytes: int) -> list[Row]:
    """The first rows, likewise, that have so many bytes together, or all there are."""
    rows: list[Row] = []
    for found in database.execute(
        "select id, records, size_bytes, stored_bytes, first_time from spool "
        f"where id > ? and id not in ({', '.join('?' * len(others))}) order by id",
        (above, *others),
    ):
        rows.append(Row(*found))
        stored_bytes -= rows[-1].stored_bytes
        if stored_bytes <= 0:
            break
    return rows


def insert(database: sqlite3.Connection, rows: Iterable[tuple[Row, bytes]]) -> None:
    # Or replace: storing the same once more, after an error that came too late, changes nothing.
    database.executemany(
        "insert or replace into spool values (?, ?, ?, ?, ?, ?)",
        [(row.id, row.records, row.size_bytes, row.stored_bytes, row.first_time, body) for row, body in rows],
    )


def remove(database: sqlite3.Connection, ids: Iterable[int]) -> None:
    database.executemany("delete from spool where id = ?", [(id_,) for id_ in ids])


def set_aside(database: sqlite3.Connection, id_: int) -> None:
    """Keep a row that cannot be read where nobody trips over it."""
    database.execute("insert or replace into damaged select * from spool where id = ?", (id_,))
    database.execute("delete from spool where id = ?", (id_,))


def holds_any(database: sqlite3.Connection) -> bool:
    """Whether there is a row, which refers to origins."""
    found = database.execute("select exists(select 1 from spool), exists(select 1 from damaged)").fetchone()
    return bool(found[0] or found[1])
