"""What the origin of one log was called, and up to where: what a container has said by the time that it is
renamed has the name of then, whoever reads it, and however late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from logroute.router.position import Position
from logroute.router.record import Origin
from logroute.sources.log_formats import Spot


class Name(NamedTuple):
    """An origin got another name."""

    spot: Spot
    """Up to here the log has the name before; as its reader counts."""
    position: Position
    """The same, for a reader that is opened anew."""
    before: Origin
    origin: Origin


def following(names: Sequence[Name], origin: Origin) -> Name | None:
    """How an origin was named next; None if it was not."""
    return next((name for name in names if name.before is origin), None)


def origin_at(names: Sequence[Name], spot: Spot, now: Origin) -> Origin:
    """What the origin is called that is `now` the newest, where the log is at this spot."""
    return next((name.before for name in names if spot < name.spot), now)
