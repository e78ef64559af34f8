"""`logroute tail`: what it shows, of a simulated engine, with a daemon and without one."""

from __future__ import annotations

import array
import fcntl
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from logroute.api.address import Address
from logroute.api.server import ApiServer
from logroute.cli.screen import Screen, Style, cells, fitted
from logroute.cli.tail_batches import Context, Order
from logroute.cli.tail_sources import Apart, Decoder
from logroute.config.components import SINKS, SOURCES
from logroute.router.daemon import Daemon
from logroute.router.match import Match
from logroute.router.plan import Plan, RoutePlan, SourcePlan
from logroute.router.position import BEGINNING
from logroute.router.record import Batch, DetailedRecord, Origin, Record
from logroute.router.route import RouteSettings
from logroute.router.selection import Chooser
from logroute.router.views import News, Skipped
from logroute.simulator.engine import SimulatedEngine
from logroute.sinks.encoding import encoder
from logroute.sources import SourceContext
from tests.servers.rsyslog import free_port

MAIN = "import sys; sys.argv[0] = 'logroute'; from logroute.cli import main; main()"


@pytest.fixture(autouse=True)
def nothing_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGROUTE_API", "LOGROUTE_TOKEN_FILE", "DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)


def origin(name: str = "web", **more: Any) -> Origin:
    return Origin(f"docker:{name}", "docker", id=name * 10, name=name, **more)


def batch_of(of: Origin, *records: Record) -> Batch:
    return Batch(of, list(records), before=BEGINNING, after=BEGINNING, size_bytes=100)


def record(message: str, second: int = 0, stream: Any = "stdout") -> Record:
    return Record(message, stream, f"2026-11-23T20:06:{second:02d}.123456789Z")


def shown(style: Style, *batches: Batch, levels: bool = False) -> str:
    return Screen(style, levels=levels).render(batches).decode()


# --- what it looks like -------------------------------------------------------------------------------


def test_into_a_pipe_a_line_is_its_name_and_its_bytes() -> None:
    batches = batch_of(origin(), record("hello\x1b[2J\x07")), batch_of(origin("database"), record("there\r"))
    assert shown(Style(), *batches) == "web | hello\x1b[2J\x07\ndatabase | there\n"


def test_lines_of_a_terminal_that_are_one_record_are_shown_without_their_carriage_returns() -> None:
    batch = batch_of(origin(), record("panic: no\r\n\tcard\rs\r"))
    assert shown(Style(), batch) == "web | panic: no\n      \tcard\rs\n"
    assert "000d" not in shown(Style(terminal=True), batch_of(origin(), record("panic: no\r\n\r\n")))


def test_names_are_aligned_to_the_widest_that_is_known() -> None:
    screen = Screen(Style())
    web, database = origin(), origin("database")
    screen.names([web, database])
    assert screen.render([batch_of(web, record("x"))]) == b"web      | x\n"


def test_names_are_whole_in_a_pipe_and_keep_their_ends_on_a_terminal() -> None:
    names = [f"mycompany-production-checkout-worker-{number}" for number in (1, 2)]
    batches = [batch_of(origin(name), record('{"msg":"x\\ny"}')) for name in names]
    piped = shown(Style(), *batches).splitlines()
    assert piped[::2] == [f"{name} | x" for name in names]
    assert piped[1] == " " * len(f"{names[0]} | ") + "y"
    seen = shown(Style(terminal=True), *batches).splitlines()
    assert [line.partition(" ")[0][-9:] for line in seen[::2]] == ["-worker-1", "-worker-2"]
    assert max(map(len, seen)) < 40


def test_json_is_level_message_and_keys() -> None:
    line = '{"level":"warn","msg":"slow query","took_ms":12.5,"user":{"id":7},"note":"two words"}'
    expected = 'web | WARN  slow query took_ms=12.5 user="{\\"id\\":7}" note="two words"\n'
    assert shown(Style(), batch_of(origin(), record(line))) == expected


@pytest.mark.parametrize("levels", [False, True])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"level":"error","msg":"E1"}', "ERROR E1"),
        ('{"a":1}', "a=1"),
        ('{"level":30,"a":1,"time":"2026-11-23T20:06:00Z"}', "INFO  a=1"),
        ('{"msg":"ERROR boom","a":1}', "ERROR boom a=1"),
        ("ERROR plain", "ERROR plain"),
    ],
)
def test_json_is_so_whatever_it_says_beside_or_leaves_out(line: str, expected: str, *, levels: bool) -> None:
    assert shown(Style(), batch_of(origin(), record(line)), levels=levels) == f"web | {expected}\n"


def test_a_level_that_a_daemon_has_found_is_shown_where_the_text_does_not_say_it() -> None:
    taken, said = (
        DetailedRecord(text, "stdout", "2026-11-23T20:06:26.123456789Z") for text in ("E1", "ERR x")
    )
    taken.level = said.level = "error"
    assert shown(Style(), batch_of(origin(), taken, said)) == "web | ERROR E1\nweb | ERR x\n"


