"""Terminal sequences are taken out of messages, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logroute.processors.ansi import without_sequences
from tests.processors.conftest import Apply, record


@pytest.mark.parametrize(
    ("line", "plain"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[1;38;5;12mx\x1b[m y", "x y"),
        ("\x1b[2K\x1b[1Gprogress", "progress"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;https://x.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq...\x1b\\x", "x"),
        ("\x1b(Bx\x1b7\x1b8\x1bc", "x"),
        ("\x9b31mx", "x"),
        ("half \x1b[31", "half "),
        ("half \x1b", "half "),
        ("\x1b[31\x1b[32mx", "x"),
        ("[31m no sequence", "[31m no sequence"),
        ("tab\t é", "tab\t é"),
    ],
)
def test_sequences(line: str, plain: str, apply: Apply) -> None:
    assert apply("ansi", record(line)) == [record(plain)]


@given(st.text("\x1b[]m0;\x07\\P x\x9b"))
def test_no_sequence_is_left(text: str) -> None:
    assert "\x1b" not in without_sequences(text)
    assert "\x9b" not in without_sequences(text)


@given(st.text())
def test_text_without_any_stays_what_it_is(text: str) -> None:
    plain = text.replace("\x1b", "").replace("\x9b", "")
    assert without_sequences(plain) == plain


def test_a_megabyte_of_beginnings_is_no_harm() -> None:
    for piece in ("\x1b", "\x1b[", "\x1b[0;", "\x1b]", "\x1b]x\x1b", "\x1b[" + "1" * 1000):
        assert "\x1b" not in without_sequences(piece * ((1 << 20) // len(piece)))
