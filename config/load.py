"""Load a configuration: YAML files, what they include, URIs; every mistake at once, each with its place."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from logroute.config.hidden import Secret
from logroute.config.model import Config
from logroute.config.problems import ConfigError, Loc, Problem, dotted
from logroute.config.uri import UriError, parse_uri, route_names, shown
from logroute.config.variables import Filled, Variables, named
from logroute.config.yaml_file import YamlFile, parse_yaml

SIZE_LIMIT_BYTES = 4 << 20

ROUTE_OF_NOTHING: Mapping[str, Any] = {"sink": {"type": "null"}}
"""Stands for a URI that means nothing, so that what else is wrong can be told as well."""


class LoadedConfig(msgspec.Struct, frozen=True):
    """A valid configuration and where it came from."""

    config: Config
    files: tuple[Path, ...] = ()
    tests: tuple[Problem, ...] = ()
    """Where each of its `tests` stands: a problem of it, without a message."""
    said: Mapping[str, Any] = {}
    """All of it as it was written, with variables by their names."""
    places: Mapping[str, str] = {}
    """Where each route stands: `file:line`, or the URI."""
    place_of: Callable[[Loc], Problem] = lambda loc: Problem("", dotted(loc))
    """Where something in it stands: a problem of it, without a message."""
    secrets: tuple[Secret, ...] = ()
    """What of it nobody shall be shown."""

    @property
    def routes(self) -> Mapping[str, Any]:
        """What each route says."""
        found: Mapping[str, Any] = self.said.get("routes") or {}
        return found


def find_config(given: str | None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """`-c`, else `$LOGROUTE_CONFIG`, else `./logroute.yaml`, else `/etc/logroute/logroute.yaml`."""
    if given or environ.get("LOGROUTE_CONFIG"):
        return Path(given or environ["LOGROUTE_CONFIG"])
    for path in (Path("logroute.yaml"), Path("/etc/logroute/logroute.yaml")):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            pass  # there may be one that we must not see: reading it will say so
        return path
    return None


def load_config(
    path: Path | None, uris: tuple[str, ...] = (), *, environ: Mapping[str, str] = os.environ
) -> LoadedConfig:
    """Load a file, or only URIs, or both. Raises ConfigError with every mistake."""
    reader = _Reader(environ)
    if path is not None:
        reader.read(path)
    return _loaded(reader, uris, from_file=path is not None)


def load_text(text: str, *, name: str = "body", environ: Mapping[str, str] = os.environ) -> LoadedConfig:
    """Load what would stand in a file, to see whether it is valid; no `include`. Raises ConfigError."""
    reader = _Reader(environ)
    if (file := parse_yaml(name, text, Variables(environ, Path()), reader.problems)) is not None:
        file.data.pop("include", None)
        reader.files.append(file)
    reader.names.append(name)
    return _loaded(reader, (), from_file=True)


def _loaded(reader: _Reader, uris: tuple[str, ...], *, from_file: bool) -> LoadedConfig:
    """Raises ConfigError."""
    merged = _Merged(reader.problems)
    for file in reader.files:
        merged.add(file)
    merged.add_uris(uris)
    if from_file and not reader.files:
        raise ConfigError(reader.problems)
    config: Config | None = None
    try:
        config = Config.model_validate(_values(merged.data))
    except ValidationError as error:
        reader.problems += merged.problems_of(error, whole=not reader.failed)
    if reader.problems or config is None:
        order = {name: index for index, name in reversed(list(enumerate(reader.names)))}
        raise ConfigError(
            sorted(dict.fromkeys(reader.problems), key=lambda p: (order.get(p.file, -1), p.line, p.column))
        )
    tests = tuple(merged.place_of(("tests", index)) for index in range(len(config.tests)))
    said = _references(merged.data)
    places = {name: merged.place_of(("routes", name)) for name in config.routes}
    return LoadedConfig(
        config,
        tuple(Path(file.file) for file in reader.files),
        tests,
        said,
        {name: f"{at.file}:{at.line}" if at.line else at.file for name, at in places.items()},
        merged.place_of,
        tuple(secret for _, filled in _secrets(merged.data) for secret in filled.secrets),
    )


# --- reading files ----------------------------------------------------------------------------------------


class _Reader:
    """Reads a file and what it includes: each once, whatever names it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.files: list[YamlFile] = []
        """In the order of reading: the first is the one that was asked for."""
        self.names: list[str] = []
        """Of all that were asked for, in that order; the first time counts."""
        self.problems: list[Problem] = []
        self.failed = False
        """There is a file of which nothing is known."""
        self._environ = environ
        self._seen: set[tuple[int, int]] = set()

    def read(self, path: Path, including: tuple[Path, ...] = ()) -> None:
        """Read a file; `including` are those that lead to it."""
        file = self._parsed(path)
        if file is None:
            self.failed = True
            return
        self.files.append(file)
        include = file.data.get("include")
        for index, pattern in enumerate(include if isinstance(include, list) else []):
            if not isinstance(pattern, str):
                continue
            loc = ("include", index)
            for name in self._found(path.parent, pattern, file, loc):
                if not self._is_new(name):
                    circle = [*including, path]
                    # A pattern may well take the file that it stands in; a name is meant.
                    if not glob.has_magic(pattern) and any(_same(name, other) for other in circle):
                        self._tell("the file would include itself", file, loc)
                    continue
                self.read(name, (*including, path))

    def _found(self, folder: Path, pattern: str, file: YamlFile, loc: Loc) -> Iterator[Path]:
        try:
            names = sorted(glob.glob(str(pattern), root_dir=folder, recursive=True))
        except (OSError, ValueError) as error:  # a NUL
            self._tell(f"cannot look for it: {error}", file, loc)
            return
        if not names and not glob.has_magic(pattern):
            written = pattern.reference if isinstance(pattern, Filled) else pattern
            self._tell(f"there is no file {folder / written}", file, loc)
        yield from (folder / name for name in names)

    def _is_new(self, path: Path) -> bool:
        try:
            status = path.stat()
        except OSError:
            return True  # reading it will say why
        return (status.st_dev, status.st_ino) not in self._seen

    def _parsed(self, path: Path) -> YamlFile | None:
        name = str(path)
        self.names.append(name)
        try:
            with path.open("rb") as stream:
                status = os.fstat(stream.fileno())
                self._seen.add((status.st_dev, status.st_ino))
                raw = stream.read(SIZE_LIMIT_BYTES + 1)
        except OSError as error:
            self.problems.append(Problem(f"cannot read it: {error.strerror}", file=name))
            return None
        if len(raw) > SIZE_LIMIT_BYTES:
            self.problems.append(Problem("larger than 4 MiB: this is no configuration", file=name))
            return None
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            column = error.start - raw.rfind(b"\n", 0, error.start)
            self.problems.append(Problem("not UTF-8 text", file=name, line=line, column=column))
            return None
        return parse_yaml(name, text, Variables(self._environ, path.parent), self.problems)

    def _tell(self, message: str, file: YamlFile, loc: Loc) -> None:
        self.problems.append(Problem(message, dotted(loc), file.file, *file.place(loc)))


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


