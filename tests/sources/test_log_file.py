"""A json-file log on disk, written here as moby writes it: rotation, truncation, pieces, checkpoints."""

from __future__ import annotations

import errno
import gzip
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from logroute.router.position import BEGINNING, Mark, Position
from logroute.router.record import Batch, Origin, Record
from logroute.sources import Lost
from logroute.sources.log_file import BUFFER_BYTES, LINGER_S, LogFile
from logroute.sources.log_formats import FormatName
from tests.sources.stand_ins import refuse

ORIGIN = Origin("docker:1", "docker", id="3b74a877e0f9" + "0" * 52, name="web")


def time_of(number: int) -> str:
    return f"2026-11-23T20:{number // 60 % 60:02}:{number % 60:02}.{number:06}500Z"


def line(number: int, stream: str = "stdout", *, text: str | None = None, end: str = "\n") -> bytes:
    message = f"n {number}" if text is None else text
    entry = {"log": message + end, "stream": stream, "time": time_of(number).replace("00Z", "Z")}
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def lines(first: int, last: int, stream: str = "stdout") -> bytes:
    return b"".join(line(number, stream) for number in range(first, last + 1))


class Reader:
    """A log file, read into memory."""

    def __init__(
        self,
        path: Path,
        checkpoints: dict[str, Position] | None = None,
        limit: int = 1 << 20,
        format: FormatName = "docker",
    ) -> None:
        self.log = LogFile(str(path), ORIGIN, limit=limit, format=format)
        assert self.log.open()
        self.lost = self.log.resume(checkpoints or {"all": BEGINNING})
        self.batches: list[Batch] = []

    def read(self) -> list[str]:
        """The messages that are new."""
        self.log.look()
        new: list[Batch] = []
        more = True
        while more:
            fetched = self.log.fetch(bytearray(BUFFER_BYTES), 1 << 20)
            new += self.log.parse(fetched.chunks)
            more = fetched.more
        self.batches += new
        return [record.message for batch in new for record in batch.records]

    @property
    def position(self) -> Position:
        return self.log.position


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "1-json.log"


def numbers(first: int, last: int) -> list[str]:
    return [f"n {number}" for number in range(first, last + 1)]


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def rotate(path: Path, keep: int = 2) -> None:
    for number in range(keep, 1, -1):
        older = Path(f"{path}.{number - 1}")
        if older.exists():
            older.replace(f"{path}.{number}")
    path.replace(f"{path}.1")
    path.touch()


def test_what_is_appended_is_read_once(path: Path) -> None:
    path.write_bytes(lines(1, 3))
    reader = Reader(path)
    assert reader.read() == numbers(1, 3)
    append(path, lines(4, 5))
    assert reader.read() == numbers(4, 5)
    assert reader.read() == []


def test_half_a_line_waits_for_its_other_half(path: Path) -> None:
    whole = line(1)
    path.write_bytes(whole[:20])
    reader = Reader(path)
    assert reader.read() == []
    append(path, whole[20:])
    assert reader.read() == ["n 1"]


def test_rotation_is_followed_to_the_end_of_the_old_file_first(path: Path) -> None:
    path.write_bytes(lines(1, 2))
    reader = Reader(path)
    assert reader.read() == numbers(1, 2)
    append(path, line(3))
    rotate(path)
    append(path, lines(4, 5))
    assert reader.read() == numbers(3, 5)


