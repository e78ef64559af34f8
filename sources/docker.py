"""Docker source: the output of every container of an engine, read as a file where that can be, else by API.

Finds containers (subscribes to events, then lists, then looks again on a timer), decides how each is read,
and follows its life: created, started, renamed, died, started again, removed. Files are read by the sweep
and survive an engine that is away; what is read by API goes on when the engine is back.
"""

from __future__ import annotations

import logging
import os
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
import structlog
import trio
from pydantic import Field, field_validator

from logroute.config.components import SOURCES, Options
from logroute.config.types import Duration, MatchField
from logroute.router.record import BEGINNING, Batch, Origin, Position, Record, iso_time
from logroute.sources import Behind, Checkpoints, Emit, Source, SourceContext, SourceOptions, Start
from logroute.sources.engine import Engine, EngineAway, EngineError, EngineRefused, origin_from
from logroute.sources.engine_address import EngineAddress, EngineTls
from logroute.sources.engine_answers import ContainerDetails, Event
from logroute.sources.log_file import LogFile, Lost
from logroute.sources.sweep import Sweep

if TYPE_CHECKING:
    from logroute.sources.engine_logs import EngineLog

RECONCILE_S = 60.0
"""Events can be missed (the engine keeps 256 and skips slow subscribers), so the list is asked for again."""
AT_ONCE = 8
GROUP = 64
FORKS_AT_ONCE = 4
"""How many logs are read by API for routes that are behind; each makes the engine decode a whole log."""
CATCH_UP_EVERY_S = 1.0
LET_GO_WITHIN_S = 5.0
"""How long the end may take to find out what is lost by it."""
RETRY_FIRST_S = 0.5
RETRY_MAX_S = 15.0

# Drivers whose file is json-file's; `local` files are not read yet, the API can.
FILE_DRIVERS = ("json-file",)
T = TypeVar("T")

_CONTAINER_ID = re.compile(r"/(?:docker|containers|libpod)[/-]([0-9a-f]{64})")


class EngineTlsOptions(Options):
    """Certificates for an engine over TCP."""

    ca: str | None = None
    """File with the authorities that sign the engine's certificate."""
    cert: str | None = None
    """File with our certificate."""
    key: str | None = None
    """File with its key."""
    verify: bool = True
    """Whether the engine's certificate is checked."""


class DockerOptions(SourceOptions):
    """Containers of a Docker engine (or Podman)."""

    type: Literal["docker"] = "docker"
    host: str | None = Field(default=None, examples=["unix:///var/run/docker.sock", "tcp://10.0.0.5:2376"])
    """Where the engine listens. Default: `$DOCKER_HOST`, the docker context, the usual socket."""
    tls: EngineTlsOptions | None = None
    """Certificates, for an engine over TCP; default: `$DOCKER_CERT_PATH`."""
    read: Literal["auto", "file", "api"] = "auto"
    """How logs are read: `file` from the disk, `api` through the engine, `auto` the file where it is
    readable and the same as what the engine gives."""
    include: MatchField | None = Field(default=None, examples=[{"container": ["web-*", "api"]}])
    """Only containers that match. A match over containers."""
    exclude: MatchField | None = Field(default=None, examples=[{"label": {"noisy": "true"}}])
    """No containers that match."""
    start: Literal["now", "beginning"] | Duration = Field(default="now", examples=["now", "beginning", "2h"])
    """Where to begin, on a first start, with containers that are there already. Later ones are read from
    their first line."""

    @field_validator("host")
    @classmethod
    def _an_address(cls, host: str | None) -> str | None:
        if host is not None:
            EngineAddress.parse(host, "from the configuration")
        return host

    def check(self) -> None:
        self.address()

    def address(self) -> EngineAddress:
        """The engine's, from here or from the environment. Raises AddressError."""
        return EngineAddress.resolve(self.host, tls=EngineTls(**self.tls.model_dump()) if self.tls else None)


