"""The forward sink: its messages, what it does with bad receivers, and real ones."""

from __future__ import annotations

import io
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio
import trio.testing
import trustme
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from logroute.config.uri import UriError, parse_uri
from logroute.router.position import BEGINNING
from logroute.router.record import Batch, DetailedRecord, Origin, Record
from logroute.sinks import DELIVERED, Retryable
from logroute.sinks import forward as forward_module
from logroute.sinks.forward import ForwardOptions, ForwardSink, escape_tag
from logroute.sinks.forward_protocol import REPLY_BYTES, Handshake, Helo, ProtocolError, Replies, acknowledged
from tests.servers.fluent_server import FluentServer
from tests.servers.forward_collector import ForwardCollector
from tests.sinks.forward_receiver import (
    Close,
    ForwardReceiver,
    Message,
    Stream,
    acknowledge,
    close,
    in_a_thread,
    nothing,
    say,
)
from tests.sinks.tcp_receiver import TcpReceiver
from tests.sinks.test_contract import Context

TIME = "2026-11-03T20:06:26.123456789Z"
TIME_NS = 1_793_736_386_123_456_789


def origin(name: str = "web") -> Origin:
    return Origin(f"docker:{name}", "docker", id=f"{name:0<64}", name=name, host="node-7")


WEB, DB = origin(), origin("db")


def batch_of(records: Sequence[Record], of: Origin = WEB) -> Batch:
    return Batch(of, list(records), before=BEGINNING, after=BEGINNING, size_bytes=1, ready=True)


def batch(*messages: str, of: Origin = WEB) -> Batch:
    return batch_of([Record(message, "stdout", TIME) for message in messages], of)


def sink_to(port: int, folder: Path, transport: str = "tcp", host: str = "127.0.0.1", **options: Any) -> Any:
    given_ = {"address": f"{transport}://{host}:{port}", **options}
    return ForwardSink(ForwardOptions.model_validate(given_), Context(folder))


class Counting(Context):
    """Counts what may be lost."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.lost = 0
        self.told = trio.Event()

    def unconfirmed(self, records: int) -> None:
        self.lost += records
        self.told.set()


def came(receiver: ForwardReceiver) -> list[tuple[str, list[str]]]:
    """Each message's tag, and texts."""
    return [(m.tag, [record["message"] for _, record in m.entries]) for m in receiver.messages]


@pytest.fixture
async def receiver(nursery: trio.Nursery) -> AsyncIterator[ForwardReceiver]:
    made = ForwardReceiver()
    await nursery.start(made.serve)
    yield made
    nursery.cancel_scope.cancel()


# --- messages -----------------------------------------------------------------------------------------


async def test_a_delivery_is_one_message_for_each_tag(receiver: ForwardReceiver, tmp_path: Path) -> None:
    sink = sink_to(receiver.port, tmp_path)
    batches = [batch("1", "2"), batch("x", of=DB), batch(), batch("3"), batch("y", of=DB)]
    assert await sink.deliver(batches) == DELIVERED
    assert await sink.deliver([batch("4")]) == DELIVERED
    assert sink.answer == "ack"
    await sink.close()
    assert came(receiver) == [
        ("logroute.web", ["1", "2", "3"]), ("logroute.db", ["x", "y"]), ("logroute.web", ["4"]),
    ]  # fmt: skip
    assert [at for m in receiver.messages for at, _ in m.entries] == [TIME_NS] * 6
    assert receiver.connections == 1
    assert {len(m.option["chunk"]) for m in receiver.messages} == {24}, "128 bits as base64"
    assert len({m.option["chunk"] for m in receiver.messages}) == 3
    assert [{**m.option, "chunk": ""} for m in receiver.messages] == [
        {"size": size, "chunk": ""} for size in (3, 2, 1)
    ]
    assert sink.statistics() == forward_module.ForwardStatistics(1, chunks=3, unconfirmed=0)


async def test_compressed_entries_are_one_member_of_gzip(receiver: ForwardReceiver, tmp_path: Path) -> None:
    sink = sink_to(receiver.port, tmp_path, compress="gzip")
    assert await sink.deliver([batch("1" * 1000), batch("x", of=DB), batch("2")]) == DELIVERED
    await sink.close()
    assert came(receiver) == [("logroute.web", ["1" * 1000, "2"]), ("logroute.db", ["x"])]
    assert {m.option["compressed"] for m in receiver.messages} == {"gzip"}


