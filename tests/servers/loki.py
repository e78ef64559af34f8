"""A real Grafana Loki, alone, with its data in a folder; for tests.

Have it: `tests/servers/install engines`, which needs Go and builds it once, in minutes. It needs no root.

    server = Loki(folder, limits={"max_line_size": "1KB"})
    server.start()
    push_to(server.url)
    server.lines('{container="web"}')
    server.close()
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tests.servers.json_lines import CACHE, STOP_S, ServerError

PROGRAM = CACHE / "loki-v3.7.8" / "loki"
START_S = 60.0


class Loki:
    """One server without tenants. `limits` are its `limits_config`."""

    def __init__(self, folder: Path, *, limits: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.port = _free_port()
        self._limits = {"ingestion_rate_mb": 1000, "ingestion_burst_size_mb": 1000, **(limits or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def unavailable(cls) -> str | None:
        """Why it cannot be had here; None if it can."""
        return None if PROGRAM.exists() else "Loki is not built (tests/servers/install engines)"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once it takes pushes."""
        config = self.folder / "loki.yaml"
        config.write_text(json.dumps(self._config()))  # JSON is YAML
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([str(PROGRAM), f"-config.file={config}"], stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text(errors="replace")[:3000]
                self.close()
                raise ServerError(f"Loki did not start: {said}")
            time.sleep(0.1)

    def lines(self, selector: str, most: int = 5000) -> list[tuple[dict[str, str], int, str]]:
        """Labels and structured metadata, nanoseconds, and text of the last day's lines, oldest first."""
        asked = {"query": selector, "since": "24h", "limit": str(most), "direction": "forward"}
        query = urllib.parse.urlencode(asked)
        with urllib.request.urlopen(f"{self.url}/loki/api/v1/query_range?{query}") as answer:
            found = json.load(answer)
        lines = [
            (stream["stream"], int(at), text)
            for stream in found["data"]["result"]
            for at, text, *_ in stream["values"]
        ]
        return sorted(lines, key=lambda line: line[1])

    def count(self, selector: str) -> int:
        """How many lines of the last hour there are; one that is there twice counts twice."""
        query = urllib.parse.urlencode({"query": f"sum(count_over_time({selector}[1h]))"})
        with urllib.request.urlopen(f"{self.url}/loki/api/v1/query?{query}") as answer:
            result = json.load(answer)["data"]["result"]
        return int(result[0]["value"][1]) if result else 0

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _config(self) -> dict[str, Any]:
        listen = {"http_listen_address": "127.0.0.1", "grpc_listen_address": "127.0.0.1"}
        data = str(self.folder / "data")
        index = {"prefix": "index_", "period": "24h"}
        schema = {"from": "2020-10-24", "store": "tsdb", "object_store": "filesystem", "schema": "v13"}
        return {
            "auth_enabled": False,
            "analytics": {"reporting_enabled": False},
            "server": {**listen, "http_listen_port": self.port, "grpc_listen_port": _free_port()},
            "common": {
                "path_prefix": data,
                "instance_addr": "127.0.0.1",
                "replication_factor": 1,
                "ring": {"kvstore": {"store": "inmemory"}},
                "storage": {
                    "filesystem": {"chunks_directory": f"{data}/chunks", "rules_directory": f"{data}/rules"}
                },
            },
            "ingester": {"lifecycler": {"min_ready_duration": "0s", "final_sleep": "0s"}},
            "schema_config": {"configs": [{**schema, "index": index}]},
            "limits_config": self._limits,
        }

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    @property
    def _log(self) -> Path:
        return self.folder / "loki.log"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
