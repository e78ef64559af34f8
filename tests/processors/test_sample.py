"""Sampling: which records go on is decided by what they say, not by when they are read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from logroute.router.record import Origin
from tests.processors.conftest import WEB, Apply, batch, made, record
from tests.processors.test_windows import at


def test_a_trace_is_kept_whole_or_not_at_all(apply: Apply) -> None:
    given = [record(f"{n}", fields={"trace": f"t{n % 500}"}) for n in range(2000)]
    taken = apply("sample", *given, rate=0.1, by="fields.trace")
    traces = {each.fields["trace"] for each in taken if each.fields}
    assert taken == [each for each in given if each.fields and each.fields["trace"] in traces]
    assert 25 < len(traces) < 80


def test_without_a_path_each_record_is_decided_by_its_id_in_whatever_batch_it_comes(apply: Apply) -> None:
    given = [record(f"{n}", time=at(n)) for n in range(2000)]
    taken = apply("sample", *given, rate=0.5)
    assert 900 < len(taken) < 1100
    assert [each for one in given for each in apply("sample", one, rate=0.5)] == taken


def test_of_what_is_smaller_everything_is_in_what_is_larger(apply: Apply) -> None:
    given = [record(f"{n}", time=at(n)) for n in range(500)]
    small, large = (apply("sample", *given, rate=rate, by="message") for rate in (0.1, 0.3))
    assert [each for each in large if each in small] == small


@pytest.mark.parametrize(("rate", "count"), [(0, 0), (1, 100)])
def test_nothing_and_everything(apply: Apply, rate: float, count: int) -> None:
    assert len(apply("sample", *[record(f"{n}", time=at(n)) for n in range(100)], rate=rate)) == count


def test_where_the_path_is_absent_each_record_is_decided_by_itself(apply: Apply) -> None:
    taken = apply("sample", *[record("x", time=at(n)) for n in range(1000)], rate=0.5, by="fields.trace")
    assert 400 < len(taken) < 600


def test_what_is_the_same_for_a_container_is_decided_once() -> None:
    sample = made("sample", rate=0.5, by="container.name")
    counts = set()
    for n in range(40):
        origin = Origin(f"docker:{n}", "docker", name=f"web-{n}")
        counts.add(len(sample.apply(batch(record("a"), record("b"), origin=origin)) or ()))
    assert counts == {0, 2}


@given(st.recursive(st.none() | st.integers() | st.floats() | st.text(), st.lists))
def test_whatever_the_value_is(value: Any) -> None:
    given = batch(record("x", fields={"a": value}))
    once, again = (made("sample", rate=0.5, by="fields.a").apply(given) for _ in range(2))
    assert once is not None
    assert again is not None
    assert once.records == again.records


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "Field required"),
        ({"rate": 1.1}, "less than or equal to 1"),
        ({"rate": 0.1, "by": "field.x"}, 'did you mean "fields.x"?'),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        made("sample", **options)
    assert words in str(caught.value)


def test_origin_is_left_alone() -> None:
    assert made("sample", rate=1).apply(given := batch(record("x"))) is given
    assert given.origin is WEB
