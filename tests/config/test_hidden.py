"""What came from files of secrets stands in no text that is shown, however it got there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logroute.config.hidden import KEPT, SHORTEST, Hidden
from logroute.config.load import load_config

TOKEN = ("${file:token}", "S3cr3t/Pass wörd+x")
URL = ("${file:url}", "https://ada:hunter22@Hooks.example.com:8088/services/T0123/B0123?key=S3CRETKEY")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nothing of it", "nothing of it"),
        ("at http://h/S3cr3t/Pass wörd+x: no", "at http://h/${file:token}: no"),
        ("at s3CR3T/PASS WÖRD+X", "at ${file:token}"),
        ("at S3cr3t/Pass%20w%C3%B6rd%2Bx", "at ${file:token}"),
        ("at S3cr3t%2fPass%20w%c3%b6rd%2bx", "at ${file:token}"),
        (r'said "S3cr3t/Pass w\u00f6rd+x"', 'said "${file:token}"'),
        ("answered 404: /S3cr3t/Pass w…", "answered 404: /${file:token}…"),
        ("x…y S3cr3t…z…", "x…y ${file:token}…z…"),
        ("https://hooks.example.com:8088/services/T0123/B0123: GET", "${file:url}: GET"),
        ("https://ada:***@hooks.example.com:8088/services/T0123/B0123?key=…", None),
        ("hooks.example.com: its name cannot be resolved", "${file:url}: its name cannot be resolved"),
        ("no such path /services/T0123/B0123", "no such path ${file:url}"),
        ("user ada, password hunter22, key S3CRETKEY", "user ada, password ${file:url}, key ${file:url}"),
    ],
)
def test_a_value_is_recognised_however_it_is_written(text: str, shown: str | None) -> None:
    found = Hidden([TOKEN, URL]).without(text)
    if shown is None:
        shown = "https://ada:***@${file:url}${file:url}?key=…"
    assert found == shown


def test_lines_of_a_value_are_hidden_one_by_one() -> None:
    hidden = Hidden([("${file:pem}", "-----BEGIN X-----\nMIIBVgIBADANBgkq\nhkiG9w0BAQEFAASC\n")])
    assert hidden.without("bad base64: 'hkiG9w0BAQEFAASC'") == "bad base64: '${file:pem}'"
    assert hidden.without("-----BEGIN X----- MIIBVgIBADANBgkq hkiG9w0BAQEFAASC") == "${file:pem}"


def test_what_is_too_short_to_be_a_secret_is_left_in_texts() -> None:
    assert Hidden([("${file:port}", "514"), ("${file:nl}", "\n")]).without("udp://h:514\n") == "udp://h:514\n"


def test_what_is_hidden_may_stand_in_its_own_name() -> None:
    secrets = [("${file:/run/secrets/one}", "/run/secrets"), ("${file:/run/secrets/two}", "secrets/one")]
    text = "cannot read /run/secrets, nor secrets/one"
    assert Hidden(secrets).without(text) == (
        "cannot read ${file:/run/secrets/one}, nor ${file:/run/secrets/two}"
    )


def test_texts_are_found_in_mappings_and_lists() -> None:
    given = {"routes": {"a": "x S3cr3t/Pass wörd+x"}, "all": ("S3cr3t/Pass wörd+x", 1, None), "n": 2.5}
    assert Hidden([TOKEN]).without_in(given) == {
        "routes": {"a": "x ${file:token}"},
        "all": ["${file:token}", 1, None],
        "n": 2.5,
    }


def test_values_of_many_reloads_are_remembered_but_not_for_ever() -> None:
    secrets = [("${file:s}", f"secret-{number:05}") for number in range(KEPT + 10)]
    hidden = Hidden(secrets[: KEPT - 10])
    for each in secrets[KEPT - 10 :]:
        hidden.remember([each])
    assert len(hidden.secrets) == KEPT
    assert hidden.without(f"secret-{KEPT + 9:05} secret-00010") == "${file:s} ${file:s}"


@given(value=st.text(min_size=SHORTEST), before=st.text(), after=st.text())
def test_whatever_a_value_is_it_is_taken_out(value: str, before: str, after: str) -> None:
    shown = Hidden([("*", value)]).without(before + value + after)
    secret = value.strip()
    assert len(secret) < SHORTEST or secret not in shown or secret in before + "*" + after


def test_files_are_hidden_and_variables_that_are_called_like_secrets(tmp_path: Path) -> None:
    (tmp_path / "path").write_text("services/B0123\n")
    (tmp_path / "logroute.yaml").write_text(
        """\
routes:
  a: {sink: {type: http, url: "http://${HOST}/${file:path}", headers: {X-K: "${API_KEY}", X-L: "${AUTH}"}}}
  b: {sink: "http://${HOST}/${NONE:-${file:path}}?token=${HEC_TOKEN:-x}"}
"""
    )
    environ = {"HOST": "logs.example.com", "API_KEY": "0123456789", "AUTH": "none", "HEC_TOKEN": "abcdefgh"}
    loaded = load_config(tmp_path / "logroute.yaml", environ=environ)
    assert sorted(set(loaded.secrets)) == [
        ("${API_KEY}", "0123456789"),
        ("${HEC_TOKEN}", "abcdefgh"),
        ("${file:path}", "services/B0123"),
    ]
