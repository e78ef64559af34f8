"""The URI form of a sink: `file:///logs/all.ndjson?format=raw&rotate.size=100MiB` is a mapping.

The scheme names the sink's type; query parameters are its options, with dots for nested ones.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from logroute.config.components import SINKS, BrokenComponent, UnknownComponent
from logroute.config.problems import did_you_mean


class UriError(ValueError):
    """The URI means no sink. The text shows no password and no parameter's value."""


def parse_uri(text: str) -> dict[str, Any]:
    """The mapping, with `type`, that a sink's URI means. Raises UriError."""
    try:
        parts = urlsplit(text)
    except ValueError as error:  # whose text may hold the password
        raise UriError(f"{shown(text)!r} is no URI") from error
    scheme = parts.scheme
    if not scheme:
        hint = (
            f"; a file is file://{shown(text)}"
            if text.startswith("/")
            else ", such as file:///tmp/all.ndjson"
        )
        raise UriError(f"{shown(text)!r} has no scheme{hint}")
    if "#" in text:
        raise UriError(f"{shown(text)}: a # is written %23 in a URI")
    try:
        type_ = SINKS.type_of_scheme(scheme)
    except UnknownComponent as error:
        known = ", ".join(f"{name}:" for name in error.known)
        raise UriError(
            f'there is no sink for "{scheme}:"{did_you_mean(scheme, error.known) or f"; there are {known}"}'
        ) from error
    except BrokenComponent as error:
        raise UriError(str(error)) from error
    query: dict[str, Any] = {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        _put(query, key.split("."), value, key)
    if "type" in query:
        raise UriError(f"{shown(text)}: the scheme is the type, `type` is no parameter")
    try:
        options = SINKS.class_of(type_).options_from_uri(parts, query)
    except ValueError as error:
        said = str(error).replace(parts.password, "***") if parts.password else str(error)
        raise UriError(f"{shown(text)}: {said}") from error
    return {"type": type_, **options}


def _put(into: dict[str, Any], keys: list[str], value: str, whole: str) -> None:
    for key in keys[:-1]:
        into = into.setdefault(key, {})
        if not isinstance(into, dict):
            raise UriError(f"the parameter {whole!r} is given twice in two ways")
    last = keys[-1]
    if last not in into:
        into[last] = value
    elif isinstance(into[last], list):
        into[last].append(value)
    elif isinstance(into[last], str):
        into[last] = [into[last], value]
    else:
        raise UriError(f"the parameter {whole!r} is given twice in two ways")


_AUTHORITY = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//")
_USER_INFO = re.compile(r"([^:@/?#]*):.*@", re.DOTALL)


def shown(text: str) -> str:
    """The URI as it may be shown: without its password and without what its parameters say."""
    # Taken apart with more care than a URI needs: a password that should have been quoted may hold anything.
    head, mark, query = text.partition("?")
    if "@" in query:
        head, mark, query = text, "", ""
    start = found.end() if (found := _AUTHORITY.match(head)) else 0
    rest = _USER_INFO.sub(r"\1:***@", head[start:], count=1)
    keys = (parameter.partition("=")[0] for parameter in query.split("&"))
    return head[:start] + rest + mark + "&".join(f"{key}=…" for key in keys if mark)


_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


def route_names(uris: list[str], taken: set[str]) -> list[str]:
    """A name for the route of each URI: its scheme, and a number from the second on."""
    names: list[str] = []
    for uri in uris:
        base = found[1].lower() if (found := _SCHEME.match(uri)) else "route"
        name, number = base, 1
        while name in taken or name in names:
            number += 1
            name = f"{base}-{number}"
        names.append(name)
    return names
