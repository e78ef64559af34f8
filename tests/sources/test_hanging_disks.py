"""A disk that does not answer: its logs wait, and nothing else does."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio

from logroute.router.position import BEGINNING
from logroute.router.record import Origin
from logroute.sources import disks as module
from logroute.sources.disks import Disks
from logroute.sources.log_file import BUFFER_BYTES, LogFile
from tests.sources.stand_ins import Routes
from tests.sources.test_file import append, reading

FREEZE_S = 1.0
"""Nobody else waits so long on this computer."""


class Disk:
    """A disk that hangs when the test says so: all calls for files below a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._answers = threading.Event()
        self._answers.set()
        self.waiting = 0
        """How many threads have come to wait."""

    def hang(self) -> None:
        self._answers.clear()

    def answer(self) -> None:
        self._answers.set()

    def holds(self, path: str | Path) -> bool:
        return str(path).startswith(f"{self.folder}/")

    def called(self, path: str | Path | int) -> None:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        if self.holds(path) and not self._answers.is_set():
            self.waiting += 1
            self._answers.wait(20)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")

    def hanging(call: Any) -> Any:
        def hangs(path: Any, *args: Any, **options: Any) -> Any:
            disk.called(path)
            return call(path, *args, **options)

        return hangs

    for name in ("preadv", "fstat", "stat", "open", "close"):
        monkeypatch.setattr(os, name, hanging(getattr(os, name)))
    # It shares a device with the others here.
    monkeypatch.setattr(LogFile, "device", property(lambda log: 1 if disk.holds(log.path) else 2))
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    monkeypatch.setattr("logroute.sources.watched_folders.POLL_S", 0.05)
    monkeypatch.setattr("logroute.sources.watched_folders.STOP_POLL_MS", 20)
    monkeypatch.setattr("logroute.sources.file.SCAN_S", 1000.0)
    yield disk
    disk.answer()


@asynccontextmanager
async def never_frozen() -> AsyncIterator[None]:
    """Nothing keeps the trio thread."""
    slowest_s = 0.0

    async def tick() -> None:
        nonlocal slowest_s
        while True:
            before = trio.current_time()
            await trio.sleep(0.01)
            slowest_s = max(slowest_s, trio.current_time() - before)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        yield
        nursery.cancel_scope.cancel()
    assert slowest_s < FREEZE_S


async def until_hanging(disk: Disk, threads: int = 1) -> None:
    with trio.fail_after(10):
        while disk.waiting < threads:  # noqa: ASYNC110 - threads come to wait
            await trio.sleep(0.01)


async def test_the_logs_of_other_disks_go_on_and_its_own_when_it_answers(tmp_path: Path, disk: Disk) -> None:
    routes = Routes()
    good, bad = tmp_path / "good.log", [disk.folder / f"bad{number}.log" for number in range(5)]
    for path in (good, *bad):
        append(path, f"{path.name} 1\n")
    with structlog.testing.capture_logs() as said:
        async with never_frozen(), reading(routes, [good, *bad]) as source:
            await routes.until(6)
            disk.hang()
            for path in bad:
                append(path, f"{path.name} 2\n")
            await until_hanging(disk)
            for number in range(2, 20):
                append(good, f"good.log {number}\n")
                with trio.fail_after(5):
                    await routes.until(5 + number)
            assert all(message.startswith("good") for message in routes.messages[6:])
            (note,) = source.notes()
            assert str(disk.folder) in note
            disk.answer()
            await routes.until(29)
            for path in bad:
                append(path, f"{path.name} 3\n")
            await routes.until(34)
            assert source.notes() == []
    for path in bad:
        its = [message for message in routes.messages if message.startswith(path.name)]
        assert its == [f"{path.name} {number}" for number in (1, 2, 3)]
    errors = [each["event"] for each in said if each["log_level"] == "error"]
    assert errors == ["a disk does not answer: the logs on it are not read until it does, others are"]


async def test_a_source_ends_although_a_disk_hangs(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logroute.sources.letting_go.WITHIN_S", 0.2)
    routes = Routes()
    bad = disk.folder / "bad.log"
    append(bad, "one\n")
    async with never_frozen():
        with trio.fail_after(5):
            async with reading(routes, bad):
                await routes.until(1)
                disk.hang()
                append(bad, "two\n")
                await until_hanging(disk)


async def test_rotation_on_other_disks_is_seen_while_whoever_watches_names_waits_for_one(
    tmp_path: Path, disk: Disk
) -> None:
    routes = Routes()
    good, bad = tmp_path / "good.log", disk.folder / "bad.log"
    append(good, "good 1\n")
    append(bad, "bad 1\n")
    async with never_frozen(), reading(routes, [good, bad], format="text") as source:
        await routes.until(2)
        disk.hang()
        os.rename(bad, f"{bad}.1")
        await until_hanging(disk)
        sweep = source._sweep
        first = sweep.folders._watcher
        with trio.fail_after(10):
            while sweep.folders._watcher is first:  # noqa: ASYNC110 - another one takes over
                await trio.sleep(0.01)
        log = sweep._logs[str(good)]
        os.rename(good, f"{good}.1")
        append(good, "good 2\n")
        with trio.fail_after(10):
            while len(log._segments) < 2 and "good 2" not in routes.messages:  # noqa: ASYNC110 - a thread
                await trio.sleep(0.01)
        disk.answer()


def test_what_is_for_the_trio_thread_waits_for_nobody_who_asks_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\n")
    log = LogFile(str(path), Origin(f"file:{path}", "files", file=str(path)), limit=1 << 20, format="text")
    assert log.open()
    log.resume({"a": BEGINNING})
    fork = log.fork({"b": BEGINNING})
    fetched = log.fetch(bytearray(BUFFER_BYTES), 1 << 20)
    fetched.chunks.append(type(fetched.chunks[0])(lost="rotated"))

    def all_of_it() -> None:
        log.parse(fetched.chunks)
        log.take_losses()
        log.places(lambda reader: reader.position)
        fork.at_end_of(log)
        log.leave(fork)

    with log.turn, log._chain, fork._chain:
        thread = threading.Thread(target=all_of_it, daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
    fork.close()
    log.close()


async def test_what_was_fetched_does_not_wait_for_the_collector(tmp_path: Path) -> None:
    class Fetched:
        pass

    async def ask() -> weakref.ref[Fetched]:
        fetched, unreached = await Disks(lambda: None).ask(
            [log], lambda log: Fetched(), lambda log, late: None
        )
        assert unreached == []
        return weakref.ref(fetched[0][1])

    log = LogFile(str(tmp_path), Origin("file:x", "files"), limit=1 << 20)
    gc.disable()
    try:
        assert (await ask())() is None
    finally:
        gc.enable()
