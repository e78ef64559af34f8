"""Routes that would be given what they write, and write it again, without end: as far as options tell."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from logroute.router.record import Origin

if TYPE_CHECKING:
    from logroute.router.match import Match


class Circle(msgspec.Struct, frozen=True):
    """A route that writes what a source reads for it."""

    route: str
    source: str
    option: str
    """Which says where is written."""

    def __str__(self) -> str:
        return (
            f'source "{self.source}" reads what is written there, and the route would be given it again, '
            f"without end: write elsewhere, name it in sources.{self.source}.exclude, or have the route's "
            "match leave that source out"
        )


def circles(
    sources: Iterable[tuple[str, Callable[[str], bool]]], routes: Iterable[tuple[str, Match, Any]]
) -> Iterator[Circle]:
    """Of sources, by their names and whether they read a path, and of routes, by their names, matches and
    sinks' options, those of which whatever the sink writes to is read by a source that the route takes.
    """
    readers = list(sources)
    for name, match, options in routes:
        written = options.writes_to() if options is not None else None
        if written is None:
            continue
        for source, reads in readers:
            paths = [os.path.abspath(path) for path in written.paths]
            if all(reads(path) and match.decide(origin_of(path, source)) for path in paths):
                yield Circle(name, source, written.option)
                break


def origin_of(path: str, source: str) -> Origin:
    """As a source of files has it."""
    return Origin(f"file:{path}", source, file=path)
