"""File source: log files of programs, followed through rotation, truncation and removal.

Each file is an origin; what rotation makes of it (`app.log.1`, `app.log-20261123.gz`) is a part of it and no
file of its own, even where a pattern matches it.
"""

from __future__ import annotations

import glob
import math
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
import structlog
import trio
from pydantic import Field, field_validator

from logroute.config.components import SOURCES
from logroute.config.types import Duration
from logroute.router.position import BEGINNING, Position
from logroute.router.record import Origin
from logroute.router.times import iso_time
from logroute.sources import (
    Checkpoints,
    Emit,
    History,
    Known,
    Lost,
    Source,
    SourceContext,
    SourceOptions,
    Start,
    Waiting,
)
from logroute.sources.birth import birth_ns
from logroute.sources.corrupt_lines import CorruptLines
from logroute.sources.disks import PATIENCE_S
from logroute.sources.histories import FileHistory
from logroute.sources.letting_go import let_go, unfound
from logroute.sources.log_chain import FileId, is_rotated_name
from logroute.sources.log_file import NEAR_BYTES, LogFile
from logroute.sources.log_formats import FormatName
from logroute.sources.patterns import Patterns, leads_to
from logroute.sources.sweep import Sweep

SCAN_S = 5.0
"""How often the patterns are looked up. A new file in a folder that is watched is found at once."""
MISSING_S = 1.0
"""A file that has no name for so long is gone: it was not just renamed, with the next one made at once."""
SILENT_S = 10.0
"""A disk that has not answered for so long is told of."""
MOST_ENDED = 10_000
"""Of so many files that are gone it is remembered that they were read; programs make new names for ever."""
RETRY_S = 15.0
# Where kubelet has logs written, and its links to them (Kubernetes, pkg/kubelet/kuberuntime/helpers.go and
# legacy.go). No name in them has a `_`.
_POD_LOG = re.compile(
    r"/(?P<namespace>[^/_]+)_(?P<pod>[^/_]+)_(?P<uid>[^/_]+)/(?P<container>[^/_]+)/[0-9]+\.log$"
)
_CONTAINER_LOG = re.compile(
    r"/(?P<pod>[^/_]+)_(?P<namespace>[^/_]+)_(?P<container>[^/_]+)-(?P<id>[0-9a-f]{64})\.log$"
)
_POD_LABELS = {
    "namespace": "io.kubernetes.pod.namespace",
    "pod": "io.kubernetes.pod.name",
    "uid": "io.kubernetes.pod.uid",
    "container": "io.kubernetes.container.name",
}
"""As the container has them."""
_PACKED = (".bz2", ".lz4", ".xz", ".Z", ".zip", ".zst")
"""How names of compressed files end that cannot be read."""
_DOCKER_LOG = re.compile(r"/([0-9a-f]{64})-json\.log$")


class FileSourceOptions(SourceOptions):
    """Log files."""

    type: Literal["file"] = "file"
    paths: list[str] = Field(min_length=1, examples=[["/var/log/app/*.log", "/srv/**/audit.log"]])
    """Absolute paths; `*`, `?`, `[…]` stand for parts of a name, `**` for any folders."""
    exclude: list[str] = Field(default=[], examples=[["/var/log/app/debug-*"]])
    """Paths that are not read, though they match."""
    format: Literal["text", "json", "docker", "cri"] = "text"
    """What a line is: `text` a record, `json` an object with the message, time and level under their usual
    names, `docker` what Docker's json-file driver writes, `cri` what containerd and CRI-O write for
    Kubernetes."""
    start: Literal["now", "beginning"] | Duration = Field(default="now", examples=["beginning", "2h"])
    """Where to begin, on a first start, with files that are there already. Later ones are read from their
    first line. With a duration, text begins with the first file that was written to since then."""

    def reads(self, path: str) -> bool:
        def among(patterns: Sequence[str]) -> bool:
            return any(leads_to(pattern, path) for pattern in patterns)

        return among(self.paths) and not among(self.exclude)

    @field_validator("paths", "exclude")
    @classmethod
    def _absolute(cls, paths: list[str]) -> list[str]:
        for path in paths:
            if not os.path.isabs(path):
                raise ValueError(f"{path!r} is not an absolute path")
        return paths


