"""Where a command finds a daemon, or the state of one: the options that say so, and what they mean."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import click
import msgspec


class Place(msgspec.Struct):
    """What was typed of where it is."""

    api: str | None
    token_file: str | None
    config_file: str | None
    state_dir: str | None
    output: str


class _Decorator(Protocol):
    def __call__(self, command: Callable[..., Any], /) -> Callable[..., Any]: ...


_OUTPUT = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to say it."
)
_WHERE: tuple[_Decorator, ...] = (
    click.option("--state-dir", metavar="DIR", help="Look into this state_dir."),
    click.option("-c", "--config", "config_file", metavar="FILE", help="Configuration that names it."),
    click.option("--token-file", envvar="LOGROUTE_TOKEN_FILE", metavar="FILE", help="Token of an API."),
    click.option("--api", metavar="URL", help="The daemon's API; else $LOGROUTE_API, the default socket."),
)


def where_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in _WHERE:
        command = option(command)
    return command


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where it is, and how to say it."""
    return where_options(_OUTPUT(command))


def place_of(
    api: str | None, token_file: str | None, config_file: str | None, state_dir: str | None, output: str
) -> Place:
    return Place(api, token_file, config_file, state_dir, output)


def configured_api(place: Place) -> str | None:
    """What the configuration that was named says of it."""
    if place.config_file is None or os.environ.get("LOGROUTE_API"):
        return None
    from logroute.config.load import load_config

    return load_config(Path(place.config_file)).config.api.listen


def state_dir_of_daemon(place: Place) -> Path | None:
    """Where the daemon that runs keeps its state; None where it keeps none. Raises NoDaemon, ApiError."""
    from logroute.api.books import Stats
    from logroute.api.client import find_daemon

    with find_daemon(place.api or configured_api(place), place.token_file) as client:
        of = client.get("/v1/stats", Stats).daemon.state_dir
    return Path(of) if of else None


def default_state_dir(place: Place) -> Path | None:
    """Where a daemon with this configuration keeps its state; without one, where it would by default."""
    from logroute.cli.run import state_dir_of
    from logroute.config.load import find_config, load_config

    path = find_config(place.config_file)
    config = load_config(path, () if path is not None else ("null:",)).config
    return state_dir_of(config, None, from_file=True)
