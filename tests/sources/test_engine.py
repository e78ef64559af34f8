"""The client of the Engine API: finding the engine, asking it, and what it says when that fails."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from logroute.router.record import Image
from logroute.router.stored_origins import StoredOrigins, decode
from logroute.simulator import DOCKER_20_10, NEWEST, Quirks, SimulatedEngine
from logroute.sources.engine import Engine, EngineAway, EngineRefused, origin_from
from logroute.sources.engine_address import AddressError, EngineAddress, EngineTls
from logroute.sources.engine_answers import ContainerDetails, ContainerState, decode_event, time_ns, utc_time

TLS = EngineTls()


@pytest.fixture
async def simulated(tmp_path: Path) -> AsyncIterator[SimulatedEngine]:
    async with SimulatedEngine(tmp_path / "engine", tcp=True, seed=1) as engine:
        yield engine


def client(host: str) -> Engine:
    return Engine(EngineAddress.parse(host, "the test"))


@asynccontextmanager
async def answering(answer: Callable[[bytes], bytes | None]) -> AsyncIterator[str]:
    """A server that answers each request with these bytes, and then closes; None is never."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            request = bytes(await stream.receive_some(65536))
            reply = answer(request)
            if reply is None:
                await trio.sleep_forever()
            else:
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(reply)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


def http(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Api-Version: 1.41", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


# --- addresses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tls", "path", "host", "port", "secure"),
    [
        ("unix:///run/x.sock", None, "/run/x.sock", "", 0, False),
        ("/run/x.sock", None, "/run/x.sock", "", 0, False),
        ("tcp://engine", None, None, "engine", 2375, False),
        ("tcp://engine:1", None, None, "engine", 1, False),
        ("engine:1", None, None, "engine", 1, False),
        ("tcp://engine", TLS, None, "engine", 2376, True),
        ("https://engine", None, None, "engine", 2376, True),
        ("http://engine", TLS, None, "engine", 2375, False),
        ("tcp://[::1]:9", None, None, "::1", 9, False),
    ],
)
def test_addresses(
    text: str, tls: EngineTls | None, path: str | None, host: str, port: int, secure: bool
) -> None:
    address = EngineAddress.parse(text, "the test", tls)
    assert (address.path, address.host, address.port) == (path, host, port)
    assert (address.tls is not None) is secure


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ssh://me@host/x", "ssh -nNT -L /tmp/engine.sock:/var/run/docker.sock me@host"),
        ("npipe:////./pipe/docker_engine", "named pipes"),
        ("fd://", "unix://"),
        ("ftp://host", "use unix://"),
        ("unix://relative", "absolute path"),
        ("tcp://host:99999", "no host and port"),
        ("tcp://user:password@host", "a host, a port and a path only"),
    ],
)
def test_addresses_that_cannot_be_used_say_what_to_do(text: str, says: str) -> None:
    with pytest.raises(AddressError) as raised:
        EngineAddress.parse(text, "from $DOCKER_HOST")
    assert says in str(raised.value)
    assert "$DOCKER_HOST" in str(raised.value)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HOST", "CONTEXT", "CONFIG", "TLS", "TLS_VERIFY", "CERT_PATH"):
        monkeypatch.delenv(f"DOCKER_{name}", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_what_is_configured_is_stronger_than_the_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://environment:1")
    assert EngineAddress.resolve().host == "environment"
    assert EngineAddress.resolve("tcp://configured:1").host == "configured"


def test_the_environments_tls_is_dockers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "certs").mkdir()
    (home / "certs" / "ca.pem").write_text("x")
    monkeypatch.setenv("DOCKER_HOST", "tcp://engine")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(home / "certs"))
    assert EngineAddress.resolve().tls is None
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    assert EngineAddress.resolve().tls == EngineTls(ca=str(home / "certs" / "ca.pem"))


