"""The folders that logs are in: which logs have something new, and what rotation makes, at once.

Owns the inotify instances and the thread that opens what rotation made. `poll_s` says how often to look at
all logs oneself: seldom, but five times a second where inotify is not to be had, or not for every folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
from collections.abc import Callable, Iterable, Mapping

import structlog
import trio

from logroute.sources.disks import Disks
from logroute.sources.inotify import CONTENT, NAMES, Inotify
from logroute.sources.log_file import LogFile

# Behind inotify, which network and shared file systems do not have; alone, where there is none.
POLL_S = 2.0
POLL_ALONE_S = 0.2
WATCHERS = 16
"""Threads that may watch names: one does, and the others hang at disks that do not answer."""
# How often the thread that watches names looks whether it shall end.
STOP_POLL_MS = 500


class _Watcher:
    """A thread that watches names."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.replaced = False
        """Another one does its work."""
        self.at: LogFile | None = None
        """The log that it looks at."""
        self.was_at: LogFile | None = None
        """And that it looked at when the last poll began: it hangs if that is the same."""


class WatchedFolders:
    """Counts who watches a folder, and knows which of the `logs`, by path, have changed in them.

    `on_fresh(log)` is called when rotation made something of a log, and that was opened;
    `on_names(folder, name)` when a name appeared in or left a folder.
    """

    def __init__(
        self,
        logs: Mapping[str, LogFile],
        disks: Disks,
        *,
        on_fresh: Callable[[LogFile], None],
        on_names: Callable[[str, str], None] | None,
    ) -> None:
        self._logs = logs
        """Others have logs come and go in it."""
        self._disks = disks
        self._on_fresh = on_fresh
        self._on_names = on_names
        self._log = structlog.get_logger("logroute.sources")
        self._expected: dict[str, LogFile] = {}
        self._folders: dict[str, int] = {}
        """How often each is watched."""
        self._threads = trio.CapacityLimiter(WATCHERS)
        self._watcher = _Watcher()
        self._content = self._instance(CONTENT)
        self._names = self._instance(NAMES)
        self.poll_s = POLL_S if self._content and self._names else POLL_ALONE_S

    def watch(self, folder: str) -> None:
        """Learn of names and changes in a folder; counted, so that several logs may share it."""
        self._folders[folder] = self._folders.get(folder, 0) + 1
        # Asked again each time: the folder may not have been there the first time.
        for inotify in (self._content, self._names):
            if inotify is None:
                continue
            try:
                inotify.watch(folder)
            except FileNotFoundError:
                pass
            except OSError as error:
                if self.poll_s != POLL_ALONE_S:
                    self.poll_s = POLL_ALONE_S
                    self._log.warning(
                        "cannot watch for changes, looking five times a second instead",
                        folder=folder,
                        error=error.strerror,
                        hint="we must be allowed to read the folder"
                        if error.errno == errno.EACCES
                        else "raise fs.inotify.max_user_watches",
                    )

    def unwatch(self, folder: str) -> None:
        count = self._folders.get(folder, 0) - 1
        if count > 0:
            self._folders[folder] = count
            return
        self._folders.pop(folder, None)
        for inotify in (self._content, self._names):
            if inotify is not None:
                inotify.unwatch(folder)

    def expect(self, log: LogFile) -> None:
        """Open this log as soon as its file is there; until `expect_no_more`."""
        self._expected[log.path] = log
        self.watch(os.path.dirname(log.path))

    def expect_no_more(self, log: LogFile) -> None:
        if self._expected.pop(log.path, None) is not None:
            self.unwatch(os.path.dirname(log.path))

    def _instance(self, mask: int) -> Inotify | None:
        try:
            return Inotify(mask)
        except OSError as error:
            self._log.warning(
                "inotify is not to be had, looking for changes five times a second",
                error=error.strerror,
                hint="raise fs.inotify.max_user_instances",
            )
            return None

    # --- content --------------------------------------------------------------------------------------

    async def wait_changed(self) -> None:
        """Until something was written to a file; for ever, where nobody can tell."""
        if self._content is not None:
            await trio.lowlevel.wait_readable(self._content.fileno())
        else:
            await trio.sleep_forever()

    def changed(self) -> Iterable[LogFile]:
        """The logs that something was written to since this was asked last; all, if the kernel lost count."""
        if self._content is None:
            return ()
        changed = self._content.read()
        if changed is None:
            return self._logs.values()
        logs = self._logs
        return [log for folder, name in changed if (log := logs.get(f"{folder}/{name}")) is not None]

    def close(self) -> None:
        """When nobody waits any more. The thread that watches names closes what it has itself."""
        if self._content is not None:
            self._content.close()

    # --- names ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Open what rotation made at once, whatever the sweep and the routes are doing, until cancelled.

        A thread of its own: a writer at full speed rotates a log of three files of a megabyte away within 75
        milliseconds, and the trio thread may be busy encoding for ten of them.
        """
        if self._names is None:
            return
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._follow_names, self._names, self._watcher)

    async def _follow_names(self, inotify: Inotify, watcher: _Watcher) -> None:
        token = trio.lowlevel.current_trio_token()
        try:
            await trio.to_thread.run_sync(
                self._watch_names, inotify, token, watcher, abandon_on_cancel=True, limiter=self._threads
            )
        finally:
            watcher.stop.set()

    def replace_a_watcher_that_hangs(self) -> None:
        """To be called from time to time: one that is at the same log as the last time hangs."""
        watcher = self._watcher
        if watcher.at is not None and watcher.at is watcher.was_at and self._names is not None:
            watcher.replaced = True
            watcher.stop.set()
            self._watcher = _Watcher()
            self._nursery.start_soon(self._follow_names, self._names, self._watcher)
        watcher.was_at = watcher.at

    def _watch_names(self, inotify: Inotify, token: trio.lowlevel.TrioToken, watcher: _Watcher) -> None:
        poll = select.poll()
        poll.register(inotify.fileno(), select.POLLIN)
        with contextlib.suppress(OSError):
            # Before everything else of this machine, where we may; opening a file is all that it does.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -15)
        while not watcher.stop.is_set():
            if not poll.poll(STOP_POLL_MS) or watcher.stop.is_set():
                continue
            changed = inotify.read()
            if changed is None:
                logs = list(self._logs.values())
            else:
                logs = [log for f, name in changed if (log := self._logs.get(f"{f}/{name}")) is not None]
            for folder, name in changed or ():
                if (expected := self._expected.get(f"{folder}/{name}")) is not None:
                    watcher.at = expected
                    expected.open_once()
                    self._look(expected, watcher)
            fresh = [
                log for log in dict.fromkeys(logs) if self._disks.answers(log) and self._look(log, watcher)
            ]
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(self._names_changed, fresh, changed or set())
        if not watcher.replaced:
            inotify.close()

    @staticmethod
    def _look(log: LogFile, watcher: _Watcher) -> bool:
        """As the log does; what fails, the next poll finds, and says."""
        watcher.at = log
        try:
            return log.look()
        except OSError:
            return False
        finally:
            watcher.at = None

    def _names_changed(self, fresh: list[LogFile], changed: set[tuple[str, str]]) -> None:
        for log in fresh:
            self._on_fresh(log)
        if self._on_names is not None:
            for folder, name in changed:
                self._on_names(folder, name)
