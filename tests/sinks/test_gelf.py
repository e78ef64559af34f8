"""GELF: messages as Graylog's specification has them, by UDP in chunks, by TCP and TLS, and over HTTP."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from logroute.config.uri import parse_uri
from logroute.router.position import BEGINNING
from logroute.router.record import Batch, DetailedRecord, Image, Origin, Record, Stream
from logroute.sinks import DELIVERED, Retryable
from logroute.sinks.gelf import GelfOptions, GelfSink
from logroute.sinks.gelf_message import MOST_CHUNKS, Chunker, Compress, GelfMessages
from tests.servers.rsyslog import free_port
from tests.sinks import datagram_receiver
from tests.sinks.conftest import Making
from tests.sinks.datagram_receiver import Narrow, udp_socket
from tests.sinks.http_server import HttpServer, Request, answer
from tests.sinks.tcp_receiver import TcpReceiver
from tests.sinks.test_syslog import Counting

TIME = "2026-11-23T20:06:26.123456789Z"
WEB = Origin(
    "docker:web",
    "docker",
    id="c" * 64,
    name="web",
    host="node",
    image=Image("api", "2"),
    labels={"com.docker.compose.project": "shop", "team name": "pay", "id": "7"},
)


def line(text: str, stream: Stream = "stdout", at: str = TIME) -> Record:
    return Record(text, stream, at)


def batch(*records: Record | str, of: Origin = WEB) -> Batch:
    lines = [line(each) if isinstance(each, str) else each for each in records]
    return Batch(of, lines, before=BEGINNING, after=BEGINNING, size_bytes=100)


def messages(given: Batch) -> list[dict[str, Any]]:
    made = GelfMessages().encode(given)
    for message in made:
        is_gelf(message)
    return [json.loads(message) for message in made]


def is_gelf(message: bytes) -> None:
    """What the specification (1.1) asks of any message."""
    fields = json.loads(message)
    assert fields["version"] == "1.1"
    assert isinstance(fields["host"], str)
    assert fields["host"]
    assert fields["short_message"].strip(), "Graylog refuses an empty one"
    assert isinstance(fields["timestamp"], int | float)
    assert 0 <= fields["level"] <= 7
    assert "_id" not in fields
    for name, value in fields.items():
        if name not in ("version", "host", "short_message", "timestamp", "level"):
            assert re.fullmatch(r"_[\w.\-]*", name, re.ASCII), name
            assert isinstance(value, str | int | float)
            assert not isinstance(value, bool)


# --- messages -----------------------------------------------------------------------------------------


def test_a_message_has_its_container_and_its_stable_id() -> None:
    record = line("a", "stderr")
    (message,) = messages(batch(record))
    assert message == {
        "version": "1.1",
        "host": "node",
        "short_message": "a",
        "timestamp": 1795464386.123456789,
        "level": 3,
        "_record_id": WEB.record_id(record),
        "_container_id": "c" * 64,
        "_container_name": "web",
        "_image_name": "api:2",
        "_compose_project": "shop",
        "_label_com.docker.compose.project": "shop",
        "_label_team_name": "pay",
        "_label_id": "7",
        "_stream": "stderr",
    }
    assert b'"timestamp":1795464386.123456789,' in GelfMessages().encode(batch(record))[0]


def test_details_are_additional_fields() -> None:
    fields = {
        "status": 401, "ok": True, "none": None, "deep": {"a": {"b": 1}}, "list": [1, "x"], "id": 3,
        "container_id": "mine", "compose_project": "mine", "half": "\ud800",
    }  # fmt: skip
    told = DetailedRecord("a", "stdout", TIME, level="warn", fields=fields, truncated=True, error="no")
    (message,) = messages(batch(told))
    assert message["level"] == 4
    names = ("_level_name", "_status", "_ok", "_deep.a.b", "_list", "_half", "_truncated", "_error")
    assert [message[name] for name in names] == ["warn", 401, "true", 1, '[1,"x"]', "?", "true", "no"]
    assert (message["_fields_id"], message["_fields_container_id"]) == (3, "mine")
    assert (message["_container_id"], message["_compose_project"]) == ("c" * 64, "shop")
    assert "_none" not in message


def in_graylog(message: bytes) -> dict[str, Any]:
    """What Graylog keeps of a message (GelfCodec and Message of Graylog 5).

    A leading underscore goes, and so does what is there already or reserved; dots become underscores, and of
    two that are then alike the one without dots stays. Its own fields are written over all that.
    """
    given = json.loads(message)
    host, short_message, level = given["host"], given["short_message"], given["level"]
    known = {"message": short_message, "source": host, "timestamp": given["timestamp"], "level": level}
    kept = known | {"_id": "Graylog's"}
    for key, value in given.items():
        name = key.removeprefix("_")
        if key == "version" or name in ("short_message", "host") or name in kept:
            continue
        if name not in ("_ttl", "_source", "_all", "_index", "_type", "_score"):
            kept[name] = value
    stored = {key.replace(".", "_"): value for key, value in kept.items() if "." in key}
    stored |= {key: value for key, value in kept.items() if "." not in key}
    return stored | {"streams": [], "gl2_remote_ip": "127.0.0.1", "gl2_source_input": "5f"}


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        (dict.fromkeys(("host", "source", "message", "short_message", "timestamp", "level"), "mine"), None),
        ({"_id": "mine", "_source": "mine", "_type": "mine", "id": "mine"}, None),
        ({"streams": "mine", "gl2_remote_ip": "mine", "gl2": {"source_input": "mine"}}, None),
        (
            {"container": {"name": "mine"}, "compose": {"project": "mine"}, "label": {"team_name": "mine"}},
            None,
        ),
        ({"container_name": "mine", "compose_project": "mine", "label_id": "mine"}, None),
        (
            dict.fromkeys(("full_message", "version", "facility", "line", "hostname", "_x"), "mine"),
            {"full_message", "version", "facility", "line", "hostname", "_x"},
        ),
    ],
    ids=["its own", "of Elasticsearch", "of its own making", "with dots", "ours", "free"],
)
def test_graylog_keeps_a_field_whatever_its_name(fields: dict[str, Any], kept: set[str] | None) -> None:
    """It takes the underscore off, and then leaves out what is there already."""
    plain, told = line("a"), DetailedRecord("a", "stdout", TIME, fields=fields)
    [without], [message] = (GelfMessages().encode(batch(each)) for each in (plain, told))
    is_gelf(message)
    got = in_graylog(message)
    assert {key: got[key] for key in in_graylog(without)} == in_graylog(without), "nothing is overwritten"
    more = {key for key in got if key not in in_graylog(without)}
    assert [got[key] for key in more] == ["mine"] * len(fields)
    assert more == kept if kept is not None else all(key.startswith("fields_") for key in more)


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=60), max_size=6))
def test_any_text_is_one_message(texts: list[str]) -> None:
    got = messages(batch(*texts))
    assert [each["short_message"] for each in got] == [
        text.encode("utf-8", "replace").decode() if text and not text.isspace() else "-" for text in texts
    ]
    for message in GelfMessages().encode(batch(*texts)):
        assert b"\0" not in message
        assert b"\n" not in message


@given(st.dictionaries(st.text(max_size=8), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3), max_leaves=6,
), max_size=4))  # fmt: skip
def test_any_fields_are_fields_of_gelf(fields: dict[str, Any]) -> None:
    (message,) = messages(batch(DetailedRecord("a", "stdout", TIME, fields=fields)))
    assert message["_container_name"] == "web"


# --- datagrams ----------------------------------------------------------------------------------------


def joined(datagrams: Sequence[bytes]) -> list[dict[str, Any]]:
    """What a receiver makes of datagrams, in whatever order they come (GELF via UDP, "Chunking")."""
    whole: list[bytes] = []
    waiting: dict[bytes, dict[int, bytes]] = {}
    for datagram in datagrams:
        if datagram[:2] != b"\x1e\x0f":
            whole.append(datagram)
            continue
        key, number, of = datagram[2:10], datagram[10], datagram[11]
        assert number < of <= 128
        pieces = waiting.setdefault(key, {})
        assert number not in pieces
        pieces[number] = datagram[12:]
        if len(pieces) == of:
            whole.append(b"".join([piece for _, piece in sorted(waiting.pop(key).items())]))
    assert not waiting
    for index, data in enumerate(whole):
        if data[:2] == b"\x1f\x8b" or data[:1] == b"\x78":  # gzip, zlib
            whole[index] = zlib.decompress(data, zlib.MAX_WBITS | 32)
    return [json.loads(data) for data in whole]


@given(
    compress=st.sampled_from(["none", "gzip", "zlib"]),
    size=st.integers(512, 2000),
    text=st.binary(max_size=20_000),
    random=st.randoms(),
)
def test_chunks_become_the_message_in_whatever_order(
    compress: Compress, size: int, text: bytes, random: Any
) -> None:
    chunker = Chunker(compress, size)
    given = [json.dumps({"short_message": text.hex()}).encode(), b'{"short_message":"b"}'] * 2
    datagrams = [datagram for message in given for datagram in chunker.datagrams(message)]
    assert max(map(len, datagrams)) <= size
    random.shuffle(datagrams)
    assert sorted(map(str, joined(datagrams))) == sorted(str(json.loads(message)) for message in given)
    assert chunker.truncated == 0


@pytest.mark.parametrize("compress", ["none", "gzip"])
@pytest.mark.parametrize("what", ["noise", "escapes", "fields"])
def test_what_128_chunks_do_not_hold_is_cut(compress: Compress, what: str) -> None:
    noise = os.urandom(200_000).hex()
    text = {"noise": noise, "escapes": "\x01" * 100_000 + noise, "fields": "a"}[what]
    fields = {"much": noise} if what == "fields" else {}
    chunker = Chunker(compress, 512)
    (message,) = GelfMessages().encode(batch(DetailedRecord(text, "stdout", TIME, fields=fields)))
    datagrams = chunker.datagrams(message)
    assert len(datagrams) <= MOST_CHUNKS
    assert chunker.truncated == 1
    (got,) = joined(datagrams)
    is_gelf(json.dumps(got).encode())
    assert got["short_message"].endswith(" [truncated]")
    assert got["_record_id"] == WEB.record_id(line(text))
    if what == "noise":
        assert len(got["short_message"]) > 50_000


# --- UDP ----------------------------------------------------------------------------------------------


class Inbox(datagram_receiver.Inbox):
    """Messages that have come."""

    def messages(self, count: int) -> list[str]:
        """Texts of so many, in order."""
        got: list[bytes] = []
        while True:
            got += self.take(1)
            ends = [each for each in got if each[:2] != b"\x1e\x0f" or each[10] == each[11] - 1]
            if len(ends) == count:
                return [each["short_message"] for each in joined(got)]


@pytest.fixture
def udp() -> Iterator[Inbox]:
    with udp_socket() as made:
        yield Inbox(made)


@pytest.fixture
def context(tmp_path: Path) -> Counting:
    return Counting(tmp_path)


def sink_of(address: str, context: Counting, **options: Any) -> GelfSink:
    return GelfSink(GelfOptions.model_validate({"type": "gelf", "address": address, **options}), context)


@pytest.mark.parametrize("compress", ["none", "gzip", "zlib"])
async def test_by_udp_a_message_is_a_datagram_or_several(
    udp: Inbox, context: Counting, compress: str
) -> None:
    sink = sink_of(f"udp://127.0.0.1:{udp.port}", context, compress=compress)
    long = os.urandom(5000).hex()
    assert await sink.deliver([batch("short", long), batch("é")]) == DELIVERED
    assert udp.messages(3) == ["short", long, "é"]
    await sink.close()


async def test_a_datagram_has_1420_bytes_unless_it_is_told_otherwise(udp: Inbox, context: Counting) -> None:
    for size, options in ((1420, {}), (8192, {"chunk": "8KiB"})):
        sink = sink_of(f"udp://127.0.0.1:{udp.port}", context, compress="none", **options)
        await sink.deliver([batch("x" * 20_000)])
        (first,) = udp.take(1)
        assert len(first) == size
        udp.take(first[11] - 1)
        await sink.close()


async def test_where_the_path_takes_less_smaller_datagrams_go_and_nothing_is_cut(
    udp: Inbox, context: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sink_of(f"udp://127.0.0.1:{udp.port}", context, compress="none")
    await sink.open()
    assert sink._datagrams is not None
    monkeypatch.setattr(sink._datagrams, "_socket", Narrow(sink._datagrams._socket))
    assert await sink.deliver([batch("x" * 3000, "short")]) == DELIVERED
    assert udp.messages(2) == ["x" * 3000, "short"]
    assert [event for event, _ in context.warnings] == [
        "the path takes no datagrams of `chunk` bytes, smaller ones are sent"
    ] * len(context.warnings)
    told = len(context.warnings)
    assert told
    assert await sink.deliver([batch("y" * 3000)]) == DELIVERED
    assert udp.messages(1) == ["y" * 3000]
    assert len(context.warnings) == told
    await sink.close()


async def test_where_nobody_listens_at_the_first_address_the_next_one_gets_everything(
    udp: Inbox, context: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(host: str, port: int) -> list[tuple[int, Any]]:
        return [(socket.AF_INET, (each, port)) for each in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr("logroute.sinks.datagrams._resolve", resolve)
    sink = sink_of(f"udp://graylog.test:{udp.port}", context)
    assert await sink.deliver([batch("x" * 3000, "short")]) == DELIVERED
    assert udp.messages(2) == ["x" * 3000, "short"]
    assert [details["address"] for _, details in context.warnings] == ["127.0.0.2"]
    await sink.close()


async def test_what_is_cut_is_told(udp: Inbox, context: Counting) -> None:
    sink = sink_of(f"udp://127.0.0.1:{udp.port}", context, compress="none", chunk=512)
    await sink.deliver([batch("x" * 100_000)])
    assert context.warnings == [("messages were cut to 128 datagrams", {"messages": 1, "chunk": 512})]
    assert sink.statistics().truncated == 1
    await sink.close()


async def test_what_is_sent_again_is_cut_once(
    udp: Inbox, context: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Because the path takes smaller datagrams only, or because sending them failed."""
    sink = sink_of(f"udp://127.0.0.1:{udp.port}", context, compress="none", chunk=8192)
    await sink.open()
    assert sink._datagrams is not None
    monkeypatch.setattr(sink._datagrams, "_socket", Narrow(sink._datagrams._socket))

    async def fail(*_: object, **__: object) -> int:
        raise Retryable("cannot send")

    await sink.deliver([batch("x" * 2_000_000)])
    assert sink.statistics().truncated == 1
    assert sink._datagrams is not None
    monkeypatch.setattr(sink._datagrams, "send", fail)
    with pytest.raises(Retryable):
        await sink.deliver([batch("y" * 2_000_000)])
    assert sink.statistics().truncated == 1
    await sink.deliver([batch("y" * 2_000_000)])
    assert sink.statistics().truncated == 2
    cut = [details["messages"] for event, details in context.warnings if event.startswith("messages were")]
    assert cut == [1, 1]
    await sink.close()


