"""Where `logroute tail` has its records from: a daemon that runs, or the engine itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from logroute.api.address import Address
from logroute.cli import log
from logroute.config.components import SOURCES
from logroute.router.daemon import Daemon
from logroute.router.look import Problem, Query, Shown, look
from logroute.router.match import Match
from logroute.router.plan import Plan, RoutePlan, SourcePlan
from logroute.router.position import BEGINNING
from logroute.router.record import Batch, DetailedRecord, Image, Origin, Record, Stream
from logroute.router.route import RouteSettings
from logroute.router.views import Event, Item, News, Skipped
from logroute.sinks import DELIVERED, Outcome, Sink, SinkOptions
from logroute.sources import SourceContext, SourceOptions

if TYPE_CHECKING:
    import httpx

    from logroute.sources.engine_address import EngineAddress

ROUTE = "tail"
CONNECT_WITHIN_S = 5.0

Show = Callable[[Sequence[Shown]], Awaitable[None]]
There = Callable[[Sequence[tuple[Origin, str]]], None]
"""Told once which containers there are, and why one is not read."""


class CannotLook(Exception):
    """There is nothing to be seen; the text says why."""


class NoEngine(CannotLook):
    """No engine answers."""


class Senseless(CannotLook):
    """What was typed, or is in the environment, means nothing."""


# --- a daemon -----------------------------------------------------------------------------------------


class _Log(msgspec.Struct, frozen=True):
    level: str | None = None
    truncated: bool = False
    file: Mapping[str, str] = {}


class _Line(msgspec.Struct, frozen=True):
    """A line of `/v1/logs`: a record, or something else that is said."""

    time: str = msgspec.field(name="@timestamp", default="")
    message: str = ""
    stream: Stream = "stdout"
    log: _Log = _Log()
    fields: dict[str, Any] | None = None
    container: msgspec.Raw = msgspec.Raw(b"{}")
    host: Mapping[str, str] = {}
    event: str | Mapping[str, str] = ""
    error: Mapping[str, str] = {}
    skipped: int = 0
    unread: str = ""


class _Container(msgspec.Struct, frozen=True):
    id: str = ""
    name: str = ""
    image: Mapping[str, str] = {}
    runtime: str = ""
    labels: Mapping[str, str] = {}


class Decoder:
    """Lines of `/v1/logs` become what they are about; origins are made once."""

    def __init__(self) -> None:
        self._rest = b""
        self._decode = msgspec.json.Decoder(_Line).decode_lines
        self._origins: dict[tuple[bytes, str, str], Origin] = {}

    def feed(self, data: bytes) -> list[Shown]:
        *whole, self._rest = (self._rest + data).rsplit(b"\n", 1)
        if not whole:
            return []
        items: list[Shown] = []
        run: list[Record] = []
        of: Origin | None = None
        for line in self._decode(whole[0]):
            origin = self._origin(line)
            if run and (origin is not of or not line.time):
                assert of is not None
                items.append(_batch(of, run))
                run = []
            of = origin
            if line.time:
                run.append(_record(line))
            elif line.skipped:
                items.append(Skipped(line.skipped))
            elif line.unread:
                items.append(Problem(origin, line.unread))
            elif isinstance(line.event, str) and line.event:
                items.append(News(_event(line.event), origin))
        if run and of is not None:
            items.append(_batch(of, run))
        return items

    def _origin(self, line: _Line) -> Origin:
        key = bytes(line.container), line.log.file.get("path", ""), line.host.get("name", "")
        origin = self._origins.get(key)
        if origin is None:
            known = msgspec.json.decode(line.container, type=_Container)
            said = known.image
            image = Image(said["name"], said.get("tag"), said.get("digest")) if "name" in said else None
            origin = self._origins[key] = Origin(
                f"docker:{known.id}" if known.id else f"file:{key[1]}",
                "daemon",
                id=known.id,
                name=known.name,
                image=image,
                labels=known.labels,
                runtime=known.runtime,
                host=key[2],
                file=key[1],
            )
        return origin


_SAID = (b'\n{"skipped"', b'\n{"event"', b'\n{"unread"')


class Apart:
    """Keeps lines that are records apart from what else is said, without a look into them."""

    def __init__(self) -> None:
        self._rest = b""
        self._decoder = Decoder()

    def feed(self, data: bytes) -> tuple[bytes, list[Shown]]:
        """Whole lines of records, as they are; and the rest."""
        *whole, self._rest = (self._rest + data).rsplit(b"\n", 1)
        if not whole:
            return b"", []
        text = whole[0]
        if (
            not text.startswith(b'{"@')
            or b'\n{"skipped"' in text
            or b'\n{"event"' in text
            or b'\n{"unread"' in text
        ):
            lines = text.split(b"\n")
            said = [line for line in lines if not line.startswith(b'{"@timestamp"')]
            lines = [line for line in lines if line.startswith(b'{"@timestamp"')]
            items = self._decoder.feed(b"\n".join(said) + b"\n") if said else []
            return b"".join([line + b"\n" for line in lines]), items
        return text + b"\n", []


def _event(text: str) -> Event:
    return text if text in ("started", "ended", "removed", "renamed") else "started"  # type: ignore[return-value]


def _record(line: _Line) -> Record:
    made = DetailedRecord(line.message, line.stream, line.time)
    made.level, made.fields, made.truncated = line.log.level, line.fields, line.log.truncated
    made.place = line.event.get("id") if not isinstance(line.event, str) else None
    made.error = line.error.get("message", "")
    return made


def _batch(origin: Origin, records: list[Record]) -> Batch:
    return Batch(origin, records, before=BEGINNING, after=BEGINNING, size_bytes=0, ready=True)


async def from_daemon(
    address: Address,
    token: str,
    query: Sequence[tuple[str, str]],
    *,
    whole: bool,
    show: Show,
    raw: Any,
    there: There | None = None,
) -> None:
    """Show what the daemon answers. With `whole`, its lines are given to `raw` as they are.

    Raises CannotLook; NoDaemon where nobody answers.
    """
    import httpx

    from logroute.api.client import NoDaemon

    transport = httpx.AsyncHTTPTransport(uds=address.path or None)
    host = "localhost" if address.path else str(address)
    decoder = Decoder()
    headers = {"authorization": f"Bearer {token}"} if token else {}

    async def read(answer: httpx.Response) -> None:
        try:
            async for data in answer.aiter_raw():
                if whole:
                    await raw(data)
                else:
                    await show(decoder.feed(data))
        except httpx.RemoteProtocolError as error:  # a daemon that ends breaks off what never ends
            raise CannotLook(f"the daemon at {address} has ended") from error
        except httpx.HTTPError as error:
            raise CannotLook(f"the daemon at {address} has ended the answer: {_words(error)}") from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CannotLook(f"what answers at {address} is no logroute: {error}") from error

    async with httpx.AsyncClient(
        transport=transport, base_url=f"http://{host}", headers=headers, trust_env=False
    ) as client:
        try:
            timeout = httpx.Timeout(None, connect=CONNECT_WITHIN_S)
            async with client.stream("GET", "/v1/logs", params=list(query), timeout=timeout) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                    try:
                        detail = str(msgspec.json.decode(answer.content)["detail"])
                    except (msgspec.MsgspecError, KeyError, TypeError):
                        detail = f"what answers at {address} is no logroute: {answer.status_code}"
                    raise (Senseless if answer.status_code == 400 else CannotLook)(detail)
                async with trio.open_nursery() as nursery:
                    if there is not None:
                        nursery.start_soon(_ask_who_is_there, client, there)
                    await read(answer)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NoDaemon(f"no daemon answers at {address}: {error}") from error
        except httpx.HTTPError as error:
            raise CannotLook(f"the daemon at {address} gives no answer: {_words(error)}") from error


async def _ask_who_is_there(client: httpx.AsyncClient, there: There) -> None:
    """Beside the logs, which do not wait for it. Where there is no answer nothing is said of it."""
    import httpx

    from logroute.api.containers import Containers

    with suppress(httpx.HTTPError, msgspec.MsgspecError, UnicodeDecodeError):
        answer = await client.get("/v1/containers", timeout=CONNECT_WITHIN_S)
        if answer.status_code == 200:
            found = msgspec.json.decode(answer.content, type=Containers).containers
            there(
                [
                    (
                        Origin("", each.source, id=each.id, name=each.name if each.id else ""),
                        each.reason if each.read == "ignored" else "",
                    )
                    for each in found
                ]
            )


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


# --- the engine ---------------------------------------------------------------------------------------


class TailOptions(SinkOptions):
    """Hand records to the one who looks."""

    type: str = "tail"


class TailSink(Sink[TailOptions]):
    """Waits as long as the one who looks takes: then less is read, and nothing is left out."""

    has_deadline = False
    batch_wait_s = 0.02

    def __init__(self, options: TailOptions, context: Any, send: trio.MemorySendChannel[list[Item]]) -> None:
        super().__init__(options, context)
        self._send = send

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        await self._send.send(list(batches))
        return DELIVERED


class _FromSink:
    """What the sink is given, and what becomes of containers: what is said now."""

    def __init__(self, channel: trio.MemoryReceiveChannel[list[Item]]) -> None:
        self._channel = channel

    async def receive(self) -> list[Item]:
        return await self._channel.receive()


def _concerns(daemon: Daemon, match: Match, event: Mapping[str, Any]) -> bool:
    """Whether an error is about a container that is wanted, or about all. It has a name, an id or a path."""
    name, path = str(event.get("container") or ""), str(event.get("path") or "")
    if not name and not path:
        return True
    meant = [
        known.origin
        for source in daemon.sources.running.values()
        for known in source.known()
        if (
            known.origin.name == name or known.origin.id.startswith(name) if name else known.origin.id in path
        )
    ]
    return any(match.decide(origin) for origin in meant or [Origin("", "", name=name)])


def _in_words(event: Mapping[str, Any]) -> str:
    who = event.get("container") or event.get("path")
    why = event.get("error") or event.get("reason")
    return ": ".join(str(part) for part in (who, event.get("event"), why) if part)


async def _reach(host: str | None, said_by: str) -> tuple[EngineAddress, SourceOptions]:
    """The engine there, which answers, and what a source needs to read it. Raises CannotLook."""
    from logroute.sources.engine import Engine, EngineAway, EngineRefused
    from logroute.sources.engine_address import AddressError, EngineAddress

    try:
        address = EngineAddress.resolve(host, said_by=said_by)
        options: Any = SOURCES.options("docker").model_validate({"host": host, "start": "now"})
        options = options.named(said_by)
        engine = Engine(address)
        with trio.fail_after(CONNECT_WITHIN_S):
            await engine.ping()
    except AddressError as error:
        raise Senseless(str(error)) from error
    except (EngineAway, EngineRefused) as error:
        raise NoEngine(str(error) if host else f"there is no daemon, and {error}") from error
    except trio.TooSlowError as error:
        raise NoEngine(f"the engine at {address} does not answer") from error
    return address, options


async def from_engine(
    host: str | None,
    query: Query,
    *,
    show: Show,
    began: Callable[[str], None],
    said_by: str,
    wrong: Callable[[str], None],
    there: There | None = None,
) -> None:
    """Read the engine itself, as a daemon with one route would. Raises CannotLook.

    `said_by`: who has named the host; `wrong` is told what goes wrong with what is wanted.
    """
    address, options = await _reach(host, said_by)
    began(str(address))
    send, receive = trio.open_memory_channel[list[Item]](0)
    plan = Plan(
        [
            RoutePlan(
                RouteSettings(ROUTE, match=query.match),
                lambda route: TailSink(TailOptions(), route, send),
            )
        ],
        [SourcePlan("docker", partial(SOURCES.create, options, SourceContext("docker")))],
        grace_s=0.0,
    )

    def said(event: Mapping[str, Any]) -> None:
        if _concerns(daemon, query.match, event):
            wrong(_in_words(event))

    log.hand_over(said)  # before there are loggers
    daemon = Daemon(plan)

    async def news(view: Any) -> None:
        while True:
            items = [item for item in await view.receive() if isinstance(item, News)]
            if items:
                await show(items)

    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run)
        if there is not None:
            known = [each for source in daemon.sources.running.values() for each in source.known()]
            there([(each.origin, each.reason if each.read == "ignored" else "") for each in known])
        with daemon.router.views.open(query.match, records=False, news=query.news) as view:
            if query.follow:
                nursery.start_soon(news, view)
            await look(daemon, query, show, _FromSink(receive))
        nursery.cancel_scope.cancel()
