"""A changed configuration, taken over while the daemon runs on a simulated engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import trio

from logroute.config.load import load_config
from logroute.config.plans import make_plan
from logroute.router import daemon as daemon_module
from logroute.router.daemon import Daemon
from logroute.router.plan import CannotReload
from logroute.simulator import SimulatedContainer, SimulatedEngine
from logroute.sources.docker import DockerSource
from logroute.sources.docker_container import Container
from tests.end_to_end.daemon import wait_until
from tests.end_to_end.test_simulated_engine import World, numbers, write
from tests.router.test_daemon_reload import FullDisk


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with SimulatedEngine(tmp_path / "engine") as engine:
        yield World(tmp_path, engine)


async def reload(world: World, daemon: Daemon, routes: dict[str, Any], **source: Any) -> None:
    world.configure(routes, **source)
    config = load_config(world.folder / "logroute.yaml", ()).config
    await daemon.reload(make_plan(config, world.folder / "state"))


async def test_a_route_is_added_and_the_others_are_not_touched(world: World) -> None:
    web = world.engine.create("web")
    web.start()
    world.configure({"all": {}})
    async with world.running() as daemon:
        web.write("1\n")
        await world.until(1)
        sink = daemon.router.routes["all"].sink
        await reload(world, daemon, {"all": {}, "more": {}})
        web.write("2\n")
        assert await world.until(1, "more") == ["2"]
        assert await world.until(2) == ["1", "2"]
        assert daemon.router.routes["all"].sink is sink
    # It is there after a restart, and goes on where it was.
    web.write("3\n")
    async with world.running():
        assert await world.until(2, "more") == ["2", "3"]


@pytest.mark.parametrize("silent", [True, False])
async def test_an_added_route_is_given_what_its_start_says(world: World, silent: bool) -> None:
    """Also of a container that says nothing any more; most of its log was rotated into other files."""
    web = world.engine.create("web", log_opts={"max-size": "20k", "max-file": "5"})
    web.start()
    world.configure({"all": {}})
    async with world.running() as daemon:
        for number in range(300):
            web.write(f"{number} {'x' * 100}\n")
        kept = await world.until(300)
        await reload(world, daemon, {"all": {}, "more": {"start": "beginning"}})
        if not silent:
            web.write("last\n")
        kept = kept if silent else [*kept, "last"]
        assert await world.until(len(kept), "more") == kept
        assert await world.until(len(kept)) == kept


async def ended(world: World, daemon: Daemon, container: SimulatedContainer) -> Container:
    """Wait until a container that has ended is read to its end, and nothing of it is held open."""
    container.exit(0)
    (source,) = daemon.sources.running.values()
    assert isinstance(source, DockerSource)
    known = source.containers[container.id]
    await world.until_true(lambda: known.ended and known.reader is None and not known.catching_up, "it ended")
    await world.until_true(lambda: known.log is None or known.log.closed, "its log is closed")
    return known


@pytest.mark.parametrize("read", ["file", "api"])
async def test_an_added_route_is_given_what_a_container_has_said_that_has_ended(
    world: World, read: str
) -> None:
    """The others, which have read it, see nothing twice; and all go on when it is started again."""
    web = world.container()
    world.configure({"all": {}}, read=read)
    async with world.running() as daemon:
        write(web, 1, 10)
        await world.until(10)
        known = await ended(world, daemon, web)
        await reload(world, daemon, {"all": {}, "more": {"start": "beginning"}}, read=read)
        assert await world.until(10, "more") == numbers(1, 10)
        await ended_again(world, known)
        await reload(world, daemon, {"all": {}}, read=read)
        await reload(world, daemon, {"all": {}, "more": {"start": "beginning"}}, read=read)
        web.start()
        write(web, 11, 20)
        await world.until(20)
        await world.until(20, "more")
    assert world.messages() == world.messages("more") == numbers(1, 20)


async def ended_again(world: World, known: Container) -> None:
    await world.until_true(lambda: known.log is None or known.log.closed, "its log is closed again")
    await world.until_true(lambda: not (known.opening or known.catching_up), "nobody reads it")


async def test_a_log_that_is_closed_is_not_opened_again_for_a_route_that_wants_nothing_of_it(
    world: World,
) -> None:
    web = world.container()
    world.configure({"all": {}})
    async with world.running() as daemon:
        write(web, 1, 10)
        await world.until(10)
        known = await ended(world, daemon, web)
        log = known.log
        more = {"more": {}, "now": {"start": "now"}, "other": {"match": {"container": "db"}}}
        await reload(world, daemon, {"all": {}, **more})
        assert (known.log, known.opening) == (log, False)
        await reload(world, daemon, {"all": {}})
        await reload(world, daemon, {"all": {}, **more})  # they have been there before
        assert (known.log, known.opening) == (log, False)
        web.start()
        write(web, 11, 20)
        await world.until(20)
        for name in ("more", "now"):
            assert await world.until(10, name) == numbers(11, 20)
    assert world.messages() == numbers(1, 20)


async def test_a_changed_route_goes_on_with_its_new_sink(world: World) -> None:
    web = world.engine.create("web")
    web.start()
    world.configure({"all": {}})
    async with world.running() as daemon:
        web.write("1\n")
        await world.until(1)
        there = {"sink": {"type": "file", "path": f"{world.out}/new.ndjson"}}
        await reload(world, daemon, {"all": there})
        web.write("2\n")
        assert await world.until(1, "new") == ["2"]
        assert world.messages() == ["1"]
        # The file is written a moment before it is acknowledged.
        statistics = daemon.router.routes["all"].statistics
        with trio.fail_after(10):
            while statistics().delivered < 2:  # noqa: ASYNC110 - nothing tells
                await trio.sleep(0.001)


async def test_a_removed_route_ends_and_may_come_back(world: World) -> None:
    web = world.engine.create("web")
    web.start()
    world.configure({"all": {}, "more": {}})
    async with world.running() as daemon:
        web.write("1\n")
        await world.until(1, "more")
        await reload(world, daemon, {"all": {}})
        web.write("2\n")
        await world.until(2)
        assert world.messages("more") == ["1"]
        await reload(world, daemon, {"all": {}, "more": {}})
        web.write("3\n")
        # What came while it was not there is behind its checkpoint.
        assert await world.until(3, "more") == ["1", "2", "3"]
        assert await world.until(3) == ["1", "2", "3"]


@pytest.mark.parametrize("way", ["reload", "paused", "API"])
@pytest.mark.parametrize("read", ["file", "api"])
async def test_a_route_that_is_removed_while_it_is_read_for_apart_may_come_back(
    world: World, read: str, way: str
) -> None:
    """Whoever still reads for the one before reads for nobody: else it went on there, and left out a part."""
    count = 15_000 if read == "file" else 3000
    web = world.engine.create("web")
    web.start()
    for number in range(0, count, 1000):
        web.write_many([f"{n} {'x' * 100}".encode() for n in range(number, number + 1000)])
    sink = {"type": "file", "path": f"{world.out}/more.ndjson"}
    more = {"sink": sink, "start": "beginning", "queue": {"memory": "64KiB", "disk": "0"}}
    world.configure({"all": {}}, read=read)
    async with world.running() as daemon:

        async def come() -> None:
            if way == "API":
                await daemon.made.set("more", more)
            else:
                await reload(world, daemon, {"all": {}, "more": more}, read=read)

        await come()
        await world.until(10, "more")
        if way == "paused":
            await daemon.made.pause("more")
            await trio.sleep(0.1)
        for pause_s in (0.0, 0.05):
            if way == "API":
                await daemon.made.remove("more", drop=False)
            else:
                await reload(world, daemon, {"all": {}}, read=read)
            await trio.sleep(pause_s)
            await come()
        if way == "paused":
            await daemon.made.resume("more")
        web.write("last\n")
        got = await world.until(count + 1, "more")
        assert [line.split()[0] for line in got] == [*map(str, range(count)), "last"]
        assert await world.until(1) == ["last"]


@pytest.mark.parametrize("silent", [True, False])
async def test_a_route_whose_disk_was_full_at_the_start_is_given_what_came_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    web = world.engine.create("web")
    web.start()
    world.configure({"all": {}, "full": {}})
    async with world.running():
        web.write("1\n")
        await world.until(1, "full")
    disk = FullDisk(monkeypatch, "full")
    monkeypatch.setattr(daemon_module, "OPEN_AGAIN_S", 0.3)
    web.write("2\n")
    async with world.running():
        web.write("3\n")
        await world.until(3)
        assert world.messages("full") == ["1"]
        disk.names.clear()
        if not silent:
            web.write("4\n")
        wanted = ["1", "2", "3"] if silent else ["1", "2", "3", "4"]
        assert await world.until(len(wanted), "full") == wanted
    assert world.messages("full") == world.messages() == wanted


async def test_a_source_that_changes_is_started_again_where_it_was(world: World) -> None:
    web = world.engine.create("web")
    web.start()
    world.configure({"all": {}})
    async with world.running() as daemon:
        for number in range(100):
            web.write(f"{number}\n")
        await reload(world, daemon, {"all": {}}, exclude={"container": "noisy"})
        web.write("last\n")
        assert await world.until(101) == [*map(str, range(100)), "last"]


async def test_what_cannot_be_taken_over_changes_nothing(world: World) -> None:
    web = world.engine.create("web")
    web.start()
    world.configure({"all": {}})
    async with world.running() as daemon:
        config = load_config(world.folder / "logroute.yaml", ()).config
        with pytest.raises(CannotReload, match="state_dir"):
            await daemon.reload(make_plan(config, world.folder / "elsewhere"))
        (world.folder / "state" / "routes" / "bad.db").mkdir()
        with pytest.raises(CannotReload, match=r"bad\.db"):
            await reload(world, daemon, {"all": {}, "bad": {}})
        assert list(daemon.router.routes) == ["all"]
        web.write("1\n")
        assert await world.until(1) == ["1"]


def start(command: list[str], output: BinaryIO) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stderr=output, env={**os.environ, "DOCKER_HOST": ""})


@pytest.mark.parametrize("watch", [True, False])
async def test_the_process_reloads_when_it_is_told_to(world: World, watch: bool) -> None:
    web = world.engine.create("web")
    web.start()
    world.configure({"all": {}})
    config = world.folder / "logroute.yaml"
    log = world.folder / "daemon.log"
    command = [sys.executable, "-m", "logroute", "run", "-c", str(config), *(["--watch"] if watch else [])]
    with log.open("wb") as output:
        process = start(command, output)

    def told() -> None:
        if not watch:
            process.send_signal(signal.SIGHUP)

    async def said(words: str) -> None:
        await trio.to_thread.run_sync(wait_until, lambda: words in log.read_text(), words)

    try:
        await said('"started"')
        good = config.read_text()
        config.write_text(good.replace('"all"', '"all", "all"'))
        told()
        await said("nothing has changed")
        assert "logroute.yaml:1:" in log.read_text()
        world.configure({"all": {}, "more": {}})
        told()
        await said('"reloaded"')
        web.write("1\n")
        assert await world.until(1, "more") == ["1"]
        assert await world.until(1) == ["1"]
    finally:
        process.terminate()
        assert await trio.to_thread.run_sync(process.wait) == 0


def into(path: Path, **more: Any) -> dict[str, Any]:
    sink = {"type": "file", "path": str(path), "format": "raw"}
    return {"sink": sink, "start": "beginning", "retry": {"max": "50ms", "initial": "10ms"}, **more}


async def test_a_route_waits_for_the_file_of_another_and_has_it_when_that_is_gone(world: World) -> None:
    web = world.engine.create("web")
    web.start()
    out = world.out / "out.log"
    (world.out / "link.log").symlink_to(out)
    world.configure({"one": into(out)})
    async with world.running() as daemon:
        web.write("1\n")
        await trio.to_thread.run_sync(wait_until, lambda: out.exists() and out.read_text() == "1\n", "1")
        both = {"one": into(out), "two": into(world.out / "link.log")}
        await reload(world, daemon, both)
        two = daemon.router.routes["two"]
        await trio.to_thread.run_sync(wait_until, lambda: bool(two.why_not_up), "the second waits")
        assert 'route "one" writes to it' in two.why_not_up
        web.write("2\n")
        await trio.to_thread.run_sync(wait_until, lambda: out.read_text() == "1\n2\n", "2")
        both["one"]["match"] = {"container": "we*"}  # its sink is another one now
        await reload(world, daemon, both)
        del both["one"]
        await reload(world, daemon, both)
        await trio.to_thread.run_sync(wait_until, lambda: out.read_text() == "1\n2\n1\n2\n", "all of it")
        assert not two.why_not_up


async def test_two_routes_exchange_their_files(world: World) -> None:
    web = world.engine.create("web")
    web.start()
    x, y = world.out / "x.log", world.out / "y.log"
    one, two = {"match": {"message": "a*"}}, {"match": {"message": "b*"}}
    world.configure({"one": into(x, **one), "two": into(y, **two)})

    def said() -> tuple[str, str]:
        return (x.read_text(), y.read_text()) if y.exists() and x.exists() else ("", "")

    async with world.running() as daemon:
        web.write("a1\nb1\n")
        await trio.to_thread.run_sync(wait_until, lambda: said() == ("a1\n", "b1\n"), "before")
        await reload(world, daemon, {"one": into(y, **one), "two": into(x, **two)})
        web.write("a2\nb2\n")
        await trio.to_thread.run_sync(wait_until, lambda: said() == ("a1\nb2\n", "b1\na2\n"), "after")
    async with world.running():
        web.write("a3\nb3\n")
        await trio.to_thread.run_sync(
            wait_until, lambda: said() == ("a1\nb2\nb3\n", "b1\na2\na3\n"), "after a restart"
        )
