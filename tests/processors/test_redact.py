"""Redacting: what is found, what is not, and that nothing of it is left anywhere."""

from __future__ import annotations

import json
import re
import time
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec
import pytest
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from structlog.testing import capture_logs

from logroute.processors import Processor
from logroute.processors._linear import far
from logroute.processors._sensitive import luhn, mod_97, sensitive
from logroute.processors.redact import GAVE_UP, RedactOptions, RedactProcessor
from logroute.router.chain import WITHHELD, Stage, StagePlan
from logroute.router.match import EVERYTHING
from logroute.router.position import BEGINNING
from logroute.router.record import Batch, DetailedRecord, Record
from logroute.sinks.record_json import encode_json
from tests.processors.conftest import TIME, WEB, Apply, batch, made, record

ALL = ["card", "iban", "email", "ip", "bearer", "aws", "jwt"]
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
KEY = "sixteen characters"


def redacted(text: str, **options: Any) -> str:
    """The message as it goes on."""
    [found] = made("redact", **{"kinds": ALL, **options}).apply(batch(record(text))).records  # type: ignore[union-attr]
    return found.message


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("paid with 4111111111111111.", "paid with [card]."),
        ("4111 1111 1111 1111 and 4111-1111-1111-1111", "[card] and [card]"),
        ("4111 1111 1111 1111 1000 EUR", "[card] 1000 EUR"),
        ("4111 1111 1111 1111 250 EUR", "[card] 250 EUR"),
        ("card=4111-1111-1111-1111 123 exp 12/27", "card=[card] 123 exp 12/27"),
        ("4111 1111 1111 1111 5105 1051 0510 5100", "[card] [card]"),
        ("5678 4111 1111 1111 1111", "5678 [card]"),
        ("6304 0000 0000 0000 018", "[card]"),
        ("amex 3782 822463 10005", "amex [card]"),
        ("card=378282246310005,", "card=[card],"),
        ("\x1b[32m5555555555554444\x1b[0m", "\x1b[32m[card]\x1b[0m"),
        ("to DE89 3704 0044 0532 0130 00 for rent", "to [iban] for rent"),
        ("to DE89370400440532013000 FOR RENT", "to [iban] FOR RENT"),
        ("GB82WEST12345698765432", "[iban]"),
        ("ada.lovelace+logs@mail.example.co.uk logged in", "[email] logged in"),
        ("<ada@example.com> mail=ada@example.com", "<[email]> mail=[email]"),
        ("/login?email=ada%40example.com&x=1", "/login?email=[email]&x=1"),
        ("to de89370400440532013000,", "to [iban],"),
        ("/pay?iban=gb82west12345698765432", "/pay?iban=[iban]"),
        ("_de89 3704 0044 0532 0130 00 for rent", "_[iban] for rent"),
        ("client:::1 and ::1, fe80::1", "client:[ip] and [ip], [ip]"),
        ("on ::ffff:10.0.0.1 and [::]:80", "on [ip] and [::]:80"),
        ("from 10.0.0.1:8080", "from [ip]:8080"),
        ("from 10.0.0.1.", "from [ip]."),
        ("[2001:db8::1]:443 and ::1 and fe80::1%eth0", "[[ip]]:443 and [ip] and [ip]%eth0"),
        ("client:2001:db8::1: refused", "client:[ip]: refused"),
        ("2001:0db8:85a3:0000:0000:8a2e:0370:7334", "[ip]"),
        ("::ffff:192.0.2.1", "[ip]"),
        ("Authorization: Bearer abcDEF123-._~+/==", "Authorization: Bearer [bearer]"),
        (f"Authorization: bearer {JWT}", "Authorization: bearer [bearer]"),
        (f"token={JWT};", "token=[jwt];"),
        (f"token=eyJunk-{JWT};", "token=eyJunk-[jwt];"),
        (f"token={'eyJunk' * 100}.a.b;", "token=[jwt];"),
        ("key AKIAIOSFODNN7EXAMPLE", "key [aws]"),
        (f'"SecretAccessKey": "{SECRET}"', '"SecretAccessKey": "[aws]"'),
        (f"aws_secret_access_key = {SECRET}", "aws_secret_access_key = [aws]"),
        ("ünïcode ada@example.com ünïcode 10.1.2.3", "ünïcode [email] ünïcode [ip]"),
        ("half \ud800 ada@example.com", "half ? [email]"),
        (r'{"a":"to\nDE89 3704 0044 0532 0130 00"}', r'{"a":"to\n[iban]"}'),
        (r'{"a":"by\tAKIAIOSFODNN7EXAMPLE, \n2001:db8::1"}', r'{"a":"by\t[aws], \n[ip]"}'),
        (r'{"a":"\u003cDE89370400440532013000\u003e"}', r'{"a":"\u003c[iban]\u003e"}'),
        (r'{"a":"\u003cada@example.com\u003e\nnina@example.com"}', r'{"a":"\u003c[email]\u003e\n[email]"}'),
        (r'{"a":"EXAMPLE\\nina@example.com"}', r'{"a":"EXAMPLE\\[email]"}'),
        (r"EXAMPLE\nina@example.com", r"EXAMPLE\[email]"),
        (r'{"a":"Bearer abcDEF12\/3-._~+\/==","b":"c"}', '{"a":"Bearer [bearer]","b":"c"}'),
        (json.dumps({"SecretAccessKey": SECRET}).replace("/", r"\/"), '{"SecretAccessKey": "[aws]"}'),
    ],
)
def test_what_is_sensitive_is_masked(said: str, left: str) -> None:
    assert redacted(said) == left