def _told_by_path(path: str, format: FormatName) -> dict[str, Any]:
    """What the name of an engine's log says of its container."""
    if format == "docker" and (docker := _DOCKER_LOG.search(path)):
        return {"id": docker[1], "runtime": "docker"}
    if format != "cri" or not (found := _POD_LOG.search(path) or _CONTAINER_LOG.search(path)):
        return {}
    parts = found.groupdict()
    labels = {label: parts[part] for part, label in _POD_LABELS.items() if part in parts}
    return {"id": parts.get("id", ""), "name": parts["container"], "labels": labels}


class _File(msgspec.Struct, eq=False):
    """One file that is read."""

    log: LogFile
    drained: bool = False
    gone: bool = False
    """No name leads to it any more; what was written to it is read to its end."""
    missing_since: float = math.inf
    """Since when no name leads to it, on trio's clock."""


class _Renamed(msgspec.Struct, frozen=True):
    """What a path now leads to, and whoever reads it under the name that it had before."""

    reader: LogFile
    file: FileId

    @property
    def is_read(self) -> bool:
        return not self.reader.closed and self.file in self.reader.files


@SOURCES.register(FileSourceOptions)
class FileSource(Source[FileSourceOptions]):
    """The files that some patterns match, now and later."""

    def __init__(self, options: FileSourceOptions, context: SourceContext) -> None:
        super().__init__(options, context)
        self._log = structlog.get_logger("logroute.sources").bind(source=context.name)
        self._threads = trio.CapacityLimiter(2)
        self._looking = trio.CapacityLimiter(2)
        self._files: dict[str, _File] = {}
        self._failed_at: dict[str, float] = {}
        self._corrupt = CorruptLines(context)
        self._host = socket.gethostname()
        self._appeared = trio.Event()
        self._patterns = Patterns(options.paths, options.exclude, self._look_again, wait=context.once)
        self._some_drained = trio.Event()
        self._stuck: dict[str, tuple[LogFile, Mapping[str, Position], float]] = {}
        """Files that could not be read on, and when that is tried again."""
        self._there_before: set[str] = set()
        """Paths that were there when we began, and could not be read then."""
        self._ended: dict[str, Position] = {}
        """Paths whose file was read to its end and is gone, and to where. Another one there has nothing to do
        with it, unless that was only renamed."""
        self._said_packed = False
        self._renamed: dict[str, _Renamed] = {}
        """Paths that a file was given that is read already: it is a file of its own when that is over."""

    async def run(self, emit: Emit, checkpoints: Checkpoints, *, task_status: trio.TaskStatus[None]) -> None:
        self._checkpoints = checkpoints
        self._sweep = Sweep(
            emit,
            self.context.name,
            on_drained=self._drained,
            on_failed=self._failed,
            on_lost=self._tell_lost,
            on_corrupt=self._corrupt.found,
            on_hole=self._corrupt.hole,
            on_names=self._name_changed,
            held_bytes=self.context.held_bytes,
        )
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._sweep.run)
                await self._scan()
                if not self._files:
                    self._log.warning("no file matches yet", paths=self.options.paths)
                await self._watch_folders()
                task_status.started()
                if self.context.once:
                    while not all(file.drained for file in self._files.values()):
                        await self._some_drained.wait()
                    nursery.cancel_scope.cancel()
                else:
                    await self._scan_on()
        finally:
            self._corrupt.say()
            logs = [file.log for file in self._files.values()]
            # With `--once` all of it was read, or whoever asks is told that not all was.
            await let_go(logs, None if self.context.once else self._report)

    async def unfound(self, waiting: Sequence[Waiting]) -> list[Waiting]:
        logs = {file.log.origin.key: file.log for file in self._files.values()}
        return await unfound([(logs[each.origin.key], each) for each in waiting if each.origin.key in logs])

    def known(self) -> list[Known]:
        found = [
            Known(
                each.log.origin,
                "file",
                "removed" if each.gone else "running",
                self._sweep.why_stuck(each.log),
                each.log.position,
                each.log.statistics.corrupt_lines,
            )
            for each in self._files.values()
        ]
        stuck = [log for log, _, _ in self._stuck.values()]
        return found + [
            Known(log.origin, "waiting", "running", "it cannot be read on, trying again") for log in stuck
        ]

    def histories(self) -> list[History]:
        return [FileHistory(each.log, self._looking) for each in self._files.values()]

    @property
    def standing_s(self) -> float:
        return self._sweep.standing_s

    def notes(self) -> list[str]:
        silent = [f"the disk of {pattern} does not answer" for pattern in self._patterns.silent(SILENT_S)]
        return [f"{each}: new files there are not seen" for each in silent] + self._sweep.notes()

    async def welcome(self) -> None:
        await self._sweep.welcome()

    # --- files ----------------------------------------------------------------------------------------

    @property
    def _logs(self) -> Iterator[LogFile]:
        return (file.log for file in self._files.values())

    async def _scan_on(self) -> None:
        while True:
            missing = any(each.missing_since < math.inf for each in self._files.values())
            with trio.move_on_after(MISSING_S if missing else SCAN_S):
                await self._appeared.wait()
            self._appeared = trio.Event()
            await self._scan()

    async def _watch_folders(self) -> None:
        """Those that patterns name without a placeholder: a new file there is seen at once. Not where a disk
        does not answer now: what is new there is found by the scan."""
        folders = {os.path.dirname(path) for path in self.options.paths}
        threads = trio.CapacityLimiter(len(folders))

        async def watch(folder: str) -> None:
            with trio.move_on_after(PATIENCE_S):
                if await trio.to_thread.run_sync(
                    os.path.isdir, folder, limiter=threads, abandon_on_cancel=True
                ):
                    self._sweep.folders.watch(folder)

        async with trio.open_nursery() as nursery:
            for folder in folders:
                if not glob.has_magic(folder):
                    nursery.start_soon(watch, folder)

    async def _scan(self) -> None:
        """Begin with what is new, end with what is gone."""
        matching = await self._patterns.matching()
        known = matching.keys() | self._files.keys()
        if not self._said_packed and (packed := [path for path in matching if path.endswith(_PACKED)]):
            self._said_packed = True
            self._log.warning(
                "compressed files are left out: of these only .gz can be read",
                path=packed[0],
                files=len(packed),
            )
        paths = {
            path: first
            for path, first in matching.items()
            if not (path.endswith(_PACKED) or is_rotated_name(path, known))
        }
        now = trio.current_time()
        self._renamed = {path: renamed for path, renamed in self._renamed.items() if path in paths}
        fresh = [
            path
            for path in paths
            if path not in self._files
            and path not in self._stuck
            and not (path in self._renamed and self._renamed[path].is_read)
            and now >= self._failed_at.get(path, now)
            and self._known(path)
        ]
        if fresh:
            await self._begin({path: paths[path] for path in fresh})
        for path, (log, places, at) in list(self._stuck.items()):
            if now >= at:
                del self._stuck[path]
                await self._reopen(log, places)
        for path, file in [*self._files.items()]:  # some may be drained meanwhile
            if path in paths or file.gone or self.context.once:
                file.missing_since = math.inf
                continue
            if await trio.to_thread.run_sync(
                os.path.exists, path, limiter=self._threads, abandon_on_cancel=True
            ):
                continue
            # Between renaming a file and making the next one rotation leaves nothing of that name.
            file.missing_since = min(file.missing_since, now)
            if now - file.missing_since >= MISSING_S:
                file.gone = file.log.complete = True
                self._sweep.wake(file.log)

    @staticmethod
    def _known(path: str) -> bool:
        """Whether a path can be written into configurations and checkpoints: it is UTF-8."""
        try:
            path.encode()
        except UnicodeEncodeError:
            return False
        return True

    def _open(self, path: str) -> tuple[LogFile, Position, str] | None:
        """Open it; with where `start` begins in it, and when it came to be. In a worker thread."""
        origin = Origin(
            f"file:{path}",
            self.context.name,
            host=self._host,
            file=path,
            **_told_by_path(path, self.options.format),
        )
        log = LogFile(path, origin, limit=self.context.record_limit_bytes, format=self.options.format)
        if not log.open():
            return None
        try:
            return log, self._start_position(log), iso_time(birth_ns(path))
        except OSError:
            log.close()
            raise

    def _start_position(self, log: LogFile) -> Position:
        start = self.options.start
        if start == "beginning":
            return BEGINNING
        if start == "now":
            return log.end()
        return Position(since=iso_time(time.time_ns() - int(float(start) * 1e9)))

    async def _begin(self, paths: Mapping[str, bool]) -> None:
        """Read these; of each, whether it was there before we ran."""
        opened: dict[Origin, LogFile] = {}
        starts: dict[Origin, Start] = {}
        readers = {file: log for log in self._logs for file in log.files}
        readers |= {log.left[0]: log for log in self._logs if log.left is not None}
        for path, first in paths.items():
            try:
                found = await trio.to_thread.run_sync(
                    self._open, path, limiter=self._threads, abandon_on_cancel=True
                )
            except OSError as error:
                if first:
                    self._there_before.add(path)
                if path not in self._failed_at:
                    self._log.warning("cannot read a file, trying again", path=path, reason=error.strerror)
                self._failed_at[path] = trio.current_time() + RETRY_S
                continue
            if found is None:
                continue
            log, position, born = found
            self._failed_at.pop(path, None)
            file = log.files[-1]
            renamed = self._renamed.pop(path, None)
            reader = readers.get(file)
            if renamed is None and reader is not None and not await self._leads_to(reader.path, file):
                # Rotation that keeps the ending of a name: `app-2026-11-27.log`.
                renamed = _Renamed(reader, file)
            if renamed is not None and renamed.is_read:
                self._renamed[path] = renamed
                log.close()
                continue
            first = first or path in self._there_before
            self._there_before.discard(path)
            opened[log.origin] = log
            if renamed is not None and await self._goes_on(log, left := renamed.reader.left_at(file)):
                starts[log.origin] = Start(born, left, read=True)
            else:
                # One that came while we ran is read from its first line.
                starts[log.origin] = Start(born, position) if first else Start(born, BEGINNING, new=True)
        checkpoints = await self._checkpoints.meet(starts)
        for origin, log in opened.items():
            known = checkpoints[origin]
            ended = self._ended.pop(log.path, None)
            if ended is not None and await trio.to_thread.run_sync(
                log.is_behind, ended, limiter=self._threads, abandon_on_cancel=True
            ):
                known = {"": BEGINNING}
            await self._read(log, known or {"": starts[origin].position})
            self._log.debug("reading", path=log.path, format=self.options.format)

    async def _goes_on(self, log: LogFile, position: Position) -> bool:
        return await trio.to_thread.run_sync(log.has, position, limiter=self._threads, abandon_on_cancel=True)

    async def _leads_to(self, path: str, file: FileId) -> bool:
        def leads() -> bool:
            try:
                status = os.stat(path)
            except OSError:
                return False
            return (status.st_dev, status.st_ino) == file

        return await trio.to_thread.run_sync(leads, limiter=self._threads, abandon_on_cancel=True)

    async def _read(
        self, log: LogFile, checkpoints: Mapping[str, Position], near_bytes: int = NEAR_BYTES
    ) -> None:
        try:
            losses = await trio.to_thread.run_sync(
                log.begin, checkpoints, near_bytes, limiter=self._threads, abandon_on_cancel=True
            )
        except OSError as error:
            self._try_again(log, checkpoints, error)
            return
        for lost in losses:
            self._report(log, lost)
        if not log.is_open:
            return
        if self.context.once:
            log.stop_at = log.end_spot()
            log.complete = True
        self._files[log.path] = _File(log)
        self._sweep.add(log)

    async def _reopen(self, log: LogFile, places: Mapping[str, Position]) -> None:
        """Go on where it was: what was emitted is not emitted again."""
        log = log.another()
        try:
            await trio.to_thread.run_sync(log.open, limiter=self._threads, abandon_on_cancel=True)
        except OSError as error:
            self._try_again(log, places, error)
        else:
            await self._read(log, places, 0)

    # --- what the sweep says --------------------------------------------------------------------------

    def _look_again(self) -> None:
        self._appeared.set()

    def _name_changed(self, folder: str, name: str) -> None:
        if f"{folder}/{name}" not in self._files:
            self._appeared.set()

    def _drained(self, log: LogFile) -> None:
        file = self._files.get(log.path)
        if file is None or file.log is not log:
            return
        self._sweep.close(log)
        if self.context.once:
            file.drained = True
            self._some_drained.set()
            self._some_drained = trio.Event()
        else:
            del self._files[log.path]
            self._ended[log.path] = log.position
            if len(self._ended) > MOST_ENDED:
                del self._ended[next(iter(self._ended))]
            self._checkpoints.gone(log.origin)

    def _failed(self, log: LogFile, error: Exception) -> None:
        self._try_again(log, self._sweep.places(log), error)

    def _try_again(self, log: LogFile, places: Mapping[str, Position], error: Exception) -> None:
        self.context.failed("read_failed")
        self._log.error("cannot read a file, trying again", path=log.path, exc_info=error)
        self._sweep.close(log)
        self._files.pop(log.path, None)
        self._stuck[log.path] = log, places, trio.current_time() + RETRY_S

    def _tell_lost(self, log: LogFile) -> None:
        for lost in log.take_losses():
            self._report(log, lost)

    def _report(self, log: LogFile, lost: Lost) -> None:
        self._checkpoints.lost(log.origin, lost)
