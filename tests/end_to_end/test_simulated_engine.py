"""The whole daemon on a simulated engine: from containers into files, through everything between."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
import trio.lowlevel
from structlog.testing import LogCapture

from logroute.api.books import health_of, stats_of
from logroute.config.load import load_config
from logroute.config.plans import make_plan
from logroute.router.daemon import Daemon
from logroute.router.database import StateError
from logroute.router.ending import DONE
from logroute.router.state import RouteState
from logroute.simulator import SimulatedContainer, SimulatedEngine
from logroute.simulator.quirks import DOCKER_20_10
from logroute.sources.engine import Engine
from tests.conftest import missing

READS = ["file", "api"]
HOUR_NS = 3600 * 10**9


class World:
    """An engine, a configuration, and what the daemon made of it."""

    def __init__(self, folder: Path, engine: SimulatedEngine) -> None:
        self.folder = folder
        self.engine = engine
        self.out = folder / "out"
        self.out.mkdir()
        self.said = LogCapture()

    def configure(
        self, routes: dict[str, Any] | None = None, *, read: str = "file", start: str = "now", **source: Any
    ) -> None:
        if routes is None:
            routes = {"all": {}}
        for name, route in routes.items():
            route.setdefault("sink", {"type": "file", "path": f"{self.out}/{name}.ndjson"})
        docker = {"host": self.engine.host, "read": read, "start": start, **source}
        config = {"state_dir": str(self.folder / "state"), "sources": {"docker": docker}, "routes": routes}
        (self.folder / "logroute.yaml").write_text(json.dumps(config))

    def daemon(self, *, once: bool = False) -> Daemon:
        config = load_config(self.folder / "logroute.yaml", ()).config
        return Daemon(make_plan(config, self.folder / "state", once))

    @asynccontextmanager
    async def running(self, code: int = DONE) -> AsyncIterator[Daemon]:
        """A daemon that has started; it ends in order, with this exit code."""
        daemon = self.daemon()
        async with trio.open_nursery() as nursery:
            codes: list[int] = []

            async def run(task_status: Any) -> None:
                codes.append(await daemon.run(task_status=task_status))

            await nursery.start(run)
            yield daemon
            daemon.stop()
        assert codes == [code]

    async def once(self) -> int:
        with trio.fail_after(60):
            return await self.daemon(once=True).run()

    def records(self, route: str = "all") -> list[dict[str, Any]]:
        path = self.out / f"{route}.ndjson"
        data = path.read_bytes() if path.exists() else b""
        return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]

    def messages(self, route: str = "all") -> list[str]:
        return [record["message"] for record in self.records(route)]

    def count(self, route: str = "all", container: str | None = None) -> int:
        """How many records there are, of one container or of all; it costs little, so one may look often."""
        path = self.out / f"{route}.ndjson"
        data = path.read_bytes() if path.exists() else b""
        if container is None:
            return data.count(b"\n")
        return data[: data.rfind(b"\n") + 1].count(b'"name":"%s"' % container.encode())

    async def until(self, count: int, route: str = "all") -> list[str]:
        """Wait until a route has written so many records; all of its messages."""
        await self.until_true(lambda: self.count(route) >= count, f"{count} records of {route}")
        return self.messages(route)

    async def until_true(self, holds: Callable[[], bool], what: str) -> None:
        """The daemon works in threads and on files, so there is no event to wait for."""
        with trio.move_on_after(30) as waited:
            while not holds():  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert not waited.cancelled_caught, f"waited in vain: {what}; it said: {self.said.entries[-5:]}"

    def events(self, text: str) -> list[Any]:
        return [entry for entry in self.said.entries if text in entry["event"]]

    def container(self, name: str = "web", **options: Any) -> SimulatedContainer:
        container = self.engine.create(name, **options)
        container.start()
        return container


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with SimulatedEngine(tmp_path / "engine", seed=1) as engine:
        world = World(tmp_path, engine)
        before = structlog.get_config()
        structlog.configure(processors=[world.said])
        yield world
        structlog.configure(**before)


def numbers(first: int, last: int) -> list[str]:
    return [f"n {number}" for number in range(first, last + 1)]


def write(container: SimulatedContainer, first: int, last: int) -> None:
    container.write_many([text.encode() for text in numbers(first, last)])


# --- what goes where -----------------------------------------------------------------------------------


async def test_routes_get_what_they_match_and_the_rest_is_counted(world: World) -> None:
    world.configure(
        {
            "web": {"match": {"container": "web-*"}},
            "shop": {"match": {"label": {"team": "shop"}, "stream": "stderr"}},
            "neither": {"match": {"all": [{"image": "/nginx/"}, {"not": {"container": "web-*"}}]}},
        }
    )
    web = world.container("web-1", image="nginx:1.27", labels={"team": "shop"})
    other = world.container("api", image="nginx:1.27")
    unknown = world.container("unknown")
    async with world.running() as daemon:
        web.write("out\n")
        web.write("error\n", "stderr")
        other.write("api\n")
        unknown.write("nobody\ntakes me\n")
        await world.until(2, "web")
        await world.until(1, "shop")
        await world.until(1, "neither")
        await world.until_true(lambda: daemon.router.unmatched == 2, "two records are unmatched")
    assert world.messages("web") == ["out", "error"]
    assert world.messages("shop") == ["error"]
    assert world.messages("neither") == ["api"]


async def test_containers_are_left_out_as_they_wish(world: World) -> None:
    world.configure(include={"container": ["web", "no-*"]}, exclude={"container": "no-exclude"})
    names = {
        "web": {},
        "no-label": {"labels": {"logroute.enable": "false"}},
        "no-environment": {"env": ["LOGSPOUT=ignore"]},
        "no-exclude": {},
        "else": {},
    }
    async with world.running():
        containers = [world.container(name, **options) for name, options in names.items()]
        for container in containers:
            container.write(f"{container.name}\n")
        await world.until(1)
        containers[0].write("last\n")
        await world.until(2)
    assert world.messages() == ["web", "last"]


# --- where reading begins ------------------------------------------------------------------------------


@pytest.mark.parametrize("read", READS)
async def test_now_begins_with_what_comes(world: World, read: str) -> None:
    world.configure(read=read)
    container = world.container()
    write(container, 1, 10)
    async with world.running():
        write(container, 11, 20)
        later = world.container("later")
        later.write("first line of a later one\n")
        assert sorted(await world.until(11)) == sorted([*numbers(11, 20), "first line of a later one"])


@pytest.mark.parametrize("read", READS)
async def test_now_leaves_out_what_has_ended_and_calls_it_no_loss(world: World, read: str) -> None:
    world.configure(read=read)
    ended = world.container("ended")
    write(ended, 1, 10)
    ended.exit(0)
    async with world.running():
        later = world.container("later")
        later.write("one\n")
        assert await world.until(1) == ["one"]
        ended.start()
        ended.write("again\n")
        assert await world.until(2) == ["one", "again"]
    assert not world.events("lost")


@pytest.mark.parametrize("read", READS)
async def test_a_duration_begins_that_long_ago(world: World, read: str) -> None:
    world.configure(read=read, start="2h")
    container = world.container()
    now = world.engine.clock()
    container.write("old\n", time_ns=now - 3 * HOUR_NS)
    container.write("young\n", time_ns=now - HOUR_NS)
    async with world.running():
        container.write("new\n")
        assert await world.until(2) == ["young", "new"]


@pytest.mark.parametrize("read", READS)
async def test_once_reads_what_there_is_and_ends(world: World, read: str) -> None:
    world.configure(read=read)
    running, ended = world.container("running"), world.container("ended")
    write(running, 1, 5_000)
    write(ended, 5_001, 10_000)
    ended.exit(0)
    assert await world.once() == 0
    assert sorted(world.messages(), key=lambda text: int(text[2:])) == numbers(1, 10_000)
    write(running, 10_001, 10_010)
    assert await world.once() == 0
    assert world.messages()[10_000:] == numbers(10_001, 10_010)


async def test_a_new_route_beside_old_ones_makes_these_see_nothing_again(world: World) -> None:
    container = world.container()
    write(container, 1, 10)
    world.configure({"old": {"start": "beginning"}})
    async with world.running():
        await world.until(10, "old")
    write(container, 11, 20)
    world.configure({"old": {"start": "beginning"}, "new": {"start": "beginning"}, "newest": {}})
    async with world.running():
        write(container, 21, 30)
        assert await world.until(30, "new") == numbers(1, 30)
        assert await world.until(30, "old") == numbers(1, 30)
        await world.until(1, "newest")
    # Without a start of its own it begins with what came after it: the source says `now`.
    assert set(world.messages("newest")) <= set(numbers(21, 30))


@pytest.mark.parametrize("read", READS)
async def test_a_route_that_is_behind_gets_the_rest_and_the_others_nothing_twice(
    world: World, read: str
) -> None:
    """One route's file cannot be written in the first run, per stream and in the middle."""
    blocked = world.out / "blocked"
    blocked.write_text("a file where a folder should be")
    routes: dict[str, Any] = {
        "good": {"start": "beginning"},
        "late": {"start": "beginning", "sink": {"type": "file", "path": f"{blocked}/late.ndjson"}},
    }
    world.configure(routes, read=read)
    container = world.container()
    write(container, 1, 1_000)
    container.write("an error\n", "stderr")
    async with world.running() as daemon:
        await world.until(1_001, "good")
        await world.until_true(
            lambda: not daemon.router.routes["late"].statistics().up, "the other route fails"
        )
        daemon.stop()
        daemon.stop()
    blocked.unlink()
    write(container, 1_001, 1_100)
    async with world.running():
        await world.until(1_101, "good")
        late = world.folder / "out/blocked/late.ndjson"
        await world.until_true(
            lambda: late.exists() and late.read_bytes().count(b"\n") >= 1_101, "the late route has them all"
        )
    assert [m for m in world.messages("good") if m != "an error"] == numbers(1, 1_100)
    got = [json.loads(line)["message"] for line in late.read_bytes().splitlines()]
    assert [m for m in got if m != "an error"] == numbers(1, 1_100)
    assert got.count("an error") == 1


