"""`tests:` of a configuration: what its routes shall deliver of given lines, and whether they do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from logroute.config.components import Options
from logroute.config.types import Named
from logroute.router.digest import blake2b
from logroute.router.paths import UnknownPath, path
from logroute.router.record import DetailedRecord, Image, Origin, Record
from logroute.router.times import iso_time

if TYPE_CHECKING:
    from logroute.router.trial import Taken

FIELDS = "fields"
LINE_NS = 1_000_000
"""From one given line to the next."""


def _check_time(text: str) -> str:
    from logroute.sources.engine_answers import time_ns

    try:
        time_ns(text)
    except ValueError as error:
        raise PydanticCustomError("time", "expected a time such as 2026-11-23T20:06:26Z") from error
    return text


class GivenOptions(Options):
    """Lines of one container."""

    container: str = "test-1"
    """Its name."""
    image: str | None = Field(default=None, examples=["shop/api:2"])
    """As it was started with."""
    label: dict[str, str] = Field(default={}, examples=[{"com.docker.compose.service": "api"}])
    """Its labels; what Compose, Swarm and Kubernetes know of it stands in them."""
    source: str = "docker"
    """The source that read it."""
    host: str = "localhost"
    """Where it runs."""
    stream: Literal["stdout", "stderr"] = "stdout"
    """Where it wrote."""
    time: Annotated[str, AfterValidator(_check_time)] = "2026-01-01T00:00:00Z"
    """When the first line was written; each of the others a millisecond later."""
    line: str | list[str] = Field(examples=["user ada logged in"])
    """What it wrote: a line, or a list of them."""

    def records(self) -> tuple[Origin, list[Record]]:
        """As a source makes them."""
        from logroute.sources.engine_answers import time_ns

        # Containers are told apart: what is held of one goes on with no line of another.
        id_ = blake2b(self.container.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()
        origin = Origin(
            f"test:{id_}",
            self.source,
            id=id_,
            name=self.container,
            image=Image.parse(self.image) if self.image else None,
            labels=dict(self.label),
            runtime="docker",
            host=self.host,
        )
        began = time_ns(self.time)
        lines = [self.line] if isinstance(self.line, str) else self.line
        return origin, [
            Record(line, self.stream, iso_time(began + number * LINE_NS)) for number, line in enumerate(lines)
        ]


def _check_paths(expected: dict[str, Any]) -> dict[str, Any]:
    for name in expected:
        try:
            if name != FIELDS:
                path(name)
        except UnknownPath as error:
            raise PydanticCustomError("path", "{error}", {"error": str(error)}) from error
    return expected


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


Expected = Annotated[dict[str, Any], AfterValidator(_check_paths)]


class CheckOptions(Options):
    """What routes shall deliver of given lines. `logroute test` runs these, and `logroute validate` too."""

    name: str = Field(examples=["passwords never leave"])
    """What it shows."""
    given: Annotated[list[GivenOptions], BeforeValidator(_listed), Named("mapping, or list of them")] = Field(
        min_length=1
    )
    """Lines, and of which container they are."""
    expect: Annotated[dict[str, list[Expected]], Named("list of mappings, by route")] = Field(
        min_length=1, examples=[{"search": [{"message": "login", "level": "info"}], "audit": []}]
    )
    """For each route that matters its records, in order. Of a record the paths that matter: `message`,
    `level`, `fields.user`, `container.name` …, and `fields` for all of them; null is what shall be absent."""


class Difference(msgspec.Struct, frozen=True):
    """Where a route delivers something else than it should."""

    route: str
    record: int
    """Its number among the route's, from 1."""
    path: str
    """What of it differs; empty if all of it is missing, or too much."""
    expected: Any = None
    """Nothing where the record is too much."""
    got: Any = None
    """Nothing where the record is missing."""

    @property
    def place(self) -> str:
        """In words."""
        return f"route {self.route}, record {self.record}"

    def __str__(self) -> str:
        if self.path:
            return f"{self.place}: {self.path} is {shown(self.got)}, expected {shown(self.expected)}"
        if self.got is None:
            return f"{self.place} is missing: {shown(self.expected)}"
        return f"{self.place} is one too many: {shown(self.got)}"

    def lines(self) -> Iterator[str]:
        """As a diff shows it."""
        name = f"{self.path}: " if self.path else ""
        if self.path or self.got is None:
            yield f"- {name}{shown(self.expected)}"
        if self.path or self.got is not None:
            yield f"+ {name}{shown(self.got)}"


def shown(value: Any) -> str:
    """On one line, with nothing that does something to a terminal."""
    if value is None:
        return "(absent)"
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError):
        text = repr(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def differences(check: CheckOptions, taken: dict[str, Taken]) -> list[Difference]:
    """What of it does not hold, where the routes deliver this."""
    return [
        difference
        for route, expected in check.expect.items()
        for difference in _of_route(route, expected, taken[route])
    ]


def _of_route(route: str, expected: list[dict[str, Any]], got: Taken) -> Iterator[Difference]:
    for number, (wanted, there) in enumerate(zip_longest(expected, got), 1):
        if there is None:
            yield Difference(route, number, "", expected=wanted)
        elif wanted is None:
            yield Difference(route, number, "", got=_outline(*there))
        else:
            for name, value in wanted.items():
                found = value_of(name, *there)
                if not _same(found, value):
                    yield Difference(route, number, name, value, found)


def _same(found: Any, wanted: Any) -> bool:
    """Whether both are the same JSON. To Python true is 1 as well."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(_same(found[key], wanted[key]) for key in wanted)
    if isinstance(found, list | tuple) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_same, found, wanted))
    return isinstance(found, bool) == isinstance(wanted, bool) and bool(found == wanted)


def value_of(name: str, origin: Origin, record: Record) -> Any:
    """What a record has at a path; None if nothing."""
    if name == FIELDS:
        return (record.fields or {}) if isinstance(record, DetailedRecord) else {}
    found = path(name)
    return found.of_record(origin, record) if found.of_origin is None else found.of_origin(origin)


def _outline(origin: Origin, record: Record) -> dict[str, Any]:
    """What is told of a record that nobody expected."""
    outline = {name: value_of(name, origin, record) for name in ("message", "level", FIELDS)}
    return {name: value for name, value in outline.items() if value not in (None, {})}
