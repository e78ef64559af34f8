"""A daemon that goes over to another plan while it runs, under a clock that jumps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from logroute.router.daemon import DONE, Daemon, Plan, RoutePlan, SourcePlan
from logroute.router.route import Route, RouteSettings
from logroute.router.state import RouteState
from tests.router.stand_ins import StandInSink, StandInSource, batch, origin

MIB = 1 << 20

MakeSink = Callable[[Route], StandInSink]


@pytest.fixture(autouse=True)
def _no_threads(no_threads: None) -> None: ...


class World:
    """A daemon whose routes are named, each with a script for its sinks, over a log that is a list."""

    def __init__(self, *names: str, lines: int = 0, **plan: Any) -> None:
        self.origin = origin()
        self.lines = lines
        self.scripts: dict[str, list[Any]] = {}
        self.sinks: dict[str, list[StandInSink]] = {}
        self.sources: list[StandInSource] = []
        self.more = plan
        self.code: int | None = None
        self.daemon = Daemon(self.plan(*names))

    def plan(self, *names: str, **changes: Any) -> Plan:
        """These routes, and what else is asked for; `sink` makes sinks, `options` stand for their options."""
        sink: MakeSink = changes.pop("sink", self.make_sink)
        options = changes.pop("options", "the same")
        source = changes.pop("source", "the same")
        return Plan(
            [
                RoutePlan(RouteSettings(name, batch_records=1), partial(sink), options=options)
                for name in names
            ],
            [SourcePlan("log", self.make_source, options=source)],
            **{**self.more, **changes},
        )

    def make_sink(self, route: Route) -> StandInSink:
        sink = StandInSink(route, self.scripts.get(route.name, []))
        self.sinks.setdefault(route.name, []).append(sink)
        return sink

    def make_source(self) -> StandInSource:
        self.sources.append(StandInSource({self.origin: range(1, self.lines + 1)}))
        return self.sources[-1]

    def messages(self, name: str) -> list[str]:
        return [message for sink in self.sinks[name] for message in sink.messages]

    def route(self, name: str) -> Route:
        return self.daemon.router.routes[name]

    async def reload(self, *names: str, **changes: Any) -> None:
        await self.daemon.reload(self.plan(*names, **changes))

    async def run(self, then: Callable[[], Awaitable[None]]) -> int:
        """Run it, do that once it has started, and stop it."""
        async with trio.open_nursery() as nursery:

            async def run(*, task_status: trio.TaskStatus[None]) -> None:
                self.code = await self.daemon.run(task_status=task_status)

            await nursery.start(run)
            await then()
            self.daemon.stop()
        assert self.code is not None
        return self.code


# --- what is not changed is not touched ----------------------------------------------------------------


async def test_however_many_routes_come_and_go_the_others_keep_their_sink_and_its_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Each has another share of the memory then: that is no change of the route."""
    world = World("a", "b", memory_bytes=256 * MIB)
    more = [f"more-{number}" for number in range(38)]

    async def reload() -> None:
        for names in (["a", "b", *more[:1]], ["a", "b", *more], ["a", "b"]):
            await world.reload(*names)
            await trio.sleep(1)

    assert await world.run(reload) == DONE
    for name in ("a", "b"):
        (sink,) = world.sinks[name]
        assert [what for _, what in sink.calls] == ["open", "close"]


async def test_what_all_queues_hold_together_is_bounded_after_a_reload_as_well(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World("a", "b", memory_bytes=8 * MIB)

    def bounds() -> dict[str, tuple[int, int, int]]:
        return {
            name: (
                route.queue.limit_bytes,
                route._delivery._settings.batch_bytes,
                route._overflow.settings.batch_bytes,
            )
            for name, route in world.daemon.router.routes.items()
        }

    async def reload() -> None:
        assert set(bounds().values()) == {(2 * MIB, MIB, MIB)}
        many = [f"r{number}" for number in range(14)]
        await world.reload("a", "b", *many)
        assert set(bounds().values()) == {(MIB // 4, MIB // 4, MIB // 4)}
        assert len(bounds()) == 16
        await world.reload("a")
        assert bounds() == {"a": (4 * MIB, MIB, MIB)}

    assert await world.run(reload) == DONE


async def test_a_route_whose_share_has_grown_is_read_for_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It was full, and is so no longer: whoever waits for room hears of that, whatever its sink does."""
    world = World("a", "b", lines=20, memory_bytes=40_000)
    world.scripts["a"] = [3600.0]

    async def reload() -> None:
        await trio.sleep(10)
        received = world.route("a").statistics().received
        assert world.route("a").queue.full
        assert received < 20
        await world.reload("a", "b", memory_bytes=256 * MIB)
        await trio.sleep(10)
        assert world.route("a").statistics().received == 20

    await world.run(reload)


# --- what fails ends nothing but itself ----------------------------------------------------------------


class Broken:
    """Makes no sink for the route `bad` while `why` is set."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.why: Exception | None = OSError("no such certificate")
        self.asked: list[float] = []

    def __call__(self, route: Route) -> StandInSink:
        if route.name == "bad" and self.why is not None:
            self.asked.append(trio.current_time())
            raise self.why
        return self.world.make_sink(route)


async def test_a_changed_route_whose_sink_cannot_be_made_is_down_and_its_neighbour_goes_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World("bad", "good", lines=3)
    broken = Broken(world)

    async def reload() -> None:
        await trio.sleep(1)
        await world.reload("bad", "good", sink=broken, options="others")
        await trio.sleep(20)
        assert len(broken.asked) > 3
        assert (world.route("bad").statistics().up, world.route("bad").statistics().reason) == (
            False,
            "no such certificate",
        )
        web, number = world.origin, 4
        await world.daemon.router([batch(web, [number])])
        await trio.sleep(1)
        assert world.messages("good") == ["1", "2", "3", "4"]
        broken.why = None
        await trio.sleep(61)
        assert world.messages("bad") == ["1", "2", "3", "4"]

    assert await world.run(reload) == DONE


async def test_a_better_configuration_is_not_made_to_wait_for_the_next_try_of_a_bad_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World("bad", "good", lines=3)
    broken = Broken(world)

    async def reload() -> None:
        await trio.sleep(1)
        await world.reload("bad", "good", sink=broken, options="others")
        await trio.sleep(200)
        asked = len(broken.asked)
        await world.reload("bad", "good", options="better")
        await trio.sleep(0.1)
        assert len(world.sinks["bad"]) == 2
        assert world.sinks["bad"][1].called("open")
        assert len(broken.asked) == asked

    assert await world.run(reload) == DONE


async def test_a_route_whose_last_checkpoints_cannot_be_stored_ends_nothing_but_itself(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = World("bad", "good", lines=3, state_dir=tmp_path)
    commit = RouteState.commit
    closed: list[str] = []
    close = RouteState.close

    async def fail(state: RouteState) -> None:
        if state.route == "bad":
            raise OverflowError("Python int too large to convert to SQLite INTEGER")
        await commit(state)

    async def note(state: RouteState) -> None:
        closed.append(state.route)
        await close(state)

    async def reload() -> None:
        await trio.sleep(1)
        monkeypatch.setattr(RouteState, "commit", fail)
        monkeypatch.setattr(RouteState, "close", note)
        await world.reload("good")
        await trio.sleep(1)
        assert closed == ["bad"]
        assert world.code is None

    assert await world.run(reload) == DONE
    assert closed == ["bad", "good"]
