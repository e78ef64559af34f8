"""How `logroute top` says numbers in five cells, and what state a route is in."""

from __future__ import annotations

from datetime import datetime

from logroute.api.books import RouteBooks

UNKNOWN = "-"


def rate(a_second: float | None) -> str:
    if a_second is None:
        return UNKNOWN
    if 0 < a_second < 9.95:
        return f"{a_second:.1f}" if a_second >= 0.05 else "<0.1"
    return count(round(a_second))


def count(number: int) -> str:
    """At most five characters."""
    if number < 10_000:
        return str(number)
    left = float(number)
    for unit in "kMGT":
        left /= 1000
        if left < 99.95:
            return f"{left:.1f}{unit}"
        if left < 999.5:
            return f"{left:.0f}{unit}"
    return f"{left:.0f}{unit}"


def size(size_bytes: float | None) -> str:
    """At most five characters."""
    if size_bytes is None:
        return UNKNOWN
    left = size_bytes
    if left < 1000:
        return f"{left:.0f}B"
    for unit in "KMGTP":
        left /= 1024
        if left < 99.95:
            return f"{left:.1f}{unit}"
        if left < 999.5:
            return f"{left:.0f}{unit}"
    return f"{left:.0f}{unit}"


def age(seconds: float) -> str:
    """At most five characters."""
    if seconds < 9.95:
        return f"{seconds:.1f}s" if seconds >= 0.05 else "0"
    for unit, length, below in (("s", 1, 99.5), ("m", 60, 99.5), ("h", 3600, 47.5), ("d", 86400, 999.5)):
        if seconds / length < below:
            return f"{seconds / length:.0f}{unit}"
    return ">999d"


def state(books: RouteBooks) -> str:
    """One word of at most six letters."""
    if books.paused:
        return "paused"
    if not books.up:
        return "down"
    if books.hindrance:
        return "held"
    return "behind" if books.behind else "up"


def trouble(books: RouteBooks) -> str:
    """Why it does not deliver, or what else stands in its way; empty if nothing does."""
    return books.reason or books.hindrance


def seconds_between(before: str, now: str) -> float:
    """Of two times as the daemon says them."""
    return (datetime.fromisoformat(now[:19]) - datetime.fromisoformat(before[:19])).total_seconds()