def test_what_a_daemon_has_parsed_is_shown_as_it_is() -> None:
    parsed = DetailedRecord("slow query", "stdout", "2026-11-23T20:06:26.123456789Z")
    parsed.level, parsed.fields = "error", {"took": 3}
    assert shown(Style(), batch_of(origin(), parsed)) == "web | ERROR slow query took=3\n"


def test_a_record_is_not_changed_by_being_shown() -> None:
    given = record('{"msg":"x","a":1}')
    shown(Style(), batch_of(origin(), given))
    assert given.message == '{"msg":"x","a":1}'


def test_times_are_in_the_zone_that_was_asked_for() -> None:
    batch = batch_of(origin(), record("x"))
    assert shown(Style(times=True), batch).startswith("2026-11-23T20:06:00.123Z web")
    zone = timezone(timedelta(hours=1))
    assert shown(Style(times=True, zone=zone), batch).startswith("2026-11-23T21:06:00.123+01:00 web")


def test_a_container_has_the_same_colour_every_time_and_others_mostly_another() -> None:
    style = Style(colour=True, terminal=True)

    def colour(name: str) -> str:
        found = re.match(r"\x1b\[38;5;(\d+)m", shown(style, batch_of(origin(name), record("x"))))
        assert found is not None
        return found[1]

    assert colour("web-1") == colour("web-1")
    assert len({colour(f"web-{number}") for number in range(20)}) > 8


def test_a_highlight_marks_what_it_finds_and_nothing_else() -> None:
    style = Style(colour=True, highlight=re.compile("b+"))
    assert "a\x1b[1;7mbb\x1b[22;27mc" in shown(style, batch_of(origin(), record("abbc")))
    assert "abbc" in shown(Style(highlight=re.compile("b+")), batch_of(origin(), record("abbc")))


SGR = re.compile(r"\x1b\[[0-9;:]{0,40}m")


@given(st.text(), st.text(), st.booleans())
def test_no_line_and_no_name_controls_a_terminal(message: str, name: str, colour: bool) -> None:
    style = Style(terminal=True, colour=colour)
    text = shown(style, batch_of(origin(name or "x"), record(message)), levels=True)
    left = SGR.sub("", text) if colour else text
    assert re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", left) is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m\x1b[0m"),
        ("\x1b[31mred", "\x1b[31mred\x1b[0m"),
        ("\x1b[8mhidden", "\\u001b[8mhidden"),
        ("\x1b[0;8mhidden", "\\u001b[0;8mhidden"),
        ("\x1b[1;08;31mhidden", "\\u001b[1;08;31mhidden"),
        ("\x1b[38;8mhidden", "\\u001b[38;8mhidden"),
        ("\x1b[38;5;1;8mhidden", "\\u001b[38;5;1;8mhidden"),
        ("\x1b[38;5;8;1mgrey", "\x1b[38;5;8;1mgrey\x1b[0m"),
        ("\x1b[01;48;2;8;8;8mgrey", "\x1b[01;48;2;8;8;8mgrey\x1b[0m"),
        ("\x1b[38:2::8:8:8mgrey", "\x1b[38:2::8:8:8mgrey\x1b[0m"),
        ("\x1b[mplain", "\x1b[mplain\x1b[0m"),
        ("\x1b[2Jgone", "\\u001b[2Jgone"),
        ("\x1b]0;title\x07", "\\u001b]0;title\\u0007"),
    ],
)
def test_of_what_a_line_has_only_colours_stay_and_are_ended(line: str, expected: str) -> None:
    text = shown(Style(terminal=True, colour=True), batch_of(origin(), record(line)))
    assert text.endswith(expected + "\n")


@pytest.mark.parametrize("style", [Style(), Style(terminal=True), Style(terminal=True, colour=True)])
@pytest.mark.parametrize("line", ['{"msg":"x\\napi | FAKE"}', '{"msg":"x","a\\napi | FAKE":1}'])
def test_what_a_record_continues_with_never_begins_a_line(style: Style, line: str) -> None:
    _, second = SGR.sub("", shown(style, batch_of(origin(), record(line)))).splitlines()
    assert second.startswith("      api | FAKE")
    timed = msgspec.structs.replace(style, times=True)
    _, second = SGR.sub("", shown(timed, batch_of(origin(), record(line)))).splitlines()
    assert second.index("api | FAKE") == len("2026-11-23T20:06:00.123Z web | ")


def test_neither_does_it_in_a_template() -> None:
    style = Style(format="{container.name} {message}\n-- {level|none}")
    text = shown(style, batch_of(origin(), record("x\napi FAKE")))
    assert text == "web x\n    api FAKE\n-- none\n"


