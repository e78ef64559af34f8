"""Matches written as an expression: `container ~ "web-*" and level >= warn and fields.status >= 500`.

An expression means a mapping of conditions (`logroute.router.match`), and nothing that a mapping cannot say:
this module only translates, and remembers at which character each condition stands. `docs/matching.md` is the
reference.

    either     = both ("or" both)*
    both       = one ("and" one)*
    one        = "not" one | "(" either ")" | condition
    condition  = path ("~" | "!~" | "=" | "!=" | ">=" | ">" | "<=" | "<") value
               | path ["not"] "in" "[" value ("," value)* "]"
               | path
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from logroute.router.match_values import At, MatchError, Scalar, number

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<regex>/(?:[^/\\]|\\.)+/[a-z]*(?![^\s\])},]))
      | (?P<operator>!~|!=|>=|<=|==|&&|\|\||[~=<>!()\[\],])
      | (?P<word>[^\s~=<>!()\[\],"'&|]+)
      | (?P<wrong>\S)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_MEANS_MORE = re.compile(r"/.+/[ip]*$|[<>]|[=!]=", re.DOTALL)
"""Texts that mean a regex or a comparison where they are values of a mapping."""
_NO_FLAG = re.compile("[^ip]")
_WORDS = {"&&": "and", "||": "or", "!": "not"}
_COMPARE = (">=", "<=", ">", "<")
_COMPARED_BY_MATCHES = ("level", "time")
"""Paths whose values a mapping compares itself, also by `!=`."""
DEEPEST = 10
"""Parentheses and `not` in each other: each makes two steps into the mapping."""


class _Token(NamedTuple):
    kind: str
    """`quoted`, `regex`, `operator`, `word`, or `end`."""
    text: str
    at: int
    """Characters before it."""


class Located(NamedTuple):
    """What an expression means."""

    value: dict[str, Any]
    """A mapping."""
    place: Callable[[MatchError], int]
    """The character, counted from 1, of a mistake in that mapping."""


class _Places(NamedTuple):
    """How many characters stand before what is at a place in the mapping."""

    keys: dict[At, int]
    values: dict[At, int]


def parse_expression(text: str) -> Located:
    """Translate. Raises MatchError, whose text says at which character.

    Whether the paths exist, and the values mean something, is seen when the mapping is parsed.
    """
    parser = _Parser(text)
    node = parser.either(0)
    parser.end()
    places = _Places({}, {})
    value = node.to_value((), places)

    def place(mistake: MatchError) -> int:
        found = places.keys if mistake.of_key else places.values
        return found[mistake.path] + 1

    return Located(value, place)


class _Leaf(NamedTuple):
    """One condition of the mapping."""

    path: str
    value: Any
    path_at: int
    value_at: list[int]

    def to_value(self, at: At, places: _Places) -> dict[str, Any]:
        here = (*at, self.path)
        places.keys[here], places.values[here] = self.path_at, self.value_at[0]
        if isinstance(self.value, list):
            places.values.update({(*here, index): before for index, before in enumerate(self.value_at)})
        return {self.path: self.value}


class _Branch(NamedTuple):
    """`all`, `any` or `not`."""

    key: str
    parts: list[_Node]

    def to_value(self, at: At, places: _Places) -> dict[str, Any]:
        here = (*at, self.key)
        if self.key == "not":
            return {"not": self.parts[0].to_value(here, places)}
        return {self.key: [part.to_value((*here, index), places) for index, part in enumerate(self.parts)]}


_Node = _Leaf | _Branch


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._scan()
        self._index = 0

    def _scan(self) -> list[_Token]:
        tokens: list[_Token] = []
        text = self._text.rstrip()
        end = 0
        while end < len(text) and (found := _TOKEN.match(text, end)):
            kind = found.lastgroup or "wrong"
            token = _Token(kind, found[kind], found.start(kind))
            if kind == "wrong":
                what = "a quote that is not closed" if token.text in "\"'" else f"an odd {token.text!r}"
                _fail(what, token)
            tokens.append(token)
            end = found.end()
        return [*tokens, _Token("end", "", len(text))]

    # --- what stands between conditions -----------------------------------------------------------------

    def either(self, depth: int) -> _Node:
        return self._joined("any", "or", self._both, depth)

    def _both(self, depth: int) -> _Node:
        return self._joined("all", "and", self._one, depth)

    def _joined(self, key: str, word: str, part: Callable[[int], _Node], depth: int) -> _Node:
        parts = [part(depth)]
        while self._is(word):
            self._next()
            parts.append(part(depth))
        return parts[0] if len(parts) == 1 else _Branch(key, parts)

    def _one(self, depth: int) -> _Node:
        if depth > DEEPEST:
            _fail("nested too deeply", self._here)
        if self._is("not"):
            self._next()
            return _Branch("not", [self._one(depth + 1)])
        if self._is("("):
            opened = self._next()
            inside = self.either(depth + 1)
            if not self._is(")"):
                self._expected(f"')' for the '(' at character {opened.at + 1}, 'and' or 'or'")
            self._next()
            return inside
        return self._condition()

    def end(self) -> None:
        if self._here.kind != "end":
            self._expected("'and', 'or' or the end")

    # --- one condition ----------------------------------------------------------------------------------

    def _condition(self) -> _Node:
        token = self._here
        if token.kind not in ("word", "quoted") or _word(token) in ("and", "or", "in"):
            self._expected("a path such as container or fields.status")
        self._next()
        path = _unquoted(token) if token.kind == "quoted" else token.text
        operator = self._here
        if self._is("in"):
            self._next()
            return self._in(path, token.at)
        if self._is("not") and _word(self._tokens[self._index + 1]) == "in":
            self._next()
            self._next()
            return _other_than(self._in(path, token.at))
        if operator.kind == "end" or _word(operator) in ("and", "or", ")"):
            # There is one, whatever it is.
            return _Leaf(path, "*", token.at, [token.at])
        if operator.kind != "operator" or operator.text in ("(", ")", "[", "]", ",", "!"):
            self._expected("one of ~ !~ = != >= > <= < in")
        self._next()
        if self._is("["):
            self._expected("one value; a list of them stands behind `in`")
        value = self._value()
        return _compared(path, token.at, operator.text, value)

    def _in(self, path: str, at: int) -> _Leaf:
        if not self._is("["):
            self._expected("a list such as [web, api]")
        self._next()
        values = [self._value()]
        while self._is(","):
            self._next()
            values.append(self._value())
        if not self._is("]"):
            self._expected("',' or ']'")
        self._next()
        return _Leaf(path, [_meant(value) for value in values], at, [value.at for value in values])

    def _value(self) -> _Token:
        if self._here.kind not in ("word", "quoted", "regex"):
            self._expected('a value such as warn, 500, "web-*" or /time.*out/i')
        return self._next()

    # --- tokens -----------------------------------------------------------------------------------------

    @property
    def _here(self) -> _Token:
        return self._tokens[self._index]

    def _next(self) -> _Token:
        token = self._here
        self._index += 1
        return token

    def _is(self, word: str) -> bool:
        return _word(self._here) == word

    def _expected(self, what: str) -> NoReturn:
        found = f"not {self._here.text!r}" if self._here.kind != "end" else "but this is the end"
        _fail(f"expected {what}, {found}", self._here)


def _fail(what: str, token: _Token) -> NoReturn:
    raise MatchError(f"at character {token.at + 1}: {what}")


def _word(token: _Token) -> str:
    """What it is as a part of the language; nothing if it is a value."""
    if token.kind == "operator":
        return _WORDS.get(token.text, token.text)
    return token.text.lower() if token.kind == "word" else ""


def _unquoted(token: _Token) -> str:
    return _ESCAPED.sub(r"\1", token.text[1:-1])


def _meant(token: _Token) -> Scalar:
    """What a value means in a mapping: a glob, a regex, a number."""
    if token.kind == "quoted":
        return _unquoted(token)
    plain = number(token.text) if token.kind == "word" else None
    return token.text if plain is None else plain


def _literal(token: _Token) -> Scalar:
    """Likewise where the very text is meant, and no glob."""
    meant = _meant(token)
    if not isinstance(meant, str) or token.kind == "regex":
        return meant
    if token.kind == "word" and any(character in meant for character in "*?"):
        _fail("'=' takes this very text: write ~ for a glob, or put it in quotes", token)
    if _MEANS_MORE.match(meant):
        return f"/^{re.escape(meant)}$/"
    return re.sub(r"([*?\[])", r"[\1]", meant)


def _compared(path: str, at: int, operator: str, value: _Token) -> _Node:
    compares_itself = path in _COMPARED_BY_MATCHES
    if operator in _COMPARE or (operator == "!=" and compares_itself):
        text = _unquoted(value) if value.kind == "quoted" else value.text
        return _Leaf(path, f"{operator}{text}", at, [value.at])
    searches = operator in ("~", "!~")
    if (
        searches
        and value.kind == "regex"
        and (odd := _NO_FLAG.search(value.text, value.text.rindex("/") + 1))
    ):
        _fail(
            f"there is no flag {odd[0]!r}: a regex ends with '/', '/i' or '/p'; a text with slashes in it "
            "stands in quotes",
            value._replace(at=value.at + odd.start()),
        )
    meant = _meant(value) if searches or compares_itself else _literal(value)
    if compares_itself and path == "time":
        meant = f"=={meant}"
    leaf = _Leaf(path, meant, at, [value.at])
    return _other_than(leaf) if operator.startswith("!") else leaf


def _other_than(leaf: _Leaf) -> _Node:
    """There is a value, and it is another: a comparison with what is absent is false."""
    other = _Branch("not", [leaf])
    if leaf.path == "level":  # one that is not known counts as `info`
        return other
    return _Branch("all", [_Leaf(leaf.path, "*", leaf.path_at, [leaf.path_at]), other])
