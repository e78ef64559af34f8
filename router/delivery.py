"""Delivery: from a route's queue to its sink, however often it takes. The same for every sink.

A sink says what it rejected, what it had already, what it takes later, that it refuses the whole, or that it
failed for now. Retries, deadlines, halving and counting are here, once.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, Protocol

import msgspec
import structlog
import trio

from logroute.router.database import StateError
from logroute.router.dead_letters import Letter
from logroute.router.queue import Group, Queue
from logroute.router.record import Batch, Record, cut
from logroute.router.unwritable import mended
from logroute.sinks import DELIVERED, Outcome, Postponed, Refused, Rejected, Retryable, Sink, SinkGone

HINDERED_S = 1.0
"""How often it is looked whether a delivery may go on."""


class DeliverySettings(msgspec.Struct, frozen=True):
    """What one delivery takes, and how it is tried."""

    batch_bytes: int
    batch_records: int
    batch_wait_s: float
    retry_initial_s: float
    retry_max_s: float
    deadline_s: float
    """How long one attempt may take; infinite where the sink has none."""


class Delivered(msgspec.Struct):
    """What became of a group, in all of its attempts."""

    duplicates: int = 0
    letters: list[Letter] = msgspec.field(default_factory=list)
    """Rejected, to be kept by the route."""
    kept: list[Letter] = msgspec.field(default_factory=list)
    """Rejected, and kept by the receiver."""
    unnamed: list[tuple[int, str]] = msgspec.field(default_factory=list)
    """How many were rejected by a receiver that does not say which, and its words."""
    took_s: float = 0.0
    """From the first attempt to the receiver's last word."""

    @property
    def rejected(self) -> int:
        return len(self.letters) + len(self.kept) + sum([count for count, _ in self.unnamed])


class _Attempts(msgspec.Struct):
    """How far the delivery of a group has come."""

    parts: list[list[Batch]]
    """What is still to be sent, the first part last. One part, unless the receiver refuses a whole."""
    result: Delivered = msgspec.field(default_factory=Delivered)
    heard: bool = False
    """The receiver has said what becomes of some of it."""

    @property
    def left(self) -> list[Batch]:
        return [batch for part in reversed(self.parts) for batch in part]


class Accounts(Protocol):
    """Where a delivery says what it has done: the route's books."""

    def hindrance(self) -> str:
        """Why nothing may be delivered now, whatever the sink says; empty if it may."""

    @property
    def paused(self) -> bool:
        """Whether somebody wants nothing to be delivered now."""

    def retried(self, records: int) -> None:
        """So many records are sent again."""

    def finished(self, group: Group, delivered: Delivered) -> None:
        """A group is done with. No await lies between the sink's last word and this."""

    def given_back(self, group: Group, delivered: Delivered, left: list[Batch]) -> None:
        """Of a group only so much is done with: we were stopped. Likewise."""

    def failed(self, error: Exception) -> None:
        """The last attempt failed."""

    def answered(self, taken: int, rejected: int = 0, reason: str = "") -> None:
        """The last attempt did not: of its records so many were taken, and so many rejected for good."""


