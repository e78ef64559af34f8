"""Chains: the processors that a batch passes, in order, before it is routed or on the way into one route.

A chain decides once per container which of its stages there are for it, gives a processor records that are
its own to change, counts what goes in and comes out, and gives way to others between pieces of long work.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from itertools import compress
from typing import Any

import msgspec
import structlog
import trio

from logroute.processors import ColumnProcessor, Holder, Processor, ProcessorBooks
from logroute.router.column_batch import ColumnBatch, in_columns, joined
from logroute.router.match import Match
from logroute.router.position import Mark
from logroute.router.record import (
    Batch,
    Origin,
    Reader,
    Record,
    Stream,
    all_plain,
    detailed,
    owned_records,
    settling,
)
from logroute.router.selection import Chooser, Matching
from logroute.router.visible import visible
from logroute.router.watch import Watch

PIECE = 500
"""So many records of a batch are processed at a time. With more, what is made by the way leaves the cache."""
GIVE_WAY_S = 0.005
"""After so much work others get their turn."""
SAY_AGAIN_S = 60.0
WITHHELD = "withheld: the processor that looks for what must not leave has failed, see the log"
"""The text of records that it would have looked at."""

Memo = dict[tuple[int, int], tuple[Batch, Batch]]
"""What stages have made of batches in one sweep, by their ids; and what they were given, so that it stays."""


class StagePlan(msgspec.Struct, frozen=True):
    """A processor as configured, and how it is made."""

    name: str
    """In the books: the place in the configuration and the type."""
    match: Matching
    make: Callable[[], Processor[Any]]
    key: str
    """Type and options as text: of two that are alike one is enough."""
    separable: bool = True
    """See `Processor`."""


class Stage:
    """One processor at its place."""

    def __init__(self, plan: StagePlan, watch: Watch | None = None) -> None:
        self.plan = plan
        self.raised = ""
        """What the processor has raised last, which is a mistake of its own."""
        self._watch = watch or Watch()
        self.processor = plan.make()
        self.holder = self.processor if isinstance(self.processor, Holder) else None
        """Itself, if it holds records back."""
        self.by_columns = self.processor if isinstance(self.processor, ColumnProcessor) else None
        """Itself, if it treats records in columns where it can."""
        self._apply = self.by_columns.by_record if self.by_columns is not None else self.processor.apply
        self._chooser = Chooser(plan.match)
        self._said_at = -SAY_AGAIN_S

    @property
    def books(self) -> ProcessorBooks:
        return self.processor.books

    def takes(self, origin: Origin) -> bool:
        """Whether there is anything of it for it."""
        return self._chooser.takes(origin)

    def chosen(self, batch: Batch) -> int | None:
        """The mask of the records that are for it; None if all are."""
        return self._chooser.mask(batch)

    def columns(self, batch: ColumnBatch) -> Batch | None:
        """Have the processor treat all of it in columns, and count; None if it wants records."""
        assert self.by_columns is not None
        try:
            with self._watch.running(self.plan.name):
                made = self.by_columns.columns(batch)
        except BaseException as error:
            self._take(error)
            return None
        if made is not None:
            self.books.records_in += len(batch)
            self.books.records_out += len(made)
        return made

    def process(self, batch: Batch) -> Batch:
        """Have the processor treat all records, and count. Where nothing is left the position still is."""
        books, given, joined, added = self.books, len(batch), self.books.joined, self.books.added
        try:
            with self._watch.running(self.plan.name):
                result = self._apply(batch)
        except BaseException as error:  # a stranger's may raise anything: Rust's panics are no Exception
            self._take(error)
            books.failed += given
            result = _withheld(batch) if self.processor.guards else batch
        made = result if result is not None else batch.with_records([], 0)
        out = len(made)
        gone = books.joined - joined
        given += books.added - added
        books.records_in += max(given, out + gone)  # what it adds counts as given
        books.records_out += out
        books.filtered += max(0, given - out - gone)
        return made

    def hold(self, batch: Batch, key: Hashable, mask: int | None) -> Batch:
        """Have the processor hold back what it will, of what a mask names; and count what goes on."""
        assert self.holder is not None
        books, joined, count = self.books, self.books.joined, len(batch)
        chosen = None if mask is None else mask.to_bytes(count, "little")
        try:
            with self._watch.running(self.plan.name):
                made = self.holder.hold(batch, key, chosen)
        except BaseException as error:
            self._take(error)
            books.failed += count
            return batch
        out = len(made) - (chosen.count(0) if chosen is not None else 0)
        books.records_in += out + books.joined - joined
        books.records_out += out
        return made

    def _take(self, error: BaseException) -> None:
        """Say what it has raised; raise again what it has not.

        It awaits nothing, so that nobody cancels or closes it in its midst. Only ctrl-C may raise there,
        where that is not received as a signal.
        """
        if isinstance(error, KeyboardInterrupt) and not self._watch.receives_interrupts:
            raise error
        self.raised = type(error).__name__
        now = trio.current_time()
        if now - self._said_at >= SAY_AGAIN_S:
            self._said_at = now
            structlog.get_logger("logroute.router").error(
                "a processor has failed: what its records say is withheld"
                if self.processor.guards
                else "a processor has failed: the records go on as they were",
                processor=self.plan.name,
                error=traceback.format_exception_only(error)[-1].strip(),
                # Whatever the log's level: who has written it needs the line. It may quote a container.
                exception=visible("".join(traceback.format_exception(error))),
            )


def _withheld(batch: Batch) -> Batch:
    """The same records, without what they say."""
    records: list[Record] = [
        msgspec.structs.replace(detailed(record), message=WITHHELD, fields=None, error=WITHHELD)
        for record in batch.records
    ]
    return batch.with_records(records)


class Chain:
    """Stages in order. The same for all routes, or those of one."""

    def __init__(
        self, stages: Sequence[Stage], shared: Collection[Stage] = (), *, owns: bool = False
    ) -> None:
        self.stages = stages
        self._shared = frozenset(shared)
        """Those that other chains have as well."""
        self._owns = owns
        """Nobody else holds what it is given. Its processors see who has read it: of several routes' records
        some may come twice, from the live reader and from one that reads for those that are behind."""
        self.retired: list[Stage] = []
        """Stages that were here before a reload, and hold something yet: that goes before all else."""

    def __bool__(self) -> bool:
        return bool(self.stages or self.retired)

    @property
    def holders(self) -> list[Holder[Any]]:
        return [stage.holder for stage in (*self.retired, *self.stages) if stage.holder is not None]

    def _key(self, batch: Batch) -> Hashable:
        """By which a holder knows what it holds of a log: each reader is somewhere else."""
        return batch.reader if self._owns and batch.reader is not None else batch.origin.key

    async def apply(self, batch: Batch, memo: Memo) -> Batch:
        """What is left of a batch behind the last stage; its positions stay what they were."""
        owned = self._owns
        if self.retired:
            batch = self._with_retired(batch)
        for stage in self.stages:
            if stage.holder is not None:
                batch = self._held(stage, batch)
                continue
            if not len(batch) or not stage.takes(batch.origin):
                continue
            shared = stage in self._shared
            known = memo.get((id(stage), id(batch))) if shared else None
            mask = stage.chosen(batch) if known is None else None
            if known is None:
                made = await self._stage(stage, batch, mask, owned=owned)
                if shared:
                    memo[id(stage), id(batch)] = batch, made
            else:
                made = known[1]
            if made is not batch:  # records that were not chosen are whose they were
                owned = (owned or (stage.processor.changes and mask is None)) and not shared
            if self._owns:
                made.reader = batch.reader
            batch = made
        return batch

    def _held(self, stage: Stage, batch: Batch) -> Batch:
        """What goes on of a batch behind a stage that holds records back; also one without records counts."""
        if not stage.takes(batch.origin):
            return batch
        chosen = stage.chosen(batch) if len(batch) else None
        if not self._owns and batch.newlines:
            _ = batch.records  # others have the same lines, and make them ready where they are
        made = stage.hold(batch, self._key(batch), chosen)
        if self._owns:
            made.reader = batch.reader
        return made

    def _with_retired(self, batch: Batch) -> Batch:
        """The batch behind what stages hold of it that are no more."""
        key = self._key(batch)
        for stage in self.retired:
            assert stage.holder is not None
            if not stage.holder.holds(key):
                continue
            left = stage.hold(settling(batch.origin, batch.before, batch.reader), key, None)
            made = batch.with_records([*left.lines, *batch.records], left.size_bytes + batch.size_bytes)
            made.before, made.reader = left.before, batch.reader
            batch = made
        self.retired = [stage for stage in self.retired if stage.holder and stage.holder.holding]
        return batch

    async def _stage(self, stage: Stage, batch: Batch, mask: int | None, *, owned: bool) -> Batch:
        if self._owns and mask is None and stage.processor.quick:
            return stage.process(batch)
        if mask is None and stage.by_columns is not None:
            in_whole = await self._columns(stage, batch)
            if in_whole is not None:
                return in_whole
        records = batch.records
        chosen = records if mask is None else list(compress(records, mask.to_bytes(len(records), "little")))
        if not chosen:
            return batch
        if stage.processor.changes and not (stage.processor.makes and all_plain(chosen)):
            chosen = owned_records(chosen, copied=not owned)
        size = batch.size_bytes * len(chosen) // len(records)
        given = batch.with_records(chosen, size)
        if self._owns:
            given.reader = batch.reader
        in_pieces = stage.processor.separable and not stage.processor.quick
        made = await self._columns(stage, given) if mask is not None and stage.by_columns else None
        if made is None:
            made = await self._in_pieces(stage, given) if in_pieces else stage.process(given)
        if mask is None:
            return made
        merged = _merged(records, mask.to_bytes(len(records), "little"), chosen, made.lines)
        together = batch.with_records(merged, batch.size_bytes - size + made.size_bytes)
        together.reached = made.reached
        return together

    @staticmethod
    async def _columns(stage: Stage, batch: Batch) -> Batch | None:
        """What a stage makes of a batch in columns; None where that is nothing for its first piece."""
        pieces: list[Batch] = []
        began = time.perf_counter()
        for piece in in_columns(batch, PIECE):
            made = stage.columns(piece)
            if made is None:
                if not pieces:
                    return None
                made = stage.process(piece.with_records(piece.records))
            pieces.append(made)
            if time.perf_counter() - began > GIVE_WAY_S:
                await trio.lowlevel.checkpoint()
                began = time.perf_counter()
        return joined(batch, pieces) if pieces else None

    @staticmethod
    async def _in_pieces(stage: Stage, batch: Batch) -> Batch:
        if len(batch) <= PIECE:
            return stage.process(batch)
        records, lines, size = batch.lines, list[Record](), 0
        began = time.perf_counter()
        for start in range(0, len(records), PIECE):
            piece = records[start : start + PIECE]
            made = stage.process(batch.with_records(piece, batch.size_bytes * len(piece) // len(records)))
            lines += made.lines
            size += made.size_bytes
            if time.perf_counter() - began > GIVE_WAY_S:
                await trio.lowlevel.checkpoint()
                began = time.perf_counter()
        return batch.with_records(lines, size)


def _merged(
    records: Sequence[Record], mask: bytes, chosen: Sequence[Record], made: Sequence[Record]
) -> list[Record]:
    """The records that were not chosen, and what was made of the others, in order.

    What was made of one stands in its place; what is new stands behind the one before it.
    """
    if len(made) == len(chosen):
        left = iter(made)
        return [next(left) if taken else record for record, taken in zip(records, mask, strict=True)]
    place = {id(record): index for index, record in enumerate(chosen)}
    groups: list[list[Record]] = [[] for _ in chosen]
    index = 0
    for record in made:
        index = place.get(id(record), index)
        groups[index].append(record)
    left_groups = iter(groups)
    merged: list[Record] = []
    for record, taken in zip(records, mask, strict=True):
        merged += next(left_groups) if taken else [record]
    return merged


class Chains:
    """All chains of a daemon. Routes that take the same, and begin with the same processors, share these."""

    def __init__(
        self,
        before: Sequence[StagePlan] = (),
        routes: Mapping[str, tuple[Match, Sequence[StagePlan]]] | None = None,
        old: Chains | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Stages that `old` has as well are taken over, with what they know and their books.

        Raises what a processor raises that cannot be made.
        """
        self._stages: dict[Hashable, Stage] = {}
        self._watch = watch
        self._old = old._stages if old is not None else {}
        self.before = Chain(self._line((), before), owns=True)
        """What every batch passes before it is routed."""
        self._names = frozenset(routes or ())
        lines = {name: self._line((name, match), plans) for name, (match, plans) in (routes or {}).items()}
        uses = Counter(stage for line in lines.values() for stage in line)
        shared = [stage for stage, count in uses.items() if count > 1]
        self.of_routes = {name: Chain(line, shared) for name, line in lines.items() if line}
        self._old = {}
        self._note_holders()

    def _note_holders(self) -> None:
        self._holders = [
            holder for chain in (self.before, *self.of_routes.values()) for holder in chain.holders
        ]
        self.quiet_s = max((holder.quiet_s for holder in self._holders), default=0.0)
        """Where nothing has come of a log for so long, nothing that comes belongs to what is held of it."""

    def succeed(self, old: Chains) -> None:
        """Take the old ones' place: what those hold, in stages that are not here, goes on first."""
        here = set(self._stages.values())
        for name, chain in [("", old.before), *old.of_routes.items()]:
            left = [
                stage
                for stage in (*chain.retired, *chain.stages)
                if stage.holder is not None and stage.holder.holding and stage not in here
            ]
            if not left:
                continue
            if chain is old.before:
                self.before.retired = left
            elif name in self._names:
                self.of_routes.setdefault(name, Chain(())).retired = left
        self._note_holders()

    @property
    def holding(self) -> bool:
        """Whether anything is held."""
        return any(holder.holding for holder in self._holders)

    def holds(self, batch: Batch) -> bool:
        """Whether anything is held of its log: of what its reader has read, or of its origin."""
        reader, key = batch.reader, batch.origin.key
        return any(
            holder.holds(key) or (reader is not None and holder.holds(reader)) for holder in self._holders
        )

    def holds_of(self, origin: Origin) -> bool:
        """Whether routes hold something of it."""
        return any(holder.holds(origin.key) for holder in self._holders)

    def held(self, reader: Reader) -> dict[tuple[int, Stream], Mark]:
        """The first lines of what is held, before routing, of what a reader has read: by stage and stream."""
        return {
            (number, stream): mark
            for number, holder in enumerate(self.before.holders)
            for stream, mark in holder.held(reader).items()
        }

    def forget(self, reader: Reader, streams: frozenset[Stream]) -> None:
        """The reader reads no more: others have read, or read again, what is held of it."""
        for holder in self.before.holders:
            holder.forget(reader, streams)

    def doubt(self, reader: Reader) -> None:
        """What the reader reads next may not follow on what it has read last."""
        for holder in self.before.holders:
            holder.doubt(reader)

    def _line(self, of: tuple[Hashable, ...], plans: Iterable[StagePlan]) -> list[Stage]:
        """Stages that begin with the same matches and options are the same."""
        line: list[Stage] = []
        key, separable = of, True
        for plan in plans:
            key = (*key, plan.key)
            separable = separable and plan.separable
            # One that remembers what it was given is its route's own, and so is what comes behind it.
            found = key[1:] if of and separable else key
            stage = self._stages.get(found) or self._old.get(found) or Stage(plan, self._watch)
            self._stages[found] = stage
            line.append(stage)
        return line

    @property
    def stages(self) -> list[Stage]:
        """Each once, in the order of the configuration."""
        return list(self._stages.values())
