from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from logroute.router import load
from tests.router.stand_ins import inline


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would run in a thread runs at once, so that the mock clock and the state agree about the time.

    And the kernel's account of who computes, in the machine's time, says nothing of the mock clock's.
    """
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)
    monkeypatch.setattr(load, "busy_s", lambda: 0.0)


@pytest.fixture(autouse=True)
def _close_databases(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tests that only look at a route open its state and never run it to its end."""
    connect = sqlite3.connect
    opened: list[sqlite3.Connection] = []

    def note(*args: Any, **more: Any) -> sqlite3.Connection:
        opened.append(connect(*args, **more))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", note)
    yield
    for database in opened:
        database.close()