@pytest.mark.parametrize(
    "said",
    [
        "4111111111111112",  # the check digit is wrong
        "1763900000123456782",  # a time in nanoseconds whose last digit happens to be right
        "0.4111111111111111",
        "94111111111111111111111111111111",
        "2026-11-23 20:06:26 12:30:45",
        "DE88 3704 0044 0532 0130 00",
        "XX89 3704 0044 0532 0130 00",
        "ada@localhost @example.com a@b",
        "256.1.1.1 1.2.3 1.2.3.4.5",
        "de88370400440532013000 xde89370400440532013000 De89370400440532013000",
        "be30a1b2c3d4e5f6 be30a1b2-c3d4-e5f6-a7b8-c9d0e1f2a3b4",  # ids whose check digits happen to be right
        "react%4018.2.0 100%40",
        "tcp6 0 0 :::80 :::* LISTEN",
        ":::443",
        "std::fs::File :: a::z 12:34::zz",
        "bearer authentication failed, bearer of news",
        "AKIAIOSFODNN7EXAMPLEX",
        "eyJhbGciOiJIUzI1NiJ9",
        "eyJrYWxiIjoxfQ0000.a.b",
        "",
        "\ud800",
    ],
)
def test_what_only_looks_like_it_stays(said: str) -> None:
    given = record(said)
    processor = made("redact", kinds=ALL)
    [found] = processor.apply(batch(given)).records  # type: ignore[union-attr]
    assert found is given


def test_check_digits() -> None:
    assert luhn(b"4111 1111 1111 1111")
    assert not luhn(b"4111111111111113")
    assert mod_97(b"GB82WEST12345698765432") == 1 != mod_97(b"GB83WEST12345698765432")


CARD_SHAPES = (r"\d{13,19}", r"(\d{4}[ -]){3}\d{1,4}", r"(\d{4}[ -]){4}\d{3}", r"3\d{3}[ -]\d{6}[ -]\d{4,5}")


def cards_in(text: str) -> set[tuple[int, int]]:
    """From where to where there is a number that may be a card's, by trying all of them."""
    return {
        (start, end)
        for start in range(len(text))
        for end in range(start + 13, min(len(text), start + 23) + 1)
        if any(re.fullmatch(shape, text[start:end]) for shape in CARD_SHAPES)
        and text[start] in "2345689"
        and not text[start - 1 : start].isdigit()
        and not text[end : end + 1].isdigit()
        and luhn(text[start:end].encode())
    }


DIGITS = st.sampled_from(["4111", "1111", "5105", "1051", "0510", "5100", "6304", "3782", "822463", "10005"])
GROUPS = (
    DIGITS | st.integers(0, 9999).map(str) | st.from_regex(r"[2-6][0-9]{3}( [0-9]{4}){3}", fullmatch=True)
)


