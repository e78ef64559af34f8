"""A state that is damaged: what can be read of it is kept, and it is said what is not."""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.testing

from logroute.router import state_file as module
from logroute.router.database import PAGE_BYTES, StateError
from logroute.router.dead_letters import Letter
from logroute.router.own_state import OwnState, Remembered
from logroute.router.queue import Queue
from logroute.router.record import Batch, Record
from logroute.router.state import RouteState
from logroute.router.state_file import VERSION, StateFile
from logroute.router.times import iso_time
from tests.router.stand_ins import hanging_store, number_of, origin, position
from tests.router.test_state import WEB, opened, stored

T = TypeVar("T")


def at(offset: int) -> str:
    """A position, as it is stored."""
    return f'{{"stdout": {{"place": {{"file": "f", "offset": {offset}}}}}}}'


@pytest.mark.parametrize(
    "damage",
    ["garbage", "cut", "middle", "position", "negative", "huge", "version", "details", "list", "length"],
)
async def test_a_damaged_state_is_moved_aside_with_a_loud_word(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can be read of it is kept; who has forgotten how far it was begins with everything there is."""
    path = await stored(tmp_path)
    data = path.read_bytes()
    assert len(data) > 20_000
    if damage == "garbage":
        path.write_bytes(b"no database at all " * 1000)
    elif damage == "cut":
        path.write_bytes(data[:9000])
    elif damage == "middle":
        destroy_page(path, b"docker:150")
    else:
        change = {
            "position": "update checkpoints set position = '{' where origin = 'docker:7'",
            "version": "update meta set value = 'seven' where key = 'version'",
            "negative": f"update checkpoints set position = '{at(-1)}' where origin = 'docker:7'",
            "huge": f"update checkpoints set position = '{at(1 << 63)}' where origin = 'docker:7'",
            "details": "insert into files values ('/a', 'f', 1, 1, '{')",
            "list": "insert into files values ('/a', 'f', 1, 1, '[1]')",
            "length": "insert into files values ('/a', 'f', 1, -1, null)",
        }[damage]
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(change)
    async with opened(tmp_path) as state:
        kept = state.positions
        assert all(f"docker:{number_of(position)}" == origin for origin, position in kept.items())
        if damage in ("garbage", "cut"):
            assert kept == {}
        elif damage == "middle":
            assert 0 < len(kept) < 299
            assert "docker:150" not in kept
        else:
            assert len(kept) == 299 - (damage in ("position", "negative", "huge"))
        assert (state.born == 0.0) == (damage not in ("version", "details", "list", "length"))
        state.note(WEB, position(1))
        await state.commit()
    async with opened(tmp_path) as state:
        assert state.positions == kept | {WEB: position(1)}
    (aside,) = path.parent.glob("all.db.corrupt-*[0-9]")
    assert len(aside.read_bytes()) in (len(data), 9000, 19000)
    said = capsys.readouterr().out
    assert "moved aside" in said
    assert str(aside) in said


def destroy_page(path: Path, text: bytes) -> None:
    """Overwrite the page with this text. It must be one that is read: others would not be noticed."""
    data = path.read_bytes()
    page = data.index(text) // PAGE_BYTES * PAGE_BYTES
    path.write_bytes(data[:page] + b"\xa5" * PAGE_BYTES + data[page + PAGE_BYTES :])


async def spooled(tmp_path: Path, rows: int) -> Path:
    """A spool of so many rows of ten records, each of several pages, no page of two rows."""
    chance = random.Random(1)
    async with opened(tmp_path) as state:
        queue = Queue(state, 1 << 20, lambda: None)
        for row in range(rows):
            texts = [f"{row} {each} {chance.randbytes(3000).hex()}" for each in range(10)]
            records = [
                Record(text, "stdout", iso_time(row * 10**9 + each)) for each, text in enumerate(texts)
            ]
            where = position(row)
            queue.put([Batch(origin(), records, before=where, after=where, size_bytes=1, ready=True)])
            await queue.spool(1, 1)
    return tmp_path / "routes" / "all.db"


async def drained(state: RouteState) -> tuple[list[int], int]:
    """Take everything out: the rows that came, and how many records were damaged."""
    queue = Queue(state, 1 << 20, lambda: None)
    queue.load()
    came: list[int] = []
    damaged = 0
    queue.close()
    while True:
        group = await again(partial(queue.take, 1 << 20, 1000, 0))
        if group is None:
            return came, damaged
        if group.damaged:
            damaged += group.records
        else:
            came.append(int(group.batches[0].records[0].message.split()[0]))
        queue.finish(group)
        await again(state.commit)


async def again(work: Callable[[], Awaitable[T]]) -> T:
    """Once more where the file had to be made anew."""
    try:
        return await work()
    except StateError as error:
        if "it was damaged" not in str(error):
            raise
        return await work()


@pytest.mark.parametrize("table", ["spool", "origins", "checkpoints"])
async def test_a_page_that_is_damaged_while_we_run_costs_what_lay_on_it(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = await spooled(tmp_path, 20)
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "insert into checkpoints select 'docker:' || id, position, 1, null from spool, checkpoints"
        )
        database.commit()
        pages = [
            number
            for (number,) in database.execute(
                "select pageno from dbstat where name = ? and pagetype = 'leaf' order by path", (table,)
            )
        ]
    async with opened(tmp_path) as state:
        known = state.positions
        page = (pages[len(pages) // 2] - 1) * PAGE_BYTES
        with path.open("r+b") as file:
            file.seek(page)
            file.write(b"\xa5" * PAGE_BYTES)
        came, damaged = await drained(state)
        state.note(WEB, position(1))
        await again(state.commit)
        await state.commit()
        assert len(came) * 10 + damaged == 200
        assert came == sorted(came)
        assert len(came) >= (18 if table == "spool" else 20)
    async with opened(tmp_path) as state:
        assert state.positions == known | {WEB: position(1)}
        assert state.spooled.records == 0
    said = capsys.readouterr().out
    if table == "spool":
        assert "moved aside" in said


async def test_what_a_damaged_spool_had_and_cannot_be_read_is_counted_at_the_start(tmp_path: Path) -> None:
    path = await spooled(tmp_path, 20)
    with closing(sqlite3.connect(path)) as database:
        (leaf,) = database.execute(
            "select pageno from dbstat where name = 'spool' and pagetype = 'leaf' limit 1 offset 5"
        ).fetchone()
        database.execute("update meta set value = 'seven' where key = 'version'")
        database.commit()
    with path.open("r+b") as file:
        file.seek((leaf - 1) * PAGE_BYTES)
        file.write(b"\xa5" * PAGE_BYTES)
    async with opened(tmp_path) as state:
        assert state.lost_records in (10, 20)
        assert state.spooled.records == 200 - state.lost_records
        came, damaged = await drained(state)
        assert (len(came) * 10, damaged) == (state.spooled.records, 0)


async def test_a_kill_while_a_state_is_made_anew_leaves_one_that_is_whole(tmp_path: Path) -> None:
    path = await stored(tmp_path)
    fresh = path.with_name("all.db.anew")
    fresh.write_bytes(b"half of one")
    async with opened(tmp_path) as state:
        assert len(state.positions) == 299
    path.rename(fresh)  # between the two renames
    async with opened(tmp_path) as state:
        assert len(state.positions) == 299


@pytest.mark.parametrize("removed", ["file", "folder"])
async def test_a_state_that_somebody_removes_while_we_run_is_written_again(
    tmp_path: Path, removed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = await spooled(tmp_path, 3)
    async with opened(tmp_path) as state:
        state.bury([Letter(origin(), Record("bad", "stdout", iso_time(7)), "no")])
        await state.commit()
        if removed == "file":
            path.unlink()
        else:
            shutil.rmtree(path.parent)
        state.note(WEB, position(9))
        await state.commit()
        state.note(WEB, position(10))
        await state.commit()
        # As after kill -9, with what SQLite keeps beside it.
        shutil.copytree(path.parent, tmp_path / "later" / "routes")
    for folder in (tmp_path / "later", tmp_path):
        async with opened(folder) as state:
            assert state.positions[WEB] == position(10)
            assert state.newest_letter == 1
            assert await drained(state) == ([0, 1, 2], 0)
    assert capsys.readouterr().out.count("was removed while we run") == 1


async def test_a_state_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = await stored(tmp_path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("update meta set value = ? where key = 'version'", (str(VERSION + 1),))
        database.execute("alter table spool rename column size_bytes to bytes")
        database.execute("drop table deadletters")
    before = path.read_bytes()
    with pytest.raises(
        StateError, match=r"all\.db was written by a newer logroute \(format 4, .* use that version"
    ):
        await RouteState("all", tmp_path).open()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "tables",
    [
        "create table checkpoints (a, b)",
        "create table meta (name text, number integer)",
        "create table meta (key text, value text)",
        "create table files (path text primary key)",
    ],
)
async def test_somebody_elses_database_is_moved_aside(
    tmp_path: Path, tables: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "routes" / "all.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(tables)
    before = path.read_bytes()
    async with opened(tmp_path) as state:
        assert state.positions == {}
        assert state.born
    (aside,) = path.parent.glob("all.db.corrupt-*[0-9]")
    assert aside.read_bytes() == before
    assert "it was not a state of a route" in capsys.readouterr().out


def damage(path: Path, table: str, which: float = 0.5) -> None:
    """Overwrite one leaf page of a table, or of an index: 0 is the first, 1 the last."""
    with closing(sqlite3.connect(path)) as database:
        pages = [
            number
            for (number,) in database.execute(
                "select pageno from dbstat where name = ? and pagetype = 'leaf' order by path", (table,)
            )
        ]
    with path.open("r+b") as file:
        file.seek((pages[min(len(pages) - 1, int(which * len(pages)))] - 1) * PAGE_BYTES)
        file.write(b"\xa5" * PAGE_BYTES)


def meets_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next transaction meets a page that cannot be read."""
    store = RouteState._store

    def once(self: RouteState, *args: object) -> object:
        monkeypatch.setattr(RouteState, "_store", store)
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    monkeypatch.setattr(RouteState, "_store", once)


class Held:
    """Making anew waits until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = threading.Event()
        self.began = threading.Event()
        salvage = module.salvage

        def hold(damaged: Path, fresh: sqlite3.Connection) -> module.Salvaged:
            self.began.set()
            assert self.go_on.wait(10)
            return salvage(damaged, fresh)

        monkeypatch.setattr(module, "salvage", hold)


async def test_making_anew_may_take_longer_than_anybody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored(tmp_path)
    async with opened(tmp_path) as state:
        known = state.positions
        held = Held(monkeypatch)
        meets_damage(monkeypatch)
        state.patience_s = 0.05
        state.note("docker:7", position(8))
        with pytest.raises(StateError, match="has not answered"):
            await state.commit()
        held.go_on.set()
        state.patience_s = 10
        with pytest.raises(StateError, match="made anew meanwhile"):
            await state.commit()
        await state.commit()
    async with opened(tmp_path) as state:
        assert state.positions.keys() == known.keys()
        assert state.born


async def test_two_never_make_the_same_file_anew_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first was not open in time, and another takes its place."""
    path = await stored(tmp_path)
    damage(path, "checkpoints")
    held = Held(monkeypatch)
    first, second = RouteState("all", tmp_path), RouteState("all", tmp_path)
    with pytest.raises(StateError, match="has not answered"):
        await first.open(within_s=0.05)
    assert held.began.wait(10)
    with trio.move_on_after(0.05):
        await first.close()
    with pytest.raises(StateError, match="has not answered"):
        await second.open(within_s=0.05)
    held.go_on.set()
    await second.open(within_s=10)
    assert 0 < len(second.positions) < 299
    assert len(list(path.parent.glob("all.db.corrupt-*[0-9]"))) == 1
    assert first._database is None
    await second.close()


async def test_a_close_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await stored(tmp_path)
    go_on = threading.Event()
    close = StateFile.close

    def hang(file: StateFile) -> None:
        assert go_on.wait(10)
        close(file)

    state = RouteState("all", tmp_path)
    await state.open()
    monkeypatch.setattr(StateFile, "close", hang)
    with trio.move_on_after(0.05) as scope:
        await state.close()
    assert scope.cancelled_caught
    go_on.set()
    await state.close()


async def test_who_hurries_shortens_what_is_waited_for_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as state:
        go_on = hanging_store(monkeypatch)
        state.note(WEB, position(1))

        async def hurry() -> None:
            await trio.testing.wait_all_tasks_blocked(0.05)
            state.patience_s = 0.01

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hurry)
                with pytest.raises(StateError, match="has not answered"):
                    await state.commit()
        go_on.set()
        state.patience_s = 10


