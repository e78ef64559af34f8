"""The engine's events: a ring of the last 256, subscribers with a bounded queue, filters."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import trio

Filters = Mapping[str, frozenset[str]]
"""What a `filters` parameter says; all keys must match, one value of each."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it happened, before it is JSON."""

    type: str
    action: str
    id: str
    attributes: Mapping[str, str]
    time_ns: int

    def as_json(self, *, legacy_keys: bool) -> bytes:
        """One line of the `/events` stream, keys in the engine's order."""
        message: dict[str, object] = {}
        if legacy_keys and self.type == "container":
            message = {"status": self.action, "id": self.id, "from": self.attributes.get("image", "")}
        message |= {
            "Type": self.type,
            "Action": self.action,
            "Actor": {"ID": self.id, "Attributes": dict(sorted(self.attributes.items()))},
            "scope": "local",
            "time": self.time_ns // 1_000_000_000,
            "timeNano": self.time_ns,
        }
        return msgspec.json.encode(message) + b"\n"

    def matches(self, filters: Filters) -> bool:
        """Whether every filter has a value that fits."""
        return all(self._matches(key, values) for key, values in filters.items() if values)

    def _matches(self, key: str, values: frozenset[str]) -> bool:
        if key == "type":
            return self.type in values
        if key == "event":
            return self.action in values or self.action.split(":")[0] in values
        if key == "label":
            return has_labels(self.attributes, values)
        names: tuple[str, ...] = ()
        if key == "container" and self.type == "container":
            names = (self.id, self.attributes.get("name", ""))
        elif key == "image":
            names = (self.attributes.get("image", ""),)
        elif key == "scope":
            names = ("local",)
        return any(name.startswith(value) for name in names for value in values)


def has_labels(labels: Mapping[str, str], wanted: frozenset[str]) -> bool:
    """Whether all of `key` or `key=value` are there."""
    for label in wanted:
        key, equals, value = label.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


@dataclass(eq=False)
class Subscription:
    """One `/events` stream: what waits for it. A full queue skips what comes."""

    filters: Filters
    capacity: int
    waiting: deque[Event] = field(default_factory=deque)
    skipped: int = 0
    _arrival: trio.Event = field(default_factory=trio.Event)

    def offer(self, event: Event) -> None:
        """Take an event, unless it is filtered or there is no room."""
        if not event.matches(self.filters):
            return
        if len(self.waiting) >= self.capacity:
            self.skipped += 1
            return
        self.waiting.append(event)
        self._arrival.set()

    async def take(self) -> list[Event]:
        """Wait for at least one."""
        if not self.waiting:
            self._arrival = trio.Event()
            await self._arrival.wait()
        events = list(self.waiting)
        self.waiting.clear()
        return events


class EventLog:
    """All events of one life of the engine."""

    def __init__(self, *, ring: int, buffer: int) -> None:
        self._ring: deque[Event] = deque(maxlen=ring)
        self._buffer = buffer
        self._subscriptions: set[Subscription] = set()

    @property
    def listeners(self) -> int:
        """Subscribers now."""
        return len(self._subscriptions)

    def emit(self, event: Event) -> None:
        """Remember it and tell everybody."""
        self._ring.append(event)
        for subscription in self._subscriptions:
            subscription.offer(event)

    def past(self, since_ns: int | None, until_ns: int | None, filters: Filters) -> list[Event]:
        """What the ring still has of that time, both ends inclusive."""
        if since_ns is None and until_ns is None:
            return []
        return [
            event
            for event in self._ring
            if event.time_ns >= (since_ns or 0)
            and (until_ns is None or event.time_ns <= until_ns)
            and event.matches(filters)
        ]

    def subscribe(self, filters: Filters) -> Subscription:
        """From now on."""
        subscription = Subscription(filters, self._buffer)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """No more."""
        self._subscriptions.discard(subscription)

    def clear(self) -> None:
        """The engine was restarted: nothing of this is kept."""
        self._ring.clear()
