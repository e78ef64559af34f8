"""The syslog sink: what its messages look like, what it does with bad receivers, and a real one."""

from __future__ import annotations

import gc
import re
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from logroute.config.uri import UriError, parse_uri
from logroute.router.position import BEGINNING
from logroute.router.record import Batch, DetailedRecord, Origin, Record
from logroute.router.times import short_time
from logroute.sinks import DELIVERED, Retryable, kernel_acknowledged
from logroute.sinks.syslog import SyslogOptions, SyslogSink
from logroute.sinks.syslog_message import (
    FACILITIES,
    HeaderTemplates,
    SyslogEncoder,
    header_value,
    local_time,
)
from tests.servers.rsyslog import Rsyslog
from tests.sinks.syslog_parser import Message, newline_ended, octet_counted, parse_rfc3164, parse_rfc5424
from tests.sinks.tcp_receiver import TcpReceiver
from tests.sinks.test_contract import Context

WEB = Origin("docker:web", "docker", id="0123456789abcdef" * 4, name="web", host="node-7")
TIME = "2026-11-03T20:06:26.123456789Z"


def batch_of(records: Sequence[Record], origin: Origin = WEB, *, newlines: bool = False) -> Batch:
    return Batch(origin, list(records), before=BEGINNING, after=BEGINNING, size_bytes=1, newlines=newlines)


def batch(*messages: str, origin: Origin = WEB) -> Batch:
    return batch_of([Record(message, "stdout", TIME) for message in messages], origin)


def encoder(
    format_: Any = "rfc5424",
    framing: Any = "octet-counting",
    facility: int = 1,
    max_bytes: int = 8192,
    hostname: str = "{host.name|-}",
    app_name: str | None = None,
    procid: str | None = None,
    msgid: str = "-",
    structured_data: Any = None,
) -> SyslogEncoder:
    templates = HeaderTemplates.parse(hostname, app_name, procid, msgid, structured_data)
    return SyslogEncoder(format_, framing, facility, templates, max_bytes)


def parsed(stream: bytes, format_: str = "rfc5424", framing: str = "octet-counting") -> list[Message]:
    frames = octet_counted(stream) if framing == "octet-counting" else newline_ended(stream)
    parse = parse_rfc5424 if format_ == "rfc5424" else parse_rfc3164
    return [parse(frame) for frame in frames]


# --- messages -----------------------------------------------------------------------------------------


def test_a_message_of_rfc5424() -> None:
    assert encoder().encode(batch("hello", "é")) == (
        b"67 <14>1 2026-11-03T20:06:26.123456Z node-7 web 0123456789ab - - hello"
        b"64 <14>1 2026-11-03T20:06:26.123456Z node-7 web 0123456789ab - - \xc3\xa9"
    )


