"""A delivery of the http sink as requests: which are still to be made, and what became of it altogether.

Does no I/O. What of a delivery goes into one request is a share (`http_encoding`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from logroute.sinks import DELIVERED, Outcome, Postponed, Rejected, Retryable
from logroute.sinks.http_encoding import Share


class Settled(msgspec.Struct, frozen=True):
    """What became of one request."""

    outcome: Outcome = DELIVERED
    """Said of the delivery's batches."""
    again: Sequence[Share] = ()
    """What of it is still to be sent."""
    failure: Retryable | None = None
    """Why not now."""
    at: int | None = None
    """The number of the record that stopped it."""
    asked: bool = True
    """Not so where its body had been too large: nothing became of it but what is still to be sent."""


class Requests:
    """What of a delivery is still to be sent.

    Behind a record that has stopped a request they begin small again, and double: else each such record would
    cost sending all that is behind it.
    """

    def __init__(self, shares: Sequence[Share]) -> None:
        self.left = deque(shares)
        self._most: int | None = None

    def next(self) -> Share:
        """The first, no larger than the next request may be. It stays in `left` until it is done."""
        if self._most is not None and self.left[0].records > self._most:
            self.left.extendleft(reversed(self.left.popleft().cut(self._most)))
        return self.left[0]

    def done(self, settled: Settled) -> None:
        """This became of it."""
        share = self.left.popleft()
        self.left.extendleft([each for each in reversed(settled.again) if each.records])
        if settled.at is not None:
            self._most = 2 * settled.at + 1
        elif self._most is not None:
            self._most = 2 * share.records + 1


def of_delivery(outcome: Outcome, share: Share) -> Outcome:
    """What became of a share, said of the delivery's batches."""
    if outcome is DELIVERED:
        return outcome
    index = share.indexes
    return msgspec.structs.replace(
        outcome,
        rejected=tuple([Rejected(index[each.batch], each.record, each.reason) for each in outcome.rejected]),
        postponed=tuple(
            [Postponed(index[each.batch], each.record, each.reason) for each in outcome.postponed]
        ),
    )


def postponed(share: Share, error: Exception) -> list[Postponed]:
    """All records of a share, which are to be sent again later."""
    return [Postponed(index, record, str(error)) for index, record in share.named()]


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """One outcome of all of them."""
    told = [each for each in outcomes if each is not DELIVERED]
    if len(told) < 2:
        return told[0] if told else DELIVERED
    waits = [each.after_s for each in told if each.after_s is not None]
    return Outcome(
        tuple([rejected for each in told for rejected in each.rejected]),
        tuple([postponed for each in told for postponed in each.postponed]),
        after_s=max(waits, default=None),
        unnamed=sum([each.unnamed for each in told]),
        unnamed_reason=next((each.unnamed_reason for each in told if each.unnamed), ""),
    )
