"""The SQLite file of a route: opening it, transactions, and space given back.

WAL mode with `synchronous=NORMAL`: a commit survives kill -9; power loss may take back the last commits,
never part of one. `durable=True` makes it `FULL`: a commit survives power loss too.

For worker threads.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from logroute.sinks.folders import WHAT_TO_DO as SYSTEM_WHAT_TO_DO

SHARED_BLOCK_BYTES = 4096
"""SQLite's index of its log is a mapped file, of which it allocates one byte in so many. On a file system
with smaller blocks the rest is not there, and writing to it on a full disk ends the process (SIGBUS). There
the index is kept in our memory, and nobody else can read the file while we run."""
PAGE_BYTES = 8 << 10
"""Of a new database: the spool's blobs are large, and a page costs a system call or two."""
CACHE_KIB = 64
"""Of each database in memory. What is stored besides is small, and the kernel caches it as well."""
FREE_PAGES = 512
"""Unused pages that the file keeps, to write into; what is more is given back, so many in one commit."""
MOSTLY = 0.8
"""The share of unused pages from which on they are given back."""
LOG_BYTES = 4 << 20
"""What SQLite's log is cut back to once it is in the database."""


INCREMENTAL = 2
"""https://sqlite.org/pragma.html#pragma_auto_vacuum"""

PASSING = frozenset((sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_NOMEM))
"""What may be over when it is tried again."""
DAMAGE = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
"""What never will: a page that cannot be read."""


WHAT_TO_DO = {
    sqlite3.SQLITE_FULL: "free some space on its disk",
    sqlite3.SQLITE_IOERR: "check the disk, and whether it is full",
    sqlite3.SQLITE_BUSY: "end whatever else has it open",
    sqlite3.SQLITE_READONLY: "give the user that logroute runs as permission to write there",
    sqlite3.SQLITE_CANTOPEN: "let the user that logroute runs as write there, or set another state_dir",
}


class StateError(Exception):
    """What a route must remember cannot be read or stored; the text says why and what to do."""

    passing = False
    """It may be over when it is tried again: a full disk, one that does not answer."""

    @classmethod
    def of(cls, what: str, path: Path | None, error: BaseException) -> StateError:
        """`cannot <what> <path>: …`, from an error of SQLite, of the system, or a deadline."""
        code = error_code(error)
        if isinstance(error, OSError):
            todo = SYSTEM_WHAT_TO_DO.get(error.errno or 0)
            passing = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE)
        else:
            todo = WHAT_TO_DO.get(code or 0)
            passing = code in PASSING
        raised = cls(f"cannot {what} {path}: {error}" + (f"; {todo}" if todo else ""))
        raised.passing = passing or isinstance(error, TimeoutError)
        return raised


def error_code(error: BaseException) -> int | None:
    """SQLite's primary result code (https://sqlite.org/rescode.html); None where it is no error of SQLite."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if code is not None else None


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is not what it should be, and never will be."""
    return error_code(error) in DAMAGE


def connect(path: Path | None) -> sqlite3.Connection:
    """The database of this file, or one in memory; not yet read, so that whoever calls can close it."""
    database = sqlite3.connect(
        path or ":memory:", check_same_thread=False, isolation_level=None, cached_statements=16
    )
    if path is not None:
        try:
            if os.statvfs(path.parent).f_bsize < SHARED_BLOCK_BYTES:
                database.execute("pragma locking_mode = exclusive")  # before anything is read
        except BaseException:
            database.close()
            raise
    return database


def prepare(database: sqlite3.Connection, *, durable: bool) -> None:
    """How a file is kept. Raises sqlite3.Error."""
    database.execute(f"pragma cache_size = -{CACHE_KIB}")
    database.execute(f"pragma page_size = {PAGE_BYTES}")
    if database.execute("pragma auto_vacuum").fetchone() != (INCREMENTAL,):  # said again it would be written
        database.execute("pragma auto_vacuum = incremental")
    # Some distributions build SQLite so that what is deleted is overwritten with zeros. Of a row of the spool
    # that is as much to write, twice, as storing it was: a third of all that SQLite costs a line.
    database.execute("pragma secure_delete = off")
    database.execute("pragma journal_mode = wal")
    database.execute(f"pragma journal_size_limit = {LOG_BYTES}")
    set_durable(database, durable=durable)


def set_durable(database: sqlite3.Connection, *, durable: bool) -> None:
    """Whether a commit survives power loss; not within a transaction."""
    database.execute(f"pragma synchronous = {'full' if durable else 'normal'}")


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All or nothing."""
    database.execute("begin immediate")
    try:
        yield
        database.execute("commit")
    except BaseException:
        if database.in_transaction:
            database.execute("rollback")
        raise


def give_back_space(database: sqlite3.Connection) -> bool:
    """Some of what is unused, where that is most of the file; whether there is more.

    Pages at the end of the file that are in use are moved for it. While a spool grows and shrinks that would
    be much work for nothing, and a spool that was emptied must not hold up the checkpoints for long.
    """
    (unused,) = database.execute("pragma freelist_count").fetchone()
    (pages,) = database.execute("pragma page_count").fetchone()
    if unused <= FREE_PAGES or unused < MOSTLY * pages:
        return False
    # A script, because it is stepped to its end; `execute` would give back a single page.
    database.executescript(f"pragma incremental_vacuum({FREE_PAGES})")
    return bool(unused > 2 * FREE_PAGES)
