"""The files that one log consists of: the current one and those that rotation renamed, oldest first.

While a descriptor is open its inode cannot be reused, so among open files (device, inode) is identity; a
file that is not open is known by its fingerprint only, because the engine's rotation reuses the same few
inodes and compression makes a new file.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import re
import stat
import sys
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from logroute.router.digest import blake2b

FINGERPRINT_LINE_BYTES = 4096
TAIL_BYTES = 64
DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)
"""What a compressed file says that is cut off, or is none."""
_NULS_AT_ONCE = 256 << 10
ATTEMPTS = 20
"""How often the files of a log are opened anew, because rotation renamed them meanwhile."""

# What rotation appends: json-file's and logrotate's numbers, logrotate's dates, those of Python and log4j
# (2026-11-27_20-15), the compressors' endings.
_DATE = r"\d{8}(?:[-T]?\d{2,6}Z?)?|\d{4}-\d{2}-\d{2}(?:[-_T]\d{2}(?:-\d{2}){0,2})?"
_NUMBERED = re.compile(r"\.(\d{1,4})(\.gz)?$")
_DATED = re.compile(rf"[.-]({_DATE})(?:[-.]\d+)?(\.gz)?$")


def fingerprint(first_line: bytes) -> str:
    """Identity of a log file: a hash of its first line (at most 4 KiB of it, without the newline)."""
    return blake2b(first_line[:FINGERPRINT_LINE_BYTES], digest_size=12).hexdigest()


FileId = tuple[int, int]
"""Device and inode: of an open file nobody else's."""


class Segment(msgspec.Struct, eq=False):
    """One open file of a chain, read forward."""

    fd: int
    device: int
    inode: int
    name: str
    compressed: bool = False
    identity: str = ""
    """Its fingerprint; empty while it has no complete first line."""
    offset: int = 0
    """Where reading goes on: always the beginning of a line. Uncompressed bytes."""
    damaged_at: int | None = None
    """It is compressed, and behind so many bytes it is cut off, or not what a compressor wrote. Known once
    that was come to."""
    damage_told: bool = False
    nuls: int = 0
    """So many bytes at its beginning are NUL, as far as was looked."""
    _alone: tuple[int, int, float] | None = None
    """Its size and time when they were looked at last, and since when, on a clock that nobody sets."""
    _stream: gzip.GzipFile | None = None
    _raw: BinaryIO | None = None

    @property
    def id(self) -> FileId:
        return self.device, self.inode

    def read_into(self, buffer: bytearray, offset: int) -> int:
        """Fill the buffer from `offset`; how many bytes there were. Raises OSError."""
        if not self.compressed:
            return os.preadv(self.fd, [buffer], offset)
        with memoryview(buffer) as view:
            try:
                return self._inflate_into(view, offset)
            except DAMAGE:
                self.damaged_at = self._bytes_before_damage()
                self._from_the_start()
            try:
                return self._inflate_into(view, offset)
            except DAMAGE:
                return 0

    def _inflate_into(self, view: memoryview, offset: int) -> int:
        size = len(view)
        if self.damaged_at is not None:
            size = max(0, min(size, self.damaged_at - offset))
        stream = self._stream or self._from_the_start()
        stream.seek(offset)
        filled = 0
        while filled < size and (count := stream.readinto1(view[filled:size])):
            filled += count
        return filled

    def _bytes_before_damage(self) -> int:
        """All that can be had, to the last byte: an attempt at more than there is gives nothing at all."""
        count = 0
        for step in (1 << 16, 1):
            with contextlib.suppress(*DAMAGE):
                stream = self._from_the_start()
                stream.seek(count)
                while more := len(stream.read1(step)):
                    count += more
        return count

    def _from_the_start(self) -> gzip.GzipFile:
        if self._raw is None:
            self._raw = os.fdopen(os.dup(self.fd), "rb")
        self._raw.seek(0)
        self._stream = gzip.GzipFile(fileobj=self._raw, mode="rb")
        return self._stream

    def read(self, offset: int, size: int) -> bytes:
        buffer = bytearray(size)
        return bytes(buffer[: self.read_into(buffer, offset)])

    def size(self) -> int:
        """Bytes in it; for a compressed one, of the compressed file."""
        return os.fstat(self.fd).st_size

    def left_alone_s(self) -> float:
        """For how long nobody has written to it. Raises OSError.

        Its own time tells that only of what was before the first look, if that is past: the clock may have
        been set since. From then on it counts how long it has looked the same.
        """
        status, now = os.fstat(self.fd), time.monotonic()
        if self._alone is None:
            since = now - max(0.0, time.time() - status.st_mtime)
        else:
            size, mtime_ns, since = self._alone
            if (size, mtime_ns) != (status.st_size, status.st_mtime_ns):
                since = now
        self._alone = status.st_size, status.st_mtime_ns, since
        return now - since

    def begins_at(self, within_bytes: int = sys.maxsize) -> int | None:
        """Where its first line begins: its end if it is all NULs; None if so many did not suffice to tell.

        A program that does not append goes on where it was when its file is truncated (`copytruncate`):
        before that is a hole then, of gigabytes perhaps, which reads as NULs.
        """
        if self.read(0, 1) != b"\0":
            self.nuls = 0
            return 0
        while within_bytes > 0:
            if not self.compressed:
                size = self.size()
                try:
                    self.nuls = max(self.nuls, os.lseek(self.fd, self.nuls, os.SEEK_DATA))
                except OSError as error:
                    if error.errno == errno.ENXIO:  # nothing but the hole
                        return size
            data = self.read(self.nuls, _NULS_AT_ONCE)
            rest = data.lstrip(b"\0")
            self.nuls += len(data) - len(rest)
            if rest or not data:
                return self.nuls
            within_bytes -= len(data)
        return None

    def identify(self) -> str:
        """Its fingerprint, computed once there is a first line; empty until then."""
        if not self.identity:
            head = self.read(self.begins_at() or 0, FINGERPRINT_LINE_BYTES)
            line, newline, _ = head.partition(b"\n")
            if newline or len(head) == FINGERPRINT_LINE_BYTES:
                self.identity = fingerprint(line)
        return self.identity

    def tail_before(self, offset: int) -> bytes:
        start = max(0, offset - TAIL_BYTES)
        return self.read(start, offset - start)

    def forget(self) -> None:
        """The file was truncated: it is a new one under the same inode."""
        self.identity = ""
        self.offset = self.nuls = 0

    def again(self) -> Segment:
        """The same file, open once more, from its beginning: also where no name leads to it any more."""
        fd = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        return Segment(fd, self.device, self.inode, self.name, self.compressed, self.identity)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._raw is not None:
            self._raw.close()
            self._raw = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)
