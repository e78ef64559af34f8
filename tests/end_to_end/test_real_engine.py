"""Containers of a real Docker engine, through the daemon as its own process, into a file."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.daemon import Daemon, wait_until
from tests.servers.docker_engine import DockerEngine

pytestmark = pytest.mark.real_engine

LINES = 200_000


@pytest.fixture
def daemon(tmp_path: Path, docker_engine: DockerEngine) -> Iterator[Callable[..., Daemon]]:
    made: list[Daemon] = []

    def make(read: str) -> Daemon:
        made.append(Daemon(tmp_path, docker_engine.host, read=read))
        return made[-1]

    yield make
    for each in made:
        each.close()


def all_there(daemon: Daemon, count: int) -> None:
    wait_until(lambda: daemon.count() >= count, f"{count} lines arrive")
    assert daemon.stop() == 0
    assert daemon.numbers() == list(range(1, count + 1))
    assert b"records are lost" not in daemon.log.read_bytes()


@pytest.mark.parametrize("read", ["file", "api"])
def test_every_line_arrives_once_and_in_order(
    daemon: Callable[..., Daemon], docker_engine: DockerEngine, read: str
) -> None:
    each = daemon(read)
    each.start()
    docker_engine.print_lines(f"plain-{read}", 1, LINES)
    all_there(each, LINES)
    docker_engine.remove(f"plain-{read}")


@pytest.mark.parametrize("read", ["file", "api"])
def test_a_container_that_is_removed_at_its_end_loses_nothing(
    daemon: Callable[..., Daemon], docker_engine: DockerEngine, read: str
) -> None:
    each = daemon(read)
    each.start()
    docker_engine.print_lines(f"removed-{read}", 1, LINES, remove=True)
    wait_until(lambda: each.count() >= LINES, "the lines of the long-lived one arrive")
    count = LINES
    if read == "file":  # by API one that lives for an instant may be gone before its log can be asked for
        count += 1
        docker_engine.print_lines("short", count, count, remove=True)
    all_there(each, count)


def test_rotation_under_a_writer_at_full_speed_loses_nothing(
    daemon: Callable[..., Daemon], docker_engine: DockerEngine
) -> None:
    each = daemon("file")
    each.start()
    each.go_first()
    docker_engine.print_lines("rotated", 1, LINES, log_opts={"max-size": "1m", "max-file": "3"})
    all_there(each, LINES)
    docker_engine.remove("rotated")


@pytest.mark.parametrize("read", ["file", "api"])
def test_kill_9_at_random_instants_loses_and_repeats_nothing(
    daemon: Callable[..., Daemon], docker_engine: DockerEngine, read: str
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    each = daemon(read)
    each.start()
    docker_engine.print_lines(f"killed-{read}", 1, LINES, pause_every=5_000)
    for _ in range(10):
        goal = each.count() + chance.randrange(1, 12_000)
        wait_until(lambda goal=goal: each.count() >= min(goal, LINES), "some more lines arrive")  # type: ignore[misc]
        each.kill()
        each.start()
    all_there(each, LINES)
    docker_engine.remove(f"killed-{read}")


@pytest.mark.parametrize("read", ["file", "api"])
def test_stop_and_start_in_the_middle_lose_and_repeat_nothing(
    daemon: Callable[..., Daemon], docker_engine: DockerEngine, read: str
) -> None:
    each = daemon(read)
    each.start()
    docker_engine.print_lines(f"stopped-{read}", 1, LINES, pause_every=20_000)
    for goal in (30_000, 90_000):
        wait_until(lambda goal=goal: each.count() >= goal, "some lines arrive")  # type: ignore[misc]
        assert each.stop() == 0
        each.start()
    all_there(each, LINES)
    docker_engine.remove(f"stopped-{read}")


def test_an_engine_that_is_away_is_waited_for(
    daemon: Callable[..., Daemon], docker_engine: DockerEngine
) -> None:
    each = daemon("auto")
    each.start()
    docker_engine.print_lines("before", 1, 1_000)
    wait_until(lambda: each.count() >= 1_000, "the lines before arrive")
    docker_engine.stop()
    wait_until(lambda: b"the engine is away" in each.log.read_bytes(), "the daemon says so")
    docker_engine.start()
    wait_until(lambda: b"the engine is back" in each.log.read_bytes(), "the daemon says so")
    docker_engine.print_lines("after", 1_001, 2_000)
    all_there(each, 2_000)
    docker_engine.remove("before")
    docker_engine.remove("after")


@pytest.mark.parametrize("read", ["file", "api"])
def test_odd_bytes_arrive_as_documented(
    daemon: Callable[..., Daemon], docker_engine: DockerEngine, read: str
) -> None:
    each = daemon(read)
    each.start()
    data = b"plain\n\ncrlf\r\nnul \0 here\n\x1b[31mred\x1b[0m\nbad \xff\xfe bytes\nno newline at the end"
    docker_engine.print_bytes(f"odd-{read}", data)
    wait_until(lambda: each.count() >= 7, "seven records arrive")
    assert each.stop() == 0
    assert each.messages() == [
        "plain", "", "crlf\r", "nul \0 here", "\x1b[31mred\x1b[0m",
        "bad \ufffd\ufffd bytes", "no newline at the end",
    ]  # fmt: skip
    docker_engine.remove(f"odd-{read}")


@pytest.mark.parametrize("read", ["file", "api"])
def test_a_line_of_a_megabyte_is_one_record(
    daemon: Callable[..., Daemon], docker_engine: DockerEngine, read: str
) -> None:
    each = daemon(read)
    each.start()
    program = 'BEGIN { s = "0123456789"; while (length(s) < 1000000) s = s s; print substr(s, 1, 1000000) }'
    docker_engine.run(f"long-{read}", ["awk", program])
    wait_until(lambda: each.count() >= 1, "the record arrives")
    assert each.stop() == 0
    assert each.messages() == ["0123456789" * 100_000]
    docker_engine.remove(f"long-{read}")
