"""Two routes and one file: which of them writes, who waits, and what is whose after kill -9."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from logroute.router.checkpoints import store_files
from logroute.router.database import transaction
from logroute.router.state_file import StateFile
from logroute.sinks import DELIVERED, FileLength, Retryable
from logroute.sinks.file import FileOptions, FileSink
from tests.sinks.test_file import Context, batch, files_in, hanging_writes, origin, read


class Routes:
    """Sinks of several routes; one that is asked for again goes on with what its route has stored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.contexts: dict[str, Context] = {}
        self.sinks: dict[str, FileSink] = {}

    def make(self, route: str, path: str, **options: Any) -> FileSink:
        before = self.contexts.get(route)
        context = self.contexts[route] = Context(before.stored if before else None)
        context.route, context.state_dir = route, str(self.folder / "state")
        options = {"path": str(self.folder / path), "format": "raw", **options}
        sink = self.sinks[route] = FileSink(FileOptions.model_validate(options), context)
        return sink

    async def opened(self, route: str, path: str, **options: Any) -> FileSink:
        sink = self.make(route, path, **options)
        await sink.open()
        return sink


@pytest.fixture
async def routes(tmp_path: Path) -> AsyncIterator[Routes]:
    routes = Routes(tmp_path)
    yield routes
    for sink in routes.sinks.values():
        await sink.close()


@pytest.mark.parametrize("how", ["the same", "a link", "a hard link", "a link to the folder", "a template"])
async def test_the_second_route_waits_until_the_first_is_gone(routes: Routes, how: str) -> None:
    folder = routes.folder
    first = await routes.opened("first", "web.log")
    assert await first.deliver([batch("1")]) == DELIVERED
    path = {"a link": "link.log", "a hard link": "hard.log", "a template": "{container.name}.log"}.get(how)
    if how == "a link":
        (folder / "link.log").symlink_to("web.log")
    elif how == "a hard link":
        os.link(folder / "web.log", folder / "hard.log")
    elif how == "a link to the folder":
        (folder / "also").symlink_to(folder)
        path = "also/web.log"
    second = routes.make("second", path or "web.log")
    for _ in range(2):
        if how == "a template":  # a fixed path says so before anything comes
            await second.open()
        with pytest.raises(Retryable) as caught:
            await (second.deliver([batch("2")]) if how == "a template" else second.open())
        assert 'route "first" writes to it' in str(caught.value)
        assert 'route "second" waits' in str(caught.value)
        assert await first.deliver([batch("1")]) == DELIVERED
    await first.close()
    await second.open()
    assert await second.deliver([batch("2")]) == DELIVERED
    assert read(folder / "web.log") == "1\n1\n1\n2\n"
    assert routes.contexts["first"].said == []
    assert all("foreign" not in words for words, _ in routes.contexts["second"].said)


async def test_a_route_that_waits_holds_up_nothing_of_the_first_through_its_rotation(routes: Routes) -> None:
    first = await routes.opened("first", "web.log", rotate={"size": 4})
    second = await routes.opened("second", "{container.name}.log", rotate={"size": 4})
    assert await first.deliver([batch("one")]) == DELIVERED
    for _ in range(3):
        with pytest.raises(Retryable, match='route "first" writes to it'):
            await second.deliver([batch("two")])
        await second.open()
        await first.open()  # as after a delivery that failed
        assert await first.deliver([batch("one")]) == DELIVERED
    assert set(files_in(routes.folder).values()) == {"one\n"}


