"""What a route must know after a restart, in SQLite: checkpoints, lengths of written files, its spool.

One file a route, `routes/<name>.db` in the state directory, so that whatever belongs together is one
transaction. The tables are plain enough for the `sqlite3` tool:

    meta(key, value)                                 version, route, born
    checkpoints, files                               see checkpoints.py
    origins, spool, damaged, deadletters             see stored_origins.py, spool.py, dead_letters.py

What a commit survives is told in database.py. Without a state directory the same database lives in memory.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import msgspec
import structlog
import trio

from logroute.router import checkpoints, dead_letters, spool, stored_origins
from logroute.router.checkpoints import FORGET_AFTER_S, as_position
from logroute.router.database import connect, give_back_space, prepare, transaction
from logroute.router.dead_letters import Letter, StoredLetter
from logroute.router.record import Batch, Position, Reached
from logroute.router.stored_origins import StoredOrigins
from logroute.sinks import FileLength

T = TypeVar("T")

VERSION = 2
TIDY_EVERY_S = 3600.0
"""How often a commit also looks for checkpoints that may be forgotten."""
STORE_WITHIN_S = 10.0
"""A disk that does not answer for so long is an error like any other: it must not keep us from ending."""

_SCHEMA = "create table if not exists meta (key text primary key, value text not null) without rowid;"
_SCHEMA += checkpoints.SCHEMA + stored_origins.SCHEMA + spool.SCHEMA + dead_letters.SCHEMA


class _Changes(msgspec.Struct):
    """What one transaction stores beside the files' lengths."""

    positions: dict[str, Position | Reached] = msgspec.field(default_factory=dict)
    gone: dict[str, float | None] = msgspec.field(default_factory=dict)
    """Since when an origin is gone; None where it is back."""
    forgotten: set[str] = msgspec.field(default_factory=set)
    removed: set[int] = msgspec.field(default_factory=set)
    """Rows of the spool."""
    letters: dict[int, dead_letters.LetterRow] = msgspec.field(default_factory=dict)
    """Dead letters, by their number: storing the same again must change nothing."""
    letters_removed: set[int] = msgspec.field(default_factory=set)

    def older_than(self, newer: _Changes) -> _Changes:
        """Both, where the newer ones win."""
        return _Changes(
            self.positions | newer.positions,
            self.gone | newer.gone,
            self.forgotten | newer.forgotten,
            self.removed | newer.removed,
            self.letters | newer.letters,
            self.letters_removed | newer.letters_removed,
        )


class StateError(Exception):
    """The state directory cannot be used; the text says why and what to do."""


