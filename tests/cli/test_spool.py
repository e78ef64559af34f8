"""`logroute spool`: what waits on the disk, with a daemon and without one."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result

from logroute.api.address import Address
from logroute.cli import main
from logroute.router import stored_spool
from logroute.router.queue import Queue
from logroute.router.record import Batch, Record
from logroute.router.state import RouteState
from logroute.router.system import sole_user_of
from logroute.router.times import iso_time
from tests.api.running import daemon_with, picky
from tests.router.stand_ins import batch, origin, time_of

ROOT = Path(__file__).parents[2]
NASTY = "red \x1b[31m and \x9b2J\u202e"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; no daemon, no configuration and no state but what a test has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "none"))
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("LOGROUTE_CONFIG", "LOGROUTE_API", "LOGROUTE_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@asynccontextmanager
async def spooled(
    state_dir: Path, route: str, groups: Sequence[Sequence[Batch]]
) -> AsyncIterator[RouteState]:
    """A route's state, open, with a row for each group in its spool."""
    state = RouteState(route, state_dir)
    await state.open()
    queue = Queue(state, 1 << 30, lambda: None)
    for group in groups:
        queue.put(group)
        await queue.spool(1 << 30, 1 << 30)
    try:
        yield state
    finally:
        with trio.CancelScope(shield=True):
            await state.close()


def said(message: str, number: int) -> Batch:
    of = batch(origin("db"), [number])
    of.lines[0] = Record(message, "stderr", time_of(number))
    return of


GROUPS = [[batch(origin("web"), [1, 2, 3]), said(NASTY, 4)], [batch(origin("web"), [5, 6])]]


@pytest.fixture
def state(folder: Path) -> Path:
    """The state of a daemon that does not run: six records of `a/b` in two rows, none of `audit`."""

    async def make() -> None:
        for route, groups in (("a/b", GROUPS), ("audit", [])):
            async with spooled(folder / "state", route, groups):
                pass

    trio.run(make)
    return folder / "state"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["spool", *arguments], prog_name="logroute")


def messages(lines: str) -> list[str]:
    return [json.loads(line)["message"] for line in lines.splitlines()]


def database_of(state: Path, route: str = "a%2Fb") -> Path:
    return state / "routes" / f"{route}.db"


# --- what waits -------------------------------------------------------------------------------------


def test_how_much_waits_is_said_by_route(state: Path) -> None:
    done = run("list", "--state-dir", str(state))
    assert (done.exit_code, done.stderr) == (0, "")
    head, full, empty = done.stdout.splitlines()
    assert head.split() == ["ROUTE", "RECORDS", "BYTES", "STORED", "OLDEST", "AGE"]
    assert re.fullmatch(r"a/b +6 +600 B +\d+ B  2026-11-23 20:06:26 +\d+[dhms]( \d+[hms])?", full)
    assert empty.split() == ["audit", "0", "0", "B", "0", "B", "-", "-"]
    found = json.loads(run("list", "--state-dir", str(state), "-o", "json").stdout)
    stored, age_s = found["a/b"].pop("stored_bytes"), found["a/b"].pop("age_s")
    assert stored > 0
    assert age_s >= 0
    assert found["a/b"] == {"records": 6, "bytes": 600, "oldest": time_of(1), "damaged": 0}
    assert found["audit"]["oldest"] is None


@pytest.mark.parametrize(
    ("ago_s", "age"), [(3 * 3600 + 90, "3h 1m"), (2 * 86400 + 7300, "2d 2h"), (-900, "0s")]
)
def test_the_age_is_that_of_the_oldest_record(folder: Path, ago_s: int, age: str) -> None:
    old = said("m", 1)
    old.lines[0].time = iso_time(time.time_ns() - ago_s * 10**9)

    async def make() -> None:
        async with spooled(folder / "state", "r", [[old], [said("later", 2)]]):
            pass

    trio.run(make)
    assert run("list", "--state-dir", "state").stdout.splitlines()[1].endswith(f"  {age}")


def test_records_are_shown_as_sinks_write_them_in_the_order_of_their_delivery(state: Path) -> None:
    done = run("show", "a/b", "--state-dir", str(state))
    assert (done.exit_code, done.stderr) == (0, "")
    assert messages(done.stdout) == ["1", "2", "3", NASTY, "5", "6"]
    record = json.loads(done.stdout.splitlines()[3])
    assert (record["@timestamp"], record["stream"], record["container"]["name"]) == (
        time_of(4),
        "stderr",
        "db",
    )
    assert run("show", "audit", "--state-dir", str(state)).stdout == ""


@pytest.mark.parametrize("count", [1, 3, 4, 5, 6, 9])
def test_only_so_many_are_shown_as_were_asked_for(state: Path, count: int) -> None:
    done = run("show", "a/b", "-n", str(count), "--state-dir", str(state))
    assert messages(done.stdout) == ["1", "2", "3", NASTY, "5", "6"][:count]


@pytest.mark.parametrize("arguments", [[], ["-o", "json"], ["-o", "text"]])
def test_a_terminal_gets_text_and_no_record_controls_it(state: Path, arguments: list[str]) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "logroute", "spool", "show", "a/b", "--state-dir", str(state)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        subprocess.run([*command, *arguments], stdout=theirs, env=environment, check=True)
        os.close(theirs)
        shown = b""
        try:
            while part := terminal.read(4096):
                shown += part
        except OSError:  # how Linux says that nobody has the other end any more
            pass
    text = shown.decode()
    assert not set(text) & {"\x1b", "\x9b", "\u202e"}
    lines = text.splitlines()
    assert len(lines) == 6
    if arguments == ["-o", "json"]:
        assert json.loads(lines[3])["message"] == NASTY
    else:
        assert lines[3] == f"{time_of(4)} db: red \\u001b[31m and \\u009b2J\\u202e"


