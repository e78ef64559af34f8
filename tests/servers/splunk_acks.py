"""What Tenzir lacks of an indexer: it says that a delivery is safe once the records of it are written.

    server = Tenzir(folder, SPLUNK_ACK)
    server.start()
    with Acknowledging(server) as acknowledging:
        send_to(acknowledging.port)

It passes requests on, and answers back. Tokens, channels, ids, and what a question must look like, are
Tenzir's; of its answers to questions the `false` becomes `true` in time. Like Splunk it says that once, and
knows nothing from before it was killed.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.growing_file import Lines
from tests.servers.tenzir import Tenzir


class Acknowledging:
    """Between a sink and Tenzir. Requests with events go one by one, so that it is known where they end."""

    def __init__(self, server: Tenzir) -> None:
        self.server = server
        self.asked = 0
        """Questions that were answered."""
        self._turn = threading.Lock()
        self._looking = threading.Lock()
        self._lines = Lines(server.output)
        self._taken = self._written()
        self._connections: set[socket.socket] = set()
        self._ends: dict[str, int] = {}
        """By id, how many records are written when its own are."""
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    def __enter__(self) -> Acknowledging:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @contextmanager
    def killed(self) -> Iterator[None]:
        """Tenzir is killed, with its connections, and started again at the end."""
        self.server.kill()
        for connection in [*self._connections]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        with self._turn:
            self._ends.clear()
        yield
        with self._turn:
            self._taken = self._written()
            self.server.start()

    def answer(self, target: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Raises OSError or HTTPException where Tenzir gives none."""
        if not target.startswith("/services/collector/ack"):
            with self._turn:
                status, said = self._pass_on(target, headers, body)
                if status == 200:
                    gzip = headers.get("content-encoding") == "gzip"
                    events = zlib.decompress(body, zlib.MAX_WBITS | 16) if gzip else body
                    self._taken += events.count(b"\n")  # the sink ends each with one
                    self._ends[str(json.loads(said)["ackId"])] = self._taken
                return status, said
        status, said = self._pass_on(target, headers, body)
        if status == 200:
            self.asked += 1
            written = self._written()
            acks = json.loads(said)["acks"]
            with self._turn:
                for each in [each for each in acks if self._ends.get(each, written + 1) <= written]:
                    acks[each] = True
                    del self._ends[each]
            said = json.dumps({"acks": acks}).encode()
        return status, said

    def _written(self) -> int:
        with self._looking:
            return self._lines.count()

    def _pass_on(self, target: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)) as connection:
            connection.request("POST", target, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        acknowledging = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self) -> None:
                acknowledging._connections.add(self.connection)
                try:
                    super().handle()
                except OSError:  # it was cut, or the daemon is gone
                    pass
                finally:
                    acknowledging._connections.discard(self.connection)

            def do_POST(self) -> None:
                size = int(self.headers["content-length"])
                body = self.rfile.read(size)
                if len(body) < size:
                    self.close_connection = True
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                headers.pop("connection", None)
                try:
                    status, said = acknowledging.answer(self.path, headers, body)
                except (OSError, http.client.HTTPException):
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
