"""Where a route begins with an origin that it has never met."""

from __future__ import annotations

import time

from logroute.router.position import BEGINNING, Position
from logroute.router.route import Route
from logroute.router.times import iso_time
from logroute.sources import Start


def first_position(route: Route, start: Start, here: Position | None = None) -> Position:
    """Where a route begins that has no checkpoint of it; the log is read, if it is, and the reader is `here`.

    Where a place is known for `now`, it is that: not every log says times.
    """
    wanted = route.settings.start
    if start.read:
        return start.position
    if not route.state.born:  # it had a damaged state, and has forgotten what it had read
        return BEGINNING
    # It came after the route: maybe while we were away, and all of it is wanted.
    if start.new or _is_younger(start.created, route.state.born):
        return BEGINNING
    if wanted == "beginning":
        return BEGINNING
    if isinstance(wanted, float | int):
        return Position(since=iso_time(int((time.time() - wanted) * 1e9)))
    if wanted == "now":
        return here or Position(since=iso_time(time.time_ns()))
    return start.position


def _is_younger(created: str, born: float) -> bool:
    """Whether an origin came to be after the route did, as far as their times tell.

    They do not where the clock was set back behind the route's: rather all of a log than not its first lines.
    """
    return bool(created) and (created > iso_time(int(born * 1e9)) or born > time.time())
