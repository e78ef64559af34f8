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

FILTER = "errors,items.*.status,items.*.error.type,items.*.error.reason"
"""What is asked of an answer: the status of each item, in the order of the operations. That is 26 bytes a
record instead of 207; without the statuses nobody could tell which records the errors mean."""

DEEPEST = 20
"""How deep a `flattened` field may be (`depth_limit`)."""
LONGEST_INDEX_BYTES = 255

_ILLEGAL = re.compile(r'[\x00-\x20"#*,/:<>?\\|\x7f]')
_ALL_CREATED = b'{"create":{"status":201}}'

# Decided by the type first: a status says less. All as Elasticsearch 8.19 and OpenSearch 3.6 answer.
WAITS_FOR = {
    "index_closed_exception": "open the index",
    "index_not_found_exception": "make the index, or allow action.auto_create_index",
    "cluster_block_exception": "lift the block: often a disk is full",
    "validation_exception": "raise cluster.max_shards_per_node, or delete indices",
    "security_exception": "allow `auth` to write there",
}
"""What people can put right, by the type of the error, and how: the record waits."""
WAITS_FOR_REASONS = {
    "pipeline with id [": "make the ingest pipeline",
    "no write index is defined for alias [": "give the alias a write index",
}
"""Likewise of an `illegal_argument_exception`, by how its reason begins: most others are about the record."""
REJECTED_TYPES = frozenset({"fail_processor_exception"})
"""About the record, whatever the status: a pipeline's `fail` is answered with 500, and would be for ever."""
_WAITING_STATUSES = (401, 403, 404, 408, 429)


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

    @property
    def remedy(self) -> str:
        """What people can do about it; empty where it is about the record, or passes by itself."""
        if self.type == "illegal_argument_exception":
            return next(
                (to_do for begin, to_do in WAITS_FOR_REASONS.items() if self.reason.startswith(begin)), ""
            )
        return WAITS_FOR.get(self.type, "")

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


def all_created(body: bytes, count: int) -> bool:
    """Whether an answer says of so many operations that each has created its document.

    Looks for the very bytes that both makes answer; anything else is for `verdict` to read. No reason of an
    error can look like them: quotes in it are escaped.
    """
    return body.count(_ALL_CREATED) == count


def verdict(body: bytes, count: int) -> Verdict:
    """What an answer says that was asked for by FILTER, of so many operations. Raises BulkError."""
    answer = _parsed(body)
    items = [item for each in answer.items for item in each.values()]
    if len(items) != count:
        raise BulkError(f"answered for {len(items)} records, and {count} were sent")
    found = Verdict()
    for number, item in enumerate(items):
        if 200 <= item.status < 300:
            continue
        failure = item.error or Failure(f"status {item.status}")
        if item.status == 409:
            found.duplicates += 1
        elif _waits(item.status, failure):
            found.postponed[number] = failure
        else:
            found.rejected[number] = failure
    return found


def _waits(status: int, failure: Failure) -> bool:
    """Whether it may be otherwise the next time, with the same record."""
    if failure.type in REJECTED_TYPES:
        return False
    return bool(failure.remedy) or status in _WAITING_STATUSES or not 400 <= status < 500


def _parsed(body: bytes) -> _Answer:
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BulkError(f"answered no bulk answer: {excerpt(body[:200]) or 'nothing'}") from error
