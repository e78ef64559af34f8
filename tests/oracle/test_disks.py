"""What may happen to a disk at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from tests.oracle import disks
from tests.oracle.disks import Disk


@pytest.mark.parametrize("first", ["full", "hanging"])
async def test_a_disk_hangs_only_when_there_is_nothing_to_be_removed_from_it(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Where filling it took long, it hung meanwhile: so did removing the ballast, and who was to end both."""
    ballast = tmp_path / "ballast"
    done: list[str | Path] = []

    async def do(*command: str | Path, check: bool = True) -> None:
        await trio.sleep(4.0)
        assert not ballast.exists()
        if command[0] == "fallocate":
            ballast.touch()
        done.append(command[1])

    monkeypatch.setattr(disks, "_do", do)
    disk = Disk(tmp_path, "1M")

    async def disturb(name: str) -> None:
        async with disk.full() if name == "full" else disk.hanging():
            await trio.sleep(1.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(disturb, first)
        await trio.testing.wait_all_tasks_blocked()
        for name in ("full", "hanging", "full"):
            nursery.start_soon(disturb, name)
    assert not ballast.exists()
    said = " ".join(map(str, done)).replace("--freeze --unfreeze", "hanging")
    assert sorted(said.split()) == sorted(["-l", "-l", "hanging", "-l" if first == "full" else "hanging"])
