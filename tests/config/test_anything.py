"""Whatever stands in a file, it is a configuration or a ConfigError that says where it is none."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from logroute.config.load import LoadedConfig, load_config
from logroute.config.model import RouteOptions
from logroute.config.problems import ConfigError

WORDS = st.sampled_from(
    [
        *("state_dir", "include", "sources", "processors", "routes", "limits", "docker", "all", "match"),
        *("sink", "type", "file", "stdout:", "null", "path", "format", "rotate", "size", "queue", "memory"),
        *("file:///x", "start", "now", "1d", "5MiB", "any", "not", "container", "label.x", "stream", "<<"),
        *("${HOME}", "${NONE:-x}", "${file:/nothing}", "{container.name}", "/(/", "*", "&a", "*a", "!!str"),
        *("logroute.yaml", "*.yaml", "batch", "retry", "read", "host", "http://[x", "file:///x?a.b=c&a=d"),
    ]
)
SCALARS = st.one_of(WORDS, st.text(max_size=20), st.integers(), st.floats(), st.booleans(), st.none())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(WORDS, st.text(max_size=8)), inner, max_size=4)
    ),
    max_leaves=25,
)
CONFIGURATIONS = st.fixed_dictionaries(
    {},
    optional={
        "state_dir": VALUES,
        "include": st.one_of(VALUES, st.lists(st.one_of(WORDS, st.text(max_size=5)), max_size=3)),
        "sources": st.one_of(VALUES, st.dictionaries(WORDS, VALUES, max_size=3)),
        "processors": VALUES,
        "routes": st.one_of(
            VALUES,
            st.dictionaries(
                st.text(max_size=5),
                st.fixed_dictionaries(
                    {},
                    optional=dict.fromkeys(RouteOptions.model_fields, VALUES),
                ),
                max_size=3,
            ),
        ),
        "limits": VALUES,
        "other": VALUES,
    },
)


def load(content: bytes, *uris: str) -> LoadedConfig | None:
    """What becomes of a file; None where it is a ConfigError, which is checked."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "logroute.yaml")
        path.write_bytes(content)
        try:
            return load_config(path, uris, environ={"HOME": "/home/ada"})
        except ConfigError as error:
            check(error, content)
        return None


def check(error: ConfigError, content: bytes) -> None:
    lines = str(error).split("\n")
    assert len(lines) == len(error.problems) == len(set(error.problems)) > 0
    assert all(line.isprintable() for line in lines)
    assert all(problem.message for problem in error.problems)
    ends = sum(content.decode(errors="ignore").count(end) for end in ("\n", "\r", *NEWLINES))
    assert all(problem.line <= ends + 1 for problem in error.problems)


# ruamel, as YAML 1.1 did, takes these for ends of lines.
NEWLINES = "\x85\u2028\u2029"


@settings(max_examples=400, deadline=None)
@given(st.text())
@example("a: !!omap [b: c]")
@example('a: "\\U00110000"')
@example("%YAML 99999999999999.9\n---\n")
@example("? ")
@example("!")
@example("&a *a")
@example("%TAG ! !\n--- !<x> a")
def test_any_text_is_a_configuration_or_a_mistake(text: str) -> None:
    load(text.encode(errors="replace"))


@settings(max_examples=200, deadline=None)
@given(st.binary())
def test_any_bytes_are_a_configuration_or_a_mistake(content: bytes) -> None:
    load(content)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(WORDS, st.sampled_from(list("{}[],:-?|>'\"#%@`! \n\t"))), max_size=40))
def test_any_words_are_a_configuration_or_a_mistake(words: list[str]) -> None:
    load("".join(words).encode())


@settings(max_examples=400, deadline=None)
@given(CONFIGURATIONS)
def test_any_values_are_a_configuration_or_a_mistake(values: dict[str, Any]) -> None:
    load(written(values).encode(errors="replace"))


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.lists(st.one_of(WORDS, st.sampled_from(list(":/?&=#@[]%")))).map("".join)))
def test_any_uri_is_a_route_or_a_mistake(uri: str) -> None:
    load(b"routes: {all: {sink: 'null:'}}", uri)


def written(value: Any) -> str:
    """JSON, which is YAML, with what JSON does not have."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{written(key)}: {written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, float):
        return repr(value).replace("inf", ".inf").replace("nan", ".nan")
    if isinstance(value, int):
        return str(value)
    escaped = (c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value)
    return f'"{"".join(escaped)}"'


def test_the_generators_make_configurations_too() -> None:
    text = written({"routes": {"a\n": {"sink": {"type": "file", "path": '/"x\\'}}}, "limits": {}})
    assert load(text.encode()) is None
    loaded = load(text.replace("\\U0000000a", "").encode())
    assert loaded is not None
    assert loaded.config.routes["a"].sink.model_dump()["path"] == '/"x\\'


@pytest.mark.parametrize("character", [*NEWLINES, "\r", "\r\n"])
def test_lines_end_where_ruamel_says(character: str) -> None:
    assert load(f"a: 1{character}b: 2\n".encode()) is None
