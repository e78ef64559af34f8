"""`logroute routes`: see, make, change, pause and remove the routes of a running daemon."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from logroute.api.client import in_path
from logroute.api.route_facts import RouteFacts, Routes
from logroute.cli.asking import Verbs, ask, asking_options
from logroute.cli.names import route_names
from logroute.cli.tables import table
from logroute.router.visible import visible

HEAD = ("ROUTE", "SINK", "STATE", "LAG", "WAITING", "DELIVERED", "FROM")


class _Gone(msgspec.Struct, frozen=True):
    removed: str
    undelivered: int
    queued: str


@click.group("routes", cls=Verbs)
def command() -> None:
    """See, make, change, pause and remove the routes of a running daemon.

    Routes that stand in a configuration file can be paused, and are changed there. Those made here are stored
    in the daemon's state_dir and are back after a restart.

    \b
    logroute routes
    logroute routes add errors file:///tmp/errors.log --match 'level >= error'
    logroute routes pause search
    """


@command.command("list")
@asking_options
def list_(api: str | None, token_file: str | None, output: str) -> None:
    """All routes, and whether they deliver."""
    found = ask(api, token_file, lambda client: client.get("/v1/routes", Routes))
    if output == "json":
        click.echo(msgspec.json.encode(found).decode())
        return
    rows = [_row(route) for route in found.routes]
    for line in table(
        ("ROUTE", "SINK", "STATE", "LAG", "WAITING", "DELIVERED", "FROM"), rows, right=(3, 4, 5)
    ):
        click.echo(line)
    for name, reason in found.refused.items():
        click.echo(f"{visible(name)} was made by API and is not used: {visible(reason)}", err=True)


def _row(route: RouteFacts) -> tuple[str, ...]:
    status = route.status
    if route.paused:
        state = "paused"
    elif status is None:
        state = "-"
    else:
        state = "delivers" if status.up else "DOWN"
    numbers = (
        (f"{status.lag_seconds:.0f}s", str(status.waiting), str(status.delivered)) if status else ("-",) * 3
    )
    return visible(route.name), visible(_sink(route)), state, *numbers, visible(route.place or route.made_by)


def _sink(route: RouteFacts) -> str:
    sink = route.sink
    if isinstance(sink, dict):
        return str(sink.get("type", "?"))
    return str(sink).partition(":")[0]


@command.command("show")
@click.argument("name", shell_complete=route_names)
@asking_options
def show(name: str, api: str | None, token_file: str | None, output: str) -> None:
    """One route: what it says, without secrets, and whether it delivers."""
    found = ask(api, token_file, lambda client: client.get(f"/v1/routes/{in_path(name)}", RouteFacts))
    _say(found, output)


@command.command("add")
@click.argument("name")
@click.argument("uri", required=False)
@click.option("-f", "--file", "file", metavar="FILE", help="What it says, as YAML or JSON; - is stdin.")
@click.option("--match", "match", metavar="EXPRESSION", help="Which records: 'level >= warn'.")
@click.option("--start", metavar="TIME", help="Where it begins: now, beginning, 24h.")
@asking_options
def add(
    name: str,
    uri: str | None,
    file: str | None,
    match: str | None,
    start: str | None,
    api: str | None,
    token_file: str | None,
    output: str,
) -> None:
    """Make the route NAME, to the sink of URI, or as FILE says."""
    body: dict[str, Any] = _read(file) if file else {}
    if uri:
        body["sink"] = uri
    if match:
        body["match"] = match
    if start:
        body["start"] = start
    if not body.get("sink"):
        raise click.UsageError("where to? Give a URI, such as file:///tmp/all.ndjson, or -f FILE")
    body["name"] = name
    found = ask(api, token_file, lambda client: client.ask("POST", "/v1/routes", RouteFacts, body=body))
    _say(found, output)


@command.command("set")
@click.argument("name", shell_complete=route_names)
@click.argument("assignments", nargs=-1, required=True, metavar="KEY=VALUE...")
@asking_options
def set_(
    name: str, assignments: tuple[str, ...], api: str | None, token_file: str | None, output: str
) -> None:
    """Change what NAME says: keys with dots, values as in YAML; KEY= removes.

    \b
    logroute routes set errors match='level >= warn' batch.wait=1s queue.when_full=drop_oldest
    """
    patch: dict[str, Any] = {}
    for each in assignments:
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{each!r}: expected KEY=VALUE")
        into = patch
        *path, last = key.split(".")
        for part in path:
            into = into.setdefault(part, {})
            if not isinstance(into, dict):
                raise click.UsageError(f"{key} cannot be below something that has a value")
        into[last] = _yaml(value) if value else None
    path_ = f"/v1/routes/{in_path(name)}"
    found = ask(api, token_file, lambda client: client.ask("PATCH", path_, RouteFacts, body=patch))
    _say(found, output)


@command.command("pause")
@click.argument("name", shell_complete=route_names)
@asking_options
def pause(name: str, api: str | None, token_file: str | None, output: str) -> None:
    """Deliver nothing of NAME until it is resumed; what comes waits."""
    _switch(name, "pause", api, token_file, output)


@command.command("resume")
@click.argument("name", shell_complete=route_names)
@asking_options
def resume(name: str, api: str | None, token_file: str | None, output: str) -> None:
    """Go on with NAME."""
    _switch(name, "resume", api, token_file, output)


def _switch(name: str, verb: str, api: str | None, token_file: str | None, output: str) -> None:
    path = f"/v1/routes/{in_path(name)}/{verb}"
    _say(ask(api, token_file, lambda client: client.ask("POST", path, RouteFacts)), output)


@command.command("remove")
@click.argument("name", shell_complete=route_names)
@click.option("--drop", is_flag=True, help="Drop what it has not delivered; else that is delivered, or kept.")
@asking_options
def remove(name: str, drop: bool, api: str | None, token_file: str | None, output: str) -> None:
    """Remove NAME, if it was made by API."""
    path, queued = f"/v1/routes/{in_path(name)}", "drop" if drop else "drain"
    found = ask(api, token_file, lambda client: client.ask("DELETE", path, _Gone, queued=queued))
    if output == "json":
        click.echo(msgspec.json.encode(found).decode())
        return
    what = {
        "drain": "are delivered within limits.grace, or kept in its spool",
        "drop": "are dropped",
    }[found.queued]
    left = f"; {found.undelivered} records {what}" if found.undelivered else ""
    click.echo(f"{visible(name)} is removed{left}")


def _say(route: RouteFacts, output: str) -> None:
    data = msgspec.json.encode(route)
    if output == "json":
        click.echo(data.decode())
        return
    from io import StringIO

    from ruamel.yaml import YAML

    status = route.status
    if route.paused:
        state = f"paused since {route.paused[:19]}Z"
    elif status is None:
        state = "not used"
    elif status.up:
        state = f"delivers; {status.delivered} records delivered, {status.waiting} wait"
        counted = ", ".join([f"{name} {count}" for name, count in status.sink.items() if count])
        state += f"; sink: {counted}" if counted else ""
    else:
        state = f"DOWN since {status.since[:19]}Z: {status.reason}"
    kept = "" if route.stored or route.made_by == "file" else "; not stored: it is gone after a restart"
    where = route.place or "made by API"
    click.echo(visible(f"{route.name}: {state} ({where}{kept})"))
    said = {
        key: value
        for key in ("match", "processors", "sink", "queue", "batch", "retry", "start")
        if (value := getattr(route, key)) is not None
    }
    text = StringIO()
    YAML(typ="safe", pure=True).dump(said, text)
    for line in text.getvalue().splitlines():
        click.echo("  " + visible(line))


def _read(file: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"cannot read {file}: {error}") from error
    found = _yaml(text)
    if not isinstance(found, dict):
        raise click.UsageError(f"{file}: expected a mapping: match, sink, …")
    return found


def _yaml(text: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise click.UsageError(f"this is no YAML: {error}") from error