@given(st.lists(st.tuples(GROUPS, st.sampled_from([" ", " ", "-", "", ", "])), max_size=12))
def test_no_card_stays_and_nothing_else_goes(parts: list[tuple[str, str]]) -> None:
    text = "".join(group + behind for group, behind in parts)
    [card] = sensitive("card")
    spans = [(start, end) for start, end, _ in card.spans(text.encode())]
    cards = cards_in(text)
    assert cards >= set(spans)
    assert all(any(start < until and at < end for at, until in spans) for start, end in cards)


def test_records_that_say_nothing_are_the_same_and_no_record_is_changed() -> None:
    plain, said = Record("plain", "stdout", TIME), Record("ada@example.com", "stderr", TIME)
    processor = made("redact", kinds=["email"])
    found = processor.apply(batch(plain, said, record("x")))
    assert found is not None
    assert found.records[0] is plain
    assert (found.records[1].message, found.records[1].stream, said.message) == (
        "[email]", "stderr", "ada@example.com",
    )  # fmt: skip


def test_lines_as_the_source_gave_them_are_redacted_as_records_are() -> None:
    times = [f"2026-11-23T20:06:26.{digits}Z" for digits in ("1", "12", "12", "123456789")]
    said = ["plain", "ada@example.com", "", "10.0.0.1"]

    def read(ready: bool) -> Batch:
        lines = [Record(f"{text}\n", "stdout", time) for text, time in zip(said, times, strict=True)]
        given = Batch(WEB, lines, before=BEGINNING, after=BEGINNING, size_bytes=100, newlines=True)
        assert not ready or given.records
        return given

    processor = made("redact", kinds=ALL, patterns=["^$"])
    found = [processor.apply(read(ready)) for ready in (True, False)]
    assert [each.newlines for each in found if each] == [False, True]
    ready, lines = [each.records for each in found if each]
    assert ready == lines
    assert [each.message for each in lines] == ["plain", "[email]", "", "[ip]"]
    assert [each.sequence for each in lines] == [0, 0, 1, 0]
    assert [len(each.time) for each in lines] == [len(TIME)] * 4


def test_fields_are_redacted_however_deep_and_those_of_others_are_not_changed(apply: Apply) -> None:
    fields = {
        "user": {"mail": "ada@example.com", "ok": True, "n": 7},
        "cards": [{"number": 4111111111111111}, {"number": 4111111111111111.0, "n": 0.5}, "x"],
        "plain": {"a": "b"},
    }
    given = record("hello", fields=fields, level="info", sequence=3)
    [found] = apply("redact", given, kinds=["email", "card"])
    assert found.fields == {
        "user": {"mail": "[email]", "ok": True, "n": 7},
        "cards": [{"number": "[card]"}, {"number": "[card].0", "n": 0.5}, "x"],
        "plain": {"a": "b"},
    }
    assert (found.message, found.level, found.sequence) == ("hello", "info", 3)
    assert given.fields is fields
    assert fields["cards"][0] == {"number": 4111111111111111}  # type: ignore[index]
    assert found.fields["plain"] is fields["plain"]


def test_what_is_deeper_than_anybody_nests_is_one_text(apply: Apply) -> None:
    for depth in (60, 64, 65, 900):
        value = json.loads('{"a":' * depth + '"ada@example.com"' + "}" * depth)
        [found] = apply("redact", record(fields={"x": value, "y": 1}), kinds=["email"])
        text = json.dumps(found.fields)
        assert "ada" not in text
        assert "[email]" in text


class Mail(msgspec.Struct):
    address: str


@pytest.mark.parametrize(
    "value",
    [{"ada@example.com"}, Mail("ada@example.com"), ValueError("ada@example.com"), Decimal(4111111111111111)],
)
@pytest.mark.parametrize("depth", [0, 63, 64, 70])
def test_what_a_function_has_put_into_fields_is_looked_at_as_sinks_write_it(
    value: object, depth: int, apply: Apply
) -> None:
    fields: dict[str, Any] = {"a": value, "same": Decimal(1)}
    for _ in range(depth):
        fields = {"a": fields}
    [found] = apply("redact", record(fields=fields), kinds=["email", "card"])
    written = encode_json(WEB, [found])
    assert b"[email]" in written or b"[card]" in written
    assert b"ada" not in written
    assert b"4111" not in written


def test_message_and_fields_of_one_record(apply: Apply) -> None:
    [found] = apply("redact", record("ada@example.com", fields={"a": "10.0.0.1"}), kinds=["email", "ip"])
    assert (found.message, found.fields) == ("[email]", {"a": "[ip]"})


