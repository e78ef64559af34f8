"""File sink: records into files whose paths may name the container or the time; rotated, compressed, kept.

Exactly once through kill -9. After each delivery the lengths of the files that it wrote are stored in one
transaction with the checkpoints; when the sink opens, a file that is longer is cut back to its recorded
length, and the route sends what followed again. Whatever cannot be taken back that way is done behind a
barrier: before the first byte goes into a file that is not recorded, its length is stored; before a file is
renamed, what it will be called is stored. See docs/files.md.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar
from urllib.parse import SplitResult, unquote
from weakref import WeakValueDictionary

import msgspec
import trio
from pydantic import Field, field_validator

from logroute.config.components import SINKS, Options
from logroute.config.types import Duration, Permissions, Size
from logroute.router.record import Origin
from logroute.router.template import BoundTemplate, PathPart, Template, TimePart, escape_file_name
from logroute.router.times import full_time
from logroute.sinks import (
    DELIVERED,
    FileLength,
    Outcome,
    Rejected,
    Sink,
    SinkContext,
    SinkOptions,
    SinkStatistics,
)
from logroute.sinks.encoding import encoder
from logroute.sinks.file_owners import OWNERS, Owned
from logroute.sinks.finished_files import (
    Compress,
    FinishedFiles,
    Retention,
    Tidied,
    at_low_priority,
)
from logroute.sinks.folders import Tree
from logroute.sinks.one_writer import OneWriter, Written
from logroute.sinks.open_files import Job, OpenFiles, Writing
from logroute.sinks.recorded_files import Changes, Repairs, family_of_entry, is_closed
from logroute.sinks.rotation import family_of, name_problem

if TYPE_CHECKING:
    from logroute.router.record import Batch

T = TypeVar("T")

TIDY_EVERY_S = 3600.0
"""How often `age` and `total` are applied where nothing is rotated."""
REMEMBERED_ORIGINS = 4096
"""Bound on what is remembered of origins; it is computed again when needed."""
PATH_BYTES = 4095
SMALL_BATCH = 16

_threads: trio.lowlevel.RunVar[WeakValueDictionary[str, trio.CapacityLimiter]] = trio.lowlevel.RunVar(
    "threads of file sinks"
)
"""By route. A thread that hangs holds its own."""


class Rotate(Options):
    """When files are finished, and how long finished ones are kept."""

    size: Size | None = Field(default=None, examples=["100MiB"])
    """Finish a file before it grows beyond this. One delivery that is larger alone goes into one file."""
    every: Duration | None = Field(default=None, examples=["1d"], gt=0)
    """Finish a file when a delivery's first record belongs to a later period (UTC) than the file's first."""
    keep: int | None = Field(default=None, ge=0, examples=[10])
    """How many finished files to keep of one origin and path."""
    age: Duration | None = Field(default=None, examples=["30d"], gt=0)
    """Remove finished files last written to longer ago than this."""
    total: Size | None = Field(default=None, examples=["10GiB"])
    """Bytes that the files of one origin and path may take together; the oldest finished ones go first."""
    idle: Duration = Field(default=600.0, examples=["10m"], gt=0)
    """Close a file that nothing was written to for so long; finish it if its time has passed."""


class FileOptions(SinkOptions):
    """Write to files."""

    type: Literal["file"] = "file"
    path: str = Field(examples=["/logs/{container.name}/{time:%Y-%m-%d}.ndjson"])
    """Path of the file, a template. Folders are made; no value of a container can lead out of its place."""
    format: str = Field(default="json", examples=["json", "raw", "{time} {message}"])
    """`json`, `raw`, `text`, `logfmt`, or a template for the line."""
    rotate: Rotate = Rotate()
    compress: Compress = "none"
    """Compress finished files."""
    fsync: bool = False
    """Wait until each delivery is on the disk itself: nothing is lost at power loss either."""
    mode: Permissions = Field(default=0o640, examples=["0640"])
    """Permissions of new files; folders get the same and `x`."""
    max_open: int = Field(default=256, ge=1)
    """Files held open at a time; the one that was not written to for longest is closed."""

    @field_validator("path")
    @classmethod
    def _path_is_a_template(cls, path: str) -> str:
        template = Template.parse(path)
        if "\x00" in path or path.endswith("/") or not path:
            raise ValueError("names no file")
        if any(part in ("", ".", "..") for part in path.split("/")[1:]):
            raise ValueError("must not contain the components '', '.' or '..'")
        for part in template.parts:
            if isinstance(part, PathPart) and part.path == "time":
                raise ValueError("{time} would make a file for every record; write {time:%Y-%m-%d}")
        return path

    def one_writer(self) -> OneWriter | None:
        parts = Template.parse(self.path).parts
        open_parts = [part for part in parts if isinstance(part, PathPart)]
        if any(part.found.of_origin is None for part in open_parts):
            return None  # each record decides, and processors have a say
        head = parts[0]
        if isinstance(head, str):
            parts = (head.removeprefix("./"), *parts[1:])
        return OneWriter(("file", parts), "path", always=not open_parts)

    def writes_to(self) -> Written:
        parts = Template.parse(self.path).parts
        # Values are never a path's separator. Whoever takes both of these takes whatever stands there.
        examples = ("~", "some value")
        return Written(
            tuple("".join([p if isinstance(p, str) else each for p in parts]) for each in examples), "path"
        )

    @field_validator("format")
    @classmethod
    def _format_is_known(cls, format_: str) -> str:
        encoder(format_)
        return format_


class FileStatistics(SinkStatistics, frozen=True):
    """A snapshot of a file sink."""

    events: ClassVar[tuple[str, ...]] = ("changed_files", "compressed_files", "removed_files")
    open_files: int
    """Descriptors held now, at most `max_open`."""
    changed_files: int
    """Files that somebody else moved, removed, replaced, cut or wrote to."""
    compressed_files: int
    """Finished files compressed since the start."""
    removed_files: int
    """Finished files removed by `keep`, `age` or `total`."""


class _Target(msgspec.Struct, frozen=True, eq=False):
    """Where the records of an origin go."""

    path: str
    family: str
    problem: str | None


class _Bound:
    """The path template, bound to an origin whose records go into several files."""

    __slots__ = ("deciding", "families", "last_target", "last_time", "paths")

    def __init__(self, paths: BoundTemplate) -> None:
        self.paths = paths
        self.families = family_of(paths)
        # Where only the time varies: so many characters of it decide, and where the last records went.
        open_parts = [part for part in self.paths.parts if not isinstance(part, str)]
        times = [part.deciding for part in open_parts if isinstance(part, TimePart)]
        self.deciding = max(times, default=0) if len(times) == len(open_parts) else 0
        self.last_time = ""
        self.last_target: _Target | None = None


@SINKS.register(FileOptions)
class FileSink(Sink[FileOptions]):
    """One writer to the files of its route."""

    def __init__(self, options: FileOptions, context: SinkContext) -> None:
        super().__init__(options, context)
        rotate = options.rotate
        self.clock: Callable[[], float] = time.time
        """The wall clock, for names and ages; what goes into which file never depends on it."""
        self.idle_s = min(60.0, max(1.0, rotate.idle / 4))
        self._encode = encoder(options.format)
        self._finishing = bool(rotate.size or rotate.every or options.compress != "none")
        self._retention = Retention(rotate.keep, rotate.age, rotate.total)
        self._thread: trio.CapacityLimiter | None = None
        self._tidying = trio.CapacityLimiter(1)
        self._targets: dict[str, _Target] = {}
        self._bound: dict[Origin, _Bound | _Target] = {}
        self._to_tidy: set[str] = set()
        self._wake = trio.Event()
        self._changed = self._compressed = self._removed = 0
        self._closed: dict[str, str] = {}
        """The one closed file of each family that is remembered."""
        self._placed = False
        """It is known where the path leads: the disk was asked, which may hang."""
        self._uncertain = True
        """How the last delivery has ended is not known, and what of it stands in the files."""
        self._last: Callable[[], None] | None = None
        """What the thread does once it is done with what it does, and the sink is closed."""
        self._waiting = False
        """The last delivery would have written to a file of another route."""

    def _place(self, template: Template, base: str, *, fixed: bool) -> None:
        """Once, before anything else is asked of it: the path is what `_resolved` has found."""
        options, rotate = self.options, self.options.rotate
        self._template = template
        self._fixed_path = str(template.parts[0]) if fixed else None
        exact_mode = "mode" in options.model_fields_set
        tree = Tree(base, options.mode | (options.mode & 0o444) >> 2, options.fsync, exact_mode)
        writing = Writing(
            max_open=options.max_open,
            size_bytes=rotate.size,
            every_s=rotate.every,
            idle_s=rotate.idle,
            compress=options.compress != "none",
            remember=rotate.age is not None or options.compress != "none",
            fsync=options.fsync,
            mode=options.mode,
            exact_mode=exact_mode,
            fixed=fixed,
            makes=_pattern_of(template),
        )
        context = self.context
        self._files = OpenFiles(context.route, context.state_dir, tree, writing, self._clock)
        self._finished = FinishedFiles(tree, self._retention, options.compress, self._clock, fixed=fixed)
        # One for all where the path names nothing of the container, nor of the record but its time.
        shared = not any(isinstance(part, PathPart) for part in template.parts)
        self._everywhere = self._bind_to(Origin("", "")) if shared else None
        self._placed = True

    def _clock(self) -> float:
        return self.clock()

    @classmethod
    def options_from_uri(cls, uri: SplitResult, query: dict[str, Any]) -> dict[str, Any]:
        if uri.netloc not in ("", "localhost"):
            raise ValueError(f"file:// takes no host; write file:///{uri.netloc}{uri.path}")
        # Placeholders hold per cents of their own: {time:%Y-%m-%d}.
        path = "".join(
            piece.replace("%25", "%") if piece.startswith("{") else unquote(piece)
            for piece in re.split(r"(\{[^{}]*\})", uri.path)
        )
        options: dict[str, Any] = {"path": path}
        for key, value in query.items():
            group, dot, name = key.partition(".")
            if dot and group == "rotate":
                options.setdefault("rotate", {})[name] = value
            else:
                options[key] = value
        return options

    def statistics(self) -> FileStatistics:
        open_files = len(self._files) if self._placed else 0
        return FileStatistics(open_files, self._changed, self._compressed, self._removed)

    # --- the router's calls -----------------------------------------------------------------------------

    async def open(self) -> None:
        if not self._placed:
            template, base, fixed = await self._blocking(_resolved, self.options.path)
            self._place(template, base, fixed=fixed)
        files = self.context.files
        self._closed = {
            family_of_entry(path, entry): path for path, entry in files.items() if is_closed(entry)
        }
        recover = partial(self._files.recover, waiting=self._waiting)
        repairs = await self._blocking(recover, dict(files), self._fixed_path)
        self._report(repairs)
        if repairs.changes:
            await self._store(repairs.changes)
        self._uncertain = False
        self._tidy_soon(_families(files))
        if self._fixed_path is not None:
            await self._blocking(self._files.claim, self._fixed_path)

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        jobs: dict[str, Job] = {}
        rejected: list[Rejected] = []
        everywhere, bound = self._everywhere, self._bound
        encode = self._encode
        for index, batch in enumerate(batches):
            if not len(batch):
                continue
            place = everywhere or bound.get(batch.origin) or self._bind(batch.origin)
            runs = [(place, batch)] if isinstance(place, _Target) else self._split(place, batch)
            for target, run in runs:
                if target.problem is not None:
                    rejected += [Rejected(index, record, target.problem) for record in run.records]
                    continue
                job = jobs.get(target.path)
                if job is None:
                    began = full_time(run.first_time)
                    job = jobs[target.path] = Job(target.path, target.family, began)
                job.pieces.append(encode(run))
                job.batches.append((index, run))
        if not jobs:
            return Outcome(rejected) if rejected else DELIVERED
        remaining = list(jobs.values())
        self._uncertain = True
        while True:
            try:
                outcome = await self._blocking(
                    self._files.write, remaining, self.context.files, trio.current_time()
                )
            except Owned:
                self._waiting = True
                raise
            self._report(outcome)
            for job, reason in outcome.refused:
                for index, run in job.batches:
                    rejected += [Rejected(index, record, reason) for record in run.records]
            if not outcome.barrier:
                break
            # A new file may be one too many, and another run may have left something to compress.
            begun = {job.family for job in remaining if job.path not in self.context.files}
            await self._store(outcome.barrier)
            self._tidy_soon(outcome.finished | begun)
        # From here on nothing may await: lengths and checkpoints change together.
        self.context.files.update(outcome.written)
        self._uncertain = self._waiting = False
        return Outcome(rejected) if rejected else DELIVERED

    async def idle(self) -> None:
        outcome = await self._blocking(self._files.settle, dict(self.context.files), trio.current_time())
        self._report(outcome)
        if outcome.barrier or outcome.changes:
            await self._store(outcome.changes | outcome.barrier)
        entries = {path: entry for path, entry in outcome.barrier.items() if entry is not None}
        if entries:
            repairs = await self._blocking(self._files.finish, entries)
            self._report(repairs)
            await self._store(repairs.changes)
        self._tidy_soon(outcome.finished | set(map(family_of_entry, entries.keys(), entries.values())))

    async def run(self) -> None:
        """Compress and remove, beside the deliveries and at a low priority."""
        if not self._tidies:
            return
        while True:
            await self.tidy()
            with trio.move_on_after(TIDY_EVERY_S) as waited:
                await self._wake.wait()
            if waited.cancelled_caught:
                self._to_tidy |= _families(self.context.files)

    async def tidy(self) -> None:
        """One round of what `run` does, over the families in which something was finished."""
        families, self._to_tidy, self._wake = self._to_tidy, set(), trio.Event()
        if families:
            await self._tidy(families)

    async def close(self) -> None:
        if self._placed:
            entries = dict(self.context.files) if self._uncertain else None
            self._last = partial(self._files.end, entries)
            await self._blocking(lambda: None)

    # --- between the threads ----------------------------------------------------------------------------

    async def _blocking(self, work: Callable[..., T], *args: Any) -> T:
        """One hop to the thread. Cancelling leaves the thread to itself; the route's next hop waits."""
        if self._thread is None:
            self._thread = _thread_of(self.context.route)
        work = partial(self._and_last, work)
        return await trio.to_thread.run_sync(work, *args, limiter=self._thread, abandon_on_cancel=True)

    def _and_last(self, work: Callable[..., T], *args: Any) -> T:
        """When the sink is closed the thread may be at a disk that hangs, for longer than anybody waits. Once
        that answers the files are let go of all the same: other routes may want them."""
        try:
            return work(*args)
        finally:
            last, self._last = self._last, None
            if last is not None:
                last()

    def _report(self, repairs: Repairs) -> None:
        self._changed += repairs.changed_files
        for event, details in repairs.reports:
            self.context.warn(event, **details)

    async def _store(self, changes: Changes) -> None:
        """A barrier: returns when the changed entries and all that was acknowledged before are stored."""
        files = self.context.files
        before = {path: files.get(path) for path in changes}
        self._apply(changes)
        try:
            await self.context.commit()
        except BaseException:
            # What is not surely stored must not look as if it were.
            self._apply(before)
            raise
        forgotten = [path for path in changes if (entry := files.get(path)) is None or is_closed(entry)]
        if forgotten:
            await self._blocking(self._files.forgotten, forgotten)

    def _apply(self, changes: Changes) -> None:
        """Change the route's `files`; of each family remember at most one closed file."""
        files = self.context.files
        for path, entry in changes.items():
            if entry is None:
                files.pop(path, None)
                continue
            files[path] = entry
            family = family_of_entry(path, entry)
            closed = self._closed.pop(family, None)
            if closed is not None and closed != path and is_closed(files.get(closed)):
                del files[closed]
            if is_closed(entry):
                self._closed[family] = path

    # --- paths ------------------------------------------------------------------------------------------

    def _bind(self, origin: Origin) -> _Bound | _Target:
        if len(self._bound) >= REMEMBERED_ORIGINS:
            self._bound.clear()
        place = self._bound[origin] = self._bind_to(origin)
        return place

    def _bind_to(self, origin: Origin) -> _Bound | _Target:
        paths = self._template.bind(origin, escape_file_name)
        path = paths.constant
        return self._target(path, path) if path is not None else _Bound(paths)

    def _split(self, place: _Bound, batch: Batch) -> list[tuple[_Target, Batch]]:
        """The parts of a batch by the file into which they go."""
        records = batch.records
        deciding = place.deciding
        # Rendering a time costs more than a small batch is worth; a large one is compared faster in `split`.
        if deciding and place.last_target is not None and len(records) <= SMALL_BATCH:
            time = place.last_time
            for record in records:
                if record.time[:deciding] != time:
                    break
            else:
                return [(place.last_target, batch)]
        runs: list[tuple[_Target, Batch]] = []
        for path, run in place.paths.split(records):
            target = self._targets.get(path) or self._target(path, place.families.render(run[0]))
            runs.append((target, batch if len(run) == len(records) else batch.with_records(list(run))))
        if deciding:
            place.last_time, place.last_target = runs[-1][1].first_time[:deciding], runs[-1][0]
        return runs

    def _target(self, path: str, family: str) -> _Target:
        """The one of this path: many origins may share it."""
        target = self._targets.get(path)
        if target is None:
            if len(self._targets) >= REMEMBERED_ORIGINS:
                self._targets.clear()
            target = self._targets[path] = _Target(path, family, self._problem(path))
        return target

    def _problem(self, path: str) -> str | None:
        """Why nothing can be written under this path, or None."""
        folder, _, name = path.rpartition("/")
        problem = name_problem(name, finishing=self._finishing)
        for component in folder.split("/")[1:]:
            problem = problem or name_problem(component, finishing=False)
        if not problem and len(os.fsencode(path)) > PATH_BYTES:
            problem = f"the path has more than {PATH_BYTES} bytes"
        return f"no file can be called {path!r}: {problem}" if problem else None

    # --- finished files ---------------------------------------------------------------------------------

    @property
    def _tidies(self) -> bool:
        return self._retention.bounded or self.options.compress != "none"

    def _tidy_soon(self, families: set[str]) -> None:
        if families and self._tidies:
            self._to_tidy |= families
            self._wake.set()

    async def _tidy(self, families: set[str]) -> None:
        files = self.context.files
        others = OWNERS.of_others(self.context.route)

        def live(path: str) -> bool:
            """Asked by the thread, while we go on."""
            entry = files.get(path)
            return (entry is not None and not is_closed(entry)) or path in others

        stop = threading.Event()

        def work() -> Tidied:
            return at_low_priority(lambda: self._finished.tidy(families, live, stop))

        try:
            done = await trio.to_thread.run_sync(work, limiter=self._tidying, abandon_on_cancel=True)
        finally:
            stop.set()
        self._compressed += done.compressed
        self._removed += done.removed
        for event, details in done.reports:
            self.context.warn(event, **details)
        # Stored with the next commit; until then it is only remembered in vain.
        for path in [path for path, entry in files.items() if is_closed(entry)]:
            if family_of_entry(path, files[path]) in done.settled:
                del files[path]


