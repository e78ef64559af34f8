"""The simulated engine from outside: its API while containers live and die, and its switches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
import trio.testing

from logroute.simulator import NotRunning, Quirks, SimulatedEngine

S = 1_000_000_000
NOW = 1_700_000_000 * S


class Clock:
    """A clock that goes when told."""

    def __init__(self) -> None:
        self.ns = NOW

    def __call__(self) -> int:
        return self.ns


async def test_a_follow_stream_gives_each_line_as_it_is_written_and_ends_with_the_container(engine, client):
    container = engine.create("web-1")
    container.start()
    exchange = await client.open("/containers/web-1/logs", stdout="1", follow="1")
    container.write(b"one\n")
    assert (await exchange.chunk())[8:] == b"one\n"
    container.write(b"two\nrest")
    assert (await exchange.chunk())[8:] == b"two\n"
    container.exit(3)
    assert (await exchange.chunk())[8:] == b"rest"
    assert await exchange.chunk() == b""
    await exchange.stream.aclose()
    assert (await client.ask("/containers/web-1/json")).json()["State"]["ExitCode"] == 3


async def test_the_stream_of_a_run_ends_when_the_container_is_restarted(engine, client):
    container = engine.create("web-1")
    container.start()
    exchange = await client.open("/containers/web-1/logs", stdout="1", follow="1")
    container.write(b"one\n")
    container.restart()
    container.write(b"two\n")
    assert [payload for _, payload in (await exchange.rest()).frames()] == [b"one\n"]
    await exchange.stream.aclose()
    assert [p for _, p in (await client.logs("web-1")).frames()] == [b"one\n", b"two\n"]


async def test_many_readers_follow_one_container(engine, client):
    container = engine.create("web-1")
    container.start()
    exchanges = [await client.open("/containers/web-1/logs", stdout="1", follow="1") for _ in range(5)]
    container.write(b"hello\n")
    container.exit()
    for exchange in exchanges:
        assert (await exchange.rest()).frames() == [(1, b"hello\n")]
        await exchange.stream.aclose()


async def test_http_1_0_gets_the_same_frames_without_chunks(engine, client):
    container = engine.create("web-1")
    container.start()
    container.write(b"one\ntwo\n")
    plain = await client.logs("web-1", version="1.0")
    chunked = await client.logs("web-1")
    assert "transfer-encoding" not in plain.headers
    assert (plain.version, chunked.version) == ("HTTP/1.0", "HTTP/1.1")
    assert plain.body == chunked.body
    assert len(chunked.chunks) == 2


async def test_one_connection_serves_one_request_after_the_other(engine, client):
    exchange = await client.open("/_ping")
    await exchange.rest()
    exchange.buffer = b""
    await exchange.stream.send_all(b"GET /v1.41/version HTTP/1.1\r\nHost: d\r\n\r\n" * 2)
    for _ in range(2):
        await exchange.head()
        reply = await exchange.rest()
        exchange.buffer = exchange.buffer[len(reply.body) :]
        assert reply.json()["ApiVersion"] == "1.41"
    await exchange.stream.aclose()


async def test_a_client_that_goes_away_costs_nothing(engine, client):
    container = engine.create("web-1")
    container.start()
    events = await client.open("/events")
    logs = await client.open("/containers/web-1/logs", stdout="1", follow="1")
    assert engine.events.listeners == 1
    await events.stream.aclose()
    await logs.stream.aclose()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert engine.events.listeners == 0
    container.write(b"x\n")
    assert (await client.ask("/_ping")).body == b"OK"


@pytest.mark.parametrize(
    ("every_record", "expected"),
    [(True, [b"a\n", b"c\n", b"d\n"]), (False, [b"a\n", b"b\n", b"c\n", b"d\n"])],
)
async def test_since_is_inclusive_and_filters_every_record_or_up_to_the_first(
    tmp_path: Path, make_client, every_record: bool, expected: list[bytes]
):
    async with SimulatedEngine(tmp_path, quirks=Quirks(since_filters_every_record=every_record)) as engine:
        container = engine.create("web-1")
        container.start()
        container.write(b"before\n", time_ns=NOW)
        container.write(b"a\n", time_ns=NOW + 123_456_789)
        container.write(b"b\n", "stderr", time_ns=NOW + 123_456_788)
        container.write(b"c\n", "stderr", time_ns=NOW + 123_456_789)
        container.write(b"d\n", time_ns=NOW + S)
        reply = await make_client(engine).logs("web-1", since="1700000000.123456789")
        assert [payload for _, payload in reply.frames()] == expected
        reply = await make_client(engine).logs("web-1", until="1700000000.123456789", tail="4")
        assert [payload for _, payload in reply.frames()] == [b"a\n", b"b\n", b"c\n"]


async def test_times_run_backwards_between_streams_and_never_within_one(tmp_path: Path):
    clock = Clock()
    clock.ns += S // 2
    quirks = Quirks(stream_jitter_ns=20_000, stream_jitter_share=0.1)
    async with SimulatedEngine(tmp_path, quirks=quirks, clock=clock, seed=1) as engine:
        container = engine.create("web-1")
        container.start()
        for number in range(2_000):
            clock.ns += 1_000
            container.write(b"x\n", "stderr" if number % 2 else "stdout")
        lines = [json.loads(line) for line in container.log_path.read_text().splitlines()]
        # As the API pads them: trimmed times do not sort as text.
        times = [(line["stream"], f"{line['time'][20:-1]:0<9}") for line in lines]
        assert [time for _, time in times] != sorted(time for _, time in times)
        for stream in ("stdout", "stderr"):
            own = [time for name, time in times if name == stream]
            assert own == sorted(own)


async def test_a_clock_that_is_set_back_gives_earlier_times(tmp_path: Path):
    clock = Clock()
    async with SimulatedEngine(tmp_path, clock=clock) as engine:
        container = engine.create("web-1")
        container.start()
        container.write(b"before\n")
        clock.ns -= 3600 * S
        container.write(b"after\n")
        clock.ns += S
        container.write(b"later\n")
        times = [json.loads(line)["time"] for line in container.log_path.read_text().splitlines()]
        assert times == ["2023-11-14T22:13:20Z", "2023-11-14T21:13:20Z", "2023-11-14T21:13:21Z"]


async def test_a_clock_that_stands_gives_equal_times(tmp_path: Path):
    async with SimulatedEngine(tmp_path, clock=Clock()) as engine:
        container = engine.create("web-1")
        container.start()
        container.write(b"one\ntwo\n")
        assert container.log_path.read_text().count('"time":"2023-11-14T22:13:20Z"') == 2


async def test_tty_output_comes_raw_with_carriage_returns_and_a_time_at_the_seam(tmp_path: Path, make_client):
    async with SimulatedEngine(tmp_path, clock=Clock()) as engine:
        container = engine.create("shell", tty=True)
        container.start()
        container.write(b"x" * 16_390 + b"\n", "stderr")
        container.exit()
        reply = await make_client(engine).logs("shell", timestamps="1")
        stamp = b"2023-11-14T22:13:20.000000000Z "
        assert reply.body == stamp + b"x" * 16_384 + stamp + b"x" * 6 + b"\r\n"


async def test_a_character_cut_at_16_kib_is_lost_on_both_sides(engine, client):
    container = engine.create("web-1")
    container.start()
    container.write(b"x" * 16_383 + "é!\n".encode())
    frames = (await client.logs("web-1")).frames()
    assert [payload[-7:] for _, payload in frames] == [b"xxxx\xef\xbf\xbd", b"\xef\xbf\xbd!\n"]


async def test_the_local_driver_keeps_bytes_as_they_were_and_has_no_path(engine, client):
    container = engine.create("web-1", log_driver="local")
    container.start()
    exchange = await client.open("/containers/web-1/logs", stdout="1", follow="1", tail="0")
    container.write(b"\xff\xfe\n")
    container.exit()
    assert (await exchange.rest()).frames() == [(1, b"\xff\xfe\n")]
    await exchange.stream.aclose()
    assert (await client.ask("/containers/web-1/json")).json()["LogPath"] == ""


async def test_a_container_on_its_way_out_answers_409_and_then_404(
    tmp_path: Path, make_client, autojump_clock
):
    async with SimulatedEngine(tmp_path) as engine:
        client = make_client(engine)
        container = engine.create("job", auto_remove=True)
        container.start()
        events = await client.open("/events", filters={"event": ["die", "destroy"]})
        container.write(b"last words\n")
        with container.log_path.open("rb") as log:
            started = trio.current_time()
            container.exit(1)
            assert (await client.logs("job")).status == 409
            assert json.loads(await events.chunk())["Action"] == "die"
            assert json.loads(await events.chunk())["Action"] == "destroy"
            assert trio.current_time() - started == pytest.approx(0.045, abs=0.01)
            assert not container.log_path.exists()
            assert b"last words" in log.read()
        assert (await client.logs("job")).status == 404
        await events.stream.aclose()


async def test_a_broken_log_ends_with_a_frame_of_type_3_where_the_engine_tells(tmp_path: Path, make_client):
    async with SimulatedEngine(tmp_path, quirks=Quirks(tells_read_errors=1)) as engine:
        container = engine.create("web-1")
        container.start()
        container.write(b"good\n")
        with container.log_path.open("ab") as file:
            file.write(b"\0\0\n")
        frames = (await make_client(engine).logs("web-1")).frames()
        assert frames[0] == (1, b"good\n")
        assert frames[1][0] == 3
        assert frames[1][1].startswith(b"Error grabbing logs: invalid character")


async def test_a_slow_subscriber_misses_events_and_the_ring_keeps_256(tmp_path: Path, make_client):
    async with SimulatedEngine(tmp_path, quirks=Quirks(event_buffer=10)) as engine:
        subscription = engine.events.subscribe({})
        container = engine.create("web-1")
        container.start()
        for _ in range(200):
            container.pause()
            container.unpause()
        assert subscription.skipped == 402 - 10
        assert len(await subscription.take()) == 10
        past = engine.events.past(0, None, {})
        assert len(past) == 256
        assert past[-1].action == "unpause"
        engine.events.unsubscribe(subscription)


async def test_when_the_engine_restarts_streams_are_cut_and_output_waits_in_the_pipe(
    tmp_path: Path, make_client, autojump_clock
):
    async with SimulatedEngine(tmp_path, tcp=True) as engine:
        client = make_client(engine)
        by_tcp = make_client(engine)
        by_tcp.host = engine.tcp_host
        container, other = engine.create("web-1"), engine.create("job-1")
        container.start()
        other.start()
        container.write(b"before\n")
        logs = await by_tcp.open("/containers/web-1/logs", stdout="1", follow="1")
        events = await client.open("/events")
        await engine.stop()
        assert not (await logs.rest()).complete
        assert not (await events.rest()).complete
        with pytest.raises(OSError, match="No such file"):
            await client.ask("/_ping")
        container.write(b"meanwhile\n")
        other.write(b"gone with its pipe\n")
        other.exit(7)
        assert b"meanwhile" not in container.log_path.read_bytes()
        await engine.start()
        assert [p for _, p in (await by_tcp.logs("web-1")).frames()] == [b"before\n", b"meanwhile\n"]
        assert (await by_tcp.logs("job-1")).body == b""
        past = await client.ask("/events", since="0", until=str(engine.clock() // S + 1))
        assert [json.loads(line)["Action"] for line in past.body.splitlines()] == ["die"]
        for exchange in (logs, events):
            await exchange.stream.aclose()


async def test_a_restart_may_end_the_containers_and_start_those_that_always_restart(
    tmp_path: Path, make_client, autojump_clock
):
    async with SimulatedEngine(tmp_path) as engine:
        stays, goes = engine.create("stays", restart_policy="always"), engine.create("goes")
        stays.start()
        goes.start()
        started = trio.current_time()
        await engine.restart(down_s=10, containers="die")
        assert trio.current_time() - started >= 10
        assert (stays.state.status, goes.state.status) == ("running", "exited")
        assert (await make_client(engine).ask("/_ping")).status == 200


async def test_versions_out_of_range_are_refused(tmp_path: Path, make_client):
    async with SimulatedEngine(tmp_path, quirks=Quirks(api_version="1.56", min_api="1.40")) as engine:
        client = make_client(engine)
        assert (await client.ask("/_ping")).headers["api-version"] == "1.56"
        old = await client.ask("/v1.24/containers/json")
        assert (old.status, "too old" in old.json()["message"]) == (400, True)
        new = await client.ask("/v1.57/containers/json")
        assert (new.status, "too new" in new.json()["message"]) == (400, True)
        assert (await client.ask("/v1.40/containers/json")).json() == []


async def test_a_million_lines_a_container_may_be_written_in_bulk_between_single_ones(engine, client):
    container = engine.create("web-1", log_opts={"max-size": "1m", "max-file": "100"})
    container.start()
    container.write(b"half a ")
    container.write_many([b"line", b"two", b"three\nfour", b"x" * 20_000])
    container.write_many([b"line %d" % number for number in range(30_000)], "stderr")
    frames = (await client.logs("web-1")).frames()
    out = b"".join(payload for kind, payload in frames if kind == 1)
    assert out == b"half a line\ntwo\nthree\nfour\n" + b"x" * 20_000 + b"\n"
    assert [p for kind, p in frames if kind == 2] == [b"line %d\n" % number for number in range(30_000)]
    assert container.log.rotations >= 2


async def test_what_does_not_run_cannot_write(engine):
    container = engine.create("web-1")
    with pytest.raises(NotRunning, match="web-1 is created"):
        container.write(b"x\n")
    container.start()
    container.pause()
    with pytest.raises(NotRunning, match="web-1 is paused"):
        container.write_many([b"x"])
    container.unpause()
    container.exit()
    with pytest.raises(NotRunning, match="web-1 is exited"):
        container.write(b"x\n")


async def test_an_error_in_the_block_comes_out_as_it_is(tmp_path: Path):
    with pytest.raises(ZeroDivisionError):
        async with SimulatedEngine(tmp_path):
            raise ZeroDivisionError
    assert not (tmp_path / "docker.sock").exists()


async def test_a_path_too_long_for_a_socket_gets_a_short_one(tmp_path: Path, make_client):
    async with SimulatedEngine(tmp_path / ("deep" * 30)) as engine:
        assert (await make_client(engine).ask("/_ping")).body == b"OK"
