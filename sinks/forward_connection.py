"""A connection to a receiver that speaks the Forward protocol and acknowledges what it has.

Owns the socket, TLS around it, and the handshake with a shared key. Everything has a deadline: whatever the
receiver does, an attempt ends with words that name it and the reason.
"""

from __future__ import annotations

import select
import ssl
from collections.abc import Callable, Sequence

import trio

from logroute.sinks import Retryable, kernel_acknowledged
from logroute.sinks.failures import cause_in_words
from logroute.sinks.forward_protocol import (
    REPLY_BYTES,
    Handshake,
    Helo,
    Message,
    ProtocolError,
    Replies,
    acknowledged,
)
from logroute.sinks.streams import Opened, Stream, hand_over_at_once, open_stream, shaking_hands

PIECE_BYTES = 1 << 22
"""How much is sent before it counts that the receiver takes something."""


class Connection:
    """One connection, on which one `exchange` follows another."""

    def __init__(self, stream: Stream, socket: trio.socket.SocketType, peer: str) -> None:
        self.peer = peer
        """How people call it, for errors."""
        self.keepalive = True
        """Whether the receiver lets it be used for more than one exchange."""
        self.stream = stream
        self._replies = Replies()
        self._poll = select.poll()
        self._poll.register(socket.fileno(), select.POLLRDHUP)
        self._closed = False

    @classmethod
    async def connect(
        cls, host: str, port: int, peer: str, context: ssl.SSLContext | None, handshake: Handshake | None
    ) -> Connection:
        """Resolve the name, connect to the first address that answers, and shake hands. Raises Retryable."""
        opened = await open_stream(host, port, peer, context)
        hand_over_at_once(opened.socket)
        connection = cls(opened.stream, opened.socket, peer)
        try:
            if handshake is not None:
                with shaking_hands(peer, "the handshake with the `shared_key` is not finished"):
                    await connection._shake_hands(handshake)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _shake_hands(self, handshake: Handshake) -> None:
        try:
            helo = Helo.parse(await self._reply())
            if helo is None:
                raise ProtocolError("does not begin with a HELO")
            self.keepalive = helo.keepalive
            await self.stream.send_all(handshake.ping(helo))
            handshake.check(await self._reply())
        except ProtocolError as error:
            raise Retryable(f"{self.peer}: the receiver {error}") from error

    async def _reply(self) -> object:
        """The next reply of a handshake, in which each waits for the other's word."""
        while data := await self.stream.receive_some(REPLY_BYTES):
            replies = [*self._replies.feed(bytes(data))]
            if len(replies) > 1:
                raise self._replies.unexpected()
            if replies:
                return replies[0]
        raise ProtocolError("has closed the connection during the handshake: is the `shared_key` its own?")

    # --- deliveries -------------------------------------------------------------------------------------

    def usable(self) -> bool:
        """Whether the receiver is still there, as far as its kernel has said."""
        return not self._closed and not self._poll.poll(0)

    async def exchange(
        self, messages: Sequence[Message], settle: Callable[[bytes], None], silence_s: float
    ) -> None:
        """Send all messages, and hear all acknowledgements; `settle` is called with the chunk of each.

        Raises Retryable where one is missing: because the receiver ended, said something else, or did nothing
        for `silence_s`. Then, and when it is cancelled, the connection is closed.
        """
        attempt = _Exchange(self.stream, self._replies, messages, settle, silence_s)
        try:
            failure = await attempt.run()
        except BaseException:
            await self.close()
            raise
        if failure:
            await self.close()
            raise Retryable(f"{self.peer}: {failure}")

    async def without_acknowledgements(self) -> kernel_acknowledged.Connection:
        """The same connection for who asks for none: what the receiver's kernel has taken counts.

        Only without TLS. Raises Retryable if it has ended already.
        """
        assert isinstance(self.stream, trio.SocketStream)
        return await kernel_acknowledged.Connection.of(Opened(self.stream, self.stream.socket), self.peer)

    async def close(self) -> None:
        """At once: what counts is acknowledged. Never raises."""
        if not self._closed:
            self._closed = True
            await trio.aclose_forcefully(self.stream)


class _Exchange:
    """Messages on their way. What is said meanwhile is heard: else both sides might wait for room."""

    def __init__(
        self,
        stream: Stream,
        replies: Replies,
        messages: Sequence[Message],
        settle: Callable[[bytes], None],
        silence_s: float,
    ) -> None:
        self._stream = stream
        self._replies = replies
        # One copy of everything costs less than the wake-ups of more than one send.
        self._data = memoryview(b"".join([part for message in messages for part in message.parts]))
        self._count = len(messages)
        self._waiting = {message.chunk for message in messages}
        """Chunks that are not acknowledged yet."""
        self._settle = settle
        self._silence_s = silence_s
        self._silence = trio.CancelScope()
        self._sent = False

    async def run(self) -> str:
        """Why not everything is acknowledged; empty if it is."""
        failure = ""
        self._go_on()
        with self._silence:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send)
                failure = await self._hear()
                if failure:
                    nursery.cancel_scope.cancel()
        if self._silence.cancelled_caught:
            return f"{self._said_nothing()} for {self._silence_s:g} s"
        return failure

    def _go_on(self) -> None:
        """Something has moved."""
        self._silence.deadline = trio.current_time() + self._silence_s

    async def _send(self) -> None:
        try:
            for start in range(0, len(self._data), PIECE_BYTES):
                await self._stream.send_all(self._data[start : start + PIECE_BYTES])
                self._go_on()
            self._sent = True
        except trio.BrokenResourceError:
            pass  # whoever listens learns why, and what was acknowledged before

    async def _hear(self) -> str:
        """Until every chunk is acknowledged; else why not."""
        try:
            while self._waiting:
                data = await self._stream.receive_some(REPLY_BYTES)
                if not data:
                    return f"the receiver has closed the connection, and {self._not_acknowledged()}"
                for reply in self._replies.feed(bytes(data)):
                    self._take(reply)
                self._go_on()
        except ProtocolError as error:
            return f"the receiver {error}"
        except trio.BrokenResourceError as error:
            return f"the connection broke: {cause_in_words(error)}; {self._not_acknowledged()}"
        return ""

    def _take(self, reply: object) -> None:
        chunk = acknowledged(reply)
        if chunk is None:
            if Helo.parse(reply):
                raise ProtocolError("asks for a shared key: set `shared_key`")
            raise self._replies.unexpected()
        if chunk not in self._waiting:
            raise ProtocolError("acknowledges a chunk that it was not sent")
        self._waiting.remove(chunk)
        self._settle(chunk)

    def _not_acknowledged(self) -> str:
        return f"{len(self._waiting)} of {self._count} chunks are not acknowledged"

    def _said_nothing(self) -> str:
        if not self._sent:
            return "the receiver does not take what is sent"
        return f"the receiver is silent, and {self._not_acknowledged()},"
