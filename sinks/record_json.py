"""Records as JSON, a line each: the shape that every sink that writes JSON has, the API, and `tail -o json`.

What is constant for the origin is encoded once and copied as it is; it stands behind what the record says of
itself, so that the keys come in the documented order. No text makes it fail: what UTF-8 cannot express (half
of a surrogate pair) becomes `?`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

import msgspec

from logroute.router.column_batch import ColumnBatch, attributes
from logroute.router.record import STREAMS, Batch, Origin, Record, Stream, all_plain
from logroute.router.times import COARSE, are_times
from logroute.sinks.columns import BYTES, FEW, Plain, plain, woven

OWN_KEYS = frozenset(
    (
        *("@timestamp", "message", "stream", "log", "fields", "error", "container", "host", "event"),
        *("compose", "swarm", "kubernetes"),
    )
)
"""What the root of a record's JSON has of its own; a field of such a name stays below `fields`."""

_json = msgspec.json.Encoder(enc_hook=str)
_encode_lines = _json.encode_lines
_encode = _json.encode
_decode = msgspec.json.Decoder().decode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def encode_batch(batch: Batch) -> bytes:
    """All records of a batch, in order, each a line."""
    if (columns := json_columns(batch)) is not None:
        return woven(len(batch), columns.documents).encode(BYTES)
    return encode_lines(json_lines(batch))


def encode_json(origin: Origin, records: Sequence[Record]) -> bytes:
    """Some records, each a line."""
    return encode_lines(_lines(origin, records))


# --- in columns ---------------------------------------------------------------------------------------
#
# µs of CPU a record, batches of 4,000 with messages of 150 bytes (lines of 700), the least of 150 on a
# machine on which escaping the messages alone takes 0.07 and copying the bytes 0.08 (Python 3.11, msgspec
# 0.22; the ways took turns):
#
#   columns of texts, woven as text of bytes (in another run)                          0.38
#   the whole batch checked, structs by one comprehension, encoded by one call         0.44
#   the same in pieces of 256 records, joined                                          0.45
#   constructors driven by map()                                                       0.47
#   a loop that looks at each record and appends                                       0.50
#   messages encoded by one call, lines formatted as str, joined, encoded              0.53 (4 if not ASCII)
#   the same with bytes and `%`                                                        0.64
#   the pieces of all lines in one list of bytes, joined                               0.73


class JsonColumns(msgspec.Struct, frozen=True):
    """Records of one origin as JSON, to be woven."""

    documents: list[str | Sequence[str]]
    """What makes a line, with its newline."""
    streams: Sequence[Stream]
    prefixes: Mapping[Stream, str]
    ids: Sequence[str]
    """A stable id is its stream's prefix and this; nothing in it is to be escaped."""
    fields: Sequence[str] = ()
    """Those of them that there are."""


def json_columns(batch: Batch) -> JsonColumns | None:
    """A batch in columns. None where records are too few, or one is such that it is to be looked at alone."""
    if len(batch) < FEW:
        return None
    try:
        columns = plain(batch)
        return _plain(batch.origin, columns) if columns is not None else _detailed(batch)
    except UnicodeEncodeError:  # half of a surrogate pair
        return None


def _plain(origin: Origin, columns: Plain) -> JsonColumns:
    prefixes = id_prefixes(origin)
    between = {
        stream: f'","stream":{behind.decode(BYTES)},"event":{{"id":"{prefixes[stream]}'
        for stream, behind in _streams(origin).items()
    }
    times, behind = columns.times, [*map(between.__getitem__, columns.streams)]
    documents = ['{"@timestamp":"', times, '","message":', columns.texts(), behind, times, '"}}\n']
    return JsonColumns(documents, columns.streams, prefixes, times)


def id_prefixes(origin: Origin) -> dict[Stream, str]:
    """What stands before the time in the stable id of a plain record, as JSON."""
    return {stream: _encode(prefix)[1:-1].decode(BYTES) for stream, prefix in origin.id_prefix.items()}


