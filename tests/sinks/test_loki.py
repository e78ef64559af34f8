"""Loki's push protocol: streams by labels, what Loki's refusals mean, and a real Loki."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from logroute.router.position import BEGINNING
from logroute.router.record import Batch, DetailedRecord, Origin, Record, Stream
from logroute.sinks import DELIVERED, Outcome, Refused, Retryable, loki_push
from logroute.sinks.loki_push import BODY_BYTES, FORGOTTEN_S, LokiEncoding, LokiOptions
from logroute.sinks.loki_refusals import parse_labels, refusals
from tests.servers.loki import Loki
from tests.sinks.conftest import Making
from tests.sinks.http_server import HttpServer, Request, answer

WEB = Origin(
    "docker:web",
    "docker",
    id="c" * 64,
    name="web",
    host="node",
    labels={"com.docker.compose.project": "shop"},
)
TIME, TIME_NS = "2026-11-23T20:06:26.123456789Z", "1795464386123456789"


def batch(*records: Record, of: Origin = WEB) -> Batch:
    return Batch(of, list(records), before=BEGINNING, after=BEGINNING, size_bytes=100)


def line(text: str, at: str = TIME, stream: Stream = "stdout") -> Record:
    return Record(text, stream, at)


def encoding(**options: Any) -> LokiEncoding:
    made = LokiEncoding(LokiOptions.model_validate(options))
    made.clock = lambda: 0.0
    return made


def pushed(made: LokiEncoding, *batches: Batch) -> list[tuple[dict[str, str], list[list[Any]]]]:
    return [(each["stream"], each["values"]) for each in json.loads(made.encode(batches))["streams"]]


# --- streams ------------------------------------------------------------------------------------------


def test_a_stream_is_what_has_the_same_labels() -> None:
    db = Origin("docker:db", "docker", id="d" * 64, name="db")
    batches = [batch(line("a"), line("b", stream="stderr")), batch(line("c"), of=db), batch(line("d"))]
    web = {"container": "web", "compose_project": "shop", "host": "node"}
    assert pushed(encoding(), *batches) == [
        ({**web, "stream": "stdout"}, [[TIME_NS, "a"], [TIME_NS, "d"]]),
        ({**web, "stream": "stderr"}, [[TIME_NS, "b"]]),
        ({"container": "db", "stream": "stdout"}, [[TIME_NS, "c"]]),
    ]


def test_labels_may_be_of_the_record() -> None:
    made = encoding(labels={"job": "logs", "level": "{level|}", "user": "{fields.user|}"})
    told = DetailedRecord("a", "stdout", TIME, level="warn", fields={"user": "ada"})
    assert pushed(made, batch(told, line("b"), told)) == [
        ({"job": "logs", "level": "warn", "user": "ada"}, [[TIME_NS, "a"], [TIME_NS, "a"]]),
        ({"job": "logs"}, [[TIME_NS, "b"]]),
    ]


def test_an_origin_without_any_label_has_one_that_says_so() -> None:
    made = encoding(labels={"project": "{compose.project|}"})
    nameless = Origin("file:/x", "file")
    assert pushed(made, batch(line("a"), of=nameless)) == [({"logroute": "no_labels"}, [[TIME_NS, "a"]])]


def test_metadata_and_format_are_the_users() -> None:
    made = encoding(
        labels={"job": "x"}, metadata={"id": "{id}", "none": "{level|}"}, format="{stream}: {message}"
    )
    ((_, values),) = pushed(made, batch(line("a")))
    assert values == [[TIME_NS, "stdout: a", {"id": f"{'c' * 12}-o{TIME}"}]]


def test_label_sets_have_a_bound_and_what_exceeds_it_is_told_once() -> None:
    made = encoding(labels={"container": "{container.name}"}, max_label_sets=2)
    origins = [Origin(f"docker:{n}", "docker", id=str(n) * 64, name=f"c{n}") for n in range(4)]
    batches = [batch(line("a"), line("b"), of=each) for each in origins]
    streams = [labels for labels, _ in pushed(made, *batches)]
    assert streams == [{"container": "c0"}, {"container": "c1"}, {"logroute": "too_many_label_sets"}]
    assert made.overflowed == 4
    ((event, details),) = made.take_notes()
    assert "too many label sets" in event
    assert details["records"] == 4
    assert made.take_notes() == ()
    # Loki has closed the streams that were not used for long: there is room for others.
    made.clock = lambda: FORGOTTEN_S
    assert [labels for labels, _ in pushed(made, batches[3])] == [{"container": "c3"}]


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(max_size=20)), max_size=20))
def test_every_line_is_there_once_in_the_order_of_its_stream(lines: list[tuple[Stream, str]]) -> None:
    made = encoding(labels={"stream": "{stream}"})
    body = made.encode([batch(*(line(text, stream=stream) for stream, text in lines))])
    got = {each["stream"]["stream"]: [text for _, text in each["values"]] for each in streams_of(body)}
    for stream in ("stdout", "stderr"):
        assert got.get(stream, []) == [text for of, text in lines if of == stream]


def streams_of(body: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(body)["streams"] if body else []
    return found


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": {}}, "write at least one"),
        ({"labels": {"a-b": "c"}}, "'a-b' is no name"),
        ({"metadata": {"1a": "c"}}, "'1a' is no name"),
        ({"labels": {"a": "{nothing.such}"}}, "nothing.such"),
        ({"format": "xml"}, "unknown format 'xml'"),
        ({"tenant": "a b"}, "printable ASCII without spaces"),
        ({"max_label_sets": 0}, "greater than or equal to 1"),
    ],
)
def test_mistakes(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said.replace("(", r"\(")):
        LokiOptions.model_validate(options)


# --- answers ------------------------------------------------------------------------------------------


async def test_requests_are_as_loki_wants_them(server: HttpServer, sink_to: Making) -> None:
    sink = await sink_to(server.url, encoding="loki", loki={"tenant": "shop"}, compress="gzip")
    server.otherwise = answer(204)
    assert await sink.deliver([batch(line("a"))]) == DELIVERED
    (request,) = server.requests
    assert request.target == "/loki/api/v1/push"
    assert request.headers["x-scope-orgid"] == "shop"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["content-encoding"] == "gzip"


async def test_a_request_has_one_stream(server: HttpServer, sink_to: Making) -> None:
    """Of several, Loki tells what became of the last one only."""
    db = Origin("docker:db", "docker", id="d" * 64, name="db")
    given = [batch(line("a"), line("b", stream="stderr")), batch(line("c"), of=db), batch(line("d"))]
    assert await (await sink_to(server.url, encoding="loki")).deliver(given) == DELIVERED
    texts = [[text for each in streams_of(body) for _, text in each["values"]] for body in server.bodies]
    assert texts == [["a", "d"], ["b"], ["c"]]
    together = await sink_to(server.url, encoding="loki", loki={"together": True})
    assert await together.deliver(given) == DELIVERED
    assert len(server.bodies) == 4
    assert len(streams_of(server.bodies[-1])) == 3


async def test_streams_that_were_taken_before_a_failure_are_not_sent_again(
    server: HttpServer, sink_to: Making
) -> None:
    sink = await sink_to(server.url, encoding="loki")
    server.behaviours += [answer(204), answer(429, b"slow down", retry_after="2")]
    db = Origin("docker:db", "docker", id="d" * 64, name="db")
    given = [batch(line("a"), line("b", stream="stderr")), batch(line("c"), of=db), batch(line("d"))]
    outcome = await sink.deliver(given)
    assert [(each.batch, each.record.message) for each in outcome.postponed] == [(0, "b"), (1, "c")]
    assert outcome.after_s == 2


async def test_a_delivery_of_many_streams_ends_within_its_deadline(
    server: HttpServer, sink_to: Making, autojump_clock: trio.testing.MockClock
) -> None:
    async def slowly(stream: trio.SocketStream, request: Request) -> None:
        await trio.sleep(4)
        await answer(204)(stream, request)

    server.otherwise = slowly
    sink = await sink_to(server.url, encoding="loki")
    origins = [Origin(f"docker:{n}", "docker", id=str(n) * 64, name=f"c{n}") for n in range(6)]
    outcome = await sink.deliver([batch(line(each.name), of=each) for each in origins])
    assert [each.record.message for each in outcome.postponed] == ["c3", "c4", "c5"]
    assert outcome.postponed[0].reason.endswith("is slow: 3 of 6 requests took 10 s")


async def test_a_stream_that_is_refused_is_halved_without_the_others(
    server: HttpServer, sink_to: Making
) -> None:
    sink = await sink_to(server.url, encoding="loki")
    refusal = answer(400, b"no")
    server.behaviours += [refusal, answer(204)]
    given = [batch(line("a"), line("b", stream="stderr"), line("c"))]
    outcome = await sink.deliver(given)
    assert [(each.batch, each.record.message) for each in outcome.postponed] == [(0, "a"), (0, "c")]
    server.behaviours += [refusal]
    with pytest.raises(Refused, match="answered 400 Bad Request: no"):
        await sink.deliver([batch(line("a"), line("c"))])
    # One line of its own is known already, and if nothing became of any, all is halved.
    server.behaviours += [refusal, answer(204)]
    outcome = await sink.deliver([batch(line("a"), line("b", stream="stderr"))])
    assert (rejected(outcome), outcome.postponed) == ([(0, "a")], ())
    server.behaviours += [refusal, refusal]
    with pytest.raises(Refused):
        await sink.deliver([batch(*(line(text, stream=s) for text in "ab" for s in ("stdout", "stderr")))])


async def test_no_request_is_larger_than_what_loki_hands_on(server: HttpServer, sink_to: Making) -> None:
    """A short line as JSON has all that is known of its container."""
    labels = {f"org.example.label-{number}": "a value of some length" for number in range(50)}
    shop = Origin("docker:shop", "docker", id="e" * 64, name="shop", labels=labels)
    lines = [line(str(number), at(number)) for number in range(3000)]
    sink = await sink_to(server.url, encoding="loki", loki={"format": "json"})
    assert await sink.deliver([batch(*lines[:1000], of=shop), batch(*lines[1000:], of=shop)]) == DELIVERED
    assert len(server.bodies) == sum(map(len, server.bodies)) // BODY_BYTES + 1 > 1
    assert max(map(len, server.bodies)) <= BODY_BYTES
    sent = [text for body in server.bodies for each in streams_of(body) for _, text in each["values"]]
    assert [json.loads(text)["message"] for text in sent] == [record.message for record in lines]


async def test_a_part_of_what_was_too_large_that_fails_is_sent_again_alone(
    server: HttpServer, sink_to: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LokiEncoding, "body_bytes", 400)
    sink = await sink_to(server.url, encoding="loki", loki={"labels": {"job": "x"}})
    given = [batch(*(line("x" * 60, at(number)) for number in range(5)))]
    server.behaviours += [answer(204), answer(503)]
    outcome = await sink.deliver(given)
    assert [len(streams_of(body)[0]["values"]) for body in server.bodies] == [3, 2]
    assert [each.record for each in outcome.postponed] == given[0].records[3:]
    server.behaviours += [answer(503)]
    with pytest.raises(Retryable, match="503"):
        await sink.deliver(given)
    monkeypatch.setattr(LokiEncoding, "body_bytes", 1)
    assert await sink.deliver(given) == DELIVERED
    assert [len(streams_of(body)[0]["values"]) for body in server.bodies[3:]] == [1] * 5


async def test_where_every_part_of_several_streams_is_refused_all_is_halved(
    server: HttpServer, sink_to: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not sent again as it is, for ever."""
    monkeypatch.setattr(LokiEncoding, "body_bytes", 400)
    server.otherwise = answer(500, GRPC.encode())
    sink = await sink_to(server.url, encoding="loki")
    lines = [line("x" * 60, at(n), stream) for n in range(5) for stream in ("stdout", "stderr")]
    with pytest.raises(Refused):
        await sink.deliver([batch(*lines)])
    assert len(server.bodies) > 2


