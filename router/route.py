"""A route: a match, a queue, a sink, and the books over what goes in and what becomes of it.

The same for every sink. Delivering is `delivery.py`, waiting is `queue.py`, remembering is `state.py`; here
is what holds them together, and what a route does when its sink cannot keep up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog
import trio

from logroute.router import load
from logroute.router.delivery import Delivered, Delivery, DeliverySettings, cause_of
from logroute.router.load import Load
from logroute.router.match import EVERYTHING, Match
from logroute.router.queue import Group, Queue, QueueStatistics
from logroute.router.record import Batch, Reader
from logroute.router.state import RouteState, StateError
from logroute.sinks import FileLength, Retryable, Sink, SinkGone

COMMIT_EVERY_S = 0.25
"""How long an acknowledgement waits to be stored: what kill -9 makes a route send again."""

END_WITHIN_S = 5.0
"""What closing the sink, and storing the last checkpoints, may each take at the end."""

SAY_AGAIN_S = 60.0
"""A word that repeats is said again after so long, with how often it was meant meanwhile."""

RESTART_FIRST_S = 0.5
RESTART_MAX_S = 60.0

PATIENCE_S = 0.1
"""How long, with nothing to compute, a full queue holds back its readers before the route falls behind."""
PATIENCE_BEHIND_S = 0.025
"""The same for a route that is behind already."""
LOOK_EVERY_S = 0.05
"""How often a full queue is looked at meanwhile. Of a healthy route it is full all the time."""
LOOK_EVERY_BEHIND_S = 0.025
DEAD_LETTER_BYTES = 1 << 30
"""What the dead letters of a route may take."""
DEAD_LETTER_BYTES_IN_MEMORY = 16 << 20
"""The same where there is no disk; then the oldest make room."""
IDLE_SHARE = 0.25
"""With less idle time than this the processor is busy."""
DISK_AGAIN_S = 5.0
"""A disk that could not be written to is tried again after so long."""

WhenFull = Literal["block", "drop_oldest", "drop_newest"]


class RouteSettings(msgspec.Struct, frozen=True):
    """What the configuration says of a route, sink aside."""

    name: str
    match: Match = EVERYTHING
    queue_bytes: int = 8 << 20
    disk_bytes: int = 0
    """What the spool may take on the disk; 0: there is none."""
    when_full: WhenFull = "block"
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


class RouteStatistics(msgspec.Struct, frozen=True):
    """The books of a route, as one consistent picture.

    `received = delivered + duplicates + rejected + sum(dropped) + queue.records + in_flight`, at any instant.
    """

    received: int
    """Records that entered the queue; at the start, those in the spool."""
    delivered: int
    duplicates: int
    """Records that the receiver had already."""
    rejected: int
    """Records that the receiver will never take."""
    dropped: dict[str, int]
    """Records given up, by reason: `full` (the user's policy), `gone` (the sink), `damaged` (the spool)."""
    in_flight: int
    """Records in deliveries that are under way."""
    retried: int
    """Deliveries that were tried again, in records."""
    unconfirmed: int
    """Delivered records of which nobody can tell whether the receiver has read them."""
    queue: QueueStatistics
    dead_letters: int
    """How many are kept now."""
    up: bool
    """Whether the last attempt at a delivery succeeded, or there was none."""
    reason: str
    """Why not."""
    lost: dict[str, int] = msgspec.field(default_factory=dict)
    """Gaps in what could be read for this route, by reason."""
    since: float = 0.0
    """Since when it is up, or not: seconds since the epoch."""
    behind: bool = False
    """The sink cannot keep up, or could not, and not everything is delivered yet."""
    hindrance: str = ""
    """What keeps it from reading on, or from delivering, whatever the sink does; empty if nothing."""
    lag_s: float = 0.0
    """Age of the oldest record that is not acknowledged, by its own time; 0 if there is none."""


class _Books(msgspec.Struct):
    """Records, since the start. Between awaits the sum over what became of them is `received`."""

    received: int = 0
    delivered: int = 0
    duplicates: int = 0
    rejected: int = 0
    dropped: dict[str, int] = msgspec.field(default_factory=dict)
    retried: int = 0
    unconfirmed: int = 0

    def drop(self, reason: str, records: int) -> None:
        if records:
            self.dropped[reason] = self.dropped.get(reason, 0) + records


class Route:
    """One route. `open` loads its state; `run` delivers until the queue is closed and empty.

    A full queue holds back the readers of its origins for as long as that is only the pace of the computer.
    When it is the sink that cannot keep up, the route falls behind: it spools what it holds, and where it may
    not, or cannot, it does what `when_full` says. It is behind until everything is delivered.
    """

    def __init__(
        self,
        settings: RouteSettings,
        make_sink: Callable[[Route], Sink[Any]],
        *,
        state_folder: Path | None,
        on_room: Callable[[], None],
        durable: bool = False,
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self.state = RouteState(settings.name, state_folder, durable=durable)
        self.queue = Queue(self.state, settings.queue_bytes, self._have_room)
        self.lost: dict[str, int] = {}
        self.gone: SinkGone | None = None
        self._state_folder = state_folder
        self._on_room = on_room
        self._replacement: tuple[RouteSettings, Callable[[Route], Sink[Any]]] | None = None
        self._make_sink = make_sink
        self._log = structlog.get_logger("logroute.router").bind(route=self.name)
        self._said: dict[str, tuple[float, int]] = {}
        self._books = _Books()
        self._up = True
        self._reason = ""
        self._since = time.time()
        self._failures = 0
        self._filled = trio.Event()
        self._room = trio.Event()
        self._behind = False
        self._blocks = False
        """Nothing can be done but wait for the sink, or the disk."""
        self._defers = False
        """It could spool, but others would have to wait for that."""
        self._hurried = trio.Event()
        self._load = Load()
        self._sheds = False
        """It drops what does not fit, as it was told to."""
        self._spooled_at_progress = -1
        self._disk_from = -math.inf
        """When the disk is worth another try."""
        self._equip(settings, make_sink(self))

    def _equip(self, settings: RouteSettings, sink: Sink[Any]) -> None:
        """Have this sink, and a delivery to it."""
        self.settings, self.sink = settings, sink
        self.queue.limit_bytes = settings.queue_bytes
        cls = type(sink)
        side_by_side = 1 if cls.ordered else cls.concurrency
        self._delivery_settings = DeliverySettings(
            batch_bytes=min(
                settings.batch_bytes or cls.batch_bytes, settings.in_flight_bytes // side_by_side
            ),
            batch_records=settings.batch_records or cls.batch_records,
            batch_wait_s=cls.batch_wait_s if settings.batch_wait_s is None else settings.batch_wait_s,
            retry_initial_s=settings.retry_initial_s,
            retry_max_s=settings.retry_max_s,
            deadline_s=settings.deadline_s if cls.has_deadline else math.inf,
        )
        self._delivery = Delivery(self._delivery_settings, self.sink, self.queue, self, self.name)

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
            await self.state.commit()
        except StateError as error:
            raise Retryable(str(error)) from error

    def unconfirmed(self, records: int) -> None:
        self._books.unconfirmed += records

    def warn(self, event: str, **details: object) -> None:
        """Say it, unless it was said within the last minute."""
        now = trio.current_time()
        last, times = self._said.get(event, (-math.inf, 0))
        if now - last < SAY_AGAIN_S:
            self._said[event] = (last, times + 1)
            return
        if times:
            details["repeated"] = times
        self._said[event] = (now, 0)
        self._log.warning(event, **details)

    # --- the way in -----------------------------------------------------------------------------------

    @property
    def holds(self) -> bool:
        """Whether it can take nothing more now: whoever reads for it waits."""
        return self.queue.full and not self._sheds and self.gone is None

    def blocks(self, reader: Reader) -> bool:
        """Whether it holds and will for long: nobody but it shall wait for that."""
        return (self._blocks or (self._defers and reader.cheap)) and self.holds

    def hurry(self) -> None:
        """Somebody waits who cannot come back later at no cost."""
        self._hurried.set()

    def put(self, batches: Sequence[Batch]) -> None:
        books, queue = self._books, self.queue
        if self._sheds and self.settings.when_full == "drop_newest" and queue.full:
            records = sum(len(batch.lines) for batch in batches)
            books.received += records
            books.drop("full", records)
            queue.put_dropped(batches)
            return
        books.received += queue.put(batches)
        if queue.full:
            if self._sheds:
                books.drop("full", queue.drop_oldest())
            self._filled.set()

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
            self.queue.statistics(),
            self.state.dead.letters,
            self._up,
            self._reason,
            dict(self.lost),
            self._since,
            self._behind,
            self.hindrance() or self._fullness(),
            self._lag_s(),
        )

    def _fullness(self) -> str:
        if not self._blocks:
            return ""
        where = "in memory"
        if self.settings.disk_bytes and self._state_folder is not None:
            where += (
                f" and on the disk ({self.queue.spooled.stored_bytes} of {self.settings.disk_bytes} bytes)"
            )
        return f"its queue is full {where}: its logs are read on when there is room"

    def _lag_s(self) -> float:
        oldest = self.queue.statistics().oldest
        try:
            return max(0.0, time.time() - datetime.fromisoformat(oldest).timestamp()) if oldest else 0.0
        except ValueError:  # an engine that writes no such times
            return 0.0

    @property
    def undelivered(self) -> int:
        """Records that were received and are neither delivered nor otherwise accounted for."""
        return self.queue.records + self.queue.in_flight

    @property
    def _progress(self) -> int:
        books = self._books
        return books.delivered + books.duplicates + books.rejected

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

    @property
    def _dead_letters_are_full(self) -> bool:
        limit = DEAD_LETTER_BYTES if self._state_folder is not None else DEAD_LETTER_BYTES_IN_MEMORY
        return self.state.dead.size_bytes >= limit

    @property
    def _when_dead_full(self) -> WhenFull:
        return self.settings.when_full if self._state_folder is not None else "drop_oldest"

    async def _bound_dead_letters(self) -> None:
        if self._dead_letters_are_full and self._when_dead_full == "drop_oldest":
            dropped = await self.state.forget_oldest_letters(self.state.dead.size_bytes // 10)
            self.warn("there are too many dead letters: the oldest are dropped", dead_letters=dropped)

    # --- what a delivery says (Accounts) ----------------------------------------------------------------

    def hindrance(self) -> str:
        if self._dead_letters_are_full and self._when_dead_full == "block":
            return (
                f"its {self.state.dead.letters} dead letters take {self.state.dead.size_bytes} bytes: "
                f"replay or drop them with `logroute deadletters`"
            )
        return ""

    def retried(self, records: int) -> None:
        self._books.retried += records

    def finished(self, group: Group, delivered: Delivered) -> None:
        books = self._books
        if group.damaged:
            books.drop("damaged", group.records)
        else:
            rejected = len(delivered.letters)
            if rejected and not (self._dead_letters_are_full and self._when_dead_full == "drop_newest"):
                self.state.bury(delivered.letters)
            books.delivered += group.records - rejected - delivered.duplicates
            books.duplicates += delivered.duplicates
            books.rejected += rejected
        self.queue.finish(group)
        self._say_rejected(delivered)
        if self._behind and self.queue.empty:
            self._caught_up()

    def given_back(self, group: Group, delivered: Delivered, left: list[Batch]) -> None:
        books = self._books
        rejected = len(delivered.letters)
        if rejected:
            self.state.bury(delivered.letters)
        done = group.records - sum(len(batch.lines) for batch in left)
        books.delivered += done - rejected - delivered.duplicates
        books.duplicates += delivered.duplicates
        books.rejected += rejected
        self.queue.give_back(group, left)
        self._say_rejected(delivered)

    def _say_rejected(self, delivered: Delivered) -> None:
        for letter in delivered.letters:
            self.warn(
                "a record was rejected",
                container=letter.origin.name,
                time=letter.record.time,
                reason=letter.reason,
            )

    def failed(self, error: Exception) -> None:
        self._failures += 1
        self._is_down(str(error) or type(error).__name__)
        if isinstance(error, Retryable | StateError):
            self.warn("cannot deliver, trying again", reason=self._reason)
        else:
            self._log.error("the sink failed, trying again", reason=self._reason, exc_info=error)

    def _is_down(self, reason: str) -> None:
        if self._up:
            self._since = time.time()
        self._up, self._reason = False, reason

    def succeeded(self) -> None:
        if not self._up:
            self._since = time.time()
            self._log.info("the route delivers again", attempts=self._failures + 1)
            self._up, self._reason, self._failures = True, "", 0
            self._said.clear()

    # --- the loop -------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Load what was stored. Raises StateError."""
        await self.state.open()
        self.queue.load()
        self._books.received = self.queue.records
        self._behind = not self.queue.empty

    async def run(self) -> None:
        """Deliver until the queue is closed and empty; then store what was acknowledged and close.

        Cancelled, it stores what was acknowledged by then, and spools the rest where it may. Ends early when
        the sink is gone for good.
        """
        try:
            attempt = 0
            while True:
                failure: Exception | None = None
                began = trio.current_time()
                try:
                    await self._serve()
                except* Exception as errors:
                    failure = cause_of(errors)
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
                    self._is_down(str(failure) or repr(failure))
                    self._log.error("the route failed, starting it again", after_s=wait_s, exc_info=failure)
                    await trio.sleep(wait_s)
                settings, make_sink = self._replacement or (self.settings, self._make_sink)
                self._replacement, self._make_sink = None, make_sink
                self._equip(settings, make_sink(self))
        finally:
            await self._end()

    async def _serve(self) -> None:
        """One sink's life: until everything is delivered, it is gone or replaced, or something fails."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._commit_on)
                nursery.start_soon(self._run_sink, nursery.cancel_scope)
                nursery.start_soon(self._keep_room)
                try:
                    await self._delivery.run()
                except SinkGone as error:
                    self.gone = error
                nursery.cancel_scope.cancel()
        finally:
            await self._close_sink()

    def replace(self, settings: RouteSettings, make_sink: Callable[[Route], Sink[Any]]) -> None:
        """Go on with other settings, and another sink: what waits, and the books, stay.

        The old sink ends the attempts that are under way first, and is closed.
        """
        self._replacement = settings, make_sink
        self._delivery.stop()

    async def _close_sink(self) -> None:
        with trio.move_on_after(END_WITHIN_S, shield=True):
            try:
                await self.sink.close()
            except* Exception as errors:  # whatever it could not release, the checkpoints are stored
                self._log.error("the sink failed to close", exc_info=cause_of(errors))

    async def _end(self) -> None:
        """Store what was acknowledged, and spool the rest, even when we are cancelled: it has its time."""
        with trio.move_on_after(END_WITHIN_S, shield=True):
            try:
                if self._may_spool and self.undelivered > self.queue.spooled.records:
                    await self._spool()
                await self.state.commit()
            except StateError as error:
                self._log.error("the last checkpoints are not stored", error=str(error))
            await self.state.close()

    async def _run_sink(self, route: trio.CancelScope) -> None:
        """The sink's own work beside the deliveries; it starts again when it fails."""
        await self._delivery.opened.wait()
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
                await self.state.commit()
                await self._bound_dead_letters()
            except StateError as error:
                self.warn("checkpoints are not stored; a crash now would deliver again", reason=str(error))
                await trio.sleep(1)

    def _give_up(self, error: SinkGone) -> None:
        """The sink is gone for good: what was received and not delivered stays behind the checkpoint."""
        self._is_down(str(error))
        self._books.drop("gone", self.queue.abandon())

    # --- a sink that cannot keep up -----------------------------------------------------------------------

    async def _keep_room(self) -> None:
        """Whenever the queue is full for longer than the computer's own pace explains, fall behind.

        While the processor is busy the queue is full because delivering is work: then the readers wait, and
        nobody loses by it. What counts is the time in which there is nothing to compute.
        """
        idle_s = 0.0
        while True:
            if not self.queue.full and not idle_s:
                self._filled = trio.Event()
                await self._filled.wait()
            if self.queue.full and idle_s >= self._patience_s:
                idle_s = 0.0
                if self._may_spool and self._load.idle_share() < IDLE_SHARE:
                    await self._defer()
                if self.queue.full and not await self._fall_behind() and self.queue.full:
                    await self._block()
                continue
            began, busy = trio.current_time(), load.busy_s()
            await trio.sleep(LOOK_EVERY_BEHIND_S if self._behind else LOOK_EVERY_S)
            passed_s = trio.current_time() - began
            if self.queue.full:
                # Some is forgiven: waiting for a receiver's answers now and then is not being behind.
                forgiven_s = IDLE_SHARE * passed_s
                idle_s = max(0.0, idle_s + passed_s - max(0.0, load.busy_s() - busy) - forgiven_s)
            else:
                idle_s = max(0.0, idle_s - passed_s)

    async def _defer(self) -> None:
        """While the processor is busy with what others deliver, spooling would slow them down.

        So what is read from files is left there, until there is idle time; unless somebody needs it now.
        """
        self._defers = True
        self._hurried = trio.Event()
        self._on_room()
        while self.queue.full and not self._hurried.is_set():
            with trio.move_on_after(load.OVER_S):
                await self._hurried.wait()
            if self._load.idle_share() >= IDLE_SHARE:
                break
        self._defers = False

    async def _block(self) -> None:
        """Until there is room, or the disk is worth another try. Whoever reads for others as well goes on."""
        self._room = trio.Event()
        self._blocks = True
        self._on_room()
        with trio.move_on_after(DISK_AGAIN_S if self.settings.disk_bytes else math.inf):
            await self._room.wait()
        self._blocks = False

    def _have_room(self) -> None:
        self._room.set()
        self._on_room()

    @property
    def _patience_s(self) -> float:
        if not self._behind:
            return PATIENCE_S
        return 0.0 if self._progress == self._spooled_at_progress else PATIENCE_BEHIND_S

    @property
    def _may_spool(self) -> bool:
        return (
            self.settings.disk_bytes > 0
            and self._state_folder is not None
            and trio.current_time() >= self._disk_from
        )

    async def _fall_behind(self) -> bool:
        """Spool, if that can be; else do as `when_full` says. Whether something was spooled."""
        if not self._behind:
            self._behind = True
            self._log.info(
                "the sink cannot keep up: the route is behind", reason=self._reason or "it is slow"
            )
        if self._may_spool:
            try:
                if await self._spool():
                    return True
            except StateError as error:
                self._disk_from = trio.current_time() + DISK_AGAIN_S
                self.warn("cannot spool", reason=str(error), instead=_INSTEAD[self.settings.when_full])
        if self.queue.full and self.settings.when_full != "block" and not self._sheds:
            self._sheds = True
            self.warn("the queue is full", instead=_INSTEAD[self.settings.when_full])
            if self.settings.when_full == "drop_oldest":
                self._books.drop("full", self.queue.drop_oldest())
            self._on_room()
        return False

    async def _spool(self) -> bool:
        """What is not delivered goes to the disk, if there is room: whether there was. Raises StateError."""
        spooled = self.queue.spooled
        if spooled.stored_bytes >= self.settings.disk_bytes:
            if self.settings.when_full != "drop_oldest":
                self.warn(
                    "the spool is full",
                    bytes=spooled.stored_bytes,
                    limit=self.settings.disk_bytes,
                    instead=_INSTEAD[self.settings.when_full],
                )
                return False
            over = spooled.stored_bytes - self.settings.disk_bytes + self.settings.queue_bytes
            self._books.drop("full", await self.queue.drop_spooled(over))
        await self.queue.spool(self._delivery_settings.batch_bytes, self._delivery_settings.batch_records)
        self._sheds = False
        self._spooled_at_progress = self._progress
        return True

    def _caught_up(self) -> None:
        self._behind = self._sheds = False
        self._log.info("the route has caught up")


_INSTEAD: dict[WhenFull, str] = {
    "block": "the route waits; its logs are read on when there is room",
    "drop_oldest": "dropping the oldest records, as `when_full` says",
    "drop_newest": "dropping what comes, as `when_full` says",
}
