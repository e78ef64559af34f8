"""A short run of the oracle, as `make soak` does it for long."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import missing

ROOT = Path(__file__).parents[2]
LOAD_MINUTES = 0.4
SEEDS = (44,)
"""Eleven faults, more than most have in so short a time: a kill, a disk that hangs, a container that is
removed while a receiver hangs; routes that block and that drop, without a spool and with a small one."""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_daemon_keeps_its_promises_while_everything_fails(seed: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.oracle", f"--seed={seed}", f"--minutes={LOAD_MINUTES}"]
    command.append(f"--folder={tmp_path / 'oracle'}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-4000:]
    for left_out in (line for line in done.stdout.splitlines() if line.startswith("left out")):
        missing(left_out)