class Container(msgspec.Struct, eq=False):
    """One container that is read, or was looked at and is not."""

    details: ContainerDetails
    origin: Origin
    log: LogFile | None = None
    reader: trio.CancelScope | None = None
    """Of the task that reads it by API."""
    engine_log: EngineLog | None = None
    places: dict[str, Position] = msgspec.field(default_factory=dict)
    """Read by API: where the routes are that are behind, and wait to be read for."""
    catching_up: bool = False
    """A task reads for them, or waits until it can."""
    ended: bool = False
    """It does not run now."""
    removed: bool = False
    opening: bool = False
    """It is being opened: whoever hears of it meanwhile must not open it again."""
    drained: bool = False
    """With `--once`: everything that was there has been emitted."""
    ignored: str = ""
    """Why it is not read."""


@SOURCES.register(DockerOptions)
class DockerSource(Source[DockerOptions]):
    """One engine's containers."""

    def __init__(self, options: DockerOptions, context: SourceContext) -> None:
        super().__init__(options, context)
        self.containers: dict[str, Container] = {}
        self._engine = Engine(options.address())
        self._log = structlog.get_logger("logroute.sources").bind(source=context.name)
        self._threads = trio.CapacityLimiter(4)
        self._forks = trio.Semaphore(FORKS_AT_ONCE)
        self._pending: dict[str, deque[str]] = {}
        self._host = ""
        self._root = ""
        self._away = False
        self._self_id = own_container_id()
        self._some_drained = trio.Event()
        self._expected: dict[str, LogFile] = {}
        """Logs of containers that were created and not started yet, by container."""
        self._unreadable: dict[str, int] = {}

    async def run(self, emit: Emit, checkpoints: Checkpoints, *, task_status: trio.TaskStatus[None]) -> None:
        self._checkpoints = checkpoints
        self._emit = emit
        self._sweep = Sweep(
            emit,
            on_drained=self._drained,
            on_failed=self._failed,
            on_lost=self._tell_lost,
            on_behind=self._fell_behind,
            held_bytes=self.context.held_bytes,
        )
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await nursery.start(self._sweep.run)
                if self.context.once:
                    await self._read_once(task_status)
                    nursery.cancel_scope.cancel()
                else:
                    await self._follow_engine(task_status)
        finally:
            await self._let_go()
            for container in self.containers.values():
                if container.log is not None:
                    container.log.close()
            for log in self._expected.values():
                log.close()

    # --- the engine -----------------------------------------------------------------------------------

    async def _read_once(self, task_status: trio.TaskStatus[None]) -> None:
        """What there is now, to where each log ends now."""
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
        while not all(container.drained for container in self.containers.values()):
            await self._some_drained.wait()

    async def _follow_engine(self, task_status: trio.TaskStatus[None]) -> None:
        """Follow events for ever; an engine that goes away is waited for."""
        wait_s = RETRY_FIRST_S
        while True:
            try:
                await self._learn()
                async with self._engine.events() as events:
                    await self._reconcile()
                    if self._away:
                        self._away = False
                        self._log.info("the engine is back", containers=len(self.containers))
                    wait_s = RETRY_FIRST_S
                    task_status.started()
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._reconcile_on)
                        async for event in events:
                            self._take(event.id, event.action)
            except* EngineAway as group:
                self._say_away(group.exceptions[0])
            except* EngineRefused as group:
                self._log.error("the engine refuses", error=str(group.exceptions[0]))
            task_status.started()
            await trio.sleep(wait_s)
            wait_s = min(RETRY_MAX_S, wait_s * 2)

    def _say_away(self, error: BaseException) -> None:
        if not self._away:
            self._away = True
            self._log.warning("the engine is away, waiting for it; files are read on", error=str(error))

    async def _learn(self) -> None:
        """Who the engine is. Raises EngineAway, EngineRefused."""
        await self._engine.ping()
        info = await self._engine.info()
        self._host = info.name
        self._root = info.docker_root_dir

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
            known = self.containers.get(summary.id)
            if known is None:
                appeared.append(summary.id)
            elif summary.state == "running" and known.ended:
                self._take(summary.id, "start")
            elif summary.state in ("exited", "dead") and not known.ended:
                self._take(summary.id, "die")
            elif summary.name and summary.name != known.origin.name:
                self._take(summary.id, "rename")
        for id_ in [id_ for id_ in self.containers if id_ not in listed]:
            self._take(id_, "destroy")
        # In groups, so that of thousands of containers the first are read while the last are looked at, and
        # what is known of them only meanwhile takes no room.
        for start in range(0, len(appeared), GROUP):
            found: list[ContainerDetails] = []
            await _share(partial(self._inspect_into, found), appeared[start : start + GROUP])
            await self._appear([details for details in found if details.id not in self.containers])

    async def _inspect_into(self, found: list[ContainerDetails], id_: str) -> None:
        try:
            found.append(await self._engine.inspect(id_))
        except EngineRefused as error:
            if not error.gone:
                self._log.warning("cannot inspect a container", container=id_[:12], error=str(error))

    # --- events ---------------------------------------------------------------------------------------

    def _take(self, id_: str, action: str) -> None:
        """Queue an event. Those of one container are treated in order, those of several side by side."""
        queue = self._pending.get(id_)
        if queue is not None:
            queue.append(action)
            return
        self._pending[id_] = deque([action])
        self._nursery.start_soon(self._work_off, id_)

    async def _work_off(self, id_: str) -> None:
        queue = self._pending[id_]
        try:
            while queue:
                try:
                    await self._handle(id_, queue.popleft())
                except EngineAway:
                    pass  # reconciling tells what we missed when the engine is back
                except EngineRefused as error:
                    if not error.gone:
                        self._log.warning("the engine refuses", container=id_[:12], error=str(error))
        finally:
            del self._pending[id_]

    async def _handle(self, id_: str, action: str) -> None:
        container = self.containers.get(id_)
        if action in ("create", "start", "restart"):
            if container is None:
                details = await self._engine.inspect(id_)
                await self._appear([details])
            elif action != "create":
                await self._started(container)
        elif container is None:
            return
        elif action == "die":
            self._died(container)
        elif action == "rename":
            await self._renamed(container)
        elif action == "destroy":
            container.removed = True
            self._died(container)
            if container.log is None or not container.log.is_open:
                self._forget(container)

    def _died(self, container: Container) -> None:
        container.ended = True
        if container.log is not None:
            container.log.complete = True
            self._sweep.wake(container.log)
        if container.engine_log is not None:
            container.engine_log.ended = True

    async def _started(self, container: Container) -> None:
        container.ended = False
        if container.ignored or container.opening:
            return
        log = container.log
        if log is not None:
            log.complete = False
            if not log.is_open:
                await self._reopen(container, log, log.places())
        elif container.engine_log is not None:
            # Read by API and read to its end before: it goes on where it was, with the same reader.
            container.engine_log.ended = False
            if container.reader is None:
                self._read_on(container, {})
        else:
            try:
                details = await self._engine.inspect(container.details.id)
            except EngineRefused as error:
                if not error.gone:
                    raise
                # Removed already. Its log may have been opened before that.
                await self._appear([container.details], started=container)
            else:
                await self._appear([details])

    async def _renamed(self, container: Container) -> None:
        details = await self._engine.inspect(container.details.id)
        old, origin = container.origin, self._origin(details)
        container.details = details.slim()
        self._log.info("a container was renamed", container=origin.name, before=old.name)
        container.origin = origin
        position = container.log.position if container.log is not None else BEGINNING
        await self._checkpoints.meet({origin: Start(container.details.created_time, position)})
        if container.log is not None:
            container.log.origin = origin
        if container.engine_log is not None:
            container.engine_log.origin = origin

    # --- containers -----------------------------------------------------------------------------------

    def _origin(self, details: ContainerDetails) -> Origin:
        return origin_from(details, source=self.context.name, host=self._host, runtime=self._engine.runtime)

    def _ignored(self, details: ContainerDetails, origin: Origin) -> str:
        """Why this container is not read, or nothing."""
        if details.id == self._self_id:
            return "it is logroute itself"
        if origin.labels.get("logroute.enable", "").lower() in ("false", "0", "no"):
            return "its label logroute.enable says so"
        if any(line == "LOGSPOUT=ignore" for line in details.config.env or ()):
            return "its environment says LOGSPOUT=ignore"
        if self.options.include is not None and not self.options.include.decide(origin):
            return "the source's include does not match"
        if self.options.exclude is not None and self.options.exclude.decide(origin):
            return "the source's exclude matches"
        return ""

    async def _appear(self, found: list[ContainerDetails], *, started: Container | None = None) -> None:
        """New containers: open their files first, then everything else. One that was removed meanwhile is
        read to its end, because we hold its file. `started` is what was known of it, if the engine does not
        know it any more."""
        opened: list[Container] = []
        for details in found:
            origin = started.origin if started else self._origin(details)
            container = Container(details, origin, ended=not details.running)
            container.ignored = self._ignored(details, origin)
            container.details = details.slim()
            self.containers[details.id] = container
            if container.ignored:
                self._set_drained(container)
                self._log.debug("not read", container=origin.name, why=container.ignored)
            elif not details.started_time and started is None:
                # Created, never started: nothing to read yet. Its start event brings it back here.
                container.ended = True
                self._set_drained(container)
                await self._expect(container)
            else:
                container.opening = True
                opened.append(container)
        if not opened:
            return
        await self._open(opened)
        starts = await trio.to_thread.run_sync(self._starts, opened, limiter=self._threads)
        checkpoints = await self._checkpoints.meet(starts)
        await self._begin({c: checkpoints[c.origin] or {"": starts[c.origin].position} for c in opened})
        for container in opened:
            container.opening = False

    def _log_file(self, container: Container) -> LogFile | None:
        """Its log as a file, not open; None if it is not to be read as one."""
        details = container.details
        if self.options.read == "api" or details.log_driver not in FILE_DRIVERS:
            return None
        path = details.log_path
        if not path and self._root:
            path = f"{self._root}/containers/{details.id}/{details.id}-json.log"
        return LogFile(path, container.origin, limit=self.context.record_limit_bytes) if path else None

    async def _expect(self, container: Container) -> None:
        """It was created: its log is opened as soon as it is there.

        One that removes itself at its end (`--rm`) may be gone with its log before its start event has come
        and been answered.
        """
        log = self._log_file(container)
        if log is not None and not self.context.once:
            self._expected[container.details.id] = log
            self._sweep.expect(log)
            # It may have been started meanwhile.
            await trio.to_thread.run_sync(log.open_once, limiter=self._threads)

    def _expected_log(self, id_: str) -> LogFile | None:
        log = self._expected.pop(id_, None)
        if log is not None:
            self._sweep.expect_no_more(log)
        return log

    async def _open(self, containers: Sequence[Container]) -> None:
        """Open the files of those that are to be read as such. Leaves `log` None where one is read by API.

        One hop to a thread for all of them: there may be thousands when the daemon starts.
        """
        logs: dict[Container, LogFile] = {}
        for container in containers:
            log = self._expected_log(container.details.id)
            if log is None or not log.is_open:
                log = self._log_file(container)
            if log is not None:
                log.origin = container.origin
                logs[container] = log
        problems = await trio.to_thread.run_sync(_open_files, logs, limiter=self._threads)
        for container, why in problems.items():
            if why or self.options.read == "file":
                self._say_unreadable(container, logs[container].path, why or "no such file")
            del logs[container]
        if self.options.read == "auto":
            for container in await self._strange(logs):
                log = logs.pop(container)
                log.close()
                self._say_unreadable(container, log.path, "it is not the log that the engine has")
        for container, log in logs.items():
            log.complete = container.ended
            container.log = log

    def _say_unreadable(self, container: Container, path: str, why: str) -> None:
        """Once for each reason, where it is the user's wish that the API is the other way."""
        self._unreadable[why] = self._unreadable.get(why, 0) + 1
        again = self.options.read == "auto" and self._unreadable[why] > 1
        self._log.log(
            logging.DEBUG if again else logging.WARNING,
            "cannot read the log file, reading by API instead",
            container=container.origin.name,
            path=path,
            why=why,
            hint="others with the same reason are not named" if self.options.read == "auto" else None,
        )

    async def _strange(self, logs: Mapping[Container, LogFile]) -> list[Container]:
        """Those whose file is not the log that the engine has."""
        strange: list[Container] = []

        async def compare(container: Container) -> None:
            if not await self._is_its_log(container, logs[container]):
                strange.append(container)

        await _share(compare, list(logs))
        return strange

    async def _is_its_log(self, container: Container, log: LogFile) -> bool:
        """Whether the file's first record is the engine's: in a container the path may be another file."""
        ours = await trio.to_thread.run_sync(log.first_record, limiter=self._threads)
        if ours is None:
            return True  # empty as yet; its path holds the container's whole id
        try:
            theirs = await self._engine_first_record(container.details)
        except EngineRefused:
            return True  # removed meanwhile, or not readable by API at all: the file is what there is
        if theirs is None:
            return False
        # The engine rotates under our eyes: what it has now may begin later than what we hold.
        return ours.time <= theirs.time and (ours.time != theirs.time or ours.stream == theirs.stream)

    async def _engine_first_record(self, details: ContainerDetails) -> Record | None:
        """The oldest record that the engine has; None if it has none."""
        from logroute.sources.frames import FrameDecoder, TerminalDecoder

        limit = self.context.record_limit_bytes
        decoder = TerminalDecoder(limit) if details.tty else FrameDecoder(limit)
        async with self._engine.logs(details.id, follow=False) as stream:
            while data := await stream.receive(64 << 10):
                if records := decoder.feed(data):
                    return records[0]
        return next(iter(decoder.finish()), None)

    def _starts(self, containers: Sequence[Container]) -> dict[Origin, Start]:
        """Where `start` says that a route begins with them, if they were there before. In a worker thread."""
        return {c.origin: Start(c.details.created_time, self._start_position(c)) for c in containers}

    def _start_position(self, container: Container) -> Position:
        start = self.options.start
        if start == "beginning":
            return BEGINNING
        if start == "now":
            if container.log is not None:
                return container.log.end()
            return Position(since=iso_time(self._engine.now_ns()))
        return Position(since=iso_time(self._engine.now_ns() - int(float(start) * 1e9)))

    async def _begin(self, checkpoints: Mapping[Container, Mapping[str, Position]]) -> None:
        by_file = {c.log: where for c, where in checkpoints.items() if c.log is not None}
        losses = await trio.to_thread.run_sync(self._resume, by_file, limiter=self._threads)
        for container, where in checkpoints.items():
            if container.log is None:
                self._begin_by_api(container, where)
                continue
            for lost in losses.get(container.log, ()):
                self._report(container, lost.routes, lost.reason, **lost.details())
            self._sweep.add(container.log)
            self._log.debug("reading", container=container.origin.name, read="file", path=container.log.path)

    def _resume(self, logs: Mapping[LogFile, Mapping[str, Position]]) -> dict[LogFile, list[Lost]]:
        """Bring these to where they begin; what is gone. In a worker thread."""
        losses: dict[LogFile, list[Lost]] = {}
        for log, checkpoints in logs.items():
            if lost := log.begin(checkpoints):
                losses[log] = lost
            if self.context.once:
                log.stop_at = log.end_spot()
        return losses

    def _begin_by_api(self, container: Container, checkpoints: Mapping[str, Position]) -> None:
        from logroute.sources.engine_logs import EngineLog  # only where something is read by API

        container.engine_log = EngineLog(
            self._engine,
            container.details,
            container.origin,
            limit=self.context.record_limit_bytes,
            lost=partial(self._report, container),
        )
        self._read_on(container, checkpoints)

    def _report(self, container: Container | None, routes: Any, reason: str, **details: object) -> None:
        if container is None:
            return
        known = [route for route in routes if route]
        self._checkpoints.lost(container.origin, known, reason, **details)

    async def welcome(self) -> None:
        await self._sweep.welcome()

    async def _let_go(self) -> None:
        """We end: what exists only because we hold it, and is not read, will never be. Say what that is."""
        if self.context.once:
            return  # all of it was read, or whoever asks is told that not all was
        logs = {c: c.log for c in self.containers.values() if c.log is not None and c.log.is_open}
        lost: Mapping[Container, Sequence[Lost]] = {}
        with trio.move_on_after(LET_GO_WITHIN_S, shield=True):
            lost = await trio.to_thread.run_sync(_let_go, logs, limiter=self._threads, abandon_on_cancel=True)
        for container, gaps in lost.items():
            for gap in gaps:
                self._report(container, gap.routes, gap.reason, **gap.details())

    def _set_drained(self, container: Container) -> None:
        container.drained = True
        self._some_drained.set()
        self._some_drained = trio.Event()

    # --- what the sweep says --------------------------------------------------------------------------

    def _drained(self, log: LogFile) -> None:
        """A log was read to its end, and all of it emitted."""
        container = self.containers.get(log.origin.id)
        if container is None or container.log is not log:
            return
        if self.context.once:
            self._sweep.remove(log)
            self._set_drained(container)
        elif container.ended:
            # Its descriptors are given back; if it is started again the log is opened again.
            self._sweep.remove(log)
            log.close()
            if container.removed:
                self._forget(container)

    def _tell_lost(self, log: LogFile) -> None:
        """Of a log, or of a fork of it."""
        container = self.containers.get(log.origin.id)
        for lost in log.take_losses():
            self._report(container, lost.routes, lost.reason, **lost.details())

    def _failed(self, log: LogFile, error: Exception) -> None:
        container = self.containers.get(log.origin.id)
        name = container.origin.name if container is not None else log.path
        self._log.error("cannot read a log, trying again", container=name, path=log.path, exc_info=error)
        places = log.places()
        log.close()
        if container is not None:
            self._nursery.start_soon(self._again, container, log, places)

    async def _again(self, container: Container, log: LogFile, places: Mapping[str, Position]) -> None:
        """Go on with a log that could not be read, where it was: what was emitted is not emitted again."""
        await trio.sleep(RETRY_MAX_S)
        if container.log is log and not log.is_open:
            await self._reopen(container, log, places)

    async def _reopen(self, container: Container, log: LogFile, places: Mapping[str, Position]) -> None:
        if await trio.to_thread.run_sync(log.open, limiter=self._threads):
            for lost in await trio.to_thread.run_sync(log.begin, places, 0, limiter=self._threads):
                self._report(container, lost.routes, lost.reason, **lost.details())
            self._sweep.add(log)

    def _forget(self, container: Container) -> None:
        if container.reader is None:
            self.containers.pop(container.details.id, None)
            if (log := self._expected_log(container.details.id)) is not None:
                log.close()
            self._checkpoints.gone(container.origin)

    # --- by API ---------------------------------------------------------------------------------------

    def _fell_behind(self, behind: Behind) -> None:
        """A route has no room for what was read by API: it is read for apart, from there, when it has."""
        reader: Any = behind.reader
        container = self.containers.get(reader.origin.id)
        if container is None:
            return
        if reader.routes is not None:
            reader.routes -= {behind.route}
        container.places[behind.route] = behind.position
        if not container.catching_up:
            container.catching_up = True
            self._nursery.start_soon(self._catch_up, container)

    async def _catch_up(self, container: Container) -> None:
        """Read for the routes that are behind, as soon as they have room, until they are with the others."""
        from logroute.sources.engine_logs import EngineLog

        try:
            while container.places:
                routes = await self._with_room(container)
                fork = EngineLog(
                    self._engine,
                    container.details,
                    container.origin,
                    limit=self.context.record_limit_bytes,
                    lost=partial(self._report, container),
                )
                fork.routes = frozenset(routes)
                places = {route: container.places.pop(route) for route in routes}
                began = trio.current_time()
                async with self._forks:
                    await self._read_apart(container, fork, places)
                self._join(container, fork)
                # Opening makes the engine decode the log from its beginning.
                await trio.sleep_until(began + CATCH_UP_EVERY_S)
        finally:
            container.catching_up = False

    async def _with_room(self, container: Container) -> list[str]:
        """Wait until routes that are behind have room; which."""
        while True:
            routes = [r for r in container.places if self._emit.has_room(container.origin, _Apart(r))]
            if routes:
                return routes
            await self._emit.wait_for_room()

    async def _read_apart(
        self, container: Container, fork: EngineLog, places: Mapping[str, Position]
    ) -> None:
        """All that the engine has now; an engine that is away is waited for."""
        wait_s = RETRY_FIRST_S
        while True:
            try:
                await fork.run(self._offer, places, follow=False)
            except EngineAway:
                await trio.sleep(wait_s)
                wait_s = min(RETRY_MAX_S, wait_s * 2)
                continue
            except EngineRefused as error:
                name = container.origin.name
                self._log.error("cannot read a container", container=name, error=str(error))
            return

    def _join(self, container: Container, fork: EngineLog) -> None:
        """The routes of a fork are near the live reader: it goes back to where they are, and has them again.

        Where nothing is read live any more, the fork has come to the end as well.
        """
        live, routes = container.engine_log, fork.routes or frozenset()
        if not routes:
            return

        def places() -> Mapping[str, Position]:
            assert live is not None
            others = dict.fromkeys(self._emit.live_routes(container.origin), live.position)
            self._emit.joined(container.origin, routes)
            return others | dict.fromkeys(routes, fork.position)

        if live is not None and container.reader is not None:
            live.join(places)
        else:
            self._emit.joined(container.origin, routes)

    def _read_on(self, container: Container, checkpoints: Mapping[str, Position]) -> None:
        # Set here and not in the task, so that one container never has two readers.
        container.reader = trio.CancelScope()
        self._nursery.start_soon(self._read_by_api, container, checkpoints)

    async def _read_by_api(self, container: Container, checkpoints: Mapping[str, Position]) -> None:
        """Read a container's log through the engine until it ends; wait for an engine that is away."""
        log = container.engine_log
        assert log is not None
        assert container.reader is not None
        wait_s = RETRY_FIRST_S
        with container.reader:
            while True:
                try:
                    await log.run(self._offer, checkpoints, follow=not self.context.once)
                except EngineAway:
                    await trio.sleep(wait_s)
                    wait_s = min(RETRY_MAX_S, wait_s * 2)
                    continue
                except EngineRefused as error:
                    if not error.gone:
                        self._log.error(
                            "cannot read a container", container=container.origin.name, error=str(error)
                        )
                break
        container.reader = None
        self._set_drained(container)
        if container.removed:
            self._forget(container)

    async def _offer(self, batch: Batch) -> None:
        await self._sweep.offer(batch)


