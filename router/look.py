"""Looking: what was said before, then what is said now, without a gap and nothing twice.

For the API, and for `logroute tail` where there is no daemon.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import msgspec

from logroute.router.chain import Chains, Memo
from logroute.router.history import reading
from logroute.router.match import EVERYTHING, Match
from logroute.router.position import BEGINNING
from logroute.router.record import Batch, Origin, Record, settling
from logroute.router.seam import Seam
from logroute.router.selection import Chooser
from logroute.router.views import HISTORY_SHARE, Item, View
from logroute.sources import History, Past, ReadTo

if TYPE_CHECKING:
    from logroute.router.daemon import Daemon
    from logroute.router.router import Router


PASSES = 10
"""So often what was said while the past was read is read as a part of it. Of what comes faster than it can be
read some is skipped in the end, and that is told."""


NOTHING_READ = ReadTo(Record("", "stdout", ""), BEGINNING)


class Query(msgspec.Struct, frozen=True):
    """What somebody wants to see."""

    match: Match = EVERYTHING
    route: str | None = None
    """What this route's sink is given; None: what the daemon sees."""
    past: Past | None = None
    """What was before; None: nothing of that."""
    follow: bool = False
    """And what comes."""
    news: bool = False
    """What becomes of containers, too."""
    ended: bool = False
    """Also of containers that do not run."""


class Problem(msgspec.Struct, frozen=True):
    """A log of which what was before cannot be read."""

    origin: Origin
    reason: str


Shown = Item | Problem


class Live(Protocol):
    """Where what is said now comes from. A view is one."""

    async def receive(self) -> list[Item]:
        """What has come; waits for some."""


Show = Callable[[Sequence[Shown]], Awaitable[None]]


async def look(daemon: Daemon, query: Query, show: Show, live: Live | None = None) -> None:
    """Show it, in groups, until it ends. With `live` that is where what is said now comes from.

    `show` may take its time: what is being delivered does not wait for it. Raises what `show` raises.
    """
    looking = _Looking(daemon, query, show, live)
    for _ in range(PASSES - 1):
        with _live(daemon, query, live) as now:
            await looking.read_past()
            if not isinstance(now, View) or not now.overrun:
                await looking.end_past()
                await looking.follow(now)
                return
            # While it was read, more was said than a view holds: that is read as well.
            await looking.go_on(now)
    with _live(daemon, query, live) as now:
        await looking.read_past()
        await looking.end_past()
        await looking.follow(now)


class _Looking:
    """One who looks."""

    def __init__(self, daemon: Daemon, query: Query, show: Show, live: Live | None) -> None:
        self._daemon = daemon
        self._query = query
        self._show = show
        self._views = daemon.router.views
        self._is_view = live is None
        self._past = query.past
        self._way = _Way(daemon, query)
        self._seam = Seam()
        self._asked: set[str] = set()
        """Logs, by their origins' keys, of which the past was read, or begun to be."""

    async def read_past(self) -> None:
        """What was said before, to where each log ends now."""
        past, seam, follow = self._past, self._seam, self._query.follow
        if past is None:
            return
        unread = {origin.key for origin, _ in past.problems}
        histories = [each for each in self._way.histories(self._asked) if each.origin.key not in unread]
        self._asked |= {each.origin.key for each in histories}
        async with reading(histories, past) as groups:
            async for batches in groups:
                shown: list[Shown] = []
                with self._views.working(HISTORY_SHARE):
                    for batch in batches:
                        if follow:
                            seam.read(batch)
                        if len(made := await self._way.through(batch)):
                            shown.append(made)
                            if follow:
                                seam.shown(made)
                if shown:
                    await self._show(shown)
                if self._is_view:
                    await self._views.rest()

    async def go_on(self, now: View) -> None:
        """The next part of the past begins where this one ended. Of what is live only the news are used."""
        if news := now.take_news():
            await self._show(news)
        past = self._past
        if past is not None:
            # Of a log that has had nothing yet all that comes is wanted, of a new one what is asked for.
            behind = dict.fromkeys(self._asked, NOTHING_READ) | self._seam.read_to()
            self._past = Past(since=past.since, last=past.last, behind=behind, problems=past.problems)

    async def end_past(self) -> None:
        """What processors held of it, and what could not be read."""
        if self._past is None:
            return
        if rest := await self._way.rest(self._daemon.router):
            for batch in rest if self._query.follow else ():
                self._seam.shown(batch)
            await self._show(rest)
        if self._past.problems:
            await self._show([Problem(origin, reason) for origin, reason in self._past.problems])

    async def follow(self, now: Live | None) -> None:
        """What is said now."""
        while now is not None:
            items: list[Shown] = []
            for item in await now.receive():
                if isinstance(item, Batch):
                    item = self._seam.new(item)
                    if not len(item):
                        continue
                items.append(item)
            if items:
                await self._show(items)
            if self._is_view:
                await self._views.rest()


@contextmanager
def _live(daemon: Daemon, query: Query, live: Live | None) -> Iterator[Live | None]:
    if live is not None or not query.follow:
        yield live if query.follow else None
        return
    with daemon.router.views.open(query.match, query.route, news=query.news) as view:
        yield view


class _Way:
    """What records pass before they are seen: the same as in the daemon, with a memory of its own."""

    def __init__(self, daemon: Daemon, query: Query) -> None:
        self._daemon = daemon
        self._query = query
        routes = {}
        self._of_route: Chooser | None = None
        if query.route is not None:
            plan = daemon.route_plans[query.route]
            routes = {query.route: (plan.settings.match, plan.processors)}
            self._of_route = Chooser(plan.settings.match)
        self._chains = Chains(daemon.plan.processors, routes)
        self._chooser = Chooser(query.match)
        self._held: dict[str, Origin] = {}
        """Logs of which something may be held."""

    def histories(self, asked: Collection[str]) -> list[History]:
        """The logs that are wanted; those that were asked before also if nothing more comes of them."""
        return [
            history
            for source in self._daemon.sources.running.values()
            for history in source.histories()
            if (history.running or self._query.ended or history.origin.key in asked)
            and self._takes(history.origin)
        ]

    def _takes(self, origin: Origin) -> bool:
        if not self._chooser.takes(origin):
            return False
        route = self._query.route
        return route is None or any(each.name == route for each in self._daemon.router.routes_of(origin))

    async def rest(self, router: Router) -> list[Batch]:
        """What processors hold at the end; where the router holds something of a log, that comes yet."""
        ended = [origin for origin in self._held.values() if not router.holds(origin)]
        made = [await self.through(settling(origin, BEGINNING, None)) for origin in ended]
        return [batch for batch in made if len(batch)]

    async def through(self, batch: Batch) -> Batch:
        memo: Memo = {}
        if self._chains.before:
            batch = await self._chains.before.apply(batch, memo)
            if self._chains.holding:
                self._held[batch.origin.key] = batch.origin
        if self._of_route is not None:
            batch = self._of_route.batch_of(batch)
            if chain := self._chains.of_routes.get(self._query.route or ""):
                batch = await chain.apply(batch, memo)
        return self._chooser.batch_of(batch)
