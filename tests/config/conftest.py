from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from logroute.config.components import PROCESSORS, SINKS, SOURCES
from logroute.config.load import load_config
from logroute.config.model import Config
from logroute.config.problems import ConfigError, Problem


class Folder:
    """The working directory of somebody who writes a configuration."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environ: dict[str, str] = {}

    def write(self, files: Mapping[str, str | bytes]) -> None:
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    def load(self, text: str | bytes | None = None, *uris: str, **files: str | bytes) -> Config:
        """The configuration of `logroute.yaml`, or of URIs alone. Further files by their names."""
        self.write(files)
        if text is not None:
            self.write({"logroute.yaml": text})
        path = Path("logroute.yaml") if text is not None else None
        return load_config(path, uris, environ=self.environ).config

    def problems(self, text: str | bytes | None, *uris: str) -> list[Problem]:
        with pytest.raises(ConfigError) as caught:
            self.load(text, *uris)
        assert str(caught.value) == "\n".join(map(str, caught.value.problems))
        return caught.value.problems

    def mistakes(self, text: str | bytes | None, *uris: str) -> list[str]:
        """Every mistake as people read it."""
        return [str(problem) for problem in self.problems(text, *uris)]

    def mistake(self, text: str | bytes | None, *uris: str) -> str:
        """The only mistake there is."""
        (only,) = self.mistakes(text, *uris)
        return only


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """An empty working directory, and an environment without variables."""
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


@pytest.fixture
def own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    for registry in (SOURCES, PROCESSORS, SINKS):
        registry.types()  # so that nothing of ours is imported, and then forgotten
        for table in ("_options", "_classes", "_schemes"):
            monkeypatch.setattr(registry, table, dict(getattr(registry, table)))
