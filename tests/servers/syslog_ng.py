"""A real syslog-ng for tests, as a process of its own with a configuration of its own.

Have it: `tests/servers/install`, which unpacks Debian's package beside the system, where it excludes rsyslog.
It needs no root. What it has parsed is a line of JSON for each message.

    server = SyslogNg(folder, "tcp")  # or "tls", "udp", "unix-dgram", "unix-stream"
    server.start()
    send_to(server.port)
    server.wait_for(1)
    server.messages()
    server.close()
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

from tests.servers.rsyslog import START_S, Certificates, Rsyslog, RsyslogError, free_port

ROOT = Path.home() / ".cache/logroute/syslog-ng"

FIELDS = (
    "facility=$FACILITY severity=$LEVEL_NUM time=$S_ISODATE hostname=$HOST app_name=$PROGRAM procid=$PID"
    " msgid=$MSGID structured_data=$SDATA message=$MSG"
)
CONFIGURATION = """\
@version: 3.38
options {{ keep-hostname(yes); chain-hostnames(no); use-dns(no); dns-cache(no); stats-freq(0);
  frac-digits(6); log-fifo-size(400000); log-msg-size(65536); }};
source s {{ {source}; }};
destination d {{ file("{folder}/messages" template("$(format-json {fields})\\n")); }};
log {{ source(s); destination(d); }};
"""
SOURCES = {
    "tcp": 'syslog(ip("127.0.0.1") port({port}) transport("tcp") log-iw-size(100000) log-fetch-limit(1000))',
    "tls": (
        'syslog(ip("127.0.0.1") port({port}) transport("tls") log-iw-size(100000) log-fetch-limit(1000)'
        ' tls(ca-file("{ca}") cert-file("{cert}") key-file("{key}") peer-verify({verify})))'
    ),
    "udp": 'syslog(ip("127.0.0.1") port({port}) transport("udp") so-rcvbuf(268435456) log-fetch-limit(1000))',
    "unix-dgram": 'unix-dgram("{folder}/log" flags(syslog-protocol) so-rcvbuf(1048576))',
    "unix-stream": 'unix-stream("{folder}/log" flags(syslog-protocol) log-iw-size(100000))',
}


class SyslogNg(Rsyslog):
    """One server. It is watched, and read, as an rsyslog is."""

    def __init__(
        self,
        folder: Path,
        source: str,
        *,
        certificates: Certificates | None = None,
        clients: bool = False,
    ) -> None:
        """`clients`: they need a certificate too."""
        super().__init__(folder, certificates=certificates, clients=clients)
        self._source = source

    @classmethod
    def unavailable(cls) -> str | None:
        return None if cls._program() else "syslog-ng is not unpacked (tests/servers/install)"

    @classmethod
    def _program(cls) -> str | None:
        path = ROOT / "usr/sbin/syslog-ng"
        return str(path) if path.exists() else None

    @property
    def path(self) -> Path:
        """Of its unix socket."""
        return self.folder / "log"

    def start(self) -> None:
        program = self._program()
        assert program is not None
        if not self._source.startswith("unix") and not self.port:
            self.port = free_port(socket.SOCK_DGRAM if self._source == "udp" else socket.SOCK_STREAM)
        source = SOURCES[self._source].format(
            port=self.port,
            folder=self.folder,
            verify="required-trusted" if self._clients else "optional-untrusted",
            **(self._certificates._asdict() if self._certificates else {}),
        )
        config = self.folder / "syslog-ng.conf"
        config.write_text(CONFIGURATION.format(folder=self.folder, source=source, fields=FIELDS))
        libraries = ROOT / "usr/lib/syslog-ng"
        command = [program, "--foreground", "--no-caps", "--cfgfile", str(config)]
        command += ["--module-path", str(libraries / "3.38")]
        for option, name in (("persist-file", "persist"), ("pidfile", "pid"), ("control", "control")):
            command += [f"--{option}", str(self.folder / name)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "LD_LIBRARY_PATH": str(libraries)}
            )
        deadline = time.monotonic() + START_S
        while not self._is_there():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace")[-3000:]
                self.stop()
                raise RsyslogError(f"syslog-ng did not start: {said}")
            time.sleep(0.02)

    def _is_there(self) -> bool:
        if self._source == "udp":
            return f":{self.port:04X} " in Path("/proc/net/udp").read_text()
        if self._source in ("tcp", "tls"):
            with socket.socket() as tried:
                return tried.connect_ex(("127.0.0.1", self.port)) == 0
        return self.path.exists()