@pytest.mark.parametrize("format_", ["default", "raw", "{message}"])
def test_colours_that_were_asked_for_in_a_pipe_are_guarded_as_on_a_terminal(format_: str) -> None:
    style = Style(colour=True, format=format_)
    text = shown(style, batch_of(origin(), record("\x1b[31mred\x1b[2J")))
    assert "\x1b[2J" not in text
    assert format_ != "default" or text.endswith("\x1b[31mred\\u001b[2J\x1b[0m\n")


def test_a_highlight_is_not_looked_for_in_colours() -> None:
    style = Style(colour=True, terminal=True, highlight=re.compile("31"))
    text = shown(style, batch_of(origin(), record("\x1b[31m31")))
    assert text.endswith("\x1b[31m\x1b[1;7m31\x1b[22;27m\x1b[0m\n")


def test_wide_and_combining_characters_take_their_columns() -> None:
    assert [cells("abc"), cells("日本"), cells("e\u0301")] == [3, 4, 1]
    assert fitted("日本語", 5) == "日…語"
    assert fitted("日本語", 4) == "日… "
    assert fitted("shop-worker-1", 8) == "shop…r-1"
    assert fitted("ab", 4) == "ab  "


@pytest.mark.parametrize("format_", ["json", "raw", "logfmt", "{time} {container.name} {message}"])
def test_other_formats_are_those_of_sinks(format_: str) -> None:
    batch = batch_of(origin(), record("x"))
    assert Screen(Style(format=format_)).render([batch]) == encoder(format_)(batch)


# --- context and order --------------------------------------------------------------------------------


def messages(batches: list[Batch]) -> list[str]:
    return [record.message for batch in batches for record in batch.records]


def test_context_is_of_each_container_and_across_batches() -> None:
    chosen = Chooser(Match.parse({"message": "*x*"}))
    context = Context(chosen, 1, 2)
    web, api = origin(), origin("api")
    first = context.of([batch_of(web, record("a"), record("b")), batch_of(api, record("A"))])
    second = context.of([batch_of(web, record("x"), record("c")), batch_of(api, record("B"))])
    third = context.of([batch_of(web, record("d"), record("e"))])
    assert [messages(each) for each in (first, second, third)] == [[], ["b", "x", "c"], ["d"]]


async def test_what_comes_within_the_window_is_merged_by_time(autojump_clock: trio.testing.MockClock) -> None:
    order = Order(0.25)
    web, api = origin(), origin("api")
    order.put([batch_of(web, record("1", 1), record("4", 4))])
    await trio.sleep(0.1)
    order.put([batch_of(api, record("2", 2), record("5", 5))])
    assert order.take() == []
    assert order.next_s() == pytest.approx(0.15)
    await trio.sleep(0.15)
    assert messages(order.take()) == ["1", "2", "4"]
    await trio.sleep(0.1)
    assert messages(order.take()) == ["5"]
    order.put([batch_of(web, record("6", 6))])
    assert messages(order.take(all=True)) == ["6"]
    assert order.next_s() is None


# --- what comes from the API --------------------------------------------------------------------------


@given(st.lists(st.integers(1, 60)))
def test_lines_of_the_api_are_read_however_they_are_cut(cuts: list[int]) -> None:
    image = {"name": "nginx", "tag": "1"}
    data = encoder("json")(batch_of(origin(), record("a"), record("b")))
    data += encoder("json")(batch_of(origin("api"), record("c", stream="stderr")))
    data += b'{"skipped":3}\n{"event":"ended","container":{"id":"1","name":"api"}}\n'
    data += msgspec.json.encode({"unread": "gone", "container": {"name": "db", "image": image}}) + b"\n"
    decoder = Decoder()
    items: list[Any] = []
    at = 0
    for cut in [*cuts, len(data)]:
        items += decoder.feed(data[at : at + cut])
        at += cut
    batches = [item for item in items if isinstance(item, Batch)]
    found = [(b.origin.name, r.message, r.stream) for b in batches for r in b.records]
    assert found == [("web", "a", "stdout"), ("web", "b", "stdout"), ("api", "c", "stderr")]
    skipped, news, unread = [item for item in items if not isinstance(item, Batch)]
    assert skipped == Skipped(3)
    assert isinstance(news, News)
    assert (news.event, news.origin.name) == ("ended", "api")
    assert (unread.reason, unread.origin.name) == ("gone", "db")


def test_a_record_of_the_api_keeps_its_id() -> None:
    data = encoder("json")(batch_of(origin(), record("a")))
    (batch,) = Decoder().feed(data)
    assert isinstance(batch, Batch)
    assert msgspec.json.decode(encoder("json")(batch))["event"] == msgspec.json.decode(data)["event"]


def test_json_of_the_api_passes_as_it_is_without_what_is_no_record() -> None:
    data = encoder("json")(batch_of(origin(), record('b\n{"skipped"'), record("c")))
    first, second = data.splitlines(keepends=True)
    apart = Apart()
    lines, said = apart.feed(first + b'{"skipped":2}\n' + second[:10])
    assert (lines, said) == (first, [Skipped(2)])
    assert apart.feed(second[10:]) == (second, [])