def test_a_message_of_rfc3164() -> None:
    assert encoder("rfc3164", "newline").encode(batch("hello")) == (
        b"<14>Nov  3 20:06:26 node-7 web[0123456789ab]: hello\n"
    )


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Have this host in another zone."""

    def be_in(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()
        local_time.cache_clear()

    yield be_in
    monkeypatch.undo()
    time.tzset()
    local_time.cache_clear()


def test_a_local_message_is_what_syslog_3_writes(zone: Callable[[str], None]) -> None:
    zone("UTC")
    made = encoder("local", "newline", facility=3)
    of = Origin("docker:x", "docker", id="b" * 64, name="shop api:[1]ü" + "x" * 60, host="node-7")
    records: list[Record] = [
        Record("hello", "stdout", TIME),
        DetailedRecord("no\nway", "stdout", "2026-11-23T00:00:00Z", level="warn"),
        Record("", "stderr", "not a time"),
    ]
    assert made.encode(batch_of(records)) == (
        b"<30>Nov  3 20:06:26 web[0123456789ab]: hello\n"
        b"<28>Nov 23 00:00:00 web[0123456789ab]: no#012way\n"
        b"<27>Jan  1 00:00:00 web[0123456789ab]: \n"
    )
    assert made.messages(batch("two\nlines", "a\0b")) == [
        b"<30>Nov  3 20:06:26 web[0123456789ab]: two\nlines",
        b"<30>Nov  3 20:06:26 web[0123456789ab]: a#000b",
    ]
    (tag,) = encoder("local", procid="-").messages(batch("x", origin=of))
    assert tag == b"<14>Nov  3 20:06:26 shop_api__1__" + b"x" * (48 - 13) + b": x"


@pytest.mark.parametrize(
    ("name", "told"), [("<-03>3", "Nov  3 17:06:26"), ("Europe/Berlin", "Nov  3 21:06:26")]
)
def test_times_of_local_messages_are_of_this_hosts_zone(
    zone: Callable[[str], None], name: str, told: str
) -> None:
    zone(name)
    (message,) = encoder("local").messages(batch("x"))
    assert message.startswith(f"<14>{told} web[".encode())
    (other,) = encoder("rfc3164").messages(batch("x"))
    assert other.startswith(b"<14>Nov  3 20:06:26 node-7 web[")


@pytest.mark.parametrize(
    ("address", "format_", "begins"),
    [
        ("unix:///dev/log", None, "<14>Nov  3 "),
        ("unix:///run/systemd/journal/dev-log", None, "<14>Nov  3 "),
        ("unix:///run/systemd/journal/syslog", None, "<14>Nov  3 "),
        ("unix:///dev/log", "rfc5424", "<14>1 2026-11-03T"),
        ("unix:///run/other.sock", None, "<14>1 2026-11-03T"),
        ("unix:///run/other.sock", "local", "<14>Nov  3 "),
        ("tcp://h", None, "<14>1 2026-11-03T"),
    ],
)
def test_the_sockets_of_a_host_get_what_they_understand(
    context: Counting, address: str, format_: str | None, begins: str
) -> None:
    options = {"type": "syslog", "address": address} | ({"format": format_} if format_ else {})
    sink = SyslogSink(SyslogOptions.model_validate(options), context)
    assert sink._encoder.messages(batch("x"))[0].decode().startswith(begins)


def test_an_empty_batch_is_nothing() -> None:
    assert encoder().encode(batch()) == b""


def without_zeros(time: str) -> str:
    """Those of a fraction of a second may be there or not."""
    return re.sub(r"(\.[0-9]*?)0*Z$", r"\1Z", time).replace(".Z", "Z")


@pytest.mark.parametrize(
    ("time", "sent"),
    [
        (TIME, "2026-11-03T20:06:26.123456Z"),
        ("2026-11-03T20:06:26.999999999Z", "2026-11-03T20:06:26.999999Z"),
        ("2026-11-03T20:06:26.1Z", "2026-11-03T20:06:26.1Z"),
        ("2026-11-03T20:06:26Z", "2026-11-03T20:06:26Z"),
        ("not a time", "-"),
        ("2026-11-03T20:06:26.12345x789Z", "-"),
        ("2026-11-03 20:06:26.123456789Z", "-"),
        ("2026-11-03T20:06:26.1234٣6789Z", "-"),
        ("", "-"),
    ],
)
def test_times_have_microseconds_or_are_told_to_be_unknown(time: str, sent: str) -> None:
    records = [Record("a", "stdout", TIME), Record("b", "stdout", time)]
    first, second = parsed(encoder().encode(batch_of(records)))
    assert first.time == "2026-11-03T20:06:26.123456Z"
    assert without_zeros(second.time) == sent
    (older,) = parsed(encoder("rfc3164").encode(batch_of(records[1:])), "rfc3164")
    assert older.time in ("Nov  3 20:06:26", "Jan  1 00:00:00")


@given(
    st.lists(
        st.one_of(
            st.integers(0, 9).map(lambda digits: short_time(TIME[: 20 + digits] + "Z")),
            st.sampled_from(["", "Z", "2026-11-03T20:06:26.12345Zjunk", "ZZ" * 30, "2026-11-03T20:06:26.Z"]),
            st.text("0123456789-T:.Z", max_size=31),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_each_record_has_the_time_that_it_has_alone(times: list[str]) -> None:
    made = encoder()
    records = [Record(str(number), "stdout", time) for number, time in enumerate(times)]
    together = parsed(made.encode(batch_of(records)))
    alone = parsed(b"".join(made.encode(batch_of([each])) for each in records))
    assert [(m.text, without_zeros(m.time)) for m in together] == [
        (m.text, without_zeros(m.time)) for m in alone
    ]


def test_the_severity_is_the_levels_or_else_the_streams() -> None:
    records: list[Record] = [Record("a", "stdout", TIME), Record("b", "stderr", TIME)]
    levels = ["fatal", "error", "warn", "notice", "info", "debug", "trace", "?", None]
    with_levels = [DetailedRecord("x", "stderr", TIME, level=level) for level in levels]
    for facility in (0, 1, 12, 23):
        made = encoder(facility=facility)
        plain = parsed(made.encode(batch_of(records)))
        assert [(m.facility, m.severity) for m in plain] == [(facility, 6), (facility, 3)]
        messages = parsed(made.encode(batch_of([*with_levels, *records])))
        assert [m.severity for m in messages] == [2, 3, 4, 5, 6, 7, 7, 3, 3, 6, 3]


def test_what_the_header_says_is_the_users() -> None:
    made = encoder(
        hostname="h-{host.name}", app_name="{label.team|none}", procid="{stream}", msgid="{fields.k}"
    )
    of = Origin("docker:x", "docker", id="a" * 64, name="x", host="n", labels={"team": "pay ment"})
    records = [
        DetailedRecord("1", "stdout", TIME, fields={"k": "a b"}),
        DetailedRecord("2", "stderr", TIME, fields={"k": 5}),
        Record("3", "stderr", TIME),
    ]
    messages = parsed(made.encode(batch_of(records, of)))
    assert [(m.hostname, m.app_name, m.procid, m.msgid, m.text) for m in messages] == [
        ("h-n", "pay_ment", "stdout", "a_b", "1"),
        ("h-n", "pay_ment", "stderr", "5", "2"),
        ("h-n", "pay_ment", "stderr", "unknown", "3"),
    ]


def test_structured_data_says_what_is_known_and_leaves_out_what_is_empty() -> None:
    data = {"docker@32473": {"name": "{container.name}", "u": "{fields.u|}"}, "none@1": {"x": "{label.x|}"}}
    records: list[Record] = [
        DetailedRecord("a", "stdout", TIME, fields={"u": 'x"y\\z]\n'}),
        Record("b", "stdout", TIME),
    ]
    first, second = octet_counted(encoder(structured_data=data).encode(batch_of(records)))
    assert b' [docker@32473 name="web" u="x\\"y\\\\z\\]#012"] a' in first
    assert second.endswith(b' - [docker@32473 name="web"] b')
    assert parse_rfc5424(first).text == "a"


@given(st.text(max_size=3000), st.text(max_size=3000), st.sampled_from([480, 1024, 8192]))
def test_whatever_structured_data_says_a_message_is_one_and_not_too_large(
    value: str, text: str, most: int
) -> None:
    data = {"a@1": {"v": "{fields.v|}"}, "b@1": {"w": "{fields.v|}é"}}
    record = DetailedRecord(text, "stdout", TIME, fields={"v": value})
    made = encoder(structured_data=data, max_bytes=most)
    [frame] = octet_counted(made.encode(batch_of([record])))
    assert len(frame) <= most
    assert made.messages(batch_of([record])) == [frame]
    said = parse_rfc5424(frame).text
    assert said == shown_text(text) or said.endswith(" [truncated]")


def shown_text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def test_a_file_is_known_by_its_name() -> None:
    of = Origin("file:/var/log/app/web.log", "files", file="/var/log/app/web.log")
    (message,) = parsed(encoder().encode(batch("a", origin=of)))
    assert (message.hostname, message.app_name, message.procid) == ("-", "web.log", "-")
    (message,) = parsed(encoder("rfc3164").encode(batch("a", origin=of)), "rfc3164")
    assert (message.hostname, message.app_name, message.procid) == ("-", "web.log", "-")


@pytest.mark.parametrize("msgid", ["-", "{fields.k}"])
def test_an_origin_is_not_kept(msgid: str) -> None:
    made = encoder(msgid=msgid)
    of = Origin("docker:x", "docker", id="a" * 64, name="x")
    made.encode(batch("a", origin=of))
    gone = weakref.ref(of)
    del of
    gc.collect()
    assert gone() is None


def test_what_was_cut_is_marked() -> None:
    made = encoder(max_bytes=1024)
    records = [
        Record("short", "stdout", TIME),
        Record("é" * 1000, "stdout", TIME),
        DetailedRecord("cut before", "stdout", TIME, truncated=True),
        DetailedRecord("x" * 5000, "stdout", TIME, truncated=True),
    ]
    stream = made.encode(batch_of(records))
    assert [len(frame) for frame in octet_counted(stream)][1::2] in ([1023, 1024], [1024, 1024])
    short, cut, before, both = [message.text for message in parsed(stream)]
    assert short == "short"
    assert cut.endswith("é [truncated]")
    assert before == "cut before [truncated]"
    assert both.endswith("x [truncated]")
    assert both.count("[") == 1
    assert made.truncated == 2


TEXT = st.text(st.characters(codec=None), max_size=60)
NAMES = st.text(st.characters(codec=None), max_size=300)
TIMES = st.sampled_from([TIME, "2026-11-03T20:06:26.1Z", "2026-11-03T20:06:26Z", "no time"])
RECORDS = st.lists(
    st.one_of(
        st.builds(Record, TEXT, st.sampled_from(["stdout", "stderr"]), TIMES),
        st.builds(
            DetailedRecord, TEXT, st.sampled_from(["stdout", "stderr"]), TIMES,
            level=st.sampled_from([None, "error", "fatal", "x"]), fields=st.fixed_dictionaries({"k": NAMES}),
        ),
    ),
    min_size=1,
    max_size=8,
)  # fmt: skip


def utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize("format_", ["rfc5424", "rfc3164"])
@pytest.mark.parametrize("framing", ["octet-counting", "newline"])
@given(records=RECORDS, name=NAMES, host=NAMES, newlines=st.booleans(), varying=st.booleans())
def test_whatever_is_said_is_read_as_it_was_said(
    format_: str, framing: str, records: list[Record], name: str, host: str, newlines: bool, varying: bool
) -> None:
    """No text makes another frame, another header, or another text."""
    of = Origin("docker:x", "docker", id="a" * 64, name=name, host=host)
    texts = [record.message for record in records]
    if newlines:
        for record in records:
            record.message += "\n"
    made = encoder(format_, framing, msgid="{fields.k|-}" if varying else "-")
    messages = parsed(made.encode(batch_of(records, of, newlines=newlines)), format_, framing)
    if framing == "newline":
        texts = [text.replace("\n", "#012").replace("\0", "#000") for text in texts]
    assert [message.text for message in messages] == [utf8(text) for text in texts]
    assert len({(message.hostname, message.app_name) for message in messages}) == 1


FRAMINGS = st.sampled_from(["octet-counting", "newline"])


@given(texts=st.lists(st.text(max_size=3000), min_size=1, max_size=4), framing=FRAMINGS)
def test_no_message_is_larger_than_the_largest(texts: list[str], framing: str) -> None:
    stream = encoder(framing=framing, max_bytes=1024).encode(batch(*texts))
    frames = list(octet_counted(stream)) if framing == "octet-counting" else newline_ended(stream)
    assert len(frames) == len(texts)
    for frame, text in zip(frames, texts, strict=True):
        assert len(frame) <= 1024
        sent = parse_rfc5424(frame).text
        whole = utf8(text)
        if framing == "newline":
            whole = whole.replace("\n", "#012").replace("\0", "#000")
        if sent != whole:
            assert sent.endswith(" [truncated]")
            assert whole.startswith(sent.removesuffix(" [truncated]"))
            assert len(frame) > 1024 - 4, "no more is cut than a character"


@given(st.sampled_from(["hostname", "app_name", "procid", "msgid"]), NAMES)
def test_values_of_the_header_keep_to_their_characters_and_lengths(name: str, text: str) -> None:
    value = header_value(name, text)
    assert value
    assert all("\x21" <= character <= "\x7e" for character in value)
    assert len(value) <= {"hostname": 255, "app_name": 48, "procid": 128, "msgid": 32}[name]


def test_a_record_that_another_route_holds_is_not_changed() -> None:
    lines = [Record("a\n", "stdout", "2026-11-03T20:06:26.1Z")]
    encoder().encode(batch_of(lines, newlines=True))
    assert (lines[0].message, lines[0].time) == ("a\n", "2026-11-03T20:06:26.1Z")


# --- receivers ----------------------------------------------------------------------------------------


class Counting(Context):
    """What the router gives a sink; what the sink tells it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.lost = 0
        self.warnings: list[tuple[str, dict[str, object]]] = []

    def unconfirmed(self, records: int) -> None:
        self.lost += records

    def warn(self, event: str, **details: object) -> None:
        self.warnings.append((event, details))


