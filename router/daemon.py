"""The daemon: starts routes and sources, keeps them running, ends them in order.

Sources first, then the routes drain within the grace period. A task that fails is started again with
backoff, alone. Exit codes are INTERFACE's: 0 nothing lost, 1 it could not start, 3 stopped with records that
are neither delivered nor durable.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog
import trio

from logroute.router.delivery import cause_of
from logroute.router.route import RESTART_FIRST_S, RESTART_MAX_S, Route, RouteSettings
from logroute.router.router import Router
from logroute.router.state import StateError
from logroute.sinks import Sink
from logroute.sources import Source

DONE = 0
FAILED = 1
UNDELIVERED = 3

LOOKS_PER_TIMEOUT = 20
"""How finely `timeout_s` is measured."""


class RoutePlan(msgspec.Struct, frozen=True):
    """A route as configured, and how its sink is made."""

    settings: RouteSettings
    make_sink: Callable[[Route], Sink[Any]]
    durable: bool = False
    """The sink asks for more than kill -9: what it acknowledges survives power loss."""
    options: Any = None
    """The sink's, for comparison: a route is touched by a reload only if something of it has changed."""

    def is_like(self, other: RoutePlan) -> bool:
        """Whether it means the same."""
        return (
            self.options is not None
            and self.options == other.options
            and self.settings == other.settings
            and self.durable == other.durable
        )


class SourcePlan(msgspec.Struct, frozen=True):
    """A source as configured, and how it is made."""

    name: str
    make: Callable[[], Source[Any]]
    options: Any = None
    """For comparison, likewise."""

    def is_like(self, other: SourcePlan) -> bool:
        return self.options is not None and self.options == other.options


class Api(Protocol):
    """Answers questions about the daemon while it runs."""

    def open(self) -> None:
        """Listen. Raises StateError where that cannot be and was asked for."""

    async def run(self) -> None:
        """Answer until cancelled. Ends soon then, whatever those who asked do."""

    def close(self) -> None:
        """Listen no more. Also without `run`."""


class Plan(msgspec.Struct, frozen=True):
    """What the daemon shall run."""

    routes: Sequence[RoutePlan]
    sources: Sequence[SourcePlan]
    state_dir: Path | None = None
    once: bool = False
    timeout_s: float = 300.0
    """With `once`: give up after so long without progress."""
    grace_s: float = 30.0
    make_api: Callable[[Daemon], Api] | None = None
    """What people and programs ask about the daemon; None: nobody can."""
    memory_bytes: int = 256 << 20
    """Bound on what all queues hold together; each route's share of it bounds its queue."""


class CannotReload(Exception):
    """Another plan cannot be taken over while the daemon runs; nothing has changed."""


class _Task(msgspec.Struct):
    """A route or a source that runs."""

    scope: trio.CancelScope
    ended: trio.Event = msgspec.field(default_factory=trio.Event)


