"""The spool: what waits for a sink that is down or slow, on the disk, in the database of its route.

    spool(id, records, size_bytes, stored_bytes, first_time, body)    one row for each delivery, in order
    damaged(id, records, size_bytes, stored_bytes, first_time, body)  rows that could not be read any more

`size_bytes` is what the records hold in memory, `stored_bytes` the length of `body`, `first_time` the
engine's time of the first record. `body` is zstd over msgpack: a list with, for each batch, the number of its
origin (`origins.id`), its size in memory, whether every message still ends with its newline, whether times
are padded and sequences are counted, the last record of each stream before it, whether the records have
details, and the records.

A row is what one delivery takes, so that removing it and storing what the delivery has changed (a file's
length, a dead letter) is one transaction. Nothing here awaits; all but `pack` is for a worker thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

from logroute.router.record import Anchor, Batch, DetailedRecord, Reached, Record, full_time
from logroute.router.stored_origins import StoredOrigins

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

        body = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(self.body)
        return Row(self.id, self.records, self.size_bytes, len(body), self.first_time), body


class _Stored(msgspec.Struct, array_like=True, frozen=True):
    """A batch in a body. `Batch.after` is not in it: the checkpoint has moved there when it was spooled."""

    origin: int
    size_bytes: int
    newlines: bool
    ready: bool
    stdout: Anchor | None
    stderr: Anchor | None
    detailed: bool
    records: msgspec.Raw


_encoder = msgspec.msgpack.Encoder()
_decode_stored = msgspec.msgpack.Decoder(list[_Stored]).decode
_decode_plain = msgspec.msgpack.Decoder(list[Record]).decode
_decode_detailed = msgspec.msgpack.Decoder(list[DetailedRecord]).decode


def pack(id_: int, batches: Sequence[Batch], origins: StoredOrigins) -> Packed:
    """These batches as a row. On the trio thread: a sink may be making the same records ready."""
    stored = [
        _Stored(
            origins.number(batch.origin),
            batch.size_bytes,
            batch.newlines,
            batch.ready,
            batch.last_before("stdout"),
            batch.last_before("stderr"),
            any(type(record) is not Record for record in batch.lines),
            msgspec.Raw(_encode(batch.lines)),
        )
        for batch in batches
        if batch.lines
    ]
    first = min((full_time(batch.lines[0].time) for batch in batches if batch.lines), default="")
    records = sum(len(batch.lines) for batch in batches)
    size_bytes = sum(batch.size_bytes for batch in batches if batch.lines)
    return Packed(id_, records, size_bytes, first, _encoder.encode(stored))


def _encode(records: list[Record]) -> bytes:
    try:
        return _encoder.encode(records)
    except UnicodeEncodeError:
        return _encoder.encode(encodable(msgspec.to_builtins(records)))


def encodable(value: Any) -> Any:
    """A copy without halves of surrogate pairs, which a processor may have made, or a path may have."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {encodable(key): encodable(below) for key, below in value.items()}
    return [encodable(below) for below in value] if isinstance(value, list) else value


def unpack(body: bytes, origins: StoredOrigins) -> list[Batch]:
    """The batches of a row's body. Raises Damaged."""
    import zstandard

    try:
        size = zstandard.get_frame_parameters(body).content_size
        if not 0 < size < _MOST_BYTES:
            raise Damaged(f"its size cannot be {size}")
        stored = _decode_stored(zstandard.ZstdDecompressor().decompress(body))
        return [
            Batch(
                origins.origin(part.origin),
                list((_decode_detailed if part.detailed else _decode_plain)(part.records)),
                before=Reached(stdout=part.stdout, stderr=part.stderr),
                after=Reached(),
                size_bytes=part.size_bytes,
                newlines=part.newlines,
                ready=part.ready,
            )
            for part in stored
        ]
    except (zstandard.ZstdError, msgspec.MsgspecError, UnicodeDecodeError, KeyError) as error:
        raise Damaged(str(error) or type(error).__name__) from error


# --- the tables: in a worker thread, `insert` and below within a transaction --------------------------------


def totals(database: sqlite3.Connection) -> Totals:
    row = database.execute("select sum(records), sum(size_bytes), sum(stored_bytes) from spool").fetchone()
    return Totals(*(number or 0 for number in row))


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