class Known(msgspec.Struct):
    """What is known of a batch's records, a column of each; empty where it is nothing, of none of them."""

    levels: Sequence[str | None]
    fields: Sequence[Any]
    """Dicts, or what JSON is made of likewise; None or an empty dict: none."""
    logged: Sequence[str]
    at_root: Sequence[bool]
    truncated: Sequence[bool] = ()
    errors: Sequence[str] = ()
    ids: Sequence[str] = ()
    """The whole stable ids, where they are not all the origin's prefix and the engine's time."""

    @classmethod
    def of(cls, batch: Batch, *, objects: bool = False) -> Known:
        """`objects`: fields are to be dicts, each of them."""
        count = len(batch)
        if isinstance(batch, ColumnBatch) and (details := batch.details) is not None:
            fields: Sequence[Any] = ()
            if details.fields is not None:
                fields = details.fields.objects() if objects else details.fields.values()
            return cls(
                details.levels or [None] * count,
                fields,
                details.logged or (),
                [True] * count if details.at_root else (),
            )
        if batch.plain:
            return cls([None] * count, (), (), ())
        origin, records = batch.origin, batch.records
        special = any(attributes(records, "sequence")) or any(attributes(records, "part"))
        return cls(
            attributes(records, "level"),
            _some(attributes(records, "fields")),
            _some(attributes(records, "logged")),
            _some(attributes(records, "at_root")),
            _some(attributes(records, "truncated")),
            _some(attributes(records, "error")),
            [*map(origin.record_id, records)]
            if special or attributes(records, "place").count(None) < count
            else (),
        )

    def engines(self, times: Sequence[str]) -> Sequence[str]:
        """The engine's times: where records have others of their own, these are the times that they were
        `logged` at."""
        if not self.logged:
            return times
        if all(self.logged):
            return self.logged
        return [own or time for own, time in zip(self.logged, times, strict=True)]

    def whole_ids(self, batch: Batch, engines: Sequence[str]) -> Sequence[str]:
        """The stable ids of the records, whose times by the engine these are."""
        if self.ids:
            return self.ids
        if COARSE in "".join(engines):
            return [*map(batch.origin.record_id, batch.records)]
        prefix = batch.origin.id_prefix
        return [prefix[stream] + time for stream, time in zip(batch.streams, engines, strict=True)]


def _some(column: list[Any]) -> list[Any]:
    return column if any(column) else []


def _detailed(batch: Batch) -> JsonColumns | None:
    """Records of which some have more than their lines. Raises UnicodeEncodeError."""
    origin, known = batch.origin, Known.of(batch)
    times, streams, logged = batch.times, batch.streams, known.logged
    engines = known.engines(times)
    if not are_times(times) or (logged and not are_times(engines)):
        return None
    texts = Plain(times, streams, batch.messages, newlines=False).texts()
    if not known.ids and COARSE in "".join(engines):
        known.ids = [*map(origin.record_id, batch.records)]
    ids: Sequence[str] = engines
    prefixes = id_prefixes(origin)
    if known.ids:
        prefixes, ids = dict.fromkeys(STREAMS, ""), _texts(known.ids)
    found = _behind_texts(origin, streams, known, prefixes)
    if found is None:
        return None
    behind, fields = found
    documents = ['{"@timestamp":"', times, '","message":', texts, *behind, ids]
    if not logged:
        documents.append('"}}\n')
    elif engines is logged:
        documents += ['","created":"', logged, '"}}\n']
    else:
        documents.append([f'","created":"{own}"}}}}\n' if own else '"}}\n' for own in logged])
    return JsonColumns(documents, streams, prefixes, ids, fields)


def _texts(values: Sequence[Any]) -> list[str]:
    """Texts of JSON, as bytes, without their quotes."""
    texts = _encode_lines(values).decode(BYTES).split("\n")
    return [text[1:-1] for text in texts[:-1]]


