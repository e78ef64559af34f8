"""The file sink on real files. What kill -9 does to it stands in test_file_crashes.py."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
import trio.testing
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from logroute.router.position import BEGINNING
from logroute.router.record import Batch, DetailedRecord, Origin, Record
from logroute.router.template import Template, TemplateError, escape_file_name
from logroute.sinks import DELIVERED, FileLength, Rejected, Retryable, finished_files
from logroute.sinks.file import FileOptions, FileSink
from logroute.sinks.rotation import (
    FinishedFile,
    Name,
    component_pattern,
    current_path,
    family_of,
    finished_name,
    name_problem,
    parse_name,
    surplus,
    timed,
)

TIME = "2026-11-23T20:06:26.123456789Z"
DAY = 86400.0


class Context:
    route = "archive"
    state_dir = "/var/lib/logroute"

    def __init__(self, files: dict[str, FileLength] | None = None) -> None:
        self.files = dict(files or {})
        self.stored = dict(self.files)
        self.said: list[tuple[str, dict[str, object]]] = []
        self.fails = False

    async def commit(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise RuntimeError("cannot store checkpoints")
        self.stored = dict(self.files)

    def unconfirmed(self, records: int) -> None: ...

    def warn(self, event: str, **details: object) -> None:
        self.said.append((event, details))

    @property
    def words(self) -> str:
        return "\n".join(event for event, _ in self.said)


def origin(name: str = "web", **labels: str) -> Origin:
    return Origin(f"docker:{name}", "docker", id="a" * 64, name=name, labels=labels)


WEB = origin()


def batch(*messages: str, of: Origin = WEB, at: str = TIME) -> Batch:
    records = [Record(message, "stdout", at) for message in messages]
    return Batch(of, records, before=BEGINNING, after=BEGINNING, size_bytes=1)


async def opened(
    path: Path | str, files: dict[str, FileLength] | None = None, *, format: str = "raw", **options: Any
) -> tuple[FileSink, Context]:
    context = Context(files)
    sink = FileSink(FileOptions.model_validate({"path": str(path), "format": format, **options}), context)
    await sink.open()
    return sink, context


def files_in(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): read(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def read(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data.decode()


# --- writing ----------------------------------------------------------------------------------------


async def test_records_of_all_batches_stand_in_the_file_in_their_order(tmp_path: Path) -> None:
    sink, context = await opened(tmp_path / "deep" / "er" / "out.log")
    assert await sink.deliver([batch("1", "2"), batch("3", of=origin("b")), batch("4")]) == DELIVERED
    assert await sink.deliver([batch("5")]) == DELIVERED
    assert files_in(tmp_path) == {"deep/er/out.log": "1\n2\n3\n4\n5\n"}
    assert [entry.length for entry in context.files.values()] == [10]


async def test_no_disk_is_asked_on_the_trio_thread_where_a_path_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that hangs would hold up everything, from when the sink is made."""
    real = os.path.realpath
    asked: list[threading.Thread] = []

    def realpath(path: str, **options: Any) -> str:
        asked.append(threading.current_thread())
        return real(path, **options)

    monkeypatch.setattr(os.path, "realpath", realpath)
    for path in ("all.log", "{container.name}.log"):
        made = FileSink(FileOptions(path=f"{tmp_path}/{path}"), Context())
        await made.close()  # it was never open
        await made.open()
        await made.close()
    assert len(asked) >= 2
    assert threading.main_thread() not in asked


async def test_json_is_the_format_unless_another_is_asked_for(tmp_path: Path) -> None:
    sink = FileSink(FileOptions(path=str(tmp_path / "out.ndjson")), Context())
    await sink.open()
    await sink.deliver([batch("hello")])
    line = json.loads((tmp_path / "out.ndjson").read_text())
    assert (line["@timestamp"], line["message"], line["container"]["name"]) == (TIME, "hello", "web")


async def test_each_container_and_each_day_has_its_file(tmp_path: Path) -> None:
    sink, _ = await opened(tmp_path / "{container.name}" / "{time:%Y-%m-%d}.log")
    midnight = Batch(
        WEB,
        [Record(str(d), "stdout", f"2026-11-2{d}T00:00:00.000000000Z") for d in (3, 3, 4, 3)],
        before=BEGINNING,
        after=BEGINNING,
        size_bytes=1,
    )
    assert await sink.deliver([midnight, batch("x", of=origin("db"))]) == DELIVERED
    await sink.deliver([batch("late")])
    assert files_in(tmp_path) == {
        "web/2026-11-23.log": "3\n3\n3\nlate\n",
        "web/2026-11-24.log": "4\n",
        "db/2026-11-23.log": "x\n",
    }


