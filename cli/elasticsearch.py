"""`logroute elasticsearch template`: print the index template that fits our records, or put it there."""

from __future__ import annotations

import json
from typing import NoReturn

import click
import trio

from logroute.config.hidden import Hidden
from logroute.config.load import find_config, load_config
from logroute.config.problems import ConfigError
from logroute.sinks import Retryable
from logroute.sinks.elasticsearch import ElasticsearchOptions
from logroute.sinks.elasticsearch_template import index_template, pattern_of

USAGE = 2


@click.group("elasticsearch")
def command() -> None:
    """Prepare Elasticsearch, or OpenSearch, for the records that routes send there."""


@command.command("template")
@click.option("-c", "--config", "config_file", metavar="FILE", help="Configuration file with the route.")
@click.option("--route", metavar="NAME", help="Which route; needed where several go to Elasticsearch.")
@click.option("--pattern", multiple=True, metavar="PATTERN", help="Indices that are meant, such as 'logs-*'.")
@click.option("--name", default="logroute", show_default=True, help="The template's name.")
@click.option("--opensearch", is_flag=True, help="For OpenSearch, which calls some types otherwise.")
@click.option("--data-stream", is_flag=True, help="The indices are data streams.")
@click.option("--install", is_flag=True, help="Put it there, with what the route says about hosts and auth.")
def template(
    config_file: str | None,
    route: str | None,
    pattern: tuple[str, ...],
    name: str,
    opensearch: bool,
    data_stream: bool,
    install: bool,
) -> None:
    """Print the index template that fits our records, as JSON; with --install put it there."""
    options, hidden = None, Hidden()
    if install or not pattern:
        options = _options(config_file, route, hidden)
    try:
        patterns = list(pattern) or [pattern_of(options.index if options is not None else "")]
    except ValueError as error:
        _fail(f"{error}, by --pattern")
    if not install:
        click.echo(
            json.dumps(index_template(patterns, opensearch=opensearch, data_stream=data_stream), indent=2)
        )
        return
    assert options is not None
    try:
        said = trio.run(_install, options, name, patterns, opensearch, data_stream)
    except Retryable as error:
        click.echo(f"logroute: {hidden.without(str(error))}", err=True)
        raise SystemExit(1) from error
    click.echo(hidden.without(said))


async def _install(
    options: ElasticsearchOptions, name: str, patterns: list[str], opensearch: bool, data_stream: bool
) -> str:
    """Raises Retryable where it is not taken."""
    from logroute.sinks._elasticsearch_client import JSON_HEADERS, Client

    where = ", ".join(options.hosts) or "Elastic Cloud"
    client = await Client.of(options, where)
    try:
        body = index_template(patterns, opensearch=opensearch, data_stream=data_stream)
        answer = await client.ask("PUT", f"/_index_template/{name}", json.dumps(body).encode(), JSON_HEADERS)
        if answer.status != 200:
            hint = "" if opensearch else "; is it OpenSearch? Say --opensearch"
            raise Retryable(f"{where} answered {answer}{hint if answer.status == 400 else ''}")
    finally:
        await client.close()
    return f"the template {name!r} for {', '.join(patterns)} is at {where}"


def _options(config_file: str | None, route: str | None, hidden: Hidden) -> ElasticsearchOptions:
    """Those of the route that goes to Elasticsearch; `hidden` learns what of them is not to be shown."""
    try:
        path = find_config(config_file)
        if path is None:
            _fail("there is no configuration: give -c FILE, or --pattern")
        loaded = load_config(path)
    except ConfigError as error:
        click.echo(str(error), err=True)
        raise SystemExit(USAGE) from error
    hidden.remember(loaded.secrets)
    routes = loaded.config.routes
    found = {name: each.sink for name, each in routes.items() if isinstance(each.sink, ElasticsearchOptions)}
    if route is not None and route not in found:
        _fail(f"no route {route!r} goes to Elasticsearch; there are: {', '.join(found) or 'none'}")
    if route is None and len(found) != 1:
        _fail(f"say which route by --route: {', '.join(found) or 'none goes to Elasticsearch'}")
    return found[route or next(iter(found))]


def _fail(message: str) -> NoReturn:
    click.echo(f"logroute: {message}", err=True)
    raise SystemExit(USAGE)
