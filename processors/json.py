"""JSON: what a program has written as an object becomes fields that one can ask for.

The keys in which loggers write the time, the level and the message are taken for these. A number is a level
where pino or zap has such a one.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from logroute.config.components import PROCESSORS
from logroute.processors import ColumnProcessor, ProcessorOptions
from logroute.processors._alike import alike
from logroute.processors._objects import (
    SHALLOW,
    check_depth,
    reason,
    take,
    take_alike,
    take_all,
    take_columns,
)
from logroute.router.column_batch import ColumnBatch
from logroute.router.record import Batch, DetailedRecord, all_plain, owned_records

_decode = msgspec.json.Decoder().decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class JsonOptions(ProcessorOptions):
    """Parse messages that are JSON objects; others pass by."""

    type: Literal["json"] = "json"
    target: Literal["fields", "root"] = "fields"
    """Where the keys go: below `fields`, or to the root of the JSON, where that has none of that name."""
    keep: bool = False
    """Keep the message as it was; without, it becomes what the object says under `message` or `msg`, if it
    does."""


@PROCESSORS.register(JsonOptions)
class JsonProcessor(ColumnProcessor[JsonOptions]):
    def columns(self, batch: ColumnBatch) -> Batch | None:
        if batch.details is not None or (lines := alike(batch.messages, newlines=batch.newlines)) is None:
            return None
        return take_columns(
            batch, lines, self.books, keep=self.options.keep, at_root=self.options.target == "root"
        )

    def by_record(self, batch: Batch) -> Batch:
        records = batch.records
        at_root = self.options.target == "root"
        if not all_plain(records) and (lines := alike(batch.messages)) is not None:
            return batch.with_records(
                [*take_alike(records, lines, self.books, keep=self.options.keep, at_root=at_root)]
            )
        batch = batch.with_records(owned_records(records, copied=False))
        attempts: list[DetailedRecord] = []
        for record in batch.records:
            message = record.message
            if message[:1] == "{" or message.lstrip(" \t")[:1] in ("{", "["):
                assert isinstance(record, DetailedRecord)
                attempts.append(record)
        try:
            objects = [_decode_object(record.message) for record in attempts]
            for record, found in zip(attempts, objects, strict=True):
                if len(record.message) > SHALLOW:
                    check_depth(record.message, found)
        except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
            for record in attempts:
                self._one(record)
            return batch
        take_all(attempts, objects, self.books, keep=self.options.keep)
        if at_root:
            for record in attempts:
                record.at_root = True
        return batch

    def _one(self, record: DetailedRecord) -> None:
        message = record.message
        try:
            found = _decode(message)
            check_depth(message, found)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            if message.lstrip(" \t")[:1] != "[":  # `[12:03:04] hello` is no attempt at JSON
                self._fail(record, f"json: {reason(error)}")
            return
        if not isinstance(found, dict):
            self._fail(record, "json: no object, but a list")
            return
        if self.options.target == "root":
            record.at_root = True
        take(record, found, self.books, keep=self.options.keep)

    def _fail(self, record: DetailedRecord, reason: str) -> None:
        record.error = reason
        self.books.failed += 1
