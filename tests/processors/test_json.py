"""JSON lines: what is found in them, and what is passed through."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logroute.processors._times import BEYOND, parse_time
from logroute.router.record import DetailedRecord, Record
from logroute.sinks.record_json import encode_json
from tests.processors.conftest import TIME, WEB, Apply, batch, made, record


def parsed(line: str, **options: Any) -> Record:
    [result] = made("json", **options).apply(batch(record(line))).records  # type: ignore[union-attr]
    return result


def test_an_object_becomes_fields_and_what_loggers_say_is_taken_for_that() -> None:
    found = parsed('{"level":"WARN","msg":"slow","ts":"2026-11-23T21:06:26+01:00","user":{"id":7},"ok":true}')
    assert (found.message, found.level) == ("slow", "warn")
    assert found.fields == {"user": {"id": 7}, "ok": True}
    assert (found.time, found.logged) == ("2026-11-23T20:06:26.000000000Z", TIME)
    assert found.error == ""


@pytest.mark.parametrize(
    ("said", "level"),
    [
        ('"level":"error"', "error"),
        ('"severity":"CRITICAL"', "fatal"),
        ('"log.level":"Information"', "info"),
        ('"log":{"level":"debug"}', "debug"),
        ('"level":30', "info"),
        ('"level":60', "fatal"),
        ('"level":-1', "debug"),
        ('"level":"loud"', None),
        ('"level":35', None),
        ('"level":true', None),
        ('"x":1', None),
    ],
)
def test_levels(said: str, level: str | None) -> None:
    found = parsed("{" + said + "}")
    assert found.level == level
    # What is not understood is not taken away.
    assert bool(found.fields) == (level is None or '"log":' in said)


@pytest.mark.parametrize("type_", ["json", "auto"])
@pytest.mark.parametrize("beside", [(), ('{"n":1}',)])
@pytest.mark.parametrize("calls", [0, 300])
@pytest.mark.parametrize(
    ("depth", "fails"), [(100, False), (400, False), (401, True), (950, True), (5000, True)]
)
def test_what_an_object_is_does_not_depend_on_how_deep_calls_are(
    type_: str, beside: tuple[str, ...], calls: int, depth: int, fails: bool
) -> None:
    """A line that could be read here, and not encoded a few calls deeper, stopped its route for ever."""

    def deeper(calls: int) -> Record:
        if calls:
            return deeper(calls - 1)
        lines = ('{"a":' * (depth - 1) + '{"brackets in a text":"[[["}' + "}" * (depth - 1), *beside)
        done = made(type_).apply(batch(*map(record, lines)))
        assert done is not None
        assert [each.fields for each in done.records[1:]] == [{"n": 1}] * len(beside)
        return done.records[0]

    found = deeper(calls)
    assert (found.fields is None) == fails
    assert found.error == (f"{type_}: nested deeper than 400" if fails else "")


def test_many_objects_beside_each_other_are_not_deep() -> None:
    found = parsed('{"list":[' + "[{}]," * 1000 + "0]}")
    assert found.error == ""
    assert found.fields is not None


@pytest.mark.parametrize(
    "line", ["plain text", "", "   ", "12", '"text"', "[12:03:04] hello", "[INFO] x", "null", "true"]
)
def test_what_is_no_attempt_at_json_passes_by(line: str, apply: Apply) -> None:
    assert apply("json", record(line)) == [record(line)]


@pytest.mark.parametrize(
    "line",
    [
        '{"a":1',
        '{"a":1}}',
        "{'a':1}",
        '{"a":NaN}',
        '{"a":Infinity}',
        '{"a":1} trailing',
        "{",
        "{broken}",
        "[1,2]",
        '{"a":"\\ud800"}',
        '{"a":' * 1000 + "1" + "}" * 1000,
        '{"a":' + "[" * 5000,
        "{" + "a" * (1 << 20),
        "{" + '"a' * 300_000,
    ],
)
def test_broken_json_arrives_as_it_was_with_a_mark_and_is_counted(line: str) -> None:
    processor = made("json")
    [found] = processor.apply(batch(record(line))).records  # type: ignore[union-attr]
    assert (found.message, found.fields) == (line, None)
    assert found.error.startswith("json: ")
    assert processor.books.failed == 1


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ('{"a":1,"a":2}', {"a": 2}),
        ('{"a.b":1,"a":{"b":2}}', {"a.b": 1, "a": {"b": 2}}),
        ('{"n":123456789012345678901234567890}', {"n": 123456789012345678901234567890}),
        ('{"\\u0000\\u001b[31m":"x"}', {"\x00\x1b[31m": "x"}),
        ('  {"a":null}', {"a": None}),
        ("{" + ",".join(f'"k{n}":{n}' for n in range(10_000)) + "}", {f"k{n}": n for n in range(10_000)}),
        ("{}", None),
    ],
)
def test_unusual_json_is_json(line: str, fields: Any) -> None:
    found = parsed(line)
    assert found.fields == fields
    assert not found.error
    assert encode_json(WEB, [found])


def test_a_time_far_from_the_engines_stays_a_field_and_is_marked() -> None:
    for said in ("1970-01-01T00:00:00Z", "2026-11-01T00:00:00Z", 253370764800, "9999-12-31T00:00:00Z"):
        processor = made("json")
        [found] = processor.apply(batch(record(json.dumps({"time": said})))).records  # type: ignore[union-attr]
        assert (found.time, found.logged) == (TIME, "")
        assert found.fields == {"time": said}
        assert "7 days" in found.error
        assert processor.books.failed == 1


def test_what_is_no_time_stays_a_field() -> None:
    for said in ("yesterday", "9999-99-99T00:00:00Z", True, None, [1], -1, 1 << 80):
        found = parsed(json.dumps({"time": said}))
        assert (found.time, found.fields, found.error) == (TIME, {"time": said}, "")


def test_the_message_can_be_kept() -> None:
    line = '{"msg":"x","a":1}'
    found = parsed(line, keep=True)
    assert (found.message, found.fields) == (line, {"msg": "x", "a": 1})


def test_keys_at_the_root_stand_beside_ours_and_never_instead() -> None:
    found = parsed('{"msg":"hello","trace":{"id":"7"},"container":"mine","@timestamp":"x"}', target="root")
    document = json.loads(encode_json(WEB, [found]))
    assert document["trace"] == {"id": "7"}
    assert document["fields"] == {"container": "mine", "@timestamp": "x"}
    assert document["container"]["name"] == "web-1"
    assert document["message"] == "hello"


def test_fields_that_are_there_already_stay() -> None:
    [found] = made("json").apply(batch(record('{"a":1}', fields={"a": 0, "b": 2}))).records  # type: ignore[union-attr]
    assert found.fields == {"a": 1, "b": 2}


@given(st.text() | st.binary().map(lambda data: data.decode("utf-8", "replace")))
def test_whatever_comes_a_record_goes_on(line: str) -> None:
    for text in (line, "{" + line, '{"' + line + '":1}'):
        found = parsed(text)
        assert isinstance(found, DetailedRecord)
        assert encode_json(WEB, [found]).count(b"\n") == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text("abc.é\n", min_size=1), JSON, max_size=5))
def test_fields_are_what_was_written(value: dict[str, Any]) -> None:
    found = parsed(json.dumps(value))
    assert (found.fields or {}) == value


# --- times --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "time"),
    [
        ("2026-11-23T20:06:26.123456789Z", "2026-11-23T20:06:26.123456789Z"),
        ("2026-11-23T20:06:26.1Z", "2026-11-23T20:06:26.100000000Z"),
        ("2026-11-23T20:06:26Z", "2026-11-23T20:06:26.000000000Z"),
        ("2026-11-23T20:06:26.123+05:30", "2026-11-23T14:36:26.123000000Z"),
        ("2026-11-23T20:06:26-0800", "2026-11-24T04:06:26.000000000Z"),
        ("2026-11-23 20:06:26,123", "2026-11-23T20:06:26.123000000Z"),
        ("2026-11-23 20:06:26.123456 UTC", "2026-11-23T20:06:26.123456000Z"),
        ("2026-11-23T20:06", "2026-11-23T20:06:00.000000000Z"),
        (1795464386, "2026-11-23T20:06:26.000000000Z"),
        (1795464386123, "2026-11-23T20:06:26.123000000Z"),
        (1795464386123456, "2026-11-23T20:06:26.123456000Z"),
        (1795464386123456789, "2026-11-23T20:06:26.123456789Z"),
        (1795464386.125, "2026-11-23T20:06:26.125000000Z"),
        ("1795464386.123456789", "2026-11-23T20:06:26.123456789Z"),
        (0, "1970-01-01T00:00:00.000000000Z"),
        (-1, None),
        (10**30, None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
        (None, None),
        ("", None),
        ("2026-13-23T20:06:26Z", None),
        ("2026-11-23T25:06:26.1Z", None),
        ("2026-11-23T20:06:26.abcZ", None),
        ("2026-11-23T20:06:26+99:99", "2026-11-19T15:27:26.000000000Z"),
        ("0001-01-01T00:00:00+01:00", None),
        ("9999-12-31T00:00:00Z", f"{BEYOND}000000000Z"),
        ("1969-12-31T23:59:59.5Z", f"{BEYOND}500000000Z"),
        ("2262-12-31T23:59:59.123456789Z", f"{BEYOND}123456789Z"),
        ("٢٠٢٦-11-23T20:06:26Z", None),
    ],
)
def test_times_are_read_in_every_usual_form(value: Any, time: str | None) -> None:
    assert parse_time(value) == time


@given(st.text() | st.integers() | st.floats() | st.from_regex(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d.*"))
def test_whatever_is_given_is_a_time_or_none(value: Any) -> None:
    time = parse_time(value)
    assert (
        time is None or time.startswith(BEYOND) or (len(time) == len(TIME) and "1970" <= time[:4] <= "2262")
    )
