"""Elasticsearch sink, and OpenSearch: each record becomes one document, exactly once, by its stable id.

Owns the client, which knows hosts, their states and TLS; batching, retries and deadlines are the router's.
See docs/elasticsearch.md.
"""

from __future__ import annotations

import base64
import re
import time
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from urllib.parse import SplitResult, unquote, urlsplit
from weakref import WeakKeyDictionary

import msgspec
import trio
from pydantic import Field, ValidationInfo, field_validator, model_validator

from logroute.config.components import SINKS, Options
from logroute.config.types import Alternative, Secret
from logroute.config.uri import shown
from logroute.router.template import BoundTemplate, Template
from logroute.sinks import (
    DELIVERED,
    Outcome,
    Postponed,
    Refused,
    Rejected,
    Retryable,
    Sink,
    SinkContext,
    SinkOptions,
    SinkStatistics,
)
from logroute.sinks.elasticsearch_bulk import (
    BulkError,
    Verdict,
    answer_bytes,
    escape_index,
    legal_index,
    operations,
    verdict,
)
from logroute.sinks.http_headers import OURS, checked_headers, is_value
from logroute.sinks.tls import TlsOptions

if TYPE_CHECKING:
    from logroute.router.record import Batch, Origin
    from logroute.sinks._elasticsearch_client import Client
    from logroute.sinks.http_answers import Answer

TRUNCATED = " [truncated]"
LONGEST_CHARACTERS = 8192
"""So much of a text is in `dead_letter_index` where all of it is too large for a request."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?")
_ID = re.compile(r"[A-Za-z0-9._-]+")


class AuthOptions(Options):
    """Who we are to Elasticsearch. One of a user, a key and a token; keep secrets in files: `${file:…}`."""

    username: str | None = Field(default=None, examples=["logroute"])
    """User, with `password`."""
    password: Annotated[str | None, Secret()] = Field(default=None, repr=False, examples=["a-secret"])
    """Their password."""
    api_key: Annotated[str | None, Alternative(), Secret()] = Field(
        default=None, repr=False, examples=["bG9ncm91dGU6c2VjcmV0"]
    )
    """An API key as it was given out, encoded. One that may only write (`create_doc`, and `auto_configure` or
    `create_index` where indices are not made beforehand) is enough."""
    bearer: Annotated[str | None, Alternative(), Secret()] = Field(
        default=None, repr=False, examples=["a-token"]
    )
    """A token."""

    # None of these texts shows a value: it may be a secret.

    @field_validator("username", "password")
    @classmethod
    def _basic_authentication_can_say_it(cls, text: str | None, info: ValidationInfo) -> str | None:
        """It is sent as UTF-8 in base64, whatever it is (RFC 7617, 2 and 2.1)."""
        if text is not None and _CONTROLS.search(text):
            raise ValueError("has control characters")
        if text is not None and ":" in text and info.field_name == "username":
            raise ValueError("has a colon: there the password begins")
        return text

    @field_validator("api_key", "bearer")
    @classmethod
    def _headers_can_say_it(cls, text: str | None) -> str | None:
        if text is not None and not (text.strip() and is_value(text)):
            raise ValueError("is empty, or has characters that no header may have")
        return text and text.strip()

    @model_validator(mode="after")
    def _one_of_them(self) -> AuthOptions:
        if (self.username is None) != (self.password is None):
            raise ValueError("`username` and `password` belong together")
        if sum(each is not None for each in (self.username, self.api_key, self.bearer)) > 1:
            raise ValueError("only one of `username`, `api_key` and `bearer` can be used")
        return self


class ElasticsearchOptions(SinkOptions):
    """Make documents of records in Elasticsearch (7.17 and newer) or OpenSearch."""

    type: Literal["elasticsearch"] = "elasticsearch"
    hosts: list[str] = Field(default=[], examples=[["https://es1:9200", "https://es2:9200"]])
    """Nodes of the cluster, as URLs; the port is 9200 by default."""
    cloud_id: Annotated[str | None, Alternative()] = Field(
        default=None, examples=["name:ZXUtd2VzdC0xLmF3cy5mb3VuZC5pbyQ0ZmE4ODIxZTc1NjM0MDMy"]
    )
    """Of a deployment in Elastic Cloud, instead of `hosts`."""
    index: str = Field(
        default="logroute-{time:%Y.%m.%d}", examples=["logs-{compose.project|none}-{time:%Y.%m.%d}"]
    )
    """Index, or data stream, that a record goes to: a template. Its time is the record's own, so that one
    that is sent again goes to the same. Values become small letters without anything special."""
    pipeline: str | None = Field(default=None, examples=["geoip"])
    """Ingest pipeline that documents pass."""
    dead_letter_index: str | None = Field(default=None, examples=["logroute-rejected"])
    """Index for records that are rejected, as text with the reason; they count as rejected all the same.
    Default: the route's dead letters."""
    compress: Literal["none", "gzip"] = "none"
    """Compress the requests."""
    headers: Annotated[dict[str, str], Secret()] = Field(default={}, examples=[{"X-Tenant": "shop"}])
    """Further headers of each request. Keep secrets in files: `"${file:/run/secrets/key}"`."""
    auth: AuthOptions = AuthOptions.model_construct()
    tls: TlsOptions = TlsOptions.model_construct()

    @field_validator("hosts")
    @classmethod
    def _hosts_are_urls(cls, hosts: list[str]) -> list[str]:
        for host in hosts:
            try:
                parts = urlsplit(host)
                name, _ = parts.hostname, parts.port
            except ValueError as error:
                raise ValueError(f"{shown(host)!r} is no URL") from error
            if parts.scheme not in ("http", "https") or not name:
                raise ValueError(f"{shown(host)!r} is no URL such as https://es1:9200")
            if "@" in parts.netloc:
                raise ValueError(f"{shown(host)!r} has a user: say it under `auth`")
            if parts.query or parts.fragment or not host.isprintable() or " " in host:
                raise ValueError(f"{shown(host)!r} has something behind the path")
        return hosts

    @field_validator("cloud_id")
    @classmethod
    def _cloud_id_is_one(cls, text: str | None) -> str | None:
        if text and not _names_a_host(text):
            raise ValueError(
                "is no Cloud ID: the name of the deployment, a colon, and in base64 a host, a $ and an id, "
                "such as name:ZXUtd2VzdC0xLmF3cy5mb3VuZC5pbyQ0ZmE4ODIxZTc1NjM0MDMy"
            )
        return text

    @field_validator("headers")
    @classmethod
    def _headers_are_some(cls, headers: dict[str, str]) -> dict[str, str]:
        return checked_headers(headers, OURS | {"accept", "content-type"})

    @field_validator("index", "dead_letter_index")
    @classmethod
    def _index_is_one(cls, text: str | None) -> str | None:
        if text is None:
            return None
        template = Template.parse(text)
        literal = "".join([part for part in template.parts if isinstance(part, str)])
        if not template.parts:
            raise ValueError("must not be empty")
        if literal != escape_index(literal):
            raise ValueError('an index has small letters, and no spaces or any of " # * , / : < > ? \\ |')
        if literal and isinstance(template.parts[0], str) and literal[0] in "-_+.":
            raise ValueError("no index begins with -, _, + or a dot")
        return text

    @model_validator(mode="after")
    def _one_authorization(self) -> ElasticsearchOptions:
        if self.auth != AuthOptions() and "authorization" in {name.lower() for name in self.headers}:
            raise ValueError("`headers` an Authorization, and `auth` another: only one can be sent")
        return self

    @model_validator(mode="after")
    def _where_to(self) -> ElasticsearchOptions:
        if bool(self.hosts) == bool(self.cloud_id):
            raise ValueError("give `hosts` or `cloud_id`" + (", not both" if self.hosts else ""))
        return self


