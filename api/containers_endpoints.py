"""Containers, as the API answers for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from logroute.api.containers import ContainerFacts, Containers, Unknown, containers_of, find
from logroute.api.problems import Problem
from logroute.api.requests import Endpoint

if TYPE_CHECKING:
    from logroute.router.daemon import Daemon


async def _containers(daemon: Daemon, request: Request) -> Any:
    return containers_of(daemon)


async def _container(daemon: Daemon, request: Request) -> Any:
    try:
        return find(containers_of(daemon).containers, request.path_params["container"])
    except Unknown as error:
        raise Problem(404, str(error)) from error


ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/containers",
        _containers,
        "Of every container how it is read, which routes take it, and what stands in its way.",
        gives=Containers,
    ),
    Endpoint(
        "GET",
        "/v1/containers/{container:path}",
        _container,
        "The same of one, by name, id, or the beginning of an id.",
        gives=ContainerFacts,
        problems=(404,),
    ),
]
