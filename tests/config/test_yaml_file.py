"""YAML as people write it: what a text means, and what is told where it means nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from logroute.config.problems import Problem
from logroute.config.variables import Variables
from logroute.config.yaml_file import YamlFile, forget_parser, parse_yaml
from tests.config.conftest import Folder


def parse(text: str) -> YamlFile:
    """A file that has no mistakes."""
    problems: list[Problem] = []
    read = parse_yaml("x.yaml", text, Variables({}, Path()), problems)
    assert not problems
    assert read is not None
    return read


def mistakes(text: str) -> list[str]:
    problems: list[Problem] = []
    parse_yaml("x.yaml", text, Variables({}, Path()), problems)
    return list(map(str, problems))


def value(text: str) -> Any:
    return parse(f"key: {text}").data["key"]


# --- YAML 1.2 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        *((word, word) for word in ("yes", "no", "on", "off", "Yes", "y", "n", "tRUE", "nil", "None")),
        *((word, True) for word in ("true", "True", "TRUE")),
        *((word, False) for word in ("false", "False", "FALSE")),
        *((word, None) for word in ("", "~", "null", "Null", "NULL")),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("-5", -5),
        ("+5", 5),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("1.10", 1.1),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1e999", float("inf")),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
        ("1.2.3", "1.2.3"),
        ("2026-11-23", "2026-11-23"),
        ("2026-11-23T20:06:26Z", "2026-11-23T20:06:26Z"),
        ("'5'", "5"),
        ('"true"', "true"),
        ("'null'", "null"),
        ("!!str 5", "5"),
        ("!!str", ""),
        ("! 5", "5"),
        ("!!int '5'", 5),
        ("!!float 5", 5.0),
        ("!!bool 'true'", True),
        ("!!null ''", None),
        ("=", "="),
        ("9" * 500, "9" * 500),
    ],
)
def test_a_scalar_is_what_yaml_1_2_says(text: str, meant: Any) -> None:
    found = value(text)
    assert (type(found), found) == (type(meant), meant)


def test_not_a_number_is_a_number() -> None:
    assert value(".nan") != value(".NaN")


@pytest.mark.parametrize("directive", ["%YAML 1.1\n---\n", "%YAML 1.2\n---\n", "---\n", ""])
def test_a_directive_brings_no_older_yaml_back(directive: str) -> None:
    assert parse(directive + "a: [yes, 010]").data == {"a": ["yes", 10]}


def test_truth_as_labels_have_it_stays_a_text(folder: Folder) -> None:
    config = folder.load("routes: {all: {match: {label: {a: yes, b: on, c: 'true'}}, sink: 'null:'}}")
    assert config.routes["all"].match.to_value() == {"label.a": "yes", "label.b": "on", "label.c": "true"}


@pytest.mark.parametrize(("text", "meant"), [("true", True), ("yes", True), ("off", False), ("'no'", False)])
def test_an_option_takes_any_word_for_truth(folder: Folder, text: str, meant: bool) -> None:
    config = folder.load(f"routes: {{all: {{sink: {{type: file, path: /x, fsync: {text}}}}}}}")
    assert config.routes["all"].sink.model_dump()["fsync"] is meant


def test_a_mapping_of_all_kinds() -> None:
    text = """\
        # JSON is YAML
        {"a": [1, "x", {"b": null}], c: d}
    """
    assert parse(text).data == {"a": [1, "x", {"b": None}], "c": "d"}
    assert parse("a: |\n  one\n  two\nb: >-\n  one\n  two\n").data == {"a": "one\ntwo\n", "b": "one two"}


def test_keys_are_texts_as_they_stand_there() -> None:
    assert list(parse("1: a\ntrue: b\n1.10: c\n2026-11-23: d\n'': e\nnull: f\n? g\n: h\n").data) == [
        *("1", "true", "1.10", "2026-11-23", "", "null", "g")
    ]


# --- places -------------------------------------------------------------------------------------------


def test_every_key_and_item_has_its_place() -> None:
    read = parse("a:\n  b: {c: 1, d: 2}\n  e:\n    - 5\n    -   f: 6\n")
    assert read.places == {
        ("a",): (1, 1),
        ("a", "b"): (2, 3),
        ("a", "b", "c"): (2, 7),
        ("a", "b", "d"): (2, 13),
        ("a", "e"): (3, 3),
        ("a", "e", 0): (4, 7),
        ("a", "e", 1): (5, 9),
        ("a", "e", 1, "f"): (5, 9),
    }
    assert read.place(("a", "b", "missing", "below")) == (2, 3)
    assert read.place(("missing",)) == (1, 1)


def test_windows_lines_and_a_byte_order_mark_change_no_place(folder: Folder) -> None:
    text = "\ufeffroutes:\r\n  all:\r\n    snik: x\r\n    sink: 'null:'\r\n"
    assert folder.mistake(text).startswith("logroute.yaml:3:5: routes.all.snik: ")


# --- anchors ------------------------------------------------------------------------------------------


def test_an_alias_is_what_its_anchor_is() -> None:
    read = parse("a: &x [1, {b: 2}]\nc: *x\nd: {e: *x}\n")
    assert read.data["a"] == read.data["c"] == read.data["d"]["e"] == [1, {"b": 2}]
    assert read.place(("c", 1, "b")) == (1, 12)
    assert parse("a: &x 1\nb: &x 2\nc: *x").data["c"] == 2
    assert parse("a: &x web\n*x : 1\n").data == {"a": "web", "web": 1}


def test_a_merge_takes_what_is_not_there() -> None:
    text = """\
a: &a {one: 1, two: 2}
b: &b {two: 22, three: 33}
c: {<<: *a, two: 222}
d:
  <<: [*a, *b]
  four: 4
