"""Dead letters as they lie in a state directory, for when no daemon runs: its lock is held meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

import trio

from logroute.api.letters import Page, WholeLetter, whole_letter
from logroute.router.daemon import sole_user_of
from logroute.router.database import StateError
from logroute.router.dead_letters import Summary
from logroute.router.state import RouteState

T = TypeVar("T")

ROW_BYTES = 1 << 20
ROW_RECORDS = 10_000
"""What one delivery of a replay takes: most sinks' own bounds."""


@contextmanager
def letters_in(state_dir: Path) -> Iterator[StoredLetters]:
    """Raises StateError where there is none, or a daemon uses it."""
    if not (state_dir / "routes").is_dir():
        raise StateError(f"{state_dir} is no state_dir: there is no folder `routes` in it")
    with sole_user_of(state_dir):
        yield StoredLetters(state_dir)


class StoredLetters:
    """What `logroute deadletters` does, without a daemon. Every method raises StateError."""

    where = "the stored state"

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self.routes = sorted(unquote(path.stem) for path in (state_dir / "routes").glob("*.db"))

    def summaries(self) -> dict[str, Summary]:
        return {name: self._with(name, RouteState.letters_summary) for name in self.routes}

    def page(self, route: str, after: int, count: int) -> Page:
        async def read(state: RouteState) -> Page:
            letters = await state.letters(after, count + 1)
            return Page(letters[:count], letters[count - 1].id if len(letters) > count else 0)

        return self._with(route, read)

    def whole(self, route: str, id_: int) -> WholeLetter:
        async def read(state: RouteState) -> WholeLetter:
            found = await state.letter(id_)
            if found is None:
                raise StateError(f"route {route} has no dead letter {id_}")
            return whole_letter(*found)

        return self._with(route, read)

    def replay(self, route: str, ids: Sequence[int] | None) -> int:
        async def move(state: RouteState) -> int:
            moved = 0
            while rows := await state.replay(ids, ROW_BYTES, ROW_RECORDS):
                moved += sum(row.records for row in rows)
            return moved

        return self._with(route, move)

    def drop(self, route: str, ids: Sequence[int] | None) -> int:
        return self._with(route, lambda state: state.forget_letters(ids))

    def _with(self, route: str, work: Callable[[RouteState], Awaitable[T]]) -> T:
        if route not in self.routes:
            known = ", ".join(self.routes) or "none"
            raise StateError(f"there is no route {route} in {self._state_dir}; there are: {known}")

        async def run() -> T:
            state = RouteState(route, self._state_dir)
            await state.open()
            try:
                return await work(state)
            finally:
                with trio.CancelScope(shield=True):
                    await state.close()

        return trio.run(run)
