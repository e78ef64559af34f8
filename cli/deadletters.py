"""`logroute deadletters`: records that a receiver will never take: which, why, and what shall become of them.

Asks the daemon; where none runs, opens its state itself.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import click
import msgspec

from logroute.api.client import ApiError, Client, NoDaemon, find_daemon, in_path
from logroute.api.letters import MOST_LISTED, MOST_NAMED, Dropped, Page, Replayed, Summaries, WholeLetter
from logroute.cli.asking import Verbs
from logroute.cli.names import route_names
from logroute.cli.place import Place, configured_api, default_state_dir, place_of, place_options
from logroute.cli.stored_letters import letters_in
from logroute.cli.tables import cut, size, table, terminal_width, when
from logroute.config.problems import ConfigError
from logroute.router.database import StateError
from logroute.router.dead_letters import Summary
from logroute.router.visible import visible

USAGE = 2
REASON_LINES = 4
"""Of a reason, in a list."""


class Letters(Protocol):
    """Where they are: in a daemon, or in the state of one that does not run."""

    where: str

    def summaries(self) -> dict[str, Summary]: ...
    def page(self, route: str, after: int, count: int) -> Page: ...
    def whole(self, route: str, id_: int) -> WholeLetter: ...
    def replay(self, route: str, ids: Sequence[int] | None) -> int: ...
    def drop(self, route: str, ids: Sequence[int] | None) -> int: ...


class AskedLetters:
    """Those of a running daemon. Every method raises ApiError or NoDaemon."""

    where = "the running daemon"

    def __init__(self, client: Client) -> None:
        self._client = client

    def summaries(self) -> dict[str, Summary]:
        return self._client.get("/v1/deadletters", Summaries).routes

    def page(self, route: str, after: int, count: int) -> Page:
        return self._client.get(f"/v1/routes/{in_path(route)}/deadletters", Page, after=after, count=count)

    def whole(self, route: str, id_: int) -> WholeLetter:
        return self._client.get(f"/v1/routes/{in_path(route)}/deadletters/{id_}", WholeLetter)

    def replay(self, route: str, ids: Sequence[int] | None) -> int:
        path = f"/v1/routes/{in_path(route)}/deadletters/replay"
        parts = [None] if ids is None else _parts(ids)
        return sum(self._client.ask("POST", path, Replayed, body={"ids": part}).replayed for part in parts)

    def drop(self, route: str, ids: Sequence[int] | None) -> int:
        path = f"/v1/routes/{in_path(route)}/deadletters"
        if ids is None:
            return self._client.ask("DELETE", path, Dropped, all="true").dropped
        return sum(
            self._client.ask("DELETE", path, Dropped, ids=",".join(map(str, part))).dropped
            for part in _parts(ids)
        )


def _parts(ids: Sequence[int]) -> list[Sequence[int]]:
    return [ids[first : first + MOST_NAMED] for first in range(0, len(ids), MOST_NAMED)]


@click.group("deadletters", cls=Verbs)
def command() -> None:
    """Records that a receiver will never take: see why, deliver them again, or drop them.

    \b
    logroute deadletters                      how many there are, by route
    logroute deadletters list search          those of one route
    logroute deadletters show search 17       one of them, with its record
    logroute deadletters replay search --all  deliver them again
    """


@command.command("list")
@click.argument("route", required=False, shell_complete=route_names)
@click.option("--after", default=0, metavar="ID", help="Only later ones.")
@click.option("-n", "--count", type=click.IntRange(1, MOST_LISTED), default=50, show_default=True)
@place_options
def list_letters(route: str | None, after: int, count: int, **place: Any) -> None:
    """How many there are, by route; or those of one route."""
    where = place_of(**place)
    with _letters(where) as letters:
        if route is None:
            summaries = letters.summaries()
            _say(where, summaries, lambda: _summary_lines(summaries))
        else:
            page = letters.page(route, after, count)
            _say(where, page, lambda: _page_lines(route, page))


@command.command("show")
@click.argument("route", shell_complete=route_names)
@click.argument("id_", metavar="ID", type=click.IntRange(1, (1 << 63) - 1))
@place_options
def show(route: str, id_: int, **place: Any) -> None:
    """One of them: why, and its whole record."""
    where = place_of(**place)
    with _letters(where) as letters:
        letter = letters.whole(route, id_)
        _say(where, letter, lambda: _whole_lines(route, letter))


@command.command("replay")
@click.argument("route", shell_complete=route_names)
@click.argument("ids", metavar="[ID]...", nargs=-1, type=click.IntRange(1, (1 << 63) - 1))
@click.option("--all", "all_", is_flag=True, help="All of this route.")
@place_options
def replay(route: str, ids: tuple[int, ...], all_: bool, **place: Any) -> None:
    """Deliver them again, behind what waits. One that is rejected again is a new dead letter."""
    where, wanted = place_of(**place), _wanted(ids, all_)
    with _letters(where) as letters:
        done = letters.replay(route, wanted)
        when = "" if letters.where == AskedLetters.where else "; they are delivered when the daemon runs"
        _say(where, Replayed(done), lambda: [f"{_count(done, wanted)} replayed{when}"])
    _all_found(done, wanted)


@command.command("drop")
@click.argument("route", shell_complete=route_names)
@click.argument("ids", metavar="[ID]...", nargs=-1, type=click.IntRange(1, (1 << 63) - 1))
@click.option("--all", "all_", is_flag=True, help="All of this route.")
@place_options
def drop(route: str, ids: tuple[int, ...], all_: bool, **place: Any) -> None:
    """Forget them, for good."""
    where, wanted = place_of(**place), _wanted(ids, all_)
    with _letters(where) as letters:
        done = letters.drop(route, wanted)
        _say(where, Dropped(done), lambda: [f"{_count(done, wanted)} dropped"])
    _all_found(done, wanted)


def _wanted(ids: tuple[int, ...], all_: bool) -> list[int] | None:
    if bool(ids) == all_:
        raise click.UsageError("say which: their numbers, or --all")
    return None if all_ else sorted(set(ids))


def _count(done: int, wanted: list[int] | None) -> str:
    of = f" of {len(wanted)}" if wanted is not None and len(wanted) != done else ""
    return f"{done}{of} dead letter{'' if done == 1 and not of else 's'}"


def _all_found(done: int, wanted: list[int] | None) -> None:
    if wanted is not None and done < len(wanted):
        click.echo("the others are not there: they were replayed, or dropped, before", err=True)
        sys.exit(1)


# --- where they are -----------------------------------------------------------------------------------


@contextmanager
def _letters(place: Place) -> Iterator[Letters]:
    """The daemon's, or those in its state. Ends the program with what is wrong, and what to type."""
    try:
        with _found(place) as letters:
            yield letters
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(USAGE)
    except (ApiError, StateError) as error:
        click.echo(visible(str(error)), err=True)
        sys.exit(1)
    except NoDaemon as error:
        click.echo(visible(f"{error}; {_AND_NO_STATE if place.api is None else 'is it running?'}"), err=True)
        sys.exit(1)
    except ValueError as error:
        click.echo(visible(str(error)), err=True)
        sys.exit(USAGE)


