"""Processors as a chain calls them: records are theirs to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import pytest

from logroute.config.components import PROCESSORS
from logroute.processors import Processor
from logroute.router import regex
from logroute.router.position import BEGINNING
from logroute.router.record import Batch, DetailedRecord, Image, Origin, Record

TIME = "2026-11-23T20:06:26.123456789Z"
WEB = Origin(
    "docker:1",
    "docker",
    id="3b74a877e0f9" + "ab" * 26,
    name="web-1",
    image=Image.parse("shop/web:1.2"),
    labels={"team": "pay", "com.docker.compose.service": "web"},
    host="node-7",
)


def made(type_: str, **options: Any) -> Processor[Any]:
    """A processor from its options, as in a configuration."""
    model = PROCESSORS.options(type_).model_validate({"type": type_, **options})
    processor = PROCESSORS.create(model)
    assert isinstance(processor, Processor)
    return processor


def record(message: str = "", **details: Any) -> DetailedRecord:
    return DetailedRecord(message, details.pop("stream", "stdout"), details.pop("time", TIME), **details)


def batch(*records: Record, origin: Origin = WEB) -> Batch:
    return Batch(origin, list(records), before=BEGINNING, after=BEGINNING, size_bytes=1000, ready=True)


@pytest.fixture(scope="package", autouse=True)
def _patterns_are_compiled_once() -> Iterator[None]:
    """A database is the same whoever asks for it; making those of a processor takes longer than a test."""
    compiled = cache(regex._hyperscan)

    def hyperscan(regexes: Sequence[regex.Regex], flags: int) -> Any:
        return compiled(tuple(regexes), flags)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regex, "_hyperscan", hyperscan)
        yield


Apply = Callable[..., list[Record]]


@pytest.fixture
def apply() -> Apply:
    """`apply(type, *records, **options)`: what becomes of the records."""

    def apply(type_: str, *records: Record, **options: Any) -> list[Record]:
        result = made(type_, **options).apply(batch(*records))
        return result.records if result is not None else []

    return apply
