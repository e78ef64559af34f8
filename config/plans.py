"""From a configuration to what the daemon shall run; and from one route, as the API is given it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import ValidationError

from logroute.config.components import PROCESSORS, SINKS, SOURCES
from logroute.config.hidden import Hidden
from logroute.config.model import Config, RouteOptions
from logroute.config.problems import ConfigError, Loc, Problem, dotted
from logroute.config.types import parse_duration
from logroute.processors import ProcessorOptions
from logroute.router.chain import StagePlan
from logroute.router.hints import hint_plans
from logroute.router.plan import Plan, RoutePlan, RouteRefused, SourcePlan
from logroute.router.route import RouteSettings
from logroute.sources import SourceContext

if TYPE_CHECKING:
    from logroute.config.load import LoadedConfig

ONLY_IN_FILES = {"python": "runs code of this host", "lookup": "reads files of this host"}
"""Processors that no API may ask for, and why."""


def make_plan(
    config: Config,
    state_dir: Path | None,
    once: bool = False,
    timeout: str = "5m",
    loaded: LoadedConfig | None = None,
    hidden: Hidden | None = None,
) -> Plan:
    """What the daemon shall run, from what was configured. Raises ConfigError.

    `loaded` is where it came from: what routes say is shown as it stands there. Its secrets are told to
    `hidden`.
    """
    hidden = hidden if hidden is not None else Hidden()
    hidden.remember(loaded.secrets if loaded is not None else ())
    try:
        timeout_s = parse_duration(timeout)
    except ValueError as error:
        raise ConfigError([Problem(f"--timeout: {error}")]) from error
    for name, options in config.sources.items():
        try:
            options.check()
        except ValueError as error:
            raise ConfigError([Problem(hidden.without(str(error)), path=f"sources.{name}")]) from error
    contexts = {
        name: SourceContext(
            name,
            once=once,
            record_limit_bytes=config.limits.record,
            held_bytes=config.limits.held_logs,
        )
        for name in config.sources
    }
    return Plan(
        [
            _route_plan(
                name,
                route,
                loaded.routes.get(name, {}) if loaded is not None else {},
                loaded.places.get(name, "") if loaded is not None else "",
            )
            for name, route in config.routes.items()
        ],
        [
            SourcePlan(
                name,
                partial(SOURCES.create, options, contexts[name]),
                (options, config.limits.record, config.limits.held_logs),
                options.reads,
            )
            for name, options in config.sources.items()
        ],
        state_dir,
        once=once,
        timeout_s=timeout_s,
        grace_s=config.limits.grace,
        memory_bytes=config.limits.memory,
        processors=plans_before(config),
        make_route=parse_route,
        body=loaded.said if loaded is not None else {},
        hidden=hidden,
    )


def parse_route(name: str, body: Any) -> RoutePlan:
    """The route that a body of the API means: the same that it would mean in a file. Raises RouteRefused."""
    from logroute.config.wording import mistakes

    data = {"routes": {name: body}}
    try:
        route = Config.model_validate(data).routes[name]
    except ValidationError as error:
        raise RouteRefused(
            [
                # What is wrong at the route itself is its name: its body is a mapping.
                (
                    dotted(found.loc[2:]) or "name" if found.loc[:1] == ("routes",) else dotted(found.loc),
                    found.text,
                )
                for found in mistakes(error.errors(include_url=False), data)
            ]
        ) from error
    refused = [
        (f"processors.{index}", f"`type: {kind}` {why}: it can stand in the configuration file only")
        for index, options in enumerate(route.processors)
        if (why := ONLY_IN_FILES.get(kind := _type(options)))
    ]
    if refused:
        raise RouteRefused(refused)
    return _route_plan(name, route, body, "", by_api=True)


def _route_plan(
    name: str, route: RouteOptions, body: Mapping[str, Any], place: str, *, by_api: bool = False
) -> RoutePlan:
    settings = RouteSettings(
        name,
        match=route.match,
        queue_bytes=route.queue.memory,
        disk_bytes=route.queue.disk,
        dead_letter_bytes=route.queue.dead_letters,
        when_full=route.queue.when_full,
        batch_bytes=route.batch.bytes,
        batch_records=route.batch.records,
        batch_wait_s=route.batch.wait,
        retry_initial_s=route.retry.initial,
        retry_max_s=route.retry.max,
        deadline_s=route.retry.deadline,
        start=route.start,
    )
    sink: Any = route.sink
    durable = route.queue.fsync or bool(getattr(sink, "fsync", False))
    return RoutePlan(
        settings,
        partial(SINKS.create, sink),
        durable=durable,
        options=sink,
        processors=stage_plans(f"{name}.processors", route.processors),
        body=body,
        place=place,
        by_api=by_api,
    )


def unusable(loaded: LoadedConfig, *, sources: bool = True) -> list[Problem]:
    """What no run would begin with, though it is valid, each with its place: processors that cannot be made,
    sources that do not fit this machine (left out where nothing is read).
    """
    found: list[Problem] = []

    def attempt(at: Loc, make: Callable[[], object]) -> None:
        try:
            make()
        except Exception as error:  # a stranger's may raise anything
            text = str(error) or type(error).__name__
            found.append(msgspec.structs.replace(loaded.place_of(at), message=text))

    config = loaded.config
    for name, options in config.sources.items() if sources else ():
        attempt(("sources", name), options.check)
    chains: list[tuple[Loc, Sequence[ProcessorOptions]]] = [(("processors",), config.processors)]
    chains += [(("routes", name, "processors"), route.processors) for name, route in config.routes.items()]
    for at, processors in chains:
        for index, each in enumerate(processors):
            attempt((*at, index), partial(PROCESSORS.create, each))
    return found


def plans_before(config: Config) -> list[StagePlan]:
    """How what all records pass is made: first what the labels of their containers ask for."""
    return [*hint_plans(config.processors), *stage_plans("processors", config.processors)]


def stage_plans(where: str, processors: Sequence[ProcessorOptions]) -> list[StagePlan]:
    """How the processors at a place of the configuration are made."""
    return [
        StagePlan(
            f"{where}[{index}].{_type(options)}",
            options.when,
            partial(PROCESSORS.create, options),
            f"{_type(options)} {options.model_dump_json()}",
            separable=PROCESSORS.class_of(_type(options)).separable,
        )
        for index, options in enumerate(processors)
    ]


def _type(options: ProcessorOptions) -> str:
    return str(type(options).model_fields["type"].default)
