"""Regular expressions with named groups: what they find in messages becomes fields."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Literal

from pydantic import Field, model_validator

from logroute.config.components import PROCESSORS
from logroute.processors import Processor, ProcessorOptions
from logroute.processors._named import NamedPattern
from logroute.processors._objects import take
from logroute.processors._values import convert, converters
from logroute.router.record import Batch, DetailedRecord, Record
from logroute.router.regex import Regex, RegexError, RegexSet

FEW = 0.5
"""Where it is found in less of a batch than this, the next batch is searched as a whole first."""


class RegexOptions(ProcessorOptions):
    """Make fields of what a regular expression with named groups finds in messages; others pass by."""

    type: Literal["regex"] = "regex"
    pattern: str = Field(examples=[r"user (?P<user>\w+) took (?P<duration:float>[\d.]+) ms"])
    """Named groups become fields; `:int`, `:float` or `:bool` behind a name says what the text means. Groups
    that are called `time`, `level` or `message` (or what else the `json` processor takes for these) are the
    record's."""
    engine: Literal["linear", "python"] = "linear"
    """`linear` takes a time that grows with the message only, and refuses a pattern that needs more. `python`
    knows more, may take exponential time and hold everything up meanwhile, and sees 4,096 characters."""
    keep: bool = False
    """Keep the message as it was, whatever a group says is the message."""

    @model_validator(mode="after")
    def _pattern_is_one(self) -> RegexOptions:
        try:
            NamedPattern(self.pattern, python=self.engine == "python")
        except RegexError as error:
            raise ValueError(str(error)) from error
        return self


@PROCESSORS.register(RegexOptions)
class RegexProcessor(Processor[RegexOptions]):
    """What the last batch was like decides only how the next one is searched, not what is found."""

    def __init__(self, options: RegexOptions) -> None:
        super().__init__(options)
        self._pattern = NamedPattern(options.pattern, python=options.engine == "python")
        self._types = converters(self._pattern.types)
        self._select: tuple[Regex, RegexSet] | None = None
        if not self._pattern.linear:
            regex = Regex(self._pattern.plain)
            if regex.scannable:
                self._select = regex, RegexSet([regex])
        self._few = False

    def apply(self, batch: Batch) -> Batch:
        find, types, keep = self._pattern.find, self._types, self.options.keep
        count = 0
        for record in self._worth_it(batch.records):
            found = find(record.message)
            if not found:
                continue
            count += 1
            assert isinstance(record, DetailedRecord)
            if types and not convert(record, found, types):
                self.books.failed += 1
            take(record, found, self.books, keep=keep)
        self._few = count < FEW * len(batch)
        return batch

    def _worth_it(self, records: Sequence[Record]) -> Sequence[Record]:
        """Those in which it is found, and maybe others: RE2 takes its time for the groups of each."""
        if self._select is None or not self._few:
            return records
        regex, all_at_once = self._select
        return list(compress(records, all_at_once.masks([record.message for record in records])[regex]))
