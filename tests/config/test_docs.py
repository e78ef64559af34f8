"""What the docs show is true: each YAML block is a configuration, each command line has what it names.

A block of YAML in README.md or docs/*.md is a whole configuration, unless the words behind its opening fence
say what it is:

    ```yaml                                what stands in a file
    ```yaml fragment                       the same, but routes elsewhere
    ```yaml fragment of routes.example     what stands below that path, the sink perhaps elsewhere
"""

from __future__ import annotations

import re
import shlex
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest
from ruamel.yaml import YAML

from logroute.cli import COMMANDS, main
from logroute.config.load import load_config
from logroute.config.problems import ConfigError
from logroute.config.schema import config_schema
from tests.config.conftest import Folder
from tests.config.json_schema import errors

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

BLOCK = re.compile(r"^( *)```(\w*) *(.*)\n((?:.*\n)*?)\1```$", re.MULTILINE)


def blocks(language: str) -> Iterator[tuple[str, str, str]]:
    """Place, words behind the fence, and text of every block in a language."""
    for page in PAGES:
        text = page.read_text()
        for found in BLOCK.finditer(text):
            if found[2] == language:
                line = text.count("\n", 0, found.start()) + 1
                yield f"{page.relative_to(ROOT)}:{line}", found[3], textwrap.dedent(found[4])


# --- configurations -----------------------------------------------------------------------------------

CONFIGURATIONS = {place: (words, text) for place, words, text in blocks("yaml")}


def completed(words: str, text: str) -> str:
    """The configuration that a block is a part of."""
    if not words:
        return text
    found = re.fullmatch(r"fragment(?: of ([a-z_.]+))?", words)
    assert found, f"{words!r} behind the fence says nothing"
    path = found[1].split(".") if found[1] else []
    for name in reversed(path):
        text = f"{name}:\n{textwrap.indent(text, '  ')}"
    if path[:1] != ["routes"]:
        text += "routes: {elsewhere: {sink: 'null:'}}\n"
    elif "sink:" not in text:
        text += "    sink: 'null:'\n"
    return text


@pytest.fixture
def third_parties(monkeypatch: pytest.MonkeyPatch, own_registries: None) -> None:
    """The components that docs/extending.md writes: they register when they are imported."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "typing")
    for module in ("logroute_datagram", "logroute_drop", "logroute_shout"):
        monkeypatch.delitem(sys.modules, module, raising=False)
        __import__(module)
        monkeypatch.delitem(sys.modules, module)


@pytest.mark.parametrize("place", CONFIGURATIONS)
def test_a_yaml_block_is_a_configuration(folder: Folder, third_parties: None, place: str) -> None:
    text = completed(*CONFIGURATIONS[place])
    path = folder.path / "logroute.yaml"
    path.write_text(text)
    try:
        load_config(path, environ={})
    except ConfigError as error:
        pytest.fail(f"{place}:\n{error}\nin\n{text}", pytrace=False)


def test_the_schema_takes_what_the_docs_show() -> None:
    """Editors underlined matches that are expressions, and the `given` of tests."""
    schema = config_schema()
    yaml = YAML(typ="safe", pure=True)
    examples = {"examples/logroute.yaml": ("", (ROOT / "examples/logroute.yaml").read_text())}
    for place, block in (CONFIGURATIONS | examples).items():
        if not place.startswith("docs/extending.md"):  # components that are not registered here
            assert errors(yaml.load(completed(*block)), schema, schema) == [], place


def test_the_blocks_are_found() -> None:
    pages = {place.partition(":")[0] for place in CONFIGURATIONS}
    assert {"README.md", "docs/files.md", "docs/matching.md", "docs/options.md"} <= pages


@pytest.mark.parametrize(
    ("words", "text", "whole"),
    [
        ("", "routes: {}\n", "routes: {}\n"),
        ("fragment", "limits: {}\n", "limits: {}\nroutes: {elsewhere: {sink: 'null:'}}\n"),
        (
            "fragment of routes.example",
            "sink:\n  type: file\n",
            "routes:\n  example:\n    sink:\n      type: file\n",
        ),
        ("fragment of routes.all", "start: 1d\n", "routes:\n  all:\n    start: 1d\n    sink: 'null:'\n"),
        (
            "fragment of sources",
            "docker:\n",
            "sources:\n  docker:\nroutes: {elsewhere: {sink: 'null:'}}\n",
        ),
    ],
)
def test_a_fragment_is_completed_with_what_it_leaves_out(words: str, text: str, whole: str) -> None:
    assert completed(words, text) == whole


# --- links ----------------------------------------------------------------------------------------------

LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links to it, as GitHub has it."""
    headings = HEADING.findall(re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for name, anchor in LINK.findall(page.read_text()):
        meant = (page.parent / name).resolve() if name else page
        assert meant.exists(), name
        assert not anchor or anchor in anchors(meant), f"{name}#{anchor}"


def test_every_page_is_linked() -> None:
    readme = {(ROOT / name).resolve() for name, _ in LINK.findall(PAGES[0].read_text())}
    maintainers = {ROOT / "docs" / "engine-facts.md"}  # linked from docs/architecture.md
    assert {*PAGES[1:], ROOT / "CHANGELOG.md"} - readme == maintainers


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_that_a_page_names_are_there(page: Path) -> None:
    for name in re.findall(r"`([a-z_/]+\.py)`", page.read_text()):
        assert (ROOT / name).exists() or [*ROOT.glob(f"*/{name}")], name


# --- command lines ------------------------------------------------------------------------------------

INLINE = re.compile(r"`(logroute [^`\n]+)`")


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every `logroute …` of a shell block or between backticks: its place and its arguments."""
    for place, _, text in blocks("sh"):
        for line in text.replace("\\\n", " ").splitlines():
            yield from ((f"{place}: {line}", words) for words in called(shlex.split(line, comments=True)))
    for page in PAGES:
        for line in INLINE.findall(page.read_text()):
            yield f"{page.relative_to(ROOT)}: {line}", shlex.split(line)[1:]


def called(words: list[str]) -> Iterator[list[str]]:
    """The arguments that logroute gets, be it called by a container engine."""
    for index, word in enumerate(words):
        arguments = words[index + 1 :]
        if Path(word).name == "logroute" and (index == 0 or arguments[:1] in [[name] for name in COMMANDS]):
            yield arguments


COMMAND_LINES = dict(command_lines())


def understood(arguments: list[str]) -> None:
    """Parse a command line without running it. Raises click.UsageError."""
    with click.Context(main, **main.context_settings) as context:
        name, command, rest = main.resolve_command(context, arguments)
        assert name is not None
        assert command is not None
        with suppress(click.exceptions.Exit):  # --help
            command.make_context(name, rest, parent=context).close()


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_command_line_has_the_options_that_there_are(line: str) -> None:
    understood(COMMAND_LINES[line])


def test_the_command_lines_are_found() -> None:
    assert {tuple(arguments) for arguments in COMMAND_LINES.values()} >= {
        ("run", "file:///tmp/all.ndjson"),
        ("validate", "-c", "logroute.yaml"),
        ("run", "stdout:"),
        ("schema",),
    }


@pytest.mark.parametrize("line", ["rnu", "run --stat-dir x", "validate -c", "validate x", "completion sh"])
def test_a_command_line_that_is_wrong_is_found(line: str) -> None:
    with pytest.raises(click.UsageError):
        understood(line.split())
