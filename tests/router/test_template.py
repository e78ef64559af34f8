"""Templates: what they render, how they divide batches, and that no value leaves its place."""

from __future__ import annotations

import locale
import os.path
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logroute.router.record import DetailedRecord, Origin, Record
from logroute.router.template import (
    FILE_NAME_BYTES,
    BoundTemplate,
    Template,
    TemplateError,
    escape_file_name,
)

ORIGIN = Origin(
    "docker:1",
    "docker",
    id="3b74a877e0f9" + "0" * 52,
    name="api-1",
    labels={"com.docker.compose.project": "shop", "up": "../../etc", "empty": ""},
)
TIME = "2026-11-23T20:06:26.123456789Z"
RECORD = Record("login failed", "stderr", TIME)


def render(text: str, record: Record = RECORD, origin: Origin = ORIGIN) -> str:
    return Template.parse(text).bind(origin).render(record)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{container.name}", "api-1"),
        ("{ container.name }", "api-1"),
        ("logs-{compose.project|default}-{time:%Y.%m.%d}", "logs-shop-2026.11.23"),
        ("{swarm.stack|none}", "none"),
        ("{swarm.stack|a|b}", "a|b"),
        ("{swarm.stack}", "unknown"),
        ("{label.empty}", "unknown"),
        ("{swarm.stack|}", ""),
        ("{label.empty|x}", "x"),
        ("{label.up}", "../../etc"),
        ("{stream}: {message}", "stderr: login failed"),
        ("{time} {id}", f"{TIME} 3b74a877e0f9-e{TIME}"),
        ("{level|info}", "info"),
        ("{{{container.name}}}", "{api-1}"),
        ('{{"m": "{message}"}}', '{"m": "login failed"}'),
        ("}}{{", "}{"),
        ("{time:%Y %m %d %H %M %S %j %G %V %y %%}", "2026 11 23 20 06 26 327 2026 48 26 %"),
        ("{time:%F %T %u %a %A %b %B}", "2026-11-23 20:06:26 1 Mon Monday Nov November"),
        ("{time:%Y/%m}", "2026/11"),
        ("{fields.a.b}", "unknown"),
    ],
)
def test_renders(text: str, rendered: str) -> None:
    assert render(text) == rendered


def test_no_field_is_too_deep_to_be_shown() -> None:
    deep: Any = [1]
    for _ in range(100_000):
        deep = [deep]
    record = DetailedRecord("m", "stdout", TIME, fields={"deep": deep, "half": ["\ud800"]})
    assert render("{fields.deep} {fields.half}", record) == '{"not_stored":"nested too deeply"} ["?"]'


def test_fields_are_shown_as_json_where_they_are_no_text() -> None:
    record = DetailedRecord("m", "stdout", TIME, fields={"n": 1, "ok": True, "o": {"a": [1, None]}, "s": "x"})
    assert render("{fields.n} {fields.ok} {fields.o} {fields.s}", record) == '1 true {"a":[1,null]} x'


@pytest.mark.parametrize(
    ("text", "words", "column"),
    [
        ("a{contaner.name}", 'unknown path "contaner.name"; did you mean "container.name"?', 3),
        ("{labels.x}", 'did you mean "label.x"?', 2),
        ("a{b", "'{' alone; '{{' stands for a brace", 2),
        ("ab}", "'}' alone; '}}' stands for a brace", 3),
        ("x{}", "an empty placeholder", 3),
        ("{time:%Y-%Q}", "unknown time directive '%Q'", 10),
        ("{time:%D}", "did you mean %d?", 7),
        ("{time:%Y%}", "unknown time directive '%'", 9),
        ("{time:%-d}", "unknown time directive '%-'", 7),
        ("{time:%Y%\n}", "unknown time directive", 9),
        ("{time:}", "no time in it", 7),
        ("{time:day}", "no time in it", 7),
        ("{container}", 'unknown path "container"', 2),
    ],
)
def test_a_mistake_says_what_is_wrong_and_in_which_column(text: str, words: str, column: int) -> None:
    with pytest.raises(TemplateError) as caught:
        Template.parse(text)
    assert words in str(caught.value)
    assert caught.value.column == column


