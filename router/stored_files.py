"""What the states of other routes say of a file, for a sink that doubts whether all of it is its own."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import msgspec

from logroute.router.checkpoints import file_length, text_key
from logroute.router.database import StateError
from logroute.router.state_file import reading
from logroute.sinks import FileLength


def recorded_by_others(
    state_dir: str | None, route: str, paths: Collection[str]
) -> dict[str, list[FileLength]]:
    """What each other route, running or not, has recorded of these paths. A state that cannot be read says
    nothing. For worker threads."""
    found: dict[str, list[FileLength]] = {}
    if state_dir is None or not paths:
        return found
    for file in sorted(Path(state_dir, "routes").glob("*.db")):
        if file.stem == quote(route, safe=""):
            continue
        with suppress(StateError, TypeError, msgspec.MsgspecError), reading(file) as database:
            for path in paths:
                rows = database.execute(
                    "select fingerprint, fingerprint_bytes, length, details from files where path = ?",
                    (text_key(path),),
                )
                for row in rows.fetchall():
                    found.setdefault(path, []).append(file_length(*row))
    return found
