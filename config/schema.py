"""JSON Schema of the whole configuration, with every component there is.

Pydantic writes most of it. Added is what it cannot know: which components there are, that `${VAR}` may stand
for any scalar, defaults as somebody would write them, and the keys of a match.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from logroute.config.checks import CheckOptions
from logroute.config.components import PROCESSORS, SINKS, SOURCES, Options, Registry
from logroute.config.documentation import default_of, document, models_in, type_of
from logroute.config.model import Config, RouteOptions
from logroute.processors import ProcessorOptions
from logroute.router.paths import PATHS
from logroute.sinks import SinkOptions
from logroute.sources import SourceOptions

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def config_schema() -> Schema:
    """The schema that an editor completes and checks a configuration with. Imports every component."""
    components = {
        registry.kind: {type_: document(registry.options(type_)) for type_ in registry.types()}
        for registry in (SINKS, SOURCES, PROCESSORS)
    }
    of_components = [model for kind in components.values() for model in kind.values()]
    models = _with_those_below([document(Config), *of_components])
    references, schema = models_json_schema([(model, "validation") for model in models])
    definitions: Schema = schema["$defs"]

    def definition(model: type[BaseModel]) -> Schema:
        found: Schema = definitions[references[model, "validation"]["$ref"].rpartition("/")[2]]
        return found

    for model in models:
        _improve(definition(model), model)

    def alternatives(registry: Registry) -> list[Schema]:
        return [references[model, "validation"] for model in components[registry.kind].values()]

    for registry in (SINKS, PROCESSORS):  # the type of a source defaults to its name
        for model in components[registry.kind].values():
            definition(model)["required"] = ["type", *definition(model).get("required", [])]
    root = definitions.pop(references[Config, "validation"]["$ref"].rpartition("/")[2])
    route = definition(RouteOptions)["properties"]
    uri = {"type": "string", "description": "The sink as a URI."}
    route["sink"] = {
        "description": route["sink"]["description"],
        "anyOf": [uri, *alternatives(SINKS)],
    }
    if PROCESSORS.types():
        for processors in (root["properties"]["processors"], route["processors"]):
            processors["items"] = {"anyOf": alternatives(PROCESSORS)}
    sources = {"anyOf": [{"type": "null"}, *alternatives(SOURCES)]}
    root["properties"]["sources"]["additionalProperties"] = sources
    given = definition(CheckOptions)["properties"]["given"]
    description = given.pop("description")
    given |= {"description": description, "anyOf": [given["items"], dict(given)]}
    for keyword in ("items", "minItems", "type"):
        del given[keyword]
    definitions |= {"match": _match(), "expression": _EXPRESSION, "variable": _VARIABLE}
    return {"$schema": DIALECT, **root, "title": "logroute.yaml", "$defs": dict(sorted(definitions.items()))}


def route_schema() -> Schema:
    """The schema of a route that stands alone, as the API takes it: without variables, and with what it
    refers to as `$defs`. Imports every component."""
    definitions = {name: _without_variables(each) for name, each in config_schema()["$defs"].items()}
    route = definitions["RouteOptions"]
    needed: dict[str, Schema] = {}
    waiting = [route]
    for schema in waiting:
        for name in _references(schema) - needed.keys():
            needed[name] = definitions[name]
            waiting.append(definitions[name])
    return {**route, "$defs": dict(sorted(needed.items()))}


def _references(schema: Any) -> set[str]:
    """The names of the definitions that it refers to."""
    if isinstance(schema, list):
        return set().union(*map(_references, schema))
    if not isinstance(schema, dict):
        return set()
    reference = schema.get("$ref")
    found = {reference.removeprefix(_DEFINITIONS)} if isinstance(reference, str) else set()
    return found.union(*map(_references, schema.values()))


def _without_variables(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_variables(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _without_variables(value) for key, value in schema.items()}
    if (alternatives := made.get("anyOf")) is not None and _A_VARIABLE in alternatives:
        left = [each for each in alternatives if each != _A_VARIABLE]
        del made["anyOf"]
        made |= left[0] if len(left) == 1 else {"anyOf": left}
    return made


def _with_those_below(models: list[type[Options]]) -> list[type[BaseModel]]:
    """The models and those of their options, each once."""
    found: dict[type[BaseModel], None] = {}
    waiting: list[type[BaseModel]] = list(models)
    for model in waiting:
        if model not in found and model not in (SinkOptions, SourceOptions, ProcessorOptions):
            found[model] = None
            for field in model.model_fields.values():
                waiting += models_in(field.annotation)
    return list(found)


# --- one option -------------------------------------------------------------------------------------------

_ANNOTATIONS = ("description", "default", "examples")
_DEFINITIONS = "#/$defs/"
_A_VARIABLE = {"$ref": f"{_DEFINITIONS}variable"}
_VARIABLE: Schema = {"type": "string", "pattern": r"\$\{.+\}", "description": "A text with variables."}


def _improve(definition: Schema, model: type[BaseModel]) -> None:
    definition.pop("title", None)
    for name, field in model.model_fields.items():
        option = definition["properties"][field.alias or name]
        assertion: Schema = {
            key: value for key, value in option.items() if key not in (*_ANNOTATIONS, "title")
        }
        if name == "type":
            # YAML reads {type: null} as nothing at all.
            assertion = {"enum": ["null", None]} if field.default == "null" else assertion
        elif type_of(field) == "match":
            assertion = {"anyOf": [{"$ref": "#/$defs/match"}, {"$ref": "#/$defs/expression"}]}
        else:
            assertion = _or_variable(assertion)
        below = models_in(field.annotation)
        description = field.description or (below[0].__doc__ if below else None)
        if description := model.__doc__ if name == "type" else description:
            assertion["description"] = " ".join(description.split())
        if field.default is not None and not field.is_required() and not below:
            assertion["default"] = default_of(field)
        if "examples" in option:
            assertion["examples"] = option["examples"]
        option.clear()
        option |= assertion


def _or_variable(assertion: Schema) -> Schema:
    """What an option may be: as pydantic says, or a text with variables where that is not a text anyway."""
    alternatives = _flat(assertion)
    if any(each.get("type") in ("object", "array") or "$ref" in each for each in alternatives):
        return assertion
    if not any(_takes_any_text(alternative) for alternative in alternatives):
        alternatives.append(dict(_A_VARIABLE))
    return alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}


def _flat(assertion: Schema) -> list[Schema]:
    if "anyOf" in assertion:
        return [inner for alternative in assertion["anyOf"] for inner in _flat(alternative)]
    # Constraints of what is written as a text stand there under pydantic's names.
    return [{key: value for key, value in assertion.items() if key not in ("ge", "gt", "le", "lt")}]


def _takes_any_text(assertion: Schema) -> bool:
    return assertion.get("type") == "string" and not {"pattern", "enum", "const"} & assertion.keys()


# --- matches ----------------------------------------------------------------------------------------------

MATCH_KEYS = ("container", "image", "label", "fields", *PATHS)
_EXPRESSION: Schema = {
    "type": "string",
    "description": "The same as an expression.",
    "examples": ['container ~ "web-*" and level >= warn'],
}


def _match() -> Schema:
    itself = {"$ref": "#/$defs/match"}
    several = {"type": "array", "items": itself, "minItems": 1}
    value = {"type": ["string", "number", "boolean", "array", "object"]}
    return {
        "type": "object",
        "description": "Conditions: keys are and, a list of values is or; `label.K`, `fields.K` too.",
        "properties": {
            "any": {"description": "One of these matches holds.", **several},
            "all": {"description": "All of these matches hold.", **several},
            "not": {"description": "This match, or none of these, holds.", "anyOf": [itself, several]},
            **{
                key: {"description": f"What `{key}` is, or a list of what it may be.", **value}
                for key in MATCH_KEYS
            },
        },
    }
