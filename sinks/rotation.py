"""How finished log files are called, which belong together, which have to go. Decides only; no I/O.

A file that is finished is renamed once and never again: `app.ndjson` becomes
`app.20261123T200626Z-0001.ndjson` (the time of the renaming in UTC, a number, the extension kept last), and
compressed `app.20261123T200626Z-0001.ndjson.zst`. So the name alone says that a file is finished and whose
it was, without any state.

A *family* is everything that a template makes for one origin: its path with the time left open
(`/logs/web/{time:%Y-%m-%d}.ndjson`), and whatever was rotated from such a path. `keep`, `age` and `total`
count over a family, and nothing that does not match its pattern is ever touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import msgspec

from logroute.router.record import Record
from logroute.router.template import ABSENT, BoundTemplate, TimePart

PACKED = {"zstd": ".zst", "gzip": ".gz"}
TEMPORARY = ".logroute-tmp"
"""Ends the name of a file that is being compressed: whatever still has it after a crash is rubbish."""

LONGEST_ADDITION = len(".20261123T200626Z-000001.zst" + TEMPORARY)
NAME_BYTES = 255

_EXTENSION = re.compile(r"(.+)(\.[A-Za-z][A-Za-z0-9_]{0,15})", re.DOTALL)
_FINISHED = re.compile(
    r"(?P<stem>.+)\.(?P<stamp>[0-9]{8}T[0-9]{6}Z)-(?P<number>[0-9]{4,9})"
    r"(?P<extension>\.(?!(?:zst|gz)\Z)[A-Za-z][A-Za-z0-9_]{0,15})?(?P<packed>\.(?:zst|gz))?",
    re.DOTALL,
)
_STAMP = "%Y%m%dT%H%M%SZ"
_NOW = "2026-11-23T20:06:26"

_DIRECTIVE = re.compile(r"%(.)", re.DOTALL)
_DIGITS = {"Y": 4, "y": 2, "m": 2, "d": 2, "j": 3, "G": 4, "V": 2, "u": 1, "H": 2, "M": 2, "S": 2}
_OPEN = "\x00"
"""Stands around a time format in a family: values from strangers never hold a control character."""
_TIME = re.compile(f"{_OPEN}([^{_OPEN}]*){_OPEN}")


# --- names ------------------------------------------------------------------------------------------


class Name(msgspec.Struct, frozen=True):
    """What the name of a file says: `current` is the name it was written under."""

    current: str
    stamp: str = ""
    """When it was finished; empty for a file that is not."""
    number: int = 0
    packed: str = ""
    """`.zst`, `.gz`, or empty."""


def parse_name(name: str) -> Name:
    """Never fails: a name without our time in it is a current one."""
    found = _FINISHED.fullmatch(name)
    if found is None:
        return Name(name)
    return Name(
        found["stem"] + (found["extension"] or ""),
        found["stamp"],
        int(found["number"]),
        found["packed"] or "",
    )


def finished_name(name: str, now: float, others: Iterable[str]) -> str:
    """What the file `name`, finished now, is called among the other files of its folder.

    Sorts behind everything that was finished from it before, even if the clock was set back.
    """
    stamp, number = datetime.fromtimestamp(now, UTC).strftime(_STAMP), 0
    for other in map(parse_name, others):
        if other.stamp and other.current == name and (other.stamp, other.number) > (stamp, number):
            stamp, number = other.stamp, other.number
    split = _EXTENSION.fullmatch(name)
    # `.gz` at the end of a name has to mean that logroute has compressed it.
    stem, extension = split.groups() if split and split[2] not in PACKED.values() else (name, "")
    return f"{stem}.{stamp}-{number + 1:04}{extension}"


def name_problem(name: str, *, finishing: bool) -> str | None:
    """Why a file may not be called so, or None. `finishing`: it will be rotated or compressed."""
    size = len(name.encode("utf-8", "surrogatepass"))
    limit = NAME_BYTES - LONGEST_ADDITION if finishing else NAME_BYTES
    if name in ("", ".", ".."):
        return f"{name!r} is no name for a file"
    if "\x00" in name:
        return "the name holds a NUL character"
    if size > limit:
        return f"the name has {size} bytes; the limit is {limit}"
    if finishing and (parse_name(name).stamp or name.endswith(TEMPORARY)):
        return f"{name!r} looks like a file that logroute itself has rotated"
    return None


# --- families ---------------------------------------------------------------------------------------


def family_of(template: BoundTemplate) -> BoundTemplate:
    """The template with its time left open: renders the family of a record instead of its path."""
    parts = [
        "/".join(f"{_OPEN}{piece}{_OPEN}" if piece else "" for piece in part.format.split("/"))
        if isinstance(part, TimePart)
        else part
        for part in template.parts
    ]
    return BoundTemplate(tuple(parts))


def timed(family: str) -> bool:
    return _OPEN in family


def current_path(family: str, now: float) -> str:
    """The path that a record of now would have."""
    record = Record("", "stdout", iso(now))
    return _TIME.sub(lambda found: TimePart(found[1], len(_NOW)).render(record), family)


@lru_cache(maxsize=4096)
def component_pattern(component: str) -> re.Pattern[str] | None:
    """What names a component of a family may have; None where it has no time and is a plain name."""
    if not timed(component):
        return None
    pieces = _TIME.split(component)
    pieces[::2] = [re.escape(piece) for piece in pieces[::2]]
    pieces[1::2] = [f"(?:{_time_pattern(piece)}|{ABSENT})" for piece in pieces[1::2]]
    return re.compile("".join(pieces), re.DOTALL)


def _time_pattern(format_: str) -> str:
    pattern = ""
    at = 0
    for found in _DIRECTIVE.finditer(format_):
        pattern += re.escape(format_[at : found.start()])
        directive = found[1]
        if directive in _DIGITS:
            pattern += f"[0-9]{{{_DIGITS[directive]}}}"
        elif directive in "FT":
            pattern += "[0-9]{4}-[0-9]{2}-[0-9]{2}" if directive == "F" else "[0-9]{2}:[0-9]{2}:[0-9]{2}"
        else:
            pattern += "%" if directive == "%" else "[A-Za-z]+"
        at = found.end()
    return pattern + re.escape(format_[at:])


# --- when to rotate, what to remove ------------------------------------------------------------------


def period(time: str, every_s: float) -> int:
    """The number of the period that a record's time (RFC 3339) falls into; -1 where it is no time."""
    try:
        at = datetime.fromisoformat(time[:19]).replace(tzinfo=UTC)
    except ValueError:
        return -1
    return int((at - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=every_s))


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class FinishedFile(msgspec.Struct, frozen=True):
    """A file of a family that nothing is written to any more."""

    path: str
    name: Name
    size_bytes: int
    modified: float
    """When it was last written to; compressing keeps it."""

    @property
    def order(self) -> tuple[str, int, str]:
        """Older files come first."""
        stamp = self.name.stamp or datetime.fromtimestamp(self.modified, UTC).strftime(_STAMP)
        return stamp, self.name.number, self.path


def surplus(
    finished: Iterable[FinishedFile],
    *,
    live_bytes: int,
    keep: int | None,
    age_s: float | None,
    total_bytes: int | None,
    now: float,
) -> list[tuple[FinishedFile, str]]:
    """Which finished files of one family have to go, oldest first, each with the option that says so.

    `keep` counts finished files; `total` counts their bytes and those of the files being written.
    """
    doomed: list[tuple[FinishedFile, str]] = []
    kept = 0
    kept_bytes = live_bytes
    for file in sorted(finished, key=lambda file: file.order, reverse=True):
        if age_s is not None and now - file.modified > age_s:
            doomed.append((file, "age"))
        elif keep is not None and kept >= keep:
            doomed.append((file, "keep"))
        elif total_bytes is not None and kept_bytes + file.size_bytes > total_bytes:
            doomed.append((file, "total"))
            # Everything older goes too: a smaller, older file must not outlive a newer one.
            total_bytes = kept_bytes
        else:
            kept += 1
            kept_bytes += file.size_bytes
    return doomed[::-1]
