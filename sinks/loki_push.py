"""Loki's push protocol: streams of lines by their labels, as JSON (`POST /loki/api/v1/push`).

Grafana Loki, "HTTP API", "Ingest logs". Loki answers 400 for a request of which it has taken all that it
could, and says in words which entries it has left out (`loki_refusals`): they become rejections. The rest is
sent again only where there may be more to be said of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import msgspec
import trio
from pydantic import Field, field_validator

from logroute.config.components import Options
from logroute.router.record import STREAMS, Origin, Record
from logroute.router.template import BoundTemplate, PathPart, Template
from logroute.sinks import Outcome, Postponed, Refused, Rejected, Retryable
from logroute.sinks.encoding import expressible, record_texts
from logroute.sinks.epoch import epoch_ns
from logroute.sinks.http_answers import Answer
from logroute.sinks.http_encoding import ProtocolEncoding, Share
from logroute.sinks.loki_refusals import Labels, LeftOut, refusals

if TYPE_CHECKING:
    from logroute.router.record import Batch, Stream

FORGOTTEN_S = 1800.0
"""Label sets that were not used for so long no longer count: Loki has closed their streams by then
(`chunk_idle_period` is half an hour)."""
OVERFLOW = {"logroute": "too_many_label_sets"}
"""The label set of everything beyond the bound."""
NO_LABELS = {"logroute": "no_labels"}
"""That of an origin of which every label is empty: Loki takes no stream without any."""
BATCH_WAIT_S = 0.5
"""How long lines are gathered, because each stream costs a request."""
BODY_BYTES = 7 << 19
"""Loki hands on what a request has by gRPC, of which a message takes 4 MiB by default
(`grpc_server_max_recv_msg_size`). As protobuf an entry has at most some 20 bytes more than in our JSON."""
JSON_BATCH_BYTES = 1 << 20
"""What a delivery takes of `format: json`, where a line has all that is known of its container: it becomes
twice as much, or with many labels six times as much. What is over BODY_BYTES is encoded again, in parts."""
TOO_LARGE = "larger than max"
"""In the words of gRPC: "received message larger than max (5500312 vs. 4194304)"."""
MOST_REFUSALS = 50
"""So much of what an answer says is heeded at a time, because each is held against each record. Of one stream
Loki says two or three."""
VALUE_BYTES = 2048
"""Loki takes no longer ones (`max_label_value_length`)."""

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

_encode = msgspec.json.Encoder().encode


class LokiOptions(Options):
    """What Loki makes streams of."""

    labels: dict[str, str] = Field(
        default={
            "container": "{container.name|}",
            "compose_project": "{compose.project|}",
            "compose_service": "{compose.service|}",
            "host": "{host.name|}",
            "filename": "{log.file.path|}",
            "stream": "{stream}",
        },
        examples=[{"job": "logroute", "container": "{container.name|}"}],
    )
    """Labels, templates. One that comes out empty is left out. Each set of values is a stream of its own, so
    keep what has many values (ids, users) out of them."""
    metadata: dict[str, str] = Field(default={}, examples=[{"id": "{id}"}])
    """Structured metadata of each line, templates; what comes out empty is left out. Needs Loki 3."""
    format: str = Field(default="raw", examples=["json"])
    """What a line is: `raw`, the message alone; `json`, `logfmt`, `text`, or a template."""
    max_label_sets: int = Field(default=1000, ge=1)
    """How many label sets may be in use within half an hour. What exceeds that goes, counted, into the stream
    `{logroute="too_many_label_sets"}`."""
    together: bool = False
    """Send all streams of a delivery in one request. That is cheaper where there are many, but Loki answers
    for the last one only: what it leaves out of others (too old, over a limit of rates) is lost unseen."""
    tenant: str | None = Field(default=None, examples=["shop"])
    """Tenant, sent as `X-Scope-OrgID`."""

    @field_validator("labels", "metadata")
    @classmethod
    def _names_are_some(cls, templates: dict[str, str]) -> dict[str, str]:
        for name, text in templates.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name: letters, digits and _, no digit first")
            Template.parse(text)
        return templates

    @field_validator("labels")
    @classmethod
    def _there_are_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        if not labels:
            raise ValueError("Loki takes no stream without labels: write at least one")
        return labels

    @field_validator("format")
    @classmethod
    def _format_is_one(cls, text: str) -> str:
        record_texts(text)
        return text

    @field_validator("tenant")
    @classmethod
    def _tenant_is_one(cls, tenant: str | None) -> str | None:
        if tenant is not None and not re.fullmatch(r"[\x21-\x7e]+", tenant):
            raise ValueError("must be printable ASCII without spaces")
        return tenant


class _Entry(msgspec.Struct, array_like=True, gc=False):
    time_ns: str
    line: str


class _EntryWithMetadata(msgspec.Struct, array_like=True, gc=False):
    time_ns: str
    line: str
    metadata: msgspec.Raw


class _Bound(msgspec.Struct):
    """What is known of an origin's labels."""

    constant: dict[str, str]
    """Those that all of its records have."""
    varying: dict[str, BoundTemplate]
    of_stream: dict[Stream, bytes] | None
    """The whole of them, as JSON, where they vary with the stream at most."""
    metadata: msgspec.Raw | None
    """The whole of it, where it is constant."""
    varying_metadata: dict[str, BoundTemplate]
    constant_metadata: dict[str, str]