e: &e {<<: *b, two: 5}
f: {<<: *e}
"<<": {one: 1}
"""
    read = parse(text)
    assert read.data["c"] == {"two": 222, "one": 1}
    assert read.data["d"] == {"four": 4, "one": 1, "two": 2, "three": 33}
    assert read.data["f"] == {"two": 5, "three": 33}
    assert read.data["<<"] == {"one": 1}
    assert read.place(("d", "three")) == (2, 17)


def test_a_mistake_in_what_several_routes_share_is_told_for_each_where_it_stands(folder: Folder) -> None:
    text = "routes:\n  a: &a\n    sink: 'null:'\n    queu: {}\n  b: *a\n  c: {<<: *a, mach: 1}\n"
    assert folder.mistakes(text) == [
        'logroute.yaml:4:5: routes.a.queu: unknown option; did you mean "queue"?',
        'logroute.yaml:4:5: routes.b.queu: unknown option; did you mean "queue"?',
        'logroute.yaml:4:5: routes.c.queu: unknown option; did you mean "queue"?',
        'logroute.yaml:6:15: routes.c.mach: unknown option; did you mean "match"?',
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x [*x]", "x.yaml:1:8: *x would hold itself"),
        ("a: &x {b: {c: *x}}", "x.yaml:1:15: *x would hold itself"),
        ("a: &x {<<: *x}", "x.yaml:1:12: *x would hold itself"),
        (
            "a: *.yaml",
            'x.yaml:1:4: there is no anchor &.yaml; a text that begins with * needs quotes: "*.yaml"',
        ),
        ("a: {<<: 1}", "x.yaml:1:5: a: `<<` merges a mapping, or a list of them, into this one"),
        ("a: {<<: [1]}", "x.yaml:1:5: a: `<<` merges a mapping, or a list of them, into this one"),
    ],
)
def test_an_alias_that_means_nothing_is_told(text: str, said: str) -> None:
    assert mistakes(text) == [said]


def test_aliases_of_aliases_do_not_fill_the_memory() -> None:
    text = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))
    assert mistakes(text)[0].endswith("its aliases unfold to more than any configuration has")
    text = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 30))
    assert mistakes(text)[0].endswith("its aliases unfold to more than any configuration has")


@pytest.mark.parametrize("text", ["a: " + "[" * 60 + "]" * 60, "\n".join(" " * n + "a:" for n in range(60))])
def test_what_is_nested_too_deeply_is_refused(text: str) -> None:
    (mistake,) = mistakes(text)
    assert mistake.endswith("nested more than 40 levels deep")


def test_a_chain_of_merges_has_an_end() -> None:
    text = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: *a{n - 1}}}\n" for n in range(1, 2000))
    (mistake,) = mistakes(text)
    assert mistake.endswith("nested more than 40 levels deep")


@pytest.mark.parametrize("mark", ["[", "{a: ", "- ", "? "])
def test_twenty_thousand_brackets_are_refused_at_the_first_that_is_too_much(mark: str) -> None:
    (mistake,) = mistakes("a:\n " + mark * 20_000)  # which would keep ruamel busy for minutes
    assert mistake.endswith("nested more than 40 levels deep")


# --- what means nothing -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:\n\tb: 1", "2:1: not YAML: YAML is indented with spaces, not with tabs"),
        ("a: 'b\n\nc: 1", "1:4: not YAML: while scanning a quoted scalar found unexpected end of stream"),
        (
            "a: stdout:",
            '1:10: not YAML: mapping values are not allowed here; a text with ": " in it, or with ":" at '
            "its end, needs quotes",
        ),
        (
            "a: {b: ${C}}",
            "1:9: not YAML: while parsing a flow mapping expected ',' or '}', but got '{'; a text with "
            "braces needs quotes",
        ),
        (
            "a: `b`",
            "1:4: not YAML: while scanning for the next token found character '`' that cannot start any "
            "token; a text that begins with ` needs quotes",
        ),
        ("a: b\n---\nc: d", "2:1: a second document begins here: a configuration is one"),
        ("a: \x00", "1:4: not YAML: the character U+0000"),
        ("a: b\nc: d\x07", "2:5: not YAML: the character U+0007"),
        ('a: "\\U00110000"', "1:1: not YAML: chr() arg not in range(0x110000)"),
        ('a: "\\ud800"', "1:1: a: half of a character (a lone surrogate) in a text"),
        (": 1", "1:1: a key is missing in front of its value"),
        ("a: {[b]: 1}", "1:5: a: a key must be a text"),
        ("{a: 1}: 2", "1:1: a key must be a text"),
        (
            "a: !!python/object:os.system {b: 1}",
            "1:4: a: the tag !!python/object:os.system means nothing here",
        ),
        ("a: !mine [1]", "1:4: a: the tag !mine means nothing here"),
        ("a: !!binary aGVsbG8=", "1:4: a: the tag !!binary means nothing here"),
        ("a: !!set {b, c}", "1:4: a: the tag !!set means nothing here"),
        ("a: !!omap [b: c]", "1:4: a: the tag !!omap means nothing here"),
        ("a: !!int x", "1:4: a: the tag !!int means nothing here"),
        ("a: !!timestamp 2026-11-23", "1:4: a: the tag !!timestamp means nothing here"),
    ],
)
def test_what_is_no_yaml_is_told_with_what_was_meant(text: str, said: str) -> None:
    assert mistakes(text) == [f"x.yaml:{said}"]


# --- memory -------------------------------------------------------------------------------------------


def test_the_parser_is_let_go_of_and_comes_back() -> None:
    value("1")
    assert "ruamel.yaml" in sys.modules
    forget_parser()
    assert not [name for name in sys.modules if name.startswith("ruamel")]
    assert value("2") == 2
    assert mistakes("a: [")