def _names_a_host(cloud_id: str) -> bool:
    """Whether it has the form `NAME:BASE64`, of a host, its port if it is not 443, and ids behind each `$`.

    As the client reads it; there is no other description of it.
    """
    _, _, encoded = cloud_id.partition(":")
    try:
        parts = base64.b64decode(encoded, validate=True).decode("ascii").split("$")
    except ValueError:
        return False
    return len(parts) > 1 and bool(_HOST.fullmatch(parts[0]) and _ID.fullmatch(parts[1]))


class ElasticsearchStatistics(SinkStatistics, frozen=True):
    """A snapshot of an Elasticsearch sink."""

    events: ClassVar[tuple[str, ...]] = ("requests",)
    requests: int
    created: int
    already_there: int
    rejected: int


@SINKS.register(ElasticsearchOptions)
class ElasticsearchSink(Sink[ElasticsearchOptions]):
    """Several requests under way; an answer is heeded record by record."""

    ordered = False
    concurrency = 2
    batch_bytes = 4 << 20
    batch_records = 10_000
    batch_wait_s = 0.2

    def __init__(self, options: ElasticsearchOptions, context: SinkContext) -> None:
        super().__init__(options, context)
        self._index = Template.parse(options.index)
        self._bound: WeakKeyDictionary[Origin, BoundTemplate] = WeakKeyDictionary()
        self._where = (
            ", ".join(options.hosts) or f"the deployment {(options.cloud_id or '').partition(':')[0]}"
        )
        self._client: Client | None = None
        self._requests = self._created = self._there = self._rejected = 0

    @classmethod
    def options_from_uri(cls, uri: SplitResult, query: dict[str, Any]) -> dict[str, Any]:
        if "hosts" in query or "cloud_id" in query:
            raise ValueError("the URI is the host, `hosts` and `cloud_id` are no parameters")
        user_info, at, netloc = uri.netloc.rpartition("@")
        scheme = uri.scheme.partition("+")[2] or "https"
        if scheme not in ("http", "https"):
            raise ValueError(
                f'no transport "{scheme}"; there are elasticsearch+https:// and elasticsearch+http://'
            )
        found: dict[str, Any] = {"hosts": [f"{scheme}://{netloc}"], **query}
        if index := uri.path.strip("/"):
            if "index" in query:
                raise ValueError("the path is the index, `index` is no parameter")
            found["index"] = unquote(index)
        if at:
            user, _, password = user_info.partition(":")
            found["auth"] = {
                **query.get("auth", {}),
                "username": unquote(user),
                "password": unquote(password),
            }
        return found

    def statistics(self) -> ElasticsearchStatistics:
        return ElasticsearchStatistics(self._requests, self._created, self._there, self._rejected)

    async def open(self) -> None:
        await self.close()
        from logroute.sinks._elasticsearch_client import Client

        self._client = await Client.of(self.options, self._where)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        parts = self._by_index([batch for batch in batches if len(batch)])
        if not parts:
            return DELIVERED
        names = {name for name, _ in parts}
        index = next(iter(names)) if len(names) == 1 else ""
        body = b"".join([operations(batch, "" if index else name) for name, batch in parts])
        count = sum(len(batch) for _, batch in parts)
        try:
            answer, found = await self._bulk(index, body, count)
        except Refused as error:
            if count > 1 or self.options.dead_letter_index is None:
                raise
            batch = next(number for number, each in enumerate(batches) if len(each))
            return await self._too_large(Rejected(batch, batches[batch].records[0], str(error)), batches)
        left = len(found.rejected) + len(found.postponed)
        created = count - left - found.duplicates
        self._created += created
        self._there += found.duplicates
        if created or found.duplicates:
            there = f", {found.duplicates:,} there already" if found.duplicates else ""
            self.answer = f"{answer.named_status}, {created:,} created{there}"
        if not left:
            return Outcome(duplicates=found.duplicates) if found.duplicates else DELIVERED
        return await self._outcome(found, parts, batches, answer)

    # --- one request --------------------------------------------------------------------------------------

    async def _bulk(
        self, index: str, body: bytes, count: int, *, pipeline: bool = True
    ) -> tuple[Answer, Verdict]:
        """The answer to so many operations, and what it says. Raises Retryable or Refused."""
        if self._client is None:
            await self.open()
        assert self._client is not None
        self._requests += 1
        sent = body
        if self.options.compress == "gzip":  # milliseconds in which others want to go on
            body = await trio.to_thread.run_sync(_gzip, body, abandon_on_cancel=True)
        most = answer_bytes(sent, count)
        answer = await self._client.bulk(index, body, answer_bytes=most, pipeline=pipeline)
        if answer.status == 200:
            try:
                return answer, verdict(answer.body, count, sent)
            except BulkError as error:
                raise Retryable(f"{self._where} {error}") from error
        said = f"{self._where} answered {answer}"
        if answer.status == 413:
            raise Refused(said)
        if answer.status in (401, 403):
            said += "; what `auth` says is not accepted, or may not write there: trying again"
        raise Retryable(said, after_s=answer.after_s(time.time()))

    async def _outcome(
        self, found: Verdict, parts: Sequence[tuple[str, Batch]], batches: Sequence[Batch], answer: Answer
    ) -> Outcome:
        """Of numbers of records the records themselves, each with the batch that it came in."""
        rejected: list[Rejected] = []
        postponed: list[Postponed] = []
        place = {id(batch.origin): number for number, batch in enumerate(batches)}
        number = 0
        for index, part in parts:
            batch = next((i for i, each in enumerate(batches) if each is part), place[id(part.origin)])
            records = part.records
            for offset in range(len(records)):
                if (failure := found.rejected.get(number + offset)) is not None:
                    rejected.append(Rejected(batch, records[offset], str(failure)))
                elif (failure := found.postponed.get(number + offset)) is not None:
                    reason = f"{self._where}: index {index}: {failure}"
                    postponed.append(Postponed(batch, records[offset], reason))
            number += len(records)
        if rejected and self.options.dead_letter_index is not None:
            rejected, later = await self._bury(rejected, batches)
            postponed += later
        self._rejected += len(rejected)
        return Outcome(tuple(rejected), tuple(postponed), found.duplicates, answer.after_s(time.time()))

    async def _too_large(self, rejected: Rejected, batches: Sequence[Batch]) -> Outcome:
        """A record that no request can hold."""
        done, later = await self._bury_beginning(rejected, batches)
        self._rejected += len(done)
        return Outcome(tuple(done), tuple(later))

    async def _bury(
        self, rejected: list[Rejected], batches: Sequence[Batch]
    ) -> tuple[list[Rejected], list[Postponed]]:
        """Put rejected records into the index for them. What it does not take is a dead letter of the route.

        Where it takes nothing now they are postponed, and rejected anew: what else the delivery held is done.
        """
        letters = b"".join([self._letter(each, batches) for each in rejected])
        try:
            _, found = await self._bulk("", letters, len(rejected), pipeline=False)
        except Refused:  # they are larger with their reasons
            if len(rejected) == 1:
                return await self._bury_beginning(rejected[0], batches)
            half = len(rejected) // 2
            first, second = [await self._bury(part, batches) for part in (rejected[:half], rejected[half:])]
            return first[0] + second[0], first[1] + second[1]
        except Retryable as error:
            return [], [_later(each, error) for each in rejected]
        done: list[Rejected] = []
        later: list[Postponed] = []
        for number, each in enumerate(rejected):
            if (failure := found.postponed.get(number)) is not None:
                later.append(_later(each, f"{self._where}: {failure}"))
            elif number in found.rejected:
                done.append(each)
            else:
                done.append(Rejected(each.batch, each.record, each.reason, kept=True))
        return done, later

    async def _bury_beginning(
        self, rejected: Rejected, batches: Sequence[Batch]
    ) -> tuple[list[Rejected], list[Postponed]]:
        """Likewise the beginning of one that no request can hold, which is a dead letter of the route too."""
        letter = self._letter(rejected, batches, LONGEST_CHARACTERS)
        try:
            _, found = await self._bulk("", letter, 1, pipeline=False)
        except Refused:
            return [rejected], []
        except Retryable as error:
            return [], [_later(rejected, error)]
        if (failure := found.postponed.get(0)) is not None:
            return [], [_later(rejected, f"{self._where}: {failure}")]
        return [rejected], []

    def _letter(self, rejected: Rejected, batches: Sequence[Batch], longest: int | None = None) -> bytes:
        """An operation that creates a document of it: as text, because of that nothing else can be made."""
        from logroute.sinks.record_json import encode_json

        origin, record = batches[rejected.batch].origin, rejected.record
        template = Template.parse(self.options.dead_letter_index or "")
        index = legal_index(template.bind(origin, escape_index).render(record))
        original = encode_json(origin, [record]).decode().rstrip("\n")
        document = {
            "@timestamp": record.time,
            # What UTF-8 cannot express (half of a surrogate pair) is replaced, as everywhere.
            "message": _beginning(record.message.encode("utf-8", "replace").decode(), longest),
            "error": {"message": rejected.reason},
            "event": {"id": origin.record_id(record), "original": _beginning(original, longest)},
        }
        target = {"create": {"_index": index, "_id": origin.record_id(record)}}
        return msgspec.json.encode(target) + b"\n" + msgspec.json.encode(document) + b"\n"

    # --- indices --------------------------------------------------------------------------------------------

    def _by_index(self, batches: Sequence[Batch]) -> list[tuple[str, Batch]]:
        """Batches with the index that they go to; divided where their records go to several."""
        parts: list[tuple[str, Batch]] = []
        for batch in batches:
            bound = self._bound.get(batch.origin)
            if bound is None:
                bound = self._bound[batch.origin] = self._index.bind(batch.origin, escape_index)
            if bound.constant is not None:
                parts.append((legal_index(bound.constant), batch))
                continue
            divided = bound.split(batch.records)
            if len(divided) == 1:
                parts.append((legal_index(divided[0][0]), batch))
                continue
            size = batch.size_bytes // len(batch)
            parts += [
                (legal_index(name), batch.with_records(list(records), size * len(records)))
                for name, records in divided
            ]
        return parts


def _gzip(body: bytes) -> bytes:
    return zlib.compress(body, level=1, wbits=zlib.MAX_WBITS | 16)


def _later(rejected: Rejected, reason: object) -> Postponed:
    return Postponed(rejected.batch, rejected.record, f"dead_letter_index: {reason}")


def _beginning(text: str, longest: int | None) -> str:
    return text if longest is None or len(text) <= longest else text[:longest] + TRUNCATED
