"""Matches written as expressions: they mean mappings, and a mistake is told with its character."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logroute.config.load import load_config
from logroute.config.problems import ConfigError
from logroute.router.match import Match, MatchError
from logroute.router.position import BEGINNING
from logroute.router.record import Batch, DetailedRecord, Origin
from logroute.router.selection import Chooser

WEB = Origin("1" * 64, "web-1", labels={"audit": "true", "odd key": "x"})


@pytest.mark.parametrize(
    ("expression", "mapping"),
    [
        (
            'container ~ "web-*" and level >= warn and fields.status >= 500',
            {"container": "web-*", "level": ">=warn", "fields.status": ">=500"},
        ),
        ("container = web or container = api", {"any": [{"container": "web"}, {"container": "api"}]}),
        # `and` binds more tightly.
        (
            "stream = stderr or level >= warn and image ~ web:*",
            {"any": [{"stream": "stderr"}, {"level": ">=warn", "image": "web:*"}]},
        ),
        (
            "(stream = stderr || level >= warn) && !(image ~ 'web:*')",
            {
                "all": [
                    {"any": [{"stream": "stderr"}, {"level": ">=warn"}]},
                    {"not": {"image": "web:*"}},
                ]
            },
        ),
        ("message ~ /time\\/d? (out|off)/i", {"message": "/time\\/d? (out|off)/i"}),
        ("fields.path ~ /api/v1 and level > info", {"fields.path": "/api/v1", "level": ">info"}),
        ('image in [nginx, "api:*"]', {"image": ["nginx", "api:*"]}),
        ("container not in [a]", {"container": "*", "not": {"container": ["a"]}}),
        ("label.audit", {"label.audit": "*"}),
        ('"label.odd key" = "x y"', {"label.odd key": "x y"}),
        ("NOT level != Warn", {"not": {"level": "!=Warn"}}),
        ("time >= 2026-11-23T20:06:26Z", {"time": ">=2026-11-23T20:06:26Z"}),
        ("time = 2026-11-23", {"time": "==2026-11-23"}),
        ("fields.n = 500", {"fields.n": 500}),
        ('fields.n = "500"', {"fields.n": "500"}),
        ('fields.n = "*[?]"', {"fields.n": "[*][[][?]]"}),
        ('fields.n = ">=5"', {"fields.n": "/^>=5$/"}),
        ('fields.n = "/a/"', {"fields.n": "/^/a/$/"}),
        (r'fields.n = "say \"a\\b\""', {"fields.n": 'say "a\\b"'}),
        ("fields.n != 3", {"fields.n": "*", "not": {"fields.n": 3}}),
    ],
)
def test_it_means_a_mapping(expression: str, mapping: dict[str, Any]) -> None:
    assert Match.parse(expression).to_value() == Match.parse(mapping).to_value()


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("", "at character 1: expected a path such as container or fields.status, but this is the end"),
        ("container ~", 'at character 12: expected a value such as warn, 500, "web-*" or'),
        (
            "container ~ [a, b]",
            "at character 13: expected one value; a list of them stands behind `in`, not '['",
        ),
        ("container web", "at character 11: expected one of ~ !~ = != >= > <= < in, not 'web'"),
        ("a = 1 b = 2", "at character 7: expected 'and', 'or' or the end, not 'b'"),
        ("(label.a = 1", "at character 13: expected ')' for the '(' at character 1, 'and' or 'or'"),
        ("label.a = 'x", "at character 11: a quote that is not closed"),
        ("label.a = x & label.b = y", "at character 13: an odd '&'"),
        ("label.a in web", "at character 12: expected a list such as [web, api], not 'web'"),
        ("label.a in [web", "at character 16: expected ',' or ']', but this is the end"),
        ("container = web-*", "at character 13: '=' takes this very text: write ~ for a glob"),
        ("label.a and levle >= warn", 'at character 13: unknown condition "levle"; did you mean "level"?'),
        ("label.a and level >= wran", 'at character 22: there is no level "wran"; did you mean "warn"?'),
        ("label.a or stream in [stdout, stdin]", "at character 31: there is no stream 'stdin'"),
        ("message ~ /(a/", "at character 11: "),
        ("message ~ /a/x", "at character 14: there is no flag 'x': a regex ends with '/', '/i' or '/p'"),
        ("level = warn or message !~ /a/ig", "at character 32: there is no flag 'g'"),
        ("fields.n > x", "at character 12: "),
        ("not " * 40 + "label.a", "nested too deeply"),
        ("(" * 40 + "label.a" + ")" * 40, "nested too deeply"),
    ],
)
def test_a_mistake_is_told_with_its_character(expression: str, says: str) -> None:
    with pytest.raises(MatchError) as raised:
        Match.parse(expression)
    assert says in str(raised.value)


def test_all_mistakes_are_told() -> None:
    with pytest.raises(MatchError) as raised:
        Match.parse("levle > warn and streem = stderr")
    assert [str(mistake)[:16] for mistake in raised.value.mistakes] == [
        "at character 1: ",
        "at character 18:",
    ]


@pytest.mark.parametrize(
    ("expression", "level", "fields", "taken"),
    [
        ("fields.a != x", None, {"a": "y"}, True),
        ("fields.a != x", None, {"a": "x"}, False),
        ("fields.a != x", None, {}, False),
        ("fields.a !~ x*", None, {"a": "xy"}, False),
        ("fields.a !~ x*", None, {}, False),
        ("not fields.a = x", None, {}, True),
        ("level != warn", None, {}, True),
        ("level != info", None, {}, False),
        ("level not in [warn, error]", "error", {}, False),
        ("level not in [warn, error]", None, {}, True),
        ("fields.a not in [1, 2]", None, {"a": 3}, True),
        ("fields.a not in [1, 2]", None, {"a": 2}, False),
    ],
)
def test_a_comparison_with_what_is_absent_is_false(
    expression: str, level: str | None, fields: dict[str, Any], taken: bool
) -> None:
    record = DetailedRecord("text", "stdout", "2026-11-23T20:06:26Z", level=level, fields=fields)
    batch = Batch(WEB, [record], before=BEGINNING, after=BEGINNING, size_bytes=100, ready=True)
    mask = Chooser(Match.parse(expression)).mask(batch)
    assert (mask is None or bool(mask)) is taken


@given(st.text(st.sampled_from("ab.=~!<>()[],\"'/\\ *1&|") | st.characters(), max_size=40))
def test_any_text_is_a_match_or_a_mistake(text: str) -> None:
    try:
        match = Match.parse(text)
    except MatchError as error:
        mistake = str(error)
    else:
        assert Match.parse(match.to_value()) == match
        return
    assert mistake.startswith("at character ")


def test_a_configuration_may_have_either(tmp_path: Path) -> None:
    file = tmp_path / "logroute.yaml"
    file.write_text('routes:\n  a:\n    match: container ~ "web-*" and levle = warn\n    sink: "null:"\n')
    with pytest.raises(ConfigError) as raised:
        load_config(file)
    assert f"{file}:3:5: routes.a.match: at character 25: unknown condition" in str(raised.value)
    file.write_text('routes:\n  a:\n    match: container ~ "web-*"\n    sink: "null:"\n')
    assert load_config(file).config.routes["a"].match == Match.parse({"container": "web-*"})
