"""How far each origin is acknowledged, under which name, and how long written files are: the tables.

    checkpoints(origin, position, updated, gone)     position as JSON; gone: when the container was removed,
                                                     or was first missed
    names(origin, name, until)                       what it was called when the route took it last; until:
                                                     up to where, as JSON, null: it still is
    files(path, fingerprint, fingerprint_bytes, length, details)

For worker threads, all but `load` within a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from logroute.router.position import MOST_BYTES, Position, Reached
from logroute.sinks import FileLength

SCHEMA = """
create table if not exists checkpoints (
    origin text primary key, position text not null, updated real not null, gone real) without rowid;
create table if not exists names (origin text primary key, name text not null, until text) without rowid;
create table if not exists files (
    path text primary key, fingerprint text not null, fingerprint_bytes integer not null,
    length integer not null, details text) without rowid;
"""
FORGET_AFTER_S = 7 * 24 * 3600.0
"""Checkpoints are kept this long after their container is gone."""

_encode = msgspec.json.Encoder().encode
decode_position = msgspec.json.Decoder(Position).decode
"""What is in the column `position`. Raises MsgspecError."""
_decode_details = msgspec.json.Decoder(dict[str, Any]).decode


def file_length(fingerprint: str, fingerprint_bytes: int, length: int, details: str | None) -> FileLength:
    """What is in the other columns of `files`. Raises ValueError, TypeError or MsgspecError."""
    if not (0 <= fingerprint_bytes < MOST_BYTES and 0 <= length < MOST_BYTES):
        raise ValueError(f"no file has {length} bytes, of which {fingerprint_bytes} are known")
    known = _decode_details(details) if details else None
    return FileLength(fingerprint, fingerprint_bytes, length, known)


class Called(msgspec.Struct, frozen=True):
    """What an origin was called when a route took it last."""

    name: str
    until: Position | None = None
    """Up to where, if the route does not take it under the name that it got then."""


def called(name: str, until: str | None) -> Called:
    """What is in the columns of `names`. Raises MsgspecError."""
    return Called(name, decode_position(until) if until is not None else None)


class Stored(msgspec.Struct):
    """What the tables hold, by origin and by path."""

    positions: dict[str, Position | Reached]
    names: dict[str, Called]
    gone: dict[str, float]
    """When their containers were removed, seconds since the epoch."""
    files: dict[str, FileLength]


def load(database: sqlite3.Connection, now: float) -> Stored:
    """All that is not to be forgotten by now. Raises ValueError or MsgspecError where it is damaged."""
    old = (now - FORGET_AFTER_S,)
    # A disk that is full must not keep us from starting: nothing is written that need not be.
    if database.execute("select exists(select 1 from checkpoints where gone < ?)", old).fetchone()[0]:
        database.execute(
            "delete from names where origin in (select origin from checkpoints where gone < ?)", old
        )
        database.execute("delete from checkpoints where gone < ?", old)
    stored = database.execute("select origin, position, gone from checkpoints").fetchall()
    names = database.execute("select origin, name, until from names").fetchall()
    return Stored(
        {_text(origin): decode_position(position) for origin, position, _ in stored},
        {_text(origin): called(name, until) for origin, name, until in names},
        {_text(origin): gone for origin, _, gone in stored if gone is not None},
        {
            _text(path): file_length(*row)
            for path, *row in database.execute(
                "select path, fingerprint, fingerprint_bytes, length, details from files"
            )
        },
    )


def store(
    database: sqlite3.Connection,
    positions: Mapping[str, Position | Reached],
    gone: Mapping[str, float | None],
    forgotten: Iterable[str],
    now: float,
) -> None:
    """Move checkpoints, note which origins are gone, or are back, and forget others."""
    if forgotten:
        database.executemany("delete from checkpoints where origin = ?", [(text_key(o),) for o in forgotten])
        database.executemany("delete from names where origin = ?", [(text_key(o),) for o in forgotten])
    if positions:
        database.executemany(
            "insert into checkpoints values (?, ?, ?, null) on conflict (origin) do update set "
            "position = excluded.position, updated = excluded.updated",
            (
                (text_key(origin), _encode(as_position(reached)).decode(), now)
                for origin, reached in positions.items()
            ),
        )
    if gone:
        database.executemany(
            "update checkpoints set gone = ? where origin = ?",
            [(since, text_key(origin)) for origin, since in gone.items()],
        )


def store_names(database: sqlite3.Connection, names: Mapping[str, Called | None]) -> None:
    """What origins are called; None: that is of no use any more."""
    database.executemany(
        "insert or replace into names values (?, ?, ?)",
        [
            (
                text_key(origin),
                text_key(called.name),
                _encode(called.until).decode() if called.until else None,
            )
            for origin, called in names.items()
            if called is not None
        ],
    )
    database.executemany(
        "delete from names where origin = ?",
        [(text_key(o),) for o, called in names.items() if called is None],
    )


def store_files(
    database: sqlite3.Connection, files: Mapping[str, FileLength], known: Mapping[str, FileLength]
) -> None:
    """Make the table hold these, where it holds the known ones."""
    changed = [(path, file) for path, file in files.items() if known.get(path) is not file]
    removed = [(text_key(path),) for path in known if path not in files]
    if changed:
        database.executemany(
            "insert or replace into files values (?, ?, ?, ?, ?)",
            [(text_key(path), *_file_row(file)) for path, file in changed],
        )
    if removed:
        database.executemany("delete from files where path = ?", removed)


def as_position(reached: Position | Reached) -> Position:
    return reached if isinstance(reached, Position) else reached.position()


def text_key(text: str) -> str | bytes:
    """As SQLite takes it: a path that is not UTF-8 (half surrogates in Python) becomes a blob."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def _text(key: str | bytes) -> str:
    return key if isinstance(key, str) else key.decode("utf-8", "surrogatepass")


def _file_row(file: FileLength) -> tuple[Any, ...]:
    details = _encode(file.details).decode() if file.details else None
    return file.fingerprint, file.fingerprint_bytes, file.length, details
