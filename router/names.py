"""Names of hosts, looked up in threads of their own.

The system's resolver may take minutes where a name server does not answer, and who has stopped waiting leaves
its thread behind. trio's own way takes all of them from the forty that everything shares: with a name that
is tried again and again, all else that needs a thread would wait in the end (compressing, the routes' state).
"""

from __future__ import annotations

import socket
from typing import Any
from weakref import WeakValueDictionary

import trio

THREADS = 4
"""So many look for one name at a time. Whoever comes then waits, within the deadline that connecting has."""


class Names(trio.abc.HostnameResolver):
    """Each name has its own few threads, so that one that is not answered holds up no other."""

    def __init__(self) -> None:
        self._threads: WeakValueDictionary[Any, trio.CapacityLimiter] = WeakValueDictionary()
        """As long as they are used, those that were left behind included."""

    async def getaddrinfo(
        self, host: bytes | None, port: bytes | str | int | None, *how: int, **named: int
    ) -> Any:
        def look_up() -> Any:
            return socket.getaddrinfo(host, port, *how, **named)

        return await trio.to_thread.run_sync(look_up, abandon_on_cancel=True, limiter=self._limiter(host))

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        return await trio.to_thread.run_sync(
            socket.getnameinfo, sockaddr, flags, abandon_on_cancel=True, limiter=self._limiter(sockaddr)
        )

    def _limiter(self, key: Any) -> trio.CapacityLimiter:
        limiter = self._threads.get(key)
        if limiter is None:
            limiter = self._threads[key] = trio.CapacityLimiter(THREADS)
        return limiter


def look_names_up_apart() -> None:
    """Within this run of trio, unless names are looked up in another way than trio's already."""
    before = trio.socket.set_custom_hostname_resolver(Names())
    if before is not None:
        trio.socket.set_custom_hostname_resolver(before)
