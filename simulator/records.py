"""How an engine turns what a program writes into log records, and records into bytes.

The copier, the JSON of the json-file driver, and the frames of `/logs`, as moby has them. Sans-IO.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count

import msgspec

PIECE_BYTES = 16 * 1024
"""moby's copier logs what it has when this much lies in its buffer without a newline."""

FRAME_TYPE = {"stdin": 0, "stdout": 1, "stderr": 2, "error": 3}
_FRAME = struct.Struct(">BxxxL")

# What Go's JSON writes in another way than msgspec. Invalid UTF-8 comes here as lone surrogates.
_ESCAPED = re.compile('[\x00-\x1f"\\\\<>&\u2028\u2029\udc80-\udcff]')
_RARE_BYTES = bytes(b for b in range(0x20) if b not in b"\r\n")
_LINE_SEPARATORS = ("\u2028".encode(), "\u2029".encode())
_HTML_ESCAPES = ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026"))
_SHORT_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r"}


@dataclass(slots=True)
class Piece:
    """One record of the engine: a line with its newline, or 16 KiB of one without."""

    log: bytes
    stream: str
    time_ns: int
    continues: bool = False
    """Its line began in a piece before it."""


class JsonLine(msgspec.Struct, omit_defaults=True):
    """One line of a json-file log, its keys in moby's order."""

    log: str = ""
    stream: str = ""
    attrs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    time: str = ""


_encoder = msgspec.json.Encoder()


class Copier:
    """Cuts one stream of one run of a container into pieces, as moby's `Copier.copySrc` does."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self._buffer = b""
        # Invariant: not None exactly while the last piece logged had no newline.
        self._partial_time: int | None = None

    @property
    def between_lines(self) -> bool:
        """Nothing is held: what comes next begins a line."""
        return not self._buffer and self._partial_time is None

    def feed(self, data: bytes, now: Callable[[], int]) -> list[Piece]:
        """Take what the program wrote; `now` is asked once a line. A rest of less than 16 KiB waits."""
        data = self._buffer + data
        pieces: list[Piece] = []
        start = 0
        while True:
            newline = data.find(b"\n", start, start + PIECE_BYTES)
            if newline >= 0:
                pieces.append(self._piece(data[start : newline + 1], now, last=True))
                start = newline + 1
            elif len(data) - start >= PIECE_BYTES:
                pieces.append(self._piece(data[start : start + PIECE_BYTES], now, last=False))
                start += PIECE_BYTES
            else:
                break
        self._buffer = data[start:]
        return pieces

    def finish(self, now: Callable[[], int]) -> list[Piece]:
        """The program ended: what is buffered comes out, still without a newline."""
        pieces = [self._piece(self._buffer, now, last=False)] if self._buffer else []
        self._buffer, self._partial_time = b"", None
        return pieces

    def _piece(self, log: bytes, now: Callable[[], int], *, last: bool) -> Piece:
        continues = self._partial_time is not None
        time_ns = now() if self._partial_time is None else self._partial_time
        self._partial_time = None if last else time_ns
        return Piece(log, self.stream, time_ns, continues)


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(time_ns: int) -> str:
    """Trailing zeros trimmed (Go's RFC3339Nano): as in json-file logs and in inspect."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    if not nanoseconds:
        return _second(seconds) + "Z"
    return f"{_second(seconds)}.{nanoseconds:09d}".rstrip("0") + "Z"


def rfc3339_padded(time_ns: int) -> str:
    """All nine digits: as `/logs` with `timestamps` gives them. Sorts as text."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{_second(seconds)}.{nanoseconds:09d}Z"


def padded(trimmed: str) -> str:
    """The nine-digit form of a time with trailing zeros trimmed."""
    return f"{trimmed[:19]}.{trimmed[20:-1]:0<9}Z"


def json_string(data: bytes) -> str:
    """A JSON string as moby writes it: each invalid byte becomes U+FFFD, HTML's characters are escaped."""
    return '"' + _ESCAPED.sub(_escape, data.decode("utf-8", "surrogateescape")) + '"'


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    if char >= "\udc80":
        return "\\ufffd"
    return _SHORT_ESCAPES.get(char) or f"\\u{ord(char):04x}"


def json_line(piece: Piece, attrs: bytes = b"") -> bytes:
    """One line of a json-file log, byte for byte as moby writes it. `attrs` is a JSON object or empty."""
    middle = f',"attrs":{attrs.decode()}' if attrs else ""
    end = f',"stream":"{piece.stream}"{middle},"time":"{rfc3339(piece.time_ns)}"}}\n'
    return f'{{"log":{json_string(piece.log)}{end}'.encode()


def json_lines(lines: Sequence[bytes], stream: str, times: Iterable[int], attrs: bytes = b"") -> bytes:
    """Many complete lines (given without newline) at once, as `json_line` writes them; 1 µs a line.

    The shorter way is only for text that needs none of Go's rarer escapes.
    """
    joined = b"\n".join(lines)
    rare = len(joined.translate(None, _RARE_BYTES)) != len(joined)
    rare = rare or any(separator in joined for separator in _LINE_SEPARATORS)
    try:
        texts = [] if rare else joined.decode().split("\n")
    except UnicodeDecodeError:
        rare = True
    if rare:
        pieces = (
            Piece(line + b"\n", stream, ns) for line, ns in zip(joined.split(b"\n"), times, strict=False)
        )
        return b"".join(json_line(piece, attrs) for piece in pieces)
    raw: msgspec.Raw | msgspec.UnsetType = msgspec.Raw(attrs) if attrs else msgspec.UNSET
    blob = _encoder.encode_lines(
        [JsonLine(text + "\n", stream, raw, rfc3339(ns)) for text, ns in zip(texts, times, strict=False)]
    )
    for char, escape in _HTML_ESCAPES:
        blob = blob.replace(char, escape)
    return blob


def spread(start_ns: int, step_ns: int) -> Iterable[int]:
    """Times for a bulk of lines, one after the other."""
    return count(start_ns, step_ns)


def frame(stream: str, payload: bytes) -> bytes:
    """The 8 bytes of the multiplexed stream (type, three zeros, length), then the payload."""
    return _FRAME.pack(FRAME_TYPE[stream], len(payload)) + payload


def chunk(payload: bytes) -> bytes:
    """One chunk of HTTP/1.1's chunked coding."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)
