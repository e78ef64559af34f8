"""What the kernel tells of folders: nothing of it is missed, however long the names are."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from logroute.sources.inotify import CONTENT, NAMES, Inotify, _different

NAME = st.sampled_from([b"", b"a", b"b" * 15, b"c" * 16, b"0" * 71, b"1" * 71])


def event(watch: int, mask: int, name: bytes) -> bytes:
    """As inotify(7) has it: names are padded with zeros."""
    padded = name + b"\0" * (16 - len(name) % 16) if name else b""
    return struct.pack("iIII", watch, mask, 0, len(padded)) + padded


@example([(1, 2, b"a" * 48), (1, 2, b""), (1, 2, b"")])
@given(st.lists(st.tuples(st.integers(-1, 3), st.sampled_from([2, 0x4000]), NAME), max_size=12))
def test_each_event_is_told_once(told: list[tuple[int, int, bytes]]) -> None:
    events = [event(*each) for each in told]
    assert _different(b"".join(events)) == set(events)


def test_what_is_written_and_renamed_is_told_by_its_name(tmp_path: Path) -> None:
    inotify = Inotify(CONTENT | NAMES)
    try:
        inotify.watch(tmp_path)
        for name in ("short.log", "a-much-longer-name-than-that.log", os.fsdecode(b"\xff.log")):
            with (tmp_path / name).open("wb", buffering=0) as file:
                for _ in range(100):
                    file.write(b"line\n")
        (tmp_path / "short.log").rename(tmp_path / "short.log.1")
        assert inotify.read() == {
            (str(tmp_path), name)
            for name in (
                "short.log",
                "short.log.1",
                "a-much-longer-name-than-that.log",
                os.fsdecode(b"\xff.log"),
            )
        }
        assert inotify.read() == set()
    finally:
        inotify.close()
