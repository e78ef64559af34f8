"""What `/v1/containers`, `logroute ps` and `logroute explain` say of containers of a simulated engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import trio
from click.testing import CliRunner, Result

from logroute.api.address import Address
from logroute.api.containers import ContainerFacts, Containers, RouteOfContainer, Unknown, find
from logroute.api.server import ApiServer
from logroute.cli import explain, health, main, ps
from logroute.cli.explain import Explanation
from logroute.cli.tables import ago, span
from logroute.config.components import SINKS, SOURCES
from logroute.router.daemon import Daemon
from logroute.router.match import Match
from logroute.router.plan import Plan, RoutePlan, SourcePlan
from logroute.router.record import Batch
from logroute.router.route import RouteSettings
from logroute.simulator.engine import SimulatedEngine
from logroute.sinks import DELIVERED, Outcome, Rejected, Sink, SinkOptions
from logroute.sources import SourceContext
from tests.api.running import client_of, until, without_log

NOW = "2026-11-23T20:10:00.000000000Z"
BEFORE = "2026-11-23T20:09:48.000000000Z"


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    with without_log():
        yield


class Rig:
    def __init__(self, engine: SimulatedEngine, daemon: Daemon, address: Address) -> None:
        self.engine = engine
        self.daemon = daemon
        self.address = address

    async def containers(self) -> Containers:
        async with client_of(self.address) as client:
            answer = await client.get("/v1/containers")
            assert answer.status_code == 200, answer.text
            return msgspec.json.decode(answer.content, type=Containers)

    async def run(self, command: click.Command, *arguments: str) -> Result:
        """A command, in a thread: the daemon that it asks is in this one.

        By way of the group: a command that is called without it learns names of options that stay.
        """
        line = [str(command.name), "--api", str(self.address), *arguments]
        return await trio.to_thread.run_sync(partial(CliRunner().invoke, main, line))


def route(name: str, match: Any = None, sink: str = "null", **options: Any) -> RoutePlan:
    make = partial(SINKS.create, SINKS.options(sink).model_validate(options))
    return RoutePlan(RouteSettings(name, match=Match.parse(match or {}), retry_initial_s=60), make)


@asynccontextmanager
async def rig(
    tmp_path: Path, *routes: RoutePlan, folder: str = "engine", **source: Any
) -> AsyncIterator[Rig]:
    """`folder` is the engine's: another has another engine, and the same address."""
    address = Address(path=str(tmp_path / "l.sock"))
    async with SimulatedEngine(tmp_path / folder, seed=1) as engine:
        options = SOURCES.options("docker").model_validate({"host": engine.host, **source})
        plan = Plan(
            routes or [route("all")],
            [SourcePlan("docker", partial(SOURCES.create, options, SourceContext("docker")))],
            grace_s=0.1,
            make_api=lambda daemon: ApiServer(daemon, address),
        )
        daemon = Daemon(plan)
        async with trio.open_nursery() as nursery:
            await nursery.start(daemon.run)
            try:
                yield Rig(engine, daemon, address)
            finally:
                daemon.stop()


async def read(rig: Rig, records: int) -> None:
    books = rig.daemon.router.read
    await until(lambda: sum(each.records for each in books.values()) >= records)


@pytest.mark.parametrize("way", ["file", "api"])
async def test_of_a_container_it_is_known_how_it_is_read_and_how_far(tmp_path: Path, way: str) -> None:
    async with rig(tmp_path, read=way) as r:
        web = r.engine.create("web", image="nginx:1.27")
        web.start()
        web.write(b"hello\n")
        await read(r, 1)
        routes = r.daemon.router.routes
        await until(lambda: routes["all"].statistics().delivered == 1)
        (facts,) = (await r.containers()).containers
        assert (facts.name, facts.image, facts.read, facts.state) == ("web", "nginx:1.27", way, "running")
        assert facts.last_record
        assert facts.routes["all"].acknowledged == facts.last_record
        assert not facts.routes["all"].waiting
        web.exit()
        await until(lambda: r.daemon.sources.running["docker"].known()[0].state == "ended")
        explained = await r.run(explain.command, "web")
        assert explained.output.startswith("What web says arrives by all.\n")
        assert explained.exit_code == 0


