"""Objects that programs have written, a line each: what of them is the record's time, level and message.

The keys in which loggers write these are taken for them. A number is a level where pino or zap has such a
one. Lines of one program are alike, so that they are looked at in columns, many at once; what a record
becomes depends on its own line alone all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from logroute.processors._times import adopt, near, parse_time, parse_times
from logroute.router.json_text import depth
from logroute.router.levels import NAMES
from logroute.router.record import DetailedRecord

TIME_KEYS = ("@timestamp", "time", "ts", "timestamp")
LEVEL_KEYS = ("level", "severity", "log.level", "lvl")
MESSAGE_KEYS = ("message", "msg")

DEEPEST = 400
"""What is nested deeper is no object that anybody logs. So whether a line is one does not depend on how deep
calls are just then, and whoever treats its fields later can call itself for each level, even twice."""
SHALLOW = 2 * DEEPEST
"""A line of so many characters cannot be deeper."""

_PINO = {10: "trace", 20: "debug", 30: "info", 40: "warn", 50: "error", 60: "fatal"}
"""https://getpino.io/#/docs/api?id=loggerlevels-object"""
_ZAP = {-1: "debug", 0: "info", 1: "warn", 2: "error", 3: "fatal", 4: "fatal", 5: "fatal"}
"""https://pkg.go.dev/go.uber.org/zap/zapcore#Level"""


def level_of(value: Any) -> str | None:
    """What a level means: a name that programs use, or pino's or zap's number. None if nobody knows."""
    if isinstance(value, str):
        return NAMES.get(value.lower())
    if isinstance(value, int) and not isinstance(value, bool):
        return _PINO.get(value) or _ZAP.get(value)
    return None


def check_depth(text: str, found: Any) -> None:
    """Raises RecursionError, as decoding does by itself, only later, where a line is deeper than DEEPEST."""
    # Brackets in texts count as well: then it is looked at what was found.
    if text.count("{") + text.count("[") > DEEPEST and depth(found, DEEPEST) > DEEPEST:
        raise RecursionError


def reason(error: Exception) -> str:
    """Why a line is no object, in the same words however deep calls are just then."""
    return f"nested deeper than {DEEPEST}" if isinstance(error, RecursionError) else str(error)


def take(record: DetailedRecord, found: dict[str, Any], *, keep: bool = False) -> None:
    """Give a record what an object says: its time, its level, its message, and the rest as fields.

    With `keep` the message stays as it was.
    """
    for key in LEVEL_KEYS:
        if key in found:
            level = level_of(found[key])
            if level is not None:
                record.level = level
                del found[key]
            break
    else:
        log = found.get("log")
        if isinstance(log, dict) and (level := level_of(log.get("level"))) is not None:
            record.level = level
    for key in TIME_KEYS:
        if key in found:
            time = parse_time(found[key])
            if time is not None and adopt(record, time):
                del found[key]
            elif time is not None:
                record.error = f"{key}: more than 7 days from the engine's time, so it stays a field"
            break
    if not keep:
        for key in MESSAGE_KEYS:
            if isinstance(text := found.get(key), str):
                record.message = text
                del found[key]
                break
    if record.fields:
        record.fields |= found
    elif found:
        record.fields = found


def take_all(
    records: Sequence[DetailedRecord], objects: Sequence[dict[str, Any]], *, keep: bool = False
) -> None:
    """`take` for each record and its object."""
    try:
        _take_columns(records, objects, keep=keep)
    except _NotAlikeError:
        for record, found in zip(records, objects, strict=True):
            take(record, found, keep=keep)


class _NotAlikeError(Exception):
    """Not all of the objects say it in the same way. Nothing has been changed yet."""


def _take_columns(
    records: Sequence[DetailedRecord], objects: Sequence[dict[str, Any]], *, keep: bool
) -> None:
    """For objects that have their level, time and message under the same keys, in one form, or have none.

    Raises _NotAlikeError.
    """
    if not records or any(record.fields for record in records):
        raise _NotAlikeError
    level_key, time_key, message_key = (
        _key(LEVEL_KEYS, objects), _key(TIME_KEYS, objects), None if keep else _key(MESSAGE_KEYS, objects)
    )  # fmt: skip
    if level_key is None:
        _none_has("log", objects)
    engines = [record.logged or record.time for record in records]
    nothing = [""] * len(records)
    levels = nothing if level_key is None else _levels([found[level_key] for found in objects])
    times = nothing if time_key is None else _times([found[time_key] for found in objects], engines)
    messages = nothing if message_key is None else _texts(message_key, objects)
    # From here on nothing fails.
    for record, found, engine, level, time, message in zip(
        records, objects, engines, levels, times, messages, strict=True
    ):
        if level_key is not None:
            record.level = level
            del found[level_key]
        if time_key is not None:
            record.logged, record.time = engine, time
            del found[time_key]
        if message_key is not None:
            record.message = message
            del found[message_key]
        if found:
            record.fields = found


def _key(keys: Sequence[str], objects: Sequence[dict[str, Any]]) -> str | None:
    """The first of the keys that the first object has; all others have it, and none that comes before it."""
    for key in keys:
        if key in objects[0]:
            if all([key in found for found in objects]):  # noqa: C419  # a generator takes twice as long
                return key
            raise _NotAlikeError
        _none_has(key, objects)
    return None


def _none_has(key: str, objects: Sequence[dict[str, Any]]) -> None:
    if any([key in found for found in objects]):  # noqa: C419
        raise _NotAlikeError


def _texts(key: str, objects: Sequence[dict[str, Any]]) -> list[str]:
    """What all of them say there, which has to be text."""
    values = [found[key] for found in objects]
    if [*map(type, values)].count(str) != len(values):
        raise _NotAlikeError
    return values


def _levels(values: Sequence[Any]) -> list[str]:
    """Of names, or of numbers; not of both, as `True` is the same key as 1."""
    if {*map(type, values)} not in ({str}, {int}):
        raise _NotAlikeError
    meant = {value: level for value in set(values) if (level := level_of(value)) is not None}
    try:
        return [meant[value] for value in values]
    except KeyError:
        raise _NotAlikeError from None


def _times(values: Sequence[Any], engines: Sequence[str]) -> list[str]:
    times = parse_times(values)
    if times is None or not near(times, engines):
        raise _NotAlikeError
    return times
