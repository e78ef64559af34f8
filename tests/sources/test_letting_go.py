"""The end of a source, when its disk hangs or fails."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from logroute.router.position import BEGINNING
from logroute.router.record import Origin
from logroute.simulator import SimulatedEngine
from logroute.sources import Lost, Source, SourceContext, letting_go
from logroute.sources.docker import DockerOptions, DockerSource
from logroute.sources.file import FileSource, FileSourceOptions
from logroute.sources.log_file import LogFile
from tests.sources.stand_ins import Routes


class Disk:
    """Says of some files that nothing can be known of them, or nothing for as long as it hangs."""

    def __init__(self) -> None:
        self.hangs = False
        self.fails: set[int] = set()
        """Inodes of files that cannot be read any more."""
        self.answers = threading.Event()

    def look(self, fd: int) -> os.stat_result:
        status = _fstat(fd)
        if self.hangs:
            self.answers.wait(4)
        if status.st_ino in self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return status


_fstat = os.fstat


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(os, "fstat", disk.look)
    monkeypatch.setattr(letting_go, "WITHIN_S", 0.2)
    yield disk
    disk.answers.set()


def held(folder: Path, name: str) -> LogFile:
    """A log that is removed and was not read: 8 bytes."""
    path = folder / name
    path.write_bytes(b"one\ntwo\n")
    log = LogFile(str(path), Origin(f"file:{path}", "files", file=str(path)), limit=1 << 20, format="text")
    assert log.open()
    log.resume({"all": BEGINNING})
    path.unlink()
    return log


async def until_closed(log: LogFile) -> None:
    with trio.fail_after(5):
        while log.is_open:  # noqa: ASYNC110 - a thread closes it
            await trio.sleep(0.01)


@pytest.mark.parametrize("kind", ["file", "docker"])
async def test_a_source_ends_in_time_on_a_disk_that_hangs_and_freezes_nothing_else(
    tmp_path: Path, disk: Disk, kind: str
) -> None:
    routes = Routes()
    source: Source[Any]
    async with SimulatedEngine(tmp_path / "engine", seed=1) as engine:
        container = engine.create("web")
        container.start()
        container.write("one\n")
        if kind == "file":
            files = FileSourceOptions(paths=[str(container.log_path)], start="beginning", format="docker")
            source = FileSource(files, SourceContext("source"))
        else:
            options = DockerOptions(host=engine.host, read="file", start="beginning")
            source = DockerSource(options, SourceContext("source"))
        slowest_s = 0.0

        async def tick() -> None:
            nonlocal slowest_s
            while True:
                before = trio.current_time()
                await trio.sleep(0.01)
                slowest_s = max(slowest_s, trio.current_time() - before)

        async with trio.open_nursery() as others:
            async with trio.open_nursery() as nursery:
                start: Any = lambda task_status: source.run(routes, routes, task_status=task_status)  # noqa: E731
                await nursery.start(start)
                await routes.until(1)
                others.start_soon(tick)
                disk.hangs = True
                ends_at = trio.current_time()
                nursery.cancel_scope.cancel()
            took_s = trio.current_time() - ends_at
            others.cancel_scope.cancel()
        assert took_s < 2
        assert slowest_s < 1
        disk.answers.set()


async def test_logs_on_a_disk_that_hangs_are_closed_when_it_answers(tmp_path: Path, disk: Disk) -> None:
    first, second = held(tmp_path, "first"), held(tmp_path, "second")
    said: list[tuple[LogFile, Lost]] = []
    disk.hangs = True
    await letting_go.let_go([first, second], lambda log, lost: said.append((log, lost)))
    assert first.is_open
    assert said == []
    disk.answers.set()
    await until_closed(second)
    assert not first.is_open


async def test_a_log_whose_disk_fails_at_the_end_keeps_no_other_from_being_counted_and_closed(
    tmp_path: Path, disk: Disk
) -> None:
    first, second = held(tmp_path, "first"), held(tmp_path, "second")
    said: list[tuple[LogFile, Lost]] = []
    disk.fails.add(first._segments[0].inode)
    await letting_go.let_go([first, second], lambda log, lost: said.append((log, lost)))
    assert [(log, lost.reason, lost.size_bytes) for log, lost in said] == [(second, "removed", 8)]
    assert not first.is_open
    assert not second.is_open
