"""Splunk's HTTP Event Collector: events, codes of answers, acknowledgement by channel.

The receiver is the test's own, written from Splunk's documentation.
"""

from __future__ import annotations

import json
import re
import uuid
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from logroute.router.position import BEGINNING
from logroute.router.record import Batch, DetailedRecord, Origin, Record
from logroute.sinks import DELIVERED, Outcome, Refused, Retryable
from logroute.sinks._http_client import KEEP_ALIVE_S
from logroute.sinks.http_lanes import MOST_COOKIES, Cookies
from logroute.sinks.splunk_hec import SplunkEncoding, SplunkOptions
from tests.sinks.conftest import Making
from tests.sinks.http_server import HttpServer, Request, answer

WEB = Origin("docker:web", "docker", id="c" * 64, name="web", host="node", runtime="docker")
TIME = "2026-11-23T20:06:26.123456789Z"
TAKEN = answer(200, b'{"text":"Success","code":0}')


def batch(*records: Record, of: Origin = WEB) -> Batch:
    return Batch(of, list(records), before=BEGINNING, after=BEGINNING, size_bytes=100)


A = batch(Record("a", "stdout", TIME))


def events(*batches: Batch, **options: Any) -> list[dict[str, Any]]:
    """Splunk reads concatenated objects: whatever stands between them does not matter."""
    text = SplunkEncoding(SplunkOptions.model_validate(options)).encode(batches).decode()
    decoder, found, at = json.JSONDecoder(parse_float=Decimal), [], 0
    while at < len(text):
        event, at = decoder.raw_decode(text, at)
        found.append(event)
        at = re.compile(r"\s*").match(text, at).end()  # type: ignore[union-attr]  # it always matches
    return found


# --- events -------------------------------------------------------------------------------------------


def test_an_event_has_its_time_its_text_and_where_it_comes_from() -> None:
    (event,) = events(A)
    assert event == {
        "time": Decimal("1795464386.123456789"),
        "event": "a",
        "fields": {
            "id": f"{'c' * 12}-o{TIME}", "stream": "stdout",
            "container_id": "c" * 64, "container_name": "web",
        },
        "host": "node",
        "source": "web",
        "sourcetype": "docker",
    }  # fmt: skip


def test_what_an_event_is_called_is_the_users() -> None:
    told = DetailedRecord("a", "stderr", TIME, level="warn")
    (event,) = events(batch(told), index="logs-{level}", sourcetype="x", source="{stream}", host="")
    assert (event["index"], event["sourcetype"], event["source"]) == ("logs-warn", "x", "stderr")
    assert "host" not in event


def test_an_event_may_be_the_whole_record() -> None:
    told = DetailedRecord("a", "stderr", TIME, level="warn", fields={"k": [1]})
    (event,) = events(batch(told), format="json")
    assert (event["event"]["message"], event["event"]["log"]) == ("a", {"level": "warn"})
    assert event["event"]["fields"] == {"k": [1]}
    (event,) = events(batch(told), format="{level}: {message}")
    assert event["event"] == "warn: a"


def test_an_event_without_anything_to_see_is_no_blank_one() -> None:
    texts = ["", " \t", "a"]
    got = events(batch(*(Record(text, "stdout", TIME) for text in texts)))
    assert [each["event"] for each in got] == [{"message": ""}, {"message": " \t"}, "a"]


@given(st.lists(st.text(st.characters(exclude_categories=())), max_size=8))
def test_any_text_is_an_event_of_its_own(texts: list[str]) -> None:
    got = events(batch(*(Record(text, "stdout", TIME) for text in texts)))
    said = [each["event"]["message"] if isinstance(each["event"], dict) else each["event"] for each in got]
    assert said == [text.encode("utf-8", "replace").decode() for text in texts]


def test_mistakes() -> None:
    with pytest.raises(ValidationError, match="badly formed"):
        SplunkOptions(channel="mine")
    with pytest.raises(ValidationError, match="nothing"):
        SplunkOptions(index="{nothing}")


# --- answers ------------------------------------------------------------------------------------------


