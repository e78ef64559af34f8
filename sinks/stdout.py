"""Stdout sink: writes to descriptor 1, whatever the shell has put there.

A terminal is never controlled by a log line (CVE-2021-25743): everything but newlines and tabs that could do
so is made visible. To a pipe or a file the bytes go as they are.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult

import trio
from pydantic import Field, field_validator

from logroute.config.components import SINKS
from logroute.router.visible import visible
from logroute.sinks import DELIVERED, Outcome, Retryable, Sink, SinkContext, SinkGone, SinkOptions
from logroute.sinks.encoding import encoder

if TYPE_CHECKING:
    from logroute.router.record import Batch

# Whoever read it has closed it: a pipe's reader, a socket's peer, a terminal that was hung up.
_GONE = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN}


async def until_reader_is_gone(pipe: int) -> None:
    """Wait until nobody reads what is written into a pipe."""
    poll = select.poll()
    poll.register(pipe, 0)
    # A pipe that is written to becomes "readable" only by an error; this leaves its flags alone.
    while not any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
        await trio.lowlevel.wait_readable(pipe)


class StdoutOptions(SinkOptions):
    """Write to standard output. When its reader goes away, the route ends quietly."""

    type: Literal["stdout"] = "stdout"
    format: str | None = Field(default=None, examples=["json", "raw", "{time} {message}"])
    """`json`, `raw`, `text`, `logfmt`, or a template for the line. By default `text` on a terminal, else
    `json`."""

    @field_validator("format")
    @classmethod
    def _format_is_known(cls, format_: str | None) -> str | None:
        if format_ is not None:
            encoder(format_)
        return format_


@SINKS.register(StdoutOptions)
class StdoutSink(Sink[StdoutOptions]):
    """Writes in a thread: a reader that does not read must not stop the daemon.

    Descriptor 1 may be shared with the shell and with other programs, so its flags stay as they are (no
    O_NONBLOCK). A delivery that is cancelled leaves its thread behind with what it was writing.
    """

    has_deadline = False
    fd = 1

    def __init__(self, options: StdoutOptions, context: SinkContext) -> None:
        super().__init__(options, context)
        # Capacity 1: what a cancelled delivery is still writing comes before anything else.
        self._thread = trio.CapacityLimiter(1)
        self._terminal = False
        self._encode = encoder(options.format or "json")
        self._torn = False

    @classmethod
    def options_from_uri(cls, uri: SplitResult, query: dict[str, Any]) -> dict[str, Any]:
        if uri.netloc or uri.path:
            raise ValueError(f"stdout: takes no path; for the file {uri.path!r} write file://{uri.path}")
        return query

    async def open(self) -> None:
        # A descriptor 1 that was closed at the start may be any file by now, even one of our own.
        if self.fd == 1 and sys.__stdout__ is None:
            raise SinkGone("standard output is closed")
        self._terminal = os.isatty(self.fd)
        self._encode = encoder(self.options.format or ("text" if self._terminal else "json"))

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        data = b"".join([self._encode(batch) for batch in batches])
        if self._terminal:
            data = visible(data.decode("utf-8", "replace")).encode()
        if data:
            await trio.to_thread.run_sync(self._write, data, limiter=self._thread, abandon_on_cancel=True)
        return DELIVERED

    async def run(self) -> None:
        """Notice that the reader of a pipe is gone even when there is nothing to write to it."""
        if stat.S_ISFIFO(os.fstat(self.fd).st_mode):
            await until_reader_is_gone(self.fd)
            raise SinkGone("the reader of standard output is gone")

    def _write(self, data: bytes) -> None:
        """Write all of it. Raises SinkGone or Retryable."""
        rest = memoryview(b"\n" + data if self._torn else data)
        while rest:
            try:
                written = os.write(self.fd, rest)
            except BlockingIOError:  # somebody else has set O_NONBLOCK on what we share
                poll = select.poll()
                poll.register(self.fd, select.POLLOUT)
                poll.poll()
                continue
            except OSError as error:
                if error.errno in _GONE or (error.errno == errno.EIO and self._terminal):
                    raise SinkGone("the reader of standard output is gone") from error
                name = errno.errorcode.get(error.errno or 0, "error")
                raise Retryable(f"cannot write to standard output: {error.strerror} ({name})") from error
            # After an error the same records come again, on a line of their own.
            self._torn = rest[written - 1] != ord("\n")
            rest = rest[written:]
