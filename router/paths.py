"""The paths by which matches and templates name parts of a record.

A path is constant for an origin (the container, its labels, who runs it) or per record (`time`, `message`,
`stream`, `level`, `id`, `fields.K`). Only the latter cost anything per record.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from logroute.router.record import Origin, Record

Value = str | int | float | bool | None

ORIGIN: dict[str, Callable[[Origin], Value]] = {
    "host.name": lambda o: o.host or None,
    "source": lambda o: o.source or None,
    "container.id": lambda o: o.id or None,
    "container.name": lambda o: o.name or None,
    "container.image": lambda o: image_reference(o) or None,
    "container.runtime": lambda o: o.runtime or None,
    "log.file.path": lambda o: o.file or None,
    **{f"compose.{k}": lambda o, k=k: o.compose.get(k) for k in ("project", "service", "number")},  # type: ignore[misc]
    **{f"swarm.{k}": lambda o, k=k: o.swarm.get(k) for k in ("stack", "service", "task", "node")},  # type: ignore[misc]
    **{
        f"kubernetes.{k}": lambda o, k=k: o.kubernetes.get(k)  # type: ignore[misc]
        for k in ("namespace", "pod", "container", "node", "uid")
    },
}

RECORD: dict[str, Callable[[Origin, Record], Any]] = {
    "time": lambda _, r: r.time,
    "message": lambda _, r: r.message,
    "stream": lambda _, r: r.stream,
    "level": lambda _, r: r.level,
    "id": lambda o, r: o.record_id(r),
}


class UnknownPath(ValueError):
    """No such path; the text suggests the nearest one."""

    def __init__(self, path: str, known: list[str]) -> None:
        near = difflib.get_close_matches(path, known, n=1, cutoff=0.5)
        super().__init__(f"unknown path {path!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def known_paths() -> list[str]:
    return [*RECORD, *ORIGIN, "label.", "fields."]


def image_reference(origin: Origin) -> str:
    """`name:tag` as the container was started with; a digest stands behind an `@`."""
    image = origin.image
    if image is None:
        return ""
    if image.tag is None:
        return image.name
    return f"{image.name}{'@' if ':' in image.tag else ':'}{image.tag}"


def origin_getter(path: str) -> Callable[[Origin], Value] | None:
    """How to get a path that is constant for an origin; None if it is known but per record.

    Raises UnknownPath.
    """
    if getter := ORIGIN.get(path):
        return getter
    if path.startswith("label.") and len(path) > 6:
        name = path[6:]
        return lambda origin: origin.labels.get(name)
    if path in RECORD or (path.startswith("fields.") and len(path) > 7):
        return None
    raise UnknownPath(path, known_paths())


def record_getter(path: str) -> Callable[[Origin, Record], Any]:
    """How to get any path. Raises UnknownPath."""
    if path in RECORD:
        return RECORD[path]
    if path.startswith("fields.") and len(path) > 7:
        keys = path[7:].split(".")
        whole = path[7:]

        def field(_: Origin, record: Record) -> Any:
            value: Any = record.fields
            if value is not None and whole in value:
                return value[whole]
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            return value

        return field
    getter = origin_getter(path)
    assert getter is not None
    return lambda origin, _: getter(origin)