@pytest.mark.parametrize("ahead_s", [-3600, -1, 0, 3600])
def test_a_file_that_programs_write_to_is_read_on_until_it_is_left_alone_whatever_the_clock_says(
    path: Path, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    """The clock was set back, or forward, after it was written to last."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    path.write_bytes(b"1\n")
    reader = Reader(path, format="text")
    assert reader.read() == ["1"]
    rotate(path)
    append(path, b"3\n")
    assert reader.read() == []
    for _ in range(3):
        now += LINGER_S - 1
        append(Path(f"{path}.1"), b"2\n")
        os.utime(f"{path}.1", (time.time() + ahead_s,) * 2)
        assert reader.read() == ["2"]
    now += LINGER_S - 1
    assert reader.read() == []
    now += 2
    assert reader.read() == ["3"]


def test_a_file_that_was_left_alone_before_it_is_read_is_not_waited_for(path: Path) -> None:
    path.write_bytes(b"1\n")
    os.utime(path, (1, 1))
    rotate(path)
    append(path, b"2\n")
    assert Reader(path, format="text").read() == ["1", "2"]


def test_files_that_are_held_survive_rotation_and_removal(path: Path) -> None:
    path.write_bytes(lines(1, 2))
    reader = Reader(path)
    for first in (3, 5, 7, 9):
        rotate(path)
        append(path, lines(first, first + 1))
        reader.log.look()
    for file in path.parent.iterdir():
        file.unlink()
    assert reader.read() == numbers(1, 10)


def test_two_rotations_between_two_looks_are_found(path: Path) -> None:
    path.write_bytes(lines(1, 2))
    reader = Reader(path)
    rotate(path)
    append(path, lines(3, 4))
    rotate(path)
    append(path, lines(5, 6))
    assert reader.read() == numbers(1, 6)
    assert not reader.log.take_losses()


def test_more_rotations_than_files_are_kept_is_said(path: Path) -> None:
    path.write_bytes(lines(1, 2))
    reader = Reader(path)
    assert reader.read() == numbers(1, 2)
    for first in (3, 5, 7, 9):
        rotate(path)
        append(path, lines(first, first + 1))
    assert reader.read() == numbers(5, 10)
    assert reader.log.take_losses() == (Lost((), "rotated", time_of(2), time_of(5)),)


def test_what_is_missing_begins_behind_what_is_held_and_not_read_yet(path: Path) -> None:
    path.write_bytes(lines(1, 2))
    reader = Reader(path)
    assert reader.read() == numbers(1, 2)
    append(path, line(3))
    for first in (4, 6, 8, 10):
        rotate(path)
        append(path, lines(first, first + 1))
    assert reader.read() == [*numbers(3, 3), *numbers(6, 11)]
    assert reader.log.take_losses() == (Lost((), "rotated", time_of(3), time_of(6)),)


def test_truncation_begins_anew(path: Path) -> None:
    path.write_bytes(lines(1, 5))
    reader = Reader(path)
    assert reader.read() == numbers(1, 5)
    os.truncate(path, 0)
    append(path, lines(6, 7))
    assert reader.read() == numbers(6, 7)


def test_a_checkpoint_is_found_again_wherever_rotation_has_put_its_file(path: Path) -> None:
    path.write_bytes(lines(1, 4))
    reader = Reader(path)
    reader.read()
    position = reader.position
    append(path, line(5))
    rotate(path)
    append(path, line(6))
    rotate(path)
    append(path, line(7))
    data = Path(f"{path}.2").read_bytes()
    Path(f"{path}.2").unlink()
    Path(f"{path}.2.gz").write_bytes(gzip.compress(data))
    again = Reader(path, {"all": position})
    assert again.lost == []
    assert again.read() == numbers(5, 7)
    again.log.close()


def test_a_checkpoint_whose_file_is_gone_is_a_counted_loss(path: Path) -> None:
    path.write_bytes(lines(1, 4))
    reader = Reader(path)
    reader.read()
    path.write_bytes(lines(50, 52))
    again = Reader(path, {"all": reader.position})
    assert again.lost == [Lost(("all",), "rotated", time_of(4), time_of(50))]
    assert again.read() == numbers(50, 52)


def test_the_middle_of_a_wrong_file_is_never_read(path: Path) -> None:
    """The same inode, a longer file, the offset within it: what the engine's rotation leaves behind."""
    path.write_bytes(lines(1, 4))
    reader = Reader(path)
    reader.read()
    with path.open("r+b") as file:
        file.write(lines(100, 140))
    again = Reader(path, {"all": reader.position})
    assert again.read() == numbers(100, 140)


def test_routes_at_different_checkpoints_skip_what_they_have(path: Path) -> None:
    path.write_bytes(lines(1, 10))
    behind, ahead = Reader(path), Reader(path)
    behind.log.stop_at = (0, len(lines(1, 3)))
    ahead.log.stop_at = (0, len(lines(1, 7)))
    behind.read()
    ahead.read()
    both = Reader(path, {"behind": behind.position, "ahead": ahead.position})
    assert both.read() == numbers(4, 10)
    seen = [
        record.message
        for batch in both.batches
        for record in batch.records
        if record.stream not in (batch.acknowledged or {}).get("ahead", ())
    ]
    assert seen == numbers(8, 10)


def test_pieces_of_a_long_line_become_one_record(path: Path) -> None:
    pieces = ["a" * 16384, "b" * 16384, "c"]
    data = b"".join(line(1, text=text, end="\n" if text == "c" else "") for text in pieces)
    path.write_bytes(data + line(2))
    assert Reader(path).read() == ["".join(pieces), "n 2"]


def test_an_unfinished_line_of_one_stream_holds_back_nothing_of_the_other(path: Path) -> None:
    path.write_bytes(line(1, text="begin ", end="") + line(2, "stderr") + line(3, "stderr"))
    reader = Reader(path)
    assert reader.read() == ["n 2", "n 3"]
    # After a restart the line is read from its beginning, and stderr is not read again.
    position = reader.position
    append(path, line(1, text="end"))
    again = Reader(path, {"all": position})
    wanted = [
        record.message
        for _ in [again.read()]
        for batch in again.batches
        for record in batch.records
        if record.stream not in (batch.acknowledged or {}).get("all", ())
    ]
    assert wanted == ["begin end"]


def test_an_unfinished_last_line_comes_when_the_container_has_ended(path: Path) -> None:
    path.write_bytes(line(1) + line(2, text="password: ", end=""))
    reader = Reader(path)
    assert reader.read() == ["n 1"]
    reader.log.complete = True
    assert reader.read() == ["password: "]


def test_a_log_that_was_rotated_just_before_its_end_is_read_to_its_end(path: Path) -> None:
    path.write_bytes(lines(1, 2))
    reader = Reader(path)
    assert reader.read() == numbers(1, 2)
    rotate(path)
    append(path, line(3))
    reader.log.complete = True
    fetched = reader.log.fetch(bytearray(BUFFER_BYTES), 1 << 20)
    assert fetched.drained
    records = [record for batch in reader.log.parse(fetched.chunks) for record in batch.records]
    assert [record.message for record in records] == ["n 3"]


def forked(live: LogFile, route: str, position: Position) -> tuple[list[str], list[str]]:
    """What a reader apart reads for a route that is there, and what it says is lost."""
    fork = live.fork({route: position})
    fetched = fork.fetch(bytearray(BUFFER_BYTES), 1 << 20)
    records = [record for batch in fork.parse(fetched.chunks) for record in batch.records]
    lost = [each.reason for each in fork.take_losses()]
    live.leave(fork)
    fork.close()
    return [record.message for record in records], lost


@pytest.mark.parametrize("compressed", [False, True])
def test_a_route_that_was_away_for_several_rotations_gets_what_is_still_there(
    path: Path, compressed: bool
) -> None:
    path.write_bytes(lines(1, 2))
    before = Reader(path)
    before.read()
    away = before.position
    before.log.close()
    append(path, line(3))
    for number in (4, 6):
        rotate(path, keep=3)
        append(path, lines(number, number + 1))
    if compressed:
        oldest = Path(f"{path}.2")
        Path(f"{path}.2.gz").write_bytes(gzip.compress(oldest.read_bytes()))
        oldest.unlink()
    live = LogFile(str(path), ORIGIN, limit=1 << 20)
    assert live.open()
    live.resume({"live": live.end()})  # it holds the newest file alone
    assert forked(live, "away", away) == (numbers(3, 7), [])
    live.close()


def test_files_that_came_after_those_that_are_held_are_not_taken_for_older_ones(path: Path) -> None:
    path.write_bytes(lines(1, 2))
    reader = Reader(path)
    reader.read()
    for number in (3, 5, 7):
        rotate(path)
        append(path, lines(number, number + 1))
    # Its file has no name any more, and those that have one it has not seen.
    assert forked(reader.log, "new", BEGINNING) == (numbers(1, 2), [])
    reader.log.close()


def test_a_line_beyond_the_limit_is_truncated_and_marked(path: Path) -> None:
    pieces = b"".join(line(1, text="x" * 16384, end="") for _ in range(200))
    path.write_bytes(pieces + line(1, text="end") + line(2))
    reader = Reader(path, limit=100_000)
    assert [len(message) for message in reader.read()] == [100_000, 3]
    first: Record = reader.batches[0].records[0]
    assert first.truncated


@pytest.mark.parametrize("beside", [b"", line(1, text="in ", end="") + line(1, text="pieces")])
def test_a_line_of_one_piece_beyond_the_limit_is_truncated_whatever_is_read_with_it(
    path: Path, beside: bytes
) -> None:
    path.write_bytes(line(1, text="x" * 1024) + line(2, text="y" * 1025) + line(3, text="short") + beside)
    reader = Reader(path, limit=1024)
    assert reader.read()[:3] == ["x" * 1024, "y" * 1024, "short"]
    records = [record for batch in reader.batches for record in batch.records]
    assert [record.truncated for record in records[:3]] == [False, True, False]


def test_a_torn_line_harms_no_other(path: Path) -> None:
    path.write_bytes(line(1) + b'{"log":"torn' + line(2) + b"\0\0\0\n" + line(3))
    reader = Reader(path)
    assert reader.read() == ["n 1", "n 2", "n 3"]
    assert reader.log.statistics.corrupt_lines == 1


def test_a_hole_behind_the_end_that_is_to_be_read_to_is_no_work(path: Path) -> None:
    """It was truncated, and whoever writes to it went on where it was."""
    path.touch()
    reader = Reader(path)
    reader.log.stop_at = (0, 0)
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(line(1))
    fetched = reader.log.fetch(bytearray(BUFFER_BYTES), 1 << 20)
    assert (fetched.drained, fetched.more, reader.log.take_nuls()) == (True, False, 0)


def test_start_now_is_behind_the_last_whole_line(path: Path) -> None:
    path.write_bytes(lines(1, 3) + line(4)[:10])
    log = LogFile(str(path), ORIGIN, limit=1 << 20)
    log.open()
    reader = Reader(path, {"all": log.end()})
    append(path, line(4)[10:])
    assert reader.read() == ["n 4"]


def test_start_at_a_time_begins_with_its_first_record(path: Path) -> None:
    path.write_bytes(lines(1, 9))
    since = "2026-11-23T20:00:05.000000000Z"
    assert Reader(path, {"all": Position(since=since)}).read() == numbers(5, 9)


def test_equal_times_are_numbered_across_batches_and_restarts(path: Path) -> None:
    same = [line(1, text=f"m {index}") for index in range(6)]
    path.write_bytes(b"".join(same[:3]))
    reader = Reader(path)
    reader.read()
    append(path, b"".join(same[3:5]))
    reader.read()
    again = Reader(path, {"all": reader.position})
    append(path, same[5])
    again.read()
    ids = [ORIGIN.record_id(r) for b in (*reader.batches, *again.batches) for r in b.records]
    assert [id_.rpartition("-")[2] for id_ in ids[1:]] == ["1", "2", "3", "4", "5"]


def test_reading_begins_again_with_what_a_processor_holds(path: Path) -> None:
    """The position is that before the batch, and what stands before the marked record is passed over."""
    said = [
        line(1),
        line(2, "stderr"),
        *[line(3, text=f"m {n}") for n in range(3)],
        line(4, "stderr"),
        line(5),
    ]
    path.write_bytes(said[0])
    reader = Reader(path)
    reader.read()
    before = reader.position
    append(path, b"".join(said[1:]))
    reader.read()
    records = [record for batch in reader.batches for record in batch.records]
    third = next(record for record in records if record.message == "m 2")
    held = msgspec.structs.replace(before.stdout, until=Mark.of(third))
    again = Reader(path, {"all": Position(held, reader.position.stderr)})
    assert [m for m in again.read() if not m.startswith("n 4")] == ["m 2", "n 5"]
    (same,) = [record for batch in again.batches for record in batch.records if record.message == "m 2"]
    assert ORIGIN.record_id(same) == ORIGIN.record_id(third)
    assert again.position.stdout == reader.position.stdout
    assert again.lost == []


# --- what the disk says ---------------------------------------------------------------------------------


def cut_short(packed: bytes) -> bytes:
    return packed[: len(packed) * 2 // 3]


def flipped(packed: bytes) -> bytes:
    middle = len(packed) // 2
    return packed[:middle] + bytes(byte ^ 0xFF for byte in packed[middle : middle + 8]) + packed[middle + 8 :]


def no_gzip(packed: bytes) -> bytes:
    return b"not what its name says\n" * 9


@pytest.mark.parametrize("damage", [cut_short, flipped, no_gzip])
def test_what_a_damaged_compressed_file_still_has_is_read_and_the_rest_is_a_loss(
    path: Path, damage: Callable[[bytes], bytes]
) -> None:
    noise = random.Random(1)
    said = [f"n {number} {noise.random()}" for number in range(3000)]
    data = b"".join(line(number, text=text) for number, text in enumerate(said))
    Path(f"{path}.1.gz").write_bytes(damage(gzip.compress(data)))
    path.write_bytes(lines(3600, 3602))
    reader = Reader(path)
    messages = reader.read()
    got = len(messages) - 3
    assert messages == said[:got] + numbers(3600, 3602)
    (lost,) = reader.log.take_losses()
    assert lost.reason == "unreadable"
    assert lost.until == time_of(3600)
    if damage is no_gzip:
        assert (got, lost.since) == (0, "")
    else:
        assert 500 < got < 2900
        assert lost.since == time_of(got - 1)
    assert reader.read() == []
    assert not reader.log.take_losses()
    # Who has the end of what could be read goes on there.
    middle = Reader(path)
    middle.log.stop_at = (1, 0)
    middle.read()
    again = Reader(path, {"all": middle.position})
    assert again.lost == []
    assert again.read() == numbers(3600, 3602)
    for each in (reader, middle, again):
        each.log.close()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_a_rotated_file_that_cannot_be_opened_for_now_is_not_passed_over(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path.write_bytes(lines(1, 2))
    reader = Reader(path)
    reader.read()
    rotate(path)
    append(path, lines(3, 4))
    rotate(path)
    append(path, lines(5, 6))
    with monkeypatch.context() as patch:
        refuse(patch, f"{path}.1", number)
        with pytest.raises(OSError, match=os.strerror(number)):
            reader.log.look()
        with pytest.raises(OSError, match=os.strerror(number)):
            LogFile(str(path), ORIGIN, limit=1 << 20).open()
    assert reader.read() == numbers(3, 6)
    assert not reader.log.take_losses()


def test_a_folder_that_cannot_be_listed_for_now_is_not_an_empty_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_many(folder: str) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), folder)

    path.write_bytes(lines(1, 2))
    monkeypatch.setattr(os, "scandir", too_many)
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        LogFile(str(path), ORIGIN, limit=1 << 20).open()
