"""The Elasticsearch sink and its command against a real Elasticsearch and a real OpenSearch."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result

from logroute.cli import main
from logroute.router.record import DetailedRecord, Origin, Record
from logroute.sinks import DELIVERED, Outcome, Retryable
from logroute.sinks.elasticsearch_template import index_template
from tests.conftest import missing
from tests.servers.elasticsearch import PASSWORD, Elasticsearch, OpenSearch
from tests.sinks.test_elasticsearch import DB, WEB, batch, batch_of, sink_to, time_of


@pytest.fixture(params=[Elasticsearch, OpenSearch], scope="module")
def search(request: pytest.FixtureRequest) -> Iterator[Elasticsearch]:
    yield from running(request.param)


def running(kind: type[Elasticsearch], **options: Any) -> Iterator[Elasticsearch]:
    if reason := kind.unavailable():
        missing(reason)
    # Not below pytest's folder, which only its user can read.
    folder = Path(tempfile.mkdtemp(prefix="logroute-search-", dir="/var/tmp"))
    server = kind(folder, **options)
    try:
        server.start()
        body = index_template(["plain", "piped", "buried"], opensearch=kind is OpenSearch)
        server.ask("PUT", "/_index_template/logroute", body)
        yield server
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


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
    found = list(search.documents("plain"))
    assert len(found) == 1002
    first = next(each for each in found if each["_id"] == WEB.record_id(records[0]))["_source"]
    assert first["message"] == records[0].message
    assert first["@timestamp"] == time_of(1)
    times = [(each["_source"]["@timestamp"], *each["fields"]["@timestamp"]) for each in found]
    assert all(said == indexed for said, indexed in times)
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


async def test_a_value_that_is_too_long_for_a_term_is_stored_or_rejected_alone(
    search: Elasticsearch, tmp_path: Path
) -> None:
    """`flattened` has a bound for what it indexes; OpenSearch's `flat_object` has none."""
    sink = sink_to(search.url, tmp_path, index="plain")
    long = DetailedRecord("long", "stdout", time_of(5001), fields={"long": "x" * 40_000})
    outcome = await sink.deliver([batch_of([long]), batch(5002)])
    await sink.close()
    if isinstance(search, OpenSearch):
        [rejected] = outcome.rejected
        assert rejected.record.message == "long"
        assert "immense term" in rejected.reason
    else:
        assert outcome == DELIVERED


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


async def test_a_data_stream_is_made_and_has_each_record_once(search: Elasticsearch, tmp_path: Path) -> None:
    body = index_template(["stream-*"], opensearch=isinstance(search, OpenSearch), data_stream=True)
    search.ask("PUT", "/_index_template/streams", body)
    sink = sink_to(search.url, tmp_path, index="stream-{container.name}")
    assert await sink.deliver([batch(1, 2), batch(3, origin=DB)]) == DELIVERED
    assert await sink.deliver([batch(1, 2, 4), batch(3, origin=DB)]) == Outcome(duplicates=3)
    await sink.close()
    # The distribution of Elasticsearch has data streams, and no way to ask for one.
    [backing] = search.ask("GET", "/stream-web/_mapping")
    assert backing.startswith(".ds-stream-web-")
    assert (search.count("stream-web"), search.count("stream-db")) == (3, 1)


async def test_documents_pass_the_pipeline(search: Elasticsearch, tmp_path: Path) -> None:
    sink = sink_to(search.url, tmp_path, index="piped", pipeline="made-later")
    outcome = await sink.deliver([batch(1, 2)])
    assert len(outcome.postponed) == 2
    assert "index piped: illegal_argument_exception: pipeline with id [made-later]" in str(
        outcome.postponed[0].reason
    )
    # The distribution of Elasticsearch has no processors.
    processors = [{"set": {"field": "passed", "value": "yes"}}] if isinstance(search, OpenSearch) else []
    search.ask("PUT", "/_ingest/pipeline/made-later", {"processors": processors})
    assert await sink.deliver([batch(1, 2)]) == DELIVERED
    await sink.close()
    passed = [document["_source"].get("passed") for document in search.documents("piped")]
    assert passed == (["yes", "yes"] if processors else [None, None])


async def test_a_pipeline_that_fails_says_it_of_the_record(search: Elasticsearch, tmp_path: Path) -> None:
    if not isinstance(search, OpenSearch):
        pytest.skip("the distribution of Elasticsearch has no processors")
    processors = [{"rename": {"field": "fields.user", "target_field": "user"}}]
    search.ask("PUT", "/_ingest/pipeline/renames", {"processors": processors})
    sink = sink_to(search.url, tmp_path, index="renamed", pipeline="renames")
    with_user = DetailedRecord("with", "stdout", time_of(2), fields={"user": "ada"})
    outcome = await sink.deliver([batch_of([Record("without", "stdout", time_of(1)), with_user])])
    await sink.close()
    assert [each.record.message for each in outcome.rejected] == ["without"]
    assert "illegal_argument_exception: field [fields.user] doesn't exist" in outcome.rejected[0].reason
    assert not outcome.postponed
    assert search.count("renamed") == 1


