"""The index template that fits our records: what may be searched, and what no container can blow up.

Times are `date_nanos`. What strangers name freely, labels and fields, is one `flattened` field each: however
many names there are, they make one entry in the mapping.
"""

from __future__ import annotations

from typing import Any

from logroute.router.template import Template

IGNORE_ABOVE = 8191
"""Characters of a term that is indexed: Lucene takes no more than 32,766 bytes, four for a character."""
PRIORITY = 200
"""Above Elasticsearch's own templates (100), which else would win for `logs-*`."""

_KEYWORD = {"type": "keyword", "ignore_above": IGNORE_ABOVE}


def pattern_of(index: str) -> str:
    """What all names begin with that a template makes, and `*`. Raises ValueError where that is nothing."""
    template = Template.parse(index)
    head = template.literal_head
    if len(template.parts) == 1 and head:
        return head
    if not head.strip("-_."):
        raise ValueError(f"{index!r} begins with nothing of its own: say which indices are meant")
    return f"{head}*"


def index_template(
    patterns: list[str], *, opensearch: bool = False, data_stream: bool = False
) -> dict[str, Any]:
    """The body of `PUT _index_template/NAME`."""
    open_: dict[str, Any] = {"type": "flattened", "ignore_above": IGNORE_ABOVE, "depth_limit": 20}
    if opensearch:
        open_ = {"type": "flat_object"}
    words = {"type": "text", "norms": False}
    properties: dict[str, Any] = {
        "@timestamp": {"type": "date_nanos"},
        "message": words,
        "stream": _KEYWORD,
        "log": _object(level=_KEYWORD, truncated={"type": "boolean"}, file=_object(path=_KEYWORD)),
        "fields": open_,
        "error": _object(message=words),
        "event": _object(
            id=_KEYWORD,
            created={"type": "date_nanos"},
            original={"type": "keyword", "index": False, "doc_values": False},
        ),
        "container": _object(
            id=_KEYWORD,
            name=_KEYWORD,
            runtime=_KEYWORD,
            image=_object(name=_KEYWORD, tag=_KEYWORD, digest=_KEYWORD),
            labels=open_,
            env=open_,
        ),
        "host": _object(name=_KEYWORD),
        "compose": _object(project=_KEYWORD, service=_KEYWORD, number={"type": "integer"}),
        "swarm": _object(**dict.fromkeys(("stack", "service", "task", "node"), _KEYWORD)),
        "kubernetes": _object(**dict.fromkeys(("namespace", "pod", "container", "node", "uid"), _KEYWORD)),
    }
    body: dict[str, Any] = {
        "index_patterns": patterns,
        "priority": PRIORITY,
        "template": {
            # What is not named here is kept, and not indexed: nobody else makes entries.
            "mappings": {"dynamic": False, "properties": properties},
            "settings": {"index": {"codec": "best_compression"}},
        },
        "_meta": {"description": "records of logroute"},
    }
    if data_stream:
        body["data_stream"] = {}
    return body


def _object(**properties: Any) -> dict[str, Any]:
    return {"properties": properties}
