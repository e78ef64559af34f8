"""Files of programs, through the file source."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from logroute.sources import SourceContext
from logroute.sources import file as module
from logroute.sources.file import FileSource, FileSourceOptions
from logroute.sources.log_file import LogFile
from tests.sources.stand_ins import Routes, refuse


@asynccontextmanager
async def reading(
    routes: Routes, paths: Path | Sequence[Path], *, limit: int = 1 << 20, **options: Any
) -> AsyncIterator[FileSource]:
    """A source that reads these, from the beginning unless it is told otherwise."""
    given = [paths] if isinstance(paths, Path) else paths
    options = {"start": "beginning", **options, "paths": [str(path) for path in given]}
    source = FileSource(
        FileSourceOptions.model_validate(options), SourceContext("files", record_limit_bytes=limit)
    )
    async with trio.open_nursery() as nursery:
        start: Any = lambda task_status: source.run(routes, routes, task_status=task_status)  # noqa: E731
        await nursery.start(start)
        yield source
        nursery.cancel_scope.cancel()


async def read_once(routes: Routes, path: Path, **options: Any) -> list[str]:
    source = FileSource(
        FileSourceOptions.model_validate({"start": "beginning", "paths": [str(path)], **options}),
        SourceContext("files", once=True),
    )
    with trio.fail_after(20):
        await source.run(routes, routes, task_status=trio.TASK_STATUS_IGNORED)
    return routes.messages


def append(path: Path, text: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(text.encode() if isinstance(text, str) else text)


def compress(path: str) -> None:
    with open(path, "rb") as plain, gzip.open(f"{path}.gz", "wb") as packed:
        packed.write(plain.read())
    os.unlink(path)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits seconds for programs that write to a renamed file waits less here."""
    monkeypatch.setattr(module, "SCAN_S", 0.05)
    monkeypatch.setattr("logroute.sources.log_file.LINGER_S", 0.2)
    monkeypatch.setattr("logroute.sources.watched_folders.POLL_S", 0.05)


async def test_lines_are_records(log: Path) -> None:
    routes = Routes()
    append(log, b"one\n\n  two \xff\r\nthree\n")
    async with reading(routes, log):
        assert await routes.until(4) == ["one", "", "  two \ufffd\r", "three"]
        append(log, "four\nfi")
        assert (await routes.until(5))[4:] == ["four"]
        append(log, "ve\n")
        assert (await routes.until(6))[5:] == ["five"]
    origin, record = routes.records[0]
    assert (origin.file, origin.key, record.stream) == (str(log), f"file:{log}", "stdout")
    assert len({origin.record_id(record) for origin, record in routes.records}) == 6


async def test_ids_are_the_same_however_often_it_is_read(log: Path) -> None:
    append(log, "".join(f"line {n}\n" for n in range(2000)))
    ids = []
    for _ in range(2):
        routes = Routes()
        await read_once(routes, log)
        ids.append([origin.record_id(record) for origin, record in routes.records])
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2000


async def test_stop_and_start_lose_and_repeat_nothing(log: Path) -> None:
    routes = Routes()
    append(log, "one\ntwo\nthr")
    async with reading(routes, log):
        await routes.until(2)
    append(log, "ee\nfour\n")
    async with reading(routes, log):
        assert await routes.until(4) == ["one", "two", "three", "four"]
    assert not routes.losses


async def test_what_was_there_before_is_left_out_and_what_comes_later_is_not(tmp_path: Path) -> None:
    routes = Routes()
    old, new = tmp_path / "old.log", tmp_path / "new.log"
    append(old, "before\nunfinis")
    async with reading(routes, tmp_path / "*.log", start="now"):
        append(old, "hed\n")
        await routes.until(1)
        append(new, "first line\n")
        assert sorted(await routes.until(2)) == ["first line", "unfinished"]
    # Whatever the clocks say of when they came to be.
    assert (routes.began[str(old)].new, routes.began[str(new)].new) == (False, True)


