"""`limits.memory`: what all routes hold together, measured while their receivers hang."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from logroute.router.daemon import Daemon
from logroute.router.plan import Plan, RoutePlan, SourcePlan
from logroute.router.queue import BATCH_OVERHEAD_BYTES
from logroute.router.route import Route, RouteSettings
from logroute.sources import Checkpoints, Emit, Start
from tests.router.stand_ins import CREATED, StandInSink, StandInSource, batch, origin

ROUTES = 6
LIMIT_BYTES = 600_000
LARGEST_BYTES = 20_000


@pytest.fixture(autouse=True)
def _no_threads(no_threads: None) -> None: ...


def held_bytes(route: Route) -> int:
    """What waits in memory, and what is being delivered."""
    flying = [batch for group in route.queue._in_flight if not group.finished for batch in group.batches]
    return route.queue.memory_bytes + sum(batch.size_bytes + BATCH_OVERHEAD_BYTES for batch in flying)


class Pouring(StandInSource):
    """Emits batches of any size as long as there is room, or nobody asks for it; measures after each."""

    def __init__(self, world: World, seed: int) -> None:
        super().__init__({origin(): []})
        self._world = world
        self._chance = random.Random(seed)

    async def run(
        self,
        emit: Emit,
        checkpoints: Checkpoints,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        (web,) = self.logs
        await checkpoints.meet({web: Start(CREATED, self.start)})
        task_status.started()
        for number in range(1, 400):
            # What is spooled makes room, what blocks does not.
            with trio.move_on_after(1) as waited:
                while not emit.has_room(web):
                    await emit.wait_for_room()
            if waited.cancelled_caught:
                break
            await emit([batch(web, [number], size_bytes=self._chance.randrange(1, LARGEST_BYTES))])
            self._world.measure()
            if self._chance.random() < 0.1:
                await trio.sleep(self._chance.random())
                self._world.measure()
        await trio.sleep_forever()


class World:
    """A daemon whose receivers all hang."""

    def __init__(self, folder: Path | None, when_full: Any, seed: int) -> None:
        settings = {"when_full": when_full, "disk_bytes": 1 << 30 if folder else 0, "deadline_s": 7.0}
        plans = [
            RoutePlan(RouteSettings(f"r{number}", **settings), partial(self._sink, seed))
            for number in range(ROUTES)
        ]
        source = SourcePlan("pouring", lambda: Pouring(self, seed))
        self.daemon = Daemon(Plan(plans, [source], state_dir=folder, memory_bytes=LIMIT_BYTES, grace_s=1.0))
        self.most_bytes = 0
        self.received = 0

    @staticmethod
    def _sink(seed: int, route: Route) -> StandInSink:
        return StandInSink(route, [1e9] * 1000)

    def measure(self) -> None:
        routes = self.daemon.router.routes.values()
        self.most_bytes = max(self.most_bytes, sum(map(held_bytes, routes)))
        self.received = max(self.received, *(route.statistics().received for route in routes))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("when_full", ["block", "drop_oldest", "drop_newest"])
@pytest.mark.parametrize("disk", [False, True], ids=["memory", "disk"])
async def test_all_routes_together_hold_no_more_than_the_limit_and_a_batch_each(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, disk: bool, when_full: str, seed: int
) -> None:
    world = World(tmp_path if disk else None, when_full, seed)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.daemon.run)
        for _ in range(300):
            await trio.sleep(0.5)
            world.measure()
        world.daemon.stop()
    # One batch more in each queue, and one in each delivery.
    more_bytes = 2 * ROUTES * (LARGEST_BYTES + BATCH_OVERHEAD_BYTES)
    assert LIMIT_BYTES / 2 < world.most_bytes <= LIMIT_BYTES + more_bytes
    assert world.received * LARGEST_BYTES / 2 > LIMIT_BYTES / ROUTES / 4
