"""Client of the Docker Engine API, native to trio: one-shot calls, events, and the raw streams of logs.

Speaks HTTP/1 over a unix socket, TCP or TLS, a connection for every call, as calls are rare; where many come
at once they share connections (`Engine.many`). What Podman's docker-compatible API does otherwise is evened
out here. Reading logs out of the raw stream is `frames` and `engine_logs`.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import h11
import msgspec
import trio

from logroute.router.record import Image, Origin
from logroute.router.times import http_date_s
from logroute.sources.engine_address import AddressError, EngineAddress
from logroute.sources.engine_answers import (
    ContainerDetails,
    ContainerSummary,
    EngineInfo,
    EngineVersion,
    ErrorAnswer,
    Event,
    decode_event,
)

# Newest version whose answers this module was written for; an engine that is older gets its own.
NEWEST_API = (1, 47)
# Where a server does not say which it speaks; moby has said it since 1.25.
UNKNOWN_API = (1, 24)

DEADLINE_S = 30.0
# Between two attempts at an engine that is away: twice as long each time.
RETRY_FIRST_S = 0.5
RETRY_MAX_S = 15.0
AT_ONCE = 8
# An inspect is some 10 KiB, a list of 10,000 containers some 20 MiB.
ANSWER_LIMIT_BYTES = 8 << 20
LIST_LIMIT_BYTES = 64 << 20
_READ_BYTES = 64 << 10

# `died` and `remove` are what Podman calls `die` and `destroy`; filtering by unknown names harms nowhere.
CONTAINER_EVENTS: Mapping[str, Sequence[str]] = {
    "type": ("container",),
    "event": (
        *("create", "start", "restart", "die", "destroy", "rename", "pause", "unpause", "update"),
        *("died", "remove"),
    ),
}

NETWORK_ERRORS = (
    OSError,  # ssl.SSLError is one
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    h11.RemoteProtocolError,
)

AnswerT = TypeVar("AnswerT")
T = TypeVar("T")


class EngineError(Exception):
    """What went wrong between us and the engine: what was tried, where, what answered, what to do."""


class EngineAway(EngineError):
    """The engine cannot be reached, or the connection broke: try again later."""


class EngineRefused(EngineError):
    """The engine answered, and it is no: the same call will fail again.

    `status` is HTTP's, or 0 where the answer itself is unusable (too large, no JSON); `message` is the
    engine's own.
    """

    def __init__(self, text: str, status: int, message: str) -> None:
        super().__init__(text)
        self.status = status
        self.message = message

    @property
    def gone(self) -> bool:
        """The container does not exist any more, or is being removed."""
        return self.status in (404, 409)

    @property
    def unreadable(self) -> bool:
        """Its logging driver cannot be read."""
        return self.status in (500, 501) and "driver" in self.message


class Engine:
    """One engine. Calls may run side by side, each on its connection; one-shot calls have a deadline."""

    def __init__(self, address: EngineAddress, *, deadline_s: float = DEADLINE_S) -> None:
        self.address = address
        self.deadline_s = deadline_s
        self.runtime = "docker"
        """`docker` or `podman`; known once anything was asked."""
        # Negotiated by the first call, and again after the engine was away: it may have been upgraded.
        self._api: tuple[int, int] | None = None
        self._clock_ahead_ns = 0
        self._kept: list[_Connection] | None = None
        """Those that the next calls use; None where none are kept."""

    @property
    def api_version(self) -> str:
        """What was negotiated; empty before."""
        return "" if self._api is None else "{}.{}".format(*self._api)

    def now_ns(self) -> int:
        """The engine's clock, as well as its answers tell it (to a second or two)."""
        return time.time_ns() + self._clock_ahead_ns

    @property
    def clock_error_ns(self) -> int:
        """By how much less `now_ns` may go on than time does, although nobody has set a clock."""
        return 3 * 10**9 if self._clock_ahead_ns else 20 * 10**6

    # --- one-shot calls -----------------------------------------------------------------------------

    @asynccontextmanager
    async def many(self) -> AsyncIterator[None]:
        """Within the block one-shot calls keep their connections for the next: for thousands of containers
        that is a third of what asking costs, and over TLS most of it."""
        kept = self._kept
        if kept is not None:  # somebody does it already
            yield
            return
        kept = self._kept = []
        try:
            yield
        finally:
            self._kept = None
            with trio.CancelScope(shield=True):
                for connection in kept:
                    await trio.aclose_forcefully(connection.stream)

    async def ping(self) -> None:
        """Whether it answers; negotiates the API version."""
        with self._deadline("/_ping"):
            async with self._exchange("/_ping", once=True) as response:
                if response.status != HTTPStatus.OK:
                    raise await self._refusal(response, "/_ping")
                await response.body(ANSWER_LIMIT_BYTES)
        self.runtime = "podman" if "libpod-api-version" in response.headers else "docker"
        self._api = min(NEWEST_API, _version(response.headers.get("api-version", "")) or UNKNOWN_API)

    async def version(self) -> EngineVersion:
        return await self._get("/version", EngineVersion)

    async def info(self) -> EngineInfo:
        return await self._get("/info", EngineInfo)

    async def containers(
        self, *, all: bool = True, filters: Mapping[str, Sequence[str]] | None = None
    ) -> list[ContainerSummary]:
        """What containers there are, those that do not run included."""
        query = {"all": "1" if all else "0", **_filters(filters)}
        return await self._get("/containers/json", list[ContainerSummary], query, LIST_LIMIT_BYTES)

    async def inspect(self, id: str) -> ContainerDetails:
        """Everything about one container, by id or name."""
        return await self._get(f"/containers/{quote(id, safe='')}/json", ContainerDetails)

    async def _get(
        self,
        path: str,
        type: type[AnswerT],
        query: Mapping[str, str] | None = None,
        limit_bytes: int = ANSWER_LIMIT_BYTES,
    ) -> AnswerT:
        with self._deadline(path):
            async with self._call(path, query, once=True) as response:
                body = await response.body(limit_bytes)
        try:
            return msgspec.json.decode(body, type=type)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise EngineRefused(
                f"GET {path} at the engine {self.address}: what answered is not an engine's JSON ({error}); "
                "does something else listen there?",
                0,
                str(error),
            ) from error

    # --- streams ------------------------------------------------------------------------------------

    @asynccontextmanager
    async def events(
        self,
        *,
        since_ns: int | None = None,
        filters: Mapping[str, Sequence[str]] = CONTAINER_EVENTS,
    ) -> AsyncIterator[EventStream]:
        """Subscribe; inside the block iterate over events as they come. EngineAway when the stream ends.

        The engine answers before it has subscribed, so without `since_ns` it is asked for what happened since
        the second before: those events come again, but none is missed by whoever lists from now on.
        """
        if since_ns is None:
            # Its own clock, which only a fresh answer tells.
            await self.ping()
            since_ns = self.now_ns() - 2 * 10**9
        query = {"since": _timestamp(since_ns), **_filters(filters)}
        async with self._call("/events", query, head_deadline_s=self.deadline_s) as response:
            yield EventStream(response)

    @asynccontextmanager
    async def logs(
        self,
        id: str,
        *,
        follow: bool,
        since_ns: int = 0,
        tail: int | None = None,
    ) -> AsyncIterator[LogStream]:
        """The raw log of a container, both streams, with times.

        `LogStream.receive` gives bytes as they come and b"" at the end, which says nothing of why it ended:
        the request is HTTP/1.0, which spares the engine a chunk per line and us taking them apart, but has no
        mark for the end.
        """
        query = {"stdout": "1", "stderr": "1", "timestamps": "1", "follow": "1" if follow else "0"}
        if since_ns > 0:
            query["since"] = _timestamp(since_ns)
        if tail is not None:
            query["tail"] = str(tail)
        path = f"/containers/{quote(id, safe='')}/logs"
        # Podman sends the head of a silent container's log with its first line.
        deadline_s = None if follow else self.deadline_s
        async with self._call(path, query, http10=True, head_deadline_s=deadline_s) as response:
            yield LogStream(response)

    # --- HTTP ---------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _call(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        once: bool = False,
        http10: bool = False,
        head_deadline_s: float | None = None,
    ) -> AsyncIterator[_Response]:
        """GET with the negotiated version; the block gets a response that is a success."""
        if self._api is None:
            await self.ping()
        target = f"/v{self.api_version}{path}"
        if query:
            target += "?" + urlencode(query)
        asked = self._exchange(target, once=once, http10=http10, head_deadline_s=head_deadline_s)
        async with asked as response:
            if response.status >= 300:
                refusal = await self._refusal(response, path)
                if response.status == HTTPStatus.BAD_REQUEST and "version" in refusal.message:
                    self._api = None  # another engine listens there now: the next call negotiates again
                raise refusal
            yield response

    @asynccontextmanager
    async def _exchange(
        self,
        target: str,
        *,
        once: bool = False,
        http10: bool = False,
        head_deadline_s: float | None = None,
    ) -> AsyncIterator[_Response]:
        """Connect, ask, read the head of the answer. With the block the connection ends, or is kept."""
        # Deadlines of their own, none around the yield: the caller may stay in the block for ever.
        keep = once and self._kept is not None
        connection: _Connection | None = None
        try:
            while True:
                connection = await self._connection(target, keep=keep)
                response = _Response(self, connection, target)
                with self._deadline(target, head_deadline_s):
                    try:
                        path = self.address.prefix + target
                        await response.ask(self.address, path, keep=keep, http10=http10)
                        break
                    except EngineAway:
                        # A server may end an idle connection at any time: that is no answer to this.
                        if connection.fresh:
                            raise
                await trio.aclose_forcefully(connection.stream)
            self._learn_clock(response.headers.get("date", ""))
            yield response
            if keep and self._kept is not None and connection.ready_for_more():
                self._kept.append(connection)
                connection = None
        finally:
            if connection is not None:
                await trio.aclose_forcefully(connection.stream)

    async def _connection(self, target: str, *, keep: bool) -> _Connection:
        """One that was kept, or a new one."""
        if keep and self._kept:
            return self._kept.pop()
        with self._deadline(target):
            try:
                return _Connection(await self.address.connect())
            except (*NETWORK_ERRORS, AddressError) as error:
                raise self.away(target, error) from error

    @contextmanager
    def _deadline(self, target: str, seconds: float | None = 0.0) -> Iterator[None]:
        """Turn slowness into EngineAway; 0 is the deadline of one-shot calls, None is for ever."""
        if seconds == 0.0:
            seconds = self.deadline_s
        try:
            with trio.fail_after(float("inf") if seconds is None else seconds):
                yield
        except trio.TooSlowError:
            raise EngineAway(
                f"GET {target.partition('?')[0]} at the engine {self.address}: no answer within {seconds:g} s"
            ) from None

    def away(self, target: str, raised: Exception) -> EngineAway:
        """What the network raised, as EngineAway, with what to do about it."""
        self._api = None
        error = _innermost(raised)
        text = f"GET {target.partition('?')[0]} at the engine {self.address}: {_said(error)}"
        hint = self.address.hint(error)
        return EngineAway(f"{text}; {hint}" if hint else text)

    async def _refusal(self, response: _Response, path: str) -> EngineRefused:
        body = await response.body(ANSWER_LIMIT_BYTES)
        try:
            message = msgspec.json.decode(body, type=ErrorAnswer).message
        except (msgspec.MsgspecError, UnicodeDecodeError):
            message = body[:500].decode("utf-8", "replace")
        message = message.strip() or HTTPStatus(response.status).phrase
        text = f"GET {path} at the engine {self.address}: {response.status}, {message}"
        return EngineRefused(text, response.status, message)

    def _learn_clock(self, date: str) -> None:
        try:
            said_ns = http_date_s(date) * 10**9
        except ValueError:
            return
        ahead_ns = said_ns - time.time_ns()
        # The header has whole seconds, cut off: less than two is no difference.
        self._clock_ahead_ns = ahead_ns if abs(ahead_ns) > 2 * 10**9 else 0


