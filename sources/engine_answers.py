"""What the Engine API answers, as far as logroute wants to know: typed, the rest is not even decoded.

Podman's docker-compatible API leaves fields out and gives null where moby gives something empty: nothing here
is required but ids.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from logroute.router.times import full_time

# Podman's names of the same events.
_SAME_ACTION = {"died": "die", "remove": "destroy"}


class _Answer(msgspec.Struct, rename="pascal", frozen=True):
    """Moby's JSON has Go's names."""


class ErrorAnswer(msgspec.Struct):
    """`{"message": …}` with a status of 400 and above."""

    message: str = ""


class EngineVersion(_Answer, frozen=True):
    version: str = ""
    api_version: str = ""
    min_api_version: str = msgspec.field(default="", name="MinAPIVersion")
    os: str = ""


class EngineInfo(_Answer, frozen=True):
    id: str = msgspec.field(default="", name="ID")
    name: str = ""
    """The host's name, as the engine knows it."""
    logging_driver: str = ""
    docker_root_dir: str = ""
    server_version: str = ""
    operating_system: str = ""
    system_time: str = ""


class ContainerSummary(_Answer, frozen=True):
    """One of the list: what is asked of it, because there may be thousands."""

    id: str
    names: list[str] | None = None
    state: str = ""
    """`created running paused restarting removing exited dead`; Podman has some more."""

    @property
    def name(self) -> str:
        """Without the slash; of several (links) the one that is the container's own."""
        names = [name.removeprefix("/") for name in self.names or ()]
        return next((name for name in names if "/" not in name), names[0] if names else "")


class LogConfig(_Answer, frozen=True):
    type: str = ""
    """The logging driver: `json-file`, `local`, `journald` …"""
    config: dict[str, str] | None = None
    """Its options: `max-size`, `max-file` …"""


class HostConfig(_Answer, frozen=True):
    log_config: LogConfig = LogConfig()
    auto_remove: bool = False


class ContainerConfig(_Answer, frozen=True):
    image: str = ""
    labels: dict[str, str] | None = None
    env: list[str] | None = None
    tty: bool = False


class ContainerState(_Answer, frozen=True):
    status: str = ""
    running: bool = False
    """True while paused and, on some engines, while restarting."""
    paused: bool = False
    restarting: bool = False
    started_at: str = ""
    finished_at: str = ""


class ContainerDetails(_Answer, frozen=True, gc=False):
    """The answer of inspect."""

    id: str
    name: str = ""
    """With a slash in front (moby) or without (Podman)."""
    created: str = ""
    state: ContainerState = ContainerState()
    config: ContainerConfig = ContainerConfig()
    host_config: HostConfig = HostConfig()
    log_path: str | None = None

    def slim(self) -> ContainerDetails:
        """What is asked again and again; the rest is looked at once, or stands on the origin."""
        log = self.host_config.log_config
        return ContainerDetails(
            self.id,
            created=self.created,
            state=_RUNNING if self.running else _STOPPED,
            config=_TERMINAL if self.config.tty else _NO_TERMINAL,
            host_config=_host_config(log.type, tuple((log.config or {}).items())),
            log_path=self.log_path,
        )

    @property
    def tty(self) -> bool:
        return self.config.tty

    @property
    def log_driver(self) -> str:
        return self.host_config.log_config.type

    @property
    def log_options(self) -> dict[str, str]:
        return self.host_config.log_config.config or {}

    @property
    def running(self) -> bool:
        """Whether its program may write more; also while it is paused, or about to be started again."""
        return self.state.running or self.state.status in ("running", "paused", "restarting")

    @property
    def created_time(self) -> str:
        """When it was created, as records have times."""
        return utc_time(self.created)

    @property
    def started_time(self) -> str:
        """When it was started last; empty if never."""
        time = utc_time(self.state.started_at)
        return "" if time.startswith("0001-") else time


# Thousands of containers have these in common.
_TERMINAL, _NO_TERMINAL = ContainerConfig(tty=True), ContainerConfig()
_RUNNING, _STOPPED = ContainerState(running=True), ContainerState()


@lru_cache(maxsize=256)
def _host_config(driver: str, options: tuple[tuple[str, str], ...]) -> HostConfig:
    return HostConfig(LogConfig(driver, dict(options) or None))


class Event(msgspec.Struct, frozen=True):
    """Something happened to a container."""

    action: str
    """`create start die destroy rename …`: moby's names, whoever sent it."""
    id: str
    attributes: dict[str, str]
    """Its labels, `name`, `image`, and what belongs to the action (`exitCode`, `oldName`)."""
    time_ns: int


class _Actor(_Answer, frozen=True):
    id: str = msgspec.field(default="", name="ID")
    attributes: dict[str, Any] | None = None


class _WireEvent(_Answer, frozen=True):
    action: str = ""
    actor: _Actor = _Actor()
    time: int = msgspec.field(default=0, name="time")
    time_ns: int = msgspec.field(default=0, name="timeNano")


_decode_event = msgspec.json.Decoder(_WireEvent).decode


def decode_event(line: bytes) -> Event | None:
    """One line of `/events`; None if it is no event (which is not worth ending the stream for)."""
    try:
        wire = _decode_event(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    attributes = {key: str(value) for key, value in (wire.actor.attributes or {}).items()}
    action = _SAME_ACTION.get(wire.action, wire.action)
    return Event(action, wire.actor.id, attributes, wire.time_ns or wire.time * 10**9)


def utc_time(text: str) -> str:
    """An engine's RFC 3339 time as records have it: UTC, nine digits. Podman's may have an offset.

    Text that is no time is returned as it is.
    """
    if text.endswith("Z"):
        return full_time(text)
    # `2026-11-23T20:06:26.123456789+01:00`: datetime knows six digits, so these stand aside.
    head, dot, rest = text.partition(".")
    digits = rest[: -len("+01:00")] if dot else ""
    offset = text[-len("+01:00") :]
    try:
        whole = datetime.fromisoformat(head + offset if dot else text)
    except ValueError:
        return text
    if whole.tzinfo is None:
        return text
    return f"{whole.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{digits:0<9}Z"


def time_ns(time: str) -> int:
    """Nanoseconds since 1970 of a record's time (UTC, nine digits). ValueError if it is none."""
    whole = datetime.fromisoformat(time[:19]).replace(tzinfo=UTC)
    return int(whole.timestamp()) * 10**9 + int(f"{time[20:-1]:0<9}")


_SIZE = re.compile(r"(\d+(?:\.\d+)?) *([kmgt]?)i?b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_LOCAL_DRIVER_BYTES = 20 * 10**6


def rotation_bytes(details: ContainerDetails) -> int | None:
    """How large a file of this log gets before it is rotated; None if it is not, as far as we know."""
    if details.log_driver not in ("json-file", "local", "k8s-file"):
        return None
    text = details.log_options.get("max-size", "")
    match = _SIZE.fullmatch(text)
    if match is None:
        return _LOCAL_DRIVER_BYTES if details.log_driver == "local" and not text.startswith("-") else None
    return int(float(match[1]) * _UNITS[match[2].lower()]) or None
