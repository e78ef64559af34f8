"""Processors: what happens to records between source and route, or on the way into a route. One module each.

A processor is synchronous and works on whole batches. It never raises for data: a record that it cannot
treat passes through, counted. It gives the same output for the same input whenever it runs and however the
input was cut into batches; a timer decides nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, TypeVar

import msgspec
from pydantic import Field

from logroute.config.components import Options
from logroute.config.types import MatchField
from logroute.router.column_batch import in_columns
from logroute.router.match import EVERYTHING

if TYPE_CHECKING:
    from logroute.router.column_batch import ColumnBatch
    from logroute.router.position import Mark, Position
    from logroute.router.record import Batch, Stream


class ProcessorOptions(Options):
    """What every processor's options have in common. The `type` field of a subclass names the processor."""

    when: MatchField = Field(default=EVERYTHING, examples=[{"container": "api-*"}])
    """Only records that match; the others pass by."""


OptionsT = TypeVar("OptionsT", bound=ProcessorOptions)


class ProcessorBooks(msgspec.Struct):
    """What became of the records that a processor was given: `in = out + filtered + joined`."""

    records_in: int = 0
    records_out: int = 0
    filtered: int = 0
    """Taken out: nobody gets them from here on."""
    joined: int = 0
    """Made part of another record."""
    failed: int = 0
    """Passed through though they could not be treated."""
    added: int = 0
    """Made by it, beside what it was given; they are part of `records_in`."""


class Series(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one set of labels has come to since the start."""

    labels: dict[str, str]
    value: float
    """A counter's, or the sum of a histogram's values."""
    count: int | None = None
    """Of a histogram: how many values."""
    buckets: dict[str, int] = {}
    """Of a histogram: how many are at most each bound, as Prometheus has it."""


class Metric(msgspec.Struct, frozen=True):
    """What a processor counts for the user."""

    name: str
    kind: Literal["counter", "histogram"]
    series: list[Series]


class Processor(ABC, Generic[OptionsT]):
    """One per place in the configuration where it is named; routes that begin alike may share it.

    Records that it is given are its own, made for it where somebody else holds them too: it may change
    them (they are `DetailedRecord`s then), and their `fields`, but nothing below these.
    """

    changes: ClassVar[bool] = True
    """Whether it changes records. One that only chooses among them, or puts others in their places, is given
    those that others hold too."""
    makes: ClassVar[bool] = False
    """Where it is given plain records only, it puts its own in their places: they need not be made so before,
    and stay what they are."""
    quick: ClassVar[bool] = False
    """It looks at whole batches at once, and changes no records: so it is given them whole, and before
    routing as the source gave them (`batch.lines`, maybe not ready): most records need not be more."""
    guards: ClassVar[bool] = False
    """Nothing may go on that it has not looked at: where it raises, the texts are withheld."""
    separable: ClassVar[bool] = True
    """Whether what it does to a record depends on that record alone."""

    def __init__(self, options: OptionsT) -> None:
        self.options = options
        self.books = ProcessorBooks()
        """Kept by whoever calls it, but for `joined`, `failed` and `added`."""

    @abstractmethod
    def apply(self, batch: Batch) -> Batch | None:
        """The batch as it goes on, itself or a new one (`with_records`); None if nothing of it does.

        Its records are ready, unless it is `quick`. They stay in their order.
        """

    def metric(self) -> Metric | None:
        """What it counts for the user, as it stands now."""
        return None


class ColumnProcessor(Processor[OptionsT]):
    """A processor that treats lines of one program in columns, which takes half as long as records do."""

    makes: ClassVar[bool] = True

    @abstractmethod
    def columns(self, batch: ColumnBatch) -> Batch | None:
        """The batch as it goes on, itself or a new one (`with_columns`), with as many records.

        None where they are not alike, or not so that it pays: then nothing is changed or counted, and they
        are looked at one by one. What becomes of each is the same.

        Where nothing is known of them but their lines, messages may still end with newlines.
        """

    @abstractmethod
    def by_record(self, batch: Batch) -> Batch:
        """What `apply` does. Records of which nothing is known but their lines are not in columns here."""

    def apply(self, batch: Batch) -> Batch:
        for whole in in_columns(batch, max(1, len(batch))):
            if (made := self.columns(whole)) is not None:
                return made
        return self.by_record(batch)


class Holder(Processor[OptionsT]):
    """A processor that holds a record back until what comes behind it tells that it is whole.

    What is held is known by a `key`: who reads it, or the origin. A position behind a batch that `hold`
    returns is never behind what is held: after a crash that is read again, from its first line on. So what is
    held belongs to nobody yet, and is not counted as given before it goes on.
    """

    separable: ClassVar[bool] = False
    quiet_s: float
    """Where nothing has come for so long, nothing that comes belongs to what is held."""

    @abstractmethod
    def hold(self, batch: Batch, key: Hashable, chosen: bytes | None = None) -> Batch:
        """What goes on of what is held and of this batch, with the positions around that.

        Of `batch.settled` streams nothing stays held. `chosen` has a byte for each record: those that have 0
        there pass by, and end what is held of their stream.
        """

    @abstractmethod
    def holds(self, key: Hashable) -> bool:
        """Whether anything is held."""

    @abstractmethod
    def held(self, key: Hashable) -> Mapping[Stream, Mark]:
        """The first lines of what is held."""

    @abstractmethod
    def needed(self, key: Hashable, position: Position) -> Position:
        """Where to begin, to have again what is held and what stands behind this position."""

    @abstractmethod
    def doubt(self, key: Hashable) -> None:
        """What comes may not follow on what is held: if it is the same once more, forget the latter."""

    @abstractmethod
    def forget(self, key: Hashable, streams: frozenset[Stream]) -> None:
        """Somebody else has read, or reads again, what is held of these."""

    @property
    @abstractmethod
    def holding(self) -> bool:
        """Whether it holds anything."""

    def apply(self, batch: Batch) -> Batch | None:
        return self.hold(batch, batch.origin.key)