class _Connection:
    """A connection, and how far HTTP on it is."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.http = h11.Connection(h11.CLIENT)
        self.fresh = True
        """Nothing has been asked on it before."""

    def ready_for_more(self) -> bool:
        """Whether the answer was read to its end, and the server takes another request."""
        if self.http.our_state is not h11.DONE or self.http.their_state is not h11.DONE:
            return False
        self.http.start_next_cycle()
        self.fresh = False
        return True


class _Response:
    """One exchange on a connection."""

    def __init__(self, engine: Engine, connection: _Connection, target: str) -> None:
        self.engine = engine
        self.target = target
        self._stream = connection.stream
        self.status = 0
        self.headers: dict[str, str] = {}
        self._http = connection.http

    async def ask(self, address: EngineAddress, target: str, *, keep: bool, http10: bool) -> None:
        """Send the request and read the head of the answer."""
        headers = [
            ("Host", address.authority),
            ("User-Agent", "logroute"),
            ("Accept", "application/json, */*"),
        ]
        if not keep:
            headers.append(("Connection", "close"))
        request = self._http.send(h11.Request(method="GET", target=target, headers=headers)) or b""
        request += self._http.send(h11.EndOfMessage()) or b""
        if http10:
            request = request.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)  # h11 writes only the newer
        try:
            await self._stream.send_all(request)
        except NETWORK_ERRORS as error:
            raise self.engine.away(self.target, error) from error
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Response):
                self.status = event.status_code
                self.headers = {
                    name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers
                }
                return

    @property
    def raw(self) -> bytes | None:
        """What came behind the head, if from there on the connection holds the body and nothing else."""
        if "transfer-encoding" in self.headers or "content-length" in self.headers:
            return None
        return self._http.trailing_data[0]

    async def read(self) -> bytes:
        """Some more of the body; empty at its end. EngineAway if it is cut, where HTTP can tell."""
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Data):
                if event.data:
                    return bytes(event.data)
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                return b""

    async def body(self, limit_bytes: int) -> bytearray:
        """All of the body. Raises EngineRefused if that is more than the limit."""
        body = bytearray()
        while data := await self.read():
            body += data
            if len(body) > limit_bytes:
                raise EngineRefused(
                    f"the engine's answer is larger than {limit_bytes >> 20} MiB: not read", 0, "too large"
                )
        return body

    async def receive(self, max_bytes: int) -> bytes | bytearray:
        """From the connection itself."""
        try:
            return await self._stream.receive_some(max_bytes)
        except NETWORK_ERRORS as error:
            raise self.engine.away(self.target, error) from error

    async def _next_event(self) -> Any:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(bytes(await self.receive(_READ_BYTES)))
        except h11.RemoteProtocolError as error:
            raise self.engine.away(self.target, error) from error
        return event


class EventStream:
    """The body of one `/events` answer: iterate over it."""

    def __init__(self, response: _Response) -> None:
        self._response = response
        self._rest = b""
        self._events: deque[Event] = deque()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        """The next event. Never ends but by EngineAway: an engine that is there does not end it."""
        while not self._events:
            data = await self._response.read()
            *lines, self._rest = (self._rest + data).split(b"\n")
            if not data or len(self._rest) > ANSWER_LIMIT_BYTES:
                raise EngineAway(f"the engine {self._response.engine.address} ended the stream of events")
            self._events.extend(event for line in lines if (event := decode_event(line)) is not None)
        return self._events.popleft()


class LogStream:
    """The body of one `/logs` answer."""

    def __init__(self, response: _Response) -> None:
        self._response = response
        self._begun = response.raw
        self._direct = self._begun is not None
        """The body is read straight from the connection, not through h11."""
        self.content_type = response.headers.get("content-type", "")

    async def receive(self, max_bytes: int) -> bytes:
        """What has come, at most about so much; waits if nothing has; empty at the end."""
        if not self._direct:
            return await self._response.read()
        if self._begun:
            data, self._begun = self._begun, None
            return data
        return bytes(await self._response.receive(max_bytes))


async def share(work: Callable[[T], Awaitable[None]], items: Sequence[T]) -> None:
    """Some tasks share the work on these items; the engine's first error ends it, and is raised as it is."""
    rest = iter(items)
    errors: list[EngineError] = []

    async def take() -> None:
        try:
            for item in rest:
                await work(item)
        except EngineError as error:
            errors.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for _ in range(min(AT_ONCE, len(items))):
            nursery.start_soon(take)
    if errors:
        raise errors[0]


