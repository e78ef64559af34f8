"""One container of an engine, as the docker source knows it; and which of them is our own."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from logroute.router.position import Position
from logroute.router.record import Origin
from logroute.sources.engine_answers import ContainerDetails
from logroute.sources.log_file import LogFile

if TYPE_CHECKING:
    from logroute.sources.engine_logs import EngineLog

_CONTAINER_ID = re.compile(r"/(?:docker|containers|libpod)[/-]([0-9a-f]{64})")


class Place(msgspec.Struct, frozen=True):
    """Where a route is that is behind, and under which name it goes on from there."""

    position: Position
    origin: Origin


class Container(msgspec.Struct, eq=False):
    """One container that is read, or was looked at and is not."""

    details: ContainerDetails
    origin: Origin
    log: LogFile | None = None
    reader: trio.CancelScope | None = None
    """Of the task that reads it by API."""
    started_meanwhile: bool = False
    """Its program was started while that task read: it reads on once it has come to the end."""
    engine_log: EngineLog | None = None
    places: dict[str, Place] = msgspec.field(default_factory=dict)
    """Read by API: where the routes are that are behind, and wait to be read for."""
    catching_up: bool = False
    """A task reads for them, or waits until it can."""
    ended: bool = False
    """It does not run now."""
    removed: bool = False
    new: bool = False
    """It began while we ran: it was not there when the engine was first asked, or had not been started."""
    opening: bool = False
    """It is being opened: whoever hears of it meanwhile must not open it again."""
    renamed_at: str = ""
    """When it was renamed while it was being opened, by the engine's clock; empty if it was not."""
    failed: bool = False
    """Its file could not be read, and is opened again later."""
    drained: bool = False
    """With `--once`: everything that was there has been emitted."""
    ignored: str = ""
    """Why it is not read."""
    unreadable: str = ""
    """Why it cannot be read by API, now and later: what the engine has said."""


def own_container_id() -> str:
    """The id of the container that we run in ourselves; empty outside of one."""
    for path in ("/proc/self/mountinfo", "/proc/self/cgroup"):
        try:
            text = Path(path).read_text()
        except OSError:
            continue
        if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
            found = _CONTAINER_ID.search(text)
            if found:
                return found[1]
    return ""
