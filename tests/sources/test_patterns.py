"""Patterns whose disks hang hold up no others, and nothing of them is forgotten."""

from __future__ import annotations

import glob
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from logroute.sources import patterns as module
from logroute.sources.patterns import Patterns, leads_to


@pytest.fixture
def hang(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Patterns with `slow` in them are not answered until this is set."""
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    go_on = threading.Event()
    real = glob.glob

    def slow(pattern: str, **options: Any) -> list[str]:
        if "slow" in pattern:
            go_on.wait(20)
        return real(pattern, **options)

    monkeypatch.setattr(glob, "glob", slow)
    yield go_on
    go_on.set()


def write(folder: Path, *names: str) -> list[str]:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return [str(folder / name) for name in names]


@pytest.mark.parametrize(
    "pattern",
    [
        "*.log", "a/*.log", "**/*.log", "a/**", "**", "a/**/x.log", "**/b/*", "?.log", "[ab]/x.log", ".h*",
        "a//x.log", "a/../x.log", "a/x.log", "x", "**/**/x.log", "*",
    ],
)  # fmt: skip
def test_what_a_pattern_would_find_is_known_without_asking_the_disk(tmp_path: Path, pattern: str) -> None:
    names = ["x.log", "a/x.log", "a/b/x.log", "b/x.log", "a/x", ".hidden", "a/.h.log", "a/b/c/x.log"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = glob.glob(f"{tmp_path}/{pattern}", recursive=True, include_hidden=True)
    files = {os.path.normpath(path) for path in found if os.path.isfile(path)}
    told = {path for name in names if leads_to(f"{tmp_path}/{pattern}", path := f"{tmp_path}/{name}")}
    assert told == files


async def test_a_disk_that_hangs_is_waited_for_by_nobody_and_its_files_are_there_from_the_beginning(
    tmp_path: Path, hang: threading.Event
) -> None:
    (good,), (slow,) = write(tmp_path / "good", "a.log"), write(tmp_path / "slow", "b.log")
    answered = trio.Event()
    patterns = Patterns([f"{tmp_path}/good/*", f"{tmp_path}/slow/*"], [], answered.set, wait=False)
    assert await patterns.matching() == {good: True}
    assert patterns.silent() == [f"{tmp_path}/slow/*"]
    (late,) = write(tmp_path / "good", "late.log")
    assert await patterns.matching() == {good: False, late: False}
    hang.set()
    with trio.fail_after(10):
        await answered.wait()
    assert patterns.silent() == []
    # What was heard late counts as the first answer.
    assert await patterns.matching() == {good: False, late: False, slow: True}
    assert await patterns.matching() == {good: False, late: False, slow: False}


async def test_what_a_disk_said_before_it_hung_still_counts(tmp_path: Path, hang: threading.Event) -> None:
    (slow,) = write(tmp_path / "slow", "b.log")
    patterns = Patterns([f"{tmp_path}/slow/*"], [], lambda: None, wait=False)
    hang.set()
    assert await patterns.matching() == {slow: True}
    hang.clear()
    assert await patterns.matching() == {slow: False}


async def test_while_nobody_knows_what_is_excluded_nothing_is_read(
    tmp_path: Path, hang: threading.Event
) -> None:
    good, _ = write(tmp_path / "good", "a.log", "b.slow")
    answered = trio.Event()
    patterns = Patterns([f"{tmp_path}/good/*"], [f"{tmp_path}/good/*.slow"], answered.set, wait=False)
    assert await patterns.matching() == {}
    hang.set()
    with trio.fail_after(10):
        await answered.wait()
    assert await patterns.matching() == {good: True}


async def test_who_needs_all_there_is_waits(tmp_path: Path, hang: threading.Event) -> None:
    (slow,) = write(tmp_path / "slow", "b.log")
    patterns = Patterns([f"{tmp_path}/slow/*"], [], lambda: None, wait=True)
    async with trio.open_nursery() as nursery:

        async def later() -> None:
            await trio.sleep(0.3)
            hang.set()

        nursery.start_soon(later)
        assert await patterns.matching() == {slow: True}
