"""What a route must know after a restart: checkpoints and the lengths of written files, in SQLite.

One file a route, `routes/<name>.db` in the state directory, so that whatever belongs together is one
transaction. The tables are plain enough for the `sqlite3` tool:

    meta(key, value)                                 version, route, born
    checkpoints(origin, position, updated, gone)     position as JSON; gone: when the container was removed,
                                                     or was first missed
    files(path, fingerprint, fingerprint_bytes, length, details)

WAL mode with `synchronous=NORMAL`: a commit survives kill -9; power loss may take back the last commits,
never part of one. `durable=True` makes it `FULL`: a commit survives power loss too.

Without a state directory the same database lives in memory.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import structlog
import trio

from logroute.router.record import Position, Reached
from logroute.sinks import FileLength

VERSION = 1
FORGET_AFTER_S = 7 * 24 * 3600.0
"""Checkpoints are kept this long after their container is gone."""
TIDY_EVERY_S = 3600.0
"""How often a commit also looks for checkpoints that may be forgotten."""
CACHE_KIB = 256
"""Of each database in memory. What is stored is small, and the kernel caches it as well."""
STORE_WITHIN_S = 10.0
"""A disk that does not answer for so long is an error like any other: it must not keep us from ending."""

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

    def __init__(
        self,
        route: str,
        folder: Path | None,
        *,
        durable: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.route = route
        self.path = folder / "routes" / f"{quote(route, safe='')}.db" if folder is not None else None
        self._reached: dict[str, Position | Reached] = {}
        self.files: dict[str, FileLength] = {}
        self.born = 0.0
        """When the route was first seen, seconds since the epoch."""
        self._durable = durable
        self._clock = clock
        self._database: sqlite3.Connection | None = None
        self._dirty: dict[str, Position | Reached] = {}
        self._met: set[str] = set()
        """Origins that a source has shown us in this run."""
        self._gone: dict[str, float] = {}
        """Origins that are not there any more, and since when."""
        self._gone_changed: set[str] = set()
        self._forgotten: set[str] = set()
        self._tidy_at = 0.0
        self._stored_files: dict[str, FileLength] = {}
        """`files` as the database has them. Only the thread that writes it touches it."""
        self._lock = trio.Lock()
        self._threads = trio.CapacityLimiter(1)
        self._changed = trio.Event()
        self._log = structlog.get_logger("logroute.router").bind(route=route)

    # --- life ---------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open or create the database and load it. Raises StateError."""
        await trio.to_thread.run_sync(self._open, limiter=self._threads)
        self._tidy_at = trio.current_time() + TIDY_EVERY_S

    async def close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            await trio.to_thread.run_sync(database.close, limiter=self._threads)

    def _open(self) -> None:
        try:
            self._load()
        except (sqlite3.OperationalError, OSError) as error:  # locked, not permitted, no space … or not ours
            self._abandon()
            foreign = "; it is no state of a route: move it away" if "column" in str(error) else ""
            raise StateError(f"cannot open {self.path}: {error}{foreign}") from error
        except (sqlite3.DatabaseError, ValueError, msgspec.MsgspecError) as error:
            self._abandon()
            self._move_aside(error)
            try:
                self._load()
            except (sqlite3.Error, OSError) as second:
                self._abandon()
                raise StateError(f"cannot open {self.path} anew: {second}") from second
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _move_aside(self, error: Exception) -> None:
        """Keep what is damaged: the `sqlite3` tool may still read it. Closing it has put its log into it."""
        assert self.path is not None
        aside = self.path.with_name(f"{self.path.name}.corrupt-{time.time_ns()}")
        try:
            self.path.rename(aside)
        except OSError as failure:
            raise StateError(f"{self.path} is damaged ({error}) and cannot be moved: {failure}") from failure
        self._log.error(
            "the route's state is damaged: moved aside, beginning anew",
            path=str(self.path),
            moved_to=str(aside),
            error=str(error),
            hint="the route begins like a new one; records may arrive twice, or from `start` on",
        )

    def _load(self) -> None:
        if self.path is not None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = sqlite3.connect(
            self.path or ":memory:", check_same_thread=False, isolation_level=None, cached_statements=16
        )
        self._database = database
        if self.path is not None:
            database.execute(f"pragma cache_size = -{CACHE_KIB}")
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
        now = self._clock()
        self.born = float(meta.get("born", now))
        database.executemany(
            "insert or replace into meta values (?, ?)",
            [("version", str(VERSION)), ("route", self.route), ("born", repr(self.born))],
        )
        database.execute("delete from checkpoints where gone < ?", (now - FORGET_AFTER_S,))
        stored = database.execute("select origin, position, gone from checkpoints").fetchall()
        self._reached = {_text(origin): _decode_position(position) for origin, position, _ in stored}
        self._gone = {_text(origin): gone for origin, _, gone in stored if gone is not None}
        self.files = {
            _text(path): FileLength(
                fingerprint, size, length, msgspec.json.decode(details) if details else None
            )
            for path, fingerprint, size, length, details in database.execute(
                "select path, fingerprint, fingerprint_bytes, length, details from files"
            )
        }
        self._stored_files = dict(self.files)

    @property
    def positions(self) -> dict[str, Position]:
        """The checkpoint of every origin, by its key: as acknowledged, stored or not yet. Made each time."""
        return {origin: _position(reached) for origin, reached in self._reached.items()}

    def position(self, origin: str) -> Position | None:
        """The checkpoint of an origin; None if it was never seen."""
        reached = self._reached.get(origin)
        return _position(reached) if reached is not None else None

    # --- changes ------------------------------------------------------------------------------------

    def note(self, origin: str, position: Position | Reached) -> None:
        """The route has acknowledged this origin up to here. Stored with the next commit."""
        self._reached[origin] = self._dirty[origin] = position
        self._changed.set()

    def met(self, origin: str) -> None:
        """The origin is there, whatever was said of it before."""
        self._met.add(origin)
        if self._gone.pop(origin, None) is not None:
            self._gone_changed.add(origin)
            self._changed.set()

    def gone(self, origin: str) -> None:
        """The origin's container is removed: forget its checkpoint in a week.

        What was read of it may still be on its way: acknowledging that brings nothing back.
        """
        if origin in self._reached:
            self._gone[origin] = self._clock()
            self._gone_changed.add(origin)
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
            if trio.current_time() >= self._tidy_at:
                self._tidy()
            dirty, self._dirty = self._dirty, {}
            changed, self._gone_changed = self._gone_changed, set()
            gone = {origin: self._gone.get(origin) for origin in changed}
            forgotten, self._forgotten = self._forgotten, set()
            files = dict(self.files)
            # Whoever waits for a change waits for this very event, so an unset one stays.
            if self._changed.is_set():
                self._changed = trio.Event()
            failure: Exception = TimeoutError(f"it has not answered for {STORE_WITHIN_S:g} s")
            # Shielded for the few milliseconds it takes: what was acknowledged must not be half noted.
            with trio.move_on_after(STORE_WITHIN_S, shield=True):
                try:
                    await trio.to_thread.run_sync(
                        partial(self._store, dirty, gone, forgotten, files),
                        limiter=self._threads,
                        abandon_on_cancel=True,
                    )
                    return
                except (sqlite3.Error, ValueError, TypeError) as error:
                    failure = error
            # The thread that we no longer wait for may yet succeed; storing the same again changes nothing.
            self._dirty = dirty | self._dirty
            self._gone_changed |= changed
            self._forgotten |= forgotten
            self._changed.set()
            raise StateError(f"cannot store checkpoints in {self.path}: {failure}") from failure

    def _tidy(self) -> None:
        """Forget checkpoints of what is gone for long.

        An origin that was removed while we were away is missed here: others of its kind were shown to us in
        this run, for an hour or more, and it was not.
        """
        now = self._clock()
        self._tidy_at = trio.current_time() + TIDY_EVERY_S
        kinds = {_kind(origin) for origin in self._met}
        for origin in self._reached:
            if origin not in self._met and origin not in self._gone and _kind(origin) in kinds:
                self._gone[origin] = now
                self._gone_changed.add(origin)
        for origin in [o for o, since in self._gone.items() if since < now - FORGET_AFTER_S]:
            del self._gone[origin]
            self._gone_changed.discard(origin)
            self._met.discard(origin)
            self._reached.pop(origin, None)
            self._dirty.pop(origin, None)
            self._forgotten.add(origin)

    def _store(
        self,
        dirty: Mapping[str, Position | Reached],
        gone: Mapping[str, float | None],
        forgotten: Iterable[str],
        files: Mapping[str, FileLength],
    ) -> None:
        database = self._database
        assert database is not None
        now = self._clock()
        changed = [(p, f) for p, f in files.items() if self._stored_files.get(p) is not f]
        removed = [(_key(path),) for path in self._stored_files if path not in files]
        database.execute("begin immediate")
        try:
            database.executemany("delete from checkpoints where origin = ?", [(_key(o),) for o in forgotten])
            if dirty:
                database.executemany(
                    "insert into checkpoints values (?, ?, ?, null) on conflict (origin) do update set "
                    "position = excluded.position, updated = excluded.updated",
                    (
                        (_key(origin), _encode(_position(reached)).decode(), now)
                        for origin, reached in dirty.items()
                    ),
                )
            if gone:
                database.executemany(
                    "update checkpoints set gone = ? where origin = ?",
                    [(since, _key(origin)) for origin, since in gone.items()],
                )
            if changed:
                database.executemany(
                    "insert or replace into files values (?, ?, ?, ?, ?)",
                    [(_key(path), *_file_row(file)) for path, file in changed],
                )
            if removed:
                database.executemany("delete from files where path = ?", removed)
            database.execute("commit")
        except BaseException:
            if database.in_transaction:
                database.execute("rollback")
            raise
        self._stored_files = dict(files)


def _position(reached: Position | Reached) -> Position:
    return reached if isinstance(reached, Position) else reached.position()


def _kind(origin: str) -> str:
    return origin.partition(":")[0]


def _key(text: str) -> str | bytes:
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
