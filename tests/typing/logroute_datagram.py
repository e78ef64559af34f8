"""Datagram sink: each record as JSON in one datagram, to a unix socket. Owns that socket."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import SplitResult

import trio
from pydantic import Field

from logroute.config.components import SINKS
from logroute.router.record import Batch
from logroute.sinks import Outcome, Rejected, Retryable, Sink, SinkContext, SinkOptions
from logroute.sinks.encoding import encoder


class DatagramOptions(SinkOptions):
    """Send each record in a datagram of its own."""

    type: Literal["datagram"] = "datagram"
    path: str = Field(examples=["/run/collector.sock"])
    """Unix socket that takes them."""


@SINKS.register(DatagramOptions)
class DatagramSink(Sink[DatagramOptions]):
    batch_records = 500

    def __init__(self, options: DatagramOptions, context: SinkContext) -> None:
        super().__init__(options, context)
        self._encode = encoder("json")
        self._socket: trio.socket.SocketType | None = None

    @classmethod
    def options_from_uri(cls, uri: SplitResult, query: dict[str, Any]) -> dict[str, Any]:
        if uri.netloc:
            raise ValueError(f"datagram:// takes no host; write datagram:///{uri.netloc}{uri.path}")
        return {"path": uri.path, **query}

    async def open(self) -> None:
        await self.close()
        self._socket = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM)
        try:
            await self._socket.connect(self.options.path)
        except OSError as error:
            raise Retryable(f"{self.options.path}: {error.strerror}") from error

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        assert self._socket is not None
        rejected: list[Rejected] = []
        for index, batch in enumerate(batches):
            lines = self._encode(batch).split(b"\n")[:-1]
            for record, line in zip(batch.records, lines, strict=True):
                try:
                    await self._socket.send(line)
                except OSError as error:
                    if error.errno != errno.EMSGSIZE:
                        raise Retryable(f"{self.options.path}: {error.strerror}") from error
                    rejected.append(Rejected(index, record, "larger than a datagram can be"))
        return Outcome(rejected)

    async def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
