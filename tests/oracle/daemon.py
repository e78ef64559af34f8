"""The daemon that is judged: a process of its own, started again whenever it ends, as systemd would."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from tests.oracle.history import Books, History, Life, Span, Violation

GRACE_S = 3.0
STARTS_WITHIN_S = 60.0
ANSWERS_WITHIN_S = 5.0
LOOK_S = 0.05
AGAIN_S = 0.5
"""How long it is down after an end that nobody asked for."""

FAKETIME = [
    Path(folder) / "faketime/libfaketime.so.1"
    for folder in (f"/usr/lib/{os.uname().machine}-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib")
]


class Clock:
    """The wall clock of the daemon, as far ahead of the machine's as it is told (libfaketime)."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._library = next((path for path in FAKETIME if path.exists()), None)
        self.ahead_s = 0
        self.jump(0)

    @property
    def unavailable(self) -> str | None:
        """Why it cannot be done here."""
        return None if self._library else "libfaketime is not installed"

    def jump(self, ahead_s: int) -> None:
        self.ahead_s = ahead_s
        part = self._file.with_suffix(".part")
        part.write_text(f"{ahead_s:+d}\n")
        part.rename(self._file)

    def environment(self) -> Mapping[str, str]:
        if self._library is None:
            return {}
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


@dataclass(slots=True)
class Asked:
    """An end that was asked for."""

    at: float
    signal: signal.Signals
    down_s: float | None
    """How long it then stays down; None for good."""


class _Waiting(msgspec.Struct):
    records: int


class _RouteStats(msgspec.Struct):
    received: int
    delivered: int
    duplicates: int
    rejected: int
    dropped: dict[str, int]
    queued: dict[str, _Waiting]
    in_flight: int
    unconfirmed: int

    def books(self) -> Books:
        return Books(
            self.received,
            self.delivered,
            self.duplicates,
            self.rejected,
            sum(self.dropped.values()),
            sum(store.records for store in self.queued.values()),
            self.in_flight,
            self.unconfirmed,
            self.dropped.get("full", 0),
        )


class _Stats(msgspec.Struct):
    """What of `GET /v1/stats` is looked at."""

    routes: dict[str, _RouteStats]


