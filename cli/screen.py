"""What `logroute tail` shows of records: a name in its colour, then the message, in words people can read.

No line controls a terminal (CVE-2021-25743): of what it has only colours stay, checked and ended; everything
else that could is made visible. Into a pipe or a file the text goes as it is, without colours of ours. Where
names stand no record writes: what continues one stands below its message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, tzinfo
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from logroute.cli.columns import cells, fitted
from logroute.config.components import PROCESSORS
from logroute.processors._objects import LEVEL_KEYS, TIME_KEYS
from logroute.router.digest import blake2b
from logroute.router.record import Batch, Origin, Record, all_plain, owned_records
from logroute.router.visible import visible
from logroute.sinks.encoding import display_name, encoder, logfmt_value

if TYPE_CHECKING:
    from logroute.processors._level_text import LevelText

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
# SGR's numbers (ECMA-48, 8.3.117; colours by number: ITU-T T.416, 13.1.8). Not 8, which conceals, wherever it
# stands; as the part of a colour it is none.
_SGR = (
    r"(?:[345]8(?:;5;\d{1,3}|;2(?:;\d{1,3}){3}|:5:\d{1,3}|:2(?::\d{0,3}){3,5})"
    r"|4:[0-5]|0?[0-79]|(?![345]8)[1-9]\d|10\d)?"
)
_COLOURS_ONLY = re.compile(f"{_SGR}(?:;{_SGR})*")
_STREAM_COLOUR = "\x1b[31m"
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_BAR_CELLS = 3
"""Of ` | `, between a name and a message."""
_INDENT = "\n    "
"""Before what continues a value in a template."""


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

    @property
    def guarded(self) -> bool:
        """It is for a terminal's eyes, if not now: colours that were asked for are shown by one later."""
        return self.terminal or self.colour


