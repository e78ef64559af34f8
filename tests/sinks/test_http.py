"""The http sink against a real server on loopback that misbehaves as it is told."""

from __future__ import annotations

import base64
import gzip
import json
import re
import ssl
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from logroute.config.components import SINKS
from logroute.config.uri import UriError, parse_uri
from logroute.router.position import BEGINNING
from logroute.router.record import Batch, Origin, Record
from logroute.router.route import Route, RouteSettings
from logroute.sinks import DELIVERED, Refused, Retryable, _http_client
from logroute.sinks.http import HttpOptions, HttpSink
from logroute.sinks.http_answers import Answer, usual_meaning
from logroute.sinks.http_encoding import JsonArrayEncoding
from logroute.sinks.http_proxies import is_excepted
from tests.sinks.conftest import Making
from tests.sinks.http_server import Behaviour, Close, HttpServer, Request, answer, say

WEB = Origin("docker:web", "docker", id="c" * 64, name="web")


def batch(*messages: str) -> Batch:
    records = [
        Record(message, "stdout", f"2026-11-23T20:06:26.{n:09d}Z") for n, message in enumerate(messages)
    ]
    return Batch(WEB, records, before=BEGINNING, after=BEGINNING, size_bytes=100 * len(records))


def messages(body: bytes) -> list[str]:
    return [json.loads(line)["message"] for line in body.splitlines()]


async def failure(sink: HttpSink, *texts: str) -> Retryable:
    with pytest.raises(Retryable) as caught:
        await sink.deliver([batch(*texts or ("a",))])
    return caught.value


# --- requests -----------------------------------------------------------------------------------------


async def test_a_delivery_is_one_request(server: HttpServer, sink_to: Making) -> None:
    sink = await sink_to("/in/logs?key=k%20y")
    assert await sink.deliver([batch("a", "é\nb"), batch("c")]) == DELIVERED
    assert await sink.deliver([batch("d")]) == DELIVERED
    assert sink.answer == "200 OK"
    first, second = server.requests
    assert (first.method, first.target) == ("POST", "/in/logs?key=k%20y")
    assert first.headers["content-type"] == "application/x-ndjson"
    assert first.headers["host"] == f"127.0.0.1:{server.port}"
    assert first.headers["user-agent"] == "logroute"
    assert first.headers["accept-encoding"] == "identity", "so that what is read of an answer has a bound"
    assert "content-encoding" not in first.headers
    assert messages(first.body) == ["a", "é\nb", "c"]
    assert messages(second.body) == ["d"]
    assert first.connection == second.connection, "a connection is kept"


async def test_nothing_to_deliver_is_no_request(server: HttpServer, sink_to: Making) -> None:
    sink = await sink_to()
    assert await sink.deliver([]) == DELIVERED
    assert await sink.deliver([batch()]) == DELIVERED
    assert server.connections == 0


async def test_method_and_headers_are_the_users(server: HttpServer, sink_to: Making) -> None:
    sink = await sink_to(
        method="PUT", headers={"Content-Type": "text/x", "X-Scope": " a b ", "Host": "logs.test"}
    )
    await sink.deliver([batch("a")])
    (request,) = server.requests
    assert request.method == "PUT"
    assert request.headers["content-type"] == "text/x"
    assert request.headers["x-scope"] == "a b"
    assert request.headers["host"] == "logs.test"


@pytest.mark.parametrize("compress", ["gzip", "zstd"])
async def test_bodies_may_be_compressed(server: HttpServer, sink_to: Making, compress: str) -> None:
    sink = await sink_to(compress=compress)
    assert await sink.deliver([batch(*["the same"] * 1000)]) == DELIVERED
    (request,) = server.requests
    assert request.headers["content-encoding"] == compress
    decompress = {"gzip": gzip.decompress, "zstd": zstandard.decompress}[compress]
    assert messages(decompress(request.body)) == ["the same"] * 1000
    assert len(request.body) < 20_000


async def test_records_may_be_one_array(server: HttpServer, sink_to: Making) -> None:
    sink = await sink_to(encoding="json")
    assert await sink.deliver([batch("a", "\n}\n"), batch(), batch("c")]) == DELIVERED
    (request,) = server.requests
    assert request.headers["content-type"] == "application/json"
    assert [record["message"] for record in json.loads(request.body)] == ["a", "\n}\n", "c"]


@given(st.lists(st.text(st.characters(exclude_categories=())), min_size=1, max_size=9))
def test_an_array_has_every_record(texts: list[str]) -> None:
    got = json.loads(JsonArrayEncoding().encode([batch(*texts)]))
    assert [record["message"] for record in got] == [
        text.encode("utf-8", "replace").decode() for text in texts
    ]