_NO_FILE = (errno.ENXIO, errno.ENODEV)
"""What opening a socket or a device without a driver says."""


def open_segment(path: str | Path) -> Segment | None:
    """Open one file for reading; None if it is not there, or is no regular file.

    Raises OSError for everything else: a disk that fails, or a want of descriptors, says nothing of the file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (*_NOT_THERE, *_NO_FILE):
            return None
        raise
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        return None
    return Segment(fd, status.st_dev, status.st_ino, str(path), compressed=str(path).endswith(".gz"))


def rotated_names(path: str) -> list[str]:
    """The files beside `path` that rotation made of it, oldest first; `path` itself is not among them.

    None where the folder may not be listed. Raises OSError where it cannot be.
    """
    folder, base = os.path.split(path)
    found: list[tuple[tuple[int, float, str], str]] = []
    try:
        entries = list(os.scandir(folder or "."))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    for entry in entries:
        if not entry.name.startswith(base) or entry.name == base:
            continue
        suffix = entry.name[len(base) :]
        if numbered := _NUMBERED.fullmatch(suffix):
            # Higher numbers are older. A plain file and its half-written .gz: the plain one counts.
            found.append(((1, -float(numbered[1]), suffix), entry.path))
        elif dated := _DATED.fullmatch(suffix):
            found.append(((0, 0.0, dated[1]), entry.path))
    found.sort()
    names = [name for _, name in found]
    return [name for name in names if not (name.endswith(".gz") and name[:-3] in names)]


def is_rotated_name(path: str, among: Collection[str]) -> bool:
    """Whether rotation made this file of another of these paths."""
    for pattern in (_NUMBERED, _DATED):
        found = pattern.search(path)
        if found is not None and path[: found.start()] in among:
            return True
    return False


def open_chain(path: str, *, rotated: bool = True) -> list[Segment]:
    """Open all files of a log, oldest first, each once, although rotation may run meanwhile.

    Raises OSError if one cannot be opened that is there; of the rotated ones those count that we may read.
    """
    for _ in range(ATTEMPTS):
        segments: list[Segment] = []
        try:
            _open_each([*(rotated_names(path) if rotated else []), path], segments)
        except OSError:
            close_all(segments)
            raise
        if all(_still(segment) for segment in segments):
            return segments
        # Renamed between the listing and the opening: the order may be wrong. Look again.
        close_all(segments)
    raise OSError(errno.EAGAIN, "its files are renamed faster than they can be opened", path)


def _open_each(names: Sequence[str], segments: list[Segment]) -> None:
    """Add the files of these names, the log's own last, each once."""
    seen: set[tuple[int, int]] = set()
    for name in names:
        try:
            segment = open_segment(name)
        except PermissionError:
            if name == names[-1]:
                raise
            continue
        if segment is None:
            continue
        if (segment.device, segment.inode) in seen:
            segment.close()
            continue
        seen.add((segment.device, segment.inode))
        segments.append(segment)


