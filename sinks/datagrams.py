"""Datagrams to a receiver: what was sent counts as delivered, because nobody says more.

A socket is connected to its peer, so that the kernel tells when nothing listens there (`ECONNREFUSED`; of UDP
by ICMP, RFC 1122, 4.1.3.3). That is told with a later datagram: which ones it means is not.
"""

from __future__ import annotations

import errno
import ipaddress
import math
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import trio

from logroute.sinks import Retryable
from logroute.sinks.failures import cause_in_words
from logroute.sinks.streams import connecting

RESOLVE_EVERY_S = 60.0
"""A name is looked up again after so long: datagrams go on to an address that nobody has any more."""
RESOLVE_WITHIN_S = 5.0
TURN = 64
"""So many datagrams are sent before others get their turn. What is told later than that means none before."""
LARGEST_BYTES = 65_507
"""What a datagram can hold (RFC 768, RFC 791)."""
LEAST_BYTES = 480
"""What every path and receiver takes (RFC 5426, 3.2)."""
MARK = b" [truncated]"
NO_BUFFER_S = 0.01
"""How long to wait where the interface's own queue is full."""

_NO_BUFFER = (errno.ENOBUFS, errno.ENOMEM)
_MTU = {socket.AF_INET: (socket.IPPROTO_IP, 14, 28), socket.AF_INET6: (socket.IPPROTO_IPV6, 24, 48)}
"""IP_MTU and IPV6_MTU (ip(7), ipv6(7)), and how much of it headers are."""


class WrongKind(Exception):
    """The socket at this path is one for streams."""


class TooLarge(Exception):
    """The path does not take a datagram of this size; `max_bytes` has been lowered."""


class Datagrams:
    """A socket that is connected to one receiver."""

    def __init__(self, socket: socket.socket, peer: str) -> None:
        self.max_bytes = LARGEST_BYTES
        """What the path is known to take at most."""
        self.unconfirmed = 0
        """Once `send` has failed: how much of what was delivered before may be lost as well."""
        self._socket = socket
        self._peer = peer
        self._before = 0

    async def send(self, messages: Sequence[bytes], *, whole: bool = False) -> int:
        """Send them; how many had to be cut because the path takes no larger ones.

        Raises Retryable, and where they must stay `whole` TooLarge instead of cutting one.
        """
        await self.refresh()
        shortened = 0
        for start in range(0, len(messages), TURN):
            try:
                for message in messages[start : start + TURN]:
                    if await self._send(message, whole):
                        shortened += 1
                if code := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(code, "")
            except OSError as error:
                self.unconfirmed = self._before if not start else 0
                raise Retryable(f"{self._peer}: cannot send: {cause_in_words(error)}") from error
            await trio.lowlevel.checkpoint()
        self._before = min(len(messages), TURN)
        return shortened

    async def _send(self, message: bytes, whole: bool) -> bool:
        """Whether it had to be cut. Raises OSError, TooLarge."""
        cut = False
        while True:
            if len(message) > self.max_bytes:
                if whole:
                    raise TooLarge
                message, cut = shortened_to(message, self.max_bytes), True
            try:
                self._socket.send(message)
                return cut
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)
            except OSError as error:
                if error.errno in _NO_BUFFER:
                    await trio.sleep(NO_BUFFER_S)
                elif error.errno == errno.EMSGSIZE and len(message) > LEAST_BYTES:
                    self.max_bytes = max(LEAST_BYTES, min(self._path_bytes(), len(message) // 2))
                else:
                    raise

    def _path_bytes(self) -> int:
        """What the path takes, as far as the kernel knows."""
        if self._socket.family not in _MTU:
            return LARGEST_BYTES
        level, option, headers = _MTU[self._socket.family]
        try:
            return self._socket.getsockopt(level, option) - headers
        except OSError:
            return LARGEST_BYTES

    async def refresh(self) -> None:
        """Follow a receiver that has moved."""

    def close(self) -> None:
        self._socket.close()


def shortened_to(message: bytes, size: int) -> bytes:
    """The beginning of a message, never half of a character, with the mark that something is missing."""
    return message[: size - len(MARK)].decode("utf-8", "ignore").encode() + MARK


class UdpDatagrams(Datagrams):
    """By UDP."""

    def __init__(self, socket: socket.socket, peer: str, host: str, port: int, address: Any) -> None:
        super().__init__(socket, peer)
        self._host, self._port, self._address = host, port, address
        self._resolve_at = math.inf if _is_address(host) else trio.current_time() + RESOLVE_EVERY_S

    @classmethod
    async def open(cls, host: str, port: int, peer: str) -> UdpDatagrams:
        """Resolve the name, and have a socket for its first address. Raises Retryable."""
        with connecting(peer):
            family, address = await _resolve(host, port)
            made = _connected(family, address)
        return cls(made, peer, host, port, address)

    async def refresh(self) -> None:
        now = trio.current_time()
        if now < self._resolve_at:
            return
        self._resolve_at = now + RESOLVE_EVERY_S
        # A name server that is away, or does not answer, stops nothing: what is known is used on.
        with suppress(OSError, UnicodeError), trio.move_on_after(RESOLVE_WITHIN_S):
            family, address = await _resolve(self._host, self._port)
            if address != self._address:
                made = _connected(family, address)
                self._socket.close()
                self._socket, self._address, self.max_bytes = made, address, LARGEST_BYTES


class UnixDatagrams(Datagrams):
    """To a socket in the file system, such as /dev/log."""

    @classmethod
    async def open(cls, path: str, peer: str) -> UnixDatagrams:
        """Raises Retryable, and WrongKind where the socket takes no datagrams."""
        with connecting(peer):
            try:
                return cls(_connected(socket.AF_UNIX, path), peer)
            except OSError as error:
                if error.errno == errno.EPROTOTYPE:
                    raise WrongKind from error
                raise


def _connected(family: int, address: Any) -> socket.socket:
    """A socket for datagrams to there. Does not wait. Raises OSError."""
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


async def _resolve(host: str, port: int) -> tuple[int, Any]:
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    family, _, _, _, address = found[0]
    return family, address
