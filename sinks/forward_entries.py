"""Entries of the Forward protocol: a record as MessagePack, an array of its EventTime and a map.

Knows nothing of connections and messages: `forward_protocol` puts entries into messages. The map is that of
the record's JSON (`encoding`), but for the order of its keys: `message` stands behind `log`, because the
OpenTelemetry Collector makes a record's body of either, and the last one counts.

Source: Forward Protocol Specification v1, "Entry" and "EventTime Ext Format"; the MessagePack specification.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import repeat
from struct import pack
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from logroute.router.record import STREAMS, Batch, Origin, Record, Stream
from logroute.router.times import COARSE, TIME_LENGTH
from logroute.sinks.columns import FEW
from logroute.sinks.epoch import runs
from logroute.sinks.record_json import OWN_KEYS, Known

_SECONDS = len("2026-11-23T20:06:26")
_NANOSECONDS = slice(_SECONDS + 1, _SECONDS + 10)
_BILLION = 10**9
_EVENT_TIME = 8
_LAST_SECOND = (1 << 32) - 1
"""EventTime counts seconds in 32 bits: until 2106."""

_MAP = 0x80
_MOST_IN_A_BYTE = 15
"""A map with up to 15 keys has their number in its first byte. Only fields at the root make it larger."""
_LARGE_MAP = b"\xdf"
"""A map with any number of them, which follows in four bytes."""
_ENTRY = msgspec.Raw(b"\x92")
"""An array of two."""
_EXT = b"\xd7\x00"
"""The extension type 0 in 8 bytes, which follow."""
_ARRAY = b"\xdd"
"""An array, whose length follows in four bytes."""

_pack = msgspec.msgpack.Encoder(enc_hook=str).encode
_json_encoder, _json_decoder = msgspec.json.Encoder(enc_hook=str), msgspec.json.Decoder()
_json_encode, _json_encode_lines = _json_encoder.encode, _json_encoder.encode_lines
_json_decode, _json_decode_lines = _json_decoder.decode, _json_decoder.decode_lines
_decode_raws = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_integers = msgspec.json.Decoder(list[int]).decode

_TIME = _pack("@timestamp")
_MESSAGE = _pack("message")
_ID = msgspec.Raw(_pack("event") + b"\x81" + _pack("id"))
_ID_OF_TWO = msgspec.Raw(_pack("event") + b"\x82" + _pack("id"))
_CREATED = _pack("created")
_NOTHING = msgspec.Raw(b"")
_STREAMS = {stream: _pack("stream") + _pack(stream) for stream in STREAMS}
_LOG, _FIELDS = _pack("log"), _pack("fields")
_FIELDS_RAW = msgspec.Raw(_FIELDS)

_OWN_KEYS = 4
"""Keys that every record has: @timestamp, message, stream, event."""


class Constant(msgspec.Struct, frozen=True):
    """What every record of an origin says, encoded."""

    keys: int
    """How many keys of the record's map these are."""
    data: bytes
    """Keys and values, without the head of a map."""


