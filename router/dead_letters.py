"""Dead letters: records that a receiver will never take, with its reason, until somebody looks at them.

    deadletters(id, origin, container, failed, reason, time, stream, message, record, size_bytes)

`origin` is a number of `origins`, `failed` when it was rejected (RFC 3339), `reason` the receiver's own
words; `record` is the record as JSON, of which `time`, `stream` and `message` are there for the eye. They are
stored with the acknowledgement of the delivery that they were in, and removed in the transaction that puts
them back into the spool. Nothing here awaits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

import msgspec

from logroute.router.json_text import encodable, json_text
from logroute.router.position import Reached
from logroute.router.record import RECORD_OVERHEAD_BYTES, Batch, DetailedRecord, Origin, Record, detailed
from logroute.router.stored_origins import StoredOrigins
from logroute.router.times import iso_time

SCHEMA = """
create table if not exists deadletters (
    id integer primary key autoincrement, origin integer not null, container text not null,
    failed text not null, reason text not null, time text not null, stream text not null,
    message text not null, record text not null, size_bytes integer not null);
create index if not exists deadletters_sizes on deadletters (size_bytes);
"""
LISTED_CHARACTERS = 500
"""Of a message, as it is listed: a page of them must not take the memory of whole records."""
_COLUMNS = f"id, container, failed, reason, time, stream, substr(message, 1, {LISTED_CHARACTERS}), size_bytes"
LONGEST_REASON = 2000
"""Characters of a receiver's words that are kept."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(DetailedRecord).decode


class Letter(msgspec.Struct, frozen=True):
    """A record that will never be delivered, and why."""

    origin: Origin
    record: Record
    reason: str


class StoredLetter(msgspec.Struct, frozen=True):
    """A dead letter as it is listed."""

    id: int
    container: str
    failed: str
    """When it was rejected: RFC 3339, UTC."""
    reason: str
    time: str
    """The record's own."""
    stream: str
    message: str
    """Its first `LISTED_CHARACTERS`."""
    size_bytes: int


class Summary(msgspec.Struct, frozen=True, omit_defaults=True):
    """The dead letters of a route, in sum."""

    letters: int
    size_bytes: int
    oldest: str = ""
    """When the first of them was rejected: RFC 3339, UTC; empty if there is none."""
    newest: str = ""


class Grave(msgspec.Struct):
    """How many there are."""

    letters: int = 0
    size_bytes: int = 0


LetterRow = tuple[int, str, str, str, str, str, str, str, int]
"""What is inserted: all columns but `id`."""


def to_row(letter: Letter, number: int, now: float) -> LetterRow:
    """As it is inserted; `number` is its origin's, `now` is in seconds since the epoch."""
    record, origin = letter.record, letter.origin
    try:
        text = _encode(detailed(record)).decode()
    except Exception:  # whatever a processor has put there
        text = _encode(_as_text(detailed(record))).decode()
    return (
        number,
        encodable(origin.name or origin.file),
        iso_time(int(now * 1e9)),
        encodable(letter.reason[:LONGEST_REASON]),
        record.time,
        record.stream,
        encodable(record.message),
        text,
        len(text) + len(record.message) + RECORD_OVERHEAD_BYTES,
    )


def _as_text(record: DetailedRecord) -> DetailedRecord:
    """The same with nothing in it that cannot be stored."""
    values = {name: encodable(getattr(record, name)) for name in record.__struct_fields__ if name != "fields"}
    fields = msgspec.json.decode(json_text(record.fields)) if record.fields else None
    return DetailedRecord(**values, fields=fields)


def size_of(row: LetterRow) -> int:
    return row[-1]


# --- the table: in a worker thread, `insert` and `remove` within a transaction ------------------------------


def totals(database: sqlite3.Connection) -> Grave:
    count, size = database.execute("select count(*), sum(size_bytes) from deadletters").fetchone()
    return Grave(count, size or 0)


