"""Timestamp: a field's text is the record's time. The engine's is kept beside it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from logroute.config.components import PROCESSORS
from logroute.processors import Processor, ProcessorOptions
from logroute.processors._fields import MISSING, FieldName, fields_of
from logroute.processors._layouts import Layouts
from logroute.processors._times import adopt
from logroute.router.record import Batch, DetailedRecord


class TimestampOptions(ProcessorOptions):
    """Have the time that a field says be the record's; the engine's is kept as `event.created`."""

    type: Literal["timestamp"] = "timestamp"
    field: str = Field(default="time", examples=["ts"])
    """Its name. It is taken out of the fields."""
    layouts: list[str] = Field(default=[], examples=[["%d/%b/%Y:%H:%M:%S %z", "%Y-%m-%d %H:%M:%S,%f"]])
    """What times look like, in the words of `strptime`, the first that fits: `%Y %y %m %d %e %b %B %a %A %H
    %I %p %M %S %f %z %Z %F %T %D %R`. `.%f` or `,%f` may be absent. Without any: ISO 8601, seconds, ms, µs or
    ns since 1970, and what nginx, Go, Redis, syslog, e-mail and ctime write."""
    zone: str = Field(default="UTC", examples=["Europe/Berlin", "+02:00"])
    """What times are in that do not say it, or by a name that means several zones, such as `CST`."""
    keep: bool = False
    """Keep the field."""

    @model_validator(mode="after")
    def _layouts_are_some(self) -> TimestampOptions:
        Layouts(self.layouts, self.zone)
        return self


@PROCESSORS.register(TimestampOptions)
class TimestampProcessor(Processor[TimestampOptions]):
    def __init__(self, options: TimestampOptions) -> None:
        super().__init__(options)
        self._field = FieldName(options.field)
        self._layouts = Layouts(options.layouts, options.zone)

    def apply(self, batch: Batch) -> Batch:
        field, parse, keep = self._field, self._layouts.parse, self.options.keep
        for record in batch.records:
            value = field.get(record.fields)
            if value is MISSING:
                continue
            assert isinstance(record, DetailedRecord)
            time = parse(value, record.logged or record.time)
            if time is None:
                self._fail(record, "has none of the layouts")
            elif not adopt(record, time):
                self._fail(record, "more than 7 days from the engine's time, so it stays a field")
            elif not keep:
                field.take(fields_of(record))
        return batch

    def _fail(self, record: DetailedRecord, reason: str) -> None:
        record.error = f"{self.options.field}: {reason}"
        self.books.failed += 1
