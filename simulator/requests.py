"""What the engine answers to a request: sans-IO, from the request's line and the engine's state."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from logroute.simulator.events import Event, EventLog, Filters, Subscription, has_labels
from logroute.simulator.reading import Cursor, Selection

if TYPE_CHECKING:
    from logroute.simulator.containers import SimulatedContainer
    from logroute.simulator.engine import SimulatedEngine

Query = dict[str, str]

_VERSIONED = re.compile(r"/v(\d+)\.(\d+)(/.*)")
_CONTAINER = re.compile(r"/containers/([^/]+)/(json|logs)")
_LIST_FILTERS = frozenset(
    [
        "ancestor",
        "before",
        "exited",
        "expose",
        "health",
        "id",
        "is-task",
        "isolation",
        "label",
        "name",
        "network",
        "publish",
        "since",
        "status",
        "volume",
    ]
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    anonymous: bool = False
    """Without the engine's own headers."""


@dataclass(frozen=True, slots=True)
class LogStream:
    """The body of `/logs`: entries of a cursor, framed or raw."""

    container: SimulatedContainer
    cursor: Cursor
    selection: Selection
    follow: bool
    timestamps: bool
    details: bool
    framed: bool
    headers: dict[str, str]

    def close(self) -> None:
        """The response ended."""
        self.cursor.close()


@dataclass(frozen=True, slots=True)
class EventStream:
    """The body of `/events`: those of the past that were asked for, then what comes."""

    past: list[Event]
    subscription: Subscription
    until_ns: int | None
    log: EventLog
    headers: dict[str, str]

    def close(self) -> None:
        """The response ended."""
        self.log.unsubscribe(self.subscription)


Response = Answer | LogStream | EventStream


