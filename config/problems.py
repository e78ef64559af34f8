"""Mistakes in a configuration: what is wrong, where, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. Reads `logroute.yaml:14:7: routes.search.sink.hots: unknown option; did you mean …?`."""

    message: str
    path: str = ""
    """Where in the configuration, in the user's words: `routes.search.sink.hots`."""
    file: str = ""
    line: int = 0
    column: int = 0
    """Both from 1; 0 where there is no such place."""

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        return ": ".join(part for part in (place, self.path, self.message) if part)

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value}


class ConfigError(Exception):
    """The configuration cannot be used; `problems` are all of its mistakes, in the order of the text."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """`; did you mean "hosts"?`, or nothing where nothing is near."""
    near = difflib.get_close_matches(wrong.lower(), list(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""
