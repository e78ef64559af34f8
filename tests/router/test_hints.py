"""Labels of containers: what they may ask for, and that what makes no sense changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from logroute.config.model import Config
from logroute.config.plans import plans_before, stage_plans
from logroute.router.hints import PARSERS, nonsense
from logroute.router.record import Origin, Record
from logroute.router.route import Route, RouteSettings
from logroute.router.router import Router
from logroute.router.trial import try_out
from tests.router.stand_ins import StandInSink

TIME = "2026-11-23T20:06:26.123456789Z"
LINE = '{"msg":"login","user":"ada","team":"json"}'


def delivered(config: dict[str, Any], labels: dict[str, str], *lines: str) -> dict[str, list[Any]]:
    """Message and fields of what each route delivers of some lines."""
    routes = {"routes": {"search": {"sink": "null:"}, "audit": {"sink": "null:"}}}
    parsed = Config.model_validate(routes | config)
    plans = {
        name: (route.match, stage_plans(name, route.processors)) for name, route in parsed.routes.items()
    }
    origin = Origin("docker:1", "docker", id="1" * 64, name="web-1", labels=labels)
    given = [(origin, [Record(line, "stdout", TIME) for line in lines or (LINE,)])]
    taken = trio.run(try_out, plans_before(parsed), plans, given)
    return {route: [(r.message, r.fields) for _, r in records] for route, records in taken.items()}


def test_a_container_without_labels_is_as_it_was() -> None:
    assert delivered({}, {}) == {"search": [(LINE, None)], "audit": [(LINE, None)]}


@pytest.mark.parametrize(
    ("asked", "routes"),
    [
        ("search", ["search"]),
        ("search,audit", ["audit", "search"]),
        (" audit , nowhere", ["audit"]),
        ("nowhere", ["audit", "search"]),  # makes no sense, and changes nothing
        ("", ["audit", "search"]),
    ],
)
def test_a_container_narrows_its_routes(asked: str, routes: list[str]) -> None:
    taken = delivered({}, {"logroute.routes": asked})
    assert sorted(name for name, records in taken.items() if records) == routes


def test_it_gets_no_further_than_the_matches_let_it() -> None:
    config = {"routes": {"search": {"match": {"container": "api-*"}, "sink": "null:"}}}
    assert delivered(config, {"logroute.routes": "search"}) == {"search": []}


def test_a_container_has_its_lines_parsed() -> None:
    taken = delivered({}, {"logroute.parser": "json"})
    assert taken["search"] == [("login", {"user": "ada", "team": "json"})]


@pytest.mark.parametrize("name", PARSERS)
def test_each_parser_that_a_label_may_name_is_there(name: str) -> None:
    assert delivered({}, {"logroute.parser": name}, "just words")["search"][0][0] == "just words"


@pytest.mark.parametrize(
    ("name", "line", "fields"),
    [
        ("logfmt", "user=ada n=1", {"user": "ada", "n": "1"}),
        ("auto", "user=ada n=1", {"user": "ada", "n": "1"}),
        ("redis", "1:M 23 Nov 2026 20:06:26.123 * Ready to accept connections", {"pid": 1, "role": "M"}),
    ],
)
def test_what_parsers_make_of_lines(name: str, line: str, fields: dict[str, Any]) -> None:
    assert delivered({}, {"logroute.parser": name}, line)["search"][0][1] == fields


def test_where_the_configuration_parses_the_label_is_not_heard() -> None:
    labels = {"logroute.parser": "json"}
    parser = {"type": "json", "target": "root"}
    inner = '{"msg":"{\\"a\\":1}"}'
    for when in ("web-*", "api-*"):  # parsed twice it would be the field `a`
        config = {"processors": [parser | {"when": {"container": when}}]}
        [(message, fields)] = delivered(config, labels, inner)["search"]
        assert (message, fields or {}) == ('{"a":1}', {})


@pytest.mark.parametrize("when", ["web-*", "api-*"])
def test_lines_of_a_trace_are_joined_unless_the_configuration_joins_them(when: str) -> None:
    labels = {"logroute.multiline": "python"}
    trace = "Traceback (most recent call last):\n  File x\nE: y"
    assert [message for message, _ in delivered({}, labels, *trace.split("\n"))["search"]] == [trace]
    ours = {"type": "multiline", "start": ".", "when": {"container": when}}
    taken = delivered({"processors": [ours]}, labels, *trace.split("\n"))
    assert [message for message, _ in taken["search"]] == (trace.split("\n") if when == "web-*" else [trace])


def test_a_container_gives_itself_fields_and_the_configuration_has_the_last_word() -> None:
    labels = {"logroute.fields.team": "pay", "logroute.fields.a.b": "{time}\n", "logroute.parser": "json"}
    ours = {"type": "add_fields", "fields": {"team": "ours"}}
    assert delivered({}, labels)["search"] == [("login", {"user": "ada", "team": "pay", "a.b": "{time}\n"})]
    [(_, fields)] = delivered({"processors": [ours]}, labels)["search"]
    assert fields["team"] == "ours"


@pytest.mark.parametrize(
    ("label", "value", "says"),
    [
        ("logroute.routes", "serch", 'logroute.routes: there is no route "serch"; did you mean "search"?'),
        ("logroute.routes", " , ", "logroute.routes names no route"),
        ("logroute.parser", "jsn", 'logroute.parser: there is no parser "jsn"; did you mean "json"?'),
        ("logroute.parser", "python", 'logroute.parser: there is no parser "python"; there are json,'),
        (
            "logroute.multiline",
            "jav",
            'logroute.multiline: there are no traces of "jav"; did you mean "java"?',
        ),
        ("logroute.fields.", "x", "logroute.fields. names no field"),
        (
            "logroute.enable",
            "flase",
            'logroute.enable: "flase" is neither true nor false; did you mean "false"?',
        ),
        ("logroute.enable", "", 'logroute.enable: "" is neither true nor false'),
        (
            "logroute.field.team",
            "x",
            'there is no label logroute.field.team; did you mean "logroute.fields.team"?',
        ),
        ("logroute.fields", "x", 'there is no label logroute.fields; did you mean "logroute.fields.…"?'),
        ("Logroute.Parser", "json", 'there is no label Logroute.Parser; did you mean "logroute.parser"?'),
        ("logroute.parsr", "json", 'there is no label logroute.parsr; did you mean "logroute.parser"?'),
    ],
)
def test_what_makes_no_sense_is_said(label: str, value: str, says: str) -> None:
    [told] = nonsense(Origin("docker:1", "docker", labels={label: value, "other": "x"}), ["search"])
    assert told.startswith(says)


def test_what_makes_sense_is_not() -> None:
    labels = {
        "logroute.enable": "true",
        "logroute.routes": "search",
        "logroute.parser": "json",
        "logroute.multiline": "go",
        "logroute.fields.team": "",
        "logroute.demo": "4711",
    }
    assert nonsense(Origin("docker:1", "docker", labels=labels), ["search"]) == []


async def test_the_router_narrows_and_says_nonsense_once() -> None:
    router = Router()
    for name in ("search", "audit"):
        settings = RouteSettings(name)
        router.add(Route(settings, StandInSink, state_folder=None, on_room=router.room_again))
    labels = {"logroute.routes": "audit,serch"}
    origin = Origin("docker:1", "docker", name="web-1", labels=labels)
    with capture_logs() as said:
        assert [route.name for route in router.routes_of(origin)] == ["audit"]
        router.changed("audit")
        assert [route.name for route in router.routes_of(origin)] == ["audit"]
    assert [(entry["event"], entry["container"], entry["reason"]) for entry in said] == [
        (
            "a label makes no sense, and changes nothing",
            "web-1",
            'logroute.routes: there is no route "serch"; did you mean "search"?',
        )
    ]
