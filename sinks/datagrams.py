"""Datagrams to a receiver: what was sent counts as delivered, because nobody says more.

A socket is connected to its peer, so that the kernel tells when nothing listens there (`ECONNREFUSED`; of UDP
by ICMP, RFC 1122, 4.1.3.3). That is told with a later datagram: which ones it means is not. A name may have
several addresses, on some of which nobody listens (`localhost` of a receiver that knows IPv4 only): where one
refuses, the next is used.
"""

from __future__ import annotations

import errno
import ipaddress
import math
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
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


SocketAddress = tuple[int, Any]
"""A family, and what a socket of it connects to."""


class Refusal(msgspec.Struct, frozen=True):
    """One of a receiver's addresses refused, and another is used."""

    address: str
    reason: str


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
        """How much of what was delivered before may be lost: nobody listened any more."""
        self.refusals: list[Refusal] = []
        """Addresses that are not used any more."""
        self._socket = socket
        self.peer = peer
        self._before = 0

    async def send(self, messages: Sequence[bytes], *, whole: bool = False) -> int:
        """Send them; how many had to be cut because the path takes no larger ones.

        Raises Retryable, and where they must stay `whole` TooLarge instead of cutting one.
        """
        await self.refresh()
        while True:
            try:
                return await self._send_all(messages, whole)
            except OSError as error:
                reason = cause_in_words(error)
                if not self._turn_to_next(reason):
                    raise Retryable(f"{self.peer}: cannot send: {reason}") from error

    async def _send_all(self, messages: Sequence[bytes], whole: bool) -> int:
        """Raises OSError, TooLarge."""
        shortened = 0
        for start in range(0, len(messages), TURN):
            try:
                for message in messages[start : start + TURN]:
                    if await self._send(message, whole):
                        shortened += 1
                if code := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(code, "")
            except OSError:
                if not start:  # else it means some of these, which are all sent again
                    self.unconfirmed += self._before
                self._before = 0
                raise
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

    def _turn_to_next(self, reason: str) -> bool:
        """Use another address instead of one that refuses, for this `reason`; whether there is one."""
        return False

    def close(self) -> None:
        self._socket.close()


def shortened_to(message: bytes, size: int) -> bytes:
    """The beginning of a message, never half of a character, with the mark that something is missing."""
    return message[: size - len(MARK)].decode("utf-8", "ignore").encode() + MARK


class UdpDatagrams(Datagrams):
    """By UDP, to one of a name's addresses: the first that does not refuse, as long as the name has it."""

    def __init__(self, peer: str, host: str, port: int, addresses: Sequence[SocketAddress]) -> None:
        """Raises OSError where there is no way to any of them."""
        made, self._address, self._refused = _first_connected(addresses, frozenset())
        super().__init__(made, peer)
        self._host, self._port, self._addresses = host, port, addresses
        # Invariant: `_refused` are those of `_addresses` that have refused since the name was looked up. None
        # is used twice in that time: where nobody listens at any, the refusal of the last must be an error.
        self._resolve_at = math.inf if _is_address(host) else trio.current_time() + RESOLVE_EVERY_S

    @classmethod
    async def open(cls, host: str, port: int, peer: str) -> UdpDatagrams:
        """Resolve the name, and have a socket for its first address. Raises Retryable."""
        with connecting(peer):
            return cls(peer, host, port, await _resolve(host, port))

    async def refresh(self) -> None:
        now = trio.current_time()
        if now < self._resolve_at:
            return
        self._resolve_at = now + RESOLVE_EVERY_S
        # A name server that is away, or does not answer, stops nothing: what is known is used on.
        with suppress(OSError, UnicodeError), trio.move_on_after(RESOLVE_WITHIN_S):
            found = await _resolve(self._host, self._port)
            if self._address not in found:
                self._use(*_first_connected(found, frozenset()))
            elif self._refused:  # which may listen by now, if this one refuses
                self._refused = frozenset()
            self._addresses = found

    def _turn_to_next(self, reason: str) -> bool:
        at = self._addresses.index(self._address)
        behind = [*self._addresses[at + 1 :], *self._addresses[:at]]
        try:
            made, address, refused = _first_connected(behind, self._refused | {self._address})
        except OSError:
            return False
        self.refusals.append(Refusal(str(self._address[1][0]), reason))
        self._use(made, address, refused)
        return True

    def _use(self, made: socket.socket, address: SocketAddress, refused: frozenset[SocketAddress]) -> None:
        self._socket.close()
        self._socket, self._address, self._refused = made, address, refused
        self.max_bytes = LARGEST_BYTES  # of the path to there nothing is known


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


def _first_connected(
    addresses: Sequence[SocketAddress], refused: frozenset[SocketAddress]
) -> tuple[socket.socket, SocketAddress, frozenset[SocketAddress]]:
    """A socket for the first of these that has not refused, that address, and now those that have.

    Raises OSError.
    """
    failure = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for address in addresses:
        if address in refused:
            continue
        try:
            return _connected(*address), address, refused
        except OSError as error:  # no way there: the host has no IPv6, a network is away
            failure = error
            refused |= {address}
    raise failure


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


async def _resolve(host: str, port: int) -> list[SocketAddress]:
    """All addresses of a name, each once, in the resolver's order. Raises OSError, UnicodeError."""
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))
