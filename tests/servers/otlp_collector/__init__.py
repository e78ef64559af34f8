"""The OpenTelemetry Collector's receiver of OTLP by HTTP, for tests; without TLS.

Have it: `tests/servers/install`, which needs Go and builds it once. It needs no root.

    server = OtlpCollector(folder)
    server.start()
    send_to(server.port)
    server.wait_for(1)
    server.close()
"""

from __future__ import annotations

from tests.servers.json_lines import CACHE, JsonLinesServer

PROGRAM = CACHE / "otlp-collector-v0.165.0" / "otlp_collector"


class OtlpCollector(JsonLinesServer):
    """Its records have `time_ns`, `severity`, `severity_text`, `body`, `attributes`, `resource` and `scope`.

    A request with a record that says "refuse me" is refused for good.
    """

    @classmethod
    def unavailable(cls) -> str | None:
        """Why it cannot be had here; None if it can."""
        if PROGRAM.exists():
            return None
        return "the Collector's OTLP receiver is not built (tests/servers/install)"

    def command(self) -> list[str]:
        return [str(PROGRAM), f"127.0.0.1:{self.port}"]
