"""What people install: wheel, sdist, image, compose file, systemd unit, examples."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from logroute import __version__
from logroute.config.load import load_config
from tests.conftest import missing

ROOT = Path(__file__).parents[1]


def tracked() -> list[str]:
    """Files of the repository, those included that will be committed."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [name for name in done.stdout.split("\0") if name and os.path.lexists(ROOT / name)]


TOPS = {name.partition("/")[0] for name in tracked() if "/" in name}
LINKED = sorted(
    link.name for link in (ROOT / "logroute").iterdir() if link.is_symlink() and link.name in TOPS
)
"""The folders at the top that are packages of `logroute`; a link may be there before its folder."""


def modules() -> set[str]:
    """Every file of the import package, by its name in the package."""
    inside = {name for name in tracked() if name.startswith("logroute/") and not (ROOT / name).is_symlink()}
    linked = {name for name in tracked() if name.partition("/")[0] in LINKED and name.endswith(".py")}
    return inside | {f"logroute/{name}" for name in linked}


# --- wheel and sdist --------------------------------------------------------------------------------


class Built:
    """A wheel, an sdist, and a wheel made from the sdist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = folder / "tree"
        for name in tracked():
            (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, self.tree / name, follow_symlinks=False)
        with (ROOT / "pyproject.toml").open("rb") as file:
            requires = tomllib.load(file)["build-system"]["requires"]
        self.backend = folder / "backend"
        done = self._run("-m", "pip", "install", "--quiet", "--target", str(self.backend), *requires)
        if done.returncode:
            missing(f"{requires} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
        self.wheel = self._build("wheel", self.tree)
        self.sdist = self._build("sdist", self.tree)
        with tarfile.open(self.sdist) as archive:
            archive.extractall(folder / "unpacked", filter="data")
        (self.unpacked,) = (folder / "unpacked").iterdir()
        self.wheel_of_sdist = self._build("wheel", self.unpacked)

    def _build(self, what: str, tree: Path) -> Path:
        out = self.folder / f"{what} of {tree.name}"
        out.mkdir()
        code = f"from setuptools import build_meta; print(build_meta.build_{what}({str(out)!r}))"
        done = self._run("-c", code, cwd=tree)
        assert done.returncode == 0, done.stderr
        (built,) = out.iterdir()
        return built

    def _run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(self.backend)}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("built"))


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_contains_every_module_and_nothing_else(built: Built) -> None:
    info = f"logroute-{__version__}.dist-info"
    assert {name for name in names(built.wheel) if not name.startswith(info)} == modules()
    assert "logroute/py.typed" in names(built.wheel)
    assert len(LINKED) >= 7
    assert {f"logroute/{link}/__init__.py" for link in LINKED} <= names(built.wheel)


def test_the_wheel_says_what_it_is(built: Built) -> None:
    info = f"logroute-{__version__}.dist-info"
    with zipfile.ZipFile(built.wheel) as archive:
        metadata = archive.read(f"{info}/METADATA").decode()
        points = archive.read(f"{info}/entry_points.txt").decode()
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert "Requires-Python: >=3.11" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Dist: trio" in metadata
    assert "logroute = logroute.cli:program" in points


def test_the_sdist_builds_the_same_wheel(built: Built) -> None:
    assert names(built.wheel_of_sdist) == names(built.wheel)
    with zipfile.ZipFile(built.wheel) as one, zipfile.ZipFile(built.wheel_of_sdist) as other:
        assert all(one.read(name) == other.read(name) for name in modules())


def test_the_sdist_has_what_is_installed_beside_the_program(built: Built) -> None:
    """It had two of the tests, which cannot run there, and neither the unit nor a page of the docs."""
    beside = {name for name in tracked() if name.partition("/")[0] in ("deploy", "docs", "examples")}
    beside |= {"CHANGELOG.md", "LICENSE", "README.md", "benchmarks/RESULTS.md"}
    assert "deploy/logroute.service" in beside
    there = {str(path.relative_to(built.unpacked)) for path in built.unpacked.rglob("*") if path.is_file()}
    assert beside <= there
    assert not [name for name in there if name.startswith("tests/")]


def test_the_wheel_runs_away_from_the_repository(built: Built, tmp_path: Path) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        archive.extractall(tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    code = "import logroute; print(logroute.__file__); from logroute.cli import main; main(['schema'])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    where, _, schema = done.stdout.partition("\n")
    assert where == str(tmp_path / "site" / "logroute" / "__init__.py")
    assert '"FileOptions"' in schema


# --- image ------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile, its continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    text = re.sub(r"\\\n", " ", text)
    found = [line.strip().partition(" ") for line in text.splitlines() if line.strip()]
    return [(name, re.sub(r"\s+", " ", rest.strip())) for name, _, rest in found]


def copied() -> list[str]:
    """What the Dockerfile copies from the repository."""
    rests = [rest.split() for name, rest in instructions() if name == "COPY"]
    return [source for rest in rests if not rest[0].startswith("--from") for source in rest[:-1]]


def sent(path: str) -> bool:
    """Whether .dockerignore lets a file of the repository through to the engine: the last pattern counts."""
    parts = path.split("/")
    above = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    result = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        tail = pattern.removeprefix("**/")
        candidates = above if tail == pattern else parts
        if any(fnmatch(each, tail) and each.count("/") == tail.count("/") for each in candidates):
            result = line.startswith("!")
    return result


def test_the_image_gets_all_of_the_package_and_nothing_more() -> None:
    assert all((ROOT / source).exists() for source in copied())
    assert {source for source in copied() if (ROOT / source).is_dir()} == {"logroute", *LINKED}
    for name in tracked():
        inside = name.partition("/")[0] in ("logroute", *LINKED)
        assert sent(name) == (inside or name in ("LICENSE", "README.md", "pyproject.toml")), name
    assert not sent(".git/config")
    assert not sent("router/__pycache__/queue.cpython-313.pyc")


def test_what_pip_needs_to_build_is_copied() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    assert {"pyproject.toml", project["readme"], *project["license-files"]} <= set(copied())


def test_the_image_is_not_root_keeps_its_state_and_ends_in_order() -> None:
    last = instructions()[[i for i, (name, _) in enumerate(instructions()) if name == "FROM"][-1] :]
    said: dict[str, str] = dict(last)
    assert said["FROM"] == "python:${PYTHON}-slim"
    assert said["USER"] == "logroute"
    assert [name for name, _ in last].index("USER") < [name for name, _ in last].index("ENTRYPOINT")
    assert said["VOLUME"] == '["/var/lib/logroute"]'
    assert "STATE_DIRECTORY=/var/lib/logroute" in said["ENV"]
    assert said["STOPSIGNAL"] == "SIGTERM"
    assert said["ENTRYPOINT"] == '["logroute"]'
    assert said["CMD"] == '["run"]'
    assert 'org.opencontainers.image.licenses="Apache-2.0"' in said["LABEL"]


def test_the_image_says_which_version_it_is() -> None:
    assert ("ARG", f"VERSION={__version__}") in instructions()


def runtime_directory() -> str:
    """Where the image's daemon has its socket."""
    (found,) = re.findall(
        r"RUNTIME_DIRECTORY=(\S+)", " ".join(rest for name, rest in instructions() if name == "ENV")
    )
    return str(found)


