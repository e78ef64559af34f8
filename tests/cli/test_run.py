"""`logroute run` as a process, beside a simulated engine in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logroute.api.address import Address
from logroute.api.client import Client
from logroute.cli.run import NOTHING_TO_DO, Reloading, state_dir_of
from logroute.config.load import load_config
from logroute.config.problems import ConfigError
from logroute.router.daemon import Daemon
from logroute.router.plan import Plan

LINES = 300


class Engine:
    """A simulated engine whose containers have said everything."""

    def __init__(self, root: Path) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "logroute.simulator", "--root", str(root)),
                *("--containers", "3", "--lines", str(LINES), "--rate", "0", "--seed", "1"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.host = self._process.stdout.readline().strip()
        assert self._process.stdout.readline() == f"{LINES} lines were said, the containers exited\n"

    def close(self) -> None:
        self._process.terminate()
        assert self._process.wait(30) == 0
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(tmp_path_factory.mktemp("engine"))
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, home included; nothing of the environment is in the way."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("LOGROUTE_CONFIG", "STATE_DIRECTORY", "DOCKER_HOST", "DOCKER_CONTEXT", "NOTIFY_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def logroute(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A run that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "logroute", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
        timeout=60,
    )


def events(log: str) -> list[dict[str, Any]]:
    """The program's own log: JSON where stderr is no terminal."""
    return [json.loads(line) for line in log.splitlines()]


def messages(lines: str) -> list[str]:
    return [json.loads(line)["message"] for line in lines.splitlines()]


# --- what it needs ------------------------------------------------------------------------------------


def nowhere_else() -> None:
    if Path("/etc/logroute/logroute.yaml").exists():
        pytest.skip("this machine has a configuration of its own")


def test_with_nothing_to_do_it_says_what_to_type() -> None:
    nowhere_else()
    done = logroute("run")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", NOTHING_TO_DO)
    for line in ("run file:///tmp/all.ndjson", "run stdout:", "run -c logroute.yaml", "demo"):
        assert f"  logroute {line} " in NOTHING_TO_DO


