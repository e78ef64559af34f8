"""A receiver that is a program: it prints a line of JSON for each record that it has read."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from tests.growing_file import Lines

START_S = 30.0
STOP_S = 10.0
STALLED_S = 30.0
"""How long nothing may come before what is awaited counts as lost."""

CACHE = Path.home() / ".cache" / "logroute"
"""Where `tests/servers/install` keeps what it builds."""


class ServerError(Exception):
    """It did not start, or did not take what was sent. The text says what it said."""


class JsonLinesServer(ABC):
    """One server; `start` and `stop` as often as wanted, on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._lines = Lines(self.output)

    @abstractmethod
    def command(self) -> list[str]:
        """What listens on `port`, on loopback."""

    def start(self) -> None:
        """Returns once it listens."""
        if self._process is not None:
            raise ServerError("it is running")
        if not self.port:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.port = free.getsockname()[1]
        with self.output.open("ab") as output, self._log.open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=output, stderr=log)
        deadline = time.monotonic() + START_S
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text(errors="replace")[-3000:]
                self.stop()
                raise ServerError(f"{type(self).__name__} did not start: {said}")
            time.sleep(0.02)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """As by -9: what it has not written is gone, and so is a line that it was about to write."""
        process, self._process = self._process, None
        assert process is not None
        process.kill()
        process.wait()
        with self.output.open("rb+") as output:
            output.truncate(output.read().rfind(b"\n") + 1)

    def close(self) -> None:
        self.stop()

    def count(self) -> int:
        """Records that have come so far."""
        return self._lines.count()

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """What came, once it is so many records. Blocks; raises ServerError when no more are coming."""
        self.wait_until(count)
        return [json.loads(line) for line in self.output.read_bytes().splitlines()]

    def wait_until(self, count: int) -> None:
        """So many have come. Blocks likewise."""
        came, deadline = 0, time.monotonic() + STALLED_S
        while came < count:
            before, came = came, self.count()
            if came > before:
                deadline = time.monotonic() + STALLED_S
            if time.monotonic() > deadline:
                raise ServerError(f"of {count} records {came} came")
            time.sleep(0.02)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return True

    @property
    def output(self) -> Path:
        """What it has printed."""
        return self.folder / "records"

    @property
    def _log(self) -> Path:
        return self.folder / "log"