class LokiEncoding(ProtocolEncoding):
    """Streams of the lines of a delivery. Lines of one stream stay in their order.

    A request has one stream: of several, Loki's ingester answers for the last one, and says nothing of what
    it has left out of the others (`instance.Push`, seen with 3.7).
    """

    batch_wait_s = BATCH_WAIT_S
    body_bytes = BODY_BYTES

    content_type = "application/json"
    path = "/loki/api/v1/push"
    port = 3100

    def __init__(self, options: LokiOptions) -> None:
        self.overflowed = 0
        """Records that went into the stream for all beyond the bound."""
        self.clock: Callable[[], float] = trio.current_time
        self._options = options
        self._labels = {name: Template.parse(text) for name, text in options.labels.items()}
        self._metadata = {name: Template.parse(text) for name, text in options.metadata.items()}
        self._by_stream_only = all(_depends_on_stream_only(template) for template in self._labels.values())
        self._texts = None if options.format == "raw" else record_texts(options.format)
        if options.format == "json":
            self.batch_bytes = JSON_BATCH_BYTES
        self._bound: WeakKeyDictionary[Origin, _Bound] = WeakKeyDictionary()
        self._used: dict[bytes, float] = {}
        """Label sets, and when each was used last."""
        self._overflow = labels_json(OVERFLOW)
        self._told = 0

    @property
    def headers(self) -> Mapping[str, str]:
        return {"x-scope-orgid": self._options.tenant} if self._options.tenant else {}

    def shares(self, batches: Sequence[Batch]) -> Sequence[Share]:
        if self._options.together:
            return super().shares(batches)
        found: dict[bytes, tuple[list[Batch], list[int]]] = {}
        for index, batch in enumerate(batches):
            for labels, part in self._streams(batch):
                of_it, indexes = found.setdefault(labels, ([], []))
                of_it.append(part)
                indexes.append(index)
        return [Share(of_it, indexes) for of_it, indexes in found.values()]

    def encode(self, batches: Sequence[Batch]) -> bytes:
        streams: dict[bytes, list[bytes]] = {}
        now = self.clock()
        for batch in batches:
            for labels, part in self._streams(batch):
                # Without the brackets of the array, so that lists of several batches become one.
                streams.setdefault(self._admitted(labels, len(part), now), []).append(
                    _encode_entries(self._entries(part))[1:-1]
                )
        if not streams:
            return b""
        made = [
            b'{"stream":%b,"values":[%b]}' % (labels, b",".join(parts)) for labels, parts in streams.items()
        ]
        return b'{"streams":[%b]}' % b",".join(made)

    def take_notes(self) -> Sequence[tuple[str, dict[str, object]]]:
        told, self._told = self._told, self.overflowed
        if told == self.overflowed:
            return ()
        details: dict[str, object] = {
            "records": self.overflowed - told,
            "max_label_sets": self._options.max_label_sets,
            "stream": '{logroute="too_many_label_sets"}',
        }
        return (("there are too many label sets: records went into one stream", details),)

    # --- streams and entries --------------------------------------------------------------------------

    def _streams(self, batch: Batch) -> Iterator[tuple[bytes, Batch]]:
        """Label sets of a batch, as JSON, each with its records in order."""
        if not len(batch):
            return
        bound = self._bind(batch.origin)
        if (labels := bound.of_stream) is not None:
            streams = set(batch.streams)
            if len(streams) == 1 or labels["stdout"] == labels["stderr"]:
                yield labels[batch.streams[0]], batch
                return
            for stream in STREAMS:
                yield labels[stream], batch.of_streams(frozenset((stream,)))
            return
        groups: dict[bytes, list[Record]] = {}
        for record in batch.records:
            values = bound.constant | {name: part.render(record) for name, part in bound.varying.items()}
            groups.setdefault(labels_json(values), []).append(record)
        for of_record, records in groups.items():
            yield of_record, batch.with_records(records)

    def _entries(self, batch: Batch) -> list[Any]:
        bound = self._bind(batch.origin)
        if bound.metadata is None and self._texts is None and batch.newlines:
            # Lines as the source gave them become what is encoded in one step.
            times = epoch_ns(batch.times)
            return [_Entry(time, message[:-1]) for message, time in zip(batch.messages, times, strict=True)]
        records = batch.records
        times = epoch_ns([record.time for record in records])
        texts = self._texts(batch) if self._texts else [record.message for record in records]
        if bound.metadata is None:
            return list(map(_Entry, times, texts))
        return list(map(_EntryWithMetadata, times, texts, self._metadata_of(bound, records)))

    def _bind(self, origin: Origin) -> _Bound:
        bound = self._bound.get(origin)
        if bound is None:
            constant, varying = _split(self._labels, origin)
            constant_metadata, varying_metadata = _split(self._metadata, origin)
            bound = _Bound(constant, varying, None, None, varying_metadata, constant_metadata)
            if self._by_stream_only:
                bound.of_stream = {
                    stream: labels_json(
                        constant
                        | {name: part.render(Record("", stream, "")) for name, part in varying.items()}
                    )
                    for stream in STREAMS
                }
            if self._metadata:
                bound.metadata = msgspec.Raw(_pairs_json(constant_metadata))
            self._bound[origin] = bound
        return bound

    def _metadata_of(self, bound: _Bound, records: Sequence[Record]) -> list[msgspec.Raw]:
        varying = bound.varying_metadata
        if not varying:
            assert bound.metadata is not None
            return [bound.metadata] * len(records)
        constant = bound.constant_metadata
        return [
            msgspec.Raw(_pairs_json(constant | {name: part.render(record) for name, part in varying.items()}))
            for record in records
        ]

    def _admitted(self, labels: bytes, records: int, now: float) -> bytes:
        """These labels, or those of everything beyond the bound."""
        if labels not in self._used and len(self._used) >= self._options.max_label_sets:
            self._used = {each: used for each, used in self._used.items() if now - used < FORGOTTEN_S}
            if len(self._used) >= self._options.max_label_sets:
                self.overflowed += records
                return self._overflow
        self._used[labels] = now
        return labels

    # --- answers --------------------------------------------------------------------------------------

    def outcome(self, answer: Answer, batches: Sequence[Batch]) -> Outcome | None:
        """Loki says 204, and who speaks its protocol 200 with nothing, or with JSON.

        A page in HTML is somebody else's (a login, a proxy): Retryable. What is too large for Loki's own gRPC
        it answers as if it were its failure, each time: Refused.
        """
        if (answer.status == 429 or answer.status >= 500) and TOO_LARGE in answer.text:
            raise Refused("that is too large for it in one request")
        if answer.status == 200 and answer.body.strip():
            try:
                answer.json()
            except ValueError as error:
                raise Retryable(f"Loki does not answer so, {error}; is that its address?") from None
        if answer.status != 400:
            return None
        said = refusals(answer.text)
        if not said:
            return None
        left_out = said[:MOST_REFUSALS]
        outcome = self._rejected(left_out, batches)
        # What the ingester says hides what the distributor has said, and a long answer is read in part.
        whole = answer.whole and len(said) == len(left_out)
        if outcome.rejected and (not whole or any(each.total for each in left_out)):
            return _and_the_rest_again(outcome.rejected, batches)
        return outcome

    def _rejected(self, left_out: Sequence[LeftOut], batches: Sequence[Batch]) -> Outcome:
        """The records that Loki has left out, by what it says of them; all others it has taken."""
        rejected: list[Rejected] = []
        named, concerned = [0] * len(left_out), [False] * len(left_out)
        for index, batch in enumerate(batches):
            for record, time, text, labels in self._sent(batch):
                size = len(text.encode("utf-8", "replace"))
                for number, each in enumerate(left_out):
                    concerned[number] = concerned[number] or each.concerns(labels)
                    if each.means(labels, int(time), size) and not 0 < each.total <= named[number]:
                        rejected.append(Rejected(index, record, each.reason))
                        named[number] += 1
                        break
        unnamed = sum(
            max(0, each.total - count)
            for each, count, ours in zip(left_out, named, concerned, strict=True)
            if ours
        )
        if not 0 < len(rejected) + unnamed <= sum(map(len, batches)):
            raise Refused("it does not fit what was sent")
        return Outcome(rejected, unnamed=unnamed, unnamed_reason=left_out[-1].reason if unnamed else "")

    def _sent(self, batch: Batch) -> Iterator[tuple[Record, str, str, Labels]]:
        """Each record with its time, its line and its labels, as they were sent."""
        for labels, part in self._streams(batch):
            records = part.records
            times = epoch_ns([record.time for record in records])
            texts = self._texts(part) if self._texts else [record.message for record in records]
            sent = msgspec.json.decode(labels if labels in self._used else self._overflow)
            for record, time, text in zip(records, times, texts, strict=True):
                yield record, time, text, sent


