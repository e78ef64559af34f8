"""Shout processor: messages in capitals."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from logroute.config.components import PROCESSORS
from logroute.processors import Processor, ProcessorOptions
from logroute.router.record import Batch


class ShoutOptions(ProcessorOptions):
    """Write messages in capitals."""

    type: Literal["shout"] = "shout"
    mark: str = Field(default="!", examples=["!!"])
    """What stands behind each."""


@PROCESSORS.register(ShoutOptions)
class ShoutProcessor(Processor[ShoutOptions]):
    def apply(self, batch: Batch) -> Batch:
        for record in batch.records:
            record.message = record.message.upper() + self.options.mark
        return batch
