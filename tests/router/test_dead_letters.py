"""Dead letters: kept with their reason, put back, dropped, and bounded."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio
import trio.testing

from logroute.router import dead_letter_limit as limit_module
from logroute.router.database import StateError
from logroute.router.record import Batch, DetailedRecord
from logroute.router.route import Route
from logroute.router.state import RouteState
from logroute.sinks import Outcome, Rejected
from tests.router.stand_ins import StandInSink, batch, number_of, origin, time_of
from tests.router.test_route import make, numbers, opened, running

pytestmark = pytest.mark.usefixtures("no_threads")

WEB, DB = origin("web"), origin("db")


class Picky(StandInSink):
    """Rejects what it does not like."""

    dislikes: frozenset[str] = frozenset()
    keeps: frozenset[str] = frozenset()
    """What of that the receiver keeps."""

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        await super().deliver([b.with_records([r for r in b.records if self._likes(r)]) for b in batches])
        return Outcome(
            [
                Rejected(index, record, f"cannot take {record.message}", kept=record.message in self.keeps)
                for index, each in enumerate(batches)
                for record in each.records
                if not self._likes(record)
            ]
        )

    def _likes(self, record: Any) -> bool:
        return record.message not in self.dislikes


def picky(folder: Path | None, *dislikes: int, **changes: Any) -> tuple[Route, Picky]:
    route = make(folder=folder, sink=Picky, **changes)
    sink = route.sink
    assert isinstance(sink, Picky)
    sink.dislikes = frozenset(map(str, dislikes))
    return route, sink


async def test_a_rejected_record_that_the_receiver_keeps_is_counted_and_no_dead_letter(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    route, sink = picky(tmp_path, 2, 4)
    sink.keeps = frozenset("4")
    with structlog.testing.capture_logs() as said:
        async with running(route):
            route.put([batch(WEB, [1, 2, 3]), batch(DB, [4, 5])])
    book = route.statistics()
    assert (book.received, book.delivered, book.rejected, book.dead_letters) == (5, 3, 2, 1)
    assert "cannot take 2" in [entry.get("reason") for entry in said]
    async with opened(tmp_path) as state:
        assert [letter.message for letter in await state.letters()] == ["2"]
        assert number_of(state.positions[DB.key]) == 5


async def test_a_rejected_record_is_kept_with_its_reason_and_costs_no_other(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    route, sink = picky(tmp_path, 2, 4)
    async with running(route):
        route.put([batch(WEB, [1, 2, 3]), batch(DB, [4, 5])])
    assert sink.messages == ["1", "3", "5"]
    book = route.statistics()
    assert (book.delivered, book.rejected, book.dead_letters) == (3, 2, 2)
    async with opened(tmp_path) as state:
        first, second = await state.letters()
        assert (first.container, first.stream, first.message) == ("web", "stdout", "2")
        assert (first.time, first.reason) == (time_of(2), "cannot take 2")
        assert first.failed.startswith("20")
        assert (second.id, second.container) == (2, "db")
        assert [letter.id for letter in await state.letters(above=1)] == [2]
        assert number_of(state.positions[WEB.key]) == 3
        found = await state.letter(2)
        assert found is not None
        assert found[1].origin.constants() == DB.constants()
        assert [record.message for record in found[1].records] == ["4"]
        assert await state.letter(3) is None


async def test_a_kill_leaves_either_the_checkpoint_and_the_letter_or_neither(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    store = RouteState._store

    def look(self: RouteState, *args: Any) -> Any:
        result = store(self, *args)
        assert self._database is not None
        (letters,) = self._database.execute("select count(*) from deadletters").fetchone()
        (checkpoints,) = self._database.execute("select count(*) from checkpoints").fetchone()
        seen.append((checkpoints, letters))
        return result

    monkeypatch.setattr(RouteState, "_store", look)
    route, _ = picky(tmp_path, 1)
    async with running(route):
        route.put(numbers(1))
        await trio.sleep(1)
    assert set(seen) == {(1, 1)}


async def test_everything_of_a_record_is_kept(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    full = DetailedRecord(
        "no \ud800 text", "stderr", time_of(1), 3, "warn", {"a": [1, {"b": None}]}, True, "place", ".2"
    )
    route, _ = picky(tmp_path, 1)
    route.sink.dislikes = frozenset([full.message])  # type: ignore[attr-defined]
    async with running(route):
        route.put([batch(WEB, [1]).with_records([full])])
    async with opened(tmp_path) as state:
        found = await state.letter(1)
    assert found is not None
    (record,) = found[1].records
    full.message = "no ? text"
    assert record == full


@pytest.mark.parametrize("which", [None, [1], [2, 3]])
async def test_dead_letters_are_delivered_when_they_are_replayed(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, which: list[int] | None
) -> None:
    route, sink = picky(tmp_path, 2, 4, 5)
    async with running(route):
        route.put([batch(WEB, [1, 2, 3]), batch(DB, [4, 5])])
        await trio.sleep(1)
        sink.dislikes = frozenset()
        count = await route.replay(which)
        assert count == len(which or [1, 2, 3])
        route.put(numbers(1, start=6))
        await trio.sleep(1)
        assert sorted(sink.messages[2:]) == sorted(
            [str([2, 4, 5][number - 1]) for number in which or [1, 2, 3]] + ["6"]
        )
        book = route.statistics()
        assert (book.received, book.rejected, book.dead_letters) == (6 + count, 3, 3 - count)
        assert await route.replay([1, 2, 3]) == 3 - count
    async with opened(tmp_path) as state:
        assert await state.letters() == []
        assert state.spooled.records == 0


async def test_whoever_replays_or_drops_them_side_by_side_gets_each_once(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    route, sink = picky(tmp_path, 1, 2, 3)
    got: list[int] = []

    async def replay() -> None:
        got.append(await route.replay(None))

    async def drop() -> None:
        got.append(await route.state.forget_letters(None))

    async with running(route):
        route.put(numbers(3))
        await trio.sleep(1)
        sink.dislikes = frozenset()
        async with trio.open_nursery() as nursery:
            for work in (replay, drop, replay, drop):
                nursery.start_soon(work)
        await trio.sleep(1)
        assert sum(got) == 3
        assert len(sink.messages) in (0, 3)
        book = route.statistics()
        assert (book.dead_letters, book.dead_letter_bytes) == (0, 0)


async def test_what_is_rejected_again_is_a_new_dead_letter(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    route, _ = picky(tmp_path, 1)
    async with running(route):
        route.put(numbers(2))
        await trio.sleep(1)
        await route.replay(None)
        await trio.sleep(1)
        assert [letter.id for letter in await route.state.letters()] == [2]
        assert await route.state.forget_letters(None) == 1
        assert route.statistics().dead_letters == 0
    # A number that somebody has read never means another letter.
    async with opened(tmp_path) as state:
        state.bury([])
        assert state._next_letter == 3


async def test_a_replay_that_cannot_be_stored_loses_nothing(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    route, _ = picky(tmp_path, 1, 2, 3)
    async with running(route):
        route.put(numbers(3))
        await trio.sleep(1)
        store = RouteState._store

        def late(self: RouteState, *args: Any) -> Any:
            store(self, *args)
            raise ValueError("too late")

        await route.state.commit()
        monkeypatch.setattr(RouteState, "commit", RouteState.commit)
        reading = RouteState._read_letters

        async def read_then_break(self: RouteState, read: Any) -> Any:
            found = await reading(self, read)
            monkeypatch.setattr(RouteState, "_store", late)
            return found

        monkeypatch.setattr(RouteState, "_read_letters", read_then_break)
        with pytest.raises(StateError, match="cannot store the spool"):
            await route.replay(None)
        monkeypatch.setattr(RouteState, "_read_letters", reading)
        monkeypatch.setattr(RouteState, "_store", store)
        assert len(await route.state.letters()) == 3
        assert route.statistics().queue.records == 0
    async with opened(tmp_path) as state:
        assert len(await state.letters()) == 3
        assert state.spooled.records == 0


async def test_a_letter_that_cannot_be_read_is_left_where_it_is(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    route, sink = picky(tmp_path, 1, 2, 3)
    async with running(route):
        route.put(numbers(3))
        await trio.sleep(1)
        assert route.state._database is not None
        route.state._database.execute("update deadletters set record = '{' where id = 2")
        with pytest.raises(StateError, match="cannot read the dead letters"):
            await route.state.letter(2)
        sink.dislikes = frozenset()
        assert await route.replay(None) == 2
    assert sink.messages == ["1", "3"]


@pytest.mark.parametrize("policy", ["block", "drop_oldest", "drop_newest"])
async def test_dead_letters_are_bounded(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, policy: str
) -> None:
    route, sink = picky(tmp_path, *range(1, 51), when_full=policy, batch_records=1, dead_letter_bytes=3000)
    async with running(route):
        for each in numbers(50):
            route.put([each])
            await trio.sleep(1)
        book = route.statistics()
        assert book.dead_letters < 12
        if policy == "block":
            assert (book.received, book.rejected) == (50, book.dead_letters)
            assert "logroute deadletters" in book.reason
            sink.dislikes = frozenset()
            await route.state.forget_letters(None)
            await trio.sleep(5)
            assert len(sink.messages) == 50 - book.rejected
        else:
            assert book.rejected == 50
            assert book.dead_letters_dropped == 50 - book.dead_letters
            kept = [int(letter.message) for letter in await route.state.letters()]
            assert (kept[0] == 1) == (policy == "drop_newest")
            assert (kept[-1] == 50) == (policy == "drop_oldest")


async def test_without_a_folder_they_are_kept_in_memory(autojump_clock: trio.testing.MockClock) -> None:
    route, sink = picky(None, 1)
    async with running(route):
        route.put(numbers(2))
        await trio.sleep(1)
        assert len(await route.state.letters()) == 1
        sink.dislikes = frozenset()
        assert await route.replay(None) == 1
    assert sink.messages == ["2", "1"]


async def test_dead_letters_that_cannot_be_stored_do_not_fill_the_memory(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk the route waits, rather than to take in and reject whatever comes."""
    monkeypatch.setattr(limit_module, "UNSTORED_LETTER_BYTES", 1000)
    store = RouteState._store
    full = True

    def refuse(self: RouteState, *args: Any) -> Any:
        if full:
            raise sqlite3.OperationalError("database or disk is full")
        return store(self, *args)

    monkeypatch.setattr(RouteState, "_store", refuse)
    route, _ = picky(tmp_path, *range(1, 101), batch_records=1)
    async with running(route):
        for number in range(1, 101):
            route.put([batch(WEB, [number])])
        await trio.sleep(60)
        assert route.statistics().rejected < 10
        assert route.undelivered > 90
        assert "cannot be stored" in route.statistics().hindrance
        full = False
        await trio.sleep(60)
        assert route.statistics().rejected == 100
        assert route.statistics().hindrance == ""
    async with opened(tmp_path) as state:
        assert len(await state.letters(count=1000)) == 100