async def test_requests_that_are_compressed_are_understood(search: Elasticsearch, tmp_path: Path) -> None:
    sink = sink_to(search.url, tmp_path, index="compressed", compress="gzip")
    assert await sink.deliver([batch(*range(500))]) == DELIVERED
    assert await sink.deliver([batch(*range(501))]) == Outcome(duplicates=500)
    await sink.close()
    assert search.count("compressed") == 501


async def test_what_people_put_right_is_waited_for(search: Elasticsearch, tmp_path: Path) -> None:
    """A closed index, one that nobody may make, an alias that says not where, and too many shards."""

    async def waits(index: str, words: str) -> None:
        sink = sink_to(search.url, tmp_path, index=index)
        outcome = await sink.deliver([batch(1), batch(2, origin=DB)])
        await sink.close()
        assert not outcome.rejected
        assert [each.record.message for each in outcome.postponed] == ["line 1", "line 2"]
        assert f"index {index}: {words}" in outcome.postponed[0].reason

    async def goes_on(index: str) -> None:
        sink = sink_to(search.url, tmp_path, index=index)
        assert await sink.deliver([batch(1), batch(2, origin=DB)]) == DELIVERED
        await sink.close()

    def set_up(name: str, value: Any) -> None:
        search.ask("PUT", "/_cluster/settings", {"persistent": {name: value}})

    search.ask("PUT", "/closed")
    search.ask("POST", "/closed/_close")
    await waits("closed", "index_closed_exception: closed; open it")
    search.ask("POST", "/closed/_open")
    await goes_on("closed")

    set_up("action.auto_create_index", "false")
    await waits("nobodys", "index_not_found_exception: no such index [nobodys]")
    set_up("action.auto_create_index", None)
    await goes_on("nobodys")

    set_up("cluster.max_shards_per_node", 1)
    await waits("one-more", "validation_exception: Validation Failed: 1: this action would add")
    set_up("cluster.max_shards_per_node", None)
    await goes_on("one-more")

    search.ask("PUT", "/first", {"aliases": {"both": {}}})
    search.ask("PUT", "/second", {"aliases": {"both": {}}})
    await waits("both", "illegal_argument_exception: no write index is defined for alias [both]")
    actions = [{"add": {"index": "second", "alias": "both", "is_write_index": True}}]
    search.ask("POST", "/_aliases", {"actions": actions})
    await goes_on("both")

    search.ask("PUT", "/full", {"settings": {"index.blocks.read_only_allow_delete": True}})
    await waits("full", "cluster_block_exception: index [full] blocked by: [TOO_MANY_REQUESTS/12/disk usage")
    search.ask("PUT", "/full/_settings", {"index.blocks.read_only_allow_delete": None})
    await goes_on("full")


async def test_a_cluster_that_is_read_only_is_waited_for(search: Elasticsearch, tmp_path: Path) -> None:
    sink = sink_to(search.url, tmp_path, index="frozen")
    search.ask("PUT", "/_cluster/settings", {"persistent": {"cluster.blocks.read_only": True}})
    try:
        with pytest.raises(Retryable, match="cluster_block_exception"):
            await sink.deliver([batch(1)])
    finally:
        search.ask("PUT", "/_cluster/settings", {"persistent": {"cluster.blocks.read_only": None}})
    assert await sink.deliver([batch(1)]) == DELIVERED
    await sink.close()


async def test_what_is_rejected_is_in_the_index_for_it(search: Elasticsearch, tmp_path: Path) -> None:
    of_fields = {"properties": {"n": {"type": "long"}}}
    search.ask("PUT", "/strict", {"mappings": {"properties": {"fields": of_fields}}})
    sink = sink_to(search.url, tmp_path, index="strict", dead_letter_index="buried")
    records = [
        DetailedRecord(f"line {n}", "stdout", time_of(n), fields={"n": "x" if n == 1 else n})
        for n in range(3)
    ]
    for there in (0, 2):
        outcome = await sink.deliver([batch_of(records)])
        assert [(each.record.message, each.kept) for each in outcome.rejected] == [("line 1", True)]
        assert (outcome.duplicates, outcome.postponed) == (there, ())
    await sink.close()
    [buried] = search.documents("buried")
    assert "failed to parse field [fields.n]" in buried["_source"]["error"]["message"]
    assert json.loads(buried["_source"]["event"]["original"])["fields"] == {"n": "x"}


def template_command(folder: Path, sink: dict[str, Any], *arguments: str) -> Result:
    config = folder / "logroute.yaml"
    config.write_text(json.dumps({"routes": {"all": {"sink": {"type": "elasticsearch", **sink}}}}))
    return CliRunner().invoke(main, ["elasticsearch", "template", "-c", str(config), *arguments])