# --- putting together -------------------------------------------------------------------------------------


class _Merged(msgspec.Struct):
    """The first file, the routes, sources and tests of those that it includes, and the routes of URIs."""

    problems: list[Problem]
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    first: YamlFile | None = None
    owners: dict[Loc, YamlFile] = msgspec.field(default_factory=dict)
    """Who says a route, a source or a test, where it is not the first file."""
    moved: dict[Loc, Loc] = msgspec.field(default_factory=dict)
    """Where a test stands in its own file."""
    uris: dict[Loc, str] = msgspec.field(default_factory=dict)

    def add(self, file: YamlFile) -> None:
        if self.first is None:
            self.first = file
            self.data = dict(file.data)
            return
        for key, value in file.data.items():
            if key not in ("routes", "sources", "tests", "include"):
                self._tell(
                    "an included file may have `routes`, `sources`, `tests` and `include` only", file, (key,)
                )
            elif key == "tests":
                self._add_tests(value, file)
            elif key == "include":
                if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                    self._tell("expected a list of files", file, (key,))
            elif isinstance(value, dict):
                self._add_named(key, value, file)
            elif value is not None:
                self._tell("expected a mapping, by name", file, (key,))

    def _add_named(self, key: str, items: dict[str, Any], file: YamlFile) -> None:
        there = self.data.get(key)
        if there is not None and not isinstance(there, dict):
            return  # the first file's own mistake
        into = self.data[key] = dict(there or {})
        for name, item in items.items():
            if name in into:
                other = self.owners.get((key, name)) or self.first
                assert other is not None
                place = ":".join(map(str, (other.file, *other.place((key, name)))))
                self._tell(f"there is one of this name already: {place}", file, (key, name))
                continue
            into[name] = item
            self.owners[key, name] = file

    def _add_tests(self, tests: Any, file: YamlFile) -> None:
        there = self.data.get("tests") or []
        if not isinstance(tests, list | None):
            self._tell("expected a list of tests", file, ("tests",))
        elif isinstance(there, list):
            for index in range(len(tests or [])):
                at: Loc = "tests", len(there) + index
                self.owners[at], self.moved[at] = file, ("tests", index)
            self.data["tests"] = [*there, *(tests or [])]

    def add_uris(self, uris: tuple[str, ...]) -> None:
        """Each is a route that takes everything, named after its scheme."""
        routes = self.data.get("routes")
        if not uris or not (routes is None or isinstance(routes, dict)):
            return
        into = self.data["routes"] = dict(routes or {})
        for name, uri in zip(route_names(list(uris), set(into)), uris, strict=True):
            self.uris["routes", name] = uri
            try:
                into[name] = {"sink": parse_uri(uri)}
            except UriError as error:
                self.problems.append(Problem(str(error)))
                into[name] = ROUTE_OF_NOTHING

    def _tell(self, message: str, file: YamlFile, loc: Loc) -> None:
        self.problems.append(Problem(message, dotted(loc), file.file, *file.place(loc)))

    def problems_of(self, error: ValidationError, *, whole: bool) -> Iterator[Problem]:
        """What validation found. `whole`: every file could be read, so what is missing is missing."""
        from logroute.config.wording import mistakes

        secrets = dict(_secrets(self.data))
        harmless = self._harmless_texts() if secrets else {}
        for mistake in mistakes(error.errors(include_url=False), _values(self.data)):
            if mistake.of_value and self._is_doubtful(mistake.loc):
                continue
            if mistake.loc != ("routes",) or whole:
                yield self._problem(*_without_secrets(mistake.loc, mistake.text, secrets, harmless))

    def _is_doubtful(self, loc: Loc) -> bool:
        file = self.owners.get(loc[:2]) or self.first
        return file is not None and any(loc[:length] in file.doubtful for length in range(1, len(loc) + 1))

    def _harmless_texts(self) -> dict[Loc, str]:
        """What validation says when words stand for the variables: that shows nothing."""
        from logroute.config.wording import mistakes

        data = _values(self.data, harmless=True)
        try:
            Config.model_validate(data)
        except ValidationError as error:
            found = mistakes(error.errors(include_url=False), data)
            return {mistake.loc: _UNCERTAIN.sub("", named(mistake.text)) for mistake in found}
        return {}

    def place_of(self, loc: Loc) -> Problem:
        """Where that stands; without a message."""
        return self._problem(loc, "")

    def _problem(self, loc: Loc, text: str) -> Problem:
        if uri := self.uris.get(loc[:2]):
            return Problem(text, dotted(loc[3:]), shown(uri))
        file = self.owners.get(loc[:2]) or self.first
        if file is None:
            return Problem(text, dotted(loc))
        loc = (*self.moved.get(loc[:2], loc[:2]), *loc[2:])
        return Problem(text, dotted(loc), file.file, *file.place(loc))


