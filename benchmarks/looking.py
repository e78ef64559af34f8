"""Who looks: `logroute tail`, viewers of a daemon at full rate, and its API while much flows."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.daemon import api, daemon, running_daemon, wait, wait_until_started
from benchmarks.engine import count_said, engine_process
from benchmarks.processes import BenchmarkError, cpu_s, environment, peak_bytes, run, warm
from benchmarks.small import SETTLE_S, count_lines
from benchmarks.throughput import WRITTEN_BYTES, floor_s
from benchmarks.workload import log_of
from logroute.api.books import Stats
from logroute.api.client import Client

LONG = 4
"""How many times as many lines to look at a daemon at full rate with."""
STUCK = 10
"""Viewers that ask, and read nothing."""
FIRST_LINE_CONTAINERS = 100
VIEW_CONTAINERS = 1_000
VIEW_RATE = 10.0
REQUESTS_RATE = 200
FLOW = (10, 10_000.0)
"""Containers, and lines a second of each, while the API is asked."""
ROUTES = 20
LOOK = b"GET /v1/logs?follow=true&lines=0 HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Result:
    text_of_floor: float
    """CPU of `logroute tail` with all lines in its usual format into a pipe, as a multiple of the floor."""
    json_of_floor: float
    """The same as JSON into a file."""
    first_line_s: float
    """From the start of the process until its first line, with `FIRST_LINE_CONTAINERS` that talk."""
    view_percent: float
    """Of one core, for the lines of `VIEW_CONTAINERS` in one view."""
    view_lines_per_s: float
    beside_viewer: float
    """A route's rate while somebody looks at everything, of its rate when nobody does."""
    beside_stuck: float
    """The same while `STUCK` viewers read nothing."""
    stuck_bytes: int
    """What they all cost in memory."""
    end_s: float
    """How long a daemon takes to end while they are there."""
    route_s: float
    """From the answer that a route is made until its sink has a record: the second longest of `ROUTES`."""
    requests_per_s: float
    """What the API answered while lines flow …"""
    flow_per_s: float
    pause_s: float
    """… and the longest time for which none of those came."""


def measure(folder: Path, lines: int, runs: int, seconds: float) -> Result:
    """Each `runs` times, in turns; medians of what the turns say."""
    text, json = _tails(folder, lines, runs)
    view = _view(folder, seconds)
    beside, stuck, stuck_bytes, ends = _beside(folder, lines * LONG, runs)
    requests, flow, pause = _asking(folder, seconds)
    return Result(
        text,
        json,
        _first_line(folder, 2 * runs + 1),
        *view,
        beside,
        stuck,
        stuck_bytes,
        ends,
        _first_record(folder),
        requests,
        flow,
        pause,
    )


# --- tail ---------------------------------------------------------------------------------------------


def _tails(folder: Path, lines: int, runs: int) -> tuple[float, float]:
    log = log_of(folder, lines)
    text, json = [], []
    with engine_process(folder / "engine", "finished", str(log)) as host:
        for _ in range(runs):
            before = floor_s(folder, log)
            warm(folder, lines * WRITTEN_BYTES)
            costs = [_tail_to_a_pipe(host, lines), _tail_to_a_file(folder, host, lines)]
            floor = (before + floor_s(folder, log)) / 2
            text.append(costs[0] / floor)
            json.append(costs[1] / floor)
    return statistics.median(text), statistics.median(json)


def _tail(host: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "logroute", "tail", "--host", host, *options]


EVERYTHING = ("--since", "2020-01-01", "--no-follow")


def _tail_to_a_pipe(host: str, lines: int) -> float:
    with subprocess.Popen(_tail(host, *EVERYTHING), stdout=subprocess.PIPE, env=environment()) as tail:
        assert tail.stdout is not None
        count = sum(chunk.count(b"\n") for chunk in _chunks(tail.stdout.fileno()))
        _, status, used = os.wait4(tail.pid, 0)
        tail.returncode = os.waitstatus_to_exitcode(status)
    if tail.returncode or count != lines:
        raise BenchmarkError(f"tail ended with {tail.returncode} behind {count} lines of {lines}")
    return used.ru_utime + used.ru_stime


