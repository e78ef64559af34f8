"""What the process that runs the daemon asks of Python and of the C library."""

from __future__ import annotations

import ctypes
import gc
import sys

MIB = 1 << 20
# mallopt(3)
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

SWITCH_S = 0.0005
GC_THRESHOLD = 20_000


def begin() -> None:
    """Before a command is imported: what imports make lives on, to look for garbage in it is in vain."""
    gc.disable()


def tune() -> None:
    """Before the daemon runs."""
    # The thread that opens what rotation makes must get the interpreter at once; five milliseconds, Python's
    # own choice, for each of its calls to the system are more than a fast writer leaves it.
    sys.setswitchinterval(SWITCH_S)
    # Buffers of a megabyte come and go with every batch. Given back to the kernel each time, their pages
    # would be cleared and mapped anew, which costs as much as encoding what goes into them.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 16 * MIB)
        mallopt(_M_TRIM_THRESHOLD, 16 * MIB)
    # Records are not tracked, and what was imported stays: there is little to look at, rarely.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 10, 10)
    gc.enable()
