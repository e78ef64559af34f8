"""Levels: by fields, by text, and where nobody knows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logroute.processors import _level_text
from logroute.processors._level_text import _CAPITALS, FEW, LevelText
from logroute.router.levels import LEVELS, NAMES
from tests.processors.conftest import Apply, batch, made, record

LEVEL = made("level")


def level(line: str) -> str | None:
    [found] = LEVEL.apply(batch(record(line))).records  # type: ignore[union-attr]
    return found.level


@pytest.mark.parametrize(
    ("line", "said"),
    [
        # at the beginning
        ("ERROR no", "error"),
        ("error: no", "error"),
        ("Error while connecting", "error"),
        ("[warn] slow", "warn"),
        ("<Info> x", "info"),
        ("2026-11-23 20:06:26,123 WARN  [main] ERROR in its name", "warn"),
        ("2026-11-23T20:06:26.123Z\tinfo\tserver.go:7\tup", "info"),
        ("2026-11-23T20:06:26.123+01:00 debug x", "debug"),
        ("[2026-11-23T20:06:26Z INFO  shop::cart] x", "info"),
        ("2026/11/23 20:06:26 [crit] 31#32: x", "fatal"),
        ("2026-11-23 20:06:26.123 UTC ERROR x", "error"),
        ("12:03:04 | DEBUG | x", "debug"),
        ("\x1b[32mINFO\x1b[0m[0000] up", "info"),
        ("\x1b[90m8:06PM\x1b[0m \x1b[32mINF\x1b[0m up", "info"),
        ("E1123 20:06:26.123456       1 a.go:1] info", "error"),
        ("W1123 20:06:26.1 ", "warn"),
        ("dbug: Microsoft.Hosting[0]", "debug"),
        ("fail: Microsoft.Hosting[0]", "error"),
        ("panic: runtime error", "fatal"),
        ("ERROR:root:x", "error"),
        ("ERRO[0000] no such file", "error"),  # logrus
        ("\x1b[31mFATA\x1b[0m[12345] no such file", "fatal"),
        ("PANI[0000] x", "fatal"),
        ("DEBU[0001] x error=ERROR", "debug"),
        ("ERRO: x", None),
        ('[2026-11-23 20:06:26] production.ERROR: no {"level":"x"}', "error"),  # Laravel
        ("[2026-11-23T20:06:26.123456+00:00] app.EMERGENCY: x [] []", "fatal"),  # Monolog
        ("[2026-11-23 20:06:26] my-channel.WARNING: x", "warn"),
        ("[2026-11-23 20:06:26] see docs.ERROR: x", None),
        ("production.ERROR: x", None),
        ("PHP Fatal error:  Uncaught Exception: no in /app/x.php:1", "fatal"),
        ("PHP Warning:  Undefined variable $x", "warn"),
        ("PHP Parse error:  syntax error", "error"),
        ("PHP Notice:  x", "notice"),
        ("PHP Deprecated:  x", "info"),
        ("[23-Nov-2026 20:06:26 Europe/Berlin] PHP Fatal error:  x", "fatal"),
        ("PHP Fatal errors: 0", None),
        # by a key
        ("time=x level=warning msg=ERROR", "warn"),
        ('{"lvl": "err", broken', "error"),
        ("x severity=CRITICAL", "fatal"),
        # between brackets
        ("main [ERROR] x", "error"),
        ("I, [2026-11-23T20:06:26 #1]  (warn) x", "warn"),
        ("2026-11-23 20:06:26 | x | INFO     | y", "info"),
        ("[Mon Nov 23 20:06:25.123456 2026] [core:trace3] [pid 7:tid 9] x", "trace"),  # Apache
        ("[Mon Nov 23 20:06:25.123456 2026] [mpm_event:notice] [pid 7:tid 9] AH1: x", "notice"),
        ("[Mon Nov 23 20:06:25.123456 2026] [proxy_http:error] [pid 7] AH1: x", "error"),
        ("see [http://x:error]", None),
        # in capitals
        ("2026-11-23 20:06:26 [main] ERROR c.Foo - info", "error"),
        ("2026-11-23 20:06:26,1 - name - WARNING - x", "warn"),
        ("2026-11-23 20:06:26.123 UTC [42] LOG:  ready", "info"),
        ("é WARN: ü", "warn"),
        # by none
        ("hello", None),
        ("", None),
        ("info about us", None),
        ("Information is free", None),
        ("an error occurred", None),
        ("/var/log/ERROR.txt", None),
        ("NO_ERROR", None),
        ("ERRORS: 0", None),
        ("INFORMATION_SCHEMA", None),
        ("x" * 300 + " ERROR ", None),
        # by two of one tier, though a further one would know
        ("set [ERROR] to [DEBUG]: WARN", None),
        ("x ERROR or WARN", None),
        ("level=info level=error", None),
        # by two that are one
        ("x ERROR y ERR z", "error"),
    ],
)
def test_levels_by_text(line: str, said: str | None) -> None:
    assert level(line) == said


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"level": "WARN"}, "warn"),
        ({"severity": "err"}, "error"),
        ({"log": {"level": "debug"}}, "debug"),
        ({"level": 50}, "error"),
        ({"@l": "Error"}, "error"),
        ({"levelname": "ERROR"}, "error"),
        ({"level": "loud", "severity": "info"}, "info"),
        ({"level": "loud"}, "fatal"),
        ({"x": "error"}, "fatal"),
        ({}, "fatal"),
    ],
)
def test_fields_come_first(fields: dict[str, Any], said: str, apply: Apply) -> None:
    [found] = apply("level", record("FATAL x", fields=dict(fields)))
    assert (found.level, found.fields) == (said, fields)


def test_which_fields_and_whether_the_text_can_be_said(apply: Apply) -> None:
    given_ = record("ERROR", fields={"a": {"b": "warn"}, "level": "info"})
    assert apply("level", given_, fields=["a.b"])[0].level == "warn"
    assert apply("level", record("ERROR"), text=False)[0].level is None


def test_a_level_that_is_there_stays(apply: Apply) -> None:
    assert apply("level", record("ERROR", level="debug", fields={"level": "info"}))[0].level == "debug"


TOGETHER, ALONE = LevelText(), LevelText()
PIECES = [
    "ERROR",
    "warn",
    "[info]",
    "level=",
    "debug",
    " ",
    ": ",
    "2026-11-23",
    "x",
    "\n",
    "é",
    "|",
    "FATAL",
    "\x1b[1m",
]


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), max_size=60))
def test_what_is_found_does_not_depend_on_the_other_lines(lines: list[str]) -> None:
    for _ in range(2):
        assert TOGETHER.levels(lines) == [ALONE.levels([line])[0] for line in lines]


WORDS = ["INFO", "WARN", "ERROR", "LOG", "info", "INFO:", "x", "", "INFORMATION", "INFO\n"]
BEFORE = [
    "[worker-3] ",
    "info: ",
    "12:03:04 warn ",
    "E1123 20:06:26.1 ",
    "[2026-11-23 20:06:26] a.ERROR: ",
    "worker ",
    "level= ",
    "[ ",
    "x [",
    "a\t",
    "| ",
    "x\n",
    "é ",
]
BEHIND = [
    " x",
    "",
    " ]",
    " ERROR",
    " WARNING",
    " level=warn",
    " [error]",
    ' "lvl":"debug"',
    " x\nERROR",
    " | x",
]
LINE = st.tuples(*map(st.sampled_from, (BEFORE, WORDS, BEHIND))).map("".join)


@given(usual=st.tuples(*map(st.sampled_from, (BEFORE, WORDS, BEHIND))), others=st.lists(LINE, max_size=8))
def test_a_level_in_its_usual_place_is_what_the_line_alone_says(
    usual: tuple[str, str, str], others: list[str]
) -> None:
    before, _, behind = usual
    lines = [f"{before}{each}{behind}" for each in WORDS[:3] * 6] + ["".join(usual)] * FEW + others
    assert TOGETHER.levels(lines) == [ALONE.levels([line])[0] for line in lines]


TIMES = [
    "2026-11-23 20:06:26.{:03d} ",
    "[{:08d}] ",
    "2026-11-23T20:06:26.{:03d}Z ",
    "{:02d}:04 UTC | ",
    "<{:02d}>\t",
]
AT_TIMES = [
    *WORDS,
    "WARNING",
    "warn:",
    "ERR,",
    "FATAL",
    "INF",
    "INFOx",
    "T12",
    "12",
    " INFO",
    "trace1",
    "É",
    "ERROR\u2028",
]


@given(
    time=st.sampled_from(TIMES),
    words=st.lists(st.sampled_from(AT_TIMES), min_size=1, max_size=9),
    behind=st.sampled_from([*BEHIND, "", "!", "x", "[0000]", " at 12:03 ERROR"]),
    others=st.lists(LINE, max_size=2),
)
def test_a_level_behind_a_time_is_what_the_line_alone_says(
    time: str, words: list[str], behind: str, others: list[str]
) -> None:
    lines = [time.format(n % 100) + words[n % len(words)] + behind for n in range(2 * FEW)] + others
    assert TOGETHER.levels(lines) == [ALONE.levels([line])[0] for line in lines]


def test_lines_with_a_level_behind_a_time_are_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    alone: list[str] = []
    at_beginning = _level_text.level_at_beginning
    monkeypatch.setattr(
        _level_text, "level_at_beginning", lambda line: alone.append(line) or at_beginning(line)
    )
    lines = [
        f"2026-11-23 20:06:26.{n:03d} {('INFO ', 'WARN ', 'error')[n % 3]} order {n}" for n in range(9 * FEW)
    ]
    assert LevelText().levels(lines) == ["info", "warn", "error"] * (3 * FEW)
    assert len(alone) == 3


def test_lines_with_a_level_in_its_usual_place_are_looked_at_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    further: list[str] = []
    text = LevelText()
    monkeypatch.setattr(text, "_further", lambda heads: further.extend(heads) or [None] * len(heads))
    lines = [f"[worker-{number}] {word} x" for number in range(FEW) for word in WORDS[:4]]
    odd = ["[worker-3] INFO is no ERROR", "[worker-3] and others", "x level=info"]
    assert text.levels([*lines, *odd]) == [*(["info", "warn", "error", "info"] * FEW), None, None, None]
    assert further == odd


def test_names_of_levels_mean_the_same_everywhere() -> None:
    """So it does not matter which tier says it."""
    assert {word: NAMES.get(word.lower(), level) for word, level in _CAPITALS.items()} == _CAPITALS


@given(st.text() | st.binary().map(lambda data: data.decode("utf-8", "replace")))
def test_whatever_comes_there_is_a_level_or_none(line: str) -> None:
    assert level(line) in (None, *LEVELS)


def test_a_megabyte_that_almost_says_one_is_no_harm() -> None:
    for line in (
        "[" * (1 << 20),
        "1" * (1 << 20),
        "\x1b[1m" * 250_000,
        "level=" * 170_000,
        " ERROR" * 170_000,
    ):
        assert level(line) in (None, "error")
