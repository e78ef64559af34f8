"""Objects that programs have written, a line each: what of them is the record's time, level and message.

The keys in which loggers write these are taken for them. A number is a level where pino, zap or Monolog has
such a one. Lines of one program are alike, so that they are looked at in columns, many at once; what a record
becomes depends on its own line alone all the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from logroute.processors._times import adopt, near, parse_time, parse_times
from logroute.router.column_batch import Details
from logroute.router.json_text import depth
from logroute.router.levels import NAMES
from logroute.router.record import DetailedRecord, Record, detailed

if TYPE_CHECKING:
    from logroute.processors import ProcessorBooks
    from logroute.processors._alike import Alike
    from logroute.router.column_batch import ColumnBatch
    from logroute.router.record import Batch

# `levelname` is Python's logging's, `level_name` Monolog's. `@t`, `@l`, `@m` and `@mt` are Serilog's compact
# form (https://clef-json.org): the text is `@m`, or `@mt` before its names are filled in.
TIME_KEYS = ("@timestamp", "time", "ts", "timestamp", "@t")
LEVEL_KEYS = ("level", "severity", "log.level", "lvl", "levelname", "level_name", "@l")
MESSAGE_KEYS = ("message", "msg", "@m", "@mt")

DEEPEST = 400
"""What is nested deeper is no object that anybody logs. So whether a line is one does not depend on how deep
calls are just then, and whoever treats its fields later can call itself for each level, even twice."""
SHALLOW = 2 * DEEPEST
"""A line of so many characters cannot be deeper."""

_PINO = {10: "trace", 20: "debug", 30: "info", 40: "warn", 50: "error", 60: "fatal"}
"""https://getpino.io/#/docs/api?id=loggerlevels-object; bunyan's are the same."""
_MONOLOG = {100: "debug", 200: "info", 250: "notice", 300: "warn", 400: "error", 500: "fatal", 550: "fatal"}
_MONOLOG[600] = "fatal"
"""https://github.com/Seldaek/monolog/blob/main/src/Monolog/Level.php"""
_ZAP = {-1: "debug", 0: "info", 1: "warn", 2: "error", 3: "fatal", 4: "fatal", 5: "fatal"}
"""https://pkg.go.dev/go.uber.org/zap/zapcore#Level"""


_NUMBERS = _ZAP | _PINO | _MONOLOG

_SLOG = {"debug": -4, "info": 0, "warn": 4, "error": 8}
"""https://pkg.go.dev/log/slog#Level: what is between two is written `INFO+2`, as an offset."""
_slog = re.compile(r"(debug|info|warn|error)([+-]\d{1,9})", re.ASCII).fullmatch

_MONGODB = {"F": "fatal", "E": "error", "W": "warn", "I": "info", "D": "debug"}
_MONGODB |= {f"D{number}": "debug" for number in range(1, 6)}
"""https://www.mongodb.com/docs/manual/reference/log-messages/#severity-levels"""


def level_of(value: Any) -> str | None:
    """What a level means: a name that programs use, or pino's, zap's or Monolog's number.

    None if nobody knows.
    """
    if isinstance(value, str):
        name = value.lower()
        return NAMES.get(name) or (_slog_level(name) if name[-1:].isdigit() else None)
    if isinstance(value, int) and not isinstance(value, bool):
        return _NUMBERS.get(value)
    return None


def _slog_level(name: str) -> str | None:
    """`info+2`: that many above. Below debug is a trace; slog's own example has `ERROR+4` be an emergency."""
    if (found := _slog(name)) is None:
        return None
    number = _SLOG[found[1]] + int(found[2])
    bounds = ((-4, "trace"), (0, "debug"), (2, "info"), (4, "notice"), (8, "warn"), (12, "error"))
    return next((level for bound, level in bounds if number < bound), "fatal")


def _is_mongodb(found: dict[str, Any]) -> bool:
    """`{"t":{"$date":…},"s":"W","c":…,"msg":…}`: single letters are other things elsewhere."""
    time, severity = found.get("t"), found.get("s")
    return (
        isinstance(time, dict)
        and "$date" in time
        and isinstance(severity, str)
        and severity in _MONGODB
        and isinstance(found.get("msg"), str)
    )


