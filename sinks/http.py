"""HTTP sink: each delivery is one request to a server (RFC 9110); its status is the acknowledgement.

Owns one connection, which it keeps while it is used. Redirects are not followed: a log goes where its owner
has said. The encodings are a table; `ndjson` is in it.
"""

from __future__ import annotations

import base64
import re
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec
import trio
import zstandard
from pydantic import Field, field_validator, model_validator

from logroute.config.components import SINKS
from logroute.config.uri import shown
from logroute.sinks import DELIVERED, Outcome, Refused, Retryable, Sink, SinkContext, SinkOptions
from logroute.sinks.encoding import Encoder, encoder
from logroute.sinks.failures import cause_in_words, excerpt
from logroute.sinks.tls import TlsOptions, client_context

if TYPE_CHECKING:
    from logroute.router.record import Batch
    from logroute.sinks._http_client import HttpClient

LONGEST_RETRY_AFTER_S = 3600.0
"""No server keeps a route waiting for longer without being asked again."""

REACH_S = 10.0
"""How long connecting may take at the start, names included."""
_PORTS = {"http": 80, "https": 443}

# Statuses below 500 that speak of the moment, of who we are, of the address, or of how requests are made:
# people put all of that right, and then every record is welcome. The others speak of what was sent.
_LATER = {401, 402, 403, 404, 405, 406, 407, 408, 410, 411, 415, 421, 423, 424, 425, 426, 428, 429, 431, 511}

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
_OURS = {"connection", "content-encoding", "content-length", "transfer-encoding", "upgrade"}
_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda body: zlib.compress(body, level=1, wbits=zlib.MAX_WBITS | 16),
    "zstd": lambda body: zstandard.compress(body, 3),
}


class Encoding(msgspec.Struct, frozen=True):
    """How the records of a delivery become a request's body."""

    content_type: str
    encode: Encoder


ENCODINGS = {"ndjson": Encoding("application/x-ndjson", encoder("json"))}


