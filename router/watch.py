"""Who holds everything up: processors run on the one thread that does everything, and may be a stranger's.

What cannot be interrupted can be named. The thread that processes writes down what runs, and a thread of the
watch's own looks at that: a processor that does not return is said in the log, with where in its code it is,
and to systemd; so is one that has taken much of the last minute. Both, and what held everything up before,
are in the notes of `/v1/health` (which nobody can ask for while everything waits).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import structlog

from logroute.router.system import notify
from logroute.router.times import iso_time

LOOK_S = 1.0
"""How often the thread looks."""
HANGS_S = 5.0
"""A stage that takes so long for one piece of work hangs, or is so slow that it makes no difference."""
SAY_AGAIN_S = 60.0
KNOWN_S = 3600.0
"""So long it is told that a stage has held everything up."""
PERIOD_S = 60.0
MUCH = 0.3
"""So much of a period is worth a note."""


class _Hung(msgspec.Struct):
    """One time that a stage did not return."""

    since: float
    """As `perf_counter` has it."""
    began: float
    """Seconds since the epoch."""
    seconds: float
    where: str
    said: float = 0.0


class Watch:
    """What stages are doing. `running` is for the thread that processes, the rest for anybody."""

    def __init__(self) -> None:
        self.worker = threading.get_ident()
        """The thread that processes."""
        self.receives_interrupts = False
        """Ctrl-C is received as a signal (`stop_on_signals`), and raises no KeyboardInterrupt anywhere."""
        self._running: tuple[str, float] | None = None
        self._busy_s: dict[str, float] = {}
        self._before: tuple[float, dict[str, float]] | None = None
        self._shares: dict[str, float] = {}
        self._shares_said: dict[str, float] = {}
        """When it was last said of a stage that it takes much."""
        self._has_status = False
        """systemd was told of a stage."""
        self._hung: dict[str, _Hung] = {}

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Write down that this stage runs."""
        began = time.perf_counter()
        self._running = name, began
        try:
            yield
        finally:
            self._running = None
            took = time.perf_counter() - began
            self._busy_s[name] = self._busy_s.get(name, 0.0) + took
            if took >= HANGS_S and (hung := self._hung.get(name)) is not None:
                hung.seconds = took

    def notes(self) -> dict[str, list[str]]:
        """What somebody should know of stages, by their names."""
        notes: dict[str, list[str]] = {}
        now = time.time()
        for name, hung in list(self._hung.items()):
            if now - hung.began - hung.seconds < KNOWN_S:
                since = iso_time(int(hung.began * 1e9))
                notes.setdefault(name, []).append(
                    f"it has held everything up for {hung.seconds:.0f} s since {since}, at {hung.where}"
                )
        for name, share in list(self._shares.items()):
            notes.setdefault(name, []).append(f"it has taken {share:.0%} of a minute's time")
        return notes

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Have the thread look, until the end."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(LOOK_S):
                self.look(time.perf_counter())

        self.worker = threading.get_ident()
        thread = threading.Thread(target=look, name="watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def look(self, now: float) -> None:
        """Look at what runs; `now` as `perf_counter` has it."""
        self._look_at_shares(now)
        running = self._running
        if running is None or now - running[1] < HANGS_S:
            return
        name, since = running
        hung = self._hung.get(name)
        if hung is None or hung.since != since:
            hung = _Hung(since, time.time() - (now - since), 0.0, "")
            self._hung[name] = hung
        hung.seconds, hung.where = now - since, self._where()
        if not hung.said or now - hung.said >= SAY_AGAIN_S:
            hung.said = now
            structlog.get_logger("logroute.router").error(
                "a processor does not return, and everything waits for it: it cannot be interrupted",
                processor=name,
                seconds=round(hung.seconds),
                where=hung.where,
            )
            self._has_status = True
            notify(f"STATUS=the processor {name} does not return since {hung.seconds:.0f} s")

    def _look_at_shares(self, now: float) -> None:
        if self._before is None:
            self._before = now, dict(self._busy_s)
            return
        then, before = self._before
        if now - then >= PERIOD_S:
            busy = dict(self._busy_s)
            shares = {name: (busy[name] - before.get(name, 0.0)) / (now - then) for name in busy}
            self._shares = {name: share for name, share in shares.items() if share >= MUCH}
            self._before = now, busy
            self._say_shares(now)

    def _say_shares(self, now: float) -> None:
        running = self._running
        if self._has_status and not self._shares and (running is None or now - running[1] < HANGS_S):
            self._has_status = False
            notify("STATUS=")  # what was said is over
        for name, share in self._shares.items():
            self._has_status = True
            notify(f"STATUS=the processor {name} has taken {share:.0%} of a minute's time")
            said = self._shares_said.get(name)
            if said is None or now - said >= KNOWN_S:
                self._shares_said[name] = now
                structlog.get_logger("logroute.router").warning(
                    "a processor takes much of the time, and everything waits for it meanwhile",
                    processor=name,
                    percent=round(share * 100),
                )

    def _where(self) -> str:
        """Where the thread is that processes: in a stranger's function, and in what that has called."""
        frame = sys._current_frames().get(self.worker)
        places: list[str] = []
        while frame is not None:
            code = frame.f_code
            places.append(f"{code.co_filename}:{frame.f_lineno} ({code.co_name})")
            if frame.f_globals.get("__name__", "").startswith("logroute."):
                break
            frame = frame.f_back
        # The last is ours, and has called the stranger's; where that is all, it hangs itself.
        function = places[-2:-1] or places[:1]
        return ", in ".join(dict.fromkeys((*function, *places[:1]))) or "an unknown place"
