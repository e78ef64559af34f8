"""A daemon that runs beside the measurement: everything of a simulated engine into one file."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.engine import engine_process
from benchmarks.processes import BenchmarkError, environment

START_S = 60.0


@contextmanager
def running_daemon(folder: Path, out: Path, *, containers: int, rate: float) -> Iterator[int]:
    """Have an engine whose containers print `rate` lines a second each, and a daemon; its process id."""
    for old in (folder / "engine", folder / "state"):
        shutil.rmtree(old, ignore_errors=True)
    out.unlink(missing_ok=True)
    config, log = folder / "logroute.yaml", folder / "daemon.log"
    with engine_process(folder / "engine", "talking", str(containers), str(rate)) as host:
        config.write_text(
            f"state_dir: {folder / 'state'}\n"
            f"sources: {{docker: {{host: '{host}', read: file}}}}\n"
            f"routes: {{json: {{sink: 'file://{out}'}}}}\n"
        )
        with log.open("wb") as output:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "logroute", "run", "-c", str(config)],
                stderr=output,
                env=environment(),
            )
        try:
            _wait_until_started(daemon, log)
            yield daemon.pid
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()


def _wait_until_started(daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while b'"started"' not in log.read_bytes():
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise BenchmarkError(f"the daemon did not start: {log.read_text()[-2000:]}")
        time.sleep(0.05)
