"""Users' regular expressions: found alike in one text and in many at once, whatever stands around it."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logroute.router import regex as module
from logroute.router.regex import Regex, RegexError, RegexSet

PATTERNS = [
    *("foo", "^foo", "foo$", "^foo$", "fo+", "[^x]", "a|b", "^$", "", "x*", "o b", "é", "É", ".", "f.*r"),
    *(
        r"\bfoo\b",
        r"\d+",
        r"\s",
        r"foo\s*bar",
        r"(foo)(bar)?",
        r"\Afoo",
        r"foo\Z",
        "(?i)FOO",
        "(a+)+b",
        "o$|^b",
        r"foo\n",
        r"(?:o|^)b",
    ),
]
# As Python reads them, which knows none of these names.
NAMED = {
    "o[[:space:]]b": r"o\sb",
    "o[[:^alnum:]]b": "o[^0-9A-Za-z]b",
    "[^[:alpha:]x-z]f": "[^A-Za-z]f",
    "[][:space:]]f": r"[]\s]f",
    r"\[[:alpha:]]": r"\[[:alph]\]",
    "fo{,3}b": "fo{0,3}b",
    r"[{,3}]\{,3}": r"[{,3}]\{,3\}",
}
TEXTS = st.lists(
    st.sampled_from(["foo", "foobar", " foo b", "", "x", "aaaa", "aab", "é", "foo\nbar", "\n", "7", "\ud800"])
    | st.text("fo bar\n7é", max_size=6),
    max_size=12,
)


@given(st.lists(st.sampled_from([*PATTERNS, *NAMED]), min_size=1, max_size=4), st.booleans(), TEXTS)
def test_many_texts_are_searched_as_each_of_them_is(
    patterns: list[str], ignore_case: bool, texts: list[str]
) -> None:
    regexes = [Regex(pattern, ignore_case=ignore_case) for pattern in patterns]
    regex_set = RegexSet(regexes)
    ended = [f"{text}\n" for text in texts]
    for masks in (regex_set.masks(texts), regex_set.masks(ended, newlines=True)):
        for regex in regexes:
            assert list(masks[regex]) == [regex.found_in(text) for text in texts]
    # Half of them end with a carriage return.
    of_terminal = [f"{text}\r" if index % 2 else text for index, text in enumerate(texts)]
    ended = [f"{text}\n" for text in of_terminal]
    for masks in (
        regex_set.masks(of_terminal, returns=True),
        regex_set.masks(ended, newlines=True, returns=True),
    ):
        for regex in regexes:
            assert list(masks[regex]) == [regex.found_in(text) for text in texts]


@pytest.mark.parametrize(
    ("patterns", "texts"),
    [
        (
            [r"^[\t ]+\.\.\. \d+ ", r"^[\t ]*(?:Caused by: |\[CIRCULAR REFERENCE: )"],
            ["\tat shop.Bank.ask(Bank", "\t... 2 more"],
        ),
        (
            ["at ", r"at \d+(?:ab|cd)", r"^[\t ]*a", r"\bab\b"],
            ["", "a12", "x in at  ... ... erroraa", "abxcderror"],
        ),
        (
            [r"b+x?", r"^[\t ]*a", r"error\.\.\. [ab]c", r"^[\t ]+a"],
            [". ", "...  ", "... xcaa", "cd\tc cx", "a"],
        ),
    ],
)
def test_what_one_pattern_finds_is_found_among_others(patterns: list[str], texts: list[str]) -> None:
    """Hyperscan from 0.7.23 on leaves some of it out."""
    regexes = [Regex(pattern) for pattern in patterns]
    masks = RegexSet(regexes).masks(texts)
    for regex in regexes:
        assert list(masks[regex]) == [regex.found_in(text) for text in texts]


_BEGINNINGS = st.sampled_from(["", "", "^", r"^[\t ]+", r"^[\t ]*"])
_PIECES = st.sampled_from(
    ["a", "b+", "[ab]c", "(?:ab|cd)", r"\d+", "at ", r"\.\.\. ", "x?", "error", "[^a]b", r"\bab\b"]
)
_WRITTEN = st.builds(
    lambda begin, pieces: begin + "".join(pieces), _BEGINNINGS, st.lists(_PIECES, min_size=1, max_size=3)
)
_WORDS = st.sampled_from([" ", "\t", "a", "b", "c", "ab", "cd", "12", "at ", "... ", "x", "error", "."])
_SAID = st.lists(st.builds("".join, st.lists(_WORDS, max_size=12)), max_size=12)


@given(st.lists(_WRITTEN, min_size=1, max_size=6), _SAID)
def test_patterns_like_those_that_users_write_find_the_same_together(
    patterns: list[str], texts: list[str]
) -> None:
    regexes = [Regex(pattern) for pattern in patterns]
    masks = RegexSet(regexes).masks(texts)
    for regex in regexes:
        assert list(masks[regex]) == [regex.found_in(text) for text in texts]


@given(st.sampled_from(PATTERNS), st.text("fo bar\n7x", max_size=8))
def test_it_is_found_where_python_finds_it(pattern: str, text: str) -> None:
    assert Regex(pattern).found_in(text) == (re.search(pattern, text) is not None)


@pytest.mark.parametrize("pattern", NAMED)
def test_classes_and_repetitions_that_engines_read_otherwise_mean_the_same_everywhere(pattern: str) -> None:
    texts = ["fo", "b", "[l]", "foob", "fo b", "[l]f", "]f", "zf", "3{,3}", "é", *["7"] * 100]
    regex = Regex(pattern)
    expected = [re.search(NAMED[pattern], text) is not None for text in texts]
    assert list(map(regex.found_in, texts)) == expected
    assert list(map(bool, RegexSet([regex]).masks(texts)[regex])) == expected  # no text goes on in the next
    assert sum(expected) > 0


@pytest.mark.parametrize(
    "pattern", ["key.{0,900}end", r"key\S{0,900}end", "[^;]{300};", "(?:x[^;]{1,9};){60}y"]
)
def test_what_hyperscan_compiles_for_minutes_is_re2s(pattern: str) -> None:
    begin = time.process_time()
    regex = Regex(pattern)
    assert time.process_time() - begin < 2
    assert not regex.scannable
    assert Regex(r"key.{0,90}end [a-f0-9]{300}").scannable


@pytest.mark.parametrize("texts", [["foo"] * 100, ["foo", *["x"] * 1000], ["x"] * 1000, []])
def test_whether_there_is_much_or_little(texts: list[str]) -> None:
    regex = Regex("fo+")
    assert list(RegexSet([regex]).masks(texts)[regex]) == [text == "foo" for text in texts]


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(.*)*x", r"^(\w+\s?)*$"])
def test_no_pattern_takes_exponential_time(pattern: str) -> None:
    begin = time.process_time()
    assert not Regex(pattern).found_in("a" * 100_000 + "!")
    assert time.process_time() - begin < 5  # Python's engine would need longer than the universe has


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(", "/(/ is no regular expression at its character 1: missing )"),
        ("(?<!x)y", "/(?<!x)y/ cannot be searched in linear time"),
        (r"(a)\1", r"/(a)\1/ cannot be searched in linear time"),
    ],
)
def test_what_cannot_be_searched_in_linear_time_is_refused(pattern: str, words: str) -> None:
    with pytest.raises(RegexError) as caught:
        Regex(pattern)
    assert words in str(caught.value)
    # Only matches and `engine: python` ask for it: elsewhere `/…/p` would be a pattern with slashes.
    assert "/p" not in str(caught.value)


def test_pythons_engine_is_used_where_it_is_asked_for() -> None:
    regex = Regex(r"(a)\1", python=True)
    assert list(RegexSet([regex, Regex("b")]).masks(["aa", "ab"])[regex]) == [1, 0]


def test_without_hyperscan_re2_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(regex: Regex) -> None:
        raise ImportError

    monkeypatch.setattr(module, "_hyperscan_search", missing)
    regex = Regex("FO+", ignore_case=True)
    assert not regex.scannable
    assert list(RegexSet([regex]).masks(["foo", "x"])[regex]) == [1, 0]
    with pytest.raises(RegexError, match="cannot be searched in linear time"):
        Regex("(?<!x)y")
    monkeypatch.setattr(module, "_re2_search", missing)
    with pytest.raises(RegexError, match="neither is installed"):
        Regex("foo")
