"""A real Docker engine for tests: Debian's, with folders and a socket of its own, beside any other.

Have it: `tests/servers/install`. Containers have no network; their image is a static busybox.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

IMAGE = "busybox:logroute"
APPLETS = ("sh", "awk", "base64", "cat", "echo", "printf", "seq", "sleep", "true")
START_S = 60.0


def unavailable() -> str | None:
    """Why no engine can be had here; None if it can."""
    if os.geteuid() != 0:
        return "a Docker engine needs root"
    for program in ("dockerd", "docker", "containerd", "runc", "busybox"):
        if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
            return f"{program} is not installed (tests/servers/install)"
    return None


class DockerEngine:
    """One engine. `start` and `stop` as often as wanted; its containers and their logs stay until `close`."""

    simulated = False

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="logroute-engine-"))
        self.host = f"unix://{self.folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._has_image = False

    # --- life ---------------------------------------------------------------------------------------

    def start(self) -> None:
        folder = self.folder
        log = (folder / "dockerd.log").open("ab")
        self._process = subprocess.Popen(
            [
                *("dockerd", "--iptables=false", "--bridge=none", "--host", self.host),
                *("--data-root", folder / "data", "--exec-root", folder / "exec"),
                *("--pidfile", folder / "docker.pid"),
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        deadline = time.monotonic() + START_S
        while subprocess.run(self._command("version"), capture_output=True).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dockerd did not start: {(folder / 'dockerd.log').read_text()[-2000:]}")
            time.sleep(0.1)
        if not self._has_image:
            self._import_image()

    def stop(self) -> None:
        """Stop the engine, and with it its containers."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def close(self) -> None:
        if self._process is not None:
            names = self.docker("ps", "-aq").split()
            if names:
                self.docker("rm", "-f", *names)
        self.stop()
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            point = line.split()[1]
            if point.startswith(str(self.folder)):
                subprocess.run(["umount", "-l", point], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _import_image(self) -> None:
        root = self.folder / "image"
        (root / "bin").mkdir(parents=True)
        busybox = shutil.which("busybox")
        assert busybox is not None
        shutil.copy(busybox, root / "bin/busybox")
        for name in APPLETS:
            (root / "bin" / name).symlink_to("busybox")
        archive = subprocess.run(["tar", "-C", root, "-c", "."], capture_output=True, check=True).stdout
        subprocess.run(self._command("import", "-", IMAGE), input=archive, capture_output=True, check=True)
        self._has_image = True

    # --- containers ---------------------------------------------------------------------------------

    def _command(self, *arguments: str) -> list[str]:
        return ["docker", "--host", self.host, *arguments]

    def docker(self, *arguments: str) -> str:
        done = subprocess.run(self._command(*arguments), capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr}")
        return done.stdout.strip()

    def run(
        self,
        name: str,
        command: Sequence[str],
        *,
        log_opts: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        tty: bool = False,
        remove: bool = False,
    ) -> None:
        """Create and start a container; returns while it runs."""
        options = ["--detach", "--network", "none", "--name", name]
        for key, value in (log_opts or {}).items():
            options += ["--log-opt", f"{key}={value}"]
        for key, value in (labels or {}).items():
            options += ["--label", f"{key}={value}"]
        if tty:
            options.append("--tty")
        if remove:
            options.append("--rm")
        self.docker("run", *options, IMAGE, *command)

    def print_lines(
        self,
        name: str,
        first: int,
        last: int,
        *,
        pause_every: int = 0,
        log_opts: Mapping[str, str] | None = None,
        remove: bool = False,
    ) -> None:
        """A container that prints `n <number> <filler>` for every number, and ends.

        With `pause_every` it rests for a tenth of a second after so many lines.
        """
        rest = f'if (i % {pause_every} == 0) {{ fflush(); system("sleep 0.1") }}' if pause_every else ""
        program = (
            f'BEGIN {{ for (i = {first}; i <= {last}; i++) {{ printf "n %d {FILLER}\\n", i; {rest} }} }}'
        )
        self.run(name, ["awk", program], log_opts=log_opts, remove=remove)

    def print_bytes(self, name: str, data: bytes, *, tty: bool = False) -> None:
        """A container that prints these bytes, and ends."""
        encoded = base64.b64encode(data).decode()
        self.run(name, ["sh", "-c", f"echo {encoded} | base64 -d"], tty=tty)

    def wait(self, name: str) -> None:
        self.docker("wait", name)

    def remove(self, name: str) -> None:
        self.docker("rm", "-f", name)


FILLER = "words " * 20
