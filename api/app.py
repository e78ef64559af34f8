"""The application: what is asked, and where the answer comes from. On Starlette; imported when somebody asks.

Every answer is made in one piece from a snapshot, so a peer that reads slowly holds nothing but that.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import structlog
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as Path

from logroute.api.address import Address
from logroute.api.books import health_of, stats_of
from logroute.api.letters import (
    MOST_LISTED,
    MOST_NAMED,
    Dropped,
    Page,
    Replayed,
    ReplayRequest,
    Summaries,
    whole_letter,
)
from logroute.api.problems import MEDIA_TYPE, Problem
from logroute.router.database import StateError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from logroute.router.daemon import Daemon
    from logroute.router.route import Route

T = TypeVar("T")
Endpoint = Callable[["Daemon", Request], Awaitable[Any]]

BODY_BYTES = 1 << 20
BODY_WITHIN_S = 10.0
LARGEST_ID = (1 << 63) - 1

_encode = msgspec.json.Encoder().encode


def make_app(daemon: Daemon, address: Address, token: str) -> ASGIApp:
    """What answers for this daemon, at this address, to those who know the token, if there is one."""
    app = Starlette(
        routes=[
            Path(path, _answering(daemon, endpoint), methods=[method])
            for method, path, endpoint in (
                ("GET", "/v1/health", _health),
                ("GET", "/v1/stats", _stats),
                ("GET", "/v1/deadletters", _summaries),
                ("GET", "/v1/routes/{route}/deadletters", _letters),
                ("DELETE", "/v1/routes/{route}/deadletters", _drop),
                ("POST", "/v1/routes/{route}/deadletters/replay", _replay),
                ("GET", "/v1/routes/{route}/deadletters/{id}", _letter),
            )
        ],
        exception_handlers={HTTPException: _of_starlette},
    )
    app.router.redirect_slashes = False
    return _Guard(app, address, token)


# --- answers ------------------------------------------------------------------------------------------


async def _health(daemon: Daemon, request: Request) -> Response:
    health = health_of(daemon)
    return _json(health, 200 if health.healthy else 503)


async def _stats(daemon: Daemon, request: Request) -> Any:
    return stats_of(daemon)


async def _summaries(daemon: Daemon, request: Request) -> Any:
    return Summaries(
        {name: await route.state.letters_summary() for name, route in daemon.router.routes.items()}
    )


async def _letters(daemon: Daemon, request: Request) -> Any:
    route = _route(daemon, request)
    after = _number(request, "after", 0, most=LARGEST_ID)
    count = _number(request, "count", 100, least=1, most=MOST_LISTED)
    letters = await route.state.letters(after, count + 1)
    return Page(letters[:count], letters[count - 1].id if len(letters) > count else 0)


async def _letter(daemon: Daemon, request: Request) -> Any:
    route = _route(daemon, request)
    text = request.path_params["id"]
    found = await route.state.letter(int(text)) if _is_id(text) else None
    if found is None:
        raise Problem(
            404, f"route {route.name} has no dead letter {text}; it may have been replayed, or dropped"
        )
    return whole_letter(*found)


async def _replay(daemon: Daemon, request: Request) -> Any:
    route = _route(daemon, request)
    wanted = await _body(request, ReplayRequest)
    return Replayed(await route.replay(wanted.ids))


async def _drop(daemon: Daemon, request: Request) -> Any:
    route = _route(daemon, request)
    texts = request.query_params.get("ids", "").split(",")
    if request.query_params.get("all") == "true" and "ids" not in request.query_params:
        return Dropped(await route.state.forget_letters(None))
    if not all(map(_is_id, texts)) or len(texts) > MOST_NAMED:
        raise Problem(400, f"say which: ?ids=1,2,3 (at most {MOST_NAMED}), or ?all=true")
    return Dropped(await route.state.forget_letters([int(text) for text in texts]))


# --- what is asked ------------------------------------------------------------------------------------


def _route(daemon: Daemon, request: Request) -> Route:
    name = request.path_params["route"]
    route = daemon.router.routes.get(name)
    if route is None:
        known = ", ".join(sorted(daemon.router.routes))
        raise Problem(404, f"there is no route {name}; there are: {known}")
    return route


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) <= LARGEST_ID


def _number(request: Request, name: str, default: int, *, least: int = 0, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise Problem(400, f"{name} is a whole number from {least} to {most}, not {text[:100]!r}")
    return int(text)


async def _body(request: Request, type_: type[T]) -> T:
    """The request's body as this type. Raises Problem."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Also keeps out what a page of another site may send without asking (CORS' simple requests).
        raise Problem(415, "the body is JSON: content-type: application/json")
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        with trio.move_on_after(BODY_WITHIN_S) as reading:
            async for chunk in chunks:
                body += chunk
                if len(body) > BODY_BYTES:
                    raise Problem(
                        413, f"the body is larger than {BODY_BYTES} bytes", headers={"connection": "close"}
                    )
    if reading.cancelled_caught:
        raise Problem(
            408, f"the body did not come within {BODY_WITHIN_S:g} s", headers={"connection": "close"}
        )
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `")
        raise Problem(422, what, path=where.rstrip("`")) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, f"the body is no JSON: {error}") from error


# --- how it is answered -------------------------------------------------------------------------------


def _answering(daemon: Daemon, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            found = await endpoint(daemon, request)
            return found if isinstance(found, Response) else _json(found)
        except Problem as problem:
            return _problem(problem)
        except StateError as error:
            return _problem(Problem(503, str(error)))
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:  # a mistake of ours ends no connection, and is said
            structlog.get_logger("logroute.api").error(
                "a request failed", method=request.method, path=request.url.path, exc_info=error
            )
            return _problem(Problem(500, "the daemon could not answer; its log says why"))

    return answer


def _json(value: Any, status: int = 200) -> Response:
    headers = {"cache-control": "no-store"}
    return Response(_encode(value), status, headers, "application/json")


def _problem(problem: Problem) -> Response:
    return Response(problem.body(), problem.status, problem.headers, MEDIA_TYPE)


async def _of_starlette(request: Request, error: Exception) -> Response:
    """An unknown path, or a method that a path does not have."""
    assert isinstance(error, HTTPException)
    what = "there is nothing at" if error.status_code == 404 else f"{request.method} is not possible at"
    problem = Problem(error.status_code, f"{what} {request.url.path}", headers=dict(error.headers or {}))
    return _problem(problem)


class _Guard:
    """Lets in who may ask. A unix socket is guarded by the permissions of its file."""

    def __init__(self, app: ASGIApp, address: Address, token: str) -> None:
        self._app = app
        self._address = address
        self._expected = f"Bearer {token}".encode() if token and not address.path else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = self._app
        if scope["type"] != "http":
            answer = _refuse_websocket
        elif (problem := self._objection(dict(scope["headers"]))) is not None:
            answer = _problem(problem)
        await answer(scope, receive, send)

    def _objection(self, headers: dict[bytes, bytes]) -> Problem | None:
        if self._expected:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                return Problem(
                    401,
                    "this API needs the token of api.token_file: Authorization: Bearer …",
                    headers={"www-authenticate": "Bearer"},
                )
        elif not self._address.path and not _is_this_host(headers.get(b"host", b"").decode("latin-1")):
            # A name that leads here although it is somebody else's: DNS rebinding, from a page in a browser.
            return Problem(421, "the Host header names another host: ask for 127.0.0.1 or localhost")
        return None


async def _refuse_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.close", "code": 1000})


def _is_this_host(host: str) -> bool:
    name = host[: host.rfind("]") + 1].strip("[]") if host.startswith("[") else host.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
