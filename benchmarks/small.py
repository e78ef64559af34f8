"""Many containers that say little: what a quiet or a busy host costs while it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.daemon import running_daemon
from benchmarks.engine import count_said
from benchmarks.processes import BenchmarkError, cpu_s, peak_bytes

SETTLE_S = 3.0
LATE_S = 10.0


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
    """That were written, and arrived."""


def measure(folder: Path, load: Load, seconds: float) -> Result:
    """Start everything, let it settle, then look at the CPU for a while."""
    out = folder / "small.ndjson"
    with running_daemon(folder, out, containers=load.containers, rate=load.rate) as pid:
        time.sleep(SETTLE_S)
        root = folder / "engine"
        before, said, lines, began = cpu_s(pid), count_said(root), count_lines(out), time.monotonic()
        time.sleep(seconds)
        used, took = cpu_s(pid) - before, time.monotonic() - began
        said = count_said(root) - said
        # What others do to the disk may hold it back a little.
        late = time.monotonic() + LATE_S
        while (arrived := count_lines(out) - lines) < said:
            if time.monotonic() > late:
                raise BenchmarkError(f"{load.name}: of {said} lines only {arrived} arrived")
            time.sleep(0.1)
        return Result(load, 100 * used / took, peak_bytes(pid), said / took)


def count_lines(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
