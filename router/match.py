"""Matches: which records a route, a source or a processor takes.

A match is a mapping of conditions: keys are ANDed, a list of values is ORed, `any`, `all` and `not` nest. A
value is a glob (`web-*`), a `/regex/` or a comparison with a number (`">=2"`); `docs/matching.md` is the
reference.

Evaluation is three-valued: a condition on what varies with the record is unknown as long as only the origin
is known, and `False and unknown` is already False. So nearly everything is decided once per container
(`Match.decide`); the only thing left is the stream, and as there are two, it is decided for each of them.
Conditions on `level`, `message` and `fields.K` will be unknown there too: what remains of the tree for a
stream is then to be compiled to one function of the record.
"""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from logroute.config.problems import kind_of
from logroute.router.paths import UnknownPath, image_reference, path
from logroute.router.record import STREAMS, Origin, Stream

Scalar = str | int | float
Values = tuple[Scalar, ...]
At = tuple[str | int, ...]

Decision = frozenset[Stream]
"""The streams of an origin that are taken."""
NO: Decision = frozenset()
ALL_STREAMS: Decision = frozenset(STREAMS)

REGEX_SUBJECT_LIMIT = 4096
"""A regex sees so much of a value: names and labels come from strangers, and Python's `re` can take a time
that grows with the square of the text for patterns as simple as `/a*b/`. Docker's names are far shorter."""

ID_PREFIX_LENGTH = 12
"""What `docker ps` shows of an id; shorter hex words (`cafe`, `deadbeef`) are names."""


class MatchError(ValueError):
    """A match that means nothing; `path` leads to the mistake inside the given value."""

    def __init__(self, message: str, path: At = (), mistakes: tuple[MatchError, ...] = ()) -> None:
        super().__init__(message)
        self.path = path
        self.mistakes = mistakes or (self,)
        """Every mistake in the value, this one included, in their order."""


# --- what a value is compared with --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Test:
    """One value of a condition."""

    value: Scalar
    """As it was written."""
    passes: Callable[[Scalar], bool] = field(compare=False, repr=False)


_REGEX = re.compile(r"/(.+)/(i?)", re.DOTALL)
_COMPARISON = re.compile(r"(>=|<=|>|<|==|!=)\s*(-?[0-9]+(?:\.[0-9]+)?)\s*")
_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}


def _test(value: Any, of: str, at: At) -> Test:
    """Raises MatchError."""
    if isinstance(value, bool):
        value = "true" if value else "false"  # what a label says: audit: true
    if isinstance(value, int | float):
        # A plain number in YAML has lost how it was written: 1.10 is 1.1, 007 is 7. So it means the number.
        wanted = int(value) if isinstance(value, int) else float(value)
        return Test(wanted, lambda subject: _number(subject) == wanted)
    if not isinstance(value, str):
        hint = "; '*' takes any value" if value is None else ""
        raise MatchError(f"expected a value for {of!r}, not {kind_of(value)}{hint}", at)
    text = str(value)
    if regex := _REGEX.fullmatch(text):
        return Test(text, _search(regex[1], regex[2], at))
    if comparison := _COMPARISON.fullmatch(text):
        compare, number = _COMPARE[comparison[1]], _number(comparison[2])
        return Test(text, lambda subject: (n := _number(subject)) is not None and compare(n, number))
    if text.startswith((">", "<", "==", "!=")):
        raise MatchError(
            f"{text!r} compares with no number; the text itself is matched by '/^{re.escape(text)}$/'",
            at,
        )
    if text.startswith("/") and of in ("container", "container.name", "image", "container.image"):
        raise MatchError(
            f"no {of.partition('.')[0]}'s name begins with '/'; a regex ends with '/' or '/i': '{text}/'", at
        )
    if any(character in text for character in "*?["):
        glob = re.compile(fnmatch.translate(text)).match
        return Test(text, lambda subject: glob(str(subject)) is not None)
    if of == "stream" and text not in STREAMS:
        raise MatchError(f"there is no stream {text!r}, only stdout and stderr", at)
    return Test(text, lambda subject: str(subject) == text)