async def test_a_delivery_that_nobody_heard_of_is_taken_back_before_another_route_goes_on(
    routes: Routes, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await routes.opened("first", "web.log")
    assert await first.deliver([batch("1")]) == DELIVERED
    with hanging_writes(monkeypatch) as goes_on:
        with trio.move_on_after(5) as scope:
            await first.deliver([batch("unheard")])
        assert scope.cancelled_caught
        goes_on.set()
        await first.close()
    second = await routes.opened("second", "web.log")
    assert await second.deliver([batch("2")]) == DELIVERED
    assert read(routes.folder / "web.log") == "1\n2\n"


async def test_a_route_whose_disk_hung_when_it_ended_has_no_file_once_the_disk_answers(
    routes: Routes, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for it any more then."""
    first = await routes.opened("first", "web.log")
    assert await first.deliver([batch("1")]) == DELIVERED
    with hanging_writes(monkeypatch) as goes_on:
        for ending in (partial(first.deliver, [batch("unheard")]), first.close):
            with trio.move_on_after(5) as scope:
                await ending()
            assert scope.cancelled_caught
        second = routes.make("second", "web.log")
        with pytest.raises(Retryable, match='route "first" writes to it'):
            await second.open()
        goes_on.set()
        await first.idle()  # behind what hung
    await second.open()
    assert await second.deliver([batch("2")]) == DELIVERED
    assert read(routes.folder / "web.log") == "1\n2\n"


async def test_two_routes_that_exchange_their_files_both_go_on(routes: Routes) -> None:
    """As a reload does it: what each has recorded of the other's file is over."""
    for route, path in (("a", "x.log"), ("b", "y.log")):
        assert await (await routes.opened(route, path)).deliver([batch(route)]) == DELIVERED
    for route, context in routes.contexts.items():
        await context.commit()
        if route == "a":
            await routes.sinks["a"].close()
    a = routes.make("a", "y.log")
    with pytest.raises(Retryable, match='route "b" writes to it'):
        await a.open()
    await routes.sinks["b"].close()
    b = await routes.opened("b", "x.log")
    await a.open()
    for turn in range(2):
        assert await a.deliver([batch(f"a{turn}")]) == DELIVERED
        assert await b.deliver([batch(f"b{turn}")]) == DELIVERED
        await routes.contexts["a"].commit()
        await a.open()
        await b.open()
    assert files_in(routes.folder) == {"x.log": "a\nb0\nb1\n", "y.log": "b\na0\na1\n"}


def store(folder: Path, route: str, files: dict[str, FileLength]) -> None:
    """What a daemon has stored of a route when it is killed."""
    state = StateFile(folder / "state" / "routes" / f"{route}.db", route, durable=False, clock=time.time)
    state.open()
    assert state.database is not None
    with transaction(state.database):
        store_files(state.database, files, {})
    state.database.close()


@pytest.mark.parametrize("order", ["ab", "ba"])
async def test_what_another_route_has_written_since_is_not_cut_after_kill_9(
    routes: Routes, order: str
) -> None:
    """Route a had the file, and then route b; a's old length is still in its state."""
    out = routes.folder / "x.log"
    for route in "ab":
        sink = await routes.opened(route, "x.log")
        assert await sink.deliver([batch(route)]) == DELIVERED
        await routes.contexts[route].commit()
        await sink.close()
    with out.open("a") as file:
        file.write("torn")
    (routes.folder / "state" / "routes").mkdir(parents=True)
    for route in "ab":
        store(routes.folder, route, routes.contexts[route].stored)
    for route in order:
        await routes.opened(route, "other.log" if route == "a" else "x.log")
    assert read(out) == "a\nb\n"
    assert "it is left to them" in routes.contexts["a"].words


async def test_a_longer_file_that_another_route_once_had_under_this_name_means_nothing(
    routes: Routes,
) -> None:
    out = routes.folder / "x.log"
    for route in "ab":
        sink = await routes.opened(route, "x.log")
        assert await sink.deliver([batch(route, route)]) == DELIVERED
        await routes.contexts[route].commit()
        await sink.close()
        if route == "a":
            out.rename(routes.folder / "x.old")
    with out.open("a") as file:
        file.write("torn")
    (routes.folder / "state" / "routes").mkdir(parents=True)
    [old] = routes.contexts["a"].stored.items()
    store(routes.folder, "a", {old[0]: msgspec.structs.replace(old[1], length=6)})
    await routes.opened("b", "x.log")
    assert read(out) == "b\nb\n"


async def test_who_falls_silent_lets_go_of_a_file_that_another_waits_for(
    routes: Routes, autojump_clock: trio.testing.MockClock
) -> None:
    first = await routes.opened("first", "{container.name}.log", rotate={"idle": "10m"})
    second = await routes.opened("second", "{label.file}.log")
    for_second = origin("other", file="web")
    assert await first.deliver([batch("1")]) == DELIVERED
    await routes.contexts["first"].commit()
    await first.idle()
    with pytest.raises(Retryable, match='route "first" writes to it'):
        await second.deliver([batch("2", of=for_second)])
    await first.idle()  # it has just written
    with pytest.raises(Retryable, match='route "first" writes to it'):
        await second.deliver([batch("2", of=for_second)])
    await trio.sleep(601)
    first.clock = lambda: os.stat(routes.folder / "web.log").st_mtime + 601
    await first.idle()
    assert await second.deliver([batch("2", of=for_second)]) == DELIVERED
    with pytest.raises(Retryable, match='route "second" writes to it'):
        await first.deliver([batch("3")])
    await second.close()
    await first.open()
    assert await first.deliver([batch("3")]) == DELIVERED
    assert read(routes.folder / "web.log") == "1\n2\n3\n"
    assert routes.contexts["first"].said == []


async def test_a_route_that_is_split_in_two_by_a_reload_gives_its_files_to_the_other(routes: Routes) -> None:
    """One template, other containers: that is no mistake."""
    all_ = await routes.opened("all", "{container.name}.log")
    assert await all_.deliver([batch("1"), batch("1", of=origin("api"))]) == DELIVERED
    await routes.contexts["all"].commit()
    await all_.close()
    all_ = await routes.opened("all", "{container.name}.log")
    new = await routes.opened("new", "{container.name}.log")
    with pytest.raises(Retryable, match='route "all" writes to it'):
        await new.deliver([batch("2", of=origin("api"))])
    assert await all_.deliver([batch("2")]) == DELIVERED
    await all_.idle()
    assert await new.deliver([batch("2", of=origin("api"))]) == DELIVERED
    assert files_in(routes.folder) == {"api.log": "1\n2\n", "web.log": "1\n2\n"}


async def test_of_two_routes_that_wait_for_each_other_one_gives_way(routes: Routes) -> None:
    one, two = origin("one"), origin("two")
    a = await routes.opened("a", "{container.name}.log")
    b = await routes.opened("b", "{container.name}.log")
    assert await a.deliver([batch("a", of=one)]) == DELIVERED
    assert await b.deliver([batch("b", of=two)]) == DELIVERED
    both = [batch("both", of=one), batch("both", of=two)]
    for sink in (a, b):
        with pytest.raises(Retryable, match="writes to it"):
            await sink.deliver(both)
    for sink in (a, b):
        await sink.open()
    assert await a.deliver(both) == DELIVERED
    with pytest.raises(Retryable, match='route "a" writes to it'):
        await b.deliver(both)
    await a.close()
    await b.open()
    assert await b.deliver(both) == DELIVERED
    assert files_in(routes.folder) == {"one.log": "a\nboth\nboth\n", "two.log": "b\nboth\nboth\n"}


@pytest.mark.parametrize("had", [True, False])
async def test_of_two_routes_that_want_each_the_file_of_the_other_one_goes_on(
    routes: Routes, had: bool
) -> None:
    """Also where each attempt opens the sink and delivers, as the router does: nobody comes in between."""
    one, two = origin("one"), origin("two")
    a = await routes.opened("a", "{container.name}.log")
    b = await routes.opened("b", "{container.name}.log")
    assert await a.deliver([batch("a", of=one)]) == DELIVERED
    if had:
        assert await b.deliver([batch("b", of=two)]) == DELIVERED
    delivered = []
    for _ in range(3):
        for name, sink, of in (("b", b, (two, one)), ("a", a, (one, two))):
            if name in delivered:
                continue
            await sink.open()
            with suppress(Retryable):
                assert await sink.deliver([batch("both", of=each) for each in of]) == DELIVERED
                delivered.append(name)
    assert delivered == ["a"]
    await a.close()
    await b.open()
    assert await b.deliver([batch("both", of=two), batch("both", of=one)]) == DELIVERED


OTHER_PROCESS = """
import trio
from tests.sinks.test_file import batch, opened

async def main():
    sink, _ = await opened("{path}")
    await sink.deliver([batch("theirs")])
    print("written", flush=True)
    input()
    await sink.deliver([batch("theirs")])

trio.run(main)
"""


async def test_a_file_of_another_process_is_waited_for(routes: Routes) -> None:
    path = routes.folder / "web.log"
    other = subprocess.Popen(  # noqa: ASYNC220  # it ends with the test
        [sys.executable, "-c", OTHER_PROCESS.format(path=path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "written\n"
        sink = await routes.opened("ours", "web.log")
        with pytest.raises(Retryable, match=r'another process has locked it.* route "ours" waits'):
            await sink.deliver([batch("ours")])
        await sink.open()
        other.communicate("\n")
    finally:
        other.kill()
        other.wait()
    await sink.open()
    assert await sink.deliver([batch("ours")]) == DELIVERED
    assert read(path) == "theirs\ntheirs\nours\n"


async def test_what_is_finished_removes_no_file_that_another_route_writes_to(routes: Routes) -> None:
    """`age` removes files of containers that are gone."""
    out = routes.folder / "web.log"
    first = await routes.opened("first", "{container.name}.log", rotate={"age": "1h"})
    assert await first.deliver([batch("1")]) == DELIVERED
    await routes.contexts["first"].commit()
    await first.close()
    first = await routes.opened("first", "{container.name}.log", rotate={"age": "1h"})
    second = routes.make("second", "web.log")
    with pytest.raises(Retryable):
        await second.open()
    await first.idle()
    await second.open()
    assert await second.deliver([batch("2")]) == DELIVERED
    os.utime(out, (0, 0))
    await first.open()
    await first.tidy()
    assert read(out) == "1\n2\n"


async def test_a_disk_that_does_not_lock_holds_up_no_other_route(
    routes: Routes, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = await routes.opened("slow", "slow.log")
    fast = await routes.opened("fast", "fast.log", rotate={"keep": 1})
    real, asked, answers = fcntl.flock, threading.Event(), threading.Event()

    def flock(fd: int, operation: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("slow.log"):
            asked.set()
            answers.wait(20)
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow.deliver, [batch("1")])
        await trio.to_thread.run_sync(asked.wait)
        with trio.fail_after(10):
            assert await fast.deliver([batch("2")]) == DELIVERED
            await fast.tidy()
        answers.set()
    assert files_in(routes.folder) == {"slow.log": "1\n", "fast.log": "2\n"}
