"""The file of a route's state: opened, told apart from what is not ours, and made anew where it is damaged.

    meta(key, value)    version, route, born

What can be read of a damaged file is copied into the new one (salvage.py). For worker threads.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import msgspec
import structlog

from logroute.router import checkpoints, dead_letters, spool, stored_origins
from logroute.router.database import StateError, connect, error_code, is_damage, prepare, set_durable
from logroute.router.position import Position, Reached
from logroute.router.salvage import salvage
from logroute.router.stored_origins import StoredOrigins
from logroute.sinks import FileLength

VERSION = 3

# With its version in one transaction: tables without one are somebody else's.
_SCHEMA = f"""
begin immediate;
create table if not exists meta (key text primary key, value text not null) without rowid;
insert or ignore into meta values ('version', '{VERSION}');
{checkpoints.SCHEMA}{stored_origins.SCHEMA}{spool.SCHEMA}{dead_letters.SCHEMA}
commit;
"""


class Contents(msgspec.Struct):
    """What a file holds when it is opened."""

    born: float
    """When the route was first seen, seconds since the epoch; 0 where nobody knows any more."""
    positions: dict[str, Position | Reached]
    names: dict[str, checkpoints.Called]
    gone: dict[str, float]
    files: dict[str, FileLength]
    spooled: spool.Totals
    spooled_since: str
    newest_row: int
    dead: dead_letters.Grave
    newest_letter: int
    origins: StoredOrigins
    lost_records: int = 0
    """Spooled records that a damaged file had, and that could not be read."""


class Recovered(Exception):
    """The file was damaged; what could be read of it is in a new one. What failed can be tried again."""

    def __init__(self, contents: Contents, reason: str) -> None:
        super().__init__(reason)
        self.contents = contents


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A route's file, to look at only, whether a daemon has it open or not.

    Raises StateError, also for what SQLite raises within. Whoever looks for long must not stay in one
    statement: what a daemon writes meanwhile could not leave SQLite's log.
    """
    try:
        with closing(
            sqlite3.connect(f"file:{quote(os.fsencode(path))}?mode=ro", uri=True, isolation_level=None)
        ) as database:
            version = _version(database)
            if version is None or version > VERSION:
                raise StateError(_newer(path, version) if version else f"{path} holds no state yet")
            yield database
    except (sqlite3.Error, ValueError) as error:
        raise StateError.of("read", path, error) from error


