"""An HTTP server that only counts lines and says yes: see `receiver`."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence

from benchmarks.receiver import Receiver, serve

LINES = {b"/loki/": b'"n 0', b"/v1/logs": b"n 0", b"/services/": b'"event":"n 0', b"": b'"message":"n 0'}
"""By the path, what is in each record, and nowhere else."""
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
TAKEN = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{"code":0}'
ID = re.compile(rb'^\{"create":\{"_id":"([^"]+)"', re.MULTILINE)
CREATED = b'{"create":{"_id":"%b","status":201}}'
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
        path = whole[: whole.index(b"\r\n")]
        lines = whole.count(next(line for part, line in LINES.items() if part in path))
        if b"/_bulk" in path:
            self._connection.sendall(bulk_answer(ID.findall(whole)))
        else:
            self._connection.sendall(TAKEN if b"/services/" in path else NOTHING)
        return lines


def bulk_answer(ids: Sequence[bytes]) -> bytes:
    """As Elasticsearch answers what our sink asks, if all was created."""
    body = b'{"errors":false,"items":[%b]}' % b",".join([CREATED % each for each in ids])
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


class HttpReceiver(Receiver):
    module = __name__


if __name__ == "__main__":
    serve(Requests)
