"""Who reads containers by API: what is asked at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest
import structlog
import trio
from structlog.testing import LogCapture
from trio.testing import MockClock

from logroute.router.position import BEGINNING
from logroute.router.record import Origin
from logroute.sources import Waiting
from logroute.sources.docker_readers import unfound
from logroute.sources.engine import AT_ONCE, EngineAway, EngineRefused
from logroute.sources.engine_logs import EngineLog
from logroute.sources.letting_go import WITHIN_S


class Log:
    """One log of an engine that takes its time, and then answers this."""

    def __init__(self, answer: bool | Exception, takes_s: float = 0.0) -> None:
        self.answer = answer
        self.takes_s = takes_s

    async def has(self, time: str) -> bool:
        await trio.sleep(self.takes_s)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def names_of_unfound(logs: Sequence[Log]) -> list[str]:
    """Those whose records are not there any more: logs are named by their numbers."""
    waiting = [
        (cast(EngineLog, log), Waiting("all", Origin(f"d:{n}", "d", id=str(n), name=str(n)), BEGINNING, "t"))
        for n, log in enumerate(logs)
    ]
    return sorted([each.origin.name for each in await unfound(waiting)], key=int)


@pytest.fixture
def said() -> Iterator[list[Any]]:
    said = LogCapture()
    before = structlog.get_config()
    structlog.configure(processors=[said])
    yield said.entries
    structlog.configure(**before)


async def test_what_is_removed_is_gone_and_what_nobody_answers_for_is_said(said: list[Any]) -> None:
    gone = EngineRefused("no such container", 404, "no such container")
    busy = EngineRefused("too many open files", 500, "too many open files")
    logs = [Log(True), Log(False), Log(gone), Log(busy), Log(EngineAway("away"))]
    assert await names_of_unfound(logs) == ["1", "2"]
    (entry,) = said
    assert (entry["containers"], entry["reason"]) == (["3", "4"], "too many open files")


async def test_many_are_asked_side_by_side_and_those_for_whom_there_is_no_time_are_said(
    autojump_clock: MockClock, said: list[Any]
) -> None:
    began = trio.current_time()
    found = await names_of_unfound([Log(False, takes_s=2.0)] * (3 * AT_ONCE))
    assert found == [str(number) for number in range(2 * AT_ONCE)]
    assert trio.current_time() - began == pytest.approx(WITHIN_S)
    (entry,) = said
    assert len(entry["containers"]) == AT_ONCE
    assert "in time" in entry["reason"]
