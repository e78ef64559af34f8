"""Addresses of receivers as options have them: `tcp://logs.example.com:514`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec


class Address(msgspec.Struct, frozen=True):
    """Where a receiver listens."""

    transport: str
    host: str
    port: int
    path: str = ""
    """Of a socket of this host; it has no host and no port."""


def address_of_uri(uri: SplitResult, query: Mapping[str, Any], transport: str) -> str:
    """The option `address` that a sink's URI means: of `syslog+tcp://HOST` it is `tcp://HOST`.

    `transport` is that of a scheme that names none. Raises ValueError.
    """
    if "address" in query:
        raise ValueError("the URI is the address, `address` is no parameter")
    return uri._replace(scheme=uri.scheme.partition("+")[2] or transport, query="").geturl()


def parse_address(
    text: str,
    ports: Mapping[str, int],
    *,
    example: str,
    no_user: str,
    hints: Mapping[str, str] | None = None,
) -> Address:
    """The address that a URL says whose scheme is one of these transports; `ports` has the default of each.

    `unix` takes the path of a socket. `no_user` is said where there is a user; `hints`, by scheme, what else
    is meant. Raises ValueError; its text shows no password.
    """
    if not text.isprintable() or " " in text:
        raise ValueError("must not contain spaces or control characters")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"is no address such as {example}") from error
    if parts.scheme not in ports:
        there_are = ", ".join(f"{transport}://" for transport in ports)
        said = f'no transport "{parts.scheme}://"' if parts.scheme else "no transport"
        hint = (hints or {}).get(parts.scheme, "")
        raise ValueError(f"{said}; there are {there_are}{hint}")
    if parts.scheme == "unix":
        if parts.netloc or not parts.path.startswith("/") or parts.query or parts.fragment:
            raise ValueError("is no socket such as unix:///dev/log")
        return Address("unix", "", 0, parts.path)
    if not host:
        raise ValueError("names no host")
    if "@" in parts.netloc:
        raise ValueError(f"takes no user: {no_user}")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("has something behind the port")
    return Address(parts.scheme, host, ports[parts.scheme] if port is None else port)
