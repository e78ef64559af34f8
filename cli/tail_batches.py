"""What `logroute tail` does with batches before they are shown: choosing, context, the order of time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import trio

from logroute.router.record import Batch, Origin, Record
from logroute.router.selection import Chooser

NEARLY_S = 1e-6
"""Sums of seconds are not exact."""


class Context:
    """Records that are chosen, with those around them, as grep has them: of each container its own.

    They are shown as they came: what is chosen by what a line says looks the same as without choosing.
    """

    def __init__(
        self,
        chosen: Chooser | None,
        before: int,
        after: int,
        *,
        parsed: Chooser | None = None,
        parse: Callable[[Batch], Batch] = lambda batch: batch,
    ) -> None:
        """`parsed` chooses too, by what `parse` makes of records."""
        self._chosen = chosen
        self._parsed = parsed
        self._parse = parse
        self._before = before
        self._after = after
        self._held: dict[str, deque[Record]] = {}
        self._wanted: dict[str, int] = {}

    def of(self, batches: Sequence[Batch]) -> list[Batch]:
        return [made for batch in batches if (made := self._of(batch)).lines]

    def _mask(self, batch: Batch) -> int | None:
        """Of the records that are chosen; None: all are."""
        mask = self._chosen.mask(batch) if self._chosen is not None else None
        if self._parsed is None or mask == 0:
            return mask
        found = self._parsed.mask(self._parse(batch))
        return mask if found is None else found if mask is None else mask & found

    def _of(self, batch: Batch) -> Batch:
        mask = self._mask(batch)
        records = batch.records
        if mask is None:
            return batch
        key = batch.origin.key
        held = self._held.setdefault(key, deque(maxlen=self._before))
        wanted = self._wanted.get(key, 0)
        shown: list[Record] = []
        for record, taken in zip(records, mask.to_bytes(len(records), "little"), strict=True):
            if taken:
                shown += held
                held.clear()
                shown.append(record)
                wanted = self._after
            elif wanted:
                shown.append(record)
                wanted -= 1
            elif self._before:
                held.append(record)
        self._wanted[key] = wanted
        return batch.with_records(shown)


class Order:
    """Merges what comes within a window by the records' times: nothing is shown before the window is over."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._held: deque[tuple[float, list[Batch]]] = deque()
        self.came = trio.Event()

    def put(self, batches: list[Batch]) -> None:
        if batches:
            self._held.append((trio.current_time(), batches))
            self.came.set()

    def take(self, *, all: bool = False) -> list[Batch]:
        """What has waited long enough, in order; and what came later and is older than that."""
        now = trio.current_time()
        ripe = [batches for at, batches in self._held if all or now >= at + self.window_s - NEARLY_S]
        if not ripe:
            return []
        until = "~" if all else max(record.time for group in ripe for b in group for record in b.records)
        waiting = [(at, batch) for at, batches in self._held for batch in batches]
        self._held.clear()
        taken: list[tuple[str, int, Origin, Record, Batch]] = []
        for at, batch in waiting:
            rest: list[Record] = []
            for record in batch.records:
                if record.time <= until:
                    taken.append((record.time, len(taken), batch.origin, record, batch))
                else:
                    rest.append(record)
            if rest:
                self._held.append((at, [batch.with_records(rest)]))
        taken.sort(key=lambda each: each[:2])
        return _runs(taken)

    def next_s(self) -> float | None:
        """How long until something is ripe; None: nothing waits."""
        if not self._held:
            return None
        return max(0.0, self._held[0][0] + self.window_s - trio.current_time())


def _runs(taken: Sequence[tuple[str, int, Origin, Record, Batch]]) -> list[Batch]:
    made: list[Batch] = []
    run: list[Record] = []
    for index, (_, _, origin, record, batch) in enumerate(taken):
        run.append(record)
        if index + 1 == len(taken) or taken[index + 1][2] is not origin:
            made.append(batch.with_records(run))
            run = []
    return made
