"""The daemon: starts routes and sources, goes over to other plans, ends in order.

Sources first, then the routes drain within the grace period. What fails is started again with
backoff, alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import msgspec
import structlog
import trio

from logroute.router.chain import Chains
from logroute.router.database import StateError
from logroute.router.ending import FAILED, Ending
from logroute.router.made_routes import MadeRoutes
from logroute.router.names import look_names_up_apart
from logroute.router.plan import Api, CannotReload, Plan, RoutePlan
from logroute.router.route import END_WITHIN_S, Route
from logroute.router.router import Router
from logroute.router.running_sources import START_WITHIN_S, RunningSources
from logroute.router.system import keep_watchdog_quiet, notify, sole_user_of
from logroute.router.watch import Watch

FIRST_ANSWERS_WITHIN_S = 5.0
"""How long after the start it is said which routes are down."""

IN_MEMORY = "everything is kept in memory, and a restart knows nothing of it: --state-dir DIR stores it"
"""What is said where there is no state directory."""

STARTED_WITHIN_S = START_WITHIN_S + 1.0
"""How long somebody who asks for what was before waits for sources to have found it."""

OPEN_WITHIN_S = 10.0
"""A route whose state is not open after so long is opened later, and nobody waits for it."""
OPEN_AGAIN_S = 5.0
"""How often that is tried."""
OPEN_AT_ONCE = 8
LOOKS_PER_TIMEOUT = 20
"""How finely `timeout_s` is measured."""


class _Task(msgspec.Struct):
    """A route that runs, or drains."""

    route: Route
    scope: trio.CancelScope = msgspec.field(default_factory=trio.CancelScope)
    ended: trio.Event = msgspec.field(default_factory=trio.Event)


class Daemon:
    """One run of the daemon. `run` returns the exit code."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.hidden = plan.hidden
        """What no text may show."""
        self.router = Router()
        self.began = time.time()
        """Seconds since the epoch."""
        self.watch = Watch()
        """Which processor holds everything up."""
        self._log = structlog.get_logger("logroute")
        self._stopping = trio.Event()
        """Nothing new is read: we were asked to stop, the sources have ended, or all sinks are gone."""
        self._asked = trio.Event()
        """Somebody has asked us to stop."""
        self._started = trio.Event()
        """All that was planned has started, or we are to end."""
        self._hurry = trio.CancelScope()
        self.sources = RunningSources(self.router, plan.sources)
        self._plans: dict[str, RoutePlan] = {}
        """The plan of each route that runs."""
        self._route_tasks: dict[str, _Task] = {}
        self._reloading = trio.Lock()
        self._ending = Ending(self.router, self.sources, once=plan.once, durable=plan.state_dir is not None)
        self.reload_file: Callable[[], Awaitable[None]] | None = None
        """Reads the configuration again, as SIGHUP does; raises what is wrong. None: there is no file."""
        self.made = MadeRoutes(self)
        """Routes that were made by API, and pauses."""

    @property
    def route_plans(self) -> Mapping[str, RoutePlan]:
        """Those of the routes that run, by name."""
        return self._plans

    def planned(self, name: str) -> RoutePlan | None:
        """The route of this name that there is, or is to be."""
        return next((each for each in self.plan.routes if each.settings.name == name), None)

    async def wait_started(self) -> None:
        """Until all that was planned has started, or some seconds: what does not answer holds up nobody."""
        with trio.move_on_after(STARTED_WITHIN_S):
            await self._started.wait()

    def stop(self) -> None:
        """End in order; asked a second time, at once."""
        if self._asked.is_set():
            self._log.warning("asked again to stop: ending at once")
            running = [task.route for task in self._route_tasks.values()]
            for route in (*running, *self.router.unopened.values()):
                route.hurry_end()
            self._hurry.cancel()
            return
        self._asked.set()
        self._end()

    def _end(self) -> None:
        if not self._stopping.is_set():
            self._ending.begins()
        self._stopping.set()
        self._started.set()
        self.sources.stop()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> int:
        """Run until stopped, or with `once` until all is delivered; the exit code."""
        look_names_up_apart()
        try:
            with sole_user_of(self.plan.state_dir), self._listening() as api, self.watch.watching():
                if not self.plan.once:
                    await self.made.load()
                    self.plan = self.made.added_to(self.plan)
                await self._open_routes()
                async with trio.open_nursery() as nursery:
                    if api is not None:
                        nursery.start_soon(api.run)
                    nursery.start_soon(self._grace)
                    nursery.start_soon(self._say_stopping)
                    nursery.start_soon(self._say_degraded)
                    nursery.start_soon(self._open_later)
                    nursery.start_soon(self.router.settle_on)
                    nursery.start_soon(keep_watchdog_quiet, self.sources.flow)
                    await nursery.start(self._flow, nursery)
                    task_status.started()
                    if not self._stopping.is_set():
                        notify("READY=1")
                return await self._ending.exit_code()
        except StateError as error:
            self._log.error("cannot start", reason=str(error))
            return FAILED
        finally:
            self._end()

    @contextmanager
    def _listening(self) -> Iterator[Api | None]:
        """Whoever asks before everything runs waits for the answer. Raises StateError."""
        if self.plan.make_api is None:
            yield None
            return
        api = self.plan.make_api(self)
        api.open()
        try:
            yield api
        finally:
            api.close()

    # --- starting ---------------------------------------------------------------------------------------

    async def _open_routes(self) -> None:
        """Open all; one whose disk is full, or does not answer, is left for later. Raises StateError."""
        self._plans = self._route_plans(self.plan)
        self.router.chains = self._chains(self.plan, self._plans)
        turns = trio.Semaphore(OPEN_AT_ONCE)
        failures: list[StateError] = []

        async def open_(route: Route) -> None:
            async with turns:
                try:
                    await route.open(within_s=math.inf if self.plan.once else OPEN_WITHIN_S)
                except StateError as error:
                    if not error.passing or self.plan.once:
                        failures.append(error)
                    else:
                        self.router.expect(route)

        routes = [self._made(plan, self._share_bytes(self.plan)) for plan in self._plans.values()]
        try:
            async with trio.open_nursery() as nursery:
                for route in routes:
                    nursery.start_soon(open_, route)
            if failures:
                raise failures[0]
        except BaseException:
            await _close(routes)
            raise
        for route in routes:
            if route.name not in self.router.unopened:
                self.router.add(route)

    async def _open_later(self) -> None:
        """Open those that could not be opened at the start, when that can be: then they catch up."""
        await self._started.wait()
        while self.router.unopened:
            await trio.sleep(OPEN_AGAIN_S)
            async with self._reloading:
                if self._stopping.is_set():
                    return
                await self._open_now(list(self.router.unopened.values()))

    async def _open_now(self, routes: Sequence[Route]) -> None:
        """Those of them that can be opened begin together: a log that one of them lets be read is not held
        for the others any more, of which rotation may then take something."""
        opened: list[Route] = []
        turns = trio.Semaphore(OPEN_AT_ONCE)

        async def open_(route: Route) -> None:
            async with turns:
                try:
                    await route.open(within_s=OPEN_WITHIN_S)
                except StateError as error:
                    route.warn("cannot open its state, trying again", reason=str(error))
                else:
                    opened.append(route)

        async with trio.open_nursery() as nursery:
            for route in routes:
                nursery.start_soon(open_, route)
        if self._stopping.is_set():
            await _close([self.router.expect_no_more(route.name) for route in opened])
            return
        for route in opened:
            self._log.info("the route's state is open", route=route.name)
            self.router.add(route, late=True)
            self._start_route(route)
        if opened:
            await self.sources.welcome()
            self.router.room_again()

    def _chains(self, plan: Plan, plans: Mapping[str, RoutePlan]) -> Chains:
        """What records pass; what there is of it already is taken over. Raises StateError."""
        routes = {name: (each.settings.match, each.processors) for name, each in plans.items()}
        try:
            return Chains(plan.processors, routes, self.router.chains, self.watch)
        except Exception as error:  # a processor's
            raise StateError(f"cannot make a processor: {error}") from error

    @staticmethod
    def _route_plans(plan: Plan) -> dict[str, RoutePlan]:
        """The routes' plans, by name; with `once`, with what that means for them."""
        plans = {each.settings.name: each for each in plan.routes}
        if plan.once:
            # "What is there now" is what was asked for, whatever a daemon's sources begin with.
            for name, each in plans.items():
                if each.settings.start is None:
                    settings = msgspec.structs.replace(each.settings, start="beginning")
                    plans[name] = msgspec.structs.replace(each, settings=settings)
        return plans

    @staticmethod
    def _share_bytes(plan: Plan) -> int:
        """What each route may hold: so much that waits, and as much again that is being delivered."""
        return plan.memory_bytes // max(1, len(plan.routes)) // 2

    async def _flow(
        self, outer: trio.Nursery, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        started = _Once(task_status.started)
        with self._hurry:
            async with trio.open_nursery() as routes:
                self._routes = routes
                for route in self.router.routes.values():
                    self._start_route(route)
                await self._run_sources(started)
                # Sources have ended: nothing comes any more.
                self._end()
                for route in self.router.routes.values():
                    route.queue.close()
        started.started()  # also when we are stopped before all sources have started
        outer.cancel_scope.cancel()

    async def _run_sources(self, started: _Once) -> None:
        """Until all have ended by themselves, or are stopped."""
        async with trio.open_nursery() as nursery:
            if self.plan.once:
                nursery.start_soon(self._watch_progress)
            await self.sources.run(partial(self._say_started, started))
            nursery.cancel_scope.cancel()

    def _say_started(self, started: _Once) -> None:
        state_dir = self.plan.state_dir
        self._log.info(
            "started",
            routes=sorted(self.router.routes),
            state_dir=str(state_dir) if state_dir else None,
            **({} if state_dir else {"note": IN_MEMORY}),
        )
        started.started()
        self._started.set()

    def _start_route(self, route: Route) -> None:
        task = self._route_tasks[route.name] = _Task(route)
        self._routes.start_soon(self._run_route, route, task)

    async def _run_route(self, route: Route, task: _Task) -> None:
        try:
            with task.scope:
                await route.run()
        finally:
            if self.router.routes.get(route.name) is not route and route.undelivered:
                undelivered = self._ending.undelivered
                undelivered[route.name] = undelivered.get(route.name, 0) + route.undelivered
            task.ended.set()
        if route.gone is not None:
            self._log.info("a route has ended", route=route.name, reason=str(route.gone))
            if not self.router.unopened and all(
                other.gone is not None for other in self.router.routes.values()
            ):
                self._end()

    # --- reload -------------------------------------------------------------------------------------

    async def reload(self, plan: Plan) -> None:
        """Go over to another plan: start what is new, swap, drain what is gone; the rest is not touched.

        Raises CannotReload, and then nothing has changed. A plan that comes while we start waits for that.
        """
        async with self.changing():
            if plan.state_dir != self.plan.state_dir:
                raise CannotReload("another `state_dir` needs a restart")
            with self.made.as_before_on_failure():
                await self.go_over(self.made.added_to(plan))

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Nobody else changes meanwhile what is to run. Raises CannotReload."""
        async with self._reloading:
            await self._started.wait()
            self._check_running()
            yield

    async def go_over(self, plan: Plan) -> None:
        """Run this from now on; to be called while `changing`.

        Raises CannotReload, and then nothing has changed.
        """
        self.hidden.remember(plan.hidden.secrets)
        plans = self._route_plans(plan)
        try:
            chains = self._chains(plan, plans)
        except StateError as error:
            raise CannotReload(str(error)) from error
        new = await self._open_new(plans, self._share_bytes(plan))
        # From here to the next await nothing fails, and nobody stops us.
        self._say_not_taken_over(plan)
        self.plan = msgspec.structs.replace(
            plan, make_api=self.plan.make_api, api_options=self.plan.api_options
        )
        ended = {name for name, route in self.router.routes.items() if route.gone is not None}
        there = self.router.routes | self.router.unopened
        kept = [name for name in plans if name in there and name not in ended]
        changed = [name for name in kept if not plans[name].is_like(self._plans[name])]
        gone = [name for name in self.router.routes if name not in plans]
        self._plans = plans
        chains.succeed(self.router.chains)
        self.router.chains = chains
        for name in kept:
            there[name].share(self._share_bytes(plan))
        for name in [name for name in self.router.unopened if name not in plans]:
            self.router.expect_no_more(name)
        for name in gone:
            self._routes.start_soon(self._drain, self.router.remove(name))
        for route in new:
            if route.name in ended:
                self.router.remove(route.name)
            if self.plan.state_dir is not None:
                # What it had left when it was taken out is in its spool.
                self._ending.undelivered.pop(route.name, None)
            self.router.add(route, late=True)
            self._start_route(route)
        for name in changed:
            there[name].state.set_durable(plans[name].durable)
            there[name].replace(plans[name].settings, plans[name].make_sink)
            self.router.changed(name)
        await self.sources.go_over(plan.sources)
        await self.sources.welcome()
        self._log.info(
            "reloaded",
            routes=sorted(self.router.routes),
            new=sorted(route.name for route in new),
            changed=sorted(changed),
            removed=sorted(gone),
        )

    def _check_running(self) -> None:
        """To be asked again after whatever was waited for. Raises CannotReload."""
        if self._stopping.is_set() or self.plan.once:
            raise CannotReload("the daemon is about to end")

    def _say_not_taken_over(self, plan: Plan) -> None:
        if plan.api_options != self.plan.api_options:
            self._log.warning("what has changed in `api` is not taken over: that needs a restart")

    async def _open_new(self, plans: Mapping[str, RoutePlan], share_bytes: int) -> list[Route]:
        """Routes that are not there, or whose sink is gone for good, open. Raises CannotReload.

        One of the same name may still drain. What it has not delivered is for the new one, so it has to end
        first; it does when all others are open, because then there is least that can fail.
        """
        routes = self.router.routes
        wanted = [
            each
            for name, each in plans.items()
            if name not in self.router.unopened and (name not in routes or routes[name].gone is not None)
        ]
        wanted.sort(key=lambda each: each.settings.name in self._route_tasks)
        opened: list[Route] = []
        try:
            for each in wanted:
                if (task := self._route_tasks.get(each.settings.name)) is not None:
                    task.scope.cancel()
                    await task.ended.wait()
                    self._check_running()
                opened.append(await self._opened(each, share_bytes))
                self._check_running()
        except StateError as error:
            await _close(opened)
            raise CannotReload(str(error)) from error
        except BaseException:
            await _close(opened)
            raise
        return opened

    async def _opened(self, plan: RoutePlan, share_bytes: int) -> Route:
        """A new route, open. Raises StateError."""
        route = self._made(plan, share_bytes)
        try:
            await route.open(within_s=OPEN_WITHIN_S)
        except BaseException:
            await _close([route])
            raise
        return route

    def _made(self, plan: RoutePlan, share_bytes: int) -> Route:
        """A new route. Raises StateError."""
        try:
            route = Route(
                plan.settings,
                plan.make_sink,
                state_folder=self.plan.state_dir,
                on_room=self.router.room_again,
                durable=plan.durable,
                share_bytes=share_bytes,
                hide=self.hidden.without,
            )
        except Exception as error:  # the sink's
            raise StateError(f"routes.{plan.settings.name}: cannot make its sink: {error}") from error
        if (since := self.made.paused.get(route.name)) is not None:
            route.pause(since)
        return route

    async def _drain(self, route: Route) -> None:
        """A route that was taken out delivers what it has, within the grace period; the rest is spooled."""
        task = self._route_tasks[route.name]
        route.queue.close()
        with trio.move_on_after(0 if route.abandoned else self.plan.grace_s) as grace:
            await task.ended.wait()
        if route.abandoned:
            task.scope.cancel()
            await task.ended.wait()
            self._ending.undelivered.pop(route.name, None)
            if self._route_tasks.get(route.name) is task:
                await trio.to_thread.run_sync(route.state.delete)
            self._log.warning("what a removed route had not delivered was dropped", route=route.name)
        elif grace.cancelled_caught:
            self._log.warning("a removed route could not deliver everything", route=route.name)
            task.scope.cancel()
            await task.ended.wait()
        if self._route_tasks.get(route.name) is task:
            del self._route_tasks[route.name]

    async def _grace(self) -> None:
        """Once stopping, the routes have the grace period to drain."""
        await self._stopping.wait()
        if self.plan.once and not self._asked.is_set():
            # All was read, and takes as long as it takes; unless somebody asks us to stop meanwhile.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_progress)
                await self._asked.wait()
                nursery.cancel_scope.cancel()
        await trio.sleep(self.plan.grace_s)
        self._log.warning("the grace period is over", grace_s=self.plan.grace_s)
        self._hurry.cancel()

    async def _watch_progress(self) -> None:
        """End at once when for `timeout_s` nothing was received and nothing delivered."""
        progress = -1
        since = trio.current_time()
        while trio.current_time() - since < self.plan.timeout_s:
            books = [route.statistics() for route in self.router.routes.values()]
            now = sum(book.received - book.queue.records - book.in_flight for book in books) + sum(
                book.received for book in books
            )
            if now != progress:
                progress, since = now, trio.current_time()
            await trio.sleep(self.plan.timeout_s / LOOKS_PER_TIMEOUT)
        self._log.error("no progress, giving up", timeout_s=self.plan.timeout_s)
        self._end()
        self._hurry.cancel()

    async def _say_stopping(self) -> None:
        await self._stopping.wait()
        notify("STOPPING=1")

    async def _say_degraded(self) -> None:
        """A daemon starts whatever its receivers say: its log tells which of them are down."""
        await self._started.wait()
        with trio.move_on_after(FIRST_ANSWERS_WITHIN_S):
            for route in list(self.router.routes.values()):
                await route.standing.tried.wait()
        down = {
            name: route.why_not_up or "no answer yet"
            for name, route in (self.router.routes | self.router.unopened).items()
            if route.why_not_up or not route.standing.tried.is_set()
        }
        if down and not self._stopping.is_set():
            self._log.warning("started degraded: some routes cannot deliver, and go on trying", routes=down)


class _Once:
    """A task status that may be told more than once."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell: Callable[[], None] | None = tell

    def started(self, value: None = None) -> None:
        tell, self._tell = self._tell, None
        if tell is not None:
            tell()


async def _close(routes: Iterable[Route]) -> None:
    """Routes that were opened and never ran."""
    with trio.move_on_after(END_WITHIN_S, shield=True):
        for route in routes:
            await route.state.close()
