"""What `logroute top` knows: two looks at the daemon's books, and the rates between them.

A rate is a difference by the daemon's own clock. It is None, not 0, where there is nothing to compare with.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from logroute.api.books import RouteBooks, SourceBooks, Stats
from logroute.api.top import TalkerBooks, Top

ReadBooks = SourceBooks | TalkerBooks

SHORTEST_S = 0.05
"""Between two looks nearer than this there is no rate."""


class Look(msgspec.Struct, frozen=True):
    """The daemon's books at one instant, and who said most."""

    stats: Stats
    top: Top


class RouteRates(msgspec.Struct, frozen=True):
    """Of a route, in records a second, but for bytes."""

    received: float | None = None
    delivered: float | None = None
    """Also those that the receiver had already."""
    delivered_bytes: float | None = None
    retried: float | None = None
    rejected: float | None = None
    dropped: float | None = None


class ReadRates(msgspec.Struct, frozen=True):
    """Of a source or a container, a second."""

    records: float | None = None
    bytes: float | None = None


class Route(msgspec.Struct, frozen=True):
    rates: RouteRates
    books: RouteBooks


class Talker(msgspec.Struct, frozen=True):
    rates: ReadRates
    books: TalkerBooks


class Picture(msgspec.Struct, frozen=True):
    """What is shown, and what `-o json` prints."""

    time: str
    version: str
    pid: int
    began: str
    """Since when the daemon runs; empty if it does not say."""
    seconds: float | None
    """Between the two looks; null where there is one only, and no rate."""
    unmatched: int
    unmatched_rate: float | None
    sources: dict[str, ReadRates]
    routes: dict[str, Route]
    containers: list[Talker]
    """The noisiest first."""

    def total(self, what: str) -> float | None:
        """The sum of a rate over all routes."""
        known = [rate for route in self.routes.values() if (rate := getattr(route.rates, what)) is not None]
        return sum(known) if known else None

    def read(self, what: str) -> float | None:
        """The sum of a rate over all sources."""
        known = [rate for read in self.sources.values() if (rate := getattr(read, what)) is not None]
        return sum(known) if known else None


def same_daemon(before: Look, now: Look) -> bool:
    """It was not started anew between them: its books go on."""
    old, new = before.stats.daemon, now.stats.daemon
    return (old.pid, old.began) == (new.pid, new.began)


def picture_of(before: Look | None, now: Look) -> Picture:
    stats, daemon = now.stats, now.stats.daemon
    since = before if before is not None and same_daemon(before, now) else None
    seconds = _between(since.stats.time, stats.time) if since is not None else None
    old = since if seconds is not None else None
    talkers = _talkers(old, now)
    return Picture(
        time=stats.time,
        version=daemon.version,
        pid=daemon.pid,
        began=daemon.began,
        seconds=seconds,
        unmatched=stats.unmatched,
        unmatched_rate=_rate(old.stats.unmatched if old else None, stats.unmatched, seconds),
        sources={
            name: _read(old.stats.sources.get(name) if old else None, books, seconds)
            for name, books in stats.sources.items()
        },
        routes={
            name: Route(_route(old.stats.routes.get(name) if old else None, books, seconds), books)
            for name, books in stats.routes.items()
        },
        containers=talkers,
    )


def _between(before: str, now: str) -> float | None:
    """Seconds; None if there are too few, or the daemon's clock was set back."""
    try:
        seconds = (_moment(now) - _moment(before)).total_seconds()
    except ValueError:
        return None
    return seconds if seconds >= SHORTEST_S else None


def _moment(time: str) -> datetime:
    """Of nine digits of a second six."""
    return datetime.fromisoformat(time[:26].rstrip("Z"))


def _rate(before: int | None, now: int, seconds: float | None) -> float | None:
    """A count that is less than before began anew."""
    if before is None or seconds is None:
        return None
    return round((now - before if now >= before else now) / seconds, 3)


def _route(before: RouteBooks | None, now: RouteBooks, seconds: float | None) -> RouteRates:
    if before is None:
        return RouteRates()
    return RouteRates(
        received=_rate(before.received, now.received, seconds),
        delivered=_rate(before.delivered + before.duplicates, now.delivered + now.duplicates, seconds),
        delivered_bytes=_rate(before.delivered_bytes, now.delivered_bytes, seconds),
        retried=_rate(before.retried, now.retried, seconds),
        rejected=_rate(before.rejected, now.rejected, seconds),
        dropped=_rate(sum(before.dropped.values()), sum(now.dropped.values()), seconds),
    )


def _read(before: ReadBooks | None, now: ReadBooks, seconds: float | None) -> ReadRates:
    if before is None:
        return ReadRates()
    return ReadRates(
        _rate(before.records, now.records, seconds),
        _rate(before.bytes, now.bytes, seconds),
    )


def _talkers(before: Look | None, now: Look) -> list[Talker]:
    """By their bytes a second; those of which that is not known as the daemon has them, behind."""
    seconds = _between(before.top.time, now.top.time) if before is not None else None
    known = {_key(each): each for each in before.top.containers} if before is not None else {}
    talkers = [Talker(_read(known.get(_key(each)), each, seconds), each) for each in now.top.containers]
    return sorted(talkers, key=lambda talker: -(-1.0 if talker.rates.bytes is None else talker.rates.bytes))


def _key(talker: TalkerBooks) -> tuple[str, str]:
    return talker.source, talker.id or talker.name
