"""Level: how grave a record is, by its fields, or else by what its text says at a glance."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from logroute.config.components import PROCESSORS
from logroute.processors import ColumnProcessor, ProcessorOptions
from logroute.processors._fields import MISSING, FieldName
from logroute.processors._level_text import LevelText
from logroute.processors._objects import LEVEL_KEYS, level_of
from logroute.router.column_batch import ColumnBatch, Details
from logroute.router.record import Batch, Record, owned_records


class LevelOptions(ProcessorOptions):
    """Find the level of records that have none: in their fields, then in their text."""

    type: Literal["level"] = "level"
    fields: list[str] = Field(default=list(LEVEL_KEYS), examples=[["level", "severity"]])
    """Fields that say it, the first that is there. They stay."""
    text: bool = True
    """Look into the message where no field says it."""


@PROCESSORS.register(LevelOptions)
class LevelProcessor(ColumnProcessor[LevelOptions]):
    """A level that is there already stays. A text that says two different ones says none."""

    def __init__(self, options: LevelOptions) -> None:
        super().__init__(options)
        self._fields = [FieldName(name) for name in options.fields]
        self._text = LevelText()

    def columns(self, batch: ColumnBatch) -> Batch | None:
        known = batch.details
        if known is not None:
            return batch if known.levels is not None and None not in known.levels else None
        if not self.options.text:
            return None
        messages = batch.bare
        levels = self._text.levels(messages)
        return batch.with_columns((messages, batch.streams, batch.times), Details(levels))

    def by_record(self, batch: Batch) -> Batch:
        if self.options.text:
            batch = batch.with_records(owned_records(batch.records, copied=False))
        left = [record for record in batch.records if record.level is None]
        if any(record.fields for record in left):
            left = [record for record in left if not self._by_field(record)]
        if left and self.options.text:
            levels = self._text.levels([record.message for record in left])
            for record, level in zip(left, levels, strict=True):
                if level is not None:
                    record.level = level  # type: ignore[misc]  # those that it may change have one
        return batch

    def _by_field(self, record: Record) -> bool:
        for field in self._fields:
            value = field.get(record.fields)
            if value is not MISSING and (level := level_of(value)) is not None:
                record.level = level  # type: ignore[misc]
                return True
        return False