async def test_a_value_of_the_record_may_be_part_of_the_path(tmp_path: Path) -> None:
    sink, _ = await opened(tmp_path / "{fields.user|nobody}.log")
    records: list[Record] = [
        Record("a", "stdout", TIME),
        DetailedRecord("b", "stdout", TIME, fields={"user": "ada"}),
    ]
    await sink.deliver([Batch(WEB, records, before=BEGINNING, after=BEGINNING, size_bytes=1)])
    assert files_in(tmp_path) == {"nobody.log": "a\n", "ada.log": "b\n"}


async def test_no_more_files_are_open_than_allowed(tmp_path: Path) -> None:
    sink, _ = await opened(tmp_path / "{container.name}.log", max_open=3)
    batches = [batch("x", of=origin(f"c{i}")) for i in range(10)]
    for _ in range(3):
        assert await sink.deliver(batches) == DELIVERED
        assert sink.statistics().open_files == 3
    assert files_in(tmp_path) == {f"c{i}.log": "x\n" * 3 for i in range(10)}
    await sink.close()
    assert sink.statistics().open_files == 0


async def test_a_write_that_is_cut_short_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, _ = await opened(tmp_path / "out.log")
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[: max(1, len(data) // 3)]))
    await sink.deliver([batch("one", "two", "three"), batch("four")])
    assert read(tmp_path / "out.log") == "one\ntwo\nthree\nfour\n"


async def test_large_pieces_are_written_as_they_are(tmp_path: Path) -> None:
    sink, context = await opened(tmp_path / "out.log")
    await sink.deliver([batch("x" * 100_000), batch("y" * 100_000)])
    assert read(tmp_path / "out.log") == "x" * 100_000 + "\n" + "y" * 100_000 + "\n"
    assert [(e.length, e.fingerprint_bytes) for e in context.files.values()] == [(200_002, 1024)]


async def test_permissions_are_those_asked_for(tmp_path: Path) -> None:
    sink, _ = await opened(tmp_path / "a" / "{container.name}" / "x.log", mode="0660")
    await sink.deliver([batch("x")])
    assert stat.S_IMODE((tmp_path / "a" / "web" / "x.log").stat().st_mode) == 0o660
    assert stat.S_IMODE((tmp_path / "a" / "web").stat().st_mode) & 0o007 == 0


async def test_the_umask_takes_nothing_from_the_permissions_that_were_asked_for(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        sink, _ = await opened(tmp_path / "a" / "{container.name}" / "x.log", mode="0664")
        await sink.deliver([batch("x")])
    finally:
        os.umask(before)
    found = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/web", "a/web/x.log")]
    assert found == [0o775, 0o775, 0o664]


async def test_with_fsync_every_folder_that_is_made_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, stored = os.fsync, set[str]()

    def fsync(fd: int) -> None:
        stored.add(os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), tmp_path))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    sink, _ = await opened(tmp_path / "a" / "b" / "{container.name}" / "x.log", fsync=True)
    await sink.deliver([batch("x")])
    assert stored == {".", "a", "a/b", "a/b/web"}


# --- what fails -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EDQUOT])
async def test_a_delivery_that_fails_leaves_every_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    sink, context = await opened(tmp_path / "{container.name}.log", max_open=2)
    both = [batch("1", of=origin("a")), batch("1", of=origin("b")), batch("1", of=origin("c"))]
    await sink.deliver(both)
    lengths = dict(context.files)
    real, calls = os.write, 0

    def write(fd: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == 3:
            return real(fd, data[:1])
        if calls == 4:
            raise OSError(number, os.strerror(number))
        return real(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(
            Retryable, match=rf"cannot write to {tmp_path}/c.log: .*{errno.errorcode[number]}.*; "
        ):
            await sink.deliver([batch("22", "3", of=o) for o in (origin("a"), origin("b"), origin("c"))])
    assert files_in(tmp_path) == {"a.log": "1\n", "b.log": "1\n", "c.log": "1\n"}
    assert context.files == lengths
    await sink.open()
    await sink.deliver([batch("22", of=origin("a"))])
    assert read(tmp_path / "a.log") == "1\n22\n"
    assert not context.said


async def test_on_a_full_disk_nothing_is_torn_and_it_goes_on_when_there_is_space(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 700_000)
    sink, _ = await opened(small_disk / "{container.name}.log")
    expected = ""
    n = 0

    async def both(lines: list[str]) -> None:
        nonlocal expected, n
        assert await sink.deliver([batch(*lines), batch(*lines, of=origin("other"))]) == DELIVERED
        expected += "".join(f"{line}\n" for line in lines)
        n += 1

    with pytest.raises(Retryable, match=r"No space left on device \(ENOSPC\); free some space") as failed:  # noqa: PT012
        while True:
            lines = [f"{n}-{i} {'y' * 90}" for i in range(200)]
            await both(lines)
    assert n > 2
    assert str(small_disk) in str(failed.value)
    assert read(small_disk / "web.log") == read(small_disk / "other.log") == expected
    await sink.open()
    with pytest.raises(Retryable):
        await both(lines)
    ballast.unlink()
    await sink.open()
    await both(lines)
    assert read(small_disk / "web.log") == read(small_disk / "other.log") == expected


@contextmanager
def hanging_writes(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Nothing is written before the event is set."""
    real, goes_on = os.write, threading.Event()

    def write(fd: int, data: bytes) -> int:
        goes_on.wait()
        return real(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        yield goes_on


async def test_a_cancelled_delivery_is_taken_back_when_the_sink_opens_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, _ = await opened(tmp_path / "out.log")
    await sink.deliver([batch("1")])
    with hanging_writes(monkeypatch) as goes_on:
        with trio.move_on_after(5) as scope:
            await sink.deliver([batch("2")])
        assert scope.cancelled_caught
        goes_on.set()
        await sink.open()
    assert read(tmp_path / "out.log") == "1\n"
    await sink.deliver([batch("2")])
    assert read(tmp_path / "out.log") == "1\n2\n"


async def test_a_sink_that_takes_the_place_of_one_whose_write_hangs_waits_for_that_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would find a length to which the other's bytes are then added: they came twice."""
    sink, context = await opened(tmp_path / "out.log")
    await sink.deliver([batch("1")])
    real, hanging, begun = os.write, threading.Event(), threading.Event()

    def write(fd: int, data: bytes) -> int:
        begun.set()
        hanging.wait()
        return real(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.deliver, [batch("2")])
            await trio.to_thread.run_sync(begun.wait)
            nursery.cancel_scope.cancel()
    successor = FileSink(sink.options, context)
    with trio.move_on_after(0.05) as scope:
        await successor.open()
    assert scope.cancelled_caught
    hanging.set()
    await successor.open()
    assert read(tmp_path / "out.log") == "1\n"
    await successor.deliver([batch("2")])
    assert read(tmp_path / "out.log") == "1\n2\n"
    await successor.close()


async def test_nothing_is_written_to_a_file_whose_length_could_not_be_stored(tmp_path: Path) -> None:
    sink, context = await opened(tmp_path / "out.log")
    context.fails = True
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await sink.deliver([batch("1")])
        await sink.open()
    assert read(tmp_path / "out.log") == ""
    assert context.files == {}


# --- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "..", ".", "a/b", "/etc/passwd", "nul\x00l", "x" * 300, "é" * 150, "", "\n", "a\\b"],
)
async def test_no_name_leads_out_of_its_folder(tmp_path: Path, name: str) -> None:
    base = tmp_path / "a" / "b" / "c"
    sink, _ = await opened(base / "{container.name}" / "{label.team}.log", rotate={"size": "1MiB"})
    assert await sink.deliver([batch("x", of=origin(name, team=name)), batch("y")]) == DELIVERED
    written = list(files_in(tmp_path))
    assert len(written) == 2
    assert all(path.startswith("a/b/c/") and path.count("/") == 4 for path in written)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("web.20261123T200626Z-0001", "looks like a file that logroute itself has rotated"),
        ("web.log.logroute-tmp", "looks like a file that logroute itself has rotated"),
    ],
)
async def test_a_record_whose_file_cannot_be_called_so_is_rejected_and_the_others_go_on(
    tmp_path: Path, name: str, why: str
) -> None:
    sink, _ = await opened(tmp_path / "{container.name}", rotate={"size": "1MiB"})
    refused = batch("x", "y", of=origin(name))
    rejected = (await sink.deliver([batch("1"), refused, batch("2")])).rejected
    assert rejected == [
        Rejected(1, r, f"no file can be called {str(tmp_path / name)!r}: {name!r} {why}")
        for r in refused.records
    ]
    assert files_in(tmp_path) == {"web": "1\n2\n"}


async def test_a_folder_in_the_way_rejects_the_records_of_its_container_only(tmp_path: Path) -> None:
    (tmp_path / "db.log").mkdir()
    (tmp_path / "pipe.log").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "fifo.log")
    sink, _ = await opened(tmp_path / "{container.name}.log")
    names = ["db", "web", "pipe", "fifo"]
    rejected = (await sink.deliver([batch("x", of=origin(name)) for name in names])).rejected
    assert [names[one.batch] for one in rejected] == ["db", "pipe", "fifo"]
    assert "EISDIR" in rejected[0].reason
    assert "no symbolic link is followed" in rejected[1].reason
    assert "regular files only" in rejected[2].reason
    assert read(tmp_path / "web.log") == "x\n"


