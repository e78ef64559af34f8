"""Where what was before and what is seen live meet: no record is shown in both, and none out of order.

A view is opened before history is read to the end of each log. So what is live begins at or before the end of
what was shown; often before its beginning, where that is only some last lines. It is let go of up to that
end, which is recognised by what stands there: by its place where a log is read as a file, else by the record.
Times are asked only where neither is to be found, as where a processor has taken that record out.
"""

from __future__ import annotations

from collections import Counter, deque

import msgspec

from logroute.router.position import Place, Position, Reached
from logroute.router.record import STREAMS, Batch, Record, Stream, message_hash
from logroute.sources import ReadTo

REMEMBERED = 4000
"""Records of each log by which live ones are recognised."""

Identity = tuple[Stream, str, str]


def _identity(record: Record) -> Identity:
    return record.stream, record.place or record.logged or record.time, record.message


def _place(position: Position | Reached, stream: Stream) -> Place | None:
    if isinstance(position, Position):
        return position.of(stream).place
    return position.stdout_place if stream == "stdout" else position.stderr_place


class _End(msgspec.Struct, eq=False):
    """The end of what is shown of one log as history."""

    last: Record
    """Of the log itself, before any processor."""
    reached: Position | Reached = Reached()
    """Behind it."""
    records: int = 0
    """In the last batch of it, of which all are shown, or …"""
    some_out: bool = True
    """… a processor or the match has taken some out, perhaps the last."""
    shown: deque[Identity] = msgspec.field(default_factory=lambda: deque(maxlen=REMEMBERED))
    begun: bool = False
    """Something live has come."""
    passed: bool = False
    """What is live has come to the end."""
    since: int = 0
    """How many live records have come since."""
    known: Counter[Identity] = msgspec.field(default_factory=Counter)
    """Of what is shown, what has not come live."""
    new: set[Stream] = msgspec.field(default_factory=set)
    """Streams of which something new has come: no more of them is known."""

    def position(self) -> Position:
        return self.reached if isinstance(self.reached, Position) else self.reached.position()

    @property
    def place(self) -> Place | None:
        """Where the log's next record stands."""
        return _place(self.reached, self.last.stream)

    def begins_behind(self, batch: Batch) -> bool:
        """Whether the first live batch begins there, or further on."""
        stream = self.last.stream
        place = _place(batch.before, stream)
        if place is not None and self.place is not None:
            if place.file == self.place.file:
                return place.offset >= self.place.offset
            if self.last.place is not None:  # without an engine's time nothing else tells
                return True
        before = batch.last_before(stream)
        return (
            before is not None
            and before.time == self.last.time
            and before.hash == message_hash(self.last.message)
        )

    def is_within(self, batch: Batch) -> bool | None:
        """Whether it stands in this batch, or before it. None: places do not tell."""
        place = _place(batch.reached, self.last.stream)
        if place is None or self.place is None:
            return None
        if place.file != self.place.file:
            return None if self.last.place is None else True
        return place.offset >= self.place.offset

    def is_before(self, record: Record) -> bool:
        """Whether it is before a record, as far as times tell."""
        time = record.logged or record.time
        # At the very same time: if it is shown, it comes yet, and is recognised.
        return time > self.last.time or (time == self.last.time and self.some_out)


class Seam:
    """Lets go of live records that were shown as history, or are older than that."""

    def __init__(self) -> None:
        self._ends: dict[str, _End] = {}

    def read(self, batch: Batch) -> None:
        """This is read as history; processors have not seen it yet."""
        if not len(batch):
            return
        last = batch.records[-1]
        # A copy: the record is a processor's to change.
        last = Record(last.message, last.stream, last.time) if last.place is None else last
        end = self._ends.get(batch.origin.key)
        if end is None:
            end = self._ends[batch.origin.key] = _End(last)
        end.last, end.reached = last, batch.reached
        end.records, end.some_out = len(batch), True

    def shown(self, batch: Batch) -> None:
        """This is shown of what was read last."""
        if (end := self._ends.get(batch.origin.key)) is not None:
            end.shown.extend(map(_identity, batch.records))
            end.some_out = len(batch) < end.records

    def read_to(self) -> dict[str, ReadTo]:
        """How far each log was read, by its origin's key."""
        return {key: ReadTo(end.last, end.position()) for key, end in self._ends.items()}

    def new(self, batch: Batch) -> Batch:
        """A live batch without what is older than what is new; itself where all of it is new."""
        end = self._ends.get(batch.origin.key)
        if end is None:
            return batch
        if not end.begun:
            end.begun = True
            end.known.update(end.shown)
            end.passed = end.begins_behind(batch)
        records = batch.records
        identities = [*map(_identity, records)]
        last = end.shown[-1] if end.shown else None
        within = end.is_within(batch)
        # Where it is shown, it comes yet: this may be a part of a batch, which has the whole one's positions.
        if within and end.some_out and last not in identities:
            end.passed = True
        new: list[Record] = []
        for record, identity in zip(records, identities, strict=True):
            if within is None and end.is_before(record):
                end.passed = True
            if record.stream not in end.new and end.known[identity] > 0:
                end.known[identity] -= 1
                end.passed = end.passed or (identity == last and not end.known[identity])
            elif end.passed:
                end.new.add(record.stream)
                new.append(record)
        if end.passed:
            end.since += len(records)
            # Streams overlap by little: behind so much nothing comes that was shown, of a silent one either.
            if len(end.new) == len(STREAMS) or end.since > REMEMBERED:
                del self._ends[batch.origin.key]
        if len(new) == len(records):
            return batch
        return batch.with_records(new, batch.size_bytes * len(new) // len(records))
