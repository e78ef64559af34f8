"""The simulated engine: its containers, its events, its clock, and when it is up."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import trio

from logroute.simulator.containers import SimulatedContainer
from logroute.simulator.events import Event, EventLog
from logroute.simulator.http import Server
from logroute.simulator.quirks import Quirks

# A unix socket's path must fit into sockaddr_un with its ending zero.
_LONGEST_SOCKET_PATH = 107


class SimulatedEngine:
    """`async with SimulatedEngine(root) as engine:` listens at `engine.host` until the block ends.

    Everything that it keeps lies under `root`. Its methods, and those of its containers, are synchronous and
    belong to the trio thread. Times come from `clock` (nanoseconds since 1970).
    """

    def __init__(
        self,
        root: Path,
        *,
        quirks: Quirks | None = None,
        clock: Callable[[], int] = time.time_ns,
        name: str = "simulated",
        tcp: bool = False,
        socket: Path | None = None,
        seed: int | None = None,
    ) -> None:
        self.root = Path(root)
        self.quirks = quirks or Quirks()
        self.clock = clock
        self.name = name
        self.random = random.Random(seed)
        self.containers: dict[str, SimulatedContainer] = {}
        """By id, in the order of their creation."""
        self.events = EventLog(ring=self.quirks.event_ring, buffer=self.quirks.event_buffer)
        self.is_up = False
        self.log_refusals: deque[tuple[int, str]] = deque()
        """With which status, and in which words, the next requests for a log are refused."""
        self._short_folder: str | None = None
        self.socket_path = socket or self._socket_path()
        self._server = Server(self, self.socket_path, tcp=tcp)
        self._pid = 1000
        self._bells: dict[str, trio.Event] = {}
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._nursery: trio.Nursery | None = None

    def _socket_path(self) -> Path:
        path = self.root / "docker.sock"
        if len(str(path)) > _LONGEST_SOCKET_PATH:
            self._short_folder = tempfile.mkdtemp(prefix="engine-")
            path = Path(self._short_folder) / "docker.sock"
        return path

    @property
    def host(self) -> str:
        """As DOCKER_HOST has it."""
        return f"unix://{self.socket_path}"

    @property
    def tcp_host(self) -> str:
        """The same engine on loopback, if `tcp` was asked for."""
        return f"tcp://127.0.0.1:{self._server.tcp_port}"

    async def __aenter__(self) -> Self:
        self.root.mkdir(parents=True, exist_ok=True)
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        await self._nursery.start(self._server.run)
        self.is_up = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._nursery is not None
        assert self._manager is not None
        self._nursery.cancel_scope.cancel()
        # The block's own error passes as it is, not in a group with those of the server.
        await self._manager.__aexit__(None, None, None)
        self.is_up = False
        for container in self.containers.values():
            container.close()
        if self._short_folder is not None:
            shutil.rmtree(self._short_folder, ignore_errors=True)

    # Containers

    def create(
        self,
        name: str | None = None,
        *,
        image: str = "busybox:latest",
        labels: Mapping[str, str] | None = None,
        env: Sequence[str] = (),
        tty: bool = False,
        log_driver: str = "json-file",
        log_opts: Mapping[str, str] | None = None,
        auto_remove: bool = False,
        restart_policy: Literal["no", "always"] = "no",
        id: str | None = None,
    ) -> SimulatedContainer:
        """Make a container; it does not run yet."""
        id = id or f"{self.random.getrandbits(256):064x}"
        container = SimulatedContainer(
            engine=self,
            id=id,
            name=self.claim_name(name or f"nameless_{id[:8]}"),
            image=image,
            image_id="sha256:" + sha256(image.encode()).hexdigest(),
            labels=dict(labels or {}),
            env=list(env),
            tty=tty,
            log_driver=log_driver,
            log_opts=dict(log_opts or {}),
            auto_remove=auto_remove,
            restart_policy=restart_policy,
            created_ns=self.clock(),
        )
        self.containers[id] = container
        self.emit("container", "create", id, {**container.labels, "image": image, "name": container.name})
        return container

    def find(self, reference: str) -> SimulatedContainer | None:
        """By id, by name, or by the beginning of an id that only one has."""
        if reference in self.containers:
            return self.containers[reference]
        name = reference.removeprefix("/")
        found = [c for c in self.containers.values() if c.name == name]
        found = found or [c for c in self.containers.values() if reference and c.id.startswith(reference)]
        return found[0] if len(found) == 1 else None

    def claim_name(self, name: str) -> str:
        """The name, if nobody has it."""
        if any(container.name == name for container in self.containers.values()):
            raise ValueError(f"the container name {name!r} is already in use")
        return name

    def forget(self, container: SimulatedContainer) -> None:
        """It was destroyed."""
        self.containers.pop(container.id, None)
        self.log_written(container)

    # Events and time

    def emit(self, type: str, action: str, id: str, attributes: Mapping[str, str]) -> None:
        """Tell the subscribers that something happened."""
        self.events.emit(Event(type, action, id, dict(attributes), self.clock()))

    def after(self, delay_s: float, step: Callable[[], None]) -> None:
        """Do something later, in trio's time, while the engine's block is open."""
        if self._nursery is None:
            raise RuntimeError("the engine does not run: use `async with`")

        async def wait_and_do() -> None:
            await trio.sleep(delay_s)
            step()

        self._nursery.start_soon(wait_and_do)

    def after_compression_delay(self, step: Callable[[], None]) -> None:
        """When a rotated file is to be compressed."""
        self.after(self.quirks.compression_delay_s, step)

    def next_pid(self) -> int:
        """A process id for a program that is not there."""
        self._pid += 1
        return self._pid

    def log_written(self, container: SimulatedContainer) -> None:
        """Wake the follow streams of a container: it wrote, or it ended."""
        bell = self._bells.pop(container.id, None)
        if bell is not None:
            bell.set()

    async def log_changes(self, container: SimulatedContainer) -> None:
        """Wait for `log_written`."""
        await self._bells.setdefault(container.id, trio.Event()).wait()

    # The engine itself

    async def stop(self, *, containers: Literal["die", "continue"] = "continue") -> None:
        """Go down: the socket is gone and every stream cut when this returns.

        With "die" the containers are stopped first; with "continue" (live restore) they run on and their
        output waits in their pipes.
        """
        if containers == "die":
            for container in list(self.containers.values()):
                if container.is_running:
                    container.stop()
        self.is_up = False
        await self._server.close()
        self.events.clear()

    async def start(self) -> None:
        """Come back, with a new ring of events; containers that always restart run again."""
        assert self._nursery is not None
        self.is_up = True
        for container in list(self.containers.values()):
            if container.is_running:
                container.engine_is_back()
            elif container.restart_policy == "always" and container.state.started_ns is not None:
                container.start()
        await self._nursery.start(self._server.run)

    async def restart(
        self, down_s: float = 1.0, *, containers: Literal["die", "continue"] = "continue"
    ) -> None:
        """Go down and come back after that many seconds of trio's time."""
        await self.stop(containers=containers)
        await trio.sleep(down_s)
        await self.start()
