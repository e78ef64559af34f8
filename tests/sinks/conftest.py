"""What the tests of the http sink and its encodings share: a server, and sinks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from logroute.sinks.http import HttpOptions, HttpSink
from tests.sinks.http_server import HttpServer
from tests.sinks.test_contract import Context


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def server(nursery: trio.Nursery) -> HttpServer:
    server = HttpServer()
    await nursery.start(server.serve)
    return server


class Making:
    """Makes sinks for the server, and closes them."""

    def __init__(self, server: HttpServer, folder: Path) -> None:
        self.server = server
        self.context = Context(folder)
        self.made: list[HttpSink] = []

    async def __call__(self, url: str = "/in", **options: Any) -> HttpSink:
        if url.startswith("/"):
            url = self.server.url + url
        sink = HttpSink(HttpOptions.model_validate({"type": "http", "url": url, **options}), self.context)
        self.made.append(sink)
        await sink.open()
        return sink


@pytest.fixture
async def sink_to(server: HttpServer, tmp_path: Path) -> AsyncIterator[Making]:
    making = Making(server, tmp_path)
    yield making
    for sink in making.made:
        await sink.close()
