"""What `redact` knows by itself: numbers, addresses and tokens, each with what makes it certain to be one.

Each pattern is there twice. `where` is searched by Hyperscan in whole batches, and is found wherever `what`
is; `what` is RE2's, and tells from where to where. What a pattern cannot say (there is no lookaround, and
check digits need sums) a check does.
"""

from __future__ import annotations

import base64
import binascii
import re
import socket
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import msgspec

from logroute.processors._linear import far
from logroute.router.regex import Regex, RegexError, compiled_by_re2

LOOKS = 256
"""So many times in all a text is looked through behind what was found, to know whether that is more: for a
mebibyte a second or less. That depends on the text and on no clock, so reading again gives the same."""

Check = Callable[[bytes, int, int], int]
"""Where what was found in a text from here to there ends in truth; 0: it is none."""


class Sensitive:
    """One thing that is looked for."""

    def __init__(
        self, name: str, where: str, what: str, check: Check | None = None, inside: str = ""
    ) -> None:
        """Where the check finds none, none begins in what `inside` matches there. Raises RegexError."""
        self.name = name
        self.where = Regex(where)
        # What is of a bounded length takes a bounded time in Python, too, and half of it.
        self._what = re.compile(what.encode()) if what in _BOUNDED else _re2(what)
        self._check = check
        self._inside = re.compile(inside.encode(), re.ASCII).match
        self._plain = _PLAIN.get(name, bytes)
        self._groups = range(1, self._what.groups + 1) or (0,)
        self._far = far(what) if check is None else None
        """What ends its looking for more; None if it looks no further than what it finds."""

    @classmethod
    def own(cls, pattern: str) -> Sensitive:
        """A user's pattern. Raises RegexError."""
        return cls("redacted", pattern, pattern)

    def spans(self, data: bytes) -> Iterator[tuple[int, int, bytes | None]]:
        """From where to where something is, and its value, however it was written there.

        None for the rest of a text that it would take too long to look through.
        """
        check, plain, at = self._check, self._plain, 0
        if check is None:
            left, until = LOOKS * len(data), 0
            for found in self._what.finditer(data):
                for start, end in map(found.span, self._groups):
                    if start < end:
                        yield start, end, plain(data[start:end])
                if self._far is not None:
                    at = found.end()
                    if until < at:
                        [until, _] = self._far.search(data, at).span()  # type: ignore[union-attr]
                    left -= until - at
                    if left < 0:
                        yield at, len(data), None
                        return
            return
        while (found := self._what.search(data, at)) is not None:
            start, end = found.span(self._groups[0])
            if (end := check(data, start, end)) > 0:
                yield start, end, plain(data[start:end])
                at = end
            elif (inside := self._inside(data, start)) is not None:  # a line may be nothing but digits
                at = max(start + 1, inside.end())
            else:
                at = start + 1


_PLAIN: dict[str, Callable[[bytes], bytes]] = {
    "card": lambda number: number.translate(None, b" -"),
    "iban": lambda number: number.translate(None, b" -").upper(),
    "email": lambda address: address.replace(b"%40", b"@"),
    "bearer": lambda token: token.replace(b"\\/", b"/"),
    "aws": lambda key: key.replace(b"\\/", b"/"),
}
"""What people write in several ways is one value."""


def _re2(pattern: str) -> Any:
    try:
        return compiled_by_re2(pattern)
    except RegexError as error:
        raise RegexError(f"/{pattern}/ cannot be searched in linear time: {error}") from error


# A line of JSON that nobody has parsed has escapes: `"to\nDE89…"`, `"\u003cada@example.com"`.
_ESCAPED = r"u[0-9A-Fa-f]{4}|[bfnrt]"
_is_escaped = re.compile(_ESCAPED.encode()).match


def _before(data: bytes, start: int) -> bytes:
    """The character before it; of an escape none, as its letters belong to no word."""
    before = data[max(0, start - 1) : start]
    if before.isalnum():
        for length in (1, 5):
            at = start - length
            if (
                data[max(0, at - 1) : at] == b"\\"
                and (found := _is_escaped(data, at))
                and found.end() == start
            ):
                return b""
    return before


