"""RELP: what is sent and acknowledged, receivers that misbehave, and a real one that is killed."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from logroute.router.record import Batch
from logroute.sinks import DELIVERED, Outcome, Retryable, relp
from logroute.sinks.relp import RelpOptions, RelpSink
from logroute.sinks.relp_protocol import LAST_NUMBER, Answers, RelpError, number_of, numbers_of
from tests.servers.rsyslog import Rsyslog
from tests.sinks.relp_receiver import RelpReceiver, accept
from tests.sinks.syslog_parser import parse_rfc5424
from tests.sinks.test_syslog import Counting, batch
from tests.sinks.test_syslog_transports import (
    STRUCTURED,
    Authority,
    Started,
    all_of_many,
    fields_as_sent,
    started,
)

__all__ = ["started"]


@pytest.fixture
def context(tmp_path: Path) -> Counting:
    return Counting(tmp_path)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@pytest.fixture
def receiver() -> Iterator[RelpReceiver]:
    receiver = RelpReceiver()
    yield receiver
    receiver.close()


def sink_to(port: int, context: Counting, host: str = "127.0.0.1", **options: Any) -> RelpSink:
    scheme = "tls" if "tls" in options else "tcp"
    given = {"type": "relp", "address": f"{scheme}://{host}:{port}", **options}
    return RelpSink(RelpOptions.model_validate(given), context)


def texts(receiver: RelpReceiver) -> list[str]:
    return [parse_rfc5424(message).text for message in receiver.messages]


async def test_every_message_is_a_frame_and_is_acknowledged(
    receiver: RelpReceiver, context: Counting
) -> None:
    sink = sink_to(receiver.port, context)
    assert await sink.deliver([batch("1", "two\nlines"), batch("é" * 5000)]) == DELIVERED
    assert await sink.deliver([batch(*map(str, range(5000)))]) == DELIVERED
    assert sink.answer == "200"
    await sink.close()
    one, two, long, *rest = texts(receiver)
    assert (one, two) == ("1", "two\nlines")
    assert long.endswith("é [truncated]")
    assert rest == [*map(str, range(5000))]
    assert (receiver.sessions, receiver.farewells) == (1, 1)
    assert sink.statistics().truncated == 1


async def test_numbers_begin_again_after_nine_digits() -> None:
    assert [number_of(n) for n in (0, 1, LAST_NUMBER - 1, LAST_NUMBER)] == [1, 2, LAST_NUMBER, 1]
    firsts = [LAST_NUMBER - 4, LAST_NUMBER - 3, LAST_NUMBER - 1, LAST_NUMBER]
    for first in (0, 5, 995, 996, 998, 999, 1000, 1998, 1999, 9996, 9999, *firsts):
        for count in (0, 1, 4, 1000, 2003):
            begin, digits = numbers_of(first, count)
            numbers = [a + b for a, b in zip(begin, digits, strict=True)]
            assert numbers == [str(number_of(first + n)) for n in range(count)]


async def test_what_was_acknowledged_before_the_end_is_not_sent_again(
    receiver: RelpReceiver, context: Counting
) -> None:
    sink = sink_to(receiver.port, context)
    first, second = batch("1", "2"), batch("3", "4", "5")
    receiver.behaviours.extend([accept, accept, accept, lambda *_: None])
    with pytest.raises(Retryable, match=r"has closed the connection|the connection broke"):
        await sink.deliver([first, second])
    assert texts(receiver) == ["1", "2", "3"]
    await sink.open()
    assert await sink.deliver([first, second]) == DELIVERED
    assert texts(receiver) == ["1", "2", "3", "4", "5"]
    # Of another delivery all of it is sent, whatever was acknowledged of the one before.
    assert await sink.deliver([batch("6")]) == DELIVERED
    await sink.close()
    assert texts(receiver)[5:] == ["6"]


async def test_other_batches_are_sent_whole(receiver: RelpReceiver, context: Counting) -> None:
    sink = sink_to(receiver.port, context)
    receiver.behaviours.extend([accept, lambda *_: None])
    with pytest.raises(Retryable):
        await sink.deliver([batch("1", "2")])
    assert await sink.deliver([batch("1", "2")]) == DELIVERED
    await sink.close()
    assert texts(receiver) == ["1", "1", "2"]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (lambda _, n, m: b"%d rsp 5 maybe\n" % n, "the receiver said what is no RELP: maybe"),
        (lambda _, n, m: b"%d rsp 0\n" % n, "the receiver said what is no RELP"),
        (lambda _, n, m: b"%d rsp 6 200 OK\n" % (n + 1), "the receiver answered another frame: 3 rsp"),
        (lambda _, n, m: b"0 serverclose 0\n", "the receiver has ended the session"),
        (lambda _, n, m: b"HTTP/1.1 400 Bad Request\r\n\r\n", "the receiver said what is no RELP: HTTP/1.1"),
        (lambda _, n, m: b"%d rsp 999999999 200" % n + b"x" * 200_000 + b"\n", "answers without an end"),
        (lambda _, n, m: b"1" * 200_000, "answers without an end"),
        (lambda _, n, m: b"%d rsp 3 200 OK\n" % n, "said what is no RELP"),
        (lambda _, n, m: b"%d rsp x 200 OK\n" % n, "said what is no RELP"),
    ],
)
async def test_a_receiver_that_says_anything_but_yes_is_told(
    receiver: RelpReceiver, context: Counting, behaviour: Any, words: str
) -> None:
    sink = sink_to(receiver.port, context)
    receiver.behaviours.append(behaviour)
    with pytest.raises(Retryable) as caught:
        await sink.deliver([batch("1")])
    assert str(caught.value).startswith(f"relp://127.0.0.1:{receiver.port}: ")
    assert words in str(caught.value)
    assert await sink.deliver([batch("1")]) == DELIVERED
    await sink.close()
    assert texts(receiver) == ["1"]


# --- messages that are refused ------------------------------------------------------------------------


def refuse(words: bytes = b"500 too large") -> Any:
    return lambda _, number, message: b"%d rsp %d %s\n" % (number, len(words), words)


def rejected(outcome: Outcome) -> list[tuple[int, str, str]]:
    return [(each.batch, each.record.message, each.reason) for each in outcome.rejected]


def postponed(outcome: Outcome) -> list[tuple[int, str]]:
    return [(each.batch, each.record.message) for each in outcome.postponed]


async def test_a_message_that_is_refused_among_others_costs_none_of_them(
    receiver: RelpReceiver, context: Counting
) -> None:
    sink = sink_to(receiver.port, context)
    receiver.behaviours.extend([*[accept] * 149, refuse(), *[accept] * 30, refuse(b"501 not so")])
    numbers = [*map(str, range(200))]
    outcome = await sink.deliver([batch(*numbers[:100]), batch(*numbers[100:])])
    assert rejected(outcome) == [(1, "149", "500 too large"), (1, "180", "501 not so")]
    assert postponed(outcome) == []
    assert await sink.deliver([batch("next")]) == DELIVERED
    await sink.close()
    assert texts(receiver) == [*(n for n in numbers if n not in ("149", "180")), "next"]
    assert receiver.sessions == 1


async def test_a_receiver_that_refuses_all_up_to_the_last_is_asked_again(
    receiver: RelpReceiver, context: Counting
) -> None:
    sink = sink_to(receiver.port, context)
    full = refuse(b"500 queue full!")
    receiver.behaviours.extend([refuse(), accept, *[full] * 3])
    outcome = await sink.deliver([batch("1", "2", "3"), batch("4", "5")])
    assert rejected(outcome) == [(0, "1", "500 too large")]
    assert postponed(outcome) == [(0, "3"), (1, "4"), (1, "5")]
    assert {each.reason for each in outcome.postponed} == {
        f"relp://127.0.0.1:{receiver.port}: the receiver refused: 500 queue full!"
    }
    # On another connection: the trouble may be this one's.
    assert await sink.deliver([batch("3"), batch("4", "5")]) == DELIVERED
    await sink.close()
    assert texts(receiver) == ["2", "3", "4", "5"]
    assert receiver.sessions == 2


async def test_of_what_is_refused_again_one_with_each_attempt_is_rejected(
    receiver: RelpReceiver, context: Counting
) -> None:
    sink = sink_to(receiver.port, context)
    left = [batch("1", "2"), batch("3")]
    receiver.behaviours.extend([refuse()] * 8)
    for sent, taken, later in [(3, [], ["1", "2", "3"]), (3, ["1"], ["2", "3"]), (2, ["2"], ["3"])]:
        assert sum(map(len, left)) == sent
        outcome = await sink.deliver(left)
        assert [message for _, message, _ in rejected(outcome)] == taken
        assert [message for _, message in postponed(outcome)] == later
        left = again(left, outcome)
    assert await sink.deliver(left) == DELIVERED
    # What another delivery begins with is asked for again first.
    receiver.behaviours.append(refuse())
    outcome = await sink.deliver([batch("4")])
    assert (rejected(outcome), postponed(outcome)) == ([], [(0, "4")])
    await sink.close()
    assert texts(receiver) == ["3"]


def again(batches: list[Batch], outcome: Outcome) -> list[Batch]:
    """What the router sends next."""
    later = [
        [each.record for each in outcome.postponed if each.batch == index] for index in range(len(batches))
    ]
    return [batch.with_records(records) for batch, records in zip(batches, later, strict=True) if records]


async def test_what_was_refused_before_a_connection_ended_is_not_sent_again(
    receiver: RelpReceiver, context: Counting
) -> None:
    sink = sink_to(receiver.port, context)
    receiver.behaviours.extend([accept, refuse(), accept, lambda *_: None])
    batches = [batch("1", "2"), batch("3", "4", "5")]
    with pytest.raises(Retryable):
        await sink.deliver(batches)
    assert rejected(await sink.deliver(batches)) == [(0, "2", "500 too large")]
    await sink.close()
    assert texts(receiver) == ["1", "3", "4", "5"]


@pytest.mark.parametrize(
    ("opening", "words"),
    [
        (lambda n, offer: b"%d rsp 17 500 not you again\n" % n, "refused: 500 not you again"),
        (lambda n, offer: None, "has closed the connection|the connection broke"),
        (lambda n, offer: b"220 mail.test ESMTP\r\n", "said what is no RELP: 220 mail.test ESMTP"),
    ],
)
async def test_a_receiver_that_begins_no_session_is_told(
    receiver: RelpReceiver, context: Counting, opening: Any, words: str
) -> None:
    receiver.opening = opening
    sink = sink_to(receiver.port, context)
    with pytest.raises(Retryable, match=words):
        await sink.open()
    await sink.close()


async def test_a_receiver_that_acknowledges_nothing_has_its_time(
    receiver: RelpReceiver, context: Counting, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.1
    sink = sink_to(receiver.port, context, ack_timeout="20s")
    receiver.behaviours.extend([accept, lambda *_: b""])
    await sink.open()
    began = trio.current_time()
    one = batch("1", "2")
    with pytest.raises(Retryable, match="nothing was acknowledged for 20 s"):
        await sink.deliver([one])
    assert 20 <= trio.current_time() - began < 25
    assert await sink.deliver([one]) == DELIVERED
    await sink.close()
    assert texts(receiver) == ["1", "2"]


async def test_a_session_that_ended_while_unused_costs_nothing(
    receiver: RelpReceiver, context: Counting
) -> None:
    sink = sink_to(receiver.port, context)
    receiver.behaviours.append(lambda _, n, m: b"%d rsp 6 200 OK\n0 serverclose 0\n" % n)
    await sink.deliver([batch("gone")])
    session = sink._session
    assert session is not None
    with trio.fail_after(10):
        while session.usable():  # noqa: ASYNC110 - what another thread does has no event
            await trio.sleep(0.001)
    assert await sink.deliver([batch("1")]) == DELIVERED
    await sink.close()
    assert (texts(receiver), receiver.sessions) == (["1"], 2)


async def test_messages_go_through_tls(context: Counting, authority: Authority) -> None:
    files = authority.certificates()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(files.cert, files.key)
    receiver = RelpReceiver(server)
    sink = sink_to(receiver.port, context, "localhost", tls={"ca": str(authority.ca_file)})
    many = batch(*(f"{n} {'x' * 500}" for n in range(5000)))
    assert await sink.deliver([many]) == DELIVERED
    assert await sink.deliver([batch("last")]) == DELIVERED
    await sink.close()
    receiver.close()
    assert len(receiver.messages) == 5001
    assert receiver.sessions == 1


async def test_answers_that_come_by_tls_one_by_one_are_not_waited_for_one_by_one(
    context: Counting, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As rsyslog sends them: with a pause before each, it could be given no thousand messages a second."""
    monkeypatch.setattr(relp, "GATHER_S", 0.2)
    with closing(RelpReceiver(authority.context())) as receiver:
        sink = sink_to(receiver.port, context, "localhost", tls={"ca": str(authority.ca_file)})
        with trio.fail_after(60):  # of the 200 that they would take
            assert await sink.deliver([batch(*map(str, range(1000)))]) == DELIVERED
        await sink.close()
    assert len(receiver.messages) == 1000