_UNCERTAIN = re.compile(r" \(?at its character [0-9]+\)?")
"""Places in a text whose length is another."""


# --- what came from outside -------------------------------------------------------------------------------


def _values(data: Any, *, harmless: bool = False) -> Any:
    """A copy with plain texts: variables filled in, or words in their place."""
    if isinstance(data, Mapping):
        return {key: _values(value, harmless=harmless) for key, value in data.items()}
    if isinstance(data, list):
        return [_values(item, harmless=harmless) for item in data]
    if isinstance(data, Filled):
        return data.harmless if harmless else str(data)
    return data


def _references(data: Any) -> Any:
    """A copy with plain values, and with the names of variables instead of what they hold."""
    if isinstance(data, Mapping):
        return {str(key): _references(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_references(item) for item in data]
    if isinstance(data, Filled):
        return data.reference
    if isinstance(data, bool | int | float | None):
        return data
    return str(data)


def _secrets(data: Any, loc: Loc = ()) -> Iterator[tuple[Loc, Filled]]:
    """Every text that holds something from outside, with its path."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from _secrets(value, (*loc, key))
    elif isinstance(data, list):
        for index, item in enumerate(data):
            yield from _secrets(item, (*loc, index))
    elif isinstance(data, Filled):
        yield loc, data


def _without_secrets(
    loc: Loc, text: str, secrets: Mapping[Loc, Filled], harmless: Mapping[Loc, str]
) -> tuple[Loc, str]:
    """Path and text of a mistake as they may be shown."""
    near = [(at, secret) for at, secret in secrets.items() if at[: len(loc)] == loc[: len(at)]]
    if any(_reveals(text, value) for _, secret in near for value in secret.values):
        references = " and ".join(dict.fromkeys(secret.reference for _, secret in near))
        text = harmless.get(loc) or f"{references} holds something that cannot be used here"
    for at, secret in near:
        # The parameters of a URI have their names in the path.
        if any(_reveals(dotted(loc[len(at) :]), value) for value in secret.values):
            return at, f"{secret.reference} holds something that cannot be used here"
    return loc, text


SHOWN_AT_MOST = 3
"""So many characters of a value in a row may stand in a message by chance."""


def _reveals(text: str, value: str) -> bool:
    """Whether a message shows a value, or a part of it, however it was quoted or spelled."""
    text = text.lower()
    if len(value) <= SHOWN_AT_MOST:
        return value.lower() in text
    longest = SHOWN_AT_MOST + 1
    value = value.lower()[: 1 << 16]
    return any(value[at : at + longest] in text for at in range(len(value) - SHOWN_AT_MOST))
