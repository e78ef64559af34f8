"""`/v1/logs`: what is said, and what was said before; as lines of JSON, or as server-sent events.

What is asked for is a match (`router/match.py`), its conditions as parameters. Whoever reads slowly is told
what went by; a reader that does not read at all is disconnected like any other (`api/server.py`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import msgspec
import trio
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from logroute.api.moment import advice, point_in_time
from logroute.api.problems import Problem
from logroute.api.requests import YES_OR_NO, Endpoint, Parameter, truth
from logroute.router.look import Problem as Unread
from logroute.router.look import Query, Show, Shown, look
from logroute.router.match import Match, MatchError
from logroute.router.record import Batch, Origin
from logroute.router.times import iso_time
from logroute.router.views import News, Skipped
from logroute.sinks.encoding import encoder
from logroute.sources import Past

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from logroute.router.daemon import Daemon

VIEWS = 32
"""At a time: others shall still be answered."""
MOST_LINES = 100_000
LINES = 100
"""Where neither `since`, `lines` nor `follow` is given."""
ALIVE_EVERY_S = 15.0
"""How often an event stream says that it is still there."""
PROBES_S = (0.05, 0.15, 1.0, ALIVE_EVERY_S)
"""When something is sent to a peer of which nothing more comes; then again and again after the last. Where a
peer by TCP is gone, the first one is what its kernel answers with a reset, and the second what fails; from
far away the third. The first come early: until then who is gone keeps a place of `VIEWS`."""
RESUME_S = 1.0
"""So much earlier a reader begins again that has lost its connection: records of many containers are not
sent in the very order of their times."""

EVENT_STREAM = "text/event-stream"
NDJSON = "application/x-ndjson"

_OWN = ("since", "until", "lines", "follow", "route", "match", "events")
_WEIGHT = re.compile(r"[01](\.[0-9]{0,3})?")
_ID_TIME = re.compile(r"-[oe](\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z)")

_encode = msgspec.json.Encoder().encode
_json = encoder("json")


async def _logs(daemon: Daemon, request: Request) -> Any:
    query = _allowed(daemon, request)
    return _Stream(daemon, query, events=_wants_events(",".join(request.headers.getlist("accept"))))


def _wants_events(accept: str) -> bool:
    """Whether events are asked for, and are not wanted less than lines (RFC 9110, 12.5.1).

    Whoever asks for neither is given lines.
    """
    weights: dict[str, float] = {}
    for each in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in each.split(";"))
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        weights[kind] = float(weight) if _WEIGHT.fullmatch(weight) else 0.0
    lines = next((weights[kind] for kind in (NDJSON, "application/*", "*/*") if kind in weights), 0.0)
    return weights.get(EVENT_STREAM, 0.0) >= max(lines, 0.001)


async def over_websocket(daemon: Daemon, scope: Scope, receive: Receive, send: Send) -> None:
    """The same over a WebSocket: lines of JSON, some in each message. What is received means nothing."""
    from starlette.websockets import WebSocket

    websocket = WebSocket(scope, receive, send)
    await websocket.receive()  # the question
    try:
        query = _allowed(daemon, websocket)
    except Problem as problem:
        await websocket.accept()
        await websocket.send_text(problem.body().decode())
        await websocket.close(1008, str(problem)[:100])
        return
    await websocket.accept()

    async def show(items: Sequence[Shown]) -> None:
        with daemon.router.views.working():
            text = encoded(items, events=False, hide=daemon.hidden.without).decode()
        await websocket.send_text(text)

    async def until_gone() -> None:
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(until_gone)
        await _look(daemon, query, show)
        await websocket.close()
        nursery.cancel_scope.cancel()


async def _look(daemon: Daemon, query: Query, show: Show) -> None:
    """We answer before sources have found their logs: what was before is asked of them when they have."""
    if query.past is not None:
        await daemon.wait_started()
    await look(daemon, query, show)


def _allowed(daemon: Daemon, request: HTTPConnection) -> Query:
    """What is asked for, if it may be. Raises Problem."""
    query = query_of(request)
    if query.route is not None and query.route not in daemon.router.routes:
        known = ", ".join(sorted(daemon.router.routes))
        raise Problem(404, f"there is no route {query.route}; there are: {known}")
    if len(daemon.router.views) >= VIEWS:
        raise Problem(
            503, f"{VIEWS} look already: that is as many as there may be", headers={"retry-after": "5"}
        )
    return query


def query_of(request: HTTPConnection) -> Query:
    """What is asked for. Raises Problem."""
    given = request.query_params
    for name in _OWN:
        if name != "match" and len(given.getlist(name)) > 1:
            raise Problem(400, f"{name} is given twice", path=name)
    now = time.time()
    since = _time(given.get("since"), "since", now)
    until = _time(given.get("until"), "until", now)
    if since and since > iso_time(int(now * 1e9)):
        raise Problem(400, f"since: {since} is in the future", path="since")
    if since and until and until < since:
        raise Problem(400, f"until: {until} is before since", path="until")
    follow = truth(request, "follow")
    lines = _lines(given.get("lines"))
    if resumed := _resumed(request.headers.get("last-event-id", "")):
        since, lines = resumed, None
    if lines is None and not since and not follow:
        lines = LINES
    past = Past(since=since, until=until, last=lines) if since or lines else None
    return Query(
        _match(request),
        given.get("route"),
        past,
        follow=follow and not until,
        news=truth(request, "events"),
        ended=bool(since) or any(name == "container" or name.startswith("container.") for name in given),
    )


def _match(request: HTTPConnection) -> Match:
    """The parameters are conditions, of which all have to hold; of those of one name, one."""
    given = request.query_params
    mapping: dict[str, Any] = {}
    for name in dict.fromkeys(given):
        if name not in _OWN:
            values = given.getlist(name)
            mapping[name] = values if len(values) > 1 else values[0]
    parts = [*([mapping] if mapping else []), *map(_mapping, given.getlist("match"))]
    try:
        matches = [Match.parse(part) for part in parts]
    except MatchError as error:
        path = ".".join(map(str, error.path)) or "match"
        raise Problem(400, f"{path}: {error}", path=path) from error
    if len(matches) == 1:
        return matches[0]
    return Match.parse({"all": [match.to_value() for match in matches]} if matches else {})


def _mapping(text: str) -> Any:
    """An expression, or a mapping in JSON."""
    if text[:1] != "{":
        return text
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError) as error:
        raise Problem(400, f"match is no JSON: {error}", path="match") from error


def _time(text: str | None, name: str, now: float) -> str:
    """A duration before now, a time (RFC 3339) or seconds since 1970, as records have it."""
    if not text:
        return ""
    try:
        return point_in_time(text, now)
    except ValueError:
        raise Problem(400, f"{name}: {text[:100]!r} is no time; {advice(text)}", path=name) from None


def _resumed(last: str) -> str:
    """Where a reader goes on whose last event had this id; empty where the id says no time."""
    from logroute.sources.engine_answers import time_ns

    if (found := _ID_TIME.search(last)) is None:
        return ""
    try:
        return iso_time(max(0, time_ns(found[1]) - int(RESUME_S * 1e9)))
    except ValueError:  # none of ours: there is no such day
        return ""


def _lines(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= MOST_LINES):
        problem = f"lines is a whole number up to {MOST_LINES}, not {text[:100]!r}"
        raise Problem(400, problem, path="lines")
    return int(text)


class _Stream(Response):
    """An answer that goes on as long as there is something to be seen. An ASGI application of its own.

    Starlette's streaming answers do not end where the peer asked for the connection to be closed.
    """

    def __init__(self, daemon: Daemon, query: Query, *, events: bool) -> None:
        super().__init__()
        self._daemon = daemon
        self._query = query
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = EVENT_STREAM if self._events else NDJSON
        headers = [
            (b"content-type", kind.encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        sending = trio.Lock()

        async def write(body: bytes) -> None:
            async with sending:
                await send({"type": "http.response.body", "body": body, "more_body": True})

        async def show(items: Sequence[Shown]) -> None:
            with self._daemon.router.views.working():
                body = encoded(items, events=self._events, hide=self._daemon.hidden.without)
            await write(body)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._probe_when_silent, receive, write)
            nursery.start_soon(self._stay_alive, write)
            # The head goes out with the first piece of the body: who looks shall know that it is heard.
            await write(b": here\n\n" if self._events else b"")
            await _look(self._daemon, self._query, show)
            nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stay_alive(self, write: Any) -> None:
        """Proxies end connections on which nothing comes, and nobody else notices that a peer is gone."""
        while self._events:
            await trio.sleep(ALIVE_EVERY_S)
            await write(b": still here\n\n")

    async def _probe_when_silent(self, receive: Receive, write: Any) -> None:
        """A peer that has shut down its sending half may be gone, or only have nothing more to ask (`nc -N`).

        What is sent tells: where it fails, the connection ends with us. Between lines of JSON a space means
        nothing.
        """
        while (await receive())["type"] != "http.disconnect":
            pass
        *first, ever_after = PROBES_S
        for wait_s in chain(first, repeat(ever_after)):
            await trio.sleep(wait_s)
            await write(b": still here\n\n" if self._events else b" ")


def encoded(items: Sequence[Shown], *, events: bool, hide: Callable[[str], str] = str) -> bytes:
    """As lines of JSON, or as server-sent events: of a record its id is the event's.

    `hide` takes out of a text what nobody shall be shown; records are what they are.
    """
    parts: list[bytes] = []
    for item in items:
        if isinstance(item, Batch):
            lines = _json(item)
            parts.append(_as_events(item, lines) if events else lines)
        else:
            name, said = _said(item, hide)
            line = _encode(said)
            parts.append(b"event: %s\ndata: %s\n\n" % (name.encode(), line) if events else line + b"\n")
    return b"".join(parts)


def _as_events(batch: Batch, lines: bytes) -> bytes:
    origin = batch.origin
    return b"".join(
        [
            b"id: %s\ndata: %s\n\n" % (origin.record_id(record).encode("utf-8", "replace"), line)
            for record, line in zip(batch.records, lines.split(b"\n"), strict=False)
        ]
    )


def _said(item: News | Skipped | Unread, hide: Callable[[str], str]) -> tuple[str, dict[str, Any]]:
    if isinstance(item, Skipped):
        return "skipped", {"skipped": item.records}
    if isinstance(item, News):
        return "container", {"event": item.event, **_who(item.origin)}
    return "unread", {"unread": hide(item.reason), **_who(item.origin)}


def _who(origin: Origin) -> dict[str, Any]:
    constants = origin.constants()
    return {name: constants[name] for name in ("container", "log", "compose") if name in constants}


ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/logs",
        _logs,
        "Records as they come, and as they came: lines of JSON, or with `Accept: text/event-stream` events. "
        "Any path that a match knows is a parameter too, such as `fields.status=>=500`.",
        query=[
            Parameter("container", "Names of containers, globs or `/regex/`."),
            Parameter("level", "Such as `warn`, or `>=warn`."),
            Parameter("message", "A glob or `/regex/`."),
            Parameter("stream", "Which one.", {"enum": ["stdout", "stderr"]}),
            Parameter(
                "match",
                "An expression, such as `level >= warn`, or a mapping in JSON.",
            ),
            Parameter("since", "`10m`, a time, or seconds since 1970."),
            Parameter("until", "Likewise; then it ends."),
            Parameter(
                "lines",
                "Of each container the last so many.",
                {"type": "integer", "minimum": 0, "maximum": MOST_LINES},
            ),
            Parameter("follow", "Go on with what comes.", YES_OR_NO),
            Parameter("route", "What this route's sink is given."),
            Parameter("events", "Say what becomes of containers too.", YES_OR_NO),
        ],
        problems=(400, 404, 503),
    ),
]
