"""Patterns with named groups that say what they mean: `(?P<status:int>\\d+)`.

Of users' patterns only those are searched by Python's `re` that it searches in linear time (`_linear`); the
others are RE2's. What that does not know either is refused, unless Python's engine is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from logroute.processors._linear import is_linear
from logroute.processors._values import name_and_type
from logroute.router.regex import PYTHON_SUBJECT_LIMIT, RegexError, compiled_by_re2, for_python

# An escape, a class, the beginning of a group with a name, a reference back to one.
_PARTS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?P?<([^>=!][^>]*)>|\(\?P=([^)]*)\)", re.DOTALL)

Find = Callable[[str], "dict[str, Any] | None"]


class NamedPattern:
    """One pattern: `find` gives the groups that took part, by their names."""

    def __init__(self, pattern: str, *, python: bool = False) -> None:
        """Raises RegexError, which says what is wrong about the pattern, or what to do."""
        groups: dict[str, str] = {}
        plain = _PARTS.sub(lambda part: _renamed(part, groups), pattern)
        if not groups:
            raise RegexError(
                f"/{pattern}/ has no named group such as (?P<status:int>\\d+), so nothing would be found"
            )
        self.types: dict[str, str] = {}
        """What each is, by name."""
        names: dict[str, str] = {}
        for group, written in groups.items():
            try:
                name, type_ = name_and_type(written)
            except ValueError as error:
                raise RegexError(f"/{pattern}/: {error}") from error
            names[group], self.types[name] = name, type_
        self.plain = _PARTS.sub(lambda part: "(" if part[1] else part[0], pattern)
        """Without the names: what selects knows nothing of them."""
        self.linear = python or _is_linear(plain)
        """Python's `re` fetches the groups; else RE2."""
        self.find: Find = (
            _finder(plain, names, python=python) if self.linear else _re2_finder(plain, pattern, names)
        )


def _renamed(part: re.Match[str], groups: dict[str, str]) -> str:
    """Names with dots and types are none to an engine: it gets numbers."""
    if part[1]:
        group = f"g{len(groups)}"
        groups[group] = part[1]
        return f"(?P<{group}>"
    if part[2]:
        group = next(
            (group for group, written in groups.items() if written.split(":")[0] == part[2]), part[2]
        )
        return f"(?P={group})"
    return part[0]


def _is_linear(plain: str) -> bool:
    try:
        return is_linear(plain)
    except re.error:  # maybe a construct that only RE2 knows
        return False
    except (RecursionError, OverflowError) as error:
        raise RegexError("the regular expression is too large") from error


def _finder(plain: str, names: dict[str, str], *, python: bool) -> Find:
    try:
        compiled = re.compile(plain) if python else re.compile(for_python(plain), re.ASCII)
    except (re.error, RecursionError, OverflowError) as error:
        raise RegexError(f"/{plain}/ is no regular expression: {error}") from error
    search = compiled.search
    order = tuple(names[group] for group in compiled.groupindex)
    indices = tuple(compiled.groupindex.values())
    if python:
        return lambda text: _groups(search(text[:PYTHON_SUBJECT_LIMIT]), order, indices)
    return lambda text: _groups(search(text), order, indices)


def _groups(found: Any, names: tuple[str, ...], indices: tuple[int, ...]) -> dict[str, Any] | None:
    if found is None:
        return None
    if len(indices) == 1:
        value = found[indices[0]]
        return {names[0]: value} if value is not None else {}
    values = found.group(*indices)
    if None in values:
        return {name: value for name, value in zip(names, values, strict=True) if value is not None}
    return dict(zip(names, values, strict=True))


def _re2_finder(plain: str, pattern: str, names: dict[str, str]) -> Find:
    advice = "or `engine: python` has Python's engine do it, which may take exponential time"
    try:
        compiled = compiled_by_re2(plain)
    except ImportError as error:
        raise RegexError(
            f"/{pattern}/ may take Python's engine more than linear time, and RE2 is not installed: "
            f"pip install google-re2; {advice}"
        ) from error
    except RegexError as error:
        try:
            re.compile(for_python(plain))
        except re.error as mistake:
            raise RegexError(f"/{pattern}/ is no regular expression: {mistake.msg}") from mistake
        raise RegexError(f"/{pattern}/ cannot be searched in linear time ({error}); {advice}") from error
    search = compiled.search
    order = tuple(names[group] for group in compiled.groupindex)
    indices = tuple(compiled.groupindex.values())

    def find(text: str) -> dict[str, Any] | None:
        if not text.isascii():  # there may be halves of surrogate pairs
            text = text.encode("utf-8", "replace").decode()
        return _groups(search(text), order, indices)

    return find
