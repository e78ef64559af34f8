"""Compresses finished files and removes those that `keep`, `age` and `total` no longer allow.

Works off what stands in the folders, so nothing has to be remembered and everything may be repeated: a
compression that a crash cut short is begun again from its source, which goes only when the compressed file
is on the disk under its final name.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Literal, Protocol, TypeVar

import msgspec

from logroute.sinks.folders import Tree
from logroute.sinks.rotation import (
    PACKED,
    TEMPORARY,
    FinishedFile,
    component_pattern,
    current_path,
    parse_name,
    surplus,
)

Compress = Literal["none", "zstd", "gzip"]

CHUNK_BYTES = 1 << 20
NICE = 10
"""Compressing yields to whatever else wants the processor."""

T = TypeVar("T")


class Retention(msgspec.Struct, frozen=True):
    """What is kept of each family; None: no bound."""

    keep: int | None = None
    age_s: float | None = None
    total_bytes: int | None = None

    @property
    def bounded(self) -> bool:
        return (self.keep, self.age_s, self.total_bytes) != (None, None, None)


class Tidied(msgspec.Struct):
    """What one round did."""

    compressed: int = 0
    removed: int = 0
    settled: set[str] = msgspec.field(default_factory=set)
    """Families that need no further round until another of their files is finished."""
    reports: list[tuple[str, dict[str, object]]] = msgspec.field(default_factory=list)


class Stopped(Exception):
    """The round was told to end."""


class FinishedFiles:
    """The finished files of a route. Blocks; knows nothing of deliveries but which paths are `live`."""

    def __init__(
        self, tree: Tree, retention: Retention, compress: Compress, clock: Callable[[], float], *, fixed: bool
    ) -> None:
        self._tree = tree
        self._retention = retention
        self._compress: Compress = compress
        self._clock = clock
        self._fixed = fixed

    def tidy(self, families: Iterable[str], live: Callable[[str], bool], stop: threading.Event) -> Tidied:
        """One round over these families. A file that is `live` is being written to, and is left alone.

        Compressing takes its time, and others may begin meanwhile: so it is asked when a family's turn comes,
        and before anything is removed.
        """
        done = Tidied()
        folders: dict[str, dict[str, list[str]]] = {}
        with contextlib.suppress(Stopped):
            for family in families:
                if stop.is_set():
                    break
                self._tidy_family(family, live, stop, folders, done)
        return done

    def _tidy_family(
        self,
        family: str,
        live: Callable[[str], bool],
        stop: threading.Event,
        folders: dict[str, dict[str, list[str]]],
        done: Tidied,
    ) -> None:
        current = current_path(family, self._clock())
        finished: list[FinishedFile] = []
        live_bytes = unfinished = 0
        found = self._files_of(family, folders)
        for file in found:
            if file.path.endswith(TEMPORARY):
                self._remove(file, "an interrupted compression", done)
            elif live(file.path):
                live_bytes += file.size_bytes
                unfinished += 1
            elif file.path != current:
                finished.append(file)
            else:
                live_bytes += file.size_bytes
                unfinished += 1
                age_s = self._retention.age_s
                # Its origin is long gone. A fixed path always has an owner, silent or not.
                if age_s is not None and not self._fixed and self._clock() - file.modified > age_s:
                    self._remove(file, "age", done)
                    unfinished -= 1
        finished = self._within_bounds(finished, live_bytes, live, done)
        if self._compress != "none":
            finished = [self._compressed(file, stop, done) for file in finished]
            if self._retention.total_bytes is not None:
                finished = self._within_bounds(finished, live_bytes, live, done)
        compressed = self._compress == "none" or all(f.name.packed or not f.name.stamp for f in finished)
        if not (finished or unfinished) or (compressed and self._retention.age_s is None):
            done.settled.add(family)

    def _within_bounds(
        self, finished: list[FinishedFile], live_bytes: int, live: Callable[[str], bool], done: Tidied
    ) -> list[FinishedFile]:
        bounds = self._retention
        doomed = surplus(
            finished,
            live_bytes=live_bytes,
            keep=bounds.keep,
            age_s=bounds.age_s,
            total_bytes=bounds.total_bytes,
            now=self._clock(),
        )
        for file, option in doomed:
            if not live(file.path):
                self._remove(file, option, done)
        gone = {file.path for file, _ in doomed}
        return [file for file in finished if file.path not in gone]

    # --- finding --------------------------------------------------------------------------------------

    def _files_of(self, family: str, folders: dict[str, dict[str, list[str]]]) -> list[FinishedFile]:
        """Every file that the family's template made: current, finished, compressed, half compressed."""
        if not self._tree.holds(family):
            return []
        below, name = self._tree.below(family)
        found: list[FinishedFile] = []
        for folder in self._folders(below.split("/") if below else []):
            names = folders.get(folder)
            if names is None:
                names = folders[folder] = self._names(folder)
            pattern = component_pattern(name)
            matching = [name] if pattern is None else [n for n in names if pattern.fullmatch(n)]
            for current in matching:
                found += self._stats(folder, names.get(current, ()))
        return found

    def _folders(self, components: list[str]) -> list[str]:
        """The folders (below the base) that the components of a family's path stand for."""
        folders = [""]
        for component in components:
            pattern = component_pattern(component)
            deeper: list[str] = []
            for folder in folders:
                prefix = f"{folder}/" if folder else ""
                if pattern is None:
                    deeper.append(prefix + component)
                    continue
                deeper += [prefix + name for name in self._listed(folder) if pattern.fullmatch(name)]
            folders = deeper
        return folders

    def _listed(self, folder: str) -> list[str]:
        try:
            fd = self._tree.open_folder(folder)
        except OSError:  # gone, not a folder, or somebody's link
            return []
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def _names(self, folder: str) -> dict[str, list[str]]:
        """The names in a folder, by the name that each file was written under."""
        names: dict[str, list[str]] = defaultdict(list)
        for name in self._listed(folder):
            if name.endswith(TEMPORARY):
                parsed = parse_name(name.removesuffix(TEMPORARY))
                if not parsed.packed:
                    continue
            else:
                parsed = parse_name(name)
            names[parsed.current].append(name)
        return names

    def _stats(self, folder: str, names: Iterable[str]) -> list[FinishedFile]:
        try:
            fd = self._tree.open_folder(folder)
        except OSError:
            return []
        files: list[FinishedFile] = []
        try:
            for name in names:
                with contextlib.suppress(OSError):
                    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode):
                        path = os.path.join(self._tree.base, folder, name)
                        files.append(FinishedFile(path, parse_name(name), found.st_size, found.st_mtime))
        finally:
            os.close(fd)
        return files

    # --- doing ----------------------------------------------------------------------------------------

    def _remove(self, file: FinishedFile, why: str, done: Tidied) -> None:
        try:
            with self._tree.folder_of(file.path) as (folder, name):
                os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return
        except OSError as error:
            done.reports.append(("cannot remove an old file", {"path": file.path, "error": str(error)}))
            return
        done.removed += 1
        # A folder made for a day goes with the last file of that day.
        below, _ = self._tree.below(file.path)
        while below:
            try:
                with self._tree.folder_of(f"{self._tree.base.rstrip('/')}/{below}") as (folder, name):
                    os.rmdir(name, dir_fd=folder)
            except OSError:
                break
            below = below.rpartition("/")[0]

    def _compressed(self, file: FinishedFile, stop: threading.Event, done: Tidied) -> FinishedFile:
        """Compress a file that was rotated; others, and one that cannot be now, stay what they are."""
        if not file.name.stamp or file.name.packed:
            return file
        suffix = PACKED[self._compress]
        try:
            with self._tree.folder_of(file.path) as (folder, name):
                size = _compress(folder, name, name + suffix, _compressor(self._compress), stop)
        except FileNotFoundError:
            return file
        except OSError as error:
            done.reports.append(
                (
                    "cannot compress a finished file; trying again later",
                    {"path": file.path, "error": str(error)},
                )
            )
            return file
        done.compressed += 1
        path = file.path + suffix
        return FinishedFile(path, parse_name(os.path.basename(path)), size, file.modified)


class Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def _compressor(how: Compress) -> Compressor:
    if how == "gzip":
        return zlib.compressobj(wbits=31)
    import zstandard  # only where it is configured

    return zstandard.ZstdCompressor(write_checksum=True).compressobj()


def _compress(folder: int, name: str, final: str, compressor: Compressor, stop: threading.Event) -> int:
    """Replace a file by its compressed form; the size of that. A crash at any point leaves one of both."""
    temporary = final + TEMPORARY
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    source = os.open(name, os.O_RDONLY | flags, dir_fd=folder)
    try:
        found = os.fstat(source)
        target = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flags, 0o600, dir_fd=folder)
        try:
            with open(target, "wb", closefd=True) as out:
                while chunk := os.read(source, CHUNK_BYTES):
                    if stop.is_set():
                        raise Stopped
                    out.write(compressor.compress(chunk))
                out.write(compressor.flush())
                out.flush()
                with contextlib.suppress(PermissionError):  # its readers' group, say: where we may
                    os.fchown(target, found.st_uid, found.st_gid)
                os.fchmod(target, stat.S_IMODE(found.st_mode))
                os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
                os.fsync(target)
                size = os.fstat(target).st_size
            os.rename(temporary, final, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise
        os.fsync(folder)
        os.unlink(name, dir_fd=folder)
        return size
    finally:
        os.close(source)


def at_low_priority(work: Callable[[], T]) -> T:
    """Run in a thread that yields to others, and wait for it.

    A thread of its own: without privileges a thread never gets its old priority back, and trio's threads
    are used again, for deliveries too.
    """
    result: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
            result.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="logroute file tidy", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return result[0]
