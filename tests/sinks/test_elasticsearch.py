"""The Elasticsearch sink: what is asked, and what answers mean."""

from __future__ import annotations

import base64
import json
import time
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from logroute.config.uri import UriError, parse_uri
from logroute.router.position import BEGINNING
from logroute.router.record import Batch, DetailedRecord, Image, Origin, Record
from logroute.sinks import DELIVERED, Outcome, Refused, Retryable
from logroute.sinks.elasticsearch import ElasticsearchOptions, ElasticsearchSink
from logroute.sinks.elasticsearch_bulk import (
    BulkError,
    Verdict,
    answer_bytes,
    escape_index,
    legal_index,
    operations,
    verdict,
)
from logroute.sinks.elasticsearch_template import pattern_of
from logroute.sources.log_chain import fingerprint
from logroute.sources.log_formats import Chunk, LogStatistics, TextFormat
from tests.sinks.http_server import HttpServer, Request, answer, in_a_thread
from tests.sinks.test_contract import Context

WEB = Origin(
    "docker:web",
    "docker",
    id="0123456789abcdef" * 4,
    name="web",
    image=Image.parse("shop/web:1"),
    labels={"team": "Pay/Me", "com.docker.compose.project": "shop"},
    host="node-7",
)
DB = Origin("docker:db", "docker", id="f" * 64, name="db")


def time_of(number: int) -> str:
    return f"2026-11-{20 + number // 10_000_000:02d}T20:06:26.{number % 10_000_000:09d}Z"


def batch_of(records: Sequence[Record], origin: Origin = WEB) -> Batch:
    return Batch(
        origin, list(records), before=BEGINNING, after=BEGINNING, size_bytes=100 * len(records), ready=True
    )


def batch(*numbers: int, origin: Origin = WEB) -> Batch:
    return batch_of([Record(f"line {n}", "stdout", time_of(n)) for n in numbers], origin)


def sink_to(url: str, folder: Path, **options: Any) -> ElasticsearchSink:
    given = {"type": "elasticsearch", "hosts": [url], "index": "logs", **options}
    return ElasticsearchSink(ElasticsearchOptions.model_validate(given), Context(folder))


# --- what is sent -------------------------------------------------------------------------------------


def lines_of(body: bytes) -> list[Any]:
    return [json.loads(line) for line in body.splitlines()]


def test_each_record_is_an_operation_with_its_stable_id() -> None:
    given = batch(1, 2)
    action, document, second, _ = lines_of(operations(given))
    assert action == {"create": {"_id": WEB.record_id(given.records[0])}}
    assert second == {"create": {"_id": WEB.record_id(given.records[1])}}
    assert document["message"] == "line 1"
    assert document["event"]["id"] == action["create"]["_id"]
    assert lines_of(operations(given, "logs"))[0]["create"]["_index"] == "logs"


def test_fields_that_are_too_deep_are_text() -> None:
    deep: Any = "x"
    for _ in range(30):
        deep = {"a": deep}
    record = DetailedRecord("m", "stdout", time_of(1), fields={"deep": deep, "flat": {"a": 1}})
    [_, document] = lines_of(operations(batch_of([record])))
    assert json.loads(document["fields"]["deep"]) == deep
    assert document["fields"]["flat"] == {"a": 1}
    assert record.fields is not None
    assert record.fields["deep"] is deep


def test_no_text_in_fields_that_are_too_deep_makes_it_fail() -> None:
    deep: Any = "half \ud800"
    for _ in range(30):
        deep = {"a": deep}
    record = DetailedRecord("m", "stdout", time_of(1), fields={"deep": deep})
    [_, document] = lines_of(operations(batch_of([record])))
    assert "half ?" in document["fields"]["deep"]


@given(st.text(), st.text(), st.text())
def test_whatever_is_said_is_two_lines_of_json(message: str, field: str, place: str) -> None:
    record = DetailedRecord(message, "stdout", time_of(1), fields={field: field}, place=place or None)
    action, document = lines_of(operations(batch_of([record])))
    assert action["create"]["_id"] == document["event"]["id"]
    assert document["message"] == message.encode("utf-8", "replace").decode()


