"""The description of the API: what it says is what is answered, whatever is asked."""

from __future__ import annotations

import re
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from logroute.api.address import Address
from logroute.api.app import ENDPOINTS
from logroute.api.openapi import description
from logroute.api.route_facts import READ_ONLY
from logroute.config.plans import parse_route
from logroute.config.schema import route_schema
from tests.api.running import client_of, daemon_with, picky, until

EXAMPLES = 12
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_schema_conformance", "negative_data_rejection"),
)
OPERATIONS = "[checks]\nenabled = false\n" + "".join(f"{name}.enabled = true\n" for name in CHECKS)
OPERATIONS += "".join(
    f'[[operations]]\ninclude-name = "{name}"\n{says} = false\n'
    for name, says in (
        # Every value of every option of every sink would be tried: thousands. They are the configuration's.
        ("POST /v1/routes", "phases.coverage.enabled"),
        ("PUT /v1/routes/{route}", "phases.coverage.enabled"),
        # It answers 503, as it says, where a route that was made leads nowhere.
        ("GET /v1/health", "checks.not_a_server_error.enabled"),
    )
)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        found = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return found.union(*map(references, value.values()))
    if isinstance(value, list):
        return set().union(*map(references, value))
    return set()


def test_every_endpoint_is_described_once_and_nothing_dangles() -> None:
    made = description(ENDPOINTS)
    operations = [each for path in made["paths"].values() for each in path.values()]
    assert len(operations) == len(ENDPOINTS)
    assert len({each["operationId"] for each in operations}) == len(ENDPOINTS)
    there = {f"#/components/schemas/{name}" for name in made["components"]["schemas"]}
    assert references(made) <= there
    assert all("{" not in re.sub(r"\{\w+\}", "", path) for path in made["paths"])


def test_every_way_in_which_nobody_is_let_in_is_described() -> None:
    for path in description(ENDPOINTS)["paths"].values():
        for operation in path.values():
            assert {"401", "403", "421"} <= operation["responses"].keys()


def test_a_route_is_described_as_the_configuration_has_it() -> None:
    made = description(ENDPOINTS)
    schemas = made["components"]["schemas"]

    def body(method: str, path: str) -> Any:
        content = made["paths"][path][method]["requestBody"]["content"]
        return schemas[content["application/json"]["schema"]["$ref"].rpartition("/")[2]]

    new, whole, some = (
        body(*each)
        for each in (("post", "/v1/routes"), ("put", "/v1/routes/{route}"), ("patch", "/v1/routes/{route}"))
    )
    assert new["properties"] == whole["properties"]
    assert new["properties"].keys() >= route_schema()["properties"].keys()
    assert new["properties"].keys() == some["properties"].keys() > {*READ_ONLY}
    assert (set(new["required"]), whole["required"], some.get("required")) == (
        {"name", "sink"},
        ["sink"],
        None,
    )
    assert {"$ref": "#/components/schemas/SyslogOptions"} in whole["properties"]["sink"]["anyOf"]


async def test_it_is_answered(tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "l.sock"))
    async with daemon_with(None, {}, address=address), client_of(address) as client:
        assert (await client.get("/openapi.json")).json()["openapi"] == "3.1.0"


@pytest.mark.parametrize("named", ["", "all", "made"])
async def test_whatever_is_asked_the_answer_is_one_that_is_described(tmp_path: Path, named: str) -> None:
    """Schemathesis asks what the description allows, and what it does not: of routes that it invents, of one
    of the configuration, and of one that was made by API, which it may remove."""
    address = Address(host="127.0.0.1", port=free_port())
    async with daemon_with(tmp_path / "state", {"all": picky(2)}, [1, 2, 3], address=address) as daemon:
        route = daemon.router.routes["all"]
        await until(lambda: route.statistics().rejected == 1)
        daemon.plan = msgspec.structs.replace(daemon.plan, make_route=parse_route)
        async with client_of(address) as client:
            for body in ({"name": "made", "sink": "null:"}, {"name": "other", "sink": "null:"}):
                assert (await client.post("/v1/routes", json=body)).status_code == 201
        # An answer that goes on is none that it could judge.
        parameters = '[parameters]\n"query.follow" = "false"\n' + f'"path.route" = "{named}"\n' * bool(named)
        (tmp_path / "schemathesis.toml").write_text(parameters + OPERATIONS)
        command = [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", f"http://{address}/openapi.json"),
            *("--max-examples", str(EXAMPLES), "--seed", "1", "--generation-deterministic"),
            *("--phases", "examples,coverage,fuzzing"),
            *("--request-timeout", "10", "--no-color"),
            # Which route is asked about changes nothing where none is named: that is asked once.
            *(["--include-path-regex", r"\{route\}"] if named else []),
        ]
        with trio.fail_after(150):
            ended = await trio.run_process(
                command, capture_stdout=True, stderr=-2, check=False, cwd=str(tmp_path)
            )
        assert ended.returncode == 0, ended.stdout.decode()[-8000:]
        assert daemon.router.routes["all"] is route


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
async def test_nothing_that_is_asked_of_any_path_is_a_mistake_of_ours(tmp_path: Path, method: str) -> None:
    address = Address(path=str(tmp_path / "l.sock"))
    async with daemon_with(None, {"all": picky()}, address=address), client_of(address) as client:
        for path in description(ENDPOINTS)["paths"]:
            filled = path.replace("{", "").replace("}", "") + "?follow=x"
            ask = partial(client.request, method.upper(), filled)
            for body in (None, b"", b"[]", b"{}", b'{"name": 1}', b"\xff\xfe", b"[" * 5000):
                answer = await ask(content=body, headers={"content-type": "application/json"})
                assert answer.status_code < 500 or answer.status_code == 503, (path, body, answer.text)
