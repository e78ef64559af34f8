"""Where the Docker engine is, as docker's own tools find it, and connections to it.

Order: what the configuration says, `$DOCKER_HOST`, the docker context, the usual sockets. TLS verifies unless
it was told not to.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import trio

if TYPE_CHECKING:
    import ssl  # OpenSSL is loaded where TLS is spoken

PLAIN_PORT = 2375
TLS_PORT = 2376

# A peer that vanished without a word is noticed after 30 + 3 * 10 s, however silent its containers are.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))

_REFUSED_SCHEMES = {
    "npipe": "named pipes are Windows': give the engine's tcp:// or https:// address",
    "ssh": "there is no ssh in here: forward the socket (ssh -nNT -L /tmp/engine.sock:/var/run/docker.sock "
    "{place}) and give unix:///tmp/engine.sock",
    "fd": "give the unix:// address of the socket that the engine listens on",
}


class AddressError(ValueError):
    """The address of the engine, or its TLS settings, cannot be used: the configuration must change."""


class EngineTls(msgspec.Struct, frozen=True):
    """Certificates for an engine over TCP. Paths of PEM files."""

    ca: str | None = None
    """Trusted authorities; the system's where there is none."""
    cert: str | None = None
    """Our certificate, with `key`."""
    key: str | None = None
    verify: bool = True

    @classmethod
    def from_folder(cls, folder: str | Path, *, verify: bool) -> EngineTls:
        """`ca.pem`, `cert.pem` and `key.pem`, as docker keeps them; each may be missing."""

        def found(name: str) -> str | None:
            path = Path(folder, name)
            return str(path) if path.is_file() else None

        return cls(found("ca.pem"), found("cert.pem"), found("key.pem"), verify)

    def context(self) -> ssl.SSLContext:
        """Read the files. Raises AddressError that names the one that cannot be used."""
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise AddressError(f"cannot use the TLS authority {self.ca}: {error}") from error
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert is not None:
            try:
                context.load_cert_chain(self.cert, self.key)
            except (OSError, ssl.SSLError) as error:
                raise AddressError(f"cannot use the TLS certificate {self.cert}: {error}") from error
        return context


class EngineAddress(msgspec.Struct, frozen=True):
    """One engine: a unix socket (`path`) or a host and port, these with or without TLS."""

    text: str
    """As it was given, for messages."""
    said_by: str
    """Who named it: the configuration, `$DOCKER_HOST`, a context, nobody."""
    path: str | None = None
    host: str = ""
    port: int = 0
    prefix: str = ""
    """Path in front of every request, where a proxy wants one."""
    tls: EngineTls | None = None

    def __str__(self) -> str:
        return f"{self.text} ({self.said_by})"

    @property
    def authority(self) -> str:
        """For the Host header."""
        if self.path is not None:
            return "docker"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def resolve(
        cls,
        host: str | None = None,
        *,
        tls: EngineTls | None = None,
        said_by: str = "from the configuration",
    ) -> EngineAddress:
        """Find the engine. Reads the environment and docker's configuration; raises AddressError.

        `said_by` is who has named `host`, in the words of a message.

        `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH` hold for any `tcp://` address, as in docker's own tools,
        unless `tls` is given. May block shortly (small files).
        """
        if host:
            return cls.parse(host, said_by, tls or _tls_of_environment())
        if host := os.environ.get("DOCKER_HOST"):
            return cls.parse(host, "from $DOCKER_HOST", tls or _tls_of_environment())
        if (context := _current_context()) is not None:
            return _of_context(*context, tls)
        return cls.parse("unix://" + _default_socket(), "the default", tls)

    @classmethod
    def parse(cls, text: str, said_by: str, tls: EngineTls | None = None) -> EngineAddress:
        """Understand one address as DOCKER_HOST has it. Raises AddressError."""
        where = f"{text!r} ({said_by})"
        scheme, separator, rest = text.strip().partition("://")
        if not separator:
            if text.startswith("/"):
                return cls(f"unix://{text}", said_by, path=text)
            scheme, rest = "tcp", text.strip()
        if hint := _REFUSED_SCHEMES.get(scheme):
            raise AddressError(f"cannot reach an engine at {where}: {hint.format(place=rest.split('/')[0])}")
        if scheme == "unix":
            if not rest.startswith("/"):
                raise AddressError(f"the engine's address {where} needs an absolute path: unix:///path")
            return cls(f"unix://{rest}", said_by, path=rest)
        if scheme not in ("tcp", "http", "https"):
            raise AddressError(f"cannot reach an engine at {where}: use unix://, tcp://, http:// or https://")
        try:
            parts = urlsplit(f"//{rest}")
            port = parts.port
        except ValueError as error:
            raise AddressError(f"the engine's address {where} is no host and port: {error}") from error
        if parts.username or parts.query or parts.fragment:
            raise AddressError(f"the engine's address {where} may have a host, a port and a path only")
        if scheme == "http":
            tls = None
        elif scheme == "https":
            tls = tls or EngineTls()
        return cls(
            f"{scheme}://{rest}",
            said_by,
            host=parts.hostname or "127.0.0.1",
            port=port or (TLS_PORT if tls else PLAIN_PORT),
            prefix=parts.path.rstrip("/"),
            tls=tls,
        )

    async def connect(self) -> trio.abc.Stream:
        """A new connection. Raises OSError, ssl.SSLError, or AddressError for certificates."""
        if self.path is not None:
            return await trio.open_unix_socket(self.path)
        # Files are read each time: certificates get renewed, and engines over TCP are connected to seldom.
        context = None if self.tls is None else await trio.to_thread.run_sync(self.tls.context)
        stream = await trio.open_tcp_stream(self.host, self.port)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            stream.setsockopt(socket.IPPROTO_TCP, option, value)
        if context is None:
            return stream
        import ssl

        secure = trio.SSLStream(stream, context, server_hostname=self.host, https_compatible=True)
        try:
            await secure.do_handshake()
        except trio.BrokenResourceError as error:
            await trio.aclose_forcefully(secure)
            if isinstance(error.__cause__, ssl.SSLError):
                raise error.__cause__ from None
            raise
        except BaseException:
            await trio.aclose_forcefully(secure)
            raise
        return secure

    def hint(self, error: Exception) -> str:
        """What a person can do about a connection that failed; empty where nothing is known."""
        if isinstance(error, PermissionError):
            if not os.path.exists(self.path or "/"):
                return ""
            return (
                f"this user may not open {self.path}: add it to the socket's group "
                f"(usermod -aG {_group_of(self.path)} USER; in a container: --group-add), or run as root"
            )
        if isinstance(error, FileNotFoundError):
            return (
                "is the engine installed and running? Another address: `host:` of the source or $DOCKER_HOST"
            )
        if isinstance(error, ConnectionRefusedError):
            return "is the engine running there?"
        import ssl

        if isinstance(error, ssl.SSLCertVerificationError):
            return "its certificate was not accepted: give the authority that signed it (ca.pem)"
        if isinstance(error, ssl.SSLError):
            if "WRONG_VERSION_NUMBER" in str(error):
                return "does it speak TLS on that port? Without TLS it would be http://"
            return "does it want a client certificate (cert.pem, key.pem)?"
        return ""


