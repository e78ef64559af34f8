"""Containers for the demo, on a real engine: four that talk, from an image that is there already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from logroute.router.hints import OF_DEMO
from logroute.sources.engine_address import AddressError, EngineAddress

if TYPE_CHECKING:
    from docker import DockerClient

LABEL = OF_DEMO
PATIENCE_S = 5
# Any of these has a shell; none is downloaded for a demo.
IMAGES = ("busybox", "alpine", "debian", "ubuntu", "bash", "python", "node", "nginx", "redis", "postgres")

_LOOP = "n=0; while n=$((n+1)); do {said}; sleep 0.{pause}; done"
SAYS = {
    "web": (1, 'echo "10.0.0.$((n % 200)) GET /cart/$n HTTP/1.1 $((n % 7 ? 200 : 502))"'),
    "api": (2, 'echo "{\\"level\\":\\"info\\",\\"msg\\":\\"order $n accepted\\",\\"took_ms\\":$((n % 40))}"'),
    "db": (4, 'echo "LOG:  duration: $((n % 9)).$((n % 7)) ms  statement: SELECT $n" >&2'),
    "worker": (3, '[ $((n % 5)) = 0 ] && echo "ERROR job $n failed" >&2 || echo "INFO job $n done"'),
}
"""By name: tenths of a second between lines, and what is said."""


@dataclass(frozen=True, slots=True)
class RealContainers:
    """Containers that run until the demo ends."""

    address: str
    """Of their engine."""
    image: str
    demo: str
    """Value of their label."""


@contextmanager
def real_containers() -> Iterator[RealContainers | None]:
    """Have them; None where no local engine answers, or it has no image with a shell. Blocks shortly.

    They have no network and remove themselves; whatever happens to us, an hour ends them.
    """
    client: DockerClient | None = None
    made: list[Any] = []
    try:
        address = EngineAddress.resolve(None)
        image = None
        if address.path is not None and os.access(address.path, os.W_OK):
            client = _client(address)
            image = _image(client)
        if client is None or image is None:
            yield None
            return
        demo = f"{os.getpid()}"
        try:
            for name, (pause, said) in SAYS.items():
                made.append(_run(client, image, demo, name, _LOOP.format(said=said, pause=pause)))
        except Exception:  # an engine that cannot run containers here
            yield None
            return
        yield RealContainers(f"unix://{address.path}", image, demo)
    except AddressError:
        yield None
    finally:
        for container in made:
            with suppress(Exception):
                container.remove(force=True)
        if client is not None:
            client.close()


def _client(address: EngineAddress) -> DockerClient | None:
    import docker
    import requests

    try:
        client = docker.DockerClient(base_url=f"unix://{address.path}", timeout=PATIENCE_S)
        client.ping()
    except (docker.errors.DockerException, requests.RequestException):
        return None
    return client


def _image(client: DockerClient) -> str | None:
    """A tag of an image that is there and has a shell, the smallest first."""
    tags = [tag for image in client.images.list() for tag in image.tags]
    for wanted in IMAGES:
        for tag in tags:
            if tag.rpartition(":")[0].rpartition("/")[2] == wanted:
                return str(tag)
    return None


def _run(client: DockerClient, image: str, demo: str, name: str, script: str) -> Any:
    return client.containers.run(
        image,
        ["timeout", "3600", "sh", "-c", script],
        entrypoint=[],
        name=f"logroute-demo-{name}-{demo}",
        labels={
            LABEL: demo,
            "com.docker.compose.project": "logroute-demo",
            "com.docker.compose.service": name,
        },
        network_mode="none",
        detach=True,
        auto_remove=True,
        mem_limit="32m",
        stop_signal="SIGKILL",
    )
