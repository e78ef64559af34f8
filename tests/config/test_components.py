"""Components are found by their type: those of the package, and those of other distributions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from logroute.config.components import PROCESSORS, SINKS, SOURCES, BrokenComponent, UnknownComponent
from logroute.config.schema import config_schema
from tests.config.conftest import Folder

MODULE = '''
"""A sink of somebody else."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from logroute.config.components import SINKS
from logroute.router.record import Batch
from logroute.sinks import DELIVERED, Outcome, Sink, SinkOptions


class PigeonOptions(SinkOptions):
    """Send by pigeon."""

    type: Literal["carrier-pigeon"] = "carrier-pigeon"
    loft: str = Field(examples=["Ghent"])
    """Where it lives."""
    rings: int = 1
    """How many it wears."""
    signal: int | float | None = None
    """How loud it coos."""


@SINKS.register(PigeonOptions, schemes=("pigeon",))
class PigeonSink(Sink[PigeonOptions]):
    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        return DELIVERED
'''


@pytest.fixture
def pigeons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_registries: None) -> Path:
    """A distribution with a sink, installed where Python looks."""
    site = tmp_path / "site"
    (site / "pigeons-1.0.dist-info").mkdir(parents=True)
    (site / "pigeons.py").write_text(MODULE)
    (site / "pigeons-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeons\n")
    declare(site, "[logroute.sinks]\ncarrier-pigeon = pigeons:PigeonSink\npigeon = pigeons:PigeonSink\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "pigeons", raising=False)
    return site


def declare(site: Path, entry_points: str) -> None:
    (site / "pigeons-1.0.dist-info" / "entry_points.txt").write_text(entry_points)


def test_a_sink_of_another_distribution_is_found_by_its_type(folder: Folder, pigeons: Path) -> None:
    config = folder.load("routes: {all: {sink: {type: carrier-pigeon, loft: Ghent}}}")
    assert config.routes["all"].sink.model_dump() == {
        "type": "carrier-pigeon",
        "loft": "Ghent",
        "rings": 1,
        "signal": None,
    }


def test_a_sink_of_another_distribution_is_found_by_its_scheme(folder: Folder, pigeons: Path) -> None:
    config = folder.load(None, "pigeon:?loft=Ghent", "carrier-pigeon+grey:?loft=Ghent")
    assert list(config.routes) == ["pigeon", "carrier-pigeon+grey"]
    assert {route.sink.type for route in config.routes.values()} == {"carrier-pigeon"}


def test_its_mistakes_are_told_as_ours_are(folder: Folder, pigeons: Path) -> None:
    assert folder.mistakes(
        """\
routes:
  a: {sink: {type: carrier-pigeon, lost: Ghent, rings: true, signal: loud}}
  b: {sink: {type: carrier-pidgeon}}
  c: {sink: "pidgeon:"}
"""
    ) == [
        "logroute.yaml:2:7: routes.a.sink.loft: this option is needed",
        'logroute.yaml:2:36: routes.a.sink.lost: unknown option; did you mean "loft"?',
        "logroute.yaml:2:49: routes.a.sink.rings: expected a whole number",
        "logroute.yaml:2:62: routes.a.sink.signal: expected a whole number; or a number",
        'logroute.yaml:3:14: routes.b.sink.type: unknown sink type "carrier-pidgeon"; '
        'did you mean "carrier-pigeon"?',
        'logroute.yaml:4:7: routes.c.sink: there is no sink for "pidgeon:"; did you mean "pigeon"?',
    ]


def test_it_stands_in_the_schema(pigeons: Path) -> None:
    schema = config_schema()
    assert {"$ref": "#/$defs/PigeonOptions"} in schema["$defs"]["RouteOptions"]["properties"]["sink"]["anyOf"]
    assert schema["$defs"]["PigeonOptions"]["properties"]["loft"]["description"] == "Where it lives."
    assert schema["$defs"]["PigeonOptions"]["required"] == ["type", "loft"]


def test_a_component_that_cannot_be_imported_says_where_it_is_from(folder: Folder, pigeons: Path) -> None:
    (pigeons / "pigeons.py").write_text("import feathers\n")
    said = (
        'the sink type "carrier-pigeon" cannot be loaded from pigeons:PigeonSink of pigeons: '
        "ModuleNotFoundError: No module named 'feathers'"
    )
    assert folder.mistakes(
        "routes: {a: {sink: {type: carrier-pigeon}}, b: {sink: 'pigeon:'}, c: {sink: {type: file}}}"
    ) == [
        f"logroute.yaml:1:21: routes.a.sink.type: {said}",
        f"logroute.yaml:1:49: routes.b.sink: {said.replace('carrier-pigeon', 'pigeon')}",
        "logroute.yaml:1:71: routes.c.sink.path: this option is needed",
    ]


def test_a_component_that_cannot_be_imported_takes_nothing_else_away(folder: Folder, pigeons: Path) -> None:
    (pigeons / "pigeons.py").write_text("1 / 0\n")
    assert folder.mistake("routes: {a: {sink: {type: fiel}}}").endswith('did you mean "file"?')
    assert "carrier-pigeon" not in SINKS.types()
    assert "FileOptions" in config_schema()["$defs"]


def test_an_entry_point_that_registers_nothing_of_its_name_is_an_unknown_type(
    folder: Folder, pigeons: Path
) -> None:
    declare(pigeons, "[logroute.sinks]\nowl = json:dumps\n")
    assert 'unknown sink type "owl"' in folder.mistake("routes: {a: {sink: {type: owl}}}")


def test_a_type_is_never_a_way_to_import_anything_else() -> None:
    for name in ("__init__", "open_files", "os", "..router.state", "router", "file.FileSink", "", "a" * 5000):
        for registry in (SINKS, SOURCES, PROCESSORS):
            with pytest.raises(UnknownComponent):
                registry.options(name)
    assert not any(module.endswith(".__init__") for module in sys.modules if module.startswith("logroute"))


def test_a_component_is_imported_when_its_type_is_named(own_registries: None) -> None:
    assert SINKS.options("null").model_fields["type"].default == "null"
    assert SINKS.class_of("null").__name__ == "NullSink"
    assert SINKS.type_of_scheme("null+anything") == "null"
    assert SINKS.create(SINKS.options("null")(), None).options == SINKS.options("null")()


def test_what_is_broken_is_told_apart_from_what_is_unknown(pigeons: Path) -> None:
    (pigeons / "pigeons.py").write_text("raise RuntimeError('wings')")
    with pytest.raises(BrokenComponent, match="RuntimeError: wings"):
        SINKS.options("carrier-pigeon")
    with pytest.raises(UnknownComponent):
        SINKS.options("carrier-owl")
