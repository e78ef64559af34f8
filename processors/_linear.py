"""Which patterns Python's `re` searches in linear time, and which RE2 finds again and again in linear time.

The former: where the next character decides every choice.

`re` backtracks, and takes exponential time for `(a+)+b`. Where no repetition can be confused with what
follows it, and no two alternatives begin alike (a grammar would be called LL(1)), a way back always fails at
once: then it is as linear as an automaton, and fetches groups several times faster than RE2 (two:
seven times).

The latter: an automaton looks for one match in linear time, but may have to look to the end of the text
before it knows that it has found the right one (`key.*end|key`), and for the next one once more. Where that
is so, `far` tells how far it may look.

Whatever is not understood here is taken for unsafe.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from re import _constants as c  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from logroute.router.regex import for_python

# Sets of characters are numbers: a bit for each of ASCII, and one for all the others together.
OTHER = 1 << 128
ALL = (OTHER << 1) - 1
LONG = 64
"""A repetition of more than this counts as one without end."""
SHORT = 1000
"""What takes no more than this is looked for without harm as often as it is found. RE2 counts no further."""


def _bits(characters: Iterable[int]) -> int:
    found = 0
    for character in characters:
        found |= 1 << character if character < 128 else OTHER
    return found


_DIGIT = _bits(range(ord("0"), ord("9") + 1))
_SPACE = _bits(map(ord, " \t\n\r\f\v"))
_LETTER = _bits(range(ord("A"), ord("Z") + 1)) | _bits(range(ord("a"), ord("z") + 1))
_WORD = _DIGIT | _LETTER | 1 << ord("_")
_CATEGORIES = {
    c.CATEGORY_DIGIT: _DIGIT,
    c.CATEGORY_NOT_DIGIT: ALL & ~_DIGIT,
    c.CATEGORY_SPACE: _SPACE,
    c.CATEGORY_NOT_SPACE: ALL & ~_SPACE,
    c.CATEGORY_WORD: _WORD,
    c.CATEGORY_NOT_WORD: ALL & ~_WORD,
}
_BEGINNINGS = (c.AT_BEGINNING, c.AT_BEGINNING_STRING)


class _Unsafe(Exception):
    """A choice that the next character does not decide, or something that is not understood."""


def is_linear(pattern: str, flags: int = 0) -> bool:
    """Whether `re.search` with `re.ASCII` and these flags takes a time linear in the text.

    Raises re.error where it is no pattern.
    """
    parsed = parser.parse(for_python(pattern), flags | re.ASCII)
    if parsed.state.flags & re.MULTILINE:
        return False
    looking = _Looking(parsed.state.flags)
    try:
        first, nullable, _ = looking.sequence(list(parsed), 0, last=True)
    except (_Unsafe, RecursionError):
        return False
    if len(parsed) and parsed[0][0] is c.AT and parsed[0][1] in _BEGINNINGS:
        return True
    # From every place of a text it is tried: in what one try has run through another must not come far, so
    # there is a character that each must begin with, and that cannot be there.
    beginning = [first, *looking.beginning(parsed)]
    return not nullable and all(any(not run & each for each in beginning) for run in looking.runs)


def far(pattern: str) -> re.Pattern[bytes] | None:
    """What ends all looking for more behind something that RE2 has found; a text ends it, too.

    None where that is not needed: to find all that there is takes a time linear in the text.
    """
    try:
        parsed = parser.parse(for_python(pattern), re.ASCII)
        if parsed.getwidth()[1] <= SHORT or is_linear(pattern) or _takes_no_more_than_it_must(parsed):
            return None
        found = ALL & ~_inside(_Looking(parsed.state.flags), parsed)
    except (re.error, RecursionError, OverflowError):
        return re.compile(rb"\Z")
    characters = "".join(f"\\x{each:02x}" for each in range(128) if found >> each & 1)
    others = r"\x80-\xff" if found & OTHER else ""
    return re.compile(rf"[{characters}{others}]|\Z".encode() if found else rb"\Z")


def _takes_no_more_than_it_must(parsed: parser.SubPattern) -> bool:
    """Whether all is short but repetitions that are lazy, or the last, or followed by what they cannot take.

    Then what began earlier, and looks further than where another match ends, finds its own end no later than
    the next match does, since it comes by the same places; or it fails there.
    """
    looking = _Looking(parsed.state.flags)
    nodes = list(_without_groups(parsed))
    for at, (code, argument) in enumerate(nodes):
        if _width(parsed, nodes[at]) <= SHORT:
            continue
        if code not in (c.MAX_REPEAT, c.MIN_REPEAT) or len(argument[2]) != 1:
            return False
        try:
            taken = looking.characters(*argument[2][0])
            if code is c.MIN_REPEAT or at == len(nodes) - 1:
                continue
            first, nullable, _ = looking.sequence(nodes[at + 1 :], 0)
        except _Unsafe:
            return False
        if nullable or taken & first:
            return False
    return True


def _without_groups(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        code, argument = node
        if code is c.SUBPATTERN and not argument[1] and not argument[2]:
            yield from _without_groups(argument[3])
        else:
            yield node


def _width(parsed: parser.SubPattern, node: Any) -> int:
    return int(parser.SubPattern(parsed.state, [node]).getwidth()[1])


def _inside(looking: _Looking, nodes: Iterable[Any]) -> int:
    """All that may be in what is found."""
    found = 0
    for code, argument in nodes:
        if code is c.AT:
            continue
        if code is c.SUBPATTERN and not argument[1] and not argument[2]:
            found |= _inside(looking, argument[3])
        elif code is c.BRANCH:
            for branch in argument[1]:
                found |= _inside(looking, branch)
        elif code in (c.MAX_REPEAT, c.MIN_REPEAT):
            found |= _inside(looking, argument[2])
        else:
            try:
                found |= looking.characters(code, argument)
            except _Unsafe:
                return ALL
    return found


class _Looking:
    def __init__(self, flags: int) -> None:
        self._ignore_case = bool(flags & re.IGNORECASE)
        self._dot = ALL if flags & re.DOTALL else ALL & ~(1 << ord("\n"))
        self.runs: list[int] = []
        """What repetitions without end run through; not one at the very end: behind that nothing fails."""

    def sequence(self, nodes: Sequence[Any], follow: int, *, last: bool = False) -> tuple[int, bool, int]:
        """With what it may begin, whether it may be empty, and all that may be in it. Raises _Unsafe."""
        first, nullable, inside = 0, True, 0
        for node in reversed(nodes):
            begin, empty, within = self._node(node, first | (follow if nullable else 0), last=last)
            first = begin | first if empty else begin
            nullable = nullable and empty
            inside |= within
            last = False
        return first, nullable, inside

    def beginning(self, nodes: Iterable[Any]) -> Iterable[int]:
        """The sets of the single characters that stand at the very beginning, one behind the other."""
        for code, argument in nodes:
            try:
                yield self.characters(code, argument)
            except _Unsafe:
                return

    def _node(self, node: Any, follow: int, *, last: bool) -> tuple[int, bool, int]:
        code, argument = node
        if code is c.AT:
            return 0, True, 0
        if code is c.SUBPATTERN:
            _, added, removed, inner = argument
            if added or removed:
                raise _Unsafe
            return self.sequence(list(inner), follow, last=last)
        if code is c.ATOMIC_GROUP:
            return self.sequence(list(argument), 0)
        if code is c.BRANCH:
            return self._branch([list(branch) for branch in argument[1]], follow)
        if code in (c.MAX_REPEAT, c.MIN_REPEAT, c.POSSESSIVE_REPEAT):
            low, high, body = argument
            return self._repeat(code, low, high, body, follow, last=last)
        characters = self.characters(code, argument)
        return characters, False, characters

    def _branch(self, branches: Sequence[Sequence[Any]], follow: int) -> tuple[int, bool, int]:
        first, nullable, inside = 0, False, 0
        seen = 0
        for branch in branches:
            begin, empty, within = self.sequence(branch, follow)
            decides = begin | (follow if empty else 0)
            if decides & seen or (empty and nullable):
                raise _Unsafe
            seen |= decides
            first, nullable, inside = first | begin, nullable or empty, inside | within
        return first, nullable, inside

    def _repeat(
        self, code: Any, low: int, high: int, body: Any, follow: int, *, last: bool
    ) -> tuple[int, bool, int]:
        nodes = list(body)
        first, _, _ = _Looking.sequence(_Quiet(self), nodes, 0)
        begin, empty, inside = self.sequence(nodes, first | follow)
        if empty and high > 1:
            raise _Unsafe
        if high > low and begin & follow and code is not c.POSSESSIVE_REPEAT:
            raise _Unsafe
        if high > LONG and not (last and low <= 1):
            self.runs.append(inside)
        return begin, empty or low == 0, inside

    def characters(self, code: Any, argument: Any) -> int:
        """Those that one node may be. Raises _Unsafe where it is more than one, or not understood."""
        if code is c.LITERAL:
            return self._any_case(_bits([argument]))
        if code is c.NOT_LITERAL:
            # Of the others no more than some are meant.
            return ALL & ~self._any_case(_bits([argument])) | OTHER
        if code is c.ANY:
            return self._dot
        if code is c.IN:
            return self._class(argument)
        raise _Unsafe

    def _class(self, parts: Sequence[Any]) -> int:
        found, negated = 0, False
        for code, argument in parts:
            if code is c.NEGATE:
                negated = True
            elif code is c.LITERAL:
                found |= _bits([argument])
            elif code is c.RANGE:
                low, high = argument
                found |= _bits(range(low, min(high, 128) + 1)) | (OTHER if high > 127 else 0)
            elif code is c.CATEGORY:
                found |= _CATEGORIES[argument]
            else:
                raise _Unsafe
        found = self._any_case(found)
        return (ALL & ~found) | OTHER if negated else found

    def _any_case(self, characters: int) -> int:
        if not self._ignore_case:
            return characters
        lower, upper = _bits(range(97, 123)), _bits(range(65, 91))
        # To an automaton the long s and the sign of Kelvin are letters in another case.
        others = OTHER if characters & _bits(map(ord, "KSks")) else 0
        return characters | (characters & lower) >> 32 | (characters & upper) << 32 | others


class _Quiet(_Looking):
    """The same look, only for what a repetition begins with: what runs there are is noted by the other."""

    def __init__(self, looking: _Looking) -> None:
        self._ignore_case, self._dot = looking._ignore_case, looking._dot
        self.runs = []
