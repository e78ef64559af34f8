"""Matches: which records a route, a source or a processor takes.

A match is a mapping of conditions: keys are ANDed, a list of values is ORed, `any`, `all` and `not` nest. A
value is a glob (`web-*`), a `/regex/` or a comparison (`">=2"`). Or it is an expression that means such a
mapping. `docs/matching.md` is the reference.

Evaluation is three-valued: a condition on what varies with the record is unknown as long as only the origin
is known, and `False and unknown` is already False. So most of it is decided once per container
(`Match.decide`, `Match.rest`). What is left where there are conditions on `level`, `message`, `fields.K` or
`time` is a smaller tree, and a `Selector` of it looks at whole batches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from logroute.config.problems import kind_of
from logroute.router.match_expression import parse_expression
from logroute.router.match_values import At, Scalar, Test, test_of
from logroute.router.match_values import MatchError as MatchError
from logroute.router.paths import OriginGetter, RecordGetter, UnknownPath, image_reference, path
from logroute.router.record import STREAMS, Origin, Stream
from logroute.router.regex import Regex
from logroute.router.selection import Look, Selector, mask_of, ones

Values = tuple[Scalar, ...]

Decision = frozenset[Stream]
"""The streams of an origin that are taken."""
NO: Decision = frozenset()

ID_PREFIX_LENGTH = 12
"""What `docker ps` shows of an id; shorter hex words (`cafe`, `deadbeef`) are names."""


# --- the tree -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Condition:
    """One key: any of the path's values has to pass any of the tests."""

    path: str
    tests: tuple[Test, ...]
    values: Callable[[Origin, Stream | None], Values | None] = field(compare=False, repr=False)
    """None: not known yet. No value at all: absent, no test passes."""
    listed: bool = False

    def holds(self, origin: Origin, stream: Stream | None) -> bool | None:
        values = self.values(origin, stream)
        if values is None:
            return None
        return any(test.passes(value) for test in self.tests for value in values)

    def rest(self, origin: Origin) -> Rest:
        known = self.holds(origin, None)
        return self if known is None else known

    def mask(self, look: Look) -> int:
        """Of the stream: all else is known."""
        passing = {s for s in STREAMS if self.holds(look.origin, s)}
        return mask_of(map(passing.__contains__, look.streams))

    def regexes(self) -> Iterator[Regex]:
        return iter(())

    def to_value(self) -> dict[str, Any]:
        values = [test.value for test in self.tests]
        return {self.path: values if self.listed else values[0]}

    def text(self, origin: Origin) -> str:
        wanted = " or ".join(str(test.value) for test in self.tests)
        values = self.values(origin, None)
        if values is None:
            return f"{self.path}: {wanted}"
        shown = ", ".join(map(_shortened, dict.fromkeys(map(str, values)))) or "absent"
        return f"{self.path}: {wanted} (it is {shown})"


@dataclass(frozen=True, slots=True)
class RecordCondition:
    """A key whose value each record has its own of."""

    path: str
    tests: tuple[Test, ...]
    get: RecordGetter = field(compare=False, repr=False)
    listed: bool = False

    def holds(self, origin: Origin, stream: Stream | None) -> bool | None:
        return None

    def rest(self, origin: Origin) -> Rest:
        return self

    def mask(self, look: Look) -> int:
        if self.path == "message":
            return self._message_mask(look)
        if self.path == "level":
            passes = _Levels(self.tests)
            return mask_of(map(passes.__getitem__, look.levels))
        return mask_of(self._pass(look.values(self.path, self.get)))

    def _pass(self, values: Iterable[Any]) -> Iterator[bool]:
        """Whether each does. Many are the same: these are tested once."""
        tests = self.tests
        known: dict[Any, bool] = {}
        for value in values:
            key = value.__class__, value  # 1 and true are not the same
            try:
                passes = known.get(key)
            except TypeError:  # a list or an object
                yield any(test.passes(scalar) for scalar in scalars(value) for test in tests)
                continue
            if passes is None:
                passes = known[key] = any(test.passes(scalar) for scalar in scalars(value) for test in tests)
            yield passes

    def _message_mask(self, look: Look) -> int:
        mask = 0
        for test in self.tests:
            if test.regex is not None:
                mask |= look.found(test.regex)
            else:
                mask |= mask_of(map(test.passes, look.messages))
        return mask

    def regexes(self) -> Iterator[Regex]:
        if self.path == "message":
            yield from (test.regex for test in self.tests if test.regex is not None)

    def to_value(self) -> dict[str, Any]:
        values = [test.value for test in self.tests]
        return {self.path: values if self.listed else values[0]}

    def text(self, origin: Origin) -> str:
        return f"{self.path}: {' or '.join(str(test.value) for test in self.tests)}"


