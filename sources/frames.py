"""Decode the body of the Engine API's `/logs?timestamps=1` into records. Sans-IO.

Two forms. Multiplexed: frames of 8 bytes (stream, three zeros, size) and a payload, one frame a line or piece
of 16 KiB. Raw, for containers with a terminal: the payloads alone. A payload is the engine's time, a space,
and the text, with its newline unless more of the line follows (or its program ended there).

What comes out is the same, to the last character, as what the container's json-file log gives.
"""

from __future__ import annotations

import re
from struct import Struct

from logroute.router.record import Record, Stream
from logroute.sources.engine_answers import utc_time
from logroute.sources.joiner import Joiner

# Moby's pieces; a character cut in two there becomes up to 3 times as many bytes of U+FFFD.
PIECE_BYTES = 16 << 10
# `2026-11-23T20:06:26.123456789Z `, as moby writes it; Podman's are shorter or longer.
_STAMP_BYTES = 31
_LONGEST_STAMP_BYTES = 40
# A terminal's line in which no piece has ended by now is not cut into pieces by this engine.
_UNCUT_BYTES = 4 * PIECE_BYTES
# More than any engine puts into a frame (journald's fields are the largest): a larger one is no frame.
_LARGEST_FRAME_BYTES = 4 << 20

_unpack_head = Struct(">II").unpack_from
# Type 0 is stdin, which the engine itself counts as stdout.
_STREAM_OF: dict[int, Stream] = {0x00000000: "stdout", 0x01000000: "stdout", 0x02000000: "stderr"}
_ERROR = 0x03000000

_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ")
_BAD_BYTES = re.compile("[\udc80-\udcff]")


class FrameDecoder:
    """Multiplexed streams. `feed` takes bytes however they were cut; never raises."""

    def __init__(self, limit: int) -> None:
        self.joiner = Joiner(limit)
        self.error: str | None = None
        """What the engine said went wrong while it was reading the log, or why this is no such stream.

        Nothing behind it is decoded.
        """
        self.stream_bytes = 0
        """Bytes decoded so far, times and frames included."""
        self._limit = min(limit, _LARGEST_FRAME_BYTES - _STAMP_BYTES)
        self._rest = b""

    @property
    def is_between_records(self) -> bool:
        """Nothing is held back: neither a part of a frame nor the pieces of a line."""
        return not self._rest and not self.joiner.unfinished

    def feed(self, data: bytes) -> list[Record]:
        """The records that are complete with this, without newlines, with nine-digit times, not numbered."""
        out: list[Record] = []
        if self.error is not None:
            return out
        if self._rest:
            data = self._rest + data
        # One decoding for all lines: Latin-1 maps bytes to characters one by one, which for ASCII is right
        # already. Twice as fast as a slice and a decode for each.
        text = data.decode("latin-1")
        unfinished = self.joiner.unfinished
        append = out.append
        stream_of = _STREAM_OF.get
        # An engine writes all of its times in one way.
        largest = self._limit + _STAMP_BYTES if text[8 + _STAMP_BYTES - 2 : 8 + _STAMP_BYTES] == "Z " else 0
        length = len(data)
        at = 0
        while (start := at + 8) <= length:
            head, size = _unpack_head(data, at)
            end = start + size
            if end > length:
                if size > _LARGEST_FRAME_BYTES or head not in _STREAM_OF:
                    self._slow(data, at, length, out)
                break
            stream = stream_of(head)
            if (
                stream is not None
                and _STAMP_BYTES < size <= largest
                and text[end - 1] == "\n"
                and not unfinished
            ):
                message = text[start + _STAMP_BYTES : end - 1]
                if not message.isascii():
                    message = decode_text(data[start + _STAMP_BYTES : end - 1])
                append(Record(message, stream, text[start : start + _STAMP_BYTES - 1]))
            else:
                self._slow(data, at, end, out)
                if self.error is not None:
                    break
            at = end
        self._rest = b"" if self.error is not None else data[at:]
        self.stream_bytes += at
        return out

    def finish(self) -> list[Record]:
        """Nothing more comes: the unfinished records as they are. Half a frame is nothing."""
        out: list[Record] = []
        for stream in list(self.joiner.unfinished):
            self.joiner.finish(stream, out)
        self._rest = b""
        return out

    def _slow(self, data: bytes, at: int, end: int, out: list[Record]) -> None:
        """What is not one whole line of usual size with moby's time."""
        head, size = _unpack_head(data, at)
        payload = data[at + 8 : end]
        if head == _ERROR and size <= _LARGEST_FRAME_BYTES:
            if len(payload) == size:
                self.error = decode_text(payload).strip() or "the engine gave no reason"
            return
        stream = _STREAM_OF.get(head)
        if stream is None or size > _LARGEST_FRAME_BYTES:
            self.error = f"this is not the multiplexed form of a log: {data[at : at + 8]!r} is no frame"
            return
        time, text = split_stamp(payload)
        self.joiner.add(Record(text, stream, time), (0, 0), out)


