"""Throttling and folding: so many in a window, the same ones however often and wherever they are read."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from logroute.processors import Processor
from logroute.processors import _windows as module
from logroute.router.record import Origin, Record
from logroute.router.times import iso_time
from tests.processors.conftest import WEB, batch, made, record

BEGIN_S = 1_795_464_380


def at(seconds: float) -> str:
    """So many seconds behind 20:06:20, and as precise as an engine's times are."""
    return iso_time(BEGIN_S * 10**9 + round(seconds * 10**9) + 789)


def lines(*said: tuple[float, str], stream: str = "stdout") -> list[Record]:
    return [record(message, time=at(seconds), stream=stream) for seconds, message in said]


def through(processor: Processor[Any], records: list[Record], origin: Origin = WEB) -> list[Record]:
    result = processor.apply(batch(*records, origin=origin))
    return result.records if result is not None else []


def messages(records: list[Record]) -> list[str]:
    return [each.message for each in records]


# --- throttle -----------------------------------------------------------------------------------------


def test_so_many_pass_in_each_window_and_then_a_line_says_how_many_did_not() -> None:
    throttle = made("throttle", rate="2/s")
    found = through(throttle, lines((0.1, "a"), (0.2, "b"), (0.3, "c"), (0.9, "d"), (1.0, "e"), (2.0, "f")))
    assert messages(found) == ["a", "b", "2 records held back: more than 2 a second", "e", "f"]
    told = found[2]
    assert (told.time, told.level, told.fields) == (at(0.9), "warn", {"held_back": 2})
    assert WEB.record_id(told) == f"{WEB.id[:12]}-o{at(0.9)}.throttled"
    assert throttle.books.added == 1


def test_the_line_comes_with_the_next_record_in_whatever_batch() -> None:
    throttle = made("throttle", rate="1/m")
    assert messages(through(throttle, lines((0, "a"), (1, "b")))) == ["a"]
    assert messages(through(throttle, lines((2, "c")))) == []
    assert messages(through(throttle, lines((70, "d")))) == ["2 records held back: more than 1 a minute", "d"]
    assert messages(through(throttle, lines((71, "e"), (140, "f")))) == [
        "1 record held back: more than 1 a minute",
        "f",
    ]


def test_each_value_of_a_path_is_counted_by_itself() -> None:
    throttle = made("throttle", rate="1/h", by="fields.user")
    users = ("ada", "bob", "ada", None, 7, 7, None)
    given = [record(f"{n}", time=at(n), fields={"user": user}) for n, user in enumerate(users)]
    assert messages(through(throttle, given)) == ["0", "1", "3", "4"]


def test_what_was_held_back_is_told_of_each_value() -> None:
    throttle = made("throttle", rate="1/m", by="fields.user")
    given = [
        record(f"{n}", time=at(n), fields={"user": user}) for n, user in enumerate(("ada", "ada", None, None))
    ]
    *_, ada, nobody, _ = through(throttle, [*given, record("x", time=at(70), fields={"user": "bob"})])
    assert (ada.message, ada.fields) == (
        "1 record held back: more than 1 a minute of fields.user ada", {"user": "ada", "held_back": 1},
    )  # fmt: skip
    assert (nobody.message, nobody.fields) == (
        "1 record held back: more than 1 a minute without fields.user", {"held_back": 1},
    )  # fmt: skip


def test_each_container_is_counted_by_itself() -> None:
    throttle, other = made("throttle", rate="1/d"), Origin("docker:2", "docker", name="db")
    assert messages(through(throttle, lines((0, "a"), (1, "b")))) == ["a"]
    assert messages(through(throttle, lines((0, "a"), (1, "b")), other)) == ["a"]


def test_both_streams_are_counted_together_and_one_may_be_behind_the_other() -> None:
    throttle = made("throttle", rate="2/s")
    early, late = lines((0.5, "out"), (1.5, "next")), lines((0.4, "err"), (0.45, "more"), stream="stderr")
    assert messages(through(throttle, [*early, *late])) == ["out", "next", "err"]


def test_what_is_read_again_gets_the_answer_that_it_got() -> None:
    throttle = made("throttle", rate="2/s")
    given = lines((0.1, "a"), (0.2, "b"), (0.3, "c"), (1.1, "d"), (1.2, "e"), (1.3, "f"))
    first = through(throttle, given)
    again = through(throttle, given)
    assert messages(again) == ["a", "b", "d", "e"]
    assert [each for each in first if each in given] == again
    assert messages(through(throttle, lines((2.0, "g")))) == ["1 record held back: more than 2 a second", "g"]


def test_records_of_one_time_are_told_apart_by_their_sequence() -> None:
    throttle = made("throttle", rate="2/s")
    given: list[Record] = [record(str(n), time=at(0), sequence=n) for n in range(4)]
    assert messages(through(throttle, given)) == ["0", "1"] == messages(through(throttle, given))


def test_records_without_an_engines_time_are_counted_as_they_come() -> None:
    throttle = made("throttle", rate="2/s")
    given: list[Record] = [record(str(n), time=at(0), place=f"f-{n}") for n in range(4)]
    assert messages(through(throttle, given)) == ["0", "1"]


