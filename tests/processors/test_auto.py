"""What a line is, is seen from the line; where a batch begins and ends changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logroute.router.record import Record
from logroute.sinks.record_json import encode_json
from tests.processors.conftest import WEB, batch, made, record

AUTO, ANOTHER = made("auto"), made("auto")


def applied(*lines: str) -> list[Record]:
    return AUTO.apply(batch(*map(record, lines))).records  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("line", "message", "level", "fields"),
    [
        ('{"level":"warn","msg":"slow","n":1}', "slow", "warn", {"n": 1}),
        (' { "n": 1}', ' { "n": 1}', None, {"n": 1}),
        ('level=error msg="no way" n=1', "no way", "error", {"n": "1"}),
        ("a=1 b=2", "a=1 b=2", None, {"a": "1", "b": "2"}),
        ("2026-11-23 20:06:26 WARN slow", "2026-11-23 20:06:26 WARN slow", "warn", None),
        ("a=1", "a=1", None, None),
        ("x=1 is what ERROR says", "x=1 is what ERROR says", "error", None),
        ('a="x', 'a="x', None, None),
        ("{braces} ERROR here", "{braces} ERROR here", "error", None),
        ("[1,2]", "[1,2]", None, None),
        ("", "", None, None),
    ],
)
def test_lines(line: str, message: str, level: str | None, fields: Any) -> None:
    [found] = applied(line)
    assert (found.message, found.level, found.fields, found.error) == (message, level, fields, "")


@pytest.mark.parametrize(
    "line", ['{"a":1', '{"level":"error"', '{"a":NaN}', '{"a":' * 5000, '{"' + "x" * (1 << 20)]
)
def test_broken_json_is_marked_counted_and_looked_at_as_text(line: str) -> None:
    auto = made("auto")
    [found] = auto.apply(batch(record(line))).records  # type: ignore[union-attr]
    assert (found.message, found.fields, auto.books.failed) == (line, None, 1)
    assert found.error.startswith("auto: ")
    assert found.level == ("error" if "error" in line else None)


def test_a_level_that_is_there_stays() -> None:
    [found] = AUTO.apply(batch(record("ERROR", level="info"))).records  # type: ignore[union-attr]
    assert found.level == "info"


def test_the_message_can_be_kept() -> None:
    for line in ('{"msg":"x","a":1}', "msg=x a=1"):
        [found] = made("auto", keep=True).apply(batch(record(line))).records  # type: ignore[union-attr]
        assert found.message == line


LINES = st.sampled_from(
    [
        '{"a":1,"level":"warn"}',
        '{"a":',
        "level=info a=2",
        "a=1",
        "ERROR x",
        "main [WARN] x",
        "text",
        "x [INFO] or [WARN]",
    ]
)


@given(st.lists(LINES | st.text(), max_size=30), st.lists(st.integers(1, 7), max_size=10), st.integers(0, 29))
def test_reading_again_from_anywhere_in_any_pieces_gives_the_same(
    lines: list[str], pieces: list[int], start: int
) -> None:
    """Or else a record differs under the same id: DESIGN, section 4."""
    once = applied(*lines)
    again: list[Record] = []
    left = lines[start:]
    for size in [*pieces, len(left)]:
        again += applied(*left[:size])
        left = left[size:]
    assert again == once[start:]
    # By another one, that has not seen what was before, too.
    assert ANOTHER.apply(batch(*map(record, lines[start:]))).records == once[start:]  # type: ignore[union-attr]


@given(st.text() | st.binary().map(lambda data: data.decode("utf-8", "replace")))
def test_whatever_comes_a_record_goes_on(line: str) -> None:
    for text in (line, '{"' + line, "a=1 b=" + line):
        assert encode_json(WEB, applied(text)).count(b"\n") == 1