class Daemon:
    """One run of the daemon. `run` returns the exit code."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.router = Router()
        self._log = structlog.get_logger("logroute")
        self._stopping = trio.Event()
        """Nothing new is read: we were asked to stop, the sources have ended, or all sinks are gone."""
        self._asked = trio.Event()
        """Somebody has asked us to stop."""
        self._hurry = trio.CancelScope()
        self._sources = trio.CancelScope()
        self._plans: dict[str, RoutePlan] = {}
        """The plan of each route that runs."""
        self._route_tasks: dict[str, _Task] = {}
        self._source_tasks: dict[str, _Task] = {}
        self._running_sources: dict[str, Source[Any]] = {}
        self._nurseries: dict[str, trio.Nursery] = {}
        self._reloading = trio.Lock()
        self._source_plans = list(plan.sources)
        self._unfinished_sources = {source.name for source in plan.sources}

    def stop(self) -> None:
        """End in order; asked a second time, at once."""
        if self._asked.is_set():
            self._log.warning("asked again to stop: ending at once")
            self._hurry.cancel()
            return
        self._asked.set()
        self._end()

    def _end(self) -> None:
        self._stopping.set()
        self._sources.cancel()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> int:
        """Run until stopped, or with `once` until all is delivered; the exit code."""
        try:
            with sole_user_of(self.plan.state_dir), self._listening() as api:
                await self._open_routes()
                async with trio.open_nursery() as nursery:
                    if api is not None:
                        nursery.start_soon(api.run)
                    nursery.start_soon(self._grace)
                    nursery.start_soon(self._say_stopping)
                    nursery.start_soon(keep_watchdog_quiet)
                    await nursery.start(self._flow, nursery)
                    task_status.started()
                    if not self._stopping.is_set():
                        notify("READY=1")
                return self._exit_code()
        except StateError as error:
            self._log.error("cannot start", reason=str(error))
            return FAILED

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

    async def _open_routes(self) -> None:
        try:
            self._plans = self._route_plans(self.plan)
            for plan in self._plans.values():
                route = self._make_route(plan, self._share_bytes(self.plan))
                self.router.add(route)
                await route.open()
        except BaseException:
            with trio.CancelScope(shield=True):
                for route in self.router.routes.values():
                    await route.state.close()
            raise

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

    def _make_route(self, plan: RoutePlan, share_bytes: int) -> Route:
        return Route(
            plan.settings,
            plan.make_sink,
            state_folder=self.plan.state_dir,
            on_room=self.router.room_again,
            durable=plan.durable,
            share_bytes=share_bytes,
        )

    async def _flow(
        self, outer: trio.Nursery, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        started = _Once(task_status)
        with self._hurry:
            async with trio.open_nursery() as routes:
                self._nurseries["routes"] = routes
                for route in self.router.routes.values():
                    self._start_route(route)
                await self._run_sources(started)
                # Sources have ended: nothing comes any more.
                self._stopping.set()
                for route in self.router.routes.values():
                    route.queue.close()
        started.started()  # also when we are stopped before all sources have started
        outer.cancel_scope.cancel()

    async def _run_sources(self, started: _Once) -> None:
        """Run them until all have ended by themselves, or are cancelled."""
        with self._sources:
            async with trio.open_nursery() as sources:
                self._nurseries["sources"] = sources
                if self.plan.once:
                    sources.start_soon(self._watch_progress)
                for plan in self.plan.sources:
                    await sources.start(self._keep_running, plan)
                self._log.info(
                    "started",
                    routes=sorted(self.router.routes),
                    state_dir=str(self.plan.state_dir) if self.plan.state_dir else None,
                )
                started.started()
                # There may be an instant without any, while one is started again.
                await trio.sleep_forever()

    def _start_route(self, route: Route) -> None:
        task = self._route_tasks[route.name] = _Task(trio.CancelScope())
        self._nurseries["routes"].start_soon(self._run_route, route, task)

    async def _run_route(self, route: Route, task: _Task) -> None:
        with task.scope:
            await route.run()
        task.ended.set()
        if route.gone is not None:
            self._log.info("a route has ended", route=route.name, reason=str(route.gone))
            if all(other.gone is not None for other in self.router.routes.values()):
                self._end()

    # --- reload -------------------------------------------------------------------------------------

    async def reload(self, plan: Plan) -> None:
        """Go over to another plan: start what is new, swap, drain what is gone; the rest is not touched.

        Raises CannotReload, and then nothing has changed.
        """
        async with self._reloading:
            if self._stopping.is_set() or self.plan.once:
                raise CannotReload("the daemon is about to end")
            if plan.state_dir != self.plan.state_dir:
                raise CannotReload("another `state_dir` needs a restart")
            plans, share_bytes = self._route_plans(plan), self._share_bytes(plan)
            new = [
                await self._opened(each, share_bytes)
                for name, each in plans.items()
                if name not in self.router.routes
            ]
            # From here on nothing fails.
            self.plan = plan
            kept = [name for name in plans if name in self.router.routes]
            changed = [name for name in kept if not plans[name].is_like(self._plans[name])]
            gone = [name for name in self.router.routes if name not in plans]
            self._plans = plans
            for name in kept:
                self.router.routes[name].share(share_bytes)
            for route in new:
                self.router.add(route, late=True)
                self._start_route(route)
            for name in changed:
                self.router.routes[name].replace(plans[name].settings, plans[name].make_sink)
                self.router.changed(name)
            for name in gone:
                self._nurseries["routes"].start_soon(self._drain, self.router.remove(name))
            await self._reload_sources(plan.sources)
            for source in self._running_sources.values():
                await source.welcome()
            self._log.info(
                "reloaded",
                routes=sorted(self.router.routes),
                new=sorted(route.name for route in new),
                changed=sorted(changed),
                removed=sorted(gone),
            )

    async def _opened(self, plan: RoutePlan, share_bytes: int) -> Route:
        """A new route, open. Raises CannotReload."""
        name = plan.settings.name
        if (task := self._route_tasks.get(name)) is not None:
            # It was there before, and drains: what it has not delivered is for the new one.
            task.scope.cancel()
            await task.ended.wait()
        try:
            route = self._make_route(plan, share_bytes)
            await route.open()
        except StateError as error:
            raise CannotReload(str(error)) from error
        return route

    async def _drain(self, route: Route) -> None:
        """A route that was taken out delivers what it has, within the grace period; the rest is spooled."""
        task = self._route_tasks[route.name]
        route.queue.close()
        with trio.move_on_after(self.plan.grace_s) as grace:
            await task.ended.wait()
        if grace.cancelled_caught:
            self._log.warning("a removed route could not deliver everything", route=route.name)
            task.scope.cancel()
            await task.ended.wait()
        if self._route_tasks.get(route.name) is task:
            del self._route_tasks[route.name]

    async def _reload_sources(self, plans: Sequence[SourcePlan]) -> None:
        """Stop those that are gone or changed, start those that are new or changed."""
        running = {each.name: each for each in self._source_plans}
        for name, old in running.items():
            wanted = next((each for each in plans if each.name == name), None)
            if wanted is None or not wanted.is_like(old):
                task = self._source_tasks.pop(name)
                task.scope.cancel()
                await task.ended.wait()
        self._source_plans = list(plans)
        for each in plans:
            if each.name not in self._source_tasks:
                await self._nurseries["sources"].start(self._keep_running, each)

    async def _keep_running(
        self, plan: SourcePlan, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run a source; start it anew when it fails, from where it was."""
        task = self._source_tasks[plan.name] = _Task(trio.CancelScope())
        attempt = 0
        started = _Once(task_status)
        with task.scope:
            while True:
                source = self._running_sources[plan.name] = plan.make()
                failed = False
                began = trio.current_time()
                wait_s = 0.0
                try:
                    await source.run(self.router, self.router, task_status=started)
                # A group: our cancellation may stand beside the source's failure.
                except* Exception as errors:
                    failed = True
                    if trio.current_time() - began > RESTART_MAX_S:
                        attempt = 0
                    wait_s = min(RESTART_MAX_S, RESTART_FIRST_S * 2 ** min(attempt, 30))
                    self._log.error(
                        "a source failed, starting it again",
                        source=source.context.name,
                        after_s=wait_s,
                        exc_info=cause_of(errors),
                    )
                if not failed:
                    break
                started.started()
                await trio.sleep(wait_s)
                attempt += 1
        if not task.scope.cancelled_caught:
            self._unfinished_sources.discard(plan.name)
            if not self._unfinished_sources:
                self._sources.cancel()
        started.started()
        self._running_sources.pop(plan.name, None)
        task.ended.set()

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
        self._stopping.set()
        self._hurry.cancel()

    async def _say_stopping(self) -> None:
        await self._stopping.wait()
        notify("STOPPING=1")

    def _exit_code(self) -> int:
        routes = self.router.routes.values()
        left = {route.name: route.undelivered for route in routes if route.undelivered}
        lost = {route.name: route.lost for route in routes if route.lost}
        rejected = {route.name: n for route in routes if (n := route.statistics().rejected)}
        dropped = {route.name: n for route in routes if (n := sum(route.statistics().dropped.values()))}
        if self.plan.once and (left or lost or rejected or dropped or self._unfinished_sources):
            self._log.error(
                "not every record was acknowledged",
                undelivered=left,
                rejected=rejected,
                dropped=dropped,
                lost=lost,
                unfinished_sources=len(self._unfinished_sources),
            )
            return UNDELIVERED
        if left and self.plan.state_dir is None:
            self._log.error("ended with records that are not delivered, and no state_dir", records=left)
            return UNDELIVERED
        if left:
            self._log.info("what is not delivered is spooled, or behind the checkpoints", records=left)
        return DONE


