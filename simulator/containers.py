"""One simulated container: its program's output, its states, its log, what inspect says of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from logroute.simulator.json_file import JsonFileLog
from logroute.simulator.reading import Cursor, MemoryLog
from logroute.simulator.records import (
    PIECE_BYTES,
    Copier,
    Piece,
    json_line,
    json_lines,
    rfc3339,
    spread,
)

if TYPE_CHECKING:
    from logroute.simulator.engine import SimulatedEngine

Status = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]
Stream = Literal["stdout", "stderr"]

_NEVER = "0001-01-01T00:00:00Z"
_SIZE = re.compile(r"(\d+(?:\.\d+)?) *([kmgt]?)i?b?", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BULK_LINES = 10_000


class NotRunning(Exception):
    """The container's program does not run now, so it cannot do that."""


def parse_size(text: str) -> int | None:
    """`max-size` in bytes, in decimal units as the engine takes them; None is unlimited (-1)."""
    if text.startswith("-"):
        return None
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid size: {text!r}")
    return int(float(match[1]) * _SIZE_UNITS[match[2].lower()])


@dataclass(slots=True)
class State:
    """What the engine knows of the container's life."""

    status: Status = "created"
    started_ns: int | None = None
    finished_ns: int | None = None
    exit_code: int = 0
    pid: int = 0
    restart_count: int = 0


