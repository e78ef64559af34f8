"""The readers of Graylog's own library for Go, for tests: GELF by UDP, and by TCP.

Have it: `tests/servers/install`, which needs Go and builds it once. It needs no root; as root it has a buffer
for more datagrams.

    server = GelfReader(folder, "udp")
    server.start()
    send_to(server.port)
    server.wait_for(1)
    server.close()
"""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path
from typing import Literal

from tests.servers.json_lines import CACHE, JsonLinesServer
from tests.servers.rsyslog import free_port

PROGRAM = CACHE / "gelf-reader-20191017" / "gelf_reader"


class GelfReader(JsonLinesServer):
    """Its records have the fields of a message, those that begin with `_` in `extra`.

    By UDP it takes datagrams of 1,420 bytes, chunks of one message at a time. It ends at what it cannot read.
    By TCP it keeps a processor busy as long as it runs.
    """

    def __init__(self, folder: Path, transport: Literal["udp", "tcp"]) -> None:
        super().__init__(folder)
        self._transport = transport
        self.port = free_port(socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM)

    @classmethod
    def unavailable(cls) -> str | None:
        """Why it cannot be had here; None if it can."""
        if PROGRAM.exists():
            return None
        return "the reader of Graylog's library is not built (tests/servers/install)"

    def command(self) -> list[str]:
        return [str(PROGRAM), self._transport, f"127.0.0.1:{self.port}"]

    def _listens(self) -> bool:
        if self._transport == "tcp":
            return super()._listens()
        with closing(socket.socket(type=socket.SOCK_DGRAM)) as made:
            try:
                made.bind(("127.0.0.1", self.port))
            except OSError:
                return True
        return False
