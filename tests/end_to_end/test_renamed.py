"""Containers that get another name while they are read, or while a route is behind. Simulated engine."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from logroute.config.load import load_config
from logroute.config.plans import make_plan
from logroute.router.daemon import Daemon
from logroute.router.ending import DONE, UNDELIVERED
from logroute.simulator import SimulatedContainer, SimulatedEngine
from logroute.sources import docker
from logroute.sources.engine_logs import EngineLog
from logroute.sources.log_file import LogFile
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


async def fall_behind(world: World, daemon: Daemon, web: SimulatedContainer, last: int, step: int) -> None:
    """The routes `web` and `both` are paused, and are behind when `all` has so many lines."""
    slow = [daemon.router.routes[name] for name in ("web", "both")]
    write(web, 1, 10)
    for route in slow:
        await world.until(10, route.name)
        route.pause(time.time())
    for first in range(11, last, step):
        write(web, first, first + step - 1)
        await trio.sleep(0.02)
    await world.until(last, "all")
    (origin,) = {known.origin for known in next(iter(daemon.sources.running.values())).known()}
    for route in slow:
        await world.until_true(lambda r=route: daemon.router.is_apart(r, origin), "it is behind")


def name_in(daemon: Daemon) -> str:
    (source,) = daemon.sources.running.values()
    return source.known()[0].origin.name


async def until_renamed(world: World, daemon: Daemon) -> None:
    """Until what comes has the new name, which the route `web` does not take."""
    (source,) = daemon.sources.running.values()
    key = source.known()[0].origin.key

    def over() -> bool:
        called = daemon.router.routes["web"].state.called(key)
        return called is not None and called.until is not None

    await world.until_true(over, "it is renamed")


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


@pytest.mark.parametrize("read", ["file", "api"])
async def test_what_nobody_has_read_yet_was_said_under_the_old_name(world: World, read: str) -> None:
    """One route, which is behind: no other reads on meanwhile."""
    world.configure({"web": {"match": {"container": "web"}, "queue": LITTLE}}, read=read)
    web = world.container("web")
    async with world.running() as daemon:
        route = daemon.router.routes["web"]
        write(web, 1, 10)
        await world.until(10, "web")
        route.pause(time.time())
        for first in range(11, 1000, 100):
            write(web, first, first + 99)
            await trio.sleep(0.02)
        await world.until_true(lambda: route.holds, "it is full")
        web.rename("db")
        await world.until_true(lambda: name_in(daemon) == "db", "the name is known")
        await trio.sleep(0.1)
        write(web, 1011, 1020)
        route.resume()
        await world.until(1010, "web")
        await world.until_true(lambda: daemon.router.unmatched == 10, "the rest is read")
    assert world.messages("web") == numbers(1, 1010)
    assert route.lost == {}


@pytest.mark.parametrize("takes", ["web", "web|db"])
async def test_what_waits_under_an_old_name_that_nobody_will_know_is_said_at_the_end(
    world: World, takes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world.configure({"web": {"match": {"container": takes.split("|")}, "queue": LITTLE}})
    web = world.container("web")
    async with world.running(UNDELIVERED if takes == "web" else DONE) as daemon:
        route = daemon.router.routes["web"]
        write(web, 1, 10)
        await world.until(10, "web")
        route.pause(time.time())
        write(web, 11, 20)
        await world.until_true(lambda: route.undelivered == 10, "the lines wait")
        web.rename("db")
        await world.until_true(lambda: name_in(daemon) == "db", "the name is known")
        daemon.stop()
        daemon.stop()  # there is no need to wait for the grace period
    assert ("renamed_containers={'web': ['web']}" in capsys.readouterr().out) == (takes == "web")


async def test_a_log_that_is_opened_anew_has_the_names_that_it_had(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker, "RETRY_MAX_S", 0.1)
    configure(world, "file", joins=False)
    web = world.container("web")
    async with world.running() as daemon:
        await fall_behind(world, daemon, web, 1010, 100)
        slow = [daemon.router.routes[name] for name in ("web", "both")]
        web.rename("db")
        await world.until_true(lambda: name_in(daemon) == "db", "the name is known")
        await trio.sleep(0.1)
        fetch, failed = LogFile.fetch, []

        def fail_once(log: LogFile, *args: Any) -> Any:
            if log.routes is None and not failed:
                failed.append(log)
                raise OSError(errno.EIO, "Input/output error")
            return fetch(log, *args)

        monkeypatch.setattr(LogFile, "fetch", fail_once)
        write(web, 1011, 1020)
        await world.until(1020, "all")
        for route in slow:
            route.resume()
        await world.until(1010, "web")
        await world.until(1020, "both")
    assert failed
    assert world.messages("web") == numbers(1, 1010)
    assert [record["container"]["name"] for record in world.records("both")] == ["web"] * 1010 + ["db"] * 10


async def test_by_api_whoever_goes_back_for_others_goes_back_to_the_name_of_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The container is renamed while a reader waits to be joined: it has something to hand on."""
    busy, join_now = [True], EngineLog._join_now
    monkeypatch.setattr(EngineLog, "_join_now", lambda log: None if busy else join_now(log))
    configure(world, "api", joins=False)
    web = world.container("web")
    async with world.running() as daemon:
        await fall_behind(world, daemon, web, 200, 10)
        (source,) = daemon.sources.running.values()
        slow = [daemon.router.routes[name] for name in ("web", "both")]
        for route in slow:
            route.resume()
            await world.until(200, route.name)
        (container,) = source.containers.values()  # type: ignore[attr-defined]
        await world.until_true(lambda: bool(container.engine_log._joins), "a reader is to be joined")
        write(web, 201, 300)
        await world.until(300, "all")
        web.rename("db")
        await world.until_true(lambda: name_in(daemon) == "db", "the name is known")
        await trio.sleep(0.1)
        write(web, 301, 310)
        await world.until(310, "all")
        busy.clear()
        container.engine_log._join_now()
        await world.until(310, "both")
        await world.until(300, "web")
    assert world.messages("web") == numbers(1, 300)
    assert [record["container"]["name"] for record in world.records("both")] == ["web"] * 300 + ["db"] * 10