def check_depth(text: str, found: Any) -> None:
    """Raises RecursionError, as decoding does by itself, only later, where a line is deeper than DEEPEST."""
    # Brackets in texts count as well: then it is looked at what was found.
    if text.count("{") + text.count("[") > DEEPEST and depth(found, DEEPEST) > DEEPEST:
        raise RecursionError


def reason(error: Exception) -> str:
    """Why a line is no object, in the same words however deep calls are just then."""
    return f"nested deeper than {DEEPEST}" if isinstance(error, RecursionError) else str(error)


def take(record: DetailedRecord, found: dict[str, Any], books: ProcessorBooks, *, keep: bool = False) -> None:
    """Give a record what an object says: its time, its level, its message, and the rest as fields.

    Of several keys it is the first whose value says it. With `keep` the message stays as it was. A time that
    is far from the engine's is marked, and counted as failed.
    """
    has_level, has_time = _take_level(record, found), _take_time(record, found, books)
    if not has_level and not has_time and _is_mongodb(found):
        record.level = _MONGODB[found.pop("s")]
        if (time := parse_time(found["t"]["$date"])) is not None:
            if adopt(record, time):
                del found["t"]
            else:
                mark_far(record, "t", books)
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


def _take_level(record: DetailedRecord, found: dict[str, Any]) -> bool:
    for key in LEVEL_KEYS:
        if key in found and (level := level_of(found[key])) is not None:
            record.level = level
            del found[key]
            return True
    log = found.get("log")
    if isinstance(log, dict) and (level := level_of(log.get("level"))) is not None:
        record.level = level
        return True
    return False


def _take_time(record: DetailedRecord, found: dict[str, Any], books: ProcessorBooks) -> bool:
    far = ""
    for key in TIME_KEYS:
        if key in found and (time := parse_time(found[key])) is not None:
            if adopt(record, time):
                del found[key]
                return True
            far = far or key  # a duration maybe: the next one is asked before that is a mark
    if far:
        mark_far(record, far, books)
    return False


def mark_far(record: DetailedRecord, key: str, books: ProcessorBooks) -> None:
    """Say that its time is not believed, and count that, once where something else of it has failed."""
    books.failed += not record.error
    record.error = f"{key}: more than 7 days from the engine's time, so it stays a field"


def take_all(
    records: Sequence[DetailedRecord],
    objects: Sequence[dict[str, Any]],
    books: ProcessorBooks,
    *,
    keep: bool = False,
) -> None:
    """`take` for each record and its object."""
    try:
        _take_columns(records, objects, keep=keep)
    except _NotAlikeError:
        for record, found in zip(records, objects, strict=True):
            take(record, found, books, keep=keep)


class _NotAlikeError(Exception):
    """Not all of the objects say it in the same way. Nothing has been changed yet."""


def take_columns(
    batch: ColumnBatch, lines: Alike, books: ProcessorBooks, *, keep: bool = False, at_root: bool = False
) -> Batch:
    """`take` for records of which nothing is known but their lines, which are objects with the same keys."""
    engines = batch.times
    try:
        said = _said(lines, engines, keep=keep)
    except _NotAlikeError:
        return batch.with_records([*_taken(batch.records, lines, books, keep=keep, at_root=at_root)])
    messages = batch.bare if said.messages is None else said.messages
    logged = None if said.times is None else engines
    times = engines if said.times is None else said.times
    details = Details(said.levels, lines.fields(without=said.keys), logged, at_root)
    return batch.with_columns((messages, batch.streams, times), details)


def take_alike(
    records: Sequence[Record],
    lines: Alike,
    books: ProcessorBooks,
    *,
    keep: bool = False,
    at_root: bool = False,
) -> list[DetailedRecord]:
    """`take` for each record and its object, of objects with the same keys. They are changed."""
    if not any(record.fields for record in records):
        try:
            said = _said(lines, [record.logged or record.time for record in records], keep=keep)
        except _NotAlikeError:
            pass
        else:
            return _take_rows(records, lines, said, at_root=at_root)
    return _taken(records, lines, books, keep=keep, at_root=at_root)


