"""Routes, as the API shows, makes, changes, pauses and removes them.

A body is what a route says in a configuration. What is answered is stored and runs. Variables (`${…}`) mean
nothing here: they would show the daemon's secrets to whoever may ask.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from logroute.api.openapi import NEW_ROUTE, ROUTE, ROUTE_PATCH
from logroute.api.problems import Problem
from logroute.api.requests import Endpoint, Parameter, body_of, json_response
from logroute.api.route_facts import (
    READ_ONLY,
    RouteFacts,
    Routes,
    facts_of,
    routes_of,
    tag_of,
)
from logroute.config.masking import MASK, holds_mask
from logroute.router.made_routes import Check
from logroute.router.plan import CannotReload, RoutePlan, RouteRefused

if TYPE_CHECKING:
    from logroute.router.daemon import Daemon

WITHIN_S = 60.0
"""What is begun is ended, whether or not the peer waits for it; but the daemon's end does not wait longer."""
DEEPEST = 64

_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_TAGS = re.compile(
    rf"[ \t]*+(?:{_TAG.pattern}[ \t]*+)?+(?:,[ \t]*+(?:{_TAG.pattern}[ \t]*+)?+)*+",
)
"""RFC 9110, 8.8.3 and 5.6.1: elements of a list may be empty. Possessive: what does not match is not tried in
every other way, of which there are 2^elements."""


class Removed(msgspec.Struct, frozen=True):
    """A route that there was."""

    removed: str
    undelivered: int
    """Records that it had not delivered."""
    queued: str
    """What becomes of them: `drain` or `drop`."""


async def _list(daemon: Daemon, request: Request) -> Any:
    return routes_of(daemon)


async def _show(daemon: Daemon, request: Request) -> Any:
    plan = _plan(daemon, request)
    tag = _tag(daemon, plan)
    _check_wanted(tag, request)
    if _is_unwanted(tag, request):
        return Response(status_code=304, headers={"etag": tag, "cache-control": "no-store"})
    return _answer(daemon, plan.settings.name)


async def _make(daemon: Daemon, request: Request) -> Any:
    body = await _body(request)
    name = body.get("name")
    if not isinstance(name, str) or not name:
        raise Problem(422, "a route needs a name", path="name")

    def check(known: RoutePlan | None) -> None:
        if known is not None:
            where = f": {known.place}" if known.place else ""
            raise Problem(409, f"there is a route {name} already{where}", path="name")

    await _set(daemon, name, body, check)
    return _answer(daemon, name, 201, {"location": f"/v1/routes/{quote(name, safe='')}"})


async def _put(daemon: Daemon, request: Request) -> Any:
    name = request.path_params["route"]

    def check(known: RoutePlan | None) -> None:
        if known is not None:
            _check_ours(known)
        _check_tag(daemon, known, request)

    check(daemon.planned(name))
    body = await _body(request)
    if body.get("name", name) != name:
        raise Problem(422, f"the name is {name} in the path and another in the body", path="name")
    new = await _set(daemon, name, body, check)
    return _answer(daemon, name, 201 if new else 200)


async def _patch(daemon: Daemon, request: Request) -> Any:
    known = _plan(daemon, request)
    name = known.settings.name
    patch = await _body(request)
    if patch.get("name", name) != name:
        raise Problem(422, "a route cannot be renamed: make another", path="name")

    def check(now: RoutePlan | None) -> None:
        if now is None or now.body != known.body:
            raise Problem(412, "somebody has changed the route meanwhile: try again")
        _check_tag(daemon, now, request)

    _check_ours(known)
    body = _merged(known.body, {key: value for key, value in patch.items() if key not in READ_ONLY})
    await _set(daemon, name, body, check)
    return _answer(daemon, name)


async def _remove(daemon: Daemon, request: Request) -> Any:
    name = request.path_params["route"]
    queued = request.query_params.get("queued", "drain")
    if queued not in ("drain", "drop"):
        raise Problem(400, f"queued is drain or drop, not {queued[:100]!r}", path="queued")
    refused = name in daemon.made.refused

    def check(known: RoutePlan | None) -> None:
        if refused:
            _check_tag(daemon, None, request)  # what is not used has no tag
            return
        known = _plan(daemon, request)
        _check_ours(known)
        _check_tag(daemon, known, request)

    problem: Problem | None = None
    left = 0
    with trio.move_on_after(WITHIN_S, shield=True):
        try:
            left = await daemon.made.remove(name, drop=queued == "drop", check=check)
        except Problem as error:
            problem = error
        except CannotReload as error:
            problem = Problem(503, str(error))
    if problem is not None:
        raise problem
    return Removed(name, left, queued)


