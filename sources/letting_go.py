"""The end of a source: its logs are closed, and what nobody can read after that is said.

Some files exist only because a reader holds them, and are lost if they were not read to their end. To find
that out, and to close a file, the disk is asked, and one that hangs answers neither: all of it is done in
threads that may be abandoned, one for each disk. They then have the logs, and their locks, for themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import structlog
import trio

from logroute.sources import Lost, Waiting
from logroute.sources.log_file import LogFile

WITHIN_S = 5.0
"""How long the end may take to find out."""
THREADS = 16
"""So many logs are asked at a time for what only waits in memory."""


async def let_go(logs: Sequence[LogFile], report: Callable[[LogFile, Lost], None] | None) -> None:
    """Close these logs, and report what is lost thereby; without `report`, only close them.

    Also when we are cancelled. Nobody may use the logs after that: where the disk hangs, they are closed when
    it answers again.
    """
    if not logs:
        return
    lost: list[tuple[LogFile, Lost]] = []
    by_device: dict[int, list[LogFile]] = {}
    for log in logs:
        by_device.setdefault(log.device, []).append(log)
    # A limiter of its own: in the source's, threads that hang may have all places.
    run = partial(
        trio.to_thread.run_sync, abandon_on_cancel=True, limiter=trio.CapacityLimiter(len(by_device))
    )
    with trio.move_on_after(WITHIN_S, shield=True) as scope:
        async with trio.open_nursery() as nursery:
            for its in by_device.values():
                nursery.start_soon(run, partial(_let_go_of_all, its, lost, find_out=report is not None))
    if scope.cancelled_caught:
        structlog.get_logger("logroute.sources").warning(
            "logs are closed later: the disk does not answer; what is lost with them is not known",
            logs=sum(log.is_open for log in logs),
        )
    if report is not None:
        for log, gap in tuple(lost):
            report(log, gap)


def _let_go_of_all(logs: Sequence[LogFile], lost: list[tuple[LogFile, Lost]], *, find_out: bool) -> None:
    """One gap for each reader of which something is lost, as soon as it is known. In a thread."""
    for log in logs:
        with log.turn:
            try:
                readers = (*log.forks, log) if find_out else ()
                lost.extend((log, gap) for reader in readers if (gap := _let_go_of(reader)) is not None)
            except OSError as error:
                _say_unknown(log, error)
            try:
                log.close()
            except OSError as error:
                _say_unknown(log, error)


def _let_go_of(reader: LogFile) -> Lost | None:
    """Give up what would not be found again; what of it is not read. Raises OSError."""
    if not reader.held_bytes() or _is_found_again(reader):
        return None
    while reader.held_bytes():
        reader.let_go()
    parts = [each for each in reader.take_losses() if each.size_bytes]
    if not parts:
        return None
    size_bytes = sum(each.size_bytes or 0 for each in parts)
    first, last = parts[0], parts[-1]
    return Lost(first.routes, last.reason, first.since, last.until, size_bytes)


async def unfound(waiting: Sequence[tuple[LogFile, Waiting]]) -> list[Waiting]:
    """Those that are not in their logs any more, which are closed by now. Of a disk that hangs nothing is
    known, nor of a file that cannot be opened just now."""
    gone: list[Waiting] = []
    limiter = trio.CapacityLimiter(THREADS)

    async def find(log: LogFile, each: Waiting) -> None:
        if not await trio.to_thread.run_sync(_is_there, log, each, limiter=limiter, abandon_on_cancel=True):
            gone.append(each)

    with trio.move_on_after(WITHIN_S, shield=True) as scope:
        async with trio.open_nursery() as nursery:
            for log, each in waiting:
                nursery.start_soon(find, log, each)
    if scope.cancelled_caught:
        structlog.get_logger("logroute.sources").warning(
            "whether what waits can be read again is not known: the disk does not answer", logs=len(waiting)
        )
    return gone


def _is_there(log: LogFile, waiting: Waiting) -> bool:
    again = log.another()
    try:
        return again.open() and again.has(waiting.began)
    except OSError:
        return True
    finally:
        again.close()


def _say_unknown(log: LogFile, error: OSError) -> None:
    structlog.get_logger("logroute.sources").warning(
        "cannot find out what is lost with a log", path=log.path, error=error.strerror
    )


def _is_found_again(reader: LogFile) -> bool:
    again = reader.another()
    try:
        return again.open() and not again.resume({"": reader.position})
    except OSError:
        return False
    finally:
        again.close()
