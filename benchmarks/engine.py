"""A simulated engine in a process of its own, whose CPU is not the daemon's.

`python -m benchmarks.engine ROOT finished LOG` has one container that has ended and printed LOG;
`… ROOT talking N RATE` has N containers that print RATE lines a second each, evenly spread over time;
`… ROOT both LOG RATE` has the first, and one of the second. The first line on stdout is the engine's address.
Ends with its stdin.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from benchmarks.workload import messages
from logroute.router.times import iso_time
from logroute.simulator import SimulatedEngine
from logroute.simulator.containers import SimulatedContainer

TICK_S = 0.002
SECOND_NS = 10**9
SAID = "said"
"""File with how many lines all containers that talk have written, as it was some lines ago."""
TALLY_LINES = 50
IMAGE = "registry.example.com/shop/api:2.4.1"


def create(engine: SimulatedEngine, number: int) -> SimulatedContainer:
    """A container of a compose project, running. A line of JSON of it has some 700 bytes."""
    container = engine.create(
        f"shop-api-{number}",
        image=IMAGE,
        labels={
            "com.docker.compose.project": "shop",
            "com.docker.compose.service": "api",
            "com.docker.compose.container-number": str(number),
            "org.opencontainers.image.version": "2.4.1",
            "com.example.team": "payments",
        },
    )
    container.start()
    return container


def finish(engine: SimulatedEngine, log: Path) -> None:
    # As `docker run --name api registry.example.com/shop/api:2.4.1` makes it.
    container = engine.create("api", image=IMAGE)
    container.start()
    container.exit(0)
    assert container.log_path is not None
    container.log_path.unlink()
    os.link(log, container.log_path)


async def talking(engine: SimulatedEngine, count: int, rate: float) -> None:
    paths = [path for n in range(count) if (path := create(engine, n + 1).log_path)]
    logs = [os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) for path in paths]
    print(engine.host, flush=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk, logs, rate, os.open(engine.root / SAID, os.O_WRONLY | os.O_CREAT))
        await until_stdin_ends()
        nursery.cancel_scope.cancel()


async def talk(logs: list[int], rate: float, tally: int) -> None:
    """One line after the other, each into the next log, as the clock says; how many, into `tally`."""
    # A hundred thousand a second shall leave time to who reads them.
    begins = [f'{{"log":"{text}\\n","stream":"stdout","time":"'.encode() for text in messages(10_000)]
    began, said = trio.current_time(), 0
    while True:
        await trio.sleep(TICK_S)
        due = int((trio.current_time() - began) * rate * len(logs))
        now_ns = time.time_ns()
        second = iso_time(now_ns)[: len("2026-11-23T20:06:26.")].encode()
        first_ns = max(1, min(now_ns % SECOND_NS, SECOND_NS - (due - said)))
        for number in range(said, due):
            fraction = (b"%09d" % (first_ns + number - said)).rstrip(b"0")
            line = b'%b%b%bZ"}\n' % (begins[number % len(begins)], second, fraction)
            os.write(logs[number % len(logs)], line)
        if due // TALLY_LINES > said // TALLY_LINES:
            os.pwrite(tally, f"{due:20d}".encode(), 0)
        said = max(said, due)


def count_said(root: Path) -> int:
    """How many lines the containers of the engine in this folder have said."""
    path = root / SAID
    return int(path.read_text() or 0) if path.exists() else 0


async def until_stdin_ends() -> None:
    await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


async def main() -> None:
    root, kind, *rest = sys.argv[1:]
    async with SimulatedEngine(Path(root)) as engine:
        if kind == "finished":
            finish(engine, Path(rest[0]))
            print(engine.host, flush=True)
            await until_stdin_ends()
        elif kind == "both":
            finish(engine, Path(rest[0]))
            await talking(engine, 1, float(rest[1]))
        else:
            await talking(engine, int(rest[0]), float(rest[1]))


@contextmanager
def engine_process(root: Path, *arguments: str) -> Iterator[str]:
    """Have such a process; its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.engine", str(root), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    trio.run(main)
