"""What is told of records that were gone before they could be read."""

from __future__ import annotations

import msgspec


class Lost(msgspec.Struct, frozen=True):
    """Records between a checkpoint and what can still be read are gone."""

    routes: tuple[str, ...]
    """Empty: every route that takes the origin."""
    reason: str
    since: str
    """Time of the last record that was acknowledged, if known."""
    until: str
    """Time of the first record that is still there, if there is one."""
    size_bytes: int | None = None

    def details(self) -> dict[str, object]:
        """What is known of it, for the log."""
        known = {"since": self.since, "until": self.until, "bytes": self.size_bytes}
        return {name: value for name, value in known.items() if value not in ("", None)}
