"""OTLP/HTTP logs: `POST /v1/logs` as protobuf or JSON (OTLP Specification 1.x, "OTLP/HTTP").

A 200 has to be followed by an `ExportLogsServiceResponse`, which may say that some records were rejected: how
many and why, but not which ("Partial Success").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol
from weakref import WeakKeyDictionary

from logroute import __version__
from logroute.config.components import Options
from logroute.router.record import Origin, Record, Stream
from logroute.sinks import DELIVERED, Outcome, Rejected, Retryable, otlp_json, otlp_protobuf
from logroute.sinks.columns import Plain, plain
from logroute.sinks.epoch import epoch_ns
from logroute.sinks.failures import excerpt
from logroute.sinks.field_columns import Detailed, detailed
from logroute.sinks.http_answers import Answer
from logroute.sinks.http_encoding import ProtocolEncoding
from logroute.sinks.otlp_attributes import SCOPE, Attributes, resource_attributes

if TYPE_CHECKING:
    from logroute.router.record import Batch


class OtlpOptions(Options):
    """How records are written for OpenTelemetry."""

    format: Literal["protobuf", "json"] = "protobuf"
    """Which of the protocol's two forms; every receiver knows `protobuf`."""


class Form(Protocol):
    """One of the protocol's two forms: a module."""

    @property
    def content_type(self) -> str: ...

    def plain_records(self, prefix: Mapping[Stream, str], columns: Plain) -> bytes: ...

    def detailed_records(self, columns: Detailed) -> bytes: ...

    def records(self, origin: Origin, given: Sequence[Record], times_ns: Sequence[str]) -> bytes: ...

    def resource_logs(
        self, resource: Attributes, scope: str, version: str, records: Sequence[bytes]
    ) -> Sequence[bytes]: ...

    def request(self, resources: Sequence[Sequence[bytes]]) -> bytes: ...


class OtlpEncoding(ProtocolEncoding):
    """A delivery as one request. Records of one origin share its resource."""

    path = "/v1/logs"
    port = 4318

    def __init__(self, options: OtlpOptions) -> None:
        self._form: Form = otlp_json if options.format == "json" else otlp_protobuf
        self.content_type = self._form.content_type
        self._resources: WeakKeyDictionary[Origin, Attributes] = WeakKeyDictionary()
        self._warning = ""
        """What the last answer said though it rejected nothing, until it is told."""

    def encode(self, batches: Sequence[Batch]) -> bytes:
        records: dict[Origin, list[bytes]] = {}
        for batch in batches:
            if len(batch):
                records.setdefault(batch.origin, []).append(self._records(batch))
        made = [
            self._form.resource_logs(self._resource(origin), SCOPE, __version__, parts)
            for origin, parts in records.items()
        ]
        return self._form.request(made) if made else b""

    def _resource(self, origin: Origin) -> Attributes:
        found = self._resources.get(origin)
        if found is None:
            found = self._resources[origin] = resource_attributes(origin)
        return found

    def _records(self, batch: Batch) -> bytes:
        form, origin = self._form, batch.origin
        if (columns := plain(batch, few=1)) is not None:
            try:
                return form.plain_records(origin.id_prefix, columns)
            except UnicodeEncodeError:  # half of a surrogate pair
                pass
        elif (details := detailed(batch)) is not None:
            try:
                return form.detailed_records(details)
            except UnicodeEncodeError:
                pass
        records = batch.records
        return form.records(origin, records, epoch_ns([record.time for record in records]))

    def outcome(self, answer: Answer, batches: Sequence[Batch]) -> Outcome | None:
        """A success is an `ExportLogsServiceResponse`, which may be empty. What is none is Retryable."""
        if not 200 <= answer.status < 300:
            return None
        try:
            rejected, message = self._partial_success(answer)
        except ValueError as error:
            raise Retryable(f"OTLP does not answer so, {error}; is that its address?") from None
        if rejected <= 0:  # then a message is a warning (OTLP, "Partial Success")
            self._warning = excerpt(message)
            return DELIVERED
        reason = excerpt(message) or "the receiver gives no reason"
        count = sum(map(len, batches))
        if rejected >= count:
            return Outcome(
                [
                    Rejected(index, record, reason)
                    for index, batch in enumerate(batches)
                    for record in batch.records
                ]
            )
        return Outcome(unnamed=rejected, unnamed_reason=reason)

    def take_notes(self) -> Sequence[tuple[str, dict[str, object]]]:
        warning, self._warning = self._warning, ""
        return (("the receiver took the records, and warns", {"reason": warning}),) if warning else ()

    def _partial_success(self, answer: Answer) -> tuple[int, str]:
        """How many records were rejected, and why. Raises ValueError where the answer is no OTLP."""
        if not answer.whole:
            raise ValueError("its body is cut short")
        if not answer.body.strip():
            return 0, ""
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == otlp_protobuf.content_type or (not kind and self._form is otlp_protobuf):
            return _protobuf_partial_success(answer.body)
        given = answer.json()
        partial = given.get("partialSuccess") if isinstance(given, dict) else given
        if partial is None:
            return 0, ""
        if not isinstance(partial, dict):
            raise ValueError("its body is JSON of something else")
        try:
            return int(partial.get("rejectedLogRecords") or 0), str(partial.get("errorMessage") or "")
        except (TypeError, ValueError):
            raise ValueError("its body is JSON of something else") from None


def _protobuf_partial_success(body: bytes) -> tuple[int, str]:
    """`partial_success` (1) with `rejected_log_records` (1) and `error_message` (2)."""
    rejected, message = 0, ""
    for number, partial in otlp_protobuf.fields(body):
        if number != 1 or not isinstance(partial, bytes):
            continue
        for below, value in otlp_protobuf.fields(partial):
            if below == 1 and isinstance(value, int):
                rejected = value if value < 1 << 63 else 0
            elif below == 2 and isinstance(value, bytes):
                message = value.decode("utf-8", "replace")
    return rejected, message
