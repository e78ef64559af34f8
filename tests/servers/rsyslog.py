"""A real rsyslog for tests, as a process of its own with a configuration of its own.

Have it: `tests/servers/install`. It needs no root. What it has parsed is a line of JSON for each message.
It listens for plain TCP, and for one more way of sending: `udp`, `tls`, `relp`, `relp+tls`, or `unix`, a
socket such as /dev/log at `path`, with times of its own as is the default there; by `unix+times` with the
messages'.

    server = Rsyslog(folder)
    server.start()
    send_to(server.port)
    server.wait_for(1)
    server.messages()
    server.close()
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.growing_file import Lines

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_S = 30.0
STOP_S = 30.0
STALLED_S = 30.0
"""How long nothing may come before what is awaited counts as lost."""

PROPERTIES = {
    "facility": "syslogfacility",
    "severity": "syslogseverity",
    "time": "timereported",
    "hostname": "hostname",
    "app_name": "app-name",
    "programname": "programname",
    "procid": "procid",
    "msgid": "msgid",
    "structured_data": "structured-data",
    "message": "msg",
}

# Control characters are left as they were sent; by default they would become `#012` and the like. With one
# worker the messages stay in order.
CONFIGURATION = """\
global(workDirectory="{folder}" maxMessageSize="64k" parser.escapeControlCharactersOnReceive="off"{authority})
main_queue(queue.type="{queue}" queue.size="400000" queue.workerThreads="1")
module(load="imtcp")
template(name="parsed" type="list" option.jsonf="on") {{
{properties}
}}
input(type="imtcp" address="127.0.0.1" port="{port}" listenPortFileName="{folder}/port")
{more}
action(type="omfile" file="{folder}/messages" template="parsed")
"""
MORE = {
    "tcp": "",
    "udp": (
        'module(load="imudp")\ninput(type="imudp" address="127.0.0.1" port="{port}" rcvbufSize="{buffer}")'
    ),
    "tls": (
        'input(type="imtcp" address="127.0.0.1" port="{port}" StreamDriver.Name="gtls" StreamDriver.Mode="1"'
        ' StreamDriver.AuthMode="{auth}" {peer})'
    ),
    "unix": 'module(load="imuxsock" SysSock.Use="off")\ninput(type="imuxsock" Socket="{path}")',
    "unix+times": (
        'module(load="imuxsock" SysSock.Use="off")\n'
        'input(type="imuxsock" Socket="{path}" ignoreTimestamp="off" useSysTimeStamp="off")'
    ),
    "relp": 'module(load="imrelp")\ninput(type="imrelp" address="127.0.0.1" port="{port}" maxDataSize="64k")',
    "relp+tls": (
        'module(load="imrelp" tls.tlslib="openssl")\n'
        'input(type="imrelp" address="127.0.0.1" port="{port}" maxDataSize="64k" tls="on"'
        ' tls.caCert="{ca}" tls.myCert="{cert}" tls.myPrivKey="{key}" tls.authMode="certvalid")'
    ),
}
UDP_BUFFER_BYTES = 256 << 20
"""What waits in the kernel: as root it may be as much as all that a test sends."""


class Certificates(NamedTuple):
    """Files of PEM: the authority, and the server's own."""

    ca: Path
    cert: Path
    key: Path


class RsyslogError(Exception):
    """It did not start, or did not take what was sent. The text says what it said."""


class Rsyslog:
    """One server; `start` and `stop` as often as wanted, on the same port."""

    def __init__(
        self,
        folder: Path,
        more: str = "tcp",
        *,
        certificates: Certificates | None = None,
        clients: bool = False,
        durable: bool = False,
    ) -> None:
        """`clients`: they need a certificate too. `durable`: what it acknowledges is written."""
        self.folder = folder
        self.port = 0
        """Of plain TCP."""
        self.other_port = 0
        """Of the other way."""
        self._more = more
        self._certificates = certificates
        self._clients = clients
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self._lines = Lines(self._output)

    @classmethod
    def unavailable(cls) -> str | None:
        """Why it cannot be had here; None if it can."""
        return None if cls._program() else "rsyslogd is not installed (tests/servers/install)"

    @classmethod
    def _program(cls) -> str | None:
        return shutil.which("rsyslogd", path=PATH)

    # --- life ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns once it listens."""
        if self._process is not None:
            raise RsyslogError("it is running")
        program = self._program()
        assert program is not None
        properties = "\n".join(
            f'  property(outname="{name}" name="{property_}" format="jsonf"'
            + (' dateFormat="rfc3339")' if name == "time" else ")")
            for name, property_ in PROPERTIES.items()
        )
        config, port = self.folder / "rsyslog.conf", self.folder / "port"
        config.write_text(self._configuration(properties))
        port.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-n", "-i", self.folder / "pid", "-f", config], stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_S
        while not self._listens(port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace")[-3000:]
                self.stop()
                raise RsyslogError(f"rsyslog did not start: {said}")
            time.sleep(0.02)

    def _configuration(self, properties: str) -> str:
        udp = self._more == "udp"
        if self._more not in ("tcp", "unix", "unix+times") and not self.other_port:
            self.other_port = free_port(socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
        files = self._certificates._asdict() if self._certificates else {}
        authority = ""
        if self._more == "tls":
            authority = (
                ' defaultNetstreamDriverCAFile="{ca}" defaultNetstreamDriverCertFile="{cert}"'
                ' defaultNetstreamDriverKeyFile="{key}"'
            ).format(**files)
        more = MORE[self._more].format(
            port=self.other_port,
            path=self.path,
            buffer=UDP_BUFFER_BYTES,
            auth="x509/certvalid" if self._clients else "anon",
            peer="",
            **files,
        )
        return CONFIGURATION.format(
            folder=self.folder,
            properties=properties,
            port=self.port,
            more=more,
            authority=authority,
            queue="Direct" if self._durable else "FixedArray",
        )

    def _listens(self, port: Path) -> bool:
        # It tells a port only that it has chosen itself.
        if not self.port and port.exists():
            self.port = int(port.read_text() or 0)
        if not self.port:
            return False
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
            if self._more.startswith("unix"):
                return self.path.is_socket()
            if self._more == "udp":
                return f":{self.other_port:04X} " in Path("/proc/net/udp").read_text()
            if self.other_port:
                socket.create_connection(("127.0.0.1", self.other_port)).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End it as a crash does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """End it as the system does; what it has read is written before."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        self.stop()

    # --- what came ----------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """Of its unix socket."""
        return self.folder / "log"

    @property
    def log(self) -> Path:
        """What it says about itself."""
        return self.folder / "rsyslog.log"

    @property
    def _output(self) -> Path:
        return self.folder / "messages"

    def wait_for(self, count: int, every_s: float = 0.02) -> None:
        """Until so many messages have come. Blocks; raises RsyslogError when no more are coming."""
        came, deadline = 0, time.monotonic() + STALLED_S
        while came < count:
            before, came = came, self.count()
            if came > before:
                deadline = time.monotonic() + STALLED_S
            if time.monotonic() > deadline:
                raise RsyslogError(f"of {count} messages {came} came")
            time.sleep(every_s)

    def count(self) -> int:
        """Messages that have come so far."""
        return self._lines.count()

    def texts(self) -> list[str]:
        """The messages alone."""
        return [message["message"] for message in self.messages()]

    def messages(self) -> list[dict[str, Any]]:
        """Everything that came, as it was parsed."""
        return [json.loads(line) for line in self._output.read_bytes().splitlines()]


def free_port(kind: socket.SocketKind) -> int:
    """One that nobody has just now."""
    with socket.socket(type=kind) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
