"""Syslog sink: RFC 5424 and 3164 messages over TCP (RFC 6587).

Owns one connection. TCP syslog has no acknowledgement: what the receiver's kernel has taken counts as
delivered (`kernel_acknowledged`), and what a reset may have cost beyond that is counted. See docs/syslog.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec
import trio
from pydantic import Field, field_validator

from logroute.config.components import SINKS
from logroute.config.types import Size
from logroute.router.template import Template
from logroute.sinks import DELIVERED, Outcome, Sink, SinkContext, SinkOptions
from logroute.sinks.kernel_acknowledged import Connection
from logroute.sinks.syslog_message import Facility, Format, Framing, HeaderTemplates, SyslogEncoder

if TYPE_CHECKING:
    from logroute.router.record import Batch

PORTS = {"tcp": 514}
"""The transports there are, and where receivers usually listen."""


class SyslogOptions(SinkOptions):
    """Send records to a syslog receiver."""

    type: Literal["syslog"] = "syslog"
    address: str = Field(examples=["tcp://logs.example.com:514"])
    """Where to: `tcp://HOST:PORT`, the port being 514 by default."""
    format: Format = "rfc5424"
    """What messages look like. `rfc3164` is the older form: its times have neither year nor zone (they are in
    UTC), nor parts of a second."""
    framing: Framing = "octet-counting"
    """How a message's end is told: its length stands before it, or a newline behind it. With `newline`,
    newlines inside of messages become `#012`."""
    facility: Facility = Field(default=1, examples=["local0", 16])
    """What kind of program speaks, by name or number."""
    hostname: str = Field(default="{host.name|-}", examples=["{host.name|-}"])
    """Host in the header, a template."""
    app_name: str | None = Field(default=None, examples=["{container.name}"])
    """Program in the header, a template; in `rfc3164` the tag. Default: the name of the container or file."""
    procid: str | None = Field(default=None, examples=["{container.id}"])
    """Process in the header, a template. Default: the first 12 digits of the container's id."""
    msgid: str = Field(default="-", examples=["{label.kind|-}"])
    """Kind of message in the header, a template; `rfc3164` has none."""
    max_size: Size = Field(default=8192, ge=1024, examples=["8KiB"])
    """Largest message, header included. What is longer is cut and ends with `[truncated]`."""

    @field_validator("address")
    @classmethod
    def _address_is_one(cls, address: str) -> str:
        parse_address(address)
        return address

    @field_validator("hostname", "app_name", "procid", "msgid")
    @classmethod
    def _template_is_one(cls, text: str | None) -> str | None:
        if text is not None:
            Template.parse(text)
        return text


class Address(msgspec.Struct, frozen=True):
    """Where a receiver listens."""

    transport: str
    host: str
    port: int


def parse_address(text: str) -> Address:
    """`tcp://HOST:PORT`. Raises ValueError; its text shows no password."""
    if not text.isprintable() or " " in text:
        raise ValueError("must not contain spaces or control characters")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError("is no address such as tcp://logs.example.com:514") from error
    if parts.scheme not in PORTS:
        there_are = ", ".join(f"{transport}://" for transport in PORTS)
        said = f'no transport "{parts.scheme}://"' if parts.scheme else "no transport"
        raise ValueError(f"{said}; there is {there_are}")
    if not host:
        raise ValueError("names no host")
    if "@" in parts.netloc:
        raise ValueError("takes no user: syslog knows none")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("has something behind the port")
    return Address(parts.scheme, host, PORTS[parts.scheme] if port is None else port)


class SyslogStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a syslog sink."""

    connections: int
    """Made since the start."""
    truncated: int
    """Messages cut to `max_size`."""
    unconfirmed: int
    """Records delivered that a broken connection may have cost."""


@SINKS.register(SyslogOptions)
class SyslogSink(Sink[SyslogOptions]):
    """One connection, made anew when it has ended."""

    def __init__(self, options: SyslogOptions, context: SinkContext) -> None:
        super().__init__(options, context)
        templates = HeaderTemplates(
            hostname=Template.parse(options.hostname),
            app_name=Template.parse(options.app_name) if options.app_name is not None else None,
            procid=Template.parse(options.procid) if options.procid is not None else None,
            msgid=Template.parse(options.msgid),
        )
        self._encoder = SyslogEncoder(
            options.format, options.framing, options.facility, templates, options.max_size
        )
        self._address = parse_address(options.address)
        self._connection: Connection | None = None
        self._connected = trio.Event()
        self._connections = self._truncated = self._unconfirmed = 0

    @classmethod
    def options_from_uri(cls, uri: SplitResult, query: dict[str, Any]) -> dict[str, Any]:
        if "address" in query:
            raise ValueError("the URI is the address, `address` is no parameter")
        transport = uri.scheme.partition("+")[2]
        if not transport:
            raise ValueError(f"over which transport? Write syslog+tcp://{uri.netloc.rpartition('@')[2]}")
        address = uri._replace(scheme=transport, query="").geturl()
        parse_address(address)
        return {"address": address, **query}

    def statistics(self) -> SyslogStatistics:
        return SyslogStatistics(self._connections, self._truncated, self._unconfirmed)

    async def open(self) -> None:
        await self.close()
        # The name is resolved anew: the receiver may have moved.
        self._connection = await Connection.connect(
            self._address.host, self._address.port, f"syslog+{self.options.address}"
        )
        self._connections += 1
        self._connected.set()
        self._connected = trio.Event()

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        truncated = self._encoder.truncated
        encode = self._encoder.encode
        data = b"".join([encode(batch) for batch in batches])
        if not data:
            return DELIVERED
        connection = self._connection
        if connection is None or not connection.usable():
            await self.open()
            connection = self._connection
            assert connection is not None
        try:
            await connection.send(data, sum([len(batch) for batch in batches]))
        finally:
            self._count(connection)
        if cut := self._encoder.truncated - truncated:
            self._truncated += cut
            self.context.warn("messages were cut to max_size", messages=cut, max_size=self.options.max_size)
        return DELIVERED

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
        if connection is not None:
            await connection.close()
            self._count(connection)

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