def test_it_goes_by_the_engines_time_where_a_record_says_its_own() -> None:
    throttle = made("throttle", rate="1/s")
    given: list[Record] = [record(str(n), time=at(0), logged=at(n)) for n in range(3)]
    assert messages(through(throttle, given)) == ["0", "1", "2"]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KINDS", 10)
    throttle = made("throttle", rate="1/s", by="message")
    given = lines(*((n, f"{n}-{m}") for n in range(30) for m in range(30)))
    assert len(through(throttle, given)) == 900
    [windows] = throttle._known.values()  # type: ignore[attr-defined]
    assert len(windows) == module.WINDOWS
    assert {len(each) for each in windows.values()} == {10}


# --- dedupe -------------------------------------------------------------------------------------------


def test_a_line_that_is_said_again_is_counted() -> None:
    dedupe = made("dedupe", window="10s")
    found = through(dedupe, lines((0, "a"), (1, "a"), (2, "b"), (3, "a"), (10, "a"), (12, "c"), (21, "c")))
    assert messages(found) == ["a", "b", "a (said 2 times more)", "a", "c", "c"]
    assert (found[2].time, found[2].fields) == (at(3), {"repeated": 2})
    assert WEB.record_id(found[2]) == f"{WEB.id[:12]}-o{at(3)}.repeated"


def test_streams_are_told_apart() -> None:
    given = [*lines((0, "a")), *lines((0, "a"), stream="stderr")]
    assert through(made("dedupe"), given) == given


def test_what_is_equal_may_be_a_field_and_where_it_is_absent_nothing_is() -> None:
    given: list[Record] = [
        record(str(n), time=at(n), fields=fields)
        for n, fields in enumerate([{"e": "x"}, {"e": "x"}, {"e": 1}, {"e": 1}, None, None])
    ]
    assert messages(through(made("dedupe", by="fields.e"), given)) == ["0", "2", "4", "5"]


def test_of_a_long_line_only_the_beginning_is_remembered() -> None:
    dedupe = made("dedupe", window="1s")
    long = "x" * 100_000
    found = through(dedupe, lines((0, long), (0.1, long), (0.2, long + "y"), (1, "z")))
    assert messages(found) == [long, long + "y", "x" * 200 + "… (said once more)", "z"]


# --- both ---------------------------------------------------------------------------------------------

RECORDS = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from("abc"), st.sampled_from(["stdout", "stderr"]))
)
KINDS = st.sampled_from([("throttle", {"rate": "2/s"}), ("throttle", {"rate": "1/s", "by": "message"}),
                         ("dedupe", {"window": "2s"})])  # fmt: skip


def written(said: list[tuple[int, str, str]]) -> list[Record]:
    """Records in the order of their times, numbered where these are equal."""
    made_: list[Record] = []
    seen: dict[tuple[int, str], int] = {}
    for tenth, message, stream in sorted(said, key=lambda each: each[0]):
        sequence = seen[tenth, stream] = seen.get((tenth, stream), -1) + 1
        made_.append(record(message, time=at(tenth / 10), stream=stream, sequence=sequence))
    return made_


@given(KINDS, RECORDS, st.lists(st.integers(0, 50)))
def test_however_it_was_cut_into_batches(kind: Any, said: Any, cuts: list[int]) -> None:
    records = written(said)
    whole = through(made(kind[0], **kind[1]), records)
    pieces, processor = [], made(kind[0], **kind[1])
    edges = sorted({0, len(records), *(cut for cut in cuts if cut < len(records))})
    for start, end in pairwise(edges):
        pieces += through(processor, records[start:end])
    assert pieces == whole


@given(KINDS, RECORDS, st.integers(0, 50))
def test_what_has_passed_passes_again_from_wherever_it_is_read_again(
    kind: Any, said: Any, start: int
) -> None:
    records = written(said)
    rest = records[start:]
    processor = made(kind[0], **kind[1])
    before = [each for each in through(processor, records) if each in rest]
    # With what is remembered exactly the same passes, without it the same, and what begins a window.
    assert [each for each in through(processor, rest) if each in rest] == before
    after = through(made(kind[0], **kind[1]), rest)
    assert [each for each in after if each in before] == before
    window = 2 if kind[0] == "dedupe" else 1
    first = module.second(rest[0].time) // window if rest else 0
    more = [each for each in after if each in rest and each not in before]
    assert all(module.second(each.time) // window == first for each in more)


@pytest.mark.parametrize(
    ("type_", "options", "words"),
    [
        ("throttle", {}, "Field required"),
        ("throttle", {"rate": "100"}, "expected a rate such as 100/s"),
        ("throttle", {"rate": "0/s"}, "expected a rate such as 100/s"),
        ("throttle", {"rate": "1/s", "by": "nope"}, 'unknown path "nope"'),
        ("dedupe", {"window": "500ms"}, "greater than or equal to 1"),
        ("dedupe", {"window": "1.5s"}, "whole seconds"),
        ("dedupe", {"by": "mesage"}, 'did you mean "message"?'),
    ],
)
def test_mistakes_are_told(type_: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        made(type_, **options)
    assert words in str(caught.value)


@given(st.text(), st.text(max_size=30))
def test_whatever_comes_a_record_goes_on(message: str, time: str) -> None:
    for type_, options in (("throttle", {"rate": "1/s"}), ("dedupe", {})):
        found = through(made(type_, **options), [record(message, time=time), record("b", time=at(9))])
        assert found[0].message == message