async def test_a_fixed_path_that_cannot_be_written_to_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "out.log").mkdir()
    sink, _ = await opened(tmp_path / "out.log")
    with pytest.raises(Retryable, match="a folder stands where the file should be"):
        await sink.deliver([batch("x")])


async def test_a_base_that_is_no_folder_rejects_nothing(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("")
    # It is said at the start, and when something is to be written.
    with pytest.raises(Retryable, match="ENOTDIR"):
        await opened(tmp_path / "logs" / "{container.name}.log")
    (tmp_path / "logs").unlink()
    sink, _ = await opened(tmp_path / "logs" / "{container.name}.log")
    (tmp_path / "logs").write_text("")
    with pytest.raises(Retryable, match="ENOTDIR"):
        await sink.deliver([batch("x")])


async def test_a_link_below_the_base_is_not_followed_the_base_itself_may_be_one(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "real").mkdir()
    (tmp_path / "logs").symlink_to("real")
    (tmp_path / "real" / "evil").symlink_to(tmp_path / "elsewhere")
    sink, _ = await opened(tmp_path / "logs" / "{container.name}" / "x.log")
    rejected = (await sink.deliver([batch("x", of=origin("evil")), batch("y")])).rejected
    assert [one.batch for one in rejected] == [0]
    assert files_in(tmp_path) == {"real/web/x.log": "y\n"}


# --- what others do to the files --------------------------------------------------------------------


@pytest.mark.parametrize("how", ["removed", "renamed", "folder removed"])
async def test_a_file_that_somebody_takes_away_is_made_anew(
    tmp_path: Path, how: str, mock_clock: trio.testing.MockClock
) -> None:
    path = tmp_path / "logs" / "web" / "out.log"
    sink, context = await opened(tmp_path / "logs" / "{container.name}" / "out.log")
    await sink.deliver([batch("1")])
    if how == "renamed":
        path.rename(tmp_path / "out.log.1")
    else:
        path.unlink()
    if how == "folder removed":
        path.parent.rmdir()
    mock_clock.jump(1.5)
    await sink.deliver([batch("2")])
    await sink.deliver([batch("3")])
    assert read(path) == "2\n3\n"
    assert context.words == "a file was moved or removed by somebody else: going on in a new one"
    assert context.stored[str(path)].length == 0
    assert sink.statistics().changed_files == 1
    if how == "renamed":
        assert read(tmp_path / "out.log.1") == "1\n"


async def test_a_file_that_somebody_empties_is_gone_on_with(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    sink, context = await opened(tmp_path / "out.log")
    await sink.deliver([batch("1")])
    os.truncate(tmp_path / "out.log", 0)
    mock_clock.jump(1.5)
    await sink.deliver([batch("2")])
    assert read(tmp_path / "out.log") == "2\n"
    assert context.words == "a file was cut by somebody else: it is appended to"


async def test_what_somebody_else_appends_is_never_cut(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    path = tmp_path / "out.log"
    sink, context = await opened(path)
    await sink.deliver([batch("1")])
    with path.open("a") as file:
        file.write("theirs\n")
    mock_clock.jump(1.5)
    await sink.deliver([batch("2")])
    with path.open("a") as file:
        file.write("theirs too\n")
    assert "somebody else writes to a file of this route" in context.words
    await opened(path, context.files)
    assert read(path) == "1\ntheirs\n2\ntheirs too\n"


# --- after a start ----------------------------------------------------------------------------------


async def test_a_file_without_state_is_appended_to(tmp_path: Path) -> None:
    (tmp_path / "out.log").write_text("old\n")
    sink, context = await opened(tmp_path / "out.log")
    await sink.deliver([batch("new")])
    assert read(tmp_path / "out.log") == "old\nnew\n"
    assert not context.said


async def test_a_torn_last_line_is_ended_first_and_that_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "out.log").write_text("old\nto")
    sink, context = await opened(tmp_path / "out.log")
    await sink.deliver([batch("new")])
    await sink.deliver([batch("newer")])
    assert read(tmp_path / "out.log") == "old\nto\nnew\nnewer\n"
    assert context.words == "the file ended in the middle of a line: ended that line first"


async def test_what_was_not_acknowledged_is_cut_back(tmp_path: Path) -> None:
    path = tmp_path / "out.log"
    sink, context = await opened(path)
    await sink.deliver([batch("1")])
    stored = dict(context.files)
    await sink.deliver([batch("2", "3")])
    sink, context = await opened(path, stored)
    assert read(path) == "1\n"
    assert context.said == [
        ("cut back what was not acknowledged; it comes again", {"path": str(path), "bytes": 4})
    ]
    await sink.deliver([batch("2")])
    assert read(path) == "1\n2\n"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "a file written before is gone"),
        ("somebody else's file, which is longer\n", "another file stands where one was written before"),
        ("1\n", "a file is shorter than what was written"),
        ("", "a file is shorter than what was written"),
    ],
)
async def test_a_file_that_changed_while_we_were_away_is_reported_and_never_cut(
    tmp_path: Path, found: str | None, said: str
) -> None:
    path = tmp_path / "out.log"
    sink, context = await opened(path)
    await sink.deliver([batch("1", "2", "3")])
    if found is None:
        path.unlink()
    elif found == "1\n":
        os.truncate(path, 2)
    else:
        path.unlink()
        path.write_text(found)
    sink, context = await opened(path, context.files)
    assert said in context.words
    assert sink.statistics().changed_files == 1
    await sink.deliver([batch("4")])
    assert read(path) == (found or "") + "4\n"


