"""One run: everything is set up, faults happen, they stop, all drains, and the history is judged."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any

import trio

from logroute.simulator import DOCKER_20_10, DOCKER_26_1, NEWEST, SimulatedEngine
from tests.oracle import disks
from tests.oracle.checks import PATIENCE_S, is_stalled, judge, lost, misstated, unbalanced
from tests.oracle.daemon import GRACE_S, Clock, Daemon, read_books
from tests.oracle.disks import Disk
from tests.oracle.faults import SORTS, Fault, Faults, schedule
from tests.oracle.files import FileRoute
from tests.oracle.history import Arrivals, Books, History, Violation
from tests.oracle.receivers import RECEIVERS, Receiver
from tests.oracle.workload import KINDS, Workload

FILE_ROUTES = ("steady", "disk")
"""One that nothing ever hinders, and one on a disk that may be full or hang."""
ROUTES = (*FILE_ROUTES, *RECEIVERS)
DISK_SIZES = {"disk": "2G", "state": "64M"}
DISKS = ("0", "200KiB", "1GiB")
"""What a spool may take: none, soon full, and what nobody fills here."""
WHEN_FULL = ("block", "drop_oldest", "drop_newest")
WATCH_S = 0.5
DRAIN_S = 120.0
"""So long draining may take, while it makes progress."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to run."""

    seed: int
    load_s: float
    """How long containers write, and faults happen."""
    faults: Sequence[str]
    routes: Sequence[str]
    rate: float
    folder: Path


