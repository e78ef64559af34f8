"""What the end of the daemon loses: files that exist only because a reader holds them, and are not read.

For a worker thread.
"""

from __future__ import annotations

from collections.abc import Iterable

from logroute.sources.log_file import LogFile
from logroute.sources.losses import Lost


def let_go(logs: Iterable[LogFile]) -> list[tuple[LogFile, Lost]]:
    """Give up what would not be found again: one gap for each reader of a log, with what is not read."""
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
