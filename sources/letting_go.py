"""What the end of a source loses: files that exist only because a reader holds them, and are not read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import trio

from logroute.sources import Lost
from logroute.sources.log_file import LogFile

WITHIN_S = 5.0
"""How long the end may take to find out."""


async def say_what_the_end_loses(
    logs: Sequence[LogFile], report: Callable[[LogFile, Lost], None], threads: trio.CapacityLimiter
) -> None:
    """Report it, also when we are cancelled. To be called before these open logs are closed."""
    lost: Sequence[tuple[LogFile, Lost]] = ()
    with trio.move_on_after(WITHIN_S, shield=True):
        lost = await trio.to_thread.run_sync(partial(_let_go, logs), limiter=threads, abandon_on_cancel=True)
    for log, gap in lost:
        report(log, gap)


def _let_go(logs: Sequence[LogFile]) -> list[tuple[LogFile, Lost]]:
    """Give up what would not be found again: one gap for each reader, with what is not read. In a thread."""
    lost: list[tuple[LogFile, Lost]] = []
    for log in logs:
        for reader in (*log.forks, log):
            if not reader.held_bytes() or _is_found_again(reader):
                continue
            while reader.held_bytes():
                reader.let_go()
            parts = [each for each in reader.take_losses() if each.size_bytes]
            if parts:
                size_bytes = sum(each.size_bytes or 0 for each in parts)
                first, last = parts[0], parts[-1]
                lost.append((log, Lost(first.routes, last.reason, first.since, last.until, size_bytes)))
    return lost


def _is_found_again(reader: LogFile) -> bool:
    """Whether whoever opens the log now finds where the reader is; it may have been compressed."""
    again = LogFile(reader.path, reader.origin, limit=reader.limit)
    try:
        return again.open() and not again.resume({"": reader.position})
    except OSError:
        return False
    finally:
        again.close()
