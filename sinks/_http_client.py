"""The HTTP connections of a sink, by httpx. Imported only where there is such a sink: that takes a while."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from http.cookiejar import CookieJar
from typing import Any

import httpx
import trio

from logroute.config.uri import shown
from logroute.sinks import Retryable
from logroute.sinks.failures import cause_in_words, excerpt
from logroute.sinks.http_answers import Answer
from logroute.sinks.streams import hand_over_at_once, name_in_tls

CONNECT_S = 10.0
"""How long connecting may take, names and TLS included. What follows has the router's deadline."""
KEEP_ALIVE_S = 4.0
"""How long an unused connection is kept: many servers close it after five seconds, and what is sent at that
moment has an unknown outcome."""
ANSWER_BYTES = 4096
ANSWER_S = 1.0
"""How much of an answer's body is read, and for how long, where its status has said all that counts."""


class HttpClient:
    """Asks one server, so many requests at a time. A connection is closed when a request on it fails."""

    def __init__(
        self,
        context: ssl.SSLContext | None,
        proxy: str | None = None,
        *,
        connections: int = 1,
        answer_bytes: int | None = None,
        answer_s: float | None = None,
    ) -> None:
        """`proxy` is its URL, or None. Raises Retryable for one of the environment that is of no use."""
        self._answer_bytes = ANSWER_BYTES if answer_bytes is None else answer_bytes
        self._answer_s = ANSWER_S if answer_s is None else answer_s
        self._proxy = shown(proxy) if proxy is not None else None
        self.over: object = None
        """The connection over which the last answer came, to compare."""
        try:
            self._client = httpx.AsyncClient(
                # Without a context of ours httpx would read all authorities of its own, also without TLS.
                verify=context or False,
                timeout=httpx.Timeout(None, connect=CONNECT_S),
                limits=httpx.Limits(
                    max_connections=connections,
                    max_keepalive_connections=connections,
                    keepalive_expiry=KEEP_ALIVE_S,
                ),
                follow_redirects=False,
                cookies=_NoCookies(),
                proxy=proxy,
                trust_env=False,
            )
        # Their words may hold the proxy's password. A proxy of SOCKS needs a package that we do not have.
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise Retryable(
                "the proxy in the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) cannot be used: it must "
                "begin with http:// or https://; set NO_PROXY, or the sink's `proxy` where it has one"
            ) from error

    async def ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, answer_bytes: int | None = None
    ) -> Answer:
        """One request and its answer, of which so much is read, where that is not what usually is.

        Raises Retryable, with only the reason for its text, where there was no answer. Cancelled, it closes
        the connection.
        """
        try:
            # A request with a stream of ours has no headers but ours.
            address = httpx.URL(url)
            own = {"host": address.netloc.decode("ascii"), "content-length": str(len(body))}
            # Not where a proxy is asked: its certificate is looked at by the same name then.
            absolute = address.host.endswith(".") and self._proxy is None
            more = {"sni_hostname": name_in_tls(address.host)} if absolute else {}
            request = httpx.Request(
                method, address, headers={**own, **headers}, stream=_Body(body), extensions=more
            )
            response = await self._client.send(request, stream=True)
            try:
                # httpx tells of a connection only once there is an answer on it.
                self.over = stream = response.extensions["network_stream"]
                hand_over_at_once(stream.get_extra_info("socket"))
                said = {name.lower(): value for name, value in response.headers.items()}
                most = self._answer_bytes if answer_bytes is None else answer_bytes
                body, whole = await self._beginning(response, most)
                if _says_more(response):
                    await _give_up(stream)
                cookies = response.headers.get_list("set-cookie") if "set-cookie" in said else ()
                return Answer(response.status_code, said, body, whole, cookies)
            finally:
                await response.aclose()
        # What no HTTP is, an address that httpx cannot use, a name that none can be: that may be put right.
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            # Not the server has failed then, perhaps: what is not reachable may be the proxy.
            way = f" (asked by the proxy {self._proxy})" if self._proxy is not None else ""
            raise Retryable(_reason(error, url) + way) from error

    async def close(self) -> None:
        await self._client.aclose()

    async def _beginning(self, response: httpx.Response, most: int) -> tuple[bytes, bool]:
        """As much of an answer's body as is read, and whether that is all; else the connection is closed."""
        found = bytearray()  # no list: chunks may be as small as the server likes
        whole = False
        # The status has been said. A body that is long, late or cut short changes nothing about it.
        with suppress(httpx.HTTPError), trio.move_on_after(self._answer_s) as reading:
            async for chunk in response.aiter_raw():
                found += chunk[: most - len(found)]
                if len(found) >= most:
                    # Not `break`: it would leave the generators below to the garbage collector.
                    reading.cancel()
            whole = len(found) < most
        return bytes(found), whole


def _says_more(response: httpx.Response) -> bool:
    """Whether something has come behind an answer that is read, which httpx would take for the next one.

    It must not be (RFC 9112, 6.3): nothing was asked yet. There is no public way to learn of it: httpx's
    stream is around httpcore's, and that has the connection with its h11, until it is closed.
    """
    found: Any = response.stream
    for name in ("_stream", "_httpcore_stream", "_stream", "_connection", "_h11_state"):
        found = getattr(found, name, None)
    return found is not None and bool(found.trailing_data[0])


async def _give_up(stream: Any) -> None:
    """Have the connection not used again: a socket from which nothing can be read is one that has ended."""
    with suppress(OSError):
        stream.get_extra_info("socket").shutdown(trio.socket.SHUT_RDWR)


class _Body(httpx.AsyncByteStream):
    """A body in one piece. httpx's own is a generator, which a cancelled request leaves to the garbage."""

    def __init__(self, data: bytes) -> None:
        self._left = [data]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


class _NoCookies(CookieJar):
    """Takes none: to look for them is a tenth of what a request costs. Lanes that want some see to it."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        pass


def _reason(error: Exception, url: str) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return f"not connected within {CONNECT_S:g} s"
    if isinstance(error, httpx.RemoteProtocolError):
        return f"what was answered is no HTTP: {excerpt(str(error))}"
    words = cause_in_words(error)
    if isinstance(error, httpx.NetworkError) and words == type(error).__name__:
        # Sending failed, and behind that trio's TLS reads no more: what the server has said is not heard.
        words = "the connection broke before there was an answer"
        if url.startswith("https:"):
            words += "; does it refuse our certificate, or want one (`tls.cert`)?"
    return words
