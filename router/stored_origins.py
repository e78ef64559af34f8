"""Origins as a route's database holds them: what is spooled, or dead, must say who said it after a restart.

    origins(id, key, json)      one row for every origin as it was when something of it was stored

A container that is renamed gets another row: what was read before keeps the name that was true then. The rows
are removed when the database is opened and nothing is stored that could refer to them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from logroute.router.record import Image, Origin

SCHEMA = """
create table if not exists origins (id integer primary key, key text not null, json text not null);
"""


class StoredOrigins:
    """Numbers for origins, and origins for numbers. One object for each number in a run.

    `number` and `origin` are for the trio thread and touch no disk; `new_rows` is what the next transaction
    has to insert.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._origins: dict[int, Origin] = {}
        self._unstored: dict[int, tuple[str, str]] = {}
        self._next = 1

    def load(self, database: sqlite3.Connection, *, in_use: bool, first: int = 1) -> None:
        """Read what is stored; remove it if nothing refers to any. Raises ValueError if it is damaged.

        New numbers begin at `first`, or behind all that there are.
        """
        self._next = first
        if not in_use and database.execute("select exists(select 1 from origins)").fetchone()[0]:
            database.execute("delete from origins")
        for number, text in database.execute("select id, json from origins"):
            self._origins[number] = decode(text)
            self._numbers[text] = number
            self._next = max(self._next, number + 1)

    def number(self, origin: Origin) -> int:
        """Its number; a new one where nothing of it, as it is now, was ever stored."""
        text = _to_json(origin)
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = self._next
            self._next += 1
            self._origins[number] = origin
            self._unstored[number] = _as_row(origin, text)
        return number

    def origin(self, number: int) -> Origin:
        """The origin of a number; raises KeyError where a damaged database does not know it."""
        return self._origins[number]

    def store_again(self) -> None:
        """The database has lost some: all are to be inserted."""
        for text, number in self._numbers.items():
            self._unstored[number] = _as_row(self._origins[number], text)

    def new_rows(self) -> dict[int, tuple[str, str]]:
        """What is to be inserted by the next transaction; `stored` once that has succeeded."""
        return dict(self._unstored)

    def stored(self, rows: Mapping[int, tuple[str, str]]) -> None:
        for number in rows:
            self._unstored.pop(number, None)


def insert(database: sqlite3.Connection, rows: Mapping[int, tuple[str, str]]) -> None:
    """Within a transaction."""
    database.executemany(
        "insert or ignore into origins values (?, ?, ?)",
        [(number, key, text) for number, (key, text) in rows.items()],
    )


def _as_row(origin: Origin, text: str) -> tuple[str, str]:
    return origin.key.encode("utf-8", "replace").decode(), text


def _to_json(origin: Origin) -> str:
    """ASCII, so that a path that is not UTF-8 (half surrogates in Python) comes back as it was."""
    image = origin.image
    values: dict[str, Any] = {
        "key": origin.key,
        "source": origin.source,
        "id": origin.id,
        "name": origin.name,
        "image": [image.name, image.tag, image.digest] if image else None,
        "labels": dict(origin.labels),
        "env": dict(origin.env),
        "runtime": origin.runtime,
        "host": origin.host,
        "file": origin.file,
    }
    return json.dumps({name: value for name, value in values.items() if value})


def decode(text: str) -> Origin:
    """Raises ValueError where it is not what `_to_json` wrote."""
    try:
        values = json.loads(text)
        if (image := values.pop("image", None)) is not None:
            values["image"] = Image(*image)
        return Origin(**{"key": "", "source": "", **values})
    except (TypeError, AttributeError) as error:
        raise ValueError(f"no origin: {text[:100]!r}") from error
