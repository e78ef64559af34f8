"""A batch in columns is what the same records in a batch are, before somebody asks for them and after."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logroute.router import spool
from logroute.router.column_batch import ColumnBatch
from logroute.router.position import Reached
from logroute.router.record import Batch, Origin, Record, Stream
from logroute.router.stored_origins import StoredOrigins

ORIGIN = Origin("docker:1", "docker", id="3b74a877e0f9")
STREAMS: st.SearchStrategy[Stream] = st.sampled_from(["stdout", "stderr"])
TIMES = st.integers(1, 20).map(lambda n: f"2026-11-23T20:06:26.{n}Z")
LINES = st.lists(st.tuples(st.text(max_size=3), STREAMS, TIMES), max_size=6)


def both(lines: list[tuple[str, Stream, str]], *, newlines: bool) -> tuple[Batch, ColumnBatch]:
    ended = [(message + "\n" * newlines, stream, time) for message, stream, time in lines]
    records = [Record(*line) for line in ended]
    columns = [m for m, _, _ in ended], [s for _, s, _ in ended], [t for _, _, t in ended]
    before, after = Reached(), Reached()
    return (
        Batch(ORIGIN, records, before=before, after=after, size_bytes=9, newlines=newlines),
        ColumnBatch(
            ORIGIN, columns, before=before, after=after, size_bytes=9, newlines=newlines, ready=False
        ),
    )


def said(batch: Batch) -> tuple[object, ...]:
    last = batch.last_time if len(batch) else ""
    return len(batch), batch.plain, batch.messages, batch.streams, batch.times, last, batch.plain_times()


@given(LINES, st.booleans())
def test_it_says_the_same_whether_records_were_made_or_not(
    lines: list[tuple[str, Stream, str]], newlines: bool
) -> None:
    batch, columns = both(lines, newlines=newlines)
    assert said(columns) == said(batch)
    assert columns.lines == batch.lines
    assert said(columns) == said(batch)
    assert columns.records == batch.records  # made ready: messages, times and sequences are others now
    assert said(columns) == said(batch)
    assert columns.ready
    assert not columns.newlines


def test_records_are_made_once() -> None:
    _, columns = both([("a", "stdout", "2026-11-23T20:06:26.1Z")], newlines=True)
    assert columns.records is columns.records
    assert columns.records[0] is columns.lines[0]


def test_columns_that_are_not_equally_long_are_damage() -> None:
    origins = StoredOrigins()
    batch, _ = both([("a", "stdout", "2026-11-23T20:06:26.1Z")], newlines=True)
    body = spool.pack(1, [batch], origins).body
    assert spool.unpack(body, origins)[0].records == batch.records
    (part,) = msgspec.msgpack.decode(body)
    part[6].append("b")
    with pytest.raises(spool.Damaged):
        spool.unpack(msgspec.msgpack.encode([part]), origins)
