"""The program's own log."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import pytest
import structlog

from logroute.cli import log
from logroute.config.hidden import Hidden


@pytest.fixture(autouse=True)
def _structlog_as_before() -> Iterator[None]:
    before = structlog.get_config()
    try:
        yield
    finally:
        structlog.configure(**before)


@pytest.mark.parametrize("format_", ["text", "json"])
@pytest.mark.parametrize("level", ["info", "debug"])
def test_what_is_hidden_stands_in_no_line_and_no_traceback(
    format_: log.Format, level: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = Hidden()
    log.configure(format_, level, hidden)
    hidden.remember([("${file:url}", "S3CRET\\path")])
    try:
        raise ValueError(r"http://h/S3CRET\path")
    except ValueError as error:
        structlog.get_logger().error(
            r"at S3CRET\path", exc_info=error, routes={"a": r"S3CRET\path"}, many=[r"S3CRET\path"]
        )
    said = capsys.readouterr().err
    assert "S3CRET" not in said
    assert said.count("${file:url}") >= 4


class Broken(io.StringIO):
    """What a pipe is that nobody reads any more."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


@pytest.mark.parametrize("format_", ["text", "json"])
def test_where_nobody_hears_it_nothing_fails(format_: log.Format, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Broken())
    log.configure(format_)
    structlog.get_logger().error("said to nobody", exc_info=ValueError("x"))
