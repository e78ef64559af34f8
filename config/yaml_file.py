"""A YAML file as plain data, with the place of every key and item.

YAML 1.2, core schema: `yes` and `on` are texts, `0o17` is fifteen and `017` seventeen, whatever a `%YAML`
directive says. `<<` merges, as in everybody's files. ruamel scans and parses; its events are put together
here, because its constructors stop at the first key that is there twice, forget where a merged key was
written, and make dates, sets and objects. It is imported only when there is a file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from logroute.config.problems import Loc, Problem, dotted
from logroute.config.variables import Variables

DEPTH_LIMIT = 40
NODE_LIMIT = 200_000
"""More than any configuration has; what aliases of aliases would unfold to is refused."""

Place = tuple[int, int]
"""Line and column, from 1."""


class YamlFile(msgspec.Struct):
    """What a file says."""

    file: str
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    """Mappings, lists and scalars; texts whose variables were filled in are `Filled`."""
    places: dict[Loc, Place] = msgspec.field(default_factory=dict)
    doubtful: set[Loc] = msgspec.field(default_factory=set)
    """Values of which a mistake was told: what else is wrong about them may follow from it."""

    def place(self, loc: Loc) -> Place:
        """Of the nearest thing that is there: a missing key is told at its mapping."""
        while loc and loc not in self.places:
            loc = loc[:-1]
        return self.places.get(loc, (1, 1))


def parse_yaml(file: str, text: str, variables: Variables, problems: list[Problem]) -> YamlFile | None:
    """Read the text of a file. Mistakes go to `problems`; None where nothing can be made of it."""

    def tell(message: str, place: Place = (1, 1), loc: Loc = ()) -> None:
        problems.append(Problem(message, dotted(loc), file, *place))

    try:
        root = _compose(_events(text))
    except _NotYaml as error:
        tell(error.message, error.place)
        return None
    if root is None or (root.kind == "scalar" and root.plain and root.text in ("", "~", "null")):
        tell("the file is empty: it needs `routes`")
        return None
    if root.kind != "mapping":
        tell(f"expected a mapping with `routes`, not {'a list' if root.kind == 'sequence' else 'a text'}")
        return None
    read = YamlFile(file)
    try:
        read.data = _Plain(read, variables, tell).mapping(root, (), 0)
    except _NotYaml as error:
        tell(error.message, error.place)
        return None
    return read


# --- from text to nodes -----------------------------------------------------------------------------------


def forget_parser() -> None:
    """Let go of the YAML library, over a megabyte, until it is needed again (it is then imported again)."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "ruamel"]:
        del sys.modules[name]


class _NotYaml(Exception):
    """Nothing can be made of the file."""

    def __init__(self, message: str, place: Place = (1, 1)) -> None:
        super().__init__(message)
        self.message = message
        self.place = place


class _Node(msgspec.Struct, eq=False):
    """A scalar, a mapping or a sequence; an alias stands for the same node a second time."""

    kind: str
    text: str = ""
    plain: bool = False
    """A scalar without quotes: it may be a number."""
    tag: str | None = None
    tag_place: Place = (1, 1)
    children: list[tuple[_Node, Place]] = msgspec.field(default_factory=list)
    """Of a mapping: key, value, key, value."""


