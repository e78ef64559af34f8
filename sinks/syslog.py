"""Syslog sink: over UDP (RFC 5426), TCP (RFC 6587), TLS (RFC 5425) and unix sockets.

None of them has an acknowledgement. Of a stream, what the receiver's kernel has taken counts as delivered
(`kernel_acknowledged`), and what a reset may have cost beyond that is counted; a datagram has been delivered
when it was sent. RELP, which acknowledges, is a sink of its own. See docs/syslog.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import SplitResult

from pydantic import Field, field_validator, model_validator

from logroute.config.components import SINKS
from logroute.config.types import Size
from logroute.router.template import Template
from logroute.sinks import DELIVERED, Outcome, Retryable, SinkContext, SinkOptions, SinkStatistics
from logroute.sinks.addresses import Address, address_of_uri, parse_address
from logroute.sinks.datagrams import Datagrams, UdpDatagrams, UnixDatagrams, WrongKind
from logroute.sinks.kernel_acknowledged import Connection
from logroute.sinks.streams import open_stream, open_unix_stream
from logroute.sinks.syslog_message import (
    Facility,
    Format,
    Framing,
    HeaderTemplates,
    StructuredData,
    SyslogEncoder,
    check_structured_data,
)
from logroute.sinks.tls import TlsOptions, client_context
from logroute.sinks.unconfirmed import UnconfirmedSink

if TYPE_CHECKING:
    from logroute.router.record import Batch

PORTS = {"udp": 514, "tcp": 514, "tls": 6514}
"""Where receivers usually listen."""
LARGEST_BYTES = {"udp": 1024, "tcp": 8192, "tls": 8192, "unix": 8192, "relp": 8192}
"""The largest messages that go everywhere, by transport: a datagram of 1024 octets is not fragmented on any
path, and receivers should take 2048 (RFC 5426, 3.2; RFC 5425, 4.3.1)."""


class MessageOptions(SinkOptions):
    """What messages look like, whatever carries them."""

    facility: Facility = Field(default=1, examples=["local0", 16])
    """What kind of program speaks, by name or number."""
    hostname: str = Field(default="{host.name|-}", examples=["{host.name|-}"])
    """Host in the header, a template."""
    app_name: str | None = Field(default=None, examples=["{container.name}"])
    """Program in the header, a template; without RFC 5424 the tag. Default: the name of the container or
    file."""
    procid: str | None = Field(default=None, examples=["{container.id}"])
    """Process in the header, a template. Default: the first 12 digits of the container's id."""
    msgid: str = Field(default="-", examples=["{label.kind|-}"])
    """Kind of message in the header, a template; `rfc5424` only."""
    structured_data: StructuredData = Field(
        default={},
        examples=[{"docker@32473": {"image": "{container.image}", "project": "{compose.project|}"}}],
    )
    """Elements of structured data, each with its parameters and their values, which are templates; one that
    is empty is left out. `rfc5424` only."""
    max_size: Size | None = Field(default=None, ge=480, examples=["8KiB"])
    """Largest message, header included; default 8 KiB, by UDP 1 KiB. What is longer is cut and ends with
    `[truncated]`."""

    @field_validator("hostname", "app_name", "procid", "msgid")
    @classmethod
    def _template_is_one(cls, text: str | None) -> str | None:
        if text is not None:
            Template.parse(text)
        return text

    @field_validator("structured_data")
    @classmethod
    def _structured_data_is_some(cls, data: StructuredData) -> StructuredData:
        return check_structured_data(data)

    def templates(self) -> HeaderTemplates:
        return HeaderTemplates.parse(
            self.hostname, self.app_name, self.procid, self.msgid, self.structured_data
        )


class SyslogOptions(MessageOptions):
    """Send records to a syslog receiver."""

    type: Literal["syslog"] = "syslog"
    address: str = Field(examples=["tcp://logs.example.com:514", "unix:///dev/log"])
    """Where to: `udp://HOST`, `tcp://HOST:PORT` (the port is 514 by default), `tls://HOST:PORT` (6514), or
    `unix:///PATH`, a socket of either kind."""
    format: Format | None = Field(default=None, examples=["rfc3164"])
    """What messages look like: `rfc5424`; `rfc3164`, the older form, whose times have neither year nor zone
    (they are in UTC), nor parts of a second; or `local`, what programs write to /dev/log: that without a
    host, with times in this host's zone. Default: `rfc5424`, for /dev/log and the sockets of journald
    `local`, because nothing else is understood there."""
    framing: Framing | None = Field(default=None, examples=["newline"])
    """How a message's end is told in a stream: `octet-counting`, its length stands before it, or `newline`
    behind it; then newlines inside of messages become `#012`. Default: `octet-counting`, on a unix socket
    `newline`."""
    tls: TlsOptions = TlsOptions.model_construct()

    @field_validator("address")
    @classmethod
    def _address_is_one(cls, address: str) -> str:
        _address_of(address)
        return address

    @model_validator(mode="after")
    def _local_is_local(self) -> SyslogOptions:
        if self.format == "local" and not self.address.startswith("unix:"):
            raise ValueError("`format: local` is of unix sockets: who listens elsewhere expects a host name")
        return self

    @model_validator(mode="after")
    def _datagrams_have_no_framing(self) -> SyslogOptions:
        if self.framing is not None and self.address.startswith("udp:"):
            raise ValueError("`framing` is of streams: a datagram is a message")
        return self