async def test_a_tag_may_vary_with_the_record(receiver: ForwardReceiver, tmp_path: Path) -> None:
    sink = sink_to(receiver.port, tmp_path, tag="{container.name}.{level|none}.{time:%Y}")
    records: list[Record] = [
        DetailedRecord("a", "stdout", TIME, level="error"),
        Record("b", "stdout", TIME),
        DetailedRecord("c", "stdout", TIME, level="error"),
    ]
    assert await sink.deliver([batch_of(records)]) == DELIVERED
    await sink.close()
    assert came(receiver) == [("web.error.2026", ["a", "c"]), ("web.none.2026", ["b"])]


async def test_what_is_too_large_for_a_message_becomes_several(
    receiver: ForwardReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward_module, "MESSAGE_BYTES", 2000)
    sink = sink_to(receiver.port, tmp_path)
    texts = [str(n) for n in range(50)]
    assert await sink.deliver([batch("a"), batch(*texts), batch("x" * 5000), batch("b")]) == DELIVERED
    await sink.close()
    assert [text for _, each in came(receiver) for text in each] == ["a", *texts, "x" * 5000, "b"]
    assert len(receiver.messages) > 6


NAMES = {
    "web-1_x": "web-1_x",
    "a.b": "a_b",
    "../../etc/passwd": "______etc_passwd",
    "**": "__",
    "{a,b}": "_a_b_",
    "é\n\x00 x": "____x",
    "": "_",
    "n" * 500: "n" * 128,
}


@pytest.mark.parametrize(("value", "shown"), NAMES.items())
def test_a_value_in_a_tag_is_one_part_of_it(value: str, shown: str) -> None:
    assert escape_tag(value) == shown


# --- acknowledgements ---------------------------------------------------------------------------------


async def failure(sink: Any, *batches: Batch) -> str:
    with pytest.raises(Retryable) as caught:
        await sink.deliver(list(batches))
    return str(caught.value)


async def test_what_was_acknowledged_is_not_sent_again(receiver: ForwardReceiver, tmp_path: Path) -> None:
    """Of three messages the second is not acknowledged: the next attempt sends it and the third."""
    sink = sink_to(receiver.port, tmp_path)
    receiver.behaviours += [acknowledge, close]
    batches = [batch("1"), batch("2", of=DB), batch("3", of=origin("c"))]
    assert await failure(sink, *batches) == (
        f"forward://127.0.0.1:{receiver.port}: the receiver has closed the connection, "
        "and 2 of 3 chunks are not acknowledged"
    )
    await sink.open()
    assert await sink.deliver(batches) == DELIVERED
    assert await sink.deliver(batches) == DELIVERED, "another delivery, of the same batches"
    await sink.close()
    assert [tag[9:] for tag, _ in came(receiver)] == ["web", "db", "db", "c", "web", "db", "c"]


async def test_an_attempt_with_other_batches_sends_all_of_them(
    receiver: ForwardReceiver, tmp_path: Path
) -> None:
    sink = sink_to(receiver.port, tmp_path)
    receiver.behaviours += [acknowledge, close]
    first, second = batch("1"), batch("2", of=DB)
    await failure(sink, first, second)
    assert await sink.deliver([second, first]) == DELIVERED
    await sink.close()
    assert [tag[9:] for tag, _ in came(receiver)] == ["web", "db", "db", "web"]


async def test_acknowledgements_may_come_in_any_order(receiver: ForwardReceiver, tmp_path: Path) -> None:
    held: list[Message] = []

    async def hold(_: Stream, message: Message) -> None:
        held.append(message)

    async def let_go(stream: Stream, message: Message) -> None:
        for each in (message, *held):
            await acknowledge(stream, each)

    receiver.behaviours += [hold, hold, let_go]
    sink = sink_to(receiver.port, tmp_path)
    assert await sink.deliver([batch("1"), batch("2", of=DB), batch("3", of=origin("c"))]) == DELIVERED
    await sink.close()


async def test_acknowledgements_are_heard_while_the_rest_is_sent(
    receiver: ForwardReceiver, tmp_path: Path
) -> None:
    """Else nobody would read: the receiver writes them, and both sides' buffers are full."""

    async def at_length(stream: Stream, message: Message) -> None:
        await stream.send_all(msgpack.packb({"ack": message.option["chunk"], "more": "x" * 60_000}))

    count = 300
    receiver.behaviours += [at_length] * count
    sink = sink_to(receiver.port, tmp_path)
    assert await sink.deliver([batch("x" * 60_000, of=origin(f"c{n}")) for n in range(count)]) == DELIVERED
    await sink.close()
    assert len(receiver.messages) == count


