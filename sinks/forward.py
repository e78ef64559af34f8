"""Forward sink: records to Fluentd, Fluent Bit and whatever else speaks the Forward protocol (version 1).

Each delivery is one message for each tag, all sent at once; what counts as delivered is the receiver's
acknowledgement of each. Owns one connection, which it keeps while it is used. See docs/forward.md.
"""

from __future__ import annotations

import re
import socket
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from urllib.parse import SplitResult, unquote
from weakref import WeakKeyDictionary

import msgspec
import trio
from pydantic import Field, field_validator, model_validator

from logroute.config.components import SINKS
from logroute.config.types import Duration, Secret
from logroute.router.template import BoundTemplate, Template
from logroute.sinks import (
    DELIVERED,
    Outcome,
    Sink,
    SinkContext,
    SinkOptions,
    SinkStatistics,
    kernel_acknowledged,
)
from logroute.sinks.addresses import Address, address_of_uri, parse_address
from logroute.sinks.forward_connection import Connection
from logroute.sinks.forward_entries import EntryEncoder
from logroute.sinks.forward_protocol import PORT, Handshake, message
from logroute.sinks.tls import TlsOptions, client_context

if TYPE_CHECKING:
    from logroute.router.record import Batch, Origin, Record

MESSAGE_BYTES = 4 << 20
"""Entries that are more become several messages: Fluent Bit takes none over 6 MB (its `Buffer_Max_Size`)."""

_NOT_IN_TAGS = re.compile(r"[^A-Za-z0-9_-]")
TAG_VALUE_CHARACTERS = 128

PORTS = {"tcp": PORT, "tls": PORT}


class ForwardOptions(SinkOptions):
    """Send records to Fluentd, Fluent Bit, or another receiver of the Forward protocol."""

    type: Literal["forward"] = "forward"
    address: str = Field(examples=["tls://logs.example.com:24224"])
    """Where to: `tcp://HOST:PORT`, or `tls://HOST:PORT`, the port being 24224 by default."""
    tag: str = Field(default="logroute.{container.name|file}", examples=["docker.{compose.project|none}"])
    """What the receiver routes by, a template. In its values, whatever is no letter, digit, `-` or `_`, dots
    too, becomes `_`."""
    compress: Literal["none", "gzip"] = "none"
    """Compress the entries (CompressedPackedForward)."""
    ack: bool = True
    """Wait until the receiver acknowledges each message. Without, what its kernel has taken counts as
    delivered, and what a broken connection may have cost is counted. Always on with `tls://`."""
    ack_timeout: Duration = Field(default=30.0, gt=0, examples=["30s"])
    """How long the receiver may take nothing, or acknowledge nothing, before everything is sent again."""
    shared_key: Annotated[str | None, Secret()] = Field(default=None, repr=False, examples=["a-long-secret"])
    """The receiver's key, where it has one. It is never sent: each side proves that it knows it. Keep it in a
    file: `${file:/run/secrets/key}`."""
    username: str | None = Field(default=None, repr=False, examples=["ada"])
    """User, where the receiver asks for one beside the key."""
    password: Annotated[str | None, Secret()] = Field(default=None, repr=False, examples=["another-secret"])
    """Their password."""
    tls: TlsOptions = TlsOptions.model_construct()

    @field_validator("address")
    @classmethod
    def _address_is_one(cls, address: str) -> str:
        _address_of(address)
        return address

    @field_validator("tag")
    @classmethod
    def _tag_is_one(cls, text: str) -> str:
        template = Template.parse(text)
        literal = "".join([part for part in template.parts if isinstance(part, str)])
        if not template.parts:
            raise ValueError("must not be empty")
        if not literal.isprintable() or " " in literal:
            raise ValueError("must not contain spaces or control characters")
        return text

    @field_validator("shared_key")
    @classmethod
    def _key_is_one(cls, key: str | None) -> str | None:
        if key == "":
            raise ValueError("must not be empty: whoever knows that would know it; leave it out for none")
        return key

    @model_validator(mode="after")
    def _user_has_a_key(self) -> ForwardOptions:
        if (self.username or self.password) and not self.shared_key:
            raise ValueError("receivers ask for a user only beside a key: set `shared_key` too")
        if not self.ack and self.address.startswith("tls:"):
            raise ValueError("behind `tls://` only acknowledgements tell what has come: leave `ack` on")
        return self


