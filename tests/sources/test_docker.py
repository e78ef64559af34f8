"""A docker source on a simulated engine: what it does when the engine answers no."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import structlog
import trio
from structlog.testing import LogCapture
from trio.testing import MockClock

from logroute.router.record import ALL_STREAMS, Batch, Origin, Record, Stream
from logroute.router.router import Router
from logroute.simulator import Quirks, SimulatedContainer, SimulatedEngine
from logroute.sources import Checkpoints, Emit, SourceContext
from logroute.sources.docker import DockerOptions, DockerSource
from logroute.sources.docker_files import ENOUGH
from logroute.sources.docker_readers import ContainerReaders
from logroute.sources.engine import Engine, EngineAway
from logroute.sources.log_file import LogFile
from tests.sources.stand_ins import Gate, Routes, refuse

pytestmark = pytest.mark.usefixtures("one_thread")

TOO_MANY = (500, "open /var/lib/docker/containers/web.log: too many open files")
NO_READING = (501, "configured logging driver does not support reading")


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[SimulatedEngine]:
    async with SimulatedEngine(tmp_path / "engine", seed=1) as engine:
        yield engine


@pytest.fixture
def said() -> Any:
    capture = LogCapture()
    before = structlog.get_config()
    structlog.configure(processors=[capture])
    yield capture
    structlog.configure(**before)


def source_of(
    engine: SimulatedEngine, *, read: str = "api", start: str = "beginning", **context: Any
) -> DockerSource:
    options = {"host": engine.host, "read": read, "start": start}
    return DockerSource(DockerOptions.model_validate(options), SourceContext("docker", **context))


class Started:
    """As the daemon's: a source may say more than once that it has started."""

    def __init__(self) -> None:
        self.event = trio.Event()

    def started(self) -> None:
        self.event.set()


@asynccontextmanager
async def reading(source: DockerSource, emit: Emit, checkpoints: Checkpoints) -> AsyncIterator[None]:
    started = Started()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(source.run, emit, checkpoints, task_status=cast(Any, started)))
        await started.event.wait()
        yield
        nursery.cancel_scope.cancel()


def container_that_said(engine: SimulatedEngine, count: int, **options: Any) -> SimulatedContainer:
    container = engine.create("web", **options)
    container.start()
    container.write_many([f"n {number}".encode() for number in range(count)])
    return container


def say(container: SimulatedContainer, first: int, end: int) -> None:
    container.write_many([f"n {number}".encode() for number in range(first, end)])


def numbers(count: int) -> list[str]:
    return [f"n {number}" for number in range(count)]


def events(said: LogCapture, text: str) -> list[Any]:
    return [entry for entry in said.entries if text in entry["event"]]


@pytest.mark.parametrize("once", [False, True])
async def test_a_log_that_the_engine_refuses_for_a_while_is_read_when_it_gives_it(
    engine: SimulatedEngine, autojump_clock: MockClock, said: LogCapture, once: bool
) -> None:
    container_that_said(engine, 10)
    engine.log_refusals.extend([TOO_MANY] * 3)
    routes = Routes()
    source = source_of(engine, once=once)
    async with reading(source, routes, routes):
        assert await routes.until(10) == numbers(10)
        assert source.notes() == []
    assert routes.losses == []
    (refused,) = events(said, "refuses the log")
    assert (refused["container"], refused["log_level"]) == ("web", "error")
    assert "too many open files" in refused["error"]
    assert len(events(said, "gives all logs again")) == 1


async def test_while_the_engine_refuses_a_log_the_source_says_so(
    engine: SimulatedEngine, autojump_clock: MockClock, said: LogCapture
) -> None:
    container_that_said(engine, 10)
    engine.log_refusals.extend([TOO_MANY] * 100)
    routes = Routes()
    source = source_of(engine)
    async with reading(source, routes, routes):
        await trio.sleep(59)
        (note,) = source.notes()
        assert "web" in note
        assert "too many open files" in note
        assert len(events(said, "refuses the log")) == 1
        await trio.sleep(600)
        assert 5 < len(events(said, "refuses the log")) < 12
        engine.log_refusals.clear()
        assert await routes.until(10) == numbers(10)
        assert source.notes() == []


