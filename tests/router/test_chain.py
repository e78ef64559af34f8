"""Chains: what processors are given, what they may change, and what is counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import pytest
import structlog
import trio.testing

from logroute.cli import log
from logroute.processors import Processor, ProcessorOptions
from logroute.router import regex
from logroute.router.chain import PIECE, Chains, StagePlan
from logroute.router.match import EVERYTHING, Match
from logroute.router.record import Batch, DetailedRecord, Record, detailed
from logroute.router.router import Router
from logroute.router.watch import Watch
from tests.router.stand_ins import batch, number_of, origin
from tests.router.test_router import add, messages, opened, received

pytestmark = pytest.mark.usefixtures("no_threads")

WEB, DB = origin("web"), origin("db")


@pytest.fixture(autouse=True)
def _undecided() -> None:
    WEB.takers = DB.takers = None


class StandInOptions(ProcessorOptions):
    type: Literal["stand_in"] = "stand_in"


Work = Callable[[list[Record]], list[Record]]


class StandIn(Processor[StandInOptions]):
    """Does with each list of records what it was told to."""

    def __init__(self, work: Work) -> None:
        super().__init__(StandInOptions())
        self.given: list[list[Record]] = []
        self._work = work

    def apply(self, batch: Batch) -> Batch | None:
        self.given.append(list(batch.records))
        records = self._work(batch.records)
        return batch.with_records(records) if records else None


class Chooses(StandIn):
    changes: ClassVar[bool] = False


class Joins(StandIn):
    separable: ClassVar[bool] = False


def plan(
    name: str, work: Work, *, match: Any = None, separable: bool = True, cls: type[StandIn] = StandIn
) -> StagePlan:
    parsed = EVERYTHING if match is None else Match.parse(match)
    return StagePlan(name, parsed, lambda: cls(work), f"{name} {match}", separable=separable)


def shout(records: list[Record]) -> list[Record]:
    for record in records:
        record.message += "!"
    return records


def odd(records: list[Record]) -> list[Record]:
    return [record for record in records if int(record.message.rstrip("!")) % 2]


def twice(records: list[Record]) -> list[Record]:
    return [
        each
        for record in records
        for each in (record, DetailedRecord(record.message + "b", record.stream, record.time, part=".1"))
    ]


def books(chains: Chains) -> dict[str, tuple[int, int, int, int]]:
    return {
        stage.plan.name: (b.records_in, b.records_out, b.filtered, b.failed)
        for stage in chains.stages
        if (b := stage.books)
    }


async def through(chains: Chains, given: Batch) -> list[str]:
    return messages([await chains.before.apply(given, {})])


async def test_stages_follow_each_other_and_are_counted() -> None:
    chains = Chains([plan("odd", odd, cls=Chooses), plan("shout", shout)])
    given = batch(WEB, [1, 2, 3])
    made = await chains.before.apply(given, {})
    assert messages([made]) == ["1!", "3!"]
    assert (made.after, made.before) == (given.after, given.before)
    assert books(chains) == {"odd": (3, 2, 1, 0), "shout": (2, 2, 0, 0)}


async def test_where_nothing_is_left_the_position_still_is() -> None:
    chains = Chains([plan("none", lambda records: [], cls=Chooses), plan("shout", shout)])
    made = await chains.before.apply(batch(WEB, [1, 2]), {})
    assert (len(made), number_of(made.after)) == (0, 2)
    assert books(chains) == {"none": (2, 0, 2, 0), "shout": (0, 0, 0, 0)}


async def test_a_condition_on_the_container_lets_others_pass_by() -> None:
    chains = Chains([plan("shout", shout, match={"container": "db"})])
    assert await through(chains, batch(WEB, [1])) == ["1"]
    assert await through(chains, batch(DB, [1])) == ["1!"]
    assert books(chains) == {"shout": (1, 1, 0, 0)}


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (shout, ["1", "2!", "3", "4!", "5"]),
        (odd, ["1", "3", "5"]),
        (twice, ["1", "2", "2b", "3", "4", "4b", "5"]),
        (lambda records: [], ["1", "3", "5"]),
        (lambda records: records[1:], ["1", "3", "4", "5"]),
        (
            lambda records: [DetailedRecord("new", "stdout", records[0].time) for _ in records],
            ["1", "new", "3", "new", "5"],
        ),
    ],
)
async def test_what_a_condition_on_records_leaves_out_stays_in_its_place(
    work: Work, expected: list[str]
) -> None:
    chains = Chains([plan("some", work, match={"message": ["2", "4"]})])
    assert await through(chains, batch(WEB, [1, 2, 3, 4, 5])) == expected
    [(given, out, filtered, _)] = books(chains).values()
    assert given == out + filtered


async def test_a_processor_that_raises_lets_the_records_go_on_as_they_were() -> None:
    def fail(records: list[Record]) -> list[Record]:
        raise ZeroDivisionError

    chains = Chains([plan("broken", fail), plan("shout", shout)])
    assert await through(chains, batch(WEB, [1, 2])) == ["1!", "2!"]
    assert books(chains) == {"broken": (2, 2, 0, 2), "shout": (2, 2, 0, 0)}


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, BaseException, KeyboardInterrupt])
async def test_nothing_that_a_processor_raises_ends_anything_else(error: type[BaseException]) -> None:
    """A panic in Rust is a BaseException, and an interrupt may be the function's own."""

    def fail(records: list[Record]) -> list[Record]:
        raise error

    watch = Watch()
    watch.receives_interrupts = True
    chains = Chains([plan("broken", fail), plan("shout", shout)], watch=watch)
    assert await through(chains, batch(WEB, [1, 2])) == ["1!", "2!"]
    assert books(chains)["broken"] == (2, 2, 0, 2)
    assert chains.stages[0].raised == error.__name__


