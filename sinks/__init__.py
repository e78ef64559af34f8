"""Sinks: where records go. One module a sink: its options, its URI form, its class.

A sink owns its wire format, its connection and its TLS. It owns no queue, no retry loop and no buffer:
those are the router's, once, for all sinks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar
from urllib.parse import SplitResult

import msgspec

from logroute.config.components import Options
from logroute.sinks.one_writer import OneWriter, Written

if TYPE_CHECKING:
    from logroute.router.record import Batch, Record


class SinkOptions(Options):
    """What every sink's options have in common. The `type` field of a subclass names the sink."""

    def one_writer(self) -> OneWriter | None:
        """Where no other route may write, as far as the options tell; None: wherever it likes."""
        return None

    def writes_to(self) -> Written | None:
        """Files of this host that it writes to; None: it writes none."""
        return None


OptionsT = TypeVar("OptionsT", bound=SinkOptions)


class Retryable(Exception):
    """The delivery failed for now: the router tries the same batches again, after a pause.

    The text says what was tried, where, and what answered; people read it.
    """

    def __init__(self, message: str, *, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s
        """What the receiver asked us to wait (`Retry-After`), or None."""


class Refused(Exception):
    """The receiver will never take these batches as they are: too large, or one of their records is bad.

    The router halves them until it knows which records are meant, and rejects these with this reason. Only
    where nothing of what was sent has been taken.
    """


class SinkGone(Exception):
    """The receiver is gone for good and on purpose: whoever read our stdout has closed it.

    The router stops the route and, where it was the last one, ends the daemon as if asked to, with exit
    code 0 (with `--once` 3: not every record was acknowledged). What was not delivered stays behind the
    checkpoint.
    """


class Rejected(msgspec.Struct, frozen=True):
    """A record that the receiver will never take, with the receiver's own reason."""

    batch: int
    """Index into the delivered batches."""
    record: Record
    reason: str
    kept: bool = False
    """The receiver keeps it elsewhere, with the reason: it is counted, and becomes no dead letter."""


class Postponed(msgspec.Struct, frozen=True):
    """A record that the receiver did not take now, while it took others: it is sent again without them."""

    batch: int
    """Index into the delivered batches."""
    record: Record
    reason: str


class Outcome(msgspec.Struct, frozen=True):
    """What became of a delivery. Whatever is not named in it is delivered."""

    rejected: Sequence[Rejected] = ()
    postponed: Sequence[Postponed] = ()
    """Where order matters, only if no later record was delivered, or the receiver has an order of its own."""
    duplicates: int = 0
    """How many records the receiver had already: it was delivered before, and we did not hear of it."""
    after_s: float | None = None
    """How long the receiver asked us to wait before what it postponed is sent again."""
    unnamed: int = 0
    """How many more records the receiver has rejected without saying which. They are counted as rejected, but
    there is nothing to keep of them."""
    unnamed_reason: str = ""
    """The receiver's own words about those."""


DELIVERED = Outcome()
"""All of it."""


class FileLength(msgspec.Struct, frozen=True):
    """What a file sink has written to one file, so that kill -9 repeats and tears nothing."""

    fingerprint: str
    """Hash of the file's first `fingerprint_bytes` bytes; a foreign file is never cut back."""
    fingerprint_bytes: int
    length: int
    """Bytes that are part of acknowledged deliveries."""
    details: dict[str, Any] | None = None
    """The sink's own, JSON-able: when the file was begun, what it is about to be renamed to …"""


class SinkContext(Protocol):
    """What the router gives a sink beside its options."""

    @property
    def route(self) -> str:
        """The route's name."""

    @property
    def state_dir(self) -> str | None:
        """Where the daemon keeps state; None when everything is in memory."""

    @property
    def files(self) -> dict[str, FileLength]:
        """Lengths of the files written, by path: what the last run stored, then what the sink puts here.

        Stored in one transaction with the checkpoints of the deliveries that have returned. So `deliver`
        changes it only when all of its bytes are written, in its last step, without an await after it.
        """

    async def commit(self) -> None:
        """Store `files` and the checkpoints of every delivery that has returned, now, in one transaction.

        A barrier before something that cannot be undone (renaming a file). Only to be called in `open`, in
        `idle`, or in `deliver` before its first byte is written.
        """

    def unconfirmed(self, records: int) -> None:
        """So many records were taken as delivered, and a reset may have cost them: nobody can tell."""

    def warn(self, event: str, **details: object) -> None:
        """Say something in the daemon's log; repeated words are rate-limited."""


class SinkStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a sink, taken without I/O: what its fields say since it was made."""

    events: ClassVar[tuple[str, ...]] = ()
    """Those of its fields that only grow, and are not in the route's books: they are shown beside these."""

    def shown(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.events}


class Sink(ABC, Generic[OptionsT]):
    """One per route. The router calls `open`, then `deliver` one at a time, then `close`."""

    ordered: bool = True
    """Whether order matters to it. Where not, the router has several deliveries under way; `open` may then be
    called beside one, and `idle` never is."""
    concurrency: int = 4
    """How many deliveries there may be at a time where order does not matter."""
    has_deadline: ClassVar[bool] = True
    """Whether a delivery that takes long has failed. Not so where a person may stop the receiver at will."""

    batch_bytes: int = 1 << 20
    """What one delivery takes at most, unless the route's `batch` says otherwise; likewise below."""
    batch_records: int = 10_000
    batch_wait_s: float = 0.0
    """How long to wait for more once there is something."""

    answer: str = ""
    """What the receiver said when it took something last, in few words; empty where it says nothing."""

    idle_s: float | None = None
    """Call `idle` when nothing was delivered for so long (None: never)."""

    def __init__(self, options: OptionsT, context: SinkContext) -> None:
        self.options = options
        self.context = context

    @classmethod
    def options_from_uri(cls, uri: SplitResult, query: dict[str, Any]) -> dict[str, Any]:
        """The mapping that a URI of this sink means, `type` aside; `query` holds its parameters.

        Raises ValueError with what is wrong about the URI.
        """
        return query

    def statistics(self) -> SinkStatistics:
        """What it has counted, in a class of its own where that is anything. Asked when somebody looks."""
        return SinkStatistics()

    async def open(self) -> None:  # most sinks open with their first delivery
        """Get ready. Called before the first delivery, and again after `deliver` raised or was cancelled.

        Raises Retryable; the daemon then starts degraded and tries again.
        """

    @abstractmethod
    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        """Deliver these batches, and say what of them was not delivered, record by record.

        Raises Retryable if the same batches shall be sent again, Refused if they never can be as they are. A
        cancelled delivery (the router gives each a deadline) has an unknown outcome: whatever it held must be
        closed, and the batches are sent again after the next `open`.
        """

    async def run(self) -> None:
        """Work beside the deliveries: compress what is finished, watch a receiver.

        The router starts it after the first `open` that succeeded, in a task of its own, and cancels it
        before `close`. It may return at once. SinkGone means what it means in `deliver`. If it raises
        anything else, the router says so and starts it again, after a pause; deliveries do not notice.
        """

    async def idle(self) -> None:
        """Tidy up: close files that nothing was written to for long.

        Called between deliveries, never beside one: when nothing was delivered for `idle_s`, and at least
        every `idle_s` however much is delivered. Raises Retryable; the router then calls `open` again.
        """

    async def close(self) -> None:
        """Release everything. Never raises for a receiver that is gone."""
