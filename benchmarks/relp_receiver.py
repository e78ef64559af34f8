"""A RELP receiver that only counts and acknowledges: see `receiver`."""

from __future__ import annotations

import re
import socket

from benchmarks.receiver import Receiver, serve

HEADER = re.compile(rb"(\d+) ([a-z]+) (\d+)(?: |(?=\n))")


class Frames:
    """Frames on one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._data = b""

    def count(self, data: bytes) -> int:
        data = self._data + data
        begin = count = 0
        answers: list[bytes] = []
        while found := HEADER.match(data, begin):
            end = found.end() + int(found[3])
            if len(data) <= end:
                break
            count += found[2] == b"syslog"
            answers.append(b"%s rsp 6 200 OK\n" % found[1])
            begin = end + 1
        self._data = data[begin:]
        self._connection.sendall(b"".join(answers))
        return count


class RelpReceiver(Receiver):
    module = __name__


if __name__ == "__main__":
    serve(Frames)
