"""The router: hands each sweep's batches to the routes that take them, and each route its checkpoints.

What sources see of the rest of the daemon (`Emit`, `Checkpoints`), and nothing else. On the trio thread.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import msgspec
import structlog
import trio

from logroute.router.match import ALL_STREAMS
from logroute.router.record import BEGINNING, Batch, Origin, Position, Stream, iso_time
from logroute.router.route import Route
from logroute.sources import Start


class Takers(msgspec.Struct):
    """Which routes take an origin, and which of its streams: decided once."""

    generation: int
    routes: list[tuple[Route, frozenset[Stream]]]
    streams: frozenset[Stream] = msgspec.field(default_factory=frozenset)
    """What at least one of them takes."""


class Router:
    """Dispatches. Routes are added before sources run; `close` ends the way in."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.unmatched = 0
        """Records that no route took."""
        self._generation = 0
        self._combinations: dict[tuple[object, ...], Takers] = {}
        self._room = trio.Event()
        self._log = structlog.get_logger("logroute.router")

    def add(self, route: Route) -> None:
        self.routes[route.name] = route
        self._generation += 1
        self._combinations.clear()

    def room_again(self) -> None:
        """A queue that was full is so no longer."""
        self._room.set()
        self._room = trio.Event()

    def takers(self, origin: Origin) -> Takers:
        """Who takes this origin. Looked up per batch, decided per origin."""
        takers: Takers | None = origin.takers
        if takers is None or takers.generation != self._generation:
            routes = [
                (route, streams)
                for route in self.routes.values()
                if (streams := route.settings.match.decide(origin))
            ]
            # Thousands of containers are taken by few combinations of routes.
            key = (self._generation, *((route.name, streams) for route, streams in routes))
            takers = self._combinations.get(key)
            if takers is None:
                union = frozenset[Stream]().union(*(streams for _, streams in routes))
                takers = self._combinations[key] = Takers(self._generation, routes, union)
            origin.takers = takers
        return takers

    # --- Emit -----------------------------------------------------------------------------------------

    async def __call__(self, batches: Sequence[Batch]) -> None:
        """Hand one sweep's batches on: one queue operation per route."""
        pending: dict[Route, list[Batch]] = {}
        for batch in batches:
            takers = self.takers(batch.origin)
            if takers.streams is not ALL_STREAMS and takers.streams != ALL_STREAMS:
                self.unmatched += sum(line.stream not in takers.streams for line in batch.lines)
            for route, streams in takers.routes:
                if route.gone is not None:
                    continue
                part: Batch | None = batch
                if batch.acknowledged is not None and route.name in batch.acknowledged:
                    part = self._unacknowledged(batch, route, batch.acknowledged[route.name])
                if part is not None and streams != ALL_STREAMS:
                    part = part.of_streams(streams)
                if part is not None:
                    pending.setdefault(route, []).append(part)
        for route, parts in pending.items():
            route.put(parts)
        await trio.lowlevel.checkpoint()

    @staticmethod
    def _unacknowledged(batch: Batch, route: Route, streams: frozenset[Stream]) -> Batch | None:
        """What the route has not acknowledged of a batch that is read for others that are further behind."""
        if streams == ALL_STREAMS:
            return None
        part = batch.of_streams(ALL_STREAMS - streams)
        # The checkpoint of the acknowledged stream is ahead of this batch: it stays where it is.
        checkpoint = route.state.position(batch.origin.key) or BEGINNING
        after = Position(
            checkpoint.stdout if "stdout" in streams else batch.after.stdout,
            checkpoint.stderr if "stderr" in streams else batch.after.stderr,
        )
        return Batch(
            batch.origin,
            part.records,
            before=batch.before,
            after=after,
            size_bytes=part.size_bytes,
            ready=True,
        )

    def has_room(self, origin: Origin) -> bool:
        for route, _ in self.takers(origin).routes:  # noqa: SIM110  # faster than any(): once a log and sweep
            if route.holds:
                return False
        return True

    async def wait_for_room(self) -> None:
        await self._room.wait()

    # --- Checkpoints ----------------------------------------------------------------------------------

    async def meet(self, starts: Mapping[Origin, Start]) -> Mapping[Origin, Mapping[str, Position]]:
        found: dict[Origin, dict[str, Position]] = {}
        changed: set[Route] = set()
        for origin, start in starts.items():
            found[origin] = {}
            for route, _ in self.takers(origin).routes:
                route.state.met(origin.key)
                position = route.state.position(origin.key)
                if position is None:
                    position = _first_position(route, start)
                    route.state.note(origin.key, position)
                    changed.add(route)
                found[origin][route.name] = position
        if changed:
            async with trio.open_nursery() as nursery:
                for route in changed:
                    nursery.start_soon(self._store, route)
        return found

    async def _store(self, route: Route) -> None:
        """Store what was just noted: nothing may be read of an origin before."""
        while True:
            try:
                await route.state.commit()
            except Exception as error:  # a full disk must not end the source
                route.warn("cannot store a checkpoint, trying again before reading", reason=str(error))
                await trio.sleep(1)
            else:
                return

    def gone(self, origin: Origin) -> None:
        for route in self.routes.values():
            route.state.gone(origin.key)

    def lost(self, origin: Origin, routes: Sequence[str], reason: str, **details: object) -> None:
        names = list(routes) or [route.name for route, _ in self.takers(origin).routes]
        for name in names:
            lost = self.routes[name].lost
            lost[reason] = lost.get(reason, 0) + 1
        self._log.error(
            "records are lost: they were gone before they could be read",
            container=origin.name or origin.file,
            routes=names,
            reason=reason,
            **details,
        )


def _first_position(route: Route, start: Start) -> Position:
    """Where a route begins with an origin it has never met."""
    wanted = route.settings.start
    # Younger than the route: it came while we were away, and all of it is wanted.
    if start.created and start.created > iso_time(int(route.state.born * 1e9)):
        return BEGINNING
    if wanted == "beginning":
        return BEGINNING
    if isinstance(wanted, float | int):
        return Position(since=iso_time(int((time.time() - wanted) * 1e9)))
    if wanted == "now":
        return Position(since=iso_time(time.time_ns()))
    return start.position
