"""The page of one route in `logroute top`: everything of its books, and its last dead letters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from rich.cells import cell_len
from rich.text import Text

from logroute.api.letters import Page
from logroute.cli import top_words as words
from logroute.cli.tables import ago, size, when
from logroute.cli.top_rates import Picture, Route
from logroute.cli.top_view import BAD, DIM, STATE_STYLES, TITLE, WARN, text_of
from logroute.router.visible import visible

LABEL = 12
"""Cells of what stands before the values."""


class Details(msgspec.Struct):
    """What was asked for a route beside the books. None: it is not there yet, or could not be had."""

    route: str
    letters: Page | None = None
    letters_trouble: str = ""
    settings: dict[str, Any] | None = None
    """The route as it is configured."""


def detail_lines(picture: Picture, name: str, details: Details, width: int) -> list[Text]:
    route = picture.routes.get(name)
    if route is None:
        return [text_of("This route is not there any more.", width, BAD)]
    lines = list(_state(route, picture.time, width))
    lines += _numbers(route, width)
    for reason, gaps in route.books.lost.items():
        lines += _labelled("not read", f"{reason}: {gaps}", width, WARN)
    for part in ("match", "sink"):
        if details.settings is not None and (value := details.settings.get(part)) is not None:
            lines += _labelled(part, value if isinstance(value, str) else _compact(value), width)
    lines += _letters(details, width)
    return lines


def _state(route: Route, now: str, width: int) -> Iterator[Text]:
    books = route.books
    state = words.state(books)
    since = f"{state} since {when(books.since)} UTC, {ago(books.since, now)}"
    yield from _labelled("state", since, width, STATE_STYLES[state])
    if books.reason:
        yield from _labelled("reason", books.reason, width, BAD)
    if books.hindrance and books.hindrance != books.reason:
        yield from _labelled("hindered", books.hindrance, width, WARN)
    if books.behind:
        yield from _labelled("", "It is behind: its sink could not keep up.", width, WARN)
    if books.last_error and books.last_error != books.reason:
        said = f"{when(books.failed)} UTC, {ago(books.failed, now)} ago: {books.last_error}"
        yield from _labelled("last error", said, width)


def _numbers(route: Route, width: int) -> Iterator[Text]:
    books, rates = route.books, route.rates
    memory, disk = books.queued.memory, books.queued.disk

    def number(
        label: str, total: int, rate: float | None = None, more: str = "", style: str = ""
    ) -> list[Text]:
        a_second = f"  {words.rate(rate)}/s" if rate is not None else ""
        return _labelled(label, f"{total}{a_second}{more}", width, style)

    yield from number("received", books.received, rates.received)
    text = "" if rates.delivered_bytes is None else f"  {words.size(rates.delivered_bytes)}/s"
    yield from number("delivered", books.delivered, rates.delivered, f"{text}  {size(books.delivered_bytes)}")
    yield from number(
        "duplicates", books.duplicates, more="  the receiver had them" if books.duplicates else ""
    )
    yield from number("rejected", books.rejected, rates.rejected, style=WARN if books.rejected else "")
    dropped = "".join(f"  {reason} {records}" for reason, records in books.dropped.items())
    yield from number(
        "dropped", sum(books.dropped.values()), rates.dropped, dropped, WARN if books.dropped else ""
    )
    yield from number("in memory", memory.records, more=f"  {size(memory.bytes)}")
    yield from number("on disk", disk.records, more=f"  {size(disk.bytes)}")
    yield from number("in flight", books.in_flight)
    yield from _labelled("lag", words.age(books.lag_seconds), width)
    yield from number("retried", books.retried, rates.retried)
    if books.unconfirmed:
        yield from number("unconfirmed", books.unconfirmed, more="  nobody can tell whether they were read")
    if books.truncated:
        yield from number("truncated", books.truncated, style=WARN)
    counted = "  ".join([f"{name} {count}" for name, count in books.sink.items() if count])
    if counted:
        yield from _labelled("sink", counted, width, WARN if books.sink.get("truncated") else "")


def _letters(details: Details, width: int) -> Iterator[Text]:
    yield Text()
    if details.letters is None:
        yield text_of(
            details.letters_trouble or "dead letters …", width, WARN if details.letters_trouble else DIM
        )
        return
    if not details.letters.letters:
        yield text_of("no dead letters", width, DIM)
        return
    yield text_of("LAST DEAD LETTERS", width, TITLE)
    for letter in details.letters.letters:
        yield text_of(f"{letter.id:>6}  {when(letter.failed)}  {letter.container}", width)
        yield from _wrapped(letter.reason, 8, width, WARN)
        yield text_of(f"        > {letter.message}", width, DIM)


def _labelled(label: str, text: str, width: int, style: str = "") -> list[Text]:
    """A value behind its label, in full: in as many lines as it takes."""
    lines = _wrapped(text, LABEL, width, style)
    first = Text(f"{label:<{LABEL}}"[:LABEL], style=DIM, no_wrap=True, end="")
    first.append_text(lines[0][LABEL:])
    return [first, *lines[1:]]


def _wrapped(text: str, indent: int, width: int, style: str) -> list[Text]:
    """By cells, at spaces where there are some; what is longer than a line is broken."""
    room = max(8, width - indent)
    lines: list[str] = []
    for paragraph in visible(text.replace("\t", " ")).split("\n"):
        line = ""
        for word in paragraph.split(" "):
            if line and cell_len(line) + 1 + cell_len(word) <= room:
                line += " " + word
                continue
            if line:
                lines.append(line)
            *full, line = _broken(word, room)
            lines += full
        lines.append(line)
    return [Text(" " * indent + line, style=style, no_wrap=True, end="") for line in lines]


def _broken(word: str, room: int) -> Sequence[str]:
    """Pieces of at most so many cells; at least one."""
    pieces = [""]
    cells = 0
    for character in word:
        wide = cell_len(character)
        if cells + wide > room:
            pieces.append("")
            cells = 0
        pieces[-1] += character
        cells += wide
    return pieces


def _compact(value: Any) -> str:
    return msgspec.json.encode(value).decode()
