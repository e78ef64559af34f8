"""RELP sink: syslog messages that the receiver acknowledges, each of them.

All messages of a delivery are sent without waiting, and their answers read meanwhile. What was answered when
a connection ends is not sent again, as long as we live. See docs/syslog.md.

RELP has one way to say no (500), whether the message is meant or the receiver is in trouble. It is the
message where the receiver takes a later one. Where it refuses all up to the last, these are sent again, and
one with each further attempt is rejected: no message stops a route for ever, and a receiver in trouble for an
hour costs few messages their place.
"""

from __future__ import annotations

import select
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import SplitResult, urlsplit

import trio
from pydantic import Field, field_validator

from logroute.config.components import SINKS
from logroute.config.types import Duration
from logroute.sinks import (
    DELIVERED,
    Outcome,
    Postponed,
    Rejected,
    Retryable,
    Sink,
    SinkContext,
    SinkStatistics,
)
from logroute.sinks.addresses import Address, address_of_uri, parse_address
from logroute.sinks.failures import cause_in_words
from logroute.sinks.kernel_acknowledged import set_up
from logroute.sinks.relp_protocol import Answers, RelpError, closing, number_of, numbers_of, opening
from logroute.sinks.streams import Opened, open_stream, shaking_hands
from logroute.sinks.syslog import LARGEST_BYTES, NO_USER, MessageOptions
from logroute.sinks.syslog_message import SyslogEncoder
from logroute.sinks.tls import TlsOptions, client_context

if TYPE_CHECKING:
    from logroute.router.record import Batch, Record

PORTS = {"tcp": 2514, "tls": 2514}
"""No port is registered; this one stands in rsyslog's examples."""
READ_BYTES = 1 << 16
GATHER_S = 0.001
"""While many are acknowledged, what gathers in so long is read at once."""
UNSENT_BYTES = 1 << 22
"""How much the kernel takes that it cannot send yet, so that a delivery is few wake-ups (as in `forward`)."""
CLOSE_S = 1.0
"""How long the receiver may take to say farewell."""


class RelpOptions(MessageOptions):
    """Send records to a syslog receiver that acknowledges them (rsyslog's imrelp)."""

    type: Literal["relp"] = "relp"
    address: str = Field(examples=["tcp://logs.example.com:2514"])
    """Where to: `tcp://HOST:PORT`, or `tls://HOST:PORT`, the port being 2514 by default."""
    format: Literal["rfc5424", "rfc3164"] = "rfc5424"
    """What messages look like. `rfc3164` is the older form: its times have neither year nor zone (they are in
    UTC), nor parts of a second."""
    ack_timeout: Duration = Field(default=30.0, gt=0, examples=["30s"])
    """How long the receiver may take nothing, or acknowledge nothing, before the rest is sent again."""
    tls: TlsOptions = TlsOptions.model_construct()

    @field_validator("address")
    @classmethod
    def _address_is_one(cls, address: str) -> str:
        _address_of(address)
        return address


def _address_of(text: str) -> Address:
    """`tcp://HOST:PORT` or `tls://HOST:PORT`. Raises ValueError."""
    return parse_address(text, PORTS, example="tcp://logs.example.com:2514", no_user=NO_USER)


class RelpStatistics(SinkStatistics, frozen=True):
    """A snapshot of a RELP sink."""

    events: ClassVar[tuple[str, ...]] = ("connections", "truncated")
    connections: int
    """Made since the start."""
    truncated: int
    """Messages cut to the largest size."""


