"""The application: who may ask, and which module answers. On Starlette; imported when somebody asks.

Every answer but a live one is made in one piece from a snapshot, so a peer that reads slowly holds nothing
but that.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import structlog
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.routing import Route as Path

from logroute.api import (
    configuration,
    containers_endpoints,
    letters_endpoints,
    logs,
    routes,
    status,
    top_endpoints,
)
from logroute.api.address import Address
from logroute.api.openapi import description
from logroute.api.problems import MEDIA_TYPE, Problem
from logroute.api.requests import Endpoint, json_response
from logroute.router.database import StateError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from logroute.router.daemon import Daemon

REST_BYTES = 128 << 20
REST_WITHIN_S = 5.0
"""So much of a body, for so long, is taken and discarded when the answer is given already."""


async def _metrics(daemon: Daemon, request: Request) -> Response:
    """Its library is imported with the first question."""
    from logroute.api import metrics

    return await metrics.answer(daemon, request)


async def _openapi(daemon: Daemon, request: Request) -> Response:
    """Made when somebody asks, beside the flow: it imports every component, and takes half a second."""
    return json_response(await trio.to_thread.run_sync(_description, limiter=_DESCRIBES))


_DESCRIBES = trio.CapacityLimiter(1)


@cache
def _description() -> dict[str, Any]:
    return description(ENDPOINTS)


ENDPOINTS: list[Endpoint] = [
    *status.ENDPOINTS,
    *containers_endpoints.ENDPOINTS,
    *routes.ENDPOINTS,
    *configuration.ENDPOINTS,
    *letters_endpoints.ENDPOINTS,
    *top_endpoints.ENDPOINTS,
    *logs.ENDPOINTS,
    Endpoint("GET", "/openapi.json", _openapi, "This description.", gives=dict[str, Any]),
    Endpoint("GET", "/metrics", _metrics, "The books for Prometheus, as text or as OpenMetrics by `Accept`."),
]
"""All there are."""


def make_app(daemon: Daemon, address: Address, token: str) -> ASGIApp:
    """What answers for this daemon, at this address, to those who know the token, if there is one."""
    app = Starlette(
        routes=[Path(each.path, _answering(daemon, each), methods=[each.method]) for each in ENDPOINTS],
        exception_handlers={HTTPException: _of_starlette},
    )
    app.router.redirect_slashes = False
    return _Guard(app, daemon, address, token)


def _answering(daemon: Daemon, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            found = await endpoint.answer(daemon, request)
            return found if isinstance(found, Response) else json_response(found, endpoint.status)
        except Problem as problem:
            return _problem(problem, daemon.hidden.without)
        except StateError as error:
            return _problem(Problem(503, str(error)), daemon.hidden.without)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:  # a mistake of ours ends no connection, and is said
            structlog.get_logger("logroute.api").error(
                "a request failed", method=request.method, path=request.url.path, exc_info=error
            )
            return _problem(Problem(500, "the daemon could not answer; its log says why"))

    return answer


def _problem(problem: Problem, hide: Callable[[str], str] = str) -> Response:
    return Response(problem.body(hide), problem.status, problem.headers, MEDIA_TYPE)


async def _of_starlette(request: Request, error: Exception) -> Response:
    """An unknown path, or a method that a path does not have."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        path = request.scope["path"]
        without = {**request.scope, "path": path.rstrip("/")}
        similar = any(each.matches(without)[0] is not Match.NONE for each in request.app.routes)
        hint = ", but there is without the slash at its end" if similar else ""
        return _problem(Problem(404, f"there is nothing at {path[:200]}{hint}"))
    # Starlette's own header has the methods of the first endpoint at this path only.
    there = [each for each in request.app.routes if each.matches(request.scope)[0] is not Match.NONE]
    methods = ", ".join(sorted({method for each in there for method in each.methods}))
    detail = f"{request.method} is not possible at {request.url.path}, but {methods}"
    return _problem(Problem(error.status_code, detail, headers={"allow": methods}))


