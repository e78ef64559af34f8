"""What a route knows after a restart, on real SQLite files."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.testing

from logroute.router import state as module
from logroute.router.checkpoints import FORGET_AFTER_S
from logroute.router.database import StateError
from logroute.router.position import Anchor, Place, Position, StreamPosition
from logroute.router.state import TIDY_EVERY_S, RouteState
from logroute.router.state_file import Contents, StateFile
from logroute.sinks import FileLength
from tests.router.stand_ins import hanging_store, number_of, position

T = TypeVar("T")
DAY = 86400.0
WEB, DB = "docker:web", "docker:db"


class Clock:
    """A wall clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(
    folder: Path | None, route: str = "all", clock: Clock | None = None
) -> AsyncIterator[RouteState]:
    state = RouteState(route, folder, clock=clock or Clock())
    await state.open()
    try:
        yield state
    finally:
        await state.close()


def rows(folder: Path, query: str, route: str = "all") -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "routes" / f"{route}.db")) as database:
        return database.execute(query).fetchall()


def length(bytes_: int) -> FileLength:
    return FileLength("print", 10, bytes_, {"begun": "x"})


# --- what is stored ---------------------------------------------------------------------------------


async def test_checkpoints_and_lengths_are_there_after_a_restart(tmp_path: Path) -> None:
    where = Position(
        StreamPosition(Place("abc", 12, b"\x00\xff tail"), Anchor("t", 3, "hash", discard=True)),
        StreamPosition(Place("", 0)),
        since="2026-11-23T20:06:26.000000000Z",
    )
    async with opened(tmp_path) as state:
        assert (state.positions, state.files) == ({}, {})
        state.note(WEB, position(1))
        state.note(WEB, where)
        state.note(DB, position(2, 5))
        state.files["/logs/a"] = length(7)
        await state.commit()
        born = state.born
    later = Clock()
    later.now += DAY
    async with opened(tmp_path, clock=later) as state:
        assert state.positions == {WEB: where, DB: position(2, 5)}
        assert state.files == {"/logs/a": length(7)}
        assert state.born == born


async def test_what_was_not_committed_is_not_there(tmp_path: Path) -> None:
    async with opened(tmp_path) as state:
        state.note(WEB, position(1))
        await state.commit()
        state.note(WEB, position(2))
        state.files["/logs/a"] = length(7)
    async with opened(tmp_path) as state:
        assert number_of(state.positions[WEB]) == 1
        assert state.files == {}


async def test_a_file_that_is_forgotten_leaves_the_state(tmp_path: Path) -> None:
    async with opened(tmp_path) as state:
        state.files |= {"/a": length(1), "/b": length(2)}
        await state.commit()
        del state.files["/a"]
        state.files["/b"] = length(3)
        await state.commit()
    async with opened(tmp_path) as state:
        assert state.files == {"/b": length(3)}


async def test_a_kill_at_any_instant_of_a_commit_finds_lengths_and_checkpoints_of_one_delivery(
    tmp_path: Path,
) -> None:
    """What a kill leaves is what the file system has: copied before every statement that SQLite runs."""
    copies: list[Path] = []

    def copy(statement: str) -> None:
        to = tmp_path / "killed" / str(len(copies)) / "routes"
        to.mkdir(parents=True)
        for file in (tmp_path / "routes").iterdir():
            if not file.name.endswith("-shm"):  # rebuilt at the next start
                shutil.copy(file, to)
        copies.append(to.parent)

    async with opened(tmp_path) as state:
        assert state._database is not None
        state._database.set_trace_callback(copy)
        for number in range(1, 6):
            # As the route does it: no await between the two.
            state.files |= {f"/logs/{each}": length(number) for each in "abc"}
            state.note(WEB, position(number))
            state.note(DB, position(number))
            await state.commit()
        state._database.set_trace_callback(None)
    seen = set()
    for each in copies:
        async with opened(each) as killed:
            numbers = {number_of(p) for p in killed.positions.values()}
            numbers |= {file.length for file in killed.files.values()}
            assert len(numbers) <= 1
            assert len(killed.positions) == 2 * len(numbers)
            assert len(killed.files) == 3 * len(numbers)
            seen |= numbers
    assert len(copies) > 20
    assert seen == {1, 2, 3, 4}  # the fifth was stored after the last statement began


async def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with opened(None) as state:
        state.note(WEB, position(1))
        await state.commit()
        assert number_of(state.positions[WEB]) == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a/b", "..", "with space", "ümlaut", "all.db"])
async def test_any_name_of_a_route_is_one_file_in_its_folder(tmp_path: Path, name: str) -> None:
    async with opened(tmp_path, name) as state:
        state.note(WEB, position(1))
        await state.commit()
        assert state.path is not None
        assert state.path.resolve().parent == (tmp_path / "routes").resolve()
    async with opened(tmp_path, name) as state:
        assert WEB in state.positions