_AND_NO_STATE = (
    "and no state of one was found. Say where it is: --api URL if it runs, --state-dir DIR or -c FILE if not"
)


@contextmanager
def _found(place: Place) -> Iterator[Letters]:
    """Raises NoDaemon where there is neither."""
    if place.state_dir is not None and place.api is None:
        with _in_state_dir(Path(place.state_dir), place) as letters:
            yield letters
        return
    try:
        with find_daemon(place.api or configured_api(place), place.token_file) as client:
            letters = AskedLetters(client)
            letters.summaries()
            yield letters
            return
    except NoDaemon:
        state_dir = None if place.api is not None else default_state_dir(place)
        if state_dir is None or not (state_dir / "routes").is_dir():
            raise
    with letters_in(state_dir) as stored:
        yield stored


@contextmanager
def _in_state_dir(state_dir: Path, place: Place) -> Iterator[Letters]:
    """This state; where a daemon uses it, that daemon's."""
    from logroute.api.books import Stats

    try:
        held = letters_in(state_dir)
        stored = held.__enter__()
    except StateError:
        with suppress(NoDaemon, ApiError), find_daemon(configured_api(place), place.token_file) as client:
            of = client.get("/v1/stats", Stats).daemon.state_dir
            if of and os.path.realpath(of) == os.path.realpath(state_dir):
                yield AskedLetters(client)
                return
        raise
    try:
        yield stored
    finally:
        held.__exit__(None, None, None)


# --- how it is said -----------------------------------------------------------------------------------


def _say(place: Place, value: Any, lines: Callable[[], Sequence[str]]) -> None:
    if place.output == "json":
        click.echo(msgspec.json.encode(value).decode())
    else:
        for line in lines():
            click.echo(line)


def _summary_lines(summaries: dict[str, Summary]) -> list[str]:
    if not any(summary.letters for summary in summaries.values()):
        return ["there are no dead letters"]
    rows = [
        (visible(name), str(of.letters), size(of.size_bytes), when(of.oldest), when(of.newest))
        for name, of in summaries.items()
    ]
    return table(("ROUTE", "LETTERS", "SIZE", "OLDEST", "NEWEST"), rows, right=(1, 2))


def _page_lines(route: str, page: Page) -> list[str]:
    if not page.letters:
        return [f"route {visible(route)} has no dead letters" + (" after that" if page.next else "")]
    lines = []
    width = terminal_width()
    for letter in page.letters:
        lines += [
            cut(f"{letter.id:>6}  {when(letter.failed)}  {visible(letter.container)}", width),
            *_wrapped(_one_line(letter.reason), width),
            cut(f"        > {_one_line(letter.message)}", width),
        ]
    if page.next:
        lines.append(f"there are more: --after {page.next}")
    return lines


def _whole_lines(route: str, letter: WholeLetter) -> list[str]:
    record = msgspec.json.format(bytes(letter.record), indent=2).decode()
    return [
        f"route      {visible(route)}",
        f"container  {visible(letter.container)}",
        f"rejected   {letter.failed}",
        f"reason     {visible(letter.reason)}",
        "record",
        *(f"  {visible(line)}" for line in record.splitlines()),
    ]


def _wrapped(text: str, width: int) -> list[str]:
    """What a receiver says often has the point at its end: a few lines of it."""
    indent = " " * 8
    return textwrap.wrap(
        text,
        max(width, 20),
        initial_indent=indent,
        subsequent_indent=indent,
        max_lines=REASON_LINES,
        placeholder=" …",
    )


def _one_line(text: str) -> str:
    return visible(text.replace("\t", " ")).replace("\n", " ⏎ ")
