"""The bulk API of Elasticsearch and OpenSearch: requests of records, and what answers mean. Knows no socket.

An operation is two lines of JSON: `{"create": {"_id": …}}` and the document. `create` changes no document
that is there: the second time it is answered with 409, which means that we had delivered it before.
(https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from logroute.router.digest import blake2b
from logroute.router.json_text import depth, nested_text
from logroute.router.record import Batch, DetailedRecord, Record
from logroute.sinks.columns import BYTES, woven
from logroute.sinks.failures import excerpt
from logroute.sinks.record_json import JsonColumns, json_columns, json_lines, without_surrogates

FILTER = "errors,items.*._id,items.*.status,items.*.error.type,items.*.error.reason"
"""What is asked of an answer. Of what was created that is 80 bytes an item, of 200. Without the status it
were less; but an item of which nothing is left is left out, and nobody could tell which ones failed. The ids
tell whether it is the answer to what was sent, or to what a proxy has mixed up with it."""
_SENT = re.compile(rb'^\{"create":\{"_id":"([^"\\]+)"', re.MULTILINE)
_ANSWERED = b'"_id":"'
# How stable ids begin: where there are times (`Origin.record_id`), and those of lines of text (`TextFormat`).
# What a pipeline sets (`set` with the field `_id`) looks otherwise, and says nothing of whose answer it is.
_OURS = re.compile(rb"[0-9a-f]{12}-[oe][0-9]{4}-|[0-9a-f]{24}-[0-9]+-[0-9a-f]{8}")

SHORT_BYTES = 64 << 10
"""What an answer may have without saying anything of records."""
_ITEM_BYTES = 1 << 10
"""What an answer may have for each of them, beside what it quotes: usually 80, or 400 of what is refused."""

DEEPEST = 20
"""How deep a `flattened` field may be (`depth_limit`)."""
LONGEST_INDEX_BYTES = 255

_ILLEGAL = re.compile(r'[\x00-\x20"#*,/:<>?\\|\x7f\ud800-\udfff]')
_WAITS = (401, 403, 404, 408, 429)
"""Statuses of an item that speak of its index: people unblock it, make it, or let us write there."""
_WAITS_400 = {
    "index_closed_exception": "open it",
    "validation_exception": "",  # of a new index: the cluster has as many shards as it may have
    "resource_already_exists_exception": "",  # two have made the index at the same time
    "cluster_block_exception": "",
}
"""Errors with status 400 that speak of the index as well, and what to do where they do not say it."""
_NO_PIPELINE = "pipeline with id [", "] does not exist"
_NO_WRITE_INDEX = "no write index is defined for alias"
"""An `illegal_argument_exception` that does; a pipeline's processors say it of the document."""
_REJECTED_500 = ("fail_processor_exception",)
"""About the document, whatever the status: a pipeline's `fail` is answered with 500, for ever."""
_THERE = ("version_conflict_engine_exception", "document_already_exists_exception", "")

_json = msgspec.json.Encoder()
_encode, _encode_lines = _json.encode, _json.encode_lines


class BulkError(Exception):
    """The answer is none to what was asked. The text says what it is, for people."""


class _Target(msgspec.Struct, omit_defaults=True, gc=False):
    id: str = msgspec.field(name="_id")
    index: str = msgspec.field(name="_index", default="")


class _Create(msgspec.Struct, gc=False):
    create: _Target


def operations(batch: Batch, index: str = "") -> bytes:
    """Of each record an operation that creates its document; `index` where the request names none."""
    columns = json_columns(batch)
    if columns is not None and not any(map(_may_be_deep, columns.fields)):
        return _woven_operations(columns, index)
    documents = json_lines(_shallow(batch))
    try:
        return _operations(documents, index)
    except UnicodeEncodeError:
        return _operations(without_surrogates(documents), index)


def _operations(documents: Sequence[Any], index: str) -> bytes:
    lines: list[Any] = [None] * (2 * len(documents))
    lines[::2] = [_Create(_Target(document.event.id, index)) for document in documents]
    lines[1::2] = documents
    return _encode_lines(lines)


def _woven_operations(columns: JsonColumns, index: str) -> bytes:
    begins = {stream: f'{{"create":{{"_id":"{prefix}' for stream, prefix in columns.prefixes.items()}
    target = b'","_index":%b}}\n' % _encode(index) if index else b'"}}\n'
    begin = [*map(begins.__getitem__, columns.streams)]
    operations = [begin, columns.ids, target.decode(BYTES), *columns.documents]
    return woven(len(begin), operations).encode(BYTES)


def _may_be_deep(fields: str) -> bool:
    """By their text: what has so few brackets is not."""
    return fields.count("{") + fields.count("[") > DEEPEST


def _shallow(batch: Batch) -> Batch:
    """The same, with JSON as text where fields are too deep."""
    if batch.plain:
        return batch
    records = batch.records
    if not any(record.fields and depth(record.fields, DEEPEST) > DEEPEST for record in records):
        return batch
    return batch.with_records([_flattened(record) for record in records])


def _flattened(record: Record) -> Record:
    fields = record.fields
    if not fields or not isinstance(record, DetailedRecord):
        return record
    return msgspec.structs.replace(
        record,
        fields={
            name: nested_text(value) if depth(value, DEEPEST) >= DEEPEST else value
            for name, value in fields.items()
        },
    )


