"""What was written, what arrived where, and what happened meanwhile. Times are seconds since the run began.

Compact, because an hour has a million records: numbers in arrays instead of objects.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import trio

from tests.oracle.records import Altered, Key, key_of

Read = Literal["file", "api"]
Promise = Literal["exactly once", "at least once", "confirmed"]
"""What a sink promises (DESIGN §4, §5): a file; an HTTP receiver; plain TCP, up to the receiver's kernel."""

SHOWN_CHARACTERS = 100


class StreamName(NamedTuple):
    container: str
    stream: str


@dataclass(slots=True)
class Written:
    """What one stream of a container wrote: record n at `times[n]`, a line of `sizes[n]` bytes."""

    read: Read
    """How the daemon reads it."""
    times: array[float] = field(default_factory=lambda: array("d"))
    sizes: array[int] = field(default_factory=lambda: array("L"))
    gone: list[tuple[int, float]] = field(default_factory=list)
    """Records before this number are gone from the engine since this time; both only grow."""
    removed: bool = False
    """Its container was removed."""

    def gone_at(self, number: int) -> float:
        """When the engine gave it up, by rotation or removal; infinite if it still has it."""
        return next((at for before, at in self.gone if number < before), math.inf)


@dataclass(slots=True, eq=False)
class Delivery:
    """What a receiver took in one go: an HTTP request, what one read of a connection gave, a file."""

    turn: int
    """Connections and requests in the order in which they began."""
    at: float
    """When it was accepted."""
    sure: bool = True
    """The daemon must have heard that it was: no answer was withheld and no connection cut."""
    done_at: float = -math.inf
    """When the last part of what was refused as a whole, and then came in parts, was accepted or refused: the
    daemon acknowledges it as a whole. Infinite until then."""


@dataclass(slots=True)
class Arrivals:
    """Records of one stream that a route has delivered, in the order in which they were accepted."""

    numbers: array[int] = field(default_factory=lambda: array("L"))
    deliveries: list[Delivery] = field(default_factory=list)

    def add(self, number: int, delivery: Delivery) -> None:
        self.numbers.append(number)
        self.deliveries.append(delivery)

    def in_turn(self) -> list[tuple[int, Delivery]]:
        """One connection after the other: an old one may still be read when its successor is."""
        return sorted(zip(self.numbers, self.deliveries, strict=True), key=lambda pair: pair[1].turn)


@dataclass(slots=True)
class Span:
    """A time in which something did not work."""

    begin: float
    end: float = math.inf
    abrupt: bool = False
    """Of a daemon that is down: it ended without having drained, by kill -9 or at the end of its grace."""


@dataclass(frozen=True, slots=True)
class Books:
    """What the daemon says of a route (INTERFACE §5), as one snapshot."""

    received: int
    delivered: int
    duplicates: int
    rejected: int
    dropped: int
    queued: int
    in_flight: int
    unconfirmed: int = 0
    shed: int = 0
    """Of those dropped, how many for want of room."""


@dataclass(slots=True)
class Life:
    """One process of the daemon, and what it said of its routes when it last was asked."""

    begin: float
    end: float = math.inf
    asked: float = 0.0
    answered: float = 0.0
    """Its books are of an instant between these two."""
    books: Mapping[str, Books] = field(default_factory=dict)


@dataclass(slots=True)
class RouteHistory:
    """One route, as its receiver sees it."""

    name: str
    promise: Promise
    arrivals: defaultdict[StreamName, Arrivals] = field(default_factory=lambda: defaultdict(Arrivals))
    newest: float = 0.0
    """When the newest record that arrived was written."""
    refused: set[Key] = field(default_factory=set)
    """What the receiver refused for good, each record in a request of its own."""
    disturbed: list[Span] = field(default_factory=list)
    """When its receiver, or its disk, misbehaved."""
    cuts: int = 0
    """Connections that the receiver ended with bytes unread."""
    cut_bytes: int = 0
    """What the kernel held unread at the most in one of them."""
    sheds: bool = False
    """It is told to drop what does not fit (`when_full`)."""
    roomy: bool = True
    """Its spool has room for everything."""
    unconfirmed: int | None = None
    """How many records the daemon has said that cuts may have cost; None where that is not known."""


@dataclass(slots=True)
class Violation:
    """A promise that was not kept."""

    route: str
    kind: str
    what: str
    key: Key | None = None
    """The first record that is meant."""

    def __str__(self) -> str:
        return f"{self.route}: {self.kind}: " + (f"{self.key}: {self.what}" if self.key else self.what)


@dataclass(slots=True)
class History:
    """Everything that the checks judge."""

    written: dict[StreamName, Written] = field(default_factory=dict)
    routes: dict[str, RouteHistory] = field(default_factory=dict)
    daemon_down: list[Span] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    """The processes of the daemon, one after the other."""
    engine_down: list[Span] = field(default_factory=list)
    unstored: list[Span] = field(default_factory=list)
    """When checkpoints could not be stored, so that a crash may repeat what was delivered."""
    announced: set[tuple[str, str]] = field(default_factory=set)
    """For which route, and of which container, the daemon says that records are lost."""
    seen: list[Violation] = field(default_factory=list)
    """What was wrong already as it happened."""
    began: float = 0.0
    """In trio's time."""

    def now(self) -> float:
        return trio.current_time() - self.began

    def next_key(self, container: str, stream: str) -> Key:
        """The record that this stream writes next."""
        written = self.written.get(StreamName(container, stream))
        return Key(container, stream, len(written.times) if written else 0)

    def write(self, key: Key, size: int, read: Read, at: float) -> None:
        """A container writes the record of `next_key`, a line of `size` bytes."""
        written = self.written.setdefault(StreamName(key.container, key.stream), Written(read))
        written.times.append(at)
        written.sizes.append(size)

    def arrive(self, route: str, text: str, said: StreamName | None, delivery: Delivery | None) -> Key | None:
        """A receiver has read a record, and who said it, where the format tells; which one, if it is one.

        Without a delivery it was not accepted: it must be whole, but has not arrived.
        """
        try:
            key = key_of(text)
        except Altered as error:
            shown = repr(text[:SHOWN_CHARACTERS]) + (" …" if len(text) > SHOWN_CHARACTERS else "")
            self.seen.append(Violation(route, "altered", f"{error}: {len(text)} characters, {shown}"))
            return None
        name = StreamName(key.container, key.stream)
        if said is not None and said != name:
            self.seen.append(Violation(route, "altered", f"is said to come from {'/'.join(said)}", key))
        written = self.written.get(name)
        if written is None or key.number >= len(written.times):
            self.seen.append(Violation(route, "invented", "nobody wrote it", key))
            return None
        if delivery is not None:
            books = self.routes[route]
            books.arrivals[name].add(key.number, delivery)
            books.newest = max(books.newest, written.times[key.number])
        return key


@contextmanager
def during(spans: list[Span], clock: Callable[[], float]) -> Iterator[Span]:
    """Note that something does not work inside the block."""
    span = Span(clock())
    spans.append(span)
    try:
        yield span
    finally:
        span.end = clock()
