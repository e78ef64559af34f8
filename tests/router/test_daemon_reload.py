"""A daemon that goes over to another plan while it runs, under a clock that jumps."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from logroute.api.books import health_of, stats_of
from logroute.router.daemon import OPEN_AGAIN_S, Daemon
from logroute.router.database import StateError
from logroute.router.ending import DONE, FAILED, UNDELIVERED
from logroute.router.match import EVERYTHING, Match
from logroute.router.plan import CannotReload, Plan, RoutePlan, SourcePlan
from logroute.router.route import HURRIED_WITHIN_S, Route, RouteSettings
from logroute.router.state import RouteState
from logroute.router.state_file import Contents, StateFile
from logroute.sinks import SinkGone
from tests.router.stand_ins import StandInSink, StandInSource, batch, number_of, origin, position

MIB = 1 << 20
DISK = {"disk_bytes": MIB}

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
        disk_bytes = changes.pop("disk_bytes", 0)
        return Plan(
            [
                RoutePlan(
                    RouteSettings(name, batch_records=1, disk_bytes=disk_bytes),
                    partial(sink),
                    options=options,
                )
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
        """Run it, do that once it has started, and stop it, if that has not."""
        async with trio.open_nursery() as nursery:

            async def run(*, task_status: trio.TaskStatus[None]) -> None:
                self.code = await self.daemon.run(task_status=task_status)

            await nursery.start(run)
            await then()
            if not self.daemon._asked.is_set():
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

    async def begin(self) -> None:
        """Reload to it, once everything was delivered."""
        await trio.sleep(1)
        await self.world.reload("bad", "good", sink=self, options="others")

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
        await broken.begin()
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
        await broken.begin()
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


# --- ending meanwhile ----------------------------------------------------------------------------------


class SlowSource(StandInSource):
    """Takes its steps to start, and to end."""

    async def run(self, *args: Any, **more: Any) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        try:
            await super().run(*args, **more)
        finally:
            with trio.CancelScope(shield=True):
                for _ in range(3):
                    await trio.lowlevel.checkpoint()


async def test_a_stop_at_any_instant_of_a_reload_ends_it_in_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    outcomes: list[str] = []
    for steps in range(60):
        world = World("kept", "changed", "gone", lines=3)
        world.scripts["gone"] = [0.1] * 3

        async def reload(world: World, steps: int) -> str:
            async def stop() -> None:
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                world.daemon.stop()

            world.make_source = lambda: SlowSource({world.origin: range(1, 4)})  # type: ignore[method-assign]
            plan = world.plan("kept", "changed", "new", "newer", source="another")
            routes = [
                msgspec.structs.replace(each, options="others") if each.settings.name == "changed" else each
                for each in plan.routes
            ]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stop)
                try:
                    await world.daemon.reload(msgspec.structs.replace(plan, routes=routes))
                except CannotReload:
                    return "refused"
            return "done"

        async def then(world: World = world, steps: int = steps) -> None:
            outcomes.append(await reload(world, steps))

        with trio.fail_after(100):
            assert await world.run(then) == DONE
        opened = [sink.context for sinks in world.sinks.values() for sink in sinks]
        assert [route.state._database for route in opened if isinstance(route, Route)] == [None] * len(opened)
    assert outcomes[0] == "refused"
    assert outcomes[-1] == "done"
    # Which of two tasks goes first is a matter of chance, so that one step more or less decides nothing.
    assert 1 <= outcomes.count("refused") < 30


async def test_a_source_that_does_not_start_keeps_nobody_from_ending(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World("all")

    async def reload() -> None:
        world.make_source = lambda: StandInSource({}, start_s=math.inf)  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(world.reload, "all", source="another"))
            await trio.sleep(10)
            world.daemon.stop()

    assert await world.run(reload) == DONE
    assert trio.current_time() == pytest.approx(10)


async def test_a_reload_that_comes_while_the_daemon_starts_waits_for_that(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World("a", lines=1)
    world.make_source = lambda: StandInSource({world.origin: [1]}, start_s=3)  # type: ignore[method-assign]
    world.daemon = Daemon(world.plan("a"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(world.reload, "a", "b"))
        nursery.start_soon(world.daemon.run)
        await trio.sleep(2)
        assert list(world.daemon.router.routes) == ["a"]
        await trio.sleep(2)
        assert list(world.daemon.router.routes) == ["a", "b"]
        world.daemon.stop()


# --- what cannot be taken over changes nothing ---------------------------------------------------------


async def test_of_two_new_routes_of_which_one_cannot_be_opened_neither_is_left_open(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    world = World("all", lines=3, state_dir=tmp_path)

    async def reload() -> None:
        (tmp_path / "routes" / "bad.db").mkdir()
        with pytest.raises(CannotReload, match=r"bad\.db"):
            await world.reload("all", "good", "bad")
        (unused,) = [sink.context for sink in world.sinks["good"]]
        assert isinstance(unused, Route)
        assert unused.state._database is None
        assert list(world.daemon.router.routes) == ["all"]
        (tmp_path / "routes" / "bad.db").rmdir()
        await world.reload("all", "good", "bad")
        await world.daemon.router([batch(world.origin, [4])])
        await trio.sleep(1)
        assert world.messages("good") == world.messages("bad") == ["4"]

    assert await world.run(reload) == DONE
    assert len(world.sinks["all"]) == 1


async def test_a_new_route_whose_sink_cannot_be_made_is_not_taken_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World("all")

    async def reload() -> None:
        with pytest.raises(CannotReload, match=r"routes\.bad: cannot make its sink: no such certificate"):
            await world.reload("all", "bad", sink=Broken(world))
        await world.reload("all", "bad")

    assert await world.run(reload) == DONE


async def test_a_reload_that_fails_does_not_cut_short_what_drains(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    world = World("all", "slow", lines=3, state_dir=tmp_path)
    world.scripts["slow"] = [5.0] * 3

    async def reload() -> None:
        await trio.sleep(1)
        await world.reload("all")
        (tmp_path / "routes" / "bad.db").mkdir()
        with pytest.raises(CannotReload):
            await world.reload("slow", "all", "bad")
        await trio.sleep(20)
        assert world.messages("slow") == ["1", "2", "3"]

    assert await world.run(reload) == DONE
    assert len(world.sinks["slow"]) == 1


async def test_a_route_that_comes_back_while_it_drains_goes_on_with_what_it_had(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    world = World("all", "slow", lines=3, state_dir=tmp_path)
    world.scripts["slow"] = [5.0]

    async def reload() -> None:
        await trio.sleep(1)
        await world.reload("all", **DISK)
        await trio.sleep(1)
        world.scripts["slow"] = []
        await world.reload("all", "slow", **DISK)
        await trio.sleep(1)
        assert world.messages("slow") == ["1", "2", "3"]

    world.daemon = Daemon(world.plan("all", "slow", **DISK))
    assert await world.run(reload) == DONE


async def test_what_a_reload_does_not_change_is_said(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World("all", api_options="here")
    words = "what has changed in `api` is not taken over: that needs a restart"

    async def reload() -> None:
        await world.reload("all", "more")
        assert words not in capsys.readouterr().out
        for _ in range(2):
            await world.reload("all", api_options="there")
            assert words in capsys.readouterr().out
        await world.reload("all", api_options="here")
        assert words not in capsys.readouterr().out

    assert await world.run(reload) == DONE


# --- routes that are taken out -------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["after the drain", "while it drains", "with a second signal"])
async def test_what_a_removed_route_could_not_deliver_is_lost_where_there_is_no_state(
    autojump_clock: trio.testing.MockClock, when: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World("all", "stuck", lines=3)
    world.scripts["stuck"] = [0.0, 3600.0]

    async def reload() -> None:
        await trio.sleep(1)
        await world.reload("all")
        if when == "after the drain":
            await trio.sleep(100)
        elif when == "with a second signal":
            world.daemon.stop()
            world.daemon.stop()

    assert await world.run(reload) == UNDELIVERED
    assert "records={'stuck': 2}" in capsys.readouterr().out


async def test_a_second_signal_waits_for_no_removed_route_whose_sink_hangs(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World("all", "stuck", lines=3, state_dir=tmp_path)
    world.scripts["stuck"] = [0.0, math.inf]

    async def close(_: StandInSink) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(StandInSink, "close", close)
    asked_at = math.nan

    async def reload() -> None:
        nonlocal asked_at
        await trio.sleep(1)
        await world.reload("all")
        await trio.sleep(1)
        world.daemon.stop()
        world.daemon.stop()
        asked_at = trio.current_time()

    assert await world.run(reload) == DONE
    assert trio.current_time() - asked_at <= 2 * HURRIED_WITHIN_S


@pytest.mark.parametrize("back", [True, False])
async def test_what_a_removed_route_could_not_deliver_is_not_lost_where_there_is_a_state(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, back: bool
) -> None:
    world = World("all", "stuck", lines=3, state_dir=tmp_path)
    world.scripts["stuck"] = [0.0, 3600.0]

    async def reload() -> None:
        await trio.sleep(1)
        await world.reload("all")
        await trio.sleep(100)
        world.scripts["stuck"] = []
        if back:
            await world.reload("all", "stuck")
            await trio.sleep(1)

    assert await world.run(reload) == DONE
    assert world.daemon._ending.undelivered == ({} if back else {"stuck": 2})


async def test_a_route_whose_sink_was_gone_is_started_anew_by_a_reload(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Nothing of its configuration has to change for that: whoever asks for it has mended something."""
    world = World("all", "gone", lines=3, state_dir=tmp_path)
    world.scripts["gone"] = [0.0, SinkGone("closed")]

    async def reload() -> None:
        await trio.sleep(1)
        assert world.messages("gone") == ["1"]
        world.scripts["gone"] = []
        assert str(world.route("gone").gone) == "closed"
        await world.reload("all", "gone")
        await world.daemon.router([batch(world.origin, [4])])
        await trio.sleep(1)
        assert world.messages("gone") == ["1", "4"]
        assert world.route("gone").statistics().up
        assert world.messages("all") == ["1", "2", "3", "4"]

    assert await world.run(reload) == DONE
    assert len(world.sinks["all"]) == 1


