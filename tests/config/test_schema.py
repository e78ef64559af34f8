"""The JSON Schema is one, and says what the daemon says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from logroute.config.components import PROCESSORS, SINKS, SOURCES
from logroute.config.load import load_config
from logroute.config.problems import ConfigError, Problem
from logroute.config.schema import MATCH_KEYS, config_schema, route_schema
from logroute.config.variables import Variables
from logroute.config.yaml_file import parse_yaml
from logroute.router.match import Match
from tests.config.conftest import Folder
from tests.config.json_schema import KEYWORDS, check_schema, errors, schemas_in

# INTERFACE's example, as far as there is what it names.
EXAMPLE = """\
state_dir: /var/lib/logroute
include: []

sources:
  docker:
    host: unix:///var/run/docker.sock
    read: auto
    include: {container: [web-*, api]}
    start: now

routes:
  search:
    match: {not: {container: noisy-*}, label.tier: ">=2"}
    sink: "stdout:"
    queue: {memory: 32MiB}
    batch: {bytes: 5MiB, records: 10000, wait: 1s}
    retry: {initial: 500ms, max: 60s, give_up: never}
    start: 24h
  audit:
    match: {label: {audit: "true"}, stream: [stdout, stderr]}
    sink: "file:///logs/audit.ndjson?format=raw"
  archive:
    sink:
      type: file
      path: "/logs/{container.name}/{time:%Y-%m-%d}.ndjson"
      rotate: {size: 100MiB, every: 1d, keep: 10, age: 30d, total: 10GiB, idle: 10m}
      compress: zstd

