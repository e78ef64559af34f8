"""Splunk's HTTP Event Collector with acknowledgement: the daemon is killed, or the receiver."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.daemon import wait_until
from tests.end_to_end.killing import run_through_kills
from tests.servers.splunk_acks import Acknowledging
from tests.servers.tenzir import SPLUNK_SLOW_ACK, TOKEN, Tenzir

LINES = 60_000
KILLS = 3


@pytest.fixture
def acknowledging(tenzir: Callable[[str], Tenzir]) -> Iterator[Acknowledging]:
    with Acknowledging(tenzir(SPLUNK_SLOW_ACK)) as started:
        yield started


@pytest.fixture
def config(acknowledging: Acknowledging, tmp_path: Path) -> Path:
    log = tmp_path / "app.log"
    log.write_text("".join([f"n {n:06d} {'some words ' * 12}\n" for n in range(LINES)]))
    config = tmp_path / "logroute.yaml"
    config.write_text(
        f"state_dir: {tmp_path / 'state'}\n"
        f"sources: {{logs: {{type: file, paths: ['{log}'], format: text, start: beginning}}}}\n"
        f"routes: {{all: {{sink: {{type: http, url: 'http://127.0.0.1:{acknowledging.port}',"
        f" encoding: splunk, token: {TOKEN}, splunk: {{ack: true, ack_timeout: 3s}}}},"
        " batch: {bytes: 256KiB},"
        " retry: {initial: 50ms, max: 200ms}}}\n"
    )
    return config


def numbers(acknowledging: Acknowledging) -> list[int]:
    return [int(event["event"].split()[1]) for event in acknowledging.server.wait_for(LINES)]


def test_every_event_is_there_however_often_the_daemon_is_killed(
    acknowledging: Acknowledging, config: Path
) -> None:
    run_through_kills(config, acknowledging.server.count, LINES, KILLS)
    assert {*numbers(acknowledging)} == {*range(LINES)}


def test_every_event_is_there_however_often_the_receiver_is_killed(
    acknowledging: Acknowledging, config: Path
) -> None:
    command = [sys.executable, "-m", "logroute", "run", "--once", "-c", str(config)]
    count = acknowledging.server.count
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "DOCKER_HOST": ""}
    ) as daemon:
        for kill in range(KILLS):
            wanted = (kill + 1) * LINES // (KILLS + 2)
            wait_until(lambda wanted=wanted: count() >= wanted, "more events come")
            assert daemon.poll() is None, "it was done before the receiver could be killed"
            with acknowledging.killed():
                pass
        _, said = daemon.communicate(timeout=120)
    assert daemon.returncode == 0, said[-2000:]
    assert {*numbers(acknowledging)} == {*range(LINES)}
    assert "cannot" in said or "failed" in said, "of the kills it noticed nothing"
