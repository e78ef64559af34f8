"""What the docs show of the files in `state_dir`: each `sqlite3` line of a shell block, and the tables.

They are asked of a state that a route has written and still has open.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from logroute.router.dead_letters import Letter
from logroute.router.queue import Queue
from logroute.router.record import Record
from logroute.router.state import RouteState
from tests.config.test_docs import ROOT, blocks
from tests.router.stand_ins import batch, origin, time_of

Ask = Callable[[Path, str], list[tuple[str, ...]]]

STATE_DIR = Path("/var/lib/logroute")
"""As the docs have it."""


def statements() -> dict[str, tuple[Path, str]]:
    """By its place: the file of a statement, below `STATE_DIR`, and the statement."""
    found = {}
    for place, _, text in blocks("sh"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["sqlite3"]:
                _, path, statement = words
                found[place] = (Path(path).relative_to(STATE_DIR), statement)
    return found


STATEMENTS = statements()


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[RouteState]:
    """The route `search`, with five records in two rows of its spool, and three dead letters."""
    state = RouteState("search", tmp_path)
    await state.open()
    queue = Queue(state, 1 << 20, lambda: None)
    queue.put([batch(origin("web"), [1, 2, 3]), batch(origin("db"), [4, 5])])
    await queue.spool(1 << 20, 3)
    for number, reason in ((6, "too large"), (7, "no date"), (8, "too large")):
        state.bury([Letter(origin("web"), Record(str(number), "stdout", time_of(number)), reason)])
    await state.commit()
    yield state
    await state.close()


@pytest.fixture(params=["module", "tool"])
def ask(request: pytest.FixtureRequest, tmp_path: Path) -> Ask:
    """Run one of the statements: its rows."""

    def by_module(path: Path, statement: str) -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(tmp_path / path)) as database:
            return [tuple(map(str, row)) for row in database.execute(statement)]

    def by_tool(path: Path, statement: str) -> list[tuple[str, ...]]:
        if shutil.which("sqlite3") is None:
            pytest.skip("there is no sqlite3 tool")
        command = ["sqlite3", str(tmp_path / path), statement]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        return [tuple(line.split("|")) for line in done.stdout.splitlines()]

    return by_module if request.param == "module" else by_tool


EXPECTED = {
    "docs/delivery.md": [("2", "5", "{stored}", time_of(1))],
    "docs/deadletters.md": [("2", "web", "too large"), ("1", "web", "no date")],
}


@pytest.mark.parametrize("place", STATEMENTS)
async def test_a_statement_says_what_the_docs_say_it_does(state: RouteState, ask: Ask, place: str) -> None:
    stored = str(sum(len(body) for (body,) in database(state).execute("select body from spool")))
    page = place.partition(":")[0]
    expected = [tuple(value.format(stored=stored) for value in row) for row in EXPECTED[page]]
    assert ask(*STATEMENTS[place]) == expected


def test_the_statements_are_found() -> None:
    assert {place.partition(":")[0] for place in STATEMENTS} == EXPECTED.keys()


async def test_the_documented_tables_are_those_that_there_are(state: RouteState) -> None:
    page = (ROOT / "docs" / "delivery.md").read_text()
    _, _, table = page.partition("| table | what a row is |\n")
    documented = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    names = "select name from sqlite_master where type = 'table' and name not like 'sqlite_%'"
    assert sorted(documented) == sorted(name for (name,) in database(state).execute(names))


def database(state: RouteState) -> sqlite3.Connection:
    assert state._database is not None
    return state._database
