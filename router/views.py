"""Views: who looks at what flows. They hold up nobody, and cost nothing where there are none.

A view is shown batches as they are, and holds a bounded part of them until it is asked for it; what does not
fit is counted and told. What looking costs (choosing, encoding) is done when it asks, and all views together
have only a share of the time: what flows comes first.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import msgspec
import trio

from logroute.router.load import Load
from logroute.router.match import EVERYTHING, Match
from logroute.router.record import Batch, Origin
from logroute.router.selection import Chooser

HELD_BYTES = 640 << 10
"""What a view may hold that it has not been asked for yet."""
PIECE_BYTES = 192 << 10
"""What it gives at a time. As JSON that is several times as much, which one who does not read leaves with us,
too: all together a megabyte."""
HELD_NEWS = 1000
"""Of containers; further ones are left out."""
SHARE = 0.01
"""Of the time, for all views together, while the processor is busy with what flows. To send what they are
shown costs more than that again, and nobody can measure it: it goes through the web server."""
HISTORY_SHARE = 0.25
"""The same while what was before is read for one: it is asked for once, and ends."""
IDLE_SHARE = 0.5
"""With so much time in which there is nothing to compute, they may take what they need."""
SAVED_S = 2.0
"""So long a time without work is made up for."""

Event = Literal["started", "ended", "removed", "renamed"]


class News(msgspec.Struct, frozen=True):
    """What has become of a container."""

    event: Event
    origin: Origin


class Skipped(msgspec.Struct, frozen=True):
    """So many records went by that were not looked at: there was no room for them."""

    records: int


Item = Batch | News | Skipped


class View:
    """One who looks. On the trio thread."""

    def __init__(self, views: Views, match: Match, route: str | None, *, records: bool, news: bool) -> None:
        self.route = route
        """Sees what this route is given, behind its processors; None: what the router is given."""
        self._views = views
        self._chooser = Chooser(match)
        self._records = records
        self._news = news
        self._items: deque[Item] = deque()
        self._held_bytes = 0
        self._skipped = 0
        self._held_news = 0
        self._came = trio.Event()

    def show(self, batch: Batch) -> None:
        """Hold it, or as much of it as there is room for; and count the rest."""
        if not self._records or not len(batch) or not self._chooser.takes(batch.origin):
            return
        room = HELD_BYTES - self._held_bytes
        if self._skipped or batch.size_bytes > room:
            count = 0 if self._skipped else len(batch) * max(0, room) // batch.size_bytes
            self._skipped += len(batch) - count
            if count:
                self._hold(batch.parted(count)[0])
            self._came.set()
            return
        self._hold(batch)

    def _hold(self, batch: Batch) -> None:
        self._items.append(batch)
        self._held_bytes += batch.size_bytes
        self._came.set()

    def tell(self, news: News) -> None:
        if self._news and self._held_news < HELD_NEWS and self._chooser.takes(news.origin):
            self._items.append(news)
            self._held_news += 1
            self._came.set()

    @property
    def overrun(self) -> bool:
        """Whether more has come than it can hold."""
        return self._skipped > 0

    def take_news(self) -> list[News]:
        """What has become of containers, of all that it holds; nothing else is asked of it any more."""
        return [item for item in self._items if isinstance(item, News)]

    async def receive(self) -> list[Item]:
        """What comes next, in order; waits for some. Batches have only records that the match takes."""
        await self._came.wait()
        with self._views.working():
            return [self._chosen(item) if isinstance(item, Batch) else item for item in self._next()]

    def _next(self) -> list[Item]:
        """A piece of what is held, at least one item."""
        items: list[Item] = []
        room = PIECE_BYTES
        while self._items and room > 0:
            item = self._items.popleft()
            if isinstance(item, News):
                self._held_news -= 1
            elif isinstance(item, Batch):
                if item.size_bytes > room:
                    count = len(item) * room // item.size_bytes
                    if not count and items:
                        self._items.appendleft(item)
                        break
                    if max(1, count) < len(item):
                        item, rest = item.parted(max(1, count))
                        self._items.appendleft(rest)
                room -= item.size_bytes
                self._held_bytes -= item.size_bytes
            items.append(item)
        if not self._items:
            self._came = trio.Event()
            if self._skipped:  # these came behind everything that was held
                items.append(Skipped(self._skipped))
                self._skipped = 0
        return items

    def _chosen(self, batch: Batch) -> Batch:
        return self._chooser.batch_of(batch)


class Views:
    """All views of a router; false where there are none."""

    def __init__(self) -> None:
        self._all: list[View] = []
        self._free_at = -math.inf
        """Before this, what views may take of the time is used up."""
        self._load = Load()

    def __bool__(self) -> bool:
        return bool(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @contextmanager
    def open(
        self,
        match: Match = EVERYTHING,
        route: str | None = None,
        *,
        records: bool = True,
        news: bool = False,
    ) -> Iterator[View]:
        """A view, until the end of the context; of records, of what becomes of containers, or of both."""
        view = View(self, match, route, records=records, news=news)
        self._all.append(view)
        try:
            yield view
        finally:
            self._all.remove(view)

    def show(self, batches: Sequence[Batch], made: Sequence[Batch]) -> None:
        """What the router is given, and what its processors have made of it.

        Not what is read again for a route that is behind.
        """
        views = [view for view in self._all if view.route is None]
        if views:
            for batch, shown in zip(batches, made, strict=True):
                if batch.reader is None or batch.reader.routes is None:
                    for view in views:
                        view.show(shown)

    def show_route(self, route: str, batches: Sequence[Batch]) -> None:
        """What a route is given."""
        for view in self._all:
            if view.route == route:
                for batch in batches:
                    view.show(batch)

    def tell(self, news: News) -> None:
        for view in self._all:
            view.tell(news)

    @contextmanager
    def working(self, share: float = SHARE) -> Iterator[None]:
        """What is done meanwhile is for a view: choosing, encoding. It may be so much of the time, and `rest`
        keeps to that."""
        began = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - began
            self._free_at = max(self._free_at, trio.current_time() - SAVED_S) + took / share

    async def rest(self) -> None:
        """Wait until views may work again. A checkpoint in any case."""
        if self._load.idle_share() >= IDLE_SHARE:
            self._free_at = -math.inf
        await trio.sleep_until(max(self._free_at, trio.current_time()))