class EntryEncoder:
    """Makes entries of batches. What is constant for an origin is encoded once, and copied as it is."""

    def __init__(self) -> None:
        self._constants: WeakKeyDictionary[Origin, Constant] = WeakKeyDictionary()

    # A batch is made in columns, woven into one list, which is encoded by one call: an array is its length,
    # and its items one behind the other. µs of CPU a record, batches of 4,000 messages of 150 bytes (entries
    # of 600), as a source gives them, the least of 60 (Python 3.11, msgspec 0.22; the ways took turns; as
    # JSON they take 0.42):
    #
    #   this                                                        0.45
    #   what is before an entry's time cut from bytes, each a Raw   0.50
    #   one list, extended by each record                           0.54
    #   one list by a comprehension with two `for`                  0.62
    #   a struct that is encoded as an array for each record        0.62

    def encode(self, batch: Batch) -> memoryview:
        """All records of a batch, in order, one entry behind the other. No text makes it fail."""
        times = batch.plain_times() if batch.newlines else None
        if times is None:
            made = self._detailed(batch) if len(batch) >= FEW and not batch.plain else None
            return self.encode_records(batch.origin, batch.records) if made is None else made
        streams, prefix = batch.streams, batch.origin.id_prefix
        ids = [prefix[stream] + time for stream, time in zip(streams, times, strict=True)]
        return self._plain(batch.origin, streams, times, [message[:-1] for message in batch.messages], ids)

    def encode_records(self, origin: Origin, records: Sequence[Record]) -> memoryview:
        """The same of records that are ready."""
        times = [r.time for r in records]
        messages = [r.message for r in records]
        if [*map(type, records)].count(Record) == len(records):
            if COARSE in "".join(times):
                ids = [*map(origin.record_id, records)]
            else:
                prefix = origin.id_prefix
                ids = [prefix[r.stream] + r.time for r in records]
            return self._plain(origin, [r.stream for r in records], times, messages, ids)
        ids = [*map(origin.record_id, records)]
        constant = self._constant(origin)
        before = [_before_the_message(origin, constant, record) for record in records]
        maps = [_map(each.keys) for each in before]
        raws = [msgspec.Raw(each.data) for each in before]
        logged = [record.logged for record in records]
        return _woven(_exts(event_times(times)), maps, times, [raws], messages, ids, logged)

    def _detailed(self, batch: Batch) -> memoryview | None:
        """The same of records of which more is known, in columns; None where one is to be looked at alone."""
        known, origin, times, streams = Known.of(batch), batch.origin, batch.times, batch.streams
        if any(known.errors) or any(known.at_root):
            return None
        kinds = [*zip(streams, known.levels, known.truncated or repeat(False))]  # noqa: B905
        begins: dict[Any, msgspec.Raw] = {}
        ends: dict[Any, msgspec.Raw] = {}
        keys: dict[Any, int] = {}
        for kind in {*kinds}:
            begin, constant = _log(origin, self._constant(origin), *kind)
            begins[kind], ends[kind] = msgspec.Raw(begin), msgspec.Raw(constant.data + _MESSAGE)
            keys[kind] = _OWN_KEYS + bool(kind[1] or kind[2]) + constant.keys
        before: list[list[msgspec.Raw]] = [[begins[kind] for kind in kinds]]
        count = [keys[kind] for kind in kinds]
        if known.fields:
            try:
                fields = _fields(known.fields)
            except (UnicodeEncodeError, OverflowError, msgspec.DecodeError):
                return None
            count = [each + bool(field) for each, field in zip(count, known.fields, strict=True)]
            before += [[_FIELDS_RAW if each else _NOTHING for each in known.fields], fields]
        before.append([ends[kind] for kind in kinds])
        of_count = {each: _map(each) for each in {*count}}
        engines = known.engines(times)
        ids = known.whole_ids(batch, engines)
        maps = [of_count[each] for each in count]
        return _woven(_exts(event_times(times)), maps, times, before, batch.messages, ids, known.logged)

    def _plain(
        self, origin: Origin, streams: list[Stream], times: list[str], messages: list[str], ids: list[str]
    ) -> memoryview:
        """Entries of records without details."""
        constant = self._constant(origin)
        before = {stream: msgspec.Raw(_STREAMS[stream] + constant.data + _MESSAGE) for stream in STREAMS}
        maps = [_map(_OWN_KEYS + constant.keys)] * len(times)
        raws = [*map(before.__getitem__, streams)]
        return _woven(_exts(event_times(times)), maps, times, [raws], messages, ids)

    def _constant(self, origin: Origin) -> Constant:
        constant = self._constants.get(origin)
        if constant is None:
            constant = self._constants[origin] = _constant(_json_decode(b"{" + origin.json + b"}"))
        return constant


def _constant(values: dict[str, Any]) -> Constant:
    return Constant(len(values), b"".join([_pack(key) + _pack(value) for key, value in values.items()]))


