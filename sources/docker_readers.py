"""Containers that a docker source reads by API: live, and apart for the routes that are behind.

An engine that is away, or refuses a log that it should give, is asked again until it gives it; reading goes
on where it was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from weakref import WeakSet

import structlog
import trio

from logroute.router.position import BEGINNING, Position
from logroute.router.record import STREAMS, Origin
from logroute.sources import Behind, Emit, Lost, SourceContext, Waiting
from logroute.sources.docker_container import Container, Place
from logroute.sources.engine import (
    RETRY_FIRST_S,
    RETRY_MAX_S,
    Engine,
    EngineAway,
    EngineError,
    EngineRefused,
    share,
)
from logroute.sources.engine_batches import Offer, share_of_pending
from logroute.sources.engine_logs import EngineLog, LogBroken, Outcome
from logroute.sources.letting_go import WITHIN_S

FORKS_AT_ONCE = 4
"""How many logs are read for routes that are behind; each makes the engine decode a whole log."""
CATCH_UP_EVERY_S = 1.0
CLOCK_EVERY_S = 1.0
"""How often it is looked whether the engine's clock was set back."""
SAY_AGAIN_S = 60.0


class ContainerReaders:
    """Reads containers in tasks of its own, in the nursery it is given; batches go to `offer`.

    `on_ended(container)` is called when nothing more of it is read, for any route, until it is started again.
    """

    def __init__(
        self,
        engine: Engine,
        emit: Emit,
        offer: Offer,
        context: SourceContext,
        nursery: trio.Nursery,
        *,
        on_lost: Callable[[Container, Lost], None],
        on_ended: Callable[[Container], None],
    ) -> None:
        self._engine = engine
        self._emit = emit
        self._offer = offer
        self._context = context
        self._nursery = nursery
        self._on_lost = on_lost
        self._on_ended = on_ended
        self._log = structlog.get_logger("logroute.sources").bind(source=context.name)
        self._forks = trio.Semaphore(FORKS_AT_ONCE)
        self._refusals = Refusals(self._log)
        self._logs = WeakSet[EngineLog]()
        nursery.start_soon(self._watch_clock)

    async def _watch_clock(self) -> None:
        """Tell all logs when the engine's clock was set back: their streams may hide what is written now."""
        before = self._ahead_ns()
        while True:
            await trio.sleep(CLOCK_EVERY_S)
            now = self._ahead_ns()
            if before - now > self._engine.clock_error_ns:
                for log in list(self._logs):
                    log.clock_was_set_back()
            before = now

    def _ahead_ns(self) -> int:
        """How far the engine's clock is ahead of one that nobody sets; the most, lest waiting counts."""
        return max(self._engine.now_ns() - time.monotonic_ns() for _ in range(3))

    def notes(self) -> list[str]:
        """What somebody should know: what cannot be read just now, and why."""
        return self._refusals.notes()

    def why_refused(self, id_: str) -> str:
        """Why the engine does not give the log of this one; empty while it does."""
        return self._refusals.reason(id_)

    def begin(self, container: Container, checkpoints: Mapping[str, Position]) -> None:
        """Read a container for the first time."""
        container.engine_log = self._engine_log(container, container.origin)
        self._emit.takes_over(container.engine_log, container.origin)
        self.read_on(container, checkpoints)

    def _engine_log(self, container: Container, origin: Origin) -> EngineLog:
        log = EngineLog(
            self._engine,
            container.details,
            origin,
            limit=self._context.record_limit_bytes,
            lost=partial(self._on_lost, container),
            pending_bytes=lambda: share_of_pending(len(self._logs)),
        )
        self._logs.add(log)
        return log

    def read_on(self, container: Container, checkpoints: Mapping[str, Position]) -> None:
        """Read it live, if nobody does; what it has read before decides where, else the checkpoints."""
        if container.reader is not None:
            return
        container.started_meanwhile = False
        # Set here and not in the task, so that one container never has two readers.
        container.reader = trio.CancelScope()
        self._nursery.start_soon(self._read_by_api, container, checkpoints)

    async def _read_by_api(self, container: Container, checkpoints: Mapping[str, Position]) -> None:
        """Read a container's log through the engine until it ends; wait for an engine that is away."""
        log = container.engine_log
        assert log is not None
        assert container.reader is not None
        outcome: Outcome = "ended"

        async def read() -> None:
            nonlocal outcome
            outcome = await log.run(self._offer, checkpoints, follow=not self._context.once)

        with container.reader:
            await self._persist(container, log, read)
        # No await from here to the end of `run`, so that no fork joins between them unseen.
        container.reader = None
        for fork in log.unjoined():
            self._join_the_end(container, fork)
        if container.started_meanwhile and outcome != "removed":
            self.read_on(container, {})
        else:
            self._may_have_ended(container)

    def _may_have_ended(self, container: Container) -> None:
        if container.reader is None and not container.catching_up:
            self._on_ended(container)

    def fell_behind(self, container: Container, behind: Behind) -> None:
        """A route has no room for what was read: it is read for apart, from there, when it has."""
        reader = behind.reader
        assert isinstance(reader, EngineLog)
        if reader.routes is not None:
            reader.routes -= {behind.route}
        self.read_later(container, {behind.route: behind.position}, behind.origin)

    def read_later(self, container: Container, places: Mapping[str, Position], origin: Origin) -> None:
        """Read for these routes apart, from there, as soon as they have room, as what this origin says.

        It may have another name by now: a route that takes it by the old one alone gets what was said until
        then all the same.
        """
        container.places.update({route: Place(position, origin) for route, position in places.items()})
        if not container.catching_up:
            container.catching_up = True
            self._nursery.start_soon(self._catch_up, container)

    async def _catch_up(self, container: Container) -> None:
        """Read for the routes that are behind, as soon as they have room, until they are with the others."""
        try:
            while routes := await self._with_room(container):
                origin = container.places[routes[0]].origin
                fork = self._engine_log(container, origin)
                if container.engine_log is not None:
                    fork.unordered_until = container.engine_log.unordered_until
                    fork.names = container.engine_log.names
                fork.routes = frozenset(routes)
                places = {route: container.places.pop(route).position for route in routes}
                began, is_live = trio.current_time(), container.reader is not None
                await self._read_apart(container, fork, places)
                await self._come_to_its_name(container, fork)
                if container.reader is not None:
                    self._join(container, fork)
                elif is_live:
                    self._join_the_end(container, fork)
                else:  # it began when nothing was read live, and has come to the end
                    self._emit.joined(container.origin, fork.routes or frozenset())
                # Opening makes the engine decode the log from its beginning.
                await trio.sleep_until(began + CATCH_UP_EVERY_S)
        finally:
            container.catching_up = False
        self._may_have_ended(container)

    async def _with_room(self, container: Container) -> list[str]:
        """Wait until routes that are behind have room; which. None, if nobody is behind any more.

        They read under the same name.
        """
        emit, places = self._emit, container.places
        while True:
            for route, place in list(places.items()):
                if not emit.reads_for_somebody(place.origin, _Apart(route)):
                    del places[route]
                    emit.joined(place.origin, [route])
            if not places:
                return []
            routes = [r for r, place in places.items() if emit.has_room(place.origin, _Apart(r))]
            if routes:
                origin = places[routes[0]].origin
                return [route for route in routes if places[route].origin is origin]
            await emit.wait_for_room()

    async def _come_to_its_name(self, container: Container, fork: EngineLog) -> None:
        """Where the container has another name than the fork knows: read what was said before it had.

        Then what is held ends, and the routes that do not take it as it is named now have all there is.
        """
        while fork.origin is not (origin := container.origin):
            # It is known by now, so nothing more comes under the name before: all of that can be read.
            await self._read_apart(container, fork, {})
            if fork.origin is not origin and self._emit.reads_for_somebody(fork.origin, fork):
                await self._offer(fork.ending())
            fork.origin = origin
        routes = fork.routes or frozenset()
        left = {r for r in routes if not self._emit.reads_for_somebody(container.origin, _Apart(r))}
        if left:
            fork.routes = routes - left
            self._emit.joined(container.origin, left)

    async def _read_apart(
        self, container: Container, fork: EngineLog, places: Mapping[str, Position]
    ) -> None:
        """All that the engine has now."""

        async def read() -> None:
            async with self._forks:
                await fork.run(self._offer, places, follow=False)

        await self._persist(container, fork, read)

    async def _persist(
        self, container: Container, log: EngineLog, read: Callable[[], Awaitable[object]]
    ) -> None:
        """Read until that is done: an engine that is away, or refuses for now, is asked again.

        What cannot be read at all is given up, and counted.
        """
        log.on_opened = partial(self._refusals.over, container.details.id)
        container.unreadable = ""
        wait_s = RETRY_FIRST_S
        while True:
            records = log.statistics.records
            try:
                await read()
                break
            except EngineAway:
                pass
            except EngineRefused as error:
                counted = isinstance(error, LogBroken)
                if counted or error.unreadable:
                    name = container.origin.name
                    self._log.error("cannot read a container", container=name, error=str(error))
                    container.unreadable = str(error)
                    self._context.failed("log_unreadable")
                    if not counted:
                        routes = tuple(sorted(log.routes or ()))
                        self._on_lost(container, Lost(routes, "unreadable", since=log.newest_time))
                    await self._offer(log.ending())
                    break
                self._context.failed("log_refused")
                self._refusals.note(container.details.id, container.origin.name, str(error))
            if log.statistics.records > records:
                wait_s = RETRY_FIRST_S
            await trio.sleep(wait_s)
            wait_s = min(RETRY_MAX_S, wait_s * 2)
        self._refusals.over(container.details.id)

    def _join(self, container: Container, fork: EngineLog) -> None:
        """The routes of a fork are near the live reader: it goes back to where they are, for all of them."""
        live, routes = container.engine_log, fork.routes or frozenset()
        assert live is not None
        if not routes:
            self._emit.closed(fork, container.origin)
            return
        if not self._emit.reads_for_somebody(container.origin, fork):
            self._emit.joined(container.origin, routes)
            self._emit.closed(fork, container.origin)
            return

        def places() -> Mapping[str, Position]:
            needed, here = self._emit.needed(live), live.position
            at = {route: live.position_of(route) for route in self._emit.live_routes(container.origin)}
            others = {route: _before_held(position, here, needed) for route, position in at.items()}
            self._emit.joined(container.origin, routes)
            begin = self._emit.needed(fork)
            self._emit.closed(fork, container.origin)
            self._emit.takes_over(live, container.origin)
            return others | dict.fromkeys(routes, begin)

        live.join(fork, places)

    def _join_the_end(self, container: Container, fork: EngineLog) -> None:
        """Nothing is read live any more, and what was read last the routes of a fork may not have.

        Then they are read for apart once more.
        """
        live, routes = container.engine_log, fork.routes or frozenset()
        assert live is not None
        alike = all(live.position.of(stream).anchor == fork.position.of(stream).anchor for stream in STREAMS)
        # The fork may not have known that this was the end: then what is held of it goes on with another.
        if alike and not self._emit.holds(container.origin):
            self._emit.joined(container.origin, routes)
        elif routes:
            self.read_later(container, dict.fromkeys(routes, self._emit.needed(fork)), fork.origin)
        self._emit.closed(fork, container.origin)


