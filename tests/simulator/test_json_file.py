"""The json-file log on disk: rotation, compression, and the cursors that read through both."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logroute.simulator.json_file import JsonFileLog
from logroute.simulator.quirks import Quirks
from logroute.simulator.reading import Entry, LogReadError
from logroute.simulator.records import Piece, json_line

LINE_BYTES = len(json_line(Piece(b"0000\n", "stdout", 1)))


class Chain(JsonFileLog):
    """A log that numbers its lines."""

    written = 0

    def write(self, count: int) -> None:
        for _ in range(count):
            self.append(json_line(Piece(b"%04d\n" % self.written, "stdout", 1)), 1)
            self.written += 1


def make_log(
    folder: Path,
    *,
    lines_per_file: int | None = 10,
    max_file: int = 3,
    compress: bool = False,
    quirks: Quirks | None = None,
    later=lambda step: step(),
    clock=lambda: 0,
) -> Chain:
    log = Chain(
        folder / "id-json.log",
        max_size=None if lines_per_file is None else lines_per_file * LINE_BYTES,
        max_file=max_file,
        compress=compress,
        quirks=quirks or Quirks(),
        later=later,
        clock=clock,
    )
    log.open()
    return log


def numbers(entries: list[Entry]) -> list[int]:
    return [int(entry.log) for entry in entries]


def read_all(cursor) -> list[int]:
    found = []
    while entries := cursor.read():
        found += numbers(entries)
    return found


def in_file(path: Path) -> list[int]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [int(json.loads(line)["log"]) for line in data.splitlines()]


def test_a_full_file_becomes_1_and_1_becomes_2_and_2_is_gone(tmp_path: Path):
    log = make_log(tmp_path)
    log.write(45)
    assert [(path.name, in_file(path)) for path in log.files()] == [
        ("id-json.log.2", list(range(20, 30))),
        ("id-json.log.1", list(range(30, 40))),
        ("id-json.log", list(range(40, 45))),
    ]
    assert log.rotations == 4
    log.close()


def test_the_record_that_fills_a_file_is_whole_in_it(tmp_path: Path):
    log = make_log(tmp_path)
    log.max_size = 10 * LINE_BYTES - 5
    log.write(11)
    assert in_file(tmp_path / "id-json.log.1") == list(range(10))
    log.close()


def test_rotation_reuses_a_few_inodes(tmp_path: Path):
    log = make_log(tmp_path)
    inodes = set()
    for _ in range(15):
        log.write(10)
        inodes.add(log.path.stat().st_ino)
    assert len(inodes) < 8
    log.close()


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 12), st.integers(1, 5))
def test_in_bulk_the_files_are_cut_where_single_lines_cut_them(
    tmp_path_factory: pytest.TempPathFactory, bulks: list[int], lines_per_file: int, max_file: int
):
    one = make_log(tmp_path_factory.mktemp("one"), lines_per_file=lines_per_file, max_file=max_file)
    bulk = make_log(tmp_path_factory.mktemp("bulk"), lines_per_file=lines_per_file, max_file=max_file)
    for count in bulks:
        first = one.written
        one.write(count)
        lines = [json_line(Piece(b"%04d\n" % n, "stdout", 1)) for n in range(first, one.written)]
        bulk.append(b"".join(lines), 1)
    assert [in_file(path) for path in bulk.files()] == [in_file(path) for path in one.files()]
    assert bulk.size == one.size
    one.close()
    bulk.close()


@pytest.mark.parametrize("renames", [False, True])
def test_with_one_file_a_full_log_is_removed_or_becomes_1_that_nobody_reads(tmp_path: Path, renames: bool):
    log = make_log(tmp_path, max_file=1, quirks=Quirks(renames_single_file=renames))
    with log.path.open("rb") as held:
        log.write(15)
        assert os.fstat(held.fileno()).st_nlink == renames
        log.write(10)
        assert os.fstat(held.fileno()).st_nlink == 0
    assert log.files() == [log.path]
    assert in_file(log.path) == list(range(20, 25))
    assert read_all(log.cursor(tail=None, follow=False)) == list(range(20, 25))
    older = tmp_path / "id-json.log.1"
    assert (in_file(older) if older.exists() else None) == (list(range(10, 20)) if renames else None)
    log.close()


def test_compression_comes_later_and_the_next_rotation_waits_for_it(tmp_path: Path):
    pending = []
    log = make_log(tmp_path, max_file=4, compress=True, later=pending.append)
    log.write(11)
    assert [path.name for path in log.files()] == ["id-json.log.1", "id-json.log"]
    log.write(10)
    assert [path.name for path in log.files()] == ["id-json.log.2.gz", "id-json.log.1", "id-json.log"]
    for step in pending:
        step()
    assert [path.name for path in log.files()] == ["id-json.log.2.gz", "id-json.log.1.gz", "id-json.log"]
    assert [in_file(path) for path in log.files()] == [list(range(10)), list(range(10, 20)), [20]]
    log.close()


def test_the_gzip_header_tells_the_time_of_the_last_record(tmp_path: Path):
    log = make_log(tmp_path, compress=True)
    log.append(json_line(Piece(b"0000\n", "stdout", 1)) * 10, 1_700_000_000_500_000_000)
    log.write(1)
    header = (tmp_path / "id-json.log.1.gz").read_bytes()
    assert b'{"lastTime":"2023-11-14T22:13:20.5Z"}' in header[:64]
    log.close()


def test_a_restarted_container_goes_on_in_the_same_file(tmp_path: Path):
    log = make_log(tmp_path)
    log.write(3)
    log.close()
    log.open()
    log.write(8)
    assert in_file(tmp_path / "id-json.log.1") == list(range(10))
    log.close()


@given(
    st.lists(st.tuples(st.integers(0, 25), st.booleans()), max_size=15),
    st.integers(1, 4),
    st.booleans(),
)
def test_a_follower_reads_every_line_once_through_all_rotations(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, bool]], max_file: int, compress: bool
):
    log = make_log(
        tmp_path_factory.mktemp("log"),
        max_file=max_file,
        compress=compress,
        quirks=Quirks(renames_single_file=False),
    )
    cursor = log.cursor(tail=None, follow=True)
    read: list[int] = []
    for count, reads in steps:
        log.write(count)
        if reads:
            read += read_all(cursor)
    log.close()
    assert read + read_all(cursor) == list(range(log.written))
    assert cursor.ended
    cursor.close()


@pytest.mark.parametrize(
    ("glitch", "expected"),
    [
        ("none", list(range(45))),
        ("skips", [*range(10), *range(40, 45)]),
        ("skips and repeats", [*range(10), *range(40, 45), *range(40, 45), *range(40, 45), *range(40, 45)]),
    ],
)
def test_a_glitching_follower_skips_and_repeats_when_the_log_is_rotated_quickly(
    tmp_path: Path, glitch, expected: list[int]
):
    log = make_log(tmp_path, quirks=Quirks(rotation_glitch=glitch))
    cursor = log.cursor(tail=None, follow=True)
    log.write(45)
    assert read_all(cursor) == expected
    log.write(1)
    assert read_all(cursor) == [45]
    log.close()
    cursor.close()


def test_a_glitching_follower_that_keeps_up_loses_nothing(tmp_path: Path):
    log = make_log(tmp_path, quirks=Quirks(rotation_glitch="skips and repeats"))
    cursor = log.cursor(tail=None, follow=True)
    read = []
    for _ in range(45):
        log.write(1)
        read += read_all(cursor)
    assert read == list(range(45))
    log.close()
    cursor.close()


@pytest.mark.parametrize("glitch", ["none", "skips"])
def test_a_follower_opened_during_a_rotation_stands_still_and_then_leaves_out_a_file(tmp_path: Path, glitch):
    now = 0
    quirks = Quirks(opening_race_s=1.0, rotation_glitch=glitch)
    log = make_log(tmp_path, quirks=quirks, clock=lambda: now)
    log.write(12)
    cursor = log.cursor(tail=None, follow=True)
    assert read_all(cursor) == list(range(10))
    log.write(8)
    assert read_all(cursor) == []
    log.write(3)
    assert read_all(cursor) == [20, 21, 22]
    assert read_all(log.cursor(tail=None, follow=False)) == list(range(23))
    now = 1_000_000_000
    late = log.cursor(tail=None, follow=True)
    assert read_all(late) == list(range(23))
    late.close()
    now = -1_000_000_000  # set back since
    late = log.cursor(tail=None, follow=True)
    assert read_all(late) == list(range(23))
    log.close()
    late.close()
    cursor.close()


def test_a_reader_that_does_not_follow_ends_where_the_log_ended_when_it_came(tmp_path: Path):
    log = make_log(tmp_path)
    log.write(25)
    cursor = log.cursor(tail=None, follow=False)
    log.write(50)
    assert cursor.ended
    assert read_all(cursor) == list(range(25))
    log.close()
    cursor.close()


def test_a_run_s_follower_does_not_see_the_next_run(tmp_path: Path):
    log = make_log(tmp_path)
    cursor = log.cursor(tail=0, follow=True)
    log.write(3)
    log.close()
    log.open()
    log.write(3)
    assert read_all(cursor) == [0, 1, 2]
    log.close()
    cursor.close()


@given(st.integers(0, 60), st.integers(0, 40), st.booleans())
def test_tail_counts_back_through_the_files(
    tmp_path_factory: pytest.TempPathFactory, written: int, tail: int, compress: bool
):
    log = make_log(tmp_path_factory.mktemp("log"), compress=compress)
    log.write(written)
    there = [number for path in log.files() for number in in_file(path)]
    cursor = log.cursor(tail=tail, follow=False)
    assert read_all(cursor) == (there[-tail:] if tail else [])
    log.close()
    cursor.close()


def test_removal_takes_the_files_and_leaves_readers_what_they_hold(tmp_path: Path):
    log = make_log(tmp_path)
    log.write(25)
    cursor = log.cursor(tail=None, follow=True)
    log.remove()
    assert list(tmp_path.iterdir()) == []
    assert read_all(cursor) == list(range(25))
    cursor.close()


def test_a_broken_line_ends_the_reading_with_the_engine_s_error(tmp_path: Path):
    log = make_log(tmp_path, lines_per_file=None)
    log.write(2)
    with log.path.open("ab") as file:
        file.write(b"\0\0\0\n")
    cursor = log.cursor(tail=None, follow=False)
    with pytest.raises(LogReadError, match="looking for beginning of value") as error:
        cursor.read()
    assert numbers(error.value.good) == [0, 1]
    log.close()
    cursor.close()
