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
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any, ClassVar

import trustme

from tests.servers.rsyslog import free_port

CACHE = Path(os.environ.get("LOGROUTE_SEARCH_CACHE", "/var/cache/logroute"))
START_S = 300.0
# It lives too short for the second compiler, which takes two processors for half of its start, for a
# collector with threads of its own, and for checks of classes that its makers have tested.
JAVA = (
    "-Xms512m -Xmx512m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    " -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote"
)
JAVA_OF_THE_LAUNCHER = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
PASSWORD = "a-long-password"
WRITER = """\
writer:
  indices:
    - names: ["logs-*"]
      privileges: [create_doc, create_index]
"""
"""A role that may only write."""


class ServerError(Exception):
    """It did not start. The text says what it said."""


class Elasticsearch:
    """One node; `start`, `stop` and `kill` as often as wanted, on the same port."""

    folder_name: ClassVar[str] = "elasticsearch-8.19.21"
    java: ClassVar[tuple[str, ...]] = ("ES_JAVA_HOME", "17")
    program: ClassVar[str] = "bin/elasticsearch"
    options: ClassVar[str] = "ES_JAVA_OPTS"

    def __init__(self, folder: Path, *, secure: bool = False, java_options: str = JAVA) -> None:
        """`java_options` name a heap and a collector."""
        self.folder = folder
        self.secure = secure
        """With users, and by TLS: see `ca`."""
        self.port = free_port(socket.SOCK_STREAM)
        self._java_options = java_options
        self._transport_port = free_port(socket.SOCK_STREAM)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http{'s' if self.secure else ''}://127.0.0.1:{self.port}"

    @property
    def ca(self) -> Path:
        """The authority that has signed the certificate of a secure one, for 127.0.0.1."""
        return self.folder / "config/ca.pem"

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
            # Java's own log would stand beside the program, where its user may not write; our options name
            # a collector.
            java = config / "jvm.options"
            lines = java.read_text().splitlines()
            java.write_text("\n".join(each for each in lines if "gc.log" not in each and "G1" not in each))
            if self.secure:
                authority = trustme.CA()
                authority.cert_pem.write_to_path(self.ca)
                certificate = authority.issue_cert("127.0.0.1")
                certificate.private_key_pem.write_to_path(config / "server.key")
                certificate.cert_chain_pems[0].write_to_path(config / "server.pem")
                (config / "roles.yml").write_text(WRITER)
                self._add_user(home, config, "admin", "superuser")
                self._add_user(home, config, "writer", "writer")
        for each in (self.folder, *self.folder.rglob("*")):
            os.chmod(each, 0o777 if each.is_dir() else 0o666)
        environment = {
            **os.environ,
            self.java[0]: str(java_home(self.java[1])),
            self.options: self._java_options,
            "CLI_JAVA_OPTS": JAVA_OF_THE_LAUNCHER,
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
            "xpack.security.authc.api_key.enabled: true\n"
            f"xpack.security.http.ssl.enabled: {str(self.secure).lower()}\n"
            + (
                "xpack.security.http.ssl.key: server.key\nxpack.security.http.ssl.certificate: server.pem\n"
                if self.secure
                else ""
            )
        )

    def _add_user(self, home: Path, config: Path, name: str, role: str) -> None:
        environment = {**os.environ, self.java[0]: str(java_home(self.java[1])), "ES_PATH_CONF": str(config)}
        command = [home / "bin/elasticsearch-users", "useradd", name, "-p", PASSWORD, "-r", role]
        subprocess.run(command, env=environment, check=True, capture_output=True)

    def _answers(self) -> bool:
        try:
            self.ask("GET", "/_cluster/health")
        except (OSError, HTTPException):
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
        context = ssl.create_default_context(cafile=self.ca) if self.secure else None
        try:
            with urllib.request.urlopen(request, data, timeout=60, context=context) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            error.close()
            raise
        return json.loads(text) if text else None

    @classmethod
    def makes_no_api_keys(cls) -> str | None:
        """Why it makes none; None if it does."""
        made = (CACHE / cls.folder_name / "plugins/security-analysis").exists()
        return (
            None if made else f"{cls.folder_name} has no plugin to make API keys with (tests/servers/install)"
        )

    def api_key(self, index: str) -> str:
        """A new one that may only write to these indices, encoded as `auth.api_key` takes it."""
        may = {"names": [index], "privileges": ["create_doc", "create_index"]}
        asked = {"name": "writer", "role_descriptors": {"writer": {"indices": [may]}}}
        return str(self.ask("POST", "/_security/api_key", asked)["encoded"])

    def count(self, index: str) -> int:
        self.ask("POST", f"/{index}/_refresh")
        return int(self.ask("GET", f"/{index}/_count")["count"])

    def cpu_s(self) -> float:
        """CPU that its process has used so far."""
        [node] = self.ask("GET", "/_nodes/stats/process")["nodes"].values()
        return float(node["process"]["cpu"]["total_in_millis"]) / 1000

    def documents(self, index: str) -> Iterator[dict[str, Any]]:
        """All of them, with their ids, in the order of these. `fields` has the time as it is indexed."""
        self.ask("POST", f"/{index}/_refresh")
        times = {"field": "@timestamp", "format": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSSSSX"}
        after: list[Any] = []
        while True:
            query: dict[str, Any] = {
                "size": 10_000,
                "sort": [{"event.id": "asc"}],
                "docvalue_fields": [times],
            }
            if after:
                query["search_after"] = after
            hits = self.ask("POST", f"/{index}/_search", query)["hits"]["hits"]
            if not hits:
                return
            yield from hits
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