async def test_the_log_says_where_in_its_code_a_processor_has_failed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def divide(records: list[Record]) -> list[Record]:
        raise ZeroDivisionError("\x1b[2J" + records[0].message)

    formats: list[log.Format] = ["json", "text"]
    for format_ in formats:
        before = structlog.get_config()
        log.configure(format_, "warning")
        try:
            await through(Chains([plan("broken", divide)]), batch(WEB, [7]))
        finally:
            structlog.configure(**before)
        said = capsys.readouterr().err
        assert "test_chain.py" in said
        assert "in divide" in said
        assert "2J7" in said
        assert "\x1b[2J" not in said


async def test_ctrl_c_ends_what_runs_where_nobody_receives_signals() -> None:
    def interrupted(records: list[Record]) -> list[Record]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await through(Chains([plan("long", interrupted)]), batch(WEB, [1]))


async def test_a_large_batch_is_processed_in_pieces_and_others_get_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("logroute.router.chain.GIVE_WAY_S", -1.0)
    chains = Chains([plan("shout", shout)])
    [stage] = chains.stages
    turns: list[int] = []

    async def other() -> None:
        while True:
            assert isinstance(stage.processor, StandIn)
            turns.append(len(stage.processor.given))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        made = await chains.before.apply(batch(WEB, range(1, 3 * PIECE)), {})
        nursery.cancel_scope.cancel()
    assert messages([made]) == [f"{number}!" for number in range(1, 3 * PIECE)]
    assert {1, 2} & set(turns)


async def test_one_that_joins_is_given_the_batch_whole() -> None:
    chains = Chains([plan("join", shout, separable=False, cls=Joins)])
    await chains.before.apply(batch(WEB, range(1, 3 * PIECE)), {})
    [stage] = chains.stages
    assert isinstance(stage.processor, StandIn)
    assert len(stage.processor.given) == 1


async def test_one_that_is_quick_is_given_what_the_source_gave_and_in_a_route_what_is_ready() -> None:
    class Quick(Chooses):
        quick: ClassVar[bool] = True
        given_ready: list[bool]

        def apply(self, batch: Batch) -> Batch:
            self.given_ready = [*getattr(self, "given_ready", ()), batch.ready]
            return batch

    before = Chains([plan("quick", odd, cls=Quick), plan("some", odd, cls=Quick, match={"message": "*1*"})])
    routes = Chains(routes={"a": (EVERYTHING, [plan("quick", odd, cls=Quick)])})
    for chains, expected in ((before, [[False], [True]]), (routes, [[True]])):
        read = batch(WEB, range(1, 3 * PIECE))
        read = Batch(WEB, read.lines, before=read.before, after=read.after, size_bytes=1)
        made = await (chains.before if chains is before else chains.of_routes["a"]).apply(read, {})
        assert len(made) == 3 * PIECE - 1
        assert [stage.processor.given_ready for stage in chains.stages] == expected  # type: ignore[attr-defined]


async def test_one_that_makes_its_own_is_given_plain_records_as_they_are_and_copies_of_others() -> None:
    class Makes(StandIn):
        makes: ClassVar[bool] = True

    def make(records: list[Record]) -> list[Record]:
        given.append(records)
        return [detailed(record) for record in records]

    given: list[list[Record]] = []
    chain = Chains(routes={"a": (EVERYTHING, [plan("make", make, cls=Makes)])}).of_routes["a"]
    read = batch(WEB, [1, 2])
    made = await chain.apply(read, {})
    await chain.apply(made, {})
    assert [*map(id, given[0])] == [*map(id, read.records)]
    assert given[1] == made.records
    assert {*map(id, given[1])}.isdisjoint(map(id, made.records))


