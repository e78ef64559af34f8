"""The OpenTelemetry Collector's receiver of the Forward protocol, for tests; without TLS and shared key.

Have it: `tests/servers/install`, which needs Go and builds it once. It needs no root.

    server = ForwardCollector(folder)
    server.start()
    send_to(server.port)
    server.wait_for(1)
    server.close()
"""

from __future__ import annotations

from tests.servers.json_lines import CACHE, JsonLinesServer

PROGRAM = CACHE / "forward-collector-v0.165.1" / "forward_collector"


class ForwardCollector(JsonLinesServer):
    """Its records have `time_ns`, `message` and `attributes`: the rest of the map, and `fluent.tag`."""

    @classmethod
    def unavailable(cls) -> str | None:
        """Why it cannot be had here; None if it can."""
        if PROGRAM.exists():
            return None
        return "the Collector's Forward receiver is not built (tests/servers/install)"

    def command(self) -> list[str]:
        return [str(PROGRAM), f"127.0.0.1:{self.port}"]
