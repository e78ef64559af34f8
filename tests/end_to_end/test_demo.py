"""`logroute demo`, as a newcomer runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.docker_engine import DockerEngine


def demo(folder: Path, host: str) -> str:
    command = [sys.executable, "-m", "logroute", "demo", "--seconds", "3", "--folder", str(folder)]
    environment = {**os.environ, "DOCKER_HOST": host}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def shows_what_it_did(said: str, folder: Path) -> None:
    records = [json.loads(line) for line in (folder / "everything.ndjson").read_bytes().splitlines()]
    assert f"has written {len(records)} records" in said
    assert len(records) > 10
    for service in ("web", "api", "db", "worker"):
        assert any(line.startswith(service) for line in said.splitlines()), f"{service} says nothing"
    errors = [line for file in (folder / "errors").iterdir() for line in file.read_text().splitlines()]
    assert errors
    assert len(errors) == sum(record["stream"] == "stderr" for record in records)
    assert said.rstrip().endswith("logroute run file:///tmp/all.ndjson")


def test_without_an_engine_the_containers_are_simulated(tmp_path: Path) -> None:
    said = demo(tmp_path, f"unix://{tmp_path}/nobody.sock")
    assert "simulated Docker engine" in said.splitlines()[0]
    shows_what_it_did(said, tmp_path)


@pytest.mark.real_engine
def test_with_an_engine_they_are_its_own_and_are_removed(tmp_path: Path, docker_engine: DockerEngine) -> None:
    docker_engine.run("bystander", ["sh", "-c", "while echo not of the demo; do sleep 0.2; done"])
    said = demo(tmp_path, docker_engine.host)
    assert "of your Docker engine (from busybox" in said.splitlines()[0]
    assert "not of the demo" not in said
    shows_what_it_did(said, tmp_path)
    names = [container["Names"] for container in docker_engine.api("GET", "/containers/json?all=1")]
    assert ["/bystander"] in names
    assert not any("logroute-demo" in name for found in names for name in found)
    docker_engine.remove("bystander")