async def test_requests_are_as_splunk_wants_them(server: HttpServer, sink_to: Making) -> None:
    server.otherwise = TAKEN
    sink = await sink_to(server.url, encoding="splunk", token="hunter2", compress="gzip")
    assert await sink.deliver([A]) == DELIVERED
    (request,) = server.requests
    assert request.target == "/services/collector/event"
    assert request.headers["authorization"] == "Splunk hunter2"
    assert request.headers["content-encoding"] == "gzip"
    assert "x-splunk-request-channel" not in request.headers


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"code":9}', b'{"text":"Success"}'])
async def test_only_the_code_0_is_a_success(server: HttpServer, sink_to: Making, body: bytes) -> None:
    server.behaviours.append(answer(200, body))
    with pytest.raises(Retryable, match="Splunk does not answer so"):
        await (await sink_to(server.url, encoding="splunk")).deliver([A])


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, 5, Refused), (400, 6, Refused), (400, 7, Refused), (400, 12, Refused), (400, 13, Refused),
        (400, 15, Refused), (413, 27, Refused),
        (400, 10, Retryable), (400, 11, Retryable), (400, 14, Retryable), (401, 3, Retryable),
        (403, 4, Retryable), (403, 1, Retryable), (429, 26, Retryable), (503, 9, Retryable),
        (500, 8, Retryable),
    ],
)  # fmt: skip
async def test_codes_tell_whose_fault_it_is(
    server: HttpServer, sink_to: Making, status: int, code: int, kind: type[Exception]
) -> None:
    server.behaviours.append(answer(status, json.dumps({"text": "words", "code": code}).encode()))
    with pytest.raises(kind, match=f"answered {status}.*words"):
        await (await sink_to(server.url, encoding="splunk")).deliver([A])


# --- a number of an event in the answer -------------------------------------------------------------------


class Collector:
    """Takes events up to the first that it cannot take, and says its number, as Splunk does.

    What it cannot take are those of these words: for ever, or so many times. Where it is their index that it
    does not take, it says the number of the event behind.
    """

    def __init__(self, server: HttpServer, *, ack: bool | None = None) -> None:
        self.indexed: list[str] = []
        self.bad: set[str] = set()
        self.busy: dict[str, int] = {}
        self.code = 7
        """What it says of the bad ones."""
        self.ack = ack
        """Whether errors, too, say an id by which it is asked; None: it knows no acknowledgement."""
        self.sizes: list[int] = []
        """How many events each request had."""
        self._waiting: dict[str, list[str]] = {}
        server.otherwise = self.behave

    async def behave(self, stream: trio.SocketStream, request: Request) -> None:
        if "/ack" in request.target:
            asked = [str(each) for each in json.loads(request.body)["acks"]]
            for each in asked:
                self.indexed += self._waiting.pop(each, [])
            await answer(200, json.dumps({"acks": dict.fromkeys(asked, True)}).encode())(stream, request)
            return
        given = [json.loads(event)["event"] for event in request.body.splitlines()]
        self.sizes.append(len(given))
        status, said, taken = self._looked_at(given)
        if self.ack is None or (not self.ack and status != 200):
            # What is not acknowledged may be lost when it is killed: to one who wants to hear of that it is.
            self.indexed += taken if self.ack is None else []
        else:
            said["ackId"] = len(self.sizes)
            self._waiting[str(len(self.sizes))] = taken
        await answer(status, json.dumps(said).encode(), retry_after="7")(stream, request)

    def _looked_at(self, given: list[str]) -> tuple[int, dict[str, Any], list[str]]:
        for number, event in enumerate(given):
            if event in self.bad:
                named = number + 1 if self.code == 7 else number
                said = {"text": "Not so", "code": self.code, "invalid-event-number": named}
                return 400, said, given[:number]
            if self.busy.get(event, 0):
                self.busy[event] -= 1
                said = {"text": "Server is busy", "code": 9, "invalid-event-number": number}
                return 503, said, given[:number]
        return 200, {"text": "Success", "code": 0}, given


def hundred() -> list[Batch]:
    """Records 0 to 99 of two containers, with a batch of none among them."""
    db = Origin("docker:db", "docker", id="d" * 64, name="db")
    records = [Record(str(n), "stdout", f"2026-11-23T20:06:26.{n:09d}Z") for n in range(100)]
    return [batch(*records[:40]), batch(of=db), batch(*records[40:45], of=db), batch(*records[45:])]


