"""Syslog by UDP, TLS and unix sockets: what is sent, what is noticed, and real receivers of each."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from logroute.router.record import DetailedRecord, Record
from logroute.sinks import DELIVERED, Retryable, Sink, datagrams, kernel_acknowledged
from logroute.sinks.syslog import SyslogOptions, SyslogSink
from tests.conftest import missing
from tests.servers.rsyslog import Certificates, Rsyslog, free_port
from tests.servers.syslog_ng import SyslogNg
from tests.sinks import datagram_receiver
from tests.sinks.datagram_receiver import Narrow, udp_socket
from tests.sinks.syslog_parser import octet_counted, parse_rfc5424
from tests.sinks.tcp_receiver import NO_LINGER
from tests.sinks.test_syslog import SAID, TIME, Counting, batch, batch_of


@pytest.fixture
def context(tmp_path: Path) -> Counting:
    return Counting(tmp_path)


def sink_to(address: str, context: Counting, **options: Any) -> SyslogSink:
    return SyslogSink(
        SyslogOptions.model_validate({"type": "syslog", "address": address, **options}), context
    )


class Inbox(datagram_receiver.Inbox):
    """Messages that have come."""

    def texts(self, count: int) -> list[str]:
        return [parse_rfc5424(each).text for each in self.take(count)]


@pytest.fixture
def udp() -> Iterator[Inbox]:
    with udp_socket() as made:
        yield Inbox(made)


# --- UDP ----------------------------------------------------------------------------------------------


async def test_each_record_is_a_datagram(udp: Inbox, context: Counting) -> None:
    sink = sink_to(f"udp://127.0.0.1:{udp.port}", context)
    assert await sink.deliver([batch(*map(str, range(200))), batch("last")]) == DELIVERED
    assert udp.texts(201) == [*map(str, range(200)), "last"]
    await sink.close()


async def test_a_datagram_has_a_kilobyte_unless_it_is_told_otherwise(udp: Inbox, context: Counting) -> None:
    sink = sink_to(f"udp://127.0.0.1:{udp.port}", context)
    await sink.deliver([batch("é" * 2000)])
    data = udp.socket.recv(1 << 16)
    assert 1020 <= len(data) <= 1024
    assert parse_rfc5424(data).text.endswith("é [truncated]")
    assert context.warnings == [("messages were cut to max_size", {"messages": 1, "max_size": 1024})]
    await sink.close()
    sink = sink_to(f"udp://127.0.0.1:{udp.port}", context, max_size="8KiB")
    await sink.deliver([batch("x" * 7000)])
    assert udp.texts(1) == ["x" * 7000]
    await sink.close()


async def test_where_nobody_listens_the_route_waits(context: Counting) -> None:
    port = free_port(socket.SOCK_DGRAM)
    sink = sink_to(f"udp://127.0.0.1:{port}", context)
    with pytest.raises(Retryable) as caught:
        await sink.deliver([batch(*map(str, range(100)))])
    assert str(caught.value) == (
        f"syslog+udp://127.0.0.1:{port}: cannot send: Connection refused (ECONNREFUSED)"
    )
    assert context.lost == 0
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as made:
        made.bind(("127.0.0.1", port))
        assert await sink.deliver([batch("1", "2")]) == DELIVERED
        assert Inbox(made).texts(2) == ["1", "2"]
    await sink.close()


async def test_what_was_sent_shortly_before_nobody_listened_any_more_is_unconfirmed(
    udp: Inbox, context: Counting
) -> None:
    sink = sink_to(f"udp://127.0.0.1:{udp.port}", context)
    await sink.deliver([batch("1", "2", "3")])
    udp.socket.close()
    with pytest.raises(Retryable, match="refused"):
        await sink.deliver([batch("4")])
    assert context.lost == 3
    await sink.close()


async def test_what_the_path_does_not_take_is_cut_and_never_stalls(
    udp: Inbox, context: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sink_to(f"udp://127.0.0.1:{udp.port}", context, max_size="8KiB")
    await sink.open()
    assert sink._datagrams is not None
    monkeypatch.setattr(sink._datagrams, "_socket", Narrow(sink._datagrams._socket))
    await sink.deliver([batch("x" * 5000, "short", "y" * 5000)])
    first, short, last = udp.texts(3)
    assert first.startswith("xxx")
    assert first.endswith("x [truncated]")
    assert (short, last[:2]) == ("short", "yy")
    [(event, details)] = context.warnings
    assert event == "messages were cut to what the path takes"
    assert details["messages"] == 2
    await sink.close()


async def test_a_full_queue_of_the_interface_is_waited_for(
    udp: Inbox, context: Counting, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    sink = sink_to(f"udp://127.0.0.1:{udp.port}", context)
    await sink.open()
    assert sink._datagrams is not None
    real, refused = sink._datagrams._socket, 3

    class Full:
        def send(self, data: bytes) -> int:
            nonlocal refused
            refused -= 1
            if refused >= 0:
                raise OSError(errno.ENOBUFS, "")
            return real.send(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    monkeypatch.setattr(sink._datagrams, "_socket", Full())
    assert await sink.deliver([batch("1")]) == DELIVERED
    assert udp.texts(1) == ["1"]
    await sink.close()


async def test_a_name_is_looked_up_again_now_and_then(
    udp: Inbox, context: Counting, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    asked = 0
    answers: list[Any] = []

    async def resolve(host: str, port: int) -> list[tuple[int, Any]]:
        nonlocal asked
        asked += 1
        answer = answers[min(asked, len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return [(socket.AF_INET, answer)]

    monkeypatch.setattr(datagrams, "_resolve", resolve)
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as other:
        other.bind(("127.0.0.1", 0))
        answers[:] = [udp.socket.getsockname(), socket.gaierror(-3, "away"), other.getsockname()]
        sink = sink_to(f"udp://logs.test:{udp.port}", context)
        await sink.deliver([batch("1")])
        assert asked == 1
        await trio.sleep(datagrams.RESOLVE_EVERY_S)
        await sink.deliver([batch("2")])  # a name server that is away stops nothing
        assert udp.texts(2) == ["1", "2"]
        await trio.sleep(datagrams.RESOLVE_EVERY_S)
        await sink.deliver([batch("3")])
        await sink.deliver([batch("4")])
        assert Inbox(other).texts(2) == ["3", "4"]
        assert asked == 3
    await sink.close()


# --- names with several addresses ---------------------------------------------------------------------

NEXT = "the receiver's name has several addresses, and one refuses: the next one is used"


class Names:
    """A name server: `logs.test` has these addresses of this host."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hosts: list[str] = []
        monkeypatch.setattr(datagrams, "_resolve", self._resolve)

    async def _resolve(self, host: str, port: int) -> list[tuple[int, Any]]:
        assert host == "logs.test"
        return [
            (socket.AF_INET6, (each, port, 0, 0)) if ":" in each else (socket.AF_INET, (each, port))
            for each in self.hosts
        ]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@pytest.mark.parametrize("first", ["::1", "127.0.0.2", "255.255.255.255"])