async def test_another_file_that_begins_alike_is_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "out.log"
    sink, context = await opened(path)
    await sink.deliver([batch("starting")])
    path.rename(tmp_path / "old")
    path.write_text("starting\nand their own words\n")
    await opened(path, context.files)
    assert read(path) == "starting\nand their own words\n"


# --- rotation ---------------------------------------------------------------------------------------


def at(seconds: float = 0.0) -> float:
    return 1_795_464_386.0 + seconds  # 2026-11-23T20:06:26Z


async def rotating(
    path: Path | str, files: dict[str, FileLength] | None = None, **options: Any
) -> tuple[FileSink, Context]:
    sink, context = await opened(path, files, **options)
    sink.clock = lambda: at()
    return sink, context


async def test_a_file_is_finished_before_it_grows_too_large(tmp_path: Path) -> None:
    sink, _ = await rotating(tmp_path / "out.ndjson", rotate={"size": 6})
    for i in range(6):
        await sink.deliver([batch(str(i))])
    await sink.deliver([batch("longer than a file")])
    assert files_in(tmp_path) == {
        "out.20261123T200626Z-0001.ndjson": "0\n1\n2\n",
        "out.20261123T200626Z-0002.ndjson": "3\n4\n5\n",
        "out.ndjson": "longer than a file\n",
    }


