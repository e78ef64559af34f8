"""Names that shells complete, with their own programs, of a daemon that runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from logroute.api.address import Address
from logroute.cli import names
from tests.api.running import client_of
from tests.cli.test_tail import an_engine

BASH = """
source <(logroute completion bash)
COMP_WORDS=($LINE) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
[[ $LINE == *" " ]] && COMP_WORDS+=("") && COMP_CWORD=$((COMP_CWORD + 1))
_logroute_completion logroute "" ""
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = """
logroute completion fish | source
complete -C "$LINE"
"""
ZSH = """
compdef() { :; }
_describe() { print -l -- "${(@)completions_with_descriptions%%:*}"; }
compadd() { print -l -- "${completions[@]}"; }
source <(logroute completion zsh)
words=(${(z)LINE}) CURRENT=${#words}
[[ $LINE == *" " ]] && words+=("") && CURRENT=$((CURRENT + 1))
_logroute_completion
"""
SHELLS = {"bash": BASH, "fish": FISH, "zsh": ZSH}


@pytest.mark.parametrize("shell", list(SHELLS))
async def test_shells_complete_names_of_containers_and_routes(tmp_path: Path, shell: str) -> None:
    """What a shell would run, or cut, if it stood in a command is not offered."""
    if (interpreter := shutil.which(shell)) is None:
        pytest.skip(f"no {shell} here")
    program = tmp_path / "bin" / "logroute"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m logroute "$@"\n')
    program.chmod(0o755)

    async def offered(line: str) -> list[str]:
        with trio.fail_after(30):
            done = await trio.run_process(
                [interpreter, "-c", SHELLS[shell]],
                env={
                    **os.environ,
                    "PATH": f"{program.parent}:{os.environ['PATH']}",
                    "LOGROUTE_API": api,
                    "LINE": line,
                    "HOME": str(tmp_path),
                },
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        assert done.stderr == b""
        return sorted(each.partition("\t")[0] for each in done.stdout.decode().split("\n") if each)

    async with an_engine(tmp_path, daemon=True) as e:
        api = e.api
        for name in (
            "web-2",
            "web_日本",
            f"web$(touch {tmp_path}/pwned)",
            "web;x",
            "web\nnl",
            "web x",
            "web,y",
            "web:z",
        ):
            e.engine.create(name).start()
        async with client_of(Address.parse(api)) as client:
            with trio.fail_after(20):
                while len((await client.get("/v1/containers")).json()["containers"]) < 10:  # noqa: ASYNC110  # asked over HTTP
                    await trio.sleep(0.02)
        assert await offered("logroute tail we") == ["web", "web-2", "web_日本"]
        assert await offered("logroute explain web-") == ["web-2"]
        assert await offered("logroute tail -n 5 --route a") == ["all"]
        assert await offered("logroute routes pause ") == ["all"]
        assert await offered("logroute deadletters show a") == ["all"]
    assert await offered("logroute tail we") == []
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["-rf", "--help", "+x", ".x", ""])
def test_what_would_be_an_option_is_not_offered(name: str) -> None:
    assert names._HARMLESS.fullmatch("web-1.x+y")
    assert names._HARMLESS.fullmatch(name) is None


def test_where_nobody_answers_nothing_is_offered_and_nothing_said(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "_LOGROUTE_COMPLETE": "bash_complete",
        "COMP_WORDS": f"logroute explain --api unix://{tmp_path}/none.sock w",
        "COMP_CWORD": "4",
    }
    done = subprocess.run(
        [sys.executable, "-m", "logroute"], env=environment, capture_output=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == (b"", b"")
