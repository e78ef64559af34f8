"""Levels in text: what people read at a glance, by tiers; the first one that says something counts.

1. At the beginning, behind times and brackets: `2026-11-23 20:06:26 WARN x`, `[error] x`, klog's `E1123 `.
2. At the beginning, as only one program has it: logrus' `ERRO[0000] x`, Monolog's `[2026-11-23 20:06:26]
   production.ERROR: x`, `PHP Warning:  x`.
3. As a key: `level=warn`, `"severity":"error"`.
4. By itself between brackets or bars: `main [ERROR] x`, `| INFO |`; Apache's has a module: `[core:error]`.
5. In capitals, as a word: `http-1 ERROR x`, `WARN: x`.

Two different levels in one tier mean that nobody knows, and no further tier is asked. After Dozzle's guesser
(https://github.com/amir20/dozzle/blob/master/internal/container/level_guesser.go) and klog's header. Only the
head of a line is looked at: what stands behind is what it is about.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, reduce
from operator import or_

from logroute.processors.ansi import without_sequences
from logroute.router.levels import LEVELS, NAMES
from logroute.router.regex import Regex, RegexSet, Suspects

HEAD = 256
"""So many characters of a line are looked at."""
COLOURED_HEAD = 1024
"""The same of a line with colours, these included."""

# What stands for a level in a text. Of `NAMES`, those that are no words of the language, and short forms of
# .NET's (https://learn.microsoft.com/dotnet/core/extensions/console-log-formatter) and zerolog's consoles.
_WORDS = {
    "trace": ("trace", "trce", "trc", "verbose"),
    "debug": ("debug", "dbug", "dbg"),
    "info": ("info", "inf", "information"),
    "notice": ("notice",),
    "warn": ("warn", "warning", "wrn"),
    "error": ("error", "err", "severe", "fail"),
    "fatal": ("fatal", "critical", "crit", "panic", "emerg", "alert", "ftl"),
}
_LEVELS = {word: level for level, words in _WORDS.items() for word in words}
_ANY = "|".join(sorted(_LEVELS, key=len, reverse=True))
_CAPITALS = {word.upper(): level for word, level in _LEVELS.items()}
_CAPITALS["LOG"] = "info"
_KLOG = {"I": "info", "W": "warn", "E": "error", "F": "fatal"}
_LOGRUS = {
    "trace": "TRAC",
    "debug": "DEBU",
    "info": "INFO",
    "warn": "WARN",
    "error": "ERRO",
    "fatal": "FATA|PANI",
}
"""On a terminal: https://github.com/sirupsen/logrus/blob/master/text_formatter.go."""
_MONOLOG = {level: level.upper() for level in ("debug", "info", "notice", "error")}
_MONOLOG |= {"warn": "WARNING", "fatal": "CRITICAL|ALERT|EMERGENCY"}
"""https://github.com/Seldaek/monolog/blob/main/src/Monolog/Formatter/LineFormatter.php. Laravel's channel is
the environment."""
_PHP = {
    "info": "Deprecated|Strict Standards",
    "notice": "Notice",
    "warn": "Warning",
    "error": "Parse error|Recoverable fatal error",
    "fatal": "Fatal error",
}
"""`php_error_cb` of https://github.com/php/php-src/blob/master/main/main.c; but for the last, its levels for
syslog."""

# Behind a time any case is a level; at the very beginning `Info about us` is a sentence, `info: x` is none.
# What stands before is runs of characters that cannot be a level's, so the possessive never takes too much.
_header = re.compile(
    r"(?:(?P<klog>[IWEF])\d{4} \d\d:\d\d:\d\d\."
    r"|(?P<prefix>[\d\s:.,/+\-\[\](<|]*+(?:T\d[\d:.,+\-]*+Z?+[\s\])|]*+)?+(?:(?:UTC|GMT|AM|PM|Z)[\s\])|]*+)?+)"
    rf"(?:(?P<capitals>{_ANY.upper()})|(?P<word>(?i:{_ANY})))(?P<behind>[\]:|)>,=\t]|\s\s|\s|!|$))",
    re.ASCII,
).match
_SENTENCES = ("error", "warning", "fatal", "panic")
"""With these a sentence may begin that is one: `Error while connecting`."""


