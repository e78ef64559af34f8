"""What came from files of secrets: it stands in no text that is shown, `${file:PATH}` stands there instead.

A configuration's own mistakes are told without it anyway (`config.load`). This is for what is said later, by
those who no longer know where a value came from: errors of receivers, of libraries, of the system.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, unquote, urlsplit

SHORTEST = 8
"""A value with fewer characters stands in many a text by chance: an environment's name, a region."""
BEGINNING = 4
"""Of a value that was cut so many characters have to be left to tell it."""
PIECE = 8
"""A piece of a value is hidden as well from so many characters on."""
KEPT = 1000
"""So many values are remembered, the last ones: with each reload there may be others."""
LONGEST = 1 << 16
"""Of a longer one so much is hidden: nobody quotes as much."""
CUT = "…"
"""What stands at the end of texts that were cut (`sinks.failures`)."""
CUT_CHARACTERS = 400
"""More than is left of any text that was cut."""

SECRET_NAME = re.compile(
    r"(?i)(^|[_\-.])(password|passwd|secret|token|api_?key|key|auth|authorization|bearer|credentials?|"
    r"cookie|shared_key|private)s?($|[_\-.])"
)
"""What options and variables are called that hold a secret."""

Secret = tuple[str, str]
"""What was written, and the value that came from there."""


class Hidden:
    """Remembers values, and takes them out of texts."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self._secrets: dict[Secret, None] = {}
        self._forms: list[tuple[str, str]] = []
        """What is looked for in small letters, and what stands there instead; the longest first."""
        self.remember(secrets)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return tuple(self._secrets)

    def remember(self, secrets: Iterable[Secret]) -> None:
        """Hide these too from now on."""
        new = [each for each in dict.fromkeys(secrets) if each not in self._secrets]
        if not new:
            return
        self._secrets.update(dict.fromkeys(new))
        for old in list(self._secrets)[:-KEPT]:
            del self._secrets[old]
        found: dict[str, str] = {}
        for reference, value in self._secrets:
            for form in _forms(value):
                found.setdefault(form.lower(), reference)
        self._forms = sorted(found.items(), key=lambda each: -len(each[0]))

    def without(self, text: str) -> str:
        """The text as it may be shown."""
        if not self._forms:
            return text
        lower = text.lower()
        there = {form: reference for form, reference in self._forms if form in lower}
        if there:
            # All at once: what stands there instead is not looked at again.
            pattern = "|".join(map(re.escape, there))
            text = re.sub(
                pattern, lambda found: there.get(found[0].lower(), "***"), text, flags=re.IGNORECASE
            )
        return self._without_cut(text) if CUT in text else text

    def without_in(self, value: Any) -> Any:
        """A copy of what is made of texts, mappings and lists, likewise; anything else stays itself."""
        if isinstance(value, str):
            return self.without(value)
        if isinstance(value, dict):
            return {key: self.without_in(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.without_in(item) for item in value]
        return value

    def _without_cut(self, text: str) -> str:
        """Without what was cut off in its middle."""
        head, *rest = text.split(CUT)
        parts = []
        for part in rest:
            parts.append(self._without_beginning(head))
            head = part
        return CUT.join([*parts, head])

    def _without_beginning(self, head: str) -> str:
        """Without the beginning of a value at its end."""
        lower = head.lower()[-CUT_CHARACTERS:]
        for form, reference in self._forms:
            for length in range(min(len(form) - 1, len(lower)), BEGINNING - 1, -1):
                if lower.endswith(form[:length]):
                    return head[: len(head) - length] + reference
        return head


def _forms(value: str) -> Iterator[str]:
    """How a value, or a piece of it, may stand in a text."""
    value = value[:LONGEST].strip()
    whole = {value, " ".join(value.split()), *_of_url(value)}
    pieces = {line.strip() for line in value.splitlines()} | set(re.split(r"[\s/:?#&=@,;]+", value))
    for text in whole | {piece for piece in pieces if len(piece) >= PIECE}:
        quoted = {quote(text, safe=""), quote(text), unquote(text)}
        escaped = {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1]}
        yield from (form for form in {text} | quoted | escaped if len(form) >= SHORTEST)


def _of_url(value: str) -> Iterator[str]:
    """What sinks say of a URL: without its user, without its parameters."""
    if "://" not in value:
        return
    try:
        parts = urlsplit(value)
        yield parts.hostname or ""
    except ValueError:
        return
    address = parts.netloc.rpartition("@")[2]
    yield address
    yield parts._replace(netloc=address, query="", fragment="").geturl()
    if len(parts.path) >= PIECE:
        yield parts.path