def _behind_texts(
    origin: Origin, streams: Sequence[Stream], known: Known, prefixes: Mapping[Stream, str]
) -> tuple[list[str | Sequence[str]], Sequence[str]] | None:
    """Columns of what stands between the messages and the ids; and the fields that there are.

    None where fields are nothing that fits in a line.
    """
    constant, errors = _Constant.of(origin), known.errors

    def kinds() -> Iterable[tuple[Stream, str | None, bool]]:
        # Made anew each time: so zip uses one tuple for all.
        return zip(streams, known.levels, known.truncated or repeat(False))  # noqa: B905

    begins: dict[Any, str] = {}
    ends: dict[Any, str] = {}
    for kind in {*kinds()}:
        begin, behind = _log(*kind, constant)
        begins[kind] = f'","stream":{begin.decode(BYTES)}'
        ends[kind] = f'{_between(behind)}"event":{{"id":"{prefixes[kind[0]]}'
    if not known.fields and not errors:
        whole = {kind: begin + ends[kind] for kind, begin in begins.items()}
        return [[*map(whole.__getitem__, kinds())]], ()
    columns: list[str | Sequence[str]] = [[*map(begins.__getitem__, kinds())]]
    texts: Sequence[str] = ()
    if known.fields:
        given = known.fields if all(known.fields) else [each for each in known.fields if each]
        texts = _encode_lines(given).decode(BYTES).split("\n")
        del texts[-1]
        if len(texts) != len(given):
            return None
        columns += _fields_texts(known.fields, texts, known.at_root)
    if errors:
        columns.append(
            [f',"error":{_encode({"message": each}).decode(BYTES)}' if each else "" for each in errors]
        )
    of_stream = {kind[0]: end for kind, end in ends.items()}
    if all(end == of_stream[kind[0]] for kind, end in ends.items()):
        columns.append([*map(of_stream.__getitem__, streams)])
    else:
        columns.append([*map(ends.__getitem__, kinds())])
    return columns, texts


def _fields_texts(
    fields: Sequence[Any], texts: Sequence[str], at_root: Sequence[bool]
) -> list[str | Sequence[str]]:
    """Columns of what stands there of fields, of which the texts are known, with a comma before."""
    if len(texts) == len(fields) and not at_root:
        return [',"fields":', texts]
    left = iter(texts)
    if not at_root:
        return [[f',"fields":{next(left)}' if each else "" for each in fields]]
    return [
        [_fields_text(next(left), root) if each else "" for each, root in zip(fields, at_root, strict=True)]
    ]


def _between(behind: bytes) -> str:
    """What is constant, and a comma on both sides of it."""
    return f",{behind.decode(BYTES)}," if behind else ","


def _fields_text(text: str, at_root: bool) -> str:
    if not at_root:
        return f',"fields":{text}'
    fields = _decode_raw(text.encode(BYTES))
    if OWN_KEYS.isdisjoint(fields):
        return f",{text[1:-1]}"
    return "".join([f",{part.decode(BYTES)}" for part in _root(fields)])


# --- one by one ---------------------------------------------------------------------------------------


class _Event(msgspec.Struct, gc=False, omit_defaults=True):
    id: str
    created: str = ""
    """The engine's time, where the record's own is another."""


class _Line(msgspec.Struct, gc=False):
    time: str = msgspec.field(name="@timestamp")
    message: str
    stream: msgspec.Raw
    """The stream's name, what only a detailed record has, and the origin's constant part."""
    event: _Event


def json_lines(batch: Batch) -> list[_Line]:
    """What is encoded of each record; its `event.id` is the stable id. For any records, or few."""
    times = batch.plain_times() if batch.newlines else None
    if times is None:
        return _lines(batch.origin, batch.records)
    # Lines as the source gave them become what is encoded in one step.
    streams = {stream: msgspec.Raw(behind) for stream, behind in _streams(batch.origin).items()}
    prefix = batch.origin.id_prefix
    return [
        _Line(time, r.message[:-1], streams[r.stream], _Event(prefix[r.stream] + time))
        for r, time in zip(batch.lines, times, strict=True)
    ]


def encode_lines(lines: Sequence[_Line]) -> bytes:
    """As JSON, a line each. What UTF-8 cannot express becomes `?`."""
    try:
        return _encode_lines(lines)
    except UnicodeEncodeError:
        return _encode_lines(without_surrogates(lines))


def without_surrogates(lines: Sequence[_Line]) -> list[_Line]:
    """The same, with nothing in them that UTF-8 cannot express."""
    return [
        _Line(
            _encodable(line.time),
            _encodable(line.message),
            line.stream,
            _Event(_encodable(line.event.id), line.event.created),
        )
        for line in lines
    ]


