"""What a log driver gives to the API: entries, read through a cursor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from logroute.simulator.records import Piece, rfc3339_padded


class Entry(NamedTuple):
    """One record as the API gives it."""

    time: str
    """RFC 3339 with all nine digits: sorts as text."""
    stream: str
    log: bytes
    attrs: bytes = b""
    """A JSON object, or empty."""


class LogReadError(Exception):
    """The log cannot be read on; `good` is what came before."""

    def __init__(self, text: str, good: list[Entry]) -> None:
        super().__init__(text)
        self.good = good


class Cursor(Protocol):
    """One reader of one log."""

    @property
    def ended(self) -> bool:
        """Nothing will come any more once `read` has nothing."""

    def read(self, limit: int = 256 * 1024) -> list[Entry]:
        """The next entries, empty where there are none now. Raises LogReadError."""

    def close(self) -> None:
        """Give up what is held."""


class MemoryLog:
    """The log of a driver that is read by API only (`local`)."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._followers: set[MemoryCursor] = set()

    def append(self, pieces: list[Piece], attrs: bytes) -> None:
        """Remember records; unlike json-file, their bytes stay as they were."""
        self.entries += [Entry(rfc3339_padded(p.time_ns), p.stream, p.log, attrs) for p in pieces]

    def close(self) -> None:
        """End a run: followers read to the end and stop."""
        for cursor in self._followers:
            cursor.end = len(self.entries)
        self._followers.clear()

    def cursor(self, *, tail: int | None, follow: bool) -> MemoryCursor:
        """Read from the beginning, or the last `tail` records; to what is there now, or on."""
        start = 0 if tail is None else max(0, len(self.entries) - tail)
        cursor = MemoryCursor(self, start, None if follow else len(self.entries))
        if follow:
            self._followers.add(cursor)
        return cursor

    def forget(self, cursor: MemoryCursor) -> None:
        """A cursor was closed."""
        self._followers.discard(cursor)


class MemoryCursor(Cursor):
    """A position in a list."""

    def __init__(self, log: MemoryLog, position: int, end: int | None) -> None:
        self.log = log
        self.position = position
        self.end = end

    @property
    def ended(self) -> bool:
        return self.end is not None

    def read(self, limit: int = 256 * 1024) -> list[Entry]:
        end = len(self.log.entries) if self.end is None else self.end
        entries = self.log.entries[self.position : min(end, self.position + limit // 128)]
        self.position += len(entries)
        return entries

    def close(self) -> None:
        self.log.forget(self)


class Selection:
    """The query of one `/logs` request, applied to entries in their order."""

    def __init__(
        self,
        *,
        streams: frozenset[str],
        since_ns: int | None,
        until_ns: int | None,
        filters_every_record: bool,
    ) -> None:
        self.streams = streams
        self.since = "" if since_ns is None else rfc3339_padded(since_ns)
        self.until = "" if until_ns is None else rfc3339_padded(until_ns)
        self.filters_every_record = filters_every_record
        self.finished = False
        """A record after `until` was met: nothing more comes."""

    def apply(self, entries: list[Entry]) -> Iterator[Entry]:
        """Those that were asked for. `since` and `until` are inclusive, and streams are chosen last."""
        for entry in entries:
            if self.since:
                if entry.time < self.since:
                    continue
                if not self.filters_every_record:
                    self.since = ""
            if self.until and entry.time > self.until:
                self.finished = True
                return
            if entry.stream in self.streams:
                yield entry