def _tail_to_a_file(folder: Path, host: str, lines: int) -> float:
    out = folder / "tail.ndjson"
    usage = run(_tail(host, *EVERYTHING, "-o", "json"), log=out)
    if (count := count_lines(out)) != lines:
        raise BenchmarkError(f"tail wrote {count} lines of {lines}")
    return usage.cpu_s


def _chunks(fd: int) -> Iterator[bytes]:
    return iter(lambda: os.read(fd, 1 << 20), b"")


def _first_line(folder: Path, runs: int) -> float:
    """Containers talk once a second each."""
    found = []
    with _talking(folder, FIRST_LINE_CONTAINERS, 1.0) as host:
        time.sleep(SETTLE_S)
        for _ in range(runs):
            began = time.perf_counter()
            with subprocess.Popen(_tail(host), stdout=subprocess.PIPE, env=environment()) as tail:
                assert tail.stdout is not None
                os.read(tail.stdout.fileno(), 1)
                found.append(time.perf_counter() - began)
                tail.kill()
    return statistics.median(found)


def _view(folder: Path, seconds: float) -> tuple[float, float]:
    """CPU in percent, and lines a second, of one `tail` of many containers. Raises where one is missing."""
    out = folder / "view.log"
    with (
        _talking(folder, VIEW_CONTAINERS, VIEW_RATE) as host,
        out.open("wb") as output,
        subprocess.Popen(_tail(host, "-o", "raw"), stdout=output, env=environment()) as tail,
    ):
        wait(lambda: out.stat().st_size > 0, "the first line")
        time.sleep(SETTLE_S)
        root = folder / "engine"
        used, said, lines, began = cpu_s(tail.pid), count_said(root), count_lines(out), time.monotonic()
        time.sleep(seconds)
        took, used, said = time.monotonic() - began, cpu_s(tail.pid) - used, count_said(root) - said
        wait(lambda: count_lines(out) - lines >= said, f"{said} lines in the view", every_s=0.2, for_s=10)
        tail.terminate()
    return 100 * used / took, said / took


@contextmanager
def _talking(folder: Path, containers: int, rate: float) -> Iterator[str]:
    shutil.rmtree(folder / "engine", ignore_errors=True)
    with engine_process(folder / "engine", "talking", str(containers), str(rate)) as host:
        yield host


# --- a daemon at full rate ------------------------------------------------------------------------------


def _beside(folder: Path, lines: int, runs: int) -> tuple[float, float, int, float]:
    log = log_of(folder, lines)
    read, stuck, memory, ends = [], [], [], []
    for _ in range(runs):
        alone, peak, _ = _full_rate(folder, log, lines)
        rate, _, _ = _full_rate(folder, log, lines, viewers=1, reading=True)
        read.append(rate / alone)
        rate, with_stuck, end_s = _full_rate(folder, log, lines, viewers=STUCK)
        stuck.append(rate / alone)
        memory.append(max(0, with_stuck - peak))
        ends.append(end_s)
    return statistics.median(read), statistics.median(stuck), int(statistics.median(memory)), max(ends)


