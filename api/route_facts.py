"""Routes as the API shows them. Shared with the client.

What a route says is shown as it was written, but for what is secret: variables by their names, passwords and
tokens as `***`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from logroute.router.times import iso_time

if TYPE_CHECKING:
    from logroute.router.daemon import Daemon
    from logroute.router.plan import RoutePlan

MASK = "***"
READ_ONLY = ("name", "made_by", "place", "stored", "paused", "status")
"""What a route is shown with beside what it says; not looked at where it is given back."""

_SAID = ("match", "processors", "queue", "batch", "retry", "start")

_SECRET = re.compile(
    r"(?i)(^|[_\-.])(password|passwd|secret|token|api_?key|key|auth|authorization|bearer|credentials?|"
    r"cookie|shared_key|private)s?($|[_\-.])"
)
_HARMLESS = frozenset(("key", "key_file", "token_file", "shared_key_file"))
"""Names of files, and of fields (`lookup`, `key_value`)."""
_USERINFO = re.compile(r"(?<=://)([^/@\s:]*):([^/@\s]+)(?=@)")
_PARAMETER = re.compile(
    r"(?i)([?&][\w.\-]*(?:password|secret|token|api_?key|shared_key|auth)[\w.\-]*=)([^&#\s]+)"
)
_VARIABLE = re.compile(r"\$\{[^}]*\}")


class RouteStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether it delivers."""

    up: bool
    since: str
    reason: str = ""
    hindrance: str = ""
    lag_seconds: float = 0.0
    waiting: int = 0
    """Records."""
    delivered: int = 0
    dead_letters: int = 0
    sink: dict[str, int] = {}
    """What its sink has counted beside that: `connections`, `truncated` …"""


class RouteFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """A route."""

    name: str
    made_by: str
    """`file` or `api`."""
    sink: Any
    match: Any = None
    processors: Any = None
    queue: Any = None
    batch: Any = None
    retry: Any = None
    start: Any = None
    place: str = ""
    """Where it stands: `file:line`."""
    stored: bool = False
    """Made by API, and back after a restart."""
    paused: str = ""
    """Since when nothing is delivered because somebody wants that."""
    status: RouteStatus | None = None
    """Left out where it does not run: it was made by API, and cannot be any more."""


class Routes(msgspec.Struct, frozen=True):
    """All of them, in the order of the configuration."""

    routes: list[RouteFacts]
    refused: dict[str, str] = {}
    """Made by API, and not used now: why."""


def routes_of(daemon: Daemon) -> Routes:
    return Routes([facts_of(daemon, plan) for plan in daemon.plan.routes], dict(daemon.made.refused))


def facts_of(daemon: Daemon, plan: RoutePlan) -> RouteFacts:
    name = plan.settings.name
    route = daemon.router.routes.get(name) or daemon.router.unopened.get(name)
    status = None
    if route is not None:
        book = route.statistics()
        status = RouteStatus(
            book.up,
            iso_time(int(book.since * 1e9)),
            book.reason,
            book.hindrance,
            round(book.lag_s, 3),
            book.queue.records + book.in_flight,
            book.delivered,
            book.dead_letters,
            book.sink_events,
        )
    body = masked(plan.body) if isinstance(plan.body, Mapping) else {}
    since = daemon.made.paused.get(name)
    said = {
        key: body[key] for key in ("match", "processors", "queue", "batch", "retry", "start") if key in body
    }
    return RouteFacts(
        name,
        "api" if plan.by_api else "file",
        body.get("sink"),
        place=plan.place,
        stored=plan.by_api and daemon.made.stored,
        paused=iso_time(int(since * 1e9)) if since is not None else "",
        status=status,
        **said,
    )


def tag_of(plan: RoutePlan, paused: float | None) -> str:
    """An entity tag (RFC 9110, 8.8.3): another for another route."""
    seen = msgspec.json.encode([plan.body, paused], order="deterministic")
    return f'"{blake2b(seen, digest_size=12).hexdigest()}"'


def masked(value: Any, key: str = "") -> Any:
    """A copy in which nothing is secret."""
    if isinstance(value, Mapping):
        if key.lower() == "headers":
            return {name: MASK if _hides(str(text)) else text for name, text in value.items()}
        if _is_secret(key):
            return {name: masked(item, "password") for name, item in value.items()}
        return {name: masked(item, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [masked(item, key) for item in value]
    if isinstance(value, str):
        if _is_secret(key) and _hides(value):
            return MASK
        return _PARAMETER.sub(_keep_variables, _USERINFO.sub(lambda found: f"{found[1]}:{MASK}", value))
    return value


def holds_mask(value: Any) -> bool:
    """Whether something of it is what was shown instead of a secret."""
    if isinstance(value, Mapping):
        return any(map(holds_mask, value.values()))
    if isinstance(value, list):
        return any(map(holds_mask, value))
    return isinstance(value, str) and (value == MASK or f":{MASK}@" in value or f"={MASK}" in value)


def _is_secret(key: str) -> bool:
    return key.lower() not in _HARMLESS and _SECRET.search(key) is not None


def _hides(text: str) -> bool:
    """Whether there is more in it than names of variables."""
    return bool(_VARIABLE.sub("", text).strip())


def _keep_variables(found: re.Match[str]) -> str:
    return found[1] + (MASK if _hides(found[2]) else found[2])
