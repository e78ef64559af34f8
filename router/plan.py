"""What the daemon is to run, as the configuration says it: and what of two plans is alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from logroute.config.hidden import Hidden
from logroute.router.chain import StagePlan
from logroute.router.route import Route, RouteSettings
from logroute.sinks import Sink
from logroute.sources import Source

if TYPE_CHECKING:
    from logroute.router.daemon import Daemon


class CannotReload(Exception):
    """Another plan cannot be taken over while the daemon runs; nothing has changed."""


class RouteRefused(Exception):
    """What somebody wants of a route makes no sense; `mistakes` are where in it, and what is wrong."""

    def __init__(self, mistakes: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path}: {text}" if path else text for path, text in mistakes))
        self.mistakes = mistakes


class RoutePlan(msgspec.Struct, frozen=True):
    """A route as configured, and how its sink is made."""

    settings: RouteSettings
    make_sink: Callable[[Route], Sink[Any]]
    durable: bool = False
    """The sink asks for more than kill -9: what it acknowledges survives power loss."""
    options: Any = None
    """The sink's, for comparison: a route is touched by a reload only if something of it has changed."""
    processors: Sequence[StagePlan] = ()
    """What its records pass before they are queued."""
    body: Any = None
    """What was said of it, for people: a mapping as in a configuration, variables by their names."""
    place: str = ""
    """Where that stands: `file:line`, or the URI; empty for one that was made by API."""
    by_api: bool = False

    def is_like(self, other: RoutePlan) -> bool:
        """Whether it means the same."""
        return (
            self.options is not None
            and self.options == other.options
            and self.settings == other.settings
            and self.durable == other.durable
        )


def _reads_no_file(_: str) -> bool:
    return False


class SourcePlan(msgspec.Struct, frozen=True):
    """A source as configured, and how it is made."""

    name: str
    make: Callable[[], Source[Any]]
    options: Any = None
    """For comparison, likewise."""
    reads: Callable[[str], bool] = _reads_no_file
    """Whether it would read a file of this path."""

    def is_like(self, other: SourcePlan) -> bool:
        return self.options is not None and self.options == other.options


class Api(Protocol):
    """Answers questions about the daemon while it runs."""

    def open(self) -> None:
        """Listen. Raises StateError where that cannot be and was asked for."""

    async def run(self) -> None:
        """Answer until cancelled. Ends soon then, whatever those who asked do."""

    def close(self) -> None:
        """Listen no more. Also without `run`."""


class Plan(msgspec.Struct, frozen=True):
    """What the daemon shall run."""

    routes: Sequence[RoutePlan]
    sources: Sequence[SourcePlan]
    state_dir: Path | None = None
    once: bool = False
    timeout_s: float = 300.0
    """With `once`: give up after so long without progress."""
    grace_s: float = 30.0
    make_api: Callable[[Daemon], Api] | None = None
    """What people and programs ask about the daemon; None: nobody can."""
    api_options: Any = None
    """For comparison: where it listens, and for whom, a reload does not change."""
    memory_bytes: int = 256 << 20
    """Bound on what all queues hold together; each route's share of it bounds its queue."""
    processors: Sequence[StagePlan] = ()
    """What all records pass before they are routed."""
    body: Any = None
    """The configuration as it was written, for people: variables by their names."""
    hidden: Hidden = msgspec.field(default_factory=Hidden)
    """What came from files of secrets: nobody is shown it, whatever goes wrong."""
    make_route: Callable[[str, Any], RoutePlan] | None = None
    """What a route means that is made by API: its name and a mapping as in a configuration. Raises
    RouteRefused."""