# --- the command --------------------------------------------------------------------------------------


class Engine:
    """An engine with two containers, and maybe a daemon that reads it."""

    def __init__(self, engine: SimulatedEngine, api: str) -> None:
        self.engine = engine
        self.api = api
        self.web, self.db = engine.create("web"), engine.create("db")
        for container in (self.web, self.db):
            container.start()

    async def tail(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        with trio.fail_after(30):
            return await trio.run_process(
                [sys.executable, "-c", MAIN, "tail", *self.where, *arguments],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )

    @property
    def where(self) -> tuple[str, str]:
        return ("--api", self.api) if self.api else ("--host", self.engine.host)


@asynccontextmanager
async def an_engine(folder: Path, *, daemon: bool, token: str = "") -> AsyncIterator[Engine]:
    """With a token the daemon is asked over TCP."""
    async with SimulatedEngine(folder / "engine", seed=1) as engine:
        if not daemon:
            yield Engine(engine, "")
            return
        address = Address(path=str(folder / "l.sock"))
        if token:
            address = Address(host="127.0.0.1", port=free_port(socket.SOCK_STREAM))
        source = SOURCES.options("docker").model_validate({"host": engine.host})
        plan = Plan(
            [
                RoutePlan(
                    RouteSettings("all"), partial(SINKS.create, SINKS.options("null").model_validate({}))
                )
            ],
            [SourcePlan("docker", partial(SOURCES.create, source, SourceContext("docker")))],
            grace_s=0.1,
            make_api=lambda daemon: ApiServer(daemon, address, token=token),
        )
        running = Daemon(plan)
        async with trio.open_nursery() as nursery:
            await nursery.start(running.run)
            try:
                yield Engine(engine, str(address))
            finally:
                running.stop()


BOTH = pytest.mark.parametrize("daemon", [False, True], ids=["without", "with"])


@BOTH
async def test_what_was_said_is_shown_in_order_and_it_ends(tmp_path: Path, daemon: bool) -> None:
    async with an_engine(tmp_path, daemon=daemon) as e:
        for number in range(3):
            e.web.write(f"web {number}\n".encode())
            e.db.write(f"db {number}\n".encode())
        ended = await e.tail("-F")
        assert ended.stdout.decode().splitlines() == [
            line for n in range(3) for line in (f"web | web {n}", f"db  | db {n}")
        ]
        assert (ended.returncode, ended.stderr) == (0, b"")
        only = await e.tail("-F", "-n", "1", "w*", "-o", "raw")
        assert only.stdout == b"web 2\n"


@BOTH
async def test_a_name_that_no_container_has_is_said(tmp_path: Path, daemon: bool) -> None:
    async with an_engine(tmp_path, daemon=daemon) as e:
        e.web.write(b"hello\n")
        ended = await e.tail("-F", "wep")
        assert (ended.returncode, ended.stdout) == (1, b"")
        assert ended.stderr == b"logroute tail: no container matches wep; did you mean web?\n"
        ended = await e.tail("-F", "no*", "we*")
        assert (ended.returncode, ended.stdout) == (0, b"web | hello\n")
        assert ended.stderr == b"logroute tail: no container matches no*\n"
        said = await e.tail("-F", "db", e.web.id[:12])
        assert (said.returncode, said.stderr) == (0, b"")
        command = [sys.executable, "-c", MAIN, "tail", *e.where, "later"]
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                process = await nursery.start(
                    partial(
                        trio.run_process, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False
                    )
                )
                async with process.stderr, process.stdout:
                    said = b""
                    while not said.endswith(b"\n"):
                        said += await process.stderr.receive_some()
                    assert said == b"* no container matches later yet\n"
                    later = e.engine.create("later")
                    later.start()
                    later.write(b"here\n")
                    assert (await process.stdout.receive_some()).startswith(b"later | here")
                    # Also where nobody looks at a terminal: whoever keeps stderr wants to know, too.
                    later.exit()
                    while b"- later ended\n" not in said:
                        said += await process.stderr.receive_some()
                    assert b"+ later started\n" in said
                process.terminate()


@BOTH
async def test_options_choose(tmp_path: Path, daemon: bool) -> None:
    async with an_engine(tmp_path, daemon=daemon) as e:
        e.web.write(b'{"level":"info","msg":"fine","status":200}\n')
        e.web.write(b'{"level":"error","msg":"broken","status":500}\n')
        e.web.write(b"ERROR plain\n", stream="stderr")
        e.db.write(b"nothing\n")

        async def raw(*arguments: str) -> list[str]:
            ended = await e.tail("-F", "-o", "raw", *arguments)
            assert ended.stderr == b""
            return ended.stdout.decode().splitlines()

        plain = ["ERROR plain"]
        assert await raw("--stream", "stderr") == plain
        assert await raw("-i", "plain|nothing", "-e", "noth") == plain
        assert len(await raw("-l", "error")) == 2
        assert await raw("-i", "nothing", "-B", "1", "db") == ["nothing"]
        assert (await raw("-i", "plain", "-B", "1", "web"))[1:] == plain


@BOTH
async def test_a_record_looks_the_same_whatever_it_was_chosen_by(tmp_path: Path, daemon: bool) -> None:
    async with an_engine(tmp_path, daemon=daemon) as e:
        e.web.write(b'{"level":"error","msg":"ERR broken","status":500}\n')
        e.web.write(b'{"msg":"WARN fine","loglevel":"x"}\n')
        forms = [
            [],
            ["-o", "raw"],
            ["-o", "json"],
            ["-o", "logfmt"],
            ["--template", "{level} {message} {fields.status}"],
        ]
        seen = []
        for form in forms[: 2 if daemon else None]:
            plain = (await e.tail("-F", *form)).stdout
            seen.append(plain)
            assert (await e.tail("-F", "-l", "warn", *form)).stdout == plain
        first = seen[0].splitlines(keepends=True)[0]
        assert (await e.tail("-F", "-i", '"level"')).stdout == first
        assert (await e.tail("-F", "-m", 'message=/"level"/')).stdout == first
        assert seen[0] == b"web | ERROR ERR broken status=500\nweb | WARN fine loglevel=x\n"
        assert seen[1].startswith(b'{"level":"error","msg":"ERR broken","status":500}\n')
        if not daemon:
            some = (await e.tail("-F", "-m", "fields.status=>=500", "-i", '"level"')).stdout
            assert some == first
            assert rb'"message":"{\"level\":\"error\",\"msg\":\"ERR broken\"' in seen[2]
            assert seen[4] == b"error ERR broken 500\nwarn WARN fine unknown\n"


@BOTH
async def test_it_begins_and_ends_at_times(tmp_path: Path, daemon: bool) -> None:
    async with an_engine(tmp_path, daemon=daemon) as e:
        began = (time.time_ns() - 3600 * 10**9) // 10**9 * 10**9
        for minute in range(5):
            e.web.write(f"web {minute}\n".encode(), time_ns=began + minute * 60 * 10**9)
            e.db.write(f"db {minute}\n".encode(), time_ns=began + (minute * 60 + 30) * 10**9)

        def at(second: int) -> str:
            return datetime.fromtimestamp(began // 10**9 + second, UTC).isoformat().replace("+00:00", "Z")

        async def raw(*arguments: str) -> str:
            ended = await e.tail("-o", "raw", *arguments)
            assert (ended.returncode, ended.stderr) == (0, b"")
            return ended.stdout.decode().replace("\n", ",")

        assert await raw("--since", at(60), "--until", at(140)) == "web 1,db 1,web 2,"
        assert await raw("--since", at(170), "-F", "db") == "db 3,db 4,"
        assert await raw("--until", at(45)) == "web 0,db 0,"
        assert await raw("--since", "3450s", "--until", "3390s", "web") == "web 3,"
        assert await raw("-F", "--since", "1s") == ""


@BOTH
async def test_containers_are_chosen_by_image_and_label(tmp_path: Path, daemon: bool) -> None:
    async with an_engine(tmp_path, daemon=daemon) as e:
        shop = e.engine.create("shop", image="registry/shop:2", labels={"team": "pay", "a": "b"})
        other = e.engine.create("other", image="shop:2", labels={"team": "ops"})
        for each in (shop, other):
            each.start()
            each.write(f"{each.name}\n".encode())

        async def raw(*arguments: str) -> bytes:
            return (await e.tail("-F", "-o", "raw", *arguments)).stdout

        assert await raw("--image", "*shop:2") == b"shop\nother\n"
        assert await raw("--image", "registry/*") == b"shop\n"
        assert await raw("--label", "team") == b"shop\nother\n"
        assert await raw("--label", "team=ops") == b"other\n"
        assert await raw("--label", "team=pay", "--label", "a=c") == b""
        assert await raw("--image", "*shop:2", "--label", "team=pay", "--stream", "stderr") == b""


async def test_a_route_is_shown_as_its_sink_is_given_it(tmp_path: Path) -> None:
    async with an_engine(tmp_path, daemon=True) as e:
        e.web.write(b"hello\n")
        shown = await e.tail("-F", "--route", "all")
        assert (shown.returncode, shown.stdout) == (0, b"web | hello\n")
        refused = await e.tail("-F", "--route", "nosuch")
        assert (refused.returncode, refused.stdout) == (1, b"")
        assert refused.stderr == b"logroute tail: there is no route nosuch; there are: all\n"


async def test_over_tcp_the_daemon_is_asked_with_the_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    async with an_engine(tmp_path, daemon=True, token="s3cret") as e:
        e.web.write(b"hello\n")
        refused = await e.tail("-F")
        assert (refused.returncode, refused.stdout) == (1, b"")
        assert b"needs the token" in refused.stderr
        assert b"--token-file" in refused.stderr
        token.write_text("another")
        assert (await e.tail("-F", "--token-file", str(token))).returncode == 1
        token.write_text("s3cret\n")
        shown = await e.tail("-F", "--token-file", str(token))
        assert (shown.returncode, shown.stdout, shown.stderr) == (0, b"web | hello\n", b"")
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", MAIN, "tail", *e.where, "--token-file", str(token), "-n", "0"],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        seen = b""
        with trio.fail_after(30):
            while not seen:
                e.web.write(b"live\n")
                with trio.move_on_after(0.2):
                    seen = bytes(await process.stdout.receive_some())
        process.terminate()
        await process.wait()
        assert seen.startswith(b"web | live\n")


async def test_an_engine_of_another_host_is_read_over_tcp(tmp_path: Path) -> None:
    """Where its log files are not to be had."""
    async with an_engine(tmp_path, daemon=False) as e, trio.open_nursery() as nursery:

        async def forward(client: trio.SocketStream) -> None:
            async def copy(source: trio.SocketStream, target: trio.SocketStream) -> None:
                with suppress(trio.BrokenResourceError):
                    async for data in source:
                        await target.send_all(data)
                    await target.send_eof()

            engine = await trio.open_unix_socket(e.engine.host.removeprefix("unix://"))
            async with engine, trio.open_nursery() as both:
                both.start_soon(copy, client, engine)
                both.start_soon(copy, engine, client)

        (listener,) = await nursery.start(partial(trio.serve_tcp, forward, 0, host="127.0.0.1"))
        host = f"tcp://127.0.0.1:{listener.socket.getsockname()[1]}"
        e.web.write_many([f"line {number}".encode() for number in range(300)])
        e.db.write(b"other\n", stream="stderr")
        command = [sys.executable, "-c", MAIN, "tail", "--host", host, "web"]
        with trio.fail_after(30):
            ended = await trio.run_process([*command, "-F", "-n", "2"], capture_stdout=True)
            assert ended.stdout == b"web | line 298\nweb | line 299\n"
            process = await trio.lowlevel.open_process([*command, "-n", "1"], stdout=subprocess.PIPE)
            assert process.stdout is not None
            seen = bytes(await process.stdout.receive_some())
            e.web.write(b"live\n")
            while b"live" not in seen:
                seen += await process.stdout.receive_some()
            process.terminate()
            await process.wait()
        assert seen == b"web | line 299\nweb | live\n"
        nursery.cancel_scope.cancel()


async def test_what_goes_wrong_is_said_of_the_containers_that_were_asked_for(tmp_path: Path) -> None:
    async with an_engine(tmp_path, daemon=False) as e:
        e.web.write(b"hello\n")
        e.engine.create("plugin", log_driver="splunk").start()
        ended = await e.tail("-F", "web")
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"web | hello\n", b"")
        ended = await e.tail("-F", "plugin")
        lines = ended.stderr.decode().splitlines()
        assert lines
        assert all(line.startswith("* plugin") and "configuration" not in line for line in lines)


async def interrupted(process: subprocess.Popen[bytes]) -> int:
    """As ctrl-C does; with which code it ends."""
    process.send_signal(signal.SIGINT)
    with trio.fail_after(20):
        return await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)


