"""Values of fields as JSON in a text, whatever a processor, or somebody's JSON, has put there.

`json_text` is for what is read again: it is only half as deep as Python's calls may be. `nested_text` is for
receivers that have no form for a value, or none that is so deep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

_encode = msgspec.json.Encoder(enc_hook=str).encode


def nested_text(value: Any) -> str:
    """As JSON, all of it: C goes deeper than Python does. No value makes it fail."""
    try:
        return _encode(value).decode()
    except Exception:  # half of a surrogate pair, a key that is none, something that holds itself
        return json_text(value)


def json_text(value: Any) -> str:
    """As JSON, as near as can be: a record that cannot be stored would stop its route for ever."""
    try:
        return msgspec.json.encode(encodable(value)).decode()
    except RecursionError:
        return '{"not_stored":"nested too deeply"}'
    except Exception:  # such as a text that a stranger's object fails to give
        return '{"not_stored":"cannot be written"}'


def depth(value: Any, most: int) -> int:
    """How many mappings and lists stand in each other, or `most` and one, where it is more."""
    found, level = 0, [value]
    while level and found <= most + 1:
        level = [
            each
            for below in level
            if isinstance(below, dict | list)
            for each in (below.values() if isinstance(below, dict) else below)
        ]
        found += 1
    return found - 1


def encodable(value: Any) -> Any:
    """A copy of what JSON has a form for.

    Without halves of surrogate pairs, which a processor may have made, or a path may have; what is of another
    type becomes text.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(encodable(key)): encodable(below) for key, below in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [encodable(below) for below in value]
    return encodable(str(value))
