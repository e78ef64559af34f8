"""ANSI: take colours, and whatever else controls a terminal, out of messages (ECMA-48)."""

from __future__ import annotations

import re
from typing import Literal

from logroute.config.components import PROCESSORS
from logroute.processors import Processor, ProcessorOptions
from logroute.router.record import Batch

# Possessive and disjoint: a sequence without its end takes no more than linear time.
_SEQUENCE = re.compile(
    r"\x1b(?:"
    r"\[[0-?]*+[ -/]*+[@-~]?+"  # CSI, 5.4: colours, the cursor
    r"|[\]PX^_][^\x07\x1b]*+(?:\x07|\x1b\\)?+"  # OSC, DCS, SOS, PM, APC, 5.6: titles, links
    r"|[ -/]*+[0-~]?+"  # nF, Fp, Fe, Fs: 5.3 and ECMA-35, 13.2.1
    r")|\x9b[0-?]*+[ -/]*+[@-~]?+"  # CSI as one character
)


class AnsiOptions(ProcessorOptions):
    """Take colours and other terminal sequences out of messages."""

    type: Literal["ansi"] = "ansi"


@PROCESSORS.register(AnsiOptions)
class AnsiProcessor(Processor[AnsiOptions]):
    def apply(self, batch: Batch) -> Batch:
        for record in batch.records:
            if "\x1b" in record.message or "\x9b" in record.message:
                record.message = without_sequences(record.message)
        return batch


def without_sequences(text: str) -> str:
    """What a terminal would show, without colours. A sequence without its end goes to where it breaks."""
    return _SEQUENCE.sub("", text)