async def test_a_changed_fsync_is_taken_over(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    world = World("all", state_dir=tmp_path)

    def synchronous() -> int:
        database = world.route("all").state._database
        assert database is not None
        return int(database.execute("pragma synchronous").fetchone()[0])

    async def then() -> None:
        for durable, kept in ((False, 1), (True, 2), (False, 1)):
            plan = world.plan("all")
            await world.daemon.reload(
                msgspec.structs.replace(
                    plan, routes=[msgspec.structs.replace(each, durable=durable) for each in plan.routes]
                )
            )
            world.route("all").state.note(world.origin.key, position(1))
            await world.route("all").state.commit()
            assert synchronous() == kept

    assert await world.run(then) == DONE


# --- routes whose state cannot be opened yet -----------------------------------------------------------


class FullDisk:
    """A disk on which the states of some routes cannot be opened, until it has space."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.names = set(names)
        open_ = StateFile.open

        def refuse(file: StateFile) -> Contents:
            if file.path is not None and file.path.stem in self.names:
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise StateError.of("open", file.path, error)
            return open_(file)

        monkeypatch.setattr(StateFile, "open", refuse)


async def test_a_route_whose_disk_is_full_at_the_start_begins_when_there_is_space(
    autojump_clock: trio.testing.MockClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The others begin at once, health tells, and it goes on from its checkpoint."""
    first = World("all", "full", lines=3, state_dir=tmp_path)
    assert await first.run(partial(trio.sleep, 1)) == DONE
    disk = FullDisk(monkeypatch, "full")
    world = World("all", "full", lines=6, state_dir=tmp_path)

    async def then() -> None:
        await trio.sleep(12)
        health = health_of(world.daemon)
        assert not health.healthy
        assert health.routes["all"].delivers
        assert "database or disk is full; free some space" in health.routes["full"].reason
        assert stats_of(world.daemon).routes["full"].received == 0
        assert world.messages("all") == ["4", "5", "6"]
        disk.names.clear()
        await trio.sleep(OPEN_AGAIN_S)
        assert "full" in world.daemon.router.routes
        assert world.daemon.router.unopened == {}
        assert world.sources[-1].welcomed == 1
        assert health_of(world.daemon).healthy
        assert number_of(world.route("full").state.positions[world.origin.key]) == 3

    assert await world.run(then) == DONE
    said = capsys.readouterr().out
    assert "started degraded" in said
    assert "cannot open its state, trying again" in said
    assert "the route's state is open" in said


async def test_routes_that_are_opened_late_begin_together(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what is read for the first is not held any more for the others, which come seconds later."""
    disk = FullDisk(monkeypatch, "one", "two")
    world = World("one", "two", state_dir=tmp_path)
    known: list[set[str]] = []

    async def note(source: StandInSource) -> None:
        known.append(set(world.daemon.router.routes))

    monkeypatch.setattr(StandInSource, "welcome", note)

    async def then() -> None:
        await trio.sleep(2)
        disk.names.clear()
        await trio.sleep(2 * OPEN_AGAIN_S)

    assert await world.run(then) == DONE
    assert known == [{"one", "two"}]


async def test_a_reload_changes_and_removes_routes_that_are_not_open_yet(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch, "changed", "gone")
    world = World("all", "changed", "gone", state_dir=tmp_path)

    async def then() -> None:
        plan = world.plan("all", "changed")
        routes = [
            msgspec.structs.replace(each, options="others") if each.settings.name == "changed" else each
            for each in plan.routes
        ]
        await world.daemon.reload(msgspec.structs.replace(plan, routes=routes))
        assert list(world.daemon.router.unopened) == ["changed"]
        disk.names.clear()
        await trio.sleep(2 * OPEN_AGAIN_S)
        assert set(world.daemon.router.routes) == {"all", "changed"}
        # The one that it was made with is never opened: it might hang.
        assert [[what for _, what in sink.calls] for sink in world.sinks["changed"]] == [[], ["open"]]

    assert await world.run(then) == DONE


async def test_a_reload_before_a_route_is_open_decides_what_it_takes_and_where_it_begins(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch, "late")
    world = World("all", "late", lines=3, state_dir=tmp_path)
    taken: list[list[str]] = []

    async def note(source: StandInSource) -> None:
        taken.append([route.name for route in world.daemon.router.routes_of(world.origin)])

    monkeypatch.setattr(StandInSource, "welcome", note)

    async def then() -> None:
        plan = world.plan("all", "late", options="others")
        settings = RouteSettings("late", Match.parse({"container": "db"}), start="beginning")
        routes = [plan.routes[0], msgspec.structs.replace(plan.routes[1], settings=settings)]
        await world.daemon.reload(msgspec.structs.replace(plan, routes=routes))
        disk.names.clear()
        await trio.sleep(2 * OPEN_AGAIN_S)
        assert taken == [["all"], ["all"]]
        assert world.route("late").settings == settings

    assert await world.run(then) == DONE


async def test_the_daemon_waits_for_a_route_that_is_not_open_yet_when_all_other_sinks_are_gone(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch, "full")
    world = World("gone", "full", lines=3, state_dir=tmp_path)
    world.scripts["gone"] = [SinkGone("closed")]

    async def then() -> None:
        await trio.sleep(20)
        assert world.code is None
        disk.names.clear()
        await trio.sleep(OPEN_AGAIN_S)
        await world.daemon.router([batch(world.origin, [4])])
        await trio.sleep(1)
        assert world.messages("full") == ["4"]

    assert await world.run(then) == DONE


async def test_a_route_that_is_opened_late_is_up_since_then(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch, "full")
    world = World("all", "full", state_dir=tmp_path)

    async def then() -> None:
        down = world.daemon.router.unopened["full"].statistics()
        disk.names.clear()
        before = time.time()
        await trio.sleep(OPEN_AGAIN_S + 1)
        up = world.route("full").statistics()
        assert (down.up, up.up) == (False, True)
        assert down.since < before <= up.since

    assert await world.run(then) == DONE


@pytest.mark.parametrize("busy_s", [0.0, 30.0])
async def test_a_changed_match_is_followed_at_once_also_while_the_old_sink_is_busy(
    autojump_clock: trio.testing.MockClock, busy_s: float
) -> None:
    world = World("all", lines=1)
    world.scripts["all"] = [busy_s]

    async def change(match: Match) -> None:
        plan = world.plan("all")
        settings = msgspec.structs.replace(plan.routes[0].settings, match=match)
        routes = [msgspec.structs.replace(plan.routes[0], settings=settings)]
        await world.daemon.reload(msgspec.structs.replace(plan, routes=routes))

    async def then() -> None:
        await trio.sleep(1)
        await change(Match.parse({"container": "db"}))
        await world.daemon.router([batch(world.origin, [2])])
        assert world.daemon.router.unmatched == 1
        assert world.route("all").statistics().received == 1
        await change(EVERYTHING)
        await world.daemon.router([batch(world.origin, [3])])
        assert world.route("all").statistics().received == 2
        await trio.sleep(60)
        assert world.messages("all")[-1] == "3"

    assert await world.run(then) == DONE


async def test_with_once_a_full_disk_is_an_error(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FullDisk(monkeypatch, "all")
    assert await World("all", state_dir=tmp_path, once=True).daemon.run() == FAILED
