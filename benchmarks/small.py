"""Many containers that say little: what a quiet or a busy host costs while it runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engine import engine_process
from benchmarks.processes import BenchmarkError, cpu_s, environment, peak_bytes


@dataclass(frozen=True, slots=True)
class Load:
    containers: int
    rate: float
    """Lines a second of each."""
    limit_percent: float
    """Of one core."""

    @property
    def name(self) -> str:
        if not self.rate:
            return f"{self.containers:,} silent containers → JSON file"
        return f"{self.containers:,} containers × {self.rate:g} lines/s → JSON file"


LOADS = (Load(200, 50, 15), Load(2_000, 1, 20), Load(100, 0, 0.3))


@dataclass(frozen=True, slots=True)
class Result:
    load: Load
    percent: float
    """Of one core, while it runs."""
    peak_bytes: int
    lines_per_s: float
    """That arrived."""


def measure(folder: Path, load: Load, seconds: float) -> Result:
    """Start everything, wait until lines of every container arrive, then look at the CPU for a while."""
    root, out = folder / f"engine-{load.containers}", folder / "many.ndjson"
    for old in (root, folder / "state"):
        shutil.rmtree(old, ignore_errors=True)
    out.unlink(missing_ok=True)
    config = folder / "many.yaml"
    with engine_process(root, "talking", str(load.containers), str(load.rate)) as host:
        config.write_text(
            f"state_dir: {folder / 'state'}\n"
            f"sources: {{docker: {{host: '{host}', read: file}}}}\n"
            f"routes: {{json: {{sink: 'file://{out}'}}}}\n"
        )
        log = folder / "daemon.log"
        with log.open("wb") as output:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "logroute", "run", "-c", str(config)],
                stderr=output,
                env=environment(),
            )
        try:
            wait_until_started(daemon, log)
            time.sleep(3)
            before, lines, began = cpu_s(daemon.pid), count_lines(out), time.monotonic()
            time.sleep(seconds)
            used, arrived = cpu_s(daemon.pid) - before, count_lines(out) - lines
            took = time.monotonic() - began
            if arrived < 0.98 * took * load.rate * load.containers:
                raise BenchmarkError(f"{load.name}: only {arrived / took:.0f} lines arrive a second")
            return Result(load, 100 * used / took, peak_bytes(daemon.pid), arrived / took)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()


def wait_until_started(daemon: subprocess.Popen[bytes], log: Path, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while b'"started"' not in log.read_bytes():
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise BenchmarkError(f"the daemon did not start: {log.read_text()[-2000:]}")
        time.sleep(0.05)


def count_lines(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


__all__ = ["LOADS", "Load", "Result", "measure", "os"]
