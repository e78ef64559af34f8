"""Sources: where records come from. One module a source.

A source reads, cuts into records, and emits batches; it resumes from checkpoints and waits where `emit`
waits. It knows origins and positions, never routes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import msgspec

from logroute.config.components import Options

if TYPE_CHECKING:
    import trio

    from logroute.router.record import Batch, Origin, Position


class SourceOptions(Options):
    """What every source's options have in common. The `type` field of a subclass names the source."""

    def check(self) -> None:
        """Before a run: what depends on this machine, such as its environment. Raises ValueError.

        Not whether anything answers: that is waited for.
        """


OptionsT = TypeVar("OptionsT", bound=SourceOptions)


class Start(msgspec.Struct, frozen=True):
    """Where a route begins with an origin that it meets for the first time."""

    created: str
    """When the origin came to be, nine digits. One younger than the route is read from its first line."""
    position: Position
    """Where to begin with one that is older: what the source's `start` says."""


class Emit(Protocol):
    """What the router gives a source to hand batches on."""

    async def __call__(self, batches: Sequence[Batch]) -> None:
        """Hand one sweep's batches to the routes. Returns when every route has them in its queue."""

    def has_room(self, origin: Origin) -> bool:
        """Whether every route that takes this origin can queue more now. A log without room is not read."""

    async def wait_for_room(self) -> None:
        """Wait until a route that was full is no longer."""


class Checkpoints(Protocol):
    """What the router gives a source to resume from."""

    async def meet(self, starts: Mapping[Origin, Start]) -> Mapping[Origin, Mapping[str, Position]]:
        """The checkpoints of these origins, by route; to be called before anything of them is read.

        `starts` says where a route begins that meets an origin for the first time; that is stored before
        this returns. An origin that no route takes has no checkpoints.
        """

    def gone(self, origin: Origin) -> None:
        """The origin has been removed, and everything of it was emitted: forget it in time."""

    def lost(self, origin: Origin, routes: Sequence[str], reason: str, **details: object) -> None:
        """Records between the checkpoint of these routes and what could be read are gone: count, and say so.

        `reason` is `rotated` or `removed`; details are the bytes, where known, and the time span.
        """


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
    statistics: dict[str, int] = msgspec.field(default_factory=dict)
    """Counters of the source's own, by name."""


class Source(ABC, Generic[OptionsT]):
    def __init__(self, options: OptionsT, context: SourceContext) -> None:
        self.options = options
        self.context = context

    @abstractmethod
    async def run(self, emit: Emit, checkpoints: Checkpoints, *, task_status: trio.TaskStatus[None]) -> None:
        """Emit until cancelled (or, with `once`, until all was read).

        `task_status.started()` once what exists has been found, or could not be: a source whose engine is
        away says so, goes on trying, and starts nevertheless.
        """
