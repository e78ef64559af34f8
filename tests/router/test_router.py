"""Handing sweeps to routes, and routes their checkpoints."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from logroute.router import router as module
from logroute.router.books import Gaps
from logroute.router.database import StateError
from logroute.router.match import EVERYTHING, Match
from logroute.router.position import BEGINNING, Place, Position, StreamPosition
from logroute.router.record import Batch, Origin, Record, Stream
from logroute.router.route import Route, RouteSettings
from logroute.router.router import Router
from logroute.router.state import RouteState
from logroute.router.times import iso_time
from logroute.sinks import SinkGone
from logroute.sources import Lost, Start
from tests.router.stand_ins import StandInSink, batch, inline, number_of, origin, position

pytestmark = pytest.mark.usefixtures("no_threads")

WEB, DB = origin("web"), origin("db")
NOW = "2026-11-23T20:06:26.000000000Z"
MUCH = 1 << 30


@pytest.fixture(autouse=True)
def _undecided() -> None:
    WEB.takers = DB.takers = None


def add(router: Router, name: str, match: Any = None, **changes: Any) -> Route:
    route = Route(
        RouteSettings(name, EVERYTHING if match is None else Match.parse(match), **changes),
        StandInSink,
        state_folder=None,
        on_room=router.room_again,
    )
    router.add(route)
    return route


def sink_of(route: Route) -> StandInSink:
    assert isinstance(route.sink, StandInSink)
    return route.sink


async def opened(router: Router) -> Router:
    for route in router.routes.values():
        await route.open()
    return router


async def received(route: Route) -> list[Batch]:
    """What waits in a route's queue."""
    route.queue.close()
    group = await route.queue.take(MUCH, MUCH, 0)
    return group.batches if group is not None else []


def messages(batches: Sequence[Batch]) -> list[str]:
    return [record.message for each in batches for record in each.records]


# --- who gets what ----------------------------------------------------------------------------------


async def test_each_route_gets_what_it_matches_as_one_list_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    puts: list[str] = []
    put = Route.put

    def note(route: Route, batches: Sequence[Batch]) -> None:
        puts.append(route.name)
        put(route, batches)

    monkeypatch.setattr(Route, "put", note)
    router = Router()
    everything, web = add(router, "everything"), add(router, "web", {"container": "web"})
    nothing = add(router, "nothing", {"container": "other"})
    await router([batch(WEB, [1, 2]), batch(DB, [1]), batch(WEB, [3])])
    assert sorted(puts) == ["everything", "web"]
    assert messages(await received(everything)) == ["1", "2", "1", "3"]
    assert messages(await received(web)) == ["1", "2", "3"]
    assert await received(nothing) == []
    assert router.unmatched == 0


async def test_what_no_route_takes_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    router = Router()
    add(router, "errors", {"container": "web", "stream": "stderr"})
    await router([batch(WEB, [1, 2]), batch(WEB, [3], "stderr"), batch(DB, [1, 2, 3, 4])])
    assert router.unmatched == 2 + 4


async def test_a_route_of_one_stream_gets_the_positions_of_both() -> None:
    """So that a restart does not read again what the route will never take."""
    router = Router()
    errors = add(router, "errors", {"stream": "stderr"})
    mixed = Batch(
        WEB,
        [Record("1", "stdout", NOW), Record("2", "stderr", NOW), Record("3", "stdout", NOW)],
        before=position(0, 0),
        after=position(3, 2),
        size_bytes=300,
    )
    await router([mixed, batch(WEB, [4, 5], other=2)])
    first, second = await received(errors)
    assert (messages([first]), messages([second])) == (["2"], [])
    assert (number_of(first.after), number_of(first.after, "stderr")) == (3, 2)
    assert number_of(second.after) == 5
    assert first.size_bytes == 100


