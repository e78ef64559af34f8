"""Regular expressions with named groups: what they find, in which time, and which are refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from logroute.processors._linear import is_linear
from logroute.processors._named import NamedPattern
from logroute.router.record import Record
from logroute.sinks.record_json import encode_json
from tests.processors.conftest import TIME, WEB, Apply, batch, made, record


def parsed(line: str, pattern: str, **options: Any) -> Record:
    processor = made("regex", pattern=pattern, **options)
    [result] = processor.apply(batch(record(line))).records  # type: ignore[union-attr]
    return result


@pytest.mark.parametrize(
    ("pattern", "line", "fields"),
    [
        (r"user (?P<user>\w+)", "hello user ada!", {"user": "ada"}),
        (r"(?P<status:int>\d+) (?P<took:float>[\d.]+)", "200 1.25", {"status": 200, "took": 1.25}),
        (r"ok=(?P<ok:bool>\w+)", "ok=TRUE", {"ok": True}),
        (r"(?<http.status:int>\d+)", "x 404", {"http.status": 404}),
        (r"(?P<a>x)|(?P<b>y)", "y", {"b": "y"}),
        (r"(?P<a>x)|y(?P<a>z)", "yz", {"a": "z"}),
        (r"[(?P<no>]+(?P<yes>\d)", "((1", {"yes": "1"}),
        (r"\(?P<(?P<yes>\d)", "(P<1", {"yes": "1"}),
        (r"(?P<all>.*) end (?P<last>.*)", "a end b end c", {"all": "a end b", "last": "c"}),
        (r"(\w)-(?P<b>\w)", "a-b", {"b": "b"}),
        (r"(?i)ERROR (?P<code:int>\d+)", "error 7", {"code": 7}),
        (r"(?P<n>\d+)", "٣٤", None),
        # By Python's engine, which knows no such class, and by RE2, which knows no such repetition.
        (r"user (?P<user>[[:alpha:]_]+) x", "user ada_b x", {"user": "ada_b"}),
        (r"(?P<a>.*) (?P<b>[[:digit:]]{,3})x", "a 12x", {"a": "a", "b": "12"}),
    ],
)
def test_named_groups_become_fields(pattern: str, line: str, fields: Any) -> None:
    found = parsed(line, pattern)
    assert (found.fields, found.message, found.error) == (fields, line, "")


def test_groups_with_the_names_that_loggers_use_are_the_records() -> None:
    found = parsed("2026-11-23T20:06:27Z WARN slow it was", r"^(?P<time>\S+) (?P<level>\w+) (?P<message>.*)")
    assert (found.time, found.logged) == ("2026-11-23T20:06:27.000000000Z", TIME)
    assert (found.level, found.message, found.fields) == ("warn", "slow it was", None)


def test_what_means_no_number_stays_a_text_with_a_mark_and_is_counted() -> None:
    processor = made("regex", pattern=r"^n=(?P<n:int>\S+)")
    [found] = processor.apply(batch(record("n=1x"))).records  # type: ignore[union-attr]
    assert (found.fields, found.error) == ({"n": "1x"}, "n: is no int")
    assert processor.books.failed == 1


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        (r"\d+", "no named group"),
        (r"(?P<a:date>\d+)", "no type 'date'"),
        (r"(?P<a>[", "is no regular expression"),
        (r"(?P<a>(x+x+)+)(?=y)", "engine: python"),
        (r"(?P<a>\w+) (?P=a)", "engine: python"),
    ],
)
def test_what_is_refused_says_why(pattern: str, says: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(says)):
        made("regex", pattern=pattern)


def test_pythons_engine_is_asked_for() -> None:
    assert parsed("say x x", r"(?P<a>\w+) (?P=a)", engine="python").fields == {"a": "x"}


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(?P<a>\S+) (?P<b>[^ ]+) \[(?P<c>[^\]]+)\] (?P<d>.*)$",
        r"status=(?P<a>\d+)",
        r"user (?P<a>\w+) (?P<rest>.*)",
        r"^(?:a|b)(?P<a>x?)y",
        r"^(?P<a>(?:[a-z]+,)*)\d",
        r"^(?P<a>.*+)x",
    ],
)
def test_patterns_whose_next_character_decides_are_pythons(pattern: str) -> None:
    assert NamedPattern(pattern).linear


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(?P<a>(a+)+)b",
        r"^(?P<a>(a|aa)+)$",
        r"^(?P<a>(a|a)*)b",
        r"^(?P<a>.*)x",
        r"^(?P<a>a*)a*b",
        r"(?P<a>a+)b",
        r"(?P<a>\w+)@x",
        r"^(?P<a>(\w+\s?)*)!",
        r"(?i)^(?P<a>a*)A",
    ],
)
def test_the_others_are_re2s_and_a_megabyte_that_almost_matches_is_none_to_it(pattern: str) -> None:
    assert not is_linear(pattern)
    # `re` would not come back from any of these.
    parsed("a" * (1 << 20), pattern)


def test_a_megabyte_that_almost_matches_is_none_to_pythons_engine_either() -> None:
    for pattern in (r"ab(?P<x>\d+)c", r"^(?P<x>[a1]*)!", r"^(?:(?P<x>a)1?)*!"):
        assert NamedPattern(pattern).linear
        for text in ("a" * (1 << 20), "ab1" * 300_000, "a1" * 500_000):
            assert parsed(text, pattern).fields is None


SIMPLE = st.recursive(
    st.sampled_from(["a", "b", ".", r"\d", "[ab]", "[^a]", "^", "$"]),
    lambda below: (
        st.builds("{}{}".format, below, below)
        | st.builds("(?:{}|{})".format, below, below)
        | st.builds("(?:{}){}".format, below, st.sampled_from(["*", "+", "?", "{2}", "*?"]))
    ),
    max_leaves=6,
)


@given(SIMPLE, st.text("ab1\n"))
def test_both_engines_find_the_same(pattern: str, text: str) -> None:
    """What is found does not depend on which of them is chosen, so a choice can change without harm."""
    import re2

    if not is_linear(f"(?P<g>{pattern})"):
        return
    ours = NamedPattern(f"(?P<g>{pattern})").find(text)
    options = re2.Options()
    options.log_errors = False
    theirs = re2.compile(f"({pattern})", options).search(text)
    if not text.endswith("\n"):  # before which `$` may stand in Python's
        assert ours == ({"g": theirs[1]} if theirs is not None else None)


def test_how_a_batch_is_searched_changes_nothing_of_what_is_found(apply: Apply) -> None:
    processor = made("regex", pattern=r"(?P<a>\w+) is (?P<b>\w+)")
    lines = ["nothing", "it is so", "", "x\nit is y", "é is ü", "it is"] * 40
    whole = [each.fields for each in processor.apply(batch(*map(record, lines))).records]  # type: ignore[union-attr]
    again = [each.fields for each in processor.apply(batch(*map(record, lines))).records]  # type: ignore[union-attr]
    single = [apply("regex", record(line), pattern=r"(?P<a>\w+) is (?P<b>\w+)")[0].fields for line in lines]
    assert whole == again == single


@given(st.text() | st.binary().map(lambda data: data.decode("utf-8", "replace")))
def test_whatever_comes_a_record_goes_on(line: str) -> None:
    for pattern in (r"(?P<a:int>.)(?P<b>.*)", r"(?P<a>.*) (?P<level>.*)", r"^(?P<time>\S*)(?P<message>.?)"):
        assert encode_json(WEB, [parsed(line, pattern)]).count(b"\n") == 1
