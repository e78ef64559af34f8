"""Reading what file routes have written, in the order in which they wrote it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import zstandard

from tests.oracle.files import FileRoute
from tests.oracle.history import History, StreamName
from tests.oracle.records import Key, text_of

WEB = StreamName("web-1", "stdout")


def lines(first: int, last: int) -> bytes:
    return b"".join(
        msgspec.json.encode(
            {
                "message": text_of(Key(*WEB, number), ""),
                "stream": WEB.stream,
                "container": {"name": WEB.container},
            }
        )
        + b"\n"
        for number in range(first, last)
    )


def written(count: int) -> History:
    history = History()
    for number in range(count):
        history.write(Key(*WEB, number), 100, "file", float(number))
    return history


def test_finished_files_come_before_the_one_being_written_and_once(tmp_path: Path) -> None:
    history = written(8)
    route = FileRoute("disk", tmp_path, history)
    begun = tmp_path / "web-1.20261125T120000Z-0001.ndjson"
    begun.with_suffix(".ndjson.zst").write_bytes(
        zstandard.compress(lines(0, 2)) + zstandard.compress(lines(2, 3))
    )
    # Compressed, and not yet removed; and one that was being compressed when everything ended.
    begun.write_bytes(lines(0, 3))
    (tmp_path / "web-1.20261125T120001Z-0002.ndjson.zst.logroute-tmp").write_bytes(b"half")
    (tmp_path / "web-1.20261125T120001Z-0002.ndjson").write_bytes(lines(3, 5))
    (tmp_path / "web-1.ndjson").write_bytes(lines(5, 8))
    for _ in range(2):  # what was read before is forgotten
        route.read(history)
        assert list(route.books.arrivals[WEB].numbers) == list(range(8))
    assert not history.seen


def test_a_record_that_is_torn_at_the_end_is_told(tmp_path: Path) -> None:
    history = written(2)
    route = FileRoute("disk", tmp_path, history)
    (tmp_path / "web-1.ndjson").write_bytes(lines(0, 2)[:-5])
    route.read(history)
    assert list(route.books.arrivals[WEB].numbers) == [0]
    assert [violation.kind for violation in history.seen] == ["altered"]


def test_a_look_tells_how_new_the_newest_record_is_and_leaves_no_trace(tmp_path: Path) -> None:
    history = written(5)
    route = FileRoute("steady", tmp_path, history)
    route.look()
    assert route.books.newest == 0.0
    (tmp_path / "all.ndjson").write_bytes(lines(0, 4) + lines(4, 5)[:-9])
    route.look()
    assert route.books.newest == 3.0
    assert not route.books.arrivals
    assert not history.seen