def test_the_docker_context_is_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    folder = home / ".docker"
    name = hashlib.sha256(b"far").hexdigest()
    meta = folder / "contexts" / "meta" / name
    tls = folder / "contexts" / "tls" / name / "docker"
    meta.mkdir(parents=True)
    tls.mkdir(parents=True)
    (tls / "ca.pem").write_text("x")
    (meta / "meta.json").write_text(
        json.dumps(
            {
                "Name": "far",
                "Metadata": {},
                "Endpoints": {"docker": {"Host": "tcp://far-away:2376", "SkipTLSVerify": False}},
            }
        )
    )
    (folder / "config.json").write_text('{"currentContext": "far"}')
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    address = EngineAddress.resolve()
    assert (address.host, address.tls) == ("far-away", EngineTls(ca=str(tls / "ca.pem")))
    assert "'far'" in str(address)
    monkeypatch.setenv("DOCKER_CONTEXT", "nowhere")
    with pytest.raises(AddressError, match="there is no docker context 'nowhere'"):
        EngineAddress.resolve()
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert EngineAddress.resolve().path is not None


def test_without_docker_podmans_socket_is_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.path.exists("/var/run/docker.sock") or os.path.exists("/run/podman/podman.sock"):
        pytest.skip("an engine is installed here")
    assert EngineAddress.resolve().path == "/var/run/docker.sock"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home))
    (home / "podman").mkdir()
    (home / "podman" / "podman.sock").touch()
    assert EngineAddress.resolve().path == str(home / "podman" / "podman.sock")
    (home / "docker.sock").touch()
    assert EngineAddress.resolve().path == str(home / "docker.sock")


# --- calls --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["unix", "tcp"])
async def test_one_shot_calls(simulated: SimulatedEngine, way: str) -> None:
    container = simulated.create("web", image="shop/web:2", labels={"com.docker.compose.project": "shop"})
    container.start()
    engine = client(simulated.host if way == "unix" else simulated.tcp_host)
    assert (await engine.version()).version == "20.10.24"
    assert (await engine.info()).name == "simulated"
    assert engine.api_version == "1.41"
    assert [(one.id, one.name, one.state) for one in await engine.containers()] == [
        (container.id, "web", "running")
    ]
    assert await engine.containers(filters={"name": ["other"]}) == []
    details = await engine.inspect("web")
    assert details.running
    assert not details.tty
    assert details.log_driver == "json-file"
    assert details.log_path == str(container.log_path)
    origin = origin_from(details, source="docker", host="node-7", runtime=engine.runtime)
    assert (origin.key, origin.name, origin.image) == (
        f"docker:{container.id}",
        "web",
        Image("shop/web", "2"),
    )
    assert (origin.runtime, origin.host, origin.compose) == ("docker", "node-7", {"project": "shop"})


async def test_of_a_containers_environment_only_what_was_asked_for_is_known(
    simulated: SimulatedEngine,
) -> None:
    simulated.create("web", env=["REGION=eu=1", "PASSWORD=secret", "EMPTY=", "BARE"])
    engine = client(simulated.host)
    details = await engine.inspect("web")
    names = ("REGION", "EMPTY", "ABSENT")
    asked = origin_from(details, source="docker", host="", runtime="docker", env=names)
    assert asked.env == {"REGION": "eu=1", "EMPTY": ""}
    assert b'"env":{"REGION":"eu=1","EMPTY":""}' in asked.json
    stored = StoredOrigins()
    [(_, text)] = [stored.new_rows()[number] for number in [stored.number(asked)]]
    assert decode(text).env == asked.env
    nothing = origin_from(details, source="docker", host="", runtime="docker")
    assert nothing.env == {}
    assert b"env" not in nothing.json


@pytest.mark.parametrize(
    ("quirks", "version"),
    [
        (DOCKER_20_10, "1.41"),
        (NEWEST, "1.47"),
        (Quirks(api_version="1.30"), "1.30"),
    ],
)
async def test_the_older_of_both_versions_is_spoken(tmp_path: Path, quirks: Quirks, version: str) -> None:
    async with SimulatedEngine(tmp_path / "engine", quirks=quirks) as simulated:
        engine = client(simulated.host)
        await engine.info()
        assert engine.api_version == version