def test_what_is_constant_for_the_container_is_known_before_any_record() -> None:
    bound = Template.parse("/logs/{container.name}/{swarm.stack|none}.log").bind(ORIGIN, escape_file_name)
    assert bound.constant == "/logs/api-1/none.log"
    assert Template.parse("").bind(ORIGIN).constant == ""
    assert Template.parse("{time:%Y}").bind(ORIGIN).constant is None
    assert Template.parse("{stream}").bind(ORIGIN).constant is None


def test_the_literal_head_ends_at_the_first_placeholder() -> None:
    assert Template.parse("/a/{{x}}/{stream}.log").literal_head == "/a/{x}/"
    assert Template.parse("{stream}").literal_head == ""
    assert Template.parse("").literal_head == ""


def test_the_users_own_text_is_not_escaped() -> None:
    bound = Template.parse("/logs/{swarm.stack|no/stack}/{time:%Y/%m}.log").bind(ORIGIN, escape_file_name)
    assert bound.render(RECORD) == "/logs/no/stack/2026/11.log"


def test_an_empty_default_never_makes_an_empty_component() -> None:
    assert Template.parse("/logs/{swarm.stack|}/x").bind(ORIGIN, escape_file_name).constant == "/logs/_/x"


def test_a_time_that_is_none_is_unknown() -> None:
    assert render("{time:%Y-%m-%d}", Record("", "stdout", "yesterday")) == "unknown"
    assert render("{time:%Y}", Record("", "stdout", "")) == "unknown"
    assert render("{time:%Y-%m}", Record("", "stdout", "2026")) == "unknown"


def test_an_early_year_has_four_digits() -> None:
    assert render("{time:%Y %G}", Record("", "stdout", "0001-01-01T00:00:00Z")) == "0001 0001"


def test_names_of_months_do_not_depend_on_the_locale() -> None:
    before = locale.setlocale(locale.LC_TIME)
    try:
        for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "C.UTF-8"):
            try:
                locale.setlocale(locale.LC_TIME, name)
            except locale.Error:
                continue
            assert render("{time:%b}", Record("", "stdout", "2026-05-01T00:00:00Z")) == "May"
    finally:
        locale.setlocale(locale.LC_TIME, before)


# --- dividing batches ---------------------------------------------------------------------------------


def at(*times: str) -> list[Record]:
    return [Record(str(index), "stdout", time) for index, time in enumerate(times)]


def test_a_batch_within_one_day_stays_one_and_is_not_copied() -> None:
    bound = Template.parse("{time:%Y-%m-%d}").bind(ORIGIN)
    records = at("2026-11-23T00:00:00.000000000Z", "2026-11-23T23:59:59.999999999Z")
    [(text, same)] = bound.split(records)
    assert text == "2026-11-23"
    assert same is records


def test_a_batch_over_midnight_is_divided_even_if_times_run_backwards() -> None:
    bound = Template.parse("{container.name}-{time:%d}").bind(ORIGIN)
    days = ["23", "24", "23", "24", "23"]
    records = at(*(f"2026-11-{day}T00:00:00.000000000Z" for day in days))
    assert bound.split(records) == [
        ("api-1-23", [records[0], records[2], records[4]]),
        ("api-1-24", [records[1], records[3]]),
    ]


def test_one_hour_of_two_days_is_one_text() -> None:
    bound = Template.parse("{time:%H}").bind(ORIGIN)
    records = at("2026-11-23T10:00:00Z", "2026-11-23T11:00:00Z", "2026-11-24T10:00:00Z")
    assert bound.split(records) == [("10", [records[0], records[2]]), ("11", [records[1]])]


def test_streams_that_alternate_make_two_groups_and_not_many() -> None:
    bound = Template.parse("{stream}").bind(ORIGIN)
    records = [Record("", "stderr" if index % 2 else "stdout", TIME) for index in range(10)]
    assert [(text, len(group)) for text, group in bound.split(records)] == [("stdout", 5), ("stderr", 5)]


def test_no_records_make_no_group() -> None:
    assert Template.parse("{stream}").bind(ORIGIN).split([]) == []
    assert Template.parse("x").bind(ORIGIN).split([]) == []


