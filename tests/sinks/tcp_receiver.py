"""A TCP receiver in a thread: it keeps what each connection has brought, and misbehaves as it is told."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from collections.abc import Callable
from queue import SimpleQueue

NO_LINGER = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing sends a reset, whatever there is to send or to read."""


class TcpReceiver:
    """Reads everything at once. A plain thread, so that no test's clock and no patch reaches it."""

    def __init__(self, buffer_bytes: int = 0) -> None:
        self._buffer_bytes = buffer_bytes
        self.received: list[bytearray] = []
        """What each connection has brought, in the order in which they came."""
        self._port = 0
        self._reading = True
        self._rude = False
        self._connections: dict[socket.socket, bytearray] = {}
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._listener: socket.socket | None = None
        self._listen()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._port

    @property
    def connections(self) -> int:
        """That are open."""
        return len(self._connections)

    # --- what it is told ------------------------------------------------------------------------------

    def settle(self) -> None:
        """Return when everything is read that has come so far."""
        self._do(self._read_all)

    def refuse(self) -> None:
        """Reset all connections and take no others, until `accept`. What has come is read before."""

        def job() -> None:
            self._read_all()
            for connection in list(self._connections):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                self._forget(connection)
            assert self._listener is not None
            self._forget(self._listener)
            self._listener = None

        self._do(job)

    def accept(self) -> None:
        """Take connections again, on the same port."""
        self._do(self._listen)

    def stop_reading(self) -> None:
        """Leave everything where it is, in the kernel; connections are taken on."""
        self._do(lambda: self._read(False))

    def read_on(self) -> None:
        self._do(lambda: self._read(True))

    def be_rude(self, rude: bool = True) -> None:
        """Close each connection once it has brought a byte; what else has come is never read."""

        def job() -> None:
            self._rude = rude

        self._do(job)

    def say(self, data: bytes) -> None:
        """To everybody."""

        def job() -> None:
            for connection in self._connections:
                connection.send(data)

        self._do(job)

    def reset(self) -> None:
        """Reset all connections; what was not read is lost."""

        def job() -> None:
            for connection in list(self._connections):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                self._forget(connection)

        self._do(job)

    def close_all(self) -> None:
        """Close all connections, whatever is unread."""

        def job() -> None:
            for connection in list(self._connections):
                self._forget(connection)

        self._do(job)

    def hang_up(self) -> None:
        """Close all connections, with everything read that has come so far."""

        def job() -> None:
            self._read_all()
            for connection in list(self._connections):
                self._forget(connection)

        self._do(job)

    def shut_down(self) -> None:
        """Say that there is nothing to come, then close all connections, whatever is unread."""

        def job() -> None:
            for connection in list(self._connections):
                connection.shutdown(socket.SHUT_RDWR)
                self._forget(connection)

        self._do(job)

    def close(self) -> None:
        self._jobs.put(None)
        self._wake.send(b".")
        self._thread.join()
        for each in (*self._connections, self._listener, self._wake, self._woken):
            if each is not None:
                each.close()
        self._selector.close()

    # --- the thread -----------------------------------------------------------------------------------

    def _do(self, job: Callable[[], None]) -> None:
        done = threading.Event()

        def work() -> None:
            job()
            done.set()

        self._jobs.put(work)
        self._wake.send(b".")
        assert done.wait(30)

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    self._woken.recv(1)
                    if (job := self._jobs.get()) is None:
                        return
                    job()
                    break  # which of the others are still there is not known
                self._take(key.fileobj)  # type: ignore[arg-type]  # all are sockets

    def _read_all(self) -> None:
        while ready := [key for key, _ in self._selector.select(0) if key.fileobj is not self._woken]:
            for key in ready:
                self._take(key.fileobj)  # type: ignore[arg-type]

    def _take(self, from_: socket.socket) -> None:
        if from_ is self._listener:
            connection, _ = from_.accept()
            connection.setblocking(False)
            self._connections[connection] = bytearray()
            self.received.append(self._connections[connection])
            if self._reading:
                self._selector.register(connection, selectors.EVENT_READ)
            return
        try:
            data = from_.recv(1 if self._rude else 1 << 20)
        except OSError:
            data = b""
        self._connections[from_] += data
        if self._rude or not data:
            self._forget(from_)

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        if self._buffer_bytes:  # connections inherit it
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)
        self._port = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _forget(self, each: socket.socket) -> None:
        if each is self._listener or self._reading:
            self._selector.unregister(each)
        self._connections.pop(each, None)
        each.close()

    def _read(self, reading: bool) -> None:
        if reading != self._reading:
            self._reading = reading
            for connection in self._connections:
                if reading:
                    self._selector.register(connection, selectors.EVENT_READ)
                else:
                    self._selector.unregister(connection)
