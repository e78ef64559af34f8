"""What an endpoint of the API is, and how it reads what it is asked.

Each module of the API that answers has a list of its `Endpoint`s; `app.py` has them all.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
import trio
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from logroute.api.problems import Problem

if TYPE_CHECKING:
    from logroute.router.daemon import Daemon
    from logroute.router.route import Route

T = TypeVar("T")

BODY_BYTES = 1 << 20
BODY_WITHIN_S = 10.0
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""A parser may ignore one (RFC 8259, 8.1); some editors and shells begin with it."""
LARGEST_ID = (1 << 63) - 1

_encode = msgspec.json.Encoder().encode


YES_OR_NO = {"anyOf": [{"type": "boolean"}, {"enum": ["", "0", "1"]}]}
"""What `truth` takes; the name alone says yes."""


class Parameter(msgspec.Struct, frozen=True):
    """One of the query, for the description of the API."""

    name: str
    says: str
    schema: Mapping[str, Any] = msgspec.field(default_factory=lambda: {"type": "string"})


class Endpoint(msgspec.Struct, frozen=True):
    """What is answered to a method at a path. `answer` gives a Response, or what is encoded as JSON."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    answer: Callable[[Daemon, Request], Awaitable[Any]]
    says: str
    """A sentence for the description of the API."""
    gives: Any = None
    """The type of what it answers: a Struct or a pydantic model."""
    takes: Any = None
    """The type of the body; or, as a text, the name of its schema in the description."""
    query: Sequence[Parameter] = ()
    status: int = 200
    """That of success."""
    problems: Sequence[int] = ()
    """Statuses of the problems that it answers with, beside those that anything may."""


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that is JSON."""
    return Response(
        _encode(value), status, {"cache-control": "no-store", **(headers or {})}, "application/json"
    )


def route_of(daemon: Daemon, request: Request) -> Route:
    """The route that the path names. Raises Problem."""
    name = request.path_params["route"]
    route = daemon.router.routes.get(name)
    if route is None:
        known = ", ".join(sorted(daemon.router.routes))
        raise Problem(404, f"there is no route {name}; there are: {known}")
    return route


def is_id(text: str) -> bool:
    """Whether it is the number of a dead letter."""
    return text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) <= LARGEST_ID


def number(request: Request, name: str, default: int, *, least: int = 0, most: int) -> int:
    """A whole number of the query. Raises Problem."""
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise Problem(400, f"{name} is a whole number from {least} to {most}, not {text[:100]!r}")
    return int(text)


def truth(request: HTTPConnection, name: str) -> bool:
    """A yes or no of the query; without it, no. Raises Problem."""
    text = request.query_params.get(name)
    if text in (None, "false", "0"):
        return False
    if text in ("", "true", "1"):
        return True
    raise Problem(400, f"{name} is true or false, not {str(text)[:100]!r}", path=name)


async def body_of(request: Request, type_: type[T]) -> T:
    """The request's body as this type. Raises Problem."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Also keeps out what a page of another site may send without asking (CORS' simple requests).
        raise Problem(415, "the body is JSON: content-type: application/json")
    body = (await raw_body_of(request)).removeprefix(BYTE_ORDER_MARK)
    if not body.strip():
        raise Problem(400, "the body is empty: it is JSON")
    try:
        text = body.decode()
        made = msgspec.json.decode(text, type=type_)
        twice = _twice(json.loads(text, object_pairs_hook=_Object, parse_int=str))
    except UnicodeDecodeError as error:
        raise Problem(400, f"the body is no UTF-8: {error.reason} at byte {error.start}") from error
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `")
        # Where anything may stand, what cannot be read is not named.
        raise Problem(422, what, path="" if "..." in where else where.rstrip("`")) from error
    except msgspec.DecodeError as error:
        raise Problem(400, f"the body is no JSON: {error}") from error
    except RecursionError as error:
        raise Problem(400, "the body is nested too deeply") from error
    if twice:
        raise Problem(422, "the key is there twice", path=twice)
    return made


class _Object(dict[str, Any]):
    """An object of JSON, which knows the first key that it has twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice: str | None = None
        if len(self) < len(pairs):
            seen: set[str] = set()
            for name, _ in pairs:
                if name in seen:
                    self.twice = name
                    break
                seen.add(name)


def _twice(value: Any) -> str:
    """The path of a key that is there twice; empty if there is none. Nobody knows which of them was meant."""
    if isinstance(value, _Object) and value.twice is not None:
        return value.twice
    inside = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    return next((f"{key}.{path}" for key, each in inside if (path := _twice(each))), "")


async def raw_body_of(request: Request) -> bytearray:
    """The request's body, whatever it is. Raises Problem."""
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
    return body
