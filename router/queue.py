"""The queue of a route: what waits between the sweeps and the deliveries, in memory and in the spool.

Never waits on the way in: whoever puts asks `full` first, and the bound may be overshot by one sweep. The
way out is in order: first what is spooled, which is older, then what is in memory. What was taken stays known
until it is finished, because checkpoints move in order, however many deliveries are under way, and because a
route that starts to spool spools that as well: the spool always begins at the checkpoint.

On the trio thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain

import msgspec
import trio

from logroute.router.database import StateError
from logroute.router.position import Position, Reached
from logroute.router.record import Batch, total_size_bytes
from logroute.router.spool import Row, Totals
from logroute.router.state import RouteState
from logroute.router.times import full_time

BATCH_OVERHEAD_BYTES = 1000
"""What a batch holds beside its records: itself, its list, its positions. Counted, because a container of
which a route takes nothing gives it an empty batch each sweep, which carries the checkpoint."""


class QueueStatistics(msgspec.Struct, frozen=True):
    """What waits in a route's queue now."""

    records: int
    """In memory and in the spool."""
    memory_bytes: int
    """Estimate of what the waiting batches hold."""
    batches: int = 0
    """How many there are in memory; some may be empty, for the sake of their positions."""
    spooled_records: int = 0
    spooled_bytes: int = 0
    """As they lie on the disk, compressed."""
    oldest: str = ""
    """The time of the first record that is taken or waits, RFC 3339; empty if there is none."""


class Group(msgspec.Struct, eq=False):
    """What one delivery has taken: batches from memory, or a row of the spool."""

    batches: list[Batch]
    records: int
    row: int | None = None
    """Its number, if it is in the spool: to be removed when it is finished."""
    first_time: str = ""
    """The time of its first record, where it comes from the spool."""
    damaged: bool = False
    """It could not be read: its records are lost, and it has no batches."""
    moving: bool = False
    """It is on its way into the spool, as it was when that began."""
    finished: bool = False

    @property
    def is_kept_whole(self) -> bool:
        """The spool has it, or will have it soon, and knows nothing of what is delivered of a part of it."""
        return self.row is not None or self.moving

    @property
    def is_in_memory(self) -> bool:
        """It is not stored: nor are the positions of its batches."""
        return self.row is None or self.moving

    @property
    def hollow(self) -> list[Batch]:
        """Only its positions."""
        return [batch.with_records([], 0) for batch in self.batches]


