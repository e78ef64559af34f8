"""Variables in the texts of a configuration: `${VAR}`, `${VAR:-default}` and `${file:/run/secrets/x}`.

A default may hold braces and further variables. Where there is a default, an empty variable counts as one
that is not set, as in a shell. `$${` is a literal `${`; every other `$` is itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from logroute.config.hidden import SECRET_NAME, Secret
from logroute.config.problems import did_you_mean

SECRET_LIMIT_BYTES = 1 << 20
"""More than any key or certificate has; a device has no end."""

SECRET_CHARACTERS = 8
"""`AUTH=none` is called like a secret and is none; one that was made to be one is longer."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Filled(str):
    """A text in which variables stood; what came from outside is nothing to be shown."""

    __slots__ = ("harmless", "reference", "secrets", "values")
    reference: str
    """As it was written."""
    harmless: str
    """With a word for each variable (`named`): to be told about what stands around them."""
    values: tuple[str, ...]
    """What came from the environment and from files."""
    secrets: tuple[Secret, ...]
    """Of that what nobody shall be shown, whoever speaks of it: what came from files, and from variables that
    are called like secrets."""

    @classmethod
    def of(
        cls, text: str, reference: str, harmless: str, values: tuple[str, ...], secrets: tuple[Secret, ...]
    ) -> Filled:
        filled = cls(text)
        filled.reference, filled.harmless, filled.values = reference, harmless, values
        filled.secrets = secrets
        return filled


class Variables(msgspec.Struct, frozen=True):
    """Where variables come from."""

    environ: Mapping[str, str]
    folder: Path
    """What the paths of files are relative to: the folder of the configuration."""

    def fill(self, text: str, tell: Callable[[str], None]) -> str:
        """The text with its variables filled in, `Filled` where anything came from outside.

        `tell` is called with each mistake; never raises.
        """
        if "${" not in text:
            return text
        pieces = list(self._pieces(text, tell))
        filled = "".join(value for value, _ in pieces)
        values = tuple(value for value, name in pieces if name and value)
        if not values:
            return filled
        harmless = "".join(_word(name) if name else value for value, name in pieces)
        secrets = tuple((f"${{{name}}}", value) for value, name in pieces if _is_secret(value, name))
        return Filled.of(filled, text, harmless, values, secrets)

    def _pieces(self, text: str, tell: Callable[[str], None]) -> Iterator[tuple[str, str]]:
        """What the text becomes, piece by piece; with what came from outside comes its name.

        That of a file is `file:PATH`, which no variable is called.
        """
        at = 0
        while (found := text.find("${", at)) >= 0:
            if found > at and text[found - 1] == "$":
                yield text[at : found - 1] + "${", ""
                at = found + 2
                continue
            end = _closing_brace(text, found + 2)
            if end is None:
                tell("a `${` without its `}`; write $${ for a literal ${")
                break
            yield text[at:found], ""
            yield from self._value(text[found + 2 : end], tell)
            at = end + 1
        yield text[at:], ""

    def _value(self, inside: str, tell: Callable[[str], None]) -> Iterator[tuple[str, str]]:
        if inside.startswith("file:"):
            yield self._secret(inside.removeprefix("file:"), tell), inside
            return
        name, has_default, default = inside.partition(":-")
        if not _NAME.fullmatch(name):
            tell(
                f"${{{inside}}} names no variable: there are ${{NAME}}, ${{NAME:-default}} and "
                "${file:PATH}; write $${ for a literal ${"
            )
            return
        value = self.environ.get(name, "")
        if value:
            yield value, name
        elif has_default:
            yield from self._pieces(default, tell)
        elif name not in self.environ:
            hint = did_you_mean(name, self.environ) or f"; ${{{name}:-…}} would give a default"
            tell(f"the variable {name} is not set{hint}")

    def _secret(self, path: str, tell: Callable[[str], None]) -> str:
        try:
            with (self.folder / path).open("rb") as file:
                raw = file.read(SECRET_LIMIT_BYTES + 1)
            if len(raw) > SECRET_LIMIT_BYTES:
                raise ValueError("larger than 1 MiB")
            return raw.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            tell(f"cannot read {path}: not UTF-8 text")
        except (OSError, ValueError) as error:
            tell(f"cannot read {path}: {getattr(error, 'strerror', None) or error}")
        return ""


def _is_secret(value: str, name: str) -> bool:
    if name.startswith("file:"):
        return bool(value)
    return len(value) >= SECRET_CHARACTERS and SECRET_NAME.search(name) is not None


def _word(name: str) -> str:
    """A word that nothing treats as anything else, and that nobody has written."""
    return f"xVARx{name.partition(':')[0]}xVARx"


def named(text: str) -> str:
    """A text about a `harmless` one, with `${NAME}` for its words."""
    return re.sub(r"xVARx(\w+?)xVARx", r"${\1}", text, flags=re.IGNORECASE)


def _closing_brace(text: str, start: int) -> int | None:
    """Where the brace that was opened just before `start` is closed: templates have braces of their own."""
    depth = 1
    for at in range(start, len(text)):
        if text[at] == "{":
            depth += 1
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return at
    return None
