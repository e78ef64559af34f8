"""An HTTP server that only counts lines and says yes: see `receiver`."""

from __future__ import annotations

import re
import socket

from benchmarks.receiver import Receiver, serve

LINE = b'"n 0'
"""In each record that is JSON, and nowhere else."""
OTLP_LINE = b"\x96\x01n 0"
"""In each of OTLP's protobuf: behind the length of the line, 150."""
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
BULK = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\r\n{"errors":false}'
NOTHING = b"HTTP/1.1 204 No Content\r\n\r\n"


class Requests:
    """Requests on one connection, one after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._parts: list[bytes] = []
        self._missing = 0
        """Bytes of the body that have not come."""

    def count(self, data: bytes) -> int:
        self._parts.append(data)
        if self._missing > len(data):
            self._missing -= len(data)
            return 0
        whole = b"".join(self._parts)
        end = whole.find(b"\r\n\r\n")
        if end < 0:
            return 0
        length = LENGTH.search(whole[: end + 2])
        assert length is not None
        self._missing = end + 4 + int(length[1]) - len(whole)
        if self._missing > 0:
            return 0
        self._parts.clear()
        self._missing = 0
        self._connection.sendall(BULK if b"/_bulk" in whole[:end] else NOTHING)
        return whole.count(OTLP_LINE if b"x-protobuf" in whole[:end] else LINE)


class HttpReceiver(Receiver):
    module = __name__


if __name__ == "__main__":
    serve(Requests)
