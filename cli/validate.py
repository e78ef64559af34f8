"""`logroute validate`: every mistake of a configuration, with its place."""

from __future__ import annotations

import json
import sys

import click
import msgspec

from logroute.cli.test import NO_CONFIGURATION, run_tests
from logroute.config.load import LoadedConfig, find_config, load_config
from logroute.config.problems import ConfigError, Problem


def _what_run_refuses(loaded: LoadedConfig) -> tuple[list[Problem], list[Problem]]:
    """What is valid, and `logroute run` would say all the same, in the same words: anywhere; and on this
    machine, which need not be the one that it is for.
    """
    from logroute.cli.run import api_of
    from logroute.config.plans import unusable

    anywhere: list[Problem] = []
    here = unusable(loaded)
    try:
        api_of(loaded.config, None)
    except ConfigError as error:
        for problem in error.problems:
            at = loaded.place_of(tuple(problem.path.split(".")) if problem.path else ("api", "listen"))
            said = msgspec.structs.replace(at, message=problem.message.removeprefix("--listen: "))
            (here if problem.path == "api.token_file" else anywhere).append(said)
    return anywhere, sorted(here, key=lambda each: (each.file != str(loaded.files[0]), each.line))


@click.command("validate")
@click.option("-c", "--config", "config_file", type=click.Path(), metavar="FILE", help="Configuration file.")
@click.option(
    "--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="How to say it.",
)  # fmt: skip
def command(config_file: str | None, format_: str) -> None:
    """Check a configuration, run its tests, and name every mistake. Exit code 0, or 2."""
    path = find_config(config_file)
    try:
        if path is None:
            raise ConfigError([Problem(NO_CONFIGURATION)])
        loaded = load_config(path)
        anywhere, here = _what_run_refuses(loaded)
        if anywhere:
            raise ConfigError(anywhere)
        if problems := [problem for verdict in run_tests(loaded) for problem in verdict.problems()]:
            raise ConfigError(problems)
    except ConfigError as error:
        if format_ == "json":
            click.echo(json.dumps({"valid": False, "problems": [p.to_json() for p in error.problems]}))
        else:
            click.echo(str(error))
        sys.exit(2)
    routes, sources = list(loaded.config.routes), list(loaded.config.sources)
    files = [str(file) for file in loaded.files]
    if format_ == "json":
        valid = {"valid": True, "files": files, "routes": routes, "sources": sources}
        click.echo(json.dumps(valid | ({"here": [each.to_json() for each in here]} if here else {})))
    else:
        for each in here:
            click.echo(f"on this machine `logroute run` would refuse it: {each}", err=True)
        click.echo(f"{', '.join(files)}: valid. Routes: {', '.join(routes)}. Sources: {', '.join(sources)}.")
