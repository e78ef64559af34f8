"""The paths by which matches and templates name the parts of a record.

One table holds them all. A path is constant for an origin (the container, its labels, who runs it) or per
record (`time`, `message`, `stream`, `level`, `id`, `fields.K`); only the latter cost anything per record.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from logroute.router.record import Origin, Record

OriginGetter = Callable[[Origin], Any]
RecordGetter = Callable[[Origin, Record], Any]


class Path(msgspec.Struct, frozen=True):
    """A path with the way to its value. The value of what is absent is None."""

    name: str
    of_origin: OriginGetter | None
    """How to get it where it is constant for an origin; None where it is per record."""
    of_record: RecordGetter
    """How to get it in any case."""

    @property
    def constant(self) -> bool:
        """Whether all records of an origin have the same value."""
        return self.of_origin is not None


class UnknownPath(ValueError):
    """No such path; the text suggests the nearest one."""

    def __init__(self, name: str, what: str = "path", also: Iterable[str] = ()) -> None:
        near = suggestion(name, also)
        hint = f'; did you mean "{near}"?' if near else ""
        super().__init__(f'unknown {what} "{name}"{hint}')


def path(name: str) -> Path:
    """The path of that name. Raises UnknownPath."""
    if found := PATHS.get(name):
        return found
    group, _, key = name.partition(".")
    if key and group == "label":
        return _constant(name, lambda origin: origin.labels.get(key))
    if key and group == "env":
        return _constant(name, lambda origin: origin.env.get(key))
    if key and group == "fields":
        return _per_record(name, _field(key))
    raise UnknownPath(name)


def suggestion(name: str, also: Iterable[str] = ()) -> str | None:
    """The path (or one of `also`) that was probably meant."""
    known = [*PATHS, *OPEN_GROUPS, *also]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    # `labels.tier` means `label.tier`; `conatiner.nmae` is caught above.
    group, dot, key = name.partition(".")
    groups = difflib.get_close_matches(group, OPEN_GROUPS, n=1, cutoff=0.6)
    if dot and key and groups and groups[0] != group:
        return f"{groups[0]}.{key}"
    return near[0] if near and near[0] != name else None


def image_reference(origin: Origin) -> str | None:
    """`name:tag@digest` as the container was started with."""
    image = origin.image
    if image is None:
        return None
    tag = f":{image.tag}" if image.tag else ""
    return f"{image.name}{tag}@{image.digest}" if image.digest else image.name + tag


def _constant(name: str, get: OriginGetter) -> Path:
    return Path(name, get, lambda origin, _: get(origin))


def _per_record(name: str, get: RecordGetter) -> Path:
    return Path(name, None, get)


def _identity(group: str, key: str) -> Path:
    """A key of what an orchestrator says: `compose`, `swarm`, `kubernetes` are mappings on the origin."""
    return _constant(f"{group}.{key}", lambda origin: getattr(origin, group).get(key))


def _field(key: str) -> RecordGetter:
    """A field by its whole name, dots included, or else by descending into objects."""
    steps = key.split(".")

    def get(_: Origin, record: Record) -> Any:
        value: Any = record.fields
        if value is None:
            return None
        if key in value:
            return value[key]
        for step in steps:
            value = value.get(step) if isinstance(value, dict) else None
        return value

    return get


_IDENTITIES = {
    "compose": ("project", "service", "number"),
    "swarm": ("stack", "service", "task", "node"),
    "kubernetes": ("namespace", "pod", "container", "node", "uid"),
}

PATHS: dict[str, Path] = {
    path.name: path
    for path in (
        _per_record("time", lambda _, record: record.time),
        _per_record("message", lambda _, record: record.message),
        _per_record("stream", lambda _, record: record.stream),
        _per_record("level", lambda _, record: record.level),
        _per_record("id", lambda origin, record: origin.record_id(record)),
        _constant("host.name", lambda origin: origin.host or None),
        _constant("source", lambda origin: origin.source or None),
        _constant("container.id", lambda origin: origin.id or None),
        _constant("container.name", lambda origin: origin.name or None),
        _constant("container.image", image_reference),
        _constant("container.image.digest", lambda origin: origin.image.digest if origin.image else None),
        _constant("container.runtime", lambda origin: origin.runtime or None),
        _constant("log.file.path", lambda origin: origin.file or None),
        *(_identity(group, key) for group, keys in _IDENTITIES.items() for key in keys),
    )
}
"""Every path but `label.K`, `env.K` and `fields.K`, whose names are the user's."""

OPEN_GROUPS = ("label", "env", "fields")
