"""`logroute ps`: the containers that the daemon sees; how each is read, how far, and which routes take it."""

from __future__ import annotations

import click
import msgspec

from logroute.api.containers import ContainerFacts, Containers
from logroute.cli.asking import ask, asking_options
from logroute.cli.tables import ago, cut, table, terminal_width
from logroute.sinks.stdout import visible


@click.command("ps")
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that are ignored, and have ended.")
@asking_options
def command(everything: bool, api: str | None, token_file: str | None, output: str) -> None:
    """List the containers that the daemon sees: how each is read, and which routes take it.

    LAST is how long ago it said what was read last. READ is marked with `!` where it cannot be read on, or
    where lines are left out; a route where something stands in its way, and with `…` where it is behind:
    `logroute explain CONTAINER` says why.
    """
    found = ask(api, token_file, lambda client: client.get("/v1/containers", Containers))
    if output == "json":
        click.echo(msgspec.json.encode(found).decode())
        return
    shown = [each for each in found.containers if everything or _is_current(each)]
    if not shown:
        click.echo("No container is read." + ("" if everything else " `logroute ps -a` lists all."))
        return
    rows = [_row(each, found.time) for each in shown]
    for line in table(("CONTAINER", "STATE", "READ", "LAST", "ROUTES"), rows, right=[3]):
        click.echo(line)
    left = len(found.containers) - len(shown)
    if left:
        click.echo(cut(f"and {left} that are ignored or have ended: logroute ps -a", terminal_width()))


def _is_current(facts: ContainerFacts) -> bool:
    """It runs, or of what it has said something does not arrive."""
    if facts.read == "ignored":
        return False
    return facts.state == "running" or any(route.waiting for route in facts.taken.values())


def _row(facts: ContainerFacts, now: str) -> tuple[str, ...]:
    if facts.read == "ignored":
        routes = facts.reason
    elif not facts.taken:
        routes = "none"
    else:
        routes = ", ".join(
            name + ("!" if route.in_the_way else "…" if route.behind or route.waiting else "")
            for name, route in facts.taken.items()
        )
    marked = facts.corrupt_lines or (facts.reason and facts.read in ("file", "api"))
    read = facts.read + ("!" if marked else "")
    return visible(facts.name), facts.state, read, ago(facts.last_record, now), visible(routes)
