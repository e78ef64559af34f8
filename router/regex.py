"""Regular expressions of users, searched in a time that grows with the text and not with the pattern.

Patterns come from users and texts from strangers; Python's `re` can take exponential time for `(a+)+b`, and
holds everything up meanwhile. So what selects is Hyperscan, over whole batches and all patterns at once, or
RE2 where Hyperscan cannot be had or does not know a construct. Both are automata: there is neither lookaround
nor a reference back to a group. `\\w`, `\\d`, `\\s` and `\\b` mean ASCII, as RE2 has it.
(https://intel.github.io/hyperscan/dev-reference/compilation.html, https://github.com/google/re2/wiki/Syntax)

What needs more is asked for by `/…/p`: then it is Python's `re`, line by line.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from re import _constants as constants  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

PYTHON_SUBJECT_LIMIT = 4096
"""Python's engine sees so much of a text: even `/a*b/` takes it a time that grows with the square of that."""

MANY_ENDS = 0.7
MANY_DOUBTFUL = 0.3
"""With more ends of matches than this for each text, a look at every text by itself costs less: where an end
tells that something is found, and where it only may be."""
TRY_AGAIN = 16
"""Where there were too many, so many batches are looked at by text before it is tried again."""
FEW_TO_COMPILE = 16
"""So many are compiled together while records wait."""
FEW_LITERALS = 4
"""So many plain texts are looked for one by one: that costs less than the other way, and much less where they
are found often."""

MOST_OF_SEVERAL_BYTES = 100
"""So many characters that may be others than ASCII's are enough for Hyperscan: it compiles `x.{0,900}y` for
minutes, and everything waits. RE2 does it at once, and searches each text by itself."""

NEWLINE = ord("\n")

# An escape, a class, a repetition of at most so many.
_PARTS = re.compile(r"\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]|\{,(?=\d+\})", re.DOTALL)
_IN_CLASS = re.compile(r"\\.|\[:(\^?)(\w+):\]", re.DOTALL)
# POSIX' names of characters (https://github.com/google/re2/wiki/Syntax), each from where to where they are.
_NAMED = {
    "alnum": ("09", "AZ", "az"),
    "alpha": ("AZ", "az"),
    "ascii": ("\0\x7f",),
    "blank": ("\t\t", "  "),
    "cntrl": ("\0\x1f", "\x7f\x7f"),
    "digit": ("09",),
    "graph": ("!~",),
    "lower": ("az",),
    "print": (" ~",),
    "punct": ("!/", ":@", "[`", "{~"),
    "space": ("\t\r", "  "),
    "upper": ("AZ",),
    "word": ("09", "AZ", "__", "az"),
    "xdigit": ("09", "AF", "af"),
}

# Anchors of the text itself: among many lines there is only one such place.
_TEXT_ANCHOR = re.compile(r"(?:^|[^\\])(?:\\\\)*\\[AZz]")


class RegexError(ValueError):
    """No regular expression, or none that can be searched in linear time."""


class NotLinearError(RegexError):
    """None that can be searched in linear time. Whether Python's engine can be asked for, and how, depends on
    where it stands."""


@dataclass(frozen=True, slots=True)
class Regex:
    """One pattern, found anywhere in a text. Equal ones are written alike."""

    pattern: str
    ignore_case: bool = False
    dot_all: bool = False
    """`.` is also a newline."""
    python: bool = False
    """Python's engine: knows more, and may take exponential time."""
    found_in: Callable[[str], bool] = field(init=False, compare=False, repr=False)
    """Whether it is found in a text."""
    scannable: bool = field(init=False, compare=False, default=False)
    """Whether many can be searched for at once: Hyperscan knows it."""
    literal: str | None = field(init=False, compare=False, default=None)
    """The plain text that it is, if it is one."""

    def __post_init__(self) -> None:
        """Raises RegexError, which says where in the pattern the mistake is."""
        found_in, scannable = _compiled(self)
        object.__setattr__(self, "found_in", found_in)
        object.__setattr__(self, "scannable", scannable)
        if not self.ignore_case and (literal := _literal(self.pattern)) is not None:
            object.__setattr__(self, "literal", literal)
            object.__setattr__(self, "found_in", lambda text: literal in text)


