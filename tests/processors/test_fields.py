"""Adding, dropping, renaming and copying fields, and filtering by them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.processors.conftest import Apply, made, record


def fields(records: list[Any]) -> list[Any]:
    return [each.fields for each in records]


def test_fields_are_added_and_templates_filled_in(apply: Apply) -> None:
    added = {
        "team": "{label.team}",
        "said": "{message} on {stream}",
        "n": 7,
        "ok": True,
        "none": "{label.x|-}",
    }
    [first, second] = fields(
        apply("add_fields", record("one", fields={"a": 1, "n": 1}), record("two"), fields=added)
    )
    common = {"team": "pay", "n": 7, "ok": True, "none": "-"}
    assert first == {"a": 1, "said": "one on stdout", **common}
    assert second == {"said": "two on stdout", **common}


def test_a_template_that_names_a_field_sees_it_as_it_was(apply: Apply) -> None:
    assert fields(
        apply("add_fields", record(fields={"a": "1"}), fields={"a": "x{fields.a}", "b": "{fields.a}"})
    ) == [{"a": "x1", "b": "1"}]


@pytest.mark.parametrize(
    ("before", "names", "after"),
    [
        ({"a": 1, "b": 2}, ["a"], {"b": 2}),
        ({"a": 1}, ["b", "a.b", "b.c"], {"a": 1}),
        ({"a": {"b": 1, "c": 2}}, ["a.b"], {"a": {"c": 2}}),
        ({"a.b": 1, "a": {"b": 2}}, ["a.b"], {"a": {"b": 2}}),
        (None, ["a"], None),
    ],
)
def test_fields_are_dropped(apply: Apply, before: Any, names: list[str], after: Any) -> None:
    assert fields(apply("drop_fields", record(fields=before), fields=names)) == [after]


def test_what_is_below_a_field_may_be_somebody_elses(apply: Apply) -> None:
    below = {"b": 1, "c": {"d": 2}}
    assert fields(apply("drop_fields", record(fields={"a": below}), fields=["a.c.d", "a.b"])) == [
        {"a": {"c": {}}}
    ]
    assert below == {"b": 1, "c": {"d": 2}}


def test_fields_are_renamed_in_order(apply: Apply) -> None:
    names = {"a": "b", "x.y": "y", "nope": "z"}
    assert fields(apply("rename", record(fields={"a": 1, "b": 2, "x": {"y": 3}}), fields=names)) == [
        {"b": 1, "x": {}, "y": 3}
    ]


def test_parts_of_a_record_are_copied_into_fields(apply: Apply) -> None:
    copied = {"fields.a": "b", "message": "original", "container.name": "service", "label.nope": "nope"}
    assert fields(apply("copy", record("hello", fields={"a": 1}), record("x"), fields=copied)) == [
        {"a": 1, "b": 1, "original": "hello", "service": "web-1"},
        {"original": "x", "service": "web-1"},
    ]


def test_only_what_matches_goes_on(apply: Apply) -> None:
    given = [record("GET /healthcheck"), record("GET /pay"), record("x", stream="stderr")]
    assert apply("filter", *given, match={"not": {"message": "*healthcheck*"}}) == given[1:]
    assert apply("filter", *given, match={"stream": "stderr"}) == given[2:]
    assert apply("filter", *given, match={"container": "web-*"}) == given
    assert apply("filter", *given, match={"container": "db"}) == []


@pytest.mark.parametrize(
    ("type_", "options", "words"),
    [
        ("add_fields", {"fields": {}}, "at least 1"),
        ("add_fields", {"fields": {"a": "{nope}"}}, 'unknown path "nope"'),
        ("copy", {"fields": {"contaner.name": "a"}}, 'did you mean "container.name"?'),
        ("drop_fields", {}, "Field required"),
        ("filter", {"match": {"level": "x"}}, "there is no level"),
        ("filter", {"match": {"stream": "stdout"}, "when": {"nope": 1}}, 'unknown condition "nope"'),
    ],
)
def test_mistakes_are_told(type_: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        made(type_, **options)
    assert words in str(caught.value)
