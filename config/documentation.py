"""The docs of options: what stands below an option in its model, as its description.

Read from the source when somebody asks (the schema, the page of options), because finding it takes longer
than everything else that a start does with a configuration.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import typing
from itertools import pairwise

from pydantic import BaseModel

from logroute.config.components import Options


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
        for below in _models(field.annotation):
            _document(below, seen)
    if documented:
        model.model_rebuild(force=True)


def _models(annotation: object) -> list[type[BaseModel]]:
    """Models that an annotation names, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models(argument)]


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
