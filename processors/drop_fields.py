"""Drop fields: what nobody needs, or nobody shall see."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from logroute.config.components import PROCESSORS
from logroute.processors import Processor, ProcessorOptions
from logroute.processors._fields import FieldName, fields_of
from logroute.router.record import Batch


class DropFieldsOptions(ProcessorOptions):
    """Take fields out of records."""

    type: Literal["drop_fields"] = "drop_fields"
    fields: list[str] = Field(min_length=1, examples=[["password", "http.headers"]])
    """Their names; `a.b` is the field of that name, or else `b` in the object `a`."""


@PROCESSORS.register(DropFieldsOptions)
class DropFieldsProcessor(Processor[DropFieldsOptions]):
    def __init__(self, options: DropFieldsOptions) -> None:
        super().__init__(options)
        self._names = [FieldName(name) for name in options.fields]

    def apply(self, batch: Batch) -> Batch:
        for record in batch.records:
            if record.fields:
                fields = fields_of(record)
                for name in self._names:
                    name.take(fields)
        return batch
