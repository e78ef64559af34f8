"""kill -9 at every step that the file sink takes on the disk or with the route's state, one after another.

The daemon is modelled: a snapshot of `files` and of what is acknowledged at each commit is all that survives.
"""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logroute.router.position import BEGINNING
from logroute.router.record import Batch, Origin, Record
from logroute.sinks import DELIVERED, FileLength
from logroute.sinks.file import FileOptions, FileSink
from logroute.sinks.rotation import parse_name

NOW = time.time() + 2 * 86400  # the files on the disk are long quiet


class Killed(BaseException):
    """The process is no more; nothing that it would do now happens."""


class Kill:
    """Kills at the n-th step; from then on every step is refused, so that no cleaning up happens."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.steps = 0
        self.dead = False

    def step(self) -> bool:
        """Count; whether the process dies in this step. Raises Killed if it is already dead."""
        if self.dead:
            raise Killed
        self.steps += 1
        self.dead = self.steps - 1 == self.at
        return self.dead


@contextmanager
def killing(kill: Kill) -> Iterator[None]:
    """Every change of a file system is a step; a write dies when half of it is done."""
    real: dict[str, Any] = {}

    def before(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return real[name](*args, **kwargs)
            if kill.step():
                raise Killed
            return real[name](*args, **kwargs)

        return call

    def write(fd: int, data: bytes) -> int:
        if kill.step():
            real["write"](fd, bytes(data)[: len(data) // 2])
            raise Killed
        return int(real["write"](fd, data))

    def writev(fd: int, pieces: Sequence[bytes]) -> int:
        return write(fd, b"".join(pieces))

    names = ("open", "rename", "unlink", "rmdir", "mkdir", "ftruncate", "fsync", "fdatasync")
    patched = {name: before(name) for name in names} | {"write": write, "writev": writev}
    for name in patched:
        real[name] = getattr(os, name)
    try:
        for name, function in patched.items():
            setattr(os, name, function)
        yield
    finally:
        for name, function in real.items():
            setattr(os, name, function)


@dataclass
class Disk:
    """What survives of the daemon's state: the last commit."""

    files: dict[str, FileLength] = field(default_factory=dict)
    acknowledged: int = 0