@pytest.fixture
def receiver() -> Iterator[TcpReceiver]:
    receiver = TcpReceiver()
    yield receiver
    receiver.close()


@pytest.fixture
def context(tmp_path: Path) -> Counting:
    return Counting(tmp_path)


@pytest.fixture
async def sink(receiver: TcpReceiver, context: Counting) -> AsyncIterator[SyslogSink]:
    sink = sink_to(receiver.port, context)
    await sink.open()
    yield sink
    await sink.close()


def sink_to(port: int, context: Counting, host: str = "127.0.0.1", **options: Any) -> SyslogSink:
    address = f"tcp://{host}:{port}"
    return SyslogSink(
        SyslogOptions.model_validate({"type": "syslog", "address": address, **options}), context
    )


def texts(receiver: TcpReceiver) -> list[list[str]]:
    """What has come, by connection."""
    receiver.settle()
    return [[message.text for message in parsed(bytes(stream))] for stream in receiver.received]


def much() -> Batch:
    """More than two kernels hold between them, as long as nobody reads."""
    return batch(*["x" * 8000] * 4000)


async def until(happened: Callable[[], object]) -> None:
    """What another process, thread or the kernel does has no event here."""
    with trio.fail_after(30):
        while True:
            if happened():
                return
            await trio.sleep(0.001)


