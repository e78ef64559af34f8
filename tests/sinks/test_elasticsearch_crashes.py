"""Exactly once into a real Elasticsearch and OpenSearch: the daemon is killed by -9, the server stopped.

The short form is part of every run; the long one is `make test-elasticsearch`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from logroute.simulator.records import json_lines
from tests.conftest import search_server
from tests.servers.elasticsearch import Elasticsearch, OpenSearch

WITHIN_S = 120.0
"""How long nothing may arrive before that counts as lost."""
BEGIN_NS = 1_795_000_000_000_000_000
STEP_NS = 1_234_567
"""Between records: each has digits to the nanosecond, and the trailing zeros that json-file trims."""


class Log:
    """A json-file log that grows, and what was written into it: time and message of each record."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written: dict[str, str] = {}
        """Message by time."""

    def append(self, records: int) -> None:
        first = len(self.written)
        numbers = range(first, first + records)
        messages = [f'n {number} \\ "quoted" é \x1b[31m {"x" * (number % 97)}' for number in numbers]
        times = [BEGIN_NS + number * STEP_NS for number in numbers]
        lines = json_lines([each.encode() for each in messages], "stdout", times)
        with self.path.open("ab") as file:
            file.write(lines)
        self.written.update(zip(map(padded, times), messages, strict=True))


def padded(time_ns: int) -> str:
    seconds, ns = divmod(time_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{ns:09d}Z"


class Daemon:
    """`logroute run`, a process of its own, with its state on the disk."""

    def __init__(self, folder: Path, log: Log, server: Elasticsearch, batch: int) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        config = {
            "state_dir": str(folder / "state"),
            "sources": {"logs": {"type": "file", "paths": [str(log.path)], "format": "docker"}},
            "routes": {
                "search": {
                    "start": "beginning",
                    "sink": {"type": "elasticsearch", "hosts": [server.url], "index": "proof"},
                    "batch": {"records": batch},
                    "retry": {"max": "1s"},
                }
            },
        }
        (folder / "logroute.yaml").write_text(json.dumps(config))

    def start(self) -> None:
        """Returns once it says that it has started: before that a signal to end is none to drain."""
        starts = self._starts()
        with (self._folder / "said").open("ab") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "logroute", "run", "-c", str(self._folder / "logroute.yaml")],
                stdout=said,
                stderr=said,
                env={**os.environ, "DOCKER_HOST": "", "RUNTIME_DIRECTORY": str(self._folder)},
            )
        deadline = time.monotonic() + WITHIN_S
        while self._starts() == starts:
            assert self._process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    def _starts(self) -> int:
        said = self._folder / "said"
        return said.read_bytes().count(b'"started"') if said.exists() else 0

    def end(self, how: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(how)
        return self._process.wait(60)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.end(signal.SIGKILL)

    @property
    def said(self) -> str:
        return (self._folder / "said").read_text()[-3000:]


def wait_for(server: Elasticsearch, daemon: Daemon, documents: int) -> int:
    """Until there are at least so many; how many there are."""
    newest, deadline = -1, time.monotonic() + WITHIN_S
    while True:
        found = server.count("proof") if server.has("proof") else 0
        if found >= documents:
            return found
        if found > newest:
            newest, deadline = found, time.monotonic() + WITHIN_S
        assert time.monotonic() < deadline, f"{found} of {documents} have arrived; {daemon.said}"
        time.sleep(0.02)


def prove(kind: type[Elasticsearch], folder: Path, records: int, kills: int, batch: int) -> None:
    """In portions: the daemon is killed amid each but two; amid one of these the server stops and starts."""
    log = Log(folder / "0123456789ab-json.log")
    portion = records // (kills + 2)
    began = time.monotonic()
    with search_server(kind) as server:
        daemon = Daemon(folder, log, server, batch)
        try:
            daemon.start()
            amid = []
            for number in range(kills + 1):
                before = len(log.written)
                log.append(portion)
                there = wait_for(server, daemon, before + portion // 10)
                if number == kills // 2:
                    server.stop()
                    log.append(records - portion * (kills + 1))
                    server.start()
                else:
                    daemon.end(signal.SIGKILL)
                    amid.append(there)
                    daemon.start()
            assert len(log.written) == records
            wait_for(server, daemon, records)
            assert daemon.end(signal.SIGTERM) == 0, daemon.said
            sys.stdout.write(
                f"\n{server.folder_name}: {records} records, killed with {amid} there; "
                f"{time.monotonic() - began:.0f} s until all were\n"
            )
            check(server, log)
        finally:
            daemon.close()


def check(server: Elasticsearch, log: Log) -> None:
    """Every record is one document, with its time to the nanosecond and its message, and nothing else is."""
    assert server.count("proof") == len(log.written)
    ids = set()
    left = dict(log.written)
    for document in server.documents("proof"):
        source = document["_source"]
        assert document["_id"] == source["event"]["id"]
        ids.add(document["_id"])
        assert left.pop(source["@timestamp"]) == source["message"]
    assert not left
    assert len(ids) == len(log.written)


@pytest.mark.parametrize("kind", [Elasticsearch, OpenSearch])
def test_each_record_is_there_once_through_kill_9_and_a_restart_of_the_server(
    kind: type[Elasticsearch], tmp_path: Path
) -> None:
    prove(kind, tmp_path, records=30_000, kills=2, batch=500)


@pytest.mark.slow_search
@pytest.mark.parametrize("kind", [Elasticsearch, OpenSearch])
def test_300_000_records_are_there_once_through_five_times_kill_9_and_a_restart_of_the_server(
    kind: type[Elasticsearch], tmp_path: Path
) -> None:
    prove(kind, tmp_path, records=300_000, kills=5, batch=2_000)
