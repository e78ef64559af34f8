"""Names that are looked up apart: one that is not answered holds up nobody else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from logroute.router.names import THREADS, Names, look_names_up_apart
from tests.router.test_daemon import Run

ADDRESS = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 514))]


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A name server that does not answer for `silent.test`; whoever has asked for that."""
    asked: list[str] = []
    answer = threading.Event()

    def getaddrinfo(host: Any, *_: Any, **__: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            raise socket.gaierror(socket.EAI_NONAME, "no number")
        if b"silent" in host:
            asked.append(host.decode())
            answer.wait(20)
        return ADDRESS

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield asked
    answer.set()


async def test_a_name_that_is_not_answered_takes_no_thread_from_anybody_else(silent: list[str]) -> None:
    look_names_up_apart()
    for _ in range(THREADS + 3):
        with trio.move_on_after(0.05) as waited:
            await trio.socket.getaddrinfo("silent.test", 514)
        assert waited.cancelled_caught
    assert len(silent) == THREADS
    assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
    with trio.fail_after(10):
        assert await trio.socket.getaddrinfo("logs.test", 514) == ADDRESS


async def test_a_daemon_looks_names_up_so(silent: list[str], autojump_clock: trio.testing.MockClock) -> None:
    await Run(once=True).run()
    found = trio.socket.set_custom_hostname_resolver(None)
    assert isinstance(found, Names)


async def test_who_looks_names_up_in_another_way_still_does() -> None:
    class Other(Names): ...

    other = Other()
    trio.socket.set_custom_hostname_resolver(other)
    look_names_up_apart()
    assert trio.socket.set_custom_hostname_resolver(None) is other
