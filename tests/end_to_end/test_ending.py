"""What the end of a daemon costs whose receiver is down, and what it says of that. On a simulated engine."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
import trio

from logroute.router.ending import DONE, UNDELIVERED
from logroute.simulator import SimulatedContainer, SimulatedEngine
from tests.end_to_end.test_simulated_engine import HOUR_NS, World

DOWN = "syslog+tcp://127.0.0.1:1"
LINE = "x" * 200
LOST = "records are lost"
NOTHING_KEPT: dict[str, Any] = {"memory": "1KiB", "disk": 0}
IN_MEMORY: dict[str, Any] = {"memory": "8MiB", "disk": 0}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with SimulatedEngine(tmp_path / "engine") as engine:
        world = World(tmp_path, engine)
        before = structlog.get_config()
        structlog.configure(processors=[world.said])
        yield world
        structlog.configure(**before)


class Running:
    """A daemon with a route whose receiver is down, beside one that delivers."""

    def __init__(
        self, world: World, queue: dict[str, Any], good: dict[str, Any] | None = None, **source: str
    ) -> None:
        world.configure({"good": {"queue": good or {}}, "bad": {"sink": DOWN, "queue": queue}}, **source)
        self.world = world
        self.daemon = world.daemon()
        self.daemon.plan = msgspec.structs.replace(self.daemon.plan, grace_s=0.2)
        self.code: int | None = None

    async def __aenter__(self) -> Running:
        self._nurseries = trio.open_nursery()
        nursery = await self._nurseries.__aenter__()

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            self.code = await self.daemon.run(task_status=task_status)

        await nursery.start(run)
        return self

    async def __aexit__(self, *failure: Any) -> None:
        self.daemon.stop()
        await self._nurseries.__aexit__(*failure)


async def write(container: SimulatedContainer, lines: int) -> None:
    """So slowly that rotation leaves nobody behind who wants to read."""
    for number in range(lines):
        container.write(f"{number} {LINE}\n")
        await trio.sleep(0.003)


async def test_a_log_that_was_rotated_away_and_is_only_held_is_lost_and_said(world: World) -> None:
    web = world.container("web", log_opts={"max-size": "12k", "max-file": "2"})
    async with Running(world, NOTHING_KEPT) as running:
        await write(web, 200)
        await world.until(200, "good")
        assert running.daemon.router.routes["bad"].lost == {}
    assert running.code == UNDELIVERED
    (said,) = world.events(LOST)
    assert (said["container"], said["routes"], said["reason"]) == ("web", ["bad"], "rotated")
    assert 100 * len(LINE) < said["bytes"] < 250 * (len(LINE) + 100)
    assert said["since"] < said["until"]
    assert world.events("ended with records that are not delivered and nowhere else")


async def test_a_removed_container_whose_log_is_only_held_is_lost_and_said(world: World) -> None:
    web = world.container("web")
    async with Running(world, NOTHING_KEPT) as running:
        await write(web, 200)
        await world.until(200, "good")
        web.exit(0)
        web.remove()
        await trio.sleep(0.3)
    assert running.code == UNDELIVERED
    (said,) = world.events(LOST)
    assert (said["container"], said["routes"], said["reason"]) == ("web", ["bad"], "removed")
    assert said["bytes"] > 100 * len(LINE)


async def test_what_waits_in_memory_of_a_container_that_is_gone_is_lost(world: World) -> None:
    web = world.container("web")
    async with Running(world, IN_MEMORY) as running:
        web.write("last words\n")
        await world.until(1, "good")
        web.exit(0)
        web.remove()
        await world.until_true(lambda: bool(running.daemon.router._vanished), "it is gone")
    assert running.code == UNDELIVERED
    (said,) = world.events("ended with records that are not delivered and nowhere else")
    assert said["removed_containers"] == {"bad": ["web"]}
    assert world.events(LOST) == []


@pytest.mark.parametrize("read", ["file", "api"])
async def test_what_waits_in_memory_of_a_container_that_is_removed_while_the_daemon_ends_is_lost(
    world: World, read: str
) -> None:
    web = world.container("web")
    async with Running(world, IN_MEMORY, read=read, start="beginning") as running:
        web.write("last words\n")
        await world.until(1, "good")
        running.daemon.stop()
        web.exit(0)
        web.remove()
        running.daemon._asked = trio.Event()  # or the end of this block counts as a second signal
    assert running.code == UNDELIVERED
    (said,) = world.events("ended with records that are not delivered and nowhere else")
    assert said["rotated_away"] == {"bad": ["web"]}


@pytest.mark.parametrize("read", ["file", "api"])
@pytest.mark.parametrize("max_file", ["2", "50"], ids=["rotated away", "whole"])
async def test_a_clock_that_was_set_back_does_not_change_what_is_lost(
    tmp_path: Path, read: str, max_file: str
) -> None:
    back_ns = [0]
    async with SimulatedEngine(tmp_path / "engine", clock=lambda: time.time_ns() - back_ns[0]) as engine:
        world = World(tmp_path, engine)
        web = world.container("web", log_opts={"max-size": "12k", "max-file": max_file})
        async with Running(world, IN_MEMORY, read=read, start="beginning") as running:
            bad = running.daemon.router.routes["bad"]
            await write(web, 1)
            await world.until(1, "good")
            back_ns[0] = HOUR_NS
            await write(web, 200)
            await world.until_true(lambda: bad.statistics().received == 201, "all of it is read")
    assert running.code == (UNDELIVERED if max_file == "2" else DONE)


@pytest.mark.parametrize("read", ["file", "api"])
async def test_a_record_that_waits_where_the_log_begins_with_a_later_one_is_not_lost(
    tmp_path: Path, read: str
) -> None:
    """What the clock said before it was set back is delivered; the log is whole."""
    back_ns = [0]
    async with SimulatedEngine(tmp_path / "engine", clock=lambda: time.time_ns() - back_ns[0]) as engine:
        world = World(tmp_path, engine)
        web = world.container("web")
        async with Running(world, IN_MEMORY, IN_MEMORY, read=read, start="beginning") as running:
            good = running.daemon.router.routes["good"]
            await write(web, 1)
            await world.until(1, "good")
            good.pause(time.time())
            back_ns[0] = HOUR_NS
            await write(web, 1)
            await world.until_true(lambda: good.statistics().received == 2, "all of it is read")
    assert running.code == DONE


@pytest.mark.parametrize("read", ["file", "api"])
@pytest.mark.parametrize("start", ["beginning", "2h"])
async def test_what_waits_in_memory_of_a_log_that_was_rotated_away_is_lost(
    world: World, read: str, start: str
) -> None:
    web = world.container("web", log_opts={"max-size": "12k", "max-file": "2"})
    async with Running(world, IN_MEMORY, read=read, start=start) as running:
        bad = running.daemon.router.routes["bad"]
        await write(web, 200)
        await world.until_true(lambda: bad.statistics().received == 200, "all of it is read")
    assert running.code == UNDELIVERED
    (said,) = world.events("ended with records that are not delivered and nowhere else")
    assert said["rotated_away"] == {"bad": ["web"]}


async def test_what_waits_in_memory_and_can_be_read_again_is_not_lost(world: World) -> None:
    web = world.container("web", log_opts={"max-size": "12k", "max-file": "20"})
    async with Running(world, IN_MEMORY) as running:
        bad = running.daemon.router.routes["bad"]
        await write(web, 200)
        await world.until_true(lambda: bad.statistics().received == 200, "all of it is read")
    assert running.code == DONE
    assert world.events("what is not delivered is spooled, or behind the checkpoints")


@pytest.mark.parametrize("disk", ["1GiB", 0])
async def test_what_is_spooled_or_can_be_read_again_is_not_lost(world: World, disk: Any) -> None:
    """What was rotated away, or removed, is in the spool, if there is one."""
    web = world.container("web", log_opts={"max-size": "12k", "max-file": "2"} if disk else {})
    async with Running(world, {"memory": "1KiB", "disk": disk}) as running:
        await write(web, 200)
        await world.until(200, "good")
        if disk:
            bad = running.daemon.router.routes["bad"]
            await world.until_true(lambda: bad.statistics().received == 200, "all of it is read")
            web.exit(0)
            web.remove()
            await trio.sleep(0.3)
    assert running.code == DONE
    assert world.events(LOST) == []
    assert world.events("what is not delivered is spooled, or behind the checkpoints")


async def test_a_log_that_was_compressed_by_its_rotation_is_not_lost(world: World) -> None:
    web = world.container("web", log_opts={"max-size": "12k", "max-file": "100", "compress": "true"})
    async with Running(world, NOTHING_KEPT) as running:
        await write(web, 100)
        await world.until(100, "good")
        await trio.sleep(0.3)
    assert running.code == DONE
    assert world.events(LOST) == []