def _after(data: bytes, end: int) -> bytes:
    return data[end : end + 1]


# --- cards ----------------------------------------------------------------------------------------------

# By ISO/IEC 7812-1 the first digit is the industry's: 3 travel, 4 and 5 banks, 6 also; 2, 8 and 9 are used by
# national ones. 0, 1 and 7 are nobody's who issues cards; times since 1970 begin with 1.
_CARD = r"[2-689]\d{12,18}|[2-689]\d{3}[ -]\d{4}[ -]\d{4}[ -]\d{1,4}|3\d{3}[ -]\d{6}[ -]\d{4,5}"
# Any digits: to remember which of thirteen places a first one stood at takes an automaton of many states.
_CARD_WHERE = r"\d{13}|\d{4}[ -]\d{4}[ -]\d{4}[ -]\d|\d{4}[ -]\d{6}[ -]\d{4}"


_FOUR_GROUPS = re.compile(rb"(?:\d{4}[ -]){3}\d{4}")
_FIFTH_GROUP = re.compile(rb"[ -]\d{3}(?!\d)")
_OF_NINETEEN = (b"6", b"50", b"56", b"57", b"58")
"""What numbers of 19 digits begin with that are in use: UnionPay's and Maestro's."""


def _is_card(data: bytes, start: int, end: int) -> int:
    # 0.4111111111111111 is a fraction, and 30 digits are something else.
    if _before(data, start).isdigit() or _after(data, end).isdigit():
        return 0
    if _before(data, start) == b"." and data[max(0, start - 2) : start - 1].isdigit():
        return 0
    ends = [end]
    # Three digits behind four groups are the rest of it, or an amount, or what is printed on the back.
    if _FOUR_GROUPS.fullmatch(data, start, end) and (more := _FIFTH_GROUP.match(data, end)):
        ends.insert(0 if data.startswith(_OF_NINETEEN, start) else 1, more.end())
    return next((end for end in ends if luhn(data[start:end])), 0)


_NO_DIGITS = bytes({*range(256)} - {*b"0123456789"})
_AS_NUMBERS = bytes.maketrans(b"0123456789", bytes(range(10)))
_DOUBLED = bytes.maketrans(bytes(range(10)), bytes(sum(divmod(2 * digit, 10)) for digit in range(10)))


def luhn(number: bytes) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    digits = number.translate(_AS_NUMBERS, _NO_DIGITS)[::-1]
    return (sum(digits[0::2]) + sum(digits[1::2].translate(_DOUBLED))) % 10 == 0


# --- accounts -------------------------------------------------------------------------------------------

# Lengths by country: SWIFT's registry of IBAN formats.
_IBAN_LENGTHS = {
    country.encode(): length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}


_COUNTRIES = sorted(country.decode().lower() for country in _IBAN_LENGTHS)
_DIGITS_ONLY = frozenset(
    b"ae at ba be bi cr cz de dj dk ee eg es fi fo gl hr hu il is lt ly me mn mr no pl pt rs sd se si sk so "
    b"st tl tn va xk".split()
)
"""Where the registry has no letters behind the check digits."""
# In small letters they stand in URLs, as hexadecimal numbers do, and UUIDs, which have dashes. Of the ids of
# traces one in a hundred begins with a country of such letters; to name all the others takes many states.
_HEXADECIMAL = "|".join(country for country in _COUNTRIES if set(country) <= set("abcdef"))
_IBAN = (
    r"[A-Z]{2}\d\d(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?"
    rf"|(?:{'|'.join(_COUNTRIES)})\d\d(?: ?[a-z0-9]{{4}}){{2,7}}(?: ?[a-z0-9]{{1,3}})?"
)
_IBAN_WHERE = (
    r"[A-Z]{2}\d\d[ -]?[A-Z0-9]{4}[ -]?[A-Z0-9]{4}"
    rf"|(?:^|[^A-Za-z0-9])(?:[g-z][a-z]|[a-f][g-z]|{_HEXADECIMAL})\d\d ?[a-z0-9]{{4}} ?[a-z0-9]{{4}}"
)


