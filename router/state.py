"""What a route must know after a restart: checkpoints and the lengths of written files, in SQLite.

One file a route, `routes/<name>.db` in the state directory, so that whatever belongs together is one
transaction. The tables are plain enough for the `sqlite3` tool:

    meta(key, value)                                 version, route, born
    checkpoints(origin, position, updated, gone)     position as JSON; gone: when the container was removed
    files(path, fingerprint, fingerprint_bytes, length, details)

WAL mode with `synchronous=NORMAL`: a commit survives kill -9; power loss may take back the last commits,
never part of one. `durable=True` makes it `FULL`: a commit survives power loss too.

Without a state directory the same database lives in memory.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import structlog
import trio

from logroute.router.record import Position
from logroute.sinks import FileLength

VERSION = 1
FORGET_AFTER_S = 7 * 24 * 3600.0
"""Checkpoints are kept this long after their container is gone."""

_encode = msgspec.json.Encoder().encode
_decode_position = msgspec.json.Decoder(Position).decode

_SCHEMA = """
create table if not exists meta (key text primary key, value text not null) without rowid;
create table if not exists checkpoints (
    origin text primary key, position text not null, updated real not null, gone real) without rowid;
create table if not exists files (
    path text primary key, fingerprint text not null, fingerprint_bytes integer not null,
    length integer not null, details text) without rowid;
"""


class StateError(Exception):
    """The state directory cannot be used; the text says why and what to do."""


class RouteState:
    """Checkpoints and file lengths of one route. `open` first; then `note` and `commit`.

    Invariant: `positions` and `files` change together, without an await between, when a delivery has
    returned; so a commit at any instant stores a consistent picture.
    """

    def __init__(self, route: str, folder: Path | None, *, durable: bool = False) -> None:
        self.route = route
        self.path = folder / "routes" / f"{quote(route, safe='')}.db" if folder is not None else None
        self.positions: dict[str, Position] = {}
        """The checkpoint of every origin, by its key: as acknowledged, stored or not yet."""
        self.files: dict[str, FileLength] = {}
        self.born = 0.0
        """When the route was first seen, seconds since the epoch."""
        self._durable = durable
        self._database: sqlite3.Connection | None = None
        self._dirty: dict[str, Position] = {}
        self._gone: dict[str, float] = {}
        self._stored_files: dict[str, FileLength] = {}
        self._lock = trio.Lock()
        self._threads = trio.CapacityLimiter(1)
        self._changed = trio.Event()
        self._log = structlog.get_logger("logroute.router").bind(route=route)

    # --- life ---------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open or create the database and load it. Raises StateError."""
        await trio.to_thread.run_sync(self._open, limiter=self._threads)

    async def close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            await trio.to_thread.run_sync(database.close, limiter=self._threads)

    def _open(self) -> None:
        try:
            self._load()
        except sqlite3.DatabaseError as error:
            if self._database is not None:
                self._database.close()
            if self.path is None or isinstance(error, sqlite3.OperationalError):
                raise StateError(f"cannot open {self.path}: {error}") from error
            aside = self.path.with_name(f"{self.path.name}.corrupt-{time.time_ns()}")
            self.path.rename(aside)
            self._log.error(
                "the route's state is damaged: moved aside, beginning anew",
                path=str(self.path),
                moved_to=str(aside),
                error=str(error),
                hint="the route begins like a new one; records may arrive twice, or from `start` on",
            )
            self._load()

    def _load(self) -> None:
        if self.path is not None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = sqlite3.connect(
            self.path or ":memory:", check_same_thread=False, isolation_level=None, cached_statements=16
        )
        self._database = database
        if self.path is not None:
            database.execute("pragma auto_vacuum = incremental")
            database.execute("pragma journal_mode = wal")
            database.execute(f"pragma synchronous = {'full' if self._durable else 'normal'}")
        database.executescript(_SCHEMA)
        meta = dict(database.execute("select key, value from meta"))
        if int(meta.get("version", VERSION)) > VERSION:
            raise StateError(
                f"{self.path} was written by a newer logroute (format {meta['version']}, this one knows "
                f"{VERSION}): use that version, or another state_dir"
            )
        now = time.time()
        self.born = float(meta.get("born", now))
        database.executemany(
            "insert or replace into meta values (?, ?)",
            [("version", str(VERSION)), ("route", self.route), ("born", repr(self.born))],
        )
        database.execute("delete from checkpoints where gone < ?", (now - FORGET_AFTER_S,))
        self.positions = {
            origin: _decode_position(position)
            for origin, position in database.execute("select origin, position from checkpoints")
        }
        self.files = {
            path: FileLength(fingerprint, size, length, msgspec.json.decode(details) if details else None)
            for path, fingerprint, size, length, details in database.execute("select * from files")
        }
        self._stored_files = dict(self.files)

    # --- changes ------------------------------------------------------------------------------------

    def note(self, origin: str, position: Position) -> None:
        """The route has acknowledged this origin up to here. Stored with the next commit."""
        self.positions[origin] = position
        self._dirty[origin] = position
        self._changed.set()

    def gone(self, origin: str) -> None:
        """The origin's container is removed: forget its checkpoint in a week."""
        if origin in self.positions:
            self._gone[origin] = time.time()
            self._changed.set()

    async def wait_changed(self) -> None:
        """Wait until there is something that a commit would store."""
        await self._changed.wait()

    async def commit(self) -> None:
        """Store everything noted and the files' lengths, in one transaction.

        Raises StateError if it cannot be stored (disk full …); nothing is forgotten then, and the next
        commit stores it.
        """
        async with self._lock:
            if self._database is None:
                return
            dirty, self._dirty = self._dirty, {}
            gone, self._gone = self._gone, {}
            files = dict(self.files)
            self._changed = trio.Event()
            try:
                # Shielded for the few milliseconds it takes: what was acknowledged must not be half noted.
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._store, dirty, gone, files, limiter=self._threads)
            except sqlite3.Error as error:
                self._dirty = dirty | self._dirty
                self._gone = gone | self._gone
                self._changed.set()
                raise StateError(f"cannot store checkpoints in {self.path}: {error}") from error
            self._stored_files = files

    def _store(
        self, dirty: Mapping[str, Position], gone: Mapping[str, float], files: Mapping[str, FileLength]
    ) -> None:
        database = self._database
        assert database is not None
        now = time.time()
        changed = [(p, f) for p, f in files.items() if self._stored_files.get(p) is not f]
        removed = [(path,) for path in self._stored_files if path not in files]
        database.execute("begin immediate")
        try:
            if dirty:
                database.executemany(
                    "insert into checkpoints values (?, ?, ?, null) on conflict (origin) do update set "
                    "position = excluded.position, updated = excluded.updated, gone = null",
                    [(origin, _encode(position).decode(), now) for origin, position in dirty.items()],
                )
            if gone:
                database.executemany(
                    "update checkpoints set gone = ? where origin = ?", [(t, o) for o, t in gone.items()]
                )
            if changed:
                database.executemany(
                    "insert or replace into files values (?, ?, ?, ?, ?)",
                    [(path, *_file_row(file)) for path, file in changed],
                )
            if removed:
                database.executemany("delete from files where path = ?", removed)
            database.execute("commit")
        except BaseException:
            if database.in_transaction:
                database.execute("rollback")
            raise


def _file_row(file: FileLength) -> tuple[Any, ...]:
    details = _encode(file.details).decode() if file.details else None
    return file.fingerprint, file.fingerprint_bytes, file.length, details