def _group_of(path: str | None) -> str:
    import grp

    try:
        return grp.getgrgid(os.stat(path or "").st_gid).gr_name
    except (OSError, KeyError):
        return "docker"


def _docker_folder() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def _tls_of_environment() -> EngineTls | None:
    """`DOCKER_TLS_VERIFY` (checked) or `DOCKER_TLS` (not), with certificates where docker looks for them."""
    verify = bool(os.environ.get("DOCKER_TLS_VERIFY"))
    if not verify and not os.environ.get("DOCKER_TLS"):
        return None
    folder = os.environ.get("DOCKER_CERT_PATH") or _docker_folder()
    return EngineTls.from_folder(folder, verify=verify)


class _DockerConfig(msgspec.Struct, rename={"current_context": "currentContext"}):
    current_context: str | None = None


def _current_context() -> tuple[str, str] | None:
    """The docker context in use, and who says so; None for the default one."""
    if name := os.environ.get("DOCKER_CONTEXT"):
        return None if name == "default" else (name, "$DOCKER_CONTEXT")
    path = _docker_folder() / "config.json"
    try:
        config = msgspec.json.decode(path.read_bytes(), type=_DockerConfig)
    except (OSError, RuntimeError):
        return None
    except msgspec.MsgspecError as error:
        raise AddressError(f"cannot read docker's configuration {path}: {error}") from error
    name = config.current_context
    return None if not name or name == "default" else (name, str(path))


def _of_context(name: str, said_by: str, tls: EngineTls | None) -> EngineAddress:
    from docker.context import ContextAPI  # 0.15 s, and hardly anybody has one
    from docker.context.config import get_tls_dir

    what = f"docker context {name!r} (from {said_by})"
    try:
        context = ContextAPI.get_context(name)
    except Exception as error:  # docker-py raises plain ones for files that it cannot read
        raise AddressError(f"cannot read the {what}: {error}") from error
    if context is None:
        raise AddressError(f"there is no {what}: see `docker context ls`")
    endpoint: dict[str, Any] = dict(context.endpoints.get("docker") or {})
    if not endpoint.get("Host"):
        raise AddressError(f"the {what} names no engine")
    if tls is None:
        found = EngineTls.from_folder(get_tls_dir(name, "docker"), verify=not endpoint.get("SkipTLSVerify"))
        if found.ca or found.cert:
            tls = found
    address = EngineAddress.parse(endpoint["Host"], f"from the {what}", tls)
    if address.tls is not None and endpoint.get("SkipTLSVerify"):
        return msgspec.structs.replace(address, tls=msgspec.structs.replace(address.tls, verify=False))
    return address


def _default_socket() -> str:
    """The first socket that can be opened, else the first there is, else docker's."""
    candidates = list(_sockets())
    there = [path for path in candidates if os.path.exists(path)]
    usable = [path for path in there if os.access(path, os.R_OK | os.W_OK)]
    return (usable or there or candidates)[0]


def _sockets() -> Iterable[str]:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    home = os.path.expanduser("~")
    yield "/var/run/docker.sock"
    if runtime:
        yield f"{runtime}/docker.sock"
    yield f"{home}/.docker/run/docker.sock"
    yield f"{home}/.docker/desktop/docker.sock"
    yield "/run/podman/podman.sock"
    if runtime:
        yield f"{runtime}/podman/podman.sock"
