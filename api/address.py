"""Where the API is: a unix socket, or host and port; and where it is by default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

SOCKET = "logroute.sock"
DEFAULT_PORT = 80


class Address(msgspec.Struct, frozen=True):
    """A unix socket's path, or a host and a port."""

    path: str = ""
    host: str = ""
    """Empty with a port: every interface."""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """From `unix:///run/x.sock`, `/run/x.sock`, `127.0.0.1:8080`, `[::1]:8080` or `http://host:8080`.

        Raises ValueError.
        """
        path = text.removeprefix("unix://") if text.startswith("unix://") else text
        if path.startswith("/"):
            return cls(path=path)
        rest = text.removeprefix("http://").removesuffix("/")
        host, colon, port = rest.rpartition(":")
        if text.startswith("http://") and (not colon or rest.endswith("]")):
            host, port = rest, str(DEFAULT_PORT)
        if "/" in rest or not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
            raise ValueError(
                f"{text!r} is no address of an API: unix:///run/logroute/logroute.sock, or 127.0.0.1:8080"
            )
        return cls(host=host.removeprefix("[").removesuffix("]"), port=int(port))

    @property
    def is_local(self) -> bool:
        """Whether only this host can reach it."""
        if self.path or self.host == "localhost":
            return True
        import ipaddress  # by hosts and ports only: half a megabyte

        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def is_meant_by(self, url: str) -> bool:
        """Whether a URL surely leads here: by the same name, by a name of this machine, or by the path."""
        if self.path:
            return url.endswith(self.path)
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme.split("+")[-1])
        except ValueError:
            return False
        this_machine = host in ("0.0.0.0", "::") or Address(host=host).is_local
        return port == self.port and (host == self.host or this_machine)


def default_address(environ: Mapping[str, str] = os.environ) -> Address | None:
    """`logroute.sock` in `$RUNTIME_DIRECTORY`, `/run/logroute` for root, or `$XDG_RUNTIME_DIR/logroute`.

    The first that there is; None where there is no such folder to be had.
    """
    if folder := environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]:
        return Address(path=str(Path(folder) / SOCKET))
    if os.geteuid() == 0:
        return Address(path=f"/run/logroute/{SOCKET}")
    if folder := environ.get("XDG_RUNTIME_DIR", ""):
        return Address(path=str(Path(folder) / "logroute" / SOCKET))
    return None


DEFAULT_PORTS = {"http": 80, "https": 443}
