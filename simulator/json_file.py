"""The json-file driver: one log on disk with its rotation, and the cursors that read it.

Layout and order of operations are moby's `loggerutils.LogFile`: a record is never cut by a rotation, a file
is full when it has reached `max-size`, and with `compress` the next rotation waits for the last one's gzip.
"""

from __future__ import annotations

import gzip
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from logroute.simulator.quirks import Quirks
from logroute.simulator.reading import Cursor, Entry, LogReadError
from logroute.simulator.records import JsonLine, padded, rfc3339

Later = Callable[[Callable[[], None]], None]
"""Runs a step some time after now: at once is also some time."""

_decoder = msgspec.json.Decoder(JsonLine)
_BLOCK_BYTES = 64 * 1024


class JsonFileLog:
    """The log of one container over all of its runs; open while the container runs."""

    def __init__(
        self,
        path: Path,
        *,
        max_size: int | None,
        max_file: int,
        compress: bool,
        quirks: Quirks,
        later: Later,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.path = path
        self.max_size = max_size
        self.max_file = max_file
        self.compress = compress
        self.quirks = quirks
        self.rotations = 0
        self.size = 0
        """Bytes in the current file."""
        self.stale_openings = 0
        """Follow streams that were opened during a rotation."""
        self.last_time_ns = 0
        self._later = later
        self._clock = clock
        self._rotated_ns: int | None = None
        self._fd: int | None = None
        self._followers: set[JsonFileCursor] = set()
        # What an asynchronous compression still has to do; the next rotation does it first.
        self._compression: Callable[[], None] | None = None

    # Writing

    def open(self) -> None:
        """Begin a run: the file continues where the last run left it."""
        self.path.parent.mkdir(mode=0o710, parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self.size = os.fstat(self._fd).st_size

    def append(self, lines: bytes, last_time_ns: int) -> None:
        """Write whole JSON lines, rotating between them where the file is full."""
        view = memoryview(lines)
        while view:
            if self.max_size is None:
                count = len(view)
            else:
                if self.size >= self.max_size:
                    self._rotate()
                # A line goes where the file was not yet full when it began.
                newline = lines.find(b"\n", len(lines) - len(view) + self.max_size - self.size - 1)
                count = len(view) if newline < 0 else newline + 1 - (len(lines) - len(view))
            self._write(view[:count])
            view = view[count:]
            self.last_time_ns = last_time_ns

    def _write(self, data: memoryview) -> None:
        assert self._fd is not None
        self.size += len(data)
        while data:
            data = data[os.write(self._fd, data) :]

    def _name(self, number: int, suffix: str = "") -> Path:
        return self.path.with_name(f"{self.path.name}.{number}{suffix}")

    def _rotate(self) -> None:
        assert self._fd is not None
        self.finish_compression()
        os.close(self._fd)
        suffix = ".gz" if self.compress else ""
        if self.max_file > 1:
            self._name(self.max_file - 1, suffix).unlink(missing_ok=True)
            for number in range(self.max_file - 1, 1, -1):
                older = self._name(number - 1, suffix)
                if older.exists():
                    older.rename(self._name(number, suffix))
            self.path.rename(self._name(1))
        elif self.quirks.renames_single_file:
            self.path.rename(self._name(1))
        else:
            self.path.unlink()
        self._fd = os.open(self.path, os.O_WRONLY | os.O_TRUNC | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self.size = 0
        self.rotations += 1
        self._rotated_ns = self._clock()
        for follower in self._followers:
            follower.log_was_rotated()
        if self.compress and self.max_file > 1:
            self._compression = lambda last_time_ns=self.last_time_ns: self._compress(last_time_ns)
            self._later(self.finish_compression)

    def finish_compression(self) -> None:
        """Do now what is left of the last rotation."""
        compression, self._compression = self._compression, None
        if compression is not None:
            compression()

    def _compress(self, last_time_ns: int) -> None:
        source, target = self._name(1), self._name(1, ".gz")
        if not source.exists():
            return
        target.write_bytes(_gzip(source.read_bytes(), rfc3339(last_time_ns)))
        source.unlink()

    def close(self) -> None:
        """End a run: followers read to the end and stop."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        for follower in self._followers:
            follower.log_was_closed()
        self._followers.clear()
        self.finish_compression()

    def remove(self) -> None:
        """Take the files away, as with the container; open descriptors still read them."""
        self.close()
        for path in self.path.parent.glob(self.path.name + "*"):
            path.unlink()

    # Reading

    def files(self) -> list[Path]:
        """What is there, oldest first."""
        numbered = [self._name(n, s) for n in range(self.max_file - 1, 0, -1) for s in ("", ".gz")]
        return [path for path in [*numbered, self.path] if path.exists()]

    def cursor(self, *, tail: int | None, follow: bool) -> JsonFileCursor:
        """Read from the beginning, or the last `tail` records; to what is there now, or on."""
        segments = [_Segment(path) for path in self.files()]
        if follow and len(segments) > 1 and self._is_rotating():
            segments.pop().close()
            self.stale_openings += 1
        if tail is not None:
            _seek_tail(segments, tail)
        if segments and not follow:
            segments[-1].end = segments[-1].size()
        cursor = JsonFileCursor(self, segments, ended=not follow)
        if follow:
            self._followers.add(cursor)
        return cursor

    def _is_rotating(self) -> bool:
        """Whether who comes to follow does not get to know the newest file."""
        if self._rotated_ns is None:
            return False
        # A clock that was set back since then says nothing.
        return 0 <= self._clock() - self._rotated_ns < self.quirks.opening_race_s * 1e9

    def forget(self, cursor: JsonFileCursor) -> None:
        """A cursor was closed."""
        self._followers.discard(cursor)


class _Segment:
    """One file of the chain under a reader; its descriptor outlives renaming and removal."""

    def __init__(self, path: Path) -> None:
        self.offset = 0
        self.end: int | None = None
        self.fd: int | None = None
        self.data = b""
        if path.suffix == ".gz":
            self.data = gzip.decompress(path.read_bytes())
        else:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def size(self) -> int:
        return len(self.data) if self.fd is None else os.fstat(self.fd).st_size

    def at(self, offset: int, count: int) -> bytes:
        return self.data[offset : offset + count] if self.fd is None else os.pread(self.fd, count, offset)

    def whole_lines(self, limit: int) -> bytes:
        """The next lines, about `limit` bytes of them; empty at the end."""
        while True:
            count = limit if self.end is None else min(limit, self.end - self.offset)
            data = self.at(self.offset, count)
            cut = data.rfind(b"\n") + 1
            if cut or len(data) < limit:
                self.offset += cut
                return data[:cut]
            limit *= 2

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None
            self.data = b""


def _seek_tail(segments: list[_Segment], tail: int) -> None:
    """Move the segments to the last `tail` lines of them all; those before have nothing left."""
    for segment in reversed(segments):
        segment.offset = size = segment.size()
        before_newline = size - 1
        # Invariant: `tail` more lines are wanted before `segment.offset`; each begins behind a newline.
        while tail and before_newline > 0:
            start = max(0, before_newline - _BLOCK_BYTES)
            block = segment.at(start, before_newline - start)
            at = len(block)
            while tail and (at := block.rfind(b"\n", 0, at)) >= 0:
                segment.offset = start + at + 1
                tail -= 1
            before_newline = start
        if tail and size:
            segment.offset = 0
            tail -= 1


class JsonFileCursor(Cursor):
    """Reads a log through its rotations, holding what it has not read yet."""

    def __init__(self, log: JsonFileLog, segments: list[_Segment], *, ended: bool) -> None:
        self.log = log
        self._segments = deque(segments)
        self._ended = ended
        self._missed = 0
        self._repeats = 0

    @property
    def ended(self) -> bool:
        return self._ended

    def log_was_rotated(self) -> None:
        """The log's name is another file's now."""
        if self.log.quirks.rotation_glitch == "none":
            self._segments.append(_Segment(self.log.path))
        else:
            self._missed += 1

    def log_was_closed(self) -> None:
        """The container's run ended; what the next one writes is not for this reader."""
        self._ended = True
        if self._segments and not self._missed:
            self._segments[-1].end = self._segments[-1].size()

    def read(self, limit: int = 256 * 1024) -> list[Entry]:
        """The next entries; empty where there are none now. Raises LogReadError at a line that is none."""
        while self._segments:
            if lines := self._segments[0].whole_lines(limit):
                return _decode(lines)
            if len(self._segments) > 1:
                self._segments.popleft().close()
            elif not self._goes_on(self._segments[0]):
                break
        return []

    def _goes_on(self, segment: _Segment) -> bool:
        """What a follower does at the end of the newest file that it knows."""
        if segment.end is None and segment.size() < segment.offset:
            segment.offset = 0  # truncated in place
            return True
        if self._missed:
            self._repeats, self._missed = self._missed - 1, 0
        elif self._repeats and self.log.quirks.rotation_glitch == "skips and repeats":
            self._repeats -= 1
        else:
            return False
        if not self.log.path.exists():
            return False
        segment.close()
        self._segments[0] = newest = _Segment(self.log.path)
        if self._ended:
            newest.end = newest.size()
        return True

    def close(self) -> None:
        self.log.forget(self)
        for segment in self._segments:
            segment.close()
        self._segments.clear()


def _decode(lines: bytes) -> list[Entry]:
    try:
        decoded = _decoder.decode_lines(lines)
    except msgspec.MsgspecError:
        good: list[Entry] = []
        for line in lines.splitlines():
            try:
                decoded_line = _decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise LogReadError(_go_json_error(line, error), good) from error
            good.append(_entry(decoded_line))
        return good
    return [_entry(line) for line in decoded]


def _entry(line: JsonLine) -> Entry:
    attrs = b"" if isinstance(line.attrs, msgspec.UnsetType) else bytes(line.attrs)
    return Entry(padded(line.time), line.stream, line.log.encode(), attrs)


def _go_json_error(line: bytes, error: msgspec.MsgspecError) -> str:
    first = line[:1]
    if first and first not in b'{["':
        return f"invalid character {first.decode('latin-1')!r} looking for beginning of value"
    return str(error)


def _gzip(data: bytes, last_time: str) -> bytes:
    """A gzip file whose header's extra field tells the time of the last record, as moby writes it."""
    extra = f'{{"lastTime":"{last_time}"}}'.encode()
    plain = gzip.compress(data, 6, mtime=0)
    header = plain[:3] + bytes([plain[3] | 4]) + plain[4:10]
    return header + len(extra).to_bytes(2, "little") + extra + plain[10:]
