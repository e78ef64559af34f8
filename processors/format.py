"""Formats by name: lines of nginx, Apache, HAProxy, PostgreSQL, Redis, klog and syslog become fields."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from logroute.config.components import PROCESSORS
from logroute.processors import Processor, ProcessorOptions
from logroute.processors._formats import FORMATS, Shape, compiled, priority
from logroute.processors._layouts import Layout, zone_of
from logroute.processors._objects import level_of
from logroute.processors._times import adopt, parse_time
from logroute.router.record import Batch, DetailedRecord

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
    """What times are in that do not say it."""
    keep: bool = False
    """Keep the message as it was; without, it becomes what a line says behind its time and level. That of an
    access log stays whole anyway."""

    @field_validator("zone")
    @classmethod
    def _zone_is_one(cls, zone: str) -> str:
        zone_of(zone)
        return zone


@PROCESSORS.register(FormatOptions)
class FormatProcessor(Processor[FormatOptions]):
    def __init__(self, options: FormatOptions) -> None:
        super().__init__(options)
        self._readers = [Reader(shape, options.zone, keep=options.keep) for shape in FORMATS[options.name]]

    def apply(self, batch: Batch) -> Batch:
        readers = self._readers
        for record in batch.records:
            for reader in readers:
                if reader.read(record):
                    break
        return batch


class Reader:
    """Reads the lines of one shape."""

    def __init__(self, shape: Shape, zone: str, *, keep: bool) -> None:
        pattern = compiled(shape)
        self._match = pattern.match
        self._names = tuple(pattern.groupindex)
        self._numbers = shape.numbers
        self._levels = shape.levels
        self._layouts = [Layout(text, zone) for text in shape.layouts if text != "iso"]
        self._has_severity = "severity" in self._names
        self._has_priority = "priority" in self._names
        self._has_message = "message" in self._names and not keep

    def read(self, record: Any) -> bool:
        """Whether the record's line is one of these; then its fields are what it says."""
        match = self._match(record.message)
        if match is None:
            return False
        # What is absent a program writes as `-`.
        found: dict[str, Any] = dict(zip(self._names, match.groups("-"), strict=True))
        if "-" in found.values():
            found = {name: value for name, value in found.items() if value != "-"}
        assert isinstance(record, DetailedRecord)
        for name in self._numbers:
            if name in found and len(value := found[name]) <= MOST_DIGITS:
                found[name] = int(value)
        self._take_time(record, found)
        if self._has_severity:
            severity = match["severity"]
            level = self._levels.get(severity) or level_of(severity)
            if level is not None:
                record.level = level
                found.pop("severity", None)
        elif self._has_priority and "priority" in found:
            record.level = priority(found) or record.level
        if self._has_message:
            record.message = found.pop("message", "")
        if record.fields:
            record.fields |= found
        else:
            record.fields = found
        return True

    def _take_time(self, record: DetailedRecord, found: dict[str, Any]) -> None:
        text = found.get("time")
        if text is None:
            return
        engines = record.logged or record.time
        time = None
        for layout in self._layouts:
            if (time := layout.parse(text, engines)) is not None:
                break
        else:
            time = None if self._layouts else parse_time(text)
        if time is None:
            return
        if adopt(record, time):
            del found["time"]
        else:
            record.error = "time: more than 7 days from the engine's time, so it stays a field"
