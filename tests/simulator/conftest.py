"""A tiny HTTP client for raw checks, and drivers for what is checked: the simulated engine and a real one."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from uuid import uuid4

import pytest
import trio

from logroute.simulator import (
    DOCKER_20_10,
    DOCKER_26_1,
    NEWEST,
    Quirks,
    SimulatedContainer,
    SimulatedEngine,
)
from tests.servers.docker_engine import DockerEngine

Program = Sequence[tuple[str, bytes]]
"""What a container's program writes: stream, bytes."""


@dataclass
class Reply:
    """One response as it came."""

    version: str
    status: int
    headers: dict[str, str]
    chunks: list[bytes] = field(default_factory=list)
    """The chunks of a chunked body, otherwise all of it as one."""
    complete: bool = True

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def json(self) -> Any:
        return json.loads(self.body)

    def frames(self) -> list[tuple[int, bytes]]:
        return split_frames(self.body)


def split_frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        kind, length = struct.unpack(">BxxxL", data[:8])
        found.append((kind, data[8 : 8 + length]))
        data = data[8 + length :]
    return found


class Exchange:
    """One request on a connection of its own."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.buffer = b""
        self.reply: Reply

    async def more(self) -> bool:
        data = await self.stream.receive_some(1 << 20)
        self.buffer += bytes(data)
        return bool(data)

    async def until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            if not await self.more():
                raise EOFError(self.buffer)
        found, self.buffer = self.buffer.split(mark, 1)
        return found

    async def head(self) -> None:
        lines = (await self.until(b"\r\n\r\n")).decode().split("\r\n")
        version, status, *_ = lines[0].split(" ")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
        self.reply = Reply(version, int(status), headers)

    async def chunk(self) -> bytes:
        """The next chunk; empty at the end."""
        size = int(await self.until(b"\r\n"), 16)
        while len(self.buffer) < size + 2:
            if not await self.more():
                raise EOFError(self.buffer)
        data, self.buffer = self.buffer[:size], self.buffer[size + 2 :]
        if data:
            self.reply.chunks.append(data)
        return data

    async def rest(self) -> Reply:
        reply = self.reply
        try:
            if reply.headers.get("transfer-encoding") == "chunked":
                while await self.chunk():
                    pass
            elif "content-length" in reply.headers:
                size = int(reply.headers["content-length"])
                while len(self.buffer) < size and await self.more():
                    pass
                reply.chunks = [self.buffer[:size]]
            else:
                while await self.more():
                    pass
                reply.chunks = [self.buffer]
        except EOFError:
            reply.complete = False
        return reply


async def connect(host: str) -> trio.abc.Stream:
    url = urlsplit(host)
    if url.scheme == "unix":
        return await trio.open_unix_socket(url.path)
    return await trio.open_tcp_stream(url.hostname or "", url.port or 0)


class Client:
    """Asks an engine by plain sockets."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._exchanges: list[Exchange] = []

    async def close(self) -> None:
        """Also what a test that failed has left open."""
        for exchange in self._exchanges:
            await trio.aclose_forcefully(exchange.stream)

    async def open(
        self, target: str, *, version: str = "1.1", method: str = "GET", body: object = None, **query: object
    ) -> Exchange:
        """Send a request and read the head of its response."""
        exchange = Exchange(await connect(self.host))
        self._exchanges.append(exchange)
        if query:
            target += "?" + urlencode(
                {k: v if isinstance(v, str) else json.dumps(v) for k, v in query.items()}
            )
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {target} HTTP/{version}\r\nHost: docker\r\n"
        if data:
            head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        await exchange.stream.send_all(head.encode() + b"\r\n" + data)
        await exchange.head()
        return exchange

    async def ask(
        self, target: str, *, version: str = "1.1", method: str = "GET", body: object = None, **query: object
    ) -> Reply:
        """Send a request and read all of its response."""
        exchange = await self.open(target, version=version, method=method, body=body, **query)
        try:
            if method == "HEAD" or exchange.reply.status in (204, 304):
                return exchange.reply
            return await exchange.rest()
        finally:
            await exchange.stream.aclose()

    async def logs(self, container: str, *, version: str = "1.1", **query: object) -> Reply:
        return await self.ask(
            f"/containers/{container}/logs", version=version, **{"stdout": 1, "stderr": 1, **query}
        )


