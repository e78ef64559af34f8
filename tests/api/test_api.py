"""What the API answers, asked over a real socket of a daemon that runs."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog.testing
import trio

from logroute.api import app as app_module
from logroute.api import books as books_module
from logroute.api import requests as requests_module
from logroute.api import server as server_module
from logroute.api import status as status_module
from logroute.api.address import Address
from logroute.api.listener import UNREAD_MS, Listener, ListenError
from logroute.processors import Processor
from logroute.router import watch
from logroute.router.books import RouteStatistics
from logroute.router.chain import StagePlan
from logroute.router.daemon import Daemon
from logroute.router.dead_letters import Letter
from logroute.router.match import EVERYTHING
from logroute.router.queue import QueueStatistics
from logroute.router.record import Batch, Record
from logroute.sinks import Outcome, Retryable
from tests.api.running import client_of, daemon_with, picky, until
from tests.processors.conftest import made
from tests.router.stand_ins import StandInSink, origin, time_of
from tests.router.test_chain import StandIn


@pytest.fixture
def address(tmp_path: Path) -> Address:
    return Address(path=str(tmp_path / "run" / "l.sock"))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def books_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    routes: dict[str, Any] = answer.json()["routes"]
    return routes


def balance(book: dict[str, Any]) -> int:
    """What received is to be."""
    queued = book["queued"]
    done = book["delivered"] + book["duplicates"] + book["rejected"] + sum(book["dropped"].values())
    return int(done + queued["memory"]["records"] + queued["disk"]["records"] + book["in_flight"])


# --- the books --------------------------------------------------------------------------------------


async def test_the_books_add_up_at_every_look_while_records_flow(state: Path, address: Address) -> None:
    sinks = {
        "picky": picky(*range(0, 3000, 7)),
        "all": picky(),
        "slow": lambda r: StandInSink(r, [0.05] * 40),
    }
    looks = 0
    async with (
        daemon_with(
            state, sinks, range(1, 3001), address=address, queue_bytes=20_000, disk_bytes=1 << 20
        ) as daemon,
        client_of(address) as client,
    ):
        while any(route.undelivered for route in daemon.router.routes.values()) or not looks:
            answer = await client.get("/v1/stats")
            for name, book in books_of(answer).items():
                assert book["received"] == balance(book), (name, book)
            looks += 1
        await until(lambda: daemon.router.routes["slow"].statistics().delivered == 3000)
        stats = (await client.get("/v1/stats")).json()
    assert looks > 1
    assert stats["routes"]["picky"]["rejected"] == stats["routes"]["picky"]["dead_letters"] == 428
    assert {book["received"] for book in stats["routes"].values()} == {3000}
    assert stats["unmatched"] == 0
    # "docker" is the source that the stand-in's origins name.
    assert stats["sources"]["docker"]["records"] >= 3000
    assert stats["daemon"]["state_dir"] == str(state)
    assert stats["daemon"]["pid"] == os.getpid()


async def test_a_processor_that_raises_is_named_and_makes_nothing_unhealthy(
    state: Path, address: Address
) -> None:
    def fail(records: list[Record]) -> list[Record]:
        raise ZeroDivisionError

    plan = StagePlan("processors[0].bad", EVERYTHING, lambda: StandIn(fail), "bad")
    async with (
        daemon_with(state, {"all": picky()}, range(1, 4), address=address, processors=[plan]) as daemon,
        client_of(address) as client,
    ):
        await until(lambda: daemon.router.routes["all"].statistics().delivered == 3)
        answer = await client.get("/v1/health")
    assert answer.status_code == 200
    assert answer.json()["processors"] == {
        "processors[0].bad": {
            "notes": ["it raises ZeroDivisionError, see the log: 3 records went on as they were"]
        }
    }


async def test_a_processor_that_has_held_everything_up_is_named(
    state: Path, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 0.001)
    monkeypatch.setattr(watch, "HANGS_S", 0.002)
    named = threading.Event()
    monkeypatch.setattr(watch, "notify", lambda state: named.set())

    def hang(records: list[Record]) -> list[Record]:
        assert named.wait(60)
        return records

    plan = StagePlan("processors[0].slow", EVERYTHING, lambda: StandIn(hang), "slow")
    async with (
        daemon_with(state, {"all": picky()}, range(1, 4), address=address, processors=[plan]) as daemon,
        client_of(address) as client,
    ):
        await until(lambda: daemon.router.routes["all"].statistics().delivered == 3)
        answer = await client.get("/v1/health")
    assert answer.status_code == 200
    [note] = answer.json()["processors"]["processors[0].slow"]["notes"]
    assert note.startswith("it has held everything up for ")


async def test_what_a_processor_counts_for_the_user_is_in_its_books(state: Path, address: Address) -> None:
    def metrics() -> Processor[Any]:
        return made("metrics", name="lines", labels={"name": "container.name"})

    plan = StagePlan("processors[0].metrics", EVERYTHING, metrics, "metrics", separable=False)
    async with (
        daemon_with(state, {"all": picky()}, range(1, 4), address=address, processors=[plan]) as daemon,
        client_of(address) as client,
    ):
        await until(lambda: daemon.router.routes["all"].statistics().delivered == 3)
        stats = (await client.get("/v1/stats")).json()
    assert stats["processors"] == {
        "processors[0].metrics": {
            "in": 3,
            "out": 3,
            "filtered": 0,
            "joined": 0,
            "failed": 0,
            "metric": {
                "name": "lines",
                "kind": "counter",
                "series": [{"labels": {"name": "web"}, "value": 3}],
            },
        }
    }


async def test_the_lag_is_the_age_of_the_oldest_record_that_is_not_delivered(
    state: Path, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    from logroute.router import route as route_module

    first = route_module.datetime.fromisoformat(time_of(1)).timestamp()
    down = [Retryable("no")] * 100
    async with (
        daemon_with(
            state,
            {"down": lambda r: StandInSink(r, down), "up": picky()},
            [1, 2, 3],
            address=address,
            retry_initial_s=1000.0,
            retry_max_s=1000.0,
        ) as daemon,
        client_of(address) as client,
    ):
        await until(lambda: not daemon.router.routes["down"].statistics().up)
        await until(lambda: daemon.router.routes["up"].statistics().delivered == 3)
        monkeypatch.setattr(route_module.time, "time", lambda: first + 50)
        books = books_of(await client.get("/v1/stats"))
    assert books["down"]["lag_seconds"] == pytest.approx(50, abs=0.01)
    assert books["up"]["lag_seconds"] == 0


# --- health -----------------------------------------------------------------------------------------


async def test_health_says_what_a_source_cannot_read(state: Path, address: Address) -> None:
    async with (
        daemon_with(state, {"a": picky()}, [1], address=address) as daemon,
        client_of(address) as client,
    ):
        (source,) = daemon.sources.running.values()
        answer = await client.get("/v1/health")
        assert "sources" not in answer.json()
        assert answer.json()["healthy"]
        source.notes = lambda: ["the engine is away"]  # type: ignore[method-assign]
        answer = await client.get("/v1/health")
        assert (answer.status_code, answer.json()["healthy"]) == (503, False)
        (notes,) = answer.json()["sources"].values()
        assert notes == {"notes": ["the engine is away"]}


async def test_health_says_which_route_does_not_deliver_since_when_and_why(
    state: Path, address: Address
) -> None:
    class Broken(StandInSink):
        broken = True

        async def deliver(self, batches: Sequence[Batch]) -> Outcome:
            if self.broken:
                raise Retryable("host:1 refused")
            return await super().deliver(batches)

    async with (
        daemon_with(
            state,
            {"a": Broken, "b": picky(2)},
            [1, 2],
            address=address,
            retry_initial_s=0.01,
            retry_max_s=0.01,
        ) as daemon,
        client_of(address) as client,
    ):
        a = daemon.router.routes["a"]
        await until(lambda: not a.statistics().up and daemon.router.routes["b"].statistics().rejected == 1)
        answer = await client.get("/v1/health")
        assert (answer.status_code, answer.json()["healthy"]) == (503, False)
        down, up = answer.json()["routes"]["a"], answer.json()["routes"]["b"]
        assert (down["delivers"], down["reason"]) == (False, "host:1 refused")
        since = down["since"]
        assert since.startswith("20")
        assert up["delivers"]
        assert up["notes"] == ["1 dead letter: see `logroute deadletters`"]
        assert (await client.get("/v1/health")).json()["routes"]["a"]["since"] == since
        assert isinstance(a.sink, Broken)
        a.sink.broken = False
        await until(lambda: a.statistics().up)
        answer = await client.get("/v1/health")
        assert (answer.status_code, answer.json()["healthy"]) == (200, True)
        assert answer.json()["routes"]["a"]["since"] > since


# --- dead letters -----------------------------------------------------------------------------------


async def test_a_receiver_that_repeats_a_secret_tells_it_nobody(state: Path, address: Address) -> None:
    down = [Retryable("no such path /S3CRETPATH")] * 100
    async with (
        daemon_with(
            state,
            {"a": picky(2), "b": lambda r: StandInSink(r, down)},
            range(1, 4),
            address=address,
            hidden=[("${file:path}", "S3CRETPATH"), ("${file:two}", "cannot take 2")],
            retry_initial_s=1000.0,
            retry_max_s=1000.0,
        ) as daemon,
        client_of(address) as client,
    ):
        await until(lambda: daemon.router.routes["a"].statistics().rejected == 1)
        await until(lambda: not daemon.router.routes["b"].statistics().up)
        (letter,) = (await client.get("/v1/routes/a/deadletters")).json()["letters"]
        assert (letter["message"], letter["reason"]) == ("2", "${file:two}")
        book = books_of(await client.get("/v1/stats"))["b"]
        assert book["reason"] == book["last_error"] == "no such path /${file:path}"
        assert (await client.get("/v1/S3CRETPATH")).json()["detail"] == "there is nothing at /v1/S3CRETPATH"


async def test_dead_letters_are_listed_shown_replayed_and_dropped(state: Path, address: Address) -> None:
    async with (
        daemon_with(state, {"a%b": picky(2, 4, 5)}, range(1, 7), address=address) as daemon,
        client_of(address) as client,
    ):
        route = daemon.router.routes["a%b"]
        await until(lambda: route.statistics().rejected == 3 and not route.undelivered)
        at = "/v1/routes/a%25b/deadletters"
        summary = (await client.get("/v1/deadletters")).json()["routes"]["a%b"]
        assert summary["letters"] == 3
        assert summary["oldest"] <= summary["newest"]
        page = (await client.get(at, params={"count": 2})).json()
        assert [(each["id"], each["message"]) for each in page["letters"]] == [(1, "2"), (2, "4")]
        assert page["letters"][0]["reason"] == "cannot take 2"
        assert page["next"] == 2
        rest = (await client.get(at, params={"after": page["next"]})).json()
        assert [each["id"] for each in rest["letters"]] == [3]
        assert "next" not in rest
        whole = (await client.get(f"{at}/2")).json()
        assert whole["reason"] == "cannot take 4"
        assert (whole["record"]["message"], whole["record"]["@timestamp"]) == ("4", time_of(4))
        assert whole["record"]["container"]["name"] == "web"
        assert (await client.delete(at, params={"ids": "2,99"})).json() == {"dropped": 1}
        route.sink.dislikes = frozenset()  # type: ignore[attr-defined]
        assert (await client.post(f"{at}/replay", json={"ids": [1, 2]})).json() == {"replayed": 1}
        await until(lambda: not route.undelivered)
        assert "2" in route.sink.messages  # type: ignore[attr-defined]
        assert (await client.post(f"{at}/replay", json={"ids": None})).json() == {"replayed": 1}
        assert (await client.get("/v1/deadletters")).json()["routes"]["a%b"] == {
            "letters": 0,
            "size_bytes": 0,
        }
        assert (await client.delete(at, params={"all": "true"})).json() == {"dropped": 0}


async def test_replaying_all_ends_where_all_are_rejected_again(state: Path, address: Address) -> None:
    async with (
        daemon_with(
            state, {"r": picky(*range(20))}, range(1, 20), address=address, batch_records=1
        ) as daemon,
        client_of(address) as client,
    ):
        route = daemon.router.routes["r"]
        await until(lambda: route.statistics().rejected == 19)
        with trio.fail_after(20):
            answer = await client.post("/v1/routes/r/deadletters/replay", json={"ids": None})
        assert answer.json() == {"replayed": 19}
        await until(lambda: route.statistics().rejected == 38)


async def test_a_long_message_is_listed_by_its_beginning_and_shown_whole(
    state: Path, address: Address
) -> None:
    letter = Letter(origin(), Record("é" * 5000, "stdout", time_of(1)), "too long")
    async with daemon_with(state, {"r": picky()}, address=address) as daemon, client_of(address) as client:
        daemon.router.routes["r"].state.bury([letter])
        (listed,) = (await client.get("/v1/routes/r/deadletters")).json()["letters"]
        assert listed["message"] == "é" * 500
        whole = (await client.get("/v1/routes/r/deadletters/1")).json()
        assert whole["record"]["message"] == "é" * 5000


# --- what is wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "detail"),
    [
        ("GET", "/v1/nothing", {}, 404, "there is nothing at /v1/nothing"),
        ("POST", "/v1/stats", {}, 405, "POST is not possible at /v1/stats"),
        ("GET", "/v1/routes/x/deadletters", {}, 404, "there is no route x; there are: r"),
        ("GET", "/v1/routes/r/deadletters?count=0", {}, 400, "count is a whole number from 1 to 1000"),
        ("GET", "/v1/routes/r/deadletters?after=1e9", {}, 400, "after is a whole number"),
        ("GET", "/v1/routes/r/deadletters/99", {}, 404, "has no dead letter 99"),
        ("GET", f"/v1/routes/r/deadletters/{1 << 64}", {}, 404, "has no dead letter"),
        ("DELETE", "/v1/routes/r/deadletters", {}, 400, "?all=true"),
        ("DELETE", "/v1/routes/r/deadletters?ids=1,-2", {}, 400, "?all=true"),
        ("DELETE", "/v1/routes/r/deadletters?ids=1&all=true", {}, 200, ""),
        ("POST", "/v1/routes/r/deadletters/replay", {}, 415, "content-type: application/json"),
        ("POST", "/v1/routes/r/deadletters/replay", {"json": {}}, 422, "missing required field `ids`"),
        ("POST", "/v1/routes/r/deadletters/replay", {"json": {"ids": []}}, 422, "length >= 1"),
        ("POST", "/v1/routes/r/deadletters/replay", {"json": {"ids": [1 << 70]}}, 422, ""),
        (
            "POST",
            "/v1/routes/r/deadletters/replay",
            {"json": {"ids": None, "x": 1}},
            422,
            "unknown field `x`",
        ),
    ],
)
async def test_a_request_that_cannot_be_answered_is_a_problem_that_says_why(
    state: Path, address: Address, method: str, path: str, more: dict[str, Any], status: int, detail: str
) -> None:
    async with daemon_with(state, {"r": picky()}, address=address), client_of(address) as client:
        answer = await client.request(method, path, **more)
    assert answer.status_code == status
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["status"] == status
        assert problem["title"]
        assert detail in problem["detail"]


async def test_a_problem_names_the_place_in_the_body(state: Path, address: Address) -> None:
    async with daemon_with(state, {"r": picky()}, address=address), client_of(address) as client:
        at = "/v1/routes/r/deadletters/replay"
        assert (await client.post(at, json={"ids": [1, "2"]})).json()["path"] == "$.ids[1]"
        answer = await client.post(at, content=b"{", headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["title"]) == (400, "Bad Request")


async def test_a_body_that_is_too_large_or_never_comes_is_refused(
    state: Path, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests_module, "BODY_BYTES", 1000)
    monkeypatch.setattr(requests_module, "BODY_WITHIN_S", 0.1)
    json_ = {"content-type": "application/json"}
    at = "/v1/routes/r/deadletters/replay"
    async with daemon_with(state, {"r": picky()}, address=address):
        async with client_of(address) as client:
            assert (await client.post(at, content=b"[" * 1001, headers=json_)).status_code == 413
        stream = await trio.open_unix_socket(address.path)
        async with stream:
            await stream.send_all(
                f"POST {at} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                "Content-Length: 5\r\n\r\n{".encode()
            )
            with trio.fail_after(10):
                assert b"408" in await stream.receive_some(1000)
        async with client_of(address) as client:
            assert (await client.get("/v1/stats")).status_code == 200


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [
        ("/nothing", "text/plain", 404),
        ("/v1/routes/r/pause", "text/plain", 200),
        ("/v1/routes", "text/plain", 415),
        ("/v1/routes", "application/json", 413),
    ],
)
async def test_a_body_that_nobody_reads_costs_no_place(
    state: Path, address: Address, monkeypatch: pytest.MonkeyPatch, path: str, kind: str, status: int
) -> None:
    """hypercorn waited for ever for somebody to take the rest of it."""
    monkeypatch.setattr(server_module, "CONNECTIONS", 1)
    async with daemon_with(state, {"r": picky()}, address=address):
        async with client_of(address, timeout=10) as client:
            answer = await client.post(path, content=b"x" * (6 << 20), headers={"content-type": kind})
            assert answer.status_code == status
        async with client_of(address, timeout=10) as client:
            assert (await client.get("/v1/stats")).status_code == 200


async def test_a_body_that_goes_on_and_on_ends_with_the_connection(
    state: Path, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "REST_BYTES", 1 << 20)
    async with daemon_with(state, {"r": picky()}, address=address):
        stream = await trio.open_unix_socket(address.path)
        async with stream:
            request = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n"
            with trio.fail_after(20), suppress(trio.BrokenResourceError):
                await stream.send_all(request)
                while True:
                    await stream.send_all(b"x" * (1 << 20))
        async with client_of(address) as client:
            assert (await client.get("/v1/stats")).status_code == 200


async def test_a_body_that_is_nested_without_end_is_a_mistake_of_who_sends_it(
    state: Path, address: Address
) -> None:
    json_ = {"content-type": "application/json"}
    async with daemon_with(state, {"r": picky()}, address=address), client_of(address) as client:
        for path in ("/v1/routes", "/v1/routes/r/deadletters/replay"):
            answer = await client.post(path, content=b'{"a":' * 20_000, headers=json_)
            assert answer.status_code in (400, 422), answer.text


async def test_a_mistake_of_ours_is_a_problem_and_stands_in_the_log(
    state: Path, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(daemon: Daemon) -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(status_module, "stats_of", broken)
    with structlog.testing.capture_logs() as logs:
        async with daemon_with(state, {"r": picky()}, address=address), client_of(address) as client:
            answer = await client.get("/v1/stats")
            assert answer.status_code == 500
            assert "secret" not in answer.text
            assert (await client.get("/v1/health")).status_code == 200
    (failed,) = [event for event in logs if event["event"] == "a request failed"]
    assert failed["path"] == "/v1/stats"


# --- peers that do not behave -----------------------------------------------------------------------


async def test_a_header_that_never_ends_is_cut_off(
    state: Path, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "REQUEST_WITHIN_S", 0.2)
    monkeypatch.setattr(server_module, "HEADER_BYTES", 2000)
    async with daemon_with(state, {"r": picky()}, address=address):
        stream = await trio.open_unix_socket(address.path)
        async with stream:
            await stream.send_all(b"GET /v1/stats HTTP/1.1\r\nHost:")
            with trio.fail_after(10):
                assert await stream.receive_some(1000) == b""
        stream = await trio.open_unix_socket(address.path)
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nX: " + b"x" * 5000)
            with trio.fail_after(10):
                assert b"431" in await stream.receive_some(1000)


async def test_an_answer_comes_in_one_piece_and_a_silent_connection_is_ended_behind_it(
    state: Path, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "REQUEST_WITHIN_S", 2.0)
    async with daemon_with(state, {"r": picky()}, address=address):
        stream = await trio.open_unix_socket(address.path)
        async with stream:
            for method in ("GET", "HEAD", "GET"):
                await stream.send_all(f"{method} /v1/stats HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                head, _, body = bytes(await stream.receive_some(100_000)).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200")
                assert f"content-length: {len(body)}".encode() in head or (method == "HEAD" and not body)
            with trio.fail_after(10):
                assert await stream.receive_some(1000) == b""


async def test_more_connections_than_there_may_be_wait_for_a_place(
    state: Path, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "CONNECTIONS", 2)
    monkeypatch.setattr(server_module, "REQUEST_WITHIN_S", 0.3)
    async with daemon_with(state, {"r": picky()}, address=address):
        idle = [await trio.open_unix_socket(address.path) for _ in range(2)]
        async with client_of(address, timeout=20) as client:
            assert (await client.get("/v1/stats")).status_code == 200
        for each in idle:
            await each.aclose()


async def test_a_connection_that_is_closed_gives_its_place_back_at_once(
    state: Path, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "CONNECTIONS", 1)
    monkeypatch.setattr(server_module, "REQUEST_WITHIN_S", 1000.0)
    async with daemon_with(state, {"r": picky()}, address=address):
        for _ in range(5):
            async with client_of(address) as client:
                assert (await client.get("/v1/stats")).status_code == 200


async def stuck(address: Address) -> trio.SocketStream:
    """A client that asks and asks, and reads nothing, until nothing more can be sent to it.

    It asks less often than 1,000 times: then hypercorn ends a connection by itself.
    """
    if address.path:
        stream = await trio.open_unix_socket(address.path)
    else:
        stream = await trio.open_tcp_stream(address.host, address.port)
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    ask = b"GET /v1/routes/r/deadletters HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with trio.move_on_after(1), suppress(trio.BrokenResourceError):
        for _ in range(18):
            await stream.send_all(ask * 50)
        await trio.sleep_forever()
    return stream


@pytest.mark.parametrize("tcp", [False, True])
async def test_a_client_that_stopped_reading_does_not_hold_up_the_end(
    state: Path, address: Address, tcp: bool
) -> None:
    if tcp:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = Address(host="127.0.0.1", port=free.getsockname()[1])
    with trio.fail_after(20) as scope:
        async with daemon_with(state, {"r": picky(*range(400))}, range(1, 400), address=address) as daemon:
            await until(lambda: daemon.router.routes["r"].statistics().rejected == 399)
            client = await stuck(address)
            began = trio.current_time()
        assert trio.current_time() - began < 8
        await client.aclose()
    assert not scope.cancelled_caught


async def test_a_client_that_stopped_reading_loses_its_place(
    state: Path, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "SEND_WITHIN_S", 0.3)
    monkeypatch.setattr(server_module, "REQUEST_WITHIN_S", 1000.0)
    monkeypatch.setattr(server_module, "CONNECTIONS", 1)
    async with daemon_with(state, {"r": picky(*range(400))}, range(1, 400), address=address) as daemon:
        await until(lambda: daemon.router.routes["r"].statistics().rejected == 399)
        client = await stuck(address)
        async with client, client_of(address, timeout=20) as other:
            assert (await other.get("/v1/stats")).status_code == 200


# --- where it listens -------------------------------------------------------------------------------


async def test_the_socket_is_for_the_owner_and_the_group_and_goes_with_the_daemon(
    state: Path, address: Address
) -> None:
    folder = os.path.dirname(address.path)
    async with daemon_with(state, {"r": picky()}, address=address):
        assert stat.S_IMODE(os.stat(address.path).st_mode) == 0o660
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o750
        assert os.listdir(folder) == ["l.sock"]
    assert os.listdir(folder) == []


def test_a_socket_that_a_killed_daemon_left_is_replaced(address: Address) -> None:
    first = Listener(address)
    for each in first.sockets:
        each.close()
    second = Listener(address)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(address.path)
    # What was replaced is not the first one's to remove.
    first.close()
    assert Path(address.path).exists()
    second.close()
    assert not Path(address.path).exists()


def test_a_socket_that_somebody_listens_on_is_left_alone(address: Address) -> None:
    first = Listener(address)
    with pytest.raises(ListenError, match=r"another program does.*--listen"):
        Listener(address)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(address.path)
    first.close()


def test_the_kernel_ends_a_connection_by_tcp_whose_peer_is_gone_without_a_word() -> None:
    """hypercorn is shielded while it sends: where nobody acknowledges, only the kernel ends that."""
    listener = Listener(Address(host="127.0.0.1", port=0))
    try:
        (listening,) = listener.sockets
        with socket.create_connection(listening.getsockname()):
            listening.settimeout(10)
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == UNREAD_MS
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    finally:
        listener.close()


def test_a_file_that_is_no_socket_is_not_removed(address: Address) -> None:
    path = Path(address.path)
    path.parent.mkdir()
    path.write_text("mine")
    with pytest.raises(ListenError, match="a file that is no socket"):
        Listener(address)
    assert path.read_text() == "mine"


async def test_a_default_socket_that_cannot_be_had_is_a_warning_and_a_configured_one_an_error(
    tmp_path: Path, address: Address
) -> None:
    held = Listener(address)
    with structlog.testing.capture_logs() as logs:
        async with daemon_with(
            tmp_path / "a", {"r": picky()}, [1], address=address, required=False
        ) as daemon:
            await until(lambda: daemon.router.routes["r"].statistics().delivered == 1)
    assert "another program" in next(e["reason"] for e in logs if e["event"] == "there is no API")
    with structlog.testing.capture_logs() as logs:
        code = 0
        with pytest.raises(BaseExceptionGroup):  # it never says that it has started
            async with daemon_with(tmp_path / "b", {"r": picky()}, address=address):
                code = 1
    assert code == 0
    assert any(e["event"] == "cannot start" and "another program" in e["reason"] for e in logs)
    held.close()


# --- over TCP ---------------------------------------------------------------------------------------


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


async def test_over_tcp_the_token_is_asked_for(state: Path, port: int) -> None:
    address = Address(host="127.0.0.1", port=port)
    async with (
        daemon_with(state, {"r": picky()}, address=address, token="s3cret"),
        client_of(address) as client,
    ):
        for wrong in ("", "Bearer wrong", "s3cret", "Bearer", "Basic s3cret", "Bearer s3cret x", "Bearer s3"):
            answer = await client.get("/v1/stats", headers={"authorization": wrong} if wrong else {})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "s3cret" not in answer.text
        for right in ("Bearer s3cret", "bearer s3cret", "BEARER  s3cret"):  # RFC 9110, 11.1 and 11.4
            answer = await client.get("/v1/stats", headers={"authorization": right})
            assert answer.status_code == 200, right


async def test_without_a_token_a_name_that_is_not_this_hosts_is_refused(state: Path, port: int) -> None:
    address = Address(host="127.0.0.1", port=port)
    async with daemon_with(state, {"r": picky()}, address=address), client_of(address) as client:
        for host, status in (("evil.example", 421), ("localhost:1", 200), ("[::1]:1", 200), ("", 421)):
            assert (await client.get("/v1/stats", headers={"host": host})).status_code == status


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1"])
async def test_a_page_of_another_site_changes_nothing(state: Path, port: int, origin: str) -> None:
    """A browser sends what needs no body of JSON without asking; the Host header is the right one then."""
    address = Address(host="127.0.0.1", port=port)
    async with daemon_with(state, {"r": picky()}, address=address) as daemon, client_of(address) as client:
        for path in ("/v1/routes/r/pause", "/v1/reload"):
            answer = await client.post(path, headers={"origin": origin, "content-type": "text/plain"})
            assert answer.status_code == 403
            assert "Origin" in answer.json()["detail"]
        assert not daemon.made.paused
        answer = await client.post("/v1/routes/r/pause", headers={"origin": f"http://{address}"})
        assert answer.status_code == 200


async def test_who_knows_the_token_may_ask_from_any_page(state: Path, port: int) -> None:
    """A proxy may serve the page under a name of its own."""
    address = Address(host="127.0.0.1", port=port)
    headers = {"origin": "https://logs.example", "authorization": "Bearer x"}
    async with daemon_with(state, {"r": picky()}, address=address, token="x"), client_of(address) as client:
        assert (await client.get("/v1/stats", headers=headers)).status_code == 200


async def test_a_method_that_a_path_does_not_have_is_answered_with_those_that_it_has(
    state: Path, address: Address
) -> None:
    async with daemon_with(state, {"r": picky()}, address=address), client_of(address) as client:
        for path, methods in (
            ("/v1/routes/r", "DELETE, GET, HEAD, PATCH, PUT"),
            ("/v1/routes", "GET, HEAD, POST"),
            ("/v1/reload", "POST"),
        ):
            answer = await client.options(path)
            assert (answer.status_code, answer.headers["allow"]) == (405, methods)
            assert methods in answer.json()["detail"]


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (b"GET /v1/stats HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400, "HTTP/1.1"),
        (b"GET /v1/stats HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000, 431, "16384 bytes"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, "chunked"),
        (b"GET /v1/stats/ HTTP/1.0\r\nHost: x\r\n\r\n", 404, "without the slash at its end"),
        (b"GET http://localhost/v1/routes HTTP/1.0\r\nHost: localhost\r\n\r\n", 200, "routes"),
        (b"GET http://localhost HTTP/1.0\r\nHost: localhost\r\n\r\n", 404, "nothing at /"),
    ],
)
async def test_requests_at_the_edge_of_http(
    state: Path, address: Address, request_: bytes, status: int, words: str
) -> None:
    async with daemon_with(state, {"r": picky()}, address=address):
        stream = await trio.open_unix_socket(address.path)
        received = b""
        async with stream:
            with trio.fail_after(10), suppress(trio.BrokenResourceError):
                await stream.send_all(request_)
                async for data in stream:
                    received += data
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), received
    assert status == 200 or b"application/problem+json" in head
    assert words in body.decode()


@pytest.mark.parametrize(
    "begun",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
        b"GET /v1/stats HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\n"
        b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    ],
)
async def test_http_2_which_puts_many_requests_on_a_connection_is_not_spoken(
    state: Path, address: Address, begun: bytes
) -> None:
    async with daemon_with(state, {"r": picky()}, address=address):
        stream = await trio.open_unix_socket(address.path)
        async with stream:
            await stream.send_all(begun)
            with trio.fail_after(10):
                answer = bytes(await stream.receive_some(10_000))
    assert answer.startswith(b"HTTP/1.1 200 " if begun.startswith(b"GET") else b"HTTP/1.1 4"), answer


async def test_a_socket_needs_no_token(state: Path, address: Address) -> None:
    async with daemon_with(state, {"r": picky()}, address=address, token="x"), client_of(address) as client:
        assert (await client.get("/v1/stats")).status_code == 200


async def test_a_websocket_is_refused(state: Path, address: Address) -> None:
    async with daemon_with(state, {"r": picky()}, address=address):
        stream = await trio.open_unix_socket(address.path)
        async with stream:
            await stream.send_all(
                b"GET /v1/stats HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            with trio.fail_after(10):
                assert b" 403 " in await stream.receive_some(1000)


def book(**more: Any) -> RouteStatistics:
    queue = QueueStatistics(records=5, memory_bytes=100, spooled_records=5, spooled_bytes=900)
    given: dict[str, Any] = {"lag_s": 500.0, "since": 0.0, "delivered_at": 0.0, "disk_bytes": 1000, **more}
    return RouteStatistics(10, 5, 0, 0, {}, 0, 0, 0, 0, queue, 0, 0, up=True, reason="", **given)


def test_health_tells_of_a_spool_that_fills_and_of_a_route_that_stands() -> None:
    notes = books_module._health(book()).notes
    assert any("its spool is 90% full" in note for note in notes)
    assert any("5 records wait, and nothing was acknowledged for" in note for note in notes)
    lately = book(disk_bytes=10_000, delivered_at=time.time())
    assert books_module._health(lately).notes == ()


async def test_a_source_that_failed_is_not_healthy(address: Address) -> None:
    async with (
        daemon_with(None, {"all": StandInSink}, [1], address=address) as daemon,
        client_of(address) as client,
    ):
        assert (await client.get("/v1/health")).json()["healthy"]
        daemon.sources._failures["stand-in"] = trio.current_time(), "it was broken"
        answer = await client.get("/v1/health")
        assert answer.status_code == 503
        assert "it was broken" in answer.json()["sources"]["stand-in"]["notes"][0]
