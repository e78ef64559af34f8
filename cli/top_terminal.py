"""The terminal of `logroute top`: its state, what is painted on it, and its keys.

Only rows that have changed are sent. Whatever ends the program, the terminal is as it was before.
"""

from __future__ import annotations

import io
import os
import select
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.text import Text

# The other screen; no cursor; a row that is longer than the terminal believes moves no other.
_ENTER = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[0m\x1b[2J"
_LEAVE = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
_LEAVE_WITHIN_S = 1.0
"""A terminal that is held (Ctrl-S) keeps nobody from ending."""

SEQUENCES = {
    b"[A": "up", b"OA": "up", b"[B": "down", b"OB": "down",
    b"[C": "right", b"OC": "right", b"[D": "left", b"OD": "left",
    b"[5~": "page up", b"[6~": "page down",
    b"[H": "home", b"OH": "home", b"[1~": "home", b"[7~": "home",
    b"[F": "end", b"OF": "end", b"[4~": "end", b"[8~": "end",
}  # fmt: skip
_CONTROLS = {"\r": "enter", "\n": "enter", "\x0c": "repaint", "\x03": "q", "\x04": "q", "\x7f": "escape"}


class Terminal:
    """Of a program that has the whole screen. Used between `enter` and `leave`."""

    def __init__(self, fd_in: int, fd_out: int) -> None:
        self.fd = fd_in
        self._fd_out = fd_out
        self._before: list[Any] | None = None
        """Its attributes, while they are ours; None: they are not."""
        self._rows: list[str] = []
        """What stands there."""
        self._size = (0, 0)
        # Knows the terminal's colours, and NO_COLOR.
        self._console = Console(file=io.StringIO(), force_terminal=True, legacy_windows=False)

    def enter(self) -> None:
        self._before = termios.tcgetattr(self.fd)
        ours = termios.tcgetattr(self.fd)
        # Signals stay: Ctrl-C and Ctrl-Z.
        ours[3] &= ~(termios.ICANON | termios.ECHO)
        ours[6][termios.VMIN], ours[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self.fd, termios.TCSANOW, ours)
        self.forget()
        self.send(_ENTER)

    def leave(self) -> None:
        """Nothing if it was not entered."""
        before, self._before = self._before, None
        if before is None:
            return
        with suppress(OSError, termios.error):  # it was hung up
            if select.select([], [self._fd_out], [], _LEAVE_WITHIN_S)[1]:
                self.send(_LEAVE)
            termios.tcsetattr(self.fd, termios.TCSANOW, before)

    @contextmanager
    def entered(self) -> Iterator[None]:
        try:
            self.enter()
            yield
        finally:
            self.leave()

    def size(self) -> tuple[int, int]:
        """Columns and lines; at least one of each."""
        try:
            found = os.get_terminal_size(self._fd_out)
        except OSError:
            return 80, 24
        return (found.columns or 80, found.lines or 24)

    def forget(self) -> None:
        """What stands there is not known any more."""
        self._rows = []
        self._size = (0, 0)

    def changes(self, lines: Sequence[Text], size: tuple[int, int]) -> bytes:
        """What is to be sent for these lines to stand there. They are taken to stand there then."""
        width, height = size
        out = []
        if size != self._size:
            out.append("\x1b[0m\x1b[2J")
            self._rows, self._size = [""] * height, size
        for number, line in enumerate(lines[:height]):
            row = self._encoded(line)
            if row != self._rows[number]:
                # Erasing behind the last column would erase what stands in it.
                rest = "\x1b[K" if line.cell_len < width else ""
                out.append(f"\x1b[{number + 1};1H{row}{rest}")
                self._rows[number] = row
        return "".join(out).encode("utf-8", "replace")

    def _encoded(self, line: Text) -> str:
        if not line.plain:
            return ""
        with self._console.capture() as captured:
            self._console.print(line, end="", soft_wrap=True)
        return captured.get()

    def send(self, data: bytes) -> None:
        """Blocks where the line is slow."""
        while data:
            try:
                data = data[os.write(self._fd_out, data) :]
            except BlockingIOError:  # the shell has put it there so
                select.select([], [self._fd_out], [])


def keys_of(data: bytes) -> tuple[list[str], bytes]:
    """The names of the keys that were pressed, and what may be the beginning of another."""
    keys = []
    while data:
        if data[:1] != b"\x1b":
            text = data[:1].decode("latin-1")
            keys.append(_CONTROLS.get(text, text))
            data = data[1:]
            continue
        found = _sequence(data[1:])
        if found is None:
            return keys, data
        length, sequence = found
        keys.append(SEQUENCES.get(sequence, "") if sequence else "escape")
        data = data[1 + length :]
    return [key for key in keys if key], b""


def _sequence(data: bytes) -> tuple[int, bytes] | None:
    """How long what follows an escape is, and what; None where it has not ended."""
    if not data:
        return None
    if data[:1] == b"O":
        return (2, data[:2]) if len(data) > 1 else None
    if data[:1] != b"[":
        return 0, b""
    for index in range(1, len(data)):
        if 0x40 <= data[index] <= 0x7E:
            return index + 1, data[: index + 1]
    return None
