"""Rename fields."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from logroute.config.components import PROCESSORS
from logroute.processors import Processor, ProcessorOptions
from logroute.processors._fields import MISSING, FieldName, fields_of
from logroute.router.record import Batch


class RenameOptions(ProcessorOptions):
    """Give fields other names."""

    type: Literal["rename"] = "rename"
    fields: dict[str, str] = Field(min_length=1, examples=[{"lvl": "severity", "http.status": "status"}])
    """New names by old ones, in order. One that is there already is replaced."""


@PROCESSORS.register(RenameOptions)
class RenameProcessor(Processor[RenameOptions]):
    def __init__(self, options: RenameOptions) -> None:
        super().__init__(options)
        self._names = [(FieldName(old), new) for old, new in options.fields.items()]

    def apply(self, batch: Batch) -> Batch:
        for record in batch.records:
            if record.fields:
                fields = fields_of(record)
                for old, new in self._names:
                    value = old.take(fields)
                    if value is not MISSING:
                        fields[new] = value
        return batch