# --- names of indices -----------------------------------------------------------------------------------


def escape_index(value: str) -> str:
    """A value from a stranger as a part of an index's name: it makes no illegal one.

    Half of a surrogate pair cannot be sent; what stands for it elsewhere, `?`, is illegal here.
    """
    return _ILLEGAL.sub("_", value.lower())


def legal_index(name: str) -> str:
    """The name as an index may have it: small letters, nothing special, so long."""
    name = escape_index(name).lstrip("-_+.") or "unknown"
    data = name.encode()
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
        said = excerpt(f"{self.type}: {self.reason}" if self.reason else self.type or "no reason")
        hint = _WAITS_400.get(self.type)
        return f"{said}; {hint}" if hint else said


class Item(msgspec.Struct, frozen=True, gc=False):
    """What became of one operation."""

    status: int
    id: str = msgspec.field(name="_id", default="")
    error: Failure | None = None


class _Created(msgspec.Struct, frozen=True, gc=False):
    """What each operation is answered with. Nothing that is shorter: there is room for millions of it."""

    create: Item


class _Head(msgspec.Struct):
    errors: bool


class _Answer(_Head):
    items: list[_Created] = []


_decode_head = msgspec.json.Decoder(_Head).decode
_decode = msgspec.json.Decoder(_Answer).decode


class Verdict(msgspec.Struct):
    """What an answer says of a request, by the numbers of its records."""

    duplicates: int = 0
    rejected: dict[int, Failure] = msgspec.field(default_factory=dict)
    """Never to be taken."""
    postponed: dict[int, Failure] = msgspec.field(default_factory=dict)
    """Not taken now."""


def answer_bytes(sent: bytes, count: int) -> int:
    """More than the answer to so many operations has, whatever Elasticsearch says of them.

    It quotes the values that it refuses, and makes `[1, 2]` of `[1,2]`.
    """
    return 2 * len(sent) + count * _ITEM_BYTES + SHORT_BYTES


def verdict(body: bytes, count: int, sent: bytes = b"") -> Verdict:
    """What an answer says that was asked for by FILTER, of so many operations; these were sent.

    Raises BulkError, also where it is an answer to something else.
    """
    try:
        if not _decode_head(body).errors:
            if not _is_of(body, sent):
                raise BulkError(_FOREIGN)
            # Nothing needs to be made of the items. Some servers of this protocol then leave them out.
            answered = body.count(b'"status"') or count
            items: list[Item] = []
        else:
            items = [each.create for each in _decode(body).items]
            answered = len(items)
            if not _are_of(items, sent):
                raise BulkError(_FOREIGN)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BulkError(f"answered no bulk answer: {excerpt(body[:200]) or 'nothing'}") from error
    if answered != count:
        raise BulkError(f"answered for {answered} records, and {count} were sent")
    found = Verdict()
    for number, item in enumerate(items):
        if 200 <= item.status < 300 and item.error is None:
            continue
        failure = item.error or Failure()
        if item.status == 409 and failure.type in _THERE:
            found.duplicates += 1
        elif _may_be_taken_later(item.status, failure):
            found.postponed[number] = failure
        else:
            found.rejected[number] = failure
    if items and not (found.duplicates or found.postponed or found.rejected):
        raise BulkError("answered that there are errors, and names none")
    return found


_FOREIGN = "answered for other records than were sent"


def _is_of(body: bytes, sent: bytes) -> bool:
    """Whether an answer begins and ends with the ids that a request does, as far as both have such."""
    first = _SENT.match(sent)
    if first is None or (at := body.find(_ANSWERED)) < 0:
        return True
    document = sent.rfind(b"\n", 0, len(sent) - 1)
    if (last := _SENT.match(sent, sent.rfind(b"\n", 0, document) + 1)) is None:
        return True
    ends = body.rfind(_ANSWERED) + len(_ANSWERED)
    return _says(body, at + len(_ANSWERED), first[1]) and _says(body, ends, last[1])


def _says(body: bytes, at: int, sent: bytes) -> bool:
    """Whether what an answer says there may be about this id: it is it, or a pipeline's."""
    return body.startswith(sent + b'"', at) or not _OURS.match(body, at)


def _are_of(items: Sequence[Item], sent: bytes) -> bool:
    """Whether they have the ids that were sent, or a pipeline's, as far as both have such."""
    ids = _SENT.findall(sent)
    if len(ids) != len(items):
        return True  # that they are not as many as were sent is said otherwise
    return not any(
        item.id != id_.decode() and _OURS.match(item.id.encode("utf-8", "replace"))
        for item, id_ in zip(items, ids, strict=True)
        if item.id
    )


def _may_be_taken_later(status: int, failure: Failure) -> bool:
    """Whether it speaks of the index or of the moment, and not of the document."""
    if failure.type in _REJECTED_500:
        return False
    if not 400 <= status < 500 or status in (*_WAITS, 409) or failure.type in _WAITS_400:
        return True
    if failure.type != "illegal_argument_exception":
        return False
    # By no pattern: of a reason of a megabyte it could make hours.
    begin, end = _NO_PIPELINE
    return _NO_WRITE_INDEX in failure.reason or end in failure.reason.partition(begin)[2]
