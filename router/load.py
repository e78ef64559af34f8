"""How busy this process is: the time in which it computes, or waits for its turn to compute."""

from __future__ import annotations

import math
import os
import time

import trio

OVER_S = 0.1
"""What a share of idle time is measured over, at least."""


def busy_s() -> float:
    """Seconds that the threads of this process have computed, or could have, were others not computing.

    From the kernel's /proc/PID/task/TID/schedstat (time on the processor, and runnable without one). Where
    there is none, the processor's time alone: then other programs that compute make us look idle.
    """
    total_ns = 0
    try:
        for thread in os.listdir("/proc/self/task"):
            try:
                with open(f"/proc/self/task/{thread}/schedstat", "rb") as file:
                    computed, waited, _ = file.read().split()
            except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                continue
            total_ns += int(computed) + int(waited)
    except (OSError, ValueError):
        return time.process_time()
    return total_ns / 1e9 if total_ns else time.process_time()


class Load:
    """The share of idle time, measured between the times at which it is asked for."""

    def __init__(self) -> None:
        self._at = self._busy = -math.inf
        self._share = 1.0

    def idle_share(self) -> float:
        """The share of the last tenth of a second, or more, in which there was nothing to compute.

        1.0 until it was asked for once before.
        """
        now = trio.current_time()
        if now - self._at >= OVER_S:
            busy = busy_s()
            if self._at > -math.inf:
                self._share = 1.0 - max(0.0, busy - self._busy) / (now - self._at)
            self._at, self._busy = now, busy
        return self._share