async def test_where_nobody_listens_at_the_first_address_the_next_one_gets_everything(
    udp: Inbox, context: Counting, names: Names, first: str
) -> None:
    names.hosts = [first, "127.0.0.3", "127.0.0.1"]
    sink = sink_to(f"udp://logs.test:{udp.port}", context)
    assert await sink.deliver([batch(*map(str, range(100)))]) == DELIVERED
    assert await sink.deliver([batch("last")]) == DELIVERED
    assert udp.texts(101) == [*map(str, range(100)), "last"]
    assert context.lost == 0
    told = [(event, details["address"], details["records"]) for event, details in context.warnings]
    assert told[-1] == (NEXT, "127.0.0.3", 0)
    assert set(told[:-1]) <= {(NEXT, first, 0)}
    await sink.close()


async def test_the_address_that_works_stays_as_long_as_the_name_has_it(
    udp: Inbox, context: Counting, names: Names, autojump_clock: trio.testing.MockClock
) -> None:
    names.hosts = ["127.0.0.2", "127.0.0.1"]
    sink = sink_to(f"udp://logs.test:{udp.port}", context)
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as other:
        for number in range(3):
            await sink.deliver([batch(str(number))])
            if not number:
                other.bind(("127.0.0.2", udp.port))
            await trio.sleep(datagrams.RESOLVE_EVERY_S)
        assert udp.texts(3) == ["0", "1", "2"]
        names.hosts = ["127.0.0.2"]
        await trio.sleep(datagrams.RESOLVE_EVERY_S)
        await sink.deliver([batch("moved")])
        assert Inbox(other).texts(1) == ["moved"]
    assert [event for event, _ in context.warnings] == [NEXT]
    await sink.close()


