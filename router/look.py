"""Looking: what was said before, then what is said now, without a gap and nothing twice.

For the API, and for `logroute tail` where there is no daemon.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import msgspec

from logroute.router.chain import Chains, Memo
from logroute.router.history import Seam, reading
from logroute.router.match import EVERYTHING, Match
from logroute.router.position import BEGINNING
from logroute.router.record import Batch, Origin, settling
from logroute.router.selection import Chooser
from logroute.router.views import HISTORY_SHARE, Item
from logroute.sources import History, Past

if TYPE_CHECKING:
    from logroute.router.daemon import Daemon
    from logroute.router.router import Router


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
    views = daemon.router.views
    with _live(daemon, query, live) as now:
        seam = Seam()
        if query.past is not None:
            way = _Way(daemon, query)
            async with reading(way.histories(), query.past) as groups:
                async for batches in groups:
                    with views.working(HISTORY_SHARE):
                        shown = [made for batch in batches if (made := await way.through(batch)).lines]
                        if query.follow:
                            for batch in shown:
                                seam.shown(batch)
                    if shown:
                        await show(shown)
                    if live is None:
                        await views.rest()
            if rest := await way.rest(daemon.router):
                for batch in rest if query.follow else ():
                    seam.shown(batch)
                await show(rest)
            if query.past.problems:
                await show([Problem(origin, reason) for origin, reason in query.past.problems])
        seam.over()
        while now is not None:
            items: list[Shown] = []
            for item in await now.receive():
                if isinstance(item, Batch):
                    item = seam.new(item)
                    if not item.lines:
                        continue
                items.append(item)
            if items:
                await show(items)
            if live is None:
                await views.rest()


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

    def histories(self) -> list[History]:
        """The logs that are wanted."""
        return [
            history
            for source in self._daemon.sources.running.values()
            for history in source.histories()
            if (history.running or self._query.ended) and self._takes(history.origin)
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
        return [batch for batch in made if batch.lines]

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