# --- the life of containers and engines ----------------------------------------------------------------


@pytest.mark.parametrize("read", READS)
async def test_restarts_renames_pauses_and_removal_lose_and_repeat_nothing(world: World, read: str) -> None:
    world.configure(read=read)
    async with world.running():
        container = world.container("before")
        write(container, 1, 100)
        container.exit(1)
        container.start()
        write(container, 101, 200)
        await world.until(200)
        container.rename("after")
        await world.until_true(lambda: bool(world.events("renamed")), "the new name is known")
        container.pause()
        container.unpause()
        write(container, 201, 300)
        container.restart()
        write(container, 301, 400)
        await world.until(400)
        container.write("last words\nand no newline")
        container.remove(force=True)
        await world.until(402)
    assert world.messages() == [*numbers(1, 400), "last words", "and no newline"]
    names = [record["container"]["name"] for record in world.records()]
    assert names[:200] == ["before"] * 200
    assert names[-1] == "after"


async def test_a_clock_that_is_set_back_hides_nothing_of_a_stream_that_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead_ns = 0

    def clock() -> int:
        return time.time_ns() + ahead_ns

    monkeypatch.setattr(Engine, "now_ns", lambda self: clock())
    # It leaves out what is older than `since`, however long the stream is open.
    async with SimulatedEngine(tmp_path / "engine", quirks=DOCKER_20_10, clock=clock) as engine:
        world = World(tmp_path, engine)
        world.configure(read="api")
        container = world.container()
        container.write("old\n")
        async with world.running():
            write(container, 1, 10)
            await world.until(10)
            container.exit(0)
            container.start()
            write(container, 11, 20)  # the stream is opened behind these
            await world.until(20)
            ahead_ns = -HOUR_NS
            write(container, 21, 30)
            assert await world.until(30) == numbers(1, 30)


