"""What `logroute tail` shows of records: a name in its colour, then the message, in words people can read.

No line controls a terminal (CVE-2021-25743): of what it has only colours stay, checked and ended; everything
else that could is made visible. Into a pipe or a file the text goes as it is, without colours of ours.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from datetime import datetime, tzinfo
from hashlib import blake2b
from typing import Any

import msgspec

from logroute.config.components import PROCESSORS
from logroute.router.record import Batch, Origin, Record, owned_records
from logroute.sinks.encoding import display_name, encoder, logfmt_value
from logroute.sinks.stdout import visible

RESET = "\x1b[0m"
DIM = "\x1b[2m"
HIGHLIGHT = "\x1b[1;7m"
HIGHLIGHT_END = "\x1b[22;27m"
COLOURS = (39, 208, 41, 170, 220, 45, 203, 113, 141, 214, 37, 205, 148, 75, 173, 79, 177, 185, 69, 167)
"""Of the 256 that terminals have: bright enough on black, dark enough on white, and unlike each other."""
FEW_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)
LEVEL_COLOURS = {
    "trace": "\x1b[2m",
    "debug": "\x1b[2m",
    "info": "\x1b[32m",
    "notice": "\x1b[36m",
    "warn": "\x1b[33m",
    "error": "\x1b[31m",
    "fatal": "\x1b[1;31m",
}
LEVEL_WIDTH = 5
WIDEST_NAME = 28
NARROWEST_NAME = 8

_SEQUENCE = re.compile(r"\x1b\[([0-9;:]{0,40})m")
_STREAM_COLOUR = "\x1b[31m"


class Style(msgspec.Struct, frozen=True):
    """How records are shown."""

    format: str = "default"
    """`default`, `raw`, `json`, `logfmt`, or a template."""
    colour: bool = False
    many_colours: bool = True
    """The terminal has 256 of them."""
    terminal: bool = False
    """What is shown goes to one."""
    width: int = 80
    times: bool = False
    zone: tzinfo | None = None
    """Of the times; None: UTC."""
    highlight: re.Pattern[str] | None = None
    names: bool = True


class Screen:
    """Makes text of batches. Names are aligned to the widest that was there so far."""

    def __init__(self, style: Style, *, levels: bool = False) -> None:
        """`levels`: look for them in text where nobody has."""
        self._style = style
        self._levels = levels
        self._width = 0
        self._widest = max(NARROWEST_NAME, min(WIDEST_NAME, style.width // 3))
        self._prefixes: dict[str, tuple[int, dict[str, str]]] = {}
        self._parse = [_processor("json")] + ([_processor("level")] if levels else [])
        self._encode: Callable[[Batch], bytes] | None = None
        if style.format != "default":
            self._encode = encoder(style.format)

    def render(self, batches: Sequence[Batch]) -> bytes:
        """The text of all records, each ended by a newline."""
        if self._encode is not None:
            data = b"".join(map(self._encode, batches))
            if self._style.terminal:
                data = visible(data.decode("utf-8", "replace")).encode()
            return data
        return "".join([self._text(batch) for batch in batches]).encode("utf-8", "replace")

    def names(self, origins: Sequence[Origin]) -> None:
        """These will be shown: align to them."""
        for origin in origins:
            self._width = max(self._width, min(self._widest, cells(visible(display_name(origin)))))

    # --- the default format -----------------------------------------------------------------------------

    def _text(self, batch: Batch) -> str:
        style = self._style
        prefixes = self._prefix(batch.origin)
        plain = not style.terminal and style.highlight is None
        lines: list[str] = []
        for record in self.parsed(batch).records:
            message = record.message
            if "\r" in message:  # at the end of each line that a terminal was given
                message = message.removesuffix("\r").replace("\r\n", "\n")
            if not plain:
                message = self._shown(message)
            time = self._time(record.time) if style.times else ""
            if record.fields or record.level:
                message = self._structured(record, message)
            lines.append(f"{time}{prefixes[record.stream]}{message}\n")
        return "".join(lines)

    def parsed(self, batch: Batch) -> Batch:
        """With levels and fields where a message is JSON, and nobody has parsed it before."""
        if not self._levels and not any(
            record.message[:1] == "{" and not record.fields for record in batch.records
        ):
            return batch
        given = batch.with_records(owned_records(batch.records))
        for processor in self._parse:
            given = processor.apply(given) or given
        return given

    def _structured(self, record: Record, message: str) -> str:
        style = self._style
        level = ""
        if record.level:
            level = f"{record.level.upper():<{LEVEL_WIDTH}} "
            if style.terminal:
                level = visible(level)
            if style.colour:
                # The text says its level itself, unless that was taken out of it.
                level = f"{LEVEL_COLOURS.get(record.level, '')}{level}{RESET}"
            if not record.fields and not record.message.startswith("{"):
                level = self._marked(record) if style.colour else ""
        fields = ""
        if record.fields:
            pairs = []
            for key, value in record.fields.items():
                text = logfmt_value(value)
                if style.terminal:
                    key, text = visible(str(key)), visible(text)
                pairs.append(f"{DIM}{key}={RESET}{text}" if style.colour else f"{key}={text}")
            fields = (" " if message else "") + " ".join(pairs)
        return f"{level}{message}{fields}"

    @staticmethod
    def _marked(record: Record) -> str:
        """Of a text that says its level: only what is grave is marked, before it."""
        if record.level in ("warn", "error", "fatal"):
            return f"{LEVEL_COLOURS[record.level]}▌{RESET}"
        return ""

    def _shown(self, message: str) -> str:
        style = self._style
        if style.terminal:
            if "\x1b" in message:
                message = _with_colours(message) if style.colour else visible(_SEQUENCE.sub("", message))
            elif not message.isprintable():
                message = visible(message)
        if style.highlight is not None and style.colour:
            message = style.highlight.sub(
                lambda found: f"{HIGHLIGHT}{found[0]}{HIGHLIGHT_END}" if found[0] else "", message
            )
        return message

    def _time(self, time: str) -> str:
        style = self._style
        text = time
        if style.zone is not None:
            try:
                moment = datetime.fromisoformat(time[:26] + "+00:00").astimezone(style.zone)
                text = moment.isoformat(timespec="milliseconds")
            except ValueError:
                pass
        elif len(time) == 30:
            text = time[:23] + "Z"
        return f"{DIM}{text}{RESET} " if style.colour else f"{text} "

    def _prefix(self, origin: Origin) -> dict[str, str]:
        if not self._style.names:
            return {"stdout": "", "stderr": ""}
        name = visible(display_name(origin))
        known = self._prefixes.get(name)
        if known is None or known[0] != self._width:
            self._width = max(self._width, min(self._widest, cells(name)))
            known = self._prefixes[name] = self._width, self._made_prefix(name)
        return known[1]

    def _made_prefix(self, name: str) -> dict[str, str]:
        shown = fitted(name, self._width)
        if not self._style.colour:
            return {"stdout": f"{shown} | ", "stderr": f"{shown} | "}
        shown = f"{self._colour(name)}{shown}{RESET} "
        return {"stdout": f"{shown}{DIM}│{RESET} ", "stderr": f"{shown}{_STREAM_COLOUR}│{RESET} "}

    def _colour(self, name: str) -> str:
        """The same for a name every time, whoever else is there."""
        number = int.from_bytes(blake2b(name.encode("utf-8", "replace"), digest_size=4).digest(), "little")
        if self._style.many_colours:
            return f"\x1b[38;5;{COLOURS[number % len(COLOURS)]}m"
        return f"\x1b[{FEW_COLOURS[number % len(FEW_COLOURS)]}m"


def _processor(name: str) -> Any:
    return PROCESSORS.create(PROCESSORS.options(name).model_validate({}))


def _with_colours(text: str) -> str:
    """Its colours, ended at its end, and nothing else that could control a terminal."""
    parts: list[str] = []
    at = 0
    end = ""
    for found in _SEQUENCE.finditer(text):
        parts.append(visible(text[at : found.start()]))
        if _is_colour(found[1]):
            parts.append(found[0])
            end = RESET
        else:
            parts.append(visible(found[0]))
        at = found.end()
    parts.append(visible(text[at:]))
    return "".join(parts) + end


def _is_colour(numbers: str) -> bool:
    """Whether SGR's numbers (ECMA-48, 8.3.117) are attributes and colours that everybody has; nothing hides
    text."""
    found = [int(number or 0) for number in re.split("[;:]", numbers)] if numbers else [0]
    return all(number <= 255 for number in found) and 8 not in found[:1]


def cells(text: str) -> int:
    """How many columns of a terminal a text takes: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def fitted(text: str, width: int) -> str:
    """The text in so many columns: cut at its end, or filled with spaces."""
    taken = cells(text)
    if taken <= width:
        return text + " " * (width - taken)
    kept, used = "", 0
    for character in text:
        if used + _cells(character) > width - 1:
            break
        kept += character
        used += _cells(character)
    return kept + "…" + " " * (width - 1 - used)
