"""Processors that hold everything up are named, with the line at which they are."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import structlog.testing

from logroute.router import watch as module
from logroute.router.chain import Chains, StagePlan
from logroute.router.match import EVERYTHING
from logroute.router.watch import HANGS_S, KNOWN_S, PERIOD_S, Watch
from tests.router.stand_ins import batch, origin
from tests.router.test_chain import StandIn

SAID = "a processor does not return, and everything waits for it: it cannot be interrupted"


def said(logs: Any) -> list[tuple[str, int]]:
    return [(log["processor"], log["seconds"]) for log in logs if log["event"] == SAID]


def test_what_does_not_return_is_said_now_and_then_with_its_place() -> None:
    watch, told = Watch(), []
    module.notify, notify = told.append, module.notify
    try:
        with structlog.testing.capture_logs() as logs, watch.running("a.processors[0].python"):
            now = time.perf_counter()
            watch.look(now + HANGS_S - 1)
            assert watch.notes() == {}
            watch.look(now + HANGS_S + 1)
            watch.look(now + HANGS_S + 2)
            watch.look(now + HANGS_S + 61.2)
            [note] = watch.notes()["a.processors[0].python"]
        assert "STATUS=" not in told
        watch.look(now + HANGS_S + 130)
        watch.look(now + HANGS_S + 200)
    finally:
        module.notify = notify
    assert said(logs) == [("a.processors[0].python", 6), ("a.processors[0].python", 66)]
    assert "watch.py" in logs[0]["where"]
    assert note.startswith("it has held everything up for 66 s since ")
    assert "does not return since 6 s" in told[0]
    assert told[2:] == ["STATUS="]


def test_what_returns_in_time_is_never_named() -> None:
    watch = Watch()
    with structlog.testing.capture_logs() as logs:
        watch.look(time.perf_counter() + 1000)
        with watch.running("x"):
            pass
        watch.look(time.perf_counter() + 1000)
    assert (logs, watch.notes()) == ([], {})


def test_after_an_hour_it_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()
    with watch.running("x"):
        watch.look(time.perf_counter() + HANGS_S + 1)
    assert watch.notes()
    began = time.time()
    monkeypatch.setattr(module.time, "time", lambda: began + 3700)
    assert watch.notes() == {}


def test_what_takes_much_of_a_minute_is_named_until_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, now, told = Watch(), 1000.0, list[str]()
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    monkeypatch.setattr(module, "notify", told.append)
    watch.look(now)

    def minute(busy_s: float) -> list[tuple[str, int]]:
        nonlocal now
        began = now
        for _ in range(10):
            with watch.running("busy"):
                now += busy_s / 10
            with watch.running("lazy"):
                now += 0.5
        now = began + PERIOD_S
        with structlog.testing.capture_logs() as logs:
            watch.look(now)
        return [(log["processor"], log["percent"]) for log in logs]

    assert minute(30) == [("busy", 50)]
    assert watch.notes() == {"busy": ["it has taken 50% of a minute's time"]}
    assert told == ["STATUS=the processor busy has taken 50% of a minute's time"]
    # The log is told once an hour.
    assert minute(40) == []
    assert told[1:] == ["STATUS=the processor busy has taken 67% of a minute's time"]
    assert minute(0) == []
    assert watch.notes() == {}
    assert told[2:] == ["STATUS="]
    now += KNOWN_S
    watch.look(now)
    assert minute(30) == [("busy", 50)]


async def test_the_thread_sees_a_stage_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.001)
    monkeypatch.setattr(module, "HANGS_S", 0.002)
    watch, named = Watch(), threading.Event()
    monkeypatch.setattr(module, "notify", lambda state: named.set())

    def hang(records: list[Any]) -> list[Any]:
        assert named.wait(60)
        return records

    plan = StagePlan("bad.processors[1].hangs", EVERYTHING, lambda: StandIn(hang), "x")
    chains = Chains([plan], watch=watch)
    with structlog.testing.capture_logs() as logs, watch.watching():
        await chains.before.apply(batch(origin("web"), [1]), {})
    assert {name for name, _ in said(logs)} == {"bad.processors[1].hangs"}
    [note] = watch.notes()["bad.processors[1].hangs"]
    assert "test_chain.py" in note
    assert note.endswith("(wait)")
    assert not any(thread.name == "watch" for thread in threading.enumerate())