async def test_what_was_sent_to_an_address_that_refuses_now_is_unconfirmed(
    udp: Inbox, context: Counting, names: Names
) -> None:
    names.hosts = ["127.0.0.1", "127.0.0.2"]
    sink = sink_to(f"udp://logs.test:{udp.port}", context)
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as other:
        other.bind(("127.0.0.2", udp.port))
        await sink.deliver([batch("1", "2", "3")])
        udp.socket.close()
        await sink.deliver([batch("4")])
        await sink.deliver([batch("5")])
        assert Inbox(other).texts(2) == ["4", "5"]
    assert context.lost == 3
    assert [(event, details["records"]) for event, details in context.warnings] == [(NEXT, 3)]
    await sink.close()


async def test_where_nobody_listens_at_any_address_the_route_waits(context: Counting, names: Names) -> None:
    names.hosts = ["127.0.0.2", "127.0.0.3"]
    port = free_port(socket.SOCK_DGRAM)
    sink = sink_to(f"udp://logs.test:{port}", context)
    for _ in range(2):
        with pytest.raises(Retryable, match=r"cannot send: Connection refused \(ECONNREFUSED\)"):
            await sink.deliver([batch("1")])
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as made:
        made.bind(("127.0.0.2", port))
        assert await sink.deliver([batch("2")]) == DELIVERED
        assert Inbox(made).texts(1) == ["2"]
    assert context.lost == 0
    await sink.close()


class Late:
    """A socket to somewhere afar where nobody listens: that comes to be known when the next one is sent."""

    family = socket.AF_INET

    def __init__(self, family: int, address: Any) -> None:
        self._sent = 0

    def send(self, data: bytes) -> int:
        self._sent += 1
        if self._sent > 1:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        return len(data)

    def getsockopt(self, level: int, option: int) -> int:
        return 0

    def close(self) -> None:
        pass


async def test_addresses_that_refuse_late_do_not_take_turns_for_ever(
    context: Counting, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    names.hosts = ["192.0.2.1", "192.0.2.2"]
    monkeypatch.setattr(datagrams, "_connected", Late)
    sink = sink_to("udp://logs.test:514", context)
    outcomes = []
    for _ in range(6):
        try:
            outcomes.append(await sink.deliver([batch("x")]) == DELIVERED)
        except Retryable:
            outcomes.append(False)
    assert outcomes == [True, True, False] * 2  # the route is known to be down
    assert context.lost == outcomes.count(True)
    await sink.close()


# --- unix sockets -------------------------------------------------------------------------------------


async def test_datagrams_to_a_unix_socket_wait_for_who_reads_them(tmp_path: Path, context: Counting) -> None:
    path = tmp_path / "log"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as made:
        made.bind(str(path))
        sink = sink_to(f"unix://{path}", context)
        got: list[str] = []
        reader = threading.Thread(target=lambda: got.extend(Inbox(made).texts(2000)))

        async def deliver() -> None:
            await sink.deliver([batch(*map(str, range(2000)))])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver)
            await trio.sleep(0.05)
            reader.start()
        await trio.to_thread.run_sync(reader.join)
        assert got == [*map(str, range(2000))]
        await sink.close()


async def test_a_stream_on_a_unix_socket_is_delivered_when_it_was_read(
    tmp_path: Path, context: Counting
) -> None:
    path = tmp_path / "log"
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(10)
        sink = sink_to(f"unix://{path}", context)
        delivered = trio.Event()

        async def deliver() -> None:
            await sink.deliver([batch("1", "2")])
            delivered.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver)
            connection, _ = await trio.to_thread.run_sync(listener.accept)
            with closing(connection):
                await trio.sleep(0.1)
                assert not delivered.is_set()
                lines = connection.recv(1 << 16).split(b"\n")
                await delivered.wait()
                assert [parse_rfc5424(line).text for line in lines[:-1]] == ["1", "2"]
        listener.close()
        # Everything was read, so that its end costs nothing.
        with pytest.raises(Retryable, match="refused"):
            await sink.deliver([batch("3")])
        assert context.lost == 0
        await sink.close()