@dataclass(eq=False)
class SimulatedContainer:
    """Made by `SimulatedEngine.create`. All methods are synchronous and take effect at once."""

    engine: SimulatedEngine
    id: str
    name: str
    image: str
    image_id: str
    labels: Mapping[str, str]
    env: Sequence[str]
    tty: bool
    log_driver: str
    log_opts: Mapping[str, str]
    auto_remove: bool
    restart_policy: str
    created_ns: int
    state: State = field(default_factory=State)
    removed: bool = False

    def __post_init__(self) -> None:
        self.log: JsonFileLog | MemoryLog | None = None
        if self.log_driver == "json-file":
            options = self.log_opts
            max_size = options.get("max-size")
            self.log = JsonFileLog(
                self.engine.root / "containers" / self.id / f"{self.id}-json.log",
                max_size=None if max_size is None else parse_size(max_size),
                max_file=int(options.get("max-file", "1")),
                compress=options.get("compress") == "true",
                quirks=self.engine.quirks,
                later=self.engine.after_compression_delay,
                clock=self.engine.clock,
            )
        elif self.log_driver == "local":
            self.log = MemoryLog()
        self._attrs = self._log_attributes()
        self._copiers: dict[str, Copier] = {}
        # Invariant: no record of a stream is older than its last one, as long as nobody sets the clock back.
        self._last_ns: dict[str, int] = {}
        # What the clock said last.
        self._clock_ns = 0
        # What the program wrote into its pipe while no engine was there to copy it.
        self._pipe: list[tuple[bytes, str]] = []
        # Not None where it ended while no engine was there to notice.
        self._unnoticed_exit: int | None = None

    # What a program does

    def write(self, data: bytes | str, stream: Stream = "stdout", time_ns: int | None = None) -> None:
        """Write as the container's program. A line's time is the clock's, or `time_ns`.

        Bytes behind the last newline wait in the engine for the rest of their line, or for the exit.
        """
        self._must_execute()
        if isinstance(data, str):
            data = data.encode()
        if self.tty:
            # The terminal's line discipline (ONLCR), and both streams are the terminal.
            data, stream = data.replace(b"\n", b"\r\n"), "stdout"
        if not self.engine.is_up:
            self._pipe.append((data, stream))
            return
        self._log_pieces(self._copier(stream).feed(data, self._clock(stream, time_ns)))
        self.engine.log_written(self)

    def write_many(
        self,
        lines: Sequence[bytes],
        stream: Stream = "stdout",
        time_ns: int | None = None,
        step_ns: int = 997,
    ) -> None:
        """Write many lines at once, given without newlines; their times are `step_ns` apart.

        About 2 µs a line. Within the call nobody else runs, so give a busy engine some thousands at a time.
        """
        plain = isinstance(self.log, JsonFileLog) and self.engine.is_up and not self.tty
        for start in range(0, len(lines), _BULK_LINES):
            part = lines[start : start + _BULK_LINES]
            if plain and self._copier(stream).between_lines and max(map(len, part)) < PIECE_BYTES:
                self._write_bulk(part, stream, time_ns, step_ns)
            else:
                self.write(b"".join(line + b"\n" for line in part), stream, time_ns)
            if time_ns is not None:
                time_ns += step_ns * len(part)
        self.engine.log_written(self)

    def _write_bulk(self, lines: Sequence[bytes], stream: str, time_ns: int | None, step_ns: int) -> None:
        self._must_execute()
        assert isinstance(self.log, JsonFileLog)
        start_ns = self._clock(stream, time_ns)()
        last_ns = start_ns + step_ns * (len(lines) - 1)
        self._last_ns[stream] = last_ns
        self.log.append(json_lines(lines, stream, spread(start_ns, step_ns), self._attrs), last_ns)

    def _copier(self, stream: str) -> Copier:
        copier = self._copiers.get(stream)
        if copier is None:
            copier = self._copiers[stream] = Copier(stream)
        return copier

    def _clock(self, stream: str, time_ns: int | None) -> Callable[[], int]:
        """The times of one stream: by up to the jitter behind the other one, never back within it.

        But where the clock is set back they are what it says (moby's copier asks it once a line).
        """

        def now() -> int:
            if time_ns is not None:
                at = time_ns
            else:
                at = self.engine.clock()
                if at < self._clock_ns:
                    self._last_ns.clear()
                self._clock_ns = at
                quirks, random = self.engine.quirks, self.engine.random
                if quirks.stream_jitter_ns and random.random() < quirks.stream_jitter_share:
                    at -= random.randrange(quirks.stream_jitter_ns)
            at = max(at, self._last_ns.get(stream, 0))
            self._last_ns[stream] = at
            return at

        return now

    def _log_pieces(self, pieces: list[Piece]) -> None:
        if not pieces:
            return
        if isinstance(self.log, JsonFileLog):
            for piece in pieces:
                self.log.append(json_line(piece, self._attrs), piece.time_ns)
        elif isinstance(self.log, MemoryLog):
            if self.engine.quirks.local_drops_newlines:
                pieces = [replace(p, log=p.log.removesuffix(b"\n")) if p.continues else p for p in pieces]
            self.log.append(pieces, self._attrs)

    def exit(self, code: int = 0) -> None:
        """The program ends by itself. An engine that is down notices when it is back."""
        if self.engine.is_up:
            self._die(code)
        else:
            self._must_execute()
            self._unnoticed_exit = code

    # What a user does with it

    @property
    def is_running(self) -> bool:
        """Paused is running too, as for the engine."""
        return self.state.status in ("running", "paused")

    def start(self) -> None:
        """Run it, the first time or again: same id, and the same log goes on."""
        self._start()
        self._emit("start")

    def stop(self, code: int = 143) -> None:
        """SIGTERM, and the program obeys."""
        self._must_run()
        self._emit("kill", signal="15")
        if self.engine.quirks.stop_before_die:
            self._emit("stop")
            self._die(code)
        else:
            self._die(code)
            self._emit("stop")

    def kill(self, signal: int = 9) -> None:
        """A signal that ends the program."""
        self._must_run()
        self._emit("kill", signal=str(signal))
        self._die(128 + signal)

    def restart(self) -> None:
        """Stop and start."""
        if self.is_running:
            self.stop()
        self.start()
        self._emit("restart")

    def pause(self) -> None:
        """Freeze the program; its log stays as it is."""
        self._must_run()
        self.state.status = "paused"
        self._emit("pause")

    def unpause(self) -> None:
        """Let it go on."""
        if self.state.status != "paused":
            raise NotRunning(f"{self.name} is not paused")
        self.state.status = "running"
        self._emit("unpause")

    def rename(self, name: str) -> None:
        """Another name, everything else as before."""
        old, self.name = self.name, self.engine.claim_name(name)
        self._emit("rename", oldName=f"/{old}")

    def remove(self, *, force: bool = False, delay_s: float = 0.0) -> None:
        """Take it away with its log; it is `removing`, and answers 409, for `delay_s`."""
        if self.is_running:
            if not force:
                raise NotRunning(f"{self.name} runs: stop it first, or force")
            self._emit("kill", signal="9")
            self._die(137, then_remove=False)
        self._remove_after(delay_s)

    # Life and death

    def _start(self) -> None:
        if self.is_running or self.removed or self.state.status == "removing":
            raise NotRunning(f"{self.name} is {self.state.status}: it cannot be started")
        self._copiers.clear()
        if isinstance(self.log, JsonFileLog):
            self.log.open()
        self.state.status = "running"
        self.state.started_ns = self.engine.clock()
        self.state.exit_code = 0
        self.state.pid = self.engine.next_pid()

    def _die(self, code: int, *, then_remove: bool = True) -> None:
        self._must_run()
        self._drain_pipe()
        for stream, copier in self._copiers.items():
            self._log_pieces(copier.finish(self._clock(stream, None)))
        self.state.status = "exited"
        self.state.exit_code = code
        self.state.pid = 0
        self.state.finished_ns = self.engine.clock()
        if self.log is not None:
            self.log.close()
        self.engine.log_written(self)
        self._emit("die", exitCode=str(code))
        if self.auto_remove and then_remove:
            self._remove_after(self.engine.quirks.removal_delay_s)

    def engine_is_back(self) -> None:
        """What was written meanwhile is logged with the time of now; of one that has ended it is lost."""
        if self._unnoticed_exit is None:
            self._drain_pipe()
        else:
            self._pipe.clear()
            code, self._unnoticed_exit = self._unnoticed_exit, None
            self._die(code)

    def _drain_pipe(self) -> None:
        pipe, self._pipe = self._pipe, []
        for data, stream in pipe:
            self._log_pieces(self._copier(stream).feed(data, self._clock(stream, None)))

    def _remove_after(self, delay_s: float) -> None:
        self.state.status = "removing"
        if delay_s:
            self.engine.after(delay_s, self._destroy)
        else:
            self._destroy()

    def _destroy(self) -> None:
        if self.removed:
            return
        self.removed = True
        if isinstance(self.log, JsonFileLog):
            self.log.remove()
        self.engine.forget(self)
        self._emit("destroy")

    def _must_execute(self) -> None:
        if self.state.status != "running" or self._unnoticed_exit is not None:
            raise NotRunning(f"{self.name} is {self.state.status}")

    def _must_run(self) -> None:
        if not self.is_running:
            raise NotRunning(f"{self.name} is {self.state.status}")

    def _emit(self, action: str, **attributes: str) -> None:
        self.engine.emit(
            "container",
            action,
            self.id,
            {**self.labels, "image": self.image, "name": self.name, **attributes},
        )

    # What the API says of it

    def log_cursor(self, *, tail: int | None, follow: bool) -> Cursor | None:
        """A reader of its log; None if the driver cannot be read."""
        return None if self.log is None else self.log.cursor(tail=tail, follow=follow)

    @property
    def log_path(self) -> Path | None:
        """Where the json-file log lies."""
        return self.log.path if isinstance(self.log, JsonFileLog) else None

    def _log_attributes(self) -> bytes:
        """The `attrs` of its log lines, as its log options ask: a JSON object, or nothing."""
        environment = dict(entry.partition("=")[::2] for entry in self.env)
        attributes: dict[str, str] = {}
        for source, option in ((self.labels, "labels"), (environment, "env")):
            for key in self.log_opts.get(option, "").split(","):
                if key in source:
                    attributes[key] = source[key]
            if pattern := self.log_opts.get(f"{option}-regex"):
                attributes |= {key: value for key, value in source.items() if re.search(pattern, key)}
        if tag := self.log_opts.get("tag"):
            values = {"Name": self.name, "ID": self.id[:12], "FullID": self.id, "ImageName": self.image}
            attributes["tag"] = re.sub(
                r"\{\{\s*\.(\w+)\s*\}\}", lambda match: values.get(match[1], match[0]), tag
            )
        if not attributes:
            return b""
        encoded = msgspec.json.encode(dict(sorted(attributes.items())))
        return encoded.replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026")

    def inspect(self) -> dict[str, object]:
        """`GET /containers/{id}/json`."""
        state = self.state
        return {
            "Id": self.id,
            "Created": rfc3339(self.created_ns),
            "Path": "sh",
            "Args": [],
            "State": {
                "Status": state.status,
                "Running": self.is_running,
                "Paused": state.status == "paused",
                "Restarting": False,
                "OOMKilled": False,
                "Dead": state.status == "dead",
                "Pid": state.pid,
                "ExitCode": state.exit_code,
                "Error": "",
                "StartedAt": _NEVER if state.started_ns is None else rfc3339(state.started_ns),
                "FinishedAt": _NEVER if state.finished_ns is None else rfc3339(state.finished_ns),
            },
            "Image": self.image_id,
            "LogPath": "" if self.log_path is None or state.started_ns is None else str(self.log_path),
            "Name": f"/{self.name}",
            "RestartCount": state.restart_count,
            "Driver": "overlay2",
            "Platform": "linux",
            "HostConfig": {
                "LogConfig": {"Type": self.log_driver, "Config": dict(self.log_opts)},
                "NetworkMode": "none",
                "RestartPolicy": {"Name": self.restart_policy, "MaximumRetryCount": 0},
                "AutoRemove": self.auto_remove,
            },
            "Mounts": [],
            "Config": {
                "Hostname": self.id[:12],
                "Domainname": "",
                "User": "",
                "Tty": self.tty,
                "OpenStdin": False,
                "Env": list(self.env),
                "Cmd": ["sh"],
                "Image": self.image,
                "WorkingDir": "",
                "Entrypoint": None,
                "Labels": dict(self.labels),
            },
            "NetworkSettings": {"Networks": {}},
        }

    def summary(self, now_ns: int) -> dict[str, object]:
        """Its entry of `GET /containers/json`."""
        state = self.state
        since = ((now_ns - (state.started_ns or now_ns)) // 1_000_000_000) or "less than a"
        texts = {
            "created": "Created",
            "running": f"Up {since} seconds",
            "paused": f"Up {since} seconds (Paused)",
            "removing": "Removal In Progress",
            "dead": "Dead",
        }
        return {
            "Id": self.id,
            "Names": [f"/{self.name}"],
            "Image": self.image,
            "ImageID": self.image_id,
            "Command": "sh",
            "Created": self.created_ns // 1_000_000_000,
            "Ports": [],
            "Labels": dict(self.labels),
            "State": state.status,
            "Status": texts.get(state.status, f"Exited ({state.exit_code}) a moment ago"),
            "HostConfig": {"NetworkMode": "none"},
            "NetworkSettings": {"Networks": {}},
            "Mounts": [],
        }

    def close(self) -> None:
        """The engine is gone for good: let go of the log."""
        if self.log is not None:
            self.log.close()

    def __repr__(self) -> str:
        return f"<SimulatedContainer {self.name} {self.id[:12]} {self.state.status}>"