def _of_tier(before: str, behind: str, *, names: bool, capitals: bool = False) -> list[Regex]:
    """A pattern for each level."""
    found = []
    for level in LEVELS:
        words = [name for name, of in NAMES.items() if of == level] if names else list(_WORDS[level])
        words = [word for word, of in _CAPITALS.items() if of == level] if capitals else words
        words += ["trace[1-8]"] if level == "trace" and not capitals else []  # Apache's
        found.append(Regex(f"{before}(?:{'|'.join(words)}){behind}", ignore_case=not capitals))
    return found


def _of_programs() -> re.Pattern[str]:
    """The second tier: a group for each level."""
    found = []
    for level in LEVELS:
        forms = [rf"(?:{_LOGRUS[level]})\[\d{{4}}"] if level in _LOGRUS else []
        if level in _MONOLOG:
            forms.append(rf"\[[^\]]{{10,40}}+\] [\w-]{{1,40}}+\.(?:{_MONOLOG[level]}):")
        if level in _PHP:
            forms.append(rf"(?:\[[^\]]{{10,40}}+\] )?PHP (?:{_PHP[level]}):")
        found.append(f"(?P<{level}>{'|'.join(forms)})")
    return re.compile("|".join(found), re.ASCII)


_program = _of_programs().match
_OF_PROGRAMS = frozenset("[PTDIWEF")
"""What begins so may be theirs: most lines begin with a time, and are not looked at for it."""


_KEY = r"""\b(?:level|severity|lvl|loglevel)["']?\s?[=:]\s?["']?""", r"\b"
_BRACKETS = r"(?:[\[(<|]\s?|\[\w+:)", r"\s*[\])>|]"
_WORD = r"(?:^|[^\w./-])", r"(?:$|[^\w./=-])"


@cache
def _tiers() -> Sequence[Sequence[Regex]]:
    """Behind the second, each level's pattern, in the order of `LEVELS`. Made when a line needs them."""
    return (
        _of_tier(*_KEY, names=True),
        _of_tier(*_BRACKETS, names=False),
        _of_tier(*_WORD, names=False, capitals=True),
    )


def _suspects() -> Suspects:
    """All that any tier may find, the first two as well: some more, but nothing less."""
    words = f"(?:{_ANY}|trace[1-8])"
    programs = "|".join(form for forms in (_MONOLOG, _PHP) for form in forms.values())
    return Suspects(
        rf"(?i)^[\d\s:.,/+\-\[\](<|>)TZUCGMAP]*{words}(?:[\]:|)>,=\s!]|$)",
        r"^[IWEF]\d{4} \d\d:\d\d:\d\d\.",
        rf"^(?:{'|'.join(_LOGRUS.values())})\[\d{{4}}",
        rf"(?:\.|PHP )(?:{programs}):",
        f"(?i){_KEY[0]}",
        f"(?i){_BRACKETS[0]}{words}{_BRACKETS[1]}",
        rf"\b(?:{'|'.join(_CAPITALS)})\b",
    )


FEW = 16
"""Fewer lines are not worth to be looked at together."""
MANY_UNTOLD = 4
"""One line in so many may be of another form."""


