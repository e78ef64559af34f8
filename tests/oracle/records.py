"""The records that containers write: each says who wrote it, and carries a hash of all that it says.

`<hash> <container> <stream> <number> <payload>`, one line. So whoever receives one can tell whether it is
whole, without having what was written.
"""

from __future__ import annotations

from hashlib import sha256
from random import Random
from typing import NamedTuple


class Key(NamedTuple):
    """Which record it is: the numbers of each stream of a container begin with 0."""

    container: str
    stream: str
    number: int

    def __str__(self) -> str:
        return f"{self.container}/{self.stream} #{self.number}"


class Altered(ValueError):
    """A text is not what any container can have written: cut, glued together, or changed."""


def text_of(key: Key, payload: str) -> str:
    """The line, without its newline."""
    body = f"{key.container} {key.stream} {key.number} {payload}"
    return f"{_hash(body)} {body}"


def key_of(text: str) -> Key:
    """Which record a text is. Raises Altered."""
    hash_, _, body = text.partition(" ")
    if hash_ != _hash(body):
        raise Altered("its hash does not fit what it says")
    container, stream, number, _ = body.split(" ", 3)
    return Key(container, stream, int(number))


def _hash(body: str) -> str:
    return sha256(body.encode("utf-8", "surrogatepass")).hexdigest()[:12]


# What breaks loggers: quotes, escapes, brackets of structured data, controls, separators that are no
# newlines, a byte order mark, characters of two, three and four bytes, and one that combines. No newline,
# which ends a line, and no lone surrogate, which no program can write as UTF-8.
_NASTY = (
    "\"'\\][<>&{}=,;%",
    "\x00\x01\x07\x08\t\x0b\x0c\r\x1b[31m\x7f\x85",
    "\u2028\u2029\ufeff\ufffd\u200b\u202e",
    "éñß中文字🙂👩‍👩‍👧e\u0301",
)
_PLAIN = "abcdefghijklmnopqrstuvwxyz0123456789     "
_LONG_SHARE = 0.002
_LONGEST_BYTES = 50_000
"""Some of the engine's pieces of 16 KiB."""


def payload(random: Random, *, long: bool) -> str:
    """Random text: often short, some of it hostile; seldom, if `long`, of several of the engine's pieces."""
    if long and random.random() < _LONG_SHARE:
        # Only ASCII: the engine itself spoils a character that lies across the end of a piece.
        word = "".join(random.choices(_PLAIN, k=97))
        return (word * (_LONGEST_BYTES // 97))[: random.randrange(16_000, _LONGEST_BYTES)]
    length = min(3_000, int(random.expovariate(1 / 100)))
    alphabet = _PLAIN + random.choice(_NASTY) if random.random() < 0.3 else _PLAIN
    return "".join(random.choices(alphabet, k=length))
