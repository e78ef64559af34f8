"""Routes that are behind: read for apart, from where they stopped, until they are with the others again."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio
import trio.testing

from logroute.router.position import BEGINNING, Position
from logroute.router.record import Batch, Origin
from logroute.router.router import Router
from logroute.router.times import iso_time
from logroute.sources import STANDS_AFTER_S, Lost, Start
from logroute.sources.disks import Disks
from logroute.sources.log_file import LogFile
from logroute.sources.sweep import Sweep
from logroute.sources.watched_folders import POLL_S, WatchedFolders
from tests.sources.stand_ins import Gate, refuse

pytestmark = pytest.mark.usefixtures("one_thread")

LIMIT = 1 << 20
BEGAN_NS = 1_795_000_000 * 10**9


class Log:
    """A container's log, written and rotated as an engine does."""

    def __init__(self, path: Path, keep: int = 3) -> None:
        self.path = path
        self.keep = keep
        self.number = 0
        self.said: list[str] = []
        self._file = path.open("ab", buffering=0)
        self._unfinished = ""

    def write(self, count: int, *, width: int = 40) -> None:
        lines = []
        if self._unfinished:  # nothing else of the stream comes between the pieces of a line
            self.write_piece()
        for _ in range(count):
            self.number += 1
            lines.append(self._line(f"{self.number:06d} {'x' * width}\n"))
        self._file.write(b"".join(lines))

    def write_trace(self, count: int) -> None:
        """A line that so many others belong to."""
        self.write(1)
        for number in range(count):
            self.number += 1
            self._file.write(self._line(f"  at {number}\n"))
        self.said[-count - 1 :] = ["\n".join(self.said[-count - 1 :])]

    def write_lines(self, *lines: str, stream: str = "stdout") -> None:
        """Lines as they are; `said` is the caller's."""
        for line in lines:
            self.number += 1
            text = self._line(f"{line}\n")
            self._file.write(text.replace(b"stdout", stream.encode()))
            self.said.pop()

    def write_piece(self) -> None:
        """The first piece of a long line, or the last."""
        if self._unfinished:
            self._file.write(self._line("last\n", self._unfinished))
            self.said[-2:] = ["".join(self.said[-2:])]
            self._unfinished = ""
        else:
            self.number += 1
            self._unfinished = self.time_of(self.number)
            self._file.write(self._line(f"{self.number:06d} piece ", self._unfinished))

    def _line(self, text: str, time: str = "") -> bytes:
        time = time or self.time_of(self.number)
        self.said.append(text.removesuffix("\n"))
        return (
            f'{{"log":"{text[:-1]}\\n","stream":"stdout","time":"{time}"}}\n'.encode()
            if text.endswith("\n")
            else f'{{"log":"{text}","stream":"stdout","time":"{time}"}}\n'.encode()
        )

    @staticmethod
    def time_of(number: int) -> str:
        return iso_time(BEGAN_NS + number * 1000)

    def rotate(self) -> None:
        self._file.close()
        names = [self.path, *(Path(f"{self.path}.{n}") for n in range(1, self.keep))]
        for older, newer in zip(reversed(names), list(reversed(names))[1:], strict=False):
            if newer.exists():
                newer.rename(older)
        self._file = self.path.open("ab", buffering=0)

    def close(self) -> None:
        self._file.close()


class SomeHang(Disks):
    """Disks that sometimes do not answer for a while. The work is done when they do."""

    def __init__(self, disks: Disks, chance: random.Random) -> None:
        super().__init__(disks._on_answer)
        self._chance = chance
        self.hung = 0

    async def ask(
        self,
        logs: Sequence[LogFile],
        work: Callable[[LogFile], Any],
        late: Callable[[LogFile, Any], None],
    ) -> tuple[list[tuple[LogFile, Any]], list[LogFile]]:
        if not logs or self._chance.random() < 0.8:
            return await super().ask(logs, work, late)
        at = self._chance.randrange(len(logs))
        answers, unreached = await super().ask(logs[:at], work, late)
        log = logs[at]
        hanging = log.device, log.path
        self._hang(hanging)
        self.hung += 1

        async def answer() -> None:
            await trio.sleep(self._chance.random() * 5)
            self._answers_again(hanging)
            late(log, work(log))
            self._on_answer()

        trio.lowlevel.spawn_system_task(answer)
        return answers, [*unreached, *logs[at + 1 :]]