ANY_TEXT = st.text(st.characters(codec=None, categories=("L", "N", "P", "S", "Z", "C")), max_size=400)
"""With halves of surrogate pairs, which JSON can say."""


@given(ANY_TEXT)
@example("\ud800")
def test_every_name_of_an_index_is_legal(name: str) -> None:
    made = legal_index(name)
    assert 0 < len(made.encode()) <= 255
    assert made == made.lower() == escape_index(made)
    assert made[0] not in "-_+."


@pytest.mark.parametrize(
    ("index", "names"),
    [
        ("logs-{label.team}", {"logs-pay_me", "logs-unknown"}),
        ("{compose.project|none}-{time:%Y.%m.%d}", {"shop-2026.11.20", "none-2026.11.20"}),
        ("{fields.x|..}", {"unknown"}),
    ],
)
def test_an_index_is_named_after_what_the_record_says(tmp_path: Path, index: str, names: set[str]) -> None:
    sink = sink_to("http://x:1", tmp_path, index=index)
    assert {name for name, _ in sink._by_index([batch(1, 2), batch(3, origin=DB)])} == names


def test_records_of_one_batch_may_go_to_several_indices(tmp_path: Path) -> None:
    sink = sink_to("http://x:1", tmp_path, index="logs-{time:%d}")
    parts = sink._by_index([batch(1, 2, 10_000_001)])
    assert [(name, len(part)) for name, part in parts] == [("logs-20", 2), ("logs-21", 1)]


# --- answers ------------------------------------------------------------------------------------------


def test_an_answer_without_errors_needs_no_items() -> None:
    assert verdict(b'{"errors":false}', 2) == Verdict()
    assert verdict(b'{"errors":false,"items":[{"create":{"status":201}}]}', 1) == Verdict()


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"{}", b'{"errors":1}', b'{"errors":true,"items":[{"create"'),
        b'{"more":' + b"[" * 100_000,
        b'{"errors":true,"more":%b%b}' % (b"[" * 100_000, b"]" * 100_000),
    ],
    ids=itemgetter(slice(20)),
)
def test_what_is_no_bulk_answer_is_told(body: bytes) -> None:
    with pytest.raises(BulkError, match="answered no bulk answer"):
        verdict(body, 1)


def test_an_answer_for_other_records_than_were_sent_is_told() -> None:
    with pytest.raises(BulkError, match="answered for 1 records, and 2 were sent"):
        verdict(b'{"errors":false,"items":[{"create":{"status":201}}]}', 2)


def ids_of(sent: bytes) -> list[str]:
    return [line["create"]["_id"] for line in lines_of(sent)[::2]]


def answer_for(ids: Sequence[str], status: int = 201) -> bytes:
    """All created, but the first is answered so."""
    items = [{"create": {"_id": each, "status": 201}} for each in ids]
    items[0]["create"]["status"] = status
    return json.dumps({"errors": status > 201, "items": items}, separators=(",", ":")).encode()


def file_lines(*numbers: int) -> Batch:
    """As the source has them of a file of text."""
    data = b"".join([b"line %d\n" % number for number in numbers])
    records, _ = TextFormat(1000, LogStatistics()).parse(Chunk(data, file=fingerprint(b"line 1")))
    return batch_of(records, Origin("file:/x", "file", file="/x"))


@pytest.mark.parametrize("given", [batch(1, 2, 3), file_lines(1, 2, 3)], ids=["container", "file"])
def test_an_answer_to_another_request_is_told(given: Batch) -> None:
    """As many records, but not those that were sent."""
    sent = operations(given)
    ids = ids_of(sent)
    other = ids_of(operations(file_lines(4) if given.origin.file else batch(4)))[0]
    assert verdict(answer_for(ids), 3, sent) == Verdict()
    assert list(verdict(answer_for(ids, 429), 3, sent).postponed) == [0]
    for others in ([other, *ids[1:]], [*ids[:-1], other], ids[::-1]):
        with pytest.raises(BulkError, match="other records than were sent"):
            verdict(answer_for(others), 3, sent)
    for status in (400, 429):
        with pytest.raises(BulkError, match="other records than were sent"):
            verdict(answer_for([ids[0], other, ids[2]], status), 3, sent)


