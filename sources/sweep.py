"""Sweeps: the unit of flow. One sweep reads all logs that have something new and emits it as one list.

With 200 containers that print 50 lines a second each, a batch at a time would mean ten thousand channel
operations a second; a sweep makes fifty of it. So: at most one sweep in 20 ms, one hop to a worker thread
for all of its reading, one `emit` for all of its batches, within a read budget that all logs share.

Owns the logs that are read, which come and go by `add` and `remove`, and the buffer. Which of them have
something new, `watched_folders.py` says; what others have read, comes from `offers.py`.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise

import msgspec
import structlog
import trio

from logroute.router.position import Position
from logroute.router.record import Batch, Origin
from logroute.sources import STANDS_AFTER_S, Behind, Emit
from logroute.sources.disks import Disks
from logroute.sources.log_file import BUFFER_BYTES, LogFile
from logroute.sources.log_formats import Fetched, Spot
from logroute.sources.offers import Offers
from logroute.sources.watched_folders import WatchedFolders

INTERVAL_S = 0.02
"""Between the beginnings of two sweeps, at least."""
LOG_INTERVAL_S = 0.001
INTERVAL_MAX_S = 0.2
"""A sweep that found many logs waits longer, a millisecond for each, so that the next finds more in each: a
log costs the same whether it has one new line or fifty."""
BUDGET_BYTES = 1 << 20
LOG_BUDGET_BYTES = 64 << 10
SETTLE_EVERY_S = 0.5
SAY_AGAIN_S = 60.0


class SweepStatistics(msgspec.Struct, frozen=True):
    """What the sweeps of one source have done so far."""

    sweeps: int
    logs: int
    """Logs that are read as files now."""
    ready: int
    """Of these, how many are known to have something new."""


class Sweep:
    """Reads files (`add`) and takes what others read (`offers`), and emits both, one list a sweep.

    `on_drained(log)` is called when a log that is complete, or has a `stop_at`, was read to its end;
    `on_lost(log)` when its `losses` say that something was gone before it could be read;
    `on_corrupt(log, lines)` when so many lines of it were left out; `on_hole(log, bytes)` when it began with
    so many NULs;
    `on_failed(log, error)` when reading it failed: it has been taken out; `on_names(folder, name)` when a
    name appeared in or left a watched folder; `on_behind(behind)` when a route fell behind the reader of a
    batch that was offered.
    """

    def __init__(
        self,
        emit: Emit,
        source: str,
        *,
        on_drained: Callable[[LogFile], None],
        on_failed: Callable[[LogFile, Exception], None],
        on_lost: Callable[[LogFile], None],
        on_corrupt: Callable[[LogFile, int], None] | None = None,
        on_hole: Callable[[LogFile, int], None] | None = None,
        on_names: Callable[[str, str], None] | None = None,
        on_behind: Callable[[Behind], None] | None = None,
        held_bytes: int = 2 << 30,
    ) -> None:
        self._emit = emit
        self._source = source
        """Its name."""
        self._on_drained = on_drained
        self._on_failed = on_failed
        self._on_lost = on_lost
        self._on_corrupt = on_corrupt
        self._on_hole = on_hole
        self._on_behind = on_behind
        self._held_bytes = held_bytes
        self._log = structlog.get_logger("logroute.sources")
        # Invariant: `_ready` is a subset of `_logs`' values and their forks, in the order in which they are
        # served. A fork is always among them: there is something to read for it until it has joined.
        self._logs: dict[str, LogFile] = {}
        self._ready: dict[LogFile, None] = {}
        self._wanted: list[tuple[LogFile, Origin, Mapping[str, Position]]] = []
        """For whom to read apart, and from where."""
        self._unclosed: list[LogFile] = []
        """Logs that are done, to be closed in a thread."""
        self._late: dict[LogFile, Fetched | Exception] = {}
        """What was fetched from disks that did not answer in time."""
        self._drained: set[LogFile] = set()
        """Logs that were read to their end, and whose forks were not."""
        self._buffer = bytearray(BUFFER_BYTES)
        self._idle: trio.CancelScope | None = None
        self._overlooked_at = -math.inf
        self._sweeping_since: float | None = None
        self._asked_at = -math.inf
        """When it was asked last what has been quiet."""
        self._renamed: dict[LogFile, Origin] = {}
        """Logs whose origins have another name, and of which it is not known yet from where on."""
        self._at_old_names: dict[LogFile, None] = {}
        """Logs that are not read yet to where they have the name that they have now."""
        self._given_up: list[LogFile] = []
        """Logs of which nothing is held open any more."""
        self._sweeps = 0
        self._disks = Disks(self._answers_again)
        self._some_unclosed = trio.Event()
        self.offers = Offers(self._kick)
        """What others read."""
        self.folders = WatchedFolders(self._logs, self._disks, on_fresh=self.wake, on_names=on_names)
        """Those that logs are in."""

    def statistics(self) -> SweepStatistics:
        return SweepStatistics(self._sweeps, len(self._logs), len(self._ready))

    # --- logs ---------------------------------------------------------------------------------------

    def add(self, log: LogFile) -> None:
        """Read this log, which is open, from now on."""
        self._logs[log.path] = log
        self.folders.watch(os.path.dirname(log.path))
        for fork in log.forks:
            self._emit.apart(log.origin, fork.began)
            self._ready[fork] = None
        if log.next_name(log) is not None:
            self._at_old_names[log] = None
        self._emit.takes_over(log, log.origin)
        if log.stranded:
            self._wanted.append((log, log.origin, log.stranded))
        self.wake(log)

    def remove(self, log: LogFile) -> None:
        """Read it no further. Its descriptors are the owner's to close."""
        self._ready.pop(log, None)
        self._drained.discard(log)
        self._at_old_names.pop(log, None)
        for fork in log.forks:
            self._ready.pop(fork, None)
        if self._logs.get(log.path) is log:
            del self._logs[log.path]
            self.folders.unwatch(os.path.dirname(log.path))

    def close(self, log: LogFile) -> None:
        """Read it no further, and have it closed in a thread: its disk may hang. Nobody may use it then."""
        self.remove(log)
        for reader in (*log.forks, log):
            self._emit.closed(reader, log.origin)
        self._close_later(log)

    def _close_later(self, log: LogFile) -> None:
        log.closed = True
        self._unclosed.append(log)
        self._some_unclosed.set()

    def places(self, log: LogFile) -> Mapping[str, Position]:
        """Where another reader of the log has to begin, by route."""
        return log.places(self._emit.needed)

    def notes(self) -> list[str]:
        """What somebody should know: disks that do not answer, or that it stands."""
        notes = self._disks.notes()
        if self.standing_s >= STANDS_AFTER_S:
            notes.append(
                f"nothing is handed on since {self.standing_s:.0f} s: restart the daemon, and tell us"
            )
        return notes

    @property
    def standing_s(self) -> float:
        """For how long one sweep has been going on."""
        return trio.current_time() - self._sweeping_since if self._sweeping_since is not None else 0.0

    def why_stuck(self, log: LogFile) -> str:
        """Why a log cannot be read on just now; empty if it can."""
        return "" if not log.is_open or self._disks.answers(log) else "its disk does not answer"

    async def welcome(self) -> None:
        """Have routes that came while we run meet the origins of all logs; read for them what is there."""
        for log in list(self._logs.values()):
            await self.meet_late(log)

    async def meet_late(self, log: LogFile) -> Mapping[str, Position]:
        """The same for one log. Of one that is closed it is known then where to begin for them; returned."""
        places = await self._emit.meet_late(log.origin, log.position)
        if places:
            self.read_apart(log, places)
        return places

    def read_apart(self, log: LogFile, places: Mapping[str, Position]) -> None:
        """Read for these routes from where they are. Of one that is not read now it is known, as above."""
        log.strand(places)
        if self._logs.get(log.path) is log:
            self._wanted.append((log, log.origin, places))
            self._kick()

    def rename(self, log: LogFile, origin: Origin) -> None:
        """What is said from now on is of this origin. Routes that take it only so meet it there."""
        self._renamed[log] = origin
        self._kick()

    async def _rename(self) -> list[Batch]:
        """Find out from where on logs have other names; and what ends with those that were read to there."""
        for log in list(self._renamed):
            if not self._reads(log):  # whoever opens it again names it
                del self._renamed[log]
            elif self._is_still(log):
                named = partial(self._named, self._renamed.pop(log))
                answers, _ = await self._disks.ask([log], LogFile.whole_end, named)
                for answer in answers:
                    named(*answer)
        ended: list[Batch] = []
        for log in list(self._at_old_names):
            if not self._is_at_name(log):
                continue
            ended.append(log.come_to_name())
            if log.next_name(log) is None:
                del self._at_old_names[log]
            self._ready[log] = None
            await self.meet_late(log)
        return ended

    def _named(self, origin: Origin, log: LogFile, end: tuple[Spot, Position] | Exception) -> None:
        """So far goes what it has said under the name before."""
        if isinstance(end, Exception):
            # What cannot be read just now has not been read, and may be what is said under the new one.
            end = log.spot, log.position
        if self._reads(log):  # else it is opened anew, or done
            log.rename(origin, *end)
            self._emit.renamed(origin, end[1])
            self._at_old_names[log] = None

    def _is_still(self, log: LogFile) -> bool:
        """Whether nobody is reading it now, and all that was read is handed on; between two sweeps."""
        return log not in self._late and self._disks.answers(log)

    def _is_at_name(self, log: LogFile) -> bool:
        return self._reads(log) and self._is_still(log) and log.is_at_name

    def wake(self, log: LogFile) -> None:
        """There may be something new in it."""
        if self._logs.get(log.path) is log:
            self._ready[log] = None
            self._kick()

    def _kick(self) -> None:
        if self._idle is not None:
            self._idle.cancel()

    # --- the loop -----------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Sweep until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.folders.run)
                nursery.start_soon(self._follow_room)
                nursery.start_soon(self._close_on)
                task_status.started()
                await self._sweep_on()
        finally:
            self.folders.close()
            # Nobody waits for that: what reads on has files of its own.
            threading.Thread(target=_close_all, args=(self._unclosed,), daemon=True).start()

    async def _sweep_on(self) -> None:
        next_poll = trio.current_time() + self.folders.poll_s
        while True:
            if trio.current_time() >= next_poll:
                await self._poll()
                next_poll = trio.current_time() + self.folders.poll_s
            self._ready.update(dict.fromkeys(self.folders.changed()))
            if not self._servable():
                await self._wait(min(next_poll, self._settle_at()))
                self._ready.update(dict.fromkeys(self.folders.changed()))
            started = trio.current_time()
            if self._servable():
                self._sweeping_since = started
                try:
                    full, found = await self._sweep()
                finally:
                    self._sweeping_since = None
                if not full:
                    interval_s = min(INTERVAL_MAX_S, max(INTERVAL_S, found * LOG_INTERVAL_S))
                    await trio.sleep_until(started + interval_s)

    def _servable(self) -> bool:
        room = self._emit.has_room
        if (
            self._wanted
            or self._late
            or self._given_up
            or any(map(self._is_still, self._renamed))
            or any(map(self._is_at_name, self._at_old_names))
            or trio.current_time() >= self._settle_at()
        ):
            return True
        return self.offers.servable(room) or any(
            self._disks.answers(log) and room(log.origin, log) for log in self._ready
        )

    def _settle_at(self) -> float:
        """When it is worth asking what has been quiet."""
        return max(self._emit.settle_at(self._source), self._asked_at + SETTLE_EVERY_S)

    def _quiet(self) -> list[Batch]:
        """For what processors hold of logs that have been quiet for long, and are read to their end."""
        if trio.current_time() < self._settle_at():
            return []
        self._asked_at = trio.current_time()
        return [batch for batch in self._emit.quiet(self._source) if self._is_at_end(batch)]

    def _is_at_end(self, batch: Batch) -> bool:
        """Whether its reader has read all that there is, as far as is known, and it is the last of that."""
        reader = batch.reader
        if isinstance(reader, LogFile):
            unread = reader in self._ready or reader in self._late
            return self._reads(reader) and not unread and self._disks.answers(reader)
        return self.offers.is_at_end(batch)

    async def _wait(self, until: float) -> None:
        """Until something may have changed: a file, an offer, room in a route, time to poll."""
        with trio.CancelScope(deadline=until) as self._idle:
            if self._ready or self.offers:
                # That there is room again is told (`_kick`). Meanwhile each line anywhere would make us ask,
                # for all that waits, whether there is.
                await trio.sleep(INTERVAL_S)
            await self.folders.wait_changed()
        self._idle = None

    async def _sweep(self) -> tuple[bool, int]:
        """One sweep. Whether there is more at once (the budget was the limit), and how many batches."""
        self._sweeps += 1
        renamed = await self._rename()
        for log, origin, places in self._take_wanted():
            await self._read_apart([Behind(log, route, place, origin) for route, place in places.items()])
        given_up, self._given_up = self._given_up, []
        batches = renamed + [log.ending() for log in given_up] + self._quiet() + self._join()
        offered, spent = self.offers.take(self._emit.has_room, BUDGET_BYTES)
        batches += [each.batch for each in offered]
        fetched, again = await self._fetch_ready(spent)
        for log, part in fetched:
            try:
                batches += log.parse(part.chunks)
            except Exception as error:  # one log's failure harms no other
                self._fail(log, error)
                continue
            if log.has_losses:
                self._on_lost(log)
            if (lines := log.take_corrupt_lines()) and self._on_corrupt is not None:
                self._on_corrupt(log, lines)
            if (nuls := log.take_nuls()) and self._on_hole is not None:
                self._on_hole(log, nuls)
            if not self._reads(log):
                continue
            if log.routes is not None:
                self._ready[log] = None
            elif part.drained:
                batches.append(log.ending())
            elif part.more:
                self._ready[log] = None
                again = True
        if batches and (behind := await self._emit(batches)):
            await self._read_apart(behind)
        for each in offered:
            each.taken.set()
        for log in given_up:
            if self._reads(log):
                self.remove(log)
                self._on_drained(log)
        self._note_ends(fetched)
        return again, len(batches)

    async def _fetch_ready(self, spent: int) -> tuple[list[tuple[LogFile, Fetched]], bool]:
        """What is new in the logs whose routes have room; and whether the budget was the limit."""
        room = self._emit.has_room
        late, self._late = self._late, {}
        fetched: list[tuple[LogFile, Fetched]] = []
        self._sort(late.items(), fetched)
        logs = self._let_forks_reach(
            [
                log
                for log in self._ready
                if log not in late and self._disks.answers(log) and room(log.origin, log)
            ]
        )
        if not logs:
            return fetched, False
        for log in logs:
            del self._ready[log]
        answers, unreached = await self._fetch(logs, spent)
        # What is not reached keeps its turn: it comes first the next time.
        self._ready = {**dict.fromkeys(self._still(unreached)), **self._ready}
        self._sort(answers, fetched)
        return fetched, bool(unreached)

    async def _fetch(
        self, logs: list[LogFile], spent: int
    ) -> tuple[list[tuple[LogFile, Fetched | Exception]], list[LogFile]]:
        """Fetch from the logs in turn, each its share, as far as the budget goes; and who was not reached."""
        share = max(LOG_BUDGET_BYTES, (BUDGET_BYTES - spent) // len(logs))
        buffer = self._buffer

        def fetch(log: LogFile) -> Fetched | None:
            nonlocal spent
            if spent >= BUDGET_BYTES:
                return None
            part = log.fetch(buffer, share)
            spent += sum(len(chunk.data) for chunk in part.chunks)
            return part

        answers, unreached = await self._disks.ask(logs, fetch, self._fetched_late)
        if len(answers) + len(unreached) < len(logs):
            # The thread that was left behind has the other one.
            self._buffer = bytearray(BUFFER_BYTES)
        beyond = [log for log, answer in answers if answer is None]
        return [(log, answer) for log, answer in answers if answer is not None], beyond + unreached

    def _fetched_late(self, log: LogFile, answer: Fetched | Exception | None) -> None:
        if answer is not None and self._reads(log):
            self._late[log] = answer
            self._ready[log] = None

    def _sort(
        self,
        answers: Iterable[tuple[LogFile, Fetched | Exception]],
        fetched: list[tuple[LogFile, Fetched]],
    ) -> None:
        """Have what was fetched among the `fetched`, and those fail that failed."""
        for log, answer in answers:
            if isinstance(answer, Exception):
                self._fail(log, answer)
            elif self._reads(log):
                fetched.append((log, answer))

    def _take_wanted(self) -> list[tuple[LogFile, Origin, Mapping[str, Position]]]:
        """For whom a reader apart can be had now."""
        wanted, self._wanted = self._wanted, []
        now = [each for each in wanted if self._reads(each[0])]
        self._wanted = [each for each in now if not self._disks.answers(each[0])]
        return [each for each in now if self._disks.answers(each[0])]

    def _note_ends(self, fetched: Iterable[tuple[LogFile, Fetched]]) -> None:
        """A log has ended when all of its readers are at its end, and all that they read is handed on."""
        for log, part in fetched:
            if log.routes is None and self._reads(log):
                if part.drained:
                    self._drained.add(log)
                else:
                    self._drained.discard(log)
        for log in [log for log in self._drained if not log.forks and not log.stranded]:
            self._drained.discard(log)
            self._on_drained(log)

    # --- forks --------------------------------------------------------------------------------------

    def _join(self) -> list[Batch]:
        """Forks that have come to the spot of the reader before them end here; batches that are still theirs.

        All that they have read is handed on, and what is before them has read nothing since: its next batch
        goes to their routes as well, without a gap or an overlap.
        """
        batches: list[Batch] = []
        lives = {self._logs[fork.path]: None for fork in self._ready if fork.routes is not None}
        for live in lives:
            readers = [*live.forks, live]
            # What was fetched and not parsed counts as read already.
            if not self._disks.answers(live) or not self._late.keys().isdisjoint(readers):
                continue
            self._leave_idle(live)
            for fork, ahead in pairwise([*live.forks, live]):
                if (name := live.next_name(fork)) is not None and fork.spot >= name.spot:
                    batches.append(fork.ending())
                    fork.origin = name.origin
                    continue  # it goes on, or is idle, when that is handed on
                if not fork.at_end_of(ahead):
                    continue
                ended = fork.finish_like(ahead) or self._emit.settle(fork, ahead, live.origin)
                if ended:
                    batches += ended
                    continue  # it joins when these are handed on
                routes = fork.routes or frozenset()
                ahead.heed(fork.ahead)
                if ahead.routes is None:
                    self._emit.joined(live.origin, routes)
                    if live in self._drained:  # it has said so before they were with it
                        batches.append(live.ending())
                else:
                    ahead.routes |= routes
                self._end(live, fork)
        return batches

    def _leave_idle(self, live: LogFile) -> None:
        """Forks end here whose routes were removed, or do not take the log any more."""
        for fork in live.forks:
            # As it was called when the fork began: who takes what is left of that decides.
            if not self._emit.reads_for_somebody(fork.origin, fork):
                self._emit.joined(live.origin, fork.routes or frozenset())
                self._emit.closed(fork, live.origin)
                self._end(live, fork)

    def _end(self, live: LogFile, fork: LogFile) -> None:
        live.leave(fork)
        self._ready.pop(fork, None)
        self._close_later(fork)

    def _let_forks_reach(self, logs: list[LogFile]) -> list[LogFile]:
        """Which of these to fetch from now: a reader waits for a fork that will come to its spot thereby."""
        waits: set[LogFile] = set()
        for fork in logs:
            if fork.routes is None:
                name = fork.next_name(fork)
                fork.cap = name.spot if name is not None else None
                continue
            live = self._logs[fork.path]
            readers = [*live.forks, live]
            ahead = readers[readers.index(fork) + 1]
            fork.cap, fork.complete = ahead.spot, live.complete
            if (name := live.next_name(fork)) is not None:
                fork.cap = min(fork.cap, name.spot)
            gap = fork.gap_bytes(ahead)
            if gap is not None and gap <= LOG_BUDGET_BYTES:
                waits.add(ahead)
        return [log for log in logs if log not in waits] if waits else logs

    async def _read_apart(self, behind: Sequence[Behind]) -> None:
        """Have readers for routes that cannot take what was read now, from where that began."""
        places: dict[tuple[LogFile, Origin], dict[str, Position]] = {}
        for each in behind:
            if isinstance(each.reader, LogFile):
                places.setdefault((each.reader, each.origin), {})[each.route] = each.position
            elif self._on_behind is not None:
                self._on_behind(each)
        for (reader, origin), positions in places.items():
            if not self._reads(reader):
                continue
            live = self._logs[reader.path]
            live.strand(positions)
            if not self._disks.answers(live):
                self._wanted.append((reader, origin, positions))
                continue
            forked = partial(self._forked, reader, origin, positions)
            fork = partial(LogFile.fork, checkpoints=positions, of=reader)
            answers, _ = await self._disks.ask([live], fork, forked)
            for answer in answers:
                forked(*answer)

    def _forked(
        self,
        reader: LogFile,
        origin: Origin,
        positions: Mapping[str, Position],
        live: LogFile,
        fork: LogFile | Exception,
    ) -> None:
        """There is a reader for routes for which this one has read so far, as what the origin says."""
        if not self._reads(live):  # removed meanwhile: it is closed together with the fork
            return
        if isinstance(fork, Exception):  # no more descriptors
            self._fail(live, fork)
            return
        fork.origin = origin
        if reader.routes is not None:
            reader.routes -= positions.keys()
            if not reader.routes:
                self._end(live, reader)
                self._emit.closed(reader, reader.origin)
        if fork.has_losses:
            self._on_lost(fork)
        if fork in live.forks:
            self._ready[fork] = None
        else:  # the live one comes to where they are
            self._emit.joined(live.origin, positions)
            self._close_later(fork)

    def _still(self, logs: Iterable[LogFile]) -> list[LogFile]:
        """Those that were not removed meanwhile."""
        return [log for log in logs if self._reads(log)]

    def _reads(self, log: LogFile) -> bool:
        """Whether it is one of ours, and was not removed meanwhile."""
        live = self._logs.get(log.path)
        return live is log or (live is not None and log in live.forks)

    def _fail(self, log: LogFile, error: Exception) -> None:
        """One reader's failure is the log's: all of them begin again where they were."""
        live = self._logs.get(log.path)
        if live is None or not self._reads(log):
            return
        self.remove(live)
        self._on_failed(live, error)

    async def _close_on(self) -> None:
        """Close logs that are done, each when its disk answers."""
        while True:
            await self._some_unclosed.wait()
            self._some_unclosed = trio.Event()
            now = [log for log in self._unclosed if self._disks.answers(log)]
            # Closing one again does no harm, where this is cancelled.
            _, unreached = await self._disks.ask(now, LogFile.close, lambda log, error: None)
            done = set(now) - set(unreached)
            self._unclosed = [log for log in self._unclosed if log not in done]

    def _answers_again(self) -> None:
        """A disk that did not answer does."""
        self._some_unclosed.set()
        self._kick()

    async def _poll(self) -> None:
        """What inotify did not say: look at every log. And bound what is held."""
        self.folders.replace_a_watcher_that_hangs()
        logs = [
            reader for log in self._logs.values() if self._disks.answers(log) for reader in (*log.forks, log)
        ]
        if not logs:
            return
        answers, _ = await self._disks.ask(logs, _look_at, self._looked)
        held: dict[LogFile, int] = {}
        for log, look in answers:
            self._looked(log, look)
            if isinstance(look, _Look) and look.held_bytes:
                held[log] = look.held_bytes
        while sum(held.values()) > self._held_bytes:
            largest = max(held, key=lambda log: held[log])
            del held[largest]
            if not self._reads(largest) or not self._disks.answers(largest):
                continue
            answers, _ = await self._disks.ask([largest], _let_go, self._let_go)
            for log, look in answers:
                self._let_go(log, look)
                if isinstance(look, _Look):
                    held[log] = look.held_bytes

    def _looked(self, log: LogFile, look: _Look | Exception) -> None:
        if not self._reads(log):
            return
        if isinstance(look, Exception):
            self._say_overlooked(log, look)
            return
        if look.problem is not None:
            self._say_overlooked(log, look.problem)
        if look.fresh:
            self._ready[log] = None

    def _let_go(self, log: LogFile, look: _Look | Exception) -> None:
        """Something of a log was given up."""
        if not self._reads(log):
            return
        if isinstance(look, Exception):
            self._say_overlooked(log, look)
        self._on_lost(log)
        if not log.is_open and log.routes is None:
            self._given_up.append(log)
            self._kick()

    def _say_overlooked(self, log: LogFile, error: Exception) -> None:
        """Its readers go on with what they hold, and the next poll looks again."""
        now = trio.current_time()
        if now - self._overlooked_at >= SAY_AGAIN_S:
            self._overlooked_at = now
            self._log.error(
                "cannot look what is new in a log, trying again",
                path=log.path,
                error=getattr(error, "strerror", None) or repr(error),
            )

    async def _follow_room(self) -> None:
        while True:
            await self._emit.wait_for_room()
            self._kick()


class _Look(msgspec.Struct, frozen=True):
    """What was seen of a log."""

    fresh: bool = False
    """There is something new in it."""
    held_bytes: int = 0
    problem: OSError | None = None
    """Why what rotation made of it could not be opened."""


def _look_at(log: LogFile) -> _Look:
    """Look whether there is something new in a log. In a thread. Raises OSError."""
    fresh, problem = False, None
    try:
        fresh = log.routes is None and log.look()
    except OSError as error:
        problem = error
    # A fork holds all that the live reader does.
    return _Look(fresh or log.has_news(), 0 if log.forks else log.held_bytes(), problem)


def _let_go(log: LogFile) -> _Look:
    """Give up the oldest file that is held. In a thread. Raises OSError."""
    log.let_go()
    return _Look(held_bytes=log.held_bytes())


def _close_all(logs: Iterable[LogFile]) -> None:
    """Close these. In a thread."""
    for log in logs:
        with log.turn, contextlib.suppress(OSError):
            log.close()
