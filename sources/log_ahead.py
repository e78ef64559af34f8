"""Routes that have acknowledged some of what is read for others that are further behind."""

from __future__ import annotations

from collections.abc import Mapping

from logroute.router.position import Position
from logroute.router.record import Stream
from logroute.sources.log_formats import Spot


class AheadRoutes:
    """Per route and stream, up to which spot of a log it has everything: what its checkpoint says."""

    __slots__ = ("_checkpoints", "_spots")

    def __init__(
        self, spots: Mapping[str, Mapping[Stream, Spot]], checkpoints: Mapping[str, Position]
    ) -> None:
        self._spots = spots
        self._checkpoints = checkpoints

    def joined(self, others: AheadRoutes) -> AheadRoutes:
        """These and the others."""
        return AheadRoutes({**self._spots, **others._spots}, {**self._checkpoints, **others._checkpoints})

    def checkpoints(self, here: Spot) -> dict[str, Position]:
        """Of those that are ahead of here."""
        return {route: self._checkpoints[route] for route in self.at(here) or ()}

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
