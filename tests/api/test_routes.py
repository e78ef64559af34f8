"""Routes by API: made, changed, paused, removed; stored; and what is refused. On a real socket."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio
from click.testing import CliRunner
from starlette.requests import Request

from logroute.api.address import Address
from logroute.api.problems import Problem
from logroute.api.routes import _tags
from logroute.api.server import ApiServer
from logroute.cli import main
from logroute.config.components import SOURCES
from logroute.config.load import load_config
from logroute.config.plans import make_plan
from logroute.router.daemon import Daemon
from logroute.router.own_state import OwnState
from logroute.router.plan import CannotReload, SourcePlan
from logroute.simulator.engine import SimulatedEngine
from logroute.sources import SourceContext
from tests.api.running import client_of, until, without_log
from tests.sinks.datagram_receiver import udp_socket

FILE = """\
sources: {docker: {host: "HOST", start: beginning}}
routes:
  all: {sink: "null:"}
  search:
    match: {container: web}
    sink:
      type: http
      url: "http://ada:hidden@127.0.0.1:9/x"
      headers: {x-key: topsecret, x-other: "${TOKEN}"}
"""


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    with without_log():
        yield


class Rig:
    def __init__(
        self, engine: SimulatedEngine, daemon: Daemon, client: httpx.AsyncClient, address: Address
    ) -> None:
        self.engine = engine
        self.daemon = daemon
        self.client = client
        self.address = address

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.request(method, path, json=body, headers=names)

    async def command(self, *arguments: str) -> Any:
        line = ["routes", *arguments, "--api", str(self.address)]
        return await trio.to_thread.run_sync(partial(CliRunner().invoke, main, line))


@asynccontextmanager
async def rig(tmp_path: Path, engine: SimulatedEngine, *, state: bool = True) -> AsyncIterator[Rig]:
    address = Address(path=str(tmp_path / "l.sock"))
    file = tmp_path / "logroute.yaml"
    file.write_text(FILE.replace("HOST", engine.host))
    loaded = load_config(file, environ={"TOKEN": "from-outside"})
    plan = make_plan(loaded.config, tmp_path / "state" if state else None, loaded=loaded)
    plan = msgspec.structs.replace(plan, make_api=lambda daemon: ApiServer(daemon, address), grace_s=0.5)
    daemon = Daemon(plan)
    async with trio.open_nursery() as nursery, client_of(address, timeout=30) as client:
        await nursery.start(daemon.run)
        try:
            yield Rig(engine, daemon, client, address)
        finally:
            daemon.stop()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[SimulatedEngine]:
    async with SimulatedEngine(tmp_path / "engine", seed=1) as engine:
        engine.create("web").start()
        yield engine


def say(engine: SimulatedEngine, *texts: str) -> None:
    web = engine.find("web")
    assert web is not None
    for text in texts:
        web.write(f"{text}\n".encode())


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def to_file(path: Path, **more: Any) -> dict[str, Any]:
    return {"sink": {"type": "file", "path": str(path), "format": "raw"}, "start": "beginning", **more}


async def test_a_route_is_made_delivers_and_is_back_after_a_restart(
    tmp_path: Path, engine: SimulatedEngine
) -> None:
    out = tmp_path / "out.log"
    say(engine, "one")
    async with rig(tmp_path, engine) as r:
        made = await r.ask("POST", "/v1/routes", {"name": "mine", **to_file(out)})
        assert made.status_code == 201, made.text
        assert made.headers["location"] == "/v1/routes/mine"
        assert made.json()["stored"] is True
        await until(lambda: lines(out) == ["one"])
        say(engine, "two")
        await until(lambda: lines(out) == ["one", "two"])
    say(engine, "three")
    async with rig(tmp_path, engine) as r:
        await until(lambda: lines(out) == ["one", "two", "three"])
        listed = (await r.ask("GET", "/v1/routes")).json()["routes"]
        assert [(each["name"], each["made_by"]) for each in listed] == [
            ("all", "file"), ("search", "file"), ("mine", "api"),
        ]  # fmt: skip
        assert listed[0]["place"].endswith("logroute.yaml:3")


async def test_what_is_answered_is_stored(tmp_path: Path, engine: SimulatedEngine) -> None:
    async with rig(tmp_path, engine) as r:
        await r.ask("PUT", "/v1/routes/mine", {"sink": "null:"})
        await r.ask("POST", "/v1/routes/all/pause")
        found, wrong = OwnState(tmp_path / "state").load()  # as after kill -9
        assert (found.routes, list(found.paused), wrong) == ({"mine": {"sink": "null:"}}, ["all"], "")


async def test_the_same_again_touches_nothing(tmp_path: Path, engine: SimulatedEngine) -> None:
    async with rig(tmp_path, engine) as r:
        body = to_file(tmp_path / "x")
        assert (await r.ask("PUT", "/v1/routes/mine", body)).status_code == 201
        sink = r.daemon.router.routes["mine"].sink
        assert (await r.ask("PUT", "/v1/routes/mine", body)).status_code == 200
        shown = (await r.ask("GET", "/v1/routes/mine")).json()
        assert (await r.ask("PUT", "/v1/routes/mine", shown)).status_code == 200
        assert r.daemon.router.routes["mine"].sink is sink


async def test_a_change_loses_nothing(tmp_path: Path, engine: SimulatedEngine) -> None:
    one, two = tmp_path / "one.log", tmp_path / "two.log"
    async with rig(tmp_path, engine) as r:
        await r.ask("PUT", "/v1/routes/mine", to_file(one))
        say(engine, "1")
        await until(lambda: lines(one) == ["1"])
        changed = await r.ask("PATCH", "/v1/routes/mine", {"sink": {"path": str(two)}, "start": None})
        assert changed.json()["sink"] == {"type": "file", "path": str(two), "format": "raw"}
        assert "start" not in changed.json()
        say(engine, "2")
        await until(lambda: lines(two) == ["2"])
        assert lines(one) == ["1"]


async def test_who_has_not_seen_a_change_undoes_none(tmp_path: Path, engine: SimulatedEngine) -> None:
    async with rig(tmp_path, engine) as r:
        tag = (await r.ask("PUT", "/v1/routes/mine", {"sink": "null:"})).headers["etag"]
        changed = await r.ask("PATCH", "/v1/routes/mine", {"match": {"container": "x"}}, if_match=tag)
        assert changed.status_code == 200
        for method, body in (("PUT", {"sink": "null:"}), ("PATCH", {"match": {}}), ("DELETE", None)):
            assert (await r.ask(method, "/v1/routes/mine", body, if_match=tag)).status_code == 412
        assert (
            await r.ask("PUT", "/v1/routes/mine", {"sink": "null:"}, if_none_match="*")
        ).status_code == 412
        for verb in ("pause", "resume"):
            assert (await r.ask("POST", f"/v1/routes/mine/{verb}", if_match=tag)).status_code == 412
        assert (await r.ask("DELETE", "/v1/routes/mine", if_match=changed.headers["etag"])).status_code == 200


async def test_the_tag_that_is_wanted_is_looked_at_before_the_one_that_is_not(
    tmp_path: Path, engine: SimulatedEngine
) -> None:
    """RFC 9110, 13.2.2."""
    async with rig(tmp_path, engine) as r:
        tag = (await r.ask("PUT", "/v1/routes/mine", {"sink": "null:"})).headers["etag"]
        for wanted, status in (('"other"', 412), (tag, 304)):
            answer = await r.ask("GET", "/v1/routes/mine", if_match=wanted, if_none_match=tag)
            assert answer.status_code == status


async def test_tags_may_stand_in_several_lines(tmp_path: Path, engine: SimulatedEngine) -> None:
    async with rig(tmp_path, engine) as r:
        tag = (await r.ask("PUT", "/v1/routes/mine", {"sink": "null:"})).headers["etag"]
        headers = [("if-match", '"other"'), ("if-match", tag)]
        answer = await r.client.post("/v1/routes/mine/pause", headers=headers)
        assert answer.status_code == 200, answer.text


SINK = b'{"sink": "null:"}'


@pytest.mark.parametrize(
    ("method", "header", "value", "status"),
    [
        ("PUT", "if-none-match", "*", 412),
        ("PUT", "if-none-match", "TAG", 412),
        ("PATCH", "if-none-match", 'W/TAG, "other"', 412),
        ("DELETE", "if-none-match", '"other", TAG', 412),
        ("PUT", "if-none-match", '"other"', 200),
        ("PUT", "if-none-match", "BARE", 400),
        ("PUT", "if-none-match", '*, "other"', 400),
        ("GET", "if-none-match", "W/TAG", 304),
        ("HEAD", "if-none-match", "*", 304),
        ("GET", "if-none-match", '"other"', 200),
        ("GET", "if-match", '"other"', 412),
        ("GET", "if-match", "TAG", 200),
        ("PATCH", "if-match", "W/TAG", 200),
        ("PUT", "if-match", "*", 200),
        ("PUT", "if-match", '"a,b" ,, TAG', 200),
        ("PUT", "if-match", "BARE", 400),
        ("DELETE", "if-match", "", 400),
        ("POST", "if-none-match", "TAG", 412),
    ],
)
async def test_conditions_on_tags_mean_what_the_standard_says(
    tmp_path: Path, engine: SimulatedEngine, method: str, header: str, value: str, status: int
) -> None:
    """RFC 9110, 13.1. But a weak tag is taken for the strong one in If-Match as well, on purpose, where the
    standard has it match nothing: proxies that compress make tags weak, and behind them nobody could change
    a route.
    """
    async with rig(tmp_path, engine) as r:
        tag = (await r.ask("PUT", "/v1/routes/mine", {"sink": "null:"})).headers["etag"]
        value = value.replace("TAG", tag).replace("BARE", tag.strip('"'))
        path = "/v1/routes/mine" + ("/pause" if method == "POST" else "")
        body = SINK if method in ("PUT", "PATCH") else None
        headers = {header: value, "content-type": "application/json"}
        answer = await r.client.request(method, path, content=body, headers=headers)
        assert answer.status_code == status, answer.text
        assert status != 400 or '"' in answer.json()["detail"]
        assert status != 304 or (answer.headers["etag"], answer.content) == (tag, b"")
        there = await r.ask("GET", "/v1/routes/mine")
        assert there.status_code == 200
        assert "paused" not in there.json()


@pytest.mark.parametrize("element", [", ", '"a" , ', ",\t \t", 'W/"a",'])
def test_a_long_list_of_tags_that_is_none_is_refused_at_once(element: str) -> None:
    """Each element doubled the time, in which the daemon does nothing else: twenty took half a second."""

    def alarm(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 10)
    try:
        many = element * 2000
        for value, found in ((f"{many}x", None), (f'{many}"last"', '"last"')):
            request = Request({"type": "http", "headers": [(b"if-match", value.encode())]})
            if found is None:
                with pytest.raises(Problem):
                    _tags(request, "if-match")
            else:
                assert (_tags(request, "if-match") or [""])[-1] == found
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


async def test_of_a_route_that_there_is_not_no_tag_holds(tmp_path: Path, engine: SimulatedEngine) -> None:
    async with rig(tmp_path, engine) as r:
        answer = await r.ask("PUT", "/v1/routes/none", {"sink": "null:"}, if_match="*")
        assert (answer.status_code, answer.json()["detail"]) == (412, "there is no route none")
        assert (await r.ask("PUT", "/v1/routes/none", {"sink": "null:"}, if_none_match='"x"')).is_success


@pytest.mark.parametrize(
    ("body", "status", "path", "words"),
    [
        (b"", 400, "", "the body is empty"),
        (b" \n", 400, "", "the body is empty"),
        (b"\xef\xbb\xbf" + SINK, 201, "", ""),
        (SINK.decode().encode("utf-16"), 400, "", "UTF-8"),
        (b'{"sink": "null:\xe9"}', 400, "", "UTF-8"),
        (b'{"sink": "null:", "sink": "stdout:"}', 422, "sink", "twice"),
        (b'{"sink": "null:", "s\\u0069nk": "stdout:"}', 422, "sink", "twice"),
        (
            b'{"sink": "null:", "match": {"any": [{}, {"level": "a", "level": "b"}]}}',
            422,
            "match.any.1.level",
            "twice",
        ),
        (b'{"sink": "null:", "queue": {"memory": 1e999}}', 422, "", "Number out of range"),
        (b"null", 422, "", "object"),
    ],
)
async def test_bodies_at_the_edge_of_json(
    tmp_path: Path, engine: SimulatedEngine, body: bytes, status: int, path: str, words: str
) -> None:
    async with rig(tmp_path, engine) as r:
        answer = await r.client.put(
            "/v1/routes/mine", content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code == status, answer.text
        if status != 201:
            assert words in answer.json()["detail"]
            assert answer.json().get("path", "") == path


async def test_a_key_that_is_there_twice_is_found_among_many(tmp_path: Path, engine: SimulatedEngine) -> None:
    """Comparing each with all took a minute, in which the daemon does nothing else."""
    keys = [f'"{number}":0' for number in range(60_000)]
    async with rig(tmp_path, engine) as r:
        began = trio.current_time()
        answer = await r.client.put(
            "/v1/routes/mine",
            content="{" + ",".join([*keys, '"x":0', '"x":1']) + "}",
            headers={"content-type": "application/json"},
        )
        assert (answer.status_code, answer.json()["path"]) == (422, "x")
        assert trio.current_time() - began < 10


@pytest.mark.parametrize("name", ["a b", "a/b", "..", ".", "x" * 300, "a\n"])
async def test_a_name_that_no_route_can_have_is_the_mistake(
    tmp_path: Path, engine: SimulatedEngine, name: str
) -> None:
    """`..` in a URL is another place: who made such a route could not remove it."""
    async with rig(tmp_path, engine) as r:
        answer = await r.ask("POST", "/v1/routes", {"name": name, "sink": "null:"})
        assert (answer.status_code, answer.json()["path"]) == (422, "name")


async def test_a_paused_route_keeps_what_comes_and_nobody_else_notices(
    tmp_path: Path, engine: SimulatedEngine
) -> None:
    out, other = tmp_path / "out.log", tmp_path / "other.log"
    async with rig(tmp_path, engine) as r:
        await r.ask("PUT", "/v1/routes/mine", to_file(out))
        await r.ask("PUT", "/v1/routes/other", to_file(other))
        paused = await r.ask("POST", "/v1/routes/mine/pause")
        assert paused.json()["paused"]
        say(engine, "1", "2")
        await until(lambda: lines(other) == ["1", "2"])
        assert lines(out) == []
        health = (await r.ask("GET", "/v1/health")).json()["routes"]["mine"]
        assert health["reason"].startswith("paused since")
    async with rig(tmp_path, engine) as r:
        say(engine, "3")
        await until(lambda: lines(other) == ["1", "2", "3"])
        assert lines(out) == []
        resumed = await r.ask("POST", "/v1/routes/mine/resume")
        assert "paused" not in resumed.json()
        await until(lambda: lines(out) == ["1", "2", "3"])
        assert (await r.ask("GET", "/v1/health")).json()["routes"]["mine"]["delivers"]


@pytest.mark.parametrize("queued", ["drain", "drop"])
async def test_what_a_removed_route_had_is_kept_or_dropped(
    tmp_path: Path, engine: SimulatedEngine, queued: str
) -> None:
    out = tmp_path / "out.log"
    async with rig(tmp_path, engine) as r:
        await r.ask("PUT", "/v1/routes/mine", to_file(out))
        await r.ask("POST", "/v1/routes/mine/pause")
        say(engine, "1", "2")
        route = r.daemon.router.routes["mine"]
        await until(lambda: route.statistics().received == 2)
        removed = await r.ask("DELETE", f"/v1/routes/mine?queued={queued}")
        assert removed.json() == {"removed": "mine", "undelivered": 2, "queued": queued}
        assert (await r.ask("GET", "/v1/routes/mine")).status_code == 404
        state = tmp_path / "state/routes/mine.db"
        await until(lambda: "mine" not in r.daemon._route_tasks)
        assert state.exists() == (queued == "drain")
        # The pause was for the one that is gone.
        made = await r.ask("PUT", "/v1/routes/mine", to_file(out))
        assert "paused" not in made.json()
        if queued == "drain":
            await until(lambda: lines(out) == ["1", "2"])
        else:
            say(engine, "3")
            await until(lambda: lines(out)[-1:] == ["3"])


async def test_a_route_that_cannot_be_removed_is_there_as_before(
    tmp_path: Path, engine: SimulatedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.log"

    async def refuse(_: object) -> None:
        raise CannotReload("another route cannot be opened")

    async with rig(tmp_path, engine) as r:
        await r.ask("PUT", "/v1/routes/mine", to_file(out))
        with monkeypatch.context() as patched:
            patched.setattr(r.daemon, "go_over", refuse)
            assert (await r.ask("DELETE", "/v1/routes/mine?queued=drop")).status_code == 503
        assert (await r.ask("GET", "/v1/routes/mine")).json()["stored"]
        assert not r.daemon.router.routes["mine"].abandoned
    async with rig(tmp_path, engine) as r:
        say(engine, "1")
        await until(lambda: lines(out) == ["1"])


@pytest.mark.parametrize(
    ("body", "path", "words"),
    [
        ({"sink": "null:", "mtach": {}}, "mtach", 'did you mean "match"?'),
        ({"sink": {"type": "file", "pth": "/x"}}, "sink.pth", 'did you mean "path"?'),
        ({"sink": "nul:"}, "sink", "nul"),
        ({"sink": "null:", "match": {"message": "/(/"}}, "match.message", ""),
        (
            {"sink": "null:", "processors": [{"type": "python", "function": "os:system"}]},
            "processors.0",
            "file only",
        ),
        ({"sink": "null:", "queue": {"memory": "much"}}, "queue.memory", ""),
        ({"match": {}}, "sink", ""),
        ({"sink": "http://x/?token=${TOKEN}"}, "", "means nothing here"),
        ({"sink": {"type": "http", "url": "http://x", "token": "***"}}, "", "give the secret itself"),
        ([1], "", "object"),
        ({"sink": "null:", "name": "other"}, "name", "another in the body"),
        ({"sink": "null:", "match": {"any": [[]] * 3}}, "match.any", ""),
    ],
)
async def test_a_mistake_is_a_problem_with_its_path(
    tmp_path: Path, engine: SimulatedEngine, body: Any, path: str, words: str
) -> None:
    async with rig(tmp_path, engine) as r:
        before = (await r.ask("GET", "/v1/routes")).json()["routes"]
        answer = await r.ask("PUT", "/v1/routes/mine", body)
        assert answer.status_code == 422, answer.text
        problem = answer.json()
        found = [(e["path"], e["detail"]) for e in problem.get("errors", [])]
        found.append((problem.get("path", ""), problem["detail"]))
        assert any(at.startswith(path) and words.lower() in text.lower() for at, text in found)
        after = (await r.ask("GET", "/v1/routes")).json()["routes"]
        assert [each["name"] for each in after] == [each["name"] for each in before]
        assert OwnState(tmp_path / "state").load()[0].routes == {}


async def test_a_route_into_a_file_of_another_is_refused(tmp_path: Path, engine: SimulatedEngine) -> None:
    async with rig(tmp_path, engine) as r:
        body = to_file(tmp_path / "x.log")
        assert (await r.ask("PUT", "/v1/routes/one", body)).status_code == 201
        other = to_file(tmp_path / "x.log", match={"container": "web"})
        answer = await r.ask("PUT", "/v1/routes/two", other)
        assert (answer.status_code, answer.json()["path"]) == (422, "sink.path")
        assert 'route "one" writes to the same place' in answer.json()["detail"]
        assert (await r.ask("GET", "/v1/routes/two")).status_code == 404
        changed = to_file(tmp_path / "x.log", match={"container": "web-*"})
        assert (await r.ask("PUT", "/v1/routes/one", changed)).status_code == 200
        assert (await r.ask("DELETE", "/v1/routes/one")).status_code < 300
        assert (await r.ask("PUT", "/v1/routes/two", other)).status_code == 201


async def test_a_route_into_a_file_that_is_read_for_it_is_refused(
    tmp_path: Path, engine: SimulatedEngine
) -> None:
    async with rig(tmp_path, engine) as r:
        options = SOURCES.options("file").model_validate({"paths": [f"{tmp_path}/*.log"]})
        docker = r.daemon.plan.sources
        make = partial(SOURCES.create, options, SourceContext("app"))
        app = SourcePlan("app", make, options, options.reads)
        await r.daemon.go_over(msgspec.structs.replace(r.daemon.plan, sources=[*docker, app]))
        (tmp_path / "app.log").write_text("hello\n")
        answer = await r.ask("PUT", "/v1/routes/mine", to_file(tmp_path / "out.log"))
        assert (answer.status_code, answer.json()["path"]) == (422, "sink.path")
        assert 'source "app" reads what is written there' in answer.json()["detail"]
        assert OwnState(tmp_path / "state").load()[0].routes == {}
        elsewhere = to_file(tmp_path / "out.ndjson")
        assert (await r.ask("PUT", "/v1/routes/mine", elsewhere)).status_code == 201
        containers = to_file(tmp_path / "out.log", match={"source": "docker"})
        assert (await r.ask("PUT", "/v1/routes/mine", containers)).status_code == 200
        # Made before such a source came with a reload: the file has the last word.
        taken = to_file(tmp_path / "out.txt")
        assert (await r.ask("PUT", "/v1/routes/mine", taken)).status_code == 200
        texts = SOURCES.options("file").model_validate({"paths": [f"{tmp_path}/*.txt"]})
        plan = msgspec.structs.replace(
            r.daemon.plan,
            sources=[SourcePlan("texts", make, texts, texts.reads)],
            routes=[each for each in r.daemon.plan.routes if not each.by_api],
        )
        assert [each.settings.name for each in r.daemon.made.added_to(plan).routes] == ["all", "search"]
        assert 'source "texts" reads' in r.daemon.made.refused["mine"]


@pytest.mark.parametrize(
    ("sink", "refused"),
    [
        ("http://127.0.0.1:8080/v1/logs", True),
        ("http://localhost:8080/", True),
        ({"type": "http", "url": "http://10.0.0.1:8080/x"}, True),
        ({"type": "http", "url": "http://10.0.0.1:8081/x"}, False),
        ("http://10.0.0.2:8080/x", False),
    ],
)
async def test_a_route_that_leads_back_here_is_refused(
    tmp_path: Path, engine: SimulatedEngine, sink: Any, refused: bool
) -> None:
    async with rig(tmp_path, engine) as r:
        here = {"address": Address(host="10.0.0.1", port=8080)}
        r.daemon.plan = msgspec.structs.replace(r.daemon.plan, api_options=here)
        answer = await r.ask("PUT", "/v1/routes/mine", {"sink": sink})
        assert answer.status_code == (422 if refused else 201), answer.text
        assert not refused or answer.json()["path"] == "sink"


async def test_what_is_deep_or_no_json_is_refused(tmp_path: Path, engine: SimulatedEngine) -> None:
    async with rig(tmp_path, engine) as r:
        deep: Any = {}
        for _ in range(100):
            deep = {"not": deep}
        assert (await r.ask("PUT", "/v1/routes/x", {"sink": "null:", "match": deep})).status_code == 422
        answer = await r.client.put(
            "/v1/routes/x", content=b"{", headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400
        assert (await r.client.put("/v1/routes/x", content=b"{}")).status_code == 415
        assert (await r.ask("PUT", "/v1/routes/a%20b", {"sink": "null:"})).status_code == 422
        assert (await r.ask("POST", "/v1/routes", {"sink": "null:"})).status_code == 422


async def test_routes_of_the_file_are_changed_there(tmp_path: Path, engine: SimulatedEngine) -> None:
    async with rig(tmp_path, engine) as r:
        for method, body in (("PUT", {"sink": "null:"}), ("PATCH", {}), ("DELETE", None)):
            answer = await r.ask(method, "/v1/routes/all", body)
            assert answer.status_code == 409
            assert "logroute.yaml:3" in answer.json()["detail"]
        assert (await r.ask("POST", "/v1/routes", {"name": "all", "sink": "null:"})).status_code == 409


async def test_nothing_secret_is_shown(tmp_path: Path, engine: SimulatedEngine) -> None:
    async with rig(tmp_path, engine) as r:
        await r.ask("PUT", "/v1/routes/mine", {"sink": "elasticsearch://eve:verysecret@127.0.0.1:9/logs"})
        uri = "http://127.0.0.1:9/?headers.X-Api-Key=deepsecret&headers.DD-API-KEY=deepsecret"
        await r.ask("PUT", "/v1/routes/uri", {"sink": uri})
        text = (await r.ask("GET", "/v1/routes")).text + (await r.ask("GET", "/v1/config")).text
        text += outputs(await r.command("show", "uri"))[1]
        for secret in ("hidden", "topsecret", "from-outside", "verysecret", "deepsecret"):
            assert secret not in text
        assert "headers.DD-API-KEY=***" in text
        assert "${TOKEN}" in text
        assert "eve:***@" in text


async def test_the_file_has_the_last_word_on_a_name(tmp_path: Path, engine: SimulatedEngine) -> None:
    OwnState(tmp_path).load()
    (tmp_path / "state").mkdir()
    own = OwnState(tmp_path / "state")
    own.set_route("all", {"sink": "null:"})
    own.set_route("old", {"sink": "null:", "gone_option": 1})
    async with rig(tmp_path, engine) as r:
        listed = (await r.ask("GET", "/v1/routes")).json()
        assert [each["name"] for each in listed["routes"]] == ["all", "search"]
        assert set(listed["refused"]) == {"all", "old"}
        assert "gone_option" in listed["refused"]["old"]
        for conditions in ({"if_match": '"stale"'}, {"if_match": "*"}):
            assert (await r.ask("DELETE", "/v1/routes/old", **conditions)).status_code == 412
        assert (await r.ask("DELETE", "/v1/routes/old", if_match="stale")).status_code == 400
        assert set((await r.ask("GET", "/v1/routes")).json()["refused"]) == {"all", "old"}
        assert (await r.ask("DELETE", "/v1/routes/old")).status_code == 200
        assert set((await r.ask("GET", "/v1/routes")).json()["refused"]) == {"all"}
        assert (await r.ask("DELETE", "/v1/routes/all?queued=drop")).status_code == 200
        listed = (await r.ask("GET", "/v1/routes")).json()
        assert listed["refused"] == {}
        assert [each["name"] for each in listed["routes"]] == ["all", "search"]  # the file's is untouched
        assert own.load()[0].routes == {}


def test_a_damaged_file_is_moved_aside(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"this is no database" * 1000)
    found, wrong = OwnState(tmp_path).load()
    assert found.routes == {}
    assert "moved aside" in wrong
    OwnState(tmp_path).set_route("x", {"sink": "null:"})
    assert OwnState(tmp_path).load()[0].routes == {"x": {"sink": "null:"}}


async def test_of_two_who_have_seen_the_same_one_is_told(tmp_path: Path, engine: SimulatedEngine) -> None:
    async with rig(tmp_path, engine) as r:
        tag = (await r.ask("PUT", "/v1/routes/mine", {"sink": "null:"})).headers["etag"]
        answers: list[int] = []

        async def put(name: str) -> None:
            body = {"sink": "null:", "match": {"container": name}}
            answers.append((await r.ask("PUT", "/v1/routes/mine", body, if_match=tag)).status_code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, "a")
            nursery.start_soon(put, "b")
        assert sorted(answers) == [200, 412]


async def test_many_at_once_are_one_after_the_other(tmp_path: Path, engine: SimulatedEngine) -> None:
    async with rig(tmp_path, engine, state=False) as r:
        answers: list[int] = []

        async def put(number: int) -> None:
            body = {"sink": "null:", "match": {"container": f"c{number}"}}
            answers.append((await r.ask("PUT", f"/v1/routes/r{number % 3}", body)).status_code)

        async with trio.open_nursery() as nursery:
            for number in range(9):
                nursery.start_soon(put, number)
        assert sorted(answers) == [200] * 6 + [201] * 3
        assert (await r.ask("GET", "/v1/routes/r0")).json().get("stored") is None
        assert len(r.daemon.router.routes) == 5


def outputs(found: Any) -> tuple[int, str]:
    return found.exit_code, found.output


async def test_the_command_does_all_of_it(tmp_path: Path, engine: SimulatedEngine) -> None:
    async with rig(tmp_path, engine) as r:
        code, said = outputs(await r.command("add", "mine", "null:", "--match", "level >= warn"))
        code, said = outputs(await r.command("list"))
        assert code == 0
        assert said.splitlines()[0].split() == [
            "ROUTE",
            "SINK",
            "STATE",
            "LAG",
            "WAITING",
            "DELIVERED",
            "FROM",
        ]
        assert any(line.startswith("mine") and line.endswith("api") for line in said.splitlines())
        code, said = outputs(await r.command("set", "mine", "batch.wait=2s", "match="))
        assert (code, "wait: 2s" in said, "match" in said) == (0, True, False)
        assert "paused since" in outputs(await r.command("pause", "mine"))[1]
        assert "delivers" in outputs(await r.command("resume", "mine"))[1]
        shown = outputs(await r.command("show", "mine", "-o", "json"))
        assert msgspec.json.decode(shown[1].splitlines()[-1])["sink"] == "null:"
        assert "mine is removed" in outputs(await r.command("remove", "mine"))[1].splitlines()
        code, said = outputs(await r.command("show", "mine"))
        assert (code, "there is no route mine" in said) == (1, True)
        assert outputs(await r.command("add", "x"))[0] == 2


async def test_messages_that_a_sink_cuts_are_shown_with_its_route(
    tmp_path: Path, engine: SimulatedEngine
) -> None:
    say(engine, "x" * 2000, "short", "y" * 2000)
    async with rig(tmp_path, engine) as r:
        with udp_socket() as receiver:
            uri = f"syslog://127.0.0.1:{receiver.getsockname()[1]}"
            await r.command("add", "cuts", uri, "--start", "beginning")
            await until(lambda: r.daemon.router.routes["cuts"].statistics().delivered == 3)
            code, said = outputs(await r.command("show", "cuts"))
        assert code == 0
        assert "3 records delivered, 0 wait; sink: connections 1, truncated 2 (" in said
        stats = (await r.ask("GET", "/v1/stats")).json()
        assert stats["routes"]["cuts"]["sink"] == {"connections": 1, "truncated": 2}


async def test_the_configuration_is_shown_without_secrets_and_with_routes_made_here(
    tmp_path: Path, engine: SimulatedEngine
) -> None:
    async with rig(tmp_path, engine) as r:
        await r.ask("PUT", "/v1/routes/mine", {"sink": "relp://x:1"})
        answer = await r.ask("GET", "/v1/config")
        found = answer.json()
        assert found["sources"]["docker"]["start"] == "beginning"
        assert list(found["routes"]) == ["all", "search", "mine"]
        for secret in ("hidden", "topsecret", "from-outside"):
            assert secret not in answer.text


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("routes: {all: {sink: 'null:'}}", []),
        ('{"routes": {"all": {"sink": "null:"}}}', []),
        ("routes:\n  all: {snk: 'null:'}\n", [("routes.all.snk", 2), ("routes.all.sink", 2)]),
        ("routes: [", [("", 1)]),
    ],
)
async def test_a_configuration_is_checked_without_being_used(
    tmp_path: Path, engine: SimulatedEngine, text: str, errors: list[tuple[str, int]]
) -> None:
    async with rig(tmp_path, engine) as r:
        answer = await r.client.post("/v1/config/validate", content=text.encode())
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found["valid"] == (not errors)
        assert len(found["errors"]) >= bool(errors)
        if errors:
            assert errors[0][0] in [each["path"] for each in found["errors"]]
            assert all(each["line"] >= 1 for each in found["errors"])


async def test_a_reload_says_what_is_wrong_and_keeps_routes_made_here(
    tmp_path: Path, engine: SimulatedEngine
) -> None:
    from logroute.cli.run import Reloading

    file = tmp_path / "logroute.yaml"
    async with rig(tmp_path, engine) as r:
        assert (await r.ask("POST", "/v1/reload")).status_code == 409

        def load() -> Any:
            loaded = load_config(file, environ={"TOKEN": "x"})
            return make_plan(loaded.config, tmp_path / "state", loaded=loaded)

        r.daemon.reload_file = partial(Reloading(load, [file]).take_over, r.daemon)
        await r.ask("PUT", "/v1/routes/mine", {"sink": "null:"})
        text = file.read_text()
        file.write_text(text + "  bad: {snk: x}\n")
        wrong = await r.ask("POST", "/v1/reload")
        assert wrong.status_code == 422
        assert "logroute.yaml:" in wrong.json()["detail"]
        file.write_text(text + "  more: {sink: 'null:'}\n")
        done = await r.ask("POST", "/v1/reload")
        assert done.json() == {"routes": ["all", "mine", "more", "search"]}
        file.write_text(text + "  mine: {sink: 'null:'}\n")
        assert (await r.ask("POST", "/v1/reload")).status_code == 200
        listed = (await r.ask("GET", "/v1/routes")).json()
        assert [each["made_by"] for each in listed["routes"]] == ["file"] * 3
        assert "mine" in listed["refused"]


async def test_what_the_commands_take_stands_before_the_verb_or_behind(
    tmp_path: Path, engine: SimulatedEngine
) -> None:
    async with rig(tmp_path, engine) as r:
        api = ("--api", str(r.address))
        for line in (
            ["routes", *api, "-o", "json"],
            ["routes", *api, "list", "-o", "json"],
            ["routes", "-o", "json", *api],
        ):
            code, said = outputs(await trio.to_thread.run_sync(partial(CliRunner().invoke, main, line)))
            assert (code, [each["name"] for each in msgspec.json.decode(said)["routes"]]) == (
                0,
                ["all", "search"],
            )
        shown = ["routes", f"--api={r.address}", "show", "all"]
        code, said = outputs(await trio.to_thread.run_sync(partial(CliRunner().invoke, main, shown)))
        assert (code, said.splitlines()[0][:4]) == (0, "all:")


async def test_a_mistake_in_a_route_is_said_with_its_path_and_is_one_of_usage(
    tmp_path: Path, engine: SimulatedEngine
) -> None:
    async with rig(tmp_path, engine) as r:
        code, said = outputs(await r.command("add", "mine", "foo:bar"))
        assert (code, said.partition(": ")[0]) == (2, "sink")
        await r.command("add", "mine", "null:")
        code, said = outputs(await r.command("set", "mine", "foo=1", "batch.wait=x"))
        assert (code, [line.partition(": ")[0] for line in said.splitlines()]) == (2, ["batch.wait", "foo"])
        assert outputs(await r.command("add", "mine", "null:"))[0] == 1


@pytest.mark.parametrize(
    ("arguments", "code"), [(["nosuch"], 2), (["-h"], 0), (["--nosuch"], 2), (["-o", "json", "nosuch"], 2)]
)
def test_what_is_no_verb_is_said(arguments: list[str], code: int) -> None:
    result = CliRunner().invoke(main, ["routes", *arguments])
    assert result.exit_code == code
    assert "nosuch" in result.output or "Usage" in result.output
