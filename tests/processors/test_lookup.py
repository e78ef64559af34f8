"""Looking values up in files, which may change at any time."""

from __future__ import annotations

import gc
import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from logroute.processors import lookup as module
from logroute.processors.lookup import (
    LookupProcessor,
    Reloaded,
    TableError,
    from_csv,
    from_json,
    read_within,
    version_of,
)
from logroute.router.record import Record
from tests.processors.conftest import batch, made, record


@pytest.fixture(autouse=True)
def _threads_end() -> Iterator[None]:
    """No test leaves one behind that looks at its file."""
    yield
    if lookers():
        gc.collect()  # what it looks after may be in a cycle; among all tests this takes a while
    for thread in lookers():
        thread.join(timeout=10)
        assert not thread.is_alive()


def lookers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "lookup"]


def looked_up(processor: Any, *records: Record) -> list[Any]:
    return [each.fields for each in processor.apply(batch(*records)).records]


def lookup(path: Path, text: str, **options: Any) -> LookupProcessor:
    path.write_text(text)
    options = {"key": "fields.ip", "into": "fields.host", **options}
    processor = made("lookup", file=str(path), **options)
    assert isinstance(processor, LookupProcessor)
    return processor


def test_the_second_column_becomes_the_field(tmp_path: Path) -> None:
    processor = lookup(tmp_path / "hosts.csv", 'ip,name\n10.0.0.1,"ada, one"\n10.0.0.2,bob\n\n7,seven\n')
    given = [record(fields={"ip": ip}) for ip in ("10.0.0.1", "10.0.0.9", 7)]
    assert looked_up(processor, *given, record()) == [
        {"ip": "10.0.0.1", "host": "ada, one"},
        {"ip": "10.0.0.9"},
        {"ip": 7, "host": "seven"},
        None,
    ]


def test_several_columns_become_an_object_and_there_may_be_a_default(tmp_path: Path) -> None:
    text = "\ufeffip,name,team\n10.0.0.1,ada,pay\n"
    processor = lookup(tmp_path / "hosts.csv", text, default="nobody", into="who")
    assert looked_up(processor, record(fields={"ip": "10.0.0.1"}), record()) == [
        {"ip": "10.0.0.1", "who": {"name": "ada", "team": "pay"}},
        {"who": "nobody"},
    ]


def test_a_json_file_says_any_value_and_the_key_may_be_any_path(tmp_path: Path) -> None:
    text = json.dumps({"web-1": {"tier": 1}, "db": "x"})
    processor = lookup(tmp_path / "tiers.json", text, key="container.name", into="fields.about")
    assert looked_up(processor, record(fields={"a": 1})) == [{"a": 1, "about": {"tier": 1}}]


def test_a_file_that_changes_is_read_again_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hosts.csv"
    path.write_text("ip,name\n1,one\n")
    file = Reloaded(str(path), 3600)
    known = version_of(str(path))
    assert file.look(known) == known
    path.write_text("ip,name\n1,other\n2,two\n")
    known = file.look(known)
    assert (file.table, known) == ({"1": "other", "2": "two"}, version_of(str(path)))
    path.write_text("ip,name\n1\n")
    known = file.look(known)  # said once, and not every time
    assert (file.table["2"], known) == ("two", version_of(str(path)))
    os.remove(path)
    assert file.look(known) == known
    assert file.table["2"] == "two"
    path.write_text("ip,name\n3,three\n")
    file.look(known)
    assert file.table == {"3": "three"}


def test_nobody_waits_for_a_disk_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    monkeypatch.setattr(module, "read", lambda file: answers.wait(60))
    with pytest.raises(TableError, match="its disk does not answer"):
        read_within("hosts.csv", 0.001)
    answers.set()


def test_a_thread_looks_at_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()
    monkeypatch.setattr(Reloaded, "look", lambda self, known: looked.set() or known)
    path = tmp_path / "hosts.csv"
    path.write_text("ip,name\n")
    file = Reloaded(str(path), 0.001)
    assert looked.wait(60)
    del file


def test_only_a_newline_ends_a_line() -> None:
    text = 'ip,name\r\n1,a\u2028b\r\n2,"c\r\nd"\r\n\r\n3,e\x0c\x85\n'
    assert from_csv("a.csv", text) == {"1": "a\u2028b", "2": "c\r\nd", "3": "e\x0c\x85"}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "", "a.csv:1: expected a line with the names of two columns or more"),
        ("a.csv", "ip\n", "a.csv:1: expected a line with the names"),
        ("a.csv", "ip,name\n1,2\n1,2,3\n", "a.csv:3: 3 columns, not 2"),
        ("a.csv", 'ip,name\n1,"2\n', "a.csv:2: unexpected end of data"),
        ("a.json", "[1]", "a.json: expected an object"),
        ("a.json", "{", "a.json: Input data was truncated"),
    ],
)
def test_a_file_that_cannot_be_used_is_said_with_its_line(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    with pytest.raises(TableError) as caught:
        lookup(tmp_path / name, text)
    assert words in str(caught.value)


def test_a_file_that_is_not_there_or_is_no_text_is_said(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="cannot read it: No such file"):
        made("lookup", file=str(tmp_path / "none.csv"), key="fields.a", into="fields.b")
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,\xff\n")
    with pytest.raises(TableError, match=r"a\.csv:2: not UTF-8"):
        made("lookup", file=str(tmp_path / "a.csv"), key="fields.a", into="fields.b")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"file": "x.txt"}, "ends with .csv or .json"),
        ({"key": "field.ip"}, 'did you mean "fields.ip"?'),
        ({"into": "fields."}, "expected a field such as fields.host"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        made("lookup", **{"file": "x.csv", "key": "fields.ip", "into": "fields.host", **options})
    assert words in str(caught.value)


@given(st.text(alphabet='a,"\n\r\x00é') | st.text())
def test_whatever_stands_in_a_file_it_is_a_table_or_said_to_be_none(text: str) -> None:
    for parse in (from_csv, from_json):
        with suppress(TableError):
            assert isinstance(parse("file", text), dict)


def test_whatever_is_looked_up_a_record_goes_on(tmp_path: Path) -> None:
    processor = lookup(tmp_path / "hosts.csv", "ip,name\n\x00,x\n", default="none")

    @given(st.recursive(st.none() | st.integers() | st.floats() | st.text(), st.lists))
    def look_up(value: Any) -> None:
        assert looked_up(processor, record(fields={"ip": value}))[0]["host"] in ("none", "x")

    look_up()
