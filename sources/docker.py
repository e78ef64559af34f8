"""Docker source: the output of every container of an engine, read as a file where that can be, else by API.

Decides how each container that there is (`docker_events.py`) is read, and follows its life: created, started,
renamed, died, started again, removed. Files are read by the sweep and survive an engine that is away; what is
read by API goes on when the engine is back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
import structlog
import trio
from pydantic import Field, PrivateAttr, field_validator

from logroute.config.components import SOURCES, Options
from logroute.config.types import ContainerMatchField, Duration
from logroute.router.hints import disabled
from logroute.router.position import BEGINNING, Position
from logroute.router.record import Origin
from logroute.router.times import iso_time
from logroute.sources import (
    Behind,
    Checkpoints,
    Emit,
    History,
    Known,
    Lost,
    Source,
    SourceContext,
    SourceOptions,
    Start,
    Waiting,
)
from logroute.sources.corrupt_lines import CorruptLines
from logroute.sources.docker_container import Container, own_container_id
from logroute.sources.docker_events import ContainerEvents
from logroute.sources.docker_files import ContainerFiles
from logroute.sources.engine import (
    RETRY_MAX_S,
    Engine,
    EngineError,
    EngineRefused,
    origin_from,
)
from logroute.sources.engine_address import EngineAddress, EngineTls
from logroute.sources.engine_answers import ContainerDetails, EngineInfo
from logroute.sources.histories import EngineHistory, FileHistory
from logroute.sources.letting_go import let_go, unfound
from logroute.sources.log_file import NEAR_BYTES, LogFile
from logroute.sources.sweep import Sweep

if TYPE_CHECKING:
    from logroute.sources.docker_readers import ContainerReaders
    from logroute.sources.engine_logs import EngineLog

T = TypeVar("T")


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
    include: ContainerMatchField | None = Field(default=None, examples=[{"container": ["web-*", "api"]}])
    """Only containers that match. A match over containers."""
    exclude: ContainerMatchField | None = Field(default=None, examples=[{"label": {"noisy": "true"}}])
    """No containers that match."""
    env: list[str] = Field(default=[], examples=[["APP_VERSION", "REGION"]])
    """Names of variables of the containers' environment that records show, and paths `env.NAME` mean. No
    others are looked at: passwords stand there too."""
    start: Literal["now", "beginning"] | Duration = Field(default="now", examples=["now", "beginning", "2h"])
    """Where to begin, on a first start, with containers that are there already. Later ones are read from
    their first line."""

    @field_validator("host")
    @classmethod
    def _an_address(cls, host: str | None) -> str | None:
        if host is not None:
            EngineAddress.parse(host, "from the configuration")
        return host

    @field_validator("env")
    @classmethod
    def _names_of_variables(cls, env: list[str]) -> list[str]:
        for name in env:
            if not name or any(character in name for character in "=*?[/"):
                raise ValueError("expected the names of variables, each in full: one more may be a password")
        return env

    _said_by: str = PrivateAttr("from the configuration")

    def check(self) -> None:
        self.address()

    def address(self) -> EngineAddress:
        """The engine's, from here or from the environment. Raises AddressError."""
        tls = EngineTls(**self.tls.model_dump()) if self.tls else None
        return EngineAddress.resolve(self.host, tls=tls, said_by=self._said_by)

    def named(self, by: str) -> DockerOptions:
        """Itself, with who has named the host, in the words of a message."""
        self._said_by = by
        return self


