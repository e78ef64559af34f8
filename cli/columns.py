"""How many columns of a terminal a text takes."""

from __future__ import annotations

import unicodedata


def cells(text: str) -> int:
    """How many columns of a terminal a text takes: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def fitted(text: str, width: int) -> str:
    """The text in so many columns: filled up, or cut in its middle, as names differ at their ends."""
    taken = cells(text)
    if taken <= width:
        return text + " " * (width - taken)
    head = beginning(text, width // 2)
    tail = beginning(text[::-1], width - 1 - cells(head))[::-1]
    return head + "…" + tail + " " * (width - 1 - cells(head) - cells(tail))


def beginning(text: str, width: int) -> str:
    """As much of its beginning as takes so many columns."""
    used = 0
    for index, character in enumerate(text):
        used += _cells(character)
        if used > width:
            return text[:index]
    return text
