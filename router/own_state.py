"""What the daemon itself has to remember, in `state.db` of its `state_dir`: routes made by API, and pauses.

Written seldom, and with everything it has: what is answered survives power loss. For worker threads.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from logroute.router.database import StateError, connect, is_damage, prepare, transaction

FILE = "state.db"
VERSION = 1

_SCHEMA = """
create table routes (name text primary key, body text not null, changed real not null);
create table paused (name text primary key, since real not null);
"""


class Remembered(msgspec.Struct):
    """All of it."""

    routes: dict[str, Any] = msgspec.field(default_factory=dict)
    """What was said of each route that was made by API: a mapping, as in a configuration."""
    paused: dict[str, float] = msgspec.field(default_factory=dict)
    """Routes that deliver nothing now, and since when: seconds since the epoch."""


class OwnState:
    """Without a folder nothing is remembered."""

    def __init__(self, folder: Path | None) -> None:
        self._path = folder / FILE if folder is not None else None

    @property
    def stores(self) -> bool:
        return self._path is not None

    def load(self) -> tuple[Remembered, str]:
        """What there is; and what is wrong with it. A damaged file is moved aside. Raises StateError."""
        if self._path is None or not self._path.exists():
            return Remembered(), ""
        try:
            return self._read(), ""
        except (StateError, msgspec.MsgspecError) as error:
            cause = error.__cause__
            if isinstance(error, StateError) and not (isinstance(cause, sqlite3.Error) and is_damage(cause)):
                raise
            aside = self._path.with_name(f"{FILE}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
            try:
                for end in ("", "-wal", "-shm"):
                    part = self._path.with_name(FILE + end)
                    if part.exists():
                        part.rename(aside.with_name(aside.name + end))
            except OSError as failure:
                raise StateError.of("move aside", self._path, failure) from failure
            return Remembered(), f"{self._path} is damaged and was moved aside to {aside.name}: {error}"

    def _read(self) -> Remembered:
        with self._open() as database:
            routes = database.execute("select name, body from routes order by name").fetchall()
            paused = database.execute("select name, since from paused").fetchall()
        return Remembered({name: msgspec.json.decode(body) for name, body in routes}, dict(paused))

    def set_route(self, name: str, body: Any) -> None:
        """Raises StateError."""
        text = msgspec.json.encode(body).decode()
        self._write("insert or replace into routes values (?, ?, ?)", (name, text, time.time()))

    def remove_route(self, name: str) -> None:
        """Raises StateError."""
        self._write("delete from routes where name = ?", (name,))

    def set_paused(self, name: str, since: float | None) -> None:
        """Raises StateError."""
        if since is None:
            self._write("delete from paused where name = ?", (name,))
        else:
            self._write("insert or replace into paused values (?, ?)", (name, since))

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        if self._path is None:
            return
        with self._open() as database, transaction(database):
            database.execute(statement, values)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        assert self._path is not None
        try:
            with closing(connect(self._path)) as database:
                # Nobody else reads it. SQLite's index of its log is in our memory then, so that a full disk
                # does not keep us from reading what is there.
                database.execute("pragma locking_mode = exclusive")
                prepare(database, durable=True)
                (version,) = database.execute("pragma user_version").fetchone()
                if version == 0:
                    with transaction(database):
                        for statement in filter(str.strip, _SCHEMA.split(";")):
                            database.execute(statement)
                        database.execute(f"pragma user_version = {VERSION}")
                elif version > VERSION:
                    raise StateError(f"{self._path} is of a newer logroute: use that, or another state_dir")
                yield database
        except (sqlite3.Error, OSError) as error:
            raise StateError.of("use", self._path, error) from error
