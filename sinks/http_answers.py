"""What HTTP servers answer, and what a status means (RFC 9110): delivered, later, or never."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from logroute.config.components import Options
from logroute.config.types import Named
from logroute.config.uri import shown
from logroute.sinks.failures import excerpt

LONGEST_RETRY_AFTER_S = 3600.0
"""No server keeps a route waiting for longer without being asked again."""

Meaning = Literal["success", "retry", "reject"]

# Statuses below 500 that speak of the moment, of who we are, of the address, or of how requests are made:
# people put all of that right, and then every record is welcome. The others speak of what was sent.
_LATER = {401, 402, 403, 404, 405, 406, 407, 408, 410, 411, 415, 421, 423, 424, 425, 426, 428, 429, 431, 511}

_STATUSES = re.compile(r"[2-5](?:[0-9]{2}|xx)")


class Answer(msgspec.Struct, frozen=True):
    """What a server answered."""

    status: int
    headers: dict[str, str]
    """By their names in lower case."""
    body: bytes = b""
    """Its beginning."""
    whole: bool = True
    """Whether that is all of it."""
    cookies: Sequence[str] = ()
    """What each `Set-Cookie` says: a comma may stand in one."""

    def after_s(self, now: float) -> float | None:
        """What `Retry-After` asks for (RFC 9110, 10.2.3); `now` in seconds since the epoch."""
        text = self.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdecimal():
            return min(float(text[:12]), LONGEST_RETRY_AFTER_S)
        until = _seconds(text)
        if until is None:
            return None
        # A date is one of the server's clock: ours may be wrong.
        here = _seconds(self.headers.get("date", ""))
        return min(max(0.0, until - (now if here is None else here)), LONGEST_RETRY_AFTER_S)

    def __str__(self) -> str:
        return f"{self.named_status}{self._said}"

    @property
    def named_status(self) -> str:
        """`200 OK`."""
        with suppress(ValueError):
            return f"{self.status} {HTTPStatus(self.status).phrase}"
        return f"{self.status}"

    def json(self) -> Any:
        """What its body says. Raises ValueError where it is no JSON, or not all of it."""
        if not self.whole:
            raise ValueError("its body is cut short")
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, RecursionError):
            raise ValueError("its body is no JSON") from None

    @property
    def text(self) -> str:
        """Its body as text for people to read."""
        return self.body.decode("utf-8", "replace")

    @property
    def _said(self) -> str:
        if 300 <= self.status < 400 and (location := self.headers.get("location")):
            return f": it redirects to {excerpt(shown(location))}, which is not followed"
        text = "" if self.headers.get("content-encoding", "identity") != "identity" else excerpt(self.body)
        return f": {text}" if text else ""


def usual_meaning(status: int) -> Meaning:
    """What a status means where nobody says anything else."""
    if 200 <= status < 300:
        return "success"
    return "reject" if 400 <= status < 500 and status not in _LATER else "retry"


def parse_statuses(value: Any) -> tuple[str, ...]:
    """`409,5xx`, a number, or a list of such. Raises PydanticCustomError."""
    items = value if isinstance(value, list | tuple) else str(value).split(",")
    texts = tuple(str(item).strip().lower() for item in items if str(item).strip())
    for text in texts:
        if not _STATUSES.fullmatch(text):
            raise PydanticCustomError("statuses", "expected statuses such as 409 or 5xx")
    return texts


Statuses = Annotated[
    tuple[str, ...],
    BeforeValidator(parse_statuses),
    PlainSerializer(lambda texts: list(texts), return_type=list[str], when_used="json"),
    WithJsonSchema({"type": ["string", "integer", "array"], "items": {"type": ["string", "integer"]}}),
    Named("statuses"),
]
"""Statuses of answers: `409`, or `5xx` for all that begin with 5."""


class StatusOptions(Options):
    """Which statuses mean what, where it is not the usual. A number counts before `5xx`."""

    success: Statuses = Field(default=(), examples=["409"])
    """Delivered, whatever the body says."""
    retry: Statuses = Field(default=(), examples=["400"])
    """Sent again, until it is delivered."""
    reject: Statuses = Field(default=(), examples=["500"])
    """Refused for good: the delivery is halved until it is known which records are meant."""

    @model_validator(mode="after")
    def _each_means_one_thing(self) -> StatusOptions:
        given = [*self.success, *self.retry, *self.reject]
        for text in given:
            if given.count(text) > 1:
                raise ValueError(f"{text} is there twice")
        return self

    def meaning(self, status: int) -> Meaning | None:
        """What the user has said that it means; None where nothing."""
        for text in (str(status), f"{status // 100}xx"):
            for meaning, texts in self._table():
                if text in texts:
                    return meaning
        return None

    def _table(self) -> Iterable[tuple[Meaning, tuple[str, ...]]]:
        return ("success", self.success), ("retry", self.retry), ("reject", self.reject)


def _seconds(date: str) -> float | None:
    """Seconds since the epoch of an HTTP date; None if it is none."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
