"""Lanes of the http sink: what one delivery at a time goes over, and the questions about it.

A lane owns one connection, and the headers that name it to the receiver (Splunk's channel). Behind a balancer
of connections another one may lead to another receiver, which counts in the same way and knows nothing of
what the first was given. So what is heard of a delivery over another connection is believed only where it can
mean nothing else. A balancer of requests may lead each of them elsewhere: it has a client send back a cookie.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logroute.sinks._http_client import HttpClient
    from logroute.sinks.http_answers import Answer


MOST_COOKIES = 20
_COOKIE = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=([\x21-\x3a\x3c-\x7e]{0,4096})\s*(;.*)?")
"""A name, a value, and what else is said (RFC 6265, 4.1.1)."""
_OVER = re.compile(r"(?i);\s*max-age=(0|-.*)\s*(;|$)")


class Strayed(Exception):
    """A question was answered over another connection than what it is about, maybe by another receiver."""


class Cookies:
    """What one server has had us keep. Domains and paths are its own affair: nobody else is sent them."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def take(self, said: Sequence[str]) -> None:
        """Each is what one `Set-Cookie` says. What is none, or too many, is left out."""
        for text in said:
            found = _COOKIE.fullmatch(text)
            if found is None:
                continue
            name, value, more = found.groups()
            self._values.pop(name, None)
            if not _OVER.search(more or "") and len(self._values) < MOST_COOKIES:
                self._values[name] = value

    @property
    def header(self) -> dict[str, str]:
        """The header that sends them back; none where there are none."""
        pairs = "; ".join(f"{name}={value}" for name, value in self._values.items())
        return {"cookie": pairs} if pairs else {}


class Lane:
    """One request at a time."""

    def __init__(
        self, client: HttpClient, headers: Mapping[str, str], own: Mapping[str, str], *, sticky: bool = False
    ) -> None:
        """`client` has one connection; `own` are headers that only requests over this lane have.

        `sticky`: what one request is answered counts for the next, so both have to come to one receiver.
        """
        self.headers = {**headers, **own}
        self._cookies = Cookies() if sticky else None
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
        answer = await self._ask(method, url, self.headers, body)
        self._requests += 1
        self._over = self._client.over
        return answer

    async def inquire(self, url: str, body: bytes) -> Answer:
        """Ask what became of the last request with records.

        Raises Retryable without an answer, Strayed where it is none to rely on.
        """
        headers = {name: value for name, value in self.headers.items() if name != "content-encoding"}
        answer = await self._ask("POST", url, headers, body)
        if self._client.over is not self._over:
            self._steady = False
            # Under a name that was used for nothing else, only who was given this can say that it is safe.
            if not self._named or self._requests > 1:
                raise Strayed
        return answer

    async def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if self._cookies is None:
            return await self._client.ask(method, url, headers, body)
        # A user's own cookie, if there is one, is what they want.
        answer = await self._client.ask(method, url, {**self._cookies.header, **headers}, body)
        self._cookies.take(answer.cookies)
        return answer

    async def close(self) -> None:
        self._steady = False
        await self._client.close()
