"""The command line: one module a command, imported when it is called."""

from __future__ import annotations

import importlib
import sys
from typing import Any, NoReturn

import click

from logroute.cli import process

COMMANDS = {
    "run": "Route the logs of containers.",
    "tail": "See what containers say, live.",
    "ps": "List the containers that the daemon sees.",
    "explain": "Say why what a container says arrives, or does not.",
    "routes": "See, make, change, pause and remove routes of a running daemon.",
    "validate": "Check a configuration and name every mistake.",
    "test": "Run the configuration's own tests.",
    "deadletters": "See, deliver again or drop what a receiver has rejected.",
    "spool": "See what waits on the disk for a receiver.",
    "elasticsearch": "Prepare Elasticsearch, or OpenSearch, for records.",
    "top": "Watch the routes live: rates, queues, lag and errors.",
    "health": "Say of each route whether it delivers.",
    "demo": "See it work: containers, routes and a live view.",
    "schema": "Print the JSON Schema of the configuration.",
    "completion": "Print a shell's completion script.",
    "version": "Print the version.",
}
_LOGGING = frozenset(("run", "tail", "ps", "explain", "deadletters", "spool", "top", "health", "demo"))
"""Those that import parts of the daemon, which log."""


class _Commands(click.Group):
    """Imports a command when it is named; suggests the nearest one when it is not known."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        process.begin(logs=cmd_name in _LOGGING)
        command: click.Command = importlib.import_module(f"logroute.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if "://" in args[0]:  # as logspout takes it; it may hold a password
                from logroute.config.uri import shown

                what = f"A URI follows a command: logroute run {shown(args[0])}"
                raise click.UsageError(what, ctx) from None
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(COMMANDS)}."
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list for --help, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: Any) -> None:
    if value:
        from logroute import __version__

        click.echo(f"logroute {__version__}")
        ctx.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with: logroute run file:///tmp/all.ndjson",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Print the version.",
)  # fmt: skip
def main() -> None:
    """Route the logs of containers to files and elsewhere, without losing a line."""


def program(name: str | None = None) -> NoReturn:
    """What a shell calls: `main`, and the process ends with it. Without a name it has that of the script."""
    try:
        main(prog_name=name)
    except SystemExit as ended:
        process.end(ended.code)
    except OSError as error:
        if not _of_standard_output(error):
            raise
        click.echo(f"cannot write to standard output: {error.strerror}", err=True)
        sys.stdout = None  # nothing more is tried there
        process.end(1)
    process.end(0)


def _of_standard_output(error: OSError) -> bool:
    """Whether click could not write what a command says: onto a full disk, perhaps."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is not None and last.tb_frame.f_globals.get("__name__") == "click.utils"
