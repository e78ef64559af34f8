"""How what a program writes becomes records: the copier, the JSON, the times, the frames."""

from __future__ import annotations

import itertools
import json
import struct

from hypothesis import example, given
from hypothesis import strategies as st

from logroute.simulator.records import (
    PIECE_BYTES,
    Copier,
    Piece,
    chunk,
    frame,
    json_line,
    json_lines,
    padded,
    rfc3339,
    rfc3339_padded,
)

START_NS = 1_700_000_000_000_000_000


def ticking(start_ns: int = START_NS):
    return itertools.count(start_ns).__next__


def test_a_line_is_one_piece_with_its_newline():
    pieces = Copier("stdout").feed(b"one\ntwo\n\n", ticking())
    assert [piece.log for piece in pieces] == [b"one\n", b"two\n", b"\n"]
    assert [piece.time_ns - START_NS for piece in pieces] == [0, 1, 2]


def test_an_unfinished_line_waits_for_its_rest_and_comes_out_at_the_end():
    copier = Copier("stderr")
    assert copier.feed(b"half", ticking()) == []
    assert copier.feed(b" and half\nre", ticking()) == [Piece(b"half and half\n", "stderr", START_NS)]
    assert copier.finish(ticking(5)) == [Piece(b"re", "stderr", 5)]
    assert copier.finish(ticking()) == []


def test_pieces_of_a_long_line_share_the_time_of_the_first():
    pieces = Copier("stdout").feed(b"x" * 40_000 + b"\nnext\n", ticking())
    assert [len(piece.log) for piece in pieces] == [PIECE_BYTES, PIECE_BYTES, 40_001 - 2 * PIECE_BYTES, 5]
    assert [piece.time_ns - START_NS for piece in pieces] == [0, 0, 0, 1]


def test_a_line_of_exactly_16_kib_leaves_its_newline_to_a_piece_of_its_own():
    pieces = Copier("stdout").feed(b"x" * PIECE_BYTES + b"\n", ticking())
    assert [piece.log[-2:] for piece in pieces] == [b"xx", b"\n"]
    pieces = Copier("stdout").feed(b"x" * (PIECE_BYTES - 1) + b"\n", ticking())
    assert [len(piece.log) for piece in pieces] == [PIECE_BYTES]


runs = st.lists(
    st.tuples(
        st.sampled_from([b"\n", b"x", b"y\n", b"\xc3\xa9"]),
        st.sampled_from([1, 2, 5_000, PIECE_BYTES, 40_000]),
    ),
    max_size=8,
)


@given(runs, st.lists(st.integers(100, 30_000), min_size=1, max_size=5))
def test_the_pieces_are_what_was_written_however_it_was_cut(parts: list[tuple[bytes, int]], sizes: list[int]):
    whole = b"".join(text if b"\n" in text else text * count for text, count in parts)
    expected = Copier("stdout")
    pieces = expected.feed(whole, ticking()) + expected.finish(ticking(2 * START_NS))
    assert b"".join(piece.log for piece in pieces) == whole
    assert all(len(piece.log) <= PIECE_BYTES for piece in pieces)
    assert all(b"\n" not in piece.log[:-1] for piece in pieces)
    for before, after in itertools.pairwise(pieces):
        same_line = not before.log.endswith(b"\n")
        # The rest that comes out at the end belongs to the line that was cut before it.
        assert (before.time_ns == after.time_ns) == same_line

    copier, rest, cut = Copier("stdout"), whole, []
    now = ticking()
    for size in itertools.cycle(sizes):
        cut += copier.feed(rest[:size], now)
        rest = rest[size:]
        if not rest:
            break
    cut += copier.finish(now)
    assert [piece.log for piece in cut] == [piece.log for piece in pieces]


def test_json_is_written_as_go_writes_it():
    line = json_line(Piece('a\t"\\<é&>\r\x00\u2028\U0001f600\n'.encode(), "stdout", START_NS + 120_000_000))
    assert (
        line
        == (
            '{"log":"a\\u0009\\"\\\\\\u003cé\\u0026\\u003e\\r\\u0000\\u2028\U0001f600\\n",'
            '"stream":"stdout","time":"2023-11-14T22:13:20.12Z"}\n'
        ).encode()
    )


def test_each_invalid_byte_becomes_one_replacement_character():
    cut = "€".encode()[:2]
    assert b'"log":"\\ufffd\\ufffd|\\ufffd\\ufffd\\ufffd|\xef\xbf\xbd"' in json_line(
        Piece(cut + b"|\xed\xa0\x80|" + "\ufffd".encode(), "stdout", 0)
    )


def test_attributes_stand_between_stream_and_time():
    line = json_line(Piece(b"x\n", "stderr", 0), b'{"service":"web"}')
    assert line == (
        b'{"log":"x\\n","stream":"stderr","attrs":{"service":"web"},"time":"1970-01-01T00:00:00Z"}\n'
    )


@given(
    st.lists(
        st.one_of(st.binary(max_size=40), st.text(max_size=40).map(lambda t: t.encode("utf-8"))), min_size=1
    ),
    st.sampled_from([b"", b'{"a":"b\\u003c"}']),
)
@example([b"a&b<c>", b"plain"], b"")
@example([b"a\tb"], b"")
@example(["\u2028".encode()], b"")
@example([b"\x7f"], b"")
def test_writing_in_bulk_gives_the_same_bytes_as_line_by_line(lines: list[bytes], attrs: bytes):
    one_by_one = b"\n".join(lines).split(b"\n")
    times = range(START_NS, START_NS + 997 * len(one_by_one), 997)
    expected = b"".join(
        json_line(Piece(line + b"\n", "stdout", ns), attrs)
        for line, ns in zip(one_by_one, times, strict=True)
    )
    assert json_lines(lines, "stdout", times, attrs) == expected


@given(st.binary(max_size=200))
def test_every_line_is_valid_json_with_the_text_that_go_would_read(data: bytes):
    decoded = json.loads(json_line(Piece(data, "stdout", START_NS)))
    text = data.decode("utf-8", "surrogateescape")
    assert decoded["log"] == "".join("\ufffd" if "\udc80" <= c <= "\udcff" else c for c in text)


@given(st.integers(0, 4_000_000_000), st.integers(0, 999_999_999))
def test_times_are_trimmed_in_the_file_and_padded_by_the_api(seconds: int, nanoseconds: int):
    time_ns = seconds * 1_000_000_000 + nanoseconds
    trimmed = rfc3339(time_ns)
    assert not trimmed.endswith(("0Z", ".Z")) or "." not in trimmed
    assert padded(trimmed) == rfc3339_padded(time_ns)
    assert len(rfc3339_padded(time_ns)) == 30


def test_a_frame_is_eight_bytes_and_the_payload():
    assert frame("stderr", b"hello\n") == b"\x02\0\0\0\0\0\0\x06hello\n"
    kind, length = struct.unpack(">BxxxL", frame("error", b"x" * 70_000)[:8])
    assert (kind, length) == (3, 70_000)
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