@pytest.mark.parametrize(
    ("format_", "body"),
    [
        ("raw", "a\né\n"),
        ("text", "2026-11-23T20:06:26.000000000Z web: a\n2026-11-23T20:06:26.000000001Z web: é\n"),
        ("{stream} {message}", "stdout a\nstdout é\n"),
    ],
)
async def test_records_may_be_text(server: HttpServer, sink_to: Making, format_: str, body: str) -> None:
    sink = await sink_to(encoding="text", format=format_)
    assert await sink.deliver([batch("a", "é")]) == DELIVERED
    (request,) = server.requests
    assert request.headers["content-type"] == "text/plain; charset=utf-8"
    assert request.body.decode() == body


async def test_who_we_are_is_told_by_user_or_token(server: HttpServer, sink_to: Making) -> None:
    for options in ({"username": "ada", "password": "p@ss:wörd"}, {"token": " hunter2 "}):
        await (await sink_to(**options)).deliver([batch("a")])
    user, token = (request.headers["authorization"] for request in server.requests)
    assert base64.b64decode(user.removeprefix("Basic ")).decode() == "ada:p@ss:wörd"
    assert token == "Bearer hunter2"


def test_secrets_are_in_no_representation() -> None:
    given = {"type": "http", "url": "http://h/", "username": "ada-1", "password": "word-2"}
    assert "word-2" not in repr(HttpOptions.model_validate(given))
    assert "key-3" not in repr(
        HttpOptions.model_validate({"type": "http", "url": "http://h/", "token": "key-3"})
    )


async def test_a_user_in_the_url_becomes_basic_authentication(server: HttpServer, sink_to: Making) -> None:
    url = f"http://ada:p%40ss%3Aw%C3%B6rd@127.0.0.1:{server.port}/in"
    sink = await sink_to(url)
    await sink.deliver([batch("a")])
    (request,) = server.requests
    scheme, _, pair = request.headers["authorization"].partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(pair).decode() == "ada:p@ss:wörd"
    server.behaviours.append(answer(401))
    text = str(await failure(sink))
    assert "p%40ss" not in text
    assert "p@ss" not in text
    assert text == f"http://127.0.0.1:{server.port}/in: POST answered 401 Unauthorized"


async def test_what_the_url_keeps_secret_is_in_no_error(sink_to: Making) -> None:
    sink = await sink_to("/in?token=hunter2")
    sink_to.server.behaviours += [answer(500), say(b"nonsense\r\n\r\n")]
    for _ in range(2):
        text = str(await failure(sink))
        assert "hunter2" not in text
        assert "/in?token=…" in text


