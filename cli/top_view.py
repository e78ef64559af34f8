"""The screen of `logroute top` as lines of text: what is known, chosen and wide enough in, lines out.

Nothing here touches a terminal. Names and reasons are of strangers: they are made visible and cut by cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
from rich.cells import cell_len
from rich.text import Text

from logroute.api.books import RouteBooks
from logroute.cli import top_words as words
from logroute.cli.tables import ago
from logroute.cli.top_rates import Picture, Route, Talker
from logroute.router.visible import visible

Order = Literal["configured", "out", "lag", "waiting", "name"]
ORDERS: tuple[Order, ...] = ("configured", "out", "lag", "waiting", "name")

TITLE = "bold"
DIM = "dim"
GOOD = "green"
WARN = "yellow"
BAD = "bold red"
SELECTED = "reverse"

NARROWEST_NAME = 12
BETTER_NAMES = 10
"""Columns of this rank on are there where names have all the room that they want."""
WIDEST_NAME = 40
MOST_TALKERS = 10
TALKER_COLUMNS = (("REC/s", 5), ("BYTES/s", 7), ("RECORDS", 7), ("BYTES", 5))
ID_WIDTH = 14
WIDE = 72
"""From here on there is room for all of them."""
ERROR_LASTS_S = 600
"""So long the last error of a route that is well again stands there."""
LOW = 14
"""A screen of fewer lines has no room for more than one line above."""

STATE_STYLES = {"up": GOOD, "down": BAD, "paused": WARN, "held": BAD, "behind": WARN}


class Chosen(msgspec.Struct):
    """What somebody has chosen to see."""

    route: str = ""
    order: Order = "configured"
    message: str = ""
    """What came of the last key."""
    trouble: str = ""
    """Why there is no newer picture."""


class Column(msgspec.Struct, frozen=True):
    """One of the table of routes. Those of a low rank stay longest where there is little room."""

    title: str
    width: int
    rank: int
    cell: Callable[[Route], str]
    style: Callable[[Route], str] = lambda route: ""


def _waiting(route: Route) -> int:
    return route.books.queued.memory.records + route.books.queued.disk.records + route.books.in_flight


def _alarm(total: Callable[[Route], int], rate: Callable[[Route], float | None]) -> Callable[[Route], str]:
    """Red where it grows, yellow where it has."""
    return lambda route: BAD if rate(route) else WARN if total(route) else ""


def _dropped(route: Route) -> int:
    return sum(route.books.dropped.values())


COLUMNS = (
    Column(
        "STATE", 6, 0, lambda r: words.state(r.books), lambda r: STATE_STYLES[words.state(r.books)]
    ),
    Column("IN/s", 5, 3, lambda r: words.rate(r.rates.received)),
    Column("OUT/s", 5, 1, lambda r: words.rate(r.rates.delivered)),
    Column("BYTES/s", 7, 12, lambda r: words.size(r.rates.delivered_bytes)),
    Column("QUEUE", 5, 4, lambda r: words.count(r.books.queued.memory.records)),
    Column("MEMORY", 6, 13, lambda r: words.size(r.books.queued.memory.bytes)),
    Column("SPOOL", 5, 5, lambda r: words.count(r.books.queued.disk.records)),
    Column("DISK", 5, 14, lambda r: words.size(r.books.queued.disk.bytes)),
    Column("FLIGHT", 6, 10, lambda r: words.count(r.books.in_flight)),
    Column("LAG", 5, 2, lambda r: words.age(r.books.lag_seconds)),
    Column("RETRY", 5, 8, lambda r: words.rate(r.rates.retried), lambda r: WARN if r.rates.retried else ""),
    Column(
        "REJ", 5, 9, lambda r: words.count(r.books.rejected),
        _alarm(lambda r: r.books.rejected, lambda r: r.rates.rejected),
    ),
    Column("DROP", 5, 6, lambda r: words.count(_dropped(r)), _alarm(_dropped, lambda r: r.rates.dropped)),
    Column(
        "DEAD", 5, 7, lambda r: words.count(r.books.dead_letters),
        lambda r: WARN if r.books.dead_letters else "",
    ),
)  # fmt: skip


def in_order(picture: Picture, order: Order) -> list[str]:
    """The names of the routes as they are listed."""
    keys: dict[Order, Callable[[str], tuple[float, str]]] = {
        "out": lambda name: (-(picture.routes[name].rates.delivered or 0.0), name),
        "lag": lambda name: (-picture.routes[name].books.lag_seconds, name),
        "waiting": lambda name: (-_waiting(picture.routes[name]), name),
        "name": lambda name: (0.0, name),
    }
    names = list(picture.routes)
    return names if order == "configured" else sorted(names, key=keys[order])


# --- the parts ----------------------------------------------------------------------------------------


def text_of(text: str, width: int, style: str = "") -> Text:
    """Some words of a stranger, in one line of at most so many cells."""
    line = Text(visible(text.replace("\n", " ⏎ ").replace("\t", " ")), style=style, no_wrap=True, end="")
    line.truncate(max(0, width), overflow="ellipsis")
    return line


def cell(text: str, width: int, style: str = "", *, right: bool = True) -> Text:
    """Exactly so many cells."""
    line = text_of(text, width, style)
    room = width - line.cell_len
    if right:
        line.pad_left(room)
    else:
        line.pad_right(room)
    return line


def head(picture: Picture, chosen: Chosen, width: int, height: int) -> list[Text]:
    """Which daemon, what flows through all of it, what its sources read."""
    up = f"  up {ago(picture.began, picture.time)}" if picture.began else ""
    first = Text.assemble(
        ("logroute", TITLE), f" {visible(picture.version)}  pid {picture.pid}{up}", no_wrap=True, end=""
    )
    if chosen.trouble:
        first.append("  GONE", BAD)
    first.append(f"  {picture.time[11:19]} UTC", DIM)
    down = sum(words.state(route.books) != "up" for route in picture.routes.values())
    routes = len(picture.routes)
    first.append(f"  {routes} route{'' if routes == 1 else 's'}")
    first.append(f", {down} not well" if down else ", all well", BAD if down else GOOD)
    unmatched = words.rate(picture.unmatched_rate)
    second = (
        f"read {words.rate(picture.read('records'))}/s {words.size(picture.read('bytes'))}/s"
        f"  in {words.rate(picture.total('received'))}/s"
        f"  delivered {words.rate(picture.total('delivered'))}/s"
        f" {words.size(picture.total('delivered_bytes'))}/s"
        f"  unmatched {unmatched}/s"
    )
    third = "sources  " + "  ".join(
        f"{name} {words.rate(read.records)}/s" for name, read in picture.sources.items()
    )
    lines = [first, text_of(second, width), text_of(third, width)]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    if height < LOW:
        return lines[:1]
    return lines if len(picture.sources) > 1 else lines[:2]


def columns_for(width: int, names: Sequence[str]) -> tuple[int, list[Column]]:
    """How wide names are, and which columns there is room for beside them."""
    widest = max(cell_len(visible(name)) for name in (*names, "ROUTE")) + 2
    least = min(NARROWEST_NAME, widest)
    kept: list[Column] = []
    room = width - least
    for column in sorted(COLUMNS, key=lambda column: column.rank):
        # Names in full are worth more than what a route's page says as well.
        spare = 0 if column.rank < BETTER_NAMES else min(WIDEST_NAME, max(0, widest - least))
        if column.width + 1 > room - spare:
            break
        kept.append(column)
        room -= column.width + 1
    name = min(least + room, max(least, widest), WIDEST_NAME)
    return max(1, min(name, width)), [column for column in COLUMNS if column in kept]


def route_rows(
    picture: Picture, chosen: Chosen, width: int, names: Sequence[str]
) -> list[tuple[str, list[Text]]]:
    """The lines of each route: its numbers, and if something is wrong, what."""
    name_width, columns = columns_for(width, names)
    rows = []
    for name in names:
        route = picture.routes[name]
        selected = name == chosen.route
        line = cell(("> " if selected else "  ") + name, name_width, right=False)
        for column in columns:
            line.append(" ")
            line.append_text(cell(column.cell(route), column.width, column.style(route)))
        if selected:
            line.pad_right(max(0, width - line.cell_len))
            line.stylize(SELECTED)
        lines = [line]
        if remark := _remark(route.books, picture.time):
            lines.append(text_of(f"    {remark[0]}", width, remark[1]))
        rows.append((name, lines))
    return rows


def _remark(books: RouteBooks, now: str) -> tuple[str, str] | None:
    """What stands below a route's numbers, and its style: what is wrong, or was a short while ago."""
    if trouble := words.trouble(books):
        since = "" if books.up else f"for {ago(books.since, now)}: "
        return since + trouble, BAD if words.state(books) == "down" else WARN
    if books.last_error and 0 <= words.seconds_between(books.failed, now) <= ERROR_LASTS_S:
        return f"{ago(books.failed, now)} ago: {books.last_error}", DIM
    return None


