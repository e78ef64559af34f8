"""Copy fields, or other parts of a record, into fields."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from logroute.config.components import PROCESSORS
from logroute.processors import Processor, ProcessorOptions
from logroute.processors._fields import fields_of
from logroute.router.paths import path
from logroute.router.record import Batch


class CopyOptions(ProcessorOptions):
    """Copy what a path names into a field."""

    type: Literal["copy"] = "copy"
    fields: dict[str, str] = Field(
        min_length=1,
        examples=[{"fields.user": "account", "container.name": "service", "message": "original"}],
    )
    """Fields by what goes into them: a path such as `fields.user`, `message` or `label.team`. What is absent
    is not copied."""

    @field_validator("fields")
    @classmethod
    def _paths_are_some(cls, fields: dict[str, str]) -> dict[str, str]:
        for name in fields:
            path(name)
        return fields


@PROCESSORS.register(CopyOptions)
class CopyProcessor(Processor[CopyOptions]):
    def __init__(self, options: CopyOptions) -> None:
        super().__init__(options)
        self._parts = [(path(name).of_record, to) for name, to in options.fields.items()]

    def apply(self, batch: Batch) -> Batch:
        origin = batch.origin
        for record in batch.records:
            for get, to in self._parts:
                value = get(origin, record)
                if value is not None:
                    fields_of(record)[to] = value
        return batch