TIMES = st.one_of(
    st.datetimes(
        min_value=datetime(2026, 12, 30),
        max_value=datetime(2027, 1, 2),
    ).map(lambda time: time.isoformat(timespec="microseconds") + "000Z"),
    st.sampled_from(["", "no time", "2026-12-31", "2026-12-31T99:00:00Z", "2026-12-31T23:59:60Z", "2026"]),
)
TEMPLATES = st.lists(
    st.sampled_from(
        [
            *("{time:%Y-%m-%d}", "{time:%H}", "{time:%G-%V}", "{time:%S}", "{time:%y%j}", "{time:%B}"),
            *("{container.name}", "-", "{stream}", "{swarm.stack|x}"),
        ]
    ),
    max_size=4,
).map("".join)


@given(TEMPLATES, st.lists(st.tuples(TIMES, st.sampled_from(["stdout", "stderr"])), max_size=20))
def test_dividing_is_the_same_as_rendering_each_record(text: str, given: list[tuple[str, Any]]) -> None:
    records = [Record(str(index), stream, time) for index, (time, stream) in enumerate(given)]
    bound = Template.parse(text).bind(ORIGIN)
    divided = bound.split(records)
    texts = [text for text, _ in divided]
    assert len(set(texts)) == len(texts)
    for rendered, group in divided:
        assert list(group) == [record for record in records if bound.render(record) == rendered]
    assert sum(len(group) for _, group in divided) == len(records)


@given(st.datetimes(), st.sampled_from([*"ymbBdFjGVuaAHMST"]))
def test_times_are_written_as_strftime_does(time: datetime, directive: str) -> None:
    if time.year < 1000:  # strftime pads on some systems only
        time = time.replace(year=time.year + 1000)
    record = Record("", "stdout", time.isoformat(timespec="microseconds") + "000Z")
    assert render(f"{{time:%{directive}}}", record) == time.replace(tzinfo=UTC).strftime(f"%{directive}")


@given(st.text())
def test_braces_written_twice_are_themselves(text: str) -> None:
    assert render(text.replace("{", "{{").replace("}", "}}")) == text


# --- escaping -----------------------------------------------------------------------------------------

HOSTILE = st.one_of(
    st.sampled_from(["", ".", "..", "/", "../..", "\x00", "é" * 300]),
    st.text(st.sampled_from("./\\\x00\n\x1b~ aé😀\ud800\u202e"), max_size=12),
    st.text(),
)


@given(HOSTILE, HOSTILE)
def test_a_value_never_leaves_the_base_folder(name: str, label: str) -> None:
    origin = Origin("k", "s", name=name, labels={"l": label})
    for text in (
        "/logs/{container.name}",
        "/logs/{container.name}/{label.l}",
        "/logs/{container.name}{label.l}/x",
        "/logs/.{container.name}/x.{label.l}",
    ):
        path = Template.parse(text).bind(origin, escape_file_name).constant
        assert path is not None
        assert path.count("/") == text.count("/")
        assert os.path.normpath(path) == path
        assert path.startswith("/logs/")


@given(HOSTILE)
def test_an_escaped_value_is_one_harmless_name(value: str) -> None:
    name = escape_file_name(value)
    assert name not in ("", ".", "..")
    assert not set(name) & {"/", "\\", "\x00", "\n", "\x1b", "\u202e"}
    assert len(name.encode()) <= FILE_NAME_BYTES
    assert escape_file_name(name) == name


def test_long_values_that_differ_only_at_their_end_stay_apart() -> None:
    names = {escape_file_name("a" * 500 + end) for end in ("x", "y", "xy")}
    assert len(names) == 3


@pytest.mark.parametrize("value", ["web-1", "größe", "a b", "..a", "a..", "日本", "x" * FILE_NAME_BYTES])
def test_a_harmless_value_stays_as_it_is(value: str) -> None:
    assert escape_file_name(value) == value


def test_values_of_records_are_escaped_too() -> None:
    bound = Template.parse("/logs/{message}").bind(ORIGIN, escape_file_name)
    assert bound.render(Record("../x", "stdout", TIME)) == "/logs/.._x"


def test_a_bound_template_can_be_made_of_parts() -> None:
    assert BoundTemplate(("a", "b")).constant == "ab"
