"""`logroute version`."""

from __future__ import annotations

import click

from logroute import __version__


@click.command("version")
def command() -> None:
    """Print the version."""
    click.echo(f"logroute {__version__}")
