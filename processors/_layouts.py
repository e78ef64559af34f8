"""Layouts of times: what a time looks like, in strptime's words, read as records have it.

Own code, because Python's `strptime` knows six digits of a second only, and names of months in the machine's
language.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from logroute.processors._times import parse_time, stored

_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_NAMES, start=1)}
_DIRECTIVES = {
    "Y": r"(?P<Y>\d{4})",
    "y": r"(?P<y>\d\d)",
    "m": r"(?P<m>\d{1,2})",
    "d": r"(?P<d>[ \d]?\d)",
    "e": r"(?P<d>[ \d]?\d)",
    "b": r"(?P<b>[A-Za-z]{3})",
    "B": r"(?P<b>[A-Za-z]{3})[a-z]{0,6}",
    "a": r"[A-Za-z]{3}",
    "A": r"[A-Za-z]{6,9}",
    "H": r"(?P<H>\d{1,2})",
    "I": r"(?P<I>\d{1,2})",
    "p": r"(?P<p>[AaPp])[Mm]",
    "M": r"(?P<M>\d\d)",
    "S": r"(?P<S>\d\d)",
    "f": r"(?P<f>\d{1,18})",
    "z": r"(?P<z>Z|[+-]\d\d(?::?\d\d)?)",
    "Z": r"(?P<Z>[A-Za-z]{1,5})",
    "%": "%",
}
_SHORT = {"T": "%H:%M:%S", "F": "%Y-%m-%d", "D": "%m/%d/%y", "R": "%H:%M"}
_PART = re.compile(r"([.,])?%(.)|([^%])|(%)", re.DOTALL)
# What programs write of the zone they are in. Those of the US are RFC 5322's, section 4.3; the others are the
# tz database's, of names that nobody else has there. CST, IST, BST and AST are several zones'.
_ZONES: dict[str, tzinfo] = {
    name: timezone(timedelta(minutes=minutes))
    for minutes, names in {
        0: "utc gmt z wet",
        60: "cet met west wat",
        120: "cest mest eet cat sast",
        180: "eest msk eat",
        300: "pkt",
        420: "wib",
        480: "wita hkt awst",
        540: "wit jst kst",
        570: "acst",
        600: "aest",
        630: "acdt",
        660: "aedt",
        720: "nzst",
        780: "nzdt",
        -150: "ndt",
        -180: "adt",
        -210: "nst",
        -240: "edt",
        -300: "est cdt",
        -360: "mdt",
        -420: "mst pdt",
        -480: "pst akdt",
        -540: "akst",
        -600: "hst",
    }.items()
    for name in names.split()
}
_SEASONS = (datetime(2026, 1, 1), datetime(2026, 7, 1))
"""When clocks show winter's and summer's time, or the other way round."""


def zone_of(name: str) -> tzinfo:
    """The zone of a name such as `Europe/Berlin`, or of an offset such as `+02:00`. Raises ValueError."""
    if found := re.fullmatch(r"([+-])(\d\d):?(\d\d)", name, re.ASCII):
        offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
        if offset >= timedelta(hours=24):
            raise ValueError(f"{name!r} is a day or more")
        return timezone(-offset if found[1] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError) as error:
        raise ValueError(
            f"there is no time zone {name!r}; write one such as UTC, Europe/Berlin or +02:00"
        ) from error


class Layout:
    """One layout, in a zone that is meant where a time does not say one."""

    def __init__(self, text: str, zone: str = "UTC") -> None:
        """Raises ValueError, which says what is wrong about the layout or the zone."""
        self.text = text
        self._zone = zone_of(zone)
        # Its own names mean what they mean there.
        self._zones = dict(_ZONES)
        if zone != "UTC":
            for at in _SEASONS:
                of_season = at.replace(tzinfo=self._zone)
                if (offset := of_season.utcoffset()) is not None:
                    self._zones[(of_season.tzname() or "").lower()] = timezone(offset)
        self._is_utc = zone == "UTC"
        expanded = re.sub("%([TFDR])", lambda found: _SHORT[found[1]], text)
        pattern = "".join(_part(part, text) for part in _PART.finditer(expanded))
        try:
            compiled = re.compile(pattern, re.ASCII)
        except re.error as error:
            raise ValueError(f"{text!r} names a part of the time twice") from error
        names = compiled.groupindex.keys()
        if not {"d", "m"} <= names and not {"d", "b"} <= names:
            raise ValueError(f"{text!r} names no day of the year: it needs %d with %m or %b")
        if not {"H", "I"} & names:
            raise ValueError(f"{text!r} names no time of the day: it needs %H or %I")
        self._match = compiled.fullmatch
        self.has_year = bool({"Y", "y"} & names)
        """Whether what a time means depends on nothing but its text."""
        # Times are the same for many lines, where they are no finer than a second.
        self._last: tuple[str, str | None] = "", None

    def parse(self, text: str, engines: str) -> str | None:
        """The time in UTC with nine digits, or None if it is none; `BEYOND` if nobody can store it.

        A year that it does not say is the one that brings it nearest to the engine's time.
        """
        if self.has_year and text == self._last[0]:
            return self._last[1]
        found = self._match(text)
        time = None
        if found is not None:
            try:
                time = self._time(found.groupdict(), engines)
            except (ValueError, OverflowError, TypeError):  # the 31st of February; an engine's without a zone
                time = None
        self._last = text, time
        return time

    def _time(self, parts: dict[str, str | None], engines: str) -> str | None:
        month = parts.get("m") or _MONTHS.get((parts.get("b") or "").lower())
        if month is None:
            return None
        hour = int(parts.get("H") or 0)
        if twelve := parts.get("I"):
            if not 1 <= int(twelve) <= 12:
                return None
            hour = int(twelve) % 12 + (12 if (parts.get("p") or "").lower() == "p" else 0)
        zone = self._zone_of(parts.get("z"), parts.get("Z"))
        if zone is None:
            return None
        rest = (int(month), int(parts["d"] or 0), hour, int(parts.get("M") or 0), int(parts.get("S") or 0))
        if year := parts.get("Y"):
            at = datetime(int(year), *rest, tzinfo=zone)
        elif year := parts.get("y"):
            at = datetime(2000 + int(year), *rest, tzinfo=zone)
        else:
            at = _nearest(engines, rest, zone)
        fraction = (parts.get("f") or "")[:9].ljust(9, "0")
        return stored(int(at.timestamp()) * 10**9 + int(fraction))

    def _zone_of(self, offset: str | None, name: str | None) -> tzinfo | None:
        """None where a name means different zones to different people, and the user has said none."""
        if offset is not None:
            return zone_of("UTC") if offset == "Z" else zone_of(offset if len(offset) > 3 else offset + "00")
        if name is not None and (zone := self._zones.get(name.lower())) is not None:
            return zone
        return None if name is not None and self._is_utc else self._zone


def _part(part: re.Match[str], layout: str) -> str:
    before, directive, literal, alone = part.groups()
    if alone or (directive and directive not in _DIRECTIVES):
        raise ValueError(f"{layout!r}: there is no %{directive or ''}, only %{' %'.join(_DIRECTIVES)}")
    if literal:
        return re.escape(literal)
    if before and directive == "f":
        return rf"(?:[.,]{_DIRECTIVES['f']})?"
    return re.escape(before or "") + _DIRECTIVES[directive]


def _nearest(engines: str, rest: tuple[int, int, int, int, int], zone: tzinfo) -> datetime:
    month, day, hour, minute, second = rest
    now = datetime.fromisoformat(engines)
    found: list[datetime] = []
    for year in (now.year - 1, now.year, now.year + 1):
        try:
            found.append(datetime(year, month, day, hour, minute, second, tzinfo=zone))
        except ValueError:  # the 29th of February
            continue
    return min(found, key=lambda at: abs(at - now))


USUAL = (
    "%d/%b/%Y:%H:%M:%S.%f %z",
    "%d/%b/%Y:%H:%M:%S.%f",
    "%Y-%m-%d %H:%M:%S.%f %z",
    "%Y/%m/%d %H:%M:%S.%f",
    "%a, %d %b %Y %H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S %Z",
    "%a %b %d %H:%M:%S.%f %Y",
    "%d %b %Y %H:%M:%S.%f",
    "%b %d %H:%M:%S.%f",
    "%d.%m.%Y %H:%M:%S.%f",
)
"""Beside ISO 8601 and numbers: the Common Log Format, Go's, RFC 5322's, ctime's, Redis', RFC 3164's."""
_NAIVE = ("%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S.%f")


class Layouts:
    """Several layouts, the first that fits. None given: the usual ones."""

    def __init__(self, layouts: list[str], zone: str = "UTC") -> None:
        """Raises ValueError."""
        self._all = [Layout(text, zone) for text in layouts or (*_NAIVE, *USUAL)]
        self._any = not layouts

    def parse(self, value: object, engines: str) -> str | None:
        if isinstance(value, str) and len(value) <= 64:
            for layout in self._all:
                if (time := layout.parse(value, engines)) is not None:
                    return time
        return parse_time(value) if self._any else None
