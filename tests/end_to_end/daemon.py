"""A daemon as its own process, so that it can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.growing_file import Lines


class Daemon:
    """`logroute run` with a state directory, into one file, or as the route says."""

    def __init__(
        self,
        folder: Path,
        host: str,
        *,
        read: str = "file",
        start: str = "now",
        route: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.output = folder / "out.ndjson"
        self.log = folder / "daemon.log"
        self.config = folder / "logroute.yaml"
        self.config.write_text(
            f"state_dir: {folder / 'state'}\n"
            f"sources: {{docker: {{host: '{host}', read: {read}, start: {start}}}}}\n"
            f"routes: {{all: {json.dumps(route or {'sink': {'type': 'file', 'path': str(self.output)}})}}}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._lines = Lines(self.output)

    def start(self) -> None:
        """Returns once it says that it has started."""
        before = self.log.read_bytes().count(b'"started"') if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "logroute", "run", "-c", str(self.config)],
                stderr=log,
                env={**os.environ, "DOCKER_HOST": ""},
            )
        wait_until(lambda: self.log.read_bytes().count(b'"started"') > before, "the daemon starts")

    def go_first(self) -> None:
        """Have the processor before everybody else, where that may be: some logs are soon gone."""
        assert self._process is not None
        with suppress(PermissionError):
            for thread in Path(f"/proc/{self._process.pid}/task").iterdir():
                os.setpriority(os.PRIO_PROCESS, int(thread.name), -20)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(40)
        self._process = None
        return code

    def close(self) -> None:
        """End it at once, if it still runs. A test that failed shows the end of its log."""
        if self._process is not None:
            self.kill()
        print(f"{self.log}, its end:\n{self.log.read_text(errors='replace')[-4000:]}")

    def peak_memory_kb(self) -> int:
        """The most that it had in memory so far (VmHWM)."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0])

    def messages(self) -> list[str]:
        """The messages in the file: every line of it is a whole record."""
        if not self.output.exists():
            return []
        data = self.output.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        return [json.loads(line)["message"] for line in whole.splitlines()]

    def numbers(self) -> list[int]:
        """The numbers of `n <number> …` lines, in the order of the file."""
        return [int(message.split()[1]) for message in self.messages() if message.startswith("n ")]

    def count(self) -> int:
        return self._lines.count()


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Look until it holds; a real process has no other way to be waited for."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain: {what}"
        time.sleep(0.02)
