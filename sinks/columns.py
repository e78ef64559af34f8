"""Many records at once, column by column: each part of them for all, then woven into one text.

A step in Python for one record costs what C takes for several; so an encoding makes what it makes of a batch
by few calls over all of its records. JSON is woven as text of bytes (`latin-1`: a character for each), so
that letters that are not ASCII cost no more than others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from logroute.router.record import Batch, Stream
from logroute.router.times import COARSE, are_times

BYTES = "latin-1"
"""Text in which each character stands for a byte."""
FEW = 32
"""Fewer records are not worth the columns."""

_encode_lines = msgspec.json.Encoder().encode_lines


def pieces(data: bytes, width: int) -> list[str]:
    """Bytes cut into pieces of one width, as text of bytes. They are whole ones."""
    # As characters of two bytes, with one behind each piece that no byte is: so they are split by one call,
    # in a third of the time that slices take.
    count = len(data) // width
    wide = bytearray(2 * (width + 1) * count)
    for index in range(width):
        wide[2 * index :: 2 * (width + 1)] = data[index::width]
    wide[2 * width + 1 :: 2 * (width + 1)] = b"\1" * count
    found = wide.decode("utf-16-le").split("\u0100")
    del found[-1]
    return found


def woven(count: int, columns: Sequence[str | Sequence[str]]) -> str:
    """The first of each column, one behind the other, then the second of each … A text is a column of it."""
    width = len(columns)
    pieces = [""] * (width * count)
    for index, column in enumerate(columns):
        pieces[index::width] = [column] * count if isinstance(column, str) else column
    return "".join(pieces)


def as_json(values: Sequence[Any]) -> list[str]:
    """Each of them as JSON, as bytes. Raises UnicodeEncodeError."""
    lines = _encode_lines(values).decode(BYTES).split("\n")  # within JSON a newline is escaped
    del lines[-1]
    return lines


class Plain(msgspec.Struct, frozen=True):
    """Columns of records of which nothing is known but their lines."""

    times: list[str]
    """RFC 3339, UTC, nine digits; nothing in them would end a text of JSON."""
    streams: list[Stream]
    messages: list[str]
    newlines: bool
    """Messages still end with their newlines."""

    def texts(self) -> list[str]:
        """The messages as texts of JSON, as bytes, without the quote behind. Raises UnicodeEncodeError."""
        # A newline within JSON is escaped: each of these ends a message.
        end = '\\n"\n' if self.newlines else '"\n'
        texts = _encode_lines(self.messages).decode(BYTES).split(end)
        del texts[-1]
        return texts

    def bare(self) -> list[str]:
        """The messages without their newlines, as text of bytes. Raises UnicodeEncodeError."""
        text = "".join(self.messages) if self.newlines else "\n".join([*self.messages, ""])
        if not text.isascii():
            text = text.encode().decode(BYTES)
        texts = text.split("\n")
        del texts[-1]
        if len(texts) == len(self.messages):
            return texts
        bare = [message[:-1] for message in self.messages] if self.newlines else self.messages
        return [message.encode().decode(BYTES) for message in bare]


def plain(batch: Batch, few: int = FEW) -> Plain | None:
    """A batch in columns, where each id is nothing but the origin's prefix and the time; else None.

    Also None where it has fewer records than are worth it.
    """
    if len(batch) < few:
        return None
    times = batch.plain_times()
    newlines = times is not None
    if times is None:
        if not batch.ready:
            _ = batch.records
        if not batch.plain:
            return None
        times = batch.times
        if COARSE in "".join(times):
            return None
    if not are_times(times):
        return None
    return Plain(times, batch.streams, batch.messages, newlines)
