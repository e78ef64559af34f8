"""inotify(7), as little of it as a log reader needs: watch folders, learn which names in them changed.

Built on ctypes, which trio has loaded anyway. Watches folders rather than files, so that a file which
appears or is renamed is seen, and one watch serves however many files lie there.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

IN_MODIFY = 0x00000002
IN_MOVED_FROM = 0x00000040
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_DELETE = 0x00000200
IN_Q_OVERFLOW = 0x00004000
IN_ONLYDIR = 0x01000000

CONTENT = IN_MODIFY
NAMES = IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE

_EVENT = struct.Struct("iIII")
_BUFFER_BYTES = 256 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """One inotify instance. `fileno` is readable when something happened."""

    def __init__(self, mask: int) -> None:
        """Raises OSError where the kernel grants no more instances."""
        self.mask = mask
        self._fd: int = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1: " + os.strerror(ctypes.get_errno()))
        self._folders: dict[int, str] = {}
        self._watches: dict[str, int] = {}

    def fileno(self) -> int:
        return self._fd

    def watch(self, folder: str | Path) -> None:
        """Raises OSError: no such folder, or no watches left (ENOSPC; sysctl fs.inotify.max_user_watches)."""
        name = str(folder)
        if name in self._watches:
            return
        watch = _libc.inotify_add_watch(self._fd, os.fsencode(name), self.mask | IN_ONLYDIR)
        if watch < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
        # The folder may be known under another name already: the kernel then gives the same number.
        self._folders[watch] = name
        self._watches[name] = watch

    def unwatch(self, folder: str | Path) -> None:
        watch = self._watches.pop(str(folder), None)
        if watch is not None and self._folders.pop(watch, None) is not None:
            _libc.inotify_rm_watch(self._fd, watch)  # fails where the folder is gone: just as well

    def read(self) -> set[tuple[str, str]] | None:
        """What changed since the last read, as (folder, name); None if the kernel lost count."""
        events: set[bytes] = set()
        while True:
            try:
                data = os.read(self._fd, _BUFFER_BYTES)
            except BlockingIOError:
                break
            events |= _different(data)
            if len(data) < _BUFFER_BYTES // 2:
                break
        seen: set[tuple[str, str]] = set()
        for event in events:
            watch, mask, _, _ = _EVENT.unpack_from(event)
            if mask & IN_Q_OVERFLOW:
                return None
            if (folder := self._folders.get(watch)) is not None:
                seen.add((folder, os.fsdecode(event[_EVENT.size :].rstrip(b"\0"))))
        return seen

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _different(data: bytes) -> set[bytes]:
    """The events that were read, each once: a busy file is told of a thousand times, in the same words."""
    if not data:
        return set()
    # Names of logs are often equally long, and so are then the events: cut by one expression, and looked at
    # once. As each says where the next one begins, all have been cut right where all say the same.
    size = _size_bytes(data, 0)
    pieces = {data[at : at + size] for at in range(0, len(data), size)}
    if all(len(piece) == size == _size_bytes(piece, 0) for piece in pieces):
        return pieces
    pieces.clear()
    at = 0
    while at < len(data):
        end = at + _size_bytes(data, at)
        pieces.add(data[at:end])
        at = end
    return pieces


def _size_bytes(data: bytes, at: int) -> int:
    """Of the event that begins there, with the name behind it."""
    _, _, _, length = _EVENT.unpack_from(data, at)
    return _EVENT.size + int(length)
