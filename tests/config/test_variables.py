"""`${VAR}`, defaults and secrets; and that nothing of them is ever in an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.conftest import Folder


def filled(folder: Folder, text: str) -> str:
    """What a text becomes: the path of a file sink."""
    config = folder.load(f"routes: {{all: {{sink: {{type: file, path: '{text}'}}}}}}")
    path = config.routes["all"].sink.model_dump()["path"]
    assert type(path) is str
    return path


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("${HOST}", "node-7"),
        ("/logs/${HOST}/${USER_1}.log", "/logs/node-7/ada.log"),
        ("${HOST}${HOST}", "node-7node-7"),
        ("/x${EMPTY}", "/x"),
        ("${HOST:-x}", "node-7"),
        ("${NONE:-x}", "x"),
        ("${EMPTY:-x}", "x"),
        ("/x${NONE:-}", "/x"),
        ("${NONE:-a:-b}", "a:-b"),
        ("${NONE:-${HOST}}", "node-7"),
        ("${NONE:-/${EMPTY:-${USER_1}}/x}", "/ada/x"),
        ("${NONE:-/logs/{container.name}.log}", "/logs/{container.name}.log"),
        ("/logs/{container.name}/${HOST}.log", "/logs/{container.name}/node-7.log"),
        ("/$HOST", "/$HOST"),
        ("/pa$$word", "/pa$$word"),
        ("/cash$", "/cash$"),
        ("/x$${{HOST}}", "/x${{HOST}}"),
        ("${DOLLAR}", "/${{HOST}}"),
    ],
)
def test_a_variable_is_filled_in(folder: Folder, text: str, becomes: str) -> None:
    folder.environ = {"HOST": "node-7", "USER_1": "ada", "EMPTY": "", "DOLLAR": "/${{HOST}}"}
    assert filled(folder, text) == becomes


def test_a_variable_may_stand_for_anything_that_is_written_as_a_text(folder: Folder) -> None:
    folder.environ = {
        "SIZE": "2MiB",
        "N": "7",
        "ON": "true",
        "WAIT": "3s",
        "READ": "api",
        "SINK": "file:///y",
    }
    config = folder.load(
        """\
sources: {docker: {read: "${READ}"}}
routes:
  a: {sink: {type: file, path: /x, fsync: "${ON}", max_open: "${N}", rotate: {size: "${SIZE}"}}}
  b: {sink: "${SINK}", batch: {wait: "${WAIT}"}}
