"""Trials: records through a configuration's processors and matches, with no source, queue, sink or clock.

What a route would deliver is decided by the very chains and matches that the daemon runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from logroute.router.chain import Chains, Memo, StagePlan
from logroute.router.hints import allowed, disabled
from logroute.router.match import Match
from logroute.router.position import BEGINNING
from logroute.router.record import Batch, Origin, Record, Stream, batch_size_bytes, detailed, settling
from logroute.router.selection import Chooser

Taken = list[tuple[Origin, Record]]
"""What a route would deliver, in order."""


async def try_out(
    before: Sequence[StagePlan],
    routes: Mapping[str, tuple[Match, Sequence[StagePlan]]],
    batches: Iterable[tuple[Origin, Sequence[Record]]],
) -> dict[str, Taken]:
    """What each route would deliver of these records. Raises what a processor raises that cannot be made."""
    chains = Chains(before, routes)
    choosers = {name: Chooser(match) for name, (match, _) in routes.items()}
    taken: dict[str, Taken] = {name: [] for name in routes}

    async def give(batch: Batch) -> None:
        memo: Memo = {}
        origin = batch.origin
        batch = await chains.before.apply(batch, memo)
        wanted = allowed(origin, routes)
        for name, chooser in choosers.items():
            if wanted is not None and name not in wanted:
                continue
            chosen = chooser.batch_of(batch)
            if chain := chains.of_routes.get(name):
                chosen = await chain.apply(chosen, memo)
            taken[name] += [(origin, record) for record in chosen.lines]

    origins: dict[tuple[str, str, bytes], Origin] = {}
    times: Counter[tuple[str, Stream, str]] = Counter()
    for origin, records in batches:
        if disabled(origin):
            continue
        # One container is one origin, as for the daemon: processors remember what it said before.
        origin = origins.setdefault((origin.key, origin.source, origin.json), origin)
        records = _numbered(origin, records, times)
        size = batch_size_bytes(records, sum(len(record.message) for record in records))
        await give(
            Batch(origin, list(records), before=BEGINNING, after=BEGINNING, size_bytes=size, ready=True)
        )
    for origin in origins.values():  # and nothing more comes
        await give(settling(origin, BEGINNING, None))
    return taken


def _numbered(
    origin: Origin, records: Sequence[Record], times: Counter[tuple[str, Stream, str]]
) -> list[Record]:
    """Each record with how many of its stream had its time before, as a source numbers them."""
    numbered: list[Record] = []
    for record in records:
        time = origin.key, record.stream, record.time
        if sequence := times[time]:
            record = msgspec.structs.replace(detailed(record), sequence=sequence)
        times[time] += 1
        numbered.append(record)
    return numbered