class Delivery:
    """Takes from the queue and delivers, until the queue is closed and empty.

    One delivery at a time; several side by side where order does not matter to the sink.
    """

    def __init__(
        self, settings: DeliverySettings, sink: Sink[Any], queue: Queue, accounts: Accounts, route: str
    ) -> None:
        self.opened = trio.Event()
        """The sink was open at least once."""
        self._settings = settings
        self._sink = sink
        self._queue = queue
        self._accounts = accounts
        self._log = structlog.get_logger("logroute.router").bind(route=route)
        self._open = False
        self._opening = trio.Lock()
        self._stopping = False
        self._resumed = trio.Event()
        self._idle_scopes: set[trio.CancelScope] = set()
        """Around whatever is waited for but the sink's answers."""

    async def run(self) -> None:
        """Until `stop`, or the queue is closed and empty. Raises SinkGone."""
        await self._open_early()
        try:
            async with trio.open_nursery() as reading:
                reading.start_soon(self._queue.read_ahead)
                async with trio.open_nursery() as nursery:
                    for _ in range(1 if self._sink.ordered else self._sink.concurrency):
                        nursery.start_soon(self._deliver_on)
                reading.cancel_scope.cancel()
        except* SinkGone as gone:
            raise cause_of(gone) from None

    def stop(self) -> None:
        """Take nothing more, try nothing again: what is under way is heard out, the rest is given back."""
        self._stopping = True
        for scope in self._idle_scopes:
            scope.cancel()

    def resume(self) -> None:
        """The route is not paused any more: go on at once, also where it waits for another attempt."""
        self._resumed.set()
        self._resumed = trio.Event()

    @contextmanager
    def _until_stopped(self) -> Iterator[None]:
        scope = trio.CancelScope()
        if self._stopping:
            scope.cancel()
        self._idle_scopes.add(scope)
        try:
            with scope:
                yield
        finally:
            self._idle_scopes.discard(scope)

    async def _deliver_on(self) -> None:
        tidy_at = self._next_idle()
        while not self._stopping:
            # Only the first batch is awaited by the clock of `idle`: gathering a delivery may take longer.
            with self._until_stopped(), trio.move_on_at(tidy_at):
                await self._queue.wait()
            if trio.current_time() >= tidy_at:
                if self._open:
                    await self._idle()
                tidy_at = self._next_idle()
                continue
            group: Group | None = None
            with self._until_stopped():
                group = await self._take()
            if group is None:
                return
            attempts = _Attempts([group.batches] if group.records and not group.damaged else [])
            try:
                await self._deliver(attempts)
            except BaseException:
                # The end cuts it short, or the sink is gone: what was taken of it is not sent again.
                # A row of the spool stays whole, also one that is still being written.
                if attempts.heard and not group.is_kept_whole:
                    self._accounts.given_back(group, attempts.result, attempts.left)
                raise
            # No await from the sink's return to here: files' lengths and checkpoints change together.
            if attempts.parts:
                self._accounts.given_back(group, attempts.result, attempts.left)
            else:
                self._accounts.finished(group, attempts.result)

    async def _take(self) -> Group | None:
        settings = self._settings
        while (paused := self._accounts.paused) or (reason := self._accounts.hindrance()):
            if not paused:
                self._accounts.failed(Retryable(reason))
            elif self._queue.closed:
                return None  # nobody waits for it to be resumed: what it has is spooled
            with trio.move_on_after(HINDERED_S):
                await self._resumed.wait()
        for attempt in count():
            try:
                return await self._queue.take(
                    settings.batch_bytes, settings.batch_records, settings.batch_wait_s
                )
            except StateError as error:
                self._accounts.failed(error)
            await trio.sleep(self._ceiling_s(attempt))
        raise AssertionError  # it counts for ever

    def _next_idle(self) -> float:
        idle_s = self._sink.idle_s if self._sink.ordered else None
        return trio.current_time() + (math.inf if idle_s is None else idle_s)

    async def _open_early(self) -> None:
        """One try before there is anything to deliver: a sink that is down is known from the start."""
        answer = await self._try([])
        if isinstance(answer, Exception):
            self._accounts.failed(answer)

    # --- one group --------------------------------------------------------------------------------------

    async def _deliver(self, attempts: _Attempts) -> None:
        """Until every record of it is delivered, or rejected for good; or we are stopped."""
        parts, result = attempts.parts, attempts.result
        began = trio.current_time()
        attempt = 0
        while parts:
            while self._accounts.paused and not (self._stopping or self._queue.closed):
                with self._until_stopped(), trio.move_on_after(HINDERED_S):
                    await self._resumed.wait()
            if (attempt and self._stopping) or self._accounts.paused:
                return
            answer = await self._try(parts[-1])
            part = parts.pop()
            if isinstance(answer, Refused):
                left = _refused(part, answer, result)
                attempts.heard = attempts.heard or not left
                self._accounts.answered(0, 0 if left else _count(part), str(answer))
                parts += left
                attempt = 0
            elif isinstance(answer, Exception):
                if not isinstance(answer, Retryable | OSError) and (made := mended(part)) is not None:
                    part, records = made
                    parts.append(part)
                    self._log.error(
                        "records cannot be written as a processor has made them: they go on marked",
                        records=records,
                        exc_info=answer,
                    )
                    continue
                parts.append(part)
                await self._back_off(attempt, answer)
                self._accounts.retried(_count(part))
                attempt += 1
            else:
                attempts.heard = True
                result.duplicates += answer.duplicates
                for rejected in answer.rejected:
                    letter = Letter(part[rejected.batch].origin, rejected.record, rejected.reason)
                    (result.kept if rejected.kept else result.letters).append(letter)
                if answer.unnamed:
                    result.unnamed.append((answer.unnamed, answer.unnamed_reason))
                if not answer.postponed:
                    reason = answer.rejected[-1].reason if answer.rejected else answer.unnamed_reason
                    refused = len(answer.rejected) + answer.unnamed
                    self._accounts.answered(_count(part) - refused, refused, reason)
                    attempt = 0
                    continue
                part = _postponed(part, answer)
                parts.append(part)
                reason = answer.postponed[0].reason
                await self._back_off(attempt, Retryable(reason, after_s=answer.after_s))
                self._accounts.retried(_count(part))
                attempt += 1
        result.took_s = trio.current_time() - began

    async def _try(self, batches: Sequence[Batch]) -> Outcome | Exception:
        """One attempt at delivering these: the sink's word, or what was raised. Raises SinkGone."""
        failure: Exception | None = None
        outcome = DELIVERED
        with trio.move_on_after(self._settings.deadline_s) as attempt:
            # Whatever a sink raises ends nothing but this attempt. A group, because a nursery of the sink's
            # own makes one, in which our cancellation may stand beside the sink's failure.
            try:
                await self._open_sink()
                if batches:
                    outcome = _checked(await self._sink.deliver(batches), batches)
            except* Exception as errors:
                failure = cause_of(errors)
        if attempt.cancelled_caught:
            failure = Retryable(f"no answer within {self._settings.deadline_s:g} s")
        if failure is None:
            return outcome
        if not isinstance(failure, Refused):
            self._open = False
        if isinstance(failure, SinkGone):
            raise failure
        return failure

    async def _open_sink(self) -> None:
        if self._open:
            return
        async with self._opening:
            if not self._open:
                await self._sink.open()
                self._open = True
                self.opened.set()

    async def _back_off(self, attempt: int, error: Exception) -> None:
        """Wait: capped exponential backoff with full jitter, at least what the receiver asked for."""
        self._accounts.failed(error)
        wait_s = random.uniform(0, self._ceiling_s(attempt))
        if isinstance(error, Retryable):
            wait_s = max(wait_s, error.after_s or 0.0)
        with self._until_stopped(), trio.move_on_after(wait_s):
            await self._resumed.wait()

    def _ceiling_s(self, attempt: int) -> float:
        settings = self._settings
        return min(settings.retry_max_s, settings.retry_initial_s * 2.0 ** min(attempt, 30))

    async def _idle(self) -> None:
        failure: Exception | None = None
        with trio.move_on_after(self._settings.deadline_s) as attempt:
            try:
                await self._sink.idle()
            except* Exception as errors:  # tidying up ends nothing
                failure = cause_of(errors)
        if attempt.cancelled_caught:
            failure = Retryable(f"no answer within {self._settings.deadline_s:g} s")
        if failure is not None:
            self._open = False
            self._log.warning("cannot tidy up", reason=str(failure) or repr(failure))


