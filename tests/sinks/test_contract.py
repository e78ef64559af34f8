"""What the router expects of every sink (`sinks/__init__.py`), checked on each that is registered.

A new sink needs one row in the table below: how it is configured for a test, and how to read what arrived.
"""

from __future__ import annotations

import errno
import inspect
import json
import os
import threading
import time
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
import trio
import trio.testing
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from pydantic import BaseModel, ValidationError

from logroute.config.components import SINKS
from logroute.config.documentation import document
from logroute.config.uri import parse_uri
from logroute.router.position import BEGINNING, Anchor, Position, StreamPosition
from logroute.router.record import STREAMS, Batch, DetailedRecord, Origin, Record, Stream, message_hash
from logroute.sinks import DELIVERED, FileLength, Retryable, Sink, SinkGone, SinkOptions, SinkStatistics
from tests.sinks.forward_receiver import ForwardReceiver, close
from tests.sinks.forward_receiver import in_a_thread as receiving_in_a_thread
from tests.sinks.http_server import HttpServer, Request, answer, in_a_thread
from tests.sinks.relp_receiver import RelpReceiver
from tests.sinks.syslog_parser import octet_counted, parse_rfc5424
from tests.sinks.tcp_receiver import TcpReceiver

MIB = 1 << 20


# --- the table --------------------------------------------------------------------------------------


class Receiver(ABC):
    """What a sink delivers to in a test."""

    exactly_once = False
    """Whether nothing arrives twice when a delivery that failed or was cancelled is made again."""
    for_ever = False
    """Whether a record that is delivered again, whenever and by whom, is not there twice."""
    across_origins = True
    """Whether there is an order among the records of different origins."""
    keeps = True
    """Whether what arrived can be read at all."""
    not_in_uris: typing.ClassVar[set[str]] = set()
    """Options that stand for what a URI is."""
    companions: typing.ClassVar[dict[str, tuple[str, str]]] = {}
    """Options that mean something only beside another one, and that one with its value."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The sink's options without `type`."""

    @property
    @abstractmethod
    def uri(self) -> str:
        """The same as a URI."""

    def attach(self, sink: Any) -> None:  # noqa: B027 # most need nothing
        """Lead the sink to this receiver where its options do not."""

    def records(self) -> list[dict[str, Any]]:
        """Every record that arrived, in the shape of JSON records as far as the receiver knows it."""
        return []

    def arrived(self) -> list[tuple[str, str]]:
        """(`source` of it, message) of each."""
        return [(record["container"]["name"], record["message"]) for record in self.records()]

    def source(self, origin: Origin, record: Record) -> str:
        """Whose records have an order, where there is none across origins."""
        return origin.name

    def shown(self, message: str) -> str:
        """What arrives of a message: text as UTF-8 can express it."""
        return shown(message)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Meanwhile the first attempt to deliver something fails, half-way."""
        yield

    def close(self) -> None:  # noqa: B027 # most hold nothing
        pass


class NullReceiver(Receiver):
    keeps = False
    options: typing.ClassVar[dict[str, Any]] = {}
    uri = "null:"


class FileReceiver(Receiver):
    exactly_once = True

    @property
    def path(self) -> Path:
        return self.folder / "out.ndjson"

    @property
    def options(self) -> dict[str, Any]:
        return {"path": str(self.path)}

    @property
    def uri(self) -> str:
        return f"file://{self.path}"

    def records(self) -> list[dict[str, Any]]:
        return parsed(self.path.read_bytes()) if self.path.exists() else []

    @contextmanager
    def refusing(self) -> Iterator[None]:
        with half_a_write():
            yield


class StdoutReceiver(Receiver):
    """A file, in the place of descriptor 1."""

    options: typing.ClassVar[dict[str, Any]] = {}
    uri = "stdout:"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.fd = os.open(folder / "stdout", os.O_RDWR | os.O_CREAT | os.O_APPEND)

    def attach(self, sink: Any) -> None:
        sink.fd = self.fd

    def records(self) -> list[dict[str, Any]]:
        return parsed((self.folder / "stdout").read_bytes())

    @contextmanager
    def refusing(self) -> Iterator[None]:
        with half_a_write():
            yield

    def close(self) -> None:
        os.close(self.fd)


class SearchReceiver(Receiver):
    """A server that has one document for each id."""

    exactly_once = True
    for_ever = True
    across_origins = False
    not_in_uris: typing.ClassVar = {"cloud_id"}
    companions: typing.ClassVar = {
        "tls.key": ("tls.cert", "/x/client.pem"),
        "auth.username": ("auth.password", "p"),
        "auth.password": ("auth.username", "ada"),
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.documents: dict[str, dict[str, Any]] = {}
        self.server = HttpServer(otherwise=self.create)
        self._running = ExitStack()
        self._running.enter_context(in_a_thread(self.server))

    async def create(self, stream: trio.SocketStream, request: Request) -> None:
        items: list[dict[str, Any]] = []
        lines = [json.loads(line) for line in request.body.splitlines()]
        for action, source in zip(lines[::2], lines[1::2], strict=True):
            id_ = action["create"]["_id"]
            there = id_ in self.documents
            self.documents.setdefault(id_, source)
            error = {"error": {"type": "version_conflict_engine_exception", "reason": "it is there"}}
            items.append({"create": {"status": 409, **error} if there else {"status": 201}})
        errors = any("error" in item["create"] for item in items)
        body = json.dumps({"errors": errors, "items": items}).encode()
        await answer(200, body, content_type="application/json")(stream, request)

    @property
    def options(self) -> dict[str, Any]:
        return {"hosts": [self.server.url], "index": "logs"}

    @property
    def uri(self) -> str:
        return f"elasticsearch+{self.server.url}/logs"

    def records(self) -> list[dict[str, Any]]:
        return list(self.documents.values())

    @contextmanager
    def refusing(self) -> Iterator[None]:
        self.server.behaviours.append(answer(503))
        yield
        assert not self.server.behaviours

    def close(self) -> None:
        self._running.close()


class HttpReceiver(Receiver):
    """A server that reads a request, then answers."""

    companions: typing.ClassVar = {
        "tls.key": ("tls.cert", "/x/client.pem"),
        "password": ("username", "ada"),
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.server = HttpServer()
        self._running = ExitStack()
        self._running.enter_context(in_a_thread(self.server))

    @property
    def options(self) -> dict[str, Any]:
        return {"url": self.uri}

    @property
    def uri(self) -> str:
        return f"{self.server.url}/in"

    def records(self) -> list[dict[str, Any]]:
        return [record for body in self.server.bodies for record in parsed(body)]

    @contextmanager
    def refusing(self) -> Iterator[None]:
        self.server.behaviours.append(answer(503))
        yield
        assert not self.server.behaviours

    def close(self) -> None:
        self._running.close()


class LokiReceiver(HttpReceiver):
    """A server that takes Loki's pushes: stdout and stderr are streams of their own."""

    across_origins = False

    @property
    def options(self) -> dict[str, Any]:
        return {"url": self.server.url, "encoding": "loki"}

    @property
    def uri(self) -> str:
        return f"loki+{self.server.url}"

    def records(self) -> list[dict[str, Any]]:
        return [
            {
                "container": {"name": f"{stream['stream']['container']} {stream['stream']['stream']}"},
                "message": line,
            }
            for body in self.server.bodies
            for stream in json.loads(body)["streams"]
            for _, line in stream["values"]
        ]

    def source(self, origin: Origin, record: Record) -> str:
        return f"{origin.name} {record.stream}"