def _compiled(regex: Regex) -> tuple[Callable[[str], bool], bool]:
    pattern = regex.pattern
    flags = (re.IGNORECASE if regex.ignore_case else 0) | (re.DOTALL if regex.dot_all else 0)
    try:
        read = pattern if regex.python else for_python(pattern)
        search = re.compile(read, flags).search
    except re.error as error:
        if regex.python or error.pos is None:
            raise RegexError(_mistake(pattern, error)) from error
        mistake: re.error | None = error  # the others know constructs that Python does not, such as \z
    except (RecursionError, OverflowError) as error:
        raise RegexError("the regular expression is too large") from error
    else:
        mistake = None
        if regex.python:
            return lambda text: search(text[:PYTHON_SUBJECT_LIMIT]) is not None, False
    refusals: list[str] = []
    engines = (_re2_search,) if _is_large(pattern) else (_hyperscan_search, _re2_search)
    for compile_ in engines:
        try:
            return compile_(regex), compile_ is _hyperscan_search
        except ImportError:
            continue
        except RegexError as refusal:
            refusals.append(str(refusal))
    if mistake is not None:
        raise RegexError(_mistake(pattern, mistake)) from mistake
    if not refusals:
        raise NotLinearError(
            f"/{pattern}/ needs Hyperscan or RE2, and neither is installed: pip install hyperscan, or "
            "google-re2"
        )
    raise NotLinearError(f"/{pattern}/ cannot be searched in linear time ({refusals[0].rstrip('.')})")


def for_python(pattern: str) -> str:
    """What Python's engine reads as the automata read this: it knows no `[[:alpha:]]`."""
    if "[:" not in pattern:
        return pattern
    return _PARTS.sub(
        lambda part: "[" + _IN_CLASS.sub(_spelt_out, part[0][1:]) if part[0][0] == "[" else part[0], pattern
    )


def _spelt_out(named: re.Match[str]) -> str:
    ranges = [(ord(each[0]), ord(each[1])) for each in _NAMED.get(named[2] or "", ())]
    if not ranges:
        return named[0]
    if named[1]:
        begins = [0, *(last + 1 for _, last in ranges)]
        ends = [*(first - 1 for first, _ in ranges), sys.maxunicode]
        ranges = [each for each in zip(begins, ends, strict=True) if each[0] <= each[1]]
    return "".join(rf"\U{first:08x}-\U{last:08x}" for first, last in ranges)


def for_automata(pattern: str) -> str:
    """What the automata read as Python's engine reads this: to them `{,3}` is a text."""
    if "{," not in pattern:
        return pattern
    return _PARTS.sub(lambda part: "{0," if part[0] == "{," else part[0], pattern)


def _is_large(pattern: str) -> bool:
    try:
        return _of_several_bytes(parser.parse(for_python(pattern))) > MOST_OF_SEVERAL_BYTES
    except (re.error, RecursionError, OverflowError):
        return False


def _of_several_bytes(nodes: Iterable[Any]) -> int:
    """How many places for characters of several bytes there are, each as often as it is repeated."""
    size = 0
    for code, argument in nodes:
        if code in (constants.MAX_REPEAT, constants.MIN_REPEAT):
            low, high, body = argument
            size += (max(low, 1) if high is constants.MAXREPEAT else high) * _of_several_bytes(body)
        elif code is constants.SUBPATTERN:
            size += _of_several_bytes(argument[3])
        elif code is constants.BRANCH:
            size += sum(map(_of_several_bytes, argument[1]))
        elif code is constants.IN:
            size += any(_is_of_several_bytes(*each) for each in argument)
        else:
            size += _is_of_several_bytes(code, argument)
    return size


def _is_of_several_bytes(code: Any, argument: Any) -> bool:
    if code is constants.LITERAL:
        return bool(argument > 127)
    if code is constants.RANGE:
        return bool(argument[1] > 127)
    if code is constants.CATEGORY:
        return argument in _NEGATED
    return code in (constants.ANY, constants.NOT_LITERAL, constants.NEGATE)


_NEGATED = (constants.CATEGORY_NOT_DIGIT, constants.CATEGORY_NOT_SPACE, constants.CATEGORY_NOT_WORD)


def _mistake(pattern: str, error: re.error) -> str:
    where = "" if error.pos is None else f" at its character {error.pos + 1}"
    return f"/{pattern}/ is no regular expression{where}: {error.msg}"


