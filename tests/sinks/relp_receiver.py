"""A RELP receiver in threads, written from the protocol's description: it misbehaves as it is told."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

HEADER = re.compile(rb"(\d{1,9}) ([a-z]{1,32}) (\d{1,9})(?: |(?=\n))")

Behaviour = Callable[["RelpConnection", int, bytes], bytes | None]
"""What it answers to a message, given its number and text; None: it ends the connection."""


def accept(connection: RelpConnection, number: int, message: bytes) -> bytes | None:
    connection.receiver.messages.append(message)
    return b"%d rsp 6 200 OK\n" % number


class RelpReceiver:
    """Takes everything, and acknowledges each message at once; `behaviours` are of the next messages."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.messages: list[bytes] = []
        """What was accepted, in order."""
        self.behaviours: deque[Behaviour] = deque()
        self.opening: Callable[[int, bytes], bytes | None] = lambda number, offer: (
            b"%d rsp 7 200 OK\n\n" % number if b"commands=syslog" in offer else None
        )
        self.sessions = 0
        self.farewells = 0
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._connections: set[socket.socket] = set()
        self._closed = False
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.add(connection)
            # One after the other: what is left of an old one is older than what a new one brings.
            for thread in self._threads[1:]:
                thread.join()
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            RelpConnection(self, connection).run()
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()


class RelpConnection:
    def __init__(self, receiver: RelpReceiver, connection: socket.socket) -> None:
        self.receiver = receiver
        self.socket = connection
        self._data = b""

    def run(self) -> None:
        while (frame := self._frame()) is not None:
            number, command, data = frame
            answer = self._answer(number, command, data)
            if answer is None:
                return
            self.socket.sendall(answer)
            if command == b"close":
                return

    def _answer(self, number: int, command: bytes, data: bytes) -> bytes | None:
        if command == b"open":
            self.receiver.sessions += 1
            return self.receiver.opening(number, data)
        if command == b"close":
            self.receiver.farewells += 1
            return b"%d rsp 0\n0 serverclose 0\n" % number
        assert command == b"syslog"
        behaviours = self.receiver.behaviours
        return (behaviours.popleft() if behaviours else accept)(self, number, data)

    def _frame(self) -> tuple[int, bytes, bytes] | None:
        while True:
            found = HEADER.match(self._data)
            if found is not None and len(self._data) > (end := found.end() + int(found[3])):
                data, behind = self._data[found.end() : end], self._data[end : end + 1]
                assert behind == b"\n", self._data[:200]
                self._data = self._data[end + 1 :]
                return int(found[1]), found[2], data
            assert found is not None or len(self._data) < 100, self._data[:200]
            more = self.socket.recv(1 << 16)
            if not more:
                return None
            self._data += more
