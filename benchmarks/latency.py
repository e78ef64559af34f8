"""How long a line takes from the engine's time on it until it stands in the file, when little flows."""

from __future__ import annotations

import json
import os
import select
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.daemon import running_daemon
from benchmarks.processes import BenchmarkError
from benchmarks.small import SETTLE_S
from logroute.sources.inotify import CONTENT, NAMES, Inotify


@dataclass(frozen=True, slots=True)
class Result:
    lines: int
    median_ms: float
    p99_ms: float
    maximum_ms: float


def measure(folder: Path, *, containers: int = 10, rate: float = 1.0, seconds: float = 30.0) -> Result:
    """Ten lines a second of ten containers, into a JSON file that is watched."""
    out = folder / "latency" / "out.ndjson"
    out.parent.mkdir(exist_ok=True)
    with running_daemon(folder, out, containers=containers, rate=rate):
        time.sleep(SETTLE_S)
        delays = sorted(watch(out, seconds))
    if len(delays) < 0.9 * containers * rate * seconds:
        raise BenchmarkError(f"latency: only {len(delays)} lines arrived")
    return Result(len(delays), delays[len(delays) // 2], delays[int(len(delays) * 0.99)], delays[-1])


def watch(path: Path, seconds: float) -> list[float]:
    """The age in milliseconds of every line that arrives, at the instant at which it can be read."""
    inotify = Inotify(CONTENT | NAMES)
    inotify.watch(path.parent)
    poll = select.poll()
    poll.register(inotify.fileno(), select.POLLIN)
    delays: list[float] = []
    offset = path.stat().st_size if path.exists() else 0
    fd = os.open(path, os.O_RDONLY)
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            poll.poll(200)
            inotify.read()
            data = os.pread(fd, 1 << 20, offset)
            now = time.time()
            whole = data[: data.rfind(b"\n") + 1]
            offset += len(whole)
            delays += [1000 * (now - written(line)) for line in whole.splitlines()]
    finally:
        os.close(fd)
        inotify.close()
    return delays


def written(line: bytes) -> float:
    text = json.loads(line)["@timestamp"]
    return datetime.fromisoformat(text[:19] + "+00:00").timestamp() + float("0" + text[19:-1])
