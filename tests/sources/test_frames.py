"""The bodies of `/logs`, decoded: the same records as from the container's json-file log."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from logroute.router.record import Origin, Record, Stream
from logroute.router.times import iso_time
from logroute.simulator.records import Copier, Piece, frame, json_line, rfc3339_padded
from logroute.sources.frames import FrameDecoder, LogDecoder, TerminalDecoder, decode_text
from tests.sources.stand_ins import records_of_file

LIMIT = 1 << 20
START = 1_700_000_000 * 10**9
TIME = iso_time(START)
STAMP = TIME.encode() + b" "
Plain = tuple[str, str, str, bool]


def plain(records: Sequence[Record]) -> list[Plain]:
    return [(record.stream, record.time, record.message, record.truncated) for record in records]


def decoded(decoder: LogDecoder, data: bytes, cuts: Sequence[int] = ()) -> list[Plain]:
    out: list[Record] = []
    start = 0
    for cut in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
        out += decoder.feed(data[start:cut])
        start = cut
    return plain(out + decoder.finish())


def pieces_of(program: Sequence[tuple[Stream, bytes]], *, runs: bool = False) -> list[Piece]:
    """What moby's copier makes of what a program writes."""
    now = START

    def clock() -> int:
        nonlocal now
        now += 997
        return now

    copiers: dict[str, Copier] = {}
    pieces: list[Piece] = []
    for stream, data in program:
        copier = copiers.setdefault(stream, Copier(stream))
        pieces += copier.feed(data, clock)
        if runs:  # each write is a run of the program
            pieces += copiers.pop(stream).finish(clock)
    for copier in copiers.values():
        pieces += copier.finish(clock)
    return pieces


def by_file(pieces: Sequence[Piece], limit: int = LIMIT) -> list[Plain]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x-json.log")
        path.write_bytes(b"".join(json_line(piece) for piece in pieces))
        return plain(records_of_file(str(path), Origin("docker:x", "docker"), limit))


def recoded(piece: Piece) -> bytes:
    """The text as json-file gives it back."""
    return decode_text(piece.log).encode()


def frames_of(pieces: Sequence[Piece]) -> bytes:
    return b"".join(
        frame(piece.stream, rfc3339_padded(piece.time_ns).encode() + b" " + recoded(piece))
        for piece in pieces
    )


def terminal_of(pieces: Sequence[Piece]) -> bytes:
    return b"".join(rfc3339_padded(piece.time_ns).encode() + b" " + recoded(piece) for piece in pieces)


TEXTS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"\n", b"a\n", b"\0\x1b[2J\n", b"\xff\xfe\xe2\x82\n", "ä€😀\n".encode()]),
    st.builds(
        lambda size, end: b"x" * size + end, st.integers(16_370, 16_400), st.sampled_from([b"", b"\n"])
    ),
    st.builds(lambda size: "€".encode() * size + b"\n", st.integers(5460, 12_000)),
)
PROGRAMS = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), TEXTS), max_size=8)
CUTS = st.lists(st.integers(0, 200_000), max_size=8)


@settings(max_examples=300, deadline=None)
@given(program=PROGRAMS, cuts=CUTS)
def test_frames_give_what_the_file_gives_wherever_they_are_cut(
    program: list[tuple[Stream, bytes]], cuts: list[int]
) -> None:
    pieces = pieces_of(program)
    assert sorted(decoded(FrameDecoder(LIMIT), frames_of(pieces), cuts)) == sorted(by_file(pieces))


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(TEXTS, max_size=8), cuts=CUTS, runs=st.booleans())
@example(texts=[b"$ ", b"next run\n"], cuts=[], runs=True)
def test_a_terminal_gives_what_the_file_gives_wherever_it_is_cut(
    texts: list[bytes], cuts: list[int], runs: bool
) -> None:
    pieces = pieces_of([("stdout", text.replace(b"\n", b"\r\n")) for text in texts], runs=runs)
    assert decoded(TerminalDecoder(LIMIT), terminal_of(pieces), cuts) == by_file(pieces)


@pytest.mark.parametrize("size", [20_000, 40_000, 200_000, 5_000_000])
def test_a_line_beyond_the_limit_is_truncated_as_by_file_and_not_kept(size: int) -> None:
    limit = 32_768
    pieces = pieces_of([("stdout", b"y" * size + b"\nshort\n")])
    expected = by_file(pieces, limit)
    assert decoded(FrameDecoder(limit), frames_of(pieces)) == expected
    assert decoded(TerminalDecoder(limit), terminal_of(pieces)) == expected


@pytest.mark.parametrize("make", [FrameDecoder, TerminalDecoder])
def test_byte_by_byte_is_the_same(make: Callable[[int], LogDecoder]) -> None:
    pieces = pieces_of([("stdout", b"one\r\n\r\nthree\r\nunfinished")])
    data = frames_of(pieces) if make is FrameDecoder else terminal_of(pieces)
    assert [text for _, _, text, _ in decoded(make(LIMIT), data, range(len(data)))] == [
        *("one\r", "\r", "three\r", "unfinished"),
    ]


def test_an_error_of_the_engine_ends_the_reading_behind_what_is_good() -> None:
    decoder = FrameDecoder(LIMIT)
    good = frame("stdout", STAMP + b"good\n")
    records = decoder.feed(good + frame("error", b"Error grabbing logs: unexpected EOF\n") + good)
    assert [record.message for record in records] == ["good"]
    assert decoder.error == "Error grabbing logs: unexpected EOF"
    assert decoder.feed(good) == []


@pytest.mark.parametrize(
    "data", [STAMP + b"raw, as of a terminal\r\n", b"\x01\0\0\0\xff\xff\xff\xff", b"\x07\0\0\0\0\0\0\x01x"]
)
def test_what_is_no_frame_is_an_error_and_is_not_waited_for(data: bytes) -> None:
    decoder = FrameDecoder(LIMIT)
    assert decoder.feed(data) == []
    assert decoder.error is not None
    assert "no frame" in decoder.error


@pytest.mark.parametrize(
    ("stamp", "time"),
    [
        ("2026-11-23T20:06:26Z", "2026-11-23T20:06:26.000000000Z"),
        ("2026-11-23T21:06:26+01:00", "2026-11-23T20:06:26.000000000Z"),
        ("2026-11-23T21:06:26.12+01:00", "2026-11-23T20:06:26.120000000Z"),
        ("2026-11-23T20:06:26.123456789Z", "2026-11-23T20:06:26.123456789Z"),
    ],
)
def test_podmans_times_are_made_ours(stamp: str, time: str) -> None:
    data = frame("stderr", f"{stamp} text\n".encode())
    assert decoded(FrameDecoder(LIMIT), data) == [("stderr", time, "text", False)]


def test_a_users_own_time_in_a_terminals_line_stays() -> None:
    earlier = iso_time(START - 10**9).encode()
    data = STAMP + b"event of " + earlier + b" seen\r\n"
    assert decoded(TerminalDecoder(LIMIT), data) == [
        ("stdout", TIME, f"event of {earlier.decode()} seen\r", False)
    ]


def test_a_line_of_fifty_megabytes_is_not_held() -> None:
    decoder = TerminalDecoder(LIMIT)
    assert decoder.feed(STAMP) == []
    records: list[Record] = []
    for _ in range(800):
        records += decoder.feed(b"z" * 65_536)
    assert [record.truncated for record in records] == [True]
    assert len(decoder._rest) < 100_000
    records += decoder.feed(b"\r\n" + STAMP + b"next\r\n")
    assert [record.message for record in records[1:]] == ["next\r"]