def route_title(width: int, names: Sequence[str]) -> Text:
    name_width, columns = columns_for(width, names)
    line = cell("  ROUTE", name_width, right=False)
    for column in columns:
        line.append_text(cell(column.title, column.width + 1))
    line.stylize(TITLE)
    return line


def talker_lines(talkers: Sequence[Talker], width: int, count: int) -> list[Text]:
    """The noisiest containers, under their title."""
    shown = TALKER_COLUMNS if width >= WIDE else TALKER_COLUMNS[:2]
    widest = max((cell_len(visible(each.books.name)) for each in talkers), default=0) + 2
    room = width - sum(column + 1 for _, column in shown) - (ID_WIDTH if width >= WIDE else 0)
    name_width = max(1, min(max(widest, NARROWEST_NAME), room, WIDEST_NAME))

    def row(name: str, id_: str, *numbers: str) -> Text:
        line = cell(f"  {name}", name_width, right=False)
        for number, (_, column) in zip(numbers, shown, strict=False):
            line.append_text(cell(number, column + 1))
        if width >= WIDE and id_:
            line.append_text(text_of(f"  {id_}", ID_WIDTH, DIM))
        line.truncate(width)
        return line

    title = row("NOISIEST", "ID", *(title for title, _ in TALKER_COLUMNS))
    title.stylize(TITLE)
    return [title] + [
        row(
            each.books.name,
            each.books.id[:12],
            words.rate(each.rates.records),
            words.size(each.rates.bytes),
            words.count(each.books.records),
            words.size(each.books.bytes),
        )
        for each in talkers[:count]
    ]


