"""The Elasticsearch sink: what is asked, what answers mean, and real ones of two makes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from logroute.cli import main
from logroute.config.uri import UriError, parse_uri
from logroute.router.record import BEGINNING, Batch, DetailedRecord, Image, Origin, Record
from logroute.sinks import DELIVERED, Outcome, Refused, Retryable
from logroute.sinks.elasticsearch import ElasticsearchOptions, ElasticsearchSink
from logroute.sinks.elasticsearch_bulk import (
    BulkError,
    all_created,
    escape_index,
    legal_index,
    operations,
    verdict,
)
from logroute.sinks.elasticsearch_template import pattern_of
from tests.conftest import search_server
from tests.servers.elasticsearch import PASSWORD, Elasticsearch, OpenSearch
from tests.sinks.http_server import HttpServer, answer, in_a_thread
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


@given(st.text(), st.text(), st.text())
def test_whatever_is_said_is_two_lines_of_json(message: str, field: str, place: str) -> None:
    record = DetailedRecord(message, "stdout", time_of(1), fields={field: field}, place=place or None)
    action, document = lines_of(operations(batch_of([record])))
    assert action["create"]["_id"] == document["event"]["id"]
    assert document["message"] == message.encode("utf-8", "replace").decode()


@given(st.text(max_size=400))
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


def test_that_all_was_created_is_seen_without_reading_each_item() -> None:
    item = b'{"create":{"status":201}}'
    assert all_created(b'{"errors":false,"items":[' + item + b"," + item + b"]}", 2)
    assert not all_created(b'{"errors":false,"items":[' + item + b"]}", 2)
    told = json.dumps({"create": {"status": 400, "error": {"type": "x", "reason": item.decode()}}}).encode()
    assert not all_created(b'{"errors":true,"items":[' + item + b"," + told + b"]}", 2)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b'{"errors":1}', b'{"errors":true,"items":[{"create"']
)
def test_what_is_no_bulk_answer_is_told(body: bytes) -> None:
    with pytest.raises(BulkError, match="answered no bulk answer"):
        verdict(body, 1)


def test_an_answer_for_other_records_than_were_sent_is_told() -> None:
    with pytest.raises(BulkError, match="answered for 1 records, and 2 were sent"):
        verdict(b'{"errors":false,"items":[{"create":{"status":201}}]}', 2)


@given(st.binary(max_size=100))
def test_whatever_is_answered_is_read_or_told(body: bytes) -> None:
    try:
        verdict(body, 1)
    except BulkError as error:
        assert str(error).isprintable()  # noqa: PT017 - nothing else may be raised


@pytest.mark.parametrize(
    ("status", "type_", "reason", "remedy"),
    [
        (400, "index_closed_exception", "closed", "open the index"),
        (404, "index_not_found_exception", "no such index [x]", "make the index"),
        (429, "cluster_block_exception", "index [x] blocked by: [TOO_MANY_REQUESTS/12]", "lift the block"),
        (400, "validation_exception", "this action would add [2] shards", "cluster.max_shards_per_node"),
        (403, "security_exception", "unauthorized", "allow `auth`"),
        (400, "illegal_argument_exception", "pipeline with id [p] does not exist", "ingest pipeline"),
        (400, "illegal_argument_exception", "no write index is defined for alias [a].", "a write index"),
    ],
)
def test_what_people_can_put_right_is_waited_for(status: int, type_: str, reason: str, remedy: str) -> None:
    found = verdict(json.dumps({"errors": True, "items": [item(status, type_, reason)]}).encode(), 1)
    assert not found.rejected
    assert remedy in found.postponed[0].remedy


@pytest.mark.parametrize(
    ("status", "type_", "reason"),
    [
        (400, "document_parsing_exception", "failed to parse field [n]"),
        (400, "mapper_parsing_exception", "failed to parse"),
        (400, "strict_dynamic_mapping_exception", "not allowed"),
        (400, "illegal_argument_exception", "Document contains at least one immense term"),
        (500, "fail_processor_exception", "no"),
    ],
)
def test_what_is_about_the_record_is_rejected(status: int, type_: str, reason: str) -> None:
    found = verdict(json.dumps({"errors": True, "items": [item(status, type_, reason)]}).encode(), 1)
    assert not found.postponed
    assert found.rejected[0].type == type_


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


def created(records: int) -> dict[str, Any]:
    return {"errors": False, "items": [item(201)] * records}


CONFLICT = ("version_conflict_engine_exception", "document already exists")


async def test_a_full_success_is_one_request(server: HttpServer, tmp_path: Path) -> None:
    server.behaviours.append(says(created(3)))
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
    ("status", "type_"),
    [(403, "cluster_block_exception"), (404, "index_not_found_exception"), (403, "security_exception")],
)
async def test_an_index_that_is_blocked_or_not_there_is_waited_for(
    server: HttpServer, tmp_path: Path, status: int, type_: str
) -> None:
    said = {"errors": True, "items": [item(status, type_, "x")]}
    server.behaviours.append(says(said))
    sink = sink_to(server.url, tmp_path)
    outcome = await sink.deliver([batch(1)])
    await sink.close()
    assert [each.record.message for each in outcome.postponed] == ["line 1"]
    assert not outcome.rejected


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
    server.behaviours.append(says(created(2)))
    assert await sink.deliver([batch(1, 2)]) == DELIVERED
    await sink.close()


@pytest.mark.parametrize(
    "said",
    [
        {"errors": True},
        {"errors": True, "items": []},
        {"errors": True, "items": [{"create": {"status": 400}}]},
        {"errors": True, "items": [item(409, *CONFLICT)] * 5},
    ],
)
async def test_an_answer_that_does_not_say_what_is_wrong_delivers_nothing(
    server: HttpServer, tmp_path: Path, said: Any
) -> None:
    server.behaviours.append(says(said))
    sink = sink_to(server.url, tmp_path)
    with pytest.raises(Retryable, match="were sent"):
        await sink.deliver([batch(1, 2)])
    assert sink.statistics().created == 0
    await sink.close()


async def test_where_nobody_listens_is_told(tmp_path: Path) -> None:
    sink = sink_to("http://127.0.0.1:9", tmp_path)
    with pytest.raises(Retryable, match=r"http://127\.0\.0\.1:9: Connection refused"):
        await sink.deliver([batch(1)])
    await sink.close()


async def test_requests_can_be_compressed(server: HttpServer, tmp_path: Path) -> None:
    server.behaviours.append(says(created(1)))
    sink = sink_to(server.url, tmp_path, compress="gzip")
    assert await sink.deliver([batch(1)]) == DELIVERED
    await sink.close()
    [body] = server.bodies
    assert zlib.decompress(body, wbits=31).count(b"\n") == 2


async def test_what_is_rejected_can_go_to_an_index_of_its_own(server: HttpServer, tmp_path: Path) -> None:
    said = {"errors": True, "items": [item(400, "document_parsing_exception", "bad")]}
    server.behaviours += [says(said), says(created(1))]
    index = "rejected-{compose.project|none}"
    sink = sink_to(server.url, tmp_path, dead_letter_index=index, compress="gzip", pipeline="p/q")
    assert await sink.deliver([batch(1)]) == Outcome(kept=1)
    await sink.close()
    assert sink.statistics().rejected == 1
    assert ["&pipeline=p%2Fq" in request.target for request in server.requests] == [True, False]
    action, document = lines_of(zlib.decompress(server.bodies[1], wbits=31))
    assert action["create"]["_index"] == "rejected-shop"
    assert document["error"]["message"] == "document_parsing_exception: bad"
    assert json.loads(document["event"]["original"])["message"] == "line 1"


@pytest.mark.parametrize(
    ("behaviour", "word"),
    [
        (says({"errors": True, "items": [item(429, "es_rejected_execution_exception", "full")]}), "full"),
        (says({}, 503), "503"),
    ],
)
async def test_only_what_was_rejected_is_sent_again_while_the_index_for_it_takes_nothing(
    server: HttpServer, tmp_path: Path, behaviour: Any, word: str
) -> None:
    said = {"errors": True, "items": [item(201), item(400, "document_parsing_exception", "bad")]}
    server.behaviours += [says(said), behaviour]
    sink = sink_to(server.url, tmp_path, dead_letter_index="rejected")
    outcome = await sink.deliver([batch(1, 2)])
    await sink.close()
    assert [each.record.message for each in outcome.postponed] == ["line 2"]
    assert "the index for what is rejected takes nothing now" in outcome.postponed[0].reason
    assert word in outcome.postponed[0].reason
    assert (outcome.kept, outcome.rejected, sink.statistics().rejected) == (0, (), 0)


def test_the_template_is_for_what_the_index_begins_with() -> None:
    assert pattern_of("logs-{compose.project|none}-{time:%Y}") == "logs-*"
    assert pattern_of("logs") == "logs"
    with pytest.raises(ValueError, match="begins with nothing of its own"):
        pattern_of("{compose.project}-{time:%Y}")


# --- options ------------------------------------------------------------------------------------------


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
        ({"index": ".hidden"}, "no index begins with"),
        ({"auth": {"api_key": "a", "bearer": "b"}}, "only one of"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ElasticsearchOptions.model_validate({"type": "elasticsearch", "hosts": ["https://es1"], **options})
    assert words in str(caught.value)
    assert "secret" not in caught.value.errors()[0]["msg"]


# --- real ones ----------------------------------------------------------------------------------------


@pytest.fixture(params=[Elasticsearch, OpenSearch], scope="module")
def search(request: pytest.FixtureRequest) -> Iterator[Elasticsearch]:
    with search_server(request.param) as server:
        yield server


async def test_documents_are_there_once_with_nothing_changed(search: Elasticsearch, tmp_path: Path) -> None:
    sink = sink_to(search.url, tmp_path, index="plain")
    records: list[Record] = [
        Record('é "quoted"\n\x1b[31m', "stderr", time_of(1)),
        DetailedRecord("with fields", "stdout", time_of(2), level="warn", fields={"a": {"b": 1}, "c": "x"}),
    ]
    for _ in range(2):
        outcome = await sink.deliver([batch_of(records), batch(*range(10, 1010), origin=DB)])
    assert outcome == Outcome(duplicates=1002)
    await sink.close()
    found = search.documents("plain")
    assert len(found) == 1002
    first = next(each for each in found if each["_id"] == WEB.record_id(records[0]))["_source"]
    assert first["message"] == records[0].message
    assert first["@timestamp"] == time_of(1)
    assert first["container"]["labels"] == {"team": "Pay/Me", "com_docker_compose_project": "shop"}
    assert all(each["_id"] == each["_source"]["event"]["id"] for each in found)


async def test_no_container_can_blow_the_mapping_up(search: Elasticsearch, tmp_path: Path) -> None:
    sink = sink_to(search.url, tmp_path, index="plain")
    deep: Any = "x"
    for _ in range(40):
        deep = {"a": deep}
    wide = {f"k{n}": n for n in range(5000)} | {"deep": deep, "n": "text", "a.b": [{}]}
    of = Origin(
        "docker:wide", "docker", id="e" * 64, name="wide", labels={f"l.{n}": "v" for n in range(2000)}
    )
    if not isinstance(search, OpenSearch):  # its `flat_object` knows no longest term
        wide["long"] = "x" * 100_000
    records = [
        DetailedRecord("wide", "stdout", time_of(1), fields=wide),
        DetailedRecord("narrow", "stdout", time_of(2), fields={"n": {"is": "now an object"}, "deep": 1}),
    ]
    assert await sink.deliver([batch_of(records, of)]) == DELIVERED
    await sink.close()
    [mapping] = search.ask("GET", "/plain/_mapping").values()
    assert len(json.dumps(mapping)) < 10_000


async def test_a_record_that_cannot_be_stored_is_rejected_and_its_neighbours_are_there(
    search: Elasticsearch, tmp_path: Path
) -> None:
    search.ask(
        "PUT", "/numbers", {"mappings": {"properties": {"fields": {"properties": {"n": {"type": "long"}}}}}}
    )
    sink = sink_to(search.url, tmp_path, index="numbers")
    records = [
        DetailedRecord(str(n), "stdout", time_of(n), fields={"n": "no number" if n == 3 else n})
        for n in range(5)
    ]
    given = batch_of(records)
    outcome = await sink.deliver([given])
    assert [each.record.message for each in outcome.rejected] == ["3"]
    assert "failed to parse field [fields.n]" in outcome.rejected[0].reason
    assert outcome.duplicates == 0
    again = await sink.deliver([given])
    assert (len(again.rejected), again.duplicates) == (1, 4)
    await sink.close()
    assert search.count("numbers") == 4


async def test_a_blocked_index_is_waited_for(search: Elasticsearch, tmp_path: Path) -> None:
    search.ask("PUT", "/blocked", {"settings": {"index.blocks.write": True}})
    sink = sink_to(search.url, tmp_path, index="blocked")
    outcome = await sink.deliver([batch(1, 2)])
    assert len(outcome.postponed) == 2
    assert "blocked" in outcome.postponed[0].reason
    search.ask("PUT", "/blocked/_settings", {"index.blocks.write": False})
    assert await sink.deliver([batch(1, 2)]) == DELIVERED
    await sink.close()
    assert search.count("blocked") == 2


async def test_what_people_can_put_right_waits_until_they_have(search: Elasticsearch, tmp_path: Path) -> None:
    search.ask("PUT", "/closed")
    search.ask("POST", "/closed/_close")
    sink = sink_to(search.url, tmp_path, index="closed")
    outcome = await sink.deliver([batch(1)])
    assert "index_closed_exception: closed; to go on, open the index" in outcome.postponed[0].reason
    search.ask("POST", "/closed/_open?wait_for_active_shards=1")
    assert await sink.deliver([batch(1)]) == DELIVERED
    await sink.close()

    sink = sink_to(search.url, tmp_path, index="absent")
    search.ask("PUT", "/_cluster/settings", {"persistent": {"action.auto_create_index": "false"}})
    try:
        outcome = await sink.deliver([batch(1)])
    finally:
        search.ask("PUT", "/_cluster/settings", {"persistent": {"action.auto_create_index": None}})
    assert "make the index, or allow action.auto_create_index" in outcome.postponed[0].reason
    search.ask("PUT", "/_cluster/settings", {"persistent": {"cluster.max_shards_per_node": 1}})
    try:
        outcome = await sink.deliver([batch(1)])
    finally:
        search.ask("PUT", "/_cluster/settings", {"persistent": {"cluster.max_shards_per_node": None}})
    assert "raise cluster.max_shards_per_node" in outcome.postponed[0].reason
    assert await sink.deliver([batch(1)]) == DELIVERED
    await sink.close()


async def test_an_alias_without_a_write_index_is_waited_for(search: Elasticsearch, tmp_path: Path) -> None:
    for index in ("alias-1", "alias-2"):
        search.ask("PUT", f"/{index}", {"aliases": {"alias": {}}})
    sink = sink_to(search.url, tmp_path, index="alias")
    outcome = await sink.deliver([batch(1)])
    assert outcome.postponed[0].reason.endswith("to go on, give the alias a write index")
    actions = [{"add": {"index": "alias-2", "alias": "alias", "is_write_index": True}}]
    search.ask("POST", "/_aliases", {"actions": actions})
    assert await sink.deliver([batch(1)]) == DELIVERED
    await sink.close()


async def test_documents_pass_the_pipeline(search: Elasticsearch, tmp_path: Path) -> None:
    """Its processors are OpenSearch's only: this distribution of Elasticsearch has none."""
    sink = sink_to(search.url, tmp_path, index="piped", pipeline="mark", compress="gzip")
    outcome = await sink.deliver([batch(1, 2)])
    assert outcome.postponed[0].reason.endswith("to go on, make the ingest pipeline")
    processors: list[Any] = []
    if isinstance(search, OpenSearch):
        fails = {"fail": {"message": "not this one", "if": "ctx.message == 'line 2'"}}
        processors = [{"set": {"field": "marked", "value": True}}, fails]
    search.ask("PUT", "/_ingest/pipeline/mark", {"processors": processors})
    outcome = await sink.deliver([batch(1, 2)])
    await sink.close()
    if not isinstance(search, OpenSearch):
        assert outcome == DELIVERED
        return
    assert [each.record.message for each in outcome.rejected] == ["line 2"]
    assert "not this one" in outcome.rejected[0].reason
    search.ask("POST", "/piped/_refresh")
    hits = search.ask("GET", "/piped/_search")["hits"]["hits"]
    assert [hit["_source"]["marked"] for hit in hits] == [True]


