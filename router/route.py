"""A route: a match, a queue, a sink, and the one loop that delivers, retries, acknowledges and counts.

The same for every sink: a sink says what was rejected, or that it failed for now; everything else is here.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog
import trio

from logroute.router.match import EVERYTHING, Match
from logroute.router.queue import Queue, QueueStatistics
from logroute.router.record import Batch
from logroute.router.state import RouteState, StateError
from logroute.sinks import DELIVERED, FileLength, Outcome, Rejected, Retryable, Sink, SinkGone

COMMIT_EVERY_S = 0.25
"""How long an acknowledgement waits to be stored: what kill -9 makes a route send again."""

END_WITHIN_S = 5.0
"""What closing the sink, and storing the last checkpoints, may each take at the end."""

SAY_AGAIN_S = 60.0
"""A word that repeats is said again after so long, with how often it was meant meanwhile."""


class RouteSettings(msgspec.Struct, frozen=True):
    """What the configuration says of a route, sink aside."""

    name: str
    match: Match = EVERYTHING
    queue_bytes: int = 8 << 20
    batch_bytes: int | None = None
    """None, as for the two below: what suits the sink."""
    batch_records: int | None = None
    batch_wait_s: float | None = None
    retry_initial_s: float = 0.5
    retry_max_s: float = 60.0
    start: str | float | None = None
    """`now`, `beginning`, or how many seconds back a new route begins; None: as the source says."""


class RouteStatistics(msgspec.Struct, frozen=True):
    """The books of a route, as one consistent picture.

    `received = delivered + rejected + dropped + queue.records + in_flight`, at any instant.
    """

    received: int
    """Records that entered the queue."""
    delivered: int
    rejected: int
    """Records that the receiver will never take."""
    dropped: int
    """Records given up, because the sink is gone for good."""
    in_flight: int
    """Records in the delivery that is under way."""
    retried: int
    """Deliveries that were tried again, in records."""
    queue: QueueStatistics
    up: bool
    """Whether the last attempt at a delivery succeeded, or there was none."""
    reason: str
    """Why not."""
    lost: dict[str, int] = msgspec.field(default_factory=dict)
    """Gaps in what could be read for this route, by reason."""


class Route:
    """One route. `open` loads its checkpoints; `run` delivers until the queue is closed and empty."""

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
        self.queue = Queue(settings.queue_bytes, on_room)
        self.lost: dict[str, int] = {}
        self.gone: SinkGone | None = None
        self._state_folder = state_folder
        self._log = structlog.get_logger("logroute.router").bind(route=self.name)
        self._said: dict[str, tuple[float, int]] = {}
        # Invariant: received == delivered + rejected + dropped + queued + in flight, between awaits.
        self._received = 0
        self._delivered = 0
        self._rejected = 0
        self._dropped = 0
        self._in_flight = 0
        self._retried = 0
        self._unconfirmed = 0
        self._up = True
        self._reason = ""
        self._opened = False
        self._ready = trio.Event()
        self.sink = make_sink(self)
        cls = type(self.sink)
        self._batch_bytes = settings.batch_bytes or cls.batch_bytes
        self._batch_records = settings.batch_records or cls.batch_records
        self._batch_wait_s = cls.batch_wait_s if settings.batch_wait_s is None else settings.batch_wait_s

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
        self._unconfirmed += records

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

    def put(self, batches: Sequence[Batch]) -> None:
        self._received += self.queue.put(batches)

    def statistics(self) -> RouteStatistics:
        return RouteStatistics(
            self._received,
            self._delivered,
            self._rejected,
            self._dropped,
            self._in_flight,
            self._retried,
            self.queue.statistics(),
            self._up,
            self._reason,
            dict(self.lost),
        )

    @property
    def undelivered(self) -> int:
        """Records that were received and are neither delivered nor otherwise accounted for."""
        return self._received - self._delivered - self._rejected - self._dropped

    # --- the loop -------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Load what was stored. Raises StateError."""
        await self.state.open()

    async def run(self) -> None:
        """Deliver until the queue is closed and empty; then store what was acknowledged and close.

        Cancelled, it stores what was acknowledged by then. Ends early when the sink is gone for good.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._commit_on)
                nursery.start_soon(self._run_sink, nursery.cancel_scope)
                try:
                    await self._deliver_on()
                except SinkGone as error:
                    self.gone = error
                nursery.cancel_scope.cancel()
            if self.gone is not None:
                self._give_up(self.gone)
        finally:
            await self._end()

    async def _end(self) -> None:
        """Close the sink, and store what was acknowledged, even when we are cancelled: each has its time."""
        with trio.move_on_after(END_WITHIN_S, shield=True):
            try:
                await self.sink.close()
            except* Exception as errors:  # whatever it could not release, the checkpoints are stored
                self._log.error("the sink failed to close", exc_info=cause_of(errors))
        with trio.move_on_after(END_WITHIN_S, shield=True):
            try:
                await self.state.commit()
            except StateError as error:
                self._log.error("the last checkpoints are not stored", error=str(error))
            await self.state.close()

    async def _deliver_on(self) -> None:
        await self._open_early()
        tidy_at = self._next_idle()
        while True:
            # Only the first batch is awaited by the clock of `idle`: gathering a delivery may take longer.
            with trio.move_on_at(tidy_at):
                await self.queue.wait()
            if trio.current_time() >= tidy_at:
                if self._opened:
                    await self._idle()
                tidy_at = self._next_idle()
                continue
            batches = await self.queue.take(self._batch_bytes, self._batch_records, self._batch_wait_s)
            if batches is None:
                return
            await self._deliver(batches)

    def _next_idle(self) -> float:
        return trio.current_time() + (math.inf if self.sink.idle_s is None else self.sink.idle_s)

    async def _open_early(self) -> None:
        """One try before there is anything to deliver: a sink that is down is known from the start."""
        failure: Exception | None = None
        try:
            await self._open_sink()
        except* Exception as errors:
            failure = cause_of(errors)
        if failure is not None:
            self._failed(failure)

    async def _open_sink(self) -> None:
        await self.sink.open()
        self._opened = True
        self._ready.set()

    async def _deliver(self, batches: list[Batch]) -> None:
        records = sum(len(batch.lines) for batch in batches)
        self._in_flight = records
        rejected = (await self._attempt(batches, records)).rejected
        # No await from the sink's return to here: files' lengths and checkpoints change together.
        self._in_flight = 0
        self._delivered += records - len(rejected)
        self._rejected += len(rejected)
        for batch in batches:
            self.state.note(batch.origin.key, batch.reached)
        for rejection in rejected:
            self.warn(
                "a record was rejected",
                container=batches[rejection.batch].origin.name,
                time=rejection.record.time,
                reason=rejection.reason,
            )

    async def _attempt(self, batches: list[Batch], records: int) -> Outcome:
        """Deliver, however often it takes."""
        attempt = 0
        while True:
            failure: Exception | None = None
            outcome = DELIVERED
            try:
                if not self._opened:
                    await self._open_sink()
                if records:
                    outcome = _checked(await self.sink.deliver(batches), batches)
            # Whatever a sink raises ends nothing but this attempt. A group, because a nursery of the sink's
            # own makes one, in which our cancellation may stand beside the sink's failure.
            except* Exception as errors:
                failure = cause_of(errors)
            if failure is None:
                if not self._up:
                    self._log.info("the route delivers again", attempts=attempt + 1)
                    self._up, self._reason = True, ""
                    self._said.clear()
                return outcome
            await self._back_off(attempt, failure)
            self._retried += records
            attempt += 1

    async def _back_off(self, attempt: int, error: Exception) -> None:
        """Wait: capped exponential backoff with full jitter, at least what the receiver asked for."""
        self._failed(error)
        ceiling = min(self.settings.retry_max_s, self.settings.retry_initial_s * 2 ** min(attempt, 30))
        wait_s = random.uniform(0, ceiling)
        if isinstance(error, Retryable):
            wait_s = max(wait_s, error.after_s or 0.0)
        await trio.sleep(wait_s)

    def _failed(self, error: Exception) -> None:
        """Note why the sink does not deliver. Raises the error if it is SinkGone."""
        self._opened = False
        if isinstance(error, SinkGone):
            raise error
        self._up = False
        self._reason = str(error) or type(error).__name__
        if isinstance(error, Retryable):
            self.warn("cannot deliver, trying again", reason=self._reason)
        else:
            self._log.error("the sink failed, trying again", reason=self._reason, exc_info=error)

    async def _idle(self) -> None:
        try:
            await self.sink.idle()
        except* Exception as errors:  # tidying up ends nothing
            self._opened = False
            error = cause_of(errors)
            self.warn("cannot tidy up", reason=str(error) or repr(error))

    async def _run_sink(self, route: trio.CancelScope) -> None:
        """The sink's own work beside the deliveries; it starts again when it fails."""
        await self._ready.wait()
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
            except StateError as error:
                self.warn("checkpoints are not stored; a crash now would deliver again", reason=str(error))
                await trio.sleep(1)

    def _give_up(self, error: SinkGone) -> None:
        """The sink is gone for good: what was received and not delivered stays behind the checkpoint."""
        self._up, self._reason = False, str(error)
        self._dropped += self._in_flight + self.queue.clear()
        self._in_flight = 0


def cause_of(errors: Exception) -> Exception:
    """What a component raised, out of the groups that its nurseries, and `except*`, have put around it."""
    while isinstance(errors, ExceptionGroup) and len(errors.exceptions) == 1:
        errors = errors.exceptions[0]
    return errors


def _checked(outcome: Outcome, batches: Sequence[Batch]) -> Outcome:
    """What `deliver` returned. Raises an error if that says nothing about these batches."""
    rejected: Sequence[Rejected] = outcome.rejected
    if len(rejected) > sum(len(batch.lines) for batch in batches):
        raise ValueError("deliver() has rejected more records than it was given")
    for rejection in rejected:
        if not 0 <= rejection.batch < len(batches):
            raise ValueError(f"deliver() has rejected a record of batch {rejection.batch}: there is none")
    return outcome