def _address_of(text: str) -> Address:
    """`tcp://HOST:PORT` or `tls://HOST:PORT`. Raises ValueError; its text shows no password."""
    return parse_address(
        text, PORTS, example="tcp://logs.example.com:24224", no_user="set `username` and `password`"
    )


def _named(address: Address) -> str:
    """As a URI has it."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"forward{'+tls' if address.transport == 'tls' else ''}://{host}:{address.port}"


def escape_tag(value: str) -> str:
    """A value from a stranger as a part of a tag.

    Receivers take tags apart at dots, match them against patterns, and make names of files of them.
    """
    return _NOT_IN_TAGS.sub("_", value)[:TAG_VALUE_CHARACTERS] or "_"


class ForwardStatistics(SinkStatistics, frozen=True):
    """A snapshot of a forward sink."""

    events: ClassVar[tuple[str, ...]] = ("connections", "chunks")
    connections: int
    """Made since the start."""
    chunks: int
    """Messages that were acknowledged."""
    unconfirmed: int
    """Records delivered without acknowledgement that a broken connection may have cost."""


class _Chunk(msgspec.Struct):
    """Records that become one message."""

    tag: str
    entries: list[memoryview] = msgspec.field(default_factory=list)
    size_bytes: int = 0
    records: int = 0


@SINKS.register(ForwardOptions)
class ForwardSink(Sink[ForwardOptions]):
    """One connection, made anew when it has ended."""

    # More than one batch of a log that is read on: to wait for an acknowledgement costs as much as 500 lines.
    # As MessagePack it is one message.
    batch_bytes = 3 << 20

    def __init__(self, options: ForwardOptions, context: SinkContext) -> None:
        super().__init__(options, context)
        self._address = _address_of(options.address)
        self._tag = Template.parse(options.tag)
        self._tags: WeakKeyDictionary[Origin, str] = WeakKeyDictionary()
        """Of origins whose records all have the same."""
        self._encoder = EntryEncoder()
        self._connection: Connection | kernel_acknowledged.Connection | None = None
        """The second kind where there are no acknowledgements."""
        self._connected = trio.Event()
        self._keepalive = True
        self._connections = self._chunks = self._unconfirmed = 0
        # What of the delivery that failed last is acknowledged, so that its next attempt does not send it
        # again. Invariant: these batches become the same chunks each time, so that an index names one.
        self._attempted: list[Batch] = []
        self._settled: set[int] = set()

    @classmethod
    def options_from_uri(cls, uri: SplitResult, query: dict[str, Any]) -> dict[str, Any]:
        user_info, at, netloc = uri.netloc.rpartition("@")
        address = address_of_uri(uri._replace(netloc=netloc), query, "tcp")
        _address_of(address)
        username, colon, password = user_info.partition(":")
        user = {"username": unquote(username)} if at else {}
        if colon:
            user["password"] = unquote(password)
        return {"address": address, **user, **query}

    def statistics(self) -> ForwardStatistics:
        return ForwardStatistics(self._connections, self._chunks, self._unconfirmed)

    async def open(self) -> None:
        await self.close()
        options, address = self.options, self._address
        context = await client_context(options.tls) if address.transport == "tls" else None
        handshake = None
        if options.shared_key:
            # Not the host's name alone: a receiver on the same host may not have ours (`Handshake.check`).
            hostname = f"logroute.{socket.gethostname()}"
            handshake = Handshake(
                options.shared_key, options.username or "", options.password or "", hostname
            )
        # The name is resolved anew: the receiver may have moved.
        connection = await Connection.connect(address.host, address.port, _named(address), context, handshake)
        self._keepalive = connection.keepalive
        self._connection = connection if options.ack else await connection.without_acknowledgements()
        self._connections += 1
        self._connected.set()
        self._connected = trio.Event()

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        if not self._attempted_before(batches):
            self._attempted, self._settled = list(batches), set()
        chunks = [
            (index, chunk)
            for index, chunk in enumerate(self._in_chunks(batches))
            if index not in self._settled
        ]
        if chunks:
            await self._send(chunks)
            self.answer = "ack" if self.options.ack else ""
        self._attempted, self._settled = [], set()
        return DELIVERED

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close()
            finally:
                self._count(connection)

    async def run(self) -> None:
        """Without acknowledgements, notice the end of a connection before a delivery writes into it."""
        while not self.options.ack:
            connection = self._connection
            if isinstance(connection, kernel_acknowledged.Connection) and not connection.failure:
                await connection.watch()
                self._count(connection)
            else:
                await self._connected.wait()

    # --- one delivery -----------------------------------------------------------------------------------

    def _attempted_before(self, batches: Sequence[Batch]) -> bool:
        before = self._attempted
        return len(before) == len(batches) and all(map(lambda a, b: a is b, before, batches))

    async def _send(self, chunks: Sequence[tuple[int, _Chunk]]) -> None:
        gzip = self.options.compress == "gzip"
        if gzip:  # milliseconds in which others want to go on
            await trio.to_thread.run_sync(_compress, [chunk for _, chunk in chunks], abandon_on_cancel=True)
        ack = self.options.ack
        messages = [message(c.tag, c.entries, c.records, gzip=gzip, ack=ack) for _, c in chunks]
        indices = {made.chunk: index for made, (index, _) in zip(messages, chunks, strict=True)}

        def settle(chunk: bytes) -> None:
            self._settled.add(indices[chunk])
            self._chunks += 1

        connection = self._connection
        if connection is None or not connection.usable():
            await self.open()
            connection = self._connection
            assert connection is not None
        if isinstance(connection, Connection):
            await connection.exchange(messages, settle, self.options.ack_timeout)
        else:
            try:
                data = b"".join([part for made in messages for part in made.parts])
                await connection.send(data, sum([made.records for made in messages]))
            finally:
                self._count(connection)
        if not self._keepalive:
            await self.close()

    def _count(self, connection: Connection | kernel_acknowledged.Connection) -> None:
        """What the end of a connection without acknowledgements, if it has ended, may have cost."""
        if isinstance(connection, Connection):
            return
        if records := connection.take_unconfirmed():
            self._unconfirmed += records
            self.context.unconfirmed(records)
            self.context.warn(
                "records may be lost: the receiver had taken them and may not have read them",
                receiver=connection.peer,
                reason=connection.failure,
                records=records,
            )

    def _in_chunks(self, batches: Sequence[Batch]) -> list[_Chunk]:
        """Divide records by their tag, in the order of the first of each, and where they are too many."""
        chunks: list[_Chunk] = []
        open_: dict[str, _Chunk] = {}
        for batch in batches:
            if not len(batch):
                continue
            for tag, records, entries in self._tagged(batch):
                chunk = open_.get(tag)
                if chunk is None or chunk.size_bytes + len(entries) > MESSAGE_BYTES:
                    chunk = open_[tag] = _Chunk(tag)
                    chunks.append(chunk)
                chunk.entries.append(entries)
                chunk.size_bytes += len(entries)
                chunk.records += records
        return chunks

    def _tagged(self, batch: Batch) -> Iterator[tuple[str, int, memoryview]]:
        """A batch's entries, each piece with its tag and how many they are."""
        origin = batch.origin
        tag = self._tag_of(origin)
        if isinstance(tag, str):
            entries = self._encoder.encode(batch)
            if len(entries) <= MESSAGE_BYTES:
                yield tag, len(batch), entries
                return
            divided: Sequence[tuple[str, Sequence[Record]]] = [(tag, batch.records)]
        else:
            divided = tag.split(batch.records)
        for text, records in divided:
            for part in self._parts(origin, records):
                yield text, *part

    def _tag_of(self, origin: Origin) -> str | BoundTemplate:
        """An origin's tag, or how to make it for a record."""
        tag = self._tags.get(origin)
        if tag is None:
            bound = self._tag.bind(origin, escape_tag)
            if bound.constant is None:
                return bound  # not kept: it knows the origin, and would keep it in turn
            tag = self._tags[origin] = bound.constant
        return tag

    def _parts(self, origin: Origin, records: Sequence[Record]) -> Iterator[tuple[int, memoryview]]:
        """Entries of these records, in as many pieces as it takes for each to fit in a message."""
        entries = self._encoder.encode_records(origin, records)
        if len(entries) <= MESSAGE_BYTES or len(records) == 1:
            yield len(records), entries
            return
        middle = len(records) // 2
        yield from self._parts(origin, records[:middle])
        yield from self._parts(origin, records[middle:])


def _compress(chunks: Sequence[_Chunk]) -> None:
    """Make of each chunk's entries one member of gzip."""
    for chunk in chunks:
        compressor = zlib.compressobj(1, wbits=zlib.MAX_WBITS | 16)
        data = [compressor.compress(each) for each in chunk.entries]
        chunk.entries = [memoryview(b"".join([*data, compressor.flush()]))]
