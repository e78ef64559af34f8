"""The demo's containers: exactly as many lines as asked for, of text like real logs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zlib
from itertools import islice
from pathlib import Path
from random import Random

import pytest
import trio

from logroute.simulator.chatter import ROLES, chat, json_api, populate


def lines_of(engine) -> list[dict]:
    return [
        json.loads(line)
        for container in engine.containers.values()
        for line in container.log_path.read_bytes().splitlines()
    ]


async def test_containers_say_exactly_as_many_lines_as_asked_for_at_the_rate(engine, autojump_clock):
    talks = populate(engine, 6)
    assert [talk.container.name for talk in talks] == ["web-1", "api-1", "db-1", "worker-1", "web-2", "api-2"]
    started = trio.current_time()
    assert await chat(talks, rate=100, total=503) == 503
    assert trio.current_time() - started == pytest.approx(5.03, abs=0.1)
    assert len(lines_of(engine)) == 503
    assert {line["stream"] for line in lines_of(engine)} == {"stdout", "stderr"}


async def test_who_does_not_run_is_silent(engine, autojump_clock):
    talks = populate(engine, 2)
    talks[0].container.exit()
    await chat(talks, total=100)
    assert talks[0].container.log_path.read_bytes() == b""
    assert len(lines_of(engine)) == 100


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.service)
def test_text_compresses_like_real_logs(role):
    lines = list(islice(role.speaker(Random(1), lambda: 1_700_000_000_000_000_000), 20_000))
    text = b"\n".join(line for _, line in lines)
    assert b"\n" not in b"".join(line for _, line in lines)
    assert 3 < len(text) / len(zlib.compress(text, 6)) < 10


def test_the_api_s_lines_are_json():
    for _, line in islice(json_api(Random(1), lambda: 1_700_000_000_000_000_000), 100):
        assert {"time", "level", "msg", "took_ms"} <= json.loads(line).keys()


def test_the_command_serves_until_it_is_told_to_end(tmp_path: Path):
    command = [
        sys.executable,
        "-m",
        "logroute.simulator",
        "--root",
        tmp_path,
        "--lines",
        "100",
        "--rate",
        "0",
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"unix://{tmp_path}/docker.sock\n"
        assert process.stdout.readline() == "100 lines were said, the containers exited\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    logs = list(tmp_path.glob("containers/*/*-json.log"))
    assert sum(len(log.read_bytes().splitlines()) for log in logs) == 100
