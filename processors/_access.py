"""Access logs in their usual form, the combined one, many lines at once: split, which takes half as long as a
regular expression for each.

Whatever is not that form, or not surely, is left to the expression (`_formats.py`). What is read here is what
that would have found.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

FEW = 16
"""Fewer lines are not worth it."""
LONGEST_TIME = 40

_NEWLINE = "\n"
_ODD = "\\\t\r\v\f\n"
"""No usual line has these: with them a quote may be none, or a word ends elsewhere."""
_QUOTES = 6

_is_host = re.compile(r"[\w.-]+:\d+", re.ASCII).fullmatch
"""What stands before the client in Apache's `vhost_combined`; a client that looks like it is none."""
_is_method = re.compile(r"[A-Z]+").fullmatch
_is_protocol = re.compile(r"HTTP/[\d.]+", re.ASCII).fullmatch
_is_status = re.compile(r"\d{3}", re.ASCII).fullmatch

Columns = dict[str, Sequence[str]]


def combined(lines: Sequence[str]) -> tuple[Sequence[int], Columns] | None:
    """Which of the lines are of that form, and what they say, by name. None if there are not many."""
    if len(lines) < FEW:
        return None
    if (columns := _columns(lines)) is not None:
        return range(len(lines)), columns
    usual = _usual(lines)
    if len(usual) < FEW or (columns := _columns([lines[place] for place in usual])) is None:
        return None
    return usual, columns


def _usual(lines: Sequence[str]) -> list[int]:
    """Which lines may be of that form, and have as many quotes as most."""
    odd = _odd("".join(lines))
    all_parts = [line.split('"') for line in lines]
    [(most, _)] = Counter(map(len, all_parts)).most_common(1)
    return [
        place
        for place, parts in enumerate(all_parts)
        if len(parts) == most > _QUOTES
        and parts[4] == " "
        and (parts[0].count(" "), parts[1].count(" "), parts[2].count(" ")) == (5, 2, 3)
        and not (odd and any(character in lines[place] for character in odd))
    ]


def _odd(text: str) -> list[str]:
    return [character for character in _ODD if character in text]


# Parts of lines are joined by a newline that stands by itself among the words when they are split again. No
# line has one, so each newline is where two lines meet: where each is in its place, all have as many words.


def _columns(lines: Sequence[str]) -> Columns | None:
    """What all of them say; None if one is not usual."""
    count = len(lines)
    quotes = lines[0].count('"')
    if quotes < _QUOTES or _odd("".join(lines)):
        return None
    parts = [*f'"{_NEWLINE}"'.join(lines).split('"'), ""]
    width = quotes + 2
    if not _is_woven(parts, width, count) or parts[4::width].count(" ") < count:
        return None
    head = f"{_NEWLINE} ".join(parts[::width]).split(" ")
    request = [*f" {_NEWLINE} ".join(parts[1::width]).split(" "), ""]
    sizes = _NEWLINE.join(parts[2::width]).split(" ")
    if not (
        _is_woven(head, 6, count)
        and _is_woven(request, 4, count)
        and not sizes.pop(0)
        and _is_woven(sizes, 3, count)
        and (times := _times(head[3::6], head[4::6])) is not None
    ):
        return None
    columns: Columns = {
        "client": head[::6],
        "user": head[2::6],
        "time": times,
        "method": request[::4],
        "path": request[1::4],
        "protocol": request[2::4],
        "status": sizes[::3],
        "bytes": sizes[1::3],
        "referrer": parts[3::width],
        "user_agent": parts[5::width],
    }
    if not (
        head.index("") == len(head) - 1
        and "" not in columns["path"]
        and not (":" in "".join(columns["client"]) and any(map(_is_host, columns["client"])))
        and all(map(_is_method, {*columns["method"]}))
        and all(map(_is_protocol, {*columns["protocol"]}))
        and all(map(_is_status, {*columns["status"]}))
        and _are_digits(columns["bytes"])
    ):
        return None
    return columns


def _is_woven(words: Sequence[str], width: int, count: int) -> bool:
    """Whether each `width`th word is a newline, but the last one, which is empty."""
    if len(words) != width * count or words[-1]:
        return False
    return words[width - 1 :: width].count(_NEWLINE) == count - 1


def _times(begins: Sequence[str], ends: Sequence[str]) -> list[str] | None:
    """What stands between brackets: a second that many lines have, and the zone, which all have."""
    zones = {*ends}
    if len(zones) > 1:
        return None
    zone = ends[0]
    times = {begin: f"{begin[1:]} {zone[:-1]}" for begin in {*begins}}
    if zone[-1:] != "]" or any(
        begin[:1] != "[" or "]" in time or len(time) > LONGEST_TIME for begin, time in times.items()
    ):
        return None
    return [*map(times.__getitem__, begins)]


def _are_digits(texts: Collection[str]) -> bool:
    """Or `-`."""
    if "" in texts:
        return False
    together = "".join(texts)
    if together.isdecimal() and together.isascii():
        return True
    return all([text == "-" or (text.isdecimal() and text.isascii()) for text in texts])  # noqa: C419