async def test_it_follows_and_tells_what_becomes_of_containers(tmp_path: Path) -> None:
    async with an_engine(tmp_path, daemon=False) as e:
        command = [sys.executable, "-c", MAIN, "tail", *e.where, "-n", "5"]
        master, slave = pty.openpty()
        environment = {**os.environ, "TERM": "xterm-256color"}
        environment.pop("NO_COLOR", None)
        process = subprocess.Popen(  # noqa: ASYNC220  # it is the terminal that is waited for
            command, stdout=slave, stderr=slave, stdin=slave, env=environment
        )
        os.close(slave)
        seen = b""

        async def until(holds: Callable[[bytes], bool]) -> None:
            nonlocal seen
            with trio.fail_after(90):
                while not holds(seen):
                    await trio.lowlevel.wait_readable(master)
                    seen += os.read(master, 65536)

        try:
            await until(lambda seen: b"what the engine" in seen)
            while b"hello \x1b[31mred" not in seen:
                e.web.write(b"hello \x1b[31mred\x1b[2J\n")
                with trio.move_on_after(0.2):
                    await until(lambda seen: b"hello" in seen)
            e.db.exit()
            await until(lambda seen: b"- db ended" in seen)
            e.db.start()
            await until(lambda seen: b"+ db started" in seen)
            assert b"\x1b[2J" not in seen
            assert b"\\u001b[2J" in seen
            assert await interrupted(process) == 130
        finally:
            process.kill()
            process.wait()
            os.close(master)


