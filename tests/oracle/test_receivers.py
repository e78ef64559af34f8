"""The receivers, driven by clients that are no daemon: what they accept, and how they misbehave."""

from __future__ import annotations

import math
import socket
from collections.abc import AsyncIterator
from random import Random

import h11
import msgspec
import pytest
import trio

from tests.oracle.history import History, StreamName
from tests.oracle.receivers import (
    KERNEL_BYTES,
    POISON,
    TOO_LARGE_BYTES,
    HttpReceiver,
    Receiver,
    SyslogReceiver,
    cut_frames,
)
from tests.oracle.records import Key, text_of

WEB = StreamName("web-1", "stdout")
BROKEN = (trio.BrokenResourceError, ConnectionError)


class Stage:
    """A receiver that runs, and 200 records that were written."""

    def __init__(self, receiver: Receiver, history: History) -> None:
        self.receiver = receiver
        self.history = history
        for number in range(200):
            history.write(Key(*WEB, number), 100, "file", 0.0)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.receiver.port)

    def accepted(self) -> list[int]:
        return list(self.receiver.books.arrivals[WEB].numbers)

    def sure(self) -> list[bool]:
        return [delivery.sure for delivery in self.receiver.books.arrivals[WEB].deliveries]

    async def post(self, *numbers: int) -> int | None:
        """The status of a request with these records; None without one."""
        return await self.post_body(b"".join(line(number) for number in numbers))

    async def post_body(self, body: bytes) -> int | None:
        client = h11.Connection(h11.CLIENT)
        head = client.send(
            h11.Request(
                method="POST", target="/", headers=[("Host", "x"), ("Content-Length", str(len(body)))]
            )
        )
        async with await self.connect() as stream:
            try:
                await stream.send_all((head or b"") + body)
                while True:
                    event = client.next_event()
                    if event is h11.NEED_DATA:
                        client.receive_data(await stream.receive_some())
                    elif isinstance(event, h11.Response):
                        return event.status_code
                    elif isinstance(event, h11.ConnectionClosed):
                        return None
            except (*BROKEN, h11.RemoteProtocolError):
                return None


def line(number: int, text: str = "payload") -> bytes:
    """A record as JSON."""
    record = {"message": text_of(Key(*WEB, number), text), "stream": "stdout", "container": {"name": "web-1"}}
    return msgspec.json.encode(record) + b"\n"


def frame(number: int) -> bytes:
    """A record as an octet-counted message of RFC 5424, with structured data that is hard to skip."""
    header = '<14>1 2026-11-23T20:06:26.123Z host web-1 - - [a@1 b="\\]\\" c"][d]'
    message = f"{header} {text_of(Key(*WEB, number), '[x')}"
    return f"{len(message)} {message}".encode()


@pytest.fixture
async def web(nursery: trio.Nursery) -> AsyncIterator[Stage]:
    history = History()
    receiver = HttpReceiver("web", history, Random(1))
    await nursery.start(receiver.run)
    yield Stage(receiver, history)
    nursery.cancel_scope.cancel()


@pytest.fixture
async def syslog(nursery: trio.Nursery) -> AsyncIterator[Stage]:
    history = History()
    receiver = SyslogReceiver("syslog", history, Random(1))
    await nursery.start(receiver.run)
    yield Stage(receiver, history)
    nursery.cancel_scope.cancel()


async def until_accepted(stage: Stage, count: int) -> None:
    with trio.fail_after(10):
        while len(stage.accepted()) < count:  # noqa: ASYNC110
            await trio.sleep(0.01)


# --- both ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [HttpReceiver, SyslogReceiver])
async def test_one_that_refuses_closes_its_port_and_has_it_again(
    kind: type[Receiver], nursery: trio.Nursery
) -> None:
    receiver = kind("out", History(), Random(1))
    await nursery.start(receiver.run)
    before = await trio.open_tcp_stream("127.0.0.1", receiver.port)
    with receiver.misbehaving("refuse"):
        with pytest.raises(BROKEN), trio.fail_after(5):
            await before.receive_some()
        with pytest.raises(OSError, match="all attempts"):
            await trio.open_tcp_stream("127.0.0.1", receiver.port)
    await before.aclose()
    with trio.fail_after(5):
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", receiver.port)).aclose()
                break
            except OSError:
                await trio.sleep(0.01)
    assert len(receiver.books.disturbed) == 1
    nursery.cancel_scope.cancel()


# --- HTTP ---------------------------------------------------------------------------------------------


async def test_http_what_was_answered_has_arrived(web: Stage) -> None:
    assert await web.post(0, 1, 2) == 204
    assert await web.post(3) == 204
    assert web.accepted() == [0, 1, 2, 3]
    assert web.sure() == [True] * 4
    assert not web.history.seen


async def test_http_what_failed_was_read_and_has_not_arrived(web: Stage) -> None:
    with web.receiver.misbehaving("fail"):
        statuses = {await web.post(number) for number in range(20)}
    assert None in statuses
    assert statuses - {None} <= {500, 502, 503}
    assert not web.accepted()


@pytest.mark.parametrize("mode", ["reset", "trickle", "nonsense"])
async def test_http_no_answer_can_be_had(web: Stage, mode: str) -> None:
    with web.receiver.misbehaving(mode):
        assert {await web.post(number) for number in range(10)} == {None}
    assert not web.accepted()
    assert web.receiver.books.cuts == 10


async def test_http_one_that_is_busy_says_so(web: Stage) -> None:
    with web.receiver.misbehaving("busy"):
        assert await web.post(1) == 429
    assert not web.accepted()