class _Levels(dict[str | None, bool]):
    """Whether each level passes: there are few, and each is looked at once."""

    def __init__(self, tests: tuple[Test, ...]) -> None:
        self._tests = tests

    def __missing__(self, level: str | None) -> bool:
        # One that is not known counts as `info`.
        passes = self[level] = any(test.passes(level or "info") for test in self._tests)
        return passes


def scalars(value: Any) -> Values:
    """What a test looks at: of a list each value, of an object its JSON, of what is absent nothing."""
    if isinstance(value, bool):
        return ("true" if value else "false",)
    if isinstance(value, str | int | float):
        return (value,)
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        return tuple(scalar for each in value for scalar in scalars(each))
    try:
        return (msgspec.json.encode(value).decode(),)
    except (TypeError, ValueError, RecursionError):
        return ()


@dataclass(frozen=True, slots=True)
class AllOf:
    parts: tuple[Node, ...]

    def holds(self, origin: Origin, stream: Stream | None) -> bool | None:
        known: bool | None = True
        for part in self.parts:
            held = part.holds(origin, stream)
            if held is False:
                return False
            if held is None:
                known = None
        return known

    def rest(self, origin: Origin) -> Rest:
        parts: list[Node] = []
        for part in self.parts:
            rest = part.rest(origin)
            if rest is False:
                return False
            if rest is not True:
                parts.append(rest)
        if not parts:
            return True
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def mask(self, look: Look) -> int:
        mask = ones(len(look))
        for part in self.parts:
            mask &= part.mask(look)
            if not mask:
                break
        return mask

    def regexes(self) -> Iterator[Regex]:
        for part in self.parts:
            yield from part.regexes()

    def to_value(self) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        values = [part.to_value() for part in self.parts]
        for value in values:
            if merged.keys() & value.keys():
                return {"all": values}
            merged |= value
        return merged

    def text(self, origin: Origin) -> str:
        return " and ".join(_bracketed(part, origin) for part in self.parts)


