"""Containers that get another name while they are read, or while a route is behind. Simulated engine."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from logroute.router.daemon import Daemon
from logroute.simulator import SimulatedEngine
from tests.end_to_end.test_simulated_engine import World, numbers, write

LITTLE: dict[str, Any] = {"memory": "1KiB", "disk": 0}
BY_NAME = {"all": {}, "web": {"match": {"container": "web"}, "queue": LITTLE}, "both": {"queue": LITTLE}}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with SimulatedEngine(tmp_path / "engine") as engine:
        yield World(tmp_path, engine)


def configure(world: World, read: str, *, joins: bool) -> None:
    world.configure(json.loads(json.dumps(BY_NAME)), read=read)
    path = world.folder / "logroute.yaml"
    config = json.loads(path.read_text())
    if joins:
        config["processors"] = [{"type": "multiline", "start": "^n "}]
    path.write_text(json.dumps(config))


def name_in(daemon: Daemon) -> str:
    (source,) = daemon.sources.running.values()
    return source.known()[0].origin.name


@pytest.mark.parametrize("read", ["file", "api"])
@pytest.mark.parametrize("joins", [False, True], ids=["lines", "joined"])
@pytest.mark.parametrize("behind", [False, True], ids=["live", "behind"])
async def test_each_route_gets_what_was_said_under_the_name_that_it_takes(
    world: World, read: str, joins: bool, behind: bool
) -> None:
    configure(world, read, joins=joins)
    web = world.container("web")
    async with world.running() as daemon:
        slow = [daemon.router.routes[name] for name in ("web", "both")]
        write(web, 1, 10)
        for route in slow if behind else ():
            await world.until(9 if joins else 10, route.name)
            route.pause(time.time())
        for first in range(11, 100, 10):
            write(web, first, first + 9)
            await trio.sleep(0.02)
        await world.until(99 if joins else 100, "all")
        if behind:
            (origin,) = {known.origin for known in next(iter(daemon.sources.running.values())).known()}
            for route in slow:
                await world.until_true(lambda r=route: daemon.router.is_apart(r, origin), "it is behind")
        web.rename("db")
        await world.until_true(lambda: name_in(daemon) == "db", "the name is known")
        await trio.sleep(0.1)
        write(web, 101, 120)
        await world.until(119 if joins else 120, "all")
        for route in slow:
            if behind:
                route.resume()
        await world.until(100, "web")
        await world.until(119 if joins else 120, "both")
        web.exit(0)
        await world.until(120, "both")
        await world.until(120, "all")
    assert world.messages("web") == numbers(1, 100)
    for name in ("all", "both"):
        records = world.records(name)
        assert [record["message"] for record in records] == numbers(1, 120)
        assert [record["container"]["name"] for record in records] == ["web"] * 100 + ["db"] * 20
