"""Metrics: a counter or a histogram from records, by what they say. The records go on as they are."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, ClassVar, Literal

import msgspec
from pydantic import Field, field_validator, model_validator

from logroute.config.components import PROCESSORS
from logroute.processors import Metric, Processor, ProcessorOptions, Series
from logroute.router.match_values import number
from logroute.router.paths import path
from logroute.router.record import Batch, Origin, Record

LONGEST_LABEL = 200
"""So many characters of a value become a label."""
MOST_BUCKETS = 100
OTHER = "other"
"""What labels say where there are too many."""

OWN_NAMES = ("logroute_", "process_")
# https://prometheus.io/docs/concepts/data_model/#metric-names-and-labels
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")


class MetricsOptions(ProcessorOptions):
    """Count records, or what they say, by labels: shown on `/metrics` and in `/v1/stats`."""

    type: Literal["metrics"] = "metrics"
    name: str = Field(examples=["http_request_seconds"])
    """What it is called: letters, digits and `_`."""
    kind: Literal["counter", "histogram"] = "counter"
    """A sum, or how values are distributed."""
    value: str | None = Field(default=None, examples=["fields.duration"])
    """Path of the number that is added, or of which the distribution is wanted. Without it a counter counts
    records. Records in which it is absent are not counted."""
    labels: dict[str, str] = Field(default={}, examples=[{"status": "fields.status"}])
    """Paths of what is told apart, by the names of labels. What is absent is the empty text."""
    buckets: list[float] = Field(
        default=[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10], min_length=1
    )
    """Upper bounds of the histogram's buckets, rising."""
    max_series: int = Field(default=100, gt=0, le=10_000)
    """So many sets of labels are told apart; what comes beyond is summed up under labels that say `other`."""

    @field_validator("name")
    @classmethod
    def _name_is_one(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("expected a name of letters, digits and _, such as http_requests")
        if name.startswith(OWN_NAMES):
            raise ValueError(
                f"names that begin with {OWN_NAMES[0]} are logroute's own, and process_ the process's"
            )
        return name

    @field_validator("labels")
    @classmethod
    def _labels_are_some(cls, labels: dict[str, str]) -> dict[str, str]:
        for name, of in labels.items():
            if not _LABEL.fullmatch(name) or name == "le":
                raise ValueError(f"{name!r} cannot name a label: letters, digits and single _, but not le")
            path(of)
        return labels

    @field_validator("buckets")
    @classmethod
    def _buckets_rise(cls, buckets: list[float]) -> list[float]:
        if len(buckets) > MOST_BUCKETS:
            raise ValueError(f"more than {MOST_BUCKETS} buckets")
        if buckets != sorted(set(buckets)) or not all(map(math.isfinite, buckets)):
            raise ValueError("expected numbers of which each is greater than the one before")
        return buckets

    @model_validator(mode="after")
    def _value_is_known(self) -> MetricsOptions:
        if self.value is not None:
            path(self.value)
        elif self.kind == "histogram":
            raise ValueError("a histogram needs a `value`, such as fields.duration")
        return self


class _Sum(msgspec.Struct):
    """What a set of labels has come to."""

    value: float = 0
    count: int = 0
    buckets: list[int] = []
    """How many values are in each bucket by itself; the last has no upper bound."""


@PROCESSORS.register(MetricsOptions)
class MetricsProcessor(Processor[MetricsOptions]):
    """Its own of its route: it counts what it is given. Before routing it counts what the live reader gives,
    and not what is read again for a route that is behind."""

    changes: ClassVar[bool] = False
    separable: ClassVar[bool] = False

    def __init__(self, options: MetricsOptions) -> None:
        super().__init__(options)
        self._value = path(options.value).of_record if options.value is not None else None
        self._labels = [path(of) for of in options.labels.values()]
        self._buckets = options.buckets if options.kind == "histogram" else []
        self._sums: dict[tuple[str, ...], _Sum] = {}
        self._other = (OTHER,) * len(self._labels)

    def apply(self, batch: Batch) -> Batch:
        if batch.reader is not None and batch.reader.routes is not None:
            return batch
        origin, records = batch.origin, batch.lines
        if self._value is None and all(each.constant for each in self._labels):
            if records:
                self._add(self._sum(self._labels_of(origin, None)), len(records), len(records))
            return batch
        for record in batch.records:
            value = self._number(origin, record)
            if value is not None:
                self._add(self._sum(self._labels_of(origin, record)), value, 1)
        return batch

    def metric(self) -> Metric:
        bounds = [*map(str, self._buckets), "+Inf"]
        return Metric(
            self.options.name,
            self.options.kind,
            [
                Series(
                    dict(zip(self.options.labels, labels, strict=True)),
                    each.value,
                    each.count if self._buckets else None,
                    dict(zip(bounds, accumulate(each.buckets), strict=True)) if self._buckets else {},
                )
                for labels, each in self._sums.items()
            ],
        )

    def _number(self, origin: Origin, record: Record) -> float | None:
        """What it counts for; None where that is absent, or, which is counted, cannot be counted with."""
        if self._value is None:
            return 1
        value = self._value(origin, record)
        if value is None:
            return None
        found = (
            number(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
        )
        # A counter never goes down: whoever reads it would take it for a restart.
        least = -math.inf if self._buckets else 0
        try:
            counted = None if found is None else float(found)
        except OverflowError:
            counted = None
        if counted is None or not math.isfinite(counted) or counted < least:
            self.books.failed += 1
            return None
        return counted

    def _labels_of(self, origin: Origin, record: Record | None) -> tuple[str, ...]:
        values: list[Any] = []
        for each in self._labels:
            if each.of_origin is not None:
                values.append(each.of_origin(origin))
            elif record is not None:
                values.append(each.of_record(origin, record))
        return tuple(["" if value is None else str(value)[:LONGEST_LABEL] for value in values])

    def _sum(self, labels: Sequence[str]) -> _Sum:
        labels = tuple(labels)
        found = self._sums.get(labels)
        if found is None:
            if len(self._sums) >= self.options.max_series:
                labels = self._other
            found = self._sums.setdefault(labels, _Sum(buckets=[0] * (len(self._buckets) + 1)))
        return found

    def _add(self, to: _Sum, value: float, count: int) -> None:
        total = to.value + value
        if not math.isfinite(total):  # it would be infinite for ever
            self.books.failed += count
            return
        to.value = total
        to.count += count
        if self._buckets:
            to.buckets[bisect_left(self._buckets, value)] += 1
