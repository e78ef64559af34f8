"""logfmt: what is found in lines, and what passes by."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logroute.processors.logfmt import _each_pair, all_pairs, pairs
from logroute.router.record import Record
from logroute.sinks.record_json import encode_json
from tests.processors.conftest import TIME, WEB, Apply, batch, made, record


def parsed(line: str, **options: Any) -> Record:
    [result] = made("logfmt", **options).apply(batch(record(line))).records  # type: ignore[union-attr]
    return result


def test_pairs_become_fields_and_what_loggers_say_is_taken_for_that() -> None:
    found = parsed('ts=2026-11-23T20:06:27Z level=warning msg="slow request" path=/x?a=b status=200 cached')
    assert (found.message, found.level) == ("slow request", "warn")
    assert (found.time, found.logged) == ("2026-11-23T20:06:27.000000000Z", TIME)
    assert found.fields == {"path": "/x?a=b", "status": "200", "cached": True}
    assert found.error == ""


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("a=1", {"a": "1"}),
        ("a=", {"a": ""}),
        ('a=""', {"a": ""}),
        ('  a="x y"  b=2 ', {"a": "x y", "b": "2"}),
        (r'a="say \"hi\" \\ \u00e9\n" b=1', {"a": 'say "hi" \\ é\n', "b": "1"}),
        (r'a="\d \q"', {"a": "d q"}),
        (r"a=c:\x b=1", {"a": "c:\\x", "b": "1"}),
        ("a=1 a=2", {"a": "2"}),
        ('a="x=y" b=z', {"a": "x=y", "b": "z"}),
        ('a=b"c d=1', {"a": 'b"c', "d": "1"}),
        ("a.b=1 \x1b=2", {"a.b": "1", "\x1b": "2"}),
        (" ".join(f"k{n}={n}" for n in range(10_000)), {f"k{n}": str(n) for n in range(10_000)}),
    ],
)
def test_lines(line: str, fields: dict[str, Any]) -> None:
    found = parsed(line)
    assert (found.fields, found.error, found.message) == (fields, "", line)


@pytest.mark.parametrize("line", ["", "hello", "hello a=1", '"a"=1', "=", "== x", "x y z", "\n"])
def test_a_line_that_does_not_begin_with_a_pair_passes_by(line: str, apply: Apply) -> None:
    assert apply("logfmt", record(line)) == [record(line)]


@pytest.mark.parametrize(
    "line",
    ['a="x', 'a="x" b="y', 'a="x"y', "a=1 =2", 'a="x\\"', 'a="' + "\\" * 100_001, 'a="' + "x" * (1 << 20)],
)
def test_a_broken_line_arrives_as_it_was_with_a_mark_and_is_counted(line: str) -> None:
    processor = made("logfmt")
    [found] = processor.apply(batch(record(line))).records  # type: ignore[union-attr]
    assert (found.message, found.fields) == (line, None)
    assert found.error.startswith("logfmt: ")
    assert processor.books.failed == 1


def test_values_mean_what_types_say_or_stay_texts_with_a_mark() -> None:
    types = {"n": "int", "f": "float", "b": "bool", "bad": "int", "nan": "float"}
    found = parsed("n=12 f=1.5e3 b=true bad=x1", types=types)
    assert found.fields == {"n": 12, "f": 1500.0, "b": True, "bad": "x1"}
    assert found.error == "bad: is no int"
    assert parsed("nan=NaN", types=types).fields == {"nan": "NaN"}
    assert "no int" in parsed("n=" + "9" * 5000, types=types).error
    for said in ("1_000", "١٢"):  # Python takes these; the first may be an id
        assert parsed(f"n={said}", types=types).fields == {"n": said}
        assert parsed(f"f={said}", types=types).fields == {"f": said}


def test_the_message_can_be_kept() -> None:
    assert parsed("msg=x a=1", keep=True).message == "msg=x a=1"
    assert parsed("msg=x a=1").message == "x"


KEYS = st.text(st.characters(exclude_categories=("Z", "C"), exclude_characters='="\\'), min_size=1)


@given(st.dictionaries(KEYS, st.text(), min_size=1))
def test_what_was_written_with_quotes_is_read_again(value: dict[str, str]) -> None:
    line = " ".join(f"{key}={json.dumps(text)}" for key, text in value.items())
    assert pairs(line) == value


@given(st.text('a=b "\t\\\u2003', max_size=12), st.text('a=b "', max_size=20))
def test_the_fast_way_finds_what_each_pair_says(begin: str, line: str) -> None:
    for text in (line, begin + line, f'a="{begin}" {line}', f"a=1 {begin}"):
        assert pairs(text) == _each_pair(text)


@given(st.lists(st.text('a=b "\t\\\n\0{}', max_size=12) | st.text('a=b "', max_size=20), max_size=5))
@example(['a="x', 'b=1" c=2'])
@example(['a="x"', 'b="y z" c=1', "d=2", 'e="1"'])
@example(["a=1\nb=2"])
@example(["a=\0 b=1"])
def test_many_lines_are_what_each_says(lines: list[str]) -> None:
    assert [*all_pairs(lines)] == [_each_pair(line) for line in lines]


def test_a_batch_becomes_what_its_lines_become() -> None:
    lines = ['a=1 msg="x y" level=info', "plain text", 'a="', "a=2 msg=z level=warn", "", "a=3 n=x"]
    together = made("logfmt", types={"n": "int"}).apply(batch(*map(record, lines))).records
    assert together == [parsed(line, types={"n": "int"}) for line in lines]


@given(st.text() | st.text('a= "\\\n') | st.binary().map(lambda data: data.decode("utf-8", "replace")))
def test_whatever_comes_a_record_goes_on(line: str) -> None:
    for text in (line, "a=" + line, 'a="' + line + '" b=1'):
        assert encode_json(WEB, [parsed(text)]).count(b"\n") == 1