def _events(text: str) -> Iterator[Any]:
    """ruamel's events. Raises _NotYaml."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.reader import ReaderError

    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except MarkedYAMLError as error:
        raise _NotYaml(*_syntax_error(error, text)) from error
    except ReaderError as error:
        before = text[: error.position]
        place = before.count("\n") + 1, error.position - before.rfind("\n")
        raise _NotYaml(f"not YAML: the character U+{ord(text[error.position]):04X}", place) from error
    except Exception as error:  # whatever its int() and chr() say about digits behind % and \U
        raise _NotYaml(f"not YAML: {error}") from error


def _syntax_error(error: Any, text: str) -> tuple[str, Place]:
    """What ruamel says, where, and what was probably meant."""
    mark = error.problem_mark or error.context_mark
    said = " ".join(part for part in (error.context, error.problem) if part)
    if "unexpected end of stream" in said and error.context_mark is not None:
        mark = error.context_mark  # the quote that is never closed
    if mark is None:
        return f"not YAML: {said}", (1, 1)
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    here = line[mark.column : mark.column + 1]
    hint = ""
    if here == "\t":
        said = "YAML is indented with spaces, not with tabs"
    elif here in tuple("`@%"):
        hint = f"; a text that begins with {here} needs quotes"
    elif "flow" in said and "{" in line:
        hint = "; a text with braces needs quotes"
    elif "mapping values" in said:
        hint = '; a text with ": " in it, or with ":" at its end, needs quotes'
    return f"not YAML: {said}{hint}", (mark.line + 1, mark.column + 1)


def _compose(stream: Iterable[Any]) -> _Node | None:
    """The first document's root. Raises _NotYaml."""
    from ruamel.yaml import events

    root: _Node | None = None
    open_nodes: list[_Node] = []
    anchors: dict[str, _Node] = {}
    documents = 0
    for event in stream:
        place = event.start_mark.line + 1, event.start_mark.column + 1
        if isinstance(event, events.AliasEvent):
            node = _aliased(event.anchor, anchors, open_nodes, place)
        elif isinstance(event, events.ScalarEvent):
            node = _Node("scalar", event.value, event.style is None, event.tag, place)
        elif isinstance(event, events.MappingStartEvent):
            node = _Node("mapping", tag=event.tag, tag_place=place)
        elif isinstance(event, events.SequenceStartEvent):
            node = _Node("sequence", tag=event.tag, tag_place=place)
        else:
            if isinstance(event, events.CollectionEndEvent):
                open_nodes.pop()
            elif isinstance(event, events.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _NotYaml("a second document begins here: a configuration is one", place)
            continue
        if event.anchor and not isinstance(event, events.AliasEvent):
            anchors[event.anchor] = node
        if open_nodes:
            open_nodes[-1].children.append((node, place))
        else:
            root = node
        if isinstance(event, events.CollectionStartEvent):
            open_nodes.append(node)
            if len(open_nodes) > DEPTH_LIMIT:  # ruamel takes time with the square of the depth
                raise _NotYaml(f"nested more than {DEPTH_LIMIT} levels deep", place)
    return root


def _aliased(name: str, anchors: dict[str, _Node], open_nodes: list[_Node], place: Place) -> _Node:
    node = anchors.get(name)
    if node is None:
        raise _NotYaml(
            f'there is no anchor &{name}; a text that begins with * needs quotes: "*{name}"', place
        )
    if any(node is other for other in open_nodes):
        raise _NotYaml(f"*{name} would hold itself", place)
    return node


# --- from nodes to data -----------------------------------------------------------------------------------


class _Plain:
    """Makes plain data of nodes, fills in variables, and notes where everything stands."""

    def __init__(self, read: YamlFile, variables: Variables, tell: Callable[[str, Place, Loc], None]) -> None:
        self._read = read
        self._variables = variables
        self._tell = tell
        self._nodes = 0

    def mapping(self, node: _Node, loc: Loc, depth: int) -> dict[str, Any]:
        """Raises _NotYaml where it is too much."""
        self._check_tag(node, "map", loc)
        data: dict[str, Any] = {}
        for name, place, value in self._pairs(node, loc, depth):
            here = (*loc, name)
            self._read.places[here] = place
            data[name] = self._value(value, here, place, depth + 1)
        return data

    def _pairs(self, node: _Node, loc: Loc, depth: int) -> Iterator[tuple[str, Place, _Node]]:
        """Key, place and value of what stands in a mapping, then of what it merges and does not have."""
        lines: dict[str, int] = {}
        merged: list[tuple[_Node, Place]] = []
        children = iter(node.children)
        for (key, place), (value, _) in zip(children, children, strict=True):
            if key.kind == "scalar" and key.plain and key.text == "<<":
                merged.append((value, place))
                continue
            name = self._key(key, place, loc)
            if name is None:
                continue
            if name in lines:
                self._tell(f"the key is there twice, first in line {lines[name]}", place, (*loc, name))
                continue
            lines[name] = place[0]
            yield name, place, value
        for value, place in merged:
            # A list of mappings: the first that has a key gives it.
            for source in [item for item, _ in value.children] if value.kind == "sequence" else [value]:
                if source.kind != "mapping":
                    self._tell("`<<` merges a mapping, or a list of them, into this one", place, loc)
                    continue
                self._count(place, depth + 1)
                for name, at, below in self._pairs(source, loc, depth + 1):
                    if name not in lines:
                        lines[name] = at[0]
                        yield name, at, below

    def _count(self, place: Place, depth: int) -> None:
        self._nodes += 1
        if depth > DEPTH_LIMIT:
            raise _NotYaml(f"nested more than {DEPTH_LIMIT} levels deep", place)
        if self._nodes > NODE_LIMIT:
            raise _NotYaml("its aliases unfold to more than any configuration has", place)

    def _value(self, node: _Node, loc: Loc, place: Place, depth: int) -> Any:
        self._count(place, depth)
        if node.kind == "mapping":
            return self.mapping(node, loc, depth)
        if node.kind == "scalar":
            return self._scalar(node, loc, place)
        self._check_tag(node, "seq", loc)
        items = []
        for index, (item, at) in enumerate(node.children):
            here = (*loc, index)
            self._read.places[here] = at
            items.append(self._value(item, here, at, depth + 1))
        return items

    def _key(self, node: _Node, place: Place, loc: Loc) -> str | None:
        if node.kind != "scalar":
            self._tell("a key must be a text", place, loc)
        elif node.plain and not node.text:
            self._tell("a key is missing in front of its value", place, loc)
        else:
            if "${" in node.text:
                self._doubt("variables are for values, not for keys", place, (*loc, node.text))
            return self._whole(node.text, loc, place)
        return None

    def _scalar(self, node: _Node, loc: Loc, place: Place) -> Any:
        if node.tag in (None, "!"):
            value = resolve(node.text) if node.plain and node.tag is None else node.text
        else:
            value = _tagged(node)
            if value is _MEANINGLESS:
                self._doubt(f"the tag {_short_tag(node.tag)} means nothing here", node.tag_place, loc)
                value = node.text
        if not isinstance(value, str):
            return value
        text = self._whole(value, loc, place)
        return self._variables.fill(text, lambda message: self._doubt(message, place, loc))

    def _doubt(self, message: str, place: Place, loc: Loc) -> None:
        self._tell(message, place, loc)
        self._read.doubtful.add(loc)

    def _whole(self, text: str, loc: Loc, place: Place) -> str:
        if text.isascii() or not _SURROGATES.search(text):
            return text
        self._tell("half of a character (a lone surrogate) in a text", place, loc)
        return _SURROGATES.sub("\ufffd", text)

    def _check_tag(self, node: _Node, standard: str, loc: Loc) -> None:
        if node.tag not in (None, "!", _STANDARD + standard):
            self._doubt(f"the tag {_short_tag(node.tag)} means nothing here", node.tag_place, loc)


# --- scalars ----------------------------------------------------------------------------------------------

_SURROGATES = re.compile("[\ud800-\udfff]")
_STANDARD = "tag:yaml.org,2002:"
_MEANINGLESS = object()
LONGEST_NUMBER = 400
"""Characters. Python reads numbers of 4,300 digits; nobody means one."""

# YAML 1.2.2, 10.3.2: the core schema.
_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"(true|True|TRUE)|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def resolve(text: str) -> Any:
    """What a scalar without quotes is: None, a truth value, a number or the text itself."""
    if len(text) > LONGEST_NUMBER:
        return text
    if _NULL.fullmatch(text):
        return None
    if found := _BOOL.fullmatch(text):
        return found[1] is not None
    if _INT.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEX.fullmatch(text):
        return int(text[2:], 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if found := _INFINITE.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


_TYPES = {"null": type(None), "bool": bool, "int": int, "float": float}


def _tagged(node: _Node) -> Any:
    """What a scalar is that says its own type: `!!str 5`."""
    name = str(node.tag).removeprefix(_STANDARD) if str(node.tag).startswith(_STANDARD) else ""
    if name == "str":
        return node.text
    value = resolve(node.text)
    if name == "float" and type(value) is int:
        return float(value)
    return value if name in _TYPES and type(value) is _TYPES[name] else _MEANINGLESS


def _short_tag(tag: str | None) -> str:
    return f"!!{tag.removeprefix(_STANDARD)}" if tag and tag.startswith(_STANDARD) else str(tag)
