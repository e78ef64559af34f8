"""Routes as the API shows them. Shared with the client.

What a route says is shown as it was written, but for what is secret: variables by their names, passwords and
tokens as `***`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from logroute.router.digest import blake2b
from logroute.router.times import iso_time

if TYPE_CHECKING:
    from logroute.router.daemon import Daemon
    from logroute.router.plan import RoutePlan

READ_ONLY = ("name", "made_by", "place", "stored", "paused", "status")
"""What a route is shown with beside what it says; not looked at where it is given back."""

_SAID = ("match", "processors", "queue", "batch", "retry", "start")


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
    from logroute.config.masking import masked_route  # which the client has no use for

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
    body = masked_route(plan.body) if isinstance(plan.body, Mapping) else {}
    since = daemon.made.paused.get(name)
    said = {key: body[key] for key in _SAID if key in body}
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