class StateFile:
    """One route's database, in a file or in memory (`path` None)."""

    def __init__(self, path: Path | None, route: str, *, durable: bool, clock: Callable[[], float]) -> None:
        self.path = path
        self.database: sqlite3.Connection | None = None
        self._route = route
        self.durable = durable
        """A commit survives power loss. May be changed while it is open; `keep` takes it over."""
        self._kept_durable = durable
        self.anew: Contents | None = None
        """The file was made anew, and whoever asked may have gone: to be taken over, then set to None."""
        self.unwanted = False
        """Nobody waits for it any more: whoever is opening it closes it."""
        self._clock = clock
        self._log = structlog.get_logger("logroute.router").bind(route=route)

    def open(self) -> Contents:
        """Open or create it. Raises StateError, with nothing changed."""
        with _turn(self.path):
            try:
                contents = self._open()
                if self.anew is not None:
                    contents.lost_records = self.anew.lost_records
                return contents
            finally:
                if self.unwanted:
                    self.close()

    def _open(self) -> Contents:
        self.close()
        try:
            try:
                return self._load()
            except (sqlite3.Error, ValueError, TypeError, msgspec.MsgspecError) as error:
                # The statements are always the same: one that is wrong has met tables that are not ours.
                damage = not isinstance(error, sqlite3.Error) or is_damage(error)
                if not damage and error_code(error) != sqlite3.SQLITE_ERROR:
                    raise
                return self._make_anew(error)
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise StateError.of("open", self.path, error) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        database, self.database = self.database, None
        if database is not None:
            database.close()

    def keep(self) -> None:
        """Have what `durable` says now, and a file that has its name, before a transaction."""
        if self.path is not None and self.database is not None and not self.path.exists():
            with _turn(self.path):
                self._write_again(self.path, self.database)
        if self._kept_durable != self.durable and self.path is not None and self.database is not None:
            set_durable(self.database, durable=self.durable)
            self._kept_durable = self.durable

    def recover(self, error: Exception) -> Recovered:
        """A damage was found in the open file: what to raise once there is a new one. Raises StateError."""
        try:
            with _turn(self.path):
                contents = self._make_anew(error)
        except (sqlite3.Error, OSError) as failure:
            self.close()
            raise StateError.of("make anew", self.path, failure) from failure
        return Recovered(contents, f"it was damaged ({error}), and is made anew")

    def _write_again(self, path: Path, database: sqlite3.Connection) -> None:
        """Somebody has removed the file: what is stored in it from now on would be gone with this process.

        All that it holds can still be read. Under another name until it is whole, because who opens a state
        takes what has its name.
        """
        whole = self._beside(".again")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        whole.unlink(missing_ok=True)
        database.execute("vacuum into ?", (str(whole),))
        whole.rename(path)
        self.close()
        self.database = connect(path)
        prepare(self.database, durable=self.durable)
        self._log.error("the route's state was removed while we run: written again", path=str(path))

    # --- opening ----------------------------------------------------------------------------------------

    def _load(self) -> Contents:
        """Raises StateError, OSError, sqlite3.Error, and ValueError or MsgspecError where it is damaged."""
        if self.path is not None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.path.exists() and (fresh := self._beside(".anew")).exists():
                # Whole, since what it was made of is moved aside; of that the log may still be here.
                self._move_aside()
                fresh.rename(self.path)
        # Kept before anything is done with it, so that whoever fails closes it.
        self.database = connect(self.path)
        version = _version(self.database)
        if version is not None and version > VERSION:
            raise StateError(f"{_newer(self.path, version)}, or another state_dir")
        return self._prepare(self._clock())

    def _prepare(self, born: float) -> Contents:
        """Have the tables, and read them; `born` is for a new file. A write only where something differs.

        So that a full disk does not keep us from starting.
        """
        database = self.database
        assert database is not None
        if self.path is not None:
            prepare(database, durable=self.durable)
        database.executescript(_SCHEMA)
        meta = dict(database.execute("select key, value from meta"))
        wanted = {"version": str(VERSION), "route": self._route, "born": meta.get("born", repr(born))}
        if changed := [item for item in wanted.items() if meta.get(item[0]) != item[1]]:
            database.executemany("insert or replace into meta values (?, ?)", changed)
        stored = checkpoints.load(database, self._clock())
        origins = StoredOrigins()
        in_use = spool.holds_any(database) or dead_letters.holds_any(database)
        origins.load(database, in_use=in_use, first=int(meta.get("next_origin", 1)))
        return Contents(
            born=float(wanted["born"]),
            positions=stored.positions,
            names=stored.names,
            gone=stored.gone,
            files=stored.files,
            spooled=spool.totals(database),
            spooled_since=spool.first_time(database),
            newest_row=spool.newest(database),
            dead=dead_letters.totals(database),
            newest_letter=dead_letters.newest(database),
            origins=origins,
        )

    # --- damage -----------------------------------------------------------------------------------------

    def _make_anew(self, error: Exception) -> Contents:
        """Another file with what can be read of this one, which is moved aside. One is whole at any time."""
        assert self.path is not None
        self.close()
        fresh = self._beside(".anew")
        for stale in _with_logs(fresh):
            stale.unlink(missing_ok=True)
        try:
            with closing(connect(fresh)) as database:
                prepare(database, durable=self.durable)
                database.executescript(_SCHEMA)
                found = salvage(self.path, database)
                # Closing it would not say that there was no space for it.
                (busy, *_) = database.execute("pragma wal_checkpoint(truncate)").fetchone()
            if busy or any(log.exists() and log.stat().st_size for log in _with_logs(fresh)[1:]):
                raise OSError(errno.ENOSPC, f"what could be read cannot be written to {fresh}")
        except BaseException:
            for part in _with_logs(fresh):
                part.unlink(missing_ok=True)
            raise
        aside = self._move_aside()
        fresh.rename(self.path)
        self._log.error(
            "the route's state is damaged, or not ours: moved aside, and made anew",
            path=str(self.path),
            moved_to=str(aside),
            error=str(error),
        )
        contents = self.anew = self._load()
        contents.lost_records = found.lost_records
        self._log.error(
            "what could be read of it is kept",
            checkpoints=len(contents.positions),
            spooled_records=contents.spooled.records,
            lost_records=found.lost_records if found.spool_counted else "unknown",
            dead_letters=contents.dead.letters,
            hint=found.hint,
        )
        return contents

    def _move_aside(self) -> Path:
        """What is there, with its log."""
        assert self.path is not None
        aside = self._beside(f".corrupt-{time.time_ns()}")
        for file, kept in zip(_with_logs(self.path), _with_logs(aside), strict=True):
            if file.exists():
                file.rename(kept)
        return aside

    def _beside(self, end: str) -> Path:
        assert self.path is not None
        return self.path.with_name(self.path.name + end)


_TURNS: dict[Path | None, threading.Lock] = {}


def _turn(path: Path | None) -> threading.Lock:
    """Held while a file is opened, or made anew: another who would do the same may still be at it."""
    return _TURNS.setdefault(path, threading.Lock()) if path is not None else threading.Lock()


def _with_logs(path: Path) -> list[Path]:
    return [path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))]


def _newer(path: Path | None, version: int) -> str:
    return (
        f"{path} was written by a newer logroute (format {version}, this one knows {VERSION}): "
        "use that version"
    )


def _version(database: sqlite3.Connection) -> int | None:
    """The version that wrote it; None if it is new. Raises ValueError where it is not ours."""
    tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
    if not tables:
        return None
    if "meta" not in tables:
        raise ValueError("it is somebody else's database")
    try:
        found = database.execute("select value from meta where key = 'version'").fetchone()
    except sqlite3.OperationalError as error:
        raise ValueError(f"it is somebody else's database: {error}") from error
    if found is None:
        raise ValueError("it is somebody else's database: it has no version")
    return int(found[0])