class TerminalDecoder:
    """Raw streams of containers with a terminal: lines end with CR LF, all of them are stdout.

    At the seam of two 16 KiB pieces the time stands in the middle of the line: it is taken out. Where a run
    of the program ended without a newline, the next run's first line follows on the same line: it is
    recognised by its later time.
    """

    def __init__(self, limit: int) -> None:
        self.joiner = Joiner(limit)
        self.error: str | None = None
        self.stream_bytes = 0
        self._rest = b""
        # Time of the line whose beginning was given to the joiner without waiting for a seam.
        self._open_time = ""

    @property
    def is_between_records(self) -> bool:
        return not self._rest and not self.joiner.unfinished

    def feed(self, data: bytes) -> list[Record]:
        """As `FrameDecoder.feed`."""
        out: list[Record] = []
        self.stream_bytes += len(data)
        data = self._rest + data
        at = 0
        while at < len(data):
            newline = data.find(b"\n", at)
            end = newline + 1 or len(data)
            cut = self._seam(data, at, end)
            if cut is None and not newline + 1:
                if end - at < _UNCUT_BYTES:
                    break
                # Keep back what may be the beginning of a time.
                cut = end - _LONGEST_STAMP_BYTES
                self._piece(data[at:cut], out)
                self._open_time = self._open_time or split_stamp(data[at:cut])[0]
                at = cut
                continue
            self._piece(data[at : cut or end], out)
            self._open_time = ""
            at = cut or end
        self._rest = data[at:]
        return out

    def finish(self) -> list[Record]:
        """As `FrameDecoder.finish`; a line without its end is a record all the same."""
        out: list[Record] = []
        if len(self._rest) >= _STAMP_BYTES or self._open_time:
            self._piece(self._rest, out)
        self._rest, self._open_time = b"", ""
        self.joiner.finish("stdout", out)
        return out

    def _piece(self, data: bytes, out: list[Record]) -> None:
        if self._open_time:
            time, text = self._open_time, decode_text(data)
        else:
            time, text = split_stamp(data)
        self.joiner.add(Record(text, "stdout", time), (0, 0), out)

    def _seam(self, data: bytes, at: int, end: int) -> int | None:
        """Where within this line another piece begins."""
        stamp = data[at : at + _STAMP_BYTES]
        if self._open_time or not _STAMP.fullmatch(stamp):
            return None
        same = data.find(stamp, at + _STAMP_BYTES + PIECE_BYTES, end)
        limit = end if same < 0 else same
        for match in _STAMP.finditer(data, at + _STAMP_BYTES, limit):
            if match[0] > stamp:
                return match.start()
        return None if same < 0 else same


LogDecoder = FrameDecoder | TerminalDecoder


def log_decoder(*, tty: bool, limit: int) -> LogDecoder:
    """The one for a container, by `Config.Tty`."""
    return TerminalDecoder(limit) if tty else FrameDecoder(limit)


def split_stamp(payload: bytes) -> tuple[str, str]:
    """The time (UTC, nine digits) and the text of one payload."""
    space = payload.find(b" ", 0, _LONGEST_STAMP_BYTES)
    if space < 0:
        return "", decode_text(payload)
    return utc_time(payload[:space].decode("latin-1")), decode_text(payload[space + 1 :])


def decode_text(data: bytes) -> str:
    """UTF-8, each byte that is not as U+FFFD: what moby's json-file writes, and unlike Python's `replace`."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _BAD_BYTES.sub("\ufffd", data.decode("utf-8", "surrogateescape"))
