"""What `fsync` in a configuration means to the files in `state_dir`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from logroute.config.load import load_config
from logroute.config.plans import make_plan
from logroute.router.daemon import Daemon
from logroute.router.state import RouteState

NORMAL, FULL = 1, 2
"""What `pragma synchronous` answers: a commit survives kill -9, or power loss too."""


@asynccontextmanager
async def states(folder: Path, routes: dict[str, Any]) -> AsyncIterator[dict[str, RouteState]]:
    """A daemon with these routes has started: their states."""
    config = {
        "sources": {"logs": {"type": "file", "paths": [str(folder / "none.log")], "format": "text"}},
        "routes": routes,
    }
    path = folder / "logroute.yaml"
    path.write_text(json.dumps(config))
    daemon = Daemon(make_plan(load_config(path).config, folder / "state"))
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run)
        yield {name: route.state for name, route in daemon.router.routes.items()}
        daemon.stop()


def synchronous(state: RouteState) -> int:
    assert state._database is not None
    (answer,) = state._database.execute("pragma synchronous").fetchone()
    return int(answer)


async def test_a_route_waits_for_the_disk_only_if_its_queue_or_its_sink_says_so(tmp_path: Path) -> None:
    file = {"type": "file", "path": f"{tmp_path}/out.ndjson"}
    routes = {
        "usual": {"sink": "null:"},
        "queue": {"sink": "null:", "queue": {"fsync": True}},
        "sink": {"sink": {**file, "fsync": True}},
        "neither": {"sink": {**file, "path": f"{tmp_path}/other.ndjson"}, "queue": {"fsync": False}},
    }
    async with states(tmp_path, routes) as found:
        assert {name: synchronous(state) for name, state in found.items()} == {
            "usual": NORMAL,
            "queue": FULL,
            "sink": FULL,
            "neither": NORMAL,
        }


@pytest.mark.parametrize(("before", "after"), [(False, True), (True, False)])
async def test_a_file_that_was_kept_otherwise_is_kept_as_the_configuration_says_now(
    tmp_path: Path, before: bool, after: bool
) -> None:
    """It is a property of the connection, and must come from the configuration with each start."""
    for fsync in (before, after):
        routes = {"all": {"sink": "null:", "queue": {"fsync": fsync}}}
        async with states(tmp_path, routes) as found:
            assert synchronous(found["all"]) == (FULL if fsync else NORMAL)