class Context:
    route = "archive"
    state_dir = "/var/lib/logroute"

    def __init__(self, disk: Disk, kill: Kill) -> None:
        self.disk = disk
        self.kill = kill
        self.files = dict(disk.files)
        self.acknowledged = disk.acknowledged
        self.warnings: list[tuple[str, dict[str, object]]] = []

    async def commit(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.kill.step():
            raise Killed
        self.disk.files = dict(self.files)
        self.disk.acknowledged = self.acknowledged

    def unconfirmed(self, records: int) -> None: ...

    def warn(self, event: str, **details: object) -> None:
        self.warnings.append((event, details))


def origin(name: str) -> Origin:
    return Origin(f"docker:{name}", "docker", id=name * 12, name=name)


ORIGINS = [origin("a"), origin("b")]
TIMES = [f"2026-11-{20 + i // 16}T0{i % 16 // 2}:00:00.{i:09}Z" for i in range(48)]
RECORDS = [
    (ORIGINS[i % 3 == 0], Record(f"{i:03} {'x' * (i % 7)}", "stdout", at)) for i, at in enumerate(TIMES)
]
"""Two containers, three days."""


def deliveries(start: int, sizes: Sequence[int]) -> Iterator[tuple[int, list[Batch]]]:
    """The records from `start` on, in deliveries of these sizes over and over; up to where each goes."""
    turn = 0
    while start < len(RECORDS):
        end = min(len(RECORDS), start + sizes[turn % len(sizes)])
        batches = []
        for one in ORIGINS:
            records = [record for who, record in RECORDS[start:end] if who is one]
            if records:
                batches.append(
                    Batch(one, records, before=BEGINNING, after=BEGINNING, size_bytes=1, ready=True)
                )
        yield end, batches
        start, turn = end, turn + 1


async def daemon(
    options: FileOptions,
    disk: Disk,
    kill: Kill,
    sizes: Sequence[int],
    commit_every: int,
    clock: trio.testing.MockClock,
) -> None:
    """One life of the daemon, to its end: from the last commit on, everything that is not acknowledged."""
    context = Context(disk, kill)
    sink = FileSink(options, context)
    sink.clock = lambda: NOW
    await sink.open()
    for number, (end, batches) in enumerate(deliveries(context.acknowledged, sizes)):
        assert await sink.deliver(batches) == DELIVERED
        context.acknowledged = end
        if number % commit_every == 0:
            await context.commit()
        if number % 3 == 2:
            await sink.tidy()
    clock.jump(3600)
    await sink.idle()
    await sink.tidy()
    await context.commit()
    await sink.close()


def life(options: FileOptions, disk: Disk, kill: Kill, sizes: Sequence[int], commit_every: int) -> bool:
    """Whether it lived to its end."""
    with killing(kill):
        try:
            clock = trio.testing.MockClock()
            trio.run(daemon, options, disk, kill, sizes, commit_every, clock, clock=clock)
        except Killed:
            return False
        except BaseExceptionGroup as group:
            if group.split(Killed)[1] is not None:
                raise
            return False
    return True


def written(folder: Path) -> dict[str, list[str]]:
    """Every line that stands in any file, in the order in which the files were finished, by container."""
    paths = [path for path in folder.rglob("*") if path.is_file()]

    def order(path: Path) -> tuple[str, bool, str, int]:
        name = parse_name(path.name)
        return name.current, not name.stamp, name.stamp, name.number

    lines: dict[str, list[str]] = {}
    for path in sorted(paths, key=lambda path: (str(path.parent), order(path))):
        data = path.read_bytes()
        if path.suffix == ".zst":
            data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        elif path.suffix == ".gz":
            data = gzip.decompress(data)
        assert not path.name.endswith("logroute-tmp")
        assert data == b"" or data.endswith(b"\n")
        for line in data.decode().splitlines():
            name, _, message = line.partition(" ")
            lines.setdefault(name, []).append(message)
    return lines


EXPECTED = {one.name: [record.message for who, record in RECORDS if who is one] for one in ORIGINS}

SCENARIOS: dict[str, dict[str, Any]] = {
    "one file": {"path": "out.log"},
    "rotated by size": {"path": "out.log", "rotate": {"size": 100}},
    "rotated by size and compressed": {"path": "out.log", "rotate": {"size": 150}, "compress": "zstd"},
    "rotated every day": {"path": "out.log", "rotate": {"every": "1d"}, "compress": "gzip"},
    "a file for each container, one open at a time": {
        "path": "{container.name}/out.log",
        "rotate": {"size": 100},
        "max_open": 1,
    },
    "a file for each day, compressed": {
        "path": "{container.name}/{time:%Y-%m-%d}.log",
        "compress": "zstd",
        "rotate": {"size": 120, "age": "365d"},
    },
    "synced": {"path": "{container.name}.log", "fsync": True, "rotate": {"size": 200}},
}


def scenario(name: str, folder: Path) -> FileOptions:
    options = dict(SCENARIOS[name])
    options["path"] = f"{folder}/{options['path']}"
    return FileOptions.model_validate({"format": "{container.name} {message}", **options})


@pytest.mark.parametrize("name", SCENARIOS)
def test_kill_9_at_any_step_repeats_nothing_and_loses_nothing(name: str, tmp_path: Path) -> None:
    whole = Kill(None)
    assert life(scenario(name, tmp_path / "whole"), Disk(), whole, [4, 7, 1], 4)
    assert written(tmp_path / "whole") == EXPECTED
    assert whole.steps > 15
    for at in range(whole.steps):
        folder = tmp_path / str(at)
        disk = Disk()
        options = scenario(name, folder)
        assert not life(options, disk, Kill(at), [4, 7, 1], 4)
        assert life(options, disk, Kill(None), [5, 3], 3), at
        assert written(folder) == EXPECTED, f"killed at step {at}"


@given(
    name=st.sampled_from(sorted(SCENARIOS)),
    kills=st.lists(st.integers(0, 60), min_size=1, max_size=5),
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    commit_every=st.integers(1, 6),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_kill_9_again_and_again(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    kills: list[int],
    sizes: list[int],
    commit_every: int,
) -> None:
    folder = tmp_path_factory.mktemp("kills")
    disk = Disk()
    options = scenario(name, folder)
    for at in kills:
        life(options, disk, Kill(at), sizes, commit_every)
    assert life(options, disk, Kill(None), sizes, commit_every)
    assert written(folder) == EXPECTED
