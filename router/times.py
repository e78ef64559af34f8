"""How times are written: RFC 3339, UTC, nine digits, so that they compare as text.

Engines write some digits less (json-file trims zeros). Such a time is completed, and never taken apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

TIME_LENGTH = len("2026-11-23T20:06:26.123456789Z")
WHOLE_SECONDS_LENGTH = len("2026-11-23T20:06:26Z")
COARSE = "000000Z"
"""Ends a time that is coarser than a microsecond; such an id has the message's hash, see `record_id`."""
ZERO = "0Z"
"""Ends each time that could be written shorter, and some that could not."""
# What ends a time of each length in place of its `Z`, so that it has nine digits.
_PADDING = {WHOLE_SECONDS_LENGTH: ".000000000Z"} | {
    length: "0" * (TIME_LENGTH - length) + "Z" for length in range(WHOLE_SECONDS_LENGTH + 2, TIME_LENGTH)
}

_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_SHAPE = b"0000-00-00T00:00:00.000000000Z"


def full_time(time: str) -> str:
    """Pad an RFC 3339 UTC time to nine digits, as the Engine API writes it; json-file trims zeros.

    Text that does not look like such a time is returned as it is.
    """
    padding = _PADDING.get(len(time))
    if padding is None or time[-1] != "Z" or (time[19] != "." and len(time) != WHOLE_SECONDS_LENGTH):
        return time
    return time[:-1] + padding


def short_time(time: str) -> str:
    """The same time as the engine writes it into a file, without zeros at its end."""
    return f"{time[:-1].rstrip('0').removesuffix('.')}Z" if "." in time else time


def are_times(texts: Sequence[str], length: int = TIME_LENGTH) -> bool:
    """Whether all are what `Record.time` is to be, or its first so many characters; none may be longer."""
    # Looked at together: each alone takes longer than everything else that is done with it.
    digits_as_zeros = "".join(texts).encode("ascii", "replace").translate(_ZEROS)
    return digits_as_zeros == _SHAPE[:length] * len(texts)


def iso_time(time_ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339, UTC, nine digits."""
    seconds, rest = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date_s(text: str) -> int:
    """Seconds since the epoch of an HTTP date, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).

    Raises ValueError, also for the forms that are obsolete. Python's own `email.utils` would do it, and costs
    each look at an engine the import of half a mail program.
    """
    try:
        _, day, month, year, clock, zone = text.split(" ")
        hour, minute, second = clock.split(":")
        if zone != "GMT":
            raise ValueError(f"{text!r} is no HTTP date")
        numbers = (int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second))
        return int(datetime(*numbers, tzinfo=UTC).timestamp())
    except OverflowError as error:
        raise ValueError(str(error)) from error
