"""A route: a match, a queue, a sink, and the one loop that delivers, retries, acknowledges and counts.

The same for every sink: a sink says what was rejected, or that it failed for now; everything else is here.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import trio

from logroute.router.match import EVERYTHING, Match
from logroute.router.queue import Queue, QueueStatistics
from logroute.router.record import Batch
from logroute.router.state import RouteState, StateError
from logroute.sinks import FileLength, Rejected, Retryable, Sink, SinkGone

COMMIT_EVERY_S = 0.25
"""How long an acknowledgement waits to be stored: what kill -9 makes a route send again."""

SAY_AGAIN_S = 60.0
"""A word that repeats is said again after so long, with how often it was meant meanwhile."""


@dataclass(frozen=True, slots=True)
class RouteSettings:
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


@dataclass(frozen=True, slots=True)
class RouteStatistics:
    """The books of a route, as one consistent picture.

    `received = delivered + rejected + dropped + queue.records + in_flight`, at any instant.
    """

    received: int
    """Records that entered the queue."""
    delivered: int
    rejected: int
    """Records that the receiver will never take."""
    dropped: int
    """Records given up; by a sink that is gone for good."""
    in_flight: int
    """Records in the delivery that is under way."""
    retried: int
    """Deliveries that were tried again, in records."""
    queue: QueueStatistics
    up: bool
    """Whether the last attempt at a delivery succeeded, or there was none."""
    reason: str
    """Why not."""
    lost: dict[str, int] = field(default_factory=dict)
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
                nursery.start_soon(self._run_sink)
                try:
                    await self._deliver_on()
                except SinkGone as error:
                    self._give_up(error)
                nursery.cancel_scope.cancel()
        finally:
            # What was acknowledged is stored even when we are cancelled; five seconds are plenty.
            with trio.move_on_after(5, shield=True):
                await self.sink.close()
                try:
                    await self.state.commit()
                except StateError as error:
                    self._log.error("the last checkpoints are not stored", error=str(error))
                await self.state.close()

    async def _deliver_on(self) -> None:
        while True:
            batches: list[Batch] | None = []
            with trio.move_on_after(math.inf if self.sink.idle_s is None else self.sink.idle_s):
                batches = await self.queue.take(self._batch_bytes, self._batch_records, self._batch_wait_s)
            if batches is None:
                return
            if batches:
                await self._deliver(batches)
            elif self._opened:
                await self._idle()

    async def _deliver(self, batches: list[Batch]) -> None:
        records = sum(len(batch.lines) for batch in batches)
        self._in_flight = records
        rejected = await self._attempt(batches, records)
        # No await from the sink's return to here: files' lengths and checkpoints change together.
        self._in_flight = 0
        self._delivered += records - len(rejected)
        self._rejected += len(rejected)
        for batch in batches:
            self.state.note(batch.origin.key, batch.after)
        for rejection in rejected:
            self.warn(
                "a record was rejected",
                container=batches[rejection.batch].origin.name,
                time=rejection.record.time,
                reason=rejection.reason,
            )

    async def _attempt(self, batches: list[Batch], records: int) -> Sequence[Rejected]:
        """Deliver, however often it takes."""
        attempt = 0
        while True:
            try:
                if not self._opened:
                    await self.sink.open()
                    self._opened = True
                    self._ready.set()
                rejected = await self.sink.deliver(batches) if records else ()
            except SinkGone:
                raise
            except Exception as error:  # whatever a sink raises ends nothing but this attempt
                self._opened = False
                self._retried += records
                await self._back_off(attempt, error)
                attempt += 1
            else:
                if not self._up:
                    self._log.info("the route delivers again", attempts=attempt + 1)
                    self._up, self._reason = True, ""
                    self._said.clear()
                return rejected

    async def _back_off(self, attempt: int, error: Exception) -> None:
        """Wait: capped exponential backoff with full jitter, at least what the receiver asked for."""
        self._up = False
        self._reason = str(error) or type(error).__name__
        ceiling = min(self.settings.retry_max_s, self.settings.retry_initial_s * 2 ** min(attempt, 30))
        wait_s = random.uniform(0, ceiling)
        if isinstance(error, Retryable):
            self.warn("cannot deliver, trying again", reason=self._reason)
            wait_s = max(wait_s, error.after_s or 0.0)
        else:
            self._log.error("the sink failed, trying again", reason=self._reason, exc_info=error)
        await trio.sleep(wait_s)

    async def _idle(self) -> None:
        try:
            await self.sink.idle()
        except Exception as error:  # tidying up ends nothing
            self._opened = False
            self.warn("cannot tidy up", reason=str(error) or repr(error))

    async def _run_sink(self) -> None:
        """The sink's own work beside the deliveries; it starts again when it fails."""
        await self._ready.wait()
        attempt = 0
        while True:
            try:
                await self.sink.run()
            except SinkGone as error:
                self._give_up(error)
                self.queue.close()
                return
            except Exception as error:  # its failure is not the deliveries'
                self._log.error("the sink's background work failed, starting it again", exc_info=error)
                await trio.sleep(min(self.settings.retry_max_s, 2.0**attempt))
                attempt += 1
            else:
                return

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
        self.gone = error
        self._up, self._reason = False, str(error)
        self._dropped += self.undelivered - self.queue.statistics().records
        self._in_flight = 0
