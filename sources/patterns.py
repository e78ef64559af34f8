"""Files that match patterns, asked of the disks in threads: one that hangs holds up no other pattern."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase

import trio

from logroute.sources.disks import PATIENCE_S


def leads_to(pattern: str, path: str) -> bool:
    """Whether a pattern would find a file at this path: as `glob` does it, without asking a disk."""
    return _leads_to(os.path.normpath(pattern).split("/"), path.split("/"))


def _leads_to(pattern: Sequence[str], path: Sequence[str]) -> bool:
    if not pattern or not path:
        return not pattern and not path
    head, *rest = pattern
    if head == "**":
        return any(_leads_to(rest, path[skipped:]) for skipped in range(len(path))) or not rest
    return fnmatchcase(path[0], head) and _leads_to(rest, path[1:])


class Patterns:
    """What matches now. On the trio thread; `on_answer()` is called when a disk that hung has answered."""

    def __init__(
        self, patterns: Sequence[str], exclude: Sequence[str], on_answer: Callable[[], None], *, wait: bool
    ) -> None:
        """With `wait` a disk is waited for as long as it takes: whoever asks needs all there is."""
        self._patterns = patterns
        self._exclude = exclude
        self._on_answer = on_answer
        self._patience_s = math.inf if wait else PATIENCE_S
        self._threads = trio.CapacityLimiter(len({*patterns, *exclude}))
        self._asked: dict[str, bool] = {}
        """Patterns whose disks have not answered yet; and whether somebody still waits for that."""
        self._asked_at: dict[str, float] = {}
        self._last: dict[str, set[str]] = {}
        """What each has matched when its disk last answered."""
        self._given: set[str] = set()
        """Of which that was told once."""
        self._late: set[str] = set()
        """Of which that came late, and was not told yet: it is not asked for again before."""

    def silent(self, for_s: float = 0.0) -> list[str]:
        """Patterns whose disks have not answered for so long: what is new there, or gone, is not seen."""
        since = trio.current_time() - for_s
        return [pattern for pattern, at in self._asked_at.items() if not self._asked[pattern] and at <= since]

    async def matching(self) -> Mapping[str, bool]:
        """The files that match, and whether all their patterns are answered for the first time.

        Of a pattern whose disk does not answer, what matched before.
        """
        async with trio.open_nursery() as nursery:
            for pattern in {*self._patterns, *self._exclude}:
                if pattern not in self._asked and pattern not in self._late:
                    nursery.start_soon(self._ask, pattern)
        self._late.clear()
        if not self._last.keys() >= {*self._exclude}:
            return {}  # nobody knows which ones are wanted
        excluded = set[str]().union(*(self._last[pattern] for pattern in self._exclude))
        found: dict[str, bool] = {}
        for pattern in self._patterns:
            for path in self._last.get(pattern, set()) - excluded:
                found[path] = found.get(path, True) and pattern not in self._given
        self._given.update(self._last)
        return dict(sorted(found.items()))

    async def _ask(self, pattern: str) -> None:
        token = trio.lowlevel.current_trio_token()
        self._asked[pattern], self._asked_at[pattern] = True, trio.current_time()

        def look() -> None:
            paths = glob.glob(pattern, recursive=True, include_hidden=True)
            files = {path for path in paths if pattern in self._exclude or os.path.isfile(path)}
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self._answered, pattern, files)

        with trio.move_on_after(self._patience_s):
            await trio.to_thread.run_sync(look, limiter=self._threads, abandon_on_cancel=True)
        if pattern in self._asked:
            self._asked[pattern] = False

    def _answered(self, pattern: str, files: set[str]) -> None:
        self._last[pattern] = files
        self._asked_at.pop(pattern, None)
        if not self._asked.pop(pattern, True):
            self._late.add(pattern)
            self._on_answer()
