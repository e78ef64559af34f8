"""The commands beside `run`, as they answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from logroute import __version__
from logroute.cli import COMMANDS, main
from logroute.config.schema import config_schema

VALID = "routes: {all: {sink: 'stdout:'}, more: {sink: 'null:'}}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; nothing of the environment says where a configuration is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOGROUTE_CONFIG", raising=False)
    return tmp_path


def answer(*arguments: str, **environ: str) -> Result:
    result = CliRunner().invoke(main, list(arguments), prog_name="logroute", env=environ)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def process(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, whose stdout and stderr are no terminal."""
    return subprocess.run(words, capture_output=True, text=True, env={**os.environ, **environ}, timeout=60)


# --- help ---------------------------------------------------------------------------------------------


def test_help_names_every_command_and_what_to_begin_with() -> None:
    result = answer("--help")
    assert result.exit_code == 0
    for name, what in COMMANDS.items():
        assert f"  {name}" in result.stdout
        assert what in result.stdout
    assert "Begin with: logroute run file:///tmp/all.ndjson" in result.stdout


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_fits_80_columns(command: tuple[str, ...], option: str) -> None:
    result = answer(*command, option, COLUMNS="80")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: logroute {' '.join(command)}".rstrip())
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("words", [["version"], ["schema"], ["completion", "bash"], ["--help"]])
def test_a_full_disk_under_standard_output_is_told_in_a_line(words: list[str]) -> None:
    done = process("sh", "-c", f"{sys.executable} -m logroute {' '.join(words)} > /dev/full")
    assert done.returncode == 1
    assert done.stderr == "cannot write to standard output: No space left on device\n"


