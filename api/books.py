"""What `/v1/stats` and `/v1/health` say, from the statistics of what runs. One synchronous step, no I/O."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import msgspec

from logroute import __version__
from logroute.processors import Metric
from logroute.router.books import Gaps, RouteStatistics
from logroute.router.times import iso_time

if TYPE_CHECKING:
    from logroute.router.daemon import Daemon
    from logroute.router.route import Route


MUCH = 0.8
"""Of its disk: a spool of which one should know."""
STILL_S = 60.0
"""So long nothing was acknowledged, though something waits."""


class Store(msgspec.Struct, frozen=True):
    """What waits in one place."""

    records: int
    bytes: int


class Queued(msgspec.Struct, frozen=True):
    """What waits for a delivery."""

    memory: Store
    disk: Store
    """The spool; its bytes are compressed."""


class RouteBooks(msgspec.Struct, frozen=True, omit_defaults=True):
    """`received = delivered + duplicates + rejected + sum(dropped) + queued + in_flight`, at any instant."""

    received: int
    delivered: int
    duplicates: int
    rejected: int
    dropped: dict[str, int]
    queued: Queued
    in_flight: int
    retried: int
    unconfirmed: int
    delivered_bytes: int
    """Of text, in deliveries that are finished."""
    dead_letters: int
    """How many are kept now."""
    dead_letters_dropped: int
    """Rejected records that are not kept: there were too many."""
    lag_seconds: float
    """Age of the oldest record that is not acknowledged."""
    up: bool
    since: str
    """Since when it is up, or is not."""
    lost: dict[str, Gaps] = {}
    """Gaps in the logs that it takes, by reason."""
    behind: bool = False
    reason: str = ""
    """Why it is not up."""
    hindrance: str = ""
    """What keeps it from reading on, or from storing what it has done, whatever the sink does."""
    paused: bool = False
    """It is not up because somebody wants that."""
    last_error: str = ""
    """Why it was not up the last time it was not."""
    failed: str = ""
    """When that was said last."""
    truncated: int = 0
    """Received records of which a part was discarded: they were longer than they may be."""
    sink: dict[str, int] = {}
    """What its sink has counted beside that: `connections`, `truncated` …"""


class SourceBooks(msgspec.Struct, frozen=True):
    """What a source has read."""

    records: int
    bytes: int


class ProcessorBooks(msgspec.Struct, frozen=True, omit_defaults=True):
    """`in = out + filtered + joined`, at any instant."""

    records_in: int = msgspec.field(name="in")
    out: int
    filtered: int
    """Taken out."""
    joined: int
    """Made part of another record."""
    failed: int
    """Passed through though they could not be treated."""
    metric: Metric | None = None
    """What it counts for the user."""


class DaemonFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which daemon this is."""

    version: str
    pid: int
    state_dir: str = ""
    began: str = ""


class Stats(msgspec.Struct, frozen=True):
    """All books at one instant."""

    time: str
    daemon: DaemonFacts
    routes: dict[str, RouteBooks]
    sources: dict[str, SourceBooks]
    unmatched: int
    processors: dict[str, ProcessorBooks]
    """By their places in the configuration; one that several routes share stands at its first."""


