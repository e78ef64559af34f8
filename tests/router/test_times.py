"""Times as they are written."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logroute.router.times import http_date_s


@given(st.integers(0, 4_000_000_000))
def test_an_http_date_is_what_it_says(seconds: int) -> None:
    assert http_date_s(format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:37 CET",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # whichever words it has
        http_date_s(text)