@pytest.mark.parametrize("read", READS)
async def test_an_engine_that_is_stopped_and_started(world: World, read: str) -> None:
    world.configure(read=read)
    container = world.container()
    async with world.running():
        write(container, 1, 100)
        await world.until(100)
        await world.engine.stop()
        await world.until_true(lambda: bool(world.events("the engine is away")), "it says so")
        container.write("while it is away\n")
        await world.engine.start()
        await world.until_true(lambda: bool(world.events("the engine is back")), "it says so")
        write(container, 101, 200)
        later = world.container("later")
        later.write("a later one\n")
        later.exit(0)
        await world.until(202)
    assert [m for m in world.messages() if m != "a later one"] == [
        *numbers(1, 100), "while it is away", *numbers(101, 200),
    ]  # fmt: skip


@pytest.mark.parametrize("read", READS)
async def test_terminals(world: World, read: str) -> None:
    world.configure(read=read)
    async with world.running():
        container = world.container(tty=True)
        container.write("one\n\ntwo \x1b[1mbold\x1b[0m\n")
        container.write("error\n", "stderr")
        assert await world.until(4) == ["one\r", "\r", "two \x1b[1mbold\x1b[0m\r", "error\r"]
    assert {record["stream"] for record in world.records()} == {"stdout"}


