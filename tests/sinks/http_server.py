"""A small HTTP server that misbehaves as it is told: on loopback, in a test's nursery or in a thread."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import h11
import trio


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int
    """Which of the connections, from 1."""


Behaviour = Callable[[trio.SocketStream, Request], Awaitable[None]]
"""What follows a request. The connection stays open if it returns, and is closed if it raises Close."""


class Close(Exception):
    """The server closes the connection."""


def answer(status: int, body: bytes = b"", *, close: bool = False, **headers: str) -> Behaviour:
    """An answer as it should be; `retry_after="3"` is the header `retry-after`."""

    async def behave(stream: trio.SocketStream, _: Request) -> None:
        lines = [f"HTTP/1.1 {status} Words", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await stream.send_all("\r\n".join([*lines, "", ""]).encode() + body)
        if close:
            raise Close

    return behave


def say(data: bytes) -> Behaviour:
    """Send these very bytes, and close."""

    async def behave(stream: trio.SocketStream, _: Request) -> None:
        await stream.send_all(data)
        raise Close

    return behave


@dataclass
class HttpServer:
    """Answers each request with the next of `behaviours`, and when there are none, as `otherwise` does."""

    max_body: int | None = None
    """Larger ones get a 413."""
    reads: int | None = None
    """Each connection is closed once so many bytes of it were read; what else has come never is."""
    requests: list[Request] = field(default_factory=list)
    """All, in the order in which their bodies were complete."""
    behaviours: deque[Behaviour] = field(default_factory=deque)
    otherwise: Behaviour = field(default_factory=lambda: answer(200))
    connections: int = 0
    closed: int = 0
    """Connections that have ended."""
    port: int = 0
    _open: set[trio.SocketStream] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def bodies(self) -> list[bytes]:
        return [request.body for request in self.requests]

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, host="127.0.0.1")
            (listener,) = await nursery.start(serve, self._talk, self.port)
            self.port = listener.socket.getsockname()[1]
            task_status.started()

    async def close_connections(self) -> None:
        """Close those that are open, as a server does with what is not used for long."""
        for stream in list(self._open):
            await trio.aclose_forcefully(stream)

    async def _talk(self, stream: trio.SocketStream) -> None:
        self._open.add(stream)
        try:
            # One on which nothing is said is none: somebody looked whether we are there.
            if not await wait_for_word(stream):
                self.closed -= 1
                return
            self.connections += 1
            number = self.connections
            for _ in range(self.reads or 0):
                await stream.receive_some(1)
            if self.reads is not None:
                return
            while (request := await self._request(stream, number)) is not None:
                self.requests.append(request)
                if self.max_body is not None and len(request.body) > self.max_body:
                    behave = answer(413, b"too large")
                else:
                    behave = self.behaviours.popleft() if self.behaviours else self.otherwise
                await behave(stream, request)
        except (Close, h11.RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.closed += 1
            self._open.discard(stream)
            await trio.aclose_forcefully(stream)

    async def _request(self, stream: trio.SocketStream, number: int) -> Request | None:
        """The next one; None when the client has closed."""
        connection = h11.Connection(h11.SERVER)
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                headers = {name.decode(): value.decode() for name, value in head.headers}
                return Request(head.method.decode(), head.target.decode(), headers, bytes(body), number)
            else:  # h11.ConnectionClosed
                return None


async def wait_for_word(stream: trio.SocketStream) -> bool:
    """Whether the other side says something, which is left to be received; False if it closes."""
    try:
        return bool(await stream.socket.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


@contextmanager
def in_a_thread(server: HttpServer) -> Iterator[None]:
    """Have it serve beside a test that has no nursery for it."""
    ready = threading.Event()
    scope = trio.CancelScope()
    token: list[trio.lowlevel.TrioToken] = []

    async def main() -> None:
        token.append(trio.lowlevel.current_trio_token())
        with scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(server.serve)
                ready.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        token[0].run_sync_soon(scope.cancel)
        thread.join()
