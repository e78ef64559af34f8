"""Following a container's log by API: every record once, in order, with the ids that the file gives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import trio
from trio.testing import MockClock

from logroute.router.position import BEGINNING, Position
from logroute.router.record import Batch, Record
from logroute.router.times import iso_time
from logroute.simulator import DOCKER_20_10, DOCKER_26_1, NEWEST, Quirks, SimulatedContainer, SimulatedEngine
from logroute.sources import Lost
from logroute.sources.engine import Engine, EngineAway, EngineRefused, origin_from
from logroute.sources.engine_address import EngineAddress
from logroute.sources.engine_answers import ContainerDetails, HostConfig, LogConfig, rotation_bytes
from logroute.sources.engine_batches import PENDING_BYTES, STALL_S
from logroute.sources.engine_logs import EngineLog, Outcome
from logroute.sources.engine_resume import advanced
from tests.sources.stand_ins import records_of_file

LIMIT = 1 << 20
QUIRKS = [
    pytest.param(Quirks(), id="plain"),
    pytest.param(DOCKER_20_10, id="20.10"),
    pytest.param(DOCKER_26_1, id="26.1"),
    pytest.param(NEWEST, id="newest"),
]


class Reading:
    """One EngineLog, what came of it, and a gate in front of what takes it."""

    def __init__(self, log: EngineLog, losses: list[tuple[object, ...]]) -> None:
        self.log = log
        self.losses = losses
        self.batches: list[Batch] = []
        self.records: list[str] = []
        self.messages: list[str] = []
        self.taking = trio.Event()
        self.taking.set()
        self._came = trio.lowlevel.ParkingLot()

    async def offer(self, batch: Batch) -> None:
        await self.taking.wait()
        if self.batches and not self.losses:
            assert batch.before == self.batches[-1].after
        self.batches.append(batch)
        self.records += [f"{batch.origin.record_id(r)} {r.stream} {r.message}" for r in batch.records]
        self.messages += [record.message for record in batch.records]
        self._came.unpark_all()

    async def until(self, message: str) -> None:
        while message not in self.messages:
            await self._came.park()

    async def run(self, resume: Position = BEGINNING, *, follow: bool = True) -> Outcome:
        """To its end, patiently."""
        while True:
            try:
                return await self.log.run(self.offer, {"all": resume}, follow=follow)
            except EngineAway:
                await trio.sleep(0.5)


class Ticking:
    """A clock that goes on by a microsecond with each look; somebody may set it back."""

    def __init__(self) -> None:
        self.now_ns = 1_700_000_000 * 10**9

    def __call__(self) -> int:
        self.now_ns += 1000
        return self.now_ns


def running(engine: SimulatedEngine, **options: Any) -> SimulatedContainer:
    container = engine.create("web", **options)
    container.start()
    return container


async def reading_new(engine: SimulatedEngine, **options: Any) -> tuple[SimulatedContainer, Reading]:
    container = running(engine, **options)
    return container, await reading_of(engine, container)


async def reading_of(engine: SimulatedEngine, container: SimulatedContainer) -> Reading:
    reading, _ = await reading_at(engine.host, container.id)
    return reading


async def reading_at(host: str, reference: str) -> tuple[Reading, ContainerDetails]:
    client = Engine(EngineAddress.parse(host, "the test"))
    details = await client.inspect(reference)
    origin = origin_from(details, source="docker", host="node", runtime=client.runtime)
    losses: list[tuple[object, ...]] = []

    def lost(gap: Lost) -> None:
        losses.append((gap.routes, gap.reason, {"since": gap.since, "until": gap.until}))

    return Reading(EngineLog(client, details, origin, limit=LIMIT, lost=lost), losses), details


@asynccontextmanager
async def following(reading: Reading, resume: Position = BEGINNING) -> AsyncIterator[None]:
    """Read in the background; at the end of the block wait until it has ended."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reading.run, resume)
        yield