# --- the protocol -------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 30), min_size=1, max_size=10), st.integers(0, 3))
def test_answers_are_read_wherever_they_are_cut(cuts: list[int], opening: int) -> None:
    offer = b"200 OK\nrelp_version=0\ncommands=syslog\n" if opening else b"200 OK"
    data = b"1 rsp %d %s\n" % (len(offer), offer) + b"".join(
        b"%d rsp 6 %s\n" % (n, b"500 no" if n in (6, 39) else b"200 OK") for n in range(2, 40)
    )
    answers = Answers()
    while data:
        cut = cuts.pop(0) if cuts else len(data)
        answers.feed(data[:cut])
        data = data[cut:]
    assert answers.answered == 39
    assert answers.refused == [(5, "500 no"), (38, "500 no")]


@given(st.binary(max_size=200))
def test_whatever_is_said_is_an_answer_or_a_clear_error(data: bytes) -> None:
    answers = Answers()
    with suppress(RelpError):
        answers.feed(data)
    assert answers.answered == 0 or b" rsp " in data


# --- a real one ---------------------------------------------------------------------------------------


async def test_rsyslog_reads_the_fields_as_they_were_sent(
    tmp_path: Path, context: Counting, started: Started
) -> None:
    server = started(Rsyslog(tmp_path / "server", "relp"))
    await fields_as_sent(sink_to(server.other_port, context, structured_data=STRUCTURED), server)


