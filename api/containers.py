"""What the daemon knows of containers: how each is read, which routes take it, and what stands in its way.

Shared with the client. From one picture, in one step: nobody is asked, neither an engine nor a disk.
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import msgspec

from logroute.router.books import OfOrigin
from logroute.router.hints import ROUTES, allowed, nonsense
from logroute.router.paths import image_reference
from logroute.router.position import Position
from logroute.router.record import ALL_STREAMS, STREAMS, Origin
from logroute.router.times import full_time, iso_time
from logroute.sinks.encoding import display_name

if TYPE_CHECKING:
    from logroute.router.daemon import Daemon
    from logroute.router.route import Route
    from logroute.sources import Known

NEAR = 5
"""Names that are suggested for one that there is not."""


class Condition(msgspec.Struct, frozen=True, omit_defaults=True):
    """One condition of a route's match, of which all have to hold."""

    text: str
    """In the configuration's words, and with what the container has."""
    holds: bool | None = None
    """Left out: that depends on the record."""


class RouteOfContainer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a route does with a container."""

    takes: bool
    sink: str
    """The type of its sink."""
    conditions: list[Condition] = []
    """Those of its match, and of the container's own label."""
    streams: list[str] = []
    """Only this one, where it does not take both."""
    acknowledged: str = ""
    """Time of the last record that the sink has, or that is spooled, or was accounted for otherwise; left
    out: of none."""
    delivered: str = ""
    """Time of the last record of it that the sink has taken since the daemon started; left out: of none."""
    rejected: int = 0
    """How many records of it the receiver has rejected since then."""
    rejection: str = ""
    """The receiver's words about the last of them."""
    dropped: dict[str, int] = {}
    """Records, of any container, that the route has given up since then, by reason."""
    spooled: int = 0
    """Records, of any container, that wait in its spool."""
    waiting: bool = False
    """Of what was read something waits for a delivery."""
    behind: bool = False
    """It is not where the container is read now, and is read for apart."""
    up: bool = True
    since: str = ""
    """Since when it delivers, or does not."""
    reason: str = ""
    """Why it does not."""
    paused: bool = False
    """It does not because somebody wants that."""
    hindrance: str = ""
    """What keeps it from reading on, whatever its sink does."""
    last_delivery: str = ""
    """When its sink took something last, of any container."""
    answer: str = ""
    """What the receiver said then; left out where it says nothing, as by UDP."""
    lag_seconds: float = 0.0
    """Age of the oldest record that waits, of any container."""

    @property
    def in_the_way(self) -> str:
        """Why not everything arrives; empty if nothing stands in the way."""
        return (self.reason or "its sink does not answer") if not self.up else self.hindrance


class ContainerFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of one container, or of a file that is read."""

    name: str
    source: str
    state: Literal["running", "ended", "removed"]
    read: Literal["file", "api", "ignored", "waiting"]
    id: str = ""
    image: str = ""
    host: str = ""
    reason: str = ""
    """Why it is not read, or cannot be just now."""
    last_record: str = ""
    """Time of the last record that was read; left out: of none yet."""
    corrupt_lines: int = 0
    """Lines that were left out since it is read, because they are not what the format of its log says."""
    labels: list[str] = []
    """What of its labels makes no sense, and changes nothing: a sentence each."""
    routes: dict[str, RouteOfContainer] = {}

    @property
    def taken(self) -> dict[str, RouteOfContainer]:
        """The routes that take it."""
        return {name: route for name, route in self.routes.items() if route.takes}


class Containers(msgspec.Struct, frozen=True):
    """All that are known, by name."""

    time: str
    containers: list[ContainerFacts]


class Unknown(LookupError):
    """No container, or more than one, is meant; the text says which there are."""


def containers_of(daemon: Daemon) -> Containers:
    found = [
        facts_of(daemon, known) for source in daemon.sources.running.values() for known in source.known()
    ]
    found.sort(key=lambda facts: (facts.read == "ignored", facts.name, facts.id))
    return Containers(iso_time(time.time_ns()), found)


def find(containers: Iterable[ContainerFacts], wanted: str) -> ContainerFacts:
    """By name, id or the beginning of an id; of several of a name the one that runs. Raises Unknown."""
    there = list(containers)
    named = [facts for facts in there if facts.name == wanted]
    if len(named) > 1:
        named = [facts for facts in named if facts.state == "running"] or named[-1:]
    if not named and re.fullmatch("[0-9a-f]{3,64}", wanted):
        named = [facts for facts in there if facts.id.startswith(wanted)]
    if len(named) == 1:
        return named[0]
    if named:
        raise Unknown(
            f"{wanted} is the beginning of several ids: {', '.join(facts.id[:12] for facts in named)}"
        )
    near = nearest(wanted, {facts.name for facts in there})
    hint = f"did you mean {' or '.join(near)}?" if near else "`logroute ps -a` lists all that are known"
    raise Unknown(f"there is no container {wanted}; {hint}")


def nearest(wanted: str, there: Iterable[str]) -> list[str]:
    """Names that may have been meant."""
    names = sorted(there)
    return (
        difflib.get_close_matches(wanted, names, n=NEAR) or [name for name in names if wanted in name][:NEAR]
    )


def facts_of(daemon: Daemon, known: Known) -> ContainerFacts:
    origin = known.origin
    return ContainerFacts(
        name=display_name(origin),
        source=origin.source,
        state=known.state,
        read=known.read,
        id=origin.id,
        image=image_reference(origin) or "",
        host=origin.host,
        reason=daemon.hidden.without(known.reason),
        last_record=_last(known.position),
        corrupt_lines=known.corrupt_lines,
        labels=nonsense(origin, sorted(daemon.router.routes | daemon.router.unopened)),
        routes={
            name: _route(daemon, route, known)
            for name, route in (daemon.router.routes | daemon.router.unopened).items()
        },
    )


def _route(daemon: Daemon, route: Route, known: Known) -> RouteOfContainer:
    origin = known.origin
    conditions = [Condition(text, holds) for text, holds in route.settings.match.explain(origin)]
    conditions += _label(origin, route.name, daemon)
    streams = route.settings.match.decide(origin)
    takes = bool(streams) and known.read != "ignored" and all(each.holds is not False for each in conditions)
    statistics = route.statistics()
    acknowledged, waiting = "", False
    of = route.of_origin(origin.key) if takes else OfOrigin()
    if takes and route.name in daemon.router.routes:
        acknowledged = _last(route.state.position(origin.key))
        waiting = _last(daemon.router.handed(route, origin)) > acknowledged
    return RouteOfContainer(
        takes=takes,
        sink=str(getattr(route.sink.options, "type", "")),
        conditions=conditions,
        streams=[stream for stream in STREAMS if stream in streams] if streams != ALL_STREAMS else [],
        acknowledged=acknowledged,
        delivered=full_time(of.delivered) if of.delivered else "",
        rejected=of.rejected,
        rejection=of.rejection,
        dropped=dict(statistics.dropped) if takes else {},
        spooled=statistics.queue.spooled_records,
        waiting=waiting,
        behind=takes and daemon.router.is_apart(route, origin),
        up=statistics.up,
        since=iso_time(int(statistics.since * 1e9)),
        reason=statistics.reason,
        paused=statistics.paused,
        hindrance=statistics.hindrance,
        last_delivery=iso_time(int(statistics.delivered_at * 1e9)) if statistics.delivered_at else "",
        answer=statistics.answer,
        lag_seconds=round(statistics.lag_s, 3),
    )


def _label(origin: Origin, route: str, daemon: Daemon) -> list[Condition]:
    """What the container's own label says of which routes may take it."""
    narrowed = allowed(origin, daemon.router.routes)
    if narrowed is None:
        return []
    return [Condition(f"its label {ROUTES}: {origin.labels[ROUTES]}", route in narrowed)]


def _last(position: Position | None) -> str:
    """The time of the last record before a position; empty if there is none."""
    if position is None:
        return ""
    return max((anchor.time for s in STREAMS if (anchor := position.of(s).anchor) is not None), default="")
