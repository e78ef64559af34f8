"""The benchmarks still run: with a thousand lines, which say nothing about time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.parsing import KINDS
from benchmarks.throughput import PIPELINES
from tests.conftest import missing
from tests.servers.elasticsearch import Elasticsearch

ROOT = Path(__file__).parent.parent


def test_each_pipeline_takes_all_lines() -> None:
    done = benchmarks("throughput", "parsing")
    for pipeline in (*PIPELINES, *(pipeline for pipeline, _ in KINDS)):
        assert f"| {pipeline.name} |" in done.stdout


def test_a_real_elasticsearch_takes_all_lines() -> None:
    if reason := Elasticsearch.unavailable():
        missing(reason)
    page = benchmarks("elasticsearch").stdout
    for what in ("lines/s that Elasticsearch takes", "CPU of Elasticsearch", "CPU of logroute"):
        found = re.search(rf"\| {what}[^|]* \| \*\*([\d,.]+)", page)
        assert found is not None
        assert float(found[1].replace(",", "")) > 0


def test_without_an_elasticsearch_its_part_is_left_out_with_a_word(tmp_path: Path) -> None:
    done = benchmarks("elasticsearch", LOGROUTE_SEARCH_CACHE=str(tmp_path))
    assert done.stderr.startswith("no Elasticsearch: elasticsearch-8.19.21 is not unpacked")
    assert "## Elasticsearch" not in done.stdout


def benchmarks(*kinds: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A thousand lines, once."""
    command = [sys.executable, "-m", "benchmarks", "--lines=1000", "--runs=1"]
    command += [f"--only={kind}" for kind in kinds]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done