GRPC = "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (55 vs. 42)"


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_lokis_grpc_does_not_take_is_halved(
    server: HttpServer, sink_to: Making, status: int
) -> None:
    server.behaviours += [answer(status, GRPC.encode()), answer(status, b"rpc error: code = Unavailable")]
    sink = await sink_to(server.url, encoding="loki")
    with pytest.raises(Refused, match=f"answered {status} .*too large for it in one request"):
        await sink.deliver([batch(line("a"), line("b"))])
    with pytest.raises(Retryable, match="Unavailable"):
        await sink.deliver([batch(line("a"), line("b"))])


async def test_where_lines_have_all_of_a_container_a_delivery_takes_fewer(sink_to: Making) -> None:
    sizes = [
        (await sink_to(encoding="loki", loki={"format": format_})).batch_bytes for format_ in ("raw", "json")
    ]
    assert sizes == [3 << 20, 1 << 20]


async def told(server: HttpServer, sink_to: Making, status: int, text: str, *batches: Batch) -> Outcome:
    sink = await sink_to(server.url, encoding="loki")
    server.behaviours.append(answer(status, text.encode()))
    return await sink.deliver(batches)


def rejected(outcome: Outcome) -> list[tuple[int, str]]:
    return [(each.batch, each.record.message) for each in outcome.rejected]


