"""OTLP logs: what OpenTelemetry's own library reads of them, what answers mean, and the Collector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
import trio
from google.protobuf.json_format import Parse
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from logroute.router.position import BEGINNING
from logroute.router.record import Batch, DetailedRecord, Origin, Record, Stream
from logroute.sinks import DELIVERED, Refused, Retryable, otlp_json, otlp_protobuf
from logroute.sinks.columns import plain
from logroute.sinks.encoding import expressible
from logroute.sinks.epoch import epoch_ns
from logroute.sinks.otlp_attributes import severity, value_of
from logroute.sinks.otlp_logs import Form, OtlpEncoding, OtlpOptions
from tests.servers.otlp_collector import OtlpCollector
from tests.sinks.conftest import Making
from tests.sinks.http_server import HttpServer, answer

WEB = Origin(
    "docker:web",
    "docker",
    id="c" * 64,
    name="web",
    host="node",
    runtime="docker",
    labels={"com.docker.compose.project": "shop", "com.docker.compose.service": "api"},
)
TIME, TIME_NS = "2026-11-23T20:06:26.123456789Z", 1795464386123456789
FORMS = ("protobuf", "json")


def batch(*records: Record, of: Origin = WEB) -> Batch:
    return Batch(of, list(records), before=BEGINNING, after=BEGINNING, size_bytes=100)


def read(form: str, *batches: Batch) -> ExportLogsServiceRequest:
    """What the library reads of these batches."""
    body = OtlpEncoding(OtlpOptions.model_validate({"format": form})).encode(batches)
    if form == "json":
        return Parse(body, ExportLogsServiceRequest())
    return ExportLogsServiceRequest.FromString(body)


def logs(request: ExportLogsServiceRequest) -> list[LogRecord]:
    return [
        log
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for log in scope.log_records
    ]


def python(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "kvlist_value":
        return pairs(value.kvlist_value.values)
    if kind == "array_value":
        return [python(each) for each in value.array_value.values]
    return getattr(value, kind)


def pairs(attributes: Any) -> dict[str, Any]:
    return {each.key: python(each.value) for each in attributes}


# --- what is sent -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_container_is_a_resource_and_a_line_a_record(form: str) -> None:
    db = Origin("docker:db", "docker", id="d" * 64, name="db")
    first, second = Record("a", "stdout", TIME), Record("é\n\x00", "stderr", TIME[:-2] + "0Z")
    request = read(form, batch(first), batch(Record("x", "stdout", TIME), of=db), batch(second))
    web, other = request.resource_logs
    resource = pairs(web.resource.attributes)
    assert {key: resource[key] for key in ("service.name", "service.namespace", "host.name")} == {
        "service.name": "api", "service.namespace": "shop", "host.name": "node",
    }  # fmt: skip
    assert (resource["container.id"], resource["container.name"]) == ("c" * 64, "web")
    assert resource["container.label.com.docker.compose.service"] == "api"
    assert pairs(other.resource.attributes)["service.name"] == "db"
    assert web.scope_logs[0].scope.name == "logroute"
    a, e = web.scope_logs[0].log_records
    assert (a.time_unix_nano, e.time_unix_nano) == (TIME_NS, TIME_NS - 9)
    assert (a.body.string_value, e.body.string_value) == ("a", "é\n\x00")
    assert pairs(a.attributes) == {"log.iostream": "stdout", "log.record.uid": WEB.record_id(first)}
    assert pairs(e.attributes) == {"log.iostream": "stderr", "log.record.uid": WEB.record_id(second)}
    assert (a.severity_number, a.severity_text) == (0, "")


@pytest.mark.parametrize("form", FORMS)
def test_details_are_severity_and_attributes(form: str) -> None:
    fields = {
        "status": 401, "ratio": 0.5, "ok": True, "none": None, "list": [1, "a", {"k": -1}], "": "",
        "huge": 1 << 70, "nan": float("inf"), "half": "\ud800", "log.iostream": "mine",
    }  # fmt: skip
    told = DetailedRecord("a\ud800", "stderr", TIME, level="error", truncated=True, fields=fields, error="no")
    (log,) = logs(read(form, batch(told)))
    assert (log.severity_number, log.severity_text, log.body.string_value) == (17, "error", "a?")
    assert pairs(log.attributes) == {
        "log.iostream": "stderr", "log.record.uid": WEB.record_id(told), "status": 401, "ratio": 0.5,
        "ok": True, "none": None, "list": [1, "a", {"k": -1}], "": "", "huge": str(1 << 70),
        "nan": float("inf"), "half": "?", "log.record.truncated": True, "exception.message": "no",
    }  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_lines_as_the_source_gave_them_are_read_the_same(form: str) -> None:
    times = ["2026-11-23T20:06:26.1Z", "2026-11-23T20:06:26.12Z", "2026-11-23T20:06:26.123456789Z"]

    def given(newlines: bool) -> Batch:
        end = "\n" if newlines else ""
        lines = [Record(f"{n}{end}", "stdout", at) for n, at in enumerate(times)]
        return Batch(WEB, lines, before=BEGINNING, after=BEGINNING, size_bytes=1, newlines=newlines)

    assert read(form, given(True)) == read(form, given(False))
    assert [log.time_unix_nano % 10**9 for log in logs(read(form, given(True)))] == [
        100_000_000, 120_000_000, 123_456_789
    ]  # fmt: skip


_streams: st.SearchStrategy[Stream] = st.sampled_from(["stdout", "stderr"])
_times = st.datetimes().map(lambda at: at.isoformat() + "Z") | st.just("not a time")
_texts = st.text(st.characters(exclude_categories=()), max_size=300)


@pytest.mark.parametrize("form", FORMS)
@given(lines=st.lists(st.tuples(_texts, _streams, _times), min_size=1, max_size=12))
def test_any_text_is_read_as_it_was_said(form: str, lines: list[tuple[str, Stream, str]]) -> None:
    got = logs(read(form, batch(*(Record(*line) for line in lines))))
    assert [log.body.string_value for log in got] == [
        text.encode("utf-8", "replace").decode() for text, _, _ in lines
    ]
    assert [pairs(log.attributes)["log.iostream"] for log in got] == [stream for _, stream, _ in lines]


@pytest.mark.parametrize("form", [otlp_json, otlp_protobuf])
@given(lines=st.lists(st.tuples(_texts, _streams), min_size=1, max_size=40), newlines=st.booleans())
def test_columns_are_what_each_record_is_for_itself(
    form: Form, lines: list[tuple[str, Stream]], newlines: bool
) -> None:
    end = "\n" * newlines
    given = [
        Record(f"{expressible(text)}{end}", stream, f"2026-11-23T20:06:{26 + n // 9}.{n + 1:09d}Z")
        for n, (text, stream) in enumerate(lines)
    ]
    read = Batch(WEB, given, before=BEGINNING, after=BEGINNING, size_bytes=1, newlines=newlines)
    columns = plain(read, few=1)
    assert columns is not None
    made = form.plain_records(WEB.id_prefix, columns)
    assert made == form.records(WEB, read.records, epoch_ns([record.time for record in given]))


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("form", FORMS)
@given(fields=st.dictionaries(st.text(max_size=8), _values, max_size=4))
def test_any_fields_are_read_as_they_were(form: str, fields: Mapping[str, Any]) -> None:
    (log,) = logs(read(form, batch(DetailedRecord("a", "stdout", TIME, fields=dict(fields)))))
    got = pairs(log.attributes)
    for name, value in fields.items():
        if name not in ("log.iostream", "log.record.uid"):
            assert got[name] == value_of(value)


def nested(depth: int, kind: str) -> Any:
    """So many mappings, or lists, in each other."""
    value: Any = "at the bottom"
    for _ in range(depth):
        value = {"a": value} if kind == "mappings" else [value]
    return value


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["mappings", "lists"])
@pytest.mark.parametrize("depth", [15, 16, 17, 100, 300, 480, 800])
def test_what_is_nested_deeper_than_receivers_read_is_json_as_text(form: str, kind: str, depth: int) -> None:
    """One such line stopped its route for ever; Google's library reads at most 100 messages in each other."""
    given = nested(depth, kind)
    (log,) = logs(read(form, batch(DetailedRecord("a", "stdout", TIME, fields={"deep": given, "k": 1}))))
    got = pairs(log.attributes)
    assert got["k"] == 1
    value, levels = got["deep"], 0
    while not isinstance(value, str):
        value, levels = (value["a"] if kind == "mappings" else value[0]), levels + 1
    assert levels == min(depth, 16)
    below = nested(depth - 16, kind) if depth > 16 else value
    assert below == (msgspec.json.decode(value) if depth > 16 else "at the bottom")


