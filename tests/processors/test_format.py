"""Lines of well-known programs: what is found in them, and in which time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logroute.processors._formats import FORMATS
from logroute.router.record import Record
from logroute.sinks.record_json import encode_json
from tests.processors.conftest import TIME, WEB, Apply, batch, made, record


def parsed(name: str, line: str, **options: Any) -> Record:
    processor = made("format", name=name, **options)
    [result] = processor.apply(batch(record(line))).records  # type: ignore[union-attr]
    return result


COMBINED = (
    '203.0.113.7 - ada [23/Nov/2026:21:06:25 +0100] "GET /cart?id=7 HTTP/1.1" 502 1234 '
    '"https://shop.example/" "Mozilla/5.0 (X11) \\"x\\""'
)


@pytest.mark.parametrize("name", ["nginx", "apache"])
def test_the_combined_access_log(name: str) -> None:
    found = parsed(name, COMBINED)
    assert (found.time, found.logged, found.message) == ("2026-11-23T20:06:25.000000000Z", TIME, COMBINED)
    assert found.fields == {
        "client": "203.0.113.7",
        "user": "ada",
        "method": "GET",
        "path": "/cart?id=7",
        "protocol": "HTTP/1.1",
        "status": 502,
        "bytes": 1234,
        "referrer": "https://shop.example/",
        "user_agent": 'Mozilla/5.0 (X11) \\"x\\"',
    }


EXAMPLES: list[tuple[str, str, str | None, str | None, str, dict[str, Any]]] = [
        (
            "nginx",
            '::1 - - [23/Nov/2026:20:06:25 +0000] "\\x16\\x03" 400 0 "-" "-"',
            None,
            None,
            "20:06:25.000000000",
            {"client": "::1", "request": "\\x16\\x03", "status": 400, "bytes": 0},
        ),
        (
            "nginx",
            "2026/11/23 20:06:25 [error] 31#32: *7 connect() failed (111: Connection refused)",
            "connect() failed (111: Connection refused)",
            "error",
            "20:06:25.000000000",
            {"pid": 31, "tid": 32, "connection": 7},
        ),
        (
            "apache",
            'shop.example:443 10.0.0.1 - - [23/Nov/2026:20:06:25 +0000] "POST / HTTP/2" 200 -',
            None,
            None,
            "20:06:25.000000000",
            {
                "host": "shop.example:443",
                "client": "10.0.0.1",
                "method": "POST",
                "path": "/",
                "protocol": "HTTP/2",
                "status": 200,
            },
        ),
        (
            "apache",
            "[Mon Nov 23 20:06:25.123456 2026] [core:warn] [pid 7:tid 9] [client 10.0.0.1:80] AH1: no",
            "AH1: no",
            "warn",
            "20:06:25.123456000",
            {"module": "core", "pid": 7, "tid": 9, "client": "10.0.0.1:80"},
        ),
        (
            "haproxy",
            "haproxy[14389]: 10.0.1.2:33317 [23/Nov/2026:20:06:25.655] http-in static/srv1 10/0/30/69/109 "
            '200 2750 - - ---- 1/1/1/1/0 0/0 {1wt.eu} {} "GET /index.html HTTP/1.1"',
            None,
            None,
            "20:06:25.655000000",
            {
                "client": "10.0.1.2", "client_port": 33317, "frontend": "http-in", "backend": "static",
                "server": "srv1", "request_ms": 10, "queue_ms": 0, "connect_ms": 30, "response_ms": 69,
                "total_ms": 109, "status": 200, "bytes": 2750, "termination": "----", "connections": 1,
                "retries": 0, "method": "GET", "path": "/index.html", "protocol": "HTTP/1.1",
            },
        ),
        (
            "haproxy",
            "127.0.0.1:40902 [23/Nov/2026:20:06:25.655] fnt bck/srv1 0/-1/5007 212 -- 0/0/0/0/3 0/0",
            None,
            None,
            "20:06:25.655000000",
            {
                "client": "127.0.0.1", "client_port": 40902, "frontend": "fnt", "backend": "bck",
                "server": "srv1", "queue_ms": 0, "connect_ms": -1, "total_ms": 5007, "bytes": 212,
                "termination": "--", "connections": 0, "retries": 3,
            },
        ),
        *(
            (
                "haproxy",
                header
                + "127.0.0.1:40902 [23/Nov/2026:20:06:25.655] fnt bck/srv1 0/-1/5007 212 -- 0/0/0/0/3 0/0",
                None,
                level,
                "20:06:25.655000000",
                {
                    "client": "127.0.0.1", "client_port": 40902, "frontend": "fnt", "backend": "bck",
                    "server": "srv1", "queue_ms": 0, "connect_ms": -1, "total_ms": 5007, "bytes": 212,
                    "termination": "--", "connections": 0, "retries": 3, **more,
                },
            )
            for header, level, more in (
                ("<134>Nov 23 20:06:25 haproxy[1]: ", "info", {"facility": "local0"}),
                ("<131>Nov  3 20:06:25 lb-1 haproxy[1]: ", "error", {"facility": "local0"}),
                ("Nov 23 20:06:25 lb-1 haproxy[1]: ", None, {}),
                ("<134>1 2026-11-23T20:06:25.655+00:00 lb-1 haproxy 14 - - ", "info", {"facility": "local0"}),
                ("<134>", "info", {"facility": "local0"}),
            )
        ),
        (
            "postgres",
            '2026-11-23 20:06:25.123 UTC [42] ada@shop ERROR:  relation "x" does not exist',
            'relation "x" does not exist',
            "error",
            "20:06:25.123000000",
            {"pid": 42, "user": "ada", "database": "shop"},
        ),
        (
            "postgres",
            "2026-11-23 20:06:25.123 UTC [42] DEBUG2:  x",
            "x",
            "debug",
            "20:06:25.123000000",
            {"pid": 42},
        ),
        (
            "postgres",
            "2026-11-23 20:06:25.123 UTC [42] STATEMENT:  select 1",
            "select 1",
            None,
            "20:06:25.123000000",
            {"pid": 42, "severity": "STATEMENT"},
        ),
        *(
            ("postgres", f"2026-11-23 {said} [42] LOG:  x", "x", "info", "20:06:25.123000000", {"pid": 42})
            for said in ("21:06:25.123 CET", "22:06:25.123 EET", "15:06:25.123 EST", "20:06:25.123 WET")
        ),
        (
            "redis",
            "1:M 23 Nov 2026 20:06:25.123 # WARNING overcommit_memory is set to 0!",
            "WARNING overcommit_memory is set to 0!",
            "warn",
            "20:06:25.123000000",
            {"pid": 1, "role": "M"},
        ),
        (
            "redis",
            "1:C 23 Nov 2026 20:06:25.123 - ok",
            "ok",
            "info",
            "20:06:25.123000000",
            {"pid": 1, "role": "C"},
        ),
        (
            "klog",
            "E1123 20:06:25.123456       1 reflector.go:138] failed to list *v1.Pod",
            "failed to list *v1.Pod",
            "error",
            "20:06:25.123456000",
            {"thread": 1, "file": "reflector.go", "line": 138},
        ),
        (
            "syslog",
            '<34>1 2026-11-23T20:06:25.003Z host su 12 ID47 [a@1 b="]"][c] \ufeffsu failed',
            "su failed",
            "fatal",
            "20:06:25.003000000",
            {
                "hostname": "host", "program": "su", "pid": "12", "message_id": "ID47",
                "structured_data": '[a@1 b="]"][c]', "facility": "auth",
            },
        ),
        (
            "syslog",
            "<165>1 2026-11-23T20:06:25Z - - - - -",
            "",
            "notice",
            "20:06:25.000000000",
            {"facility": "local4"},
        ),
        (
            "syslog",
            "Nov 23 20:06:25 node-1 sshd[77]: accepted",
            "accepted",
            None,
            "20:06:25.000000000",
            {"hostname": "node-1", "program": "sshd", "pid": "77"},
        ),
        (
            "syslog",
            "2026-11-23T21:06:25.123456+01:00 node-1 sshd[77]: accepted",
            "accepted",
            None,
            "20:06:25.123456000",
            {"hostname": "node-1", "program": "sshd", "pid": "77"},
        ),
        (
            "syslog",
            "<38>2026-11-23T20:06:25Z node-1 sshd: accepted",
            "accepted",
            "info",
            "20:06:25.000000000",
            {"hostname": "node-1", "program": "sshd", "facility": "auth"},
        ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "line", "message", "level", "time", "fields"), EXAMPLES)
def test_lines(
    name: str, line: str, message: str | None, level: str | None, time: str, fields: dict[str, Any]
) -> None:
    found = parsed(name, line)
    assert (found.message, found.level) == (line if message is None else message, level)
    assert (found.time, found.logged) == (f"2026-11-23T{time}Z", TIME)
    assert (found.fields, found.error) == (fields, "")
    assert parsed(name, line, keep=True).message == line


@pytest.mark.parametrize(
    ("line", "message", "level", "pid"),
    [
        ("[WARNING] 0691/120000 (1) : Server b/s is DOWN", "Server b/s is DOWN", "warn", 1),
        ("[WARNING] 326/200625 (12) : x", "x", "warn", 12),
        ("[NOTICE]   (1) : New worker (8) forked", "New worker (8) forked", "notice", 1),
        ("[ALERT]    (1) : config : x", "config : x", "fatal", 1),
        ("[DIAG]     (1) : x", "x", "debug", 1),
    ],
)
def test_what_haproxy_says_of_itself_has_the_engines_time(
    line: str, message: str, level: str, pid: int
) -> None:
    found = parsed("haproxy", line)
    assert (found.message, found.level, found.fields) == (message, level, {"pid": pid})
    assert (found.time, found.logged) == (TIME, "")
    assert parsed("haproxy", line, keep=True).message == line


@pytest.mark.parametrize(
    ("zone", "said", "time"),
    [
        ("UTC", "20:06:25 CST", None),
        ("Asia/Shanghai", "20:06:25 CST", "12:06:25"),
        ("America/Chicago", "08:06:25 CST", "14:06:25"),
        ("Asia/Manila", "20:06:25 PST", "12:06:25"),
        ("Europe/Berlin", "20:06:25 CEST", "18:06:25"),
        ("Europe/Berlin", "20:06:25 EST", None),  # 01:06:25 on the next day
    ],
)
def test_names_of_zones_that_several_have_mean_what_the_zone_says(
    zone: str, said: str, time: str | None
) -> None:
    found = parsed("postgres", f"2026-11-23 {said} [42] LOG:  x", zone=zone)
    if time is None and zone == "UTC":
        assert (found.time, (found.fields or {})["time"]) == (TIME, f"2026-11-23 {said}")
    else:
        expected = f"2026-11-23T{time}" if time else "2026-11-24T01:06:25"
        assert found.time == f"{expected}.000000000Z"


ODD = [
    "[WARNING] 0691/120000 (1) : Server b/s is DOWN",
    "[LOUD]   (1) : x",
    "2026-11-23 20:06:25.123 CST [42] LOG:  x",
    '1.1.1.1 - - [23/Nov/2026:20:06:24 +0000] "GET / HTTP/1.1" 200 - "-" "-"',
    '1.1.1.1 - - [30/Feb/2026:20:06:24 +0000] "GET / HTTP/1.1" 200 7',
    '1.1.1.1 - - [23/Nov/2020:20:06:24 +0000] "GET / HTTP/1.1" 200 7',
    f'1.1.1.1 - - [23/Nov/2026:20:06:24 +0000] "GET / HTTP/1.1" 200 {"9" * 19}',
    "2026/11/23 20:06:25 [loud] 31#32: *7 x",
    "<999>1 2026-11-23T20:06:25Z - - - - -",
    "<34>1 - - - - - -",
    "no such line",
]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("fields", [None, {"time": "before", "user": "before"}])
@given(st.lists(st.sampled_from([*(example[1] for example in EXAMPLES), *ODD]), max_size=6))
def test_a_batch_becomes_what_its_lines_become(
    name: str, fields: dict[str, Any] | None, lines: list[str]
) -> None:
    def apply(*lines: str) -> list[Record]:
        records = [record(line) for line in lines]
        for each in records:
            each.fields = dict(fields) if fields is not None else None  # type: ignore[misc]
        together = made("format", name=name).apply(batch(*records))
        assert together is not None
        return together.records

    assert apply(*lines) == [each for line in lines for each in apply(line)]


@pytest.mark.parametrize("engines", ["2026-11-22T20:06:26.12", "2026-11-23 20:06:26", "yesterday", ""])
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("nginx", "2026/11/23 20:06:26 [error] 12#13: open() failed"),
        ("syslog", "Nov 23 20:06:26 host app[12]: hi"),
    ],
)
def test_an_engine_with_odd_times_costs_no_other_record_anything(name: str, line: str, engines: str) -> None:
    odd = record(line)
    odd.time = engines
    first, second, third = made("format", name=name).apply(batch(record(line), odd, record(line))).records  # type: ignore[union-attr]
    assert first == third == parsed(name, line)
    assert (second.message, second.level) == (first.message, first.level)
    assert second.fields is not None
    assert (second.fields | {"time": ""}) == ((first.fields or {}) | {"time": ""})


@pytest.mark.parametrize("name", FORMATS)
def test_other_lines_pass_by(name: str, apply: Apply) -> None:
    for line in ("", "hello", "{}", '1.2.3.4 - - [x] "', "I1123 x", "<1>1", "<999999>", "1:M"):
        assert apply("format", record(line), name=name) == [record(line)]


def test_times_are_in_the_zone_that_is_said() -> None:
    line = "1:M 23 Nov 2026 21:06:25.123 * x"
    assert parsed("redis", line, zone="Europe/Berlin").time == "2026-11-23T20:06:25.123000000Z"
    with pytest.raises(ValueError, match="no time zone 'Mars'"):
        made("format", name="redis", zone="Mars")


def test_a_time_far_from_the_engines_stays_a_field_and_is_marked() -> None:
    for name, said, line in (
        ("redis", "23 Nov 1970 21:06:25.123", "1:M {} * x"),
        ("redis", "23 Nov 9999 21:06:25.123", "1:M {} * x"),
        ("syslog", "9999-11-23T21:06:25Z", "<34>1 {} web su - ID47 - x"),
    ):
        processor = made("format", name=name)
        for count in (1, 9):  # alone, and in columns
            for found in processor.apply(batch(*[record(line.format(said)) for _ in range(count)])).records:  # type: ignore[union-attr]
                assert found.time == TIME
                assert found.fields is not None
                assert found.fields["time"] == said
                assert "7 days" in found.error
        assert processor.books.failed == 10


def test_numbers_beyond_64_bits_stay_texts() -> None:
    found = parsed("nginx", COMBINED.replace("1234", "9" * 5000))
    assert found.fields is not None
    assert found.fields["bytes"] == "9" * 5000


LINES = [
    COMBINED,
    "<134>Nov 23 20:06:25 h haproxy[1]: 1.1.1.1:1 [x] f b/s",
    "[WARNING]  (1) : x",
    "E1123 20:06:25.1 1 a.go:1] x",
    "<34>1 - h p - - [a b=",
    "1.1.1.1:1 [x] f b/s 1/1",
    "[M",
]


@pytest.mark.parametrize("name", FORMATS)
def test_a_megabyte_that_almost_matches_is_no_harm(name: str) -> None:
    for line in LINES:
        for cut in range(0, len(line), 7):
            for filler in ("a", "1", '\\"', "[a]", "- ", "1/"):
                parsed(name, line[:cut] + filler * (20_000 // len(filler)))
    parsed(name, '1.1.1.1 - - [23/Nov/2026:20:06:25 +0000] "GET /' + "a" * (1 << 20))


@given(
    st.sampled_from(list(FORMATS)),
    st.sampled_from(LINES),
    st.integers(0, 200),
    st.text() | st.binary().map(lambda data: data.decode("utf-8", "replace")),
)
def test_whatever_comes_a_record_goes_on(name: str, line: str, cut: int, text: str) -> None:
    assert encode_json(WEB, [parsed(name, line[:cut] + text + line[cut + 1 :])]).count(b"\n") == 1
    assert encode_json(WEB, [parsed(name, text)]).count(b"\n") == 1
