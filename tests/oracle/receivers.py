"""Receivers of records over TCP and HTTP, real sockets on loopback, that misbehave when they are told to.

They note what they have *accepted*: what was read of a connection, which requests were answered with 2xx.
Where they withhold that from the daemon, or cut a connection, they note that it may send the same again.
"""

from __future__ import annotations

import math
import re
import socket
import struct
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Set
from contextlib import contextmanager
from random import Random
from typing import ClassVar

import h11
import msgspec
import trio

from tests.oracle.history import Delivery, History, Promise, RouteHistory, StreamName, Violation, during
from tests.oracle.records import Key

PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to outgoing connections: a port that is closed must stay free for us."""

KERNEL_BYTES = 32 * 1024
"""What is asked for as the receive buffer; the kernel makes it twice as large (socket(7))."""

SLOW_BYTES, SLOW_S = 1024, 0.1

HEARD_S = 2.0
"""What was accepted so shortly before a cut, or so soon after one that hung is well again, the daemon may not
have heard of: it had given up."""


class Cut(Exception):
    """The receiver ends this connection now."""

    def __init__(self, *, reset: bool = True) -> None:
        super().__init__()
        self.reset = reset
        """With RST; otherwise in order, with FIN."""


class Receiver(ABC):
    """Listens on one port for the life of its run; `mode` says how it behaves."""

    promise: ClassVar[Promise]
    modes: ClassVar[tuple[str, ...]]
    """How it can misbehave. The first five are connections', the same for all."""

    CONNECTION_MODES = ("refuse", "hang", "slow", "reset", "trickle")

    def __init__(self, name: str, history: History, random: Random) -> None:
        self.history = history
        self.books = history.routes[name] = RouteHistory(name, self.promise)
        self.mode = "well"
        self.port = 0
        self._random = random
        self._changed = trio.Event()
        self._turns = 0
        # What was accepted lately: a cut makes it unsure.
        self._recent: deque[Delivery] = deque()
        self._well_since = -math.inf

    @property
    @abstractmethod
    def uri(self) -> str:
        """As the route's sink."""

    # What it is told

    @contextmanager
    def misbehaving(self, mode: str) -> Iterator[None]:
        """Be so inside the block, and well again behind it. A route that trips over it has time to rise."""
        with during(self.books.disturbed, self.history.now):
            self._become(mode)
            try:
                yield
            finally:
                self._become("well")

    def _become(self, mode: str) -> None:
        self._doubt_recent()
        self.mode = mode
        self._well_since = self.history.now()
        event, self._changed = self._changed, trio.Event()
        event.set()

    # Connections

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; while it refuses, the port is closed and every connection reset."""
        listener = self._listen()
        task_status.started()
        while True:
            changed = self._changed
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.serve_listeners, self._serve, [listener])
                while self.mode != "refuse":
                    await changed.wait()
                    changed = self._changed
                nursery.cancel_scope.cancel()
            while self.mode == "refuse":
                await self._changed.wait()
            listener = self._listen()

    def _listen(self) -> trio.SocketListener:
        for port in [self.port] if self.port else self._random.sample(PORTS, 100):
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Inherited by what it accepts.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BYTES)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                listener.close()
                continue
            listener.listen(16)
            self.port = port
            self.books.cut_bytes = listener.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            return trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        raise OSError(f"{self.books.name}: no port is free")

    async def _serve(self, stream: trio.SocketStream) -> None:
        self._turns += 1
        cut: Cut | None = Cut()  # also when it is cancelled
        try:
            await self._converse(stream, self._turns)
            cut = None
        except Cut as asked:
            cut = asked
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            cut = Cut(reset=False)
        finally:
            if cut is not None:
                self.books.cuts += 1
                self._doubt_recent()
                if cut.reset:
                    # No lingering: what is unread is thrown away, and the peer gets an RST (socket(7)).
                    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.socket.close()

    @abstractmethod
    async def _converse(self, stream: trio.SocketStream, turn: int) -> None:
        """One connection, until its peer ends it. Raises Cut to end it at once."""

    async def _read(self, stream: trio.SocketStream) -> bytes:
        """The next bytes of a connection, as the mode of the moment has them; empty at its end."""
        if self.mode == "hang":
            await self._changed.wait()
            if self._random.random() < 0.5:
                raise Cut
        if self.mode == "slow":
            await trio.sleep(SLOW_S)
            return await stream.receive_some(SLOW_BYTES)
        if self.mode == "reset":
            await stream.receive_some(self._random.randrange(1, 5_000))
            raise Cut
        if self.mode == "trickle":
            await stream.receive_some(1)
            raise Cut(reset=False)
        return await stream.receive_some(64 * 1024)

    # What it accepts

    def _accepted(self, turn: int) -> Delivery:
        now = self.history.now()
        is_well = self.mode in ("well", "reject") and now > self._well_since + HEARD_S
        delivery = Delivery(turn, now, sure=is_well)
        self._recent.append(delivery)
        while self._recent[0].at < delivery.at - HEARD_S:
            self._recent.popleft()
        return delivery

    def _doubt_recent(self) -> None:
        now = self.history.now()
        for delivery in self._recent:
            if delivery.at >= now - HEARD_S:
                delivery.sure = False
        self._recent.clear()

    def _wrong(self, what: str) -> None:
        self.history.seen.append(Violation(self.books.name, "altered", what))


# --- TCP ----------------------------------------------------------------------------------------------

_LONGEST_COUNT = 10
# RFC 5424, 6: PRI VERSION TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG.
_SYSLOG = re.compile(
    rb"<\d{1,3}>1 (?:\S+ ){5}"
    rb'(?:-|(?:\[[^ =\]"]+(?: [^ =\]"]+="(?:[^"\\\]]|\\.)*")*\])+)'
    rb"(?: (?P<message>.*))?",
    re.DOTALL,
)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def cut_frames(data: bytes) -> tuple[list[bytes], bytes]:
    """Octet-counted frames (RFC 6587, 3.4.1), and the beginning of the next. Raises ValueError."""
    frames: list[bytes] = []
    start = 0
    while (space := data.find(b" ", start, start + _LONGEST_COUNT)) >= 0:
        count = data[start:space]
        if not count.isdigit():
            raise ValueError(f"{count[:20]!r} is no octet count")
        end = space + 1 + int(count)
        if end > len(data):
            return frames, data[start:]
        frames.append(data[space + 1 : end])
        start = end
    if len(data) - start >= _LONGEST_COUNT:
        raise ValueError(f"{data[start : start + 20]!r} begins with no octet count")
    return frames, data[start:]


class SyslogReceiver(Receiver):
    """RFC 5424 over plain TCP: what it has read, it has."""

    promise = "confirmed"
    modes = (*Receiver.CONNECTION_MODES, "nonsense")

    @property
    def uri(self) -> str:
        return f"syslog+tcp://127.0.0.1:{self.port}?format=rfc5424&max_size=1MiB"

    async def _converse(self, stream: trio.SocketStream, turn: int) -> None:
        rest = b""
        while data := await self._read(stream):
            delivery = self._accepted(turn)
            if self.mode == "nonsense":
                await stream.send_all(self._random.randbytes(20))
            try:
                frames, rest = cut_frames(rest + data)
            except ValueError as error:
                self._wrong(str(error))
                raise Cut from error
            for frame in frames:
                self._take(frame, delivery)

    def _take(self, frame: bytes, delivery: Delivery) -> None:
        match = _SYSLOG.fullmatch(frame)
        if match is None:
            self._wrong(f"no message of RFC 5424: {frame[:100]!r}")
            return
        text = (match["message"] or b"").removeprefix(_BYTE_ORDER_MARK).decode("utf-8", "replace")
        self.history.arrive(self.books.name, text, None, delivery)


# --- HTTP ---------------------------------------------------------------------------------------------

_NO_HTTP = (
    b"\x00\xff\xfe no HTTP\r\n\r\n",
    b"HTTP/1.1 banana\r\n\r\n",
    b"SSH-2.0-server\r\n",
    b"HTTP/1.1 200 O",
)

TOO_LARGE_BYTES = 32 * 1024
POISON = 97
"""While it rejects, one record in so many is bad."""


class _Container(msgspec.Struct):
    name: str


class _Line(msgspec.Struct):
    """A record as JSON (INTERFACE §3)."""

    message: str
    stream: str
    container: _Container


_decode = msgspec.json.Decoder(_Line).decode


class HttpReceiver(Receiver):
    """A server that takes ndjson: what it has answered with 204, it has."""

    promise = "at least once"
    modes = (*Receiver.CONNECTION_MODES, "fail", "nonsense", "busy", "reject")

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}/logs?encoding=ndjson"

    def __init__(self, name: str, history: History, random: Random) -> None:
        super().__init__(name, history, random)
        # Of what was refused as a whole: what has not been accepted yet, nor refused alone, and what has.
        self._outstanding: set[Key] = set()
        self._parts: list[Delivery] = []

    async def _converse(self, stream: trio.SocketStream, turn: int) -> None:
        parser = h11.Connection(h11.SERVER)
        while (body := await self._request(parser, stream)) is not None:
            self._turns += 1
            await self._answer(parser, stream, body, self._turns)
            parser.start_next_cycle()

    async def _request(self, parser: h11.Connection, stream: trio.SocketStream) -> bytes | None:
        """The next request's body; None where the client is done."""
        body = b""
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(await self._read(stream))
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return body
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                return None

    async def _answer(
        self, parser: h11.Connection, stream: trio.SocketStream, body: bytes, turn: int
    ) -> None:
        mode = self.mode
        if mode == "hang":
            await self._changed.wait()
            mode = "fail"
        lines = body.split(b"\n")
        if lines.pop():
            self._wrong(f"a body does not end with a newline: …{body[-100:]!r}")
        status, headers = 204, [("Content-Length", "0")]
        if mode == "fail":
            status = self._random.choice((500, 502, 503))
        elif mode == "busy":
            status, headers = 429, [*headers, ("Retry-After", "1")]
        elif mode == "reject" and self._refuses(lines):
            status = 413 if len(body) > TOO_LARGE_BYTES else 400
        elif mode == "nonsense":
            self._read_only(lines)
            await stream.send_all(self._random.choice(_NO_HTTP))
            raise Cut(reset=False)
        if mode == "fail" and self._random.random() < 0.5:
            self._read_only(lines)
            raise Cut
        if status == 204:
            delivery = self._accepted(turn)
            keys = {key for line in lines if (key := self._take(line, delivery))}
            if keys & self._outstanding:
                self._parts.append(delivery)
                self._finish_parts(keys)
        else:
            self._read_only(lines)
        headers = [] if status == 204 else headers  # RFC 9110, 8.6: no length with 204
        answer = parser.send(h11.Response(status_code=status, headers=headers))
        assert answer is not None
        await stream.send_all(answer + (parser.send(h11.EndOfMessage()) or b""))

    def _refuses(self, lines: list[bytes]) -> bool:
        """Whether a request cannot be taken as it is; remembers a record that is refused alone."""
        keys = self._read_only(lines)
        poisonous = [key for key in keys if key.number % POISON == 0]
        if len(lines) > 1:
            refused = bool(poisonous) or sum(map(len, lines)) > TOO_LARGE_BYTES
            if refused and not self._outstanding.issuperset(keys):
                self._finish_parts(self._outstanding)
                self._outstanding = set(keys)
            return refused
        self.books.refused.update(poisonous)
        if poisonous:
            self._finish_parts(set(poisonous))
        return bool(poisonous)

    def _finish_parts(self, keys: Set[Key]) -> None:
        """These are not outstanding any more."""
        self._outstanding = self._outstanding - keys
        for delivery in self._parts:
            delivery.done_at = math.inf if self._outstanding else self.history.now()
        if not self._outstanding:
            self._parts.clear()

    def _read_only(self, lines: list[bytes]) -> list[Key]:
        """Look whether records are whole, without accepting them."""
        return [key for line in lines if (key := self._take(line, None)) is not None]

    def _take(self, line: bytes, delivery: Delivery | None) -> Key | None:
        return take_json(self.history, self.books.name, line, delivery)


def take_json(history: History, route: str, line: bytes, delivery: Delivery | None) -> Key | None:
    """A record as a line of JSON, from wherever; which it is."""
    try:
        record = _decode(line)
    except msgspec.MsgspecError as error:
        what = f"no JSON of a record: {error}: {line[:100]!r} ({len(line)} bytes)"
        history.seen.append(Violation(route, "altered", what))
        return None
    said = StreamName(record.container.name, record.stream)
    return history.arrive(route, record.message, said, delivery)


RECEIVERS: dict[str, type[Receiver]] = {
    "web": HttpReceiver,
    "syslog": SyslogReceiver,
}
