"""Splunk's HTTP Event Collector: events as concatenated JSON (`POST /services/collector/event`).

Splunk, "Format events for HTTP Event Collector", "HTTP Event Collector REST API endpoints", "About HTTP
Event Collector Indexer Acknowledgment". An answer says what became of the request by a code in its body, and
may name the event at which it ended (`invalid-event-number`, from 0); with acknowledgement a request is safe
only when its channel says so later.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import msgspec
from pydantic import Field, field_validator

from logroute.config.components import Options
from logroute.config.types import Duration
from logroute.router.record import STREAMS, Origin, Record, Stream
from logroute.router.template import BoundTemplate, Template
from logroute.sinks import DELIVERED, Outcome, Retryable
from logroute.sinks.columns import BYTES, Plain, plain, woven
from logroute.sinks.encoding import expressible, record_texts
from logroute.sinks.epoch import epoch_seconds
from logroute.sinks.failures import excerpt
from logroute.sinks.http_answers import Answer
from logroute.sinks.http_encoding import Confirmation, ProtocolEncoding, Stopped
from logroute.sinks.record_json import encode_batch, id_prefixes

if TYPE_CHECKING:
    from logroute.router.record import Batch

WAITING = 4
"""How many deliveries wait for their acknowledgement at a time, each on a channel of its own."""
CHANNEL = "x-splunk-request-channel"
SUCCESS = 0
"""The code of a request that was taken."""
INCORRECT_INDEX = 7
# Codes of refusals that speak of what was sent: no data, invalid data format, incorrect index, event field
# required, event field blank, error in handling indexed fields.
_OF_THE_EVENTS = {5, 6, 7, 12, 13, 15}

_json = msgspec.json.Encoder()


class SplunkOptions(Options):
    """What events look like, and when they count as safe."""

    host: str = Field(default="{host.name|}", examples=["{host.name|}"])
    """Host of an event, a template."""
    source: str = Field(default="{container.name|}", examples=["{container.name|}"])
    """Source of an event, a template."""
    sourcetype: str = Field(default="{container.runtime|}", examples=["docker"])
    """Source type of an event, a template."""
    index: str = Field(default="", examples=["containers"])
    """Index of an event, a template. Default: the token's."""
    format: str = Field(default="raw", examples=["json"])
    """What an event is: `raw`, the message alone; `json`, the whole record as an object; `logfmt`, `text`, or
    a template."""
    ack: bool = False
    """Wait until Splunk has acknowledged that a delivery is indexed; the token must have that enabled."""
    ack_timeout: Duration = Field(default=30.0, gt=0, examples=["30s"])
    """How long to ask for that; then the delivery is sent again. Keep it below the route's deadline."""
    channel: str | None = Field(default=None, examples=["a7c1a51b-51a6-4d43-b5a6-3a51f3a2d9f4"])
    """Channel (a UUID) of the requests. With `ack` there is one delivery at a time on it. Default: with `ack`
    each of four connections has one of its own."""

    @field_validator("host", "source", "sourcetype", "index")
    @classmethod
    def _template_is_one(cls, text: str) -> str:
        Template.parse(text)
        return text

    @field_validator("format")
    @classmethod
    def _format_is_one(cls, text: str) -> str:
        record_texts(text)
        return text

    @field_validator("channel")
    @classmethod
    def _channel_is_one(cls, channel: str | None) -> str | None:
        return None if channel is None else str(uuid.UUID(channel))


class _Bound(msgspec.Struct):
    """What is known of an origin."""

    templates: dict[str, BoundTemplate]
    of_stream: dict[Stream, bytes]
    """What stands behind the id of its events, to their end, where it varies with the stream at most."""


class _BlankEvent(msgspec.Struct):
    """In the place of a text without anything to see, which Splunk refuses (code 13)."""

    message: str


