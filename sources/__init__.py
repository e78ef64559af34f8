"""Sources: where records come from. One module a source.

A source reads, cuts into records, and emits batches; it resumes from checkpoints and waits where `emit`
waits. It knows origins and positions, never routes: of these it has names that the router gives them, each to
one route and to no other ever, also if that is removed and there is another one of its kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar

import msgspec

from logroute.config.components import Options

if TYPE_CHECKING:
    import trio

    from logroute.router.position import Position
    from logroute.router.record import Batch, Origin, Reader, Record
    from logroute.router.views import Event


STANDS_AFTER_S = 60.0
"""A source that has been handing on for so long stands."""


class SourceOptions(Options):
    """What every source's options have in common. The `type` field of a subclass names the source."""

    def check(self) -> None:
        """Before a run: what depends on this machine, such as its environment. Raises ValueError.

        Not whether anything answers: that is waited for.
        """

    def reads(self, path: str) -> bool:
        """Whether a file of this absolute path would be read as one of its logs."""
        return False


OptionsT = TypeVar("OptionsT", bound=SourceOptions)


class Start(msgspec.Struct, frozen=True):
    """Where a route begins with an origin that it meets for the first time."""

    created: str
    """When the origin came to be, nine digits. One younger than the route is read from its first line."""
    position: Position
    """Where to begin with one that is older: what the source's `start` says."""
    new: bool = False
    """It came while the source ran: routes that are there begin at its first line, whatever clocks say."""
    read: bool = False
    """It was read up to `position` as a part of something else: who has never met it begins there."""


class Behind(msgspec.Struct, frozen=True):
    """A route that had no room for a batch, nor will have soon: it is read for apart from here on."""

    reader: Reader
    """Who has read the batch."""
    route: str
    position: Position
    """Where the batch began."""
    origin: Origin
    """What the batch was of: that may have another name by now, which the route does not take."""


class Emit(Protocol):
    """What the router gives a source to hand batches on.

    An origin has one live reader, whose batches go to all routes that take it and are not behind. A source
    that can read a log again, from anywhere, names the reader in its batches; then a route that blocks is
    left out, and a further reader has to read for it, from where it stopped to where the live one is.
    """

    async def __call__(self, batches: Sequence[Batch]) -> Sequence[Behind]:
        """Hand one sweep's batches to the routes. Returns when every route has them in its queue.

        Returns those that are behind from now on.
        """

    def has_room(self, origin: Origin, reader: Reader | None = None) -> bool:
        """Whether the routes that take this origin (for this reader) can queue more now.

        A log without room is not read. Where a reader is named, a route that blocks counts only if all do.
        """

    async def wait_for_room(self) -> None:
        """Wait until a route that was full is no longer."""

    async def meet_late(self, origin: Origin, here: Position) -> Mapping[str, Position]:
        """Have routes that came, or take it, only while the origin is read meet it: the live reader is here.

        Those that begin somewhere else, which they are to be read for from: they are apart now.
        """

    def apart(self, origin: Origin, places: Mapping[str, Position]) -> None:
        """From now on these routes get nothing of the live reader's, but what is behind these places."""

    def live_routes(self, origin: Origin) -> Sequence[str]:
        """The routes that the live reader of this origin reads for."""

    def reads_for_somebody(self, origin: Origin, reader: Reader) -> bool:
        """Whether a route that this reader reads for is there yet, and takes the origin.

        If not, reading apart for them ends: they have `joined`, and are met anew if they take it again.
        """

    def renamed(self, origin: Origin, until: Position) -> None:
        """What is read up to there was said under the name before, what is behind it, by this origin."""

    def joined(self, origin: Origin, routes: Iterable[str]) -> None:
        """These routes have been given all that the live reader has read: they are with it again."""

    # Some processors hold records back until they know that these are whole.

    def settle_at(self, source: str) -> float:
        """When `quiet` may have something next, on trio's clock; infinite while nothing is held."""

    def holds(self, origin: Origin) -> bool:
        """Whether something of an origin is held."""

    def quiet(self, source: str) -> Sequence[Batch]:
        """Batches without records, for what is held of streams of this source that have been quiet for long.

        To be emitted, each if its reader has come to the end of the log, as far as it knows.
        """

    def needed(self, reader: Reader) -> Position:
        """Where another one has to begin that goes on for this one: before what is held, else where it is."""

    def takes_over(self, reader: Reader, origin: Origin) -> None:
        """It is the live one from now on, and maybe not the first."""

    def closed(self, reader: Reader, origin: Origin) -> None:
        """It reads no more, and others read from where it is `needed`: nothing need be held for it."""

    def settle(self, reader: Reader, ahead: Reader, origin: Origin) -> Sequence[Batch]:
        """For what is held of a reader that is to join the one ahead, where that holds something else.

        To be emitted before it joins; it can join when there is nothing more.
        """


class Lost(msgspec.Struct, frozen=True):
    """Records between a checkpoint and what can still be read are gone."""

    routes: tuple[str, ...]
    """Who has not got them. Empty, or with the empty name: those that the live reader reads for."""
    reason: str
    """`rotated`, `removed` or `unreadable`."""
    since: str = ""
    """Time of the last record before the gap, if known."""
    until: str = ""
    """Time of the first record behind it, if there is one."""
    size_bytes: int | None = None
    """What is gone, if known."""


