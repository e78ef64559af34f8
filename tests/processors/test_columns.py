"""CSV, and pairs with separators of the user's."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from logroute.router.record import Record
from logroute.sinks.record_json import encode_json
from tests.processors.conftest import TIME, WEB, Apply, batch, made, record


def parsed(type_: str, line: str, **options: Any) -> Record:
    [result] = made(type_, **options).apply(batch(record(line))).records  # type: ignore[union-attr]
    return result


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("1,2,3", {"a": 1, "b": "2", "c": "3"}),
        ('1,"x, ""y""",', {"a": 1, "b": 'x, "y"', "c": ""}),
        ('1,"two\nlines",z', {"a": 1, "b": "two\nlines", "c": "z"}),
        ("1,\x00,\r", {"a": 1, "b": "\x00", "c": "\r"}),
    ],
)
def test_values_become_fields_by_their_columns(line: str, fields: dict[str, Any]) -> None:
    found = parsed("csv", line, columns=["a:int", "b", "c"])
    assert (found.fields, found.message, found.error) == (fields, line, "")


def test_columns_with_the_names_that_loggers_use_are_the_records() -> None:
    columns = ["time", "level", "", "message", "n:float"]
    found = parsed("csv", "2026-11-23T20:06:27Z;error;skipped;it's gone;1.5", columns=columns, delimiter=";")
    assert (found.time, found.logged) == ("2026-11-23T20:06:27.000000000Z", TIME)
    assert (found.level, found.message, found.fields) == ("error", "it's gone", {"n": 1.5})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("1", "1 values"),
        ("", "1 values"),
        ("1,2,3", "3 values"),
        ('1,"x', "not closed"),
        ('"' + "x" * (1 << 20), "not closed"),
        ('1,"' + "x" * (1 << 20) + '"', "not closed"),
        ('"a"b,c', "not closed"),
        (",".join("x" * 10_000), "10000 values"),
    ],
)
def test_a_line_of_another_form_arrives_as_it_was_with_a_mark_and_is_counted(line: str, says: str) -> None:
    processor = made("csv", columns=["a", "b"])
    good = record("1,2")
    [found, after] = processor.apply(batch(record(line), good)).records  # type: ignore[union-attr]
    assert (found.message, found.fields) == (line, None)
    assert says in found.error
    assert processor.books.failed == 1
    assert after.fields == {"a": "1", "b": "2"}


@pytest.mark.parametrize("columns", [[], ["a", "a:int"], ["a:date"], [":int"]])
def test_columns_that_mean_nothing_are_refused(columns: list[str]) -> None:
    with pytest.raises(ValidationError):
        made("csv", columns=columns)


@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), min_size=1, max_size=4))
def test_what_was_written_is_read_again_however_it_is_cut(rows: list[list[str]]) -> None:
    lines = []
    for row in rows:
        file = io.StringIO(newline="")
        csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="").writerow(row)
        lines.append(file.getvalue())
    whole = made("csv", columns=["a", "b"]).apply(batch(*map(record, lines))).records  # type: ignore[union-attr]
    single = [parsed("csv", line, columns=["a", "b"]) for line in lines]
    assert [each.fields for each in whole] == [each.fields for each in single]
    assert [each.fields for each in single] == [{"a": a, "b": b} for a, b in rows]


@pytest.mark.parametrize(
    ("line", "options", "fields"),
    [
        ("a=1 b=2 word", {}, {"a": "1", "b": "2"}),
        ("a: 1; b : 'x y';c:", {"between": ";", "separator": ":"}, {"a": "1", "b": "x y", "c": ""}),
        ("a=1&b=x=y&=3", {"between": "&", "types": {"a": "int"}}, {"a": 1, "b": "x=y"}),
        ("nothing", {}, None),
        ("=", {}, None),
        ("", {}, None),
    ],
)
def test_pairs_become_fields(line: str, options: dict[str, Any], fields: Any) -> None:
    found = parsed("key_value", line, **options)
    assert (found.fields, found.message, found.error) == (fields, line, "")


def test_pairs_in_a_field(apply: Apply) -> None:
    [found] = apply(
        "key_value", record("x", fields={"q": {"s": "a=1&level=warn"}, "n": 1}), field="q.s", between="&"
    )
    assert found.fields == {"q": {"s": "a=1&level=warn"}, "n": 1, "a": "1"}
    assert (found.message, found.level) == ("x", "warn")
    assert apply("key_value", record("a=1", fields={"q": 1}), field="q") == [record("a=1", fields={"q": 1})]


def test_a_value_that_is_no_number_stays_a_text_and_is_counted() -> None:
    processor = made("key_value", types={"a": "int"})
    [found] = processor.apply(batch(record("a=x"))).records  # type: ignore[union-attr]
    assert (found.fields, found.error, processor.books.failed) == ({"a": "x"}, "a: is no int", 1)


@given(st.text() | st.text('a,="\r\n') | st.binary().map(lambda data: data.decode("utf-8", "replace")))
def test_whatever_comes_a_record_goes_on(line: str) -> None:
    for found in (parsed("csv", line, columns=["a", "time"]), parsed("key_value", line)):
        assert encode_json(WEB, [found]).count(b"\n") == 1