def _literal(pattern: str) -> str | None:
    """The text that a pattern is looking for, if nothing in it has a meaning of its own."""
    try:
        parsed = parser.parse(for_python(pattern))
    except (re.error, RecursionError, OverflowError):
        return None
    if parsed.state.flags & ~re.UNICODE or not all(code is constants.LITERAL for code, _ in parsed):
        return None
    return "".join(chr(character) for _, character in parsed)


# --- the engines --------------------------------------------------------------------------------------


def _hyperscan(regexes: Sequence[Regex], flags: int) -> Any:
    """A database of these; the numbers it tells are their places. Raises RegexError, and ImportError."""
    import hyperscan

    database = hyperscan.Database()
    try:
        database.compile(
            expressions=[for_automata(regex.pattern).encode() for regex in regexes],
            ids=list(range(len(regexes))),
            elements=len(regexes),
            flags=[flags | hyperscan.HS_FLAG_UTF8 | _flags(regex) for regex in regexes],
        )
    except (hyperscan.error, UnicodeEncodeError) as error:
        raise RegexError(str(error)) from error
    return database


def _flags(regex: Regex) -> int:
    import hyperscan

    caseless = hyperscan.HS_FLAG_CASELESS if regex.ignore_case else 0
    return int(caseless | (hyperscan.HS_FLAG_DOTALL if regex.dot_all else 0))


def _by_text(regexes: Sequence[Regex]) -> Callable[[str], list[int]]:
    """Which of these are found in a text. Raises RegexError, and ImportError."""
    import hyperscan

    scan = _hyperscan(regexes, hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_ALLOWEMPTY).scan
    found: list[int] = []

    def note(number: int, begin: int, end: int, flags: int, context: object) -> None:
        found.append(number)

    def found_in(text: str) -> list[int]:
        found.clear()
        scan(text.encode("utf-8", "replace"), note)
        return found

    return found_in


def _hyperscan_search(regex: Regex) -> Callable[[str], bool]:
    found_in = _by_text([regex])
    return lambda text: bool(found_in(text))


def compiled_by_re2(pattern: str, *, ignore_case: bool = False, dot_all: bool = False) -> Any:
    """RE2's. Raises RegexError with what RE2 says, which does not name the pattern, and ImportError."""
    import re2

    options = re2.Options()
    options.case_sensitive = not ignore_case
    options.dot_nl = dot_all
    options.log_errors = False
    try:
        return re2.compile(for_automata(pattern), options)
    except (re2.error, UnicodeEncodeError) as error:
        said = error.args[0] if error.args else ""
        raise RegexError(said.decode(errors="replace") if isinstance(said, bytes) else str(said)) from error


def _re2_search(regex: Regex) -> Callable[[str], bool]:
    search = compiled_by_re2(regex.pattern, ignore_case=regex.ignore_case, dot_all=regex.dot_all).search
    return lambda text: search(text.encode("utf-8", "replace").decode()) is not None


# --- many texts ---------------------------------------------------------------------------------------


class RegexSet:
    """Many patterns over many texts: `masks` tells for each pattern in which of the texts it is found."""

    def __init__(self, regexes: Iterable[Regex]) -> None:
        self._regexes = list(dict.fromkeys(regexes))
        literals = [regex for regex in self._regexes if regex.literal is not None]
        literals = literals if len(literals) <= FEW_LITERALS else []
        self._apart = [regex for regex in self._regexes if not regex.scannable or regex in literals]
        together = [regex for regex in self._regexes if regex not in self._apart]
        # Of some an end tells that it is there, of others only where to look.
        sure = [regex for regex in together if _is_within_lines(regex)]
        doubtful = [regex for regex in together if regex not in sure]
        self._scans = [_Scan(some, sure=some is sure) for some in (sure, doubtful) if some]

    def masks(
        self, texts: Sequence[str], *, newlines: bool = False, returns: bool = False
    ) -> dict[Regex, bytearray]:
        """For each pattern one byte for each text: 1 where it is found.

        With `newlines` each text is given with a newline that ends it, and is none of it: what comes from a
        log need not be cut for this. With `returns` a carriage return at the end of a text is none of it
        either: what a terminal was given has one there.
        """
        masks = {regex: bytearray() for regex in self._regexes}
        whole = _Whole(texts, newlines=newlines)
        if returns and "\r" in whole.text:
            texts, newlines = whole.without_returns(), False
            whole = _Whole(texts, newlines=newlines)
        for regex in self._apart:
            literal = regex.literal
            if literal is not None and not (newlines and "\n" in literal):
                masks[regex] = bytearray([literal in text for text in texts])
            elif newlines:
                masks[regex] = bytearray([regex.found_in(text[:-1]) for text in texts])
            else:
                masks[regex] = bytearray(map(regex.found_in, texts))
        if self._scans and texts:
            for scan in self._scans:
                scan.search(whole, masks)
        return masks