def on_a_terminal(*command: str, **environment: str) -> bytes:
    """What it writes to a terminal, stderr too, until it ends."""
    master, slave = pty.openpty()
    known = {**os.environ, "TERM": "xterm-256color"}
    known.pop("NO_COLOR", None)
    process = subprocess.Popen(command, stdout=slave, stderr=slave, stdin=slave, env={**known, **environment})
    os.close(slave)
    seen = b""
    try:
        with suppress(OSError):  # nobody writes to it any more
            while data := os.read(master, 65536):
                seen += data
    finally:
        process.kill()
        process.wait()
        os.close(master)
    return seen


@pytest.mark.parametrize(
    ("environment", "option", "coloured"),
    [
        ({}, (), True),
        ({"NO_COLOR": ""}, (), True),  # no-color.org: when it is not empty
        ({"NO_COLOR": "1"}, (), False),
        ({"NO_COLOR": "1"}, ("--color", "always"), True),
        ({"TERM": "dumb"}, (), False),
        ({}, ("--color", "never"), False),
    ],
)
async def test_who_wants_no_colours_gets_none_of_lines_nor_of_what_is_said_beside(
    tmp_path: Path, environment: dict[str, str], option: tuple[str, ...], coloured: bool
) -> None:
    async with an_engine(tmp_path, daemon=False) as e:
        e.web.write(b'\x1b[31mred\n{"level":"error","msg":"bad","a":1}\n', stream="stderr")
        command = [sys.executable, "-c", MAIN, "tail", *e.where, "-F", *option]
        with trio.fail_after(60):
            seen = await trio.to_thread.run_sync(
                partial(on_a_terminal, *command, **environment), abandon_on_cancel=True
            )
        assert b"* " in seen  # where it looks
        assert b"red" in seen
        assert (b"\x1b" in seen) == coloured, seen


