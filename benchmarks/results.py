"""The results as a page."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import elasticsearch, latency, looking, outage, small, throughput

MB = 1_000_000
HERE = Path(__file__).parent


@dataclass
class Results:
    """Everything that was measured in one run."""

    throughput: list[throughput.Result] = field(default_factory=list)
    parsing: list[throughput.Result] = field(default_factory=list)
    elasticsearch: elasticsearch.Result | None = None
    outage: outage.Result | None = None
    small: list[small.Result] = field(default_factory=list)
    looking: looking.Result | None = None
    latency: latency.Result | None = None
    version_s: float | None = None
    floors: dict[str, float] = field(default_factory=dict)
    """Microseconds a line, beside what is measured in seconds or per cent of a core."""


def render(results: Results) -> str:
    parts = [
        "# Results\n\n"
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit()}, {machine()}. Made by `make bench`; medians.\n"
    ]
    if results.throughput:
        parts.append(_throughput(results.throughput, "of 150 bytes"))
    if results.parsing:
        parts.append(_throughput(results.parsing, "to parse"))
    if results.elasticsearch:
        parts.append(_elasticsearch(results.elasticsearch))
    if results.outage:
        parts.append(_outage(results.outage))
    if results.small:
        parts.append(_small(results.small, results.floors["small"]))
    if results.looking:
        parts.append(_looking(results.looking, results.floors["looking"]))
    if results.latency or results.version_s:
        parts.append(_times(results))
    return "\n".join(parts)


def _throughput(results: list[throughput.Result], which: str) -> str:
    lines = results[0].lines
    rows = [
        f"## {lines:,} lines {which}\n",
        "CPU of the daemon's whole process, start-up included. The floor is a bare loop that reads the same"
        " log and decodes it, measured before and after each run; × floor is the median of the ratios.\n",
        "| pipeline | CPU µs/line | × floor | limit | lines/s | peak MB | floor µs/line |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    rows += [
        f"| {r.pipeline.name} | {r.usage.cpu_s / lines * 1e6:.2f} | **{r.of_floor:.2f}** "
        f"| {r.pipeline.limit:g} | {lines / r.usage.wall_s:,.0f} | {r.usage.peak_bytes / MB:.0f} "
        f"| {r.floor_s / lines * 1e6:.2f} |"
        for r in results
    ]
    return "\n".join(rows) + "\n"


def _elasticsearch(found: elasticsearch.Result) -> str:
    lines, daemon = found.lines, found.taken.daemon
    rows = [
        "## Elasticsearch itself\n",
        f"A real {found.server}, one node with our index template, takes {lines:,} lines of 150 bytes on the"
        " same computer: the fastest of some turns, because Java compiles meanwhile. logroute's whole"
        " process, start-up included.\n",
        "| what | measured | limit |",
        "|---|---:|---:|",
        f"| lines/s that Elasticsearch takes | **{found.taken_per_s:,.0f}** | |",
        "| lines/s that the same sink gives to a receiver that only counts, × these"
        f" ({found.counted_per_s:,.0f}) | **{found.counted_per_s / found.taken_per_s:.1f}** | > 1 |",
        f"| CPU of Elasticsearch meanwhile | **{found.taken.server_cpu_s / lines * 1e6:.1f} µs/line** | |",
        f"| CPU of logroute | **{daemon.cpu_s / lines * 1e6:.1f} µs/line** | |",
        f"| its peak | **{daemon.peak_bytes / MB:.0f} MB** | 110 MB |",
    ]
    return "\n".join(rows) + "\n"


def _outage(found: outage.Result) -> str:
    rows = [
        "## A receiver that is down, or hangs\n",
        "The same lines, four times as many for the rates beside others. Rates are compared within a turn;"
        " nothing limits the flow but the computer.\n",
        "| what | measured | limit |",
        "|---|---:|---:|",
        f"| what a line costs more through the disk, × floor | **{found.spooled_of_floor:.2f}** | 2 |",
        f"| rate of catching up while {outage.NEW_LINES:,} new lines/s come, of the rate without outage"
        f" | **{found.catch_up:.0%}** | ≥ 70 % |",
        f"| start with {found.start_bytes / 10**9:.1f} GB in the spool, none of it in the kernel's memory"
        f" | **{found.start_s:.2f} s** | 2 s |",
        f"| rate of three routes beside one that blocks | **{found.beside_blocking:.0%}** | ≥ 95 % |",
        f"| the same beside one that spools | **{found.beside_spooling:.0%}** | ≥ 95 % |",
        f"| their pause when it begins to hang | **{found.pause_s:.2f} s** | |",
        f"| peak with four routes, two down and spooling | **{found.peak_bytes / MB:.0f} MB** | 120 MB |",
    ]
    return "\n".join(rows) + "\n"


def _as_limits_were_set(floor_us: float) -> str:
    return (
        f"Limits in seconds and per cent were set where the floor is {throughput.LIMITS_US} µs/line. Beside"
        f" these it was {floor_us:.2f}: in brackets, what is the processor's as it would be there.\n"
    )


def _small(results: list[small.Result], floor_us: float) -> str:
    rows = [
        "## Many that say little\n",
        f"CPU of the daemon while it runs, once it has started. {_as_limits_were_set(floor_us)}",
        "| load | % of a core | limit | lines/s arrived | peak MB |",
        "|---|---:|---:|---:|---:|",
    ]
    there = throughput.LIMITS_US / floor_us
    rows += [
        f"| {r.load.name} | **{r.percent:.1f}** ({r.percent * there:.1f}) | {r.load.limit_percent:g} "
        f"| {r.lines_per_s:,.0f} "
        f"| {r.peak_bytes / MB:.0f} |"
        for r in results
    ]
    return "\n".join(rows) + "\n"


def _looking(found: looking.Result, floor_us: float) -> str:
    containers, rate = looking.FLOW
    there = throughput.LIMITS_US / floor_us
    rows = [
        "## Who looks\n",
        "`logroute tail` reads the engine itself; the API is that of a daemon that writes a JSON file. "
        + _as_limits_were_set(floor_us),
        "| what | measured | limit |",
        "|---|---:|---:|",
        f"| `tail` of the lines of 150 bytes into a pipe, × floor | **{found.text_of_floor:.2f}** | 10 |",
        f"| the same with `-o json` into a file | **{found.json_of_floor:.2f}** | 6 |",
        f"| its first line, with {looking.FIRST_LINE_CONTAINERS} containers"
        f" | **{found.first_line_s:.2f} s** ({found.first_line_s * there:.2f}) | 0.4 s |",
        f"| {looking.VIEW_CONTAINERS:,} containers × {looking.VIEW_RATE:g} lines/s in one `tail`"
        f" ({found.view_lines_per_s:,.0f} lines/s came) | **{found.view_percent:.0f} %** of a core | |",
        f"| a route's rate beside one viewer of everything | **{found.beside_viewer:.0%}** | ≥ 90 % |",
        f"| beside {looking.STUCK} viewers that read nothing | **{found.beside_stuck:.0%}** | |",
        f"| what these cost in memory | **{found.stuck_bytes / MB:.0f} MB** | {looking.STUCK} MB |",
        f"| how long the daemon takes to end meanwhile | **{found.end_s:.2f} s** | the grace |",
        f"| from the answer that a route is made to its first record"
        f" | **{1000 * found.route_s:.0f} ms** | 100 ms |",
        f"| requests a second while {containers * rate:,.0f} lines/s are said"
        f" ({found.flow_per_s:,.0f} came) | **{found.requests_per_s:.0f}** | {looking.REQUESTS_RATE} |",
        f"| the longest pause of those lines | **{1000 * found.pause_s:.0f} ms** | |",
    ]
    return "\n".join(rows) + "\n"


def _times(results: Results) -> str:
    rows = ["## Times\n", "| what | measured | limit |", "|---|---:|---:|"]
    if found := results.latency:
        what = "from the engine's time on a line to the line in the file, ten lines a second"
        rows += [
            f"| {what}: median | **{found.median_ms:.1f} ms** | 5 ms |",
            f"| 99th percentile (maximum) | **{found.p99_ms:.1f} ms** ({found.maximum_ms:.1f}) | 25 ms |",
        ]
    if results.version_s is not None:
        rows.append(f"| `logroute version` | **{results.version_s:.2f} s** | 0.15 s |")
    return "\n".join(rows) + "\n"


def commit() -> str:
    """The commit that was measured, marked where the tree has changes beyond it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=10"], cwd=HERE, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    cores = Path("/proc/cpuinfo").read_text().count("processor\t:")
    return f"Python {platform.python_version()}, {cores} × {model}"
