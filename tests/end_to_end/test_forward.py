"""A daemon that is killed, into a real receiver of the Forward protocol."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

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
    command = [sys.executable, "-m", "logroute", "run", "--once", "-c", str(config)]
    environment = {**os.environ, "DOCKER_HOST": ""}
    killed = 0
    for kill in range(KILLS):
        daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
        # Once something more has come; what has not is what the next one begins with.
        wanted = (kill + 1) * LINES // (KILLS + 2)
        while forward_collector.count() < wanted and daemon.poll() is None:
            time.sleep(0.002)
        daemon.kill()
        killed += daemon.wait() != 0
    assert killed, "it was done before it could be killed"
    subprocess.run(command, stderr=subprocess.DEVNULL, env=environment, check=True, timeout=120)
    got = [record["message"] for record in forward_collector.wait_for(LINES)]
    # Where each line came for the last time, they are all, and in order.
    numbers = [int(message.split()[1]) for message in got]
    assert list(dict.fromkeys(reversed(numbers))) == [*reversed(range(LINES))]