async def test_http_parts_of_what_was_refused_are_done_with_the_last_of_them(web: Stage) -> None:
    with web.receiver.misbehaving("reject"):
        assert await web.post(96, 97, 98) == 400
        assert await web.post(96) == 204
        (part,) = web.receiver.books.arrivals[WEB].deliveries
        assert part.done_at == math.inf
        assert await web.post(97, 98) == 400
        assert await web.post(97) == 400
        assert part.done_at == math.inf
        assert await web.post(98) == 204
    assert part.at <= part.done_at < math.inf
    assert await web.post(99) == 204
    assert web.receiver.books.arrivals[WEB].deliveries[-1].done_at < 0


async def test_http_one_that_rejects_tells_what_it_refused_alone(web: Stage) -> None:
    with web.receiver.misbehaving("reject"):
        assert await web.post(POISON - 1, POISON) == 400
        assert not web.receiver.books.refused
        assert await web.post(POISON) == 400
        assert web.receiver.books.refused == {Key(*WEB, POISON)}
        assert await web.post(POISON - 1) == 204
        many = list(range(1, 97)) * 5
        assert sum(len(line(number)) for number in many) > TOO_LARGE_BYTES
        assert await web.post(*many) == 413
    assert web.accepted() == [POISON - 1]


async def test_http_one_that_hangs_answers_nothing_until_it_is_well(web: Stage) -> None:
    with web.receiver.misbehaving("hang"):
        with trio.move_on_after(0.2) as waited:
            await web.post(1)
        assert waited.cancelled_caught
    assert await web.post(2) == 204
    # The first may have been read after all: nobody was there any more to hear of it.
    assert web.accepted() in ([2], [1, 2])
    assert not any(web.sure())


async def test_http_what_was_accepted_just_before_a_cut_is_unsure(web: Stage) -> None:
    assert await web.post(1) == 204
    with web.receiver.misbehaving("reset"):
        await web.post(2)
    assert await web.post(3) == 204
    assert web.sure() == [False, False]
    web.history.began -= 10  # as if so many seconds had gone by
    assert await web.post(4) == 204
    assert web.sure() == [False, False, True]


async def test_http_bodies_that_are_no_records_are_told(web: Stage) -> None:
    assert await web.post_body(b'{"message": "no hash"}\n') == 204
    assert await web.post_body(line(1)[:-1]) == 204
    assert await web.post_body(line(1).replace(b"payload", b"poyload")) == 204
    assert [violation.kind for violation in web.history.seen] == ["altered"] * 3
    assert not web.accepted()


# --- TCP ----------------------------------------------------------------------------------------------


async def test_tcp_what_was_read_has_arrived_also_in_pieces(syslog: Stage) -> None:
    async with await syslog.connect() as stream:
        await stream.send_all(frame(0) + frame(1)[:20])
        await until_accepted(syslog, 1)
        await stream.send_all(frame(1)[20:] + frame(2))
        await until_accepted(syslog, 3)
    assert syslog.accepted() == [0, 1, 2]
    assert not syslog.history.seen


async def test_tcp_one_that_hangs_takes_a_buffer_and_reads_it_or_not(syslog: Stage) -> None:
    async with await syslog.connect() as stream:
        await stream.send_all(frame(0))
        await until_accepted(syslog, 1)
        with syslog.receiver.misbehaving("hang"):
            sent = 0
            with trio.move_on_after(0.3) as waited:
                while True:
                    await stream.send_all(frame(1) * 100)
                    sent += 1
            assert waited.cancelled_caught
            assert sent
    # What the kernel takes for us is what a cut is said to cost at the most.
    assert syslog.receiver.books.cut_bytes == 2 * KERNEL_BYTES


@pytest.mark.parametrize("mode", ["reset", "trickle"])
async def test_tcp_one_that_cuts_counts_it(syslog: Stage, mode: str) -> None:
    with syslog.receiver.misbehaving(mode):
        async with await syslog.connect() as stream:
            with pytest.raises(BROKEN), trio.fail_after(5):  # noqa: PT012
                while True:
                    await stream.send_all(frame(1))
    assert syslog.receiver.books.cuts == 1


async def test_tcp_one_that_talks_nonsense_reads_on(syslog: Stage) -> None:
    with syslog.receiver.misbehaving("nonsense"):
        async with await syslog.connect() as stream:
            await stream.send_all(frame(1))
            assert await stream.receive_some()
            await until_accepted(syslog, 1)
    assert syslog.sure() == [False]


async def test_tcp_what_is_no_frame_is_told_and_cut(syslog: Stage) -> None:
    async with await syslog.connect() as stream:
        await stream.send_all(b"<14>1 - - - - - - no count\n")
        with pytest.raises(BROKEN), trio.fail_after(5):
            await stream.receive_some()
    assert [violation.kind for violation in syslog.history.seen] == ["altered"]


def test_frames_are_cut_wherever_the_bytes_end() -> None:
    data = b"3 abc0 12 <hello world"
    for end in range(len(data) + 1):
        frames, rest = cut_frames(data[:end])
        more, rest = cut_frames(rest + data[end:])
        assert [*frames, *more] == [b"abc", b"", b"<hello world"]
        assert rest == b""


@pytest.mark.parametrize("data", [b"x 1", b"3 abc\n4 ", b"1234567890123", b"-1 a", b" 1 a"])
def test_what_begins_with_no_count_is_no_frame(data: bytes) -> None:
    with pytest.raises(ValueError, match="octet count"):
        cut_frames(data)


def test_ports_are_not_those_of_outgoing_connections() -> None:
    """A client that tries a closed port of its own range may connect to itself."""
    with socket.socket() as any_:
        any_.bind(("127.0.0.1", 0))
        assert any_.getsockname()[1] >= 32_000
