"""The page of options is what the models say now."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from logroute.config.components import PROCESSORS, SINKS, SOURCES
from logroute.config.documentation import document, models_in
from logroute.config.model import Config, RouteOptions
from logroute.config.reference import page

PAGE = Path(__file__).parents[2] / "docs" / "options.md"


@pytest.fixture(scope="module")
def text() -> str:
    return page()


def test_the_page_is_not_stale(text: str) -> None:
    assert PAGE.read_text() == text, "the models have changed: run `make docs`"


def test_every_option_has_a_row_with_its_type_and_its_docstring(text: str) -> None:
    models = [Config, RouteOptions]
    for registry in (SINKS, SOURCES, PROCESSORS):
        for type_ in registry.types():
            assert f"\n### `{type_}`\n" in text
            models.append(document(registry.options(type_)))
    rows = re.findall(r"^\| (?:\*\*)?`(\w+)`(?:\*\*)? \| (.+?) \| (.*?) \| (.+) \|$", text, re.MULTILINE)
    documented = {name for name, type_, _, about in rows if type_ and about}
    while models:
        model = models.pop()
        for name, field in model.model_fields.items():
            assert (field.alias or name) in documented | {"type"}, f"{model.__name__}.{name}"
            models += [below for below in models_in(field.annotation) if below is not RouteOptions]
    assert not re.search(r"\| value \|", text)


@pytest.mark.parametrize(
    "row",
    [
        "| **`path`** | text |  | Path of the file, a template.",
        "| **`sink`** | URI or [sink](#sinks) |  | Where they go",
        "| `match` | match |  | Which records this route takes",
        "| `grace` | duration | `30s` | How long the routes may go on",
        "| `rotate` | options |  | When files are finished, and how long finished ones are kept. |",
        "| `compress` | `none`, `zstd` or `gzip` | `none` | Compress finished files. |",
        "| `start` | `now`, `beginning` or duration |  | Where a new route begins",
        "| `bytes` | size |  | At most so many bytes. For example `1MiB`. |",
        "| `include` | list of text |  | Further files",
        "| `sources` | [source](#sources), by name |  |",
        "| `exclude` | match |  | No containers that match. For example `{label: {noisy: \"true\"}}`. |",
        "| `fsync` | true or false | `false` |",
    ],
)  # fmt: skip
def test_a_row_says_it_in_the_users_words(text: str, row: str) -> None:
    assert f"\n{row}" in text