async def test_routes_decide_once_per_origin_and_again_when_there_is_a_new_route(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decided: list[str] = []
    decide = Match.decide

    def note(match: Match, of: Origin) -> frozenset[Stream]:
        decided.append(of.name)
        return decide(match, of)

    monkeypatch.setattr(Match, "decide", note)
    router = Router()
    add(router, "one")
    for _ in range(3):
        await router([batch(WEB, [1])])
    assert decided == ["web"]
    two = add(router, "two")
    await router([batch(WEB, [2])])
    assert decided == ["web"] * 3
    assert messages(await received(two)) == ["2"]


async def test_a_container_that_is_renamed_is_decided_anew_and_keeps_its_checkpoint() -> None:
    router = Router()
    add(router, "web", {"container": "web"})
    await opened(router)
    await router.meet({WEB: Start("", position(7))})
    renamed = Origin(WEB.key, "docker", id=WEB.id, name="web-old")
    assert await router.meet({renamed: Start("", BEGINNING)}) == {renamed: {}}
    again = Origin(WEB.key, "docker", id=WEB.id, name="web")
    found = await router.meet({again: Start("", BEGINNING)})
    assert number_of(found[again]["web"]) == 7


# --- room -------------------------------------------------------------------------------------------


async def test_a_full_queue_holds_back_the_logs_that_it_takes_and_no_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    router = Router()
    web = add(router, "web", {"container": "web"}, queue_bytes=100)
    add(router, "everything")
    assert router.has_room(WEB)
    await router([batch(WEB, [1, 2])])
    assert (router.has_room(WEB), router.has_room(DB)) == (False, True)
    waited = trio.Event()

    async def wait() -> None:
        await router.wait_for_room()
        waited.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not waited.is_set()
        await web.queue.take(MUCH, MUCH, 0)
        await waited.wait()
    assert router.has_room(WEB)


def expected(router: Router, name: str, match: Any = None) -> Route:
    """A route whose state cannot be opened yet."""
    route = Route(
        RouteSettings(name, EVERYTHING if match is None else Match.parse(match)),
        StandInSink,
        state_folder=None,
        on_room=router.room_again,
    )
    router.expect(route)
    return route


async def test_what_only_a_route_that_is_not_open_yet_will_take_is_not_read() -> None:
    router = Router()
    late = expected(router, "late", {"container": "web"})
    assert (router.has_room(WEB), router.has_room(DB)) == (False, True)
    found = await router.meet({WEB: Start("", position(7)), DB: Start("", position(7))})
    assert found == {WEB: {"": BEGINNING}, DB: {}}
    late.replace(RouteSettings("late", Match.parse({"container": "db"})), StandInSink)
    router.changed("late")
    assert (router.has_room(WEB), router.has_room(DB)) == (True, False)
    other = add(router, "other")
    assert router.has_room(DB)
    other.gone = SinkGone("closed")
    assert not router.has_room(DB)
    router.expect_no_more("late")
    assert router.has_room(DB)


async def test_a_label_names_routes_that_are_not_open_yet(capsys: pytest.CaptureFixture[str]) -> None:
    router = Router()
    add(router, "open")
    expected(router, "late")
    labelled = Origin("docker:l", "docker", id="l" * 64, name="l", labels={"logroute.routes": "late"})
    assert router.routes_of(labelled) == []
    assert not router.has_room(labelled)
    assert "there is no route" not in capsys.readouterr().out


async def test_a_route_whose_sink_is_gone_holds_nothing_back_and_what_comes_for_it_is_counted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    router = Router()
    gone = add(router, "gone", queue_bytes=100)
    other = add(router, "other")
    await opened(router)
    await router([batch(WEB, [1, 2])])
    assert not router.has_room(WEB)
    sink_of(gone).down = SinkGone("closed")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(router.wait_for_room)
        nursery.start_soon(gone.run)
    assert router.has_room(WEB)
    await router([batch(WEB, [3])])
    assert gone.statistics().received == 3
    assert gone.statistics().dropped == {"gone": 3}
    assert messages(await received(other)) == ["1", "2", "3"]


async def test_a_sink_that_fails_does_not_delay_its_neighbour(autojump_clock: trio.testing.MockClock) -> None:
    router = Router()
    bad, good = add(router, "bad"), add(router, "good")
    await opened(router)
    sink_of(bad).script = [RuntimeError("no")] * 5 + [1000.0]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bad.run)
        nursery.start_soon(good.run)
        for number in range(1, 11):
            await router([batch(WEB, [number])])
            await trio.testing.wait_all_tasks_blocked()
            assert good.statistics().delivered == number
        assert bad.statistics().delivered == 0
        bad.queue.close()
        good.queue.close()
    assert sink_of(bad).messages == sink_of(good).messages == [str(n) for n in range(1, 11)]


