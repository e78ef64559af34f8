"""What the encodings write, byte for byte."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logroute.router.position import BEGINNING
from logroute.router.record import Batch, DetailedRecord, Image, Origin, Record
from logroute.router.times import full_time
from logroute.sinks.encoding import FORMATS, encoder, logfmt_value
from logroute.sinks.record_json import OWN_KEYS

TIME = "2026-11-23T20:06:26.123456789Z"
ID = "3b74a877e0f9" + "0" * 52
ORIGIN = Origin(
    "docker:1",
    "docker",
    id=ID,
    name="api-1",
    image=Image("api", "2"),
    labels={"com.docker.compose.project": "shop", "com.docker.compose.container-number": "1"},
    runtime="docker",
    host="node-7",
)
FILE = Origin("file:/var/log/app.log", "logs", file="/var/log/app.log", host="node-7")


def batch(origin: Origin, records: Sequence[Record]) -> Batch:
    return Batch(origin, list(records), before=BEGINNING, after=BEGINNING, size_bytes=0, ready=True)


def lines(format_: str, *records: Record, origin: Origin = ORIGIN) -> list[str]:
    text = encoder(format_)(batch(origin, records)).decode()
    assert text.endswith("\n")
    return text.split("\n")[:-1]


def test_an_unknown_format_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"unknown format 'xml': json, raw, text, logfmt, or a template"):
        encoder("xml")
    with pytest.raises(ValueError, match='did you mean "message"'):
        encoder("{mesage}")


@pytest.mark.parametrize("format_", [*FORMATS, "{message}"])
def test_no_records_are_no_bytes(format_: str) -> None:
    assert encoder(format_)(batch(ORIGIN, [])) == b""


# --- json ---------------------------------------------------------------------------------------------


def test_json_is_the_documented_shape_in_the_documented_order() -> None:
    record = DetailedRecord(
        "login failed", "stderr", TIME, level="error", fields={"user": "ada", "status": 401}
    )
    assert lines("json", record) == [
        '{"@timestamp":"2026-11-23T20:06:26.123456789Z","message":"login failed","stream":"stderr",'
        '"log":{"level":"error"},"fields":{"user":"ada","status":401},'
        f'"container":{{"id":"{ID}","name":"api-1","image":{{"name":"api","tag":"2"}},"runtime":"docker",'
        '"labels":{"com_docker_compose_project":"shop","com_docker_compose_container-number":"1"}},'
        '"host":{"name":"node-7"},"compose":{"project":"shop","number":1},'
        '"event":{"id":"3b74a877e0f9-e2026-11-23T20:06:26.123456789Z"}}'
    ]


def test_a_path_that_is_no_utf8_harms_no_record_with_a_level() -> None:
    file = Origin("k", "s", file="/x/\udcff.log")
    [line] = lines("json", DetailedRecord("m", "stdout", TIME, level="info"), origin=file)
    assert json.loads(line)["log"] == {"level": "info", "file": {"path": "/x/?.log"}}


def test_labels_whose_names_differ_in_dots_alone_are_all_there() -> None:
    labels = {"a.b": "dot", "a_b": "plain", "a.b.c": "two", "a_b.c": "one", "x.y": "z"}
    for named in (labels, dict(reversed(labels.items()))):
        [line] = lines("json", Record("m", "stdout", TIME), origin=Origin("k", "s", id=ID, labels=named))
        assert json.loads(line)["container"]["labels"] == {
            "a_b": "plain", "a_b_2": "dot", "a_b_c": "two", "a_b_c_2": "one", "x_y": "z",
        }  # fmt: skip


def origin_hash(origin: Origin) -> str:
    """What ids begin with where there is no container's: lines of two files may have one time."""
    return blake2b(origin.key.encode(), digest_size=6).hexdigest()


def test_json_leaves_out_what_is_absent() -> None:
    nobody = Origin("k", "s")
    assert json.loads(lines("json", Record("m", "stdout", TIME), origin=nobody)[0]) == {
        "@timestamp": TIME,
        "message": "m",
        "stream": "stdout",
        "event": {"id": f"{origin_hash(nobody)}-o{TIME}"},
    }