@pytest.mark.parametrize("more", [{}, {"fields": {"a": 1}}, {"fields": {"a": "b@example.com"}}])
def test_what_an_error_quotes_is_redacted_too(more: dict[str, Any], apply: Apply) -> None:
    given = record("hello", error="a: 'ada@example.com' is nobody", **more)
    [other, found] = apply("redact", record("ada"), given, kinds=["email"])
    assert (found.error, found.message, other.message) == ("a: '[email]' is nobody", "hello", "ada")
    assert given.error == "a: 'ada@example.com' is nobody"
    assert "example" not in json.dumps(found.fields)


@pytest.mark.parametrize(
    ("type_", "options", "line"),
    [
        ("csv", {"columns": ["u:int", "v"]}, "{},x"),
        ("logfmt", {"types": {"u": "float"}}, 'u="{}" v=x'),
        ("key_value", {"types": {"u": "bool"}, "between": ";"}, "u={};v=x"),
        ("regex", {"pattern": "^(?P<u:int>.*)$"}, "{}"),
        ("timestamp", {"field": "u"}, "{}"),
    ],
)
@pytest.mark.parametrize(
    "said", ["4111 1111 1111 1111", "a text that is longer than marks are 4111111111111111"]
)
def test_a_parser_leaves_no_copy_in_the_mark_of_what_it_cannot_take(
    type_: str, options: dict[str, Any], line: str, said: str, apply: Apply
) -> None:
    [parsed] = apply(type_, record(line.format(said), fields={"u": said}), **options)
    [found] = apply("redact", parsed, kinds=["card"])
    assert found.error
    assert "1111" not in encode_json(WEB, [found]).decode()


@pytest.mark.parametrize(
    ("patterns", "said", "left"),
    [
        (["secret"], "a secret", "a [redacted]"),
        (["(?i)password=(\\S+)"], "Password=hunter2 x password=", "Password=[redacted] x password="),
        (["user (\\w+) from (\\w+)"], "user ada from here", "user [redacted] from [redacted]"),
        (["user (\\w+)( from \\w+)?"], "user ada", "user [redacted]"),
        (["é+"], "caféé!", "caf[redacted]!"),
        (["b+", "abb"], "xabbbx", "x[redacted]x"),
        (["x*"], "yxxy", "y[redacted]y"),
        (["^\\S+"], "ada logs in", "[redacted] logs in"),
        (["secret=.*"], "secret=\ud800ab", "[redacted]"),
        (["pin=[[:digit:]]{,6}"], "pin=4711", "[redacted]"),
    ],
)
def test_patterns_of_ones_own(patterns: list[str], said: str, left: str) -> None:
    assert redacted(said, kinds=[], patterns=patterns) == left


FAR = "key.*end|key"
"""Of every `key` it is only known what it is where no `end` follows, at the end of the line."""


def test_a_pattern_that_always_looks_far_gives_up_where_that_would_take_long() -> None:
    processor = made("redact", patterns=[FAR])
    text = "key 1 " * 200_000
    given = record(text), record(f"{text}end"), record("key 1 " * 500)
    [cut, whole, short] = processor.apply(batch(*given)).records  # type: ignore[union-attr]
    assert re.fullmatch(r"(\[redacted\] 1 )+\[redacted\](\[redacted\])?", cut.message)
    assert isinstance(cut, DetailedRecord)
    assert cut.error == GAVE_UP
    # What one look tells, and what is short, are what they always were.
    assert (whole.message, short.message) == ("[redacted]", "[redacted] 1 " * 500)
    assert [each.error for each in (whole, short) if isinstance(each, DetailedRecord)] == ["", ""]
    assert processor.books.failed == 1
    # Reading again gives the same.
    assert processor.apply(batch(record(text))).records[0].message == cut.message  # type: ignore[union-attr]


def test_it_gives_up_in_fields_and_lines_too_and_counts_a_record_once() -> None:
    processor = made("redact", patterns=[FAR], **{"with": "remove"})
    text = "key 1 " * 200_000
    [found] = processor.apply(batch(record(text, fields={"a": text, "b": ["key"]}))).records  # type: ignore[union-attr]
    assert isinstance(found, DetailedRecord)
    assert found.fields is not None
    assert found.message == found.fields["a"]
    assert found.message.endswith(" 1 [redacted]")
    assert "key" not in found.message
    assert (found.fields["b"], found.error) == ([""], GAVE_UP)
    assert processor.books.failed == 1
    line = Record(f"{text}\n", "stdout", TIME)
    out = processor.apply(
        Batch(WEB, [line], before=BEGINNING, after=BEGINNING, size_bytes=100, newlines=True)
    )
    assert out is not None
    assert [each.message for each in out.records] == [found.message]


