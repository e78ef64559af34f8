"""Text from strangers, as a terminal may be given it."""

from __future__ import annotations

import re

# C0 and C1 controls, line and paragraph separators, and what changes the direction of text.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""Control characters as `\u001b`, as JSON has them; nothing is left that controls a terminal."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