async def _pause(daemon: Daemon, request: Request) -> Any:
    known = _plan(daemon, request)
    _check_tag(daemon, known, request)
    await daemon.made.pause(known.settings.name)
    return _answer(daemon, known.settings.name)


async def _resume(daemon: Daemon, request: Request) -> Any:
    known = _plan(daemon, request)
    _check_tag(daemon, known, request)
    await daemon.made.resume(known.settings.name)
    return _answer(daemon, known.settings.name)


# --- what is asked ------------------------------------------------------------------------------------


def _plan(daemon: Daemon, request: Request) -> RoutePlan:
    name = request.path_params["route"]
    if (known := daemon.planned(name)) is None:
        if (reason := daemon.made.refused.get(name)) is not None:
            raise Problem(409, f"the route {name} was made by API and is not used: {reason}")
        names = ", ".join(sorted(plan.settings.name for plan in daemon.plan.routes))
        raise Problem(404, f"there is no route {name}; there are: {names}")
    return known


def _check_ours(plan: RoutePlan) -> None:
    if not plan.by_api:
        where = plan.place or "the configuration"
        raise Problem(409, f"the route {plan.settings.name} stands in {where}: change it there, and reload")


def _check_tag(daemon: Daemon, plan: RoutePlan | None, request: Request) -> None:
    """`If-Match` and `If-None-Match` (RFC 9110, 13.1): whoever changes a route has seen what it is now.

    A weak tag is taken for the strong one that it was: proxies that compress make them weak.
    """
    tag = _tag(daemon, plan) if plan is not None else None
    _check_wanted(tag, request)
    if _is_unwanted(tag, request):
        raise Problem(
            412,
            f"there is a route {request.path_params['route']} already"
            if _tags(request, "if-none-match") == ["*"]
            else "the route is what If-None-Match names",
        )


def _check_wanted(tag: str | None, request: Request) -> None:
    """`If-Match` comes first (RFC 9110, 13.2.2). `tag`: None where there is no route that is used."""
    if (wanted := _tags(request, "if-match")) is not None and not _is_among(tag, wanted):
        raise Problem(
            412,
            f"there is no route {request.path_params['route']}"
            if tag is None
            else "somebody has changed the route meanwhile: look at it again",
        )


def _is_unwanted(tag: str | None, request: Request) -> bool:
    unwanted = _tags(request, "if-none-match")
    return unwanted is not None and _is_among(tag, unwanted)


def _tags(request: Request, header: str) -> list[str] | None:
    """The tags that a condition names, or `*` alone; None without one. Raises Problem."""
    if not (lines := request.headers.getlist(header)):
        return None
    text = ",".join(lines).strip()
    if text == "*":
        return ["*"]
    if _TAGS.fullmatch(text) is None or not (found := _TAG.findall(text)):
        raise Problem(400, f'{header} is *, or tags as ETag has them, with their quotes: "…"')
    return found


def _is_among(tag: str | None, tags: list[str]) -> bool:
    return tag is not None and (tags == ["*"] or tag in tags)


async def _body(request: Request) -> dict[str, Any]:
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() == "application/merge-patch+json":
        request.scope["headers"] = [
            (name, value if name != b"content-type" else b"application/json")
            for name, value in request.scope["headers"]
        ]
        request = Request(request.scope, request.receive)
    body = await body_of(request, dict[str, Any])
    if _depth(body) > DEEPEST:
        raise Problem(422, f"deeper than {DEEPEST} levels: this is no route")
    return body


def _urls(value: Any) -> Iterator[str]:
    """What may be a URL in a sink's options."""
    if isinstance(value, dict):
        for each in value.values():
            yield from _urls(each)
    elif isinstance(value, list):
        for each in value:
            yield from _urls(each)
    elif isinstance(value, str) and "//" in value:
        yield value


