"""Routes that are made by API, and pauses: kept for the next start, and gone over to as a reload is.

Owns what is remembered of them, in `state.db` (`own_state.py`), and why some of them are not used. A change
is stored first; if the daemon cannot go over to it, that is taken back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
import trio

from logroute.router.circles import circles
from logroute.router.own_state import OwnState, Remembered
from logroute.router.plan import CannotReload, Plan, RoutePlan, RouteRefused, SourcePlan
from logroute.router.route import Route
from logroute.sinks.one_writer import collisions

if TYPE_CHECKING:
    from logroute.router.daemon import Daemon

Check = Callable[[RoutePlan | None], None]


def _no_check(_: RoutePlan | None) -> None: ...


def _check_circle(made: RoutePlan, sources: Sequence[SourcePlan]) -> None:
    """Raises RouteRefused where it would be given again what it writes."""
    readers = [(each.name, each.reads) for each in sources]
    found = list(circles(readers, [(made.settings.name, made.settings.match, made.options)]))
    if found:
        raise RouteRefused([(f"sink.{each.option}", str(each)) for each in found])


def _check_place(made: RoutePlan, others: Sequence[RoutePlan], sources: Sequence[SourcePlan]) -> None:
    """Raises RouteRefused where another route certainly writes to the same place, or a source reads there."""
    _check_circle(made, sources)
    routes = [(each.settings.name, each.settings.match, each.options) for each in (*others, made)]
    found = [each for each in collisions(routes) if each.route == made.settings.name]
    if found:
        raise RouteRefused([(f"sink.{each.option}", str(each)) for each in found])


class MadeRoutes:
    """Those of one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._own = OwnState(daemon.plan.state_dir)
        self._remembered = Remembered()
        self.refused: dict[str, str] = {}
        """Those that cannot be used now, and why."""
        self._log = structlog.get_logger("logroute")

    @property
    def stored(self) -> bool:
        """Whether they are there again after a restart."""
        return self._own.stores

    @property
    def paused(self) -> Mapping[str, float]:
        """Routes that deliver nothing now, and since when: seconds since the epoch."""
        return self._remembered.paused

    async def load(self) -> None:
        """Raises StateError."""
        self._remembered, wrong = await trio.to_thread.run_sync(self._own.load)
        if wrong:
            self._log.error("what was made by API is lost", reason=wrong)

    def added_to(self, plan: Plan) -> Plan:
        """The configuration's plan, and the routes that were made by API: the file has the last word."""
        there = {each.settings.name for each in plan.routes}
        self.refused = {}
        made: list[RoutePlan] = []
        for name, body in self._remembered.routes.items():
            if name in there:
                self.refused[name] = "the configuration has a route of this name, which is used instead"
            elif plan.make_route is None:
                self.refused[name] = "this daemon makes no routes"
            else:
                try:
                    route = plan.make_route(name, body)
                    _check_circle(route, plan.sources)
                    made.append(route)
                except RouteRefused as error:
                    self.refused[name] = str(error)
        for name, reason in self.refused.items():
            self._log.error("a route that was made by API is not used", route=name, reason=reason)
        return msgspec.structs.replace(plan, routes=[*plan.routes, *made])

    @contextmanager
    def as_before_on_failure(self) -> Iterator[None]:
        """Where a plan that they were added to cannot be gone over to, what is refused is what was before."""
        refused = self.refused
        try:
            yield
        except BaseException:
            self.refused = refused
            raise

    async def set(self, name: str, body: Any, check: Check = _no_check) -> bool:
        """Have this route from now on: stored and running when this returns. Whether it is new.

        `check` is given the route that there is, when nobody else can change it any more, and may raise.
        Raises RouteRefused, CannotReload, StateError; then nothing has changed.
        """
        daemon = self._daemon
        make = daemon.plan.make_route
        if make is None:
            raise CannotReload("this daemon makes no routes")
        made = make(name, body)
        async with daemon.changing():
            known = daemon.planned(name)
            check(known)
            others = [each for each in daemon.plan.routes if each.settings.name != name]
            _check_place(made, others, daemon.plan.sources)
            if known is not None and known.by_api and known.body == body:
                return False
            before = self._remembered.routes.get(name)
            await trio.to_thread.run_sync(self._own.set_route, name, body)
            self._remembered.routes[name] = body
            try:
                await daemon.go_over(msgspec.structs.replace(daemon.plan, routes=[*others, made]))
            except BaseException:
                with trio.CancelScope(shield=True):
                    await self._take_back(name, before)
                raise
            return known is None

    async def _take_back(self, name: str, before: Any) -> None:
        if before is None:
            del self._remembered.routes[name]
            await trio.to_thread.run_sync(self._own.remove_route, name)
        else:
            self._remembered.routes[name] = before
            await trio.to_thread.run_sync(self._own.set_route, name, before)

    async def remove(self, name: str, *, drop: bool, check: Check = _no_check) -> int:
        """Have one no longer; how many records it had that were not delivered.

        They are delivered within the grace period, and what is left stays in its spool, for one that is made
        with its name. With `drop` they are dropped with the spool. A pause ends with the route that it was
        for. Raises CannotReload, StateError; then nothing has changed.
        """
        daemon = self._daemon
        async with daemon.changing():
            planned = daemon.planned(name)
            check(planned)
            await trio.to_thread.run_sync(self._own.remove_route, name)
            before = self._remembered.routes.pop(name, None)
            if planned is not None and not planned.by_api:  # the name is the file's: ours was never used
                self.refused.pop(name, None)
                return 0
            route = daemon.router.routes.get(name) or daemon.router.unopened.get(name)
            left = route.undelivered if route is not None else 0
            if drop and route is not None:
                route.abandoned = True
            rest = [each for each in daemon.plan.routes if each.settings.name != name]
            try:
                await daemon.go_over(msgspec.structs.replace(daemon.plan, routes=rest))
            except BaseException:
                there = (
                    daemon.planned(name) is not None
                )  # else it went wrong when this one was removed already
                if route is not None and there:
                    route.abandoned = False
                if before is not None and (route is None or there):
                    with trio.CancelScope(shield=True):
                        await self._take_back(name, before)
                raise
            self.refused.pop(name, None)
            if self._remembered.paused.pop(name, None) is not None:
                await trio.to_thread.run_sync(self._own.set_paused, name, None)
            return left

    async def pause(self, name: str) -> None:
        """Deliver nothing of this route until it is resumed, also after a restart. Raises StateError."""
        paused = self._remembered.paused
        if name not in paused:
            since = time.time()
            await trio.to_thread.run_sync(self._own.set_paused, name, since)
            paused[name] = since
            self._log.info("a route is paused", route=name)
        for route in self._called(name):
            route.pause(paused[name])

    async def resume(self, name: str) -> None:
        """Go on with it. Raises StateError."""
        await trio.to_thread.run_sync(self._own.set_paused, name, None)
        if self._remembered.paused.pop(name, None) is not None:
            self._log.info("a route is resumed", route=name)
        for route in self._called(name):
            route.resume()

    def _called(self, name: str) -> list[Route]:
        daemon = self._daemon
        return [routes[name] for routes in (daemon.router.routes, daemon.router.unopened) if name in routes]