class Odd(dict[str, Any]):
    """A value that holds itself."""


@pytest.mark.parametrize("form", FORMS)
def test_no_value_makes_it_fail(form: str) -> None:
    itself = Odd()
    itself["a"] = itself
    fields = {"itself": itself, "deepest": nested(100_000, "lists"), "set": {"\ud800"}, "keys": {(1, 2): 3}}
    (log,) = logs(read(form, batch(DetailedRecord("a", "stdout", TIME, fields=fields))))
    got = pairs(log.attributes)
    assert (got["set"], got["keys"]) == ('["?"]', {"(1, 2)": 3})


def test_levels_have_their_severity() -> None:
    levels = ("trace", "debug", "info", "warn", "error", "fatal", None, "loud")
    assert [severity(level) for level in levels] == [1, 5, 9, 13, 17, 21, 0, 0]


# --- answers ------------------------------------------------------------------------------------------


def response(rejected: int, message: str) -> bytes:
    made = ExportLogsServiceResponse()
    made.partial_success.rejected_log_records = rejected
    made.partial_success.error_message = message
    return made.SerializeToString()


PROTOBUF, JSON = (
    {"content_type": "application/x-protobuf"},
    {"content_type": "application/json; charset=utf-8"},
)
TWO = batch(Record("a", "stdout", TIME), Record("b", "stdout", TIME[:-2] + "0Z"))


