"""What all tests share: the real servers, and how several workers part the work (`make test`)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import hypothesis
import pytest
import structlog

from tests.servers import docker_engine as real
from tests.servers.fluent_server import FluentServer
from tests.servers.forward_collector import ForwardCollector
from tests.servers.gelf_reader import GelfReader
from tests.servers.json_lines import JsonLinesServer
from tests.servers.loki import Loki
from tests.servers.otlp_collector import OtlpCollector
from tests.servers.rsyslog import Rsyslog
from tests.servers.tenzir import Tenzir

Server = TypeVar("Server", bound=JsonLinesServer)

# No test asserts a time: a machine that is busy fails none.
hypothesis.settings.register_profile("logroute", deadline=None)
hypothesis.settings.load_profile("logroute")

# As the program does it: by itself structlog has rich draw each traceback, a tenth of a second each.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


LONG = (
    "tests/end_to_end/test_real_engine.py",
    "tests/sinks/test_elasticsearch_servers.py",
    "tests/end_to_end/test_elasticsearch.py",
    "tests/end_to_end/test_real_engine_more.py",
    "tests/oracle/test_short_run.py",
    "tests/cli/test_run.py",
    "tests/cli/test_tail.py",
    "tests/api/test_openapi.py",
    "tests/api/test_routes.py",
    "tests/test_benchmarks.py",
    "tests/test_packaging.py",
    "tests/typing/test_third_party.py",
    "tests/sinks/test_contract.py",
    "tests/sinks/test_columns.py",
    "tests/sinks/test_splunk_servers.py",
    "tests/sinks/test_gelf_servers.py",
    "tests/end_to_end/test_splunk.py",
    "tests/sinks/test_syslog_transports.py",
    "tests/sources/test_engine_logs.py",
    "tests/sources/test_catching_up.py",
    "tests/sources/test_holding.py",
    "tests/sources/test_docker.py",
)
"""Modules of which each takes a while: begun last, one would go on when the other workers have ended."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Workers are given whole modules, in this order."""
    if hasattr(config, "workerinput"):
        assert all((config.rootpath / module).exists() for module in LONG)
        place = {module: place for place, module in enumerate(LONG)}
        items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(LONG)))


@pytest.fixture(scope="session", autouse=True)
def _own_runtime_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Daemons of tests have their sockets here, whatever else runs on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNTIME_DIRECTORY", str(tmp_path_factory.mktemp("run")))
        yield


def missing(reason: str) -> None:
    """Skip for want of a server; a failure where the servers are required (in CI)."""
    if os.environ.get("LOGROUTE_REQUIRE_SERVERS"):
        pytest.fail(f"a server that is required here is missing: {reason}")
    pytest.skip(reason)


def new_docker_engine(*, live_restore: bool = False) -> real.DockerEngine:
    """A real Docker engine, not started yet: Debian's, or the one that LOGROUTE_TEST_ENGINE names."""
    kind = real.ENGINES[os.environ.get("LOGROUTE_TEST_ENGINE") or "debian"]
    if reason := kind.unavailable():
        missing(reason)
    return kind(live_restore=live_restore)


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[real.DockerEngine]:
    """A real Docker engine, started once."""
    engine = new_docker_engine()
    try:
        engine.start()
        yield engine
    finally:
        engine.close()


@pytest.fixture
def rsyslog(tmp_path: Path) -> Iterator[Rsyslog]:
    """A real rsyslog, started."""
    if reason := Rsyslog.unavailable():
        missing(reason)
    folder = tmp_path / "rsyslog"
    folder.mkdir()
    server = Rsyslog(folder)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def forward_collector(tmp_path: Path) -> Iterator[ForwardCollector]:
    """The OpenTelemetry Collector's Forward receiver, started."""
    if reason := ForwardCollector.unavailable():
        missing(reason)
    folder = tmp_path / "collector"
    folder.mkdir()
    server = ForwardCollector(folder)
    try:
        server.start()
        yield server
    finally:
        server.close()


def starting(kind: Callable[..., Server], folder: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers of a kind, in that folder, with what they are given; all are closed at the end."""
    folder.mkdir()
    started: list[Server] = []

    def start(*arguments: Any, **options: Any) -> Server:
        server = kind(folder, *arguments, **options)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.close()


@pytest.fixture
def fluent_server(tmp_path: Path) -> Iterator[Callable[..., FluentServer]]:
    """Starts the Fluent project's receiver, with its options."""
    if reason := FluentServer.unavailable():
        missing(reason)
    yield from starting(FluentServer, tmp_path / "fluent")


@pytest.fixture
def gelf_reader(tmp_path: Path) -> Iterator[Callable[[Literal["udp", "tcp"]], GelfReader]]:
    """Starts a reader of Graylog's library: GELF by UDP, or by TCP."""
    if reason := GelfReader.unavailable():
        missing(reason)
    yield from starting(GelfReader, tmp_path / "graylog")


@pytest.fixture
def tenzir(tmp_path: Path) -> Iterator[Callable[[str], Tenzir]]:
    """Starts Tenzir, with one of its inputs."""
    if reason := Tenzir.unavailable():
        missing(reason)
    yield from starting(Tenzir, tmp_path / "receiver")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        missing("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def otlp_collector(tmp_path: Path) -> Iterator[OtlpCollector]:
    """The OpenTelemetry Collector's receiver of OTLP by HTTP, started."""
    if reason := OtlpCollector.unavailable():
        missing(reason)
    server = OtlpCollector(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def loki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loki]:
    """A real Loki, started once. It takes lines of 2,000 bytes, not older than a week."""
    if reason := Loki.unavailable():
        pytest.skip(reason)  # required nowhere: building it takes many minutes
    server = Loki(tmp_path_factory.mktemp("loki"), limits={"max_line_size": 2000})
    try:
        server.start()
        yield server
    finally:
        server.close()
