"""What a receiver that is down or hangs costs: its route, and the routes beside it."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engine import engine_process
from benchmarks.processes import BenchmarkError, Usage, environment, peak_bytes, warm
from benchmarks.receiver import Receiver
from benchmarks.throughput import Pipeline, floor_s, median, once
from benchmarks.workload import write_log

WAIT_S = 120.0
DOWN = "{{sink: 'syslog+tcp://127.0.0.1:{port}', retry: {{initial: 50ms, max: 100ms}}}}"
BLOCKS = "{{sink: 'syslog+tcp://127.0.0.1:{port}', queue: {{disk: 0}}}}"
FILE = "{{sink: 'file://{out}/{name}.log?format=raw'}}"
TO_TCP = Pipeline("log file → syslog TCP", {"syslog": "syslog+tcp://{receiver}"}, 0)


@dataclass(frozen=True, slots=True)
class Result:
    spooled_of_floor: float
    """What a line costs more when it goes through the disk, as a multiple of the floor."""
    catch_up: float
    """The rate from the disk to the receiver, of the rate without an outage."""
    beside_spooling: float
    """The rate of three routes beside one that hangs and spools, of their rate alone."""
    beside_blocking: float
    """The same beside one that has no disk to spool to."""
    peak_bytes: int
    """Of a daemon with four routes of which two are down and spool."""


def measure(folder: Path, lines: int, runs: int) -> Result:
    """Each `runs` times, in turns; medians."""
    log = folder / f"{lines}.log"
    if not log.exists():
        write_log(log, lines)
    spooled: list[tuple[Usage, float]] = []
    plain: list[Usage] = []
    floors: list[float] = []
    alone: list[float] = []
    beside: dict[str, list[float]] = {DOWN: [], BLOCKS: []}
    peak = 0
    with engine_process(folder / "engine", "finished", str(log)) as host:
        for _ in range(runs):
            floors.append(floor_s(folder, log))
            plain.append(once(folder, TO_TCP, host, lines))
            spooled.append(through_the_disk(folder, host, lines))
            alone.append(three_files(folder, host, lines, {})[0])
            for hung, rates in beside.items():
                with _hanging() as port:
                    rates.append(three_files(folder, host, lines, {"hung": hung.format(port=port)})[0])
            with _refusing() as (port, _):
                down = {name: DOWN.format(port=port) for name in ("down", "too")}
                peak = max(peak, three_files(folder, host, lines, down, files=2)[1])
    extra_s = median(usage for usage, _ in spooled).cpu_s - median(plain).cpu_s
    middle = runs // 2
    return Result(
        extra_s / statistics.median(floors),
        sorted(rate for _, rate in spooled)[middle] / (lines / median(plain).wall_s),
        sorted(beside[DOWN])[middle] / sorted(alone)[middle],
        sorted(beside[BLOCKS])[middle] / sorted(alone)[middle],
        peak,
    )


def through_the_disk(folder: Path, host: str, lines: int) -> tuple[Usage, float]:
    """All lines while the receiver is down, then the receiver: the whole cost, and lines a second then."""
    with ExitStack() as stack:
        port, release = stack.enter_context(_refusing())
        routes = {"all": DOWN.format(port=port)}
        daemon = stack.enter_context(_daemon(folder, host, routes, once=True))
        began = time.perf_counter()
        _wait(lambda: _spooled(folder / "state", "all") >= 0.99 * lines, "the lines are spooled")
        release()
        receiver = stack.enter_context(Receiver(port))
        back = time.perf_counter()
        _, status, used = os.wait4(daemon.pid, 0)
        ended = time.perf_counter()
        daemon.returncode = os.waitstatus_to_exitcode(status)
        if daemon.returncode:
            raise BenchmarkError(f"the daemon ended with {daemon.returncode}")
        if (count := receiver.count()) != lines:
            raise BenchmarkError(f"{count} lines came, not {lines}")
    usage = Usage(used.ru_utime + used.ru_stime, ended - began, used.ru_maxrss * 1024)
    return usage, lines / (ended - back)


def three_files(
    folder: Path, host: str, lines: int, others: Mapping[str, str], *, files: int = 3
) -> tuple[float, int]:
    """Lines a second into files beside other routes, from the first line on; and the memory at the end."""
    out = folder / "out"
    names = [f"file{number}" for number in range(files)]
    routes = {name: FILE.format(out=out, name=name) for name in names} | dict(others)
    with _daemon(folder, host, routes) as daemon:
        logs = [out / f"{name}.log" for name in names]
        _wait(lambda: all(log.exists() for log in logs), "the files are begun")
        began = time.perf_counter()
        size = lines * len(b"n 00000000 " + b"x" * 140)
        _wait(lambda: all(log.stat().st_size >= size for log in logs), "the files are written")
        rate = lines / (time.perf_counter() - began)
        if "down" in others:
            state = folder / "state"
            _wait(lambda: min(_spooled(state, name) for name in others) >= 0.99 * lines, "it is spooled")
        return rate, peak_bytes(daemon.pid)


@contextmanager
def _daemon(
    folder: Path, host: str, routes: Mapping[str, str], *, once: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    for old in (folder / "out", folder / "state"):
        shutil.rmtree(old, ignore_errors=True)
    warm(folder)
    config = folder / "logroute.yaml"
    config.write_text(
        f"state_dir: {folder / 'state'}\n"
        f"sources: {{docker: {{host: '{host}', read: file, start: beginning}}}}\n"
        "routes:\n" + "".join(f"  {name}: {route}\n" for name, route in routes.items())
    )
    command = [sys.executable, "-m", "logroute", "run", *(["--once"] if once else []), "-c", str(config)]
    with (folder / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(command, stderr=log, env=environment())
    try:
        yield daemon
    finally:
        if daemon.returncode is None:
            daemon.kill()
            daemon.wait()


def _spooled(state: Path, route: str) -> int:
    path = state / "routes" / f"{route}.db"
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        try:
            (records,) = database.execute("select sum(records) from spool").fetchone()
        except sqlite3.Error:
            return 0
    return int(records or 0)


@contextmanager
def _refusing() -> Iterator[tuple[int, Callable[[], None]]]:
    """A port that refuses, and what to call to give it free."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1], held.close


@contextmanager
def _hanging() -> Iterator[int]:
    """A port whose connections nobody reads."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield listener.getsockname()[1]


def _wait(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"waited {WAIT_S:g} s in vain: {what}")
        time.sleep(0.02)