async def test_no_route_sees_what_another_has_changed() -> None:
    router = Router()
    plain, loud, louder = add(router, "plain"), add(router, "loud"), add(router, "louder")
    router.chains = Chains(
        routes={
            "loud": (EVERYTHING, [plan("shout", shout)]),
            "louder": (EVERYTHING, [plan("shout", shout), plan("again", shout)]),
        }
    )
    await opened(router)
    await router([batch(WEB, [1, 2])])
    assert messages(await received(plain)) == ["1", "2"]
    assert messages(await received(loud)) == ["1!", "2!"]
    assert messages(await received(louder)) == ["1!!", "2!!"]
    # What both begin with is done once.
    assert books(router.chains) == {"shout": (2, 2, 0, 0), "again": (2, 2, 0, 0)}


async def test_what_a_condition_leaves_out_belongs_to_the_other_routes_as_before() -> None:
    router = Router()
    plain, loud = add(router, "plain"), add(router, "loud")
    some = plan("some", shout, match={"message": "1!"})
    router.chains = Chains(
        [plan("first", shout)], {"loud": (EVERYTHING, [some, plan("all", shout), plan("again", shout)])}
    )
    await opened(router)
    await router([batch(WEB, [1, 2])])
    assert messages(await received(loud)) == ["1!!!!", "2!!!"]
    assert messages(await received(plain)) == ["1!", "2!"]


async def test_routes_that_take_other_records_share_nothing_and_those_that_remember_neither() -> None:
    some = Match.parse({"message": "1"})
    chains = Chains(
        routes={
            "a": (EVERYTHING, [plan("shout", shout), plan("count", odd, separable=False), plan("x", odd)]),
            "b": (some, [plan("shout", shout)]),
            "c": (EVERYTHING, [plan("shout", shout), plan("count", odd, separable=False), plan("x", odd)]),
        }
    )
    lines = {name: chain.stages for name, chain in chains.of_routes.items()}
    assert lines["a"][0] is lines["c"][0] is not lines["b"][0]
    assert lines["a"][1] is not lines["c"][1]
    assert lines["a"][2] is not lines["c"][2]


async def test_fields_that_another_route_holds_are_not_changed() -> None:
    def add_field(records: list[Record]) -> list[Record]:
        for record in records:
            assert isinstance(record, DetailedRecord)
            record.fields = record.fields or {}
            record.fields["n"] = record.fields.get("n", 0) + 1
        return records

    router = Router()
    one, two = add(router, "one"), add(router, "two")
    router.chains = Chains([plan("before", add_field)], {"two": (EVERYTHING, [plan("own", add_field)])})
    await opened(router)
    await router([batch(WEB, [1])])
    assert [each.records[0].fields for each in (*await received(one), *await received(two))] == [
        {"n": 1},
        {"n": 2},
    ]


async def test_what_stays_over_a_reload_keeps_its_books() -> None:
    old = Chains([plan("odd", odd), plan("shout", shout)])
    await through(old, batch(WEB, [1, 2]))
    new = Chains([plan("odd", odd), plan("again", shout)], old=old)
    assert books(new) == {"odd": (2, 1, 1, 0), "again": (0, 0, 0, 0)}
    assert books(old)["shout"] == (1, 1, 0, 0)


async def test_processed_records_are_routed_by_what_they_say_then() -> None:
    router = Router()
    loud = add(router, "loud", {"message": "*!"})
    router.chains = Chains([plan("shout", shout, match={"container": "db"})])
    await opened(router)
    await router([batch(WEB, [1]), batch(DB, [2])])
    assert messages(await received(loud)) == ["2!"]
    assert router.unmatched == 1


async def test_the_regexes_of_all_routes_are_compiled_once_and_none_for_a_batch_or_a_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[int] = []
    hyperscan = regex._hyperscan

    def counted(regexes: Sequence[regex.Regex], flags: int) -> Any:
        compiled.append(len(regexes))
        return hyperscan(regexes, flags)

    router = Router()
    odd_ones, even = add(router, "odd", {"message": "/[13]+$/"}), add(router, "even", {"message": "/[24]+$/"})
    await opened(router)
    monkeypatch.setattr(regex, "_hyperscan", counted)
    await router([batch(WEB, [1, 2])])
    assert compiled
    assert set(compiled) == {2}  # in one pass
    compiled.clear()
    await router([batch(WEB, [3, 4]), batch(DB, [1, 2])])
    assert compiled == []
    assert messages(await received(odd_ones)) == ["1", "3", "1"]
    assert messages(await received(even)) == ["2", "4", "2"]
