"""Which route of this process writes to which file: one alone, or its recorded length means nothing.

Two keys, because one file may have several names (links, mounts), and one that is not there yet has none but
its path. A path belongs to a route while its state holds a length of it; a file (device and inode) while the
route has it open, when the kernel's lock keeps other processes away from it as well.

Nobody asks a disk while holding the lock: one that hangs holds up its own route only.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Collection

import msgspec

from logroute.sinks import Retryable

Inode = tuple[int, int]
"""Device and number."""


def inode_of(status: os.stat_result) -> Inode:
    return status.st_dev, status.st_ino


class Owned(Retryable):
    """Somebody else writes to this file: whoever wants it waits."""


class _Opened(msgspec.Struct):
    """A file that a route has open."""

    route: str
    path: str
    descriptors: int = 0


class Owners:
    """The owners of all files that the routes of a process write to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paths: dict[str, str] = {}
        self._opened: dict[Inode, _Opened] = {}
        self._wanted: dict[str, str] = {}
        """Paths, as their owners call them, and a route that waits for each."""

    def claim(self, path: str, route: str) -> bool:
        """Have this path; whether it was nobody's. Raises Owned."""
        with self._lock:
            new = path not in self._paths
            owner = self._paths.setdefault(path, route)
            if owner != route:
                self._wanted[path] = route
                raise _owned(path, route, owner, path)
            if self._wanted.get(path) == route:
                del self._wanted[path]
            return new

    def release(self, paths: Collection[str], route: str) -> None:
        with self._lock:
            for path in paths:
                if self._paths.get(path) == route:
                    del self._paths[path]
                    self._wanted.pop(path, None)

    def release_all(self, route: str) -> None:
        """The route's sink is closed: it has nothing, and waits for nothing."""
        with self._lock:
            self._paths = {path: owner for path, owner in self._paths.items() if owner != route}
            self._wanted = {
                path: waiting
                for path, waiting in self._wanted.items()
                if waiting != route and path in self._paths
            }

    def check(self, status: os.stat_result, path: str, route: str) -> None:
        """Raises Owned where another route has this file open, whatever it calls it."""
        with self._lock:
            self._check(status, path, route)

    def _check(self, status: os.stat_result, path: str, route: str) -> None:
        opened = self._opened.get(inode_of(status))
        if opened is not None and opened.route != route:
            self._wanted[opened.path] = route
            raise _owned(path, route, opened.route, opened.path)

    def open(self, fd: int, status: os.stat_result, path: str, route: str) -> None:
        """Have this file until `close`. Raises Owned."""
        with self._lock:
            self._check(status, path, route)
            opened = self._opened.setdefault(inode_of(status), _Opened(route, path))
            # What a sink that could not be closed has left open is ours as well.
            left_open = opened.descriptors > 0
            opened.descriptors += 1
        if not _locked(fd) and not left_open:
            self.close(inode_of(status))
            raise Owned(
                f"cannot write to {path}: another process has locked it, perhaps another logroute; "
                f'route "{route}" waits until that lets go of it'
            )

    def close(self, inode: Inode) -> None:
        with self._lock:
            opened = self._opened.get(inode)
            if opened is not None:
                opened.descriptors -= 1
                if opened.descriptors <= 0:
                    del self._opened[inode]

    def may_cut(self, fd: int, status: os.stat_result, route: str) -> bool:
        """Whether nobody but the route writes to this file now. Leaves it locked until `fd` is closed."""
        with self._lock:
            opened = self._opened.get(inode_of(status))
            if opened is not None:
                return opened.route == route
        return _locked(fd)

    def wanted_from(self, route: str) -> dict[str, str]:
        """Those of the route's paths that another route waits for, and which."""
        with self._lock:
            return {path: waiting for path, waiting in self._wanted.items() if self._paths.get(path) == route}

    def of_others(self, route: str) -> frozenset[str]:
        with self._lock:
            return frozenset(path for path, owner in self._paths.items() if owner != route)


OWNERS = Owners()
"""Those of the process: so are the kernel's locks, which outlive a run of trio in it."""


def _owned(path: str, route: str, owner: str, there: str) -> Owned:
    also = f" as {there}" if there != path else ""
    return Owned(
        f'cannot write to {path}: route "{owner}" writes to it{also}, and route "{route}" waits until that '
        "has ended; give each a file of its own"
    )


def _locked(fd: int) -> bool:
    """Whether nobody else has a lock on it, so that now we have. A file system without locks has none."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