async def test_after_an_upgrade_the_version_is_negotiated_again(tmp_path: Path) -> None:
    socket = tmp_path / "docker.sock"
    engine = client(f"unix://{socket}")
    async with SimulatedEngine(tmp_path / "old", quirks=Quirks(api_version="1.30"), socket=socket):
        await engine.info()
    async with SimulatedEngine(tmp_path / "new", quirks=NEWEST, socket=socket):
        with pytest.raises(EngineRefused, match=r"1\.40"):
            await engine.info()
        await engine.info()
    assert engine.api_version == "1.47"


async def test_podman_is_recognised() -> None:
    async with answering(lambda _: http(200, b"OK", "Libpod-API-Version: 5.4.2")) as host:
        engine = client(host)
        await engine.ping()
        assert engine.runtime == "podman"


async def test_a_refusal_has_the_engines_own_words(simulated: SimulatedEngine) -> None:
    with pytest.raises(EngineRefused, match="404, No such container: nix") as raised:
        await client(simulated.host).inspect("nix")
    assert (raised.value.status, raised.value.message) == (404, "No such container: nix")
    assert raised.value.gone


async def test_an_unreadable_driver_is_told_from_other_refusals(simulated: SimulatedEngine) -> None:
    container = simulated.create("web", log_driver="syslog")
    container.start()
    with pytest.raises(EngineRefused) as raised:
        async with client(simulated.host).logs(container.id, follow=False):
            raise AssertionError
    assert raised.value.unreadable
    assert not raised.value.gone


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("unix:///nowhere/docker.sock", ["/nowhere/docker.sock", "No such file", "running?"]),
        ("http://127.0.0.1:1", ["127.0.0.1:1", "refused", "is the engine running there?"]),
    ],
)
async def test_an_engine_that_is_not_there_is_away(host: str, says: list[str]) -> None:
    with pytest.raises(EngineAway) as raised:
        await client(host).ping()
    for part in says:
        assert part in str(raised.value)


def test_a_socket_that_may_not_be_opened_says_how_to_get_in(simulated_socket: Path) -> None:
    address = EngineAddress.parse(f"unix://{simulated_socket}", "the default")
    assert "usermod -aG" in address.hint(PermissionError(13, "Permission denied"))


@pytest.fixture
def simulated_socket(tmp_path: Path) -> Path:
    path = tmp_path / "docker.sock"
    path.touch()
    return path


async def test_an_engine_that_does_not_answer_is_away(autojump_clock: MockClock) -> None:
    async with answering(lambda _: None) as host:
        with pytest.raises(EngineAway, match="no answer within 30 s"):
            await client(host).info()
        with pytest.raises(EngineAway, match="no answer within 30 s"):
            async with client(host).events():
                raise AssertionError


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-OpenSSH_9.2\r\n", http(200, b"OK")[:-1], b"HTTP/1.1 200 OK\r\nContent-Le"],
)
async def test_a_connection_that_breaks_is_an_engine_that_is_away(answer: bytes) -> None:
    async with answering(lambda _: answer) as host:
        with pytest.raises(EngineAway):
            await client(host).ping()


@asynccontextmanager
async def counted(*, answers: int = 1 << 30) -> AsyncIterator[tuple[str, list[list[bytes]]]]:
    """A server that answers so many requests on each connection; and what it was asked on each."""
    connections: list[list[bytes]] = []

    async def serve(stream: trio.SocketStream) -> None:
        asked: list[bytes] = []
        connections.append(asked)
        async with stream:
            while len(asked) < answers and (request := bytes(await stream.receive_some(65536))):
                asked.append(request)
                await stream.send_all(http(200, b"OK" if b"_ping" in request else b"{}"))
                if b"Connection: close" in request:
                    return

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", connections
        nursery.cancel_scope.cancel()