@pytest.mark.parametrize(
    "set_", ["order-{}", "8f14e45fceea167a5a36dedd4bea254{}", "c9f0f895-fb98-4ab9-a5b4-00000000000{}", "{}"]
)
def test_ids_that_a_pipeline_has_set_say_nothing_about_whose_answer_it_is(set_: str) -> None:
    """Of some records only, too; what it says of them counts."""
    sent = operations(batch(1, 2, 3))
    ids = ids_of(sent)
    made = [set_.format(number) for number in range(3)]
    assert verdict(answer_for(made), 3, sent) == Verdict()
    assert verdict(answer_for([ids[0], *made[1:]]), 3, sent) == Verdict()
    assert verdict(answer_for(made, 409), 3, sent).duplicates == 1
    assert list(verdict(answer_for([made[0], *ids[1:]], 429), 3, sent).postponed) == [0]
    with pytest.raises(BulkError, match="other records than were sent"):
        verdict(answer_for([*made[:2], ids[0]]), 3, sent)


def test_what_a_pipeline_refuses_by_fail_is_rejected_though_that_is_answered_with_500() -> None:
    failed = '{"type":"fail_processor_exception","reason":"not ours"}'
    created = '{"create":{"status":201}}'
    body = f'{{"errors":true,"items":[{created},{{"create":{{"status":500,"error":{failed}}}}}]}}'
    found = verdict(body.encode(), 2)
    assert {number: str(failure) for number, failure in found.rejected.items()} == {
        1: "fail_processor_exception: not ours"
    }
    assert not found.postponed


