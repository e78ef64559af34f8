"""The spool of a route as it lies on the disk, for whoever only looks: a daemon may have it open, or not.

Nothing is changed, nor locked; SQLite may leave its log, empty, beside the file. What is read is what
is stored: a row stays for up to 250 ms after it was delivered.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from logroute.router import spool
from logroute.router.record import Batch
from logroute.router.state_file import reading
from logroute.router.stored_origins import StoredOrigins


class SpoolSummary(msgspec.Struct, frozen=True):
    """How much waits in one route's spool."""

    records: int
    bytes: int
    """What the records take in memory."""
    stored_bytes: int
    """What they take on the disk, compressed."""
    oldest: str
    """The time of the first record, RFC 3339; empty if there is none."""
    damaged: int
    """Records that could not be read, and were put aside."""


class Unreadable(msgspec.Struct, frozen=True):
    """A row that cannot be read. A daemon that comes to it puts it aside."""

    row: int
    records: int
    reason: str


def summary(path: Path) -> SpoolSummary:
    """Raises StateError."""
    with reading(path) as database:
        of = spool.totals(database)
        return SpoolSummary(
            of.records,
            of.size_bytes,
            of.stored_bytes,
            spool.first_time(database),
            spool.damaged_records(database),
        )


def rows(path: Path) -> Iterator[list[Batch] | Unreadable]:
    """What waits, in the order in which it will be delivered, a row at a time. Raises StateError."""
    with reading(path) as database:
        origins = _origins(database)
        last = 0
        while (found := spool.read(database, last, ())) is not None:
            row, body = found
            last = row.id
            try:
                packed = spool.decompress(body)
                try:
                    batches = spool.unpack(packed, origins)
                except spool.Damaged:  # of a container, perhaps, that was not there yet when we began
                    origins = _origins(database)
                    batches = spool.unpack(packed, origins)
            except spool.Damaged as error:
                yield Unreadable(row.id, row.records, str(error))
            else:
                yield batches


def _origins(database: sqlite3.Connection) -> StoredOrigins:
    origins = StoredOrigins()
    origins.load(database, in_use=True)
    return origins
