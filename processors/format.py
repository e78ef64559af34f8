"""Formats by name: lines of nginx, Apache, HAProxy, PostgreSQL, Redis, klog and syslog become fields."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

import msgspec
from pydantic import Field, field_validator

from logroute.config.components import PROCESSORS
from logroute.processors import ColumnProcessor, ProcessorBooks, ProcessorOptions
from logroute.processors._formats import FORMATS, Shape, compiled, priority
from logroute.processors._from_columns import ColumnFields
from logroute.processors._layouts import Layout, zone_of
from logroute.processors._objects import level_of, mark_far
from logroute.processors._times import adopt, near, parse_time
from logroute.router.column_batch import ColumnBatch, Details
from logroute.router.record import Batch, DetailedRecord, Record, detailed

ABSENT = "-"
"""What programs write for what is absent."""
MOST_DIGITS = 18
"""More than this is beyond 64 bits, and stays a text."""


class FormatOptions(ProcessorOptions):
    """Parse the lines of a program that many run; lines of another form pass by."""

    type: Literal["format"] = "format"
    name: Literal["nginx", "apache", "haproxy", "postgres", "redis", "klog", "syslog"] = Field(
        examples=["nginx"]
    )
    """Whose lines they are. `nginx` and `apache`: the access log (common or combined) and the error log."""
    zone: str = Field(default="UTC", examples=["Europe/Berlin", "+02:00"])
    """What times are in that do not say it, or by a name that means several zones, such as `CST`."""
    keep: bool = False
    """Keep the message as it was; without, it becomes what a line says behind its time and level. That of an
    access log stays whole anyway."""

    @field_validator("zone")
    @classmethod
    def _zone_is_one(cls, zone: str) -> str:
        zone_of(zone)
        return zone


@PROCESSORS.register(FormatOptions)
class FormatProcessor(ColumnProcessor[FormatOptions]):
    def __init__(self, options: FormatOptions) -> None:
        super().__init__(options)
        self._readers = [
            Reader(shape, options.zone, self.books, keep=options.keep) for shape in FORMATS[options.name]
        ]

    def columns(self, batch: ColumnBatch) -> Batch | None:
        # What a program prints most comes first.
        return None if batch.details is not None else self._readers[0].columns(batch)

    def by_record(self, batch: Batch) -> Batch:
        records = [*batch.records]
        left: Sequence[int] = range(len(records))
        for reader in self._readers:
            left = reader.read(records, left)
        return batch.with_records(records)


class _Said(msgspec.Struct, frozen=True):
    """What lines say, a column of each; None: nothing."""

    times: Sequence[str | None]
    all_near: bool
    """All times are such as are taken for the records' own."""
    levels: Sequence[str] | None
    messages: list[str] | None
    apart: bool
    """Levels are to be looked at line by line."""


