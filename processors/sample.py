"""Sample: a share of the records, the same ones whenever and wherever they are read."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from logroute.config.components import PROCESSORS
from logroute.processors import Processor, ProcessorOptions
from logroute.router.digest import blake2b
from logroute.router.paths import path
from logroute.router.record import Batch, Origin, Record

HASH_BYTES = 8
SPACE = 1 << 8 * HASH_BYTES


class SampleOptions(ProcessorOptions):
    """Let a share of the records go on, by a hash: the same ones whenever, and by whomever, they are read."""

    type: Literal["sample"] = "sample"
    rate: float = Field(ge=0, le=1, examples=[0.1])
    """The share that goes on: `0.1` is every tenth."""
    by: str = Field(default="id", examples=["fields.trace_id"])
    """Path of what is hashed: records in which that is equal go on together, or not at all. Where it is
    absent each record is decided by itself."""

    @field_validator("by")
    @classmethod
    def _path_is_one(cls, by: str) -> str:
        path(by)
        return by


@PROCESSORS.register(SampleOptions)
class SampleProcessor(Processor[SampleOptions]):
    changes: ClassVar[bool] = False

    def __init__(self, options: SampleOptions) -> None:
        super().__init__(options)
        self._by = path(options.by)
        self._below = round(options.rate * SPACE)

    def apply(self, batch: Batch) -> Batch:
        origin = batch.origin
        if (constant := self._by.of_origin) is not None and (value := constant(origin)) is not None:
            return batch if self._takes(value) else batch.with_records([], 0)
        get, takes = self._value, self._takes
        taken = [record for record in batch.records if takes(get(origin, record))]
        if len(taken) == len(batch):
            return batch
        return batch.with_records(taken, batch.size_bytes * len(taken) // len(batch))

    def _value(self, origin: Origin, record: Record) -> Any:
        value = self._by.of_record(origin, record)
        return origin.record_id(record) if value is None else value

    def _takes(self, value: Any) -> bool:
        text = value if isinstance(value, str) else str(value)
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()
        return int.from_bytes(digest, "big") < self._below