async def test_a_log_that_the_engine_refuses_in_between_goes_on_where_it_was(
    engine: SimulatedEngine, autojump_clock: MockClock
) -> None:
    container = container_that_said(engine, 10)
    routes = Routes()
    async with reading(source_of(engine), routes, routes):
        await routes.until(10)
        engine.log_refusals.extend([TOO_MANY] * 3)
        await engine.restart()
        container.write_many([f"n {number}".encode() for number in range(10, 20)])
        assert await routes.until(20) == numbers(20)
    assert routes.losses == []


async def test_a_log_that_cannot_be_read_at_all_is_given_up_and_counted(
    engine: SimulatedEngine, autojump_clock: MockClock, said: LogCapture
) -> None:
    container_that_said(engine, 10, log_driver="syslog")
    routes = Routes()
    source = source_of(engine)
    async with reading(source, routes, routes):
        await trio.sleep(600)
        assert source.notes() == []
    assert routes.losses == [("web", [], "unreadable", {})]
    (refused,) = events(said, "cannot read a container")
    assert refused["container"] == "web"


async def test_a_container_that_keeps_no_log_is_none_that_could_not_be_read(
    engine: SimulatedEngine, autojump_clock: MockClock
) -> None:
    container_that_said(engine, 10, log_driver="none")
    routes = Routes()
    await source_of(engine, once=True).run(routes, routes, task_status=trio.TASK_STATUS_IGNORED)
    assert routes.losses == []


async def test_a_log_with_a_broken_end_is_given_up_and_counted_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    routes = Routes()
    async with SimulatedEngine(tmp_path / "engine", quirks=Quirks(tells_read_errors=1)) as engine:
        container = container_that_said(engine, 10)
        container.exit()
        assert container.log_path is not None
        with container.log_path.open("ab") as file:
            file.write(b"this is no JSON\n")
        await source_of(engine, once=True).run(routes, routes, task_status=trio.TASK_STATUS_IGNORED)
    assert routes.messages == numbers(10)
    assert [(name, reason) for name, _, reason, _ in routes.losses] == [("web", "unreadable")]


async def test_a_route_that_is_behind_gets_what_the_engine_refused_for_a_while(
    engine: SimulatedEngine, autojump_clock: MockClock
) -> None:
    """The container has ended: nobody reads it live who could be gone back with."""
    container = container_that_said(engine, 10)
    router = Router()
    good, bad = Gate("good", router), Gate("bad", router)
    bad.block()
    async with reading(source_of(engine), router, router):
        container.exit()
        await trio.sleep(10)
        assert good.got == numbers(10)
        engine.log_refusals.extend([TOO_MANY] * 3)
        bad.open()
        await trio.sleep(60)
        assert bad.got == numbers(10)
        assert router._apart == {}
    assert bad.lost == {}


async def test_routes_that_join_one_after_the_other_while_the_live_reader_waits_all_join(
    engine: SimulatedEngine, autojump_clock: MockClock
) -> None:
    container = container_that_said(engine, 10)
    router = Router()
    good, *late = gates = [Gate(name, router) for name in ("good", "first", "second")]
    async with reading(source_of(engine), router, router):
        await trio.sleep(5)
        for gate in late:
            gate.block()
        say(container, 10, 20)
        await trio.sleep(5)
        good.holds = True
        say(container, 20, 30)
        await trio.sleep(5)
        for gate in late:
            gate.open()
            await trio.sleep(5)
            assert gate.got == numbers(30)
        say(container, 30, 40)
        good.open()
        await trio.sleep(10)
        assert [gate.got for gate in gates] == [numbers(40)] * 3
        assert router._apart == {}
    assert [gate.lost for gate in gates] == [{}] * 3


