"""Throttle: so many records in a second, a minute, an hour or a day, and a line that says how many more."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from logroute.config.components import PROCESSORS
from logroute.processors import ProcessorOptions
from logroute.processors._windows import EXCERPT, WindowProcessor, of_last
from logroute.router.paths import path
from logroute.router.record import DetailedRecord, Origin, Record

_RATE = re.compile(r"\s*([0-9]{1,12})\s*/\s*(s|m|h|d)\s*")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NAMES = {"s": "second", "m": "minute", "h": "hour", "d": "day"}


class ThrottleOptions(ProcessorOptions):
    """Let only so many records of a container go on in each second, minute, hour or day."""

    type: Literal["throttle"] = "throttle"
    rate: str = Field(examples=["100/s"])
    """How many, and in what: `100/s`, `1000/m`, `5000/h` or `10000/d`. It goes by the engine's times of the
    records, in UTC."""
    by: str = Field(default="container.id", examples=["fields.user"])
    """Path of what is counted together, within a container: with `fields.user` so many for each user."""

    @field_validator("rate")
    @classmethod
    def _rate_is_one(cls, rate: str) -> str:
        if not (found := _RATE.fullmatch(rate)) or not int(found[1]):
            raise ValueError("expected a rate such as 100/s, 1000/m, 5000/h or 10000/d")
        return rate

    @field_validator("by")
    @classmethod
    def _path_is_one(cls, by: str) -> str:
        path(by)
        return by


@PROCESSORS.register(ThrottleOptions)
class ThrottleProcessor(WindowProcessor[ThrottleOptions]):
    part: ClassVar[str] = ".throttled"

    def __init__(self, options: ThrottleOptions) -> None:
        found = _RATE.fullmatch(options.rate)
        assert found is not None  # the options have been checked
        super().__init__(options, _SECONDS[found[2]], int(found[1]))
        self._rate = f"{int(found[1])} a {_NAMES[found[2]]}"
        by = path(options.by)
        self._by = None if by.constant else by.of_record

    def kind(self, origin: Origin, record: Record) -> Hashable:
        if self._by is None:
            return None
        value = self._by(origin, record)
        return value if value is None or isinstance(value, str) else str(value)

    def said(self, count: int, last: Record, kind: Hashable) -> DetailedRecord:
        plural = "" if count == 1 else "s"
        text = f"{count} record{plural} held back: more than {self._rate}"
        fields: dict[str, Any] = {}
        if self._by is not None:
            text += (
                f" without {self.options.by}"
                if kind is None
                else f" of {self.options.by} {kind!s:.{EXCERPT}}"
            )
            if kind is not None and self.options.by.startswith("fields."):
                fields = {self.options.by.removeprefix("fields."): kind}
        record = of_last(last, text, self.part)
        record.level = "warn"
        record.fields = fields | {"held_back": count}
        return record