async def test_a_file_is_finished_when_the_records_time_says_so(tmp_path: Path) -> None:
    sink, _ = await rotating(tmp_path / "out.log", rotate={"every": "1d"})
    for day in ("21", "21", "22", "21", "22", "24"):
        await sink.deliver([batch(day, at=f"2026-11-{day}T12:00:00.000000000Z")])
    assert files_in(tmp_path) == {
        "out.20261123T200626Z-0001.log": "21\n21\n",
        "out.20261123T200626Z-0002.log": "22\n21\n22\n",
        "out.log": "24\n",
    }


async def test_a_silent_file_is_finished_too_when_its_time_is_over(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    sink, context = await rotating(tmp_path / "out.log", rotate={"every": "1d"})
    await sink.deliver([batch("1")])
    await sink.idle()
    assert len(files_in(tmp_path)) == 1
    now = time.time()
    sink.clock = lambda: now + 10 * 365 * DAY
    mock_clock.jump(601)
    await sink.idle()
    (name,) = files_in(tmp_path)
    assert parse_name(name).current == "out.log"
    assert context.files == {}


async def test_finished_files_are_compressed_beside_the_deliveries(tmp_path: Path) -> None:
    sink, context = await rotating(tmp_path / "out.log", rotate={"size": 4}, compress="zstd")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.run)
        for i in range(3):
            await sink.deliver([batch(f"{i}{i}{i}")])
        while sink.statistics().compressed_files < 2:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert files_in(tmp_path) == {
        "out.20261123T200626Z-0001.log.zst": "000\n",
        "out.20261123T200626Z-0002.log.zst": "111\n",
        "out.log": "222\n",
    }
    assert not context.said


