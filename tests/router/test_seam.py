"""What was shown as history is not shown live, nor what is older; everything else is, in order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import hypothesis
from hypothesis import strategies as st

from logroute.router.position import Anchor, Place, Reached
from logroute.router.record import Batch, DetailedRecord, Origin, Record, Stream, message_hash
from logroute.router.seam import REMEMBERED, Seam
from logroute.router.times import iso_time

Kind = Literal["file", "api", "text"]
WEB = Origin("docker:web", "docker", id="web")
SECOND = 10**9
LINE = 100
"""Bytes of each."""


class Log:
    """Records, and whoever reads them: each by its number."""

    def __init__(self, kind: Kind, streams: Sequence[Stream], times: Sequence[int]) -> None:
        self.kind = kind
        self.streams = streams
        self.times = [iso_time(time * SECOND) for time in times]

    def __len__(self) -> int:
        return len(self.times)

    def _record(self, number: int, read_at: int) -> Record:
        stream = self.streams[number]
        if self.kind == "text":
            # Its time is that of its being read.
            return DetailedRecord(f"n {number}", stream, iso_time(read_at), place=f"f-{number * LINE}")
        return Record(f"n {number}", stream, self.times[number])

    def _reached(self, number: int) -> Reached:
        place = Place("f", number * LINE) if self.kind != "api" else None
        anchors: dict[Stream, Anchor] = {}
        for each in range(number):
            anchors[self.streams[each]] = Anchor(self.times[each], 0, message_hash(f"n {each}"))
        return Reached(place, place, anchors.get("stdout"), anchors.get("stderr"))

    def batch(self, begin: int, end: int, read_at: int) -> Batch:
        records = [self._record(number, read_at) for number in range(begin, end)]
        return Batch(
            WEB, records, before=self._reached(begin), after=self._reached(end), size_bytes=1, ready=True
        )

    def parts(self, begin: int, end: int, part: int) -> list[Batch]:
        """As a view gives them: each has the positions of the whole."""
        whole = self.batch(begin, end, read_at=2)
        return [whole.with_records(whole.records[at : at + part]) for at in range(0, end - begin, part)]

    def history(self, begin: int, end: int) -> Batch:
        batch = self.batch(begin, end, read_at=1)
        if self.kind == "api":
            batch.before = batch.reached = Reached()
        return batch


def seen(
    log: Log, history: tuple[int, int], live: Sequence[int], without: frozenset[int], part: int = 100
) -> list[int]:
    """The numbers that somebody sees: of the history, then live, cut at these numbers, and in parts.

    `without`: those that a processor takes out.
    """
    seam = Seam()
    shown: list[int] = []

    def chosen(batch: Batch) -> Batch:
        kept = [record for record in batch.records if int(record.message[2:]) not in without]
        return batch.with_records(kept)

    batch = log.history(*history)
    seam.read(batch)
    seam.shown(chosen(batch))
    shown += [int(record.message[2:]) for record in chosen(batch).records]
    for begin, end in pairwise(live):
        for batch in map(chosen, log.parts(begin, end, part)):
            if batch.lines:
                shown += [int(record.message[2:]) for record in seam.new(batch).records]
    return shown


Story = tuple[Log, tuple[int, int], list[int], frozenset[int], int]


@st.composite
def stories(draw: st.DrawFn) -> Story:
    count = draw(st.integers(2, 24))
    kind = draw(st.sampled_from(["file", "api", "text"]))
    # By API times rise, some are equal; in a file they are what they are.
    steps = st.integers(0 if kind == "api" else -2, 3)
    times = [100]
    for _ in range(count - 1):
        times.append(max(0, times[-1] + draw(steps)))
    streams = [draw(st.sampled_from(["stdout", "stdout", "stderr"])) for _ in range(count)]
    end = draw(st.integers(1, count))
    begin = draw(st.integers(0, end - 1))
    first = draw(st.integers(0, end))
    cuts = draw(st.sets(st.integers(first, count)))
    without = draw(st.frozensets(st.integers(0, count - 1), max_size=4))
    return (
        Log(kind, streams, times),
        (begin, end),
        sorted({first, *cuts, count}),
        without,
        draw(st.integers(1, 8)),
    )


@hypothesis.settings(max_examples=400)
@hypothesis.given(stories())
def test_nothing_is_shown_twice_or_late_and_nothing_is_missing(story: Story) -> None:
    log, history, live, without, part = story
    wanted = [number for number in range(history[0], len(log)) if number not in without]
    got = seen(log, history, live, without, part)
    if without:
        # Of a record that was taken out nobody can tell where it stands: what is unsure is shown.
        assert [number for number in wanted if number not in got] == []
    else:
        assert got == wanted


def test_what_is_live_may_begin_long_before_some_last_lines() -> None:
    log = Log("api", ["stdout"] * 200, range(200))
    assert seen(log, (150, 160), [100, 120, 155, 158, 170, 200], frozenset()) == [*range(150, 200)]


def test_a_clock_that_is_set_back_behind_the_seam_hides_nothing() -> None:
    for kind in ("file", "api"):
        log = Log(kind, ["stdout"] * 40, [*range(100, 120), *range(50, 70)])
        assert seen(log, (0, 20), [20, 30, 40], frozenset()) == [*range(40)]
        assert seen(log, (0, 20), [15, 40], frozenset()) == [*range(40)]


def test_a_log_that_has_but_one_stream_is_not_looked_at_for_ever() -> None:
    log = Log("file", ["stdout"] * 20, range(20))
    seam = Seam()
    seam.read(log.history(0, 10))
    seam.shown(log.history(0, 10))
    seam.new(log.batch(5, 20, read_at=2))
    assert seam.read_to()
    many = log.batch(10, 20, read_at=2)
    many = many.with_records(many.records * (REMEMBERED // 10))
    assert seam.new(many) is many
    assert not seam.read_to()