@pytest.mark.parametrize("form", FORMS)
async def test_requests_are_as_the_specification_wants_them(
    server: HttpServer, sink_to: Making, form: str
) -> None:
    sink = await sink_to(server.url, encoding="otlp", otlp={"format": form}, compress="gzip")
    assert await sink.deliver([TWO]) == DELIVERED
    (request,) = server.requests
    assert request.target == "/v1/logs"
    kind = {"protobuf": "application/x-protobuf", "json": "application/json"}[form]
    assert (request.headers["content-type"], request.headers["content-encoding"]) == (kind, "gzip")


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (response(1, "b is bad"), PROTOBUF),
        (b'{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"b is bad"}}', JSON),
        (b'{"partialSuccess":{"rejectedLogRecords":1,"errorMessage":"b is bad"}}', JSON),
    ],
)
async def test_a_partial_success_is_a_count_without_records(
    server: HttpServer, sink_to: Making, body: bytes, headers: dict[str, str]
) -> None:
    server.behaviours.append(answer(200, body, **headers))
    outcome = await (await sink_to(server.url, encoding="otlp")).deliver([TWO])
    assert (outcome.rejected, outcome.unnamed, outcome.unnamed_reason) == ((), 1, "b is bad")


async def test_all_of_them_are_named(server: HttpServer, sink_to: Making) -> None:
    server.behaviours.append(answer(200, response(2, "all bad"), **PROTOBUF))
    outcome = await (await sink_to(server.url, encoding="otlp")).deliver([TWO])
    assert [(each.record.message, each.reason) for each in outcome.rejected] == [
        ("a", "all bad"), ("b", "all bad")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"", PROTOBUF),
        (b"{}", JSON),
        (response(0, "a warning"), PROTOBUF),
        (b'{"partialSuccess":{}}', JSON),
    ],
)
async def test_a_success_may_say_nothing(
    server: HttpServer, sink_to: Making, body: bytes, headers: dict[str, str]
) -> None:
    server.behaviours.append(answer(200, body, **headers))
    assert await (await sink_to(server.url, encoding="otlp")).deliver([TWO]) == DELIVERED


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (response(0, "field 7 is\ndeprecated"), PROTOBUF),
        (b'{"partialSuccess":{"errorMessage":"field 7 is\\ndeprecated"}}', JSON),
        (b'{"partialSuccess":{"rejectedLogRecords":"0","errorMessage":"field 7 is\\ndeprecated"}}', JSON),
    ],
)
async def test_a_warning_of_the_receiver_is_said(
    server: HttpServer, sink_to: Making, monkeypatch: pytest.MonkeyPatch, body: bytes, headers: dict[str, str]
) -> None:
    """OTLP: with no record rejected, a message is for people."""
    said: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(sink_to.context, "warn", lambda event, **details: said.append((event, details)))
    server.behaviours += [answer(200, body, **headers), answer(200)]
    sink = await sink_to(server.url, encoding="otlp")
    assert await sink.deliver([TWO]) == DELIVERED
    warned = ("the receiver took the records, and warns", {"reason": "field 7 is deprecated"})
    assert said == [warned]
    assert await sink.deliver([TWO]) == DELIVERED
    assert said == [warned], "once for each time it says so"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"<html>Log in</html>", {"content_type": "text/html"}),
        (b"\x0a\x7f", PROTOBUF),
        (b"<html>", PROTOBUF),
        (b'{"partialSuccess":7}', JSON),
        (b'{"partialSuccess":{"rejectedLogRecords":"many"}}', JSON),
        (b"[1", JSON),
    ],
)
async def test_what_is_no_otlp_delivers_nothing(
    server: HttpServer, sink_to: Making, body: bytes, headers: dict[str, str]
) -> None:
    server.behaviours.append(answer(200, body, **headers))
    with pytest.raises(Retryable, match="OTLP does not answer so"):
        await (await sink_to(server.url, encoding="otlp")).deliver([TWO])