async def test_a_lost_number_of_an_origin_never_means_another(tmp_path: Path) -> None:
    names = [f"c{number}-{'x' * 200}" for number in range(200)]
    async with opened(tmp_path) as state:
        queue = Queue(state, 1 << 20, lambda: None)
        for number, name in enumerate(names):
            record = Record(name, "stdout", iso_time(number))
            where = position(number)
            queue.put([Batch(origin(name), [record], before=where, after=where, size_bytes=1, ready=True)])
        await queue.spool(1, 1)
    path = tmp_path / "routes" / "all.db"
    damage(path, "origins", 1)
    async with opened(tmp_path) as state:
        queue = Queue(state, 1 << 20, lambda: None)
        queue.load()
        record = Record("new", "stdout", iso_time(1000))
        where = position(1000)
        news = [
            Batch(origin(f"new{number}"), [record], before=where, after=where, size_bytes=1, ready=True)
            for number in range(100)
        ]
        queue.put(news)
        await queue.spool(1, 1)
        queue.close()
        damaged = 0
        while (group := await queue.take(1 << 20, 1, 0)) is not None:
            damaged += group.records if group.damaged else 0
            for each in group.batches:
                message = each.records[0].message
                assert each.origin.name == message or (message == "new" and each.origin.name[:3] == "new")
            queue.finish(group)
        assert damaged


