"""`logroute health`: whether all routes deliver, for health checks of containers and for people."""

from __future__ import annotations

import sys

import click
import msgspec

from logroute.api.books import Health, RouteHealth
from logroute.cli.asking import ask, asking_options
from logroute.router.visible import visible


@click.command("health")
@asking_options
def command(api: str | None, token_file: str | None, output: str) -> None:
    """Say of each route whether it delivers, and of sources what they cannot read.

    Exit code 0 if all is well, 1 if not, or if no daemon answers.
    """
    health = ask(api, token_file, lambda client: client.get("/v1/health", Health))
    if output == "json":
        click.echo(msgspec.json.encode(health).decode())
    else:
        width = max(map(len, health.routes), default=0)
        for name, route in health.routes.items():
            click.echo(f"{visible(name):<{width}}  {visible(_words(route))}")
        for name, source in health.sources.items():
            for note in source.notes:
                click.echo(f"source {visible(name)}: {visible(note)}")
        for name, processor in health.processors.items():
            for note in processor.notes:
                click.echo(f"processor {visible(name)}: {visible(note)}")
    sys.exit(0 if health.healthy else 1)


def _words(route: RouteHealth) -> str:
    if route.delivers:
        return "; ".join(("delivers", *route.notes))
    if route.paused:
        return "; ".join((route.reason, *route.notes))
    since = f"{route.since[:10]} {route.since[11:19]} UTC"
    return "; ".join((f"down since {since}: {route.reason}", *route.notes))
