"""What a route's dead letters may take, and what it does when they take that.

Then `when_full` says, as for the queue: the oldest or the newest are dropped, and counted; or the route
waits, until somebody has replayed or dropped them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from logroute.router.books import Books
from logroute.router.dead_letters import Letter
from logroute.router.overflow import WhenFull
from logroute.router.state import RouteState

UNSTORED_LETTER_BYTES = 4 << 20
"""What they may hold in memory while they cannot be stored."""
DEAD_LETTER_BYTES_IN_MEMORY = 16 << 20
"""What all may take where there is no disk; then the oldest make room."""


class Owner(Protocol):
    def warn(self, event: str, **details: object) -> None:
        """Say it, but not over and over."""


class DeadLetterLimit:
    """Of one route, whose state has the letters."""

    def __init__(self, state: RouteState, books: Books, owner: Owner, *, on_disk: bool) -> None:
        self._state = state
        self._books = books
        self._owner = owner
        self._on_disk = on_disk
        self._limit_bytes = 0
        self._when_full: WhenFull = "block"

    def set(self, limit_bytes: int, when_full: WhenFull) -> None:
        """What the settings say from now on."""
        self._limit_bytes = limit_bytes if self._on_disk else min(limit_bytes, DEAD_LETTER_BYTES_IN_MEMORY)
        self._when_full = when_full if self._on_disk else "drop_oldest"

    @property
    def _full(self) -> bool:
        return self._state.dead.size_bytes >= self._limit_bytes

    def hindrance(self) -> str:
        """Why nothing may be delivered now, as it might be rejected; empty if it may."""
        dead = self._state.dead
        if self._full and self._when_full == "block":
            return (
                f"its {dead.letters} dead letters take {dead.size_bytes} bytes: "
                f"replay or drop them with `logroute deadletters`"
            )
        if self._state.unstored_bytes > UNSTORED_LETTER_BYTES:
            return "its dead letters cannot be stored: they must not fill the memory"
        return ""

    def bury(self, letters: Sequence[Letter]) -> None:
        """Keep these, unless they are dropped."""
        if letters and self._full and self._when_full == "drop_newest":
            self._books.letters_dropped += len(letters)
            self._owner.warn("there are too many dead letters: what is rejected now is not kept")
        else:
            self._state.bury(letters)

    async def make_room(self) -> None:
        """Drop the oldest, if that is what is to be done. Raises StateError."""
        if self._full and self._when_full == "drop_oldest":
            dropped = await self._state.forget_oldest_letters(self._state.dead.size_bytes // 10)
            self._books.letters_dropped += dropped
            self._owner.warn("there are too many dead letters: the oldest are dropped", dead_letters=dropped)