def test_the_command_prints_a_template_and_installs_it(search: Elasticsearch, tmp_path: Path) -> None:
    sink = {"hosts": [search.url], "index": "made-{time:%Y.%m.%d}"}
    make = ["--opensearch"] if isinstance(search, OpenSearch) else []
    printed = template_command(tmp_path, sink, *make)
    assert printed.exit_code == 0
    installed = template_command(tmp_path, sink, "--install", "--name", "made", *make)
    assert installed.exit_code == 0, installed.stderr
    assert installed.stdout == f"the template 'made' for made-* is at {search.url}\n"
    [found] = search.ask("GET", "/_index_template/made")["index_templates"]
    assert found["index_template"]["index_patterns"] == json.loads(printed.stdout)["index_patterns"]
    search.ask("PUT", "/made-1")
    [index] = search.ask("GET", "/made-1/_mapping").values()
    assert index["mappings"]["properties"]["@timestamp"] == {"type": "date_nanos"}


def test_a_template_of_the_wrong_make_is_refused_with_a_hint(search: Elasticsearch, tmp_path: Path) -> None:
    if not isinstance(search, OpenSearch):
        pytest.skip("it is OpenSearch that does not know `flattened`")
    said = template_command(tmp_path, {"hosts": [search.url], "index": "made"}, "--install")
    assert said.exit_code == 1
    assert "is it OpenSearch? Say --opensearch" in said.stderr


@pytest.fixture(scope="module")
def secure() -> Iterator[Elasticsearch]:
    yield from running(Elasticsearch, secure=True)


async def test_who_may_only_write_may_do_enough(secure: Elasticsearch, tmp_path: Path) -> None:
    writer = {"username": "writer", "password": PASSWORD}
    tls = {"ca": str(secure.ca)}
    sink = sink_to(secure.url, tmp_path, index="logs-a", auth=writer, tls=tls)
    assert await sink.deliver([batch(1, 2)]) == DELIVERED
    assert await sink.deliver([batch(1, 2)]) == Outcome(duplicates=2)
    await sink.close()
    assert secure.count("logs-a") == 2
    sink = sink_to(secure.url, tmp_path, index="other", auth=writer, tls=tls)
    outcome = await sink.deliver([batch(1)])
    assert "unauthorized" in outcome.postponed[0].reason
    await sink.close()
    sink = sink_to(secure.url, tmp_path, auth={"username": "ada", "password": "wrong"}, tls=tls)
    with pytest.raises(Retryable, match=r"401 Unauthorized.*what `auth` says is not accepted") as caught:
        await sink.deliver([batch(1)])
    assert "wrong" not in str(caught.value)
    await sink.close()


async def test_a_key_that_may_only_write_is_enough(secure: Elasticsearch, tmp_path: Path) -> None:
    if reason := secure.makes_no_api_keys():
        missing(reason)
    key = secure.api_key("logs-*")
    tls = {"ca": str(secure.ca)}
    sink = sink_to(secure.url, tmp_path, index="logs-key", auth={"api_key": key}, tls=tls)
    assert await sink.deliver([batch(1, 2)]) == DELIVERED
    assert await sink.deliver([batch(1, 2, 3)]) == Outcome(duplicates=2)
    await sink.close()
    assert secure.count("logs-key") == 3
    sink = sink_to(secure.url, tmp_path, index="other", auth={"api_key": key}, tls=tls)
    outcome = await sink.deliver([batch(1)])
    await sink.close()
    assert "security_exception" in outcome.postponed[0].reason
    assert key not in outcome.postponed[0].reason
    secure.ask("DELETE", "/_security/api_key", {"name": "writer"})
    sink = sink_to(secure.url, tmp_path, index="logs-key", auth={"api_key": key}, tls=tls)
    with pytest.raises(Retryable, match="401 Unauthorized") as caught:
        await sink.deliver([batch(4)])
    await sink.close()
    assert key not in str(caught.value)


async def test_a_server_that_is_not_who_it_says_gets_nothing(secure: Elasticsearch, tmp_path: Path) -> None:
    auth = {"username": "writer", "password": PASSWORD}
    sink = sink_to(secure.url, tmp_path, index="logs-b", auth=auth)
    with pytest.raises(Retryable, match="certificate"):
        await sink.deliver([batch(1)])
    await sink.close()
    by_name = secure.url.replace("127.0.0.1", "localhost")
    sink = sink_to(by_name, tmp_path, index="logs-b", auth=auth, tls={"ca": str(secure.ca)})
    with pytest.raises(Retryable, match="localhost"):
        await sink.deliver([batch(1)])
    await sink.close()
    sink = sink_to(by_name, tmp_path, index="logs-b", auth=auth, tls={"verify": False})
    assert await sink.deliver([batch(1)]) == DELIVERED
    await sink.close()
    assert secure.count("logs-b") == 1


def test_the_command_says_who_we_are(secure: Elasticsearch, tmp_path: Path) -> None:
    sink = {"hosts": [secure.url], "index": "logs-{time:%Y}", "tls": {"ca": str(secure.ca)}}
    admin = {"username": "admin", "password": PASSWORD}
    assert template_command(tmp_path, {**sink, "auth": admin}, "--install").exit_code == 0
    writer = {"username": "writer", "password": PASSWORD}
    said = template_command(tmp_path, {**sink, "auth": writer}, "--install")
    assert said.exit_code == 1
    assert "403" in said.stderr
    assert PASSWORD not in said.stderr
