"""A receiver of the Forward protocol, version 1, written from its specification: msgpack decodes what comes.

It misbehaves as it is told. It serves on loopback, in a test's nursery or in a thread.
"""

from __future__ import annotations

import gzip
import hashlib
import ssl
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgpack
import trio

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


@dataclass(frozen=True, slots=True)
class Message:
    """One message in a PackedForward mode, as it came."""

    tag: str
    entries: list[tuple[int, dict[str, Any]]]
    """(nanoseconds since 1970, record) of each."""
    option: dict[str, Any]
    connection: int
    """Which of the connections, from 1."""


Behaviour = Callable[[Stream, Message], Awaitable[None]]
"""What follows a message. The connection stays open if it returns, and is closed if it raises Close."""


class Close(Exception):
    """The receiver closes the connection."""


async def acknowledge(stream: Stream, message: Message) -> None:
    await stream.send_all(msgpack.packb({"ack": message.option["chunk"]}))


async def close(_stream: Stream, _message: Message) -> None:
    raise Close


async def nothing(_stream: Stream, _message: Message) -> None:
    """Not a word."""


def say(data: bytes) -> Behaviour:
    async def behave(stream: Stream, _: Message) -> None:
        await stream.send_all(data)

    return behave


@dataclass
class ForwardReceiver:
    """Answers each message with the next of `behaviours`; when there are none, with its acknowledgement."""

    shared_key: str = ""
    users: dict[str, str] = field(default_factory=dict)
    hostname: str = "receiver"
    keepalive: bool = True
    context: ssl.SSLContext | None = None
    begin: Callable[[Stream], Awaitable[None]] | None = None
    """In the place of everything else."""
    pong: Callable[[list[Any]], object] = list
    """What becomes of a PONG."""
    messages: list[Message] = field(default_factory=list)
    behaviours: deque[Behaviour] = field(default_factory=deque)
    connections: int = 0
    closed: int = 0
    """Connections that have ended."""
    pings: list[list[Any]] = field(default_factory=list)
    port: int = 0
    _open: set[Stream] = field(default_factory=set)

    def records(self) -> list[dict[str, Any]]:
        return [record for message in self.messages for _, record in message.entries]

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, host="127.0.0.1")
            (listener,) = await nursery.start(serve, self._talk, self.port)
            self.port = listener.socket.getsockname()[1]
            task_status.started()

    async def close_connections(self) -> None:
        """As a receiver does with what is not used for long."""
        for stream in list(self._open):
            await trio.aclose_forcefully(stream)

    async def _talk(self, socket: trio.SocketStream) -> None:
        self.connections += 1
        stream: Stream = socket
        if self.context is not None:
            stream = trio.SSLStream(socket, self.context, server_side=True, https_compatible=True)
        self._open.add(stream)
        try:
            if self.begin is not None:
                await self.begin(stream)
                return
            objects = _Objects(stream)
            if self.shared_key:
                await self._shake_hands(stream, objects)
            number = self.connections
            while (each := await objects.next()) is not None:
                message = _message(each, number)
                self.messages.append(message)
                behave = self.behaviours.popleft() if self.behaviours else acknowledge
                await behave(stream, message)
        except (Close, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.closed += 1
            self._open.discard(stream)
            await trio.aclose_forcefully(stream)

    async def _shake_hands(self, stream: Stream, objects: _Objects) -> None:
        nonce, salt = b"\xff\x00 a nonce", b"\xfe a salt" if self.users else b""
        options = {"nonce": nonce, "auth": salt or "", "keepalive": self.keepalive}
        await stream.send_all(msgpack.packb(["HELO", options]))
        ping = await objects.next()
        assert isinstance(ping, list)
        self.pings.append(ping)
        kind, hostname, shared_key_salt, digest, username, password = ping
        assert kind == "PING"

        def sha512(*parts: bytes) -> str:
            return hashlib.sha512(b"".join(parts)).hexdigest()

        key = self.shared_key.encode()
        reason = ""
        if digest != sha512(shared_key_salt, hostname.encode(), nonce, key):
            reason = "shared_key mismatch"
        elif salt:
            known = self.users.get(username, "").encode()
            if not known or password != sha512(salt, username.encode(), known):
                reason = "username/password mismatch"
        proof = "" if reason else sha512(shared_key_salt, self.hostname.encode(), nonce, key)
        pong = ["PONG", not reason, reason, "" if reason else self.hostname, proof]
        await stream.send_all(msgpack.packb(self.pong(pong)))
        if reason:
            raise Close


class _Objects:
    """Whatever comes on a stream, one object after another."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._unpacker = msgpack.Unpacker(max_buffer_size=1 << 30)

    async def next(self) -> object:
        """None when the stream has ended."""
        while True:
            for each in self._unpacker:
                return each
            data = await self._stream.receive_some(1 << 16)
            if not data:
                return None
            self._unpacker.feed(data)


def _message(each: Any, connection: int) -> Message:
    """Takes a message apart; what the specification does not allow is an error."""
    tag, data, option = each
    assert isinstance(tag, str)
    assert isinstance(data, bytes)
    if option.get("compressed") == "gzip":
        data = gzip.decompress(data)
    unpacker = msgpack.Unpacker(max_buffer_size=1 << 30)
    unpacker.feed(data)
    entries = []
    for time, record in unpacker:
        assert isinstance(time, msgpack.ExtType)
        assert (time.code, len(time.data)) == (0, 8)
        seconds, nanoseconds = int.from_bytes(time.data[:4]), int.from_bytes(time.data[4:])
        assert nanoseconds < 10**9
        entries.append((seconds * 10**9 + nanoseconds, record))
    assert unpacker.tell() == len(data)
    assert option["size"] == len(entries)
    return Message(tag, entries, option, connection)


@contextmanager
def in_a_thread(receiver: ForwardReceiver) -> Iterator[None]:
    """Have it serve beside a test that has no nursery for it, or whose clock is not the world's."""
    ready = threading.Event()
    scope = trio.CancelScope()
    token: list[trio.lowlevel.TrioToken] = []

    async def main() -> None:
        token.append(trio.lowlevel.current_trio_token())
        with scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(receiver.serve)
                ready.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        token[0].run_sync_soon(scope.cancel)
        thread.join()