def has_ended(sink: SyslogSink) -> bool:
    """Whether its `run` has noticed that the connection has ended."""
    return sink._connection is not None and sink._connection.failure != ""


def is_held_up(sink: SyslogSink) -> bool:
    """Whether there is something that the peer's kernel does not take."""
    return sink._connection is not None and sink._connection.outstanding_bytes() > 0


@pytest.mark.parametrize("watched", [True, False])
async def test_a_connection_that_was_closed_while_unused_costs_nothing(
    receiver: TcpReceiver, sink: SyslogSink, context: Counting, nursery: trio.Nursery, watched: bool
) -> None:
    if watched:
        nursery.start_soon(sink.run)
    for n in range(3):
        assert await sink.deliver([batch(str(n))]) == DELIVERED
        receiver.hang_up()
        if watched:
            await until(lambda: has_ended(sink))
    assert texts(receiver) == [["0"], ["1"], ["2"]]
    assert context.lost == 0
    assert sink.statistics().connections == 3


@pytest.mark.parametrize("watched", [True, False])
async def test_what_a_reset_may_have_cost_is_counted(
    receiver: TcpReceiver, sink: SyslogSink, context: Counting, nursery: trio.Nursery, watched: bool
) -> None:
    if watched:
        nursery.start_soon(sink.run)
    await sink.deliver([batch("read", "read too")])
    receiver.settle()
    receiver.stop_reading()
    await sink.deliver([batch("a"), batch("b", "c")])
    receiver.reset()
    if watched:
        await until(lambda: context.lost == 5)
    receiver.read_on()
    assert await sink.deliver([batch("d")]) == DELIVERED
    # What was read counts too: no receiver of syslog says what it has read.
    assert context.lost == sink.statistics().unconfirmed == 5
    assert texts(receiver) == [["read", "read too"], ["d"]]
    ((event, details),) = context.warnings
    assert event == "records may be lost: the receiver had taken them and may not have read them"
    assert details == {
        "receiver": f"syslog+tcp://127.0.0.1:{receiver.port}",
        "reason": "the connection broke: Connection reset by peer (ECONNRESET)",
        "records": 5,
    }