class _Once:
    """A task status that may be told more than once."""

    def __init__(self, status: trio.TaskStatus[None]) -> None:
        self._status: trio.TaskStatus[None] | None = status

    def started(self, value: None = None) -> None:
        if self._status is not None:
            status, self._status = self._status, None
            status.started()


@contextmanager
def sole_user_of(state_dir: Path | None) -> Iterator[None]:
    """Hold the state directory's lock. Raises StateError if another daemon does, with its process id."""
    if state_dir is None:
        yield
        return
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(
            f"cannot use state_dir {state_dir}: {error.strerror}; give another one with --state-dir"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            other = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            raise StateError(
                f"another logroute (process {other}) uses state_dir {state_dir}: stop it, or give another one"
            ) from error
        with suppress(OSError):  # a full disk; the lock holds all the same
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


async def stop_on_signals(
    daemon: Daemon,
    reload: Callable[[], Awaitable[None]] | None = None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """SIGTERM and SIGINT end the daemon in order; a second one ends it at once. SIGHUP calls `reload`."""
    log = structlog.get_logger("logroute")
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        received: AsyncIterator[int] = signals
        async with trio.open_nursery() as nursery:
            async for number in received:
                if number != signal.SIGHUP:
                    log.info("stopping", signal=signal.Signals(number).name)
                    daemon.stop()
                elif reload is not None:
                    nursery.start_soon(reload)
                else:
                    log.warning("there is no configuration file to be read again", signal="SIGHUP")


async def keep_watchdog_quiet() -> None:
    """Tell systemd that we live, twice in the time it gives us; at once nothing where it does not ask."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    if not usec.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        notify("WATCHDOG=1")
        await trio.sleep(int(usec) / 2e6)


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)); nothing where it did not start us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect("\0" + address[1:] if address.startswith("@") else address)
            sock.send(state.encode())
        except OSError as error:
            structlog.get_logger("logroute").warning("cannot notify systemd", error=error.strerror)
