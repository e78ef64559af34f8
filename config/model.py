"""The configuration's model: what a file, a URI and the defaults become.

Components (sources, processors, sinks) are validated by their own options models, found by `type` when they
are named; nothing else is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import AfterValidator, Field, ValidationError, WithJsonSchema, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from logroute.api.address import Address
from logroute.config.checks import CheckOptions
from logroute.config.components import (
    PROCESSORS,
    SINKS,
    SOURCES,
    BrokenComponent,
    Options,
    Registry,
    UnknownComponent,
)
from logroute.config.problems import Loc, did_you_mean, kind_of
from logroute.config.types import Duration, MatchField, Named, Parsed, Size, Start
from logroute.processors import ProcessorOptions
from logroute.router.circles import Circle, circles
from logroute.router.match import EVERYTHING
from logroute.sinks import SinkOptions
from logroute.sinks.one_writer import Collision, collisions
from logroute.sources import SourceOptions

MIB = 1 << 20
GIB = 1 << 30
LONGEST_NAME = 200
"""Bytes of a name in a file's name, percent signs included: 255 with the endings that SQLite appends."""


def parse_component(registry: Registry, value: Any) -> Options:
    """Options of a component from its mapping.

    Raises PydanticCustomError, or ValidationError with the paths inside the mapping.
    """
    if isinstance(value, Options):
        return value
    kind = registry.kind
    if not isinstance(value, dict):
        uri = "a URI or " if kind == "sink" else ""
        text = f"expected {uri}a mapping with `type`, such as {_EXAMPLES[kind]}"
        raise PydanticCustomError("component", "{text}", {"text": text})
    if "type" not in value:
        raise PydanticCustomError("component", "`type` is missing: which {kind} is it?", {"kind": kind})
    type_ = value["type"]
    if type_ is None and kind == "sink":
        type_ = "null"  # how YAML reads {type: null}
        value = {**value, "type": type_}
    if not isinstance(type_, str):
        raise _at(("type",), f"expected the name of a {kind}'s type, not {kind_of(type_)}", type_)
    try:
        model = registry.options(type_)
    except UnknownComponent as error:
        hint = did_you_mean(type_, error.known) or f"; there are: {', '.join(error.known) or 'none yet'}"
        raise _at(("type",), f'unknown {kind} type "{type_}"{hint}', type_) from error
    except BrokenComponent as error:
        raise _at(("type",), str(error), type_) from error
    return model.model_validate(value)


_EXAMPLES = {"sink": "{type: file}", "source": "{type: docker}", "processor": "{type: json}"}


def _at(path: Loc, message: str, value: Any) -> ValidationError:
    return _mistakes([(path, message, value)])


def _mistakes(found: Sequence[tuple[Loc, str, Any]]) -> ValidationError:
    """Each with its place, in words, and what is wrong there."""
    return ValidationError.from_exception_data(
        "component",
        [
            InitErrorDetails(
                type=PydanticCustomError("component", "{message}", {"message": message}),
                loc=path,
                input=value,
            )
            for path, message, value in found
        ],
    )


def _nested(registry: Registry, value: Any) -> Any:
    try:
        return parse_component(registry, value)
    except ValidationError as error:
        # A validator's error has one path only: the loader unfolds this one into all of them.
        errors = error.errors(include_url=False)
        raise PydanticCustomError("nested", "several mistakes", {"errors": errors}) from error


def _parse_sink(value: Any) -> Any:
    if isinstance(value, str):
        from logroute.config.uri import UriError, parse_uri

        try:
            value = parse_uri(value)
        except UriError as error:
            raise PydanticCustomError("uri", "{message}", {"message": str(error)}) from error
    return _nested(SINKS, value)


_ANY = core_schema.simple_ser_schema("any")

