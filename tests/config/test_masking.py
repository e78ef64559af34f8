"""Nothing secret is shown, in whichever form it was written; and what is not secret is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from logroute.config.masking import holds_mask, masked, masked_route

SINKS = [
    "https://h.example/?headers.X-Api-Key=S3CRET",
    "https://h.example/?headers.DD-API-KEY=S3CRET&headers.Accept=S3CRET",
    "https://h.example/?headers%2EX-K=S3CRET",
    "https://ada:S3CRET@h.example/x?encoding=json",
    "https://ada:S3@S3CRET@h.example/x",
    "https://h.example/?username=ada&password=S3CRET",
    "splunk+https://h.example?token=S3CRET",
    "forward://h.example?shared_key=S3CRET",
    "elasticsearch+https://ada:S3CRET@h.example/x",
    "elasticsearch+https://h.example/x?auth.api_key=S3CRET",
    "elasticsearch+https://h.example/x?auth.bearer=S3CRET",
    "https://h.example/?proxy=http://u:S3CRET@p.example",
    "https://h.example/?proxy=http%3A%2F%2Fu%3AS3CRET%40p.example",
    "kafka://h.example?sasl.password=S3CRET",
    {"type": "http", "url": "https://ada:S3CRET@h.example/x"},
    {"type": "http", "url": "https://h.example/x?key=S3CRET&sig=S3CRET&accesstoken=S3CRET"},
    {"type": "http", "url": "https://h.example/x", "headers": {"X-K": "S3CRET"}},
    {"type": "http", "url": "https://h.example/x", "proxy": "http://u:S3CRET@p.example"},
    {"type": "elasticsearch", "hosts": ["http://ada:S3CRET@h.example"], "auth": {"api_key": "S3CRET"}},
    {"type": "kafka", "sasl": {"password": "S3CRET"}},
]


@pytest.mark.parametrize("sink", SINKS, ids=str)
def test_a_secret_of_a_sink_is_not_shown(sink: Any) -> None:
    for shown in (masked_route({"sink": sink}), masked({"routes": {"all": {"sink": sink}}})):
        text = json.dumps(shown)
        assert "S3" not in text
        assert holds_mask(shown)
        assert "h.example" in text or "kafka" in text


def test_the_key_of_hashes_is_a_secret_and_the_field_that_is_looked_up_is_none() -> None:
    processors = [
        {"type": "redact", "with": "hash", "key": "S3CRET"},
        {"type": "lookup", "file": "hosts.csv", "key": "fields.ip", "into": "fields.host"},
    ]
    found = masked({"processors": processors, "routes": {"all": {"processors": processors}}})
    for shown in (found["processors"], found["routes"]["all"]["processors"]):
        assert [each["key"] for each in shown] == ["***", "fields.ip"]


@pytest.mark.parametrize(
    "sink",
    [
        "https://h.example:8080/x@y?encoding=json&format=%7Bmessage%7D&tls.key=/etc/key.pem",
        "https://h.example/?headers.X-K=${KEY}&headers.Y=${file:/run/secrets/y}",
        "https://ada:${PASSWORD}@h.example/x",
        "https://ada:${file:/run/secrets/password}@h.example/x",
        "https://${USER:-ada}:${PASSWORD:-${file:/run/p}}@h.example/x?token=${TOKEN}",
        "file:///logs/{container.name}.ndjson?format=raw&rotate.size=100MiB",
        "syslog+tcp://h.example:514?facility=local3",
        {"type": "http", "url": "https://h.example/x?tenant=a&y=1", "headers": {"X-K": "${KEY}"}},
        {"type": "forward", "address": "tls://h.example", "tls": {"key": "/etc/key.pem"}},
    ],
    ids=str,
)
def test_what_is_not_secret_is_shown_as_it_was_written(sink: Any) -> None:
    assert masked_route({"sink": sink}) == {"sink": sink}
    assert not holds_mask({"sink": sink})


@pytest.mark.parametrize(
    ("sink", "shown"),
    [
        (
            "https://ada:a@b@h.example/x?encoding=json&headers.A=1&headers.B=x${KEY}",
            "https://ada:***@h.example/x?encoding=json&headers.A=***&headers.B=***",
        ),
        ("https://ada:pre${file:/run/p}@h.example/x", "https://ada:***@h.example/x"),
        ("elasticsearch://h.example/i?auth.username=eve&compress=gzip&auth.password=p", None),
        (["https://h.example?headers.A=b"], ["https://h.example?headers.A=***"]),
        ("https://[h.example?headers.A=b", "https://[h.example?headers.A=***"),
        ("?headers.A=b", "?headers.A=***"),
    ],
)
def test_only_what_is_secret_is_masked(sink: Any, shown: Any) -> None:
    if shown is None:
        shown = "elasticsearch://h.example/i?auth.username=***&compress=gzip&auth.password=***"
    assert masked_route({"sink": sink}) == {"sink": shown}


@pytest.mark.parametrize("body", [None, [], "x", {"sink": None}, {"sink": 1, "processors": {"a": [{}]}}])
def test_what_is_no_route_is_shown_all_the_same(body: Any) -> None:
    assert masked_route(body) == body