def named(outcome: Outcome) -> list[tuple[int, str, str]]:
    return [(each.batch, each.record.message, each.reason) for each in outcome.rejected]


NUMBERS = [str(n) for n in range(100)]


@pytest.mark.parametrize("code", [6, 7, 12, 13, 15])
async def test_an_event_that_it_names_is_rejected_and_no_other_is_sent_twice(
    server: HttpServer, sink_to: Making, code: int
) -> None:
    collector = Collector(server)
    collector.bad, collector.code = {"0", "42", "43", "99"}, code
    outcome = await (await sink_to(server.url, encoding="splunk")).deliver(hundred())
    reason = f"Not so (code {code})"
    assert named(outcome) == [(0, "0", reason), (2, "42", reason), (2, "43", reason), (3, "99", reason)]
    assert not outcome.postponed
    assert collector.indexed == [n for n in NUMBERS if n not in collector.bad]


async def test_where_no_event_is_any_good_it_is_not_all_sent_for_each(
    server: HttpServer, sink_to: Making
) -> None:
    collector = Collector(server)
    collector.bad = set(NUMBERS)
    outcome = await (await sink_to(server.url, encoding="splunk")).deliver(hundred())
    assert [each.record.message for each in outcome.rejected] == NUMBERS
    assert sum(collector.sizes) < 300


async def test_what_a_busy_server_has_taken_is_not_sent_again(server: HttpServer, sink_to: Making) -> None:
    collector = Collector(server)
    collector.bad, collector.busy = {"10"}, {"42": 1, "0": 1}
    sink = await sink_to(server.url, encoding="splunk")
    with pytest.raises(Retryable, match=r"answered 503 .*Server is busy"):
        await sink.deliver(hundred())
    outcome = await sink.deliver(hundred())
    assert [message for _, message, _ in named(outcome)] == ["10"]
    assert [(each.batch, each.record.message) for each in outcome.postponed] == [
        (2 if n < 45 else 3, str(n)) for n in range(42, 100)
    ]
    assert "Server is busy" in outcome.postponed[0].reason
    assert outcome.after_s == 7
    assert collector.indexed == [n for n in NUMBERS[:42] if n != "10"]


async def test_an_event_alone_is_rejected_with_the_number_behind_it(
    server: HttpServer, sink_to: Making
) -> None:
    server.behaviours.append(answer(400, b'{"text":"Incorrect index","code":7,"invalid-event-number":1}'))
    outcome = await (await sink_to(server.url, encoding="splunk")).deliver([A])
    assert named(outcome) == [(0, "a", "Incorrect index (code 7)")]


@pytest.mark.parametrize("number", [-1, 1, 10**30, "0", 0.0, True, None, [0]])
@pytest.mark.parametrize(("status", "code", "kind"), [(400, 6, Refused), (503, 9, Retryable)])
async def test_a_number_that_names_no_event_says_nothing(
    server: HttpServer, sink_to: Making, number: object, status: int, code: int, kind: type[Exception]
) -> None:
    said = {"text": "words", "code": code, "invalid-event-number": number}
    server.behaviours.append(answer(status, json.dumps(said).encode()))
    with pytest.raises(kind, match=f"answered {status}.*words"):
        await (await sink_to(server.url, encoding="splunk")).deliver([A])


async def test_behind_no_event_there_is_none(server: HttpServer, sink_to: Making) -> None:
    for number in (0, 2):
        said = {"text": "words", "code": 7, "invalid-event-number": number}
        server.behaviours.append(answer(400, json.dumps(said).encode()))
        with pytest.raises(Refused, match=r"answered 400 .*words"):
            await (await sink_to(server.url, encoding="splunk")).deliver([A])


async def test_a_number_beside_a_fault_of_the_token_says_nothing(server: HttpServer, sink_to: Making) -> None:
    server.otherwise = answer(403, b'{"text":"Invalid token","code":4,"invalid-event-number":50}')
    with pytest.raises(Retryable, match="Invalid token"):
        await (await sink_to(server.url, encoding="splunk")).deliver(hundred())
    server.otherwise = answer(400, b'{"text":"Data channel is missing","code":10,"invalid-event-number":50}')
    with pytest.raises(Retryable, match="not about the events"):
        await (await sink_to(server.url, encoding="splunk")).deliver(hundred())


