"""Folders below a base that the user wrote, with names that strangers made: no link in them is followed.

Also what goes wrong with files, in words, and whose fault it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

import msgspec

from logroute.sinks import Retryable

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a pipe that somebody put there must not wait for its reader.
READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
WRITE_FLAGS = READ_FLAGS | os.O_RDWR | os.O_APPEND

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
    """Nothing can be written under this path, now or later, for a reason that its name brought along."""


def refused(error: OSError, path: str, action: str) -> Retryable:
    name = errno.errorcode.get(error.errno or 0, "error")
    todo = WHAT_TO_DO.get(error.errno or 0)
    if isinstance(error, NotRegular):
        todo = "the file sink writes to regular files only; for a pipe use stdout:"
    hint = f"; {todo}; logroute goes on by itself" if todo else ""
    return Retryable(f"cannot {action} {path}: {error.strerror} ({name}){hint}")


class Tree(msgspec.Struct, frozen=True):
    """The base folder and how to get below it without following anybody's links."""

    base: str
    """The literal part of the template before its first placeholder, up to the last `/`."""
    folder_mode: int
    fsync: bool = False
    """New folders have to survive power loss."""
    exact_mode: bool = False
    """The umask must not change `folder_mode`."""

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
            folder = self._made_base(self.base)
        for component in below.split("/") if below else ():
            parent = folder
            try:
                try:
                    folder = os.open(component, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
                except FileNotFoundError:
                    if not create:
                        raise
                    folder = self._made(component, parent, os.O_NOFOLLOW)
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

    def check(self, file: str | None) -> None:
        """Raises OSError if it is certain that nothing can be written. Changes nothing.

        The base cannot be made; or `file`, if the path is always that one, cannot be made or written to.
        """
        if file is not None and os.path.exists(file):
            place = file
        else:
            place = self.base
            while not os.path.lexists(place) and os.path.dirname(place) != place:
                place = os.path.dirname(place)
            os.close(os.open(place, _FOLDER))
            if file is None and place == self.base:  # there may be folders in it that we may write to
                return
        if not os.access(place, os.W_OK, effective_ids=True):
            number = errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES
            raise OSError(number, os.strerror(number), place)

    def _made_base(self, path: str) -> int:
        """The base, which is not there, or one of the folders above it."""
        above, name = os.path.split(path)
        try:
            parent = os.open(above, _FOLDER)
        except FileNotFoundError:
            parent = self._made_base(above)
        try:
            return self._made(name, parent)
        finally:
            os.close(parent)

    def _made(self, name: str, parent: int, flags: int = 0) -> int:
        """A descriptor of a folder that was not there; somebody else may make it meanwhile."""
        try:
            os.mkdir(name, self.folder_mode, dir_fd=parent)
        except FileExistsError:
            made = False
        else:
            made = True
        folder = os.open(name, _FOLDER | flags, dir_fd=parent)
        try:
            if made and self.exact_mode:
                inherited = os.fstat(folder).st_mode & stat.S_ISGID
                os.fchmod(folder, self.folder_mode | inherited)
            if self.fsync:
                os.fsync(parent)
        except BaseException:
            os.close(folder)
            raise
        return folder