def by_file(container: SimulatedContainer, reading: Reading) -> list[str]:
    assert container.log_path is not None
    return by_path(str(container.log_path), reading)


def by_path(path: str, reading: Reading) -> list[str]:
    origin = reading.log.origin
    return [f"{origin.record_id(r)} {r.stream} {r.message}" for r in records_of_file(path, origin, LIMIT)]


@pytest.fixture(params=QUIRKS)
async def engine(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[SimulatedEngine]:
    async with SimulatedEngine(tmp_path / "engine", quirks=request.param, seed=1) as engine:
        yield engine


@pytest.fixture
async def plain_engine(tmp_path: Path) -> AsyncIterator[SimulatedEngine]:
    async with SimulatedEngine(tmp_path / "engine", seed=1) as engine:
        yield engine


def write_everything(container: SimulatedContainer) -> None:
    for number in range(300):
        container.write(f"line {number}\n", "stderr" if number % 3 == 0 else "stdout")
    for text in (b"\n", b"\r\n", b"a\0b\x1b[2J\n", b"bad \xff\xfe\xe2\x82 \n", "ä€😀\n".encode()):
        container.write(text)
    container.write(b"x" * 1_000_000 + b"\n")
    container.write(b"y" * 16384 + b"\n")
    container.write(b"z" * 2_000_000 + b"\n", "stderr")
    for number in range(5):
        container.write(
            f"same time {number}\n", time_ns=container.engine.clock() + 10**7 if not number else 0
        )


@pytest.mark.parametrize("tty", [False, True], ids=["frames", "terminal"])
async def test_records_are_those_of_the_file(engine: SimulatedEngine, tty: bool) -> None:
    container = running(engine, tty=tty)
    write_everything(container)
    reading = await reading_of(engine, container)
    async with following(reading):
        await reading.until("same time 4\r" if tty else "same time 4")
        container.write("while it is followed\n")
        container.write("and unfinished")
        await reading.until("while it is followed" + "\r" * tty)
        container.exit()
    assert reading.records == by_file(container, reading)
    assert reading.losses == []
    assert reading.messages[-1] == "and unfinished"


@pytest.mark.parametrize("driver", ["json-file", "local"])
async def test_a_log_that_is_not_followed_is_read_to_its_end(engine: SimulatedEngine, driver: str) -> None:
    container = running(engine, log_driver=driver)
    container.write_many([b"line %d" % n for n in range(5000)])
    container.write("not finished yet")
    reading = await reading_of(engine, container)
    assert await reading.run(follow=False) == "ended"
    assert reading.messages == [f"line {n}" for n in range(5000)]
    container.exit()
    assert await reading.run(follow=False) == "ended"
    assert reading.messages[5000:] == ["not finished yet"]


async def test_wherever_it_is_cut_each_record_comes_once(engine: SimulatedEngine) -> None:
    container = running(engine)
    write_everything(container)
    container.exit()
    first = await reading_of(engine, container)
    await first.run()
    whole = first.records
    records = [record for batch in first.batches for record in batch.records]
    for cut in [*range(0, len(records), 37), len(records) - 2, len(records)]:
        position = advanced(BEGINNING, records[:cut])
        again = await reading_of(engine, container)
        await again.run(position)
        assert again.records == whole[cut:]
        assert again.losses == []


async def test_an_engine_that_restarts_is_gone_on_with(
    engine: SimulatedEngine, autojump_clock: MockClock
) -> None:
    container, reading = await reading_new(engine)
    async with following(reading):
        for number in range(5):
            container.write(f"before {number}\n")
            container.write(b"p" * 20_000)
            await reading.until(f"before {number}")
            await engine.restart(3.0)
            container.write(f"after {number}\n")
            container.write(f"err {number}\n", "stderr")
            await reading.until(f"err {number}")
        container.exit()
    assert reading.records == by_file(container, reading)
    assert reading.losses == []


async def test_a_container_that_restarts_is_one_log(
    engine: SimulatedEngine, autojump_clock: MockClock
) -> None:
    container, reading = await reading_new(engine)
    async with following(reading):
        container.write("first run\n")
        container.write("ends without newline")
        await reading.until("first run")
        container.restart()
        container.write("second run\n")
        await reading.until("second run")
        container.pause()
        container.unpause()
        container.rename("other")
        container.write("still\n")
        await reading.until("still")
        container.exit()
    assert reading.messages == ["first run", "ends without newline", "second run", "still"]
    assert reading.records == by_file(container, reading)


async def test_a_container_that_is_removed_at_its_end_is_read_to_its_end(engine: SimulatedEngine) -> None:
    container, reading = await reading_new(engine, auto_remove=True)
    async with following(reading):
        container.write("first\n")
        await reading.until("first")
        container.write_many([b"line %d" % n for n in range(3000)])
        container.write("last words")
        container.exit()
    assert reading.messages == ["first", *(f"line {n}" for n in range(3000)), "last words"]
    assert reading.losses == []


async def test_what_is_removed_while_a_route_is_about_to_join_was_read(engine: SimulatedEngine) -> None:
    container, reading = await reading_new(engine)
    fork = await reading_of(engine, container)
    async with following(reading):
        container.write("first\n")
        await reading.until("first")
        reading.taking = trio.Event()
        container.write("held up\n")
        while reading.log.position.stdout.anchor == reading.batches[-1].after.stdout.anchor:  # noqa: ASYNC110 - nothing tells
            await trio.sleep(0.001)
        reading.log.join(fork.log, dict)
        container.write("last words\n")
        await trio.sleep(0.1)
        container.remove(force=True)
        reading.log.ended = True
        reading.taking.set()
    assert reading.messages == ["first", "held up", "last words"]
    assert reading.losses == []
    assert reading.log.unjoined() == [fork.log]


async def test_a_container_that_went_unread_is_reported(plain_engine: SimulatedEngine) -> None:
    container = running(plain_engine)
    container.write("never read\n")
    reading = await reading_of(plain_engine, container)
    container.remove(force=True)
    assert await reading.run() == "removed"
    assert reading.losses == [(("",), "removed", {"since": "", "until": ""})]


async def test_a_driver_that_cannot_be_read_is_refused(plain_engine: SimulatedEngine) -> None:
    _, reading = await reading_new(plain_engine, log_driver="syslog")
    with pytest.raises(EngineRefused) as raised:
        await reading.run()
    assert raised.value.unreadable


async def test_a_log_that_nobody_takes_is_not_kept_open(
    engine: SimulatedEngine, autojump_clock: MockClock
) -> None:
    container, reading = await reading_new(engine)
    reading.taking = trio.Event()
    async with following(reading):
        container.write_many([b"%0150d" % n for n in range(40_000)])
        await trio.sleep(3 * STALL_S)
        assert reading.log.statistics.stalls == 1
        assert reading.log.statistics.records * 400 < 2 * PENDING_BYTES
        await trio.sleep(3600)
        assert reading.log.statistics.openings == 1
        reading.taking.set()
        await reading.until(f"{39_999:0150}")
        container.exit()
    assert reading.messages == [f"{n:0150}" for n in range(40_000)]


@pytest.mark.parametrize("step", [10, 100, 400])
async def test_rotation_under_a_writer_that_the_engine_follows(
    engine: SimulatedEngine, autojump_clock: MockClock, step: int
) -> None:
    container, reading = await reading_new(engine, log_opts={"max-size": "100k", "max-file": "3"})
    count = 8000
    async with following(reading):
        for start in range(0, count, step):
            for number in range(start, start + step):
                container.write(b"%0100d\n" % number, "stderr" if number % 5 == 0 else "stdout")
            await trio.sleep(step / 1000)
        await reading.until(f"{count - 1:0100}")
        container.exit()
    assert reading.messages == [f"{n:0100}" for n in range(count)]
    assert reading.losses == []


async def test_streams_opened_during_a_rotation_stand_still_and_cost_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """They would leave out a whole file. Rotated twice a second, half of them are so."""
    lines = 0

    def clock() -> int:
        return 1_700_000_000 * 10**9 + int(trio.current_time() * 10**9) + lines

    quirks = Quirks(rotation_glitch="skips and repeats", opening_race_s=0.25)
    async with SimulatedEngine(tmp_path / "engine", quirks=quirks, clock=clock) as engine:
        container, reading = await reading_new(engine, log_opts={"max-size": "100k", "max-file": "3"})
        count = 12_000
        async with following(reading):
            for lines in range(count):
                container.write(b"%0100d\n" % lines, "stderr" if lines % 5 == 0 else "stdout")
                if lines % 100 == 0:
                    await trio.sleep(0.08)
            await reading.until(f"{count - 1:0100}")
            container.exit()
        assert container.log.stale_openings > 3  # type: ignore[union-attr]
    assert reading.messages == [f"{n:0100}" for n in range(count)]
    assert reading.losses == []


async def test_what_was_rotated_away_meanwhile_is_reported_and_the_rest_comes(
    engine: SimulatedEngine,
) -> None:
    container = running(engine, log_opts={"max-size": "20k", "max-file": "2"})
    container.write("seen\n")
    reading = await reading_of(engine, container)
    await reading.run(follow=False)
    for number in range(1000):
        container.write(b"%0100d\n" % number)
    container.exit()
    assert await reading.run() == "ended"
    there = by_file(container, reading)
    assert reading.records[1:] == there
    assert len(there) < 1000
    seen, *rest = [record for batch in reading.batches for record in batch.records]
    assert reading.losses == [(("all",), "rotated", {"since": seen.time, "until": rest[0].time})]


async def test_nothing_before_the_wanted_time_comes(engine: SimulatedEngine) -> None:
    container = running(engine)
    start = engine.clock()
    for number in range(10):
        container.write(f"line {number}\n", time_ns=start + number * 10**9)
    container.exit()
    reading = await reading_of(engine, container)
    await reading.run(Position(since=iso_time(start + 5 * 10**9)))
    assert reading.messages == [f"line {n}" for n in range(5, 10)]


async def test_a_clock_that_is_set_back_loses_and_repeats_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    clock = Ticking()
    async with SimulatedEngine(tmp_path / "engine", clock=clock) as engine:
        container, reading = await reading_new(engine, log_opts={"max-size": "10m", "max-file": "2"})
        async with following(reading):
            container.write("before\n")
            await reading.until("before")
            clock.now_ns -= 3600 * 10**9
            container.write("after\n")
            await reading.until("after")
            await engine.restart()
            container.write("later\n")
            await reading.until("later")
            container.exit()
    assert reading.messages == ["before", "after", "later"]
    assert reading.losses == []


@pytest.mark.parametrize("quirks", QUIRKS)
@pytest.mark.parametrize("max_file", ["2", "50"], ids=["rotated away", "whole"])
async def test_what_was_read_is_found_where_the_clock_was_set_back_and_only_while_it_is_there(
    tmp_path: Path, quirks: Quirks, max_file: str
) -> None:
    clock = Ticking()
    async with SimulatedEngine(tmp_path / "engine", quirks=quirks, clock=clock) as engine:
        container, reading = await reading_new(engine, log_opts={"max-size": "12k", "max-file": max_file})
        times: list[str] = []
        for number in range(201):
            container.write(f"{'x' * 200}\n")
            times.append(iso_time(clock.now_ns))
            if number == 0:
                clock.now_ns -= 3600 * 10**9
        found = [await reading.log.has(times[number]) for number in (0, 1, 200)]
        assert found == ([False, False, True] if max_file == "2" else [True, True, True])
        assert not await reading.log.has(iso_time(clock.now_ns - 1))
        await engine.stop()
        with pytest.raises(EngineAway):
            await reading.log.has(times[200])


async def test_a_log_whose_clock_was_set_back_is_soon_followed_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Until it is read again, what is removed is lost; every opening costs the engine the whole log."""
    clock = Ticking()
    async with SimulatedEngine(tmp_path / "engine", clock=clock) as engine:
        container, reading = await reading_new(engine, log_opts={"max-size": "10m", "max-file": "2"})
        async with following(reading):
            for at in range(3):
                container.write(f"before {at}\n")
                await reading.until(f"before {at}")
                clock.now_ns -= 3600 * 10**9
                openings = reading.log.statistics.openings
                container.write(f"after {at}\n")
                await reading.until(f"after {at}")
                await trio.sleep(5)
                assert reading.log.statistics.openings <= openings + 4
                for number in range(50):
                    await trio.sleep(0.1)
                    container.write(f"later {at} {number}\n")
                await reading.until(f"later {at} 49")
                assert reading.log.statistics.openings <= openings + 4
            container.exit()
    assert reading.losses == []


async def test_a_log_that_goes_on_while_its_end_is_asked_for_is_followed(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clock() -> int:
        return 1_700_000_000 * 10**9 + int(trio.current_time() * 10**9)

    async with SimulatedEngine(tmp_path / "engine", clock=clock) as engine:
        container, reading = await reading_new(engine, log_opts={"max-size": "1m", "max-file": "2"})
        last, asked = reading.log._last, 0

        async def last_of_a_busy_log() -> Record | None:
            nonlocal asked
            asked += 1
            if container.is_running:
                container.write(f"meanwhile {asked}\n")
            return await last()

        monkeypatch.setattr(reading.log, "_last", last_of_a_busy_log)
        async with following(reading):
            for number in range(20):
                await trio.sleep(0.3)
                container.write(f"{number}\n")
                await reading.until(f"{number}")
            assert (asked, reading.log.statistics.openings) == (1, 1)
            container.exit()
    assert reading.losses == []


async def test_a_look_through_the_log_that_was_cut_is_no_word_of_what_is_gone(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SimulatedEngine(tmp_path / "engine") as engine:
        container = running(engine)
        for number in range(100):
            container.write(f"line {number}\n", "stderr" if number % 3 == 0 else "stdout")
        first = await reading_of(engine, container)
        await first.run(follow=False)
        stored = first.log.position
        again = await reading_of(engine, container)
        receive, looks = again.log._receive, 0
        look_through = again.log._look_through

        async def cut(stream: Any, *, follow: bool) -> bytes:
            # The log's last piece is told; then the connection ends, as it does when the engine goes away.
            data = await receive(stream, follow=follow)
            return data if looks != 1 or len(data) < 1000 else b""

        async def look(locators: Any) -> bool:
            nonlocal looks
            looks += 1
            return await look_through(locators)

        monkeypatch.setattr(again.log, "_receive", cut)
        monkeypatch.setattr(again.log, "_look_through", look)
        again.log._begin({"all": stored})
        await again.log._locate()
        assert looks == 2
        assert again.losses == []
        assert again.log.position == stored


@pytest.mark.parametrize(
    "back_ns",
    [
        pytest.param(3600 * 10**9, id="before all that is known"),
        pytest.param(12_345, id="before the one that is behind"),
        pytest.param(8_345, id="between them"),
    ],
)
async def test_a_route_that_is_behind_loses_nothing_where_the_clock_was_set_back_since(
    tmp_path: Path, autojump_clock: MockClock, back_ns: int
) -> None:
    clock = Ticking()
    async with SimulatedEngine(tmp_path / "engine", clock=clock) as engine:
        container = engine.create("web")
        container.start()
        for number in range(20):
            if number == 10:
                clock.now_ns -= back_ns
            container.write(f"line {number}\n", "stderr" if number % 3 == 0 else "stdout")
        container.exit()
        first = await reading_of(engine, container)
        await first.run()
        records = [record for batch in first.batches for record in batch.records]
        positions = {"behind": advanced(BEGINNING, records[:6]), "ahead": advanced(BEGINNING, records[:14])}
        again = await reading_of(engine, container)
        got: dict[str, list[str]] = {route: [] for route in positions}

        async def offer(batch: Batch) -> None:
            for route, theirs in got.items():
                has = (batch.acknowledged or {}).get(route, frozenset())
                theirs += [record.message for record in batch.records if record.stream not in has]

        await again.log.run(offer, positions)
    assert got == {"behind": first.messages[6:], "ahead": first.messages[14:]}


async def test_an_error_of_the_engine_is_told_and_ends_the_reading(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with SimulatedEngine(tmp_path / "engine", quirks=Quirks(tells_read_errors=1)) as engine:
        container = running(engine)
        container.write("good\n")
        container.exit()
        assert container.log_path is not None
        with container.log_path.open("ab") as file:
            file.write(b"this is no JSON\n")
        reading = await reading_of(engine, container)
        with pytest.raises(EngineRefused, match="cannot read the log of web"):
            await reading.run()
        assert reading.messages == ["good"]


async def test_routes_that_are_further_on_are_told_what_they_have(engine: SimulatedEngine) -> None:
    container = running(engine)
    for number in range(100):
        container.write(f"line {number}\n", "stderr" if number % 3 == 0 else "stdout")
    container.exit()
    first = await reading_of(engine, container)
    await first.run()
    records = [record for batch in first.batches for record in batch.records]
    positions = {
        "new": BEGINNING,
        "half": advanced(BEGINNING, records[:50]),
        "done": advanced(BEGINNING, records),
    }
    again = await reading_of(engine, container)
    got: dict[str, list[Record]] = {route: [] for route in positions}

    async def offer(batch: Batch) -> None:
        for route, theirs in got.items():
            has = (batch.acknowledged or {}).get(route, frozenset())
            theirs += [record for record in batch.records if record.stream not in has]

    await again.log.run(offer, positions)
    assert [record.message for record in got["new"]] == [record.message for record in records]
    assert [record.message for record in got["half"]] == [record.message for record in records[50:]]
    assert got["done"] == []


async def test_a_line_that_is_long_unfinished_is_whole_after_a_restart(engine: SimulatedEngine) -> None:
    container = running(engine)
    now = engine.clock()
    reading = await reading_of(engine, container)
    # A piece of a long line, and then, for a minute, the other stream alone.
    piece = "x" * 16384
    container.write("before\n", time_ns=now)
    container.write(piece, time_ns=now + 1)
    for second in range(60):
        container.write(f"{second}\n", "stderr", time_ns=now + second * 10**9 + 2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reading.run)
        await reading.until("59")
        nursery.cancel_scope.cancel()
    assert piece not in reading.messages
    stored = msgspec.json.decode(msgspec.json.encode(reading.batches[-1].after), type=Position)
    container.write("the rest\n", time_ns=now + 1)
    container.exit()
    again = await reading_of(engine, container)
    await again.run(stored)
    assert again.messages == [piece + "the rest"]


async def test_many_small_batches_grow_while_nobody_takes_them(plain_engine: SimulatedEngine) -> None:
    container, reading = await reading_new(plain_engine)
    async with following(reading):
        container.write("first\n")
        await reading.until("first")
        reading.taking = trio.Event()
        for number in range(50):
            container.write(f"{number}\n")
            await trio.sleep(0.001)
        await trio.sleep(0.02)
        reading.taking.set()
        await reading.until("49")
        container.exit()
    assert len(reading.batches) <= 4


@pytest.mark.parametrize(
    ("driver", "options", "size"),
    [
        ("json-file", {}, None),
        ("json-file", {"max-size": "10m"}, 10**7),
        ("json-file", {"max-size": "1.5k"}, 1500),
        ("json-file", {"max-size": "-1"}, None),
        ("local", {}, 20 * 10**6),
        ("local", {"max-size": "-1"}, None),
        ("journald", {"max-size": "1m"}, None),
    ],
)
def test_the_size_at_which_a_log_is_rotated(driver: str, options: dict[str, str], size: int | None) -> None:
    details = ContainerDetails(id="x", host_config=HostConfig(log_config=LogConfig(driver, options)))
    assert rotation_bytes(details) == size


async def test_where_a_route_is_that_is_ahead_of_what_is_read(plain_engine: SimulatedEngine) -> None:
    container, reading = await reading_new(plain_engine)
    container.write("first\n")
    container.exit()
    await reading.run()
    there = reading.log.position
    again = await reading_of(plain_engine, container)
    again.log._begin({"behind": BEGINNING, "ahead": there})
    assert again.log.position_of("behind").stdout.anchor is None
    assert again.log.position_of("ahead").stdout.anchor == there.stdout.anchor


# --- the same on a real engine ------------------------------------------------------------------------


@pytest.fixture
def name() -> str:
    return f"engine-logs-{uuid4().hex[:8]}"


@pytest.fixture
def real(request: pytest.FixtureRequest) -> Any:
    try:
        return request.getfixturevalue("docker_engine")
    except pytest.FixtureLookupError:
        pytest.skip("no fixture for a real engine")


AWKWARD = b"".join(
    [
        *(b"line\n", b"\n", b"\r\n", b"a\0b\x1b[2J\n", b"bad \xff\xfe\xe2\x82 \n", "ä€😀\n".encode()),
        *(b"x" * 16_384 + b"\n", "€".encode() * 6000 + b"\n", b"y" * 50_000 + b"\n", b"no newline"),
    ]
)


@pytest.mark.real_engine
@pytest.mark.parametrize("tty", [False, True], ids=["frames", "terminal"])
async def test_a_real_engines_records_are_those_of_the_file(real: Any, name: str, tty: bool) -> None:
    await trio.to_thread.run_sync(partial(real.print_bytes, name, AWKWARD, tty=tty))
    reading, details = await reading_at(real.host, name)
    await reading.run()
    assert details.log_path is not None
    assert reading.records == by_path(details.log_path, reading)
    assert len(reading.records) == 10
    assert reading.losses == []
    records = [record for batch in reading.batches for record in batch.records]
    for cut in range(len(records) + 1):
        again, _ = await reading_at(real.host, name)
        await again.run(advanced(BEGINNING, records[:cut]))
        assert again.records == reading.records[cut:]
        assert again.losses == []


@pytest.mark.real_engine
async def test_a_real_containers_many_lines(real: Any, name: str) -> None:
    await trio.to_thread.run_sync(real.print_lines, name, 1, 50_000)
    reading, _ = await reading_at(real.host, name)
    await reading.run()
    assert [int(message.split()[1]) for message in reading.messages] == list(range(1, 50_001))


@pytest.mark.real_engine
async def test_a_real_container_that_removes_itself(real: Any, name: str) -> None:
    print_lines = partial(real.print_lines, name, 1, 3000, pause_every=500, remove=True)
    await trio.to_thread.run_sync(print_lines)
    reading, _ = await reading_at(real.host, name)
    await reading.run()
    assert [int(message.split()[1]) for message in reading.messages] == list(range(1, 3001))


@pytest.mark.real_engine
@pytest.mark.parametrize(
    ("size", "lines", "pause_every"), [("100k", 6000, 200), ("1m", 40_000, 1000)], ids=["slow", "fast"]
)
async def test_a_real_log_that_is_rotated_under_a_writer(
    real: Any, name: str, size: str, lines: int, pause_every: int
) -> None:
    options = {"max-size": size, "max-file": "3"}
    await trio.to_thread.run_sync(
        partial(real.print_lines, name, 1, lines, pause_every=pause_every, log_opts=options)
    )
    reading, _ = await reading_at(real.host, name)
    await reading.run()
    assert [int(message.split()[1]) for message in reading.messages] == list(range(1, lines + 1))
    assert reading.losses == []