def _and_the_rest_again(rejected: Sequence[Rejected], batches: Sequence[Batch]) -> Outcome:
    """Have the rest sent again, until nothing more is said of it. What Loki has just taken it takes once."""
    named = {id(each.record) for each in rejected}
    rest = [
        Postponed(index, record, "Loki may have left it out and told only of others")
        for index, batch in enumerate(batches)
        for record in batch.records
        if id(record) not in named
    ]
    return Outcome(rejected, rest)


def _encode_entries(entries: list[Any]) -> bytes:
    try:
        return _encode(entries)
    except UnicodeEncodeError:  # half of a surrogate pair
        for entry in entries:
            entry.line = expressible(entry.line)
        return _encode(entries)


def _depends_on_stream_only(template: Template) -> bool:
    return all(
        isinstance(part, str)
        or (isinstance(part, PathPart) and (part.found.constant or part.path == "stream"))
        for part in template.parts
    )


def _split(
    templates: Mapping[str, Template], origin: Origin
) -> tuple[dict[str, str], dict[str, BoundTemplate]]:
    """What is constant for an origin, and what is not."""
    bound = {name: template.bind(origin) for name, template in templates.items()}
    constant = {name: each.constant for name, each in bound.items() if each.constant is not None}
    return constant, {name: each for name, each in bound.items() if each.constant is None}


def labels_json(labels: Labels) -> bytes:
    """A label set: without what is empty, in the order of names, and never empty."""
    return _pairs_json({name: labels[name] for name in sorted(labels)} if any(labels.values()) else NO_LABELS)


def _pairs_json(pairs: Labels) -> bytes:
    return _encode({name: _clipped(value) for name, value in pairs.items() if value})


def _clipped(value: str) -> str:
    data = value.encode("utf-8", "replace")
    return data[:VALUE_BYTES].decode("utf-8", "ignore") if len(data) > VALUE_BYTES else data.decode()