async def test_a_socket_that_is_not_there_is_told(tmp_path: Path, context: Counting) -> None:
    sink = sink_to(f"unix://{tmp_path}/log", context)
    with pytest.raises(Retryable, match="cannot connect: No such file or directory"):
        await sink.open()
    await sink.close()


# --- TLS ----------------------------------------------------------------------------------------------


class Authority:
    """An authority, and the files that sinks and receivers read."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.ca = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.ca_file))
        self.client_file = folder / "client.pem"
        client = self.ca.issue_cert("ada@example.com")
        client.private_key_and_cert_chain_pem.write_to_path(str(self.client_file))

    def certificates(self, **options: Any) -> Certificates:
        issued = self.ca.issue_cert("localhost", **options)
        cert, key = self._folder / "server.pem", self._folder / "server.key"
        issued.cert_chain_pems[0].write_to_path(str(cert))
        issued.private_key_pem.write_to_path(str(key))
        return Certificates(self.ca_file, cert, key)

    def context(self, **options: Any) -> ssl.SSLContext:
        files = self.certificates(**options)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files.cert, files.key)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


class TlsReceiver:
    """Reads one connection after another, or does what it was told instead."""

    def __init__(self, serve: Callable[[socket.socket], bytes]) -> None:
        self.received: list[bytes] = []
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            try:
                self.received.append(self._serve(connection))
            except (OSError, ssl.SSLError):
                self.received.append(b"")
            connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def reads_tls(context: ssl.SSLContext) -> Callable[[socket.socket], bytes]:
    def serve(connection: socket.socket) -> bytes:
        with context.wrap_socket(connection, server_side=True) as stream:
            data = b""
            while more := stream.recv(1 << 16):
                data += more
            return data

    return serve


async def test_messages_go_through_tls_and_all_of_them_are_read(
    context: Counting, authority: Authority, nursery: trio.Nursery
) -> None:
    receiver = TlsReceiver(reads_tls(authority.context()))
    sink = sink_to(f"tls://localhost:{receiver.port}", context, tls={"ca": str(authority.ca_file)})
    nursery.start_soon(sink.run)
    many = [f"{n} {'x' * 200}" for n in range(5000)]
    assert await sink.deliver([batch(*many)]) == DELIVERED
    await sink.close()
    receiver.close()
    [data] = receiver.received
    assert [parse_rfc5424(frame).text for frame in octet_counted(data)] == many
    assert context.lost == 0


@pytest.mark.parametrize("ending", ["says farewell", "closes", "waits for our end of the stream"])
async def test_closing_says_farewell_and_costs_nothing_where_all_was_read(
    context: Counting, authority: Authority, ending: str
) -> None:
    server = authority.context()

    def serve(connection: socket.socket) -> bytes:
        data = b""
        with server.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as stream:
            while more := stream.recv(1 << 16):  # it raises where there is no farewell
                data += more
            if ending == "says farewell":
                stream.unwrap()
            elif ending.startswith("waits"):
                while socket.socket.recv(stream, 1 << 16):
                    pass
        return data

    receiver = TlsReceiver(serve)
    sink = sink_to(f"tls://localhost:{receiver.port}", context, tls={"ca": str(authority.ca_file)})
    assert await sink.deliver([batch("a")]) == DELIVERED
    began = trio.current_time()
    await sink.close()
    assert trio.current_time() - began < 2
    receiver.close()
    assert [len([*octet_counted(data)]) for data in receiver.received] == [1]
    assert context.lost == 0


@pytest.mark.parametrize("ending", ["closes", "shuts down first", "does nothing"])
async def test_a_receiver_that_reads_nothing_while_we_close_is_told(
    context: Counting, authority: Authority, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_acknowledged, "CLOSE_S", 0.5)
    server = authority.context()
    ended = threading.Event()

    def serve(connection: socket.socket) -> bytes:
        with server.wrap_socket(connection, server_side=True) as stream:
            ended.wait(10)
            if ending.startswith("shuts"):
                socket.socket.shutdown(stream, socket.SHUT_RDWR)
            elif ending.startswith("does"):
                time.sleep(1)
        return b""

    receiver = TlsReceiver(serve)
    sink = sink_to(f"tls://localhost:{receiver.port}", context, tls={"ca": str(authority.ca_file)})
    assert await sink.deliver([batch("a", "b")]) == DELIVERED
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.close)
        await trio.sleep(0.05)
        ended.set()
    receiver.close()
    # One that does nothing may read them yet.
    lost = 0 if ending.startswith("does") else 2
    assert context.lost == sink.statistics().unconfirmed == lost


@pytest.mark.parametrize(
    ("host", "options", "words"),
    [
        ("127.0.0.1", {}, "its certificate is not accepted: IP address mismatch"),
        (
            "localhost",
            {"not_after": datetime.now(UTC) - timedelta(days=1)},
            "its certificate is not accepted: certificate has expired",
        ),
    ],
    ids=["of another host", "expired"],
)
async def test_a_receiver_whose_certificate_is_not_right_gets_nothing(
    context: Counting, authority: Authority, host: str, options: dict[str, Any], words: str
) -> None:
    receiver = TlsReceiver(reads_tls(authority.context(**options)))
    sink = sink_to(f"tls://{host}:{receiver.port}", context, tls={"ca": str(authority.ca_file)})
    with pytest.raises(Retryable) as caught:
        await sink.deliver([batch("secret")])
    assert str(caught.value).startswith(f"syslog+tls://{host}:{receiver.port}: cannot connect: {words}")
    await sink.close()
    receiver.close()
    assert receiver.received == [b""]


class Here(trio.abc.HostnameResolver):
    """Every name is this host's."""

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def getnameinfo(self, *_: Any) -> Any:
        raise NotImplementedError


