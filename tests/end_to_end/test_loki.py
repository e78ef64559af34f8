"""A daemon that is killed, into a real Loki that takes less at a time than there is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from logroute.router.times import iso_time
from tests.end_to_end.killing import run_through_kills
from tests.servers.loki import Loki

LINES = 6_000
KILLS = 3
STREAMS = ("stdout", "stderr")


@pytest.fixture
def limited_loki(tmp_path: Path) -> Iterator[Loki]:
    """It refuses what comes faster than so many bytes a second, stream by stream."""
    if reason := Loki.unavailable():
        pytest.skip(reason)  # required nowhere: building it takes many minutes
    folder = tmp_path / "loki"
    folder.mkdir()
    limits = {"per_stream_rate_limit": "256KB", "per_stream_rate_limit_burst": "256KB"}
    server = Loki(folder, limits={**limits, "max_entries_limit_per_query": 0})
    try:
        server.start()
        yield server
    finally:
        server.close()


def test_loki_has_every_line_though_it_refuses_many_and_the_daemon_is_killed(
    limited_loki: Loki, tmp_path: Path
) -> None:
    log = tmp_path / "app.log"
    begin_ns = time.time_ns() - 60 * 10**9
    with log.open("w") as file:
        for n in range(LINES):
            text = f"n {n:06d} {'some words ' * 12}\n"
            # One in a hundred is of the other stream, which Loki takes while it refuses the first.
            stream, at = STREAMS[n % 100 == 0], iso_time(begin_ns + n * 1000)
            file.write(json.dumps({"log": text, "stream": stream, "time": at}) + "\n")
    config = tmp_path / "logroute.yaml"
    config.write_text(
        f"state_dir: {tmp_path / 'state'}\n"
        f"sources: {{logs: {{type: file, paths: ['{log}'], format: docker, start: beginning}}}}\n"
        f"routes: {{all: {{sink: 'loki+{limited_loki.url}?loki.labels.stream={{stream}}',"
        " batch: {bytes: 64KiB, wait: 0s}, retry: {initial: 100ms, max: 500ms}}}\n"
    )
    said = run_through_kills(config, lambda: limited_loki.count('{stream=~".+"}'), LINES, KILLS)
    # What was under way when it was killed may be there twice.
    for stream in STREAMS:
        got = [int(text.split()[1]) for _, _, text in limited_loki.lines(f'{{stream="{stream}"}}', 2 * LINES)]
        wanted_lines = [n for n in range(LINES) if STREAMS[n % 100 == 0] == stream]
        assert list(dict.fromkeys(got)) == wanted_lines, said[-2000:]
