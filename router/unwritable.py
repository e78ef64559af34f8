"""Records that no sink can write: what a processor has made of them has no form in JSON.

A sink would fail at them for ever, and everything behind them would wait. They go on as far as they can be
written, marked. Looked for only where a sink has failed in a way that it did not foresee: it costs no record
anything that can be written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from logroute.router.json_text import encodable, json_text
from logroute.router.record import Batch, DetailedRecord, Record

MARK = "what a processor has made of this record cannot be written"
"""The error of such a record, where it has none."""


def mended(batches: Sequence[Batch]) -> tuple[list[Batch], int] | None:
    """The same with what cannot be written mended, and how many records that are; None if there are none."""
    count = 0
    made: list[Batch] = []
    for batch in batches:
        records = batch.records
        bad = [index for index, record in enumerate(records) if not _writable(record)]
        if bad:
            records = [*records]
            for index in bad:
                records[index] = _mend(records[index])
            batch = batch.with_records(records)
            count += len(bad)
        made.append(batch)
    return (made, count) if count else None


def _writable(record: Record) -> bool:
    """Whether the strictest writer there may be has a form for all of it."""
    if not (isinstance(record.message, str) and isinstance(record.time, str)):
        return False
    if not isinstance(record, DetailedRecord):
        return True
    texts = record.part, record.logged, record.error, record.level or "", record.place or ""
    if not all(isinstance(text, str) for text in texts):
        return False
    try:
        if record.fields is not None:
            json.dumps(record.fields, allow_nan=True)
    except Exception:  # whatever a stranger's object raises
        return False
    return record.fields is None or isinstance(record.fields, dict)


def _mend(record: Record) -> DetailedRecord:
    fields: Any = record.fields
    if fields is not None:
        fields = fields if isinstance(fields, dict) else {"value": fields}
        fields = {_text(name): msgspec.json.decode(json_text(value)) for name, value in fields.items()}
    return DetailedRecord(
        _text(record.message),
        record.stream,
        _text(record.time),
        record.sequence,
        None if record.level is None else _text(record.level),
        fields,
        record.truncated,
        None if record.place is None else _text(record.place),
        _text(record.part),
        _text(record.logged),
        _text(record.error) or MARK,
        record.at_root,
    )


def _text(value: Any) -> str:
    try:
        return str(encodable(value))
    except Exception:
        return "(cannot be written)"
