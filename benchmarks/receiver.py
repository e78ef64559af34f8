"""A receiver in a process of its own that only reads and counts, so that its CPU is not the daemon's.

`python -m benchmarks.receiver PORT [TALLY]`. The first line on stdout is its port; once stdin has ended and
so have all connections, the next is how many lines of the benchmarks' log have come. Meanwhile TALLY, a file,
says how many that are so far.
"""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Protocol

from benchmarks.processes import BenchmarkError

MARK = b" n 0"
"""Begins each line (`workload.messages`), whatever stands before it; nothing within one is like it."""


class Lines:
    """Counts what comes on one connection, of a protocol that wants no answer."""

    def __init__(self, connection: socket.socket) -> None:
        self._end = b""

    def count(self, data: bytes) -> int:
        """How many lines have come with these bytes."""
        data = self._end + data
        self._end = data[1 - len(MARK) :]
        return data.count(MARK)


class Counter(Protocol):
    """What makes of a connection's bytes a number of lines, and answers where that is wanted."""

    def __init__(self, connection: socket.socket) -> None: ...

    def count(self, data: bytes) -> int: ...


def serve(counter: type[Counter]) -> None:
    """The process: see the module."""
    selector = selectors.DefaultSelector()
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    tally = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if len(sys.argv) > 2 else None
    print(listener.getsockname()[1], flush=True)
    counters: dict[socket.socket, Counter] = {}
    count, more = 0, True
    while more or counters:
        for key, _ in selector.select():
            ready = key.fileobj
            if ready is listener:
                connection, _ = listener.accept()
                selector.register(connection, selectors.EVENT_READ)
                counters[connection] = counter(connection)
            elif not isinstance(ready, socket.socket):
                more = bool(os.read(sys.stdin.fileno(), 1))
                selector.unregister(ready)
            else:
                connection = ready
                if data := connection.recv(1 << 20):
                    count += counters[connection].count(data)
                    if tally is not None:
                        os.pwrite(tally, f"{count:20d}".encode(), 0)
                else:
                    selector.unregister(connection)
                    del counters[connection]
                    connection.close()
    print(count)


class Receiver:
    """Such a process, while the context lasts; on this port, or any, with a tally or without."""

    module: ClassVar[str] = __name__
    """What the process runs."""

    def __init__(self, port: int = 0, tally: Path | None = None) -> None:
        self.port = port
        self._tally = tally

    def __enter__(self) -> Receiver:
        more = [str(self._tally)] if self._tally is not None else []
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.module, str(self.port), *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def so_far(self) -> int:
        """Lines that have come until now, by the tally."""
        assert self._tally is not None
        return int(self._tally.read_text() or 0)

    def count(self) -> int:
        """Lines that have come, once the daemon has ended."""
        said, _ = self._process.communicate()
        if self._process.returncode:
            raise BenchmarkError("the receiver failed")
        return int(said)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()


if __name__ == "__main__":
    serve(Lines)