class LevelText:
    """Finds the levels of many lines at once."""

    def __init__(self) -> None:
        self._set: RegexSet | None = None
        self._suspects: Suspects | None = None

    def levels(self, lines: Sequence[str]) -> list[str | None]:
        """What each line says of its level. Depends on nothing but the line."""
        if "\x1b" in "".join(lines):
            lines = [without_sequences(line[:COLOURED_HEAD]) if "\x1b" in line else line for line in lines]
        heads = [line[:HEAD] for line in lines] if max(map(len, lines), default=0) > HEAD else lines
        told = _behind_times(heads)
        if told is None:
            told = self._by_place(heads)
        elif None not in told:
            return told
        if told is None:
            found = [level_at_beginning(head) for head in heads]
        else:
            found = [level or level_at_beginning(head) for level, head in zip(told, heads, strict=True)]
        left = [index for index, level in enumerate(found) if level is None]
        if left:
            for index, level in zip(left, self._further([heads[index] for index in left]), strict=True):
                found[index] = level
        return found

    def _by_place(self, heads: Sequence[str]) -> list[str | None] | None:
        """A program writes its level always in the same place, as a word by itself: `[worker-3] INFO  x`.

        That is the level if nothing else in the line looks like one. None where it is not told in this way;
        of all of them, where the beginning tells it, for less.
        """
        if len(heads) < FEW or level_at_beginning(sample := heads[len(heads) // 2]) is not None:
            return None
        place = next((place for place, word in enumerate(sample.split(" ")) if word in _CAPITALS), None)
        if place is None:
            return None
        words = [head.split(" ", place + 1) for head in heads]
        told = [_CAPITALS.get(some[place]) if len(some) > place else None for some in words]
        if told.count(None) > len(told) // MANY_UNTOLD:
            return None
        for some, level in zip(words, told, strict=True):
            if level is not None:
                some[place] = "x"  # whatever stood around a word stands around a word still
        if self._suspects is None:
            self._suspects = _suspects()
        suspects = self._suspects.among([*map(" ".join, words)])
        if suspects is None:
            return None
        for index in suspects:
            told[index] = None
        return told

    def _further(self, heads: Sequence[str]) -> list[str | None]:
        if self._set is None:
            self._set = RegexSet(regex for tier in _tiers() for regex in tier)
        masks = self._set.masks(heads)
        told: list[str | None] = [None] * len(heads)
        open_ = (1 << 8 * len(heads)) - 1
        """0xff for each line of which no tier has told anything yet."""
        for tier in _tiers():
            of_levels = [int.from_bytes(masks[regex], "little") & open_ for regex in tier]
            if not any(of_levels):
                continue
            # Each line's byte: how many levels were found.
            counts = sum(of_levels).to_bytes(len(heads), "little")
            for level, mask in zip(LEVELS, of_levels, strict=True):
                if mask:
                    mine = mask.to_bytes(len(heads), "little")
                    at = mine.find(1)
                    while at >= 0:
                        if counts[at] == 1:
                            told[at] = level
                        at = mine.find(1, at + 1)
            open_ &= ~(reduce(or_, of_levels) * 0xFF)
        return told


def _behind_times(heads: Sequence[str]) -> list[str | None] | None:
    """A program's lines begin alike: `2026-11-23 20:06:26 INFO x`. A level behind that, in the first tier.

    None for a line of which this does not tell it; None where they do not begin so.
    """
    if len(heads) < FEW or (found := _header(heads[len(heads) // 2], 0, HEAD)) is None:
        return None
    begin = found["prefix"]
    if not begin or not begin.isascii():
        return None
    # Digits apart it is the same for all: so what is matched of each is the same as well.
    width = len(begin)
    shape = begin.translate(_ZEROS)
    if "".join([head[:width] for head in heads]).translate(_ZEROS) != shape * len(heads):
        return None
    words = [head[width : width + _WINDOW] for head in heads]
    known = {word: _surely(begin, word) for word in {*words}}
    return [*map(known.__getitem__, words)]


_ZEROS = str.maketrans("123456789", "000000000")
_WINDOW = 7
"""So many characters behind the time tell most levels, and are few different ones."""


def _surely(begin: str, word: str) -> str | None:
    """The level that a line says that begins so, whatever comes then; None if that may depend on it."""
    found = _header(begin + word)
    return level_at_beginning(begin + word) if found is not None and found["behind"] else None


def level_at_beginning(line: str) -> str | None:
    """The first two tiers."""
    found = _header(line, 0, HEAD)
    if found is None:
        of_program = _program(line, 0, HEAD) if line[:1] in _OF_PROGRAMS else None
        return of_program.lastgroup if of_program is not None else None
    klog, prefix, capitals, word, behind = found.groups()
    if klog:
        return _KLOG[klog]
    if capitals:
        return _CAPITALS[capitals]
    name = word.lower()
    if prefix or behind not in (" ", "!", "", ","):
        return _LEVELS[name]
    return _LEVELS[name] if name in _SENTENCES else None
