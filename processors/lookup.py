"""Lookup: what a file of the user's says about a value becomes a field; it is read again when it changes.

A thread of its own reads it, so that a disk that hangs holds up nobody: records go by what was read last.
"""

from __future__ import annotations

import csv
import io
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import structlog
from pydantic import Field, field_validator

from logroute.config.components import PROCESSORS
from logroute.config.types import Duration
from logroute.processors import Processor, ProcessorOptions
from logroute.processors._fields import fields_of
from logroute.router.paths import path
from logroute.router.record import Batch

LARGEST_BYTES = 256 << 20
"""A larger file is refused: all of it is kept in memory."""

ANSWERS_WITHIN_S = 5.0
"""At a start or a reload nobody waits longer for the file."""

Table = dict[str, Any]
Version = tuple[int, int, int]
"""By what a file is known to be another: inode, size, time of the last change."""


class TableError(Exception):
    """The file cannot be used; says which, and why."""


class LookupOptions(ProcessorOptions):
    """Look a value up in a CSV or JSON file, and put what stands there into a field."""

    type: Literal["lookup"] = "lookup"
    file: str = Field(examples=["/etc/logroute/hosts.csv"])
    """A `.csv` with a line of names at its beginning, or a `.json` with an object: keys and what is put into
    the field for each."""
    key: str = Field(examples=["fields.ip"])
    """Path of the value that is looked up. In a CSV file it stands in the first column."""
    into: str = Field(examples=["fields.host"])
    """Field that gets it: the second column's text, of several further columns an object with all of them."""
    default: str | None = Field(default=None, examples=["unknown"])
    """What the field gets where the file says nothing; without, nothing. Also where `key` is absent."""
    reload: Duration = Field(default=10.0, ge=1, examples=["10s"])
    """How often it is looked at whether the file has changed."""

    @field_validator("file")
    @classmethod
    def _kind_is_known(cls, file: str) -> str:
        if not file.endswith((".csv", ".json")):
            raise ValueError("expected the name of a file that ends with .csv or .json")
        return file

    @field_validator("key")
    @classmethod
    def _path_is_one(cls, key: str) -> str:
        path(key)
        return key

    @field_validator("into")
    @classmethod
    def _field_is_one(cls, into: str) -> str:
        if not into.removeprefix("fields."):
            raise ValueError("expected a field such as fields.host")
        return into


@PROCESSORS.register(LookupOptions)
class LookupProcessor(Processor[LookupOptions]):
    def __init__(self, options: LookupOptions) -> None:
        """Raises TableError where the file cannot be used: at a start, and at a reload, that is said."""
        super().__init__(options)
        self._key = path(options.key)
        self._into = options.into.removeprefix("fields.")
        self._file = Reloaded(options.file, options.reload)

    def apply(self, batch: Batch) -> Batch:
        table, into, default, origin = self._file.table, self._into, self.options.default, batch.origin
        get = self._key.of_record
        for record in batch.records:
            value = get(origin, record)
            found = default if value is None else table.get(text_of(value), default)
            if found is not None:
                # An object is the table's: what changes one below a record's fields copies it before.
                fields_of(record)[into] = found
        return batch


def text_of(value: Any) -> str:
    """A value as it stands in a file: `true`, `7`, `1.5`."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


# --- the file -------------------------------------------------------------------------------------------


class Reloaded:
    """A file as it was read last. Ends looking at it when nobody has this any more."""

    def __init__(self, file: str, every_s: float) -> None:
        """Raises TableError."""
        self.file = file
        version, self.table = read_within(file)
        self._ended = threading.Event()
        # The thread must not keep us alive.
        threading.Thread(
            target=_watch, args=(weakref.ref(self), version, every_s, self._ended), daemon=True, name="lookup"
        ).start()
        weakref.finalize(self, self._ended.set)

    def look(self, known: Version) -> Version:
        """Read it if it is another than the known one; the version that there is now."""
        log = structlog.get_logger("logroute.processors")
        try:
            if version_of(self.file) == known:
                return known
            version, table = read(self.file)
        except OSError as error:
            log.warning("cannot look at a file", file=self.file, reason=error.strerror)
            return known
        except TableError as error:
            log.error("a file has changed and cannot be used: what was read before is", reason=str(error))
            return version_or(self.file, known)
        self.table = table
        log.info("a file has changed and was read again", file=self.file, keys=len(table))
        return version


def _watch(
    reloaded: Callable[[], Reloaded | None], version: Version, every_s: float, ended: threading.Event
) -> None:
    while not ended.wait(every_s):
        one = reloaded()
        if one is None:
            return
        version = one.look(version)
        del one


def version_of(file: str) -> Version:
    """Raises OSError."""
    status = os.stat(file)
    return status.st_ino, status.st_size, status.st_mtime_ns


def version_or(file: str, known: Version) -> Version:
    """The version that there is, so that a broken file is said once; the known one where there is none."""
    try:
        return version_of(file)
    except OSError:
        return known


def read_within(file: str, seconds: float = ANSWERS_WITHIN_S) -> tuple[Version, Table]:
    """Read it in a thread of its own, which is left behind where its disk hangs. Raises TableError."""
    found: list[tuple[Version, Table] | TableError] = []

    def try_to() -> None:
        try:
            found.append(read(file))
        except TableError as error:
            found.append(error)

    thread = threading.Thread(target=try_to, daemon=True, name="lookup")
    thread.start()
    thread.join(seconds)
    if not found:
        raise TableError(f"{file}: its disk does not answer")
    if isinstance(found[0], TableError):
        raise found[0]
    return found[0]


def read(file: str) -> tuple[Version, Table]:
    """What stands in the file, and which version of it. Raises TableError."""
    try:
        with open(file, "rb") as stream:
            status = os.fstat(stream.fileno())
            data = stream.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise TableError(f"{file}: cannot read it: {error.strerror}") from error
    except ValueError as error:  # a NUL in its name
        raise TableError(f"cannot read a file of that name: {error}") from error
    if len(data) > LARGEST_BYTES:
        raise TableError(f"{file}: larger than {LARGEST_BYTES >> 20} MiB, and all of it is kept in memory")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TableError(f"{file}:{line}: not UTF-8 text") from error
    table = from_json(file, text) if file.endswith(".json") else from_csv(file, text)
    return (status.st_ino, status.st_size, status.st_mtime_ns), table


def from_json(file: str, text: str) -> Table:
    """An object's keys and values. Raises TableError."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise TableError(f"{file}: {error}") from error
    if not isinstance(found, dict):
        raise TableError(f"{file}: expected an object with keys and what is put into the field for each")
    return found


def from_csv(file: str, text: str) -> Table:
    """The first column's values and the others; the first line names the columns. Raises TableError.

    RFC 4180; of lines with the same key the last one counts.
    """
    # Not `splitlines`, to which more than a newline ends a line.
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    table: Table = {}
    try:
        names = next(rows, [])
        if len(names) < 2:
            raise TableError(f"{file}:1: expected a line with the names of two columns or more")
        for row in rows:
            if not row:
                continue
            if len(row) != len(names):
                raise TableError(f"{file}:{rows.line_num}: {len(row)} columns, not {len(names)}")
            key, *values = row
            table[key] = values[0] if len(names) == 2 else dict(zip(names[1:], values, strict=True))
    except csv.Error as error:
        raise TableError(f"{file}:{rows.line_num}: {error}") from error
    return table