def _is_iban(data: bytes, start: int, end: int) -> int:
    country = data[start : start + 2]
    length = _IBAN_LENGTHS.get(country.upper())
    if length is None or _before(data, start).isalnum():
        return 0
    # What follows it may look like more of it.
    places = [at for at in range(start, end) if data[at] not in b" -"][:length]
    if len(places) < length or _after(data, places[-1] + 1).isalnum():
        return 0
    number = bytes(data[at] for at in places)
    if country in _DIGITS_ONLY and not number[2:].isdigit():
        return 0
    return places[-1] + 1 if mod_97(number) == 1 else 0


def mod_97(iban: bytes) -> int:
    """1 if the check digits are right (ISO 13616-1, ISO/IEC 7064 MOD 97-10)."""
    return int("".join(str(int(chr(character), 36)) for character in iban[4:] + iban[:4])) % 97


# --- addresses ------------------------------------------------------------------------------------------

# RFC 5321, 4.5.3.1: 64 octets before the `@`, 63 a label; the characters are RFC 5322's `atext`, but for `=`
# and `/`, which stand before an address more often than in it.
_ATOM = r"[A-Za-z0-9.!#$%&'*+?^_`{|}~-]"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# In a query the `@` is `%40`.
_EMAIL = rf"[A-Za-z0-9_]{_ATOM}{{0,63}}(?:@|%40)(?:{_LABEL}\.){{1,10}}[A-Za-z][A-Za-z0-9-]{{0,61}}[A-Za-z0-9]"
_EMAIL_WHERE = _ATOM + r"(?:@|%40)[A-Za-z0-9-]+\.[A-Za-z0-9]"


def _is_email(data: bytes, start: int, end: int) -> int:
    """In JSON it begins behind an escape. Elsewhere `EXAMPLE\\nina@example.com` is a user's name."""
    escapes = data[:1] == b"{" and data[max(0, start - 2) : start]
    return 0 if escapes and escapes[-1:] == b"\\" != escapes[-2:-1] and _is_escaped(data, start) else end


_IPV4 = r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}"
_IPV4_WHERE = r"\d\.\d{1,3}\.\d{1,3}\.\d"
_IPV6 = r"(?:[0-9A-Fa-f]{0,4}:){2,7}(?:\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}|[0-9A-Fa-f]{0,4})"
_IPV6_WHERE = r"::|(?:[0-9A-Fa-f]{1,4}:){7}|(?:[0-9A-Fa-f]{1,4}:){6}\d{1,3}\."


def _is_ipv4(data: bytes, start: int, end: int) -> int:
    if _before(data, start) in _DIGITS_AND_DOT or _after(data, end).isdigit():
        return 0
    if _after(data, end) == b"." and _after(data, end + 1).isdigit():
        return 0
    return end if all(int(part) <= 255 for part in data[start:end].split(b".")) else 0


_DIGITS_AND_DOT = frozenset(bytes((character,)) for character in b"0123456789.")


def _is_ipv6(data: bytes, start: int, end: int) -> int:
    if data[end - 1 : end] == b":" != data[end - 2 : end - 1]:
        end -= 1  # `from 2001:db8::1: refused`
    if data.count(b"::", start, end) > 1 or _after(data, end).isalnum() or _before(data, start).isalnum():
        return 0
    text = data[start:end].decode()
    if not text.strip(":"):
        return 0
    # `:::80` is a port of all addresses, as netstat writes it; `client:::1` has an address behind a name.
    if text[:2] == "::" and text[2:].isdecimal() and _before(data, start) == b":":
        return end if start > 1 and data[start - 2 : start - 1].isalnum() else 0
    try:
        socket.inet_pton(socket.AF_INET6, text)
    except OSError:
        return 0
    return end


