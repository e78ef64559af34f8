"""How commands ask a daemon: the options that say where it is, and what is said where it gives no answer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from logroute.api.client import ApiError, Client, NoDaemon, find_daemon
from logroute.router.visible import visible

T = TypeVar("T")

_OPTIONS = (
    click.option(
        "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to say it."
    ),
    click.option("--token-file", envvar="LOGROUTE_TOKEN_FILE", metavar="FILE", help="Token of an API."),
    click.option("--api", metavar="URL", help="The daemon's API; else $LOGROUTE_API, the default socket."),
)


class Verbs(click.Group):
    """A group that lists where no verb is named; what stands before a verb is the verb's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # what has been typed is to be completed, not to be done
            return super().parse_args(ctx, args)
        valued = {
            name
            for option in self.commands["list"].params
            if isinstance(option, click.Option) and not option.is_flag
            for name in option.opts
        }
        first = 0
        while first < len(args) and args[first].partition("=")[0] in valued:
            first += 1 if "=" in args[first] else 2
        verb = args[first] if first < len(args) else "list"
        if verb in self.commands:
            args = [verb, *args[:first], *args[first + 1 :]]
        elif verb.startswith("-") and args[0] not in ctx.help_option_names:
            args = ["list", *args]
        return super().parse_args(ctx, args)


def asking_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--api`, `--token-file` and `-o`."""
    for option in _OPTIONS:
        command = option(command)
    return command


def ask(api: str | None, token_file: str | None, question: Callable[[Client], T]) -> T:
    """The answer; without one the command ends: 1 where nobody answers, 2 for what makes no sense.

    LookupError, for what there is not, ends it like no answer.
    """
    try:
        with find_daemon(api, token_file) as client:
            return question(client)
    except NoDaemon as error:
        click.echo(visible(f"{error}; {error.advice}"), err=True)
        sys.exit(1)
    except (ApiError, LookupError) as error:
        click.echo(visible(str(error)), err=True)
        sys.exit(2 if isinstance(error, ApiError) and error.is_mistake else 1)
    except ValueError as error:
        click.echo(visible(str(error)), err=True)
        sys.exit(2)