class Reader:
    """Reads the lines of one shape."""

    def __init__(self, shape: Shape, zone: str, books: ProcessorBooks, *, keep: bool) -> None:
        self._books = books
        pattern = compiled(shape)
        self._match = pattern.match
        self._many = shape.many
        self._names = tuple(pattern.groupindex)
        self._numbers = shape.numbers
        self._levels = shape.levels
        self._layouts = [Layout(text, zone) for text in shape.layouts if text != "iso"]
        self._has_time = "time" in self._names
        self._has_severity = "severity" in self._names
        self._has_priority = "priority" in self._names
        self._has_message = "message" in self._names and not keep

    def columns(self, batch: ColumnBatch) -> Batch | None:
        """Records with what their lines say; None if not all are such lines, or do not say it in one way."""
        messages, engines, count = batch.bare, batch.times, len(batch)
        columns = self._all(messages)
        if columns is None:
            return None
        said = self._said(columns, engines)
        if said.apart or not (said.all_near or {*said.times} <= {None}):
            return None
        return batch.with_columns(
            (
                messages if said.messages is None else said.messages,
                batch.streams,
                said.times if said.all_near else engines,  # type: ignore[arg-type]
            ),
            Details(said.levels, self._fields(columns, count), engines if said.all_near else None),
        )

    def _all(self, messages: Sequence[str]) -> dict[str, Sequence[Any]] | None:
        """What all lines say, by name; None if one of them is another."""
        if self._many is not None:
            if (many := self._many(messages)) is None or len(many[0]) < len(messages):
                return None
            absent = [ABSENT] * len(messages)
            return {name: many[1].get(name, absent) for name in self._names}
        match = self._match
        rows = []
        for message in messages:
            if (found := match(message)) is None:
                return None
            rows.append(found.groups(ABSENT))
        return dict(zip(self._names, zip(*rows, strict=True), strict=True))

    def read(self, records: list[Record], places: Sequence[int]) -> Sequence[int]:
        """Have the fields of records in these places be what their lines say.

        Returns the places of those whose lines are no such ones. Plain records stay what they are: others are
        put in their places.
        """
        mine = records if len(places) == len(records) else [records[place] for place in places]
        messages = [record.message for record in mine]
        if self._many is not None and (many := self._many(messages)):
            usual, columns = many
            absent = [ABSENT] * len(usual)
            columns = {name: columns.get(name, absent) for name in self._names}
            if len(usual) == len(places):
                self._put(records, places, mine, columns)
                return ()
            self._put(records, [places[index] for index in usual], [mine[index] for index in usual], columns)
            others = sorted({*range(len(places))}.difference(usual))
            places, mine = [places[index] for index in others], [mine[index] for index in others]
            messages = [messages[index] for index in others]
        match = self._match
        own: list[int] = []
        rows: list[tuple[str, ...]] = []
        left: list[int] = []
        for index, message in enumerate(messages):
            if (found := match(message)) is None:
                left.append(places[index])
            else:
                own.append(index)
                rows.append(found.groups(ABSENT))
        if own:
            columns = dict(zip(self._names, zip(*rows, strict=True), strict=True))
            self._put(records, [places[index] for index in own], [mine[index] for index in own], columns)
        return left

    def _put(
        self,
        records: list[Record],
        places: Sequence[int],
        mine: Sequence[Record],
        columns: dict[str, Sequence[Any]],
    ) -> None:
        """Have those that are mine, which are in these places, say what their columns do."""
        made = self._taken(mine, columns)
        if len(places) == len(records):
            records[:] = made
        else:
            for place, record in zip(places, made, strict=True):
                records[place] = record

    def _said(self, columns: dict[str, Sequence[Any]], engines: Sequence[str]) -> _Said:
        """What lines say of time, level and message; this is taken out of the columns."""
        count = len(engines)
        times = self._times(columns["time"], engines) if self._has_time else [None] * count
        told = {*times}
        all_near = None not in told and near(told, engines)
        levels = self._levels_of(columns["severity"]) if self._has_severity else None
        messages = columns.pop("message") if self._has_message else None
        if messages is not None:
            messages = ["" if message == ABSENT else message for message in messages]
        if all_near:
            del columns["time"]
        if levels is not None:
            del columns["severity"]
        apart = self._has_priority or (self._has_severity and levels is None)
        return _Said(times, all_near, levels, messages, apart)

    def _taken(
        self, records: Sequence[Record], columns: dict[str, Sequence[Any]]
    ) -> Sequence[DetailedRecord]:
        """Records with what their lines say, by name. Nothing is changed before everything is known."""
        engines = [record.logged or record.time for record in records]
        said = self._said(columns, engines)
        fields = self._fields(columns, len(records))
        objects = fields.objects() if fields is not None else [{} for _ in records]
        made = [detailed(record) for record in records]
        for record, found, time in zip(made, objects, said.times, strict=True):
            if not said.all_near and time is not None:
                self._take_time(record, found, time)
            if said.apart:
                self._take_level(record, found)
            if record.fields:
                record.fields |= found
            else:
                record.fields = found
        if said.levels is not None:
            for record, level in zip(made, said.levels, strict=True):
                record.level = level
        if said.messages is not None:
            for record, message in zip(made, said.messages, strict=True):
                record.message = message
        if said.all_near:
            for record, engine, time in zip(made, engines, said.times, strict=True):
                record.logged, record.time = engine, time  # type: ignore[assignment]
        return made

    def _take_time(self, record: DetailedRecord, found: dict[str, Any], time: str) -> None:
        if adopt(record, time):
            del found["time"]
        else:
            mark_far(record, "time", self._books)

    def _take_level(self, record: DetailedRecord, found: dict[str, Any]) -> None:
        if "priority" in found:
            record.level = priority(found) or record.level
        if "severity" in found and (severity := self._level_of(found["severity"])) is not None:
            record.level = severity
            del found["severity"]

    def _fields(self, columns: dict[str, Sequence[Any]], count: int) -> ColumnFields | None:
        """What each line says. What is absent in all of them, as most of that is, is not looked at again."""
        absent = {name: column.count(ABSENT) for name, column in columns.items()}
        for name in self._numbers:
            columns[name] = _numbers(columns[name])
        there = {name: column for name, column in columns.items() if absent[name] < count}
        return ColumnFields(there, tuple(name for name in there if absent[name]), ABSENT) if there else None

    def _level_of(self, severity: str) -> str | None:
        return self._levels.get(severity) or level_of(severity)

    def _levels_of(self, severities: Sequence[str]) -> list[str] | None:
        """None if one is unknown, or there is none."""
        levels = {each: self._level_of(each) for each in set(severities)}
        return None if None in levels.values() else [levels[each] for each in severities]  # type: ignore[misc]

    def _times(self, texts: Sequence[str], engines: Sequence[str]) -> list[str | None]:
        if self._layouts and all(layout.has_year for layout in self._layouts):
            # Nothing but the text tells. Many lines have the same.
            known = {text: self._time(text, engines[0]) for text in {*texts}}
            return [*map(known.__getitem__, texts)]
        return [self._time(text, engine) for text, engine in zip(texts, engines, strict=True)]

    def _time(self, text: str, engine: str) -> str | None:
        for layout in self._layouts:
            if (time := layout.parse(text, engine)) is not None:
                return time
        return None if self._layouts else parse_time(text)


def _numbers(column: Sequence[str]) -> list[Any]:
    """As numbers, where there are some that have 64 bits."""
    if max(map(len, column)) <= MOST_DIGITS:
        with suppress(ValueError):  # one is absent
            return [*map(int, column)]
    return [text if text == ABSENT or len(text) > MOST_DIGITS else int(text) for text in column]
