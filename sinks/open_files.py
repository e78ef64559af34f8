"""Files open for appending: bounded in number, written to all or nothing, noticed when somebody moves them.

Everything here blocks and is called in a worker thread, one call at a time. It changes no entry of the
route's state itself: it says what has to be stored, and is called again when that is done.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from logroute.router.record import Batch
from logroute.sinks import FileLength, Retryable
from logroute.sinks.file_owners import OWNERS, Inode, Owned, inode_of
from logroute.sinks.folders import BAD_PATH, WRITE_FLAGS, BadPath, NotRegular, Tree, refused
from logroute.sinks.recorded_files import (
    FINGERPRINT_BYTES,
    Changes,
    Repairs,
    changed,
    details_of,
    family_of_entry,
    fingerprint,
    finish,
    intent,
    interference,
    is_closed,
    matches,
    recover,
    remembered,
)
from logroute.sinks.rotation import current_path, iso, period, timed

CHECK_EVERY_S = 1.0
"""How often an open file is compared with what stands under its path."""
FORGET_AFTER_S = 7 * 24 * 3600.0
"""Lengths of files that nothing was written to for so long are forgotten, like the checkpoints."""
JOIN_BELOW_BYTES = 16 << 10
"""Pieces that are smaller on average are joined before they are written; larger ones go by `writev`."""
IOV_MAX = 1024


class OpenFile(msgspec.Struct):
    """A file open for appending.

    Invariant: `length` is the file's size as far as we know, `head` its first bytes while it has fewer than
    FINGERPRINT_BYTES.
    """

    path: str
    fd: int
    inode: Inode
    length: int
    head: bytes
    fingerprint: str
    details: dict[str, Any]
    torn: bool
    """The file ends in the middle of a line that somebody else left."""
    checked_at: float
    written_at: float
    entry: FileLength | None = None
    """What the route's state says of it, as far as this object knows."""
    pending: int = 0
    """Bytes behind `length` that an unfinished delivery has written."""

    def as_length(self) -> FileLength:
        return FileLength(self.fingerprint, min(self.length, FINGERPRINT_BYTES), self.length, self.details)


class Job(msgspec.Struct):
    """What one delivery writes to one file."""

    path: str
    family: str
    first_time: str
    pieces: list[bytes] = msgspec.field(default_factory=list)
    batches: list[tuple[int, Batch]] = msgspec.field(default_factory=list)
    """What `pieces` hold, with the index of the delivered batch, in case all of it is refused."""


class Outcome(Repairs):
    """What one step did. While there is a `barrier`, no byte was written: store it and call again."""

    barrier: Changes = msgspec.field(default_factory=dict)
    written: dict[str, FileLength] = msgspec.field(default_factory=dict)
    refused: list[tuple[Job, str]] = msgspec.field(default_factory=list)


class Writing(msgspec.Struct, frozen=True):
    """The options that say how files are written."""

    max_open: int
    size_bytes: int | None
    every_s: float | None
    idle_s: float
    compress: bool
    remember: bool
    """Remember families of closed files: some are to be compressed, or removed when their `age` comes."""
    fsync: bool
    mode: int
    exact_mode: bool
    """The mode was asked for: the umask must not change it."""
    fixed: bool
    """The path has no placeholder."""
    makes: re.Pattern[str]
    """What every path matches that the template makes now."""


