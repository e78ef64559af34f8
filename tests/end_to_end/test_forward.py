"""A daemon that is killed, into a real receiver of the Forward protocol."""

from __future__ import annotations

from pathlib import Path

from tests.end_to_end.killing import run_through_kills
from tests.servers.forward_collector import ForwardCollector

LINES = 60_000
KILLS = 4


def test_everything_arrives_in_order_however_often_the_daemon_is_killed(
    forward_collector: ForwardCollector, tmp_path: Path
) -> None:
    log = tmp_path / "app.log"
    log.write_text("".join([f"n {n:06d} {'some words ' * 12}\n" for n in range(LINES)]))
    config = tmp_path / "logroute.yaml"
    config.write_text(
        f"state_dir: {tmp_path / 'state'}\n"
        f"sources: {{logs: {{type: file, paths: ['{log}'], format: text, start: beginning}}}}\n"
        f"routes: {{all: {{sink: 'forward://127.0.0.1:{forward_collector.port}?tag=a.b',"
        " batch: {bytes: 64KiB}}}\n"
    )
    run_through_kills(config, forward_collector.count, LINES, KILLS)
    got = [record["message"] for record in forward_collector.wait_for(LINES)]
    # Where each line came for the last time, they are all, and in order.
    numbers = [int(message.split()[1]) for message in got]
    assert list(dict.fromkeys(reversed(numbers))) == [*reversed(range(LINES))]