def test_the_command_installs_the_template_and_a_data_stream_takes_each_record_once(
    search: Elasticsearch, tmp_path: Path
) -> None:
    config = tmp_path / "logroute.yaml"
    sink = {"type": "elasticsearch", "hosts": [search.url], "index": "streams-{compose.project|none}"}
    config.write_text(json.dumps({"routes": {"search": {"sink": sink}}}))
    command = ["elasticsearch", "template", "-c", str(config), "--name", "streams", "--data-stream"]
    if isinstance(search, OpenSearch):
        command.append("--opensearch")
    printed = CliRunner().invoke(main, command)
    assert printed.exit_code == 0
    said = CliRunner().invoke(main, [*command, "--install"])
    assert (said.exit_code, said.output) == (
        0,
        f"the template 'streams' for streams-* is at {search.url}\n",
    )
    [installed] = search.ask("GET", "/_index_template/streams")["index_templates"]
    wanted = json.loads(printed.output)
    assert installed["index_template"]["index_patterns"] == wanted["index_patterns"] == ["streams-*"]
    assert "data_stream" in installed["index_template"]

    async def twice() -> Outcome:
        sink = sink_to(search.url, tmp_path, index="streams-{compose.project|none}")
        assert await sink.deliver([batch(1, 2)]) == DELIVERED
        outcome = await sink.deliver([batch(1, 2, 3)])
        await sink.close()
        return outcome

    assert trio.run(twice) == Outcome(duplicates=2)
    found = search.documents("streams-shop")
    assert len(found) == 3
    assert all(each["_index"].startswith(".ds-streams-shop-") for each in found)


