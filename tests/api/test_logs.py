"""`/v1/logs`, asked over a real socket of a daemon that reads a simulated engine."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio
import wsproto

from logroute.api import logs as logs_module
from logroute.api.address import Address
from logroute.api.server import ApiServer
from logroute.config.components import PROCESSORS, SINKS, SOURCES
from logroute.processors import ProcessorOptions
from logroute.router import daemon as daemon_module
from logroute.router import views as views_module
from logroute.router.chain import StagePlan
from logroute.router.daemon import Daemon
from logroute.router.look import Problem as Unread
from logroute.router.match import Match
from logroute.router.plan import Plan, RoutePlan, SourcePlan
from logroute.router.record import Origin
from logroute.router.route import RouteSettings
from logroute.router.views import News, Skipped
from logroute.simulator.containers import SimulatedContainer
from logroute.simulator.engine import SimulatedEngine
from logroute.sources import SourceContext
from logroute.sources.docker import DockerSource
from tests.api.running import client_of, until
from tests.servers.rsyslog import free_port


class Rig:
    """An engine, a daemon that reads it, and whoever asks."""

    def __init__(
        self, engine: SimulatedEngine, daemon: Daemon, client: httpx.AsyncClient, address: Address
    ) -> None:
        self.address = address
        self.engine = engine
        self.daemon = daemon
        self.client = client

    def container(self, name: str = "web", **options: Any) -> SimulatedContainer:
        container = self.engine.create(name, **options)
        container.start()
        return container

    async def read(self, records: int) -> None:
        """Wait until the daemon has read so many."""
        books = self.daemon.router.read
        await until(lambda: sum(each.records for each in books.values()) >= records)

    async def lines(self, query: str, **headers: str) -> list[dict[str, Any]]:
        answer = await self.client.get(f"/v1/logs?{query}", headers=headers)
        assert answer.status_code == 200, answer.text
        return [msgspec.json.decode(line) for line in answer.content.splitlines()]

    async def messages(self, query: str) -> list[str]:
        return [line["message"] for line in await self.lines(query)]


@asynccontextmanager
async def rig(
    tmp_path: Path,
    *,
    read: str = "auto",
    match: Any = None,
    processors: Sequence[dict[str, Any]] = (),
    before: Sequence[dict[str, Any]] = (),
    tcp: bool = False,
    started: bool = True,
) -> AsyncIterator[Rig]:
    address = Address(path=str(tmp_path / "l.sock"))
    if tcp:
        address = Address(host="127.0.0.1", port=free_port(socket.SOCK_STREAM))
    async with SimulatedEngine(tmp_path / "engine", seed=1) as engine:
        source = SOURCES.options("docker").model_validate({"host": engine.host, "read": read})
        settings = RouteSettings("all", match=Match.parse(match or {}))
        plan = Plan(
            [
                RoutePlan(
                    settings,
                    partial(SINKS.create, SINKS.options("null").model_validate({})),
                    processors=stages(processors),
                )
            ],
            [SourcePlan("docker", partial(SOURCES.create, source, SourceContext("docker")))],
            grace_s=0.1,
            make_api=lambda daemon: ApiServer(daemon, address),
            processors=stages(before),
        )
        daemon = Daemon(plan)
        async with trio.open_nursery() as nursery, client_of(address, timeout=20) as client:
            if started:
                await nursery.start(daemon.run)
            else:
                nursery.start_soon(daemon.run)
                await until(Path(address.path).exists)
            try:
                yield Rig(engine, daemon, client, address)
            finally:
                daemon.stop()


def stages(given: Sequence[dict[str, Any]]) -> list[StagePlan]:
    plans = []
    for each in given:
        options = PROCESSORS.options(each["type"]).model_validate(each)
        assert isinstance(options, ProcessorOptions)
        plans.append(StagePlan(each["type"], options.when, partial(PROCESSORS.create, options), str(each)))
    return plans


class Following:
    """Reads the answer's lines as they come. HTTP/1.0: there are no chunks between them."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = b""

    async def line(self) -> bytes:
        with trio.fail_after(20):
            while b"\n" not in self._received:
                data = await self._stream.receive_some(65536)
                assert data, "the answer has ended"
                self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line

    async def next(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(await self.line())
        return found

    async def messages(self, count: int) -> list[str]:
        return [(await self.next())["message"] for _ in range(count)]


@asynccontextmanager
async def following(rig: Rig, query: str) -> AsyncIterator[Following]:
    before = len(rig.daemon.router.views)
    async with await trio.open_unix_socket(rig.address.path) as stream:
        await stream.send_all(f"GET /v1/logs?follow=true&{query} HTTP/1.0\r\n\r\n".encode())
        view = Following(stream)
        assert b" 200" in await view.line()
        while await view.line() != b"\r":
            pass
        await until(lambda: len(rig.daemon.router.views) > before)
        yield view


def say(container: SimulatedContainer, first: int, last: int) -> None:
    for number in range(first, last + 1):
        container.write(f"line {number}\n".encode())


def said(first: int, last: int) -> list[str]:
    return [f"line {number}" for number in range(first, last + 1)]


@pytest.mark.parametrize("read", ["auto", "api"])
async def test_what_was_said_comes_from_the_engines_own_log(tmp_path: Path, read: str) -> None:
    async with rig(tmp_path, read=read) as r:
        web = r.container()
        say(web, 1, 300)
        await r.read(300)
        assert await r.messages("container=web") == said(201, 300)
        assert await r.messages("lines=5") == said(296, 300)
        assert await r.messages("lines=1000") == said(1, 300)
        assert await r.messages("since=1h") == said(1, 300)
        assert await r.messages("container=api&since=1h") == []


@pytest.mark.parametrize("read", ["auto", "api"])
async def test_between_what_was_and_what_comes_nothing_is_missing_or_twice(tmp_path: Path, read: str) -> None:
    async with rig(tmp_path, read=read) as r:
        web = r.container()
        say(web, 1, 50)
        await r.read(50)
        async with following(r, "lines=20") as view:
            say(web, 51, 60)
            # What was said before its history was read is among the last twenty lines, or behind them.
            came = await view.messages(20)
            while came[-1] != "line 60":
                came += await view.messages(1)
            assert came == said(61 - len(came), 60)
            assert len(came) <= 30


async def test_while_history_is_read_what_comes_is_kept_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from logroute.sources.histories import FileHistory

    begun, go_on = trio.Event(), trio.Event()
    read = FileHistory.read

    async def waits(self: FileHistory, *arguments: Any) -> None:
        begun.set()
        await go_on.wait()
        await read(self, *arguments)

    monkeypatch.setattr(FileHistory, "read", waits)
    async with rig(tmp_path) as r:
        web = r.container()
        say(web, 1, 10)
        await r.read(10)
        async with following(r, "since=1h") as view:
            await begun.wait()
            say(web, 11, 20)  # seen live, and again in the log
            await r.read(20)
            go_on.set()
            say(web, 21, 25)
            assert await view.messages(25) == said(1, 25)


@pytest.mark.parametrize("read", ["auto", "api"])
async def test_what_is_said_while_history_is_read_may_be_more_than_a_view_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    """It is read as history then, instead of being skipped; however often."""
    from logroute.sources import histories

    kind = histories.FileHistory if read == "auto" else histories.EngineHistory
    read_it, waits = kind.read, [40, 70, 100]

    async def slow(self: Any, *arguments: Any) -> None:
        await read_it(self, *arguments)
        if waits:  # it is read to here; meanwhile more comes, and is seen live
            last = waits.pop(0)
            say(web, last - 29, last)
            await r.read(last)

    monkeypatch.setattr(kind, "read", slow)
    monkeypatch.setattr(views_module, "HELD_BYTES", 2000)
    async with rig(tmp_path, read=read) as r:
        web = r.container()
        say(web, 1, 10)
        await r.read(10)
        async with following(r, "lines=5") as view:
            assert await view.messages(95) == said(6, 100)
            say(web, 101, 103)
            assert await view.messages(3) == said(101, 103)


class Sleeper:
    """Sources that find nothing before `go_on`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = trio.Event()
        run = DockerSource.run

        async def sleeps(source: DockerSource, *arguments: Any, **options: Any) -> None:
            await self.go_on.wait()
            await run(source, *arguments, **options)

        monkeypatch.setattr(DockerSource, "run", sleeps)


@pytest.mark.parametrize("query", ["since=1h", "lines=10", "since=1h&follow=true", "websocket"])
async def test_who_asks_before_sources_have_found_anything_gets_what_was_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    """The socket is there first, and who waits for it asks at once."""
    sleeper = Sleeper(monkeypatch)
    async with rig(tmp_path, started=False) as r:
        say(r.container(), 1, 5)
        async with await trio.open_unix_socket(r.address.path) as stream:
            other, view = Socket(stream), Following(stream)
            if query == "websocket":
                await other.open("/v1/logs?since=1h")
            else:
                await stream.send_all(f"GET /v1/logs?{query} HTTP/1.0\r\n\r\n".encode())
                while await view.line() != b"\r":
                    pass
            await trio.sleep(0.2)
            sleeper.go_on.set()
            assert await (other.records if query == "websocket" else view.messages)(5) == said(1, 5)


async def test_a_source_that_does_not_start_holds_up_nobody_who_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Sleeper(monkeypatch)
    monkeypatch.setattr(daemon_module, "STARTED_WITHIN_S", 0.1)
    async with rig(tmp_path, started=False) as r:
        with trio.fail_after(4):
            assert await r.lines("since=1h") == []


async def test_since_0_is_the_beginning(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        say(r.container(), 1, 3)
        await r.read(3)
        assert await r.messages("since=0") == said(1, 3)
        assert await r.messages("until=0") == []


async def test_several_containers_are_in_the_order_of_time(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        names = ["a", "b", "c"]
        containers = [r.container(name) for name in names]
        for number in range(30):
            containers[number % 3].write(f"{number}\n".encode())
        await r.read(30)
        found = await r.lines("since=1h")
        assert [line["message"] for line in found] == [str(number) for number in range(30)]
        assert [line["container"]["name"] for line in found] == names * 10


async def test_parameters_are_conditions_of_a_match(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        web, api = r.container("web"), r.container("api")
        web.write(b"all is well\n")
        web.write(b"it failed\n", stream="stderr")
        api.write(b"it failed too\n")
        await r.read(3)
        assert await r.messages("level=>=error") == []  # of which nobody can tell counts as `info`
        assert len(await r.messages("level=info")) == 3
        assert await r.messages("fields.status=>=500") == []
        assert sorted(await r.messages("message=*failed*")) == ["it failed", "it failed too"]
        assert await r.messages("message=*failed*&container=web") == ["it failed"]
        assert await r.messages("stream=stderr") == ["it failed"]
        assert await r.messages("match=container+~+api+and+message+~+*failed*") == ["it failed too"]
        assert len(await r.messages("container=web&container=api")) == 3


async def test_a_route_is_seen_as_its_sink_is_given_it(tmp_path: Path) -> None:
    add = {"type": "add_fields", "fields": {"team": "pay"}}
    async with rig(tmp_path, match={"container": "web"}, processors=[add]) as r:
        web, api = r.container("web"), r.container("api")
        say(web, 1, 2)
        say(api, 1, 2)
        await r.read(2)  # of what no route takes nothing that was before is read
        found = [(x["container"]["name"], x["fields"]) for x in await r.lines("route=all")]
        assert found == [("web", {"team": "pay"})] * 2
        async with following(r, "route=all") as view:
            say(api, 3, 3)
            say(web, 3, 3)
            line = await view.next()
            assert (line["message"], line["fields"]) == ("line 3", {"team": "pay"})
            assert line["container"]["name"] == "web"


async def test_levels_and_fields_are_those_that_processors_have_found(tmp_path: Path) -> None:
    before = [{"type": "json"}]
    async with rig(tmp_path, before=before) as r:
        web = r.container()
        for level, status in (("info", 200), ("warn", 404), ("error", 500)):
            web.write(b'{"msg":"%d","level":"%s","status":%d}\n' % (status, level.encode(), status))
        await r.read(3)
        assert await r.messages("level=>=warn") == ["404", "500"]
        assert await r.messages("fields.status=>=500") == ["500"]
        assert await r.messages("fields.status=200&fields.status=404") == ["200", "404"]
        assert await r.messages("level=>=warn&fields.status=<500") == ["404"]
        async with following(r, "lines=0&level=error") as view:
            web.write(b'{"msg":"fine","level":"info"}\n{"msg":"broken","level":"error"}\n')
            line = await view.next()
            assert (line["message"], line["log"]) == ("broken", {"level": "error"})


async def test_what_becomes_of_containers_is_told(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, following(r, "events=true") as view:
        web = r.container()
        assert (await view.next())["event"] == "started"
        web.exit()
        line = await view.next()
        assert (line["event"], line["container"]["name"]) == ("ended", "web")
        web.start()
        assert (await view.next())["event"] == "started"
        web.rename("site")
        line = await view.next()
        assert (line["event"], line["container"]["name"]) == ("renamed", "site")


async def test_events_have_the_ids_of_records_and_go_on_behind_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as r:
        web = r.container()
        say(web, 1, 3)
        await r.read(3)
        answer = await r.client.get("/v1/logs?lines=3", headers={"accept": "text/event-stream"})
        assert answer.headers["content-type"] == "text/event-stream"
        events = [event for event in answer.text.split("\n\n") if event and not event.startswith(":")]
        ids = [event.split("\n")[0].removeprefix("id: ") for event in events]
        records = [msgspec.json.decode(event.split("\n")[1].removeprefix("data: ")) for event in events]
        assert [record["message"] for record in records] == said(1, 3)
        assert ids == [record["event"]["id"] for record in records]
        accept = "text/event-stream"
        monkeypatch.setattr(logs_module, "RESUME_S", 0.0)
        again = await r.client.get("/v1/logs", headers={"accept": accept, "last-event-id": ids[1]})
        assert [word for word in said(1, 3) if word in again.text] == said(2, 3)
        monkeypatch.undo()
        again = await r.client.get("/v1/logs", headers={"accept": accept, "last-event-id": ids[1]})
        assert [word for word in said(1, 3) if word in again.text] == said(1, 3)  # a second before that one
        strange = {"accept": "text/event-stream", "last-event-id": "x-o2026-02-30T00:00:00.000000000Z"}
        assert (await r.client.get("/v1/logs?lines=1", headers=strange)).text.count("data: ") == 1


async def test_accept_chooses_between_events_and_lines_and_refuses_nobody(tmp_path: Path) -> None:
    """RFC 9110, 12.5.1: types and weights. Who takes neither is given lines."""
    lines, events = "application/x-ndjson", "text/event-stream"
    async with rig(tmp_path) as r:
        for accept, kind in (
            ("Text/Event-Stream", events),
            ("text/event-stream, */*", events),
            ("application/x-ndjson, text/event-stream;q=0.5", lines),
            ("application/x-ndjson;q=0.5, text/event-stream; charset=utf-8; q=0.6", events),
            ("text/event-stream;q=0", lines),
            ("text/event-stream;q=0.2, */*", lines),
            ("text/event-stream;q=many", lines),
            ("text/html", lines),
            ("application/json;q=0", lines),
            ("", lines),
        ):
            answer = await r.client.get("/v1/logs?lines=1", headers={"accept": accept})
            assert (answer.status_code, answer.headers["content-type"]) == (200, kind), accept


@pytest.mark.parametrize("since", ["1969-07-20", "0001-01-01", "800000h"])
async def test_what_was_before_all_times_begins_at_the_beginning(tmp_path: Path, since: str) -> None:
    async with rig(tmp_path) as r:
        say(r.container(), 1, 3)
        await r.read(3)
        assert await r.messages(f"since={since}") == said(1, 3)


async def test_who_reads_slowly_is_told_what_went_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views_module, "HELD_BYTES", 20_000)
    async with rig(tmp_path) as r:
        web = r.container()
        asked = b"GET /v1/logs?follow=true HTTP/1.1\r\nhost: localhost\r\n\r\n"
        stream = await trio.open_unix_socket(str(tmp_path / "l.sock"))
        async with stream:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await stream.send_all(asked)
            await until(lambda: len(r.daemon.router.views) == 1)
            written = 0
            view = r.daemon.router.views._all[0]
            while not view._skipped:
                for _ in range(100):
                    web.write(b"x" * 1000 + b"\n")
                written += 100
                await r.read(written)
            assert view._held_bytes <= 20_000
            received = b""
            with trio.fail_after(20):
                while b'{"skipped":' not in received:
                    received += await stream.receive_some(65536)
        await until(lambda: not r.daemon.router.views)


def test_events_of_other_kinds_have_names_and_no_ids() -> None:
    """Who goes on by the last id goes on behind the last record."""
    web = Origin("docker:web", "docker", id="w" * 64, name="web")
    items = [Skipped(3), News("ended", web), Unread(web, "its disk hides s3cret")]
    text = logs_module.encoded(items, events=True, hide=lambda said: said.replace("s3cret", "***")).decode()
    told = [event.split("\n") for event in text.removesuffix("\n\n").split("\n\n")]
    assert [name for name, _ in told] == ["event: skipped", "event: container", "event: unread"]
    said_ = [msgspec.json.decode(data.removeprefix("data: ")) for _, data in told]
    assert said_[0] == {"skipped": 3}
    assert (said_[1]["event"], said_[1]["container"]["name"]) == ("ended", "web")
    assert (said_[2]["unread"], said_[2]["container"]["name"]) == ("its disk hides ***", "web")


async def test_many_lines_are_sent_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line at a time twelve thousand are sent in a second, a hundred at a time a million."""
    sent: list[int] = []
    encoded = logs_module.encoded

    def counted(*arguments: Any, **options: Any) -> bytes:
        text = encoded(*arguments, **options)
        sent.append(text.count(b"\n"))
        return text

    monkeypatch.setattr(logs_module, "encoded", counted)
    async with rig(tmp_path) as r:
        web = r.container()
        web.write_many([f"line {number}".encode() for number in range(1, 5001)])
        await r.read(5000)
        assert await r.messages("lines=5000") == said(1, 5000)
        assert sum(sent) == 5000
        assert len(sent) <= 50
        sent.clear()
        async with following(r, "lines=0") as view:
            web.write_many([f"line {number}".encode() for number in range(5001, 6001)])
            assert await view.messages(1000) == said(5001, 6000)
        assert len(sent) <= 50


async def test_nobody_who_looks_holds_up_the_end(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with rig(tmp_path) as r:
            web = r.container()
            streams = [await trio.open_unix_socket(str(tmp_path / "l.sock")) for _ in range(10)]
            for stream in streams:
                await stream.send_all(b"GET /v1/logs?follow=true HTTP/1.1\r\nhost: localhost\r\n\r\n")
            await until(lambda: len(r.daemon.router.views) == 10)
            for _ in range(2000):
                web.write(b"x" * 1000 + b"\n")
            await r.read(2000)
        for stream in streams:
            await stream.aclose()


@asynccontextmanager
async def half_closed(rig: Rig, query: str, kind: str) -> AsyncIterator[trio.SocketStream]:
    """Somebody who has asked, and says that nothing more will be asked."""
    stream: trio.SocketStream
    if kind == "unix":
        stream = await trio.open_unix_socket(rig.address.path)
    else:
        stream = await trio.open_tcp_stream(rig.address.host, rig.address.port)
    async with stream:
        await stream.send_all(f"GET /v1/logs?{query} HTTP/1.0\r\nhost: localhost\r\n\r\n".encode())
        await stream.send_eof()
        yield stream


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_who_has_shut_down_its_sending_half_is_answered_until_it_is_gone(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `nc -N` does. Over TCP that looks as if it were gone: only what is sent shows whether it is."""
    monkeypatch.setattr(logs_module, "PROBES_S", (0.05, 0.05, 0.05))
    async with rig(tmp_path, tcp=kind == "tcp") as r:
        web = r.container()
        views = r.daemon.router.views
        async with half_closed(r, "follow=true&lines=0", kind) as stream:
            await until(lambda: len(views) > 0)
            await trio.sleep(0.3)
            assert len(views) == 1
            say(web, 1, 3)
            view = Following(stream)
            while await view.line() != b"\r":
                pass
            assert await view.messages(3) == said(1, 3)
        await until(lambda: len(views) == 0)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_readers_that_come_and_go_leave_their_places_to_others(tmp_path: Path, kind: str) -> None:
    """On a quiet host nothing but probes tells that they are gone."""
    async with rig(tmp_path, tcp=kind == "tcp") as r:
        await r.lines("")  # the web server is there
        for _ in range(logs_module.VIEWS):
            async with half_closed(r, "follow=true&lines=0", kind) as stream:
                await stream.receive_some(1)
        gone = trio.current_time()
        await until(lambda: not r.daemon.router.views)
        assert trio.current_time() - gone < 0.9


async def test_what_does_not_follow_comes_whole_to_who_has_shut_down_its_sending_half(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        say(r.container(), 1, 2000)
        await r.read(2000)
        received = b""
        async with half_closed(r, "lines=2000", "unix") as stream:
            with trio.fail_after(20):
                async for data in stream:
                    received += data
    lines = received.partition(b"\r\n\r\n")[2].splitlines()
    assert [msgspec.json.decode(line)["message"] for line in lines] == said(1, 2000)


async def test_a_connection_that_is_to_be_closed_is_at_the_end(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        say(r.container(), 1, 2)
        await r.read(2)
        for request in (
            b"GET /v1/logs HTTP/1.0\r\nhost: localhost\r\n\r\n",
            b"GET /v1/logs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        ):
            async with await trio.open_unix_socket(str(tmp_path / "l.sock")) as stream:
                await stream.send_all(request)
                received = b""
                with trio.fail_after(10):
                    while data := await stream.receive_some(65536):
                        received += data
                assert b"line 2" in received


async def test_only_so_many_may_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_module, "VIEWS", 1)
    async with rig(tmp_path) as r:
        async with following(r, ""):
            answer = await r.client.get("/v1/logs?follow=true")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        await until(lambda: not r.daemon.router.views)
        assert await r.lines("lines=1") == []


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("since=2999-01-01", 400, "is in the future"),
        ("since=yesterday", 400, "10m"),
        ("since=15", 400, "15 of what? 15s, 15m or 15h"),
        ("since=20261123", 400, "such as 10m"),
        ("since=10m&since=20m", 400, "since is given twice"),
        ("follow=true&follow=false", 400, "follow is given twice"),
        ("since=9999-12-31T23:59:59-23:00", 400, "10m"),
        ("since=0001-01-01T00:00:00%2B23:00", 400, "10m"),
        ("lines=-1", 400, "whole number"),
        ("follow=perhaps", 400, "true or false"),
        ("fields.status=%3E%3Dx", 400, "fields.status"),
        ("message=/(/", 400, "message"),
        ("levle=warn", 400, "levle"),
        ("match=level+%3E%3D", 400, "match"),
        ("since=10m&until=20m", 400, "before since"),
        ("route=nothing", 404, "there are: all"),
    ],
)
async def test_what_makes_no_sense_is_a_problem(tmp_path: Path, query: str, status: int, words: str) -> None:
    async with rig(tmp_path) as r:
        answer = await r.client.get(f"/v1/logs?{query}")
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert words in answer.json()["detail"]


async def test_a_log_that_cannot_be_read_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        say(r.container("web"), 1, 2)
        bad = r.container("bad")
        say(bad, 1, 2)
        await r.read(4)
        assert bad.log_path is not None
        bad.log_path.unlink()
        found = await r.lines("lines=10")
        assert [line["message"] for line in found[:-1]] == said(1, 2)
        assert found[-1]["container"]["name"] == "bad"
        assert "not there" in found[-1]["unread"]


class Socket:
    """A WebSocket's other end."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._protocol = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)

    async def open(self, target: str, *, host: str = "localhost", **headers: str) -> Any:
        extra = [(name.encode(), value.encode()) for name, value in headers.items()]
        asked = wsproto.events.Request(host=host, target=target, extra_headers=extra)
        await self._stream.send_all(self._protocol.send(asked))
        return await self.next()

    async def next(self) -> Any:
        with trio.fail_after(20):
            while True:
                for event in self._protocol.events():
                    return event
                self._protocol.receive_data(await self._stream.receive_some(65536) or None)

    async def records(self, count: int) -> list[str]:
        text = ""
        while text.count("\n") < count:
            event = await self.next()
            assert isinstance(event, wsproto.events.TextMessage)
            text += event.data
        return [msgspec.json.decode(line)["message"] for line in text.splitlines()]


async def test_a_websocket_gets_the_same(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        web = r.container()
        say(web, 1, 3)
        await r.read(3)
        async with await trio.open_unix_socket(r.address.path) as stream:
            other = Socket(stream)
            accepted = await other.open("/v1/logs?follow=true&lines=2")
            assert isinstance(accepted, wsproto.events.AcceptConnection)
            assert await other.records(2) == said(2, 3)
            say(web, 4, 4)
            assert await other.records(1) == said(4, 4)
        await until(lambda: not r.daemon.router.views)


async def test_pages_of_other_sites_open_no_websocket(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        for target, headers in (("/v1/logs", {"origin": "https://evil.example"}), ("/v1/stats", {})):
            async with await trio.open_unix_socket(r.address.path) as stream:
                refused = await Socket(stream).open(target, **headers)
                assert isinstance(refused, wsproto.events.RejectConnection)
                assert refused.status_code == 403
        async with await trio.open_unix_socket(r.address.path) as stream:
            other = Socket(stream)
            await other.open("/v1/logs?lines=x", origin="http://localhost")
            problem = await other.next()
            assert "whole number" in problem.data


async def test_a_name_that_leads_here_though_it_is_somebody_elses_opens_no_websocket(tmp_path: Path) -> None:
    """DNS rebinding: Origin and Host agree, and both are the stranger's."""
    async with rig(tmp_path, tcp=True) as r:
        for host, opened in (("evil.example:1", False), (f"localhost:{r.address.port}", True)):
            async with await trio.open_tcp_stream(r.address.host, r.address.port) as stream:
                answer = await Socket(stream).open("/v1/logs", host=host, origin=f"http://{host}")
                assert isinstance(answer, wsproto.events.AcceptConnection) == opened
                assert opened or answer.status_code == 403
