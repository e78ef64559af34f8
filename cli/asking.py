"""How commands ask a daemon: the options that say where it is, and what is said where it gives no answer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from logroute.api.client import ApiError, Client, NoDaemon, find_daemon
from logroute.sinks.stdout import visible

T = TypeVar("T")

_OPTIONS = (
    click.option(
        "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to say it."
    ),
    click.option("--token-file", envvar="LOGROUTE_TOKEN_FILE", metavar="FILE", help="Token of an API."),
    click.option("--api", metavar="URL", help="The daemon's API; else $LOGROUTE_API, the default socket."),
)


def asking_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--api`, `--token-file` and `-o`."""
    for option in _OPTIONS:
        command = option(command)
    return command


def ask(api: str | None, token_file: str | None, question: Callable[[Client], T]) -> T:
    """The answer; without one the command ends: 1 where nobody answers, 2 for an address that is none.

    LookupError, for what there is not, ends it like no answer.
    """
    try:
        with find_daemon(api, token_file) as client:
            return question(client)
    except (NoDaemon, ApiError, LookupError) as error:
        click.echo(visible(str(error)), err=True)
        sys.exit(1)
    except ValueError as error:
        click.echo(visible(str(error)), err=True)
        sys.exit(2)