def test_without_a_command_the_help_is_shown_as_a_usage_error() -> None:
    result = answer()
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == answer("--help").stdout


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("validat", "No such command 'validat'. Did you mean 'validate'?"),
        ("RUN", f"No such command 'RUN'. There are: {', '.join(COMMANDS)}."),
        ("__init__", f"No such command '__init__'. There are: {', '.join(COMMANDS)}."),
        ("log", f"No such command 'log'. There are: {', '.join(COMMANDS)}."),
        ("syslog+tls://h:514", "A URI follows a command: logroute run syslog+tls://h:514"),
        ("https://ada:secret@h/x", "A URI follows a command: logroute run https://ada:***@h/x"),
    ],
)
def test_a_command_that_is_not_known_is_told_with_the_one_that_was_meant(word: str, said: str) -> None:
    result = answer(word, "--help")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith(f"Error: {said}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["validate", "--fromat", "json"], "--format"),
        (["validate", "extra"], "extra"),
        (["validate", "--format", "yaml"], "'text', 'json'"),
        (["run", "--onec"], "--once"),
        (["run", "--log-level", "loud"], "'debug', 'info', 'warning', 'error'"),
        (["run", "-c"], "requires an argument"),
        (["completion"], "Missing argument"),
        (["completion", "tcsh"], "'bash', 'zsh', 'fish'"),
        (["--verison"], "--version"),
    ],
)
def test_a_usage_error_says_what_was_meant_and_exits_with_2(arguments: list[str], said: str) -> None:
    result = answer(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


# --- version ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["version"], ["--version"]])
def test_the_version_is_said(words: list[str]) -> None:
    result = answer(*words)
    assert (result.exit_code, result.stdout) == (0, f"logroute {__version__}\n")


def test_the_module_is_the_command() -> None:
    done = process(sys.executable, "-m", "logroute", "version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"logroute {__version__}\n", "")
    done = process(sys.executable, "-m", "logroute", "rnu")
    assert done.returncode == 2
    assert "Usage: logroute [OPTIONS]" in done.stderr
    assert "Did you mean 'run'?" in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_what_the_shell_has_closed_is_no_failure(closed: str) -> None:
    done = process("sh", "-c", f"{sys.executable} -m logroute version {closed}")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_small_command_imports_nothing_large() -> None:
    program = (
        "import sys; from logroute.cli import main; main(['version'], standalone_mode=False); "
        "print({'trio', 'pydantic', 'ruamel.yaml', 'structlog', 'asyncio'} & set(sys.modules))"
    )
    done = process(sys.executable, "-c", program)
    assert done.stdout == f"logroute {__version__}\nset()\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_imports_asyncio_for_logs_of_its_own(command: str) -> None:
    program = (
        f"import sys; from logroute.cli import main; main.get_command(None, {command!r}); "
        "print(*sorted({'asyncio', 'structlog'} & set(sys.modules)))"
    )
    done = process(sys.executable, "-c", program)
    assert done.stdout.split() in ([], ["structlog"])


# --- validate -----------------------------------------------------------------------------------------


def test_a_valid_configuration_is_summed_up(folder: Path) -> None:
    (folder / "logroute.yaml").write_text("include: [more.yaml]\n" + VALID)
    (folder / "more.yaml").write_text("sources: {docker: , far: {type: docker}}")
    result = answer("validate")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "logroute.yaml, more.yaml: valid. Routes: all, more. Sources: docker, far.\n"
    result = answer("validate", "--format", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {
        "valid": True,
        "files": ["logroute.yaml", "more.yaml"],
        "routes": ["all", "more"],
        "sources": ["docker", "far"],
    }


WRONG = "routes:\n  all: {snik: 'null:'}\n"


def test_every_mistake_is_a_line(folder: Path) -> None:
    (folder / "wrong.yaml").write_text(WRONG)
    result = answer("validate", "-c", "wrong.yaml")
    assert (result.exit_code, result.stderr) == (2, "")
    assert result.stdout.splitlines() == [
        "wrong.yaml:2:3: routes.all.sink: this option is needed",
        'wrong.yaml:2:9: routes.all.snik: unknown option; did you mean "sink"?',
    ]


def test_what_run_would_refuse_anywhere_is_no_valid_configuration(folder: Path) -> None:
    Path("logroute.yaml").write_text("api: {listen: '0.0.0.0:8080'}\nroutes: {all: {sink: 'null:'}}\n")
    found = answer("validate", "-c", "logroute.yaml")
    assert found.exit_code == 2
    assert found.output.startswith(
        "logroute.yaml:1:7: api.listen: 0.0.0.0:8080 can be reached by other hosts: give"
    )


def test_what_only_this_machine_lacks_is_said_and_makes_nothing_invalid(folder: Path) -> None:
    Path("logroute.yaml").write_text(
        "api: {token_file: nowhere}\n"
        "processors:\n"
        "  - {type: json}\n"
        "  - {type: lookup, file: nowhere.csv, key: fields.ip, into: fields.host}\n"
        "routes:\n"
        "  all:\n"
        "    processors: [{type: lookup, file: gone.json, key: fields.ip, into: fields.host}]\n"
        "    sink: 'null:'\n"
    )
    found = answer("validate", "-c", "logroute.yaml")
    assert found.exit_code == 0
    assert "valid. Routes: all" in found.stdout
    token, first, second = (line.partition("would refuse it: ")[2] for line in found.stderr.splitlines())
    assert token.startswith("logroute.yaml:1:7: api.token_file: cannot read nowhere")
    assert first == "logroute.yaml:4:5: processors[1]: nowhere.csv: cannot read it: No such file or directory"
    assert second.startswith("logroute.yaml:7:18: routes.all.processors[0]: gone.json: cannot read it: ")
    here = json.loads(answer("validate", "--format=json", "-c", "logroute.yaml").stdout)["here"]
    assert [each["line"] for each in here] == [1, 4, 7]


def test_every_mistake_is_an_object_as_json(folder: Path) -> None:
    (folder / "wrong.yaml").write_text(WRONG)
    result = answer("validate", "--format=json", "--config=wrong.yaml")
    assert (result.exit_code, result.stderr) == (2, "")
    at = {"file": "wrong.yaml", "line": 2}
    assert json.loads(result.stdout) == {
        "valid": False,
        "problems": [
            {"message": "this option is needed", "path": "routes.all.sink", "column": 3, **at},
            {
                "message": 'unknown option; did you mean "sink"?',
                "path": "routes.all.snik",
                "column": 9,
                **at,
            },
        ],
    }


def test_a_missing_file_is_a_mistake_too() -> None:
    result = answer("validate", "-c", "none.yaml")
    assert (result.exit_code, result.stdout) == (2, "none.yaml: cannot read it: No such file or directory\n")


def test_without_a_configuration_validate_says_where_one_is_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("logroute.cli.validate.find_config", lambda _: None)
    result = answer("validate")
    assert result.exit_code == 2
    for place in ("-c FILE", "$LOGROUTE_CONFIG", "./logroute.yaml", "/etc/logroute/logroute.yaml"):
        assert place in result.stdout
    result = answer("validate", "--format", "json")
    assert (result.exit_code, json.loads(result.stdout)["valid"]) == (2, False)


def test_the_environment_names_the_configuration(folder: Path) -> None:
    (folder / "logroute.yaml").write_text(WRONG)
    (folder / "other.yaml").write_text(VALID)
    assert answer("validate", LOGROUTE_CONFIG="other.yaml").exit_code == 0
    assert answer("validate", "-c", "logroute.yaml", LOGROUTE_CONFIG="other.yaml").exit_code == 2


def test_variables_come_from_the_environment(folder: Path) -> None:
    (folder / "logroute.yaml").write_text("routes: {all: {sink: '${WHERE}'}}")
    assert "the variable WHERE is not set" in answer("validate").stdout
    assert answer("validate", WHERE="null:").exit_code == 0


# --- schema -------------------------------------------------------------------------------------------


def test_the_schema_is_printed_as_json() -> None:
    result = answer("schema")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == config_schema()


def test_a_reader_that_goes_away_is_told_nothing() -> None:
    done = process("sh", "-c", f"{sys.executable} -m logroute schema | true")
    assert (done.stdout, done.stderr) == ("", "")


# --- completion ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_asks_the_program(shell: str) -> None:
    result = answer("completion", shell)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"_LOGROUTE_COMPLETE={shell}_complete" in result.stdout
    if interpreter := shutil.which(shell):
        done = subprocess.run([interpreter, "-n"], input=result.stdout, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("logroute v", ["validate", "version"]),
        ("logroute completion ", ["bash", "zsh", "fish"]),
        ("logroute run --st", ["--state-dir"]),
        ("logroute run --log-level w", ["warning"]),
        ("logroute validate --format ", ["text", "json"]),
    ],
)
def test_words_are_completed(words: str, offered: list[str]) -> None:
    done = process(
        *(sys.executable, "-m", "logroute"),
        _LOGROUTE_COMPLETE="bash_complete",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split(" ")) - 1),
    )
    assert done.stderr == ""
    assert [line.partition(",")[2] for line in done.stdout.split()] == offered


