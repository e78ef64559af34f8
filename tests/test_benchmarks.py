"""The benchmarks still run: with a thousand lines, which say nothing about time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.parsing import KINDS
from benchmarks.throughput import PIPELINES

ROOT = Path(__file__).parent.parent


def test_each_pipeline_takes_all_lines() -> None:
    kinds = [f"--only={kind}" for kind in ("throughput", "parsing")]
    command = [sys.executable, "-m", "benchmarks", "--lines=1000", "--runs=1", *kinds]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for pipeline in (*PIPELINES, *(pipeline for pipeline, _ in KINDS)):
        assert f"| {pipeline.name} |" in done.stdout