def test_the_log_of_a_file_and_of_a_record_are_one_object() -> None:
    record = DetailedRecord("m", "stdout", TIME, level="warn", truncated=True, place="f-12")
    assert lines("json", Record("m", "stdout", TIME), record, origin=FILE) == [
        f'{{"@timestamp":"{TIME}","message":"m","stream":"stdout","log":{{"file":{{"path":"/var/log/app.log"}}}},'
        f'"host":{{"name":"node-7"}},"event":{{"id":"{origin_hash(FILE)}-o{TIME}"}}}}',
        f'{{"@timestamp":"{TIME}","message":"m","stream":"stdout",'
        '"log":{"level":"warn","truncated":true,"file":{"path":"/var/log/app.log"}},'
        '"host":{"name":"node-7"},"event":{"id":"f-12"}}',
    ]


def test_the_kinds_of_records_stay_in_order() -> None:
    records = [
        DetailedRecord(str(n), "stdout", TIME, sequence=n) if n % 3 else Record(str(n), "stdout", TIME)
        for n in range(10)
    ]
    assert [json.loads(line)["message"] for line in lines("json", *records)] == [str(n) for n in range(10)]


def test_a_coarse_time_gives_an_id_with_the_messages_hash() -> None:
    coarse = Record("m", "stdout", "2026-11-23T20:06:26.000000000Z")
    fine = Record("m", "stdout", TIME)
    for records in ([coarse], [fine, coarse], [coarse, fine]):
        ids = [json.loads(line)["event"]["id"] for line in lines("json", *records)]
        assert ids == [ORIGIN.record_id(record) for record in records]
        assert len(set(map(len, ids))) == len(records)


def reference(origin: Origin, records: Sequence[Record]) -> bytes:
    """INTERFACE's record, plainly."""
    out = []
    for record in records:
        line: dict[str, Any] = {
            "@timestamp": record.time,
            "message": record.message,
            "stream": record.stream,
        }
        log: dict[str, Any] = {}
        if record.level:
            log["level"] = record.level
        if record.truncated:
            log["truncated"] = True
        constants = origin.constants()
        if log:
            line["log"] = log | constants.pop("log", {})
        fields = record.fields or {}
        if record.at_root:
            line |= {key: value for key, value in fields.items() if key not in OWN_KEYS}
            fields = {key: value for key, value in fields.items() if key in OWN_KEYS}
        if fields:
            line["fields"] = fields
        if record.error:
            line["error"] = {"message": record.error}
        line |= constants
        line["event"] = {"id": origin.record_id(record)}
        if record.logged:
            line["event"]["created"] = record.logged
        out.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
    return "".join(out).encode()


TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    st.sampled_from('"\\/\n\r\t\x00\x1b\x7f\x85\u2028\u2029 é😀=')
)
TIMES = st.sampled_from([TIME, "2026-11-23T20:06:26.000000000Z", "2026-11-23T20:06:26.120000000Z", '"', ""])
STREAMS = st.sampled_from(["stdout", "stderr"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXT,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(TEXT, below, max_size=3),
    max_leaves=5,
)
PLAIN = st.builds(Record, TEXT, STREAMS, TIMES)
DETAILED = st.builds(
    DetailedRecord,
    TEXT,
    STREAMS,
    TIMES,
    sequence=st.integers(0, 2),
    level=st.none() | st.sampled_from(["info", "error"]),
    fields=st.none() | st.dictionaries(TEXT | st.sampled_from(["host", "user"]), JSON, max_size=3),
    truncated=st.booleans(),
    place=st.none() | TEXT,
    part=st.sampled_from(["", ".1"]),
    logged=st.sampled_from(["", TIME, "2026-11-23T20:06:26.000000000Z"]),
    error=st.just("") | TEXT,
    at_root=st.booleans(),
)
ORIGINS = st.builds(
    Origin,
    st.just("k"),
    st.just("s"),
    id=st.sampled_from(["", ID]),
    name=TEXT,
    image=st.none() | st.builds(Image, TEXT, st.none() | TEXT),
    labels=st.dictionaries(TEXT, TEXT, max_size=3),
    host=TEXT,
    file=st.sampled_from(["", "/var/log/app.log"]),
)


@given(ORIGINS, st.lists(PLAIN, max_size=5) | st.lists(PLAIN | DETAILED, max_size=5))
@example(ORIGIN, [Record(chr(code), "stdout", TIME) for code in range(0x300)])
@example(ORIGIN, [Record(f"a{chr(code)}b" * 9, "stdout", TIME) for code in range(0x1F00, 0x2100)])
def test_json_means_what_a_plain_implementation_writes(origin: Origin, records: list[Record]) -> None:
    """Control characters have several spellings in JSON, so what they mean is compared; order included."""
    encoded = encoder("json")(batch(origin, records))
    assert encoded.count(b"\n") == len(records)
    expected = reference(origin, records)
    pairs = [
        [json.loads(line, object_pairs_hook=list) for line in data.decode().split("\n")[:-1]]
        for data in (encoded, expected)
    ]
    assert pairs[0] == pairs[1]


def trimmed(time: str) -> str:
    return time[:-1].rstrip("0").rstrip(".") + "Z"


NANOSECONDS = st.integers(min_value=0, max_value=10**9 - 1) | st.sampled_from([0, 1, 10**6, 5 * 10**8, 999])


@pytest.mark.parametrize("format_", ["json", "raw"])
@given(
    st.lists(st.tuples(TEXT, st.sampled_from(["stdout", "stderr"]), NANOSECONDS), max_size=6), st.booleans()
)
def test_lines_as_a_log_file_has_them_become_the_same(
    format_: str, said: list[tuple[str, Any, int]], in_order: bool
) -> None:
    """The way without making records ready writes what the way with it writes: ids and sequences included."""
    if in_order:
        said.sort(key=lambda line: line[2])
    times = [f"2026-11-23T20:06:26.{time:09d}Z" for _, _, time in said]
    as_read = [
        Record(f"{text}\n", stream, trimmed(time))
        for (text, stream, _), time in zip(said, times, strict=True)
    ]
    assert all(full_time(record.time) == time for record, time in zip(as_read, times, strict=True))
    ready = [Record(text, stream, time) for (text, stream, _), time in zip(said, times, strict=True)]
    encode = encoder(format_)
    quick = Batch(ORIGIN, as_read, before=BEGINNING, after=BEGINNING, size_bytes=0, newlines=True)
    slow = Batch(ORIGIN, ready, before=BEGINNING, after=BEGINNING, size_bytes=0)
    assert encode(quick) == encode(slow)
    assert encode(quick) == encode(slow)  # and it changes nothing


# --- text ---------------------------------------------------------------------------------------------


def test_raw_is_the_messages() -> None:
    records = [Record(m, "stdout", TIME) for m in ("a", "", "b\nc\r", "\x00é\u2028")]
    assert encoder("raw")(batch(ORIGIN, records)) == b"a\n\nb\nc\r\n\x00\xc3\xa9\xe2\x80\xa8\n"


@given(st.lists(PLAIN | DETAILED, min_size=1))
def test_raw_adds_nothing_but_newlines(records: list[Record]) -> None:
    assert encoder("raw")(batch(ORIGIN, records)) == "".join(r.message + "\n" for r in records).encode()


def test_text_is_time_name_message() -> None:
    record = Record("a\nb", "stdout", TIME)
    assert lines("text", record) == [f"{TIME} api-1: a", "b"]
    assert lines("text", record, origin=FILE) == [f"{TIME} /var/log/app.log: a", "b"]


def test_a_template_is_a_format() -> None:
    record = Record("a", "stderr", TIME)
    assert (
        lines("{time:%H:%M} {container.name} {stream} {{{message}}}", record, record)
        == ["20:06 api-1 stderr {a}"] * 2
    )


def test_a_template_writes_each_origin_with_its_own_name() -> None:
    encode = encoder("{container.name|?} {message}")
    record = Record("a", "stdout", TIME)
    assert [encode(batch(origin, [record])) for origin in (ORIGIN, FILE, ORIGIN)] == [
        b"api-1 a\n",
        b"? a\n",
        b"api-1 a\n",
    ]


@pytest.mark.parametrize("format_", [*FORMATS, "{message}"])
@pytest.mark.parametrize("kind", [Record, DetailedRecord])
def test_half_of_a_surrogate_pair_becomes_a_question_mark(format_: str, kind: type[Record]) -> None:
    [line] = lines(format_, kind("a\ud800b", "stdout", TIME))
    assert "a?b" in line


def test_half_of_a_surrogate_pair_in_fields_becomes_a_question_mark() -> None:
    record = DetailedRecord("m", "stdout", TIME, fields={"a\udc80": ["\ud800", {"x": "y"}]})
    assert json.loads(lines("json", record)[0])["fields"] == {"a?": ["?", {"x": "y"}]}
    assert 'a?="[\\"?\\",{\\"x\\":\\"y\\"}]"' in lines("logfmt", record)[0]


# --- logfmt -------------------------------------------------------------------------------------------


def test_logfmt_names_the_record_the_container_and_the_fields() -> None:
    record = DetailedRecord(
        'say "hi"\n',
        "stderr",
        TIME,
        level="warn",
        truncated=True,
        fields={"user": "ada", "a b": None, "msg": 1},
    )
    assert lines("logfmt", record) == [
        f'time={TIME} level=warn msg="say \\"hi\\"\\n" stream=stderr container=api-1 image=api:2 host=node-7 '
        f"compose.project=shop compose.number=1 truncated=true user=ada a_b=null fields.msg=1 "
        f"id=3b74a877e0f9-e{TIME}"
    ]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("web-1", "web-1"),
        ("größe", "größe"),
        ("", '""'),
        ("a b", '"a b"'),
        ("a=b", '"a=b"'),
        ('"', '"\\""'),
        ("\\", '"\\\\"'),
        ("\x1b[31m", '"\\u001b[31m"'),
        (True, "true"),
        (None, "null"),
        (1.5, "1.5"),
        ([1, 2], "[1,2]"),
        ({"a": "b"}, '"{\\"a\\":\\"b\\"}"'),
    ],
)
def test_a_logfmt_value_is_bare_where_it_can_be(value: object, written: str) -> None:
    assert logfmt_value(value) == written


