"""What a run draws from its seed."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from tests.oracle.run import DISKS, ROUTES, WHEN_FULL, Oracle, Order


def test_seeds_draw_every_way_to_wait_but_for_the_route_that_nothing_hinders(tmp_path: Path) -> None:
    drawn: set[tuple[str, ...]] = set()
    for seed in range(60):
        said: list[str] = []
        oracle = Oracle(Order(seed, 1.0, (), ROUTES, 1.0, tmp_path), said.append)
        alone: list[str] = []
        Oracle(Order(seed, 1.0, (), ("web",), 1.0, tmp_path), alone.append)
        assert alone == [line for line in said if line.startswith("web")]
        routes = {line.split(":")[0]: line.split(": ")[1] for line in said}
        assert routes["steady"].startswith("disk 1GiB, block")
        assert not oracle.history.routes["steady"].sheds
        drawn.update((name, *text.replace("disk ", "").split(", ")[:2]) for name, text in routes.items())
    for name, disk, when_full in product(set(ROUTES) - {"steady"}, DISKS, WHEN_FULL):
        assert (name, disk, when_full) in drawn
