"""What processors hold of logs until it is whole, and when nothing can come any more that belongs to it.

Before routing it is known by who has read it, in a route by the origin. Here is which readers something is
held of, so that a source can say of a stream that has been quiet for long that it has ended there; and what
becomes of it where readers follow on one another.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import msgspec
import trio

from logroute.router.chain import Chains
from logroute.router.position import Position
from logroute.router.record import ALL_STREAMS, NO_STREAMS, STREAMS, Batch, Origin, Reader, Stream, settling


class _Log(msgspec.Struct):
    """Of what a reader has read something is held."""

    last: Batch
    """What it has read last, without its records."""
    at: dict[Stream, float]
    """When the last records of each stream came, on trio's clock; without those that have been asked for."""


Key = Reader | str
"""Who reads a log; its origin's key, where nobody can read it again."""


class HeldLogs:
    """On the trio thread."""

    def __init__(self, chains: Callable[[], Chains]) -> None:
        self._chains = chains
        """Those that there are now."""
        self._logs = defaultdict[str, dict[Key, _Log]](dict)
        """By source."""
        self._quiet_from: dict[str, float] = {}
        """By source, before which time nothing of its logs can be quiet."""

    # --- what comes -----------------------------------------------------------------------------------

    def following(self, batches: Sequence[Batch]) -> tuple[Sequence[Batch], list[int]]:
        """These batches, and others before those of which other routes have some than of what came before.

        There a checkpoint is, in the midst of no record: what was held of these streams before routing has
        ended. Also the places of these others.
        """
        logs = self._logs.get(batches[0].origin.source, {}) if batches else {}
        if not logs and not any(batch.acknowledged for batch in batches):
            return batches, []
        following: list[Batch] = []
        cuts: list[int] = []
        last: dict[Key, Batch] = {}
        for batch in batches:
            key = batch.reader or batch.origin.key
            before = last.get(key) or (logs[key].last if key in logs else None)
            last[key] = batch
            if before is not None and batch.reader is not None:
                if before.reached is not batch.before and before.reached != batch.before:
                    self._chains().doubt(batch.reader)
                elif before.acknowledged != batch.acknowledged and (
                    streams := _acknowledged_otherwise(before.acknowledged or {}, batch.acknowledged or {})
                ):
                    ended = settling(batch.origin, batch.before, batch.reader, streams)
                    ended.acknowledged = before.acknowledged
                    cuts.append(len(following))
                    following.append(ended)
            following.append(batch)
        return following, cuts

    def note(self, batches: Sequence[Batch], made: Sequence[Batch]) -> None:
        """These have come, and gone as what was made of them before routing into the routes."""
        chains = self._chains()
        if not chains.holding and not any(self._logs.values()):
            return
        now = trio.current_time()
        for batch, processed in zip(batches, made, strict=True):
            source = batch.origin.source
            logs, key = self._logs[source], batch.reader or batch.origin.key
            log = logs.get(key)
            if (log is None and not len(batch)) or not chains.holds(batch):
                logs.pop(key, None)
                continue
            if log is None:
                log = logs[key] = _Log(batch, {})
                self._quiet_from.setdefault(source, now + chains.quiet_s)
            log.last = _bare(batch)
            log.at.update(dict.fromkeys(batch.streams, now))
            for stream in processed.settled:
                log.at.pop(stream, None)
            if not log.at:  # what is held yet is a route's that is read for apart
                del logs[key]

    # --- what has been quiet --------------------------------------------------------------------------

    def holds(self, origin: Origin) -> bool:
        """Whether something of an origin is held: that comes yet."""
        logs = self._logs.get(origin.source, {})
        return self._chains().holds_of(origin) or any(
            log.last.origin.key == origin.key for log in logs.values()
        )

    def settle_at(self, source: str) -> float:
        return self._quiet_from.get(source, math.inf)

    def quiet(self, source: str) -> list[Batch]:
        logs, chains = self._logs.get(source), self._chains()
        self._quiet_from.pop(source, None)
        if not logs:
            return []
        quiet_since = trio.current_time() - chains.quiet_s
        found: list[Batch] = []
        first = math.inf
        for log in logs.values():
            first = min(first, *log.at.values())
            streams = frozenset(stream for stream, at in log.at.items() if at <= quiet_since)
            reader = log.last.reader
            if streams and (reader is None or reader.routes is None):
                here: Position = log.last.after
                if reader is not None and not chains.held(reader):
                    here = reader.position  # it may begin elsewhere, and what routes hold is not read again
                found.append(settling(log.last.origin, here, reader, streams))
        self._quiet_from[source] = first + chains.quiet_s
        return found

    def unread_again(self) -> list[Batch]:
        """The same, of all logs that nobody reads again: their sources know nothing of it."""
        now = trio.current_time()
        sources = [source for source in self._logs if self.settle_at(source) <= now]
        return [batch for source in sources for batch in self.quiet(source) if batch.reader is None]

    # --- readers --------------------------------------------------------------------------------------

    def needed(self, reader: Reader) -> Position:
        position = reader.position
        for holder in self._chains().before.holders:
            position = holder.needed(reader, position)
        return position

    def takes_over(self, reader: Reader, origin: Origin) -> None:
        """It reads this log live from now on: of what was read before routes may hold something."""
        chains = self._chains()
        if reader not in self._logs.get(origin.source, {}) and chains.holds_of(origin):
            now = trio.current_time()
            self._logs[origin.source][reader] = _Log(
                settling(origin, reader.position, reader), dict.fromkeys(STREAMS, now)
            )
            self._quiet_from.setdefault(origin.source, now + chains.quiet_s)

    def closed(self, reader: Reader, origin: Origin) -> None:
        if (logs := self._logs.get(origin.source)) is not None:
            logs.pop(reader, None)
        self._chains().forget(reader, ALL_STREAMS)

    def settle(self, reader: Reader, ahead: Reader, origin: Origin) -> list[Batch]:
        chains = self._chains()
        mine, others = chains.held(reader), chains.held(ahead)
        if mine == others:
            self.closed(reader, origin)
            if ahead.routes is None:
                self.takes_over(ahead, origin)
            return []
        # They began at different lines, or one of them has let go: here is an end for both.
        differ = {key[1] for key in {*mine, *others} if mine.get(key) != others.get(key)}
        return [
            settling(origin, self._reached(each, origin), each, frozenset(differ)) for each in (reader, ahead)
        ]

    def forget(self, origin: Origin) -> None:
        """It is read by others from now on, from the checkpoints, or not at all."""
        if logs := self._logs.get(origin.source):
            for key in [key for key, log in logs.items() if log.last.origin.key == origin.key]:
                del logs[key]

    def _reached(self, reader: Reader, origin: Origin) -> Position:
        log = self._logs.get(origin.source, {}).get(reader)
        return log.last.after if log is not None else reader.position


def _bare(batch: Batch) -> Batch:
    """What is to be known of a batch, without its records."""
    bare = settling(batch.origin, batch.reached, batch.reader)
    bare.acknowledged = batch.acknowledged
    return bare


def _acknowledged_otherwise(
    before: Mapping[str, frozenset[Stream]], now: Mapping[str, frozenset[Stream]]
) -> frozenset[Stream]:
    """The streams of which other routes have what comes than had what came before."""
    return frozenset().union(
        *(before.get(route, NO_STREAMS) ^ now.get(route, NO_STREAMS) for route in {*before, *now})
    )
