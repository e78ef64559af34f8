"""GELF, as others read it: Graylog's library for Go by UDP, Tenzir by TCP and HTTP."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import pytest
import trio

from logroute.router.record import Batch, DetailedRecord, Record
from logroute.router.times import iso_time
from logroute.sinks import DELIVERED
from logroute.sinks.gelf import GelfOptions, GelfSink
from tests.servers.gelf_reader import GelfReader
from tests.servers.tenzir import GELF_HTTP, GELF_TCP, Tenzir
from tests.sinks.conftest import Making
from tests.sinks.test_contract import Context
from tests.sinks.test_gelf import TIME, WEB, batch

TIME_NS = 1795464386123456789
MANY = 200_000
Reading = Callable[[Literal["udp", "tcp"]], GelfReader]
COMPRESS = ["none", "gzip", "zlib"]

LEVELS = {
    "fatal": 2, "error": 3, "warn": 4, "notice": 5, "info": 6, "debug": 7, "trace": 7,
}  # fmt: skip
FIELDS = {
    "status": 401, "ratio": 1.5, "ok": True, "none": None, "deep": {"a": {"b": 1}}, "list": [1, "x"],
    "id": 3, "_id": 4, "host": "mine", "full_message": "the whole", "naïve key!": "odd",
}  # fmt: skip
"""What a record may have found out."""


def batches(count: int, each: int) -> Iterable[list[Batch]]:
    """So many lines with numbers, a microsecond apart."""
    for first in range(0, count, each):
        numbers = range(first, min(count, first + each))
        yield [batch(*[Record(f"line {n} of many", "stdout", iso_time(TIME_NS + n * 1000)) for n in numbers])]


def are_all(got: list[dict[str, Any]], count: int) -> None:
    """Each of `batches` once, in order, as it was sent."""
    assert [message["short_message"] for message in got] == [f"line {n} of many" for n in range(count)]
    for n, message in enumerate(got):
        # A double has some hundred nanoseconds to a step there.
        assert abs(message["timestamp"] * 1e6 - (TIME_NS / 1e3 + n)) < 0.5
    assert len({message["_record_id"] for message in got}) == count


def told() -> list[Record]:
    """A record of each level, the first with fields, and one of either stream without a level."""
    records: list[Record] = [
        DetailedRecord(f"as {level}", "stderr", iso_time(TIME_NS + n), level=level)
        for n, level in enumerate(LEVELS)
    ]
    records[0] = DetailedRecord("found out", "stderr", TIME, level="fatal", fields=FIELDS)
    odd = 'é \U0001f600 \x00 \n two \u2028 \\ " three'
    return [*records, Record(odd, "stdout", TIME), Record("", "stderr", iso_time(TIME_NS + 99))]


def are_as_told(got: list[dict[str, Any]]) -> None:
    records = told()
    texts = [record.message or "-" for record in records]
    assert [message["short_message"] for message in got] == texts
    assert [message["level"] for message in got] == [*LEVELS.values(), 6, 3]
    assert [message.get("_level_name") for message in got] == [*LEVELS, None, None]
    assert [message["_record_id"] for message in got] == [WEB.record_id(record) for record in records]
    for message in got:
        assert (message["version"], message["host"]) == ("1.1", "node")
        assert abs(message["timestamp"] - TIME_NS / 1e9) < 1e-6
        assert (message["_container_id"], message["_image_name"]) == ("c" * 64, "api:2")
        assert (message["_compose_project"], message["_label_team_name"]) == ("shop", "pay")
        assert (message["_label_id"], message["_label_com.docker.compose.project"]) == ("7", "shop")
        assert "_id" not in message
        assert not message.get("full_message"), "there is nothing that short_message has not"
        extra = message.keys() - {"version", "host", "short_message", "full_message", "timestamp", "level"}
        assert all(re.fullmatch(r"_[\w.\-]+", name, re.ASCII) for name in extra)
    first = got[0]
    names = ("_status", "_ratio", "_ok", "_deep.a.b", "_list", "_full_message", "_na_ve_key_")
    assert [first[name] for name in names] == [401, 1.5, "true", 1, '[1,"x"]', "the whole", "odd"]
    assert (first["_fields_id"], first["_fields_host"]) == (3, "mine")
    assert "_none" not in first


def flat(got: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the library has read, as it was in the messages."""
    return [message.pop("extra") | message for message in got]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(tmp_path)


def sink_to_port(transport: str, port: int, context: Context, **options: Any) -> GelfSink:
    address = f"{transport}://127.0.0.1:{port}"
    return GelfSink(GelfOptions.model_validate({"type": "gelf", "address": address, **options}), context)


