"""Mistakes in a configuration: what is wrong, where, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

Loc = tuple[str | int, ...]
"""The way to something in a configuration: names and indices."""

LONGEST_NAME = 100
"""Longer words than this were not meant to be an option."""


class Problem(msgspec.Struct, frozen=True):
    """One mistake. Reads `logroute.yaml:14:7: routes.search.sink.hots: unknown option; did you mean …?`."""

    message: str
    path: str = ""
    """Where in the configuration, in the user's words: `routes.search.sink.hots`."""
    file: str = ""
    """The file, or the URI of a command line."""
    line: int = 0
    column: int = 0
    """Both from 1; 0 where there is no such place."""

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        return _on_one_line(": ".join(part for part in (place, self.path, self.message) if part))

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in msgspec.structs.asdict(self).items() if value}


class ConfigError(Exception):
    """The configuration cannot be used; `problems` are all of its mistakes, in the order of the text."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def dotted(loc: Loc) -> str:
    """`routes.all.processors[0].type`."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """`; did you mean "hosts"?`, or nothing where nothing is near."""
    if len(wrong) > LONGEST_NAME:
        return ""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(wrong.lower(), names, n=1, cutoff=0.6)
    return f'; did you mean "{names[near[0]]}"?' if near else ""


def kind_of(value: Any) -> str:
    """What a value is, in the user's words."""
    if value is None:
        return "nothing"
    for kind, words in _KINDS:
        if isinstance(value, kind):
            return words
    return f"a {type(value).__name__}"


_KINDS: tuple[tuple[type[Any], str], ...] = (
    (Mapping, "a mapping"),
    (list, "a list"),
    (str, "a text"),
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number"),
)


def _on_one_line(text: str) -> str:
    """Whatever a key holds, a mistake is one line and does nothing to a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