# --- rotation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", ["false", "true"])
async def test_seven_rotations_while_the_daemon_is_down(world: World, compress: str) -> None:
    """What is left is read from its beginning, and what is gone is said, with its time span."""
    world.configure()
    options = {"max-size": "20k", "max-file": "4", "compress": compress}
    container = world.container(log_opts=options)
    write(container, 1, 100)
    async with world.running():
        write(container, 101, 200)
        await world.until(100)
    while container.log.rotations < 7:  # type: ignore[union-attr]
        write(container, 201, 260)
        await trio.sleep(0.02)  # for what compresses
    container.write("after\n")
    async with world.running():
        await world.until_true(lambda: world.messages()[-1:] == ["after"], "the last line arrives")
    lost = world.events("records are lost")
    assert len(lost) == 1
    assert lost[0]["reason"] == "rotated"
    assert lost[0]["since"] < lost[0]["until"]
    messages = world.messages()
    assert messages[:100] == numbers(101, 200)
    rest = messages[100:-1]
    # Whole records, from the first of the oldest file on, in order: cycles of 201 … 260.
    cycle = numbers(201, 260)
    begin = cycle.index(rest[0])
    assert rest == [cycle[(begin + n) % 60] for n in range(len(rest))]


async def test_two_rotations_while_the_daemon_is_down_lose_nothing(world: World) -> None:
    world.configure()
    container = world.container(log_opts={"max-size": "20k", "max-file": "4", "compress": "true"})
    async with world.running():
        write(container, 1, 100)
        await world.until(100)
    last = 100
    while container.log.rotations < 2:  # type: ignore[union-attr]
        write(container, last + 1, last + 50)
        last += 50
        await trio.sleep(0.02)
    async with world.running():
        assert await world.until(last) == numbers(1, last)
    assert not world.events("lost")


