"""`logroute ps`: the containers that the daemon sees; how each is read, how far, and which routes take it."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

from logroute.api.containers import ContainerFacts, Containers
from logroute.cli.asking import ask, asking_options
from logroute.cli.columns import cells, fitted
from logroute.cli.tables import ago, aligned, cut, room, terminal_width, when
from logroute.router.visible import visible

HEAD = ("CONTAINER", "STATE", "READ", "READ TO", "LAST", "LAG", "ROUTES")
RIGHT = ("LAST", "LAG")
SPARED = ("READ TO", "LAG", "STATE")
"""Columns that a narrow terminal goes without, these first."""
ROUTES_CELLS = 24
"""Where routes have less, further columns are spared."""
NAME_CELLS = 16
"""A name has at least so many, or half of the terminal."""


@click.command("ps")
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that are ignored, and have ended.")
@asking_options
def command(everything: bool, api: str | None, token_file: str | None, output: str) -> None:
    """List the containers that the daemon sees: how each is read, and which routes take it.

    READ TO is the time of the record that was read last, LAST how long ago that was, LAG how much of what was
    read is not delivered. READ is marked with `!` where it cannot be read on, or where lines are left out; a
    route where something stands in its way, and with `…` where it is behind: `logroute explain CONTAINER`
    says why. A narrow terminal shows fewer columns.
    """
    found = ask(api, token_file, lambda client: client.get("/v1/containers", Containers))
    if output == "json":
        click.echo(msgspec.json.encode(found).decode())
        return
    shown = [each for each in found.containers if everything or _is_current(each)]
    if not shown:
        click.echo("No container is read." + ("" if everything else " `logroute ps -a` lists all."))
        return
    for line in lines(shown, found.time, room()):
        click.echo(line)
    left = len(found.containers) - len(shown)
    if left:
        click.echo(cut(f"and {left} that are ignored or have ended: logroute ps -a", terminal_width()))


def _is_current(facts: ContainerFacts) -> bool:
    """It runs, or of what it has said something does not arrive."""
    if facts.read == "ignored":
        return False
    return facts.state == "running" or any(route.waiting for route in facts.taken.values())


def lines(containers: Sequence[ContainerFacts], now: str, width: int | None) -> list[str]:
    """A table in so many columns; None: as wide as it is."""
    columns = list(HEAD)
    table = [dict(zip(HEAD, (*_row(each, now), ""), strict=True)) for each in containers]
    routes = [_routes(each) for each in containers]

    def made(room: int | None) -> list[str]:
        rows = [
            [_fitting(names, room) if column == "ROUTES" else row[column] for column in columns]
            for row, names in zip(table, routes, strict=True)
        ]
        right = [columns.index(each) for each in RIGHT if each in columns]
        return aligned(columns, rows, right=right)

    if width is None:
        return made(None)
    for row in table:  # one long name would push out of sight what is said of all
        row["CONTAINER"] = fitted(row["CONTAINER"], max(NAME_CELLS, width // 2)).rstrip()
    widest = max(cells(", ".join(names)) for names in routes)
    for spared in (None, *SPARED):
        if spared is not None:
            columns.remove(spared)
        # A head stands over everything, so that what is left of the width is seen of it.
        room = width - made(0)[0].index("ROUTES")
        if room >= min(widest, ROUTES_CELLS):
            break
    return [cut(line, width) for line in made(max(0, room))]


def _row(facts: ContainerFacts, now: str) -> tuple[str, ...]:
    """All but the routes."""
    marked = facts.corrupt_lines or (facts.reason and facts.read in ("file", "api"))
    read = facts.read + ("!" if marked else "")
    last = facts.last_record
    return visible(facts.name), facts.state, read, when(last), ago(last, now), _lag(facts)


def _lag(facts: ContainerFacts) -> str:
    """From the last record that was read back to the last that its slowest route has acknowledged."""
    if not facts.taken or not facts.last_record:
        return "-"
    late = [route.acknowledged for route in facts.taken.values() if route.waiting or route.behind]
    if not late:
        return "0s"
    return ago(min(late), facts.last_record) if all(late) else "all"


def _routes(facts: ContainerFacts) -> list[str]:
    if facts.read == "ignored":
        return [visible(facts.reason)]
    return [
        visible(name) + ("!" if route.in_the_way else "…" if route.behind or route.waiting else "")
        for name, route in facts.taken.items()
    ] or ["none"]


def _fitting(names: Sequence[str], room: int | None) -> str:
    """As many as there is room for, and how many more there are: a mark stays with its name, and in sight."""
    whole = ", ".join(names)
    if room is None or cells(whole) <= room or len(names) == 1:
        return whole
    # Those that somebody looks for first.
    names = sorted(names, key=lambda name: not name.endswith("!"))
    for shown in range(len(names) - 1, 0, -1):
        text = f"{', '.join(names[:shown])} +{len(names) - shown}"
        if cells(text) <= room:
            return text
    return f"{len(names)} routes" + ("!" if names[0].endswith("!") else "")
