"""Who says how much: what the live readers have read of each origin, for the noisiest to be named.

On the way of every batch this is one look-up and two sums. What came lately is told when somebody asks, from
marks that are set then.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import trio

from logroute.router.record import RECORD_OVERHEAD_BYTES, Batch, Origin
from logroute.sinks.encoding import display_name

MOST = 2000
"""So many are kept, of which most was heard lately. Twice as many may be there before that is looked at."""
LATELY_S = 5.0
"""How far back lately goes at least, where somebody asks again and again; at most twice as far."""


class Talker(msgspec.Struct):
    """What was read of one origin, since it is kept."""

    name: str
    id: str
    source: str
    records: int = 0
    bytes: int = 0
    """Of text."""
    marked: int = 0
    """`bytes` at the last mark."""
    marked_before: int = 0
    """And at the one before, from which on is lately."""

    @property
    def lately(self) -> int:
        return self.bytes - self.marked_before


class Talkers:
    """The origins of which most was heard. What was read again for a route that is behind does not count."""

    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        self._clock = clock
        self._of: dict[str, Talker] = {}
        """By the key of the origin."""
        self._marked_at = 0.0

    def __len__(self) -> int:
        return len(self._of)

    def count(self, batch: Batch) -> None:
        """Of a live reader's batch, as it was read."""
        origin = batch.origin
        talker = self._of.get(origin.key)
        if talker is None:
            talker = self._of[origin.key] = Talker(display_name(origin), origin.id, origin.source)
            if len(self._of) > 2 * MOST:
                self._let_go(talker)
        records = len(batch)
        talker.records += records
        talker.bytes += batch.size_bytes - RECORD_OVERHEAD_BYTES * records

    def renamed(self, origin: Origin) -> None:
        """Who it is has another name now."""
        if talker := self._of.get(origin.key):
            talker.name = display_name(origin)

    def noisiest(self, count: int) -> list[Talker]:
        """Those of which most was heard lately; of equal ones, ever."""
        found = sorted(self._of.values(), key=lambda talker: (-talker.lately, -talker.bytes, talker.name))
        self._mark()
        return found[:count]

    def _mark(self) -> None:
        """What comes from here on is lately, before long: if it is time for that."""
        now = self._clock()
        if now - self._marked_at < LATELY_S:
            return
        self._marked_at = now
        for talker in self._of.values():
            talker.marked_before = talker.marked
            talker.marked = talker.bytes

    def _let_go(self, newest: Talker) -> None:
        """Of those of which least was heard lately. Who comes back begins anew."""
        ordered = sorted(self._of.items(), key=lambda item: (item[1].lately, item[1].bytes), reverse=True)
        self._of = dict(ordered[:MOST])
        self._of.update((key, talker) for key, talker in ordered[MOST:] if talker is newest)
        self._mark()
