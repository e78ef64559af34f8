"""What the route's state says of its files, against what stands on the disk: cut back, renamed, reported.

A rotation is an intent, stored in the file's entry; then the renaming; then the entry is taken out, stored
again. After a crash between any two of these, `recover` does the rest. Everything here blocks.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import msgspec

from logroute.router.digest import blake2b
from logroute.sinks import FileLength
from logroute.sinks.folders import READ_FLAGS, WRITE_FLAGS, Tree, refused
from logroute.sinks.rotation import finished_name

FINGERPRINT_BYTES = 1024

Changes = dict[str, FileLength | None]
"""What to put into the route's `files`; None: take it out."""
Report = tuple[str, dict[str, object]]
"""Something to be said in the daemon's log."""
State = Literal["missing", "foreign", "shorter", "equal", "longer", "shared", "taken", "cut"]
MayCut = Callable[[int, os.stat_result, FileLength], bool]
"""Whether what is behind the recorded length of an open file is certainly our own."""
MayCutAt = Callable[[str, int, os.stat_result, FileLength], bool]
"""The same of the file at a path."""


class Repairs(msgspec.Struct):
    """What was found and done to recorded files."""

    changes: Changes = msgspec.field(default_factory=dict)
    finished: set[str] = msgspec.field(default_factory=set)
    """Families that a file was finished in."""
    reports: list[Report] = msgspec.field(default_factory=list)
    changed_files: int = 0
    """Files that somebody else moved, removed, replaced, cut or wrote to."""

    def foreign(self, report: Report) -> None:
        self.changed_files += 1
        self.reports.append(report)


def details_of(entry: FileLength | None) -> dict[str, Any]:
    return (entry.details if entry is not None else None) or {}


def family_of_entry(path: str, entry: FileLength) -> str:
    return str(details_of(entry).get("family", path))


def is_closed(entry: FileLength | None) -> bool:
    """The entry only remembers a family, some of whose files are still to be compressed or removed."""
    return bool(details_of(entry).get("closed"))


def remembered(path: str, entry: FileLength, remember: bool) -> FileLength | None:
    if not remember:
        return None
    return FileLength("", 0, 0, {"closed": True, "family": family_of_entry(path, entry)})


# --- which file is it? ------------------------------------------------------------------------------


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
    return entry.fingerprint_bytes >= FINGERPRINT_BYTES or details_of(entry).get("inode") == found.st_ino


def _examine(folder: int, name: str, entry: FileLength, may_cut: MayCut | None = None) -> tuple[State, int]:
    """Compare a file with its entry; its state and size. One that is longer is cut back if it may.

    Only a file with the recorded fingerprint is cut back, and none that somebody else writes to as well.
    """
    try:
        fd = os.open(name, READ_FLAGS if may_cut is None else WRITE_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        return "missing", 0
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            return "foreign", 0
        raise
    try:
        found = os.fstat(fd)
        size = found.st_size
        if not stat.S_ISREG(found.st_mode):
            return "foreign", size
        if not matches(fd, found, entry):
            return ("shorter" if size < entry.fingerprint_bytes else "foreign"), size
        if size <= entry.length:
            return ("equal" if size == entry.length else "shorter"), size
        if details_of(entry).get("shared"):
            return "shared", size
        if may_cut is None:
            return "longer", size
        if not may_cut(fd, found, entry):
            return "taken", size
        os.ftruncate(fd, entry.length)
        return "cut", size
    finally:
        os.close(fd)


# --- rotation: intent, stored; rename; stored -------------------------------------------------------


def intent(tree: Tree, path: str, entry: FileLength, now: float) -> FileLength:
    """The entry that says what the file is about to be renamed to. To be stored before `finish`."""
    try:
        with tree.folder_of(path) as (folder, name):
            new_name = finished_name(name, now, os.listdir(folder))
    except OSError as error:
        raise refused(error, path, "rotate") from error
    return msgspec.structs.replace(entry, details=details_of(entry) | {"rename_to": new_name})


def finish(
    tree: Tree, path: str, entry: FileLength, repairs: Repairs, *, fsync: bool, may_cut: MayCut | None = None
) -> None:
    """Rename as the stored intent says. Repeating it after a crash does what was not done yet."""
    new_name = details_of(entry)["rename_to"]
    repairs.finished.add(family_of_entry(path, entry))
    try:
        with tree.folder_of(path) as (folder, name):
            if _examine(folder, new_name, entry)[0] in ("equal", "longer", "shared"):
                return  # done before the crash
            state, _ = _examine(folder, name, entry, may_cut)
            if state in ("missing", "foreign", "shorter", "taken"):
                repairs.foreign(changed(state, path, entry))
                return
            try:
                os.stat(new_name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=folder)
            else:  # somebody took the name: the file stays, and the next try finds another name
                repairs.foreign(("cannot rotate: the new name is taken", {"path": path, "to": new_name}))
            if fsync:
                os.fsync(folder)
    except FileNotFoundError:
        repairs.foreign(changed("missing", path, entry))
    except OSError as error:
        raise refused(error, path, "rotate") from error


# --- after a start, and after a delivery whose outcome is unknown -----------------------------------


def recover(
    tree: Tree, entries: Mapping[str, FileLength], may_cut_at: MayCutAt, *, fsync: bool, remember: bool
) -> Repairs:
    """Bring every recorded file to its recorded length, and finish rotations. Raises Retryable."""
    repairs = Repairs()
    for path, entry in entries.items():
        if is_closed(entry):
            continue
        may_cut = partial(may_cut_at, path)
        if "rename_to" in details_of(entry):
            finish(tree, path, entry, repairs, fsync=fsync, may_cut=may_cut)
            repairs.changes[path] = remembered(path, entry, remember)
            continue
        try:
            with tree.folder_of(path) as (folder, name):
                state, size = _examine(folder, name, entry, may_cut)
        except (FileNotFoundError, NotADirectoryError):
            state, size = "missing", 0
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise refused(error, path, "open") from error
            state, size = "foreign", 0
        if state == "cut":
            report: Report = (
                "cut back what was not acknowledged; it comes again",
                {"path": path, "bytes": size - entry.length},
            )
            repairs.reports.append(report)
        elif state != "equal":
            repairs.foreign(changed(state, path, entry))
            repairs.changes[path] = remembered(path, entry, remember)
    return repairs


# --- words ------------------------------------------------------------------------------------------

_SHARED = "somebody else writes to a file of this route: nothing in it is cut back any more"
_CHANGED: dict[State, str] = {
    "missing": "a file written before is gone",
    "foreign": "another file stands where one was written before: it is appended to",
    "shorter": "a file is shorter than what was written: acknowledged records are gone",
    "shared": _SHARED,
    "taken": "somebody else writes to a file of this route now: it is left to them",
}


def changed(state: State, path: str, entry: FileLength) -> Report:
    return _CHANGED[state], {"path": path, "written_bytes": entry.length}


def interference(path: str, entry: FileLength, found: os.stat_result, made: bool) -> tuple[Report, bool]:
    """What somebody else did to a file while we were writing to it; and whether both of us write to it."""
    same = details_of(entry).get("inode") == found.st_ino
    longer = found.st_size > entry.length
    if made:
        text = "a file was moved or removed by somebody else: going on in a new one"
    elif not same:
        text = "a file was replaced by somebody else: the new one is appended to"
    elif longer:
        text = _SHARED
    else:
        text = "a file was cut by somebody else: it is appended to"
    details: dict[str, object] = {
        "path": path,
        "written_bytes": entry.length,
        "found_bytes": found.st_size,
    }
    return (text, details), same and not made and (longer or bool(details_of(entry).get("shared")))