async def test_many_calls_share_connections_which_end_with_the_block() -> None:
    async with counted() as (host, connections):
        engine = client(host)
        async with engine.many():
            async with engine.many():
                await engine.info()
            for _ in range(3):
                await engine.info()
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(engine.info)
        assert sorted(map(len, connections)) == [1, 6]  # the first asks which version it is
        await engine.info()
        assert sorted(map(len, connections)) == [1, 1, 6]


async def test_a_kept_connection_that_the_engine_has_ended_is_no_failure() -> None:
    async with counted(answers=2) as (host, connections):
        engine = client(host)
        async with engine.many():
            for _ in range(6):
                await engine.info()
        # It may be another engine then: each time it is asked again which version it is.
        assert list(map(len, connections)) == [2, 2, 2, 2, 2, 1]
        assert sum(b"/info" in request for asked in connections for request in asked) == 6


async def test_an_answer_that_was_not_read_to_its_end_ends_its_connection() -> None:
    async with answering(lambda request: http(200, b"OK" if b"_ping" in request else b"{}" * 10)) as host:
        engine = client(host)
        async with engine.many():
            for _ in range(2):
                with pytest.raises(EngineRefused, match="does something else listen there"):
                    await engine.info()


async def test_an_answer_that_is_no_engines_is_refused() -> None:
    async with answering(lambda _: http(200, b"<html>nginx</html>")) as host:
        with pytest.raises(EngineRefused, match="does something else listen there") as raised:
            await client(host).info()
        assert raised.value.status == 0


async def test_a_huge_answer_is_not_read() -> None:
    sent = http(200, b" " * (64 << 20))

    def answer(request: bytes) -> bytes:
        return http(200, b"OK") if b"_ping" in request else sent

    async with answering(answer) as host:
        with pytest.raises(EngineRefused, match="larger than 8 MiB"):
            await client(host).inspect("x")


# --- events and logs ----------------------------------------------------------------------------------


async def test_events_come_filtered_and_with_mobys_names(simulated: SimulatedEngine) -> None:
    async with client(simulated.host).events() as events:
        container = simulated.create("web", labels={"a": "b"})
        container.start()
        container.rename("web-2")
        container.stop()
        container.remove()
        got = [await anext(events) for _ in range(5)]
    assert [event.action for event in got] == ["create", "start", "rename", "die", "destroy"]
    assert {event.id for event in got} == {container.id}
    assert got[2].attributes["oldName"] == "/web"
    assert got[3].attributes["exitCode"] == "143"


async def test_what_happened_while_subscribing_is_not_missed(simulated: SimulatedEngine) -> None:
    simulated.create("just before")
    async with client(simulated.host).events() as events:
        assert (await anext(events)).attributes["name"] == "just before"


async def test_an_engine_that_goes_ends_the_events(simulated: SimulatedEngine) -> None:
    async with client(simulated.host).events() as events:
        await simulated.stop()
        with pytest.raises(EngineAway):
            await anext(events)


def test_podmans_events_have_mobys_names() -> None:
    line = (
        b'{"status":"died","Type":"container","Action":"died","Actor":{"ID":"x","Attributes":null},"time":5}'
    )
    event = decode_event(line)
    assert event is not None
    assert (event.action, event.id, event.attributes, event.time_ns) == ("die", "x", {}, 5 * 10**9)
    assert decode_event(b"{") is None


@pytest.mark.parametrize("way", ["unix", "tcp"])
async def test_a_log_is_sent_unchunked(simulated: SimulatedEngine, way: str) -> None:
    container = simulated.create("web")
    container.start()
    container.write(b"".join(b"line %d\n" % n for n in range(100)))
    engine = client(simulated.host if way == "unix" else simulated.tcp_host)
    async with engine.logs("web", follow=False) as stream:
        data = b""
        while more := await stream.receive(65536):
            data += more
    assert data.startswith(b"\x01\0\0\0\0\0\0")
    assert data.count(b"\x01\0\0\0") == 100


async def test_a_log_that_a_proxy_chunks_is_read_too() -> None:
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"

    def answer(request: bytes) -> bytes:
        return http(200, b"OK") if b"_ping" in request else body

    async with answering(answer) as host, client(host).logs("x", follow=True) as stream:
        data = b""
        while more := await stream.receive(65536):
            data += more
    assert data == b"abcde"