async def test_lines_that_are_left_out_are_shown(tmp_path: Path) -> None:
    async with rig(tmp_path, read="file") as r:
        web = r.engine.create("web")
        web.start()
        web.write(b"hello\n")
        await read(r, 1)
        with web.log_path.open("ab") as file:
            file.write(b"what no engine writes\n")
        await until(lambda: r.daemon.sources.running["docker"].known()[0].corrupt_lines == 1)
        explained = await r.run(explain.command, "web")
        assert "1 of its lines are left out" in " ".join(explained.output.split())
        assert "file!" in (await r.run(ps.command)).output


async def test_a_condition_that_fails_is_named_with_what_the_container_has(tmp_path: Path) -> None:
    routes = (
        route("audit", {"label": {"audit": "true"}, "stream": "stdout"}),
        route("errors", {"container": "web", "level": ">=error"}),
    )
    async with rig(tmp_path, *routes) as r:
        r.engine.create("web", labels={"audit": "no"}).start()
        await until(lambda: any(each.read == "file" for each in r.daemon.sources.running["docker"].known()))
        explained = await r.run(explain.command, "web")
        assert "audit: does not take it\n    ✗ label.audit: true (it is 'no')" in explained.output
        assert "errors: takes it, delivers (null)" in explained.output
        assert "of its records those with level: >=error" in explained.output
        assert explained.output.startswith("web has said nothing yet; what it says will go to errors.\n")


async def test_what_explain_says_of_taking_is_what_the_router_does(tmp_path: Path) -> None:
    matches: list[Any] = [
        {"container": "web"},
        {"not": {"container": "web"}},
        {"any": [{"image": "x"}, {"label": "logroute.routes"}]},
        {"stream": "stderr", "container": "a*"},
        {"level": ">=warn"},
    ]
    routes = [route(f"r{number}", match) for number, match in enumerate(matches)]
    async with rig(tmp_path, *routes) as r:
        for name, labels in (("web", {}), ("api", {"logroute.routes": "r1,r3"}), ("x", {"a": "b"})):
            r.engine.create(name, image=name, labels=labels).start()
        await until(lambda: len(r.daemon.sources.running["docker"].known()) == 3)
        facts = {each.name: each for each in (await r.containers()).containers}
        for known in r.daemon.sources.running["docker"].known():
            taken = {each.name for each in r.daemon.router.routes_of(known.origin)}
            assert facts[known.origin.name].taken.keys() == taken
        assert "logroute.routes: r1,r3" in (await r.run(explain.command, "api")).output


async def test_a_sink_that_is_down_is_what_stands_in_the_way(tmp_path: Path) -> None:
    down = route("search", sink="syslog", address="tcp://127.0.0.1:9")
    async with rig(tmp_path, down, route("all")) as r:
        web = r.engine.create("web")
        web.start()
        web.write(b"hello\n")
        await read(r, 1)
        await until(lambda: not r.daemon.router.routes["search"].statistics().up)
        explained = await r.run(explain.command, "web")
        assert explained.output.startswith("What web says does not arrive by search since ")
        assert "Connection refused" in " ".join(explained.output.split())
        listed = await r.run(ps.command)
        assert "search!, all" in listed.output