# --- where reading begins ---------------------------------------------------------------------------

BORN = 1_000_000_000.0
LATER = BORN + 5000
OLDER, YOUNGER = iso_time(int((BORN - 100) * 1e9)), iso_time(int((BORN + 100) * 1e9))
SOURCE_SAYS = position(stdout=7)


@pytest.mark.parametrize(
    ("start", "created", "expected"),
    [
        (None, OLDER, SOURCE_SAYS),
        (None, YOUNGER, BEGINNING),
        (None, "", SOURCE_SAYS),
        ("now", OLDER, Position(since=iso_time(int(LATER * 1e9)))),
        ("now", YOUNGER, BEGINNING),
        ("beginning", OLDER, BEGINNING),
        ("beginning", YOUNGER, BEGINNING),
        (3600.0, OLDER, Position(since=iso_time(int((LATER - 3600) * 1e9)))),
        (3600, OLDER, Position(since=iso_time(int((LATER - 3600) * 1e9)))),
        (3600.0, YOUNGER, BEGINNING),
    ],
)
async def test_where_a_route_begins_with_a_container_that_it_has_never_met(
    monkeypatch: pytest.MonkeyPatch, start: str | float | None, created: str, expected: Position
) -> None:
    """What came while we were away is wanted whole; what was there before the route, as `start` says."""
    router = Router()
    route = add(router, "all", start=start)
    await opened(router)
    route.state.born = BORN
    monkeypatch.setattr(time, "time", lambda: LATER)
    monkeypatch.setattr(time, "time_ns", lambda: int(LATER * 1e9))
    found = await router.meet({WEB: Start(created, SOURCE_SAYS)})
    assert found == {WEB: {"all": expected}}
    assert route.state.positions == {WEB.key: expected}
    # From then on it is the checkpoint that counts.
    assert await router.meet({WEB: Start(YOUNGER, BEGINNING)}) == {WEB: {"all": expected}}


@pytest.mark.parametrize("now", [LATER, BORN - 50])
@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("start", [None, "now", 3600])
async def test_a_clock_that_was_set_back_takes_nothing_of_what_came_after_the_route(
    monkeypatch: pytest.MonkeyPatch, start: str | float | None, new: bool, now: float
) -> None:
    """Who saw it come says so; else the route's time is one that has not come yet."""
    router = Router()
    route = add(router, "all", start=start)
    await opened(router)
    route.state.born = BORN
    monkeypatch.setattr(time, "time", lambda: now)
    found = await router.meet({WEB: Start(OLDER, SOURCE_SAYS, new)})
    assert (found == {WEB: {"all": BEGINNING}}) == (new or now < BORN)


class Reading:
    """Whoever reads a log that it can read again."""

    cheap = True

    def __init__(self, *routes: str) -> None:
        self.routes = frozenset(routes) or None


