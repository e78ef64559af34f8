"""Sockets that listen for the API. Nothing here awaits, and nothing of the web is imported."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from logroute.api.address import Address
from logroute.router.database import StateError

BACKLOG = 64
SOCKET_MODE = 0o660
"""The owner and the group may ask: whoever may, may drop dead letters too."""
FOLDER_MODE = 0o750
KEEP_IDLE_S = 60
UNREAD_MS = 20_000
"""The kernel ends a connection whose peer has acknowledged nothing for so long, where there is something."""


class ListenError(StateError):
    """Nobody can listen there; the text says why and what to do."""


class Listener:
    """Listening sockets; a unix socket's file is removed by `close`, if it is still ours."""

    def __init__(self, address: Address) -> None:
        """Raises ListenError."""
        self.address = address
        self._file: tuple[int, int] | None = None
        self.sockets = [self._unix()] if address.path else self._tcp()
        for each in self.sockets:
            each.setblocking(False)

    def close(self) -> None:
        for each in self.sockets:
            each.close()
        with suppress(OSError):
            if self._file is not None and _identity(self.address.path) == self._file:
                os.unlink(self.address.path)

    def _unix(self) -> socket.socket:
        """Listens before its file has its name: whoever sees the file can connect, if permitted."""
        path = Path(self.address.path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        begun = path.with_name(f".{os.getpid()}")
        try:
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True)
                path.parent.chmod(FOLDER_MODE)
            self._check_unused(path)
            with suppress(FileNotFoundError):
                begun.unlink()
            sock.bind(str(begun))
            begun.chmod(SOCKET_MODE)
            sock.listen(BACKLOG)
            self._file = _identity(begun)
            begun.rename(path)
        except OSError as error:
            sock.close()
            with suppress(OSError):
                begun.unlink()
            raise ListenError(
                f"the API cannot listen on {self.address}: {error.strerror or error}; "
                "give another address with --listen or api.listen"
            ) from error
        except BaseException:
            sock.close()
            raise
        return sock

    def _check_unused(self, path: Path) -> None:
        """What a daemon that was killed has left may be replaced. Raises ListenError for anything else."""
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise ListenError(
                f"the API cannot listen on {self.address}: there is a file that is no socket; "
                "remove it, or give another address"
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            failure = probe.connect_ex(str(path))
        if failure not in (errno.ECONNREFUSED, errno.ENOENT):
            # It answered, or its backlog is full, or we must not know.
            raise ListenError(
                f"the API cannot listen on {self.address}: another program does, probably another logroute; "
                "stop it, or give another address with --listen or api.listen"
            )

    def _tcp(self) -> list[socket.socket]:
        sockets: list[socket.socket] = []
        try:
            # A name may have several addresses (localhost has two); a number has itself.
            found = socket.getaddrinfo(
                self.address.host or None,
                self.address.port,
                type=socket.SOCK_STREAM,
                flags=socket.AI_PASSIVE,
            )
            for family, kind, protocol, _, place in dict.fromkeys(found):
                sock = socket.socket(family, kind, protocol)
                sockets.append(sock)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                # Connections have it from the socket that they came from.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
                # A peer that vanished while nothing was to be sent.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_IDLE_S)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_IDLE_S // 4)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(place)
                sock.listen(BACKLOG)
        except OSError as error:
            for sock in sockets:
                sock.close()
            raise ListenError(
                f"the API cannot listen on {self.address}: {error.strerror or error}; "
                "give another address with --listen or api.listen"
            ) from error
        return sockets


def _identity(path: Path | str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
