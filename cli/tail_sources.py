"""Where `logroute tail` has its records from: a daemon that runs, or the engine itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import trio

from logroute.api.address import Address
from logroute.config.components import PROCESSORS, SOURCES
from logroute.processors import ProcessorOptions
from logroute.router.chain import StagePlan
from logroute.router.daemon import Daemon
from logroute.router.look import Problem, Query, Shown, look
from logroute.router.plan import Plan, RoutePlan, SourcePlan
from logroute.router.position import BEGINNING
from logroute.router.record import Batch, DetailedRecord, Image, Origin, Record, Stream
from logroute.router.route import RouteSettings
from logroute.router.views import Event, Item, News, Skipped
from logroute.sinks import DELIVERED, Outcome, Sink, SinkOptions
from logroute.sources import SourceContext

ROUTE = "tail"
CONNECT_WITHIN_S = 5.0

Show = Callable[[Sequence[Shown]], Awaitable[None]]


class CannotLook(Exception):
    """There is nothing to be seen; the text says why."""


class NoEngine(CannotLook):
    """No engine answers."""


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
    address: Address, token: str, query: Sequence[tuple[str, str]], *, whole: bool, show: Show, raw: Any
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
                    raise CannotLook(detail)
                async for data in answer.aiter_raw():
                    if whole:
                        await raw(data)
                    else:
                        await show(decoder.feed(data))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NoDaemon(f"no daemon answers at {address}: {error}") from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise CannotLook(f"the daemon at {address} has ended the answer: {reason}") from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CannotLook(f"what answers at {address} is no logroute: {error}") from error


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


async def from_engine(
    host: str | None, query: Query, *, parse: bool, show: Show, began: Callable[[str], None]
) -> None:
    """Read the engine itself, as a daemon with one route would. Raises CannotLook."""
    from logroute.sources.engine import Engine, EngineAway, EngineRefused
    from logroute.sources.engine_address import AddressError

    options: Any = SOURCES.options("docker").model_validate({"host": host, "start": "now"})
    try:
        address = options.address()
        engine = Engine(address)
        with trio.fail_after(CONNECT_WITHIN_S):
            await engine.ping()
    except AddressError as error:
        raise CannotLook(str(error)) from error
    except (EngineAway, EngineRefused) as error:
        raise NoEngine(str(error) if host else f"there is no daemon, and {error}") from error
    except trio.TooSlowError as error:
        raise NoEngine(f"the engine at {address} does not answer") from error
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
        processors=_stages("json", "level") if parse else [],
    )
    daemon = Daemon(plan)

    async def news(view: Any) -> None:
        while True:
            items = [item for item in await view.receive() if isinstance(item, News)]
            if items:
                await show(items)

    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run)
        with daemon.router.views.open(query.match, records=False, news=query.news) as view:
            if query.follow:
                nursery.start_soon(news, view)
            await look(daemon, query, show, _FromSink(receive))
        nursery.cancel_scope.cancel()


def _stages(*types: str) -> list[StagePlan]:
    plans: list[StagePlan] = []
    for name in types:
        options = PROCESSORS.options(name).model_validate({})
        assert isinstance(options, ProcessorOptions)
        plans.append(StagePlan(name, options.when, partial(PROCESSORS.create, options), name))
    return plans