async def test_where_nobody_listens_the_route_waits(context: Counting) -> None:
    port = free_port(socket.SOCK_DGRAM)
    sink = sink_of(f"udp://127.0.0.1:{port}", context)
    with pytest.raises(Retryable) as caught:
        await sink.deliver([batch(*map(str, range(100)))])
    assert str(caught.value) == (
        f"gelf+udp://127.0.0.1:{port}: cannot send: Connection refused (ECONNREFUSED)"
    )
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as made:
        made.bind(("127.0.0.1", port))
        assert await sink.deliver([batch("1", "2")]) == DELIVERED
        assert Inbox(made).messages(2) == ["1", "2"]
    await sink.close()


async def test_what_was_sent_shortly_before_nobody_listened_is_unconfirmed(
    udp: Inbox, context: Counting
) -> None:
    sink = sink_of(f"udp://127.0.0.1:{udp.port}", context)
    await sink.deliver([batch("1", "2", "3")])
    udp.socket.close()
    with pytest.raises(Retryable, match="refused"):
        await sink.deliver([batch("4")])
    assert context.lost == sink.statistics().unconfirmed == 3
    await sink.close()


# --- TCP and TLS --------------------------------------------------------------------------------------


@pytest.fixture
def receiver() -> Iterator[TcpReceiver]:
    receiver = TcpReceiver()
    yield receiver
    receiver.close()