async def test_a_full_disk_loses_nothing_of_what_can_be_read(small_disk: Path) -> None:
    path = await spooled(small_disk, 4)
    damage(path, "checkpoints")
    ballast = small_disk / "ballast"
    for free in (150_000, 250_000, 350_000):
        room = shutil.disk_usage(small_disk).free + (ballast.stat().st_size if ballast.exists() else 0)
        ballast.write_bytes(b"x" * max(0, room - free))
        with pytest.raises(StateError, match="free some space") as error:
            await RouteState("all", small_disk).open()
        assert error.value.passing
        assert [file.name for file in path.parent.iterdir() if "anew" in file.name] == []
    ballast.unlink()
    async with opened(small_disk) as state:
        assert state.spooled.records == 40


def test_on_a_full_disk_it_is_known_what_was_made_by_api(small_disk: Path) -> None:
    own = OwnState(small_disk)
    own.set_route("made", {"sink": "null:"})
    own.set_paused("made", 1.0)
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    assert shutil.disk_usage(small_disk).free == 0
    assert own.load() == (Remembered({"made": {"sink": "null:"}}, {"made": 1.0}), "")
    with pytest.raises(StateError, match="free some space"):
        own.set_paused("made", None)


async def test_a_table_that_has_other_columns_is_not_read(tmp_path: Path) -> None:
    path = await stored(tmp_path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("drop table deadletters")
        database.execute("create table deadletters (id integer primary key, size_bytes integer)")
        database.execute("insert into deadletters values (1, 2)")
        database.execute("update meta set value = 'seven' where key = 'version'")
        database.commit()
    async with opened(tmp_path) as state:
        assert len(state.positions) == 299
        assert state.dead.letters == 0


async def test_dead_letters_are_counted_right_after_a_file_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as state:
        for number in range(200):
            state.bury([Letter(origin(), Record(f"{number} " + "x" * 300, "stdout", iso_time(number)), "no")])
        await state.commit()
        meets_damage(monkeypatch)
        state._changes.letters_removed |= set(range(1, 51))
        state._without(dict.fromkeys(range(1, 51), 1))
        await again(state.commit)
        letters = await state.letters(count=1000)
        assert state.dead.letters == len(letters) == 150
        assert state.dead.size_bytes == sum(letter.size_bytes for letter in letters)
