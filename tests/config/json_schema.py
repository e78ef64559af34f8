"""JSON Schema, draft 2020-12, as far as our schema uses it: whether it is one, and what validates against it.

Strict where the standard is not: a keyword that is unknown here, or a reference that leads nowhere, is a
mistake, because an editor would pass over it in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: is_number(value) and value == int(value),
    "number": lambda value: is_number(value),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}

# What a keyword's own value has to be.
KEYWORDS: dict[str, Callable[[Any], bool]] = {
    "$schema": lambda it: it == "https://json-schema.org/draft/2020-12/schema",
    "$defs": TYPES["object"],
    "$ref": lambda it: isinstance(it, str) and it.startswith("#/$defs/"),
    "title": TYPES["string"],
    "description": lambda it: isinstance(it, str) and bool(it.strip()),
    "default": lambda _: True,
    "examples": TYPES["array"],
    "type": lambda it: bool(it) and all(name in TYPES for name in ([it] if isinstance(it, str) else it)),
    "const": lambda _: True,
    "enum": lambda it: isinstance(it, list) and bool(it),
    "anyOf": lambda it: isinstance(it, list) and bool(it),
    "properties": TYPES["object"],
    "additionalProperties": lambda it: isinstance(it, dict | bool),
    "required": lambda it: isinstance(it, list) and len(set(it)) == len(it),
    "minProperties": TYPES["integer"],
    "items": TYPES["object"],
    "minItems": TYPES["integer"],
    "minLength": TYPES["integer"],
    "maxLength": TYPES["integer"],
    "pattern": lambda it: re.compile(it) is not None,
    "minimum": TYPES["number"],
    "maximum": TYPES["number"],
    "exclusiveMinimum": TYPES["number"],
}

ANNOTATIONS = ("$schema", "$defs", "title", "description", "default", "examples")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_schema(schema: Any, root: Any, at: str = "#") -> None:
    """Raises AssertionError with the place of what is no schema."""
    assert isinstance(schema, dict), at
    for keyword, value in schema.items():
        assert keyword in KEYWORDS, f"{at}: unknown keyword {keyword}"
        assert KEYWORDS[keyword](value), f"{at}/{keyword}: {value!r}"
    if "$ref" in schema:
        assert schema["$ref"].removeprefix("#/$defs/") in root["$defs"], f"{at}: {schema['$ref']}"
    for place, below in schemas_in(schema):
        check_schema(below, root, f"{at}/{place}")


def schemas_in(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for keyword in ("$defs", "properties"):
        for name, below in schema.get(keyword, {}).items():
            yield f"{keyword}/{name}", below
    for index, below in enumerate(schema.get("anyOf", ())):
        yield f"anyOf/{index}", below
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            yield keyword, schema[keyword]


def errors(value: Any, schema: Any, root: Any, at: str = "") -> list[str]:
    """What is wrong about a value: empty where it validates."""
    found: list[str] = []
    for keyword, wanted in schema.items():
        if keyword == "$ref":
            found += errors(value, root["$defs"][wanted.removeprefix("#/$defs/")], root, at)
        elif keyword == "anyOf":
            each = [errors(value, alternative, root, at) for alternative in wanted]
            if all(each):
                found.append(f"{at}: none of {each}")
        elif keyword in ASSERTIONS:
            if not ASSERTIONS[keyword](value, wanted):
                found.append(f"{at}: {keyword} {wanted!r}")
        elif keyword == "items" and isinstance(value, list):
            for index, item in enumerate(value):
                found += errors(item, wanted, root, f"{at}[{index}]")
        elif keyword == "properties" and isinstance(value, dict):
            for name in wanted.keys() & value.keys():
                found += errors(value[name], wanted[name], root, f"{at}.{name}")
        elif keyword == "additionalProperties" and isinstance(value, dict):
            for name in value.keys() - schema.get("properties", {}).keys():
                if wanted is False:
                    found.append(f"{at}.{name}: not allowed")
                elif isinstance(wanted, dict):
                    found += errors(value[name], wanted, root, f"{at}.{name}")
    return found


def equal(one: Any, other: Any) -> bool:
    """As JSON has it: true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


ASSERTIONS: dict[str, Callable[[Any, Any], bool]] = {
    "type": lambda value, names: any(
        TYPES[name](value) for name in ([names] if isinstance(names, str) else names)
    ),
    "const": equal,
    "enum": lambda value, wanted: any(equal(value, each) for each in wanted),
    "pattern": lambda value, wanted: not isinstance(value, str) or re.search(wanted, value) is not None,
    "minimum": lambda value, least: not is_number(value) or value >= least,
    "maximum": lambda value, most: not is_number(value) or value <= most,
    "exclusiveMinimum": lambda value, least: not is_number(value) or value > least,
    "required": lambda value, names: not isinstance(value, dict) or set(names) <= value.keys(),
    "minProperties": lambda value, least: not isinstance(value, dict) or len(value) >= least,
    "minItems": lambda value, least: not isinstance(value, list) or len(value) >= least,
    "minLength": lambda value, least: not isinstance(value, str) or len(value) >= least,
    "maxLength": lambda value, most: not isinstance(value, str) or len(value) <= most,
}
