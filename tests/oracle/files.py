"""What file routes have written: read to the end when all is over, looked into while they write."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import zstandard

from tests.oracle.history import Delivery, History, Promise, RouteHistory, Violation
from tests.oracle.receivers import take_json

TAIL_BYTES = 256 * 1024


class FileRoute:
    """The files of one route, all in one folder: `NAME.ndjson` and what rotation makes of it."""

    promise: ClassVar[Promise] = "exactly once"

    def __init__(self, name: str, folder: Path, history: History) -> None:
        self.name = name
        self.folder = folder
        self.books = history.routes[name] = RouteHistory(name, self.promise)
        self._history = history

    def look(self) -> None:
        """Note when the newest record was written that has arrived."""
        try:
            files = [(path.stat().st_mtime_ns, path) for path in self.folder.glob("*.ndjson")]
            if not files:
                return
            with max(files)[1].open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
                lines = file.read().split(b"\n")
        except FileNotFoundError:  # renamed or compressed meanwhile: it is looked at again soon
            return
        # Apart: what is torn or may be taken back again is judged at the end.
        apart = History(
            written=self._history.written, routes={self.books.name: RouteHistory("", self.promise)}
        )
        for line in lines[-2:-1]:
            take_json(apart, self.books.name, line, Delivery(0, 0.0))
        self.books.newest = max(self.books.newest, apart.routes[self.books.name].newest)

    def read(self, history: History) -> None:
        """Everything that is there, into a history, in place of what was read before.

        Raises FileNotFoundError where a file is renamed or compressed meanwhile.
        """
        books = history.routes[self.books.name]
        books.arrivals.clear()
        delivery = Delivery(0, 0.0)  # when it was written, nobody knows
        finished = {path.with_suffix("") for path in self.folder.glob("*.ndjson.zst")}
        plain = [path for path in self.folder.glob("*.ndjson") if path not in finished]
        for path in sorted([*plain, *(Path(f"{path}.zst") for path in finished)], key=_in_order):
            for line in _lines(path):
                if line.endswith(b"\n"):
                    take_json(history, books.name, line[:-1], delivery)
                else:
                    history.seen.append(Violation(books.name, "altered", f"{path.name} ends in mid-record"))


def _in_order(path: Path) -> tuple[str, bool, str]:
    """Finished files (NAME.TIME-NUMBER.ndjson) sort by their names; the one being written comes last."""
    container, _, rest = path.name.partition(".")
    return container, rest == "ndjson", rest


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        if path.suffix != ".zst":
            yield from file
            return
        with zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as reader:
            yield from io.BufferedReader(reader)
