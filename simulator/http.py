"""The simulated engine's HTTP server: requests by h11, responses as Go's server writes them.

HTTP/1.1 bodies of unknown length are chunked, one chunk a record; to HTTP/1.0 the same bytes go plainly and
the connection closes.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

import h11
import msgspec
import trio

from logroute.simulator.reading import Entry, LogReadError
from logroute.simulator.records import chunk, frame
from logroute.simulator.requests import Answer, EventStream, LogStream, respond

if TYPE_CHECKING:
    from logroute.simulator.engine import SimulatedEngine

# Go's server counts a body of up to this size and chunks a longer one.
_COUNTED_BYTES = 2048
_RECEIVE_BYTES = 64 * 1024
_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Connection: close\r\n\r\n400 Bad Request"
)

Send = Callable[[Iterable[bytes]], Awaitable[None]]
"""Sends parts of a body; each is a chunk in HTTP/1.1."""


class Server:
    """Listens while the engine is up."""

    def __init__(self, engine: SimulatedEngine, path: Path, *, tcp: bool) -> None:
        self.engine = engine
        self.path = path
        self.tcp_port = 0
        self._tcp = tcp
        self._scope: trio.CancelScope | None = None
        self._closed = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `close` or cancelled; the socket's file goes with it."""
        self._closed = trio.Event()
        try:
            with trio.CancelScope() as self._scope:
                listeners: list[trio.SocketListener] = [await self._listen_unix()]
                if self._tcp:
                    listeners += await trio.open_tcp_listeners(self.tcp_port, host="127.0.0.1")
                    self.tcp_port = listeners[-1].socket.getsockname()[1]
                async with trio.open_nursery() as nursery:
                    await nursery.start(trio.serve_listeners, self._serve, listeners)
                    task_status.started()
        finally:
            self.path.unlink(missing_ok=True)
            self._closed.set()

    async def _listen_unix(self) -> trio.SocketListener:
        self.path.unlink(missing_ok=True)
        listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        await listener.bind(os.fspath(self.path))
        listener.listen(128)
        return trio.SocketListener(listener)

    async def close(self) -> None:
        """Cut everything."""
        if self._scope is not None:
            self._scope.cancel()
            await self._closed.wait()

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await _Connection(self.engine, stream).run()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client went away