class Suspects:
    """Finds texts in which one of our own patterns may be found: maybe more, but all of these.

    `^` and `$` are ends of lines.
    """

    def __init__(self, *patterns: str) -> None:
        try:
            import hyperscan
        except ImportError:
            self._scan: Any = None
            return
        flags = hyperscan.HS_FLAG_MULTILINE | hyperscan.HS_FLAG_UTF8
        database = hyperscan.Database()
        database.compile(expressions=[pattern.encode() for pattern in patterns], flags=flags)
        self._scan = database.scan

    def among(self, texts: Sequence[str]) -> set[int] | None:
        """Their places; None if that is not told quickly."""
        if self._scan is None:
            return None
        import hyperscan

        ends: list[int] = []
        most = len(texts) * MANY_DOUBTFUL

        def note(number: int, begin: int, end: int, flags: int, context: object) -> bool:
            ends.append(end)
            return len(ends) > most

        whole = _Whole(texts, newlines=False)
        try:
            self._scan(whole.data, note)
        except hyperscan.ScanTerminated:
            return None
        return {bisect_right(whole.bounds, end) for end in ends} - {len(texts)} if ends else set()


class _Whole:
    """Texts, and all of them as one, with a newline behind each."""

    def __init__(self, texts: Sequence[str], *, newlines: bool) -> None:
        self._texts = texts
        self._newlines = newlines
        self._text: str | None = None
        self._data: bytes | None = None
        self._bounds: list[int] | None = None
        self._has_lines: bool | None = None

    def __len__(self) -> int:
        return len(self._texts)

    def one(self, index: int) -> str:
        """One of the texts."""
        text = self._texts[index]
        return text[:-1] if self._newlines else text

    @property
    def text(self) -> str:
        if self._text is None:
            # With one at the end too: `^` is not looked for behind the last newline (pcrepattern(3)).
            self._text = "".join(self._texts) if self._newlines else "\n".join([*self._texts, ""])
        return self._text

    @property
    def data(self) -> bytes:
        if self._data is None:
            self._data = self.text.encode("utf-8", "replace")
        return self._data

    @property
    def has_lines(self) -> bool:
        """None of the texts has lines of its own: `^` and `$` mean the same in all of them as in one."""
        if self._has_lines is None:
            self._has_lines = self.text.count("\n") == len(self)
        return self._has_lines

    def without_returns(self) -> list[str]:
        """The texts without newline, and without the carriage return that ends some."""
        if self._newlines:
            return [text[:-1].removesuffix("\r") for text in self._texts]
        return [text.removesuffix("\r") for text in self._texts]

    @property
    def bounds(self) -> list[int]:
        """Where each text's newline ends in `data`: what ends before that, not before the text, is in it."""
        if self._bounds is None:
            texts = self._texts
            if not self.text.isascii():
                texts = [text.encode("utf-8", "replace").decode("latin-1") for text in texts]
            self._bounds = list(
                accumulate(map(len, texts) if self._newlines else [len(text) + 1 for text in texts])
            )
        return self._bounds


