"""The page of all options, `docs/options.md`: written from the models, so that it says what they do.

`python -m logroute.config.reference FILE` writes it (`make docs`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from annotated_types import Ge
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from logroute.config.checks import CheckOptions, GivenOptions
from logroute.config.components import PROCESSORS, SINKS, SOURCES, Registry
from logroute.config.documentation import default_of, document, models_in, type_of
from logroute.config.model import ApiOptions, Config, LimitOptions, RouteOptions
from logroute.config.types import Alternative, format_size

HEAD = """\
# Options

<!-- Written by `make docs` from the options' models: change their docstrings instead. -->

A configuration is a YAML file (YAML 1.2, so `yes` and `on` are texts). `logroute validate` checks it,
`logroute schema` prints a JSON Schema that editors complete and check it with. An option in **bold** is
needed.

| type | is written |
|---|---|
| duration | a number with its unit: `500ms`, `30s`, `5m`, `24h`, `7d`, `2w` |
| size | `64KiB`, `5MB`, `2GiB`, or a number of bytes |
| match | conditions on containers and streams: [matching](matching.md) |
| text | in quotes where it begins with one of `*{[&!%@`, holds `: `, or looks like a number |

In every text `${VAR}` is the variable of the environment, `${VAR:-default}` has a default where it is not
set or empty, and `${file:/run/secrets/x}` is the content of a file without its last newline; a relative
path begins at the configuration's folder. `$${` is a literal `${`.

Whatever is wrong with a configuration is told without what variables and files hold. What came from a file
is shown nowhere later either: not in the log, in no error of a receiver that repeats it, not by the API.
`${file:/run/secrets/x}` stands in its place. So it is with a variable that is called like a secret
(`API_KEY`, `HEC_TOKEN`). Either holds at least eight characters: less stands in many a text by chance.

A file that is included may have `routes`, `sources` and an `include` of its own, relative to itself. Each
file is read once; a name may be given once in all of them.

The options of a sink may also be parameters of its URI, with dots for those inside of others:
`file:///logs/all.ndjson?format=raw&rotate.size=100MiB`.
"""


def page() -> str:
    """The whole page. Imports every component."""
    sections = [
        HEAD,
        "## The file\n\n" + _table(document(Config), skip=()),
        f"## Routes\n\nOptions of `routes.NAME`. {_text(RouteOptions.__doc__)}\n\n"
        + _table(RouteOptions)
        + "".join(_below("routes.NAME", RouteOptions)),
        f"## Limits\n\nOptions of `limits`. {_text(LimitOptions.__doc__)}\n\n" + _table(LimitOptions),
        f"## API\n\nOptions of `api`. {_text(ApiOptions.__doc__)}\n\n" + _table(ApiOptions),
        f"## Tests\n\nOptions of each of `tests`. {_text(CheckOptions.__doc__)}\n\n" + _table(CheckOptions),
        f"### Given\n\nOptions of `given`. {_text(GivenOptions.__doc__)}\n\n" + _table(GivenOptions),
        "## Sources\n\nOptions of `sources.NAME`, by type.\n" + "".join(_components(SOURCES, "sources.NAME")),
        "## Processors\n\nEntries of `processors` and of `routes.NAME.processors`, by type.\n"
        + "".join(_components(PROCESSORS, "processors[N]")),
        "## Sinks\n\nOptions of `routes.NAME.sink`, by type.\n"
        + "".join(_components(SINKS, "routes.NAME.sink")),
    ]
    return "\n".join(section.rstrip("\n") + "\n" for section in sections)


def _components(registry: Registry, place: str) -> Iterator[str]:
    if not registry.types():
        yield "\nThere are none yet.\n"
    for type_ in registry.types():
        model = document(registry.options(type_))
        yield f"\n### `{type_}`\n\n{_text(model.__doc__)}\n"
        if len(model.model_fields) > 1:
            yield "\n" + _table(model)
        yield from _below(place, model)
        if example := _example(registry, type_, model):
            yield "\n" + example


def _below(place: str, model: type[BaseModel]) -> Iterator[str]:
    """Tables of the options that have options of their own."""
    for name, field in model.model_fields.items():
        for below in models_in(field.annotation):
            if below.model_fields:
                yield f"\n#### `{place}.{name}`\n\n{_text(below.__doc__)}\n\n{_table(below)}"
                yield from _below(f"{place}.{name}", below)


def _table(model: type[BaseModel], skip: tuple[str, ...] = ("type",)) -> str:
    rows = [
        _row(field.alias or name, field) for name, field in model.model_fields.items() if name not in skip
    ]
    return "| option | type | default | |\n|---|---|---|---|\n" + "".join(rows)


def _row(name: str, field: FieldInfo) -> str:
    shown_name = f"**`{name}`**" if field.is_required() else f"`{name}`"
    below = models_in(field.annotation)
    about = _text(field.description or (below[0].__doc__ if below else ""))
    for constraint in field.metadata:
        if isinstance(constraint, Ge) and constraint.ge:
            least: Any = constraint.ge
            about += f" At least {format_size(least) if type_of(field) == 'size' else least}."
    if field.examples:
        about += f" For example {', '.join(_code(example) for example in field.examples)}."
    default = None if below else default_of(field)
    cells = (shown_name, type_of(field), "" if default in (None, {}, []) else _code(default), about)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _code(value: Any) -> str:
    return f"`{_flow(value)}`"


def _text(docstring: str | None) -> str:
    return " ".join((docstring or "").split())


# --- examples ---------------------------------------------------------------------------------------------


def _example(registry: Registry, type_: str, model: type[BaseModel]) -> str:
    """A block with the options that have examples; the tests load it."""
    options = _examples(model)
    if not options:
        return ""
    if registry is SOURCES:
        return f"```yaml fragment of sources\n{type_}:\n{_block(options, 1)}```\n"
    if registry is SINKS:
        return f"```yaml fragment of routes.example\nsink:\n  type: {type_}\n{_block(options, 1)}```\n"
    return f"```yaml fragment of processors\n- type: {type_}\n{_block(options, 1)}```\n"


def _examples(model: type[BaseModel]) -> dict[str, Any]:
    examples: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        below = models_in(field.annotation)
        if any(isinstance(each, Alternative) for each in field.metadata):
            continue
        if field.examples:
            examples[field.alias or name] = field.examples[0]
        elif below and (inner := _examples(below[0])):
            examples[name] = inner
    return examples


def _block(options: dict[str, Any], depth: int) -> str:
    return "".join(f"{'  ' * depth}{name}: {_flow(value)}\n" for name, value in options.items())


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_flow(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if isinstance(value, str) and _needs_quotes(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text


def _needs_quotes(text: str) -> bool:
    from logroute.config.yaml_file import resolve

    return (
        not isinstance(resolve(text), str)
        or text[:1] in tuple("*{[&!%@`'\"#|>-?")
        or any(mark in text for mark in (": ", " #", ", ", "{", "}", "[", "]"))
        or text.endswith(":")
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