limits: {memory: 256MiB, record: 1MiB, grace: 30s}
"""


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return config_schema()


def data(text: str) -> Any:
    """A file as an editor sees it: variables stay as they are written."""
    problems: list[Problem] = []
    read = parse_yaml("x.yaml", text, Written({}, Path()), problems)
    assert not problems
    assert read is not None
    return read.data


class Written(Variables, frozen=True):
    def fill(self, text: str, tell: object) -> str:
        return text


def wrong(text: str, schema: Any) -> list[str]:
    return errors(data(text), schema, schema)


def test_it_is_a_schema_of_draft_2020_12(schema: Any) -> None:
    check_schema(schema, schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "logroute.yaml"
    assert json.loads(json.dumps(schema)) == schema


def test_the_check_finds_what_is_no_schema(schema: Any) -> None:
    for broken in (
        {"typ": "string"},
        {"type": "text"},
        {"$ref": "#/$defs/none"},
        {"anyOf": []},
        {"properties": {"a": {"minimum": "1"}}},
        {"description": " "},
    ):
        with pytest.raises(AssertionError):
            check_schema(broken, schema)


def test_every_option_has_a_description_and_every_definition_is_used(schema: Any) -> None:
    used: set[str] = set()

    def look(below: Any, at: str) -> None:
        for name, option in below.get("properties", {}).items():
            assert option.get("description"), f"{at}.{name}"
        if "$ref" in below:
            used.add(below["$ref"].removeprefix("#/$defs/"))
        for place, inner in schemas_in(below):
            look(inner, f"{at}/{place}")

    look(schema, "#")
    assert used == schema["$defs"].keys()


def test_every_component_stands_in_it(schema: Any) -> None:
    types = {definition["properties"]["type"].get("const", "null") for definition in schema["$defs"].values()
             if "type" in definition.get("properties", {})}  # fmt: skip
    assert types == {*SINKS.types(), *SOURCES.types(), *PROCESSORS.types()}


def test_the_example_of_everything_validates_and_loads(schema: Any, folder: Folder) -> None:
    assert wrong(EXAMPLE, schema) == []
    assert list(folder.load(EXAMPLE).routes) == ["search", "audit", "archive"]


def test_a_route_alone_is_what_one_of_the_configuration_is_without_variables(schema: Any) -> None:
    route = route_schema()
    check_schema(route, route)
    assert schema == config_schema(), "made of it, and it is left as it was"
    assert route["properties"].keys() == schema["$defs"]["RouteOptions"]["properties"].keys()
    assert route["$defs"].keys() < schema["$defs"].keys()
    assert "DockerOptions" not in route["$defs"], "nothing that a route does not have"
    for said in data(EXAMPLE)["routes"].values():
        assert errors(said, route, route) == []
    variable = {"sink": "null:", "batch": {"wait": "${WAIT}"}}
    assert wrong(f"routes: {{all: {json.dumps(variable)}}}", schema) == []
    assert errors(variable, route, route) != []


ALL = "routes: {all: {sink: 'null:'}}\n"


@pytest.mark.parametrize(
    "text",
    [
        ALL,
        ALL + "sources: {docker: }",
        ALL + "sources: {a: {type: docker}, b: {type: docker, start: 2h}}",
        ALL + "state_dir: null",
        "routes: {all: {sink: {type: null}}}",
        "routes: {all: {sink: {type: 'null'}, batch: {bytes: 5, records: null}}}",
        "routes: {all: {sink: 'null:', match: {any: [{container: 5}, {label: {a: [b, c]}}]}}}",
        "routes: {all: {sink: 'null:', match: {all: [{image: x}, {label: y}], label.z: true}}}",
        "routes: {all: {sink: 'null:', match: {not: [{label.x: y}, {compose: {project: z}}]}}}",
        "routes: {all: {sink: 'null:', match: 'level >= warn and not container ~ \"noisy-*\"'}}",
        "routes: {all: {sink: 'null:', match: {level: '>=warn', message: /x/, fields: {status: 500}}}}",
        ALL + "sources: {docker: {include: 'label.team'}}",
        ALL + "processors: [{type: json, when: label.json}, {type: filter, match: 'fields.a = 1'}]",
        ALL + "tests: [{name: x, given: {line: a}, expect: {all: [{message: a}]}}]",
        ALL + "tests: [{name: x, given: [{line: [a, b]}], expect: {all: []}}]",
        'routes: {all: {sink: "${SINK}", start: "${S:-2h}", queue: {memory: "${M:-1MiB}"}}}',
        'routes: {all: {sink: {type: file, path: /x, max_open: "${N:-3}", fsync: "${F:-true}"}}}',
        'routes: {all: {sink: {type: file, path: /x, compress: "${C:-zstd}", rotate: {size: "1.5 KiB"}}}}',
    ],
)
def test_what_the_daemon_takes_the_schema_takes(schema: Any, folder: Folder, text: str) -> None:
    assert wrong(text, schema) == []
    folder.environ = {"SINK": "null:"}
    folder.load(text)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "routes: {}",
        "routes: [a]",
        ALL + "route: {}",
        ALL + "sources: {}",
        ALL + "sources: {docker: {read: never}}",
        ALL + "include: x",
        ALL + "state_dir: 3",
        ALL + "limits: {grace: 30}",
        ALL + "limits: {grace: soon}",
        "routes: {all: {}}",
        "routes: {all: {sink: {path: /x}}}",
        "routes: {all: {sink: {type: file}}}",
        "routes: {all: {sink: {type: fiel, path: /x}}}",
        "routes: {all: {sink: {type: file, path: /x, pth: /y}}}",
        "routes: {all: {sink: {type: file, path: 5}}}",
        "routes: {all: {sink: {type: file, path: /x, rotate: {size: big}}}}",
        "routes: {all: {sink: {type: file, path: /x, rotate: {size: 5MB!}}}}",
        "routes: {all: {sink: {type: file, path: /x, rotate: {keep: -1}}}}",
        "routes: {all: {sink: {type: file, path: /x, max_open: true}}}",
        "routes: {all: {sink: 'null:', start: yesterday}}",
        "routes: {all: {sink: 'null:', batch: {records: 0}}}",
        "routes: {all: {sink: 'null:', match: [x]}}",
        "routes: {all: {sink: 'null:', match: {any: [level >= warn]}}}",
        ALL + "tests: [{name: x, given: [], expect: {all: []}}]",
        "routes: {all: {sink: 'null:', match: {any: {container: x}}}}",
        "routes: {all: {sink: 'null:', match: {any: []}}}",
        "routes: {all: {sink: 'null:', match: {container: null}}}",
    ],
)
def test_what_the_schema_refuses_the_daemon_refuses(schema: Any, folder: Folder, text: str) -> None:
    assert wrong(text, schema) != []
    folder.write({"logroute.yaml": text})
    with pytest.raises(ConfigError):
        load_config(Path("logroute.yaml"))


def test_defaults_are_as_somebody_would_write_them(schema: Any) -> None:
    definitions = schema["$defs"]
    assert definitions["LimitOptions"]["properties"]["memory"]["default"] == "256MiB"
    assert definitions["LimitOptions"]["properties"]["grace"]["default"] == "30s"
    assert definitions["RouteOptions"]["properties"]["match"]["default"] == {}
    assert definitions["FileOptions"]["properties"]["fsync"]["default"] is False
    assert "default" not in definitions["BatchOptions"]["properties"]["bytes"]


def test_defaults_and_examples_validate(schema: Any) -> None:
    def look(below: Any, at: str) -> None:
        for value in ([below["default"]] if "default" in below else []) + below.get("examples", []):
            assert errors(value, below, schema) == [], at
        for place, inner in schemas_in(below):
            look(inner, f"{at}/{place}")

    # mode is a number to pydantic, and takes the text too
    schema["$defs"]["FileOptions"]["properties"]["mode"].pop("examples", None)
    look(schema, "#")


def test_the_keys_of_a_match_are_those_that_a_match_takes(schema: Any) -> None:
    values = {"level": "warn", "time": ">=2026-11-23", "fields": {"status": 500}}
    for key in MATCH_KEYS:
        assert key in schema["$defs"]["match"]["properties"]
        Match.parse({key: values.get(key, "stdout")})


def test_the_checker_knows_each_keyword_that_asserts(schema: Any) -> None:
    instance_checks = {
        "type": [5, {"type": "string"}],
        "const": [1, {"const": True}],
        "enum": ["c", {"enum": ["a", "b"]}],
        "anyOf": [5, {"anyOf": [{"type": "string"}, {"type": "null"}]}],
        "properties": [{"a": 5}, {"properties": {"a": {"type": "string"}}}],
        "additionalProperties": [{"b": 5}, {"properties": {"a": {}}, "additionalProperties": False}],
        "required": [{}, {"required": ["a"]}],
        "minProperties": [{}, {"minProperties": 1}],
        "items": [[5], {"items": {"type": "string"}}],
        "minItems": [[], {"minItems": 1}],
        "minLength": ["", {"minLength": 1}],
        "maxLength": ["ab", {"maxLength": 1}],
        "pattern": ["b", {"pattern": "^a"}],
        "minimum": [0, {"minimum": 1}],
        "maximum": [2, {"maximum": 1}],
        "exclusiveMinimum": [0, {"exclusiveMinimum": 0}],
        "$ref": ["x", {"$ref": "#/$defs/variable"}],
    }
    annotations = {"$schema", "$defs", "title", "description", "default", "examples"}
    assert instance_checks.keys() | annotations == KEYWORDS.keys()
    for value, each in instance_checks.values():
        assert errors(value, each, schema), each