class Screen:
    """Makes text of batches. Names are aligned to the widest that was there so far."""

    def __init__(
        self, style: Style, *, levels: bool = False, name: Callable[[Origin], str] = display_name
    ) -> None:
        """`levels`: look for them in text where nobody has. `name`: what is shown of an origin."""
        self._named = name
        self._style = style
        self._levels = levels
        self._width = 0
        self._widest = max(NARROWEST_NAME, min(WIDEST_NAME, style.width // 3))
        self._prefixes: dict[str, tuple[int, int, dict[str, str]]] = {}
        """By name: the width when it was made, its own, and the prefix of each stream."""
        self._json = _processor("json")
        self.parses = False
        """Nobody has, so that other forms than raw are of what is parsed here."""
        self._encode: Callable[[Batch], bytes] | None = None
        if style.format != "default":
            self._encode = encoder(style.format, _indented)

    @property
    def guarded(self) -> bool:
        """Whether nothing that controls a terminal may pass."""
        return self._style.guarded

    def render(self, batches: Sequence[Batch]) -> bytes:
        """The text of all records, each ended by a newline."""
        if self._encode is not None:
            if self.parses:
                batches = [self.parsed(batch) for batch in batches]
            data = b"".join(map(self._encode, batches))
            if self._style.guarded:
                data = visible(data.decode("utf-8", "replace")).encode()
            return data
        return "".join([self._text(batch) for batch in batches]).encode("utf-8", "replace")

    def names(self, origins: Sequence[Origin]) -> None:
        """These will be shown: align to them."""
        for origin in origins:
            self._width = max(self._width, min(self._widest, cells(self._name(origin))))

    def _name(self, origin: Origin) -> str:
        r"""On one line: a file's path may have `\n`."""
        return visible(self._named(origin)).replace("\n", "\\n").replace("\t", "\\t")

    # --- the default format -----------------------------------------------------------------------------

    def _text(self, batch: Batch) -> str:
        style = self._style
        margin, prefixes = self._prefix(batch.origin)
        plain = not style.guarded
        lines: list[str] = []
        given = self._with_fields(batch)
        if plain and not style.times and all_plain(given.records):
            # The usual lines in a pipe, in one go; the rare ones have more newlines than records.
            text = "".join([f"{prefixes[record.stream]}{record.message}\n" for record in given.records])
            if "\r\n" not in text and text.count("\n") == len(given.records):
                return text
        labels: Sequence[bool] = ()
        if self._levels:
            labels = self._labels(batch, given)
            given = _level().apply(given) or given
        for index, record in enumerate(given.records):
            message = record.message
            if "\r" in message:  # at the end of each line that a terminal was given
                message = message.removesuffix("\r").replace("\r\n", "\n")
            if not plain:
                message = self._shown(message)
            time = self._time(record.time) if style.times else ""
            if record.fields or record.level:
                labels = labels or self._labels(batch, given)
                message = self._structured(record, message, labelled=labels[index])
            if "\n" in message:
                message = message.replace("\n", self._continued(time, margin))
            lines.append(f"{time}{prefixes[record.stream]}{message}\n")
        return "".join(lines)

    @staticmethod
    def _continued(time: str, margin: int) -> str:
        """A newline and the space up to the message: nobody who says one begins a line with a name."""
        return "\n" + " " * (cells(_SEQUENCE.sub("", time)) + margin)

    def parsed(self, batch: Batch) -> Batch:
        """With fields where a message is JSON, and levels, as far as nobody has looked for them before."""
        given = batch.with_records(owned_records(batch.records))
        given = self._json.apply(given) or given
        return _level().apply(given) or given

    def _with_fields(self, batch: Batch) -> Batch:
        """What JSON says; with room for levels, where they are looked for."""
        if not self._levels and not any(
            record.message[:1] == "{" and not record.fields for record in batch.records
        ):
            return batch
        given = batch.with_records(owned_records(batch.records))
        return self._json.apply(given) or given

    def _labels(self, batch: Batch, given: Batch) -> Sequence[bool]:
        """Of which records the level stands before the message: of those whose text does not say it.

        JSON's has been taken out of it; what a daemon has found may be in the text. To be asked before levels
        are looked for: those are in what is shown.
        """
        labels = [record.level is not None for record in given.records]
        if all_plain(batch.records):
            return labels
        found = [
            (index, record)
            for index, record in enumerate(batch.records)
            if record.level is not None and not record.fields and record.message[:1] != "{"
        ]
        if not found:
            return labels
        said = _level_text().levels([record.message for _, record in found])
        for (index, record), level in zip(found, said, strict=True):
            labels[index] = level != record.level
        return labels

    def _structured(self, record: Record, message: str, *, labelled: bool) -> str:
        style = self._style
        level = ""
        if record.level and labelled:
            level = f"{record.level.upper():<{LEVEL_WIDTH}} "
            if style.guarded:
                level = visible(level)
            if style.colour:
                level = f"{LEVEL_COLOURS.get(record.level, '')}{level}{RESET}"
        elif style.colour:
            level = self._marked(record)
        fields = ""
        if record.fields:
            if record.message[:1] == "{" and _is_in(record.fields, record.message):
                message = ""
            pairs = []
            for key, value in record.fields.items():
                text = logfmt_value(value)
                if style.guarded:
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
        if "\x1b" in message:
            return self._with_colours(message) if style.colour else visible(_SEQUENCE.sub("", message))
        if not message.isprintable():
            message = visible(message)
        return message if style.highlight is None else self._highlighted(message)

    def _with_colours(self, text: str) -> str:
        """Its colours, ended at its end, and nothing else that could control a terminal."""
        parts: list[str] = []
        at = 0
        end = ""
        for found in _SEQUENCE.finditer(text):
            parts.append(self._highlighted(visible(text[at : found.start()])))
            if _COLOURS_ONLY.fullmatch(found[1]):
                parts.append(found[0])
                end = RESET
            else:
                parts.append(visible(found[0]))
            at = found.end()
        parts.append(self._highlighted(visible(text[at:])))
        return "".join(parts) + end

    def _highlighted(self, text: str) -> str:
        style = self._style
        if style.highlight is None or not style.colour:
            return text
        return style.highlight.sub(
            lambda found: f"{HIGHLIGHT}{found[0]}{HIGHLIGHT_END}" if found[0] else "", text
        )

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

    def _prefix(self, origin: Origin) -> tuple[int, dict[str, str]]:
        """How many columns a name and its bar take, and both for each stream."""
        name = self._name(origin)
        known = self._prefixes.get(name)
        if known is None or known[0] != self._width:
            self._width = max(self._width, min(self._widest, cells(name)))
            # What a pipe leads to looks for whole names.
            width = self._width if self._style.terminal else max(self._width, cells(name))
            known = self._width, width + _BAR_CELLS, self._made_prefix(name, width)
            self._prefixes[name] = known
        return known[1:]

    def _made_prefix(self, name: str, width: int) -> dict[str, str]:
        shown = fitted(name, width)
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


@cache
def _level() -> Any:
    """Imported when it is needed: into a pipe it is not."""
    return _processor("level")


@cache
def _level_text() -> LevelText:
    from logroute.processors._level_text import LevelText

    return LevelText()


def _is_in(fields: Mapping[str, Any], message: str) -> bool:
    """Whether the fields are all that an object says, which has no message: its level and time were taken."""
    try:
        found = _decode_object(message)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return False
    return all(key in fields or key in LEVEL_KEYS or key in TIME_KEYS for key in found)


def _indented(value: str) -> str:
    """A value in a template: what continues it begins no line."""
    return value.replace("\n", _INDENT) if "\n" in value else value
