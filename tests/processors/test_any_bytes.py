"""Whatever bytes come, and whatever fields have been made of them: a record goes on, and can be written.

Parsers whose own tests have this (`test_whatever_comes_a_record_goes_on`) are not here.
"""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logroute.processors.multiline import Preset
from logroute.router.record import STREAMS, Batch
from logroute.sinks.record_json import encode_json
from tests.processors.conftest import WEB, batch, made, record

LINES = st.lists(
    (st.text() | st.binary().map(lambda data: data.decode("utf-8", "replace"))).map(
        lambda text: text.replace("\n", "")
    ),
    max_size=6,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
)


@pytest.mark.parametrize(
    ("type_", "options"), [("ansi", {}), ("level", {}), ("level", {"text": False}), ("timestamp", {})]
)
@given(LINES, st.dictionaries(st.sampled_from(["time", "level", "a"]), VALUES, max_size=3))
def test_whatever_comes_a_record_goes_on(
    type_: str, options: dict[str, Any], lines: list[str], fields: dict[str, Any]
) -> None:
    processor = made(type_, **options)
    given = [record(line, fields=dict(fields)) for line in lines]
    done = processor.apply(batch(*given))
    assert done is not None
    assert len(done) == len(lines)
    assert all(encode_json(WEB, [each]).count(b"\n") == 1 for each in done.records)
    if type_ != "ansi":
        assert [each.message for each in done.records] == lines
    # What bears a mark is counted.
    assert processor.books.failed == sum(bool(each.error) for each in done.records)  # type: ignore[attr-defined]


TRACES = st.sampled_from(
    [
        "Traceback (most recent call last):",
        "\tat a.B(C.java:1)",
        "panic: x",
        "goroutine 1 [running]:",
        "  at x",
    ]
)


@pytest.mark.parametrize("preset", get_args(Preset))
@given(st.lists(TRACES | LINES.map("".join), max_size=8))
def test_whatever_comes_every_line_is_in_some_record(preset: str, lines: list[str]) -> None:
    joins: Any = made("multiline", preset=preset)
    given: Batch = batch(*map(record, lines))
    given.settled = frozenset(STREAMS)
    done = joins.hold(given, "web").records
    assert "\n".join(each.message for each in done) == "\n".join(lines)
    assert joins.books.joined == len(lines) - len(done)
    assert all(encode_json(WEB, [each]).count(b"\n") == 1 for each in done)