class Daemon:
    """`logroute run -c FILE`. `run` keeps it up; the other methods do to it what happens to daemons."""

    def __init__(self, folder: Path, history: History, clock: Clock) -> None:
        self.config = folder / "logroute.yaml"
        self.log = folder / "daemon.log"
        self.history = history
        self._folder = folder
        self.clock = clock
        self._process: trio.Process | None = None
        self._asked: Asked | None = None
        self._up = trio.Event()
        self._ended = trio.Event()
        """Of the process that there is now."""

    def configure(self, text: str) -> None:
        """Write its configuration."""
        part = self.config.with_suffix(".part")
        part.write_text(text)
        part.rename(self.config)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start it again whenever it ends, until it was stopped for good. Cancelled, it is killed."""
        self.history.daemon_down.append(Span(0.0))
        first = True
        try:
            while True:
                said = self.log.stat().st_size if self.log.exists() else 0
                life = Life(self.history.now())
                self.history.lives.append(life)
                process = self._process = await self._launch()
                if await self._has_started(process, said):
                    self.history.daemon_down[-1].end = self.history.now()
                    self._up.set()
                    if first:
                        task_status.started()
                        first = False
                await process.wait()
                life.end = self.history.now()
                asked, self._asked = self._asked, None
                self._goes_down(asked)
                self._judge_end(asked, process.returncode)
                ended, self._ended = self._ended, trio.Event()
                ended.set()
                if asked is not None and asked.down_s is None:
                    return
                await trio.sleep(AGAIN_S if asked is None or asked.down_s is None else asked.down_s)
        finally:
            if self._process is not None and self._process.returncode is None:
                self._process.kill()
                with trio.CancelScope(shield=True):
                    await self._process.wait()

    async def kill(self, down_s: float) -> None:
        """Kill -9, also while it starts or stops; back when it runs again."""
        await self._end(Asked(self.history.now(), signal.SIGKILL, down_s))

    async def terminate(self, down_s: float) -> None:
        """SIGTERM, as `systemctl restart` does; back when it runs again."""
        await self._end(Asked(self.history.now(), signal.SIGTERM, down_s))

    def reload(self) -> None:
        """SIGHUP."""
        if self._process is not None and self._up.is_set():
            self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """SIGTERM, for good: `run` returns."""
        self._asked = Asked(self.history.now(), signal.SIGTERM, None)
        self._goes_down(self._asked)
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    async def until_up(self) -> None:
        await self._up.wait()

    async def _end(self, asked: Asked) -> None:
        if self._process is None or self._process.returncode is not None:
            return  # it is down already
        # Who waits for a disk that hangs ends by kill -9 when it answers, whatever it is asked meanwhile.
        if self._asked is None or self._asked.signal != signal.SIGKILL:
            self._asked = asked
        self._goes_down(asked)
        self._process.send_signal(asked.signal)
        await self._ended.wait()
        await self._up.wait()

    def _goes_down(self, asked: Asked | None) -> None:
        """Note it when it is asked to end, for then it reads no more, and how it was when it has ended."""
        now = self.history.now()
        if self._up.is_set():
            self._up = trio.Event()
            self.history.daemon_down.append(Span(now))
        if asked is None or asked.signal == signal.SIGKILL or now > asked.at + GRACE_S:
            self.history.daemon_down[-1].abrupt = True

    async def _launch(self) -> trio.Process:
        environment = {
            **os.environ,
            "DOCKER_HOST": "",
            "RUNTIME_DIRECTORY": str(self._folder),  # where its API listens
            **self.clock.environment(),
        }
        with self.log.open("ab") as log:
            return await trio.lowlevel.open_process(
                [sys.executable, "-m", "logroute", "run", "-c", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=environment,
            )

    async def _has_started(self, process: trio.Process, said: int) -> bool:
        """Wait until it says so, behind so many bytes of its log; False if it ends before that."""
        deadline = self.history.now() + STARTS_WITHIN_S
        while process.returncode is None and process.poll() is None:
            with self.log.open("rb") as log:
                log.seek(said)
                if b'"started"' in log.read():
                    return True
            if self.history.now() > deadline:
                self._violate(f"it has not started within {STARTS_WITHIN_S:g} s")
                process.kill()
                return False
            await trio.sleep(LOOK_S)
        return False

    def _judge_end(self, asked: Asked | None, code: int | None) -> None:
        now = self.history.now()
        if asked is None:
            self._violate(f"it ended by itself, with {code}, at {now:.2f} s")
        elif code not in (0, -asked.signal) and not (code == 3 and self._said_what_its_end_loses()):
            self._violate(f"it was asked to end, and ended with {code}, at {now:.2f} s")

    def _said_what_its_end_loses(self) -> bool:
        """What only it held and had no room for, or a receiver may not have read: its exit code tells."""
        said = self.log.read_bytes().rpartition(b'"started"')[2]
        return b"not delivered and nowhere else" in said or b'"while_ending": {"' in said

    def _violate(self, what: str) -> None:
        self.history.seen.append(Violation("daemon", "ended", what))

    def announced(self) -> set[tuple[str, str]]:
        """For which routes, and of which containers, it has said that records are lost."""
        lines = self.log.read_bytes().splitlines()
        entries = [json.loads(line) for line in lines if b"records are lost" in line]
        return {(route, entry["container"]) for entry in entries for route in entry["routes"]}


def read_books(folder: Path) -> dict[str, Books] | None:
    """What a daemon says of its routes (`GET /v1/stats`); None where nobody answers.

    Its socket lies in the folder that it was given as RUNTIME_DIRECTORY. Raises ValidationError where what it
    says is no books.
    """
    try:
        with socket.socket(socket.AF_UNIX) as api:
            api.settimeout(ANSWERS_WITHIN_S)
            api.connect(str(folder / "logroute.sock"))
            api.sendall(b"GET /v1/stats HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = b"".join(iter(lambda: api.recv(1 << 16), b""))
    except OSError:  # it does not run, or has no API
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
    if length is None or len(body) < int(length[1]):
        return None  # it was killed while it answered
    if b" 200 " not in head.partition(b"\r\n")[0]:
        return None
    return {name: of.books() for name, of in msgspec.json.decode(body, type=_Stats).routes.items()}
