"""Sockets that take datagrams, and one of a path that takes small ones only; for tests."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any


class Inbox:
    """Datagrams that have come."""

    def __init__(self, made: socket.socket) -> None:
        made.settimeout(10)
        self.socket = made

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def take(self, count: int) -> list[bytes]:
        return [self.socket.recv(1 << 16) for _ in range(count)]


@contextmanager
def udp_socket() -> Iterator[socket.socket]:
    """One of this host, with room for what a test sends."""
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as made:
        made.bind(("127.0.0.1", 0))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        yield made


class Narrow:
    """A socket of a path that takes 600 bytes, and whose kernel does not know it."""

    family = socket.AF_UNIX

    def __init__(self, real: socket.socket) -> None:
        self._real = real

    def send(self, data: bytes) -> int:
        if len(data) > 600:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        return self._real.send(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