class World:
    """A log, its reader, and routes."""

    def __init__(self, folder: Path, routes: str) -> None:
        self.log = Log(folder / "log.json")
        self.origin = Origin("docker:web", "docker", id="w" * 64, name="web")
        self.router = Router()
        self.gates = {name: Gate(name, self.router) for name in routes}
        self.drained = trio.Event()
        self.losses: list[Lost] = []
        self.reader = LogFile(str(self.log.path), self.origin, limit=LIMIT)
        self.sweep = Sweep(
            self.router,
            "docker",
            on_drained=lambda log: self.drained.set(),
            on_failed=self._failed,
            on_lost=self._lost,
        )

    def _failed(self, log: LogFile, error: Exception) -> None:
        raise error

    def _lost(self, log: LogFile) -> None:
        for lost in log.take_losses():
            self.losses.append(lost)
            self.router.lost(log.origin, lost)

    def begin(self, checkpoints: Mapping[str, Position] | None = None) -> None:
        assert self.reader.is_open or self.reader.open()
        self.reader.begin(checkpoints or {name: gate.place for name, gate in self.gates.items()}, 0)
        self.sweep.add(self.reader)

    def come_later(self, name: str, before: World) -> Gate:
        """A route of another daemon, with what it has had, that is to be added to this one."""
        gate = self.gates[name] = before.gates[name]
        gate.state = gate.queue = gate
        return gate

    def take_out(self, name: str) -> None:
        self.router.remove(name)

    async def put_back(self, name: str, *, checkpoint: Position | None = None) -> Gate:
        """A new route of the same name, which goes on where the one before was."""
        before = self.gates[name]
        gate = self.gates[name] = Gate(name, self.router)
        gate.got, gate.place = before.got, before.place if checkpoint is None else checkpoint
        gate.holds, gate._blocks = before.holds, before._blocks
        self.router.add(gate, late=True)  # type: ignore[arg-type]  # what the router needs of a route
        await self.sweep.welcome()
        self.router.room_again()
        return gate

    async def settle(self) -> None:
        """Let it read all there is to read."""
        await trio.sleep(2 * POLL_S)

    async def write(self, count: int, *, width: int = 40) -> None:
        """Have lines, and let them be read."""
        self.log.write(count, width=width)
        await self.settle()

    async def rotate(self) -> None:
        self.log.rotate()
        await self.settle()

    def all_have_everything(self) -> bool:
        """Whether each route has got each line once and in order."""
        return all(gate.got == self.said for gate in self.gates.values())

    def end(self) -> None:
        """The container has ended."""
        self.reader.complete = True
        self.sweep.wake(self.reader)

    @property
    def said(self) -> list[str]:
        return self.log.said


@asynccontextmanager
async def world(folder: Path, routes: str = "abc") -> AsyncIterator[World]:
    there = World(folder, routes)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(there.sweep.run)
            yield there
            nursery.cancel_scope.cancel()
    finally:
        there.reader.close()
        there.log.close()


def another_log(w: World, log: Log) -> LogFile:
    """Have the sweep read one more."""
    name = log.path.stem
    origin = Origin(f"docker:{name}", "docker", id=name * 8, name=name)
    reader = LogFile(str(log.path), origin, limit=LIMIT)
    assert reader.open()
    reader.resume({"a": BEGINNING})
    w.sweep.add(reader)
    return reader


def open_files(folder: Path) -> int:
    """How many files of this folder are open: others may still be closing theirs in threads."""
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sum(os.readlink(link).startswith(f"{folder}/") for link in links if os.path.islink(link))


async def test_a_route_that_blocks_delays_no_other_and_gets_everything_later(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path) as w:
        w.begin()
        before = open_files(tmp_path)
        await w.write(10)
        w.gates["b"].block()
        await w.write(1000)
        assert len(w.gates["a"].got) == len(w.gates["c"].got) == 1010
        assert len(w.gates["b"].got) == 10
        await w.write(5)
        w.gates["b"].open()
        await w.settle()
        await w.write(5)
        assert w.all_have_everything()
        assert w.reader.forks == ()
        assert open_files(tmp_path) == before


