"""Mistakes of a configuration, as they are told; and where a configuration is found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from logroute.config.components import SINKS, SOURCES
from logroute.config.load import SIZE_LIMIT_BYTES, find_config, load_config
from logroute.config.problems import ConfigError, Problem
from tests.config.conftest import Folder

VALID = "routes: {all: {sink: 'stdout:'}}\n"


def with_names(said: str) -> str:
    """A text with the names of all components: there will be more."""
    types = {"{SINK_TYPES}": SINKS, "{SOURCE_TYPES}": SOURCES}
    for mark, registry in types.items():
        said = said.replace(mark, ", ".join(registry.types()))
    return said.replace("{SCHEMES}", ", ".join(f"{scheme}:" for scheme in SINKS.schemes()))


# --- every mistake, with its place --------------------------------------------------------------------


def test_every_mistake_is_told_at_once_with_its_place_and_what_was_meant(folder: Folder) -> None:
    assert folder.mistakes(
        """\
state_dir: 7
sources:
  docker: {read: fil, hst: x}
routes:
  search:
    match: {conatiner: web-*, stream: err}
    sink:
      type: file
      pth: /logs/a.ndjson
      compress: zst
      rotate: {size: big, keep: -1, every: 5}
  audit:
    sink: {type: fil}
    queu: {memory: 1MiB}
