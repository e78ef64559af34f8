"""The router: hands each sweep's batches to the routes that take them, and each route its checkpoints.

What sources see of the rest of the daemon (`Emit`, `Checkpoints`), and nothing else. On the trio thread.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import structlog
import trio

from logroute.router import former_names
from logroute.router.beginning import first_position
from logroute.router.books import Gaps
from logroute.router.chain import Chains, Memo
from logroute.router.held import HeldLogs
from logroute.router.hints import allowed, say_nonsense
from logroute.router.position import BEGINNING, Position, Reached
from logroute.router.record import (
    ALL_STREAMS,
    NO_STREAMS,
    RECORD_OVERHEAD_BYTES,
    Batch,
    Origin,
    Reader,
    Stream,
)
from logroute.router.regex import RegexSet
from logroute.router.route import Route
from logroute.router.selection import Look, Selector
from logroute.router.talkers import Talkers
from logroute.router.views import Event, News, Views
from logroute.sources import Behind, Lost, Start

SETTLE_EVERY_S = 0.5
MANY_VANISHED = 1000
"""So many origins that are gone may be remembered for nothing."""


class Taker(msgspec.Struct, frozen=True):
    """A route that takes an origin, and what of it."""

    route: Route
    streams: frozenset[Stream]
    selector: Selector | None = None
    """Tells which records of these streams it takes; None: all."""


class Takers(msgspec.Struct):
    """Which routes take an origin, and what of it: decided once."""

    generation: int
    all: list[Taker]
    regexes: RegexSet | None = None
    """What any of them looks for in messages."""
    whole: bool = False
    """At least one of them takes every record."""
    waited: bool = False
    """A route that is not open yet will take something of it."""


class _Live:
    """The live reader of any log."""

    routes = None
    cheap = False
    position = BEGINNING


_LIVE = _Live()


class SourceBooks(msgspec.Struct):
    """What a source has emitted; what it reads again for a route that is behind counts again."""

    records: int = 0
    bytes: int = 0
    """Of text, as it stood in the log."""


class Router:
    """Dispatches. Routes are added before sources run; `close` ends the way in."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.unopened: dict[str, Route] = {}
        """Those whose state could not be opened yet: their disk was full, or did not answer. Where they begin
        is not known: see `expect`."""
        self.read: dict[str, SourceBooks] = {}
        """What each source has emitted, by its name."""
        self.chains = Chains()
        """What records pass before they are routed, and on the way into each route."""
        self.views = Views()
        """Who looks at what flows."""
        self.talkers = Talkers()
        """Who says how much."""
        self.unmatched = 0
        """Records that no route took."""
        self._generation = 0
        self._combinations: dict[tuple[object, ...], Takers] = {}
        self._apart: dict[str, dict[str, Position]] = {}
        """Routes, by key, that the live reader of an origin does not read for, by the origin's key, and from
        where on they are read for: what is before that they have been given."""
        self._removed = Counter[str]()
        """How often a route of each name was removed: the next one has another key."""
        self._late: set[str] = set()
        """Routes that may get batches of origins which they have not met."""
        self._met = defaultdict[str, set[str]](set)
        """Of each route, the origins, by key, that it was shown in this run and has taken ever since. Of
        others it may have a checkpoint, but what comes now does not follow on that."""
        self._kept: dict[str, Start] = {}
        """How origins began, by key, that were kept for routes which were not open then …"""
        self._expected: set[str] = set()
        """… and these routes."""
        self._vanished: dict[str, str] = {}
        """Origins that are gone, by key, and their names: all of which something waits in memory, or more."""
        self._look_at_vanished = MANY_VANISHED
        """With so many it is worth a look of which of them nothing waits any more."""
        self.held = HeldLogs(lambda: self.chains)
        self._calls = Counter[str]()
        """How many batches of each source are being handed on, by its name."""
        self._room = trio.Event()
        self._log = structlog.get_logger("logroute.router")

    def add(self, route: Route, *, late: bool = False) -> None:
        """Have a route. `late`: sources are running, so that it meets origins whose batches flow already."""
        self.unopened.pop(route.name, None)
        if removed := self._removed[route.name]:
            route.key = f"{route.name}#{removed + 1}"
        self.routes[route.name] = route
        self._met[route.name] = set()
        if late:
            self._late.add(route.name)
        self._decide_anew()

    def changed(self, name: str) -> None:
        """The route's match may be another."""
        if name in self.routes:
            self._late.add(name)
        self._decide_anew()
        self.room_again()

    def expect(self, route: Route) -> None:
        """A route is added when its state is open. What nobody else takes is kept for it till then."""
        self.unopened[route.name] = route
        self._expected.add(route.name)
        self._decide_anew()

    def expect_no_more(self, name: str) -> Route:
        route = self.unopened.pop(name)
        self._expected.discard(name)
        self._decide_anew()
        self.room_again()
        return route

    def remove(self, name: str) -> Route:
        """Have a route no longer: nothing more is handed to it, nor what is read for it to another one."""
        route = self.routes.pop(name)
        self._removed[name] += 1
        self._late.discard(name)
        self._expected.discard(name)
        self._met.pop(name, None)
        for key, apart in list(self._apart.items()):
            apart.pop(route.key, None)
            if not apart:
                del self._apart[key]
        self._decide_anew()
        self.room_again()
        return route

    def _decide_anew(self) -> None:
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
            names = [*self.routes, *self.unopened]
            if takers is None:
                say_nonsense(origin, names)
            wanted = allowed(origin, names)
            found = [
                Taker(route, streams, route.settings.match.selector(origin))
                for route in self.routes.values()
                if (wanted is None or route.name in wanted)
                and (streams := route.settings.match.decide(origin))
            ]
            waited = any(
                (wanted is None or name in wanted) and route.settings.match.decide(origin)
                for name, route in self.unopened.items()
            )
            # Thousands of containers are taken by few combinations of routes.
            key = (waited, *((taker.route.name, taker.streams, taker.selector) for taker in found))
            takers = self._combinations.get(key)
            if takers is None:
                takers = self._combinations[key] = _takers(self._generation, found, waited=waited)
            origin.takers = takers
            taking = {taker.route.name for taker in takers.all}
            for name, met in self._met.items():
                if name not in taking:
                    met.discard(origin.key)
        return takers

    def handed(self, route: Route, origin: Origin) -> Position | None:
        """How far a route was given an origin's records; None: it has not met it."""
        return self._place(route, origin)

    def is_apart(self, route: Route, origin: Origin) -> bool:
        """Whether the live reader of an origin does not read for the route: it is read for by another."""
        return route.key in self._apart.get(origin.key, {})

    def routes_of(self, origin: Origin) -> list[Route]:
        """Those that take something of it."""
        return [taker.route for taker in self.takers(origin).all]

    # --- Emit -----------------------------------------------------------------------------------------

    async def __call__(self, batches: Sequence[Batch]) -> Sequence[Behind]:
        """Hand one sweep's batches on: one queue operation per route."""
        source = batches[0].origin.source if batches else ""
        self._calls[source] += 1
        try:
            return await self._hand_on(batches)
        finally:
            self._calls[source] -= 1

    async def _hand_on(self, batches: Sequence[Batch]) -> Sequence[Behind]:
        cuts: list[int] = []
        if self.chains.before:
            batches, cuts = self.held.following(batches)
        pending: dict[Route, list[Batch]] = {}
        behind: list[Behind] = []
        memo: Memo = {}
        processed = batches
        if before := self.chains.before:
            processed = [await before.apply(batch, memo) for batch in batches]
            for index in cuts:  # it ends nothing that a route holds by itself
                processed[index].settled = NO_STREAMS
        if self.views:
            self.views.show(batches, processed)
        generation = -1
        while generation != self._generation:  # a route that comes while we wait has met nothing either
            generation = self._generation
            if self._late:
                behind += await self._meet_late_ones(batches)
            for batch in batches:
                if batch.reader is None:
                    await self._until_stored(batch.origin)
        for batch, made in zip(batches, processed, strict=True):
            self._share(batch, made, pending, behind)
        for route, parts in pending.items():
            if chain := self.chains.of_routes.get(route.name):
                parts = [await chain.apply(part, memo) for part in parts]
            if self.views:
                self.views.show_route(route.name, parts)
            # Where nothing was held, its end moves nothing.
            if parts := [part for part in parts if len(part) or not part.settled]:
                route.put(parts)
        self.held.note(batches, processed)
        await trio.lowlevel.checkpoint()
        return behind

    def _share(
        self, batch: Batch, made: Batch, pending: dict[Route, list[Batch]], behind: list[Behind]
    ) -> None:
        """What of a batch, as processors have made it, is for which route; or the route is behind now."""
        takers = self.takers(batch.origin)
        read = self.read.get(batch.origin.source)
        if read is None:
            read = self.read[batch.origin.source] = SourceBooks()
        read.records += len(batch)
        read.bytes += batch.size_bytes - RECORD_OVERHEAD_BYTES * len(batch)
        look: Look | None = None
        routes: Iterable[Taker] = takers.all
        only = batch.reader.routes if batch.reader is not None else None
        place = batch.before.stdout_place if isinstance(batch.before, Reached) else None
        begins = place is not None and not place.offset
        if only is None:
            self.talkers.count(batch)
            if not takers.whole:
                look = Look(made, takers.regexes)
                self.unmatched += len(made) - _taken_by_any(takers.all, look).bit_count()
            if self._apart and (apart := self._apart.get(batch.origin.key)):
                routes = [taker for taker in takers.all if taker.route.key not in apart]
        else:
            gone = {each.route for each in behind if each.reader is batch.reader}
            routes = [taker for taker in takers.all if taker.route.key in only - gone]
        for taker in routes:
            route = taker.route
            if (
                batch.reader is not None
                and self._blocks(route, batch.origin, batch.reader)
                # What was held comes to its end: that is little, and was read before the route was full.
                and (len(batch) or not made.settled or batch.origin.key in route.unstored)
            ):
                behind.append(self._part(batch, made, batch.reader, route))
                continue
            part: Batch | None = made
            selector = taker.selector
            if batch.acknowledged is not None and route.key in batch.acknowledged:
                part = self._unacknowledged(made, route, batch.acknowledged[route.key])
            if part is not None and selector is not None:
                if part is made:
                    look = look or Look(made, takers.regexes)
                    part = look.batch_of(selector)
                else:
                    part = Look(part, takers.regexes).batch_of(selector)
            if part is not None and taker.streams != ALL_STREAMS:
                part = part.of_streams(taker.streams)
            if begins and route.gone is None:
                self._recognise(batch, route)
            if part is not None:
                pending.setdefault(route, []).append(part)

    # --- what processors hold ---------------------------------------------------------------------------

    def holds(self, origin: Origin) -> bool:
        return self.held.holds(origin)

    def settle_at(self, source: str) -> float:
        return self.held.settle_at(source)

    def quiet(self, source: str) -> list[Batch]:
        return self.held.quiet(source)

    def needed(self, reader: Reader) -> Position:
        return self.held.needed(reader)

    def takes_over(self, reader: Reader, origin: Origin) -> None:
        self.held.takes_over(reader, origin)

    def closed(self, reader: Reader, origin: Origin) -> None:
        self.held.closed(reader, origin)

    def settle(self, reader: Reader, ahead: Reader, origin: Origin) -> list[Batch]:
        return self.held.settle(reader, ahead, origin)

    async def settle_on(self) -> None:
        """Let go of what is held of logs that nobody can read again, when they have been quiet for long."""
        while True:
            await trio.sleep(SETTLE_EVERY_S)
            ended = [batch for batch in self.held.unread_again() if not self._calls[batch.origin.source]]
            if ended:
                try:
                    await self(ended)
                except Exception as error:  # a source would be started again; this goes on
                    self._log.error("cannot let go of what processors hold", exc_info=error)

    async def _meet_late_ones(self, batches: Sequence[Batch]) -> list[Behind]:
        """Have routes that came, or take more, while we run meet the origins of these.

        Those that do not begin here are to be read for apart.
        """
        met: dict[Route, None] = {}
        behind: list[Behind] = []
        for batch in batches:
            only = batch.reader.routes if batch.reader is not None else None
            for route in self.routes_of(batch.origin):
                if route.name not in self._late or route.gone is not None:
                    continue
                if only is not None and (route.key not in only or batch.origin.key in self._met[route.name]):
                    continue
                if only is None and not self._meets_late(route, batch.origin):
                    continue
                position = self._meet_late(route, batch.origin, batch.began, batch.reader)
                if batch.origin.key in route.unstored:
                    met[route] = None
                if position is not None and batch.reader is not None:
                    behind.append(Behind(batch.reader, route.key, position, batch.origin))
        for route in met:
            await route.store()
        return behind

    async def _until_stored(self, origin: Origin) -> None:
        """Whoever cannot read a log again, for those that it is not stored for where they begin, waits."""
        while any(origin.key in route.unstored for route in self.routes_of(origin)):
            await self.wait_for_room()

    @staticmethod
    def _recognise(batch: Batch, route: Route) -> None:
        """A log begins with this batch, and was empty when the route met it: it is known which file it was.

        Else nobody could tell, after a kill before the first acknowledgement, that rotation has taken it.
        """
        known = route.state.position(batch.origin.key)
        if known is None or known.since is not None:
            return
        parts = (known.stdout, known.stderr)
        if all(part.anchor is None and not (part.place and part.place.file) for part in parts):
            route.state.note(batch.origin.key, batch.before)

    def _meets_late(self, route: Route, origin: Origin) -> bool:
        """Whether the live reader is to show the route this origin: nobody has, or reads for it apart."""
        if origin.key in self._met[route.name]:
            return False
        return route.key not in self._apart.get(origin.key, {})

    def _meet_late(
        self, route: Route, origin: Origin, here: Position, reader: Reader | None
    ) -> Position | None:
        """A route that came, or takes more, while we run meets an origin. It begins here, if this is None.

        One that has been there before begins at its checkpoint. What a reader of the whole log has not read
        now, or cannot read again, is not to be had.
        """
        position = self._place(route, origin)
        if position is None:
            kept = self._kept.get(origin.key) if route.name in self._expected else None
            position = first_position(
                route, kept or Start("", origin.start or here), here if kept is None else None
            )
            if reader is None or reader.routes is not None:
                position = here
            route.begin(origin.key, position)
        elif reader is None:
            position = here
        route.state.met(origin.key)
        former_names.take_late(route, origin)
        self._met[route.name].add(origin.key)
        if position == here:
            return None
        self.apart(origin, {route.key: position})
        return position

    async def meet_late(self, origin: Origin, here: Position) -> Mapping[str, Position]:
        apart: dict[str, Position] = {}
        for route in self.routes_of(origin):
            if route.gone is not None:
                continue
            if self.routes.get(route.name) is not route:  # taken out while another one stored
                continue
            if not self._meets_late(route, origin):
                continue
            self._late.add(route.name)
            position = self._meet_late(route, origin, here, _LIVE)
            if position is not None:
                apart[route.key] = position
            if origin.key in route.unstored:
                await route.store()
        return apart

    def _part(self, batch: Batch, made: Batch, reader: Reader, route: Route) -> Behind:
        """A route that blocks is read for apart from here on: from where what was made of this begins."""
        position = made.began
        if batch.acknowledged is not None and route.key in batch.acknowledged:
            position = self._ahead(batch, route, batch.acknowledged[route.key], position)
        self.apart(batch.origin, {route.key: position})
        return Behind(reader, route.key, position, batch.origin)

    def apart(self, origin: Origin, places: Mapping[str, Position]) -> None:
        self._apart.setdefault(origin.key, {}).update(places)

    def live_routes(self, origin: Origin) -> list[str]:
        apart = self._apart.get(origin.key, {})
        return [route.key for route in self.routes_of(origin) if route.key not in apart]

    def reads_for_somebody(self, origin: Origin, reader: Reader) -> bool:
        routes = reader.routes
        return routes is None or any(route.key in routes for route in self.routes_of(origin))

    def joined(self, origin: Origin, routes: Iterable[str]) -> None:
        apart = self._apart.get(origin.key, {})
        for route in routes:
            apart.pop(route, None)
        if not apart:
            self._apart.pop(origin.key, None)

    def _ahead(self, batch: Batch, route: Route, streams: frozenset[Stream], position: Position) -> Position:
        """This position, but where the route is already of these streams: that stays where it is."""
        key = batch.origin.key
        place = self._apart.get(key, {}).get(route.key) or self._place(route, batch.origin) or BEGINNING
        return Position(
            place.stdout if "stdout" in streams else position.stdout,
            place.stderr if "stderr" in streams else position.stderr,
        )

    def _unacknowledged(self, batch: Batch, route: Route, streams: frozenset[Stream]) -> Batch | None:
        """What the route has not acknowledged of a batch that is read for others that are further behind."""
        if streams == ALL_STREAMS:
            return None
        part = batch.of_streams(ALL_STREAMS - streams)
        return Batch(
            batch.origin,
            part.records,
            before=batch.before,
            after=self._ahead(batch, route, streams, batch.after),
            size_bytes=part.size_bytes,
            ready=True,
            settled=batch.settled,
        )

    def has_room(self, origin: Origin, reader: Reader | None = None) -> bool:
        takers = self.takers(origin)
        if takers.waited and _nobody_takes(takers):
            return False  # what was read would be let go of
        for taker in takers.all:
            route = taker.route
            if route.holds or (route.unstored and origin.key in route.unstored):
                return reader is not None and self._can_part(origin, reader)
        return True

    def _can_part(self, origin: Origin, reader: Reader) -> bool:
        """Some routes hold: whether these only block, and there are others for which reading goes on."""
        apart = self._apart.get(origin.key, ())
        others = False
        for taker in self.takers(origin).all:
            route = taker.route
            if route.key in apart if reader.routes is None else route.key not in reader.routes:
                continue
            if self._blocks(route, origin, reader):
                continue
            if route.holds:
                route.hurry()
                return False
            others = True
        return others

    @staticmethod
    def _blocks(route: Route, origin: Origin, reader: Reader) -> bool:
        """Whether nobody else shall wait for this route: it is full, or cannot store where it begins."""
        return route.blocks(reader) or (bool(route.unstored) and origin.key in route.unstored)

    async def wait_for_room(self) -> None:
        await self._room.wait()

    # --- Checkpoints ----------------------------------------------------------------------------------

    async def meet(self, starts: Mapping[Origin, Start]) -> Mapping[Origin, Mapping[str, Position]]:
        found: dict[Origin, dict[str, Position]] = {}
        changed: set[Route] = set()
        for origin, start in starts.items():
            found[origin] = {}
            self._vanished.pop(origin.key, None)
            if start.position == BEGINNING or start.position.since is not None:
                origin.start = start.position
            self._apart.pop(origin.key, None)
            self.held.forget(origin)
            takers = self.takers(origin)
            self._kept.pop(origin.key, None)
            if takers.waited and _nobody_takes(takers):
                self._kept[origin.key] = start
                found[origin][""] = BEGINNING
            taking = self.routes_of(origin)
            former_names.say_lost([each for each in self.routes.values() if each not in taking], origin)
            for route in taking:
                self._met[route.name].add(origin.key)
                route.state.met(origin.key)
                former_names.take(route, origin)
                position = self._place(route, origin)
                if position is None:
                    position = first_position(route, start)
                    route.begin(origin.key, position)
                    changed.add(route)
                found[origin][route.key] = position
        async with trio.open_nursery() as nursery:
            for route in changed:
                # One whose disk fails is read for apart, once it has stored where: nobody waits for that.
                if not route.cannot_store:
                    nursery.start_soon(route.store)
        return found

    def called(self, key: str) -> set[str]:
        known = [route.state.called(key) for route in self.routes.values()]
        return {called.name for called in known if called is not None and called.until is None}

    def renamed(self, origin: Origin, until: Position) -> None:
        # Not by `takers`: what is not handed on yet is of the name before, whose routes have met it.
        wanted = allowed(origin, [*self.routes, *self.unopened])
        taking = [
            route
            for route in self.routes.values()
            if (wanted is None or route.name in wanted) and route.settings.match.decide(origin)
        ]
        former_names.renamed(self.routes.values(), taking, origin, until)

    @staticmethod
    def _place(route: Route, origin: Origin) -> Position | None:
        """How far the route was handed the origin's records: further than the checkpoint, while some wait."""
        reached = route.queue.reached().get(origin.key)
        if reached is None:
            return route.state.position(origin.key)
        return reached if isinstance(reached, Position) else reached.position()

    def vanished(self, route: Route) -> list[str]:
        """Of which origins, that are gone, the route has something in memory, and nobody else."""
        waiting = {batch.origin.key for batch in route.queue.first_waiting()}
        return sorted(name for key, name in self._vanished.items() if key in waiting)

    def gone(self, origin: Origin) -> None:
        self.held.forget(origin)
        self._kept.pop(origin.key, None)
        self._vanished[origin.key] = origin.name or origin.file
        if len(self._vanished) >= self._look_at_vanished:
            waiting = {
                batch.origin.key for route in self.routes.values() for batch in route.queue.first_waiting()
            }
            self._vanished = {key: name for key, name in self._vanished.items() if key in waiting}
            self._look_at_vanished = MANY_VANISHED + 2 * len(self._vanished)
        for route in self.routes.values():
            route.state.gone(origin.key)
            self._met[route.name].discard(origin.key)

    def tell(self, origin: Origin, event: Event) -> None:
        if event == "renamed":
            self.talkers.renamed(origin)
        self.views.tell(News(event, origin))

    def lost(self, origin: Origin, lost: Lost) -> None:
        is_live = not lost.routes or "" in lost.routes
        keys = {*lost.routes, *(self.live_routes(origin) if is_live else ())}
        routes = [route for route in self.routes.values() if route.key in keys]
        if not routes and not is_live:
            return  # removed meanwhile: one that goes on for them finds out by itself
        for route in routes:
            route.lost.setdefault(lost.reason, Gaps()).add(lost.since, lost.until, lost.size_bytes)
        known = {"since": lost.since, "until": lost.until, "bytes": lost.size_bytes}
        self._log.error(
            "records are lost: they were gone before they could be read",
            container=origin.name or origin.file,
            routes=[route.name for route in routes],
            reason=lost.reason,
            **{name: value for name, value in known.items() if value not in ("", None)},
        )


def _nobody_takes(takers: Takers) -> bool:
    """Nobody who has not ended."""
    return all(taker.route.gone is not None for taker in takers.all)


def _takers(generation: int, found: list[Taker], *, waited: bool) -> Takers:
    regexes = {regex for taker in found if taker.selector is not None for regex in taker.selector.regexes()}
    whole = any(taker.selector is None and taker.streams == ALL_STREAMS for taker in found)
    return Takers(generation, found, RegexSet(regexes) if regexes else None, whole, waited)


def _taken_by_any(takers: Iterable[Taker], look: Look) -> int:
    """The mask of the records that at least one of them takes."""
    mask = 0
    for taker in takers:
        taken = look.of_streams(taker.streams)
        if taken and taker.selector is not None:
            taken &= look.taken_by(taker.selector)
        mask |= taken
    return mask