def _full_rate(
    folder: Path, log: Path, lines: int, *, viewers: int = 0, reading: bool = False
) -> tuple[float, int, float]:
    """A log that appears while viewers look: lines a second, the peak, and how long ending takes."""
    logs, out = folder / "logs", folder / "out" / "all.ndjson"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir()
    warm(folder, lines * WRITTEN_BYTES)
    source = f"file: {{paths: ['{logs}/*.log'], format: docker, start: beginning}}"
    with ExitStack() as stack:
        process = stack.enter_context(daemon(folder, source, {"json": f"{{sink: 'file://{out}'}}"}))
        wait_until_started(process, folder)
        client = stack.enter_context(Client(api(folder)))
        for _ in range(viewers):
            viewer = stack.enter_context(closing(_viewer(folder)))
            if reading:
                thread = threading.Thread(target=_read_all, args=(viewer,), daemon=True)
                thread.start()
        os.link(log, logs / log.name)
        began = time.perf_counter()
        wait(lambda: _delivered(client) >= lines, "the lines are delivered", every_s=0.05)
        took, peak = time.perf_counter() - began, peak_bytes(process.pid)
        began = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        if code := process.wait():
            raise BenchmarkError(f"the daemon ended with {code}")
        return lines / took, peak, time.perf_counter() - began


def _viewer(folder: Path) -> socket.socket:
    """A connection that has asked for everything that comes."""
    viewer = socket.socket(socket.AF_UNIX)
    viewer.connect(api(folder).path)
    viewer.sendall(LOOK)
    if not viewer.recv(4096).startswith(b"HTTP/1.1 200"):
        raise BenchmarkError("the daemon does not show its logs")
    return viewer


def _read_all(viewer: socket.socket) -> None:
    while viewer.recv(1 << 20):
        pass


def _delivered(client: Client) -> int:
    return client.get("/v1/stats", Stats).routes["json"].delivered


# --- the API --------------------------------------------------------------------------------------------


def _first_record(folder: Path) -> float:
    """Containers talk a hundred times a second each."""
    found = []
    with (
        running_daemon(folder, folder / "all.ndjson", containers=10, rate=100),
        Client(api(folder)) as client,
    ):
        time.sleep(SETTLE_S)
        for number in range(ROUTES):
            out = folder / "out" / f"{number}.log"
            client.ask("PUT", f"/v1/routes/made{number}", dict, body={"sink": f"file://{out}"})
            began = time.perf_counter()
            wait(partial(_has_something, out), "the first record", every_s=0.0005)
            found.append(time.perf_counter() - began)
    return sorted(found)[-2]


def _has_something(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _asking(folder: Path, seconds: float) -> tuple[float, float, float]:
    """Answers a second, lines a second, and the longest pause of these. Raises where a line is missing."""
    out, containers, rate = folder / "asked.ndjson", *FLOW
    with running_daemon(folder, out, containers=containers, rate=rate):
        time.sleep(SETTLE_S)
        root, ended = folder / "engine", threading.Event()
        pauses: list[float] = []
        watcher = threading.Thread(target=_watch, args=(out, ended, pauses))
        said, lines, began = count_said(root), count_lines(out), time.monotonic()
        watcher.start()
        answers = _ask(folder, seconds)
        took, said = time.monotonic() - began, count_said(root) - said
        ended.set()
        watcher.join()
        wait(lambda: count_lines(out) - lines >= said, f"{said} lines in the file", every_s=0.2, for_s=10)
    return answers / took, said / took, max(pauses)


class _Connection(http.client.HTTPConnection):
    """To a socket, connected to again where the server has ended it."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def _ask(folder: Path, seconds: float) -> int:
    connection = _Connection(api(folder).path)
    began, answers = time.monotonic(), 0
    while (now := time.monotonic() - began) < seconds:
        if answers >= now * REQUESTS_RATE:
            time.sleep(1 / REQUESTS_RATE)
            continue
        connection.request("GET", ("/v1/stats", "/v1/routes", "/v1/health", "/metrics")[answers % 4])
        answer = connection.getresponse()
        answer.read()
        if answer.status != http.client.OK:
            raise BenchmarkError(f"the API answered {answer.status}")
        answers += 1
    connection.close()
    return answers


def _watch(path: Path, ended: threading.Event, pauses: list[float]) -> None:
    """How long a file stays as it is, each time."""
    size, last = path.stat().st_size, time.perf_counter()
    while not ended.wait(0.001):
        now = time.perf_counter()
        if (found := path.stat().st_size) > size:
            pauses.append(now - last)
            size, last = found, now