@pytest.mark.parametrize("watched", [True, False])
async def test_a_reset_may_follow_the_end_of_the_stream(
    receiver: TcpReceiver, sink: SyslogSink, context: Counting, nursery: trio.Nursery, watched: bool
) -> None:
    """As from receivers that shut a connection down before they close it, whatever they have read."""
    if watched:
        nursery.start_soon(sink.run)
    receiver.stop_reading()
    await sink.deliver([batch("a", "b")])
    receiver.shut_down()
    receiver.read_on()
    await sink.deliver([batch("c")])
    assert context.lost == 2
    # The same, having read everything.
    receiver.settle()
    receiver.shut_down()
    await sink.deliver([batch("d")])
    assert context.lost == 2


async def test_a_reset_is_no_end_of_the_stream_whoever_hears_of_it_first(
    receiver: TcpReceiver, sink: SyslogSink, context: Counting
) -> None:
    """The kernel tells its error to one call only; what the next one sees looks like an end."""
    await sink.deliver([batch("a")])
    receiver.reset()
    assert sink._connection is not None
    with pytest.raises(ConnectionResetError):
        await sink._connection._socket.recv(1)
    assert await sink._connection._socket.recv(1) == b""
    await sink.deliver([batch("b")])
    assert context.lost == 1


async def test_what_only_our_own_kernel_has_is_not_delivered(context: Counting) -> None:
    receiver = TcpReceiver(buffer_bytes=4096)
    sink = sink_to(receiver.port, context)
    await sink.open()
    receiver.stop_reading()
    delivered: list[object] = []

    async def deliver() -> None:
        delivered.append(await sink.deliver([batch(*["x" * 1000] * 16)]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver)
        await until(lambda: is_held_up(sink))
        for _ in range(20):
            await trio.sleep(0.001)
        assert delivered == []
        receiver.read_on()
    assert delivered == [DELIVERED]
    await sink.close()
    receiver.close()


async def test_only_what_the_peers_kernel_can_hold_is_unconfirmed(
    receiver: TcpReceiver, sink: SyslogSink, context: Counting
) -> None:
    assert sink._connection is not None
    sink._connection._window_bytes = 10_000
    for n in range(1000):
        await sink.deliver([batch(str(n) * 100)])
    receiver.reset()
    await sink.deliver([batch("a")])
    size = len(encoder().encode(batch("999" * 100)))
    assert context.lost in range(10_000 // size, 10_000 // size + 2)


LARGEST_BUFFER = max(
    int(Path("/proc/sys/net/ipv4/tcp_rmem").read_text().split()[2]),
    int(Path("/proc/sys/net/core/rmem_max").read_text()),
)
"""Of a receiver here: Linux chooses the scale of its window after it (tcp_select_initial_window())."""


async def test_the_bound_is_the_largest_window_of_the_scale(sink: SyslogSink) -> None:
    assert sink._connection is not None
    assert LARGEST_BUFFER <= sink._connection._window_bytes <= 2 * LARGEST_BUFFER


async def test_a_receiver_that_stops_reading_holds_the_delivery_up(
    receiver: TcpReceiver, sink: SyslogSink, context: Counting
) -> None:
    receiver.stop_reading()
    outcomes: list[object] = []

    async def deliver() -> None:
        outcomes.append(await sink.deliver([much()]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver)
        await until(lambda: is_held_up(sink))
        for _ in range(100):
            await trio.sleep(0.001)
        assert outcomes == [], "the peer's kernel has not taken it"
        receiver.read_on()
    assert outcomes == [DELIVERED]
    assert len(texts(receiver)[0]) == 4000
    assert context.lost == 0


async def test_a_delivery_that_is_cut_off_is_tried_again(
    receiver: TcpReceiver, sink: SyslogSink, context: Counting, nursery: trio.Nursery
) -> None:
    nursery.start_soon(sink.run)
    await sink.deliver([batch("before")])
    receiver.settle()
    receiver.stop_reading()
    async with trio.open_nursery() as inner:

        @inner.start_soon
        async def cut_off() -> None:
            await until(lambda: is_held_up(sink))
            receiver.reset()

        with pytest.raises(Retryable) as caught:
            await sink.deliver([much()])
    assert str(caught.value) == (
        f"syslog+tcp://127.0.0.1:{receiver.port}: the connection broke: Connection reset by peer (ECONNRESET)"
    )
    assert context.lost == 1, "what is sent again is not lost"
    receiver.read_on()
    await sink.open()
    assert await sink.deliver([much()]) == DELIVERED
    assert len(texts(receiver)[-1]) == 4000


async def test_a_cancelled_delivery_closes_its_connection(
    receiver: TcpReceiver, sink: SyslogSink, context: Counting
) -> None:
    await sink.deliver([batch("before")])
    receiver.settle()
    receiver.stop_reading()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.deliver, [much()])
        await until(lambda: is_held_up(sink))
        nursery.cancel_scope.cancel()
    assert context.lost == 1, "who takes nothing may not have read what it had taken"
    receiver.read_on()
    await until(lambda: receiver.settle() or not receiver.connections)
    await sink.open()
    assert await sink.deliver([batch("after")]) == DELIVERED
    assert texts(receiver)[1] == ["after"]


async def test_a_receiver_that_closes_after_each_byte(
    receiver: TcpReceiver, context: Counting, nursery: trio.Nursery
) -> None:
    """Whatever of it was delivered and is lost is counted. Once it is well, everything else arrives."""
    sink = sink_to(receiver.port, context)
    nursery.start_soon(sink.run)
    receiver.be_rude()
    delivered: list[str] = []
    failed: list[str] = []
    reasons: set[str] = set()
    for n in range(150):
        try:
            await sink.deliver([batch(f"{n} of many")])
            delivered.append(f"{n} of many")
        except Retryable as error:
            failed.append(f"{n} of many")
            reasons.add(str(error).removeprefix(f"syslog+tcp://127.0.0.1:{receiver.port}: "))
    assert failed
    receiver.be_rude(False)
    # Whoever was closed on before shall not be closed on now.
    with suppress(Retryable):
        await sink.open()
    later = [*failed, *(f"{n} of many" for n in range(150, 200))]
    for text in later:
        await sink.deliver([batch(text)])
    await sink.close()
    receiver.settle()
    whole = [bytes(stream) for stream in receiver.received if len(stream) > 1]
    arrived = {message.text for stream in whole for message in parsed(stream)}
    assert reasons <= {
        "the receiver has closed the connection",
        "the connection broke: Connection reset by peer (ECONNRESET)",
        "the connection broke: Broken pipe (EPIPE)",
    }
    assert len(set(delivered) - arrived) <= context.lost <= len(delivered)
    assert set(later) <= arrived


async def test_what_a_receiver_says_is_ignored(
    receiver: TcpReceiver, sink: SyslogSink, nursery: trio.Nursery
) -> None:
    nursery.start_soon(sink.run)
    for n in range(3):
        await sink.deliver([batch(str(n))])
        receiver.say(b"thank you\r\n" * 1000)
    assert texts(receiver) == [["0", "1", "2"]]


async def test_closing_waits_for_a_receiver_that_reads(receiver: TcpReceiver, context: Counting) -> None:
    sink = sink_to(receiver.port, context)
    receiver.stop_reading()
    await sink.deliver([batch("a")])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.close)
        await trio.sleep(0.02)
        assert receiver.received == [b""]
        receiver.read_on()
    assert texts(receiver) == [["a"]]
    assert context.lost == 0


async def test_a_connection_that_is_closed_while_it_is_watched_costs_nothing(
    receiver: TcpReceiver, context: Counting, nursery: trio.Nursery
) -> None:
    sink = sink_to(receiver.port, context)
    nursery.start_soon(sink.run)
    for n in range(20):
        await sink.deliver([batch(str(n))])
        await sink.open()
    assert context.lost == 0
    await sink.close()


async def test_closing_does_not_wait_for_ever_for_a_receiver_that_may_not_have_read(
    receiver: TcpReceiver, context: Counting, autojump_clock: trio.testing.MockClock
) -> None:
    sink = sink_to(receiver.port, context)
    receiver.stop_reading()
    await sink.deliver([batch("a", "b")])
    began = trio.current_time()
    await sink.close()
    assert trio.current_time() - began == pytest.approx(kernel_acknowledged.CLOSE_S, abs=0.1)
    assert context.lost == 0  # it may read them yet
    # Nothing was sent, so that there is nothing to wait for.
    await sink.open()
    began = trio.current_time()
    await sink.close()
    assert trio.current_time() == began


async def test_a_receiver_that_closes_with_data_unread_while_we_do_is_told(
    receiver: TcpReceiver, context: Counting
) -> None:
    sink = sink_to(receiver.port, context)
    receiver.stop_reading()
    await sink.deliver([batch("a")])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.close)
        await trio.sleep(0.05)
        receiver.close_all()
    assert context.lost == 1
    assert context.warnings[0][1]["reason"] == "the connection broke: Connection reset by peer (ECONNRESET)"