class Checkpoints(Protocol):
    """What the router gives a source to resume from."""

    async def meet(self, starts: Mapping[Origin, Start]) -> Mapping[Origin, Mapping[str, Position]]:
        """The checkpoints of these origins, by route; to be called before anything of them is read.

        `starts` says where a route begins that meets an origin for the first time; that is stored before
        this returns. An origin that no route takes has no checkpoints; one that only routes will take which
        are not open yet is to be kept from its beginning (under the empty name).
        """

    def called(self, key: str) -> Collection[str]:
        """What routes knew an origin as, by its key, when they took it last: maybe before the last start."""

    def gone(self, origin: Origin) -> None:
        """The origin has been removed, and everything of it was emitted: forget it in time."""

    def lost(self, origin: Origin, lost: Lost) -> None:
        """Records of this origin cannot be read any more: count them, and say so."""

    def tell(self, origin: Origin, event: Event) -> None:
        """What has become of a container, for those who look."""


class ReadTo(msgspec.Struct, frozen=True):
    """How far a log was read by somebody who looks, and goes on there."""

    last: Record
    """The last record."""
    position: Position
    """Behind it, where the log is read as a file; else it is the beginning."""


class Past(msgspec.Struct):
    """What somebody wants to see of what was said before."""

    since: str = ""
    """From this time on, nine digits; empty: from the beginning."""
    until: str = ""
    """Up to this time; empty: to where each log ends now."""
    last: int | None = None
    """Of each log at most so many lines, the last ones; None: all."""
    piece_bytes: int = 1 << 20
    """So much of each log is read at once; a line of json-file, 16 KiB of text at most, fits."""
    behind: Mapping[str, ReadTo] = {}
    """Of these logs, by their origins' keys, all that is behind that, whatever else is asked."""
    problems: list[tuple[Origin, str]] = []
    """What could not be read, and why: said by those that read."""


class History(Protocol):
    """One log that can be read again from anywhere, beside everything else that reads it."""

    @property
    def origin(self) -> Origin: ...

    @property
    def running(self) -> bool:
        """Whether more is expected of it."""

    async def read(self, past: Past, take: Callable[[Batch], Awaitable[None]]) -> None:
        """Give `take` the records, in order. What cannot be read is a problem, and raises nothing."""


class Waiting(msgspec.Struct, frozen=True):
    """What was read of an origin, and is nowhere but in memory."""

    route: str
    """The route's name."""
    origin: Origin
    began: Position
    """Where reading was before the first of it."""
    time: str
    """The first record's, as the log has it."""


class SourceContext(msgspec.Struct, frozen=True):
    """What the router gives a source beside its options."""

    name: str
    """Name of the source in the configuration."""
    once: bool = False
    """Read to where each log ends now, then return from `run`."""
    record_limit_bytes: int = 1 << 20
    """`limits.record`: longer lines are truncated."""
    held_bytes: int = 2 << 30
    """`limits.held_logs`: what may be kept on the disk only because it is not read yet."""
    errors: dict[str, int] = msgspec.field(default_factory=dict)
    """How often something went wrong, by reason; also of those that were started again."""

    def failed(self, reason: str, times: int = 1) -> None:
        """Count an error. `reason` is one of a few words: it becomes a label."""
        self.errors[reason] = self.errors.get(reason, 0) + times


class Known(msgspec.Struct, frozen=True):
    """What a source knows of one container, or file."""

    origin: Origin
    read: Literal["file", "api", "ignored", "waiting"]
    """How it is read; `waiting`: it has not begun, or is being opened."""
    state: Literal["running", "ended", "removed"]
    reason: str = ""
    """Why it is not read, or cannot be just now."""
    position: Position | None = None
    """How far its live reader is."""
    corrupt_lines: int = 0
    """Lines that were left out, because they are not what the format of its log says."""


class Source(ABC, Generic[OptionsT]):
    def __init__(self, options: OptionsT, context: SourceContext) -> None:
        self.options = options
        self.context = context

    @abstractmethod
    async def run(self, emit: Emit, checkpoints: Checkpoints, *, task_status: trio.TaskStatus[None]) -> None:
        """Emit until cancelled (or, with `once`, until all was read). Not called twice of one object.

        `task_status.started()` once what exists has been found, or could not be: a source whose engine is
        away says so, goes on trying, and starts nevertheless.
        """

    async def welcome(self) -> None:
        """Routes have come while it runs: have them meet every origin, and read for them from where they are.

        What is read meanwhile they get anyway. A source that cannot read anything again need not do anything.
        """

    def known(self) -> Sequence[Known]:
        """What it reads, and what it does not and why. In one step, without a question to anybody."""
        return ()

    def histories(self) -> Sequence[History]:
        """The logs that it knows, to be read again by those who look; a source that cannot has none."""
        return ()

    async def unfound(self, waiting: Sequence[Waiting]) -> Sequence[Waiting]:
        """Once `run` has ended: those of these that nobody would find any more in the logs that it has read.

        A source that cannot tell says nothing.
        """
        return ()

    @property
    def standing_s(self) -> float:
        """For how long it has been handing on what it read at once, in seconds: much means that it stands."""
        return 0.0

    def notes(self) -> Sequence[str]:
        """What somebody should know although it runs: what cannot be read just now, and why."""
        return ()
