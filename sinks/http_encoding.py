"""Encodings of the http sink: how records become requests, and what is read out of the answers.

An encoding is one object. It does no I/O: it makes bodies, and says what an answer means. What it brings
beside that (path, port, content type, headers) the sink puts into each request. This module has the plain
ones; those of a protocol stand in modules of their own (`loki_push`, `splunk_hec`, `otlp_logs`, `gelf`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import msgspec

from logroute.router.record import cut
from logroute.sinks import Outcome
from logroute.sinks.encoding import encoder
from logroute.sinks.http_answers import Answer

if TYPE_CHECKING:
    from logroute.router.record import Batch, Record


LARGE_BYTES = 4 << 20
"""What a delivery takes where nobody says what the receiver does: a request costs as much as 1,000 lines."""


class Confirmation(msgspec.Struct, frozen=True):
    """The receiver has a delivery in its hands, and says only later that it is safe: it is to be asked."""

    path: Callable[[str, Mapping[str, str]], str]
    """Where to ask, by the path and the headers of the request; with its query."""
    body: bytes
    confirmed: Callable[[Answer], bool]
    """Whether the answer says yes. Raises ValueError where it is no answer to that."""
    within_s: float
    """How long to ask; then everything is sent again."""


class Share(msgspec.Struct, frozen=True):
    """What of a delivery goes into one request."""

    batches: Sequence[Batch]
    indexes: Sequence[int]
    """Which of the delivery's batches each of them is, or is of."""

    @property
    def records(self) -> int:
        """How many it has."""
        return sum(map(len, self.batches))

    def cut(self, records: int) -> tuple[Share, Share]:
        """Its first so many records, and the others."""
        first, others = cut(self.batches, records)
        # What is first and what is not are as many batches as there were, but that one may be in both.
        at = len(self.indexes) - len(others)
        return Share(first, self.indexes[: len(first)]), Share(others, self.indexes[at:])

    def parts(self, count: int) -> Sequence[Share]:
        """The same as so many, of as many records each, or fewer if it has not enough."""
        each = -(-self.records // count)
        found, rest = [], self
        while rest.records > each:
            first, rest = rest.cut(each)
            found.append(first)
        return [*found, rest]

    def named(self) -> Iterator[tuple[int, Record]]:
        """Its records, each with the index of its batch in the delivery."""
        for index, batch in zip(self.indexes, self.batches, strict=True):
            for record in batch.records:
                yield index, record


class Stopped(msgspec.Struct, frozen=True):
    """The receiver has come to a record that it does not take, and says which; it has none behind that."""

    at: int
    """The record's number in the request, from 0."""
    reason: str
    """What the receiver says of it, where it will never take it; empty where it takes it later."""
    taken: int
    """How many of the records before that one it has: of others it says nothing, and they are sent again."""
    confirmation: Confirmation | None = None
    """How to ask whether these are safe."""


class Encoding(ABC):
    """One kind of body, for one sink."""

    content_type: str
    path: ClassVar[str] = ""
    """Of a URL that has none."""
    port: ClassVar[int | None] = None
    """Of the short form of a URI (`loki+https://`) that names none."""
    authorization: ClassVar[str] = "Bearer"
    """What stands before a token in the Authorization header."""
    answer_bytes: ClassVar[int | None] = None
    """How much of an answer's body is read, where it says more than the status does."""
    answer_s: ClassVar[float | None] = None
    """How long that is waited for."""
    body_bytes: ClassVar[int | None] = None
    """What a body may be at most, where the receiver has a bound: what is more goes into several requests."""
    batch_bytes: int | None = None
    """What one delivery takes at most, where that is not the sink's usual; likewise below."""
    batch_records: int | None = None
    batch_wait_s: float | None = None
    concurrency: int = 1
    """How many deliveries there are at a time: several only where order does not matter."""
    sticky: bool = False
    """Whether later requests have to come to the receiver that had the first (`http_lanes`)."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Further headers of each request, by their names in lower case."""
        return {}

    def name_lane(self) -> Mapping[str, str]:
        """Headers that tell the requests of one lane (`http_lanes`) from all others; made for each."""
        return {}

    @abstractmethod
    def encode(self, batches: Sequence[Batch]) -> bytes:
        """All records, in order, as one body; empty if there are none. No text makes it fail."""

    def shares(self, batches: Sequence[Batch]) -> Sequence[Share]:
        """What goes into which request, in the order in which they are made."""
        return [Share(batches, range(len(batches)))]

    def outcome(self, answer: Answer, batches: Sequence[Batch]) -> Outcome | Confirmation | Stopped | None:
        """What an answer means to the batches of its request; None: what its status usually means.

        Raises Retryable or Refused, whose text says what is wrong with the answer.
        """
        return None

    def take_notes(self) -> Sequence[tuple[str, dict[str, object]]]:
        """What people should be told of what it has encoded, or was answered, and details; told once."""
        return ()


class ProtocolEncoding(Encoding):
    """One of a protocol whose answers say more than their status: they are read whole, within a bound."""

    # Behind many receivers is gRPC, which takes 4 MiB. A batch of a log that is read on has more than one.
    batch_bytes = 3 << 20
    answer_bytes = 1 << 16
    answer_s = 10.0


class LinesEncoding(Encoding):
    """Records in a format of their own, one after the other (`encoding.encoder`)."""

    batch_bytes = LARGE_BYTES

    def __init__(self, format_: str, content_type: str) -> None:
        self.content_type = content_type
        self._encode = encoder(format_)

    def encode(self, batches: Sequence[Batch]) -> bytes:
        encode = self._encode
        return b"".join([encode(batch) for batch in batches])


class JsonArrayEncoding(Encoding):
    """All records as one array of JSON."""

    batch_bytes = LARGE_BYTES
    content_type = "application/json"

    def __init__(self) -> None:
        self._encode = encoder("json")

    def encode(self, batches: Sequence[Batch]) -> bytes:
        encode = self._encode
        lines = b"".join([encode(batch) for batch in batches])
        # A newline inside of a text is escaped: each of these ends a record.
        return b"[" + lines[:-1].replace(b"\n", b",") + b"]" if lines else b""
