"""A daemon that is killed again and again amid what it delivers; for tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

LOOK_S = 0.002


def run_through_kills(config: Path, count: Callable[[], int], records: int, kills: int) -> str:
    """`logroute run --once`, killed by -9 so many times, each time when some more have come; then to its end.

    Returns what it said at the end.
    """
    command = [sys.executable, "-m", "logroute", "run", "--once", "-c", str(config)]
    environment = {**os.environ, "DOCKER_HOST": ""}
    killed = 0
    for kill in range(kills):
        daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
        wanted = (kill + 1) * records // (kills + 2)
        while count() < wanted and daemon.poll() is None:
            time.sleep(LOOK_S)
        daemon.kill()
        killed += daemon.wait() != 0
    assert killed, "it was done before it could be killed"
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=120)
    return done.stderr
