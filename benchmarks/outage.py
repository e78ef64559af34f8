"""What a receiver that is down or hangs costs: its route, and the routes beside it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.daemon import WAIT_S, api, daemon, docker, wait, wait_until_started
from benchmarks.engine import TALLY_LINES, count_said, engine_process
from benchmarks.processes import BenchmarkError, Usage, peak_bytes, warm
from benchmarks.receiver import Receiver
from benchmarks.throughput import WRITTEN_BYTES, Pipeline, floor_s, once
from benchmarks.workload import LINE_BYTES, log_of
from logroute.api.books import Stats
from logroute.api.client import Client

LONG = 4
"""How many times as many lines to look at neighbours with."""
NOTICED = 0.1
"""The part of the lines after which rates are taken: that a receiver hangs is noticed once, and then the
neighbours are held up; for how long is told apart."""
LINE = LINE_BYTES + len("\n")
NEW_LINES = 20_000
"""A second, which keep coming while a route catches up."""
CAUGHT_UP_S = 0.1
"""A route has caught up when all lines that are older than this have come."""
SPOOL_BYTES = 10_000
"""For each line, in the spool that a daemon starts with: 10 GB with the usual million."""
DOWN = "{{sink: 'syslog+tcp://127.0.0.1:{port}', retry: {{initial: 50ms, max: 100ms}}}}"
AS_USUAL = "{{sink: 'syslog+tcp://127.0.0.1:{port}', retry: {{max: 1s}}}}"
"""Where only CPU counts: connecting again ten times a second would be a part of it."""
BLOCKS = "{{sink: 'syslog+tcp://127.0.0.1:{port}', queue: {{disk: 0}}}}"
FILE = "{{sink: 'file://{path}?format=raw'}}"
TO_TCP = Pipeline("log file → syslog TCP", {"syslog": "syslog+tcp://{receiver}"}, 0)


@dataclass(frozen=True, slots=True)
class Result:
    spooled_of_floor: float
    """What a line costs more when it goes through the disk, as a multiple of the floor."""
    catch_up: float
    """The rate from the receiver's return until the route has caught up, while new lines keep coming, of the
    rate at which the same flow is caught up with without an outage."""
    start_s: float
    """From the start of the process until the daemon has started, with a spool that holds `start_bytes`."""
    start_bytes: int
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
            through = through_the_disk(folder, host, lines)
            floor = (before + floor_s(folder, log)) / 2
            spooled.append((through.cpu_s - plain.cpu_s) / floor)
            catch_up.append(catching_up(folder, log, lines, outage=True) / catching_up(folder, log, lines))
            with _refusing() as (port, _):
                down = {name: DOWN.format(port=port) for name in ("down", "too")}
                peak = max(peak, _peak(folder, host, lines, down))
        start_s, start_bytes = start_with_a_spool(folder, host, lines)
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
        start_s,
        start_bytes,
        statistics.median(beside[DOWN]),
        statistics.median(beside[BLOCKS]),
        statistics.median(pauses),
        peak,
    )


@contextmanager
def _finished(folder: Path, lines: int) -> Iterator[tuple[str, Path]]:
    """An engine with a container that printed so many lines: its address, and the log."""
    log = log_of(folder, lines)
    with engine_process(folder / "engine", "finished", str(log)) as host:
        yield host, log


def through_the_disk(folder: Path, host: str, lines: int) -> Usage:
    """All lines while the receiver is down, then the receiver: the whole cost."""
    warm(folder, lines * WRITTEN_BYTES)
    with ExitStack() as stack:
        port, release = stack.enter_context(_refusing())
        routes = {"all": AS_USUAL.format(port=port)}
        process = stack.enter_context(daemon(folder, docker(host), routes, once=True))
        began = time.perf_counter()
        wait(lambda: _spooled(folder / "state", "all") >= 0.99 * lines, "the lines are spooled")
        release()
        receiver = stack.enter_context(Receiver(port))
        _, status, used = os.wait4(process.pid, 0)
        ended = time.perf_counter()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise BenchmarkError(f"the daemon ended with {process.returncode}")
        if (count := receiver.count()) != lines:
            raise BenchmarkError(f"{count} lines came, not {lines}")
    return Usage(used.ru_utime + used.ru_stime, ended - began, used.ru_maxrss * 1024)


def catching_up(folder: Path, log: Path, lines: int, *, outage: bool = False) -> float:
    """Lines a second until all of a log has come that is there already, and what is printed meanwhile.

    With an outage: while that goes on, everything is spooled, and time begins with the receiver's return.
    Without one: time begins with the first line that comes.
    """
    root, state, tally = folder / "flowing", folder / "state", folder / "tally"
    shutil.rmtree(root, ignore_errors=True)
    warm(folder, lines * WRITTEN_BYTES)
    with ExitStack() as stack:
        port, release = stack.enter_context(_refusing())
        receiver = Receiver(port, tally)
        if not outage:
            release()
            stack.enter_context(receiver)
        host = stack.enter_context(engine_process(root, "both", str(log), str(NEW_LINES)))
        process = stack.enter_context(daemon(folder, docker(host), {"all": DOWN.format(port=port)}))
        if outage:
            wait(lambda: _spooled(state, "all") >= 0.95 * (lines + count_said(root)), "it is spooled")
            release()
            stack.enter_context(receiver)
        else:
            wait(lambda: receiver.so_far() > 0, "the first line", every_s=0.002)
        before, began = receiver.so_far(), time.perf_counter()
        late = NEW_LINES * CAUGHT_UP_S
        wait(lambda: receiver.so_far() >= lines + count_said(root) - late, "caught up", every_s=0.002)
        came, said, ended = receiver.so_far(), count_said(root), time.perf_counter()
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        if code := process.wait(WAIT_S):
            raise BenchmarkError(f"the daemon ended with {code}")
        count = receiver.count()
        if not lines + said <= count < lines + count_said(root) + TALLY_LINES:
            raise BenchmarkError(f"{count} lines came, not {lines + said}")
    return (came - before) / (ended - began)


def start_with_a_spool(folder: Path, host: str, lines: int) -> tuple[float, int]:
    """From the start of the process to the daemon's word that it has started, seconds; the spool's bytes.

    The lines are spooled by a daemon that is killed. Its rows are copied, in SQL, until there are as many as
    the size needs, or as half of the disk has space for; none of them is in the kernel's memory any more.
    """
    path = folder / "state" / "routes" / "all.db"
    size = min(SPOOL_BYTES * lines, shutil.disk_usage(folder).free // 2)
    with _refusing() as (port, _):
        routes = {"all": DOWN.format(port=port)}
        with daemon(folder, docker(host), routes):
            wait(lambda: _spooled(folder / "state", "all") >= 0.99 * lines, "the lines are spooled")
        records = _multiply(path, size)
        began = time.perf_counter()
        with daemon(folder, docker(host), routes, fresh=False) as process:
            wait_until_started(process, folder, every_s=0.002)
            took = time.perf_counter() - began
            with Client(api(folder)) as client:
                disk = client.get("/v1/stats", Stats).routes["all"].queued.disk
    shutil.rmtree(folder / "state")
    if disk.records < 0.99 * records or disk.bytes < 0.99 * size:
        raise BenchmarkError(f"the daemon knows of {disk}, not of {records} records in {size} bytes")
    return took, disk.bytes


def _multiply(path: Path, size: int) -> int:
    """Copy the rows of a spool until they have so many bytes; how many records they hold then."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        # Without a journal what is written is not written twice.
        database.executescript("pragma synchronous = off; pragma journal_mode = off")
        while True:
            found = database.execute("select max(id), sum(stored_bytes), sum(records) from spool").fetchone()
            newest, stored, records = map(int, found)
            if stored >= size:
                break
            database.execute(
                "insert into spool select id + ?, records, size_bytes, stored_bytes, first_time, body "
                "from spool where id <= ?",
                (newest, max(1, newest * (size - stored) // stored)),
            )
        database.execute("pragma journal_mode = wal")
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
    return records


def three_files(folder: Path, host: str, lines: int, others: Mapping[str, str]) -> tuple[float, float]:
    """Lines a second into files beside other routes, once those are noticed; the longest pause, seconds."""
    logs, routes = _files(folder, 3)
    shutil.rmtree(folder / "out", ignore_errors=True)
    warm(folder, lines * WRITTEN_BYTES)
    with daemon(folder, docker(host), routes | dict(others)):
        wait(lambda: all(log.exists() for log in logs), "the files are begun")
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
    with daemon(folder, docker(host), routes | dict(others)) as process:
        wait(lambda: all(log.exists() and log.stat().st_size >= lines * LINE for log in logs), "written")
        state = folder / "state"
        wait(lambda: min(_spooled(state, name) for name in others) >= 0.99 * lines, "spooled")
        return peak_bytes(process.pid)


def _files(folder: Path, count: int) -> tuple[list[Path], dict[str, str]]:
    """So many files in `out`, and their routes."""
    logs = [folder / "out" / f"file{number}.log" for number in range(count)]
    return logs, {log.stem: FILE.format(path=log) for log in logs}


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
