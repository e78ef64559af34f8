"""The program's own log: readable on a terminal, JSON elsewhere, always on stderr."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Literal, NoReturn, TextIO, cast

import structlog

from logroute.config.hidden import Hidden

Format = Literal["auto", "text", "json"]
LEVELS = ("debug", "info", "warning", "error")


def configure(format_: Format = "auto", level: str = "info", hidden: Hidden | None = None) -> None:
    """Set up structlog. Errors come with what raised them; only with `debug` as a traceback.

    What is `hidden` stands in none of it.
    """
    hidden = hidden if hidden is not None else Hidden()
    terminal = sys.stderr.isatty()
    text = format_ == "text" or (format_ == "auto" and terminal)
    processors: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if text else "iso", utc=not text),
    ]
    if level != "debug":
        processors.append(_name_exception)
    if not text:
        processors.append(structlog.processors.format_exc_info)
    processors.append(partial(_hide, hidden))
    if text:
        processors.append(
            structlog.dev.ConsoleRenderer(
                colors=terminal, pad_event_to=0, exception_formatter=partial(_traceback, hidden)
            )
        )
    else:
        processors.append(structlog.processors.JSONRenderer())
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _Unfailing(sys.stderr))),
        cache_logger_on_first_use=True,
    )


class _Unfailing:
    """Where nobody reads any more what is said, or its disk is full, that ends nothing but the saying."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._file.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._file.flush()


def hand_over(to: Callable[[Mapping[str, Any]], None]) -> None:
    """Give errors to a command that says them in its own way, and nothing else to anybody."""

    def processor(_logger: object, _method: str, event: structlog.typing.EventDict) -> NoReturn:
        to(event)
        raise structlog.DropEvent

    structlog.configure(
        processors=[_name_exception, processor],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        cache_logger_on_first_use=True,
    )


OWN = frozenset(("level", "timestamp", "route", "source", "container"))
"""Parts of what is said that are words of ours, or names by which people look for it; so are lists of
routes."""


def _hide(
    hidden: Hidden, _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    def is_own(name: str) -> bool:
        return name in OWN or (name == "routes" and isinstance(event[name], list))

    return {name: value if is_own(name) else hidden.without_in(value) for name, value in event.items()}


def _traceback(hidden: Hidden, output: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    whole = io.StringIO()
    structlog.dev.plain_traceback(whole, exc_info)
    output.write(hidden.without(whole.getvalue()))


def _name_exception(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    error = event.pop("exc_info", None)
    if isinstance(error, BaseException):
        event["error"] = f"{type(error).__name__}: {error}"
    return event