def summary(database: sqlite3.Connection) -> Summary:
    grave = totals(database)
    ends = [
        row[0]
        for order in ("asc", "desc")
        for row in database.execute(f"select failed from deadletters order by id {order} limit 1")
    ]
    return Summary(grave.letters, grave.size_bytes, *ends)


def newest(database: sqlite3.Connection) -> int:
    """The highest number ever in use: one that somebody has read must not mean another letter later."""
    found = database.execute("select seq from sqlite_sequence where name = 'deadletters'").fetchone()
    return int(found[0]) if found is not None else 0


def insert(database: sqlite3.Connection, rows: Mapping[int, LetterRow]) -> None:
    database.executemany(
        "insert or replace into deadletters values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(id_, *row) for id_, row in rows.items()],
    )


def select(database: sqlite3.Connection, above: int, count: int) -> list[StoredLetter]:
    """The first ones whose number is higher."""
    rows = database.execute(
        f"select {_COLUMNS} from deadletters where id > ? order by id limit ?", (above, count)
    )
    return [StoredLetter(*row) for row in rows]


def last(database: sqlite3.Connection, count: int) -> list[StoredLetter]:
    """The last ones, the very last first."""
    rows = database.execute(f"select {_COLUMNS} from deadletters order by id desc limit ?", (count,))
    return [StoredLetter(*row) for row in rows]


def get(database: sqlite3.Connection, id_: int, origins: StoredOrigins) -> tuple[StoredLetter, Batch] | None:
    """One of them, and its record. Raises ValueError where that cannot be read."""
    row = database.execute(
        f"select {_COLUMNS}, origin, record from deadletters where id = ?", (id_,)
    ).fetchone()
    if row is None:
        return None
    *columns, number, text = row
    return StoredLetter(*columns), _batch(origins.origin(number), [_decode(text)])


def take(
    database: sqlite3.Connection,
    ids: Iterable[int] | None,
    max_bytes: int,
    max_records: int,
    origins: StoredOrigins,
) -> tuple[dict[int, LetterRow], list[Batch]]:
    """The first of these, or of all, within the bounds, at least one: as rows, and as batches.

    One that cannot be read is left where it is.
    """
    wanted = ids if ids is None or isinstance(ids, range) else set(ids)
    batches: list[Batch] = []
    rows: dict[int, LetterRow] = {}
    size = 0
    for id_, *columns in database.execute("select * from deadletters order by id"):
        if wanted is not None and id_ not in wanted:
            continue
        row: LetterRow = tuple(columns)
        size += size_of(row)
        if rows and (size > max_bytes or len(rows) >= max_records):
            break
        try:
            origin, record = origins.origin(row[0]), _decode(row[7])
        except (KeyError, msgspec.MsgspecError):
            continue
        rows[id_] = row
        if not batches or batches[-1].origin is not origin:
            batches.append(_batch(origin, []))
        batches[-1].lines.append(record)
        batches[-1].size_bytes += size_of(row)
    return rows, batches


def remove(database: sqlite3.Connection, ids: Iterable[int]) -> None:
    database.executemany("delete from deadletters where id = ?", [(id_,) for id_ in ids])


def sizes(database: sqlite3.Connection, ids: Iterable[int] | None) -> dict[int, int]:
    """The sizes of these, or of all, that there are."""
    rows = database.execute("select id, size_bytes from deadletters")
    wanted = None if ids is None else set(ids)
    return {id_: size for id_, size in rows if wanted is None or id_ in wanted}


def oldest(database: sqlite3.Connection, size_bytes: int) -> dict[int, int]:
    """The sizes of the first ones that have so many bytes together."""
    found: dict[int, int] = {}
    for id_, size in database.execute("select id, size_bytes from deadletters order by id"):
        if size_bytes <= 0:
            break
        found[id_] = size
        size_bytes -= size
    return found


def holds_any(database: sqlite3.Connection) -> bool:
    (found,) = database.execute("select exists(select 1 from deadletters)").fetchone()
    return bool(found)


def _batch(origin: Origin, records: list[Record]) -> Batch:
    return Batch(origin, records, before=Reached(), after=Reached(), size_bytes=0, ready=True)
