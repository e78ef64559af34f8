"""Times of records as nanoseconds since the epoch, as receivers of logs want them; whole columns at once."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime
from struct import pack

import msgspec

from logroute.router.times import TIME_LENGTH, are_times, full_time
from logroute.sinks.columns import FEW

SECONDS_LENGTH = len("2026-11-23T20:06:26")
DIGITS = slice(SECONDS_LENGTH + 1, TIME_LENGTH - 1)
"""The nine digits behind the point."""
MOST_SECONDS = 64
"""Of records that are further apart each time is made by itself."""
KNOWN_SECONDS = 4096
"""Few are in use at a time; many only where a log of years is read."""
LAST_NS = (1 << 63) - 1
"""What receivers count to: the year 2262."""

_decode_integers = msgspec.json.Decoder(list[int]).decode
_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z")


class _Seconds(dict[str, str]):
    """Seconds since the epoch by what an RFC 3339 time says of them. Raises ValueError."""

    def __missing__(self, text: str) -> str:
        if len(self) >= KNOWN_SECONDS:
            self.clear()
        seconds = int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
        if seconds < 0 or seconds > LAST_NS // 10**9 - 1:
            raise ValueError(text)
        self[text] = found = str(seconds)
        return found


_seconds = _Seconds()


def epoch_ns(times: Sequence[str]) -> list[str]:
    """Decimal nanoseconds since the epoch of RFC 3339 times (UTC).

    Never raises: what is no such time, or is before 1970 or behind what 63 bits hold, is `0`. 0.1 µs each.
    """
    return _lines(times, "", "0").split("\n")[:-1]


def epoch_seconds(times: Sequence[str]) -> list[str]:
    """The same in seconds, with nine digits behind a point."""
    return _lines(times, ".", "0.000000000").split("\n")[:-1]


def packed_ns(times: Sequence[str]) -> bytes:
    """The same as `epoch_ns`, each an unsigned number of eight bytes, the lowest first."""
    lines = _lines(times, "", "0")
    try:  # in a third of the time that int() takes
        numbers = _decode_integers("[" + lines[:-1].replace("\n", ",") + "]")
    except msgspec.DecodeError:  # in the first second of 1970 they begin with a zero
        numbers = list(map(int, lines.split()))
    return pack(f"<{len(numbers)}Q", *numbers)


def _lines(times: Sequence[str], point: str, none: str) -> str:
    """Seconds, `point`, nine digits and a newline of each; `none` for what is no time."""
    if set(map(len, times)) != {TIME_LENGTH}:
        # Docker's json-file trims zeros: of ten times one is shorter.
        times = [time if len(time) == TIME_LENGTH else full_time(time) for time in times]
    if are_times(times):
        try:
            if (made := _made_together(times, point)) is not None:
                return made
            return "".join([f"{_seconds[time[:SECONDS_LENGTH]]}{point}{time[DIGITS]}\n" for time in times])
        except ValueError:
            pass
    return "".join([_decimal(time, point, none) + "\n" for time in times])


def _made_together(times: Sequence[str], point: str) -> str | None:
    """The same of times that rise, all digits of a column at once; None where they do not, or are few.

    Raises ValueError.
    """
    if len(times) < FEW or sorted(times) != times or (seconds := runs(times)) is None:
        return None
    begins = [_seconds[second[:SECONDS_LENGTH]] + point for second, _ in seconds]
    digits_at = len(begins[0])
    if len(begins[-1]) != digits_at:
        return None
    lines = [f"{begin}000000000\n" * run for begin, (_, run) in zip(begins, seconds, strict=True)]
    made, text = bytearray("".join(lines).encode()), "".join(times).encode()
    width = digits_at + len("000000000\n")
    for digit in range(9):
        made[digits_at + digit :: width] = text[DIGITS.start + digit :: TIME_LENGTH]
    return made.decode()


def runs(times: Sequence[str]) -> list[tuple[str, int]] | None:
    """How many follow each other of one second, with its point; None: too many, or disorder that shows."""
    found: list[tuple[str, int]] = []
    start = 0
    while start < len(times):
        second = times[start][: SECONDS_LENGTH + 1]
        end = bisect_right(times, second + "~", start)
        if end <= start or len(found) == MOST_SECONDS:
            return None
        found.append((second, end - start))
        start = end
    return found or None


def _decimal(time: str, point: str, none: str) -> str:
    if not _RFC3339.fullmatch(time):
        return none
    time = full_time(time)
    try:
        return _seconds[time[:SECONDS_LENGTH]] + point + time[DIGITS]
    except ValueError:
        return none
