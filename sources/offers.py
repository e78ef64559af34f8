"""Batches that the sweep has not read itself: those that are read by API wait here for their sweep.

Whoever has read one waits with it, so that there is at most one of each reader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import msgspec
import trio

from logroute.router.position import Position
from logroute.router.record import STREAMS, Batch, Origin, Reader


@runtime_checkable
class Quiet(Protocol):
    """A reader that offers what it reads, and knows whether it has come to the end of the log."""

    @property
    def quiet(self) -> bool: ...

    @property
    def position(self) -> Position: ...


class Offered(msgspec.Struct):
    batch: Batch
    taken: trio.Event
    """To be set when the routes have it."""


class Offers:
    """What is offered and not taken yet, in the order in which it is to be taken.

    `room` is `Emit.has_room`, here as there.
    """

    def __init__(self, on_offer: Callable[[], None]) -> None:
        """`on_offer()` is called when there is another."""
        self._on_offer = on_offer
        # Invariant: whoever offers one of these is waiting.
        self._waiting: deque[Offered] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    async def offer(self, batch: Batch) -> None:
        """Hand on a batch that was read elsewhere (by API); returns when the routes have it."""
        offered = Offered(batch, trio.Event())
        self._waiting.append(offered)
        self._on_offer()
        try:
            await offered.taken.wait()
        except trio.Cancelled:
            # Not handed on, or not known to be: whoever reads again does so from its own position.
            if offered in self._waiting:
                self._waiting.remove(offered)
            raise

    def servable(self, room: Callable[[Origin, Reader | None], bool]) -> bool:
        """Whether there is one that could be taken now."""
        return any(room(each.batch.origin, each.batch.reader) for each in self._waiting)

    def take(
        self, room: Callable[[Origin, Reader | None], bool], budget_bytes: int
    ) -> tuple[list[Offered], int]:
        """Those that there is room for, in turn, as far as the budget goes; and how many bytes that is.

        The others come first the next time.
        """
        taken: list[Offered] = []
        size_bytes = 0
        for _ in range(len(self._waiting)):
            offered = self._waiting.popleft()
            if size_bytes < budget_bytes and room(offered.batch.origin, offered.batch.reader):
                taken.append(offered)
                size_bytes += offered.batch.size_bytes
            else:
                self._waiting.append(offered)
        return taken, size_bytes

    def is_at_end(self, batch: Batch) -> bool:
        """Whether its reader, which offers what it reads, has read all that there is, up to this batch."""
        reader = batch.reader
        if not isinstance(reader, Quiet) or any(each.batch.reader is reader for each in self._waiting):
            return False
        # Else it has gone back, and reads again what is held.
        here, there = reader.position, batch.after
        return reader.quiet and all(here.of(each).anchor == there.of(each).anchor for each in STREAMS)