IN_A_CALLBACK = """
import os, signal, weakref
import logroute.cli.tail as tail

class Seen:
    pass

def interrupt(_):
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(100):
        pass

async def show(self, items, show=tail._Tail.show):
    if items:
        seen = Seen()
        seen_no_more = weakref.ref(seen, interrupt)
        del seen
    await show(self, items)

tail._Tail.show = show
"""


@BOTH
async def test_an_interrupt_ends_it_also_where_python_would_raise_it_and_nobody_would_hear(
    tmp_path: Path, daemon: bool
) -> None:
    async with an_engine(tmp_path, daemon=daemon) as e:
        e.web.write(b"hello\n")
        command = [sys.executable, "-c", f"{IN_A_CALLBACK}{MAIN}", "tail", *e.where]
        with trio.fail_after(30):
            ended = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        assert (ended.returncode, ended.stderr) == (130, b"")


@pytest.mark.parametrize(
    "order",
    [[], ["--order", "100ms"], ["-F", "--order", "30s"]],
    ids=["", "merged", "the-rest"],
)
async def test_an_interrupt_ends_it_where_the_terminal_takes_nothing(
    tmp_path: Path, order: list[str]
) -> None:
    async with an_engine(tmp_path, daemon=False) as e:
        for _ in range(2000):
            e.web.write(b"a line of this length, so often that no terminal takes them all at once\n")
        reader, writer = os.pipe()
        command = [sys.executable, "-c", MAIN, "tail", *e.where, "-n", "2000", *order]
        process = subprocess.Popen(command, stdout=writer)  # noqa: ASYNC220  # only its end is waited for
        os.close(writer)
        try:
            with trio.fail_after(60):
                while _held(reader) < 60_000:  # noqa: ASYNC110  # a process of its own fills it
                    await trio.sleep(0.05)
            assert await interrupted(process) == 130
        finally:
            process.kill()
            process.wait()
            os.close(reader)


def _held(pipe: int) -> int:
    """Bytes in a pipe."""
    size = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, size)
    return size[0]