class SplunkEncoding(ProtocolEncoding):
    """Events, one after the other."""

    content_type = "application/json"
    path = "/services/collector/event"
    port = 8088
    authorization = "Splunk"
    # Splunk Cloud's bound. Of a larger body it says that the first event is no JSON, which would make a dead
    # letter of that one; Splunk Enterprise takes more.
    body_bytes = 5 << 20

    def __init__(self, options: SplunkOptions) -> None:
        self._options = options
        self._texts = None if options.format == "raw" else record_texts(options.format)
        names = ("host", "source", "sourcetype", "index")
        self._templates = {
            name: Template.parse(getattr(options, name)) for name in names if getattr(options, name)
        }
        self._bound: WeakKeyDictionary[Origin, _Bound] = WeakKeyDictionary()
        # Events have their times, and an indexer says that it has them seconds after it took them.
        self._own_channels = options.ack and options.channel is None
        self.concurrency = WAITING if self._own_channels else 1
        self.sticky = options.ack

    @property
    def headers(self) -> Mapping[str, str]:
        return {CHANNEL: self._options.channel} if self._options.channel else {}

    def name_lane(self) -> Mapping[str, str]:
        return {CHANNEL: str(uuid.uuid4())} if self._own_channels else {}

    # --- events ---------------------------------------------------------------------------------------

    def encode(self, batches: Sequence[Batch]) -> bytes:
        return b"".join([self._encode(batch) for batch in batches if len(batch)])

    def _encode(self, batch: Batch) -> bytes:
        origin = batch.origin
        bound = self._bind(origin)
        if self._texts is None and bound.of_stream and (columns := plain(batch)) is not None:
            try:
                if not _any_blank(columns.messages):
                    return _plain_events(origin, columns, bound.of_stream)
            except UnicodeEncodeError:  # half of a surrogate pair
                pass
        records = batch.records
        if bound.of_stream:
            behind = [bound.of_stream[record.stream] for record in records]
        else:
            behind = [_fields(origin, record.stream, bound.templates, record) for record in records]
        uids = _each_as_json(list(map(origin.record_id, records)))
        # Column by column: 1.4 µs an event; as structs 1.9.
        count = len(records)
        parts = [b""] * (6 * count)
        parts[0::6] = [b'{"time":'] * count
        parts[1::6] = "\n".join(epoch_seconds([record.time for record in records])).encode().split(b"\n")
        parts[2::6] = [b',"event":'] * count
        parts[3::6] = _each_as_json(self._events(batch))
        parts[4::6] = [b',"fields":{"id":'] * count
        parts[5::6] = [uid + rest for uid, rest in zip(uids, behind, strict=True)]
        return b"".join(parts)

    def _events(self, batch: Batch) -> list[Any]:
        if self._options.format == "json":
            return [msgspec.Raw(line) for line in encode_batch(batch).split(b"\n")[:-1]]
        texts = self._texts(batch) if self._texts else [record.message for record in batch.records]
        if _any_blank(texts):
            return [text if text and not text.isspace() else _BlankEvent(text) for text in texts]
        return texts

    def _bind(self, origin: Origin) -> _Bound:
        bound = self._bound.get(origin)
        if bound is None:
            bound = _Bound({name: template.bind(origin) for name, template in self._templates.items()}, {})
            if all(template.constant is not None for template in bound.templates.values()):
                bound.of_stream = {each: _fields(origin, each, bound.templates) for each in STREAMS}
            self._bound[origin] = bound
        return bound

    # --- answers --------------------------------------------------------------------------------------

    def outcome(self, answer: Answer, batches: Sequence[Batch]) -> Outcome | Confirmation | Stopped | None:
        """Success is a body with the code 0; a page in HTML, or nothing, is none."""
        try:
            said = answer.json()
            code = said.get("code") if isinstance(said, dict) else None
        except ValueError as error:
            if 200 <= answer.status < 300:
                raise Retryable(f"Splunk does not answer so, {error}; is that its address?") from None
            return None
        if 200 <= answer.status < 300:
            if code != SUCCESS:
                raise Retryable("Splunk does not answer so, there is no code 0; is that its address?")
            if not self._options.ack:
                return DELIVERED
            if (confirmation := self._confirmation(said)) is None:
                raise Retryable(
                    "it has no ackId: enable indexer acknowledgement for the token, or set `ack` to false"
                )
            return confirmation
        if not isinstance(code, int):
            return None
        if answer.status == 400 and code not in _OF_THE_EVENTS:
            # Of the channel, of acknowledgement: put right by people.
            raise Retryable("that is not about the events")
        if answer.status == 400 or answer.status >= 500:
            return self._stopped(said, answer.status, sum(map(len, batches)))
        return None

    def _stopped(self, said: Mapping[str, Any], status: int, count: int) -> Stopped | None:
        """Where it names an event: those before it are on their way to the index already.

        Splunk reads event by event, and nothing behind the one that it answers of
        (https://github.com/moby/moby/issues/35862).
        """
        at = said.get("invalid-event-number")
        if type(at) is not int:
            return None
        if said["code"] == INCORRECT_INDEX:
            # Splunk has gone on before it looks at the index, and says the number of the event behind: of one
            # alone it says 1 (Splunk Connect for Syslog, "Troubleshoot SC4S server", shows that).
            at -= 1
        if not 0 <= at < count:
            return None
        taken, confirmation = at, None
        if self._options.ack and (confirmation := self._confirmation(said)) is None:
            taken = 0  # nobody can ask for these
        if status == 400:
            return Stopped(at, f"{excerpt(str(said.get('text')))} (code {said['code']})", taken, confirmation)
        return Stopped(at, "", taken, confirmation) if taken else None

    def _confirmation(self, said: Mapping[str, Any]) -> Confirmation | None:
        """How to ask for what an answer is about; None if it does not say."""
        ack_id = said.get("ackId")
        if not isinstance(ack_id, int) or isinstance(ack_id, bool):
            return None

        def confirmed(answer: Answer) -> bool:
            given = answer.json()
            acks = given.get("acks") if isinstance(given, dict) else None
            if answer.status != 200 or not isinstance(acks, dict):
                raise ValueError("that says nothing about acknowledgements")
            return acks.get(str(ack_id)) is True

        return Confirmation(
            lambda path, headers: f"{_acknowledgements(path)}?channel={headers[CHANNEL]}",
            _json.encode({"acks": [ack_id]}),
            confirmed,
            self._options.ack_timeout,
        )


