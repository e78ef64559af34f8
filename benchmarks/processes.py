"""Run a program and measure the whole of it; watch one that runs."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """Something that was to be measured did not work: there is no number for it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process cost from its start to its end."""

    cpu_s: float
    wall_s: float
    peak_bytes: int


def warm(folder: Path, size_bytes: int) -> None:
    """Give the machine memory that it has just used, for the files that the next process writes.

    A virtual machine hands unused memory back to its host, and fetching it again counts as the system time of
    whoever writes: half a second for 400 MB, or none, by what ran some seconds before.
    """
    path, chunk = folder / "warm", bytes(1 << 20)
    with path.open("wb", buffering=0) as file:
        for _ in range(0, size_bytes, len(chunk)):
            file.write(chunk)
    path.unlink()


def run(command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> Usage:
    """Run to its end. Raises BenchmarkError with the end of its log unless it exits with 0."""
    began = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment(env))
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = log.read_text(errors="replace")[-2000:]
        raise BenchmarkError(f"{' '.join(command)} ended with {process.returncode}: {said}")
    return Usage(usage.ru_utime + usage.ru_stime, wall_s, usage.ru_maxrss * 1024)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What every measured process gets: compiled modules are kept, as in any installation."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **(more or {})}


def cpu_s(pid: int) -> float:
    """CPU that a running process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_bytes(pid: int) -> int:
    """The most memory that a running process has held so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise BenchmarkError(f"process {pid} has ended")