class RouteHealth(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether a route delivers."""

    delivers: bool
    since: str
    """Since when it does, or does not."""
    reason: str = ""
    """Why it does not."""
    lag_seconds: float = 0.0
    notes: tuple[str, ...] = ()
    """What somebody should know although it delivers."""
    paused: bool = False
    """It does not because somebody wants that."""


class SourceHealth(msgspec.Struct, frozen=True):
    """Whether a source reads everything."""

    notes: tuple[str, ...]
    """What it cannot read just now, and why."""


class ProcessorHealth(msgspec.Struct, frozen=True):
    """Whether a processor works, and leaves the others their turn."""

    notes: tuple[str, ...]


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether everything that is said is read, and arrives."""

    healthy: bool
    """All routes deliver, and all sources read."""
    routes: dict[str, RouteHealth]
    sources: dict[str, SourceHealth] = {}
    """Those of which there is something to say."""
    processors: dict[str, ProcessorHealth] = {}
    """Likewise, by their places in the configuration. They make nothing unhealthy: records go on."""


def stats_of(daemon: Daemon) -> Stats:
    router = daemon.router
    state_dir = daemon.plan.state_dir
    return Stats(
        iso_time(time.time_ns()),
        DaemonFacts(
            __version__,
            os.getpid(),
            str(state_dir) if state_dir is not None else "",
            _time(daemon.began),
        ),
        {name: _books(route.statistics()) for name, route in _routes(daemon).items()},
        {name: SourceBooks(read.records, read.bytes) for name, read in router.read.items()},
        router.unmatched,
        {
            stage.plan.name: ProcessorBooks(
                stage.books.records_in,
                stage.books.records_out,
                stage.books.filtered,
                stage.books.joined,
                stage.books.failed,
                stage.processor.metric(),
            )
            for stage in router.chains.stages
        },
    )


def health_of(daemon: Daemon) -> Health:
    routes = {name: _health(route.statistics()) for name, route in _routes(daemon).items()}
    sources = {
        name: SourceHealth(tuple(map(daemon.hidden.without, notes)))
        for name, source in daemon.sources.running.items()
        if (notes := list(filter(None, (daemon.sources.failure(name), *source.notes()))))
    }
    healthy = all(route.delivers for route in routes.values()) and not sources
    return Health(healthy, routes, sources, _processors(daemon))


def _processors(daemon: Daemon) -> dict[str, ProcessorHealth]:
    notes = daemon.watch.notes()
    for stage in daemon.router.chains.stages:
        if stage.raised:
            said = f"it raises {stage.raised}, see the log: {stage.books.failed} records went on as they were"
            notes.setdefault(stage.plan.name, []).append(said)
    return {name: ProcessorHealth(tuple(map(daemon.hidden.without, said))) for name, said in notes.items()}


def _routes(daemon: Daemon) -> dict[str, Route]:
    return daemon.router.routes | daemon.router.unopened


def _books(book: RouteStatistics) -> RouteBooks:
    queue = book.queue
    return RouteBooks(
        received=book.received,
        delivered=book.delivered,
        duplicates=book.duplicates,
        rejected=book.rejected,
        dropped=book.dropped,
        queued=Queued(
            Store(queue.records - queue.spooled_records, queue.memory_bytes),
            Store(queue.spooled_records, queue.spooled_bytes),
        ),
        in_flight=book.in_flight,
        retried=book.retried,
        unconfirmed=book.unconfirmed,
        truncated=book.truncated,
        dead_letters=book.dead_letters,
        dead_letters_dropped=book.dead_letters_dropped,
        lag_seconds=round(book.lag_s, 3),
        up=book.up,
        since=_time(book.since),
        lost=book.lost,
        behind=book.behind,
        reason=book.reason,
        hindrance=book.hindrance,
        paused=book.paused,
        delivered_bytes=book.delivered_bytes,
        last_error=book.last_error,
        failed=_time(book.failed_at) if book.failed_at else "",
        sink=book.sink_events,
    )


def _health(book: RouteStatistics) -> RouteHealth:
    notes = []
    if book.behind:
        notes.append("it is behind: the sink could not keep up")
    if book.hindrance and book.hindrance != book.reason:
        notes.append(book.hindrance)
    if book.disk_bytes and book.queue.spooled_bytes > MUCH * book.disk_bytes:
        share = book.queue.spooled_bytes / book.disk_bytes
        notes.append(f"its spool is {share:.0%} full: then it goes on as `queue.when_full` says")
    waits = book.queue.records + book.in_flight
    still_s = time.time() - max(book.delivered_at, book.since)
    if book.up and waits and book.lag_s > STILL_S and still_s > STILL_S:
        notes.append(f"{waits} records wait, and nothing was acknowledged for {still_s:.0f} s")
    if book.dead_letters:
        plural = "" if book.dead_letters == 1 else "s"
        notes.append(f"{book.dead_letters} dead letter{plural}: see `logroute deadletters`")
    if book.dead_letters_dropped:
        notes.append(f"{book.dead_letters_dropped} rejected records are not kept: there were too many")
    notes += [f"{records} records dropped: {reason}" for reason, records in book.dropped.items()]
    notes += [f"gaps in what could be read ({reason}): {gaps}" for reason, gaps in book.lost.items()]
    return RouteHealth(
        book.up, _time(book.since), book.reason, round(book.lag_s, 3), tuple(notes), book.paused
    )


def _time(seconds: float) -> str:
    return iso_time(int(seconds * 1e9))
