from __future__ import annotations

import pytest
import trio

from tests.router.stand_ins import inline


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would run in a thread runs at once, so that the mock clock and the state agree about the time."""
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)
