"""The configuration, as the API shows it, checks another, and has it read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import trio
from starlette.requests import Request

from logroute.api.problems import Problem
from logroute.api.requests import Endpoint, raw_body_of
from logroute.config.load import load_text
from logroute.config.masking import masked
from logroute.config.problems import ConfigError
from logroute.config.problems import Problem as Mistake
from logroute.config.yaml_file import forget_parser
from logroute.router.plan import CannotReload

if TYPE_CHECKING:
    from logroute.router.daemon import Daemon

WITHIN_S = 60.0


class Found(msgspec.Struct, frozen=True, omit_defaults=True):
    """One mistake, and where it is."""

    path: str
    detail: str
    file: str = ""
    line: int = 0
    column: int = 0


class Checked(msgspec.Struct, frozen=True):
    """What is wrong with a configuration."""

    valid: bool
    errors: list[Found]


class Reloaded(msgspec.Struct, frozen=True):
    """The routes that there are now."""

    routes: list[str]


async def _config(daemon: Daemon, request: Request) -> Any:
    said = daemon.plan.body if isinstance(daemon.plan.body, Mapping) else {}
    routes = {plan.settings.name: plan.body for plan in daemon.plan.routes}
    return masked({**said, "routes": routes})


async def _validate(daemon: Daemon, request: Request) -> Any:
    body = await raw_body_of(request)
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem(400, f"the body is no text: {error}") from error
    try:
        await trio.to_thread.run_sync(load_text, text)
    except ConfigError as error:
        return Checked(False, [_found(each) for each in error.problems])
    except RecursionError as error:
        raise Problem(422, "it is too deep: this is no configuration") from error
    finally:
        forget_parser()
    return Checked(True, [])


async def _reload(daemon: Daemon, request: Request) -> Any:
    if daemon.reload_file is None:
        raise Problem(409, "there is no configuration file that could be read again")
    problem: Problem | None = None
    with trio.move_on_after(WITHIN_S, shield=True):
        try:
            await daemon.reload_file()
        except ConfigError as error:
            errors = [(each.path, str(each)) for each in error.problems]
            problem = Problem(422, f"nothing has changed: {errors[0][1]}", path=errors[0][0], errors=errors)
        except CannotReload as error:
            problem = Problem(409, f"nothing has changed: {error}")
    if problem is not None:
        raise problem
    return Reloaded(sorted(daemon.router.routes))


def _found(mistake: Mistake) -> Found:
    return Found(mistake.path, mistake.message, mistake.file, mistake.line, mistake.column)


ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/config",
        _config,
        "The configuration as it was written, and routes made by API; what is secret is masked.",
        gives=dict[str, Any],
    ),
    Endpoint(
        "POST",
        "/v1/config/validate",
        _validate,
        "Every mistake of the configuration in the body, YAML or JSON, with line and column.",
        gives=Checked,
        problems=(400, 408, 413, 422),
    ),
    Endpoint(
        "POST",
        "/v1/reload",
        _reload,
        "Read the configuration again, as SIGHUP does. An invalid one changes nothing.",
        gives=Reloaded,
        problems=(409, 422),
    ),
]
