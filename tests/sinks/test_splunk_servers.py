"""Splunk's HTTP Event Collector, as Tenzir reads it; what acknowledges is `splunk_acks`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any

import pytest
import trio

from logroute.router.position import BEGINNING
from logroute.router.record import Batch, DetailedRecord, Origin, Record
from logroute.router.times import iso_time
from logroute.sinks import DELIVERED, Retryable
from logroute.sinks.http import HttpSink
from tests.servers.splunk_acks import Acknowledging
from tests.servers.tenzir import SPLUNK, SPLUNK_ACK, TOKEN, Tenzir
from tests.sinks.conftest import Making

WEB = Origin("docker:web", "docker", id="c" * 64, name="web", host="node", runtime="docker")
SHOP = {"com.docker.compose.project": "shop", "com.docker.compose.service": "db"}
DB = Origin("docker:db", "docker", id="d" * 64, name="db", host="node", runtime="docker", labels=SHOP)
TIME = "2026-11-23T20:06:26.123456789Z"
TIME_NS = 1795464386123456789
MANY = 100_000
EACH = 10_000


def batch(*records: Record, of: Origin = WEB) -> Batch:
    return Batch(of, list(records), before=BEGINNING, after=BEGINNING, size_bytes=100)


def saying(*texts: str) -> Batch:
    return batch(*[Record(text, "stdout", TIME) for text in texts])


def deliveries(count: int) -> Iterable[list[Batch]]:
    """So many lines with numbers, a microsecond apart, in batches of two containers."""
    for first in range(0, count, EACH):
        numbers = range(first, min(count, first + EACH))
        records = [Record(f"line {n} of many", "stdout", iso_time(TIME_NS + n * 1000)) for n in numbers]
        half = len(records) // 2
        yield [batch(*records[:half]), batch(*records[half:], of=DB)]


def time_ns(text: str) -> int:
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}Z").timestamp()) * 10**9 + int(fraction.ljust(9, "0"))


def are_all(events: list[dict[str, Any]], count: int) -> None:
    """Each of `deliveries` once, as it was sent."""
    events.sort(key=lambda event: int(event["event"].split()[1]))
    assert [event["event"] for event in events] == [f"line {n} of many" for n in range(count)]
    # A double has some hundred nanoseconds to a step there.
    assert max(abs(time_ns(event["time"]) - TIME_NS - n * 1000) for n, event in enumerate(events)) < 300
    ids = {event["fields"]["id"] for event in events}
    assert len(ids) == count
    for event in events:
        of = {"web": WEB, "db": DB}[event["source"]]
        assert event["fields"]["container_id"] == of.id


ToServer = Callable[..., Awaitable[HttpSink]]


@pytest.fixture
def to_server(sink_to: Making) -> ToServer:
    async def make(port: int, **options: Any) -> HttpSink:
        return await sink_to(f"http://127.0.0.1:{port}", encoding="splunk", **{"token": TOKEN, **options})

    return make


@pytest.mark.parametrize("compress", ["none", "gzip"])
async def test_events_are_read_as_they_were_sent(
    tenzir: Callable[[str], Tenzir], to_server: ToServer, compress: str
) -> None:
    server = tenzir(SPLUNK)
    sink = await to_server(
        server.port, compress=compress, splunk={"index": "logs-{stream}", "sourcetype": "x"}
    )
    odd = 'é \U0001f600 \x00 \n two \u2028 \\ " three'
    told = DetailedRecord("told", "stderr", TIME, level="warn", fields={"k": [1]})
    assert await sink.deliver([batch(Record(odd, "stdout", TIME), told), batch(told, of=DB)]) == DELIVERED
    first, second, third = await trio.to_thread.run_sync(server.wait_for, 3)
    assert abs(time_ns(first.pop("time")) - TIME_NS) < 300
    del first["receiver"]  # who sent it
    assert first == {
        "event": odd,
        "fields": {
            "id": WEB.record_id(Record(odd, "stdout", TIME)), "stream": "stdout",
            "container_id": "c" * 64, "container_name": "web",
        },
        "host": "node", "source": "web", "sourcetype": "x", "index": "logs-stdout",
    }  # fmt: skip
    assert (second["event"], second["index"], second["fields"]["stream"]) == ("told", "logs-stderr", "stderr")
    assert third["fields"].items() >= {"compose_project": "shop", "compose_service": "db"}.items()


async def test_whole_records_and_blank_ones_are_objects(
    tenzir: Callable[[str], Tenzir], to_server: ToServer
) -> None:
    server = tenzir(SPLUNK)
    told = DetailedRecord("told", "stderr", TIME, level="warn", fields={"status": 401, "deep": [{"k": 1.5}]})
    sink = await to_server(server.port, splunk={"format": "json"})
    assert await sink.deliver([batch(told)]) == DELIVERED
    (event,) = [each["event"] for each in await trio.to_thread.run_sync(server.wait_for, 1)]
    assert (event["message"], event["log"]) == ("told", {"level": "warn"})
    assert event["fields"] == {"status": 401, "deep": [{"k": 1.5}]}
    # It takes no blank event, as Splunk does not.
    assert await (await to_server(server.port)).deliver([saying("", " \t")]) == DELIVERED
    blank = (await trio.to_thread.run_sync(server.wait_for, 3))[1:]
    assert [each["event"] for each in blank] == [{"message": ""}, {"message": " \t"}]


async def test_every_one_of_many_is_there_once(tenzir: Callable[[str], Tenzir], to_server: ToServer) -> None:
    server = tenzir(SPLUNK)
    sink = await to_server(server.port)
    for each in deliveries(MANY):
        assert await sink.deliver(each) == DELIVERED
    are_all(await trio.to_thread.run_sync(server.wait_for, MANY), MANY)


@pytest.mark.parametrize(
    ("token", "said"),
    [("no-token", "403 Forbidden.*Invalid token"), (None, "401 Unauthorized.*Token is required")],
)
async def test_a_token_that_it_does_not_know_is_put_right_by_people(
    tenzir: Callable[[str], Tenzir], to_server: ToServer, token: str | None, said: str
) -> None:
    server = tenzir(SPLUNK)
    with pytest.raises(Retryable, match=said):
        await (await to_server(server.port, token=token)).deliver([saying("a")])
    assert await (await to_server(server.port)).deliver([saying("b")]) == DELIVERED
    assert [each["event"] for each in await trio.to_thread.run_sync(server.wait_for, 1)] == ["b"]


async def test_a_compression_that_it_does_not_know_loses_nothing(
    tenzir: Callable[[str], Tenzir], to_server: ToServer
) -> None:
    with pytest.raises(Retryable, match="415 Unsupported Media Type"):
        await (await to_server(tenzir(SPLUNK).port, compress="zstd")).deliver([saying("a")])


# --- acknowledgement ----------------------------------------------------------------------------------


async def test_what_it_never_acknowledges_is_not_delivered(
    tenzir: Callable[[str], Tenzir], to_server: ToServer
) -> None:
    """The channel, the id and the question are understood: otherwise it would answer something else."""
    server = tenzir(SPLUNK_ACK)
    sink = await to_server(server.port, splunk={"ack": True, "ack_timeout": "1s"})
    for _ in range(2):
        with pytest.raises(Retryable, match="not confirmed within 1 s: it has not said that it is safe"):
            await sink.deliver([saying("a")])
    got = await trio.to_thread.run_sync(server.wait_for, 2)
    assert len({each["receiver"]["channel"] for each in got}) == 2


async def test_acknowledgement_is_asked_for_only_where_there_is_one(
    tenzir: Callable[[str], Tenzir], to_server: ToServer
) -> None:
    with pytest.raises(Retryable, match="enable indexer acknowledgement for the token"):
        await (await to_server(tenzir(SPLUNK).port, splunk={"ack": True})).deliver([saying("a")])


async def test_without_a_channel_nothing_is_taken_that_is_to_be_acknowledged(
    tenzir: Callable[[str], Tenzir], to_server: ToServer
) -> None:
    with pytest.raises(Retryable, match=r"Data channel is missing.*not about the events"):
        await (await to_server(tenzir(SPLUNK_ACK).port)).deliver([saying("a")])


@pytest.mark.parametrize("compress", ["none", "gzip"])
async def test_every_one_of_many_is_acknowledged_and_there_once(
    tenzir: Callable[[str], Tenzir], to_server: ToServer, compress: str
) -> None:
    count = MANY if compress == "none" else EACH * 4
    with Acknowledging(tenzir(SPLUNK_ACK)) as acknowledging:
        sink = await to_server(acknowledging.port, splunk={"ack": True}, compress=compress)
        send, receive = trio.open_memory_channel[list[Batch]](0)

        async def deliver() -> None:
            async for each in receive:
                assert await sink.deliver(each) == DELIVERED

        async with trio.open_nursery() as nursery:
            for _ in range(sink.concurrency):
                nursery.start_soon(deliver)
            for each in deliveries(count):
                await send.send(each)
            await send.aclose()
        # All are there, without waiting.
        assert acknowledging.server.count() == count
        assert acknowledging.asked >= count // EACH
        events = acknowledging.server.wait_for(count)
    assert len({event["receiver"]["channel"] for event in events}) == sink.concurrency
    are_all(events, count)