async def test_lines_that_are_none_of_the_format_are_counted_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no record of them: nothing else would tell that they were there."""
    routes = Routes()
    log, other = tmp_path / "1-json.log", tmp_path / "2-json.log"
    good = b'{"log":"good\\n","stream":"stdout","time":"2026-11-23T20:06:26.1Z"}\n'
    append(log, good + b'plain text line\n{"foo":1}\n\n\0\0\n' + b"x" * 900_000 + b"\n" + good)
    async with reading(routes, [log, other], format="docker") as source:
        await routes.until(2)
        assert source.context.errors["corrupt_line"] >= 3
        assert source.known()[0].corrupt_lines == source.context.errors["corrupt_line"]
        append(other, b"more\n" + good)
        await routes.until(3)
        said = capsys.readouterr().out
        assert said.count("are left out") == 1
        assert str(log) in said
    assert str(other) in capsys.readouterr().out


async def test_json_leaves_out_nothing(log: Path) -> None:
    routes = Routes()
    append(log, b'plain\n{"msg":"a"}\n[1]\n{"torn\n')
    async with reading(routes, log, format="json") as source:
        assert await routes.until(4) == ["plain", "a", "[1]", '{"torn']
        assert not source.context.errors


async def test_renamed_files_are_read_to_the_end_of_what_their_writer_writes(log: Path) -> None:
    routes = Routes()
    writer = log.open("ab", buffering=0)
    writer.write(b"1\n")
    async with reading(routes, log):
        await routes.until(1)
        os.rename(log, f"{log}.1")
        append(log, b"3\n")
        # Not told yet that its file was renamed.
        writer.write(b"2\nhalf a line")
        writer.close()
        append(log, "4\n")
        assert await routes.until(5) == ["1", "2", "half a line", "3", "4"]
    assert not routes.losses


async def test_a_file_that_is_copied_and_truncated(log: Path) -> None:
    routes = Routes()
    append(log, "1\n2\n")
    async with reading(routes, log):
        await routes.until(2)
        with log.open("r+b") as file:
            file.truncate(0)
        append(log, "3\n")
        assert await routes.until(3) == ["1", "2", "3"]
    assert not routes.losses


HOLE = 3 << 30
"""No disk has so much to read within the time of a test, nor this process the memory."""


@pytest.fixture
def holes(tmp_path: Path) -> None:
    with (tmp_path / "probe").open("wb") as file:
        file.truncate(HOLE)
        try:
            os.lseek(file.fileno(), 0, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
        pytest.skip("the file system knows no holes")


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed empty", "noticed later"])
async def test_a_file_that_is_truncated_under_a_program_that_does_not_append(
    log: Path, holes: None, noticed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """It goes on where it was. Before that is a hole, gigabytes of NULs: no line, and none of a line."""
    routes = Routes()
    with log.open("wb", buffering=0) as writer:
        writer.write(b"0\n")
        async with reading(routes, log) as source:
            await routes.until(1)
            writer.seek(HOLE)
            os.truncate(log, 0)
            if noticed:
                await trio.sleep(0.2)
            writer.write(b"1\n2\nhal")
            assert await routes.until(3) == ["0", "1", "2"]
            assert source.context.errors == {"hole": 1}
        writer.write(b"f\n")
        async with reading(routes, log) as source:
            assert await routes.until(4) == ["0", "1", "2", "half"]
            os.truncate(log, 0)
            writer.write(b"3\n4\n")
            assert await routes.until(6) == ["0", "1", "2", "half", "3", "4"]
            assert source.context.errors == {"hole": 1}
    assert capsys.readouterr().out.count("begins with a hole") == 2
    assert len({origin.record_id(record) for origin, record in routes.records}) == 6
    assert not routes.losses


async def test_a_hole_that_came_while_nobody_read(log: Path) -> None:
    """As logrotate does it: what was not read yet stands in the copy."""
    routes = Routes()
    with log.open("wb", buffering=0) as writer:
        for round_ in range(3):
            writer.write(b"%d\n" % (2 * round_))
            async with reading(routes, log):
                await routes.until(2 * round_ + 1)
            writer.write(b"%d\n" % (2 * round_ + 1))
            shutil.copyfile(log, f"{log}.1")
            os.truncate(log, 0)
            writer.seek(100_000 * (round_ + 1))
        writer.write(b"6\n")
        async with reading(routes, log):
            assert await routes.until(7) == ["0", "1", "2", "3", "4", "5", "6"]
    assert not routes.losses
    assert len({origin.record_id(record) for origin, record in routes.records}) == 7


@pytest.mark.parametrize("format", ["text", "json", "docker"])
async def test_nuls_at_the_beginning_of_a_file_are_none_of_its_first_line(log: Path, format: str) -> None:
    """Where the file system has no holes, they are read."""
    line = '{"log":"%s\\n","stream":"stdout","time":"2026-11-23T20:06:26.1Z"}\n'
    append(log, bytes(5_000_000))
    routes = Routes()
    async with reading(routes, log, format=format) as source:
        await trio.sleep(0.3)
        append(log, line % "one")
        await routes.until(1)
        append(log, line % "two" + "\0x\n")
        await routes.until(2 if format == "docker" else 3)
        assert source.context.errors.get("hole") == 1
    if format != "docker":
        assert routes.messages[-1] == "\0x"
    assert not any("\0" in message for message in routes.messages[:2])
    again = Routes()
    await read_once(again, log, format=format)
    assert again.messages == routes.messages
    ids = [[origin.record_id(record) for origin, record in each.records] for each in (routes, again)]
    assert ids[0] == ids[1]


async def test_a_file_that_is_nothing_but_a_hole_ends(log: Path, holes: None) -> None:
    with log.open("wb") as file:
        file.truncate(HOLE)
    routes = Routes()
    assert await read_once(routes, log) == []
    os.rename(log, f"{log}.1")
    append(log, "1\n")
    assert await read_once(routes, log) == ["1"]


async def test_a_compressed_file_may_begin_with_nuls(log: Path) -> None:
    append(log, bytes(3_000_000) + b"1\n")
    os.rename(log, f"{log}.1")
    compress(f"{log}.1")
    append(log, "2\n")
    assert await read_once(Routes(), log) == ["1", "2"]


async def test_a_file_that_is_filled_from_its_front_is_read_from_there(log: Path) -> None:
    """Room was made for it before anything was written."""
    append(log, bytes(100_000))
    routes = Routes()
    async with reading(routes, log):
        await trio.sleep(0.2)
        with log.open("r+b") as file:
            file.write(b"1\n2\n")
        assert (await routes.until(2))[:2] == ["1", "2"]


async def test_the_end_of_a_file_with_a_hole_is_found(log: Path, holes: None) -> None:
    with log.open("wb", buffering=0) as writer:
        writer.seek(HOLE)
        writer.write(b"old\nunfinis")
        routes = Routes()
        async with reading(routes, log, start="now"):
            writer.write(b"hed\nnew\n")
            assert await routes.until(2) == ["unfinished", "new"]


@pytest.mark.parametrize("header", ["# fields: time message\n", "# a\n# b\n"])
async def test_files_that_all_begin_with_the_same_lines_are_told_apart(log: Path, header: str) -> None:
    routes = Routes()
    append(log, f"{header}one\n")
    lines = header.count("\n")
    async with reading(routes, log):
        await routes.until(lines + 1)
        os.rename(log, f"{log}.1")
        append(log, header)
        await routes.until(2 * lines + 1)
    async with reading(routes, log):
        append(log, "two\n")
        await routes.until(2 * lines + 2)
    assert routes.messages == [*f"{header}one\n{header}two".split("\n")]


@pytest.mark.parametrize("next_file", [True, False])
@pytest.mark.parametrize("linger_s", [0.2, 0.0], ids=["held", "left"])
async def test_a_file_whose_new_name_matches_as_well_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, next_file: bool, linger_s: float
) -> None:
    monkeypatch.setattr(module, "MISSING_S", 0.2)
    monkeypatch.setattr("logroute.sources.log_file.LINGER_S", linger_s)
    routes = Routes()
    log, renamed = tmp_path / "app.log", tmp_path / "app-2026-11-27.log"
    append(log, "1\n2\n")
    expected = ["1", "2", "3", "5", "6"]
    async with reading(routes, tmp_path / "*.log"):
        await routes.until(2)
        log.rename(renamed)
        append(renamed, "3\n")  # by who has not been told yet
        await routes.until(3)
        if next_file:
            append(log, "4\n")
            expected.insert(3, "4")
        await routes.until(len(expected) - 2)
        await routes.until_met(renamed)
        append(renamed, "5\n")  # somebody goes on with it
        await routes.until(len(expected) - 1)
    async with reading(routes, tmp_path / "*.log"):
        append(renamed, "6\n")
        await routes.until(len(expected))
    assert routes.messages == expected


async def test_another_file_of_a_name_that_was_given_to_one_that_is_read_has_its_own_lines(
    tmp_path: Path,
) -> None:
    routes = Routes()
    log, renamed = tmp_path / "app.log", tmp_path / "old.log"
    append(log, "1\n")
    async with reading(routes, tmp_path / "*.log"):
        await routes.until(1)
        log.rename(renamed)
        append(log, "2\n")
        await routes.until(2)
        append(tmp_path / "new", "3\n")
        (tmp_path / "new").rename(renamed)
        await routes.until(3)
    assert routes.messages == ["1", "2", "3"]


async def test_what_was_rotated_while_nobody_read_is_read_first(tmp_path: Path, log: Path) -> None:
    routes = Routes()
    append(log, "1\n2\n")
    async with reading(routes, tmp_path / "*"):
        await routes.until(2)
    append(log, "3\n")
    os.rename(log, f"{log}.2")
    compress(f"{log}.2")
    append(Path(f"{log}.1"), "4\n")
    append(log, "5\n")
    os.utime(f"{log}.1", (1, 1))
    async with reading(routes, tmp_path / "*"):
        assert await routes.until(5) == ["1", "2", "3", "4", "5"]
    assert not routes.losses
    assert {origin.file for origin, _ in routes.records} == {str(log)}


async def test_a_removed_file_is_read_to_its_end_and_another_one_there_from_its_beginning(log: Path) -> None:
    routes = Routes()
    append(log, "1\n")
    async with reading(routes, log):
        await routes.until(1)
        append(log, "2\nno newline")
        os.unlink(log)
        await routes.until(3)
        with trio.fail_after(10):
            await routes.some_gone.wait()
        append(log, "another\n")
        assert await routes.until(4) == ["1", "2", "no newline", "another"]
    assert not routes.losses


async def test_once_reads_to_the_end_and_includes_a_line_without_newline(log: Path) -> None:
    routes = Routes()
    append(log, "1\n2")
    assert await read_once(routes, log) == ["1", "2"]
    assert await read_once(routes, log) == ["1", "2"]
    append(log, "\n3\n")
    # What was a line by then is one, so the rest of it is another.
    assert (await read_once(routes, log))[2:] == ["", "3"]


async def test_a_long_line_is_truncated_and_the_rest_of_it_discarded(log: Path) -> None:
    routes = Routes()
    append(log, b"short\n" + b"x" * 3_000_000 + b"\nafter\n")
    async with reading(routes, log, limit=100_000):
        assert [m[:5] for m in await routes.until(3)] == ["short", "xxxxx", "after"]
    _, record = routes.records[1]
    assert (len(record.message), record.truncated) == (100_000, True)


async def test_a_truncated_line_goes_on_being_discarded_after_a_start(log: Path) -> None:
    routes = Routes()
    append(log, "x" * 300_000)
    async with reading(routes, log, limit=1_000):
        append(log, "y" * 600_000)
        await routes.until(1)
    append(log, "z\nnext\n")
    async with reading(routes, log, limit=1_000):
        assert [m[:4] for m in await routes.until(2)] == ["xxxx", "next"]


async def test_json_lines_become_message_time_level_and_fields(log: Path) -> None:
    routes = Routes()
    append(
        log,
        '{"time":"2026-11-23T21:06:26.5+01:00","level":"WARN","msg":"slow","took":1.5,"stream":"stderr"}\n'
        '{"@timestamp":"2026-11-23T20:06:26.123456789Z","message":"m"}\n'
        "no object\n"
        '{"time":"yesterday","message":5}\n',
    )
    async with reading(routes, log, format="json"):
        await routes.until(4)
    first, second, third, fourth = [record for _, record in routes.records]
    assert (first.time, first.level, first.message) == ("2026-11-23T20:06:26.500000000Z", "warn", "slow")
    assert (first.stream, first.fields) == ("stderr", {"took": 1.5})
    assert (second.time, second.fields) == ("2026-11-23T20:06:26.123456789Z", None)
    assert (third.message, third.fields) == ("no object", None)
    assert fourth.message == '{"time":"yesterday","message":5}'
    assert fourth.fields == {"time": "yesterday", "message": 5}


async def test_the_engines_files_have_the_ids_that_the_engine_s_containers_have(tmp_path: Path) -> None:
    routes = Routes()
    path = tmp_path / f"{'ab' * 32}-json.log"
    append(path, '{"log":"hello\\n","stream":"stderr","time":"2026-11-23T20:06:26.1234567Z"}\n')
    async with reading(routes, tmp_path / "*-json.log", format="docker"):
        assert await routes.until(1) == ["hello"]
    origin, record = routes.records[0]
    assert origin.record_id(record) == "abababababab-e2026-11-23T20:06:26.123456700Z"


async def test_a_pattern_reads_no_rotated_file_as_another_one(tmp_path: Path) -> None:
    routes = Routes()
    for name in ("a.log", "a.log.1", "a.log-20261101", "a.log.2.gz", "b.log.1"):
        append(tmp_path / name, "" if name.endswith("gz") else f"{name}\n")
        os.utime(tmp_path / name, (1, 1))
    async with reading(routes, tmp_path / "*"):
        await routes.until(4)
    assert {(origin.file.rpartition("/")[2], record.message) for origin, record in routes.records} == {
        ("a.log", "a.log-20261101"),
        ("a.log", "a.log.1"),
        ("a.log", "a.log"),
        ("b.log.1", "b.log.1"),
    }


@pytest.mark.parametrize(
    "name",
    [
        "app.log.2026-11-26",  # Python's TimedRotatingFileHandler, log4j
        "app.log.2026-11-26_20",
        "app.log.2026-11-26-20-15",
        "app.log.2026-11-26_20-15-07",
        "app.log-20261126",
        "app.log.2026-11-26.1",
    ],
)
async def test_dates_that_programs_append_to_names_are_rotations(
    tmp_path: Path, log: Path, name: str
) -> None:
    routes = Routes()
    append(log, "1\n")
    async with reading(routes, tmp_path / "*"):
        await routes.until(1)
    append(log, "2\n")
    os.rename(log, tmp_path / name)
    append(log, "3\n")
    async with reading(routes, tmp_path / "*"):
        await routes.until(3)
    assert routes.messages == ["1", "2", "3"]
    assert not routes.losses


async def test_compressed_files_that_cannot_be_read_are_left_out(
    tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    routes = Routes()
    for name in ("app.log.1.xz", "other.zst", "app.log.2026-11-26.bz2"):
        append(tmp_path / name, "garbage\n")
    append(log, "1\n")
    async with reading(routes, tmp_path / "*"):
        await routes.until(1)
        append(log, "2\n")
        await routes.until(2)
    assert routes.messages == ["1", "2"]
    assert capsys.readouterr().out.count("compressed files are left out") == 1


async def test_start_with_a_duration_begins_with_files_of_that_time(log: Path) -> None:
    routes = Routes()
    append(Path(f"{log}.1"), "old\n")
    os.utime(f"{log}.1", (1, 1))
    append(log, "new\n")
    async with reading(routes, log, start="1h"):
        assert await routes.until(1) == ["new"]


def test_relative_paths_are_refused() -> None:
    with pytest.raises(ValueError, match="not an absolute path"):
        FileSourceOptions.model_validate({"paths": ["app.log"]})


async def test_a_file_that_cannot_be_opened_again_for_now_is_read_on_later(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    routes = Routes()
    append(log, "one\n")
    fetch = LogFile.fetch

    def fails(*args: Any) -> Any:
        monkeypatch.setattr(LogFile, "fetch", fetch)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with reading(routes, log):
        await routes.until(1)
        refuse(monkeypatch, log, errno.EMFILE, times=3)
        monkeypatch.setattr(LogFile, "fetch", fails)
        append(log, "two\n")
        assert await routes.until(2) == ["one", "two"]
    assert routes.losses == []


async def test_a_line_of_which_a_piece_was_read_when_reading_failed_has_it_once(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    routes = Routes()
    piece = '{"log":"%s","stream":"stdout","time":"2026-11-23T20:06:26.000000001Z"}\n'
    append(log, piece % "whole\\n" + piece % "begins, ")
    fetch = LogFile.fetch

    def fails(*args: Any) -> Any:
        monkeypatch.setattr(LogFile, "fetch", fetch)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with reading(routes, log, format="docker"):
        await routes.until(1)
        monkeypatch.setattr(LogFile, "fetch", fails)
        append(log, piece % "ends\\n")
        assert await routes.until(2) == ["whole", "begins, ends"]


@pytest.mark.parametrize("gap_s", [0.0, 0.05, 0.5])
async def test_rotation_that_leaves_no_file_for_a_while_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gap_s: float
) -> None:
    """As logrotate does with `create`, or a program that makes the next file when it has something to say."""
    monkeypatch.setattr(module, "MISSING_S", 0.2)
    monkeypatch.setattr(module, "SCAN_S", 0.1)
    path = tmp_path / "app.log"
    path.touch()
    routes = Routes()
    async with reading(routes, tmp_path / "*.log"):
        for turn in range(4):
            append(path, f"{turn} a\n{turn} b\n")
            await routes.until(2 * (turn + 1))
            for number in range(turn, 0, -1):
                os.rename(f"{path}.{number}", f"{path}.{number + 1}")
            os.rename(path, f"{path}.1")
            await trio.sleep(gap_s)
            path.touch()
        append(path, "end\n")
        await routes.until(9)
        await trio.sleep(0.5)
        assert routes.messages == [f"{turn} {line}" for turn in range(4) for line in "ab"] + ["end"]


async def test_a_file_that_cannot_be_opened_at_first_begins_where_start_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.1)
    monkeypatch.setattr(module, "SCAN_S", 0.05)
    path = tmp_path / "app.log"
    append(path, "old\n")
    real, refused = LogFile.open, [True]

    def open_(self: LogFile) -> bool:
        if refused[0]:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(self)

    monkeypatch.setattr(LogFile, "open", open_)
    routes = Routes()
    async with reading(routes, path, start="now") as source:
        assert not source.known()
        refused[0] = False
        with trio.fail_after(20):
            while not source.known():  # noqa: ASYNC110  # nobody tells
                await trio.sleep(0.02)
        append(path, "new\n")
        await routes.until(1)
        assert routes.messages == ["new"]


async def test_a_file_that_is_drained_while_another_is_looked_for_harms_no_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MISSING_S", 0.05)
    monkeypatch.setattr(module, "SCAN_S", 0.05)
    real = os.path.exists

    def slow(path: str) -> bool:
        time.sleep(0.1)  # in a thread, as on a busy disk
        return real(path)

    names = [tmp_path / f"{letter}.log" for letter in "abcd"]
    for name in names:
        append(name, f"{name.stem}\n")
    routes = Routes()
    async with reading(routes, tmp_path / "*.log") as source:
        await routes.until(4)
        monkeypatch.setattr(os.path, "exists", slow)
        for name in names:
            name.unlink()
        with trio.fail_after(20):
            while source.known():  # noqa: ASYNC110  # nobody tells
                await trio.sleep(0.02)
        append(tmp_path / "e.log", "e\n")
        await routes.until(5)