class _Scan:
    """Patterns that Hyperscan looks for together."""

    def __init__(self, regexes: Sequence[Regex], *, sure: bool) -> None:
        self._regexes = regexes
        self._sure = sure
        self._scan = _scanner_of_lines(regexes)
        # Where all texts can be searched as one, this is for batches in which nearly all of them have what is
        # looked for. There may never be one: so a tenth of a second is saved.
        later = self._scan is not None and sure and len(regexes) <= FEW_TO_COMPILE
        self._which = None if later else _by_text(regexes)
        self._anchored = any(map(_is_anchored, regexes))
        self._many = 0
        """For so many batches more it is not worth it to search all texts at once."""

    def search(self, whole: _Whole, masks: dict[Regex, bytearray]) -> None:
        """Add a mask of each pattern."""
        count = len(self._regexes)
        own = [bytearray(len(whole)) for _ in self._regexes]
        masks.update(zip(self._regexes, own, strict=True))
        ends = self._ends(whole)
        if ends is not None and self._sure:
            bounds = whole.bounds
            if count == 1:
                mask = own[0]
                for end in ends:
                    mask[bisect_right(bounds, end)] = 1
            else:
                for each in ends:
                    end, number = divmod(each, count)
                    own[number][bisect_right(bounds, end)] = 1
            return
        places: Iterable[int] = range(len(whole))
        if ends is not None:
            bounds = whole.bounds
            places = {bisect_right(bounds, each // count) for each in ends} - {len(whole)}
        if self._which is None:
            self._which = _by_text(self._regexes)
        which = self._which
        for index in places:
            for number in which(whole.one(index)):
                own[number][index] = 1

    def _ends(self, whole: _Whole) -> list[int] | None:
        """Where matches end in all texts as one, times the number of patterns, plus the pattern's number.

        None where that tells nothing, or there are too many. What is found in a text by itself is among them.
        """
        if self._many:
            self._many -= 1
            return None
        if self._scan is None or (self._anchored and not whole.has_lines):
            return None
        data, count = whole.data, len(self._regexes)
        import hyperscan

        most = len(whole) * (MANY_ENDS if self._sure else MANY_DOUBTFUL) + count
        ends: list[int] = []
        append = ends.append

        def note(number: int, begin: int, end: int, flags: int, context: object) -> bool:
            append(end * count + number)
            return len(ends) > most

        try:
            self._scan(data, note)
        except hyperscan.ScanTerminated:
            self._many = TRY_AGAIN
            return None
        return ends


def _scanner_of_lines(regexes: Sequence[Regex]) -> Any:
    """None where only one text at a time can be searched: one that is found in the empty text is one."""
    import hyperscan

    if any(_TEXT_ANCHOR.search(regex.pattern) for regex in regexes):
        return None
    try:
        # `^` and `$` are ends of lines.
        return _hyperscan(regexes, hyperscan.HS_FLAG_MULTILINE).scan
    except RegexError:
        return None


def _is_within_lines(regex: Regex) -> bool:
    """Whether nothing that it finds can have a newline in it; False where that is not known."""
    try:
        parsed = parser.parse(for_python(regex.pattern), re.DOTALL if regex.dot_all else 0)
    except (re.error, RecursionError, OverflowError):
        return False
    if _TEXT_ANCHOR.search(regex.pattern):
        return False
    return not parsed.state.flags & re.DOTALL and not _takes_newline(parsed)


def _is_anchored(regex: Regex) -> bool:
    """Whether it asks where lines begin or end; True where that is not known."""
    try:
        return _asks_for_ends(parser.parse(for_python(regex.pattern)))
    except (re.error, RecursionError, OverflowError):
        return True


def _asks_for_ends(node: Any) -> bool:
    if isinstance(node, parser.SubPattern | list | tuple):
        return any(map(_asks_for_ends, node))
    return node in (constants.AT_BEGINNING, constants.AT_END)


def _takes_newline(node: Any) -> bool:
    """Of what Python's parser makes of a pattern: nested lists and tuples of codes and their arguments."""
    if isinstance(node, parser.SubPattern | list):
        return any(map(_takes_newline, node))
    if not isinstance(node, tuple):
        return False
    code, *arguments = node
    if code is constants.LITERAL:
        return bool(arguments[0] == NEWLINE)
    if code is constants.NOT_LITERAL or code is constants.CATEGORY or code is constants.NEGATE:
        return code is not constants.CATEGORY or arguments[0] not in _WITHOUT_NEWLINE
    if code is constants.SUBPATTERN and arguments[0][1] & re.DOTALL:
        return True
    if code is constants.RANGE:
        low, high = arguments[0]
        return bool(low <= NEWLINE <= high)
    return any(map(_takes_newline, _flat(arguments)))


_WITHOUT_NEWLINE = (constants.CATEGORY_DIGIT, constants.CATEGORY_WORD, constants.CATEGORY_NOT_SPACE)


def _flat(arguments: Iterable[Any]) -> Iterable[Any]:
    for argument in arguments:
        if (
            isinstance(argument, tuple)
            and argument
            and not isinstance(argument[0], constants._NamedIntConstant)
        ):
            yield from _flat(argument)
        else:
            yield argument