class _Guard:
    """Lets in who may ask. A unix socket is guarded by the permissions of its file."""

    def __init__(self, app: ASGIApp, daemon: Daemon, address: Address, token: str) -> None:
        self._app = app
        self._daemon = daemon
        self._address = address
        self._expected = token.encode() if not address.path else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = self._app
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        if scope["path"].lower().startswith("http://"):  # as a proxy is asked (RFC 9112, 3.2.2)
            scope["path"] = "/" + scope["path"].partition("://")[2].partition("/")[2]
        if (problem := self._objection(dict(scope["headers"]))) is not None:
            answer = _problem(problem)
        exchange = _Exchange(receive, send, whole=not _has_body(scope))
        await answer(scope, exchange.receive, exchange.send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pages of any site may open one: those of another are refused, whatever a browser sends along."""
        headers = dict(scope["headers"])
        foreign = _is_from_elsewhere(headers)
        if scope["path"] != "/v1/logs" or foreign or self._objection(headers) is not None:
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        await logs.over_websocket(self._daemon, scope, receive, send)

    def _objection(self, headers: dict[bytes, bytes]) -> Problem | None:
        if self._expected:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            known = hmac.compare_digest(given.strip(b" "), self._expected)
            if scheme.lower() != b"bearer" or not known:  # RFC 9110, 11.1: the scheme in any case
                return Problem(
                    401,
                    "this API needs the token of api.token_file: Authorization: Bearer …; commands take it "
                    "from --token-file FILE, or $LOGROUTE_TOKEN_FILE",
                    headers={"www-authenticate": "Bearer"},
                )
        elif not self._address.path and not _is_this_host(headers.get(b"host", b"").decode("latin-1")):
            # A name that leads here although it is somebody else's: DNS rebinding, from a page in a browser.
            return Problem(421, "the Host header names another host: ask for 127.0.0.1 or localhost")
        elif _is_from_elsewhere(headers):
            # A browser posts what any page wants, and only keeps the answer from it: a route would be paused.
            return Problem(403, "the Origin header names another site: its pages may not ask")
        return None


class _Exchange:
    """A request and its answer, behind which the rest of a body is taken that nobody has read.

    Otherwise hypercorn waits for ever for somebody to take it. A peer that is still sending may not look at
    the answer before it is done, so it is heard for a while; one that goes on loses its connection.
    """

    def __init__(self, receive: Receive, send: Send, *, whole: bool) -> None:
        self._receive = receive
        self._send = send
        self._whole = whole

    async def receive(self) -> Message:
        message = await self._receive()
        self._whole = self._whole or not message.get("more_body")
        return message

    async def send(self, message: Message) -> None:
        last = message["type"] == "http.response.body" and not message.get("more_body")
        if not last or self._whole:
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        left = REST_BYTES
        with trio.move_on_after(REST_WITHIN_S):
            while not self._whole and left > 0:
                left -= len((await self.receive()).get("body", b""))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._discard)  # what waits to be taken holds up the end
            await self._send({"type": "http.response.body", "body": b""})
            nursery.cancel_scope.cancel()

    async def _discard(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _has_body(scope: Scope) -> bool:
    """Whether one is announced (RFC 9112, section 6.3)."""
    names = [name for name, _ in scope["headers"]]
    return b"content-length" in names or b"transfer-encoding" in names


def _is_from_elsewhere(headers: dict[bytes, bytes]) -> bool:
    """Whether a browser says that a page of another site asks."""
    origin = headers.get(b"origin", b"")
    return bool(origin) and origin.partition(b"://")[2] != headers.get(b"host", b"")


def _is_this_host(host: str) -> bool:
    name = host[: host.rfind("]") + 1].strip("[]") if host.startswith("[") else host.partition(":")[0]
    name = name.lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