def cause_of(errors: Exception) -> Exception:
    """What a component raised, out of the groups that its nurseries, and `except*`, have put around it."""
    while isinstance(errors, ExceptionGroup) and len(errors.exceptions) == 1:
        errors = errors.exceptions[0]
    return errors


def _count(batches: Sequence[Batch]) -> int:
    return sum(map(len, batches))


def _refused(part: list[Batch], error: Refused, result: Delivered) -> list[list[Batch]]:
    """What of a refused part is to be tried again, the first last: its halves, or nothing of one record."""
    if _count(part) > 1:
        first, second = halves(part)
        return [second, first]
    result.letters += [Letter(batch.origin, record, str(error)) for batch in part for record in batch.records]
    return []


def halves(batches: Sequence[Batch]) -> tuple[list[Batch], list[Batch]]:
    """Cut in the middle of their records, of which there are at least two."""
    return cut(batches, _count(batches) // 2)


def _postponed(part: Sequence[Batch], answer: Outcome) -> list[Batch]:
    """What the receiver takes later."""
    later: dict[int, list[Record]] = {}
    for postponed in answer.postponed:
        later.setdefault(postponed.batch, []).append(postponed.record)
    return [
        part[index].with_records(records, part[index].size_bytes * len(records) // len(part[index]))
        for index, records in sorted(later.items())
    ]


def _checked(outcome: Outcome, batches: Sequence[Batch]) -> Outcome:
    """What `deliver` returned. Raises an error if that says nothing about these batches."""
    named: list[Rejected | Postponed] = [*outcome.rejected, *outcome.postponed]
    if len(named) + outcome.unnamed + outcome.duplicates > _count(batches):
        raise ValueError("deliver() has named more records than it was given")
    for each in named:
        if not 0 <= each.batch < len(batches):
            raise ValueError(f"deliver() has named a record of batch {each.batch}: there is none")
    return outcome
