"""Which proxy is asked for a URL: the sink's own, or what the environment says.

`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, and `NO_PROXY`, a list of whom no proxy is asked for: names and what
is below them, `.example.com` for only that, addresses, networks (`10.0.0.0/8`), each with a port or without,
or `*`. So Go reads it, and with it most of what stands beside containers; httpx knows no networks.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

NO_PROXY = "none"
PORTS = {"http": 80, "https": 443}

_WITH_PORT = re.compile(r"(\[.*\]|[^:]*):([0-9]+)")


def proxy_for(url: str, proxy: str | None = None) -> str | None:
    """The proxy's URL; None to ask nobody. `proxy` is a sink's option: a URL, `none`, or nothing."""
    if proxy is not None:
        return None if proxy == NO_PROXY else proxy
    parts = urlsplit(url)
    proxies = getproxies_environment()
    found = proxies.get(parts.scheme) or proxies.get("all")
    if not found or is_excepted(
        parts.hostname or "", parts.port or PORTS[parts.scheme], proxies.get("no", "")
    ):
        return None
    return found if "://" in found else f"http://{found}"


def is_excepted(host: str, port: int, no_proxy: str) -> bool:
    """Whether `NO_PROXY` means this host. Never raises: what cannot be read means nobody."""
    host = host.lower().rstrip(".")
    return any(_means(each.strip().lower(), host, port) for each in no_proxy.split(","))


def _means(entry: str, host: str, port: int) -> bool:
    if with_port := _WITH_PORT.fullmatch(entry):
        entry, only = with_port[1], with_port[2]
        if only != str(port):
            return False
    if entry in ("", "*"):
        return entry == "*"
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:  # one of them is a name
        entry = entry.removeprefix("*").rstrip(".")
        return host == entry or host.endswith(entry if entry.startswith(".") else f".{entry}")
