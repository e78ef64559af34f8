"""A daemon in this process whose API is asked over its real socket."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import structlog
import trio

from logroute.api.address import Address
from logroute.api.server import ApiServer
from logroute.config.hidden import Hidden
from logroute.router.chain import StagePlan
from logroute.router.daemon import Daemon
from logroute.router.plan import Plan, RoutePlan, SourcePlan
from logroute.router.record import Batch
from logroute.router.route import Route, RouteSettings
from logroute.sinks import Outcome, Rejected
from tests.router.stand_ins import StandInSink, StandInSource, origin

MakeSink = Callable[[Route], StandInSink]


class Picky(StandInSink):
    """Rejects the numbers that it dislikes."""

    dislikes: frozenset[str] = frozenset()

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        bad = [(i, r) for i, each in enumerate(batches) for r in each.records if r.message in self.dislikes]
        kept = [
            each.with_records([r for r in each.records if r.message not in self.dislikes]) for each in batches
        ]
        await super().deliver(kept)
        return Outcome([Rejected(index, record, f"cannot take {record.message}") for index, record in bad])


def picky(*dislikes: int) -> MakeSink:
    def make(route: Route) -> StandInSink:
        sink = Picky(route)
        sink.dislikes = frozenset(map(str, dislikes))
        return sink

    return make


def client_of(address: Address, **more: Any) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=address.path or None)
    host = "localhost" if address.path else str(address)
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}", trust_env=False, **more)


@asynccontextmanager
async def daemon_with(
    folder: Path | None,
    sinks: dict[str, MakeSink],
    numbers: Sequence[int] = (),
    *,
    address: Address,
    token: str = "",
    required: bool = True,
    processors: Sequence[StagePlan] = (),
    hidden: Sequence[tuple[str, str]] = (),
    **settings: Any,
) -> AsyncIterator[Daemon]:
    """It has started, and is stopped at the end."""
    web = origin("web")  # each daemon its own: a router remembers on it which routes take it
    plan = Plan(
        [RoutePlan(RouteSettings(name, **settings), make) for name, make in sinks.items()],
        [SourcePlan("stand-in", lambda: StandInSource({web: numbers}))],
        folder,
        grace_s=0.1,
        make_api=lambda daemon: ApiServer(daemon, address, token=token, required=required),
        processors=processors,
        hidden=Hidden(hidden),
    )
    daemon = Daemon(plan)
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run)
        try:
            yield daemon
        finally:
            daemon.stop()


@contextmanager
def without_log() -> Iterator[None]:
    """What the daemon says meanwhile would stand among what a command prints: both are in one process."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


async def until(holds: Callable[[], bool]) -> None:
    """Look until it holds: real sockets and threads have no mock clock."""
    with trio.fail_after(20):
        while not holds():  # noqa: ASYNC110  # what is waited for has no event
            await trio.sleep(0.005)