async def test_a_proxy_is_taken_from_the_environment(
    server: HttpServer, sink_to: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    sink = await sink_to("http://logs.invalid/in")
    assert await sink.deliver([batch("a")]) == DELIVERED
    (request,) = server.requests
    assert request.target == "http://logs.invalid/in"
    assert request.headers["host"] == "logs.invalid"


async def test_what_asks_no_proxy_is_connected_to_and_nothing_else(
    server: HttpServer, sink_to: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a server is there is only seen where it is asked itself: one decision for both."""
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("NO_PROXY", ".logs.invalid,127.0.0.0/8")
    sink = await sink_to("http://logs.invalid/in")
    assert await sink.deliver([batch("a")]) == DELIVERED
    sink = await sink_to("/in")
    assert await sink.deliver([batch("b")]) == DELIVERED
    assert [request.target for request in server.requests] == ["http://logs.invalid/in", "/in"]


@pytest.mark.parametrize(
    ("no_proxy", "excepted", "others"),
    [
        ("", [], ["logs.test", "10.1.2.3"]),
        ("*", ["logs.test", "10.1.2.3", "::1"], []),
        (
            "a.test, Logs.Test ,",
            ["logs.test", "eu.logs.test", "LOGS.test", "logs.test."],
            ["mylogs.test", "test"],
        ),
        (".logs.test", ["eu.logs.test"], ["logs.test", "mylogs.test"]),
        ("*.logs.test", ["eu.logs.test"], ["logs.test"]),
        ("10.0.0.0/8,fd00::/8", ["10.1.2.3", "fd12::1"], ["11.1.2.3", "fe80::1", "10.test"]),
        ("10.1.2.3,::1", ["10.1.2.3", "::1", "0:0::1"], ["10.1.2.4", "::2"]),
        ("logs.test:443,10.0.0.0/8:443,[::1]:443", ["logs.test", "10.1.2.3", "::1"], ["other.test"]),
        ("logs.test:80,[::1]:80,10.1.2.3:80", [], ["logs.test", "::1", "10.1.2.3"]),
        ("10.0.0.0/99,/,:,[,::1]:,10.0.0.0/8/8", [], ["10.1.2.3", "logs.test"]),
    ],
)
def test_whom_no_proxy_is_asked_for(no_proxy: str, excepted: list[str], others: list[str]) -> None:
    found = [host for host in [*excepted, *others] if is_excepted(host, 443, no_proxy)]
    assert found == excepted


@pytest.mark.parametrize(
    ("encoding", "size", "wait_s"),
    [("ndjson", 4 << 20, 0), ("json", 4 << 20, 0), ("text", 4 << 20, 0), ("otlp", 3 << 20, 0),
     ("splunk", 3 << 20, 0), ("loki", 3 << 20, 0.5)],
)  # fmt: skip
async def test_how_large_a_delivery_is_depends_on_what_a_request_costs(
    sink_to: Making, encoding: str, size: int, wait_s: float
) -> None:
    sink = await sink_to(encoding=encoding)
    assert (sink.batch_bytes, sink.batch_wait_s) == (size, wait_s)


@pytest.mark.parametrize("proxy", ["socks5://ada:hunter2@proxy.test:1080", "ftp://ada:hunter2@proxy.test"])
async def test_a_proxy_in_the_environment_that_cannot_be_used_is_told(
    sink_to: Making, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(Retryable, match=r"the proxy in the environment .* cannot be used") as caught:
        await sink_to()
    assert "hunter2" not in str(caught.value)


# --- answers ------------------------------------------------------------------------------------------

DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
NOW = 1445412480.0 - 30
"""Half a minute before that."""


def test_statuses_mean_what_they_say() -> None:
    meant = {status: usual_meaning(status) for status in range(200, 600)}
    assert [status for status, meaning in meant.items() if meaning == "success"] == list(range(200, 300))
    later = {status for status, meaning in meant.items() if meaning == "retry"}
    assert {*range(300, 400), *range(500, 600), 401, 403, 404, 405, 408, 415, 425, 429} <= later
    assert {400, 409, 413, 414, 422, 499} == {400, 409, 413, 414, 422, 499} - later


@pytest.mark.parametrize(
    ("headers", "after_s"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": DATE}, 30.0),
        ({"retry-after": DATE, "date": "Wed, 21 Oct 2015 07:27:50 GMT"}, 10.0),
        ({"retry-after": DATE, "date": "Wed, 21 Oct 2015 07:29:00 GMT"}, 0.0),
        ({"retry-after": DATE, "date": "soon"}, 30.0),
        ({"retry-after": "9" * 400}, 3600.0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, 3600.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "３"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 99 Oct 99999 07:28:00 GMT"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_of_the_servers_clock(
    headers: dict[str, str], after_s: float | None
) -> None:
    assert Answer(503, headers).after_s(NOW) == after_s


@pytest.mark.parametrize(
    ("behaviour", "error", "said"),
    [
        (answer(429, b"slow down", retry_after="7"), Retryable, "429 Too Many Requests: slow down"),
        (answer(500), Retryable, "500 Internal Server Error"),
        (answer(599), Retryable, "599"),
        (answer(413, b"<b>\r\n too\t\x1b[31m"), Refused, "413 Request Entity Too Large: <b> too [31m"),
        (answer(400, b"line 3: \xff\xfe"), Refused, "400 Bad Request: line 3: \ufffd\ufffd"),
        (answer(400, b"x" * 5000), Refused, "400 Bad Request: " + "x" * 200 + "…"),
        (answer(400, b"\x1f\x8b...", content_encoding="gzip"), Refused, "400 Bad Request"),
        (
            answer(308, location="https://ada:pw@other/in?t=s"),
            Retryable,
            "308 Permanent Redirect: it redirects to https://ada:***@other/in?t=…, which is not followed",
        ),
    ],
)  # fmt: skip
async def test_an_answer_is_told_with_a_harmless_excerpt(
    server: HttpServer, sink_to: Making, behaviour: Behaviour, error: type[Exception], said: str
) -> None:
    sink = await sink_to()
    server.behaviours.append(behaviour)
    with pytest.raises(error) as caught:
        await sink.deliver([batch("a")])
    assert str(caught.value) == f"{server.url}/in: POST answered {said}"
    if isinstance(caught.value, Retryable) and "429" in said:
        assert caught.value.after_s == 7
    # None of these costs the connection, if the server kept it.
    assert await sink.deliver([batch("b")]) == DELIVERED


async def test_what_is_too_large_is_refused_until_it_is_small_enough(
    server: HttpServer, sink_to: Making
) -> None:
    server.max_body = 1000
    sink = await sink_to()
    with pytest.raises(Refused, match="413"):
        await sink.deliver([batch(*"abcdefgh")])
    assert await sink.deliver([batch("a")]) == DELIVERED


async def test_a_long_answer_is_read_up_to_a_bound(
    server: HttpServer, sink_to: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http_client, "ANSWER_S", 3600.0)
    sink = await sink_to()

    async def for_ever(stream: trio.SocketStream, _: Request) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await stream.send_all(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")

    server.behaviours.append(for_ever)
    with trio.fail_after(30):
        assert await sink.deliver([batch("a")]) == DELIVERED
        assert await sink.deliver([batch("b")]) == DELIVERED
    assert server.connections == 2, "what the server still says is not the next answer"


async def test_a_body_that_does_not_come_holds_nothing_up(
    server: HttpServer, sink_to: Making, autojump_clock: trio.testing.MockClock
) -> None:
    sink = await sink_to()

    async def half(stream: trio.SocketStream, _: Request) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await trio.sleep(3600)

    server.behaviours.append(half)
    with trio.fail_after(60):
        assert await sink.deliver([batch("a")]) == DELIVERED


async def test_a_status_counts_though_its_body_is_cut_short(server: HttpServer, sink_to: Making) -> None:
    sink = await sink_to()
    server.behaviours.append(say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"))
    server.behaviours.append(say(b"HTTP/1.1 503 Busy\r\ncontent-length: 10\r\n\r\nhalf"))
    assert await sink.deliver([batch("a")]) == DELIVERED
    assert str(await failure(sink)).endswith("answered 503 Service Unavailable: half")


NO_BODY = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize("more", [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"{}", b"\r\n"])
@pytest.mark.parametrize("first", [NO_BODY, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK"])
async def test_what_is_said_before_it_was_asked_is_no_answer(
    server: HttpServer, sink_to: Making, first: bytes, more: bytes
) -> None:
    async def say_both(stream: trio.SocketStream, _: Request) -> None:
        await stream.send_all(first + more)

    server.behaviours += [say_both, answer(503)]
    sink = await sink_to()
    assert await sink.deliver([batch("a")]) == DELIVERED
    assert "answered 503" in str(await failure(sink, "b"))
    assert [request.connection for request in server.requests] == [1, 2]


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"\0\0\0",
        b"220 mail.test ESMTP\r\n",
        b"HTTP/1.1 2OO OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000,
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"<html>\x1b[31m</html>\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
    ],
)
async def test_what_is_no_answer_is_tried_again(server: HttpServer, sink_to: Making, nonsense: bytes) -> None:
    sink = await sink_to()
    server.behaviours.append(say(nonsense))
    text = str(await failure(sink))
    assert text.startswith(f"{server.url}/in: POST failed: what was answered is no HTTP: ")
    assert text.isprintable()
    assert len(text) < 400
    assert await sink.deliver([batch("a")]) == DELIVERED


# --- connections --------------------------------------------------------------------------------------


async def test_a_connection_that_was_closed_while_unused_costs_nothing(
    server: HttpServer, sink_to: Making
) -> None:
    sink = await sink_to()
    for n in range(3):
        assert await sink.deliver([batch(str(n))]) == DELIVERED
        await server.close_connections()
        await trio.testing.wait_all_tasks_blocked(0.01)
    assert [messages(body) for body in server.bodies] == [["0"], ["1"], ["2"]]
    assert server.connections == 3


async def test_a_connection_that_is_closed_by_its_answer_is_made_anew(
    server: HttpServer, sink_to: Making
) -> None:
    sink = await sink_to()
    server.behaviours += [answer(200, connection="close", close=True), answer(200)]
    for n in range(2):
        assert await sink.deliver([batch(str(n))]) == DELIVERED
    assert [request.connection for request in server.requests] == [1, 2]


async def test_a_server_that_closes_instead_of_answering_may_have_the_request(
    server: HttpServer, sink_to: Making
) -> None:
    """So it is the router that sends it again, knowing that: nothing below does so by itself."""
    sink = await sink_to()
    await sink.deliver([batch("a")])
    server.behaviours.append(say(b""))
    await failure(sink, "b")
    assert [messages(body) for body in server.bodies] == [["a"], ["b"]]


BROKEN = (
    "Connection reset by peer (ECONNRESET)",
    "Broken pipe (EPIPE)",
    "what was answered is no HTTP: Server disconnected without sending a response.",
)
"""How a connection ends that the server has closed: by what it had not read, and when."""


@pytest.mark.parametrize("reads", [0, 1, 2, 100])
@pytest.mark.parametrize("size", [1, 10_000_000])
async def test_a_server_that_closes_after_each_byte_that_it_reads_is_tried_again(
    server: HttpServer, sink_to: Making, reads: int, size: int
) -> None:
    sink = await sink_to()
    server.reads = reads
    for _ in range(10):
        said = str(await failure(sink, "x" * size))
        assert said in [f"{server.url}/in: POST failed: {reason}" for reason in BROKEN]
    assert server.requests == []
    server.reads = None
    assert await sink.deliver([batch("x" * size)]) == DELIVERED
    assert [messages(body) for body in server.bodies] == [["x" * size]]


async def test_a_server_that_closes_after_each_byte_of_its_answer(
    server: HttpServer, sink_to: Making
) -> None:
    """Without a whole head there is no answer; with it the status has been said."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
    whole = head + b"ok"
    sink = await sink_to()
    for length in range(len(whole) + 1):
        server.behaviours.append(say(whole[:length]))
        if length >= len(head):
            assert await sink.deliver([batch("a")]) == DELIVERED
        else:
            said = str(await failure(sink, "a"))
            assert said.startswith(f"{server.url}/in: POST failed: ")
    assert len(server.requests) == server.connections == len(whole) + 1
    assert await sink.deliver([batch("b")]) == DELIVERED


async def test_a_route_to_a_server_that_closes_after_each_byte_delivers_when_it_is_well(
    server: HttpServer, sink_to: Making
) -> None:
    """What it had read whole and not acknowledged comes twice, with the same ids and in order."""

    def make_sink(route: Route) -> HttpSink:
        return HttpSink(HttpOptions(url=server.url), route)

    settings = RouteSettings("all", batch_records=10, retry_initial_s=0.001, retry_max_s=0.002)
    route = Route(settings, make_sink, state_folder=None, on_room=lambda: None)
    await route.open()
    server.reads = 1
    server.behaviours += [say(b"H"), say(b"HTTP/1.1 200 OK\r"), answer(200), say(b"")]
    with trio.fail_after(60):
        async with trio.open_nursery() as running:
            running.start_soon(route.run)
            for n in range(4):
                route.put([batch(*[f"{n}{m}" for m in range(10)])])
            while route.statistics().retried < 200:  # noqa: ASYNC110 - nothing tells
                await trio.sleep(0.001)
            assert (server.requests, route.statistics().delivered) == ([], 0)
            server.reads = None
            route.queue.close()
    first, second, third, fourth = ([f"{n}{m}" for m in range(10)] for n in range(4))
    assert [messages(body) for body in server.bodies] == [first, first, first, second, second, third, fourth]
    assert server.bodies[0] == server.bodies[1] == server.bodies[2]
    book = route.statistics()
    assert (book.received, book.delivered, book.dropped, book.rejected) == (40, 40, {}, 0)


async def test_an_unused_connection_is_not_kept_for_long(
    server: HttpServer, sink_to: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http_client, "KEEP_ALIVE_S", 0.0)
    sink = await sink_to()
    for n in range(2):
        assert await sink.deliver([batch(str(n))]) == DELIVERED
    assert server.connections == 2


async def test_a_cancelled_delivery_closes_its_connection(server: HttpServer, sink_to: Making) -> None:
    sink = await sink_to()
    hanging, gone = trio.Event(), trio.Event()

    async def hang(stream: trio.SocketStream, _: Request) -> None:
        hanging.set()
        assert await stream.receive_some() == b""
        gone.set()
        raise Close

    server.behaviours.append(hang)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.deliver, [batch("a")])
        await hanging.wait()
        nursery.cancel_scope.cancel()
    with trio.fail_after(10):
        await gone.wait()
    await sink.open()
    assert await sink.deliver([batch("a")]) == DELIVERED
    assert [request.connection for request in server.requests] == [1, 2]


async def test_a_delivery_that_is_cancelled_while_it_sends_closes_its_connection(
    nursery: trio.Nursery, sink_to: Making
) -> None:
    begun, cancelled, closed = trio.Event(), trio.Event(), trio.Event()

    async def read_late(stream: trio.SocketStream) -> None:
        await stream.receive_some(100)
        begun.set()
        await cancelled.wait()
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        closed.set()

    serve = partial(trio.serve_tcp, host="127.0.0.1")
    (listener,) = await nursery.start(serve, read_late, 0)
    sink = await sink_to(f"http://127.0.0.1:{listener.socket.getsockname()[1]}/")
    async with trio.open_nursery() as delivering:
        delivering.start_soon(sink.deliver, [batch("x" * 50_000_000)])
        await begun.wait()
        delivering.cancel_scope.cancel()
    cancelled.set()
    with trio.fail_after(10):
        await closed.wait()


async def test_a_slow_server_is_waited_for(
    server: HttpServer, sink_to: Making, autojump_clock: trio.testing.MockClock
) -> None:
    """The deadline of a delivery is the router's; the sink has none of its own."""
    sink = await sink_to()

    async def slow(stream: trio.SocketStream, request: Request) -> None:
        for piece in (b"HTTP/1.1 ", b"200 OK\r\n", b"content-length: 0\r\n", b"\r\n"):
            await trio.sleep(3000)
            await stream.send_all(piece)

    server.behaviours.append(slow)
    assert await sink.deliver([batch("a")]) == DELIVERED
    assert trio.current_time() >= 12_000


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server was there when the sink was opened."""

    async def was(self: HttpSink) -> None: ...

    monkeypatch.setattr(HttpSink, "_reach", was)


async def test_a_server_that_is_not_there_is_said_without_a_record(
    sink_to: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.socket.socket() as closed:
        await closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/in"
        words = "cannot connect: Connection refused (ECONNREFUSED)"
        with pytest.raises(Retryable, match=re.escape(f"{url}: {words}")):
            await sink_to(url)
        # A proxy may reach what we cannot.
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        await sink_to(url)


@pytest.mark.usefixtures("reached")
async def test_a_server_that_is_not_there(sink_to: Making) -> None:
    with trio.socket.socket() as closed:
        await closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        sink = await sink_to(f"http://127.0.0.1:{port}/in")
        assert str(await failure(sink)) == (
            f"http://127.0.0.1:{port}/in: POST failed: Connection refused (ECONNREFUSED)"
        )


class NoNames(trio.abc.HostnameResolver):
    async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
        raise trio.socket.gaierror(trio.socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *_: Any) -> Any:
        raise NotImplementedError


@pytest.mark.usefixtures("reached")
async def test_a_name_that_nobody_knows(sink_to: Making) -> None:
    trio.socket.set_custom_hostname_resolver(NoNames())
    sink = await sink_to("http://logs.invalid/in")
    assert str(await failure(sink)) == (
        "http://logs.invalid/in: POST failed: its name cannot be resolved: Name or service not known"
    )


NO_NAMES = ["a..example", "a" * 64 + ".example"]
"""What the resolver never sees: a part of a name has 1 to 63 characters (RFC 1035, 2.3.4)."""


@pytest.mark.parametrize("name", NO_NAMES)
async def test_what_can_be_no_name_is_told_without_a_record(sink_to: Making, name: str) -> None:
    with pytest.raises(Retryable, match=r"/in: cannot connect: its name cannot be one: .*label .*too long"):
        await sink_to(f"http://{name}/in")


@pytest.mark.usefixtures("reached")
@pytest.mark.parametrize("name", NO_NAMES)
async def test_what_can_be_no_name_is_told(sink_to: Making, name: str) -> None:
    sink = await sink_to(f"http://{name}/in")
    assert "POST failed: its name cannot be one: " in str(await failure(sink))


@pytest.mark.usefixtures("reached")
async def test_a_server_that_never_accepts_has_ten_seconds(
    sink_to: Making, autojump_clock: trio.testing.MockClock
) -> None:
    class Silent(NoNames):
        async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
            await trio.sleep_forever()

    trio.socket.set_custom_hostname_resolver(Silent())
    sink = await sink_to("http://logs.invalid/in")
    assert str(await failure(sink)).endswith("POST failed: not connected within 10 s")


# --- TLS ----------------------------------------------------------------------------------------------


class Secure:
    """A server with TLS that asks for a client's certificate, and the files for both."""

    def __init__(self, folder: Path, host: str = "127.0.0.1", **options: Any) -> None:
        self.ca = trustme.CA()
        self.ca_file, self.client_file = folder / "ca.pem", folder / "client.pem"
        self.ca.cert_pem.write_to_path(self.ca_file)
        self.ca.issue_cert("client.test").private_key_and_cert_chain_pem.write_to_path(self.client_file)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca_file)
        self.ca.issue_cert(host, **options).configure_cert(self.context)
        self.clients: list[Any] = []

    async def answer_one(self, stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, self.context, server_side=True, https_compatible=True)
        try:
            await secure.do_handshake()
            await secure.receive_some()
            self.clients.append(secure.getpeercert())
            await secure.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        except trio.BrokenResourceError:
            pass
        await trio.aclose_forcefully(secure)

    async def serve(self, nursery: trio.Nursery) -> str:
        serve = partial(trio.serve_tcp, host="127.0.0.1")
        (listener,) = await nursery.start(serve, self.answer_one, 0)
        return f"https://127.0.0.1:{listener.socket.getsockname()[1]}/in"


