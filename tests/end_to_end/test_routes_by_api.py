"""Routes that are made by API, through kill -9 of a real daemon: what was answered is stored, and stays."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.end_to_end.daemon import Daemon, wait_until


class Api:
    """Asks the daemon over its socket."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "l.sock"

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        transport = httpx.HTTPTransport(uds=str(self.socket))
        with httpx.Client(transport=transport, base_url="http://logroute", timeout=30) as client:
            return client.request(method, path, json=body)

    def routes(self) -> dict[str, Any]:
        return {each["name"]: each for each in self.ask("GET", "/v1/routes").json()["routes"]}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, "unix:///nowhere")
    daemon.config.write_text(
        f"state_dir: {tmp_path / 'state'}\n"
        f"api: {{listen: 'unix://{tmp_path / 'l.sock'}'}}\n"
        f"sources: {{app: {{type: file, paths: [{tmp_path / 'app.log'}], format: text, start: beginning}}}}\n"
        "routes: {own: {sink: 'null:'}}\n"
        "limits: {grace: 1s}\n"
    )
    (tmp_path / "app.log").write_text("n 1\n")
    daemon.start()
    yield daemon
    daemon.close()


def test_what_was_answered_is_there_after_kill_9(tmp_path: Path, daemon: Daemon) -> None:
    api, copy = Api(tmp_path), tmp_path / "copy.log"
    body = {"sink": f"file://{copy}?format=raw", "start": "beginning"}
    assert api.ask("PUT", "/v1/routes/copy", body).status_code == 201
    assert api.ask("PUT", "/v1/routes/other", {"sink": "null:"}).status_code == 201
    assert api.ask("POST", "/v1/routes/own/pause").is_success
    daemon.kill()
    daemon.start()
    assert {name: bool(each.get("paused")) for name, each in api.routes().items()} == {
        "own": True,
        "copy": False,
        "other": False,
    }
    with (tmp_path / "app.log").open("a") as log:
        log.write("n 2\n")
    wait_until(
        lambda: copy.exists() and copy.read_text() == "n 1\nn 2\n", "the route delivers, each line once"
    )
    assert api.ask("DELETE", "/v1/routes/other").is_success
    assert api.ask("POST", "/v1/routes/own/resume").is_success
    daemon.kill()
    daemon.start()
    assert {name: bool(each.get("paused")) for name, each in api.routes().items()} == {
        "own": False,
        "copy": False,
    }


@pytest.mark.parametrize(
    ("source_start", "start", "first"),
    [
        ("now", None, "n 3"),
        ("beginning", None, "n 1"),
        ("now", "beginning", "n 1"),
        ("beginning", "now", "n 3"),
        ("now", "now", "n 3"),
    ],
)
def test_a_route_begins_where_its_start_says_else_the_sources_and_kill_9_behind_the_answer_moves_nothing(
    tmp_path: Path, daemon: Daemon, source_start: str, start: str | None, first: str
) -> None:
    """`now` is the moment of the answer, not that of the next start."""
    daemon.kill()
    shutil.rmtree(tmp_path / "state")
    daemon.config.write_text(daemon.config.read_text().replace("start: beginning", f"start: {source_start}"))
    daemon.start()
    api, copy = Api(tmp_path), tmp_path / "copy.log"
    lines = ["n 1"]

    def say(*more: str) -> None:
        lines.extend(more)
        with (tmp_path / "app.log").open("a") as log:
            log.writelines(f"{line}\n" for line in more)

    say("n 2")
    wait_until(lambda: str(api.ask("GET", "/v1/stats").json()).count("'received': ") > 0, "it runs")
    body = {"sink": f"file://{copy}?format=raw"} | ({"start": start} if start else {})
    assert api.ask("PUT", "/v1/routes/copy", body).status_code == 201
    daemon.kill()
    say("n 3")
    daemon.start()
    say("n 4")
    expected = lines[lines.index(first) :]
    wait_until(lambda: copy.exists() and copy.read_text().splitlines()[-1:] == ["n 4"], "it delivers")
    assert copy.read_text().splitlines() == expected


def test_what_a_route_had_accepted_outlives_kill_9(tmp_path: Path, daemon: Daemon) -> None:
    """Its receiver is down when it is made, and comes after the daemon was killed."""
    api, folder = Api(tmp_path), tmp_path / "later"
    folder.write_text("a file where a folder should be")
    body = {"sink": f"file://{folder}/copy.log?format=raw", "start": "beginning"}
    assert api.ask("PUT", "/v1/routes/copy", body).status_code == 201
    wait_until(lambda: not api.routes()["copy"]["status"]["up"], "it says why it does not deliver")
    daemon.kill()
    folder.unlink()
    folder.mkdir()
    daemon.start()
    copy = folder / "copy.log"
    wait_until(lambda: copy.exists() and copy.read_text() == "n 1\n", "what it had accepted arrives")


def test_the_command_says_the_same(tmp_path: Path, daemon: Daemon) -> None:
    def routes(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "logroute", "routes", *arguments, "--api", f"unix://{tmp_path}/l.sock"]
        return subprocess.run(line, capture_output=True, text=True, timeout=60)

    assert routes("add", "copy", f"file://{tmp_path}/copy.log").returncode == 0
    daemon.kill()
    assert routes("list").returncode != 0
    daemon.start()
    listed = routes("list")
    assert listed.returncode == 0
    assert "copy" in listed.stdout
    refused = routes("remove", "own")
    assert refused.returncode == 1
    assert "logroute.yaml" in refused.stderr + refused.stdout
