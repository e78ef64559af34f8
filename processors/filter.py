"""Filter: only what matches goes on."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from logroute.config.components import PROCESSORS
from logroute.config.types import MatchField
from logroute.processors import Processor, ProcessorOptions
from logroute.router.record import Batch
from logroute.router.selection import Chooser


class FilterOptions(ProcessorOptions):
    """Let only records go on that match."""

    type: Literal["filter"] = "filter"
    match: MatchField = Field(examples=[{"not": {"message": "*healthcheck*"}}])
    """Which; the others are taken out, and counted as `filtered`."""


@PROCESSORS.register(FilterOptions)
class FilterProcessor(Processor[FilterOptions]):
    changes: ClassVar[bool] = False
    quick: ClassVar[bool] = True

    def __init__(self, options: FilterOptions) -> None:
        super().__init__(options)
        self._chooser = Chooser(options.match)

    def apply(self, batch: Batch) -> Batch:
        return self._chooser.batch_of(batch)
