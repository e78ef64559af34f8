"""Standard output of `logroute tail`, and what ends it: ctrl-C, or that nobody reads it any more."""

from __future__ import annotations

import os
import signal

import trio


class Gone(Exception):
    """Whoever read what we write has closed it."""


class CannotWrite(Exception):
    """Standard output takes nothing; the text says why."""


async def until_interrupted() -> None:
    """Raises KeyboardInterrupt after ctrl-C; a second one ends the process at once.

    Python would raise it wherever it is at that moment: in a callback of a weak reference nobody hears it.
    """
    interrupted = trio.Event()
    soon = trio.lowlevel.current_trio_token().run_sync_soon
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # as of what a script starts in the background
        return

    def handle(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        soon(interrupted.set)

    signal.signal(signal.SIGINT, handle)
    try:
        await interrupted.wait()
    except trio.Cancelled:
        signal.signal(signal.SIGINT, before)
        raise
    raise KeyboardInterrupt


async def until_gone() -> None:
    """Raises Gone when nobody reads the pipe any more, also while nothing is said."""
    from logroute.sinks.stdout import until_reader_is_gone

    await until_reader_is_gone(1)
    raise Gone


def write_all(data: bytes) -> None:
    """To descriptor 1. Raises Gone or CannotWrite."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(1, rest) :]
        except BlockingIOError:
            import select

            select.select([], [1], [])
        except (BrokenPipeError, ConnectionResetError):
            raise Gone from None
        except OSError as error:
            import errno

            if error.errno == errno.EIO:
                raise Gone from None
            raise CannotWrite(f"cannot write to standard output: {error.strerror}") from error
