"""What the tests of sources share."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from logroute.sources.inotify import NAMES
from logroute.sources.watched_folders import POLL_S, WatchedFolders
from tests.router.stand_ins import inline


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would run in a thread runs at once; names are looked at by polling, as the clock says."""
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)
    instance = WatchedFolders._instance

    def only_content(self: WatchedFolders, mask: int) -> Any:
        return None if mask == NAMES else instance(self, mask)

    monkeypatch.setattr(WatchedFolders, "_instance", only_content)
    monkeypatch.setattr("logroute.sources.watched_folders.POLL_ALONE_S", POLL_S)
