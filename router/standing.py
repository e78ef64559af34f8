"""How a route stands with its receiver: whether that takes what it is given, since when, what is said of it.

On the trio thread.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import structlog
import trio

from logroute.router.database import StateError
from logroute.sinks import Retryable

SAY_AGAIN_S = 60.0
"""A word that repeats is said again after so long, with how often it was meant meanwhile."""
REJECTS_ALL = 20
"""When so many records were rejected, and none between them was taken, it is not the records: somebody has to
look at it."""


class SparingLog:
    """The log of one route, which says the same word once a minute."""

    def __init__(self, route: str) -> None:
        self._log = structlog.get_logger("logroute.router").bind(route=route)
        self._said: dict[str, tuple[float, int]] = {}

    def say(self, level: int, event: str, **details: object) -> bool:
        """Whether it was said."""
        now = trio.current_time()
        last, times = self._said.get(event, (-math.inf, 0))
        if now - last < SAY_AGAIN_S:
            self._said[event] = (last, times + 1)
            return False
        if times:
            details["repeated"] = times
        self._said[event] = (now, 0)
        self._log.log(level, event, **details)
        return True


class Standing:
    """Up or not, and why."""

    def __init__(self, route: str, log: SparingLog, hide: Callable[[str], str]) -> None:
        """`hide` gives a text without what nobody shall be shown."""
        self.is_up = True
        self.reason = ""
        """Why it is not; empty while it is."""
        self.since = time.time()
        """Since when it is, or is not, in seconds since the epoch."""
        self.last_error = ""
        """The last reason there was."""
        self.failed_at = 0.0
        """When; 0: never."""
        self.tried = trio.Event()
        """The first attempt at opening the sink has been answered."""
        self._sparing = log
        self._hide = hide
        self._log = structlog.get_logger("logroute.router").bind(route=route)
        self._failures = 0
        """Attempts that failed since it was up."""
        self._failure_said = False
        """Somebody who reads the log thinks that it fails."""
        self._rejected = 0
        """Records that were rejected since the last one was taken."""
        self._rejection = ""
        """Why the last of them was."""
        self._held: tuple[bool, str] | None = None
        """How it stood before it was held."""

    def up(self) -> None:
        """Nothing is known to be wrong."""
        if not self.is_up:
            self.since = time.time()
        self.is_up, self.reason = True, ""

    def down(self, reason: str) -> None:
        """Nothing is delivered, for this reason."""
        self.tried.set()
        if self.is_up:
            self.since = time.time()
        self.is_up, self.reason = False, self._hide(reason)
        self.last_error, self.failed_at = self.reason, time.time()

    def hold(self, reason: str) -> None:
        """Somebody wants nothing to be delivered, for this reason, which is no error."""
        self.tried.set()
        if not self._held:
            self._held = self.is_up, self.reason
        if self.is_up:
            self.since = time.time()
        self.is_up, self.reason = False, reason

    def release(self) -> None:
        """It is to go on, as it was: what did not answer before is up when it has answered."""
        was_up, reason = self._held or (True, "")
        self._held = None
        self._rejected = 0
        if was_up:
            self.up()
        else:
            self.reason = reason

    def failed(self, error: Exception) -> None:
        """An attempt has failed; there will be others."""
        self._failures += 1
        self.down(str(error) or type(error).__name__)
        if isinstance(error, Retryable | StateError):
            said = self._sparing.say(logging.WARNING, "cannot deliver, trying again", reason=self.reason)
        else:
            said = self._sparing.say(
                logging.ERROR, "the sink failed, trying again", reason=self.reason, exc_info=error
            )
        self._failure_said = self._failure_said or said

    def answered(self, taken: int, rejected: int = 0, reason: str = "") -> None:
        """The receiver has taken so many records, and so many it will never take; neither where it has not
        looked at them one by one. `reason` is why the last one was rejected."""
        self._rejected = 0 if taken else self._rejected + rejected
        self._rejection = self._hide(reason) or self._rejection
        if self._rejected >= REJECTS_ALL:
            said = self._sparing.say(logging.WARNING, "every record is rejected", reason=self._rejection)
            self._failure_said = self._failure_said or said
            self.down(f"every record is rejected, {self._rejected} in a row; the last: {self._rejection}")
        elif not self.is_up:
            # As often as its failures are said, however often the receiver comes and goes.
            if self._failure_said:
                self._log.info("the route delivers again", attempts=self._failures + 1)
            self._failures, self._failure_said = 0, False
            self.up()

    def forget_rejections(self) -> None:
        """There is another sink, or somebody has put right what was wrong."""
        self._rejected = 0