class OpenFiles:
    """The files that a route writes to. All methods block."""

    def __init__(
        self, route: str, state_dir: str | None, tree: Tree, writing: Writing, clock: Callable[[], float]
    ) -> None:
        self._route = route
        self._state_dir = state_dir
        self._tree = tree
        self._writing = writing
        self._clock = clock
        self._rotates = writing.size_bytes is not None or writing.every_s is not None
        # Least recently written first. Invariant: at most max_open.
        self._open: OrderedDict[str, OpenFile] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def close(self) -> None:
        while self._open:
            self._shut(self._open.popitem()[1])

    def end(self, entries: Mapping[str, FileLength] | None) -> None:
        """The route writes nothing any more. `entries`: nobody knows how the last delivery has ended.

        What of it is not acknowledged is taken back now, because then the files may be another route's.
        """
        try:
            self.close()
            if entries is not None:
                with contextlib.suppress(Retryable):  # then the next start does it, or whoever may not
                    self.recover(entries)
        finally:
            OWNERS.release_all(self._route)

    # --- a delivery -----------------------------------------------------------------------------------

    def write(self, jobs: list[Job], entries: Mapping[str, FileLength], now: float) -> Outcome:
        """One step of a delivery: either a barrier, or everything is written. Raises Retryable.

        Refused jobs are taken out of `jobs`. After Retryable every file is as it was before.
        """
        outcome = Outcome()
        unchecked = now - CHECK_EVERY_S
        claimed = self._claim(jobs)
        try:
            for job in list(jobs):
                file = self._open.get(job.path)
                entry = entries.get(job.path)
                if (
                    file is not None
                    and file.entry is entry
                    and file.checked_at > unchecked
                    and not self._rotates
                ):
                    continue  # the common case, for which the rest of this would be too slow
                try:
                    self._prepare(job, entry, now, outcome)
                except BadPath as error:
                    outcome.refused.append((job, str(error)))
                    jobs.remove(job)
        except BaseException:
            OWNERS.release([path for path in claimed if path not in self._open], self._route)
            raise
        if not outcome.barrier:
            self._write_all(jobs, entries, now, outcome)
        return outcome

    def _claim(self, jobs: Sequence[Job]) -> list[str]:
        """Have all of their paths, or none that was not ours: two routes that have one each and want both
        would wait for each other. Those that are new. Raises Owned."""
        claimed: list[str] = []
        try:
            for job in jobs:
                if job.path not in self._open and OWNERS.claim(job.path, self._route):
                    claimed.append(job.path)  # noqa: PERF401  # also those before the one that is not ours
        except Owned:
            OWNERS.release(claimed, self._route)
            raise
        return claimed

    def _prepare(self, job: Job, entry: FileLength | None, now: float, outcome: Outcome) -> None:
        if entry is not None and "rename_to" in details_of(entry):
            self._finish(job.path, entry, outcome)
            entry = None
        elif is_closed(entry):
            entry = None
        file = self._checked(job.path, now)
        if file is None:
            file = self._opened(job.path, entry, now, outcome)
        if entry is None or file.length != entry.length:
            if job.family != job.path:
                file.details["family"] = job.family
            outcome.barrier[job.path] = file.entry = file.as_length()
        elif self._due(file, job):
            outcome.barrier[job.path] = intent(self._tree, job.path, entry, self._clock())

    def _due(self, file: OpenFile, job: Job) -> bool:
        """Whether the file has to be finished before this is written; no clock is asked."""
        if not file.length:
            return False
        size = self._writing.size_bytes
        if size is not None and file.length + sum(map(len, job.pieces)) > size:
            return True
        every_s = self._writing.every_s
        if every_s is None:
            return False
        return period(job.first_time, every_s) > period(file.details.get("begun", ""), every_s) >= 0

    def _checked(self, path: str, now: float) -> OpenFile | None:
        """The file if it is open and, as far as was looked lately, still what stands under its path."""
        file = self._open.get(path)
        if file is None or now - file.checked_at < CHECK_EVERY_S:
            return file
        file.checked_at = now
        here = os.fstat(file.fd)
        with contextlib.suppress(OSError):
            there = os.stat(path, follow_symlinks=False)
            if (there.st_ino, there.st_dev, there.st_size) == (here.st_ino, here.st_dev, file.length):
                return file
        self._close(path)
        return None

    def _opened(self, path: str, entry: FileLength | None, now: float, outcome: Outcome) -> OpenFile:
        """Open a file that is not open. What differs from `entry` is reported and taken as it is.

        Raises Owned where another route, or another process, writes to it.
        """
        OWNERS.claim(path, self._route)
        try:
            return self._opened_as_owner(path, entry, now, outcome)
        except BaseException:
            if entry is None:
                OWNERS.release([path], self._route)
            raise

    def _opened_as_owner(self, path: str, entry: FileLength | None, now: float, outcome: Outcome) -> OpenFile:
        try:
            fd, found, made = self._open_fd(path)
        except OSError as error:
            bad = error.errno in BAD_PATH or isinstance(error, NotRegular)
            if bad and not self._writing.fixed and os.path.isdir(self._tree.base):
                raise BadPath(
                    str(refused(error, path, "open")).removesuffix("; logroute goes on by itself")
                ) from None
            raise refused(error, path, "open") from error
        try:
            OWNERS.open(fd, found, path, self._route)
        except BaseException:
            os.close(fd)
            raise
        try:
            # Somebody else may have written to it until a moment ago.
            found = os.fstat(fd)
            head = os.pread(fd, FINGERPRINT_BYTES, 0)
            details: dict[str, Any] = {"inode": found.st_ino}
            if entry is not None and (found.st_size != entry.length or not matches(fd, found, entry)):
                report, shared = interference(path, entry, found, made)
                outcome.foreign(report)
                if shared:
                    details["shared"] = True
                entry = None
            if entry is not None:
                details = details_of(entry) | details
            elif found.st_size:
                details["begun"] = iso(found.st_mtime)
            torn = entry is None and found.st_size > 0 and os.pread(fd, 1, found.st_size - 1) != b"\n"
            if torn:
                outcome.reports.append(
                    ("the file ended in the middle of a line: ended that line first", {"path": path})
                )
        except BaseException:
            os.close(fd)
            OWNERS.close(inode_of(found))
            raise
        file = OpenFile(
            path, fd, inode_of(found), found.st_size, head, fingerprint(head), details, torn, now, now
        )  # fmt: skip
        while len(self._open) >= self._writing.max_open:
            self._shut(self._open.popitem(last=False)[1])
        self._open[path] = file
        return file

    def _open_fd(self, path: str) -> tuple[int, os.stat_result, bool]:
        below, name = self._tree.below(path)
        mode = self._writing.mode
        made = False
        # The base is trusted, so a file right in it needs no walk.
        folder = self._tree.open_folder(below, create=True) if below else None
        try:
            for attempt in range(3):
                try:
                    fd = os.open(name if folder is not None else path, WRITE_FLAGS, dir_fd=folder)
                    break
                except FileNotFoundError:
                    if folder is None:
                        folder = self._tree.open_folder(below, create=True)
                    try:
                        fd = os.open(name, WRITE_FLAGS | os.O_CREAT | os.O_EXCL, mode, dir_fd=folder)
                    except FileExistsError:
                        continue
                    made = True
                    break
                except OSError as error:
                    if error.errno not in (errno.EMFILE, errno.ENFILE) or attempt or not self._open:
                        raise
                    self.close()
            else:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            try:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode):
                    raise NotRegular(errno.EINVAL, "it is not a regular file", path)
                if made and self._writing.exact_mode:
                    os.fchmod(fd, mode)
                if made and self._writing.fsync and folder is not None:
                    os.fsync(folder)
            except BaseException:
                os.close(fd)
                raise
            return fd, found, made
        finally:
            if folder is not None:
                os.close(folder)

    def _write_all(
        self, jobs: Sequence[Job], entries: Mapping[str, FileLength], now: float, outcome: Outcome
    ) -> None:
        before: list[tuple[Job, int]] = []
        written = outcome.written
        job = None
        try:
            for job in jobs:
                file = self._open.get(job.path)
                if file is None:  # more files than may be open: closed again since it was prepared
                    file = self._opened(job.path, entries.get(job.path), now, outcome)
                    if file.length != entries[job.path].length:
                        raise Retryable(f"{job.path} was changed by somebody else while it was written")
                else:
                    self._open.move_to_end(job.path)
                before.append((job, file.length))
                self._append(file, job)
                file.written_at = now
                written[job.path] = file.entry = file.as_length()
        except BaseException as error:
            for touched, length in reversed(before):
                self._cut_back(touched, length)
            if isinstance(error, OSError) and job is not None:
                raise refused(error, job.path, "write to") from error
            if isinstance(error, BadPath):
                raise Retryable(str(error)) from error
            raise

    def _append(self, file: OpenFile, job: Job) -> None:
        pieces = [b"\n", *job.pieces] if file.torn else job.pieces
        if len(pieces) == 1:
            size = len(pieces[0])
        else:
            size = sum(map(len, pieces))
            if len(pieces) > IOV_MAX or size < len(pieces) * JOIN_BELOW_BYTES:
                pieces = [b"".join(pieces)]
        file.pending = os.write(file.fd, pieces[0]) if len(pieces) == 1 else os.writev(file.fd, pieces)
        if file.pending < size:
            rest = memoryview(b"".join(pieces))
            while file.pending < size:
                file.pending += os.write(file.fd, rest[file.pending :])
        if self._writing.fsync:
            os.fdatasync(file.fd)
        if file.length < FINGERPRINT_BYTES:
            file.head = (file.head + b"".join(pieces))[:FINGERPRINT_BYTES]
            file.fingerprint = fingerprint(file.head)
            if not file.length:
                file.details = file.details | {"begun": job.first_time}
        file.length += size
        file.pending = 0
        file.torn = False

    def _cut_back(self, job: Job, length: int) -> None:
        """Take back what an unfinished delivery has written; if that fails too, the next `open` does it.

        Not where somebody else has written behind our back.
        """
        file = self._open.pop(job.path, None)
        with contextlib.suppress(OSError):
            if file is not None:
                fd, limit = file.fd, file.length + file.pending
            else:  # closed again, for others to be opened
                fd, limit = self._open_fd(job.path)[0], length + sum(map(len, job.pieces)) + 1
            try:
                if length < os.fstat(fd).st_size <= limit:
                    os.ftruncate(fd, length)
            finally:
                os.close(fd)
                if file is not None:
                    OWNERS.close(file.inode)

    # --- between deliveries ---------------------------------------------------------------------------

    def recover(
        self, entries: Mapping[str, FileLength], file: str | None = None, *, waiting: bool = False
    ) -> Repairs:
        """After a start, and after a delivery whose outcome is unknown; `file` is the only path, if fixed.

        `waiting`: for a file of another route. Where that waits for one of ours, one of both has to give way,
        and that is the one whose name comes later.
        Raises Retryable, also where it is certain that nothing can be written.
        """
        self.close()
        try:
            self._tree.check(file)
        except OSError as error:
            raise refused(error, file or self._tree.base, "write to") from error
        ours: dict[str, FileLength] = {}
        taken: list[str] = []
        for path, entry in entries.items():
            try:
                if not is_closed(entry):
                    OWNERS.claim(path, self._route)
                ours[path] = entry
            except Owned:
                taken.append(path)
        others: dict[str, list[FileLength]] | None = None

        def may_cut_at(path: str, fd: int, found: os.stat_result, entry: FileLength) -> bool:
            nonlocal others
            if others is None:
                from logroute.router.stored_files import recorded_by_others

                others = recorded_by_others(self._state_dir, self._route, ours)
            # Lengths of a file only grow: who has recorded more of it has written after us.
            after_us = any(
                entry.length < other.length <= found.st_size and matches(fd, found, other)
                for other in others.get(path, ())
            )
            return not after_us and OWNERS.may_cut(fd, found, self._route)

        writing = self._writing
        repairs = recover(self._tree, ours, may_cut_at, fsync=writing.fsync, remember=writing.remember)
        for path in taken:
            repairs.foreign(changed("taken", path, entries[path]))
            repairs.changes[path] = remembered(path, entries[path], writing.remember)
        wanted = OWNERS.wanted_from(self._route) if waiting else {}
        for path, entry in ours.items():
            # Of another template, and as it was recorded: nothing more comes, and others may have it.
            over = writing.makes.fullmatch(path) is None or wanted.get(path, self._route) < self._route
            if over and not is_closed(entry) and path not in repairs.changes:
                repairs.changes[path] = remembered(path, entry, writing.remember)
        return repairs

    def claim(self, file: str) -> None:
        """Have the only path there is, before anything comes. Raises Owned."""
        OWNERS.claim(file, self._route)
        try:
            OWNERS.check(os.stat(file), file, self._route)
        except OSError:  # opening it will tell
            pass
        except Owned:
            OWNERS.release([file], self._route)
            raise

    def forgotten(self, paths: Collection[str]) -> None:
        """The route's state, as it is stored, has nothing of these any more: others may have them."""
        OWNERS.release([path for path in paths if path not in self._open], self._route)

    def settle(self, entries: Mapping[str, FileLength], now: float) -> Outcome:
        """Close what nothing was written to for `idle`; say which files have to be finished or forgotten."""
        outcome = Outcome()
        wall = self._clock()
        wanted = OWNERS.wanted_from(self._route)
        OWNERS.release(
            [path for path in wanted if path not in entries and path not in self._open], self._route
        )
        for path, entry in entries.items():
            details = details_of(entry)
            file = self._open.get(path)
            if is_closed(entry) or "rename_to" in details:
                continue
            if file is None and path in wanted:
                outcome.changes[path] = remembered(path, entry, self._writing.remember)
                continue
            if file is not None:
                if now - file.written_at < self._writing.idle_s:
                    continue
                self._close(path)
            try:
                quiet_s = wall - os.stat(path, follow_symlinks=False).st_mtime
            except OSError:
                quiet_s = FORGET_AFTER_S
            if file is None and quiet_s < self._writing.idle_s:
                continue
            family = family_of_entry(path, entry)
            passed = timed(family) and current_path(family, wall) != path
            every_s = self._writing.every_s
            overdue = (
                every_s is not None
                and period(iso(wall), every_s) > period(details.get("begun", ""), every_s) >= 0
            )
            if entry.length and (overdue or (passed and self._writing.compress)):
                outcome.barrier[path] = intent(self._tree, path, entry, wall)
            elif passed or quiet_s >= FORGET_AFTER_S or path in wanted:
                outcome.changes[path] = remembered(path, entry, self._writing.remember)
                outcome.finished.add(family)
        return outcome

    def finish(self, entries: Mapping[str, FileLength]) -> Repairs:
        """Rename the files whose entries, now stored, say so. Raises Retryable."""
        repairs = Repairs()
        for path, entry in entries.items():
            self._finish(path, entry, repairs)
            repairs.changes[path] = remembered(path, entry, self._writing.remember)
        return repairs

    def _finish(self, path: str, entry: FileLength, repairs: Repairs) -> None:
        self._close(path)
        finish(self._tree, path, entry, repairs, fsync=self._writing.fsync)

    def _close(self, path: str) -> None:
        file = self._open.pop(path, None)
        if file is not None:
            self._shut(file)

    @staticmethod
    def _shut(file: OpenFile) -> None:
        os.close(file.fd)
        OWNERS.close(file.inode)
