"""Many lines of an access log, read together, say what the regular expression finds in each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logroute.processors import _access
from logroute.processors._access import combined
from logroute.processors._formats import FORMATS, compiled
from logroute.router.record import DetailedRecord, Record
from tests.processors.conftest import TIME, batch, made


@pytest.fixture(autouse=True, scope="module")
def _few_lines_are_many() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_access, "FEW", 2)
        yield


USUAL = '10.0.0.1 - ada [23/Nov/2026:20:06:25 +0000] "GET /a?b=c HTTP/1.1" 200 17 "https://x/" "curl/8 (x)"'
# Of each part the usual first, then what may be there as well.
PARTS = (
    ("10.0.0.1", "::1", "fe80::1", "web:80 10.0.0.1", "web:80", "é", "", "a]", "-", "\xa0"),
    (" - ", "  ", " ", " a b ", " \n ", '" - ', "\t- "),
    ("ada", "-", "", "a b", "[x", "]", "a\tb"),
    (" [", "[", " ", " [["),
    ("23/Nov/2026:20:06:25 +0000", "23/Nov/2026:20:06:26 +0000", "23/Nov/2026:20:06:25 +0100", "x y", "x"),
    ("] ", "]", " ", "]] ", "]  "),
    ('"', "", '""', '\\"'),
    ("GET /a?b=c HTTP/1.1", "GET / HTTP/2.0", "GET /a", "-", "", "get / HTTP/1.1", "GET / HTTP/x", "A b c d"),
    ("", "\\x16\\x03", " ", "\n", "é", "\\"),
    ('" ', '"', '"  ', " "),
    ("200 17", "304 -", "200 ", "20 1", "2000 1", "200 x", "200  1", "٢٠٠ 1", "200 1" * 4, "200 " + "9" * 19),
    (' "', ' ""', "", " ", '"'),
    ("https://x/", "-", "", "a b", "\\", "\n", '"'),
    ('" "', '""', '"  "', '" "" "', ""),
    ("curl/8 (x)", "-", "", "\t", "\n", '\\"'),
    ('"', '" "10.0.0.2"', '"\n', '" x', "", '""'),
)  # fmt: skip


def line(chosen: tuple[int, ...]) -> str:
    return "".join(part[index % len(part)] for part, index in zip(PARTS, chosen, strict=True))


def strange(most: int) -> st.SearchStrategy[str]:
    """A line with so many parts at most that are not the usual ones."""
    changes = st.dictionaries(st.integers(0, len(PARTS) - 1), st.integers(0, 9), max_size=most)
    return changes.map(lambda some: line(tuple(some.get(place, 0) for place in range(len(PARTS)))))


@given(lines=st.lists(strange(2), max_size=6))
@example(lines=[USUAL, USUAL])
@example(lines=[USUAL, USUAL[:-1], '"' + USUAL])
@example(lines=[USUAL, "", USUAL])
@example(lines=[USUAL.replace(" - ", " "), USUAL.replace(" - ", " - - "), USUAL])
@example(lines=[USUAL.replace("200 17", "200"), USUAL.replace("200 17", "17 200 17")])
@example(lines=[USUAL + ' "-"', USUAL + ' "10.0.0.1"'])
@example(lines=[USUAL, USUAL, "2026/11/23 20:06:26 [error] 7#7: *1 open() failed"])
def test_lines_become_what_each_becomes(lines: list[str]) -> None:
    alone = made("format", name="nginx")
    one_by_one = [
        alone.apply(batch(DetailedRecord(each, "stdout", TIME))).records[0]  # type: ignore[union-attr]
        for each in lines
    ]
    for kind in (DetailedRecord, Record):
        given_ = [kind(each, "stdout", TIME) for each in lines]
        found = made("format", name="nginx").apply(batch(*given_)).records  # type: ignore[union-attr]
        assert [r if isinstance(r, DetailedRecord) else DetailedRecord(r.message, r.stream, r.time)
                for r in found] == one_by_one  # fmt: skip
        if kind is Record:
            assert given_ == [Record(each, "stdout", TIME) for each in lines]


@given(lines=st.lists(strange(1), min_size=2, max_size=6))
def test_what_is_read_together_is_what_the_expression_finds(lines: list[str]) -> None:
    many = combined(lines)
    if many is None:
        return
    places, columns = many
    match = compiled(FORMATS["nginx"][0]).match
    for number, place in enumerate(places):
        found = match(lines[place])
        assert found is not None
        assert {name: value for name, value in found.groupdict().items() if value is not None} == {
            name: column[number] for name, column in columns.items()
        }


def test_a_line_of_another_form_leaves_the_others_to_be_read_together() -> None:
    odd = [
        "",
        USUAL.replace("GET", "\\x16"),
        USUAL.replace("GET /a?b=c HTTP/1.1", "-"),
        USUAL[:-20],
        "x" * 99,
    ]
    many = combined([USUAL, odd[0], USUAL, *odd[1:], USUAL])
    assert many is not None
    assert [*many[0]] == [0, 2, 7]
    assert many[1]["time"] == ["23/Nov/2026:20:06:25 +0000"] * 3


def test_the_usual_lines_are_read_together() -> None:
    for lines in (
        [USUAL] * 2,
        [USUAL + ' "-"', USUAL + ' "10.0.0.2"'],
        [USUAL.replace("10.0.0.1", "::1"), USUAL],
    ):
        many = combined(lines)
        assert many is not None
        assert [*many[0]] == [0, 1]
