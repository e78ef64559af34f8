"""Batches: records that are made ready alone are what they are when all are."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from logroute.router.match import Match
from logroute.router.position import BEGINNING, Anchor, Position, StreamPosition
from logroute.router.record import Batch, DetailedRecord, Origin, Record, Stream
from logroute.router.regex import RegexSet
from logroute.router.selection import Look

WEB = Origin("docker:1", "docker", id="3b74a877e0f9" * 5, name="web")
STREAMS: st.SearchStrategy[Stream] = st.sampled_from(["stdout", "stdout", "stderr"])


def time(digits: str) -> str:
    return f"2026-11-23T20:06:26.{digits}Z"


def read(said: list[tuple[str, Stream, bool]], last: str) -> Batch:
    """As a source gives it: with newlines, and zeros trimmed."""
    lines: list[Record] = [
        DetailedRecord(f"{n}\n", stream, time(digits), truncated=True)
        if detailed
        else Record(f"{n}\n", stream, time(digits))
        for n, (digits, stream, detailed) in enumerate(said)
    ]
    anchor = StreamPosition(None, Anchor(f"2026-11-23T20:06:26.{last:0<9}Z", 3, ""))
    before = Position(anchor, anchor) if last else BEGINNING
    return Batch(WEB, lines, before=before, after=BEGINNING, size_bytes=1000, newlines=True)


SAID = st.lists(st.tuples(st.sampled_from(["1", "12", "123", "2", "21"]), STREAMS, st.booleans()), max_size=8)


@given(SAID, st.sampled_from(["", "1", "12"]), st.data())
def test_some_records_alone_are_made_ready_as_all_are(said: Any, last: str, data: st.DataObject) -> None:
    batch = read(said, last)
    indexes = data.draw(st.lists(st.sampled_from(range(len(said))), unique=True) if said else st.just([]))
    some = batch.made_ready(sorted(indexes))
    assert batch.lines == read(said, last).lines
    everything = batch.records
    if some is not None:
        assert some == [everything[index] for index in sorted(indexes)]


@given(
    st.lists(
        st.tuples(st.integers(1, 999), STREAMS, st.booleans()),
        min_size=20,
        max_size=100,
        unique_by=lambda each: each[0],
    )
)
def test_of_times_that_differ_some_are_always_told(said: Any) -> None:
    batch = read([(f"{number:03}", stream, detailed) for number, stream, detailed in sorted(said)], "")
    near = range(min(len(said), 60))
    assert batch.made_ready(near) is not None


@given(SAID, st.sampled_from(["", "1", "12"]), st.integers(0, 7))
def test_what_a_match_takes_is_the_same_however_much_it_is(said: Any, last: str, number: int) -> None:
    """Of few taken records the others are not made ready: nobody can tell from what is taken."""
    selector = Match.parse({"message": f"/^{number}$/"}).selector(WEB)
    assert selector is not None
    taken = Look(read(said, last), RegexSet(selector.regexes())).batch_of(selector)
    assert taken.records == [each for each in read(said, last).records if each.message == str(number)]


WRITTEN = ["1", "12", "123", "2", "21", "100000000", "120000000", "5", "500000"]


@example([("1", "stdout", False), ("100000000", "stdout", False)], "")
@given(
    st.lists(st.tuples(st.sampled_from(WRITTEN), STREAMS, st.just(False)), max_size=5),
    st.sampled_from(["", "1", "12", "3"]),
)
def test_lines_that_are_said_to_have_no_sequences_have_none(said: Any, last: str) -> None:
    batch = read(said, last)
    told = batch.has_no_sequences()
    assert batch.lines == read(said, last).lines
    if told:
        assert not any(record.sequence for record in batch.records)


def test_lines_of_two_streams_whose_times_differ_have_no_sequences() -> None:
    # They are not in the order of their times where two streams are written at once.
    batch = read([("12", "stdout", False), ("1", "stderr", False), ("3", "stdout", False)], "05")
    assert batch.has_no_sequences()
    assert not read([("12", "stdout", False)], "12").has_no_sequences()
