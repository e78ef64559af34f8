"""What stands in for the outside in tests of the router: origins, batches, a sink and a source on strings."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

import pytest
import trio

from logroute.router.position import BEGINNING, Anchor, Position, StreamPosition
from logroute.router.record import ALL_STREAMS, Batch, Origin, Record, Stream, message_hash
from logroute.router.route import Route
from logroute.router.state import RouteState
from logroute.sinks import DELIVERED, Outcome, Rejected, Sink, SinkOptions
from logroute.sources import Checkpoints, Emit, Source, SourceContext, SourceOptions, Start

CREATED = "2026-11-23T20:00:00.000000000Z"


def origin(name: str = "web") -> Origin:
    return Origin(f"docker:{name}", "docker", id=name * 12, name=name)


def anchor(number: int) -> Anchor:
    return Anchor(time_of(number), 0, message_hash(str(number)))


def position(stdout: int = 0, stderr: int = 0) -> Position:
    """Behind the records of these numbers; 0 is the beginning."""
    return Position(
        StreamPosition(anchor=anchor(stdout) if stdout else None),
        StreamPosition(anchor=anchor(stderr) if stderr else None),
    )


def number_of(position: Position, stream: Stream = "stdout") -> int:
    """The number of the record that a position is behind."""
    found = position.of(stream).anchor
    return int(found.time[20:29]) if found else 0


def time_of(number: int) -> str:
    return f"2026-11-23T20:06:26.{number:09d}Z"


def batch(
    of: Origin,
    numbers: Sequence[int],
    stream: Stream = "stdout",
    *,
    other: int = 0,
    size_bytes: int | None = None,
    acknowledged: Mapping[str, frozenset[Stream]] | None = None,
) -> Batch:
    """Records whose messages are their numbers; `other` is how far the other stream has been read."""
    records = [Record(str(number), stream, time_of(number)) for number in numbers]
    before, after = numbers[0] - 1, numbers[-1]
    places = [(before, other), (after, other)] if stream == "stdout" else [(other, before), (other, after)]
    return Batch(
        of,
        records,
        before=position(*places[0]),
        after=position(*places[1]),
        size_bytes=100 * len(records) if size_bytes is None else size_bytes,
        acknowledged=acknowledged,
    )


Step = Callable[["StandInSink", Sequence[Batch]], Awaitable[Sequence[Rejected] | None]]


class StandInOptions(SinkOptions):
    """A sink for tests."""

    type: Literal["stand-in"] = "stand-in"


class StandInSink(Sink[StandInOptions]):
    """Does what its script says, step by step, then takes everything. What it took is in `got`."""

    batch_bytes = 1 << 20

    def __init__(self, route: Route, script: Sequence[Exception | Step | float] = ()) -> None:
        super().__init__(StandInOptions(), route)
        self.script: list[Any] = list(script)
        self.got: list[tuple[str, str]] = []
        """(origin's name, message) of every record of a delivery that returned."""
        self.calls: list[tuple[float, str]] = []
        """(time, what was called)."""
        self.down: Exception | None = None
        """What `open` raises."""
        self.under_way = 0

    def called(self, name: str) -> list[float]:
        """When it was called."""
        return [at for at, what in self.calls if what == name]

    @property
    def messages(self) -> list[str]:
        return [message for _, message in self.got]

    def take(self, batches: Sequence[Batch]) -> None:
        self.got += [(batch.origin.name, record.message) for batch in batches for record in batch.records]

    async def open(self) -> None:
        self.calls.append((trio.current_time(), "open"))
        if self.down is not None:
            raise self.down

    async def deliver(self, batches: Sequence[Batch]) -> Outcome:
        self.calls.append((trio.current_time(), "deliver"))
        assert self.under_way == 0, "two deliveries at once"
        self.under_way = 1
        rejected: Sequence[Rejected] | None = ()
        try:
            step = self.script.pop(0) if self.script else None
            if isinstance(step, Exception):
                raise step
            if isinstance(step, int | float):
                await trio.sleep(step)
            elif step is not None:
                rejected = await step(self, batches)
        finally:
            self.under_way = 0
        if rejected is None:
            return DELIVERED
        self.take(batches)
        return Outcome(rejected)

    async def idle(self) -> None:
        self.calls.append((trio.current_time(), "idle"))
        assert self.under_way == 0, "idle beside a delivery"

    async def close(self) -> None:
        self.calls.append((trio.current_time(), "close"))


class StandInSourceOptions(SourceOptions):
    """A source for tests."""

    type: Literal["stand-in"] = "stand-in"


class StandInSource(Source[StandInSourceOptions]):
    """Numbers from a log that is a list, from the lowest checkpoint on; like a docker source."""

    def __init__(
        self,
        logs: Mapping[Origin, Sequence[int]],
        *,
        once: bool = False,
        created: str = CREATED,
        fails: Sequence[Exception] = (),
        start_s: float = 0.0,
        start: Position = BEGINNING,
    ) -> None:
        super().__init__(StandInSourceOptions(), SourceContext("stand-in", once=once))
        self.logs = logs
        self.created = created
        self.fails = list(fails)
        self.start_s = start_s
        self.start = start
        self.runs: list[float] = []
        self.met: list[dict[str, dict[str, int]]] = []
        self.welcomed = 0

    async def welcome(self) -> None:
        self.welcomed += 1

    async def run(
        self,
        emit: Emit,
        checkpoints: Checkpoints,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self.runs.append(trio.current_time())
        await trio.sleep(self.start_s)
        found = await checkpoints.meet({o: Start(self.created, self.start) for o in self.logs})
        self.met.append({o.name: {route: number_of(p) for route, p in of.items()} for o, of in found.items()})
        if self.fails:
            raise self.fails.pop(0)
        task_status.started()
        for each, numbers in self.logs.items():
            first = min((number_of(p) for p in found[each].values()), default=0)
            for number in numbers:
                if number <= first:
                    continue
                done = {name: ALL_STREAMS for name, p in found[each].items() if number_of(p) >= number}
                while not emit.has_room(each):
                    await emit.wait_for_room()
                await emit([batch(each, [number], acknowledged=done or None)])
        if not self.context.once:
            await trio.sleep_forever()


def hanging_store(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Have the disk not answer whoever stores something, until this is set."""
    answers = threading.Event()
    store = RouteState._store

    def hang(*args: Any) -> Any:
        assert answers.wait(10)
        return store(*args)

    monkeypatch.setattr(RouteState, "_store", hang)
    return answers


async def inline(work: Callable[..., Any], *args: Any, **_limits: Any) -> Any:
    """`trio.to_thread.run_sync` without a thread: the mock clock would not wait for one."""
    await trio.lowlevel.checkpoint()
    return work(*args)
