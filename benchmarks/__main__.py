"""`python -m benchmarks`: run them all, print, and write RESULTS.md beside this file."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from benchmarks import elasticsearch, latency, looking, outage, parsing, small, throughput
from benchmarks.processes import run
from benchmarks.results import Results, render

T = TypeVar("T")

KINDS = (
    "throughput",
    "processing",
    "parsing",
    "api",
    "elasticsearch",
    "outage",
    "small",
    "looking",
    "latency",
    "start",
)


@click.command()
@click.option("--lines", default=1_000_000, show_default=True, help="Lines of the log.")
@click.option("--runs", default=5, show_default=True, help="Runs of each pipeline; medians count.")
@click.option("--seconds", default=20.0, show_default=True, help="How long running loads are watched.")
@click.option("--only", type=click.Choice(KINDS), multiple=True, help="Only these; nothing is written then.")
def main(lines: int, runs: int, seconds: float, only: tuple[str, ...]) -> None:
    """Measure whole pipelines in processes of their own, beside the floor of the same run."""
    kinds = only or KINDS
    results = Results()
    with tempfile.TemporaryDirectory(prefix="logroute-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        pipelines = [*throughput.PIPELINES] if "throughput" in kinds else []
        if "processing" in kinds:
            pipelines += throughput.PROCESSING
        if "api" in kinds:
            pipelines.append(throughput.BY_API)
        if pipelines:
            results.throughput = throughput.measure(folder, lines, runs, pipelines)
        if "parsing" in kinds:
            results.parsing = parsing.measure(folder, lines, runs)
        if "elasticsearch" in kinds:
            results.elasticsearch = elasticsearch.measure(folder, lines, runs)
        if "outage" in kinds:
            results.outage = outage.measure(folder, lines, max(1, runs // 2 + 1))
        if "small" in kinds:
            results.small, results.floors["small"] = _beside_the_floor(
                folder, lines, lambda: [small.measure(folder, load, seconds) for load in small.LOADS]
            )
        if "looking" in kinds:
            results.looking, results.floors["looking"] = _beside_the_floor(
                folder, lines, lambda: looking.measure(folder, lines, max(1, runs // 2 + 1), seconds)
            )
        if "latency" in kinds:
            results.latency = latency.measure(folder, seconds=max(30.0, seconds))
        if "start" in kinds:
            command = [sys.executable, "-m", "logroute", "version"]
            times = [run(command, log=folder / "version.txt") for _ in range(11)]
            results.version_s = statistics.median(usage.wall_s for usage in times)
    text = render(results)
    click.echo(text)
    if not only:
        (Path(__file__).parent / "RESULTS.md").write_text(text)


def _beside_the_floor(folder: Path, lines: int, measure: Callable[[], T]) -> tuple[T, float]:
    """What is measured, and the floor before and after it, microseconds a line."""
    before = throughput.floor_us(folder, lines)
    found = measure()
    return found, (before + throughput.floor_us(folder, lines)) / 2


if __name__ == "__main__":
    main()
