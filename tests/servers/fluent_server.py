"""The Fluent project's own receiver in JavaScript, for tests: shared key, users and TLS are in it.

Have it: `tests/servers/install`, which needs npm. It needs no root.

    server = FluentServer(folder, security={"serverHostname": "fluent", "sharedKey": "key"})
    server.start()
    send_to(server.port)
    server.wait_for(1)
    server.close()
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.servers.json_lines import CACHE, JsonLinesServer

PACKAGE = CACHE / "fluent-logger-1.0.10"
PROGRAM = Path(__file__).parent / "fluent_server.js"


class FluentServer(JsonLinesServer):
    """Its records have `tag`, `seconds`, `nanoseconds` and `record`."""

    def __init__(
        self, folder: Path, *, security: dict[str, Any] | None = None, tls: dict[str, str] | None = None
    ) -> None:
        super().__init__(folder)
        self._security = security
        self._tls = tls

    @classmethod
    def unavailable(cls) -> str | None:
        """Why it cannot be had here; None if it can."""
        if shutil.which("node") is None:
            return "node is not installed"
        if not (PACKAGE / "node_modules").exists():
            return "the Fluent project's receiver is not installed (tests/servers/install)"
        return None

    def command(self) -> list[str]:
        options: dict[str, Any] = {"listenOptions": {"host": "127.0.0.1", "port": self.port}}
        if self._security:
            options["security"] = {"authorize": False, "userDict": {}, **self._security}
        if self._tls:
            options["tlsOptions"] = self._tls
        return ["node", str(PROGRAM), str(PACKAGE), json.dumps(options)]
