"""Records, origins, batches: what flows from sources through routes to sinks.

A record is one log line; an origin is who said it, one object per container, shared by all of its
records; a batch is records of one origin with the source's position before and after them. Whatever is
constant for a container is computed once, on its origin.

Nothing here does I/O or awaits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import lt
from typing import Any, ClassVar, Literal, Protocol

import msgspec

from logroute.router.digest import blake2b
from logroute.router.json_text import encodable
from logroute.router.position import Anchor, Position, Reached
from logroute.router.times import COARSE, TIME_LENGTH, ZERO, full_time, short_time

Stream = Literal["stdout", "stderr"]
STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")
NO_STREAMS: frozenset[Stream] = frozenset()
ALL_STREAMS: frozenset[Stream] = frozenset(STREAMS)

# What a record costs beside its text: the Struct, the two str objects' headers, the slot in the list.
RECORD_OVERHEAD_BYTES = 250


class Record(msgspec.Struct, gc=False):
    """One log line.

    A json-file line decodes straight into it (hence the wire names), so the newline that ends `message`
    there, and a time with its zeros trimmed, may still be present in `Batch.lines`; never in
    `Batch.records`, which is what everybody but a source reads.
    """

    message: str = msgspec.field(name="log")
    """The line without the newline that ended it."""
    stream: Stream
    time: str
    """RFC 3339, UTC, nine digits: the engine's time, or the time of reading where there is no engine."""

    # Class attributes, so that the plain record has three fields and decodes fastest; `DetailedRecord`
    # has them as fields.
    sequence: ClassVar[int] = 0
    level: ClassVar[str | None] = None
    fields: ClassVar[dict[str, Any] | None] = None
    truncated: ClassVar[bool] = False
    place: ClassVar[str | None] = None
    part: ClassVar[str] = ""
    logged: ClassVar[str] = ""
    error: ClassVar[str] = ""
    at_root: ClassVar[bool] = False


class DetailedRecord(Record, gc=False):
    """A record of which more is known than its line: made where a source or processor says more."""

    sequence: int = 0  # type: ignore[misc]  # a field here, a constant on the plain record
    """How many records of the same stream with the very same time came before it."""
    level: str | None = None  # type: ignore[misc]
    fields: dict[str, Any] | None = None  # type: ignore[misc]
    truncated: bool = False  # type: ignore[misc]
    """The line was longer than `limits.record`; the rest was discarded and counted."""
    place: str | None = None  # type: ignore[misc]
    """For sources without an engine's time: where it stands, such as a file's fingerprint and the line's
    offset. The stable id."""
    part: str = ""  # type: ignore[misc]
    """`.1`, `.2` … where a processor split a record."""
    logged: str = ""  # type: ignore[misc]
    """The engine's time, where `time` is what the record says of itself. The stable id is made of it."""
    error: str = ""  # type: ignore[misc]
    """What a processor could not make of it."""
    at_root: bool = False  # type: ignore[misc]
    """Its fields belong to the root of its JSON, where that has none of that name."""


def detailed(record: Record) -> DetailedRecord:
    """The same record with room for details: itself if it has, else a copy."""
    if isinstance(record, DetailedRecord):
        return record
    return DetailedRecord(record.message, record.stream, record.time)


def owned_records(records: Sequence[Record], *, copied: bool = True) -> list[Record]:
    """Records with room for details, which may be changed, and so may their `fields`; nothing below these.

    Not `copied`: those that have room already belong to nobody else.
    """
    if all_plain(records):
        return [DetailedRecord(record.message, record.stream, record.time) for record in records]
    return [_owned(record) if copied else detailed(record) for record in records]


def _owned(record: Record) -> DetailedRecord:
    if not isinstance(record, DetailedRecord):
        return detailed(record)
    fields = record.fields
    return msgspec.structs.replace(record, fields=dict(fields) if fields is not None else None)


def all_plain(records: Sequence[Record]) -> bool:
    """Whether nothing is known of any of them but its line."""
    return [*map(type, records)].count(Record) == len(records)


