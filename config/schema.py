"""JSON Schema of the whole configuration, with every component there is."""

from __future__ import annotations

from typing import Any

from logroute.config.components import PROCESSORS, SINKS, SOURCES, Registry
from logroute.config.documentation import document
from logroute.config.model import Config

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def config_schema() -> dict[str, Any]:
    """The schema that an editor completes and checks a configuration with. Imports every component."""
    schema = document(Config).model_json_schema(ref_template="#/$defs/{model}")
    definitions: dict[str, Any] = schema.setdefault("$defs", {})
    sinks = _alternatives(SINKS, definitions, needs_type=True)
    sink = {"anyOf": [{"type": "string", "description": "The sink as a URI."}, *sinks]}
    definitions["RouteOptions"]["properties"]["sink"] |= sink
    definitions["RouteOptions"]["properties"]["sink"].pop("type", None)
    sources = _alternatives(SOURCES, definitions, needs_type=False)
    schema["properties"]["sources"]["additionalProperties"] = {"anyOf": [{"type": "null"}, *sources]}
    processors = {"items": {"anyOf": _alternatives(PROCESSORS, definitions, needs_type=True)}}
    if processors["items"]["anyOf"]:
        schema["properties"]["processors"] |= processors
        definitions["RouteOptions"]["properties"]["processors"] |= processors
    return {"$schema": DIALECT, "title": "logroute.yaml", **schema}


def _alternatives(
    registry: Registry, definitions: dict[str, Any], *, needs_type: bool
) -> list[dict[str, str]]:
    """A reference to each component's own schema."""
    references: list[dict[str, str]] = []
    for name in registry.types():
        model = document(registry.options(name))
        schema = model.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(schema.pop("$defs", {}))
        if needs_type:
            schema["required"] = sorted({*schema.get("required", ()), "type"})
        definitions[model.__name__] = schema
        references.append({"$ref": f"#/$defs/{model.__name__}"})
    return references
