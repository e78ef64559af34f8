"""What a route does when its queue is full.

For as long as that is only the pace of the computer, its readers are held back and nothing else happens. When
it is the sink that cannot keep up, the route falls behind: it spools what it holds, and where it may not, or
cannot, it does what `when_full` says. It is behind until everything is delivered.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Protocol

import msgspec
import structlog
import trio

from logroute.router import load
from logroute.router.books import Books
from logroute.router.database import StateError
from logroute.router.load import Load
from logroute.router.queue import Queue
from logroute.router.record import Reader

PATIENCE_S = 0.1
"""How long, with nothing to compute, a full queue holds back its readers before the route falls behind."""
PATIENCE_BEHIND_S = 0.025
"""The same for a route that is behind already."""
LOOK_EVERY_S = 0.05
"""How often a full queue is looked at meanwhile. Of a healthy route it is full all the time."""
LOOK_EVERY_BEHIND_S = 0.025
STANDS_S = 2.0
"""Who has delivered nothing for so long, with a full queue, has a sink that hangs."""
IDLE_SHARE = 0.25
"""With less idle time than this the processor is busy."""
DISK_AGAIN_S = 5.0
"""A disk that could not be written to is tried again after so long."""

WhenFull = Literal["block", "drop_oldest", "drop_newest"]

_INSTEAD: dict[WhenFull, str] = {
    "block": "the route waits; its logs are read on when there is room",
    "drop_oldest": "dropping the oldest records, as `when_full` says",
    "drop_newest": "dropping what comes, as `when_full` says",
}


class OverflowSettings(msgspec.Struct, frozen=True):
    """What an overflow may use."""

    when_full: WhenFull
    disk_bytes: int
    """What the spool may take on the disk; 0: there is none."""
    batch_bytes: int
    """What one delivery takes: so large is a row of the spool."""
    batch_records: int


class Owner(Protocol):
    """What an overflow asks of its route, and tells it."""

    @property
    def why_not_up(self) -> str:
        """Why the sink takes nothing; empty while it does."""

    def warn(self, event: str, **details: object) -> None:
        """Say it, but not over and over."""


class Overflow:
    """Keeps room in one route's queue: `run` beside the deliveries.

    `on_change` is called when whoever reads for the route should look again whether it may go on.
    """

    def __init__(
        self, name: str, queue: Queue, books: Books, owner: Owner, on_change: Callable[[], None]
    ) -> None:
        self.settings = OverflowSettings("block", 0, 1, 1)
        self.behind = False
        """The sink cannot keep up, or could not, and not everything is delivered yet."""
        self.sheds = False
        """What does not fit is dropped, as the user told us to."""
        self._queue = queue
        self._books = books
        self._owner = owner
        self._on_change = on_change
        self._log = structlog.get_logger("logroute.router").bind(route=name)
        self._filled = trio.Event()
        self._room = trio.Event()
        self._blocks = False
        """Nothing can be done but wait for the sink, or the disk."""
        self._defers = False
        """It could spool, but others would have to wait for that."""
        self._hurried = trio.Event()
        self._load = Load()
        self._spooled_at_progress = -1
        self._disk_from = -math.inf
        """When the disk is worth another try."""

    # --- what the route asks and says -------------------------------------------------------------------

    def filled(self) -> None:
        """The queue is full."""
        self._filled.set()

    def have_room(self) -> None:
        """It was, and is so no longer."""
        self._room.set()
        self._on_change()

    def hurry(self) -> None:
        """Somebody waits who cannot come back later at no cost."""
        self._hurried.set()

    def blocks(self, reader: Reader) -> bool:
        """Whether it will be full for long: nobody but this route shall wait for that."""
        return self._blocks or (self._defers and reader.cheap)

    @property
    def hindrance(self) -> str:
        """What to say while it blocks; empty while it does not."""
        if not self._blocks:
            return ""
        where = "in memory"
        if self.settings.disk_bytes:
            spooled = self._queue.spooled.stored_bytes
            where += f" and on the disk ({spooled} of {self.settings.disk_bytes} bytes)"
        return f"its queue is full {where}: its logs are read on when there is room"

    def caught_up(self) -> None:
        """Everything is delivered."""
        self.behind = self.sheds = False
        self._log.info("the route has caught up")

    # --- falling behind -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Whenever the queue is full for longer than the computer's own pace explains, fall behind.

        While the processor is busy the queue is full because delivering is work: then the readers wait, and
        nobody loses by it. What counts is the time in which there is nothing to compute; of a route that
        delivers nothing, all time: on a host that is short of processors there may be no other for hours.
        """
        queue, idle_s = self._queue, 0.0
        progress, moved_at = self._books.progress, trio.current_time()
        while True:
            if not queue.full and not idle_s:
                self._filled = trio.Event()
                await self._filled.wait()
                moved_at = trio.current_time()
            if queue.full and idle_s >= self._patience_s:
                idle_s = 0.0
                await self._give_way()
                continue
            began, busy = trio.current_time(), load.busy_s()
            await trio.sleep(LOOK_EVERY_BEHIND_S if self.behind else LOOK_EVERY_S)
            passed_s = trio.current_time() - began
            if queue.full:
                # Some is forgiven: waiting for a receiver's answers now and then is not being behind.
                forgiven_s = IDLE_SHARE * passed_s
                if progress != self._books.progress:
                    progress, moved_at = self._books.progress, trio.current_time()
                stands = self._owner.why_not_up or trio.current_time() - moved_at >= STANDS_S
                computed_s = 0.0 if stands else max(0.0, load.busy_s() - busy)
                idle_s = max(0.0, idle_s + passed_s - computed_s - forgiven_s)
            else:
                idle_s = max(0.0, idle_s - passed_s)

    @property
    def _patience_s(self) -> float:
        if not self.behind:
            return PATIENCE_S
        return 0.0 if self._books.progress == self._spooled_at_progress else PATIENCE_BEHIND_S

    @property
    def may_spool(self) -> bool:
        """Whether there is a disk, and it is not known to be full or broken."""
        return self.settings.disk_bytes > 0 and trio.current_time() >= self._disk_from

    async def _give_way(self) -> None:
        if self.may_spool and self._load.idle_share() < IDLE_SHARE:
            await self._defer()
        if self._queue.full and not await self._fall_behind() and self._queue.full:
            await self._block()

    async def _defer(self) -> None:
        """While the processor is busy with what others deliver, spooling would slow them down.

        So what is read from files is left there, until there is idle time; unless somebody needs it now.
        """
        self._defers = True
        self._hurried = trio.Event()
        self._on_change()
        while self._queue.full and not self._hurried.is_set():
            with trio.move_on_after(load.OVER_S):
                await self._hurried.wait()
            if self._load.idle_share() >= IDLE_SHARE:
                break
        self._defers = False

    async def _block(self) -> None:
        """Until there is room, or the disk is worth another try. Whoever reads for others as well goes on."""
        self._room = trio.Event()
        self._blocks = True
        self._on_change()
        with trio.move_on_after(DISK_AGAIN_S if self.settings.disk_bytes else math.inf):
            await self._room.wait()
        self._blocks = False

    async def _fall_behind(self) -> bool:
        """Spool, if that can be; else do as `when_full` says. Whether something was spooled."""
        instead = _INSTEAD[self.settings.when_full]
        if not self.behind:
            self.behind = True
            reason = self._owner.why_not_up or "it is slow"
            self._log.info("the sink cannot keep up: the route is behind", reason=reason)
        if self.may_spool:
            try:
                if await self.spool():
                    return True
            except StateError as error:
                self._disk_from = trio.current_time() + DISK_AGAIN_S
                self._owner.warn("cannot spool", reason=str(error), instead=instead)
        if self._queue.full and self.settings.when_full != "block" and not self.sheds:
            self.sheds = True
            self._owner.warn("the queue is full", instead=instead)
            if self.settings.when_full == "drop_oldest":
                self._books.drop("full", self._queue.drop_oldest())
            self._on_change()
        return False

    async def spool(self) -> bool:
        """What is not delivered goes to the disk, if there is room: whether there was. Raises StateError."""
        settings, spooled = self.settings, self._queue.spooled
        if spooled.stored_bytes >= settings.disk_bytes:
            if settings.when_full != "drop_oldest":
                self._owner.warn(
                    "the spool is full",
                    bytes=spooled.stored_bytes,
                    limit=settings.disk_bytes,
                    instead=_INSTEAD[settings.when_full],
                )
                return False
            over = spooled.stored_bytes - settings.disk_bytes + self._queue.limit_bytes
            self._books.drop("full", await self._queue.drop_spooled(over))
        await self._queue.spool(settings.batch_bytes, settings.batch_records)
        self.sheds = False
        self._spooled_at_progress = self._books.progress
        return True
