"""A real Elasticsearch, or OpenSearch, for tests: one node in a folder of its own.

Have it: `tests/servers/install`, which takes both from Maven Central. It runs as another user than root.

    server = Elasticsearch(folder)
    server.start()
    server.ask("GET", "/_cat/indices")
    server.close()
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any, ClassVar

from tests.servers.rsyslog import Certificates, free_port

CACHE = Path(os.environ.get("LOGROUTE_SEARCH_CACHE", "/var/cache/logroute"))
START_S = 120.0
PASSWORD = "a-long-password"
WRITER = """\
writer:
  indices:
    - names: ["logs-*"]
      privileges: [create_doc, create_index]
"""
"""A role that may only write, as an API key may. (To make keys, this distribution lacks a module.)"""


class ServerError(Exception):
    """It did not start. The text says what it said."""


class Elasticsearch:
    """One node; `start`, `stop` and `kill` as often as wanted, on the same port."""

    folder_name: ClassVar[str] = "elasticsearch-8.19.21"
    java: ClassVar[tuple[str, ...]] = ("ES_JAVA_HOME", "17")
    program: ClassVar[str] = "bin/elasticsearch"
    options: ClassVar[str] = "ES_JAVA_OPTS"

    def __init__(
        self, folder: Path, *, secure: bool = False, certificates: Certificates | None = None
    ) -> None:
        """`secure`: it knows who asks; with `certificates` it speaks TLS."""
        self.folder = folder
        self.secure = secure
        self.certificates = certificates
        self.port = free_port(socket.SOCK_STREAM)
        self._transport_port = free_port(socket.SOCK_STREAM)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.certificates else 'http'}://127.0.0.1:{self.port}"

    @classmethod
    def unavailable(cls) -> str | None:
        """Why it cannot be had here; None if it can."""
        if not (CACHE / cls.folder_name / cls.program).exists():
            return f"{cls.folder_name} is not unpacked (tests/servers/install)"
        return None if java_home(cls.java[1]) else f"there is no Java {cls.java[1]}"

    # --- life ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns once it answers."""
        home = CACHE / self.folder_name
        config = self.folder / "config"
        if not config.exists():
            shutil.copytree(home / "config", config)
            with (config / f"{self.folder_name.partition('-')[0]}.yml").open("a") as file:
                file.write(self._settings())
            # Java's own log would stand beside the program, where its user may not write.
            java = config / "jvm.options"
            java.write_text("\n".join(line for line in java.read_text().splitlines() if "gc.log" not in line))
            if self.certificates is not None:
                shutil.copy(self.certificates.cert, config / "http.pem")
                shutil.copy(self.certificates.key, config / "http.key")
            if self.secure:
                (config / "roles.yml").write_text(WRITER)
                self._add_user(home, config, "admin", "superuser")
                self._add_user(home, config, "writer", "writer")
        for each in (self.folder, *self.folder.rglob("*")):
            os.chmod(each, 0o777 if each.is_dir() else 0o666)
        environment = {
            **os.environ,
            self.java[0]: str(java_home(self.java[1])),
            self.options: "-Xms512m -Xmx512m",
            "ES_PATH_CONF": str(config),
            "OPENSEARCH_PATH_CONF": str(config),
        }
        with (self.folder / "said").open("ab") as log:
            self._process = subprocess.Popen(
                [home / self.program], stdout=log, stderr=log, env=environment, **another_user()
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "said").read_text(errors="replace")[-3000:]
                self.kill()
                raise ServerError(f"{self.folder_name} did not start: {said}")
            time.sleep(0.1)

    def _settings(self) -> str:
        return (
            "\ndiscovery.type: single-node\nnetwork.host: 127.0.0.1\n"
            f"http.port: {self.port}\ntransport.port: {self._transport_port}\n"
            f"path.data: {self.folder}/data\npath.logs: {self.folder}/logs\n"
            "cluster.routing.allocation.disk.threshold_enabled: false\n" + self._security()
        )

    def _security(self) -> str:
        return (
            f"xpack.security.enabled: {str(self.secure).lower()}\n"
            "xpack.security.autoconfiguration.enabled: false\n"
            "xpack.security.transport.ssl.enabled: false\nxpack.ml.enabled: false\n"
            f"xpack.security.http.ssl.enabled: {str(self.certificates is not None).lower()}\n" + self._tls()
        )

    def _tls(self) -> str:
        if self.certificates is None:
            return ""
        return "xpack.security.http.ssl.certificate: http.pem\nxpack.security.http.ssl.key: http.key\n"

    def _add_user(self, home: Path, config: Path, name: str, role: str) -> None:
        environment = {**os.environ, self.java[0]: str(java_home(self.java[1])), "ES_PATH_CONF": str(config)}
        command = [home / "bin/elasticsearch-users", "useradd", name, "-p", PASSWORD, "-r", role]
        subprocess.run(command, env=environment, check=True, capture_output=True)

    def _answers(self) -> bool:
        try:
            self.ask("GET", "/_cluster/health")
        except (OSError, urllib.error.HTTPError):
            return False
        return True

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(60)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    close = kill

    # --- questions ----------------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Raises urllib.error.HTTPError."""
        request = urllib.request.Request(f"{self.url}{path}", method=method)
        request.add_header("content-type", "application/json")
        if self.secure:
            request.add_header("authorization", "Basic " + b64encode(f"admin:{PASSWORD}".encode()).decode())
        data = json.dumps(body).encode() if body is not None else None
        trusted = ssl.create_default_context(cafile=self.certificates.ca) if self.certificates else None
        with urllib.request.urlopen(request, data, timeout=60, context=trusted) as response:
            text = response.read()
        return json.loads(text) if text else None

    def has(self, index: str) -> bool:
        return bool(self.ask("GET", f"/_cat/indices/{index}*?format=json"))

    def count(self, index: str) -> int:
        self.ask("POST", f"/{index}/_refresh")
        return int(self.ask("GET", f"/{index}/_count")["count"])

    def documents(self, index: str) -> list[dict[str, Any]]:
        """All of them, with their ids, in the order of these."""
        self.ask("POST", f"/{index}/_refresh")
        found: list[dict[str, Any]] = []
        after: list[Any] = []
        while True:
            query: dict[str, Any] = {"size": 10_000, "sort": [{"event.id": "asc"}]}
            if after:
                query["search_after"] = after
            hits = self.ask("POST", f"/{index}/_search", query)["hits"]["hits"]
            if not hits:
                return found
            found += hits
            after = hits[-1]["sort"]


class OpenSearch(Elasticsearch):
    folder_name: ClassVar[str] = "opensearch-3.6.0"
    java: ClassVar[tuple[str, ...]] = ("OPENSEARCH_JAVA_HOME", "21")
    program: ClassVar[str] = "bin/opensearch"
    options: ClassVar[str] = "OPENSEARCH_JAVA_OPTS"

    def _security(self) -> str:
        return ""


def java_home(version: str) -> Path | None:
    """Of this version of Java, or a newer one where that is 21."""
    versions = (version, "25", "24", "23", "22") if version == "21" else (version,)
    for each in versions:
        for path in (*Path("/usr/lib/jvm").glob(f"*{each}*"), *Path("/opt").glob(f"*{each}*")):
            if (path / "bin/java").exists():
                return path
    return None


def another_user() -> dict[str, Any]:
    """It refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
