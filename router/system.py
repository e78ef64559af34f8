"""The system around the daemon: the lock on its state directory, signals, systemd."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import trio

from logroute.router.database import StateError

if TYPE_CHECKING:
    from logroute.router.daemon import Daemon

AT_ONCE_S = 3.0
"""What a daemon may take that was told twice to stop; a disk that hangs may keep it for ever."""


@contextmanager
def sole_user_of(state_dir: Path | None) -> Iterator[None]:
    """Hold the state directory's lock. Raises StateError if another daemon does, with its process id.

    Also if it cannot be locked: two daemons would write into each other's files, and nobody could tell.
    """
    if state_dir is None:
        yield
        return
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(
            f"cannot use state_dir {state_dir}: {error.strerror}; give another one with --state-dir"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            other = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            raise StateError(
                f"another logroute (process {other}) uses state_dir {state_dir}: stop it, or give another one"
            ) from error
        except OSError as error:
            raise StateError(
                f"cannot lock {state_dir}/lock: {error.strerror}; state_dir needs a file system that has "
                f"locks, such as a local one: give another one with --state-dir"
            ) from error
        with suppress(OSError):  # a full disk; the lock holds all the same
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


async def stop_on_signals(
    daemon: Daemon,
    reload: Callable[[], Awaitable[None]] | None = None,
    *,
    give_up: Callable[[], object] | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """SIGTERM and SIGINT end the daemon in order; a second one ends it at once. SIGHUP calls `reload`.

    `give_up` is called where the daemon is still there AT_ONCE_S after the second one: it ends the process.
    """

    async def insist(give_up: Callable[[], object]) -> None:
        await trio.sleep(AT_ONCE_S)
        log.error("ending without what does not answer, such as a disk that hangs")
        give_up()

    log = structlog.get_logger("logroute")
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        daemon.watch.receives_interrupts = True
        task_status.started()
        received: AsyncIterator[int] = signals
        async with trio.open_nursery() as nursery:
            asked = 0
            async for number in received:
                if number != signal.SIGHUP:
                    log.info("stopping", signal=signal.Signals(number).name)
                    asked += 1
                    if asked == 2 and give_up is not None:
                        nursery.start_soon(insist, give_up)
                    daemon.stop()
                elif reload is not None:
                    nursery.start_soon(reload)
                else:
                    log.warning("there is no configuration file to be read again", signal="SIGHUP")


async def keep_watchdog_quiet(flows: Callable[[], bool]) -> None:
    """Tell systemd that we live, twice in the time it gives us, but not while nothing flows that should.

    At once nothing where it does not ask.
    """
    usec = os.environ.get("WATCHDOG_USEC", "")
    if not usec.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        if flows():
            notify("WATCHDOG=1")
        await trio.sleep(int(usec) / 2e6)


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)); nothing where it did not start us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect("\0" + address[1:] if address.startswith("@") else address)
            sock.send(state.encode())
        except OSError as error:
            structlog.get_logger("logroute").warning("cannot notify systemd", error=error.strerror)