async def test_a_certificate_has_a_name_without_the_dot_that_makes_it_absolute(
    context: Counting, authority: Authority
) -> None:
    trio.socket.set_custom_hostname_resolver(Here())
    receiver = TlsReceiver(reads_tls(authority.context()))
    sink = sink_to(f"tls://localhost.:{receiver.port}", context, tls={"ca": str(authority.ca_file)})
    assert await sink.deliver([batch("a")]) == DELIVERED
    await sink.close()
    sink = sink_to(f"tls://logs.test.:{receiver.port}", context, tls={"ca": str(authority.ca_file)})
    with pytest.raises(Retryable, match=r"Hostname mismatch, certificate is not valid for 'logs\.test'"):
        await sink.deliver([batch("b")])
    await sink.close()
    receiver.close()
    assert [bool(data) for data in receiver.received] == [True, False]


# A handshake ends on our side before the receiver has looked at our certificate.

REFUSED = "the receiver refuses our TLS certificate"


@pytest.mark.parametrize("given", [False, True], ids=["none", "of another authority"])
async def test_a_receiver_that_refuses_our_certificate_gets_nothing_and_is_told(
    context: Counting, authority: Authority, tmp_path: Path, nursery: trio.Nursery, given: bool
) -> None:
    server = authority.context()
    server.load_verify_locations(authority.ca_file)
    server.verify_mode = ssl.CERT_REQUIRED
    receiver = TlsReceiver(reads_tls(server))
    tls = {"ca": str(authority.ca_file)}
    if given:
        tls["cert"] = str(Authority(tmp_path / "other").client_file)
    sink = sink_to(f"tls://localhost:{receiver.port}", context, tls=tls)
    nursery.start_soon(sink.run)
    for _ in range(20):  # what of two things comes first is chance
        with pytest.raises(Retryable) as caught:
            await sink.deliver([batch("secret")])
        assert str(caught.value).startswith(f"syslog+tls://localhost:{receiver.port}: {REFUSED} (")
        assert str(caught.value).endswith("): set `tls.cert` and `tls.key`")
    await sink.close()
    receiver.close()
    assert set(receiver.received) == {b""}
    assert (context.lost, sink.statistics().connections) == (0, 0)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_receiver_that_ends_right_after_the_handshake_gets_nothing(
    context: Counting, authority: Authority, version: ssl.TLSVersion, reset: bool
) -> None:
    """As rsyslog with GnuTLS does, which looks at our certificate then, and sends no alert."""
    server = authority.context()
    server.num_tickets = 0
    server.options |= ssl.OP_NO_TICKET
    server.maximum_version = version

    def refuse(connection: socket.socket) -> bytes:
        with server.wrap_socket(connection, server_side=True) as stream:
            if reset:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        return b""

    receiver = TlsReceiver(refuse)
    sink = sink_to(f"tls://localhost:{receiver.port}", context, tls={"ca": str(authority.ca_file)})
    with pytest.raises(Retryable) as caught:
        await sink.deliver([batch("secret")])
    assert "right after the TLS handshake: " in str(caught.value)
    assert "does it refuse our certificate (`tls.cert`, `tls.key`)?" in str(caught.value)
    await sink.close()
    receiver.close()
    assert context.lost == 0