def close_all(segments: Iterable[Segment]) -> None:
    for segment in segments:
        segment.close()


def _still(segment: Segment) -> bool:
    """Whether the name still means the file that was opened under it."""
    try:
        status = os.stat(segment.name)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == (segment.device, segment.inode)


def newer_segments(path: str, known: list[Segment]) -> tuple[list[Segment], bool]:
    """Files of the chain that came after those that are open, oldest first, and whether none is missing.

    Usually none or the current file; more where rotation ran several times before it was noticed. One is
    missing where the walk from the newest file backwards meets none of the known ones. Raises OSError if one
    cannot be opened that is there.
    """
    inodes = {(segment.device, segment.inode) for segment in known}
    for _ in range(ATTEMPTS):
        fresh: list[Segment] = []
        # The oldest file goes first: while the newest that is known has a name, all that came after it have
        # theirs. It may lose it during the walk, and is not met then.
        met = bool(known) and os.fstat(known[-1].fd).st_nlink > 0
        try:
            for name in _newest_first(path):
                segment = open_segment(name)
                if segment is None:
                    continue
                fresh.insert(0, segment)
                # What was compressed since is another inode with the same content.
                if (segment.device, segment.inode) in inodes or (
                    segment.compressed and segment.identify() in {each.identify() for each in known}
                ):
                    met = True
                    fresh.pop(0).close()
                    break
        except OSError:
            close_all(fresh)
            raise
        if all(_still(segment) for segment in fresh):
            return fresh, met or len(fresh) < 2
        close_all(fresh)
    return [], True


def older_segments(path: str, known: Sequence[Segment], *, rotated: bool = True) -> list[Segment]:
    """Files of the chain that are older than those that are open, oldest first. Raises OSError.

    There are none where none of those that are open is met: the oldest file goes first, so all there are came
    later.
    """
    inodes = {(segment.device, segment.inode) for segment in known}
    identities = {segment.identify() for segment in known} - {""}
    older: list[Segment] = []
    chain = open_chain(path, rotated=rotated)
    for index, segment in enumerate(chain):
        if (segment.device, segment.inode) in inodes or segment.identify() in identities:
            close_all(chain[index:])
            return older
        older.append(segment)
    close_all(older)
    return []


def _newest_first(path: str) -> Iterator[str]:
    """The names of a chain. The first two are guessed: usually they are all that is looked at, and every call
    to the system may have to wait for the interpreter, while the next rotation is milliseconds away."""
    yield path
    yield f"{path}.1"
    yield from (name for name in reversed(rotated_names(path)) if name != f"{path}.1")


def lines_of(segment: Segment, start: int = 0, chunk_bytes: int = 1 << 20) -> Iterator[tuple[int, bytes]]:
    """Every complete line from `start` with its offset, without the newline. For searching, not for speed."""
    start = max(start, segment.begins_at() or 0)
    buffer = bytearray(chunk_bytes)
    rest = b""
    while count := segment.read_into(buffer, start + len(rest)):
        data = rest + buffer[:count]
        at = 0
        while (end := data.find(b"\n", at)) >= 0:
            yield start + at, bytes(data[at:end])
            at = end + 1
        start += at
        rest = bytes(data[at:])
