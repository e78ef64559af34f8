"""`logroute test`: run the configuration's own `tests:`, without an engine, a sink or the network."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click
import msgspec
import trio

from logroute.config.checks import CheckOptions, Difference, differences
from logroute.config.load import LoadedConfig, find_config, load_config
from logroute.config.problems import ConfigError, Problem

if TYPE_CHECKING:
    from logroute.config.model import Config

NO_CONFIGURATION = (
    "there is no configuration: give one with -c FILE, $LOGROUTE_CONFIG, ./logroute.yaml or "
    "/etc/logroute/logroute.yaml"
)


class Verdict(msgspec.Struct, frozen=True):
    """One test, and what of it does not hold."""

    check: CheckOptions
    place: Problem
    differences: list[Difference]

    def problems(self) -> list[Problem]:
        """Each difference as a mistake of the configuration."""
        return [
            msgspec.structs.replace(self.place, message=f'test "{self.check.name}": {difference}')
            for difference in self.differences
        ]


def run_tests(loaded: LoadedConfig) -> list[Verdict]:
    """Every test, in the order of the configuration. Raises ConfigError where a processor cannot be made."""
    from logroute.config.plans import unusable

    if loaded.config.tests and (problems := unusable(loaded, sources=False)):
        raise ConfigError(problems)
    return trio.run(_run, loaded)


async def _run(loaded: LoadedConfig) -> list[Verdict]:
    return [
        Verdict(check, place, await _differences(loaded.config, check))
        for check, place in zip(loaded.config.tests, loaded.tests, strict=True)
    ]


async def _differences(config: Config, check: CheckOptions) -> list[Difference]:
    from logroute.config.plans import plans_before, stage_plans
    from logroute.router.trial import try_out

    # Each begins anew: what a processor remembers of one test is nothing to the next.
    routes = {
        name: (route.match, stage_plans(f"{name}.processors", route.processors))
        for name, route in config.routes.items()
    }
    given = [lines.records() for lines in check.given]
    return differences(check, await try_out(plans_before(config), routes, given))


@click.command("test")
@click.option("-c", "--config", "config_file", type=click.Path(), metavar="FILE", help="Configuration file.")
@click.option(
    "--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="How to say it.",
)  # fmt: skip
def command(config_file: str | None, format_: str) -> None:
    """Run the configuration's own `tests:`. Exit code 0, 1 if one fails, or 2."""
    try:
        path = find_config(config_file)
        if path is None:
            raise ConfigError([Problem(NO_CONFIGURATION)])
        verdicts = run_tests(load_config(path))
    except ConfigError as error:
        if format_ == "json":
            click.echo(json.dumps({"problems": [p.to_json() for p in error.problems]}))
        else:
            click.echo(str(error), err=True)
        sys.exit(2)
    failed = [verdict for verdict in verdicts if verdict.differences]
    if format_ == "json":
        click.echo(json.dumps({"passed": len(verdicts) - len(failed), "failed": list(map(_as_json, failed))}))
    else:
        for verdict in verdicts:
            click.echo("\n".join(_as_text(verdict)))
        click.echo(_summary(verdicts, failed) if verdicts else f"{path}: there are no `tests:` in it.")
    sys.exit(1 if failed else 0)


def _as_text(verdict: Verdict) -> list[str]:
    name = verdict.check.name
    if not verdict.differences:
        return [f"ok    {name}"]
    lines = [f"FAIL  {name}  ({verdict.place})"]
    place = ""
    for difference in verdict.differences:
        if difference.place != place:
            place = difference.place
            lines.append(f"      {place}:")
        lines += [f"      {line}" for line in difference.lines()]
    return lines


def _summary(verdicts: list[Verdict], failed: list[Verdict]) -> str:
    if failed:
        return f"{len(failed)} of {len(verdicts)} tests failed. (-: expected, +: what there is)"
    return f"{len(verdicts)} {'test' if len(verdicts) == 1 else 'tests'} passed."


def _as_json(verdict: Verdict) -> dict[str, object]:
    return {
        "name": verdict.check.name,
        "at": str(verdict.place),
        "differences": [msgspec.to_builtins(difference) for difference in verdict.differences],
    }