async def test_a_receiver_that_is_gone_without_a_word_is_noticed(
    receiver: TcpReceiver, sink: SyslogSink
) -> None:
    """The kernel's own timers do it; here it is only seen that they are set."""
    assert sink._connection is not None
    option = sink._connection._socket.getsockopt
    assert option(trio.socket.SOL_SOCKET, trio.socket.SO_KEEPALIVE) == 1
    assert option(trio.socket.IPPROTO_TCP, trio.socket.TCP_KEEPIDLE) == 30
    assert option(trio.socket.IPPROTO_TCP, trio.socket.TCP_USER_TIMEOUT) == 60_000


# --- connecting ---------------------------------------------------------------------------------------


class Names(trio.abc.HostnameResolver):
    """Leads every name to one port on loopback, or nowhere."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port
        self.asked: list[object] = []

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        self.asked.append((host, port))
        if self.port is None:
            raise trio.socket.gaierror(trio.socket.EAI_NONAME, "Name or service not known")
        kind = (trio.socket.AF_INET, trio.socket.SOCK_STREAM, trio.socket.IPPROTO_TCP)
        return [(*kind, "", ("127.0.0.1", self.port))]

    async def getnameinfo(self, *_: Any) -> Any:
        raise NotImplementedError


async def test_a_name_is_resolved_at_each_connection(receiver: TcpReceiver, context: Counting) -> None:
    names = Names(receiver.port)
    trio.socket.set_custom_hostname_resolver(names)
    sink = sink_to(514, context, "logs.invalid")
    await sink.open()
    await sink.deliver([batch("a")])
    receiver.hang_up()
    moved = TcpReceiver()
    names.port = moved.port
    await sink.deliver([batch("b")])
    await sink.close()
    assert names.asked == [(b"logs.invalid", 514)] * 2
    assert (texts(receiver), texts(moved)) == ([["a"]], [["b"]])
    moved.close()


async def test_a_receiver_that_cannot_be_reached_is_told(receiver: TcpReceiver, context: Counting) -> None:
    receiver.refuse()
    with pytest.raises(Retryable) as caught:
        await sink_to(receiver.port, context).open()
    assert str(caught.value) == (
        f"syslog+tcp://127.0.0.1:{receiver.port}: cannot connect: Connection refused (ECONNREFUSED)"
    )
    receiver.accept()
    trio.socket.set_custom_hostname_resolver(Names())
    for host in ("logs.invalid", "x" * 64 + ".invalid"):
        with pytest.raises(Retryable, match=rf"^syslog\+tcp://{host}:514: cannot connect: "):
            await sink_to(514, context, host).open()


async def test_a_receiver_that_never_accepts_has_ten_seconds(
    context: Counting, autojump_clock: trio.testing.MockClock
) -> None:
    class Silent(Names):
        async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
            await trio.sleep_forever()

    trio.socket.set_custom_hostname_resolver(Silent())
    with pytest.raises(Retryable, match=r"^syslog\+tcp://logs.invalid:514: not connected within 10 s$"):
        await sink_to(514, context, "logs.invalid").open()


# --- options ------------------------------------------------------------------------------------------


def test_uris() -> None:
    given = parse_uri("syslog+tcp://logs.test?format=rfc3164&facility=local3&max_size=2KiB")
    assert given == {
        "type": "syslog", "address": "tcp://logs.test", "format": "rfc3164", "facility": "local3",
        "max_size": "2KiB",
    }  # fmt: skip
    options = SyslogOptions.model_validate(given)
    assert (options.facility, options.max_size) == (19, 2048)
    assert parse_uri("syslog+tcp://[::1]:1514")["address"] == "tcp://[::1]:1514"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (
            "syslog+pigeon://h",
            'syslog+pigeon://h: no transport "pigeon://"; there are udp://, tcp://, tls://, unix://',
        ),
        ("syslog+unix://dev/log", "syslog+unix://dev/log: is no socket such as unix:///dev/log"),
        ("relp://h:1/x", "relp://h:1/x: has something behind the port"),
        ("relp+udp://h:1", 'relp+udp://h:1: no transport "udp://"; there are tcp://, tls://'),
        ("syslog+tcp://:514", "syslog+tcp://:514: names no host"),
        ("syslog+tcp:h", "syslog+tcp:h: names no host"),
        ("syslog+tcp://h:port", "syslog+tcp://h:port: is no address such as tcp://logs.example.com:514"),
        ("syslog+tcp://h:1/x", "syslog+tcp://h:1/x: has something behind the port"),
        ("syslog+tcp://ada:pw@h:1", "syslog+tcp://ada:***@h:1: takes no user: syslog knows none"),
        (
            "syslog+tcp://h?address=tcp://x",
            "syslog+tcp://h?address=…: the URI is the address, `address` is no parameter",
        ),
    ],
)
def test_a_uri_that_means_no_receiver_is_told(uri: str, said: str) -> None:
    with pytest.raises(UriError) as caught:
        parse_uri(uri)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"address": "logs.test:514"}, 'no transport "logs.test://"; there are udp://, tcp://'),
        ({"address": "//h"}, "no transport; there are udp://, tcp://"),
        ({"address": "tcp://h\n:1"}, "must not contain spaces or control characters"),
        ({"facility": "locl0"}, 'or local0, or its number; did you mean "local0"?'),
        ({"facility": 24}, "expected a facility such as user, daemon or local0, or its number"),
        ({"facility": "-1"}, "expected a facility"),
        ({"facility": True}, "expected a facility"),
        ({"facility": None}, "expected a facility"),
        ({"max_size": "100"}, "Input should be greater than or equal to 480"),
        ({"address": "udp://h", "framing": "newline"}, "`framing` is of streams"),
        ({"structured_data": {"docker": {"a": "b"}}}, "such as docker@32473"),
        ({"structured_data": {"a b@1": {"a": "b"}}}, "'a b@1' cannot be a name"),
        ({"structured_data": {"a@1": {}}}, '"a@1" has no parameter'),
        ({"structured_data": {"a@1": {'"': "b"}}}, "cannot be a name"),
        ({"structured_data": {"a@1": {"b": "{nope}"}}}, 'unknown path "nope"'),
        ({"app_name": "{container.nmae}"}, 'did you mean "container.name"?'),
        ({"format": "rfc5425"}, "Input should be 'rfc5424', 'rfc3164' or 'local'"),
        ({"format": "local"}, "`format: local` is of unix sockets"),
    ],
)  # fmt: skip
def test_mistakes_are_told(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SyslogOptions.model_validate({"type": "syslog", "address": "tcp://h", **options})
    (error,) = caught.value.errors()
    assert said in error["msg"]


def test_facilities_have_names_and_numbers() -> None:
    assert len(FACILITIES) == 24
    for number, name in enumerate(FACILITIES):
        for written in (name, name.upper(), number, str(number)):
            options = SyslogOptions.model_validate({"address": "tcp://h", "facility": written})
            assert options.facility == number
        assert options.model_dump(mode="json")["facility"] == name


# --- a real one ---------------------------------------------------------------------------------------

SAID = [
    "hello",
    "",
    "é \U0001f600",
    'a "quoted" \\ one',
    "two\nlines",
    "\ttab\x1b[31m",
    "<13>1 - - - - - -",
    "7 <1> x",
]


@pytest.mark.parametrize("framing", ["octet-counting", "newline"])
async def test_rsyslog_reads_the_fields_as_they_were_sent(
    rsyslog: Rsyslog, context: Counting, framing: str
) -> None:
    sink = sink_to(rsyslog.port, context, framing=framing, facility="local3", msgid="{fields.k|-}")
    records: list[Record] = [Record(text, "stdout", TIME) for text in SAID]
    records.append(DetailedRecord("warned", "stdout", TIME, level="warn", fields={"k": "ID47"}))
    of = Origin("docker:x", "docker", id="b" * 64, name="shop api/ü:1", host="node-7.test")
    assert await sink.deliver([batch_of(records), batch_of(records[-1:], of)]) == DELIVERED
    await sink.close()
    rsyslog.wait_for(len(records) + 1)
    plain = {
        "facility": "19",
        "severity": "6",
        "time": "2026-11-03T20:06:26.123456Z",
        "hostname": "node-7",
        "app_name": "web",
        "programname": "web",
        "procid": "0123456789ab",
        "msgid": "-",
        "structured_data": "-",
    }
    said = [text.replace("\n", "#012") if framing == "newline" else text for text in SAID]
    warned = {**plain, "severity": "4", "msgid": "ID47", "message": "warned"}
    # rsyslog's `programname` ends where a slash stands.
    named = {
        "hostname": "node-7.test",
        "app_name": "shop_api/_:1",
        "procid": "b" * 12,
        "programname": "shop_api",
    }
    got = rsyslog.messages()
    for message in got:
        message["time"] = message["time"].replace("+00:00", "Z")
    assert got == [*({**plain, "message": text} for text in said), warned, {**warned, **named}]


async def test_rsyslog_reads_the_older_form_too(rsyslog: Rsyslog, context: Counting) -> None:
    sink = sink_to(rsyslog.port, context, format="rfc3164", facility="daemon")
    assert await sink.deliver([batch("hello")]) == DELIVERED
    await sink.close()
    rsyslog.wait_for(1)
    (message,) = rsyslog.messages()
    assert message["facility"] == "3"
    assert message["hostname"] == "node-7"
    assert message["programname"] == "web"
    assert message["procid"] == "0123456789ab"
    assert message["time"][5:19] == "11-03T20:06:26"
    assert message["message"].strip() == "hello"


async def test_rsyslog_has_every_one_of_many_lines(rsyslog: Rsyslog, context: Counting) -> None:
    sink = sink_to(rsyslog.port, context)
    count, each = 200_000, 2_500
    for first in range(0, count, each):
        await sink.deliver([batch(*(f"line {n} of many" for n in range(first, first + each)))])
    await sink.close()
    await trio.to_thread.run_sync(rsyslog.wait_for, count)
    assert [message["message"] for message in rsyslog.messages()] == [
        f"line {n} of many" for n in range(count)
    ]
    assert context.lost == 0


async def test_an_rsyslog_that_is_started_again_costs_nothing_that_it_has_read(
    rsyslog: Rsyslog, context: Counting, nursery: trio.Nursery
) -> None:
    sink = sink_to(rsyslog.port, context)
    nursery.start_soon(sink.run)
    await sink.deliver([batch("before")])
    rsyslog.wait_for(1)
    rsyslog.stop()
    with pytest.raises(Retryable, match="cannot connect: Connection refused"):
        await sink.deliver([batch("after")])
    rsyslog.start()
    assert await sink.deliver([batch("after")]) == DELIVERED
    await sink.close()
    rsyslog.wait_for(2)
    assert [message["message"] for message in rsyslog.messages()] == ["before", "after"]
    assert context.lost == 0