def test_what_a_batch_that_failed_has_given_up_marks_no_record_of_the_next() -> None:
    processor = made("redact", patterns=[FAR])
    looked_for = processor._redacted  # type: ignore[attr-defined]

    def fails_behind_it(text: str, sensitive: Any) -> str:
        if len(text) > 100_000:
            looked_for(text, sensitive)
            raise ZeroDivisionError
        return str(looked_for(text, sensitive))

    processor._redacted = fails_behind_it  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        processor.apply(batch(record("key 1 " * 200_000)))
    [found] = processor.apply(batch(record("key"))).records  # type: ignore[union-attr]
    assert (found.message, found.error, processor.books.failed) == ("[redacted]", "", 0)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "pattern",
    [
        *(r"(?i)password=(\S+)", "password=.*?&", "password=[^&]*&", "key.{0,200}end|key", "secret=.*"),
        *(r'"password":\s*"[^"]*"', "token=(.*?)&user=(.*?);", r"(a|ab)c(\w*)"),
    ],
)
def test_patterns_that_find_without_looking_further_never_give_up(pattern: str) -> None:
    assert far(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "ends"),
    [
        (FAR, "\n"),
        ("key[[:print:][:cntrl:][:^ascii:]]*end|key", ""),
        ("key[[:^space:]]*end|key", "\t\n\v\f\r "),
        # The sign of Kelvin is a `k` in another case.
        ("(?i)key[ -j\0-\x1f\x7f[:punct:]k-z]*end|key", ""),
        (r"\S+@\S+", "\t\n\v\f\r "),
        ("key[^x]*x|key", ""),
        ("(?s)key.*end|key", ""),
        ("key(?:.*end)?", "\n"),
        ("(?i:key.*end)|key", ""),
        (r"\pL+x", ""),
    ],
)
def test_the_others_look_no_further_than_to_what_none_of_it_can_be(pattern: str, ends: str) -> None:
    found = far(pattern)
    assert found is not None
    assert [each for each in map(chr, range(256)) if found.match(each.encode("latin-1"))] == sorted(ends)
    assert found.search(b"x" * 100).start() == 100  # type: ignore[union-attr]


def test_what_overlaps_is_gone_once_and_whole() -> None:
    assert redacted("mail=ada@example.com;", patterns=["mail=[^@]*", "com;"]) == "[redacted]"


def test_it_can_be_taken_out() -> None:
    assert redacted("from 10.0.0.1: ok", **{"with": "remove"}) == "from : ok"