async def test_a_receiver_that_has_accepted_us_is_not_waited_for(
    context: Counting, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_acknowledged, "SETTLE_S", 60.0)
    receiver = TlsReceiver(reads_tls(authority.context()))
    sink = sink_to(f"tls://localhost:{receiver.port}", context, tls={"ca": str(authority.ca_file)})
    with trio.fail_after(10):
        assert await sink.deliver([batch("a")]) == DELIVERED
    await sink.close()
    receiver.close()
    assert [len([*octet_counted(data)]) for data in receiver.received] == [1]


async def test_a_receiver_that_does_not_say_whether_it_has_accepted_us_has_a_moment(
    context: Counting, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_acknowledged, "SETTLE_S", 0.2)
    server = authority.context()
    server.num_tickets = 0
    receiver = TlsReceiver(reads_tls(server))
    sink = sink_to(f"tls://localhost:{receiver.port}", context, tls={"ca": str(authority.ca_file)})
    began = trio.current_time()
    assert await sink.deliver([batch("a")]) == DELIVERED
    assert trio.current_time() - began >= 0.2
    began = trio.current_time()
    assert await sink.deliver([batch("b")]) == DELIVERED
    assert trio.current_time() - began < 0.2, "once per connection"
    await sink.close()
    # Somebody who has no time gets it back.
    monkeypatch.setattr(kernel_acknowledged, "SETTLE_S", 60.0)
    with trio.move_on_after(0.2):
        await sink.deliver([batch("c")])
    receiver.close()
    assert [len([*octet_counted(data)]) for data in receiver.received] == [2, 0]


async def test_a_receiver_that_hangs_in_the_handshake_has_ten_seconds(
    context: Counting, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05
    ended = threading.Event()
    receiver = TlsReceiver(lambda connection: b"never" if ended.wait(30) else b"")
    sink = sink_to(f"tls://127.0.0.1:{receiver.port}", context)
    with pytest.raises(Retryable, match="the TLS handshake is not finished after 10 s"):
        await sink.open()
    ended.set()
    await sink.close()
    receiver.close()


async def test_a_receiver_without_tls_is_told(context: Counting) -> None:
    def answer(connection: socket.socket) -> bytes:
        connection.sendall(b"this is no TLS\n")
        return connection.recv(10)

    receiver = TlsReceiver(answer)
    sink = sink_to(f"tls://127.0.0.1:{receiver.port}", context)
    with pytest.raises(Retryable, match="cannot connect: TLS failed"):
        await sink.open()
    await sink.close()
    receiver.close()


# --- real ones ----------------------------------------------------------------------------------------

COUNT, EACH = 200_000, 2_500
RECORDS: list[Record] = [
    *(Record(text, "stdout", TIME) for text in SAID),
    DetailedRecord("warned", "stderr", TIME, level="warn", fields={"k": 'a "quoted" \\ [one]'}),
]
STRUCTURED = {"docker@32473": {"name": "{container.name}", "k": "{fields.k|}", "none": "{label.x|}"}}


async def all_of_many(sink: Sink[Any], server: Rsyslog, count: int = COUNT, ahead: int | None = None) -> None:
    """With `ahead`, no more than so many are ever sent that have not come."""
    each = min(EACH, ahead or EACH)
    for first in range(0, count, each):
        texts = [f"line {n} of many" for n in range(first, min(first + each, count))]
        await sink.deliver([batch(*texts)])
        if ahead is not None:
            await trio.to_thread.run_sync(server.wait_for, first + len(texts), 0.001)
    await sink.close()
    await trio.to_thread.run_sync(server.wait_for, count)
    assert server.texts() == [f"line {n} of many" for n in range(count)]


async def fields_as_sent(sink: Sink[Any], server: Rsyslog, newline: str = "\n") -> None:
    assert await sink.deliver([batch_of(RECORDS)]) == DELIVERED
    await sink.close()
    await trio.to_thread.run_sync(server.wait_for, len(RECORDS))
    got = server.messages()
    assert [message["message"] for message in got] == [
        record.message.replace("\n", newline) for record in RECORDS
    ]
    assert {message["app_name"] for message in got} == {"web"}
    assert {message["hostname"] for message in got} == {"node-7"}
    assert {message["time"][:26] for message in got} == {"2026-11-03T20:06:26.123456"}
    assert [message["severity"] for message in got] == ["6"] * len(SAID) + ["4"]
    # syslog-ng numbers what comes from its own host.
    said = [re.sub(r'\[meta sequenceId="\d+"\]', "", message["structured_data"]) for message in got]
    assert said[-1] == r'[docker@32473 name="web" k="a \"quoted\" \\ [one\]"]'
    assert said[0] == '[docker@32473 name="web"]'


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[Rsyslog], Rsyslog]]:
    """Starts a server; skips where it cannot be had."""
    servers: list[Rsyslog] = []

    def start(server: Rsyslog) -> Rsyslog:
        if reason := type(server).unavailable():
            missing(reason)
        server.folder.mkdir()
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.close()