# --- whoever else has it ----------------------------------------------------------------------------


async def test_it_is_read_while_a_daemon_has_it_open(folder: Path) -> None:
    async with spooled(folder / "state", "r", GROUPS) as state:
        with sole_user_of(folder / "state"):
            done = await trio.to_thread.run_sync(run, "show", "r", "--state-dir", "state")
            assert messages(done.stdout) == ["1", "2", "3", NASTY, "5", "6"]
            state.remove_row(1)
            await state.commit()
            done = await trio.to_thread.run_sync(run, "show", "r", "--state-dir", "state")
            assert messages(done.stdout) == ["5", "6"]


async def test_what_a_container_that_came_meanwhile_said_is_read_as_well(folder: Path) -> None:
    async with spooled(folder / "state", "r", GROUPS) as state:
        assert state.path is not None
        found = stored_spool.rows(state.path)
        next(found)
        await state.put_rows([[batch(origin("new"), [7])]], lambda _: None)
        rest = [each for each in found if isinstance(each, list)]
        assert [[part.origin.name for part in each] for each in rest] == [["web"], ["new"]]


async def test_a_reader_in_the_middle_does_not_hold_up_the_log_of_the_database(folder: Path) -> None:
    async with spooled(folder / "state", "r", GROUPS) as state:
        assert state.path is not None
        found = stored_spool.rows(state.path)
        next(found)
        next(found)
        await state.put_rows([[batch(origin(), [7])]], lambda _: None)
        assert state._database is not None
        (busy, *_) = state._database.execute("pragma wal_checkpoint(truncate)").fetchone()
        assert busy == 0
        assert len(list(found)) == 1


async def test_a_state_whose_daemon_was_killed_is_read_with_its_log(folder: Path) -> None:
    async with spooled(folder / "state", "r", GROUPS):
        await trio.to_thread.run_sync(shutil.copytree, folder / "state", folder / "killed")
    assert (folder / "killed" / "routes" / "r.db-wal").stat().st_size > 0
    assert messages(run("show", "r", "-n", "2", "--state-dir", "killed").stdout) == ["1", "2"]


async def test_a_daemon_that_runs_says_where_its_state_is(folder: Path) -> None:
    async with spooled(folder / "s", "other", GROUPS):
        pass
    address = Address(path=str(folder / "run" / "logroute.sock"))
    async with daemon_with(folder / "s", {"r": picky()}, [1], address=address):
        for arguments in ([], ["--api", f"unix://{folder}/run/logroute.sock"]):
            command = [sys.executable, "-m", "logroute", "spool", "list", "-o", "json", *arguments]
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            done = await trio.run_process(command, capture_stdout=True, env=environment)
            assert {name: of["records"] for name, of in json.loads(done.stdout).items()} == {
                "other": 6,
                "r": 0,
            }


def test_the_configuration_says_where_the_state_is(state: Path, folder: Path) -> None:
    (folder / "logroute.yaml").write_text(f"state_dir: {state}\nroutes: {{r: {{sink: 'null:'}}}}\n")
    assert "a/b" in json.loads(run("list", "-o", "json").stdout)
    (folder / "logroute.yaml").write_text("routes: {}\n")
    done = run("list")
    assert done.exit_code == 2
    assert "logroute.yaml:1:1" in done.stderr


# --- what cannot be read ----------------------------------------------------------------------------


def test_a_row_that_cannot_be_read_is_said_and_hides_no_other(state: Path) -> None:
    with closing(sqlite3.connect(database_of(state))) as database, database:
        database.execute("update spool set body = x'00' where id = 1")
    done = run("show", "a/b", "--state-dir", str(state))
    assert done.exit_code == 1
    assert messages(done.stdout) == ["5", "6"]
    assert done.stderr.startswith("row 1 of route a/b cannot be read, with its 4 records: ")
    with closing(sqlite3.connect(database_of(state))) as database, database:
        database.execute("insert into damaged select * from spool where id = 1")
        database.execute("delete from spool where id = 1")
    done = run("list", "--state-dir", str(state))
    assert done.stdout.endswith("\nroute a/b: 4 more records could not be read, and were put aside\n")


def test_what_is_not_there_is_said(state: Path) -> None:
    done = run("show", "serch", "--state-dir", str(state))
    assert (done.exit_code, done.stderr) == (
        1,
        f"there is no route serch in {state}; there are: a/b, audit\n",
    )
    done = run("list", "--state-dir", "nowhere")
    assert (done.exit_code, done.stderr) == (
        1,
        "nowhere is no state_dir: there is no folder `routes` in it\n",
    )
    assert not Path("nowhere").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("newer", "was written by a newer logroute (format 99"),
        (b"no database", "not a database"),
        (b"", "no state yet"),
    ],
)
def test_a_file_that_is_no_state_of_ours_is_named_and_left_as_it_is(
    state: Path, content: str | bytes, words: str
) -> None:
    path = database_of(state)
    if isinstance(content, bytes):
        path.write_bytes(content * 100)
    else:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("update meta set value = '99' where key = 'version'")
    before = path.read_bytes()
    for arguments in (["list"], ["show", "a/b"]):
        done = run(*arguments, "--state-dir", str(state))
        assert done.exit_code == 1
        assert str(path) in done.stderr
        assert words in done.stderr
    assert path.read_bytes() == before