def texts(data: bytes) -> list[str]:
    *whole, rest = data.split(b"\0")
    assert not rest
    return [json.loads(message)["short_message"] for message in whole]


async def test_in_a_stream_each_message_ends_with_a_nul(receiver: TcpReceiver, context: Counting) -> None:
    sink = sink_of(f"tcp://127.0.0.1:{receiver.port}", context)
    long = "x" * 500_000
    assert await sink.deliver([batch("a\0b", "c\nd"), batch(long)]) == DELIVERED
    assert await sink.deliver([batch("e")]) == DELIVERED
    await sink.close()
    receiver.settle()
    (data,) = receiver.received
    assert texts(bytes(data)) == ["a\0b", "c\nd", long, "e"]


async def test_a_receiver_that_resets_may_have_lost_what_it_had(
    receiver: TcpReceiver, context: Counting
) -> None:
    sink = sink_of(f"tcp://127.0.0.1:{receiver.port}", context)
    await sink.open()
    receiver.stop_reading()
    await sink.deliver([batch("a", "b")])
    receiver.reset()
    receiver.read_on()
    assert await sink.deliver([batch("c")]) == DELIVERED
    await sink.close()
    receiver.settle()
    assert texts(bytes(receiver.received[-1])) == ["c"]
    assert (context.lost, sink.statistics().connections) == (2, 2)
    assert context.warnings[0][1]["records"] == 2


