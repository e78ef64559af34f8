"""A configuration without what is secret in it, as it may be shown: `***` stands there instead.

Secret is what an option's model says (`Secret`), what is called like a secret, all below `headers`, in a URL
the password, and its parameters by their names: in a sink's URI as in the mapping that it means. Names of
variables are shown, their defaults are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args
from urllib.parse import quote, unquote_plus

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from logroute.config.components import SINKS, BrokenComponent, UnknownComponent
from logroute.config.hidden import SECRET_NAME
from logroute.config.model import Config, RouteOptions
from logroute.config.types import Secret
from logroute.config.walk import models_in, specific
from logroute.sinks import SinkOptions

MASK = "***"

_HARMLESS = frozenset(("key", "key_file", "token_file", "shared_key_file"))
"""Names of files, and of fields (`lookup`, `key_value`)."""
_SECRET_PARAMETER = re.compile(
    r"(?i)password|secret|token|api_?key|shared_key|auth|signature|^(sig|pass|pwd)$"
)
"""What parameters of other people's URLs are called, beside that."""

_VARIABLE = r"\$\{(?:[^{}]|\{[^{}]*\})*\}"
"""With a variable in its default, or without."""
_USER_INFO = re.compile(rf"(?<=://)((?:{_VARIABLE}|[^/?#@:\s])*):((?:{_VARIABLE}|[^/?#\s])*)(?=@)")
"""A user, and all that may be their password: of several `@` the last one counts."""
_PARAMETER = re.compile(r"([?&])([^=&#\s]+)=([^&#\s]*)")

Types = Sequence[Any]
"""What a value may be: annotations of options."""


def masked(config: Any) -> Any:
    """A copy of a configuration in which nothing is secret. Never raises, whatever stands in it."""
    return _masked(config, "", [Config])


def masked_route(body: Any) -> Any:
    """A copy of what a route says, likewise."""
    return _masked(body, "", [RouteOptions])


def holds_mask(value: Any) -> bool:
    """Whether something of it is what was shown instead of a secret."""
    if isinstance(value, Mapping):
        return any(map(holds_mask, value.values()))
    if isinstance(value, list):
        return any(map(holds_mask, value))
    return isinstance(value, str) and (value == MASK or f":{MASK}@" in value or f"={MASK}" in value)


def _masked(value: Any, key: str, types: Types) -> Any:
    if isinstance(value, Mapping):
        models = [specific(model, key, value) for model in _models(types)]
        entries = [get_args(each)[-1] for each in types if getattr(each, "__origin__", None) is dict]
        return {name: _item(item, str(name), models, entries) for name, item in value.items()}
    if isinstance(value, list):
        items = [get_args(each)[-1] for each in types if getattr(each, "__origin__", None) is list]
        return [_masked(item, key, items or types) for item in value]
    if isinstance(value, str):
        is_sink = any(model is SinkOptions for model in _models(types))
        return _uri_masked(value) if is_sink else _url_masked(value)
    return value


def _item(item: Any, name: str, models: Sequence[type[BaseModel]], entries: Types) -> Any:
    fields = _fields(models, name)
    if _is_secret(name, fields):
        return _hidden(item)
    return _masked(item, name, [*(field.annotation for field in fields), *entries])


def _hidden(value: Any) -> Any:
    """All of it is secret."""
    if isinstance(value, Mapping):
        return {name: _hidden(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_hidden(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    return MASK if _hides(str(value)) else value


# --- what is secret ---------------------------------------------------------------------------------------


def _is_secret(name: str, fields: Sequence[FieldInfo]) -> bool:
    if name.lower() == "headers" or any(
        isinstance(each, Secret) for field in fields for each in field.metadata
    ):
        return True
    return name.lower() not in _HARMLESS and SECRET_NAME.search(name) is not None


def _fields(models: Sequence[type[BaseModel]], name: str) -> list[FieldInfo]:
    return [model.model_fields[name] for model in models if name in model.model_fields]


def _models(types: Types) -> Iterator[type[BaseModel]]:
    for each in types:
        yield from models_in(each)


def _hides(text: str) -> bool:
    """Whether there is more in it than names of variables: a default is written down like anything else."""
    for variable in re.findall(_VARIABLE, text):
        name, _, default = variable[2:-1].partition(":-")
        if not name.startswith("file:") and _hides(default):
            return True
    return bool(re.sub(_VARIABLE, "", text).strip())


# --- URLs -------------------------------------------------------------------------------------------------


def _uri_masked(text: str) -> str:
    """A sink's URI without what would be secret in the mapping that it means."""
    head, mark, query = text.partition("?")
    try:
        model: type[BaseModel] | None = SINKS.options(SINKS.type_of_scheme(head.partition(":")[0].lower()))
    except (UnknownComponent, BrokenComponent):
        model = None
    shown = head + mark + "&".join(_parameter_masked(each, model) for each in query.split("&"))
    return _USER_INFO.sub(_without_password, shown)


def _parameter_masked(parameter: str, model: type[BaseModel] | None) -> str:
    name, mark, value = parameter.partition("=")
    if not _hides(value):
        return parameter
    models = [model] if model is not None else []
    for key in unquote_plus(name).split("."):
        fields = _fields(models, key)
        if _is_secret(key, fields):
            return f"{name}={MASK}"
        models = list(_models([field.annotation for field in fields]))
    # A URL in an option, such as a proxy's, may be quoted.
    plain = unquote_plus(value)
    shown = _url_masked(plain)
    return f"{name}{mark}{value if shown == plain else quote(shown, safe=':/@*${}')}"


def _url_masked(text: str) -> str:
    if "://" not in text:
        return text
    return _PARAMETER.sub(_without_secret, _USER_INFO.sub(_without_password, text))


def _without_password(found: re.Match[str]) -> str:
    return f"{found[1]}:{MASK if _hides(found[2]) else found[2]}"


def _without_secret(found: re.Match[str]) -> str:
    name = unquote_plus(found[2])
    is_secret = SECRET_NAME.search(name) or _SECRET_PARAMETER.search(name)
    return f"{found[1]}{found[2]}={MASK}" if is_secret and _hides(found[3]) else found[0]
