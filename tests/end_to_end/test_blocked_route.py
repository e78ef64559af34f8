"""A route that blocks, beside one that does not, on a simulated engine: by file and by API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from logroute.simulator import SimulatedEngine
from tests.end_to_end.test_simulated_engine import World

READS = ["file", "api"]
NOTHING_KEPT: dict[str, Any] = {"memory": "1KiB", "disk": 0}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with SimulatedEngine(tmp_path / "engine") as engine:
        yield World(tmp_path, engine)


class Receiver:
    """An HTTP server that answers 503 until it is `open`; what it has taken then."""

    def __init__(self) -> None:
        self.open = False
        self.got: list[str] = []
        self._listener = trio.socket.socket()

    async def listen(self) -> str:
        await self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(10)
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/?encoding=ndjson"

    async def serve(self) -> None:
        with self._listener:
            async with trio.open_nursery() as nursery:
                while True:
                    connection, _ = await self._listener.accept()
                    nursery.start_soon(self._answer, connection)

    async def _answer(self, connection: trio.socket.SocketType) -> None:
        data = b""
        with connection:
            while more := await connection.recv(1 << 16):
                data += more
                head, end, body = data.partition(b"\r\n\r\n")
                length = (
                    next(
                        int(line[15:])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-length")
                    )
                    if end
                    else 0
                )
                if not end or len(body) < length:
                    continue
                data = body[length:]
                if self.open:
                    self.got += [json.loads(line)["message"] for line in body[:length].splitlines()]
                status = b"204 No Content" if self.open else b"503 Service Unavailable"
                await connection.send(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n")


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("ends", [False, True])
async def test_a_route_that_blocks_delays_no_other_and_gets_everything_in_order(
    world: World, read: str, ends: bool
) -> None:
    receiver = Receiver()
    uri = await receiver.listen()
    web, other = world.container("web"), world.container("other")
    world.configure(
        {
            "good": {},
            "bad": {
                "sink": uri,
                "queue": NOTHING_KEPT,
                "retry": {"initial": "50ms", "max": "200ms"},
                "match": {"container": "web"},
            },
        },
        read=read,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver.serve)
        async with world.running() as daemon:
            for number in range(300):
                web.write(f"{number}\n")
                await trio.sleep(0.002)
            other.write("other\n")
            # The good one has it all, while the bad one has taken no more than it may hold.
            assert len(await world.until(301, "good")) == 301
            book = daemon.router.routes["bad"].statistics()
            assert (book.delivered, book.received < 300) == (0, True)
            web.write("behind\n")
            if ends:
                web.exit(0)
            await world.until(302, "good")
            receiver.open = True
            wanted = [*map(str, range(300)), "behind"]
            await world.until_true(lambda: len(receiver.got) >= 301, "the bad one has it all")
            await world.until_true(lambda: not daemon.router._apart, "it is with the other again")
            if not ends:
                web.write("last\n")
                wanted.append("last")
                await world.until_true(lambda: len(receiver.got) >= 302, "and gets what comes")
            assert receiver.got == wanted
            assert world.messages("good").count("behind") == 1
        nursery.cancel_scope.cancel()
    assert len(world.messages("good")) == 302 + (not ends)
