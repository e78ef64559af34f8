"""`/metrics`: the books as Prometheus and OpenMetrics have them. Read when they are asked for, never pushed.

Nothing is counted here: every number is one of the books' (`api/books.py`), at one instant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from logroute import __version__
from logroute.processors import Metric as UserMetric
from logroute.router.books import BOUNDS_S, RouteStatistics
from logroute.router.queue import QueueStatistics

if TYPE_CHECKING:
    from logroute.router.daemon import Daemon

ROUTE = ["route"]
# A series that begins with its first event shows no increase by it: rules would miss that.
DROPPED = ("damaged", "full", "gone")
"""Reasons that are there from the beginning."""
LOST = ("removed", "rotated", "unreadable")
"""Likewise."""
ROUTE_COUNTERS = {
    "received": "Records that entered the route's queue, behind its processors.",
    "delivered": "Records that the receiver has taken.",
    "duplicates": "Records that the receiver had already.",
    "rejected": "Records that the receiver will never take: see the dead letters.",
    "retried": "Records that were sent again.",
    "unconfirmed": "Delivered records of which nobody can tell whether the receiver has read them.",
    "truncated": "Received records of which a part was discarded, because they were too long.",
}
PROCESSOR_COUNTERS = {
    "in": ("records_in", "Records that the processor was given."),
    "out": ("records_out", "Records that went on."),
    "filtered": ("filtered", "Records that were taken out."),
    "joined": ("joined", "Records that became part of another."),
    "failed": ("failed", "Records that went on though they could not be treated."),
}


class BooksCollector:
    """The families of a daemon's books."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("logroute_build", "Which logroute this is.", {"version": __version__})
        yield from self._sources()
        yield from self._routes()
        yield from self._processors()
        yield from _users(
            [metric for stage in self._daemon.router.chains.stages if (metric := stage.processor.metric())]
        )

    def _sources(self) -> Iterator[Metric]:
        read = self._daemon.router.read
        records = CounterMetricFamily(
            "logroute_source_records", "Records that the source has read.", labels=["source"]
        )
        size = CounterMetricFamily(
            "logroute_source_bytes", "Bytes of text that the source has read.", labels=["source"]
        )
        for name, books in read.items():
            records.add_metric([name], books.records)
            size.add_metric([name], max(0, books.bytes))
        containers = GaugeMetricFamily(
            "logroute_containers",
            "Containers, or files, by how they are read: file, api, ignored, waiting.",
            labels=["source", "read"],
        )
        errors = CounterMetricFamily(
            "logroute_source_errors", "What has gone wrong while reading.", labels=["source", "reason"]
        )
        for name, source in self._daemon.sources.running.items():
            ways = Counter(each.read for each in source.known() if each.state == "running")
            for way in ("file", "api", "ignored", "waiting"):
                containers.add_metric([name, way], ways[way])
            for reason, count in source.context.errors.items():
                errors.add_metric([name, reason], count)
        unmatched = CounterMetricFamily("logroute_unmatched_records", "Records that no route takes.")
        unmatched.add_metric([], self._daemon.router.unmatched)
        yield from (records, size, containers, errors, unmatched)

    def _routes(self) -> Iterator[Metric]:
        routes = self._daemon.router.routes | self._daemon.router.unopened
        books = {name: route.statistics() for name, route in routes.items()}
        for word, help_ in ROUTE_COUNTERS.items():
            yield _family(
                CounterMetricFamily(f"logroute_route_{word}_records", help_, labels=ROUTE),
                {(name,): getattr(book, word) for name, book in books.items()},
            )
        yield _family(
            CounterMetricFamily(
                "logroute_route_dropped_records",
                "Records that were given up, by reason.",
                labels=["route", "reason"],
            ),
            {
                (name, reason): book.dropped.get(reason, 0)
                for name, book in books.items()
                for reason in {*DROPPED, *book.dropped}
            },
        )
        yield _family(
            CounterMetricFamily(
                "logroute_route_lost_gaps",
                "Gaps in what could be read for the route: records were gone before that.",
                labels=["route", "reason"],
            ),
            {
                (name, reason): gaps.gaps if (gaps := book.lost.get(reason)) else 0
                for name, book in books.items()
                for reason in {*LOST, *book.lost}
            },
        )
        yield _family(
            CounterMetricFamily(
                "logroute_route_delivered_bytes", "Bytes of text in deliveries.", labels=ROUTE
            ),
            {(name,): book.delivered_bytes for name, book in books.items()},
        )
        yield _family(
            CounterMetricFamily(
                "logroute_route_dead_letters_dropped_records",
                "Rejected records that are not kept: there were too many.",
                labels=ROUTE,
            ),
            {(name,): book.dead_letters_dropped for name, book in books.items()},
        )
        yield _family(
            CounterMetricFamily(
                "logroute_route_sink_events",
                "What the route's sink has counted, by its own words: connections, truncated messages.",
                labels=["route", "event"],
            ),
            {(name, event): n for name, book in books.items() for event, n in book.sink_events.items()},
        )
        yield from _gauges(books)
        yield _durations(books)

    def _processors(self) -> Iterator[Metric]:
        stages = self._daemon.router.chains.stages
        for word, (attribute, help_) in PROCESSOR_COUNTERS.items():
            family = CounterMetricFamily(f"logroute_processor_{word}_records", help_, labels=["processor"])
            for stage in stages:
                family.add_metric([stage.plan.name], getattr(stage.books, attribute))
            yield family


