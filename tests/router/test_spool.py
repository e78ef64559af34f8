"""Batches as rows of the spool, and back."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logroute.router import spool, stored_origins
from logroute.router.dead_letters import Letter
from logroute.router.position import Anchor, Reached
from logroute.router.queue import Queue
from logroute.router.record import Batch, DetailedRecord, Image, Origin, Record
from logroute.router.state import RouteState
from logroute.router.stored_origins import StoredOrigins
from logroute.router.times import iso_time
from tests.router.stand_ins import batch, origin

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
streams = st.sampled_from(["stdout", "stderr"])
seconds = st.integers(1_700_000_000 * 10**9, 1_700_000_003 * 10**9)


def trimmed(time_ns: int) -> str:
    """As json-file writes times."""
    return iso_time(time_ns)[:-1].rstrip("0").rstrip(".") + "Z"


plain = st.builds(Record, texts.map(lambda text: text + "\n"), streams, seconds.map(trimmed))
details = st.builds(
    DetailedRecord,
    texts,
    streams,
    seconds.map(iso_time),
    sequence=st.integers(0, 3),
    level=st.none() | texts,
    fields=st.none() | st.dictionaries(texts, st.none() | st.booleans() | st.integers() | texts, max_size=3),
    truncated=st.booleans(),
    place=st.none() | texts,
    part=texts,
    logged=texts,
    error=texts,
    at_root=st.booleans(),
)
anchors = st.none() | st.builds(Anchor, seconds.map(iso_time), st.integers(0, 3), texts, st.booleans())


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    of = Origin(
        f"docker:{draw(st.integers(1, 3))}",
        draw(texts),
        id=draw(texts),
        name=draw(texts),
        image=draw(st.none() | st.builds(Image, texts, st.none() | texts)),
        labels=draw(st.dictionaries(texts, texts, max_size=3)),
        host=draw(texts),
        file=draw(st.just("/logs/\udcff.log") | texts),
    )
    newlines = draw(st.booleans())
    lines: list[Record] = draw(
        st.lists(plain, min_size=1, max_size=5) if newlines else st.lists(details, min_size=1, max_size=5)
    )
    before = Reached(stdout=draw(anchors), stderr=draw(anchors))
    return Batch(
        of, lines, before=before, after=Reached(), size_bytes=draw(st.integers(0, 9999)), newlines=newlines
    )


def as_values(batch: Batch) -> tuple[object, ...]:
    """What a sink would see."""
    of = batch.origin
    ids = [of.record_id(record) for record in batch.records]
    return (of.constants(), of.key, of.source, batch.size_bytes, ids, [detail(r) for r in batch.records])


def detail(record: Record) -> tuple[object, ...]:
    return (
        record.message,
        record.stream,
        record.time,
        record.sequence,
        record.level,
        record.fields,
        record.truncated,
        record.place,
        record.part,
    )


@given(st.lists(batches(), min_size=1, max_size=4))
def test_a_row_gives_back_what_was_put_into_it(before: list[Batch]) -> None:
    """After a restart: the origins come from the database as well."""
    origins = StoredOrigins()
    packed = spool.pack(1, before, origins)
    row, body = packed.compressed()
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(stored_origins.SCHEMA)
        stored_origins.insert(database, origins.new_rows())
        restarted = StoredOrigins()
        restarted.load(database, in_use=True)
    after = spool.unpack(spool.decompress(body), restarted)
    assert (row.records, row.stored_bytes) == (sum(map(len, before)), len(body))
    assert [as_values(each) for each in after] == [as_values(each) for each in before]


def test_one_origin_is_one_object_and_one_row() -> None:
    origins = StoredOrigins()
    web, again, db = origin("web"), origin("web"), origin("db")
    _, body = spool.pack(1, [batch(web, [1]), batch(db, [2]), batch(again, [3])], origins).compressed()
    assert len(origins.new_rows()) == 2
    first, _, third = spool.unpack(spool.decompress(body), origins)
    assert first.origin is third.origin


def test_a_record_that_is_no_text_is_stored_as_near_as_can_be() -> None:
    """A processor may make half of a surrogate pair; it must not stop the route for ever."""
    origins = StoredOrigins()
    bad = batch(origin(), [1, 2])
    bad.lines[0].message = "half \ud800 a pair"
    _, body = spool.pack(1, [bad], origins).compressed()
    (after,) = spool.unpack(spool.decompress(body), origins)
    assert [record.message for record in after.records] == ["half ? a pair", "2"]


def nested(depth: int) -> dict[str, object]:
    fields: dict[str, object] = {}
    for _ in range(depth):
        fields = {"in": fields}
    return fields


@pytest.mark.parametrize(
    ("fields", "stored"),
    [
        ({"n": 10**30, "half": "\ud800"}, {"n": 10**30, "half": "?"}),
        (
            {"when": datetime(2026, 1, 2, tzinfo=UTC), "n": 2},
            {"when": datetime(2026, 1, 2, tzinfo=UTC), "n": 2},
        ),
        ({"path": Path("/x"), 5: (1, 2)}, {"path": "/x", "5": [1, 2]}),
        ({5: 6}, {5: 6}),
        (nested(5000), {"not_stored": "nested too deeply"}),
    ],
    ids=["numbers", "time", "types", "keys", "depth"],
)
async def test_fields_that_msgpack_has_no_form_for_stop_nothing(
    fields: dict[object, object], stored: dict[object, object], tmp_path: Path
) -> None:
    """Through the spool, a restart, the dead letters and back: with the records beside them."""
    bad = batch(origin(), [1, 2, 3])
    bad.lines[1] = DetailedRecord("the message", "stdout", bad.lines[1].time, fields=fields)  # type: ignore[arg-type]
    state = RouteState("all", tmp_path)
    await state.open()
    queue = Queue(state, 1 << 20, lambda: None)
    queue.put([bad])
    await queue.spool(1 << 20, 1000)
    await state.close()

    state = RouteState("all", tmp_path)
    await state.open()
    queue = Queue(state, 1 << 20, lambda: None)
    queue.load()
    group = await queue.take(1 << 20, 1000, 0)
    assert group is not None
    (after,) = group.batches
    assert [record.message for record in after.records] == ["1", "the message", "3"]
    assert [record.fields for record in after.records] == [None, stored, None]

    queue.finish(group)
    state.bury([Letter(after.origin, bad.lines[1], "why not")])
    assert await queue.replay(None, 1 << 20, 1000) == 1
    group = await queue.take(1 << 20, 1000, 0)
    assert group is not None
    assert [record.message for record in group.batches[0].records] == ["the message"]
    await state.close()


@pytest.mark.parametrize("damage", [b"", b"nonsense", None, "cut", "flipped", "origin"])
async def test_a_damaged_row_is_put_aside_and_the_next_one_read(
    damage: bytes | str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = RouteState("all", tmp_path)
    await state.open()
    queue = Queue(state, 1 << 20, lambda: None)
    queue.put([batch(origin(), [1, 2]), batch(origin("db"), [3])])
    await queue.spool(1 << 20, 1)
    database = state._database
    assert database is not None
    (body,) = database.execute("select body from spool where id = 1").fetchone()
    if damage == "origin":
        state._origins = StoredOrigins()
    else:
        flipped = body[:30] + bytes([body[30] ^ 0xFF]) + body[31:]
        bad = {"cut": body[:-3], "flipped": flipped, None: b"\x00"}.get(damage, damage)
        database.execute("update spool set body = ? where id = 1", (bad,))
    first = await queue.take(1 << 20, 1 << 20, 0)
    assert first is not None
    assert (first.damaged, first.records) == (True, 2)
    assert database.execute("select id, records from damaged").fetchall()[0] == (1, 2)
    assert "put aside" in capsys.readouterr().out
    if damage != "origin":
        second = await queue.take(1 << 20, 1 << 20, 0)
        assert second is not None
        assert [record.message for record in second.batches[0].records] == ["3"]
    await state.close()


async def test_the_sums_are_known_without_looking_at_the_bodies(tmp_path: Path) -> None:
    """Of gigabytes the daemon must not read more than an index at its start."""
    state = RouteState("all", tmp_path)
    await state.open()
    assert state._database is not None
    plan = state._database.execute(
        "explain query plan select sum(records), sum(size_bytes), sum(stored_bytes) from spool"
    ).fetchall()
    assert "COVERING INDEX" in plan[0][-1]
    await state.close()


async def test_what_is_taken_out_is_not_written_once_more(tmp_path: Path) -> None:
    """Debian's SQLite would overwrite it with zeros: the log would grow by all that is removed."""
    state = RouteState("all", tmp_path)
    await state.open()
    queue = Queue(state, 1 << 30, lambda: None)
    chance = random.Random(1)
    for number in range(1, 4):
        big = batch(origin(), [number])
        big.lines[0].message = chance.randbytes(500_000).hex()
        queue.put([big])
        await queue.spool(1 << 30, 1)
    database = state._database
    assert database is not None
    database.execute("pragma wal_checkpoint(truncate)")
    for row in (1, 2):
        state.remove_row(row)
        await state.commit()
    assert state.path is not None
    assert state.path.with_name(state.path.name + "-wal").stat().st_size < 200_000
    await state.close()