def test_mistakes_of_the_configuration_end_it_with_2(folder: Path) -> None:
    (folder / "logroute.yaml").write_text("routes:\n  all: {snik: 'null:'}\n")
    said = (
        "logroute.yaml:2:3: routes.all.sink: this option is needed\n"
        'logroute.yaml:2:9: routes.all.snik: unknown option; did you mean "sink"?\n'
    )
    done = logroute("run")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
    done = logroute("run", "-c", "logroute.yaml", "fiel:///x")
    uri = 'there is no sink for "fiel:"; did you mean "file"?\n'
    assert (done.returncode, done.stdout, done.stderr) == (2, "", uri + said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/tmp/x"], "'/tmp/x' has no scheme; a file is file:///tmp/x"),
        (["http://[x"], "'http://[x' is no URI"),
        (["file:///x?formt=raw"], 'file:///x?formt=…: formt: unknown option; did you mean "format"?'),
        (["-c", "none.yaml"], "none.yaml: cannot read it: No such file or directory"),
        (["stdout:", "--timeout", "5"], "--timeout: a duration needs a unit: 5s or 5m?"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_exit_code_2(arguments: list[str], said: str) -> None:
    done = logroute("run", "--once", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{said}\n")


def test_an_engines_address_in_the_environment_that_is_none_ends_it_with_2() -> None:
    done = logroute("run", "--once", "stdout:", DOCKER_HOST="tcp://x:99999999")
    said = (
        "sources.docker: the engine's address 'tcp://x:99999999' (from $DOCKER_HOST) is no host and port: "
        "Port out of range 0-65535\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


# --- once ---------------------------------------------------------------------------------------------


def test_once_delivers_what_is_there_and_ends(engine: Engine) -> None:
    done = logroute("run", "--once", "stdout:", DOCKER_HOST=engine.host)
    assert done.returncode == 0
    assert len(messages(done.stdout)) == LINES
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert {record["container"]["name"] for record in records} == {"web-1", "api-1", "db-1"}


def test_stdout_is_data_and_stderr_the_programs_own_log_as_json(engine: Engine, folder: Path) -> None:
    done = logroute("run", "--once", f"file://{folder}/out.ndjson", DOCKER_HOST=engine.host)
    assert (done.returncode, done.stdout) == (0, "")
    (started,) = [event for event in events(done.stderr) if event["event"] == "started"]
    assert started["level"] == "info"
    assert started["routes"] == ["file"]
    assert started["state_dir"] is None
    assert started["timestamp"].endswith("Z")
    assert len(messages((folder / "out.ndjson").read_text())) == LINES


def test_it_says_in_words_that_everything_is_kept_in_memory(engine: Engine, folder: Path) -> None:
    (folder / "logroute.yaml").write_text("state_dir: null\nroutes: {all: {sink: 'null:'}}\n")
    for arguments, in_memory in (
        (["null:"], True),
        (["-c", "logroute.yaml"], True),
        (["null:", "--state-dir", str(folder / "state")], False),
    ):
        done = logroute("run", "--once", *arguments, DOCKER_HOST=engine.host)
        (started,) = [event for event in events(done.stderr) if event["event"] == "started"]
        assert ("kept in memory" in started.get("note", "")) is in_memory
        assert ("--state-dir DIR" in started.get("note", "")) is in_memory


def test_the_log_is_as_it_was_asked_for(engine: Engine) -> None:
    environ = {"DOCKER_HOST": engine.host}
    done = logroute("run", "--once", "--log-format", "text", "null:", **environ)
    assert done.returncode == 0
    assert "[info     ] started" in done.stderr
    assert "\x1b" not in done.stderr
    done = logroute("run", "--once", "--log-level", "error", "null:", **environ)
    assert (done.returncode, done.stderr) == (0, "")


def test_several_uris_are_several_routes_beside_those_of_a_file(engine: Engine, folder: Path) -> None:
    (folder / "logroute.yaml").write_text(
        f"""\
state_dir: null
sources: {{docker: {{host: '{engine.host}'}}}}
routes:
  web: {{match: {{container: web-*}}, sink: 'file://{folder}/web.ndjson'}}
"""
    )
    uris = [f"file://{folder}/{name}.ndjson" for name in ("one", "two")]
    done = logroute("run", "--once", "-c", "logroute.yaml", *uris)
    assert done.returncode == 0
    (started,) = [event for event in events(done.stderr) if event["event"] == "started"]
    assert started["routes"] == ["file", "file-2", "web"]
    one, two, web = (messages((folder / f"{name}.ndjson").read_text()) for name in ("one", "two", "web"))
    assert sorted(one) == sorted(two)
    assert len(one) == LINES
    assert 0 < len(web) < LINES


def test_a_state_dir_makes_a_second_run_go_on_where_the_first_ended(engine: Engine, folder: Path) -> None:
    arguments = ["run", "--once", "--state-dir", "state", f"file://{folder}/out.ndjson"]
    for _ in range(2):
        done = logroute(*arguments, DOCKER_HOST=engine.host)
        assert done.returncode == 0
        assert events(done.stderr)[-1]["state_dir"] == str(folder / "state")
        assert len(messages((folder / "out.ndjson").read_text())) == LINES
    assert (folder / "state" / "routes" / "file.db").exists()


def test_without_a_state_dir_a_second_run_begins_anew(engine: Engine, folder: Path) -> None:
    for count in (LINES, 2 * LINES):
        logroute("run", "--once", f"file://{folder}/out.ndjson", DOCKER_HOST=engine.host)
        assert len(messages((folder / "out.ndjson").read_text())) == count


def test_once_gives_up_with_3_when_there_is_no_engine(folder: Path) -> None:
    done = logroute("run", "--once", "--timeout", "300ms", "stdout:", DOCKER_HOST=f"unix://{folder}/none")
    assert (done.returncode, done.stdout) == (3, "")
    said = [event["event"] for event in events(done.stderr)]
    assert "the engine is away, waiting for it; files are read on" in said
    assert said[-2:] == ["no progress, giving up", "not every record was acknowledged"]


# --- running ------------------------------------------------------------------------------------------


class Running:
    """A run that goes on until it is stopped."""

    def __init__(self, folder: Path, host: str, *arguments: str) -> None:
        self._log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "logroute", "run", *arguments],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "DOCKER_HOST": host},
        )

    def log(self) -> list[dict[str, Any]]:
        self._log.seek(0)
        # The last line may not be whole yet.
        return events(self._log.read().rpartition("\n")[0])

    def wait_for(self, event: str) -> None:
        deadline = time.monotonic() + 30
        while not any(said["event"] == event for said in self.log()):
            assert time.monotonic() < deadline, self.log()
            assert self.process.poll() is None, self.log()
            time.sleep(0.02)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._log.close()


def test_a_daemon_starts_with_every_receiver_down_and_says_so(engine: Engine, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    (folder / "in the way").write_text("a file")
    uris = [
        *(f"syslog+tcp://127.0.0.1:{port}", f"syslog+tcp://localhost:{port}", f"http://127.0.0.1:{port}/"),
        f"file://{folder}/in the way/all.log",
        f"file://{folder}/in the way/logs/{{container.name}}.log",
    ]
    running = Running(folder, engine.host, "--listen", f"unix://{folder}/api.sock", *uris)
    try:
        running.wait_for("started")
        running.wait_for("started degraded: some routes cannot deliver, and go on trying")
        (said,) = [said for said in running.log() if said["event"].startswith("started degraded")]
        reasons = said["routes"]
        assert set(reasons) == {"syslog+tcp", "syslog+tcp-2", "http", "file", "file-2"}
        for name, reason in reasons.items():
            word = "a file stands where a folder is needed" if "file" in name else "Connection refused"
            assert word in reason
        health = logroute("health", "--api", f"unix://{folder}/api.sock")
        assert health.returncode == 1
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0
    finally:
        running.close()


def test_what_came_from_a_file_is_shown_nowhere(engine: Engine, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    (folder / "path").write_text("S3CRETpath\n")
    (folder / "host").write_text("no-S3CRET-host.invalid\n")
    (folder / "logroute.yaml").write_text(
        f"""\
state_dir: null
api: {{listen: "unix://{folder}/api.sock"}}
routes:
  http: {{sink: {{type: http, url: "http://127.0.0.1:{port}/receiver/${{file:path}}"}}}}
  file: {{sink: {{type: file, path: "/dev/null/${{file:path}}/x"}}}}
  name: {{sink: "syslog+tcp://${{file:host}}:514"}}
  search: {{sink: {{type: elasticsearch, hosts: ["http://127.0.0.1:{port}/${{file:path}}"]}}}}
"""
    )
    running = Running(folder, engine.host, "-c", "logroute.yaml", "--log-level", "debug")
    try:
        running.wait_for("started degraded: some routes cannot deliver, and go on trying")
        told = [
            logroute(*command, "--api", f"unix://{folder}/api.sock").stdout
            for command in (["health"], ["routes", "show", "http"], ["explain", "web-1"], ["ps"])
        ]
        with Client(Address(path=f"{folder}/api.sock")) as client:
            paths = ("stats", "routes", "config", "health", "containers", "top")
            told += [json.dumps(client.get(f"/v1/{path}", dict[str, Any])) for path in paths]
    finally:
        running.close()
    told.append((folder / "log").read_text())
    assert "/receiver/${file:path}: cannot connect: Connection refused" in told[-1]
    assert "/receiver/${file:path}: cannot connect: Connection refused" in told[0]
    for text in told:
        assert "s3cret" not in text.lower()


def test_two_daemons_do_not_share_a_state_dir(engine: Engine, folder: Path) -> None:
    first = Running(folder, engine.host, "--state-dir", "state", "null:")
    try:
        first.wait_for("started")
        second = logroute("run", "--state-dir", "state", "null:", DOCKER_HOST=engine.host)
        assert (second.returncode, second.stdout) == (1, "")
        (said,) = events(second.stderr)
        assert said["reason"] == (
            f"another logroute (process {first.process.pid}) uses state_dir {folder}/state: stop it, or give "
            "another one"
        )
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(30) == 0
        assert (
            logroute("run", "--once", "--state-dir", "state", "null:", DOCKER_HOST=engine.host).returncode
            == 0
        )
    finally:
        first.close()


def test_a_state_dir_that_nobody_can_write_to_ends_it_with_1() -> None:
    done = logroute("run", "--state-dir", "/proc/logroute", "null:")
    assert (done.returncode, done.stdout) == (1, "")
    (said,) = events(done.stderr)
    assert said["reason"].startswith("cannot use state_dir /proc/logroute: ")
    assert said["reason"].endswith("; give another one with --state-dir")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_everything_delivered(
    engine: Engine, folder: Path, number: signal.Signals
) -> None:
    (folder / "logroute.yaml").write_text(
        f"state_dir: state\nsources: {{docker: {{host: '{engine.host}', start: beginning}}}}\n"
        "routes: {all: {sink: 'stdout:'}}\n"
    )
    running = Running(folder, "", "-c", "logroute.yaml")
    try:
        running.wait_for("started")
        assert running.process.stdout is not None
        lines = [running.process.stdout.readline() for _ in range(LINES)]
        running.process.send_signal(number)
        assert running.process.wait(30) == 0
        assert running.process.stdout.read() == ""
        assert len(messages("".join(lines))) == LINES
        assert running.log()[-1]["signal"] == number.name
    finally:
        running.close()


# --- reloading ----------------------------------------------------------------------------------------


@pytest.fixture
def configured(engine: Engine, folder: Path) -> Iterator[Running]:
    (folder / "logroute.yaml").write_text(configuration(engine, "a"))
    running = Running(folder, "", "-c", "logroute.yaml")
    try:
        yield running
    finally:
        running.close()


def configuration(engine: Engine, *routes: str, more: str = "") -> str:
    sinks = ", ".join(f"{name}: {{sink: 'null:'}}" for name in routes)
    return f"state_dir: state\nsources: {{docker: {{host: '{engine.host}'}}}}\nroutes: {{{sinks}}}\n{more}"


def test_a_stop_that_follows_a_reload_at_once_is_no_crash(
    engine: Engine, folder: Path, configured: Running
) -> None:
    configured.wait_for("started")
    (folder / "logroute.yaml").write_text(configuration(engine, *(f"r{number}" for number in range(40))))
    configured.process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    configured.process.send_signal(signal.SIGTERM)
    assert configured.process.wait(30) == 0


def test_a_changed_api_is_said_to_need_a_restart(engine: Engine, folder: Path, configured: Running) -> None:
    configured.wait_for("started")
    more = f"api: {{listen: 'unix://{folder}/other.sock'}}\n"
    (folder / "logroute.yaml").write_text(configuration(engine, "a", "b", more=more))
    configured.process.send_signal(signal.SIGHUP)
    configured.wait_for("reloaded")
    (said,) = [said for said in configured.log() if "needs a restart" in said["event"]]
    assert "`api`" in said["event"]
    assert not (folder / "other.sock").exists()
    configured.process.send_signal(signal.SIGTERM)
    assert configured.process.wait(30) == 0


async def test_whatever_goes_wrong_with_a_reload_is_said_and_ends_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def load() -> Plan:
        raise RecursionError("maximum recursion depth exceeded")

    await Reloading(load, []).reload(Daemon(Plan([], [])))
    said = capsys.readouterr().out
    assert "the reload failed; the daemon goes on" in said
    assert "maximum recursion depth exceeded" in said


# --- where the state is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "given", "environ", "where"),
    [
        ("", "state", {}, "{folder}/state"),
        ("state_dir: /var/s", "state", {}, "{folder}/state"),
        ("state_dir: /var/s", None, {}, "/var/s"),
        ("state_dir: /var/s", None, {"STATE_DIRECTORY": "/run/s"}, "/var/s"),
        ("state_dir: null", None, {"STATE_DIRECTORY": "/run/s"}, None),
        ("state_dir: null", "state", {}, "{folder}/state"),
        ("", None, {"STATE_DIRECTORY": "/run/s"}, "/run/s"),
        ("", None, {"STATE_DIRECTORY": "/run/s:/run/t"}, "/run/s"),
        (None, None, {"STATE_DIRECTORY": "/run/s"}, None),
        (None, "state", {}, "{folder}/state"),
    ],
)
def test_the_state_is_where_it_was_asked_for(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    given: str | None,
    environ: dict[str, str],
    where: str | None,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    path = None if text is None else folder / "logroute.yaml"
    if path is not None:
        path.write_text(f"routes: {{all: {{sink: 'null:'}}}}\n{text}")
    config = load_config(path, () if path else ("null:",)).config
    found = state_dir_of(config, given, from_file=path is not None)
    assert found == (where if where is None else Path(where.format(folder=folder)))


@pytest.mark.parametrize(
    ("user", "where"), [(0, "/var/lib/logroute"), (1000, "{folder}/.local/state/logroute")]
)
def test_the_default_state_is_the_users_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch, user: int, where: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    config = load_config(None, ("null:",)).config
    assert state_dir_of(config, None, from_file=True) == Path(where.format(folder=folder))


def test_a_state_dir_that_is_no_text_is_a_mistake(folder: Path) -> None:
    (folder / "logroute.yaml").write_text("state_dir: [x]\nroutes: {all: {sink: 'null:'}}")
    with pytest.raises(ConfigError, match="state_dir: expected a text, not a list"):
        load_config(folder / "logroute.yaml")


# --- the API ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0.0.0.0:8080", "[::]:8080", ":8080", "http://10.0.0.1:8080", "host:1"])
def test_an_address_that_others_can_reach_needs_a_token(folder: Path, text: str) -> None:
    done = logroute("run", "null:", "--listen", text)
    assert done.returncode == 2
    assert "can be reached by other hosts: give api.token_file" in done.stderr
    (folder / "logroute.yaml").write_text(
        f"api: {{listen: '{text}'}}\nroutes: {{all: {{sink: 'null:'}}}}\nstate_dir: null\n"
    )
    done = logroute("run")
    assert done.returncode == 2
    assert done.stderr.startswith("api.listen: ")


@pytest.mark.parametrize("text", ["nonsense", "1.2.3.4", "unix://x", "127.0.0.1:99999", "http://x:1/path"])
def test_an_address_that_is_none_is_a_mistake(folder: Path, text: str) -> None:
    done = logroute("run", "null:", "--listen", text)
    assert (done.returncode, done.stderr.startswith("--listen: ")) == (2, True)
    (folder / "logroute.yaml").write_text(f"api: {{listen: '{text}'}}\nroutes: {{all: {{sink: 'null:'}}}}\n")
    with pytest.raises(ConfigError, match=r"logroute.yaml:1:7: api.listen: .* is no address of an API"):
        load_config(folder / "logroute.yaml")


def test_a_token_that_cannot_be_read_ends_it_with_2(folder: Path) -> None:
    (folder / "logroute.yaml").write_text(
        "api: {listen: '127.0.0.1:0', token_file: none}\nroutes: {all: {sink: 'null:'}}\n"
    )
    done = logroute("run")
    assert (done.returncode, done.stderr) == (
        2,
        "api.token_file: cannot read none: No such file or directory\n",
    )


def test_a_socket_that_cannot_be_had_ends_it_with_1(engine: Engine, folder: Path) -> None:
    (folder / "file").write_text("")
    done = logroute(
        "run", f"file://{folder}/out", "--listen", f"unix://{folder}/file", DOCKER_HOST=engine.host
    )
    assert done.returncode == 1
    assert "there is a file that is no socket" in events(done.stderr)[-1]["reason"]


WHAT_IS_IMPORTED = """
import atexit, sys

def tell():
    there = {name for name, module in sys.modules.items() if module is not None}
    web = {"hypercorn", "starlette", "fastapi", "prometheus_client", "wsproto", "httpx", "rich"}
    api = {name for name in there if name.startswith("logroute.api.")}
    print("imported", *sorted(web & there | api), file=sys.stderr, flush=True)

atexit.register(tell)
from logroute.cli import main
main()
"""


@pytest.mark.parametrize("once", [True, False])
def test_nothing_of_the_web_is_imported_before_somebody_asks(
    engine: Engine, folder: Path, once: bool
) -> None:
    """Not by what has no API, nor by a daemon whose API listens, as long as nobody comes."""
    arguments = ["--once"] if once else ["--listen", f"unix://{folder}/l.sock"]
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", WHAT_IS_IMPORTED, "run", *arguments, f"file://{folder}/out"],
            stderr=log,
            env={**os.environ, "DOCKER_HOST": engine.host},
        )
        try:
            deadline = time.monotonic() + 30
            while not once and '"started"' not in (folder / "log").read_text():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            if not once:
                process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
    last = (folder / "log").read_text().splitlines()[-1]
    # What listens is no web: where the API is to be, and a server that waits for somebody.
    assert last == "imported logroute.api.address logroute.api.listener logroute.api.server"