LOCAL_SOCKETS = (
    *("/dev/log", "/run/systemd/journal/dev-log", "/run/systemd/journal/syslog"),
    *("/var/run/systemd/journal/dev-log", "/var/run/systemd/journal/syslog"),
)
"""Where the programs of a host write, and where journald passes it on (systemd-journald.service(8))."""

NO_USER = "syslog knows none"


def _address_of(text: str) -> Address:
    """`udp://HOST:PORT`, `tcp://…`, `tls://…` or `unix:///PATH`. Raises ValueError; it shows no password."""
    return parse_address(text, PORTS | {"unix": 0}, example="tcp://logs.example.com:514", no_user=NO_USER)


class SyslogStatistics(SinkStatistics, frozen=True):
    """A snapshot of a syslog sink."""

    events: ClassVar[tuple[str, ...]] = ("connections", "truncated")
    connections: int
    """Made since the start."""
    truncated: int
    """Messages cut to the largest size."""
    unconfirmed: int
    """Records delivered that a broken connection may have cost."""


@SINKS.register(SyslogOptions)
class SyslogSink(UnconfirmedSink[SyslogOptions]):
    """One connection, or socket for datagrams, made anew when it has ended."""

    def __init__(self, options: SyslogOptions, context: SinkContext) -> None:
        super().__init__(options, context)
        self._address = address = _address_of(options.address)
        self._max_bytes = options.max_size or LARGEST_BYTES[address.transport]
        framing = options.framing or ("newline" if address.transport == "unix" else "octet-counting")
        default: Format = "local" if address.path in LOCAL_SOCKETS else "rfc5424"
        self._encoder = SyslogEncoder(
            options.format or default, framing, options.facility, options.templates(), self._max_bytes
        )
        self._peer = f"syslog+{options.address}"
        self._truncated = 0

    @classmethod
    def options_from_uri(cls, uri: SplitResult, query: dict[str, Any]) -> dict[str, Any]:
        address = address_of_uri(uri, query, "udp")
        _address_of(address)
        return {"address": address, **query}

    def statistics(self) -> SyslogStatistics:
        return SyslogStatistics(self._connections, self._truncated, self._unconfirmed)

    async def open(self) -> None:
        await self.close()
        address, peer = self._address, self._peer
        # Names are resolved anew: the receiver may have moved.
        if address.transport == "udp":
            self._begin(await UdpDatagrams.open(address.host, address.port, peer))
        elif address.transport == "unix":
            try:
                self._begin(await UnixDatagrams.open(address.path, peer))
            except WrongKind:
                self._begin(await Connection.of(await open_unix_stream(address.path, peer), peer))
        else:
            context = await client_context(self.options.tls) if address.transport == "tls" else None
            opened = await open_stream(address.host, address.port, peer, context)
            self._begin(await Connection.of(opened, peer))

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        if not any(len(batch) for batch in batches):
            return DELIVERED
        connection = self._connection
        if self._datagrams is None and (connection is None or not connection.usable()):
            await self.open()
        truncated = self._encoder.truncated
        if self._datagrams is not None:
            await self._send_datagrams(self._datagrams, batches)
        else:
            await self._send_stream(batches)
        if cut := self._encoder.truncated - truncated:
            self._truncated += cut
            self.context.warn("messages were cut to max_size", messages=cut, max_size=self._max_bytes)
        return DELIVERED

    async def _send_stream(self, batches: Sequence[Batch]) -> None:
        connection = self._connection
        assert connection is not None
        encode = self._encoder.encode
        data = b"".join([encode(batch) for batch in batches])
        await self._send(connection, data, sum([len(batch) for batch in batches]))

    async def _send_datagrams(self, datagrams: Datagrams, batches: Sequence[Batch]) -> None:
        messages = [message for batch in batches for message in self._encoder.messages(batch)]
        try:
            shortened = await datagrams.send(messages)
        except Retryable:
            await self.close()
            raise
        finally:
            self._settle(datagrams)
        if shortened:
            self._truncated += shortened
            self.context.warn(
                "messages were cut to what the path takes", messages=shortened, max_size=datagrams.max_bytes
            )
