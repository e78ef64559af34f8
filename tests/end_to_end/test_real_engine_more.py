"""What containers and engines do in a long life, on a real engine, read by file and by API side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import new_docker_engine
from tests.end_to_end.daemon import Daemon, wait_until
from tests.servers.docker_engine import DockerEngine

pytestmark = pytest.mark.real_engine

MEMORY_LIMIT_KB = 100_000
LINE_BYTES = 50_000_000


class Daemons:
    """Some that read the same containers, each in its way."""

    def __init__(self, folder: Path, host: str, reads: tuple[str, ...] = ("file", "api")) -> None:
        self.each: dict[str, Daemon] = {}
        for read in reads:
            (folder / read).mkdir()
            self.each[read] = Daemon(folder / read, host, read=read)

    def start(self) -> None:
        for daemon in self.each.values():
            daemon.start()

    def wait_for(self, count: int) -> None:
        for read, daemon in self.each.items():
            wait_until(lambda daemon=daemon: daemon.count() >= count, f"{count} records by {read}")  # type: ignore[misc]

    def stop(self, count: int) -> dict[str, list[dict[str, Any]]]:
        """When so many records are there: end, in order. What each of them wrote."""
        self.wait_for(count)
        wrote = {}
        for read, daemon in self.each.items():
            assert daemon.stop() == 0, read
            assert b"records are lost" not in daemon.log.read_bytes(), read
            wrote[read] = [json.loads(line) for line in daemon.output.read_bytes().splitlines()]
        return wrote

    def close(self) -> None:
        for daemon in self.each.values():
            daemon.close()


@pytest.fixture
def both(tmp_path: Path, docker_engine: DockerEngine) -> Iterator[Daemons]:
    """One that reads files and one that reads by API, both started."""
    daemons = Daemons(tmp_path, docker_engine.host)
    try:
        daemons.start()
        yield daemons
    finally:
        daemons.close()


def messages(records: list[dict[str, Any]], stream: str | None = None) -> list[str]:
    return [record["message"] for record in records if stream is None or record["stream"] == stream]


def numbers(records: list[dict[str, Any]]) -> list[int]:
    """Of `n <number>` lines."""
    return [int(message.split()[1]) for message in messages(records)]


def counting(first: int, last: int, pause_s: str) -> str:
    """A shell program that prints a number a pause; about 2 ms a line come on top."""
    return f"i={first}; while [ $i -le {last} ]; do echo n $i; sleep {pause_s}; i=$((i+1)); done"


def test_a_terminal(both: Daemons, docker_engine: DockerEngine) -> None:
    program = r"printf 'one\n\ntwo \033[1mbold\033[0m\n'; echo error >&2; printf end"
    docker_engine.run("terminal", ["sh", "-c", program], tty=True)
    for read, records in both.stop(5).items():
        assert messages(records) == ["one\r", "\r", "two \x1b[1mbold\x1b[0m\r", "error\r", "end"], read
        assert {record["stream"] for record in records} == {"stdout"}, read
    docker_engine.remove("terminal")


def test_fifty_that_live_for_50_ms_and_remove_themselves_lose_nothing(
    tmp_path: Path, docker_engine: DockerEngine
) -> None:
    daemons = Daemons(tmp_path, docker_engine.host, ("auto",))
    try:
        daemons.start()
        daemons.each["auto"].go_first()
        for number in range(50):
            docker_engine.run(f"short-{number}", ["sh", "-c", f"echo n {number}; sleep 0.05"], remove=True)
        (records,) = daemons.stop(50).values()
    finally:
        daemons.close()
    assert sorted(numbers(records)) == list(range(50))
    assert all(record["container"]["name"] == f"short-{record['message'][2:]}" for record in records)


def test_pause_and_rename_in_the_middle_lose_and_repeat_nothing(
    both: Daemons, docker_engine: DockerEngine
) -> None:
    docker_engine.run("before", ["sh", "-c", counting(1, 300, "0.01")])
    both.wait_for(30)
    docker_engine.api("POST", "/containers/before/pause")
    time.sleep(0.5)
    counts = {read: daemon.count() for read, daemon in both.each.items()}
    time.sleep(0.5)
    assert counts == {read: daemon.count() for read, daemon in both.each.items()}
    docker_engine.api("POST", "/containers/before/rename?name=after")
    docker_engine.api("POST", "/containers/after/unpause")
    for read, records in both.stop(300).items():
        assert numbers(records) == list(range(1, 301)), read
        names = [record["container"]["name"] for record in records]
        assert names == sorted(names, reverse=True), read
        assert (names[0], names[-1]) == ("before", "after"), read
    docker_engine.remove("after")


def test_each_run_of_a_container_that_restarts_three_times_comes_once(
    both: Daemons, docker_engine: DockerEngine
) -> None:
    # What it writes into its file system outlives its runs.
    program = "r=$(cat /tmp/run 2>/dev/null || echo 0); echo $((r+1)) >/tmp/run; " + (
        "i=1; while [ $i -le 500 ]; do echo n $((r*500+i)); i=$((i+1)); done; printf 'n 0 end %s' $r; exit 1"
    )
    docker_engine.run("restarted", ["sh", "-c", program], restart="on-failure", restart_count=3)
    expected = [number for run in range(4) for number in [*range(run * 500 + 1, run * 500 + 501), 0]]
    for read, records in both.stop(4 * 501).items():
        assert numbers(records) == expected, read
        assert [m for m in messages(records) if "end" in m] == [f"n 0 end {run}" for run in range(4)], read
    docker_engine.remove("restarted")


def test_stdout_and_stderr_each_keep_their_order(both: Daemons, docker_engine: DockerEngine) -> None:
    program = "i=1; while [ $i -le 5000 ]; do echo n $i; echo n $i >&2; i=$((i+1)); done"
    docker_engine.run("interleaved", ["sh", "-c", program])
    for read, records in both.stop(10_000).items():
        assert len(records) == 10_000, read
        for stream in ("stdout", "stderr"):
            assert messages(records, stream) == [f"n {number}" for number in range(1, 5001)], (read, stream)
    docker_engine.remove("interleaved")


@pytest.mark.parametrize("read", ["file", "api"])
def test_a_line_of_50_mb_takes_bounded_memory_and_is_marked(
    tmp_path: Path, docker_engine: DockerEngine, read: str
) -> None:
    daemon = Daemon(tmp_path, docker_engine.host, read=read)
    try:
        daemon.start()
        program = f"echo before; head -c {LINE_BYTES} /dev/zero | tr '\\0' x; echo; echo after"
        docker_engine.run(f"monster-{read}", ["sh", "-c", program])
        wait_until(lambda: daemon.count() >= 3, "three records arrive")
        peak_kb = daemon.peak_memory_kb()
        assert daemon.stop() == 0
    finally:
        daemon.close()
    first, second, third = [json.loads(line) for line in daemon.output.read_bytes().splitlines()]
    assert (first["message"], third["message"]) == ("before", "after")
    assert second["message"] == "x" * (1 << 20)
    assert second["log"] == {"truncated": True}
    assert "log" not in first
    assert peak_kb < MEMORY_LIMIT_KB
    docker_engine.remove(f"monster-{read}")


def test_an_engine_that_is_away_for_ten_seconds_while_its_containers_write_loses_nothing(
    tmp_path: Path,
) -> None:
    engine = new_docker_engine(live_restore=True)
    daemons = Daemons(tmp_path, engine.host)
    try:
        engine.start()
        daemons.start()
        # It goes on until it is told to end: of one that ends before the engine is back, what it wrote into
        # its pipe meanwhile is lost to the engine.
        loop = "i=1; while [ -z $end ]; do echo n $i; sleep 0.02; i=$((i+1)); done; printf 'n %s end' $i"
        engine.run("survivor", ["sh", "-c", f"trap 'end=1' TERM; {loop}"])
        daemons.wait_for(50)
        engine.stop()
        for read, daemon in daemons.each.items():
            wait_until(
                lambda daemon=daemon: b"the engine is away" in daemon.log.read_bytes(),  # type: ignore[misc]
                f"the one that reads by {read} says that the engine is away",
            )
        before = len(engine_lines(engine))
        time.sleep(10)
        engine.start()
        wait_until(
            lambda: len(engine_lines(engine)) >= before + 200,
            "what was written meanwhile is in the engine's log",
        )
        engine.api("POST", "/containers/survivor/kill?signal=TERM")
        engine.wait("survivor")
        wrote = engine_lines(engine)
        last = f"n {len(wrote)} end"
        for read, records in daemons.stop(len(wrote)).items():
            assert numbers(records) == list(range(1, len(wrote) + 1)), read
            assert messages(records)[-1] == last, read
    finally:
        daemons.close()
        engine.close()


def engine_lines(engine: DockerEngine) -> list[bytes]:
    """The log of its only container as it lies on the disk, whether the engine runs or not."""
    (path,) = (engine.folder / "data/containers").glob("*/*-json.log")
    return path.read_bytes().splitlines()


@pytest.mark.slow_engine
def test_rotation_by_api_at_a_rate_that_the_engine_follows_loses_and_repeats_nothing(
    both: Daemons, docker_engine: DockerEngine
) -> None:
    options = {"max-size": "1m", "max-file": "3"}
    docker_engine.print_lines("rotated-slowly", 1, 60_000, pause_every=400, log_opts=options)
    for read, records in both.stop(60_000).items():
        assert numbers(records) == list(range(1, 60_001)), read
    docker_engine.remove("rotated-slowly")
