"""Load a configuration: YAML files, includes, variables, URIs; every mistake at once, each with its place.

YAML 1.2 by ruamel.yaml's round-trip mode, which knows the line and column of every key. It is imported only
when there is a file.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from logroute.config.model import Config
from logroute.config.problems import ConfigError, Problem, did_you_mean
from logroute.config.uri import UriError, parse_uri, route_names

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

SIZE_LIMIT_BYTES = 4 << 20
DEPTH_LIMIT = 40
NODE_LIMIT = 200_000
"""More than any configuration has; what aliases of aliases would unfold to is refused."""

_VARIABLE = re.compile(r"\$(?:(\$)|\{(file:)?([^}:]*)(?:(:-)([^}]*))?\})")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Loc = tuple[str | int, ...]


@dataclass(slots=True)
class _Tree:
    """A YAML file as plain data, with the place of every key and item."""

    file: str
    data: Any
    places: dict[Loc, tuple[int, int]] = field(default_factory=dict)

    def place(self, loc: Loc) -> tuple[int, int]:
        """Of the nearest thing that is there: a missing key is said at its mapping."""
        while loc and loc not in self.places:
            loc = loc[:-1]
        return self.places.get(loc, (1, 1))


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid configuration and where it came from."""

    config: Config
    files: tuple[Path, ...] = ()


