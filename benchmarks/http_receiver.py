"""An HTTP server that only counts lines and says yes: see `receiver`."""

from __future__ import annotations

import re
import socket

from benchmarks.receiver import Receiver, serve

LINE = b'"message":"n 0'
"""In each document, and nowhere else."""
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
CREATED = b'{"create":{"status":201}}'
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
        lines = whole.count(LINE)
        self._connection.sendall(bulk_answer(lines) if b"/_bulk" in whole[:end] else NOTHING)
        return lines


def bulk_answer(records: int) -> bytes:
    """As Elasticsearch answers what our sink asks, if all was created."""
    body = b'{"errors":false,"items":[%b]}' % b",".join([CREATED] * records)
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


class HttpReceiver(Receiver):
    module = __name__


if __name__ == "__main__":
    serve(Requests)