SinkField = Annotated[
    SinkOptions,
    Parsed(_parse_sink, _ANY),
    WithJsonSchema({"type": ["object", "string"]}),
    Named("URI or [sink](#sinks)"),
]
SourceField = Annotated[
    SourceOptions,
    Parsed(lambda value: _nested(SOURCES, value), _ANY),
    WithJsonSchema({"type": "object"}),
    Named("[source](#sources)"),
]
ProcessorField = Annotated[
    ProcessorOptions,
    Parsed(lambda value: _nested(PROCESSORS, value), _ANY),
    WithJsonSchema({"type": "object"}),
    Named("[processor](#processors)"),
]


def _check_name(name: str) -> str:
    """Names of routes and sources stand in metrics, labels, URLs and, quoted, in names of files."""
    if not name:
        raise PydanticCustomError("name", "a name must not be empty")
    if not name.isprintable() or any(character in " ,/" for character in name):
        raise PydanticCustomError("name", "a name has no spaces, commas or slashes")
    if name in (".", ".."):  # in a URL these mean another place
        raise PydanticCustomError("name", "a name is more than dots")
    if len(quote(name, safe="")) > LONGEST_NAME:
        raise PydanticCustomError("name", "the name is too long")
    return name


Name = Annotated[str, AfterValidator(_check_name), Named("name")]
StateDir = Annotated[str | None, Field(examples=["/var/lib/logroute"])]


class QueueOptions(Options):
    """What waits between reading and delivering: in memory, then on the disk, then as `when_full` says."""

    memory: Size = Field(default=2 * MIB, gt=0)
    """Bytes that may wait in memory."""
    disk: Size = GIB
    """Bytes that may wait on the disk, compressed, in the route's file in `state_dir`; 0: none. Without a
    `state_dir` there is none either."""
    when_full: Literal["block", "drop_oldest", "drop_newest"] = "block"
    """What to do when neither has room: `block` reads the logs that this route takes no further, and loses
    nothing that the engine still has; the others drop records, and count them."""
    dead_letters: Size = Field(default=GIB, gt=0)
    """Bytes that rejected records may take on the disk, until they are replayed or dropped; then as
    `when_full` says. Without a `state_dir` they are in memory: 16 MiB at most, and the oldest make room."""
    fsync: bool = False
    """Wait for the disk itself with each step that is stored: then power loss costs nothing either. Without
    it, what was stored within the last seconds before it may be lost. A killed daemon loses nothing."""


class BatchOptions(Options):
    """What one delivery takes. Defaults are the sink's own."""

    bytes: Size | None = Field(default=None, gt=0, examples=["1MiB"])
    """At most so many bytes."""
    records: int | None = Field(default=None, gt=0, examples=[10000])
    """At most so many records."""
    wait: Duration | None = Field(default=None, ge=0, examples=["1s"])
    """How long to wait for more once there is something."""


class RetryOptions(Options):
    """How a failed delivery is tried again: for ever, with capped exponential backoff and full jitter."""

    initial: Duration = Field(default=0.5, gt=0, examples=["500ms"])
    """Longest first pause."""
    max: Duration = Field(default=60.0, gt=0, examples=["60s"])
    """Longest pause."""
    deadline: Duration = Field(default=60.0, gt=0, examples=["60s"])
    """How long one attempt may take: then it has failed, and is tried again."""
    give_up: Literal["never"] = "never"
    """A record is never given up."""


class RouteOptions(Options):
    """Where which records go."""

    match: MatchField = EVERYTHING
    """Which records this route takes; omitted: all."""
    processors: list[ProcessorField] = Field(default=[])
    """What happens to them on the way, in order."""
    sink: SinkField
    """Where they go: a mapping with `type`, or a URI."""
    queue: QueueOptions = QueueOptions.model_construct()
    """What waits between reading and delivering."""
    batch: BatchOptions = BatchOptions.model_construct()
    """What one delivery takes."""
    retry: RetryOptions = RetryOptions.model_construct()
    """How a failed delivery is tried again."""
    start: Start | None = Field(default=None, examples=["24h", "beginning"])
    """Where a new route begins in the logs that are there: stronger than the source's `start`, which counts
    without it; also for a route that is made while the daemon runs."""


