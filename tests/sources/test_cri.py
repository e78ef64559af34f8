"""What containerd and CRI-O write, as the file source reads it: pieces, zones, torn lines, in any chunks."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logroute.router.position import BEGINNING, Mark, Position
from logroute.router.record import Batch, Origin, Record
from logroute.sources.log_file import BUFFER_BYTES, LogFile
from logroute.sources.log_formats import Chunk, CriFormat, LogStatistics
from logroute.sources.log_search import locate
from tests.sources.test_file import Routes, append, reading
from tests.sources.test_file import _quick as _quick
from tests.sources.test_file import log as log

ORIGIN = Origin("file:0.log", "files", file="0.log")
LIMIT = 40


def parsed(*chunks: bytes, limit: int = LIMIT) -> tuple[list[tuple[str, str, str, bool]], LogStatistics]:
    """(time, stream, message, truncated) of each record, and the counters."""
    statistics = LogStatistics()
    format_ = CriFormat(limit, statistics)
    found: list[Record] = []
    offset = 0
    for chunk in chunks:
        lines, newlines = format_.parse(Chunk(chunk, (0, offset), "f"))
        records = Batch(
            ORIGIN, lines, before=BEGINNING, after=BEGINNING, size_bytes=1, newlines=newlines
        ).records
        found += records
        offset += len(chunk)
    found += format_.finish()
    return [(r.time, r.stream, r.message, r.truncated) for r in found], statistics


def test_a_line_has_its_own_time_and_stream() -> None:
    said = (
        b"2016-10-06T00:17:09.669794202Z stdout F one\n"
        b"2016-10-06T00:17:10.5Z stderr F  two  spaces \r\n"
        b"2016-10-06T00:17:11Z stdout F \n"
        b"2016-10-06T02:17:12.25+02:00 stdout F:tag:more three\n"
        b"2016-10-05T20:47:13.000000001-03:30 stderr F four\n"
    )
    expected = [
        ("2016-10-06T00:17:09.669794202Z", "stdout", "one", False),
        ("2016-10-06T00:17:10.500000000Z", "stderr", " two  spaces \r", False),
        ("2016-10-06T00:17:11.000000000Z", "stdout", "", False),
        ("2016-10-06T00:17:12.250000000Z", "stdout", "three", False),
        ("2016-10-06T00:17:13.000000001Z", "stderr", "four", False),
    ]
    assert parsed(said)[0] == expected
    assert parsed(*said.splitlines(keepends=True))[0] == expected


def test_pieces_are_joined_whatever_their_times_and_what_stands_between_them() -> None:
    euro = "€".encode()
    said = (
        b"2016-10-06T00:17:09.1Z stdout P be" + euro[:1] + b"\n"
        b"2016-10-06T00:17:09.2Z stderr F between\n"
        b"2016-10-06T00:17:09.3Z stdout P " + euro[1:] + b"g\n"
        b"2016-10-06T00:17:09.4Z stdout F in\xff\n"
        b"2016-10-06T00:17:09.5Z stdout F next\n"
    )
    found, statistics = parsed(said)
    assert [(time[20:22], stream, message) for time, stream, message, _ in found] == [
        ("20", "stderr", "between"), ("10", "stdout", "be€gin\ufffd"), ("50", "stdout", "next"),
    ]  # fmt: skip
    assert statistics.corrupt_lines == 0


@pytest.mark.parametrize(
    "line",
    [
        b"plain text",
        b'{"log":"x\\n","stream":"stdout","time":"2016-10-06T00:17:09Z"}',
        b"2016-10-06T00:17:09Z stdin F x",
        b"2016-10-06T00:17:09Z stdout X x",
        b"2016-10-06T00:17:09 stdout F x",
        b"2016-10-06T00:17:09+99:00 stdout F x",
        b"2016-10-06T00:17:09Z stdout F",
        b"2016-10-06 00:17:09Z stdout F x",
    ],
)
def test_what_is_no_such_line_is_counted_and_harms_no_other(line: bytes) -> None:
    good = b"2016-10-06T00:17:09.1Z stdout F good\n"
    found, statistics = parsed(good + line + b"\n\0\0\n" + good)
    assert [message for _, _, message, _ in found] == ["good", "good"]
    assert statistics.corrupt_lines == 1


text = st.binary(max_size=2 * LIMIT).map(lambda b: b.replace(b"\n", b""))
lines = st.one_of(
    st.tuples(
        st.sampled_from(["Z", "+00:00", "+05:30"]),
        st.sampled_from(["stdout", "stderr"]),
        st.sampled_from(["F", "P", "F:x"]),
        st.one_of(st.sampled_from([b"", b"a", "ü€".encode()]), text),
    ),
    text,
)


@settings(deadline=None)
@given(st.lists(lines, max_size=12), st.data())
def test_however_it_is_cut_the_records_are_the_same(
    said: list[tuple[str, str, str, bytes] | bytes], data: st.DataObject
) -> None:
    written = [
        each if isinstance(each, bytes)
        else f"2016-10-06T10:17:{number:02}.{number:03}{each[0]} {each[1]} {each[2]} ".encode() + each[3]
        for number, each in enumerate(said)
    ]  # fmt: skip
    whole = [line + b"\n" for line in written]
    cuts = data.draw(st.sets(st.integers(1, max(1, len(whole) - 1))))
    edges = [0, *sorted(cuts), len(whole)]
    chunks = [b"".join(whole[a:b]) for a, b in pairwise(edges) if a < b]
    one, of_one = parsed(*whole)
    other, of_other = parsed(*chunks)
    assert one == other
    assert of_one == of_other
    assert all(len(message) <= LIMIT for _, _, message, _ in one)


@pytest.mark.parametrize(
    "path", ["pods/shop_web-1_6f1e-42/nginx/0.log", f"containers/web-1_shop_nginx-{'ab' * 32}.log"]
)
async def test_the_path_says_whose_log_it_is(tmp_path: Path, path: str) -> None:
    log = tmp_path / path
    log.parent.mkdir(parents=True)
    append(log, line(1))
    routes = Routes()
    async with reading(routes, log, format="cri"):
        await routes.until(1)
    origin, _ = routes.records[0]
    pods = path.startswith("pods")
    assert origin.name == "nginx"
    assert origin.id == ("" if pods else "ab" * 32)
    assert origin.kubernetes == {"namespace": "shop", "pod": "web-1", "container": "nginx"} | (
        {"uid": "6f1e-42"} if pods else {}
    )


# --- in a file ------------------------------------------------------------------------------------------


def line(number: int, tag: Literal["F", "P"] = "F", zone: str = "Z") -> bytes:
    return (
        f"2016-10-06T02:00:{number:02}.5{zone} stdout {tag} n {number}{'' if tag == 'F' else ' '}\n".encode()
    )


def read(log: LogFile) -> list[str]:
    log.look()
    batches = log.parse(log.fetch(bytearray(BUFFER_BYTES), 1 << 20).chunks)
    return [record.message for batch in batches for record in batch.records]


def opened(path: Path, position: Position = BEGINNING) -> LogFile:
    log = LogFile(str(path), ORIGIN, limit=1 << 20, format="cri")
    assert log.open()
    assert log.resume({"all": position}) == []
    return log


async def test_files_of_pods_are_followed_through_the_rotation_of_kubelet(log: Path) -> None:
    """Who writes is told after the file was renamed."""
    routes = Routes()
    writer = log.open("ab", buffering=0)
    writer.write(line(1))
    async with reading(routes, log, format="cri"):
        await routes.until(1)
        os.rename(log, f"{log}.20161006-020002")
        writer.write(line(2, "P"))
        append(log, line(4) + line(5))
        writer.write(line(3))
        writer.close()
        assert await routes.until(4) == ["n 1", "n 2 n 3", "n 4", "n 5"]
    assert not routes.losses
    origin, record = routes.records[0]
    assert (record.time, record.stream) == ("2016-10-06T02:00:01.500000000Z", "stdout")
    assert not origin.record_id(record).startswith("-")


@pytest.mark.parametrize("zone", ["Z", "+02:00"])
def test_a_checkpoint_is_found_again_by_its_record(tmp_path: Path, zone: str) -> None:
    """The file has another beginning: only what the last record says is left."""
    path = tmp_path / "0.log"
    error = line(0).replace(b"stdout", b"stderr")
    said = error + line(2, "P", zone) + line(3, zone=zone)
    path.write_bytes(line(1) + said)
    reader = opened(path)
    assert read(reader) == ["n 1", "n 0", "n 2 n 3"]
    path.write_bytes(said + line(4, zone=zone))
    again = opened(path, reader.position)
    spots = locate(again._segments, CriFormat(LIMIT, LogStatistics()), reader.position)[0]
    assert spots == {"stdout": (0, len(said)), "stderr": (0, len(error))}
    assert read(again)[-1] == "n 4"


def test_a_held_record_that_was_in_pieces_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(line(1))
    reader = opened(path)
    assert read(reader) == ["n 1"]
    before = reader.position
    append(path, line(2, "P") + line(3) + line(4, "P") + line(5) + line(6))
    assert read(reader) == ["n 2 n 3", "n 4 n 5", "n 6"]
    mark = Mark("2016-10-06T02:00:04.500000000Z", 0)
    held = msgspec.structs.replace(before.stdout, until=mark)
    again = opened(path, Position(held, reader.position.stderr))
    assert read(again) == ["n 4 n 5", "n 6"]
