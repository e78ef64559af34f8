"""Matches: which records a route, a source or a processor takes.

A match is a mapping: keys are ANDed, a list of values is ORed, `any`, `all` and `not` nest. A value is a
glob (`web-*`, case-sensitive, `*` crosses everything), a `/regex/` (Python's, searched for; `/…/i` ignores
case) or a comparison of numbers (`">=2"`). A condition on an absent path is false.

Whatever depends on the container alone is decided once per container: `decide` answers which streams of an
origin are taken, and no condition is left to be looked at per record.
"""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from logroute.router.paths import (
    ORIGIN,
    RECORD,
    UnknownPath,
    Value,
    image_reference,
    known_paths,
    origin_getter,
)
from logroute.router.record import STREAMS, Origin, Stream

ALL_STREAMS: frozenset[Stream] = frozenset(STREAMS)

_COMPARISON = re.compile(r"(>=|<=|>|<|==|!=)\s*(-?\d+(?:\.\d+)?)")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}
_REGEX = re.compile(r"/(.*)/(i?)", re.DOTALL)
_ID_PREFIX = re.compile(r"[0-9a-f]{12,64}")

# A stranger's name or label must not be able to stall the daemon in a regular expression.
SUBJECT_LIMIT = 4096


class MatchError(ValueError):
    """A match that means nothing; `path` leads to the mistake inside the given value."""

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True, slots=True)
class Condition:
    """One key and one value."""

    path: str
    text: str
    values: Callable[[Origin, Stream], tuple[Value, ...]]
    test: Callable[[Value], bool]

    def holds(self, origin: Origin, stream: Stream) -> bool:
        return any(value is not None and self.test(value) for value in self.values(origin, stream))


@dataclass(frozen=True, slots=True)
class AllOf:
    parts: tuple[Node, ...]

    def holds(self, origin: Origin, stream: Stream) -> bool:
        return all(part.holds(origin, stream) for part in self.parts)