STREAM = '{compose_project="shop", container="web", host="node", service_name="web", stream="stdout"}'


def at(nanosecond: int) -> str:
    return f"2026-11-23T20:06:26.{nanosecond:09d}Z"


IGNORED = "entry with timestamp 2026-11-23 20:06:26.00000000{} +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: 2026-11-23T20:06:26Z, oldest acceptable timestamp is: 2026-11-23T20:06:27Z',\n"  # noqa: E501


async def test_what_loki_names_is_rejected_and_the_rest_delivered(
    server: HttpServer, sink_to: Making
) -> None:
    text = (
        IGNORED.format(2) + IGNORED.format(4) + f"user 'fake', total ignored: 2 out of 4 for stream: {STREAM}"
    )
    given = batch(*(line(str(n), at(n)) for n in range(1, 5)))
    elsewhere = batch(line("2 on stderr", at(2), "stderr"))
    outcome = await told(server, sink_to, 400, text, given, elsewhere)
    assert rejected(outcome) == [(0, "2"), (0, "4")]
    assert "oldest acceptable timestamp" in outcome.rejected[0].reason
    assert outcome.unnamed == 0
    # The ingester's words hide what else may have been left out.
    assert [each.record.message for each in outcome.postponed] == ["1", "3"]


async def test_of_an_answer_that_is_cut_short_what_it_names_is_rejected_and_the_rest_asked_again(
    server: HttpServer, sink_to: Making
) -> None:
    old = f"entry for stream '{STREAM}' has timestamp too old: 2020-01-01T00:00:00Z, oldest acceptable timestamp is: 2026-11-16T20:06:26Z"  # noqa: E501
    given = batch(line("old", "2020-01-01T00:00:00.000000000Z"), line("long"), line("now"))
    outcome = await told(server, sink_to, 400, old + "; 1 errors like: " * 10_000, given)
    assert rejected(outcome) == [(0, "old")]
    assert [each.record.message for each in outcome.postponed] == ["long", "now"]
    outcome = await told(server, sink_to, 400, old, given)
    assert (rejected(outcome), outcome.postponed) == ([(0, "old")], ())


