"""`logroute test`, and the tests that `logroute validate` runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from logroute.cli import main

CONFIG = """\
processors:
  - {type: json, when: {container: api-*}}
  - {type: drop_fields, fields: [password]}
routes:
  search:
    match: {container: api-*}
    sink: 'http://127.0.0.1:9/nowhere'
    processors: [{type: add_fields, fields: {team: pay}}]
  audit: {match: label.audit, sink: 'null:'}
  errors: {match: level >= error, sink: 'null:'}
"""

PASSES = """\
tests:
  - name: passwords never leave
    given: {container: api-1, image: api:2, line: '{"msg":"login","password":"x"}'}
    expect: {search: [{message: login, fields: {team: pay}, container.image: "api:2"}], audit: []}
  - name: what is audited
    given:
      - {line: [a, b], label: {audit: ""}, time: 2026-11-23T20:06:26Z}
      - {container: api-2, stream: stderr, line: '{"level":"fatal","n":3}'}
    expect:
      audit:
        - {message: a, fields: {}, time: 2026-11-23T20:06:26.000000000Z, stream: stdout, level: null}
        - {message: b, time: 2026-11-23T20:06:26.001000000Z}
      errors: [{level: fatal, fields.n: 3, fields.team: null, stream: stderr}]
"""

FAILS = """\
tests:
  - name: everything differs
    given:
      - {container: api-1, line: '{"msg":"a","user":"x"}'}
      - {container: api-1, line: "b\\e[2J"}
    expect:
      search: [{message: a, fields.user: y, level: warn}]
      audit: [{message: c}]
"""


def logroute(folder: Path, config: str, *arguments: str) -> Result:
    file = folder / "logroute.yaml"
    file.write_text(config)
    return CliRunner().invoke(main, [*arguments, "-c", str(file)])


def test_tests_that_pass(tmp_path: Path) -> None:
    done = logroute(tmp_path, CONFIG + PASSES, "test")
    assert done.output == "ok    passwords never leave\nok    what is audited\n2 tests passed.\n"
    assert done.exit_code == 0
    assert logroute(tmp_path, CONFIG + PASSES, "validate").exit_code == 0


def test_lines_of_one_container_are_no_part_of_what_another_says(tmp_path: Path) -> None:
    config = """\
processors: [{type: multiline, preset: java}]
routes: {all: {sink: 'null:'}}
tests:
  - name: two traces
    given:
      - {container: a, line: "java.lang.IllegalStateException: x"}
      - {container: b, line: ["java.lang.Error: y", "\\tat b.B.run(B.java:1)"]}
      - {container: a, line: "\\tat a.A.run(A.java:1)"}
      - {container: c, line: ignored, label: {logroute.enable: "False"}}
    expect:
      all:
        - {container.name: a, message: "java.lang.IllegalStateException: x\\n\\tat a.A.run(A.java:1)"}
        - {container.name: b, message: "java.lang.Error: y\\n\\tat b.B.run(B.java:1)"}
"""
    done = logroute(tmp_path, config, "test")
    assert done.output == "ok    two traces\n1 test passed.\n"


def test_what_a_container_says_later_is_said_by_the_same_one(tmp_path: Path) -> None:
    """Each `given` was a container of its own to whatever counts: nothing was ever said to be held back."""
    config = """\
routes:
  some: {processors: [{type: throttle, rate: 1/s}], sink: 'null:'}
  distinct: {processors: [{type: dedupe, window: 10s}], sink: 'null:'}
tests:
  - name: a second and a minute later
    given:
      - {container: a, time: 2026-11-23T20:06:26Z, line: [x, x, x]}
      - {container: b, time: 2026-11-23T20:06:27Z, line: x}
      - {container: a, time: 2026-11-23T20:07:26Z, line: x}
    expect:
      some: [{message: x}, {message: x}, {message: "2 records held back: more than 1 a second"}, {message: x}]
      distinct: [{message: x}, {message: x}, {message: x (said 2 times more)}, {message: x}]