class FullDisk:
    """The state of some routes cannot be stored, as long as there is something in `failures`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *routes: str) -> None:
        self.failures: list[Exception] = [StateError("no space")] * 1_000_000
        commit = RouteState.commit

        async def fail(state: RouteState) -> None:
            if state.route in routes and self.failures:
                await trio.lowlevel.checkpoint()
                raise self.failures.pop(0)
            await commit(state)

        monkeypatch.setattr(RouteState, "commit", fail)


@pytest.mark.parametrize("failure", [StateError("no space"), RuntimeError("odd")])
async def test_where_a_route_begins_is_stored_before_anything_is_read_for_it(
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Others do not wait for that: for this one the log is read apart, when it is stored."""
    router = Router()
    bad, good = add(router, "bad"), add(router, "good")
    await opened(router)
    disk = FullDisk(monkeypatch, "bad")
    disk.failures[0] = failure
    found = await router.meet({WEB: Start("", position(3)), DB: Start("", position(4))})
    assert trio.current_time() == 0
    assert found[WEB] == {"bad": position(3), "good": position(3)}
    assert "cannot store a checkpoint, trying again before reading" in capsys.readouterr().out

    live, apart = Reading(), Reading("bad")
    assert router.has_room(WEB, live)
    first = batch(WEB, [4])
    first.reader = live
    (behind,) = await router([first])
    assert (behind.reader, behind.route, behind.position) == (live, "bad", position(3))
    second = batch(WEB, [5])
    second.reader = live
    assert await router([second]) == []
    assert (bad.queue.records, good.queue.records) == (0, 2)
    assert not router.has_room(WEB, apart)
    assert bad.statistics().hindrance == (
        f"{failure}: a crash now would deliver again; new logs that are not read for it yet: 2"
    )
    assert good.statistics().hindrance == ""

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bad.run)
        await trio.sleep(10)
        assert not router.has_room(WEB, apart)
        # Its neighbours do not wait for it again and again, either.
        nursery.start_soon(router.wait_for_room)
        await trio.testing.wait_all_tasks_blocked()
        disk.failures.clear()
        await trio.sleep(2)
        assert router.has_room(WEB, apart)
        assert bad.statistics().hindrance == ""
        bad.queue.close()
    assert good.state._database is not None
    assert good.state._database.execute("select count(*) from checkpoints").fetchone() == (2,)


