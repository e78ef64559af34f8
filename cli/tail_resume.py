"""How `logroute tail` goes on behind what it has shown, when its daemon is back."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from logroute.router.times import iso_time

WINDOW_BYTES = 4 << 20
"""So much of what came last is kept: of older lines nobody knows that they were shown."""
OVERLAP_S = 10.0
"""So much earlier it begins again: logs are not read at the very same time, and a daemon may be behind."""


class _Who(msgspec.Struct, frozen=True):
    id: str = ""


class _Line(msgspec.Struct, frozen=True):
    time: str = msgspec.field(name="@timestamp", default="")
    stream: str = ""
    container: _Who = _Who()
    log: Mapping[str, Any] = {}
    event: Any = None

    @property
    def of(self) -> tuple[str, str]:
        """A stream of one log, in which lines come in order."""
        return self.container.id or str(self.log.get("file", "")), self.stream

    @property
    def id(self) -> str:
        return str(self.event.get("id", "")) if isinstance(self.event, Mapping) else ""


class Resumption:
    """What came of a daemon, as far as it must be known to go on without a gap and without anything twice."""

    def __init__(self) -> None:
        self.began = ""
        """When the daemon first answered, by its own clock; empty before."""
        self._gone = False
        self._recent: deque[bytes] = deque()
        self._recent_bytes = 0
        self._overrun = False
        self._shown: dict[tuple[str, str], _Line] = {}
        """Of each stream the last line that was shown, until it has come again."""
        self._rest = b""

    def answered(self, date: str) -> bool:
        """The daemon answers, at `date` as HTTP has it. Whether it does so again."""
        from email.utils import parsedate_to_datetime

        again, self._gone = self._gone, False
        if not self.began:
            self.began = iso_time(0)
            with suppress(ValueError):
                self.began = iso_time(int(parsedate_to_datetime(date).timestamp()) * 10**9)
        return again

    def is_gone(self) -> bool:
        """It answers no more. Whether that is new."""
        new, self._gone = not self._gone, True
        return new

    def take(self, data: bytes) -> bytes:
        """What is new of what has come."""
        if self._shown or self._rest:
            data = self._new(data)
        self._recent.append(data)
        self._recent_bytes += len(data)
        while self._recent_bytes > WINDOW_BYTES and len(self._recent) > 1:
            self._recent_bytes -= len(self._recent.popleft())
            self._overrun = True
        return data

    def query(self, first: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """What to ask now, where at first it was this."""
        rest = [(name, value) for name, value in first if name not in ("since", "lines")]
        return [*rest, ("since", self._since(dict(first).get("since", self.began)))]

    def _since(self, first: str) -> str:
        """Where to go on; from here on what was shown is left out when it comes again."""
        whole = b"".join(self._recent).rpartition(b"\n")[0]
        if self._overrun:
            whole = whole.partition(b"\n")[2]
        self._recent, self._recent_bytes, self._rest = deque([whole + b"\n"]), len(whole) + 1, b""
        decode = msgspec.json.Decoder(_Line).decode_lines
        lines = [line for line in decode(whole) if line.time]
        if not lines:
            return first
        self._shown = {line.of: line for line in lines}
        times = sorted(line.time for line in lines)
        since = self._earlier(times[-1])
        if self._overrun:  # some of what is as late as the first of these is not among them
            since = max(since, times[len(times) // 2])
        # What was before it began is only missing where not all of that had come.
        return max(since, first) if times[-1] > self.began else since

    def _earlier(self, time: str) -> str:
        from logroute.sources.engine_answers import time_ns

        return iso_time(max(0, time_ns(time) - int(OVERLAP_S * 1e9)))

    def _new(self, data: bytes) -> bytes:
        whole, _, self._rest = (self._rest + data).rpartition(b"\n")
        texts = whole.split(b"\n") if whole else []
        decode = msgspec.json.Decoder(_Line).decode
        return b"".join([text + b"\n" for text in texts if not self._was_shown(decode(text))])

    def _was_shown(self, line: _Line) -> bool:
        last = self._shown.get(line.of)
        if last is None or not line.time:
            return False
        if line.id == last.id or line.time > last.time:
            del self._shown[line.of]
        return line.time <= last.time