@dataclass(frozen=True, slots=True)
class AnyOf:
    parts: tuple[Node, ...]

    def holds(self, origin: Origin, stream: Stream) -> bool:
        return any(part.holds(origin, stream) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not:
    part: Node

    def holds(self, origin: Origin, stream: Stream) -> bool:
        return not self.part.holds(origin, stream)


Node = Condition | AllOf | AnyOf | Not


@dataclass(frozen=True, slots=True)
class Match:
    """A parsed match."""

    root: Node
    value: Any
    """What it was parsed from."""

    @classmethod
    def parse(cls, value: Any) -> Match:
        """Parse the mapping of a configuration. Raises MatchError."""
        return cls(_mapping(value, ()), value)

    def decide(self, origin: Origin) -> frozenset[Stream]:
        """The streams of this origin that are taken; empty if it is not taken at all."""
        return frozenset(stream for stream in STREAMS if self.root.holds(origin, stream))

    def explain(self, origin: Origin) -> list[tuple[str, bool]]:
        """Every condition in words, with the container's own value, and whether it holds for a stream."""
        found: list[tuple[str, bool]] = []
        for condition in _conditions(self.root):
            values = {v for stream in STREAMS for v in condition.values(origin, stream) if v is not None}
            shown = " or ".join(sorted(repr(v) for v in values)) or "absent"
            holds = any(condition.holds(origin, stream) for stream in STREAMS)
            found.append((f"{condition.path}: {condition.text} ({shown})", holds))
        return found


EVERYTHING = Match(AllOf(()), {})


def _conditions(node: Node) -> list[Condition]:
    if isinstance(node, Condition):
        return [node]
    if isinstance(node, Not):
        return _conditions(node.part)
    return [condition for part in node.parts for condition in _conditions(part)]


# --- parsing ------------------------------------------------------------------------------------------


def _mapping(value: Any, at: tuple[str | int, ...]) -> Node:
    if not isinstance(value, Mapping):
        raise MatchError(f"expected a mapping such as {{container: web-*}}, not {_kind(value)}", at)
    parts: list[Node] = []
    for key, below in value.items():
        here = (*at, key)
        if key in ("any", "all"):
            if not isinstance(below, list) or not below:
                raise MatchError(f"{key!r} takes a list of matches", here)
            nodes = tuple(_mapping(item, (*here, index)) for index, item in enumerate(below))
            parts.append(AnyOf(nodes) if key == "any" else AllOf(nodes))
        elif key == "not":
            parts.append(Not(_mapping(below, here)))
        elif isinstance(below, Mapping):
            # label: {audit: "true"} means label.audit: "true", and likewise compose, swarm …
            if not below:
                raise MatchError(f"{key!r} says nothing", here)
            parts += [_key(f"{key}.{name}", item, (*here, name)) for name, item in below.items()]
        else:
            parts.append(_key(str(key), below, here))
    return parts[0] if len(parts) == 1 else AllOf(tuple(parts))


def _key(path: str, value: Any, at: tuple[str | int, ...]) -> Node:
    values = _values_of(path, at)
    if not isinstance(value, list):
        return _condition(path, value, values, at)
    if not value:
        raise MatchError(f"{path!r} has an empty list: it would never match", at)
    return AnyOf(tuple(_condition(path, item, values, (*at, i)) for i, item in enumerate(value)))


def _values_of(path: str, at: tuple[str | int, ...]) -> Callable[[Origin, Stream], tuple[Value, ...]]:
    """How to get the values that a key is compared with: any of them may match."""
    if path == "container":
        return lambda origin, _: (origin.name or None,)
    if path == "image":
        return lambda origin, _: _image_names(origin)
    if path == "stream":
        return lambda _, stream: (stream,)
    try:
        getter = origin_getter(path)
    except UnknownPath as error:
        known = ["container", "image", "any", "all", "not", *known_paths()]
        raise MatchError(str(UnknownPath(path, known)).replace("path", "condition", 1), at) from error
    if getter is None:
        raise MatchError(
            f"a condition on {path!r} is not available yet: this version matches on the container "
            f"({', '.join(p for p in ORIGIN if p.startswith('container'))}, label.K …) and on the stream",
            at,
        )
    return lambda origin, _: (getter(origin),)


def _image_names(origin: Origin) -> tuple[Value, ...]:
    """`registry/shop/web:1.2`, `registry/shop/web`, `web:1.2`, `web`: as people call an image."""
    if origin.image is None:
        return ()
    reference = image_reference(origin)
    name = origin.image.name
    return reference, name, reference.rpartition("/")[2], name.rpartition("/")[2]


def _condition(
    path: str,
    value: Any,
    values: Callable[[Origin, Stream], tuple[Value, ...]],
    at: tuple[str | int, ...],
) -> Condition:
    if isinstance(value, bool):
        value = "true" if value else "false"
    if isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, str):
        raise MatchError(f"expected a value for {path!r}, not {_kind(value)}", at)
    if path == "stream" and value not in STREAMS and not re.search(r"[*?\[/]", value):
        raise MatchError(f"there is no stream {value!r}: stdout or stderr", at)
    if path == "container" and _ID_PREFIX.fullmatch(value):
        by_name = values

        def names_and_id(origin: Origin, stream: Stream) -> tuple[Value, ...]:
            return *by_name(origin, stream), (value if origin.id.startswith(value) else None)

        return Condition(path, value, names_and_id, value.__eq__)
    return Condition(path, value, values, _test(value, at))


def _test(text: str, at: tuple[str | int, ...]) -> Callable[[Value], bool]:
    if regex := _REGEX.fullmatch(text):
        try:
            search = re.compile(regex[1], re.IGNORECASE if regex[2] else 0).search
        except re.error as error:
            where = f" at its character {error.pos + 1}" if error.pos is not None else ""
            raise MatchError(f"{text} is no regular expression{where}: {error.msg}", at) from error
        return lambda value: search(_text(value)) is not None
    if comparison := _COMPARISON.fullmatch(text):
        compare, number = _COMPARE[comparison[1]], float(comparison[2])
        return lambda value: (subject := _number(value)) is not None and compare(subject, number)
    if text[:1] in ("<", ">") or text[:2] in ("==", "!="):
        raise MatchError(f"{text!r} compares with no number", at)
    if any(character in text for character in "*?["):
        matches = re.compile(fnmatch.translate(text)).match
        return lambda value: matches(_text(value)) is not None
    return lambda value: _text(value) == text


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)[:SUBJECT_LIMIT]


def _number(value: Value) -> float | None:
    try:
        return float(value) if value is not None and not isinstance(value, bool) else None
    except ValueError:
        return None


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "a truth value", type(None): "nothing"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


__all__ = ["ALL_STREAMS", "EVERYTHING", "RECORD", "Match", "MatchError"]