def _before_the_message(origin: Origin, constant: Constant, record: Record) -> Constant:
    """What stands between a record's time and its message, and how many keys its map has."""
    begin, constant = _log(origin, constant, record.stream, record.level, record.truncated)
    parts = [begin]
    keys = _OWN_KEYS + bool(record.level or record.truncated) + constant.keys
    fields = record.fields or {}
    if record.at_root:
        for key, value in fields.items():
            if key not in OWN_KEYS:
                parts += [_pack(encodable(key)), _pack_as_json(value)]
                keys += 1
        fields = {key: value for key, value in fields.items() if key in OWN_KEYS}
    if fields:
        parts += [_FIELDS, _pack_as_json(fields)]
    if record.error:
        parts.append(_pack("error") + _pack({"message": encodable(record.error)}))
    parts += [constant.data, _MESSAGE]
    return Constant(keys + bool(fields) + bool(record.error), b"".join(parts))


def _log(
    origin: Origin, constant: Constant, stream: Stream, level: str | None, truncated: bool
) -> tuple[bytes, Constant]:
    """The stream and the map `log`, if there is anything in it; and what is constant behind that."""
    log: dict[str, Any] = {}
    if level:
        log["level"] = encodable(level)
    if truncated:
        log["truncated"] = True
    if not log:
        return _STREAMS[stream], constant
    if origin.file:
        # The constant part says `log` as well: they become one map.
        values = _json_decode(b"{" + origin.json + b"}")
        log |= values.pop("log")
        constant = _constant(values)
    return _STREAMS[stream] + _LOG + _pack(log), constant


def _fields(given: Sequence[Any]) -> list[msgspec.Raw]:
    """Fields as their JSON has them (`_pack_as_json`), by a few calls. Raises what one of them raises."""
    there = [each for each in given if each]
    objects = _json_decode_lines(_json_encode_lines(there))
    if len(objects) != len(there):
        raise msgspec.DecodeError("one is no JSON of one line")
    packed = _decode_raws(_pack(objects))
    if len(there) == len(given):
        return packed
    left = iter(packed)
    return [next(left) if each else _NOTHING for each in given]


def _map(keys: int) -> msgspec.Raw:
    """The beginning of a record's map with so many keys, up to its first value."""
    if keys <= _MOST_IN_A_BYTE:
        return msgspec.Raw(bytes([_MAP | keys]) + _TIME)
    return msgspec.Raw(_LARGE_MAP + keys.to_bytes(4, "big") + _TIME)


def _exts(event_times: bytes) -> list[msgspec.Raw]:
    """EventTimes as MessagePack, all read by one call."""
    width = len(_EXT) + _EVENT_TIME
    count = len(event_times) // _EVENT_TIME
    exts = bytearray((_EXT + bytes(_EVENT_TIME)) * count)
    for each in range(_EVENT_TIME):
        exts[len(_EXT) + each :: width] = event_times[each::_EVENT_TIME]
    return _decode_raws(_ARRAY + count.to_bytes(4, "big") + exts)


def _woven(
    exts: list[msgspec.Raw],
    maps: list[msgspec.Raw],
    times: list[str],
    before: Sequence[list[msgspec.Raw]],
    messages: list[str],
    ids: Sequence[str],
    logged: Sequence[str] = (),
) -> memoryview:
    """Entries, from one column for each part of them, and some for what stands before messages."""
    count = len(times)
    columns: list[Sequence[Any]] = [[_ENTRY] * count, exts, maps, times, *before, messages]
    if any(logged):
        columns += [[_ID_OF_TWO if each else _ID for each in logged], ids]
        created = {each: msgspec.Raw(_CREATED + _pack(encodable(each))) for each in {*logged} if each}
        columns.append([created[each] if each else _NOTHING for each in logged])
    else:
        columns += [[_ID] * count, ids]
    woven: list[Any] = [None] * (len(columns) * count)
    for index, column in enumerate(columns):
        woven[index :: len(columns)] = column
    try:
        data = _pack(woven)
    except UnicodeEncodeError:
        data = _pack([encodable(item) if isinstance(item, str) else item for item in woven])
    # The array's own head: one byte, three, or five, by how many items there are.
    head_bytes = 1 if len(woven) < 1 << 4 else 3 if len(woven) < 1 << 16 else 5
    return memoryview(data)[head_bytes:]


