"""Functions of users: what they are given, what they may return, and which of them there are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from logroute.processors import Processor
from logroute.router.record import DetailedRecord, Record
from tests.processors.conftest import TIME, WEB, batch, made, record

MODULE = """
import datetime
import functools
import msgspec
from logroute.router.record import DetailedRecord

def upper(records):
    for record in records:
        record.message = record.message.upper()
        if record.fields:
            record.fields["n"] = 1
    return records

def named(records, origin):
    return [DetailedRecord(origin.name, r.stream, r.time, part=".1") for r in records for _ in range(2)]

def odd(records):
    return (r for r in records if int(r.message) % 2)

def nothing(records): pass
def texts(records): return ["x"]
def number(records): records[0].message = 7; return records
def level(records): records[0].level = 3; return records
def fields(records): records[0].fields = {1: 2}; return records
def listed(records): records[0].fields = [1]; return records
def stream(records): records[0].stream = "stdin"; return records
def part(records): records[0].part = 5; return records
def sequence(records): records[0].sequence = "a"; return records
def yesterday(records): records[0].time = "yesterday"; return records
def no_such_day(records): records[0].time = "2026-02-30T12:00:00Z"; return records

def circle(records):
    records[0].fields = {}
    records[0].fields["all"] = records[0].fields
    return records

def at(records):
    records[0].time = "2026-03-10 13:00:00.5+01:00"
    records[1].time = datetime.datetime(2026, 3, 10, 12, tzinfo=datetime.UTC)
    return records

def twice(records):
    records += records
    return records

def anew(records):
    return [msgspec.structs.replace(r, message=word) for r in records for word in r.message.split()]

def with_default(records, *, more=1): return records
async def waits(records): return records

class Keeps:
    @staticmethod
    def all(records): return records

value = 7
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "functions.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "ends.py").write_text("raise SystemExit\n")
    (tmp_path / "panics.py").write_text("raise BaseException('a panic')\n")
    (tmp_path / "needs.py").write_text("import nothing_of_that_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "functions", raising=False)


def python(name: str) -> Processor[Any]:
    return made("python", function=f"functions:{name}")


def test_it_changes_copies() -> None:
    fields = {"a": 1}
    plain, detailed = Record("a", "stdout", TIME), record("b", fields=fields, sequence=2, at_root=True)
    found = python("upper").apply(batch(plain, detailed))
    assert found is not None
    assert [(each.message, each.fields) for each in found.records] == [("A", None), ("B", {"a": 1, "n": 1})]
    assert (found.records[1].sequence, found.records[1].at_root) == (2, True)
    assert (plain.message, detailed.message, detailed.fields, fields) == ("a", "b", {"a": 1}, {"a": 1})


def test_it_may_choose_and_return_anything_that_can_be_gone_through() -> None:
    found = python("odd").apply(batch(*(record(str(n)) for n in range(4))))
    assert [each.message for each in found.records] == ["1", "3"]  # type: ignore[union-attr]
    for name in ("with_default", "Keeps.all"):
        assert python(name).apply(batch(record("x"))).records == [record("x")]  # type: ignore[union-attr]


def test_it_is_given_the_container_if_it_wants_it_and_may_make_records() -> None:
    processor = python("named")
    found = processor.apply(batch(record("x")))
    assert found is not None
    assert [each.message for each in found.records] == ["web-1", "web-1"]
    assert WEB.record_id(found.records[0]).endswith(".1")
    assert processor.books.added == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "functions:nothing has returned nothing: it must return the records"),
        ("texts", "has returned str, and not a record"),
        ("number", "message is no text"),
        ("part", "part is no text"),
        ("sequence", "sequence is no number"),
        ("yesterday", "a record whose time is none: 'yesterday'"),
        ("no_such_day", "a record whose time is none: '2026-02-30T12:00:00Z'"),
        ("circle", "fields contain themselves"),
        ("level", "level is no text"),
        ("fields", "fields are no dict with texts as names"),
        ("listed", "fields are no dict with texts as names"),
        ("stream", "a stream that there is not"),
    ],
)
def test_what_no_sink_could_write_is_refused(name: str, words: str) -> None:
    given = record("x")
    with pytest.raises(TypeError, match=words):
        python(name).apply(batch(given))
    assert given == record("x")


def test_a_time_is_written_as_all_are_and_the_stable_id_stays_that_of_the_engines() -> None:
    given = record("a"), record("b", sequence=1)
    found = python("at").apply(batch(*given))
    assert found is not None
    assert [each.time for each in found.records] == [
        "2026-03-10T12:00:00.500000000Z",
        "2026-03-10T12:00:00.000000000Z",
    ]
    assert [each.logged for each in found.records] == [TIME, TIME]
    assert [*map(WEB.record_id, found.records)] == [*map(WEB.record_id, given)]


def test_records_that_are_there_twice_have_ids_of_their_own() -> None:
    """Elasticsearch takes the second of an id for the first, come again."""
    given = record("a"), record("b", sequence=1)
    found = python("twice").apply(batch(*given))
    assert found is not None
    assert [(each.message, each.part) for each in found.records] == [
        ("a", ""), ("b", ""), ("a", ".1"), ("b", ".1"),
    ]  # fmt: skip
    found = python("anew").apply(batch(record("a b c"), record("d e", sequence=1)))
    assert found is not None
    parts = [(each.message, each.sequence, each.part) for each in found.records]
    assert parts == [("a", 0, ""), ("b", 0, ".1"), ("c", 0, ".2"), ("d", 1, ""), ("e", 1, ".1")]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("functions", "expected package.module:name"),
        (":x", "expected package.module:name"),
        ("functions:nope", "there is no function nope in functions"),
        ("functions:value", "there is no function value in functions"),
        ("functions:Keeps.none", "there is no function Keeps.none in functions"),
        ("functions:waits", "is async"),
        ("nowhere.at_all:x", "there is no module nowhere.at_all: install it beside logroute"),
        ("broken:x", "broken cannot be imported: ZeroDivisionError"),
        ("ends:x", "ends cannot be imported: SystemExit"),
        ("panics:x", "panics cannot be imported: BaseException: a panic"),
        ("needs:x", "needs cannot be imported: No module named 'nothing_of_that_name'"),
    ],
)
def test_a_function_that_is_none_is_told(function: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        made("python", function=function)
    assert words in str(caught.value)


def test_a_copy_is_the_whole_record() -> None:
    values: dict[str, Callable[[], Any] | Any] = {
        "sequence": 3, "level": "warn", "fields": {"a": 1}, "truncated": True, "place": "p", "part": ".1",
        "logged": TIME, "error": "e", "at_root": True,
    }  # fmt: skip
    assert set(values) | {"message", "stream", "time"} == set(DetailedRecord.__struct_fields__)
    given = record("a", **values)
    [found] = python("with_default").apply(batch(given)).records  # type: ignore[union-attr]
    assert found == given
    assert found is not given