class Oracle:
    """`await Oracle(order, say).run()` gives what is wrong; `say` is told what happens."""

    def __init__(self, order: Order, say: Callable[[str], None]) -> None:
        self.order = order
        self.history = History()
        self._say = say
        self._random = Random(order.seed)
        self.clock = Clock(order.folder / "clock")
        self.daemon = Daemon(order.folder, self.history, self.clock)
        self._files = [
            FileRoute(name, order.folder / name, self.history) for name in FILE_ROUTES if name in order.routes
        ]
        self._receivers: dict[str, Receiver] = {
            name: make(name, self.history, Random(self._random.random()))
            for name, make in RECEIVERS.items()
            if name in order.routes
        }
        self._books: Mapping[str, Books] = {}
        self._queues = self._draw_queues()

    async def run(self) -> list[Violation]:
        """Everything, in its order."""
        self.history.began = trio.current_time()
        async with AsyncExitStack() as stack:
            mounted = await self._mount(stack)
            faults = self._draw_faults(mounted)
            engine = await stack.enter_async_context(
                SimulatedEngine(
                    self.order.folder / "engine",
                    quirks=self._random.choice((DOCKER_20_10, DOCKER_26_1, NEWEST)),
                    seed=self.order.seed,
                    clock=lambda: time.time_ns() + self.clock.ahead_s * 10**9,
                )
            )
            workload = Workload(engine, self.history, Random(self._random.random()), self.order.rate)
            async with trio.open_nursery() as receivers:
                for receiver in self._receivers.values():
                    await receivers.start(receiver.run)
                configurations = [self._configuration(engine.host, pause) for pause in ("1s", "1100ms")]
                self.daemon.configure(configurations[0])
                hands = Faults(
                    self.history,
                    workload,
                    self.daemon,
                    self._receivers,
                    mounted,
                    configurations,
                    Random(self._random.random()),
                    self._say,
                )
                async with trio.open_nursery() as daemon:
                    await self._load(workload, hands, faults, daemon)
                    await self._drain()
                    books = await self._close_books()
                    self.daemon.stop()
                receivers.cancel_scope.cancel()
            await trio.to_thread.run_sync(self._read_files, self.history)
        self.history.announced = self.daemon.announced()
        return [*judge(self.history), *misstated(self.history, books)]

    async def _mount(self, stack: AsyncExitStack) -> dict[str, Disk]:
        """The disks that can be disturbed here; otherwise there are plain folders in their place."""
        for name in ("state", *FILE_ROUTES):
            (self.order.folder / name).mkdir()
        wanted = {
            target for name in self.order.faults for target in SORTS[name].targets if target in DISK_SIZES
        }
        if wanted and (reason := disks.unavailable()):
            self._say(f"left out: faults of disks: {reason}")
            return {}
        mounted = {name: Disk(self.order.folder / name, DISK_SIZES[name]) for name in sorted(wanted)}
        for disk in mounted.values():
            await stack.enter_async_context(disk.mounted())
        return mounted

    def _draw_faults(self, mounted: Mapping[str, Disk]) -> list[Fault]:
        targets = {"daemon", "engine", "container", *self._receivers, *mounted}
        if "clock" in self.order.faults and (reason := self.clock.unavailable):
            self._say(f"left out: clock: {reason}")
        else:
            targets.add("clock")
        faults = schedule(self._random, self.order.faults, targets, self.order.load_s)
        self._say(f"{len(faults)} faults in {self.order.load_s:g} s:")
        for fault in faults:
            self._say(f"  {fault}")
        return faults

    def _draw_queues(self) -> dict[str, dict[str, Any]]:
        """How each route waits: whatever it is told, except the one that nothing shall hinder."""
        # Apart from the faults: those of a seed stay the same.
        random = Random(f"queues {self.order.seed}")
        queues: dict[str, dict[str, Any]] = {}
        for name in ROUTES:
            disk, when_full = random.choice(DISKS), random.choice(WHEN_FULL)
            fsync = random.random() < 0.5
            if name == "steady":
                disk, when_full = DISKS[-1], "block"
            if (route := self.history.routes.get(name)) is None:
                continue
            # Small, so that a route is soon behind.
            queues[name] = {"memory": "64KiB", "disk": disk, "when_full": when_full, "fsync": fsync}
            route.sheds, route.roomy = when_full != "block", disk == DISKS[-1]
            self._say(f"{name}: disk {disk}, {when_full}" + (", fsync" if fsync else ""))
        return queues

    def _configuration(self, host: str, longest_pause: str) -> str:
        """Short pauses, so that a route is soon seen to go on."""
        docker = {"type": "docker", "host": host, "start": "beginning"}
        folder = self.order.folder
        sinks: dict[str, Any] = {
            "steady": {"type": "file", "path": f"{folder}/steady/all.ndjson", "rotate": {"size": "32MiB"}},
            "disk": {
                "type": "file",
                "path": f"{folder}/disk/{{container.name}}.ndjson",
                "rotate": {"size": "200KiB"},
                "compress": "zstd",
            },
        }
        for name, receiver in self._receivers.items():
            sinks[name] = receiver.uri
        config = {
            "state_dir": f"{folder}/state",
            "sources": {
                read: {**docker, "read": read, "include": {"container": [f"{k.prefix}-*" for k in kinds]}}
                for read, kinds in groupby(sorted(KINDS, key=lambda kind: kind.read), lambda kind: kind.read)
            },
            "routes": {
                name: {
                    "sink": sinks[name],
                    "queue": self._queues[name],
                    "retry": {"initial": "100ms", "max": longest_pause, "deadline": "3s"},
                }
                for name in self.order.routes
            },
            "limits": {"grace": f"{GRACE_S:g}s"},
        }
        return json.dumps(config, indent=1)  # which is YAML

    async def _load(
        self, workload: Workload, hands: Faults, faults: list[Fault], daemon: trio.Nursery
    ) -> None:
        """Containers write, faults happen, and every route that nothing hinders goes on."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workload.run)
            await daemon.start(self.daemon.run)
            until = self.history.now() + self.order.load_s
            nursery.start_soon(self._watch)
            await hands.play(faults)
            await trio.sleep(max(0.0, until - self.history.now()))
            nursery.cancel_scope.cancel()
        self._say(f"{self._now()} no more faults, and nothing is written any more")
        await self.daemon.until_up()

    async def _watch(self) -> None:
        stalled: set[str] = set()
        while True:
            await trio.sleep(WATCH_S)
            for files in self._files:
                await trio.to_thread.run_sync(files.look)
            now = self.history.now()
            for name, route in self.history.routes.items():
                if not is_stalled(self.history, route, now):
                    stalled.discard(name)
                elif name not in stalled:
                    stalled.add(name)
                    what = f"at {now:.2f} s its newest record is of {route.newest:.2f} s"
                    self.history.seen.append(Violation(name, "stalled", f"nothing hinders it, and {what}"))
            await self._look_into_books()

    async def _look_into_books(self) -> None:
        life, asked = self.history.lives[-1], self.history.now()
        books = await trio.to_thread.run_sync(read_books, self.order.folder)
        if books is not None:
            self.history.seen += unbalanced(books)
            self._books = books
            if life.end == math.inf:  # otherwise nobody knows which of them it was
                life.asked, life.answered, life.books = asked, self.history.now(), books

    async def _close_books(self) -> Mapping[str, Books]:
        """What the daemon says when all has drained; nothing where it has not counted from the beginning."""
        before, self._books = self._books, {}
        await self._look_into_books()
        if before and not self._books:
            self.history.seen.append(Violation("daemon", "unbalanced", "at the end it tells no books"))
        if len(self.history.daemon_down) > 1:
            return {}
        for name, books in self._books.items():
            self.history.routes[name].unconfirmed = books.unconfirmed
        return self._books

    async def _drain(self) -> None:
        """Wait until everything has arrived, or nothing comes any more."""
        deadline = self.history.now() + DRAIN_S
        progress, since = -1, self.history.now()
        while (now := self.history.now()) < deadline and now - since < PATIENCE_S:
            await trio.sleep(WATCH_S)
            self.history.announced = self.daemon.announced()
            await self._look_into_books()
            apart = History(self.history.written, dict(self.history.routes))
            for files in self._files:
                route = self.history.routes[files.name]
                apart.routes[files.name] = replace(route, arrivals=defaultdict(Arrivals))
            try:
                await trio.to_thread.run_sync(self._read_files, apart)
            except FileNotFoundError:  # it was just finished
                continue
            before, progress = progress, _arrived(apart)
            if progress != before:
                since = self.history.now()
            else:
                judged = replace(self.history, routes=apart.routes)
                waits = any(books.queued or books.in_flight for books in self._books.values())
                if not waits and not any(any(lost(judged, route)) for route in judged.routes.values()):
                    break
        self._say(f"{self._now()} drained: {progress} records have arrived")

    def summary(self) -> str:
        """What it was made of, in two lines."""
        written = sum(len(stream.times) for stream in self.history.written.values())
        # The first is before the start, the last behind the end.
        down = self.history.daemon_down[1:-1]
        counts = ", ".join(
            f"{name} {sum(len(arrivals.numbers) for arrivals in route.arrivals.values())}"
            for name, route in self.history.routes.items()
        )
        return (
            f"{written} records written by {len(self.history.written)} streams; arrived: {counts}\n"
            f"the daemon was down {len(down)} times, {sum(span.abrupt for span in down)} of them abruptly"
        )

    def _read_files(self, history: History) -> None:
        for files in self._files:
            files.read(history)

    def _now(self) -> str:
        return f"{self.history.now():8.2f} s "


def _arrived(history: History) -> int:
    return sum(len(a.numbers) for route in history.routes.values() for a in route.arrivals.values())
