"""Traces through the whole daemon, by file and by API: whole, once and in order, whatever stops meanwhile."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import trio

from logroute.router.record import Record
from logroute.sources.engine_logs import EngineLog
from tests.end_to_end.test_simulated_engine import READS, World, world

__all__ = ["world"]

MULTILINE = {"type": "multiline", "continue": "^  at", "max_gap": "60s"}


def trace(number: int, lines: int) -> str:
    return "\n".join([f"n {number}", *(f"  at {line}" for line in range(lines))])


def configure(world: World, read: str, *, blocked: bool = False, max_gap: str = "60s") -> None:
    """One route's lines are joined before it, the other's on the way into it; the latter may be blocked."""
    multiline = {**MULTILINE, "max_gap": max_gap}
    folder = world.out / "blocked" if blocked else world.out
    routes: dict[str, Any] = {
        "all": {"start": "beginning"},
        "own": {
            "start": "beginning",
            "processors": [{**multiline, "when": {"container": "own"}}],
            "sink": {"type": "file", "path": f"{folder}/own.ndjson"},
        },
    }
    world.configure(routes, read=read)
    path = world.folder / "logroute.yaml"
    config = json.loads(path.read_text())
    config["processors"] = [{**multiline, "when": {"container": "before"}}]
    if blocked:
        config["routes"]["own"]["queue"] = {"memory": "64KiB", "disk": "0B", "when_full": "block"}
        # What has failed for long would be tried again after up to half a minute.
        config["routes"]["own"]["retry"] = {"max": "1s"}
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("seed", range(3))
async def test_stops_in_the_middle_of_a_trace(world: World, read: str, seed: int) -> None:
    chance = random.Random(seed)
    configure(world, read)
    containers = {name: world.container(name) for name in ("before", "own")}
    said: dict[str, list[str]] = {name: [] for name in containers}
    left: list[tuple[str, str, str]] = []
    number = 0

    def write() -> None:
        """Lines of both containers and streams, some of a trace now and the rest later."""
        nonlocal number
        for name, stream, rest in left:
            containers[name].write(rest, stream)
        left.clear()
        for _ in range(chance.randrange(1, 200)):
            number += 1
            name, stream = chance.choice(["before", "own"]), chance.choice(["stdout", "stdout", "stderr"])
            text = trace(number, chance.choice([0, 0, 1, 5, 60]))
            said[name].append(text)
            containers[name].write(text + "\n", stream)
        for name in containers:
            number += 1
            text = trace(number, 9)
            said[name].append(text)
            cut = text.index("  at 4")
            containers[name].write(text[:cut])
            left.append((name, "stdout", text[cut:] + "\n"))

    for _ in range(5):
        write()
        async with world.running():
            write()
            await trio.sleep(chance.random() / 5)
            write()
            await trio.sleep(chance.random() / 5)
    write()
    for name, stream, rest in left:
        containers[name].write(rest, stream)
    async with world.running():
        for container in containers.values():
            container.exit(0)
        await world.until_true(lambda: whole(world, said), "every trace, whole")
    for name in containers:
        for route in ("all", "own"):
            if name == "own" and route == "all":
                continue
            got = [record for record in world.records(route) if record["container"]["name"] == name]
            ids = [record["event"]["id"] for record in got]
            assert len(set(ids)) == len(ids)
            have = [record["message"] for record in got]
            bad = [text for text in have if text not in said[name]]
            assert bad == []
            assert [text for text in said[name] if text not in have] == [], (name, route)
            for stream in ("stdout", "stderr"):
                of_one = [int(r["message"].split()[1]) for r in got if r["stream"] == stream]
                assert of_one == sorted(of_one)


def whole(world: World, said: dict[str, list[str]]) -> bool:
    """Whether as many records have come as were said."""
    counts = {"all": {"before": len(said["before"])}, "own": {n: len(texts) for n, texts in said.items()}}
    return all(
        world.count(route, name) >= count
        for route, of_route in counts.items()
        for name, count in of_route.items()
    )


@pytest.mark.parametrize("read", READS)
async def test_a_route_that_was_blocked_gets_them_whole(world: World, read: str) -> None:
    blocked = world.out / "blocked"
    blocked.write_text("a file where a folder should be")
    configure(world, read, blocked=True)
    containers = {name: world.container(name) for name in ("before", "own")}
    said: dict[str, list[str]] = {name: [] for name in containers}
    async with world.running():
        for number in range(1, 3_001):
            for name, container in containers.items():
                text = trace(number, 3)
                said[name].append(text)
                container.write(text + "\n")
            if number % 500 == 0:
                await trio.sleep(0.05)
        await world.until_true(
            lambda: world.count("all") >= 2_999 + 3_000 * 4, "the other route waits for nobody"
        )
        blocked.unlink()
        blocked.mkdir()
        for container in containers.values():
            container.exit(0)
        out = blocked / "own.ndjson"
        await world.until_true(
            lambda: out.exists() and out.read_bytes().count(b"\n") >= 6_000, "the blocked route has them all"
        )
    got = [json.loads(line) for line in out.read_bytes().splitlines()]
    for name in containers:
        assert [each["message"] for each in got if each["container"]["name"] == name] == said[name]
    before = [r["message"] for r in world.records("all") if r["container"]["name"] == "before"]
    assert before == said["before"]


async def test_a_label_asks_for_it(world: World) -> None:
    world.configure()
    async with world.running():
        asks = world.container("asks", labels={"logroute.multiline": "java"})
        other = world.container("other")
        for container in (asks, other):
            container.write("cannot pay\n\tat shop.Orders.pay(Orders.java:17)\n")
            container.exit(1)
        await world.until(3)
    got = {(record["container"]["name"], record["message"]) for record in world.records()}
    frame = "\tat shop.Orders.pay(Orders.java:17)"
    assert got == {("asks", f"cannot pay\n{frame}"), ("other", "cannot pay"), ("other", frame)}


@pytest.mark.parametrize("read", READS)
async def test_the_last_record_comes_after_a_while(world: World, read: str) -> None:
    world.configure(read=read)
    path = world.folder / "logroute.yaml"
    config = json.loads(path.read_text())
    config["processors"] = [{**MULTILINE, "max_gap": "50ms"}]
    path.write_text(json.dumps(config))
    async with world.running():
        container = world.container()
        container.write("n 1\n  at 1\n")
        assert await world.until(1) == ["n 1\n  at 1"]


@pytest.mark.parametrize("read", READS)
async def test_once_takes_what_has_begun_for_finished(world: World, read: str) -> None:
    configure(world, read)
    world.container("before").write("n 1\n  at 1\n")
    assert await world.once() == 0
    assert world.messages() == ["n 1\n  at 1"]
    assert world.messages("own") == ["n 1\n  at 1"]


MULTILINES = pytest.mark.parametrize("name", ["before", "own"])


@MULTILINES
async def test_a_container_that_is_removed_while_the_engine_is_away(world: World, name: str) -> None:
    configure(world, "api")
    async with world.running() as daemon:
        container = world.container(name)
        container.write("n 1\n  at 1\n")
        await world.until(2 if name == "own" else 0)
        await world.until_true(lambda: daemon.router.chains.holding, "it is read, and held")
        await world.engine.stop(containers="continue")
        container.remove(force=True)
        await world.engine.start()
        assert await world.until(1, "own") == ["n 1\n  at 1"]


@MULTILINES
async def test_a_container_that_ends_while_it_is_read_for_a_route_that_was_blocked(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = world.out / "blocked"
    blocked.write_text("a file where a folder should be")
    configure(world, "api", blocked=True)
    container = world.container(name)
    last = EngineLog._last
    killed = False

    async def slowly(self: EngineLog) -> Record | None:
        """The live reader comes to the end meanwhile."""
        nonlocal killed
        if self.routes is not None and not killed:
            killed = True
            container.exit(1)
            await trio.sleep(1)
        return await last(self)

    monkeypatch.setattr(EngineLog, "_last", slowly)
    said = [trace(number, 3) for number in range(1, 1_001)]
    async with world.running():
        for number, text in enumerate(said):
            container.write(text + "\n")
            if number % 300 == 0:
                await trio.sleep(0.05)
        await world.until(4_000 if name == "own" else 999)
        await trio.sleep(0.5)
        blocked.unlink()
        blocked.mkdir()
        out = blocked / "own.ndjson"
        await world.until_true(
            lambda: out.exists() and out.read_bytes().count(b"\n") >= len(said), "the blocked route has all"
        )
    assert killed
    assert [json.loads(line)["message"] for line in out.read_bytes().splitlines()] == said


async def test_what_is_held_of_a_route_that_was_blocked_goes_on_when_all_is_quiet(world: World) -> None:
    blocked = world.out / "blocked"
    blocked.write_text("a file where a folder should be")
    configure(world, "api", blocked=True, max_gap="50ms")
    container = world.container("own")
    said: list[str] = []
    async with world.running():
        for burst in (300, 300, 20):
            for _ in range(burst):
                said.append(trace(len(said) + 1, 3))
                container.write(said[-1] + "\n")
            await trio.sleep(3)
        blocked.unlink()
        blocked.mkdir()
        out = blocked / "own.ndjson"
        await world.until_true(
            lambda: out.exists() and out.read_bytes().count(b"\n") >= len(said), "the blocked route has all"
        )
    assert [json.loads(line)["message"] for line in out.read_bytes().splitlines()] == said
