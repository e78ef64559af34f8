"""When a file came to be: statx(2), which Python's os.stat does not ask for."""

from __future__ import annotations

import ctypes
import os
import struct

_AT_FDCWD = -100
_STATX_BTIME = 0x800
_STATX_BYTES = 256
_MASK = struct.Struct("=I")
_BTIME = struct.Struct("=qI")  # seconds, nanoseconds
_BTIME_OFFSET = 80

_statx = getattr(ctypes.CDLL(None), "statx", None)


def birth_ns(path: str) -> int:
    """Nanoseconds since the epoch; 0 where the file system, or the C library, does not say.

    Raises FileNotFoundError.
    """
    if _statx is None:
        return 0
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    if _statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, buffer) != 0:
        if not os.path.exists(path):
            raise FileNotFoundError(2, os.strerror(2), path)
        return 0
    (mask,) = _MASK.unpack_from(buffer, 0)
    if not mask & _STATX_BTIME:
        return 0
    seconds, nanoseconds = _BTIME.unpack_from(buffer, _BTIME_OFFSET)
    return int(seconds) * 10**9 + int(nanoseconds)
