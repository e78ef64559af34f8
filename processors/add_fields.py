"""Add fields: texts of the user's, with what is known of the record and its container filled in."""

from __future__ import annotations

from typing import Literal
from weakref import WeakKeyDictionary

from pydantic import Field, field_validator

from logroute.config.components import PROCESSORS
from logroute.processors import Processor, ProcessorOptions
from logroute.processors._fields import fields_of
from logroute.router.record import Batch, Origin
from logroute.router.template import BoundTemplate, Template


class AddFieldsOptions(ProcessorOptions):
    """Give records further fields, or other values for those that they have."""

    type: Literal["add_fields"] = "add_fields"
    fields: dict[str, str | int | float | bool] = Field(
        min_length=1, examples=[{"team": "pay", "service": "{compose.service|none}"}]
    )
    """Values by name. A text is a template; numbers, true and false stay what they are."""

    @field_validator("fields")
    @classmethod
    def _templates_are_some(cls, fields: dict[str, str | int | float | bool]) -> object:
        for text in fields.values():
            if isinstance(text, str):
                Template.parse(text)
        return fields


@PROCESSORS.register(AddFieldsOptions)
class AddFieldsProcessor(Processor[AddFieldsOptions]):
    """What is the same for all records of a container is made once for it."""

    def __init__(self, options: AddFieldsOptions) -> None:
        super().__init__(options)
        self._plain = {name: value for name, value in options.fields.items() if not isinstance(value, str)}
        self._templates = {
            name: Template.parse(value) for name, value in options.fields.items() if isinstance(value, str)
        }
        self._bound: WeakKeyDictionary[Origin, dict[str, BoundTemplate]] = WeakKeyDictionary()

    def apply(self, batch: Batch) -> Batch:
        bound = self._bound.get(batch.origin)
        if bound is None:
            bound = {name: template.bind(batch.origin) for name, template in self._templates.items()}
            self._bound[batch.origin] = bound
        constant = self._plain | {
            name: part.constant for name, part in bound.items() if part.constant is not None
        }
        varying = [(name, part) for name, part in bound.items() if part.constant is None]
        for record in batch.records:
            fields = fields_of(record)
            # Rendered before they are added: a template may name a field that another one changes.
            rendered = [(name, part.render(record)) for name, part in varying]
            fields |= constant
            fields.update(rendered)
        return batch