"""
    )
    sink = config.routes["a"].sink.model_dump()
    assert (sink["fsync"], sink["max_open"], sink["rotate"]["size"]) == (True, 7, 2 << 20)
    assert config.routes["b"].sink.model_dump()["path"] == "/y"
    assert config.routes["b"].batch.wait == 3.0
    assert config.sources["docker"].model_dump()["read"] == "api"


def test_a_number_stays_a_text_where_a_variable_brought_it(folder: Folder) -> None:
    folder.environ = {"TIER": "010"}
    config = folder.load("routes: {all: {match: {label.tier: '${TIER}'}, sink: 'null:'}}")
    assert config.routes["all"].match.to_value() == {"label.tier": "010"}


def test_a_secret_is_read_from_a_file_beside_the_configuration(folder: Folder) -> None:
    folder.write({"run/secret": "/deep/ly\r\n", "etc/conf.d/a.yaml": "routes: {a: {sink: '${file:uri}'}}"})
    folder.write({"etc/conf.d/uri": "file:///from/beside\n", "etc/main.yaml": "include: [conf.d/*.yaml]"})
    assert filled(folder, "${file:run/secret}.log") == "/deep/ly.log"
    assert filled(folder, f"${{file:{folder.path}/run/secret}}") == "/deep/ly"
    config = folder.load("include: [etc/main.yaml]")
    assert config.routes["a"].sink.model_dump()["path"] == "/from/beside"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${NONE}", "the variable NONE is not set; ${NONE:-…} would give a default"),
        ("${HOSTT}", 'the variable HOSTT is not set; did you mean "HOST"?'),
        ("${NONE:-${NEITHER}}", "the variable NEITHER is not set; ${NEITHER:-…} would give a default"),
        ("/x/${HOST", "a `${` without its `}`; write $${ for a literal ${"),
        ("${HOST:-{x}", "a `${` without its `}`; write $${ for a literal ${"),
        (
            "${}",
            "${} names no variable: there are ${NAME}, ${NAME:-default} and ${file:PATH}; write $${ for a "
            "literal ${",
        ),
        (
            "${HOST:?x}",
            "${HOST:?x} names no variable: there are ${NAME}, ${NAME:-default} and ${file:PATH}; write $${ "
            "for a literal ${",
        ),
        ("${file:/none}", "cannot read /none: No such file or directory"),
        ("${file:}", "cannot read : Is a directory"),
        ("${file:binary}", "cannot read binary: not UTF-8 text"),
        ("${file:/dev/zero}", "cannot read /dev/zero: larger than 1 MiB"),
    ],
)
def test_a_variable_that_cannot_be_filled_in_is_told(folder: Folder, text: str, said: str) -> None:
    folder.environ = {"HOST": "node-7"}
    folder.write({"binary": b"\xff"})
    mistake = folder.mistake(f"routes:\n  all:\n    sink: {{type: file, path: '{text}'}}")
    assert mistake == f"logroute.yaml:3:24: routes.all.sink.path: {said}"


def test_a_nul_in_the_name_of_a_secret_is_told(folder: Folder) -> None:
    mistake = folder.mistake('routes: {all: {sink: "${file:a\\0b}"}}')
    assert mistake.startswith("logroute.yaml:1:16: routes.all.sink: cannot read a\\x00b: ")


def test_what_follows_from_a_variable_that_is_not_set_is_not_told_too(folder: Folder) -> None:
    assert folder.mistakes("routes: {a: {sink: '${URI}', start: '${START}', '${KEY}': 1, x: '${X}'}}") == [
        "logroute.yaml:1:14: routes.a.sink: the variable URI is not set; ${URI:-…} would give a default",
        "logroute.yaml:1:30: routes.a.start: the variable START is not set; ${START:-…} would give a default",
        "logroute.yaml:1:49: routes.a.${KEY}: variables are for values, not for keys",
        "logroute.yaml:1:49: routes.a.${KEY}: unknown option",
        "logroute.yaml:1:62: routes.a.x: the variable X is not set; ${X:-…} would give a default",
        "logroute.yaml:1:62: routes.a.x: unknown option",
    ]


# --- secrets ------------------------------------------------------------------------------------------

SECRET = "S3cr3t(Pass:wörd/@?&"

PLACES = [
    "routes: {all: {sink: '${S}'}}",
    "routes: {all: {sink: 'x${S}'}}",
    "routes: {all: {sink: '${S}:x'}}",
    "routes: {all: {sink: 'file://${S}/x'}}",
    "routes: {all: {sink: 'file://user:${S}@host/x'}}",
    "routes: {all: {sink: 'file:///x?format=${S}'}}",
    "routes: {all: {sink: 'file:///x?${S}=1'}}",
    "routes: {all: {sink: 'file:///x?rotate.${S}=1'}}",
    "routes: {all: {sink: 'kafka://user:${S}@host/x'}}",
    "routes: {all: {sink: {type: '${S}'}}}",
    "routes: {all: {sink: {type: file, path: '/{${S}}'}}}",
    "routes: {all: {sink: {type: file, path: '/{time:${S}}'}}}",
    "routes: {all: {sink: {type: file, path: /x, format: '${S}'}}}",
    "routes: {all: {sink: {type: file, path: /x, compress: '${S}'}}}",
    "routes: {all: {sink: {type: file, path: /x, mode: '${S}'}}}",
    "routes: {all: {sink: {type: file, path: /x, max_open: '${S}', fsync: '${S}'}}}",
    "routes: {all: {sink: 'null:', match: {stream: '${S}'}}}",
    "routes: {all: {sink: 'null:', match: {image: '/${S}/'}}}",
    "routes: {all: {sink: 'null:', match: {label.x: '>${S}'}}}",
    "routes: {all: {sink: 'null:', match: '${S}', start: '${S}', queue: '${S}'}}",
    "routes: {all: {sink: 'null:', queue: {memory: '${S}'}}}",
    "routes: {all: {sink: 'null:', retry: {give_up: '${S}', max: '${S}'}}}",
    "routes: {all: {sink: 'null:'}}\nsources: {'docker': {read: '${S}', host: ['${S}']}}",
    "routes: {all: {sink: 'null:'}}\nsources: {docker: '${S}', x: {type: '${S}'}}",
    "routes: {all: {sink: 'null:'}}\nprocessors: ['${S}', {type: '${S}'}]",
    "routes: {all: {sink: 'null:'}}\ninclude: ['${S}']",
    "routes: {all: {sink: 'null:'}}\ninclude: '${S}'",
    "routes: '${S}'",
    "routes: {all: '${S}'}",
]


def shreds(secret: str) -> set[str]:
    """What of a secret would give it away, however it was spelled."""
    return {secret[at : at + 4].lower() for at in range(len(secret) - 3)}


@pytest.mark.parametrize("secret", [SECRET, SECRET.lower(), "topsecret", "top:secret", "/top/secret", "7q"])
@pytest.mark.parametrize("text", PLACES)
@pytest.mark.parametrize("way", ["environment", "file"])
def test_a_secret_is_in_no_error(folder: Folder, text: str, secret: str, way: str) -> None:
    folder.environ = {"S": secret}
    if way == "file":
        folder.write({"secret": secret})
        text = text.replace("${S}", "${file:secret}")
    told = "\n".join(folder.mistakes(text)).lower() if not is_valid(folder, text) else ""
    written = text.lower() + folder.path.name
    for shred in shreds(secret) or {secret}:
        assert shred not in told or shred in written


def is_valid(folder: Folder, text: str) -> bool:
    from logroute.config.load import load_config
    from logroute.config.problems import ConfigError

    folder.write({"logroute.yaml": text})
    try:
        load_config(Path("logroute.yaml"), environ=folder.environ)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("routes: {a: {sink: '${S}'}}", "'${S}' has no scheme, such as file:///tmp/all.ndjson"),
        (
            "routes: {a: {sink: 'null:', match: {stream: '${S}'}}}",
            "there is no stream '${S}', only stdout and stderr",
        ),
        (
            "routes: {a: {sink: {type: file, path: '/${S}/{conatiner.name}'}}}",
            'unknown path "conatiner.name"; did you mean "container.name"?',
        ),
        (
            "routes: {a: {sink: 'null:', match: {image: '/(${S}/'}}}",
            "/(${S}/ is no regular expression: missing ), unterminated subpattern",
        ),
    ],
)
def test_the_variable_is_named_where_its_value_would_have_been(folder: Folder, text: str, said: str) -> None:
    folder.environ = {"S": "a-container-of-secrets"}
    assert folder.mistake(text).split(": ", 2)[2] == said


def test_the_variable_is_named_in_small_letters_where_a_scheme_has_such(folder: Folder) -> None:
    folder.environ = {"S": "top-secret"}
    assert 'there is no sink for "${s}:"' in folder.mistake("routes: {a: {sink: '${S}:x'}}")


def test_a_mistake_that_only_the_value_makes_is_told_without_it(folder: Folder) -> None:
    folder.environ = {"S": "(secret"}
    mistake = folder.mistake("routes: {all: {sink: 'null:', match: {image: '/${S}/'}}}")
    assert mistake.split(": ", 2)[2] == "/${S}/ holds something that cannot be used here"


def test_a_message_that_shows_nothing_stays_as_it_is(folder: Folder) -> None:
    folder.environ = {"D": "/var/log"}
    mistake = folder.mistake("routes: {all: {sink: {type: file, path: '${D}/{conatiner.name}'}}}")
    assert mistake.endswith('did you mean "container.name"? (at its character 11)')
