"""`logroute spool`: what waits on the disk for receivers that are down, or slow.

Reads the files of the state directory, whether a daemon runs or not, and changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import click
import msgspec

from logroute.api.client import ApiError, NoDaemon
from logroute.cli.place import (
    Place,
    default_state_dir,
    place_of,
    place_options,
    state_dir_of_daemon,
    where_options,
)
from logroute.cli.tables import size, table, when
from logroute.config.problems import ConfigError
from logroute.router.database import StateError
from logroute.router.stored_spool import SpoolSummary, Unreadable, rows, summary
from logroute.router.visible import visible
from logroute.sinks.encoding import encoder

USAGE = 2


class Waiting(msgspec.Struct, frozen=True):
    """What `list -o json` says of a route."""

    records: int
    bytes: int
    stored_bytes: int
    oldest: str | None
    age_s: float | None
    """How long ago the oldest record was written."""
    damaged: int


@click.group("spool")
def command() -> None:
    """What waits on the disk for receivers that are down, or slow. Changes nothing.

    \b
    logroute spool list              how much waits, by route
    logroute spool show search       the records, in the order of delivery
    logroute spool show search -n 5  the first five
    """


@command.command("list")
@place_options
def list_spools(**place: Any) -> None:
    """How much waits, by route, and since when."""
    where = place_of(**place)
    with _state_dir(where) as state_dir:
        found = {name: summary(path) for name, path in _routes(state_dir).items()}
    now = datetime.now(UTC)
    if where.output == "json":
        click.echo(msgspec.json.encode({name: _waiting(of, now) for name, of in found.items()}).decode())
    else:
        for line in _lines(found, now):
            click.echo(line)


@command.command("show")
@click.argument("route")
@click.option("-n", "--count", type=click.IntRange(min=1), help="Only so many records; else all.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]),
    help="How to write them; else text on a terminal, JSON elsewhere.",
)  # fmt: skip
@where_options
def show(route: str, count: int | None, output: str | None, **place: Any) -> None:
    """The records that wait, in the order in which they will be delivered."""
    terminal = sys.stdout.isatty()
    encode = encoder(output or ("text" if terminal else "json"))
    left = count if count is not None else sys.maxsize
    lost = 0
    with _state_dir(place_of(**place, output="text")) as state_dir:
        for batches in rows(_path(state_dir, route)):
            if isinstance(batches, Unreadable):
                lost += batches.records
                click.echo(
                    f"row {batches.row} of route {visible(route)} cannot be read, with its {batches.records} "
                    f"records: {visible(batches.reason)}",
                    err=True,
                )
                continue
            for batch in batches:
                wanted = batch.with_records(batch.records[:left])
                left -= len(wanted)
                data = encode(wanted)
                # JSON as well: a terminal knows controls above ASCII, which JSON does not escape.
                click.echo(visible(data.decode()).encode() if terminal else data, nl=False)
                if not left:
                    break
            if not left:
                break
    if lost:
        sys.exit(1)


# --- where it is --------------------------------------------------------------------------------------


@contextmanager
def _state_dir(place: Place) -> Iterator[Path]:
    """The state directory. Ends the program with what is wrong, and what to type."""
    try:
        state_dir = _find(place)
        if not (state_dir / "routes").is_dir():
            raise StateError(f"{state_dir} is no state_dir: there is no folder `routes` in it")
        yield state_dir
    except (ApiError, NoDaemon, StateError) as error:
        click.echo(visible(str(error)), err=True)
        sys.exit(1)
    except (ConfigError, ValueError) as error:
        click.echo(visible(str(error)), err=True)
        sys.exit(USAGE)


def _find(place: Place) -> Path:
    """As it was named, or the running daemon's, or where one would keep it. Raises StateError and others."""
    if place.state_dir is not None:
        return Path(place.state_dir)
    found = None
    if place.api is not None:
        found = state_dir_of_daemon(place)
    else:
        with suppress(NoDaemon):
            found = state_dir_of_daemon(place)
        found = found or default_state_dir(place)
    if found is None:
        raise StateError(
            "there is no state_dir, so nothing waits on the disk; name another one: --state-dir DIR"
        )
    return found


def _routes(state_dir: Path) -> dict[str, Path]:
    return {unquote(path.stem): path for path in sorted((state_dir / "routes").glob("*.db"))}


def _path(state_dir: Path, route: str) -> Path:
    path = state_dir / "routes" / f"{quote(route, safe='')}.db"
    if not path.exists():
        known = ", ".join(_routes(state_dir)) or "none"
        raise StateError(f"there is no route {route} in {state_dir}; there are: {known}")
    return path


# --- how it is said -----------------------------------------------------------------------------------


def _waiting(of: SpoolSummary, now: datetime) -> Waiting:
    return Waiting(
        of.records, of.bytes, of.stored_bytes, of.oldest or None, _age_s(of.oldest, now), of.damaged
    )


def _age_s(time: str, now: datetime) -> float | None:
    """None where there is no time, or none that can be read."""
    try:
        return max(0.0, (now - datetime.fromisoformat(time)).total_seconds())
    except ValueError:
        return None


def _lines(found: dict[str, SpoolSummary], now: datetime) -> list[str]:
    lines = [
        (
            visible(name),
            str(of.records),
            size(of.bytes),
            size(of.stored_bytes),
            when(visible(of.oldest)),
            _age(_age_s(of.oldest, now)),
        )
        for name, of in found.items()
    ]
    return [
        *table(("ROUTE", "RECORDS", "BYTES", "STORED", "OLDEST", "AGE"), lines, right=(1, 2, 3, 5)),
        *(
            f"route {visible(name)}: {of.damaged} more records could not be read, and were put aside"
            for name, of in found.items()
            if of.damaged
        ),
    ]


def _age(seconds: float | None) -> str:
    """In its two largest units."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    first = next((index for index, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(f"{number}{unit}" for number, unit in parts[first : first + 2])