@dataclass(frozen=True, slots=True)
class AnyOf:
    parts: tuple[Node, ...]

    def holds(self, origin: Origin, stream: Stream | None) -> bool | None:
        known: bool | None = False
        for part in self.parts:
            held = part.holds(origin, stream)
            if held:
                return True
            if held is None:
                known = None
        return known

    def rest(self, origin: Origin) -> Rest:
        parts: list[Node] = []
        for part in self.parts:
            rest = part.rest(origin)
            if rest is True:
                return True
            if rest is not False:
                parts.append(rest)
        if not parts:
            return False
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def mask(self, look: Look) -> int:
        mask, all_ = 0, ones(len(look))
        for part in self.parts:
            mask |= part.mask(look)
            if mask == all_:
                break
        return mask

    def regexes(self) -> Iterator[Regex]:
        for part in self.parts:
            yield from part.regexes()

    def to_value(self) -> dict[str, Any]:
        return {"any": [part.to_value() for part in self.parts]}

    def text(self, origin: Origin) -> str:
        return " or ".join(_bracketed(part, origin) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not:
    part: Node

    def holds(self, origin: Origin, stream: Stream | None) -> bool | None:
        held = self.part.holds(origin, stream)
        return None if held is None else not held

    def rest(self, origin: Origin) -> Rest:
        rest = self.part.rest(origin)
        return not rest if isinstance(rest, bool) else Not(rest)

    def mask(self, look: Look) -> int:
        return self.part.mask(look) ^ ones(len(look))

    def regexes(self) -> Iterator[Regex]:
        return self.part.regexes()

    def to_value(self) -> dict[str, Any]:
        return {"not": self.part.to_value()}

    def text(self, origin: Origin) -> str:
        return f"not {_bracketed(self.part, origin)}"


Node = Condition | RecordCondition | AllOf | AnyOf | Not
Rest = Node | bool
"""What is left of a tree where an origin is known: the answer, or a smaller tree."""


def _bracketed(node: Node, origin: Origin) -> str:
    text = node.text(origin)
    return f"({text})" if isinstance(node, AllOf | AnyOf) else text


def _shortened(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 100 else f"{shown[:96]}…'"


# --- the match ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Match:
    """A parsed match. Equal matches say the same in the same order."""

    root: Node

    @classmethod
    def parse(cls, value: Any, *, containers: bool = False) -> Match:
        """Parse what a configuration or a request has, a mapping or an expression; with `containers` one that
        chooses only these.

        Raises MatchError for the first mistake; its `mistakes` are all of them.
        """
        expression = parse_expression(value) if isinstance(value, str) else None
        parser = _Parser(containers)
        root = parser.mapping(value if expression is None else expression.value, ())
        if mistakes := parser.mistakes:
            if expression is not None:
                mistakes = [MatchError(f"at character {expression.place(m)}: {m}") for m in mistakes]
                if len(value.split()) == 1:  # a name, and not what it is the name of
                    mistakes = [MatchError(f'{mistakes[0]}; conditions look like container ~ "web-*"')]
            raise MatchError(str(mistakes[0]), mistakes[0].path, tuple(mistakes))
        return cls(root)

    def to_value(self) -> dict[str, Any]:
        """The mapping that parses to this match, one spelling for all: `label.K`, not `label: {K: …}`."""
        return self.root.to_value()

    def decide(self, origin: Origin) -> Decision:
        """Which streams of this origin may be taken: NO, ALL_STREAMS or one of them.

        Once per container and route; no record is looked at afterwards, unless there is a `selector`.
        """
        return frozenset(stream for stream in STREAMS if self.root.holds(origin, stream) is not False)

    def selector(self, origin: Origin) -> Selector | None:
        """What tells which records of this origin are taken, of the streams that are; None: all are.

        Likewise once per container and route. Selectors that mean the same are equal.
        """
        if all(self.root.holds(origin, stream) is not None for stream in STREAMS):
            return None
        rest = self.root.rest(origin)
        return None if isinstance(rest, bool) else Selector(rest)

    @property
    def record_paths(self) -> frozenset[str]:
        """What it looks at of records; empty where a container, and the stream, tell everything."""
        return frozenset(_record_paths(self.root))

    def explain(self, origin: Origin) -> list[tuple[str, bool | None]]:
        """The conditions that all have to hold, in words and with the container's own values, and whether
        each does, for one stream at least; None where that depends on the record."""
        return [(part.text(origin), _held(part, origin)) for part in _conjuncts(self.root)]


def _held(node: Node, origin: Origin) -> bool | None:
    held = [node.holds(origin, stream) for stream in STREAMS]
    return True if True in held else None if None in held else False


def _record_paths(node: Node) -> Iterator[str]:
    if isinstance(node, AllOf | AnyOf):
        for part in node.parts:
            yield from _record_paths(part)
    elif isinstance(node, Not):
        yield from _record_paths(node.part)
    elif isinstance(node, RecordCondition):
        yield node.path


def _conjuncts(node: Node) -> Iterator[Node]:
    if isinstance(node, AllOf):
        for part in node.parts:
            yield from _conjuncts(part)
    else:
        yield node


EVERYTHING = Match(AllOf(()))


# --- parsing ------------------------------------------------------------------------------------------

_NESTING = ("any", "all", "not")
_ID_PREFIX = re.compile(rf"[0-9a-f]{{{ID_PREFIX_LENGTH},64}}")
DEEPEST = 30
"""Steps into a value (`any`, `0`, `not` …): more than anybody can read, less than Python can recurse."""


class _Parser:
    """Collects every mistake; what is wrong is left out of the tree, which is then not used."""

    def __init__(self, containers: bool) -> None:
        self.mistakes: list[MatchError] = []
        self._containers = containers

    def mapping(self, value: Any, at: At) -> Node:
        parts: list[Node] = []
        if not isinstance(value, Mapping):
            self._wrong(f"expected conditions such as {{container: web-*}}, not {kind_of(value)}", at)
        elif not value and at:
            self._wrong("no condition: it would take everything", at)
        elif len(at) > DEEPEST:
            self._wrong("nested too deeply", at)
        else:
            for key, below in value.items():
                parts += self._key(str(key), below, (*at, key))
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _key(self, key: str, value: Any, at: At) -> Iterator[Node]:
        if key == "not":
            # A list is ORed everywhere, so this is "none of them".
            yield Not(self._any(value, at) if isinstance(value, list) else self.mapping(value, at))
        elif key in _NESTING:
            if not isinstance(value, list):
                self._wrong(f"{key!r} takes a list of matches, not {kind_of(value)}", at)
            elif key == "any":
                yield self._any(value, at)
            else:
                yield AllOf(self._items(value, at))
        elif isinstance(value, Mapping):
            # label: {audit: "true"} means label.audit: "true", and likewise container, compose …
            if not value:
                self._wrong(f"{key!r} has no condition", at)
            for name, below in value.items():
                yield from self._condition(f"{key}.{name}", below, (*at, name))
        else:
            yield from self._condition(key, value, at)

    def _any(self, value: list[Any], at: At) -> Node:
        return AnyOf(self._items(value, at))

    def _items(self, value: list[Any], at: At) -> tuple[Node, ...]:
        if not value:
            self._wrong("an empty list of matches", at)
        return tuple(self.mapping(item, (*at, index)) for index, item in enumerate(value))

    def _condition(self, key: str, value: Any, at: At) -> Iterator[Node]:
        """One condition, or none if it is wrong."""
        listed = isinstance(value, list)
        items: list[tuple[At, Any]] = (
            [((*at, i), v) for i, v in enumerate(value)] if listed else [(at, value)]
        )
        if not items:
            self._wrong(f"an empty list for {key!r} would never match", at)
        tests: list[Test] = []
        condition: Callable[[], Node] | None = None
        try:
            condition = _condition_of(key, tests, [item for _, item in items], at, listed)
        except MatchError as mistake:
            self.mistakes.append(mistake)
            return
        for where, item in items:
            try:
                tests.append(test_of(item, key, where))
            except MatchError as mistake:
                self.mistakes.append(mistake)
        made = condition()
        if self._containers and isinstance(made, RecordCondition):
            what = f"{key!r} looks at records; only containers can be chosen here"
            self.mistakes.append(MatchError(what, at, of_key=True))
        yield made

    def _wrong(self, message: str, at: At) -> None:
        self.mistakes.append(MatchError(message, at))


def _condition_of(
    key: str, tests: list[Test], written: list[Any], at: At, listed: bool
) -> Callable[[], Node]:
    """Makes the condition of a key, once its tests are there. Raises MatchError."""
    values: Callable[[Origin, Stream | None], Values | None]
    if key == "container":
        values = _container([text for text in written if isinstance(text, str)])
    elif key in _OWN_VALUES:
        values = _OWN_VALUES[key]
    else:
        try:
            found = path(key)
        except UnknownPath:
            raise MatchError(str(UnknownPath(key, "condition", _OWN_KEYS)), at, of_key=True) from None
        get = found.of_origin
        if get is None:
            return lambda: RecordCondition(key, tuple(tests), found.of_record, listed)
        values = _constant(get)
    return lambda: Condition(key, tuple(tests), values, listed)


def _constant(get: OriginGetter) -> Callable[[Origin, Stream | None], Values]:
    def values(origin: Origin, _: Stream | None) -> Values:
        value = get(origin)
        return () if value is None else (value,)

    return values


def _container(texts: list[str]) -> Callable[[Origin, Stream | None], Values]:
    """The container's name; and of the id prefixes among the tests the one that its id begins with, which
    so passes its own test, while a glob such as `a*` never looks at an id."""
    prefixes = tuple(text for text in texts if _ID_PREFIX.fullmatch(text))

    def values(origin: Origin, _: Stream | None) -> Values:
        names = (origin.name,) if origin.name else ()
        return names + tuple(prefix for prefix in prefixes if origin.id.startswith(prefix))

    return values


def _image(origin: Origin, _: Stream | None) -> Values:
    """What people call an image: `registry/shop/web:1.2`, `registry/shop/web`, `web:1.2`, `web`.

    Where it was started by its digest, also with that.
    """
    reference = image_reference(origin)
    if origin.image is None or reference is None:
        return ()
    name = origin.image.name
    short = name.rpartition("/")[2]
    found: Values = (reference, name, short + reference[len(name) :], short)
    if origin.image.tag and origin.image.digest:
        tagged = f":{origin.image.tag}"
        found += (name + tagged, short + tagged, f"{name}@{origin.image.digest}")
    return found


def _label_names(origin: Origin, _: Stream | None) -> Values:
    """`label: audit`: there is a label of that name, whatever it says."""
    return tuple(origin.labels)


def _stream(_: Origin, stream: Stream | None) -> Values | None:
    return None if stream is None else (stream,)


_OWN_VALUES: dict[str, Callable[[Origin, Stream | None], Values | None]] = {
    "image": _image,
    "label": _label_names,
    "stream": _stream,
}
_OWN_KEYS = ("container", *_OWN_VALUES, *_NESTING)
