"""What becomes of an engine's containers: its events, and its list, which tells what these did not.

Subscribes to events, then lists, then lists again on a timer; an engine that is away is waited for. Events of
one container are handled in order, those of several side by side. Knows nothing of logs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import structlog
import trio

from logroute.sources import SourceContext
from logroute.sources.docker_container import Container
from logroute.sources.engine import RETRY_FIRST_S, RETRY_MAX_S, Engine, EngineAway, EngineRefused, share
from logroute.sources.engine_answers import ContainerDetails, EngineInfo

RECONCILE_S = 60.0
"""Events can be missed (the engine keeps 256 and skips slow subscribers), so the list is asked for again."""
GROUP = 64


class ContainerEvents:
    """Compares what the engine says with the containers that are known; works in the nursery it is given.

    `on_engine(info)` is called when the engine answers; `appear(details)` has containers that were not known,
    `handle(id, action, time_ns)` is one event, at that time by the engine's clock. Both of these may raise
    EngineAway and EngineRefused.
    """

    def __init__(
        self,
        engine: Engine,
        containers: Mapping[str, Container],
        context: SourceContext,
        nursery: trio.Nursery,
        *,
        on_engine: Callable[[EngineInfo], None],
        appear: Callable[[list[ContainerDetails]], Awaitable[None]],
        handle: Callable[[str, str, int], Awaitable[None]],
    ) -> None:
        self._engine = engine
        self._containers = containers
        self._context = context
        self._nursery = nursery
        self._on_engine = on_engine
        self._appear = appear
        self._handle = handle
        self.away = ""
        """Why the engine does not answer; empty while it does."""
        self._there: set[str] | None = None
        """Of the first list, those that have not appeared yet; None: there was none."""
        # Invariant: there is a task for each container that is in it.
        self._pending: dict[str, deque[tuple[str, int]]] = {}
        self._log = structlog.get_logger("logroute.sources").bind(source=context.name)

    async def look_once(self, task_status: trio.TaskStatus[None]) -> None:
        """Find what there is now."""
        wait_s = RETRY_FIRST_S
        while True:
            try:
                await self._learn()
                await self._reconcile()
                break
            except EngineAway as error:
                self._say_away(error)
                task_status.started()
                await trio.sleep(wait_s)
                wait_s = min(RETRY_MAX_S, wait_s * 2)
        task_status.started()

    async def follow(self, task_status: trio.TaskStatus[None]) -> None:
        """Follow events for ever; an engine that goes away is waited for."""
        wait_s = RETRY_FIRST_S
        while True:
            try:
                await self._learn()
                async with self._engine.events() as events:
                    await self._reconcile()
                    if self.away:
                        self.away = ""
                        self._log.info("the engine is back", containers=len(self._containers))
                    wait_s = RETRY_FIRST_S
                    task_status.started()
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._reconcile_on)
                        async for event in events:
                            self._take(event.id, event.action, event.time_ns)
            except* EngineAway as group:
                self._say_away(group.exceptions[0])
            except* EngineRefused as group:
                self._context.failed("engine_refused")
                self._log.error("the engine refuses", error=str(group.exceptions[0]))
            task_status.started()
            await trio.sleep(wait_s)
            wait_s = min(RETRY_MAX_S, wait_s * 2)

    def _say_away(self, error: BaseException) -> None:
        if not self.away:
            self._context.failed("engine_away")
            self._log.warning("the engine is away, waiting for it; files are read on", error=str(error))
        self.away = str(error) or type(error).__name__

    def is_new(self, id_: str) -> bool:
        """Whether one that appears has begun while we ran. No clock tells that: it may be set back."""
        return self._there is not None and id_ not in self._there

    async def _learn(self) -> None:
        """Who the engine is. Raises EngineAway, EngineRefused."""
        await self._engine.ping()
        self._on_engine(await self._engine.info())

    # --- the list -------------------------------------------------------------------------------------

    async def _reconcile_on(self) -> None:
        while True:
            await trio.sleep(RECONCILE_S)
            await self._reconcile()

    async def _reconcile(self) -> None:
        """Compare with the engine's list: what events did not tell."""
        listed: set[str] = set()
        appeared: list[str] = []
        for summary in await self._engine.containers():
            listed.add(summary.id)
            known = self._containers.get(summary.id)
            if known is None:
                appeared.append(summary.id)
            elif summary.state == "running" and known.ended:
                self._take(summary.id, "start")
            elif summary.state in ("exited", "dead") and not known.ended:
                self._take(summary.id, "die")
            elif summary.name and summary.name != known.origin.name:
                self._take(summary.id, "rename")
        if self._there is None:
            self._there = set(appeared)
        for id_ in [id_ for id_ in self._containers if id_ not in listed]:
            self._take(id_, "destroy")
        # In groups, so that of thousands of containers the first are read while the last are looked at, and
        # what is known of them only meanwhile takes no room.
        for start in range(0, len(appeared), GROUP):
            found: list[ContainerDetails] = []
            async with self._engine.many():
                await share(partial(self._inspect_into, found), appeared[start : start + GROUP])
            await self._appear([details for details in found if details.id not in self._containers])
            self._there.difference_update(details.id for details in found)

    async def _inspect_into(self, found: list[ContainerDetails], id_: str) -> None:
        try:
            found.append(await self._engine.inspect(id_))
        except EngineRefused as error:
            if not error.gone:
                self._context.failed("engine_refused")
                self._log.warning("cannot inspect a container", container=id_[:12], error=str(error))

    # --- events ---------------------------------------------------------------------------------------

    def _take(self, id_: str, action: str, time_ns: int | None = None) -> None:
        """Queue an event. Those of one container are treated in order, those of several side by side."""
        event = action, self._engine.now_ns() if time_ns is None else time_ns
        queue = self._pending.get(id_)
        if queue is not None:
            queue.append(event)
            return
        self._pending[id_] = deque([event])
        self._nursery.start_soon(self._work_off, id_)

    async def _work_off(self, id_: str) -> None:
        queue = self._pending[id_]
        try:
            while queue:
                try:
                    await self._handle(id_, *queue.popleft())
                except EngineAway:
                    pass  # reconciling tells what we missed when the engine is back
                except EngineRefused as error:
                    if not error.gone:
                        self._context.failed("engine_refused")
                        self._log.warning("the engine refuses", container=id_[:12], error=str(error))
        finally:
            del self._pending[id_]
