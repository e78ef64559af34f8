"""Who says most, as the API answers it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from logroute.api.requests import Endpoint, Parameter, number
from logroute.api.top import MOST_LISTED, Top, top_of

if TYPE_CHECKING:
    from logroute.router.daemon import Daemon


async def _top(daemon: Daemon, request: Request) -> Any:
    return top_of(daemon, number(request, "count", 20, least=1, most=MOST_LISTED))


ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/top",
        _top,
        "The containers that said most lately, with what was read of them.",
        gives=Top,
        query=[
            Parameter("count", "At most so many.", {"type": "integer", "minimum": 1, "maximum": MOST_LISTED})
        ],
        problems=(400,),
    )
]
