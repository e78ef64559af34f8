"""Elasticsearch's own client, for hosts, authentication and TLS. Imported only where there is such a sink."""

from __future__ import annotations

import math
import time
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

import trio
from elastic_transport import (
    ApiError,
    ApiResponseMeta,
    BaseAsyncNode,
    ConnectionError,
    HttpHeaders,
    NodeConfig,
    Serializer,
    TransportError,
)
from elastic_transport.client_utils import basic_auth_to_header
from elasticsearch import AsyncElasticsearch

from logroute.sinks import Retryable
from logroute.sinks._http_client import HttpClient
from logroute.sinks.elasticsearch_bulk import FILTER, SHORT_BYTES
from logroute.sinks.failures import excerpt
from logroute.sinks.http_answers import Answer
from logroute.sinks.http_proxies import proxy_for
from logroute.sinks.tls import client_context

if TYPE_CHECKING:
    from logroute.sinks.elasticsearch import ElasticsearchOptions

BULK_HEADERS = {"content-type": "application/x-ndjson", "accept": "application/json"}
"""What versions 7, 8, 9 and OpenSearch all take; the client's own types name a version, which some refuse."""
JSON_HEADERS = {"content-type": "application/json", "accept": "application/json"}


CONNECTIONS = 8

_TYPE = "application/json"
"""What each answer is to the library, which hands on its bytes as they are."""


class _Request(NamedTuple):
    """What goes through the library in the place of a body."""

    body: bytes
    answer_bytes: int
    """An answer has fewer; one that has not is none."""


class _Response(NamedTuple):
    meta: ApiResponseMeta
    body: bytes


class _Node(BaseAsyncNode):
    """One host, asked by our own client: a cancelled request leaves nothing open there."""

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        self._http = HttpClient(
            config.ssl_context,
            proxy_for(self.base_url),
            connections=config.connections_per_node,
            answer_s=math.inf,
        )

    async def perform_request(  # type: ignore[override]  # as every node that does not block
        self,
        method: str,
        target: str,
        body: Any = None,
        headers: HttpHeaders | None = None,
        request_timeout: Any = None,
    ) -> Any:
        began = time.perf_counter()
        given = {**dict(self._headers), **dict(headers or {})}
        try:
            answer = await self._ask(method, self.base_url + target, given, body)
        except Retryable as error:
            raise ConnectionError(str(error), errors=(error,)) from error
        meta = ApiResponseMeta(
            node=self.config,
            duration=time.perf_counter() - began,
            http_version="1.1",
            status=answer.status,
            # The library reads no answer of a type that it has no serializer for, and would hide its status.
            headers=HttpHeaders({**answer.headers, "content-type": _TYPE}),
        )
        return _Response(meta, answer.body)

    async def _ask(self, method: str, url: str, headers: dict[str, str], request: _Request) -> Answer:
        """Raises Retryable, also where it goes on and on: a host that does so is left alone for a while."""
        answer = await self._http.ask(method, url, headers, request.body, request.answer_bytes)
        most = request.answer_bytes
        if answer.status == 200 and len(answer.body) >= most:
            said = excerpt(answer.body)
            raise Retryable(f"what answers is no Elasticsearch: {most} bytes and more, {said}")
        return answer

    async def close(self) -> None:  # type: ignore[override]
        await self._http.close()


class _Bytes(Serializer):
    """Bodies as they are: we encode requests, and look at answers, ourselves."""

    def loads(self, data: bytes) -> bytes:
        return data

    def dumps(self, data: Any) -> Any:
        return data


class Client:
    """Asks one of the hosts after the other; one that failed is left alone for a while."""

    def __init__(self, client: AsyncElasticsearch, where: str, options: ElasticsearchOptions) -> None:
        self._client = client
        self._where = where
        # The client puts these into what goes through its own API only.
        own = {name.lower(): value for name, value in options.headers.items()}
        self._own = {**own, **authorization(options)}
        self._headers = dict(BULK_HEADERS)
        if options.compress == "gzip":
            self._headers["content-encoding"] = "gzip"
        self._pipeline = f"&pipeline={quote(options.pipeline, safe='')}" if options.pipeline else ""

    @classmethod
    async def of(cls, options: ElasticsearchOptions, where: str) -> Client:
        """Raises Retryable where a file of TLS cannot be read."""
        secure = options.cloud_id is not None or any(host.startswith("https:") for host in options.hosts)
        context = await client_context(options.tls) if secure else None
        more: dict[str, Any] = {}
        if context is not None:
            more["ssl_context"] = context
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client = AsyncElasticsearch(
                None if options.cloud_id else [_with_port(host) for host in options.hosts],
                cloud_id=options.cloud_id,
                node_class=_Node,
                connections_per_node=CONNECTIONS,
                max_retries=0,
                retry_on_timeout=False,
                request_timeout=None,
                meta_header=False,
                serializers={_TYPE: _Bytes(), "application/x-ndjson": _Bytes()},
                **more,
            )
        return cls(client, where, options)

    async def bulk(self, index: str, body: bytes, *, answer_bytes: int, pipeline: bool) -> Answer:
        """Raises Retryable without an answer, or with one of more bytes; cancelled, closes the connection."""
        path = f"/{quote(index, safe='')}/_bulk" if index else "/_bulk"
        passing = self._pipeline if pipeline else ""
        target = f"{path}?filter_path={FILTER}{passing}"
        return await self.ask("POST", target, body, self._headers, answer_bytes)

    async def ask(
        self, method: str, target: str, body: bytes, headers: dict[str, str], answer_bytes: int = SHORT_BYTES
    ) -> Answer:
        """One request. Raises Retryable."""
        try:
            response = await self._client.transport.perform_request(
                method,
                target,
                body=_Request(body, answer_bytes),
                headers={**self._own, **headers},
                max_retries=0,
            )
        except (TransportError, ApiError) as error:
            raise Retryable(f"{self._where}: {_reason(error)}") from error
        found = response.body
        data = found if isinstance(found, bytes) else str(found).encode() if found is not None else b""
        meta = response.meta
        return Answer(meta.status, {name.lower(): value for name, value in meta.headers.items()}, data)

    async def close(self) -> None:
        with trio.CancelScope(shield=True), trio.move_on_after(1.0):
            await self._client.close()


def authorization(options: ElasticsearchOptions) -> dict[str, str]:
    """The header that says who we are; none where nothing is said."""
    auth = options.auth
    if auth.username is not None:
        return {"authorization": basic_auth_to_header((auth.username, auth.password or ""))}
    if auth.api_key is not None:
        return {"authorization": f"ApiKey {auth.api_key}"}
    return {"authorization": f"Bearer {auth.bearer}"} if auth.bearer is not None else {}


def _reason(error: Exception) -> str:
    """What our own client said, or the library."""
    return str(error.__cause__) if isinstance(error.__cause__, Retryable) else excerpt(str(error))


def _with_port(host: str) -> str:
    """The client wants a port, whatever the scheme."""
    parts = urlsplit(host)
    return host if parts.port is not None else parts._replace(netloc=f"{parts.netloc}:9200").geturl()
