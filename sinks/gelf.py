"""GELF sink: messages for Graylog by UDP (chunked, compressed), TCP or TLS (ended by a NUL).

Owns one connection, or socket for datagrams. Neither way has an acknowledgement: a datagram has been
delivered when it was sent, and of a stream what the receiver's kernel has taken (`kernel_acknowledged`). GELF
over HTTP, which answers, is an encoding of the http sink. Graylog, "GELF via UDP", "GELF via TCP". See
docs/gelf.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import SplitResult

import trio
from pydantic import Field, field_validator

from logroute.config.components import SINKS
from logroute.config.types import Size
from logroute.sinks import DELIVERED, Outcome, Retryable, SinkContext, SinkOptions, SinkStatistics
from logroute.sinks.addresses import Address, address_of_uri, parse_address
from logroute.sinks.datagrams import LARGEST_BYTES, Datagrams, TooLarge, UdpDatagrams
from logroute.sinks.gelf_message import Chunker, Compress, GelfMessages
from logroute.sinks.kernel_acknowledged import Connection
from logroute.sinks.streams import open_stream
from logroute.sinks.tls import TlsOptions, client_context
from logroute.sinks.unconfirmed import UnconfirmedSink

if TYPE_CHECKING:
    from logroute.router.record import Batch

PORTS = {"udp": 12201, "tcp": 12201, "tls": 12201}
CHUNK_BYTES = 1420
"""What goes over most paths in one piece; in a network of one's own 8192 is usual."""


class GelfOptions(SinkOptions):
    """Send records to Graylog, by UDP or TCP. By HTTP: the http sink with `encoding: gelf`."""

    type: Literal["gelf"] = "gelf"
    address: str = Field(examples=["udp://graylog.example.com:12201"])
    """Where to: `udp://HOST:PORT`, `tcp://…` or `tls://…`; the port is 12201 by default."""
    compress: Compress = "gzip"
    """Compress datagrams. Messages in a stream never are."""
    chunk: Size = Field(default=CHUNK_BYTES, ge=512, le=LARGEST_BYTES, examples=["8KiB"])
    """Largest datagram; smaller ones go where the path takes none of this size. A message may have 128;
    what is longer is cut and ends with `[truncated]`."""
    tls: TlsOptions = TlsOptions.model_construct()

    @field_validator("address")
    @classmethod
    def _address_is_one(cls, address: str) -> str:
        _address_of(address)
        return address


def _address_of(text: str) -> Address:
    """`udp://HOST:PORT`, `tcp://…` or `tls://…`. Raises ValueError; its text shows no password."""
    by_http = "; by HTTP it is https://…?encoding=gelf"
    return parse_address(
        text,
        PORTS,
        example="udp://graylog.example.com:12201",
        no_user="these inputs know none",
        hints={"http": by_http, "https": by_http},
    )


class GelfStatistics(SinkStatistics, frozen=True):
    """A snapshot of a GELF sink."""

    events: ClassVar[tuple[str, ...]] = ("connections", "truncated")
    connections: int
    """Made since the start."""
    truncated: int
    """Messages cut to what 128 datagrams hold."""
    unconfirmed: int
    """Records delivered that a broken connection may have cost."""


@SINKS.register(GelfOptions)
class GelfSink(UnconfirmedSink[GelfOptions]):
    """One connection, or socket for datagrams, made anew when it has ended."""

    def __init__(self, options: GelfOptions, context: SinkContext) -> None:
        super().__init__(options, context)
        self._address = _address_of(options.address)
        self._messages = GelfMessages()
        self._chunker = Chunker(options.compress, options.chunk)
        self._peer = f"gelf+{options.address}"
        self._truncated = 0

    @classmethod
    def options_from_uri(cls, uri: SplitResult, query: dict[str, Any]) -> dict[str, Any]:
        address = address_of_uri(uri, query, "udp")
        _address_of(address)
        return {"address": address, **query}

    def statistics(self) -> GelfStatistics:
        return GelfStatistics(self._connections, self._truncated, self._unconfirmed)

    async def open(self) -> None:
        await self.close()
        address, peer = self._address, self._peer
        # Names are resolved anew: the receiver may have moved.
        if address.transport == "udp":
            self._begin(await UdpDatagrams.open(address.host, address.port, peer))
            self._chunker.datagram_bytes = self.options.chunk
        else:
            context = await client_context(self.options.tls) if address.transport == "tls" else None
            opened = await open_stream(address.host, address.port, peer, context)
            self._begin(await Connection.of(opened, peer))

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        messages = [message for batch in batches for message in self._messages.encode(batch)]
        if not messages:
            return DELIVERED
        connection = self._connection
        if self._datagrams is None and (connection is None or not connection.usable()):
            await self.open()
        if self._datagrams is not None:
            await self._send_datagrams(self._datagrams, messages)
        else:
            connection = self._connection
            assert connection is not None
            messages.append(b"")
            await self._send(connection, b"\0".join(messages), len(messages) - 1)
        return DELIVERED

    async def _send_datagrams(self, datagrams: Datagrams, messages: Sequence[bytes]) -> None:
        try:
            cut = await self._send_chunked(datagrams, messages)
        except Retryable:
            await self.close()
            raise
        finally:
            self._settle(datagrams)
        if cut:
            self._truncated += cut
            self.context.warn(
                "messages were cut to 128 datagrams", messages=cut, chunk=self._chunker.datagram_bytes
            )

    async def _send_chunked(self, datagrams: Datagrams, messages: Sequence[bytes]) -> int:
        """Send them, all of them again in smaller datagrams where the path turns out not to take these.

        How many of them were cut for that.
        """
        while True:
            truncated = self._chunker.truncated
            # Milliseconds of compressing in which others want to go on.
            ready = await trio.to_thread.run_sync(self._datagrams_of, messages, abandon_on_cancel=True)
            try:
                await datagrams.send(ready, whole=True)
                return self._chunker.truncated - truncated
            except TooLarge:
                self._chunker.datagram_bytes = datagrams.max_bytes
                self.context.warn(
                    "the path takes no datagrams of `chunk` bytes, smaller ones are sent",
                    chunk=self.options.chunk,
                    path=datagrams.max_bytes,
                )

    def _datagrams_of(self, messages: Sequence[bytes]) -> list[bytes]:
        return [datagram for message in messages for datagram in self._chunker.datagrams(message)]