def encodable(text: str) -> str:
    """Text without halves of surrogate pairs, which UTF-8 cannot express."""
    return text.encode("utf-8", "replace").decode()


def _pack_as_json(value: Any) -> bytes:
    """A value as its JSON would have it: keys are text, there is no NaN.

    A number that needs more than MessagePack's 64 bits becomes text.
    """
    try:
        return _pack(_json_decode(_json_encode(value)))
    except (UnicodeEncodeError, OverflowError, msgspec.DecodeError):
        text = json.dumps(value, default=str, ensure_ascii=False).encode("utf-8", "replace")
        return _pack(json.loads(text, parse_int=_integer, parse_constant=lambda _: None))


def _integer(digits: str) -> int | str:
    value = int(digits) if len(digits) <= len(str(1 << 64)) else 1 << 64
    return value if -(1 << 63) <= value < 1 << 64 else digits


# --- times --------------------------------------------------------------------------------------------


def event_times(times: Sequence[str]) -> bytes:
    """Their EventTimes, one behind the other, each in eight bytes: seconds since 1970, then nanoseconds.

    A time that is none becomes 0; one before 1970 is in the first second, one behind 2106 in the last.
    """
    made = _made_together(times)
    if made is None:
        made = b"".join([event_time(time).to_bytes(_EVENT_TIME, "big") for time in times])
    return made


def _made_together(times: Sequence[str]) -> bytes | None:
    """The same of times with nine digits, mostly in order; None where one is not like that."""
    if (seconds := runs(times)) is None:
        return None
    count = len(times)
    text = "".join(times).encode("ascii", "replace")
    shape = b"".join([(f"{second}000000000Z" * run).encode("ascii", "replace") for second, run in seconds])
    width = TIME_LENGTH
    if not len(text) == len(shape) == width * count:
        return None
    # The nanoseconds are read as one array of numbers, a 1 before each so that none begins with a zero: in a
    # third of the time that int() takes. All digits of a column are moved at once.
    numbers, frame = bytearray(b",1000000000" * count), bytearray(text)
    for digit in range(9):
        column = text[_SECONDS + 1 + digit :: width]
        if not column.isdigit():
            return None
        numbers[2 + digit :: 11] = column
        frame[_SECONDS + 1 + digit :: width] = b"0" * count
    if frame != shape:
        return None
    numbers[0] = ord("[")
    nanoseconds = pack(f">{count}Q", *_decode_integers(bytes(numbers) + b"]"))
    # All of them are one number to which another is added. None carries into the next: it has room for that.
    try:
        bases = b"".join(
            [_base(second[:_SECONDS]).to_bytes(_EVENT_TIME, "big") * run for second, run in seconds]
        )
    except (ValueError, OverflowError):  # no time, or before 1970
        return None
    both = int.from_bytes(nanoseconds, "big") + int.from_bytes(bases, "big")
    return both.to_bytes(_EVENT_TIME * count, "big")


def event_time(time: str) -> int:
    """The same of one time, whatever it looks like."""
    digits = time[_NANOSECONDS].rstrip("Z")
    try:
        since_1970 = _since_1970(time[:_SECONDS])
    except ValueError:
        return 0
    return since_1970 << 32 | (int(digits.ljust(9, "0")) if digits.isascii() and digits.isdecimal() else 0)


@lru_cache(maxsize=1024)
def _base(second: str) -> int:
    """What a second's EventTime is, less the 1 before its nanoseconds. Raises ValueError."""
    return (_since_1970(second) << 32) - _BILLION


def _since_1970(second: str) -> int:
    """Seconds of a time without zone, which is UTC. Raises ValueError."""
    if len(second) != _SECONDS:
        raise ValueError("no time")
    at = datetime.fromisoformat(second).replace(tzinfo=UTC)
    return min(max(int(at.timestamp()), 0), _LAST_SECOND)
