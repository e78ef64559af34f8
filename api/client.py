"""What commands ask a running daemon. Blocks; httpx is imported by the first who asks."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from logroute.api.address import Address, default_address

T = TypeVar("T")

KNOCK_WITHIN_S = 2.0
"""A daemon whose queue of connections is full for so long does not live, or cannot be asked."""
KNOCK_AGAIN_S = 0.05
ANSWER_WITHIN_S = 30.0
"""Dead letters are read from the disk, behind what is stored at the moment."""


class NoDaemon(Exception):
    """Nobody listens there; the text says where."""

    def __init__(
        self, text: str, advice: str = "start one with `logroute run`, or say with --api where it is"
    ) -> None:
        """`advice`: what to do, for commands that know no better."""
        super().__init__(text)
        self.advice = advice


class ApiError(Exception):
    """The daemon has answered that it cannot; the text is its own."""

    is_mistake = False
    """What was asked for makes no sense."""


class _Problem(msgspec.Struct):
    """What is read of a problem (RFC 9457)."""

    detail: str
    path: str = ""
    errors: list[_Mistake] = []

    def __str__(self) -> str:
        return "\n".join(map(str, self.errors or [_Mistake(self.detail, self.path)]))


class _Mistake(msgspec.Struct):
    detail: str
    path: str = ""

    def __str__(self) -> str:
        said = not self.path or self.detail.startswith(self.path)
        return self.detail if said else f"{self.path}: {self.detail}"


class Client:
    """A connection to a daemon. `status` is that of the last answer."""

    def __init__(self, address: Address, token: str = "", within_s: float = ANSWER_WITHIN_S) -> None:
        """`within_s`: how long an answer may take."""
        import httpx

        self.address = address
        self.status = 0
        transport = httpx.HTTPTransport(uds=address.path or None)
        host = "localhost" if address.path else str(address)
        self._client = httpx.Client(
            transport=transport,
            base_url=f"http://{host}",
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=within_s,
            trust_env=False,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, type_: type[T], **query: object) -> T:
        return self.ask("GET", path, type_, **query)

    def ask(self, method: str, path: str, type_: type[T], *, body: Any = None, **query: object) -> T:
        """The answer. Raises NoDaemon or ApiError."""
        import httpx

        try:
            answer = self._client.request(
                method,
                path,
                params={name: str(value) for name, value in query.items()},
                content=msgspec.json.encode(body) if body is not None else None,
                headers={"content-type": "application/json"} if body is not None else None,
            )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NoDaemon(f"no daemon answers at {self.address}: {_words(error)}") from error
        except httpx.HTTPError as error:
            raise ApiError(f"the daemon at {self.address} gave no answer: {_words(error)}") from error
        self.status = answer.status_code
        try:
            if "problem" in answer.headers.get("content-type", ""):
                problem = msgspec.json.decode(answer.content, type=_Problem)
                mistaken = answer.status_code in (400, 422)
                failure = ApiError(str(problem) if mistaken else problem.detail)
                failure.is_mistake = mistaken
                raise failure
            return msgspec.json.decode(answer.content, type=type_)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ApiError(f"what answers at {self.address} is no logroute: {answer.status_code}") from error


def find_daemon(given: str | None, token_file: str | None = None) -> Client:
    """At `--api`, else `$LOGROUTE_API`, else the default socket. Raises NoDaemon; ValueError for nonsense."""
    return Client(*find_address(given, token_file))


def find_address(given: str | None, token_file: str | None = None) -> tuple[Address, str]:
    """Likewise, with the token. That somebody listens there is seen only of a unix socket."""
    text = given or os.environ.get("LOGROUTE_API")
    address = Address.parse(text) if text else default_address()
    if address is None:
        raise NoDaemon("there is no folder for a default socket", "say where the daemon is with --api")
    token = ""
    if token_file:
        try:
            token = Path(token_file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read {token_file}: {error}") from error
    _knock(address)
    return address, token


def _knock(address: Address) -> None:
    """Raises NoDaemon. Only for a unix socket: httpx leaves one behind that it could not connect."""
    if address.path:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                _connect(probe, address.path)
            except PermissionError as error:
                text = f"the daemon at {address} cannot be asked: {error.strerror}"
                raise NoDaemon(text, "the owner and the group of its socket may (sudo?)") from error
            except OSError as error:
                raise NoDaemon(f"no daemon answers at {address}: {error.strerror or error}") from error


def _connect(probe: socket.socket, path: str) -> None:
    """Waits a bounded time where connections that are not accepted fill the queue. Raises OSError."""
    probe.settimeout(KNOCK_WITHIN_S)
    end = time.monotonic() + KNOCK_WITHIN_S
    while True:
        try:
            probe.connect(path)
        except BlockingIOError:  # with a timeout Linux does not wait for room in the queue
            if time.monotonic() > end:
                raise TimeoutError("it accepts no connection") from None
            time.sleep(KNOCK_AGAIN_S)
        else:
            return


def in_path(name: str) -> str:
    """A route's name, as it stands in a path."""
    return quote(name, safe="")


def _words(error: Exception) -> str:
    return str(error).partition("] ")[2] or str(error) or type(error).__name__
