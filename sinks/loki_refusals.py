"""What Loki says of entries that it has left out of a request: its words, read.

Loki answers 400 with one text for a request of which it has taken all that it could. The texts are those of
Grafana Loki's "Troubleshoot log ingestion", and of its ingester, which lists at most ten entries of a stream
(`max_ignored_stream_errors`) and then says how many they were.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from logroute.sinks.failures import excerpt

Labels = Mapping[str, str]


class LeftOut(msgspec.Struct, frozen=True):
    """Entries that Loki has left out of a request that it has taken."""

    reason: str
    stream: Labels | None = None
    """Whose; None: of all streams."""
    before_ns: int | None = None
    """Those older than that."""
    after_ns: int | None = None
    """Those from then on."""
    at_ns: frozenset[int] = frozenset()
    """Those of these very times."""
    longer_than: int | None = None
    """Those of more bytes."""
    whole_stream: bool = False
    """All of its stream."""
    total: int = 0
    """How many it says they are; 0 where it does not."""

    def concerns(self, labels: Labels) -> bool:
        """Whether it says something of a stream that was sent with these labels.

        Loki may have added some of its own (`service_name`).
        """
        return self.stream is None or labels.items() <= self.stream.items()

    def means(self, labels: Labels, time_ns: int, size_bytes: int) -> bool:
        """Whether it means an entry of these labels, time and size."""
        if not self.concerns(labels):
            return False
        if self.whole_stream:
            return True
        if self.longer_than is not None:
            return size_bytes > self.longer_than
        if self.before_ns is not None:
            return time_ns < self.before_ns
        if self.after_ns is not None:
            return time_ns >= self.after_ns
        return time_ns in self.at_ns


# Each of these takes time in proportion to the text, whatever that is. So a backslash stands within quotes
# only, else braces could all be within quotes for who begins at any of them; and names are read from their
# beginning.
_STREAM = r"stream:? '?(?P<stream>\{(?:[^{}\"\\]|\"(?:[^\"\\]|\\.)*\")*\})'?"
_TIME = r"(?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(?:Z|[+-][0-9:]+))"
_OLD = re.compile(rf"(?:for {_STREAM} )?has timestamp too old: \S+ oldest acceptable timestamp is: {_TIME}")
_NEW = re.compile(rf"(?:for {_STREAM} )?has timestamp too new: {_TIME}")
_BEHIND = re.compile(
    rf"entry too far behind, (?:entry timestamp is: \S+ )?oldest acceptable timestamp is: {_TIME}"
)
_AT = re.compile(
    r"entry with timestamp (?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2}) (?P<clock>[0-9:]{8})(?P<part>\.[0-9]{1,9})?"
    r" \+0000 UTC ignored, reason: "
)
_LONG = re.compile(r"[Mm]ax entry size '?(?P<size>[0-9]+)'? bytes exceeded")
_WHOLE_STREAM = re.compile(
    rf"(?:entry for )?{_STREAM}.{{0,20}}? has (?:label name too long|label value too long"
    rf"|[0-9]+ label names|duplicate label name|structured metadata too large|too many structured metadata)"
)
_TOTAL = re.compile(rf"total ignored: (?P<count>[0-9]+) out of [0-9]+ for {_STREAM}")
_PAIR = re.compile(r'(?<![a-zA-Z0-9_])([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


def refusals(text: str) -> list[LeftOut]:
    """What Loki's words say that it has left out; nothing where they say something else.

    Never raises. Of several streams it may tell only the last one's refusal: what it says of times and sizes
    that hold for all of them is taken to mean all of them.
    """
    found: list[LeftOut] = []
    reason = f"Loki has not taken it: {excerpt(text)}"
    start = 0
    for total in _TOTAL.finditer(text):
        lines = text[start : total.start()]
        start = total.end()
        stream, count = parse_labels(total["stream"]), int(total["count"][:9])
        about = _about_times(lines, reason) or _about_lines(lines, reason)
        if about and not _AT.search(lines):
            found.append(msgspec.structs.replace(about[0], stream=stream, total=count))
        else:
            found.append(_ignored(lines, stream, count, reason))
    rest = text[start:]
    return [*found, *_about_times(rest, reason), *_about_lines(rest, reason)]


def _about_times(text: str, reason: str) -> list[LeftOut]:
    """Limits of times, which hold for all streams."""
    return [
        *(LeftOut(reason, before_ns=_ns(old["time"])) for old in _OLD.finditer(text)),
        *(LeftOut(reason, after_ns=_ns(new["time"])) for new in _NEW.finditer(text)),
    ]


def _about_lines(text: str, reason: str) -> list[LeftOut]:
    """A limit of lengths, which holds for all streams; streams that are left out whole."""
    return [
        *(LeftOut(reason, longer_than=int(long["size"][:18])) for long in _LONG.finditer(text)),
        *(
            LeftOut(reason, stream=parse_labels(whole["stream"]), whole_stream=True)
            for whole in _WHOLE_STREAM.finditer(text)
        ),
    ]


def _ignored(lines: str, stream: Labels, count: int, reason: str) -> LeftOut:
    """What the ingester has ignored of one stream: lines about some of them."""
    at = {_ns(f"{each['day']}T{each['clock']}{each['part'] or ''}Z") for each in _AT.finditer(lines)}
    behind = [_ns(each["time"]) for each in _BEHIND.finditer(lines)]
    # It lists ten at most. What it has let pass before the newest came may be as old as what it names.
    if behind and count > len(at):
        return LeftOut(reason, stream, before_ns=max(behind), total=count)
    return LeftOut(reason, stream, at_ns=frozenset(at), total=count)


def parse_labels(text: str) -> dict[str, str]:
    """`{a="b", c="d"}` as Loki writes a stream's labels (Go's quoting)."""
    found: dict[str, str] = {}
    for name, quoted in _PAIR.findall(text):
        try:
            found[name] = msgspec.json.decode(f'"{quoted}"'.encode(), type=str)
        except msgspec.DecodeError:  # Go has escapes that JSON has not; such a value matches nothing
            found[name] = quoted
    return found


def _ns(time: str) -> int:
    """Nanoseconds of an RFC 3339 time of any zone; 0 if it is none."""
    head, point, rest = time.partition(".")
    digits = re.match(r"[0-9]*", rest)
    part = digits[0] if digits else ""
    zone = rest[len(part) :] if point else ""
    try:
        at = datetime.fromisoformat((head + zone).replace("Z", "+00:00"))
    except ValueError:
        return 0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return int(at.timestamp()) * 10**9 + int(f"{part:0<9}"[:9] or 0)
