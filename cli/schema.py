"""`logroute schema`: the JSON Schema of the configuration, for editors."""

from __future__ import annotations

import json

import click

from logroute.config.schema import config_schema


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of the configuration (draft 2020-12), for editors."""
    click.echo(json.dumps(config_schema(), indent=2))
