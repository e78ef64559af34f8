"""Queues that could not take all that a sweep might read: they hold what they may, and nothing is lost."""

from __future__ import annotations

import gzip
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from logroute.router.match import EVERYTHING, Match
from logroute.router.position import BEGINNING
from logroute.router.record import Batch, Origin
from logroute.router.route import Route, RouteSettings
from logroute.router.router import Router
from logroute.sources.log_file import LogFile
from logroute.sources.sweep import Sweep
from logroute.sources.watched_folders import POLL_S
from tests.router.stand_ins import StandInSink
from tests.sources.test_catching_up import LIMIT, Log

pytestmark = pytest.mark.usefixtures("one_thread")

KIB = 1 << 10
LONGEST_BYTES = 3 * KIB
"""What the longest line of these logs takes in a queue."""


class Queues:
    """Routes of which nobody delivers anything, but the test, and logs that they take."""

    def __init__(self, folder: Path, logs: int, limits: dict[str, int]) -> None:
        self.router = Router()
        self.most: dict[str, int] = dict.fromkeys(limits, 0)
        """What its queue held at most."""
        self.routes = {name: self._route(name, limit) for name, limit in limits.items()}
        self.logs = [Log(folder / f"log{number}.json") for number in range(logs)]
        self.readers: list[LogFile] = []
        for log in self.logs:
            name = log.path.stem
            origin = Origin(f"docker:{name}", "docker", id=name * 8, name=name)
            self.readers.append(LogFile(str(log.path), origin, limit=LIMIT))
        self.got: dict[str, dict[str, list[str]]] = {name: {} for name in limits}
        """Of each route, and container."""
        self.sweep = Sweep(
            self.router,
            "docker",
            on_drained=lambda log: None,
            on_failed=self._failed,
            on_lost=lambda log: None,
        )

    def _route(self, name: str, limit: int) -> Route:
        """It takes all containers, or, if it has a container's name, that one."""
        match = Match.parse({"container": name}) if name.startswith("log") else EVERYTHING
        route = Route(
            RouteSettings(name, match, queue_bytes=limit),
            StandInSink,
            state_folder=None,
            on_room=lambda: self.router.room_again(),
        )
        put = route.put

        def measured(batches: Sequence[Batch]) -> None:
            put(batches)
            self.most[name] = max(self.most[name], route.queue.memory_bytes)

        route.put = measured  # type: ignore[method-assign]
        self.router.add(route)
        return route

    def _failed(self, log: LogFile, error: Exception) -> None:
        raise error

    def begin(self) -> None:
        for reader in self.readers:
            assert reader.open()
            reader.begin(dict.fromkeys(self.routes, BEGINNING))
            self.sweep.add(reader)

    async def deliver(self, name: str) -> bool:
        """One delivery of what waits; whether anything did."""
        route = self.routes[name]
        if route.queue.empty:
            return False
        group = await route.queue.take(8 * KIB, 1000, 0)
        assert group is not None
        for batch in group.batches:
            messages = self.got[name].setdefault(batch.origin.name, [])
            messages += [record.message for record in batch.records]
        route.queue.finish(group)
        return True

    async def deliver_all(self) -> None:
        """And what comes then."""
        idle = 0
        while idle < 2:
            delivered = [await self.deliver(name) for name in self.routes]
            idle = 0 if any(delivered) else idle + 1
            await trio.sleep(POLL_S if idle else 0.02)

    @property
    def said(self) -> dict[str, list[str]]:
        return {log.path.stem: log.said for log in self.logs}


@asynccontextmanager
async def queues(folder: Path, logs: int, **limits: int) -> AsyncIterator[Queues]:
    there = Queues(folder, logs, limits)
    async with AsyncExitStack() as stack:
        for each in (*there.readers, *there.logs):
            stack.callback(each.close)
        nursery = await stack.enter_async_context(trio.open_nursery())
        await nursery.start(there.sweep.run)
        yield there
        nursery.cancel_scope.cancel()


def write_any(log: Log, size_bytes: int, chance: random.Random) -> None:
    """Lines of about one length, or of very different ones."""
    usual = chance.choice([0, 20, 200, 2000])
    while size_bytes > 0:
        width = usual if chance.random() < 0.8 else chance.choice([0, 20, 200, 2000])
        log.write(1, width=width)
        size_bytes -= width + 80


def compress(path: Path) -> None:
    """As an engine does with what it has rotated."""
    Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


@pytest.mark.parametrize("logs", [1, 40])
@pytest.mark.parametrize("limit", [1, 64 * KIB, 512 * KIB])
async def test_a_queue_holds_its_memory_and_one_piece_of_a_log_however_many_there_are(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, limit: int, logs: int
) -> None:
    chance = random.Random(limit + logs)
    async with queues(tmp_path, logs, small=limit) as q:
        for log in q.logs:
            write_any(log, (2 << 20) // logs, chance)
        q.begin()
        await trio.sleep(5)
        assert q.routes["small"].queue.full
        if limit == 1:
            return
        await q.deliver_all()
        assert q.got["small"] == q.said
    # A piece is a quarter; but of which lines it consists is not known before it is read.
    assert q.most["small"] <= 2 * limit + LONGEST_BYTES


async def test_a_container_of_another_route_is_read_while_a_small_queue_has_no_room(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with queues(tmp_path, 3, log0=64 * KIB, log1=8 << 20) as q:
        for log in q.logs:
            log.write(10_000)
        q.begin()
        await trio.sleep(5)
        assert q.routes["log0"].queue.full
        assert q.routes["log1"].queue.records == 10_000
        await q.deliver_all()
        assert q.got == {name: {name: q.said[name]} for name in ("log0", "log1")}


async def test_pieces_of_compressed_and_unfinished_files_are_read_whole_and_once(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with queues(tmp_path, 1, small=4 * KIB) as q:
        (log,) = q.logs
        write_any(log, 300 * KIB, random.Random(1))
        log.rotate()
        compress(Path(f"{log.path}.1"))
        write_any(log, 100 * KIB, random.Random(2))
        log.write_piece()
        q.begin()
        await trio.sleep(1)
        log.write_piece()
        await q.deliver_all()
        assert q.got["small"] == q.said