def user_id() -> str:
    (found,) = [rest.removeprefix("UID=") for name, rest in instructions() if rest.startswith("UID=")]
    return found


# --- examples ---------------------------------------------------------------------------------------


def yaml(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path)


CONFIGS = sorted(set((ROOT / "examples").glob("*.yaml")) - {ROOT / "examples" / "compose.yaml"})


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
@pytest.mark.parametrize("logs", [None, "/var/log/logroute"])
def test_every_example_is_a_valid_configuration(path: Path, logs: str | None) -> None:
    loaded = load_config(path, environ={"LOGS_DIRECTORY": logs} if logs else {})
    assert loaded.config.routes
    if path.name == "logroute.yaml":
        paths = [str(route.sink.path) for route in loaded.config.routes.values()]  # type: ignore[attr-defined]
        assert all(each.startswith(f"{logs or '/logs'}/") for each in paths)


# What the compose specification has of a service and its parts, as far as we use it.
SERVICE = {
    "image", "build", "command", "restart", "stop_grace_period", "user", "group_add", "cap_drop",
    "security_opt", "read_only", "tmpfs", "environment", "volumes", "logging",
}  # fmt: skip


@pytest.fixture
def compose() -> Any:
    return yaml(ROOT / "examples" / "compose.yaml")


def test_the_compose_file_mounts_what_the_docs_say(compose: Any) -> None:
    service = compose["services"]["logroute"]
    assert service["volumes"] == [
        "/var/run/docker.sock:/var/run/docker.sock",
        "/var/lib/docker/containers:/var/lib/docker/containers:ro",
        "./logroute.yaml:/etc/logroute/logroute.yaml:ro",
        "state:/var/lib/logroute",
        "logs:/logs",
    ]
    page = (ROOT / "docs" / "docker.md").read_text()
    for mount in service["volumes"][:2]:
        assert mount in page
    assert set(compose["volumes"]) == {"state", "logs"}
    assert (ROOT / "examples" / "logroute.yaml").exists()


def test_the_compose_file_is_one(compose: Any) -> None:
    assert set(compose) == {"name", "services", "volumes"}
    (service,) = compose["services"].values()
    assert set(service) <= SERVICE
    assert (ROOT / "examples" / service["build"] / "Dockerfile").exists()
    assert service["command"] == ["run", "-c", "/etc/logroute/logroute.yaml"]
    # Nothing of root's but the socket's group, which must be given.
    assert "user" not in service
    assert "privileged" not in service
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    # Read-only: without a place for its socket there was no API, and `docker exec … logroute health` failed.
    assert service["read_only"] is True
    (socket,) = service["tmpfs"]
    assert socket == f"{runtime_directory()}:mode=0770,uid={user_id()},gid=0"
    (group,) = service["group_add"]
    assert re.fullmatch(r"\$\{DOCKER_GID:\?[^{}]+\}", group)
    # The engine kills what has not ended by then.
    grace = load_config(ROOT / "examples" / "logroute.yaml", environ={}).config.limits.grace
    assert float(service["stop_grace_period"].removesuffix("s")) > grace


# --- systemd ----------------------------------------------------------------------------------------


@pytest.fixture
def unit() -> Callable[[str], str]:
    parser = configparser.ConfigParser(interpolation=None, comment_prefixes="#")
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    parser.read(ROOT / "deploy" / "logroute.service")
    return lambda name: parser["Service"][name]


def test_the_unit_fits_what_the_daemon_does(unit: Callable[[str], str]) -> None:
    assert unit("Type") == "notify"
    assert unit("StateDirectory") == "logroute"
    assert unit("ExecReload") == "/bin/kill -HUP $MAINPID"
    assert unit("RestartPreventExitStatus") == "2"
    grace = load_config(ROOT / "examples" / "logroute.yaml", environ={}).config.limits.grace
    assert float(unit("TimeoutStopSec").removesuffix("s")) > grace
    assert unit("User") != "root"
    assert unit("CapabilityBoundingSet") == unit("AmbientCapabilities") == "CAP_DAC_READ_SEARCH"


def test_systemd_understands_the_unit() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = ROOT / "deploy" / "logroute.service"
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