# --- the screen ---------------------------------------------------------------------------------------


def foot(chosen: Chosen, width: int) -> Text:
    """What came of the last key, what is wrong, or what keys there are."""
    if chosen.trouble:
        return text_of(chosen.trouble, width, BAD)
    if chosen.message:
        return text_of(chosen.message, width, TITLE)
    sort = f"s sort: {chosen.order}"
    for keys in (
        f"q quit  ↑↓ select  ⏎ detail  p pause  r resume  {sort}  ? help",
        f"q ↑↓ ⏎ p r  {sort}  ? help",
    ):
        if cell_len(keys) <= width:
            break
    return text_of(keys, width, DIM)


def screen(picture: Picture, chosen: Chosen, width: int, height: int) -> list[Text]:
    """All of it: exactly `height` lines, none wider than `width`."""
    names = in_order(picture, chosen.order)
    above = head(picture, chosen, width, height)
    rows = route_rows(picture, chosen, width, names)
    wanted = sum(len(lines) for _, lines in rows)
    gap = 1 if height >= LOW else 0
    room = height - len(above) - 1 - 1 - gap
    talkers = min(MOST_TALKERS, len(picture.containers))
    # The routes come first; but a third of what there is stays for who is noisy.
    below = max(room - wanted, room // 3) - 1 - gap
    talkers = min(talkers, below) if below >= 2 else 0
    room -= talkers + 1 + gap if talkers else 0
    lines = [*above, *[Text()] * gap, route_title(width, names)]
    lines += window(rows, chosen.route, room)
    if not names:
        lines.append(text_of("  there are no routes", width, DIM))
    if talkers:
        lines += [*[Text()] * gap, *talker_lines(picture.containers, width, talkers)]
    return filled(lines, foot(chosen, width), height)


def filled(lines: Sequence[Text], last: Text, height: int) -> list[Text]:
    """So many lines, of which this is the last."""
    body = list(lines[: max(0, height - 1)])
    body += [Text()] * (height - 1 - len(body))
    return [*body, last][:height] if height > 0 else []


def window(rows: Sequence[tuple[str, list[Text]]], selected: str, room: int) -> list[Text]:
    """The lines that fit, with the route that is selected among them."""
    lines: list[Text] = []
    end = 0
    for name, some in rows:
        lines += some
        if name == selected:
            end = len(lines)
    first = max(0, min(end - room, len(lines) - room))
    return lines[first : first + max(0, room)]


def plain(picture: Picture, width: int) -> list[str]:
    """All of it once, for a pipe."""
    names = in_order(picture, "configured")
    nothing = Chosen()
    lines = [*head(picture, nothing, width, LOW), Text(), route_title(width, names)]
    lines += [line for _, some in route_rows(picture, nothing, width, names) for line in some]
    if picture.containers:
        lines += [Text(), *talker_lines(picture.containers, width, MOST_TALKERS)]
    return [line.plain.rstrip() for line in lines]


HELP = """\
↑ ↓  k j     select a route; Home End, g G: the first, the last
⏎            everything of its books, why, its last dead letters
Esc          back
p  r         pause, resume the route that is selected
s  S         sort by what comes next, before
Ctrl-L       paint all of it again
q  Ctrl-C    quit

IN/s OUT/s   records received and delivered, a second
QUEUE SPOOL  records that wait in memory, and on the disk
FLIGHT       records in deliveries that are under way
LAG          age of the oldest record that is not acknowledged
RETRY        records that are sent again, a second
REJ DROP     rejected, and given up, since the daemon began
DEAD         dead letters that are kept: logroute deadletters

NOISIEST     containers by what was read of them since the look before\
"""


def help_screen(chosen: Chosen, width: int, height: int, first: int) -> list[Text]:
    lines = [text_of(line, width) for line in HELP.splitlines()]
    return scrolled("Keys, and what stands there", lines, chosen, width, height, first)


def scrolled(
    title: str, lines: Sequence[Text], chosen: Chosen, width: int, height: int, first: int
) -> list[Text]:
    """A page under a title, from one of its lines on."""
    room = max(1, height - 2)
    first = last_first(len(lines), first, height)
    left = len(lines) - first - room
    keys = "Esc back  q quit" + (f"  ↑↓ {left} more line{'' if left == 1 else 's'}" if left > 0 else "")
    last = text_of(keys, width, DIM)
    if chosen.trouble or chosen.message:
        last = foot(chosen, width)
    return filled([text_of(title, width, TITLE), *lines[first : first + room]], last, height)


def last_first(lines: int, first: int, height: int) -> int:
    """A first line of a page, no further than that its last one stands at the bottom."""
    return max(0, min(first, lines - max(1, height - 2)))