async def test_of_more_than_it_lists_those_before_its_limit_are_meant(
    server: HttpServer, sink_to: Making
) -> None:
    text = IGNORED.format(1) + f"user 'fake', total ignored: 3 out of 4 for stream: {STREAM}"
    given = batch(*(line(str(n), at(n)) for n in range(1, 4)), line("new", "2026-11-23T20:06:27.000000000Z"))
    assert rejected(await told(server, sink_to, 400, text, given)) == [(0, "1"), (0, "2"), (0, "3")]


async def test_what_it_counts_and_does_not_name_is_counted(server: HttpServer, sink_to: Making) -> None:
    text = IGNORED.format(9) + f"user 'fake', total ignored: 1 out of 2 for stream: {STREAM}"
    outcome = await told(server, sink_to, 400, text, batch(line("1", at(1)), line("2", at(2))))
    assert (rejected(outcome), outcome.unnamed) == ([], 1)
    assert "too far behind" in outcome.unnamed_reason


async def test_of_records_of_one_time_as_many_are_rejected_as_it_counts(
    server: HttpServer, sink_to: Making
) -> None:
    text = IGNORED.format(1) + f"user 'fake', total ignored: 1 out of 2 for stream: {STREAM}"
    outcome = await told(server, sink_to, 400, text, batch(line("first", at(1)), line("second", at(1))))
    assert (rejected(outcome), outcome.unnamed) == ([(0, "first")], 0)