class SimulatedDriver(Client):
    """Drives the simulated engine as a user of containers would."""

    is_real = False

    def __init__(self, engine: SimulatedEngine) -> None:
        super().__init__(engine.host)
        self.engine = engine

    def __getitem__(self, id: str) -> SimulatedContainer:
        found = self.engine.find(id)
        assert found is not None
        return found

    async def create(
        self,
        name: str,
        program: Program = (),
        *,
        holds: bool = False,
        exit_code: int = 0,
        tty: bool = False,
        labels: dict[str, str] | None = None,
        env: list[str] | None = None,
        log_driver: str = "json-file",
        log_opts: dict[str, str] | None = None,
        auto_remove: bool = False,
    ) -> str:
        container = self.engine.create(
            name,
            image=self.image,
            labels=labels,
            env=env or [],
            tty=tty,
            log_driver=log_driver,
            log_opts=log_opts,
            auto_remove=auto_remove,
        )
        self.programs[container.id] = (program, holds, exit_code)
        return container.id

    image = "conformance:1"

    @property
    def programs(self) -> dict[str, tuple[Program, bool, int]]:
        return self.__dict__.setdefault("_programs", {})

    async def start(self, id: str) -> None:
        self[id].start()
        self._run(id)

    def _run(self, id: str) -> None:
        program, holds, exit_code = self.programs[id]
        container = self[id]
        for stream, data in program:
            container.write(data, "stdout" if stream == "stdout" else "stderr")
        if not holds:
            container.exit(exit_code)

    async def wait(self, id: str) -> None:
        """Until it has exited."""

    async def restart(self, id: str) -> None:
        self[id].restart()
        self._run(id)

    async def do(self, id: str, action: str, **query: str) -> int:
        container = self[id]
        if action == "rename":
            container.rename(query["name"])
        else:
            {"pause": container.pause, "unpause": container.unpause, "kill": container.kill}[action]()
        return 204

    async def stop(self, id: str) -> None:
        self[id].stop()

    async def remove(self, id: str, *, force: bool = False) -> None:
        if self.engine.find(id) is not None:
            self[id].remove(force=force)


class RealDriver(Client):
    """Drives a real engine by its API. Its image needs `sh`, `base64` and `sleep`."""

    is_real = True

    def __init__(self, host: str, image: str) -> None:
        super().__init__(host)
        self.image = image
        self.ids: list[str] = []

    async def create(
        self,
        name: str,
        program: Program = (),
        *,
        holds: bool = False,
        exit_code: int = 0,
        tty: bool = False,
        labels: dict[str, str] | None = None,
        env: list[str] | None = None,
        log_driver: str = "json-file",
        log_opts: dict[str, str] | None = None,
        auto_remove: bool = False,
    ) -> str:
        steps = ["trap 'exit 143' TERM"]
        for stream, data in program:
            # One argument may have 128 KiB.
            for at in range(0, len(data), 60_000):
                text = base64.b64encode(data[at : at + 60_000]).decode()
                steps.append(f"echo {text} | base64 -d{' >&2' if stream == 'stderr' else ''}")
        steps.append("while true; do sleep 0.05; done" if holds else f"exit {exit_code}")
        reply = await self.ask(
            f"/containers/create?name={quote(name)}",
            method="POST",
            body={
                "Image": self.image,
                "Cmd": ["sh", "-c", "\n".join(steps)],
                "Tty": tty,
                "Env": env or [],
                "Labels": labels or {},
                "HostConfig": {
                    "NetworkMode": "none",
                    "AutoRemove": auto_remove,
                    "LogConfig": {"Type": log_driver, "Config": log_opts or {}},
                },
            },
        )
        assert reply.status == 201, reply.body
        id = reply.json()["Id"]
        self.ids.append(id)
        return str(id)

    async def start(self, id: str) -> None:
        reply = await self.ask(f"/containers/{id}/start", method="POST")
        assert reply.status == 204, reply.body

    async def wait(self, id: str) -> None:
        """Until it has exited."""
        await self.ask(f"/containers/{id}/wait", method="POST")

    async def restart(self, id: str) -> None:
        reply = await self.ask(f"/containers/{id}/restart", method="POST")
        assert reply.status == 204, reply.body

    async def do(self, id: str, action: str, **query: str) -> int:
        return (await self.ask(f"/containers/{id}/{action}", method="POST", **query)).status

    async def stop(self, id: str) -> None:
        assert (await self.ask(f"/containers/{id}/stop?t=10", method="POST")).status == 204

    async def remove(self, id: str, *, force: bool = False) -> None:
        await self.ask(f"/containers/{id}?force={int(force)}", method="DELETE")


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[SimulatedEngine]:
    """A simulated engine with a seed."""
    async with SimulatedEngine(tmp_path / "engine", seed=1) as running:
        yield running


@pytest.fixture
def client(engine: SimulatedEngine) -> Client:
    """Asks the simulated engine."""
    return Client(engine.host)


@pytest.fixture
def make_client() -> Callable[[SimulatedEngine], Client]:
    """Asks another simulated engine."""
    return lambda engine: Client(engine.host)


SIMULATED = {"20.10": DOCKER_20_10, "26.1": DOCKER_26_1, "newest": NEWEST}


@pytest.fixture(params=[*SIMULATED, pytest.param("real", marks=pytest.mark.real_engine)])
def which(request: pytest.FixtureRequest) -> Quirks | DockerEngine:
    """Each engine in turn: what a simulated one is to be like, or a real one."""
    if request.param != "real":
        return SIMULATED[request.param]
    engine: DockerEngine = request.getfixturevalue("docker_engine")
    return engine


@pytest.fixture
async def driver(which: Quirks | DockerEngine, tmp_path: Path) -> AsyncIterator[SimulatedDriver | RealDriver]:
    """What the conformance tests talk to."""
    if isinstance(which, Quirks):
        async with SimulatedEngine(tmp_path / "engine", quirks=which) as engine:
            simulated = SimulatedDriver(engine)
            yield simulated
            await simulated.close()
        return
    driver = RealDriver(which.host, which.image)
    try:
        yield driver
    finally:
        with trio.move_on_after(30, shield=True):
            await driver.close()
            for id in driver.ids:
                await driver.remove(id, force=True)
            await driver.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A container name that no other test uses."""
    return f"conformance-{uuid4().hex[:8]}"
