"""Lanes of the http sink: what one delivery at a time goes over, and the questions about it.

A lane owns one connection, and the headers that name it to the receiver (Splunk's channel). Behind a balancer
of connections another one may lead to another receiver, which counts in the same way and knows nothing of
what the first was given. So what is heard of a delivery over another connection is believed only where it can
mean nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logroute.sinks._http_client import HttpClient
    from logroute.sinks.http_answers import Answer


class Strayed(Exception):
    """A question was answered over another connection than what it is about, maybe by another receiver."""


class Lane:
    """One request at a time."""

    def __init__(self, client: HttpClient, headers: Mapping[str, str], own: Mapping[str, str]) -> None:
        """`client` has one connection; `own` are headers that only requests over this lane have."""
        self.headers = {**headers, **own}
        self._client = client
        self._named = bool(own)
        self._requests = 0
        """How many requests with records were answered."""
        self._over: object = None
        """The connection over which the last of them was."""
        self._steady = True

    @property
    def steady(self) -> bool:
        """Whether further deliveries may go over it: nothing that went over it is open, or went astray."""
        return self._steady

    async def send(self, method: str, url: str, body: bytes) -> Answer:
        """One request with records. Raises Retryable without an answer; cancelled, closes the connection."""
        answer = await self._client.ask(method, url, self.headers, body)
        self._requests += 1
        self._over = self._client.over
        return answer

    async def inquire(self, url: str, body: bytes) -> Answer:
        """Ask what became of the last request with records.

        Raises Retryable without an answer, Strayed where it is none to rely on.
        """
        headers = {name: value for name, value in self.headers.items() if name != "content-encoding"}
        answer = await self._client.ask("POST", url, headers, body)
        if self._client.over is not self._over:
            self._steady = False
            # Under a name that was used for nothing else, only who was given this can say that it is safe.
            if not self._named or self._requests > 1:
                raise Strayed
        return answer

    async def close(self) -> None:
        self._steady = False
        await self._client.close()
