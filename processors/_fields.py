"""What processors of fields share: names as the user writes them, in records as they are."""

from __future__ import annotations

from typing import Any

from logroute.router.record import DetailedRecord, Record

MISSING: Any = object()


def fields_of(record: Record) -> dict[str, Any]:
    """Its fields, to be changed; made where there are none."""
    assert isinstance(record, DetailedRecord)  # a processor that changes records is given no others
    if record.fields is None:
        record.fields = {}
    return record.fields


class FieldName:
    """`user.name`: the field of that whole name, else `name` in the object `user`, and so on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._steps = name.split(".")

    def get(self, fields: dict[str, Any] | None) -> Any:
        """Its value, or MISSING."""
        if not fields:
            return MISSING
        if self.name in fields:
            return fields[self.name]
        value: Any = fields
        for step in self._steps:
            if not isinstance(value, dict) or step not in value:
                return MISSING
            value = value[step]
        return value

    def take(self, fields: dict[str, Any] | None) -> Any:
        """Its value, which is not in the fields any more then; or MISSING.

        What is below a field may be somebody else's too: what changes there is copied.
        """
        if not fields:
            return MISSING
        if self.name in fields:
            return fields.pop(self.name)
        if self.get(fields) is MISSING:
            return MISSING
        inside = fields
        for step in self._steps[:-1]:
            below = dict(inside[step])
            inside[step] = below
            inside = below
        return inside.pop(self._steps[-1])