# --- sinks ---------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True
    )
    if done.returncode:
        missing(f"a file system cannot be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_full_disk_is_waited_for_and_nothing_is_lost_or_torn(world: World, small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1_800_000)
    sink = {"type": "file", "path": f"{small_disk}/out.ndjson"}
    world.configure({"full": {"sink": sink, "retry": {"max": "200ms"}}, "beside": {}})
    container = world.container()
    async with world.running() as daemon:
        write(container, 1, 3_000)
        await world.until_true(lambda: not daemon.router.routes["full"].statistics().up, "the route waits")
        assert "No space left on device" in daemon.router.routes["full"].statistics().reason
        assert world.events("cannot deliver")[0]["route"] == "full"
        # Its neighbour does not notice.
        assert await world.until(3_000, "beside") == numbers(1, 3_000)
        ballast.unlink()
        out = small_disk / "out.ndjson"
        await world.until_true(lambda: out.read_bytes().count(b"\n") >= 3_000, "the rest arrives")
    assert [json.loads(line)["message"] for line in out.read_bytes().splitlines()] == numbers(1, 3_000)


async def test_a_disk_that_is_full_when_the_daemon_is_killed(world: World, small_disk: Path) -> None:
    """The daemon ends while its file is full; the next one goes on at the same record."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1_800_000)
    sink = {"type": "file", "path": f"{small_disk}/out.ndjson"}
    world.configure({"full": {"sink": sink}})
    container = world.container()
    async with world.running() as daemon:
        write(container, 1, 3_000)
        await world.until_true(lambda: not daemon.router.routes["full"].statistics().up, "the route waits")
        daemon.stop()
        daemon.stop()
    ballast.unlink()
    async with world.running():
        out = small_disk / "out.ndjson"
        await world.until_true(lambda: out.read_bytes().count(b"\n") >= 3_000, "the rest arrives")
    assert [json.loads(line)["message"] for line in out.read_bytes().splitlines()] == numbers(1, 3_000)


async def test_a_long_line_without_end_takes_bounded_memory_and_is_marked(world: World) -> None:
    world.configure()
    container = world.container()
    async with world.running():
        for _ in range(100):
            container.write(b"x" * 100_000)
            await trio.lowlevel.checkpoint()
        container.write("\nafter\n")
        await world.until(2)
    first, second = world.records()
    assert first["log"] == {"truncated": True}
    assert first["message"] == "x" * (1 << 20)
    assert second["message"] == "after"


async def test_what_rotation_takes_before_the_first_acknowledgement_is_said(world: World) -> None:
    """The daemon is killed before anything was delivered, and its place is gone when it comes back."""
    world.configure({"all": {"sink": "http://127.0.0.1:9/?encoding=ndjson", "queue": {"disk": 0}}})
    daemon = world.daemon()
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run)
        web = world.container(log_opts={"max-size": "2k", "max-file": "2"})
        await world.until_true(lambda: bool(daemon.router.routes["all"].state.positions), "it is met")
        write(web, 1, 5)
        await world.until_true(lambda: daemon.router.routes["all"].statistics().received == 5, "it is read")
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    write(web, 6, 200)
    world.configure()
    async with world.running():
        await world.until_true(lambda: bool(world.events("records are lost")), "the loss is said")
        got = await world.until(1)
        assert got == numbers(int(got[0].split()[1]), 200)


# --- a state that cannot be stored ---------------------------------------------------------------------


@pytest.mark.parametrize("read", READS)
async def test_a_route_whose_state_cannot_be_stored_keeps_no_new_container_from_the_others(
    world: World, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets them when it can: nothing may be read before it is known where that began."""
    world.configure({"good": {}, "bad": {}}, read=read)
    full = True
    commit = RouteState.commit

    async def fail(state: RouteState) -> None:
        if full and state.route == "bad":
            raise StateError("cannot store checkpoints: database or disk is full")
        await commit(state)

    async with world.running() as daemon:
        monkeypatch.setattr(RouteState, "commit", fail)
        web = world.container()
        write(web, 1, 100)
        assert await world.until(100, "good") == numbers(1, 100)
        write(web, 101, 200)
        assert await world.until(200, "good") == numbers(1, 200)
        assert world.messages("bad") == []
        health = health_of(daemon).routes["bad"]
        assert health.notes == (
            "cannot store checkpoints: database or disk is full: a crash now would deliver again; "
            "new logs that are not read for it yet: 1",
        )
        assert stats_of(daemon).routes["bad"].hindrance == health.notes[0]
        full = False
        assert await world.until(200, "bad") == numbers(1, 200)
        write(web, 201, 300)
        assert await world.until(300, "bad") == numbers(1, 300)
        assert await world.until(300, "good") == numbers(1, 300)
        assert health_of(daemon).routes["bad"].notes == ()
