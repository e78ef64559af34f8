"""URIs and mappings are one model; and how a URI is shown."""

from __future__ import annotations

import pytest

from logroute.config.uri import UriError, parse_uri, route_names, shown
from tests.config.conftest import Folder


@pytest.mark.parametrize(
    ("uri", "mapping"),
    [
        ("stdout:", "{type: stdout}"),
        ("stdout:?format=raw", "{type: stdout, format: raw}"),
        ("null:", "{type: 'null'}"),
        ("file:///logs/all.ndjson", "{type: file, path: /logs/all.ndjson}"),
        ("file:/logs/all.ndjson", "{type: file, path: /logs/all.ndjson}"),
        ("file://localhost/logs/a%20b", "{type: file, path: /logs/a b}"),
        (
            "file:///logs/{container.name}/{time:%Y-%m-%d}.ndjson",
            "{type: file, path: '/logs/{container.name}/{time:%Y-%m-%d}.ndjson'}",
        ),
        (
            "file:///x?format={time}+{message}&fsync=true&max_open=7&compress=zstd&mode=0600",
            "{type: file, path: /x, format: '{time} {message}', fsync: true, max_open: 7, compress: zstd, "
            "mode: '0600'}",
        ),
        (
            "file:///x?rotate.size=100MiB&rotate.every=1d&rotate.keep=3&rotate.idle=90s",
            "{type: file, path: /x, rotate: {size: 100MiB, every: 1d, keep: 3, idle: 90s}}",
        ),
    ],
)
def test_a_uri_and_a_mapping_are_the_same_model(folder: Folder, uri: str, mapping: str) -> None:
    by_uri = folder.load(f"routes: {{all: {{sink: '{uri}'}}}}")
    by_mapping = folder.load(f"routes: {{all: {{sink: {mapping}}}}}")
    by_command_line = folder.load(None, uri)
    assert by_uri.routes == by_mapping.routes
    assert list(by_command_line.routes.values()) == [by_mapping.routes["all"]]


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("file://host/x", "file://host/x: file:// takes no host; write file:///host/x"),
        ("stdout:/x", "stdout:/x: stdout: takes no path; for the file '/x' write file:///x"),
        ("file:///x?rotate=1&rotate.size=2", "the parameter 'rotate.size' is given twice in two ways"),
        ("file:///x?rotate.size=2&rotate=1", "the parameter 'rotate' is given twice in two ways"),
        ("", "'' has no scheme, such as file:///tmp/all.ndjson"),
        ("FIEL://x", 'there is no sink for "fiel:"; did you mean "file"?'),
        ("1x://x", "'1x://x' has no scheme, such as file:///tmp/all.ndjson"),
    ],
)
def test_a_uri_that_means_no_sink_is_told(uri: str, said: str) -> None:
    with pytest.raises(UriError) as caught:
        parse_uri(uri)
    assert str(caught.value) == said


def test_an_encoding_that_does_not_exist_is_told_with_those_that_do(folder: Folder) -> None:
    there_are = "'ndjson', 'json', 'text', 'loki', 'otlp', 'splunk' or 'gelf'"
    assert folder.mistake(None, "http://h/?encoding=njdson") == (
        f'http://h/?encoding=…: encoding: expected {there_are}; did you mean "ndjson"?'
    )
    assert folder.mistake(None, "https://ada:hunter2@h/?encoding=protobuf") == (
        f"https://ada:***@h/?encoding=…: encoding: expected {there_are}"
    )


def test_an_option_that_is_given_twice_is_told(folder: Folder) -> None:
    mistake = folder.mistake(None, "file:///x?format=raw&format=json")
    assert mistake == "file:///x?format=…&format=…: format: expected a text, not a list"


@pytest.mark.parametrize(
    ("uri", "as_shown"),
    [
        ("file:///x", "file:///x"),
        ("elasticsearch+https://ada:pass@es:9200/i", "elasticsearch+https://ada:***@es:9200/i"),
        ("https://ada@host/x", "https://ada@host/x"),
        ("https://:pass@host", "https://:***@host"),
        ("https://ada:p:a@s@s@host/x", "https://ada:***@host/x"),
        ("https://ada:pa/ss@host/x", "https://ada:***@host/x"),
        ("https://ada:pa?ss@host/x", "https://ada:***@host/x"),
        ("https://ada:pa#ss@host/x", "https://ada:***@host/x"),
        ("https://ada:pa\nss@host/x", "https://ada:***@host/x"),
        ("ada:pass@host", "ada:***@host"),
        ("//ada:pass@host", "//ada:***@host"),
        ("syslog:ada:pass@host", "syslog:***@host"),
        ("https://host/x?token=secret&a&b=", "https://host/x?token=…&a=…&b=…"),
        ("https://ada:pass@host/x?token=secret", "https://ada:***@host/x?token=…"),
        ("https://ada:pass@host/x?to=a@b.c", "https://ada:***@b.c"),
    ],
)
def test_a_uri_is_shown_without_its_secrets(uri: str, as_shown: str) -> None:
    assert shown(uri) == as_shown


def test_a_password_on_the_command_line_is_in_no_error(folder: Folder) -> None:
    for uri in (
        "kafka://ada:hunter2@host/x",
        "file://ada:hunter2@host/x",
        "ada:hunter2@host",
        "//ada:hunter2@host",
        "file:///x?password=hunter2",
        "file:///x?max_open=hunter2",
        "file:///x?type=hunter2",
        "https://ada:hunter2@[host/x",
        "https://ada:hunter2@host:99999/x",
        "https://ada:hunter2@host/x?hots=y",
        "syslog+tcp://ada:hunter2@host",
        "syslog+tcp://ada:hunter2@host:99999",
    ):
        assert "hunter2" not in "".join(folder.mistakes(None, uri)), uri


def test_routes_of_uris_are_called_after_their_schemes() -> None:
    uris = ["file:///a", "stdout:", "file:///b", "x", "file:///c", "http://[x"]
    assert route_names(uris, {"stdout", "file-2"}) == [
        *("file", "stdout-2", "file-3", "route", "file-4", "http")
    ]