@pytest.mark.parametrize("hands_on", [True, False], ids=["ended", "handing on"])
@pytest.mark.parametrize("removed", [False, True], ids=["there", "removed"])
async def test_what_is_said_between_the_end_of_a_fork_and_that_of_the_log_is_read_or_counted_for_its_route(
    engine: SimulatedEngine,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    hands_on: bool,
    removed: bool,
) -> None:
    container = container_that_said(engine, 10)
    router = Router()
    good, bad = Gate("good", router), Gate("bad", router)
    monkeypatch.setattr(router, "gone", lambda origin: None)  # which stand-ins know nothing of
    joins = trio.Event()
    read_apart = ContainerReaders._read_apart

    async def and_waits(self: ContainerReaders, *args: Any) -> None:
        await read_apart(self, *args)
        await joins.wait()

    monkeypatch.setattr(ContainerReaders, "_read_apart", and_waits)
    source = source_of(engine)
    async with reading(source, router, router):
        await trio.sleep(5)
        bad.block()
        say(container, 10, 20)
        await trio.sleep(5)
        bad.open()
        await trio.sleep(5)
        assert bad.got == numbers(20)
        good.holds = not hands_on
        say(container, 20, 30)
        container.exit()
        await trio.sleep(5)
        if removed:
            container.remove()
            await trio.sleep(5)
        joins.set()
        await trio.sleep(5)
        good.open()
        await trio.sleep(30)
        assert good.got == numbers(30)
        assert bad.got == numbers(20 if removed else 30)
        assert router._apart == {}
        assert len(source.containers) == (0 if removed else 1)
    assert good.lost == {}
    assert list(bad.lost) == (["removed"] if removed else [])


@pytest.mark.parametrize("read", ["api", "file"])
async def test_what_is_read_once_is_read_to_its_end_for_a_route_that_is_behind_too(
    engine: SimulatedEngine, autojump_clock: MockClock, read: str
) -> None:
    container_that_said(engine, 10)
    router = Router()
    good, bad = Gate("good", router), Gate("bad", router)
    bad.block()

    async def open_later() -> None:
        await trio.sleep(60)
        assert (good.got, bad.got) == (numbers(10), [])
        bad.open()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_later)
        await source_of(engine, read=read, once=True).run(
            router, router, task_status=trio.TASK_STATUS_IGNORED
        )
        assert bad.got == numbers(10)