class LimitOptions(Options):
    """Bounds of the whole daemon."""

    memory: Size = Field(default=256 * MIB, ge=MIB)
    """Bytes that all queues, and what is being delivered, may hold together."""
    record: Size = Field(default=MIB, ge=1024)
    """Longest line; longer ones are truncated, marked and counted. Beside `memory`, each log may hold so much
    of one that has not ended."""
    grace: Duration = 30.0
    """How long the routes may go on delivering after a signal to stop."""
    held_logs: Size = 2 * GIB
    """Bytes of rotated or removed logs that each source may keep on the disk until its routes have read them.
    Beyond that the oldest are given up, counted, and said."""


def _check_listen(text: str) -> str:
    try:
        Address.parse(text)
    except ValueError as error:
        raise PydanticCustomError("listen", "{message}", {"message": str(error)}) from error
    return text


class ApiOptions(Options):
    """Where the daemon answers questions: [the API](api.md)."""

    listen: Annotated[str, AfterValidator(_check_listen)] | None = Field(
        default=None, examples=["unix:///run/logroute/logroute.sock", "127.0.0.1:8080"]
    )
    """A unix socket, or host and port. An address that other hosts can reach needs `token_file`. Default: the
    socket `logroute.sock` in `$RUNTIME_DIRECTORY`, else in `/run/logroute` for root, else in
    `$XDG_RUNTIME_DIR/logroute`; where that cannot be had there is no API."""
    token_file: str | None = Field(default=None, examples=["/run/secrets/logroute"])
    """A file with the token that whoever asks over TCP must know, read at the start. A unix socket needs
    none: it is guarded by its permissions (0660)."""


class Config(Options):
    """A whole configuration."""

    state_dir: StateDir = None
    """Where checkpoints are kept; null: in memory only. Default: `$STATE_DIRECTORY`, else
    `/var/lib/logroute` for root, else `~/.local/state/logroute`."""
    include: list[str] = Field(default=[], examples=[["conf.d/*.yaml"]])
    """Further files, relative to this one: their routes and sources are added."""
    api: ApiOptions = ApiOptions.model_construct()
    """Where the daemon answers questions."""
    sources: dict[Name, SourceField] = Field(default={}, min_length=1)
    """Where records come from, by name; `type` defaults to the name. Omitted: one docker source."""
    processors: list[ProcessorField] = Field(default=[])
    """What happens to every record before it is routed."""
    routes: dict[Name, RouteOptions] = Field(min_length=1)
    """Where records go, by name."""
    limits: LimitOptions = LimitOptions.model_construct()
    """Bounds of the whole daemon."""
    tests: list[CheckOptions] = Field(default=[])
    """What the routes shall deliver of given lines: [how to write them](checking.md)."""

    @model_validator(mode="after")
    def _write_apart(self) -> Config:
        routes = [(name, route.match, route.sink) for name, route in self.routes.items()]
        sources = [(name, source.reads) for name, source in self.sources.items()]
        found: list[Collision | Circle] = [*collisions(routes), *circles(sources, routes)]
        mistakes = [(("routes", each.route, "sink", each.option), str(each), each.route) for each in found]
        if mistakes:
            raise _mistakes(mistakes)
        return self

    @model_validator(mode="after")
    def _expect_of_routes(self) -> Config:
        for index, test in enumerate(self.tests):
            for name in test.expect:
                if name not in self.routes:
                    hint = did_you_mean(name, self.routes) or f"; there are {', '.join(self.routes)}"
                    raise _at(("tests", index, "expect", name), f'there is no route "{name}"{hint}', name)
        return self

    @model_validator(mode="before")
    @classmethod
    def _name_sources(cls, value: Any) -> Any:
        """`type` defaults to the source's name; omitted sources are one docker source."""
        if not isinstance(value, dict):
            return value
        sources = value.get("sources")
        if sources is None:
            sources = {"docker": None}
        if isinstance(sources, dict):
            sources = {
                name: {"type": name, **(options or {})} if isinstance(options, dict | None) else options
                for name, options in sources.items()
            }
        return {**value, "sources": sources}