def _durations(books: Mapping[str, RouteStatistics]) -> Metric:
    seconds = HistogramMetricFamily(
        "logroute_route_delivery_seconds",
        "How long deliveries took, from the first attempt to the receiver's word.",
        labels=ROUTE,
    )
    bounds = [*map(str, BOUNDS_S), "+Inf"]
    for name, book in books.items():
        counts = accumulate(book.durations.counts)
        seconds.add_metric([name], list(zip(bounds, counts, strict=True)), book.durations.sum_s)
    return seconds


def _gauges(books: Mapping[str, RouteStatistics]) -> Iterator[Metric]:
    """What there is of each route now."""
    for name, help_, value in (
        (
            "up",
            "Whether the last attempt at a delivery succeeded, and not all is rejected.",
            lambda book: int(book.up),
        ),
        (
            "behind",
            "Whether the sink could not keep up, and not all is delivered.",
            lambda book: int(book.behind),
        ),
        ("lag_seconds", "Age of the oldest record not yet acknowledged.", lambda book: book.lag_s),
        ("in_flight_records", "Records in deliveries that are under way.", lambda book: book.in_flight),
        ("dead_letters_records", "Dead letters that are kept.", lambda book: book.dead_letters),
        ("dead_letters_bytes", "What dead letters take.", lambda book: book.dead_letter_bytes),
    ):
        yield _family(
            GaugeMetricFamily(f"logroute_route_{name}", help_, labels=ROUTE),
            {(route,): value(book) for route, book in books.items()},
        )
    stores: dict[str, Callable[[QueueStatistics], tuple[int, int]]] = {
        "records": lambda q: (q.records - q.spooled_records, q.spooled_records),
        "bytes": lambda q: (q.memory_bytes, q.spooled_bytes),
    }
    for what, values in stores.items():
        family = GaugeMetricFamily(
            f"logroute_route_queue_{what}",
            f"What waits for a delivery, in {what}; on the disk compressed.",
            labels=["route", "store"],
        )
        for route, book in books.items():
            for store, amount in zip(("memory", "disk"), values(book.queue), strict=True):
                family.add_metric([route, store], amount)
        yield family


def _family(family: Any, values: Mapping[Sequence[str], float]) -> Metric:
    for labels, value in values.items():
        family.add_metric(list(labels), value)
    made: Metric = family
    return made


def _users(metrics: Sequence[UserMetric]) -> Iterator[Metric]:
    """What `type: metrics` counts. Those of one name are added up, if they are of the first one's kind."""
    by_name: dict[str, list[UserMetric]] = {}
    for metric in metrics:
        by_name.setdefault(metric.name, []).append(metric)
    for name, found in by_name.items():
        kind = found[0].kind
        series: dict[tuple[tuple[str, str], ...], tuple[float, dict[str, float]]] = {}
        for metric in found:
            for each in metric.series if metric.kind == kind else ():
                labels = tuple(sorted(each.labels.items()))
                value, buckets = series.get(labels, (0.0, {}))
                added = {bound: buckets.get(bound, 0) + count for bound, count in each.buckets.items()}
                series[labels] = value + each.value, added
        names = sorted({name for labels in series for name, _ in labels})
        help_ = "Counted by a processor of the configuration."
        family: Any = (
            HistogramMetricFamily(name, help_, labels=names)
            if kind == "histogram"
            else CounterMetricFamily(name, help_, labels=names)
        )
        for labels, (value, buckets) in series.items():
            of = [dict(labels).get(label, "") for label in names]
            if kind == "histogram":
                family.add_metric(of, list(buckets.items()), value)
            else:
                family.add_metric(of, value)
        yield family


async def answer(daemon: Daemon, request: Request) -> Response:
    """All of them, in the form that is asked for."""
    registry = CollectorRegistry()
    registry.register(BooksCollector(daemon))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), headers={"content-type": content_type, "cache-control": "no-store"})
