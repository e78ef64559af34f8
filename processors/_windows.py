"""What counts records in windows of time: so many of a kind pass in each, the others are held back.

The same records are held back whenever they are read. Windows are aligned (a window of ten seconds begins at
:00, :10 …) by the engine's times of the records, no clock is asked, and each container is counted by itself,
because only within one is there an order that stays. A record that is read again while its window is known is
answered as it was the first time. Where nothing is known any more (after a restart, in a window of long ago)
counting begins with what is read: so what has passed before passes again, and of the window in which reading
begins up to as many more as may pass in it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterator
from datetime import datetime
from functools import lru_cache
from typing import ClassVar
from weakref import WeakKeyDictionary

import msgspec

from logroute.processors import OptionsT, Processor
from logroute.router.record import Batch, DetailedRecord, Origin, Record, Stream, detailed

WINDOWS = 8
"""So many windows of a container are known: the last, and those that somebody who is behind reads again."""
KINDS = 10_000
"""So many kinds of records of one window are told apart; then the oldest is forgotten."""

EXCERPT = 300
"""So many characters of a record that was held back are known afterwards."""

Place = tuple[str, int, int, str]
"""Where a record stands in its stream."""
NOWHERE: Place = ("", -1, 0, "")


class Count(msgspec.Struct):
    """What is known of one kind of records in one window."""

    passed: int = 0
    held: int = 0
    said: int = 0
    """Of `held`, what a record has told already."""
    last: Record | None = None
    """Of those held back, without what is long."""
    # A record that is no further than `reached` has been decided; of these passed what is no further than
    # `until`. Both by stream: in one alone times never go back.
    reached: dict[Stream, Place] = msgspec.field(default_factory=dict)
    until: dict[Stream, Place] = msgspec.field(default_factory=dict)

    def passes(self, record: Record, limit: int) -> bool:
        """Whether the record goes on; counted, if it is not one that was decided before."""
        if record.place is None:
            part = record.part
            place = (record.logged or record.time, record.sequence, len(part), part)
            if place <= self.reached.get(record.stream, NOWHERE):
                return place <= self.until.get(record.stream, NOWHERE)
            self.reached[record.stream] = place
            if self.passed < limit:
                self.until[record.stream] = place
        if self.passed < limit:
            self.passed += 1
            return True
        self.held += 1
        self.last = _short(record)
        return False


def _short(record: Record) -> Record:
    """What is kept of a record: its id, and of a long text so much that one knows which it was."""
    if len(record.message) <= EXCERPT and not record.fields:
        return record
    kept = detailed(record)
    return msgspec.structs.replace(kept, message=kept.message[:EXCERPT], fields=None)


Window = dict[Hashable, Count]


class WindowProcessor(Processor[OptionsT]):
    """Lets so many records of each kind pass in each window, and then says how many it has held back."""

    changes: ClassVar[bool] = False
    separable: ClassVar[bool] = False
    part: ClassVar[str]
    """Ends the stable id of the record that tells what was held back."""

    def __init__(self, options: OptionsT, window_s: int, limit: int) -> None:
        super().__init__(options)
        self._window_s = window_s
        self._limit = limit
        self._known: WeakKeyDictionary[Origin, dict[int, Window]] = WeakKeyDictionary()

    @abstractmethod
    def kind(self, origin: Origin, record: Record) -> Hashable:
        """What is counted together."""

    @abstractmethod
    def said(self, count: int, last: Record, kind: Hashable) -> DetailedRecord:
        """What tells that so many of a kind were held back; its id is made from the last of them."""

    def apply(self, batch: Batch) -> Batch:
        origin, limit, window_s = batch.origin, self._limit, self._window_s
        windows = self._known.get(origin)
        if windows is None:
            windows = self._known[origin] = {}
        newest = max(windows, default=-1)
        number, counts = -1, Window()
        going_on: list[Record] = []
        held = False
        for record in batch.records:
            at = second(record.logged or record.time) // window_s
            if at != number:
                number = at
                counts = self._window(windows, number)
                if number > newest:
                    newest = number
                    going_on += self._told(windows, number)
            kind = self.kind(origin, record)
            count = counts.get(kind)
            if count is None:
                if len(counts) >= KINDS:
                    del counts[next(iter(counts))]
                count = counts[kind] = Count()
            if count.passes(record, limit):
                going_on.append(record)
            else:
                held = True
        if not held and len(going_on) == len(batch):
            return batch
        return batch.with_records(going_on, batch.size_bytes * len(going_on) // max(1, len(batch)))

    @staticmethod
    def _window(windows: dict[int, Window], number: int) -> Window:
        """The window of that number: the last in the order of use."""
        window = windows.pop(number, None)
        windows[number] = window = {} if window is None else window
        if len(windows) > WINDOWS:
            del windows[next(iter(windows))]
        return window

    def _told(self, windows: dict[int, Window], number: int) -> Iterator[Record]:
        """What was held back before that window, and nobody has heard of yet."""
        for before in sorted(windows):
            if before >= number:
                break
            for kind, count in windows[before].items():
                if count.last is not None and count.held > count.said:
                    self.books.added += 1
                    record = self.said(count.held - count.said, count.last, kind)
                    count.said = count.held
                    yield record


def of_last(last: Record, message: str, part: str) -> DetailedRecord:
    """A record that stands where the last one stood, under an id of its own."""
    return DetailedRecord(
        message,
        last.stream,
        last.time,
        sequence=last.sequence,
        place=last.place,
        part=last.part + part,
        logged=last.logged,
    )


def second(time: str) -> int:
    """A time, RFC 3339 in UTC, as whole seconds since 1970; 0 where it is none."""
    return _second(time[:19])


@lru_cache(maxsize=4096)
def _second(time: str) -> int:
    try:
        return int(datetime.fromisoformat(time + "+00:00").timestamp())
    except (ValueError, OverflowError):
        return 0