class RouteState:
    """Checkpoints, file lengths and the spool of one route. `open` first; then `note` and `commit`.

    Invariant: `positions`, removed rows and `files` change together, without an await between, when a
    delivery has returned; so a commit at any instant stores a consistent picture.
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
        self.spooled = spool.Totals()
        """What the spool held when it was opened."""
        self.spooled_since = ""
        """The time of its first record then."""
        self.dead = dead_letters.Grave()
        """The dead letters, stored or not yet."""
        self._next_letter = 1
        self._changes = _Changes()
        self._origins = StoredOrigins()
        self._next_row = 1
        self._met: set[str] = set()
        """Origins that a source has shown us in this run."""
        self._gone: dict[str, float] = {}
        """Origins that are not there any more, and since when."""
        self._tidy_at = 0.0
        self._stored_files: dict[str, FileLength] = {}
        """`files` as the database has them. Only the thread that writes it touches it."""
        self._unused = True
        """The file has more space than it needs. Only the thread that writes it touches it."""
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
        self._database = database = connect(self.path)
        if self.path is not None:
            prepare(database, self.path, durable=self._durable)
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
        stored = checkpoints.load(database, now)
        self._reached, self._gone, self.files = stored.positions, stored.gone, stored.files
        self._stored_files = dict(self.files)
        self.spooled = spool.totals(database)
        self.spooled_since = spool.first_time(database)
        self._next_row = spool.newest(database) + 1
        self.dead = dead_letters.totals(database)
        self._next_letter = dead_letters.newest(database) + 1
        in_use = spool.holds_any(database) or dead_letters.holds_any(database)
        self._origins.load(database, in_use=in_use)

    @property
    def positions(self) -> dict[str, Position]:
        """The checkpoint of every origin, by its key: as acknowledged, stored or not yet. Made each time."""
        return {origin: as_position(reached) for origin, reached in self._reached.items()}

    def position(self, origin: str) -> Position | None:
        """The checkpoint of an origin; None if it was never seen."""
        reached = self._reached.get(origin)
        return as_position(reached) if reached is not None else None

    # --- changes ------------------------------------------------------------------------------------

    def note(self, origin: str, position: Position | Reached) -> None:
        """The route has acknowledged this origin up to here. Stored with the next commit."""
        self._reached[origin] = self._changes.positions[origin] = position
        self._changed.set()

    def met(self, origin: str) -> None:
        """The origin is there, whatever was said of it before."""
        self._met.add(origin)
        if self._gone.pop(origin, None) is not None:
            self._changes.gone[origin] = None
            self._changed.set()

    def gone(self, origin: str) -> None:
        """The origin's container is removed: forget its checkpoint in a week.

        What was read of it may still be on its way: acknowledging that brings nothing back.
        """
        if origin in self._reached:
            self._gone[origin] = self._changes.gone[origin] = self._clock()
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
            await self._commit("checkpoints")

    async def _commit(self, what: str, packed: Sequence[spool.Packed] = ()) -> list[spool.Row]:
        """One transaction with all that was noted and these rows. Raises StateError. The lock is held."""
        changes, self._changes = self._changes, _Changes()
        files = dict(self.files)
        origins = self._origins.new_rows()
        # Whoever waits for a change waits for this very event, so an unset one stays.
        if self._changed.is_set():
            self._changed = trio.Event()
        failure: Exception = TimeoutError(f"it has not answered for {STORE_WITHIN_S:g} s")
        # Shielded for the few milliseconds it takes: what was acknowledged must not be half noted.
        with trio.move_on_after(STORE_WITHIN_S, shield=True):
            try:
                rows, more = await trio.to_thread.run_sync(
                    partial(self._store, changes, files, packed, origins),
                    limiter=self._threads,
                    abandon_on_cancel=True,
                )
            except (sqlite3.Error, ValueError, TypeError) as error:
                failure = error
            else:
                self._origins.stored(origins)
                if more:
                    self._changed.set()
                return rows
        # The thread that we no longer wait for may yet succeed; storing the same again changes nothing.
        self._changes = changes.older_than(self._changes)
        self._changed.set()
        raise StateError(f"cannot store {what} in {self.path}: {failure}") from failure

    # --- the spool ----------------------------------------------------------------------------------

    async def put_rows(
        self, groups: Sequence[Sequence[Batch]], on_numbered: Callable[[Sequence[int]], None]
    ) -> list[spool.Row]:
        """Put everything that is not acknowledged into the spool, one row for each group, all or nothing.

        The checkpoints move behind it in the same transaction. `on_numbered` is called, before anything is
        stored, with the rows' numbers: a delivery of one of these groups that ends meanwhile is a row to
        be removed. Returns the rows, none for a group without records; raises StateError.
        """
        async with self._lock:
            if self._database is None:
                raise StateError(f"{self.path} is closed")
            first = self._next_row
            packed = [spool.pack(first + index, group, self._origins) for index, group in enumerate(groups)]
            behind: dict[str, Position | Reached] = {
                batch.origin.key: batch.reached for group in groups for batch in group
            }
            self._next_row += len(packed)
            on_numbered([row.id for row in packed])
            noted = self._changes.positions
            self._changes.positions = noted | behind
            try:
                rows = await self._commit("the spool", [row for row in packed if row.records])
            except StateError:
                # Not stored, or nobody knows: then the next commit takes it back.
                self._changes.removed.update(row.id for row in packed)
                for origin in behind:
                    if (reached := self._reached.get(origin)) is not None:
                        self._changes.positions[origin] = reached
                    else:
                        self._changes.positions.pop(origin, None)
                        self._changes.forgotten.add(origin)
                raise
            self._reached |= behind
            return rows

    def remove_row(self, row: int) -> None:
        """What is in this row of the spool is done with. Stored with the next commit."""
        self._changes.removed.add(row)
        self._changed.set()

    async def load_row(
        self, above: int, others: Collection[int]
    ) -> tuple[spool.Row, list[Batch] | None] | None:
        """The first row whose number is higher and none of the others', and its batches: None if unreadable.

        None if there is no such row. One that cannot be read has been put aside. Raises StateError.
        """
        async with self._lock:
            return await self._in_thread("read the spool", partial(self._load_row, above, set(others)))

    async def oldest_rows(self, above: int, others: Collection[int], stored_bytes: int) -> list[spool.Row]:
        """The first rows, likewise, that hold so many bytes on the disk together, or all there are.

        Raises StateError.
        """
        async with self._lock:
            return await self._in_thread(
                "read the spool", partial(self._oldest_rows, above, set(others), stored_bytes)
            )

    # --- dead letters -------------------------------------------------------------------------------

    def bury(self, letters: Sequence[Letter]) -> None:
        """These records will never be delivered. Stored with the next commit."""
        now = self._clock()
        for letter in letters:
            row = dead_letters.to_row(letter, self._origins.number(letter.origin), now)
            self._changes.letters[self._next_letter] = row
            self._next_letter += 1
            self.dead.letters += 1
            self.dead.size_bytes += dead_letters.size_of(row)
        if letters:
            self._changed.set()

    @property
    def newest_letter(self) -> int:
        """The highest number that a dead letter ever had; 0 if there was none."""
        return self._next_letter - 1

    async def letters_summary(self) -> dead_letters.Summary:
        """How many dead letters there are, and since when. Raises StateError."""
        return await self._read_letters(dead_letters.summary)

    async def letters(self, above: int = 0, count: int = 100) -> list[StoredLetter]:
        """The first dead letters whose number is higher. Raises StateError."""
        return await self._read_letters(lambda database: dead_letters.select(database, above, count))

    async def letter(self, id_: int) -> tuple[StoredLetter, Batch] | None:
        """One dead letter, and its record. Raises StateError."""
        return await self._read_letters(lambda database: dead_letters.get(database, id_, self._origins))

    async def _read_letters(self, read: Callable[[sqlite3.Connection], T]) -> T:
        def work() -> T:
            assert self._database is not None
            try:
                return read(self._database)
            except (msgspec.MsgspecError, KeyError) as error:
                raise sqlite3.DatabaseError(f"damaged: {error}") from error

        await self.commit()
        async with self._lock:
            return await self._in_thread("read the dead letters", work)

    async def forget_letters(self, ids: Sequence[int] | None) -> int:
        """Drop these dead letters, or all; how many there were. Raises StateError."""
        return await self._forget(lambda database: dead_letters.sizes(database, ids))

    async def forget_oldest_letters(self, size_bytes: int) -> int:
        """Drop the oldest dead letters that take so many bytes; how many. Raises StateError."""
        return await self._forget(lambda database: dead_letters.oldest(database, size_bytes))

    async def _forget(self, which: Callable[[sqlite3.Connection], dict[int, int]]) -> int:
        sizes = await self._read_letters(which)
        self._changes.letters_removed |= sizes.keys()
        self._without(sizes)
        await self.commit()
        return len(sizes)

    def _without(self, sizes: Mapping[int, int]) -> None:
        self.dead.letters -= len(sizes)
        self.dead.size_bytes -= sum(sizes.values())

    async def replay(self, ids: Sequence[int] | None, max_bytes: int, max_records: int) -> list[spool.Row]:
        """Move the first of these dead letters, or of all, into the spool: what one delivery may take.

        Returns the row; nothing where there are no such letters (any more). Raises StateError.
        """
        letters, batches = await self._read_letters(
            lambda database: dead_letters.take(database, ids, max_bytes, max_records, self._origins)
        )
        if not batches:
            return []
        async with self._lock:
            packed = spool.pack(self._next_row, batches, self._origins)
            self._next_row += 1
            self._changes.letters_removed |= letters.keys()
            try:
                rows = await self._commit("the spool", [packed])
            except StateError:
                # Not stored, or nobody knows: then the next commit takes it back.
                self._changes.letters_removed -= letters.keys()
                self._changes.letters |= letters
                self._changes.removed.add(packed.id)
                raise
            self._without({id_: dead_letters.size_of(row) for id_, row in letters.items()})
            return rows

    async def _in_thread(self, what: str, work: Callable[[], T]) -> T:
        """Raises StateError where the disk fails, or does not answer."""
        if self._database is None:
            raise StateError(f"cannot {what}: {self.path} is closed")
        failure: Exception = TimeoutError(f"it has not answered for {STORE_WITHIN_S:g} s")
        with trio.move_on_after(STORE_WITHIN_S):
            try:
                return await trio.to_thread.run_sync(work, limiter=self._threads, abandon_on_cancel=True)
            except sqlite3.Error as error:
                failure = error
        raise StateError(f"cannot {what} in {self.path}: {failure}") from failure

    def _load_row(self, above: int, others: Collection[int]) -> tuple[spool.Row, list[Batch] | None] | None:
        database = self._database
        assert database is not None
        found = spool.read(database, above, others)
        if found is None:
            return None
        row, body = found
        try:
            return row, spool.unpack(body, self._origins)
        except spool.Damaged as error:
            with transaction(database):
                spool.set_aside(database, row.id)
            self._log.error(
                "a row of the spool is damaged: put aside, its records are lost",
                path=str(self.path),
                table="damaged",
                row=row.id,
                records=row.records,
                since=row.first_time,
                error=str(error),
            )
            return row, None

    def _oldest_rows(self, above: int, others: Collection[int], stored_bytes: int) -> list[spool.Row]:
        assert self._database is not None
        return spool.oldest(self._database, above, others, stored_bytes)

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
                self._gone[origin] = self._changes.gone[origin] = now
        for origin in [o for o, since in self._gone.items() if since < now - FORGET_AFTER_S]:
            del self._gone[origin]
            self._changes.gone.pop(origin, None)
            self._met.discard(origin)
            self._reached.pop(origin, None)
            self._changes.positions.pop(origin, None)
            self._changes.forgotten.add(origin)

    def _store(
        self,
        changes: _Changes,
        files: Mapping[str, FileLength],
        packed: Sequence[spool.Packed],
        origins: Mapping[int, tuple[str, str]],
    ) -> tuple[list[spool.Row], bool]:
        """One transaction. The rows; and whether there is more unused space to be given back."""
        database = self._database
        assert database is not None
        now = self._clock()
        rows = [row.compressed() for row in packed]
        with transaction(database):
            checkpoints.store(database, changes.positions, changes.gone, changes.forgotten, now)
            checkpoints.store_files(database, files, self._stored_files)
            if origins:
                stored_origins.insert(database, origins)
            if changes.removed:
                spool.remove(database, changes.removed)
            if rows:
                spool.insert(database, rows)
            if changes.letters:
                dead_letters.insert(database, changes.letters)
            if changes.letters_removed:
                dead_letters.remove(database, changes.letters_removed)
        self._stored_files = dict(files)
        if changes.removed or self._unused:
            self._unused = give_back_space(database)
        return [row for row, _ in rows], self._unused


def _kind(origin: str) -> str:
    return origin.partition(":")[0]