class Queue:
    """First in, first out. `on_room` is called when a queue that was full is so no longer."""

    def __init__(self, state: RouteState, limit_bytes: int, on_room: Callable[[], None]) -> None:
        self.limit_bytes = limit_bytes
        self._state = state
        self._on_room = on_room
        # Invariant: _bytes and _records are sums over _batches; _append() and _shrink() change all of them.
        self._batches: deque[Batch] = deque()
        self._bytes = 0
        self._records = 0
        # Batches whose records were dropped: only their positions count, so one for each origin is enough.
        self._dropped_first: dict[str, Batch] = {}
        self._dropped_last: dict[str, Batch] = {}
        """Those at the end of `_batches`, in which they stand as well."""
        self._spooled = Totals()
        """Rows that are not taken."""
        self._spooled_since = ""
        """No row that waits has a first record older than this: the first row's, or that taken last."""
        self._taken_row = 0
        """All rows up to this number are taken."""
        self._own_rows: set[int] = set()
        """Rows above it that need not be taken: they were in flight when they were spooled."""
        self._ahead: tuple[Row, list[Batch] | None] | None = None
        """The row that is taken next, if it was read already; it waits in the spool as before."""
        self._row_taken = trio.Event()
        self._in_flight: deque[Group] = deque()
        self._returned: deque[Group] = deque()
        """Those of `_in_flight` that were given back: they are taken first."""
        self._spooling = False
        self._moving: Sequence[Batch] = ()
        """On its way to the disk, not in `_batches` any more: so that there is room for what comes meanwhile,
        if the disk has taken what came before."""
        self._moving_records = 0
        self._moving_bytes = 0
        self._disk_takes = False
        self._taking = trio.Lock()
        self._arrived = trio.Event()
        self._closed = False

    def load(self) -> None:
        """Begin with what the state's spool holds."""
        self._spooled = msgspec.structs.replace(self._state.spooled)
        self._spooled_since = self._state.spooled_since

    # --- what it holds --------------------------------------------------------------------------------

    @property
    def memory_bytes(self) -> int:
        moving = 0 if self._disk_takes else self._moving_bytes
        return moving + self._bytes + BATCH_OVERHEAD_BYTES * (len(self._batches) + len(self._dropped_first))

    @property
    def full(self) -> bool:
        """Whether the memory is."""
        return self.memory_bytes >= self.limit_bytes

    @property
    def closed(self) -> bool:
        """Nothing more comes, and whoever waits shall end."""
        return self._closed

    @property
    def empty(self) -> bool:
        """Whether nothing waits; deliveries may be under way."""
        waiting = self._batches or self._dropped_first or self._moving
        return not (waiting or self._spooled.records or self._returned)

    @property
    def in_flight(self) -> int:
        """Records that were taken and are not finished."""
        flying = sum(group.records for group in self._in_flight if not group.finished)
        return flying - self._returned_records

    @property
    def records(self) -> int:
        return self._records + self._moving_records + self._spooled.records + self._returned_records

    @property
    def _returned_records(self) -> int:
        return sum(group.records for group in self._returned) if self._returned else 0

    def reached(self) -> dict[str, Position | Reached]:
        """How far each origin has been put in, where that is not yet in the state.

        What is finished is among it until all before it is, too: the state learns of it only then.
        """
        return {batch.origin.key: batch.reached for batch in self._in_memory(self._in_flight)}

    def _in_memory(self, in_flight: Iterable[Group]) -> Iterator[Batch]:
        """What is in memory alone, in order; of what was taken, these groups."""
        taken = [group.batches for group in in_flight if group.is_in_memory]
        return chain(*taken, self._moving, self._dropped_first.values(), self._batches)

    def first_waiting(self) -> list[Batch]:
        """The first of what waits in memory of each origin, and is not done with."""
        found: dict[str, Batch] = {}
        for batch in self._in_memory(group for group in self._in_flight if not group.finished):
            if len(batch):
                found.setdefault(batch.origin.key, batch)
        return list(found.values())

    @property
    def spooled(self) -> Totals:
        """Rows of the spool that wait."""
        return self._spooled

    def statistics(self) -> QueueStatistics:
        spooled = self._spooled
        return QueueStatistics(
            self.records,
            self.memory_bytes,
            len(self._batches),
            spooled.records,
            spooled.stored_bytes,
            self._oldest,
        )

    @property
    def _oldest(self) -> str:
        for group in self._in_flight:
            if group.records and not group.finished:
                return group.first_time or _first_time(group.batches)
        if self._spooled.records:
            return self._spooled_since
        return _first_time((*self._moving, *self._batches)) if self._moving else _first_time(self._batches)

    # --- the way in -----------------------------------------------------------------------------------

    def put(self, batches: Sequence[Batch]) -> int:
        """Append one sweep's batches; how many records they have. An empty one counts for its position."""
        records = 0
        size = 0
        for batch in batches:
            if not len(batch):
                self.put_dropped([batch])
                continue
            records += len(batch)
            size += batch.size_bytes
            self._batches.append(batch)
            if self._dropped_last:
                self._dropped_last.pop(batch.origin.key, None)
        self._bytes += size
        self._records += records
        self._arrived.set()
        return records

    def put_dropped(self, batches: Sequence[Batch]) -> None:
        """Append only the positions of these batches: their records are dropped."""
        for batch in batches:
            known = self._dropped_last.get(batch.origin.key)
            if known is not None:
                known.reached = batch.reached
            else:
                hollow = self._dropped_last[batch.origin.key] = batch.with_records([], 0)
                self._batches.append(hollow)
        self._arrived.set()

    def close(self) -> None:
        """Nothing more will be put: `take` gives what is left, then None."""
        self._closed = True
        self._arrived.set()

    # --- the way out ----------------------------------------------------------------------------------

    async def wait(self) -> None:
        """Wait until `take` would not have to wait for a first batch."""
        while not self._ready and not (self._closed and self.empty):
            await self._arrival()

    async def take(self, max_bytes: int, max_records: int, wait_s: float) -> Group | None:
        """What the next delivery takes, within the bounds; None once closed and empty.

        Waits for the first batch, then up to `wait_s` for the bounds to be reached. A batch, or a row of the
        spool, is never split: one that is larger than the bounds comes alone. `finish` it. Raises StateError
        where the spool cannot be read.
        """
        async with self._taking:
            while True:
                await self.wait()
                if self.empty:
                    return None
                if self._returned:
                    return self._returned.popleft()
                if self._spooled.records:
                    return await self._take_row()
                if wait_s and not self._closed:
                    with trio.move_on_after(wait_s):
                        while self._bytes < max_bytes and self._records < max_records:
                            if self._closed or self.full:  # nothing more comes before some of it is taken
                                break
                            await self._arrival()
                # Meanwhile it may have been spooled.
                if self._ready and not (self._spooled.records or self._returned):
                    return self._take_from_memory(max_bytes, max_records)

    @property
    def _ready(self) -> bool:
        if self._spooled.records or self._returned:
            return True
        return bool(self._batches or self._dropped_first) and not self._spooling

    async def _arrival(self) -> None:
        if self._arrived.is_set():
            self._arrived = trio.Event()
        await self._arrived.wait()

    async def _take_row(self) -> Group:
        found, self._ahead = self._ahead, None
        if found is None or found[0].id <= self._taken_row:
            found = await self._state.load_row(self._taken_row, self._own_rows)
        if found is None:  # somebody else has removed what the books say that we hold
            group = Group([], self._spooled.records, damaged=True)
            self._spooled = Totals()
        else:
            row, batches = found
            self._take_up_to(row.id)
            self._spooled.subtract(row)
            self._spooled_since = row.first_time
            group = Group(batches or [], row.records, row.id, row.first_time, damaged=batches is None)
        self._in_flight.append(group)
        self._row_taken.set()
        return group

    async def read_ahead(self) -> None:
        """Read, while a row is delivered, the one that comes next. Runs until it is cancelled."""
        while True:
            await self._row_taken.wait()
            self._row_taken = trio.Event()
            async with self._taking:
                if self._ahead is None and self._spooled.records:
                    with suppress(StateError):  # who takes it will meet that as well
                        self._ahead = await self._state.load_row(self._taken_row, self._own_rows)

    def _take_up_to(self, row: int) -> None:
        self._taken_row = row
        self._own_rows = {own for own in self._own_rows if own > row}

    def _take_from_memory(self, max_bytes: int, max_records: int) -> Group:
        was_full = self.full
        taken = list(self._dropped_first.values())
        self._dropped_first.clear()
        taken += _first(self._batches, max_bytes, max_records)
        records = self._shrink(taken)
        group = Group(taken, records)
        self._in_flight.append(group)
        self._tell_room(was_full)
        return group

    def _shrink(self, taken: Sequence[Batch]) -> int:
        """These were taken out of `_batches`; how many records they have."""
        records = sum(len(batch) for batch in taken)
        self._records -= records
        self._bytes -= total_size_bytes(taken)
        if not self._batches:
            self._dropped_last.clear()
        return records

    def _tell_room(self, was_full: bool) -> None:
        if was_full and not self.full:
            self._on_room()

    def finish(self, group: Group) -> None:
        """It is done with: delivered, rejected, dropped. Checkpoints move as far as all before it are."""
        group.finished = True
        # While it is being spooled nobody knows yet what will be to be stored; `spool` goes on from here.
        if not self._spooling:
            self._settle()

    def give_back(self, group: Group, left: Sequence[Batch]) -> None:
        """It was not delivered, but for what is not `left` of it: the next `take` gives the rest."""
        if group.finished or group in self._returned:
            return
        if not group.damaged:
            # What is delivered of it has positions all the same.
            group.batches = [*left, *group.hollow]
            group.records = sum(len(batch) for batch in left)
        self._returned.append(group)
        self._returned = deque(each for each in self._in_flight if each in self._returned)
        self._arrived.set()

    def give_back_all(self) -> None:
        """Nobody is delivering any more."""
        for group in list(self._in_flight):
            self.give_back(group, [batch for batch in group.batches if len(batch)])

    def _settle(self) -> None:
        while self._in_flight and self._in_flight[0].finished:
            group = self._in_flight.popleft()
            if group.row is not None:
                self._state.remove_row(group.row)
                continue
            for batch in group.batches:
                self._state.note(batch.origin.key, batch.reached)

    # --- the spool ------------------------------------------------------------------------------------

    async def spool(self, max_bytes: int, max_records: int) -> None:
        """Move what is in memory into the spool, and what is in flight too: what kill -9 would lose.

        One row for what one delivery may take. Raises StateError; then nothing has changed.
        """
        # Those that are finished behind one that is not are only positions. These have to move now, with
        # what comes behind them: later they would take the checkpoint back.
        flying = [group for group in self._in_flight if group.row is None]
        waiting = deque([*self._dropped_first.values(), *self._batches])
        moving = tuple(waiting)
        cut: list[list[Batch]] = []
        while waiting:
            cut.append(_first(waiting, max_bytes, max_records))
        if not cut and all(group.finished for group in flying):
            return

        def numbered(ids: Sequence[int]) -> None:
            for group, id_ in zip(flying, ids, strict=False):
                group.row = id_
                self._own_rows.add(id_)

        taken = [group.hollow if group.finished else group.batches for group in flying]
        self._spooling = True
        for group in flying:
            group.moving = True
        self._move_out(moving)
        try:
            rows = await self._state.put_rows([*taken, *cut], numbered)
        except BaseException:
            for group in flying:
                group.row = None
            self._move_back()
            raise
        else:
            was_full, self._disk_takes = self.full, True
            self._move_nothing()
            self._tell_room(was_full)
            in_flight = {group.row for group in flying}
            self._add_rows(row for row in rows if row.id not in in_flight)
        finally:
            self._spooling = False
            for group in flying:
                group.moving = False
            self._settle()
            self._arrived.set()

    async def replay(self, letters: Sequence[int] | None, max_bytes: int, max_records: int) -> int:
        """Put the first of these dead letters, or of all, back into the spool: as many as one delivery takes.

        How many records; 0 when there are none left. Raises StateError.
        """
        rows = await self._state.replay(letters, max_bytes, max_records)
        self._add_rows(rows)
        self._arrived.set()
        return sum(row.records for row in rows)

    def _add_rows(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if not self._spooled.records:
                self._spooled_since = row.first_time
            self._spooled.add(row)

    def _move_out(self, moving: Sequence[Batch]) -> None:
        """These go to the disk: what comes now comes behind them, and is not mixed up with them."""
        was_full = self.full
        self._moving, self._moving_records = moving, self._records
        self._moving_bytes = self._bytes + BATCH_OVERHEAD_BYTES * len(moving)
        self._batches.clear()
        self._dropped_first.clear()
        self._dropped_last.clear()
        self._bytes = self._records = 0
        self._tell_room(was_full)

    def _move_back(self) -> None:
        """They could not be written."""
        self._batches.extendleft(reversed(self._moving))
        self._bytes += total_size_bytes(self._moving)
        self._records += self._moving_records
        self._disk_takes = False
        self._move_nothing()

    def _move_nothing(self) -> None:
        self._moving, self._moving_records, self._moving_bytes = (), 0, 0

    # --- dropping -------------------------------------------------------------------------------------

    async def drop_spooled(self, stored_bytes: int) -> int:
        """Drop the oldest rows that wait, until so many bytes are free; how many records that were.

        Raises StateError.
        """
        async with self._taking:
            records = 0
            for row in await self._state.oldest_rows(self._taken_row, self._own_rows, stored_bytes):
                self._take_up_to(row.id)
                self._spooled.subtract(row)
                self._state.remove_row(row.id)
                records += row.records
            return records

    def drop_oldest(self) -> int:
        """Drop the records of the oldest batches in memory until it is not full; how many that were."""
        records = 0
        was_full = self.full
        # A batch that is put is never dropped at once: the newest stays, however large it is.
        while self.full and len(self._batches) > 1 and not self._spooling:
            batch = self._batches.popleft()
            records += self._shrink([batch])
            known = self._dropped_first.get(batch.origin.key)
            if known is not None:
                known.reached = batch.reached
            else:
                self._dropped_first[batch.origin.key] = batch.with_records([], 0)
        self._tell_room(was_full)
        return records

    def abandon(self) -> int:
        """Nobody will deliver what waits, nor what was taken: forget it. How many records that were.

        It stays behind the checkpoint, or in the spool.
        """
        was_full = self.full
        records = self.records + self.in_flight
        self._batches.clear()
        self._move_nothing()
        self._dropped_first.clear()
        self._dropped_last.clear()
        self._in_flight.clear()
        self._returned.clear()
        self._ahead = None
        self._bytes = self._records = 0
        self._spooled = Totals()
        self._tell_room(was_full)
        return records


def _first_time(batches: Iterable[Batch]) -> str:
    return next((full_time(batch.first_time) for batch in batches if len(batch)), "")


def _first(batches: deque[Batch], max_bytes: int, max_records: int) -> list[Batch]:
    """Take the first batches, at least one if there is any, within the bounds."""
    taken: list[Batch] = []
    size = records = 0
    while batches:
        batch = batches[0]
        size += batch.size_bytes
        records += len(batch)
        if taken and (size > max_bytes or records > max_records):
            break
        taken.append(batches.popleft())
    return taken