def test_hashes_are_the_same_for_the_same_value_and_depend_on_the_key() -> None:
    one = redacted("4111111111111111", **{"with": "hash", "key": KEY})
    assert redacted("4111 1111 1111 1111", **{"with": "hash", "key": KEY}) == one
    assert len(one) == len("[card:0123456789abcdef]")
    assert redacted("5555555555554444", **{"with": "hash", "key": KEY}) != one
    for said, other in (
        ("ada@example.com", "ada%40example.com"),
        ("DE89 3704 0044 0532 0130 00", "de89370400440532013000"),
        ("Bearer abcDEF12/3-", r"Bearer abcDEF12\/3-"),
    ):
        assert redacted(said, **{"with": "hash", "key": KEY}) == redacted(
            other, **{"with": "hash", "key": KEY}
        )
    assert redacted("4111111111111111", **{"with": "hash", "key": KEY + "x"}) != one


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "nothing is looked for"),
        ({"kinds": ["crad"]}, "card"),
        ({"kinds": ["card"], "with": "hash"}, "`key` of at least 16"),
        ({"kinds": ["card"], "with": "hash", "key": "short-secret"}, "`key` of at least 16"),
        ({"kinds": ["card"], "key": "sixteen-characters"}, "only `with: hash` takes a `key`"),
        ({"patterns": ["("]}, "is no regular expression at its character 1"),
        ({"patterns": ["(?<!a)b"]}, "cannot be searched in linear time"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        made("redact", **options)
    assert words in str(caught.value)


def test_the_key_is_never_shown() -> None:
    options = made("redact", kinds=["card"], **{"with": "hash", "key": KEY}).options
    assert KEY not in repr(options)


@lru_cache
def everything() -> Processor[Any]:
    """One for many examples: the patterns are compiled once."""
    return made("redact", kinds=ALL, patterns=["zz+(x?)"])


# Texts that are made of what patterns look for, and of what stands around it.
PIECES = st.sampled_from(
    [
        *(
            "4111111111111111",
            "4111 1111 1111 1111",
            "378282246310005",
            "DE89 3704 0044 0532 0130 00",
            "DE89",
            "de89370400440532013000",
            "%40",
        ),
        *("ada", "@", "example.com", ".", "10.0.0.1", "::1", "2001:db8::", ":", "f", "Bearer ", "abc123-+=="),
        *(
            "AKIAIOSFODNN7EXAMPLE",
            "secret_access_key=",
            SECRET,
            JWT,
            "eyJ",
            " ",
            "-",
            "0",
            "é",
            "\n",
            "\ud800",
        ),
    ]
)
ADDRESSES = st.tuples(st.sampled_from("a9_"), st.text("a9.!#$%&'*+?^_`{|}~-", max_size=2)).map(
    lambda parts: f"{''.join(parts)}@b-c.d9"
)
TEXTS = st.lists(PIECES | ADDRESSES, max_size=8).map("".join) | st.text(max_size=20)


@given(st.lists(TEXTS, max_size=6))
def test_hyperscan_finds_every_text_in_which_there_is_something(texts: list[str]) -> None:
    processor = everything()
    found = processor.apply(batch(*map(record, texts))).records  # type: ignore[union-attr]
    for text, each in zip(texts, found, strict=True):
        [alone] = processor.apply(batch(record("", fields={"a": text}))).records  # type: ignore[union-attr]
        assert (alone.fields or {})["a"] == each.message
        for kind in ALL:
            for one in sensitive(kind):
                if list(one.spans(text.encode("utf-8", "replace"))):
                    assert one.where.found_in(text)


@given(st.text() | st.binary().map(lambda data: data.decode("utf-8", "replace")))
def test_whatever_comes_a_record_goes_on(text: str) -> None:
    [found] = everything().apply(batch(record(text, fields={"a": [text]}))).records  # type: ignore[union-attr]
    assert isinstance(found, DetailedRecord)
    assert encode_json(WEB, [found]).count(b"\n") == 1


@pytest.mark.parametrize(
    "unit",
    [
        *("eyJ", "a@", "1.1.1.", "4111 ", "AA00 ", "::f", "bearer ", "a@a.", "(((", "secretkey=", "2", "::"),
        *("DE89", "AKIA"),
    ],
)
def test_a_mebibyte_that_almost_matches_is_done_soon(unit: str) -> None:
    began = time.process_time()
    for text in ((unit * (1 << 20))[: 1 << 20], unit * 50_000 + ".a.b"):
        assert redacted(text, patterns=["(a+)+b", "((a|b)*c)*d"])
    assert time.process_time() - began < 30


async def test_where_it_fails_nothing_goes_on_that_it_has_not_looked_at(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    options = RedactOptions.model_validate({"kinds": ["email"]})
    stage = Stage(StagePlan("redact", EVERYTHING, lambda: RedactProcessor(options), "redact"))
    monkeypatch.setattr(stage.processor, "_found", fail)
    records: list[Record] = [
        Record("ada@example.com", "stdout", TIME),
        DetailedRecord("b", "stderr", TIME, level="warn", fields={"mail": "b@example.com"}),
    ]
    batch = Batch(WEB, records, before=BEGINNING, after=BEGINNING, size_bytes=100, ready=True)
    with capture_logs() as said:
        made = stage.process(batch)
    assert [(r.message, r.stream, r.time, r.level, r.fields) for r in made.records] == [
        (WITHHELD, "stdout", TIME, None, None),
        (WITHHELD, "stderr", TIME, "warn", None),
    ]
    assert records[0].message == "ada@example.com"  # others hold it, too
    assert (stage.books.failed, stage.books.records_out) == (2, 2)
    assert "withheld" in said[0]["event"]
