"""What there is to say about an option: its docstring, its type in the user's words, its default.

Docstrings are read from the source when somebody asks (the schema, the page of options), because finding them
takes longer than everything else that a start does with a configuration.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
import typing
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from logroute.config.components import Options
from logroute.config.types import Named


def document(model: type[Options]) -> type[Options]:
    """Give every option of the model, and of those below it, its docstring as description; the model."""
    _document(model, set())
    return model


def _document(model: type[BaseModel], seen: set[type[BaseModel]]) -> None:
    if model in seen:
        return
    seen.add(model)
    documented = False
    for base in reversed(model.__mro__):
        if not issubclass(base, Options):
            continue
        for name, text in attribute_docs(base).items():
            field = model.model_fields.get(name)
            if field is not None and field.description is None:
                field.description = text
                documented = True
    for field in model.model_fields.values():
        for below in models_in(field.annotation):
            _document(below, seen)
    if documented:
        model.model_rebuild(force=True)


def models_in(annotation: object) -> list[type[BaseModel]]:
    """Models that an annotation names, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in models_in(argument)]


def attribute_docs(cls: type) -> dict[str, str]:
    """The strings below the attributes in a class's body, by attribute."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    docs: dict[str, str] = {}
    for node, below in pairwise(tree.body):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            docs[node.target.id] = inspect.cleandoc(below.value.value)
    return docs


def default_of(field: FieldInfo) -> Any:
    """The default as somebody would write it: `8MiB`, `30s`. None where there is none."""
    if field.is_required() or field.default is None:
        return None
    # Not the field itself: its alias would mean nothing here.
    type_: Any = field.annotation
    if field.metadata:
        type_ = Annotated.__class_getitem__((type_, *field.metadata))  # type: ignore[attr-defined]  # 3.11 has it
    return TypeAdapter(type_).dump_python(field.default, mode="json", exclude_none=True)


def type_of(field: FieldInfo) -> str:
    """The type in the user's words: `size`, `duration`, `true or false`."""
    named = [annotation.name for annotation in field.metadata if isinstance(annotation, Named)]
    return named[0] if named else _type_of(field.annotation)


_WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}


def _type_of(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        named = [argument.name for argument in arguments[1:] if isinstance(argument, Named)]
        return named[0] if named else _type_of(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_of(argument) for argument in arguments if argument is not type(None))
    if origin is Literal:
        *others, last = (f"`{argument}`" for argument in arguments)
        return f"{', '.join(others)} or {last}" if others else last
    if origin is list:
        return f"list of {_type_of(arguments[0])}"
    if origin is dict:
        return f"{_type_of(arguments[1])}, by {_type_of(arguments[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "options"
    return _WORDS.get(annotation, "value")
