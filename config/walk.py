"""Which model the values of a configuration are read by: of a component the one that its `type` names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from logroute.config.components import PROCESSORS, SINKS, SOURCES, BrokenComponent, UnknownComponent
from logroute.config.uri import UriError, parse_uri
from logroute.processors import ProcessorOptions
from logroute.sinks import SinkOptions
from logroute.sources import SourceOptions


def as_mapping(value: Any) -> Any:
    """A sink's URI as the mapping that it means; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return parse_uri(value)
    except UriError:
        return value


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Models that a value may be, not those inside of mappings and lists."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif getattr(annotation, "__origin__", None) not in (dict, list, tuple):
        for argument in get_args(annotation):
            yield from models_in(argument)


def specific(model: type[BaseModel], name: str | int, value: Any) -> type[BaseModel]:
    """Of a component the model that its `type` names, by default its own name."""
    value = as_mapping(value)
    type_ = value.get("type", name) if isinstance(value, dict) else name
    for registry, base in ((SINKS, SinkOptions), (SOURCES, SourceOptions), (PROCESSORS, ProcessorOptions)):
        if model is base:
            try:
                return registry.options(str(type_))
            except (UnknownComponent, BrokenComponent):
                return model
    return model
