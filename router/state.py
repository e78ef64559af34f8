"""What a route must know after a restart, in SQLite: checkpoints, lengths of written files, its spool.

One file a route, `routes/<name>.db` in the state directory, so that whatever belongs together is one
transaction. The tables are plain enough for the `sqlite3` tool:

    meta                                             see state_file.py
    checkpoints, files                               see checkpoints.py
    origins, spool, damaged, deadletters             see stored_origins.py, spool.py, dead_letters.py

What a commit survives is told in database.py. Without a state directory the same database lives in memory.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import msgspec
import structlog
import trio

from logroute.router import checkpoints, dead_letters, spool, stored_origins
from logroute.router.checkpoints import FORGET_AFTER_S, Called, as_position
from logroute.router.database import StateError, give_back_space, is_damage, transaction
from logroute.router.dead_letters import Letter, StoredLetter
from logroute.router.position import Position, Reached
from logroute.router.record import Batch
from logroute.router.state_file import Contents, Recovered, StateFile
from logroute.router.stored_origins import StoredOrigins
from logroute.sinks import FileLength

T = TypeVar("T")

TIDY_EVERY_S = 3600.0
"""How often a commit also looks for checkpoints that may be forgotten."""
SPOOL_AT_ONCE = 4
"""How many routes may write to their spools at the same time."""
STORE_WITHIN_S = 10.0
"""A disk that does not answer for so long is an error like any other: it must not keep us from ending."""


class _Changes(msgspec.Struct):
    """What one transaction stores beside the files' lengths."""

    positions: dict[str, Position | Reached] = msgspec.field(default_factory=dict)
    names: dict[str, Called | None] = msgspec.field(default_factory=dict)
    """What origins are called; None: it is of no use any more."""
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
            self.names | newer.names,
            self.gone | newer.gone,
            self.forgotten | newer.forgotten,
            self.removed | newer.removed,
            self.letters | newer.letters,
            self.letters_removed | newer.letters_removed,
        )


_TURNS = trio.lowlevel.RunVar[trio.Semaphore]("spool turns")


