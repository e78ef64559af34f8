"""Starting, running and ending a daemon, under a clock that jumps; its exit codes also as a process."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
import structlog
import trio
import trio.lowlevel
import trio.testing

from logroute.router import daemon as module
from logroute.router.daemon import Daemon
from logroute.router.ending import DONE, FAILED, UNDELIVERED
from logroute.router.match import Match
from logroute.router.plan import Plan, RoutePlan, SourcePlan
from logroute.router.record import Batch
from logroute.router.route import HURRIED_WITHIN_S, Route, RouteSettings
from logroute.router.system import AT_ONCE_S, keep_watchdog_quiet, notify, stop_on_signals
from logroute.sinks import Refused, Rejected, Retryable, SinkGone
from logroute.sources import Lost
from tests.router.stand_ins import StandInSink, StandInSource, origin, position

DOWN = Retryable("connection refused")


@pytest.fixture(autouse=True)
def _no_threads(no_threads: None) -> None: ...


class Run:
    """A daemon over a log that is a list: its sinks and sources, and what came out."""

    def __init__(
        self,
        scripts: Mapping[str, Sequence[Any]] | None = None,
        *,
        lines: int = 5,
        sources: Sequence[Callable[[], StandInSource]] | None = None,
        settings: Mapping[str, Any] | None = None,
        **plan: Any,
    ) -> None:
        self.sinks: dict[str, StandInSink] = {}
        self.sources: list[StandInSource] = []
        self.origin = origin()
        self.code: int | None = None
        once = plan.get("once", False)
        make = sources or [lambda: StandInSource({self.origin: range(1, lines + 1)}, once=once)]
        settings = {"batch_records": 1, **(settings or {})}
        self.plan = Plan(
            [
                RoutePlan(RouteSettings(name, **settings), partial(self._make_sink, script))
                for name, script in (scripts or {"all": []}).items()
            ],
            [SourcePlan(f"{i}", partial(self._make_source, each)) for i, each in enumerate(make)],
            **plan,
        )
        self.daemon = Daemon(self.plan)

    def _make_sink(self, script: Sequence[Any], route: Route) -> StandInSink:
        sink = self.sinks[route.name] = StandInSink(route, script)
        return sink

    def _make_source(self, make: Callable[[], StandInSource]) -> StandInSource:
        self.sources.append(make())
        return self.sources[-1]

    @property
    def route(self) -> Route:
        return self.daemon.router.routes["all"]

    def numbers(self, name: str = "all") -> list[int]:
        return [int(message) for message in self.sinks[name].messages]

    async def run(
        self,
        then: Callable[[Run], Awaitable[None]] | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> int:
        """Run it, and `then` beside it."""
        if then is None:
            self.code = await self.daemon.run(task_status=task_status)
            return self.code
        async with trio.open_nursery() as nursery:
            nursery.start_soon(then, self)
            self.code = await self.daemon.run(task_status=task_status)
        return self.code


def stopping(*after_s: float) -> Callable[[Run], Awaitable[None]]:
    """Asks it to stop after so many seconds, and after so many more again."""

    async def stop(run: Run) -> None:
        for each in after_s:
            await trio.sleep(each)
            run.daemon.stop()

    return stop


# --- once -------------------------------------------------------------------------------------------


async def test_once_delivers_what_is_there_and_ends(autojump_clock: trio.testing.MockClock) -> None:
    run = Run({"all": [1.0] * 5, "other": []}, once=True)
    assert await run.run() == DONE
    assert run.numbers() == run.numbers("other") == [1, 2, 3, 4, 5]
    assert trio.current_time() == pytest.approx(5)


@pytest.mark.parametrize(("once", "expected"), [(True, [1, 2, 3, 4, 5]), (False, [4, 5])])
async def test_once_reads_from_the_beginning_whatever_the_source_starts_with(
    autojump_clock: trio.testing.MockClock, once: bool, expected: list[int]
) -> None:
    web = origin()
    run = Run(
        sources=[lambda: StandInSource({web: range(1, 6)}, once=once, start=position(3))],
        once=once,
    )
    assert await run.run(None if once else stopping(1)) == DONE
    assert run.numbers() == expected


async def test_once_begins_where_a_route_says(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    run = Run(once=True, settings={"start": 3600.0}, state_dir=tmp_path)
    assert await run.run() == DONE
    assert run.daemon.router.routes["all"].settings.start == 3600.0


async def reject(sink: StandInSink, batches: Sequence[Batch]) -> Sequence[Rejected]:
    return [Rejected(0, batches[0].records[0], "no")]


@pytest.mark.parametrize("script", [[0.0, reject], [0.0, SinkGone("closed")]])
async def test_once_is_no_success_if_a_record_was_not_acknowledged(
    autojump_clock: trio.testing.MockClock, script: Sequence[Any]
) -> None:
    assert await Run({"all": script, "other": []}, once=True).run() == UNDELIVERED


@pytest.mark.parametrize("state", [False, True])
async def test_a_dead_letter_that_is_only_in_memory_ends_with_the_daemon(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, state: bool
) -> None:
    run = Run({"all": [0.0, reject]}, state_dir=tmp_path if state else None)
    assert await run.run(stopping(1)) == (DONE if state else UNDELIVERED)


async def lose_perhaps(sink: StandInSink, batches: Sequence[Batch]) -> Sequence[Rejected]:
    sink.context.unconfirmed(2)
    return ()


def said(log_output: Sequence[Mapping[str, Any]], begins: str) -> list[Mapping[str, Any]]:
    return [entry for entry in log_output if entry["event"].startswith(begins)]


async def test_once_is_no_success_if_a_delivered_record_may_be_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with structlog.testing.capture_logs() as log:
        assert await Run({"all": [0.0, lose_perhaps], "other": []}, once=True).run() == UNDELIVERED
    [entry] = said(log, "not every record was acknowledged")
    assert entry["unconfirmed"] == {"all": 2}


@pytest.mark.parametrize("when", ["before", "by its end"])
async def test_a_daemon_whose_end_may_have_cost_records_says_so(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, when: str
) -> None:
    run = Run({"all": [lose_perhaps] if when == "before" else []}, state_dir=tmp_path)

    async def close(self: StandInSink) -> None:
        self.context.unconfirmed(3)

    async def stop(run: Run) -> None:
        await trio.sleep(1)
        if when != "before":
            run.sinks["all"].close = partial(close, run.sinks["all"])  # type: ignore[method-assign]
        run.daemon.stop()

    with structlog.testing.capture_logs() as log:
        code = await run.run(stop)
    [entry] = said(log, "ended, and records of this run may be lost")
    if when == "before":
        assert (code, entry["log_level"]) == (DONE, "warning")
        assert (entry["unconfirmed"], entry["while_ending"]) == ({"all": 2}, {})
    else:
        assert (code, entry["log_level"]) == (UNDELIVERED, "error")
        assert (entry["unconfirmed"], entry["while_ending"]) == ({"all": 3}, {"all": 3})


async def test_once_is_no_success_if_something_was_gone_before_it_could_be_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    run = Run({"all": [1.0]}, once=True)

    async def lose(run: Run) -> None:
        await trio.sleep(0.5)
        run.daemon.router.lost(run.origin, Lost(("all",), "rotated"))

    assert await run.run(lose) == UNDELIVERED
    assert run.numbers() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("script", [[0.0, math.inf], [0.0, *[DOWN] * 9999]])
async def test_once_gives_up_after_its_timeout_without_progress(
    autojump_clock: trio.testing.MockClock, script: Sequence[Any], tmp_path: Path
) -> None:
    """Also where it could go on later: whoever asks for once asks whether all is there."""
    scripts = {"all": script, "other": []}
    settings = {"deadline_s": math.inf}
    run = Run(scripts, settings=settings, once=True, timeout_s=100, state_dir=tmp_path)
    assert await run.run() == UNDELIVERED
    assert 100 <= trio.current_time() <= 110
    assert run.numbers("other") == [1, 2, 3, 4, 5]
    assert run.route.undelivered == 4


async def test_once_takes_all_the_time_that_it_needs_while_there_is_progress(
    autojump_clock: trio.testing.MockClock,
) -> None:
    run = Run({"all": [90.0] * 5}, settings={"deadline_s": 100.0}, once=True, timeout_s=100)
    assert await run.run() == DONE
    assert trio.current_time() == pytest.approx(450)


@pytest.mark.parametrize("where", ["start", "reading"])
async def test_once_gives_up_on_a_source_that_does_not_come_to_its_end(
    autojump_clock: trio.testing.MockClock, where: str
) -> None:
    run = Run(
        once=True,
        timeout_s=100,
        sources=[lambda: StandInSource({}, once=False, start_s=math.inf if where == "start" else 0)],
    )
    assert await run.run() == UNDELIVERED
    assert 100 <= trio.current_time() <= 110


async def test_once_waits_for_every_source(autojump_clock: trio.testing.MockClock) -> None:
    logs = {name: {origin(name): range(1, 4)} for name in ("web", "db")}
    run = Run(
        once=True,
        sources=[
            lambda: StandInSource(logs["web"], once=True),
            lambda: StandInSource(logs["db"], once=True, start_s=50),
        ],
    )
    assert await run.run() == DONE
    assert run.numbers() == [1, 2, 3, 1, 2, 3]


async def test_the_first_signal_while_once_drains_gives_the_grace_period(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """All was read, so the daemon was "stopping" already: the first signal ended it at once."""
    run = Run({"all": [1.0] * 5}, once=True, grace_s=30)
    assert await run.run(stopping(2.5)) == DONE
    assert run.numbers() == [1, 2, 3, 4, 5]
    run = Run({"all": [1.0, math.inf]}, once=True, grace_s=30)
    began = trio.current_time()
    assert await run.run(stopping(2.5)) == UNDELIVERED
    assert trio.current_time() - began == pytest.approx(32.5)
    run = Run({"all": [1.0, math.inf]}, once=True, grace_s=30)
    began = trio.current_time()
    assert await run.run(stopping(2.5, 1)) == UNDELIVERED
    assert trio.current_time() - began == pytest.approx(3.5)


# --- starting ---------------------------------------------------------------------------------------


async def test_a_daemon_whose_sink_is_down_starts_and_delivers_when_it_is_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    run = Run()

    async def come_back(run: Run) -> None:
        await trio.lowlevel.checkpoint()
        run.sinks["all"].down = DOWN
        await trio.sleep(3600)
        assert (run.route.statistics().up, run.route.statistics().reason) == (False, "connection refused")
        assert run.numbers() == []
        run.sinks["all"].down = None
        await trio.sleep(61)
        assert run.numbers() == [1, 2, 3, 4, 5]
        run.daemon.stop()

    assert await run.run(come_back) == DONE


@pytest.mark.parametrize("answer", ["refused", "none", "good"])
async def test_a_daemon_that_starts_with_its_sinks_down_says_which(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str], answer: str
) -> None:
    class Down(StandInSink):
        async def open(self) -> None:
            if answer == "none":
                await trio.sleep_forever()
            if answer == "refused":
                raise DOWN

    run = Run({"good": []})
    bad = RoutePlan(RouteSettings("bad"), Down)
    run.daemon = Daemon(msgspec.structs.replace(run.plan, routes=[*run.plan.routes, bad]))
    await run.run(stopping(20))
    said = capsys.readouterr().out
    assert said.index("started ") < said.find("started degraded") or answer == "good"
    assert ("routes={'bad': 'connection refused'}" in said) is (answer == "refused")
    assert ("routes={'bad': 'no answer yet'}" in said) is (answer == "none")


async def test_started_means_that_every_source_has_started(autojump_clock: trio.testing.MockClock) -> None:
    run = Run(sources=[lambda: StandInSource({}, start_s=3)])
    async with trio.open_nursery() as nursery:
        await nursery.start(run.run)
        assert trio.current_time() == pytest.approx(3)
        run.daemon.stop()
    assert run.code == DONE


async def test_a_source_that_fails_at_the_start_does_not_keep_the_daemon_from_starting(
    autojump_clock: trio.testing.MockClock,
) -> None:
    run = Run(sources=[lambda: StandInSource({}, fails=[OSError("no")])])
    async with trio.open_nursery() as nursery:
        await nursery.start(run.run)
        assert trio.current_time() == 0
        run.daemon.stop()
    assert run.code == DONE


@pytest.mark.parametrize("after_s", [0.0, 1.0])
async def test_a_signal_while_it_starts_ends_it_in_order(
    autojump_clock: trio.testing.MockClock, after_s: float
) -> None:
    run = Run(sources=[lambda: StandInSource({}, start_s=10)])
    if after_s == 0:
        run.daemon.stop()
        assert await run.run() == DONE
    else:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stopping(after_s), run)
            await nursery.start(run.run)
    assert run.code == DONE
    assert trio.current_time() == pytest.approx(after_s)


async def test_what_all_queues_hold_together_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    run = Run({"a": [], "b": [], "c": []}, settings={"queue_bytes": 1000}, memory_bytes=1500, once=True)
    assert await run.run() == DONE
    assert [route.queue.limit_bytes for route in run.daemon.router.routes.values()] == [250] * 3
    run = Run({"a": [], "b": []}, settings={"queue_bytes": 100}, memory_bytes=1500, once=True)
    assert await run.run() == DONE
    assert [route.queue.limit_bytes for route in run.daemon.router.routes.values()] == [100] * 2


# --- the state directory ----------------------------------------------------------------------------


async def test_a_second_daemon_on_the_same_state_is_refused_by_name(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Run(state_dir=tmp_path)

    async def try_a_second(first: Run) -> None:
        await trio.testing.wait_all_tasks_blocked()
        assert await Run(state_dir=tmp_path).run() == FAILED
        first.daemon.stop()

    assert await first.run(try_a_second) == DONE
    assert f"another logroute (process {os.getpid()}) uses state_dir {tmp_path}" in capsys.readouterr().out
    assert await Run(state_dir=tmp_path, once=True).run() == DONE


async def test_a_state_directory_that_cannot_be_had_is_said(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert await Run(state_dir=tmp_path / "file" / "x").run() == FAILED
    said = capsys.readouterr().out
    assert f"cannot use state_dir {tmp_path}/file/x" in said
    assert "--state-dir" in said
    (tmp_path / "state" / "routes" / "all.db").mkdir(parents=True)
    run = Run({"a": [], "all": []}, state_dir=tmp_path / "state")
    assert await run.run() == FAILED
    assert run.daemon.router.routes == {}
    assert "all.db: unable to open database file" in capsys.readouterr().out


@pytest.mark.parametrize("path", ["/proc/logroute", "/proc/self"])
async def test_a_state_directory_that_nobody_can_write_to_is_said(
    autojump_clock: trio.testing.MockClock, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even root can write there."""
    assert await Run(state_dir=Path(path)).run() == FAILED
    said = capsys.readouterr().out
    assert f"cannot use state_dir {path}: " in said
    assert "give another one with --state-dir" in said


