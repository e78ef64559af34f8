"""Going on in a log that is read by API: each record once, with its id, wherever reading was cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from logroute.router.position import BEGINNING, Mark, Position
from logroute.router.record import STREAMS, Batch, Origin, Record, Stream, message_hash
from logroute.router.times import iso_time
from logroute.sources.engine_batches import (
    ALL_PENDING_BYTES,
    LEAST_PENDING_BYTES,
    PENDING_BYTES,
    PendingBatches,
    share_of_pending,
)
from logroute.sources.engine_resume import (
    JITTER_NS,
    Ahead,
    Locator,
    Skipper,
    advanced,
    goes_back,
    oldest,
    since_ns,
)

ORIGIN = Origin("docker:" + "ab" * 32, "docker", id="ab" * 32, name="web")
START = 1_700_000_000 * 10**9
LATER = START + 10**15
LATE = START + 10**10 + 1

Entry = tuple[Stream, int, str]
"""Stream, nanoseconds, message."""

Engine = Literal["filters every record", "from the first match", "leaves since itself out", "ignores since"]


def answer(log: list[Entry], since: int, engine: Engine) -> list[Record]:
    """What an engine sends."""
    if engine == "filters every record":
        log = [entry for entry in log if entry[1] >= since]
    elif engine == "leaves since itself out":
        log = [entry for entry in log if entry[1] > since]
    elif engine == "from the first match":
        first = next((n for n, entry in enumerate(log) if entry[1] >= since), len(log))
        log = log[first:]
    return [Record(message, stream, iso_time(ns)) for stream, ns, message in log]


@dataclass
class Reader:
    """As EngineLog reads, without the engine."""

    engine: Engine
    position: Position = BEGINNING
    lost: int = 0

    def read(self, log: list[Entry], *, upto: int | None = None, now_ns: int = LATER) -> list[str]:
        """The ids and messages of what is new; a reading is cut after `upto` records."""
        since = since_ns(self.position, now_ns)
        skipper = Skipper(self.position, since)
        got: list[str] = []
        records = answer(log, since, self.engine)[:upto]
        got += self.take(skipper.pass_on(records), skipper)
        if upto is None:
            skipper.ended()
        if skipper.missing is None:
            return got
        anchors = {
            name: anchor
            for name in ("stdout", "stderr")
            if (anchor := self.position.of(name).anchor)  # type: ignore[arg-type]
        }
        locator = Locator(anchors)  # type: ignore[arg-type]
        locator.look(answer(log, 0, self.engine))
        self.lost += len(anchors) - len(locator.found)
        skipper = Skipper(self.position, 0, {name: locator.found.get(name) for name in anchors})  # type: ignore[arg-type, misc]
        return got + self.take(skipper.pass_on(answer(log, 0, self.engine)), skipper)

    def take(self, records: list[Record], skipper: Skipper) -> list[str]:
        if passed := skipper.passed_over():
            pending = PendingBatches()
            pending.position = self.position
            pending.begin_behind(passed)
            self.position = pending.position
        before = self.position
        self.position = advanced(before, records)
        batch = Batch(ORIGIN, records, before=before, after=self.position, size_bytes=0)
        return [f"{ORIGIN.record_id(record)} {record.message}" for record in batch.records]


STEPS = st.tuples(
    st.sampled_from(["stdout", "stderr"]),
    # Nothing, the smallest, a jitter's worth, more than the longest jitter that is reckoned with.
    st.sampled_from([0, 0, 1, 1000, 10**9, JITTER_NS + 1, 3 * JITTER_NS]),
    st.sampled_from([0, 0, 0, 1, 500, 10**6]),
    st.sampled_from(["same", "other", ""]),
)


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """Times go on within a stream; a record may lie a little behind the other stream."""
    now = START
    last: dict[str, int] = {"stdout": 0, "stderr": 0}
    log: list[Entry] = []
    for stream, step, late, message in draw(st.lists(STEPS, max_size=30)):
        now += step
        ns = max(last[stream], now - late)
        last[stream] = ns
        log.append((stream, ns, message))  # type: ignore[arg-type]
    return log


ENGINES = st.sampled_from(
    ["filters every record", "from the first match", "leaves since itself out", "ignores since"]
)


@settings(max_examples=600)
@given(log=logs(), engine=ENGINES, cuts=st.lists(st.integers(0, 30), max_size=4), data=st.data())
def test_each_record_comes_once_with_its_id_wherever_reading_is_cut(
    log: list[Entry], engine: Engine, cuts: list[int], data: st.DataObject
) -> None:
    whole = Reader("ignores since").read(log)
    reader = Reader(engine)
    got: list[str] = []
    for there in [*sorted(cuts), len(log)]:
        upto = data.draw(st.none() | st.integers(0, 30)) if there < len(log) else None
        got += reader.read(log[:there], upto=upto)
    assert got == whole
    assert reader.lost == 0
    assert reader.position == advanced(BEGINNING, answer(log, 0, "ignores since"))


@settings(max_examples=600)
@given(log=logs(), engine=ENGINES, data=st.data())
def test_reading_begins_again_with_what_a_processor_holds(
    log: list[Entry], engine: Engine, data: st.DataObject
) -> None:
    whole = Reader("ignores since").read(log)
    first = data.draw(st.integers(0, len(log)), "in earlier batches")
    end = data.draw(st.integers(first, len(log)), "in this one too")
    reader = Reader(engine)
    reader.read(log[:first])
    before = reader.position
    records = answer(log[first:end], 0, "ignores since")
    batch = Batch(ORIGIN, records, before=before, after=advanced(before, records), size_bytes=0)
    positions, begins = {}, {}
    for stream in STREAMS:
        indexes = [index for index, record in enumerate(batch.records) if record.stream == stream]
        held = data.draw(st.sampled_from([None, *indexes]), f"held of {stream}")
        positions[stream] = batch.after.of(stream)
        begins[stream] = end
        if held is not None:
            mark = Mark.of(batch.records[held])
            positions[stream] = msgspec.structs.replace(before.of(stream), until=mark)
            begins[stream] = first + held
    reader.position = Position(positions["stdout"], positions["stderr"])
    got = reader.read(log)
    assert reader.lost == 0
    for stream in STREAMS:
        wanted = [
            text
            for at, (text, (of, _, _)) in enumerate(zip(whole, log, strict=True))
            if of == stream and at >= begins[stream]
        ]
        assert [text for text in got if text[13] == stream[3]] == wanted


def test_what_is_passed_over_before_a_mark_is_numbered() -> None:
    records = answer([("stdout", START + n // 2, str(n)) for n in range(6)], 0, "ignores since")
    begin = advanced(BEGINNING, records[:1])
    mark = msgspec.structs.replace(begin.stdout, until=Mark(records[4].time))
    skipper = Skipper(Position(mark, begin.stderr), 0)
    assert skipper.pass_on(list(records)) == records[4:]
    assert skipper.passed_over() == {"stdout": advanced(BEGINNING, records[:4]).stdout.anchor}
    assert skipper.passed_over() == {}


@settings(max_examples=300)
@given(log=logs(), engine=ENGINES, gone=st.integers(0, 30), cut=st.integers(0, 30))
@example(log=[("stdout", START, "same")] * 6, engine="filters every record", gone=2, cut=5)
@example(
    log=[("stdout", START, ""), *[("stderr", LATE, "")] * 3, ("stdout", LATE, "")],
    engine="filters every record",
    gone=3,
    cut=3,
)
def test_what_was_rotated_away_costs_no_record_that_is_still_there(
    log: list[Entry], engine: Engine, gone: int, cut: int
) -> None:
    # Alike records of one nanosecond cannot be told apart once the first of them are gone.
    log = [(stream, ns, f"{number}") for number, (stream, ns, _) in enumerate(log)]
    reader = Reader(engine)
    reader.read(log[:cut])
    messages = [text.split(" ", 1)[1] for text in reader.read(log[gone:])]
    if gone == 0:
        assert messages == [message for _, _, message in log[cut:]]
    # Order is a stream's: what is found out to be new only at the end comes behind the other stream's.
    for stream in ("stdout", "stderr"):
        new = [message for of, _, message in log[max(cut, gone) :] if of == stream]
        got = [message for message in messages if log[int(message)][0] == stream]
        assert got[len(got) - len(new) :] == new


def test_a_clock_that_was_set_back_repeats_and_loses_nothing() -> None:
    log: list[Entry] = [("stdout", START + n * 10**9, f"before {n}") for n in range(5)]
    reader = Reader("filters every record")
    first = reader.read(log)
    log += [("stdout", START - 10**12 + n, f"after {n}") for n in range(3)]
    now = START - 10**12 + 100
    second = reader.read(log, now_ns=now)
    log += [("stdout", START - 10**12 + 50 + n, f"later {n}") for n in range(3)]
    third = reader.read(log, now_ns=now)
    messages = [text.split(" ", 1)[1] for text in first + second + third]
    assert messages == [message for _, _, message in log]
    assert reader.lost == 0


def test_a_stream_that_is_long_silent_does_not_make_the_engine_send_everything() -> None:
    log: list[Entry] = [("stderr", START, "once"), ("stdout", START + 60 * 10**9, "now")]
    reader = Reader("filters every record")
    reader.read(log)
    assert since_ns(reader.position, LATER) == START + 60 * 10**9 - JITTER_NS - 1


def test_what_was_unfinished_is_asked_for_again() -> None:
    log: list[Entry] = [("stdout", START, "a"), ("stderr", START + 60 * 10**9, "b")]
    reader = Reader("filters every record")
    reader.read(log)
    assert since_ns(reader.position, LATER, [iso_time(START + 5)]) == START + 4


def test_everything_is_asked_for_when_the_clock_stands_behind_what_was_read() -> None:
    reader = Reader("filters every record")
    reader.read([("stdout", START, "a")])
    assert since_ns(reader.position, START - 1) == 0


def test_nothing_before_the_wanted_time_comes() -> None:
    log: list[Entry] = [
        ("stdout", START, "old"),
        ("stderr", START + 10, "new"),
        ("stdout", START + 5, "late and old"),
        ("stdout", START + 11, "new too"),
    ]
    reader = Reader("from the first match", Position(since=iso_time(START + 10)))
    assert [text.split(" ", 1)[1] for text in reader.read(log)] == ["new", "new too"]
    assert reader.position.since == iso_time(START + 10)


@given(log=logs(), cuts=st.lists(st.integers(0, 30), min_size=1, max_size=3))
def test_routes_that_are_ahead_are_told_what_they_have(log: list[Entry], cuts: list[int]) -> None:
    records = answer(log, 0, "ignores since")
    positions = [advanced(BEGINNING, records[:cut]) for cut in cuts]
    begin = oldest(positions)
    new = Skipper(begin, 0)
    rest = new.pass_on(records)
    for position, cut in zip(positions, cuts, strict=True):
        ahead = Ahead(["route"], position, begin)
        theirs = [record for record in rest if record.stream not in ahead.acknowledged(record)]
        assert theirs == records[cut:]


@pytest.mark.parametrize(
    ("times", "index"),
    [
        ([("stdout", 1), ("stdout", 2)], None),
        ([("stdout", 2), ("stderr", 1), ("stdout", 2)], None),
        ([("stdout", 2), ("stderr", 1), ("stdout", 1)], 2),
        ([("stderr", 0), ("stdout", 2)], None),
        ([("stdout", 0), ("stdout", 2)], 0),
    ],
)
def test_a_time_that_goes_back_is_noticed_within_a_stream_only(
    times: list[tuple[Stream, int]], index: int | None
) -> None:
    position = advanced(BEGINNING, [Record("x", "stdout", iso_time(START + 1))])
    records = [Record(f"{n}", stream, iso_time(START + ns)) for n, (stream, ns) in enumerate(times)]
    assert goes_back(records, position) == index


@pytest.mark.parametrize(
    ("said", "index"),
    [
        ([("stdout", 1, "x")], 0),
        ([("stdout", 1, "another")], None),
        ([("stderr", 1, "x")], None),
        ([("stdout", 2, "y"), ("stderr", 2, "y"), ("stdout", 2, "y")], 2),
        ([("stdout", 2, "y"), ("stdout", 2, "z"), ("stdout", 2, "y")], None),
    ],
)
def test_a_record_that_comes_twice_is_noticed(said: list[tuple[Stream, int, str]], index: int | None) -> None:
    position = advanced(BEGINNING, [Record("x", "stdout", iso_time(START + 1))])
    records = [Record(message, stream, iso_time(START + ns)) for stream, ns, message in said]
    assert goes_back(records, position) == index
    coarse = [Record(message, stream, "2026-11-23T20:06:26.000000000Z") for stream, _, message in said]
    assert goes_back(coarse, advanced(BEGINNING, coarse[:1])) is None


def test_an_anchor_knows_its_place_in_its_group() -> None:
    group = [Record(f"{n}", "stdout", iso_time(START)) for n in range(3)]
    position = advanced(advanced(BEGINNING, group[:2]), group[2:])
    anchor = position.stdout.anchor
    assert anchor is not None
    assert (anchor.sequence, anchor.hash) == (2, message_hash("2"))


def test_all_logs_together_hold_only_so_much() -> None:
    assert share_of_pending(0) == share_of_pending(1) == share_of_pending(16) == PENDING_BYTES
    assert 150 * share_of_pending(150) <= ALL_PENDING_BYTES
    assert share_of_pending(10_000) == LEAST_PENDING_BYTES
