"""Health and books, as the API answers them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from logroute.api.books import Health, Stats, health_of, stats_of
from logroute.api.requests import Endpoint, json_response

if TYPE_CHECKING:
    from logroute.router.daemon import Daemon


async def _health(daemon: Daemon, request: Request) -> Response:
    health = health_of(daemon)
    return json_response(health, 200 if health.healthy else 503)


async def _stats(daemon: Daemon, request: Request) -> Any:
    return stats_of(daemon)


ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/health",
        _health,
        "Whether all routes deliver and all sources read: 503 where not, with which, since when, why.",
        gives=Health,
        problems=(503,),
    ),
    Endpoint("GET", "/v1/stats", _stats, "The books of all routes at one instant.", gives=Stats),
]
