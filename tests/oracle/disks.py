"""File systems of our own that can be full and can hang: ext4 in a file, mounted through a loop device."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path

import trio

TOOLS = ("mkfs.ext4", "mount", "umount", "fallocate", "fsfreeze", "unshare")
OWN_MOUNTS = ("unshare", "--mount", "--propagation", "private")
"""Before a command: what it mounts nobody else sees, and goes with it."""


@cache
def unavailable() -> str | None:
    """Why there can be none here."""
    if os.geteuid() != 0:
        return "only root can mount file systems"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"these programs are missing: {', '.join(missing)}"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices"
    tried = subprocess.run([*OWN_MOUNTS, "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() if tried.returncode else None


class Disk:
    """One such file system, mounted at `folder`, which is there, inside `mounted`.

    It is full, or it hangs: who asks for one while there is the other waits until that has ended.
    """

    def __init__(self, folder: Path, size: str) -> None:
        self.folder = folder
        self._image = folder.with_suffix(".img")
        self._size = size
        # A schedule alone does not keep them apart: filling a disk takes as long as it takes. Who removes the
        # ballast from one that hangs, hangs with it, and nobody is left to end that.
        self._disturbing = trio.Lock()

    @asynccontextmanager
    async def mounted(self) -> AsyncIterator[None]:
        await _do("truncate", "-s", self._size, self._image)
        # Without blocks that are kept for root: it shall be full for the daemon too.
        await _do("mkfs.ext4", "-q", "-m", "0", self._image)
        await _do("mount", "-o", "loop", self._image, self.folder)
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await _do("umount", self.folder)
                self._image.unlink()

    @asynccontextmanager
    async def full(self) -> AsyncIterator[None]:
        """Not a byte more fits inside the block."""
        ballast = self.folder / "ballast"
        async with self._disturbing:
            try:
                # It takes what there is before it fails.
                await _do("fallocate", "-l", self._size, ballast, check=False)
                yield
            finally:
                ballast.unlink(missing_ok=True)

    @asynccontextmanager
    async def hanging(self) -> AsyncIterator[None]:
        """Whoever writes waits until the block ends, and cannot even be killed."""
        async with self._disturbing:
            await _do("fsfreeze", "--freeze", self.folder)
            try:
                yield
            finally:
                with trio.CancelScope(shield=True):
                    await _do("fsfreeze", "--unfreeze", self.folder)


async def _do(*command: str | Path, check: bool = True) -> None:
    run = partial(trio.run_process, command, capture_stdout=True, capture_stderr=True)
    try:
        await run(check=check)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise OSError(f"{' '.join(map(str, command))} failed: {said}") from error
