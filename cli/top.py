"""`logroute top`: the routes live: rates, queues, lag, errors, and who is noisy.

The screen is `top_live`'s, with a library that draws; what is printed once is made here.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click
import msgspec

from logroute.api.client import ApiError, Client, NoDaemon, find_daemon
from logroute.cli import process
from logroute.cli.tables import terminal_width
from logroute.cli.top_rates import Look, Picture, picture_of
from logroute.config.types import parse_duration
from logroute.router.visible import visible

TALKERS = 200
"""Containers that are asked for: of one that was not there before no rate is known."""
LEAST_EVERY_S = 0.5


class _Every(click.ParamType[float]):
    """How often: a duration."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        if not LEAST_EVERY_S <= seconds <= 3600:
            self.fail(f"from 500ms to 1h, not {value}", param, ctx)
        return seconds


class Asker:
    """Asks the daemon for looks. After an error it looks for the daemon anew."""

    def __init__(self, api: str | None, token_file: str | None) -> None:
        self._api = api
        self._token_file = token_file
        self._client: Client | None = None

    def another(self) -> Asker:
        """Of the same daemon, with a connection of its own."""
        return Asker(self._api, self._token_file)

    def client(self) -> Client:
        """Another connection. Raises NoDaemon, ValueError."""
        return find_daemon(self._api, self._token_file)

    def look(self) -> Look:
        """Raises NoDaemon, ApiError, ValueError."""
        from logroute.api.books import Stats
        from logroute.api.top import Top

        client, self._client = self._client or self.client(), None
        try:
            look = Look(client.get("/v1/stats", Stats), client.get("/v1/top", Top, count=TALKERS))
        except BaseException:
            client.__exit__(None, None, None)
            raise
        self._client = client
        return look

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.__exit__(None, None, None)


@click.command("top")
@click.option(
    "--every", type=_Every(), default="1s", show_default=True, help="How often to look; 500ms at least."
)
@click.option(
    "-b", "--batch", is_flag=True, help="Print tables; so it does anyway where there is no terminal."
)
@click.option("-n", "--count", type=click.IntRange(1), help="So many tables, then end; implies --batch.")
@click.option("--api", metavar="URL", help="The daemon's API; else $LOGROUTE_API, the default socket.")
@click.option("--token-file", envvar="LOGROUTE_TOKEN_FILE", metavar="FILE", help="Token of an API.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to say it.")
def command(
    every: float, batch: bool, count: int | None, api: str | None, token_file: str | None, output: str
) -> None:
    """Watch the routes: rates, queues, lag and errors of each, and the noisiest containers.

    On a terminal a live screen, with the keys on its last line; elsewhere one table. `-o json` prints one
    look, with its rates, or COUNT of them.
    """
    asker = Asker(api, token_file)
    live = not (batch or count or output == "json") and _has_screen()
    try:
        first = asker.look()
        if not live:
            _print(asker, first, every, count or 1, output)
            asker.close()
            return
    except NoDaemon as error:
        click.echo(visible(f"{error}; {error.advice}"), err=True)
        sys.exit(1)
    except ApiError as error:
        click.echo(visible(str(error)), err=True)
        sys.exit(1)
    except ValueError as error:
        click.echo(visible(str(error)), err=True)
        sys.exit(2)
    process.drawing()
    from logroute.cli.top_live import watch

    sys.exit(watch(asker, first, every))


def _has_screen() -> bool:
    return (
        sys.stdin.isatty()
        and sys.stdout.isatty()
        and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")
    )


def _print(asker: Asker, before: Look, every: float, count: int, output: str) -> None:
    """Each look with the rates since the one before."""
    for number in range(count):
        time.sleep(every)
        now = asker.look()
        click.echo(_text(picture_of(before, now), output), nl=output == "json" or number == count - 1)
        if output != "json" and number < count - 1:
            click.echo("\n")
        before = now


def _text(picture: Picture, output: str) -> str:
    if output == "json":
        return msgspec.json.encode(picture).decode()
    process.drawing()
    from logroute.cli.top_view import plain

    return "\n".join(plain(picture, terminal_width()))
