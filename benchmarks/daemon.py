"""A daemon that runs beside the measurement."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.engine import engine_process
from benchmarks.processes import BenchmarkError, environment
from logroute.api.address import Address

START_S = 60.0
WAIT_S = 120.0


def docker(host: str) -> str:
    """The sources of a configuration: an engine whose logs are read as files, from their beginning."""
    return f"docker: {{host: '{host}', read: file, start: beginning}}"


@contextmanager
def daemon(
    folder: Path, source: str, routes: Mapping[str, str], *, once: bool = False, fresh: bool = True
) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon with these routes, killed in the end if it still runs; a `fresh` one knows nothing yet."""
    for old in (folder / "out", folder / "state"):
        if fresh:
            shutil.rmtree(old, ignore_errors=True)
    config = folder / "logroute.yaml"
    config.write_text(
        f"state_dir: {folder / 'state'}\n"
        f"api: {{listen: '{api(folder)}'}}\n"
        f"sources: {{{source}}}\n"
        "routes:\n" + "".join(f"  {name}: {route}\n" for name, route in routes.items())
    )
    command = [sys.executable, "-m", "logroute", "run", *(["--once"] if once else []), "-c", str(config)]
    with log_of(folder).open("wb") as log:
        process = subprocess.Popen(command, stderr=log, env=environment())
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()


def api(folder: Path) -> Address:
    """Where the daemon of this folder answers."""
    return Address.parse(f"unix://{folder / 'api.sock'}")


def log_of(folder: Path) -> Path:
    return folder / "daemon.log"


def wait_until_started(process: subprocess.Popen[bytes], folder: Path, *, every_s: float = 0.02) -> None:
    """Raises BenchmarkError with its log if it does not start."""
    log = log_of(folder)
    wait(
        lambda: b'"started"' in log.read_bytes() or process.poll() is not None,
        "the daemon has started",
        every_s=every_s,
        for_s=START_S,
    )
    if process.poll() is not None:
        raise BenchmarkError(f"the daemon did not start: {log.read_text()[-2000:]}")


def wait(holds: Callable[[], bool], what: str, *, every_s: float = 0.02, for_s: float = WAIT_S) -> None:
    """Raises BenchmarkError if it does not come to hold."""
    deadline = time.monotonic() + for_s
    while not holds():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"waited {for_s:g} s in vain: {what}")
        time.sleep(every_s)


@contextmanager
def running_daemon(folder: Path, out: Path, *, containers: int, rate: float) -> Iterator[int]:
    """What containers print, `rate` lines a second each, goes into one file; the daemon's process id."""
    shutil.rmtree(folder / "engine", ignore_errors=True)
    out.unlink(missing_ok=True)
    with (
        engine_process(folder / "engine", "talking", str(containers), str(rate)) as host,
        daemon(folder, docker(host), {"json": f"{{sink: 'file://{out}'}}"}) as process,
    ):
        wait_until_started(process, folder)
        yield process.pid
        process.send_signal(signal.SIGTERM)
        process.wait()