# --- UDP ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", COMPRESS)
async def test_datagrams_are_read_as_they_were_sent(
    gelf_reader: Reading, context: Context, compress: str
) -> None:
    reader = gelf_reader("udp")
    sink = sink_to_port("udp", reader.port, context, compress=compress)
    records = told()
    assert await sink.deliver([batch(*records)]) == DELIVERED
    await sink.close()
    are_as_told(flat(await trio.to_thread.run_sync(reader.wait_for, len(records))))


@pytest.mark.parametrize("compress", COMPRESS)
async def test_chunks_are_put_together_up_to_the_largest_message(
    gelf_reader: Reading, context: Context, compress: str
) -> None:
    reader = gelf_reader("udp")
    sink = sink_to_port("udp", reader.port, context, compress=compress)
    noise = os.urandom(60_000).hex()
    # Of one chunk, of two, and so on; with noise, which is no smaller when it is compressed, of 128.
    texts = [noise[: 300 * n] for n in range(1, 100)] + [noise, "short"]
    assert await sink.deliver([batch(*[Record(text, "stdout", TIME) for text in texts])]) == DELIVERED
    got = await trio.to_thread.run_sync(reader.wait_for, len(texts))
    assert [message["short_message"] for message in got] == texts
    large = os.urandom(1 << 18).hex()
    assert (
        await sink.deliver([batch(Record(large, "stdout", TIME), Record("after", "stdout", TIME))])
        == DELIVERED
    )
    await sink.close()
    cut, after = (await trio.to_thread.run_sync(reader.wait_for, len(texts) + 2))[-2:]
    kept = cut["short_message"].removesuffix(" [truncated]")
    assert large.startswith(kept)
    assert len(kept) > 128 * 1200
    assert after["short_message"] == "after"


@pytest.mark.parametrize("compress", COMPRESS)
async def test_every_one_of_many_datagrams_is_there(
    gelf_reader: Reading, context: Context, compress: str
) -> None:
    """By UDP nobody says that it is too much: so many are under way as the reader's buffer holds."""
    reader = gelf_reader("udp")
    sink = sink_to_port("udp", reader.port, context, compress=compress)
    count = MANY // 2 if compress == "none" else MANY // 10
    half, sent = (2_500 if os.geteuid() == 0 else 100), 0
    for each in batches(count, half):
        assert await sink.deliver(each) == DELIVERED
        sent += len(each[0])
        await trio.to_thread.run_sync(reader.wait_until, sent - half)
    await sink.close()
    are_all(flat(reader.wait_for(count)), count)


# --- TCP ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["graylog", "tenzir"])
async def test_messages_of_a_stream_are_read_as_they_were_sent(
    gelf_reader: Reading, tenzir: Callable[[str], Tenzir], context: Context, whose: str
) -> None:
    """For Graylog's library a NUL alone ends a message; Tenzir takes any two apart."""
    server = gelf_reader("tcp") if whose == "graylog" else tenzir(GELF_TCP)
    sink = sink_to_port("tcp", server.port, context)
    records = told()
    large = Record("x" * 1_000_000, "stdout", TIME)
    assert await sink.deliver([batch(*records), batch(large)]) == DELIVERED
    assert await sink.deliver([batch(*records)]) == DELIVERED
    await sink.close()
    got = await trio.to_thread.run_sync(server.wait_for, 2 * len(records) + 1)
    if whose == "graylog":
        got = flat(got)
    are_as_told(got[: len(records)])
    assert got[len(records)]["short_message"] == large.message
    are_as_told(got[len(records) + 1 :])


async def test_every_one_of_many_messages_of_a_stream_is_there(
    tenzir: Callable[[str], Tenzir], context: Context
) -> None:
    server = tenzir(GELF_TCP)
    sink = sink_to_port("tcp", server.port, context)
    for each in batches(MANY, 2_500):
        assert await sink.deliver(each) == DELIVERED
    await sink.close()
    are_all(await trio.to_thread.run_sync(server.wait_for, MANY), MANY)


# --- HTTP ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bulk", [True, False])
async def test_messages_of_requests_are_read_as_they_were_sent(
    tenzir: Callable[[str], Tenzir], sink_to: Making, bulk: bool
) -> None:
    """Of many in a request Tenzir warns: in Graylog, too, that is for an input that is told to take them."""
    server = tenzir(GELF_HTTP)
    url = f"http://127.0.0.1:{server.port}"
    sink = await sink_to(url, encoding="gelf", gelf={"bulk": bulk}, compress="gzip")
    records = told()
    assert await sink.deliver([batch(*records)]) == DELIVERED
    are_as_told(await trio.to_thread.run_sync(server.wait_for, len(records)))