limit: {}
"""
    ) == [
        "logroute.yaml:1:1: state_dir: expected a text, not a number: put it in quotes",
        "logroute.yaml:3:12: sources.docker.read: expected 'auto', 'file' or 'api'; did you mean \"file\"?",
        'logroute.yaml:3:23: sources.docker.hst: unknown option; did you mean "host"?',
        'logroute.yaml:6:13: routes.search.match.conatiner: unknown condition "conatiner"; '
        'did you mean "container"?',
        "logroute.yaml:6:31: routes.search.match.stream: there is no stream 'err', only stdout and stderr",
        "logroute.yaml:7:5: routes.search.sink.path: this option is needed",
        'logroute.yaml:9:7: routes.search.sink.pth: unknown option; did you mean "path"?',
        "logroute.yaml:10:7: routes.search.sink.compress: expected 'none', 'zstd' or 'gzip'; "
        'did you mean "zstd"?',
        "logroute.yaml:11:16: routes.search.sink.rotate.size: expected a size such as 64KiB, 5MB or 2GiB",
        "logroute.yaml:11:27: routes.search.sink.rotate.keep: must be at least 0",
        "logroute.yaml:11:37: routes.search.sink.rotate.every: a duration needs a unit: 5s or 5m?",
        'logroute.yaml:13:12: routes.audit.sink.type: unknown sink type "fil"; did you mean "file"?',
        'logroute.yaml:14:5: routes.audit.queu: unknown option; did you mean "queue"?',
        'logroute.yaml:15:1: limit: unknown option; did you mean "limits"?',
    ]


def test_an_address_that_no_engine_can_have_is_a_mistake(folder: Folder) -> None:
    text = "sources:\n  far: {type: docker, host: 'ftp://far'}\nroutes: {all: {sink: 'stdout:'}}\n"
    assert folder.mistakes(text) == [
        "logroute.yaml:2:23: sources.far.host: cannot reach an engine at 'ftp://far' "
        "(from the configuration): use unix://, tcp://, http:// or https://"
    ]


def test_hundreds_of_mistakes_are_all_told_in_the_order_of_the_text(folder: Folder) -> None:
    routes = "".join(f"  r{n}: {{sink: {{type: file, path: /x{n}, formt: raw}}}}\n" for n in range(500))
    problems = folder.problems("routes:\n" + routes)
    assert [problem.line for problem in problems] == list(range(2, 502))
    assert {problem.message for problem in problems} == {'unknown option; did you mean "format"?'}


def test_a_bound_is_said_as_it_would_be_written(folder: Folder) -> None:
    [problem] = folder.problems("limits: {memory: 100}\nroutes: {a: {sink: 'null:'}}\n")
    assert problem.message == "must be at least 1MiB"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("queue: 3", "queue: expected a mapping of options, not a number"),
        ("queue: []", "queue: expected a mapping of options, not a list"),
        ("queue:", "queue: expected a mapping of options, not nothing"),
        ("queue: {memory: 0}", "queue.memory: must be more than 0"),
        (
            "processors: [{type: lookup, file: x.csv, key: level, into: a, reload: 100ms}]",
            "processors[0].reload: must be at least 1s",
        ),
        ("queue: {memory: 1 parsec}", "queue.memory: expected a size such as 64KiB, 5MB or 2GiB"),
        ("queue: {memory: true}", "queue.memory: expected a size such as 64KiB, 5MB or 2GiB"),
        ("queue: {memory: 9999999TiB}", "queue.memory: larger than anything there is"),
        ("batch: {records: many}", "batch.records: expected a whole number"),
        ("batch: {records: 1.5}", "batch.records: expected a whole number"),
        ("batch: {records: .inf}", "batch.records: expected a whole number"),
        ("batch: {records: true}", "batch.records: expected a whole number"),
        ("batch: {records: [1]}", "batch.records: expected a whole number, not a list"),
        ("batch: {wait: -1s}", "batch.wait: expected a duration such as 500ms, 30s, 5m, 24h or 7d"),
        ("batch: {wait: 10}", "batch.wait: a duration needs a unit: 10s or 10m?"),
        ("batch: {wait: 1.5}", "batch.wait: a duration needs a unit: 1.5s or 1.5m?"),
        ("batch: {wait: 40000d}", "batch.wait: longer than a hundred years"),
        ("retry: {initial: 0s}", "retry.initial: must be more than 0"),
        ("retry: {give_up: 5}", "retry.give_up: expected 'never'"),
        ("start: nw", 'start: expected now, beginning or a duration such as 2h; did you mean "now"?'),
        ("start: 5", "start: a duration needs a unit: 5s or 5m?"),
        ("match: []", "match: expected conditions such as {container: web-*}, not a list"),
        ("match: {stream: {}}", "match.stream: 'stream' has no condition"),
        ("processors: x", "processors: expected a list, not a text"),
        ("processors: [x]", "processors[0]: expected a mapping with `type`, such as {type: json}"),
        ("processors: [{a: 1}]", "processors[0]: `type` is missing: which processor is it?"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_in_the_users_words(folder: Folder, option: str, said: str) -> None:
    text = f"routes:\n  all:\n    sink: 'stdout:'\n    {option}\n"
    assert folder.mistake(text).split(": ", 1)[1] == f"routes.all.{said}"


@pytest.mark.parametrize(
    ("sink", "said"),
    [
        ("", ": expected a URI or a mapping with `type`, such as {type: file}"),
        ("[file]", ": expected a URI or a mapping with `type`, such as {type: file}"),
        ("{path: /x}", ": `type` is missing: which sink is it?"),
        ("{type: [file]}", ".type: expected the name of a sink's type, not a list"),
        ("{type: fiel, path: /x}", '.type: unknown sink type "fiel"; did you mean "file"?'),
        ("{type: kafka}", '.type: unknown sink type "kafka"; there are: {SINK_TYPES}'),
        ("{type: __init__}", '.type: unknown sink type "__init__"; there are: {SINK_TYPES}'),
        ("{type: open_files}", '.type: unknown sink type "open_files"; there are: {SINK_TYPES}'),
        ("fiel:///x", ': there is no sink for "fiel:"; did you mean "file"?'),
        ("kafka://x", ': there is no sink for "kafka:"; there are {SCHEMES}'),
        ("/logs/x", ": '/logs/x' has no scheme; a file is file:///logs/x"),
        ("logs", ": 'logs' has no scheme, such as file:///tmp/all.ndjson"),
        ("file:///x?formt=raw", '.formt: unknown option; did you mean "format"?'),
        ("file:///x?rotate.sze=1MB", '.rotate.sze: unknown option; did you mean "size"?'),
        ("file:///x?max_open=0", ".max_open: must be at least 1"),
        ("file:///x#y", ": file:///x#y: a # is written %23 in a URI"),
        ("file:///x?type=stdout", ": file:///x?type=…: the scheme is the type, `type` is no parameter"),
        ("'file://[x/y'", ": 'file://[x/y' is no URI"),
        ("{type: file, path: 7}", ".path: expected a text, not a number: put it in quotes"),
        (
            "{type: file, path: '/x/{conatiner.name}'}",
            '.path: unknown path "conatiner.name"; did you mean "container.name"? (at its character 5)',
        ),
        (
            "file:///x/{time:%Q}",
            ".path: unknown time directive '%Q'; there are "
            "%Y %y %m %b %B %d %F %j %G %V %u %a %A %H %M %S %T %% (at its character 10)",
        ),
        ("{type: file, path: /x, fsync: 3}", ".fsync: expected true or false"),
        ("{type: file, path: /x, fsync: perhaps}", ".fsync: expected true or false"),
    ],
)
def test_a_sink_that_is_none_says_what_it_should_be(folder: Folder, sink: str, said: str) -> None:
    mistake = folder.mistake(f"routes:\n  all:\n    sink: {sink}\n")
    assert mistake.startswith("logroute.yaml:3:")
    assert mistake.partition(": ")[2] == f"routes.all.sink{with_names(said)}"


def test_an_option_in_the_wrong_place_is_sent_to_the_right_one(folder: Folder) -> None:
    assert [mistake.partition(": ")[2] for mistake in folder.mistakes(
        "routes:\n  all:\n    sink: {type: file, path: /x, size: 1MB}\n    memory: 1MiB\n    fsync: true\n"
    )] == [
        'routes.all.sink.size: unknown option; it belongs into "rotate"',
        'routes.all.memory: unknown option; it belongs into "queue"',
        'routes.all.fsync: unknown option; it belongs into "sink"',
    ]  # fmt: skip


def test_an_option_of_another_component_is_not_suggested(folder: Folder) -> None:
    assert folder.mistake("routes: {all: {sink: {type: stdout, rotat: 1}}}").endswith("rotat: unknown option")


def test_mistakes_in_a_nested_match_are_told_where_they_are(folder: Folder) -> None:
    assert folder.mistakes(
        """\
