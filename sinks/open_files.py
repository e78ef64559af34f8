"""Files open for appending: bounded in number, written to exactly once, safe from names made by strangers.

Everything here blocks and is called in a worker thread, one call at a time. It changes no `FileLength` of
the route's state itself: it says what has to be recorded, and is called again when that is stored.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from logroute.router.record import Record
from logroute.sinks import FileLength, Retryable
from logroute.sinks.rotation import current_path, finished_name, iso, period, timed

FINGERPRINT_BYTES = 1024
CHECK_EVERY_S = 1.0
"""How often an open file is compared with what stands under its path."""
JOIN_BELOW_BYTES = 16 << 10
"""Pieces that are smaller on average are joined before they are written; larger ones go by `writev`."""
IOV_MAX = 1024
FORGET_AFTER_S = 7 * 24 * 3600.0
"""Lengths of files that nothing was written to for so long are forgotten, like the checkpoints."""

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

# The name is at fault, and trying again will not help; with a fixed path it is the configuration's fault.
BAD_PATH = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EILSEQ}

WHAT_TO_DO = {
    errno.ENOSPC: "free some space on its disk",
    errno.EDQUOT: "raise the quota of the user, or remove some files",
    errno.EROFS: "its file system is mounted read-only: check the disk, mount it writable",
    errno.EACCES: "give the user that logroute runs as permission to write there",
    errno.EPERM: "give the user that logroute runs as permission to write there",
    errno.EIO: "check the disk",
    errno.EFBIG: "set rotate.size below the limit of the file system or of ulimit -f",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or lower max_open",
    errno.ENFILE: "raise fs.file-max, or lower max_open",
    errno.ELOOP: "below the base folder no symbolic link is followed: put a folder there",
    errno.ENOTDIR: "a file stands where a folder is needed: move it away",
    errno.EISDIR: "a folder stands where the file should be: move it away",
}


class NotRegular(OSError):
    """Something else than a regular file stands under the path: a pipe, a device, a socket."""


class BadPath(Exception):
    """Nothing can be written under this path, now or later."""


def refused(error: OSError, path: str, action: str) -> Retryable:
    name = errno.errorcode.get(error.errno or 0, "error")
    todo = WHAT_TO_DO.get(error.errno or 0)
    if isinstance(error, NotRegular):
        todo = "the file sink writes to regular files only; for a pipe use stdout:"
    hint = f"; {todo}; logroute goes on by itself" if todo else ""
    return Retryable(f"cannot {action} {path}: {error.strerror} ({name}){hint}")


# --- folders ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tree:
    """The base folder and how to get below it without following anybody's links."""

    base: str
    """The literal part of the template before its first placeholder, up to the last `/`."""
    folder_mode: int

    def below(self, path: str) -> tuple[str, str]:
        """Split a path into its folder below the base (may be empty) and its name."""
        folder, _, name = path[len(self.base) :].lstrip("/").rpartition("/")
        return folder, name

    def holds(self, path: str) -> bool:
        return path.startswith(self.base.rstrip("/") + "/")

    def open_folder(self, below: str, *, create: bool = False) -> int:
        """A descriptor of a folder below the base. No component of `below` may be a symbolic link."""
        try:
            folder = os.open(self.base, _FOLDER)
        except FileNotFoundError:
            if not create:
                raise
            self._make_base(self.base)
            folder = os.open(self.base, _FOLDER)
        for component in below.split("/") if below else ():
            parent = folder
            try:
                try:
                    folder = os.open(component, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
                except FileNotFoundError:
                    if not create:
                        raise
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(component, self.folder_mode, dir_fd=parent)
                    folder = os.open(component, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
            finally:
                os.close(parent)
        return folder

    @contextlib.contextmanager
    def folder_of(self, path: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """The descriptor of the folder that holds `path`, and the name of `path` in it."""
        if self.holds(path):
            below, name = self.below(path)
            folder = self.open_folder(below, create=create)
        else:  # recorded when the template was another one
            above, name = os.path.split(path)
            folder = os.open(above, _FOLDER | os.O_NOFOLLOW)
        try:
            yield folder, name
        finally:
            os.close(folder)

    def _make_base(self, folder: str) -> None:
        parent = os.path.dirname(folder)
        if parent and not os.path.isdir(parent):
            self._make_base(parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, self.folder_mode)


# --- one file ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class OpenFile:
    """A file open for appending.

    Invariant: `length` is the file's size as far as we know, `head` its first bytes while it has fewer than
    FINGERPRINT_BYTES.
    """

    path: str
    fd: int
    inode: int
    length: int
    head: bytes
    fingerprint: str
    details: dict[str, Any]
    torn: bool
    """The file ends in the middle of a line that somebody else left."""
    checked_at: float
    written_at: float
    pending: int = 0
    """Bytes behind `length` that an unfinished delivery has written."""

    def as_length(self) -> FileLength:
        return FileLength(self.fingerprint, min(self.length, FINGERPRINT_BYTES), self.length, self.details)


def fingerprint(head: bytes) -> str:
    return blake2b(head, digest_size=16).hexdigest()


def matches(fd: int, found: os.stat_result, entry: FileLength) -> bool:
    """Whether this is the file that was recorded, however long it is now.

    The first bytes decide. Fewer than FINGERPRINT_BYTES may be equal by chance (two files of one program
    begin alike), so then the inode has to be the same too.
    """
    if found.st_size < entry.fingerprint_bytes:
        return False
    if fingerprint(os.pread(fd, entry.fingerprint_bytes, 0)) != entry.fingerprint:
        return False
    return entry.fingerprint_bytes >= FINGERPRINT_BYTES or (entry.details or {}).get("inode") == found.st_ino


# --- deliveries -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Job:
    """What one delivery writes to one file."""

    path: str
    family: str
    first_time: str
    pieces: list[bytes] = field(default_factory=list)
    records: list[tuple[int, Sequence[Record]]] = field(default_factory=list)
    """The records in `pieces`, with the index of their batch, in case all of them are refused."""


Changes = dict[str, FileLength | None]
"""What to put into the route's `files`; None: take it out."""


@dataclass(slots=True)
class Outcome:
    """What one step did. While there is a `barrier`, no byte was written: store it and call again."""

    barrier: Changes = field(default_factory=dict)
    written: dict[str, FileLength] = field(default_factory=dict)
    closed: Changes = field(default_factory=dict)
    refused: list[tuple[Job, str]] = field(default_factory=list)
    finished: set[str] = field(default_factory=set)
    """Families that a file was finished in."""
    reports: list[tuple[str, dict[str, object]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Writing:
    """The options that say how files are written."""

    max_open: int
    size_bytes: int | None
    every_s: float | None
    idle_s: float
    compress: bool
    remember: bool
    """Remember files that are closed, so that they are removed when their `age` comes."""
    fsync: bool
    mode: int
    exact_mode: bool
    """The mode was asked for: the umask must not change it."""
    fixed: bool
    """The path has no placeholder."""


class OpenFiles:
    """The files that a route writes to. All methods block."""

    def __init__(self, tree: Tree, writing: Writing, clock: Callable[[], float]) -> None:
        self._tree = tree
        self._writing = writing
        self._clock = clock
        # Least recently written first. Invariant: at most max_open.
        self._open: OrderedDict[str, OpenFile] = OrderedDict()
        self.reopened = 0

    def __len__(self) -> int:
        return len(self._open)

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1].fd)

    # --- a delivery -----------------------------------------------------------------------------------

    def write(self, jobs: list[Job], entries: Mapping[str, FileLength], now: float) -> Outcome:
        """One step of a delivery: either a barrier, or everything is written. Raises Retryable.

        Refused jobs are taken out of `jobs`. After Retryable every file is as it was before.
        """
        outcome = Outcome()
        for job in list(jobs):
            try:
                self._prepare(job, entries.get(job.path), now, outcome)
            except BadPath as error:
                outcome.refused.append((job, str(error)))
                jobs.remove(job)
        if not outcome.barrier:
            self._write_all(jobs, entries, now, outcome)
        return outcome

    def _prepare(self, job: Job, entry: FileLength | None, now: float, outcome: Outcome) -> None:
        details = (entry.details if entry else None) or {}
        if entry is not None and "rename_to" in details:
            self.finish(job.path, entry, outcome)
            outcome.finished.add(job.family)
            entry = None
        elif details.get("closed"):
            entry = None
        file = self._checked(job.path, now)
        if file is None:
            file = self._opened(job.path, entry, now, outcome)
        if entry is None or file.length != entry.length:
            if job.family != job.path:
                file.details["family"] = job.family
            outcome.barrier[job.path] = file.as_length()
        elif self._due(file, job):
            outcome.barrier[job.path] = self.intent(job.path, entry)

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
        os.close(self._open.pop(path).fd)
        return None

    def _opened(self, path: str, entry: FileLength | None, now: float, outcome: Outcome) -> OpenFile:
        """Open a file that is not open. What differs from `entry` is reported and taken as it is."""
        try:
            fd, found, made = self._open_fd(path)
        except OSError as error:
            if (error.errno in BAD_PATH or isinstance(error, NotRegular)) and not self._writing.fixed:
                raise BadPath(
                    str(refused(error, path, "open")).removesuffix("; logroute goes on by itself")
                ) from None
            raise refused(error, path, "open") from error
        try:
            head = os.pread(fd, FINGERPRINT_BYTES, 0)
            details: dict[str, Any] = {"inode": found.st_ino}
            if entry is not None and (found.st_size != entry.length or not matches(fd, found, entry)):
                self.reopened += 1
                report = _interference(path, entry, found, made)
                outcome.reports.append(report)
                if _shared(entry, found):
                    details["shared"] = True
                entry = None
            if entry is not None:
                details = dict(entry.details or {}) | details
            elif found.st_size:
                details["begun"] = iso(found.st_mtime)
            torn = entry is None and found.st_size > 0 and os.pread(fd, 1, found.st_size - 1) != b"\n"
            if torn:
                outcome.reports.append(
                    ("the file ended in the middle of a line: ended that line first", {"path": path})
                )
        except BaseException:
            os.close(fd)
            raise
        file = OpenFile(
            path, fd, found.st_ino, found.st_size, head, fingerprint(head), details, torn, now, now
        )  # fmt: skip
        while len(self._open) >= self._writing.max_open:
            os.close(self._open.popitem(last=False)[1].fd)
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
                    fd = os.open(name if folder is not None else path, _FLAGS, dir_fd=folder)
                    break
                except FileNotFoundError:
                    if folder is None:
                        folder = self._tree.open_folder(below, create=True)
                    try:
                        fd = os.open(name, _FLAGS | os.O_CREAT | os.O_EXCL, mode, dir_fd=folder)
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
                outcome.written[job.path] = file.as_length()
        except BaseException as error:
            for touched, length in reversed(before):
                self._cut_back(touched, length)
            if isinstance(error, OSError) and job is not None:
                raise refused(error, job.path, "write to") from error
            raise

    def _append(self, file: OpenFile, job: Job) -> None:
        pieces = job.pieces
        if file.torn:
            pieces = [b"\n", *pieces]
        size = sum(map(len, pieces))
        if len(pieces) > 1 and (len(pieces) > IOV_MAX or size < len(pieces) * JOIN_BELOW_BYTES):
            pieces = [b"".join(pieces)]
        file.pending = os.write(file.fd, pieces[0]) if len(pieces) == 1 else os.writev(file.fd, pieces)
        if file.pending < size:
            rest = memoryview(b"".join(pieces))
            while file.pending < size:
                file.pending += os.write(file.fd, rest[file.pending :])
        if self._writing.fsync:
            os.fdatasync(file.fd)
        if file.length < FINGERPRINT_BYTES:
            head = b"".join(pieces)[: FINGERPRINT_BYTES - file.length] if len(pieces) > 1 else pieces[0]
            file.head = (file.head + head[: FINGERPRINT_BYTES - file.length])[:FINGERPRINT_BYTES]
            file.fingerprint = fingerprint(file.head)
            if not file.length and self._writing.every_s is not None:
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

    # --- rotation: intent, stored; rename, stored -------------------------------------------------------

    def intent(self, path: str, entry: FileLength) -> FileLength:
        """The entry that says what the file is about to be renamed to. To be stored before `finish`."""
        try:
            with self._tree.folder_of(path) as (folder, name):
                new_name = finished_name(name, self._clock(), os.listdir(folder))
        except OSError as error:
            raise refused(error, path, "rotate") from error
        return replace(entry, details=(entry.details or {}) | {"rename_to": new_name})

    def finish(self, path: str, entry: FileLength, outcome: Outcome) -> None:
        """Rename as the stored intent says. Repeating it after a crash does what was not done yet."""
        file = self._open.pop(path, None)
        if file is not None:
            os.close(file.fd)
        new_name = (entry.details or {})["rename_to"]
        try:
            with self._tree.folder_of(path) as (folder, name):
                if _examine(folder, new_name, entry, cut=False)[0] in ("equal", "longer", "shared"):
                    return  # done before the crash
                state, _ = _examine(folder, name, entry, cut=True)
                if state in ("missing", "foreign", "shorter"):
                    outcome.reports.append(_changed(state, path, entry))
                    return
                try:
                    os.stat(new_name, dir_fd=folder, follow_symlinks=False)
                except FileNotFoundError:
                    os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=folder)
                else:  # somebody took the name: the file stays, and the next try finds another name
                    outcome.reports.append(
                        ("cannot rotate: the new name is taken", {"path": path, "to": new_name})
                    )
                if self._writing.fsync:
                    os.fsync(folder)
        except FileNotFoundError:
            outcome.reports.append(_changed("missing", path, entry))
        except OSError as error:
            raise refused(error, path, "rotate") from error

    def finish_all(self, entries: Mapping[str, FileLength]) -> Outcome:
        """Finish the files whose stored entries say so. Raises Retryable."""
        outcome = Outcome()
        for path, entry in entries.items():
            self.finish(path, entry, outcome)
            outcome.closed[path] = self._remembered(path, entry)
            outcome.finished.add((entry.details or {}).get("family", path))
        return outcome

    def settle(self, entries: Mapping[str, FileLength], now: float) -> Outcome:
        """Close what nothing was written to for `idle`; say which files have to be finished or forgotten."""
        outcome = Outcome()
        wall = self._clock()
        for path, entry in entries.items():
            details = entry.details or {}
            file = self._open.get(path)
            if details.get("closed") or "rename_to" in details:
                continue
            if file is not None:
                if now - file.written_at < self._writing.idle_s:
                    continue
                os.close(self._open.pop(path).fd)
            try:
                quiet_s = wall - os.stat(path, follow_symlinks=False).st_mtime
            except OSError:
                quiet_s = FORGET_AFTER_S
            if file is None and quiet_s < self._writing.idle_s:
                continue
            family = details.get("family", path)
            passed = timed(family) and current_path(family, wall) != path
            every_s = self._writing.every_s
            overdue = (
                every_s is not None
                and period(iso(wall), every_s) > period(details.get("begun", ""), every_s) >= 0
            )
            if entry.length and (overdue or (passed and self._writing.compress)):
                outcome.barrier[path] = self.intent(path, entry)
            elif passed or quiet_s >= FORGET_AFTER_S:
                outcome.closed[path] = self._remembered(path, entry)
                outcome.finished.add(family)
        return outcome

    def _remembered(self, path: str, entry: FileLength) -> FileLength | None:
        if not self._writing.remember:
            return None
        family = (entry.details or {}).get("family")
        return FileLength("", 0, 0, {"closed": True} | ({"family": family} if family else {}))

    # --- after a start ----------------------------------------------------------------------------------

    def recover(self, entries: Mapping[str, FileLength]) -> Outcome:
        """Bring every recorded file to its recorded length, and finish rotations. Raises Retryable."""
        self.close()
        outcome = Outcome()
        for path, entry in entries.items():
            details = entry.details or {}
            if details.get("closed"):
                continue
            if "rename_to" in details:
                self.finish(path, entry, outcome)
                outcome.closed[path] = None
                outcome.finished.add(details.get("family", path))
                continue
            try:
                with self._tree.folder_of(path) as (folder, name):
                    state, size = _examine(folder, name, entry, cut=True)
            except (FileNotFoundError, NotADirectoryError):
                state, size = "missing", 0
            except OSError as error:
                if error.errno == errno.ELOOP:
                    state, size = "foreign", 0
                else:
                    raise refused(error, path, "open") from error
            if state == "cut":
                outcome.reports.append(
                    ("cut back what was not acknowledged", {"path": path, "bytes": size - entry.length})
                )
            elif state == "shared":
                outcome.reports.append(
                    (_WROTE, {"path": path, "written_bytes": entry.length, "found_bytes": size})
                )
                outcome.closed[path] = None
            elif state != "equal":
                outcome.reports.append(_changed(state, path, entry))
                outcome.closed[path] = None
        return outcome


def _examine(folder: int, name: str, entry: FileLength, *, cut: bool) -> tuple[str, int]:
    """Compare a file with its entry: equal, cut (or longer), missing, foreign, shorter or shared; its size.

    Only a file with the recorded fingerprint is cut back, and none that somebody else writes to as well.
    """
    try:
        fd = os.open(name, (_FLAGS & ~os.O_RDWR) | (os.O_RDWR if cut else os.O_RDONLY), dir_fd=folder)
    except FileNotFoundError:
        return "missing", 0
    try:
        found = os.fstat(fd)
        size = found.st_size
        if not stat.S_ISREG(found.st_mode):
            return "foreign", size
        if not matches(fd, found, entry):
            return ("shorter" if size < entry.fingerprint_bytes else "foreign"), size
        if size < entry.length:
            return "shorter", size
        if size == entry.length:
            return "equal", size
        if (entry.details or {}).get("shared"):
            return "shared", size
        if not cut:
            return "longer", size
        os.ftruncate(fd, entry.length)
        return "cut", size
    finally:
        os.close(fd)


def _changed(state: str, path: str, entry: FileLength) -> tuple[str, dict[str, object]]:
    text = {
        "missing": "a file written before is gone",
        "foreign": "another file stands where one was written before: it is appended to",
        "shorter": "a file is shorter than what was written: acknowledged records are gone",
    }[state]
    return text, {"path": path, "written_bytes": entry.length}


_WROTE = "somebody else writes to a file of this route: nothing in it is cut back any more"


def _shared(entry: FileLength, found: os.stat_result) -> bool:
    """Whether somebody else appends to the file that we write to."""
    details = entry.details or {}
    return details.get("inode") == found.st_ino and (
        found.st_size > entry.length or details.get("shared", False)
    )


def _interference(
    path: str, entry: FileLength, found: os.stat_result, made: bool
) -> tuple[str, dict[str, object]]:
    if made:
        text = "a file was moved or removed by somebody else: going on in a new one"
    elif (entry.details or {}).get("inode") != found.st_ino:
        text = "a file was replaced by somebody else: the new one is appended to"
    elif found.st_size > entry.length:
        text = _WROTE
    else:
        text = "a file was cut by somebody else: it is appended to"
    return text, {"path": path, "written_bytes": entry.length, "found_bytes": found.st_size}
