"""Serves the API on sockets that listen: connections are bounded in number and time, whatever a peer does.

hypercorn speaks HTTP. What it cannot do is done here: it waits without end, and shielded, for a peer that
does not read. So what it sends has a deadline, and when we end, connections are shut down under it.
"""

from __future__ import annotations

import errno
import math
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
import trio

from logroute.api.address import Address
from logroute.api.listener import Listener, ListenError
from logroute.router.delivery import cause_of

if TYPE_CHECKING:
    from hypercorn.typing import AppWrapper

    from logroute.router.daemon import Daemon

CONNECTIONS = 64
"""At a time; further ones wait to be accepted."""
SEND_WITHIN_S = 20.0
"""How long a peer may take to read one piece of an answer."""
REQUEST_WITHIN_S = 10.0
"""How long a connection may be without a whole header, also between two requests."""
HEADER_BYTES = 16 << 10
TOO_MANY_FILES_S = 0.5

_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class ApiServer:
    """The daemon's API at one address. `open`, then `run` until cancelled, then `close`."""

    def __init__(
        self, daemon: Daemon, address: Address | None, *, token: str = "", required: bool = True
    ) -> None:
        """`required`: that nobody can listen there is an error; otherwise it is only said."""
        self._daemon = daemon
        self._address = address
        self._token = token
        self._required = required
        self._listener: Listener | None = None
        self._places = trio.Semaphore(CONNECTIONS)
        self._connections: set[trio.SocketStream] = set()
        self._serve: Callable[[Any], Any] | None = None
        self._preparing = trio.Lock()
        self._log = structlog.get_logger("logroute.api")

    def open(self) -> None:
        """Listen. Raises ListenError."""
        if self._address is None:
            self._log.warning(
                "there is no API: no folder for its socket",
                hint="give an address with --listen or api.listen",
            )
            return
        try:
            self._listener = Listener(self._address)
        except ListenError as error:
            if self._required:
                raise
            self._log.warning("there is no API", reason=str(error))

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()

    async def run(self) -> None:
        if self._listener is None:
            return
        async with trio.open_nursery() as nursery:
            for each in self._listener.sockets:
                nursery.start_soon(self._accept_on, trio.socket.from_stdlib_socket(each), nursery)
            try:
                await trio.sleep_forever()
            finally:
                # What hypercorn shields ends when there is no connection any more.
                for connection in self._connections:
                    with suppress(OSError):
                        connection.socket.shutdown(socket.SHUT_RDWR)

    async def _accept_on(self, listening: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        while True:
            await self._places.acquire()
            try:
                accepted, _ = await listening.accept()
            except OSError as error:
                self._places.release()
                if error.errno in _NO_DESCRIPTORS:
                    self._log.warning("the API cannot accept a connection", reason=error.strerror)
                    await trio.sleep(TOO_MANY_FILES_S)
                continue
            except BaseException:
                self._places.release()
                raise
            nursery.start_soon(self._connection, trio.SocketStream(accepted))

    async def _connection(self, stream: trio.SocketStream) -> None:
        self._connections.add(stream)
        try:
            serve = await self._prepared()
            with trio.CancelScope() as scope:
                await serve(_Bounded(stream, scope))
        except* Exception as errors:  # a peer, or what answers it, ends nothing but itself
            self._log.error("a connection to the API failed", exc_info=cause_of(errors))
        finally:
            self._connections.discard(stream)
            stream.socket.close()
            self._places.release()

    async def _prepared(self) -> Callable[[Any], Any]:
        """How a connection is served: imported with the first, beside the trio thread."""
        async with self._preparing:
            if self._serve is None:
                self._serve = await trio.to_thread.run_sync(self._prepare)
            return self._serve

    def _prepare(self) -> Callable[[Any], Any]:
        from hypercorn.app_wrappers import ASGIWrapper
        from hypercorn.config import Config
        from hypercorn.events import Event, RawData, Updated
        from hypercorn.trio.tcp_server import TCPServer
        from hypercorn.trio.worker_context import WorkerContext
        from hypercorn.typing import ConnectionState, LifespanState

        from logroute.api.app import make_app

        address = self._address
        assert address is not None
        # Any: both speak ASGI, but hypercorn has types of its own for its messages.
        application: Any = make_app(self._daemon, address, self._token)
        app: AppWrapper = ASGIWrapper(application)
        config = Config()
        config.errorlog = config.accesslog = None  # what fails is said in the daemon's own log
        config.include_server_header = False
        config.h11_max_incomplete_size = HEADER_BYTES
        config.keep_alive_timeout = REQUEST_WITHIN_S
        context = WorkerContext(None)

        class Connection(TCPServer):
            """Answers with as few turns of the scheduler as it can: behind each of them the batches of the
            routes may come first."""

            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                self._idle = trio.CancelScope()

            async def protocol_send(self, event: Event) -> None:
                bounded: Any = self.stream
                if isinstance(event, Updated):
                    # hypercorn ends a task here, or starts one.
                    self._idle.deadline = _without_request() if event.idle else math.inf
                elif not isinstance(event, RawData) or bounded.takes(event.data):
                    await super().protocol_send(event)

            async def _idle_timeout(self) -> None:
                self._idle.deadline = _without_request()
                with self._idle:
                    await trio.sleep_forever()
                with trio.CancelScope(shield=True):
                    await self._initiate_server_close()

            async def _read_data(self) -> None:
                # Any: neither name is of hypercorn's interface.
                http1: Any = self.protocol.protocol
                http1._check_protocol = _stays
                http1._send_error_response = partial(_refuse, http1)
                await super()._read_data()
                # hypercorn lets a connection that is closed wait for the end of its idle time.
                await self.idle_task.stop()

        def serve(stream: Any) -> Any:
            return Connection(app, config, context, ConnectionState(LifespanState()), stream).run()

        return serve


def _without_request() -> float:
    """Until when a connection may go on from now without a whole header."""
    return trio.current_time() + REQUEST_WITHIN_S


async def _stays(request: object) -> None:
    """HTTP/1.1 goes on, whatever a client offers.

    By HTTP/2 one connection has as many requests as it likes, and who does not read an answer is waited for
    before anything is sent: neither `CONNECTIONS` nor `SEND_WITHIN_S` would mean anything.
    """


_NO_REQUEST = {
    431: f"the header of the request is larger than {HEADER_BYTES} bytes",
    501: "a body is sent as it is, or chunked",
}


async def _refuse(http1: Any, status: int) -> None:
    """What is no request of HTTP/1.1 that makes sense is answered with a problem, too."""
    import h11

    from logroute.api.problems import MEDIA_TYPE, Problem

    text = _NO_REQUEST.get(status, "this is no request of HTTP/1.1, with one Host header")
    body = Problem(status, text).body()
    headers = [("content-type", MEDIA_TYPE), ("content-length", str(len(body))), ("connection", "close")]
    await http1._send_h11_event(h11.Response(status_code=status, headers=headers))
    await http1._send_h11_event(h11.Data(data=body))
    await http1._send_h11_event(h11.EndOfMessage())


class _Bounded:
    """A connection as hypercorn uses it, whose peer has only so much time to read what is sent.

    Then `scope` is cancelled, as where the peer is gone: hypercorn would answer what else was asked, and wait
    for more; and it tells what answers only once that nothing more comes.
    """

    def __init__(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        self.socket = stream.socket
        self.receive_some = stream.receive_some
        self.send_eof = stream.send_eof
        self.aclose = stream.aclose
        self._stream = stream
        self._scope = scope
        self._head = b""

    def takes(self, data: bytes) -> bool:
        """Whether there is something to send; the head of an answer of a known length waits for its body.

        hypercorn sends that at once, and at the end of each answer nothing. A stream's head does not wait.
        """
        if not self._head and data.startswith(b"HTTP/1.1 ") and b"\r\ncontent-length: " in data:
            self._head = data
            return False
        return bool(data or self._head)

    async def send_all(self, data: bytes) -> None:
        data, self._head = self._head + data, b""
        with trio.move_on_after(SEND_WITHIN_S) as attempt:
            try:
                await self._stream.send_all(data)
            except trio.BrokenResourceError:
                self._scope.cancel()
                raise
        if attempt.cancelled_caught:
            self._scope.cancel()
            raise trio.BrokenResourceError("the peer does not read")