class _Connection:
    """One client: requests one after the other."""

    def __init__(self, engine: SimulatedEngine, stream: trio.SocketStream) -> None:
        self.engine = engine
        self.stream = stream
        self._received = b""
        """What came behind the request that is being answered."""

    async def run(self) -> None:
        while (request := await self._request()) is not None:
            response = respond(self.engine, request.method.decode(), request.target.decode())
            keeps = request.http_version == b"1.1" and not _asks_to_close(request)
            if isinstance(response, Answer):
                await self._send_answer(response, request, keeps=keeps)
            elif not await self._send_stream(response, request, keeps=keeps):
                return
            if not keeps:
                return

    async def _request(self) -> h11.Request | None:
        """The next request with its body thrown away; None at the end."""
        parser = h11.Connection(h11.SERVER)
        if self._received:
            parser.receive_data(self._received)
        request: h11.Request | None = None
        while True:
            try:
                event = parser.next_event()
            except h11.RemoteProtocolError:
                await self.stream.send_all(_BAD_REQUEST)
                return None
            if event is h11.NEED_DATA:
                parser.receive_data(await self.stream.receive_some(_RECEIVE_BYTES))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.EndOfMessage):
                self._received = parser.trailing_data[0]
                return request
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                return None

    def _head(
        self,
        status: int,
        headers: dict[str, str],
        request: h11.Request,
        *,
        keeps: bool,
        anonymous: bool = False,
    ) -> bytes:
        quirks = self.engine.quirks
        version = "1.1" if request.http_version == b"1.1" else "1.0"
        lines = [f"HTTP/{version} {status} {HTTPStatus(status).phrase}"]
        own = {
            "Api-Version": quirks.api_version,
            "Docker-Experimental": "false",
            "Ostype": "linux",
            "Server": f"Docker/{quirks.engine_version} (linux)",
        }
        date = formatdate(self.engine.clock() / 1e9, usegmt=True)
        fields = {**({} if anonymous else own), **headers, "Date": date}
        if not keeps and version == "1.1":
            fields["Connection"] = "close"
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return "\r\n".join([*lines, "", ""]).encode()

    async def _send_answer(self, answer: Answer, request: h11.Request, *, keeps: bool) -> None:
        body = answer.body
        if len(body) <= _COUNTED_BYTES:
            length = {"Content-Length": str(len(body))}
        elif request.http_version == b"1.1":
            length = {"Transfer-Encoding": "chunked"}
            body = chunk(body) + chunk(b"")
        else:
            length = {}
        headers = {**answer.headers, **length}
        head = self._head(answer.status, headers, request, keeps=keeps, anonymous=answer.anonymous)
        await self.stream.send_all(head + (b"" if request.method == b"HEAD" else body))

    async def _send_stream(
        self, response: LogStream | EventStream, request: h11.Request, *, keeps: bool
    ) -> bool:
        """Send the parts as they come, until they end or the client goes; whether all was sent."""
        chunked = request.http_version == b"1.1"

        async def send(parts: Iterable[bytes]) -> None:
            if data := b"".join(map(chunk, parts) if chunked else parts):
                await self.stream.send_all(data)

        headers = {**response.headers, **({"Transfer-Encoding": "chunked"} if chunked else {})}
        complete = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_client, nursery.cancel_scope)
            try:
                await self.stream.send_all(self._head(200, headers, request, keeps=keeps))
                if isinstance(response, LogStream):
                    await self._send_log(response, send)
                else:
                    await self._send_events(response, send)
                if chunked:
                    await self.stream.send_all(chunk(b""))
                complete = True
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the client went away
            finally:
                response.close()
            nursery.cancel_scope.cancel()
        return complete

    async def _watch_client(self, scope: trio.CancelScope) -> None:
        """End a stream whose client has closed its side, as Go's server does."""
        try:
            while data := await self.stream.receive_some(_RECEIVE_BYTES):
                self._received += data
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()

    async def _send_log(self, response: LogStream, send: Send) -> None:
        cursor = response.cursor
        try:
            while not response.selection.finished:
                if entries := cursor.read():
                    await send([render(e, response) for e in response.selection.apply(entries)])
                elif cursor.ended:
                    return
                else:
                    await self.engine.log_changes(response.container)
        except LogReadError as error:
            quirks, random = self.engine.quirks, self.engine.random
            tells = random.random() < quirks.tells_read_errors
            if not (tells and random.random() < quirks.error_overtakes):
                await send([render(entry, response) for entry in response.selection.apply(error.good)])
            if not tells:
                return
            message = f"Error grabbing logs: {error}\n".encode()
            await send([frame("error", message) if response.framed else message])

    async def _send_events(self, response: EventStream, send: Send) -> None:
        legacy_keys = self.engine.quirks.legacy_event_keys
        await send([event.as_json(legacy_keys=legacy_keys) for event in response.past])
        left_s = math.inf
        if response.until_ns is not None:
            left_s = max(0.0, (response.until_ns - self.engine.clock()) / 1e9)
        with trio.move_on_after(left_s):
            while True:
                events = await response.subscription.take()
                await send([event.as_json(legacy_keys=legacy_keys) for event in events])


def render(entry: Entry, response: LogStream) -> bytes:
    """One record as the body has it: one frame, or plainly for a terminal."""
    payload = entry.log
    if response.details:
        payload = _details(entry.attrs) + b" " + payload
    if response.timestamps:
        payload = entry.time.encode() + b" " + payload
    return frame(entry.stream, payload) if response.framed else payload


def _details(attrs: bytes) -> bytes:
    decoded = msgspec.json.decode(attrs, type=dict[str, str]) if attrs else {}
    return ",".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in decoded.items()).encode()


def _asks_to_close(request: h11.Request) -> bool:
    return any(name == b"connection" and b"close" in value.lower() for name, value in request.headers)