async def test_a_paused_route_is_what_stands_in_the_way(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        web = r.engine.create("web")
        web.start()
        await until(lambda: bool(r.daemon.sources.running["docker"].known()))
        await r.daemon.made.pause("all")
        web.write(b"hello\n")
        await read(r, 1)
        said = " ".join((await r.run(explain.command, "web")).output.split())
        assert said.startswith("What web says does not arrive by all since ")
        assert "paused since " in said
        assert "`logroute routes resume all`" in said
        assert "all: takes it, PAUSED since" in said
        assert "DOWN" not in said
        healthy = await r.run(health.command)
        assert healthy.exit_code == 1
        assert healthy.output.startswith("all  paused since ")
        await r.daemon.made.resume("all")
        await until(lambda: r.daemon.router.routes["all"].statistics().delivered == 1)
        assert (await r.run(explain.command, "web")).output.startswith("What web says arrives by all.\n")


async def test_a_full_queue_is_what_stands_in_the_way(tmp_path: Path) -> None:
    options = SINKS.options("syslog").model_validate({"address": "tcp://127.0.0.1:9"})
    settings = RouteSettings("slow", queue_bytes=20_000, retry_initial_s=60)
    full = RoutePlan(settings, partial(SINKS.create, options))
    async with rig(tmp_path, full, route("all")) as r:
        web = r.engine.create("web")
        web.start()
        with trio.fail_after(20):
            while not r.daemon.router.routes["slow"].statistics().hindrance:
                web.write(b"hello\n" * 500)
                await trio.sleep(0.05)
        said = " ".join((await r.run(explain.command, "web")).output.split())
        assert "slow: takes it, DOWN since" in said
        assert "its queue is full in memory: its logs are read on when there is room" in said
        assert "all: takes it, delivers" in said  # nobody else is held up


class Rejecting(Sink[SinkOptions]):
    """Takes nothing."""

    async def open(self) -> None: ...

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        return Outcome([Rejected(n, r, "400: no") for n, each in enumerate(batches) for r in each.records])

    async def close(self) -> None: ...


class Answering(Sink[SinkOptions]):
    """Its receiver says something when it takes a delivery."""

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        self.answer = "201 Created"
        return DELIVERED


async def test_it_is_told_what_the_receiver_has_answered(tmp_path: Path) -> None:
    plan = RoutePlan(RouteSettings("search"), lambda route: Answering(SinkOptions(), route))
    async with rig(tmp_path, plan, route("quiet")) as r:
        web = r.engine.create("web")
        web.start()
        web.write(b"one\n")
        await until(lambda: all(each.statistics().delivered for each in r.daemon.router.routes.values()))
        (facts,) = (await r.containers()).containers
        assert {name: of.answer for name, of in facts.routes.items()} == {
            "search": "201 Created",
            "quiet": "",
        }
        said = " ".join((await r.run(explain.command, "web")).output.split())
        assert (
            said.count("ago; the receiver answered: 201 Created") == said.count("the receiver answered") == 1
        )


async def test_what_a_receiver_rejects_does_not_arrive(tmp_path: Path) -> None:
    plan = RoutePlan(RouteSettings("search"), lambda route: Rejecting(SinkOptions(), route))
    async with rig(tmp_path, plan, route("all")) as r:
        web = r.engine.create("web")
        web.start()
        web.write(b"one\ntwo\n")
        await read(r, 2)
        await until(lambda: r.daemon.router.routes["search"].statistics().rejected == 2)
        await until(lambda: r.daemon.router.routes["all"].statistics().delivered == 2)
        explained = await r.run(explain.command, "web")
        said = " ".join(explained.output.split())
        assert said.startswith(
            "What web says arrives by all. What web says is rejected by the receiver of search: 400: no. web "
        )
        assert "2 of its records were rejected since the daemon started, the last with: 400: no" in said
        assert "nothing of it was delivered since the daemon started" in said


async def test_of_a_route_that_takes_only_some_records_it_is_said_that_there_were_none(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path, route("errors", {"level": ">=error"}), route("all")) as r:
        web = r.engine.create("web")
        web.start()
        web.write(b"hello\n")
        await read(r, 1)
        routes = r.daemon.router.routes
        await until(lambda: routes["all"].statistics().delivered == 1)
        await until(lambda: bool(routes["errors"].state.positions))
        explained = await r.run(explain.command, "web")
        assert " ".join(explained.output.split()).startswith(
            "What web says arrives by all. "
            "Nothing that it has said since the daemon started meets what errors asks for. web "
        )


async def test_a_log_that_the_engine_cannot_read_is_told_for_good(tmp_path: Path) -> None:
    async with rig(tmp_path, read="api") as r:
        r.engine.create("web", log_driver="syslog").start()
        known = r.daemon.sources.running["docker"].known
        await until(lambda: bool(known()) and "does not support reading" in known()[0].reason)
        explained = await r.run(explain.command, "web")
        assert explained.output.startswith("web cannot be read on: ")
        assert "configured logging driver does not support reading" in " ".join(explained.output.split())


async def test_a_label_that_makes_no_sense_is_explained(tmp_path: Path) -> None:
    async with rig(tmp_path, route("search")) as r:
        r.engine.create("web", labels={"logroute.routes": "serach"}).start()
        await until(lambda: len(r.daemon.sources.running["docker"].known()) == 1)
        explained = " ".join((await r.run(explain.command, "web")).output.split())
        assert "a label makes no sense, and changes nothing: logroute.routes: there is no route" in explained
        assert '"serach"; did you mean "search"?' in explained


async def test_ignored_ones_are_listed_with_the_reason_when_asked_for(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.engine.create("web").start()
        r.engine.create("quiet", labels={"logroute.enable": "false"}).start()
        await until(lambda: len(r.daemon.sources.running["docker"].known()) == 2)
        listed = await r.run(ps.command)
        assert "quiet" not in listed.output
        assert "and 1 that are ignored or have ended" in listed.output
        assert "its label logroute.enable says so" in (await r.run(ps.command, "-a")).output
        explained = await r.run(explain.command, "quiet")
        assert explained.output.startswith("Nothing of quiet is read: its label logroute.enable says so.")


async def test_one_that_there_is_not_gets_names_that_are_near(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        web = r.engine.create("web-1")
        web.start()
        await until(lambda: bool(r.daemon.sources.running["docker"].known()))
        explained = await r.run(explain.command, "wbe-1")
        assert explained.exit_code == 1
        assert "did you mean web-1?" in explained.output
        async with client_of(r.address) as client:
            assert (await client.get("/v1/containers/nothing")).status_code == 404
            assert (await client.get(f"/v1/containers/{web.id[:8]}")).json()["name"] == "web-1"


def facts(name: str = "web", **more: Any) -> ContainerFacts:
    return ContainerFacts(name, "docker", more.pop("state", "running"), more.pop("read", "file"), **more)


def taken(*names: str, **more: Any) -> dict[str, RouteOfContainer]:
    return {name: RouteOfContainer(True, "null", **more) for name in names}


def test_a_list_says_how_far_each_is_read_and_how_much_waits() -> None:
    now, last = "2026-11-26T12:00:10.000000000Z", "2026-11-26T12:00:05.000000000Z"
    routes = taken("all") | taken("slow", waiting=True, acknowledged="2026-11-26T11:57:05.000000000Z")
    found = [facts(last_record=last, routes=routes), facts("api", last_record=last, routes=taken("all"))]
    head, web, api = ps.lines(found, now, None)
    assert head.split() == ["CONTAINER", "STATE", "READ", "READ", "TO", "LAST", "LAG", "ROUTES"]
    assert web == "web        running  file  2026-11-26 12:00:05    5s   3m  all, slow…"
    assert api.split()[-2:] == ["0s", "all"]
    never = facts(last_record=last, routes=taken("slow", waiting=True))
    assert ps.lines([never], now, None)[1].split()[-2] == "all"


def test_a_narrow_terminal_shows_fewer_columns_and_routes_with_their_marks() -> None:
    now = last = "2026-11-26T12:00:10.000000000Z"
    routes = taken(*(f"a-long-name-{number}" for number in range(4)), waiting=True, acknowledged=last)
    found = [facts("shop-checkout-worker-1", last_record=last, routes=routes)]
    for width in (120, 80, 60, 45):
        assert all(len(line) <= width for line in ps.lines(found, now, width))
    assert ps.lines(found, now, 80)[1].endswith("0s  a-long-name-0… +3")
    assert "2026-11-26" not in ps.lines(found, now, 80)[1]
    assert ps.lines(found, now, 45)[1].endswith("4 routes")
    assert all(name in ps.lines(found, now, None)[1] for name in routes)


def test_of_several_of_a_name_the_one_that_runs_is_meant() -> None:
    old, new = facts(id="a" * 64, state="ended"), facts(id="b" * 64)
    assert find([old, new], "web") is new
    assert find([old, new], "aaaa") is old
    with pytest.raises(Unknown, match="several ids"):
        find([facts("x", id="abc1" + "0" * 60), facts("y", id="abc2" + "0" * 60)], "abc")


def test_explanations_fit_the_terminal_and_names_do_not_control_it() -> None:
    down = RouteOfContainer(True, "http", up=False, since=BEFORE, reason="cannot \x1b[2J connect " * 10)
    lines = Explanation(facts("w\x1b[2Jeb", routes={"all": down}), NOW, width=60).lines()
    assert all(len(line) <= 60 for line in lines)
    assert "\x1b" not in "".join(lines)


def test_lengths_of_time_are_short() -> None:
    assert [span(s) for s in (0, 59, 60, 3600, 3900, 86400, 90000)] == [
        "0s", "59s", "1m", "1h", "1h 5m", "1d", "1d 1h",
    ]  # fmt: skip
    assert (ago(BEFORE, NOW), ago("", NOW), ago("nonsense", NOW)) == ("12s", "-", "-")
