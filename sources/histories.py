"""Logs read again from anywhere, for those who look: as files, or by the engine's API.

Beside whatever else reads them, with descriptors and connections of their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from logroute.router.position import BEGINNING, Position
from logroute.router.record import Batch, Origin, Record, batch_size_bytes
from logroute.sources.engine import Engine, EngineError
from logroute.sources.engine_answers import time_ns
from logroute.sources.frames import log_decoder

if TYPE_CHECKING:
    from logroute.sources import Past
    from logroute.sources.log_file import LogFile
    from logroute.sources.log_formats import Fetched

ENGINE_PIECE_BYTES = 256 << 10
FETCH_WITHIN_S = 10.0
"""A disk that does not answer ends the reading of what is on it, for the one who looks."""

Take = Callable[[Batch], Awaitable[None]]
T = TypeVar("T")


class FileHistory:
    """A log that is read as a file."""

    def __init__(self, log: LogFile, threads: trio.CapacityLimiter, *, running: bool = True) -> None:
        """`log` is only asked for another reader of the same."""
        self.origin = log.origin
        self.running = running
        self._log = log
        self._threads = threads

    async def read(self, past: Past, take: Take) -> None:
        log = self._log.another()
        try:
            buffer = bytearray(past.piece_bytes)
            fetched = await self._hop(partial(self._begin, log, past, buffer))
            if fetched is None:
                past.problems.append((self.origin, "its log is not there"))
                return
            while True:
                for batch in log.parse(fetched.chunks):
                    batch.reader = None
                    if past.until and (cut := _until(batch, past.until)) is not batch:
                        await take(cut)
                        return
                    await take(batch)
                if not fetched.more:
                    return
                fetched = await self._hop(partial(log.fetch, buffer, len(buffer)))
        except OSError as error:
            past.problems.append((self.origin, error.strerror or str(error)))
        except trio.TooSlowError:
            past.problems.append((self.origin, "its disk does not answer"))
        finally:
            log.close()

    @staticmethod
    def _begin(log: LogFile, past: Past, buffer: bytearray) -> Fetched | None:
        """Open it, go to where reading begins, and read; None if it is not there. In a worker thread."""
        if not log.open():
            return None
        log.stop_at = log.end_spot()
        begin = BEGINNING
        if (read := past.behind.get(log.origin.key)) is not None:
            begin = read.position
        elif past.last is not None:
            begin = log.before_last(past.last)
        if past.since and begin == BEGINNING:
            begin = Position(since=past.since)
        log.resume({"": begin})
        return log.fetch(buffer, len(buffer))

    async def _hop(self, work: Callable[[], T]) -> T:
        with trio.fail_after(FETCH_WITHIN_S):
            return await trio.to_thread.run_sync(work, limiter=self._threads, abandon_on_cancel=True)


class EngineHistory:
    """A log that is read by API."""

    def __init__(
        self, engine: Engine, id_: str, origin: Origin, *, tty: bool, limit: int, running: bool
    ) -> None:
        self.origin = origin
        self.running = running
        self._engine = engine
        self._id = id_
        self._tty = tty
        self._limit = limit

    async def read(self, past: Past, take: Take) -> None:
        decoder = log_decoder(tty=self._tty, limit=self._limit)
        since, last = past.since, past.last
        behind = None
        if (read := past.behind.get(self.origin.key)) is not None:
            last = None
            if read.last.time:
                behind, since = _Behind(read.last), read.last.time
        since_ns = time_ns(since) if since else 0
        before: Position = BEGINNING
        try:
            async with self._engine.logs(self._id, follow=False, since_ns=since_ns, tail=last) as stream:
                while True:
                    data = await stream.receive(min(past.piece_bytes, ENGINE_PIECE_BYTES))
                    records = decoder.feed(data) if data else decoder.finish()
                    if behind is not None:
                        records = behind.of(records)
                    elif since:  # some engines filter only up to the first one
                        records = [record for record in records if record.time >= since]
                    batch = self._batch(records, len(data), before)
                    if past.until and (cut := _until(batch, past.until)) is not batch:
                        await take(cut)
                        return
                    await take(batch)
                    if not data:
                        break
            if decoder.error is not None:
                past.problems.append((self.origin, f"the engine cannot read its log: {decoder.error}"))
        except EngineError as error:
            past.problems.append((self.origin, str(error)))

    def _batch(self, records: list[Record], size_bytes: int, before: Position) -> Batch:
        return Batch(
            self.origin,
            records,
            before=before,
            after=before,
            size_bytes=batch_size_bytes(records, size_bytes),
        )


class _Behind:
    """What of a log stands behind a record, which may come again, and others of the same time before it."""

    def __init__(self, last: Record) -> None:
        self._last: Record | None = last

    def of(self, records: list[Record]) -> list[Record]:
        last = self._last
        if last is None:
            return records
        for index, record in enumerate(records):
            if record.time > last.time:
                self._last = None
                return records[index:]
            if (record.time, record.stream, record.message) == (last.time, last.stream, last.message):
                self._last = None
                return records[index + 1 :]
        return []


def _until(batch: Batch, until: str) -> Batch:
    """What of it is not later; itself where that is all."""
    records = batch.records
    if not records or records[-1].time <= until:
        return batch
    kept = [record for record in records if record.time <= until]
    return batch.with_records(kept, batch.size_bytes * len(kept) // len(records))