async def test_a_log_that_cannot_be_read_again_waits_until_it_is_stored_where_routes_begin(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = Router()
    bad = add(router, "bad")
    await opened(router)
    disk = FullDisk(monkeypatch, "bad")
    await router.meet({WEB: Start("", position(3))})
    assert not router.has_room(WEB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bad.run)
        nursery.start_soon(router, [batch(WEB, [4])])
        await trio.sleep(10)
        assert bad.statistics().received == 0
        disk.failures.clear()
        await trio.sleep(2)
        assert router.has_room(WEB)
        assert bad.statistics().received == 1
        bad.queue.close()


async def test_a_route_that_comes_late_and_cannot_store_where_it_begins_holds_up_nobody(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    web, db = origin("web"), origin("db")
    router = Router()
    good = add(router, "good")
    await opened(router)
    await router.meet({web: Start("", position(3))})
    late = Route(RouteSettings("late"), StandInSink, state_folder=None, on_room=router.room_again)
    await late.open()
    router.add(late, late=True)
    FullDisk(monkeypatch, "late")
    live = Reading()
    first = batch(web, [4])
    first.reader = live
    (behind,) = await router([first])
    assert (behind.route, behind.position) == ("late", position(3))
    assert await router.meet_late(db, position(1)) == {}
    second = batch(db, [2])
    second.reader = live
    (behind,) = await router([second])
    assert (behind.route, behind.position) == ("late", position(1))
    assert (late.statistics().received, good.statistics().received) == (0, 2)


async def test_a_source_that_begins_again_reads_nothing_again_of_what_is_delivered() -> None:
    """A sink that minds no order has it, and an older delivery is still under way."""
    router = Router()
    route = add(router, "all")
    await opened(router)
    await router.meet({WEB: Start("", BEGINNING), DB: Start("", BEGINNING)})
    await router([batch(WEB, [1]), batch(DB, [7])])
    groups = [await route.queue.take(MUCH, 1, 0) for _ in range(2)]
    assert groups[1] is not None
    route.queue.finish(groups[1])
    found = await router.meet({WEB: Start("", BEGINNING), DB: Start("", BEGINNING)})
    assert {of.name: number_of(places["all"]) for of, places in found.items()} == {"web": 1, "db": 7}
    router.gone(WEB)
    router.gone(DB)
    assert router.vanished(route) == ["web"]  # nothing of the other waits


def read_by(reader: Any, of: Origin, numbers: Sequence[int]) -> Batch:
    made = batch(of, numbers)
    made.reader = reader
    return made


async def come_late(router: Router, checkpoint: Position | None = None) -> Route:
    late = Route(RouteSettings("late"), StandInSink, state_folder=None, on_room=router.room_again)
    await late.open()
    if checkpoint is not None:
        late.state.note(WEB.key, checkpoint)
    router.add(late, late=True)
    return late


@pytest.mark.parametrize("silent", [True, False])
async def test_a_route_that_comes_late_and_has_been_there_before_goes_on_at_its_checkpoint(
    silent: bool,
) -> None:
    router = Router()
    add(router, "good")
    await opened(router)
    await router.meet({WEB: Start("", position(7))})
    late = await come_late(router, position(3))
    if silent:
        assert await router.meet_late(WEB, position(7)) == {"late": position(3)}
        assert await router.meet_late(WEB, position(7)) == {}
        assert await router([read_by(Reading(), WEB, [8])]) == []
    else:
        (behind,) = await router([read_by(Reading(), WEB, [8])])
        assert (behind.route, behind.position) == ("late", position(3))
    assert late.statistics().received == 0
    assert number_of(late.state.positions[WEB.key]) == 3
    router.joined(WEB, ["late"])
    assert await router([read_by(Reading(), WEB, [9])]) == []
    assert late.statistics().received == 1


async def test_a_route_that_comes_late_to_a_log_that_cannot_be_read_again_begins_there() -> None:
    router = Router()
    await router.meet({WEB: Start("", position(7))})
    late = await come_late(router, position(3))
    assert await router([batch(WEB, [8])]) == []
    assert late.statistics().received == 1


def at(offset: int) -> Position:
    place = Place("f", offset)
    return Position(StreamPosition(place), StreamPosition(place))


async def test_a_route_that_comes_late_and_is_further_than_the_live_reader_is_apart_until_it_joins() -> None:
    """The source knows which of them is further: `test_catching_up` has that."""
    router = Router()
    good = add(router, "good")
    await opened(router)
    await router.meet({WEB: Start("", at(10))})
    late = await come_late(router, at(30))

    def line(before: int, after: int) -> Batch:
        made = Batch(WEB, [Record("x", "stdout", NOW)], before=at(before), after=at(after), size_bytes=100)
        made.reader = Reading()
        return made

    assert await router.meet_late(WEB, at(10)) == {"late": at(30)}
    assert await router([line(10, 20)]) == []
    assert await router([line(20, 30), line(30, 40)]) == []
    assert (good.statistics().received, late.statistics().received) == (3, 0)
    router.joined(WEB, ["late"])
    assert await router([line(40, 50)]) == []
    assert (good.statistics().received, late.statistics().received) == (4, 1)


async def test_a_match_that_changes_is_followed_and_what_it_did_not_take_meanwhile_comes_later() -> None:
    router = Router()
    add(router, "good")
    route = add(router, "all")
    await opened(router)
    await router.meet({WEB: Start("", position(1))})
    reader = Reading()

    def change(match: Match) -> None:
        route.replace(RouteSettings("all", match), StandInSink)
        router.changed("all")

    await router([read_by(reader, WEB, [2])])
    change(Match.parse({"container": "w*"}))
    assert await router([read_by(reader, WEB, [3])]) == []
    assert route.statistics().received == 2
    change(Match.parse({"container": "db"}))
    assert await router.meet_late(WEB, position(3)) == {}
    assert await router([read_by(reader, WEB, [4])]) == []
    assert route.statistics().received == 2
    change(EVERYTHING)
    # Further than its checkpoint, because some still wait.
    assert await router.meet_late(WEB, position(4)) == {"all": position(3)}


async def test_an_origin_that_no_route_takes_has_no_checkpoints() -> None:
    router = Router()
    route = add(router, "web", {"container": "web"})
    await opened(router)
    assert await router.meet({DB: Start("", position(1))}) == {DB: {}}
    assert route.state.positions == {}


async def test_an_origin_that_is_met_is_gone_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    router = Router()
    routes = [add(router, "one"), add(router, "two")]
    await opened(router)
    await router.meet({WEB: Start("", position(1))})

    def gone() -> list[object]:
        query = "select gone is not null from checkpoints"
        return [route.state._database.execute(query).fetchone()[0] for route in routes]  # type: ignore[union-attr]

    async def commit() -> None:
        for route in routes:
            await route.state.commit()

    router.gone(WEB)
    await commit()
    assert gone() == [1, 1]
    await router.meet({WEB: Start("", position(1))})
    await commit()
    assert gone() == [0, 0]


async def test_of_origins_that_are_gone_only_those_are_remembered_of_which_something_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MANY_VANISHED", 10)
    router = Router()
    all_, web = add(router, "all"), add(router, "web", {"container": "web"})
    await opened(router)
    await router([batch(WEB, [1]), batch(DB, [1])])
    router.gone(WEB)
    for number in range(1000):
        router.gone(origin(f"short-{number}"))
    assert (router.vanished(all_), router.vanished(web)) == (["web"], ["web"])
    assert len(router._vanished) < 20
    router.gone(DB)
    assert (router.vanished(all_), router.vanished(web)) == (["db", "web"], ["web"])
    await router.meet({WEB: Start("", position(1))})
    assert (router.vanished(all_), router.vanished(web)) == (["db"], [])


async def test_what_is_lost_is_counted_by_route_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    router = Router()
    one, two = add(router, "one"), add(router, "two", {"container": "web"})
    router.lost(WEB, Lost(("one",), "rotated", "b", "c", 100))
    router.lost(WEB, Lost(("one",), "rotated", "a", "b"))
    router.lost(WEB, Lost((), "removed"))
    router.lost(DB, Lost((), "removed", size_bytes=7))
    rotated = Gaps(gaps=2, bytes=100, of_unknown_size=1, since="a", until="c")
    assert one.statistics().lost == {"rotated": rotated, "removed": Gaps(2, 7, 1)}
    assert two.statistics().lost == {"removed": Gaps(1, 0, 1)}
    assert str(rotated) == "2 of 100 bytes, 1 of unknown size, since a until c"
    assert str(Gaps(1, 1000)) == "1 of 1,000 bytes"
    assert str(Gaps(1, 0, 1, since="a")) == "1 of unknown size, since a"
    said = capsys.readouterr().out
    assert "records are lost: they were gone before they could be read" in said
    assert "since=a until=b" in said


async def test_what_the_live_reader_has_lost_when_it_goes_on_is_counted_for_its_routes() -> None:
    """A log that could not be read on is opened again where the live reader was: that has no route's name."""
    router = Router()
    live, apart = add(router, "live"), add(router, "apart")
    router.apart(WEB, {"apart": position(1)})
    router.lost(WEB, Lost(("",), "rotated", "a", "b", 100))
    assert live.statistics().lost == {"rotated": Gaps(1, 100, 0, "a", "b")}
    assert apart.statistics().lost == {}


async def test_what_is_lost_for_a_removed_route_is_not_counted_for_one_of_its_name() -> None:
    router = Router()
    add(router, "one")
    router.remove("one")
    back = add(router, "one")
    router.lost(WEB, Lost(("one",), "rotated", "a", "b", 100))
    assert back.statistics().lost == {}


# --- routes that are behind each other --------------------------------------------------------------

BOTH: tuple[Stream, Stream] = ("stdout", "stderr")


async def test_a_route_gets_nothing_of_what_it_has_acknowledged() -> None:
    router = Router()
    ahead, behind = add(router, "ahead"), add(router, "behind")
    await opened(router)
    ahead.state.note(WEB.key, position(9, 4))
    acknowledged = {"ahead": frozenset(BOTH)}
    await router([batch(WEB, [1, 2], acknowledged=acknowledged)])
    await router([batch(WEB, [3], "stderr", other=2, acknowledged={"ahead": frozenset(("stdout",))})])
    (part,) = await received(ahead)
    assert messages([part]) == ["3"]
    # Of stdout it knows more than this batch does.
    assert (number_of(part.after), number_of(part.after, "stderr")) == (9, 3)
    assert messages(await received(behind)) == ["1", "2", "3"]


@given(
    streams=st.lists(st.sampled_from(BOTH), min_size=1, max_size=30),
    cuts=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=4),
    matches=st.lists(st.sampled_from([None, "stdout", "stderr"]), min_size=4, max_size=4),
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=10),
    fails=st.lists(st.booleans(), max_size=10),
)
@settings(deadline=None, max_examples=150)
def test_whatever_the_checkpoints_every_route_gets_every_record_behind_its_own_once_and_in_order(
    streams: list[Stream],
    cuts: list[tuple[int, int]],
    matches: list[str | None],
    lengths: list[int],
    fails: list[bool],
) -> None:
    """One log, several routes, each with a checkpoint per stream; reading begins at the lowest.

    Record n stands at index n - 1; a cut of k means that the records of that stream below index k have been
    acknowledged. As the reader does it, batches end where a cut is, and say what which route has already.
    """
    log = list(enumerate(streams, 1))
    by_route = {f"r{i}": dict(zip(BOTH, cut, strict=True)) for i, cut in enumerate(cuts)}

    def where(upto: Mapping[Stream, int]) -> Position:
        last = {s: max((n for n, t in log if t == s and n <= upto[s]), default=0) for s in BOTH}
        return position(last["stdout"], last["stderr"])

    async def main() -> None:
        WEB.takers = None
        router = Router()
        for (name, cut), stream in zip(by_route.items(), matches, strict=False):
            route = add(router, name, {"stream": stream} if stream else None, retry_max_s=0.1)
            sink_of(route).script = [RuntimeError() if fail else 0.01 for fail in fails]
            await route.open()
            route.state.note(WEB.key, where(cut))
        ends = sorted({k for cut in cuts for k in cut if k < len(log)} | {len(log)})
        index, more = min(min(cut) for cut in cuts), list(lengths)
        async with trio.open_nursery() as nursery:
            for route in router.routes.values():
                nursery.start_soon(route.run)
            while index < len(log):
                end = next(each for each in ends if each > index)
                if more:
                    end = min(end, index + more.pop())
                part = [Record(str(n), stream, NOW) for n, stream in log[index:end]]
                done = {name: frozenset(s for s in BOTH if cut[s] > index) for name, cut in by_route.items()}
                await router(
                    [
                        Batch(
                            WEB,
                            part,
                            before=where(dict.fromkeys(BOTH, index)),
                            after=where(dict.fromkeys(BOTH, end)),
                            size_bytes=1,
                            acknowledged={name: s for name, s in done.items() if s} or None,
                        )
                    ]
                )
                index = end
            for route in router.routes.values():
                route.queue.close()
        for (name, cut), wanted in zip(by_route.items(), matches, strict=False):
            route = router.routes[name]
            expected = [str(n) for n, s in log if n > cut[s] and wanted in (None, s)]
            assert sink_of(route).messages == expected
            ahead = {s: max(cut[s], len(log)) for s in BOTH}
            assert route.state.positions[WEB.key] == where(ahead)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio.to_thread, "run_sync", inline)
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_records_are_taken_by_what_they_say() -> None:
    router = Router()
    routes = {
        "even": add(router, "even", {"message": "/[02468]$/"}),
        "three": add(router, "three", {"message": "*3*", "stream": "stdout"}),
        "db": add(router, "db", {"container": "db", "message": "*"}),
    }
    await opened(router)
    await router([batch(WEB, [1, 2, 3, 4]), batch(DB, [5, 6])])
    await router([batch(WEB, [33], "stderr", other=4), batch(WEB, [7, 9])])
    got = {name: await received(route) for name, route in routes.items()}
    assert {name: messages(batches) for name, batches in got.items()} == {
        "even": ["2", "4", "6"],
        "three": ["3"],
        "db": ["5", "6"],
    }
    # 1 of web, 33 because of its stream, 7 and 9.
    assert router.unmatched == 4
    # What nobody takes is behind the checkpoint all the same.
    assert {number_of(each.after) for each in got["even"] if each.origin is WEB} == {4, 9}
    assert routes["even"].statistics().received == 3


async def test_what_a_route_has_not_acknowledged_is_chosen_from_as_well() -> None:
    router = Router()
    route = add(router, "even", {"message": "/[02468]$/"})
    await opened(router)
    both = batch(WEB, [1, 2, 3, 4], acknowledged={"even": frozenset({"stderr"})})
    both.lines[1].stream = "stderr"
    await router([both])
    assert messages(await received(route)) == ["4"]


async def test_routes_that_choose_alike_share_what_is_chosen() -> None:
    router = Router()
    one = add(router, "one", {"message": "/[24]$/"})
    two = add(router, "two", {"message": "/[24]$/"})
    await opened(router)
    await router([batch(WEB, [1, 2, 3, 4])])
    [first], [second] = await received(one), await received(two)
    assert first is second
    assert messages([first]) == ["2", "4"]