async def test_by_tls(nursery: trio.Nursery, context: Counting, tmp_path: Path) -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    got = bytearray()
    ended = trio.Event()

    async def receive(stream: trio.SSLStream[trio.SocketStream]) -> None:
        async for data in stream:
            got.extend(data)
        ended.set()

    (listener,) = await trio.open_ssl_over_tcp_listeners(0, server, host="127.0.0.1", https_compatible=True)
    nursery.start_soon(trio.serve_listeners, receive, [listener])
    port = listener.transport_listener.socket.getsockname()[1]
    sink = sink_of(f"tls://localhost:{port}", context, tls={"ca": str(ca)})
    assert await sink.deliver([batch("a")]) == DELIVERED
    await sink.close()
    with trio.fail_after(10):
        await ended.wait()
    assert texts(bytes(got)) == ["a"]
    stranger = sink_of(f"tls://localhost:{port}", context)
    with pytest.raises(Retryable, match="unable to get local issuer certificate"):
        await stranger.deliver([batch("b")])
    await stranger.close()


async def test_a_receiver_that_wants_a_certificate_of_ours_gets_nothing_without_one(
    nursery: trio.Nursery, context: Counting, tmp_path: Path
) -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    got = bytearray()

    async def receive(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with suppress(trio.BrokenResourceError):
            async for data in stream:
                got.extend(data)

    (listener,) = await trio.open_ssl_over_tcp_listeners(0, server, host="127.0.0.1", https_compatible=True)
    nursery.start_soon(trio.serve_listeners, receive, [listener])
    port = listener.transport_listener.socket.getsockname()[1]
    sink = sink_of(f"tls://localhost:{port}", context, tls={"ca": str(ca)})
    for _ in range(5):
        with pytest.raises(Retryable, match="does it refuse our certificate"):
            await sink.deliver([batch("a")])
    await sink.close()
    assert (got, context.lost) == (b"", 0)


# --- HTTP ---------------------------------------------------------------------------------------------


async def test_over_http_each_message_is_a_request(server: HttpServer, sink_to: Making) -> None:
    server.otherwise = answer(202)
    sink = await sink_to(server.url, encoding="gelf")
    assert await sink.deliver([batch("a", "b"), batch("c")]) == DELIVERED
    assert [json.loads(body)["short_message"] for body in server.bodies] == ["a", "b", "c"]
    assert {request.target for request in server.requests} == {"/gelf"}
    assert len({request.connection for request in server.requests}) == 1


async def test_one_that_is_refused_costs_no_other(server: HttpServer, sink_to: Making) -> None:
    sink = await sink_to(server.url, encoding="gelf")
    server.behaviours += [answer(202), answer(400, b"bad"), answer(202)]
    outcome = await sink.deliver([batch("a", "b"), batch("c")])
    assert [(each.batch, each.record.message) for each in outcome.rejected] == [(0, "b")]
    assert outcome.rejected[0].reason.endswith("answered 400 Bad Request: bad")
    assert len(server.requests) == 3


async def test_what_was_taken_before_a_failure_is_not_sent_again(server: HttpServer, sink_to: Making) -> None:
    sink = await sink_to(server.url, encoding="gelf")
    server.behaviours += [answer(202), answer(503, retry_after="3")]
    outcome = await sink.deliver([batch("a", "b"), batch("c")])
    assert [(each.batch, each.record.message) for each in outcome.postponed] == [(0, "b"), (1, "c")]
    assert (outcome.rejected, outcome.after_s) == ((), 3)
    server.behaviours.append(answer(503))
    with pytest.raises(Retryable, match="503"):
        await sink.deliver([batch("b")])


async def test_in_bulk_a_delivery_is_lines(server: HttpServer, sink_to: Making) -> None:
    sink = await sink_to(server.url + "/bulk", encoding="gelf", gelf={"bulk": True}, compress="gzip")
    assert await sink.deliver([batch("a", "b\nc"), batch("d")]) == DELIVERED
    (request,) = server.requests
    lines = zlib.decompress(request.body, zlib.MAX_WBITS | 16).splitlines()
    assert [json.loads(each)["short_message"] for each in lines] == ["a", "b\nc", "d"]
    assert request.target == "/bulk"


async def test_a_delivery_of_requests_is_short_enough_for_its_deadline(
    server: HttpServer, sink_to: Making
) -> None:
    assert (await sink_to(encoding="gelf")).batch_records == 200
    assert (await sink_to(encoding="gelf", gelf={"bulk": True})).batch_records == 10_000


async def test_a_failure_in_the_middle_leaves_no_connection(server: HttpServer, sink_to: Making) -> None:
    sink = await sink_to(server.url, encoding="gelf")

    async def hang_up(stream: trio.SocketStream, _: Request) -> None:
        await stream.aclose()

    server.behaviours += [answer(202), hang_up]
    outcome = await sink.deliver([batch("a", "b")])
    assert [each.record.message for each in outcome.postponed] == ["b"]
    assert await sink.deliver([batch("b")]) == DELIVERED


# --- options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("gelf://graylog.test", "udp://graylog.test"),
        ("gelf+udp://graylog.test:1", "udp://graylog.test:1"),
        ("gelf+tcp://[::1]:12201", "tcp://[::1]:12201"),
        ("gelf+tls://graylog.test:12201", "tls://graylog.test:12201"),
    ],
)
def test_uris(uri: str, address: str) -> None:
    assert parse_uri(f"{uri}?compress=none") == {"type": "gelf", "address": address, "compress": "none"}


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("graylog.test:12201", 'no transport "graylog.test://"; there are udp://, tcp://, tls://'),
        ("https://graylog.test", "by HTTP it is https://…?encoding=gelf"),
        ("udp://", "names no host"),
        ("udp://ada:hunter2@graylog.test", "takes no user"),
        ("udp://graylog.test:1/x", "has something behind the port"),
        ("udp://a b", "spaces or control characters"),
        ("udp://a:99999", "is no address such as udp://graylog.example.com:12201"),
    ],
)
def test_mistakes_are_told_without_secrets(address: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        GelfOptions.model_validate({"type": "gelf", "address": address})
    (error,) = caught.value.errors()
    assert said in error["msg"]
    assert "hunter2" not in error["msg"]
