"""What the end of a daemon costs: what is not delivered then, where it is, and the exit code.

Exit codes are INTERFACE's: 0 nothing lost, 1 it could not start, 3 stopped with records that are neither
delivered nor durable, or that a receiver without acknowledgements may not have read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

import structlog

from logroute.router.route import Route
from logroute.router.router import Router
from logroute.router.running_sources import RunningSources
from logroute.router.times import full_time
from logroute.sources import Waiting

DONE = 0
FAILED = 1
UNDELIVERED = 3


class Ending:
    """Reckons once everything has ended."""

    def __init__(self, router: Router, sources: RunningSources, *, once: bool, durable: bool) -> None:
        """`durable`: there is a state_dir."""
        self._router = router
        self._sources = sources
        self._once = once
        self._durable = durable
        self.undelivered: dict[str, int] = {}
        """What routes that were taken out could not deliver, in records."""
        self._gaps_before: dict[str, int] = {}
        """How many gaps each route had when we began to end: what is lost by that comes on top."""
        self._unconfirmed_before: dict[str, int] = {}
        """Likewise, how many records that were delivered may be lost."""
        self._log = structlog.get_logger("logroute")

    def begins(self) -> None:
        """What is lost from now on is lost by the end."""
        self._gaps_before = {route.name: _gaps(route) for route in self._routes}
        self._unconfirmed_before = {route.name: route.statistics().unconfirmed for route in self._routes}

    @property
    def _routes(self) -> Iterable[Route]:
        return self._router.routes.values()

    async def exit_code(self) -> int:
        """Says what is not delivered, and what of that is lost."""
        left = dict(self.undelivered)
        for route in self._routes:
            if route.undelivered:
                left[route.name] = left.get(route.name, 0) + route.undelivered
        unconfirmed = {route.name: n for route in self._routes if (n := route.statistics().unconfirmed)}
        if self._once:
            return self._code_of_once(left, unconfirmed)
        code = UNDELIVERED if self._may_lose(unconfirmed) else DONE
        letters = {route.name: n for route in self._routes if (n := route.statistics().dead_letters)}
        if not self._durable and (left or letters):
            self._log.error(
                "ended with records that are not delivered, and no state_dir",
                records=left,
                dead_letters=letters,
            )
            return UNDELIVERED
        waiting = self._first_waiting() if left else []
        gone = _by_route(await self._sources.unfound(waiting)) if waiting else {}
        renamed = _by_route(self._renamed(waiting))
        gaps = {
            route.name: gaps
            for route in self._routes
            if (gaps := _gaps(route) - self._gaps_before.get(route.name, 0)) > 0
        }
        removed = {route.name: names for route in self._routes if (names := self._router.vanished(route))}
        if gaps or gone or removed or renamed:
            self._log.error(
                "ended with records that are not delivered and nowhere else: their logs are gone, or go on "
                "under other names, and the spool has no room, or there is none",
                gaps=gaps,
                records=left,
                removed_containers=removed,
                rotated_away=gone,
                renamed_containers=renamed,
            )
            return UNDELIVERED
        if left:
            self._log.info("what is not delivered is spooled, or behind the checkpoints", records=left)
        return code

    def _first_waiting(self) -> list[Waiting]:
        """The first record of each origin that waits in the memory of a route."""
        return [
            Waiting(route.name, batch.origin, batch.began, first.logged or full_time(first.time))
            for route in self._routes
            for batch in route.queue.first_waiting()
            for first in batch.lines[:1]
        ]

    def _renamed(self, waiting: Sequence[Waiting]) -> list[Waiting]:
        """What a route is behind with that takes a container only as it was called then: nobody will know of
        that name when it is read again."""
        now = {known.origin.key: known.origin for known in self._sources.known()} if waiting else {}
        return [
            each
            for each in waiting
            if (origin := now.get(each.origin.key)) is not None
            and origin.name != each.origin.name
            and each.route not in {route.name for route in self._router.routes_of(origin)}
        ]

    def _code_of_once(self, left: Mapping[str, int], unconfirmed: Mapping[str, int]) -> int:
        lost = {route.name: _gaps(route) for route in self._routes if route.lost}
        rejected = {route.name: n for route in self._routes if (n := route.statistics().rejected)}
        dropped = {route.name: n for route in self._routes if (n := sum(route.statistics().dropped.values()))}
        if left or lost or rejected or dropped or unconfirmed or self._sources.unfinished:
            self._log.error(
                "not every record was acknowledged",
                undelivered=left,
                rejected=rejected,
                dropped=dropped,
                unconfirmed=unconfirmed,
                lost=lost,
                unfinished_sources=len(self._sources.unfinished),
            )
            return UNDELIVERED
        return DONE

    def _may_lose(self, unconfirmed: Mapping[str, int]) -> bool:
        """Say which routes have delivered records that may be lost; whether our end has added to them.

        What was before, perhaps months ago, was said then.
        """
        while_ending = {
            name: more
            for name, records in unconfirmed.items()
            if (more := records - self._unconfirmed_before.get(name, 0)) > 0
        }
        if unconfirmed:
            self._log.log(
                logging.ERROR if while_ending else logging.WARNING,
                "ended, and records of this run may be lost: receivers may not have read what they had taken",
                unconfirmed=unconfirmed,
                while_ending=while_ending,
            )
        return bool(while_ending)


def _by_route(waiting: Iterable[Waiting]) -> dict[str, list[str]]:
    """The names of the containers, or files, by route."""
    found: dict[str, list[str]] = {}
    for each in waiting:
        found.setdefault(each.route, []).append(each.origin.name or each.origin.file)
    return {route: sorted(names) for route, names in found.items()}


def _gaps(route: Route) -> int:
    return sum(gaps.gaps for gaps in route.lost.values())
