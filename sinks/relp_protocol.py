"""RELP, the Reliable Event Logging Protocol: frames, and what the receiver answers to them. Knows no socket.

A frame is `TXNR SP COMMAND SP DATALEN [SP DATA] LF`. The receiver answers each with one of the same number,
`TXNR SP rsp SP DATALEN SP CODE [SP TEXT] LF`, where 200 means yes. Numbers rise by one; any number of frames
may be under way. (https://www.rsyslog.com/doc/relp.html, version 1)
"""

from __future__ import annotations

from logroute.sinks.failures import excerpt

LAST_NUMBER = 999_999_999
"""A TXNR has at most nine digits; what comes then begins with 1 again."""
LARGEST_ANSWER_BYTES = 128 * 1024
"""What an answer may take: librelp's own bound of a frame."""

THOUSAND = 1000
_DIGITS = [f"{number:03}" for number in range(THOUSAND)]

OFFER = b"relp_version=0\nrelp_software=logroute\ncommands=syslog"
CLOSE = b"close 0\n"

_YES = b" rsp 6 200 OK\n"


class RelpError(Exception):
    """The receiver has said something that is no RELP, or that it ends. The text says what, for people."""


def opening(number: int) -> bytes:
    """The frame that begins a session."""
    return b"%d open %d %s\n" % (number, len(OFFER), OFFER)


def closing(number: int) -> bytes:
    """The frame that ends one."""
    return b"%d %s" % (number, CLOSE)


class Answers:
    """Takes apart what the receiver sends; knows up to which frame it has answered, and which it refused."""

    def __init__(self) -> None:
        self.answered = 0
        """How many frames have been answered since the session began, the opening one included."""
        self.refused: list[tuple[int, str]] = []
        """Which of them were not accepted, counted likewise from 0, and the receiver's words."""
        self.ended = False
        """Whether it has said that it ends."""
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """More of it. Raises RelpError where no session begins, or it is no answer to the next frame."""
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        whole, self._rest = data[:end], data[end:]
        if len(self._rest) > LARGEST_ANSWER_BYTES:
            raise RelpError("answers without an end")
        # Nearly always: yes to each of the next ones. A look at the ends tells what a look at each would.
        count = whole.count(b"\n")
        if count and whole.count(_YES) == count and self._is_run(whole, count):
            self.answered += count
            return
        while whole:
            whole = self._take(whole)

    def _is_run(self, whole: bytes, count: int) -> bool:
        first = whole[: whole.index(b" ")]
        last_line = whole[whole.rfind(b"\n", 0, -1) + 1 :]
        last = last_line[: last_line.index(b" ")]
        return (
            first.isdigit()
            and last.isdigit()
            and int(first) == number_of(self.answered)
            and int(last) == number_of(self.answered + count - 1)
        )

    def _take(self, data: bytes) -> bytes:
        """Take one frame; what is behind it. A frame that is not whole yet is kept."""
        header = data.split(b" ", 3)
        if len(header) < 3 or not header[0].isdigit() or len(header[0]) > 9:
            raise RelpError(f"said what is no RELP: {excerpt(data[:80])}")
        number, command = int(header[0]), header[1]
        length = header[2].split(b"\n", 1)[0]
        if not length.isdigit() or len(length) > 9:
            raise RelpError(f"said what is no RELP: {excerpt(data[:80])}")
        begin = len(header[0]) + len(command) + len(length) + 3
        end = begin + int(length)
        if int(length) == 0:
            begin, end = begin - 1, begin - 1
        if end + 1 > LARGEST_ANSWER_BYTES:
            raise RelpError("answers without an end")
        if len(data) <= end:
            self._rest = data + self._rest
            return b""
        if data[end : end + 1] != b"\n":
            raise RelpError(f"said what is no RELP: {excerpt(data[:80])}")
        self._heed(number, command, data[begin:end])
        return data[end + 1 :]

    def _heed(self, number: int, command: bytes, said: bytes) -> None:
        if number == 0 and command == b"serverclose":
            self.ended = True
            return
        if command != b"rsp" or number != number_of(self.answered):
            raise RelpError(f"answered another frame: {excerpt(b'%d %s' % (number, command))}")
        code, words = said[:4].strip(), excerpt(said)
        if len(code) != 3 or not code.isdigit():
            raise RelpError(f"said what is no RELP: {words}")
        if code != b"200":
            if not self.answered:
                raise RelpError(f"refused: {words}")
            self.refused.append((self.answered, words))
        self.answered += 1


def number_of(index: int) -> int:
    """The number of a session's frame, which count from 0."""
    return index % LAST_NUMBER + 1


def numbers_of(index: int, count: int) -> tuple[list[str], list[str]]:
    """Those of so many frames, the first of which is this one: how each begins, and its last digits."""
    first = number_of(index)
    end = first + count
    if first < THOUSAND or end - 1 > LAST_NUMBER:
        return [""] * count, [str(number_of(each)) for each in range(index, index + count)]
    # To write each of them takes longer than all else that is done to frame a record.
    begin: list[str] = []
    for thousand in range(first // THOUSAND, (end - 1) // THOUSAND + 1):
        within = min(end, (thousand + 1) * THOUSAND) - max(first, thousand * THOUSAND)
        begin += [str(thousand)] * within
    return begin, [*_DIGITS[first % THOUSAND :], *_DIGITS * (count // THOUSAND + 1)][:count]
