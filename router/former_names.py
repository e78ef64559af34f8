"""What containers were called: routes that took one under its name before, and not under the present one.

A container is renamed while nobody looks, or while a route that takes it by its old name is behind. What was
said before is of the old name; so each route remembers, with its checkpoint, what the container was called
when it took it last, and up to where that was so.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec
import structlog

from logroute.router.books import Gaps
from logroute.router.checkpoints import Called
from logroute.router.position import Position
from logroute.router.record import STREAMS, Origin
from logroute.router.route import Route

REASON = "renamed"


class Rest(msgspec.Struct, frozen=True):
    """What a route has not been given of what was said under a name."""

    since: str
    """The time of the last record that it has been given, if known."""
    until: str
    """That of the last of these, if known."""
    size_bytes: int | None


def take(route: Route, origin: Origin) -> None:
    """The route takes the origin, as it is called now."""
    if origin.id:
        route.state.call(origin.key, Called(origin.name))


def take_late(route: Route, origin: Origin) -> None:
    """The same, where it may be called otherwise by now: then it was called so up to where that is known."""
    called = route.state.called(origin.key)
    if called is None or called.name != origin.name:
        take(route, origin)


def renamed(routes: Collection[Route], takers: Collection[Route], origin: Origin, until: Position) -> None:
    """It is this origin from there on. Routes that do not take that have it up to there."""
    for route in routes:
        called = route.state.called(origin.key)
        if called is None:
            continue
        if route in takers:
            take(route, origin)
        elif called.until is None:
            route.state.call(origin.key, Called(called.name, until))


def say_lost(routes: Collection[Route], origin: Origin) -> None:
    """These routes do not take the origin as it is called now: nobody reads for them what was before."""
    for route in routes:
        called = route.state.called(origin.key)
        if called is None:
            continue
        route.state.call(origin.key, None)
        before = msgspec.structs.replace(origin, name=called.name, takers=None, start=None)
        place = route.state.position(origin.key)
        if called.name == origin.name or place is None or not route.settings.match.decide(before):
            continue  # it was told not to take it
        rest = rest_between(place, called.until)
        if rest is None:
            continue
        route.lost.setdefault(REASON, Gaps()).add(rest.since, rest.until, rest.size_bytes)
        known = {"since": rest.since, "until": rest.until, "bytes": rest.size_bytes}
        structlog.get_logger("logroute.router").error(
            "records are lost: their container was renamed before they could be read",
            container=origin.name,
            before=called.name,
            routes=[route.name],
            reason=REASON,
            **{name: value for name, value in known.items() if value not in ("", None)},
        )


def rest_between(place: Position, until: Position | None) -> Rest | None:
    """What is between these positions of a log; None: nothing. Without the second one nobody knows."""
    times = [anchor.time for stream in STREAMS if (anchor := place.of(stream).anchor)]
    since = max(times, default=place.since or "")
    if until is None:
        return Rest(since, "", None)
    size: int | None = 0
    is_behind = False
    for stream in STREAMS:
        here, there = place.of(stream), until.of(stream)
        if here.place is not None and there.place is not None:
            if here.place.file != there.place.file:
                is_behind, size = True, None
            elif here.place.offset < there.place.offset:
                is_behind = True
                size = max(size, there.place.offset - here.place.offset) if size is not None else None
        elif there.anchor is not None and (
            here.anchor is None
            or (here.anchor.time, here.anchor.sequence) < (there.anchor.time, there.anchor.sequence)
        ):
            is_behind, size = True, None
    last = max((anchor.time for stream in STREAMS if (anchor := until.of(stream).anchor)), default="")
    return Rest(since, last, size) if is_behind else None
