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
from benchmarks.throughput import WRITTEN_BYTES, Pipeline, floor_s, once
from benchmarks.workload import LINE_BYTES, write_log

WAIT_S = 120.0
LONG = 4
"""How many times as many lines to look at neighbours with."""
NOTICED = 0.1
"""The part of the lines after which rates are taken: that a receiver hangs is noticed once, and then the
neighbours are held up; for how long is told apart."""
LINE = LINE_BYTES + len("\n")
DOWN = "{{sink: 'syslog+tcp://127.0.0.1:{port}', retry: {{initial: 50ms, max: 100ms}}}}"
BLOCKS = "{{sink: 'syslog+tcp://127.0.0.1:{port}', queue: {{disk: 0}}}}"
FILE = "{{sink: 'file://{path}?format=raw'}}"
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
    pause_s: float
    """For how long they are held up once, when it begins to hang."""
    peak_bytes: int
    """Of a daemon with four routes of which two are down and spool."""


def measure(folder: Path, lines: int, runs: int) -> Result:
    """Each `runs` times, in turns; medians of what the turns say."""
    spooled: list[float] = []
    catch_up: list[float] = []
    peak = 0
    with _finished(folder, lines) as (host, log):
        for _ in range(runs):
            before = floor_s(folder, log)
            plain = once(folder, TO_TCP, host, lines)
            through, rate = through_the_disk(folder, host, lines)
            floor = (before + floor_s(folder, log)) / 2
            spooled.append((through.cpu_s - plain.cpu_s) / floor)
            catch_up.append(rate / (lines / plain.wall_s))
            with _refusing() as (port, _):
                down = {name: DOWN.format(port=port) for name in ("down", "too")}
                peak = max(peak, _peak(folder, host, lines, down))
    beside: dict[str, list[float]] = {DOWN: [], BLOCKS: []}
    pauses: list[float] = []
    lines *= LONG
    with _finished(folder, lines) as (host, _):
        for _ in range(runs):
            alone, _ = three_files(folder, host, lines, {})
            for hung, rates in beside.items():
                with _hanging() as port:
                    rate, pause = three_files(folder, host, lines, {"hung": hung.format(port=port)})
                rates.append(rate / alone)
                pauses.append(pause)
    return Result(
        statistics.median(spooled),
        statistics.median(catch_up),
        statistics.median(beside[DOWN]),
        statistics.median(beside[BLOCKS]),
        statistics.median(pauses),
        peak,
    )


@contextmanager
def _finished(folder: Path, lines: int) -> Iterator[tuple[str, Path]]:
    """An engine with a container that printed so many lines: its address, and the log."""
    log = folder / f"{lines}.log"
    if not log.exists():
        write_log(log, lines)
    with engine_process(folder / "engine", "finished", str(log)) as host:
        yield host, log


def through_the_disk(folder: Path, host: str, lines: int) -> tuple[Usage, float]:
    """All lines while the receiver is down, then the receiver: the whole cost, and lines a second then."""
    warm(folder, lines * WRITTEN_BYTES)
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


def three_files(folder: Path, host: str, lines: int, others: Mapping[str, str]) -> tuple[float, float]:
    """Lines a second into files beside other routes, once those are noticed; the longest pause, seconds."""
    logs, routes = _files(folder, 3)
    shutil.rmtree(folder / "out", ignore_errors=True)
    warm(folder, lines * WRITTEN_BYTES)
    with _daemon(folder, host, routes | dict(others)):
        _wait(lambda: all(log.exists() for log in logs), "the files are begun")
        last = noticed = time.perf_counter()
        written = written_then = 0
        pause = 0.0
        while written < lines * LINE:
            time.sleep(0.005)
            now, size = time.perf_counter(), min(log.stat().st_size for log in logs)
            if size > written:
                pause, last, written = max(pause, now - last), now, size
            elif now - last > WAIT_S:
                raise BenchmarkError("the files do not grow")
            if size < lines * LINE * NOTICED:
                noticed, written_then = now, size
        return (written - written_then) / LINE / (last - noticed), pause


def _peak(folder: Path, host: str, lines: int, others: Mapping[str, str]) -> int:
    """The most memory with two files beside these routes, which spool everything."""
    logs, routes = _files(folder, 2)
    with _daemon(folder, host, routes | dict(others)) as daemon:
        _wait(lambda: all(log.exists() and log.stat().st_size >= lines * LINE for log in logs), "written")
        state = folder / "state"
        _wait(lambda: min(_spooled(state, name) for name in others) >= 0.99 * lines, "spooled")
        return peak_bytes(daemon.pid)


def _files(folder: Path, count: int) -> tuple[list[Path], dict[str, str]]:
    """So many files in `out`, and their routes."""
    logs = [folder / "out" / f"file{number}.log" for number in range(count)]
    return logs, {log.stem: FILE.format(path=log) for log in logs}


@contextmanager
def _daemon(
    folder: Path, host: str, routes: Mapping[str, str], *, once: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    for old in (folder / "out", folder / "state"):
        shutil.rmtree(old, ignore_errors=True)
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
