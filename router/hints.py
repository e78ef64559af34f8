"""Hints: what the labels of a container ask for its records.

    logroute.enable=false             nothing of it is read
    logroute.routes=search,audit      only these routes may take them, if their matches do
    logroute.parser=json              they are parsed so, unless the configuration parses them
    logroute.multiline=java           lines of one trace are joined, unless the configuration joins them
    logroute.fields.team=pay          they get this field, unless the configuration gives it

Labels come from strangers: they choose among what is harmless, and the configuration has the last word. What
makes no sense is said once, by container, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from logroute.config.components import PROCESSORS
from logroute.config.problems import did_you_mean
from logroute.processors import Processor, ProcessorOptions
from logroute.processors._fields import fields_of
from logroute.processors._line_machines import MACHINES
from logroute.processors.multiline import Joining, JoiningProcessor, MultilineOptions
from logroute.router.chain import StagePlan
from logroute.router.match import NO, Decision, Match
from logroute.router.record import ALL_STREAMS, Batch, Origin

if TYPE_CHECKING:
    from logroute.router.selection import Selector

PREFIX = "logroute."
ROUTES = "logroute.routes"
PARSER = "logroute.parser"
MULTILINE = "logroute.multiline"
FIELDS = "logroute.fields."
ENABLE = "logroute.enable"
"""Heard by the source, which then reads nothing (`disabled`)."""
KNOWN = (ENABLE, ROUTES, PARSER, MULTILINE)
_GROUPS = [label.removeprefix(PREFIX).rstrip(".") for label in (*KNOWN, FIELDS)]
OF_DEMO = "logroute.demo"
"""By which `logroute demo` knows its containers; it asks for nothing."""

_OFF, _ON = ("false", "0", "no"), ("true", "1", "yes")

FORMATS = ("nginx", "apache", "haproxy", "postgres", "redis", "klog", "syslog")
PARSERS: dict[str, dict[str, Any]] = {
    **{name: {"type": name} for name in ("json", "logfmt", "auto")},
    **{name: {"type": "format", "name": name} for name in FORMATS},
}
"""What a label may name, and the processor that it means. None takes anything from the label but its name."""
PARSING = frozenset({"json", "logfmt", "regex", "format", "csv", "key_value", "auto"})
"""Types of processors beside which a label is not heard."""


def disabled(origin: Origin) -> bool:
    """Whether the container asks that nothing of it is read."""
    return origin.labels.get(ENABLE, "").lower() in _OFF


def allowed(origin: Origin, routes: Iterable[str]) -> frozenset[str] | None:
    """The routes that the container's label narrows all of them to; None: it does not."""
    asked = origin.labels.get(ROUTES)
    if asked is None:
        return None
    return frozenset(_names(asked)).intersection(routes) or None


def nonsense(origin: Origin, routes: Sequence[str]) -> list[str]:
    """What of the container's labels makes no sense, a sentence each."""
    found: list[str] = []
    for label, value in origin.labels.items():
        if not label.startswith(PREFIX):
            if label.lower().startswith(PREFIX):
                found.append(f'there is no label {label}; did you mean "{label.lower()}"?')
            continue
        if label == ENABLE:
            if value.lower() not in (*_ON, *_OFF):
                hint = did_you_mean(value, ("true", "false"))
                found.append(f'{label}: "{value}" is neither true nor false{hint}')
        elif label == ROUTES:
            unknown = [name for name in _names(value) if name not in routes]
            found += [f'{label}: there is no route "{name}"{did_you_mean(name, routes)}' for name in unknown]
            if not _names(value):
                found.append(f"{label} names no route")
        elif label == PARSER:
            if value not in PARSERS:
                hint = did_you_mean(value, PARSERS) or f"; there are {', '.join(PARSERS)}"
                found.append(f'{label}: there is no parser "{value}"{hint}')
        elif label == MULTILINE:
            if value not in MACHINES:
                hint = did_you_mean(value, MACHINES) or f"; there are {', '.join(MACHINES)}"
                found.append(f'{label}: there are no traces of "{value}"{hint}')
        elif label == FIELDS:
            found.append(f"{label} names no field")
        elif label not in (*KNOWN, OF_DEMO) and not label.startswith(FIELDS):
            group, _, key = label.removeprefix(PREFIX).partition(".")
            hint = did_you_mean(label, KNOWN) or f"; there are {', '.join(KNOWN)} and {FIELDS}…"
            if "fields" in did_you_mean(group, _GROUPS):
                hint = f'; did you mean "{FIELDS}{key or "…"}"?'
            found.append(f"there is no label {label}{hint}")
    return found