def _any_blank(texts: Sequence[str]) -> bool:
    return any(map(str.isspace, texts)) or "" in texts


def _plain_events(origin: Origin, columns: Plain, of_stream: Mapping[Stream, bytes]) -> bytes:
    """Events that are messages alone. Raises UnicodeEncodeError."""
    between = {stream: f'","fields":{{"id":"{prefix}' for stream, prefix in id_prefixes(origin).items()}
    behind = {stream: '"' + rest.decode(BYTES) for stream, rest in of_stream.items()}
    times, streams = columns.times, columns.streams
    event: list[str | list[str]] = ['{"time":', epoch_seconds(times), ',"event":', columns.texts()]
    event += [[*map(between.__getitem__, streams)], times, [*map(behind.__getitem__, streams)]]
    return woven(len(times), event).encode(BYTES)


def _each_as_json(values: Sequence[Any]) -> list[bytes]:
    """Each of them as JSON, which has no newlines. What UTF-8 cannot express of a text becomes `?`."""
    try:
        return _json.encode_lines(values).split(b"\n")[:-1]
    except UnicodeEncodeError:  # half of a surrogate pair
        texts = [expressible(value) if isinstance(value, str) else value for value in values]
        return _json.encode_lines(texts).split(b"\n")[:-1]


def _acknowledgements(path: str) -> str:
    """The path of the acknowledgements beside that of the events: `/services/collector[/event[/1.0]]`."""
    before, collector, _ = path.rpartition("/collector")
    return f"{before}{collector}/ack" if collector else f"{path.rpartition('/')[0]}/ack"


def _fields(
    origin: Origin, stream: Stream, templates: Mapping[str, BoundTemplate], record: Record | None = None
) -> bytes:
    """What stands behind the id, which is the first of the indexed fields, to the end of an event."""
    fields: dict[str, str] = {
        "stream": stream,
        "container_id": origin.id,
        "container_name": origin.name,
        "file": origin.file,
    }
    for group in ("compose", "swarm", "kubernetes"):
        fields |= {f"{group}_{key}": str(value) for key, value in getattr(origin, group).items()}
    rendered = {
        name: (template.constant if record is None else template.render(record)) or ""
        for name, template in templates.items()
    }
    return b"".join(
        [
            b",",
            _json.encode({name: expressible(value) for name, value in fields.items() if value})[1:],
            *(
                b",%b:%b" % (_json.encode(name), _json.encode(expressible(value)))
                for name, value in rendered.items()
                if value
            ),
            b"}\n",
        ]
    )
