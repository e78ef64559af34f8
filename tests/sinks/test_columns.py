"""Batches that are encoded column by column say what their records say one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logroute import __version__
from logroute.router.column_batch import ColumnBatch
from logroute.router.position import BEGINNING
from logroute.router.record import Batch, DetailedRecord, Image, Origin, Record, Stream
from logroute.sinks import otlp_json, otlp_protobuf
from logroute.sinks.columns import BYTES, FEW, Plain, pieces, plain, woven
from logroute.sinks.elasticsearch_bulk import DEEPEST, operations
from logroute.sinks.encoding import encoder, expressible
from logroute.sinks.epoch import epoch_ns
from logroute.sinks.field_columns import detailed
from logroute.sinks.forward_entries import EntryEncoder
from logroute.sinks.gelf_message import GelfMessages
from logroute.sinks.otlp_attributes import SCOPE, resource_attributes
from logroute.sinks.otlp_logs import Form, OtlpEncoding, OtlpOptions
from logroute.sinks.record_json import json_columns
from logroute.sinks.splunk_hec import SplunkEncoding, SplunkOptions
from logroute.sinks.syslog_message import HeaderTemplates, SyslogEncoder

ORIGIN = Origin(
    "docker:1",
    "docker",
    id="3b74a877e0f9" + "0" * 52,
    name="bücher-1",
    image=Image("api", "2"),
    labels={"said": 'by "them"'},
    runtime="docker",
    host="node-7",
)
NOBODY = Origin("k", "s")

ENCODINGS: dict[str, Callable[[Batch], bytes]] = {
    "json": encoder("json"),
    "bulk": operations,
    "bulk with index": lambda batch: operations(batch, 'logs-"ü'),
    "splunk": lambda batch: SplunkEncoding(SplunkOptions()).encode([batch]),
}
OTHERS: dict[str, Callable[[Batch], bytes]] = {
    "raw": encoder("raw"),
    "forward": lambda batch: bytes(EntryEncoder().encode(batch)),
    "gelf": lambda batch: b"\n".join([*GelfMessages().encode(batch), b""]),
    "otlp": lambda batch: OtlpEncoding(OtlpOptions()).encode([batch]),
    "syslog": SyslogEncoder(
        "rfc5424", "octet-counting", 1, HeaderTemplates.parse("here", None, None, "-", None), 8192
    ).encode,
}

TEXTS = st.text(
    st.one_of(st.characters(), st.sampled_from('"\\\n\r\t\x00\x1f\x7f\x85\u2028\ud800é€😀 n')), max_size=12
)
TIMES = st.one_of(
    st.integers(0, 999_999_999).map(lambda n: f"2026-11-23T20:06:26.{n:09d}Z"),
    st.integers(0, 999).map(lambda n: f"2026-11-23T20:06:27.{n}Z"),
    st.sampled_from(
        ["", "yesterday", '","evil":"', "2026-11-23T20:06:26Z", '2026-11-23T20:06:26.1234567"9Z']
    ),
)
RECORDS = st.lists(
    st.builds(Record, TEXTS, st.sampled_from(["stdout", "stderr"]), TIMES), min_size=1, max_size=FEW
)


def batch(origin: Origin, records: list[Record], *, newlines: bool, ready: bool = False) -> Batch:
    return Batch(
        origin, records, before=BEGINNING, after=BEGINNING, size_bytes=0, newlines=newlines, ready=ready
    )


def one_by_one(origin: Origin, records: list[Record], encode: Callable[[Batch], bytes]) -> bytes:
    return b"".join([encode(batch(origin, [each], newlines=False, ready=True)) for each in records])


def in_order(some: list[Record], message: Callable[[Record], str]) -> list[Record]:
    """Enough of them to be encoded in columns, and before these some that are."""
    filled = [
        Record(f"filler {n}", "stderr" if n % 3 else "stdout", f"2026-11-23T20:06:25.{n:09d}Z")
        for n in range(1, FEW)
    ]
    return [Record(message(r), r.stream, r.time) for r in filled + sorted(some, key=lambda r: r.time)]


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("origin", [ORIGIN, NOBODY], ids=["container", "nobody"])
@given(some=RECORDS)
@example([Record("é", "stdout", "2026-11-23T20:06:26.123456789Z")])
@example([Record("\ud800", "stdout", "2026-11-23T20:06:26.123456789Z")])
@example([Record("\\", "stdout", "2026-11-23T20:06:26.123456789Z")])
@example([Record("", "stderr", "2026-11-23T20:06:26.123456789Z")])
def test_a_batch_says_what_its_records_say(
    encode: Callable[[Batch], bytes], origin: Origin, some: list[Record]
) -> None:
    as_read = batch(origin, in_order(some, lambda r: r.message + "\n"), newlines=True)
    ready = batch(origin, in_order(some, lambda r: r.message), newlines=False)
    whole = encode(as_read)
    assert encode(ready) == whole
    assert whole == one_by_one(origin, ready.records, encode)


@pytest.mark.parametrize("encode", (ENCODINGS | OTHERS).values(), ids=ENCODINGS | OTHERS)
@given(some=RECORDS, newlines=st.booleans())
def test_what_the_spool_has_in_columns_is_encoded_as_what_was_read(
    encode: Callable[[Batch], bytes], some: list[Record], newlines: bool
) -> None:
    read = batch(ORIGIN, in_order(some, lambda r: r.message + "\n" * newlines), newlines=newlines)
    spooled = ColumnBatch(
        ORIGIN,
        (read.messages, read.streams, read.times),
        before=BEGINNING,
        after=BEGINNING,
        size_bytes=0,
        newlines=newlines,
        ready=False,
    )
    assert encode(spooled) == encode(read)


def test_ordinary_lines_are_encoded_in_columns() -> None:
    read = batch(ORIGIN, in_order([], lambda r: r.message + "\n"), newlines=True)
    assert plain(read) is None  # too few
    some = [Record("m", "stdout", "2026-11-23T20:06:26.123456789Z")]
    assert plain(batch(ORIGIN, in_order(some, lambda r: r.message + "\n"), newlines=True)) is not None
    assert plain(batch(ORIGIN, in_order(some, lambda r: r.message), newlines=False)) is not None


@pytest.mark.parametrize("newlines", [True, False])
def test_a_record_with_details_keeps_them(newlines: bool) -> None:
    end = "\n" * newlines
    some: list[Record] = [
        DetailedRecord(f"m{end}", "stdout", "2026-11-23T20:06:26.123456789Z", truncated=True)
    ]
    read = batch(ORIGIN, in_order([], lambda r: r.message + end) + some, newlines=newlines)
    assert json.loads(encoder("json")(read).splitlines()[-1])["log"] == {"truncated": True}


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(0, 9), st.floats(), TEXTS, st.dictionaries(TEXTS, TEXTS, max_size=2)
)
FIELDS = st.none() | st.dictionaries(TEXTS | st.sampled_from(["log", "host", "user"]), VALUES, max_size=3)
DETAILED = st.builds(
    DetailedRecord,
    TEXTS,
    st.sampled_from(["stdout", "stderr"]),
    TIMES,
    sequence=st.integers(0, 1),
    level=st.sampled_from([None, "info", '"wärn"']),
    fields=FIELDS,
    truncated=st.booleans(),
    place=st.sampled_from([None, "fingerprint-17"]),
    part=st.sampled_from(["", ".1"]),
    logged=st.just("") | TIMES,
    error=st.just("") | TEXTS,
    at_root=st.booleans(),
)
LOG_FILE = Origin("file:1", "app", file="/var/log/äpp.log", host="node-7")


def as_json_makes_them(count: int) -> list[Record]:
    """Records of a program that all are alike."""
    return [
        DetailedRecord(
            f"m{n}",
            "stderr" if n % 3 else "stdout",
            f"2026-11-23T20:06:25.{n:09d}Z",
            level="info" if n % 2 else "warn",
            fields={"user": f"u{n}", "nested": {"deep": [n]}},
            logged=f"2026-11-23T20:06:25.9{n:08d}Z",
        )
        for n in range(1, count + 1)
    ]


DETAILED_TOO = ENCODINGS | {"forward": OTHERS["forward"], "gelf": OTHERS["gelf"]}


@pytest.mark.parametrize("encode", DETAILED_TOO.values(), ids=DETAILED_TOO)
@pytest.mark.parametrize("origin", [ORIGIN, NOBODY, LOG_FILE], ids=["container", "nobody", "file"])
@given(others=st.lists(DETAILED, max_size=4), alike=st.booleans())
@example(others=[], alike=True)
@example(
    others=[DetailedRecord("m", "stdout", "2026-11-23T20:06:26.1Z", level="info", place="p")], alike=False
)
def test_a_batch_says_what_is_known_of_each_of_its_records(
    encode: Callable[[Batch], bytes], origin: Origin, others: list[Record], alike: bool
) -> None:
    first = as_json_makes_them(FEW) if alike else in_order([], lambda r: r.message)
    records = [*first, *others]
    whole = encode(batch(origin, records, newlines=False, ready=True))
    assert whole == one_by_one(origin, records, encode)


ALIKE = st.dictionaries(
    TEXTS | st.sampled_from(["log", "message", "a b", "a_b", "a.b", "log.iostream", "log.record.truncated"]),
    st.lists(
        VALUES | st.integers() | st.lists(TEXTS, max_size=2) | st.dictionaries(TEXTS, VALUES, max_size=2),
        min_size=1,
        max_size=3,
    )
    | st.lists(TEXTS, min_size=1, max_size=3)
    | st.lists(st.integers(-9, 9) | st.integers(), min_size=1, max_size=3)
    | st.lists(st.floats(), min_size=1, max_size=3)
    | st.lists(st.booleans(), min_size=1, max_size=3),
    max_size=4,
)
"""Keys that many records have, and values of each key, of which they have one after the other."""


def with_fields(records: list[Record], fields: dict[str, list[Any]]) -> list[Record]:
    return [
        msgspec.structs.replace(
            record, fields={key: values[number % len(values)] for key, values in fields.items()}
        )
        for number, record in enumerate(records)
    ]


@pytest.mark.parametrize("encode", DETAILED_TOO.values(), ids=DETAILED_TOO)
@given(fields=ALIKE, others=st.lists(DETAILED, max_size=2))
@example(fields={"a": [1, True, None, 1.0, "x"], "b": [{"c": {"d": 1}, "e": None}]}, others=[])
@example(fields={"a b": [1], "a_b": [2]}, others=[])
@example(fields={"a": [1 << 63, -(1 << 63)], "\ud800": ["\udfff"], "f": [float("nan"), -0.0]}, others=[])
def test_records_with_the_same_keys_say_what_each_of_them_says(
    encode: Callable[[Batch], bytes], fields: dict[str, list[Any]], others: list[Record]
) -> None:
    records = [*with_fields(as_json_makes_them(FEW + 2), fields), *others]
    whole = encode(batch(ORIGIN, records, newlines=False, ready=True))
    assert whole == one_by_one(ORIGIN, records, encode)


@pytest.mark.parametrize("format_", ["protobuf", "json"])
@given(fields=ALIKE, others=st.lists(DETAILED, max_size=4))
@example(fields={"a": [1, True, None, 1.0, "x"], "b": [{"c": {"d": 1}, "e": None}]}, others=[])
@example(fields={"a": [1 << 63, -(1 << 63)], "\ud800": ["\udfff"], "f": [float("nan"), -0.0]}, others=[])
@example(fields={"log.iostream": ["x"], "é": ["é" * 100]}, others=[])
def test_opentelemetry_is_told_the_same_in_columns(
    format_: Literal["protobuf", "json"], fields: dict[str, list[Any]], others: list[Record]
) -> None:
    records = [*with_fields(as_json_makes_them(FEW + 2), fields), *others]
    form: Form = otlp_json if format_ == "json" else otlp_protobuf
    slowly = form.records(ORIGIN, records, epoch_ns([record.time for record in records]))
    resource = form.resource_logs(resource_attributes(ORIGIN), SCOPE, __version__, [slowly])
    encoding = OtlpEncoding(OtlpOptions(format=format_))
    assert encoding.encode([batch(ORIGIN, records, newlines=False, ready=True)]) == form.request([resource])


def test_records_with_details_are_encoded_in_columns() -> None:
    assert json_columns(batch(ORIGIN, as_json_makes_them(FEW), newlines=False, ready=True)) is not None
    assert detailed(batch(ORIGIN, as_json_makes_them(FEW), newlines=False, ready=True)) is not None
    assert detailed(batch(ORIGIN, as_json_makes_them(FEW - 1), newlines=False, ready=True)) is None
    assert json_columns(batch(ORIGIN, as_json_makes_them(FEW - 1), newlines=False, ready=True)) is None


def test_fields_are_no_deeper_than_elasticsearch_takes_them_in_columns_either() -> None:
    deep: Any = "bottom"
    for _ in range(DEEPEST):
        deep = [deep]
    records = as_json_makes_them(FEW)
    records.append(DetailedRecord("m", "stdout", "2026-11-23T20:06:26.123456789Z", fields={"a": deep}))
    documents = operations(batch(ORIGIN, records, newlines=False, ready=True)).splitlines()[1::2]
    assert json.loads(documents[-1])["fields"] == {"a": "[" * DEEPEST + '"bottom"' + "]" * DEEPEST}
    assert json.loads(documents[0])["fields"] == {"user": "u1", "nested": {"deep": [1]}}


@given(st.binary(max_size=40), st.integers(1, 9))
def test_bytes_are_cut_into_pieces(data: bytes, width: int) -> None:
    data = data[: len(data) // width * width]
    cut = [data[at : at + width] for at in range(0, len(data), width)]
    assert [piece.encode(BYTES) for piece in pieces(data, width)] == cut


@given(st.lists(TEXTS), st.booleans())
def test_messages_are_bare_without_the_newlines_that_end_them(texts: list[str], newlines: bool) -> None:
    texts = [expressible(text) for text in texts]
    columns = Plain([], [], [text + "\n" * newlines for text in texts], newlines)
    assert [bare.encode(BYTES).decode() for bare in columns.bare()] == texts


def test_columns_are_woven_in_their_order() -> None:
    streams: list[Stream] = ["stdout", "stderr"]
    assert woven(2, ["<", [*streams], "|", ["a", "b"], ">"]) == "<stdout|a><stderr|b>"
    assert woven(0, ["<", [], ">"]) == ""
