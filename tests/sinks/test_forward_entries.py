"""Entries of the Forward protocol: the record's JSON as a map, its time to the nanosecond."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Sequence
from datetime import UTC, datetime
from struct import iter_unpack
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logroute.router.position import BEGINNING
from logroute.router.record import Batch, DetailedRecord, Image, Origin, Record
from logroute.router.times import full_time, iso_time
from logroute.sinks.encoding import encoder
from logroute.sinks.forward_entries import EntryEncoder, event_time, event_times
from tests.sinks.test_encoding import DETAILED, PLAIN

TIME = "2026-11-23T20:06:26.123456789Z"
TIME_NS = int(datetime(2026, 11, 23, 20, 6, 26, tzinfo=UTC).timestamp()) * 10**9 + 123456789
ORIGIN = Origin(
    "docker:1",
    "docker",
    id="3b74a877e0f9" + "0" * 52,
    name="api-1",
    image=Image("api", "2"),
    labels={"com.docker.compose.project": "shop", "com.docker.compose.container-number": "1"},
    runtime="docker",
    host="node-7",
)
FILE = Origin("file:/var/log/app.log", "logs", file="/var/log/app.log", host="node-7")


def batch(origin: Origin, records: Sequence[Record], *, newlines: bool = False) -> Batch:
    return Batch(
        origin, list(records), before=BEGINNING, after=BEGINNING, size_bytes=0, ready=not newlines,
        newlines=newlines,
    )  # fmt: skip


def decoded(data: memoryview) -> list[tuple[int, dict[str, Any]]]:
    """(nanoseconds since 1970, record) of each, by msgpack."""
    unpacker = msgpack.Unpacker(max_buffer_size=1 << 30)
    unpacker.feed(data)
    entries = []
    for time, record in unpacker:
        assert isinstance(time, msgpack.ExtType)
        assert (time.code, len(time.data)) == (0, 8)
        at = int.from_bytes(time.data[:4]) * 10**9 + int.from_bytes(time.data[4:])
        entries.append((at, record))
    assert unpacker.tell() == len(data)
    return entries


def entries(*records: Record, origin: Origin = ORIGIN) -> list[tuple[int, dict[str, Any]]]:
    return decoded(EntryEncoder().encode(batch(origin, records)))


def as_json(origin: Origin, records: Sequence[Record]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in encoder("json")(batch(origin, records)).splitlines()]


def test_a_record_is_the_documented_map() -> None:
    record = DetailedRecord(
        "login failed", "stderr", TIME, level="error", fields={"user": "ada", "status": 401}
    )
    ((at, got),) = entries(record)
    assert at == TIME_NS
    assert got == {
        "@timestamp": TIME,
        "message": "login failed",
        "stream": "stderr",
        "log": {"level": "error"},
        "fields": {"user": "ada", "status": 401},
        "container": {
            "id": ORIGIN.id,
            "name": "api-1",
            "image": {"name": "api", "tag": "2"},
            "runtime": "docker",
            "labels": {"com_docker_compose_project": "shop", "com_docker_compose_container-number": "1"},
        },
        "host": {"name": "node-7"},
        "compose": {"project": "shop", "number": 1},
        "event": {"id": f"3b74a877e0f9-e{TIME}"},
    }
    assert list(got) == [
        "@timestamp", "stream", "log", "fields", "container", "host", "compose", "message", "event",
    ]  # fmt: skip


@given(
    st.lists(PLAIN | DETAILED, max_size=20) | st.lists(PLAIN, max_size=20), st.sampled_from([ORIGIN, FILE])
)
def test_every_record_is_that_of_its_json(records: list[Record], origin: Origin) -> None:
    assert [record for _, record in entries(*records, origin=origin)] == as_json(origin, records)


@pytest.mark.parametrize("count", [1, 2, 3, 2_600, 12_000])
def test_however_many_there_are(count: int) -> None:
    """The head of an array, which is taken off, has three sizes."""
    records = [Record(str(n), "stdout", TIME) for n in range(count)]
    assert [record["message"] for _, record in entries(*records)] == [str(n) for n in range(count)]


@pytest.mark.parametrize("origin", [ORIGIN, FILE, Origin("k", "s")])
def test_lines_as_a_source_gives_them_are_the_same_as_ready_ones(origin: Origin) -> None:
    times = ["26.1234567Z", "26.12345678Z", "26.123456789Z", "27.5000001Z", "28.000001001Z"]
    lines = [
        Record(f"{n} é\n", ("stdout", "stderr")[n % 2], f"2026-11-23T20:06:{time}")  # type: ignore[arg-type]
        for n, time in enumerate(times)
    ]
    given_, ready = batch(origin, lines, newlines=True), batch(origin, [])
    ready.lines[:] = [Record(line.message[:-1], line.stream, full_time(line.time)) for line in lines]
    encode = EntryEncoder().encode
    assert given_.plain_times() is not None
    assert decoded(encode(given_)) == decoded(encode(ready))
    assert given_.newlines, "its lines are the other routes' too"
    assert decoded(encode(batch(origin, lines, newlines=True)))[-1][0] % 10**9 == 1001


def test_what_utf8_or_64_bits_cannot_express_becomes_something_else() -> None:
    fields = {
        "half": "a\ud800b", "\udfff": 1, "huge": 1 << 80, "small": -(1 << 64), "most": (1 << 64) - 1,
        "list": [1 << 64, {"k": "\udc00"}], "nan": float("nan"), "number": {1: 2},
    }  # fmt: skip
    plain, told = Record("x\ud800", "stdout", TIME), DetailedRecord("y", "stdout", TIME, level="\ud800")
    odd = DetailedRecord("\udc00", "stderr", TIME, fields=fields, place="p\ud800")
    origin = Origin("k", "s", id="c" * 64, name="n\ud800", labels={"l\udc00": "\ud800"})
    (_, first), (_, second), (_, third) = entries(plain, told, odd, origin=origin)
    assert first["message"] == "x?"
    assert first["container"] == {"id": "c" * 64, "name": "n?", "labels": {"l?": "?"}}
    assert second["log"] == {"level": "?"}
    assert third["message"] == "?"
    assert third["event"] == {"id": "p?"}
    assert third["fields"] == {
        "half": "a?b", "?": 1, "huge": str(1 << 80), "small": str(-(1 << 64)), "most": (1 << 64) - 1,
        "list": [str(1 << 64), {"k": "?"}], "nan": None, "number": {"1": 2},
    }  # fmt: skip


def test_the_log_of_a_file_and_of_a_record_are_one_map() -> None:
    record = DetailedRecord("m", "stdout", TIME, level="warn", truncated=True)
    ((_, first), (_, second)) = entries(Record("m", "stdout", TIME), record, origin=FILE)
    assert first["log"] == {"file": {"path": "/var/log/app.log"}}
    assert second["log"] == {"level": "warn", "truncated": True, "file": {"path": "/var/log/app.log"}}


def test_no_origin_is_kept_for_its_constants() -> None:
    encode = EntryEncoder().encode
    origin = Origin("docker:x", "docker", id="x" * 64)
    gone = weakref.ref(origin)
    encode(batch(origin, [Record("m", "stdout", TIME)]))
    del origin
    gc.collect()
    assert gone() is None


# --- times --------------------------------------------------------------------------------------------

NANOSECONDS = st.integers(0, (1 << 32) * 10**9 - 1)


def as_event_time(time_ns: int) -> int:
    seconds, nanoseconds = divmod(time_ns, 10**9)
    return seconds << 32 | nanoseconds


def numbers(times: list[str]) -> list[int]:
    """EventTimes as numbers."""
    return [number for (number,) in iter_unpack(">Q", event_times(times))]


@given(st.lists(NANOSECONDS, min_size=1, max_size=50) | st.lists(st.integers(0, 10**9 - 1), min_size=1))
def test_times_are_exact_to_the_nanosecond(times_ns: list[int]) -> None:
    """Of many seconds, or all of one."""
    assert numbers([iso_time(each) for each in times_ns]) == [as_event_time(each) for each in times_ns]


ODD_TIMES = st.sampled_from(
    [
        "",
        "not a time",
        "2026-11-23",
        "2026-11-23T20:06:26Z",
        "2026-11-23T20:06:26.5Z",
        "2026-11-23T20:06:99.1Z",
    ]
) | st.text(max_size=31)


@given(st.lists(ODD_TIMES | NANOSECONDS.map(iso_time), max_size=20))
@example(["2026-11-23T20:06:26.0000e+99Z", "2026-11-23T20:06:26.123456789Z"])
@example(["2026-11-23T20:06:26.0000000e9Z"])
@example(["2026-11-23T20:06:26.000000e18Z"])
@example(["2026-11-23T20:06:26.1,2345678Z"])
def test_a_time_that_is_none_harms_no_other(times: list[str]) -> None:
    got = numbers(times)
    assert len(got) == len(times)
    assert all(0 <= each < 1 << 64 for each in got)
    for time, each in zip(times, got, strict=True):
        if len(time) == len(TIME) and time.isascii() and time[20:29].isdecimal() and "T" in time:
            assert each == event_time(time)


def test_times_that_cannot_be_expressed() -> None:
    assert numbers([]) == []
    assert [event_time(time) for time in ("", "not a time", "2026-13-01T00:00:00Z")] == [0, 0, 0]
    assert numbers(["1969-12-31T23:59:59.000000000Z"]) == [0]
    assert numbers(["2200-01-01T00:00:00.000000007Z"]) == [(((1 << 32) - 1) << 32) + 7]
    assert event_time("2026-11-23T20:06:26.5Z") == as_event_time(TIME_NS - 123456789 + 500_000_000)
