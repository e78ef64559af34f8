"""Times as programs write them, as records have them: RFC 3339, UTC, nine digits."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from logroute.router.record import DetailedRecord
from logroute.router.times import TIME_LENGTH, are_times, iso_time

FURTHEST = timedelta(days=7)
"""A time that is further from the engine's is not believed: it would make an index of its own."""

_SECOND = "2026-11-23T20:06:26."
_SECONDS, _DATE = slice(len(_SECOND)), slice(len("2026-11-23"))

EARLIEST_NS, LATEST_NS = 0, 9_223_372_036_000_000_000
"""What `date_nanos` holds: from 1970 to April 2262."""
BEYOND = "9999-12-31T23:59:59."
"""What times that nobody can store are taken for, to the second: far from any engine's, see `adopt`."""

_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,18}))?\s?(Z|z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?",
    re.ASCII,
)
_NUMBER = re.compile(r"\d{1,19}(?:\.\d{1,9})?", re.ASCII)
# By its size a number says its unit: seconds until 2286, then thousandths of that.
_UNITS = ((10**10, 10**9), (10**13, 10**6), (10**16, 10**3), (10**19, 1))


def parse_time(value: Any) -> str | None:
    """A time as text or number: ISO 8601 in any of its usual forms, or seconds, ms, µs or ns since 1970.

    None if it is none; `BEYOND` if nobody can store it. Without a zone it is in UTC.
    """
    if isinstance(value, str):
        if len(value) <= TIME_LENGTH and value[-1:] == "Z" and value[19:20] == "." and _is_utc(value[:20]):
            digits = value[20:-1]
            if digits.isdecimal() and digits.isascii():
                return value if len(value) == TIME_LENGTH else f"{value[:20]}{digits:0<9}Z"
        if found := _ISO.fullmatch(value):
            return _from_iso(*found.groups())
        if _NUMBER.fullmatch(value):
            whole, _, part = value.partition(".")
            return _from_number(int(whole), int(part.ljust(9, "0")) if part else 0)
        return None
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return _from_number(value, 0) if value >= 0 else None
    if isinstance(value, float) and 0 <= value < 1e19:
        # What was written is the shortest text that means it: .123, and not .122999907, which is stored.
        text = repr(value)
        whole, _, part = (f"{value:.9f}" if "e" in text else text).partition(".")
        return _from_number(int(whole), int(part[:9].ljust(9, "0")))
    return None


def parse_times(values: Sequence[Any]) -> list[str] | None:
    """`parse_time` of many, which are mostly alike; None if one of them is no time."""
    if not values:
        return []
    if [*map(type, values)].count(str) == len(values):
        given = values
        if values[0][-6:] == "+00:00" and all([value[-6:] == "+00:00" for value in values]):  # noqa: C419
            values = [value[:-6] + "Z" for value in values]  # as Python's isoformat and MongoDB have it
        lengths = set(map(len, values))
        length = min(lengths)
        if len(lengths) == 1 and len(_SECOND) + 1 < length <= TIME_LENGTH:
            ends, padding = "".join(values)[length - 1 :: length], "0" * (TIME_LENGTH - length) + "Z"
            times = [*values] if length == TIME_LENGTH else [value[:-1] + padding for value in values]
            if ends == "Z" * len(values) and are_times(times) and all(map(_is_utc, _seconds(times))):
                return times
        values = given
    parsed = [parse_time(value) for value in values]
    return None if None in parsed else parsed  # type: ignore[return-value]


def _seconds(times: Sequence[str]) -> set[str]:
    """The seconds that there are among times of one form."""
    first = times[0][_SECONDS]
    if "".join(times).count(first) == len(times):  # it has what stands in a time just once
        return {first}
    return {time[_SECONDS] for time in times}


@lru_cache(maxsize=16)
def _is_utc(text: str) -> bool:
    """Whether it is `2026-11-23T20:06:26.` that can be stored. Many lines have the same."""
    # Python takes weeks (`2026-W48-1T20:06:26`) and zones that are as long for one, too.
    if not are_times([text], len(_SECOND)):
        return False
    try:
        datetime.fromisoformat(text[:19])
    except ValueError:
        return False
    return "1970" <= text[:4] <= "2261"


def _from_iso(date: str, time: str, part: str | None, zone: str | None) -> str | None:
    second = _utc_second(date, time, zone)
    return second and f"{second}{(part or '')[:9]:0<9}Z"


@lru_cache(maxsize=64)
def _utc_second(date: str, time: str, zone: str | None) -> str | None:
    """`2026-11-23T20:06:26.` in UTC, or `BEYOND`. Many lines have the same."""
    try:
        at = datetime.fromisoformat(f"{date}T{time}")
        if zone and zone not in ("Z", "z", "UTC", "GMT"):
            sign = -1 if zone[0] == "-" else 1
            digits = zone[1:].replace(":", "").ljust(4, "0")
            at -= sign * timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        seconds = int(at.replace(tzinfo=UTC).timestamp())
    except (ValueError, OverflowError):
        return None
    return stored(seconds * 10**9 + 999_999_999)[_SECONDS]  # all of it, whatever the fraction is


def _from_number(whole: int, billionths: int) -> str | None:
    for bound, unit_ns in _UNITS:
        if whole < bound:
            return stored(whole * unit_ns + billionths * unit_ns // 10**9)
    return None


def stored(time_ns: int) -> str:
    """A time of so many nanoseconds since 1970, `BEYOND` if nobody can store it."""
    return iso_time(time_ns) if EARLIEST_NS <= time_ns <= LATEST_NS else f"{BEYOND}999999999Z"


def adopt(record: DetailedRecord, time: str) -> bool:
    """Have the record's time be this one, if it is near the engine's; whether it is."""
    engines = record.logged or record.time
    if time[:10] != engines[:10]:
        try:
            apart = datetime.fromisoformat(time) - datetime.fromisoformat(engines)
        except (ValueError, TypeError):  # an engine that writes no such times, or no zone
            return False
        if not -FURTHEST <= apart <= FURTHEST:
            return False
    record.logged, record.time = engines, time
    return True


def near(times: Collection[str], engines: Collection[str]) -> bool:
    """Whether all of these times, of nine digits, surely are near the engine's; if not, `adopt` tells it of
    each."""
    if not times:
        return True
    # Those of one day are.
    date = min(engines)[_DATE]
    return date == max(engines)[_DATE] and "".join(times).count(f"{date}T") == len(times)