@SINKS.register(RelpOptions)
class RelpSink(Sink[RelpOptions]):
    """One session, begun anew when it has ended."""

    def __init__(self, options: RelpOptions, context: SinkContext) -> None:
        super().__init__(options, context)
        self._address = _address_of(options.address)
        self._max_bytes = options.max_size or LARGEST_BYTES["relp"]
        # The framing is RELP's own.
        self._encoder = SyslogEncoder(
            options.format, "octet-counting", options.facility, options.templates(), self._max_bytes
        )
        secure = "+tls" if self._address.transport == "tls" else ""
        self._peer = f"relp{secure}://{urlsplit(options.address).netloc}"
        self._session: Session | None = None
        self._connections = self._truncated = 0
        # What of the delivery that failed last was answered, so that its next attempt does not send it again.
        # Invariant: so many of the first records of these batches; `_refused` has indices of some of them.
        self._attempted: list[Batch] = []
        self._settled = 0
        self._refused: dict[int, str] = {}
        """The receiver's words to what it did not accept."""
        self._asked_again: Record | None = None
        """The first of the records that were postponed last."""

    @classmethod
    def options_from_uri(cls, uri: SplitResult, query: dict[str, Any]) -> dict[str, Any]:
        address = address_of_uri(uri, query, "tcp")
        _address_of(address)
        return {"address": address, **query}

    def statistics(self) -> RelpStatistics:
        return RelpStatistics(self._connections, self._truncated)

    async def open(self) -> None:
        await self.close()
        address = self._address
        context = await client_context(self.options.tls) if address.transport == "tls" else None
        # The name is resolved anew: the receiver may have moved.
        opened = await open_stream(address.host, address.port, self._peer, context)
        self._session = await Session.begin(opened, self._peer)
        self._connections += 1

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        before = self._attempted
        if len(before) != len(batches) or any(a is not b for a, b in zip(before, batches, strict=True)):
            self._attempted, self._settled, self._refused = list(batches), 0, {}
        left = [batch for batch in batches if len(batch)]
        skip = self._settled
        while skip and left:
            first = left[0]
            if skip < len(first):
                left[0] = first.with_records(first.records[skip:], first.size_bytes)
                break
            skip -= len(first)
            left.pop(0)
        if left:
            await self._send(left)
        refused = self._refused
        self._attempted, self._settled, self._refused = [], 0, {}
        if len(refused) < sum(map(len, batches)):
            self.answer = "200"
        return self._outcome(batches, refused) if refused else DELIVERED

    def _outcome(self, batches: Sequence[Batch], refused: Mapping[int, str]) -> Outcome:
        """What becomes of the records with these indices: see the module."""
        count = sum([len(batch) for batch in batches])
        accepted = next((index for index in reversed(range(count)) if index not in refused), -1)
        rejected: list[Rejected] = []
        postponed: list[Postponed] = []
        first = 0
        for number, batch in enumerate(batches):
            for index in range(first, first + len(batch)):
                if (words := refused.get(index)) is None:
                    continue
                record = batch.records[index - first]
                if index < accepted or (not postponed and record is self._asked_again):
                    rejected.append(Rejected(number, record, words))
                else:
                    reason = f"{self._peer}: the receiver refused: {words}"
                    postponed.append(Postponed(number, record, reason))
            first += len(batch)
        self._asked_again = postponed[0].record if postponed else None
        if postponed and self._session is not None:
            self._session.retire()  # the trouble may be this connection's
        return Outcome(rejected, postponed)

    async def _send(self, batches: Sequence[Batch]) -> None:
        session = self._session
        if session is None or not session.usable():
            await self.open()
            session = self._session
            assert session is not None
        truncated = self._encoder.truncated
        begin, settled = session.sent, self._settled
        number, parts = begin, []
        for batch in batches:
            numbers = numbers_of(number, len(batch))
            parts.append(self._encoder.frames(batch, numbers, " syslog ", "\n"))
            number += len(batch)
        try:
            await session.exchange(parts, number, self.options.ack_timeout)
        finally:
            self._settled += session.take_settled()
            for frame, words in session.take_refused():
                self._refused[settled + frame - begin] = words
        if cut := self._encoder.truncated - truncated:
            self._truncated += cut
            self.context.warn("messages were cut to max_size", messages=cut, max_size=self._max_bytes)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class Session:
    """One connection on which a session has begun."""

    def __init__(self, opened: Opened, peer: str) -> None:
        self.sent = 0
        """Frames so far, the opening one included."""
        self._peer = peer
        self._stream = opened.stream
        self._answers = Answers()
        self._settled = 0
        self._closed = self._retired = False
        self._poll = select.poll()
        self._poll.register(opened.socket.fileno(), select.POLLIN | select.POLLRDHUP)

    @classmethod
    async def begin(cls, opened: Opened, peer: str) -> Session:
        """Offer what we know, and hear that it is taken. Raises Retryable."""
        session = cls(opened, peer)
        try:
            with suppress(OSError):
                set_up(opened.socket)
                opened.socket.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            with shaking_hands(peer, "the receiver has not begun a session"):
                await session._stream.send_all(opening(number_of(0)))
                session.sent = 1
                while not session._answers.answered:
                    await session._read()
        except BaseException:
            await trio.aclose_forcefully(opened.stream)
            raise
        session._settled = 1
        return session

    def usable(self) -> bool:
        """Whether the receiver is still there: between deliveries it has nothing to say but that it ends."""
        return not (self._closed or self._retired or self._answers.ended or self._poll.poll(0))

    def retire(self) -> None:
        """Be used no more, but for a farewell."""
        self._retired = True

    def take_settled(self) -> int:
        """How many further messages are answered; told once."""
        settled, self._settled = self._settled, self._answers.answered
        return self._settled - settled

    def take_refused(self) -> list[tuple[int, str]]:
        """Which frames were refused, and the receiver's words; told once."""
        refused, self._answers.refused = self._answers.refused, []
        return refused

    async def exchange(self, parts: Sequence[bytes], until: int, silence_s: float) -> None:
        """Send frames, so that there are so many, and hear an answer to each: yes, or no (`take_refused`).

        Raises Retryable where the receiver ends, or does nothing for so long. Then, and when it is cancelled,
        the connection is closed.
        """
        failure: Retryable | None = None
        try:
            async with trio.open_nursery() as nursery:
                with trio.CancelScope(deadline=trio.current_time() + silence_s) as scope:

                    async def send() -> None:
                        for part in parts:
                            await self._stream.send_all(part)
                            scope.deadline = trio.current_time() + silence_s

                    nursery.start_soon(self._quietly, send)
                    try:
                        while self._answers.answered < until:
                            await self._read()
                            scope.deadline = trio.current_time() + silence_s
                            if self._answers.answered < until:
                                await trio.sleep(GATHER_S)
                    except Retryable as error:  # not through the nursery, which would put a group around it
                        failure = error
                if scope.cancelled_caught:
                    failure = Retryable(f"{self._peer}: nothing was acknowledged for {silence_s:g} s")
                nursery.cancel_scope.cancel()
        except BaseException:
            await self._abandon()
            raise
        if failure is not None:
            await self._abandon()
            raise failure
        self.sent = until

    @staticmethod
    async def _quietly(send: Any) -> None:
        """What breaks is heard by who reads."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await send()

    async def _read(self) -> None:
        """Raises Retryable."""
        try:
            if self._answers.ended:
                raise RelpError("has ended the session")
            data = await self._stream.receive_some(READ_BYTES)
            if not data:
                raise RelpError("has closed the connection")
            self._answers.feed(bytes(data))
        except RelpError as error:
            raise Retryable(f"{self._peer}: the receiver {error}") from error
        except trio.BrokenResourceError as error:
            raise Retryable(f"{self._peer}: the connection broke: {cause_in_words(error)}") from error

    async def _abandon(self) -> None:
        self._closed = True
        await trio.aclose_forcefully(self._stream)

    async def close(self) -> None:
        """Say farewell, and give the receiver a moment to do so too. Never raises."""
        if self._closed:
            return
        with (
            suppress(Retryable, trio.BrokenResourceError, trio.ClosedResourceError),
            trio.move_on_after(CLOSE_S),
        ):
            await self._stream.send_all(closing(number_of(self.sent)))
            while self._answers.answered <= self.sent:
                await self._read()
        await self._abandon()
