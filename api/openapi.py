"""The description of the API (OpenAPI 3.1), made from what its endpoints say of themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from logroute import __version__
from logroute.api.problems import MEDIA_TYPE
from logroute.api.requests import Endpoint
from logroute.api.route_facts import READ_ONLY

COMPONENTS = "#/components/schemas/"
PROBLEM = f"{COMPONENTS}Problem"
ROUTE, NEW_ROUTE, ROUTE_PATCH = "Route", "NewRoute", "RoutePatch"
"""Schemas of bodies that are no type: they are the configuration's."""
ALWAYS = (401, 403, 421, 500)
"""Problems that any request may be answered with: who asks, from where, and mistakes of ours."""
BODIES = {
    "/v1/config/validate": ("application/yaml", "application/json"),
}
LIVE = {"/v1/logs": ("application/x-ndjson", "text/event-stream"), "/metrics": ("text/plain",)}
"""Answers that are no JSON."""

_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")


def description(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The document."""
    types = [
        each
        for endpoint in endpoints
        for each in (endpoint.gives, endpoint.takes)
        if each is not None and not isinstance(each, str)
    ]
    found, components = msgspec.json.schema_components(types, ref_template=f"{COMPONENTS}{{name}}")
    schemas = dict(zip(map(repr, types), found, strict=True))
    routes = _routes()
    components |= routes
    schemas |= {repr(name): {"$ref": COMPONENTS + name} for name in routes}
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        path = _PARAMETER.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    components["Problem"] = {
        "type": "object",
        "description": "What is wrong with a request (RFC 9457).",
        "required": ["title", "status", "detail"],
        "properties": {
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "path": {"type": "string", "description": "Where in the body, or which parameter."},
            "errors": {"type": "array", "items": {"type": "object"}},
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "logroute",
            "version": __version__,
            "description": "What people and programs ask a running logroute.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _routes() -> dict[str, Any]:
    """What makes a route, as the configuration has it, and what that refers to."""
    from logroute.config.schema import route_schema

    route = _moved(route_schema())
    components: dict[str, Any] = route.pop("$defs")
    shown = {name: {"readOnly": True} for name in READ_ONLY}
    name = {"type": "string", "minLength": 1, "description": "The name of the route."}
    said = {**route["properties"], **shown, "name": name}
    components[ROUTE] = {**route, "properties": said}
    components[NEW_ROUTE] = {**components[ROUTE], "required": ["name", *route.get("required", [])]}
    components[ROUTE_PATCH] = {
        "type": "object",
        "description": f"Of what {ROUTE} has some, merged with what the route says; null takes it out.",
        "properties": {key: {} for key in said},
        "additionalProperties": False,
    }
    return components


def _moved(schema: Any) -> Any:
    """The same, referring to components instead of definitions of its own."""
    if isinstance(schema, list):
        return [_moved(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value.replace("#/$defs/", COMPONENTS) if key == "$ref" else _moved(value)
        for key, value in schema.items()
    }


def _operation(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    named = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PARAMETER.findall(endpoint.path)
    ]
    asked = [
        {"name": each.name, "in": "query", "description": each.says, "schema": dict(each.schema)}
        for each in endpoint.query
    ]
    operation: dict[str, Any] = {
        "summary": endpoint.says,
        "operationId": _name(endpoint),
        "responses": {str(endpoint.status): _answer(endpoint, schemas)},
    }
    if parameters := named + asked:
        operation["parameters"] = parameters
    if endpoint.takes is not None:
        schema = schemas[repr(endpoint.takes)]
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    elif (kinds := BODIES.get(endpoint.path)) is not None:
        text: dict[str, Any] = {"schema": {}}  # what is wrong with it is the answer
        operation["requestBody"] = {"required": False, "content": dict.fromkeys(kinds, text)}
    for status in sorted({*endpoint.problems, *ALWAYS} - {endpoint.status}):
        operation["responses"][str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": PROBLEM}}},
        }
    if endpoint.path == "/v1/health":  # not healthy is no problem of the request
        operation["responses"]["503"]["content"] = operation["responses"]["200"]["content"]
    if endpoint.path == "/v1/routes/{route}" and endpoint.method == "GET":
        operation["responses"]["304"] = {"description": "It is what `If-None-Match` names."}
    if endpoint.method == "PUT":
        operation["responses"]["201"] = operation["responses"]["200"]
    return operation


def _answer(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    kinds = LIVE.get(endpoint.path)
    if kinds is not None:
        content: dict[str, Any] = {kind: {"schema": {"type": "string"}} for kind in kinds}
    else:
        content = {"application/json": {"schema": schemas[repr(endpoint.gives)] if endpoint.gives else {}}}
    return {"description": HTTPStatus(endpoint.status).phrase, "content": content}


def _name(endpoint: Endpoint) -> str:
    """`GET /v1/routes/{route}/deadletters` is `get_routes_route_deadletters`."""
    words = re.findall(r"\w+", _PARAMETER.sub(r"\1", endpoint.path.removeprefix("/v1")))
    return "_".join([endpoint.method.lower(), *words])
