"""Times as nanoseconds since the epoch: columns at once, and each that is odd."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from struct import unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logroute.sinks.columns import FEW
from logroute.sinks.epoch import LAST_NS, epoch_ns, epoch_seconds, packed_ns

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(ns: int, *, trimmed: bool) -> str:
    seconds, part = divmod(ns, 10**9)
    text = (EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f".{part:09d}"
    return text + (digits.rstrip("0").rstrip(".") if trimmed else digits) + "Z"


_ns = st.integers(0, LAST_NS - 2 * 10**9) | st.integers(0, LAST_NS // 10**9 - 2).map(lambda s: s * 10**9)


@given(st.lists(st.tuples(_ns, st.booleans()), max_size=20))
def test_every_time_is_the_nanosecond_that_it_says(times: list[tuple[int, bool]]) -> None:
    texts = [rfc3339(ns, trimmed=trimmed) for ns, trimmed in times]
    assert [int(each) for each in epoch_ns(texts)] == [ns for ns, _ in times]
    assert [Decimal(each) * 10**9 for each in epoch_seconds(texts)] == [ns for ns, _ in times]


@given(st.lists(st.tuples(_ns | st.integers(0, 3 * 10**9), st.booleans()), min_size=FEW, max_size=40))
def test_times_that_rise_are_made_together_and_the_same(times: list[tuple[int, bool]]) -> None:
    texts = [rfc3339(ns, trimmed=trimmed) for ns, trimmed in sorted(times)]
    assert epoch_ns(texts) == [text for each in texts for text in epoch_ns([each])]
    assert epoch_seconds(texts) == [text for each in texts for text in epoch_seconds([each])]
    assert unpack(f"<{len(times)}Q", packed_ns(texts)) == tuple([ns for ns, _ in sorted(times)])


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "not a time",
        "1969-12-31T23:59:59.000000000Z",
        "2300-01-01T00:00:00.000000000Z",
        "2026-02-30T00:00:00Z",
        "2026-11-23T20:06:26.123456789+01:00",
        "٢026-11-23T20:06:26.123456789Z",
        "2026-11-23 20:06:26.123456789Z",
    ],
)
def test_what_is_no_such_time_is_zero_and_harms_none_beside_it(odd: str) -> None:
    good = "1970-01-01T00:00:01.5Z"
    assert epoch_ns([good, odd, good]) == ["1500000000", "0", "1500000000"]
    assert epoch_seconds([odd, good]) == ["0.000000000", "1.500000000"]


@given(st.lists(st.text(max_size=32), max_size=5))
def test_no_text_fails(texts: list[str]) -> None:
    assert len(epoch_ns(texts)) == len(texts)