def test_a_field_may_be_nested_as_deep_as_json_is_read() -> None:
    """As logfmt and in GELF it is text: one such line stopped its route for ever."""
    deep: Any = [1]
    for _ in range(800):
        deep = [deep]
    assert logfmt_value(deep) == "[" * 801 + "1" + "]" * 801
    for _ in range(100_000):
        deep = [deep]
    assert json.loads(logfmt_value(deep))
    assert logfmt_value(["\ud800"]) == '"[\\"?\\"]"'


def test_a_time_of_its_own_leaves_the_id_what_it_was() -> None:
    said = "2026-11-20T01:02:03.000000000Z"
    record = DetailedRecord("x", "stdout", said, logged=TIME, error="json: no object")
    [line] = lines("json", record)
    document = json.loads(line)
    assert document["@timestamp"] == said
    assert document["event"] == {"id": ORIGIN.record_id(Record("x", "stdout", TIME)), "created": TIME}
    assert document["error"] == {"message": "json: no object"}
    [line] = lines("logfmt", record)
    assert ' error="json: no object" ' in line


def logfmt_pairs(line: str) -> list[tuple[str, str]]:
    pairs = re.findall(r'([^\s="]+)=("(?:[^"\\]|\\.)*"|[^\s"]*)(?: |$)', line)
    assert " ".join(f"{key}={value}" for key, value in pairs) == line
    return [(key, json.loads(value) if value.startswith('"') else value) for key, value in pairs]


@given(ORIGINS, DETAILED.filter(lambda record: record.time == TIME and record.place is None))
def test_logfmt_is_one_line_from_which_everything_can_be_read_again(origin: Origin, record: Record) -> None:
    [line] = lines("logfmt", record, origin=origin)
    pairs = logfmt_pairs(line)
    found = dict(reversed(pairs))
    assert found["msg"] == record.message
    assert found["stream"] == record.stream
    assert dict(pairs)["id"] == origin.record_id(record)
    keys = [key for key, _ in pairs]
    for own in ("time", "msg", "stream", "id"):
        assert keys.count(own) == 1