async def test_a_reader_whose_flow_stands_says_so_and_one_that_waits_for_a_full_route_does_not(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog goes by it: who is restarted by systemd reads on from the checkpoints."""
    go_on, emit = trio.Event(), Router.__call__

    async def hang(router: Router, batches: list[Batch]) -> Any:
        await go_on.wait()
        return await emit(router, batches)

    async with world(tmp_path, "a") as w:
        w.begin()
        await w.write(5)
        w.gates["a"].block()
        await w.write(1000)
        await trio.sleep(100)
        assert w.sweep.standing_s < STANDS_AFTER_S
        assert w.sweep.notes() == []
        w.gates["a"].open()
        await w.settle()
        with monkeypatch.context() as patched:
            patched.setattr(Router, "__call__", hang)
            await w.write(5)
            await trio.sleep(100)
            assert 99 < w.sweep.standing_s < 110
            (note,) = w.sweep.notes()
            assert note.startswith("nothing is handed on since 1")
        go_on.set()
        await w.settle()
        assert w.sweep.standing_s < STANDS_AFTER_S
        assert w.sweep.notes() == []
        assert w.all_have_everything()


async def left_behind(folder: Path, delivered: int, rotations: int) -> World:
    """A daemon whose route `a` has had so many lines, and its log, which goes on when that has ended."""
    async with world(folder, "a") as w:
        w.begin()
        await w.write(delivered)
        for _ in range(rotations):
            await w.rotate()
            await w.write(4)
    log = Log(folder / "log.json")
    log.number = w.log.number
    log.write(5)
    log.rotate()
    log.write(5)
    log.close()
    w.log.said += log.said
    w.log.number = log.number
    return w


@pytest.mark.parametrize("start", ["beginning", "now"])
@pytest.mark.parametrize("rotations", [0, 1])
@pytest.mark.parametrize("delivered", [0, 6])
async def test_while_no_route_is_open_rotation_takes_nothing_away(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, delivered: int, rotations: int, start: str
) -> None:
    """The state of the only route cannot be opened at the start: a full disk. Nobody knows its checkpoint."""
    before = await left_behind(tmp_path, delivered, rotations)
    async with world(tmp_path, "") as w:
        w.log.number, w.log.said = before.log.number, list(before.said)
        gate = w.come_later("a", before)
        w.router.expect(gate)  # type: ignore[arg-type]  # what the router needs of a route
        assert w.reader.open()
        at = BEGINNING if start == "beginning" else w.reader.end()
        checkpoints = await w.router.meet({w.origin: Start("", at)})
        w.begin(checkpoints[w.origin])
        for _ in range(3 * w.log.keep):
            await w.write(10)
            await w.rotate()
        assert len(gate.got) == delivered + 4 * rotations
        w.router.add(gate, late=True)  # type: ignore[arg-type]
        await w.sweep.welcome()
        w.router.room_again()
        await w.write(10)
        assert w.all_have_everything()
        assert w.losses == []


@pytest.mark.parametrize("start", ["beginning", "now"])
async def test_a_new_route_that_was_not_open_yet_begins_where_it_would_have(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, start: str
) -> None:
    before = await left_behind(tmp_path, 6, 1)
    async with world(tmp_path, "") as w:
        w.log.number, w.log.said = before.log.number, list(before.said)
        gate = w.come_later("a", before)
        gate.got, gate.met_before = [], False
        w.router.expect(gate)  # type: ignore[arg-type]
        assert w.reader.open()
        at = BEGINNING if start == "beginning" else w.reader.end()
        w.begin((await w.router.meet({w.origin: Start("", at)}))[w.origin])
        for _ in range(w.log.keep):
            await w.write(10)
            await w.rotate()
        w.router.add(gate, late=True)  # type: ignore[arg-type]
        await w.sweep.welcome()
        w.router.room_again()
        await w.write(10)
        assert gate.got == (w.said if start == "beginning" else w.said[len(before.said) :])


@pytest.mark.parametrize("rotations", [0, 1])
async def test_a_route_that_comes_late_and_is_further_than_the_live_reader_gets_nothing_twice(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, rotations: int
) -> None:
    before = await left_behind(tmp_path, 6, rotations)
    async with world(tmp_path, "b") as w:
        w.log.number, w.log.said = before.log.number, list(before.said)
        late = w.come_later("a", before)
        w.gates["b"].holds = True
        w.begin({"b": BEGINNING})
        await w.write(10)
        w.router.add(late, late=True)  # type: ignore[arg-type]
        await w.sweep.welcome()
        await w.write(10)
        assert w.gates["b"].got == []
        w.gates["b"].open()
        await w.write(10)
        assert w.all_have_everything()
        assert w.reader.forks == ()


@pytest.mark.parametrize("away_s", [0.0, 0.01, 0.1, 60.0])
@pytest.mark.parametrize("other", ["far from it", "with it", "behind it", "blocked with it"])
@pytest.mark.parametrize("blocked", [False, True])
async def test_a_route_that_is_removed_while_it_is_read_for_apart_and_comes_back_gets_everything_in_order(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, away_s: float, other: str, blocked: bool
) -> None:
    async with world(tmp_path) as w:
        w.begin()
        before = open_files(tmp_path)
        await w.write(10)
        together = ["b"] if other == "far from it" else ["b", "c"]
        for name in together:
            w.gates[name].block()
        await w.write(1)
        if other == "behind it":
            w.gates["b"].open()
            await w.settle()
            w.gates["b"].block()
        await w.write(20_000, width=400)
        if not blocked:
            for name in [name for name in together if other != "blocked with it" or name == "b"]:
                w.gates[name].open()
            with trio.fail_after(20):
                while len(w.gates["b"].got) <= 11:  # noqa: ASYNC110  # nobody tells
                    await trio.sleep(0.001)
            assert len(w.gates["b"].got) < 20_000
        w.take_out("b")
        await trio.sleep(away_s)
        there = await w.put_back("b")
        for _ in range(20):
            w.log.write(1)
            await trio.sleep(0.02)
        for gate in w.gates.values():
            gate.open()
        await w.settle()
        await w.write(5)
        assert there.got == w.said
        assert w.all_have_everything()
        assert w.reader.forks == ()
        assert w.router._apart == {}
        await trio.sleep(60)
        assert open_files(tmp_path) == before


async def test_what_a_removed_route_had_is_not_taken_for_what_a_new_one_of_its_name_has(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Its state was dropped with it: what is read for another one that was further behind is new to it."""
    before = await left_behind(tmp_path, 6, 0)
    async with world(tmp_path, "ab") as w:
        w.log.number, w.log.said = before.log.number, list(before.said)
        w.gates["b"].holds = True
        assert w.reader.open()
        w.reader.begin({"a": before.gates["a"].place, "b": BEGINNING})
        w.sweep.add(w.reader)
        w.take_out("a")
        new = await w.put_back("a", checkpoint=BEGINNING)
        w.gates["b"].open()
        await w.write(5)
        assert new.got == w.said
        assert w.all_have_everything()


async def test_a_reader_whose_routes_were_removed_ends_and_holds_nothing(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path) as w:
        w.begin()
        before = open_files(tmp_path)
        w.gates["b"].block()
        w.gates["c"].block()
        for _ in range(3):
            await w.write(1000)
            await w.rotate()
        (fork,) = w.reader.forks
        w.take_out("b")
        await w.settle()
        assert w.reader.forks == (fork,)
        w.take_out("c")
        await w.write(1)
        assert w.reader.forks == ()
        assert w.router._apart == {}
        w.end()
        await w.drained.wait()
        await trio.sleep(60)
        assert open_files(tmp_path) <= before


async def test_what_waits_for_room_does_not_ask_for_it_with_each_line(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, "a") as w:
        w.begin()
        await w.write(1)
        w.gates["a"].holds = True
        asked, has_room = 0, w.router.has_room

        def count(*args: Any) -> bool:
            nonlocal asked
            asked += 1
            return has_room(*args)

        monkeypatch.setattr(w.router, "has_room", count)
        for _ in range(500):
            w.log.write(1)
            await trio.sleep(0.001)
        assert asked < 100
        w.gates["a"].open()
        await w.settle()
        assert w.all_have_everything()


async def test_it_joins_while_the_others_go_on(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path) as w:
        w.begin()
        w.gates["b"].block()
        await w.write(20_000, width=200)
        w.gates["b"].open()
        for _ in range(60):
            w.log.write(3)
            await trio.sleep(0.02)
        assert w.reader.forks == ()
        await w.settle()
        assert w.all_have_everything()


async def test_what_rotation_takes_away_is_held_for_it(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path) as w:
        w.begin()
        w.gates["b"].block()
        for _ in range(10):
            await w.write(100)
            await w.rotate()
        assert len(w.gates["b"].got) == 0
        assert len(os.listdir(tmp_path)) == 3
        w.end()
        await w.settle()
        assert not w.drained.is_set()
        w.gates["b"].open()
        await w.drained.wait()
        assert w.all_have_everything()
        assert all(gate.lost == {} for gate in w.gates.values())


async def test_routes_that_are_behind_together_share_a_reader(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path) as w:
        w.begin()
        w.gates["a"].block()
        await w.write(100)
        w.gates["b"].block()
        await w.write(100)
        assert [fork.routes for fork in w.reader.forks] == [{"a"}, {"b"}]
        w.gates["a"].open()
        await w.settle()
        # It went past where the other one waits, and waits for it no more than for any other.
        assert [fork.routes for fork in w.reader.forks] == [{"b"}]
        w.gates["a"].block()
        await w.write(40_000, width=200)
        w.gates["b"].open()
        w.gates["a"].open()
        joined = 0
        while w.reader.forks:
            joined += w.reader.forks[-1].routes == {"a", "b"}
            w.log.write(1)
            await trio.sleep(0.02)
        assert joined > 5
        await w.settle()
        assert w.all_have_everything()


async def test_when_all_block_nothing_is_read(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, "ab") as w:
        w.begin()
        w.gates["a"].block()
        w.gates["b"].block()
        await w.write(100)
        assert w.reader.forks == ()
        assert w.reader.spot == (0, 0)
        w.gates["a"].open()
        await w.settle()
        assert w.gates["a"].got == w.said
        w.gates["b"].open()
        await w.settle()
        assert w.gates["b"].got == w.said


async def test_a_restart_reads_for_each_route_from_its_own_checkpoint(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path) as w:
        w.begin()
        await w.write(100)
        w.gates["b"].block()
        await w.write(100)
        kept = {name: (gate.got, gate.place) for name, gate in w.gates.items()}
    async with world(tmp_path) as w2:
        for name, (got, place) in kept.items():
            w2.gates[name].got, w2.gates[name].place = got, place
        w2.log.number, w2.log.said = w.log.number, w.log.said
        w2.log.write(10)
        w2.gates["b"].block()
        w2.begin()
        await w2.settle()
        assert len(w2.gates["a"].got) == 210
        assert len(w2.gates["b"].got) == 100
        w2.gates["b"].open()
        await w2.settle()
        assert w2.all_have_everything()


async def test_what_is_given_up_for_a_route_that_is_behind_is_counted_for_it_alone(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path) as w:
        w.sweep._held_bytes = 10_000
        w.begin()
        await w.write(10)
        line_bytes = w.log.path.stat().st_size // 10
        w.gates["b"].block()
        for _ in range(8):
            await w.write(100)
            await w.rotate()
        w.gates["b"].open()
        await w.settle()
        assert w.gates["a"].got == w.said
        there = w.gates["b"].got[10:]
        missing = len(w.said) - 10 - len(there)
        assert w.gates["b"].got == w.said[:10] + w.said[10 + missing :]
        assert missing >= 300
        assert [(lost.routes, lost.reason) for lost in w.losses] == [(("b",), "rotated")] * len(w.losses)
        assert sum(lost.size_bytes or 0 for lost in w.losses) == missing * line_bytes
        assert {lost.since for lost in w.losses} == {w.log.time_of(10)}
        assert [lost.until for lost in w.losses] == [
            w.log.time_of(10 + 100 * (count + 1) + 1) for count in range(len(w.losses))
        ]
        assert w.losses[-1].until == w.log.time_of(int(there[0][:6]))
        assert w.gates["b"].lost["rotated"].gaps == len(w.losses)
        assert w.gates["a"].lost == {}


async def test_a_truncated_file_is_a_loss_for_who_was_behind_and_no_end_of_catching_up(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path) as w:
        w.begin()
        await w.write(50)
        w.gates["b"].block()
        await w.write(100)
        os.truncate(w.log.path, 0)
        await w.write(20)
        assert w.gates["a"].got == w.said
        w.gates["b"].open()
        await w.settle()
        await w.write(20)
        assert w.gates["b"].got == w.said[:50] + w.said[150:]
        assert w.losses == [Lost(("b",), "rotated", w.log.time_of(50), w.log.time_of(151))]
        assert w.gates["b"].lost["rotated"].gaps == 1
        assert w.reader.forks == ()


async def test_rotation_that_cannot_be_followed_for_want_of_descriptors_is_followed_later(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        w.begin()
        before = open_files(tmp_path)
        await w.write(10)
        w.gates["b"].block()
        await w.write(10)
        refuse(monkeypatch, w.log.path, errno.EMFILE, times=3)
        w.log.rotate()
        await w.write(10)
        assert len(w.gates["a"].got) == 20
        for _ in range(5):
            await w.settle()
        assert w.gates["a"].got == w.said
        w.gates["b"].open()
        await w.settle()
        assert w.all_have_everything()
        assert all(gate.lost == {} for gate in w.gates.values())
        await w.write(1)
        assert open_files(tmp_path) == before


async def test_a_log_that_cannot_be_looked_at_harms_no_other_and_is_looked_at_again(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing tells of changes: they are found by looking.
    monkeypatch.setattr(WatchedFolders, "_instance", lambda self, mask: None)
    fstat = os.fstat
    bad = Log(tmp_path / "bad.json")
    inode = bad.path.stat().st_ino

    def fails(fd: int) -> os.stat_result:
        status = fstat(fd)
        if status.st_ino == inode:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return status

    async with world(tmp_path, "a") as w:
        reader = another_log(w, bad)
        w.begin()
        await w.settle()
        with monkeypatch.context() as patch, structlog.testing.capture_logs() as said:
            patch.setattr(os, "fstat", fails)
            bad.write(1)
            await w.write(3)
            await w.settle()
            assert w.gates["a"].got == w.said
        errors = [each for each in said if each["log_level"] == "error"]
        assert [(each["path"], each["error"]) for each in errors] == [(str(bad.path), os.strerror(errno.EIO))]
        await w.settle()
        assert w.gates["a"].got == w.said + bad.said
        reader.close()
    bad.close()


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_happens_every_route_gets_every_line_once_and_in_order(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    rotates = seed % 4 < 2
    """Or routes are removed and come back: nothing is held for those that are not there."""
    async with world(tmp_path, "abcd") as w:
        if seed % 2:
            w.sweep._disks = SomeHang(w.sweep._disks, chance)
        w.begin()
        before = open_files(tmp_path)
        for _ in range(60):
            gate = w.gates[chance.choice("abcd")]
            match chance.randrange(9 if rotates else 11):
                case 0:
                    gate.block()
                case 1:
                    gate.open()
                case 2:
                    gate.holds = True
                case 3 if rotates:
                    await trio.sleep(2 * POLL_S)
                    w.log.rotate()
                case 4:
                    w.log.write_piece()
                case 5:
                    w.log.write(chance.randrange(2000), width=chance.randrange(400))
                case 6:
                    await trio.sleep(chance.random() / 10)
                case 7:
                    await trio.sleep(5)
                case 9 if gate.name in w.router.routes:
                    w.take_out(gate.name)
                case 10 if gate.name not in w.router.routes:
                    await w.put_back(gate.name)
                case _:
                    w.log.write(chance.randrange(3))
        if w.log._unfinished and chance.random() < 0.5:
            w.log.write_piece()
        for name in w.gates.keys() - w.router.routes.keys():
            await w.put_back(name)
        await w.settle()  # by polling, as names are not watched here
        w.end()
        await trio.sleep(chance.random())
        for gate in w.gates.values():
            gate.open()
        with trio.fail_after(100):
            await w.drained.wait()
        for gate in w.gates.values():
            assert gate.got == w.said
            assert gate.lost == {}
        assert w.reader.forks == ()
        assert w.router._apart == {}
        await trio.sleep(60)  # what is done is closed, by disks that answer
        # A file is kept until something of the one after it was read.
        assert open_files(tmp_path) <= before + len(w.reader._spent)
