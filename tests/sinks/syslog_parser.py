"""A reference parser: syslog as its RFCs say it, read byte by byte, with nothing of the sink's in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# RFC 5424, 6 (ABNF).
_RFC5424 = re.compile(
    rb"<(?P<pri>0|[1-9][0-9]?|1[0-8][0-9]|19[01])>1"
    rb" (?P<time>-|[0-9]{4}-(?:0[1-9]|1[0-2])-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?Z)"
    rb" (?P<hostname>[\x21-\x7e]{1,255})"
    rb" (?P<app_name>[\x21-\x7e]{1,48})"
    rb" (?P<procid>[\x21-\x7e]{1,128})"
    rb" (?P<msgid>[\x21-\x7e]{1,32})"
    rb' (?P<structured_data>-|(?:\[[^ =\]"]{1,32}(?: [^ =\]"]{1,32}="(?:[^"\\\]]|\\["\\\]])*")+\])+)'
    rb"(?: (?P<text>.*))?",
    re.DOTALL,
)
# RFC 3164, 4.1; the tag with a process as 5.3 recommends it.
_RFC3164 = re.compile(
    rb"<(?P<pri>[0-9]{1,3})>"
    rb"(?P<time>(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ 1-3][0-9]"
    rb" [0-2][0-9]:[0-5][0-9]:[0-5][0-9])"
    rb" (?P<hostname>[\x21-\x7e]+)"
    rb" (?P<app_name>[^:\[\] ]{1,32})(?:\[(?P<procid>[^:\[\] ]+)\])?: (?P<text>.*)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Message:
    facility: int
    severity: int
    time: str
    hostname: str
    app_name: str
    procid: str
    msgid: str
    text: str


def parse_rfc5424(data: bytes) -> Message:
    return _message(_RFC5424.fullmatch(data), data)


def parse_rfc3164(data: bytes) -> Message:
    return _message(_RFC3164.fullmatch(data), data)


def _message(found: re.Match[bytes] | None, data: bytes) -> Message:
    assert found, f"no syslog message: {data[:300]!r}"
    facility, severity = divmod(int(found["pri"]), 8)
    parts = {name: (value or b"-").decode() for name, value in found.groupdict().items()}
    text = (found["text"] or b"").decode()
    return Message(
        facility, severity, parts["time"], parts["hostname"], parts["app_name"], parts["procid"],
        parts.get("msgid", "-"), text,
    )  # fmt: skip


def octet_counted(stream: bytes) -> Iterator[bytes]:
    """The whole frames of a stream (RFC 6587, 3.4.1). A last one that is cut short is left out."""
    at = 0
    while found := re.compile(rb"([1-9][0-9]*) ").match(stream, at):
        end = found.end() + int(found[1])
        if end > len(stream):
            return
        yield stream[found.end() : end]
        at = end
    assert re.fullmatch(rb"[0-9]*", stream[at:]), f"no frame at {at}: {stream[at : at + 100]!r}"


def newline_ended(stream: bytes) -> list[bytes]:
    """The whole frames of a stream (RFC 6587, 3.4.2)."""
    return stream.split(b"\n")[:-1]
