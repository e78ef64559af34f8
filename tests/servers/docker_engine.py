"""Real Docker engines for tests and benchmarks, each with folders, a socket and namespaces of its own.

Have them: `tests/servers/install` (Debian's 20.10), `tests/servers/install engines` (the newest, and 26.1).
An engine runs beside any other. It is told what to do by plain HTTP over its socket, so that no client's
version matters. Its containers have no network; their image is a static busybox.

    engine = DebianEngine()
    engine.start()
    engine.run("hello", ["sh", "-c", "echo hello"])
    engine.wait("hello")
    engine.log_path("hello").read_bytes()
    engine.close()

**Nothing of it is left behind.** The engine lives in a PID namespace and a mount namespace. Their first
process reads a pipe that this process holds: when that is closed (`stop`, or this process was killed), it
ends, and the kernel kills containerd, the shims and the containers with it and unmounts what they mounted.
So process ids that the engine tells (`State.Pid`) are those inside; `processes` has those outside.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

IMAGE = "busybox:logroute"
CACHE = Path.home() / ".cache/logroute"
"""Where `tests/servers/install engines` puts what it builds."""
START_S = 60.0
STOP_S = 30.0
FILLER = "words " * 20
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Runs as process 1 of the namespaces. Shims keep their sockets in /run whatever the engine is told, hence a
# /run of its own. Orphans (shims) come to this process, which lets the kernel reap them.
FIRST_PROCESS = """
trap '' CHLD
{mounts}
mount -t tmpfs tmpfs /run
echo ready
exec cat >/dev/null
"""

# Makes another Debian's folder the root. `$1` is that folder, `$2` the engine's, which keeps its path so that
# the paths of log files hold outside, too.
OTHER_ROOT = """
mount --bind "$1" "$1"
for each in proc sys dev; do mount --rbind "/$each" "$1/$each"; done
mount -t tmpfs tmpfs "$1/tmp"
mkdir -p "$1$2"
mount --bind "$2" "$1$2"
cd "$1"
pivot_root . .
umount -l .
"""


class EngineError(Exception):
    """The engine refused, or could not be started. The text says what was asked and what it said."""


class DockerEngine:
    """One engine. `start` and `stop` as often as wanted: containers and logs stay until `close`.

    With `live_restore` containers go on while the engine is stopped, otherwise they die with it.
    """

    name: ClassVar = "debian"
    version: ClassVar = "20.10"
    """What the engine's own version begins with."""
    programs: ClassVar[Sequence[str]] = ("dockerd", "containerd", "containerd-shim-runc-v2", "runc")
    simulated: ClassVar = False
    image: ClassVar = IMAGE
    options: ClassVar[Sequence[str]] = ()
    """Given to dockerd beside those that every engine gets."""
    mounts: ClassVar = ""
    """What the first process does before all else."""

    def __init__(self, *, live_restore: bool = False) -> None:
        self.live_restore = live_restore
        self.folder = Path(tempfile.mkdtemp(prefix="logroute-engine-"))
        self.socket = self.folder / "docker.sock"
        self.host = f"unix://{self.socket}"
        self._cgroup = self.folder.name
        # Invariant: the engine runs only while its first process does.
        self._first: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def root(cls) -> Path:
        """Where the engine's programs are looked for."""
        return Path("/")

    @classmethod
    def path(cls) -> str:
        """The PATH of the engine."""
        return PATH

    @classmethod
    def unavailable(cls) -> str | None:
        """Why this engine cannot be had here; None if it can."""
        if os.geteuid() != 0:
            return "a Docker engine needs root"
        for program in ("busybox", "unshare", "nsenter", "mount"):
            if shutil.which(program, path=PATH) is None:
                return f"{program} is not installed (tests/servers/install)"
        for program in cls.programs:
            inside = ":".join(f"{cls.root()}{folder}" for folder in cls.path().split(":"))
            if shutil.which(program, path=inside) is None:
                return f"{program} for the {cls.name} engine is not installed ({cls._install()})"
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True
        )
        return f"no namespaces may be made here: {done.stderr.strip()}" if done.returncode else None

    @classmethod
    def _install(cls) -> str:
        return "tests/servers/install"

    # --- life ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns once the engine answers and has its image."""
        if self._process is not None:
            raise EngineError("the engine is running")
        if self._first is None:
            self._first = self._start_first()
        # After a crash dockerd would take a new process with the old one's number for itself.
        (self.folder / "docker.pid").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(
                        "nsenter",
                        f"--target={self._inside(self._first)}",
                        "--mount",
                        "--pid",
                        "--root",
                        "--wd",
                    ),
                    *("--", "dockerd", "--iptables=false", "--bridge=none", "--ip-forward=false"),
                    *("--host", self.host, "--data-root", self.folder / "data"),
                    *("--exec-root", self.folder / "exec", "--pidfile", self.folder / "docker.pid"),
                    *("--cgroup-parent", f"/{self._cgroup}", "--exec-opt", "native.cgroupdriver=cgroupfs"),
                    *(["--live-restore"] if self.live_restore else []),
                    *self.options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": self.path()},
            )
        try:
            self._wait_until_it_answers()
            self._import_image()
        except BaseException:
            self.kill()
            self._end_namespaces()
            raise

    def stop(self) -> None:
        """As a service manager stops it: SIGTERM; what does not end in half a minute is killed."""
        self._end_engine(signal.SIGTERM)
        if not self.live_restore:
            self._end_namespaces()

    def kill(self) -> None:
        """As a crash: SIGKILL for dockerd alone. containerd dies with it, containers go on."""
        self._end_engine(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop, and remove everything."""
        self._end_engine(signal.SIGKILL)
        self._end_namespaces()
        shutil.rmtree(self.folder, ignore_errors=True)
        for hierarchy in ("/sys/fs/cgroup", *map(str, Path("/sys/fs/cgroup").glob("*/"))):
            for folder, _, _ in os.walk(f"{hierarchy}/{self._cgroup}", topdown=False):
                os.rmdir(folder)

    @property
    def log(self) -> Path:
        """What the engine says about itself."""
        return self.folder / "dockerd.log"

    def processes(self) -> dict[int, str]:
        """The running processes of the engine and of its containers, by their ids outside."""
        if self._first is None:
            return {}
        mine = os.stat(f"/proc/{self._inside(self._first)}/ns/pid").st_ino
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if (folder / "ns/pid").stat().st_ino == mine:
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ").strip()
            except OSError:
                pass  # it ended just now
        return found

    def _start_first(self) -> subprocess.Popen[bytes]:
        """Make the namespaces. They last until this process's end of the pipe is closed."""
        script = FIRST_PROCESS.format(mounts=self.mounts)
        process = subprocess.Popen(
            [
                *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *("--", "sh", "-ec", script, "sh", self.root(), self.folder),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Python reaps its own children; the signal's default is what the shell needs.
            env={"PATH": PATH},
        )
        assert process.stdout is not None
        assert process.stderr is not None
        with process.stdout, process.stderr:
            if process.stdout.readline() != b"ready\n":
                raise EngineError(f"no namespaces for an engine: {process.stderr.read().decode()}")
        return process

    @staticmethod
    def _inside(process: subprocess.Popen[bytes]) -> int:
        """The only child of unshare or nsenter: what runs in the namespace."""
        return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_S
        while True:
            try:
                self._request("GET", "/_ping", None, "text/plain")
                return
            except (OSError, http.client.HTTPException, EngineError):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    said = self.log.read_text(errors="replace")[-3000:]
                    raise EngineError(f"the {self.name} engine did not start: {said}") from None
            time.sleep(0.05)

    def _end_engine(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(IndexError, OSError):  # it has ended by itself
            os.kill(self._inside(process), number)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._end_namespaces()
            process.wait()

    def _end_namespaces(self) -> None:
        first, self._first = self._first, None
        if first is not None:
            assert first.stdin is not None
            first.stdin.close()
            first.wait()

    # --- what it is told ----------------------------------------------------------------------------

    def api(self, method: str, target: str, body: object = None, *, timeout_s: float | None = 60.0) -> Any:
        """One request with a body of JSON; the JSON that was answered, if any. `target` has no version."""
        data = None if body is None else json.dumps(body).encode()
        answer = self._request(method, target, data, "application/json", timeout_s)
        return json.loads(answer) if answer else None

    def _request(
        self, method: str, target: str, body: bytes | None, kind: str, timeout_s: float | None = 60.0
    ) -> bytes:
        connection = _UnixConnection(self.socket, timeout_s)
        try:
            connection.request(method, target, body, {"Content-Type": kind})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise EngineError(
                f"{method} {target}: {answer.status} {content.decode(errors='replace').strip()}"
            )
        return content

    def run(
        self,
        name: str,
        command: Sequence[str],
        *,
        labels: Mapping[str, str] | None = None,
        env: Iterable[str] = (),
        tty: bool = False,
        log_driver: str = "json-file",
        log_opts: Mapping[str, str] | None = None,
        remove: bool = False,
        restart: str = "no",
        restart_count: int = 0,
    ) -> str:
        """Create and start a container; its id. Returns while it runs.

        With `remove` it removes itself at its end, as by `docker run --rm`. `restart` is a policy's name,
        `restart_count` how often `on-failure` tries again.
        """
        id: str = self.api(
            "POST",
            f"/containers/create?name={quote(name)}",
            {
                "Image": self.image,
                "Cmd": list(command),
                "Env": list(env),
                "Labels": dict(labels or {}),
                "Tty": tty,
                # A shell that is process 1 ignores SIGTERM: ten seconds by default.
                "StopTimeout": 1,
                "HostConfig": {
                    "NetworkMode": "none",
                    "AutoRemove": remove,
                    "RestartPolicy": {"Name": restart, "MaximumRetryCount": restart_count},
                    "LogConfig": {"Type": log_driver, "Config": dict(log_opts or {})},
                },
            },
        )["Id"]
        self.api("POST", f"/containers/{id}/start")
        return id

    def print_lines(
        self,
        name: str,
        first: int,
        last: int,
        *,
        pause_every: int = 0,
        log_opts: Mapping[str, str] | None = None,
        remove: bool = False,
        to: str = "stdout",
    ) -> None:
        """A container that prints `n <number> <filler>` for every number, and ends.

        With `pause_every` it rests for a tenth of a second after so many lines.
        """
        rest = f'if (i % {pause_every} == 0) {{ fflush(); system("sleep 0.1") }}' if pause_every else ""
        program = (
            f'BEGIN {{ for (i = {first}; i <= {last}; i++) {{ printf "n %d {FILLER}\\n", i; {rest} }} }}'
        )
        command = ["awk", program] if to == "stdout" else ["sh", "-c", 'exec awk "$1" >&2', "sh", program]
        self.run(name, command, log_opts=log_opts, remove=remove)

    def print_bytes(self, name: str, data: bytes, *, tty: bool = False) -> None:
        """A container that prints these bytes, up to a megabyte, and ends."""
        encoded = base64.b64encode(data).decode()
        # One argument may have 128 KiB.
        pieces = [encoded[at : at + 100_000] for at in range(0, len(encoded), 100_000)]
        self.run(name, ["sh", "-c", 'printf %s "$@" | base64 -d', "sh", *pieces], tty=tty)

    def start_container(self, name: str) -> None:
        """Start one that has ended."""
        self.api("POST", f"/containers/{name}/start")

    def wait(self, name: str) -> int:
        """Until it has ended; its exit code."""
        code: int = self.api("POST", f"/containers/{name}/wait", timeout_s=None)["StatusCode"]
        return code

    def remove(self, name: str) -> None:
        """Kill it if it runs, and remove it with its log."""
        self.api("DELETE", f"/containers/{name}?force=1&v=1")

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api("GET", f"/containers/{name}/json")
        return found

    def log_path(self, name: str) -> Path:
        """Its log file on this host."""
        return Path(self.inspect(name)["LogPath"])

    def _import_image(self) -> None:
        try:
            self.api("GET", f"/images/{IMAGE}/json")
        except EngineError:
            repository, tag = IMAGE.split(":")
            target = f"/images/create?fromSrc=-&repo={repository}&tag={tag}"
            self._request("POST", target, busybox_archive(), "application/x-tar")
            self.api("GET", f"/images/{IMAGE}/json")


class DebianEngine(DockerEngine):
    """Docker 20.10, as packaged by Debian 12 (on another system: whatever its `docker.io` is)."""


class NewestEngine(DockerEngine):
    """The newest moby that Go's proxy has, with the newest runc, over the system's containerd."""

    name = "newest"
    version = ""  # what `go install` builds does not know its version
    folder_of_programs = CACHE / "moby-v2.0.0-beta.24"
    # Its runc is built without libseccomp.
    options: ClassVar[Sequence[str]] = ("--seccomp-profile=unconfined",)

    @classmethod
    def path(cls) -> str:
        return f"{cls.folder_of_programs}:{PATH}"

    @classmethod
    def unavailable(cls) -> str | None:
        if not (cls.folder_of_programs / "dockerd").exists():
            return f"the newest engine was not built ({cls._install()})"
        return super().unavailable()

    @classmethod
    def _install(cls) -> str:
        return "tests/servers/install engines"


class TrixieEngine(DockerEngine):
    """Docker 26.1, as packaged by Debian 13, in that system's own root."""

    name = "trixie"
    version = "26.1"
    mounts = OTHER_ROOT

    @classmethod
    def root(cls) -> Path:
        return CACHE / "trixie"

    @classmethod
    def _install(cls) -> str:
        return "tests/servers/install engines"


ENGINES: dict[str, type[DockerEngine]] = {
    engine.name: engine for engine in (DebianEngine, NewestEngine, TrixieEngine)
}


def busybox_archive() -> bytes:
    """An image's files: busybox and all of its commands."""
    busybox = shutil.which("busybox", path=PATH)
    assert busybox is not None
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(busybox, "bin/busybox")
        for applet in listed.stdout.split():
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(link)
        for folder in ("tmp", "dev", "proc", "sys", "etc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
    return buffer.getvalue()


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("docker", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