class _Apart:
    """Stands for the reader of a route that is behind, before there is one."""

    cheap = False

    def __init__(self, route: str) -> None:
        self.routes = frozenset([route])


async def _share(work: Callable[[T], Awaitable[None]], items: Sequence[T]) -> None:
    """Some tasks share the work on these items; the engine's first error ends it, and is raised as it is."""
    rest = iter(items)
    errors: list[EngineError] = []

    async def take() -> None:
        try:
            for item in rest:
                await work(item)
        except EngineError as error:
            errors.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for _ in range(min(AT_ONCE, len(items))):
            nursery.start_soon(take)
    if errors:
        raise errors[0]


def _open_files(logs: Mapping[Container, LogFile]) -> dict[Container, str]:
    """Open those that are not. Why some cannot be: empty where there is no such file. In a worker thread."""
    problems: dict[Container, str] = {}
    for container, log in logs.items():
        try:
            if not log.is_open and not log.open():
                problems[container] = ""
        except PermissionError:
            problems[container] = "no permission"
    return problems


def _let_go(logs: Mapping[Container, LogFile]) -> dict[Container, list[Lost]]:
    """Give up what exists of these only because it is held, and would not be found again: what is not read of
    it, one gap a reader. In a worker thread."""
    lost: dict[Container, list[Lost]] = {}
    for container, log in logs.items():
        for reader in (*log.forks, log):
            if not reader.held_bytes() or _is_found_again(reader):
                continue
            while reader.held_bytes():
                reader.let_go()
            parts = [each for each in reader.take_losses() if each.size_bytes]
            if parts:
                size_bytes = sum(each.size_bytes or 0 for each in parts)
                first, last = parts[0], parts[-1]
                gap = Lost(first.routes, last.reason, first.since, last.until, size_bytes)
                lost.setdefault(container, []).append(gap)
    return lost


def _is_found_again(reader: LogFile) -> bool:
    """Whether whoever opens the log now finds where the reader is; it may have been compressed."""
    again = LogFile(reader.path, reader.origin, limit=reader.limit)
    try:
        return again.open() and not again.resume({"": reader.position})
    except OSError:
        return False
    finally:
        again.close()


def own_container_id() -> str:
    """The id of the container that we run in ourselves; empty outside of one."""
    for path in ("/proc/self/mountinfo", "/proc/self/cgroup"):
        try:
            text = Path(path).read_text()
        except OSError:
            continue
        if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
            found = _CONTAINER_ID.search(text)
            if found:
                return found[1]
    return ""


__all__ = ["DockerOptions", "DockerSource", "Event"]
