"""What the values of a match mean: globs, regular expressions, comparisons, levels."""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from logroute.config.problems import did_you_mean, kind_of
from logroute.router.levels import LEVELS, NAMES, rank
from logroute.router.record import STREAMS
from logroute.router.regex import NotLinearError, Regex, RegexError

Scalar = str | int | float
At = tuple[str | int, ...]


class MatchError(ValueError):
    """A match that means nothing; `path` leads to the mistake inside the given value."""

    def __init__(
        self, message: str, path: At = (), mistakes: tuple[MatchError, ...] = (), *, of_key: bool = False
    ) -> None:
        super().__init__(message)
        self.path = path
        self.mistakes = mistakes or (self,)
        """Every mistake in the value, this one included, in their order."""
        self.of_key = of_key
        """The key at `path` is the mistake, and not its value."""


@dataclass(frozen=True, slots=True)
class Test:
    """One value of a condition."""

    value: Scalar
    """As it was written."""
    passes: Callable[[Scalar], bool] = field(compare=False, repr=False)
    regex: Regex | None = field(default=None, compare=False, repr=False)
    """What is looked for, where many texts can be searched for it at once: the test passes where it is
    found."""


_REGEX = re.compile(r"/(.+)/([ip]*)", re.DOTALL)
_COMPARISON = re.compile(r"(>=|<=|>|<|==|!=)\s*(-?[0-9]+(?:\.[0-9]+)?)\s*")
_COMPARED = re.compile(r"(>=|<=|>|<|==|!=)?\s*(.*?)\s*", re.DOTALL)
_POINT_IN_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?Z?)?")
_MIDNIGHT = "2026-11-23T00:00:00.000000000"
_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}


def test_of(value: Any, of: str, at: At) -> Test:
    """The test that a value means for a path. Raises MatchError."""
    if isinstance(value, bool):
        value = "true" if value else "false"  # what a label says: audit: true
    if of == "level" and isinstance(value, str | int | float):
        return _level(value, at)
    if isinstance(value, int | float):
        # A plain number in YAML has lost how it was written: 1.10 is 1.1, 007 is 7. So it means the number.
        wanted = int(value) if isinstance(value, int) else float(value)
        return Test(wanted, lambda subject: number(subject) == wanted)
    if not isinstance(value, str):
        hint = "; '*' takes any value" if value is None else ""
        raise MatchError(f"expected a value for {of!r}, not {kind_of(value)}{hint}", at)
    text = str(value)
    if regex := _REGEX.fullmatch(text):
        return _regex(text, regex[1], regex[2], at)
    if of == "time" and (point := _COMPARED.fullmatch(text)) and point[1]:
        return _time(text, point[1], point[2], at)
    if comparison := _COMPARISON.fullmatch(text):
        compare, wanted_number = _COMPARE[comparison[1]], number(comparison[2])
        return Test(text, lambda subject: (n := number(subject)) is not None and compare(n, wanted_number))
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
        return _glob(text, of, at)
    if of == "stream" and text not in STREAMS:
        raise MatchError(f"there is no stream {text!r}, only stdout and stderr", at)
    return Test(text, lambda subject: str(subject) == text)


def _regex(text: str, pattern: str, flags: str, at: At) -> Test:
    try:
        regex = Regex(pattern, ignore_case="i" in flags, python="p" in flags)
    except NotLinearError as error:
        advice = "has Python's engine do it, which may take exponential time and hold everything up"
        raise MatchError(f"{error}; /{pattern}/{flags}p {advice}", at) from error
    except RegexError as error:
        raise MatchError(str(error), at) from error
    return Test(text, lambda subject: regex.found_in(str(subject)), regex)


def _glob(text: str, of: str, at: At) -> Test:
    if of != "message":  # names are short, and few: no other engine has to be loaded for them
        matches = re.compile(fnmatch.translate(text)).match
        return Test(text, lambda subject: matches(str(subject)) is not None)
    pattern = glob_pattern(text)
    if not pattern:
        return Test(text, lambda subject: True)
    try:
        regex = Regex(pattern, dot_all=True)
    except RegexError as error:
        raise MatchError(f"{text!r} is no glob: {error}", at) from error
    return Test(text, lambda subject: regex.found_in(str(subject)), regex)


def glob_pattern(glob: str) -> str:
    """A pattern that is found in just the texts that the glob takes whole.

    Stars at the ends are left out, so that what stands between them can be searched for.
    """
    if "[" in glob:  # where a star may be meant itself
        return f"^{''.join(_glob_parts(glob))}$"
    inner = glob.strip("*")
    if not inner:
        return ""
    begin, end = "" if glob[0] == "*" else "^", "" if glob[-1] == "*" else "$"
    return begin + "".join(_glob_parts(inner)) + end


def _glob_parts(glob: str) -> list[str]:
    parts: list[str] = []
    index = 0
    while index < len(glob):
        character = glob[index]
        index += 1
        if character == "*":
            if parts[-1:] != [".*"]:
                parts.append(".*")
        elif character == "?":
            parts.append(".")
        elif (
            character == "["
            and (end := glob.find("]", index + (2 if glob[index : index + 1] == "!" else 1))) > 0
        ):
            negated, inside = glob[index : index + 1] == "!", glob[index:end]
            inside = inside[1:] if negated else inside
            index = end + 1
            escaped = re.sub(r"([\\\[\]^&~|])", r"\\\1", inside)
            parts.append(f"[{'^' if negated else ''}{escaped}]")
        else:
            parts.append(re.escape(character))
    return parts


def _level(value: Scalar, at: At) -> Test:
    compared = _COMPARED.fullmatch(str(value))
    assert compared is not None  # anything matches
    compare, name = compared[1] or "==", compared[2].lower()
    if name not in NAMES:
        hint = did_you_mean(name, LEVELS) or f"; there are {', '.join(LEVELS)}"
        raise MatchError(f'there is no level "{compared[2]}"{hint}', at)
    wanted, holds = rank(name), _COMPARE[compare]
    return Test(value, lambda subject: holds(rank(str(subject)), wanted))


def _time(text: str, compare: str, point: str, at: At) -> Test:
    if not _POINT_IN_TIME.fullmatch(point):
        raise MatchError(f"{point!r} is no time such as 2026-11-23 or 2026-11-23T20:06:26Z", at)
    # Times of one length stand in the order of their texts; what is left out at the end means its beginning.
    point = point.rstrip("Z")
    since = (
        point + _MIDNIGHT[len(point) :] if len(point) < len(_MIDNIGHT) else point[: len(_MIDNIGHT)]
    ) + "Z"
    try:
        datetime.fromisoformat(since[:19])
    except ValueError as error:
        raise MatchError(f"there is no such time: {point!r}", at) from error
    holds = _COMPARE[compare]
    return Test(text, lambda subject: holds(str(subject), since))


def number(value: Scalar) -> int | float | None:
    """The number that a value is or, as a label, spells."""
    if not isinstance(value, str):
        return value
    if _NUMBER.fullmatch(value) is None:
        return None
    return float(value) if "." in value else int(value)
