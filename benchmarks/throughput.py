"""A million lines from a finished container's log through whole pipelines."""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engine import engine_process
from benchmarks.forward_receiver import ForwardReceiver
from benchmarks.http_receiver import HttpReceiver
from benchmarks.processes import BenchmarkError, Usage, run, warm
from benchmarks.receiver import Receiver
from benchmarks.relp_receiver import RelpReceiver
from benchmarks.workload import log_of


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One way from a container into sinks, and what it may cost."""

    name: str
    routes: dict[str, str]
    """Sinks by route; `{folder}` is where the files go, `{receiver}` what a receiver listens on."""
    limit: float
    """Of the floor."""
    read: str = "file"
    receiver: type[Receiver] = Receiver
    match: str = ""
    """What messages every route takes; `{route}` is its name."""
    sensitive: bool = False
    """The log has something to redact."""
    processors: str = ""
    """For every record, as YAML's list of one."""

    @property
    def receives(self) -> bool:
        """Whether it needs a receiver."""
        return any("{receiver}" in uri for uri in self.routes.values())


NULL = "null:"
RAW = "file://{folder}/raw.log?format=raw"
JSON = "file://{folder}/out.ndjson"
SYSLOG = "syslog+tcp://{receiver}"
RELP = "relp://{receiver}"
HTTP = "http://{receiver}/in"
LOKI = "loki+http://{receiver}"
OTLP = "otlp+http://{receiver}"
OTLP_JSON = "otlp+http://{receiver}?otlp.format=json"
SPLUNK = "splunk+http://{receiver}"
SEARCH = "elasticsearch+http://{receiver}/logs"
FORWARD = "forward://{receiver}"

PIPELINES = (
    Pipeline("log file → null", {"nothing": NULL}, 2.2),
    Pipeline("log file → raw file", {"raw": RAW}, 2.8),
    Pipeline("log file → JSON file", {"json": JSON}, 4.3),
    Pipeline("log file → syslog TCP", {"syslog": SYSLOG}, 3.6),
    Pipeline("log file → RELP", {"relp": RELP}, 4.2, receiver=RelpReceiver),
    Pipeline("log file → Fluent forward", {"forward": FORWARD}, 4.5, receiver=ForwardReceiver),
    Pipeline("log file → HTTP ndjson", {"http": HTTP}, 4.2, receiver=HttpReceiver),
    Pipeline("log file → Loki", {"loki": LOKI}, 6.5, receiver=HttpReceiver),
    Pipeline("log file → OTLP protobuf", {"otlp": OTLP}, 6.5, receiver=HttpReceiver),
    Pipeline("log file → OTLP JSON", {"otlp": OTLP_JSON}, 6.5, receiver=HttpReceiver),
    Pipeline("log file → Splunk", {"splunk": SPLUNK}, 6.5, receiver=HttpReceiver),
    Pipeline("log file → Elasticsearch", {"search": SEARCH}, 7.0, receiver=HttpReceiver),
    Pipeline("log file → three routes (null, raw, JSON)", {"nothing": NULL, "raw": RAW, "json": JSON}, 5.3),
)
REDACT = "{type: redact, kinds: [card, email, ip, bearer], patterns: ['password=(\\S+)']}"
# Its first word stands in a quarter of the lines, all of it in one of fifty.
REGEX = r"/timeout \w+ cache/"
TEN = ("timeout", "refused", "expired", "failed", "missing", "pending", "closed", "error", "unknown", "retry")
PROCESSING = (
    Pipeline(
        "log file → redact (five patterns, 1 line in 50) → null",
        {"nothing": NULL}, 4.0, processors=REDACT, sensitive=True,
    ),
    Pipeline(
        "log file → filter (a regex of the message) → null",
        {"nothing": NULL}, 2.6, processors=f"{{type: filter, match: {{message: '{REGEX}'}}}}",
    ),
    Pipeline("log file → match (a regex of the message) → null", {"nothing": NULL}, 2.6, match=REGEX),
    Pipeline(
        "log file → ten routes, each with such a match → null",
        dict.fromkeys(TEN, NULL), 5.0, match=r"/{route} \w+ cache/",
    ),
)  # fmt: skip
BY_API = Pipeline("Engine API → null", {"nothing": NULL}, 9.0, read="api")


WRITTEN_BYTES = 800
"""For each line; more than any pipeline writes."""


@dataclass(frozen=True, slots=True)
class Result:
    """Medians over the runs of one pipeline."""

    pipeline: Pipeline
    lines: int
    usage: Usage
    floor_s: float
    of_floor: float


def median(usages: Iterable[Usage]) -> Usage:
    usages = list(usages)
    return Usage(
        statistics.median(u.cpu_s for u in usages),
        statistics.median(u.wall_s for u in usages),
        max(u.peak_bytes for u in usages),
    )