@pytest.mark.parametrize(
    "item", [b"{}", b'{"create":{}}', b'{"create":{"status":1}}', b'{"create":{"status":1,"_id":"ab"}}']
)
def test_an_answer_of_many_small_items_takes_little_more_memory_than_its_bytes(item: bytes) -> None:
    body = b'{"errors":true,"items":[%b]}' % b",".join([item] * ((1 << 20) // len(item)))
    tracemalloc.start()
    try:
        with pytest.raises(BulkError):
            verdict(body, 1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(body)


def test_a_long_reason_is_looked_at_as_fast_as_it_is_read() -> None:
    """Whether it speaks of a pipeline was asked in a time that is the square of it."""
    reason = "pipeline with id [" * 100_000
    error = {"type": "illegal_argument_exception", "reason": reason}
    body = json.dumps({"errors": True, "items": [{"create": {"status": 400, "error": error}}]}).encode()
    began = time.process_time()
    assert len(str(verdict(body, 1).rejected[0])) < 300
    assert time.process_time() - began < 1


def test_there_is_room_for_an_answer_that_refuses_everything_and_quotes_it() -> None:
    fields = {"numbers": [1] * 1000}
    records = [DetailedRecord("said", "stdout", time_of(number), fields=fields) for number in range(100)]
    sent = operations(batch_of(records))
    reason = "failed to parse field [fields.numbers] of type [date]. Preview of field's value: '{}'"
    refused = item(400, "document_parsing_exception", reason.format(fields["numbers"]))
    refused["create"]["_id"] = ids_of(sent)[0]
    body = json.dumps({"errors": True, "items": [refused] * 100}).encode()
    assert len(sent) < len(body) < answer_bytes(sent, 100)


@given(st.binary(max_size=100))
def test_whatever_is_answered_is_read_or_told(body: bytes) -> None:
    try:
        verdict(body, 1)
    except BulkError as error:
        assert str(error).isprintable()  # noqa: PT017 - nothing else may be raised


# --- a server that answers as it is told -----------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[HttpServer]:
    server = HttpServer()
    with in_a_thread(server):
        yield server


def says(body: Any, status: int = 200, **headers: str) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return answer(status, data, content_type="application/json", **headers)


def item(status: int, type_: str = "", reason: str = "") -> dict[str, Any]:
    error = {"error": {"type": type_, "reason": reason}} if type_ else {}
    return {"create": {"status": status, **error}}


CREATED = {"errors": False}
BAD: dict[str, Any] = {"errors": True, "items": [item(400, "document_parsing_exception", "bad")]}
CONFLICT = ("version_conflict_engine_exception", "document already exists")


async def test_a_full_success_is_one_request(server: HttpServer, tmp_path: Path) -> None:
    server.behaviours.append(says(CREATED))
    sink = sink_to(server.url, tmp_path)
    assert await sink.deliver([batch(1, 2), batch(3, origin=DB)]) == DELIVERED
    await sink.close()
    [body] = server.bodies
    assert [line["create"]["_id"] for line in lines_of(body)[::2]] == [
        WEB.record_id(Record("", "stdout", time_of(1))),
        WEB.record_id(Record("", "stdout", time_of(2))),
        DB.record_id(Record("", "stdout", time_of(3))),
    ]
    assert sink.statistics().created == 3


async def test_what_is_there_already_is_counted_as_that(server: HttpServer, tmp_path: Path) -> None:
    said = {"errors": True, "items": [item(201), item(409, *CONFLICT)]}
    server.behaviours.append(says(said))
    sink = sink_to(server.url, tmp_path)
    assert await sink.deliver([batch(1, 2)]) == Outcome(duplicates=1)
    assert sink.answer == "200 OK, 1 created, 1 there already"
    await sink.close()
    assert (sink.statistics().created, sink.statistics().already_there) == (1, 1)


async def test_each_record_has_its_own_outcome(server: HttpServer, tmp_path: Path) -> None:
    reason = ("document_parsing_exception", "failed to parse field [fields]")
    busy = ("es_rejected_execution_exception", "queue is full")
    items = [
        item(409, *CONFLICT),
        item(201),
        item(400, *reason),
        item(429, *busy),
        item(503, "unavailable_shards", "red"),
    ]
    server.behaviours.append(says({"errors": True, "items": items}, retry_after="7"))
    sink = sink_to(server.url, tmp_path)
    given = [batch(1), batch(2, 3, 4, 5, origin=DB)]
    outcome = await sink.deliver(given)
    await sink.close()
    assert [(each.batch, each.record.message, each.reason) for each in outcome.rejected] == [
        (1, "line 3", "document_parsing_exception: failed to parse field [fields]")
    ]
    assert [(each.batch, each.record.message) for each in outcome.postponed] == [(1, "line 4"), (1, "line 5")]
    assert outcome.postponed[0].reason.endswith("es_rejected_execution_exception: queue is full")
    assert (outcome.duplicates, outcome.after_s) == (1, 7.0)
    assert sink.statistics().created == 1
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("status", "type_", "reason"),
    [
        (403, "cluster_block_exception", "blocked"),
        (404, "index_not_found_exception", "no such index"),
        (403, "security_exception", "unauthorized"),
        (400, "index_closed_exception", "closed"),
        (400, "validation_exception", "this action would add [2] shards"),
        (400, "illegal_argument_exception", "pipeline with id [x] does not exist"),
        (400, "illegal_argument_exception", "no write index is defined for alias [logs]"),
        (400, "resource_already_exists_exception", "index [logs] already exists"),
        (409, "another_exception", "in the way"),
    ],
)
async def test_what_speaks_of_the_index_is_waited_for(
    server: HttpServer, tmp_path: Path, status: int, type_: str, reason: str
) -> None:
    server.behaviours.append(says({"errors": True, "items": [item(status, type_, reason)]}))
    sink = sink_to(server.url, tmp_path)
    outcome = await sink.deliver([batch(1)])
    await sink.close()
    assert [each.record.message for each in outcome.postponed] == ["line 1"]
    assert f"{server.url}: index logs: {type_}: {reason}" in outcome.postponed[0].reason
    assert not outcome.rejected
    assert outcome.duplicates == 0


@pytest.mark.parametrize(
    ("type_", "reason"),
    [
        ("illegal_argument_exception", "field [user] not present as part of path [user]"),
        ("document_parsing_exception", "Limit of total fields [1000] has been exceeded"),
        ("strict_dynamic_mapping_exception", "dynamic introduction of [a] is not allowed"),
    ],
)
async def test_what_speaks_of_the_record_is_a_rejection(
    server: HttpServer, tmp_path: Path, type_: str, reason: str
) -> None:
    server.behaviours.append(says({"errors": True, "items": [item(400, type_, reason)]}))
    sink = sink_to(server.url, tmp_path)
    outcome = await sink.deliver([batch(1)])
    await sink.close()
    assert [each.reason for each in outcome.rejected] == [f"{type_}: {reason}"]
    assert not outcome.postponed


@pytest.mark.parametrize(
    ("behaviour", "error", "words"),
    [
        (says({}, 413), Refused, "413"),
        (says({}, 429, retry_after="3"), Retryable, "429 Too Many Requests"),
        (says({}, 503), Retryable, "503 Service Unavailable"),
        (says({}, 401), Retryable, "what `auth` says is not accepted"),
        (says({}, 403), Retryable, "may not write there"),
        (says(b"<html>hello</html>"), Retryable, "answered no bulk answer: <html>hello</html>"),
        (says(b'{"errors":tr'), Retryable, "answered no bulk answer"),
        (answer(200, b"<html>", content_type="text/html"), Retryable, "answered no bulk answer"),
        # Of what stands before it: also of a type that Elasticsearch's library does not know.
        (answer(413, b'{"title":"too large"}', content_type="application/problem+json"), Refused, "413"),
        (answer(503, b"<e/>", content_type="application/xml"), Retryable, "503 Service Unavailable: <e/>"),
        (answer(502, content_type="?"), Retryable, "502 Bad Gateway"),
        (answer(200, b"\0", content_type="image/png"), Retryable, "answered no bulk answer"),
    ],
)
async def test_a_request_that_fails_as_a_whole_is_told(
    server: HttpServer, tmp_path: Path, behaviour: Any, error: Any, words: str
) -> None:
    server.behaviours.append(behaviour)
    sink = sink_to(server.url, tmp_path, auth={"api_key": "c2VjcmV0"})
    with pytest.raises(error) as caught:
        await sink.deliver([batch(1, 2)])
    assert words in str(caught.value)
    assert server.url in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)
    server.behaviours.append(says(CREATED))
    assert await sink.deliver([batch(1, 2)]) == DELIVERED
    await sink.close()


@pytest.mark.parametrize(
    "said",
    [
        {"errors": True},
        {"errors": True, "items": []},
        {"errors": True, "items": [item(201), item(201)]},
        {"errors": False, "items": [item(201)]},
        {"errors": True, "items": [{"create": {"status": 400}}]},
        {"errors": True, "items": [item(409, *CONFLICT)] * 5},
    ],
)
async def test_an_answer_that_does_not_say_what_is_wrong_delivers_nothing(
    server: HttpServer, tmp_path: Path, said: Any
) -> None:
    server.behaviours.append(says(said))
    sink = sink_to(server.url, tmp_path)
    with pytest.raises(Retryable, match=r"names none|were sent"):
        await sink.deliver([batch(1, 2)])
    assert sink.statistics().created == 0
    await sink.close()


async def test_an_answer_that_goes_on_and_on_is_read_no_further_than_one_can_be(
    server: HttpServer, tmp_path: Path
) -> None:
    written = 0

    async def for_ever(stream: trio.SocketStream, _: Request) -> None:
        nonlocal written
        await stream.send_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while written < 64 << 20:
            await stream.send_all(b"8000\r\n" + b"[" * 0x8000 + b"\r\n")
            written += 0x8000

    server.behaviours.append(for_ever)
    sink = sink_to(server.url, tmp_path)
    words = r": what answers is no Elasticsearch: \d+ bytes and more, \[\["
    with trio.fail_after(60), pytest.raises(Retryable, match=words):
        await sink.deliver([batch(1, 2)])
    assert written < 16 << 20, "the rest is what the kernels of both sides take"
    server.behaviours.append(says(CREATED))
    assert await sink.deliver([batch(1, 2)]) == DELIVERED
    await sink.close()


async def test_where_nobody_listens_is_told(tmp_path: Path) -> None:
    sink = sink_to("http://127.0.0.1:9", tmp_path)
    with pytest.raises(Retryable, match=r"http://127\.0\.0\.1:9: Connection refused"):
        await sink.deliver([batch(1)])
    await sink.close()


async def test_what_can_be_no_name_is_told(tmp_path: Path) -> None:
    sink = sink_to("http://a..example:9200", tmp_path)
    with pytest.raises(Retryable, match=r"http://a\.\.example:9200: its name cannot be one: "):
        await sink.deliver([batch(1)])
    await sink.close()


async def test_requests_can_be_compressed(server: HttpServer, tmp_path: Path) -> None:
    server.behaviours.append(says(CREATED))
    sink = sink_to(server.url, tmp_path, compress="gzip")
    assert await sink.deliver([batch(1)]) == DELIVERED
    await sink.close()
    [body] = server.bodies
    assert zlib.decompress(body, wbits=31).count(b"\n") == 2


async def test_what_is_rejected_can_go_to_an_index_of_its_own(server: HttpServer, tmp_path: Path) -> None:
    server.behaviours += [says(BAD), says({"errors": False, "items": [item(201)]})]
    sink = sink_to(
        server.url,
        tmp_path,
        dead_letter_index="rejected-{compose.project|none}",
        compress="gzip",
        pipeline="geo/ip",
    )
    outcome = await sink.deliver([batch(1)])
    await sink.close()
    assert [(each.record.message, each.kept) for each in outcome.rejected] == [("line 1", True)]
    assert sink.statistics().rejected == 1
    assert ["pipeline=geo%2Fip" in request.target for request in server.requests] == [True, False]
    action, document = lines_of(zlib.decompress(server.bodies[1], wbits=31))
    assert action["create"]["_index"] == "rejected-shop"
    assert document["error"]["message"] == "document_parsing_exception: bad"
    assert document["message"] == "line 1"
    assert json.loads(document["event"]["original"])["message"] == "line 1"


async def test_half_of_a_surrogate_pair_is_no_reason_not_to_keep_what_is_rejected(
    server: HttpServer, tmp_path: Path
) -> None:
    server.behaviours += [says(BAD), says(CREATED)]
    sink = sink_to(server.url, tmp_path, dead_letter_index="rejected")
    outcome = await sink.deliver([batch_of([Record("half \ud83e", "stdout", time_of(1))])])
    await sink.close()
    assert [each.kept for each in outcome.rejected] == [True]
    assert lines_of(server.bodies[1])[1]["message"] == "half ?"


@pytest.mark.parametrize("how", ["at once", "with its reason"])
async def test_what_is_too_large_for_a_request_is_there_by_its_beginning(
    server: HttpServer, tmp_path: Path, how: str
) -> None:
    large = "é" * 50_000
    given = [batch_of([Record(large, "stdout", time_of(1))])]
    sink = sink_to(server.url, tmp_path, dead_letter_index="rejected")
    if how == "at once":
        server.behaviours.append(says({}, 413))
    else:
        server.behaviours += [says(BAD), says({}, 413)]
    server.behaviours.append(says(CREATED))
    outcome = await sink.deliver(given)
    # The whole of it is a dead letter of the route.
    [rejected] = outcome.rejected
    assert (rejected.record.message, rejected.kept) == (large, False)
    assert ("413" in rejected.reason) == (how == "at once")
    assert (sink.statistics().rejected, sink.statistics().created) == (1, 0)
    action, document = lines_of(server.bodies[-1])
    assert action["create"] == {"_index": "rejected", "_id": WEB.record_id(given[0].records[0])}
    assert len(server.bodies[-1]) < 50_000
    assert document["message"] == "é" * 8192 + " [truncated]"
    assert document["event"]["original"].startswith('{"@timestamp":')
    assert document["event"]["original"].endswith("é [truncated]")
    assert document["error"]["message"] == rejected.reason
    # Nor is it lost where not even that is taken, now or ever.
    server.behaviours += [says({}, 413), says({}, 413)]
    assert [each.kept for each in (await sink.deliver(given)).rejected] == [False]
    server.behaviours += [says({}, 413), says({}, 503)]
    outcome = await sink.deliver(given)
    assert [each.record.message for each in outcome.postponed] == [large]
    assert not outcome.rejected
    await sink.close()


async def test_several_records_that_are_too_large_together_are_halved_first(
    server: HttpServer, tmp_path: Path
) -> None:
    server.behaviours.append(says({}, 413))
    sink = sink_to(server.url, tmp_path, dead_letter_index="rejected")
    with pytest.raises(Refused):
        await sink.deliver([batch(1), batch(2, origin=DB)])
    await sink.close()
    assert len(server.requests) == 1


async def test_what_that_index_does_not_take_is_a_dead_letter_of_the_route(
    server: HttpServer, tmp_path: Path
) -> None:
    server.behaviours += [says(BAD), says(BAD)]
    sink = sink_to(server.url, tmp_path, dead_letter_index="rejected")
    outcome = await sink.deliver([batch(1)])
    assert [each.kept for each in outcome.rejected] == [False]
    # A request that is too large with the reasons in it is halved; of one record the beginning is sent.
    two = {"errors": True, "items": [*BAD["items"], *BAD["items"], item(201)]}
    server.behaviours += [says(two), says({}, 413), says({}, 413), says(CREATED), says(CREATED)]
    outcome = await sink.deliver([batch(1, 2, 3)])
    assert [(each.record.message, each.kept) for each in outcome.rejected] == [
        ("line 1", False),
        ("line 2", True),
    ]
    await sink.close()
    assert sink.statistics().created == 1


@pytest.mark.parametrize("answered", [({}, 503), ({"errors": True, "items": [{"create": {"status": 429}}]},)])
async def test_while_that_index_takes_nothing_only_what_is_rejected_waits(
    server: HttpServer, tmp_path: Path, answered: Any
) -> None:
    said = {"errors": True, "items": [item(201), *BAD["items"]]}
    server.behaviours += [says(said), says(*answered)]
    sink = sink_to(server.url, tmp_path, dead_letter_index="rejected")
    outcome = await sink.deliver([batch(1, 2)])
    await sink.close()
    assert [each.record.message for each in outcome.postponed] == ["line 2"]
    assert "dead_letter_index" in outcome.postponed[0].reason
    assert not outcome.rejected
    assert (sink.statistics().created, sink.statistics().rejected) == (1, 0)


def test_the_template_is_for_what_the_index_begins_with() -> None:
    assert pattern_of("logs-{compose.project|none}-{time:%Y}") == "logs-*"
    assert pattern_of("logs") == "logs"
    with pytest.raises(ValueError, match="begins with nothing of its own"):
        pattern_of("{compose.project}-{time:%Y}")


# --- options ------------------------------------------------------------------------------------------


def in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


BAD_CLOUD_IDS = [
    "garbage",
    "name:garbage",
    "name:Z",
    f"name:{in_base64('eu.example.com')}",
    f"name:{in_base64('$uuid')}",
    f"name:{in_base64('eu.example.com$')}",
    f"name:{in_base64('eu.example.com:port$uuid')}",
    f"name:{in_base64('eu example.com$uuid')}",
    f"name:{in_base64('ü.example.com$uuid')}",
    f"name:{in_base64('eu.example.com$uuid')}!",
    in_base64("eu.example.com$uuid"),
]


@pytest.mark.parametrize(
    ("inside", "host"),
    [
        ("eu.example.com$abc$def", "abc.eu.example.com:443"),
        ("eu.example.com$abc", "abc.eu.example.com:443"),
        ("eu.example.com:9243$abc$", "abc.eu.example.com:9243"),
    ],
)
async def test_a_cloud_id_means_a_host(tmp_path: Path, inside: str, host: str) -> None:
    from logroute.sinks._elasticsearch_client import Client

    given = {"cloud_id": f"my deployment:{in_base64(inside)}", "auth": {"api_key": "a"}}
    options = ElasticsearchOptions.model_validate(given)
    client = await Client.of(options, "there")
    [node] = client._client.transport.node_pool.all()
    assert node.base_url == f"https://{host}"
    await client.close()


async def test_further_headers_are_sent(server: HttpServer, tmp_path: Path) -> None:
    server.behaviours.append(says(CREATED))
    headers = {"X-Tenant": " shop ", "Authorization": "Own scheme"}
    sink = sink_to(server.url, tmp_path, headers=headers)
    await sink.deliver([batch(1)])
    await sink.close()
    [request] = server.requests
    assert (request.headers["x-tenant"], request.headers["authorization"]) == ("shop", "Own scheme")
    assert request.headers["content-type"] == "application/x-ndjson"


async def test_a_proxy_is_taken_from_the_environment(
    server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server.behaviours.append(says(CREATED))
    sink = sink_to("http://es.example:9200", tmp_path)
    assert await sink.deliver([batch(1)]) == DELIVERED
    await sink.close()
    [request] = server.requests
    assert request.target.startswith("http://es.example:9200/logs/_bulk?")
    monkeypatch.setenv("HTTP_PROXY", "nonsense://x")
    with pytest.raises(Retryable, match="the proxy in the environment"):
        await sink.open()


def test_uris() -> None:
    assert parse_uri("elasticsearch://es1/logs-{time:%Y}") == {
        "type": "elasticsearch",
        "hosts": ["https://es1"],
        "index": "logs-{time:%Y}",
    }
    assert parse_uri("elasticsearch+http://ada:p%40w@es1:9201/logs?compress=gzip") == {
        "type": "elasticsearch",
        "hosts": ["http://es1:9201"],
        "index": "logs",
        "compress": "gzip",
        "auth": {"username": "ada", "password": "p@w"},
    }
    with pytest.raises(UriError, match="no transport"):
        parse_uri("elasticsearch+ftp://es1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hosts": []}, "give `hosts` or `cloud_id`"),
        ({"hosts": ["es1:9200"]}, "is no URL such as https://es1:9200"),
        ({"hosts": ["https://ada:secret@es1"]}, "has a user: say it under `auth`"),
        ({"index": "Logs"}, "an index has small letters"),
        ({"index": "_logs"}, "no index begins with"),
        ({"index": "a b"}, "no spaces"),
        ({"index": "{nope}"}, 'unknown path "nope"'),
        ({"auth": {"username": "ada"}}, "belong together"),
        ({"auth": {"api_key": "secret\n"}}, "has characters that no header may have"),
        ({"auth": {"bearer": "secretü"}}, "has characters that no header may have"),
        ({"auth": {"api_key": ""}}, "is empty, or has characters that no header may have"),
        ({"auth": {"username": "ada", "password": "secret\n"}}, "has control characters"),
        ({"auth": {"username": "a:b", "password": "secret"}}, "has a colon"),
        ({"headers": {"X-K": "secret\n"}}, 'the value of "X-K" has characters that no header may have'),
        ({"headers": {"X K": "secret"}}, "'X K' cannot be the name of a header"),
        ({"headers": {"Content-Type": "text/plain"}}, '"Content-Type" is set by the sink itself'),
        (
            {"headers": {"Authorization": "secret"}, "auth": {"api_key": "secret"}},
            "`headers` an Authorization, and `auth` another",
        ),
        *(
            ({"hosts": [], "cloud_id": cloud_id}, "is no Cloud ID: the name of the deployment, a colon, and")
            for cloud_id in BAD_CLOUD_IDS
        ),
        ({"index": ".hidden"}, "no index begins with"),
        ({"auth": {"api_key": "a", "bearer": "b"}}, "only one of"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ElasticsearchOptions.model_validate({"type": "elasticsearch", "hosts": ["https://es1"], **options})
    assert words in str(caught.value)
    assert "secret" not in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("auth", "sent"),
    [
        ({"api_key": "a2V5"}, "ApiKey a2V5"),
        ({"bearer": "token"}, "Bearer token"),
        ({"username": "ada", "password": "p"}, "Basic YWRhOnA="),
        ({"username": "ada", "password": "grün :中"}, "Basic YWRhOmdyw7xuIDrkuK0="),
        ({"username": "jürgen", "password": ""}, "Basic asO8cmdlbjo="),
    ],
)
async def test_who_we_are_is_said_with_each_request(
    server: HttpServer, tmp_path: Path, auth: dict[str, str], sent: str
) -> None:
    server.behaviours.append(says(CREATED))
    sink = sink_to(server.url, tmp_path, auth=auth)
    await sink.deliver([batch(1)])
    await sink.close()
    assert server.requests[0].headers["authorization"] == sent
