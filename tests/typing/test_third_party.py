"""Sinks, sources and processors that logroute knows nothing of: they type-check, and run in a daemon.

They are the examples of docs/extending.md, word for word.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mypy import api

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "extending.md"
MODULES = ("logroute_datagram", "logroute_drop", "logroute_shout", "logroute_slow")


# --- typing -----------------------------------------------------------------------------------------


def mypy(*files: Path) -> tuple[str, int]:
    """What `mypy --strict` says, with the cache that `make lint` fills."""
    before, calls = Path.cwd(), sys.getrecursionlimit()
    os.chdir(ROOT)
    try:
        out, error, code = api.run(["--strict", "--no-error-summary", *map(str, files)])
    finally:
        os.chdir(before)
        sys.setrecursionlimit(calls)  # mypy's own is for the whole process, other tests' as well
    assert not error
    return out, code


def test_they_type_check() -> None:
    assert mypy(*(HERE / f"{module}.py" for module in MODULES)) == ("", 0)


@pytest.mark.parametrize(
    ("module", "right", "wrong", "said"),
    [
        ("logroute_datagram", "return Outcome(rejected)\n", "return None\n", "[return-value]"),
        ("logroute_datagram", "options: DatagramOptions,", "options: SinkOptions,", "[arg-type]"),
        ("logroute_datagram", "Rejected(index, record,", "Rejected(index, line,", "[arg-type]"),
        ("logroute_drop", "await emit([batch])", "await emit(batch)", "[arg-type]"),
        ("logroute_drop", "self.options.folder)", "self.options.path)", "[attr-defined]"),
        ("logroute_shout", "return batch\n", "return batch.records\n", "[return-value]"),
        ("logroute_slow", "record.level =", "record.levl =", "[attr-defined]"),
    ],
)  # fmt: skip
def test_mistakes_against_the_contract_do_not_type_check(
    tmp_path: Path, module: str, right: str, wrong: str, said: str
) -> None:
    text = (HERE / f"{module}.py").read_text()
    assert right in text
    (tmp_path / "mistaken.py").write_text(text.replace(right, wrong))
    out, code = mypy(tmp_path / "mistaken.py")
    assert (code, said in out) == (1, True), out


# --- the page ---------------------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def test_the_page_shows_them_word_for_word() -> None:
    assert blocks("python") == [(HERE / f"{module}.py").read_text() for module in MODULES]


# --- running ----------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment in which they are installed, by the entry points that the page shows."""
    groups = re.findall(r'\[project\.entry-points\."(.*?)"\]\n(.*?)(?:\n\n|\Z)', blocks("toml")[0], re.DOTALL)
    points = "\n".join(f"[{group}]\n" + lines.replace('"', "") for group, lines in groups)
    info = tmp_path / "site" / "logroute_examples-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: logroute-examples\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    path = os.pathsep.join([str(tmp_path / "site"), str(HERE), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}


def logroute(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "logroute", *arguments],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "collector.sock"))
        made.setblocking(False)
        yield made