def test_a_file_is_completed_as_a_file() -> None:
    done = process(
        *(sys.executable, "-m", "logroute"),
        _LOGROUTE_COMPLETE="bash_complete", COMP_WORDS="logroute validate -c x", COMP_CWORD="3",
    )  # fmt: skip
    assert done.stdout.split() == ["file,x"]


def test_bash_completes_with_the_script(folder: Path) -> None:
    program = """
        logroute() { "$PYTHON" -m logroute "$@"; }
        source <(logroute completion bash)
        COMP_WORDS=(logroute va) COMP_CWORD=1
        _logroute_completion logroute va logroute
        echo "${COMPREPLY[@]}"
    """
    if not shutil.which("bash"):
        pytest.skip("no bash here")
    (folder / "logroute").write_text(f'#!/bin/sh\nexec {sys.executable} -m logroute "$@"\n')
    (folder / "logroute").chmod(0o755)
    done = process("bash", "-c", program, PYTHON=sys.executable, PATH=f"{folder}:{os.environ['PATH']}")
    assert (done.stdout, done.stderr) == ("validate\n", "")


@pytest.mark.parametrize("command", [["explain", "web-1"], ["ps"], ["routes"], ["health"]])
def test_without_a_daemon_it_is_said_what_to_do(command: list[str]) -> None:
    result = answer(*command, "--api", "unix:///nowhere/l.sock")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no daemon answers at unix:///nowhere/l.sock: No such file" in result.stderr
    assert "start one with `logroute run`, or say with --api where it is" in result.stderr


def test_who_may_not_ask_is_told_who_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may connect to any socket, so that its refusal is said here."""

    def refuse(self: object, path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("logroute.api.client.socket.socket.connect", refuse)
    result = answer("ps", "--api", "unix:///run/l.sock")
    assert result.exit_code == 1
    assert "unix:///run/l.sock cannot be asked: Permission denied; the owner and the group" in result.stderr