class Refused(Exception):
    """An error that the API reports."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


_NOT_FOUND = Refused(404, "page not found")


def respond(engine: SimulatedEngine, method: str, target: str) -> Response:
    """Find what to answer."""
    try:
        return _respond(engine, method, target)
    except Refused as refusal:
        return _error(engine, target, refusal)


def _error(engine: SimulatedEngine, target: str, refusal: Refused) -> Answer:
    """JSON, but plain text for many clients before API 1.24; what no endpoint has seen says no version."""
    match = _VERSIONED.match(target)
    if refusal is _NOT_FOUND:
        return replace(_json({"message": str(refusal)}, refusal.status), anonymous=True)
    is_old = match is not None and (int(match[1]), int(match[2])) < (1, 24)
    if not (is_old and engine.quirks.plain_text_errors):
        return _json({"message": str(refusal)}, refusal.status)
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    return Answer(refusal.status, f"{refusal}\n".encode(), headers)


def _respond(engine: SimulatedEngine, method: str, target: str) -> Response:
    url = urlsplit(target)
    path = unquote(url.path)
    query = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
    api: tuple[int, ...] = _parsed(engine.quirks.api_version)
    if match := _VERSIONED.fullmatch(path):
        api = (int(match[1]), int(match[2]))
        _check_version(engine, api)
        path = match[3]
    if method == "GET" or (method == "HEAD" and path == "/_ping"):
        if endpoint := _ENDPOINTS.get(path):
            return endpoint(engine, query)
        if match := _CONTAINER.fullmatch(path):
            container = engine.find(match[1])
            if match[2] == "logs":
                return _logs(engine, container, match[1], query, api)
            if container is None:
                raise Refused(404, f"No such container: {match[1]}")
            return _json(container.inspect())
    raise _NOT_FOUND


def _parsed(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _check_version(engine: SimulatedEngine, asked: tuple[int, int]) -> None:
    name = "{}.{}".format(*asked)
    if asked < _parsed(engine.quirks.min_api):
        raise Refused(
            400,
            f"client version {name} is too old. Minimum supported API version is "
            f"{engine.quirks.min_api}, please upgrade your client to a newer version",
        )
    if asked > _parsed(engine.quirks.api_version):
        raise Refused(
            400,
            f"client version {name} is too new. Maximum supported API version is {engine.quirks.api_version}",
        )


def _json(value: object, status: int = 200) -> Answer:
    return Answer(status, msgspec.json.encode(value) + b"\n")


def _ping(engine: SimulatedEngine, query: Query) -> Answer:
    return Answer(
        200,
        b"OK",
        {
            "Cache-Control": "no-cache, no-store, must-revalidate",
            "Content-Type": "text/plain; charset=utf-8",
            "Pragma": "no-cache",
        },
    )


def _version(engine: SimulatedEngine, query: Query) -> Answer:
    quirks = engine.quirks
    details = {
        "ApiVersion": quirks.api_version,
        "MinAPIVersion": quirks.min_api,
        "Os": "linux",
        "Arch": "amd64",
    }
    return _json(
        {
            "Platform": {"Name": ""},
            "Components": [{"Name": "Engine", "Version": quirks.engine_version, "Details": details}],
            "Version": quirks.engine_version,
            **details,
            "GitCommit": "simulated",
            "GoVersion": "none",
            "KernelVersion": "simulated",
        }
    )


def _info(engine: SimulatedEngine, query: Query) -> Answer:
    statuses = [container.state.status for container in engine.containers.values()]
    return _json(
        {
            "ID": "SIMULATED",
            "Containers": len(statuses),
            "ContainersRunning": statuses.count("running"),
            "ContainersPaused": statuses.count("paused"),
            "ContainersStopped": len(statuses) - statuses.count("running") - statuses.count("paused"),
            "Images": len({container.image for container in engine.containers.values()}),
            "Driver": "overlay2",
            "LoggingDriver": "json-file",
            "NEventsListener": engine.events.listeners,
            "OperatingSystem": "simulated",
            "OSType": "linux",
            "Architecture": "x86_64",
            "DockerRootDir": str(engine.root),
            "Name": engine.name,
            "Labels": [],
            "ServerVersion": engine.quirks.engine_version,
            "Swarm": {"NodeID": "", "LocalNodeState": "inactive"},
            "LiveRestoreEnabled": False,
        }
    )


def _list(engine: SimulatedEngine, query: Query) -> Answer:
    filters = parse_filters(engine, query.get("filters", ""))
    if unknown := filters.keys() - _LIST_FILTERS:
        invalid = "Invalid" if engine.quirks.wording == "20.10" else "invalid"
        raise Refused(400, f"{invalid} filter '{min(unknown)}'")
    everything = boolean(query.get("all", "")) or "status" in filters
    now_ns = engine.clock()
    return _json(
        [
            container.summary(now_ns)
            for container in reversed(engine.containers.values())
            if (everything or container.is_running) and _is_listed(container, filters)
        ]
    )


def _is_listed(container: SimulatedContainer, filters: Filters) -> bool:
    return (
        ("label" not in filters or has_labels(container.labels, filters["label"]))
        and ("status" not in filters or container.state.status in filters["status"])
        and ("id" not in filters or any(container.id.startswith(id) for id in filters["id"]))
        and ("name" not in filters or any(re.search(n, f"/{container.name}") for n in filters["name"]))
        and ("ancestor" not in filters or container.image in filters["ancestor"])
    )


def _events(engine: SimulatedEngine, query: Query) -> EventStream:
    since, until = (timestamp(engine, query.get(name, ""), f"'{name}'") for name in ("since", "until"))
    if since is not None and until is not None and until < since:
        raise Refused(400, f"`since` time ({query['since']}) cannot be after `until` time ({query['until']})")
    filters = parse_filters(engine, query.get("filters", ""))
    past = engine.events.past(since, until, filters)
    headers = {"Content-Type": engine.quirks.events_content_type}
    return EventStream(past, engine.events.subscribe(filters), until, engine.events, headers)


_NO_STREAM = {
    "20.10": "Bad parameters: you must choose at least one stream",
    "26.1": "Bad parameters: you must choose at least one stream",
    "newest": "must specify at least one of 'stdout' or 'stderr'",
}


def _logs(
    engine: SimulatedEngine,
    container: SimulatedContainer | None,
    reference: str,
    query: Query,
    api: tuple[int, ...],
) -> LogStream:
    streams = frozenset(stream for stream in ("stdout", "stderr") if boolean(query.get(stream, "")))
    if not streams:
        raise Refused(400, _NO_STREAM[engine.quirks.wording])
    if container is None:
        raise Refused(404, f"No such container: {reference}")
    if engine.log_refusals:
        raise Refused(*engine.log_refusals.popleft())
    if container.state.status in ("removing", "dead"):
        raise Refused(409, "can not get logs from container which is dead or marked for removal")
    until = query.get("until", "")
    selection = Selection(
        streams=streams,
        since_ns=timestamp(engine, query.get("since", ""), '"since"'),
        until_ns=timestamp(engine, "" if until == "0" else until, '"until"'),
        filters_every_record=engine.quirks.since_filters_every_record,
    )
    tail = query.get("tail", "")
    follow = boolean(query.get("follow", "")) and container.is_running
    cursor = container.log_cursor(tail=int(tail) if tail.isdecimal() else None, follow=follow)
    if cursor is None:
        raise Refused(UNREADABLE_STATUS, "configured logging driver does not support reading")
    headers = {}
    if engine.quirks.multiplexed_content_type:
        kind = "raw" if container.tty or api < (1, 42) else "multiplexed"
        headers["Content-Type"] = f"application/vnd.docker.{kind}-stream"
    return LogStream(
        container=container,
        cursor=cursor,
        selection=selection,
        follow=follow,
        timestamps=boolean(query.get("timestamps", "")),
        details=boolean(query.get("details", "")),
        framed=not container.tty,
        headers=headers,
    )


UNREADABLE_STATUS = 501

_ENDPOINTS: dict[str, Callable[[SimulatedEngine, Query], Response]] = {
    "/_ping": _ping,
    "/version": _version,
    "/info": _info,
    "/containers/json": _list,
    "/events": _events,
}


# Parameters


def boolean(text: str) -> bool:
    """As the engine reads them: anything is true but these."""
    return text.strip().lower() not in ("", "0", "no", "false", "none")


def timestamp(engine: SimulatedEngine, text: str, name: str) -> int | None:
    """`1700000000.123456789` in nanoseconds; None where nothing is asked."""
    if not text:
        return None
    seconds, _, fraction = text.partition(".")
    for part, unit in ((seconds, "seconds"), (fraction or "0", "nanoseconds")):
        if part.isdecimal():
            continue
        if engine.quirks.wording != "newest":
            raise Refused(500, f'strconv.ParseInt: parsing "{part}": invalid syntax')
        wrong = f'invalid timestamp "{text}": invalid {unit}'
        if unit == "seconds":
            raise Refused(400, f'invalid value for {name}: {wrong} "{part}": invalid syntax')
        at = next(index for index, char in enumerate(part) if not char.isdecimal())
        raise Refused(
            400, f"invalid value for {name}: {wrong}: invalid character '{part[at]}' at position {at}"
        )
    return int(seconds) * 1_000_000_000 + int(f"{fraction[:9]:0<9}")


def parse_filters(engine: SimulatedEngine, text: str) -> Filters:
    """Both forms: `{"label": ["a=b"]}` and `{"label": {"a=b": true}}`, and never mixed."""
    if not text:
        return {}
    with suppress(msgspec.MsgspecError):
        lists = msgspec.json.decode(text, type=dict[str, list[str]])
        return {key: frozenset(values) for key, values in lists.items()}
    with suppress(msgspec.MsgspecError):
        flags = msgspec.json.decode(text, type=dict[str, dict[str, bool]])
        return {key: frozenset(v for v, is_set in values.items() if is_set) for key, values in flags.items()}
    if engine.quirks.wording == "20.10":
        raise Refused(500, "json: cannot unmarshal array into Go value of type map[string]bool")
    raise Refused(400, "invalid filter")
