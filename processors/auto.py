"""Auto: JSON, logfmt, or the level of a text, whatever a line is.

What a line becomes depends on that line alone. A decision for a container, made on what its first lines show,
would make other records of the same lines when they are read again from a checkpoint (under the same ids):
the first lines are others then. Nor is it needed: which of the three a line can be is seen at its beginning,
which costs less than to remember it. So a container that prints an access log in JSON between lines of text
has all of them read, and one that changes its mind is followed at once.

What is no clear attempt passes without a mark: a text may begin with a brace, or with `a=1`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from logroute.config.components import PROCESSORS
from logroute.processors import ColumnProcessor, ProcessorOptions
from logroute.processors._alike import alike
from logroute.processors._level_text import LevelText
from logroute.processors._objects import SHALLOW, check_depth, reason, take_alike, take_all, take_columns
from logroute.processors.logfmt import alike_pairs, all_pairs, begins
from logroute.router.column_batch import ColumnBatch
from logroute.router.record import Batch, DetailedRecord, all_plain, owned_records

_object_begins = re.compile(r'\s*+\{\s*+"').match
_decode = msgspec.json.Decoder(dict[str, Any]).decode
FEWEST_PAIRS = 2
"""A text such as `x=1` is logfmt with more of these only."""


class AutoOptions(ProcessorOptions):
    """Parse what can be parsed: lines of JSON, lines of logfmt, and the level of others."""

    type: Literal["auto"] = "auto"
    keep: bool = False
    """Keep the message as it was; without, it becomes what a line says under `message` or `msg`, if it
    does."""


@PROCESSORS.register(AutoOptions)
class AutoProcessor(ColumnProcessor[AutoOptions]):
    def __init__(self, options: AutoOptions) -> None:
        super().__init__(options)
        self._text = LevelText()

    def columns(self, batch: ColumnBatch) -> Batch | None:
        if batch.details is not None:
            return None
        rows = alike(batch.messages, newlines=batch.newlines) or alike_pairs(batch.bare, FEWEST_PAIRS)
        return None if rows is None else take_columns(batch, rows, self.books, keep=self.options.keep)

    def by_record(self, batch: Batch) -> Batch:
        records = batch.records
        if not all_plain(records):
            lines = batch.messages
            if (rows := alike(lines) or alike_pairs(lines, FEWEST_PAIRS)) is not None:
                return batch.with_records([*take_alike(records, rows, self.books, keep=self.options.keep)])
        batch = batch.with_records(owned_records(records, copied=False))
        taken: list[DetailedRecord] = []
        objects: list[dict[str, Any]] = []
        attempts: list[DetailedRecord] = []
        texts: list[DetailedRecord] = []
        for record in batch.records:
            message = record.message
            assert isinstance(record, DetailedRecord)
            if _object_begins(message) is not None:
                try:
                    found = _decode(message)
                    if len(message) > SHALLOW:
                        check_depth(message, found)
                    objects.append(found)
                    taken.append(record)
                except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
                    record.error = f"auto: {reason(error)}"
                    self.books.failed += 1
                    texts.append(record)
            elif begins(message) is not None:
                attempts.append(record)
            else:
                texts.append(record)
        take_all(taken, objects, self.books, keep=self.options.keep)
        texts += self._pairs(attempts)
        self._level(texts)
        return batch

    def _pairs(self, attempts: Sequence[DetailedRecord]) -> list[DetailedRecord]:
        """Take what is logfmt; those that are none."""
        taken: list[DetailedRecord] = []
        objects: list[dict[str, Any]] = []
        left: list[DetailedRecord] = []
        for record, found in zip(attempts, all_pairs([r.message for r in attempts]), strict=True):
            if found is None or not _is_logfmt(found):
                left.append(record)
            else:
                taken.append(record)
                objects.append(found)
        take_all(taken, objects, self.books, keep=self.options.keep)
        return left

    def _level(self, records: Sequence[DetailedRecord]) -> None:
        records = [record for record in records if record.level is None]
        if records:
            levels = self._text.levels([record.message for record in records])
            for record, level in zip(records, levels, strict=True):
                if level is not None:
                    record.level = level


def _is_logfmt(found: dict[str, Any]) -> bool:
    """Whether a line is pairs, and not a text with some: at least two, and no word by itself."""
    return len(found) >= FEWEST_PAIRS and True not in found.values()
