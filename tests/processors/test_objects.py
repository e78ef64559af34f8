"""Many objects at once become what they become one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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

LEVELS = st.sampled_from(["info", "WARN", "loud", "", 30, 0, True, None, {"level": "error"}, 1.0, 1])
TIMES = st.sampled_from(
    [
        *("2026-11-23T20:06:25.5Z", "2026-11-23T20:06:25.123Z", "2026-11-23T23:59:59.999Z"),
        *("2026-11-23T20:06:25.123456789Z", "2026-11-23T20:06:25+01:00", "2026-11-24T00:00:00.000Z"),
        *("2026-11-23T20:06:25.123X", "2026-11-23T29:06:25.123Z", "2026-11-23t20:06:25.123Z", "soon", ""),
        *("2026-11-30T20:06:26.123Z", "2026-12-01T20:06:26.123Z", "2019-01-01T00:00:00.000Z", "1e9"),
        *(1795464385, 1795464385.25, 1795464385123, True, None, [1]),
    ]
)
TEXTS = st.one_of(st.text(max_size=5), st.sampled_from([7, None]))
VALUES = {
    **dict.fromkeys(LEVEL_KEYS, LEVELS),
    "log": LEVELS,
    **dict.fromkeys(TIME_KEYS, TIMES),
    **dict.fromkeys(MESSAGE_KEYS, TEXTS),
    "user": TEXTS,
}
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
@example(objects=[PLAIN, PLAIN | {"time": "2026-11-24T00:00:00.000Z"}])
@example(objects=[PLAIN, PLAIN | {"time": "2026-11-23T29:06:25.123Z"}])
def test_many_become_what_each_becomes(keep: bool, objects: list[dict[str, Any]]) -> None:
    one_by_one, together = records(len(objects)), records(len(objects))
    for record, found in zip(one_by_one, objects, strict=True):
        take(record, dict(found), keep=keep)
    take_all(together, [dict(found) for found in objects], keep=keep)
    assert together == one_by_one


def test_fields_that_are_there_stay() -> None:
    [empty] = records(1, {})
    take_all([empty], [{"level": "info"}])
    assert (empty.level, empty.fields) == ("info", {})
    together = records(2, {"region": "eu"})
    take_all(together, [dict(PLAIN), dict(PLAIN)])
    assert [record.fields for record in together] == [{"region": "eu", "user": "ada"}] * 2


@given(st.lists(TIMES, max_size=4))
@example(["2026-11-23T20:06:25.123456789Z"] * 2)
@example(["2026-11-23T20:06:25.1Z", "2026-11-23T20:06:27.2Z", "2026-11-23T29:06:26.3Z"])
@example(["2026-11-23T20:06:25.123Z", "2026-11-23T20:06:25.12Z3"])
@example(["9999-11-23T20:06:25.123Z"])
@example(["2026-11-23T20:06:25.Z"])
def test_many_times_are_what_each_is(values: list[Any]) -> None:
    each = [parse_time(value) for value in values]
    assert parse_times(values) == (None if None in each else each)
