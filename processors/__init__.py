"""Processors: what happens to records between source and route. One module a processor.

A processor is synchronous and works on whole batches. It never raises for data: a record that it cannot
treat passes through, counted. It never changes a record that another route also holds (it makes a new
one), and gives the same output for the same input whenever it runs and however the input was cut into
batches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

from logroute.config.components import Options

if TYPE_CHECKING:
    from logroute.router.record import Batch


class ProcessorOptions(Options):
    """What every processor's options have in common. The `type` field of a subclass names the processor."""


OptionsT = TypeVar("OptionsT", bound=ProcessorOptions)


class Processor(ABC, Generic[OptionsT]):
    """One per place in the configuration where it is named."""

    def __init__(self, options: OptionsT) -> None:
        self.options = options

    @abstractmethod
    def apply(self, batch: Batch) -> Batch | None:
        """The batch as it goes on, itself or a new one; None if nothing of it does."""
