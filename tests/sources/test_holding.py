"""Records of several lines: whole, once and in order, whatever becomes of routes, readers and files."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from logroute.config.components import PROCESSORS
from logroute.processors.multiline import MultilineOptions
from logroute.router.chain import Chains, StagePlan
from logroute.router.match import EVERYTHING
from logroute.router.position import BEGINNING, Position
from logroute.sources.watched_folders import POLL_S
from tests.sources.test_catching_up import SomeHang, World, world

pytestmark = pytest.mark.usefixtures("one_thread")

QUIET_S = 4.0
"""After so long a silence a record is whole."""


def multiline(name: str = "multiline", **options: Any) -> StagePlan:
    model = MultilineOptions.model_validate({"type": "multiline", "continue": "^  at", **options})
    return StagePlan(
        name, EVERYTHING, partial(PROCESSORS.create, model), model.model_dump_json(), separable=False
    )


def chains(where: str, routes: str) -> Chains:
    """The lines are joined before they are routed, or on the way into each route."""
    if where == "before":
        return Chains([multiline()])
    return Chains([], {name: (EVERYTHING, [multiline(name)]) for name in routes})


@asynccontextmanager
async def joining(folder: Path, routes: str, where: str) -> AsyncIterator[World]:
    """A log that is read, and whose lines are joined."""
    async with world(folder, routes) as w:
        w.router.chains = chains(where, routes)
        w.begin()
        yield w


WHERE = pytest.mark.parametrize("where", ["before", "routes"])


@WHERE
async def test_the_last_record_goes_on_when_the_log_has_been_quiet(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, where: str
) -> None:
    async with joining(tmp_path, "ab", where) as w:
        w.log.write(2)
        w.log.write_trace(2)
        await trio.sleep(1)
        assert w.gates["a"].got == w.said[:2]
        # What is held is not acknowledged: a crash now would read it again.
        until = w.gates["a"].place.stdout.until
        assert until is not None
        assert until.time == w.log.time_of(3)
        await trio.sleep(QUIET_S)
        assert w.all_have_everything()
        assert w.gates["a"].place.stdout.until is None
        w.log.write(1)
        await trio.sleep(QUIET_S)
        assert w.all_have_everything()


@WHERE
async def test_a_route_that_blocks_gets_it_whole_later(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, where: str
) -> None:
    async with joining(tmp_path, "ab", where) as w:
        w.log.write_trace(3)
        await trio.sleep(0.1)
        w.gates["b"].block()
        w.log.write_trace(3)
        await trio.sleep(0.1)
        w.log.write(1)
        await trio.sleep(QUIET_S)
        assert w.gates["a"].got == w.said
        w.gates["b"].open()
        await trio.sleep(QUIET_S)
        assert w.all_have_everything()
        assert w.reader.forks == ()


@WHERE
async def test_the_end_of_a_log_is_the_end_of_its_last_record(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, where: str
) -> None:
    async with joining(tmp_path, "ab", where) as w:
        w.log.write_trace(3)
        await trio.sleep(0.1)
        w.end()
        await w.drained.wait()
        assert w.all_have_everything()


@WHERE
async def test_a_stream_that_is_quiet_waits_for_no_other(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, where: str
) -> None:
    async with joining(tmp_path, "a", where) as w:
        w.log.write_trace(2)
        for number in range(10):
            w.log.write_lines(f"e {number}", stream="stderr")
            await trio.sleep(1)
        assert w.said[0] in w.gates["a"].got
        assert w.gates["a"].place.stdout.until is None


@WHERE
async def test_a_log_that_is_opened_anew_lets_go_what_is_held(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, where: str
) -> None:
    async with joining(tmp_path, "a", where) as w:
        w.log.write_trace(2)
        await trio.sleep(0.1)
        places = w.sweep.places(w.reader)
        w.sweep.close(w.reader)
        w.reader = w.reader.another()
        assert w.reader.open()
        w.reader.begin(dict(places), 0)
        w.sweep.add(w.reader)
        await trio.sleep(QUIET_S)
        assert w.all_have_everything()


async def test_readers_that_hold_different_beginnings_of_a_record_end_it_before_they_join(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """One route begins in the midst of a trace, the other before it."""
    async with world(tmp_path, "ab") as w:
        w.router.chains = chains("before", "ab")
        w.log.write_lines("first", "  at 1")
        assert w.reader.open()
        here = w.reader.end()
        w.gates["a"].place = here
        w.gates["b"].block()
        w.reader.begin({"a": here, "b": BEGINNING}, 0)
        w.sweep.add(w.reader)
        w.log.write_lines("  at 2")
        await trio.sleep(0.1)
        w.gates["b"].open()
        await trio.sleep(0.5)
        w.log.write_lines("  at 3")
        await trio.sleep(2 * QUIET_S)
        assert w.reader.forks == ()
        assert "\n".join(w.gates["a"].got) == "  at 2\n  at 3"
        assert "\n".join(w.gates["b"].got) == "first\n  at 1\n  at 2\n  at 3"


async def test_what_cannot_go_on_yet_is_not_asked_for_again_and_again(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with joining(tmp_path, "ab", "routes") as w:
        w.log.write_trace(2)
        await trio.sleep(0.1)
        w.gates["b"].block()
        w.log.write_trace(2)
        await trio.sleep(2 * QUIET_S)
        before = w.sweep.statistics().sweeps
        await trio.sleep(100)
        assert w.sweep.statistics().sweeps - before < 5


@WHERE
async def test_a_reload_that_joins_no_more_lets_go_what_is_held(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, where: str
) -> None:
    async with joining(tmp_path, "ab", where) as w:
        w.log.write_trace(3)
        await trio.sleep(0.1)
        new = Chains([], {name: (EVERYTHING, []) for name in "ab"}, w.router.chains)
        new.succeed(w.router.chains)
        w.router.chains = new
        w.log.write(1)
        await trio.sleep(QUIET_S)
        assert w.all_have_everything()
        assert not w.router.chains.holding


@WHERE
@pytest.mark.parametrize("seed", range(40))
async def test_whatever_happens_every_route_gets_every_record_whole(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, seed: int, where: str
) -> None:
    chance = random.Random(seed)
    got: dict[str, tuple[list[str], Position]] = {}
    said: list[str] = []
    number = 0
    for life in range(3):  # killed twice
        async with world(tmp_path, "abc") as w:
            w.router.chains = chains(where, "abc")
            for name, (before, place) in got.items():
                w.gates[name].got, w.gates[name].place = before, place
            w.log.number, w.log.said = number, said
            if seed % 2:
                w.sweep._disks = SomeHang(w.sweep._disks, chance)
            w.begin()
            for _ in range(30):
                await _something(w, chance)
            if life == 2:
                await w.settle()
                if chance.random() < 0.5:
                    w.end()
                for gate in w.gates.values():
                    gate.open()
                await trio.sleep(200)
                for gate in w.gates.values():
                    assert gate.got == w.said
                    assert gate.lost == {}
                assert w.reader.forks == ()
                assert w.router._apart == {}
                assert not w.router.chains.holding
                return
            got = {name: (gate.got, gate.place) for name, gate in w.gates.items()}
            number, said = w.log.number, w.log.said


async def _something(w: World, chance: random.Random) -> None:
    gate = w.gates[chance.choice("abc")]
    match chance.randrange(10):
        case 0:
            gate.block()
        case 1:
            gate.open()
        case 2:
            gate.holds = True
        case 3:
            # All files of before are there, also after a kill.
            if len(list(w.log.path.parent.iterdir())) < 3:
                await trio.sleep(2 * POLL_S)
                w.log.rotate()
        case 4:
            await trio.sleep(5)
        case 5:
            w.log.write(chance.randrange(2000), width=chance.randrange(400))
        case 6:
            await trio.sleep(chance.random() / 10)
        case 7:
            w.log.write_trace(chance.randrange(1, 400))
        case 8:
            w.log.write_trace(chance.randrange(1, 4))
        case _:
            w.log.write(chance.randrange(3))
