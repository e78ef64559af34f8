"""Messages of the Forward protocol, and what a receiver replies: the handshake and acknowledgements.

Knows nothing of connections. Everything that a receiver says is bounded, and checked before it is believed.

Source: Forward Protocol Specification v1 (https://github.com/fluent/fluentd/wiki): "Connection phases",
"Handshake phase" (HELO, PING, PONG), "Event modes" (PackedForward, CompressedPackedForward), "Option" and
"Response".
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Iterator, Sequence
from hashlib import sha512
from typing import Any

import msgpack
import msgspec

from logroute.sinks.failures import excerpt

PORT = 24224
REPLY_BYTES = 1 << 16
"""The longest reply there may be: those of real receivers have some hundred bytes."""

_pack = msgspec.msgpack.encode


class ProtocolError(Exception):
    """The receiver has said what it must not, or refuses us. The text says what, without its name."""


# --- what is sent -------------------------------------------------------------------------------------


class Message(msgspec.Struct, frozen=True):
    """One message in a PackedForward mode: records of one tag, acknowledged together."""

    tag: str
    records: int
    chunk: bytes
    """Its id, which the acknowledgement repeats; empty: none is asked for."""
    parts: Sequence[bytes | memoryview]
    """The bytes, to be joined."""


def message(
    tag: str, entries: Sequence[bytes | memoryview], records: int, *, gzip: bool, ack: bool
) -> Message:
    """`[tag, entries, option]`. `entries` hold so many records, one behind the other; `gzip`: compressed."""
    options: dict[str, Any] = {"size": records}
    chunk = b""
    if ack:  # "Base64 representation of 128 bits unique_id"
        chunk = base64.b64encode(secrets.token_bytes(16))
        options["chunk"] = chunk.decode()
    if gzip:
        options["compressed"] = "gzip"
    size_bytes = sum(map(len, entries))
    # The entries' own head is written by hand: a library would copy them.
    head = b"\x93" + _pack(tag) + b"\xc6" + size_bytes.to_bytes(4, "big")
    return Message(tag, records, chunk, [head, *entries, _pack(options)])


# --- what is received ---------------------------------------------------------------------------------


class Replies:
    """Takes apart what a receiver says. Text stays bytes: a nonce may be of either type, and is no UTF-8."""

    def __init__(self) -> None:
        # Its own limit is one on what it holds unread: of an array it reads the items as they come.
        self._unpacker = msgpack.Unpacker(raw=True, max_buffer_size=2 * REPLY_BYTES)
        self._last = b""
        self._fed_bytes = self._whole_bytes = 0
        """How much has come, and how much of that are whole replies."""

    def feed(self, data: bytes) -> Iterator[object]:
        """The replies that are whole by now. Raises ProtocolError for what is none, or has no end."""
        self._last = data
        try:
            for start in range(0, len(data), REPLY_BYTES):
                piece = data[start : start + REPLY_BYTES]
                self._unpacker.feed(piece)
                self._fed_bytes += len(piece)
                for reply in self._unpacker:
                    if not isinstance(reply, dict | list):
                        raise self.unexpected()
                    self._whole_bytes = self._unpacker.tell()
                    yield reply
                if self._fed_bytes - self._whole_bytes > REPLY_BYTES:
                    raise ProtocolError(f"sends a reply without end, longer than {REPLY_BYTES >> 10} KiB")
        except (msgpack.UnpackException, ValueError) as error:
            raise self.unexpected() from error

    def unexpected(self) -> ProtocolError:
        """About what came last."""
        return ProtocolError(f'answers what is no reply of the Forward protocol: "{excerpt(self._last)}"')


def acknowledged(reply: object) -> bytes | None:
    """The chunk that a reply acknowledges; None if it is another reply."""
    chunk = reply.get(b"ack") if isinstance(reply, dict) else None
    return chunk if isinstance(chunk, bytes) else None


# --- the handshake ------------------------------------------------------------------------------------


class Helo(msgspec.Struct, frozen=True):
    """`["HELO", options]`: what the receiver begins with, where it has a shared key."""

    nonce: bytes
    auth: bytes
    """Salt for the password; empty: no user is asked for."""
    keepalive: bool
    """Whether the connection may be used for more than one delivery."""

    @classmethod
    def parse(cls, reply: object) -> Helo | None:
        """None if it is another reply."""
        if not (isinstance(reply, list) and len(reply) == 2 and reply[0] == b"HELO"):
            return None
        options = reply[1]
        if not isinstance(options, dict):
            return None
        nonce, auth = options.get(b"nonce", b""), options.get(b"auth", b"")
        if not isinstance(nonce, bytes) or not isinstance(auth or b"", bytes):
            return None
        return cls(nonce, auth or b"", options.get(b"keepalive", True) is not False)


class Handshake:
    """Our side of the handshake: a PING for the receiver's HELO, and whether its PONG is true.

    Neither side sends the key: each shows that it knows it by a digest over what both have chosen.
    """

    def __init__(self, shared_key: str, username: str, password: str, hostname: str) -> None:
        self._shared_key = shared_key.encode()
        self._username = username.encode()
        self._password = password.encode()
        self._hostname = hostname.encode("utf-8", "replace")
        self._salt = secrets.token_bytes(16)
        self._nonce = b""

    def ping(self, helo: Helo) -> bytes:
        """Raises ProtocolError if we lack what it asks for."""
        if helo.auth and not self._username:
            raise ProtocolError("asks for a user: set `username` and `password`")
        self._nonce = helo.nonce
        password = _digest(helo.auth, self._username, self._password) if helo.auth else ""
        username = self._username.decode() if helo.auth else ""
        hostname = self._hostname.decode()
        return _pack(["PING", hostname, self._salt, self._prove(self._hostname), username, password])

    def check(self, pong: object) -> None:
        """Raises ProtocolError unless this PONG accepts us, and comes from somebody who knows the key."""
        if not (isinstance(pong, list) and len(pong) == 5 and pong[0] == b"PONG"):
            raise ProtocolError("does not answer our PING with a PONG")
        _, accepted, reason, hostname, digest = pong
        if accepted is not True:
            said = f': "{excerpt(reason)}"' if isinstance(reason, bytes) and reason else ""
            raise ProtocolError(f"does not accept our `shared_key`, or user{said}")
        if not isinstance(hostname, bytes) or not isinstance(digest, bytes):
            raise ProtocolError("does not answer our PING with a PONG")
        # Whoever answers with our own name could answer with our own digest.
        if hostname == self._hostname or not hmac.compare_digest(digest, self._prove(hostname).encode()):
            raise ProtocolError("does not know the `shared_key`: it may be somebody else")

    def _prove(self, hostname: bytes) -> str:
        """The digest by which the host of this name shows that it knows the key."""
        return _digest(self._salt, hostname, self._nonce, self._shared_key)


def _digest(*parts: bytes) -> str:
    return sha512(b"".join(parts)).hexdigest()