def _before_held(position: Position, here: Position, needed: Position) -> Position:
    """Of streams in which a route is where the reader is, where that is to be read again from."""
    stdout, stderr = (
        needed.of(stream) if position.of(stream) == here.of(stream) else position.of(stream)
        for stream in STREAMS
    )
    return Position(stdout, stderr, position.since)


class Refusals:
    """Containers whose logs the engine refuses now, and should not: said at once, then once a minute."""

    def __init__(self, log: structlog.typing.FilteringBoundLogger) -> None:
        self._log = log
        self._reasons: dict[str, tuple[str, str]] = {}
        """By id: name, and what the engine said."""
        self._said_at = -math.inf

    def note(self, id_: str, name: str, reason: str) -> None:
        self._reasons[id_] = name, reason
        now = trio.current_time()
        if now - self._said_at >= SAY_AGAIN_S:
            self._said_at = now
            others = len(self._reasons) - 1
            self._log.error(
                "the engine refuses the log of a container, trying again",
                container=name,
                error=reason,
                others=others or None,
            )

    def over(self, id_: str) -> None:
        """It gives this one, or it does not matter any more."""
        if self._reasons.pop(id_, None) is not None and not self._reasons:
            self._log.info("the engine gives all logs again")

    def reason(self, id_: str) -> str:
        """What the engine said of this one; empty if it gives it."""
        found = self._reasons.get(id_)
        return f"the engine refuses its log, trying again: {found[1]}" if found is not None else ""

    def notes(self) -> list[str]:
        """What somebody should know, a line a container."""
        return [
            f"the engine refuses the log of {name}, trying again: {reason}"
            for name, reason in self._reasons.values()
        ]


async def unfound(waiting: Sequence[tuple[EngineLog, Waiting]]) -> list[Waiting]:
    """Those that their engine has not any more; several are asked for at a time. Of what it does not answer
    for nothing is known, and that is said."""
    gone: list[Waiting] = []
    unknown = {each: "it did not answer in time" for _, each in waiting}

    async def find(item: tuple[EngineLog, Waiting]) -> None:
        log, each = item
        try:
            there = await log.has(each.time)
        except EngineError as error:
            if not (isinstance(error, EngineRefused) and error.gone):
                unknown[each] = str(error)
                return
            there = False
        del unknown[each]
        if not there:
            gone.append(each)

    with trio.move_on_after(WITHIN_S, shield=True):
        await share(find, waiting)
    if unknown:
        structlog.get_logger("logroute.sources").warning(
            "whether what waits can be read again is not known: the engine does not say",
            containers=sorted({each.origin.name for each in unknown}),
            reason=next(iter(unknown.values())),
        )
    return gone


class _Apart:
    """Stands for the reader of a route that is behind, before there is one."""

    cheap = False
    position = BEGINNING

    def __init__(self, route: str) -> None:
        self.routes = frozenset([route])
