"""Tenzir, for tests: a pipeline for security data, whose inputs read Splunk's HTTP Event Collector and GELF.

Have it: `tests/servers/install`, which takes the program out of its package for Python. It needs no root.

    server = Tenzir(folder, SPLUNK)
    server.start()
    send_to(server.port)
    server.wait_for(1)
    server.close()
"""

from __future__ import annotations

from pathlib import Path

from tests.servers.json_lines import CACHE, JsonLinesServer

PROGRAM = CACHE / "tenzir-6.20.0" / "tenzir-engine"

TOKEN = "b5a79aad-d822-46cc-80d1-819f80d7bfb0"
SPLUNK = f'accept_splunk "127.0.0.1:{{port}}", hec_token="{TOKEN}"'
"""Its records are events: `time`, `event`, `fields`, and the others that were sent."""
SPLUNK_ACK = f"{SPLUNK}, ack=true"
"""The same: it gives ids, on channels, and never says that it has committed one (`splunk_acks` does)."""
SPLUNK_SLOW_ACK = f"{SPLUNK_ACK} | batch 1000000, timeout=300ms"
"""What it has taken it holds for a while before it writes it."""
GELF_TCP = 'accept_tcp "127.0.0.1:{port}" {{ read_gelf raw=true }}'
"""Its records are messages, which end with a NUL."""
GELF_HTTP = 'accept_http "127.0.0.1:{port}" {{ read_gelf raw=true }}'
"""Likewise, those of a request's body."""


class Tenzir(JsonLinesServer):
    """One of these inputs. A number is a double: of the nanoseconds of a time some hundred are lost."""

    def __init__(self, folder: Path, source: str) -> None:
        super().__init__(folder)
        self._source = source

    @classmethod
    def unavailable(cls) -> str | None:
        """Why it cannot be had here; None if it can."""
        if PROGRAM.exists():
            return None
        return "Tenzir is not there (tests/servers/install)"

    def command(self) -> list[str]:
        pipeline = f"{self._source.format(port=self.port)} | write_ndjson | save_stdout"
        directories = [f"--{name}-directory={self.folder / 'tenzir'}" for name in ("state", "cache")]
        return [str(PROGRAM), "--bare-mode", *directories, pipeline]
