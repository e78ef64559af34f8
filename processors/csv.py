"""CSV: the values of a line become fields, by the names of their columns (RFC 4180)."""

from __future__ import annotations

import csv
import io
from typing import Any, Literal

from pydantic import Field, field_validator

from logroute.config.components import PROCESSORS
from logroute.processors import Processor, ProcessorOptions
from logroute.processors._objects import take
from logroute.processors._values import convert, converters, name_and_type
from logroute.router.record import Batch, DetailedRecord


class CsvOptions(ProcessorOptions):
    """Parse messages that are lines of CSV."""

    type: Literal["csv"] = "csv"
    columns: list[str] = Field(min_length=1, examples=[["time", "user", "status:int", ""]])
    """Names of the columns, in their order; `:int`, `:float` or `:bool` behind one says what its texts mean.
    One without a name is left out."""
    delimiter: str = Field(default=",", min_length=1, max_length=1, examples=[";", "\t"])
    """What stands between values."""
    quote: str = Field(default='"', min_length=1, max_length=1, examples=["'"])
    """What values stand in that have a delimiter; twice, it means itself."""
    keep: bool = False
    """Keep the message as it was, whatever a column is the message."""

    @field_validator("columns")
    @classmethod
    def _types_are_some(cls, columns: list[str]) -> list[str]:
        names = [name_and_type(column)[0] for column in columns if column]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"there are two columns {name!r}")
        return columns

    @field_validator("delimiter", "quote")
    @classmethod
    def _is_no_end_of_a_line(cls, character: str) -> str:
        if character in "\r\n":
            raise ValueError("ends a line")
        return character


@PROCESSORS.register(CsvOptions)
class CsvProcessor(Processor[CsvOptions]):
    def __init__(self, options: CsvOptions) -> None:
        super().__init__(options)
        columns = [name_and_type(column) if column else ("", "text") for column in options.columns]
        self._names = [name for name, _ in columns]
        self._has_blank = "" in self._names
        self._types = converters(dict(columns))

    def apply(self, batch: Batch) -> Batch:
        names, types, keep = self._names, self._types, self.options.keep
        for record in batch.records:
            values = self._row(record.message)
            assert isinstance(record, DetailedRecord)
            if values is None or len(values) != len(names):
                count = "a quote is not closed" if values is None else f"{len(values)} values"
                record.error = f"csv: {count}, and there are {len(names)} columns"
                self.books.failed += 1
                continue
            found: dict[str, Any] = dict(zip(names, values, strict=True))
            if self._has_blank:
                del found[""]
            if types and not convert(record, found, types):
                self.books.failed += 1
            take(record, found, self.books, keep=keep)
        return batch

    def _row(self, line: str) -> list[str] | None:
        """The values of a line; None where it is no CSV."""
        if self.options.quote not in line:
            return line.split(self.options.delimiter)
        try:
            rows = list(
                csv.reader(
                    # A newline in a value is the value's: the reader wants it at the end of a piece.
                    io.StringIO(line, newline="\n"),
                    delimiter=self.options.delimiter,
                    quotechar=self.options.quote,
                    strict=True,
                )
            )
        except csv.Error:  # a quote that is not closed, or a value of more than 128 KiB
            return None
        return rows[0] if len(rows) == 1 else None
