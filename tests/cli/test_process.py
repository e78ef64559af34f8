"""What the process imports, and what it does not before somebody uses it."""

import subprocess
import sys

import pytest


def said_by(code: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout


@pytest.mark.parametrize("command", ["run", "tail", "ps", "top"])
def test_openssl_is_not_loaded_by_who_does_not_speak_tls(command: str) -> None:
    code = f"""
import sys
from logroute.cli import main
main(["{command}", "--help"], standalone_mode=False)
import logroute.sources.docker, logroute.sinks.file, logroute.sinks.syslog
print(sorted({{"_ssl", "_hashlib", "asyncio", "rich.console"}} & set(sys.modules)))
"""
    assert said_by(code).splitlines()[-1] == "[]"


def test_what_is_imported_later_is_the_module_itself() -> None:
    code = """
from logroute.cli import main
main(["run", "--help"], standalone_mode=False)
import trio
held = trio._ssl._stdlib_ssl
error = held.SSLEOFError()
import ssl, hmac, secrets, pydantic.types
print(held is ssl, isinstance(error, ssl.SSLEOFError), held.SSLContext is ssl.SSLContext)
print(type(ssl).__name__, secrets.compare_digest("a", "a"), pydantic.types.secrets.compare_digest("a", "b"))
print(hasattr(held, "what_is_not_there"))
"""
    assert said_by(code).splitlines()[-3:] == ["False True True", "module True False", "False"]