async def test_too_old_too_new_and_too_long_ones(server: HttpServer, sink_to: Making) -> None:
    old = f"entry for stream '{STREAM}' has timestamp too old: 2020-01-01T00:00:00Z, oldest acceptable timestamp is: 2026-11-16T20:06:26Z"  # noqa: E501
    new = f"entry for stream '{STREAM}' has timestamp too new: 2027-01-01T00:00:00Z"
    long = (
        f"max entry size '3' bytes exceeded for stream '{STREAM}' while adding an entry with length '4' bytes"
    )
    given = batch(
        line("old", "2020-01-01T00:00:00.000000000Z"),
        line("now"),
        line("new", "2027-01-01T00:00:00.000000000Z"),
        line("long"),
    )
    assert rejected(await told(server, sink_to, 400, old, given)) == [(0, "old")]
    assert rejected(await told(server, sink_to, 400, new, given)) == [(0, "new")]
    assert rejected(await told(server, sink_to, 400, long, given)) == [(0, "long")]
    both = f"2 errors like: {long}; 1 errors like: {old}"
    assert rejected(await told(server, sink_to, 400, both, given)) == [(0, "old"), (0, "long")]


@pytest.mark.parametrize(
    "text", ["error parsing labels", "", 'total ignored: 7 out of 7 for stream: {x="y"}']
)
async def test_a_400_that_names_nothing_that_was_sent_refuses_all(
    server: HttpServer, sink_to: Making, text: str
) -> None:
    with pytest.raises(Refused, match="answered 400"):
        await told(server, sink_to, 400, text, batch(line("a")))


async def test_what_is_no_loki_delivers_nothing(server: HttpServer, sink_to: Making) -> None:
    with pytest.raises(Retryable, match="Loki does not answer so"):
        await told(server, sink_to, 200, "<html>Log in</html>", batch(line("a")))
    with pytest.raises(Retryable, match="429"):
        await told(server, sink_to, 429, "Ingestion rate limit exceeded", batch(line("a")))
    assert await told(server, sink_to, 200, "{}", batch(line("a"))) == DELIVERED


@given(st.text(alphabet=st.sampled_from("entryotalignd: {}=\"\\123,ZT-'") | st.characters(), max_size=80))
def test_no_words_of_a_receiver_make_reading_them_fail(text: str) -> None:
    refusals(text)
    refusals(f"{IGNORED.format(1)} total ignored: 1 out of 2 for stream: {{{text}}}")


@pytest.mark.parametrize(
    "unit",
    [
        *(
            'for stream {"\\" ',
            'total ignored: 1 out of 1 for stream {"\\" ',
            "stream: '{",
            'stream {a="b"}  ',
        ),
        *("has timestamp too old: ", "total ignored: 1", IGNORED.format(1), "a", 'a="\\"', "9"),
    ],
)
def test_no_words_of_a_receiver_take_long_to_read(unit: str) -> None:
    """They are read on the thread that everything else is done on."""
    text = (unit * LokiEncoding.answer_bytes)[: LokiEncoding.answer_bytes]
    began = time.process_time()
    refusals(text)
    refusals(f"total ignored: 1 out of 1 for stream {{{text}}}")
    assert time.process_time() - began < 2  # before: up to minutes; now a hundredth of a second


