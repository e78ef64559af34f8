"""Objects with the same keys, read as rows, become what each of them becomes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logroute.processors import Processor, _alike, logfmt
from logroute.processors._alike import MOST_KEY_CHARACTERS, MOST_KEYS, SIGHTS, alike
from logroute.processors.logfmt import alike_pairs
from logroute.router.record import DetailedRecord, Record
from tests.processors.conftest import TIME, batch, made
from tests.processors.test_objects import ALIKE, ANY, MONGODB, PLAIN


@pytest.fixture(autouse=True, scope="module")
def _few_lines_are_many() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (_alike, logfmt):
            patch.setattr(module, "FEW", 2)
        patch.setattr(_alike, "MANY", 2)
        yield


def records(lines: Sequence[str], *, plain: bool) -> list[Record]:
    kind = Record if plain else DetailedRecord
    return [kind(line, "stderr" if number % 3 else "stdout", TIME) for number, line in enumerate(lines)]


@cache
def processors(type_: str, options: tuple[tuple[str, Any], ...]) -> tuple[Processor[Any], Processor[Any]]:
    """To look for levels in texts takes long to prepare."""
    return made(type_, **dict(options)), made(type_, **dict(options))


def detailed(found: Sequence[Record]) -> list[DetailedRecord]:
    return [each if isinstance(each, DetailedRecord) else DetailedRecord(each.message, each.stream, each.time)
            for each in found]  # fmt: skip


BROKEN = st.sampled_from(
    [
        "{",
        "}",
        "",
        "text",
        "{}",
        "{}{}",
        '{"a":[{}',
        '{"a":{}}]}',
        '{"user":1,}',
        "[{}]",
        ' {"user":"x"}',
        "{}\n{}",
    ]
)


PAIRS = st.sampled_from(
    [
        *(
            "level=info",
            "level=loud",
            "time=2026-11-23T20:06:25.5Z",
            "time=soon",
            'msg="a b"',
            'msg=""',
            "msg=c",
        ),
        *(
            "user=ada",
            "user=",
            'user="{}"',
            'user={"a":1}',
            "user={}",
            'user="',
            "user=a=b",
            "user",
            "=ada",
            "",
        ),
        *('user="a\\tb"', "user=\ta", "user=\nb=1", 'user="}\n{"', "user=a,b", "user=a:b", "user=\udc80"),
        *(
            "\x1b[36muser=a",
            'user="a\tb"',
            "user=\x0ba",
            "user=\x1ca",
            "user=\xa0",
            "us\\er=a",
            'user="a\x00"',
        ),
    ]
)
USUAL = ["time=2026-11-23T20:06:25.5Z", "level=info", 'msg="a b"', "user=ada"]
LINES = st.one_of(
    st.one_of(ANY, ALIKE).map(lambda objects: [json.dumps(each) for each in objects]),
    st.lists(st.text(), max_size=3).map(lambda keys: [json.dumps(dict.fromkeys(keys, "x"))] * 3),
    st.lists(st.lists(PAIRS, max_size=4).map(" ".join), max_size=4),
    st.lists(st.lists(PAIRS, min_size=1, max_size=1), max_size=4).map(
        lambda lines: [" ".join([*line, *USUAL]) for line in lines]
    ),
)


@pytest.mark.parametrize(
    ("type_", "options"),
    [
        ("json", ()),
        ("json", (("keep", True),)),
        ("json", (("target", "root"),)),
        ("logfmt", ()),
        ("logfmt", (("keep", True),)),
        ("auto", ()),
    ],
)
@given(lines=LINES, broken=st.lists(BROKEN, max_size=2), at=st.integers(0, 4))
@example(lines=[json.dumps(PLAIN)] * 3, broken=[], at=0)
@example(lines=[json.dumps(PLAIN)] * 3, broken=["{}{}"], at=1)
@example(lines=[json.dumps(PLAIN | {"level": level}) for level in (1, True)], broken=[], at=0)
@example(lines=[json.dumps(PLAIN | {"level": level}) for level in ("info", "loud")], broken=[], at=0)
@example(lines=[json.dumps(PLAIN), json.dumps(PLAIN | {"log": {"level": "warn"}})], broken=[], at=0)
@example(lines=[json.dumps(MONGODB)] * 3, broken=[], at=0)
@example(lines=['{"msg":"m"}', '{"msg":"n"}'], broken=[], at=0)
@example(lines=['{"C:\\\\x":1}'] * 3, broken=[], at=0)
@example(lines=['{"a\\"b":1}'] * 3, broken=[], at=0)
@example(lines=['{"a\\nb":1}'] * 3, broken=[], at=0)
@example(lines=["\x1b[36mlevel=info a=b"] * 3, broken=[], at=0)
@example(lines=[], broken=['{"a":[{}', "{}]}"], at=0)
@example(lines=[], broken=['{"a":[{}', '{"a":{}}]}', "{}{}"], at=0)
@example(lines=[" ".join(USUAL)] * 3, broken=[], at=0)
@example(lines=["user=ada"] * 3, broken=[], at=0)
def test_lines_become_what_each_becomes(
    type_: str, options: tuple[tuple[str, Any], ...], lines: list[str], broken: list[str], at: int
) -> None:
    lines = [*lines[:at], *broken, *lines[at:]]
    alone, together = processors(type_, options)
    alone.books.failed = 0
    one_by_one = [alone.apply(batch(each)).records[0] for each in records(lines, plain=False)]  # type: ignore[union-attr]
    for plain in (False, True):
        together.books.failed = 0
        given_ = records(lines, plain=plain)
        found = together.apply(batch(*given_)).records  # type: ignore[union-attr]
        assert detailed(found) == one_by_one
        assert together.books.failed == alone.books.failed
        if plain:
            assert given_ == records(lines, plain=True)


def test_what_is_alike() -> None:
    found = alike(['{"a b":1,"log.level":[],"":null}', '{"a b":2,"log.level":{},"":"x"}'])
    assert found is not None
    assert [*found.keys] == ["a b", "log.level", ""]
    assert found.column("a b") == [1, 2]
    assert found.objects(without=["a b", None]) == [{"log.level": [], "": None}, {"log.level": {}, "": "x"}]


@pytest.mark.parametrize(
    "lines",
    [
        ['{"a":1}'],
        ["{}", "{}"],
        ['{"a":1}', ""],
        ['{"a":1}', "{"],
        ['{"a":1}', '{"a":1,"b":1}', '{"a":1}'],
        ['{"a":1,"b":1}', '{"b":1,"a":1}'],
        ['{"a":[{"a":1}', '{"a":1}]}', '{"a":1}{"a":1}'],
        ['{"a":"\udc80"}'] * 2,
        ['{"a":' + "[" * 450 + "]" * 450 + "}"] * 2,
        ["{" + ",".join(f'"{number}":1' for number in range(MOST_KEYS + 1)) + "}"] * 2,
        ['{"' + "a" * MOST_KEY_CHARACTERS + '":1,"b":1}'] * 2,
        ['{"a\\\\":1}'] * 2,
        ['{"a\\"":1}'] * 2,
        ['{"a\\u0001":1}'] * 2,
    ],
)
def test_what_is_not(lines: list[str]) -> None:
    assert alike(lines) is None


def test_keys_that_few_lines_have_are_read_as_rows_when_they_come_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_alike, "MANY", 3)
    lines = ['{"again":1}', '{"again":2}']
    assert [alike(lines) is not None for _ in range(SIGHTS)] == [False] * (SIGHTS - 1) + [True]


def test_pairs_that_are_alike() -> None:
    found = alike_pairs(['a=1 b="x y"', 'a=2 b=""'])
    assert found is not None
    assert [*found.keys] == ["a", "b"]
    assert found.column("b") == ["x y", ""]
    assert found.objects(without=["a", None]) == [{"b": "x y"}, {"b": ""}]


@pytest.mark.parametrize(
    "lines",
    [
        ["a=1 b=2", "b=1 a=2"],
        ["a=1 b=2", "a=1"],
        ["a=1 b", "a=1 b"],
        ["=1", "=1"],
        ["a=1 ", "a=1 "],
        ["a=1\tb=2", "a=1\tb=2"],
        ["a=b=c", "a=b=c"],
        ['a="', 'a="'],
    ],
)
def test_pairs_that_are_not(lines: list[str]) -> None:
    assert alike_pairs(lines) is None