Started = Callable[[Rsyslog], Rsyslog]


async def test_rsyslog_by_udp(tmp_path: Path, context: Counting, started: Started) -> None:
    server = started(Rsyslog(tmp_path / "server", "udp"))
    address = f"udp://127.0.0.1:{server.other_port}"
    await fields_as_sent(sink_to(address, context, structured_data=STRUCTURED), server)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a buffer in the kernel for all of them")
async def test_rsyslog_has_every_one_of_many_datagrams(
    tmp_path: Path, context: Counting, started: Started
) -> None:
    server = started(Rsyslog(tmp_path / "server", "udp"))
    await all_of_many(sink_to(f"udp://127.0.0.1:{server.other_port}", context), server)
    assert context.lost == 0


async def test_rsyslog_by_tls(
    tmp_path: Path, context: Counting, authority: Authority, started: Started
) -> None:
    server = started(Rsyslog(tmp_path / "server", "tls", certificates=authority.certificates(), clients=True))
    address, ca = f"tls://localhost:{server.other_port}", str(authority.ca_file)
    tls = {"ca": ca, "cert": str(authority.client_file)}
    await fields_as_sent(sink_to(address, context, structured_data=STRUCTURED, tls=tls), server)


@pytest.mark.parametrize("given", [False, True], ids=["none", "of another authority"])
async def test_an_rsyslog_that_refuses_our_certificate_costs_nothing(
    tmp_path: Path, context: Counting, authority: Authority, started: Started, given: bool
) -> None:
    server = started(Rsyslog(tmp_path / "server", "tls", certificates=authority.certificates(), clients=True))
    address, tls = f"tls://localhost:{server.other_port}", {"ca": str(authority.ca_file)}
    other = {"cert": str(Authority(tmp_path / "other").client_file)} if given else {}
    sink = sink_to(address, context, tls=tls | other)
    for _ in range(5):
        with pytest.raises(Retryable, match="does it refuse our certificate"):
            await sink.deliver([batch("1")])
    await sink.close()
    sink = sink_to(address, context, tls=tls | {"cert": str(authority.client_file)})
    assert await sink.deliver([batch("1")]) == DELIVERED
    await sink.close()
    await trio.to_thread.run_sync(server.wait_for, 1)
    assert (server.texts(), context.lost) == (["1"], 0)


async def test_rsyslog_has_every_one_of_many_lines_by_tls(
    tmp_path: Path, context: Counting, authority: Authority, started: Started, nursery: trio.Nursery
) -> None:
    server = started(Rsyslog(tmp_path / "server", "tls", certificates=authority.certificates()))
    tls = {"ca": str(authority.ca_file)}
    sink = sink_to(f"tls://localhost:{server.other_port}", context, tls=tls)
    nursery.start_soon(sink.run)
    await all_of_many(sink, server)
    assert context.lost == 0


