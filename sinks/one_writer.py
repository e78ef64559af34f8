"""Places that only one route may write to, as far as options tell; the rest turns out in writing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from logroute.router.match import Match


class OneWriter(msgspec.Struct, frozen=True):
    """Where a sink must be the only one to write."""

    place: Hashable
    option: str
    """Which says so."""
    always: bool
    """Whatever the container; else each container has a place of its own."""


class Written(msgspec.Struct, frozen=True):
    """Files that a sink writes to."""

    paths: tuple[str, ...]
    """Examples that differ where the name depends on what is written."""
    option: str
    """Which says so."""


class Collision(msgspec.Struct, frozen=True):
    """Two routes that would write to one place."""

    route: str
    other: str
    """The one that was there first."""
    option: str

    def __str__(self) -> str:
        return f'route "{self.other}" writes to the same place, which has room for one; give each its own'


def collisions(routes: Iterable[tuple[str, Match, Any]]) -> Iterator[Collision]:
    """The routes, by their names, matches and sinks' options, that certainly meet at one place.

    Where each container has a place of its own they do so only if they take the same containers. That is
    certain where the matches are equal, or one of them takes everything.
    """
    from logroute.router.match import EVERYTHING

    there: dict[Hashable, list[tuple[str, Match]]] = defaultdict(list)
    for name, match, options in routes:
        one = options.one_writer() if options is not None else None
        if one is None:
            continue
        before = there[one.place]
        for other, others in before:
            if one.always or match == others or EVERYTHING in (match, others):
                yield Collision(name, other, one.option)
                break
        before.append((name, match))