def find_config(given: str | None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """`-c`, else `$LOGROUTE_CONFIG`, else `./logroute.yaml`, else `/etc/logroute/logroute.yaml`."""
    if given or environ.get("LOGROUTE_CONFIG"):
        return Path(given or environ["LOGROUTE_CONFIG"])
    candidates = (Path("logroute.yaml"), Path("/etc/logroute/logroute.yaml"))
    return next((path for path in candidates if path.exists()), None)


def load_config(
    path: Path | None, uris: tuple[str, ...] = (), *, environ: Mapping[str, str] = os.environ
) -> LoadedConfig:
    """Load a file, or only URIs, or both. Raises ConfigError with every mistake."""
    problems: list[Problem] = []
    trees: list[_Tree] = []
    if path is not None:
        trees = _read_all(path, environ, problems)
    data, owners = _merge(trees, problems)
    taken = set(data["routes"]) if isinstance(data.get("routes"), dict) else set()
    for name, uri in zip(route_names(list(uris), taken), uris, strict=True):
        try:
            routes = data.setdefault("routes", {})
            if isinstance(routes, dict):
                routes[name] = {"sink": parse_uri(uri)}
        except UriError as error:
            problems.append(Problem(str(error)))
    if problems and not data:
        raise ConfigError(problems)
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        found = _unfolded(error.errors(include_url=False))
        problems.extend(_problem(loc, item, trees, owners) for loc, item in found)
    if problems:
        order = {tree.file: index for index, tree in enumerate(trees)}
        raise ConfigError(sorted(set(problems), key=lambda p: (order.get(p.file, -1), p.line, p.column)))
    return LoadedConfig(config, tuple(Path(tree.file) for tree in trees))


# --- reading files --------------------------------------------------------------------------------------


def _read_all(path: Path, environ: Mapping[str, str], problems: list[Problem]) -> list[_Tree]:
    """The file and what it includes, the file first."""
    tree = _read(path, environ, problems)
    if tree is None:
        return []
    trees = [tree]
    include = tree.data.get("include", [])
    for index, pattern in enumerate(include if isinstance(include, list) else []):
        if not isinstance(pattern, str):
            continue
        found = sorted(glob.glob(str(path.parent / pattern)))
        if not found and not glob.has_magic(pattern):
            line, column = tree.place(("include", index))
            problems.append(
                Problem(f"there is no file {path.parent / pattern}", "include", tree.file, line, column)
            )
        for name in found:
            included = _read(Path(name), environ, problems)
            if included is not None:
                trees.append(included)
    return trees


def _read(path: Path, environ: Mapping[str, str], problems: list[Problem]) -> _Tree | None:
    file = str(path)
    try:
        with path.open("rb") as stream:
            raw = stream.read(SIZE_LIMIT_BYTES + 1)
    except OSError as error:
        problems.append(Problem(f"cannot read it: {error.strerror}", file=file))
        return None
    if len(raw) > SIZE_LIMIT_BYTES:
        problems.append(Problem("larger than 4 MiB: this is no configuration", file=file))
        return None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problems.append(Problem("not UTF-8 text", file=file, line=line, column=1))
        return None
    loaded = _parse_yaml(text, file, problems)
    if loaded is None:
        return None
    tree = _Tree(file, {})
    try:
        tree.data = _Plain(tree, environ, problems).convert(loaded, (), 0)
    except _TooMuch as error:
        problems.append(Problem(str(error), file=file, line=1, column=1))
        return None
    if not isinstance(tree.data, dict):
        problems.append(
            Problem("expected a mapping with `routes`, not a list or a text", file=file, line=1, column=1)
        )
        return None
    return tree


def _parse_yaml(text: str, file: str, problems: list[Problem]) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    yaml = YAML(typ="rt", pure=True)
    yaml.version = (1, 2)
    try:
        loaded = yaml.load(text)
    except DuplicateKeyError as error:
        mark = error.problem_mark
        found = re.search(r'duplicate key "(.*?)"', error.problem or "")
        name = f' "{found[1]}"' if found else ""
        problems.append(
            Problem(f"the key{name} is there twice", file=file, line=mark.line + 1, column=mark.column + 1)
        )
        return None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        said = " ".join(part for part in (error.context, error.problem) if part)
        if "\\t" in said:
            said = "YAML is indented with spaces, not with tabs"
        problems.append(Problem(f"not YAML: {said}", file=file, line=line, column=column))
        return None
    except (YAMLError, ValueError, RecursionError) as error:
        problems.append(Problem(f"not YAML: {str(error).splitlines()[0]}", file=file, line=1, column=1))
        return None
    if loaded is None:
        problems.append(Problem("the file is empty: it needs `routes`", file=file, line=1, column=1))
    return loaded


class _TooMuch(Exception):
    """More than a configuration can be."""


class _Plain:
    """Turns ruamel's objects into plain data, fills in variables, and notes where everything stands."""

    def __init__(self, tree: _Tree, environ: Mapping[str, str], problems: list[Problem]) -> None:
        self.tree = tree
        self.environ = environ
        self.problems = problems
        self.nodes = 0

    def convert(self, node: Any, loc: Loc, depth: int) -> Any:
        self.nodes += 1
        if depth > DEPTH_LIMIT:
            raise _TooMuch(f"nested more than {DEPTH_LIMIT} levels deep")
        if self.nodes > NODE_LIMIT:
            raise _TooMuch("its aliases unfold to more than any configuration has")
        if isinstance(node, dict):
            mapping: dict[str, Any] = {}
            for key, value in node.items():
                here = (*loc, str(key))
                self._note(here, node, "key", key)
                mapping[str(key)] = self.convert(value, here, depth + 1)
            return mapping
        if isinstance(node, list):
            items: list[Any] = []
            for index, value in enumerate(node):
                here = (*loc, index)
                self._note(here, node, "item", index)
                items.append(self.convert(value, here, depth + 1))
            return items
        if isinstance(node, bool | None):
            return node
        if isinstance(node, str):
            return self._filled(str(node), loc)
        if isinstance(node, int):
            return int(node)
        if isinstance(node, float):
            return float(node)
        return self._filled(str(node), loc)

    def _note(self, loc: Loc, node: Any, kind: str, key: Any) -> None:
        marks = getattr(node, "lc", None)
        try:
            place = getattr(marks, kind)(key)
        except (AttributeError, KeyError, TypeError):
            return  # what came by an alias or a merge has the place of where it is used
        self.tree.places[loc] = (place[0] + 1, place[1] + 1)

    def _filled(self, text: str, loc: Loc) -> str:
        if "$" not in text:
            return text

        def fill(found: re.Match[str]) -> str:
            escaped, from_file, name, has_default, default = found.groups()
            if escaped:
                return "$"
            if from_file:
                return self._secret(name + (f":-{default}" if has_default else ""), loc)
            if not _NAME.fullmatch(name):
                self._problem(loc, f"{found[0]} names no variable; write $${{ for a literal ${{")
                return ""
            value = self.environ.get(name)
            if value:
                return value
            if has_default:
                return str(default)
            if value is None:
                self._problem(loc, f"the variable {name} is not set; ${{{name}:-…}} would give a default")
            return ""

        return _VARIABLE.sub(fill, text)

    def _secret(self, path: str, loc: Loc) -> str:
        try:
            return Path(path).read_text().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            self._problem(loc, f"cannot read {path}: {getattr(error, 'strerror', None) or error}")
            return ""

    def _problem(self, loc: Loc, message: str) -> None:
        line, column = self.tree.place(loc)
        self.problems.append(Problem(message, _dotted(loc), self.tree.file, line, column))


# --- putting together -----------------------------------------------------------------------------------


def _merge(trees: list[_Tree], problems: list[Problem]) -> tuple[dict[str, Any], dict[Loc, _Tree]]:
    """The first file with the routes and sources of those that it includes; and which file says what."""
    data: dict[str, Any] = dict(trees[0].data) if trees else {}
    owners: dict[Loc, _Tree] = {}
    for tree in trees[1:]:
        for key, value in tree.data.items():
            if key not in ("routes", "sources") or not isinstance(value, dict):
                line, column = tree.place((key,))
                problems.append(
                    Problem(
                        "an included file may have `routes` and `sources` only", key, tree.file, line, column
                    )
                )
                continue
            into = data.get(key)
            into = data[key] = dict(into) if isinstance(into, dict) else {}
            for name, item in value.items():
                if name in into:
                    other = owners.get((key, name), trees[0])
                    line, column = tree.place((key, name))
                    first = ":".join(map(str, (other.file, *other.place((key, name)))))
                    problems.append(
                        Problem(
                            f"there is one of this name already: {first}",
                            f"{key}.{name}",
                            tree.file,
                            line,
                            column,
                        )
                    )
                    continue
                into[name] = item
                owners[key, name] = tree
    return data, owners


# --- mistakes in the user's words -------------------------------------------------------------------------


def _unfolded(errors: list[ErrorDetails], prefix: Loc = ()) -> Iterator[tuple[Loc, ErrorDetails]]:
    """Every mistake with its path: those that a component's own model found, and all of a match's."""
    for error in errors:
        loc = (*prefix, *error["loc"])
        context = error.get("ctx", {})
        if error["type"] == "nested":
            yield from _unfolded(context["errors"], loc)
        elif error["type"] == "match":
            for path, message in context["mistakes"]:
                yield (*loc, *path), {**error, "msg": message}
        else:
            yield loc, error


def _problem(loc: Loc, error: ErrorDetails, trees: list[_Tree], owners: dict[Loc, _Tree]) -> Problem:
    # Without what pydantic adds for unions: `literal['now','beginning']`, `function-before[…]`.
    loc = tuple(part for part in loc if not (isinstance(part, str) and part.endswith("]") and "[" in part))
    tree = owners.get(loc[:2]) or (trees[0] if trees else None)
    message = _message(loc, error)
    if tree is None:
        return Problem(message, _dotted(loc))
    line, column = tree.place(loc)
    return Problem(message, _dotted(loc), tree.file, line, column)


def _message(loc: Loc, error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown option{did_you_mean(str(loc[-1]), _known_options(loc))}"
    if kind == "missing":
        return "this option is needed" if loc != ("routes",) else "no routes: where shall the records go?"
    if kind == "too_short" and loc == ("routes",):
        return "no routes: where shall the records go?"
    if kind == "literal_error":
        value = error["input"]
        expected = context["expected"]
        known = re.findall(r"'([^']*)'", expected)
        return f"expected {expected}{did_you_mean(str(value), known) if isinstance(value, str) else ''}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return message[:1].lower() + message[1:] if message[:6] in ("Input ", "Field ") else message


def _known_options(loc: Loc) -> list[str]:
    """The options there are beside the one at `loc`."""
    from logroute.config.components import PROCESSORS, SINKS, SOURCES

    known: set[str] = set(Config.model_fields)
    for registry in (SINKS, SOURCES, PROCESSORS):
        for type_ in registry.loaded():
            known |= _names(registry.options(type_))
    known |= _names(Config)
    return sorted(known)


def _names(model: Any) -> set[str]:
    from pydantic import BaseModel

    names: set[str] = set()
    for name, option in model.model_fields.items():
        names.add(name)
        for type_ in _models_in(option.annotation):
            if issubclass(type_, BaseModel):
                names |= _names(type_)
    return names


def _models_in(annotation: Any) -> Iterator[type]:
    from typing import get_args

    if isinstance(annotation, type):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _dotted(loc: Loc) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
