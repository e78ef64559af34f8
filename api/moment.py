"""Times as people and programs write them in a question."""

from __future__ import annotations

import re

from logroute.config.types import parse_duration
from logroute.router.times import iso_time
from logroute.sources.engine_answers import time_ns, utc_time


def point_in_time(text: str, now: float) -> str:
    """`10m` before `now` (seconds since 1970), a time as RFC 3339 has it, or seconds since 1970.

    Nine digits, UTC; at the earliest 1970, which `0` is. Raises ValueError.
    """
    try:
        return max(_point(text, now), iso_time(0))
    except OverflowError as error:  # in UTC it is before the year 1, or after 9999
        raise ValueError(text) from error


def advice(text: str) -> str:
    """What may have been meant by what is no point in time."""
    if text.isascii() and text.isdigit() and len(text) <= 5:  # longer ones are rather a day: 20261123
        return f"{text} of what? {text}s, {text}m or {text}h"
    return "such as 10m, 2026-11-23T20:06:26Z, or seconds since 1970"


def _point(text: str, now: float) -> str:
    if text == "0" or re.fullmatch(r"\d{9,11}(\.\d{1,9})?", text):
        whole, _, rest = text.partition(".")
        return iso_time(int(whole) * 10**9 + int(f"{rest:0<9}"))
    if re.match(r"\d{4}-\d\d-\d\d", text):
        if len(text) == 10:
            text += "T00:00:00Z"
        if re.search(r"(Z|[+-]\d\d:\d\d)$", text) is None:
            text += "Z"
        found = utc_time(text.replace(" ", "T", 1))
        time_ns(found)
        if not found.endswith("Z"):
            raise ValueError(text)
        return found
    return iso_time(max(0, int((now - parse_duration(text)) * 1e9)))
