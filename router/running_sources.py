"""Sources that run: each in a task of its own, started again with backoff when it fails, from where it was.

Owns their tasks. All of them have ended when the last one has by itself, or when they are stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog
import trio

from logroute.router.delivery import cause_of
from logroute.router.plan import SourcePlan
from logroute.router.route import RESTART_FIRST_S, RESTART_MAX_S
from logroute.router.router import Router
from logroute.sources import STANDS_AFTER_S, Known, Source, Waiting

START_WITHIN_S = 5.0
"""How long the start waits for a source: longer only where what it asks for does not answer."""


class _Task(msgspec.Struct):
    """A source that runs, and whom it tells that it has started: it may do so more than once."""

    scope: trio.CancelScope = msgspec.field(default_factory=trio.CancelScope)
    start: trio.Event = msgspec.field(default_factory=trio.Event)
    """It has started, or it never will."""
    ended: trio.Event = msgspec.field(default_factory=trio.Event)
    began: float = msgspec.field(default_factory=trio.current_time)

    def started(self, value: None = None) -> None:
        self.start.set()


class RunningSources:
    """Those of one daemon; what they read goes to the router."""

    def __init__(self, router: Router, plans: Sequence[SourcePlan]) -> None:
        self._router = router
        self._plans = list(plans)
        self.unfinished = {plan.name for plan in plans}
        """Those of the beginning that have not ended by themselves."""
        self._tasks: dict[str, _Task] = {}
        self._running: dict[str, Source[Any]] = {}
        self._ended: dict[str, Source[Any]] = {}
        """Those that have ended, the last of each name."""
        self._failed: set[str] = set()
        """Those that have failed, and have not been started again."""
        self._failures: dict[str, tuple[float, str]] = {}
        """When each failed last, on trio's clock, and why."""
        self._all = trio.CancelScope()
        self._log = structlog.get_logger("logroute")

    @property
    def running(self) -> Mapping[str, Source[Any]]:
        """Those that run, by name."""
        return self._running

    def failure(self, name: str) -> str:
        """Why a source was started again lately, or has not started; empty if all is well."""
        task = self._tasks.get(name)
        if task is not None and not task.start.is_set() and trio.current_time() - task.began > START_WITHIN_S:
            return "it has not started: what it asks for does not answer"
        failed = self._failures.get(name)
        if failed is None or trio.current_time() - failed[0] > RESTART_MAX_S:
            return ""
        return f"it failed, and was started again: {failed[1]}"

    def flow(self) -> bool:
        """Whether none stands: one that waits for a full route, or an engine, does not."""
        return all(source.standing_s < STANDS_AFTER_S for source in self._running.values())

    async def welcome(self) -> None:
        """Have routes that came meet the origins of all of them; one to be started again meets them then."""
        for name, source in list(self._running.items()):
            if name not in self._failed:
                await source.welcome()

    def stop(self) -> None:
        """End all of them, also those that are not started yet."""
        self._all.cancel()

    def known(self) -> list[Known]:
        """Once all have ended: what they knew of."""
        return [known for source in self._ended.values() for known in source.known()]

    async def unfound(self, waiting: Sequence[Waiting]) -> list[Waiting]:
        """Once all have ended: those of these that nobody would find any more in the logs."""
        return [each for source in self._ended.values() for each in await source.unfound(waiting)]

    async def run(self, on_started: Callable[[], None]) -> None:
        """Run them until all have ended by themselves, or are stopped. `on_started()`: all have started that
        do so within a while; one whose disk hangs holds up nobody."""
        with self._all:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self._start(self._plans)
                on_started()
                # There may be an instant without any, while one is started again.
                await trio.sleep_forever()

    async def go_over(self, plans: Sequence[SourcePlan]) -> None:
        """Stop those that are gone or changed, start those that are new or changed; until we are to end."""
        running = {each.name: each for each in self._plans}
        for name, old in running.items():
            wanted = next((each for each in plans if each.name == name), None)
            if wanted is None or not wanted.is_like(old):
                task = self._tasks.pop(name)
                task.scope.cancel()
                await task.ended.wait()
        self._plans = list(plans)
        if not self._all.cancel_called:
            await self._start([each for each in plans if each.name not in self._tasks])

    async def _start(self, plans: Sequence[SourcePlan]) -> None:
        for plan in plans:
            self._tasks[plan.name] = _Task()
            self._nursery.start_soon(self._keep_running, plan, self._tasks[plan.name])
        with trio.move_on_after(START_WITHIN_S) as waited:
            for plan in plans:
                await self._tasks[plan.name].start.wait()
        if waited.cancelled_caught:
            names = [plan.name for plan in plans if not self._tasks[plan.name].start.is_set()]
            self._log.error("sources have not started: what they ask for does not answer", sources=names)

    async def _keep_running(self, plan: SourcePlan, task: _Task) -> None:
        """Run a source; start it anew when it fails, from where it was."""
        try:
            with task.scope:
                await self._run_one(plan, task)
            if not task.scope.cancelled_caught:
                self.unfinished.discard(plan.name)
                if not self.unfinished:
                    self._all.cancel()
        finally:
            if (source := self._running.pop(plan.name, None)) is not None:
                self._ended[plan.name] = source
            task.start.set()
            task.ended.set()

    async def _run_one(self, plan: SourcePlan, task: _Task) -> None:
        attempt = 0
        while True:
            source = self._running[plan.name] = plan.make()
            self._failed.discard(plan.name)
            failed = False
            began = trio.current_time()
            wait_s = 0.0
            try:
                await source.run(self._router, self._router, task_status=task)
            # A group: our cancellation may stand beside the source's failure.
            except* Exception as errors:
                failed = True
                self._failed.add(plan.name)
                if trio.current_time() - began > RESTART_MAX_S:
                    attempt = 0
                wait_s = min(RESTART_MAX_S, RESTART_FIRST_S * 2 ** min(attempt, 30))
                source.context.failed("failed")
                self._failures[plan.name] = trio.current_time(), repr(cause_of(errors))
                self._log.error(
                    "a source failed, starting it again",
                    source=source.context.name,
                    after_s=wait_s,
                    exc_info=cause_of(errors),
                )
            if not failed:
                return
            task.start.set()
            await trio.sleep(wait_s)
            attempt += 1
