"""Sinks whose receivers answer nothing: a connection, or a socket for datagrams; what its end may cost."""

from __future__ import annotations

import trio

from logroute.sinks import OptionsT, Sink, SinkContext
from logroute.sinks.datagrams import Datagrams
from logroute.sinks.kernel_acknowledged import Connection


class UnconfirmedSink(Sink[OptionsT]):
    """Has one of the two at a time, watches it, and counts what its end may have cost.

    A subclass opens it, with `_begin`, and sends.
    """

    def __init__(self, options: OptionsT, context: SinkContext) -> None:
        super().__init__(options, context)
        self._connection: Connection | None = None
        self._datagrams: Datagrams | None = None
        self._connected = trio.Event()
        self._connections = self._unconfirmed = 0

    def _begin(self, opened: Connection | Datagrams) -> None:
        """Go on with this one."""
        if isinstance(opened, Datagrams):
            self._datagrams = opened
        else:
            self._connection = opened
        self._connections += 1
        self._connected.set()
        self._connected = trio.Event()

    async def run(self) -> None:
        """Notice the end of a connection before the next delivery writes into it."""
        while True:
            connection = self._connection
            if connection is None or connection.failure:
                await self._connected.wait()
            else:
                await connection.watch()
                self._count(connection)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        datagrams, self._datagrams = self._datagrams, None
        if datagrams is not None:
            datagrams.close()
        if connection is not None:
            try:
                await connection.close()
            finally:
                self._count(connection)

    async def _send(self, connection: Connection, data: bytes, records: int) -> None:
        """Raises Retryable."""
        try:
            await connection.send(data, records)
        finally:
            self._count(connection)

    def _settle(self, datagrams: Datagrams) -> None:
        """What sending them has shown: what may be lost of what was sent before, and where nobody listens."""
        lost, datagrams.unconfirmed = datagrams.unconfirmed, 0
        if lost:
            self._unconfirmed += lost
            self.context.unconfirmed(lost)
        refusals, datagrams.refusals = datagrams.refusals, []
        for refusal in refusals:
            self.context.warn(
                "the receiver's name has several addresses, and one refuses: the next one is used",
                receiver=datagrams.peer,
                address=refusal.address,
                reason=refusal.reason,
                records=lost,
            )

    def _count(self, connection: Connection) -> None:
        """What the end of a connection, if it has ended, may have cost."""
        if records := connection.take_unconfirmed():
            self._unconfirmed += records
            self.context.unconfirmed(records)
            self.context.warn(
                "records may be lost: the receiver had taken them and may not have read them",
                receiver=connection.peer,
                reason=connection.failure,
                records=records,
            )