async def test_a_path_that_is_not_utf_8_is_a_key_like_any_other(tmp_path: Path) -> None:
    odd = "file:/logs/\udcff.log"
    async with opened(tmp_path) as state:
        state.note(odd, position(1))
        state.files["/out/\udcfe"] = length(1)
        await state.commit()
        state.gone(odd)
        await state.commit()
    async with opened(tmp_path) as state:
        assert list(state.positions) == [odd]
        assert list(state.files) == ["/out/\udcfe"]
        del state.files["/out/\udcfe"]
        await state.commit()
    assert rows(tmp_path, "select gone is null from checkpoints") == [(0,)]
    assert rows(tmp_path, "select * from files") == []


# --- when it is stored ------------------------------------------------------------------------------


async def test_a_change_is_noticed_by_who_waits_for_one() -> None:
    async with opened(None) as state:
        with trio.testing.assert_checkpoints():
            with trio.move_on_after(0):
                await state.wait_changed()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(state.wait_changed)
            await trio.testing.wait_all_tasks_blocked()
            state.note(WEB, position(1))
        await state.commit()
        with trio.move_on_after(0) as waiting:
            await state.wait_changed()
        assert waiting.cancelled_caught


async def test_a_barrier_takes_no_acknowledgement_from_who_waits_for_it() -> None:
    """A file sink commits before its first byte, while nothing is noted; the delivery is noted after it."""
    with trio.fail_after(10):
        async with opened(None) as state, trio.open_nursery() as nursery:
            nursery.start_soon(state.wait_changed)
            await trio.testing.wait_all_tasks_blocked()
            await state.commit()
            state.note(WEB, position(1))


async def test_a_commit_that_fails_forgets_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as state:
        assert state._database is not None
        state.note(WEB, position(1))
        await state.commit()
        pages = state._database.execute("pragma page_count").fetchone()[0]
        state._database.execute(f"pragma max_page_count = {pages}")
        for number in range(500):
            state.note(f"docker:{number}", position(number + 1))
        state.files["/a"] = length(1)
        state.gone(WEB)
        with pytest.raises(StateError, match=r"cannot store checkpoints in .*all\.db: .*full"):
            await state.commit()
        with trio.fail_after(5):
            await state.wait_changed()
        state.note("docker:7", position(1000))
        state._database.execute("pragma max_page_count = 100000")
        await state.commit()
    assert rows(tmp_path, "select count(*) from checkpoints") == [(501,)]
    assert rows(tmp_path, "select origin from checkpoints where gone is not null") == [(WEB,)]
    async with opened(tmp_path) as state:
        assert number_of(state.positions["docker:7"]) == 1000
        assert state.files == {"/a": length(1)}


async def test_details_that_cannot_be_stored_are_an_error_and_no_crash(tmp_path: Path) -> None:
    async with opened(tmp_path) as state:
        state.files["/a"] = FileLength("print", 1, 1, {"object": object()})
        with pytest.raises(StateError, match="cannot store checkpoints"):
            await state.commit()


async def test_a_disk_that_does_not_answer_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STORE_WITHIN_S", 0.05)
    async with opened(tmp_path) as state:
        answers = hanging_store(monkeypatch)
        state.note(WEB, position(1))
        state.files["/a"] = length(1)
        with pytest.raises(StateError, match="has not answered"):
            await state.commit()
        del state.files["/a"]
        state.note(WEB, position(2))
        answers.set()
        state.patience_s = 10
        await state.commit()
    async with opened(tmp_path) as state:
        assert number_of(state.positions[WEB]) == 2
        assert state.files == {}


async def test_a_disk_that_does_not_answer_at_the_start_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored(tmp_path)
    answers = threading.Event()
    load = StateFile._load

    def hang(file: StateFile) -> Contents:
        assert answers.wait(10)
        return load(file)

    monkeypatch.setattr(StateFile, "_load", hang)
    state = RouteState("all", tmp_path)
    with pytest.raises(StateError, match=r"cannot open .* has not answered for 0\.05 s") as error:
        await state.open(within_s=0.05)
    assert error.value.passing
    answers.set()
    await state.open(within_s=10)
    assert len(state.positions) == 299
    await state.close()


async def test_a_commit_is_not_cancelled_half_way(tmp_path: Path) -> None:
    async with opened(tmp_path) as state:
        state.note(WEB, position(1))
        with trio.CancelScope() as scope:
            async with state._lock:
                pass
            scope.cancel()
            with trio.CancelScope(shield=True):
                await state.commit()
        assert rows(tmp_path, "select count(*) from checkpoints") == [(1,)]


# --- what is gone -----------------------------------------------------------------------------------


