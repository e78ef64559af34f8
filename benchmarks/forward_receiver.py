"""A receiver of the Forward protocol that only counts and acknowledges: see `receiver`."""

from __future__ import annotations

import socket

import msgpack

from benchmarks.receiver import Receiver, serve

LARGEST_BYTES = 1 << 30


class Chunks:
    """Messages on one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._unpacker = msgpack.Unpacker(max_buffer_size=LARGEST_BYTES)

    def count(self, data: bytes) -> int:
        self._unpacker.feed(data)
        count = 0
        for _tag, _entries, option in self._unpacker:
            self._connection.sendall(msgpack.packb({"ack": option["chunk"]}))
            count += option["size"]
        return count


class ForwardReceiver(Receiver):
    module = __name__


if __name__ == "__main__":
    serve(Chunks)
