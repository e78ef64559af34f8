"""What sources see of the daemon, played by the tests."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from logroute.router.checkpoints import Called
from logroute.router.match import EVERYTHING
from logroute.router.position import BEGINNING, Position, Reached
from logroute.router.record import Batch, Origin, Reader, Record
from logroute.router.router import Router
from logroute.router.views import Event
from logroute.sources import Behind, Lost, Start
from logroute.sources.log_file import BUFFER_BYTES, LogFile


class Routes:
    """What the router would be: takes everything, remembers where it is, acknowledges at once."""

    def __init__(self) -> None:
        self.records: list[tuple[Origin, Record]] = []
        self.positions: dict[str, Position] = {}
        self.began: dict[str, Start] = {}
        self.told: list[tuple[str, str]] = []
        """What became of containers."""
        self.losses: list[tuple[str, Sequence[str], str, dict[str, object]]] = []
        """(container or path, routes, reason, details)"""
        self.some_gone = trio.Event()
        self._arrived = trio.Event()

    async def __call__(self, batches: Sequence[Batch]) -> Sequence[Behind]:
        for batch in batches:
            self.records += [(batch.origin, record) for record in batch.records]
            self.positions[batch.origin.key] = batch.after
        self._arrived.set()
        self._arrived = trio.Event()
        await trio.lowlevel.checkpoint()
        return ()

    def has_room(self, origin: Origin, reader: Reader | None = None) -> bool:
        return True

    async def meet_late(self, origin: Origin, here: Position) -> Mapping[str, Position]:
        return {}  # no route comes late

    def apart(self, origin: Origin, places: Mapping[str, Position]) -> None:
        raise AssertionError("one route is never apart")

    def live_routes(self, origin: Origin) -> Sequence[str]:
        return ["all"]

    def joined(self, origin: Origin, routes: Iterable[str]) -> None: ...

    def reads_for_somebody(self, origin: Origin, reader: Reader) -> bool:
        return True

    async def wait_for_room(self) -> None:
        await trio.sleep_forever()

    def settle_at(self, source: str) -> float:
        return math.inf

    def quiet(self, source: str) -> Sequence[Batch]:
        return ()

    def needed(self, reader: Reader) -> Position:
        return reader.position

    def closed(self, reader: Reader, origin: Origin) -> None: ...

    def settle(self, reader: Reader, ahead: Reader, origin: Origin) -> Sequence[Batch]:
        return ()

    def holds(self, origin: Origin) -> bool:
        return False

    def takes_over(self, reader: Reader, origin: Origin) -> None: ...

    def called(self, key: str) -> Sequence[str]:
        return ()

    def renamed(self, origin: Origin, until: Position) -> None: ...

    async def meet(self, starts: Mapping[Origin, Start]) -> Mapping[Origin, Mapping[str, Position]]:
        found: dict[Origin, dict[str, Position]] = {}
        for origin, start in starts.items():
            self.began[origin.file] = start
            found[origin] = {"all": self.positions.setdefault(origin.key, start.position)}
        self._arrived.set()
        self._arrived = trio.Event()
        return found

    def gone(self, origin: Origin) -> None:
        self.some_gone.set()

    def tell(self, origin: Origin, event: Event) -> None:
        self.told.append((origin.name, event))

    def lost(self, origin: Origin, lost: Lost) -> None:
        known = {"since": lost.since, "until": lost.until, "bytes": lost.size_bytes}
        details = {name: value for name, value in known.items() if value not in ("", None)}
        self.losses.append((origin.name or origin.file, list(lost.routes), lost.reason, details))

    @property
    def messages(self) -> list[str]:
        return [record.message for _, record in self.records]

    async def until_met(self, path: Path) -> None:
        with trio.fail_after(20):
            while str(path) not in self.began:
                await self._arrived.wait()

    async def until(self, count: int) -> list[str]:
        """Wait until so many records have come; all of their messages."""
        with trio.fail_after(20):
            while len(self.records) < count:
                await self._arrived.wait()
        return self.messages


class Settings:
    match = EVERYTHING
    start = None


class Gate:
    """A route that holds and blocks when the test says so, and acknowledges at once."""

    def __init__(self, name: str, router: Router) -> None:
        self.name = self.key = name
        self.settings = Settings
        self.gone = None
        self.holds = self._blocks = False
        self.unstored: frozenset[str] = frozenset()
        self.cannot_store = ""
        self.got: list[str] = []
        self.place: Position = BEGINNING
        self.born = 1.0
        self.met_before = True
        """Has a checkpoint; else it begins where the source says."""
        self.lost: dict[str, int] = {}
        self.state = self.queue = self
        self._router = router
        router.routes[name] = self  # type: ignore[assignment]  # what the router needs of a route

    def put(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            assert not self._blocks or batch.settled
            self.got += [record.message for record in batch.records]
            self.place = batch.after

    def met(self, origin: str) -> None: ...

    def called(self, origin: str) -> None:
        return None

    def call(self, origin: str, called: Called | None) -> None: ...

    def reached(self) -> Mapping[str, Position]:
        return {}

    def position(self, origin: str) -> Position | None:
        return self.place if self.met_before else None

    def begin(self, origin: str, position: Position) -> None:
        self.place, self.met_before = position, True

    async def store(self) -> bool:
        return True

    def open(self) -> None:
        self.holds = self._blocks = False
        self._router.room_again()

    def blocks(self, reader: Reader) -> bool:
        return self._blocks

    def hurry(self) -> None: ...

    def note(self, origin: str, position: Position | Reached) -> None:
        self.place = position if isinstance(position, Position) else position.position()

    def block(self) -> None:
        self.holds = self._blocks = True
        self._router.room_again()


def refuse(patch: pytest.MonkeyPatch, path: str | Path, number: int, times: float = math.inf) -> None:
    """Opening this file fails, so many times."""
    opened = os.open
    left = times

    def fails(name: str | Path, *args: Any, **options: Any) -> int:
        nonlocal left
        if str(name) == str(path) and left > 0:
            left -= 1
            raise OSError(number, os.strerror(number), str(path))
        return opened(name, *args, **options)

    patch.setattr(os, "open", fails)


def records_of_file(path: str, origin: Origin, limit: int) -> list[Record]:
    """What is read of the log of a container that has ended, as a file."""
    log = LogFile(path, origin, limit=limit)
    if not log.open():
        return []
    log.resume({"all": BEGINNING})
    log.complete = True
    records: list[Record] = []
    more = True
    while more:
        fetched = log.fetch(bytearray(BUFFER_BYTES), 1 << 20)
        batches, more = log.parse(fetched.chunks), fetched.more
        records += [record for batch in batches for record in batch.records]
    log.close()
    return records
