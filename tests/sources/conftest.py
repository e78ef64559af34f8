"""What the tests of sources share."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from logroute.sources.inotify import NAMES
from logroute.sources.sweep import POLL_S, Sweep
from tests.router.stand_ins import inline


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would run in a thread runs at once; names are looked at by polling, as the clock says."""
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)
    instance = Sweep._instance

    def only_content(self: Sweep, mask: int) -> Any:
        return None if mask == NAMES else instance(self, mask)

    monkeypatch.setattr(Sweep, "_instance", only_content)
    monkeypatch.setattr("logroute.sources.sweep.POLL_ALONE_S", POLL_S)