@given(st.binary(max_size=60))
def test_no_bytes_of_a_receiver_make_reading_them_fail(data: bytes) -> None:
    try:
        otlp_protobuf.fields(data)
    except ValueError as error:
        assert "no protobuf" in str(error)  # noqa: PT017 # either is right


@given(st.integers(0, (1 << 63) - 1), st.text(max_size=50))
def test_partial_success_is_read_as_the_library_writes_it(count: int, message: str) -> None:
    from logroute.sinks.otlp_logs import _protobuf_partial_success

    assert _protobuf_partial_success(response(count, message)) == (count, message)


# --- the Collector ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compress", ["none", "gzip", "zstd"])
async def test_the_collector_reads_records_as_they_were_sent(
    otlp_collector: OtlpCollector, sink_to: Making, form: str, compress: str
) -> None:
    url = f"http://127.0.0.1:{otlp_collector.port}"
    sink = await sink_to(url, encoding="otlp", otlp={"format": form}, compress=compress)
    told = DetailedRecord("told", "stderr", TIME, level="warn", fields={"status": 401, "deep": [{"k": 1.5}]})
    many = [Record(f"line {n}", "stdout", f"2026-11-23T20:06:27.{n:09d}Z") for n in range(2000)]
    odd = Record("é \U0001f600 \x00 \n two", "stdout", TIME)
    assert await sink.deliver([batch(odd, told), batch(*many)]) == DELIVERED
    got = await trio.to_thread.run_sync(otlp_collector.wait_for, 2002)
    assert [each["body"] for each in got] == [record.message for record in (odd, told, *many)]
    first, second = got[:2]
    assert (first["time_ns"], first["severity"]) == (TIME_NS, 0)
    assert (second["severity"], second["severity_text"]) == (13, "warn")
    assert second["attributes"]["deep"] == [{"k": 1.5}]
    assert second["attributes"]["status"] == 401
    assert second["attributes"]["log.record.uid"] == WEB.record_id(told)
    assert (first["resource"]["service.name"], first["scope"]) == ("api", "logroute")


async def test_what_the_collector_refuses_is_refused(otlp_collector: OtlpCollector, sink_to: Making) -> None:
    sink = await sink_to(f"http://127.0.0.1:{otlp_collector.port}", encoding="otlp")
    with pytest.raises(Refused, match="told to refuse it"):
        await sink.deliver([batch(Record("refuse me", "stdout", TIME))])