class OtlpReceiver(HttpReceiver):
    """A server that takes OpenTelemetry's logs, read with its library."""

    across_origins = False

    @property
    def options(self) -> dict[str, Any]:
        return {"url": self.server.url, "encoding": "otlp"}

    @property
    def uri(self) -> str:
        return f"otlp+{self.server.url}"

    def records(self) -> list[dict[str, Any]]:
        return [
            {"container": {"name": each.value.string_value}, "message": log.body.string_value}
            for body in self.server.bodies
            for resource in ExportLogsServiceRequest.FromString(body).resource_logs
            for each in resource.resource.attributes
            if each.key == "container.name"
            for scope in resource.scope_logs
            for log in scope.log_records
        ]


class SplunkReceiver(HttpReceiver):
    """A server that answers as Splunk does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.server.otherwise = answer(200, b'{"text":"Success","code":0}')

    @property
    def options(self) -> dict[str, Any]:
        return {"url": self.server.url, "encoding": "splunk"}

    @property
    def uri(self) -> str:
        return f"splunk+{self.server.url}"

    def records(self) -> list[dict[str, Any]]:
        found = []
        for body in self.server.bodies:
            for given in parsed(body):
                event = given["event"]
                message = event["message"] if isinstance(event, dict) else event
                found.append({"container": {"name": given["fields"]["container_name"]}, "message": message})
        return found


class StreamReceiver(Receiver):
    """A receiver of a stream that answers nothing."""

    companions: typing.ClassVar = {"tls.key": ("tls.cert", "/x/client.pem")}
    scheme: typing.ClassVar[str]

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver = TcpReceiver()

    @property
    def options(self) -> dict[str, Any]:
        return {"address": f"tcp://127.0.0.1:{self.receiver.port}"}

    @property
    def uri(self) -> str:
        return f"{self.scheme}+{self.options['address']}"

    @contextmanager
    def refusing(self) -> Iterator[None]:
        self.receiver.refuse()
        yield
        self.receiver.accept()

    def close(self) -> None:
        self.receiver.close()


class GelfReceiver(StreamReceiver):
    """A receiver of a stream of messages, each of which ends with a NUL."""

    scheme = "gelf"

    def records(self) -> list[dict[str, Any]]:
        self.receiver.settle()
        given = [
            json.loads(text) for stream in self.receiver.received for text in bytes(stream).split(b"\0")[:-1]
        ]
        return [
            {"container": {"name": each["_container_name"]}, "message": each["short_message"]}
            for each in given
        ]

    def shown(self, message: str) -> str:
        return "-" if not message or message.isspace() else shown(message)


class ForwardSinkReceiver(Receiver):
    """A receiver that acknowledges at once. A delivery is a message for each tag, and so for each origin."""

    across_origins = False
    companions: typing.ClassVar = {
        "tls.key": ("tls.cert", "/x/client.pem"),
        "username": ("shared_key", "key"),
        "password": ("shared_key", "key"),
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver = ForwardReceiver()
        self._running = ExitStack()
        self._running.enter_context(receiving_in_a_thread(self.receiver))

    @property
    def options(self) -> dict[str, Any]:
        return {"address": f"tcp://127.0.0.1:{self.receiver.port}"}

    @property
    def uri(self) -> str:
        return f"forward://127.0.0.1:{self.receiver.port}"

    def records(self) -> list[dict[str, Any]]:
        return self.receiver.records()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        self.receiver.behaviours.append(close)
        yield
        assert not self.receiver.behaviours

    def close(self) -> None:
        self._running.close()


class RelpSinkReceiver(Receiver):
    """A receiver that acknowledges each message at once. Messages are cut, as by the other ways of syslog."""

    companions: typing.ClassVar = {"tls.key": ("tls.cert", "/x/client.pem")}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver = RelpReceiver()

    @property
    def options(self) -> dict[str, Any]:
        return {"address": f"tcp://127.0.0.1:{self.receiver.port}"}

    @property
    def uri(self) -> str:
        return f"relp://127.0.0.1:{self.receiver.port}"

    def records(self) -> list[dict[str, Any]]:
        found = []
        for frame in self.receiver.messages:
            message = parse_rfc5424(frame)
            text = message.text.removesuffix(" [truncated]")
            found.append({"container": {"name": message.app_name}, "message": text})
        return found

    def arrived(self) -> list[tuple[str, str]]:
        return [(name, self.shown(message)) for name, message in super().arrived()]

    def shown(self, message: str) -> str:
        return shown(message).encode()[:4096].decode(errors="ignore")

    @contextmanager
    def refusing(self) -> Iterator[None]:
        self.receiver.behaviours.append(lambda *_: None)
        yield
        assert not self.receiver.behaviours

    def close(self) -> None:
        self.receiver.close()


class SyslogReceiver(StreamReceiver):
    """A receiver that reads at once. Messages are cut: of long ones only the beginning counts."""

    scheme = "syslog"

    def records(self) -> list[dict[str, Any]]:
        self.receiver.settle()
        found = []
        for stream in self.receiver.received:
            for frame in octet_counted(bytes(stream)):
                message = parse_rfc5424(frame)
                text = message.text.removesuffix(" [truncated]")
                found.append({"container": {"name": message.app_name}, "message": text})
        return found

    def arrived(self) -> list[tuple[str, str]]:
        return [(name, self.shown(message)) for name, message in super().arrived()]

    def shown(self, message: str) -> str:
        return shown(message).encode()[:4096].decode(errors="ignore")


RECEIVERS: dict[str, type[Receiver]] = {
    "elasticsearch": SearchReceiver,
    "file": FileReceiver,
    "forward": ForwardSinkReceiver,
    "gelf": GelfReceiver,
    "http": HttpReceiver,
    "http: loki": LokiReceiver,
    "http: otlp": OtlpReceiver,
    "http: splunk": SplunkReceiver,
    "null": NullReceiver,
    "relp": RelpSinkReceiver,
    "stdout": StdoutReceiver,
    "syslog": SyslogReceiver,
}


def parsed(data: bytes) -> list[dict[str, Any]]:
    """Lines of JSON. One that a failure has cut short may stand there, if it ends where the next begins."""
    found = []
    for line in data.split(b"\n")[:-1]:
        try:
            found.append(json.loads(line))
        except ValueError:
            assert line in TORN
    return found


TORN: set[bytes] = set()
"""Beginnings of lines that `half_a_write` has let through."""


@contextmanager
def half_a_write() -> Iterator[None]:
    """The next write takes half of what it was given; then the disk is full."""
    real = os.write
    left = [1, 0]

    def write(fd: int, data: Any) -> int:
        if not left:
            return real(fd, data)
        if left.pop(0):
            written = real(fd, bytes(data)[: len(data) // 2])
            TORN.add(bytes(data)[:written].rpartition(b"\n")[2])
            return written
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", write)
        yield
        assert not left


# --- what all tests use -----------------------------------------------------------------------------


class Context:
    """What the router gives a sink; what it has stored survives the sink."""

    route = "all"

    def __init__(self, folder: Path) -> None:
        self.state_dir = str(folder)
        self.files: dict[str, FileLength] = {}

    async def commit(self) -> None:
        await trio.lowlevel.checkpoint()

    def unconfirmed(self, records: int) -> None: ...

    def warn(self, event: str, **details: object) -> None: ...


class Bench:
    """A sink of one type, and its receiver."""

    def __init__(self, row: str, folder: Path) -> None:
        self.row = row
        self.type = type_ = row.partition(":")[0]
        self.receiver = RECEIVERS[row](folder)
        self.context = Context(folder)
        self.model: type[SinkOptions] = SINKS.options(type_)  # type: ignore[assignment]  # of a sink
        self.cls: type[Sink[Any]] = SINKS.class_of(type_)

    def make(self) -> Sink[Any]:
        """A sink that is not open."""
        options = self.model.model_validate({"type": self.type, **self.receiver.options})
        sink: Sink[Any] = SINKS.create(options, self.context)
        self.receiver.attach(sink)
        return sink

    async def open(self) -> Sink[Any]:
        sink = self.make()
        await sink.open()
        return sink

    def check(self, *expected: Batch) -> None:
        """Everything has arrived; once, where the sink promises it; and in order."""
        if not self.receiver.keeps:
            return
        wanted = [
            (self.receiver.source(each.origin, r), self.receiver.shown(r.message))
            for each in expected
            for r in each.records
        ]
        arrived = self.receiver.arrived()
        if not self.receiver.across_origins:
            wanted.sort(key=itemgetter(0))
            arrived = sorted(arrived, key=itemgetter(0))
        if self.receiver.exactly_once:
            assert arrived == wanted
            return
        # Whatever came twice: where each came for the last time, they are everything, and in order.
        if arrived != wanted:
            assert len(set(wanted)) == len(wanted)
            assert list(dict.fromkeys(reversed(arrived))) == wanted[::-1]


@pytest.fixture(params=sorted(RECEIVERS))
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(request.param, tmp_path)
    yield made
    made.receiver.close()


def origin(name: str = "web") -> Origin:
    return Origin(f"docker:{name}", "docker", id=name * 12, name=name, labels={"team": "a.b"})


WEB = origin()
_numbers = iter(range(1, 999_999_999))


def time_of(number: int) -> str:
    return f"2026-11-23T20:06:26.{number:09d}Z"


def batch(*messages: str, of: Origin = WEB, stream: Stream = "stdout") -> Batch:
    records = [Record(message, stream, time_of(next(_numbers))) for message in messages]
    return Batch(of, records, before=BEGINNING, after=BEGINNING, size_bytes=100 * len(records))


def shown(message: str) -> str:
    """Text as UTF-8 can express it."""
    return message.encode("utf-8", "replace").decode()


def test_every_sink_has_a_row_in_the_table() -> None:
    builtin = {name for name in SINKS.types() if SINKS.class_of(name).__module__.startswith("logroute.")}
    assert builtin == {name.partition(":")[0] for name in RECEIVERS}


# --- delivering -------------------------------------------------------------------------------------


async def test_all_records_arrive_in_order(bench: Bench) -> None:
    sink = await bench.open()
    batches = [batch(*(f"{n}.{i}" for i in range(n + 1))) for n in range(5)]
    assert await sink.deliver(batches[:3]) == DELIVERED
    assert await sink.deliver(batches[3:]) == DELIVERED
    await sink.close()
    bench.check(*batches)


async def test_records_of_many_origins_keep_their_order_and_their_origin(bench: Bench) -> None:
    sink = await bench.open()
    origins = [origin(f"c{n}") for n in range(50)]
    batches = [
        batch(f"{of.name} {i}", f"{of.name} {i}'", of=of, stream=("stdout", "stderr")[i % 2])
        for i in range(4)
        for of in origins
    ]
    assert await sink.deliver(batches) == DELIVERED
    await sink.close()
    bench.check(*batches)


async def test_as_much_as_one_delivery_may_take(bench: Bench) -> None:
    assert bench.cls.batch_bytes >= 1024
    assert bench.cls.batch_records >= 1
    assert bench.cls.batch_wait_s >= 0
    sink = await bench.open()
    many = batch(*(f"line {n} of many" for n in range(bench.cls.batch_records)))
    assert await sink.deliver([many]) == DELIVERED
    await sink.close()
    bench.check(many)


async def test_nothing_to_deliver_is_delivered(bench: Bench) -> None:
    sink = await bench.open()
    one = batch("one")
    assert await sink.deliver([]) == DELIVERED
    assert await sink.deliver([batch(), batch(of=origin("db"))]) == DELIVERED
    assert bench.receiver.arrived() == []
    assert await sink.deliver([batch(), one, batch()]) == DELIVERED
    await sink.close()
    bench.check(one)


ODD = {
    "empty": "",
    "NUL": "a\x00b\x00",
    "controls": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "newlines": "\nfirst\n\nsecond\r\n",
    "escapes": "\x1b[31mred\x1b[0m \x1b]0;title\x07",
    "quotes": '"\\" \' { } %s {message} \\n \\u0000',
    "half a pair": "a\ud800b\udfff\udc00\ud800",
    "not UTF-8": b"caf\xe9".decode("utf-8", "surrogateescape"),
    "beyond": "\U0001f600\u2028\u2029\u202e\ufeff\uffff",
    "json": '{"message": "inner", "container": {"name": "db"}}\n{"message": "two"}',
    "long": "é" * (MIB // 2) + "\n" + "x" * MIB,
}


@pytest.mark.parametrize("message", ODD.values(), ids=ODD)
async def test_any_text_is_delivered_and_harms_nothing_beside_it(bench: Bench, message: str) -> None:
    sink = await bench.open()
    odd = batch("before", message, "after", message)
    odd_name = Origin("docker:x", "docker", id="x" * 64, name="x", labels={"k": message[:200]})
    more = batch("of an odd origin", of=odd_name)
    assert await sink.deliver([odd, more]) == DELIVERED
    await sink.close()
    bench.check(odd, more)


async def test_records_with_details_arrive_too(bench: Bench) -> None:
    sink = await bench.open()
    records: list[Record] = [
        DetailedRecord("a", "stdout", time_of(1), level="error", fields={"n": {"y": [None, "\ud800"]}}),
        DetailedRecord("b", "stderr", time_of(2), truncated=True, sequence=3),
        DetailedRecord("c", "stderr", time_of(2), place="fingerprint-12", part=".1"),
        Record("d", "stdout", "not a time"),
        Record("e", "stdout", time_of(3)),
    ]  # fmt: skip
    each = Batch(WEB, records, before=BEGINNING, after=BEGINNING, size_bytes=1)
    assert await sink.deliver([each]) == DELIVERED
    await sink.close()
    bench.check(each)


# --- failing and being cancelled --------------------------------------------------------------------


async def test_what_failed_is_delivered_by_the_next_attempt(bench: Bench) -> None:
    sink = await bench.open()
    first, second = batch("1", "2"), batch(*(f"{n} of the second" for n in range(1000)))
    await sink.deliver([first])
    if bench.receiver.keeps:
        with bench.receiver.refusing(), pytest.raises(Retryable) as refused:
            await sink.deliver([second])
        assert str(refused.value)
    await sink.open()
    assert await sink.deliver([second]) == DELIVERED
    await sink.close()
    bench.check(first, second)


async def cancelled_after(steps: int, sink: Sink[Any], batches: Sequence[Batch]) -> bool:
    """Deliver, and cancel once the delivery has made so many steps; whether it was cancelled."""
    with trio.CancelScope() as scope:

        class Cancel(trio.abc.Instrument):
            left = steps

            def after_task_step(self, task: trio.lowlevel.Task) -> None:
                if task is delivering:
                    self.left -= 1
                    if self.left < 0:
                        scope.cancel()

        delivering = trio.lowlevel.current_task()
        instrument = Cancel()
        trio.lowlevel.add_instrument(instrument)
        try:
            if steps == 0:
                scope.cancel()
            await sink.deliver(batches)
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancelled_caught


@pytest.mark.parametrize("anew", [False, True], ids=["the same sink", "a new sink"])
async def test_a_cancelled_delivery_is_delivered_by_the_next_attempt(
    bench: Bench, tmp_path: Path, anew: bool
) -> None:
    """Cancelled at its n-th await, for each n that it has. The router sends all of it again."""
    first, second = batch("1", "2"), batch(*(f"{n} of the second" for n in range(5000)))
    third = batch("3", "4")
    cancelled = True
    steps = 0
    while cancelled:
        folder = tmp_path / str(steps)
        folder.mkdir()
        again = Bench(bench.row, folder)
        sink = await again.open()
        await sink.deliver([first])
        cancelled = await cancelled_after(steps, sink, [second])
        if cancelled:
            if anew:  # as after a stop and a start
                await sink.close()
                sink = again.make()
            await sink.open()
            outcome = await sink.deliver([second])
            assert not outcome.rejected
            assert not outcome.postponed
            assert not outcome.duplicates or again.receiver.for_ever
        assert await sink.deliver([third]) == DELIVERED
        await sink.close()
        again.check(first, second, third)
        again.receiver.close()
        steps += 1
    assert steps > 1 or not bench.receiver.keeps


async def test_a_sink_that_was_cancelled_can_be_closed(bench: Bench) -> None:
    sink = await bench.open()
    await cancelled_after(1, sink, [batch("1")])
    with trio.fail_after(10):
        await sink.close()


# --- its life ---------------------------------------------------------------------------------------


async def test_closing_is_always_possible(bench: Bench) -> None:
    sink = bench.make()
    await sink.close()
    await sink.close()
    sink = await bench.open()
    await sink.close()
    await sink.close()


async def test_a_sink_may_be_opened_again_without_having_been_closed(bench: Bench) -> None:
    sink = await bench.open()
    one, two, three = batch("1"), batch("2"), batch("3")
    await sink.open()
    await sink.deliver([one])
    await sink.open()
    await sink.deliver([two])
    await sink.close()
    await sink.open()
    await sink.deliver([three])
    await sink.close()
    bench.check(one, two, three)


async def test_a_restart_goes_on_where_the_last_run_ended(bench: Bench) -> None:
    one, two = batch("1"), batch("2")
    sink = await bench.open()
    await sink.deliver([one])
    await sink.close()
    sink = await bench.open()
    await sink.deliver([two])
    await sink.close()
    bench.check(one, two)


async def test_what_it_counts_are_numbers_that_grow(bench: Bench) -> None:
    sink = await bench.open()
    before = sink.statistics()
    await sink.deliver([batch("1")])
    after = sink.statistics()
    assert isinstance(after, SinkStatistics)
    assert {*after.shown()} == {*type(after).events} <= {*after.__struct_fields__}
    assert all(type(n) is int and n >= before.shown()[name] for name, n in after.shown().items())
    await sink.close()


async def test_tidying_up_and_background_work_do_no_harm(bench: Bench) -> None:
    sink = await bench.open()
    one, two = batch("1"), batch("2")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.run)
        await sink.idle()
        await sink.deliver([one])
        await sink.idle()
        await sink.deliver([two])
        with trio.move_on_after(0.05):
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()
    await sink.close()
    assert sink.idle_s is None or sink.idle_s > 0
    bench.check(one, two)


# --- its neighbours ---------------------------------------------------------------------------------


@pytest.fixture(params=["rising", "equal"])
def as_a_source_gives_it(request: pytest.FixtureRequest) -> Callable[[], Batch]:
    """Lines with their newlines, times with zeros trimmed, rising or equal: not made ready yet."""
    rising = ["26.1234567Z", "26.12345678Z", "26.123456789Z"]
    return lambda: unready(rising if request.param == "rising" else ["26.1Z", "26.12Z", "26.12Z"])


def unready(seconds: Sequence[str]) -> Batch:
    times = [f"2026-11-23T20:06:{each}" for each in seconds]
    equal = len(set(times)) < len(times)
    lines = [(time, stream) for time in times for stream in (STREAMS if equal else STREAMS[:1])]
    records = [
        Record(f"{i} \ud800 {i}\n" if equal and i % 2 else f"{i}\n", stream, time)
        for i, (time, stream) in enumerate(lines)
    ]
    # The first record may be the fifth of its time.
    before = times[0][:-1].ljust(29, "0") + "Z" if equal else "2026-11-23T20:06:25.000000000Z"
    last = StreamPosition(anchor=Anchor(before, 4, message_hash("x")))
    return Batch(WEB, records, before=Position(last, last), after=BEGINNING, size_bytes=1, newlines=True)


async def test_the_batches_that_others_hold_too_are_not_changed(
    bench: Bench, as_a_source_gives_it: Callable[[], Batch]
) -> None:
    sink = await bench.open()
    given, untouched = as_a_source_gives_it(), as_a_source_gives_it()
    plain = batch("a", "b\x00", "\ud800")
    before = [msgspec.structs.asdict(record) for record in plain.records]
    places = (given.before, given.after, given.size_bytes, given.acknowledged)
    await sink.deliver([given, plain])
    await sink.close()
    # Making a batch ready is the batch's own; whoever asks for its records sees what it would have seen.
    assert given.records == untouched.records
    assert [type(r) for r in given.records] == [type(r) for r in untouched.records]
    assert [msgspec.structs.asdict(record) for record in plain.records] == before
    assert (given.before, given.after, given.size_bytes, given.acknowledged) == places
    assert (given.origin, given.origin.constants()) == (WEB, origin().constants())


async def test_what_arrives_does_not_depend_on_who_had_the_batch_before(
    bench: Bench, tmp_path: Path, as_a_source_gives_it: Callable[[], Batch]
) -> None:
    fresh, shared = as_a_source_gives_it(), as_a_source_gives_it()
    for name in sorted(RECEIVERS):
        folder = tmp_path / f"neighbour-{name.replace(' ', '')}"
        folder.mkdir()
        neighbour = Bench(name, folder)
        sink = await neighbour.open()
        await sink.deliver([shared])
        await sink.close()
        neighbour.receiver.close()
    sink = await bench.open()
    await sink.deliver([fresh])
    bench.check(as_a_source_gives_it())
    first = bench.receiver.records()
    await sink.deliver([shared])
    await sink.close()
    assert bench.receiver.records() == first * (1 if bench.receiver.for_ever else 2)


# What may wait for a disk, a network or a reader.
BLOCKING = (
    "open", "write", "pwrite", "writev", "read", "pread", "fsync", "fdatasync", "ftruncate", "truncate",
    "rename", "replace", "link", "symlink", "unlink", "remove", "mkdir", "rmdir", "listdir", "scandir",
    "stat", "lstat", "access", "chmod", "chown", "utime", "sendfile", "copy_file_range",
)  # fmt: skip


async def test_nothing_that_may_block_happens_on_the_trio_thread(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = threading.current_thread()
    found: list[str] = []

    def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            # Looking at a descriptor that is open waits for nobody.
            if threading.current_thread() is main and not (name == "stat" and isinstance(args[0], int)):
                found.append(f"os.{name}{args}")
            return real(*args, **more)

        return call

    sink = bench.make()
    for name in BLOCKING:
        monkeypatch.setattr(os, name, watched(name, getattr(os, name)))
    async with trio.open_nursery() as nursery:
        await sink.open()
        nursery.start_soon(sink.run)
        await sink.deliver([batch("1", "2"), batch("3", of=origin("db"))])
        await sink.idle()
        await sink.deliver([batch("4")])
        nursery.cancel_scope.cancel()
    await sink.close()
    monkeypatch.undo()
    assert found == []


async def test_a_receiver_that_is_slow_delays_nothing_but_its_own_delivery(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system finishes no write before the daemon has done something else."""
    real, goes_on = os.write, threading.Event()
    in_vain: list[int] = []

    def write(fd: int, data: bytes) -> int:
        if not goes_on.wait(5):
            in_vain.append(fd)
        return real(fd, data)

    async def go_on() -> None:
        for _ in range(10):
            await trio.sleep(0.001)
        goes_on.set()

    sink = await bench.open()
    monkeypatch.setattr(os, "write", write)
    one = batch("1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(go_on)
        await sink.deliver([one])
    monkeypatch.undo()
    assert in_vain == []
    await sink.close()
    bench.check(one)


async def test_a_delivery_that_was_cancelled_in_the_middle_of_a_write_comes_before_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread cannot be cancelled: it goes on writing, and nothing may come between."""
    real = os.write

    def write(fd: int, data: Any) -> int:
        time.sleep(0.05)
        return real(fd, bytes(data)[:4096])

    sink = await bench.open()
    first, second = batch(*(f"{n} of the first" for n in range(80))), batch("of the second")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with trio.move_on_after(0.07):
            await sink.deliver([first])
        await sink.open()
        await sink.deliver([first])
        await sink.deliver([second])
    await sink.close()
    bench.check(first, second)


async def test_a_full_pipe_stops_stdout_and_nothing_else(tmp_path: Path) -> None:
    bench = Bench("stdout", tmp_path)
    read, write = os.pipe()
    sink = bench.make()
    typing.cast(Any, sink).fd = write
    await sink.open()
    done, got = trio.Event(), bytearray()

    async def deliver() -> None:
        await sink.deliver([batch("x" * 300_000)])
        done.set()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver)
            for _ in range(20):
                await trio.sleep(0.01)
            assert not done.is_set()
            while not got.endswith(b"\n"):
                got += await trio.to_thread.run_sync(os.read, read, 65536)
        # SinkGone, and nothing else, is what a reader that goes away means.
        os.close(read)
        with pytest.raises(SinkGone):
            await sink.deliver([batch("y")])
    assert json.loads(got)["message"] == "x" * 300_000
    await sink.close()
    os.close(write)
    bench.receiver.close()


# --- options ----------------------------------------------------------------------------------------


def test_the_uri_and_the_mapping_are_the_same_model(bench: Bench) -> None:
    given = bench.model.model_validate({"type": bench.type, **bench.receiver.options})
    assert bench.model.model_validate(parse_uri(bench.receiver.uri)) == given


def below(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel], str]]:
    """(dotted path, model, name) of every option, those of nested models too."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from below(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, model, name


def nested(path: str, value: object) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    return {head: nested(rest, value) if rest else value}


def merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def flat(path: str, value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, below_it in value.items():
        if isinstance(below_it, dict):
            yield from flat(f"{path}.{key}", below_it)
        else:
            yield f"{path}.{key}", below_it


def test_every_option_can_be_given_in_the_uri_and_in_the_mapping_alike(bench: Bench) -> None:
    for path, model, name in below(bench.model):
        field = model.model_fields[name]
        examples = field.examples or ([] if field.default is None else [field.default])
        if path == "type" or path in bench.receiver.options or path in bench.receiver.not_in_uris:
            continue
        assert examples, f"{bench.type}: {path} has neither a default nor an example"
        for example in examples:
            given = [(path, f"{example:g}s" if isinstance(example, float) else example)]  # a duration
            if isinstance(example, dict):
                given = [*flat(path, example)]
            if path in bench.receiver.companions:
                given.append(bench.receiver.companions[path])
            mapping: dict[str, Any] = {"type": bench.type, **bench.receiver.options}
            for each, value in given:
                merge(mapping, nested(each, value))
            text = "&".join(
                f"{each}={quote(str(value).lower() if isinstance(value, bool) else str(value))}"
                for each, value in given
            )
            by_mapping = bench.model.model_validate(mapping)
            assert bench.model.model_validate(parse_uri(f"{bench.receiver.uri}?{text}")) == by_mapping, path
            assert json.loads(by_mapping.model_dump_json()), path


def test_every_option_says_what_it_is(bench: Bench) -> None:
    document(bench.model)
    for path, model, name in below(bench.model):
        if path != "type":
            description = model.model_fields[name].description
            assert description, f"{bench.type}: {path} has no description"
            assert description[0].isupper() or description[0] == "`"
            assert description.endswith(".")
    assert inspect.getdoc(bench.model) != inspect.getdoc(SinkOptions)
    assert inspect.getdoc(inspect.getmodule(bench.cls)), "the module says what it owns"


def test_an_option_that_does_not_exist_is_a_mistake(bench: Bench) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        bench.model.model_validate({"type": bench.type, **bench.receiver.options, "colour": "red"})
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        bench.model.model_validate(parse_uri(f"{bench.receiver.uri}?colour=red"))


def test_options_do_not_change(bench: Bench) -> None:
    options = bench.model.model_validate({"type": bench.type, **bench.receiver.options})
    with pytest.raises(ValidationError, match="frozen"):
        options.type = "other"  # type: ignore[attr-defined]  # of every subclass