async def test_tls_verifies_by_default(nursery: trio.Nursery, sink_to: Making, tmp_path: Path) -> None:
    secure = Secure(tmp_path)
    url = await secure.serve(nursery)
    sink = await sink_to(url)
    text = str(await failure(sink))
    assert text.startswith(f"{url}: POST failed: its certificate is not accepted: ")
    sink = await sink_to(url, tls={"ca": str(secure.ca_file)})
    assert await sink.deliver([batch("a")]) == DELIVERED
    sink = await sink_to(url, tls={"verify": False})
    assert await sink.deliver([batch("a")]) == DELIVERED


class Here(NoNames):
    """Every name is this host's."""

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        return [(trio.socket.AF_INET, trio.socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


@pytest.mark.parametrize(("host", "accepted"), [("logs.test.", True), ("other.test.", False)])
async def test_a_certificate_has_a_name_without_the_dot_that_makes_it_absolute(
    nursery: trio.Nursery, sink_to: Making, tmp_path: Path, host: str, accepted: bool
) -> None:
    trio.socket.set_custom_hostname_resolver(Here())
    secure = Secure(tmp_path, "logs.test")
    url = (await secure.serve(nursery)).replace("127.0.0.1", host)
    sink = await sink_to(url, tls={"ca": str(secure.ca_file)})
    if accepted:
        assert await sink.deliver([batch("a")]) == DELIVERED
    else:
        words = (
            "its certificate is not accepted: Hostname mismatch, certificate is not valid for 'other.test'"
        )
        assert words in str(await failure(sink))


async def test_tls_verifies_the_host(nursery: trio.Nursery, sink_to: Making, tmp_path: Path) -> None:
    secure = Secure(tmp_path, "other.test")
    sink = await sink_to(await secure.serve(nursery), tls={"ca": str(secure.ca_file)})
    assert "its certificate is not accepted: IP address mismatch" in str(await failure(sink))


async def test_a_certificate_that_has_expired_is_told(
    nursery: trio.Nursery, sink_to: Making, tmp_path: Path
) -> None:
    past = datetime(2020, 1, 1, tzinfo=UTC)
    secure = Secure(tmp_path, not_before=past, not_after=past)
    sink = await sink_to(await secure.serve(nursery), tls={"ca": str(secure.ca_file)})
    assert "its certificate is not accepted: certificate has expired" in str(await failure(sink))
    assert secure.clients == []


async def test_a_client_may_have_a_certificate(
    nursery: trio.Nursery, sink_to: Making, tmp_path: Path
) -> None:
    secure = Secure(tmp_path)
    secure.context.verify_mode = ssl.CERT_REQUIRED
    url = await secure.serve(nursery)
    tls = {"ca": str(secure.ca_file), "cert": str(secure.client_file)}
    assert await (await sink_to(url, tls=tls)).deliver([batch("a")]) == DELIVERED
    assert secure.clients[0]["subjectAltName"] == (("DNS", "client.test"),)


async def test_a_proxy_that_cannot_be_reached_is_named_without_its_password(sink_to: Making) -> None:
    sink = await sink_to("https://logs.test/in", proxy="http://ada:a-secret@127.0.0.1:1")
    assert str(await failure(sink)) == (
        "https://logs.test/in: POST failed: Connection refused (ECONNREFUSED)"
        " (asked by the proxy http://ada:***@127.0.0.1:1)"
    )


async def test_a_server_that_wants_a_certificate_of_ours_is_told_though_it_resets(
    nursery: trio.Nursery, sink_to: Making, tmp_path: Path
) -> None:
    """It says so behind the handshake, when the request is being sent: that fails, and nothing is heard."""
    secure = Secure(tmp_path)
    secure.context.verify_mode = ssl.CERT_REQUIRED
    sink = await sink_to(await secure.serve(nursery), tls={"ca": str(secure.ca_file)})
    for _ in range(5):
        text = str(await failure(sink, "x" * 8_000_000))
        assert "POST failed: " in text
        assert "our certificate" in text or "our TLS certificate" in text
        assert "`tls.cert`" in text


async def test_files_of_tls_that_cannot_be_used_are_put_right_later(sink_to: Making, tmp_path: Path) -> None:
    with pytest.raises(Retryable, match=r"cannot use the TLS authorities .*nothing\.pem: No such file"):
        await sink_to("https://127.0.0.1:1/", tls={"ca": str(tmp_path / "nothing.pem")})
    (tmp_path / "empty.pem").touch()
    with pytest.raises(
        Retryable, match=r"cannot use the TLS certificate .*empty\.pem with the key .*empty\.pem"
    ):
        await sink_to("https://127.0.0.1:1/", tls={"cert": str(tmp_path / "empty.pem")})


async def test_a_server_without_tls_is_told(server: HttpServer, sink_to: Making) -> None:
    sink = await sink_to(f"https://127.0.0.1:{server.port}/in")
    assert "POST failed: TLS failed: " in str(await failure(sink))


# --- what the user says of proxies and statuses -------------------------------------------------------


async def test_a_proxy_may_be_named_or_none(
    server: HttpServer, sink_to: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = await sink_to("http://logs.invalid/in", proxy=server.url)
    assert await sink.deliver([batch("a")]) == DELIVERED
    assert server.requests[-1].target == "http://logs.invalid/in"
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    sink = await sink_to(proxy="none")
    assert await sink.deliver([batch("b")]) == DELIVERED
    assert server.requests[-1].target == "/in"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert await (await sink_to()).deliver([batch("c")]) == DELIVERED


STATUSES = {"success": "409", "retry": [400, "5xx"], "reject": "503,3xx"}


@pytest.mark.parametrize(
    ("status", "meaning"),
    [(409, DELIVERED), (400, Retryable), (500, Retryable), (503, Refused), (302, Refused), (200, DELIVERED)],
)
async def test_statuses_mean_what_the_user_says(
    server: HttpServer, sink_to: Making, status: int, meaning: Any
) -> None:
    server.behaviours.append(answer(status))
    sink = await sink_to(statuses=STATUSES)
    if meaning is DELIVERED:
        assert await sink.deliver([batch("a")]) == DELIVERED
    else:
        with pytest.raises(meaning, match=f"answered {status}"):
            await sink.deliver([batch("a")])


@pytest.mark.parametrize("body", [b"<html>", b'{"code":6}'])
async def test_what_the_user_says_of_a_status_counts_before_what_a_protocol_does(
    server: HttpServer, sink_to: Making, body: bytes
) -> None:
    server.behaviours.append(answer(200, body))
    sink = await sink_to(server.url, encoding="splunk", statuses={"success": "200"})
    assert await sink.deliver([batch("a")]) == DELIVERED


async def test_the_answer_of_a_protocol_is_read_whole_within_a_bound(
    server: HttpServer, sink_to: Making, autojump_clock: trio.testing.MockClock
) -> None:
    async def slow(stream: trio.SocketStream, _: Request) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{")
        await trio.sleep(5)
        await stream.send_all(b'"code":0}')

    sink = await sink_to(server.url, encoding="splunk")
    long = b'{"code":0,"text":"' + b"x" * (1 << 15) + b'"}'
    server.behaviours += [slow, answer(200, long), answer(200, long * 3)]
    assert await sink.deliver([batch("a")]) == DELIVERED
    assert await sink.deliver([batch("a")]) == DELIVERED
    assert "its body is cut short" in str(await failure(sink))


# --- options ------------------------------------------------------------------------------------------


def test_uris() -> None:
    given = parse_uri("https://ada:pw@logs.test:8443/in/x?encoding=ndjson&headers.X-A=1&tls.verify=false")
    assert given == {
        "type": "http",
        "url": "https://ada:pw@logs.test:8443/in/x",
        "encoding": "ndjson",
        "headers": {"X-A": "1"},
        "tls": {"verify": "false"},
    }
    assert SINKS.options("http").model_validate(given)
    with pytest.raises(UriError, match=r"http://h/\?url=…: the URI is the URL, `url` is no parameter"):
        parse_uri("http://h/?url=http://x")


@pytest.mark.parametrize(
    ("uri", "url", "encoding"),
    [
        ("loki+https://h/", "https://h:3100/", "loki"),
        ("loki+http://h:80/x", "http://h:80/x", "loki"),
        ("otlp+http://[::1]", "http://[::1]:4318", "otlp"),
        ("splunk+https://h:", "https://h:8088", "splunk"),
    ],
)
def test_short_uris_name_the_encoding(uri: str, url: str, encoding: str) -> None:
    assert parse_uri(uri) == {"type": "http", "url": url, "encoding": encoding}
    with pytest.raises(UriError, match="`encoding` is no parameter"):
        parse_uri(f"{uri}?encoding=json")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "ftp://h/"}, "must begin with http:// or https://"),
        ({"url": "logs.test/in"}, "must begin with http:// or https://"),
        ({"url": "http:///in"}, "names no host"),
        ({"url": "http://ada:hunter2@h:99999/"}, "'http://ada:***@h:99999/' is no URL"),
        ({"url": "http://[::1/"}, "is no URL"),
        ({"url": "http://h/a b"}, "must not contain #, spaces or control characters"),
        ({"url": "http://h/#a"}, "must not contain #"),
        ({"url": "http://h/\n"}, "must not contain"),
        ({"encoding": "njdson"}, "Input should be 'ndjson', 'json'"),
        ({"headers": {"a b": "c"}}, "'a b' cannot be the name of a header"),
        ({"headers": {"X": "hunter2\r\nY: 1"}}, 'the value of "X" has characters that no header may have'),
        ({"headers": {"Content-Length": "1"}}, '"Content-Length" is set by the sink itself'),
        ({"url": "http://a:hunter2@h/", "headers": {"authorization": "x"}}, "only one can be sent"),
        ({"tls": {"key": "/k"}}, "`key` needs the `cert` that it belongs to"),
        ({"url": "http://a:hunter2@h/", "token": "x"}, "only one can be sent"),
        ({"username": "ada", "token": "hunter2"}, "only one can be sent"),
        ({"password": "hunter2"}, "`password` needs the `username`"),
        ({"token": "hunter2\n1"}, "has characters that no header may have"),
        ({"proxy": "socks://h"}, "must begin with http:// or https://"),
        ({"statuses": {"retry": "6xx"}}, "expected statuses such as 409 or 5xx"),
        ({"statuses": {"retry": "409", "reject": [409]}}, "409 is there twice"),
        ({"encoding": "text", "format": "xml"}, "unknown format 'xml'"),
    ],
)
def test_mistakes_are_told_without_secrets(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        HttpOptions.model_validate({"type": "http", "url": "http://h/", **options})
    (error,) = caught.value.errors()
    assert said in error["msg"]
    assert "hunter2" not in error["msg"]


def test_httpx_is_imported_only_where_there_is_such_a_sink(tmp_path: Path) -> None:
    program = (
        "import sys, logroute.sinks.http\n"
        "from logroute.config.components import SINKS\n"
        "from logroute.config.schema import config_schema\n"
        "SINKS.types(), config_schema()\n"
        "print('httpx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