def _taken(
    records: Sequence[Record], lines: Alike, books: ProcessorBooks, *, keep: bool, at_root: bool
) -> list[DetailedRecord]:
    made = [detailed(record) for record in records]
    take_all(made, lines.objects(), books, keep=keep)
    for record in made:
        record.at_root = record.at_root or at_root
    return made


class _Said(msgspec.Struct, frozen=True):
    """What objects say, a column of each; None: nothing."""

    levels: Sequence[str] | None
    times: list[str] | None
    messages: list[str] | None
    keys: tuple[str | None, ...]
    """Under which keys."""


def _said(lines: Alike, engines: Sequence[str], *, keep: bool) -> _Said:
    """What all of them say in one form. Raises _NotAlikeError."""
    keys = lines.keys
    level_key, time_key, message_key = (
        next((key for key in some if key in keys), None) for some in (LEVEL_KEYS, TIME_KEYS, MESSAGE_KEYS)
    )
    # What MongoDB and ECS write is looked at in each object.
    if level_key is None and ("log" in keys or (time_key is None and "t" in keys)):
        raise _NotAlikeError
    message_key = None if keep else message_key
    return _Said(
        None if level_key is None else _levels(lines.column(level_key)),
        None if time_key is None else _times(lines.column(time_key), engines),
        None if message_key is None else _texts(lines.column(message_key)),
        (level_key, time_key, message_key),
    )


def _take_rows(
    records: Sequence[Record], lines: Alike, said: _Said, *, at_root: bool
) -> list[DetailedRecord]:
    made = [detailed(record) for record in records]
    for record, found in zip(made, lines.objects(without=said.keys), strict=True):
        record.fields, record.at_root = found or None, record.at_root or at_root
    if said.levels is not None:
        for record, level in zip(made, said.levels, strict=True):
            record.level = level
    if said.times is not None:
        for record, time in zip(made, said.times, strict=True):
            record.logged, record.time = record.logged or record.time, time
    if said.messages is not None:
        for record, message in zip(made, said.messages, strict=True):
            record.message = message
    return made


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
    if level_key is None and time_key is None and "t" in objects[0]:
        if not all(map(_is_mongodb, objects)):
            raise _NotAlikeError
        level_key, time_key = "s", "t"
        levels = [_MONGODB[found["s"]] for found in objects]
        times = _times([found["t"]["$date"] for found in objects], engines)
    else:
        if level_key is None and time_key is None:
            _none_has("t", objects)
        levels = nothing if level_key is None else _levels([found[level_key] for found in objects])
        times = nothing if time_key is None else _times([found[time_key] for found in objects], engines)
    messages = nothing if message_key is None else _texts([found[message_key] for found in objects])
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
    first = objects[0]
    for place, key in enumerate(keys):
        if key in first:
            for before in keys[:place]:
                _none_has(before, objects)
            if all([key in found for found in objects]):  # noqa: C419  # a generator takes twice as long
                return key
            raise _NotAlikeError
    if not all(map(frozenset(keys).isdisjoint, objects)):
        raise _NotAlikeError
    return None


def _none_has(key: str, objects: Sequence[dict[str, Any]]) -> None:
    if any([key in found for found in objects]):  # noqa: C419
        raise _NotAlikeError


def _texts(values: list[Any]) -> list[str]:
    """What all of them say there, which has to be text."""
    if [*map(type, values)].count(str) != len(values):
        raise _NotAlikeError
    return values


def _levels(values: Sequence[Any]) -> list[str]:
    """Of names, or of numbers; not of both, as `True` is the same key as 1."""
    try:
        distinct = {*values}
    except TypeError:  # a list, or an object
        raise _NotAlikeError from None
    # No text equals anything else; numbers do.
    if {*map(type, distinct)} != {str} and {*map(type, values)} != {int}:
        raise _NotAlikeError
    meant = {value: level for value in distinct if (level := level_of(value)) is not None}
    try:
        return [*map(meant.__getitem__, values)]
    except KeyError:
        raise _NotAlikeError from None


def _times(values: Sequence[Any], engines: Sequence[str]) -> list[str]:
    times = parse_times(values)
    if times is None or not near(times, engines):
        raise _NotAlikeError
    return times
