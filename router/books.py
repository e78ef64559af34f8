"""The books of a route: what became of every record that it received.

Everything the daemon says of its routes in numbers begins here (`/v1/stats`, the last line at the end, the
oracle's sums).
"""

from __future__ import annotations

from bisect import bisect_left

import msgspec

from logroute.router.queue import QueueStatistics


class Gaps(msgspec.Struct, omit_defaults=True):
    """Gaps in what could be read for a route, of one reason."""

    gaps: int = 0
    bytes: int = 0
    """What was lost, as far as that is known."""
    of_unknown_size: int = 0
    """How many of the gaps are not in `bytes`."""
    since: str = ""
    """The time of the last record before the first gap, if known."""
    until: str = ""
    """The time of the first record after the last gap, if there is one."""

    def add(self, since: str, until: str, size_bytes: int | None) -> None:
        self.gaps += 1
        if size_bytes is None:
            self.of_unknown_size += 1
        else:
            self.bytes += size_bytes
        self.since = min(filter(None, (self.since, since)), default="")
        self.until = max(self.until, until)

    def __str__(self) -> str:
        text = f"{self.gaps}"
        if self.of_unknown_size < self.gaps:
            text += f" of {self.bytes:,} bytes"
        if self.of_unknown_size:
            of = f"{self.of_unknown_size} " if self.of_unknown_size < self.gaps else ""
            text += f"{', ' if of else ' '}{of}of unknown size"
        between = " ".join(
            filter(None, (self.since and f"since {self.since}", self.until and f"until {self.until}"))
        )
        return f"{text}, {between}" if between else text


BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of what deliveries take; the last bucket has none."""


class Durations(msgspec.Struct):
    """How long deliveries took, from the first attempt to the receiver's word."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    """In each bucket by itself."""
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds


class RouteStatistics(msgspec.Struct, frozen=True):
    """The books of a route, as one consistent picture.

    `received = delivered + duplicates + rejected + sum(dropped) + queue.records + in_flight`, at any instant.
    """

    received: int
    """Records that entered the queue; at the start, those in the spool."""
    delivered: int
    duplicates: int
    """Records that the receiver had already."""
    rejected: int
    """Records that the receiver will never take."""
    dropped: dict[str, int]
    """Records given up, by reason: `full` (the user's policy), `gone` (the sink), `damaged` (the spool)."""
    in_flight: int
    """Records in deliveries that are under way."""
    retried: int
    """Deliveries that were tried again, in records."""
    unconfirmed: int
    """Delivered records of which nobody can tell whether the receiver has read them."""
    truncated: int
    """Received records of which a part was discarded: they were longer than they may be."""
    queue: QueueStatistics
    dead_letters: int
    """How many are kept now."""
    dead_letters_dropped: int
    """Rejected records that are not kept any more, or never were: there were too many."""
    up: bool
    """Whether the last attempt at a delivery succeeded, or there was none, and not everything is rejected."""
    reason: str
    """Why not."""
    lost: dict[str, Gaps] = msgspec.field(default_factory=dict)
    """Gaps in what could be read for this route, by reason."""
    since: float = 0.0
    """Since when it is up, or not: seconds since the epoch."""
    behind: bool = False
    """The sink cannot keep up, or could not, and not everything is delivered yet."""
    hindrance: str = ""
    """What keeps it from reading on, or from delivering, whatever the sink does; empty if nothing."""
    lag_s: float = 0.0
    """Age of the oldest record that is not acknowledged, by its own time; 0 if there is none."""
    delivered_at: float = 0.0
    """When something was delivered last, seconds since the epoch; 0 if nothing was in this run."""
    answer: str = ""
    """What the receiver said then; empty where it says nothing."""
    paused: bool = False
    """It is not up because somebody wants that."""
    delivered_bytes: int = 0
    """Of text, in deliveries that are finished."""
    durations: Durations = msgspec.field(default_factory=Durations)
    dead_letter_bytes: int = 0
    """What they take on the disk."""
    disk_bytes: int = 0
    """What the spool may take; 0: there is none."""
    last_error: str = ""
    """Why it was not up the last time it was not, in this run."""
    failed_at: float = 0.0
    """When that was said last, seconds since the epoch."""
    sink_events: dict[str, int] = msgspec.field(default_factory=dict)
    """What its sinks have counted beside all that, by their own words: `truncated` …"""


class OfOrigin(msgspec.Struct):
    """What has become of one container's records in a route, since the start."""

    delivered: str = ""
    """The time of the last one that the sink has taken, as its log has it."""
    rejected: int = 0
    rejection: str = ""
    """The receiver's words about the last that it has rejected."""


class Books(msgspec.Struct):
    """Records, since the start. Between awaits the sum over what became of them is `received`."""

    received: int = 0
    delivered: int = 0
    duplicates: int = 0
    rejected: int = 0
    dropped: dict[str, int] = msgspec.field(default_factory=dict)
    retried: int = 0
    unconfirmed: int = 0
    truncated: int = 0
    letters_dropped: int = 0
    delivered_bytes: int = 0
    durations: Durations = msgspec.field(default_factory=Durations)

    def drop(self, reason: str, records: int) -> None:
        if records:
            self.dropped[reason] = self.dropped.get(reason, 0) + records

    @property
    def progress(self) -> int:
        """How many records are done with by the receiver's word."""
        return self.delivered + self.duplicates + self.rejected
