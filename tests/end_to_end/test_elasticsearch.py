"""Exactly once into a real Elasticsearch: the daemon is killed, the server stopped, and each record is there.

`make test` has a short form of it. `make test-elasticsearch` has 300,000 records, five times kill -9, and
both makes, Elasticsearch by TLS and with a key that may only write; what it prints tells how much came twice,
and was there already.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
import trio

from logroute.simulator import SimulatedContainer, SimulatedEngine
from tests.conftest import missing
from tests.end_to_end.daemon import Daemon
from tests.oracle.daemon import read_books
from tests.oracle.history import Books
from tests.servers.elasticsearch import PASSWORD, Elasticsearch, OpenSearch

WAIT_S = 600.0
"""Far more than anything takes; a busy machine fails no test."""
LOOK_S = 0.2
AT_ONCE = 500
"""Lines that a container writes at once."""
WORDS = ["GET", "/cart", '"quoted"', "back\\slash\ttab", "é", "漢字", "🦊", "\x1b[31mred\x1b[0m", '{"a":1}']


StartServer = Callable[..., Elasticsearch]


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    servers: list[Elasticsearch] = []

    def start(kind: type[Elasticsearch], *, secure: bool = False) -> Elasticsearch:
        if reason := kind.unavailable() or (kind.makes_no_api_keys() if secure else None):
            missing(reason)
        # Not below pytest's folder, which only its user can read.
        folder = Path(tempfile.mkdtemp(prefix="logroute-search-", dir="/var/tmp"))
        servers.append(kind(folder, secure=secure))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.close()
        shutil.rmtree(server.folder, ignore_errors=True)


class Proof:
    """Containers that write numbered lines, a daemon in a process of its own, and a server."""

    def __init__(self, folder: Path, server: Elasticsearch, engine: SimulatedEngine) -> None:
        self.server = server
        self._folder = folder
        self._sink = {"type": "elasticsearch", "hosts": [server.url], "index": "logs-{time:%Y.%m.%d}"}
        may_write: dict[str, Any] = {}
        if server.secure:
            self._sink["tls"] = {"ca": str(server.ca)}
            may_write["auth"] = {"api_key": server.api_key("logs-*")}
        route = {"sink": {**self._sink, **may_write}, "retry": {"max": "2s"}}
        self.daemon = Daemon(folder, engine.host, start="beginning", route=route)
        self.containers = [engine.create(name) for name in ("web", "api", "db")]
        for container in self.containers:
            container.start()
        self.written = 0
        self.seen = 0
        """Documents, when they were last counted."""
        self.came_twice = 0
        """Records that the daemons say were there already: of each when it was last asked."""
        self._random = random.Random(1)

    def install_template(self) -> None:
        """By the command, which takes the rest from a configuration: of somebody who may do that."""
        admin = {"auth": {"username": "admin", "password": PASSWORD}} if self.server.secure else {}
        config = self._folder / "admin.yaml"
        config.write_text(json.dumps({"routes": {"all": {"sink": {**self._sink, **admin}}}}))
        make = ["--opensearch"] if isinstance(self.server, OpenSearch) else []
        command = [sys.executable, "-m", "logroute", "elasticsearch", "template", "--install", *make]
        ran = subprocess.run([*command, "-c", str(config)], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        assert "the template 'logroute' for logs-* is at" in ran.stdout

    async def write(self, lines: int) -> None:
        """All containers, on both streams, some lines at a time."""
        until = self.written + lines
        while self.written < until:
            for container in self.containers:
                for stream in ("stdout", "stderr"):
                    some = range(self.written, min(self.written + AT_ONCE, until))
                    container.write_many([self._line(number) for number in some], stream)
                    self.written += len(some)
            await trio.lowlevel.checkpoint()

    def _line(self, number: int) -> bytes:
        return f"n {number} {' '.join(self._random.choices(WORDS, k=16))}".encode()

    async def until(self, holds: Callable[[int], bool], what: str) -> None:
        """Wait until it holds of the number of documents, which is `seen` then."""
        with trio.move_on_after(WAIT_S) as waited:
            while not holds(self.seen):
                await trio.sleep(LOOK_S)
                with suppress(OSError, HTTPException):  # it is starting
                    self.seen = await trio.to_thread.run_sync(self.server.count, "logs-*")
        assert not waited.cancelled_caught, f"waited in vain: {what}; there are {self.seen} documents"

    async def stop_server(self) -> None:
        """Returns once the daemon has noticed."""
        said = self.daemon.log.stat().st_size
        await trio.to_thread.run_sync(self.server.stop)
        with trio.fail_after(WAIT_S):
            while b"trying again" not in self.daemon.log.read_bytes()[said:]:  # noqa: ASYNC110
                await trio.sleep(LOOK_S)

    async def start(self) -> None:
        await trio.to_thread.run_sync(self.daemon.start)

    async def kill(self) -> None:
        """-9, with requests under way."""
        books = self._books()
        self.came_twice += books.duplicates if books is not None else 0
        await trio.to_thread.run_sync(self.daemon.kill)

    async def end(self) -> None:
        """The books balance, nothing waits, and it ends in order."""
        books = self._books()
        with trio.fail_after(WAIT_S):
            while books is None or books.queued or books.in_flight:  # it has not heard the last answer
                await trio.sleep(LOOK_S)
                books = self._books()
        assert books.received == books.delivered + books.duplicates
        self.came_twice += books.duplicates
        assert await trio.to_thread.run_sync(self.daemon.stop) == 0

    @staticmethod
    def _books() -> Books | None:
        return (read_books(Path(os.environ["RUNTIME_DIRECTORY"])) or {}).get("all")

    async def check(self) -> None:
        """Each record that was written is there once: text, stream, container and time."""
        expected = {
            each["log"]: (container.name, each["stream"], padded(each["time"]))
            for container in self.containers
            for each in logged(container)
        }
        assert len(expected) == self.written
        await trio.to_thread.run_sync(self._compare, expected)

    def _compare(self, expected: dict[str, tuple[str, str, str]]) -> None:
        ids: set[str] = set()
        for document in self.server.documents("logs-*"):
            source = document["_source"]
            [indexed] = document["fields"]["@timestamp"]
            found = (source["container"]["name"], source["stream"], indexed)
            assert found == expected.pop(source["message"] + "\n")
            assert source["@timestamp"] == indexed
            assert source["event"]["id"] == document["_id"]
            assert document["_id"] not in ids
            ids.add(document["_id"])
        assert not expected, f"{len(expected)} are missing, such as {list(expected)[:3]}"
        assert len(ids) == self.written


def logged(container: SimulatedContainer) -> Iterator[dict[str, str]]:
    """What its log holds, by another decoder than ours."""
    assert container.log_path is not None
    with container.log_path.open("rb") as log:
        yield from map(json.loads, log)


def padded(time: str) -> str:
    """With all nine digits, which the engine trims."""
    seconds, _, digits = time.removesuffix("Z").partition(".")
    return f"{seconds}.{digits:0<9}Z"


@asynccontextmanager
async def proof(folder: Path, server: Elasticsearch) -> AsyncIterator[Proof]:
    async with SimulatedEngine(folder / "engine", seed=1) as engine:
        running = Proof(folder, server, engine)
        try:
            yield running
        finally:
            running.daemon.close()


async def exactly_once(folder: Path, server: Elasticsearch, *, records: int, kills: int) -> None:
    """Kill the daemon so often, with a backlog and while documents come; once while the server is down."""
    async with proof(folder, server) as running:
        running.install_template()
        share = records // (kills + 1)
        await running.write(share)
        await running.start()
        for kill in range(kills):
            before = running.seen
            await running.until(lambda count, before=before: count > before, "documents come")
            if kill == 1:
                await running.stop_server()
            await running.kill()
            await running.write(share if kill < kills - 1 else records - running.written)
            await running.start()
            if kill == 1:
                await trio.to_thread.run_sync(server.start)
        await running.until(lambda count: count >= records, "all of them are there")
        await running.end()
        await running.check()
        by = ", by TLS and with a key that may only write" if server.secure else ""
        print(f"{type(server).__name__}: {records} documents{by}; {running.came_twice} records came twice")


async def test_each_record_is_there_once_though_the_daemon_is_killed_and_the_server_stopped(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = await trio.to_thread.run_sync(start_server, Elasticsearch)
    await exactly_once(tmp_path, server, records=30_000, kills=2)


@pytest.mark.slow_search
@pytest.mark.parametrize(
    ("kind", "secure"), [(Elasticsearch, True), (OpenSearch, False)], ids=["Elasticsearch", "OpenSearch"]
)
async def test_each_of_300_000_records_is_there_once(
    kind: type[Elasticsearch], secure: bool, start_server: StartServer, tmp_path: Path
) -> None:
    """The distribution of OpenSearch has no security in it."""
    server = await trio.to_thread.run_sync(partial(start_server, kind, secure=secure))
    await exactly_once(tmp_path, server, records=300_000, kills=5)