async def _set(daemon: Daemon, name: str, given: dict[str, Any], check: Check) -> bool:
    """Have this route; whether it is new. Raises Problem."""
    body = {key: value for key, value in given.items() if key not in READ_ONLY}
    if holds_mask(body):
        raise Problem(422, f"{MASK} stands where a secret was: give the secret itself")
    if variable := _variable(body):
        raise Problem(
            422, f"{variable} means nothing here: variables and files are read in the configuration only"
        )
    here = (daemon.plan.api_options or {}).get("address")
    if here is not None and any(here.is_meant_by(text) for text in _urls(body.get("sink"))):
        raise Problem(422, "this is the daemon's own API: a route must not lead back to it", path="sink")
    problem: Problem | None = None
    new = False
    with trio.move_on_after(WITHIN_S, shield=True) as within:
        try:
            new = await daemon.made.set(name, body, check)
        except Problem as error:
            problem = error
        except RouteRefused as error:
            path, text = error.mistakes[0]
            problem = Problem(422, text, path=path, errors=error.mistakes)
        except CannotReload as error:
            problem = Problem(503, str(error))
    if problem is not None:
        raise problem
    if within.cancelled_caught:
        raise Problem(503, f"this took longer than {WITHIN_S:g} s: look whether it is there")
    return new


def _variable(value: Any) -> str:
    if isinstance(value, dict):
        return next(filter(None, map(_variable, value.values())), "")
    if isinstance(value, list):
        return next(filter(None, map(_variable, value)), "")
    found = re.search(r"\$\{[^}]*\}", value) if isinstance(value, str) else None
    return found[0] if found else ""


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [
            each
            for item in level
            for each in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
        ]
    return deepest


def _merged(old: Any, patch: Any) -> Any:
    """RFC 7396, 2."""
    if not isinstance(patch, dict):
        return patch
    made = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = _merged(made.get(key), value)
    return made


def _tag(daemon: Daemon, plan: RoutePlan) -> str:
    return tag_of(plan, daemon.made.paused.get(plan.settings.name))


def _answer(daemon: Daemon, name: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    plan = daemon.planned(name)
    if plan is None:
        raise Problem(409, f"somebody has removed the route {name} meanwhile")
    tag = _tag(daemon, plan)
    return json_response(facts_of(daemon, plan), status, {"etag": tag, **(headers or {})})


_ONE = "/v1/routes/{route}"
_BODY = (400, 408, 409, 413, 415, 422, 503)
ENDPOINTS = [
    Endpoint("GET", "/v1/routes", _list, "All routes, and whether they deliver.", gives=Routes),
    Endpoint(
        "POST",
        "/v1/routes",
        _make,
        "Make a route: a name, and what a route says in a configuration.",
        gives=RouteFacts,
        takes=NEW_ROUTE,
        status=201,
        problems=_BODY,
    ),
    Endpoint(
        "GET",
        _ONE,
        _show,
        "One route; its `ETag` is of what it says, for `If-Match` and `If-None-Match`.",
        gives=RouteFacts,
        problems=(400, 404, 409, 412),
    ),
    Endpoint(
        "PUT",
        _ONE,
        _put,
        "Make a route, or have it say this; the same again changes nothing.",
        gives=RouteFacts,
        takes=ROUTE,
        problems=(*_BODY, 412),
    ),
    Endpoint(
        "PATCH",
        _ONE,
        _patch,
        "Change some of what a route says (RFC 7396).",
        gives=RouteFacts,
        takes=ROUTE_PATCH,
        problems=(*_BODY, 404, 412),
    ),
    Endpoint(
        "DELETE",
        _ONE,
        _remove,
        "Remove a route.",
        gives=Removed,
        query=[
            Parameter(
                "queued",
                "What it has not delivered is delivered within `limits.grace`, the rest stays in its spool "
                "(`drain`), or is dropped (`drop`).",
                {"enum": ["drain", "drop"]},
            )
        ],
        problems=(400, 404, 409, 412, 503),
    ),
    Endpoint(
        "POST",
        _ONE + "/pause",
        _pause,
        "Deliver nothing until it is resumed, also after a restart.",
        gives=RouteFacts,
        problems=(400, 404, 409, 412, 503),
    ),
    Endpoint(
        "POST",
        _ONE + "/resume",
        _resume,
        "Go on.",
        gives=RouteFacts,
        problems=(400, 404, 409, 412, 503),
    ),
]
