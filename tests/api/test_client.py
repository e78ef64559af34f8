"""What commands ask a daemon."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from logroute.api import client
from logroute.api.client import NoDaemon, find_address


@pytest.fixture
def full(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket whose queue of connections is full."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(tmp_path / "l.sock"))
        listening.listen(0)
        for _ in range(100):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            try:
                waiting.connect(str(tmp_path / "l.sock"))
            except BlockingIOError:
                break
        yield listening


def test_a_daemon_that_accepts_nothing_is_not_waited_for(
    full: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "KNOCK_WITHIN_S", 0.2)
    said: list[Exception] = []

    def knock() -> None:
        try:
            find_address(f"unix://{full.getsockname()}")
        except NoDaemon as error:
            said.append(error)

    knocking = threading.Thread(target=knock, daemon=True)
    knocking.start()
    knocking.join(5)
    assert "accepts no connection" in str(said)


def test_a_daemon_that_is_slow_to_accept_is_there(full: socket.socket) -> None:
    def accept() -> None:
        time.sleep(0.2)
        full.accept()[0].close()

    accepting = threading.Thread(target=accept)
    accepting.start()
    find_address(f"unix://{full.getsockname()}")
    accepting.join()