NONSENSE: dict[str, tuple[bytes, str]] = {
    "another chunk's": (
        msgpack.packb({"ack": "b" * 24}),
        "acknowledges a chunk that it was not sent",
    ),
    "an ack that is a number": (
        msgpack.packb({"ack": 7}),
        'answers what is no reply of the Forward protocol: "��ack',
    ),
    "HTTP": (
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        'answers what is no reply of the Forward protocol: "HTTP/1.1 400 Bad Request"',
    ),
    "no msgpack": (b"\xc1\xc1", 'answers what is no reply of the Forward protocol: "��"'),
    "an endless text": (
        b"\xdb\x00\x01\xff\xff" + b"x" * REPLY_BYTES,
        "sends a reply without end, longer than 64 KiB",
    ),
    "an array that cannot be": (b"\xdd\xff\xff\xff\xff", "answers what is no reply of the Forward protocol"),
    "an endless map": (
        b"\xdf\x00\x00\x7f\xff" + b"\xa4keys\xa6values" * (REPLY_BYTES // 10),
        "sends a reply without end, longer than 64 KiB",
    ),
    "arrays in arrays": (b"\x91" * 5000, "answers what is no reply of the Forward protocol"),
    "a HELO": (
        msgpack.packb(["HELO", {"nonce": b"n", "auth": "", "keepalive": True}]),
        "asks for a shared key: set `shared_key`",
    ),
}


@pytest.mark.parametrize(("said", "words"), NONSENSE.values(), ids=NONSENSE)
async def test_what_acknowledges_nothing_is_told(
    receiver: ForwardReceiver, tmp_path: Path, said: bytes, words: str
) -> None:
    receiver.behaviours.append(say(said))
    sink = sink_to(receiver.port, tmp_path)
    text = await failure(sink, batch("1"))
    assert text.startswith(f"forward://127.0.0.1:{receiver.port}: the receiver {words}")
    assert len(text) < 400
    assert await sink.deliver([batch("1")]) == DELIVERED
    await sink.close()
    assert receiver.connections == 2


async def test_a_reset_is_told(receiver: ForwardReceiver, tmp_path: Path) -> None:
    async def reset(stream: Stream, _: Message) -> None:
        assert isinstance(stream, trio.SocketStream)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Close

    receiver.behaviours.append(reset)
    sink = sink_to(receiver.port, tmp_path)
    assert await failure(sink, batch("1")) == (
        f"forward://127.0.0.1:{receiver.port}: the connection broke: Connection reset by peer (ECONNRESET); "
        "1 of 1 chunks are not acknowledged"
    )
    assert await sink.deliver([batch("1")]) == DELIVERED
    await sink.close()


async def test_a_connection_that_the_receiver_closed_meanwhile_is_not_used(
    receiver: ForwardReceiver, tmp_path: Path
) -> None:
    sink = sink_to(receiver.port, tmp_path)
    assert await sink.deliver([batch("1")]) == DELIVERED
    await receiver.close_connections()
    assert await sink.deliver([batch("2")]) == DELIVERED
    await sink.close()
    assert (len(receiver.messages), receiver.connections) == (2, 2)


async def test_a_cancelled_delivery_closes_its_connection(receiver: ForwardReceiver, tmp_path: Path) -> None:
    """And what came before is known nevertheless."""
    sink = sink_to(receiver.port, tmp_path)
    seen = trio.Event()

    async def tell(stream: Stream, message: Message) -> None:
        seen.set()

    receiver.behaviours += [acknowledge, tell]
    batches = [batch("1"), batch("2", of=DB)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.deliver, batches)
        await seen.wait()
        while not sink.statistics().chunks:  # noqa: ASYNC110 # nobody tells
            await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    while not receiver.closed:  # noqa: ASYNC110 # likewise
        await trio.sleep(0.001)
    await sink.open()
    assert await sink.deliver(batches) == DELIVERED
    await sink.close()
    assert [tag[9:] for tag, _ in came(receiver)] == ["web", "db", "db"]


async def test_without_acknowledgements_the_kernels_word_counts(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    plain = TcpReceiver()
    context = Counting(tmp_path)
    sink = ForwardSink(ForwardOptions(address=f"tcp://127.0.0.1:{plain.port}", ack=False), context)
    await sink.open()
    nursery.start_soon(sink.run)
    assert await sink.deliver([batch("1", "2"), batch("x", of=DB)]) == DELIVERED
    plain.settle()
    sent = [*msgpack.Unpacker(io.BytesIO(plain.received[0]))]
    assert [(tag, option) for tag, _, option in sent] == [
        ("logroute.web", {"size": 2}), ("logroute.db", {"size": 1}),
    ]  # fmt: skip
    plain.stop_reading()
    assert await sink.deliver([batch("3")]) == DELIVERED
    plain.reset()
    await context.told.wait()
    assert sink.statistics().unconfirmed == context.lost == 4
    plain.close()
    nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        await sink.close()


# --- silence ------------------------------------------------------------------------------------------
#
# The clock jumps as soon as nothing of trio's has anything to do: the receiver is a thread of its own.


@pytest.fixture
def apart() -> Iterator[ForwardReceiver]:
    """A receiver whose clock is the world's."""
    made = ForwardReceiver()
    with in_a_thread(made):
        yield made


async def test_a_late_acknowledgement_is_none(
    apart: ForwardReceiver, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    apart.behaviours.append(nothing)
    began = trio.current_time()
    sink = sink_to(apart.port, tmp_path, ack_timeout="7s")
    assert await failure(sink, batch("1")) == (
        f"forward://127.0.0.1:{apart.port}: the receiver is silent, and 1 of 1 chunks are not acknowledged, "
        "for 7 s"
    )
    assert trio.current_time() - began == pytest.approx(7)
    await sink.close()


async def test_a_receiver_that_reads_nothing_is_told(
    apart: ForwardReceiver, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async def never_read(_: Stream) -> None:
        await trio.sleep_forever()

    apart.begin = never_read
    sink = sink_to(apart.port, tmp_path)
    assert await failure(sink, *[batch("x" * (1 << 20)) for _ in range(30)]) == (
        f"forward://127.0.0.1:{apart.port}: the receiver does not take what is sent for 30 s"
    )
    await sink.close()


async def hang(_: Stream) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("transport", "options", "words"),
    [
        ("tls", {}, "the TLS handshake is not finished after 10 s"),
        ("tcp", {"shared_key": "k"}, "the handshake with the `shared_key` is not finished after 10 s"),
    ],
)
async def test_a_receiver_that_hangs_in_a_handshake_is_told(
    apart: ForwardReceiver,
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
    transport: str,
    options: dict[str, str],
    words: str,
) -> None:
    apart.begin = hang
    began = trio.current_time()
    sink = sink_to(apart.port, tmp_path, transport, **options)
    with pytest.raises(Retryable) as caught:
        await sink.open()
    kind = "forward+tls" if transport == "tls" else "forward"
    assert str(caught.value) == f"{kind}://127.0.0.1:{apart.port}: {words}"
    assert trio.current_time() - began == pytest.approx(10)


class Names(trio.abc.HostnameResolver):
    """Every name is this host's, wherever `port` says."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.port = 0

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        self.asked.append(host)
        if not self.port:
            await trio.sleep_forever()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", self.port))]

    async def getnameinfo(self, *_: Any) -> Any:
        raise AssertionError


async def test_the_name_is_resolved_for_each_connection(
    nursery: trio.Nursery, receiver: ForwardReceiver, tmp_path: Path
) -> None:
    names = Names()
    trio.socket.set_custom_hostname_resolver(names)
    moved = ForwardReceiver()
    await nursery.start(moved.serve)
    sink = sink_to(24224, tmp_path, host="logs.invalid")
    names.port = receiver.port
    await sink.deliver([batch("1")])
    names.port = moved.port
    await receiver.close_connections()
    await sink.deliver([batch("2")])
    await sink.close()
    assert names.asked == [b"logs.invalid"] * 2
    assert (len(receiver.messages), len(moved.messages)) == (1, 1)


async def test_a_receiver_that_cannot_be_reached_is_told(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(Retryable) as caught:
        await sink_to(port, tmp_path).open()
    assert str(caught.value) == (
        f"forward://127.0.0.1:{port}: cannot connect: Connection refused (ECONNREFUSED)"
    )
    trio.socket.set_custom_hostname_resolver(Names())
    with pytest.raises(Retryable, match=r"^forward://logs.invalid:1: not connected within 10 s$"):
        await sink_to(1, tmp_path, host="logs.invalid").open()


# --- the shared key -----------------------------------------------------------------------------------

KEY = "a shared secret é"


async def test_both_sides_show_that_they_know_the_key(receiver: ForwardReceiver, tmp_path: Path) -> None:
    receiver.shared_key = KEY
    sink = sink_to(receiver.port, tmp_path, shared_key=KEY)
    assert await sink.deliver([batch("1")]) == DELIVERED
    assert await sink.deliver([batch("2")]) == DELIVERED
    await sink.close()
    (ping,) = receiver.pings
    assert ping[4:] == ["", ""], "nobody is named to whom nobody asks for"
    assert came(receiver) == [("logroute.web", ["1"]), ("logroute.web", ["2"])]


async def test_a_user_is_told_without_the_password(receiver: ForwardReceiver, tmp_path: Path) -> None:
    receiver.shared_key, receiver.users = KEY, {"ada": "wörd"}
    sink = sink_to(receiver.port, tmp_path, shared_key=KEY, username="ada", password="wörd")
    assert await sink.deliver([batch("1")]) == DELIVERED
    await sink.close()
    assert "wörd" not in str(receiver.pings)


async def test_a_receiver_that_wants_a_connection_for_each_delivery_gets_it(
    receiver: ForwardReceiver, tmp_path: Path
) -> None:
    receiver.shared_key, receiver.keepalive = KEY, False
    sink = sink_to(receiver.port, tmp_path, shared_key=KEY)
    for each in "123":
        assert await sink.deliver([batch(each)]) == DELIVERED
    await sink.close()
    assert receiver.connections == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"shared_key": "wrong", "username": "ada", "password": "s3cr3t"},
            'does not accept our `shared_key`, or user: "shared_key mismatch"',
        ),
        ({"shared_key": KEY}, "asks for a user: set `username` and `password`"),
        (
            {"shared_key": KEY, "username": "ada", "password": "guess"},
            'does not accept our `shared_key`, or user: "username/password mismatch"',
        ),
        (
            {"shared_key": KEY, "username": "bob", "password": "s3cr3t"},
            'does not accept our `shared_key`, or user: "username/password mismatch"',
        ),
    ],
)
async def test_who_is_not_let_in_is_told_why(
    receiver: ForwardReceiver, tmp_path: Path, options: dict[str, str], words: str
) -> None:
    receiver.shared_key, receiver.users = KEY, {"ada": "s3cr3t"}
    sink = sink_to(receiver.port, tmp_path, **options)
    with pytest.raises(Retryable) as caught:
        await sink.open()
    assert str(caught.value) == f"forward://127.0.0.1:{receiver.port}: the receiver {words}"
    for secret in ("s3cr3t", "guess", "wrong", KEY):
        assert secret not in str(caught.value)
    await sink.close()


IMPOSTORS: dict[str, Callable[[list[Any]], object]] = {
    "does not know the key": lambda pong: [*pong[:4], "0" * 128],
    "says nothing of it": lambda pong: [*pong[:4], ""],
    "has another's name": lambda pong: [*pong[:3], "other", pong[4]],
}


@pytest.mark.parametrize("pong", IMPOSTORS.values(), ids=IMPOSTORS)
async def test_a_receiver_that_does_not_know_the_key_gets_nothing(
    receiver: ForwardReceiver, tmp_path: Path, pong: Callable[[list[Any]], object]
) -> None:
    receiver.shared_key, receiver.pong = KEY, pong
    sink = sink_to(receiver.port, tmp_path, shared_key=KEY)
    with pytest.raises(Retryable, match=r"does not know the `shared_key`: it may be somebody else$"):
        await sink.open()
    assert receiver.messages == []


def test_our_own_digest_proves_nothing() -> None:
    """Whoever hears our PING can send its digest back, with our name."""
    handshake = Handshake("key", "", "", "us")
    _, hostname, _, digest, *_ = msgpack.unpackb(handshake.ping(Helo(b"nonce", b"", True)), raw=False)
    with pytest.raises(ProtocolError, match="does not know"):
        handshake.check([b"PONG", True, b"", hostname.encode(), digest.encode()])


def begins_with(*said: bytes) -> Callable[[Stream], Awaitable[None]]:
    """Says each of these, and between them waits for something to be said."""

    async def begin(stream: Stream) -> None:
        for each in said:
            await stream.send_all(each)
            await stream.receive_some()

    return begin


HELO = msgpack.packb(["HELO", {"nonce": b"n", "auth": b"", "keepalive": True}])
BEGINNINGS: dict[str, tuple[Sequence[bytes], str]] = {
    "no msgpack": ([b"\xc1"], "answers what is no reply of the Forward protocol"),
    "SSH": ([b"SSH-2.0-OpenSSH_9.2\r\n"], 'protocol: "SSH-2.0-OpenSSH_9.2"'),
    "no HELO": ([msgpack.packb(["HALO", {}])], "does not begin with a HELO"),
    "a HELO without options": ([msgpack.packb(["HELO", 7])], "does not begin with a HELO"),
    "a nonce that is a number": ([msgpack.packb(["HELO", {"nonce": 7}])], "does not begin with a HELO"),
    "an endless HELO": (
        [b"\x92\xa4HELO\xdf\x00\x00\x7f\xff" + b"\xa4keys\xa6values" * (REPLY_BYTES // 10)],
        "sends a reply without end, longer than 64 KiB",
    ),
    "a HELO with more behind": ([HELO + HELO], "answers what is no reply of the Forward protocol"),
    "no PONG": ([HELO, msgpack.packb({"ack": "x"})], "does not answer our PING with a PONG"),
    "half a PONG": ([HELO, msgpack.packb(["PONG", True])], "does not answer our PING with a PONG"),
    "a PONG of numbers": (
        [HELO, msgpack.packb(["PONG", True, 1, 2, 3])],
        "does not answer our PING with a PONG",
    ),
    "a refusal of controls": (
        [HELO, msgpack.packb(["PONG", False, "\x1b[31m no\n", "", ""])],
        'does not accept our `shared_key`, or user: "[31m no"',
    ),
    "an end": ([], "has closed the connection during the handshake: is the `shared_key` its own?"),
}


@pytest.mark.parametrize(("said", "words"), BEGINNINGS.values(), ids=BEGINNINGS)
async def test_a_handshake_that_is_none_is_told(
    receiver: ForwardReceiver, tmp_path: Path, said: Sequence[bytes], words: str
) -> None:
    receiver.begin = begins_with(*said)
    sink = sink_to(receiver.port, tmp_path, shared_key=KEY)
    with pytest.raises(Retryable) as caught:
        await sink.open()
    assert str(caught.value).startswith(f"forward://127.0.0.1:{receiver.port}: the receiver ")
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


# --- what receivers say -------------------------------------------------------------------------------

MSGPACK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=5), below, max_size=4),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.sampled_from(["ack", "x"]), st.text(max_size=30)), max_size=8), st.data())
def test_replies_are_the_same_however_they_come(said: list[dict[str, str]], data: st.DataObject) -> None:
    stream = b"".join([msgpack.packb(each) for each in said])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    replies, got = Replies(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += [acknowledged(each) for each in replies.feed(stream[start:end])]
    assert got == [each["ack"].encode() if "ack" in each else None for each in said]


@given(st.binary(max_size=200) | MSGPACK.map(msgpack.packb))
@example(b"\x81\x90\x00")  # a map with an array for a key
def test_nothing_that_a_receiver_says_is_more_than_an_error(data: bytes) -> None:
    handshake = Handshake("key", "user", "password", "us")
    replies = Replies()
    try:
        for reply in replies.feed(data):
            acknowledged(reply)
            if helo := Helo.parse(reply):
                handshake.ping(helo)
            handshake.check(reply)
    except ProtocolError as error:
        assert str(error).isprintable()  # noqa: PT017 # it need not be raised


# --- TLS ----------------------------------------------------------------------------------------------


class Authority:
    """An authority, and the files that sinks and receivers read."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.ca = trustme.CA()
        self.ca_file = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.ca_file)
        self.certificate = self.ca.issue_cert("localhost")
        self.client_file = str(folder / "client.pem")
        self.ca.issue_cert("ada@example.com").private_key_and_cert_chain_pem.write_to_path(self.client_file)

    def context(self, *, client: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.certificate.configure_cert(context)
        if client:
            self.ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


async def test_records_and_the_handshake_go_through_tls(
    receiver: ForwardReceiver, tmp_path: Path, authority: Authority
) -> None:
    receiver.context, receiver.shared_key = authority.context(client=True), KEY
    tls = {"ca": authority.ca_file, "cert": authority.client_file}
    sink = sink_to(receiver.port, tmp_path, "tls", "localhost", tls=tls, shared_key=KEY)
    many = [batch(*[f"{n} {'x' * 1000}" for n in range(3000)]), batch("db", of=DB)]
    assert await sink.deliver(many) == DELIVERED
    await receiver.close_connections()
    assert await sink.deliver([batch("2")]) == DELIVERED
    await sink.close()
    assert [len(message.entries) for message in receiver.messages] == [3000, 1, 1]


@pytest.mark.parametrize(
    ("host", "trusts", "words"),
    [
        ("127.0.0.1", True, "its certificate is not accepted: IP address mismatch"),
        ("localhost", False, "its certificate is not accepted: unable to get local issuer certificate"),
    ],
)
async def test_a_receiver_whose_certificate_is_not_right_gets_nothing(
    receiver: ForwardReceiver, tmp_path: Path, authority: Authority, host: str, trusts: bool, words: str
) -> None:
    receiver.context = authority.context()
    tls = {"ca": authority.ca_file} if trusts else {}
    sink = sink_to(receiver.port, tmp_path, "tls", host, tls=tls)
    with pytest.raises(Retryable) as caught:
        await sink.open()
    assert str(caught.value).startswith(f"forward+tls://{host}:{receiver.port}: cannot connect: {words}")
    assert receiver.messages == []


async def test_a_receiver_whose_certificate_has_expired_gets_nothing(
    receiver: ForwardReceiver, tmp_path: Path, authority: Authority
) -> None:
    past = datetime(2020, 1, 1, tzinfo=UTC)
    authority.certificate = authority.ca.issue_cert("localhost", not_before=past, not_after=past)
    receiver.context = authority.context()
    with pytest.raises(Retryable, match=r"its certificate is not accepted: certificate has expired$"):
        await sink_to(receiver.port, tmp_path, "tls", "localhost", tls={"ca": authority.ca_file}).open()
    assert receiver.messages == []


async def test_a_receiver_without_tls_is_told(receiver: ForwardReceiver, tmp_path: Path) -> None:
    receiver.begin = begins_with(b"\x92\xa4HELO\x80 this is no TLS at all")
    with pytest.raises(Retryable, match=r"^forward\+tls://localhost:[0-9]+: cannot connect: TLS failed: "):
        await sink_to(receiver.port, tmp_path, "tls", "localhost").open()


async def test_a_client_certificate_that_is_missing_is_told(
    receiver: ForwardReceiver, tmp_path: Path, authority: Authority
) -> None:
    receiver.context = authority.context(client=True)
    sink = sink_to(receiver.port, tmp_path, "tls", "localhost", tls={"ca": authority.ca_file})
    text = await failure(sink, batch("1"))
    assert text.startswith(f"forward+tls://localhost:{receiver.port}: ")
    assert receiver.messages == []
    await sink.close()


# --- options ------------------------------------------------------------------------------------------


def test_uris() -> None:
    text = "forward://logs.test?tag=a.{container.name}&compress=gzip&ack_timeout=5s"
    assert parse_uri(text) == {
        "type": "forward", "address": "tcp://logs.test", "tag": "a.{container.name}", "compress": "gzip",
        "ack_timeout": "5s",
    }  # fmt: skip
    assert parse_uri("forward+tls://a%40b:p%2Fw@[::1]:1?shared_key=k&tls.ca=/x") == {
        "type": "forward", "address": "tls://[::1]:1", "username": "a@b", "password": "p/w",
        "shared_key": "k", "tls": {"ca": "/x"},
    }  # fmt: skip
    address = forward_module._address_of("tls://[::1]")
    assert forward_module._named(address) == "forward+tls://[::1]:24224"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("forward+udp://h", 'forward+udp://h: no transport "udp://"; there are tcp://, tls://'),
        ("forward://", "forward://: names no host"),
        ("forward://h:x", "forward://h:x: is no address such as tcp://logs.example.com:24224"),
        ("forward://h/tag", "forward://h/tag: has something behind the port"),
        (
            "forward://h?address=tcp://x",
            "forward://h?address=…: the URI is the address, `address` is no parameter",
        ),
        ("forward+udp://ada:pw@h", 'forward+udp://ada:***@h: no transport "udp://"; there are tcp://, tls://'),
    ],
)  # fmt: skip
def test_a_uri_that_means_no_receiver_is_told(uri: str, said: str) -> None:
    with pytest.raises(UriError) as caught:
        parse_uri(uri)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"address": "logs.test:24224"}, 'no transport "logs.test://"; there are tcp://, tls://'),
        ({"address": "tcp://a:b@h"}, "takes no user: set `username` and `password`"),
        ({"address": "tcp://h\n"}, "must not contain spaces or control characters"),
        ({"tag": ""}, "must not be empty"),
        ({"tag": "a b"}, "must not contain spaces or control characters"),
        ({"tag": "{container.nmae}"}, 'did you mean "container.name"?'),
        ({"username": "ada"}, "set `shared_key` too"),
        ({"shared_key": ""}, "must not be empty"),
        ({"compress": "zstd"}, "Input should be 'none' or 'gzip'"),
        ({"address": "tls://h", "ack": False}, "behind `tls://` only acknowledgements tell what has come"),
        ({"ack_timeout": "0s"}, "greater than 0"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ForwardOptions.model_validate({"address": "tcp://h", **options})
    (error,) = caught.value.errors()
    assert said in error["msg"]


def test_secrets_are_not_shown() -> None:
    options = ForwardOptions(address="tcp://h", shared_key="key-1", username="ada", password="word-2")
    assert "key-1" not in repr(options)
    assert "word-2" not in repr(options)


# --- real ones ----------------------------------------------------------------------------------------


def said_by(n: int) -> list[Record]:
    return [
        Record(f"line {n}", "stdout", TIME),
        Record("é \U0001f600 \x00 \n two", "stderr", "2026-11-03T20:06:27.000000001Z"),
        DetailedRecord("told", "stdout", TIME, level="warn", fields={"status": 401, "deep": [{"k": 1.5}]}),
    ]


@pytest.mark.parametrize("compress", ["none", "gzip"])
async def test_the_collector_reads_records_as_they_were_sent(
    forward_collector: ForwardCollector, tmp_path: Path, compress: str
) -> None:
    sink = sink_to(forward_collector.port, tmp_path, compress=compress)
    records = said_by(1)
    assert await sink.deliver([batch_of(records), batch_of(records[:1], DB)]) == DELIVERED
    await sink.close()
    got = await trio.to_thread.run_sync(forward_collector.wait_for, 4)
    assert [(each["message"], each["attributes"]["fluent.tag"]) for each in got] == [
        *((record.message, "logroute.web") for record in records), ("line 1", "logroute.db"),
    ]  # fmt: skip
    assert [each["time_ns"] for each in got] == [
        TIME_NS, TIME_NS - 123456789 + 10**9 + 1, TIME_NS, TIME_NS
    ]  # fmt: skip
    told = got[2]["attributes"]
    assert told["fields"] == {"status": 401, "deep": [{"k": 1.5}]}
    assert told["container"] == {"id": WEB.id, "name": "web"}
    assert (told["stream"], told["event"]["id"]) == ("stdout", WEB.record_id(records[2]))


async def test_the_collector_has_every_one_of_many_lines(
    forward_collector: ForwardCollector, tmp_path: Path
) -> None:
    sink = sink_to(forward_collector.port, tmp_path)
    count, each = 100_000, 2_500
    for first in range(0, count, each):
        await sink.deliver([batch(*(f"line {n} of many" for n in range(first, first + each)))])
    await sink.close()
    got = await trio.to_thread.run_sync(forward_collector.wait_for, count)
    assert [record["message"] for record in got] == [f"line {n} of many" for n in range(count)]


async def test_a_collector_that_is_started_again_gets_the_rest(
    forward_collector: ForwardCollector, tmp_path: Path
) -> None:
    sink = sink_to(forward_collector.port, tmp_path)
    await sink.deliver([batch("before")])
    forward_collector.wait_for(1)
    forward_collector.stop()
    assert "cannot connect: Connection refused" in await failure(sink, batch("after"))
    forward_collector.start()
    assert await sink.deliver([batch("after")]) == DELIVERED
    await sink.close()
    got = await trio.to_thread.run_sync(forward_collector.wait_for, 2)
    assert [record["message"] for record in got] == ["before", "after"]


SECURITY = {"serverHostname": "fluent", "sharedKey": KEY, "authorize": True, "userDict": {"ada": "word"}}


@pytest.mark.parametrize("compress", ["none", "gzip"])
async def test_the_fluent_projects_receiver_takes_key_user_and_tls(
    fluent_server: Callable[..., FluentServer], tmp_path: Path, authority: Authority, compress: str
) -> None:
    pem = authority.certificate
    tls = {
        "key": pem.private_key_pem.bytes().decode(),
        "cert": "".join([blob.bytes().decode() for blob in pem.cert_chain_pems]),
    }
    server = fluent_server(security=SECURITY, tls=tls)
    options = {"shared_key": KEY, "username": "ada", "password": "word", "compress": compress}
    sink = sink_to(server.port, tmp_path, "tls", "localhost", tls={"ca": authority.ca_file}, **options)
    records = said_by(2)
    assert await sink.deliver([batch_of(records), batch("x", of=DB)]) == DELIVERED
    await sink.close()
    got = await trio.to_thread.run_sync(server.wait_for, 4)
    assert [(each["tag"], each["record"]["message"]) for each in got] == [
        *(("logroute.web", record.message) for record in records), ("logroute.db", "x"),
    ]  # fmt: skip
    assert (got[0]["seconds"], got[0]["nanoseconds"]) == divmod(TIME_NS, 10**9)
    assert got[2]["record"]["fields"] == {"status": 401, "deep": [{"k": 1.5}]}
    assert got[2]["record"]["log"] == {"level": "warn"}


@pytest.mark.parametrize("given_", [{"shared_key": "wrong"}, {"shared_key": KEY, "password": "guess"}])
async def test_the_fluent_projects_receiver_lets_nobody_else_in(
    fluent_server: Callable[..., FluentServer], tmp_path: Path, given_: dict[str, str]
) -> None:
    server = fluent_server(security=SECURITY)
    options = {"username": "ada", "password": "word", **given_}
    with pytest.raises(Retryable) as caught:
        await sink_to(server.port, tmp_path, **options).open()
    assert str(caught.value).startswith(
        f"forward://127.0.0.1:{server.port}: the receiver does not accept our `shared_key`, or user"
    )
    # Without a key it is told that one is needed.
    assert "set `shared_key`" in await failure(sink_to(server.port, tmp_path), batch("1"))


def test_nothing_of_this_is_imported_for_other_sinks() -> None:
    code = "import sys, logroute.sinks.file; print('msgpack' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert said.stdout == b"False\n"
