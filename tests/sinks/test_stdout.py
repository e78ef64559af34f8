"""The stdout sink on real pipes, terminals and files."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
import trio.testing
from pydantic import ValidationError

from logroute.router.position import BEGINNING
from logroute.router.record import Batch, Origin, Record
from logroute.router.visible import visible
from logroute.sinks import DELIVERED, FileLength, Retryable, SinkGone
from logroute.sinks.stdout import StdoutOptions, StdoutSink

TIME = "2026-11-23T20:06:26.123456789Z"
WEB = Origin("docker:web", "docker", id="a" * 64, name="web")


class Context:
    route = "out"
    state_dir = None
    files: dict[str, FileLength] = {}  # noqa: RUF012 # never written to here

    async def commit(self) -> None: ...

    def unconfirmed(self, records: int) -> None: ...

    def warn(self, event: str, **details: object) -> None: ...


def batch(*messages: str) -> Batch:
    records = [Record(message, "stdout", TIME) for message in messages]
    return Batch(WEB, records, before=BEGINNING, after=BEGINNING, size_bytes=1)


async def opened(fd: int, **options: Any) -> StdoutSink:
    sink = StdoutSink(StdoutOptions(**options), Context())
    sink.fd = fd
    await sink.open()
    return sink


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = list(os.pipe())
    yield ends[0], ends[1]
    for end in ends:
        with contextlib.suppress(OSError):  # the test has closed it
            os.close(end)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    yield master, slave
    os.close(master)
    os.close(slave)


async def test_json_goes_into_a_pipe_unless_another_format_is_asked_for(pipe: tuple[int, int]) -> None:
    sink = await opened(pipe[1])
    assert await sink.deliver([batch("one"), batch("two")]) == DELIVERED
    lines = [json.loads(line) for line in os.read(pipe[0], 65536).splitlines()]
    assert [line["message"] for line in lines] == ["one", "two"]
    assert lines[0]["container"]["name"] == "web"


async def test_text_goes_onto_a_terminal(terminal: tuple[int, int]) -> None:
    sink = await opened(terminal[1])
    await sink.deliver([batch("hello")])
    assert os.read(terminal[0], 65536).decode() == f"{TIME} web: hello\n"


@pytest.mark.parametrize("format_", ["text", "raw", "json", "logfmt", "{message}"])
async def test_no_line_ever_controls_a_terminal(terminal: tuple[int, int], format_: str) -> None:
    sink = await opened(terminal[1], format=format_)
    await sink.deliver([batch("\x1b]0;title\x07 \x9b31m red \r over \x00 \x7f \u202e back")])
    shown = os.read(terminal[0], 65536).decode()
    assert [c for c in shown if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160 or c == "\u202e")] == []
    if format_ != "logfmt":  # it escapes what JSON escapes
        assert "\\u009b31m red" in shown
    if format_ == "json":
        assert "\x9b31m" in json.loads(shown)["message"]


def test_what_is_made_visible_keeps_tabs_and_newlines() -> None:
    assert visible("a\tb\nc\x1b[0m é 漢") == "a\tb\nc\\u001b[0m é 漢"


async def test_raw_bytes_go_unchanged_into_a_pipe(pipe: tuple[int, int]) -> None:
    sink = await opened(pipe[1], format="raw")
    await sink.deliver([batch("\x1b[31mred\x00\r", "")])
    assert os.read(pipe[0], 65536) == b"\x1b[31mred\x00\r\n\n"


async def test_a_reader_that_goes_away_ends_the_route(pipe: tuple[int, int]) -> None:
    sink = await opened(pipe[1], format="raw")
    await sink.deliver([batch("one")])
    os.close(pipe[0])
    with pytest.raises(SinkGone, match="the reader of standard output is gone"):
        await sink.deliver([batch("two")])


async def test_a_reader_that_goes_away_is_noticed_with_nothing_to_write(pipe: tuple[int, int]) -> None:
    sink = await opened(pipe[1])

    async def go_away() -> None:
        await trio.testing.wait_all_tasks_blocked()
        os.close(pipe[0])

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(go_away)
            with pytest.raises(SinkGone):
                await sink.run()


async def test_nobody_watches_a_file_or_a_terminal(terminal: tuple[int, int], tmp_path: Path) -> None:
    fd = os.open(tmp_path / "out", os.O_CREAT | os.O_WRONLY)
    await (await opened(fd)).run()
    await (await opened(terminal[1])).run()
    os.close(fd)


async def test_a_reader_that_does_not_read_delays_nothing_but_its_own_delivery(
    pipe: tuple[int, int], autojump_clock: trio.testing.MockClock
) -> None:
    sink = await opened(pipe[1], format="raw")
    long = batch("x" * 300_000)
    with trio.move_on_after(5) as scope:
        await sink.deliver([long])
    assert scope.cancelled_caught
    # What was begun goes on when it is read, and only then what comes after it.
    got = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.deliver, [batch("next")])
        while not got.endswith(b"next\n"):
            got += await trio.to_thread.run_sync(os.read, pipe[0], 65536)
    assert got == b"x" * 300_000 + b"\nnext\n"


async def test_the_flags_of_a_shared_descriptor_stay_as_they_are(pipe: tuple[int, int]) -> None:
    before = fcntl.fcntl(pipe[1], fcntl.F_GETFL)
    sink = await opened(pipe[1])
    await sink.deliver([batch("one")])
    assert fcntl.fcntl(pipe[1], fcntl.F_GETFL) == before


async def test_a_descriptor_that_somebody_else_made_non_blocking_is_waited_for(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    sink = await opened(pipe[1], format="raw")
    got = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.deliver, [batch("x" * 300_000)])
        while len(got) < 300_001:
            got += await trio.to_thread.run_sync(os.read, pipe[0], 65536)
    assert got == b"x" * 300_000 + b"\n"


async def test_a_full_disk_behind_it_is_told_and_tried_again() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    sink = await opened(fd)
    with pytest.raises(Retryable, match=r"standard output: No space left on device \(ENOSPC\)"):
        await sink.deliver([batch("one")])
    os.close(fd)


def test_the_uri_takes_options_and_no_path() -> None:
    assert StdoutSink.options_from_uri(urlsplit("stdout:"), {"format": "raw"}) == {"format": "raw"}
    with pytest.raises(ValueError, match="file:///tmp/x"):
        StdoutSink.options_from_uri(urlsplit("stdout:/tmp/x"), {})


def test_an_unknown_format_is_a_mistake() -> None:
    with pytest.raises(ValidationError, match="unknown format 'yaml'"):
        StdoutOptions(format="yaml")
