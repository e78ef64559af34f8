"""A route: a match, a queue, a sink, and the books over what goes in and what becomes of it.

The same for every sink. Delivering is `delivery.py`, waiting is `queue.py`, remembering is `state.py`; here
is what holds them together, and what a route does when its sink cannot keep up.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog
import trio

from logroute.router.books import Books, Gaps, OfOrigin, RouteStatistics
from logroute.router.database import StateError
from logroute.router.dead_letter_limit import DeadLetterLimit
from logroute.router.delivery import Delivered, Delivery, DeliverySettings, cause_of
from logroute.router.match import EVERYTHING, Match
from logroute.router.overflow import Overflow, OverflowSettings, WhenFull
from logroute.router.position import Position
from logroute.router.queue import Group, Queue
from logroute.router.record import RECORD_OVERHEAD_BYTES, Batch, Reader, total_size_bytes
from logroute.router.standing import SparingLog, Standing
from logroute.router.state import RouteState
from logroute.router.times import iso_time
from logroute.sinks import FileLength, Retryable, Sink, SinkGone

COMMIT_EVERY_S = 0.25
"""How long an acknowledgement waits to be stored: what kill -9 makes a route send again."""

END_WITHIN_S = 5.0
"""What closing the sink, and storing the last checkpoints, may each take at the end."""
HURRIED_WITHIN_S = 0.5
"""The same once somebody has asked twice for the end."""

RESTART_FIRST_S = 0.5
RESTART_MAX_S = 60.0

MOST_ORIGINS = 10_000
"""Of so many containers it is remembered what has become of their records."""
UNBOUNDED = 1 << 62
"""More memory than there is."""


class RouteSettings(msgspec.Struct, frozen=True):
    """What the configuration says of a route, sink aside."""

    name: str
    match: Match = EVERYTHING
    queue_bytes: int = 8 << 20
    disk_bytes: int = 0
    """What the spool may take on the disk; 0: there is none."""
    when_full: WhenFull = "block"
    dead_letter_bytes: int = 1 << 30
    """What the dead letters may take on the disk."""
    batch_bytes: int | None = None
    """None, as for the two below: what suits the sink."""
    batch_records: int | None = None
    batch_wait_s: float | None = None
    retry_initial_s: float = 0.5
    retry_max_s: float = 60.0
    in_flight_bytes: int = 64 << 20
    """What all deliveries that are under way may hold together."""
    deadline_s: float = 60.0
    """How long one attempt at a delivery may take."""
    start: str | float | None = None
    """`now`, `beginning`, or how many seconds back a new route begins; None: as the source says."""


class Route:
    """One route. `open` loads its state; `run` delivers until the queue is closed and empty.

    A full queue holds back the readers of its origins, until its overflow makes room.
    """

    def __init__(
        self,
        settings: RouteSettings,
        make_sink: Callable[[Route], Sink[Any]],
        *,
        state_folder: Path | None,
        on_room: Callable[[], None],
        durable: bool = False,
        share_bytes: int = UNBOUNDED,
        hide: Callable[[str], str] = str,
    ) -> None:
        """`hide` takes out of a text what nobody shall be shown: sinks do not know what that is."""
        self.settings = settings
        self._hide = hide
        self.name = settings.name
        self.key = self.name
        """What those that read for it know it by. Where a removed route had its name, the router gives it
        another: whoever still reads for that one does not read for this one."""
        self._share_bytes = share_bytes
        self.state = RouteState(settings.name, state_folder, durable=durable)
        self.queue = Queue(self.state, settings.queue_bytes, self._have_room)
        self._on_room = on_room
        self._books = Books()
        self._overflow = Overflow(settings.name, self.queue, self._books, self, on_room)
        self._letters = DeadLetterLimit(self.state, self._books, self, on_disk=state_folder is not None)
        self.lost: dict[str, Gaps] = {}
        self.gone: SinkGone | None = None
        self.unstored: set[str] = set()
        """Origins, by key, of which it is not stored yet where the route begins: nothing may be read of them
        for it. Only `begin`, a commit and the route's end change it."""
        self.cannot_store = ""
        """Why the last commit failed; empty if it did not."""
        self._state_folder = state_folder
        self._replacement: tuple[RouteSettings, Callable[[Route], Sink[Any]]] | None = None
        self._replaced = trio.Event()
        """Somebody has told us to have another sink, and we do not have it yet."""
        self._make_sink = make_sink
        self._end_within_s = END_WITHIN_S
        self._ending: trio.CancelScope | None = None
        """Around what is done at the end now."""
        self._log = structlog.get_logger("logroute.router").bind(route=self.name)
        self._sparing = SparingLog(self.name)
        self.standing = Standing(self.name, self._sparing, hide)
        self.abandoned = False
        """It was removed, and what it has not delivered shall be dropped."""
        self._delivered_at = 0.0
        self._of_origins: dict[str, OfOrigin] = {}
        self.paused_since: float | None = None
        """Since when it is paused, in seconds since the epoch; None: it is not."""
        self._earlier_events: dict[str, int] = {}
        """What sinks that were replaced have counted."""
        self._equip(settings, make_sink(self))

    def _equip(self, settings: RouteSettings, sink: Sink[Any]) -> None:
        """Have this sink, and a delivery to it."""
        self._have(settings)
        self.standing.forget_rejections()
        self.sink = sink
        self._delivery_settings = DeliverySettings(
            batch_bytes=1,
            batch_records=settings.batch_records or sink.batch_records,
            batch_wait_s=sink.batch_wait_s if settings.batch_wait_s is None else settings.batch_wait_s,
            retry_initial_s=settings.retry_initial_s,
            retry_max_s=settings.retry_max_s,
            deadline_s=settings.deadline_s if sink.has_deadline else math.inf,
        )
        self._bound()
        self._delivery = Delivery(self._delivery_settings, self.sink, self.queue, self, self.name)

    def _have(self, settings: RouteSettings) -> None:
        self.settings = settings
        self._letters.set(settings.dead_letter_bytes, settings.when_full)

    def _bound(self) -> None:
        """Bound what is held by the settings, and by the route's share of the memory."""
        settings, sink = self.settings, self.sink
        in_flight_bytes = min(settings.in_flight_bytes, self._share_bytes)
        batch_bytes = min(
            settings.batch_bytes or sink.batch_bytes,
            in_flight_bytes // (1 if sink.ordered else sink.concurrency),
        )
        # The delivery that runs asks them with each batch that it takes: it goes on with its connection.
        msgspec.structs.force_setattr(self._delivery_settings, "batch_bytes", batch_bytes)
        self.queue.limit_bytes = min(settings.queue_bytes, self._share_bytes)
        self._overflow.settings = OverflowSettings(
            settings.when_full,
            settings.disk_bytes if self._state_folder is not None else 0,
            batch_bytes,
            self._delivery_settings.batch_records,
        )

    def share(self, size_bytes: int) -> None:
        """So much memory may be taken by what waits, and as much again by what is being delivered.

        Also while it runs; nothing is interrupted for that.
        """
        was_full = self.queue.full
        self._share_bytes = size_bytes
        self._bound()
        if was_full and not self.queue.full:
            self._have_room()
        elif self.queue.full:
            self._overflow.filled()

    # --- what a sink sees (SinkContext) ---------------------------------------------------------------

    @property
    def route(self) -> str:
        return self.name

    @property
    def state_dir(self) -> str | None:
        return str(self._state_folder) if self._state_folder is not None else None

    @property
    def files(self) -> dict[str, FileLength]:
        return self.state.files

    async def commit(self) -> None:
        try:
            await self._commit()
        except StateError as error:
            raise Retryable(str(error)) from error

    def unconfirmed(self, records: int) -> None:
        self._books.unconfirmed += records

    def warn(self, event: str, **details: object) -> None:
        """Say it, unless it was said within the last minute."""
        self._sparing.say(logging.WARNING, event, **details)

    # --- the way in -----------------------------------------------------------------------------------

    @property
    def holds(self) -> bool:
        """Whether it can take nothing more now: whoever reads for it waits."""
        return self.queue.full and not self._overflow.sheds and self.gone is None

    def blocks(self, reader: Reader) -> bool:
        """Whether it holds and will for long: nobody but it shall wait for that."""
        return self._overflow.blocks(reader) and self.holds

    def hurry(self) -> None:
        """Somebody waits who cannot come back later at no cost."""
        self._overflow.hurry()

    def begin(self, origin: str, position: Position) -> None:
        """It begins there with an origin that it has never met. `store` it before that is read."""
        self.state.note(origin, position)
        if self.gone is None:
            self.unstored.add(origin)

    async def store(self) -> bool:
        """Store what was noted; whether that could be. It is tried again as long as the route runs."""
        try:
            await self._commit()
        except Exception as error:  # it ends nobody's reading
            self.cannot_store = str(error) or repr(error)
            self.warn("cannot store a checkpoint, trying again before reading", reason=self.cannot_store)
            return False
        return True

    async def _commit(self) -> None:
        """Raises StateError."""
        noted = set(self.unstored)
        try:
            await self.state.commit()
        except StateError as error:
            self.cannot_store = str(error)
            raise
        self.cannot_store = ""
        if noted:
            self.unstored -= noted
            self._on_room()

    def put(self, batches: Sequence[Batch]) -> None:
        books, queue, sheds = self._books, self.queue, self._overflow.sheds
        for batch in batches:
            if batch.origin.truncates:
                self._count_truncated(batch)
        if self.gone is not None:
            records = sum(len(batch) for batch in batches)
            books.received += records
            books.drop("gone", records)
            return
        if sheds and self.settings.when_full == "drop_newest" and queue.full:
            records = sum(len(batch) for batch in batches)
            books.received += records
            books.drop("full", records)
            queue.put_dropped(batches)
            return
        books.received += queue.put(batches)
        if queue.full:
            if sheds:
                books.drop("full", queue.drop_oldest())
            self._overflow.filled()

    def _count_truncated(self, batch: Batch) -> None:
        if records := sum(batch.truncated):
            self._books.truncated += records
            name = batch.origin.name or batch.origin.file
            self.warn("records are truncated: their lines are too long", container=name, records=records)

    # --- pausing ----------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        return self.paused_since is not None

    def pause(self, since: float) -> None:
        """Deliver nothing from now on, but what is under way. What comes waits, as `queue` says.

        `since` is in seconds since the epoch.
        """
        self.paused_since = since
        self.standing.hold(
            f"paused since {iso_time(int(since * 1e9))[:19]}Z: see `logroute routes resume {self.name}`"
        )

    def resume(self) -> None:
        """Go on."""
        if self.paused_since is None:
            return
        self.paused_since = None
        self.standing.release()
        self._delivery.resume()

    def statistics(self) -> RouteStatistics:
        books = self._books
        return RouteStatistics(
            books.received,
            books.delivered,
            books.duplicates,
            books.rejected,
            dict(books.dropped),
            self.queue.in_flight,
            books.retried,
            books.unconfirmed,
            books.truncated,
            self.queue.statistics(),
            self.state.dead.letters,
            books.letters_dropped,
            self.standing.is_up,
            self.standing.reason,
            {reason: msgspec.structs.replace(gaps) for reason, gaps in self.lost.items()},
            self.standing.since,
            self._overflow.behind,
            self.hindrance() or self._unstorable or self._overflow.hindrance,
            self._lag_s(),
            self._delivered_at,
            self._hide(self.sink.answer),
            self.paused,
            books.delivered_bytes,
            msgspec.structs.replace(books.durations, counts=list(books.durations.counts)),
            self.state.dead.size_bytes,
            self._overflow.settings.disk_bytes,
            self.standing.last_error,
            self.standing.failed_at,
            self._sink_events(),
        )

    def _sink_events(self) -> dict[str, int]:
        found = dict(self._earlier_events)
        try:
            now = self.sink.statistics().shown()
        except Exception as error:  # a stranger's sink; the books of all routes are read in one step
            self.warn("the sink cannot tell what it has counted", reason=repr(error))
            return found
        for name, count in now.items():
            found[name] = found.get(name, 0) + count
        return found

    @property
    def _unstorable(self) -> str:
        """What to say while nothing can be stored: it delivers all the same."""
        if not self.cannot_store:
            return ""
        unread = f"; new logs that are not read for it yet: {len(self.unstored)}" if self.unstored else ""
        return f"{self.cannot_store}: a crash now would deliver again{unread}"

    def _lag_s(self) -> float:
        oldest = self.queue.statistics().oldest
        try:
            return max(0.0, time.time() - datetime.fromisoformat(oldest).timestamp()) if oldest else 0.0
        except ValueError:  # an engine that writes no such times
            return 0.0

    def _have_room(self) -> None:
        self._overflow.have_room()

    @property
    def why_not_up(self) -> str:
        """Why nothing is delivered; empty where nothing is known to be wrong."""
        return self.standing.reason

    @property
    def undelivered(self) -> int:
        """Records that were received and are neither delivered nor otherwise accounted for."""
        return self.queue.records + self.queue.in_flight

    # --- dead letters -----------------------------------------------------------------------------------

    async def replay(self, letters: Sequence[int] | None) -> int:
        """Put these dead letters, or all, behind what waits; how many records. Raises StateError."""
        settings = self._delivery_settings
        if letters is None:
            # Those that are rejected again meanwhile are not among them, or this would never end.
            letters = range(1, self.state.newest_letter + 1)
        replayed = 0
        while records := await self.queue.replay(letters, settings.batch_bytes, settings.batch_records):
            self._books.received += records
            replayed += records
        return replayed

    # --- what a delivery says (Accounts) ----------------------------------------------------------------

    def hindrance(self) -> str:
        return self._letters.hindrance()

    def retried(self, records: int) -> None:
        self._books.retried += records

    def finished(self, group: Group, delivered: Delivered) -> None:
        self._hide_reasons(delivered)
        books = self._books
        if group.damaged:
            books.drop("damaged", group.records)
        else:
            rejected = delivered.rejected
            self._letters.bury(delivered.letters)
            if group.records:  # else only a position has moved on
                self._delivered_at = time.time()
                books.durations.add(delivered.took_s)
                size_bytes = total_size_bytes(group.batches) - RECORD_OVERHEAD_BYTES * group.records
                books.delivered_bytes += max(0, size_bytes)
            books.delivered += group.records - rejected - delivered.duplicates
            books.duplicates += delivered.duplicates
            books.rejected += rejected
            self._note_origins(group.batches, delivered)
        self.queue.finish(group)
        self._say_rejected(delivered)
        if self._overflow.behind and self.queue.empty:
            self._overflow.caught_up()

    def _note_origins(self, batches: Sequence[Batch], delivered: Delivered) -> None:
        origins = self._of_origins
        rejected: dict[str, int] = {}
        for letter in (*delivered.letters, *delivered.kept):
            of = origins.setdefault(letter.origin.key, OfOrigin())
            of.rejected += 1
            of.rejection = letter.reason
            rejected[letter.origin.key] = rejected.get(letter.origin.key, 0) + 1
        for batch in batches:
            key, count = batch.origin.key, len(batch)
            if not count:
                continue
            if rejected and rejected.get(key, 0) >= count:
                rejected[key] -= count  # it is all of this one, as far as can be told
                continue
            if (known := origins.get(key)) is not None:
                known.delivered = batch.last_time
            else:
                origins[key] = OfOrigin(batch.last_time)
        while len(origins) > MOST_ORIGINS:
            del origins[next(iter(origins))]

    def of_origin(self, key: str) -> OfOrigin:
        """What has become of one container's records since the start, as far as that is remembered."""
        return self._of_origins.get(key) or OfOrigin()

    def given_back(self, group: Group, delivered: Delivered, left: list[Batch]) -> None:
        self._hide_reasons(delivered)
        books = self._books
        rejected = delivered.rejected
        self._letters.bury(delivered.letters)
        done = group.records - sum(len(batch) for batch in left)
        books.delivered += done - rejected - delivered.duplicates
        books.duplicates += delivered.duplicates
        books.rejected += rejected
        self.queue.give_back(group, left)
        self._say_rejected(delivered)

    def _hide_reasons(self, delivered: Delivered) -> None:
        for letters in (delivered.letters, delivered.kept):
            letters[:] = [
                msgspec.structs.replace(letter, reason=self._hide(letter.reason)) for letter in letters
            ]
        delivered.unnamed = [(count, self._hide(reason)) for count, reason in delivered.unnamed]

    def _say_rejected(self, delivered: Delivered) -> None:
        for letter in (*delivered.letters, *delivered.kept):
            self.warn(
                "a record was rejected",
                container=letter.origin.name or letter.origin.file,
                time=letter.record.time,
                reason=letter.reason,
            )
        for count, reason in delivered.unnamed:
            self.warn("records were rejected, nobody says which", records=count, reason=reason)

    def failed(self, error: Exception) -> None:
        if not self.paused:
            self.standing.failed(error)

    def answered(self, taken: int, rejected: int = 0, reason: str = "") -> None:
        if not self.paused:  # else it was under way
            self.standing.answered(taken, rejected, reason)

    # --- the loop -------------------------------------------------------------------------------------

    async def open(self, *, within_s: float = math.inf) -> None:
        """Load what was stored. Raises StateError; until it has succeeded, the route is down."""
        try:
            await self.state.open(within_s=within_s)
        except StateError as error:
            self.standing.down(str(error))
            raise
        if not self.paused:
            self.standing.up()
        self.queue.load()
        self._books.received = self.queue.records + self.state.lost_records
        self._books.drop("damaged", self.state.lost_records)
        self._overflow.behind = not self.queue.empty

    async def run(self) -> None:
        """Deliver until the queue is closed and empty; then store what was acknowledged and close.

        Cancelled, it stores what was acknowledged by then, and spools the rest where it may. Ends early when
        the sink is gone for good.
        """
        try:
            attempt = 0
            equipped = self._replacement is None  # else the sink that we were made with is never opened
            while True:
                failure: Exception | None = None
                began = trio.current_time()
                try:
                    if not equipped:
                        self._equip_anew()
                    await self._serve()
                except* Exception as errors:
                    failure = cause_of(errors)
                equipped = False
                if self.gone is not None:
                    self._give_up(self.gone)
                    return
                if failure is None and self._replacement is None:
                    return
                # Whatever was under way is not known to be delivered.
                self.queue.give_back_all()
                if failure is not None:
                    attempt = 0 if trio.current_time() - began > RESTART_MAX_S else attempt + 1
                    wait_s = min(RESTART_MAX_S, RESTART_FIRST_S * 2 ** min(attempt, 30))
                    self.standing.down(str(failure) or repr(failure))
                    self._log.error("the route failed, starting it again", after_s=wait_s, exc_info=failure)
                    with trio.move_on_after(wait_s):
                        await self._replaced.wait()
        finally:
            await self._end()

    def _equip_anew(self) -> None:
        """Have a new sink: the one that we were told to have, if we were, else another of its kind."""
        settings, make_sink = self._replacement or (self.settings, self._make_sink)
        self._replacement, self._make_sink = None, make_sink
        self._replaced = trio.Event()
        # Before the sink is made, which may fail: then this is what is tried again.
        self._have(settings)
        sink = make_sink(self)
        self._earlier_events = self._sink_events()
        self._equip(settings, sink)

    async def _serve(self) -> None:
        """One sink's life: until everything is delivered, it is gone or replaced, or something fails."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._commit_on)
                nursery.start_soon(self._run_sink, nursery.cancel_scope)
                nursery.start_soon(self._overflow.run)
                try:
                    await self._delivery.run()
                except SinkGone as error:
                    self.gone = error
                nursery.cancel_scope.cancel()
        finally:
            await self._close_sink()

    def replace(self, settings: RouteSettings, make_sink: Callable[[Route], Sink[Any]]) -> None:
        """Go on with other settings, and another sink: what waits, and the books, stay.

        The old sink ends the attempts that are under way first, and is closed. The settings are the new ones
        at once: the router asks for the match, and where to begin, before that.
        """
        self._have(settings)
        self._replacement = settings, make_sink
        self._replaced.set()
        self._delivery.stop()

    def hurry_end(self) -> None:
        """Whoever waits for the end has asked twice: what does not answer at once is given up."""
        self._end_within_s = self.state.patience_s = HURRIED_WITHIN_S
        if self._ending is not None:
            self._ending.deadline = min(self._ending.deadline, trio.current_time() + HURRIED_WITHIN_S)

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """Around what is to be done at the end, even when we are cancelled."""
        try:
            with trio.move_on_after(self._end_within_s, shield=True) as self._ending:
                yield
        finally:
            self._ending = None

    async def _close_sink(self) -> None:
        with self._in_time():
            try:
                await self.sink.close()
            except* Exception as errors:  # whatever it could not release, the checkpoints are stored
                self._log.error("the sink failed to close", exc_info=cause_of(errors))

    async def _end(self) -> None:
        """Store what was acknowledged, and spool the rest, even when we are cancelled: it has its time."""
        with self._in_time():
            for what, step in (
                ("what is not delivered is not spooled", self._spool_the_rest),
                ("the last checkpoints are not stored", self.state.commit),
                ("the state is not closed", self.state.close),
            ):
                try:
                    await step()
                except StateError as error:
                    self._log.error(what, error=str(error))
                except Exception as error:  # it ends nobody but this route
                    self._log.error(what, exc_info=error)

    async def _spool_the_rest(self) -> None:
        if not self.abandoned and self._overflow.may_spool and self.undelivered > self.queue.spooled.records:
            await self._overflow.spool()

    async def _run_sink(self, route: trio.CancelScope) -> None:
        """The sink's own work beside the deliveries; it starts again when it fails."""
        await self._delivery.opened.wait()
        self.standing.tried.set()
        attempt = 0
        while True:
            failure: Exception | None = None
            try:
                await self.sink.run()
            except* Exception as errors:  # its failure is not the deliveries'
                failure = cause_of(errors)
            if failure is None:
                return
            if isinstance(failure, SinkGone):
                self.gone = failure
                route.cancel()
                return
            self._log.error("the sink's background work failed, starting it again", exc_info=failure)
            await trio.sleep(min(self.settings.retry_max_s, 2.0 ** min(attempt, 30)))
            attempt += 1

    async def _commit_on(self) -> None:
        while True:
            await self.state.wait_changed()
            await trio.sleep(COMMIT_EVERY_S)
            try:
                await self._commit()
                await self._letters.make_room()
            except StateError as error:
                self.warn("checkpoints are not stored; a crash now would deliver again", reason=str(error))
                await trio.sleep(1)

    def _give_up(self, error: SinkGone) -> None:
        """The sink is gone for good: what was received and not delivered stays behind the checkpoint."""
        self.standing.down(str(error))
        self._books.drop("gone", self.queue.abandon())
        self.unstored.clear()
        self._on_room()
