"""Splunk's HTTP Event Collector: events, codes of answers, acknowledgement by channel.

The receiver is the test's own, written from Splunk's documentation.
"""

from __future__ import annotations

import json
import re
import uuid
from decimal import Decimal
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from logroute.router.position import BEGINNING
from logroute.router.record import Batch, DetailedRecord, Origin, Record
from logroute.sinks import DELIVERED, Refused, Retryable
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


# --- acknowledgement ----------------------------------------------------------------------------------


class Indexer:
    """Takes events by channel; what it has indexed it says once it was asked so many times."""

    def __init__(self, server: HttpServer, asked: int = 0) -> None:
        self.asked = asked
        self.channels: list[str] = []
        self.questions: list[Any] = []
        server.otherwise = self.behave

    async def behave(self, stream: trio.SocketStream, request: Request) -> None:
        if request.target.startswith("/services/collector/ack?channel="):
            self.questions.append(json.loads(request.body))
            assert request.target.endswith(self.channels[-1])
            done = len(self.questions) > self.asked
            said: dict[str, Any] = {"acks": {str(each): done for each in self.questions[-1]["acks"]}}
        else:
            self.channels.append(request.headers["x-splunk-request-channel"])
            said = {"text": "Success", "code": 0, "ackId": len(self.channels) - 1}
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


async def test_a_token_without_acknowledgement_is_told(server: HttpServer, sink_to: Making) -> None:
    server.otherwise = TAKEN
    sink = await sink_to(server.url, encoding="splunk", splunk={"ack": True})
    with pytest.raises(Retryable, match="enable indexer acknowledgement for the token"):
        await sink.deliver([A])