async def test_a_file_system_without_locks_is_not_taken_for_another_daemon(
    autojump_clock: trio.testing.MockClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert await Run(state_dir=tmp_path).run() == FAILED
    said = capsys.readouterr().out
    assert f"cannot lock {tmp_path}/lock: No locks available" in said
    assert "--state-dir" in said
    assert "another logroute" not in said


async def test_a_sink_that_cannot_be_made_is_said_and_ends_nothing_with_a_traceback(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    def make(route: Route) -> StandInSink:
        raise OSError("no such certificate")

    run = Run()
    plans = [RoutePlan(RouteSettings("bad"), make)]
    assert await Daemon(msgspec.structs.replace(run.plan, routes=plans)).run() == FAILED
    assert "routes.bad: cannot make its sink: no such certificate" in capsys.readouterr().out


async def test_a_lock_is_held_also_where_its_file_cannot_be_written(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert await Run(state_dir=tmp_path, once=True).run() == DONE


async def test_a_daemon_whose_state_is_damaged_says_so_and_runs(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await Run(state_dir=tmp_path, once=True).run() == DONE
    (tmp_path / "routes" / "all.db").write_bytes(b"no database at all " * 1000)
    run = Run(state_dir=tmp_path, once=True)
    assert await run.run() == DONE
    assert run.numbers() == [1, 2, 3, 4, 5]
    assert "the route's state is damaged, or not ours: moved aside" in capsys.readouterr().out


async def test_a_new_route_beside_old_ones_makes_these_see_nothing_again(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    assert await Run(lines=3, state_dir=tmp_path, once=True).run() == DONE
    second = Run({"all": [], "new": []}, state_dir=tmp_path, once=True, settings={"start": "beginning"})
    assert await second.run() == DONE
    assert second.sources[0].met == [{"web": {"all": 3, "new": 0}}]
    assert second.numbers() == [4, 5]
    assert second.numbers("new") == [1, 2, 3, 4, 5]


async def test_routes_that_are_behind_each_other_each_get_what_they_lack(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    first = Run({"all": [], "slow": [0.0, math.inf]}, state_dir=tmp_path, grace_s=1)
    assert await first.run(stopping(1)) == DONE  # what is behind the checkpoint is not lost
    second = Run({"all": [], "slow": []}, lines=7, state_dir=tmp_path, once=True)
    assert await second.run() == DONE
    assert (first.numbers(), second.numbers()) == ([1, 2, 3, 4, 5], [6, 7])
    assert (first.numbers("slow"), second.numbers("slow")) == ([1], [2, 3, 4, 5, 6, 7])


async def test_a_kill_at_any_instant_loses_nothing_and_changes_no_order(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    copies: list[tuple[Path, int]] = []
    run = Run({"all": [0.1] * 30, "other": [0.3] * 30}, lines=30, state_dir=tmp_path / "state", once=True)

    async def copy_the_state(run: Run) -> None:
        while "all" not in run.sinks or len(run.numbers()) < 30:
            await trio.sleep(0.13)
            copies.append((tmp_path / str(len(copies)), len(run.numbers())))
            shutil.copytree(tmp_path / "state", copies[-1][0])

    assert await run.run(copy_the_state) == DONE
    assert len(copies) > 10
    for folder, delivered in copies:
        again = Run({"all": [], "other": []}, lines=30, state_dir=folder, once=True)
        assert await again.run() == DONE
        for name in ("all", "other"):
            assert again.numbers(name) == list(range(31 - len(again.numbers(name)), 31))
        assert len(again.numbers()) >= 30 - delivered
        # At most what was acknowledged within the time between two commits comes twice.
        assert len(again.numbers()) - (30 - delivered) <= 6


# --- running ----------------------------------------------------------------------------------------


async def test_a_source_that_fails_is_started_again_ever_more_slowly(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    fails: list[Exception] = [OSError(f"no {number}") for number in range(10)]
    run = Run(sources=[lambda: StandInSource({}, fails=[fails.pop(0)] if fails else [])])
    assert await run.run(stopping(1000)) == DONE
    times = [source.runs[0] for source in run.sources]
    expected = [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert [after - before for before, after in pairwise(times)] == [pytest.approx(s) for s in expected]
    said = capsys.readouterr().out
    assert "a source failed, starting it again" in said
    assert "no 9" in said


async def test_a_source_that_failed_after_a_long_time_is_started_again_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    waits = [0.0, 0.0, 0.0, 100.0, 0.0]

    def make() -> StandInSource:
        wait_s = waits.pop(0) if waits else 9999
        return StandInSource({}, fails=[OSError("no")], start_s=wait_s)

    run = Run(sources=[make])
    assert await run.run(stopping(500)) == DONE
    times = [source.runs[0] for source in run.sources]
    assert [b - a for a, b in pairwise(times)] == [pytest.approx(s) for s in (0.5, 1, 2, 100.5, 1)]


async def test_a_source_that_fails_for_days_is_still_started_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    run = Run(sources=[lambda: StandInSource({}, fails=[OSError("no")])])
    assert await run.run(stopping(60.0 * 1200)) == DONE
    assert len(run.sources) > 1100


async def test_a_source_that_fails_ends_nothing_but_itself(autojump_clock: trio.testing.MockClock) -> None:
    other = origin("db")
    run = Run(
        {"all": [], "more": []},
        sources=[
            lambda: StandInSource({}, fails=[ExceptionGroup("g", [OSError("a"), OSError("b")])]),
            lambda: StandInSource({other: range(1, 4)}),
        ],
    )
    assert await run.run(stopping(100)) == DONE
    assert run.numbers() == run.numbers("more") == [1, 2, 3]


async def test_a_sink_that_is_gone_ends_its_route_and_the_last_one_the_daemon(
    autojump_clock: trio.testing.MockClock,
) -> None:
    run = Run({"all": [0.0, SinkGone("closed")], "other": []})
    assert await run.run(stopping(100)) == DONE
    assert run.numbers("other") == [1, 2, 3, 4, 5]
    began = trio.current_time()
    run = Run({"all": [0.0, SinkGone("closed")], "other": [10.0, SinkGone("closed")]})
    assert await run.run() == DONE
    assert trio.current_time() - began == pytest.approx(10)


async def test_a_sink_that_hangs_holds_back_its_own_logs_only(autojump_clock: trio.testing.MockClock) -> None:
    web, db = origin("web"), origin("db")
    run = Run(
        {"all": [], "stuck": [math.inf]},
        sources=[
            lambda: StandInSource({web: range(1, 100)}),
            lambda: StandInSource({db: range(1, 100)}),
        ],
        settings={"queue_bytes": 5000},
    )
    # The stuck route takes web only.
    stuck = run.plan.routes[1]
    settings = msgspec.structs.replace(stuck.settings, match=Match.parse({"container": "web"}))
    run.daemon = Daemon(
        msgspec.structs.replace(
            run.plan, routes=[run.plan.routes[0], msgspec.structs.replace(stuck, settings=settings)]
        )
    )
    assert await run.run(stopping(10, 1)) == UNDELIVERED
    got = run.sinks["all"].got
    assert [n for name, n in got if name == "db"] == [str(n) for n in range(1, 100)]
    assert 3 < len([n for name, n in got if name == "web"]) < 10


# --- ending -----------------------------------------------------------------------------------------


async def test_what_was_read_is_delivered_within_the_grace_period(
    autojump_clock: trio.testing.MockClock,
) -> None:
    run = Run({"all": [2.0] * 5}, grace_s=30)
    assert await run.run(stopping(1)) == DONE
    assert run.numbers() == [1, 2, 3, 4, 5]
    assert trio.current_time() == pytest.approx(10)


@pytest.mark.parametrize("state", [False, True])
async def test_what_the_grace_period_is_too_short_for_is_lost_only_without_a_state(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, state: bool
) -> None:
    run = Run({"all": [0.0, math.inf]}, grace_s=30, state_dir=tmp_path if state else None)
    assert await run.run(stopping(1)) == (DONE if state else UNDELIVERED)
    assert trio.current_time() == pytest.approx(31)
    again = Run(state_dir=tmp_path if state else None, once=True)
    assert await again.run() == DONE
    assert again.numbers() == ([2, 3, 4, 5] if state else [1, 2, 3, 4, 5])


async def test_a_second_signal_ends_it_at_once(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    run = Run({"all": [0.0, math.inf]}, grace_s=30, state_dir=tmp_path)
    assert await run.run(stopping(1, 2)) == DONE
    assert trio.current_time() == pytest.approx(3)
    assert run.sinks["all"].calls[-1][1] == "close"


async def hang_in_a_nursery(_sink: StandInSink, _batches: Sequence[Batch]) -> Sequence[Rejected]:
    """Its cancellation comes out in a group."""
    async with trio.open_nursery():
        await trio.sleep_forever()
    return ()


@pytest.mark.parametrize("hangs", [math.inf, hang_in_a_nursery], ids=["alone", "in a nursery"])
async def test_what_was_taken_of_a_delivery_that_the_end_cuts_short_is_not_sent_again(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, hangs: Any
) -> None:
    """A receiver that refuses a whole gets its halves, and takes the first one before it hangs."""
    script = [Refused("too large"), 0.0, hangs]
    settings = {"batch_records": 6, "batch_wait_s": 0.5, "disk_bytes": 1 << 20}
    run = Run({"all": script}, lines=6, settings=settings, grace_s=5, state_dir=tmp_path)
    assert await run.run(stopping(1)) == DONE
    assert run.numbers() == [1, 2, 3]
    again = Run(lines=6, settings=settings, state_dir=tmp_path)
    assert await again.run(stopping(1)) == DONE
    assert again.numbers() == [4, 5, 6]


@pytest.mark.parametrize("takes_s", [math.inf, 0.0], ids=["while it drains", "while it ends"])
async def test_a_second_signal_waits_for_no_sink_and_no_disk_that_hangs(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes_s: float
) -> None:
    run = Run({"all": [0.0, takes_s]}, grace_s=30, state_dir=tmp_path)
    in_thread = trio.to_thread.run_sync

    async def hang(*args: Any, **more: Any) -> Any:
        if trio.current_time() > 1.5:
            await trio.sleep_forever()
        return await in_thread(*args, **more)

    async def close(_: StandInSink) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(StandInSink, "close", close)
    monkeypatch.setattr(trio.to_thread, "run_sync", hang)
    await run.run(stopping(2, 1))
    assert trio.current_time() <= 3 + 3 * HURRIED_WITHIN_S


class FailsWhenCancelled(StandInSource):
    """Its nursery makes a group of our cancellation and of its own failure."""

    async def run(self, *args: Any, **more: Any) -> None:
        async def fail() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise OSError("cannot close")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await super().run(*args, **more)


async def test_a_source_that_fails_while_it_ends_takes_no_record_with_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    run = Run({"all": [1.0] * 5}, sources=[lambda: FailsWhenCancelled({origin(): range(1, 6)})])
    assert await run.run(stopping(1)) == DONE
    assert run.numbers() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_and_a_second_one_at_once(number: signal.Signals) -> None:
    hanging = trio.Event()

    async def hang(sink: StandInSink, batches: Sequence[Batch]) -> Sequence[Rejected]:
        hanging.set()
        await trio.sleep_forever()
        return ()

    run = Run({"all": [0.0, hang]})

    async def send(run: Run) -> None:
        await hanging.wait()
        os.kill(os.getpid(), number)
        await trio.sleep(0.1)
        assert run.code is None
        os.kill(os.getpid(), number)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(stop_on_signals, run.daemon)
            assert await run.run(send) == UNDELIVERED
            nursery.cancel_scope.cancel()


class HangsForEver:
    """A daemon whose end waits for a disk that no deadline reaches."""

    watch = SimpleNamespace()

    def __init__(self) -> None:
        self.asked = trio.Event()

    def stop(self) -> None:
        self.asked.set()


async def test_who_asks_twice_does_not_wait_for_a_daemon_that_cannot_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    daemon, given_up = HangsForEver(), trio.Event()

    async def ask() -> None:
        daemon.asked = trio.Event()
        os.kill(os.getpid(), signal.SIGTERM)
        await daemon.asked.wait()

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(stop_on_signals, cast(Any, daemon), give_up=given_up.set))
        await ask()
        await trio.sleep(1000)
        assert not given_up.is_set()
        await ask()
        await trio.sleep(AT_ONCE_S + 0.1)
        assert given_up.is_set()
        nursery.cancel_scope.cancel()


async def test_a_hangup_ends_nothing() -> None:
    """As where a terminal is closed, or somebody asks for a reload."""
    run = Run({"all": [0.0]})

    async def send(run: Run) -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert run.code is None
        run.daemon.stop()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(stop_on_signals, run.daemon)
            assert await run.run(send) == DONE
            nursery.cancel_scope.cancel()


# --- systemd ----------------------------------------------------------------------------------------


class Manager:
    """What systemd hears."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def heard(self) -> list[str]:
        words = []
        while True:
            try:
                words.append(self.socket.recv(1000).decode())
            except BlockingIOError:
                return words


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    address = str(tmp_path / "notify") if request.param == "file" else f"@logroute-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    made = Manager(address)
    yield made
    made.socket.close()


async def test_systemd_is_told_when_it_is_ready_and_when_it_begins_to_stop(
    autojump_clock: trio.testing.MockClock, manager: Manager
) -> None:
    run = Run({"all": [60.0]}, sources=[lambda: StandInSource({origin(): [1]}, start_s=3)])

    async def listen(run: Run) -> None:
        await trio.sleep(2.9)
        assert manager.heard() == []
        await trio.sleep(0.2)
        assert manager.heard() == ["READY=1"]
        run.daemon.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert manager.heard() == ["STOPPING=1"]

    assert await run.run(listen) == UNDELIVERED
    assert manager.heard() == []


async def test_a_daemon_that_is_stopped_before_it_is_ready_never_says_that_it_is(
    autojump_clock: trio.testing.MockClock, manager: Manager
) -> None:
    run = Run(sources=[lambda: StandInSource({}, start_s=3)])
    assert await run.run(stopping(1)) == DONE
    assert manager.heard() == ["STOPPING=1"]


async def test_the_watchdog_is_kept_quiet_twice_in_its_time(
    autojump_clock: trio.testing.MockClock, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert await Run().run(stopping(100)) == DONE
    heard = manager.heard()
    assert heard.count("WATCHDOG=1") == 7  # at 0, 15, 30 … 90
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert await Run().run(stopping(100)) == DONE
    assert "WATCHDOG=1" not in manager.heard()
    monkeypatch.delenv("WATCHDOG_PID")
    monkeypatch.setenv("WATCHDOG_USEC", "soon")
    await keep_watchdog_quiet(lambda: True)


async def test_the_watchdog_is_not_kept_quiet_while_a_source_stands(
    autojump_clock: trio.testing.MockClock, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Standing(StandInSource):
        @property
        def standing_s(self) -> float:
            return trio.current_time() - began

    began = trio.current_time()
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert await Run(sources=[lambda: Standing({})]).run(stopping(100)) == DONE
    assert manager.heard().count("WATCHDOG=1") == 4  # at 0, 15, 30, 45


async def test_a_manager_that_does_not_listen_delays_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("READY=1")
    assert "cannot notify systemd" in capsys.readouterr().out
    manager = Manager(str(tmp_path / "deaf"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "deaf"))
    for _ in range(10_000):  # more than any socket holds
        notify("WATCHDOG=1")
    assert "cannot notify systemd" in capsys.readouterr().out
    manager.socket.close()


# --- as a process -----------------------------------------------------------------------------------

CONFIG = """\
state_dir: {folder}/state
sources: {{docker: {{host: unix://{folder}/no-engine.sock}}}}
routes: {{all: {{sink: file://{folder}/out.ndjson}}}}
"""


def logroute(*arguments: str, stop: bool = False, folder: Path) -> tuple[int, str]:
    """Run it as a process; its exit code, and what it said."""
    environment = {k: v for k, v in os.environ.items() if k not in ("LOGROUTE_CONFIG", "NOTIFY_SOCKET")}
    command = [sys.executable, "-m", "logroute", "run", *arguments]
    root = str(Path(module.__file__).parents[2])
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**environment, "PYTHONPATH": root},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = ""
    if stop:
        for line in process.stderr:
            said += line
            if '"started"' in line:
                process.send_signal(signal.SIGTERM)
                break
    rest = process.communicate(timeout=60)[1]
    return process.returncode, said + rest


def test_exit_codes_tell_what_became_of_it(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.format(folder=tmp_path))
    run = partial(logroute, folder=tmp_path)
    code, said = run("-c", "config.yaml", stop=True)
    assert code == 0, said
    code, said = run("-c", "config.yaml", "--once", "--timeout", "1s")
    assert (code, "no progress" in said) == (3, True), said
    code, said = run("-c", "config.yaml", "--state-dir", "config.yaml")
    assert (code, "cannot use state_dir" in said, "Traceback" in said) == (1, True, False), said
    code, said = run()
    assert (code, "logroute run file:///" in said) == (2, True), said
    code, said = run("tcp://nowhere")
    assert (code, "Traceback" in said) == (2, False), said