@pytest.mark.parametrize("kind", ["unix", "unix+times"])
async def test_rsyslog_reads_local_messages_from_its_socket_as_they_were_sent(
    tmp_path: Path, context: Counting, started: Started, kind: str
) -> None:
    """imuxsock, which rsyslog has /dev/log with: there a host name would be the tag."""
    server = started(Rsyslog(tmp_path / "server", kind))
    sink = sink_to(f"unix://{server.path}", context, format="local", facility="local3")
    assert await sink.deliver([batch_of(RECORDS)]) == DELIVERED
    await sink.close()
    await trio.to_thread.run_sync(server.wait_for, len(RECORDS))
    got = server.messages()
    # The space behind the tag belongs to the message there, whoever writes it.
    assert [message["message"] for message in got] == [f" {record.message}" for record in RECORDS]
    assert {message["app_name"] for message in got} == {message["programname"] for message in got} == {"web"}
    assert {message["procid"] for message in got} == {"0123456789ab"}
    assert {message["facility"] for message in got} == {"19"}
    assert [message["severity"] for message in got] == ["6"] * len(SAID) + ["4"]
    assert "node-7" not in {message["hostname"] for message in got}
    at = datetime.fromisoformat(TIME[:19] + "+00:00")
    same = [datetime.fromisoformat(message["time"]).replace(year=at.year) == at for message in got]
    assert same == [kind == "unix+times"] * len(RECORDS)


@pytest.mark.parametrize("source", ["tcp", "udp", "unix-dgram", "unix-stream"])
async def test_syslog_ng_reads_the_fields_as_they_were_sent(
    tmp_path: Path, context: Counting, started: Started, source: str
) -> None:
    server = started(SyslogNg(tmp_path / "server", source))
    await fields_as_sent(
        sink_to(address_of(server, source), context, structured_data=STRUCTURED),
        server,
        "#012" if source == "unix-stream" else "\n",
    )


async def test_syslog_ng_by_tls(
    tmp_path: Path, context: Counting, authority: Authority, started: Started
) -> None:
    certificates = authority.certificates()
    server = started(SyslogNg(tmp_path / "server", "tls", certificates=certificates, clients=True))
    tls = {"ca": str(authority.ca_file), "cert": str(authority.client_file)}
    address = f"tls://localhost:{server.port}"
    await fields_as_sent(sink_to(address, context, structured_data=STRUCTURED, tls=tls), server)
    # Somebody without a certificate is refused, in words, and loses nothing.
    sink = sink_to(address, context, tls={"ca": str(authority.ca_file)})
    with pytest.raises(Retryable, match=REFUSED):
        await sink.deliver([batch("refused")])
    await sink.close()
    assert (server.count(), context.lost) == (len(RECORDS), 0)


@pytest.mark.parametrize("source", ["tcp", "unix-dgram", "unix-stream"])
async def test_syslog_ng_has_every_one_of_many_lines(
    tmp_path: Path, context: Counting, started: Started, source: str
) -> None:
    server = started(SyslogNg(tmp_path / "server", source))
    await all_of_many(sink_to(address_of(server, source), context), server)
    assert context.lost == 0


async def test_syslog_ng_has_every_one_of_many_lines_by_tls(
    tmp_path: Path, context: Counting, authority: Authority, started: Started, nursery: trio.Nursery
) -> None:
    server = started(SyslogNg(tmp_path / "server", "tls", certificates=authority.certificates()))
    sink = sink_to(f"tls://localhost:{server.port}", context, tls={"ca": str(authority.ca_file)})
    nursery.start_soon(sink.run)
    await all_of_many(sink, server)
    assert context.lost == 0


async def test_syslog_ng_has_every_one_of_many_datagrams(
    tmp_path: Path, context: Counting, started: Started
) -> None:
    """It asks for no more of the kernel than anybody may have, and is not sent more than fits there."""
    server = started(SyslogNg(tmp_path / "server", "udp"))
    sink = sink_to(address_of(server, "udp"), context)
    await all_of_many(sink, server, ahead=buffer_bytes() // DATAGRAM_BYTES)
    assert context.lost == 0


DATAGRAM_BYTES = 2048
"""Far more than a small one takes of a buffer in the kernel, with what that keeps beside it."""


def buffer_bytes() -> int:
    """The largest that the kernel gives a socket without force (net.core.rmem_max)."""
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as asked:
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 28)
        return asked.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def address_of(server: Rsyslog, source: str) -> str:
    if isinstance(server, SyslogNg) and source.startswith("unix"):
        return f"unix://{server.path}"
    return f"{source}://127.0.0.1:{server.port}"