async def test_what_an_answer_says_is_heeded_up_to_a_bound(
    server: HttpServer, sink_to: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is held against each record. What is not heeded is heard of again."""
    monkeypatch.setattr(loki_push, "MOST_REFUSALS", 2)
    limits = [f"Max entry size '{size}' bytes exceeded;" for size in (30, 20, 10)]
    given = batch(line("a" * 35), line("b" * 25), line("c" * 15), line("d"))
    outcome = await told(server, sink_to, 400, " ".join(limits), given)
    assert [message[0] for _, message in rejected(outcome)] == ["a", "b"]
    assert [each.record.message[0] for each in outcome.postponed] == ["c", "d"]


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,5}", fullmatch=True), st.text(max_size=10), max_size=4))
def test_labels_are_read_as_they_are_written(labels: dict[str, str]) -> None:
    # JSON's quoting is Go's for these, but for what Go writes as \x.. or \U........
    text = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in labels.items())
    assert parse_labels(f"{{{text}}}") == labels


# --- a real one ---------------------------------------------------------------------------------------


def now(offset: timedelta = timedelta(), digits: int = 0) -> str:
    return (datetime.now(UTC) + offset).strftime("%Y-%m-%dT%H:%M:%S.") + f"{digits:09d}Z"


async def sink_of(server: Loki, sink_to: Making, name: str, **options: Any) -> tuple[Any, Origin]:
    sink = await sink_to(server.url, encoding="loki", **options)
    return sink, Origin(f"docker:{name}", "docker", id="c" * 64, name=name)


async def found(
    loki: Loki, name: str, count: int, having: str = ""
) -> Sequence[tuple[dict[str, str], int, str]]:
    """What is there of a container, once it is so many lines, `having` what a LogQL filter says."""
    lines: Sequence[tuple[dict[str, str], int, str]] = ()
    deadline = time.monotonic() + 30
    while len(lines) < count and time.monotonic() < deadline:
        lines = await trio.to_thread.run_sync(loki.lines, f'{{container="{name}"}} {having}')
    return lines


@pytest.mark.parametrize("compress", ["none", "gzip"])
async def test_a_real_loki_has_every_line_as_it_was_sent(loki: Loki, sink_to: Making, compress: str) -> None:
    name = f"every-{compress}"
    sink, origin = await sink_of(loki, sink_to, name, compress=compress, loki={"metadata": {"id": "{id}"}})
    second = now()[:-10]
    texts = [f"line {n}" for n in range(1000)] + ["é \U0001f600 \x00 \n two", '{"a": 1}', ""]
    records = [
        line(text, f"{second}{n:09d}Z", "stderr" if n % 3 else "stdout") for n, text in enumerate(texts)
    ]
    assert await sink.deliver([batch(*records, of=origin)]) == DELIVERED
    lines = await found(loki, name, len(texts))
    assert [text for _, _, text in lines] == texts
    assert [at_ns % 10**9 for _, at_ns, _ in lines] == list(range(len(texts)))
    assert [labels["stream"] for labels, _, _ in lines] == [record.stream for record in records]
    assert lines[7][0]["id"] == origin.record_id(records[7])


async def test_what_a_real_loki_leaves_out_is_rejected_and_nothing_else(loki: Loki, sink_to: Making) -> None:
    sink, origin = await sink_of(loki, sink_to, "left-out")
    records = [
        line("old", now(timedelta(days=-30))),
        line("x" * 2001, now(digits=1)),
        line("good", now(digits=2)),
        line("new", now(timedelta(days=2))),
    ]
    outcome = await sink.deliver([batch(*records, of=origin)])
    assert [each.record.message[:5] for each in outcome.rejected] == ["old", "xxxxx", "new"]
    assert outcome.unnamed == 0
    assert [text for _, _, text in await found(loki, "left-out", 1)] == ["good"]


async def test_lines_out_of_order_are_taken_by_a_real_loki_within_its_window(
    loki: Loki, sink_to: Making
) -> None:
    sink, origin = await sink_of(loki, sink_to, "order")
    back = [timedelta(minutes=-each) for each in (0, 30, 10)]
    assert await sink.deliver([batch(*(line(str(each), now(each)) for each in back), of=origin)]) == DELIVERED
    assert len(await found(loki, "order", 3)) == 3
    # Beyond it they are named, and rejected, however many they are: Loki lists ten.
    late = [line(f"late {n}", now(timedelta(hours=-3), n)) for n in range(25)]
    fine = line("fine", now(digits=5))
    outcome = await sink.deliver([batch(*late, fine, of=origin)])
    assert [each.record.message for each in outcome.rejected] == [each.message for each in late]
    assert "too far behind" in outcome.rejected[0].reason
    assert "fine" in [text for _, _, text in await found(loki, "order", 4)]


async def test_a_real_loki_tells_of_one_kind_at_a_time_and_both_are_rejected(
    loki: Loki, sink_to: Making
) -> None:
    sink, origin = await sink_of(loki, sink_to, "kinds")
    assert await sink.deliver([batch(line("first", now()), of=origin)]) == DELIVERED
    late, long = line("late", now(timedelta(hours=-3))), line("x" * 2001, now(digits=1))
    first = await sink.deliver([batch(late, long, line("fine", now(digits=2)), of=origin)])
    assert [each.record.message[:5] for each in first.rejected] == ["late"]
    second = await sink.deliver([batch(*(each.record for each in first.postponed), of=origin)])
    assert [each.record.message[:5] for each in second.rejected] == ["xxxxx"]
    assert not second.postponed
    assert [text for _, _, text in await found(loki, "kinds", 2)] == ["first", "fine"]


async def test_a_real_loki_tells_of_each_stream(loki: Loki, sink_to: Making) -> None:
    """Of two in one request it would take the second, and lose what is late in the first without a word."""
    sink, origin = await sink_of(loki, sink_to, "each")
    both = [line("first", now(digits=1)), line("first", now(digits=1), "stderr")]
    assert await sink.deliver([batch(*both, of=origin)]) == DELIVERED
    late, fine = line("late", now(timedelta(hours=-3))), line("fine", now(digits=2), "stderr")
    outcome = await sink.deliver([batch(late, fine, of=origin)])
    assert [each.record.message for each in outcome.rejected] == ["late"]
    assert sorted(text for _, _, text in await found(loki, "each", 3)) == ["fine", "first", "first"]


async def test_a_real_loki_keeps_once_what_is_sent_again(loki: Loki, sink_to: Making) -> None:
    sink, origin = await sink_of(loki, sink_to, "again")
    given = batch(line("a", now(digits=1)), line("b", now(digits=2)), of=origin)
    for _ in range(2):
        assert await sink.deliver([given]) == DELIVERED
    assert [text for _, _, text in await found(loki, "again", 2)] == ["a", "b"]


@pytest.mark.parametrize("bound", [True, False], ids=["cut", "as large as it is"])
async def test_a_real_loki_takes_large_deliveries_in_parts_and_refuses_what_is_too_large_for_it(
    loki: Loki, sink_to: Making, monkeypatch: pytest.MonkeyPatch, bound: bool
) -> None:
    if not bound:
        monkeypatch.setattr(LokiEncoding, "body_bytes", None)
    name = f"large-{bound}".lower()
    sink = await sink_to(loki.url, encoding="loki", loki={"format": "json"})
    labels = {f"label-{n}": "x" * 50 for n in range(22)}
    origin = Origin(f"docker:{name}", "docker", id="c" * 64, name=name, labels=labels)
    second = now()[:-10]
    given = batch(*(line(f"line {n}", f"{second}{n:09d}Z") for n in range(2900)), of=origin)
    if not bound:
        with pytest.raises(Refused, match="too large"):
            await sink.deliver([given])
        return
    assert await sink.deliver([given]) == DELIVERED
    lines = await found(loki, name, 290, '|~ `"line [0-9]*7"`')  # all of them are more than it gives at once
    wanted = [f"line {n}" for n in range(2900) if n % 10 == 7]
    assert [json.loads(text)["message"] for _, _, text in lines] == wanted