def say_nonsense(origin: Origin, routes: Sequence[str]) -> None:
    """Say it in the daemon's log."""
    for what in nonsense(origin, routes):
        structlog.get_logger("logroute.router").warning(
            "a label makes no sense, and changes nothing", container=origin.name, reason=what
        )


def _names(value: str) -> list[str]:
    return [name for part in value.split(",") if (name := part.strip())]


class HintOptions(ProcessorOptions):
    """Nobody configures it."""


class HintProcessor(Processor[HintOptions]):
    """Does what the labels of a container ask for, before any processor of the configuration."""

    def __init__(self, parsing: Sequence[Match]) -> None:
        super().__init__(HintOptions.model_construct())
        self._hints = Hints(parsing)
        self._parsers: dict[str, Processor[Any]] = {}

    def apply(self, batch: Batch) -> Batch | None:
        made: Batch | None = batch
        if (name := self._hints.parser(batch.origin)) is not None:
            made = self._parser(name).apply(batch)
        if made is not None and (given := fields(batch.origin)):
            for record in made.records:
                fields_of(record).update(given)
        return made

    def _parser(self, name: str) -> Processor[Any]:
        """Made when the first container asks for it."""
        parser = self._parsers.get(name)
        if parser is None:
            options = PROCESSORS.options(PARSERS[name]["type"]).model_validate(PARSERS[name])
            parser = self._parsers[name] = PROCESSORS.create(options)
            parser.books = self.books
        return parser


class Hints:
    """Which containers have some that are heard; a match."""

    def __init__(self, parsing: Sequence[Match]) -> None:
        """`parsing` are the matches of the processors that parse already."""
        self._parsing = parsing

    def parser(self, origin: Origin) -> str | None:
        """The one that the container asks for, if it is heard."""
        name = origin.labels.get(PARSER)
        if name not in PARSERS or any(match.decide(origin) for match in self._parsing):
            return None
        return name

    def decide(self, origin: Origin) -> Decision:
        return ALL_STREAMS if self.parser(origin) is not None or fields(origin) else NO

    def selector(self, _: Origin) -> Selector | None:
        return None


def fields(origin: Origin) -> dict[str, str]:
    """The fields that the container asks for."""
    return {
        label.removeprefix(FIELDS): value
        for label, value in origin.labels.items()
        if label.startswith(FIELDS) and label != FIELDS
    }


class JoiningHints:
    """Which containers ask for their lines to be joined, and are heard; a match."""

    def __init__(self, joining: Sequence[Match]) -> None:
        """`joining` are the matches of the processors that join lines already."""
        self._joining = joining

    def decide(self, origin: Origin) -> Decision:
        if origin.labels.get(MULTILINE) not in MACHINES:
            return NO
        return NO if any(match.decide(origin) for match in self._joining) else ALL_STREAMS

    def selector(self, _: Origin) -> Selector | None:
        return None


class JoiningHintProcessor(JoiningProcessor[HintOptions]):
    """Joins the lines of containers as their labels ask for."""

    def __init__(self) -> None:
        limits = MultilineOptions.model_construct(preset="java")  # their defaults
        super().__init__(HintOptions.model_construct(), limits)
        self._joinings: dict[str, Joining] = {}

    def joining_of(self, origin: Origin) -> Joining:
        name = origin.labels[MULTILINE]
        joining = self._joinings.get(name)
        if joining is None:
            joining = self._joinings[name] = Joining(MACHINES[name]())
        return joining


def hint_plans(processors: Sequence[ProcessorOptions]) -> list[StagePlan]:
    """The stages before those that are configured for all records."""
    parsing = [options.when for options in processors if _type(options) in PARSING]
    joining = [options.when for options in processors if _type(options) == "multiline"]
    return [
        StagePlan(
            "labels.multiline",
            JoiningHints(joining),
            JoiningHintProcessor,
            f"labels.multiline {[match.to_value() for match in joining]}",
            separable=False,
        ),
        StagePlan(
            "labels",
            Hints(parsing),
            partial(HintProcessor, parsing),
            f"labels {[match.to_value() for match in parsing]}",
        ),
    ]


def _type(options: ProcessorOptions) -> str:
    return str(type(options).model_fields["type"].default)