async def test_what_was_taken_out_is_given_back_to_the_disk(tmp_path: Path) -> None:
    state = RouteState("all", tmp_path)
    await state.open()
    queue = Queue(state, 1 << 20, lambda: None)
    chance = random.Random(1)
    for number in range(1, 40):
        big = batch(origin(), [number])
        big.lines[0].message = chance.randbytes(500_000).hex()
        queue.put([big])
        await queue.spool(1 << 30, 1)
    assert state.path is not None
    await state.close()
    full = state.path.stat().st_size
    await state.open()
    queue = Queue(state, 1 << 20, lambda: None)
    queue.load()
    while not queue.empty:
        group = await queue.take(1 << 30, 1 << 30, 0)
        assert group is not None
        queue.finish(group)
    for _ in range(10):
        await state.commit()
    await state.close()
    assert full > 15 << 20
    assert state.path.stat().st_size < 6 << 20


def test_rows_that_were_written_before_records_had_more_details_are_read() -> None:
    details = spool._Details.of([DetailedRecord("m", "stdout", iso_time(1), level="warn")])
    packed = msgspec.msgpack.encode(details)
    values = msgspec.msgpack.decode(packed)
    assert len(values) == 9
    old = msgspec.msgpack.decode(msgspec.msgpack.encode(values[:6]), type=spool._Details)
    assert old == details