def received(receiver: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(json.loads(receiver.recv(1 << 20))["message"])
        except BlockingIOError:
            return messages


def test_they_run_in_a_daemon_and_go_on_where_they_were(
    tmp_path: Path, installed: dict[str, str], receiver: socket.socket
) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    config = tmp_path / "logroute.yaml"
    config.write_text(
        f"state_dir: {tmp_path}/state\n"
        f"sources: {{reports: {{type: drop, folder: {folder}}}}}\n"
        f"routes: {{collector: {{sink: 'datagram://{tmp_path}/collector.sock'}}}}\n"
    )
    (folder / "001").write_text("one\n")
    (folder / "002").write_text("two\nlines\n")
    for _ in range(2):
        done = logroute(installed, "run", "-c", str(config), "--once")
        assert done.returncode == 0, done.stderr
    assert received(receiver) == ["one", "two\nlines"]
    (folder / "003").write_text("three")
    config.write_text(
        config.read_text().replace("routes: {", f"routes: {{new: {{sink: 'file://{tmp_path}/new.ndjson'}}, ")
    )
    done = logroute(installed, "run", "-c", str(config), "--once")
    assert done.returncode == 0, done.stderr
    assert received(receiver) == ["three"]
    lines = [json.loads(line) for line in (tmp_path / "new.ndjson").read_text().splitlines()]
    assert [line["message"] for line in lines] == ["one", "two\nlines", "three"]
    assert [line["event"]["id"] for line in lines] == ["001", "002", "003"]


def test_a_record_that_is_too_large_is_rejected_and_the_others_arrive(
    tmp_path: Path, installed: dict[str, str], receiver: socket.socket
) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    for name, text in {"001": "one", "002": "x" * 1_000_000, "003": "three"}.items():
        (folder / name).write_text(text)
    config = tmp_path / "logroute.yaml"
    config.write_text(
        f"state_dir: null\nsources: {{reports: {{type: drop, folder: {folder}}}}}\n"
        f"routes: {{collector: {{sink: {{type: datagram, path: {tmp_path}/collector.sock}}}}}}\n"
    )
    done = logroute(installed, "run", "-c", str(config), "--once")
    assert (done.returncode, "larger than a datagram can be" in done.stderr) == (3, True), done.stderr
    assert received(receiver) == ["one", "three"]


def test_they_are_known_like_those_that_are_built_in(tmp_path: Path, installed: dict[str, str]) -> None:
    schema = json.loads(logroute(installed, "schema").stdout)
    folder = schema["$defs"]["DropOptions"]["properties"]["folder"]
    assert folder["description"].startswith("Where they appear.")
    assert schema["$defs"]["DatagramOptions"]["properties"]["path"]["description"]
    config = tmp_path / "logroute.yaml"
    config.write_text(
        "sources: {reports: {type: drop, foldr: /x}}\nroutes: {all: {sink: {type: datagrm, path: /x}}}\n"
    )
    done = logroute(installed, "validate", "-c", str(config))
    assert done.returncode == 2
    assert 'did you mean "folder"' in done.stdout
    assert 'did you mean "datagram"' in done.stdout


# --- processors ---------------------------------------------------------------------------------------

QUERIES = (
    '{"msg":"select 1","seconds":0.1}',
    '{"msg":"select 2","seconds":2}',
    '{"msg":"select 3","seconds":20}',
)


def run_over(
    tmp_path: Path, installed: dict[str, str], routes: str, lines: tuple[str, ...] = QUERIES
) -> tuple[dict[str, list[dict[str, Any]]], str]:
    """What each route's file has then, and the log."""
    (tmp_path / "app.log").write_text("\n".join((*lines, "")))
    config = tmp_path / "logroute.yaml"
    config.write_text(
        f"state_dir: null\nsources: {{app: {{type: file, paths: [{tmp_path}/app.log], start: beginning}}}}\n"
        + routes.replace("FOLDER", str(tmp_path))
    )
    done = logroute(installed, "run", "-c", str(config), "--once")
    assert done.returncode == 0, done.stderr
    files = tmp_path.glob("*.ndjson")
    found = {file.stem: [json.loads(line) for line in file.read_text().splitlines()] for file in files}
    return found, done.stderr


def test_a_function_and_a_processor_treat_records(tmp_path: Path, installed: dict[str, str]) -> None:
    found, _ = run_over(
        tmp_path,
        installed,
        "routes:\n"
        "  slow:\n"
        "    processors: [{type: json}, {type: python, function: 'logroute_slow:slow_queries'}]\n"
        "    sink: file://FOLDER/slow.ndjson\n"
        "  loud:\n"
        "    processors: [{type: json}, {type: shout, mark: '?'}]\n"
        "    sink: file://FOLDER/loud.ndjson\n",
    )
    slow = [(each["message"], each.get("log", {}).get("level")) for each in found["slow"]]
    assert slow == [("select 2", None), ("select 3", "error")]
    assert [each["message"] for each in found["loud"]] == ["SELECT 1?", "SELECT 2?", "SELECT 3?"]


def test_a_function_that_raises_harms_its_own_route_only(tmp_path: Path, installed: dict[str, str]) -> None:
    site = tmp_path / "site"
    (site / "raising.py").write_text(
        "def half(records):\n    records[0].message = 'changed'\n    return [1 / 0]\n\n\n"
        "def end(records):\n    raise SystemExit(7)\n\n\n"
        "def stop(records):\n    raise KeyboardInterrupt\n\n\n"
        "class Panic(BaseException): pass\n\n\n"
        "def panic(records):\n    raise Panic('as of Rust')\n"
    )
    found, log = run_over(
        tmp_path,
        installed,
        "routes:\n"
        "  half: {processors: [{type: python, function: 'raising:half'}], sink: 'file://FOLDER/half.ndjson'}\n"
        "  end: {processors: [{type: python, function: 'raising:end'}], sink: 'file://FOLDER/end.ndjson'}\n"
        "  stop: {processors: [{type: python, function: 'raising:stop'}], sink: 'file://FOLDER/stop.ndjson'}\n"
        "  panic: {processors: [{type: python, function: 'raising:panic'}], sink: 'file://FOLDER/panic.ndjson'}\n"
        "  plain: {sink: 'file://FOLDER/plain.ndjson'}\n",
    )
    messages = {name: tuple(each["message"] for each in lines) for name, lines in found.items()}
    assert messages == dict.fromkeys(("half", "end", "stop", "panic", "plain"), QUERIES)
    assert "half.processors[0].python" in log
    assert "ZeroDivisionError" in log
    for name in ("end", "stop", "panic"):
        assert f"{name}.processors[0].python" in log
