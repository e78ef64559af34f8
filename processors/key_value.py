"""Key and value: pairs with separators of the user's, such as `a: 1; b: 2`, become fields."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from logroute.config.components import PROCESSORS
from logroute.processors import Processor, ProcessorOptions
from logroute.processors._fields import MISSING, FieldName
from logroute.processors._objects import take
from logroute.processors._values import ValueType, convert, converters
from logroute.router.record import Batch, DetailedRecord


class KeyValueOptions(ProcessorOptions):
    """Parse pairs such as `a: 1; b: 2`, in the message or in a field. Lines of `a=1 b="x y"` are logfmt's."""

    type: Literal["key_value"] = "key_value"
    field: str | None = Field(default=None, examples=["query"])
    """The field whose text is parsed; the message where none is named."""
    between: str = Field(default=" ", min_length=1, examples=["; ", "&", "|"])
    """What stands between pairs."""
    separator: str = Field(default="=", min_length=1, examples=[":", "->"])
    """What stands between a key and its value. Space around both is left out, and so are quotes around a
    value."""
    types: dict[str, ValueType] = Field(default={}, examples=[{"status": "int"}])
    """What values mean, by key: they are texts otherwise. One that is none stays a text, and is marked."""
    keep: bool = False
    """Keep the message as it was, whatever a key is the message."""


@PROCESSORS.register(KeyValueOptions)
class KeyValueProcessor(Processor[KeyValueOptions]):
    def __init__(self, options: KeyValueOptions) -> None:
        super().__init__(options)
        self._types = converters(options.types)
        self._field = FieldName(options.field) if options.field is not None else None

    def apply(self, batch: Batch) -> Batch:
        between, separator, types = self.options.between, self.options.separator, self._types
        keep = self.options.keep
        for record in batch.records:
            text = record.message if self._field is None else self._field.get(record.fields)
            if text is MISSING or not isinstance(text, str) or separator not in text:
                continue
            parts = [part.partition(separator) for part in text.split(between)]
            found: dict[str, Any] = {
                name: _unquoted(value.strip())
                for key, there, value in parts
                if there and (name := key.strip())
            }
            if not found:
                continue
            assert isinstance(record, DetailedRecord)
            if types and not convert(record, found, types):
                self.books.failed += 1
            take(record, found, self.books, keep=keep)
        return batch


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value