@SOURCES.register(DockerOptions)
class DockerSource(Source[DockerOptions]):
    """One engine's containers."""

    def __init__(self, options: DockerOptions, context: SourceContext) -> None:
        super().__init__(options, context)
        self.containers: dict[str, Container] = {}
        self._engine = Engine(options.address())
        self._log = structlog.get_logger("logroute.sources").bind(source=context.name)
        self._threads = trio.CapacityLimiter(4)
        self._looking = trio.CapacityLimiter(4)
        self._readers: ContainerReaders | None = None
        self._host = ""
        self._self_id = own_container_id()
        self._some_drained = trio.Event()

    async def run(self, emit: Emit, checkpoints: Checkpoints, *, task_status: trio.TaskStatus[None]) -> None:
        self._checkpoints = checkpoints
        self._emit = emit
        corrupt = CorruptLines(self.context)
        self._sweep = Sweep(
            emit,
            self.context.name,
            on_drained=self._drained,
            on_failed=self._failed,
            on_lost=self._tell_lost,
            on_corrupt=corrupt.found,
            on_hole=corrupt.hole,
            on_behind=self._fell_behind,
            held_bytes=self.context.held_bytes,
        )
        self._files = ContainerFiles(
            self._engine, self._sweep, self.context, self.options.read, self._threads
        )
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._events = ContainerEvents(
                    self._engine,
                    self.containers,
                    self.context,
                    nursery,
                    on_engine=self._learn,
                    appear=self._appear,
                    handle=self._handle,
                )
                await nursery.start(self._sweep.run)
                if self.context.once:
                    await self._read_once(task_status)
                    nursery.cancel_scope.cancel()
                else:
                    await self._events.follow(task_status)
        finally:
            corrupt.say()
            await self._let_go()

    async def _read_once(self, task_status: trio.TaskStatus[None]) -> None:
        """What there is now, to where each log ends now."""
        await self._events.look_once(task_status)
        while not all(container.drained for container in self.containers.values()):
            await self._some_drained.wait()

    def _learn(self, engine: EngineInfo) -> None:
        self._host = engine.name
        self._files.root = engine.docker_root_dir

    # --- events ---------------------------------------------------------------------------------------

    async def _handle(self, id_: str, action: str, time_ns: int) -> None:
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
            await self._renamed(container, iso_time(time_ns))
        elif action == "destroy":
            container.removed = True
            self._died(container)
            if not container.ignored:
                self._checkpoints.tell(container.origin, "removed")
            if not container.opening and (container.log is None or not container.log.is_open):
                self._forget(container)

    def _died(self, container: Container) -> None:
        if not container.ended and not container.ignored:
            self._checkpoints.tell(container.origin, "ended")
        container.ended = True
        if container.log is not None:
            container.log.complete = True
            self._sweep.wake(container.log)
        if container.engine_log is not None:
            container.engine_log.ended = True

    async def _started(self, container: Container) -> None:
        again = container.ended
        container.ended = False
        if container.ignored:
            return
        # One that was created, and had not been started when it was looked at, appears below.
        if again and (container.opening or container.log is not None or container.engine_log is not None):
            self._checkpoints.tell(container.origin, "started")
        if container.opening:
            return
        log = container.log
        if log is not None:
            log.complete = False
            if not log.is_open:
                await self._reopen(container, log, self._sweep.places(log))
        elif container.engine_log is not None:
            # Read by API and read to its end before: it goes on where it was, with the same reader.
            container.engine_log.ended = False
            # Who reads may have found the program ended just now, and not look again.
            container.started_meanwhile |= again  # a restart is told beside the start
            self._by_api().read_on(container, {})
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

    async def _renamed(self, container: Container, at: str) -> None:
        if container.opening:
            container.renamed_at = at
            return
        details = await self._engine.inspect(container.details.id)
        old, origin = container.origin, self._origin(details)
        container.details = details.slim()
        self._log.info("a container was renamed", container=origin.name, before=old.name)
        container.origin = origin
        if not container.ignored:
            self._checkpoints.tell(origin, "renamed")
        # Routes that take it under this name alone meet it where it is; what is read from now on has it.
        if (log := container.log) is not None:
            if log.closed:
                await self._meet_late_at_the_end(container, log)
            else:
                self._sweep.rename(log, origin)
        if container.engine_log is not None:
            apart = bool(container.places) or container.catching_up
            container.engine_log.rename(origin, at, read_apart=apart)
            self._emit.renamed(origin, container.engine_log.position)
            await self._meet_late_by_api(container, container.engine_log)

    def _name_as_before(self, container: Container) -> None:
        """What it said before it was renamed, while nobody looked, was said under its name of then. Nobody
        knows up to where: as if that were heard of now."""
        origin = container.origin
        called = self._checkpoints.called(origin.key)
        if called and origin.name not in called:
            container.origin = msgspec.structs.replace(origin, name=min(called), takers=None, start=None)
            container.renamed_at = iso_time(self._engine.now_ns())

    async def _opened(self, container: Container) -> None:
        """It is open; what was heard of its name meanwhile counts now."""
        container.opening = False
        if at := container.renamed_at:
            container.renamed_at = ""
            with suppress(EngineError):  # the engine's list will tell
                await self._renamed(container, at)

    def _name(self, container: Container, log: LogFile) -> None:
        """What was read of a log that is closed had its name of then; what comes has the newest."""
        if log.newest_origin is not container.origin:
            log.rename(container.origin, log.spot, log.position)
            log.origin = container.origin
            self._emit.renamed(container.origin, log.position)

    # --- containers -----------------------------------------------------------------------------------

    def _origin(self, details: ContainerDetails) -> Origin:
        return origin_from(
            details,
            source=self.context.name,
            host=self._host,
            runtime=self._engine.runtime,
            env=self.options.env,
        )

    def _ignored(self, details: ContainerDetails, origin: Origin) -> str:
        """Why this container is not read, or nothing."""
        if details.id == self._self_id:
            return "it is logroute itself"
        if disabled(origin):
            return "its label logroute.enable says so"
        if details.log_driver == "none":
            return "its logging driver keeps nothing"
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
            new = self._events.is_new(details.id)
            container = Container(details, origin, ended=not details.running, new=new)
            container.ignored = self._ignored(details, origin)
            if not container.ignored:
                self._name_as_before(container)
            container.details = details.slim()
            self.containers[details.id] = container
            if container.ignored:
                self._set_drained(container)
                self._log.debug("not read", container=origin.name, why=container.ignored)
            elif not details.started_time and started is None:
                # Created, never started: nothing to read yet. Its start event brings it back here.
                container.ended = True
                self._set_drained(container)
                await self._files.expect(container)
            else:
                container.opening = True
                opened.append(container)
        if not opened:
            return
        try:
            await self._files.open(opened)
        except EngineError:
            # Whoever looks again when the engine is back finds them as if for the first time.
            for container in opened:
                del self.containers[container.details.id]
            raise
        starts = await self._hop(self._starts, opened)
        checkpoints = await self._checkpoints.meet(starts)
        await self._begin({c: self._where(c, checkpoints[c.origin], starts[c.origin]) for c in opened})
        for container in opened:
            if container.details.running:
                self._checkpoints.tell(container.origin, "started")
            await self._opened(container)

    @staticmethod
    def _where(
        container: Container, checkpoints: Mapping[str, Position], start: Start
    ) -> Mapping[str, Position]:
        """Where to begin. What is kept for nobody yet is so in files: an engine keeps nothing for us."""
        if not checkpoints or (container.log is None and "" in checkpoints):
            return {"": start.position}
        return checkpoints

    def _starts(self, containers: list[Container]) -> dict[Origin, Start]:
        """Where `start` says that a route begins with them, if they were there before. In a worker thread."""
        return {c.origin: Start(c.details.created_time, self._start_position(c), c.new) for c in containers}

    def _start_position(self, container: Container) -> Position:
        start = self.options.start
        if start == "beginning":
            return BEGINNING
        if start == "now":
            if container.log is not None:
                with suppress(OSError):  # whoever reads it says so
                    return container.log.end()
            return Position(since=iso_time(self._engine.now_ns()))
        return Position(since=iso_time(self._engine.now_ns() - int(float(start) * 1e9)))

    async def _begin(self, checkpoints: Mapping[Container, Mapping[str, Position]]) -> None:
        by_file = {c.log: where for c, where in checkpoints.items() if c.log is not None}
        losses, failed = await self._hop(self._resume, by_file)
        for container, where in checkpoints.items():
            if container.log is None:
                self._by_api().begin(container, where)
                continue
            if container.log in failed:
                self._try_again(container.log, where, failed[container.log])
                continue
            for lost in losses.get(container.log, ()):
                self._report(container, lost)
            self._sweep.add(container.log)
            self._log.debug("reading", container=container.origin.name, read="file", path=container.log.path)

    def _resume(
        self, logs: Mapping[LogFile, Mapping[str, Position]]
    ) -> tuple[dict[LogFile, list[Lost]], dict[LogFile, OSError]]:
        """Bring these to where they begin; what is gone, and what failed. In a worker thread."""
        losses: dict[LogFile, list[Lost]] = {}
        failed: dict[LogFile, OSError] = {}
        for log, checkpoints in logs.items():
            try:
                losses[log] = self._begin_log(log, checkpoints)
            except OSError as error:
                failed[log] = error
        return losses, failed

    def _begin_log(
        self, log: LogFile, checkpoints: Mapping[str, Position], near_bytes: int = NEAR_BYTES
    ) -> list[Lost]:
        losses = log.begin(checkpoints, near_bytes)
        if self.context.once and log.is_open:
            log.stop_at = log.end_spot()
        return losses

    def _report(self, container: Container | None, lost: Lost) -> None:
        if container is not None:
            self._checkpoints.lost(container.origin, lost)

    async def welcome(self) -> None:
        await self._sweep.welcome()
        for container in list(self.containers.values()):
            if container.log is not None:
                await self._meet_late_at_the_end(container, container.log)
            elif container.engine_log is None:
                continue
            elif container.engine_log.settled:
                await self._meet_late_by_api(container, container.engine_log)
            else:  # other routes may have what it hands on now, and nothing come after it
                self._nursery.start_soon(self._meet_when_settled, container, container.engine_log)

    async def _meet_late_at_the_end(self, container: Container, log: LogFile) -> None:
        """A log that was read to its end is closed: if there is something in it for a route that came, it is
        opened again, read to its end for that route, and closed."""
        if not log.closed or container.failed or container.opening:
            return
        self._name(container, log)
        places = await self._sweep.meet_late(log)
        again = container.log
        if again is not None and again is not log:  # its container was started meanwhile
            self._sweep.read_apart(again, places)
        elif any(map(log.may_have, places.values())):
            container.opening = True
            # Its disk may hang: nobody waits for that.
            self._nursery.start_soon(self._reopen, container, log, self._sweep.places(log))

    async def _meet_when_settled(self, container: Container, log: EngineLog) -> None:
        await log.handed_on()
        if log.settled and container.engine_log is log:
            await self._meet_late_by_api(container, log)

    async def _meet_late_by_api(self, container: Container, log: EngineLog) -> None:
        # It may not have come to the name that the container has now.
        for origin in dict.fromkeys((log.origin, container.origin)):
            if places := await self._emit.meet_late(origin, log.position):
                self._by_api().read_later(container, places, origin)

    def known(self) -> list[Known]:
        return [self._known(container) for container in self.containers.values()]

    def _known(self, container: Container) -> Known:
        state: Literal["running", "ended", "removed"] = (
            "removed" if container.removed else "ended" if container.ended else "running"
        )
        if container.ignored:
            return Known(container.origin, "ignored", state, container.ignored)
        if container.log is not None:
            log = container.log
            stuck, corrupt = self._sweep.why_stuck(log), log.statistics.corrupt_lines
            return Known(container.origin, "file", state, stuck, log.position, corrupt)
        if container.engine_log is not None:
            refused = self._readers.why_refused(container.details.id) if self._readers is not None else ""
            reason = container.unreadable or refused or self._events.away
            return Known(container.origin, "api", state, reason, container.engine_log.position)
        return Known(container.origin, "waiting", state, "it has not been started yet")

    def histories(self) -> list[History]:
        return [self._history(c) for c in self.containers.values() if not c.ignored and not c.opening]

    def _history(self, container: Container) -> History:
        running = not container.ended
        if container.log is not None:
            return FileHistory(container.log, self._looking, running=running)
        return EngineHistory(
            self._engine,
            container.details.id,
            container.origin,
            tty=container.details.tty,
            limit=self.context.record_limit_bytes,
            running=running,
        )

    @property
    def standing_s(self) -> float:
        return self._sweep.standing_s

    def notes(self) -> list[str]:
        reason = self._events.away
        away = [f"the engine is away: {reason}; files are read on"] if reason else []
        return away + self._sweep.notes() + (self._readers.notes() if self._readers is not None else [])

    async def _let_go(self) -> None:
        owners = {c.log: c for c in self.containers.values() if c.log is not None}

        def report(log: LogFile, lost: Lost) -> None:
            self._report(owners.get(log), lost)

        # With `--once` all of it was read, or whoever asks is told that not all was.
        await let_go([*owners, *self._files.expected], None if self.context.once else report)

    async def unfound(self, waiting: Sequence[Waiting]) -> list[Waiting]:
        own = [(each, c) for each in waiting if (c := self.containers.get(each.origin.id)) is not None]
        by_file = [(c.log, each) for each, c in own if c.log is not None]
        by_api = [(c.engine_log, each) for each, c in own if c.engine_log is not None]
        gone = await unfound(by_file) if by_file else []
        if by_api:
            from logroute.sources import docker_readers

            gone += await docker_readers.unfound(by_api)
        return gone

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
            self._sweep.close(log)
            if container.removed:
                self._forget(container)

    def _tell_lost(self, log: LogFile) -> None:
        """Of a log, or of a fork of it."""
        container = self.containers.get(log.origin.id)
        for lost in log.take_losses():
            self._report(container, lost)

    def _failed(self, log: LogFile, error: Exception) -> None:
        self._try_again(log, self._sweep.places(log), error)

    def _try_again(self, log: LogFile, places: Mapping[str, Position], error: Exception) -> None:
        """Later, from these places: what was emitted is not emitted again."""
        container = self.containers.get(log.origin.id)
        name = container.origin.name if container is not None else log.path
        self.context.failed("read_failed")
        self._log.error("cannot read a log, trying again", container=name, path=log.path, exc_info=error)
        self._sweep.close(log)
        if container is not None:
            container.failed = True
            self._nursery.start_soon(self._again, container, log, places)

    async def _again(self, container: Container, log: LogFile, places: Mapping[str, Position]) -> None:
        await trio.sleep(RETRY_MAX_S)
        if container.log is log and not log.is_open:
            await self._reopen(container, log, {**places, **log.stranded})

    async def _reopen(self, container: Container, log: LogFile, places: Mapping[str, Position]) -> None:
        """Go on where a log was that is closed."""
        self._name(container, log)
        log = container.log = log.another()
        container.opening, container.failed = True, False
        try:
            there = await self._hop(log.open)
            losses = await self._hop(self._begin_log, log, places, 0)
        except OSError as error:
            self._try_again(log, {**places, **log.stranded}, error)
            return
        finally:
            container.opening = False
        for lost in losses:
            self._report(container, lost)
        if there:
            log.complete = container.ended
            behind = {route for fork in log.forks for route in fork.routes or ()}
            self._emit.joined(log.origin, places.keys() - behind)  # the live reader has come to them
            self._sweep.add(log)
            await self._sweep.meet_late(log)  # routes that came while it was being opened
            await self._opened(container)
            return
        log.closed = True
        log.strand({route: place for route, place in places.items() if route})
        if self.context.once:
            self._set_drained(container)
        elif container.removed:
            self._forget(container)

    async def _hop(self, work: Callable[..., T], *args: Any) -> T:
        """In a thread, which is left behind when we are cancelled: its disk may hang."""
        return await trio.to_thread.run_sync(work, *args, limiter=self._threads, abandon_on_cancel=True)

    def _forget(self, container: Container) -> None:
        if container.reader is None and not container.catching_up:
            self.containers.pop(container.details.id, None)
            self._files.expect_no_more(container.details.id)
            self._checkpoints.gone(container.origin)

    # --- by API ---------------------------------------------------------------------------------------

    def _by_api(self) -> ContainerReaders:
        if self._readers is None:
            # Only where something is read by API.
            from logroute.sources.docker_readers import ContainerReaders

            self._readers = ContainerReaders(
                self._engine,
                self._emit,
                self._sweep.offers.offer,
                self.context,
                self._nursery,
                on_lost=self._report,
                on_ended=self._ended_by_api,
            )
        return self._readers

    def _fell_behind(self, behind: Behind) -> None:
        """A route has no room for what was read by API."""
        reader: Any = behind.reader
        if (container := self.containers.get(reader.origin.id)) is not None:
            self._by_api().fell_behind(container, behind)

    def _ended_by_api(self, container: Container) -> None:
        self._set_drained(container)
        if container.removed:
            self._forget(container)
