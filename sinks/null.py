"""Null sink: takes everything and keeps nothing. For measuring, and for routes that only count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from logroute.config.components import SINKS
from logroute.sinks import DELIVERED, Outcome, Sink, SinkOptions

if TYPE_CHECKING:
    from logroute.router.record import Batch


class NullOptions(SinkOptions):
    """Take everything and keep nothing."""

    type: Literal["null"] = "null"


@SINKS.register(NullOptions)
class NullSink(Sink[NullOptions]):
    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        return DELIVERED