@BOTH
async def test_what_becomes_of_containers_is_told_where_stderr_is_no_terminal_either(
    tmp_path: Path, daemon: bool
) -> None:
    async with an_engine(tmp_path, daemon=daemon) as e, trio.open_nursery() as nursery:
        command = [sys.executable, "-c", MAIN, "tail", *e.where, "-n", "0"]
        process = await nursery.start(
            partial(trio.run_process, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        )
        with trio.fail_after(30):
            async with process.stderr, process.stdout:
                seen = b""
                while not seen:
                    e.web.write(b"hello\n")
                    with trio.move_on_after(0.2):
                        seen = await process.stdout.receive_some()
                e.db.exit()
                told = b""
                while not told.endswith(b"\n"):
                    told += await process.stderr.receive_some()
                process.send_signal(signal.SIGINT)
                await process.wait()
        assert told == b"- db ended\n"


async def test_it_says_in_a_few_words_that_the_daemon_has_ended(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        async with an_engine(tmp_path, daemon=True) as e:
            command = [sys.executable, "-c", MAIN, "tail", *e.where]
            process = await nursery.start(
                partial(
                    trio.run_process, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False
                )
            )
            e.web.write(b"hello\n")
            with trio.fail_after(30):
                assert await process.stdout.receive_some() == b"web | hello\n"
        with trio.fail_after(30):
            async with process.stderr, process.stdout:
                said = b"".join([part async for part in process.stderr])
    assert said == f"logroute tail: the daemon at {e.api} has ended\n".encode()
    assert process.returncode == 1


async def test_a_reader_that_has_enough_ends_it_quietly(tmp_path: Path) -> None:
    async with an_engine(tmp_path, daemon=False) as e:
        e.web.write_many([f"line {number}".encode() for number in range(20_000)])
        command = f'{sys.executable} -c "{MAIN}" tail --host {e.engine.host} -n 20000 | head -1'
        with trio.fail_after(30):
            ended = await trio.run_process(
                ["bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}}"],
                capture_stdout=True,
                capture_stderr=True,
            )
        assert ended.stdout == b"web | line 0\n0\n"
        assert ended.stderr == b""


@BOTH
async def test_it_notices_that_its_reader_is_gone_while_nothing_is_said(tmp_path: Path, daemon: bool) -> None:
    async with an_engine(tmp_path, daemon=daemon) as e:
        e.web.write(b"the last word\n")
        command = f'{sys.executable} -c "{MAIN}" tail {" ".join(e.where)} | head -1'
        with trio.fail_after(30):
            ended = await trio.run_process(
                ["bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}}"],
                capture_stdout=True,
                capture_stderr=True,
            )
        assert (ended.stdout, ended.stderr) == (b"web | the last word\n0\n", b"")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-l", "grave"], b"there is no level 'grave'"),
        (["--since", "yesterday"], b"--since: 'yesterday' is no time"),
        (["--since", "2999-01-01"], b"in the future"),
        (["--since", "9999-12-31T23:59:59-23:00"], b"is no time"),
        (["-i", "("], b"'(' is no regular expression"),
        (["-m", "levl=warn"], b'did you mean "level"?'),
        (["-o", "xml"], b"there is no format 'xml'"),
        (["--template", "message"], b"no placeholder"),
        (["--timezone", "Mars"], b"there is no zone 'Mars'"),
        (["--until", "1m", "-f"], b"leave out --follow"),
        (["--since", "5m", "--until", "10m"], b"is before --since"),
        (["--host", "unix:///x", "--route", "y"], b"leave out --route"),
        (["--host", "foo:bar"], b"'foo:bar' (from --host) is no host and port"),
        (["--api", "foo bar"], b"'foo bar' is no address of an API"),
        (["--token-file", "nosuch"], b"cannot read nosuch: "),
    ],
)
def test_what_makes_no_sense_is_said(arguments: list[str], words: bytes) -> None:
    ended = subprocess.run([sys.executable, "-c", MAIN, "tail", *arguments], capture_output=True, timeout=30)
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert words in ended.stderr


def test_an_address_in_the_environment_that_is_none_is_said(tmp_path: Path) -> None:
    nowhere = {**os.environ, "RUNTIME_DIRECTORY": str(tmp_path)}
    for name, words in (
        ("DOCKER_HOST", b"(from $DOCKER_HOST) is no host"),
        ("LOGROUTE_API", b"is no address"),
    ):
        ended = subprocess.run(
            [sys.executable, "-c", MAIN, "tail"],
            capture_output=True,
            timeout=30,
            env={**nowhere, name: "foo:bar"},
        )
        assert (ended.returncode, ended.stdout) == (2, b"")
        assert words in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("where", "words"),
    [(">/dev/full", "cannot write to standard output: No space left"), (">&-", "standard output is closed")],
)
async def test_an_output_that_takes_nothing_is_said(tmp_path: Path, where: str, words: str) -> None:
    async with an_engine(tmp_path, daemon=False) as e:
        e.web.write(b"hello\n")
        with trio.fail_after(30):
            ended = await trio.run_process(
                ["sh", "-c", f'{sys.executable} -c "{MAIN}" tail --host {e.engine.host} {where}'],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        assert ended.returncode == 1
        assert ended.stderr.decode().startswith(f"logroute tail: {words}")
        assert len(ended.stderr.splitlines()) == 1


def test_where_nobody_answers_it_ends(tmp_path: Path) -> None:
    for where in (["--host", f"unix://{tmp_path}/none"], ["--api", f"unix://{tmp_path}/none"]):
        ended = subprocess.run([sys.executable, "-c", MAIN, "tail", *where], capture_output=True, timeout=30)
        assert (ended.returncode, ended.stdout) == (1, b"")
        assert b"No such file" in ended.stderr
