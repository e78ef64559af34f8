"""Levels of records: their names, and which is more than which."""

from __future__ import annotations

LEVELS = ("trace", "debug", "info", "notice", "warn", "error", "fatal")
"""From the least to the gravest."""

NAMES = {
    **{name: name for name in LEVELS},
    **dict.fromkeys(("verbose", "silly", "finest", "finer"), "trace"),
    **{f"trace{number}": "trace" for number in range(1, 9)},  # Apache's
    **dict.fromkeys(("dbg", "fine", "debug1", "debug2", "debug3", "debug4", "debug5"), "debug"),
    **dict.fromkeys(("information", "informational", "log"), "info"),
    **dict.fromkeys(("warning", "wrn"), "warn"),
    **dict.fromkeys(("err", "eror", "severe"), "error"),
    **dict.fromkeys(("critical", "crit", "alert", "emergency", "emerg", "panic", "dpanic"), "fatal"),
}
"""What programs call them, in lower case."""

UNKNOWN = LEVELS.index("info")
"""Where a record stands whose level is not known."""

_RANKS = {name: LEVELS.index(level) for name, level in NAMES.items()}


def rank(level: str | None) -> int:
    """Where a level stands in `LEVELS`; one that is absent, or that nobody knows, is as grave as `info`."""
    return UNKNOWN if level is None else _RANKS.get(level.lower(), UNKNOWN)
