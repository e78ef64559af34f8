"""JSON: what a program has written as an object becomes fields that one can ask for.

The keys in which loggers write the time, the level and the message are taken for these. A number is a level
where pino or zap has such a one.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from logroute.config.components import PROCESSORS
from logroute.processors import Processor, ProcessorOptions
from logroute.processors._times import adopt, parse_time
from logroute.router.levels import NAMES
from logroute.router.record import Batch, DetailedRecord

TIME_KEYS = ("@timestamp", "time", "ts", "timestamp")
LEVEL_KEYS = ("level", "severity", "log.level", "lvl")
MESSAGE_KEYS = ("message", "msg")

_PINO = {10: "trace", 20: "debug", 30: "info", 40: "warn", 50: "error", 60: "fatal"}
"""https://getpino.io/#/docs/api?id=loggerlevels-object"""
_ZAP = {-1: "debug", 0: "info", 1: "warn", 2: "error", 3: "fatal", 4: "fatal", 5: "fatal"}
"""https://pkg.go.dev/go.uber.org/zap/zapcore#Level"""

_decode = msgspec.json.Decoder().decode


class JsonOptions(ProcessorOptions):
    """Parse messages that are JSON objects; others pass by."""

    type: Literal["json"] = "json"
    target: Literal["fields", "root"] = "fields"
    """Where the keys go: below `fields`, or to the root of the JSON, where that has none of that name."""
    keep: bool = False
    """Keep the message as it was; without, it becomes what the object says under `message` or `msg`, if it
    does."""


@PROCESSORS.register(JsonOptions)
class JsonProcessor(Processor[JsonOptions]):
    def apply(self, batch: Batch) -> Batch:
        root, keep = self.options.target == "root", self.options.keep
        for record in batch.records:
            message = record.message
            if message[:1] != "{" and message[:1] != "[" and message.lstrip(" \t")[:1] not in ("{", "["):
                continue
            assert isinstance(record, DetailedRecord)
            try:
                found = _decode(message)
            except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
                if message.lstrip(" \t")[:1] == "[":  # `[12:03:04] hello` is no attempt at JSON
                    continue
                self._fail(record, f"json: {error}")
                continue
            if not isinstance(found, dict):
                self._fail(record, "json: no object, but a list")
                continue
            if root:
                record.at_root = True
            take(record, found, keep=keep)
        return batch

    def _fail(self, record: DetailedRecord, reason: str) -> None:
        record.error = reason
        self.books.failed += 1


def take(record: DetailedRecord, found: dict[str, Any], *, keep: bool = False) -> None:
    """Give a record what an object says: its time, its level, its message, and the rest as fields."""
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


def level_of(value: Any) -> str | None:
    """What a level means: a name that programs use, or pino's or zap's number. None if nobody knows."""
    if isinstance(value, str):
        return NAMES.get(value.lower())
    if isinstance(value, int) and not isinstance(value, bool):
        return _PINO.get(value) or _ZAP.get(value)
    return None
