"""Which records of a batch a match takes, by conditions on the records themselves.

Each condition is worked out for a whole batch at once, and is a number with a byte for each record: 1 where
it holds. So `and`, `or` and `not` are each one operation for a batch. What all routes look for in messages is
searched for in one pass, when the first asks (`Look`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import msgspec

from logroute.router.column_batch import ColumnBatch
from logroute.router.record import STREAMS, Batch, Origin, Record, Stream
from logroute.router.regex import Regex, RegexSet

FIELDS = "fields."
FEW = 4
"""Where no more than every fourth record is taken, the others need not be made ready."""


def mask_of(holds: Iterable[Any]) -> int:
    """A mask with what each record answers: 0 or 1, or False or True."""
    return int.from_bytes(bytes(holds), "little")


def ones(count: int) -> int:
    """The mask of all of so many records."""
    return int.from_bytes(b"\1" * count, "little")


class Selecting(Protocol):
    """A tree of conditions."""

    def mask(self, look: Look) -> int: ...

    def regexes(self) -> Iterator[Regex]:
        """What is looked for in messages."""


class Look:
    """A batch as conditions see it. Everything is worked out once, however many routes ask."""

    def __init__(self, batch: Batch, regexes: RegexSet | None) -> None:
        self.origin: Origin = batch.origin
        self._batch = batch
        self._regexes = regexes
        self._messages: Sequence[str] | None = None
        self._found: dict[Regex, bytearray] | None = None
        self._masks: dict[Selector, int] = {}
        self._parts: dict[Selector, Batch] = {}

    def __len__(self) -> int:
        return len(self._batch)

    @property
    def streams(self) -> Sequence[Stream]:
        return self._batch.streams

    @property
    def levels(self) -> Sequence[str | None]:
        return self._batch.levels

    @property
    def records(self) -> Sequence[Record]:
        """The records, ready."""
        return self._batch.records

    def values(self, path: str, get: Callable[[Origin, Record], Any]) -> Sequence[Any]:
        """What each record has at a path; None where it has nothing. `get` asks one of them for it."""
        if path.startswith(FIELDS) and isinstance(self._batch, ColumnBatch):
            known = self._batch.field(path.removeprefix(FIELDS))
            if known is not None:
                return known
        origin = self.origin
        return [get(origin, record) for record in self.records]

    @property
    def messages(self) -> Sequence[str]:
        """Without the newlines that end them."""
        if self._messages is None:
            messages = self._batch.messages
            self._messages = [message[:-1] for message in messages] if self._batch.newlines else messages
        return self._messages

    def found(self, regex: Regex) -> int:
        """In which messages it is found."""
        if self._found is None:
            assert self._regexes is not None
            batch = self._batch
            messages = batch.messages if batch.newlines else self.messages
            self._found = self._regexes.masks(messages, newlines=batch.newlines)
        return int.from_bytes(self._found[regex], "little")

    def taken_by(self, selector: Selector) -> int:
        """The mask of the records that it takes."""
        mask = self._masks.get(selector)
        if mask is None:
            mask = self._masks[selector] = selector.root.mask(self)
        return mask

    def of_streams(self, streams: frozenset[Stream]) -> int:
        """The mask of the records of these."""
        if len(streams) == len(STREAMS):
            return ones(len(self))
        return mask_of(map(streams.__contains__, self.streams))

    def batch_of(self, selector: Selector) -> Batch:
        """The batch with the records that it takes only; itself where that is all of them."""
        part = self._parts.get(selector)
        if part is None:
            part = self._parts[selector] = self.cut(self.taken_by(selector))
        return part

    def cut(self, mask: int) -> Batch:
        """The batch with the records of a mask only; likewise."""
        batch, count = self._batch, mask.bit_count()
        if count == len(batch):
            return batch
        if not count:
            return batch.with_records([], 0)
        taken = mask.to_bytes(len(batch), "little")
        if isinstance(batch, ColumnBatch) and (chosen := batch.chosen(taken)) is not None:
            return chosen
        kept: list[Record] | None = None
        if batch.newlines and count * FEW <= len(batch):
            kept = batch.made_ready(list(compress(range(len(batch)), taken)))
        if kept is None:
            kept = list(compress(batch.records, taken))
        return batch.with_records(kept, batch.size_bytes * count // len(batch))


class Selector(msgspec.Struct, frozen=True):
    """Takes records of one origin, or of several of which it is known that they differ in nothing else."""

    root: Any  # Selecting, which is hashable

    def regexes(self) -> Iterator[Regex]:
        root: Selecting = self.root
        return root.regexes()


class Matching(Protocol):
    """A match: see `router.match`."""

    def decide(self, origin: Origin) -> frozenset[Stream]: ...

    def selector(self, origin: Origin) -> Selector | None: ...


class Chooser:
    """Applies one match to batches, outside of the router: what it decides of an origin it decides once."""

    def __init__(self, match: Matching) -> None:
        self._match = match
        self._known: WeakKeyDictionary[Origin, tuple[frozenset[Stream], Selector | None]] = (
            WeakKeyDictionary()
        )
        self._regexes: dict[Selector, RegexSet] = {}

    def takes(self, origin: Origin) -> bool:
        """Whether it may take anything of it."""
        return bool(self._decided(origin)[0])

    def mask(self, batch: Batch) -> int | None:
        """The mask of the records that it takes; None for all."""
        streams, selector = self._decided(batch.origin)
        if selector is None:
            return None if len(streams) == len(STREAMS) else Look(batch, None).of_streams(streams)
        look = Look(batch, self._regexes_of(selector))
        mask = look.taken_by(selector)
        return mask if len(streams) == len(STREAMS) else mask & look.of_streams(streams)

    def batch_of(self, batch: Batch) -> Batch:
        """The batch with the records that it takes only; itself where that is all of them."""
        mask = self.mask(batch)
        return batch if mask is None else Look(batch, None).cut(mask)

    def _decided(self, origin: Origin) -> tuple[frozenset[Stream], Selector | None]:
        known = self._known.get(origin)
        if known is None:
            known = self._known[origin] = self._match.decide(origin), self._match.selector(origin)
        return known

    def _regexes_of(self, selector: Selector) -> RegexSet:
        # What is looked for is the same for all origins of which the same is left to be decided.
        regexes = self._regexes.get(selector)
        if regexes is None:
            regexes = self._regexes[selector] = RegexSet(selector.regexes())
        return regexes
