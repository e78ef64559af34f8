"""Routes that have acknowledged some of what is read for others that are further behind."""

from __future__ import annotations

from collections.abc import Mapping

from logroute.router.record import Stream
from logroute.sources.log_formats import Spot


class AheadRoutes:
    """Per route and stream, up to which spot of a log it has everything."""

    __slots__ = ("_spots",)

    def __init__(self, spots: Mapping[str, Mapping[Stream, Spot]]) -> None:
        self._spots = spots

    def cut(self, here: Spot, end: Spot) -> Spot:
        """Where a chunk from `here` to `end` has to end, so that all of it is acknowledged alike."""
        stops = [s for spots in self._spots.values() for s in spots.values() if here < s < end]
        return min(stops, default=end)

    def at(self, spot: Spot) -> Mapping[str, frozenset[Stream]] | None:
        """Which of them have acknowledged which streams of the chunk that begins here; None if none has."""
        current: dict[str, frozenset[Stream]] = {}
        for route, spots in self._spots.items():
            streams = frozenset(stream for stream, until in spots.items() if until > spot)
            if streams:
                current[route] = streams
        return current or None