def message_hash(message: str) -> str:
    """8 hex digits that tell messages of the same time apart."""
    return blake2b(message.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


# --- origins ----------------------------------------------------------------------------------------


class Image(msgspec.Struct, frozen=True):
    name: str
    tag: str | None = None
    digest: str | None = None
    """`sha256:…`, where the container was started by it."""

    @classmethod
    @lru_cache(maxsize=1024)
    def parse(cls, reference: str) -> Image:
        """Split `registry:5000/shop/web:1.2@sha256:…` into its parts."""
        name, _, digest = reference.partition("@")
        head, slash, last = name.rpartition("/")
        last, colon, tag = last.partition(":")
        return cls(head + slash + last, tag if colon else None, digest or None)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 10 else None


# Record paths that come from labels the orchestrators set. (path group, key, label)
_COMPOSE = {
    "project": "com.docker.compose.project",
    "service": "com.docker.compose.service",
    "number": "com.docker.compose.container-number",
}
_SWARM = {
    "stack": "com.docker.stack.namespace",
    "service": "com.docker.swarm.service.name",
    "task": "com.docker.swarm.task.name",
    "node": "com.docker.swarm.node.id",
}
_KUBERNETES = {
    "namespace": "io.kubernetes.pod.namespace",
    "pod": "io.kubernetes.pod.name",
    "container": "io.kubernetes.container.name",
    "uid": "io.kubernetes.pod.uid",
}


def _identity(labels: Mapping[str, str], table: Mapping[str, str]) -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    for key, label in table.items():
        value = labels.get(label)
        if not value:
            continue
        if key == "number":
            number = _number(value)
            if number is not None:
                found[key] = number
        else:
            found[key] = value
    return found


class Origin(msgspec.Struct, eq=False, weakref=True):
    """Who said it: a container, or a file that stands for one. One object, shared by all of its records.

    A container that is renamed gets a new origin with the same `key`: the old one's batches keep the name
    that was true when they were read.
    """

    key: str
    """Identity for checkpoints: `docker:<full id>`, `file:<path>`. Never changes."""
    source: str
    """Name of the source in the configuration."""
    id: str = ""
    """Full container id; empty for a file."""
    name: str = ""
    image: Image | None = None
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Of the container's environment what the source was told to show: by itself nothing, for secrets."""
    runtime: str = ""
    """`docker`, `podman`; empty for a file."""
    host: str = ""
    file: str = ""
    """Path of the file, for the file source."""

    truncates: bool = False
    """Some of its records, or what they were made of, had to be truncated; only whoever does so sets it."""
    takers: Any = None
    """What the router knows of this origin: which routes take it. Only the router reads or writes it."""
    start: Any = None
    """Likewise: where a route begins with it that comes later; None: with what comes then."""
    _json: bytes | None = None

    @property
    def compose(self) -> Mapping[str, str | int]:
        """What docker compose says by labels; made anew each time: it is asked for once a route."""
        return _identity(self.labels, _COMPOSE)

    @property
    def swarm(self) -> Mapping[str, str | int]:
        return _identity(self.labels, _SWARM)

    @property
    def kubernetes(self) -> Mapping[str, str | int]:
        return _identity(self.labels, _KUBERNETES)

    @property
    def id_prefix(self) -> dict[Stream, str]:
        """What the stable ids of each stream begin with."""
        start = self.id[:12] or _hash_of_key(self.key)
        return {"stdout": start + "-o", "stderr": start + "-e"}

    @property
    def json(self) -> bytes:
        """The constant part of the JSON record (INTERFACE: container, host, compose …), without braces.

        Encoded once. Begins with no comma and ends without one; empty if nothing is known.
        """
        if self._json is None:
            try:
                self._json = msgspec.json.encode(self.constants())[1:-1]
            except UnicodeEncodeError:
                self._json = msgspec.json.encode(encodable(self.constants()))[
                    1:-1
                ]  # a file's path may be no UTF-8
        return self._json

    def constants(self) -> dict[str, Any]:
        """The constant part of the record as a mapping; what is absent is left out."""
        container: dict[str, Any] = {}
        if self.id:
            container["id"] = self.id
        if self.name:
            container["name"] = self.name
        if self.image:
            image = {"name": self.image.name}
            if self.image.tag:
                image["tag"] = self.image.tag
            if self.image.digest:
                image["digest"] = self.image.digest
            container["image"] = image
        if self.runtime:
            container["runtime"] = self.runtime
        if self.labels:
            # Elasticsearch would make objects of names with dots.
            container["labels"] = _without_dots(self.labels)
        if self.env:
            container["env"] = _without_dots(self.env)
        parts = {
            "container": container,
            "log": {"file": {"path": self.file}} if self.file else {},
            "host": {"name": self.host} if self.host else {},
            "compose": self.compose,
            "swarm": self.swarm,
            "kubernetes": self.kubernetes,
        }
        return {name: part for name, part in parts.items() if part}

    def record_id(self, record: Record) -> str:
        """The stable id of a record (nine-digit time): the same whichever way, and however often, it is read.

        Times that are coarser than a microsecond get the message's hash: many records share them, and
        reading may begin inside such a group.
        """
        if record.place is not None:
            return record.place + record.part
        text = f"{self.id[:12] or _hash_of_key(self.key)}-{record.stream[3]}{record.logged or record.time}"
        if text.endswith(COARSE):
            text = f"{text}-{message_hash(record.message)}"
        if record.sequence:
            text = f"{text}-{record.sequence}"
        return text + record.part


def _without_dots(named: Mapping[str, str]) -> dict[str, str]:
    """The same with `_` for each dot in a name; who has that name already keeps it, others are numbered."""
    found = {name.replace(".", "_"): value for name, value in named.items()}
    if len(found) == len(named):
        return found
    found = {name: value for name, value in named.items() if "." not in name}
    for name in sorted(named.keys() - found.keys()):
        plain = given = name.replace(".", "_")
        number = 1
        while given in found:
            number += 1
            given = f"{plain}_{number}"
        found[given] = named[name]
    return found


@lru_cache(maxsize=1024)
def _hash_of_key(key: str) -> str:
    """What stable ids begin with where there is no container's id: two files may have lines of one time."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


# --- batches ----------------------------------------------------------------------------------------


FURTHEST_BACK = 64
"""How far it is looked back for the last record of a stream."""


class Reader(Protocol):
    """One of the readers of an origin's log."""

    def __hash__(self) -> int: ...

    @property
    def routes(self) -> frozenset[str] | None:
        """The routes, by `key`, that it reads for alone: they are behind. None: it is the live one."""

    @property
    def cheap(self) -> bool:
        """Whether it can be read again later at no cost to anybody: a file."""

    @property
    def position(self) -> Position:
        """Behind what it has read."""


class Batch:
    """Records of one origin, in the order in which they were read, with the positions around them.

    `lines` is what the source gave; `records` the same list made ready (no newline, nine-digit times,
    sequences), once, when somebody first asks: a route to `null:` never pays for it.

    Invariant: the records of one stream in `lines` lie between `before` and `after` of that stream.
    """

    __slots__ = (
        "_ready",
        "_streams",
        "acknowledged",
        "before",
        "lines",
        "newlines",
        "origin",
        "reached",
        "reader",
        "settled",
        "size_bytes",
    )

    def __init__(
        self,
        origin: Origin,
        lines: list[Record],
        *,
        before: Position | Reached,
        after: Position | Reached,
        size_bytes: int,
        newlines: bool = False,
        ready: bool = False,
        acknowledged: Mapping[str, frozenset[Stream]] | None = None,
        reader: Reader | None = None,
        settled: frozenset[Stream] = NO_STREAMS,
        streams: list[Stream] | None = None,
    ) -> None:
        self.origin = origin
        self.lines = lines
        self._streams = streams
        """Of each line, where whoever made the batch has looked; a line is never given another."""
        self.before = before
        self.reached = after
        self.size_bytes = size_bytes
        """Estimate of the memory it holds: text and objects."""
        self.newlines = newlines
        """Every line still ends with its newline."""
        self.acknowledged = acknowledged
        """Streams whose records here a route (by `key`) has already acknowledged: only while catching up."""
        self.reader = reader
        """Who has read it, where a route may fall behind that and be read for apart."""
        self.settled = settled
        """Streams of which nothing comes that could belong to the last record here: whoever waits for more of
        that need not any longer."""
        self._ready = ready

    def __len__(self) -> int:
        """How many records; to ask this makes none of what is in columns."""
        return len(self.lines)

    @property
    def ready(self) -> bool:
        """Whether `lines` are what `records` would give."""
        return self._ready

    @property
    def after(self) -> Position:
        """The source's position behind the records."""
        reached = self.reached
        return reached if isinstance(reached, Position) else reached.position()

    @property
    def began(self) -> Position:
        """The source's position before the records."""
        before = self.before
        return before if isinstance(before, Position) else before.position()

    def last_before(self, stream: Stream) -> Anchor | None:
        """The stream's last record before this batch."""
        before = self.before
        return before.of(stream).anchor if isinstance(before, Position) else before.anchor(stream)

    @property
    def plain(self) -> bool:
        """Whether nothing is known of any of `lines` but what follows here, a column of each."""
        return all_plain(self.lines)

    @property
    def messages(self) -> list[str]:
        return [record.message for record in self.lines]

    @property
    def streams(self) -> list[Stream]:
        return self._streams or [record.stream for record in self.lines]

    @property
    def times(self) -> list[str]:
        return [record.time for record in self.lines]

    @property
    def levels(self) -> Sequence[str | None]:
        return [record.level for record in self.lines]

    @property
    def truncated(self) -> Sequence[bool]:
        return [record.truncated for record in self.lines]

    @property
    def first_time(self) -> str:
        """Of the first of them, of which there is one."""
        return self.lines[0].time

    @property
    def last_time(self) -> str:
        """Of the last of them, of which there is one."""
        return self.lines[-1].time

    @property
    def records(self) -> list[Record]:
        if not self._ready:
            self._make_ready()
        return self.lines

    def plain_times(self) -> list[str] | None:
        """The nine-digit times of lines that still have their newlines, where ids are nothing but times.

        None where that is not so, or not known without looking closely, or a record has details: use
        `records`. This is for an encoder that makes something else of every line anyway, and need not have it
        made ready before.
        """
        if not self.newlines or not len(self) or not self.plain:
            return None
        times = [time if len(time) == TIME_LENGTH else full_time(time) for time in self.times]
        before = [last.time for stream in STREAMS if (last := self.last_before(stream))]
        if max(before, default="") < times[0] and all(map(lt, times, times[1:])):
            return None if COARSE in "".join(times) else times
        return None

    def has_no_sequences(self) -> bool:
        """Whether no record has one, in lines that still have their newlines and are nothing but lines.

        False also where that is not known without looking closely.
        """
        if not self.newlines or not len(self) or not self.plain:
            return False
        times = self.times
        if ZERO in "".join(times):  # the same time may be written in two ways
            return self.plain_times() is not None
        before = [last.time for stream in STREAMS if (last := self.last_before(stream))]
        distinct = set(times)
        return len(distinct) == len(times) and distinct.isdisjoint(map(short_time, before))

    def _make_ready(self) -> None:
        lines = self.lines
        if self.newlines:
            for record in lines:
                record.message = record.message[:-1]
                if len(record.time) != TIME_LENGTH:
                    record.time = full_time(record.time)
            self.newlines = False
        else:
            for record in lines:
                if len(record.time) != TIME_LENGTH:
                    record.time = full_time(record.time)
        self._number_equal_times()
        self._ready = True

    def _number_equal_times(self) -> None:
        """Give the second and further records of a stream with the very same time their sequence."""
        lines = self.lines
        last: dict[Stream, tuple[str, int]] = {}
        for stream in STREAMS:
            before = self.last_before(stream)
            last[stream] = (before.time, before.sequence) if before else ("", 0)
        times = [record.time for record in lines]
        earlier = [time for time, _ in last.values()]
        # Usually they rise, so that none is there twice. Where the two streams overlap, look more closely.
        if times and max(earlier) < times[0] and all(map(lt, times, times[1:])):
            return
        distinct = set(times)
        if len(distinct) == len(times) and distinct.isdisjoint(earlier):
            return
        for index, record in enumerate(lines):
            time, sequence = last[record.stream]
            if record.time == time:
                sequence += 1
                numbered = detailed(record)
                numbered.sequence = sequence
                lines[index] = numbered
            else:
                sequence = 0
            last[record.stream] = (record.time, sequence)

    def made_ready(self, indexes: Sequence[int]) -> list[Record] | None:
        """Copies of some records, ready, of lines that have newlines; these stay what they are.

        None where that cannot be told without looking closely at all of them: use `records`.
        """
        lines = self.lines
        made: list[Record] = []
        for index in indexes:
            record = lines[index]
            stream, time = record.stream, record.time
            full = time if len(time) == TIME_LENGTH else full_time(time)
            # Only one that follows another of its stream at the very same time has a sequence.
            for before in range(index - 1, max(-1, index - 1 - FURTHEST_BACK), -1):
                other = lines[before]
                if other.stream == stream:
                    if other.time == time or (len(other.time) != len(time) and full_time(other.time) == full):
                        return None
                    break
            else:
                last = self.last_before(stream)
                if index > FURTHEST_BACK or (last is not None and last.time == full):
                    return None
            if type(record) is Record:
                made.append(Record(record.message[:-1], stream, full))
            else:
                made.append(msgspec.structs.replace(record, message=record.message[:-1], time=full))
        return made

    def with_records(
        self, records: list[Record], size_bytes: int | None = None, *, newlines: bool = False
    ) -> Batch:
        """This batch holding other records (filtered or changed), with the same positions.

        They are ready, or, where it is said that they have newlines, as these are.
        """
        return Batch(
            self.origin,
            records,
            before=self.before,
            after=self.reached,
            size_bytes=self.size_bytes if size_bytes is None else size_bytes,
            newlines=newlines,
            ready=not newlines,
            settled=self.settled,
        )

    def parted(self, count: int) -> tuple[Batch, Batch]:
        """One of its first so many records, and one of the others, each with its positions, and its size by
        shares. There are some of both."""
        records = self.records
        share = self.size_bytes * count // len(records)
        return (
            self.with_records(records[:count], share),
            self.with_records(records[count:], self.size_bytes - share),
        )

    def with_lines(self, lines: list[Record]) -> Batch:
        """This batch with others in the places of some of its lines, ready or not as these are.

        Nobody may use this one any more, where it is not ready: the same records must not be made so twice.
        """
        return Batch(
            self.origin,
            lines,
            before=self.before,
            after=self.reached,
            size_bytes=self.size_bytes,
            newlines=self.newlines,
            ready=self._ready,
            settled=self.settled,
        )

    def of_streams(self, streams: frozenset[Stream]) -> Batch:
        """Only the records of these streams; itself where that is all of them. May be empty."""
        kept = [record for record in self.lines if record.stream in streams]
        if len(kept) == len(self.lines):
            return self
        # Sequences are counted per stream, so leaving a whole stream out changes none; but two batches
        # must not make the same records ready twice.
        share = self.size_bytes * len(kept) // max(1, len(self.lines))
        if not self._ready:
            self._make_ready()
            kept = [record for record in self.lines if record.stream in streams]
        return self.with_records(kept, share)


def settling(
    origin: Origin, at: Position | Reached, reader: Reader | None, streams: frozenset[Stream] = ALL_STREAMS
) -> Batch:
    """A batch without records: nothing that comes of these streams belongs to what is unfinished there."""
    return Batch(origin, [], before=at, after=at, size_bytes=0, ready=True, reader=reader, settled=streams)


def batch_size_bytes(records: Sequence[Record], text_bytes: int) -> int:
    """What a batch of these records, read from `text_bytes` of log, holds in memory; an estimate."""
    return text_bytes + RECORD_OVERHEAD_BYTES * len(records)


def total_size_bytes(batches: Iterable[Batch]) -> int:
    return sum(batch.size_bytes for batch in batches)


def cut(batches: Iterable[Batch], records: int) -> tuple[list[Batch], list[Batch]]:
    """Batches with the first so many of their records, and those with the others, in order: one that is cut
    in two is in both."""
    first: list[Batch] = []
    others: list[Batch] = []
    missing = records
    for batch in batches:
        count = len(batch.lines)
        if not missing:
            others.append(batch)
        elif count <= missing:
            first.append(batch)
            missing -= count
        else:
            begins, ends = batch.parted(missing)
            first.append(begins)
            others.append(ends)
            missing = 0
    return first, others
