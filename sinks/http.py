"""HTTP sink: each delivery is one request to a server (RFC 9110), whose answer is the acknowledgement.

Owns one connection, or a few where an encoding says so (`http_lanes`), which it keeps while it is used.
Redirects are not followed: a log goes where its owner has said. What a body is, and what is read out of an
answer beside its status, is an encoding's (`http_encoding`). What of a delivery is still to be sent is known
by `http_requests`. See docs/http.md.
"""

from __future__ import annotations

import base64
import time
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit

import trio
import zstandard
from pydantic import Field, field_validator, model_validator

from logroute.config.components import SINKS
from logroute.config.types import Alternative, Secret
from logroute.config.uri import shown
from logroute.sinks import (
    DELIVERED,
    Outcome,
    Refused,
    Rejected,
    Retryable,
    Sink,
    SinkContext,
    SinkOptions,
)
from logroute.sinks.gelf_message import GelfEncoding, GelfHttpOptions
from logroute.sinks.http_answers import Answer, StatusOptions, usual_meaning
from logroute.sinks.http_encoding import (
    Confirmation,
    Encoding,
    JsonArrayEncoding,
    LinesEncoding,
    Share,
    Stopped,
)
from logroute.sinks.http_headers import checked_headers, is_value
from logroute.sinks.http_lanes import Lane, Strayed
from logroute.sinks.http_proxies import NO_PROXY, PORTS, proxy_for
from logroute.sinks.http_requests import Requests, Settled, of_delivery, postponed, together
from logroute.sinks.loki_push import LokiEncoding, LokiOptions
from logroute.sinks.otlp_logs import OtlpEncoding, OtlpOptions
from logroute.sinks.splunk_hec import SplunkEncoding, SplunkOptions
from logroute.sinks.streams import connecting
from logroute.sinks.tls import TlsOptions, client_context

if TYPE_CHECKING:
    from logroute.router.record import Batch


SHARES_S = 10.0
"""A delivery of many requests ends after so long, within its deadline, so that what was delivered is known to
be; the rest is sent again."""

ASK_AGAIN_S = (0.1, 3.0)
"""The first and the longest pause between questions whether a delivery is safe. It must be shorter than a
connection is kept that is not used (`_http_client.KEEP_ALIVE_S`): they go over that of the delivery."""

_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda body: zlib.compress(body, level=1, wbits=zlib.MAX_WBITS | 16),
    "zstd": lambda body: zstandard.compress(body, 3),
}