async def test_compressing_keeps_time_and_permissions(tmp_path: Path) -> None:
    sink, _ = await rotating(tmp_path / "out.log", rotate={"size": 4}, compress="gzip", mode="0604")
    await sink.deliver([batch("000")])
    os.utime(tmp_path / "out.log", (1000, 2000))
    await sink.deliver([batch("111")])
    await sink.tidy()
    found = (tmp_path / "out.20261123T200626Z-0001.log.gz").stat()
    assert (found.st_mtime, stat.S_IMODE(found.st_mode)) == (2000, 0o604)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")
async def test_a_compressed_file_belongs_to_whom_it_belonged(tmp_path: Path) -> None:
    sink, _ = await rotating(tmp_path / "out.log", rotate={"size": 4}, compress="gzip")
    await sink.deliver([batch("000")])
    os.chown(tmp_path / "out.log", 1234, 2345)
    await sink.deliver([batch("111")])
    await sink.tidy()
    found = (tmp_path / "out.20261123T200626Z-0001.log.gz").stat()
    assert (found.st_uid, found.st_gid) == (1234, 2345)


async def test_a_file_that_is_begun_while_others_are_compressed_is_no_finished_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record comes late, into its day: `keep` went by one file too many, and removed another for it."""
    path = tmp_path / "{container.name}" / "{time:%Y-%m-%d}.log"
    sink, _ = await rotating(path, rotate={"keep": 1, "idle": "1ms"}, compress="zstd")
    for name in ("a", "b"):
        for day in (20, 21, 22):
            await sink.deliver([batch("x", of=origin(name), at=f"2026-11-{day}T00:00:00Z")])
    await trio.sleep(0.01)
    await sink.idle()
    real, begun, goes_on = finished_files._compress, threading.Event(), threading.Event()
    compressed: list[str] = []

    def compress(folder: int, *args: Any) -> int:
        compressed.append(os.path.basename(os.readlink(f"/proc/self/fd/{folder}")))
        begun.set()
        goes_on.wait()
        return real(folder, *args)

    monkeypatch.setattr(finished_files, "_compress", compress)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.tidy)
        await trio.to_thread.run_sync(begun.wait)
        other = "b" if compressed == ["a"] else "a"
        await sink.deliver([batch("late", of=origin(other), at="2026-11-10T00:00:00Z")])
        goes_on.set()
    assert list(files_in(tmp_path / other).values()) == ["late\n", "x\n"]


async def test_an_interrupted_compression_is_cleaned_up_and_done_again(tmp_path: Path) -> None:
    (tmp_path / "out.20261120T000000Z-0001.log").write_text("0\n")
    (tmp_path / "out.20261120T000000Z-0001.log.zst.logroute-tmp").write_text("half")
    (tmp_path / "out.20261120T000000Z-0002.log").write_text("1\n")
    (tmp_path / "out.20261120T000000Z-0002.log.zst").write_bytes(zstandard.compress(b"1\n"))
    sink, _ = await rotating(tmp_path / "out.log", rotate={"size": 4}, compress="zstd")
    await sink.deliver([batch("222")])
    await sink.deliver([batch("333")])
    await sink.tidy()
    assert files_in(tmp_path) == {
        "out.20261120T000000Z-0001.log.zst": "0\n",
        "out.20261120T000000Z-0002.log.zst": "1\n",
        "out.20261123T200626Z-0001.log.zst": "222\n",
        "out.log": "333\n",
    }


async def test_what_another_run_left_is_tidied_when_its_path_is_written_to_again(tmp_path: Path) -> None:
    for day in (20, 21, 22):
        (tmp_path / f"web.202611{day}T000000Z-0001.log").write_text(f"{day}\n")
    sink, _ = await rotating(tmp_path / "{container.name}.log", rotate={"keep": 2}, compress="zstd")
    await sink.deliver([batch("new")])
    await sink.tidy()
    assert files_in(tmp_path) == {
        "web.20261121T000000Z-0001.log.zst": "21\n",
        "web.20261122T000000Z-0001.log.zst": "22\n",
        "web.log": "new\n",
    }


async def test_a_compression_that_is_cancelled_leaves_the_source(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, _ = await rotating(tmp_path / "out.log", rotate={"size": 4}, compress="zstd")
    await sink.deliver([batch("000")])
    await sink.deliver([batch("111")])
    real, hanging = os.read, threading.Event()

    def hang(fd: int, n: int) -> bytes:
        hanging.wait()
        return real(fd, n)

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", hang)
        with trio.move_on_after(5):
            await sink.run()
        hanging.set()
        while any(name.endswith("tmp") for name in files_in(tmp_path)):
            await trio.lowlevel.checkpoint()
    assert files_in(tmp_path) == {"out.20261123T200626Z-0001.log": "000\n", "out.log": "111\n"}


async def test_keep_counts_everything_that_the_template_made_for_a_container(tmp_path: Path) -> None:
    options: dict[str, Any] = {"rotate": {"size": 4, "keep": 2}}
    sink, context = await rotating(tmp_path / "{container.name}" / "{time:%Y-%m-%d}.log", **options)
    (tmp_path / "web").mkdir()
    strangers = {
        "web/2026-11-20.txt": "",
        "web/notes": "",
        "web/2026-11-2x.log": "",
        "web/20261123T200626Z-0001.log": "",
    }
    for name in strangers:
        (tmp_path / name).write_text("")
    for day in (20, 21):  # days of an earlier run
        path = tmp_path / "web" / f"2026-11-{day}.log"
        path.write_text(f"{day}\n")
        os.utime(path, (at() - (23 - day) * DAY,) * 2)
    for text in ("000", "111", "222"):
        await sink.deliver([batch(text), batch(text, of=origin("db"))])
    await sink.tidy()
    assert files_in(tmp_path) == strangers | {
        f"{name}/2026-11-23{finished}.log": text
        for name in ("web", "db")
        for finished, text in (
            (".20261123T200626Z-0001", "000\n"),
            (".20261123T200626Z-0002", "111\n"),
            ("", "222\n"),
        )
    }
    assert sink.statistics().removed_files == 2
    assert not context.said


async def test_a_day_that_has_passed_is_closed_compressed_and_aged_even_after_a_restart(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    path = tmp_path / "{time:%Y-%m-%d}" / "{container.name}.log"
    options: dict[str, Any] = {"rotate": {"age": "30d"}, "compress": "zstd"}
    sink, context = await rotating(path, **options)
    await sink.deliver([batch("x")])
    await sink.close()
    now = time.time()
    sink, context = await rotating(path, context.stored | context.files, **options)
    sink.clock = lambda: now + DAY * 1000
    mock_clock.jump(601)
    await sink.idle()
    (name,) = files_in(tmp_path)
    assert parse_name(os.path.basename(name)).current == "web.log"
    sink.clock = lambda: now + DAY
    await sink.tidy()
    (name,) = files_in(tmp_path)
    assert name.startswith("2026-11-23/web.")
    assert name.endswith(".log.zst")
    # Weeks later nothing is known of the container but that it had files.
    sink, context = await rotating(path, context.files, **options)
    sink.clock = lambda: now + DAY * 31
    await sink.tidy()
    assert os.listdir(tmp_path) == []
    assert context.files == {}


async def test_total_bounds_the_bytes_of_a_container(tmp_path: Path) -> None:
    sink, _ = await rotating(tmp_path / "out.log", rotate={"size": 4, "total": 13})
    for i in range(6):
        await sink.deliver([batch(f"{i}{i}{i}")])
    await sink.tidy()
    assert sorted(files_in(tmp_path).values()) == ["333\n", "444\n", "555\n"]


async def test_a_late_record_of_a_closed_day_goes_into_its_day(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    sink, context = await rotating(tmp_path / "{time:%Y-%m-%d}.log", compress="zstd")
    await sink.deliver([batch("x")])
    now = time.time()
    sink.clock = lambda: now + DAY * 1000
    mock_clock.jump(601)
    await sink.idle()
    await sink.tidy()
    await sink.deliver([batch("late")])
    assert sorted(files_in(tmp_path).values()) == ["late\n", "x\n"]
    assert read(tmp_path / "2026-11-23.log") == "late\n"
    assert not context.said


# --- names and bounds, decided without a disk ---------------------------------------------------------

names = st.text(st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(name=names, times=st.lists(st.integers(0, 4_000_000_000), min_size=1, max_size=6))
def test_a_finished_name_tells_whose_it_is_and_sorts_behind_the_earlier_ones(
    name: str, times: list[int]
) -> None:
    if name_problem(name, finishing=True):
        return
    made: list[str] = []
    for now in times:
        new = finished_name(name, now, [*made, "other.20991231T235959Z-0009.log"])
        parsed = parse_name(new)
        assert parsed.current == name
        assert all(
            (parse_name(old).stamp, parse_name(old).number) < (parsed.stamp, parsed.number) for old in made
        )
        for packed in (".zst", ".gz"):
            assert parse_name(new + packed) == Name(name, parsed.stamp, parsed.number, packed)
        made.append(new)


@pytest.mark.parametrize(
    ("name", "finished"),
    [
        ("x.ndjson", "x.20261123T200626Z-0001.ndjson"),
        ("x", "x.20261123T200626Z-0001"),
        ("api.v1", "api.20261123T200626Z-0001.v1"),
        (".hidden", ".hidden.20261123T200626Z-0001"),
        ("x.log.gz", "x.log.gz.20261123T200626Z-0001"),
        ("1.2.3", "1.2.3.20261123T200626Z-0001"),
    ],
)
def test_the_extension_stays_last(name: str, finished: str) -> None:
    assert finished_name(name, at(), []) == finished


formats = st.lists(
    st.sampled_from([f"%{d}" for d in "YymbBdjGVuaAFHMST%"] + ["-", ".", "_", "(", "*", "x"]),
    min_size=1,
    max_size=8,
).map("".join)


@given(format_=formats, now=st.integers(0, 4_000_000_000), name=names)
def test_what_a_template_makes_at_any_time_belongs_to_the_family(format_: str, now: int, name: str) -> None:
    try:
        template = Template.parse(f"{{container.name}}{{time:{format_}}}.log")
    except TemplateError:  # without a directive
        return
    path = template.bind(origin(name), escape_file_name)
    record = Record("", "stdout", datetime.fromtimestamp(now, UTC).isoformat()[:19] + "Z")
    family = family_of(path).render(record)
    pattern = component_pattern(family)
    assert timed(family)
    assert pattern is not None
    assert pattern.fullmatch(path.render(record))
    assert current_path(family, now) == path.render(record)
    assert not pattern.fullmatch(f"{path.render(record)}.txt")


def test_nothing_newer_goes_before_something_older() -> None:
    def file(number: int, size: int, age_s: float) -> FinishedFile:
        return FinishedFile(f"f{number}", Name("f", "20261123T200626Z", number), size, at(-age_s))

    files = [file(1, 1, 50), file(2, 100, 40), file(3, 10, 30), file(4, 10, 20)]
    bounds: dict[str, Any] = {"live_bytes": 10, "keep": None, "age_s": None, "total_bytes": None, "now": at()}
    gone = [(f.path, why) for f, why in surplus(files, **bounds | {"total_bytes": 60})]
    assert gone == [("f1", "total"), ("f2", "total")]
    assert [f.path for f, _ in surplus(files, **bounds | {"keep": 1})] == ["f1", "f2", "f3"]
    assert [f.path for f, _ in surplus(files, **bounds | {"age_s": 35})] == ["f1", "f2"]
    assert surplus(files, **bounds) == []


# --- options ----------------------------------------------------------------------------------------


def test_a_uri_means_the_same_as_the_options() -> None:
    uri = urlsplit("file:///logs/{container.name}/a%20b-{time:%Y-%m-%d}.log?format=raw&rotate.size=100MiB")
    options = FileSink.options_from_uri(uri, {"format": "raw", "rotate.size": "100MiB"})
    assert options == {
        "path": "/logs/{container.name}/a b-{time:%Y-%m-%d}.log",
        "format": "raw",
        "rotate": {"size": "100MiB"},
    }
    assert FileOptions.model_validate(options).rotate.size == 100 << 20
    with pytest.raises(ValueError, match="write file:///logs/x"):
        FileSink.options_from_uri(urlsplit("file://logs/x"), {})


@pytest.mark.parametrize("mode", ["0640", 640, 0o640, "640"])
def test_a_mode_means_the_same_however_it_is_written(mode: object) -> None:
    assert FileOptions.model_validate({"path": "/x", "mode": mode}).mode == 0o640


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"path": "/logs/{container.nam}"}, "container.nam"),
        ({"path": "/logs/"}, "names no file"),
        ({"path": "/logs/../x"}, "must not contain"),
        ({"path": "/logs/{time}.log"}, "write {time:%Y-%m-%d}"),
        ({"path": "/x", "format": "yaml"}, "unknown format 'yaml'"),
        ({"path": "/x", "mode": "0999"}, "permissions such as 0640"),
        ({"path": "/x", "rotate": {"sise": 1}}, "sise"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError) as told:
        FileOptions.model_validate(options)
    assert what in str(told.value)


def test_zstandard_is_not_imported_unless_it_is_configured() -> None:
    code = "import sys, logroute.sinks.file; sys.exit('zstandard' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