_BOUNDED = frozenset((_CARD, _IPV4, _IPV6))

# --- tokens ---------------------------------------------------------------------------------------------

# RFC 6750, 2.1: `b64token`.
# In JSON a `/` may be `\/`, as PHP writes it.
_BEARER = r"(?i:bearer)[ \t]{1,8}((?:[A-Za-z0-9._~+/-]|\\/){8,}=*)"
_BEARER_WHERE = r"(?i:bearer)[ \t]{1,8}(?:[A-Za-z0-9._~+/-]|\\/){8}"
_WORDS = re.compile(rb"[A-Za-z]{1,19}(?:[.-][A-Za-z]{0,19})?")


def _is_bearer_token(data: bytes, start: int, end: int) -> int:
    """`bearer authentication failed` has none."""
    return 0 if _WORDS.fullmatch(data, start, end) else end


# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids
_AWS_ID = r"A(?:KIA|SIA|BIA|CCA)[A-Z2-7]{16}"
_AWS_ID_WHERE = r"A(?:KIA|SIA|BIA|CCA)[A-Z2-7]{4}"
_AWS_SECRET = r"(?i:secret_?(?:access_?)?key)[\"'\\ \t:=]{1,17}((?:[A-Za-z0-9/+]|\\/){40})"
_AWS_SECRET_WHERE = r"(?i:secret_?(?:access_?)?key)[\"'\\ \t:=]{1,17}(?:[A-Za-z0-9/+]|\\/){8}"


def _stands_alone(data: bytes, start: int, end: int) -> int:
    return 0 if _before(data, start).isalnum() or _after(data, end).isalnum() else end


# RFC 7519, 3: header, claims, signature (RFC 7516: five parts), base64url; a JSON object begins with `eyJ`.
_JWT = r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){2,4}"
_JWT_WHERE = r"eyJ[A-Za-z0-9_-]{8}"
MOST_BEGINNINGS = 16
"""By chance `eyJ` stands once in 256 KiB of base64url."""


def _is_jwt(data: bytes, start: int, end: int) -> int:
    """Its header says an algorithm (RFC 7515, 4.1.1: `alg` must be present)."""
    header = data[start : data.index(b".", start)]
    # Each of them would be decoded with all that is behind it. One may be a token's, so all of it goes.
    if header.count(b"eyJ") > MOST_BEGINNINGS:
        return end
    try:
        said = msgspec.json.decode(base64.urlsafe_b64decode(header + b"=" * (-len(header) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return 0
    return end if isinstance(said, dict) and "alg" in said else 0


# None begins within a number or a word; an IPv6 address has at most two colons at its beginning.
_NUMBER, _WORD, _NUMBERS = r"\d++", r"[A-Za-z0-9]++", r"[\d.]++"
_IN_IPV6 = rf"{_WORD}|:*(?=::)"

_TABLE: dict[str, tuple[tuple[str, str, Check | None, str], ...]] = {
    "card": ((_CARD_WHERE, _CARD, _is_card, _NUMBER),),
    "iban": ((_IBAN_WHERE, _IBAN, _is_iban, _WORD),),
    "email": ((_EMAIL_WHERE, _EMAIL, _is_email, _ESCAPED),),
    "ip": ((_IPV4_WHERE, _IPV4, _is_ipv4, _NUMBERS), (_IPV6_WHERE, _IPV6, _is_ipv6, _IN_IPV6)),
    "bearer": ((_BEARER_WHERE, _BEARER, _is_bearer_token, ""),),
    "aws": (
        (_AWS_ID_WHERE, _AWS_ID, _stands_alone, _WORD),
        (_AWS_SECRET_WHERE, _AWS_SECRET, _stands_alone, ""),
    ),
    "jwt": ((_JWT_WHERE, _JWT, _is_jwt, ""),),
}


@lru_cache
def sensitive(kind: str) -> tuple[Sensitive, ...]:
    """What is looked for under the name of a kind: compiled once it is used."""
    return tuple(Sensitive(kind, *row) for row in _TABLE[kind])
