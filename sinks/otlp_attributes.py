"""What logroute knows of a record in OpenTelemetry's words: resource, severity, attributes.

OpenTelemetry "Semantic conventions" 1.37 (container, host, k8s, service, log); "Logs data model" (severity).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any

from logroute.router.json_text import nested_text
from logroute.router.record import Origin, Record
from logroute.sinks.encoding import expressible
from logroute.sinks.field_columns import OfColumn, fields_texts
from logroute.sinks.record_json import Known

Attributes = dict[str, Any]
"""Names and values: text, numbers, truths, lists and mappings of such."""
OfOne = Callable[[Attributes], str]
"""What stands there of one record's."""

SCOPE = "logroute"
UID, STREAM = "log.record.uid", "log.iostream"

DEEPEST = 16
"""How many mappings and lists of a value stand in each other; what is deeper is JSON as text. Decoders refuse
more than 100 messages in each other (protobuf for C++, Java and Python, prost), as JSON more than 64 objects
(protobuf for C#), or 128 objects and lists (serde). A mapping is three messages, in JSON three objects and a
list; around a value stand five, or six objects and four lists."""

# Logs data model, "Severity fields" and appendix B (syslog).
SEVERITY_NUMBERS = {
    "trace": 1, "debug": 5, "info": 9, "notice": 10, "warn": 13, "warning": 13, "error": 17, "err": 17,
    "critical": 18, "crit": 18, "alert": 19, "fatal": 21, "emergency": 21, "emerg": 21, "panic": 21,
}  # fmt: skip

_KUBERNETES = {
    "namespace": "k8s.namespace.name",
    "pod": "k8s.pod.name",
    "container": "k8s.container.name",
    "uid": "k8s.pod.uid",
    "node": "k8s.node.name",
}


def resource_attributes(origin: Origin) -> Attributes:
    """Who says it: what is constant for an origin."""
    compose, swarm, kubernetes = origin.compose, origin.swarm, origin.kubernetes
    found: Attributes = {
        "service.name": compose.get("service")
        or swarm.get("service")
        or kubernetes.get("container")
        or origin.name
        or origin.file.rpartition("/")[2]
        or "unknown_service",
        "service.namespace": compose.get("project") or swarm.get("stack") or kubernetes.get("namespace"),
        "service.instance.id": origin.id,
        "host.name": origin.host,
        "container.id": origin.id,
        "container.name": origin.name,
        "container.runtime.name": origin.runtime,
        "log.file.path": origin.file,
    }
    if origin.image:
        found["container.image.name"] = origin.image.name
        if origin.image.tag:
            found["container.image.tags"] = [origin.image.tag]
        if origin.image.digest:
            found["container.image.repo_digests"] = [f"{origin.image.name}@{origin.image.digest}"]
    found |= {name: kubernetes.get(key) for key, name in _KUBERNETES.items()}
    found |= {f"container.label.{key}": value for key, value in origin.labels.items()}
    return {name: value for name, value in found.items() if value not in (None, "")}


def record_attributes(
    fields: Mapping[Any, Any] | None, truncated: bool = False, error: str = ""
) -> Attributes:
    """What a record has beside its line, its stream and its id; its fields keep their names."""
    found: Attributes = {str(name): value for name, value in (fields or {}).items()}
    found.pop(UID, None)
    found.pop(STREAM, None)
    if truncated:
        found["log.record.truncated"] = True
    if error:
        found["exception.message"] = error
    return found


def attributes_of(record: Record) -> Attributes:
    return record_attributes(record.fields, record.truncated, record.error)


def attributes_texts(known: Known, count: int, of_column: OfColumn, of_one: OfOne) -> list[str]:
    """Of each of so many records its attributes, encoded in columns."""
    if not (known.fields or known.truncated or known.errors):
        return [""] * count
    fields: Sequence[Mapping[Any, Any] | None] = known.fields or [None] * count
    if known.truncated or known.errors:
        more = zip(fields, known.truncated or repeat(False), known.errors or repeat(""))  # noqa: B905
        fields = [record_attributes(*each) if each[1] or each[2] else each[0] for each in more]
    return fields_texts(
        fields, {UID, STREAM}.isdisjoint, of_column, lambda each: of_one(record_attributes(each))
    )


def severity(level: str | None) -> int:
    """The number of a level; 0, unspecified, where there is none or nobody knows it."""
    return SEVERITY_NUMBERS.get(level or "", 0)


def simple_type(values: Sequence[Any]) -> type | None:
    """Which one of str, int, float and bool all of them have, as the protocol can have it; else None."""
    kind, *others = {*map(type, values)}
    if others or kind not in (str, int, float, bool):
        return None
    if kind is int and not -(1 << 63) <= min(values) <= max(values) < 1 << 63:
        return None
    return kind


def value_of(value: Any, above: int = 0) -> Any:
    """A value as the protocol can have it: texts, truths, numbers of 64 bits, lists, mappings; not too deep.

    No value makes it fail, and none that it gives is deeper than calls may be.
    """
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, str):
        return expressible(value)
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else str(value)
    if above < DEEPEST and isinstance(value, Mapping):
        return {expressible(str(key)): value_of(below, above + 1) for key, below in value.items()}
    if above < DEEPEST and isinstance(value, list | tuple):
        return [value_of(item, above + 1) for item in value]
    return nested_text(value)
