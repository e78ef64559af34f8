"""Headers that users give requests: what may stand in one (RFC 9110, 5.1 and 5.5)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

OURS = frozenset(("connection", "content-encoding", "content-length", "transfer-encoding", "upgrade"))
"""What a body is, and how it is sent, is known by who sends it."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")


def checked_headers(headers: Mapping[str, str], ours: Collection[str] = OURS) -> dict[str, str]:
    """Headers that can be sent. Raises ValueError, whose text shows no value: it may be a secret."""
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a header")
        if name.lower() in ours:
            raise ValueError(f'"{name}" is set by the sink itself')
        if not is_value(value):
            raise ValueError(f'the value of "{name}" has characters that no header may have')
    return {name: value.strip() for name, value in headers.items()}


def is_value(text: str) -> bool:
    """Whether a header can have this value."""
    return _VALUE.fullmatch(text) is not None