def _turns() -> trio.Semaphore:
    """What all routes of this run share: a body costs memory several times while it is packed and written."""
    try:
        return _TURNS.get()
    except LookupError:
        _TURNS.set(turns := trio.Semaphore(SPOOL_AT_ONCE))
        return turns


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
        self._names: dict[str, Called] = {}
        self.files: dict[str, FileLength] = {}
        self.born = 0.0
        """When the route was first seen, seconds since the epoch."""
        self._clock = clock
        self.lost_records = 0
        """Spooled records that a damaged file had, and that could not be read when it was opened."""
        self._file = StateFile(self.path, route, durable=durable, clock=clock)
        self.spooled = spool.Totals()
        """What the spool held when it was opened."""
        self.spooled_since = ""
        """The time of its first record then."""
        self.dead = dead_letters.Grave()
        """The dead letters, stored or not yet."""
        self.unstored_bytes = 0
        """What dead letters hold in memory because they are not stored yet."""
        self._next_letter = 1
        self._changes = _Changes()
        self._storing: _Changes | None = None
        """What a transaction is storing now."""
        self._open = False
        self._patience_s = STORE_WITHIN_S
        self._waiting: set[trio.CancelScope] = set()
        """Around whoever waits for the disk now."""
        self._origins = StoredOrigins()
        self._next_row = 1
        self._met: set[str] = set()
        """Origins that a source has shown us in this run."""
        self._gone: dict[str, float] = {}
        """Origins that are not there any more, and since when."""
        self._tidy_at = 0.0
        self._stored_files: dict[str, FileLength] = {}
        """`files` as the database has them. Only the thread that writes it touches it."""
        self._recount = False
        """The dead letters are to be counted anew with the next transaction."""
        self._recounted: dead_letters.Grave | None = None
        self._unused = True
        """The file has more space than it needs. Only the thread that writes it touches it."""
        self._lock = trio.Lock()
        self._letters_turn = trio.Lock()
        """Who replays or drops dead letters has it until they are stored as removed: two who did so side by
        side would deliver a letter twice, and count it twice."""
        self._threads = trio.CapacityLimiter(1)
        self._changed = trio.Event()
        self._log = structlog.get_logger("logroute.router").bind(route=route)

    # --- life ---------------------------------------------------------------------------------------

    async def open(self, *, within_s: float = math.inf) -> None:
        """Open or create the database and load it. Raises StateError; then it may be tried again.

        Of a large file that is damaged a whole copy is made, which takes its time, and goes on meanwhile.
        """
        self._file.unwanted = False
        contents = await self._in_thread("open", self._file.open, within_s=within_s)
        self._open, self._file.anew = True, None
        self._tidy_at = trio.current_time() + TIDY_EVERY_S
        self.born = contents.born
        self._reached, self._gone, self.files = contents.positions, contents.gone, contents.files
        self._names = contents.names
        self._stored_files = dict(self.files)
        self.spooled, self.spooled_since = contents.spooled, contents.spooled_since
        self.lost_records = contents.lost_records
        self._next_row = contents.newest_row + 1
        self.dead = contents.dead
        self._next_letter = contents.newest_letter + 1
        self._origins = contents.origins

    def delete(self) -> None:
        """Forget all of it, for good: its file is removed. Closed, in a worker thread. Raises OSError."""
        if self.path is not None:
            for end in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + end).unlink(missing_ok=True)

    async def close(self) -> None:
        """Also where it could not be opened in time, and may be opened yet."""
        self._open, self._file.unwanted = False, True
        await trio.to_thread.run_sync(self._file.close, limiter=self._threads, abandon_on_cancel=True)

    @property
    def patience_s(self) -> float:
        """How long the disk may take for an answer."""
        return self._patience_s

    @patience_s.setter
    def patience_s(self, seconds: float) -> None:
        self._patience_s = seconds
        for scope in self._waiting:
            scope.deadline = min(scope.deadline, trio.current_time() + seconds)

    def set_durable(self, durable: bool) -> None:
        """Whether a commit survives power loss, from the next one on."""
        self._file.durable = durable

    @property
    def _database(self) -> sqlite3.Connection | None:
        return self._file.database

    def _take_over(self, contents: Contents) -> None:
        """The file was made anew while we ran: what we know besides is to be stored again."""
        changes = self._changes
        known = _Changes(dict(self._reached), dict(self._names), dict(self._gone))
        self._changes = known.older_than(changes)
        self._stored_files = contents.files
        self._origins.store_again()
        letters = changes.letters | (self._storing.letters if self._storing is not None else {})
        self._count_dead(contents.dead, letters)
        self._recount = True  # some may have been about to be removed
        self._changed.set()

    def _count_dead(self, stored: dead_letters.Grave, letters: Mapping[int, dead_letters.LetterRow]) -> None:
        """So many are stored, and these are not yet."""
        unstored = list(map(dead_letters.size_of, letters.values()))
        self.dead.letters = stored.letters + len(unstored)
        self.dead.size_bytes = stored.size_bytes + sum(unstored)

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

    def called(self, origin: str) -> Called | None:
        """What an origin was called when the route took it last; None where that is not known."""
        return self._names.get(origin)

    def call(self, origin: str, called: Called | None) -> None:
        """It is called so, for this route; None: what it was called matters to nobody any more."""
        if called != self._names.get(origin):
            if called is None:
                del self._names[origin]
            else:
                self._names[origin] = called
            self._changes.names[origin] = called
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
            if not self._open:
                return
            if trio.current_time() >= self._tidy_at:
                self._tidy()
            await self._commit("checkpoints")

    async def _commit(self, what: str, packed: Sequence[spool.Packed] = ()) -> list[spool.Row]:
        """One transaction with all that was noted and these rows. Raises StateError. The lock is held."""
        changes = self._storing = self._changes
        self._changes = _Changes()
        files = dict(self.files)
        origins = self._origins.new_rows()
        # Whoever waits for a change waits for this very event, so an unset one stays.
        if self._changed.is_set():
            self._changed = trio.Event()
        try:
            # Shielded for the few milliseconds it takes: what was acknowledged must not be half noted.
            with trio.CancelScope(shield=True):
                rows, more = await self._in_thread(
                    f"store {what} in", partial(self._store, changes, files, packed, origins)
                )
        except BaseException:
            # A thread that we no longer wait for may yet succeed; storing the same again changes nothing.
            self._changes = changes.older_than(self._changes)
            self._changed.set()
            raise
        finally:
            self._storing = None
        self._origins.stored(origins)
        self.unstored_bytes = sum(map(dead_letters.size_of, self._changes.letters.values()))
        recounted, self._recounted = self._recounted, None
        if recounted is not None:
            self._count_dead(recounted, self._changes.letters)
        if more:
            self._changed.set()
        return rows

    # --- the spool ----------------------------------------------------------------------------------

    async def put_rows(
        self, groups: Sequence[Sequence[Batch]], on_numbered: Callable[[Sequence[int]], None]
    ) -> list[spool.Row]:
        """Put everything that is not acknowledged into the spool, one row for each group, all or nothing.

        The checkpoints move behind it in the same transaction. `on_numbered` is called, before anything is
        stored, with the rows' numbers: a delivery of one of these groups that ends meanwhile is a row to
        be removed. Returns the rows, none for a group without records; raises StateError.
        """
        async with self._lock, _turns():
            if not self._open:
                raise StateError(f"{self.path} is closed")
            first = self._next_row
            packed = []
            for index, group in enumerate(groups):
                packed.append(spool.pack(first + index, group, self._origins))
                await trio.lowlevel.checkpoint()  # others wait for no more than one row
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
            found = await self._in_thread("read the spool in", partial(self._load_row, above, set(others)))
            if found is None:
                return None
            row, packed = found
            try:
                if isinstance(packed, spool.Damaged):
                    raise packed
                return row, spool.unpack(packed, self._origins)
            except spool.Damaged as error:
                await self._in_thread("read the spool in", partial(self._set_aside, row, str(error)))
                return row, None

    async def oldest_rows(self, above: int, others: Collection[int], stored_bytes: int) -> list[spool.Row]:
        """The first rows, likewise, that hold so many bytes on the disk together, or all there are.

        Raises StateError.
        """
        async with self._lock:
            return await self._in_thread(
                "read the spool in", partial(self._oldest_rows, above, set(others), stored_bytes)
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
            self.unstored_bytes += dead_letters.size_of(row)
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

    async def newest_letters(self, count: int) -> list[StoredLetter]:
        """The last dead letters, the very last first. Raises StateError."""
        return await self._read_letters(lambda database: dead_letters.last(database, count))

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
            return await self._in_thread("read the dead letters in", work)

    async def forget_letters(self, ids: Sequence[int] | None) -> int:
        """Drop these dead letters, or all; how many there were. Raises StateError."""
        return await self._forget(lambda database: dead_letters.sizes(database, ids))

    async def forget_oldest_letters(self, size_bytes: int) -> int:
        """Drop the oldest dead letters that take so many bytes; how many. Raises StateError."""
        return await self._forget(lambda database: dead_letters.oldest(database, size_bytes))

    async def _forget(self, which: Callable[[sqlite3.Connection], dict[int, int]]) -> int:
        async with self._letters_turn:
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
        async with self._letters_turn:
            letters, batches = await self._read_letters(
                lambda database: dead_letters.take(database, ids, max_bytes, max_records, self._origins)
            )
            return await self._to_spool(letters, batches) if batches else []

    async def _to_spool(
        self, letters: dict[int, dead_letters.LetterRow], batches: list[Batch]
    ) -> list[spool.Row]:
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

    async def _in_thread(self, what: str, work: Callable[[], T], *, within_s: float | None = None) -> T:
        """Raises StateError where the disk fails, or does not answer.

        A file that turns out to be damaged is made anew; then what was to be done can be tried again.
        """
        within_s = self.patience_s if within_s is None else within_s
        failure: Exception = TimeoutError(f"it has not answered for {within_s:g} s")
        with trio.move_on_after(within_s) as scope, self._waits(scope):
            try:
                return await trio.to_thread.run_sync(
                    partial(self._in_order, work), limiter=self._threads, abandon_on_cancel=True
                )
            except StateError:
                raise
            except Recovered as recovered:
                self._take_over(recovered.contents)
                self._file.anew = None
                failure = recovered
            except Exception as error:  # whatever it is: nothing is stored, and nothing forgotten
                failure = error
        raise StateError.of(what, self.path, failure) from failure

    @contextmanager
    def _waits(self, scope: trio.CancelScope) -> Iterator[None]:
        self._waiting.add(scope)
        try:
            yield
        finally:
            self._waiting.discard(scope)

    def _in_order(self, work: Callable[[], T]) -> T:
        """Do it, in the thread; raises Recovered where the file had to be made anew, or opened, first."""
        if self._open and self._file.database is None:
            raise Recovered(self._file.open(), "it was closed after an error, and is open again")
        if self._open and self._file.anew is not None:
            raise Recovered(self._file.anew, "it was damaged, and was made anew meanwhile")
        try:
            return work()
        except sqlite3.Error as error:
            if self.path is None or not is_damage(error):
                raise
            raise self._file.recover(error) from error

    def _load_row(
        self, above: int, others: Collection[int]
    ) -> tuple[spool.Row, bytes | spool.Damaged] | None:
        assert self._database is not None
        found = spool.read(self._database, above, others)
        if found is None:
            return None
        row, body = found
        try:
            return row, spool.decompress(body)
        except spool.Damaged as error:
            return row, error

    def _set_aside(self, row: spool.Row, reason: str) -> None:
        assert self._database is not None
        with transaction(self._database):
            spool.set_aside(self._database, row.id)
        self._log.error(
            "a row of the spool is damaged: put aside, its records are lost",
            path=str(self.path),
            table="damaged",
            row=row.id,
            records=row.records,
            since=row.first_time,
            error=reason,
        )

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
            self._names.pop(origin, None)
            self._changes.positions.pop(origin, None)
            self._changes.names.pop(origin, None)
            self._changes.forgotten.add(origin)

    def _store(
        self,
        changes: _Changes,
        files: Mapping[str, FileLength],
        packed: Sequence[spool.Packed],
        origins: Mapping[int, tuple[str, str]],
    ) -> tuple[list[spool.Row], bool]:
        """One transaction. The rows; and whether there is more unused space to be given back."""
        self._file.keep()
        database = self._database
        assert database is not None
        now = self._clock()
        rows = [row.compressed() for row in packed]
        with transaction(database):
            checkpoints.store(database, changes.positions, changes.gone, changes.forgotten, now)
            if changes.names:
                checkpoints.store_names(database, changes.names)
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
        if self._recount:
            self._recount, self._recounted = False, dead_letters.totals(database)
        if changes.removed or self._unused:
            self._unused = give_back_space(database)
        return [row for row, _ in rows], self._unused


def _kind(origin: str) -> str:
    return origin.partition(":")[0]
