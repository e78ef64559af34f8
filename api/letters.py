"""Dead letters as the API gives them, and takes what shall be done with them. Shared with the client."""

from __future__ import annotations

from typing import Annotated

import msgspec

from logroute.router.dead_letters import StoredLetter, Summary
from logroute.router.record import Batch
from logroute.sinks.encoding import encoder

MOST_LISTED = 1000
"""Letters in one answer."""
MOST_NAMED = 1000
"""Letters that one request may name."""

Id = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]


class Summaries(msgspec.Struct, frozen=True):
    """Of every route."""

    routes: dict[str, Summary]


class Page(msgspec.Struct, frozen=True, omit_defaults=True):
    """Some letters, in the order in which they were rejected."""

    letters: list[StoredLetter]
    next: int = 0
    """`after` of the next page; left out where this is the last."""


class WholeLetter(msgspec.Struct, frozen=True):
    """A dead letter with its record."""

    id: int
    container: str
    failed: str
    reason: str
    record: msgspec.Raw
    """As every sink that writes JSON has it."""


class ReplayRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which letters; null: all."""

    ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=MOST_NAMED)] | None


class Replayed(msgspec.Struct, frozen=True):
    """How many of them there were."""

    replayed: int


class Dropped(msgspec.Struct, frozen=True):
    """How many of them there were."""

    dropped: int


def whole_letter(letter: StoredLetter, batch: Batch) -> WholeLetter:
    record = encoder("json")(batch).rstrip(b"\n")
    return WholeLetter(letter.id, letter.container, letter.failed, letter.reason, msgspec.Raw(record))
