"""Counters and histograms from records, with a bound on how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from logroute.processors import Metric
from logroute.router.chain import Chain, Stage, StagePlan
from logroute.router.match import EVERYTHING
from logroute.router.record import Batch, Origin, Record
from tests.processors.conftest import batch, made, record


def counted(*records: Record, **options: Any) -> Metric:
    processor = made("metrics", name="n", **options)
    given = batch(*records)
    assert processor.apply(given) is given
    metric = processor.metric()
    assert metric is not None
    return metric


def series(metric: Metric) -> list[tuple[dict[str, str], float]]:
    return [(each.labels, each.value) for each in metric.series]


def said(*fields: Any) -> list[Record]:
    return [record(fields=each) for each in fields]


def test_records_are_counted_by_labels() -> None:
    given = said({"status": 200}, {"status": 200}, {"status": "404"}, None)
    metric = counted(*given, labels={"status": "fields.status", "name": "container.name"})
    assert (metric.name, metric.kind) == ("n", "counter")
    assert series(metric) == [
        ({"status": "200", "name": "web-1"}, 2),
        ({"status": "404", "name": "web-1"}, 1),
        ({"status": "", "name": "web-1"}, 1),
    ]


def test_without_labels_of_records_a_batch_is_one_sum() -> None:
    assert series(counted(*said(None, None), labels={"name": "container.name"})) == [({"name": "web-1"}, 2)]
    assert series(counted(*said(None, None))) == [({}, 2)]
    assert series(counted()) == []


def test_values_are_added_and_what_is_no_number_is_counted_as_failed() -> None:
    values = (1.5, "2", -1, True, "x", [1], None, 10**400)
    processor = made("metrics", name="n", value="fields.n")
    processor.apply(batch(*said(*({"n": value} for value in values), None)))
    metric = processor.metric()
    assert metric is not None
    assert series(metric) == [({}, 3.5)]
    assert processor.books.failed == 5


@pytest.mark.parametrize("kind", ["counter", "histogram"])
def test_what_a_stranger_writes_makes_no_sum_infinite(kind: str) -> None:
    processor = made("metrics", name="n", kind=kind, value="fields.n")
    processor.apply(batch(*said({"n": 1e308}, {"n": 1e308}, {"n": 1})))
    metric = processor.metric()
    assert metric is not None
    assert series(metric) == [({}, 1e308)]
    assert metric.series[0].count == (2 if kind == "histogram" else None)
    assert processor.books.failed == 1


def test_a_histogram_counts_what_is_at_most_each_bound() -> None:
    given = said({"n": 0.1}, {"n": 1}, {"n": "1.5"}, {"n": 7}, {"n": -1})
    [found] = counted(*given, kind="histogram", value="fields.n", buckets=[1, 2]).series
    assert (found.count, found.value, found.buckets) == (5, 8.6, {"1.0": 3, "2.0": 4, "+Inf": 5})


def test_labels_beyond_the_bound_are_summed_up_and_long_ones_are_cut() -> None:
    given = said(*({"user": f"{n}" * 300} for n in range(5)), {"user": "0" * 300})
    metric = counted(*given, labels={"user": "fields.user"}, max_series=2)
    assert series(metric) == [
        ({"user": "0" * 200}, 2), ({"user": "1" * 200}, 1), ({"user": "other"}, 3),
    ]  # fmt: skip


class Reads:
    cheap = True

    def __init__(self, routes: frozenset[str] | None) -> None:
        self.routes = routes


@pytest.mark.parametrize(("owns", "count"), [(True, 2), (False, 4)])
async def test_before_routing_what_is_read_for_one_that_is_behind_is_not_counted_twice(
    owns: bool, count: int
) -> None:
    plan = StagePlan("metrics", EVERYTHING, lambda: made("metrics", name="n"), "x", separable=False)
    first = StagePlan("first", EVERYTHING, lambda: made("redact", patterns=["x"]), "y")
    stages = [Stage(first), Stage(plan)]
    chain = Chain(stages, owns=owns)
    readers: Sequence[Reads | None] = (None, Reads(None), Reads(frozenset({"behind"})), Reads(frozenset()))
    for reader in readers:
        read: Batch = batch(record("x"))
        read.reader = reader
        await chain.apply(read, {})
    metric = stages[1].processor.metric()
    assert metric is not None
    assert series(metric) == [({}, count)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "a b"}, "expected a name of letters"),
        ({"labels": {"le": "stream"}}, "cannot name a label"),
        ({"labels": {"__x": "stream"}}, "cannot name a label"),
        ({"labels": {"x": "strean"}}, 'did you mean "stream"?'),
        ({"value": "field.x"}, 'did you mean "fields.x"?'),
        ({"kind": "histogram"}, "a histogram needs a `value`"),
        ({"kind": "histogram", "value": "fields.x", "buckets": [1, 1]}, "greater than the one before"),
        ({"buckets": []}, "at least 1"),
        ({"max_series": 0}, "greater than 0"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        made("metrics", **{"name": "n", **options})
    assert words in str(caught.value)


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists)


@given(st.lists(VALUES, max_size=20))
def test_whatever_comes_is_counted_or_failed(values: list[Any]) -> None:
    processor = made(
        "metrics", name="n", kind="histogram", value="fields.n", labels={"n": "fields.n"}, max_series=3
    )
    processor.apply(batch(*said(*({"n": value} for value in values))))
    metric = processor.metric()
    assert metric is not None
    assert len(metric.series) <= 4
    counts = sum(each.count or 0 for each in metric.series)
    assert counts + processor.books.failed == sum(value is not None for value in values)


def test_an_origin_with_another_name_is_another_label() -> None:
    processor = made("metrics", name="n", labels={"name": "container.name"})
    for name in ("a", "b", "a"):
        processor.apply(batch(record(), origin=Origin(name, "docker", name=name)))
    metric = processor.metric()
    assert metric is not None
    assert series(metric) == [({"name": "a"}, 2), ({"name": "b"}, 1)]