def _search(pattern: str, flags: str, at: At) -> Callable[[Scalar], bool]:
    try:
        search = re.compile(pattern, re.IGNORECASE if flags else 0).search
    except re.error as error:
        where = "" if error.pos is None else f" at its character {error.pos + 1}"
        raise MatchError(f"/{pattern}/ is no regular expression{where}: {error.msg}", at) from error
    except (RecursionError, OverflowError) as error:
        raise MatchError("the regular expression is too large", at) from error
    return lambda subject: search(str(subject)[:REGEX_SUBJECT_LIMIT]) is not None


def _number(value: Scalar) -> int | float | None:
    """The number that a value is or, as a label, spells."""
    if not isinstance(value, str):
        return value
    if _NUMBER.fullmatch(value) is None:
        return None
    return float(value) if "." in value else int(value)


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

    def to_value(self) -> dict[str, Any]:
        return {"not": self.part.to_value()}

    def text(self, origin: Origin) -> str:
        return f"not {_bracketed(self.part, origin)}"


Node = Condition | AllOf | AnyOf | Not


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
    def parse(cls, value: Any) -> Match:
        """Parse the mapping of a configuration or a request.

        Raises MatchError for the first mistake; its `mistakes` are all of them.
        """
        parser = _Parser()
        root = parser.mapping(value, ())
        if parser.mistakes:
            first = parser.mistakes[0]
            raise MatchError(str(first), first.path, tuple(parser.mistakes))
        return cls(root)

    def to_value(self) -> dict[str, Any]:
        """The mapping that parses to this match, one spelling for all: `label.K`, not `label: {K: …}`."""
        return self.root.to_value()

    def decide(self, origin: Origin) -> Decision:
        """Which streams of this origin are taken: NO, ALL_STREAMS or one of them.

        Once per container and route; no record is looked at afterwards.
        """
        held = self.root.holds(origin, None)
        if held is not None:
            return ALL_STREAMS if held else NO
        return frozenset(stream for stream in STREAMS if self.root.holds(origin, stream))

    def explain(self, origin: Origin) -> list[tuple[str, bool]]:
        """The conditions that all have to hold, in words and with the container's own values, and whether
        each does, for one stream at least."""
        return [
            (part.text(origin), any(part.holds(origin, stream) for stream in STREAMS))
            for part in _conjuncts(self.root)
        ]


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

    def __init__(self) -> None:
        self.mistakes: list[MatchError] = []

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
        try:
            values = _values_of(key, [item for _, item in items], at)
        except MatchError as mistake:
            self.mistakes.append(mistake)
            return
        tests: list[Test] = []
        for where, item in items:
            try:
                tests.append(_test(item, key, where))
            except MatchError as mistake:
                self.mistakes.append(mistake)
        yield Condition(key, tuple(tests), values, listed)

    def _wrong(self, message: str, at: At) -> None:
        self.mistakes.append(MatchError(message, at))


def _values_of(key: str, tests: list[Any], at: At) -> Callable[[Origin, Stream | None], Values | None]:
    """How to get what the tests of a key look at. Raises MatchError."""
    if key == "container":
        return _container([test for test in tests if isinstance(test, str)])
    if own := _OWN_VALUES.get(key):
        return own
    try:
        get = path(key).of_origin
    except UnknownPath:
        raise MatchError(str(UnknownPath(key, "condition", _OWN_KEYS)), at) from None
    if get is None:
        raise MatchError(
            f"a condition on {key!r} is not available yet: a match looks at the container (container, image, "
            "label.K, compose.service …) and at stream",
            at,
        )

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
    """What people call an image: `registry/shop/web:1.2`, `registry/shop/web`, `web:1.2`, `web`."""
    reference = image_reference(origin)
    if origin.image is None or reference is None:
        return ()
    name = origin.image.name
    short = name.rpartition("/")[2]
    return reference, name, short + reference[len(name) :], short


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