def _thread_of(route: str) -> trio.CapacityLimiter:
    """Of capacity 1, and one for all sinks that a route ever has.

    A write that was cancelled may still wait for a disk that hangs, and then be done: before that, nobody may
    look how long the file is, and least of all the sink that a reload has put in the place of this one.
    """
    try:
        threads = _threads.get()
    except LookupError:
        _threads.set(threads := WeakValueDictionary())
    thread = threads.get(route)
    if thread is None:
        thread = threads[route] = trio.CapacityLimiter(1)
    return thread


def _pattern_of(template: Template) -> re.Pattern[str]:
    """What its paths match, and hardly any others."""
    return re.compile(
        "".join(
            re.escape(part)
            if isinstance(part, str)
            else ".*"
            if "/" in (part.format if isinstance(part, TimePart) else part.default or "")
            else "[^/]*"
            for part in template.parts
        ),
        re.DOTALL,
    )


def _families(files: dict[str, FileLength]) -> set[str]:
    return {family_of_entry(path, entry) for path, entry in files.items()}


def _resolved(path: str) -> tuple[Template, str, bool]:
    """The template with an absolute path, its base folder, and whether it is one fixed file. In a thread.

    The base is what the user wrote before the first placeholder. Links in it, and a link that is the whole
    path, are the user's, and are followed; below it none is.
    """
    template = Template.parse(path)
    fixed = all(isinstance(part, str) for part in template.parts)
    head = template.literal_head
    if fixed:
        head = os.path.realpath(head)
        return Template(path, (head,)), os.path.dirname(head), True
    folder, _, start = head.rpartition("/")
    base = "/" if head.startswith("/") and not folder else os.path.realpath(folder)
    rest = list(template.parts)
    while rest and isinstance(rest[0], str):
        rest.pop(0)
    return Template(path, (f"{base.rstrip('/')}/{start}", *rest)), base, False
