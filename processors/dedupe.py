"""Dedupe: a line that is said again and again is said once, and then how often."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from logroute.config.components import PROCESSORS
from logroute.config.types import Duration
from logroute.processors import ProcessorOptions
from logroute.processors._windows import WindowProcessor, of_last
from logroute.router.digest import blake2b
from logroute.router.paths import path
from logroute.router.record import DetailedRecord, Origin, Record

SHOWN = 200
"""So many characters of a repeated line stand in the record that counts it."""


class DedupeOptions(ProcessorOptions):
    """Let of equal records of a container, and of one stream, only the first in each window go on."""

    type: Literal["dedupe"] = "dedupe"
    window: Duration = Field(default=10.0, ge=1, le=86400, examples=["10s"])
    """How long a window is, in whole seconds. Windows of 10 s begin at :00, :10 …, by the engine's times of
    the records."""
    by: str = Field(default="message", examples=["fields.error"])
    """Path of what is equal."""

    @field_validator("window")
    @classmethod
    def _window_is_whole(cls, window: float) -> float:
        if window != int(window):
            raise ValueError("a window is of whole seconds")
        return window

    @field_validator("by")
    @classmethod
    def _path_is_one(cls, by: str) -> str:
        path(by)
        return by


@PROCESSORS.register(DedupeOptions)
class DedupeProcessor(WindowProcessor[DedupeOptions]):
    part: ClassVar[str] = ".repeated"

    def __init__(self, options: DedupeOptions) -> None:
        super().__init__(options, int(options.window), 1)
        self._by = path(options.by).of_record

    def kind(self, origin: Origin, record: Record) -> Hashable:
        value = self._by(origin, record)
        if value is None:  # nothing that it could be equal in
            return record.time, record.sequence, record.place, record.part
        text = value if isinstance(value, str) else str(value)
        # What is remembered of a line does not grow with it.
        short = len(text) <= SHOWN
        return record.stream, text if short else blake2b(text.encode("utf-8", "surrogatepass")).digest()

    def said(self, count: int, last: Record, kind: Hashable) -> DetailedRecord:
        text = last.message if len(last.message) <= SHOWN else f"{last.message[:SHOWN]}…"
        times = "once more" if count == 1 else f"{count} times more"
        record = of_last(last, f"{text} (said {times})", self.part)
        record.level = last.level
        record.fields = {"repeated": count}
        return record