class HttpOptions(SinkOptions):
    """Send records to an HTTP server: as lines or arrays of JSON, as text, or in a protocol of logs."""

    type: Literal["http"] = "http"
    url: str = Field(examples=["https://logs.example.com/ingest"])
    """Where to. `user:password@` before the host becomes basic authentication. Without a path, it is the
    encoding's own, such as `/v1/logs`."""
    encoding: Literal["ndjson", "json", "text", "loki", "otlp", "splunk", "gelf"] = "ndjson"
    """What a body is: `ndjson`, a line of JSON for each record; `json`, one array of them; `text`, lines as
    `format` says; for the protocols of these names `loki`, `otlp` (OpenTelemetry), `splunk` (HEC) and `gelf`
    (Graylog)."""
    format: str = Field(default="text", examples=["{time} {container.name} {message}"])
    """What a record is as `text`: `text`, `raw`, `logfmt`, `json`, or a template."""
    method: Literal["POST", "PUT"] = "POST"
    """The request's method."""
    headers: Annotated[dict[str, str], Secret()] = Field(default={}, examples=[{"X-Scope-OrgID": "shop"}])
    """Further headers of each request. Keep secrets in files: `"Bearer ${file:/run/secrets/token}"`."""
    username: Annotated[str | None, Alternative()] = Field(default=None, repr=False, examples=["ada"])
    """User for basic authentication, where `url` has none."""
    password: Annotated[str | None, Alternative(), Secret()] = Field(
        default=None, repr=False, examples=["a-secret"]
    )
    """Their password. Keep it in a file: `${file:/run/secrets/password}`."""
    token: Annotated[str | None, Secret()] = Field(default=None, repr=False, examples=["another-secret"])
    """Sent as `Authorization: Bearer TOKEN`, to Splunk as `Splunk TOKEN`. Keep it in a file."""
    compress: Literal["none", "gzip", "zstd"] = "none"
    """Compress the bodies; the server must know how to read them."""
    proxy: str | None = Field(default=None, examples=["http://proxy.example.com:3128"])
    """Proxy to ask, or `none`. Default: what the environment says (`HTTPS_PROXY`, `NO_PROXY` …)."""
    statuses: StatusOptions = StatusOptions.model_construct()
    loki: LokiOptions = LokiOptions.model_construct()
    otlp: OtlpOptions = OtlpOptions.model_construct()
    splunk: SplunkOptions = SplunkOptions.model_construct()
    gelf: GelfHttpOptions = GelfHttpOptions.model_construct()
    tls: TlsOptions = TlsOptions.model_construct()

    @field_validator("url")
    @classmethod
    def _url_is_one(cls, url: str) -> str:
        return _checked_url(url)

    @field_validator("proxy")
    @classmethod
    def _proxy_is_one(cls, proxy: str | None) -> str | None:
        return proxy if proxy in (None, NO_PROXY) else _checked_url(proxy)

    @field_validator("headers")
    @classmethod
    def _headers_are_some(cls, headers: dict[str, str]) -> dict[str, str]:
        return checked_headers(headers)

    @field_validator("token")
    @classmethod
    def _token_is_one(cls, token: str | None) -> str | None:
        if token is not None and (not token.strip() or not is_value(token)):
            raise ValueError("is empty, or has characters that no header may have")
        return token and token.strip()

    @field_validator("format")
    @classmethod
    def _format_is_one(cls, text: str) -> str:
        LinesEncoding(text, "")
        return text

    @model_validator(mode="after")
    def _one_authorization(self) -> HttpOptions:
        given = [
            name
            for name, there in (
                ("`url` has a user", "@" in urlsplit(self.url).netloc),
                ("`headers` an Authorization", "authorization" in {name.lower() for name in self.headers}),
                ("`username` is set", self.username is not None),
                ("`token` is set", self.token is not None),
            )
            if there
        ]
        if len(given) > 1:
            raise ValueError(f"{given[0]}, and {given[1]}: only one can be sent")
        if self.password is not None and self.username is None:
            raise ValueError("`password` needs the `username` that it belongs to")
        return self


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:  # whose text may hold the password
        raise ValueError(f"{shown(url)!r} is no URL") from error
    if parts.scheme not in PORTS:
        raise ValueError("must begin with http:// or https://")
    if not host:
        raise ValueError("names no host")
    if "#" in url or not url.isprintable() or " " in url:
        raise ValueError("must not contain #, spaces or control characters; write them as %23, %20 …")
    return url


ENCODINGS: dict[str, tuple[type[Encoding], Callable[[HttpOptions], Encoding]]] = {
    "ndjson": (LinesEncoding, lambda options: LinesEncoding("json", "application/x-ndjson")),
    "json": (JsonArrayEncoding, lambda options: JsonArrayEncoding()),
    "text": (LinesEncoding, lambda options: LinesEncoding(options.format, "text/plain; charset=utf-8")),
    "loki": (LokiEncoding, lambda options: LokiEncoding(options.loki)),
    "otlp": (OtlpEncoding, lambda options: OtlpEncoding(options.otlp)),
    "splunk": (SplunkEncoding, lambda options: SplunkEncoding(options.splunk)),
    "gelf": (GelfEncoding, lambda options: GelfEncoding(options.gelf)),
}
"""What there is, and how it is made. A further one is a module with its class, and a line here and below."""

SHORT = {f"{name}+{scheme}": name for name, (kind, _) in ENCODINGS.items() if kind.port for scheme in PORTS}
"""Short forms of URIs, and the encoding that each means."""


