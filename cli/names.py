"""Names that a shell completes: what containers and routes a running daemon has."""

from __future__ import annotations

import os
import re
from typing import Any

import click
import msgspec

WITHIN_S = 2.0
"""Somebody has pressed Tab, and waits."""

_HARMLESS = re.compile(r"\w[\w.+-]*")
"""Others are not offered: shells put them into a command as they are, where `$(…)` would be run, or cut them
(bash at `:` and `@`), and what begins with `-` would be an option."""


class _Named(msgspec.Struct):
    name: str = ""


class _Answer(msgspec.Struct):
    containers: list[_Named] = []
    routes: list[_Named] = []


def container_names(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Those of the daemon's containers that begin so."""
    return _names(ctx, "/v1/containers", incomplete)


def route_names(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Those of its routes."""
    return _names(ctx, "/v1/routes", incomplete)


def _names(ctx: click.Context, path: str, incomplete: str) -> list[str]:
    """None where nobody answers: what a shell is told on stderr would stand in the middle of a command."""
    from logroute.api.client import ApiError, Client, NoDaemon, find_address

    token_file = ctx.params.get("token_file") or os.environ.get("LOGROUTE_TOKEN_FILE")
    try:
        with Client(*find_address(_text(ctx.params.get("api")), _text(token_file)), WITHIN_S) as client:
            answer = client.get(path, _Answer)
    except (ApiError, NoDaemon, ValueError):
        return []
    names = {each.name for each in [*answer.containers, *answer.routes]}
    return sorted(name for name in names if name.startswith(incomplete) and _HARMLESS.fullmatch(name))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