async def test_a_checkpoint_is_kept_for_a_week_after_its_container_is_gone(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, clock=clock) as state:
        state.note(WEB, position(1))
        state.note(DB, position(1))
        state.gone(WEB)
        state.gone("docker:never-seen")
        await state.commit()
    clock.now += FORGET_AFTER_S - 1
    async with opened(tmp_path, clock=clock) as state:
        assert sorted(state.positions) == [DB, WEB]
    clock.now += 2
    async with opened(tmp_path, clock=clock) as state:
        assert sorted(state.positions) == [DB]


async def test_what_is_acknowledged_after_the_removal_does_not_bring_it_back(tmp_path: Path) -> None:
    """A container is gone when all of it was read; what was read may be delivered an hour later."""
    clock = Clock()
    async with opened(tmp_path, clock=clock) as state:
        state.note(WEB, position(1))
        state.gone(WEB)
        await state.commit()
        state.note(WEB, position(2))
        await state.commit()
        assert number_of(state.positions[WEB]) == 2
    clock.now += FORGET_AFTER_S + 1
    async with opened(tmp_path, clock=clock) as state:
        assert state.positions == {}


async def test_a_file_that_comes_back_is_gone_no_more(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, clock=clock) as state:
        state.note(WEB, position(1))
        state.gone(WEB)
        await state.commit()
    async with opened(tmp_path, clock=clock) as state:
        state.met(WEB)
        await state.commit()
    clock.now += FORGET_AFTER_S + 1
    async with opened(tmp_path, clock=clock) as state:
        assert number_of(state.positions[WEB]) == 1


async def test_a_daemon_that_runs_on_forgets_as_well(
    tmp_path: Path, no_threads: None, autojump_clock: trio.testing.MockClock
) -> None:
    clock = Clock()
    async with opened(tmp_path, clock=clock) as state:
        state.met(WEB)
        state.note(WEB, position(1))
        state.gone(WEB)
        await state.commit()
        clock.now += FORGET_AFTER_S + 1
        await trio.sleep(TIDY_EVERY_S)
        await state.commit()
        assert state.positions == {}
        assert rows(tmp_path, "select * from checkpoints") == []


async def test_a_container_that_was_removed_while_we_were_away_is_missed_and_forgotten(
    tmp_path: Path, no_threads: None, autojump_clock: trio.testing.MockClock
) -> None:
    clock = Clock()
    async with opened(tmp_path, clock=clock) as state:
        for origin in (WEB, DB, "file:/var/log/app.log"):
            state.met(origin)
            state.note(origin, position(1))
        await state.commit()
    async with opened(tmp_path, clock=clock) as state:
        state.met(WEB)
        await trio.sleep(TIDY_EVERY_S)
        await state.commit()
        assert rows(tmp_path, "select origin from checkpoints where gone is not null") == [(DB,)]
        assert DB in state.positions  # its engine may only have been away
    clock.now += FORGET_AFTER_S + 1
    async with opened(tmp_path, clock=clock) as state:
        # Nobody has looked at files in that run, so nobody knows whether it is gone.
        assert sorted(state.positions) == [WEB, "file:/var/log/app.log"]


# --- what cannot be used ----------------------------------------------------------------------------


async def stored(folder: Path) -> Path:
    async with opened(folder) as state:
        for number in range(1, 300):
            state.note(f"docker:{number}", position(number))
        await state.commit()
    return folder / "routes" / "all.db"


async def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "routes").write_text("a file")
    with pytest.raises(StateError, match=r"cannot open .*routes/all\.db: .*File exists"):
        await RouteState("all", tmp_path).open()
    (tmp_path / "other" / "routes" / "all.db").mkdir(parents=True)
    with pytest.raises(StateError, match="unable to open database file"):
        await RouteState("all", tmp_path / "other").open()


async def test_a_database_that_is_locked_is_no_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await stored(tmp_path)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", partial(connect, timeout=0.01))
    with closing(connect(path, isolation_level=None)) as other:
        other.execute("pragma locking_mode = exclusive")
        other.execute("begin exclusive")
        with pytest.raises(StateError, match="locked"):
            await RouteState("all", tmp_path).open()
    async with opened(tmp_path) as state:
        assert len(state.positions) == 299


async def test_small_blocks_of_a_file_system_keep_the_index_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk would be the end of the process there (the oracle has seen it)."""
    statvfs = os.statvfs

    class Small:
        f_bsize = 1024

    monkeypatch.setattr(os, "statvfs", lambda _path: Small())
    async with opened(tmp_path) as state:
        state.note(WEB, position(1))
        await state.commit()
        assert not (tmp_path / "routes" / "all.db-shm").exists()
    monkeypatch.setattr(os, "statvfs", statvfs)
    async with opened(tmp_path) as state:
        assert number_of(state.positions[WEB]) == 1
        assert (tmp_path / "routes" / "all.db-shm").exists()