def _streams(origin: Origin) -> dict[Stream, bytes]:
    """What stands behind `"stream":`. Made anew each time: kept, it is a kilobyte a container."""
    constant = origin.json
    behind = b"," + constant if constant else b""
    return {"stdout": b'"stdout"' + behind, "stderr": b'"stderr"' + behind}


def _lines(origin: Origin, records: Sequence[Record]) -> list[_Line]:
    streams = {stream: msgspec.Raw(behind) for stream, behind in _streams(origin).items()}
    prefix = origin.id_prefix
    if _all_plain(records):
        return [
            _Line(r.time, r.message, streams[r.stream], _Event(prefix[r.stream] + r.time)) for r in records
        ]
    constant = _Constant.of(origin)
    try:
        return [_line(origin, record, streams, constant) for record in records]
    except UnicodeEncodeError:
        return [_line(origin, _encodable(record), streams, constant) for record in records]


class _Constant(msgspec.Struct, frozen=True):
    """The origin's constant part, and the same without the object `log`, of which some records say more."""

    whole: bytes
    log: dict[str, Any]
    others: bytes

    @classmethod
    def of(cls, origin: Origin) -> _Constant:
        whole = origin.json
        if not origin.file:
            return cls(whole, {}, whole)
        values = _decode(b"{%b}" % whole)
        return cls(whole, values.pop("log"), _encode(values)[1:-1])


def _all_plain(records: Sequence[Record]) -> bool:
    """Whether no record has details and every id is only a prefix and the time: asked once per batch."""
    if len(records) == 1:  # many containers that say little: the whole call takes 2 µs, not 3
        return type(records[0]) is Record and not records[0].time.endswith(COARSE)
    return all_plain(records) and COARSE not in "".join([record.time for record in records])


def _line(origin: Origin, record: Record, streams: dict[Stream, msgspec.Raw], constant: _Constant) -> _Line:
    """Any record's line; the slower way."""
    stream = streams[record.stream]
    if record.level or record.truncated or record.fields or record.error:
        stream = _details(record, constant)
    return _Line(record.time, record.message, stream, _Event(origin.record_id(record), record.logged))


def _details(record: Record, constant: _Constant) -> msgspec.Raw:
    """`_Line.stream` of a record that has more than its line."""
    begin, behind = _log(record.stream, record.level, record.truncated, constant)
    parts = [begin]
    if record.fields:
        parts += _root(record.fields) if record.at_root else [b'"fields":' + _encode(record.fields)]
    if record.error:
        parts.append(b'"error":' + _encode({"message": record.error}))
    if behind:
        parts.append(behind)
    return msgspec.Raw(b",".join(parts))


def _log(stream: Stream, level: str | None, truncated: bool, constant: _Constant) -> tuple[bytes, bytes]:
    """The stream's name and the object `log`, if anything is in it; and what is constant behind that."""
    log: dict[str, Any] = {}
    if level:
        log["level"] = level
    if truncated:
        log["truncated"] = True
    if not log:
        return f'"{stream}"'.encode(), constant.whole
    # The constant part says `log` as well: they become one object.
    return f'"{stream}","log":'.encode() + _encode(log | constant.log), constant.others


def _root(fields: dict[str, Any]) -> list[bytes]:
    """What stands there of fields that belong to the root."""
    own = {key: value for key, value in fields.items() if key in OWN_KEYS}
    others = {key: value for key, value in fields.items() if key not in OWN_KEYS}
    parts = [_encode(others)[1:-1]] if others else []
    return [*parts, b'"fields":' + _encode(own)] if own else parts


def _encodable(value: Any) -> Any:
    """A copy without halves of surrogate pairs, which msgspec refuses."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Record):
        return msgspec.structs.replace(
            value,
            **{
                name: _encodable(getattr(value, name))
                for name in ("message", "level", "fields", "place", "error")
                if name in value.__struct_fields__
            },
        )
    if isinstance(value, dict):
        return {_encodable(key): _encodable(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    return value