routes:
  all:
    match:
      any:
        - lable.tier: front
        - {not: {image: "/(/"}}
    sink: 'stdout:'
"""
    ) == [
        'logroute.yaml:5:11: routes.all.match.any[0].lable.tier: unknown condition "lable.tier"; '
        'did you mean "label.tier"?',
        "logroute.yaml:6:18: routes.all.match.any[1].not.image: /(/ is no regular expression at its "
        "character 1: missing ), unterminated subpattern",
    ]


def test_a_key_that_is_there_twice_is_told_and_so_is_the_rest(folder: Folder) -> None:
    assert folder.mistakes(
        """\
routes:
  all: {sink: 'stdout:', sink: 'null:'}
  "all": {sink: 'null:'}
limits: {}
limits: {}
lim: {}
"""
    ) == [
        "logroute.yaml:2:26: routes.all.sink: the key is there twice, first in line 2",
        "logroute.yaml:3:3: routes.all: the key is there twice, first in line 2",
        "logroute.yaml:5:1: limits: the key is there twice, first in line 4",
        'logroute.yaml:6:1: lim: unknown option; did you mean "limits"?',
    ]


def test_keys_are_equal_however_they_are_quoted(folder: Folder) -> None:
    text = "routes:\n  1: {sink: 'null:'}\n  '1': {sink: 'null:'}\n"
    assert folder.mistake(text) == "logroute.yaml:3:3: routes.1: the key is there twice, first in line 2"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("''", "routes.: a name must not be empty"),
        ("a/b", "routes.a/b: a name has no spaces, commas or slashes"),
        ("'a,b'", "routes.a,b: a name has no spaces, commas or slashes"),
        ("a b", "routes.a b: a name has no spaces, commas or slashes"),
        ('"a\\nb"', "routes.a\\nb: a name has no spaces, commas or slashes"),
        ("é" * 100, f"routes.{'é' * 100}: the name is too long"),
    ],
)
def test_a_name_that_metrics_or_files_could_not_bear_is_refused(folder: Folder, name: str, said: str) -> None:
    assert folder.mistake(f"routes: {{{name}: {{sink: 'null:'}}}}") == f"logroute.yaml:1:10: {said}"


@pytest.mark.parametrize("name", ["all", "web-1.prod", "syslog+tcp", "Ä", "1", "true", "null", "a" * 200])
def test_a_name_is_what_stands_there(folder: Folder, name: str) -> None:
    assert list(folder.load(f"routes: {{{name}: {{sink: 'null:'}}}}").routes) == [name]


# --- no configuration at all --------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing yet\n", "---\n", "null\n", "~", "\ufeff"])
def test_an_empty_file_says_that_it_is_empty(folder: Folder, text: str) -> None:
    assert folder.mistake(text) == "logroute.yaml:1:1: the file is empty: it needs `routes`"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- all\n- more\n", "expected a mapping with `routes`, not a list"),
        ("[]", "expected a mapping with `routes`, not a list"),
        ("hello", "expected a mapping with `routes`, not a text"),
        ("'null'", "expected a mapping with `routes`, not a text"),
        ("{}", "routes: no routes: where shall the records go?"),
        ("routes:", "routes: no routes: where shall the records go?"),
        ("routes: {}", "routes: no routes: where shall the records go?"),
        ("limits: {}", "routes: no routes: where shall the records go?"),
        ("routes: [all]", "routes: expected a mapping, not a list"),
        ("routes: all", "routes: expected a mapping, not a text"),
        ("routes: {all: }", "routes.all: expected a mapping of options, not nothing"),
        ("routes: {all: 'stdout:'}", "routes.all: expected a mapping of options, not a text"),
        (VALID + "sources: {}", "sources: no sources: leave it out for the containers of this host"),
        (VALID + "sources: {disk: }", 'sources.disk: unknown source type "disk"; there are: {SOURCE_TYPES}'),
        (
            VALID + "sources: {disk: 3}",
            "sources.disk: expected a mapping with `type`, such as {type: docker}",
        ),
        (VALID + "include: x.yaml", "include: expected a list, not a text"),
        (VALID + "include: [3]", "include[0]: expected a text, not a number: put it in quotes"),
    ],
)
def test_a_file_that_is_no_configuration_says_what_is_missing(folder: Folder, text: str, said: str) -> None:
    assert folder.mistake(text).split(": ", 1)[1] == with_names(said)


def test_a_missing_file_is_named(folder: Folder) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(Path("logroute.yaml"))
    assert str(caught.value) == "logroute.yaml: cannot read it: No such file or directory"


def test_a_folder_in_the_place_of_the_file_is_named(folder: Folder) -> None:
    (folder.path / "logroute.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"^logroute.yaml: cannot read it: Is a directory$"):
        load_config(Path("logroute.yaml"))


def test_a_file_that_may_not_be_read_is_named(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, os.strerror(13))

    folder.write({"logroute.yaml": VALID})
    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    with pytest.raises(ConfigError, match=r"^logroute.yaml: cannot read it: Permission denied$"):
        load_config(Path("logroute.yaml"))


def test_text_that_is_not_utf8_is_told_with_its_place(folder: Folder) -> None:
    assert folder.mistake(VALID.encode() + b"# caf\xe9\n") == "logroute.yaml:2:6: not UTF-8 text"
    assert folder.mistake(VALID.encode("utf-16")) == "logroute.yaml:1:1: not UTF-8 text"


def test_a_file_that_has_no_end_is_not_read_to_it(folder: Folder) -> None:
    (folder.path / "logroute.yaml").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match=r"larger than 4 MiB: this is no configuration"):
        load_config(Path("logroute.yaml"))


def test_a_large_configuration_is_read(folder: Folder) -> None:
    text = "routes:\n" + "".join(f"  r{n}: {{sink: 'null:'}}\n" for n in range(2000))
    assert len(folder.load(text + "#" * 100_000).routes) == 2000
    assert len(text) < SIZE_LIMIT_BYTES


# --- defaults -----------------------------------------------------------------------------------------


def test_what_is_left_out_has_its_default(folder: Folder) -> None:
    config = folder.load(VALID)
    assert config.sources["docker"].model_dump(exclude_unset=True) == {"type": "docker"}
    assert config.state_dir is None
    assert "state_dir" not in config.model_fields_set
    assert config.routes["all"].match.to_value() == {}
    assert config.routes["all"].start is None
    assert config.limits.grace == 30.0


@pytest.mark.parametrize("sources", ["sources:", "sources: {docker: }", "sources: {docker: {}}"])
def test_a_source_without_options_is_of_the_type_that_it_is_called(folder: Folder, sources: str) -> None:
    config = folder.load(VALID + sources)
    assert [(name, source.type) for name, source in config.sources.items()] == [("docker", "docker")]


def test_a_null_sink_may_be_written_as_everybody_would(folder: Folder) -> None:
    config = folder.load("routes: {a: {sink: {type: null}}, b: {sink: {type: 'null'}}, c: {sink: 'null:'}}")
    assert {route.sink.type for route in config.routes.values()} == {"null"}


# --- included files -----------------------------------------------------------------------------------


def test_routes_and_sources_of_included_files_are_added(folder: Folder) -> None:
    folder.write(
        {
            "conf.d/a.yaml": "routes: {a: {sink: 'file:///a'}}",
            "conf.d/b.yaml": "sources: {far: {type: docker, host: 'tcp://far'}}\nroutes:\n",
            "conf.d/c.txt": "not: mine",
            "one.yaml": "routes: {one: {sink: 'file:///one'}}",
        }
    )
    config = folder.load("include: [conf.d/*.yaml, one.yaml]\nroutes: {all: {sink: 'stdout:'}}")
    assert list(config.routes) == ["all", "a", "one"]
    assert list(config.sources) == ["far"]


def test_an_included_file_is_found_beside_the_one_that_includes_it(folder: Folder) -> None:
    folder.write(
        {
            "etc/[x]/main.yaml": "include: [more/first.yaml]",
            "etc/[x]/more/first.yaml": "include: [second.yaml]",
            "etc/[x]/more/second.yaml": VALID,
        }
    )
    loaded = load_config(Path("etc/[x]/main.yaml"))
    assert list(map(str, loaded.files)) == [
        "etc/[x]/main.yaml",
        "etc/[x]/more/first.yaml",
        "etc/[x]/more/second.yaml",
    ]
    assert list(loaded.config.routes) == ["all"]


def test_a_mistake_in_an_included_file_is_told_with_its_place_there(folder: Folder) -> None:
    folder.write({"conf.d/a.yaml": "# a\nroutes:\n  a:\n    sink: {type: file, pth: /x}\n"})
    assert folder.mistakes("include: [conf.d/*.yaml]\nroutes:\n  all: {snik: 'stdout:'}\n") == [
        "logroute.yaml:3:3: routes.all.sink: this option is needed",
        'logroute.yaml:3:9: routes.all.snik: unknown option; did you mean "sink"?',
        "conf.d/a.yaml:4:5: routes.a.sink.path: this option is needed",
        'conf.d/a.yaml:4:24: routes.a.sink.pth: unknown option; did you mean "path"?',
    ]


def test_two_routes_of_one_name_in_two_files_are_told_with_both_places(folder: Folder) -> None:
    folder.write(
        {
            "a.yaml": "routes:\n  all: {sink: 'null:'}\n  more: {sink: 'null:'}\n",
            "b.yaml": "sources:\n  docker:\nroutes:\n  more: {sink: 'null:'}\n",
        }
    )
    assert folder.mistakes("include: [a.yaml, b.yaml]\nsources: {docker: }\n" + VALID) == [
        "a.yaml:2:3: routes.all: there is one of this name already: logroute.yaml:3:10",
        "b.yaml:2:3: sources.docker: there is one of this name already: logroute.yaml:2:11",
        "b.yaml:4:3: routes.more: there is one of this name already: a.yaml:3:3",
    ]


def test_an_included_file_decides_nothing_for_the_whole(folder: Folder) -> None:
    folder.write({"a.yaml": "limits: {}\nroutes: [x]\ninclude: 3\nsources:\n"})
    assert folder.mistakes("include: [a.yaml]\n" + VALID) == [
        "a.yaml:1:1: limits: an included file may have `routes`, `sources`, `tests` and `include` only",
        "a.yaml:2:1: routes: expected a mapping, by name",
        "a.yaml:3:1: include: expected a list of files",
    ]


def test_an_included_file_that_is_not_there_is_told_where_it_is_named(folder: Folder) -> None:
    text = "include: [conf.d/*.yaml, none.yaml]\n" + VALID
    assert folder.mistake(text) == "logroute.yaml:1:26: include[1]: there is no file none.yaml"


def test_a_broken_included_file_is_told_beside_what_else_is_wrong(folder: Folder) -> None:
    folder.write({"a.yaml": "routes: {a: [}", "b.yaml": b"\xff"})
    assert folder.mistakes("include: [a.yaml, b.yaml, a.yaml, .]\nlimit: {}\n") == [
        'logroute.yaml:2:1: limit: unknown option; did you mean "limits"?',
        "a.yaml:1:14: not YAML: while parsing a flow node expected the node content, but found '}'; "
        "a text with braces needs quotes",
        "b.yaml:1:1: not UTF-8 text",
        ".: cannot read it: Is a directory",
    ]


@pytest.mark.parametrize("pattern", ["logroute.yaml", "./../{}/logroute.yaml", "back.yaml"])
def test_files_that_include_each_other_are_told_and_do_not_run_in_circles(
    folder: Folder, pattern: str
) -> None:
    folder.write({"back.yaml": "include: [logroute.yaml]"})
    mistake = folder.mistake(f"include: ['{pattern.format(folder.path.name)}']\n{VALID}")
    file = "back.yaml" if pattern == "back.yaml" else "logroute.yaml"
    assert mistake == f"{file}:1:11: include[0]: the file would include itself"


def test_a_pattern_may_take_the_file_that_it_stands_in(folder: Folder) -> None:
    folder.write({"a.yaml": "routes: {a: {sink: 'null:'}}"})
    assert list(folder.load("include: ['*.yaml', a.yaml, '**/a.yaml']\n" + VALID).routes) == ["all", "a"]


THERE_TOO = 'route "one" writes to the same place, which has room for one; give each its own'


def test_two_routes_that_write_to_one_file_are_told(folder: Folder) -> None:
    text = """
