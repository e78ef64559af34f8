"""Times in fields: layouts, zones, and what is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from logroute.processors._layouts import USUAL, Layout, Layouts
from logroute.processors._times import BEYOND, parse_time, parse_times
from logroute.router.record import Record
from tests.processors.conftest import TIME, batch, made, record


def parsed(value: Any, **options: Any) -> Record:
    [found] = made("timestamp", **options).apply(batch(record("x", fields={"time": value}))).records  # type: ignore[union-attr]
    return found


@pytest.mark.parametrize(
    "said",
    [
        "2026-11-23T20:06:25Z",
        "2026-11-23 21:06:25 +0100",
        "23/Nov/2026:20:06:25 +0000",
        "23/Nov/2026:20:06:25",
        "2026/11/23 20:06:25",
        "Mon, 23 Nov 2026 20:06:25 GMT",
        "Mon, 23 Nov 2026 12:06:25 -0800",
        "Mon Nov 23 20:06:25 2026",
        "23 Nov 2026 20:06:25.000",
        "Nov 23 20:06:25",
        "23.11.2026 20:06:25",
        1795464385,
        "1795464385",
    ],
)
def test_usual_times_are_known(said: Any) -> None:
    found = parsed(said)
    assert (found.time, found.logged) == ("2026-11-23T20:06:25.000000000Z", TIME)
    assert (found.fields, found.error) == ({}, "")


@pytest.mark.parametrize(
    ("said", "part"),
    [
        (1795464385.123, "123000000"),
        (1795464385.12, "120000000"),
        (1795464385.1234567, "123456700"),
        (1795464385.7071068, "707106800"),
        (1795464385123.456, "123456000"),
        (1795464385123456.8, "123456800"),
        (1795464385123456768.0, "123456768"),
        ("1795464385.123456789", "123456789"),
        (1795464385.0, "000000000"),
    ],
)
def test_numbers_mean_what_was_written(said: float | str, part: str) -> None:
    assert parsed(said).time == f"2026-11-23T20:06:25.{part}Z"


@pytest.mark.parametrize(
    "said",
    ["2026-W48-1T20:06:26.5Z", "2026-11-23T20:06+01.5Z", "2026-11-23T200626.1.5Z", "2026-11-23T20:06:٢٦.5Z"],
)
def test_what_only_python_takes_for_a_time_is_none(said: str) -> None:
    assert parse_time(said) is None
    assert parse_times([said, said]) is None


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2261, 1, 1)),
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
    st.sampled_from("T "),
)
def test_iso_times_with_an_offset_are_what_python_means_by_them(
    at: datetime, zone: timezone, sep: str
) -> None:
    written = at.replace(tzinfo=zone).isoformat(sep, "microseconds")
    utc = at.replace(tzinfo=zone).astimezone(UTC)
    assert parse_time(written) == f"{utc:%Y-%m-%dT%H:%M:%S.%f}000Z"
    assert parse_time(written[:-6]) == f"{at:%Y-%m-%dT%H:%M:%S.%f}000Z"
    assert parse_time(f"{written[:-6]}789{written[-6:]}") == f"{utc:%Y-%m-%dT%H:%M:%S.%f}789Z"


@given(st.integers(0, 4 * 10**15))
def test_microseconds_as_a_float_of_seconds_are_exact(time_us: int) -> None:
    time = parse_time(time_us / 10**6)
    assert time == f"{datetime(1970, 1, 1) + timedelta(microseconds=time_us):%Y-%m-%dT%H:%M:%S.%f}000Z"


@pytest.mark.parametrize(
    ("layout", "said", "time"),
    [
        ("%Y-%m-%d %H:%M:%S,%f", "2026-11-23 20:06:25,123456789", "20:06:25.123456789"),
        ("%Y-%m-%d %H:%M:%S,%f", "2026-11-23 20:06:25", "20:06:25.000000000"),
        ("%F %T%z", "2026-11-23 21:06:25+01:00", "20:06:25.000000000"),
        ("%F %I:%M %p", "2026-11-23 12:07 am", "00:07:00.000000000"),
        ("%F %I:%M %p", "2026-11-23 12:07 PM", "12:07:00.000000000"),
        ("%d %B %y %R", "23 November 26 20:06", "20:06:00.000000000"),
        ("[%D|%T] 100%%", "[11/23/26|20:06:25] 100%", "20:06:25.000000000"),
    ],
)
def test_layouts(layout: str, said: str, time: str) -> None:
    found = parsed(said, layouts=["%H:%M %d.%m.", layout])
    assert (found.time, found.error) == (f"2026-11-23T{time}Z", "")


@pytest.mark.parametrize(
    ("zone", "said", "time"),
    [
        ("Europe/Berlin", "2026-11-23 21:06:25", "2026-11-23T20:06:25"),
        ("Europe/Berlin", "2026-11-23 20:06:25Z", "2026-11-23T20:06:25"),
        ("+05:30", "2026-11-24T01:36:25", "2026-11-23T20:06:25"),
        ("-0800", "Nov 23 12:06:25", "2026-11-23T20:06:25"),
    ],
)
def test_times_without_a_zone_are_in_that_which_is_said(zone: str, said: str, time: str) -> None:
    assert parsed(said, zone=zone).time == f"{time}.000000000Z"


def test_a_year_that_is_not_said_is_the_one_that_brings_the_time_nearest() -> None:
    layout = Layout("%b %d %H:%M:%S")
    new_year, old_year = "2027-01-01T00:00:01.000000000Z", "2026-12-31T23:59:59.000000000Z"
    assert layout.parse("Dec 31 23:59:59", new_year) == old_year
    assert layout.parse("Jan  1 00:00:01", old_year) == new_year
    assert layout.parse("Feb 29 00:00:00", "2026-03-01T00:00:00.000000000Z") is None


@pytest.mark.parametrize(
    "said", ["yesterday", "", "x" * (1 << 20), None, True, [1], {}, "2026-02-31 00:00:00",
             float("nan"), 1 << 80]
)  # fmt: skip
def test_what_is_no_time_stays_a_field_with_a_mark_and_is_counted(said: Any) -> None:
    processor = made("timestamp")
    [found] = processor.apply(batch(record("x", fields={"time": said}))).records  # type: ignore[union-attr]
    assert (found.time, found.logged) == (TIME, "")
    assert found.fields is not None
    assert found.fields["time"] is said
    assert found.error == "time: has none of the layouts"  # what was there the field says
    assert processor.books.failed == 1


def test_a_time_far_from_the_engines_stays_a_field_with_a_mark() -> None:
    for said in (
        "1970-01-02T00:00:00Z",
        "9999-12-31T00:00:00Z",
        "1960-01-01 00:00:00",
        "0001-01-01T00:00:00Z",
    ):
        found = parsed(said)
        assert (found.time, found.fields) == (TIME, {"time": said})
        assert "7 days" in found.error


def test_a_record_without_the_field_passes_by() -> None:
    [found] = made("timestamp", field="a.b").apply(batch(record("x", fields={"a": 1}))).records  # type: ignore[union-attr]
    assert found == record("x", fields={"a": 1})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layouts": ["%H:%M"]}, "no day of the year"),
        ({"layouts": ["%F"]}, "no time of the day"),
        ({"layouts": ["%F %T %Q"]}, "there is no %Q"),
        ({"layouts": ["%F %T %"]}, "there is no %"),
        ({"layouts": ["%F %T %H"]}, "twice"),
        ({"zone": "Mars/Base"}, "no time zone"),
        ({"zone": "../etc/passwd"}, "no time zone"),
        ({"zone": "+99:00"}, "day or more"),
    ],
)
def test_layouts_and_zones_that_mean_nothing_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        made("timestamp", **options)


@given(st.datetimes(datetime(1971, 1, 1), datetime(2261, 1, 1)), st.sampled_from(USUAL))
def test_what_strftime_writes_is_read_again(at: datetime, text: str) -> None:
    at = at.replace(tzinfo=UTC, microsecond=at.microsecond if "%f" in text else 0)
    written = at.strftime(text.replace("%Y", f"{at.year:04d}"))
    found = Layout(text).parse(written, at.isoformat())
    assert found == f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond * 1000:09d}Z"


@given(
    st.text() | st.integers() | st.floats() | st.from_regex(r"\d{1,4}[-/. ](\d\d|[A-Z][a-z]{2})[-/. ]\d\d.*")
)
def test_whatever_is_given_is_a_time_or_none(value: Any) -> None:
    time = Layouts([]).parse(value, TIME)
    assert (
        time is None or time.startswith(BEYOND) or (len(time) == len(TIME) and "1970" <= time[:4] <= "2262")
    )