async def test_by_api_a_container_that_was_renamed_when_it_had_ended_is_there_for_later_routes(
    world: World,
) -> None:
    world.configure({"all": {}}, read="api", start="beginning")
    web = world.container("web")
    async with world.running() as daemon:
        write(web, 1, 10)
        await world.until(10, "all")
        web.exit(0)
        (source,) = daemon.sources.running.values()
        await world.until_true(lambda: source.known()[0].state == "ended", "it has ended")
        web.rename("db")
        await world.until_true(lambda: name_in(daemon) == "db", "the name is known")
        routes = {"all": {}, "late": {"start": "beginning"}}
        world.configure(routes, read="api", start="beginning")
        config = load_config(world.folder / "logroute.yaml", ()).config
        await daemon.reload(make_plan(config, world.folder / "state", False))
        await world.until(10, "late")
    assert world.messages("late") == numbers(1, 10)


@pytest.mark.parametrize("read", ["file", "api"])
@pytest.mark.parametrize("running", [True, False], ids=["running", "ended"])
async def test_what_was_said_before_a_container_was_renamed_while_the_daemon_was_down_has_the_old_name(
    world: World, read: str, running: bool
) -> None:
    """A route that takes the old name alone lost all that it was behind with, without a word."""
    configure(world, read, joins=False)
    web = world.container("web")
    async with world.running() as daemon:
        write(web, 1, 10)
        for name in ("all", "web"):
            await world.until(10, name)
        daemon.router.routes["web"].pause(time.time())
        write(web, 11, 20)
        for name in ("all", "both"):
            await world.until(20, name)
    write(web, 21, 25)
    web.rename("db")
    write(web, 26, 30)
    if not running:
        web.exit(0)
    async with world.running() as daemon:
        await world.until(30, "web")
        await world.until(30, "all")
        if running:
            await until_renamed(world, daemon)
            write(web, 31, 40)
            for name in ("all", "both"):
                await world.until(40, name)
        lost = daemon.router.routes["web"].lost
    assert world.messages("web") == numbers(1, 30)
    assert lost == {}
    last = 40 if running else 30
    for name in ("all", "both"):
        records = world.records(name)
        assert [record["message"] for record in records] == numbers(1, last)
        assert [record["container"]["name"] for record in records] == ["web"] * 30 + ["db"] * (last - 30)
    async with world.running() as daemon:  # nothing comes again
        await world.until_true(lambda: name_in(daemon) == "db", "the name is known")
        if running:
            write(web, 41, 50)
            for name in ("all", "both"):
                await world.until(50, name)
        assert daemon.router.routes["web"].lost == {}
    assert world.messages("web") == numbers(1, 30)


async def test_whether_a_container_is_read_at_all_its_name_of_now_says(world: World) -> None:
    """It was renamed while the daemon was down, and `include` to what is meant by it now."""
    configure(world, "file", joins=False)
    web = world.container("web")
    async with world.running():
        write(web, 1, 10)
        await world.until(10, "all")
    web.rename("db")
    path = world.folder / "logroute.yaml"
    config = json.loads(path.read_text())
    config["sources"]["docker"]["include"] = {"container": "db"}
    path.write_text(json.dumps(config))
    async with world.running() as daemon:
        await world.until_true(lambda: name_in(daemon) == "db", "the name is known")
        write(web, 11, 20)
        await world.until(20, "all")


@pytest.mark.parametrize("read", ["file", "api"])
@pytest.mark.parametrize("behind", [True, False], ids=["behind", "had all"])
async def test_what_a_route_is_behind_with_under_a_name_that_only_an_earlier_run_knew_is_counted(
    world: World, read: str, behind: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(world, read, joins=False)
    web = world.container("web")
    async with world.running(UNDELIVERED if behind else DONE) as daemon:
        write(web, 1, 10)
        for name in ("all", "both", "web"):
            await world.until(10, name)
        if behind:
            daemon.router.routes["web"].pause(time.time())
        write(web, 11, 20)
        for name in ("all", "both") if behind else ("all", "both", "web"):
            await world.until(20, name)
        web.rename("db")
        await until_renamed(world, daemon)
        write(web, 21, 30)
        await world.until(30, "all")
        if behind:
            daemon.stop()
            daemon.stop()
    async with world.running() as daemon:
        write(web, 31, 40)
        await world.until(40, "all")
        lost = daemon.router.routes["web"].lost
    said = [line for line in capsys.readouterr().out.splitlines() if "container was renamed before" in line]
    if not behind:
        assert (lost, said) == ({}, [])
        return
    assert lost["renamed"].gaps == 1
    assert "" < lost["renamed"].since < lost["renamed"].until
    assert (lost["renamed"].bytes > 0) == (read == "file")
    assert len(said) == 1
    for part in ("before=web", "container=db", "reason=renamed", "routes=['web']"):
        assert part in said[0]