class HttpOptions(SinkOptions):
    """Send records to an HTTP server."""

    type: Literal["http"] = "http"
    url: str = Field(examples=["https://logs.example.com/ingest"])
    """Where to. `user:password@` before the host becomes basic authentication."""
    encoding: Literal["ndjson"] = "ndjson"
    """What a body is: `ndjson`, a line of JSON for each record."""
    method: Literal["POST", "PUT"] = "POST"
    """The request's method."""
    headers: dict[str, str] = Field(default={}, examples=[{"X-Scope-OrgID": "shop"}])
    """Further headers of each request. Keep secrets in files: `"Bearer ${file:/run/secrets/token}"`."""
    compress: Literal["none", "gzip", "zstd"] = "none"
    """Compress the bodies; the server must know how to read them."""
    tls: TlsOptions = TlsOptions()

    @field_validator("url")
    @classmethod
    def _url_is_one(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:  # whose text may hold the password
            raise ValueError(f"{shown(url)!r} is no URL") from error
        if parts.scheme not in ("http", "https"):
            raise ValueError("must begin with http:// or https://")
        if not host:
            raise ValueError("names no host")
        if "#" in url or not url.isprintable() or " " in url:
            raise ValueError("must not contain #, spaces or control characters; write them as %23, %20 …")
        return url

    @field_validator("headers")
    @classmethod
    def _headers_are_some(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot be the name of a header")
            if name.lower() in _OURS:
                raise ValueError(f'"{name}" is set by the sink itself')
            if not _HEADER_VALUE.fullmatch(value):  # it may be a secret: not shown
                raise ValueError(f'the value of "{name}" has characters that no header may have')
        return {name: value.strip() for name, value in headers.items()}

    @model_validator(mode="after")
    def _one_authorization(self) -> HttpOptions:
        if "@" in urlsplit(self.url).netloc and "authorization" in {name.lower() for name in self.headers}:
            raise ValueError("`url` has a user, and `headers` an Authorization: only one can be sent")
        return self


class Answer(msgspec.Struct, frozen=True):
    """What a server answered."""

    status: int
    headers: dict[str, str]
    """By their names in lower case."""
    body: bytes = b""
    """Its beginning."""

    def after_s(self, now: float) -> float | None:
        """What `Retry-After` asks for (RFC 9110, 10.2.3); `now` in seconds since the epoch."""
        text = self.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdecimal():
            return min(float(text[:12]), LONGEST_RETRY_AFTER_S)
        until = _seconds(text)
        if until is None:
            return None
        # A date is one of the server's clock: ours may be wrong.
        here = _seconds(self.headers.get("date", ""))
        return min(max(0.0, until - (now if here is None else here)), LONGEST_RETRY_AFTER_S)

    def __str__(self) -> str:
        with suppress(ValueError):
            phrase = HTTPStatus(self.status).phrase
            return f"{self.status} {phrase}{self._said}"
        return f"{self.status}{self._said}"

    @property
    def _said(self) -> str:
        if 300 <= self.status < 400 and (location := self.headers.get("location")):
            return f": it redirects to {excerpt(shown(location))}, which is not followed"
        text = "" if self.headers.get("content-encoding", "identity") != "identity" else excerpt(self.body)
        return f": {text}" if text else ""


def outcome(answer: Answer, asked: str, now: float) -> Outcome:
    """What an answer means; `asked` says who was asked for what. Raises Retryable or Refused."""
    status = answer.status
    if 200 <= status < 300:
        return DELIVERED
    text = f"{asked} answered {answer}"
    if 400 <= status < 500 and status not in _LATER:
        raise Refused(text)
    raise Retryable(text, after_s=answer.after_s(now))


@SINKS.register(HttpOptions, schemes=("https",))
class HttpSink(Sink[HttpOptions]):
    """One request at a time over one connection."""

    def __init__(self, options: HttpOptions, context: SinkContext) -> None:
        super().__init__(options, context)
        self.clock: Callable[[], float] = time.time
        """The wall clock, for dates that servers tell."""
        self._encoding = ENCODINGS[options.encoding]
        self._compress = _COMPRESSORS.get(options.compress)
        self._url, self._headers = _request(options, self._encoding.content_type)
        self._asked = f"{shown(self._url)}: {options.method}"
        self._client: HttpClient | None = None
        self._reached = False
        """It was connected to once."""

    @classmethod
    def options_from_uri(cls, uri: SplitResult, query: dict[str, Any]) -> dict[str, Any]:
        if "url" in query:
            raise ValueError("the URI is the URL, `url` is no parameter")
        return {"url": uri._replace(query="").geturl(), **query}

    async def open(self) -> None:
        await self.close()
        from logroute.sinks._http_client import HttpClient

        context = await client_context(self.options.tls) if self._url.startswith("https:") else None
        if not self._reached:
            await self._reach()
        self._client = HttpClient(context)

    async def _reach(self) -> None:
        """Connect once, and ask for nothing: that a server is down is said before there are records.

        Not where a proxy is asked instead, which decides that itself. Raises Retryable.
        """
        from urllib.request import getproxies, proxy_bypass

        parts = urlsplit(self._url)
        host = parts.hostname or ""
        proxies = getproxies()
        if proxy_bypass(host) or not (parts.scheme in proxies or "all" in proxies):
            try:
                with trio.fail_after(REACH_S):
                    stream = await trio.open_tcp_stream(host, parts.port or _PORTS[parts.scheme])
                    await trio.aclose_forcefully(stream)
            except trio.TooSlowError:
                raise Retryable(f"{shown(self._url)}: not connected within {REACH_S:g} s") from None
            except OSError as error:
                raise Retryable(f"{shown(self._url)}: cannot connect: {cause_in_words(error)}") from error
        self._reached = True

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        encode = self._encoding.encode
        body = b"".join([encode(batch) for batch in batches])
        if not body:
            return DELIVERED
        if self._compress is not None:  # milliseconds in which others want to go on
            body = await trio.to_thread.run_sync(self._compress, body, abandon_on_cancel=True)
        return outcome(await self._ask(body), self._asked, self.clock())

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _ask(self, body: bytes) -> Answer:
        """One request. Raises Retryable without an answer; cancelled, it closes the connection."""
        if self._client is None:
            await self.open()
        assert self._client is not None
        try:
            return await self._client.ask(self.options.method, self._url, self._headers, body)
        except Retryable as error:
            raise Retryable(f"{self._asked} failed: {error}") from error


def _request(options: HttpOptions, content_type: str) -> tuple[str, dict[str, str]]:
    """The URL without its user, and the headers of every request."""
    parts = urlsplit(options.url)
    user_info, at, address = parts.netloc.rpartition("@")
    headers = {
        "user-agent": "logroute",
        "accept": "*/*",
        "accept-encoding": "identity",  # so that what is read of an answer has a bound
        "content-type": content_type,
    }
    if options.compress != "none":
        headers["content-encoding"] = options.compress
    if at:
        user, _, password = user_info.partition(":")
        pair = f"{unquote(user)}:{unquote(password)}".encode()  # RFC 7617
        headers["authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    headers |= {name.lower(): value for name, value in options.headers.items()}
    return parts._replace(netloc=address).geturl(), headers


def _seconds(date: str) -> float | None:
    """Seconds since the epoch of an HTTP date; None if it is none."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
