"""Asking the disks that logs are on, and going on without one that does not answer.

A file system over the network, or a device that fails, can keep whoever asks it for minutes or for ever, and
nothing ends that. So the logs are asked about one after the other in a thread, which is left behind at the
log whose disk hangs; all logs on that disk are left alone until the thread has its answer.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

import structlog
import trio

from logroute.sources.log_file import LogFile

PATIENCE_S = 2.0
"""What a round of questions may take before it is left behind. One that is only slow loses nothing by it: its
logs wait until it is done."""
SAY_AGAIN_S = 60.0
THREADS = 64
"""How many may ask at once: one for each disk that hangs."""

T = TypeVar("T")


class Disks:
    """Asks, and remembers which disks do not answer. On the trio thread; the work is done in threads.

    Whoever works on a log in a thread has its `turn`, so that a thread that was left behind, and those that
    close the logs at the end, are never at one log together.
    """

    def __init__(self, on_answer: Callable[[], None]) -> None:
        """`on_answer()` is called when a disk that did not answer does."""
        self._on_answer = on_answer
        self._hanging: list[tuple[int, str]] = []
        """For each thread that was left behind, the device, and the path of the log that it is at."""
        self._threads = trio.CapacityLimiter(THREADS)
        self._said_at = -math.inf
        self._log = structlog.get_logger("logroute.sources")

    def answers(self, log: LogFile) -> bool:
        """Whether the disk of this log does, as far as is known."""
        return not self._hanging or log.device not in dict(self._hanging)

    def notes(self) -> list[str]:
        """What somebody should know, a line a disk."""
        paths = dict(self._hanging).values()
        return [f"the disk of {path} does not answer: logs on it are not read" for path in paths]

    async def ask(
        self,
        logs: Sequence[LogFile],
        work: Callable[[LogFile], T],
        late: Callable[[LogFile, T | Exception], None],
    ) -> tuple[list[tuple[LogFile, T | Exception]], list[LogFile]]:
        """Work on each of these logs, whose disks answer: the results, or what was raised; and who was not
        reached, because a disk hangs.

        The result for the log at which it hangs comes to `late`, whenever that is.
        """
        there = _Round(logs, work)
        token = trio.lowlevel.current_trio_token()

        def tell() -> None:
            """In the thread that was left behind."""
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self._hear, there, late)

        try:
            with trio.move_on_after(PATIENCE_S):
                await trio.to_thread.run_sync(there.run, limiter=self._threads, abandon_on_cancel=True)
        finally:
            at = there.leave(tell)
        if at is not None:
            there.hanging = there.device, at.path
            self._hang(there.hanging)
        return there.answers, there.unreached

    def _hang(self, at: tuple[int, str]) -> None:
        self._hanging.append(at)
        now = trio.current_time()
        if now - self._said_at >= SAY_AGAIN_S:
            self._said_at = now
            self._log.error(
                "a disk does not answer: the logs on it are not read until it does, others are",
                path=at[1],
            )

    def _hear(self, there: _Round[T], late: Callable[[LogFile, T | Exception], None]) -> None:
        """A thread that was left behind has its answer."""
        # Not if whoever asked was cancelled.
        if there.hanging in self._hanging:
            self._answers_again(there.hanging)
        late(*there.late)
        self._on_answer()

    def _answers_again(self, at: tuple[int, str]) -> None:
        self._hanging.remove(at)
        if not self._hanging:
            self._log.info("all disks of logs answer again")


class _Round(Generic[T]):
    """One thread's work on some logs, in their order."""

    def __init__(self, logs: Sequence[LogFile], work: Callable[[LogFile], T]) -> None:
        self._logs = logs
        self._work = work
        # For what is below; never held while the disk is asked.
        self._lock = threading.Lock()
        self._at: LogFile | None = None
        self.hanging: tuple[int, str] | None = None
        self.device = 0
        """The disk of the log that it is at."""
        self._left = False
        # Set only if it is needed: it knows this round, and what was fetched would wait for the collector.
        self._on_late: Callable[[], None] | None = None
        self.answers: list[tuple[LogFile, T | Exception]] = []
        self.unreached: list[LogFile] = []
        self.late: tuple[LogFile, T | Exception]
        """What it had to say when it was left behind."""

    def run(self) -> None:
        for log in self._logs:
            with self._lock:
                if self._left:
                    return
                self._at, self.device = log, log.device
            answer: T | Exception
            with log.turn:
                try:
                    answer = self._work(log)
                except Exception as error:  # one log's failure harms no other
                    answer = error
            with self._lock:
                on_late = self._on_late
                if on_late is None:
                    self.answers.append((log, answer))
                    self._at = None
            if on_late is not None:
                self.late = log, answer
                on_late()
                return

    def leave(self, on_late: Callable[[], None]) -> LogFile | None:
        """Have it go no further than the log that it is at, which is returned, if it is at one."""
        with self._lock:
            self._left = True
            if self._at is not None:
                self._on_late = on_late
            behind = len(self.answers) + (self._at is not None)
            self.unreached = list(self._logs[behind:])
            return self._at