routes:
  one: {sink: {type: file, path: x.log}}
  two:
    match: {container: web}
    sink: {type: file, path: ./x.log}
  three: {sink: {type: file, path: y.log}}
  four: {sink: "file:x.log"}
"""
    assert folder.mistakes(text) == [
        f"logroute.yaml:6:24: routes.two.sink.path: {THERE_TOO}",
        f"logroute.yaml:8:10: routes.four.sink.path: {THERE_TOO}",
    ]


@pytest.mark.parametrize(
    ("path", "one", "two", "meet"),
    [
        ("/l/{time:%F}.log", "{container: a}", "{container: b}", True),
        ("/l/{container.name}.log", "{container: a}", "{}", True),
        ("/l/{container.name}.log", "{container: a}", "{container: a}", True),
        ("/l/{container.name}.log", "{container: a}", "{container: b}", False),
        ("/l/{level}.log", "{}", "{}", False),  # of records processors may make others
    ],
)
def test_one_template_is_a_mistake_where_it_certainly_gives_one_file(
    folder: Folder, path: str, one: str, two: str, meet: bool
) -> None:
    sink = f'sink: {{type: file, path: "{path}"}}'
    text = f"routes:\n  one: {{match: {one}, {sink}}}\n  two: {{match: {two}, {sink}}}\n"
    if meet:
        assert folder.mistake(text).endswith(f"routes.two.sink.path: {THERE_TOO}")
    else:
        assert list(folder.load(text).routes) == ["one", "two"]


def test_two_uris_of_one_file_are_told(folder: Folder) -> None:
    assert folder.mistake(None, "file:///x", "file:///x?format=raw") == (
        'file:///x?format=…: path: route "file" writes to the same place, which has room for one; '
        "give each its own"
    )


AGAIN = (
    'source "app" reads what is written there, and the route would be given it again, without end: write '
    "elsewhere, name it in sources.app.exclude, or have the route's match leave that source out"
)


@pytest.mark.parametrize(
    ("path", "match", "source", "is_circle"),
    [
        ("/l/out.log", "{}", "paths: [/l/*.log]", True),
        ("/l/out.log", "{level: '>=error'}", "paths: [/x, /l/*.log]", True),
        ("/l/out.log", "{source: app}", "paths: ['/l/**']", True),
        ("/l/{container.name}.log", "{}", "paths: [/l/*.log]", True),
        ("/l/{time:%Y}/x.log", "{}", "paths: ['/l/**/*.log']", True),
        ("/l/out.log", "{}", "paths: [/l/*.log], exclude: ['/l/out*']", False),
        ("/l/out.log", "{}", "paths: [/l/app-*.log, /m/*]", False),
        ("/l/{container.name}.log", "{}", "paths: [/l/app-*.log]", False),  # of some it may be one
        ("/l/out.log", "{source: docker}", "paths: [/l/*.log]", False),
        ("/l/out.log", "{not: {source: app}}", "paths: [/l/*.log]", False),
        ("/l/out.log", "{container: web-*}", "paths: [/l/*.log]", False),  # a file has no container's name
    ],
)
def test_a_route_that_writes_what_a_source_reads_for_it_is_told(
    folder: Folder, path: str, match: str, source: str, is_circle: bool
) -> None:
    """Each record came again and again, as fast as the source reads, until the disk was full."""
    text = (
        f"sources: {{docker: {{}}, app: {{type: file, {source}}}}}\nroutes:\n"
        f"  one: {{match: {match}, sink: {{type: file, path: '{path}'}}}}\n"
    )
    if is_circle:
        assert folder.mistake(text).endswith(f"routes.one.sink.path: {AGAIN}")
    else:
        assert list(folder.load(text).routes) == ["one"]


# --- URIs ---------------------------------------------------------------------------------------------


def test_uris_are_routes_beside_those_of_a_file_and_never_take_their_names(folder: Folder) -> None:
    text = "routes: {file: {sink: 'null:'}, stdout-2: {sink: 'null:'}}"
    config = folder.load(text, "file:///a", "stdout:", "file:///b", "stdout:?format=raw")
    assert list(config.routes) == ["file", "stdout-2", "file-2", "stdout", "file-3", "stdout-3"]
    assert config.routes["file-3"].sink == folder.load(None, "file:///b").routes["file"].sink


def test_mistakes_in_uris_are_told_with_the_uri_and_beside_those_of_the_file(folder: Folder) -> None:
    assert folder.mistakes("routes: {all: {snk: 'null:'}}", "fiel:///x", "file:///x?formt=raw", "/x") == [
        'there is no sink for "fiel:"; did you mean "file"?',
        "'/x' has no scheme; a file is file:///x",
        'file:///x?formt=…: formt: unknown option; did you mean "format"?',
        "logroute.yaml:1:10: routes.all.sink: this option is needed",
        'logroute.yaml:1:16: routes.all.snk: unknown option; did you mean "sink"?',
    ]


def test_uris_alone_need_no_file(folder: Folder) -> None:
    config = folder.load(None, "file:///x?format=raw")
    assert list(config.routes) == ["file"]
    assert config.sources["docker"].type == "docker"
    assert folder.mistake(None) == "routes: no routes: where shall the records go?"
    assert folder.mistake(None, "fiel:///x") == 'there is no sink for "fiel:"; did you mean "file"?'


def test_a_broken_file_and_a_broken_uri_are_both_told(folder: Folder) -> None:
    assert folder.mistakes("[", "x:") == [
        "logroute.yaml:1:2: not YAML: while parsing a flow node expected the node content, "
        "but found '<stream end>'",
        with_names('there is no sink for "x:"; there are {SCHEMES}'),
    ]


# --- finding it ---------------------------------------------------------------------------------------


def test_the_first_configuration_that_there_is_is_used(folder: Folder) -> None:
    environ = {"LOGROUTE_CONFIG": "from-environment.yaml"}
    assert find_config("given.yaml", environ) == Path("given.yaml")
    assert find_config(None, environ) == Path("from-environment.yaml")
    assert find_config("", {"LOGROUTE_CONFIG": ""}) != Path("logroute.yaml")
    folder.write({"logroute.yaml": VALID})
    assert find_config(None, {}) == Path("logroute.yaml")


def test_a_configuration_that_must_not_be_seen_is_said_not_overlooked(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = Path.stat

    def refuse(path: Path, **more: bool) -> os.stat_result:
        if path == Path("/etc/logroute/logroute.yaml"):
            raise PermissionError(13, os.strerror(13))
        return stat(path, **more)

    monkeypatch.setattr(Path, "stat", refuse)
    assert find_config(None, {}) == Path("/etc/logroute/logroute.yaml")


# --- how a mistake is shown ---------------------------------------------------------------------------


def test_a_mistake_is_one_line_that_does_nothing_to_a_terminal(folder: Folder) -> None:
    mistake = folder.mistake('"a\\n\\e[31m\\u202eb": 1\n' + VALID)
    assert mistake == "logroute.yaml:1:1: a\\n\\x1b[31m\\u202eb: unknown option"


def test_a_mistake_as_json_leaves_out_what_there_is_not() -> None:
    assert Problem("wrong").to_json() == {"message": "wrong"}
    assert Problem("wrong", "a.b", "x.yaml", 3, 7).to_json() == {
        "message": "wrong",
        "path": "a.b",
        "file": "x.yaml",
        "line": 3,
        "column": 7,
    }
