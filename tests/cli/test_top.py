"""`logroute top`: rates, what stands on screens of any size, and the real thing on a pseudo-terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from rich.cells import cell_len
from rich.text import Text

from logroute.api.books import DaemonFacts, Queued, RouteBooks, SourceBooks, Stats, Store
from logroute.api.letters import Page
from logroute.api.top import TalkerBooks, Top
from logroute.cli import top, top_words
from logroute.cli.top_detail import Details, detail_lines
from logroute.cli.top_rates import Look, Picture, picture_of
from logroute.cli.top_terminal import Terminal, keys_of
from logroute.cli.top_view import ORDERS, Chosen, help_screen, in_order, plain, screen
from logroute.router.database import StateError
from logroute.router.dead_letters import StoredLetter
from tests.api.running import until
from tests.api.test_containers import Rig, read, rig, route

MAIN = "import sys; sys.argv[0] = 'logroute'; from logroute.cli import main; main()"
EVIL = "bad\x1b[2J\nname\x9b31m日本語\u202e"


def at(second: float) -> str:
    return f"2026-11-26T12:00:{second:012.9f}Z"


def books(**more: Any) -> RouteBooks:
    known: dict[str, Any] = dict.fromkeys(
        ("received", "delivered", "duplicates", "rejected", "in_flight", "retried", "unconfirmed"), 0
    )
    known |= {"dropped": {}, "queued": Queued(Store(0, 0), Store(0, 0)), "delivered_bytes": 0}
    known |= {"dead_letters": 0, "dead_letters_dropped": 0, "lag_seconds": 0.0, "up": True, "since": at(0)}
    return RouteBooks(**(known | more))


def look(
    second: float,
    routes: dict[str, RouteBooks],
    *,
    read: int = 0,
    unmatched: int = 0,
    pid: int = 1,
    began: float = 0,
    talkers: dict[str, int] | None = None,
) -> Look:
    facts = DaemonFacts("1.2.3", pid, "", at(began))
    stats = Stats(at(second), facts, routes, {"docker": SourceBooks(read, read * 100)}, unmatched, {})
    said = [TalkerBooks(name, "docker", n, n * 100, name * 12) for name, n in (talkers or {}).items()]
    return Look(stats, Top(at(second), said))


def texts(lines: list[Text]) -> list[str]:
    return [line.plain.rstrip() for line in lines]


DOWN = books(
    received=100_000,
    queued=Queued(Store(800, 1 << 20), Store(99_200, 3 << 30)),
    lag_seconds=4000.0,
    up=False,
    reason="http://search:9200: " + "cannot connect, nobody there " * 9 + "the end",
)


def busy(routes: int = 3, talkers: int = 12) -> Picture:
    said = {f"container-{number}": 100 * number for number in range(talkers)}
    names = [f"route-{number}" for number in range(routes)]
    before = look(10, {name: books(received=100, delivered=100) for name in names}, read=1000)
    now = {name: books(received=1_234_667, delivered=300, dropped={"full": 7}) for name in names}
    return picture_of(before, look(12, {**now, "search": DOWN}, read=5000, talkers=said))


# --- rates --------------------------------------------------------------------------------------------


def test_a_rate_is_the_difference_by_the_clock_of_the_daemon() -> None:
    before = look(10, {"a": books(received=10, delivered=5, duplicates=1, delivered_bytes=50)}, unmatched=3)
    now = look(
        12.5,
        {"a": books(received=110, delivered=45, duplicates=11, delivered_bytes=550, retried=5)},
        unmatched=8,
        read=250,
    )
    picture = picture_of(before, now)
    rates = picture.routes["a"].rates
    assert picture.seconds == 2.5
    assert (rates.received, rates.delivered, rates.delivered_bytes, rates.retried) == (40, 20, 200, 2)
    assert (picture.unmatched_rate, picture.sources["docker"].records) == (2, 100)


def test_where_there_is_nothing_to_compare_with_no_rate_is_claimed() -> None:
    first = picture_of(None, look(1, {"a": books(received=9)}))
    assert first.routes["a"].rates.received is None
    assert first.total("received") is None
    later = picture_of(look(1, {"a": books()}), look(2, {"a": books(received=9), "new": books(received=9)}))
    assert later.routes["a"].rates.received == 9
    assert later.routes["new"].rates.received is None


@pytest.mark.parametrize("other", [{"pid": 2}, {"began": 1.5}])
def test_a_daemon_that_was_started_anew_is_not_compared_with_the_one_before(other: dict[str, Any]) -> None:
    picture = picture_of(look(1, {"a": books(received=1)}), look(2, {"a": books(received=5)}, **other))
    assert picture.routes["a"].rates.received is None
    assert picture.seconds is None


@pytest.mark.parametrize("second", [1.0, 0.5, 1.001])
def test_a_clock_that_was_set_back_or_stands_makes_no_rate(second: float) -> None:
    picture = picture_of(look(1, {"a": books()}), look(second, {"a": books(received=5)}))
    assert picture.routes["a"].rates.received is None


def test_the_noisiest_is_who_says_most_now_and_one_that_began_anew_counts_from_there() -> None:
    before = look(1, {}, talkers={"once": 10_000, "anew": 500, "now": 10})
    now = look(2, {}, talkers={"once": 10_000, "anew": 20, "now": 60, "unknown": 5})
    containers = picture_of(before, now).containers
    rates = [(each.books.name, each.rates.records) for each in containers]
    assert rates == [("now", 50), ("anew", 20), ("once", 0), ("unknown", None)]


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0"), (9999, "9999"), (10_000, "10.0k"), (99_960, "100k"), (999_999, "1.0M"), (10**16, "10000T")],
)
def test_numbers_are_short(number: int, said: str) -> None:
    assert top_words.count(number) == said


@pytest.mark.parametrize(("seconds", "said"), [(0, "0"), (0.31, "0.3s"), (75, "75s"), (150, "2m"),
                                               (7200, "2h"), (400_000, "5d"), (1e9, ">999d")])  # fmt: skip
def test_ages_are_short(seconds: float, said: str) -> None:
    assert top_words.age(seconds) == said


@pytest.mark.parametrize(("size", "said"), [(None, "-"), (999, "999B"), (1000, "1.0K"), (1 << 20, "1.0M"),
                                            (1023 << 20, "1.0G"), (500 << 30, "500G")])  # fmt: skip
def test_sizes_are_short(size: float | None, said: str) -> None:
    assert top_words.size(size) == said


@pytest.mark.parametrize(
    ("rate", "said"), [(None, "-"), (0.0, "0"), (0.01, "<0.1"), (9.94, "9.9"), (12345.6, "12.3k")]
)
def test_rates_are_short(rate: float | None, said: str) -> None:
    assert top_words.rate(rate) == said


# --- screens ------------------------------------------------------------------------------------------


def test_at_80_by_24_the_numbers_the_reason_and_the_noisiest_stand_there() -> None:
    lines = texts(screen(busy(), Chosen(route="route-1"), 80, 24))
    assert lines[0].startswith("logroute 1.2.3  pid 1  up 12s  12:00:12 UTC  4 routes, 1 not well")
    assert lines[1].startswith("read 2000/s 195K/s  in 1.9M/s  delivered 300/s")
    assert lines[3].split() == [
        "ROUTE",
        "STATE",
        "IN/s",
        "OUT/s",
        "QUEUE",
        "SPOOL",
        "FLIGHT",
        "LAG",
        "RETRY",
        "REJ",
        "DROP",
        "DEAD",
    ]
    assert lines[5].split() == [">", "route-1", "up", "617k", "100", "0", "0", "0", "0", "0", "0", "7", "0"]
    assert lines[7].split() == ["search", "down", "-", "-", "800", "99.2k", "0", "67m", "-", "0", "0", "0"]
    assert lines[8].startswith("    for 12s: http://search:9200: cannot connect")
    assert lines[8].endswith("…")
    assert lines[10].split() == ["NOISIEST", "REC/s", "BYTES/s", "RECORDS", "BYTES", "ID"]
    assert lines[11].split()[0] == "container-0"
    assert lines[-1] == "q quit  ↑↓ select  ⏎ detail  p pause  r resume  s sort: configured  ? help"


def test_at_40_by_10_what_matters_most_is_left() -> None:
    lines = texts(screen(busy(1), Chosen(route="search"), 40, 10))
    assert len(lines) == 10
    assert lines[1].split() == ["ROUTE", "STATE", "IN/s", "OUT/s", "QUEUE", "LAG"] or "LAG" in lines[1]
    assert any(line.startswith("> search") and "down" in line for line in lines)
    assert "q ↑↓ ⏎ p r" in lines[-1]


@pytest.mark.parametrize("width", [1, 2, 7, 20, 40, 79, 80, 81, 160, 400])
@pytest.mark.parametrize("height", [1, 2, 3, 5, 10, 24, 60])
def test_every_size_is_filled_exactly_and_nothing_is_wider(width: int, height: int) -> None:
    names = {EVIL: DOWN, "wide 日本語日本語日本語": books(), "": books(), "x" * 300: DOWN}
    before, now = (look(n, names, talkers={EVIL: n, "b" * 200: n * 2}) for n in (1, 2))
    picture = picture_of(before, now)
    for chosen in (Chosen(route=EVIL), Chosen(), Chosen(message=EVIL, order="lag"), Chosen(trouble=EVIL)):
        lines = screen(picture, chosen, width, height)
        assert len(lines) == height
        assert max(line.cell_len for line in lines) <= width
    assert len(help_screen(Chosen(), width, height, 3)) == height
    for line in detail_lines(picture, EVIL, Details(EVIL), width):
        assert line.cell_len <= max(width, 20)


def test_no_name_and_no_reason_controls_the_terminal() -> None:
    route_ = books(up=False, reason=EVIL, hindrance=EVIL + "!", last_error=EVIL + "?", failed=at(1))
    picture = picture_of(None, look(2, {EVIL: route_}, talkers={EVIL: 5}))
    letter = StoredLetter(1, EVIL, at(1), EVIL, at(1), "stdout", EVIL, 1)
    details = Details(EVIL, Page([letter]), settings={"match": {"container": EVIL}, "sink": EVIL})
    lines = screen(picture, Chosen(route=EVIL, message=EVIL), 300, 30)
    lines += detail_lines(picture, EVIL, details, 200)
    everything = "".join(line.plain for line in lines) + "".join(plain(picture, 300))
    assert "\\u001b[2J" in everything
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202e]", everything)


def test_the_route_that_is_selected_is_on_the_screen_however_many_there_are() -> None:
    picture = busy(routes=200)
    for name in ("route-0", "route-99", "route-199", "search"):
        lines = texts(screen(picture, Chosen(route=name), 80, 24))
        assert any(line.startswith(f"> {name} ") for line in lines), name


def test_routes_are_sorted_by_what_was_chosen() -> None:
    now = {"b": books(delivered=5), "a": books(delivered=50, lag_seconds=3), "c": DOWN}
    picture = picture_of(look(1, {name: books() for name in now}), look(2, now))
    found = {order: "".join(in_order(picture, order)) for order in ORDERS}
    assert found == {"configured": "bac", "out": "abc", "lag": "cab", "waiting": "cab", "name": "abc"}


def test_the_last_error_of_a_route_that_is_well_again_stands_there_for_a_while() -> None:
    def lines_after(began: float, now: str) -> str:
        stats = look(began, {"a": books(last_error="no room", failed=at(1))}).stats
        at_ = Look(Stats(now, stats.daemon, stats.routes, stats.sources, 0, {}), Top(now, []))
        return "\n".join(texts(screen(picture_of(None, at_), Chosen(), 80, 24)))

    assert "5s ago: no room" in lines_after(1, at(6))
    assert "no room" not in lines_after(1, "2026-11-26T13:00:00.000000000Z")


def test_the_page_of_a_route_has_its_reason_in_full_its_match_and_its_dead_letters() -> None:
    letter = StoredLetter(17, "api-1", at(1), "mapper_parsing_exception", at(1), "stdout", "hello", 5)
    details = Details("search", Page([letter]), settings={"match": {"level": ">=info"}, "sink": "null:"})
    page = "\n".join(texts(detail_lines(busy(), "search", details, 60)))
    assert "the end" in page
    for part in ('{"level":">=info"}', "null:", "mapper_parsing_exception", "> hello", "99200", "3.0 GiB"):
        assert part in page
    assert "not there any more" in texts(detail_lines(busy(), "gone", details, 60))[0]


def test_the_page_of_a_route_has_what_its_sink_has_counted() -> None:
    cuts = books(sink={"connections": 1, "truncated": 3, "chunks": 0})
    picture = picture_of(None, look(1, {"cuts": cuts, "all": books()}))
    pages = ["\n".join(texts(detail_lines(picture, name, Details(name), 60))) for name in ("cuts", "all")]
    assert "connections 1  truncated 3" in pages[0]
    assert "chunks" not in pages[0]
    assert "sink  " not in pages[1]


def test_paused_is_a_state_of_its_own() -> None:
    assert top_words.state(books(up=False, reason="paused by hand", paused=True)) == "paused"
    assert top_words.state(books(up=False, reason="paused, says the receiver")) == "down"
    assert top_words.state(books(hindrance="cannot store")) == "held"
    assert top_words.state(books(behind=True)) == "behind"


# --- the terminal -------------------------------------------------------------------------------------


def test_only_rows_that_changed_are_sent() -> None:
    terminal = Terminal(0, 1)
    lines = [Text("one"), Text("two"), Text("three")]
    everything = terminal.changes(lines, (20, 3))
    assert [word in everything for word in (b"one", b"two", b"three")] == [True] * 3
    assert terminal.changes(lines, (20, 3)) == b""
    assert terminal.changes([lines[0], Text("2"), lines[2]], (20, 3)) == b"\x1b[2;1H2\x1b[K"
    assert b"three" in terminal.changes(lines, (21, 3))
    terminal.forget()
    assert b"one" in terminal.changes(lines, (21, 3))


def test_a_full_row_is_not_erased_in_its_last_column() -> None:
    assert not Terminal(0, 1).changes([Text("x" * 20)], (20, 1)).endswith(b"\x1b[K")


def test_without_colours_none_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = Terminal(0, 1).changes(screen(busy(), Chosen(route="route-1"), 80, 24), (80, 24))
    monkeypatch.setenv("NO_COLOR", "1")
    without = Terminal(0, 1).changes(screen(busy(), Chosen(route="route-1"), 80, 24), (80, 24))
    colours = re.compile(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|9[0-7])[0-9;]*m")
    assert colours.search(coloured)
    assert not colours.search(without)
    assert b"\x1b[7m" in without  # the one that is selected can still be told


@pytest.mark.parametrize(
    ("data", "keys", "rest"),
    [
        (b"jq", ["j", "q"], b""),
        (b"\x1b[A\x1bOB\r", ["up", "down", "enter"], b""),
        (b"\x1b", [], b"\x1b"),
        (b"\x1b[", [], b"\x1b["),
        (b"\x1b[5~k", ["page up", "k"], b""),
        (b"\x1b[1;5Cq", ["q"], b""),  # what nobody knows does nothing
        (b"\x1bq", ["escape", "q"], b""),
        (b"\xff\x00", ["\xff", "\x00"], b""),
    ],
)
def test_keys_are_told_from_what_terminals_send(data: bytes, keys: list[str], rest: bytes) -> None:
    assert keys_of(data) == (keys, rest)


# --- the real thing -----------------------------------------------------------------------------------


class Shown:
    """A terminal of some size with `logroute top` on it: what stands there, and keys for it."""

    def __init__(self, address: str, width: int, height: int, **environment: str) -> None:
        self._master, slave = pty.openpty()
        self.resize(width, height)
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        known = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path)}
        known.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", MAIN, "top", "--every", "500ms", "--api", address],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**known, **environment},
        )
        self.sent = b""

    def resize(self, width: int, height: int) -> None:
        self._height = height
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    async def until(self, holds: Callable[[str], bool]) -> str:
        """Until the screen is so."""
        with trio.move_on_after(30) as waiting:
            while not holds(self.screen):
                await trio.lowlevel.wait_readable(self._master)
                self.sent += os.read(self._master, 65536)
        assert not waiting.cancelled_caught, self.screen
        return self.screen

    async def ended(self) -> int:
        with trio.fail_after(30):
            while self.process.poll() is None:
                with trio.move_on_after(0.05):
                    await trio.lowlevel.wait_readable(self._master)
                    self.sent += os.read(self._master, 65536)
        with trio.move_on_after(0.2):
            while True:
                await trio.lowlevel.wait_readable(self._master)
                self.sent += os.read(self._master, 65536)
        return self.process.returncode

    @property
    def screen(self) -> str:
        """What is painted: rows, erasing, nothing else."""
        rows = [""] * 100
        for part in re.split(r"(?=\x1b\[\d+;1H|\x1b\[2J)", self.sent.decode("utf-8", "replace")):
            if part.startswith("\x1b[2J"):
                rows = [""] * 100
            elif place := re.match(r"\x1b\[(\d+);1H", part):
                rows[int(place[1]) - 1] = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", part)
        return "\n".join(rows[: self._height])

    def is_restored(self) -> bool:
        shown = self.sent.rindex(b"\x1b[?1049l") > self.sent.rindex(b"\x1b[?1049h")
        return shown and b"\x1b[?25h" in self.sent and termios.tcgetattr(self._slave) == self.before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)


@asynccontextmanager
async def shown(rig: Rig, width: int = 80, height: int = 24, **environment: str) -> AsyncIterator[Shown]:
    terminal = Shown(str(rig.address), width, height, **environment)
    try:
        yield terminal
    finally:
        terminal.close()


def routes() -> list[Any]:
    return [
        route("everything"),
        route("nowhere", sink="http", url="http://127.0.0.1:9/", encoding="ndjson"),
    ]


async def test_on_a_terminal_keys_select_open_explain_and_quit(tmp_path: Path) -> None:
    async with rig(tmp_path, *routes()) as r:
        web = r.engine.create("web-1")
        web.start()
        web.write(b"hello\n" * 100)
        await read(r, 100)
        await until(lambda: not r.daemon.router.routes["nowhere"].statistics().up)
        async with shown(r) as terminal:
            first = await terminal.until(lambda screen: "NOISIEST" in screen and "web-1" in screen)
            assert "> everything" in first
            assert "Connection refused" in first
            web.write(b"hello\n" * 50)
            await terminal.until(lambda screen: " 150 " in screen)
            terminal.press(b"j")
            await terminal.until(lambda screen: "> nowhere" in screen)
            terminal.press(b"\r")
            page = await terminal.until(lambda screen: "Route nowhere" in screen and "dead letters" in screen)
            assert "reason" in page
            terminal.press(b"\x1b")
            await terminal.until(lambda screen: "> nowhere" in screen)
            terminal.press(b"ss")
            await terminal.until(lambda screen: "sort: lag" in screen)
            terminal.press(b"?")
            await terminal.until(lambda screen: "Ctrl-L" in screen)
            terminal.press(b"\x1b[D")
            await terminal.until(lambda screen: "sort: lag" in screen)
            terminal.resize(40, 10)
            small = await terminal.until(lambda screen: "q ↑↓" in screen)
            assert max(map(cell_len, small.splitlines())) <= 40
            terminal.press(b"q")
            assert await terminal.ended() == 0
            assert terminal.is_restored()
            assert b"Traceback" not in terminal.sent


async def test_keys_pause_and_resume_and_a_refusal_is_said_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(name: str) -> None:
        raise StateError(f"no room for {name}")

    async with rig(tmp_path, *routes()) as r, shown(r) as terminal:

        def state(screen: str) -> str:
            return next((line.split()[2] for line in screen.splitlines() if "> everything" in line), "")

        await terminal.until(lambda screen: state(screen) == "up")
        terminal.press(b"p")
        await terminal.until(lambda screen: state(screen) == "paused" and "everything: paused" in screen)
        assert set(r.daemon.made.paused) == {"everything"}
        terminal.press(b"r")
        await terminal.until(lambda screen: state(screen) == "up" and "everything: resumed" in screen)
        assert not r.daemon.made.paused
        monkeypatch.setattr(r.daemon.made, "pause", refuse)
        terminal.press(b"p")
        await terminal.until(
            lambda screen: "cannot pause everything: " in screen and "no room for everything" in screen
        )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
async def test_a_signal_gives_the_terminal_back(tmp_path: Path, number: signal.Signals, code: int) -> None:
    async with rig(tmp_path) as r, shown(r, NO_COLOR="1") as terminal:
        await terminal.until(lambda screen: "> all" in screen)
        terminal.process.send_signal(number)
        assert await terminal.ended() == code
        assert terminal.is_restored()


async def test_it_goes_on_trying_when_the_daemon_is_gone_and_sees_that_it_was_started_anew(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as r:
        terminal = Shown(str(r.address), 80, 24)
        await terminal.until(lambda screen: "> all" in screen)
    try:
        await terminal.until(lambda screen: "GONE" in screen and "trying again" in screen)
        async with rig(tmp_path, folder="again") as r:
            back = await terminal.until(lambda screen: "GONE" not in screen and "started anew" in screen)
            assert "> all" in back
    finally:
        terminal.close()


# --- without a terminal -------------------------------------------------------------------------------


async def test_without_a_terminal_it_prints_one_table(tmp_path: Path) -> None:
    async with rig(tmp_path, *routes()) as r:
        r.engine.create("web-1").start()
        result = await r.run(top.command, "--every", "500ms")
    assert result.exit_code == 0, result.output
    assert result.output.count("ROUTE") == 1
    assert "everything" in result.output
    assert "\x1b" not in result.output
    table = result.output[result.output.index("logroute ") :]
    assert max(map(len, table.splitlines())) <= 80


async def test_json_has_rates_and_books_and_as_many_looks_as_were_asked_for(tmp_path: Path) -> None:
    async with rig(tmp_path, *routes()) as r:
        web = r.engine.create("web-1")
        web.start()
        web.write(b"hello\n" * 10)
        await read(r, 10)
        result = await r.run(top.command, "--every", "500ms", "-n", "2", "-o", "json")
    assert result.exit_code == 0, result.output
    looks = [json.loads(line) for line in result.output.splitlines()]
    assert len(looks) == 2
    for each in looks:
        assert each["routes"]["everything"]["rates"]["received"] == 0
        assert each["routes"]["everything"]["books"]["received"] == 10
        (container,) = each["containers"]
        assert (container["books"]["name"], container["books"]["records"]) == ("web-1", 10)
        assert container["books"]["bytes"] >= 60  # as it stands in the log


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--api", "unix:///nowhere/l.sock"], 1, "no daemon answers at unix:///nowhere/l.sock"),
        (["--api", "unix:///nowhere/l.sock"], 1, "start one with `logroute run`"),
        (["--api", "nonsense::"], 2, "nonsense"),
        (["--every", "10ms"], 2, "from 500ms to 1h, not 10ms"),
        (["--every", "soon"], 2, "soon"),
        (["-n", "0"], 2, "0"),
    ],
)
def test_what_cannot_be_is_said_in_words(arguments: list[str], code: int, said: str) -> None:
    from click.testing import CliRunner

    result = CliRunner().invoke(top.command, arguments)
    assert result.exit_code == code
    assert said in result.output
    assert "Traceback" not in result.output


def test_nothing_but_the_screen_imports_what_draws() -> None:
    code = (
        "import sys; from logroute.cli import main; main.get_command(None, 'top'); print(sys.modules['rich'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "None\n"


async def test_what_draws_is_there_when_it_is_needed(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        command = [sys.executable, "-c", MAIN, "top", "-n", "1", "--every", "500ms", "--api", str(r.address)]
        with trio.fail_after(30):
            ended = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"ROUTE" in ended.stdout