async def test_what_is_rejected_is_in_the_index_for_it(search: Elasticsearch, tmp_path: Path) -> None:
    mapping = {"properties": {"fields": {"properties": {"n": {"type": "long"}}}}}
    search.ask("PUT", "/strict-numbers", {"mappings": mapping})
    sink = sink_to(search.url, tmp_path, index="strict-numbers", dead_letter_index="rejected")
    records = [DetailedRecord("x", "stdout", time_of(n), fields={"n": ["x", 1][n]}) for n in range(2)]
    for duplicates in (0, 1):
        assert await sink.deliver([batch_of(records)]) == Outcome(kept=1, duplicates=duplicates)
    await sink.close()
    assert (search.count("strict-numbers"), search.count("rejected")) == (1, 1)


async def test_one_that_is_stopped_and_started_is_gone_on_with(search: Elasticsearch, tmp_path: Path) -> None:
    sink = sink_to(search.url, tmp_path, index="restarted")
    assert await sink.deliver([batch(1)]) == DELIVERED
    await trio.to_thread.run_sync(search.stop)
    with pytest.raises(Retryable):
        await sink.deliver([batch(2)])
    await trio.to_thread.run_sync(search.start)
    with trio.fail_after(60):
        while True:
            try:
                assert await sink.deliver([batch(1, 2)]) == Outcome(duplicates=1)
                break
            except Retryable:
                await trio.sleep(0.2)
    await sink.close()
    assert search.count("restarted") == 2


