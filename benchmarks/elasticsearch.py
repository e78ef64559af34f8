"""A real Elasticsearch takes the lines: how fast, at what cost, and how much more our sink could give it."""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.engine import engine_process
from benchmarks.http_receiver import HttpReceiver
from benchmarks.processes import BenchmarkError, Usage
from benchmarks.throughput import SEARCH, Pipeline, once
from benchmarks.workload import log_of
from logroute.sinks.elasticsearch_template import index_template

if TYPE_CHECKING:
    from tests.servers.elasticsearch import Elasticsearch

MOST_LINES = 300_000
"""Ten seconds for Elasticsearch on two processors, once it is warm; more lines tell nothing else."""
JAVA = "-Xms2g -Xmx2g -XX:+UseG1GC"
"""As its makers start it; the tests' servers, which live shortly, go without its second compiler."""
INDEX = "logs"
COUNTED = Pipeline("log file → Elasticsearch", {"search": SEARCH}, 0, receiver=HttpReceiver)


@dataclass(frozen=True, slots=True)
class Taken:
    """One turn into the server."""

    daemon: Usage
    server_cpu_s: float
    """Of its whole process, from the daemon's start to its end."""


@dataclass(frozen=True, slots=True)
class Result:
    server: str
    """What it is, with its version."""
    lines: int
    taken: Taken
    """The fastest turn: Java compiles what it runs often, and so the first ones are slow."""
    counted: Usage
    """The daemon's into a receiver that only counts; medians."""

    @property
    def taken_per_s(self) -> float:
        return self.lines / self.taken.daemon.wall_s

    @property
    def counted_per_s(self) -> float:
        return self.lines / self.counted.wall_s


def measure(folder: Path, lines: int, runs: int) -> Result | None:
    """So many turns into each; None, with a word, where there is no Elasticsearch."""
    from tests.servers.elasticsearch import Elasticsearch

    if reason := Elasticsearch.unavailable():
        print(f"no Elasticsearch: {reason}", file=sys.stderr)
        return None
    lines = min(lines, MOST_LINES)
    log = log_of(folder, lines)
    with engine_process(folder / "engine-search", "finished", str(log)) as host:
        # Before there is a server, which also does something while nobody asks.
        counted = [once(folder, COUNTED, host, lines) for _ in range(runs)]
        with started() as server:
            taken = [turn(folder, server, host, lines) for _ in range(runs)]
    usage = Usage(
        statistics.median(each.cpu_s for each in counted),
        statistics.median(each.wall_s for each in counted),
        max(each.peak_bytes for each in counted),
    )
    fastest = min(taken, key=lambda each: each.daemon.wall_s)
    return Result(Elasticsearch.folder_name.replace("-", " ").capitalize(), lines, fastest, usage)


@contextmanager
def started() -> Iterator[Elasticsearch]:
    """One node with the index template that we recommend."""
    from tests.servers.elasticsearch import Elasticsearch

    # Not below the benchmarks' folder, which only its user can read.
    folder = Path(tempfile.mkdtemp(prefix="logroute-search-", dir="/var/tmp"))
    server = Elasticsearch(folder, java_options=JAVA)
    try:
        server.start()
        server.ask("PUT", "/_index_template/logroute", index_template([INDEX]))
        yield server
    finally:
        server.stop()  # killed, it would leave a process that writes into the folder yet
        shutil.rmtree(folder, ignore_errors=True)


def turn(folder: Path, server: Elasticsearch, host: str, lines: int) -> Taken:
    """All lines into a new index. Raises BenchmarkError where they are not there in the end."""
    pipeline = Pipeline(COUNTED.name, {"search": f"elasticsearch+{server.url}/{INDEX}"}, 0)
    before = server.cpu_s()
    usage = once(folder, pipeline, host, lines)
    used = server.cpu_s() - before
    if (count := server.count(INDEX)) != lines:
        raise BenchmarkError(f"Elasticsearch has {count} lines, not {lines}")
    server.ask("DELETE", f"/{INDEX}")
    return Taken(usage, used)
