"""Streams to receivers: a name resolved, a connection made, TLS agreed on, with deadlines and with words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec
import trio

from logroute.sinks import Retryable
from logroute.sinks.failures import cause_in_words

if TYPE_CHECKING:
    import ssl  # OpenSSL is loaded where TLS is spoken

CONNECT_S = 10.0
"""How long connecting may take, names included."""
HANDSHAKE_S = 10.0
"""How long a handshake may take."""
UNSENT_BYTES = 4 << 20
"""How much the kernel takes that it cannot send yet. With the 16 KiB that trio sets, for data that ages, a
delivery takes a dozen wake-ups instead of two or three, and a tenth more CPU."""

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class Opened(msgspec.Struct, frozen=True):
    """A stream, and the socket below it."""

    stream: Stream
    socket: trio.socket.SocketType


async def open_stream(host: str, port: int, peer: str, context: ssl.SSLContext | None = None) -> Opened:
    """Resolve the name anew, connect to the first address that answers, and with a context agree on TLS.

    `peer` is how people call the receiver, for errors. Raises Retryable.
    """
    with connecting(peer):
        tcp = await trio.open_tcp_stream(host, port)
    if context is None:
        return Opened(tcp, tcp.socket)
    from logroute.sinks.tls_records import WholeReads

    context.sslobject_class = WholeReads
    # A receiver that ends without TLS's farewell has ended all the same.
    stream = trio.SSLStream(tcp, context, server_hostname=name_in_tls(host), https_compatible=True)
    try:
        with shaking_hands(peer, "the TLS handshake is not finished"):
            await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return Opened(stream, tcp.socket)


def name_in_tls(host: str) -> str:
    """A host's name as certificates have it: without the dot that makes it absolute (RFC 6066, 3)."""
    return host.removesuffix(".")


async def open_unix_stream(path: str, peer: str) -> Opened:
    """Connect to a socket in the file system. Raises Retryable."""
    with connecting(peer):
        stream = await trio.open_unix_socket(path)
    return Opened(stream, stream.socket)


def hand_over_at_once(socket: trio.socket.SocketType) -> None:
    """What is sent on it goes to the kernel in few pieces: for deliveries, of which nothing ages."""
    with suppress(OSError):  # not everywhere, and the connection may have ended already
        socket.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


@contextmanager
def connecting(peer: str) -> Iterator[None]:
    """Raise Retryable for whatever keeps us from connecting, or takes too long."""
    try:
        with trio.fail_after(CONNECT_S):
            yield
    except trio.TooSlowError as error:
        raise Retryable(f"{peer}: not connected within {CONNECT_S:g} s") from error
    except (OSError, UnicodeError) as error:  # the latter of a name that none can be
        raise Retryable(f"{peer}: cannot connect: {cause_in_words(error)}") from error


@contextmanager
def shaking_hands(peer: str, late: str) -> Iterator[None]:
    """Raise Retryable for whatever fails in a handshake, or takes too long."""
    import ssl

    try:
        with trio.fail_after(HANDSHAKE_S):
            yield
    except trio.TooSlowError as error:
        raise Retryable(f"{peer}: {late} after {HANDSHAKE_S:g} s") from error
    except (trio.BrokenResourceError, ssl.CertificateError) as error:
        raise Retryable(f"{peer}: cannot connect: {cause_in_words(error)}") from error