def origin_from(
    details: ContainerDetails, *, source: str, host: str, runtime: str, env: Collection[str] = ()
) -> Origin:
    """The origin that stands for a container from now on (until it is renamed).

    Of its environment it has the variables of these names and no others.
    """
    reference = details.config.image
    variables = [entry.partition("=") for entry in details.config.env or ()] if env else []
    return Origin(
        f"docker:{details.id}",
        source,
        id=details.id,
        name=details.name.removeprefix("/"),
        image=Image.parse(reference) if reference else None,
        # Many containers have the same labels, and the same values: of thousands, one copy is kept.
        labels={sys.intern(name): sys.intern(value) for name, value in (details.config.labels or {}).items()},
        env={sys.intern(name): sys.intern(value) for name, _, value in variables if name in env},
        runtime=runtime,
        host=host,
    )


def _version(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


def _timestamp(time_ns: int) -> str:
    """`1700000000.123456789`, as the API wants times in queries."""
    seconds, nanoseconds = divmod(time_ns, 10**9)
    return f"{seconds}.{nanoseconds:09d}"


def _filters(filters: Mapping[str, Sequence[str]] | None) -> dict[str, str]:
    if not filters:
        return {}
    return {"filters": msgspec.json.encode({key: list(values) for key, values in filters.items()}).decode()}


def _innermost(error: Exception) -> Exception:
    """The error that trio's wrapping hides (`all attempts to connect failed`)."""
    cause = error.__cause__ if isinstance(error, OSError) else None
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause if isinstance(cause, OSError) else error


def _said(error: Exception) -> str:
    if isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError):
        return "the connection broke"
    if isinstance(error, h11.RemoteProtocolError):
        return f"the connection ended early, or what answers is no HTTP server ({error})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