async def test_a_file_that_cannot_be_opened_again_for_now_is_read_on_later(
    engine: SimulatedEngine, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = container_that_said(engine, 10)
    assert container.log_path is not None
    routes = Routes()
    async with reading(source_of(engine, read="file"), routes, routes):
        await routes.until(10)
        fail_once(monkeypatch, LogFile, "fetch")
        refuse(monkeypatch, container.log_path, errno.EMFILE, times=3)
        container.write_many([f"n {number}".encode() for number in range(10, 20)])
        await trio.sleep(120)
        assert routes.messages == numbers(20)
    assert routes.losses == []


@pytest.mark.parametrize("what", ["begin", "end", "first_record"])
async def test_a_file_that_cannot_be_read_at_first_holds_up_no_other(
    engine: SimulatedEngine, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    containers = [engine.create(name) for name in ("web", "other")]
    for container in containers:
        container.start()
    fail_once(monkeypatch, LogFile, what)
    routes = Routes()
    async with reading(source_of(engine, read="auto", start="now"), routes, routes):
        for container in containers:
            container.write("said\n")
        await trio.sleep(60)
        assert routes.messages == ["said", "said"]


def fail_once(patch: pytest.MonkeyPatch, owner: type[Any], name: str) -> None:
    """The next call of this method finds a disk that fails."""
    method = getattr(owner, name)
    failed = False

    def fails(*args: Any, **options: Any) -> Any:
        nonlocal failed
        if not failed:
            failed = True
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return method(*args, **options)

    patch.setattr(owner, name, fails)


async def test_a_container_that_was_being_looked_at_when_the_engine_went_away_is_read_later(
    engine: SimulatedEngine, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    container_that_said(engine, 10)
    asked = 0
    logs = Engine.logs

    def away_at_first(self: Engine, *args: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise EngineAway("it went away")
        return logs(self, *args, **options)

    monkeypatch.setattr(Engine, "logs", away_at_first)
    routes = Routes()
    async with reading(source_of(engine, read="auto"), routes, routes):
        assert await routes.until(10) == numbers(10)


class Named:
    """What matches containers of one name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def decide(self, origin: Origin) -> frozenset[Stream]:
        return ALL_STREAMS if origin.name == self._name else frozenset()

    def selector(self, origin: Origin) -> None:
        """All records."""


@pytest.mark.parametrize("read", ["file", "api"])
async def test_a_route_that_takes_a_container_under_its_new_name_gets_all_of_it(
    engine: SimulatedEngine, read: str
) -> None:
    container = container_that_said(engine, 10)
    router = Router()
    all_, new = Gate("all", router), Gate("new", router)
    new.settings = type("Settings", (), {"match": Named("other")})  # type: ignore[assignment]
    async with reading(source_of(engine, read=read), router, router):
        await until(lambda: all_.got == numbers(10))
        container.rename("other")
        say(container, 10, 20)
        await until(lambda: all_.got == numbers(20))
        await until(lambda: new.got == numbers(20))
        say(container, 20, 30)
        await until(lambda: all_.got == new.got == numbers(30) and not router._apart)


@pytest.mark.parametrize("read", ["file", "api"])
async def test_a_route_that_comes_late_is_read_for_although_nothing_more_is_said(
    engine: SimulatedEngine, read: str
) -> None:
    container_that_said(engine, 10)
    router = Router()
    first = Gate("first", router)
    source = source_of(engine, read=read)
    async with reading(source, router, router):
        await until(lambda: first.got == numbers(10))
        late = Gate("late", router)
        router.changed("late")
        await source.welcome()
        await until(lambda: late.got == numbers(10) and not router._apart)


@pytest.mark.parametrize("read", ["file", "api"])
async def test_a_route_that_comes_while_the_last_lines_are_handed_on_is_read_for(
    engine: SimulatedEngine, read: str
) -> None:
    """The other routes have them already, and nothing comes any more that would tell it."""
    container_that_said(engine, 10)
    router = Router()
    first = Gate("first", router)
    source = source_of(engine, read=read)
    late: list[Gate] = []
    put = first.put

    def come(batches: Sequence[Batch]) -> None:
        put(batches)
        if not late and first.got == numbers(10):
            late.append(Gate("late", router))
            router.changed("late")
            nursery.start_soon(source.welcome)

    first.put = come  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery, reading(source, router, router):
        await until(lambda: bool(late) and late[0].got == numbers(10) and not router._apart)


@pytest.mark.parametrize("then", ["removed", "started", "another route"])
async def test_what_happens_while_a_log_is_opened_again_for_a_route_that_came_takes_nothing_from_it(
    engine: SimulatedEngine, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    container = container_that_said(engine, 10)
    router = Router()
    first = Gate("first", router)
    source = source_of(engine, read="file")
    hop, opened, answers = source._hop, trio.Event(), trio.Event()

    async def slow(work: Callable[..., Any], *args: Any) -> Any:
        if work == source._begin_log:
            opened.set()
            await answers.wait()
        return await hop(work, *args)

    async with reading(source, router, router):
        monkeypatch.setattr(router, "gone", lambda origin: None)  # a gate has nothing to forget
        await until(lambda: first.got == numbers(10))
        container.exit()
        (known,) = source.containers.values()
        await until(lambda: known.log is not None and known.log.closed)
        monkeypatch.setattr(source, "_hop", slow)
        gates = [first, come(router, "late")]
        await source.welcome()
        await opened.wait()
        count = 10
        if then == "removed":
            container.remove()
            await until(lambda: known.removed)
        elif then == "started":
            container.start()
            say(container, 10, 20)
            await until(lambda: not known.ended)
            count = 20
        else:
            gates.append(come(router, "later"))
            await source.welcome()
        answers.set()
        await until(lambda: all(len(gate.got) >= count for gate in gates) and not router._apart)
        assert all(gate.got == numbers(count) for gate in gates)
        if then == "removed":
            await until(lambda: source.containers == {})


def come(router: Router, name: str) -> Gate:
    """A route that comes while sources run."""
    gate = Gate(name, router)
    router.changed(name)
    return gate


@pytest.mark.parametrize("read", ["file", "api"])
@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("away_s", [0.0, 0.3])
async def test_a_route_that_is_removed_while_it_is_read_for_apart_and_comes_back_gets_everything_in_order(
    engine: SimulatedEngine, read: str, ended: bool, away_s: float
) -> None:
    container = container_that_said(engine, 10)
    router = Router()
    good, bad, other = (Gate(name, router) for name in ("good", "bad", "other"))
    source = source_of(engine, read=read)
    async with reading(source, router, router):
        await until(lambda: good.got == bad.got == numbers(10))
        bad.block()
        other.block()
        say(container, 10, 20_000)
        await until(lambda: len(good.got) == 20_000)
        if ended:
            container.exit()
        bad.open()
        await until(lambda: len(bad.got) > 10)
        router.remove("bad")
        await trio.sleep(away_s)
        back = Gate("bad", router)
        back.got, back.place = bad.got[:], bad.place
        router.add(back, late=True)  # type: ignore[arg-type]  # what the router needs of a route
        await source.welcome()
        other.open()
        if not ended:
            say(container, 20_000, 20_010)
        wanted = numbers(20_000 if ended else 20_010)
        await until(
            lambda: all(len(gate.got) >= len(wanted) for gate in (good, back, other)) and not router._apart
        )
        assert good.got == back.got == other.got == wanted
        assert bad.got == wanted[: len(bad.got)]
    assert back.lost == good.lost == {}


@pytest.mark.parametrize("read", ["file", "api"])
@pytest.mark.parametrize("when", ["there before", "while it runs", "engine away", "started later"])
async def test_a_container_that_came_while_it_runs_begins_at_its_first_line_whatever_the_clocks_say(
    tmp_path: Path, read: str, when: str
) -> None:
    """The engine's clock is behind that by which the route came to be: nothing seems younger than it."""
    behind_ns = 60 * 10**9
    async with SimulatedEngine(tmp_path, seed=1, clock=lambda: time.time_ns() - behind_ns) as engine:
        router = Router()
        gate = Gate("all", router)
        gate.born, gate.met_before = time.time(), False
        if when == "there before":
            container = container_that_said(engine, 10)
            await trio.sleep(0 if read == "file" else 2.5)  # an engine tells its time to the second
        elif when == "started later":
            container = engine.create("web")
        async with reading(source_of(engine, read=read, start="now"), router, router):
            if when == "while it runs":
                container = container_that_said(engine, 10)
            elif when == "started later":
                container.start()
                say(container, 0, 10)
            elif when == "engine away":
                await engine.stop()
                container = container_that_said(engine, 10)
                await engine.start()
            await until(lambda: gate.met_before)
            await trio.sleep(0.1)
            say(container, 10, 20)
            await until(lambda: gate.got[-1:] == ["n 19"])
            assert gate.got == numbers(20)[10 if when == "there before" else 0 :]


@pytest.mark.parametrize("again", ["start", "restart"])
@pytest.mark.parametrize("read", ["file", "api"])
async def test_what_becomes_of_a_container_is_told_once(
    engine: SimulatedEngine, read: str, again: str
) -> None:
    routes = Routes()
    source = source_of(engine, read=read)
    async with reading(source, routes, routes):
        container = engine.create("web")
        # `docker run` creates and starts: between the two it is looked at, or not.
        await until(lambda: container.id in source.containers)
        container.start()
        await until(lambda: not source.containers[container.id].ended)
        container.write("said\n")
        assert await routes.until(1) == ["said"]
        assert routes.told == [("web", "started")]
        container.exit()
        await until(lambda: len(routes.told) == 2)
        # Its reader may be finding out that it has ended. A restart is told as such behind the start.
        (container.start if again == "start" else container.restart)()
        container.write("said again\n")
        await routes.until(2)
        container.exit()
        container.remove()
        await until(lambda: source.containers == {})
        assert [event for _, event in routes.told] == ["started", "ended", "started", "ended", "removed"]


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not holds():  # noqa: ASYNC110 - the engine and threads work
            await trio.sleep(0.02)


async def test_origins_have_the_variables_that_the_source_is_to_show(
    engine: SimulatedEngine, autojump_clock: MockClock
) -> None:
    engine.create("web", env=["REGION=eu-1", "PASSWORD=secret"]).start()
    options = {"host": engine.host, "env": ["REGION"]}
    source = DockerSource(DockerOptions.model_validate(options), SourceContext("docker"))
    routes = Routes()
    async with reading(source, cast(Emit, routes), cast(Checkpoints, routes)):
        [container] = source.containers.values()
        assert container.origin.env == {"REGION": "eu-1"}


@pytest.mark.parametrize("name", ["", "*", "DB_*", "A=b", "/x/"])
def test_variables_are_named_one_by_one(name: str) -> None:
    with pytest.raises(ValueError, match="each in full"):
        DockerOptions.model_validate({"env": [name]})


@pytest.mark.parametrize("read", ["file", "api"])
async def test_a_route_that_is_behind_gets_what_was_said_under_the_old_name(
    engine: SimulatedEngine, read: str
) -> None:
    """`docker compose up` renames the container that it replaces."""
    container = container_that_said(engine, 10)
    router = Router()
    all_, web = Gate("all", router), Gate("web", router)
    all_.cannot_store = web.cannot_store = ""  # type: ignore[attr-defined]
    web.settings = cast(Any, type("Settings", (), {"match": Named("web"), "start": None}))
    async with reading(source_of(engine, read=read), router, router):
        await until(lambda: all_.got == numbers(10) and web.got == numbers(10))
        web.block()
        say(container, 10, 20)
        await until(lambda: all_.got == numbers(20))
        container.rename("0123456789ab_web")
        say(container, 20, 30)
        await until(lambda: all_.got == numbers(30))
        web.open()
        await until(lambda: web.got[:20] == numbers(20))


@pytest.mark.parametrize("read", ["file", "api"])
async def test_who_is_truncated_is_known(engine: SimulatedEngine, read: str) -> None:
    container = container_that_said(engine, 2)
    router = Router()
    gate = Gate("all", router)
    source = source_of(engine, read=read, record_limit_bytes=20_000)
    async with reading(source, router, router):
        await until(lambda: gate.got == numbers(2))
        assert not source.known()[0].origin.truncates
        container.write("x" * 50_000 + "\n")
        await until(lambda: gate.got[2:] == ["x" * 20_000])
        assert source.known()[0].origin.truncates


async def test_a_loss_is_told_to_a_route_that_was_removed_and_came_back(
    engine: SimulatedEngine, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = container_that_said(engine, 10)
    router = Router()
    monkeypatch.setattr(router, "gone", lambda origin: None)
    one = Gate("one", router)
    source = source_of(engine)
    async with reading(source, router, router):
        await trio.sleep(5)
        router.remove("one")
        back = Gate("one", router)
        back.place = one.place
        router.add(cast(Any, back), late=True)
        await source.welcome()
        await trio.sleep(5)
        await engine.stop()
        say(container, 10, 20)
        await trio.sleep(1)
        container.remove(force=True)
        await engine.start()
        await trio.sleep(60)
        assert back.lost


@pytest.mark.parametrize("strange", [False, True])
async def test_a_few_logs_tell_whether_a_folder_is_the_engines(
    engine: SimulatedEngine, monkeypatch: pytest.MonkeyPatch, strange: bool
) -> None:
    """One of them is another file: then each is compared."""
    containers = [engine.create(f"c{number}") for number in range(30)]
    for container in containers:
        container.start()
        container.write("said\n")
    other = containers[-4].id  # the engine lists the newest first
    asked: list[str] = []
    logs, first_record = Engine.logs, LogFile.first_record

    def counted(self: Engine, id: str, *args: Any, **options: Any) -> Any:
        asked.append(id)
        return logs(self, id, *args, **options)

    def replaced(log: LogFile) -> Record | None:
        if strange and other in log.path:
            return Record("of another engine", "stdout", "2999-01-01T00:00:00.000000000Z")
        return first_record(log)

    monkeypatch.setattr(Engine, "logs", counted)
    monkeypatch.setattr(LogFile, "first_record", replaced)
    routes = Routes()
    source = source_of(engine, read="auto")
    async with reading(source, routes, routes):
        assert await routes.until(30) == ["said"] * 30
        assert len(set(asked)) == (30 if strange else ENOUGH)
        # What is started later is not compared either, or is.
        later = engine.create("later")
        later.start()
        later.write("said\n")
        await routes.until(31)
        assert (asked[-1] == later.id) == strange
