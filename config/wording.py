"""What validation found, in the user's words: where it is and what was probably meant.

Pydantic's errors speak of dictionaries and of the members of unions; here they get the path that stands in
the file and a text that names what to write instead. Nothing here shows a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, get_args

import msgspec
from pydantic import BaseModel

from logroute.config.model import Config
from logroute.config.problems import Loc, did_you_mean, kind_of
from logroute.config.types import Named, format_duration, format_size
from logroute.config.walk import as_mapping, models_in, specific

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class Mistake(msgspec.Struct, frozen=True):
    """Something that validation found."""

    loc: Loc
    text: str
    of_value: bool
    """It is the value that is wrong, not that it is there."""


def mistakes(errors: list[ErrorDetails], data: Any) -> list[Mistake]:
    """Every mistake of a configuration; those about one value become one."""
    found: dict[tuple[Loc, bool], list[str]] = {}
    for error in _unfolded(errors):
        loc = _path(error["loc"], error["type"], data)
        texts = found.setdefault((loc, error["type"] not in ("extra_forbidden", "name")), [])
        text = _text(loc, error, data)
        if text not in texts:
            texts.append(text)
    return [Mistake(loc, _joined(texts), of_value) for (loc, of_value), texts in found.items()]


def _joined(texts: list[str]) -> str:
    """Where several types are possible, each of them has something to say."""
    first, *others = sorted(texts, key=lambda text: not text.startswith("expected "))
    return "; or ".join([first, *(text.removeprefix("expected ") for text in others)])


def _unfolded(errors: list[ErrorDetails], prefix: Loc = ()) -> Iterator[ErrorDetails]:
    """Also those that a component's own model found, and all of a match's, with their whole path."""
    for error in errors:
        loc = (*prefix, *error["loc"])
        context = error.get("ctx", {})
        if error["type"] == "nested":
            yield from _unfolded(context["errors"], loc)
        elif error["type"] == "match":
            for path, message in context["mistakes"]:
                yield {**error, "loc": (*loc, *path), "msg": message}
        else:
            yield {**error, "loc": loc}


# --- where ------------------------------------------------------------------------------------------------


def _path(loc: Loc, type_: str, data: Any) -> Loc:
    """The path in the file: without what pydantic adds for the members of a union and for keys."""
    path: list[str | int] = []
    known = True
    for index, part in enumerate(loc):
        if not known:
            path.append(part)
            continue
        data = as_mapping(data)
        if _holds(data, part):
            data = data[part]
        elif type_ == "missing" and index == len(loc) - 1:
            known = False
        else:
            continue
        path.append(part)
    return tuple(path)


def _holds(data: Any, part: str | int) -> bool:
    if isinstance(part, int):
        return isinstance(data, list) and part < len(data)
    return isinstance(data, dict) and part in data


# --- what -------------------------------------------------------------------------------------------------


def _text(loc: Loc, error: ErrorDetails, data: Any) -> str:
    type_, context, value = error["type"], error.get("ctx", {}), error["input"]
    if type_ == "extra_forbidden":
        return f"unknown option{_hint(loc, data)}"
    if loc in _EMPTY and (type_ in ("missing", "too_short") or value is None):
        return _EMPTY[loc]
    if type_ == "literal_error":
        expected = context["expected"]
        known = re.findall(r"'([^']*)'", expected)
        return f"expected {expected}{did_you_mean(value, known) if isinstance(value, str) else ''}"
    if bound := _BOUNDS.get(type_):
        words, name = bound
        return f"must be {words} {_as_written(context[name], loc, data)}"
    for types, wording in _WORDING:
        if type_ in types:
            return wording(context, value)
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return message[:1].lower() + message[1:] if message[:6] in ("Input ", "Field ") else message


_EMPTY: dict[Loc, str] = {
    ("routes",): "no routes: where shall the records go?",
    ("sources",): "no sources: leave it out for the containers of this host",
}


def _expected(what: str) -> Callable[[dict[str, Any], Any], str]:
    return lambda _context, value: f"expected {what}, not {kind_of(value)}"


def _expected_text(_context: dict[str, Any], value: Any) -> str:
    quotes = ": put it in quotes" if isinstance(value, int | float) else ""
    return f"expected a text, not {kind_of(value)}{quotes}"


def _expected_whole_number(_context: dict[str, Any], value: Any) -> str:
    is_not = "" if isinstance(value, str | int | float) and not isinstance(value, bool) else kind_of(value)
    return f"expected a whole number{is_not and f', not {is_not}'}"


_WORDING: tuple[tuple[tuple[str, ...], Callable[[dict[str, Any], Any], str]], ...] = (
    (("missing",), lambda _context, _value: "this option is needed"),
    (("model_type", "model_attributes_type"), _expected("a mapping of options")),
    (("dict_type", "mapping_type"), _expected("a mapping")),
    (("list_type", "tuple_type", "set_type"), _expected("a list")),
    (("string_type",), _expected_text),
    (("bool_type", "bool_parsing"), lambda _context, _value: "expected true or false"),
    (
        ("int_type", "int_parsing", "int_from_float", "int_parsing_size", "finite_number"),
        _expected_whole_number,
    ),
    (("float_type", "float_parsing"), lambda _context, _value: "expected a number"),
    (("too_short",), lambda context, _value: f"needs at least {context['min_length']}"),
)


_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_FORMATS: dict[str, Callable[[Any], str]] = {"size": format_size, "duration": format_duration}


def _as_written(number: float, loc: Loc, data: Any) -> str:
    """A bound as whoever configures the option would write it: `1MiB`, `30s`."""
    for model in _models_at(loc[:-1], data):
        if (option := model.model_fields.get(str(loc[-1]))) is not None:
            for named in _named(option.annotation, option.metadata):
                if number and (format_ := _FORMATS.get(named)):
                    return format_(number)
    return f"{number:.15g}"


def _named(annotation: Any, metadata: Iterable[Any]) -> Iterator[str]:
    """What the types that an option may have are called."""
    yield from (each.name for each in metadata if isinstance(each, Named))
    for argument in get_args(annotation):
        yield from _named(argument, getattr(argument, "__metadata__", ()))


# --- what was meant -----------------------------------------------------------------------------------------


def _hint(loc: Loc, data: Any) -> str:
    """The option beside an unknown one that was probably meant, or where it belongs."""
    name = str(loc[-1])
    models = _models_at(loc[:-1], data)
    beside = _at(loc[:-1], data)
    for model in models:
        for option in model.model_fields:
            if any(name in below.model_fields for below in _below(model, option, beside)):
                return f'; it belongs into "{option}"'
    options = (field.alias or option for model in models for option, field in model.model_fields.items())
    return did_you_mean(name, options)


def _at(loc: Loc, data: Any) -> Any:
    for part in loc:
        data = as_mapping(data)
        data = data[part] if _holds(data, part) else None
    return data


def _models_at(loc: Loc, data: Any) -> list[type[BaseModel]]:
    """Whose options are those of the mapping at `loc`."""
    models: list[type[BaseModel]] = [Config]
    types: list[Any] = []
    for index, part in enumerate(loc):
        if models:
            types = [
                model.model_fields[str(part)].annotation
                for model in models
                if str(part) in model.model_fields
            ]
        else:
            # An entry of a mapping or a list: `dict[str, RouteOptions]`.
            types = [get_args(container)[-1] for container in types if get_args(container)]
        value = _at(loc[: index + 1], data)
        models = [specific(model, part, value) for type_ in types for model in models_in(type_)]
    return models


def _below(model: type[BaseModel], option: str, beside: Any) -> list[type[BaseModel]]:
    value = beside.get(option) if isinstance(beside, dict) else None
    found = list(models_in(model.model_fields[option].annotation))
    return [specific(below, option, as_mapping(value)) for below in found]
