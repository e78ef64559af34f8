"""Durations, sizes and starts: what people write, and what is written back."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from logroute.config.types import (
    LARGEST_BYTES,
    LONGEST_S,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
    parse_start,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("5m", 300),
        ("24h", 86400),
        ("7d", 604800),
        ("2w", 1209600),
        ("1.5h", 5400),
        (" 5 s ", 5),
        ("0s", 0),
        ("36525d", LONGEST_S),
    ],
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (30, "a duration needs a unit: 30s or 30m?"),
        (1.5, "a duration needs a unit: 1.5s or 1.5m?"),
        ("30", "a duration needs a unit: 30s or 30m?"),
        (86400, "a duration needs a unit: 86400s or 86400m?"),
        ("36526d", "longer than a hundred years"),
        ("9" * 400 + "s", "longer than a hundred years"),
        *(
            (value, "expected a duration such as 500ms, 30s, 5m, 24h or 7d")
            for value in ("s", "", "-5s", "5 min", "5S", "1e3s", "٣s", "1h30m", True, None, [], -3)
        ),
        (float("nan"), "expected a duration such as 500ms, 30s, 5m, 24h or 7d"),
        (float("inf"), "expected a duration such as 500ms, 30s, 5m, 24h or 7d"),
    ],
)
def test_what_is_no_duration_is_told(value: Any, said: str) -> None:
    with pytest.raises(PydanticCustomError, match=f"^{re.escape(said)}$"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64KiB", 65536),
        ("5MB", 5_000_000),
        ("2GiB", 2 << 30),
        ("1TiB", 1 << 40),
        ("1kB", 1000),
        ("1KB", 1000),
        ("7B", 7),
        ("7", 7),
        (7, 7),
        (0, 0),
        ("1.5KiB", 1536),
        (" 5 MiB ", 5 << 20),
        ("9223372036854775807", LARGEST_BYTES),
    ],
)
def test_a_size_is_a_number_of_bytes_with_or_without_a_unit(text: Any, size: int) -> None:
    assert parse_size(text) == size
    assert type(parse_size(text)) is int


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("9223372036854775808", "larger than anything there is"),
        (1 << 63, "larger than anything there is"),
        ("9" * 5000, "larger than anything there is"),
        ("9" * 5000 + ".5TiB", "larger than anything there is"),
        *(
            (value, "expected a size such as 64KiB, 5MB or 2GiB")
            for value in ("5mb", "5 M", "big", "", "-1", -1, 1.5, True, None, [], "5 KiBs", "٣B", "1e3")
        ),
    ],
)
def test_what_is_no_size_is_told(value: Any, said: str) -> None:
    with pytest.raises(PydanticCustomError, match=f"^{re.escape(said)}$"):
        parse_size(value)


@pytest.mark.parametrize(("text", "start"), [("now", "now"), ("beginning", "beginning"), ("2h", 7200.0)])
def test_a_start_is_a_word_or_a_duration(text: str, start: Any) -> None:
    assert parse_start(text) == start


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("Now", 'expected now, beginning or a duration such as 2h; did you mean "now"?'),
        ("begin", 'expected now, beginning or a duration such as 2h; did you mean "beginning"?'),
        ("yesterday", "expected now, beginning or a duration such as 2h"),
        ("", "expected now, beginning or a duration such as 2h"),
        ("2 hours", "expected a duration such as 500ms, 30s, 5m, 24h or 7d"),
        (5, "a duration needs a unit: 5s or 5m?"),
        ([], "expected a duration such as 500ms, 30s, 5m, 24h or 7d"),
    ],
)
def test_what_is_no_start_is_told(value: Any, said: str) -> None:
    with pytest.raises(PydanticCustomError, match=f"^{re.escape(said)}$"):
        parse_start(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.5, "500ms"), (0, "0ms"), (1, "1s"), (60, "1m"), (90, "90s"), (3600, "1h"), (86400, "1d")),
        *((604800, "7d"), (0.1, "100ms"), (1.5, "1500ms"), (0.0005, "0.0005s"), (31536000, "365d")),
    ],
)
def test_a_duration_is_written_with_the_unit_that_fits(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(min_value=0, max_value=int(LONGEST_S * 1000)))
def test_a_duration_that_was_written_means_the_same(ms: int) -> None:
    assert parse_duration(format_duration(ms / 1000)) == pytest.approx(ms / 1000, abs=1e-6)


@given(st.integers(min_value=0, max_value=LARGEST_BYTES))
def test_a_size_that_was_written_means_the_same(size: int) -> None:
    assert parse_size(format_size(size)) == size
