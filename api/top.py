"""Who says most, as the API gives it. Shared with the client."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from logroute.router.times import iso_time

if TYPE_CHECKING:
    from logroute.router.daemon import Daemon

MOST_LISTED = 2000
"""Containers in one answer."""


class TalkerBooks(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was read of a container, or of a file, as it was said: nothing twice."""

    name: str
    source: str
    records: int
    bytes: int
    """Of text."""
    id: str = ""
    """Of the container."""


class Top(msgspec.Struct, frozen=True):
    """Those that said most lately, in the order of that. Totals: rates are differences of two answers.

    One that is less there than before was forgotten meanwhile, as one of very many, and began anew.
    """

    time: str
    containers: list[TalkerBooks]


def top_of(daemon: Daemon, count: int) -> Top:
    return Top(
        iso_time(time.time_ns()),
        [
            TalkerBooks(each.name, each.source, each.records, each.bytes, each.id)
            for each in daemon.router.talkers.noisiest(count)
        ],
    )
