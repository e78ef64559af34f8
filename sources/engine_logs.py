"""Follow one container's log by the Engine API: every record once, however often the stream is cut.

A stream of `/logs` is cut by an engine that goes away, and by us: when nobody takes what was read (a stalled
stream holds a lock in the engine), and when the log may have been rotated under it (streams that follow then
skip and repeat records; a reading that does not follow is exact). Each time reading goes on behind the last
record of each stream. What is unfinished at a cut is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec
import structlog
import trio

from logroute.router.position import BEGINNING, Anchor, Position, StreamPosition
from logroute.router.record import STREAMS, Batch, Origin, Record, Stream, settling
from logroute.router.times import iso_time
from logroute.sources import Lost
from logroute.sources.engine import Engine, EngineAway, EngineError, EngineRefused, LogStream
from logroute.sources.engine_answers import ContainerDetails, rotation_bytes
from logroute.sources.engine_batches import PENDING_BYTES, STALL_S, Offer, PendingBatches, first_times
from logroute.sources.engine_reading import REOPEN_S, End, Reading, came_to, newest_time
from logroute.sources.engine_resume import (
    Ahead,
    Locator,
    Skipper,
    first_of,
    goes_back,
    oldest,
    oldest_floor,
    since_ns,
)
from logroute.sources.frames import log_decoder

RECEIVE_BYTES = 64 << 10
# While much comes, this much of it gathers between reads.
GATHER_S = 0.002
REOPEN_MAX_S = 2.0
# A stream that follows and has said nothing for so long may have been opened while the log was rotated.
QUIET_S = 0.05
LATELY_NS = 3 * 10**9
"""A clock that was set back may have gone on for so long since then."""
QUIET_FOLLOWING_S = 2.0
"""Opened so long ago, a stream that follows has sent what there was of the log."""
# An engine that is in the middle of a log and sends nothing for so long does not answer any more.
SILENCE_S = 60.0
# How often the end of a log is read again that is not the end that the engine says it is.
END_ATTEMPTS = 3


class Name(NamedTuple):
    """An origin got another name."""

    until: str
    """What was said up to this time has the name before."""
    before: Origin
    origin: Origin


Outcome = Literal["ended", "removed"]
"""Why a log was read to its end: the container does not run (or: all was read that there was, where reading
does not follow), or it does not exist any more."""


class LogBroken(EngineRefused):
    """The engine cannot read its own log any further, whenever it is asked: what is missing was counted."""


class EngineLogStatistics(msgspec.Struct):
    """Counters of one log."""

    records: int = 0
    bytes: int = 0
    """Of the streams, frames and what was discarded included."""
    openings: int = 0
    stalls: int = 0
    errors: int = 0
    """Readings that the engine ended with an error."""


def _nothing() -> None: ...


class EngineLog:
    """Reads the log of one container. `run` may be called again after it raised: it goes on where it was.

    Not after it was cancelled: what had been read and not handed on is lost then.
    """

    cheap = False

    def __init__(
        self,
        engine: Engine,
        details: ContainerDetails,
        origin: Origin,
        *,
        limit: int,
        lost: Callable[[Lost], None],
        pending_bytes: Callable[[], int] = lambda: PENDING_BYTES,
    ) -> None:
        """`pending_bytes()` is what it may hold that nobody has taken."""
        self.origin = origin
        """Batches have the one that was there when they were read: see `rename`."""
        self.names: list[Name] = []
        """How the origin was named anew while the live reader read; all readers of a log share it."""
        self.routes: frozenset[str] | None = None
        """The routes that are behind, and that it reads for alone; None: it is the live reader."""
        self.ended = False
        """The program has ended, say the events; only a hint, the engine is asked."""
        self.on_opened: Callable[[], None] = _nothing
        """Called when the engine has begun to give the log."""
        self.statistics = EngineLogStatistics()
        self._engine = engine
        self._id = details.id
        self._tty = details.tty
        self._limit = limit
        self._lost = lost
        self._log = structlog.get_logger("logroute.sources")
        self._rotation_bytes = rotation_bytes(details)
        self._pending = PendingBatches(pending_bytes)
        self._pending.on_idle = self._join_now
        self._begun = False
        self._routes: tuple[str, ...] = ()
        # Their times do not say which of several positions is ahead of which.
        self._order_unknown = False
        # Times of records that had begun when a reading was cut.
        self._unfinished: dict[Stream, str] = {}
        self._located: dict[Stream, int | None] = {}
        self._since_ns: int | None = None  # for the next reading only
        self.unordered_until = ""
        """Up to this time the log is known to have records in another order than that of their times: the
        clock was set back. So no time tells where to go on behind one that is not later."""
        self._reading: Reading | None = None
        self._joins: list[tuple[EngineLog, Callable[[], Mapping[str, Position]]]] = []
        self._following: trio.CancelScope | None = None
        self._following_since: float | None = None
        """Since when a stream is open that follows the log."""
        self._opened_at = float("-inf")
        self._fruitless = 0  # openings since the last new record

    def rename(self, origin: Origin, at: str, *, read_apart: bool) -> None:
        """What is said from now on, `at` that time of the engine's, is of this origin.

        To be called of the live reader. `read_apart`: there are others who read the log, or are to.
        """
        if not read_apart and self.origin is self.newest_origin:
            self.names.clear()  # nobody is before them
        if self.quiet:  # all that was said is read, whatever the clock says
            self._pending.end(self.origin)
            self.names.append(Name(self.newest_time, self.newest_origin, origin))
            self.origin = origin
        else:
            self.names.append(Name(max(at, self.newest_time), self.newest_origin, origin))

    @property
    def newest_origin(self) -> Origin:
        """As it is called now, though what is read now may have been said under another name."""
        return self.names[-1].origin if self.names else self.origin

    @property
    def position(self) -> Position:
        """Behind the last record that was read."""
        return self._pending.position

    @property
    def settled(self) -> bool:
        """Whether it has begun, and the routes have all that it has read."""
        return self._begun and self._pending.idle

    async def handed_on(self) -> None:
        """Wait until the routes have all that it has read."""
        await self._pending.handed_on()

    @property
    def quiet(self) -> bool:
        """Whether it follows the log, has done so for a while, and has handed on all that came."""
        since = self._following_since
        return (
            since is not None
            and trio.current_time() - since >= QUIET_FOLLOWING_S
            and not self._joins
            and self._pending.idle
        )

    async def run(
        self, offer: Offer, checkpoints: Mapping[str, Position] | Position, *, follow: bool = True
    ) -> Outcome:
        """Read on; with `follow` until the container has ended, else to where the log ends now.

        Begins at the oldest of the checkpoints (by route); batches say which routes have already what in
        them. Later calls go on where the one before ended. Raises EngineAway and EngineRefused (call again
        later) and LogBroken, when everything that was read has been taken by `offer`.
        """
        if not self._begun:
            self._begin({"": checkpoints} if isinstance(checkpoints, Position) else checkpoints)
        failure: EngineError | None = None
        outcome: Outcome = "ended"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pending.hand_on, offer, self)
            try:
                await (self._follow() if follow else self._read_to_end())
            except EngineRefused as refusal:
                if refusal.gone:
                    self._removed()
                    outcome = "removed"
                else:
                    failure = refusal
            except EngineAway as away:
                self._reading = None
                failure = away
            if outcome == "removed" or (not follow and self.routes is None and failure is None):
                self._pending.end(self.origin)  # nobody reads on
            await self._pending.handed_on()
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return outcome

    def position_of(self, route: str) -> Position:
        """Behind the last record of what was read that the route has: some have more than others."""
        for group in self._pending.ahead:
            if route in group.routes:
                return group.reached(self.position)
        return self.position

    def clock_was_set_back(self) -> None:
        """The engine's clock was: records may come that are older than those that were read last.

        An engine that filters by `since` hides them, for as long as a stream is open.
        """
        lately = iso_time(self._engine.now_ns() - LATELY_NS)
        if self.newest_time > lately:
            self._since_ns = 0
            if self._following is not None:
                self._following.cancel()

    def ending(self) -> Batch:
        """Nothing more is read of it: what processors hold of it has ended."""
        return settling(self.origin, self.position, self)

    def join(self, fork: EngineLog, places: Callable[[], Mapping[str, Position]]) -> None:
        """Go on, as soon as everything is handed on, from where the routes are; asked for then.

        It reads again what some of them have and others not: its batches say which. To be called of a live
        reader that runs. It may end before it has come to that: `unjoined` says for whom.
        """
        self._joins.append((fork, places))
        if self._pending.idle:
            self._join_now()
        elif self._following is not None:
            # Until then the stream is read on: what is written, and removed, meanwhile would be missing.
            self._following.deadline = trio.current_time() + STALL_S

    def _join_now(self) -> None:
        """Everything is handed on: what is being read may end, if somebody is to join.

        Not where it ends by itself, which `unjoined` is for: it may be gone before it is read again.
        """
        if self._joins and self._following is not None and not self.ended:
            self._following.cancel()

    def unjoined(self) -> list[EngineLog]:
        """Forks that were to join, and have not when reading has ended; to be asked for once."""
        forks = [fork for fork, _ in self._joins]
        self._joins.clear()
        return forks

    def _go_back(self) -> None:
        """Begin again, for the routes of all forks that join. When everything is handed on."""
        joins, self._joins = self._joins, []
        found: dict[str, Position] = {}
        for _, places in joins:
            # Routes of an earlier fork are live for a later one, but what the earlier one said stands.
            found = {**places(), **found}
        self._reading = None
        newest = self.newest_origin
        self._begin(found)
        # It may have been renamed since then.
        marks = [mark.time for stream in STREAMS if (mark := self.position.of(stream).until) is not None]
        here = max([self.newest_time, *marks])
        self.origin = next((name.before for name in self.names if here < name.until), newest)

    def _begin(self, checkpoints: Mapping[str, Position]) -> None:
        groups: dict[Position, list[str]] = {}
        for route, position in checkpoints.items():
            stdout, stderr = (msgspec.structs.replace(position.of(stream), place=None) for stream in STREAMS)
            bare = Position(stdout, stderr, position.since)
            groups.setdefault(bare, []).append(route)
        self._routes = tuple(checkpoints)
        self._begun = True
        self._pending.position = begin = oldest(list(groups)) if groups else BEGINNING
        self._unfinished = {stream: time for stream in STREAMS if (time := begin.of(stream).begun)}
        ahead = (Ahead(routes, position, begin) for position, routes in groups.items() if position != begin)
        self._pending.ahead = [group for group in ahead if not group.done]
        times = [anchor.time for p in groups for stream in STREAMS if (anchor := p.of(stream).anchor)]
        now = iso_time(self._engine.now_ns())
        unknown = max(times, default="") > now or min(times, default=now) <= self.unordered_until
        self._order_unknown = bool(self._pending.ahead) and unknown

    # --- what to read next --------------------------------------------------------------------------

    async def _follow(self) -> None:
        exact = False
        while True:
            if self._joins:
                await self._pending.handed_on()
                self._go_back()
            end: End | None = None
            with trio.CancelScope() as self._following:
                end = await self._read(follow=not exact)
            self._following = None
            if end is End.MISSING:
                await self._locate()
            elif end is End.BACKWARDS:
                exact = True
            elif end is End.STALLED:
                await self._pending.handed_on()
            elif end is End.OVER:
                if exact:
                    exact = False
                elif not (await self._engine.inspect(self._id)).running:
                    # Without rotation what was followed is all there is, if it ends as the log does.
                    if self._rotation_bytes or not self._finish(await self._last(), running=False):
                        await self._read_to_end()
                    return

    async def _read_to_end(self) -> None:
        """Read exactly, until the log ends as the engine says it does."""
        running = (await self._engine.inspect(self._id)).running
        attempts = 0
        while True:
            last = await self._last()
            end = await self._read(follow=False)
            if end is End.MISSING:
                await self._locate()
            elif end is End.STALLED:
                await self._pending.handed_on()
            elif end is End.OVER:
                attempts += 1
                if self._finish(last, running=running, anyway=attempts == END_ATTEMPTS):
                    break
        error = self._reading.decoder.error if self._reading else None
        if error is not None:
            raise LogBroken(f"the engine cannot read the log of {self.origin.name}: {error}", 0, error)

    async def _last(self) -> Record | None:
        """The log's last piece: what every other reading must have reached, to be whole. None if empty."""
        decoder = log_decoder(tty=self._tty, limit=self._limit)
        records: list[Record] = []
        async with self._engine.logs(self._id, follow=False, tail=1) as stream:
            while data := await self._receive(stream, follow=False):
                records = decoder.feed(data) or records
        records = decoder.finish() or records
        return records[-1] if records else None

    def _finish(self, last: Record | None, *, running: bool, anyway: bool = False) -> bool:
        """Whether the reading that is over came to `last`; then what it has unfinished is finished.

        But not while the program runs: the rest may come.
        """
        reading = self._reading
        if reading is None:
            return False
        rest = reading.decoder.finish()
        if not reading.reached(last, self.position, [*rest, *([reading.last] if reading.last else [])]):
            if not anyway:
                return False
            if last is not None or reading.decoder.error is not None:
                # An engine that meets a broken line in a log may end there without a word.
                until = last.time if last is not None else ""
                self._lost(Lost(self._readers, "unreadable", since=self.newest_time, until=until))
        if not running:
            self._unfinished.clear()
            reading.follow = False  # its times may be as they are: nothing is to be read again
            self._take(reading, rest)
            self._pending.end(self.origin)
        return True

    @property
    def _readers(self) -> tuple[str, ...]:
        """Who misses what comes no more. Others may have joined the live reader, or have left it, since."""
        return ("",) if self.routes is None else tuple(sorted(self.routes))

    @property
    def newest_time(self) -> str:
        """Time of the newest record that was read; empty if none was."""
        return newest_time(self.position)

    def _removed(self) -> None:
        """The container is gone. What was followed to its end is all there was."""
        if self._reading is not None:
            self._finish(None, running=False)
            return
        self._lost(Lost(self._readers, "removed", since=self.newest_time))

    async def _locate(self) -> None:
        """Look through the whole log for the anchors; report those that are gone."""
        groups = [(group.routes, group.reached(self.position)) for group in self._pending.ahead]
        elsewhere = {route for routes, _ in groups for route in routes}
        groups.insert(0, (tuple(route for route in self._routes if route not in elsewhere), self.position))
        for _ in range(END_ATTEMPTS):
            locators = [Locator.of(position) for _, position in groups]
            if await self._look_through(locators):
                break
        # Usually the position is the first of them, but their times need not say so.
        first = {name: first_of(locators, name) for name in STREAMS}
        position = Position(
            groups[first["stdout"]][1].stdout,
            groups[first["stderr"]][1].stderr,
            oldest_floor([position for _, position in groups]),
        )
        if len(groups) > 1:  # one that is first by its anchor may be ahead of others by its mark
            position = position.without_marks()
        self.unordered_until = locators[0].unordered_until
        located = {name: locators[first[name]].located for name in STREAMS}
        self._located = {name: of[name] for name, of in located.items() if name in of}
        gone: dict[Stream, Anchor] = {}
        known = ""
        for name, index in self._located.items():
            anchor = position.of(name).anchor
            assert anchor is not None
            if index is None:
                gone[name] = anchor
            else:
                known = max(known, anchor.time)
        # One that is older than what was found is only silent since long ago: nothing is missing behind it.
        lost = [anchor.time for anchor in gone.values() if anchor.time > known]
        if lost:
            until = min(locators[0].first.values(), default="")
            self._lost(Lost(self._routes, "rotated", since=max(lost), until=until))
        self._since_ns = 0 if known else since_ns(position, self._engine.now_ns())
        self._pending.position = Position(
            StreamPosition(until=position.stdout.until) if "stdout" in gone else position.stdout,
            StreamPosition(until=position.stderr.until) if "stderr" in gone else position.stderr,
            position.since,
        )
        ahead = [
            Ahead(routes, of, self._pending.position, locator.located, self._located)
            for index, ((routes, of), locator) in enumerate(zip(groups, locators, strict=True))
            if set(first.values()) != {index} or (len(groups) > 1 and of != of.without_marks())
        ]
        self._pending.ahead = [group for group in ahead if not group.done]
        self._order_unknown = False

    async def _look_through(self, locators: Sequence[Locator]) -> bool:
        """Show them the whole log; whether it ended where the engine says it does.

        A connection that is cut ends like a log: what was not shown then is not gone.
        """
        last = await self._last()
        decoder = log_decoder(tty=self._tty, limit=self._limit)
        whole = last is None
        async with self._engine.logs(self._id, follow=False) as stream:
            while data := await self._receive(stream, follow=False):
                records = decoder.feed(data)
                whole = whole or (last is not None and came_to(last, decoder, records))
                for each in locators:
                    each.look(records)
        rest = decoder.finish()
        for each in locators:
            each.look(rest)
        return whole or (last is not None and came_to(last, decoder, rest))

    async def has(self, time: str) -> bool:
        """Whether the engine still has the record of this time, which was read. Raises EngineError.

        It is looked for itself: where a clock was set back, no other record's time says whether it is there.
        As the engine leaves out what is older, it is among the first that come, in whatever order the log is.
        """
        last = await self._last()
        whole = last is None or last.time < time  # such a one is left out
        decoder = log_decoder(tty=self._tty, limit=self._limit)
        since = since_ns(Position(since=time), self._engine.now_ns())
        async with self._engine.logs(self._id, follow=False, since_ns=since) as stream:
            ended = False
            while not ended:
                data = await self._receive(stream, follow=False)
                ended = not data
                records = decoder.finish() if ended else decoder.feed(data)
                if any(record.time == time for record in records):
                    return True
                whole = whole or (last is not None and came_to(last, decoder, records))
        if decoder.error is not None or not whole:
            reason = decoder.error or "nothing says why"
            raise EngineAway(f"the log of {self.origin.name} was cut off: {reason}")
        return False

    # --- one reading --------------------------------------------------------------------------------

    async def _read(self, *, follow: bool) -> End:
        """Open the log behind the position and take what is new, until there is a reason to end."""
        position = self.position
        since = self._since_ns
        if self._order_unknown or (since is None and "" < self.newest_time <= self.unordered_until):
            return End.MISSING
        if since is None:
            since = since_ns(position, self._engine.now_ns(), self._open_times(position))
        reading = Reading(
            log_decoder(tty=self._tty, limit=self._limit),
            Skipper(position, since, self._located),
            follow,
            self._rotation_bytes,
            trio.current_time(),
        )
        self._since_ns, self._located = None, {}
        if follow:
            wait_s = min(REOPEN_MAX_S, REOPEN_S * 2 ** min(self._fruitless, 8))
            await trio.sleep_until(self._opened_at + wait_s)
            self._opened_at = reading.opened_at = trio.current_time()
            self._fruitless += 1
        self._reading = None
        self.statistics.openings += 1
        try:
            async with self._engine.logs(self._id, follow=follow, since_ns=since) as stream:
                self.on_opened()
                self._following_since = trio.current_time() if follow else None
                end = await self._read_stream(reading, stream)
        finally:
            self._following_since = None
            for name, unfinished in reading.decoder.joiner.unfinished.items():
                self._needed_again(name, unfinished.time)
        if end is End.OVER and not follow:
            reading.skipper.ended()
            if reading.skipper.missing is not None:
                return End.MISSING
        if end is End.OVER:
            self._reading = reading
        return end

    def _needed_again(self, stream: Stream, time: str) -> None:
        """A record of this time was cut before all of it was taken."""
        before = self._unfinished.get(stream)
        self._unfinished[stream] = time if before is None else min(before, time)

    def _open_times(self, position: Position) -> list[str]:
        """Times of what had begun at a cut and has not been read since."""
        for stream, time in list(self._unfinished.items()):
            anchor = position.of(stream).anchor
            if anchor is not None and anchor.time > time:
                del self._unfinished[stream]
        return list(self._unfinished.values())

    async def _read_stream(self, reading: Reading, stream: LogStream) -> End:
        decoder = reading.decoder
        came_at = float("-inf")
        while data := await self._next(reading, stream):
            now = trio.current_time()
            if (records := decoder.feed(data)) and (end := self._take(reading, records)) is not None:
                return end
            if decoder.error is not None:
                self._tell_error(decoder.error)
                break
            if reading.may_have_rotated(now):
                return End.ROTATED
            if self._pending.full and not await self._pending.room():
                self.statistics.stalls += 1
                return End.STALLED
            if now - came_at < 2 * GATHER_S and len(data) < RECEIVE_BYTES:
                await trio.sleep_until(now + GATHER_S)
            came_at = now
        return End.ROTATED if data is None else End.OVER

    async def _next(self, reading: Reading, stream: LogStream) -> bytes | None:
        """What comes next, empty at the end; None if this stream stands still at the end of an old file.

        That is what moby's streams do if the log was rotated while they were being opened (seen on 20.10, in
        half of the openings of a log that was rotated twice a second): they go on with the next rotation,
        and leave a whole file out. Once a stream has come to the log's end this does not happen any more.
        """
        if not reading.follow or self._rotation_bytes is None or reading.verified_at is not None:
            return await self._receive(stream, follow=reading.follow)
        while True:
            with trio.move_on_after(QUIET_S):
                return await self._receive(stream, follow=True)
            last = await self._last()
            came = [reading.last] if reading.last else []
            if reading.reached(last, self.position, came):
                reading.verified_at = trio.current_time()
                return await self._receive(stream, follow=True)
            reading.awaited = last
            reading.quiet += 1
            if reading.quiet > 2:
                return None

    async def _receive(self, stream: LogStream, *, follow: bool) -> bytes:
        try:
            if follow:
                data = await stream.receive(RECEIVE_BYTES)
            else:
                with trio.fail_after(SILENCE_S):
                    data = await stream.receive(RECEIVE_BYTES)
        except trio.TooSlowError:
            raise EngineAway(
                f"the log of {self.origin.name}, from the engine {self._engine.address}: "
                f"nothing more came for {SILENCE_S:g} s, and not its end"
            ) from None
        self.statistics.bytes += len(data)
        return data

    def _take(self, reading: Reading, records: list[Record]) -> End | None:
        """Queue what is new of these records, and say whether this reading is to end."""
        if not records:
            return None
        if reading.note(records):
            # It was only written while the engine was asked for it.
            reading.verified_at = trio.current_time()
        new = reading.skipper.pass_on(records)
        if passed := reading.skipper.passed_over():
            self._pending.begin_behind(passed)
        end = End.MISSING if reading.skipper.missing is not None else None
        if new and reading.follow and self._rotation_bytes is not None:
            index = 0 if reading.may_have_skipped(new[0], self.position) else goes_back(new, self.position)
            if index is not None:
                self._note_order(new, index)
                for record in new[index:]:
                    self._needed_again(record.stream, record.time)
                new, end = new[:index], End.BACKWARDS
        if new:
            self._fruitless = 0
            if reading.decoder.joiner.discarded:
                self.origin.truncates = True
            discarding: list[Stream] = []
            unfinished = reading.decoder.joiner.unfinished
            if end is None:
                discarding = [name for name, open_ in unfinished.items() if open_.discarding]
            begun = {name: open_.time for name, open_ in unfinished.items() if not open_.discarding}
            self.statistics.records += self._put(new, discarding, begun)
            if self._pending.missing:
                end = End.MISSING
            for name, time in list(self._unfinished.items()) if end is None else ():
                anchor = self.position.of(name).anchor
                if name not in begun and anchor is not None and anchor.time >= time:
                    del self._unfinished[name]
        return end

    def _put(self, new: list[Record], discarding: Sequence[Stream], begun: Mapping[Stream, str]) -> int:
        """Queue them, each under the name that the origin had when the live reader came to it."""
        put = 0
        while (name := next((name for name in self.names if name.before is self.origin), None)) is not None:
            index = next((i for i, record in enumerate(new) if record.time > name.until), None)
            if index is None:
                break
            if index:
                rest = {**begun, **first_times(new[index:])}
                put += self._pending.put(self.origin, new[:index], (), rest)
                if self._pending.missing:
                    return put
            self._pending.end(self.origin)
            self.origin, new = name.origin, new[index:]
        return put + self._pending.put(self.origin, new, discarding, begun)

    def _note_order(self, new: Sequence[Record], index: int) -> None:
        """The record of that index is older than one before it, or seems to be: an exact reading tells."""
        stream = new[index].stream
        anchor = self.position.of(stream).anchor
        before = [record.time for record in new[:index] if record.stream == stream]
        newest = max([*before, anchor.time if anchor is not None else ""])
        if new[index].time < newest:
            self.unordered_until = max(self.unordered_until, newest)

    def _tell_error(self, error: str) -> None:
        self.statistics.errors += 1
        self._log.warning(
            "the engine ended the reading of a log with an error, trying again",
            container=self.origin.name,
            error=error,
        )