@SINKS.register(HttpOptions, schemes=("https", *SHORT))
class HttpSink(Sink[HttpOptions]):
    """One request at a time over one connection; where an encoding says so, several, each over its own."""

    def __init__(self, options: HttpOptions, context: SinkContext) -> None:
        super().__init__(options, context)
        self.clock: Callable[[], float] = time.time
        """The wall clock, for dates that servers tell."""
        self._encoding = ENCODINGS[options.encoding][1](options)
        for name in ("batch_bytes", "batch_records", "batch_wait_s"):
            if (own := getattr(self._encoding, name)) is not None:
                setattr(self, name, own)
        self.concurrency = self._encoding.concurrency
        self.ordered = self.concurrency == 1
        self._compress = _COMPRESSORS.get(options.compress)
        self._url, self._headers = _request(options, self._encoding)
        self._asked = f"{shown(self._url)}: {options.method}"
        self._free: list[Lane] = []
        """Lanes that no delivery has."""
        self._reached = False
        """It was connected to once."""

    @classmethod
    def options_from_uri(cls, uri: SplitResult, query: dict[str, Any]) -> dict[str, Any]:
        if "url" in query:
            raise ValueError("the URI is the URL, `url` is no parameter")
        encoding = SHORT.get(uri.scheme)
        if encoding is None:
            return {"url": uri._replace(query="").geturl(), **query}
        if "encoding" in query:
            raise ValueError(f"{encoding}+ is the encoding, `encoding` is no parameter")
        netloc = uri.netloc if uri.port else f"{uri.netloc.rstrip(':')}:{ENCODINGS[encoding][0].port}"
        url = uri._replace(scheme=uri.scheme.partition("+")[2], netloc=netloc, query="").geturl()
        return {"url": url, "encoding": encoding, **query}

    async def open(self) -> None:
        await self.close()  # not those that deliveries have now
        lane = await self._new_lane()
        if not self._reached:
            await self._reach()
        self._free.append(lane)

    async def _new_lane(self) -> Lane:
        """Raises Retryable, where a file of `tls` cannot be read, say."""
        from logroute.sinks._http_client import HttpClient

        context = await client_context(self.options.tls) if self._url.startswith("https:") else None
        encoding = self._encoding
        client = HttpClient(
            context,
            proxy_for(self._url, self.options.proxy),
            answer_bytes=encoding.answer_bytes,
            answer_s=encoding.answer_s,
        )
        return Lane(client, self._headers, encoding.name_lane(), sticky=encoding.sticky)

    async def _reach(self) -> None:
        """Connect once, and ask for nothing: that a server is down is said before there are records.

        Not where a proxy is asked instead, which decides that itself. Raises Retryable.
        """
        parts = urlsplit(self._url)
        if proxy_for(self._url, self.options.proxy) is None:
            with connecting(shown(self._url)):
                stream = await trio.open_tcp_stream(parts.hostname or "", parts.port or PORTS[parts.scheme])
                await trio.aclose_forcefully(stream)
        self._reached = True

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        """A request for each share. What is delivered before one fails is not sent again with it.

        Raises Retryable if the first fails, and Refused if nothing became of any.
        """
        async with self._lane() as lane:
            return await self._deliver(batches, lane)

    @asynccontextmanager
    async def _lane(self) -> AsyncIterator[Lane]:
        """One that no other delivery has. After a failure nobody has it again: what it was about is open."""
        lane = self._free.pop() if self._free else await self._new_lane()
        try:
            yield lane
        except Refused:
            self._free.append(lane)
            raise
        except BaseException:
            await lane.close()
            raise
        if lane.steady:
            self._free.append(lane)
        else:
            await lane.close()

    async def _deliver(self, batches: Sequence[Batch], lane: Lane) -> Outcome:
        requests = Requests(self._encoding.shares(batches))
        alone = len(requests.left) == 1
        outcomes: list[Outcome] = []
        refused: list[tuple[Share, Refused]] = []
        enough_at = trio.current_time() + SHARES_S
        done = 0
        while requests.left:
            share = requests.next()
            try:
                if done and trio.current_time() > enough_at:
                    asked = f"{done} of {done + len(requests.left)} requests"
                    raise Retryable(f"{self._asked} is slow: {asked} took {SHARES_S:g} s")
                settled = await self._deliver_share(share, lane)
                requests.done(settled)
                if not settled.asked:
                    continue
                done += 1
                outcomes.append(settled.outcome)
                if settled.failure is not None:
                    raise settled.failure
            except Refused as error:
                if alone and not done:
                    raise
                done += 1
                requests.done(Settled())
                named = list(share.named())
                if len(named) > 1:
                    refused.append((share, error))
                else:
                    outcomes.append(Outcome([Rejected(*each, str(error)) for each in named]))
            except Retryable as error:
                if not done:
                    raise
                await lane.close()
                left = [each for later in requests.left for each in postponed(later, error)]
                outcomes.append(Outcome(postponed=left, after_s=error.after_s))
                break
        if refused and not outcomes:
            raise refused[0][1]
        # Sent again without the others, they are halved if they are refused then.
        outcomes += [Outcome(postponed=postponed(share, error)) for share, error in refused]
        return together(outcomes)

    async def _deliver_share(self, share: Share, lane: Lane) -> Settled:
        """One request. Raises Retryable or Refused."""
        body = self._encoding.encode(share.batches)
        self._say_notes()
        if not body:
            return Settled()
        most = self._encoding.body_bytes
        if most is not None and len(body) > most and share.records > 1:
            return Settled(again=share.parts(-(-len(body) // most)), asked=False)
        answer = await self._ask(body, lane)
        outcome = await self._meant(answer, share.batches, lane)
        self._say_notes()
        if isinstance(outcome, Outcome):
            return Settled(of_delivery(outcome, share))
        if not outcome.reason:
            _, again = share.cut(outcome.taken)
            return Settled(again=[again], failure=self._failure(answer))
        before, behind = share.cut(outcome.at)
        _, again = before.cut(outcome.taken)
        record, behind = behind.cut(1)
        rejected = [Rejected(*each, outcome.reason) for each in record.named()]
        return Settled(Outcome(rejected), [again, behind], at=outcome.at)

    def _say_notes(self) -> None:
        for event, details in self._encoding.take_notes():
            self.context.warn(event, **details)

    async def close(self) -> None:
        lanes, self._free = self._free, []
        for lane in lanes:
            await lane.close()

    async def _ask(self, body: bytes, lane: Lane) -> Answer:
        """One request with records. Raises Retryable without an answer; cancelled, closes the connection."""
        if self._compress is not None:  # milliseconds in which others want to go on
            body = await trio.to_thread.run_sync(self._compress, body, abandon_on_cancel=True)
        try:
            return await lane.send(self.options.method, self._url, body)
        except Retryable as error:
            raise Retryable(f"{self._asked} failed: {error}") from error

    # --- what an answer means -------------------------------------------------------------------------

    async def _meant(self, answer: Answer, batches: Sequence[Batch], lane: Lane) -> Outcome | Stopped:
        """What an answer means, asked for further where it is no final one. Raises Retryable or Refused."""
        said = f"{self._asked} answered {answer}"
        meaning = self.options.statuses.meaning(answer.status)
        if meaning is None:
            try:
                outcome = self._encoding.outcome(answer, batches)
            except Retryable as error:
                raise self._failure(answer, f": {error}") from error
            except Refused as error:
                raise Refused(f"{said}: {error}") from error
            if isinstance(outcome, Confirmation):
                await self._confirm(outcome, lane)
                self.answer = f"{answer.named_status}, and then that it is safe"
                return DELIVERED
            if isinstance(outcome, Stopped) and outcome.taken and outcome.confirmation is not None:
                await self._confirm(outcome.confirmation, lane)
            if outcome is not None:
                self.answer = answer.named_status
                return outcome
            meaning = usual_meaning(answer.status)
        if meaning == "success":
            self.answer = answer.named_status
            return DELIVERED
        if meaning == "reject":
            raise Refused(said)
        raise self._failure(answer)

    def _failure(self, answer: Answer, more: str = "") -> Retryable:
        return Retryable(f"{self._asked} answered {answer}{more}", after_s=answer.after_s(self.clock()))

    async def _confirm(self, wanted: Confirmation, lane: Lane) -> None:
        """Ask whether a delivery is safe until it is. Raises Retryable if nobody can tell, or not in time."""
        parts = urlsplit(self._url)
        url = f"{parts.scheme}://{parts.netloc}{wanted.path(parts.path, lane.headers)}"
        pause_s, longest_s = ASK_AGAIN_S
        reason = "it has not said that it is safe"
        with trio.move_on_after(wanted.within_s):
            while True:
                try:
                    answer = await lane.inquire(url, wanted.body)
                    if wanted.confirmed(answer):
                        return
                except ValueError as error:
                    reason = f"{shown(url)} answered {answer}: {error}"
                except Retryable as error:  # it has the records: that it cannot be asked now costs nothing
                    reason = str(error)
                except Strayed:
                    raise Retryable(
                        f"{self._asked} is not confirmed: its connection was lost before, and another may "
                        "lead to another receiver"
                    ) from None
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, longest_s)
        raise Retryable(f"{self._asked} is not confirmed within {wanted.within_s:g} s: {reason}")


def _request(options: HttpOptions, encoding: Encoding) -> tuple[str, dict[str, str]]:
    """The URL without its user, and the headers of every request."""
    parts = urlsplit(options.url)
    user_info, at, address = parts.netloc.rpartition("@")
    headers = {
        "user-agent": "logroute",
        "accept": "*/*",
        "accept-encoding": "identity",  # so that what is read of an answer has a bound
        "content-type": encoding.content_type,
        **encoding.headers,
    }
    if options.compress != "none":
        headers["content-encoding"] = options.compress
    user, _, password = (unquote(part) for part in user_info.partition(":"))
    if options.username is not None:
        user, password = options.username, options.password or ""
    if at or options.username is not None:
        pair = f"{user}:{password}".encode()  # RFC 7617
        headers["authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    if options.token:
        headers["authorization"] = f"{encoding.authorization} {options.token}"
    headers |= {name.lower(): value for name, value in options.headers.items()}
    path = encoding.path if parts.path in ("", "/") and encoding.path else parts.path
    return parts._replace(netloc=address, path=path).geturl(), headers
