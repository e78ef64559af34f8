"""`logroute deadletters` and `logroute health`: with a daemon, and without one."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result

from logroute.api.address import Address
from logroute.cli import main
from logroute.router.dead_letters import Letter
from logroute.router.record import Record
from logroute.router.state import RouteState
from logroute.router.system import sole_user_of
from tests.api.running import daemon_with, picky, until
from tests.router.stand_ins import StandInSink, origin, time_of


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


@pytest.fixture
def state(folder: Path) -> Path:
    """The state of a daemon that does not run: three dead letters of `search`, none of `audit`."""

    async def make() -> None:
        for name in ("search", "audit"):
            route = RouteState(name, folder / "state", clock=lambda: 1_790_000_000.0)
            await route.open()
            if name == "search":
                said = ["one", "two \x1b[31mred\x1b[0m\nand more", "x" * 200]
                for number, message in enumerate(said, 1):
                    record = Record(message, "stdout", time_of(number))
                    route.bury([Letter(origin(), record, f"400: bad {number}\x07")])
            await route.commit()
            await route.close()

    trio.run(make)
    return folder / "state"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="logroute")


def letters(*arguments: str, state: Path) -> Result:
    return run("deadletters", *arguments, "--state-dir", str(state))


# --- without a daemon -------------------------------------------------------------------------------


def test_without_a_route_it_says_how_many_there_are_by_route(state: Path) -> None:
    for arguments in ([], ["list"]):
        done = letters(*arguments, state=state)
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout == (
            "ROUTE   LETTERS   SIZE  OLDEST               NEWEST\n"
            "audit         0    0 B  -                    -\n"
            "search        3  2 KiB  2026-09-21 14:13:20  2026-09-21 14:13:20\n"
        )


def test_a_routes_letters_fit_the_terminal_and_cannot_control_it(state: Path) -> None:
    done = letters("list", "search", state=state)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[:3] == ["     1  2026-09-21 14:13:20  web", "        400: bad 1\\u0007", "        > one"]
    assert lines[5] == "        > two \\u001b[31mred\\u001b[0m ⏎ and more"
    assert all(len(line) <= 80 for line in lines)
    assert lines[8].endswith("x…")
    done = letters("list", "search", "--after", "1", "-n", "1", state=state)
    assert done.stdout.splitlines()[0].split()[0] == "2"
    assert done.stdout.endswith("there are more: --after 2\n")


def test_the_end_of_a_long_reason_is_in_the_list(state: Path) -> None:
    async def bury() -> None:
        route = RouteState("audit", state)
        await route.open()
        reason = "400: " + "because " * 20 + "of [status]"
        route.bury([Letter(origin(), Record("m", "stdout", time_of(1)), reason)])
        await route.commit()
        await route.close()

    trio.run(bury)
    lines = letters("list", "audit", state=state).stdout.splitlines()
    assert len(lines) == 5
    assert lines[3].endswith("of [status]")
    assert all(len(line) <= 80 for line in lines)


def test_one_is_shown_with_its_whole_record(state: Path) -> None:
    done = letters("show", "search", "3", state=state)
    assert done.exit_code == 0
    assert done.stdout.startswith("route      search\ncontainer  web\nrejected   2026-09-21T14:13:20")
    assert "x" * 200 in done.stdout
    assert "\x07" not in done.stdout
    done = letters("show", "search", "3", "-o", "json", state=state)
    record = json.loads(done.stdout)["record"]
    assert (record["message"], record["@timestamp"]) == ("x" * 200, time_of(3))


def test_they_are_dropped_and_replayed_into_the_spool(state: Path) -> None:
    assert letters("drop", "search", "2", state=state).stdout == "1 dead letter dropped\n"
    done = letters("replay", "search", "1", "2", state=state)
    assert done.stdout == "1 of 2 dead letters replayed; they are delivered when the daemon runs\n"
    assert done.exit_code == 1
    assert "the others are not there" in done.stderr
    done = letters("replay", "search", "--all", "-o", "json", state=state)
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"replayed": 1})
    assert letters(state=state).stdout == "there are no dead letters\n"

    async def spooled() -> int:
        route = RouteState("search", state)
        await route.open()
        await route.close()
        return route.spooled.records

    assert trio.run(spooled) == 2


def test_the_configuration_says_where_the_state_is(state: Path, folder: Path) -> None:
    config = folder / "x.yaml"
    config.write_text(f"state_dir: {state}\nroutes: {{search: {{sink: 'null:'}}}}\n")
    done = run("deadletters", "list", "-c", str(config), "-o", "json")
    assert json.loads(done.stdout)["search"]["letters"] == 3
    config.write_text("routes: {}\n")
    done = run("deadletters", "list", "-c", str(config))
    assert done.exit_code == 2
    assert "x.yaml:1:1" in done.stderr


def test_which_ones_must_be_said(state: Path) -> None:
    for arguments in (["replay", "search"], ["drop", "search", "1", "--all"]):
        done = letters(*arguments, state=state)
        assert done.exit_code == 2
        assert "say which: their numbers, or --all" in done.stderr
    assert json.loads(letters("list", "-o", "json", state=state).stdout)["search"]["letters"] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list", "serch"], "there is no route serch in {state}; there are: audit, search\n"),
        (["show", "search", "9"], "route search has no dead letter 9\n"),
    ],
)
def test_what_is_not_there_is_said(state: Path, arguments: list[str], said: str) -> None:
    done = letters(*arguments, state=state)
    assert (done.exit_code, done.stderr) == (1, said.format(state=state))


def test_a_folder_that_is_no_state_stays_as_it_is(folder: Path) -> None:
    done = letters("list", state=folder / "nowhere")
    assert done.exit_code == 1
    assert "is no state_dir" in done.stderr
    assert not (folder / "nowhere").exists()


def test_with_neither_a_daemon_nor_state_it_says_what_to_type() -> None:
    done = run("deadletters")
    assert done.exit_code == 1
    for word in ("no daemon answers at unix://", "--api URL", "--state-dir DIR", "-c FILE"):
        assert word in done.stderr
    done = run("deadletters", "list", "--api", "nonsense")
    assert done.exit_code == 2
    assert "is no address of an API" in done.stderr


def test_a_state_that_a_daemon_uses_is_left_to_it(state: Path) -> None:
    with sole_user_of(state):
        done = letters("list", state=state)
    assert done.exit_code == 1
    assert f"another logroute (process {os.getpid()}) uses state_dir" in done.stderr


# --- with a daemon ----------------------------------------------------------------------------------


async def typed(*arguments: str) -> tuple[int, str, str]:
    """In a process of its own: the daemon is in this one."""
    done = await trio.run_process(
        [sys.executable, "-m", "logroute", *arguments],
        capture_stdout=True, capture_stderr=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_a_daemon_that_runs_is_asked(folder: Path) -> None:
    address = Address(path=str(folder / "run" / "logroute.sock"))
    where = folder / "s"
    async with daemon_with(where, {"r": picky(1, 2, 3)}, range(1, 5), address=address) as daemon:
        route = daemon.router.routes["r"]
        await until(lambda: route.statistics().rejected == 3)
        code, out, _ = await typed("deadletters")
        assert code == 0
        assert out.splitlines()[1].split()[:2] == ["r", "3"]
        assert (await typed("deadletters", "drop", "r", "1"))[:2] == (0, "1 dead letter dropped\n")
        route.sink.dislikes = frozenset()  # type: ignore[attr-defined]
        # The daemon has the lock of this state, and is therefore asked.
        answer = await typed("deadletters", "replay", "r", "--all", "--state-dir", str(where))
        assert answer[:2] == (0, "2 dead letters replayed\n")
        await until(lambda: not route.undelivered)
        assert isinstance(route.sink, StandInSink)
        assert sorted(route.sink.messages) == ["2", "3", "4"]
        code, _, err = await typed("deadletters", "list", "x")
        assert (code, err) == (1, "there is no route x; there are: r\n")


async def test_health_is_an_exit_code_and_a_line_a_route(folder: Path) -> None:
    address = Address(path=str(folder / "run" / "logroute.sock"))
    code, _, err = await typed("health")
    assert code == 1
    assert "no daemon answers at unix://" in err

    def broken(route: Any) -> StandInSink:
        return StandInSink(route, [OSError("no\x1b way")] * 1000)

    async with daemon_with(None, {"r": picky(), "search": broken}, [1], address=address) as daemon:
        await until(lambda: not daemon.router.routes["search"].statistics().up)
        code, out, _ = await typed("health")
        assert code == 1
        first, second = out.splitlines()
        assert first == "r       delivers"
        assert second.startswith("search  down since 20")
        assert second.endswith(": no\\u001b way")
    async with daemon_with(None, {"r": picky()}, [1], address=address):
        assert (await typed("health"))[:2] == (0, "r  delivers\n")
        code, out, _ = await typed("health", "-o", "json", "--api", str(address))
        assert json.loads(out)["healthy"] is True


async def test_over_tcp_the_token_comes_from_a_file(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = Address(host="127.0.0.1", port=free.getsockname()[1])
    token = await trio.Path(folder / "token").write_text("s3cret\n")
    assert token
    async with daemon_with(None, {"r": picky()}, address=address, token="s3cret"):
        code, _, err = await typed("health", "--api", f"http://{address}")
        assert code == 1
        assert "needs the token" in err
        assert "--token-file" in err
        assert (await typed("health", "--api", f"http://{address}", "--token-file", "token"))[0] == 0