async def test_a_failure_after_an_event_was_rejected_leaves_the_others_to_be_sent(
    server: HttpServer, sink_to: Making
) -> None:
    collector = Collector(server)
    collector.bad = {"97"}
    server.behaviours += [collector.behave, answer(500, b"", close=True)]
    outcome = await (await sink_to(server.url, encoding="splunk")).deliver(hundred())
    assert [message for _, message, _ in named(outcome)] == ["97"]
    assert [each.record.message for each in outcome.postponed] == ["98", "99"]
    assert collector.indexed == NUMBERS[:97]


@pytest.mark.parametrize("ack", [True, False])
async def test_what_stands_before_it_is_acknowledged_or_sent_again(
    server: HttpServer, sink_to: Making, ack: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """Where an error has no ackId, nobody can ask for those before the event that it names."""
    collector = Collector(server, ack=ack)
    collector.bad = {"42"}
    sink = await sink_to(server.url, encoding="splunk", splunk={"ack": True})
    outcome = await sink.deliver(hundred())
    assert [message for _, message, _ in named(outcome)] == ["42"]
    assert sorted(collector.indexed, key=int) == [n for n in NUMBERS if n != "42"]
    assert sum(collector.sizes) == (100 + 57 if ack else 100 + 42 + 57)


async def test_what_a_body_may_have_is_not_exceeded(server: HttpServer, sink_to: Making) -> None:
    """Splunk Cloud takes 5 MiB, and says of more that its first event is no JSON."""
    given: list[int] = []

    async def behave(stream: trio.SocketStream, request: Request) -> None:
        given.append(request.body.count(b"\n"))
        no = answer(400, b'{"text":"Invalid data format","code":6,"invalid-event-number":0}')
        await (no if len(request.body) > 5 << 20 else TAKEN)(stream, request)

    server.otherwise = behave
    many = batch(*[Record(f"{n} {'x' * 500}", "stdout", TIME) for n in range(9_001)])
    assert await (await sink_to(server.url, encoding="splunk")).deliver([many]) == DELIVERED
    assert given == [4501, 4500]


@given(
    st.sets(st.sampled_from(NUMBERS), max_size=30),
    st.dictionaries(st.sampled_from(NUMBERS), st.integers(1, 3), max_size=5),
)
def test_every_event_is_indexed_once_or_rejected_once(bad: set[str], busy: dict[str, int]) -> None:
    async def main(folder: Path) -> None:
        async with trio.open_nursery() as nursery:
            server = HttpServer()
            await nursery.start(server.serve)
            collector = Collector(server)
            collector.bad, collector.busy = bad, dict(busy)
            sink = await Making(server, folder)(encoding="splunk")
            rejected: list[str] = []
            left = hundred()
            while left:
                try:
                    outcome = await sink.deliver(left)
                except Retryable:
                    continue
                rejected += [each.record.message for each in outcome.rejected]
                later = [(left[each.batch].origin, each.record) for each in outcome.postponed]
                left = [batch(record, of=origin) for origin, record in later]
            await sink.close()
            nursery.cancel_scope.cancel()
        assert rejected == [n for n in NUMBERS if n in bad]
        assert collector.indexed == [n for n in NUMBERS if n not in bad]

    with TemporaryDirectory() as folder:
        trio.run(main, Path(folder))


# --- acknowledgement ----------------------------------------------------------------------------------


class Indexer:
    """Takes events by channel; what it has indexed it says once it was asked so many times."""

    def __init__(self, server: HttpServer, asked: int = 0) -> None:
        self.asked = asked
        self.busy = False
        """It takes no more."""
        self.has_three = trio.Event()
        self.channels: list[str] = []
        self.ways: set[tuple[str, int]] = set()
        """Channels, and the connections over which something came on them."""
        self.questions: list[Any] = []
        server.otherwise = self.behave

    async def behave(self, stream: trio.SocketStream, request: Request) -> None:
        channel = request.headers["x-splunk-request-channel"]
        self.ways.add((channel, request.connection))
        if request.target.startswith("/services/collector/ack?channel="):
            self.questions.append(json.loads(request.body))
            assert request.target.endswith(channel)
            done = len(self.questions) > self.asked
            said: dict[str, Any] = {"acks": {str(each): done for each in self.questions[-1]["acks"]}}
        elif self.busy:
            await answer(503)(stream, request)
            return
        else:
            self.channels.append(channel)
            said = {"text": "Success", "code": 0, "ackId": len(self.channels) - 1}
            if len(self.channels) == 3:
                self.has_three.set()
        await answer(200, json.dumps(said).encode())(stream, request)


async def test_a_delivery_is_done_when_its_channel_says_so(
    server: HttpServer, sink_to: Making, autojump_clock: trio.testing.MockClock
) -> None:
    indexer = Indexer(server, asked=3)
    sink = await sink_to(server.url, encoding="splunk", splunk={"ack": True}, compress="gzip")
    assert await sink.deliver([A]) == DELIVERED
    assert indexer.questions == [{"acks": [0]}] * 4
    assert await sink.deliver([A]) == DELIVERED
    assert indexer.questions[-1] == {"acks": [1]}
    assert len(set(indexer.channels)) == 1
    assert uuid.UUID(indexer.channels[0])
    asked = [each for each in server.requests if "/ack" in each.target]
    assert all("content-encoding" not in each.headers for each in asked)


async def test_while_one_delivery_waits_for_it_others_are_made(
    server: HttpServer, sink_to: Making, autojump_clock: trio.testing.MockClock
) -> None:
    """Each on a channel and a connection of its own; what becomes of one is nothing to the others."""
    indexer = Indexer(server, asked=20)
    sink = await sink_to(server.url, encoding="splunk", splunk={"ack": True})
    assert (sink.ordered, sink.concurrency) == (False, 4)
    outcomes: list[Any] = []

    async def deliver() -> None:
        outcomes.append(await sink.deliver([A]))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(deliver)
        await indexer.has_three.wait()
        assert outcomes == []
        indexer.busy = True
        with pytest.raises(Retryable, match="503"):
            await sink.deliver([A])
        await sink.open()  # as the router does then
    assert outcomes == [DELIVERED] * 3
    assert len(indexer.channels) == len(set(indexer.channels)) == 3
    assert len({connection for _, connection in indexer.ways}) == 4, "of which one had no success"
    assert len(indexer.ways) == 4


@pytest.mark.parametrize("path", ["/x/services/collector", "/x/services/collector/event/1.0?a=b"])
async def test_acknowledgements_are_beside_the_events(server: HttpServer, sink_to: Making, path: str) -> None:
    server.behaviours += [answer(200, b'{"code":0,"ackId":7}'), answer(200, b'{"acks":{"7":true}}')]
    assert await (await sink_to(path, encoding="splunk", splunk={"ack": True})).deliver([A]) == DELIVERED
    assert server.requests[1].target.startswith("/x/services/collector/ack?channel=")


async def test_what_is_never_confirmed_is_sent_again(
    server: HttpServer, sink_to: Making, autojump_clock: trio.testing.MockClock
) -> None:
    Indexer(server, asked=10**6)
    sink = await sink_to(server.url, encoding="splunk", splunk={"ack": True, "ack_timeout": "20s"})
    with pytest.raises(Retryable, match=r"not confirmed within 20 s: it has not said that it is safe"):
        await sink.deliver([A])


async def test_a_question_that_is_not_answered_is_asked_again(
    server: HttpServer, sink_to: Making, autojump_clock: trio.testing.MockClock
) -> None:
    indexer = Indexer(server)
    server.behaviours += [
        indexer.behave,
        answer(503, b"busy"),
        answer(200, b"<html>"),
        answer(200, b"[]", close=True),
    ]
    sink = await sink_to(server.url, encoding="splunk", splunk={"ack": True})
    assert await sink.deliver([A]) == DELIVERED
    assert len(server.requests) == 5, "the events were sent once"


async def test_it_is_asked_often_enough_for_the_connection_to_be_kept(
    server: HttpServer, sink_to: Making, autojump_clock: trio.testing.MockClock
) -> None:
    indexer = Indexer(server, asked=30)
    times: list[float] = []

    async def behave(stream: trio.SocketStream, request: Request) -> None:
        times.append(trio.current_time())
        await indexer.behave(stream, request)

    server.otherwise = behave
    sink = await sink_to(server.url, encoding="splunk", splunk={"ack": True, "ack_timeout": "200s"})
    assert await sink.deliver([A]) == DELIVERED
    assert len(times) == 32
    assert max(later - earlier for earlier, later in pairwise(times)) < KEEP_ALIVE_S - 0.5


class Balanced:
    """Two indexers behind a balancer of connections, which go to the one and to the other in turn.

    Each has its own count of ids, from 0 on each channel, and says of those only that it has indexed them.
    """

    def __init__(self, server: HttpServer) -> None:
        self.given: list[tuple[int, str, str]] = []
        """Indexer, channel and event, in the order in which they came."""
        self.lost: set[str] = set()
        """Events that are never indexed."""
        self.late: set[str] = set()
        """Events of which the answer takes a while."""
        self.closes_before_it_is_asked: set[str] = set()
        self.closes = False
        """Each connection is closed after an answer."""
        self.cookies = False
        """It is a balancer of requests, which go where their cookie says, or in turn."""
        self._turn = 0
        server.otherwise = self.behave

    def indexer(self, request: Request) -> int:
        if not self.cookies:
            return request.connection % 2
        self._turn += 1
        return int(
            dict(re.findall(r"(\w+)=(\w+)", request.headers.get("cookie", ""))).get("way", self._turn % 2)
        )

    async def behave(self, stream: trio.SocketStream, request: Request) -> None:
        indexer, channel = self.indexer(request), request.headers["x-splunk-request-channel"]
        if "/ack" in request.target:
            given = [event for *way, event in self.given if way == [indexer, channel]]
            acks = {
                str(each): each < len(given) and given[each] not in self.lost
                for each in json.loads(request.body)["acks"]
            }
            said: dict[str, Any] = {"acks": acks}
            close = self.closes
        else:
            event = json.loads(request.body)["event"]
            ack_id = [way for *way, _ in self.given].count([indexer, channel])
            self.given.append((indexer, channel, event))
            await trio.sleep(0.6 if event in self.late else 0)
            said = {"text": "Success", "code": 0, "ackId": ack_id}
            close = self.closes or event in self.closes_before_it_is_asked
        expires = "Expires=Fri, 27 Nov 2099 20:06:26 GMT; Path=/"
        more = {"set_cookie": f"way={indexer}; {expires}", "Set_Cookie": "a=b"} if self.cookies else {}
        await answer(200, json.dumps(said).encode(), close=close, **more)(stream, request)


def saying(text: str) -> Batch:
    return batch(Record(text, "stdout", TIME))


async def test_what_another_indexer_has_acknowledged_is_not_taken_for_it(
    server: HttpServer, sink_to: Making, autojump_clock: trio.testing.MockClock
) -> None:
    """Both have given the id 0 to what they were sent, and only one of them indexes it."""
    balanced = Balanced(server)
    balanced.late, balanced.lost = {"first"}, {"second"}
    sink = await sink_to(server.url, encoding="splunk", splunk={"ack": True, "ack_timeout": "20s"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.deliver, [saying("first")])
        await trio.sleep(0.5)
        with pytest.raises(Retryable, match="not confirmed within 20 s"):
            await sink.deliver([saying("second")])
    assert {indexer for indexer, _, _ in balanced.given} == {0, 1}


@pytest.mark.parametrize("channel", [None, "a7c1a51b-51a6-4d43-b5a6-3a51f3a2d9f4"])
async def test_a_balancer_of_requests_gets_its_cookie_back(
    server: HttpServer, sink_to: Making, autojump_clock: trio.testing.MockClock, channel: str | None
) -> None:
    balanced = Balanced(server)
    balanced.cookies = True
    sink = await sink_to(server.url, encoding="splunk", splunk={"ack": True, "channel": channel})
    for text in "abc":
        assert await sink.deliver([saying(text)]) == DELIVERED
    assert len({(indexer, channel) for indexer, channel, _ in balanced.given}) == 1
    assert len(server.requests) == 6
    assert "cookie" not in server.requests[0].headers
    assert {request.headers["cookie"] for request in server.requests[1:]} == {"way=1; a=b"}


def test_cookies_are_those_that_the_server_has_said_last() -> None:
    cookies = Cookies()
    assert cookies.header == {}
    cookies.take(["a=1", "b=x=y; Path=/; HttpOnly", " c=2 ", "a=3;Max-Age=60"])
    assert cookies.header == {"cookie": "b=x=y; c=2; a=3"}
    cookies.take(["b=; Max-Age=0; Path=/", "c=2; max-age=-1"])
    assert cookies.header == {"cookie": "a=3"}
    cookies.take(["", "=1", "x", "n=\u00e9", "n=1\r\nx: y", "n=a b", "n=" + "x" * 5000])
    assert cookies.header == {"cookie": "a=3"}
    cookies.take([f"n{number}=1" for number in range(1000)])
    assert len(cookies.header["cookie"].split(";")) == MOST_COOKIES


@pytest.mark.parametrize("channel", [None, "a7c1a51b-51a6-4d43-b5a6-3a51f3a2d9f4"])
async def test_whose_connection_was_lost_before_it_was_acknowledged_is_sent_again(
    server: HttpServer, sink_to: Making, channel: str | None
) -> None:
    """The next connection leads to an indexer that had something else on that channel."""
    balanced = Balanced(server)
    balanced.closes_before_it_is_asked = balanced.lost = {"b"}
    sink = await sink_to(server.url, encoding="splunk", splunk={"ack": True, "channel": channel})
    assert await sink.deliver([saying("a")]) == DELIVERED
    await server.close_connections()
    with pytest.raises(Retryable, match="its connection was lost before"):
        await sink.deliver([saying("b")])
    assert [indexer for indexer, _, _ in balanced.given] == [1, 0]
    balanced.closes_before_it_is_asked = balanced.lost = set()
    assert await sink.deliver([saying("b")]) == DELIVERED
    assert len({channel for _, channel, _ in balanced.given}) == (2 if channel is None else 1)


async def test_where_no_connection_is_kept_each_delivery_has_a_channel_of_its_own(
    server: HttpServer, sink_to: Making, autojump_clock: trio.testing.MockClock
) -> None:
    """On which nobody else can say that it is safe: so it need not be sent again."""
    balanced = Balanced(server)
    balanced.closes = True
    sink = await sink_to(server.url, encoding="splunk", splunk={"ack": True})
    for text in "abc":
        assert await sink.deliver([saying(text)]) == DELIVERED
    assert [event for _, _, event in balanced.given] == ["a", "b", "c"]
    assert len({channel for _, channel, _ in balanced.given}) == 3


async def test_what_nobody_has_confirmed_is_sent_again_on_another_channel(
    server: HttpServer, sink_to: Making, autojump_clock: trio.testing.MockClock
) -> None:
    balanced = Balanced(server)
    balanced.lost = {"a"}
    sink = await sink_to(server.url, encoding="splunk", splunk={"ack": True})
    with pytest.raises(Retryable, match="not confirmed within 30 s"):
        await sink.deliver([saying("a")])
    assert await sink.deliver([saying("b")]) == DELIVERED
    assert len({channel for _, channel, _ in balanced.given}) == 2


async def test_on_a_channel_that_is_set_there_is_one_delivery_at_a_time(
    server: HttpServer, sink_to: Making
) -> None:
    """And other connections are never believed: others, or an earlier run, may have used it."""
    balanced = Balanced(server)
    balanced.closes = True
    channel = "a7c1a51b-51a6-4d43-b5a6-3a51f3a2d9f4"
    sink = await sink_to(encoding="splunk", splunk={"ack": True, "channel": channel})
    assert (sink.ordered, sink.concurrency) == (True, 1)
    with pytest.raises(Retryable, match="its connection was lost before"):
        await sink.deliver([saying("a")])


async def test_a_token_without_acknowledgement_is_told(server: HttpServer, sink_to: Making) -> None:
    server.otherwise = TAKEN
    sink = await sink_to(server.url, encoding="splunk", splunk={"ack": True})
    with pytest.raises(Retryable, match="enable indexer acknowledgement for the token"):
        await sink.deliver([A])