@pytest.fixture
def secure() -> Iterator[Elasticsearch]:
    with search_server(Elasticsearch, secure=True) as server:
        yield server


async def test_who_may_only_write_may_do_enough(secure: Elasticsearch, tmp_path: Path) -> None:
    writer = {"username": "writer", "password": PASSWORD}
    sink = sink_to(secure.url, tmp_path, index="logs-a", auth=writer)
    assert await sink.deliver([batch(1, 2)]) == DELIVERED
    assert await sink.deliver([batch(1, 2)]) == Outcome(duplicates=2)
    await sink.close()
    assert secure.count("logs-a") == 2
    sink = sink_to(secure.url, tmp_path, index="other", auth=writer)
    outcome = await sink.deliver([batch(1)])
    assert "unauthorized" in outcome.postponed[0].reason
    await sink.close()
    sink = sink_to(secure.url, tmp_path, auth={"username": "ada", "password": "wrong"})
    with pytest.raises(Retryable, match=r"401 Unauthorized.*what `auth` says is not accepted") as caught:
        await sink.deliver([batch(1)])
    assert "wrong" not in str(caught.value)
    await sink.close()


@pytest.mark.parametrize(
    ("auth", "sent"),
    [
        ({"api_key": "a2V5"}, "ApiKey a2V5"),
        ({"bearer": "token"}, "Bearer token"),
        ({"username": "ada", "password": "p"}, "Basic YWRhOnA="),
    ],
)
async def test_who_we_are_is_said_with_each_request(
    server: HttpServer, tmp_path: Path, auth: dict[str, str], sent: str
) -> None:
    server.behaviours.append(says(created(1)))
    sink = sink_to(server.url, tmp_path, auth=auth)
    await sink.deliver([batch(1)])
    await sink.close()
    assert server.requests[0].headers["authorization"] == sent
