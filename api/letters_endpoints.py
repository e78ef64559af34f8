"""Dead letters, as the API answers for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from logroute.api.letters import (
    MOST_LISTED,
    MOST_NAMED,
    Dropped,
    Page,
    Replayed,
    ReplayRequest,
    Summaries,
    WholeLetter,
    whole_letter,
)
from logroute.api.problems import Problem
from logroute.api.requests import (
    LARGEST_ID,
    YES_OR_NO,
    Endpoint,
    Parameter,
    body_of,
    is_id,
    number,
    route_of,
    truth,
)

if TYPE_CHECKING:
    from logroute.router.daemon import Daemon


async def _summaries(daemon: Daemon, request: Request) -> Any:
    return Summaries(
        {name: await route.state.letters_summary() for name, route in daemon.router.routes.items()}
    )


async def _letters(daemon: Daemon, request: Request) -> Any:
    route = route_of(daemon, request)
    after = number(request, "after", 0, most=LARGEST_ID)
    count = number(request, "count", 100, least=1, most=MOST_LISTED)
    if truth(request, "newest"):
        if "after" in request.query_params:
            raise Problem(400, "`after` goes on in order, and `newest` begins at the end: say one of them")
        return Page(await route.state.newest_letters(count))
    letters = await route.state.letters(after, count + 1)
    return Page(letters[:count], letters[count - 1].id if len(letters) > count else 0)


async def _letter(daemon: Daemon, request: Request) -> Any:
    route = route_of(daemon, request)
    text = request.path_params["id"]
    found = await route.state.letter(int(text)) if is_id(text) else None
    if found is None:
        raise Problem(
            404, f"route {route.name} has no dead letter {text}; it may have been replayed, or dropped"
        )
    return whole_letter(*found)


async def _replay(daemon: Daemon, request: Request) -> Any:
    route = route_of(daemon, request)
    wanted = await body_of(request, ReplayRequest)
    return Replayed(await route.replay(wanted.ids))


async def _drop(daemon: Daemon, request: Request) -> Any:
    route = route_of(daemon, request)
    texts = request.query_params.get("ids", "").split(",")
    if request.query_params.get("all") == "true" and "ids" not in request.query_params:
        return Dropped(await route.state.forget_letters(None))
    if not all(map(is_id, texts)) or len(texts) > MOST_NAMED:
        raise Problem(400, f"say which: ?ids=1,2,3 (at most {MOST_NAMED}), or ?all=true")
    return Dropped(await route.state.forget_letters([int(text) for text in texts]))


_LETTERS = "/v1/routes/{route}/deadletters"
ENDPOINTS = [
    Endpoint("GET", "/v1/deadletters", _summaries, "How many each route has.", gives=Summaries),
    Endpoint(
        "GET",
        _LETTERS,
        _letters,
        "Some of a route's, in the order in which they were rejected.",
        gives=Page,
        query=[
            Parameter(
                "after",
                "The id that they come behind: `next` of the page before.",
                {"type": "integer", "minimum": 0, "maximum": LARGEST_ID},
            ),
            Parameter("count", "At most so many.", {"type": "integer", "minimum": 1, "maximum": MOST_LISTED}),
            Parameter("newest", "Without `after`: the last ones, the very last first.", YES_OR_NO),
        ],
        problems=(400, 404, 503),
    ),
    Endpoint(
        "DELETE",
        _LETTERS,
        _drop,
        "Forget some, or all.",
        gives=Dropped,
        query=[
            Parameter("ids", f"Which, with commas between them; at most {MOST_NAMED}."),
            Parameter("all", "`true`, without `ids`: all of them.", {"enum": ["true"]}),
        ],
        problems=(400, 404, 503),
    ),
    Endpoint(
        "POST",
        _LETTERS + "/replay",
        _replay,
        "Have some, or all, delivered again, behind what waits.",
        gives=Replayed,
        takes=ReplayRequest,
        problems=(400, 404, 408, 413, 415, 422, 503),
    ),
    Endpoint(
        "GET", _LETTERS + "/{id}", _letter, "One, with its record.", gives=WholeLetter, problems=(404, 503)
    ),
]
