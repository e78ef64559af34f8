"""Lines that are not what the format of their log says, and are left out: counted, and said.

There is no record of them, so nothing else tells that something was there.
"""

from __future__ import annotations

import math

import structlog
import trio

from logroute.sources import SourceContext
from logroute.sources.log_file import LogFile

SAY_AGAIN_S = 60.0


class CorruptLines:
    """Of all logs of one source."""

    def __init__(self, context: SourceContext) -> None:
        self._context = context
        self._log = structlog.get_logger("logroute.sources").bind(source=context.name)
        self._unsaid: dict[str, int] = {}
        """By path."""
        self._said_at = -math.inf

    def found(self, log: LogFile, lines: int) -> None:
        """So many were left out. Said once a minute, for all logs."""
        self._context.failed("corrupt_line", lines)
        self._unsaid[log.path] = self._unsaid.get(log.path, 0) + lines
        if trio.current_time() - self._said_at >= SAY_AGAIN_S:
            self.say()

    def hole(self, log: LogFile, size_bytes: int) -> None:
        """A file began with so many NULs, which were passed over."""
        self._context.failed("hole")
        self._log.warning(
            "a file begins with a hole, which is passed over: whoever writes to it does not append, "
            "and went on where it was when the file was truncated",
            path=log.path,
            bytes=size_bytes,
        )

    def say(self) -> None:
        """What is not said yet."""
        if not self._unsaid:
            return
        path = max(self._unsaid, key=lambda path: self._unsaid[path])
        others = len(self._unsaid) - 1
        self._log.warning(
            "lines that are not what their log's format says are left out",
            path=path,
            lines=self._unsaid[path],
            **({"other_files": others, "all_lines": sum(self._unsaid.values())} if others else {}),
        )
        self._unsaid = {}
        self._said_at = trio.current_time()