async def test_the_engines_clock_is_learnt() -> None:
    async with answering(lambda _: http(200, b"OK", "Date: Tue, 14 Nov 2023 22:13:20 GMT")) as host:
        engine = client(host)
        await engine.ping()
        assert abs(engine.now_ns() - 1_700_000_000 * 10**9) < 60 * 10**9


# --- TLS ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def behind_tls(
    target: str, folder: Path, *, asks_for_certificate: bool = False
) -> AsyncIterator[tuple[str, Path]]:
    """A TLS server in front of a plain engine; gives its address and a folder of certificates."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    if asks_for_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
    os.mkdir(folder)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    ours = authority.issue_cert("logroute@example.com")
    ours.private_key_pem.write_to_path(str(folder / "key.pem"))
    ours.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))

    async def pump(source: trio.abc.Stream, sink: trio.abc.Stream, scope: trio.CancelScope) -> None:
        try:
            while data := await source.receive_some(65536):
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()

    async def serve(stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        plain = await trio.open_unix_socket(target.removeprefix("unix://"))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pump, secure, plain, nursery.cancel_scope)
                await pump(plain, secure, nursery.cancel_scope)
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(secure)
                await trio.aclose_forcefully(plain)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield f"127.0.0.1:{listeners[0].socket.getsockname()[1]}", folder
        nursery.cancel_scope.cancel()


async def asked(address: str, tls: EngineTls | None, scheme: str = "https") -> str:
    engine = Engine(EngineAddress.parse(f"{scheme}://{address}", "the test", tls))
    return (await engine.info()).name


async def test_tls_with_the_right_authority(simulated: SimulatedEngine, tmp_path: Path) -> None:
    async with behind_tls(simulated.host, tmp_path / "certs") as (address, folder):
        assert await asked(address, EngineTls(ca=str(folder / "ca.pem"))) == "simulated"
        assert await asked(address, EngineTls(verify=False)) == "simulated"
        assert await asked(address, EngineTls(ca=str(folder / "ca.pem")), "tcp") == "simulated"


async def test_tls_verifies_by_default(simulated: SimulatedEngine, tmp_path: Path) -> None:
    async with behind_tls(simulated.host, tmp_path / "certs") as (address, _):
        with pytest.raises(EngineAway, match="give the authority that signed it"):
            await asked(address, None)


async def test_tls_with_a_client_certificate(simulated: SimulatedEngine, tmp_path: Path) -> None:
    server = behind_tls(simulated.host, tmp_path / "certs", asks_for_certificate=True)
    async with server as (address, folder):
        assert await asked(address, EngineTls.from_folder(folder, verify=True)) == "simulated"
        with pytest.raises(EngineAway):
            await asked(address, EngineTls(ca=str(folder / "ca.pem")))


async def test_tls_where_there_is_none(simulated: SimulatedEngine) -> None:
    with pytest.raises(EngineAway, match="http://"):
        await asked(simulated.tcp_host.removeprefix("tcp://"), EngineTls(verify=False))


async def test_a_certificate_that_is_missing_is_named(simulated: SimulatedEngine) -> None:
    with pytest.raises(EngineAway, match=r"/nowhere/ca\.pem"):
        await asked("127.0.0.1:1", EngineTls(ca="/nowhere/ca.pem"))


# --- answers ------------------------------------------------------------------------------------------


def test_times_of_inspect_are_made_ours() -> None:
    state = ContainerState(started_at="0001-01-01T00:00:00Z")
    details = ContainerDetails(id="x", created="2026-11-23T21:06:26.5+01:00", state=state)
    assert details.created_time == "2026-11-23T20:06:26.500000000Z"
    assert details.started_time == ""
    assert utc_time("no time") == "no time"
    assert time_ns("2023-11-14T22:13:20.000000007Z") == 1_700_000_000 * 10**9 + 7