"""
    done = logroute(tmp_path, config, "test")
    assert done.output == "ok    a second and a minute later\n1 test passed.\n"


def test_a_test_that_fails_shows_what_differs(tmp_path: Path) -> None:
    done = logroute(tmp_path, CONFIG + FAILS, "test")
    assert done.output == (
        f"FAIL  everything differs  ({tmp_path}/logroute.yaml:12:5: tests[0])\n"
        "      route search, record 1:\n"
        '      - fields.user: "y"\n'
        '      + fields.user: "x"\n'
        '      - level: "warn"\n'
        "      + level: (absent)\n"
        "      route search, record 2:\n"
        '      + {"message":"b\\u001b[2J","fields":{"team":"pay"}}\n'
        "      route audit, record 1:\n"
        '      - {"message":"c"}\n'
        "1 of 1 tests failed. (-: expected, +: what there is)\n"
    )
    assert done.exit_code == 1


@pytest.mark.parametrize(
    ("fields", "same"),
    [
        ("{b: true, n: 1.0, l: [1, {x: false}]}", True),
        ("{b: 1, n: 1, l: [1, {x: false}]}", False),
        ("{b: true, n: 1, l: [1, {x: 0}]}", False),
        ("{b: true, n: 1, l: [1]}", False),
        ("{b: true, n: true, l: [1, {x: false}]}", False),
    ],
)
def test_true_is_not_the_number_one(fields: str, same: bool, tmp_path: Path) -> None:
    given = """'{"b":true,"n":1,"l":[1,{"x":false}]}'"""
    expect = f"{{search: [{{fields: {fields.replace('{b', '{team: pay, b')}}}]}}"
    tests = f"tests: [{{name: t, given: {{container: api-1, line: {given}}}, expect: {expect}}}]\n"
    result = logroute(tmp_path, CONFIG + tests, "test")
    assert (result.exit_code == 0) == same


def test_validate_tells_of_tests_that_fail(tmp_path: Path) -> None:
    done = logroute(tmp_path, CONFIG + FAILS, "validate", "--format", "json")
    assert done.exit_code == 2
    told = json.loads(done.output)["problems"]
    assert told[0] == {
        "message": 'test "everything differs": route search, record 1: fields.user is "x", expected "y"',
        "path": "tests[0]",
        "file": str(tmp_path / "logroute.yaml"),
        "line": 12,
        "column": 5,
    }
    assert len(told) == 4


def test_it_can_be_read_by_programs(tmp_path: Path) -> None:
    done = logroute(tmp_path, CONFIG + PASSES + FAILS.removeprefix("tests:\n"), "test", "--format", "json")
    told = json.loads(done.output)
    assert (told["passed"], len(told["failed"])) == (2, 1)
    assert told["failed"][0]["differences"][0] == {
        "route": "search", "record": 1, "path": "fields.user", "expected": "y", "got": "x",
    }  # fmt: skip


def test_what_one_test_leaves_is_nothing_to_the_next(tmp_path: Path) -> None:
    again = PASSES + PASSES.removeprefix("tests:\n")
    assert logroute(tmp_path, CONFIG + again, "test").output.endswith("\n4 tests passed.\n")


def test_included_files_have_tests_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("# theirs\n" + FAILS)
    done = logroute(tmp_path, "include: [more.yaml]\n" + CONFIG + PASSES, "test")
    assert f"FAIL  everything differs  ({tmp_path}/more.yaml:3:5: tests[0])\n" in done.output


@pytest.mark.parametrize(
    ("test", "says"),
    [
        ("{name: a, given: {line: x}}", "tests[0].expect: this option is needed"),
        ("{name: a, given: {line: x}, expect: {}}", "tests[0].expect: "),
        ("{name: a, given: [], expect: {audit: []}}", "tests[0].given: "),
        ("{name: a, given: {}, expect: {audit: []}}", "line"),
        ("{name: a, given: {line: x}, expect: {adit: []}}", 'no route "adit"; did you mean "audit"?'),
        ("{name: a, given: {line: x}, expect: {audit: [{mesage: x}]}}", 'unknown path "mesage"; did you'),
        ("{name: a, given: {line: x, time: now}, expect: {audit: []}}", "expected a time such as"),
        ("{name: a, given: {line: x, stream: out}, expect: {audit: []}}", "tests[0].given.stream"),
    ],
)
def test_a_mistake_in_a_test_is_told_with_its_place(tmp_path: Path, test: str, says: str) -> None:
    done = logroute(tmp_path, f"{CONFIG}tests:\n  - {test}\n", "validate")
    assert done.exit_code == 2
    assert f"{tmp_path}/logroute.yaml:12:" in done.output
    assert says in done.output


def test_without_tests_it_says_so(tmp_path: Path) -> None:
    done = logroute(tmp_path, CONFIG, "test")
    assert done.output == f"{tmp_path}/logroute.yaml: there are no `tests:` in it.\n"
    assert done.exit_code == 0
