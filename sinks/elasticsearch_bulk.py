"""The bulk API of Elasticsearch and OpenSearch: requests of records, and what answers mean. Knows no socket.

An operation is two lines of JSON: `{"create": {"_id": …}}` and the document. `create` changes no document
that is there: the second time it is answered with 409, which means that we had delivered it before.
(https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from logroute.router.record import Batch, DetailedRecord, Record
from logroute.sinks.encoding import json_lines, without_surrogates
from logroute.sinks.failures import excerpt

FILTER = "errors,items.*.error.type,items.*.error.reason"
"""What is asked of an answer. If all was created that is 16 bytes; items without an error are left out, so
that which ones it means is not told."""
FULL_FILTER = "errors,items.*.status,items.*.error.type,items.*.error.reason"
"""With the status of each item, in the order of the operations."""

DEEPEST = 20
"""How deep a `flattened` field may be (`depth_limit`)."""
LONGEST_INDEX_BYTES = 255

_ILLEGAL = re.compile(r'[\x00-\x20"#*,/:<>?\\|\x7f]')
# What an index, of which it is said, is waited for: people unblock it, make it, or let us write.
_WAITS = (401, 403, 404, 408, 429)


_encode_lines = msgspec.json.Encoder().encode_lines


class BulkError(Exception):
    """The answer is none to what was asked. The text says what it is, for people."""


class _Target(msgspec.Struct, omit_defaults=True, gc=False):
    id: str = msgspec.field(name="_id")
    index: str = msgspec.field(name="_index", default="")


class _Create(msgspec.Struct, gc=False):
    create: _Target


def operations(batch: Batch, index: str = "") -> bytes:
    """Of each record an operation that creates its document; `index` where the request names none."""
    documents = json_lines(_shallow(batch))
    try:
        return _woven(documents, index)
    except UnicodeEncodeError:
        return _woven(without_surrogates(documents), index)


def _woven(documents: Sequence[Any], index: str) -> bytes:
    lines: list[Any] = [None] * (2 * len(documents))
    lines[::2] = [_Create(_Target(document.event.id, index)) for document in documents]
    lines[1::2] = documents
    return _encode_lines(lines)


def _shallow(batch: Batch) -> Batch:
    """The same, with JSON as text where fields are too deep."""
    if list(map(type, batch.lines)).count(Record) == len(batch.lines):
        return batch
    records = batch.records
    if not any(record.fields and _depth(record.fields) > DEEPEST for record in records):
        return batch
    return batch.with_records([_flattened(record) for record in records])


def _flattened(record: Record) -> Record:
    fields = record.fields
    if not fields or not isinstance(record, DetailedRecord):
        return record
    return msgspec.structs.replace(
        record,
        fields={
            name: msgspec.json.encode(value, enc_hook=str).decode() if _depth(value) >= DEEPEST else value
            for name, value in fields.items()
        },
    )


def _depth(value: Any) -> int:
    """How deep it is nested, or somewhat more than DEEPEST."""
    depth, level = 0, [value]
    while level and depth <= DEEPEST + 1:
        level = [
            each
            for below in level
            if isinstance(below, dict | list)
            for each in (below.values() if isinstance(below, dict) else below)
        ]
        depth += 1
    return depth - 1


# --- names of indices -----------------------------------------------------------------------------------


def escape_index(value: str) -> str:
    """A value from a stranger as a part of an index's name: it makes no illegal one."""
    return _ILLEGAL.sub("_", value.lower())


def legal_index(name: str) -> str:
    """The name as an index may have it: small letters, nothing special, so long."""
    name = escape_index(name).lstrip("-_+.") or "unknown"
    data = name.encode("utf-8", "replace")
    if len(data) <= LONGEST_INDEX_BYTES:
        return data.decode()
    digest = blake2b(data, digest_size=8).hexdigest()
    return f"{data[: LONGEST_INDEX_BYTES - 17].decode('utf-8', 'ignore')}-{digest}"


# --- answers ----------------------------------------------------------------------------------------------


class Failure(msgspec.Struct, frozen=True):
    """What an item's error says."""

    type: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return excerpt(f"{self.type}: {self.reason}" if self.reason else self.type or "no reason")


class Item(msgspec.Struct, frozen=True):
    """What became of one operation."""

    status: int = 0
    error: Failure | None = None


class _Answer(msgspec.Struct):
    errors: bool
    items: list[dict[str, Item]] = []


_decode = msgspec.json.Decoder(_Answer).decode


class Verdict(msgspec.Struct):
    """What an answer says of a request, by the numbers of its records."""

    duplicates: int = 0
    rejected: dict[int, Failure] = msgspec.field(default_factory=dict)
    """Never to be taken."""
    postponed: dict[int, Failure] = msgspec.field(default_factory=dict)
    """Not taken now."""


def failures(body: bytes) -> list[Failure]:
    """The errors in an answer that was asked for by FILTER; none if all was created. Raises BulkError."""
    answer = _parsed(body)
    if not answer.errors:
        return []
    found = [item.error for each in answer.items for item in each.values() if item.error is not None]
    if not found:
        raise BulkError("answered that there are errors, and names none")
    return found


def is_there_already(failure: Failure) -> bool:
    """Whether it means that the document is there."""
    return failure.type in ("version_conflict_engine_exception", "document_already_exists_exception")


def verdict(body: bytes, count: int) -> Verdict:
    """What an answer says that was asked for by FULL_FILTER, of so many operations. Raises BulkError."""
    items = [item for each in _parsed(body).items for item in each.values()]
    if len(items) != count:
        raise BulkError(f"answered for {len(items)} records, and {count} were sent")
    found = Verdict()
    for number, item in enumerate(items):
        if 200 <= item.status < 300:
            continue
        failure = item.error or Failure(f"status {item.status}")
        if item.status == 409:
            found.duplicates += 1
        elif item.status >= 500 or item.status in _WAITS or not item.status >= 400:
            found.postponed[number] = failure
        else:
            found.rejected[number] = failure
    return found


def _parsed(body: bytes) -> _Answer:
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BulkError(f"answered no bulk answer: {excerpt(body[:200]) or 'nothing'}") from error