async def test_rsyslog_has_every_one_of_many_lines(
    tmp_path: Path, context: Counting, started: Started
) -> None:
    server = started(Rsyslog(tmp_path / "server", "relp"))
    await all_of_many(sink_to(server.other_port, context), server)


async def test_rsyslog_has_every_one_of_many_lines_by_tls(
    tmp_path: Path, context: Counting, authority: Authority, started: Started
) -> None:
    server = started(Rsyslog(tmp_path / "server", "relp+tls", certificates=authority.certificates()))
    tls = {"ca": str(authority.ca_file), "cert": str(authority.client_file)}
    await all_of_many(sink_to(server.other_port, context, "localhost", tls=tls), server)


async def test_rsyslog_by_tls(
    tmp_path: Path, context: Counting, authority: Authority, started: Started
) -> None:
    server = started(Rsyslog(tmp_path / "server", "relp+tls", certificates=authority.certificates()))
    tls = {"ca": str(authority.ca_file), "cert": str(authority.client_file)}
    sink = sink_to(server.other_port, context, "localhost", tls=tls, structured_data=STRUCTURED)
    await fields_as_sent(sink, server)


async def test_an_rsyslog_that_is_killed_and_started_again_loses_nothing(
    tmp_path: Path, context: Counting, started: Started
) -> None:
    server = started(Rsyslog(tmp_path / "server", "relp", durable=True))
    sink = sink_to(server.other_port, context)
    batches = [batch(*(f"line {n}" for n in range(first, first + 1000))) for first in range(0, 20_000, 1000)]
    crashes = 0

    async def crash() -> None:
        nonlocal crashes
        for share in (0.2, 0.5, 0.8):
            while server.count() < share * 20_000:  # noqa: ASYNC110 - another process writes
                await trio.sleep(0.001)
            server.kill()
            crashes += 1
            await trio.to_thread.run_sync(server.start)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(crash)
        for each in batches:
            while True:
                try:
                    await sink.deliver([each])
                    break
                except Retryable:
                    await trio.sleep(0.05)
    await sink.close()
    assert crashes == 3
    came = server.texts()
    assert list(dict.fromkeys(came)) == [f"line {n}" for n in range(20_000)]
    # What comes twice is what rsyslog had written, and had not acknowledged.
    assert len(came) - 20_000 <= 3 * 1000
