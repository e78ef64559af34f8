"""Many objects at once become what they become one by one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logroute.processors import ProcessorBooks
from logroute.processors._objects import (
    LEVEL_KEYS,
    MESSAGE_KEYS,
    TIME_KEYS,
    take,
    take_all,
)
from logroute.processors._times import parse_time, parse_times
from logroute.router.record import DetailedRecord

ENGINES = "2026-11-23T20:06:26.123456789Z"

LEVELS = st.sampled_from(
    ["info", "WARN", "loud", "", 30, 0, True, None, {"level": "error"}, 1.0, 1, 400, "INFO+2", "W"]
)
TIMES = st.sampled_from(
    [
        *("2026-11-23T20:06:25.5Z", "2026-11-23T20:06:25.123Z", "2026-11-23T23:59:59.999Z"),
        *("2026-11-23T20:06:25.123456789Z", "2026-11-23T20:06:25+01:00", "2026-11-24T00:00:00.000Z"),
        *("2026-11-23T20:06:25.123X", "2026-11-23T29:06:25.123Z", "2026-11-23t20:06:25.123Z", "soon", ""),
        *("2026-11-30T20:06:26.123Z", "2026-12-01T20:06:26.123Z", "2019-01-01T00:00:00.000Z", "1e9"),
        *(1795464385, 1795464385.25, 1795464385123, True, None, [1], 0.123),
        *({"$date": "2026-11-23T20:06:25.123+00:00"}, {"$date": "2019-01-01T00:00:00Z"}, {"$date": None}),
    ]
)
TEXTS = st.one_of(st.text(max_size=5), st.sampled_from([7, None]))
VALUES = {
    **dict.fromkeys(LEVEL_KEYS, LEVELS),
    "log": LEVELS,
    **dict.fromkeys(TIME_KEYS, TIMES),
    **dict.fromkeys(MESSAGE_KEYS, TEXTS),
    "user": TEXTS,
    "t": TIMES,
    "s": LEVELS,
}
MONGODB = {"t": {"$date": "2026-11-23T20:06:25.123+00:00"}, "s": "W", "msg": "m", "c": "NETWORK"}
ANY = st.lists(st.fixed_dictionaries({}, optional=VALUES), max_size=4)
ALIKE = st.sets(st.sampled_from(sorted(VALUES))).flatmap(
    lambda keys: st.lists(st.fixed_dictionaries({key: VALUES[key] for key in sorted(keys)}), max_size=4)
)
PLAIN = {"time": "2026-11-23T20:06:25.123Z", "level": "info", "msg": "m", "user": "ada"}


def records(count: int, fields: dict[str, Any] | None = None) -> list[DetailedRecord]:
    return [
        DetailedRecord(f"raw {n}", "stdout", ENGINES, fields=dict(fields) if fields is not None else None)
        for n in range(count)
    ]


@pytest.mark.parametrize("keep", [False, True])
@given(objects=st.one_of(ANY, ALIKE))
@example(objects=[PLAIN, PLAIN | {"level": "loud"}])
@example(objects=[PLAIN, PLAIN | {"@timestamp": "2026-11-23T20:06:25.999Z"}])
@example(objects=[PLAIN, PLAIN | {"message": "other"}])
@example(objects=[PLAIN, {"user": "ada"}])
@example(objects=[PLAIN | {"level": 30}, PLAIN | {"level": 60}])
@example(objects=[PLAIN | {"level": 1}, PLAIN | {"level": True}, PLAIN | {"level": 1.0}])
@example(objects=[{"time": ENGINES}, {"time": ENGINES, "log": {"level": "warn"}}])
@example(objects=[MONGODB, MONGODB])
@example(objects=[MONGODB, MONGODB | {"level": "info"}])
@example(objects=[MONGODB, MONGODB | {"s": "x"}])
@example(objects=[{"msg": "m"}, MONGODB])
@example(objects=[MONGODB, MONGODB | {"t": {"$date": "2019-01-01T00:00:00.000+00:00"}}])
@example(objects=[PLAIN | {"level": 400}, PLAIN | {"level": 250}])
@example(objects=[PLAIN, PLAIN | {"time": "2026-11-24T00:00:00.000Z"}])
@example(objects=[PLAIN, PLAIN | {"time": "2026-11-23T29:06:25.123Z"}])
def test_many_become_what_each_becomes(keep: bool, objects: list[dict[str, Any]]) -> None:
    one_by_one, together = records(len(objects)), records(len(objects))
    for record, found in zip(one_by_one, objects, strict=True):
        take(record, dict(found), ProcessorBooks(), keep=keep)
    take_all(together, [dict(found) for found in objects], ProcessorBooks(), keep=keep)
    assert together == one_by_one


AT = "2026-11-23T20:06:25.123Z"


@pytest.mark.parametrize(
    ("said", "level", "message", "fields"),
    [
        ({"levelname": "WARNING", "message": "m"}, "warn", "m", None),  # python-json-logger
        (
            {"@t": AT, "@mt": "Hi {User}", "@l": "Warning", "User": "ada"},
            "warn",
            "Hi {User}",
            {"User": "ada"},
        ),
        ({"@t": AT, "@mt": "Hi {User}", "@m": "Hi ada"}, None, "Hi ada", {"@mt": "Hi {User}"}),
        ({"level": 400, "level_name": "ERROR", "message": "m"}, "error", "m", {"level_name": "ERROR"}),
        ({"level": 250}, "notice", "raw 0", None),
        ({"level": 550}, "fatal", "raw 0", None),
        ({"level": 300}, "warn", "raw 0", None),
        ({"level_name": "CRITICAL"}, "fatal", "raw 0", None),
        ({"level": "DEBUG-4"}, "trace", "raw 0", None),  # slog
        ({"level": "DEBUG+2"}, "debug", "raw 0", None),
        ({"level": "INFO-2"}, "debug", "raw 0", None),
        ({"level": "INFO+1"}, "info", "raw 0", None),
        ({"level": "INFO+2"}, "notice", "raw 0", None),
        ({"level": "WARN+1"}, "warn", "raw 0", None),
        ({"level": "ERROR+3"}, "error", "raw 0", None),
        ({"level": "ERROR+4"}, "fatal", "raw 0", None),
        ({"level": "NOTICE+4"}, None, "raw 0", {"level": "NOTICE+4"}),
        (MONGODB, "warn", "m", {"c": "NETWORK"}),
        (MONGODB | {"s": "D2"}, "debug", "m", {"c": "NETWORK"}),
        ({"t": AT, "s": "E", "msg": "m"}, None, "m", {"t": AT, "s": "E"}),
        ({"t": {"$date": AT}, "s": "E"}, None, "raw 0", {"t": {"$date": AT}, "s": "E"}),
        ({"s": "E", "msg": "m"}, None, "m", {"s": "E"}),
        ({"level": "trace3"}, "trace", "raw 0", None),
        # What says nothing is passed over.
        ({"level": None, "severity": "ERROR"}, "error", "raw 0", {"level": None}),
        (
            {"level": "loud", "log": {"level": "warn"}},
            "warn",
            "raw 0",
            {"level": "loud", "log": {"level": "warn"}},
        ),
        ({"time": 0.123, "timestamp": AT}, None, "raw 0", {"time": 0.123}),
        ({"time": None, "ts": AT}, None, "raw 0", {"time": None}),
    ],
)
def test_what_loggers_write(
    said: dict[str, Any], level: str | None, message: str, fields: dict[str, Any] | None
) -> None:
    for count in (1, 3):
        taken = records(count)
        take_all(taken, [json.loads(json.dumps(said)) for _ in taken], ProcessorBooks())
        for n, record in enumerate(taken):
            assert (record.level, record.fields, record.error) == (level, fields, "")
            assert record.message == message.replace("0", str(n))
            times = [said.get(key) for key in ("@t", "timestamp", "ts")]
            is_mongodb = said.get("c") == "NETWORK"
            assert record.time == ("2026-11-23T20:06:25.123000000Z" if AT in times or is_mongodb else ENGINES)


def test_a_time_that_is_far_is_marked_where_no_other_is_near() -> None:
    [far] = records(1)
    take_all([far], [{"time": 0.123, "timestamp": "2019-01-01T00:00:00.000Z"}], ProcessorBooks())
    assert far.time == ENGINES
    assert far.error == "time: more than 7 days from the engine's time, so it stays a field"


def test_fields_that_are_there_stay() -> None:
    [empty] = records(1, {})
    take_all([empty], [{"level": "info"}], ProcessorBooks())
    assert (empty.level, empty.fields) == ("info", {})
    together = records(2, {"region": "eu"})
    take_all(together, [dict(PLAIN), dict(PLAIN)], ProcessorBooks())
    assert [record.fields for record in together] == [{"region": "eu", "user": "ada"}] * 2


@given(st.lists(TIMES, max_size=4))
@example(["2026-11-23T20:06:25.123456789Z"] * 2)
@example(["2026-11-23T20:06:25.1Z", "2026-11-23T20:06:27.2Z", "2026-11-23T29:06:26.3Z"])
@example(["2026-11-23T20:06:25.123Z", "2026-11-23T20:06:25.12Z3"])
@example(["9999-11-23T20:06:25.123Z"])
@example(["2026-11-23T20:06:25.Z"])
@example(["2026-11-23T20:06:25.123+00:00", "2026-11-23T20:06:25.124+00:00"])
@example(["2026-11-23T20:06:25.123456789+00:00", "2026-11-23T20:06:25.123456780+00:00"])
@example(["2026-11-23T29:06:25.123+00:00", "2026-11-23T20:06:25.124+00:00"])
@example(["2026-11-23T20:06:25.123Z+00:00"])
def test_many_times_are_what_each_is(values: list[Any]) -> None:
    each = [parse_time(value) for value in values]
    assert parse_times(values) == (None if None in each else each)
