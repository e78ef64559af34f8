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
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
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
    make_sources: Sequence[Callable[[], Source[Any]]]
    state_dir: Path | None = None
    once: bool = False
    timeout_s: float = 300.0
    """With `once`: give up after so long without progress."""
    grace_s: float = 30.0
    make_api: Callable[[Daemon], Api] | None = None
    """What people and programs ask about the daemon; None: nobody can."""
    memory_bytes: int = 256 << 20
    """Bound on what all queues hold together; each route's share of it bounds its queue."""


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
        self._sources_left = len(plan.make_sources)

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
            for route in self._make_routes():
                self.router.add(route)
                await route.open()
        except BaseException:
            with trio.CancelScope(shield=True):
                for route in self.router.routes.values():
                    await route.state.close()
            raise

    def _make_routes(self) -> list[Route]:
        # What waits, and as much again for what is being delivered.
        share = self.plan.memory_bytes // max(1, len(self.plan.routes)) // 2
        routes = []
        for plan in self.plan.routes:
            settings = msgspec.structs.replace(
                plan.settings,
                queue_bytes=min(plan.settings.queue_bytes, share),
                in_flight_bytes=min(plan.settings.in_flight_bytes, share),
            )
            if self.plan.once and settings.start is None:
                # "What is there now" is what was asked for, whatever a daemon's sources begin with.
                settings = msgspec.structs.replace(settings, start="beginning")
            routes.append(
                Route(
                    settings,
                    plan.make_sink,
                    state_folder=self.plan.state_dir,
                    on_room=self.router.room_again,
                    durable=plan.durable,
                )
            )
        return routes

    async def _flow(
        self, outer: trio.Nursery, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        started = _Once(task_status)
        with self._hurry:
            async with trio.open_nursery() as routes:
                for route in self.router.routes.values():
                    routes.start_soon(self._run_route, route)
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
                if self.plan.once:
                    sources.start_soon(self._watch_progress)
                for make in self.plan.make_sources:
                    await sources.start(self._keep_running, make)
                self._log.info(
                    "started",
                    routes=sorted(self.router.routes),
                    state_dir=str(self.plan.state_dir) if self.plan.state_dir else None,
                )
                started.started()

    async def _run_route(self, route: Route) -> None:
        await route.run()
        if route.gone is not None:
            self._log.info("a route has ended", route=route.name, reason=str(route.gone))
            if all(other.gone is not None for other in self.router.routes.values()):
                self._end()

    async def _keep_running(
        self,
        make: Callable[[], Source[Any]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run a source; start it anew when it fails, from the checkpoints."""
        attempt = 0
        started = _Once(task_status)
        while True:
            source = make()
            failed = False
            began = trio.current_time()
            wait_s = 0.0
            try:
                await source.run(self.router, self.router, task_status=started)
            except* Exception as errors:  # a group: our cancellation may stand beside the source's failure
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
        self._sources_left -= 1
        if self._sources_left == 0:
            self._sources.cancel()

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
        if self.plan.once and (left or lost or rejected or dropped or self._sources_left):
            self._log.error(
                "not every record was acknowledged",
                undelivered=left,
                rejected=rejected,
                dropped=dropped,
                lost=lost,
                unfinished_sources=self._sources_left,
            )
            return UNDELIVERED
        if left and self.plan.state_dir is None:
            self._log.error("ended with records that are not delivered, and no state_dir", records=left)
            return UNDELIVERED
        if left:
            self._log.info("what is not delivered is still behind the checkpoints", records=left)
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
    daemon: Daemon, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """SIGTERM and SIGINT end the daemon in order; a second one ends it at once. SIGHUP ends nothing."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        received: AsyncIterator[int] = signals
        async for number in received:
            if number == signal.SIGHUP:
                structlog.get_logger("logroute").warning(
                    "a changed configuration needs a restart", signal="SIGHUP"
                )
                continue
            structlog.get_logger("logroute").info("stopping", signal=signal.Signals(number).name)
            daemon.stop()


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