def measure(folder: Path, lines: int, runs: int, pipelines: Sequence[Pipeline]) -> list[Result]:
    """All pipelines in turns, `runs` times, each beside the floor."""
    by_api = [p for p in pipelines if p.read == "api"]
    results = []
    for sensitive in (False, True):
        by_file = [p for p in pipelines if p.read == "file" and p.sensitive is sensitive]
        if not by_file:
            continue
        log = log_of(folder, lines, sensitive=sensitive)
        with engine_process(folder / f"engine-{log.stem}", "finished", str(log)) as host:
            results += in_turns(folder, log, lines, runs, by_file, host)
    with ExitStack() as stack:
        if by_api and (real := real_engine(stack, folder, lines)):
            results += in_turns(folder, log_of(folder, lines), lines, max(1, runs // 2), by_api, real)
    return results


def in_turns(
    folder: Path, log: Path, lines: int, runs: int, pipelines: Sequence[Pipeline], host: str
) -> list[Result]:
    usages: dict[str, list[Usage]] = {pipeline.name: [] for pipeline in pipelines}
    floors: dict[str, list[float]] = {pipeline.name: [] for pipeline in pipelines}
    for _ in range(runs):
        before = floor_s(folder, log)
        for pipeline in pipelines:
            usages[pipeline.name].append(once(folder, pipeline, host, lines))
            after = floor_s(folder, log)
            floors[pipeline.name].append((before + after) / 2)
            before = after
    return [_result(p, lines, usages[p.name], floors[p.name]) for p in pipelines]


def _result(pipeline: Pipeline, lines: int, usages: Sequence[Usage], floors: Sequence[float]) -> Result:
    ratios = [usage.cpu_s / floor for usage, floor in zip(usages, floors, strict=True)]
    return Result(pipeline, lines, median(usages), statistics.median(floors), statistics.median(ratios))


FLOORS = 4
LIMITS_US = 0.44
"""The floor, microseconds a line of 150 bytes, of the machine on which limits in seconds and per cent of a
core were set. Machines differ threefold, and one and the same from day to day."""


def floor_s(folder: Path, log: Path) -> float:
    """The floor's CPU seconds: the mean of some runs.

    A run costs one of two sums, a third apart: by where the kernel put its heap, the allocator gives the
    chunks' memory back each time, or keeps it. A median would jump between them.
    """
    command = [sys.executable, "-m", "benchmarks.floor", str(log)]
    return statistics.mean(run(command, log=folder / "floor.txt").cpu_s for _ in range(FLOORS))


def floor_us(folder: Path, lines: int) -> float:
    """The floor's CPU, microseconds a line of 150 bytes: how fast this machine is now."""
    return floor_s(folder, log_of(folder, lines)) / lines * 1e6


def once(folder: Path, pipeline: Pipeline, host: str, lines: int) -> Usage:
    """One run. Raises BenchmarkError where a line did not arrive."""
    out, state = folder / "out", folder / "state"
    for old in (out, state):
        shutil.rmtree(old, ignore_errors=True)
    warm(folder, lines * WRITTEN_BYTES)
    with ExitStack() as stack:
        receiver = stack.enter_context(pipeline.receiver()) if pipeline.receives else None
        address = f"127.0.0.1:{receiver.port}" if receiver else ""
        routes = {name: uri.format(folder=out, receiver=address) for name, uri in pipeline.routes.items()}
        usage = run_once(folder, pipeline, host, routes)
        if receiver and (count := receiver.count()) != lines:
            raise BenchmarkError(f"{pipeline.name}: {count} lines came, not {lines}")
    for file in out.glob("*"):
        with file.open("rb") as data:
            count = sum(chunk.count(b"\n") for chunk in iter(lambda: data.read(1 << 20), b""))
        if count != lines:
            raise BenchmarkError(f"{pipeline.name}: {file.name} has {count} lines, not {lines}")
    return usage


def run_once(folder: Path, pipeline: Pipeline, host: str, routes: dict[str, str]) -> Usage:
    """The daemon, from its start to its end."""
    config, state = folder / "logroute.yaml", folder / "state"
    sinks = "".join(f"  {name}: {{{_match(pipeline, name)}sink: '{uri}'}}\n" for name, uri in routes.items())
    config.write_text(
        f"state_dir: {state}\n"
        f"sources: {{docker: {{host: '{host}', read: {pipeline.read}, start: beginning}}}}\n"
        f"processors: [{pipeline.processors}]\n"
        f"routes:\n{sinks}"
    )
    command = [sys.executable, "-m", "logroute", "run", "--once", "-c", str(config)]
    return run(command, log=folder / "daemon.log")


def _match(pipeline: Pipeline, route: str) -> str:
    message = pipeline.match.replace("{route}", route)
    return f"match: {{message: '{message}'}}, " if message else ""


def real_engine(stack: ExitStack, folder: Path, lines: int) -> str | None:
    """A real engine with one container that printed the lines and ended; None where none can be had."""
    from tests.servers.docker_engine import FILLER, DebianEngine

    if reason := DebianEngine.unavailable():
        print(f"no Engine API: {reason}", file=sys.stderr)
        return None
    engine = DebianEngine()
    stack.callback(engine.close)
    engine.start()
    text = (FILLER * 2)[: 150 - len("n 00000000 ")]
    program = f'BEGIN {{ for (i = 0; i < {lines}; i++) printf "n %08d {text}\\n", i }}'
    engine.run("printer", ["awk", program])
    engine.wait("printer")
    return engine.host
